//! `log repair`: cut a damaged log back to what is good.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};
use underpass_domain::LogName;
use underpass_server::tools::{DamagedStore, OpenPlace, RepairFailed, RepairPlan, Repaired};

use super::serve::start_failed;
use crate::args::RepairArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;

/// What an answer says that isn't the name of the log.
const YES: &str = "yes";

pub(super) async fn run(args: &RepairArgs, output: Output) -> Result<(), CliError> {
    let place = match &args.store {
        Some(text) => super::store::open(text, false).await?,
        None => OpenPlace::of_folder(args.folder()).await.map_err(|error| start_failed(&error))?,
    };
    let taken = DamagedStore::take(place, args.keep.as_deref(), args.archive.as_deref()).await;
    let damaged = taken.map_err(|error| failed(&error))?;
    let done = each(args, &damaged, output).await;
    damaged.close().await;
    done
}

async fn each(args: &RepairArgs, damaged: &DamagedStore, output: Output) -> Result<(), CliError> {
    let logs = LogName::ALL.into_iter().filter(|log| args.name == "both" || args.name == log.to_string());
    let mut plans = Vec::new();
    for log in logs {
        // Both are looked at before one is touched.
        plans.push(damaged.plan(log, args.new_epoch).await.map_err(|error| failed(&error))?);
    }
    let mut unconfirmed = Vec::new();
    for plan in &plans {
        show(plan, damaged, output)?;
        if !plan.needed() {
            continue;
        }
        if args.yes || asked(plan.log, output) {
            let repaired = damaged.repair(plan).await.map_err(|error| failed(&error))?;
            say(args, &repaired, output)?;
        } else {
            unconfirmed.push(plan.log.to_string());
        }
    }
    if unconfirmed.is_empty() {
        return Ok(());
    }
    let logs = unconfirmed.join(" and the ");
    Err(CliError::new(
        Exit::Refused,
        "repair.unconfirmed",
        format!("the {logs} log was not repaired: nothing was changed"),
    )
    .hint("keep a copy of the store, then say it with --yes; a backup that is restored loses less"))
}

fn failed(error: &RepairFailed) -> CliError {
    CliError::chain(Exit::Failed, error.code(), error).hint(error.hint())
}

/// What would be done.
fn show(plan: &RepairPlan, damaged: &DamagedStore, output: Output) -> Result<(), CliError> {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        let event = if plan.needed() { "damaged" } else { "good" };
        object.insert("event".to_owned(), json!(event));
    }
    let log = plan.log;
    let Some(reason) = &plan.reason else {
        return output.line(&value, &format!("  good     {log}:{}  nothing to repair", plan.stays));
    };
    let mut lines = vec![
        format!("  bad      {log}:{}  {reason}", plan.position),
        format!("  stays    {log}:1 to {log}:{}, up to {}", plan.stays, plan.since),
    ];
    lines.push(match plan.lost {
        0 => "  lost     no position that is known".to_owned(),
        lost => format!(
            "  lost     {lost} positions, from {log}:{} to {log}:{}; {} events of them can still be read",
            plan.stays.next(),
            plan.stays.0 + lost,
            plan.readable
        ),
    });
    for event in &plan.events {
        lines.push(format!("           {log}:{}  {}  {}", event.position, event.recorded_at, event.sentence));
    }
    let unnamed = plan.readable.saturating_sub(plan.events.len() as u64);
    if unnamed > 0 {
        lines.push(format!("           and {unnamed} more"));
    }
    lines.push(format!(
        "  keeps    {} entries ({} frames, {} snapshots) in a folder below {}",
        plan.entries,
        plan.frames,
        plan.snapshots,
        damaged.keep().display()
    ));
    lines.push(format!("  epoch    {} begins; positions of epochs before count no more", plan.epoch));
    if plan.usable {
        lines.push(
            "  note     a server may still run on this log as it is, from a snapshot behind the damage"
                .to_owned(),
        );
    }
    if plan.resumes {
        lines.push("  note     a repair was begun before; this one finishes it".to_owned());
    }
    output.line(&value, &lines.join("\n"))
}

/// Asks on a terminal. Without one nobody answers.
fn asked(log: LogName, output: Output) -> bool {
    if output.json() || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    let mut terminal = std::io::stderr();
    let _ = write!(terminal, "  cut it off? type `{log}` or `{YES}`: ");
    let _ = terminal.flush();
    let mut answer = String::new();
    match std::io::stdin().lock().read_line(&mut answer) {
        Ok(_) => answer.trim() == YES || answer.trim() == log.to_string(),
        Err(_) => false,
    }
}

fn say(args: &RepairArgs, repaired: &Repaired, output: Output) -> Result<(), CliError> {
    let check = match &args.store {
        Some(store) => format!("underpass store check {store}"),
        None => {
            format!("underpass log verify --log-name {} --data {}", repaired.log, args.folder().display())
        }
    };
    let mut value = serde_json::to_value(repaired).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        object.insert("event".to_owned(), json!("repaired"));
        object.insert("check".to_owned(), json!(check));
    }
    let text = format!(
        "  repaired {}:{}  epoch {}\n  hash     {}\n  kept     {} entries in {}\n  next     {check}",
        repaired.log,
        repaired.head,
        repaired.epoch,
        repaired.hash,
        repaired.entries,
        repaired.kept.display()
    );
    output.line(&value, &text)
}
