//! `store`: move and check stores that no server uses.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use underpass_domain::LogName;
use underpass_server::Progress;
use underpass_server::tools::{self, Copied, MigrateError, OpenPlace, StorePlace};

use super::serve::start_failed;
use crate::admin::Admin;
use crate::args::{AdminArgs, StoreVerb};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::signals;

pub(super) async fn run(verb: StoreVerb, output: Output) -> Result<(), CliError> {
    match verb {
        StoreVerb::Migrate { from, to } => migrate(&from, &to, output).await,
        StoreVerb::Backup { data, to } => backup(data, &to, output).await,
        StoreVerb::Check { place } => check(&place, output).await,
    }
}

async fn migrate(from: &str, to: &str, output: Output) -> Result<(), CliError> {
    let (source, target): (StorePlace, StorePlace) = (place(from)?, place(to)?);
    if source == target {
        return Err(CliError::new(Exit::Usage, "usage", "source and target are the same store")
            .hint("name another store with --to"));
    }
    let stop = signals::stop_token()?;
    let source = opened(&source, false).await?;
    let target = match opened(&target, true).await {
        Ok(target) => target,
        Err(error) => {
            source.close().await;
            return Err(error);
        }
    };
    let mut shown = Shown::new(output);
    let migrated = tools::migrate(&source, &target, |progress| shown.show(&progress), &stop).await;
    target.close().await;
    source.close().await;
    shown.end();
    for one in migrated.map_err(|error| failed(&error))? {
        arrived("migrated", &one.copied, Some(one.read_models_equal), output)?;
    }
    if output.json() {
        return Ok(());
    }
    output.line(
        &json!(null),
        "  next     name the new store in `[store]` of the configuration and start the server; the source is as it was",
    )
}

async fn backup(data: PathBuf, to: &Path, output: Output) -> Result<(), CliError> {
    let to = std::path::absolute(to).map_err(|error| CliError::io("finding the folder", &error))?;
    let admin = Admin::reach(&AdminArgs { data: Some(data), ..AdminArgs::default() }).await?;
    let body = json!({"to": to.display().to_string()});
    let made = admin.call(reqwest::Method::POST, "/v1/backups", Some(&body)).await;
    admin.close().await;
    let made = made?;
    let position = made.get("position").cloned().unwrap_or_default();
    let value = json!({"event": "backed_up", "to": to.display().to_string(), "position": position});
    output.line(
        &value,
        &format!("  backup   {} holds {} and all before", to.display(), super::ls::plain(&position)),
    )
}

async fn check(text: &str, output: Output) -> Result<(), CliError> {
    let opened = open(text, false).await?;
    let mut bad = None;
    for log in LogName::ALL {
        let checked = match tools::check(&opened, log).await {
            Ok(checked) => checked,
            Err(error) => {
                opened.close().await;
                return Err(CliError::chain(Exit::Failed, error.code(), &error)
                    .hint("check that the store is the right one, and that it can be read"));
            }
        };
        let verified = &checked.verified;
        let (position, reason) = match (&verified.bad, &checked.unreadable) {
            (Some((position, reason)), _) => (Some(position.0), Some(reason.clone())),
            (None, Some(reason)) => (None, Some(reason.clone())),
            (None, None) => (None, None),
        };
        let value = json!({
            "ok": checked.ok(),
            "log": log.to_string(),
            "head": verified.head.0,
            "hash": verified.hash.to_string(),
            "events": verified.events,
            "frames": verified.frames,
            "position": position,
            "reason": reason,
        });
        let text = match &reason {
            None => {
                format!("  good     {log}:{}  {} events  {}", verified.head, verified.events, verified.hash)
            }
            Some(reason) => format!("  bad      {log}  {reason}"),
        };
        output.line(&value, &text)?;
        if let Some(reason) = reason {
            bad.get_or_insert(format!("the {log} log is damaged: {reason}"));
        }
    }
    opened.close().await;
    match bad {
        None => Ok(()),
        Some(message) => Err(CliError::new(Exit::Failed, "log.bad", message)
            .hint("keep a copy of the store, and restore it from a backup")),
    }
}

