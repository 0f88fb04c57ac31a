//! The life of one link.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use underpass_control::{Caller, PresenceGuard};
use underpass_domain::{ActivityCommand, Actor, RandomFailed, Subject};
use underpass_pipeline::{Aead, aes_is_fast};
use underpass_wire::link::{Body, Kick, LinkDecoder, LinkError, Ping, Received, Unsupported, Welcome};
use underpass_wire::noise::{LinkOpener, LinkSealer, NoiseError};

use crate::commands::Commands;
use crate::desired::{self, Desires};
use crate::envelopes::{self, Allowance};
use crate::gateway::Shared;
use crate::handshake::{Newcomer, Wire, read_some, release_of};
use crate::link::{Goodbye, Link, NewLink};
use crate::outbox::Outbox;
use crate::park::Park;
use crate::{channel, tickets};

/// How long a new link waits for the end of the one it replaces, so that their marks in the log and in the
/// store come in order. The old one needs a moment for a farewell, and nothing from its network.
const REPLACED_WAIT: Duration = Duration::from_secs(1);

/// How long the beginning and the end of a session may take to be written down.
const RECORD_WAIT: Duration = Duration::from_secs(5);

/// How long the last message may take to leave.
const FAREWELL_WAIT: Duration = Duration::from_millis(500);

/// How often a session looks after its parked channels.
const LOOK_AFTER_EVERY: Duration = Duration::from_secs(1);

/// Runs the session of a client that has proved who it is.
pub(crate) async fn run(shared: Arc<Shared>, newcomer: Newcomer, stop: &CancellationToken) {
    let (address, client) = (newcomer.address, newcomer.client);
    match begin(&shared, newcomer, stop).await {
        Ok(Some(())) => {}
        Ok(None) => tracing::warn!(%client, %address, "a client is turned away: too many links"),
        Err(error) => {
            tracing::warn!(%client, %address, error = &error as &dyn std::error::Error, "no session");
        }
    }
}

async fn begin(
    shared: &Arc<Shared>,
    newcomer: Newcomer,
    stop: &CancellationToken,
) -> Result<Option<()>, RandomFailed> {
    let Newcomer { client, hello, address, transport, handshake_hash, wire } = newcomer;
    let now = Instant::now();
    let link = Link::new(NewLink {
        client,
        session: shared.control.new_session_id()?,
        address,
        transport: transport.to_owned(),
        since: shared.now(),
        handshake_hash,
        aead: Aead::agree(hello.aes && aes_is_fast()),
        outbox: Outbox::new(),
        park: Park::new(shared.options.parked_min, shared.options.parked_max, now),
        desired: Arc::new(desired::of_client(&shared.control, client)),
        envelopes: Allowance::new(now),
    });
    let Ok(replaced) = shared.links.register(&link) else { return Ok(None) };
    let registered = Registered { shared: shared.clone(), link: link.clone() };
    if let Some(old) = replaced {
        old.end(Goodbye::Replaced);
        if timeout(REPLACED_WAIT, old.ended.cancelled()).await.is_err() {
            tracing::debug!(%client, "the replaced link is slow to end");
        }
    }
    // What changed before the link was registered was told to nobody.
    link.update_desired(Arc::new(desired::of_client(&shared.control, client)));

    let caller = Caller::new(Actor::Node(shared.control.node())).from_address(address.ip());
    let open = ActivityCommand::OpenSession {
        session: link.session,
        client,
        node: shared.control.node(),
        address,
        transport: transport.to_owned(),
        release: release_of(&hello.version),
    };
    let noted = shared.control.note(&caller, Subject::Client(client), open);
    let presence = shared.control.connected(client, link.session);
    // A known client is served also while the log can't be written: what happened is written down later.
    if noted.written(record_wait(shared)).await && !link.over.is_cancelled() {
        // Replaced in the meantime, it must not write over what the younger link has announced.
        match timeout(RECORD_WAIT, shared.control.announce(&presence)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%client, error = &error as &dyn std::error::Error, "presence is announced later");
            }
            Err(_) => tracing::warn!(%client, "presence is announced later"),
        }
    }
    tracing::info!(%client, session = %link.session, %address, version = hello.version, "link up");
    converse(shared, &link, wire, stop).await;
    end(shared, &link, &caller, presence).await;
    drop(registered);
    Ok(Some(()))
}

/// How long to wait for the log: not at all while it is known that it can't be written.
fn record_wait(shared: &Shared) -> Duration {
    if shared.control.store_is_away() { Duration::ZERO } else { RECORD_WAIT }
}

