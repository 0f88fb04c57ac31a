//! Ends sessions that nobody ended.
//!
//! A session is closed by the node that has its link. When that node was killed, or could not write at that
//! moment, the session is left open; the reaper expires it:
//!
//! - at the start, what an earlier run of this node left open;
//! - of this node, what has no link here and has been open for two lease times;
//! - of another node, what is open while that node's lease is gone, for two looks in a row: after the store was
//!   away, every node takes a moment to get its lease again.
//!
//! What this node still has to write down is not its business.

use std::collections::{HashMap, HashSet};

use tokio_util::sync::CancellationToken;
use underpass_domain::{ActivityCommand, NodeId, SessionId};

use crate::caller::Caller;
use crate::control::Control;
use crate::error::ControlError;
use crate::lease::node_key;

/// The sessions of `node` that are open now.
pub(crate) fn open_sessions_of(control: &Control, node: NodeId) -> HashSet<SessionId> {
    control.activity().state.open_sessions().filter(|it| it.node == node).map(|it| it.id).collect()
}

/// Looks once in each lease time until told to stop.
pub(crate) async fn run(control: &Control, mut left_open: HashSet<SessionId>, stop: &CancellationToken) {
    let mut gone = HashSet::new();
    loop {
        if control.may_write() {
            reap(control, &mut left_open, &mut gone).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(control.lease.ttl()) => {}
        }
    }
}

async fn reap(control: &Control, left_open: &mut HashSet<SessionId>, gone: &mut HashSet<NodeId>) {
    let now = control.clock.now();
    let patience = control.lease.ttl() * 2;
    let view = control.activity();
    let mut alive = HashMap::new();
    let mut dead = Vec::new();
    for session in view.state.open_sessions() {
        let orphaned = if session.node == control.node() {
            let unannounced = !control.announcer.has(session.id);
            let overdue = unannounced && session.opened_at.plus(patience) <= now && control.noted() == 0;
            left_open.contains(&session.id) || overdue
        } else {
            let known = alive.get(&session.node).copied();
            let alive_now = match known {
                Some(alive_now) => alive_now,
                // A store that doesn't answer proves nobody dead.
                None => !matches!(control.store.get(&node_key(session.node)).await, Ok(None)),
            };
            alive.insert(session.node, alive_now);
            !alive_now && gone.contains(&session.node)
        };
        if orphaned {
            dead.push(session.id);
        }
    }
    *gone = alive.into_iter().filter(|(_, alive)| !alive).map(|(node, _)| node).collect();
    for session in dead {
        match control.record(&Caller::system(), ActivityCommand::ExpireSession { session }).await {
            Ok(_) => {
                left_open.remove(&session);
            }
            Err(ControlError::Unrecorded(refusal)) => {
                tracing::debug!(%session, %refusal, "nothing to reap");
                left_open.remove(&session);
            }
            Err(error) => return tracing::warn!(%error, "reaping has to wait"),
        }
    }
}
