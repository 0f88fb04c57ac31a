//! The folder of a store: whose it is, in which format, and who uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::open::OpenError;

/// The format this program writes, and the only one it reads.
pub(crate) const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "underpass.lock";
const TITLE: &str = "underpass-store-rocksdb";

/// A marker is a few words; what is longer is none.
const FORMAT_BYTES_MAX: u64 = 256;

/// A locked folder that is ours.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    state: State,
    /// Held for as long as the folder is: the system lets go of it when the process dies.
    _lock: File,
}

/// How far the making of a store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was ever stored here; making the store may have been interrupted.
    New,
    /// There is a store.
    Ready,
}

impl Folder {
    /// Takes `path`, which is a folder of ours, or empty, or missing. Touches nothing else.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => refuse_foreign(path)?,
            Ok(_) => return Err(OpenError::Foreign { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path).map_err(io)?,
            Err(error) => return Err(io(error)),
        }
        let lock = lock(path)?;
        let state = if let Some(state) = read_format(path)? {
            state
        } else {
            write_format(path, State::New).map_err(io)?;
            State::New
        };
        Ok(Self { path: path.to_owned(), state, _lock: lock })
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where RocksDB lives.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Notes that the store is made.
    pub(crate) fn ready(&mut self) -> io::Result<()> {
        write_format(&self.path, State::Ready)?;
        self.state = State::Ready;
        Ok(())
    }
}

/// Writes a small file so that after a crash it is either the old one or the new one, whole.
pub(crate) fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let draft = folder.join(format!("{name}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// A folder that holds anything, but no marker, belongs to somebody else. The lock and a draft of the
/// marker may be there from a start that was cut off.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if path.join(FORMAT_FILE).try_exists().map_err(io)? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if name != LOCK_FILE && name != "FORMAT.new" {
            return Err(OpenError::Foreign { path: path.to_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK_FILE)).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn write_format(path: &Path, state: State) -> io::Result<()> {
    let state = match state {
        State::New => "new",
        State::Ready => "ready",
    };
    replace(path, FORMAT_FILE, &format!("{TITLE}\nformat {FORMAT}\nstate {state}\n"))
}

/// `None`: there is no marker yet.
fn read_format(path: &Path) -> Result<Option<State>, OpenError> {
    let file = path.join(FORMAT_FILE);
    let read = |file: &Path| {
        if fs::metadata(file)?.len() > FORMAT_BYTES_MAX { Ok(Vec::new()) } else { fs::read(file) }
    };
    let bytes = match read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path: file, source }),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let foreign = || OpenError::Foreign { path: path.to_owned() };
    if lines.next() != Some(TITLE) {
        return Err(foreign());
    }
    let format: u32 = lines
        .next()
        .and_then(|line| line.strip_prefix("format "))
        .and_then(|number| number.parse().ok())
        .ok_or_else(foreign)?;
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    match (format, lines.next()) {
        (FORMAT, Some("state new")) => Ok(Some(State::New)),
        (FORMAT, Some("state ready")) => Ok(Some(State::Ready)),
        _ => Err(foreign()),
    }
}
