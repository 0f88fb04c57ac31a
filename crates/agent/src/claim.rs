//! Whose an address to listen on is.
//!
//! Callers at the listen address of a mapping that a code made were promised its sealing and its other end. So
//! that address is the user's to give: the server's word takes it away from nobody and gives it to nobody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::TcpListener;

use crate::core::Core;
use crate::desired::Wanted;
use crate::sync::lock;

/// Listeners that were bound for a `connect` under way, whose mapping is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Reservations(Mutex<HashMap<SocketAddr, Reservation>>);

#[derive(Debug)]
struct Reservation {
    /// The lookup half of the code.
    code: String,
    listener: TcpListener,
}

impl Reservations {
    /// Keeps a bound listener for the mapping of a code.
    pub(crate) fn keep(&self, address: SocketAddr, code: String, listener: TcpListener) {
        lock(&self.0).insert(address, Reservation { code, listener });
    }

    /// Closes a listener that was kept and not taken.
    pub(crate) fn release(&self, address: SocketAddr) {
        lock(&self.0).remove(&address);
    }

    /// The listener that was kept for the mapping of this code.
    pub(crate) fn take(&self, address: SocketAddr, code: &str) -> Option<TcpListener> {
        let mut kept = lock(&self.0);
        let ours = kept.get(&address).is_some_and(|reservation| reservation.code == code);
        if ours { kept.remove(&address).map(|reservation| reservation.listener) } else { None }
    }

    fn holds(&self, address: SocketAddr) -> bool {
        lock(&self.0).contains_key(&address)
    }

    fn connecting(&self, code: &str) -> bool {
        lock(&self.0).values().any(|reservation| reservation.code == code)
    }
}

/// Whether this client listens for a mapping at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum May {
    Listen,
    /// A `connect` under way says so in a moment.
    Wait,
    /// One sentence.
    Not(String),
}

pub(crate) fn may_listen(core: &Core, wanted: &Wanted, address: SocketAddr) -> May {
    let asked = core.pairs.listens(wanted.mapping);
    if asked.as_ref().is_some_and(|(_, asked)| *asked == address) {
        return May::Listen;
    }
    let met_by = asked.as_ref().map(|(code, _)| code).or(wanted.code.as_ref());
    let reservations = &core.serving.reservations;
    if met_by.is_some_and(|code| reservations.connecting(code)) {
        return May::Wait;
    }
    if let Some((_, asked)) = asked {
        return May::Not(format!(
            "a connection code made this mapping to be listened for at {asked}, and the server says {address}"
        ));
    }
    if reservations.holds(address) {
        return May::Not(format!("{address} is kept for a connection code that is being redeemed"));
    }
    match core.pairs.keeper_of(address) {
        Some(keeper) => May::Not(format!(
            "{address} is kept for {keeper}, which a connection code made; `underpass rm {keeper}` on this client gives it up"
        )),
        None => May::Listen,
    }
}
