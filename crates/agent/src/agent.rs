//! A running agent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Clock, Random};
use underpass_tasks::{Drained, Tasks};
use underpass_transport::Connector;

use crate::allow::{AllowList, TargetRange};
use crate::core::{Core, End};
use crate::error::AgentError;
use crate::events::{EVENTS_KEPT, Events};
use crate::local::{self, Ownership};
use crate::pair::Pairs;
use crate::serving::Serving;
use crate::share::AgentHandle;
use crate::state::StateDir;
use crate::sync::lock;

/// After the tunnels' time of grace, what remains (link, socket) gets this long; all of it only waits.
const CLOSING_GRACE: Duration = Duration::from_secs(2);

/// What an agent needs.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The folder of the client.
    pub state: StateDir,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids, keys and jitter come from.
    pub random: Arc<dyn Random>,
    /// Ways to the server, tried in order.
    pub connectors: Vec<Arc<dyn Connector>>,
    /// Targets allowed beyond those exposed and shared.
    pub allow: Vec<TargetRange>,
    /// This program's release, for people.
    pub version: String,
    /// Deadlines.
    pub timing: Timing,
}

/// Deadlines of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long one address is tried.
    pub connect_deadline: Duration,
    /// How long a verb waits for the link and the server's answer.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { connect_deadline: Duration::from_secs(10), patience: Duration::from_secs(15) }
    }
}

/// An agent that runs in this process: it keeps the link, serves what the server wants served, and does the
/// verbs of this and other processes.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    /// All events from the start on, for the first who asks: a link may stand before anybody can subscribe.
    first_events: Mutex<Option<Events>>,
}

impl Agent {
    /// Starts the agent of a state folder that has joined a server. Returns before the link stands.
    ///
    /// The agent also stops when `tasks` is drained; [`Agent::shutdown`] is the graceful way.
    ///
    /// # Errors
    ///
    /// `state.*`; `agent.busy` when another agent owns the folder ([`attach`](crate::local::attach) finds it).
    pub fn start(options: AgentOptions, tasks: &Tasks) -> Result<Self, AgentError> {
        let owned = Ownership::take(&options.state)?;
        let (ownership, listener) =
            owned.ok_or(AgentError::Busy { what: "another agent owns the state folder" })?;
        Self::start_owning(options, tasks, ownership, listener)
    }

    pub(crate) fn start_owning(
        options: AgentOptions,
        tasks: &Tasks,
        ownership: Ownership,
        listener: UnixListener,
    ) -> Result<Self, AgentError> {
        let AgentOptions { state, clock, random, connectors, allow, version, timing } = options;
        let (server, key) = (state.server()?, state.key()?);
        let allow = AllowList::load(&state, allow)?;
        let pairs = Pairs::load(&state)?;
        let broken = CancellationToken::new();
        let own = Tasks::new("agent", broken.clone());
        let core = Arc::new(Core {
            state,
            server,
            key,
            clock,
            random,
            connectors,
            timing,
            version,
            tasks: own.clone(),
            // Tunnels are jobs: none of them is essential.
            tunnels: Tasks::new("tunnels", CancellationToken::new()),
            closing: CancellationToken::new(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            link: watch::Sender::new(None),
            trouble: Mutex::default(),
            end: watch::Sender::new(None),
            allow: RwLock::new(allow),
            serving: Serving::new(),
            pairs,
            opened: Mutex::default(),
        });
        let handle = AgentHandle { core: core.clone() };
        let first_events = Mutex::new(Some(Events::new(core.events.subscribe(), core.end.subscribe())));
        own.spawn_essential("link", |stop| crate::link::keep(core.clone(), stop));
        own.spawn_essential("desired state", |stop| crate::serving::follow(core.clone(), stop));
        let (verbs, closing, jobs) = (Arc::new(handle.clone()), core.closing.clone(), own.clone());
        own.spawn_essential("local socket", |stop| async move {
            local::serve(ownership, listener, verbs, jobs, closing).await;
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let (watched, outer) = (core.clone(), tasks.child_token());
        own.spawn_job("supervision", |stop| async move {
            tokio::select! {
                () = broken.cancelled() => {
                    watched.end.send_if_modified(|end| end.is_none().then(|| *end = Some(End::Broken)).is_some());
                    watched.closing.cancel();
                }
                () = outer.cancelled() => watched.closing.cancel(),
                () = stop.cancelled() => {}
            }
            Ok::<_, Infallible>(())
        });
        let tidied = core.clone();
        own.spawn_job("old codes", |_| async move { tidied.pairs.drop_old_codes(&tidied).await });
        Ok(Self { handle, first_events })
    }

    /// The verbs.
    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    pub(crate) fn handle_ref(&self) -> &AgentHandle {
        &self.handle
    }

    /// All events from the agent's start on; once.
    pub(crate) fn take_first_events(&self) -> Option<Events> {
        lock(&self.first_events).take()
    }

    /// Waits until the agent ends by itself: its credentials were refused, another one replaced it, or it broke
    /// down. Lost links are no end.
    pub async fn ended(&self) -> AgentError {
        let mut end = self.handle.core.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or(End::Closed).into()
    }

    /// Gives the folder up and closes all listeners at once, lets running tunnels finish within `grace`, and
    /// ends.
    pub async fn shutdown(self, grace: Duration) -> Drained {
        let core = &self.handle.core;
        core.closing.cancel();
        core.serving.stop_listening().await;
        let tunnels = core.tunnels.drain(grace).await;
        let rest = core.tasks.drain(CLOSING_GRACE).await;
        core.end.send_if_modified(|end| end.is_none().then(|| *end = Some(End::Closed)).is_some());
        match (tunnels, rest) {
            (Drained::Clean, rest) => rest,
            (abandoned, _) => abandoned,
        }
    }
}
