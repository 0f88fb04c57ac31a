//! What all verbs of a client share: its state folder, and how it reaches its agent.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_agent::local::Attachment;
use underpass_agent::{AgentError, AgentOptions, ErrorReport, StateDir, Timing};
use underpass_server::{SystemClock, SystemRandom};
use underpass_tasks::Tasks;
use underpass_transport::Connector;
use underpass_transport::tcp::TcpConnector;

use crate::args::{AgentArgs, StateArgs};
use crate::error::{CliError, Exit};

/// How long running tunnels may go on after the first signal.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// This release.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Invites and codes are one short line.
const SECRET_BYTES_MAX: u64 = 4096;

/// The state folder's path: what was asked for, else `$XDG_STATE_HOME/underpass`, else
/// `~/.local/state/underpass`.
pub(super) fn state_path(args: &StateArgs) -> Result<PathBuf, CliError> {
    if let Some(path) = &args.state {
        return Ok(path.clone());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|folder| folder.join("underpass"))
        .ok_or_else(|| {
            CliError::new(Exit::Usage, "usage", "there is no home folder to keep the client's state in")
                .hint("name a folder with --state DIR")
        })
}

/// How the agent of this state folder is run.
fn options(args: &AgentArgs) -> Result<AgentOptions, CliError> {
    let allow = args.allow.iter().map(|range| range.parse()).collect::<Result<_, AgentError>>();
    Ok(AgentOptions {
        state: StateDir::open(state_path(&args.state)?).map_err(report)?,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        connectors: connectors(),
        allow: allow.map_err(report)?,
        version: VERSION.to_owned(),
        timing: Timing::default(),
    })
}

/// The transports of this program, in the order in which they are tried.
pub(super) fn connectors() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(TcpConnector::new())]
}

/// A verb's hold on its agent, and the group in which an agent of its own runs.
pub(super) async fn attach(args: &AgentArgs) -> Result<Attachment, CliError> {
    let tasks = Tasks::new("agent", CancellationToken::new());
    Attachment::new(options(args)?, &tasks).await.map_err(report)
}

/// The same for a verb that only asks.
pub(super) async fn attach_to_ask(args: &StateArgs) -> Result<Attachment, CliError> {
    attach(&AgentArgs { state: args.clone(), allow: Vec::new() }).await
}

/// An agent's error as ours.
pub(super) fn report(error: impl Into<ErrorReport>) -> CliError {
    CliError::from(error.into())
}

/// `given`, or standard input for `-`: secrets need not stand on a command line.
pub(super) fn secret(given: &str) -> Result<String, CliError> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| CliError::io("reading standard input", &error))?;
    Ok(text.trim().to_owned())
}
