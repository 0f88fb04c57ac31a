//! A tunnel to a target: a free channel of its client, the request, the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Mapping, MappingId};
use underpass_pipeline::{Aead, Opener, Sealer, record};
use underpass_relay::{Duplex, Ended, Options, Record, RecordError, tunnel as relay_tunnel};
use underpass_wire::channel::{self, FailReason, Failed, Open, Protection};

use crate::channel::{DataChannel, examine};
use crate::error::OpenError;
use crate::gateway::Shared;
use crate::link::Link;
use crate::park::Taken;
use crate::tickets::replenish;
use crate::tunnels::{NotRegistered, Running, Tunnel, TunnelId};
use crate::usage::Totals;

/// Channels that are tried for one tunnel. A network that broke breaks all parked channels at once, so this is
/// more than one; each try after the first costs at most [`PROOF_WAIT`].
const CHANNELS_TRIED_MAX: usize = 3;

/// A channel that was silent for longer is asked for a sign of life together with the request.
const PROOF_AGE: Duration = Duration::from_secs(5);

/// How long that sign may take. It needs no work on the other side, only a round trip.
const PROOF_WAIT: Duration = Duration::from_secs(3);

/// What a target client is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub open: Open,
    /// The caller's first bytes. Only of tunnels that end at the node: of others it has none.
    pub early: Bytes,
}

/// Why there is no tunnel, as it is said on channels. What a target client says is passed on as it is, reasons
/// of newer releases included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub reason: i32,
    pub message: String,
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self { reason: error.reason().into(), message: error.to_string() }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::from_reason(FailReason::try_from(failure.reason).unwrap_or_default(), failure.message)
    }
}

/// A channel on which the target is connected.
#[derive(Debug)]
pub(crate) struct OpenChannel {
    pub channel: DataChannel,
    pub link: Arc<Link>,
    /// Of the tunnel: for tunnels that end at the node.
    pub seals: Option<(Sealer, Opener)>,
}

impl OpenChannel {
    /// The tunnel is over and its records are in step: the channel waits for the next one.
    pub(crate) fn park(self) {
        self.link.park.put(self.channel, Instant::now());
    }
}

/// Opens a tunnel for a caller of a public port.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    id: MappingId,
    caller: SocketAddr,
    early: Bytes,
) -> Result<OpenTunnel, OpenError> {
    let view = shared.control.state();
    let mapping = view.state.mapping(id).filter(|mapping| mapping.port().is_some());
    let mapping = mapping.ok_or(OpenError::NotServed)?;
    let opened = open_port(shared, mapping, caller, early).await;
    if opened.is_err() {
        shared.tunnels.usage().add(id, Totals { refused: 1, ..Totals::default() });
    }
    opened
}

async fn open_port(
    shared: &Arc<Shared>,
    mapping: &Mapping,
    caller: SocketAddr,
    early: Bytes,
) -> Result<OpenTunnel, OpenError> {
    if early.len() > record::BODY_BYTES_MAX {
        return Err(OpenError::Denied("more first bytes than one record holds".to_owned()));
    }
    let id: TunnelId = shared.random.array().map_err(|_| OpenError::Unavailable("no randomness"))?;
    let early_bytes = early.len() as u64;
    let (running, link) = admit(shared, mapping, id, caller.to_string())?;
    let protection = if mapping.options.seal.is_on() { Protection::NodeSealed } else { Protection::Plain };
    let open = Open { protection: protection.into(), ..request(mapping, &running.tunnel) };
    let mut open_channel = open_channel(shared, &link, &running.tunnel, &Request { open, early }).await?;
    let seals = open_channel.seals.take();
    let (sealer, opener) = seals.ok_or_else(|| OpenError::Unsealable("there are no keys".to_owned()))?;
    running.tunnel.early.fetch_add(early_bytes, Ordering::Relaxed);
    let idle_timeout = idle_timeout(mapping);
    Ok(OpenTunnel { open_channel, sealer, opener, running, idle_timeout })
}

/// Makes room for a tunnel and finds the link of its target: everything that can be known without asking anybody.
pub(crate) fn admit(
    shared: &Shared,
    mapping: &Mapping,
    id: TunnelId,
    caller: String,
) -> Result<(Running, Arc<Link>), OpenError> {
    if shared.leaving.is_cancelled() {
        return Err(OpenError::Unavailable("it is going down"));
    }
    let permit = shared.limits.admit(mapping.id, mapping.options.max_connections).ok_or(OpenError::Limit)?;
    let target = mapping.target.client;
    let tunnel = Tunnel::new(id, mapping.id, mapping.listener(), target, caller, shared.now());
    let running = shared.tunnels.register(tunnel, permit).map_err(|error| match error {
        NotRegistered::Duplicate => OpenError::Denied("a tunnel with this id is running".to_owned()),
        NotRegistered::Full => OpenError::Limit,
    })?;
    // Looked at after the tunnel is registered: whoever ends the mapping after this look finds the tunnel.
    let view = shared.control.state();
    let served = view.state.mapping(mapping.id).is_some_and(|now| view.state.serves(now, shared.now()));
    if !served {
        return Err(OpenError::NotServed);
    }
    let link = shared.links.get(target).ok_or(OpenError::Offline)?;
    Ok((running, link))
}

