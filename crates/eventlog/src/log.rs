//! An open log.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Aggregate, Clock, LogId, Meta, Position, Random, Timestamp, codec};
use underpass_store::{Retry, Revision, Store};
use underpass_tasks::Tasks;

use crate::answered::{REMEMBERED_FOR, REMEMBERED_POSITIONS};
use crate::appender::{self, Appender, Courtesy};
use crate::batch::{self, Committed, Request};
use crate::checkpoint::Checkpoint;
use crate::commit::{self, Sent};
use crate::error::{ExecuteError, LogError, OpenError, shared_error};
use crate::follower::Follower;
use crate::frame::CommitId;
use crate::head::Head;
use crate::options::{self, Fence, LogOptions};
use crate::reader::Reader;
use crate::record::Content;
use crate::recorded::{self, Recorded};
use crate::replay::{self, AsOf, Resident, View};
use crate::shared::Shared;
use crate::snapshotter::Snapshotting;
use crate::verify::{self, Verified};

/// How often a start begins anew because another node has begun the log at the same moment, or because
/// the store did not answer.
const OPEN_ATTEMPTS_MAX: u32 = 5;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// A log that is open for reading and appending. Clones are the same log.
///
/// Several logs may be open on one store, on several nodes: each append is guarded by the head, so they
/// take turns, and each follows what the others write.
#[derive(Debug)]
pub struct Log<A: Aggregate> {
    shared: Arc<Shared<A>>,
}

impl<A: Aggregate> Clone for Log<A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<A: Aggregate> Log<A> {
    /// Opens the log in `store`, or begins it where there is none. Its tasks are essential ones of
    /// `tasks`; they stop with it.
    pub async fn open(
        store: Arc<dyn Store>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        tasks: &Tasks,
    ) -> Result<Self, OpenError> {
        let reader = Reader::new(Arc::clone(&store), A::LOG);
        let (resident, revision) = bring_up(&reader, &options, &*clock, &*random).await?;
        let Resident { fold, answered, snapshot } = resident;
        let (snapshots, storing) =
            Snapshotting::new(store, Arc::clone(&random), options.snapshot_every, snapshot);
        let (queue, requests) = mpsc::channel(options.queue_max.max(1));
        let shared = Arc::new(Shared {
            frame_bytes_max: options::frame_bytes_max(&reader.store.limits()),
            reader,
            clock,
            random,
            queue,
            view: ArcSwap::from_pointee(View::of(&fold)),
            changes: watch::Sender::new(fold.chain.position),
            fence: ArcSwapOption::from(options.fence.clone().map(Arc::new)),
            options,
            revision: AtomicU64::new(revision.0),
            look: Notify::new(),
            closing: CancellationToken::new(),
            finished: CancellationToken::new(),
        });
        let courtesy = Courtesy::default();
        let appender =
            Appender { shared: Arc::clone(&shared), fold, answered, revision, snapshots, courtesy };
        tasks.spawn_essential("log appender", |stop| appender.run(requests, stop));
        tasks.spawn_essential("log watch", |stop| appender::watch(Arc::clone(&shared), stop));
        tasks.spawn_essential("log snapshots", |stop| storing.run(stop));
        Ok(Self { shared })
    }

    /// Has `command` decided at the head of the log, and carried out. When this returns, what happened is
    /// as durable as the store makes it, and in [`view`](Self::view).
    ///
    /// The same command with the same id, from the same actor, within a day (and
    /// [`REMEMBERED_POSITIONS`] positions) gets the first answer; refusals, and commands that changed
    /// nothing, are decided again. Where the command holds something drawn for it (a new id, the hash of a
    /// new secret), a repeat would differ: use [`execute_as`](Self::execute_as).
    ///
    /// Dropping the future withdraws the command, unless it is being written already.
    pub async fn execute(
        &self,
        meta: Meta,
        command: A::Command,
    ) -> Result<Committed<A::Event>, ExecuteError<A::Refusal>> {
        let content = content_of(&command)?;
        self.enqueue(meta, command, content).await
    }

    /// Like [`execute`](Self::execute), where repeats are told by `asked` and not by the command: what the
    /// caller asked for, without ids and secrets that were drawn afterwards.
    pub async fn execute_as(
        &self,
        meta: Meta,
        asked: &(impl Serialize + Sync),
        command: A::Command,
    ) -> Result<Committed<A::Event>, ExecuteError<A::Refusal>> {
        let content = content_of(asked)?;
        self.enqueue(meta, command, content).await
    }

    async fn enqueue(
        &self,
        meta: Meta,
        command: A::Command,
        content: Content,
    ) -> Result<Committed<A::Event>, ExecuteError<A::Refusal>> {
        let (answer, answered) = oneshot::channel();
        match self.shared.queue.try_send(Request { meta, command, content, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(ExecuteError::Closed)),
            Err(TrySendError::Full(_)) => Err(ExecuteError::Busy),
            Err(TrySendError::Closed(_)) => Err(ExecuteError::Closed),
        }
    }

    /// The read model as it is, without a lock. Its `at` is when the last event was recorded.
    pub fn view(&self) -> Arc<View<A>> {
        self.shared.view.load_full()
    }

    /// The log's id.
    pub fn id(&self) -> Option<LogId> {
        self.shared.view.load().state.log_id()
    }

    /// Tells when the read model has moved, and where to. Values in between may be skipped.
    pub fn changes(&self) -> watch::Receiver<Position> {
        self.shared.changes.subscribe()
    }