/// The last marks of a session in store and log.
async fn end(shared: &Shared, link: &Link, caller: &Caller, presence: PresenceGuard) {
    let reason = link.goodbye().map(Goodbye::reason).unwrap_or_default();
    tracing::info!(client = %link.client, session = %link.session, reason, "link down");
    let close = ActivityCommand::CloseSession { session: link.session, reason };
    let noted = shared.control.note(caller, Subject::Client(link.client), close);
    if shared.control.store_is_away() {
        // Withdrawn in the background, as well as that goes.
        drop(presence);
        return;
    }
    let withdrawn = async {
        if let Err(error) = presence.withdraw().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "presence goes with the lease");
        }
    };
    let (_, written) = tokio::join!(timeout(RECORD_WAIT, withdrawn), noted.written(RECORD_WAIT));
    if !written {
        tracing::warn!(session = %link.session, "the end of a session is recorded later");
    }
}

/// A link's place among the links. Leaving it closes what hangs on the link.
struct Registered {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.link.end(Goodbye::Closed);
        self.shared.links.remove(&self.link);
        self.shared.tickets.forget(self.link.session);
        if matches!(self.link.goodbye(), Some(Goodbye::Blocked | Goodbye::Removed)) {
            self.shared.tunnels.stop_where(|tunnel| tunnel.concerns(self.link.client));
        }
        self.link.ended.cancel();
    }
}

/// Reads, writes and pings until one of them is over or the link is told to end; then says goodbye.
async fn converse(shared: &Arc<Shared>, link: &Arc<Link>, wire: Wire, stop: &CancellationToken) {
    let Wire { duplex, sealer, opener, decoder, read } = wire;
    let (reader, writer) = tokio::io::split(duplex);
    let heard = Heard::new();
    let mut desired = link.desired.subscribe();
    desired.mark_changed();
    let mut mouth = Mouth { writer, sealer, sealed: BytesMut::new() };
    link.outbox.say(Body::Welcome(welcome(shared, link)));
    let ears = Ears { reader, opener, decoder, read, commands: Commands::new(shared.clone(), link.clone()) };
    let goodbye = tokio::select! {
        () = link.over.cancelled() => Goodbye::Closed, // A reason was given already.
        () = stop.cancelled() => Goodbye::NodeStopping,
        goodbye = ears.listen(shared, link, &heard) => goodbye,
        error = mouth.speak(link, &mut desired) => Goodbye::Failed(error.to_string()),
        () = look_after(shared, link, &heard) => Goodbye::Silent,
    };
    link.end(goodbye);
    if let Some(reason) = link.goodbye().and_then(Goodbye::kick) {
        let message = link.goodbye().map(Goodbye::reason).unwrap_or_default();
        link.outbox.say(Body::Kick(Kick { reason: reason.into(), message }));
    }
    // A peer that does not read hears nothing; its socket is closed all the same.
    let _ = timeout(FAREWELL_WAIT, mouth.farewell(link)).await;
}

