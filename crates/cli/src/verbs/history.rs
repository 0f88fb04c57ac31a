//! `history`: what happened to one mapping.

use serde_json::Value;

use super::client::{attach_to_ask, report};
use super::log::event_line;
use super::rm::find;
use crate::admin::Admin;
use crate::args::SubjectArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) async fn run(args: &SubjectArgs, output: Output) -> Result<(), CliError> {
    let events = if args.reach.admin.named() {
        let admin = Admin::reach(&args.reach.admin).await?;
        let events = async {
            let id = find(&admin, &args.mapping).await?;
            admin.events(&format!("/v1/events?log=control&stream=mapping/{id}"), 0, None).await
        }
        .await;
        admin.close().await;
        events?
    } else {
        crate::logging::start("warn", output.json());
        let attachment = attach_to_ask(&args.reach.state).await?;
        let events = attachment.verbs().history(&args.mapping).await;
        let _ = attachment.shutdown(std::time::Duration::ZERO).await;
        events.map_err(report)?
    };
    if events.is_empty() {
        return Err(CliError::new(
            Exit::NotFound,
            "mapping.not_found",
            format!("nothing ever happened to a mapping {}", args.mapping),
        )
        .hint("`underpass ls` lists the mappings that are"));
    }
    events.iter().try_for_each(|event: &Value| output.line(event, &event_line(event)))
}
