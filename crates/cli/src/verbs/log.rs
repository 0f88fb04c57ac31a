//! `log`: look at the event log.

use std::fmt::Write as _;

use serde_json::{Value, json};
use underpass_domain::{Clock, LogName, LogPosition, Timestamp};
use underpass_server::{DataError, Offline, StartError, SystemClock, VerifyError};

use super::checkpoints::Against;
use super::diff;
use super::ls::plain;
use super::serve::start_failed;
use crate::admin::{Admin, position_number};
use crate::args::{AdminArgs, LogArgs, LogVerb};
use crate::error::{CliError, Exit};
use crate::output::Output;

/// What a replay asks for at once: the largest page there is.
const SNAPSHOT_PAGE: u64 = 500;

pub(super) async fn run(verb: LogVerb, output: Output) -> Result<(), CliError> {
    match verb {
        LogVerb::Verify { log, against } => match Against::named(&against).await? {
            Some(against) => against.verify(&log, output).await,
            None => verify(&log, output).await,
        },
        LogVerb::Repair(args) => super::repair::run(&args, output).await,
        LogVerb::Export { log, after, until, out } => {
            super::export::export(&log, after, until, out.as_deref(), output).await
        }
        LogVerb::Archive { log, until } => {
            asking(&log.admin, async |admin| super::trim::archive(admin, &log, until, output).await).await
        }
        LogVerb::Trim { log, before, carry, yes } => {
            let before = before.map(|time| moment(&time)).transpose()?;
            let asked = super::trim::Trim { before, carry, yes };
            asking(&log.admin, async |admin| super::trim::trim(admin, &log, &asked, output).await).await
        }
        LogVerb::VerifyExport { file, against } => {
            let against = Against::named(&against).await?;
            super::export::verify(&file, against.as_ref(), output).await
        }
        LogVerb::Import { file, to, name } => super::export::import(&file, &to, &name, output).await,
        LogVerb::Tail { log, lines, no_follow } => {
            asking(&log.admin, async |admin| tail(admin, &log, lines, !no_follow, output).await).await
        }
        LogVerb::Show { log, after, limit, stream, types } => {
            let mut path = format!("/v1/events?log={}", log.name);
            if let Some(stream) = stream {
                let _ = write!(path, "&stream={}", escaped(&stream));
            }
            if !types.is_empty() {
                let _ = write!(path, "&types={}", escaped(&types.join(",")));
            }
            asking(&log.admin, async |admin| show(admin, &path, after, limit, output).await).await
        }
        LogVerb::Replay { log, as_of } => {
            asking(&log.admin, async |admin| replay(admin, &log, as_of.as_deref(), output).await).await
        }
        LogVerb::Diff { admin, from, to, limit } => {
            let to = to.as_deref().map(point).transpose()?;
            let path = diff::path(&point(&from)?, to.as_deref(), limit);
            asking(&admin, async |admin| diff::run(admin, &path, output).await).await
        }
    }
}

/// Does something with the server that the arguments name, and lets go of it whatever comes of that.
async fn asking(
    args: &AdminArgs,
    work: impl AsyncFnOnce(&Admin) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let admin = Admin::reach(args).await?;
    let done = work(&admin).await;
    admin.close().await;
    done
}

async fn tail(
    admin: &Admin,
    log: &LogArgs,
    lines: u64,
    follow: bool,
    output: Output,
) -> Result<(), CliError> {
    let head = admin.get(&format!("/v1/logs/{}/head", log.name)).await?;
    let head = head.get("position").and_then(position_number).unwrap_or_default();
    let after = head.saturating_sub(lines);
    let path = format!("/v1/events?log={}", log.name);
    if !follow {
        return show(admin, &path, after, None, output).await;
    }
    let stop = crate::signals::stop_token()?;
    let path = format!("{path}&after={after}&follow=true");
    let following = admin.stream(&path, |event| output.line(&event, &event_line(&event)));
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = following => ended,
    }
}

async fn show(
    admin: &Admin,
    path: &str,
    after: u64,
    limit: Option<u64>,
    output: Output,
) -> Result<(), CliError> {
    admin.each_event(path, after, limit, &mut |event| output.line(event, &event_line(event))).await
}

async fn replay(admin: &Admin, log: &LogArgs, as_of: Option<&str>, output: Output) -> Result<(), CliError> {
    let moment = match as_of {
        None => String::new(),
        Some(position) if position.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("&position={position}")
        }
        Some(time) => format!("&time={}", escaped(&moment(time)?)),
    };
    let path = format!("/v1/snapshots/{}?limit={SNAPSHOT_PAGE}{moment}", log.name);
    let list = if log.name == "activity" { "sessions" } else { "mappings" };
    let mut snapshot = admin.get(&path).await?;
    while let Some(next) = snapshot.as_object_mut().and_then(|object| object.remove("next")) {
        let mut page = admin.get(&format!("{path}&after={}", escaped(&plain(&next)))).await?;
        if let (Some(Value::Array(all)), Some(Value::Array(items))) =
            (snapshot.get_mut(list), page.get_mut(list))
        {
            all.append(items);
        }
        if let (Some(object), Some(next)) = (snapshot.as_object_mut(), page.get_mut("next")) {
            object.insert("next".to_owned(), next.take());
        }
    }
    let text = serde_json::to_string_pretty(&snapshot).unwrap_or_default();
    output.line(&snapshot, &text)
}

/// A position as it is, a time as `moment` takes it.
fn point(text: &str) -> Result<String, CliError> {
    match text.parse::<LogPosition>() {
        Ok(position) => Ok(position.to_string()),
        Err(_) => moment(text),
    }
}

