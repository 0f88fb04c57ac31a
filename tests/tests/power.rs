//! The power fails while a log is written to: what was acknowledged had been synced.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "others ask for more")]
#[path = "linear/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokens::{Do, Event, Tokens};
use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{Actor, Clock, CommandId, LogName, Meta, NodeId, Position};
use underpass_eventlog::{Log, LogError, LogOptions, read_stored, verify};
use underpass_store::Store;
use underpass_store::testkit::Seeded;
use underpass_store_rocksdb::{OpenError, RocksOptions, RocksStore};
use underpass_tasks::Tasks;
use underpass_tests::synced::{Disk, Taken};

const FOLDER: &str = "UNDERPASS_TEST_FOLDER";
const CYCLE: &str = "UNDERPASS_TEST_CYCLE";
const WRITERS: u64 = 4;

/// The other half of the tests below: appends until it is killed, and says what was acknowledged.
#[test]
fn append_until_killed() {
    let (Ok(folder), Ok(cycle)) = (std::env::var(FOLDER), std::env::var(CYCLE)) else {
        return;
    };
    let cycle: u64 = cycle.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(RocksStore::open(Path::new(&folder), RocksOptions::default()).unwrap());
        let tasks = Tasks::new("writer", CancellationToken::new());
        let mut options = LogOptions::new(NodeId::from_bytes([1; 16]));
        options.snapshot_every = 50;
        let (clock, random) = (Arc::new(ManualClock::default()), Arc::new(SeededRandom::new(cycle)));
        let log: Log<Tokens> = Log::open(store, options, clock, random, &tasks).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let log = log.clone();
            writers.spawn(async move {
                for nth in 1.. {
                    let token = (cycle * WRITERS + writer) * 1_000_000 + nth;
                    let done = log.execute(meta(token), Do::Append { token }).await.unwrap();
                    println!("ack {} {token}", done.positions.unwrap().0);
                }
            });
        }
        writers.join_next().await;
    });
}

fn meta(token: u64) -> Meta {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&token.to_be_bytes());
    let now = ManualClock::default().now();
    Meta { id: CommandId(id), actor: Actor::Operator, source: None, correlation: None, causation: None, now }
}

/// Has a log written to until so many appends were acknowledged, or for a moment if none need be, and kills the
/// writer. Gives what was acknowledged: tokens by position.
fn killed(disk: &mut Disk, cycle: u64, enough: usize, lost: Option<&str>) -> BTreeMap<u64, u64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "append_until_killed", "--nocapture"]).stdout(Stdio::piped());
    command.env(FOLDER, disk.folder()).env(CYCLE, cycle.to_string());
    disk.watch(&mut command, lost);
    let mut child = command.spawn().unwrap();
    if enough == 0 {
        std::thread::sleep(Duration::from_millis(cycle % 10 * 5));
        child.kill().unwrap();
    }
    let mut acknowledged = BTreeMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        // It may share its line with the words of the test runner; the kill may have cut it off.
        if let Some((_, ack)) = line.split_once("ack ")
            && let Some((position, token)) = ack.strip_suffix('\n').and_then(|ack| ack.split_once(' '))
        {
            acknowledged.insert(position.parse().unwrap(), token.parse().unwrap());
            if acknowledged.len() == enough {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= enough, "the writer ended by itself");
    acknowledged
}

/// What is in a log that is dense, and whole.
async fn whole(folder: &Path) -> Result<Vec<u64>, String> {
    let store = match RocksStore::open(folder, RocksOptions::default()) {
        Ok(store) => Arc::new(store),
        Err(error @ (OpenError::RolledBack { .. } | OpenError::Corrupt { .. })) => {
            return Err(error.to_string());
        }
        Err(error) => panic!("{error}"),
    };
    let opened: Arc<dyn Store> = Arc::clone(&store) as _;
    let mut tokens = Vec::new();
    match verify(&opened, LogName::Control).await {
        Err(LogError::Absent { .. }) => {}
        verified => {
            let verified = verified.unwrap();
            assert!(verified.ok, "{verified:?}");
            while (tokens.len() as u64) < verified.events {
                let after = Position(tokens.len() as u64);
                let events = read_stored(&opened, LogName::Control, after, 5000).await.unwrap();
                for event in events {
                    assert_eq!(event.position.0, tokens.len() as u64 + 1, "positions are dense");
                    tokens.push(event.decode::<Event>().unwrap().token());
                }
            }
        }
    }
    store.close().await;
    Ok(tokens)
}

fn missing(tokens: &[u64], acknowledged: &BTreeMap<u64, u64>) -> Option<(u64, u64)> {
    let is_there = |position: u64| tokens.get(usize::try_from(position).unwrap() - 1).copied();
    let missing = acknowledged.iter().find(|(position, token)| is_there(**position) != Some(**token));
    missing.map(|(position, token)| (*position, *token))
}

/// C61, and more: not only the process is gone, but all that it had not synced.
#[tokio::test(flavor = "multi_thread")]
async fn c61_what_was_acknowledged_had_been_synced() {
    let cycles = 5 * u64::from(underpass_tests::torture());
    let mut disk = Disk::new();
    let mut random = Seeded::new(61);
    let mut acknowledged = BTreeMap::new();
    let mut all = Taken::default();
    for cycle in 0..cycles {
        // One in four loses its power while it starts.
        let enough = if random.below(4) == 0 { 0 } else { 1 + usize::try_from(random.below(400)).unwrap() };
        acknowledged.extend(killed(&mut disk, cycle, enough, None));
        let taken = disk.lose_power();
        all.bytes += taken.bytes;
        all.gone += taken.gone;
        all.back += taken.back;
        let tokens = whole(&disk.folder()).await.unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
        let lost = missing(&tokens, &acknowledged);
        assert_eq!(lost, None, "cycle {cycle}: acknowledged, and not there: {} are, {taken:?}", tokens.len());
    }
    println!(
        "{cycles} cycles, {} appends acknowledged, all there; lost otherwise: {all:?}",
        acknowledged.len()
    );
    assert!(acknowledged.len() as u64 > 20 * cycles && all.bytes > 0, "{all:?}");
}

/// The same with syncs that do nothing: those of RocksDB's log, or all. If this lost nothing, the test above would
/// show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_syncs_are_swallowed_loses_what_was_acknowledged() {
    for cycle in 0..u64::from(underpass_tests::torture()) {
        for swallowed in [".log", ""] {
            let mut disk = Disk::new();
            let acknowledged = killed(&mut disk, cycle, 100, Some(swallowed));
            let taken = disk.lose_power();
            assert!(taken.bytes + taken.gone > 0, "{swallowed}: {taken:?}");
            match whole(&disk.folder()).await {
                Ok(tokens) => assert!(missing(&tokens, &acknowledged).is_some(), "{swallowed}: {taken:?}"),
                // The store has noticed by itself, which is as well.
                Err(why) => println!("{swallowed}: {why}"),
            }
        }
    }
}
