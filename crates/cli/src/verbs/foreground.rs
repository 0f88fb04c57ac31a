//! Verbs that stay in the foreground: they show what passes until they are told to stop.

use serde_json::json;
use tokio_util::sync::CancellationToken;
use underpass_agent::AgentEvent;
use underpass_agent::local::Attachment;
use underpass_domain::MappingId;

use super::client::{GRACE, report};
use crate::args::DetachArgs;
use crate::error::{CliError, Exit};
use crate::output::{Output, bytes};

/// What a verb shows of all that the agent tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Show {
    /// Everything.
    All,
    /// What concerns one mapping, and the link.
    Mapping(MappingId),
}

/// Shows events until `stop`, then leaves: an agent in this process lets its tunnels finish.
pub(super) async fn watch(
    mut attachment: Attachment,
    show: Show,
    output: Output,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            event = attachment.next_event() => match event {
                Ok(event) => {
                    if let Err(closed) = print(&event, show, output) {
                        break Err(closed);
                    }
                }
                Err(error) => break Err(report(error)),
            },
        }
    };
    let _ = attachment.shutdown(GRACE).await;
    ended
}

/// Refuses `--detach` when nobody would go on serving, and otherwise says whether to return.
pub(super) fn detached(detach: DetachArgs, attachment: &Attachment) -> Result<bool, CliError> {
    if detach.detach && attachment.is_owner() {
        return Err(CliError::new(
            Exit::Failed,
            "agent.not_running",
            "no agent runs that could go on serving",
        )
        .hint("start one with `underpass up` (same --state), or leave --detach away"));
    }
    Ok(detach.detach)
}

/// Runs `verb` unless `stop` comes first.
pub(super) async fn unless_stopped<T>(
    stop: &CancellationToken,
    verb: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        done = verb => done,
        () = stop.cancelled() => {
            Err(CliError::new(Exit::Failed, "stopped", "stopped before it was done").hint("run it again"))
        }
    }
}

fn print(event: &AgentEvent, show: Show, output: Output) -> Result<(), CliError> {
    let wanted = match (show, mapping_of(event)) {
        (_, None) | (Show::All, _) => true,
        (Show::Mapping(wanted), Some(mapping)) => mapping == wanted,
    };
    if !wanted {
        return Ok(());
    }
    let value = serde_json::to_value(event).unwrap_or_else(|_| json!({}));
    output.line(&value, &sentence(event))
}

fn mapping_of(event: &AgentEvent) -> Option<MappingId> {
    match event {
        AgentEvent::MappingReady { mapping, .. }
        | AgentEvent::MappingFailed { mapping, .. }
        | AgentEvent::MappingGone { mapping }
        | AgentEvent::TunnelOpened { mapping, .. }
        | AgentEvent::TunnelClosed { mapping, .. }
        | AgentEvent::TunnelRefused { mapping, .. } => Some(*mapping),
        _ => None,
    }
}

fn sentence(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Connected { client, node, transport } => {
            format!("  link     {client} at {node} over {transport}")
        }
        AgentEvent::Disconnected { reason, retry_in_ms } => {
            format!(
                "  link     lost: {reason}; next attempt in {}.{} s",
                retry_in_ms / 1000,
                retry_in_ms % 1000 / 100
            )
        }
        AgentEvent::MappingReady { mapping, listen: Some(listen) } => {
            format!("  ready    {mapping} at {listen}")
        }
        AgentEvent::MappingReady { .. } => String::new(),
        AgentEvent::MappingFailed { mapping, message, code } => {
            format!("  failed   {mapping}: {message} ({code})")
        }
        AgentEvent::MappingGone { mapping } => format!("  gone     {mapping}"),
        AgentEvent::TunnelOpened { tunnel, caller, sealed, .. } => {
            format!("  tunnel   {} from {caller} ({sealed})", short(tunnel))
        }
        AgentEvent::TunnelClosed { tunnel, in_bytes, out_bytes, how, .. } => {
            format!("  closed   {} {} in, {} out ({how})", short(tunnel), bytes(*in_bytes), bytes(*out_bytes))
        }
        AgentEvent::TunnelRefused { tunnel, message, code, .. } => {
            format!("  refused  {} {message} ({code})", short(tunnel))
        }
        AgentEvent::Kicked { reason } => format!("  link     ended by the server: {reason}"),
        AgentEvent::TookOver => "  agent    goes on in this process".to_owned(),
        _ => String::new(),
    }
}

/// Enough of a tunnel's id to tell lines apart.
fn short(tunnel: &str) -> &str {
    tunnel.get(..8).unwrap_or(tunnel)
}
