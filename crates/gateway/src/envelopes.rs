//! Messages between two clients, which the node carries and can't read.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use underpass_domain::{ClientId, CodeStatus, ControlState, Mapping, MappingId};
use underpass_wire::link::{Body, ENVELOPE_PAYLOAD_BYTES_MAX, Envelope, Subject};

use crate::gateway::Shared;
use crate::link::Link;

/// Envelopes a client may send at once, and per second. A pair of clients needs three each hour.
const BURST: u32 = 256;
const PER_SECOND: u32 = 256;

/// How many envelopes a client may still send.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled);
        if passed >= Duration::from_secs(1) {
            let more = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left = self.left.saturating_add(more).min(BURST);
            self.refilled = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

/// Why an envelope goes nowhere. The sender is not told: what it carries is repeated or times out, and an
/// answer would tell strangers who is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Malformed,
    TooLarge,
    TooMany,
    Strangers,
    Offline,
    Busy,
}

/// Hands an envelope on to the client it is for, with its true sender written on it.
pub(crate) fn route(shared: &Shared, from: &Link, envelope: Envelope) -> Result<(), Dropped> {
    if envelope.payload.len() > ENVELOPE_PAYLOAD_BYTES_MAX {
        return Err(Dropped::TooLarge);
    }
    let peer = ClientId::from_bytes(envelope.peer.as_slice().try_into().map_err(|_| Dropped::Malformed)?);
    if !from.envelopes.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
        return Err(Dropped::TooMany);
    }
    let view = shared.control.state();
    let state = &view.state;
    let subject = envelope.subject.as_ref().ok_or(Dropped::Malformed)?;
    let mapping = mapping_of(state, subject)?;
    let between = mapping.listener() == Some(from.client) && mapping.target.client == peer
        || mapping.listener() == Some(peer) && mapping.target.client == from.client;
    if !between || !state.serves(mapping, shared.now()) {
        return Err(Dropped::Strangers);
    }
    let sender = state.client(from.client).ok_or(Dropped::Strangers)?;
    let link = shared.links.get(peer).ok_or(Dropped::Offline)?;
    let envelope =
        Envelope { peer: sender.id.as_bytes().to_vec(), peer_key: sender.public_key.0.to_vec(), ..envelope };
    if link.outbox.say(Body::Envelope(envelope)) { Ok(()) } else { Err(Dropped::Busy) }
}

/// The mapping that an envelope is about: named, or made by redeeming a code. A code that nobody has redeemed
/// yet joins nobody.
fn mapping_of<'a>(state: &'a ControlState, subject: &Subject) -> Result<&'a Mapping, Dropped> {
    let id = match subject {
        Subject::Mapping(id) => {
            MappingId::from_bytes(id.as_slice().try_into().map_err(|_| Dropped::Malformed)?)
        }
        Subject::CodeLookup(lookup) => match state.code_by_lookup(lookup).map(|code| code.status) {
            Some(CodeStatus::Redeemed { mapping, .. }) => mapping,
            _ => return Err(Dropped::Strangers),
        },
    };
    state.mapping(id).ok_or(Dropped::Strangers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_comes_back_with_time() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..BURST).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..PER_SECOND).all(|_| allowance.take(later)));
        assert!(!allowance.take(later));
    }
}
