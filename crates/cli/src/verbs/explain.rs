//! `explain`: why something is as it is.

use std::fmt::Write as _;

use serde_json::Value;

use super::log::{escaped, event_line};
use super::ls::plain;
use crate::admin::Admin;
use crate::args::ExplainArgs;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn run(args: &ExplainArgs, output: Output) -> Result<(), CliError> {
    let admin = Admin::reach(&args.admin).await?;
    // A slash would lead to another route.
    let path = format!("/v1/explain/{}", escaped(&args.what).replace('/', "%2F"));
    let explained = admin.get(&path).await;
    admin.close().await;
    let explained = explained?;
    output.line(&explained, &told(&explained))
}

fn told(explained: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).map(plain).unwrap_or_default();
    let mut told =
        format!("  {}  {}  {}", text(explained, "kind"), text(explained, "name"), text(explained, "id"));
    if let Some(answers) = explained.get("answers").and_then(Value::as_bool) {
        told += if answers { "\n  it answers" } else { "\n  it does not answer" };
    }
    for finding in explained.get("findings").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(told, "\n\n  {}  ({})", text(finding, "sentence"), text(finding, "code"));
        for event in finding.get("events").and_then(Value::as_array).into_iter().flatten() {
            let _ = write!(told, "\n  {}", event_line(event));
        }
        if finding.get("hint").is_some() {
            let _ = write!(told, "\n  hint: {}", text(finding, "hint"));
        }
    }
    told
}
