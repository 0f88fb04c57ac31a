//! The head mark: how far the store had come for certain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use underpass_store::{BoxError, Revision};

use crate::folder;

const FILE: &str = "HEAD";

/// How far the mark may lag behind the store while it is written to.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the mark up to date.
#[derive(Debug)]
pub(crate) struct HeadMark {
    folder: PathBuf,
    marked: Revision,
    /// When the next mark is due; `None` while there is nothing new to mark.
    due: Option<Instant>,
    failing: bool,
}

impl HeadMark {
    /// Goes on from a mark that stands at `marked`.
    pub(crate) fn new(folder: &Path, marked: Revision) -> Self {
        Self { folder: folder.to_owned(), marked, due: None, failing: false }
    }

    /// What the mark says; `None` where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Revision>, BoxError> {
        match fs::read(folder.join(FILE)) {
            Ok(bytes) => Ok(Some(parse(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the mark. `revision` must be on disk already.
    pub(crate) fn write(folder: &Path, revision: Revision) -> io::Result<()> {
        folder::replace(folder, FILE, &text(revision))
    }

    /// Notes that the store has come to `revision`, and has synced it.
    pub(crate) fn reached(&mut self, revision: Revision, now: Instant) {
        if revision > self.marked && self.due.is_none() {
            self.due = Some(now + MARK_EVERY);
        }
    }

    /// When [`tick`](Self::tick) ought to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes the mark if it is due.
    pub(crate) fn tick(&mut self, revision: Revision, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.mark(revision, now);
        }
    }

    /// Writes the mark if it lags. A failure costs safety, not data: it is told once and tried again.
    pub(crate) fn mark(&mut self, revision: Revision, now: Instant) {
        self.due = None;
        if revision == self.marked {
            return;
        }
        match Self::write(&self.folder, revision) {
            Ok(()) => {
                self.marked = revision;
                self.failing = false;
            }
            Err(error) => {
                if !self.failing {
                    tracing::error!(folder = %self.folder.display(), %error, "the head mark can't be written");
                }
                self.failing = true;
                self.due = Some(now + MARK_EVERY);
            }
        }
    }
}

fn text(revision: Revision) -> String {
    let line = format!("revision {revision}");
    format!("{line} crc32c {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn parse(bytes: &[u8]) -> Result<Revision, BoxError> {
    let revision = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_prefix("revision "))
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(number, _)| number.parse().ok())
        .map(Revision);
    match revision {
        Some(revision) if text(revision).as_bytes() == bytes => Ok(revision),
        _ => Err("the head mark (HEAD) is damaged".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_any_bit_flipped_is_refused() {
        let mark = text(Revision(1842)).into_bytes();
        assert_eq!(parse(&mark).unwrap(), Revision(1842));
        for bit in 0..mark.len() * 8 {
            let mut flipped = mark.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped).is_err(), "bit {bit}");
        }
        assert!(parse(b"").is_err());
    }

    #[test]
    fn a_mark_is_due_a_second_after_the_first_commit_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut head = HeadMark::new(folder.path(), Revision(0));
        assert_eq!(head.due(), None);
        head.reached(Revision(1), start);
        head.reached(Revision(2), start + MARK_EVERY / 2);
        assert_eq!(head.due(), Some(start + MARK_EVERY));
        head.tick(Revision(2), start + MARK_EVERY / 2);
        assert_eq!(HeadMark::read(folder.path()).unwrap(), None);
        head.tick(Revision(2), start + MARK_EVERY);
        assert_eq!(HeadMark::read(folder.path()).unwrap(), Some(Revision(2)));
        assert_eq!(head.due(), None);
    }
}
