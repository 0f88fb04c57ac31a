//! Which address others are told.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// An address that is never routed (RFC 5737): asking for the way to it sends nothing.
const SOMEWHERE: &str = "192.0.2.1:9";

/// `HOST:PORT` for invites, and a hint when it had to be guessed.
pub(crate) fn advertised(configured: Option<&str>, listen: SocketAddr) -> (String, Option<String>) {
    if let Some(address) = configured {
        return (address.to_owned(), None);
    }
    if !listen.ip().is_unspecified() {
        return (listen.to_string(), None);
    }
    let guess = outward_address().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let address = SocketAddr::new(guess, listen.port()).to_string();
    let hint = format!(
        "invites say {address}, the address of this machine's default route; if clients reach it by another, say so \
         with --advertise HOST:PORT"
    );
    (address, Some(hint))
}

/// The address that packets to the world leave from.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(SOMEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// The host of `HOST:PORT`, brackets included.
pub(crate) fn split_host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_wins_then_what_is_listened_on() {
        let listen = "127.0.0.1:7400".parse().unwrap();
        assert_eq!(advertised(Some("t.example:1"), listen), ("t.example:1".into(), None));
        assert_eq!(advertised(None, listen), ("127.0.0.1:7400".into(), None));
    }

    #[test]
    fn an_unspecified_address_is_never_told() {
        let (address, hint) = advertised(None, "0.0.0.0:7400".parse().unwrap());
        assert!(!address.starts_with("0.0.0.0") && address.ends_with(":7400"), "{address}");
        assert!(hint.unwrap().contains("--advertise"));
    }

    #[test]
    fn hosts_are_split_off() {
        assert_eq!(split_host("t.example:1"), "t.example");
        assert_eq!(split_host("[::1]:1"), "[::1]");
    }
}
