//! Data channels: dialling them, and serving those that the node keeps parked.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
use underpass_relay::{Duplex, Record, RecordChannel, RecordError};
use underpass_wire::channel::{self, DataHello, DataRole, labels};
use underpass_wire::link::Ticket;
use underpass_wire::preamble::{self, Kind};
use underpass_wire::{bytes16, bytes32};

use crate::core::Core;
use crate::session::Session;

/// A ticket is dead after this time; dialling longer is of no use.
const TICKET_LIFE: Duration = Duration::from_secs(10);
/// Dials at once. More would only make a small machine's connection table the bottleneck.
pub(crate) const DIALS_MAX: usize = 64;
/// Target channels of one agent. Each costs a socket here and at the node.
pub(crate) const TARGET_CHANNELS_MAX: usize = 4096;
/// The node asks every 30 s whether a parked channel is alive; after two missed questions and the time for an
/// answer it is not there any more.
const PARKED_SILENCE_MAX: Duration = Duration::from_secs(75);
/// An answer to the node that can't be written in this time never will.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A data channel with its keys.
pub(crate) struct DataChannel {
    pub(crate) records: RecordChannel,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Tunnels between node and agent derive their keys from it.
    pub(crate) secret: ChannelSecret,
}

/// What the keys of a channel's tunnels are derived from.
#[derive(Clone, Debug)]
pub(crate) struct ChannelSecret(Secret);

impl ChannelSecret {
    /// Sealer and opener of a tunnel between the node and this agent.
    pub(crate) fn tunnel(&self, tunnel: &[u8; 16], aead: Aead) -> (Sealer, Opener) {
        let to_node: DirectionKeys = derive(&self.0, &[tunnel], labels::TUNNEL_AGENT_TO_NODE);
        let to_agent: DirectionKeys = derive(&self.0, &[tunnel], labels::TUNNEL_NODE_TO_AGENT);
        (Sealer::sealed(aead, to_node), Opener::sealed(aead, to_agent))
    }
}

impl fmt::Debug for DataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataChannel").finish_non_exhaustive()
    }
}

/// Why there is no data channel, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelFailure {
    #[error("the ticket is malformed")]
    Ticket,
    #[error("the node can't be dialled: {0}")]
    Dial(String),
    #[error("the channel failed")]
    Record(#[from] RecordError),
    #[error("the channel's peer says what it should not: {0}")]
    Protocol(&'static str),
    #[error("the channel is closed")]
    Closed,
    #[error("the channel is silent")]
    Silent,
}

impl From<channel::ChannelMessageError> for ChannelFailure {
    fn from(_: channel::ChannelMessageError) -> Self {
        Self::Protocol("a malformed message")
    }
}

impl DataChannel {
    /// Goes the way of the link to the node and shows the ticket.
    pub(crate) async fn dial(
        session: &Session,
        ticket: &Ticket,
        role: DataRole,
    ) -> Result<Self, ChannelFailure> {
        let id = bytes16("ticket", &ticket.id).map_err(|_| ChannelFailure::Ticket)?;
        let key = ticket.key.as_ref().ok_or(ChannelFailure::Ticket)?;
        let key = bytes32("ticket key", key.expose()).map_err(|_| ChannelFailure::Ticket)?;
        let deadline = Instant::now() + TICKET_LIFE;
        let failed = |error: String| ChannelFailure::Dial(error);
        let dialled = timeout_at(deadline, session.connector.connect(&session.address, TICKET_LIFE))
            .await
            .map_err(|_| failed("no answer in time".into()))?
            .map_err(|error| failed(error.to_string()))?;
        let mut io = duplex(dialled.stream);
        let hello = DataHello::new(id, &key, &session.hash, role);
        let opening = [&preamble::encode(Kind::Data)[..], &hello.to_bytes()].concat();
        timeout_at(deadline, async {
            io.write_all(&opening).await?;
            io.flush().await
        })
        .await
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(|error| failed(error.to_string()))?;
        Ok(Self::new(io, key, session))
    }

    fn new(io: Duplex, key: [u8; 32], session: &Session) -> Self {
        let secret: Secret = derive(&Secret::new(key), &[&session.hash], labels::CHANNEL);
        let to_node: DirectionKeys = derive(&secret, &[], labels::CHANNEL_AGENT_TO_NODE);
        let to_agent: DirectionKeys = derive(&secret, &[], labels::CHANNEL_NODE_TO_AGENT);
        Self {
            records: RecordChannel::new(io),
            sealer: Sealer::sealed(session.aead, to_node),
            opener: Opener::sealed(session.aead, to_agent),
            secret: ChannelSecret(secret),
        }
    }

    pub(crate) async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), ChannelFailure> {
        timeout(ANSWER_DEADLINE, self.records.send(&mut self.sealer, kind, body))
            .await
            .map_err(|_| ChannelFailure::Silent)??;
        Ok(())
    }

    /// The next record of the channel itself, whatever it is. Cancel-safe.
    async fn hear(&mut self) -> Result<Option<Record>, RecordError> {
        self.records.recv_short(&mut self.opener, channel::CHANNEL_RECORD_BYTES_MAX).await
    }

    /// The next record of the channel itself. Questions whether anybody is there are answered meanwhile.
    /// Cancel-safe as far as no answer is half written; what is half written goes out with the next record.
    pub(crate) async fn next(&mut self) -> Result<Record, ChannelFailure> {
        loop {
            let record = self.hear().await?.ok_or(ChannelFailure::Closed)?;
            match record.kind {
                record::KEEPALIVE => self.send(record::KEEPALIVE_ANSWER, &[]).await?,
                record::KEEPALIVE_ANSWER => {}
                _ => return Ok(record),
            }
        }
    }

    /// Asks whether the node is there.
    pub(crate) async fn check(&mut self, deadline: Duration) -> Result<(), ChannelFailure> {
        self.send(record::KEEPALIVE, &[]).await?;
        let answer = timeout(deadline, self.hear()).await.map_err(|_| ChannelFailure::Silent)??;
        match answer {
            Some(record) if record.kind == record::KEEPALIVE_ANSWER => Ok(()),
            Some(_) => Err(ChannelFailure::Protocol("something else than an answer")),
            None => Err(ChannelFailure::Closed),
        }
    }
}

