//! Our own program as a child process, spoken to through its JSON lines.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{broken, myself};
use crate::error::CliError;

/// How long one step of the demo may take.
const STEP_DEADLINE: Duration = Duration::from_mins(1);
/// How long a process may take to end after SIGTERM.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// A process that stays.
pub(super) struct Running {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts ourselves with these arguments.
    pub(super) fn start(arguments: &[&str]) -> Result<Self, CliError> {
        let mut command = Command::new(myself()?);
        command.args(arguments).args(["--output", "json"]);
        Self::spawn(arguments.first().copied().unwrap_or_default(), &mut command)
    }

    /// Starts a program; it ends with us.
    pub(super) fn spawn(name: &str, command: &mut Command) -> Result<Self, CliError> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in the terminal is for the demo, which ends its children in order.
            .process_group(0)
            .spawn()
            .map_err(|error| CliError::io(&format!("starting {name}"), &error))?;
        let stdout = child.stdout.take().ok_or_else(|| broken(format!("{name} has no output")))?;
        Ok(Self { name: name.to_owned(), child, lines: BufReader::new(stdout).lines() })
    }

    /// The next line that is this event.
    pub(super) async fn line(&mut self, event: &str) -> Result<Value, CliError> {
        let wanted = async {
            while let Some(line) = self.lines.next_line().await.ok().flatten() {
                let value: Value = serde_json::from_str(&line).unwrap_or_default();
                if value.get("event").and_then(Value::as_str) == Some(event) {
                    return Ok(value);
                }
            }
            Err(broken(format!("{} ended without saying `{event}`", self.name)))
        };
        timeout(STEP_DEADLINE, wanted)
            .await
            .unwrap_or_else(|_| Err(broken(format!("{} did not say `{event}` in time", self.name))))
    }

    /// SIGKILL: no chance to clean up.
    pub(super) async fn kill(mut self) -> Result<(), CliError> {
        self.child.kill().await.map_err(|error| CliError::io(&format!("killing {}", self.name), &error))
    }

    /// SIGTERM, and a clean end within the time for it.
    pub(super) async fn end(mut self) -> Result<(), CliError> {
        // Nobody reads its lines any more; an unread pipe must not hold it up.
        let drain = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Err(broken(format!("{} had ended by itself", self.name))) };
        kill_process(pid, Signal::TERM)
            .map_err(|error| CliError::io(&format!("ending {}", self.name), &error.into()))?;
        let ended = timeout(END_DEADLINE, async { tokio::join!(self.child.wait(), drain).0 });
        match ended.await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(broken(format!("{} ended with {status}", self.name))),
            Ok(Err(error)) => Err(CliError::io(&format!("ending {}", self.name), &error)),
            Err(_) => Err(broken(format!("{} did not end in time", self.name))),
        }
    }
}

/// Runs a verb to its end; its last line.
pub(super) async fn finished(arguments: &[&str]) -> Result<Value, CliError> {
    let mut lines = lines(arguments).await?;
    lines.pop().ok_or_else(|| broken(format!("`{}` said nothing", arguments.join(" "))))
}

/// Runs a verb to its end; all its lines.
pub(super) async fn lines(arguments: &[&str]) -> Result<Vec<Value>, CliError> {
    let verb = arguments.first().copied().unwrap_or_default();
    let mut command = Command::new(myself()?);
    command.args(arguments).args(["--output", "json"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(STEP_DEADLINE, command.output())
        .await
        .map_err(|_| broken(format!("`{verb}` did not end in time")))?
        .map_err(|error| CliError::io(&format!("running {verb}"), &error))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(broken(format!("`{verb}` failed: {}", error.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
