//! `ls`: the mappings of this client, or of a whole server.

use serde_json::Value;

use super::client::{attach_to_ask, report};
use crate::admin::Admin;
use crate::args::ReachArgs;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn run(args: &ReachArgs, output: Output) -> Result<(), CliError> {
    if args.admin.named() {
        return of_server(args, output).await;
    }
    crate::logging::start("warn", output.json());
    let attachment = attach_to_ask(&args.state).await?;
    let listed = attachment.verbs().list().await;
    let _ = attachment.shutdown(std::time::Duration::ZERO).await;
    let mappings = listed.map_err(report)?;
    let rows: Vec<_> = mappings
        .iter()
        .map(|mapping| {
            vec![
                mapping.name.clone(),
                mapping.entrance.clone(),
                mapping.target.clone(),
                mapping.problem.clone().unwrap_or_else(|| mapping.status.clone()),
                mapping.mapping.to_string(),
            ]
        })
        .collect();
    let values: Vec<Value> =
        mappings.iter().map(|mapping| serde_json::to_value(mapping).unwrap_or_default()).collect();
    output.table(&["NAME", "ENTRANCE", "TARGET", "STATUS", "ID"], &rows, &values)
}

async fn of_server(args: &ReachArgs, output: Output) -> Result<(), CliError> {
    let admin = Admin::reach(&args.admin).await?;
    let all = admin.list("/v1/mappings").await;
    admin.close().await;
    let all = all?;
    let rows: Vec<_> = all
        .iter()
        .map(|mapping| {
            let text = |key: &str| mapping.get(key).map_or_else(|| "-".to_owned(), plain);
            let entrance = match mapping.get("port") {
                Some(port) if !port.is_null() => format!("port {port}"),
                _ => format!("{} at {}", text("listen"), text("listen_client")),
            };
            let target = format!("{} at {}", text("target"), text("target_client"));
            vec![text("name"), entrance, target, text("status"), text("id")]
        })
        .collect();
    output.table(&["NAME", "ENTRANCE", "TARGET", "STATUS", "ID"], &rows, &all)
}

/// A JSON value without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
