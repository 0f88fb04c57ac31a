//! One link, as the rest of the agent sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use underpass_domain::{NodeId, Timestamp};
use underpass_pipeline::Aead;
use underpass_transport::Connector;
use underpass_wire::link::{Answer, Body, Command, Outcome, Request};

use crate::pool::CallerPool;
use crate::sync::lock;

/// Messages that wait for the writer. It takes them at once into the encoder's lanes, so this is reached only
/// when the network stands still.
pub(crate) const OUTGOING_MAX: usize = 256;
/// Commands that wait for their answer.
const COMMANDS_MAX: usize = 64;

pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) transport: &'static str,
    pub(crate) since: Timestamp,
    /// The name of this handshake; tickets are bound to it.
    pub(crate) hash: [u8; 32],
    /// Seals what node and agent say to each other on data channels.
    pub(crate) aead: Aead,
    /// How the node was reached: data channels go the same way.
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) address: String,
    /// Where public ports are reached, if the server says so.
    pub(crate) public_host: String,
    pub(crate) pool: CallerPool,
    /// Data channels that bring tunnels here, and those of them that wait for one.
    pub(crate) target_channels: AtomicUsize,
    pub(crate) target_parked: AtomicUsize,
    /// The link is gone. Parked channels end with it.
    pub(crate) over: CancellationToken,
    outgoing: mpsc::Sender<Body>,
    answers: Mutex<HashMap<[u8; 16], oneshot::Sender<Outcome>>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("node", &self.node)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a [`Session`] is made of.
pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) transport: &'static str,
    pub(crate) since: Timestamp,
    pub(crate) hash: [u8; 32],
    pub(crate) aead: Aead,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) address: String,
    pub(crate) public_host: String,
}

/// Why a command has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    LinkLost,
    TooLate,
    TooMany,
    Unreadable,
}

impl Session {
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<Body>) {
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let Parts { node, transport, since, hash, aead, connector, address, public_host } = parts;
        let session = Self {
            node,
            transport,
            since,
            hash,
            aead,
            connector,
            address,
            public_host,
            pool: CallerPool::new(),
            target_channels: AtomicUsize::new(0),
            target_parked: AtomicUsize::new(0),
            over: CancellationToken::new(),
            outgoing,
            answers: Mutex::default(),
        };
        (Arc::new(session), queue)
    }

    /// Queues a message. A queue that is full means that nothing has gone out for long: the link is given up.
    /// Answers whether the message was taken.
    pub(crate) fn send(&self, body: Body) -> bool {
        if self.over.is_cancelled() {
            return false;
        }
        let taken = self.outgoing.try_send(body).is_ok();
        if !taken {
            tracing::debug!("the link does not take more messages");
            self.over.cancel();
        }
        taken
    }

    pub(crate) async fn ask(
        &self,
        id: [u8; 16],
        request: Request,
        deadline: Instant,
    ) -> Result<Outcome, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        {
            let mut answers = lock(&self.answers);
            if answers.len() >= COMMANDS_MAX {
                return Err(NoAnswer::TooMany);
            }
            answers.insert(id, sender);
        }
        // Whoever stops waiting leaves nothing behind.
        let _forget = Forget { session: self, id };
        if !self.send(Body::Command(Command { id: id.to_vec(), request: Some(request) })) {
            return Err(NoAnswer::LinkLost);
        }
        tokio::select! {
            // An answer that is there counts, also when the link went down right after it.
            biased;
            answered = timeout_at(deadline, answer) => match answered {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(_)) => Err(NoAnswer::Unreadable),
                Err(_) => Err(NoAnswer::TooLate),
            },
            () = self.over.cancelled() => Err(NoAnswer::LinkLost),
        }
    }

    pub(crate) fn answered(&self, answer: Answer) {
        let Ok(id) = <[u8; 16]>::try_from(answer.id.as_slice()) else { return };
        let Some(waiting) = lock(&self.answers).remove(&id) else { return };
        // Dropping the sender tells of an answer that can't be read.
        if let Some(outcome) = answer.outcome {
            let _ = waiting.send(outcome);
        }
    }
}

struct Forget<'a> {
    session: &'a Session,
    id: [u8; 16],
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.session.answers).remove(&self.id);
    }
}
