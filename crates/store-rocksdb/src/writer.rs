//! The one thread that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::oneshot;
use tokio::time::Instant;
use underpass_store::{BoxError, LeaseId, Leases, Limits, Renewal, Revision, StoreError};

use crate::backup::{self, BackupError};
use crate::folder::Folder;
use crate::head::HeadMark;
use crate::queue::{Queued, Reply, Request, Written};
use crate::reopen::Failure;
use crate::stage::{Stage, Staged};
use crate::store::Shared;

/// Requests in a group: what 1000 waiting callers share one sync for.
const GROUP_REQUESTS_MAX: usize = 1024;

/// A group that has reached this many bytes takes no more requests: it bounds the memory of a group and
/// the wait of its first request.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Makes a batch durable. Not called again on a database on which it has failed.
pub(crate) type Durable = Box<dyn FnMut(&DB, WriteBatch) -> Result<(), BoxError> + Send>;

/// RocksDB's way: into the log, sync, then visible.
pub(crate) fn synced() -> Durable {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    Box::new(move |db, batch| Ok(db.write_opt(batch, &options)?))
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Receiver<Queued>,
    pub(crate) folder: Folder,
    pub(crate) leases: Leases,
    pub(crate) revision: Revision,
    pub(crate) last_lease: i64,
    pub(crate) head: HeadMark,
    pub(crate) durable: Durable,
    /// Why nothing is written at the moment.
    pub(crate) failed: Option<Failure>,
}

/// An answer that waits for the group to be on disk.
enum Answer {
    Write { op: &'static str, reply: Reply<Written>, written: Written },
    Grant { reply: Reply<LeaseId>, lease: LeaseId },
    Renew { reply: Reply<Renewal>, lease: LeaseId },
    Revoke { reply: Reply<()> },
}

/// What woke the writer.
enum Woken {
    Request(Request),
    /// A lease, the head mark or an attempt to open the store anew is due.
    Due,
    /// There is nobody left who could ask.
    Abandoned,
}

impl Writer {
    /// Runs until the store is closed or dropped, then releases the folder.
    pub(crate) fn run(mut self) {
        let closing = loop {
            let closing = match self.wait() {
                Woken::Request(first) => self.group(Some(first)),
                Woken::Due => self.group(None),
                Woken::Abandoned => break None,
            };
            if closing.is_some() {
                break closing;
            }
            self.head.tick(self.revision, Instant::now());
        };
        self.release(closing);
    }

    fn wait(&self) -> Woken {
        let work = match &self.failed {
            Some(failure) => failure.retry_at,
            None => self.leases.next_deadline(),
        };
        let Some(deadline) = [work, self.head.due()].into_iter().flatten().min() else {
            return self.queue.recv().map_or(Woken::Abandoned, |queued| Woken::Request(queued.request));
        };
        match self.queue.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(queued) => Woken::Request(queued.request),
            Err(RecvTimeoutError::Timeout) => Woken::Due,
            Err(RecvTimeoutError::Disconnected) => Woken::Abandoned,
        }
    }

    /// Decides `first` and all that waits behind it, within the bounds of a group, writes it, answers.
    /// Gives the request to close, if that was among them.
    fn group(&mut self, first: Option<Request>) -> Option<oneshot::Sender<()>> {
        self.reopen_if_due(Instant::now());
        if let Some(failure) = &self.failed {
            return first.and_then(|request| refuse(request, &failure.reason));
        }
        let shared = Arc::clone(&self.shared);
        let open = shared.open();
        let db = open.as_ref()?;
        let limits = shared.limits;
        let mut stage = Stage::new(db, &mut self.leases, self.revision, self.last_lease);
        // Before the requests: a renewal that comes too late must find the lease gone.
        stage.end_due_leases(Instant::now());
        let mut answers = Vec::new();
        let (mut closing, mut backup) = (None, None);
        let mut next = first;
        while let Some(request) = next.take() {
            match request {
                Request::Close { reply } => {
                    closing = Some(reply);
                    break;
                }
                // What was decided before it must be in it: it ends the group, and is made after the write.
                Request::Backup { to, reply } => {
                    backup = Some((to, reply));
                    break;
                }
                _ => {}
            }
            answers.extend(decide(&mut stage, request, &limits));
            if answers.len() < GROUP_REQUESTS_MAX && stage.bytes() < GROUP_BYTES_MAX {
                next = self.queue.try_recv().ok().map(|queued| queued.request);
            }
        }
        let staged = stage.finish();
        self.write(db, staged, answers);
        if let Some((to, reply)) = backup {
            let made = match &self.failed {
                None => backup::make(db, self.revision, &to).map(|()| self.revision),
                Some(failure) => Err(BackupError::Store(failure.reason.clone())),
            };
            // Who asked may have stopped waiting.
            let _ = reply.send(made);
        }
        closing
    }