/// The request for a tunnel, but for how it is sealed.
pub(crate) fn request(mapping: &Mapping, tunnel: &Tunnel) -> Open {
    Open {
        tunnel: tunnel.id.to_vec(),
        mapping: mapping.id.as_bytes().to_vec(),
        target: mapping.target.address.clone(),
        caller: tunnel.caller.clone(),
        idle_timeout_s: mapping.options.idle_timeout_s.unwrap_or_default(),
        ..Open::default()
    }
}

pub(crate) fn idle_timeout(mapping: &Mapping) -> Option<Duration> {
    mapping.options.idle_timeout_s.map(|seconds| Duration::from_secs(seconds.into()))
}

fn wire_aead(aead: Aead) -> channel::Aead {
    match aead {
        Aead::Aes256Gcm => channel::Aead::Aes256Gcm,
        _ => channel::Aead::XChaCha20Poly1305,
    }
}

/// Has a target client connect to its target. Ends with the tunnel's own end, too.
pub(crate) async fn open_channel(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    tunnel: &Tunnel,
    request: &Request,
) -> Result<OpenChannel, Failure> {
    let opened = tunnel.stop.run_until_cancelled(try_channels(shared, link, tunnel, request)).await;
    let opened = opened.unwrap_or_else(|| Err(OpenError::NotServed.into()))?;
    shared.tunnels.usage().add(tunnel.mapping, Totals { tunnels: 1, ..Totals::default() });
    Ok(opened)
}

async fn try_channels(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    tunnel: &Tunnel,
    request: &Request,
) -> Result<OpenChannel, Failure> {
    let mut link = link.clone();
    for _ in 0..CHANNELS_TRIED_MAX {
        let mut channel = match free_channel(shared, &link).await {
            Ok(channel) => channel,
            // The client is back on another link, which will have channels in a moment.
            Err(OpenError::Offline) => match shared.links.get(link.client) {
                Some(next) if next.session != link.session => {
                    link = next;
                    continue;
                }
                _ => return Err(OpenError::Offline.into()),
            },
            Err(error) => return Err(error.into()),
        };
        let body = encoded(request, &link)?;
        let mut seals = seals(&channel, &link, tunnel, request);
        match ask(shared, &mut channel, seals.as_mut().map(|(sealer, _)| sealer), &body, &request.early).await
        {
            Asked::Opened => return Ok(OpenChannel { channel, link, seals }),
            Asked::Refused(failure) => {
                // Bytes under the tunnel's keys may lie in the channel otherwise.
                if request.early.is_empty() {
                    link.park.put(channel, Instant::now());
                }
                return Err(failure);
            }
            Asked::Broken(error) => return Err(error.into()),
            Asked::Dead => {
                tracing::debug!(client = %link.client, "a parked channel was dead; taking another");
                // What broke this one has likely broken those that lay beside it; no caller should find out
                // one by one.
                examine(shared, &link, PROOF_AGE);
            }
        }
    }
    Err(OpenError::Unreachable("the channels of the client break".to_owned()).into())
}

/// The request as this link's client gets it: what the node seals, it seals as agreed on the link.
fn encoded(request: &Request, link: &Link) -> Result<Vec<u8>, OpenError> {
    let mut open = request.open.clone();
    if open.protection() == Protection::NodeSealed {
        open.aead = wire_aead(link.aead).into();
    }
    channel::encode(&open).map_err(|error| OpenError::Denied(format!("the request: {error}")))
}

/// The seals of a tunnel that ends at the node. Of one that is sealed from end to end the node has none, and
/// needs none.
fn seals(channel: &DataChannel, link: &Link, tunnel: &Tunnel, request: &Request) -> Option<(Sealer, Opener)> {
    match request.open.protection() {
        Protection::NodeSealed => Some(channel.tunnel_seals(&tunnel.id, link.aead)),
        Protection::Plain => Some((Sealer::plain(), Opener::plain())),
        Protection::EndToEnd | Protection::Unspecified => None,
    }
}

