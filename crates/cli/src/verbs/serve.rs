//! `serve`: run a server until it is told to stop.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;
use underpass_server::config::{Config, Sources};
use underpass_server::{Node, StartError, Stopped, SystemClock, SystemRandom};

use crate::args::ServeArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::signals;

pub(super) async fn run(args: &ServeArgs, output: Output) -> Result<(), CliError> {
    let config = configure(args)?;
    crate::logging::start(&config.log_level, config.log_json);
    // Signals count from the very start: a stop during start-up is a stop.
    let stop = signals::stop_token()?;
    let node = tokio::select! {
        node = Node::start(&config, Arc::new(SystemClock), Arc::new(SystemRandom)) => node.map_err(|error| start_failed(&error))?,
        () = stop.cancelled() => return Ok(()),
    };
    if let Err(error) = announce(&node, output) {
        // Nobody hears where it serves, but what it has begun ends in order.
        stop.cancel();
        let _ = node.run(stop).await;
        return Err(error);
    }
    match node.run(stop).await {
        Stopped::Clean => Ok(()),
        Stopped::Failed => Err(start_failed(&StartError::Fatal)),
    }
}

fn configure(args: &ServeArgs) -> Result<Config, CliError> {
    let flags = [
        ("server.listen", args.listen.clone()),
        ("server.advertise", args.advertise.clone()),
        ("server.data", args.data.as_ref().map(|path| path.display().to_string())),
        ("api.listen", args.api.clone()),
        ("store.kind", args.store.clone()),
    ];
    let sources = Sources {
        file: args.config.clone(),
        no_file: false,
        environment: super::config::environment(),
        flags: flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    };
    let (new_link_key, new_checkpoints) = (args.new_link_key, args.new_checkpoints);
    Ok(Config { new_link_key, new_checkpoints, ..super::config::load(&sources)?.config })
}

fn announce(node: &Node, output: Output) -> Result<(), CliError> {
    let ready = node.ready();
    let value = json!({
        "event": "ready",
        "clients": ready.clients.to_string(),
        "api": format!("http://{}", ready.api),
        "docs": format!("http://{}/docs", ready.api),
        "store": ready.store,
        "invite": ready.invite,
    });
    let mut text = format!(
        "  ready    clients {}    api http://{}    docs http://{}/docs\n  data     {} ({})    admin key in {}",
        ready.clients,
        ready.api,
        ready.api,
        ready.admin_key.parent().unwrap_or(&ready.admin_key).display(),
        ready.store,
        ready.admin_key.display(),
    );
    match &ready.invite {
        Some(invite) => {
            let minutes = ready.invite_ttl.as_secs().div_ceil(60);
            let _ = write!(text, "\n  invite   underpass join {invite}\n           once, {minutes} min");
        }
        None => text.push_str("\n  invite   none: enrolment is closed, or too many invites are open"),
    }
    if let Some(hint) = &ready.advertise_hint {
        let _ = write!(text, "\n  hint     {hint}");
    }
    output.line(&value, &text)
}

pub(super) fn start_failed(error: &StartError) -> CliError {
    let hint = error.hint();
    CliError::chain(Exit::Failed, error.code(), error).hint(hint)
}
