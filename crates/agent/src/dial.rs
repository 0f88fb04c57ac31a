//! Callers here: from their connection to a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use underpass_pipeline::{Opener, Sealer, record};
use underpass_relay::{Counters, Duplex, Options};
use underpass_wire::bytes16;
use underpass_wire::channel::{self, Dial, FailReason, Failed, Opened, Protection, encode};

use crate::core::Core;
use crate::error::AgentError;
use crate::events::AgentEvent;
use crate::listen::refuse;
use crate::pair::ListenKeys;
use crate::parked::{ChannelFailure, DataChannel};
use crate::pool::{self, NoChannel};
use crate::serving::Served;
use crate::session::Session;
use crate::tunnel::{aead_number, how, tunnel_name};

/// The node answers a dial after at most 12 s; then it is lost.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// A caller waits so long for a link that is being made again. Longer, and it is better refused.
const LINK_WAIT: Duration = Duration::from_secs(1);
/// A caller waits so long for a data channel.
const CHANNEL_WAIT: Duration = Duration::from_secs(10);
/// A caller waits so long for the other end's keys, when there are none yet.
const PAIR_WAIT: Duration = Duration::from_secs(10);
/// A waiting channel may prove dead and a pair forgotten at the other end, once each; and then it must work.
const ATTEMPTS_MAX: usize = 4;
/// What is shown of the other end's words.
const MESSAGE_CHARS_MAX: usize = 512;

/// Why a caller is turned away.
#[derive(Clone, Debug)]
struct No {
    code: String,
    message: String,
}

impl From<AgentError> for No {
    fn from(error: AgentError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string() }
    }
}

/// A tunnel to the target that stands.
struct Tunnel {
    id: [u8; 16],
    channel: DataChannel,
    session: Arc<Session>,
    sealer: Sealer,
    opener: Opener,
    sealing: &'static str,
}

/// What one attempt came to.
enum Attempt {
    Stands(Box<Tunnel>),
    /// The answer is no.
    Refused(No),
    /// The channel was dead. Nothing was begun at the other end.
    Dead(No),
    /// The other end can't seal with these keys.
    Unsealable(No),
}

pub(crate) async fn serve_caller(
    core: &Arc<Core>,
    served: &Arc<Served>,
    stream: TcpStream,
    caller: SocketAddr,
) {
    let mapping = served.wanted().mapping;
    let opened = tokio::select! {
        opened = open(core, served, caller) => opened,
        () = served.gone.cancelled() => Err(No { code: "tunnel.failed".into(), message: "the mapping is not served any more".into() }),
        // Nobody waits for the answer.
        () = hung_up(&stream) => return,
    };
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(No { code, message }) => {
            refuse(stream);
            core.tell(AgentEvent::TunnelRefused { mapping, tunnel: String::new(), code, message });
            return;
        }
    };
    let Tunnel { id, mut channel, session, sealer, opener, sealing } = *tunnel;
    let name = tunnel_name(&id);
    core.tell(AgentEvent::TunnelOpened {
        mapping,
        tunnel: name.clone(),
        caller: caller.to_string(),
        sealed: sealing.into(),
    });
    // Small pieces of either side must not be delayed; a failure here costs only that.
    let _ = stream.set_nodelay(true);
    let options = Options {
        idle_timeout: served.wanted().idle_timeout,
        allow_raw: sealer.is_plain(),
        stop: served.gone.clone(),
        ..Options::default()
    };
    let counters = Counters::default();
    let ended = {
        let _running = served.count_tunnel();
        underpass_relay::tunnel(
            Duplex::Tcp(stream),
            &mut channel.records,
            sealer,
            opener,
            &options,
            &counters,
        )
        .await
    };
    core.tell(AgentEvent::TunnelClosed {
        mapping,
        tunnel: name,
        in_bytes: ended.in_bytes,
        out_bytes: ended.out_bytes,
        how: how(&ended).into(),
    });
    if ended.channel_reusable() && !session.over.is_cancelled() {
        session.pool.give(channel);
    }
}

/// Waits until the caller's connection is broken. A caller that has only ended its own direction still waits
/// for the answer.
async fn hung_up(stream: &TcpStream) {
    let _ = stream.ready(tokio::io::Interest::ERROR).await;
}

