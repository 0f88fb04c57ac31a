//! Old frames in files: what a store need not hold any more, and an auditor still wants.
//!
//! The layout is that of an object store, so that one can take the place of the folder: immutable objects,
//! written once and whole, under names that say what is in them:
//!
//! ```text
//! <log id>/<log>/<first position, 20 digits>-<last position, 20 digits>.frames
//! ```
//!
//! `docs/format/archive-v1.md` has the bytes. An archive is proved by the chain alone: its frames follow on each
//! other, and the log follows on the last.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use underpass_domain::{LogId, LogName, Position};

use crate::segment::{self, SegmentError};

/// A segment is closed when it has so many bytes of frames.
pub const SEGMENT_BYTES: usize = 8 << 20;
/// Segments that are kept in memory once read: the one being walked through.
const READ_KEPT: usize = 2;

/// The frames of one segment, by position.
type Frames = Arc<Vec<(Position, Bytes)>>;

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The folder can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// A file is not what was written.
    #[error("{path}: {source}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: SegmentError,
    },
}

impl ArchiveError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "archive.io",
            Self::Damaged { .. } => "archive.damaged",
        }
    }
}

/// The archives in a folder: one for each log that was ever archived there.
#[derive(Debug)]
pub struct Archives {
    root: PathBuf,
    open: Mutex<Vec<Arc<Archive>>>,
}

impl Archives {
    /// The archives below `root`. Nothing is read, or made, before one is asked for.
    pub fn at(root: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { root: root.into(), open: Mutex::default() })
    }

    /// The archive of one log.
    ///
    /// # Errors
    /// Its folder is there and can't be read.
    pub fn of(&self, log: LogName, id: LogId) -> Result<Arc<Archive>, ArchiveError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(archive) = open.iter().find(|archive| (archive.log, archive.id) == (log, id)) {
            return Ok(Arc::clone(archive));
        }
        let archive = Arc::new(Archive::open(&self.root, log, id)?);
        open.push(Arc::clone(&archive));
        Ok(archive)
    }

    /// Those that were asked for.
    pub(crate) fn opened(&self, log: LogName) -> Option<Arc<Archive>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().find(|archive| archive.log == log).cloned()
    }
}

/// Frames of one log in a folder. All calls block: run them where that is allowed.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    log: LogName,
    id: LogId,
    /// First position to last, of all segments.
    segments: Mutex<BTreeMap<Position, Position>>,
    read: Mutex<Vec<(Position, Frames)>>,
}

impl Archive {
    /// The archive of one log below `root`. Nothing is made before something is archived.
    ///
    /// # Errors
    /// The folder is there and can't be read.
    pub fn open(root: &Path, log: LogName, id: LogId) -> Result<Self, ArchiveError> {
        let folder = root.join(id.to_string()).join(log.to_string());
        let mut segments = BTreeMap::new();
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(|source| ArchiveError::Io { path: folder.clone(), source })?;
                    // Other files, and what a crash has left half-written, are none of ours.
                    if let Some((first, last)) = entry.file_name().to_str().and_then(positions) {
                        segments.insert(first, last);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ArchiveError::Io { path: folder, source }),
        }
        Ok(Self { folder, log, id, segments: Mutex::new(segments), read: Mutex::default() })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The log it is of.
    pub fn log(&self) -> LogName {
        self.log
    }

    /// The id of that log.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The newest position in it; 0 if it is empty.
    pub fn until(&self) -> Position {
        self.lock().values().max().copied().unwrap_or_default()
    }

    /// First and last positions of its segments, in order.
    pub fn segments(&self) -> Vec<(Position, Position)> {
        self.lock().iter().map(|(first, last)| (*first, *last)).collect()
    }

    /// Adds frames that follow on each other: written, synced, and only then named. Frames that are there already
    /// may be given again in the same segment after a crash.
    ///
    /// # Errors
    /// Nothing is added then.
    pub(crate) fn add(&self, frames: &[(Position, Bytes)], last: Position) -> Result<(), ArchiveError> {
        let Some((first, _)) = frames.first() else { return Ok(()) };
        let bytes = segment::encode(self.log, self.id, last, frames);
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ArchiveError::Io { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(io(&self.folder))?;
        let path = self.path(*first, last);
        let half = path.with_extension("half");
        let mut file = File::create(&half).map_err(io(&half))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io(&half))?;
        fs::rename(&half, &path).map_err(io(&path))?;
        for folder in self.folder.ancestors().take(3) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))?;
        }
        self.lock().insert(*first, last);
        Ok(())
    }

    /// The stored bytes of frames that begin within `[from, to)`, at most `limit`, in order.
    ///
    /// # Errors
    /// A segment can't be read, or is damaged.
    pub fn frames(
        &self,
        from: Position,
        to: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Bytes)>, ArchiveError> {
        let touched: Vec<_> = {
            let segments = self.lock();
            let before = segments.range(..from).next_back().filter(|(_, last)| **last >= from);
            before.into_iter().chain(segments.range(from..to)).map(|(first, last)| (*first, *last)).collect()
        };
        let mut frames = Vec::new();
        for (first, last) in touched {
            let segment = self.segment(first, last)?;
            let begin = segment.partition_point(|(at, _)| *at < from);
            let wanted = segment[begin..].iter().take_while(|(at, _)| *at < to);
            frames.extend(wanted.take(limit - frames.len()).cloned());
            if frames.len() == limit {
                break;
            }
        }
        Ok(frames)
    }

    fn segment(&self, first: Position, last: Position) -> Result<Arc<Vec<(Position, Bytes)>>, ArchiveError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, segment)) = read.iter().find(|(at, _)| *at == first) {
            return Ok(Arc::clone(segment));
        }
        let path = self.path(first, last);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(source) => return Err(ArchiveError::Io { path, source }),
        };
        let frames = segment::decode(&bytes, self.log, self.id, first, last)
            .map_err(|source| ArchiveError::Damaged { path, source })?;
        let segment = Arc::new(frames);
        if read.len() == READ_KEPT {
            read.remove(0);
        }
        read.push((first, Arc::clone(&segment)));
        Ok(segment)
    }

    fn path(&self, first: Position, last: Position) -> PathBuf {
        self.folder.join(format!("{:020}-{:020}.frames", first.0, last.0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Position, Position>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First and last position, out of the name of a segment.
fn positions(name: &str) -> Option<(Position, Position)> {
    let (first, last) = name.strip_suffix(".frames")?.split_once('-')?;
    let number = |text: &str| {
        let digits = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().map(Position)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first.0 > 0 && first <= last).then_some((first, last))
}
