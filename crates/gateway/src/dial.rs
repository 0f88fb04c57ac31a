//! Tunnels that a listening client asks for. The node joins two channels and reads nothing of what they carry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use underpass_domain::MappingId;
use underpass_pipeline::record;
use underpass_relay::{Options, Record, RecordError, forward};
use underpass_wire::channel::{self, ChannelMessageError, Dial, Failed, Open, Opened, Protection};

use crate::channel::DataChannel;
use crate::error::OpenError;
use crate::gateway::Shared;
use crate::link::Link;
use crate::open::{self, Failure, OpenChannel, Request};
use crate::tunnels::Running;
use crate::usage::Totals;

/// A parked caller channel that was silent for longer is closed: its client asks for a sign of life every 30 s,
/// so this is two questions that did not come.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// Why a caller channel is over, apart from its end.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the channel broke")]
    Record(#[from] RecordError),
    #[error("a message can't be read or made")]
    Message(#[from] ChannelMessageError),
    #[error("record kind {0} has no place on a parked channel")]
    Unexpected(u8),
    #[error("the client left, or spoke, while its call was put through")]
    Impatient,
}

/// Serves a caller channel until it is over: answers its questions, puts its calls through, one after another.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut channel: DataChannel,
    stop: &CancellationToken,
) {
    link.caller_arrived();
    let Some(_place) = link.caller_channel() else {
        tracing::debug!(client = %link.client, "a caller channel is closed: too many");
        return;
    };
    loop {
        // Between tunnels the channel ends with its link, or with the node.
        let heard = tokio::select! {
            () = link.over.cancelled() => return,
            () = stop.cancelled() => return,
            heard = timeout(SILENCE_MAX, channel.hear()) => heard,
        };
        let outcome = match heard {
            Err(_) | Ok(Ok(None)) => return,
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(Some(Record { kind: record::KEEPALIVE, .. }))) => {
                channel.say(record::KEEPALIVE_ANSWER, &[]).await.map(|()| true).map_err(DialError::from)
            }
            Ok(Ok(Some(Record { kind: record::DIAL, body }))) => {
                dial(&shared, &link, &mut channel, &body).await
            }
            Ok(Ok(Some(Record { kind, .. }))) => Err(DialError::Unexpected(kind)),
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(client = %link.client, error, "caller channel closed");
                return;
            }
        }
    }
}

/// Puts one call through and carries it. Answers whether the channel may serve another.
async fn dial(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    caller: &mut DataChannel,
    body: &[u8],
) -> Result<bool, DialError> {
    let dial: Dial = channel::decode(body)?;
    let opened = {
        let putting = put_through(shared, link, &dial);
        let mut putting = std::pin::pin!(putting);
        tokio::select! {
            opened = &mut putting => opened,
            // Nothing may come before the answer: the caller's client is gone.
            _ = caller.hear() => return Err(DialError::Impatient),
        }
    };
    let (running, mut target, idle_timeout) = match opened {
        Ok(opened) => opened,
        Err(Failure { reason, message }) => {
            count_refused(shared, &dial);
            let failed = Failed { tunnel: dial.tunnel, reason, message: shortened(message) };
            caller.say(record::FAILED, &channel::encode(&failed)?).await?;
            return Ok(true);
        }
    };
    caller.say(record::OPENED, &channel::encode(&Opened { tunnel: dial.tunnel })?).await?;
    let tunnel = &running.tunnel;
    let options = Options { idle_timeout, stop: tunnel.stop.clone(), ..Options::default() };
    let ended = forward(&mut caller.records, &mut target.channel.records, &options, &tunnel.counters).await;
    tracing::debug!(mapping = %tunnel.mapping, how = ?ended.how, "tunnel over");
    let reusable = ended.channel_reusable();
    if reusable {
        caller.heard = Instant::now();
        target.channel.heard = Instant::now();
        target.park();
    }
    Ok(reusable)
}

/// Everything up to the target's connection.
async fn put_through(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    dial: &Dial,
) -> Result<(Running, OpenChannel, Option<Duration>), Failure> {
    let malformed = |what: &str| Failure::from(OpenError::Denied(format!("malformed {what}")));
    let id = dial.tunnel.as_slice().try_into().map_err(|_| malformed("tunnel id"))?;
    let mapping = mapping_id(dial).ok_or_else(|| malformed("mapping id"))?;
    let view = shared.control.state();
    // Somebody else's mapping is treated like none: who listens for it is nobody's business.
    let mapping = view.state.mapping(mapping).filter(|mapping| mapping.listener() == Some(link.client));
    let mapping = mapping.ok_or(OpenError::NotServed)?;
    let demanded = if mapping.options.seal.is_on() { Protection::EndToEnd } else { Protection::Plain };
    if dial.protection() != demanded {
        let why = match demanded {
            Protection::Plain => "the mapping is not sealed",
            _ => "the mapping is sealed from end to end",
        };
        return Err(OpenError::Unsealable(why.to_owned()).into());
    }
    // Shown to people at the other end and here: an address, and nothing else that somebody writes there.
    let caller: SocketAddr = dial.caller.parse().map_err(|_| malformed("address of the caller"))?;
    let (running, target) = open::admit(shared, mapping, id, caller.to_string())?;
    let open = Open {
        protection: dial.protection,
        aead: dial.aead,
        pair: dial.pair.clone(),
        seq: dial.seq,
        ..open::request(mapping, &running.tunnel)
    };
    let request = Request { open, early: Bytes::new() };
    let opened = open::open_channel(shared, &target, &running.tunnel, &request).await?;
    Ok((running, opened, open::idle_timeout(mapping)))
}

fn mapping_id(dial: &Dial) -> Option<MappingId> {
    Some(MappingId::from_bytes(dial.mapping.as_slice().try_into().ok()?))
}

/// Counts a call that came to nothing, if there is a mapping to count it for.
fn count_refused(shared: &Shared, dial: &Dial) {
    if let Some(id) = mapping_id(dial).filter(|id| shared.control.state().state.mapping(*id).is_some()) {
        shared.tunnels.usage().add(id, Totals { refused: 1, ..Totals::default() });
    }
}

/// What a target client said, cut to what fits a message beside its other fields.
fn shortened(mut message: String) -> String {
    const MESSAGE_BYTES_MAX: usize = 1024;
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let cut = shortened("ä".repeat(2000));
        assert_eq!(cut.len(), 1024);
        let odd = shortened(format!("x{}", "ä".repeat(2000)));
        assert_eq!(odd.len(), 1023);
    }
}