    fn write(&mut self, db: &DB, staged: Staged, answers: Vec<Answer>) {
        let Staged { batch, revision, last_lease, commits } = staged;
        let (bytes, empty, begun) = (batch.size_in_bytes(), batch.is_empty(), Instant::now());
        let result = if empty { Ok(()) } else { (self.durable)(db, batch) };
        if let Err(error) = result {
            let reason = format!("a write has failed, the store must be opened anew: {error}");
            tracing::error!(folder = %self.folder.path().display(), %error, "a write has failed");
            for answer in answers {
                answer.fail(&reason);
            }
            self.failed = Some(Failure::new(reason, Instant::now()));
            self.shared.counters.has_failed();
            return;
        }
        let now = Instant::now();
        if !empty {
            self.shared.counters.synced(commits.len(), bytes, now.saturating_duration_since(begun));
        }
        self.revision = revision;
        self.last_lease = last_lease;
        self.head.reached(revision, now);
        // Reads see the batch since it was written; only now may the revision say so.
        self.shared.revision.store(revision.0, Ordering::Release);
        for commit in commits {
            self.shared.history.push(commit);
        }
        for answer in answers {
            answer.give(&mut self.leases);
        }
    }

    fn release(mut self, closing: Option<oneshot::Sender<()>>) {
        if self.failed.is_none() {
            self.head.mark(self.revision, Instant::now());
        }
        self.shared.close();
        // The folder, and so the lock, goes after RocksDB.
        drop(self.folder);
        if let Some(reply) = closing {
            // Who asked may have stopped waiting.
            let _ = reply.send(());
        }
    }
}

/// Decides one request on top of its group. `None`: it is answered already, as it depends on no write.
fn decide(stage: &mut Stage<'_>, request: Request, limits: &Limits) -> Option<Answer> {
    match request {
        Request::Write { op, commit, reply } => match stage.commit(op, commit, limits) {
            Ok(written) => Some(Answer::Write { op, reply, written }),
            Err(error) => answer(reply, Err(error)),
        },
        Request::Grant { ttl, reply } => match stage.grant(ttl, Instant::now()) {
            Ok(lease) => Some(Answer::Grant { reply, lease }),
            Err(error) => answer(reply, Err(error)),
        },
        Request::Renew { lease, reply } => Some(Answer::Renew { reply, lease }),
        Request::Revoke { lease, reply } => {
            stage.end_lease(lease);
            Some(Answer::Revoke { reply })
        }
        Request::Backup { .. } | Request::Close { .. } => None,
    }
}

impl Answer {
    /// Answers a request whose group is on disk.
    fn give(self, leases: &mut Leases) {
        match self {
            Self::Write { reply, written, .. } => answer(reply, Ok(written)),
            Self::Grant { reply, lease } => {
                // The ttl counts from the answer, not from before the sync.
                let _ = leases.renew(lease, Instant::now());
                answer(reply, Ok(lease))
            }
            Self::Renew { reply, lease } => answer(reply, Ok(leases.renew(lease, Instant::now()))),
            Self::Revoke { reply } => answer(reply, Ok(())),
        };
    }

    /// Answers a request whose group has failed.
    fn fail(self, reason: &str) {
        match self {
            Self::Write { op, reply, written: Written::Done { changed: true, .. } } => {
                answer(reply, Err(StoreError::indeterminate(op, reason)))
            }
            // It wrote nothing, but what it was decided on is in doubt.
            Self::Write { op, reply, .. } => answer(reply, Err(StoreError::unavailable(op, reason))),
            Self::Grant { reply, .. } => answer(reply, Err(StoreError::indeterminate("grant", reason))),
            Self::Renew { reply, .. } => answer(reply, Err(StoreError::unavailable("renew", reason))),
            Self::Revoke { reply } => answer(reply, Err(StoreError::indeterminate("revoke", reason))),
        };
    }
}

/// Answers a request to a store that doesn't write at the moment. Gives back a request to close.
fn refuse(request: Request, reason: &str) -> Option<oneshot::Sender<()>> {
    match request {
        Request::Write { op, reply, .. } => answer(reply, Err(StoreError::unavailable(op, reason))),
        Request::Grant { reply, .. } => answer(reply, Err(StoreError::unavailable("grant", reason))),
        Request::Renew { reply, .. } => answer(reply, Err(StoreError::unavailable("renew", reason))),
        Request::Revoke { reply, .. } => answer(reply, Err(StoreError::unavailable("revoke", reason))),
        Request::Backup { reply, .. } => {
            let _ = reply.send(Err(BackupError::Store(reason.to_owned())));
            None
        }
        Request::Close { reply } => return Some(reply),
    };
    None
}

/// Sends an answer; who asked may have stopped waiting, which is no concern of the writer.
fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) -> Option<Answer> {
    let _ = reply.send(result);
    None
}
