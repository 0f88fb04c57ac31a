//! `undo`: take a command of the past back.

use reqwest::Method;
use serde_json::{Value, json};

use super::log::event_line;
use crate::admin::Admin;
use crate::args::UndoArgs;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn run(args: &UndoArgs, output: Output) -> Result<(), CliError> {
    let admin = Admin::reach(&args.admin).await?;
    let undone = admin.call(Method::POST, &format!("/v1/events/{}/undo", args.position), None).await;
    admin.close().await;
    let undone = undone?;
    let events = undone.get("events").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let value = json!({
        "event": "undone",
        "undone": undone.get("undone"),
        "position": undone.get("position"),
        "events": events,
    });
    let lines = events.iter().map(event_line).collect::<Vec<_>>().join("\n");
    output.line(&value, &format!("  undone   {}\n{lines}", args.position))
}
