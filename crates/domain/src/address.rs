//! Target addresses.

use std::net::Ipv6Addr;

/// Why a text is not a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// The port is missing or out of range.
    #[error("a target ends with a port from 1 to 65535, as in `3000` or `host:3000`")]
    Port,
    /// The host is neither a name nor an address.
    #[error("the host of a target is a name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
}

/// The host where none is given.
const DEFAULT_HOST: &str = "127.0.0.1";

/// The longest DNS name.
const HOST_BYTES_MAX: usize = 253;

/// A target in its one form, `host:port`: without a host it is 127.0.0.1; names in lower case; IPv6
/// addresses in brackets and in their shortest form.
///
/// ```
/// use underpass_domain::normalise_address;
/// assert_eq!(normalise_address("3000").as_deref(), Ok("127.0.0.1:3000"));
/// assert_eq!(normalise_address("DB.local:05432").as_deref(), Ok("db.local:5432"));
/// assert_eq!(normalise_address("[0:0::1]:80").as_deref(), Ok("[::1]:80"));
/// ```
pub fn normalise_address(text: &str) -> Result<String, InvalidAddress> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|symbol| symbol.is_ascii_digit()) {
        return Err(InvalidAddress::Port);
    }
    let port: u16 = port.parse().map_err(|_| InvalidAddress::Port)?;
    if port == 0 {
        return Err(InvalidAddress::Port);
    }
    Ok(format!("{}:{port}", normalise_host(host)?))
}

/// The port of a target in its one form.
pub(crate) fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

fn normalise_host(host: &str) -> Result<String, InvalidAddress> {
    if host.is_empty() {
        return Ok(DEFAULT_HOST.to_owned());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| InvalidAddress::Host)?;
        return Ok(format!("[{address}]"));
    }
    let fits = |symbol: u8| symbol.is_ascii_alphanumeric() || matches!(symbol, b'-' | b'_' | b'.');
    if host.len() > HOST_BYTES_MAX || !host.bytes().all(fits) || host.starts_with(['-', '.']) {
        return Err(InvalidAddress::Host);
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_without_a_host_is_this_machine() {
        assert_eq!(normalise_address("3000").as_deref(), Ok("127.0.0.1:3000"));
        assert_eq!(normalise_address(":3000").as_deref(), Ok("127.0.0.1:3000"));
    }

    #[test]
    fn a_port_is_needed_and_not_zero() {
        for wrong in ["", "host", "host:", "host:0", "host:65536", "host:+1", "host: 1", "70000", "[::1]"] {
            assert_eq!(normalise_address(wrong), Err(InvalidAddress::Port), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for wrong in ["a b:1", "::1:80", "[::g]:1", "ü:1", "-x:1", "user@host:1", "http://host:80"] {
            assert_eq!(normalise_address(wrong), Err(InvalidAddress::Host), "{wrong}");
        }
        let long = format!("{}:1", "x".repeat(HOST_BYTES_MAX + 1));
        assert_eq!(normalise_address(&long), Err(InvalidAddress::Host));
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_as_it_is(text in "[a-zA-Z0-9:.\\[\\]-]{0,30}:[0-9]{1,5}") {
            if let Ok(normal) = normalise_address(&text) {
                prop_assert!(normal.len() <= crate::limits::ADDRESS_BYTES_MAX);
                prop_assert_eq!(normalise_address(&normal), Ok(normal));
            }
        }
    }
}
