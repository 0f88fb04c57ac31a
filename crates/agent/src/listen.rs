//! Listening for callers.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::error::AgentError;
use crate::serving::Served;

/// Callers that the kernel holds while the agent is busy.
const BACKLOG: i32 = 1024;
/// Callers of one mapping at once, whatever the server allows. Each takes three sockets on this machine.
const CALLERS_MAX: usize = 4096;
/// When no file descriptor is left, accepting pauses and resumes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of one mapping that runs.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    /// Cancelled when the socket is closed.
    closed: CancellationToken,
}

/// Binds exactly this address: `[::]` is IPv6 alone, and a port that somebody listens on is refused.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let bound = (|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Connections of an earlier listener that are still winding down don't keep the port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    })();
    bound.map_err(|error: std::io::Error| {
        let in_use = error.kind() == ErrorKind::AddrInUse;
        let why = if in_use { "the port is in use by another program".to_owned() } else { error.to_string() };
        AgentError::Listen { address, in_use, why }
    })
}

impl Listening {
    pub(crate) fn start(
        core: &Arc<Core>,
        served: &Arc<Served>,
        listener: TcpListener,
        address: SocketAddr,
    ) -> Self {
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        let (core, served) = (core.clone(), served.clone());
        let (stopped, done) = (stop.clone(), closed.clone());
        core.clone().tasks.spawn_job("listener", |draining| async move {
            let _done = done.drop_guard();
            // After the guard, so that it is dropped before: closed means closed.
            let listener = listener;
            tokio::select! {
                () = accept(&core, &served, &listener) => {}
                () = stopped.cancelled() => {}
                () = core.closing.cancelled() => {}
                () = draining.cancelled() => {}
            }
            Ok::<_, Infallible>(())
        });
        Self { address, stop, closed }
    }

    /// Closes the socket and waits until it is closed.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.closed.cancelled().await;
    }
}

/// Dropped without [`Listening::stop`]: the socket closes all the same, a moment later.
impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(core: &Arc<Core>, served: &Arc<Served>, listener: &TcpListener) {
    let slots = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_about_the_caller(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "accepting pauses");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            refuse(stream);
            continue;
        };
        let (core, served) = (core.clone(), served.clone());
        core.clone().tunnels.spawn_job("caller", |_| async move {
            let _slot = slot;
            crate::dial::serve_caller(&core, &served, stream, caller).await;
            Ok::<_, Infallible>(())
        });
    }
}

/// Errors of accept that a caller who went away causes.
fn is_about_the_caller(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// The caller was accepted by the kernel before anything was tried; a reset tells it that there is nothing.
pub(crate) fn refuse(stream: TcpStream) {
    // Fails only on a socket that is gone.
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c22_a_port_in_use_is_told_apart() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert_eq!(error.code(), "listen.in_use");
        assert!(error.to_string().contains(&address.to_string()));
        let elsewhere = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(elsewhere.code(), "listen.failed");
    }

    #[tokio::test]
    async fn c22_exactly_the_address_asked_for_is_bound() {
        let one = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = one.local_addr().unwrap().port();
        // Another address of the same machine is another listener.
        let two = bind(SocketAddr::from(([127, 0, 0, 2], port))).unwrap();
        assert_eq!(two.local_addr().unwrap(), SocketAddr::from(([127, 0, 0, 2], port)));
        assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 3], port))).await.is_err());
    }
}
