//! `up`: the agent in the foreground.

use super::client::attach;
use super::foreground::{Show, unless_stopped, watch};
use crate::args::AgentArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: &AgentArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("warn", output.json());
    let stop = signals::stop_token()?;
    let attachment = unless_stopped(&stop, attach(args)).await?;
    if !attachment.is_owner() {
        return Err(CliError::new(
            Exit::Failed,
            "agent.running",
            "an agent runs on this state folder already",
        )
        .hint("its verbs work from here: underpass status, ls, expose, share, connect"));
    }
    watch(attachment, Show::All, output, stop).await
}
