//! Writing everything, with an eye on where it came from.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::drive::Flow;
use crate::duplex::WriteHalf;

/// Which end of a move failed.
#[derive(Debug)]
pub(crate) enum MoveError {
    From(io::Error),
    To(io::Error),
}

/// Writes all of `bytes`; `progress` is told of each piece that left.
pub(crate) async fn write_all(
    to: &mut WriteHalf<'_>,
    mut bytes: &[u8],
    mut progress: impl FnMut(usize),
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = write_some(to, bytes).await?;
        progress(written);
        bytes = &bytes[written..];
    }
    flush(to).await
}

/// Writes once.
pub(crate) async fn write_some(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| {
        let written = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    })
    .await
}

/// Hands on what a stream may keep inside. TCP keeps nothing.
pub(crate) async fn flush(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *to).poll_flush(cx)).await
}

/// Says the end of a stream.
pub(crate) async fn shut(to: &mut (impl AsyncWrite + Unpin), flow: &Flow<'_>) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *to).poll_shutdown(cx)).await?;
    flow.touch();
    Ok(())
}

/// Runs a write and, while it has to wait, notices when the stream its bytes came from breaks: a
/// reader that stalls must not hide that nobody is there to read for.
pub(crate) async fn unless_broken(
    write: impl Future<Output = io::Result<()>>,
    from: Option<&TcpStream>,
) -> Result<(), MoveError> {
    let mut write = pin!(write);
    let first = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
    if let Poll::Ready(written) = first {
        return written.map_err(MoveError::To);
    }
    tokio::select! {
        biased;
        written = write => written.map_err(MoveError::To),
        failure = broken(from) => Err(MoveError::From(failure)),
    }
}

/// Waits until a connection is broken (reset, mostly). Streams that can't tell never answer.
pub(crate) async fn broken(stream: Option<&TcpStream>) -> io::Error {
    let Some(stream) = stream else { return std::future::pending().await };
    match stream.ready(Interest::ERROR).await {
        Err(failure) => failure,
        Ok(_) => match stream.take_error() {
            Ok(Some(failure)) | Err(failure) => failure,
            Ok(None) => io::ErrorKind::ConnectionReset.into(),
        },
    }
}
