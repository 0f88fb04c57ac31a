//! `join`: become a client of a server.

use std::sync::Arc;

use serde_json::json;
use underpass_agent::{JoinOptions, StateDir, Timing};
use underpass_server::SystemRandom;
use underpass_wire::token::Invite;

use super::client::{VERSION, connectors, report, secret, state_path};
use super::foreground::unless_stopped;
use crate::args::JoinArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: JoinArgs, output: Output) -> Result<(), CliError> {
    crate::logging::start("warn", output.json());
    let stop = signals::stop_token()?;
    let line = zeroize::Zeroizing::new(secret(&args.invite)?);
    let invite: Invite = line.parse().map_err(|error: underpass_wire::token::InviteError| {
        CliError::chain(Exit::Usage, "invite.invalid", &error)
            .hint("copy the whole line after `underpass join`, or ask for a new invite")
    })?;
    let state = StateDir::create(state_path(&args.state)?).map_err(report)?;
    let options = JoinOptions {
        name: args.name.or_else(host_name).unwrap_or_default(),
        version: VERSION.to_owned(),
        connectors: connectors(),
        random: Arc::new(SystemRandom),
        connect_deadline: Timing::default().connect_deadline,
    };
    let joining = async { underpass_agent::join(&state, &invite, &options).await.map_err(report) };
    let joined = unless_stopped(&stop, joining).await?;
    let value = json!({"event": "joined", "client": joined.client, "server": joined.server});
    output.line(&value, &format!("  joined   {} as {}", joined.server, joined.client))
}

/// What this machine is called, as far as it can be a client's name.
fn host_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(63).collect();
    (!name.is_empty()).then_some(name)
}