fn welcome(shared: &Shared, link: &Link) -> Welcome {
    let view = shared.control.state();
    let log_id = underpass_domain::Aggregate::log_id(&view.state);
    Welcome {
        client: link.client.as_bytes().to_vec(),
        session: link.session.as_bytes().to_vec(),
        node: shared.control.node().as_bytes().to_vec(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        log_id: log_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        epoch: view.epoch,
        ping_interval_ms: milliseconds(shared.options.ping_every),
        ping_timeout_ms: milliseconds(shared.options.ping_timeout),
        aes: aes_is_fast(),
        successor_key: Vec::new(),
        name: view.state.client(link.client).map(|client| client.name.clone()).unwrap_or_default(),
        public_host: shared.options.public_host.clone(),
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// When the client was last heard, in milliseconds after the session began.
#[derive(Debug)]
struct Heard {
    begin: Instant,
    last_ms: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self { begin: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn now(&self) {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        let last = self.begin + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(last)
    }
}

/// Pings, notices silence, and keeps the park in order. Ends when the client was silent for too long.
async fn look_after(shared: &Arc<Shared>, link: &Arc<Link>, heard: &Heard) {
    let mut next_ping = Instant::now() + shared.options.ping_every;
    let mut nonce = 0;
    let every = LOOK_AFTER_EVERY.min(shared.options.ping_every).min(shared.options.keepalive_every);
    loop {
        tickets::replenish(shared, link);
        tokio::time::sleep(every).await;
        if heard.silence() >= shared.options.ping_timeout {
            return;
        }
        let now = Instant::now();
        if now >= next_ping {
            nonce += 1;
            link.outbox.say(Body::Ping(Ping { nonce }));
            next_ping = now + shared.options.ping_every;
        }
        channel::examine(shared, link, shared.options.keepalive_every);
        link.park.shrink(now);
    }
}

/// The writing side of a link.
struct Mouth<W> {
    writer: W,
    sealer: LinkSealer,
    /// Sealed and not yet written. Outlives a cancelled write, so that the farewell finds the stream in step.
    sealed: BytesMut,
}

#[derive(Debug, thiserror::Error)]
enum SpeakError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

impl<W: AsyncWrite + Unpin> Mouth<W> {
    /// Writes what is in the outbox, and the newest desired state whenever there is room for it.
    async fn speak(&mut self, link: &Link, desired: &mut watch::Receiver<Arc<Desires>>) -> SpeakError {
        loop {
            // Only the newest is ever worth sending: while one is under way, changes gather.
            if link.outbox.is_empty() && desired.has_changed().unwrap_or_default() {
                let newest = desired.borrow_and_update().message.clone();
                link.outbox.say(Body::Desired(newest));
            }
            if let Err(error) = self.write_out(link).await {
                return error;
            }
            if !link.outbox.is_empty() || desired.has_changed().unwrap_or_default() {
                continue;
            }
            tokio::select! {
                () = link.outbox.ready() => {}
                _ = desired.changed() => desired.mark_changed(),
            }
        }
    }

    /// Seals and writes one batch.
    async fn write_out(&mut self, link: &Link) -> Result<(), SpeakError> {
        link.outbox.seal(&mut self.sealer, &mut self.sealed)?;
        while !self.sealed.is_empty() {
            if self.writer.write_buf(&mut self.sealed).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        self.writer.flush().await?;
        Ok(())
    }

    /// Writes what is left and closes.
    async fn farewell(&mut self, link: &Link) -> Result<(), SpeakError> {
        loop {
            self.write_out(link).await?;
            if link.outbox.is_empty() {
                break;
            }
        }
        Ok(self.writer.shutdown().await?)
    }
}

/// The reading side of a link.
struct Ears<R> {
    reader: R,
    opener: LinkOpener,
    decoder: LinkDecoder,
    read: BytesMut,
    commands: Commands,
}

impl<R: AsyncRead + Unpin> Ears<R> {
    /// Reads messages and has them dealt with. Nothing here waits for anything but the client.
    async fn listen(mut self, shared: &Arc<Shared>, link: &Arc<Link>, heard: &Heard) -> Goodbye {
        loop {
            match self.decoder.next(&mut self.opener, &mut self.read) {
                Ok(Some(received)) => {
                    heard.now();
                    if let Err(goodbye) = self.obey(shared, link, received) {
                        return goodbye;
                    }
                }
                Ok(None) => match read_some(&mut self.reader, &mut self.read).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Goodbye::Closed,
                    Err(error) => return Goodbye::Failed(error.to_string()),
                },
                Err(error) => return broken(&error),
            }
            // A client that sends without pause must not keep this task from writing.
            tokio::task::consume_budget().await;
        }
    }

    fn obey(&mut self, shared: &Arc<Shared>, link: &Arc<Link>, received: Received) -> Result<(), Goodbye> {
        let body = match received {
            Received::Known(body) => body,
            Received::Unknown { kind } => {
                link.outbox.say(Body::Unsupported(Unsupported { kind }));
                return Ok(());
            }
        };
        match body {
            Body::Ping(ping) => link.outbox.pong(ping.nonce),
            Body::Applied(applied) => link.note_applied(applied),
            Body::TicketRequest(request) => tickets::answer(shared, link, request),
            Body::Envelope(envelope) => {
                if let Err(dropped) = envelopes::route(shared, link, envelope) {
                    tracing::debug!(client = %link.client, ?dropped, "envelope dropped");
                }
            }
            Body::Command(command) => self.commands.submit(command),
            // The node counts every byte itself; only how many channels lie at the client is news.
            Body::Report(report) => link.note_parked(report.parked),
            // A pong has done its work by being heard. What the client does not know is its own affair.
            Body::Pong(_) | Body::Unsupported(_) => {}
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::Refused(_)
            | Body::Desired(_)
            | Body::Tickets(_)
            | Body::GoingAway(_)
            | Body::Kick(_)
            | Body::Answer(_) => return Err(Goodbye::Protocol("a message that only nodes send".to_owned())),
        }
        Ok(())
    }
}

fn broken(error: &LinkError) -> Goodbye {
    match error {
        LinkError::Noise(_) => Goodbye::Failed(error.to_string()),
        _ => Goodbye::Protocol(error.to_string()),
    }
}
