//! A link that stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use underpass_wire::link::{Body, ChannelRole, KickReason, Ping, Pong, Received, Welcome};

use super::Link;
use super::connect::{Reader, WriteFailure, Writer};
use crate::core::Core;
use crate::session::Session;

/// Used when the server does not say how often to ping.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Used when the server does not say when silence means death.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Nothing the server says makes the agent ping faster than this.
const PING_EVERY_MIN: Duration = Duration::from_millis(50);
/// Nothing the server says makes a dead link count as alive for longer than this.
const SILENCE_CAP: Duration = Duration::from_mins(5);
/// A server that is going away closes the link itself; if it doesn't, the agent does, so much after the grace
/// time.
const AFTER_GRACE: Duration = Duration::from_secs(5);

/// How a link ended.
#[derive(Debug)]
pub(super) enum Lost {
    /// Closed, broken or silent.
    Closed(String),
    /// Closed after the server said that it would be.
    GoneAway,
    /// The same key connected elsewhere.
    Replaced,
    /// The client may not be here any more.
    Refused(String),
}

pub(super) async fn run(
    core: &Arc<Core>,
    session: &Arc<Session>,
    link: Link,
    welcome: &Welcome,
    outgoing: mpsc::Receiver<Body>,
) -> Lost {
    let Link { mut reader, mut writer, .. } = link;
    let lost = tokio::select! {
        lost = listen(core, session, &mut reader, welcome) => lost,
        failure = speak(&mut writer, outgoing) => match failure {
            Ok(()) => Lost::Closed("the link was given up".into()),
            Err(failure) => Lost::Closed(failure.to_string()),
        },
        () = session.over.cancelled() => Lost::Closed("the server does not read any more".into()),
    };
    writer.close().await;
    lost
}

/// Takes messages from the queue into the lanes and writes, a chunk at a time.
async fn speak(writer: &mut Writer, mut outgoing: mpsc::Receiver<Body>) -> Result<(), WriteFailure> {
    loop {
        if !writer.has_work() {
            let Some(body) = outgoing.recv().await else { return Ok(()) };
            writer.push(body)?;
        }
        while let Ok(body) = outgoing.try_recv() {
            writer.push(body)?;
        }
        writer.write_some().await?;
    }
}

async fn listen(core: &Arc<Core>, session: &Arc<Session>, reader: &mut Reader, welcome: &Welcome) -> Lost {
    let (every, silence) = pulse(welcome);
    let mut heard = Instant::now();
    let mut ping_at = heard + every;
    let mut nonce = 0;
    let mut leave_at: Option<Instant> = None;
    loop {
        let received = tokio::select! {
            received = reader.next() => received,
            () = sleep_until(ping_at) => {
                nonce += 1;
                ping_at = Instant::now() + every;
                session.send(Body::Ping(Ping { nonce }));
                continue;
            }
            () = sleep_until(heard + silence) => {
                return Lost::Closed(format!("the server was silent for {} s", silence.as_secs_f32()));
            }
            () = sleep_until(leave_at.unwrap_or(heard + SILENCE_CAP + AFTER_GRACE)), if leave_at.is_some() => {
                return Lost::GoneAway;
            }
        };
        let message = match received {
            Ok(Some(message)) => message,
            Ok(None) if leave_at.is_some() => return Lost::GoneAway,
            Ok(None) => return Lost::Closed("the server closed the link".into()),
            Err(error) => return Lost::Closed(format!("the link broke: {error}")),
        };
        heard = Instant::now();
        let body = match message {
            Received::Known(body) => body,
            unknown @ Received::Unknown { .. } => {
                unknown.answer().map(|answer| session.send(answer));
                continue;
            }
        };
        match body {
            Body::Ping(ping) => {
                session.send(Body::Pong(Pong { nonce: ping.nonce }));
            }
            Body::Desired(desired) => core.serving.wanted(desired),
            Body::Tickets(tickets) => match tickets.role() {
                ChannelRole::Target => crate::parked::dial_and_serve(core, session, tickets.tickets),
                ChannelRole::Caller => crate::pool::take_tickets(core, session, tickets.tickets),
                ChannelRole::Unspecified => {}
            },
            Body::Envelope(envelope) => core.pairs.received(core, session, envelope),
            Body::Answer(answer) => session.answered(answer),
            Body::GoingAway(going) => {
                tracing::info!(message = going.message, "the server is going away");
                session.pool.close();
                leave_at = Some(Instant::now() + Duration::from_millis(going.grace_ms.into()) + AFTER_GRACE);
            }
            Body::Kick(kick) => return kicked(kick.reason(), &kick.message, leave_at.is_some()),
            Body::Refused(_) => return Lost::Refused("it does not know this client any more".into()),
            Body::Pong(_) => {}
            Body::Unsupported(unsupported) => {
                tracing::debug!(kind = unsupported.kind, "the server does not know a kind of message");
            }
            // What only clients say.
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::Applied(_)
            | Body::TicketRequest(_)
            | Body::Report(_)
            | Body::Command(_) => {
                tracing::debug!("the server said what only clients say");
            }
        }
    }
}

fn kicked(reason: KickReason, message: &str, going_away: bool) -> Lost {
    let or = |fallback: &str| if message.is_empty() { fallback.to_owned() } else { message.to_owned() };
    match reason {
        KickReason::Replaced => Lost::Replaced,
        KickReason::Blocked => Lost::Refused(or("this client was blocked")),
        KickReason::Removed => Lost::Refused(or("this client was removed")),
        KickReason::Stopping => Lost::GoneAway,
        _ if going_away => Lost::GoneAway,
        KickReason::Disconnected => Lost::Closed(or("an administrator ended the session")),
        KickReason::Protocol => Lost::Closed(or("the server says that this program broke the protocol")),
        KickReason::Unspecified => Lost::Closed(or("the server ended the link")),
    }
}

/// How often to ping, and how long silence may last.
fn pulse(welcome: &Welcome) -> (Duration, Duration) {
    let or =
        |millis: u32, fallback| if millis == 0 { fallback } else { Duration::from_millis(millis.into()) };
    let every = or(welcome.ping_interval_ms, PING_EVERY).max(PING_EVERY_MIN);
    let silence = or(welcome.ping_timeout_ms, SILENCE_MAX).clamp(every * 2, SILENCE_CAP.max(every * 2));
    (every, silence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_pulse_is_followed_within_bounds() {
        let pulse = |every, silence| {
            pulse(&Welcome { ping_interval_ms: every, ping_timeout_ms: silence, ..Welcome::default() })
        };
        let millis = Duration::from_millis;
        assert_eq!(pulse(0, 0), (PING_EVERY, SILENCE_MAX));
        assert_eq!(pulse(100, 300), (millis(100), millis(300)));
        assert_eq!(pulse(1, 1), (PING_EVERY_MIN, PING_EVERY_MIN * 2));
        assert_eq!(pulse(100, u32::MAX), (millis(100), SILENCE_CAP));
    }

    #[test]
    fn being_replaced_or_blocked_is_final_and_the_rest_is_not() {
        let kick = |reason| kicked(reason, "", false);
        assert!(matches!(kick(KickReason::Replaced), Lost::Replaced));
        assert!(matches!(kick(KickReason::Blocked), Lost::Refused(_)));
        assert!(matches!(kick(KickReason::Removed), Lost::Refused(_)));
        assert!(matches!(kick(KickReason::Disconnected), Lost::Closed(_)));
        assert!(matches!(kick(KickReason::Unspecified), Lost::Closed(_)));
        assert!(matches!(kick(KickReason::Stopping), Lost::GoneAway));
    }
}
