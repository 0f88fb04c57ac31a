//! `rm`: give a mapping up.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{attach_to_ask, report};
use crate::admin::Admin;
use crate::args::SubjectArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) async fn run(args: &SubjectArgs, output: Output) -> Result<(), CliError> {
    let removed = if args.reach.admin.named() {
        let admin = Admin::reach(&args.reach.admin).await?;
        let removed = async {
            let id = find(&admin, &args.mapping).await?;
            admin.call(Method::DELETE, &format!("/v1/mappings/{id}"), None).await?;
            Ok::<_, CliError>(id)
        }
        .await;
        admin.close().await;
        removed?
    } else {
        crate::logging::start("warn", output.json());
        let attachment = attach_to_ask(&args.reach.state).await?;
        let removed = attachment.verbs().remove(&args.mapping).await;
        let _ = attachment.shutdown(std::time::Duration::ZERO).await;
        removed.map_err(report)?.to_string()
    };
    let value = json!({"event": "removed", "mapping": removed});
    output.line(&value, &format!("  removed  {removed}"))
}

/// The id of a mapping that is named by id or name. A removed mapping is found by its id alone.
pub(super) async fn find(admin: &Admin, mapping: &str) -> Result<String, CliError> {
    if mapping.starts_with("mapping_") {
        return Ok(mapping.to_owned());
    }
    let all = admin.list("/v1/mappings").await?;
    let mut ids = all
        .iter()
        .filter(|entry| entry.get("name").and_then(Value::as_str) == Some(mapping))
        .filter_map(|entry| entry.get("id").and_then(Value::as_str));
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id.to_owned()),
        (Some(_), Some(_)) => Err(CliError::new(
            Exit::Refused,
            "mapping.ambiguous",
            format!("several clients have a mapping named {mapping}"),
        )
        .hint("name it by its id; `underpass ls --data DIR` lists them")),
        (None, _) => {
            Err(CliError::new(Exit::NotFound, "mapping.not_found", format!("there is no mapping {mapping}"))
                .hint("`underpass ls --data DIR` lists those that are; a removed one is found by its id"))
        }
    }
}
