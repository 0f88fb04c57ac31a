//! Channels come in. Each gets a handshake of its own, and none delays another.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use underpass_transport::{Incoming, Listener};

use crate::gateway::Shared;
use crate::handshake::{self, HandshakeError, Proven};
use crate::{dial, session, tickets};

/// Accepts until told to stop. Does nothing for a channel but to start its job.
pub(crate) async fn serve(shared: &Arc<Shared>, mut listener: Box<dyn Listener>, stop: CancellationToken) {
    let drained = shared.tasks.child_token();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = drained.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => {
                let job = shared.clone();
                shared.tasks.spawn_job("channel", |stop| async move {
                    admit(job, incoming, stop).await;
                    Ok::<_, Infallible>(())
                });
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "this listener accepts no more channels"
                );
                return;
            }
        }
    }
}

/// One channel from its first byte to its end.
async fn admit(shared: Arc<Shared>, incoming: Box<dyn Incoming>, stop: CancellationToken) {
    let peer = incoming.peer();
    let deadline = Instant::now() + shared.options.handshake_deadline;
    let mut stranger = Some(shared.strangers.enter());
    let evicted = stranger.as_ref().map(|stranger| stranger.evicted.clone()).unwrap_or_default();
    let proven = tokio::select! {
        proven = timeout_at(deadline, handshake::prove(&shared, incoming, &mut stranger)) => {
            proven.unwrap_or(Err(HandshakeError::Late))
        }
        () = evicted.cancelled() => Err(HandshakeError::Evicted),
        () = stop.cancelled() => return,
    };
    drop(stranger);
    match proven {
        Ok(Proven::Link(newcomer)) => session::run(shared, *newcomer, &stop).await,
        Ok(Proven::Target(channel, link)) => {
            link.park.arrived(*channel, Instant::now());
            tickets::replenish(&shared, &link);
        }
        Ok(Proven::Caller(channel, link)) => dial::serve(shared, link, *channel, &stop).await,
        Err(error) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "channel closed");
        }
    }
}
