//! The head mark: how far the store had come for certain.
//!
//! It holds the revision, and of RocksDB's manifest, the file that names all others, how long it was and its checksum.
//! RocksDB takes a manifest without its tail for one that ends there, and what it no longer names for garbage; a
//! flipped bit in the length of a record is enough for that.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use underpass_store::{BoxError, Revision};

use crate::folder;

const FILE: &str = "HEAD";

/// How far the mark may lag behind the store while it is written to.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The revision that had been reached.
    pub(crate) revision: Revision,
    manifest: Manifest,
}

/// Which manifest there is, and how much of it. Their numbers rise, and each only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manifest {
    number: u64,
    bytes: u64,
    /// Over these bytes. Marks of earlier builds have none.
    checksum: Option<u32>,
}

impl Manifest {
    /// The one that RocksDB goes by now, all of it on disk. It is small: some hundred bytes for each file.
    fn current(folder: &Path) -> io::Result<Self> {
        let (number, content) = Self::read(folder)?;
        Ok(Self { number, bytes: content.len() as u64, checksum: Some(crc32c::crc32c(&content)) })
    }

    /// Its number and its content.
    fn read(folder: &Path) -> io::Result<(u64, Vec<u8>)> {
        let strange = || io::Error::other("CURRENT does not name a manifest");
        let database = folder.join("db");
        let name = fs::read_to_string(database.join("CURRENT"))?;
        let name = name.trim_end();
        let number = name.strip_prefix("MANIFEST-").and_then(|number| number.parse().ok());
        let mut file = File::open(database.join(name))?;
        file.sync_data()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok((number.ok_or_else(strange)?, content))
    }
}

impl Mark {
    /// Refuses a manifest that has other bytes than were marked. One that is another, or shorter, or can't be read,
    /// is for RocksDB and [`check_manifest`](Self::check_manifest) to judge.
    pub(crate) fn check_content(&self, folder: &Path) -> Result<(), BoxError> {
        let Manifest { number, bytes, checksum: Some(checksum) } = self.manifest else { return Ok(()) };
        let Ok((found, content)) = Manifest::read(folder) else { return Ok(()) };
        match usize::try_from(bytes).ok().and_then(|bytes| content.get(..bytes)) {
            Some(marked) if found == number && crc32c::crc32c(marked) != checksum => {
                Err(format!("manifest {number} is damaged: its first {bytes} bytes are not what they were")
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses a manifest that is older or shorter than the one that was marked.
    pub(crate) fn check_manifest(&self, folder: &Path) -> Result<(), BoxError> {
        let (marked, found) = (self.manifest, Manifest::current(folder)?);
        let lost =
            found.number < marked.number || (found.number == marked.number && found.bytes < marked.bytes);
        if lost {
            return Err(format!(
                "manifest {} has {} bytes, but manifest {} had {}: something was cut off or put back",
                found.number, found.bytes, marked.number, marked.bytes
            )
            .into());
        }
        Ok(())
    }
}

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
    pub(crate) fn read(folder: &Path) -> Result<Option<Mark>, BoxError> {
        match fs::read(folder.join(FILE)) {
            Ok(bytes) => Ok(Some(parse(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the mark. `revision` must be on disk already.
    pub(crate) fn write(folder: &Path, revision: Revision) -> io::Result<()> {
        let mark = Mark { revision, manifest: Manifest::current(folder)? };
        folder::replace(folder, FILE, &text(mark))
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

fn text(Mark { revision, manifest }: Mark) -> String {
    let checksum = manifest.checksum.map(|checksum| format!(" {checksum}")).unwrap_or_default();
    let line = format!("revision {revision} manifest {} {}{checksum}", manifest.number, manifest.bytes);
    format!("{line} crc32c {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn parse(bytes: &[u8]) -> Result<Mark, BoxError> {
    let words = |text: &str| {
        let mut words = text.split(' ');
        let mut number = |name: &str| -> Option<u64> {
            (name.is_empty() || words.next()? == name).then_some(())?;
            words.next()?.parse().ok()
        };
        let revision = Revision(number("revision")?);
        let (number, bytes) = (number("manifest")?, number("")?);
        let checksum = words.next().and_then(|word| word.parse().ok());
        Some(Mark { revision, manifest: Manifest { number, bytes, checksum } })
    };
    match std::str::from_utf8(bytes).ok().and_then(words) {
        Some(mark) if text(mark).as_bytes() == bytes => Ok(mark),
        _ => Err("the head mark (HEAD) is damaged".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_any_bit_flipped_is_refused() {
        for checksum in [Some(3_735_928_559), None] {
            let meant =
                Mark { revision: Revision(1842), manifest: Manifest { number: 15, bytes: 281, checksum } };
            let mark = text(meant).into_bytes();
            assert_eq!(parse(&mark).unwrap(), meant);
            for bit in 0..mark.len() * 8 {
                let mut flipped = mark.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&flipped).is_err(), "bit {bit}");
            }
        }
        assert!(parse(b"").is_err());
    }

    #[test]
    fn a_mark_is_due_a_second_after_the_first_commit_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("db")).unwrap();
        fs::write(folder.path().join("db/CURRENT"), "MANIFEST-000004\n").unwrap();
        fs::write(folder.path().join("db/MANIFEST-000004"), "made up").unwrap();
        let start = Instant::now();
        let mut head = HeadMark::new(folder.path(), Revision(0));
        assert_eq!(head.due(), None);
        head.reached(Revision(1), start);
        head.reached(Revision(2), start + MARK_EVERY / 2);
        assert_eq!(head.due(), Some(start + MARK_EVERY));
        head.tick(Revision(2), start + MARK_EVERY / 2);
        assert_eq!(HeadMark::read(folder.path()).unwrap(), None);
        head.tick(Revision(2), start + MARK_EVERY);
        let mark = HeadMark::read(folder.path()).unwrap().unwrap();
        assert_eq!(mark.revision, Revision(2));
        let checksum = Some(crc32c::crc32c(b"made up"));
        assert_eq!(mark.manifest, Manifest { number: 4, bytes: 7, checksum });
        assert_eq!(head.due(), None);
    }

    #[test]
    fn a_manifest_may_grow_and_be_followed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("db")).unwrap();
        let set = |number: u64, bytes: usize| {
            let name = format!("MANIFEST-{number:06}");
            fs::write(folder.path().join("db").join(&name), vec![0; bytes]).unwrap();
            fs::write(folder.path().join("db/CURRENT"), format!("{name}\n")).unwrap();
        };
        set(10, 200);
        HeadMark::write(folder.path(), Revision(1)).unwrap();
        let mark = HeadMark::read(folder.path()).unwrap().unwrap();
        for (number, bytes, good) in
            [(10, 200, true), (10, 300, true), (15, 20, true), (10, 199, false), (9, 900, false)]
        {
            set(number, bytes);
            assert_eq!(mark.check_manifest(folder.path()).is_ok(), good, "{number} {bytes}");
        }
    }
}