/// A parked channel of the client that looks alive, or the next one that comes.
async fn free_channel(shared: &Shared, link: &Arc<Link>) -> Result<DataChannel, OpenError> {
    let deadline = Instant::now() + shared.options.channel_wait;
    loop {
        let taken = link.park.take(Instant::now());
        replenish(shared, link);
        match taken {
            Taken::Channel(mut channel) => {
                // What came on it while it was parked, if anything, was its end.
                if channel.is_quiet().await {
                    return Ok(channel);
                }
            }
            Taken::Wait(coming) => {
                return match timeout_at(deadline, coming).await {
                    Ok(Ok(channel)) => Ok(channel),
                    Ok(Err(_)) => Err(OpenError::Offline),
                    Err(_) => Err(OpenError::Unreachable("its client opens no channel".to_owned())),
                };
            }
            Taken::Full => return Err(OpenError::Unavailable("too many callers wait for this client")),
            Taken::Closed => return Err(OpenError::Offline),
        }
    }
}

/// What became of a request.
#[derive(Debug)]
enum Asked {
    Opened,
    /// The client said no. The channel is as good as before.
    Refused(Failure),
    /// Nobody knows what the client does now. The channel is of no use.
    Broken(OpenError),
    /// The channel gave no sign of life since the request: nobody has acted on it.
    Dead,
}

/// Sends a request and the first bytes in one go, and waits for the answer.
async fn ask(
    shared: &Shared,
    channel: &mut DataChannel,
    sealer: Option<&mut Sealer>,
    body: &[u8],
    early: &[u8],
) -> Asked {
    let asked = Instant::now();
    let unproven = asked.saturating_duration_since(channel.heard) > PROOF_AGE;
    let queued = (|| {
        if unproven {
            channel.queue(record::KEEPALIVE, &[])?;
        }
        channel.queue(record::OPEN, body)?;
        if let Some(sealer) = sealer.filter(|_| !early.is_empty()) {
            channel.records.queue(sealer, record::DATA, early)?;
        }
        Ok::<_, RecordError>(())
    })();
    if let Err(error) = queued {
        return broken(&error.to_string());
    }
    let deadline = asked + shared.options.open_deadline;
    let mut proof = if unproven { asked + PROOF_WAIT } else { deadline }.min(deadline);
    match timeout_at(proof, channel.records.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Asked::Dead,
    }
    let mut alive = false;
    loop {
        match timeout_at(proof, channel.hear()).await {
            Ok(Ok(Some(Record { kind: record::KEEPALIVE_ANSWER, .. }))) => {
                (alive, proof) = (true, deadline);
            }
            Ok(Ok(Some(Record { kind: record::OPENED, .. }))) => return Asked::Opened,
            Ok(Ok(Some(Record { kind: record::FAILED, body }))) => {
                return match channel::decode::<Failed>(&body) {
                    Ok(Failed { reason, message, .. }) => Asked::Refused(Failure { reason, message }),
                    Err(error) => broken(&error.to_string()),
                };
            }
            Ok(Ok(Some(_))) => return broken("its client breaks the protocol"),
            Ok(Ok(None) | Err(_)) if alive => {
                return broken("its client closed the channel");
            }
            Ok(Ok(None) | Err(_)) => return Asked::Dead,
            Err(_) if proof < deadline => return Asked::Dead,
            Err(_) => return Asked::Broken(OpenError::TimedOut),
        }
    }
}

fn broken(why: &str) -> Asked {
    Asked::Broken(OpenError::Unreachable(why.to_owned()))
}

/// A tunnel whose target is connected. Dropping it unused closes its channel, and the target's side with it.
#[derive(Debug)]
#[must_use = "the target waits"]
pub struct OpenTunnel {
    open_channel: OpenChannel,
    sealer: Sealer,
    opener: Opener,
    running: Running,
    idle_timeout: Option<Duration>,
}

impl OpenTunnel {
    /// The tunnel's id.
    pub fn id(&self) -> TunnelId {
        self.running.tunnel.id
    }

    /// Cancelled when the mapping is over and the tunnel with it.
    pub fn stop(&self) -> &CancellationToken {
        &self.running.tunnel.stop
    }

    /// Moves bytes between the caller and the target until both are done or one of them fails. Counts them,
    /// and parks the channel where it can serve another tunnel.
    pub async fn run(self, caller: Duplex) -> Ended {
        let Self { mut open_channel, sealer, opener, running, idle_timeout } = self;
        let tunnel = &running.tunnel;
        let options = Options { idle_timeout, stop: tunnel.stop.clone(), ..Options::default() };
        let records = &mut open_channel.channel.records;
        let ended = relay_tunnel(caller, records, sealer, opener, &options, &tunnel.counters).await;
        if ended.channel_reusable() {
            open_channel.channel.heard = Instant::now();
            open_channel.park();
        }
        ended
    }
}