async fn open(core: &Arc<Core>, served: &Arc<Served>, caller: SocketAddr) -> Result<Box<Tunnel>, No> {
    let mut last = None;
    let mut fresh_pair = false;
    for _ in 0..ATTEMPTS_MAX {
        let session = core.session(Instant::now() + LINK_WAIT).await?;
        let wanted = served.wanted();
        let tunnel = (*core.random).array::<16>().map_err(|_| AgentError::Random)?;
        let keys = if core.pairs.must_seal(&wanted) {
            Some(core.pairs.listen_keys(core, &wanted, &tunnel, Instant::now() + PAIR_WAIT).await?)
        } else {
            None
        };
        let pair = keys.as_ref().map(|keys| keys.pair);
        let channel =
            pool::take(&session, Instant::now() + CHANNEL_WAIT).await.map_err(|none| match none {
                NoChannel::Crowded => {
                    AgentError::Busy { what: "too many callers wait for a data channel" }.into()
                }
                NoChannel::None => No {
                    code: "tunnel.failed".into(),
                    message: "there is no data channel to the server".into(),
                },
            })?;
        let mapping = wanted.mapping.as_bytes();
        match attempt(&session, channel, mapping, tunnel, keys, caller).await {
            Attempt::Stands(tunnel) => return Ok(tunnel),
            Attempt::Refused(no) => return Err(no),
            Attempt::Dead(no) => last = Some(no),
            Attempt::Unsealable(no) => {
                let Some(pair) = pair.filter(|_| !fresh_pair) else { return Err(no) };
                // The other end was restarted, most likely: new keys, and once more.
                fresh_pair = true;
                core.pairs.renounce(wanted.mapping, pair);
                last = Some(no);
            }
        }
    }
    Err(last.unwrap_or_else(|| No { code: "tunnel.failed".into(), message: "no attempt was made".into() }))
}

async fn attempt(
    session: &Arc<Session>,
    mut channel: DataChannel,
    mapping: &[u8; 16],
    tunnel: [u8; 16],
    keys: Option<ListenKeys>,
    caller: SocketAddr,
) -> Attempt {
    let (protection, aead, pair, seq) = match &keys {
        None => (Protection::Plain, channel::Aead::Unspecified, Vec::new(), 0),
        Some(keys) => (Protection::EndToEnd, aead_number(keys.aead), keys.pair.to_vec(), keys.seq),
    };
    let dial = Dial {
        tunnel: tunnel.to_vec(),
        mapping: mapping.to_vec(),
        caller: caller.to_string(),
        protection: protection.into(),
        aead: aead.into(),
        pair,
        seq,
    };
    let dead = |failure: ChannelFailure| {
        Attempt::Dead(No {
            code: "tunnel.failed".into(),
            message: format!("a data channel broke: {failure}"),
        })
    };
    let body = match encode(&dial) {
        Ok(body) => body,
        Err(error) => {
            return Attempt::Refused(No { code: "agent.internal".into(), message: error.to_string() });
        }
    };
    if let Err(failure) = channel.send(record::DIAL, &body).await {
        return dead(failure);
    }
    let answer = match timeout_at(Instant::now() + ANSWER_DEADLINE, channel.next()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return dead(failure),
        Err(_) => {
            return Attempt::Refused(No {
                code: "target.timeout".into(),
                message: "the server did not answer the dial".into(),
            });
        }
    };
    match answer.kind {
        record::OPENED => match channel::decode::<Opened>(&answer.body) {
            Ok(done) if done.tunnel == tunnel => {
                let (sealer, opener, sealing) = match keys {
                    None => (Sealer::plain(), Opener::plain(), "plain"),
                    Some(keys) => (keys.sealer, keys.opener, keys.sealing),
                };
                Attempt::Stands(Box::new(Tunnel {
                    id: tunnel,
                    channel,
                    session: session.clone(),
                    sealer,
                    opener,
                    sealing,
                }))
            }
            _ => dead(ChannelFailure::Protocol("an answer about another tunnel")),
        },
        record::FAILED => match channel::decode::<Failed>(&answer.body) {
            Ok(failed) if bytes16("tunnel", &failed.tunnel) == Ok(tunnel) => {
                session.pool.give(channel);
                failed_attempt(&failed)
            }
            _ => dead(ChannelFailure::Protocol("an answer about another tunnel")),
        },
        _ => dead(ChannelFailure::Protocol("something else than an answer to a dial")),
    }
}

fn failed_attempt(failed: &Failed) -> Attempt {
    let (code, fallback) = match failed.reason() {
        FailReason::Refused => ("target.refused", "the target refused the connection"),
        FailReason::Unreachable => ("target.unreachable", "the target can't be reached"),
        FailReason::TimedOut => ("target.timeout", "the target did not answer in time"),
        FailReason::Denied => ("target.denied", "the client that dials does not allow the target"),
        FailReason::Offline => ("tunnel.offline", "the client that dials the target is not connected"),
        FailReason::Limit => ("tunnel.limit", "the mapping has as many connections as it may have"),
        FailReason::NotServed => ("tunnel.failed", "the mapping is not served"),
        FailReason::Unsealable => ("pair.unknown", "the other end does not know the keys of this pair"),
        FailReason::Unspecified => ("tunnel.failed", "the tunnel could not be opened"),
    };
    // People read it on a terminal, and it comes from another machine.
    let said = failed.message.chars().filter(|symbol| !symbol.is_control()).take(MESSAGE_CHARS_MAX);
    let message = if failed.message.is_empty() { fallback.to_owned() } else { said.collect() };
    let no = No { code: code.to_owned(), message };
    if failed.reason() == FailReason::Unsealable { Attempt::Unsealable(no) } else { Attempt::Refused(no) }
}
