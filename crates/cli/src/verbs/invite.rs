//! `invite`: one line that lets one client join.

use reqwest::Method;
use serde_json::json;

use crate::admin::Admin;
use crate::args::InviteArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) async fn run(args: &InviteArgs, output: Output) -> Result<(), CliError> {
    let admin = Admin::reach(&args.admin).await?;
    let body = json!({"ttl_s": args.ttl.as_secs(), "label": args.label});
    let issued = admin.call(Method::POST, "/v1/invites", Some(&body)).await;
    admin.close().await;
    let issued = issued?;
    let text = |key: &str| {
        issued
            .get(key)
            .and_then(serde_json::Value::as_str)
            .map(ToOwned::to_owned)
            .ok_or_else(|| CliError::new(Exit::Failed, "api.answer", format!("the answer lacks `{key}`")))
    };
    let (line, expires_at) = (text("invite")?, text("expires_at")?);
    let value = json!({"invite": line, "expires_at": expires_at});
    output.line(&value, &format!("  invite   underpass join {line}\n           once, until {expires_at}"))
}
