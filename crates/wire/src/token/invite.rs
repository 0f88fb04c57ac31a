//! Invites: how a machine becomes a client of a server.
//!
//! ```text
//! 203.0.113.5:7400,tunnel.example.org:7400#<version, server key, secret, checksum in base 32>
//! ```
//!
//! The checksum covers what stands behind the `#`. The addresses are left out on purpose: people may correct
//! them (another name for the same server), and the key decides who answers there.

use std::fmt;
use std::str::FromStr;

use data_encoding::{DecodeKind, Encoding, Specification};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
const BODY_BYTES: usize = 1 + 32 + SECRET_BYTES;
const CHECKSUM_CONTEXT: &str = "underpass 2026-11 invite checksum v1";

/// How many addresses an invite may hold.
pub const ADDRESSES_MAX: usize = 8;

/// A host name has at most 253 bytes, a port 5.
const ADDRESS_BYTES_MAX: usize = 260;

/// Longer texts are refused unread.
const TEXT_BYTES_MAX: usize = ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 1) + 256;

/// What lets one machine enrol, once. Whoever has the text can.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Invite {
    #[zeroize(skip)]
    addresses: Vec<String>,
    #[zeroize(skip)]
    server_key: [u8; 32],
    secret: [u8; SECRET_BYTES],
}

/// Why something is no invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// There is no `#`.
    #[error("the invite has no `#`: it looks like HOST:PORT#...")]
    NoMark,
    /// There are no addresses, or too many.
    #[error("the invite names {found} addresses; 1 to {ADDRESSES_MAX} are possible")]
    Addresses {
        /// How many there are.
        found: usize,
    },
    /// One of the addresses, before the `#`, is wrong.
    #[error("`{address}` in the invite is not HOST:PORT")]
    Address {
        /// The address.
        address: String,
    },
    /// A character after the `#` that invites don't have.
    #[error("`{found}` can't be part of an invite's key (after the `#`)")]
    Symbol {
        /// The character.
        found: char,
    },
    /// Something after the `#` is missing, or there is too much.
    #[error("the invite's key (after the `#`) is {}", if *.short { "cut off" } else { "too long" })]
    Length {
        /// Whether something is missing.
        short: bool,
    },
    /// Made by another release.
    #[error("the invite has version {found}, this program knows {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Something after the `#` is mistyped.
    #[error("the invite's checksum does not fit: something after the `#` is mistyped or cut off")]
    Checksum,
}

impl Invite {
    /// An invite. The addresses are `HOST:PORT`, an IPv6 host in brackets; they are tried in this order.
    pub fn new(
        addresses: Vec<String>,
        server_key: [u8; 32],
        secret: [u8; SECRET_BYTES],
    ) -> Result<Self, InviteError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(InviteError::Addresses { found: addresses.len() });
        }
        for address in &addresses {
            if !is_address(address) {
                return Err(InviteError::Address { address: address.clone() });
            }
        }
        Ok(Self { addresses, server_key, secret })
    }

    /// Where the server is.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Who the server is. To be pinned.
    pub fn server_key(&self) -> [u8; 32] {
        self.server_key
    }

    /// What is shown to the server, over the link.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_BYTES + CHECKSUM_BYTES));
        body.push(VERSION);
        body.extend_from_slice(&self.server_key);
        body.extend_from_slice(&self.secret);
        let checksum = checksum(&body);
        body.extend_from_slice(&checksum);
        body
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key(CHECKSUM_CONTEXT, body);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Base 32 with the alphabet of ids: digits and lower case without `i`, `l`, `o`, `u`.
fn base32() -> Result<Encoding, InviteError> {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    specification.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZoOiIlL");
    specification.translate.to.push_str("abcdefghjkmnpqrstvwxyz001111");
    specification.ignore.push_str(" -\t\r\n");
    // The specification is constant and a test builds it.
    specification.encoding().map_err(|_| InviteError::Checksum)
}

/// Whether it has the shape `HOST:PORT`. Whether the host exists shows when it is dialled.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    let port_fits = !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    address.len() <= ADDRESS_BYTES_MAX && host_fits && port_fits
}

/// The secret stays out of logs.
impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("addresses", &self.addresses)
            .field("server_key", &self.server_key)
            .finish_non_exhaustive()
    }
}