fn place(text: &str) -> Result<StorePlace, CliError> {
    text.parse().map_err(|error: tools::PlaceText| {
        CliError::new(Exit::Usage, "usage", error.to_string())
            .hint("for example rocksdb:./underpass-data or etcd://127.0.0.1:2379/underpass")
    })
}

async fn opened(place: &StorePlace, create: bool) -> Result<OpenPlace, CliError> {
    OpenPlace::open(place, create).await.map_err(|error| start_failed(&error))
}

/// Opens a store that is said on the command line.
pub(super) async fn open(text: &str, create: bool) -> Result<OpenPlace, CliError> {
    opened(&place(text)?, create).await
}

pub(super) fn failed(error: &MigrateError) -> CliError {
    CliError::chain(Exit::Failed, error.code(), error).hint(error.hint())
}

/// Says that a log has arrived.
pub(super) fn arrived(
    event: &str,
    copied: &Copied,
    read_models_equal: Option<bool>,
    output: Output,
) -> Result<(), CliError> {
    let value = json!({
        "event": event,
        "log": copied.log.to_string(),
        "log_id": copied.log_id.to_string(),
        "head": copied.head.0,
        "hash": copied.target_hash.to_string(),
        "frames": copied.frames,
        "resumed_after": copied.resumed_after.0,
        "written": copied.written,
        "read_models_equal": read_models_equal,
    });
    let equal = if read_models_equal == Some(true) { ", same read models" } else { "" };
    let how = if copied.written { "" } else { ", all was there" };
    let text = format!(
        "  {event} {}:{}  {} frames, same hash{equal}{how}\n  hash     {}",
        copied.log, copied.head, copied.frames, copied.target_hash
    );
    output.line(&value, &text)
}

/// Progress: for people a line on standard error that is written over, if that is a terminal; for programs a JSON
/// line on standard output now and then.
pub(super) struct Shown {
    output: Output,
    terminal: bool,
    any: bool,
    /// What was told last: which log, and how many hundredths of it.
    told: Option<(LogName, u64)>,
}

impl Shown {
    pub(super) fn new(output: Output) -> Self {
        Self { output, terminal: !output.json() && std::io::stderr().is_terminal(), any: false, told: None }
    }

    /// A hundredth of a log is told once. Where the end is unknown, all is told: reports come after so many frames.
    fn tell(&mut self, progress: &Progress) {
        let end = progress.end.map(|end| end.0.max(1));
        let hundredths = end.map_or(progress.checked.0, |end| progress.checked.0.saturating_mul(100) / end);
        if self.told.replace((progress.log, hundredths)) == Some((progress.log, hundredths)) {
            return;
        }
        let value = json!({
            "event": "progress",
            "log": progress.log.to_string(),
            "checked": progress.checked.0,
            "written": progress.written.0,
            "end": progress.end.map(|end| end.0),
        });
        // Standard output that is closed is told by the result, which is worth finishing for.
        let _ = self.output.line(&value, "");
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        const WIDTH: u64 = 30;
        if self.output.json() {
            return self.tell(progress);
        }
        if !self.terminal {
            return;
        }
        let done = match progress.end.map(|end| end.0).filter(|end| *end > 0) {
            Some(end) => {
                let filled = usize::try_from(progress.checked.0.min(end) * WIDTH / end).unwrap_or_default();
                let rest = usize::try_from(WIDTH).unwrap_or_default().saturating_sub(filled);
                format!("[{}{}] {} of {end}", "#".repeat(filled), " ".repeat(rest), progress.checked)
            }
            None => progress.checked.to_string(),
        };
        // A terminal that is gone is no reason to stop the work.
        let _ = write!(std::io::stderr(), "\r  copying  {} {done}  ", progress.log);
        self.any = true;
    }

    pub(super) fn end(&self) {
        if self.any {
            let _ = writeln!(std::io::stderr());
        }
    }
}
