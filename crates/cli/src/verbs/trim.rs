//! `log archive` and `log trim`: old frames into files, and out of the store.

use reqwest::Method;
use serde_json::{Value, json};

use super::ls::plain;
use crate::admin::Admin;
use crate::args::LogArgs;
use crate::error::CliError;
use crate::output::{Output, bytes};

/// What is to be trimmed.
pub(super) struct Trim {
    /// RFC 3339; now, if `None`.
    pub(super) before: Option<String>,
    pub(super) carry: bool,
    /// Otherwise it is only said what would happen.
    pub(super) yes: bool,
}

pub(super) async fn archive(
    admin: &Admin,
    log: &LogArgs,
    until: Option<u64>,
    output: Output,
) -> Result<(), CliError> {
    let path = format!("/v1/logs/{}/archive", log.name);
    let done = admin.call(Method::POST, &path, Some(&json!({ "until": until }))).await?;
    let number = |key: &str| done.get(key).and_then(Value::as_u64).unwrap_or_default();
    let text = format!(
        "  archived up to {}  {} frames added, {}",
        done.get("until").map(plain).unwrap_or_default(),
        number("frames"),
        bytes(number("bytes")),
    );
    output.line(&done, &text)
}

pub(super) async fn trim(admin: &Admin, log: &LogArgs, asked: &Trim, output: Output) -> Result<(), CliError> {
    let body = json!({ "before": asked.before, "carry": asked.carry, "dry_run": !asked.yes });
    let done = admin.call(Method::POST, &format!("/v1/logs/{}/trim", log.name), Some(&body)).await?;
    let archived = done.get("archived").and_then(Value::as_bool).unwrap_or_default();
    let place = if archived { "is in the archive" } else { "is gone" };
    let frames = done.get("frames").and_then(Value::as_u64).unwrap_or_default();
    let before = asked.before.as_deref().unwrap_or("now");
    let text = match (done.get("until").map(plain), asked.yes) {
        (None, true) => format!("  nothing  of the {} log can be cut off before {before}", log.name),
        (None, false) if asked.carry => {
            format!(
                "  would    say again what is remembered of the {} log, and cut it there; add --yes",
                log.name
            )
        }
        (None, false) => format!("  nothing  of the {} log can be cut off before {before}", log.name),
        (Some(until), true) => {
            format!("  trimmed  up to {until}  {frames} frames left the store; what they hold {place}")
        }
        (Some(until), false) => {
            let place = if archived { "to the archive" } else { "for good" };
            format!("  would    cut off everything up to {until}, {place}; add --yes")
        }
    };
    output.line(&done, &text)
}
