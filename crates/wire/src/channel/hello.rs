//! A data channel shows its ticket.

use subtle::ConstantTimeEq;

use crate::preamble::{self, Kind};

/// How long a [`DataHello`] is, after the preamble.
pub const DATA_HELLO_BYTES: usize = 16 + 32;

/// What a data channel is for, as the ticket says. The MAC covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DataRole {
    /// The node parks it and opens tunnels to the agent's targets.
    Target = 1,
    /// The agent parks it and dials for its own callers.
    Caller = 2,
}

/// The first bytes of a data channel after the preamble: which ticket, and the proof of its key. The key
/// itself never travels on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHello {
    /// The ticket's id.
    pub ticket: [u8; 16],
    /// BLAKE3 keyed with the ticket's key over preamble, ticket id, handshake hash of the link, role.
    pub mac: [u8; 32],
}

impl DataHello {
    /// Shows a ticket that came over the link with this handshake hash.
    pub fn new(ticket: [u8; 16], key: &[u8; 32], handshake_hash: &[u8; 32], role: DataRole) -> Self {
        Self { ticket, mac: mac(ticket, key, handshake_hash, role).into() }
    }

    /// Whether it was made with this key for this link and role. Takes the same time for every answer.
    pub fn verify(&self, key: &[u8; 32], handshake_hash: &[u8; 32], role: DataRole) -> bool {
        mac(self.ticket, key, handshake_hash, role).as_bytes().ct_eq(&self.mac).into()
    }

    /// As it stands on the wire.
    pub fn to_bytes(&self) -> [u8; DATA_HELLO_BYTES] {
        let mut bytes = [0; DATA_HELLO_BYTES];
        bytes[..16].copy_from_slice(&self.ticket);
        bytes[16..].copy_from_slice(&self.mac);
        bytes
    }

    /// Reads what stands on the wire. Every 48 bytes are a hello; whether it is a true one,
    /// [`DataHello::verify`] tells.
    pub fn from_bytes(bytes: &[u8; DATA_HELLO_BYTES]) -> Self {
        let mut hello = Self { ticket: [0; 16], mac: [0; 32] };
        hello.ticket.copy_from_slice(&bytes[..16]);
        hello.mac.copy_from_slice(&bytes[16..]);
        hello
    }
}

fn mac(ticket: [u8; 16], key: &[u8; 32], handshake_hash: &[u8; 32], role: DataRole) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&preamble::encode(Kind::Data)).update(&ticket).update(handshake_hash).update(&[role as u8]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const HASH: [u8; 32] = [2; 32];

    #[test]
    fn a_shown_ticket_is_recognised() {
        let hello = DataHello::new([3; 16], &KEY, &HASH, DataRole::Target);
        let read = DataHello::from_bytes(&hello.to_bytes());
        assert_eq!(read, hello);
        assert!(read.verify(&KEY, &HASH, DataRole::Target));
    }

    /// C28: for another role, link or key it is worth nothing.
    #[test]
    fn c28_a_ticket_admits_only_what_it_was_made_for() {
        let hello = DataHello::new([3; 16], &KEY, &HASH, DataRole::Target);
        assert!(!hello.verify(&KEY, &HASH, DataRole::Caller));
        assert!(!hello.verify(&[9; 32], &HASH, DataRole::Target));
        assert!(!hello.verify(&KEY, &[9; 32], DataRole::Target));
        for bit in 0..DATA_HELLO_BYTES * 8 {
            let mut bytes = hello.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!DataHello::from_bytes(&bytes).verify(&KEY, &HASH, DataRole::Target), "bit {bit}");
        }
    }
}
