//! Tunnels at the target: from the node's open to the last byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use underpass_domain::MappingId;
use underpass_pipeline::{Aead, Opener, Sealer, record};
use underpass_relay::{Counters, Duplex, Ended, How, Options};
use underpass_wire::channel::{self, FailReason, Failed, Open, Opened, Protection};
use underpass_wire::{bytes16, channel::encode};

use crate::allow::{Approach, TargetAddress};
use crate::core::Core;
use crate::events::AgentEvent;
use crate::pair::Refusal;
use crate::parked::{ChannelFailure, ChannelSecret, DataChannel};
use crate::serving::Served;
use crate::sync::{lock, read};
use crate::target::{DIAL_DEADLINE, DialError, dial, resolve};

/// An open and the desired state that names its mapping take different ways; the open waits so long for the
/// other.
const DESIRED_WAIT: Duration = Duration::from_secs(2);

/// Why a tunnel is refused here.
#[derive(Debug)]
struct No {
    reason: FailReason,
    code: &'static str,
    message: String,
}

impl No {
    fn new(reason: FailReason, code: &'static str, message: impl Into<String>) -> Self {
        Self { reason, code, message: message.into() }
    }
}

impl From<DialError> for No {
    fn from(error: DialError) -> Self {
        let (reason, code) = match &error {
            DialError::Refused { .. } => (FailReason::Refused, "target.refused"),
            DialError::Unreachable { .. } => (FailReason::Unreachable, "target.unreachable"),
            DialError::TimedOut { .. } => (FailReason::TimedOut, "target.timeout"),
            DialError::Denied { .. } => (FailReason::Denied, "target.denied"),
        };
        Self::new(reason, code, error.to_string())
    }
}

/// What a tunnel needs, once nothing stands in its way.
struct Ready {
    served: Arc<Served>,
    stream: tokio::net::TcpStream,
    sealer: Sealer,
    opener: Opener,
    idle_timeout: Option<Duration>,
    sealing: &'static str,
}

/// Serves one open. Answers whether the channel can be parked again.
pub(crate) async fn serve_target(
    core: &Arc<Core>,
    channel: &mut DataChannel,
    open: Open,
) -> Result<bool, ChannelFailure> {
    let tunnel = bytes16("tunnel", &open.tunnel).map_err(|_| ChannelFailure::Protocol("no tunnel id"))?;
    let mapping = MappingId::from_bytes(
        bytes16("mapping", &open.mapping).map_err(|_| ChannelFailure::Protocol("no mapping id"))?,
    );
    let name = tunnel_name(&tunnel);
    let ready = match prepare(core, channel.secret.clone(), &open, tunnel, mapping).await {
        Ok(ready) => ready,
        Err(no) => {
            core.tell(AgentEvent::TunnelRefused {
                mapping,
                tunnel: name,
                code: no.code.into(),
                message: no.message.clone(),
            });
            let failed =
                Failed { tunnel: tunnel.to_vec(), reason: no.reason.into(), message: shortened(no.message) };
            channel.send(record::FAILED, &encode(&failed)?).await?;
            // Had the caller's first bytes followed the open, the node closes the channel; and what is sealed
            // for that tunnel is no record of the channel, so that the next read ends it in any case.
            return Ok(true);
        }
    };
    channel.send(record::OPENED, &encode(&Opened { tunnel: tunnel.to_vec() })?).await?;
    core.tell(AgentEvent::TunnelOpened {
        mapping,
        tunnel: name.clone(),
        caller: caller_of(&open.caller),
        sealed: ready.sealing.into(),
    });
    let options = Options {
        idle_timeout: ready.idle_timeout,
        allow_raw: ready.sealer.is_plain(),
        stop: ready.served.gone.clone(),
        ..Options::default()
    };
    let counters = Counters::default();
    let ended = {
        let _running = ready.served.count_tunnel();
        underpass_relay::tunnel(
            Duplex::Tcp(ready.stream),
            &mut channel.records,
            ready.sealer,
            ready.opener,
            &options,
            &counters,
        )
        .await
    };
    // The plain side here is the target: what went out to it came from the caller.
    core.tell(AgentEvent::TunnelClosed {
        mapping,
        tunnel: name,
        in_bytes: ended.out_bytes,
        out_bytes: ended.in_bytes,
        how: how(&ended).into(),
    });
    Ok(ended.channel_reusable())
}

