//! What all parts of a running agent share.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Clock, Random};
use underpass_tasks::Tasks;
use underpass_transport::Connector;
use underpass_wire::link::{FailureClass, Outcome, Request};
use underpass_wire::noise::StaticKey;

use crate::allow::AllowList;
use crate::error::AgentError;
use crate::events::AgentEvent;
use crate::once::Once;
use crate::pair::Pairs;
use crate::serving::Serving;
use crate::session::{NoAnswer, Session};
use crate::state::{ServerFile, StateDir};
use crate::sync::{lock, write};

/// After a refusal for now without a time, a command is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

pub(crate) struct Core {
    pub(crate) state: StateDir,
    pub(crate) server: ServerFile,
    pub(crate) key: StaticKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) connectors: Vec<Arc<dyn Connector>>,
    pub(crate) timing: crate::agent::Timing,
    pub(crate) version: String,
    /// Link, desired state, listeners, local socket, parked channels.
    pub(crate) tasks: Tasks,
    /// Tunnels: they outlive the others for the time of grace.
    pub(crate) tunnels: Tasks,
    /// Set when the agent shuts down: nothing new begins.
    pub(crate) closing: CancellationToken,
    pub(crate) events: broadcast::Sender<AgentEvent>,
    pub(crate) link: watch::Sender<Option<Arc<Session>>>,
    /// Why the link was lost, or could not be made, last.
    pub(crate) trouble: Mutex<Option<String>>,
    /// Why the agent has ended by itself.
    pub(crate) end: watch::Sender<Option<End>>,
    pub(crate) allow: RwLock<AllowList>,
    pub(crate) serving: Serving,
    pub(crate) pairs: Pairs,
    /// Tunnels whose targets were dialled lately.
    pub(crate) opened: Mutex<Once>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("client", &self.server.client).finish_non_exhaustive()
    }
}

/// Ends of the agent that no retry helps against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Refused(String),
    Replaced,
    /// An essential task broke.
    Broken,
    /// It was shut down.
    Closed,
}

impl From<End> for AgentError {
    fn from(end: End) -> Self {
        match end {
            End::Refused(why) => Self::CredentialsRefused { why },
            End::Replaced => Self::Replaced,
            End::Broken => Self::Internal { what: "an essential part of the agent has broken down".into() },
            End::Closed => Self::Ended,
        }
    }
}

impl Core {
    /// Tells the watchers. Nobody watching is fine.
    pub(crate) fn tell(&self, event: AgentEvent) {
        let _ = self.events.send(event);
    }

    /// The error of a link that does not stand.
    pub(crate) fn unreachable(&self) -> AgentError {
        if let Some(end) = self.end.borrow().clone() {
            return end.into();
        }
        AgentError::Unreachable {
            server: self.server.addresses.join(", "),
            why: lock(&self.trouble).clone().unwrap_or_else(|| "no answer yet".into()),
        }
    }

    /// The link, as soon as it stands.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>, AgentError> {
        let mut link = self.link.subscribe();
        let mut end = self.end.subscribe();
        let stands = async {
            tokio::select! {
                session = link.wait_for(Option::is_some) => session.ok().and_then(|session| session.clone()),
                _ = end.wait_for(Option::is_some) => None,
            }
        };
        match timeout_at(deadline, stands).await {
            Ok(Some(session)) => Ok(session),
            _ => Err(self.unreachable()),
        }
    }

    /// Asks the server to do something. A lost link or a refusal for now is followed by the same command,
    /// with the same id, until the patience is over: the server does it once.
    pub(crate) async fn command(&self, request: Request) -> Result<Outcome, AgentError> {
        let id = (*self.random).array::<16>().map_err(|_| AgentError::Random)?;
        let deadline = Instant::now() + self.timing.patience;
        let mut asked = false;
        loop {
            let session = match self.session(deadline).await {
                Ok(session) => session,
                Err(AgentError::Unreachable { .. }) if asked => return Err(AgentError::Unanswered),
                Err(error) => return Err(error),
            };
            asked = true;
            match session.ask(id, request.clone(), deadline).await {
                Ok(Outcome::Failed(failure)) if failure.class() == FailureClass::Unavailable => {
                    let wait = match failure.retry_after_ms {
                        0 => RETRY_AFTER,
                        millis => Duration::from_millis(millis.into()),
                    };
                    if Instant::now() + wait >= deadline {
                        return Err(refusal(failure));
                    }
                    tokio::time::sleep(wait).await;
                }
                Ok(Outcome::Failed(failure)) => return Err(refusal(failure)),
                Ok(outcome) => return Ok(outcome),
                Err(NoAnswer::LinkLost) => {}
                Err(NoAnswer::TooLate) => return Err(AgentError::Unanswered),
                Err(NoAnswer::TooMany) => {
                    return Err(AgentError::Busy { what: "too many requests wait for the server's answer" });
                }
                Err(NoAnswer::Unreadable) => {
                    return Err(AgentError::Protocol {
                        what: "an answer without an outcome that this program knows".into(),
                    });
                }
            }
        }
    }

    /// Changes the allow list and stores it; on a failure it stays as it was.
    pub(crate) async fn change_allow(
        self: &Arc<Self>,
        change: impl FnOnce(&mut AllowList) -> Result<bool, AgentError> + Send + 'static,
    ) -> Result<bool, AgentError> {
        let core = self.clone();
        off_the_runtime(move || {
            let mut allow = write(&core.allow);
            let mut next = allow.clone();
            let changed = change(&mut next)?;
            if changed {
                next.save(&core.state, &*core.random)?;
                *allow = next;
            }
            Ok(changed)
        })
        .await
    }
}

fn refusal(failure: underpass_wire::link::Failure) -> AgentError {
    let not_found = failure.class() == FailureClass::NotFound;
    let underpass_wire::link::Failure { code, message, hint, .. } = failure;
    AgentError::Refused { code, message, hint: Some(hint).filter(|hint| !hint.is_empty()), not_found }
}

/// Runs file work where it may block.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => Err(AgentError::Internal { what: panic.to_string() }),
    }
}
