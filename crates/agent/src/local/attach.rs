//! Owner or guest.

use std::time::Duration;

use tokio::time::Instant;
use underpass_tasks::{Drained, Tasks};

use super::{LocalClient, Ownership, lock};
use crate::agent::{Agent, AgentOptions};
use crate::error::{AgentError, ErrorReport};
use crate::events::AgentEvent;
use crate::verbs::{EventStream, Verbs};

/// An agent that holds the lock but does not answer on its socket is starting or ending; it gets this long.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at lock and socket.
const ATTACH_PAUSE: Duration = Duration::from_millis(50);

/// How a verb reaches the agent.
#[derive(Debug)]
pub enum Attached {
    /// The agent runs in this process.
    Owner(Agent),
    /// It runs in another one.
    Guest(LocalClient),
}

/// Starts the agent of the state folder, or finds the one that runs.
pub async fn attach(options: &AgentOptions, tasks: &Tasks) -> Result<Attached, AgentError> {
    let deadline = Instant::now() + ATTACH_DEADLINE;
    loop {
        if let Some((ownership, listener)) = Ownership::take(&options.state)? {
            return Agent::start_owning(options.clone(), tasks, ownership, listener).map(Attached::Owner);
        }
        match lock::connect(&options.state) {
            Ok(_) => return Ok(Attached::Guest(LocalClient::new(options.state.clone()))),
            Err(error) if Instant::now() >= deadline => {
                return Err(AgentError::Local { what: error.to_string() });
            }
            Err(_) => tokio::time::sleep(ATTACH_PAUSE).await,
        }
    }
}

/// A verb in the foreground: attached for as long as it runs. When the owner ends, it takes over or becomes
/// the guest of who did.
#[derive(Debug)]
pub struct Attachment {
    options: AgentOptions,
    tasks: Tasks,
    attached: Attached,
    events: EventStream,
}

impl Attachment {
    /// Attaches, and subscribes to the events: of an agent in this process from its start on, else from now on.
    pub async fn new(options: AgentOptions, tasks: &Tasks) -> Result<Self, AgentError> {
        let (attached, events) = attach_and_watch(&options, tasks).await?;
        Ok(Self { options, tasks: tasks.clone(), attached, events })
    }

    /// The verbs, wherever they are done.
    pub fn verbs(&self) -> &dyn Verbs {
        verbs_of(&self.attached)
    }

    /// Whether the agent runs in this process.
    pub fn is_owner(&self) -> bool {
        matches!(self.attached, Attached::Owner(_))
    }

    /// The next event. After the end of another process's agent this process takes over and says so with
    /// [`AgentEvent::TookOver`], or goes on as the guest of who did.
    ///
    /// # Errors
    ///
    /// The agent in this process has ended by itself: its credentials were refused, it was replaced. Or no
    /// agent can be attached to any more.
    pub async fn next_event(&mut self) -> Result<AgentEvent, ErrorReport> {
        loop {
            if let Some(event) = self.events.next().await {
                return Ok(event);
            }
            if let Attached::Owner(agent) = &self.attached {
                return Err(agent.ended().await.to_report());
            }
            (self.attached, self.events) = attach_and_watch(&self.options, &self.tasks).await?;
            if self.is_owner() {
                return Ok(AgentEvent::TookOver);
            }
        }
    }

    /// Leaves. An agent in this process gives the folder up, lets its tunnels finish within `grace` and ends.
    pub async fn shutdown(self, grace: Duration) -> Drained {
        match self.attached {
            Attached::Owner(agent) => agent.shutdown(grace).await,
            Attached::Guest(_) => Drained::Clean,
        }
    }
}

fn verbs_of(attached: &Attached) -> &dyn Verbs {
    match attached {
        Attached::Owner(agent) => agent.handle_ref(),
        Attached::Guest(client) => client,
    }
}

async fn attach_and_watch(
    options: &AgentOptions,
    tasks: &Tasks,
) -> Result<(Attached, EventStream), AgentError> {
    let deadline = Instant::now() + ATTACH_DEADLINE;
    loop {
        let attached = attach(options, tasks).await?;
        if let Attached::Owner(agent) = &attached
            && let Some(events) = agent.take_first_events()
        {
            return Ok((attached, EventStream::Here(events)));
        }
        match verbs_of(&attached).events().await {
            Ok(events) => return Ok((attached, events)),
            // It ended between the two.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(ATTACH_PAUSE).await,
            Err(report) => return Err(AgentError::Local { what: report.message }),
        }
    }
}