async fn prepare(
    core: &Arc<Core>,
    secret: ChannelSecret,
    open: &Open,
    tunnel: [u8; 16],
    mapping: MappingId,
) -> Result<Ready, No> {
    let denied = |message: &str| No::new(FailReason::NotServed, "target.denied", message);
    let served = core
        .serving
        .wait_for(mapping, DESIRED_WAIT)
        .await
        .ok_or_else(|| denied("this client does not serve the mapping"))?;
    let wanted = served.wanted();
    let offer =
        wanted.offer.as_ref().ok_or_else(|| denied("this client is not the target of the mapping"))?;
    let unsealable = |message: &str| No::new(FailReason::Unsealable, "tunnel.unsealed", message);

    let protection = open.protection();
    let expected = match (core.pairs.must_seal(&wanted), &offer.peer) {
        (false, _) => Protection::Plain,
        (true, None) => Protection::NodeSealed,
        (true, Some(_)) => Protection::EndToEnd,
    };
    // What was shared by a code is reached end to end or not at all, whatever the server says.
    let expected = if core.pairs.code_of(mapping).is_some() { Protection::EndToEnd } else { expected };
    if protection != expected {
        return Err(unsealable("the tunnel is not sealed as its mapping asks for"));
    }
    let mut approach = Approach::Server;
    let met_by;
    let (sealer, opener, sealing) = match protection {
        Protection::Plain => (Sealer::plain(), Opener::plain(), "plain"),
        Protection::NodeSealed => {
            let aead = aead(open.aead()).ok_or_else(|| unsealable("the cipher is not known here"))?;
            let (sealer, opener) = secret.tunnel(&tunnel, aead);
            (sealer, opener, "node")
        }
        Protection::EndToEnd => {
            let pair = bytes16("pair", &open.pair).map_err(|_| unsealable("the open names no pair"))?;
            let keys =
                core.pairs.target_keys(mapping, pair, open.seq, &tunnel).map_err(
                    |refusal| match refusal {
                        Refusal::Unknown => {
                            No::new(FailReason::Unsealable, "pair.unknown", "the pair is not known here")
                        }
                        Refusal::Repeated => unsealable("the tunnel's number was used before"),
                    },
                )?;
            met_by = keys.code;
            if let Some(lookup) = &met_by {
                approach = Approach::Code(lookup);
            }
            (keys.sealer, keys.opener, if met_by.is_some() { "end-to-end" } else { "pinned" })
        }
        Protection::Unspecified => return Err(unsealable("the tunnel's sealing is not known here")),
    };

    let target: TargetAddress = open
        .target
        .parse()
        .map_err(|_| No::new(FailReason::Denied, "target.denied", "the target is not an address"))?;
    let deadline = Instant::now() + DIAL_DEADLINE;
    let forbidden = || No::from(DialError::Denied { target: target.to_string() });
    if !read(&core.allow).may_resolve(&target, approach) {
        return Err(forbidden());
    }
    let resolved = resolve(&target, deadline).await?;
    let permitted: Vec<SocketAddr> = read(&core.allow).permitted(&target, &resolved, approach);
    if permitted.is_empty() {
        return Err(forbidden());
    }
    let stream = tokio::select! {
        dialled = dial(&target, &permitted, deadline) => dialled?,
        () = served.gone.cancelled() => return Err(denied("the mapping is not served any more")),
    };
    // Not before: what came to nothing may be asked for again.
    if !lock(&core.opened).take(tunnel) {
        return Err(No::new(FailReason::Denied, "tunnel.failed", "the tunnel was opened already"));
    }
    let idle_timeout = wanted
        .idle_timeout
        .or((open.idle_timeout_s > 0).then(|| Duration::from_secs(open.idle_timeout_s.into())));
    Ok(Ready { served, stream, sealer, opener, idle_timeout, sealing })
}

/// The cipher that a number on the wire names.
pub(crate) fn aead(number: channel::Aead) -> Option<Aead> {
    match number {
        channel::Aead::XChaCha20Poly1305 => Some(Aead::XChaCha20Poly1305),
        channel::Aead::Aes256Gcm => Some(Aead::Aes256Gcm),
        channel::Aead::Unspecified => None,
    }
}

/// The number of a cipher on the wire.
pub(crate) fn aead_number(aead: Aead) -> channel::Aead {
    match aead {
        Aead::XChaCha20Poly1305 => channel::Aead::XChaCha20Poly1305,
        Aead::Aes256Gcm => channel::Aead::Aes256Gcm,
        _ => channel::Aead::Unspecified,
    }
}

/// Who called, for people: an address, and nothing else that somebody at the other end wrote there.
fn caller_of(said: &str) -> String {
    said.parse::<SocketAddr>().map_or_else(|_| "unknown".into(), |address| address.to_string())
}

pub(crate) fn tunnel_name(id: &[u8; 16]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

pub(crate) fn how(ended: &Ended) -> &'static str {
    match ended.how {
        How::Finished { .. } => "finished",
        How::Idle => "idle",
        How::Reset => "reset",
        How::PlainFailed(_) => "connection failed",
        How::ChannelFailed(_) => "channel failed",
        How::Forged => "forged",
        How::Stopped => "stopped",
        _ => "ended",
    }
}

/// A message for the other side: people read it, so the first part is enough.
fn shortened(mut message: String) -> String {
    /// Far below what a message of a channel may have.
    const BYTES_MAX: usize = 512;
    let mut end = message.len().min(BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}
