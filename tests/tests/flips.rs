//! Single bits flipped in the files of a log: refused, named, or harmless; never a silent wrong or short read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "others ask for more")]
#[path = "linear/tokens.rs"]
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokens::{Do, Event, Tokens};
use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{Actor, Clock, CommandId, LogName, Meta, NodeId, Position};
use underpass_eventlog::{Log, LogOptions, Verified, read_stored, verify};
use underpass_store::Store;
use underpass_store::testkit::Seeded;
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tasks::Tasks;

/// Flips. `TORTURE=10` makes 1000 of them.
const FLIPS: u64 = 100;
const SEED: u64 = 2611;
/// Events written between two starts.
const PARTS: [u64; 3] = [150, 60, 90];

async fn open_log(store: &Arc<RocksStore>, seed: u64) -> Option<(Log<Tokens>, Tasks)> {
    let tasks = Tasks::new("log", CancellationToken::new());
    let mut options = LogOptions::new(NodeId::from_bytes([1; 16]));
    options.snapshot_every = 70;
    let (clock, random) = (Arc::new(ManualClock::default()), Arc::new(SeededRandom::new(seed)));
    let log = Log::open(Arc::clone(store) as _, options, clock, random, &tasks).await.ok()?;
    Some((log, tasks))
}

async fn append(log: &Log<Tokens>, token: u64) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&token.to_be_bytes());
    let now = ManualClock::default().now();
    let meta = Meta {
        id: CommandId(id),
        actor: Actor::Operator,
        source: None,
        correlation: None,
        causation: None,
        now,
    };
    log.execute(meta, Do::Append { token }).await.unwrap();
}

/// A closed folder with a log, some of it in RocksDB's tables, the rest in its write-ahead log; with snapshots.
async fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut token = 0;
    for (part, events) in (1..).zip(PARTS) {
        let store = Arc::new(RocksStore::open(folder.path(), RocksOptions::default()).unwrap());
        let (log, tasks) = open_log(&store, part).await.unwrap();
        for _ in 0..events {
            token += 1;
            append(&log, token).await;
        }
        // Once with a last snapshot, otherwise without one.
        if part == 2 {
            log.close().await;
        }
        let _ = tasks.drain(Duration::from_secs(30)).await;
        drop(log);
        store.close().await;
    }
    folder
}

/// What a folder says of its log.
#[derive(Debug, PartialEq)]
struct Read {
    verified: Verified,
    tokens: Vec<u64>,
    state: Tokens,
    position: Position,
}

/// Reads all there is, in every way there is, after a bit was flipped.
#[derive(Debug)]
enum Outcome {
    /// Somebody said that something is wrong: the store when it was opened, a read, or verify, with a position.
    Noticed(&'static str),
    All(Box<Read>),
}

async fn read(folder: &Path, end: u64) -> Outcome {
    let Ok(store) = RocksStore::open(folder, RocksOptions::default()) else {
        return Outcome::Noticed("the store is not opened");
    };
    let store = Arc::new(store);
    let outcome = read_open(&store, end).await;
    store.close().await;
    outcome
}

async fn read_open(store: &Arc<RocksStore>, end: u64) -> Outcome {
    let opened: Arc<dyn Store> = Arc::clone(store) as _;
    let verified = verify(&opened, LogName::Control).await;
    // Also where verify has complained: whoever reads without it must not get anything else.
    let Ok(events) = read_stored(&opened, LogName::Control, Position(0), 10_000).await else {
        return match verified {
            Ok(verified) if verified.ok => Outcome::Noticed("a read fails"),
            Ok(verified) => named(&verified, end),
            Err(_) => Outcome::Noticed("verify fails"),
        };
    };
    let tokens: Vec<u64> = events.iter().map(|event| event.decode::<Event>().unwrap().token()).collect();
    assert_eq!(tokens, (0..end).collect::<Vec<_>>(), "read without an error");
    let verified = match verified {
        Ok(verified) if verified.ok => verified,
        Ok(verified) => return named(&verified, end),
        Err(_) => return Outcome::Noticed("verify fails"),
    };
    let Some((log, tasks)) = open_log(store, 9).await else {
        return Outcome::Noticed("the log is not opened");
    };
    let view = log.view();
    let read = Read { verified, tokens, state: view.state.clone(), position: view.position };
    let _ = tasks.drain(Duration::from_secs(30)).await;
    Outcome::All(Box::new(read))
}

fn named(verified: &Verified, end: u64) -> Outcome {
    let (position, why) = verified.bad.as_ref().expect("what is bad has a position");
    assert!(position.0 <= end + 1 && !why.is_empty(), "{verified:?}");
    Outcome::Noticed("verify names a position")
}

/// The files with something in them, without RocksDB's own log for people.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), all);
        } else if entry.metadata().unwrap().len() > 0
            && !entry.file_name().to_string_lossy().starts_with("LOG")
        {
            all.push(entry.path());
        }
    }
    all.sort();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_a_silent_wrong_read() {
    let original = written().await;
    let end = PARTS.iter().sum::<u64>() + 1;
    let place = tempfile::tempdir().unwrap();
    let good = place.path().join("good");
    copy(original.path(), &good);
    let Outcome::All(good) = read(&good, end).await else { panic!("nothing was flipped yet") };
    assert_eq!((good.verified.events, good.position), (end, Position(end)));

    let mut all = Vec::new();
    files(original.path(), &mut all);
    let is_data = |file: &&PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST")
    };
    let data: Vec<PathBuf> = all.iter().filter(is_data).cloned().collect();
    assert!(data.len() >= 4, "tables, a log and a manifest: {data:?}");
    let flips = FLIPS * u64::from(underpass_tests::torture());
    let mut outcomes = std::collections::BTreeMap::<_, u64>::new();
    for flip in 0..flips {
        // One seed for each, so that one can be run again by itself.
        let mut random = Seeded::new(SEED + flip);
        // Mostly where data is: the small texts beside it are refused or ignored as a whole.
        let some = if random.below(4) == 0 { &all } else { &data };
        let file = &some[usize::try_from(random.below(some.len() as u64)).unwrap()];
        let mut bytes = fs::read(file).unwrap();
        let bit = random.below(bytes.len() as u64 * 8);
        bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        let name = file.strip_prefix(original.path()).unwrap();
        println!("seed {}: bit {bit} of {}", SEED + flip, name.display());
        let copied = place.path().join(format!("flip-{flip}"));
        copy(original.path(), &copied);
        fs::write(copied.join(name), bytes).unwrap();

        let outcome = match read(&copied, end).await {
            Outcome::Noticed(how) => how,
            Outcome::All(read) => {
                assert_eq!(read, good, "seed {}", SEED + flip);
                "harmless"
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
        fs::remove_dir_all(&copied).unwrap();
    }
    println!("{flips} flips in {} files: {outcomes:?}", all.len());
    assert!(outcomes.get("harmless").copied().unwrap_or(0) < flips / 2, "{outcomes:?}");
}