/// The whole invite, secret included: for the eyes of the person who asked for it.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = Zeroizing::new(base32().map_err(|_| fmt::Error)?.encode(&self.body()));
        write!(f, "{}#{}", self.addresses.join(","), *body)
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(InviteError::Length { short: false });
        }
        let (addresses, key) = text.trim().split_once('#').ok_or(InviteError::NoMark)?;
        let addresses = addresses
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let body = decode(key)?;
        let (version, rest) = body.split_first().ok_or(InviteError::Length { short: true })?;
        if *version != VERSION {
            return Err(InviteError::Version { found: *version });
        }
        if rest.len() + 1 != BODY_BYTES + CHECKSUM_BYTES {
            return Err(InviteError::Length { short: rest.len() + 1 < BODY_BYTES + CHECKSUM_BYTES });
        }
        let (body, sum) = body.split_at(BODY_BYTES);
        if sum != checksum(body) {
            return Err(InviteError::Checksum);
        }
        let mut server_key = [0; 32];
        server_key.copy_from_slice(&body[1..33]);
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(&body[33..]);
        Self::new(addresses, server_key, secret)
    }
}

fn decode(key: &str) -> Result<Zeroizing<Vec<u8>>, InviteError> {
    base32()?.decode(key.as_bytes()).map(Zeroizing::new).map_err(|error| match error.kind {
        DecodeKind::Symbol => InviteError::Symbol {
            found: key.get(error.position..).and_then(|rest| rest.chars().next()).unwrap_or('\u{fffd}'),
        },
        // Symbols that fill no whole byte, or bits left over: the end is missing.
        _ => InviteError::Length { short: true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        let addresses = vec!["203.0.113.5:7400".to_owned(), "[2001:db8::1]:7400".to_owned()];
        Invite::new(addresses, [0xa5; 32], [0x5a; 16]).unwrap()
    }

    fn read(text: &str) -> InviteError {
        text.parse::<Invite>().unwrap_err()
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let text = invite().to_string();
        assert!(text.starts_with("203.0.113.5:7400,[2001:db8::1]:7400#"), "{text}");
        assert_eq!(text.parse(), Ok(invite()));
    }

    #[test]
    fn case_and_spaces_are_forgiven() {
        let text = invite().to_string();
        let (addresses, key) = text.split_once('#').unwrap();
        let spaced = format!(" {addresses} # {} {}\n", &key[..10], key[10..].to_uppercase());
        assert_eq!(spaced.parse(), Ok(invite()));
    }

    #[test]
    fn the_address_may_be_corrected() {
        let text = invite().to_string();
        let (_, key) = text.split_once('#').unwrap();
        let corrected: Invite = format!("tunnel.example.org:443#{key}").parse().unwrap();
        assert_eq!(corrected.addresses(), ["tunnel.example.org:443"]);
        assert_eq!(corrected.server_key(), invite().server_key());
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        let text = invite().to_string();
        let (_, key) = text.split_once('#').unwrap();
        assert_eq!(read("203.0.113.5:7400"), InviteError::NoMark);
        assert_eq!(read(&format!("#{key}")), InviteError::Addresses { found: 0 });
        for bad in
            ["host", "host:", "host:0", "host:70000", "ho st:1", ":1", "[::g]:1", "http://host:1", "h:+1"]
        {
            let error = read(&format!("{bad}#{key}"));
            assert_eq!(error, InviteError::Address { address: bad.to_owned() });
        }
        assert_eq!(read(&format!("host:1#{}$", &key[1..])), InviteError::Symbol { found: '$' });
        assert_eq!(read("host:1#"), InviteError::Length { short: true });
        assert_eq!(read(&format!("host:1#{}", &key[..40])), InviteError::Length { short: true });
        assert_eq!(read(&format!("host:1#{key}00000000")), InviteError::Length { short: false });
        assert_eq!(read(&"x".repeat(10_000)), InviteError::Length { short: false });
        let newer = base32().unwrap().encode(&[2; BODY_BYTES + CHECKSUM_BYTES]);
        assert_eq!(read(&format!("host:1#{newer}")), InviteError::Version { found: 2 });
    }

    #[test]
    fn every_mistyped_symbol_is_noticed() {
        let text = invite().to_string();
        let mark = text.find('#').unwrap();
        for index in mark + 1..text.len() {
            let mut mistyped = text.clone().into_bytes();
            mistyped[index] = if mistyped[index] == b'7' { b'8' } else { b'7' };
            assert!(String::from_utf8(mistyped).unwrap().parse::<Invite>().is_err(), "symbol {index}");
        }
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let addresses = vec!["host:1".to_owned(); ADDRESSES_MAX + 1];
        assert_eq!(Invite::new(addresses, [0; 32], [0; 16]), Err(InviteError::Addresses { found: 9 }));
    }

    #[test]
    fn the_secret_is_not_in_the_debug_text() {
        let text = format!("{:?}", invite());
        assert!(!text.contains("secret") && !text.contains("90, 90"), "{text}");
    }
}
