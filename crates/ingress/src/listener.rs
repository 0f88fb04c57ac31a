//! One public port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use underpass_domain::MappingId;
use underpass_gateway::ListenerState;

use crate::caller;
use crate::ingress::Shared;
use crate::places::PortPlaces;

/// Callers the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// First and longest pause between two attempts to bind a port that is taken.
const BIND_RETRY_MIN: Duration = Duration::from_millis(250);
const BIND_RETRY_MAX: Duration = Duration::from_secs(5);
/// Pause after the process or the machine ran out of file descriptors or memory for sockets. Callers wait in
/// the kernel meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The listener of one mapping.
#[derive(Debug)]
pub(crate) struct Listener {
    pub shared: Arc<Shared>,
    pub places: PortPlaces,
    pub mapping: MappingId,
    pub address: SocketAddr,
    pub stop: CancellationToken,
}

impl Listener {
    /// Binds, tries again where that fails, and accepts. Returns when told to stop; the port is free then.
    pub(crate) async fn run(self) {
        let mut pause = BIND_RETRY_MIN;
        loop {
            match bind(self.address) {
                Ok(listener) => {
                    let address = listener.local_addr().unwrap_or(self.address);
                    self.report(ListenerState::Listening(address));
                    self.stop.run_until_cancelled(self.accept(&listener)).await;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    self.report(ListenerState::PortInUse);
                }
                Err(error) => self.report(ListenerState::Failed(error.to_string())),
            }
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(BIND_RETRY_MAX);
        }
    }

    fn report(&self, state: ListenerState) {
        if self.stop.is_cancelled() {
            return; // The mapping may have another listener by now.
        }
        match &state {
            ListenerState::Listening(address) => {
                tracing::info!(mapping = %self.mapping, %address, "listening");
            }
            ListenerState::PortInUse => {
                tracing::warn!(mapping = %self.mapping, address = %self.address, "port in use; trying again");
            }
            ListenerState::Failed(error) => {
                tracing::warn!(mapping = %self.mapping, address = %self.address, error, "can't listen; trying again");
            }
        }
        self.shared.gateway.report_listener(self.mapping, state);
    }

    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, caller)) => self.admit(stream, caller),
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(mapping = %self.mapping, %error, "no caller is accepted for a moment");
                    self.shared.gateway.relieve();
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The caller left before it was accepted, or its network failed.
                Err(error) => tracing::debug!(mapping = %self.mapping, %error, "a caller was not accepted"),
            }
        }
    }

    fn admit(&self, stream: TcpStream, caller: SocketAddr) {
        let Some(place) = self.places.take() else {
            tracing::warn!(mapping = %self.mapping, "a caller is reset: as many as possible are served");
            caller::reset(&stream);
            return;
        };
        let (shared, mapping) = (self.shared.clone(), self.mapping);
        // In the gateway's group: a caller that has a tunnel outlives the listeners when the node is drained.
        self.shared.gateway.tasks().spawn_job("caller", |_| async move {
            let _place = place;
            caller::serve(&shared.gateway, mapping, stream, caller).await;
            Ok::<_, Infallible>(())
        });
    }
}

/// Binds exactly `address`. A port in `TIME_WAIT` may be bound again, one that somebody listens on may not.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c22_a_listener_binds_exactly_the_address_asked_for() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.ip().is_loopback());
        let error = bind(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn c36_running_out_of_descriptors_is_told_from_a_caller_that_left() {
        assert!(is_exhausted(&Errno::MFILE.into()));
        assert!(is_exhausted(&Errno::NFILE.into()));
        assert!(!is_exhausted(&Errno::CONNABORTED.into()));
    }
}
