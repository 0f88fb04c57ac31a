//! One caller of a public port.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use underpass_domain::MappingId;
use underpass_gateway::Gateway;
use underpass_relay::Duplex;

/// What a caller may have sent before it is served; goes out with the request to open the tunnel. One record.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// A caller that vanished without a word is noticed after `idle + interval * retries`, two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// Gives the caller its tunnel and stays until that is over, or resets it.
pub(crate) async fn serve(gateway: &Gateway, mapping: MappingId, stream: TcpStream, caller: SocketAddr) {
    prepare(&stream);
    let early = first_bytes(&stream);
    let opened = tokio::select! {
        opened = gateway.open(mapping, caller, early) => opened,
        // The caller reset its side; no need to go on for it. A mere half-close is no reason to stop.
        _ = stream.ready(Interest::ERROR) => return,
    };
    match opened {
        Ok(tunnel) => {
            let ended = tunnel.run(Duplex::Tcp(stream)).await;
            tracing::debug!(%mapping, %caller, ?ended, "tunnel over");
        }
        Err(error) => {
            tracing::debug!(%mapping, %caller, %error, "no tunnel");
            reset(&stream);
        }
    }
}

/// Small writes go out at once, and a vanished peer is noticed. Neither is worth losing a caller over.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    if let Err(error) =
        stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, "socket options of a caller");
    }
}

/// What is there already. Asked of the kernel: tokio learns of readiness only at its next turn.
fn first_bytes(stream: &TcpStream) -> Bytes {
    let mut buffer = BytesMut::zeroed(EARLY_BYTES_MAX);
    match rustix::net::recv(stream, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((_, count)) => {
            // Most of the time little or nothing is there, and the tunnel may last long.
            Bytes::copy_from_slice(&buffer[..count])
        }
        Err(_) => Bytes::new(), // Nothing yet; a real error shows again when the stream is read.
    }
}

/// Makes the end of the stream a reset: the caller learns at once that there is nobody.
pub(crate) fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a caller is closed instead of reset");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn the_first_bytes_are_taken_once_and_the_rest_follows() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"hello").await.unwrap();
        let early = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let early = first_bytes(&far);
                if !early.is_empty() {
                    break early;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(early, "hello");
        near.write_all(b" again").await.unwrap();
        let mut rest = [0; 6];
        far.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b" again");
    }

    #[tokio::test]
    async fn nothing_sent_is_no_first_bytes() {
        let (_near, far) = pair().await;
        assert!(first_bytes(&far).is_empty());
    }

    #[tokio::test]
    async fn c27_a_caller_without_a_tunnel_is_reset_not_closed() {
        let (mut near, far) = pair().await;
        reset(&far);
        drop(far);
        let error = near.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
