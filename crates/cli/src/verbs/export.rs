//! `log export`, `log verify-export`, `log import`: a log as lines that others can read and check.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncBufRead, BufReader};
use underpass_domain::LogName;
use underpass_server::tools::{self, MigrateError};
use underpass_server::{verify_export, verify_export_with};

use super::checkpoints::Against;
use super::store;
use crate::admin::Admin;
use crate::args::LogArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::signals;

/// Asks the server, or opens the folder where none runs. The file appears when it is whole.
pub(super) async fn export(
    log: &LogArgs,
    after: Option<u64>,
    until: Option<u64>,
    out: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let mut path = format!("/v1/logs/{}/export?", log.name);
    for (name, value) in [("after", after), ("until", until)] {
        if let Some(value) = value {
            let _ = write!(path, "{name}={value}&");
        }
    }
    let path = path.trim_end_matches(['?', '&']);
    let admin = Admin::reach(&log.admin).await?;
    let exported = match out {
        None => {
            let mut stdout = std::io::stdout().lock();
            admin
                .download(path, |bytes| {
                    stdout.write_all(bytes).map_err(|_| {
                        CliError::new(Exit::Failed, "output.closed", "standard output was closed")
                            .hint("keep the reading end open")
                    })
                })
                .await
        }
        Some(file) => into_file(&admin, path, file).await,
    };
    admin.close().await;
    let lines = exported.map(|()| out)?;
    match lines {
        None => Ok(()),
        Some(file) => {
            let value = json!({"event": "exported", "log": log.name, "file": file.display().to_string()});
            output.line(&value, &format!("  exported {} to {}", log.name, file.display()))
        }
    }
}

pub(super) async fn into_file(admin: &Admin, path: &str, file: &Path) -> Result<(), CliError> {
    let doing = format!("writing {}", file.display());
    let failed = |error: &std::io::Error| CliError::io(&doing, error);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    admin.download(path, |bytes| draft.write_all(bytes).map_err(|error| failed(&error))).await?;
    draft.as_file().sync_all().map_err(|error| failed(&error))?;
    draft.persist(file).map_err(|error| failed(&error.error))?;
    Ok(())
}

/// Needs nothing but the lines: this is how somebody else is shown what happened.
pub(super) async fn verify(file: &Path, against: Option<&Against>, output: Output) -> Result<(), CliError> {
    let lines = open(file).await?;
    let found = match against {
        // An export may be a part: checkpoints of what is not in it say nothing of it.
        Some(against) => verify_export_with(lines, &against.book, &against.key, false).await,
        None => verify_export(lines).await,
    };
    let found = found.map_err(|error| CliError::io(&format!("reading {}", file.display()), &error))?;
    let log = found.log.map(|log| log.to_string());
    if let Some((line, reason)) = &found.bad {
        let value = json!({"ok": false, "log": log, "line": line, "reason": reason});
        output.line(&value, &format!("  bad      line {line}  {reason}"))?;
        return Err(CliError::new(
            Exit::Failed,
            "import.line",
            format!("line {line} of the export is not what was exported: {reason}"),
        )
        .hint("ask for the export again, and don't edit it"));
    }
    if let Some(disagrees) = &found.disagrees {
        return Err(super::checkpoints::disagrees(log.as_deref().unwrap_or_default(), disagrees, output)?);
    }
    if against.is_some() && found.checkpoints == 0 {
        return Err(super::checkpoints::none("none of the checkpoints is of what the export holds"));
    }
    let value = json!({
        "ok": true,
        "log": log,
        "checkpoints": found.checkpoints,
        "log_id": found.log_id.map(|id| id.to_string()),
        "first": found.first.0,
        "head": found.head.0,
        "hash": found.hash.to_string(),
        "previous": found.previous.to_string(),
        "frames": found.frames,
        "events": found.lines,
    });
    let next = match found.checkpoints {
        0 => "  compare the hash with that of the log or of a checkpoint".to_owned(),
        count => format!("  agrees   with {count} checkpoints"),
    };
    let text = format!(
        "  good     {}:{} to {}  {} events in {} frames\n  hash     {}\n{next}",
        log.unwrap_or_default(),
        found.first,
        found.head,
        found.lines,
        found.frames,
        found.hash
    );
    output.line(&value, &text)
}

pub(super) async fn import(file: &Path, to: &str, name: &str, output: Output) -> Result<(), CliError> {
    let log = if name == "activity" { LogName::Activity } else { LogName::Control };
    let lines = open(file).await?;
    let stop = signals::stop_token()?;
    let target = store::open(to, true).await?;
    let mut shown = store::Shown::new(output);
    let imported = tools::import(lines, &target, log, |progress| shown.show(&progress), &stop).await;
    target.close().await;
    shown.end();
    let copied = imported.map_err(|error: MigrateError| store::failed(&error))?;
    store::arrived("imported", &copied, None, output)
}

pub(super) async fn open(file: &Path) -> Result<Box<dyn AsyncBufRead + Send + Unpin>, CliError> {
    if file == Path::new("-") {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        let stdin = stdin.map_err(|error| CliError::io("reading standard input", &error))?;
        return Ok(Box::new(BufReader::new(tokio::fs::File::from_std(stdin.into()))));
    }
    let opened = tokio::fs::File::open(file).await;
    let opened = opened.map_err(|error| CliError::io(&format!("reading {}", file.display()), &error))?;
    Ok(Box::new(BufReader::new(opened)))
}
