//! `expose`: a local target at a public port.

use serde_json::json;
use underpass_agent::Expose;
use underpass_domain::Seal;

use super::client::{attach, report};
use super::foreground::{Show, detached, unless_stopped, watch};
use crate::args::{ExposeArgs, SealArg};
use crate::error::CliError;
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: ExposeArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("warn", output.json());
    let stop = signals::stop_token()?;
    let attachment = unless_stopped(&stop, attach(&args.agent)).await?;
    let leave = detached(args.detach, &attachment)?;
    let wanted = Expose {
        target: args.target,
        port: args.port,
        name: args.name,
        seal: match args.seal {
            SealArg::Auto => Seal::Auto,
            SealArg::On => Seal::On,
            SealArg::Off => Seal::Off,
        },
        max_connections: args.max_connections,
        idle_timeout_s: args.idle_timeout,
    };
    let exposing = async { attachment.verbs().expose(wanted).await.map_err(report) };
    let opened = unless_stopped(&stop, exposing).await?;
    let value = json!({
        "event": "open",
        "mapping": opened.mapping,
        "public": opened.public,
        "target": opened.target,
        "name": opened.name,
    });
    let keeps = if leave { "the agent serves it" } else { "Ctrl-C keeps the name" };
    let text = format!(
        "  open     {}  ->  {}       {keeps}; `underpass rm {}` gives it up",
        opened.public, opened.target, opened.name
    );
    output.line(&value, &text)?;
    if leave {
        return Ok(());
    }
    watch(attachment, Show::Mapping(opened.mapping), output, stop).await
}
