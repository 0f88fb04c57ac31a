//! What is to be sent on a link.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use underpass_wire::link::{Body, Direction, LinkEncoder, Pong, PushError};
use underpass_wire::noise::{LinkSealer, NoiseError};

/// Envelopes that wait for a client that reads slowly. What they carry is repeated by its sender.
const ENVELOPES_WAITING_MAX: u32 = 64;

/// Bytes that are sealed ahead of the socket. What is sealed can't be overtaken by a ping.
const AHEAD_BYTES: usize = 32 * 1024;

/// Messages on their way to one client. Anybody may add one; the session's writer takes them out in chunks.
#[derive(Debug)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    ready: Notify,
}

#[derive(Debug)]
struct Inner {
    encoder: LinkEncoder,
    /// Answers the newest ping only, so that a flood of pings takes no room.
    pong: Option<u64>,
    /// Envelopes taken since the outbox was last empty.
    envelopes: u32,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let encoder = LinkEncoder::new(Direction::FromNode);
        Self { inner: Mutex::new(Inner { encoder, pong: None, envelopes: 0 }), ready: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message to be sent, unless too much waits already.
    pub(crate) fn say(&self, body: Body) -> bool {
        let mut inner = self.lock();
        if matches!(body, Body::Envelope(_)) {
            if inner.envelopes >= ENVELOPES_WAITING_MAX {
                return false;
            }
            inner.envelopes += 1;
        }
        let pushed = inner.encoder.push(body);
        drop(inner);
        match pushed {
            Ok(()) => {
                self.ready.notify_one();
                true
            }
            Err(PushError::TooLong { length, limit }) => {
                tracing::error!(length, limit, "a message for a client is too long");
                false
            }
            Err(_) => false,
        }
    }

    /// Answers a ping.
    pub(crate) fn pong(&self, nonce: u64) {
        self.lock().pong = Some(nonce);
        self.ready.notify_one();
    }

    /// Whether nothing waits to be sealed.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.encoder.is_empty() && inner.pong.is_none()
    }

    /// Seals the next chunks into `out`, as many as go out in one write.
    pub(crate) fn seal(&self, sealer: &mut LinkSealer, out: &mut BytesMut) -> Result<(), NoiseError> {
        let mut inner = self.lock();
        if let Some(nonce) = inner.pong.take()
            && inner.encoder.push(Body::Pong(Pong { nonce })).is_err()
        {
            // Thousands of messages wait before it; the client will hear of us by those.
            tracing::debug!("a ping stays without its answer");
        }
        while out.len() < AHEAD_BYTES && inner.encoder.next_chunk(sealer, out)? {}
        if inner.encoder.is_empty() {
            inner.envelopes = 0;
        }
        Ok(())
    }

    /// Waits until something may have been added.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }
}
