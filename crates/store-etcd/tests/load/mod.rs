//! Writers that append to one head, as logs do, a watcher, and a look at what came of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use underpass_store::{
    BoxError, CasStore, Change, Commit, Guard, Key, KvStore, Outcome, Retry, Revision, StoreError,
    WatchableStore,
};
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdCluster;

const PREFIX: &str = "load";
const WRITERS: usize = 4;
/// More than any outage of these tests takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a writer knows to have happened: its names, by position.
type Acknowledged = Vec<(u64, String)>;

/// A running load.
pub struct Load {
    cluster: Arc<EtcdCluster>,
    stop: CancellationToken,
    written: Arc<AtomicU64>,
    writers: JoinSet<Result<(Acknowledged, Duration), BoxError>>,
    watcher: JoinSet<Result<Watched, BoxError>>,
}

/// What a watcher was told.
#[derive(Default)]
struct Watched {
    told: Vec<Revision>,
    /// After these it had to begin anew, from a revision that it read.
    gaps: Vec<(Revision, Revision)>,
}

impl Load {
    /// Writers and a watcher, each with a store of its own as nodes have.
    pub async fn start(cluster: &Arc<EtcdCluster>) -> Self {
        let (stop, written) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let watching = open(cluster).await;
        let after = watching.revision().await.unwrap();
        let mut watcher = JoinSet::new();
        watcher.spawn(watch(watching, after, stop.clone()));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = open(cluster).await;
            writers.spawn(write(store, writer, stop.clone(), Arc::clone(&written)));
        }
        Self { cluster: Arc::clone(cluster), stop, written, writers, watcher }
    }

    /// Waits until the writers have got on.
    pub async fn progress(&self) {
        let enough = self.written.load(Ordering::Relaxed) + 50;
        let moved = async {
            while self.written.load(Ordering::Relaxed) < enough {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, moved).await.expect("the writers don't get on");
    }

    /// Ends the load and compares what was acknowledged and told with what is there.
    pub async fn check(mut self, what: &str) {
        self.stop.cancel();
        let mut acknowledged = HashMap::new();
        let mut longest = Duration::ZERO;
        while let Some(writer) = self.writers.join_next().await {
            let (mine, pause) = writer.unwrap().unwrap();
            longest = longest.max(pause);
            for (position, name) in mine {
                assert_eq!(acknowledged.insert(position, name), None, "position {position} was given twice");
            }
        }
        let watched = self.watcher.join_next().await.unwrap().unwrap().unwrap();
        let store = open(&self.cluster).await;
        let prefix = Key::from("e/");
        let entries = store.scan(&prefix, &prefix.prefix_end(), usize::MAX).await.unwrap();

        // Dense, in the order of revisions, each name once, everything acknowledged there.
        let mut names = HashMap::new();
        let mut last = Revision(0);
        for (number, entry) in (1_u64..).zip(&entries) {
            assert_eq!(entry.key, position(number));
            assert!(entry.revision > last, "the order is broken at {number}");
            last = entry.revision;
            let name = String::from_utf8(entry.value.to_vec()).unwrap();
            if let Some(known) = acknowledged.remove(&number) {
                assert_eq!(name, known, "what was acknowledged at {number} was lost");
            }
            assert_eq!(names.insert(name.clone(), number), None, "{name} happened twice");
        }
        assert!(acknowledged.is_empty(), "acknowledged and not there: {acknowledged:?}");

        // Told once each, in order; what is missing lies in the gaps that the watcher knew of.
        assert!(watched.told.is_sorted_by(|one, next| one < next), "told out of order or twice");
        let told: std::collections::HashSet<_> = watched.told.iter().collect();
        let end = watched.told.last().copied().unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.revision <= end) {
            let known = watched.gaps.iter().any(|(from, to)| *from < entry.revision && entry.revision <= *to);
            assert!(told.contains(&entry.revision) || known, "{} was not told", entry.revision);
        }
        eprintln!(
            "{what}: {} appends, the longest wait of a writer {longest:?}, {} gaps in the watch",
            entries.len(),
            watched.gaps.len()
        );
    }
}

async fn open(cluster: &EtcdCluster) -> EtcdStore {
    let mut options = cluster.options(PREFIX);
    options.request_timeout = Duration::from_secs(2);
    options.connect_timeout = Duration::from_secs(1);
    EtcdStore::open(options).await.unwrap()
}

fn position(number: u64) -> Key {
    Key::from(format!("e/{number:08}"))
}

async fn write(
    store: EtcdStore,
    writer: usize,
    stop: CancellationToken,
    written: Arc<AtomicU64>,
) -> Result<(Acknowledged, Duration), BoxError> {
    let mut acknowledged = Vec::new();
    let mut longest = Duration::ZERO;
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let start = Instant::now();
        let name = format!("{writer}/{number}");
        let position = append(&store, &name).await?;
        longest = longest.max(start.elapsed());
        acknowledged.push((position, name));
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok((acknowledged, longest))
}

/// Appends `name` once, and gives its position.
async fn append(store: &EtcdStore, name: &str) -> Result<u64, BoxError> {
    let head = Key::from("head");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let current = patiently(deadline, || store.get(&head)).await?;
        let (last, guard) = match current {
            None => (0, Guard::Absent),
            Some(entry) => (u64::from_be_bytes(entry.value[..].try_into()?), Guard::At(entry.revision)),
        };
        let at = last + 1;
        let place = position(at);
        let commit = Commit::new()
            .guard(&head, guard)
            .guard(&place, Guard::Absent)
            .put(&head, at.to_be_bytes().to_vec())
            .put(&place, name.to_owned());
        // The identical commit until it is known what became of it.
        match patiently(deadline, || store.commit(commit.clone())).await? {
            Outcome::Committed(_) => return Ok(at),
            Outcome::Conflict(_) => {
                let there = patiently(deadline, || store.get(&place)).await?;
                if there.is_some_and(|entry| entry.value == name) {
                    return Ok(at);
                }
            }
        }
    }
}

async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    deadline: Instant,
    call: impl Fn() -> F,
) -> Result<T, StoreError> {
    loop {
        match call().await {
            Err(error) if error.retry() == Retry::Same && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            known => return known,
        }
    }
}

async fn watch(store: EtcdStore, after: Revision, stop: CancellationToken) -> Result<Watched, BoxError> {
    let prefix = Key::from("e/");
    let deadline = Instant::now() + PATIENCE * 5;
    let mut watched = Watched::default();
    let mut last = after;
    'anew: loop {
        let mut watch = patiently(deadline, || store.watch(prefix.clone(), last)).await?;
        loop {
            let batch = tokio::select! {
                batch = watch.next() => batch,
                () = stop.cancelled() => return Ok(watched),
            };
            match batch {
                Ok(batch) => {
                    assert!(
                        matches!(&batch.changes[..], [Change::Put(_)]),
                        "one append, one change: {batch:?}"
                    );
                    last = batch.revision;
                    watched.told.push(last);
                }
                Err(StoreError::Compacted { .. }) => {
                    let now = patiently(deadline, || store.revision()).await?;
                    watched.gaps.push((last, now));
                    last = now;
                    continue 'anew;
                }
                Err(_) => continue 'anew,
            }
        }
    }
}
