//! One data channel.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
use underpass_relay::{Duplex, Record, RecordChannel, RecordError};
use underpass_wire::channel::{CHANNEL_RECORD_BYTES_MAX, labels};

use crate::gateway::Shared;
use crate::link::Link;
use crate::tunnels::TunnelId;

/// How long one small record may take to be written: then its reader has stopped, and holds whatever waits for
/// the answer.
const SAY_WAIT: Duration = Duration::from_secs(10);

/// A data channel that its ticket has admitted, between tunnels: what is said on it now is sealed with the
/// channel's own keys, which go on over all its tunnels.
#[derive(Debug)]
pub(crate) struct DataChannel {
    pub records: RecordChannel,
    sealer: Sealer,
    opener: Opener,
    secret: Secret,
    /// When the other end last gave a sign of life.
    pub heard: Instant,
}

impl DataChannel {
    /// The channel of a ticket with this key, issued on the link with this handshake.
    pub(crate) fn new(
        duplex: Duplex,
        ticket: &Secret,
        handshake_hash: &[u8; 32],
        aead: Aead,
        now: Instant,
    ) -> Self {
        let secret: Secret = derive(ticket, &[handshake_hash], labels::CHANNEL);
        let n2a: DirectionKeys = derive(&secret, &[], labels::CHANNEL_NODE_TO_AGENT);
        let a2n: DirectionKeys = derive(&secret, &[], labels::CHANNEL_AGENT_TO_NODE);
        Self {
            records: RecordChannel::new(duplex),
            sealer: Sealer::sealed(aead, n2a),
            opener: Opener::sealed(aead, a2n),
            secret,
            heard: now,
        }
    }

    /// The seals of one tunnel between the node and the agent: what the node sends, and what it gets.
    pub(crate) fn tunnel_seals(&self, tunnel: &TunnelId, aead: Aead) -> (Sealer, Opener) {
        let n2a: DirectionKeys = derive(&self.secret, &[tunnel], labels::TUNNEL_NODE_TO_AGENT);
        let a2n: DirectionKeys = derive(&self.secret, &[tunnel], labels::TUNNEL_AGENT_TO_NODE);
        (Sealer::sealed(aead, n2a), Opener::sealed(aead, a2n))
    }

    /// Keeps a record under the channel's keys for the next flush.
    pub(crate) fn queue(&mut self, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        self.records.queue(&mut self.sealer, kind, body)
    }

    /// Says one record under the channel's keys. A peer that doesn't read loses the channel.
    pub(crate) async fn say(&mut self, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        let said = timeout(SAY_WAIT, self.records.send(&mut self.sealer, kind, body)).await;
        said.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// The next record under the channel's keys; `None` at the channel's end. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Result<Option<Record>, RecordError> {
        let heard = self.records.recv_short(&mut self.opener, CHANNEL_RECORD_BYTES_MAX).await;
        if let Ok(Some(_)) = heard {
            self.heard = Instant::now();
        }
        heard
    }

    /// Whether nothing has come on a parked channel, as it should be: neither its end nor anything else.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let mut heard = pin!(self.hear());
        poll_fn(|context| Poll::Ready(heard.as_mut().poll(context).is_pending())).await
    }

    /// Asks for a sign of life. Whatever is not the answer ends the channel.
    async fn is_alive(&mut self, wait: Duration) -> bool {
        let asked = async {
            self.say(record::KEEPALIVE, &[]).await?;
            self.hear().await
        };
        matches!(timeout(wait, asked).await, Ok(Ok(Some(Record { kind: record::KEEPALIVE_ANSWER, .. }))))
    }
}

/// Asks those parked channels of a link that have been idle for `age` whether they live. Each question is
/// a job of its own, so that a dead channel delays no other.
pub(crate) fn examine(shared: &Arc<Shared>, link: &Arc<Link>, age: Duration) {
    let wait = shared.options.keepalive_timeout;
    for mut channel in link.park.due(Instant::now(), age) {
        let (shared, link) = (shared.clone(), link.clone());
        shared.clone().tasks.spawn_job("keepalive", |_| async move {
            let alive = link.over.run_until_cancelled(channel.is_alive(wait)).await.unwrap_or_default();
            link.park.examined(alive.then_some(channel), Instant::now());
            crate::tickets::replenish(&shared, &link);
            Ok::<_, std::convert::Infallible>(())
        });
    }
}
