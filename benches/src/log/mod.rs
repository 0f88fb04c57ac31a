//! What the programs share that measure the log: what is written, into which stores, and what was found.

mod append;
mod figures;
mod story;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use underpass_domain::testing::SeededRandom;
use underpass_domain::{Aggregate, Clock, NodeId, Timestamp};
use underpass_eventlog::{Log, LogOptions};
use underpass_store::Store;
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tasks::Tasks;

pub use append::{Frames, RawEtcd, RawRocks, append, frames, sync_times};
pub use figures::{Figure, Figures, Goal};
pub use story::{Activity, Control, Story};

/// Any failure: a program that measures stops at the first.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A log is told to stop; what waits is answered in well under this.
const DRAIN: Duration = Duration::from_secs(30);

/// The wall clock.
#[derive(Debug)]
struct Wall;

impl Clock for Wall {
    #[expect(clippy::disallowed_methods, reason = "the log is given the wall clock, as a server gives it")]
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The time now.
pub fn now() -> Timestamp {
    Wall.now()
}

/// An open log and its tasks.
#[derive(Debug)]
pub struct Opened<A: Aggregate> {
    /// The log.
    pub log: Log<A>,
    tasks: Tasks,
}

impl<A: Aggregate> Opened<A> {
    /// Opens the log in `store`, or begins it. No snapshot is stored before the log is closed.
    pub async fn open(store: &Arc<dyn Store>) -> Result<Self, Failure> {
        let node = NodeId::from_bytes([0x6e; 16]);
        let options = LogOptions { snapshot_every: u64::MAX, ..LogOptions::new(node) };
        let tasks = Tasks::new("log", CancellationToken::new());
        // Commit ids must differ within one store only.
        let random = Arc::new(SeededRandom::new(now().0));
        let log = Log::open(Arc::clone(store), options, Arc::new(Wall), random, &tasks).await?;
        Ok(Self { log, tasks })
    }

    /// Stops the log with a snapshot, as a server that is told to stop does.
    pub async fn close(self) {
        self.log.close().await;
        self.stop().await;
    }

    /// Stops the log without a snapshot, as after a crash.
    pub async fn stop(self) {
        let _ = self.tasks.drain(DRAIN).await;
    }
}

/// A store in a folder, as a server opens it.
pub fn rocks(folder: &Path) -> Result<Arc<RocksStore>, Failure> {
    Ok(Arc::new(RocksStore::open(folder, RocksOptions::default())?))
}

/// Processor time that this process has used, all its threads together.
pub fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}
