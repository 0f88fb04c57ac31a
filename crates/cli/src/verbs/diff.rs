//! `log diff`: what is different between two points.

use std::fmt::Write as _;

use serde_json::Value;

use super::log::escaped;
use super::ls::plain;
use crate::admin::Admin;
use crate::error::CliError;
use crate::output::Output;

pub(super) fn path(from: &str, to: Option<&str>, limit: u32) -> String {
    let to = to.map(|to| format!("&to={}", escaped(to))).unwrap_or_default();
    format!("/v1/snapshots/diff?from={}{to}&limit={limit}", escaped(from))
}

pub(super) async fn run(admin: &Admin, path: &str, output: Output) -> Result<(), CliError> {
    let difference = admin.get(path).await?;
    output.line(&difference, &told(&difference))
}

fn told(difference: &Value) -> String {
    let point = |key: &str| difference[key].get("position").map(plain).unwrap_or_default();
    let mut told = format!("  {} -> {}", point("from"), point("to"));
    let items = difference.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        told += "\n  nothing is different";
    }
    for item in items {
        let text = |key: &str| item.get(key).map(plain).unwrap_or_default();
        let sign = match text("change").as_str() {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        let _ = write!(told, "\n{sign} {} {}  {}", text("kind"), text("name"), text("id"));
        for field in item.get("fields").and_then(Value::as_array).into_iter().flatten() {
            let value = |key: &str| field.get(key).map(plain);
            let change = match (value("before"), value("after")) {
                (None, Some(after)) if sign == '+' => after,
                (Some(before), None) if sign == '-' => before,
                (before, after) => {
                    format!("{} -> {}", before.as_deref().unwrap_or("-"), after.as_deref().unwrap_or("-"))
                }
            };
            let _ = write!(told, "\n    {:<16} {change}", field.get("field").map(plain).unwrap_or_default());
        }
    }
    if difference.get("cut").and_then(Value::as_bool) == Some(true) {
        told += "\n  and more; ask for points that lie closer together";
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn points_go_into_the_query_as_they_must() {
        let expected = "/v1/snapshots/diff?from=control%3A7&to=2026-01-31T03%3A12%3A00.000Z&limit=5";
        assert_eq!(path("control:7", Some("2026-01-31T03:12:00.000Z"), 5), expected);
        assert_eq!(path("control:7", None, 500), "/v1/snapshots/diff?from=control%3A7&limit=500");
    }

    #[test]
    fn what_came_changed_and_went_is_told_in_lines() {
        let difference = json!({
            "from": { "position": "control:7" },
            "to": { "position": "control:9" },
            "items": [
                { "change": "changed", "kind": "mapping", "name": "web", "id": "m1", "fields": [
                    { "field": "status", "before": "active", "after": "disabled" },
                    { "field": "expires_at", "after": "soon" },
                ] },
                { "change": "added", "kind": "client", "name": "pi", "id": "c1", "fields": [
                    { "field": "name", "after": "pi" },
                ] },
            ],
            "cut": true,
        });
        let lines: Vec<_> = told(&difference).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "  control:7 -> control:9");
        assert_eq!(lines[1], "~ mapping web  m1");
        assert_eq!(lines[2], "    status           active -> disabled");
        assert_eq!(lines[3], "    expires_at       - -> soon");
        assert_eq!(lines[4], "+ client pi  c1");
        assert_eq!(lines[5], "    name             pi");
        assert!(lines[6].contains("more"));
    }
}
