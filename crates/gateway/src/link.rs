//! One client's link, as the rest of the gateway knows it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ClientId, SessionId, Timestamp};
use underpass_pipeline::Aead;
use underpass_wire::link::{Applied, Body, GoingAway, KickReason};

use crate::channel::DataChannel;
use crate::desired::Desires;
use crate::envelopes::Allowance;
use crate::outbox::Outbox;
use crate::park::Park;
use crate::session::milliseconds;

/// Caller channels of one client, parked and busy. Two sockets each when busy.
const CALLER_CHANNELS_MAX: usize = 4096;

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// A younger link of the same client is there.
    Replaced,
    /// The client was blocked; everything of it ends.
    Blocked,
    /// The client was removed; everything of it ends.
    Removed,
    /// Somebody asked for it.
    Disconnected(String),
    /// The node goes down.
    NodeStopping,
    /// Nothing was heard of the client.
    Silent,
    /// The client closed the link.
    Closed,
    /// The client broke the rules.
    Protocol(String),
    /// The link broke.
    Failed(String),
}

impl Goodbye {
    /// What the log says.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Replaced => "replaced".to_owned(),
            Self::Blocked => "blocked".to_owned(),
            Self::Removed => "removed".to_owned(),
            Self::Disconnected(reason) => format!("disconnected: {reason}"),
            Self::NodeStopping => "node stopping".to_owned(),
            Self::Silent => "silent".to_owned(),
            Self::Closed => "closed by client".to_owned(),
            Self::Protocol(error) => format!("broke the protocol: {error}"),
            Self::Failed(error) => format!("failed: {error}"),
        }
    }

    /// What the client is told, where it can still be told anything.
    pub(crate) fn kick(&self) -> Option<KickReason> {
        match self {
            Self::Replaced => Some(KickReason::Replaced),
            Self::Blocked => Some(KickReason::Blocked),
            Self::Removed => Some(KickReason::Removed),
            Self::Disconnected(_) => Some(KickReason::Disconnected),
            Self::NodeStopping => Some(KickReason::Stopping),
            Self::Protocol(_) => Some(KickReason::Protocol),
            Self::Silent | Self::Closed | Self::Failed(_) => None,
        }
    }
}

/// One client's link. Its session runs in a task of its own; others reach it through this.
#[derive(Debug)]
pub(crate) struct Link {
    pub client: ClientId,
    pub session: SessionId,
    pub address: SocketAddr,
    pub transport: String,
    pub since: Timestamp,
    /// Names the handshake; tickets and channel keys are bound to it.
    pub handshake_hash: [u8; 32],
    /// What both ends are fast at.
    pub aead: Aead,
    pub outbox: Outbox,
    pub park: Park<DataChannel>,
    /// What the client should serve; the session sends the newest.
    pub desired: watch::Sender<Arc<Desires>>,
    pub envelopes: Mutex<Allowance>,
    applied: Mutex<Applied>,
    caller_channels: AtomicUsize,
    /// When each ticket for a caller channel runs out that has not come yet.
    callers_expected: Mutex<VecDeque<Instant>>,
    parked_at_client: AtomicU32,
    goodbye: OnceLock<Goodbye>,
    /// Cancelled when the session is to end.
    pub over: CancellationToken,
    /// Cancelled when it has ended.
    pub ended: CancellationToken,
}

/// What a link is made of.
#[derive(Debug)]
pub(crate) struct NewLink {
    pub client: ClientId,
    pub session: SessionId,
    pub address: SocketAddr,
    pub transport: String,
    pub since: Timestamp,
    pub handshake_hash: [u8; 32],
    pub aead: Aead,
    pub outbox: Outbox,
    pub park: Park<DataChannel>,
    pub desired: Arc<Desires>,
    pub envelopes: Allowance,
}

