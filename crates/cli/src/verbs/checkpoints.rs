//! `log verify --checkpoints`: is the log what it was when somebody looked?
//!
//! A folder that no server uses is read by this process. A running server is asked for all its events instead, and
//! they are checked here: who wants to know whether a log was changed does not take its server's word.

use std::path::Path;

use serde_json::json;
use tokio::io::BufReader;
use underpass_domain::{LogName, Position};
use underpass_server::{
    CheckpointBook, CheckpointPublicKey, DataError, Offline, StartError, VerifiedExport, VerifyError,
    verify_export_with,
};

use super::serve::start_failed;
use crate::admin::Admin;
use crate::args::{AgainstArgs, LogArgs};
use crate::error::{CliError, Exit};
use crate::output::Output;

/// A public key is one short line.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Checkpoints and the key they must be signed with.
#[derive(Debug)]
pub(super) struct Against {
    pub(super) book: CheckpointBook,
    pub(super) key: CheckpointPublicKey,
}

/// What was found, wherever it was read.
struct Found {
    head: Position,
    hash: String,
    events: u64,
    frames: u64,
    checkpoints: u64,
    /// Damage of the log itself.
    bad: Option<String>,
    disagrees: Option<(Position, String)>,
}

impl Against {
    /// What the arguments name, if they name something.
    pub(super) async fn named(args: &AgainstArgs) -> Result<Option<Self>, CliError> {
        let (Some(file), Some(key)) = (&args.checkpoints, &args.checkpoint_key) else { return Ok(None) };
        let key = public_key(key)?;
        let doing = format!("reading {}", file.display());
        let opened = tokio::fs::File::open(file).await.map_err(|error| CliError::io(&doing, &error))?;
        let book = CheckpointBook::read(BufReader::new(opened)).await.map_err(|error| {
            CliError::chain(Exit::Failed, error.code(), &error)
                .hint("put the file back from a copy, or leave out the line")
        })?;
        Ok(Some(Self { book, key }))
    }

    /// Checks a log, and that it agrees.
    pub(super) async fn verify(&self, log: &LogArgs, output: Output) -> Result<(), CliError> {
        let name = if log.name == "activity" { LogName::Activity } else { LogName::Control };
        if self.book.of(name).is_empty() {
            return Err(none(&format!("the file holds no checkpoint of the {name} log")));
        }
        let found = match self.stopped(log, name).await? {
            Some(found) => found,
            None => self.running(log).await?,
        };
        if let Some(bad) = found.bad {
            return Err(CliError::new(Exit::Failed, "log.bad", format!("the {name} log is damaged: {bad}"))
                .hint("stop the server, keep a copy of the data folder, and restore it from a backup"));
        }
        if let Some(disagreement) = &found.disagrees {
            return Err(disagrees(&log.name, disagreement, output)?);
        }
        if found.checkpoints == 0 {
            return Err(none(&format!("what the checkpoints of the {name} log speak of was trimmed away")));
        }
        let value = json!({
            "ok": true,
            "log": log.name,
            "head": found.head.0,
            "hash": found.hash,
            "events": found.events,
            "frames": found.frames,
            "checkpoints": found.checkpoints,
        });
        let text = format!(
            "  good     {}:{}  {} events in {} frames\n  hash     {}\n  agrees   with {} checkpoints",
            log.name, found.head, found.events, found.frames, found.hash, found.checkpoints
        );
        output.line(&value, &text)
    }

    /// A folder that no server uses; `None` where one does, or where a server was named.
    async fn stopped(&self, log: &LogArgs, name: LogName) -> Result<Option<Found>, CliError> {
        if log.admin.api.is_some() {
            return Ok(None);
        }
        let verified = match Offline::verify_with(log.admin.folder(), name, &self.book, &self.key).await {
            Ok(verified) => verified,
            Err(VerifyError::Start(StartError::Data(DataError::InUse(_)))) => return Ok(None),
            Err(VerifyError::Start(error)) => return Err(start_failed(&error)),
            Err(error) => {
                return Err(CliError::chain(Exit::Failed, "store.failed", &error).hint(
                    "check that the folder is that of a server which has run, and that its disk can be read",
                ));
            }
        };
        let (bad, disagrees) = match verified.bad {
            Some(why) if verified.by_checkpoint => (None, Some(why)),
            Some((position, why)) => (Some(format!("at position {position}: {why}")), None),
            None => (None, None),
        };
        Ok(Some(Found {
            head: verified.head,
            hash: verified.hash.to_string(),
            events: verified.events,
            frames: verified.frames,
            checkpoints: verified.checkpoints,
            bad,
            disagrees,
        }))
    }

    /// All events of a running server, checked here.
    async fn running(&self, log: &LogArgs) -> Result<Found, CliError> {
        let doing = "keeping the events for a moment";
        let folder = tempfile::tempdir().map_err(|error| CliError::io(doing, &error))?;
        let file = folder.path().join("events");
        let admin = Admin::reach(&log.admin).await?;
        let exported =
            super::export::into_file(&admin, &format!("/v1/logs/{}/export", log.name), &file).await;
        admin.close().await;
        exported?;
        let lines = super::export::open(&file).await?;
        let VerifiedExport { head, hash, lines: events, frames, checkpoints, disagrees, bad, .. } =
            verify_export_with(lines, &self.book, &self.key, true)
                .await
                .map_err(|error| CliError::io(doing, &error))?;
        let bad = bad.map(|(line, why)| format!("in line {line} of its events: {why}"));
        Ok(Found { head, hash: hash.to_string(), events, frames, checkpoints, bad, disagrees })
    }
}

/// Says on standard output what does not agree; the error to end with.
pub(super) fn disagrees(
    log: &str,
    (position, reason): &(Position, String),
    output: Output,
) -> Result<CliError, CliError> {
    let value = json!({"ok": false, "log": log, "position": position.0, "reason": reason});
    output.line(&value, &format!("  bad      {log}:{position}  {reason}"))?;
    let message = format!("the {log} log is not what it was at position {position}: {reason}");
    Ok(CliError::new(Exit::Failed, "checkpoints.disagree", message)
        .hint("keep a copy of the store as evidence, and put back the newest copy that agrees"))
}

pub(super) fn none(message: &str) -> CliError {
    CliError::new(Exit::Failed, "checkpoints.none", message)
        .hint("name the file that the server of this log has written, see `log.checkpoints.file`")
}

/// A key as it is, or a file that holds it.
fn public_key(text: &str) -> Result<CheckpointPublicKey, CliError> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let doing = format!("reading {text}");
    let path = Path::new(text);
    let size = std::fs::metadata(path).map_err(|error| CliError::io(&doing, &error))?.len();
    let read = if size > KEY_FILE_BYTES_MAX { Ok(String::new()) } else { std::fs::read_to_string(path) };
    let read = zeroize::Zeroizing::new(read.map_err(|error| CliError::io(&doing, &error))?);
    read.trim().parse().map_err(|error: underpass_server::InvalidCheckpointKey| {
        CliError::new(Exit::Usage, "usage", format!("{text}: {error}"))
            .hint("name checkpoint.pub of the server's data folder, not checkpoint.key")
    })
}
