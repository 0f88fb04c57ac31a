//! Plain TCP.

mod connector;
mod listener;

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub use connector::TcpConnector;
pub use listener::TcpListener;

/// The transport's name.
pub const NAME: &str = "tcp";

/// After this much silence the kernel asks whether the other end is still there...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// ...this often...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ...and gives up after so many unanswered questions: a dead peer is noticed within a minute.
const KEEPALIVE_RETRIES: u32 = 3;

/// Sets what all sockets of ours have: no delay for small writes, and keepalive.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
