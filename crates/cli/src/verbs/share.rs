//! `share`: a code for one other client.

use serde_json::json;
use underpass_agent::Share;

use super::client::{attach, report};
use super::foreground::{Show, detached, unless_stopped, watch};
use crate::args::ShareArgs;
use crate::error::CliError;
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: ShareArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("warn", output.json());
    let stop = signals::stop_token()?;
    let attachment = unless_stopped(&stop, attach(&args.agent)).await?;
    let leave = detached(args.detach, &attachment)?;
    let wanted = Share { target: args.target, activation: args.activation, access: args.access };
    let sharing = async { attachment.verbs().share(wanted).await.map_err(report) };
    let shared = unless_stopped(&stop, sharing).await?;
    let value = json!({
        "event": "code",
        "code": shared.code,
        "expires_at": shared.expires_at,
        "target": shared.target,
    });
    let text = format!(
        "  code     {}\n           once, until {}; then: underpass connect CODE",
        shared.code, shared.expires_at
    );
    output.line(&value, &text)?;
    if leave {
        return Ok(());
    }
    // Which mapping will come of the code is not known before it is redeemed.
    watch(attachment, Show::All, output, stop).await
}
