//! What stands behind every tunnel under measure: a server that answers at once, or never ends.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Asks for a tiny answer and keeps the connection.
pub const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: underpass-load\r\nAccept: */*\r\n\r\n";

/// Asks for a tiny answer and the end of the connection.
pub const REQUEST_CLOSE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: underpass-load\r\nConnection: close\r\n\r\n";

/// Asks for bytes without end.
pub const REQUEST_STREAM: &[u8] = b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n";

/// The tiny answer.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

/// The longest request there is; more is garbage.
const REQUEST_BYTES_MAX: usize = 4096;

/// Bytes of one write of the endless answer.
const STREAM_CHUNK: usize = 256 * 1024;

/// Answers whoever connects, until the listener fails.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        // A caller that goes away is no failure of the target.
        connections.spawn(async move { answer(stream).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut asked = Vec::with_capacity(REQUEST_BYTES_MAX);
    loop {
        while !asked.ends_with(b"\r\n\r\n") {
            if asked.len() >= REQUEST_BYTES_MAX || stream.read_buf(&mut asked).await? == 0 {
                return Ok(());
            }
        }
        if asked == REQUEST_STREAM {
            let chunk = vec![0x5a; STREAM_CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        stream.write_all(ANSWER).await?;
        if asked == REQUEST_CLOSE {
            return stream.shutdown().await;
        }
        asked.clear();
    }
}
