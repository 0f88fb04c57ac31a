//! The local socket: one agent per state folder, shared by all verbs.
//!
//! The first verb that needs a link owns the folder (a lock on `agent.lock`) and listens on `agent.sock`, mode
//! 0600. Others send their request there. When the owner ends, a waiting one takes over, and the mappings go
//! on: they live on the server, the allow list in the folder. `join` holds the lock as well, without a socket.
//!
//! A connection carries one request, a JSON object on one line, and its answer: a line `{"answer": …}` or
//! `{"error": …}`, for events a line `{"event": …}` each.

mod attach;
mod client;
mod lock;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

pub use attach::{Attached, Attachment, attach};
pub use client::{LocalClient, RemoteEvents};
pub(crate) use lock::{FolderLock, Ownership};
pub(crate) use server::serve;

use crate::error::ErrorReport;
use crate::events::AgentEvent;
use crate::verbs::{Connect, Expose, Share};

/// The longest line either way. A list of all mappings a client may have fits; nothing larger is read into
/// memory.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", content = "args", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Expose(Expose),
    Share(Share),
    Connect(Connect),
    List,
    Remove { mapping: String },
    Status,
    History { mapping: String },
    Events,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Answer(Value),
    Error(ErrorReport),
    Event(AgentEvent),
}

/// Reads one line of at most [`LINE_BYTES_MAX`] bytes. `None` at the end of the stream.
pub(crate) async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        _ if read > LINE_BYTES_MAX => Err(std::io::Error::other("a line over the limit")),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The line of a value, with its end.
pub(crate) fn line<T: Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    if line.len() > LINE_BYTES_MAX {
        return Err(std::io::Error::other("a line over the limit"));
    }
    line.push(b'\n');
    Ok(line)
}
