//! Measures the log, each figure beside its limit, in one run: A B A B …, medians, spreads, goals.
//!
//! Writes `log-figures.md` and `log-figures.json` and prints the first. What each row means stands in
//! `docs/benchmarks.md`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_benches::log::{
    Activity, Control, Failure, Figures, Goal, Opened, RawEtcd, RawRocks, Story, append, cpu_time, frames,
    rocks, sync_times,
};
use underpass_benches::process::on_path;
use underpass_benches::report::{into_page_between, machine, version};
use underpass_domain::{ActivityState, Aggregate, ControlState, Position};
use underpass_eventlog::{AsOf, copy, replay_stored, verify};
use underpass_store::{MemoryStore, Store};
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdServer;

/// Writers at once.
const WRITERS: u64 = 64;
/// Mappings of the story at a time.
const MAPPINGS: u64 = 10_048;
/// Before the end of a log of `events`, where the snapshot stands: 10 000 of a million.
const BEHIND_SNAPSHOT: u64 = 100;

/// The log beside its limits.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; the median of them is shown. Fewer than five tell little.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Events of the logs that are replayed and started from.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Commands of each measure of appending with many writers; one writer carries out a fortieth of them.
    #[arg(long, default_value_t = 40_000)]
    commands: u64,
    /// Measure only these parts: append, replay, start, etcd.
    #[arg(long)]
    only: Vec<String>,
    /// Where stores are made: on the disk that is to be measured.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Where the results go.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A page whose section of the last run of the log is replaced, too.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Something a reader must know: what else the machine was doing.
    #[arg(long)]
    note: Option<String>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("log-figures: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let out = args.out.clone().unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("bench")
    });
    std::fs::create_dir_all(&out)?;
    let scratch = tempfile::tempdir_in(args.scratch.as_deref().unwrap_or(&out))?;
    let mut figures = Figures::default();
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);

    if wanted("append") {
        appending(&args, scratch.path(), &mut figures).await?;
    }
    if wanted("replay") || wanted("start") {
        let acts = Control { mappings: MAPPINGS };
        eprintln!("writing {} events into memory", 2 * args.events);
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let short = args.events - args.events / BEHIND_SNAPSHOT;
        let log = begin(&memory, acts).await?;
        let steps = grow(&log, acts, 0, short).await?;
        let snapshotted = scratch.path().join("snapshotted");
        if wanted("start") {
            copied::<ControlState>(&memory, &snapshotted).await?;
            let store = rocks(&snapshotted)?;
            Opened::<ControlState>::open(&as_store(&store)).await?.close().await;
            store.close().await;
        }
        grow(&log, acts, steps, args.events).await?;
        log.stop().await;
        if wanted("start") {
            // Goes on behind what is there; the snapshot stays.
            copied::<ControlState>(&memory, &snapshotted).await?;
        }
        let whole = scratch.path().join("whole");
        copied::<ControlState>(&memory, &whole).await?;
        if wanted("replay") {
            let log = Opened::<ActivityState>::open(&memory).await?;
            grow(&log, Activity { mappings: MAPPINGS }, 0, args.events).await?;
            log.stop().await;
            copied::<ActivityState>(&memory, &whole).await?;
            replaying(&args, &memory, &whole, &mut figures).await?;
        }
        if wanted("start") {
            starting(&args, &whole, &snapshotted, &mut figures).await?;
        }
    }
    if wanted("etcd") {
        if on_path("etcd").is_some() {
            etcd(&args, &mut figures).await?;
        } else {
            figures.missing.push(("etcd".to_owned(), "not on the PATH".to_owned()));
        }
    }

    let facts = facts(&args);
    let text = figures.to_markdown(&facts);
    std::fs::write(out.join("log-figures.md"), &text)?;
    std::fs::write(out.join("log-figures.json"), serde_json::to_vec_pretty(&figures.to_json(&facts))?)?;
    if let Some(page) = &args.page {
        let old = std::fs::read_to_string(page)?;
        let new = into_page_between(&old, "last run of the log", &text)
            .ok_or_else(|| format!("{} has no place for the last run of the log", page.display()))?;
        std::fs::write(page, new)?;
    }
    println!("{text}");
    eprintln!("written to {}", out.display());
    Ok(())
}

/// A log with the clients of the story.
async fn begin(store: &Arc<dyn Store>, acts: Control) -> Result<Opened<ControlState>, Failure> {
    let opened = Opened::open(store).await?;
    append(&opened.log, Clients, WRITERS, 0, acts.clients().next_multiple_of(WRITERS)).await?;
    Ok(opened)
}

/// Enrols the clients of [`Control`].
#[derive(Clone, Copy)]
struct Clients;