/// An RFC 3339 time; `HH:MM` and `HH:MM:SS` are of today in UTC.
fn moment(text: &str) -> Result<String, CliError> {
    let today = SystemClock.now().to_string();
    let today = today.split('T').next().unwrap_or_default();
    [text.to_owned(), format!("{today}T{text}:00Z"), format!("{today}T{text}Z")]
        .iter()
        .find_map(|text| text.parse::<Timestamp>().ok())
        .map(|moment| moment.to_string())
        .ok_or_else(|| {
            CliError::new(Exit::Usage, "usage", format!("`{text}` is neither a position nor a time")).hint(
                "use a position such as 1842, a time such as 2026-01-31T03:12:00Z, or 03:12 for today in UTC",
            )
        })
}

/// A log is checked by the server that has it open, else by this process on the store itself: a log that is
/// damaged can't be opened to be asked.
async fn checked(log: &LogArgs) -> Result<Value, CliError> {
    if log.admin.api.is_none() {
        let name = if log.name == "activity" { LogName::Activity } else { LogName::Control };
        match Offline::verify(log.admin.folder(), name).await {
            Ok(verified) => {
                let (position, reason) = verified.bad.unzip();
                return Ok(json!({
                    "ok": verified.ok,
                    "head": verified.head.0,
                    "hash": verified.hash.to_string(),
                    "events": verified.events,
                    "frames": verified.frames,
                    "trimmed": (verified.trimmed.0 > 0).then_some(verified.trimmed.0),
                    "position": position.map(|position| position.0),
                    "reason": reason,
                }));
            }
            Err(VerifyError::Start(StartError::Data(DataError::InUse(_)))) => {}
            Err(VerifyError::Start(error)) => return Err(start_failed(&error)),
            Err(error) => {
                return Err(CliError::chain(Exit::Failed, "store.failed", &error).hint(
                    "check that the folder is that of a server which has run, and that its disk can be read",
                ));
            }
        }
    }
    let admin = Admin::reach(&log.admin).await?;
    let answer = admin.get(&format!("/v1/logs/{}/verify", log.name)).await;
    admin.close().await;
    let answer = answer?;
    let number = |key: &str| answer.get(key).and_then(position_number);
    Ok(json!({
        "ok": answer.get("ok"),
        "head": number("position"),
        "hash": answer.get("hash"),
        "events": answer.get("events"),
        "frames": answer.get("frames"),
        "trimmed": number("trimmed"),
        "position": number("bad_position"),
        "reason": answer.get("reason"),
    }))
}

async fn verify(log: &LogArgs, output: Output) -> Result<(), CliError> {
    let result = checked(log).await?;
    let field = |key: &str| result.get(key).map(plain).unwrap_or_default();
    if result.get("ok").and_then(Value::as_bool) == Some(true) {
        let value = json!({
            "ok": true,
            "log": log.name,
            "head": result.get("head"),
            "hash": result.get("hash"),
            "events": result.get("events"),
            "frames": result.get("frames"),
            "trimmed": result.get("trimmed"),
        });
        let trimmed = match result.get("trimmed").filter(|trimmed| !trimmed.is_null()) {
            Some(until) => {
                format!("\n  trimmed  up to {}:{}, which is not here to be read", log.name, plain(until))
            }
            None => String::new(),
        };
        let text = format!(
            "  good     {}:{}  {} events in {} frames{trimmed}\n  hash     {}",
            log.name,
            field("head"),
            field("events"),
            field("frames"),
            field("hash")
        );
        return output.line(&value, &text);
    }
    let part = |key: &str| result.get(key).cloned().unwrap_or_default();
    let (position, reason) = (part("position"), part("reason"));
    let value = json!({"ok": false, "log": log.name, "position": position, "reason": reason});
    output.line(&value, &format!("  bad      {}:{}  {}", log.name, plain(&position), plain(&reason)))?;
    Err(CliError::new(
        Exit::Failed,
        "log.bad",
        format!("the {} log is damaged at position {}: {}", log.name, plain(&position), plain(&reason)),
    )
    .hint("stop the server, keep a copy of the data folder, and restore it from a backup; without one, `underpass log repair` says what can be kept"))
}

/// One event as a line for people.
pub(super) fn event_line(event: &Value) -> String {
    let text = |key: &str| event.get(key).map(plain).unwrap_or_default();
    let sentence = event.get("sentence").map_or_else(|| text("payload"), plain);
    let cause = event.get("causation").filter(|cause| !cause.is_null());
    let cause = cause.map(|cause| format!(" because of {}", plain(cause))).unwrap_or_default();
    format!(
        "{:>14}  {}  {:<17} {}  [{}{cause}]",
        text("position"),
        text("recorded_at"),
        text("event"),
        sentence,
        text("actor")
    )
}

/// A value inside a query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood() {
        assert!(moment("2026-01-31T03:12:00Z").unwrap().starts_with("2026-01-31T03:12:00"));
        assert!(moment("03:12").unwrap().contains("T03:12:00"));
        assert_eq!(moment("yesterday-ish").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn points_are_positions_or_times() {
        assert_eq!(point("1842").unwrap(), "control:1842");
        assert_eq!(point("control:1842").unwrap(), "control:1842");
        assert!(point("03:12").unwrap().contains("T03:12:00"));
        assert_eq!(point("later").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("mapping/mapping_01&x=+"), "mapping/mapping_01%26x%3D%2B");
    }
}
