//! The way to the writer: what callers ask of it, and the bounded queue in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use underpass_store::{Commit, Key, LeaseId, Renewal, Revision, StoreError};

use crate::backup::BackupError;

/// Requests that may wait for the writer. More than a group takes, so that the next group fills while one
/// is being synced; beyond it callers wait outside.
pub(crate) const QUEUE_MAX: usize = 2048;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer can do.
#[derive(Debug)]
pub(crate) enum Request {
    Write {
        op: &'static str,
        commit: Commit,
        reply: Reply<Written>,
    },
    Grant {
        ttl: Duration,
        reply: Reply<LeaseId>,
    },
    Renew {
        lease: LeaseId,
        reply: Reply<Renewal>,
    },
    Revoke {
        lease: LeaseId,
        reply: Reply<()>,
    },
    /// Copies the store, as it is after what came before, into a new folder.
    Backup {
        to: PathBuf,
        reply: oneshot::Sender<Result<Revision, BackupError>>,
    },
    /// Finishes what came before and releases the folder.
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// The store stands at this revision now, because of this write if it has `changed` anything.
    Done { revision: Revision, changed: bool },
    /// These guards failed.
    Conflict(Vec<(Key, Option<Revision>)>),
}

/// A request with its place in the queue, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) request: Request,
    _place: OwnedSemaphorePermit,
}

/// The sending end. The channel has as many places as the semaphore has permits, so who holds a permit
/// never blocks on the channel.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Queued>,
    places: Arc<Semaphore>,
}

impl Queue {
    pub(crate) fn new() -> (Self, Receiver<Queued>) {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        (Self { sender, places: Arc::new(Semaphore::new(QUEUE_MAX)) }, receiver)
    }

    /// Requests in the queue.
    pub(crate) fn waiting(&self) -> usize {
        QUEUE_MAX - self.places.available_permits()
    }

    /// Puts a request into the queue, waiting for a place if need be. Once this has returned, the writer
    /// does it, whether anybody waits for the answer or not.
    pub(crate) async fn send(&self, op: &'static str, request: Request) -> Result<(), StoreError> {
        let closed = || StoreError::unavailable(op, "the store is closed");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        self.sender.try_send(Queued { request, _place: place }).map_err(|_| closed())
    }
}
