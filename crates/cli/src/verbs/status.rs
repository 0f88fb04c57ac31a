//! `status`: how a client, or a server, is doing.

use serde_json::{Value, json};

use super::client::{attach_to_ask, report};
use crate::admin::Admin;
use crate::args::ReachArgs;
use crate::error::CliError;
use crate::output::Output;

/// How long a status without a running agent waits for a link of its own.
const LINK_WAIT: std::time::Duration = std::time::Duration::from_secs(3);
/// Between two looks.
const LINK_LOOK: std::time::Duration = std::time::Duration::from_millis(50);

pub(super) async fn run(args: &ReachArgs, output: Output) -> Result<(), CliError> {
    if args.admin.named() {
        return of_server(args, output).await;
    }
    crate::logging::start("warn", output.json());
    let attachment = attach_to_ask(&args.state).await?;
    let running = !attachment.is_owner();
    let deadline = tokio::time::Instant::now() + LINK_WAIT;
    let status = loop {
        let status = attachment.verbs().status().await;
        let waits = !running && status.as_ref().is_ok_and(|status| status.node.is_none());
        if !waits || tokio::time::Instant::now() >= deadline {
            break status;
        }
        tokio::time::sleep(LINK_LOOK).await;
    };
    let _ = attachment.shutdown(std::time::Duration::ZERO).await;
    let status = status.map_err(report)?;
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("agent_running".to_owned(), json!(running));
    }
    let link = match (&status.node, &status.last_error) {
        (Some(node), _) => format!("{node} over {}", status.transport.as_deref().unwrap_or("-")),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none yet".to_owned(),
    };
    let text = format!(
        "  client   {} ({})\n  server   {}\n  link     {link}\n  agent    {}\n  serving  {} mappings, {} tunnels",
        status.client,
        status.name,
        status.server.join(", "),
        if running { "running" } else { "not running; start it with `underpass up`" },
        status.mappings,
        status.tunnels,
    );
    output.line(&value, &text)
}

async fn of_server(args: &ReachArgs, output: Output) -> Result<(), CliError> {
    let admin = Admin::reach(&args.admin).await?;
    let ready = admin.get("/readyz").await;
    let offline = admin.is_offline();
    admin.close().await;
    let mut value = ready?;
    if let Some(object) = value.as_object_mut() {
        object.insert("server_running".to_owned(), json!(!offline));
    }
    let text = value.as_object().map_or_else(String::new, |object| {
        let number = |pointer: &str| value.pointer(pointer).map(super::ls::plain).unwrap_or_default();
        let yes = |key: &str| object.get(key).and_then(Value::as_bool) == Some(true);
        let word = |yes: bool| if yes { "yes" } else { "no" };
        format!(
            "  server   {}\n  ready    {}\n  store    {}, {}\n  control  {} of {}\n  activity {} of {}",
            if offline { "not running; this is what the folder holds" } else { "running" },
            word(yes("ready")),
            object.get("store").map(super::ls::plain).unwrap_or_default(),
            if yes("may_write") { "can be written" } else { "can't be written now" },
            number("/control/applied"),
            number("/control/head"),
            number("/activity/applied"),
            number("/activity/head"),
        )
    });
    output.line(&value, &text)
}
