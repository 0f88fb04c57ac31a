//! Who owns the state folder.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};

use crate::error::AgentError;
use crate::state::StateDir;

const LOCK: &str = "agent.lock";
const SOCKET: &str = "agent.sock";

/// A Unix socket's address holds no longer path on any system we run on (104 bytes on BSDs, 108 on Linux).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// The folder is ours, until this is dropped or the process dies: the lock is the kernel's, so a crash leaves
/// none behind. Its file stays: whoever removed it could take it from under somebody who has just opened it.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, or `None` when somebody else has it.
    pub(crate) fn take(state: &StateDir) -> Result<Option<Self>, AgentError> {
        let path = state.path().join(LOCK);
        let failed = |source| AgentError::File { path: path.clone(), doing: "locked", source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// The folder is ours and its socket is bound. A socket file without a lock is a leftover.
#[derive(Debug)]
pub(crate) struct Ownership {
    _lock: FolderLock,
    socket: PathBuf,
}

impl Ownership {
    /// Takes the folder, or `None` when somebody else has it.
    pub(crate) fn take(state: &StateDir) -> Result<Option<(Self, UnixListener)>, AgentError> {
        let Some(lock) = FolderLock::take(state)? else { return Ok(None) };
        let socket = state.path().join(SOCKET);
        let listener = bind(&socket).map_err(|source| AgentError::File {
            path: socket.clone(),
            doing: "listened on",
            source,
        })?;
        Ok(Some((Self { _lock: lock, socket }, listener)))
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // While the lock is still held: the next owner's file is never removed. A leftover is harmless.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else gets in between: the folder has mode 0700.
    let listener = at_short_path(socket, |path| UnixListener::bind(path))?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the agent that owns the folder.
pub(crate) fn connect(state: &StateDir) -> io::Result<UnixStream> {
    let stream =
        at_short_path(&state.path().join(SOCKET), |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Calls `act` with the path, or where that is too long for a socket's address with one through an open file
/// descriptor of its folder.
fn at_short_path<T>(socket: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return act(socket);
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else { return act(socket) };
    let folder = File::open(folder)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn one_owner_at_a_time_and_the_socket_is_private() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::create(temporary.path().join("state")).unwrap();
        let (first, _listener) = Ownership::take(&state).unwrap().unwrap();
        assert!(Ownership::take(&state).unwrap().is_none());
        let socket = state.path().join(SOCKET);
        assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
        connect(&state).unwrap();
        drop(first);
        assert!(!socket.exists());
        assert!(Ownership::take(&state).unwrap().is_some());
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::create(temporary.path().join("state")).unwrap();
        // A bound socket whose listener is gone, and nobody holds the lock: what a killed agent leaves.
        drop(UnixListener::bind(state.path().join(SOCKET)).unwrap());
        assert_eq!(connect(&state).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (_ownership, _listener) = Ownership::take(&state).unwrap().unwrap();
        connect(&state).unwrap();
    }

    #[tokio::test]
    async fn a_folder_with_a_long_name_works_as_well() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::create(temporary.path().join("d".repeat(120))).unwrap();
        let (_ownership, _listener) = Ownership::take(&state).unwrap().unwrap();
        connect(&state).unwrap();
    }
}