/// A stream of `transport` as `relay` knows it.
pub(crate) fn duplex(stream: underpass_transport::Stream) -> Duplex {
    match stream {
        underpass_transport::Stream::Tcp(stream) => Duplex::Tcp(stream),
        underpass_transport::Stream::Other(stream) => Duplex::other(stream),
    }
}

/// Dials a channel for each ticket and serves it until the link or the channel ends.
pub(crate) fn dial_and_serve(core: &Arc<Core>, session: &Arc<Session>, tickets: Vec<Ticket>) {
    for ticket in tickets.into_iter().take(DIALS_MAX) {
        let Some(counted) = Counted::target(session) else {
            tracing::debug!("there are as many target channels as there may be");
            return;
        };
        let (core, session) = (core.clone(), session.clone());
        core.clone().tunnels.spawn_job("target channel", |_| async move {
            let _counted = counted;
            let dialled = tokio::select! {
                dialled = DataChannel::dial(&session, &ticket, DataRole::Target) => dialled,
                () = session.over.cancelled() => return Ok::<_, Infallible>(()),
            };
            match dialled {
                Ok(channel) => {
                    if let Err(failure) = serve(&core, &session, channel).await {
                        tracing::debug!(
                            error = &failure as &dyn std::error::Error,
                            "a target channel has ended"
                        );
                    }
                }
                Err(failure) => {
                    tracing::debug!(error = &failure as &dyn std::error::Error, "no target channel");
                }
            }
            Ok(())
        });
    }
}

/// Waits for tunnels and serves them, one after the other.
async fn serve(
    core: &Arc<Core>,
    session: &Arc<Session>,
    mut channel: DataChannel,
) -> Result<(), ChannelFailure> {
    loop {
        let record = {
            let _parked = Parked::new(session);
            tokio::select! {
                record = timeout(PARKED_SILENCE_MAX, next_or_pulse(&mut channel)) => {
                    match record.map_err(|_| ChannelFailure::Silent)?? {
                        Some(record) => record,
                        None => continue,
                    }
                }
                // Parked channels end with their link, and when nothing new may begin.
                () = session.over.cancelled() => return Ok(()),
                () = core.closing.cancelled() => return Ok(()),
            }
        };
        if record.kind != record::OPEN {
            return Err(ChannelFailure::Protocol("something else than an open"));
        }
        let open: channel::Open = channel::decode(&record.body)?;
        if !crate::tunnel::serve_target(core, &mut channel, open).await? {
            return Ok(());
        }
        if session.over.is_cancelled() || core.closing.is_cancelled() {
            return Ok(());
        }
    }
}

/// The next record that is not about being alive; `None` when one about that was dealt with: the time of
/// silence starts anew.
async fn next_or_pulse(channel: &mut DataChannel) -> Result<Option<Record>, ChannelFailure> {
    let record = channel.hear().await?.ok_or(ChannelFailure::Closed)?;
    match record.kind {
        record::KEEPALIVE => channel.send(record::KEEPALIVE_ANSWER, &[]).await.map(|()| None),
        record::KEEPALIVE_ANSWER => Ok(None),
        _ => Ok(Some(record)),
    }
}

/// One of the target channels of a session.
struct Counted {
    session: Arc<Session>,
}

impl Counted {
    fn target(session: &Arc<Session>) -> Option<Self> {
        let one_more = |count| (count < TARGET_CHANNELS_MAX).then_some(count + 1);
        session.target_channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { session: session.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.session.target_channels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A channel that waits for work, counted for the status.
struct Parked<'a>(&'a Session);

impl<'a> Parked<'a> {
    fn new(session: &'a Session) -> Self {
        session.target_parked.fetch_add(1, Ordering::Relaxed);
        Self(session)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.target_parked.fetch_sub(1, Ordering::Relaxed);
    }
}
