//! Snapshots beside the work: a task of their own stores them, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use underpass_domain::{Aggregate, Position, Random};
use underpass_store::Store;

use crate::fold::Fold;
use crate::snapshot;

/// A second snapshot is not started while one is being stored.
const WAITING_MAX: usize = 1;

/// Knows when the next snapshot is due.
#[derive(Debug)]
pub(crate) struct Snapshotting<A: Aggregate> {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    every: u64,
    last: Position,
    bytes: u64,
    /// Bytes of the last stored snapshot.
    size: Arc<AtomicU64>,
    queue: mpsc::Sender<Fold<A>>,
}

impl<A: Aggregate> Snapshotting<A> {
    /// `last` is the position of the newest snapshot. The other half stores them.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        random: Arc<dyn Random>,
        every: u64,
        last: Position,
    ) -> (Self, Storing<A>) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let size = Arc::new(AtomicU64::new(0));
        let storing = Storing {
            store: Arc::clone(&store),
            random: Arc::clone(&random),
            size: Arc::clone(&size),
            waiting,
        };
        (Self { store, random, every: every.max(1), last, bytes: 0, size, queue }, storing)
    }

    /// A frame of so many bytes was added; stores a snapshot if one is due: after enough events, and not
    /// before the log has grown by as much as a snapshot takes, so that snapshots never make up more than
    /// half of what is written.
    pub(crate) fn appended(&mut self, fold: &Fold<A>, bytes: usize) {
        self.bytes += bytes as u64;
        let events = fold.chain.position.0 - self.last.0;
        if events < self.every || self.bytes < self.size.load(Ordering::Relaxed) {
            return;
        }
        // Full: one is being stored and one waits. The next frame asks again.
        if let Ok(place) = self.queue.try_reserve() {
            place.send(fold.clone());
            self.last = fold.chain.position;
            self.bytes = 0;
        }
    }

    /// The snapshot of a clean stop, so that the next start has nothing to replay.
    pub(crate) async fn last(&mut self, fold: &Fold<A>) {
        if fold.chain.position == self.last {
            return;
        }
        self.last = fold.chain.position;
        take(&self.store, &*self.random, fold.clone(), &self.size).await;
    }
}

/// Stores snapshots.
#[derive(Debug)]
pub(crate) struct Storing<A: Aggregate> {
    store: Arc<dyn Store>,
    random: Arc<dyn Random>,
    size: Arc<AtomicU64>,
    waiting: mpsc::Receiver<Fold<A>>,
}

impl<A: Aggregate> Storing<A> {
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        loop {
            let waiting = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                waiting = self.waiting.recv() => waiting,
            };
            let Some(fold) = waiting else {
                // The appender has stopped. To end before being told to would count as a failure.
                stop.cancelled().await;
                return Ok(());
            };
            take(&self.store, &*self.random, fold, &self.size).await;
        }
    }
}

/// A snapshot that can't be stored costs the next start some time and nothing else.
async fn take<A: Aggregate>(store: &Arc<dyn Store>, random: &dyn Random, fold: Fold<A>, size: &AtomicU64) {
    let position = fold.chain.position.0;
    let id = match random.array() {
        Ok(id) => id,
        Err(error) => {
            tracing::warn!(log = %A::LOG, position, %error, "no snapshot");
            return;
        }
    };
    match snapshot::store(store, fold, id).await {
        Ok(bytes) => {
            size.store(bytes, Ordering::Relaxed);
            tracing::debug!(log = %A::LOG, position, bytes, "snapshot stored");
        }
        Err(error) => tracing::warn!(log = %A::LOG, position, %error, "no snapshot"),
    }
}
