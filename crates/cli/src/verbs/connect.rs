//! `connect`: redeem a code and listen for it.

use serde_json::json;
use underpass_agent::Connect;

use super::client::{attach, report, secret};
use super::foreground::{Show, detached, unless_stopped, watch};
use crate::args::ConnectArgs;
use crate::error::CliError;
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: ConnectArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("warn", output.json());
    let stop = signals::stop_token()?;
    let code = secret(&args.code)?;
    let attachment = unless_stopped(&stop, attach(&args.agent)).await?;
    let leave = detached(args.detach, &attachment)?;
    let wanted = Connect { code, listen: args.listen };
    let connecting = async { attachment.verbs().connect(wanted).await.map_err(report) };
    let connected = unless_stopped(&stop, connecting).await?;
    let value = json!({
        "event": "open",
        "mapping": connected.mapping,
        "listen": connected.listen.to_string(),
        "sealed": connected.sealed,
    });
    let text =
        format!("  open     {}          sealed {}", connected.listen, connected.sealed.replace('-', " "));
    output.line(&value, &text)?;
    if leave {
        return Ok(());
    }
    watch(attachment, Show::Mapping(connected.mapping), output, stop).await
}
