//! What can go wrong, by what one does about it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there already. Choose another port or stop that program.
    #[error("{address} is in use by another program")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// This user may not listen there (ports below 1024 need a privilege).
    #[error("listening on {address} is not permitted")]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// This machine has no such address.
    #[error("{address} is not an address of this machine")]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("can't listen on {address}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    pub(crate) fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { address },
            _ => Self::Failed { address, source },
        }
    }

    /// Whether the address is taken.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

/// Why a listener accepts no more. What passes by itself (one caller's failure, no file descriptors left) is
/// dealt with inside the listener and never shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was closed.
    #[error("the listener on {address} is closed")]
    Closed {
        /// Where it listened.
        address: SocketAddr,
    },
    /// The socket is broken. Bind anew, or stop.
    #[error("the listener on {address} is broken")]
    Broken {
        /// Where it listened.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why an accepted connection did not become a channel. Concerns this connection only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The connection broke.
    #[error("the connection of {peer} failed")]
    Io {
        /// Who called.
        peer: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why no channel to an address could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not `HOST:PORT`. Trying again is no use.
    #[error("`{address}` is not HOST:PORT")]
    Address {
        /// The address.
        address: String,
    },
    /// The host name means nothing (now).
    #[error("the name in `{address}` can't be resolved")]
    Name {
        /// The address.
        address: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The host is there, but nobody listens on that port.
    #[error("{address} refused the connection")]
    Refused {
        /// The address.
        address: String,
    },
    /// No way to the host.
    #[error("{address} can't be reached")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} ms", deadline.as_millis())]
    TimedOut {
        /// The address.
        address: String,
        /// How long it was waited for.
        deadline: Duration,
    },
}

impl ConnectError {
    pub(crate) fn of(address: &str, deadline: Duration, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            io::ErrorKind::TimedOut => Self::TimedOut { address, deadline },
            _ => Self::Unreachable { address, source },
        }
    }
}
