//! Making the link again whenever it is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_domain::NodeId;
use underpass_pipeline::{Aead, aes_is_fast};
use underpass_wire::link::{Hello, Welcome};

use super::run::{Lost, run};
use super::{ConnectFailure, Introduced, Link, connect, introduce};
use crate::backoff::{Backoff, STABLE};
use crate::core::{Core, End};
use crate::events::AgentEvent;
use crate::session::{Parts, Session};
use crate::sync::lock;

/// An answer that no retry helps against in this long could still be lifted by an operator; the agent does not
/// wait for it but ends.
#[derive(Debug)]
enum Next {
    Retry { why: String, stood: Duration },
    End(End),
    Stopped,
}

/// Keeps the link until `stop`, or until the server says that it is of no use.
pub(crate) async fn keep(core: Arc<Core>, stop: CancellationToken) -> Result<(), Infallible> {
    let mut backoff = Backoff::new();
    loop {
        let next = tokio::select! {
            next = once(&core) => next,
            () = stop.cancelled() => Next::Stopped,
        };
        core.link.send_replace(None);
        match next {
            Next::Stopped => return Ok(()),
            Next::End(end) => {
                let reason = crate::AgentError::from(end.clone()).to_string();
                core.tell(AgentEvent::Kicked { reason });
                core.end.send_replace(Some(end));
                // Watchers see the event and then the end. What runs finishes; nothing new begins.
                core.closing.cancel();
                stop.cancelled().await;
                return Ok(());
            }
            Next::Retry { why, stood } => {
                if stood >= STABLE {
                    backoff.reset();
                }
                let delay = backoff.next(&*core.random);
                *lock(&core.trouble) = Some(why.clone());
                let retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(why, retry_in_ms, "no link");
                core.tell(AgentEvent::Disconnected { reason: why, retry_in_ms });
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        }
    }
}

async fn once(core: &Arc<Core>) -> Next {
    let retry = |why: String| Next::Retry { why, stood: Duration::ZERO };
    let made = async {
        let link = connect(
            &core.server.addresses,
            &core.connectors,
            &core.key,
            &core.server.server_key.0,
            core.timing.connect_deadline,
        )
        .await?;
        let hello = Hello {
            version: core.version.clone(),
            name: core.server.name.clone(),
            platform: crate::join::platform(),
            invite: None,
            aes: aes_is_fast(),
        };
        introduce(link, hello).await
    };
    let Introduced { link, welcome } = match made.await {
        Ok(introduced) => introduced,
        Err(ConnectFailure::Refused) => return Next::End(End::Refused(ConnectFailure::Refused.to_string())),
        Err(failure) => return retry(failure.to_string()),
    };
    let (session, outgoing) = match open_session(core, &link, &welcome) {
        Ok(opened) => opened,
        Err(why) => return retry(why),
    };
    let begun = Instant::now();
    *lock(&core.trouble) = None;
    core.tell(AgentEvent::Connected {
        client: core.server.client,
        node: session.node,
        transport: session.transport.to_owned(),
    });
    core.link.send_replace(Some(session.clone()));
    crate::pool::tend(core, &session);
    // However the link ends (this future being dropped included), what hangs on it ends with it.
    let _over = session.over.clone().drop_guard();
    let lost = run(core, &session, link, &welcome, outgoing).await;
    match lost {
        Lost::Closed(why) => Next::Retry { why, stood: begun.elapsed() },
        Lost::GoneAway => Next::Retry { why: "the server is restarting or moving".into(), stood: STABLE },
        Lost::Replaced => Next::End(End::Replaced),
        Lost::Refused(why) => {
            // Nothing of a client that may not be here goes on.
            core.serving.clear(core).await;
            Next::End(End::Refused(why))
        }
    }
}

fn open_session(
    core: &Core,
    link: &Link,
    welcome: &Welcome,
) -> Result<(Arc<Session>, tokio::sync::mpsc::Receiver<underpass_wire::link::Body>), String> {
    let node = welcome.node.as_slice().try_into().map_err(|_| "the server's welcome names no node")?;
    if welcome.client != core.server.client.as_bytes() {
        return Err("the server knows this key as another client; join again".into());
    }
    Ok(Session::new(Parts {
        node: NodeId::from_bytes(node),
        transport: link.transport,
        since: core.clock.now(),
        hash: link.hash,
        aead: Aead::agree(aes_is_fast() && welcome.aes),
        connector: link.connector.clone(),
        address: link.address.clone(),
        public_host: welcome.public_host.clone(),
    }))
}