impl Link {
    pub(crate) fn new(new: NewLink) -> Arc<Self> {
        let NewLink {
            client,
            session,
            address,
            transport,
            since,
            handshake_hash,
            aead,
            outbox,
            park,
            desired,
            envelopes,
        } = new;
        Arc::new(Self {
            client,
            session,
            address,
            transport,
            since,
            handshake_hash,
            aead,
            outbox,
            park,
            desired: watch::Sender::new(desired),
            envelopes: Mutex::new(envelopes),
            applied: Mutex::default(),
            caller_channels: AtomicUsize::new(0),
            callers_expected: Mutex::default(),
            parked_at_client: AtomicU32::new(0),
            goodbye: OnceLock::new(),
            over: CancellationToken::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Ends the link. The first reason counts.
    pub(crate) fn end(&self, goodbye: Goodbye) {
        let _ = self.goodbye.set(goodbye);
        self.over.cancel();
        self.park.close();
    }

    pub(crate) fn goodbye(&self) -> Option<&Goodbye> {
        self.goodbye.get()
    }

    pub(crate) fn going_away(&self, grace: Duration) {
        let message = "the node is stopping".to_owned();
        self.outbox.say(Body::GoingAway(GoingAway { grace_ms: milliseconds(grace), message }));
    }

    /// Takes over what the client should serve, unless something newer is there.
    pub(crate) fn update_desired(&self, desires: Arc<Desires>) {
        self.desired.send_if_modified(|current| {
            let newer = current.position <= desires.position && !current.is_same_as(&desires);
            if newer {
                *current = desires;
            }
            newer
        });
    }

    /// Takes note of how many caller channels lie parked at the client.
    pub(crate) fn note_parked(&self, count: u32) {
        self.parked_at_client.store(count, Ordering::Relaxed);
    }

    pub(crate) fn parked_at_client(&self) -> u32 {
        self.parked_at_client.load(Ordering::Relaxed)
    }

    /// Takes note of what the client made of its desired state. An older report than the last changes nothing.
    pub(crate) fn note_applied(&self, report: Applied) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if (report.epoch, report.position) >= (applied.epoch, applied.position) {
            *applied = report;
        }
    }

    pub(crate) fn applied(&self) -> Applied {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place for one more caller channel, given back when dropped.
    pub(crate) fn caller_channel(self: &Arc<Self>) -> Option<CallerPlace> {
        let place = CallerPlace { link: self.clone() };
        let before = self.caller_channels.fetch_add(1, Ordering::Relaxed);
        // Dropping the place takes the count back.
        (before < CALLER_CHANNELS_MAX).then_some(place)
    }

    /// So many tickets for caller channels are under way.
    pub(crate) fn expect_callers(&self, count: usize, expires: Instant) {
        let mut expected = self.callers_expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.extend(std::iter::repeat_n(expires, count));
    }

    /// How many tickets for caller channels are under way.
    pub(crate) fn caller_tickets(&self, now: Instant) -> usize {
        let mut expected = self.callers_expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.retain(|end| *end > now);
        expected.len()
    }

    /// A caller channel has come.
    pub(crate) fn caller_arrived(&self) {
        self.callers_expected.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    pub(crate) fn caller_channels(&self) -> usize {
        self.caller_channels.load(Ordering::Relaxed)
    }

    /// How many more caller channels fit.
    pub(crate) fn caller_room(&self) -> usize {
        CALLER_CHANNELS_MAX.saturating_sub(self.caller_channels())
    }
}

/// The place of one caller channel.
#[derive(Debug)]
pub(crate) struct CallerPlace {
    link: Arc<Link>,
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        self.link.caller_channels.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A link of nobody in particular.
    pub(crate) fn link(number: u8) -> Arc<Link> {
        let now = Instant::now();
        Link::new(NewLink {
            client: ClientId::from_bytes([number; 16]),
            session: SessionId::from_bytes([number; 16]),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            transport: "memory".to_owned(),
            since: Timestamp(0),
            handshake_hash: [number; 32],
            aead: Aead::XChaCha20Poly1305,
            outbox: Outbox::new(),
            park: Park::new(1, 1, now),
            desired: Arc::default(),
            envelopes: Allowance::new(now),
        })
    }

    fn applied(epoch: u64, position: u64) -> Applied {
        Applied { epoch, position, results: Vec::new() }
    }

    #[tokio::test]
    async fn c20_an_older_report_changes_nothing() {
        let link = link(1);
        link.note_applied(applied(1, 7));
        link.note_applied(applied(1, 6));
        assert_eq!(link.applied().position, 7);
        link.note_applied(applied(2, 1));
        assert_eq!((link.applied().epoch, link.applied().position), (2, 1), "a new epoch counts anew");
    }

    #[tokio::test]
    async fn the_first_reason_to_end_counts() {
        let link = link(1);
        link.end(Goodbye::Blocked);
        link.end(Goodbye::Closed);
        assert_eq!(link.goodbye(), Some(&Goodbye::Blocked));
        assert!(link.over.is_cancelled());
    }

    #[tokio::test]
    async fn caller_channels_are_bounded() {
        let link = link(1);
        let places: Vec<_> = (0..CALLER_CHANNELS_MAX).map_while(|_| link.caller_channel()).collect();
        assert_eq!(places.len(), CALLER_CHANNELS_MAX);
        assert!(link.caller_channel().is_none());
        assert_eq!(link.caller_room(), 0);
        drop(places);
        assert_eq!(link.caller_room(), CALLER_CHANNELS_MAX);
    }
}