impl Story<ControlState> for Clients {
    fn command(&self, lane: u64, lanes: u64, step: u64) -> underpass_domain::ControlCommand {
        Control::enrol(lane + lanes * step)
    }
}

/// Goes on with a story until the log holds about `events`, and not fewer. Gives the steps of each writer.
async fn grow<A: Aggregate>(
    opened: &Opened<A>,
    acts: impl Story<A> + Copy + Send + 'static,
    mut steps: u64,
    events: u64,
) -> Result<u64, Failure> {
    // In parts, as a command may make more events than one.
    while opened.log.view().position.0 < events {
        let left = events - opened.log.view().position.0;
        let part = (left / WRITERS / 2).max(1);
        append(&opened.log, acts, WRITERS, steps, part * WRITERS).await?;
        steps += part;
    }
    Ok(steps)
}

fn as_store(store: &Arc<underpass_store_rocksdb::RocksStore>) -> Arc<dyn Store> {
    Arc::clone(store) as Arc<dyn Store>
}

async fn copied<A: Aggregate>(from: &Arc<dyn Store>, folder: &Path) -> Result<(), Failure> {
    let store = rocks(folder)?;
    copy(from, &as_store(&store), A::LOG, |_| {}, &CancellationToken::new()).await?;
    store.close().await;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Many writers, the same bytes without us, one writer: in turn.
async fn appending(args: &Args, scratch: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let acts = Control { mappings: MAPPINGS };
    let (folder, raw) = (scratch.join("append"), scratch.join("raw"));
    let store = rocks(&folder)?;
    let dynamic = as_store(&store);
    let opened = begin(&dynamic, acts).await?;
    let raw = RawRocks::open(&raw)?;
    let (many, few) = (args.commands, (args.commands / 40).max(1));
    for round in 0..args.rounds {
        eprintln!("appending, round {} of {}", round + 1, args.rounds);
        let mut syncs: Vec<f64> = sync_times(scratch, 100)?.into_iter().map(millis).collect();
        syncs.sort_by(f64::total_cmp);
        figures.add("fdatasync of 4 KiB", "ms", None, syncs[syncs.len() / 2]);

        let before = opened.log.view().position;
        let steps = round as u64 * (many / WRITERS);
        let (ours, events) = append(&opened.log, acts, WRITERS, steps, many).await?;
        let written = frames::<ControlState>(&dynamic, before).await?;
        let theirs = raw.write(&written)?;
        let (ours, theirs) = (rate(events, ours), rate(written.events, theirs));
        figures.add("RocksDB: durable append, 64 writers", "events/s", None, ours);
        figures.add("RocksDB: the same frames, raw synced `WriteBatch`", "events/s", None, theirs);
        let goal = Some(Goal::AtLeast(0.8));
        figures.add("RocksDB: 64 writers / raw", "ratio", goal, ours / theirs);

        let (one, events) = append(&opened.log, Alone { round: round as u64, few }, 1, 0, few).await?;
        let one = rate(events, one);
        figures.add("RocksDB: durable append, one writer", "events/s", None, one);
        let goal = Some(Goal::AtLeast(25.0));
        figures.add("RocksDB: 64 writers / one writer", "ratio", goal, ours / one);
    }
    opened.stop().await;
    store.close().await;
    Ok(())
}

/// One writer, who switches mappings of clients of its own on and off.
#[derive(Clone, Copy)]
struct Alone {
    round: u64,
    few: u64,
}

impl Story<ControlState> for Alone {
    fn command(&self, _lane: u64, _lanes: u64, step: u64) -> underpass_domain::ControlCommand {
        Control::enrol((1 << 30) + self.round * self.few + step)
    }
}

/// From frames to a read model, and frames alone.
async fn replaying(
    args: &Args,
    memory: &Arc<dyn Store>,
    whole: &Path,
    figures: &mut Figures,
) -> Result<(), Failure> {
    for round in 1..=args.rounds {
        eprintln!("replaying, round {round} of {}", args.rounds);
        let store = rocks(whole)?;
        let disk = as_store(&store);
        for (place, store, least) in [("memory", memory, 1.5), ("RocksDB", &disk, 1.0)] {
            let control = replay::<ControlState>(store).await?;
            let activity = replay::<ActivityState>(store).await?;
            let goal = Some(Goal::AtLeast(least));
            for (log, (events, wall, cpu)) in [("control", control), ("activity", activity)] {
                let core = rate(events, cpu) / 1e6;
                figures.add(&format!("replay of {log} from {place}"), "M events/s per core", goal, core);
                figures.add(
                    &format!("the same by the clock, {log} from {place}"),
                    "M events/s",
                    None,
                    rate(events, wall) / 1e6,
                );
            }
            let before = cpu_time();
            let verified = verify(store, ControlState::LOG).await?;
            if !verified.ok {
                return Err(format!("the log is not what was written: {verified:?}").into());
            }
            let only = rate(verified.events, cpu_time().saturating_sub(before)) / 1e6;
            figures.add(
                &format!("verify of control in {place}, no read model"),
                "M events/s per core",
                None,
                only,
            );
        }
        drop(disk);
        store.close().await;
    }
    Ok(())
}

async fn replay<A: Aggregate>(store: &Arc<dyn Store>) -> Result<(u64, Duration, Duration), Failure> {
    let (began, before) = (Instant::now(), cpu_time());
    let view = replay_stored::<A>(store, AsOf::Position(head::<A>(store).await?)).await?;
    Ok((view.position.0, began.elapsed(), cpu_time().saturating_sub(before)))
}

async fn head<A: Aggregate>(store: &Arc<dyn Store>) -> Result<Position, Failure> {
    let entry = store.get(&underpass_eventlog::keys::head(A::LOG)).await?.ok_or("the log has no head")?;
    Ok(underpass_eventlog::head::Head::decode(&entry.value)?.position)
}

/// From a folder to a log that takes commands.
async fn starting(
    args: &Args,
    whole: &Path,
    snapshotted: &Path,
    figures: &mut Figures,
) -> Result<(), Failure> {
    for round in 1..=args.rounds {
        eprintln!("starting, round {round} of {}", args.rounds);
        for (name, folder, most) in [
            ("start, snapshot one hundredth before the end", snapshotted, 2.0),
            ("start, without a snapshot", whole, 5.0),
        ] {
            let began = Instant::now();
            let store = rocks(folder)?;
            let opened = Opened::<ControlState>::open(&as_store(&store)).await?;
            let took = began.elapsed();
            if opened.log.view().position.0 < args.events {
                return Err("the log that was started is too short".into());
            }
            figures.add(name, "s", Some(Goal::AtMost(most)), took.as_secs_f64());
            opened.stop().await;
            store.close().await;
        }
    }
    Ok(())
}

/// Appends through etcd, and the same frames by a plain client.
async fn etcd(args: &Args, figures: &mut Figures) -> Result<(), Failure> {
    let server = tokio::task::spawn_blocking(EtcdServer::start).await?;
    let store = Arc::new(EtcdStore::open(server.options("log-figures")).await?);
    let dynamic = Arc::clone(&store) as Arc<dyn Store>;
    let acts = Control { mappings: MAPPINGS };
    let opened = begin(&dynamic, acts).await?;
    let mut raw = RawEtcd(server.client().await);
    let (many, few) = ((args.commands / 4).max(WRITERS), (args.commands / 80).max(1));
    for round in 0..args.rounds {
        eprintln!("etcd, round {} of {}", round + 1, args.rounds);
        let before = opened.log.view().position;
        let steps = round as u64 * (many / WRITERS);
        let (ours, events) = append(&opened.log, acts, WRITERS, steps, many).await?;
        let written = frames::<ControlState>(&dynamic, before).await?;
        let theirs = raw.write(&written).await?;
        let (ours, theirs) = (rate(events, ours), rate(written.events, theirs));
        figures.add("etcd: append, 64 writers", "events/s", None, ours);
        figures.add("etcd: the same frames, raw put", "events/s", None, theirs);
        figures.add("etcd: 64 writers / raw put", "ratio", Some(Goal::AtLeast(0.85)), ours / theirs);

        let before = opened.log.view().position;
        let (ours, events) = append(&opened.log, Alone { round: round as u64, few }, 1, 0, few).await?;
        let written = frames::<ControlState>(&dynamic, before).await?;
        let theirs = raw.write(&written).await?;
        let (ours, theirs) = (rate(events, ours), rate(written.events, theirs));
        figures.add("etcd: append, one writer", "events/s", None, ours);
        figures.add("etcd: one writer / raw put", "ratio", Some(Goal::AtLeast(0.85)), ours / theirs);
    }
    opened.stop().await;
    store.close().await;
    Ok(())
}

fn facts(args: &Args) -> Vec<(String, String)> {
    let mut facts = machine();
    if let Some(version) = on_path("etcd").and_then(|etcd| version(&etcd, "--version")) {
        facts.push(("versions".into(), version));
    }
    // Without the folders of whoever ran it.
    let name = |argument: String| argument.rsplit('/').next().unwrap_or_default().to_owned();
    let command: Vec<_> = std::env::args().map(name).collect();
    facts.push(("command".into(), format!("`{}`", command.join(" "))));
    if let Some(note) = &args.note {
        facts.push(("note".into(), note.clone()));
    }
    facts
}