    /// Waits until the read model holds `position`; false if it does not within `deadline`.
    pub async fn wait_for(&self, position: Position, deadline: Duration) -> bool {
        let mut changes = self.changes();
        let reached = changes.wait_for(|now| *now >= position);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// Events after `after`, at most `limit` and [`READ_EVENTS_MAX`](crate::READ_EVENTS_MAX), as far as
    /// the read model has got. Fewer than asked for means that there are no more yet.
    pub async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, LogError> {
        let head = *self.shared.changes.borrow();
        recorded::read(&self.shared.reader, after, limit, head).await
    }

    /// All events of the command that made the event at `position`, in their order. `None`: the log ends
    /// before it.
    pub async fn command_at(&self, position: Position) -> Result<Option<Vec<Recorded>>, LogError> {
        recorded::command_at(&self.shared.reader, position).await
    }

    /// Every event after `after`, once and in order, and those to come.
    pub fn follow(&self, after: Position) -> Follower {
        Follower::new(self.shared.reader.clone(), self.changes(), after)
    }

    /// The read model as it was.
    pub async fn as_of(&self, at: AsOf) -> Result<View<A>, LogError> {
        replay::as_of(&self.shared.reader, at).await
    }

    /// Checks the log from its beginning to its present end.
    pub async fn verify(&self) -> Result<Verified, LogError> {
        verify::verify(&self.shared.reader.store, A::LOG).await
    }

    /// Where the log ends now, to be signed and kept elsewhere. `at`: the time now.
    pub fn checkpoint(&self, at: Timestamp) -> Option<Checkpoint> {
        let view = self.view();
        let log_id = view.state.log_id()?;
        let View { position, epoch, hash, .. } = *view;
        Some(Checkpoint { log: A::LOG, log_id, epoch, position, hash, at })
    }

    /// From now on appends are guarded by `fence` as well: after a new lease, the new entry.
    pub fn set_fence(&self, fence: Option<Fence>) {
        self.shared.fence.store(fence.map(Arc::new));
    }

    /// Takes no more commands, carries out and answers those that wait, and stores a snapshot. Reading
    /// goes on to work. Harmless when repeated.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.finished.cancelled().await;
    }
}

fn content_of<R>(asked: &impl Serialize) -> Result<Content, ExecuteError<R>> {
    let encoded =
        codec::encode(asked).map_err(|error| ExecuteError::Invalid { source: shared_error(error) })?;
    let mut content = Content::default();
    content.copy_from_slice(&blake3::hash(&encoded).as_bytes()[..16]);
    Ok(content)
}

/// Reads the log into memory, or begins it. A store that does not answer is asked again, within bounds.
async fn bring_up<A: Aggregate>(
    reader: &Reader,
    options: &LogOptions,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(Resident<A>, Revision), OpenError> {
    let mut attempt = 1;
    loop {
        let error = match try_bring_up(reader, options, clock, random).await {
            Ok(Some(up)) => return Ok(up),
            Ok(None) => OpenError::Contended { log: A::LOG },
            Err(OpenError::Unavailable { log, source }) if source.retry() == Retry::Same => {
                OpenError::Unavailable { log, source }
            }
            Err(error) => return Err(error),
        };
        if attempt == OPEN_ATTEMPTS_MAX {
            return Err(error);
        }
        tracing::debug!(log = %A::LOG, attempt, %error, "the log is opened again");
        tokio::time::sleep(OPEN_PAUSE * attempt).await;
        attempt += 1;
    }
}

/// `None`: somebody else has begun the log; look again.
async fn try_bring_up<A: Aggregate>(
    reader: &Reader,
    options: &LogOptions,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Option<(Resident<A>, Revision)>, OpenError> {
    reader.refuse_half_copied().await?;
    let Some((head, revision)) = reader.head().await? else {
        if reader.any_frame().await? {
            reader.refuse_half_repaired().await?;
            // The first frames of a copy may have come between the looks.
            reader.refuse_half_copied().await?;
            if reader.head().await?.is_some() {
                return Ok(None);
            }
            return Err(LogError::corrupt(A::LOG, Position(0), "there are frames, but no head").into());
        }
        begin::<A>(reader, options, clock, random).await?;
        return Ok(None);
    };
    let remembered_from = remembered_from(reader, &head, clock).await?;
    let resident = replay::load(reader, head.position, head.hash, remembered_from).await?;
    Ok(Some((resident, revision)))
}

/// The position after which commands may still be remembered.
async fn remembered_from(reader: &Reader, head: &Head, clock: &dyn Clock) -> Result<Position, LogError> {
    let far = Position(head.position.0.saturating_sub(REMEMBERED_POSITIONS));
    let old = reader.position_at(clock.now().minus(REMEMBERED_FOR), head).await?;
    Ok(far.max(old))
}

async fn begin<A: Aggregate>(
    reader: &Reader,
    options: &LogOptions,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), OpenError> {
    let log = A::LOG;
    let drawn = |source| OpenError::Random { log, source };
    let id = LogId(random.array().map_err(drawn)?);
    let commit = CommitId(random.array().map_err(drawn)?);
    let (frame, head) = batch::genesis::<A>(&A::genesis(id), options.node, commit, clock.now())
        .map_err(|source| OpenError::Invalid { log, source })?;
    let fence = options.fence.as_ref();
    let commit = commit::append(log, frame, &head, None, fence);
    let fence_key = fence.map(|fence| &fence.key);
    match commit::send(&*reader.store, log, head.first, commit, fence_key).await {
        Sent::Committed(_) | Sent::Moved { .. } => Ok(()),
        Sent::Fenced | Sent::Occupied => Err(OpenError::Contended { log }),
        Sent::Failed(source) | Sent::Unknown(source) => Err(OpenError::Unavailable { log, source }),
    }
}
