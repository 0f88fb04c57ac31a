//! The gateway of a node, as the crates above see it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_control::Control;
use underpass_domain::{ClientId, MappingId, Random, Timestamp};
use underpass_tasks::Tasks;
use underpass_transport::Listener;

use crate::error::OpenError;
use crate::limits::Limits;
use crate::link::Goodbye;
use crate::links::Links;
use crate::live::{ListenerState, Live};
use crate::open::OpenTunnel;
use crate::options::GatewayOptions;
use crate::tickets::TicketBook;
use crate::tunnels::Tunnels;
use crate::unauthenticated::Unauthenticated;
use crate::{accept, desired, open};

/// How long a link may take to close after it was told to, when the gateway is drained.
const LINKS_CLOSE_WAIT: Duration = Duration::from_secs(3);

/// How long tunnels that were cut off may take to be gone.
const CUT_WAIT: Duration = Duration::from_secs(2);

/// How long the last usage may take to be written down.
const WRITTEN_WAIT: Duration = Duration::from_secs(5);

/// The links of one node and the tunnels over them.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all parts of a gateway work on.
#[derive(Debug)]
pub(crate) struct Shared {
    pub control: Arc<Control>,
    pub options: GatewayOptions,
    pub random: Arc<dyn Random>,
    pub tasks: Tasks,
    pub strangers: Arc<Unauthenticated>,
    pub links: Links,
    pub tickets: TicketBook,
    pub limits: Arc<Limits>,
    pub tunnels: Arc<Tunnels>,
    pub listeners: Mutex<BTreeMap<MappingId, ListenerState>>,
    /// Cancelled when no new tunnel is taken any more.
    pub leaving: CancellationToken,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.control.now()
    }
}

impl Gateway {
    /// A gateway without channels yet. Starts the tasks that follow the log and write down usage; both are
    /// essential tasks of `tasks`, in which also every link and tunnel will run.
    pub fn new(
        control: Arc<Control>,
        options: GatewayOptions,
        random: Arc<dyn Random>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            strangers: Unauthenticated::new(options.unauthenticated_max),
            links: Links::new(options.links_max),
            tickets: TicketBook::default(),
            limits: Arc::default(),
            tunnels: Arc::default(),
            listeners: Mutex::default(),
            leaving: CancellationToken::new(),
            control,
            options,
            random,
            tasks,
        });
        let follower = shared.clone();
        shared.tasks.spawn_essential("desired state", |stop| async move {
            desired::follow(follower, stop).await;
            Ok::<_, Infallible>(())
        });
        let accountant = shared.clone();
        shared.tasks.spawn_essential("usage", |stop| async move {
            account(&accountant, stop).await;
            Ok::<_, Infallible>(())
        });
        Arc::new(Self { shared })
    }

    /// Accepts channels until `stop`, or until the gateway's tasks are drained. What was accepted goes on.
    pub async fn serve(self: Arc<Self>, listener: Box<dyn Listener>, stop: CancellationToken) {
        accept::serve(&self.shared, listener, stop).await;
    }

    /// A tunnel to the target of a mapping, for a caller of its public port. Done when the target is connected.
    ///
    /// `early` is what the caller has sent already (one record at most, the rest is refused); it goes out with
    /// the request.
    pub async fn open(
        &self,
        mapping: MappingId,
        caller: SocketAddr,
        early: Bytes,
    ) -> Result<OpenTunnel, OpenError> {
        open::open(&self.shared, mapping, caller, early).await
    }

    /// What is going on right now.
    pub fn live(&self) -> Live {
        crate::live::live(&self.shared)
    }

    /// How many links there are; [`Gateway::live`] without the details.
    pub fn links(&self) -> usize {
        self.shared.links.len()
    }

    /// How many tunnels run, those being opened included.
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels.len()
    }

    /// Notes how the listener of a mapping's public port is doing.
    pub fn report_listener(&self, mapping: MappingId, state: ListenerState) {
        self.listeners().insert(mapping, state);
    }

    /// The mapping has no listener any more.
    pub fn forget_listener(&self, mapping: MappingId) {
        self.listeners().remove(&mapping);
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, BTreeMap<MappingId, ListenerState>> {
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is out of descriptors: channels that wait for work beyond each client's minimum are closed.
    /// Demand parks them again later.
    pub fn relieve(&self) {
        for link in self.shared.links.all() {
            link.park.shed();
        }
    }

    /// The group in which links and tunnels run. Callers of public ports run here too, since they outlive the
    /// listeners that accepted them.
    pub fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// The time, as the node sees it.
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// Ends the link of a client, if it has one here; the client may come back. Answers whether it had.
    pub fn disconnect(&self, client: ClientId, reason: &str) -> bool {
        let link = self.shared.links.get(client);
        if let Some(link) = &link {
            link.end(Goodbye::Disconnected(reason.to_owned()));
        }
        link.is_some()
    }

    /// Takes no new tunnels from now on, and tells all clients to look elsewhere: what runs has `grace` left.
    pub fn going_away(&self, grace: Duration) {
        self.shared.leaving.cancel();
        for link in self.shared.links.all() {
            link.going_away(grace);
        }
    }

    /// Waits for the running tunnels, but not longer than `grace`, then ends them and all links, and writes
    /// down what they carried. Answers how many tunnels were cut off.
    pub async fn drain(&self, grace: Duration) -> usize {
        let shared = &self.shared;
        if !shared.leaving.is_cancelled() {
            self.going_away(grace);
        }
        let mut cut = 0;
        if tokio::time::timeout(grace, shared.tunnels.all_ended()).await.is_err() {
            cut = shared.tunnels.len();
            shared.tunnels.stop_where(|_| true);
            if tokio::time::timeout(CUT_WAIT, shared.tunnels.all_ended()).await.is_err() {
                tracing::warn!(tunnels = shared.tunnels.len(), "tunnels are slow to end");
            }
        }
        let links = shared.links.all();
        for link in &links {
            link.end(Goodbye::NodeStopping);
        }
        let ended = Instant::now() + LINKS_CLOSE_WAIT;
        for link in links {
            if tokio::time::timeout_at(ended, link.ended.cancelled()).await.is_err() {
                tracing::warn!(client = %link.client, "a link is slow to close");
            }
        }
        shared.tunnels.gather();
        shared.tunnels.usage().flush_now(&shared.control);
        // Where the store is away, whoever closes the control plane says what is lost.
        if !shared.control.store_is_away() && !shared.control.all_written(WRITTEN_WAIT).await {
            tracing::warn!("usage is written down later");
        }
        cut
    }
}

/// Writes down usage from time to time.
async fn account(shared: &Arc<Shared>, stop: CancellationToken) {
    let mut every = tokio::time::interval(shared.options.usage_every);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        shared.tunnels.gather();
        shared.tunnels.usage().flush(&shared.control);
    }
}
