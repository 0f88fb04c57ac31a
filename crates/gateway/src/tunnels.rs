//! The tunnels that run on this node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ClientId, MappingId, Timestamp};
use underpass_relay::Counters;

use crate::limits::Permit;
use crate::usage::{Totals, Usage};

/// 128 random bits that name a tunnel.
pub type TunnelId = [u8; 16];

/// Tunnels on one node, those being opened included. Each holds two sockets, so this is beyond what
/// a process may open by default.
const TUNNELS_MAX: usize = 200_000;

/// What is known of a running tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub id: TunnelId,
    pub mapping: MappingId,
    /// The client that listens, where one does.
    pub listener: Option<ClientId>,
    pub target: ClientId,
    pub caller: String,
    pub since: Timestamp,
    /// Bytes in (from the caller) and out.
    pub counters: Arc<Counters>,
    /// Cancelled when the mapping is no longer served or a client of it is blocked.
    pub stop: CancellationToken,
    /// Bytes that went out with the request to open, which no relay saw.
    pub early: AtomicU64,
    reported: Mutex<(u64, u64)>,
}

impl Tunnel {
    pub(crate) fn new(
        id: TunnelId,
        mapping: MappingId,
        listener: Option<ClientId>,
        target: ClientId,
        caller: String,
        since: Timestamp,
    ) -> Self {
        Self {
            id,
            mapping,
            listener,
            target,
            caller,
            since,
            counters: Arc::default(),
            stop: CancellationToken::new(),
            early: AtomicU64::new(0),
            reported: Mutex::default(),
        }
    }

    /// Whether `client` listens for this tunnel or dials its target.
    pub(crate) fn concerns(&self, client: ClientId) -> bool {
        self.target == client || self.listener == Some(client)
    }

    /// Bytes in and out so far.
    pub(crate) fn carried(&self) -> (u64, u64) {
        (self.counters.in_bytes() + self.early.load(Ordering::Relaxed), self.counters.out_bytes())
    }

    /// What was carried since the last time this was asked.
    fn unreported(&self) -> Totals {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.carried();
        let totals = Totals {
            bytes_in: now.0.saturating_sub(reported.0),
            bytes_out: now.1.saturating_sub(reported.1),
            ..Totals::default()
        };
        *reported = now;
        totals
    }
}

/// Why a tunnel was not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRegistered {
    /// Its id is in use.
    Duplicate,
    /// The node has as many as it can bear.
    Full,
}

/// The running tunnels by id.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    running: Mutex<HashMap<TunnelId, Arc<Tunnel>>>,
    ended: Notify,
    usage: Usage,
}

impl Tunnels {
    /// Takes up a tunnel. It runs until the guard is dropped, which also gives back the permit and counts
    /// what was carried.
    pub(crate) fn register(
        self: &Arc<Self>,
        tunnel: Tunnel,
        permit: Permit,
    ) -> Result<Running, NotRegistered> {
        let tunnel = Arc::new(tunnel);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= TUNNELS_MAX {
            return Err(NotRegistered::Full);
        }
        match running.entry(tunnel.id) {
            Entry::Occupied(_) => return Err(NotRegistered::Duplicate),
            Entry::Vacant(entry) => entry.insert(tunnel.clone()),
        };
        Ok(Running { tunnels: self.clone(), tunnel, _permit: permit })
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn len(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Tunnel>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Ends all tunnels for which `over` says so.
    pub(crate) fn stop_where(&self, over: impl Fn(&Tunnel) -> bool) {
        for tunnel in self.all() {
            if over(&tunnel) {
                tunnel.stop.cancel();
            }
        }
    }

    /// Adds what running tunnels carried to the usage.
    pub(crate) fn gather(&self) {
        for tunnel in self.all() {
            self.usage.add(tunnel.mapping, tunnel.unreported());
        }
    }

    /// Waits until none runs.
    pub(crate) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Registered before the count is looked at, so that the last end can't slip through.
            ended.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// A tunnel's place among the running ones.
#[derive(Debug)]
pub(crate) struct Running {
    tunnels: Arc<Tunnels>,
    pub(crate) tunnel: Arc<Tunnel>,
    _permit: Permit,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tunnels.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tunnel.id);
        self.tunnels.usage.add(self.tunnel.mapping, self.tunnel.unreported());
        self.tunnels.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn tunnel(id: u8) -> Tunnel {
        let client = ClientId::from_bytes([9; 16]);
        Tunnel::new(
            [id; 16],
            MappingId::from_bytes([1; 16]),
            None,
            client,
            "127.0.0.1:1".into(),
            Timestamp(0),
        )
    }

    fn permit() -> Permit {
        Arc::new(Limits::default()).admit(MappingId::from_bytes([1; 16]), None).unwrap()
    }

    #[test]
    fn c28_an_id_that_is_running_is_not_taken_twice() {
        let tunnels = Arc::new(Tunnels::default());
        let first = tunnels.register(tunnel(1), permit()).unwrap();
        assert_eq!(tunnels.register(tunnel(1), permit()).unwrap_err(), NotRegistered::Duplicate);
        assert!(!first.tunnel.stop.is_cancelled(), "the running tunnel is not disturbed");
        drop(first);
        assert!(tunnels.register(tunnel(1), permit()).is_ok());
    }

    #[tokio::test]
    async fn waiting_for_the_last_tunnel_ends_with_it() {
        let tunnels = Arc::new(Tunnels::default());
        let running = tunnels.register(tunnel(1), permit()).unwrap();
        let (waited, ()) = tokio::join!(
            tokio::time::timeout(std::time::Duration::from_secs(10), tunnels.all_ended()),
            async { drop(running) }
        );
        assert!(waited.is_ok());
    }

    #[test]
    fn stopping_touches_only_what_is_over() {
        let tunnels = Arc::new(Tunnels::default());
        let (one, two) =
            (tunnels.register(tunnel(1), permit()).unwrap(), tunnels.register(tunnel(2), permit()).unwrap());
        tunnels.stop_where(|tunnel| tunnel.id == [1; 16]);
        assert!(one.tunnel.stop.is_cancelled() && !two.tunnel.stop.is_cancelled());
    }
}
