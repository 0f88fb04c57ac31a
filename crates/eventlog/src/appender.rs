//! The one task of a log that writes, and that brings its read model up to date.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use underpass_domain::{Aggregate, LogName, Position};
use underpass_store::{Revision, StoreError};

use crate::answered::Answered;
use crate::batch::{Answered1, Batch, Committed, Request, Table, Verdict, Writing};
use crate::commit::{self, Sent};
use crate::error::{ExecuteError, LogError, shared_error};
use crate::fold::{AboutLog, Fold, about_log, positioned};
use crate::frame::{CommitId, Frame};
use crate::recorded;
use crate::replay::View;
use crate::shared::Shared;
use crate::snapshotter::Snapshotting;

/// How often in a row a batch is decided anew because another node was first. With [`Courtesy`] a node gets
/// through well before; more means that something is wrong.
const CONFLICTS_MAX: u32 = 32;
/// How often the head is read again when a commit says that it has moved and a read does not show it
/// yet.
const STALE_READS_MAX: u32 = 5;
const STALE_READ_PAUSE: Duration = Duration::from_millis(20);

/// What the appender holds: the state at the head.
#[derive(Debug)]
pub(crate) struct Appender<A: Aggregate> {
    pub(crate) shared: Arc<Shared<A>>,
    pub(crate) fold: Fold<A>,
    pub(crate) answered: Answered,
    pub(crate) revision: Revision,
    pub(crate) snapshots: Snapshotting<A>,
    pub(crate) courtesy: Courtesy,
}

/// What became of a batch.
enum Tried<A: Aggregate> {
    /// Its verdicts hold.
    Done(Vec<Verdict<A>>),
    /// The head has moved: decide again.
    Again,
    /// The same answer for all commands of it.
    Failed(usize, ExecuteError<A::Refusal>),
}

impl<A: Aggregate> Appender<A> {
    /// Runs until told to stop. An error means that the log can't be trusted or understood any more, and
    /// the node must not go on with it.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Request<A>>,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        // However this ends: nobody may wait for it in vain.
        let finished = shared.finished.clone().drop_guard();
        let batch_max = shared.options.batch_commands_max.max(1);
        let mut poll = tokio::time::interval(shared.options.poll_every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut requests = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = shared.closing.cancelled() => break,
                // Ahead of the queue: a busy node must hear of the others, too.
                () = shared.look.notified() => self.look().await?,
                _ = poll.tick() => self.look().await?,
                _ = queue.recv_many(&mut requests, batch_max) => {
                    self.execute(&mut requests).await?;
                }
            }
        }
        queue.close();
        while queue.recv_many(&mut requests, batch_max).await > 0 {
            self.execute(&mut requests).await?;
        }
        if shared.closing.is_cancelled() {
            self.snapshots.last(&self.fold).await;
            drop(finished);
            // To end before being told to would count as a failure.
            stop.cancelled().await;
        }
        Ok(())
    }

    /// Follows the log to its head; an unreachable store is met again soon enough.
    async fn look(&mut self) -> Result<(), LogError> {
        match self.follow(None).await {
            Ok(_) => Ok(()),
            Err(error @ LogError::Unavailable { .. }) => {
                tracing::debug!(log = %A::LOG, %error, "can't follow the log at the moment");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Decides, commits and answers all `requests`. An error is fatal to the log.
    async fn execute(&mut self, requests: &mut Vec<Request<A>>) -> Result<(), LogError> {
        let mut conflicts = 0;
        loop {
            // Whoever stopped waiting was told that nothing is known to have happened: let nothing happen.
            requests.retain(|request| !request.answer.is_closed());
            if requests.is_empty() {
                return Ok(());
            }
            if self.courtesy.wait().await {
                // Somebody may have used the pause: to see it now is cheaper than to lose.
                self.look().await?;
            }
            match self.attempt(requests).await? {
                Tried::Again if conflicts < CONFLICTS_MAX => conflicts += 1,
                Tried::Again => {
                    for request in requests.drain(..) {
                        let _ = request.answer.send(Err(ExecuteError::Contended));
                    }
                }
                Tried::Failed(count, error) => {
                    for request in requests.drain(..count) {
                        let _ = request.answer.send(Err(error.clone()));
                    }
                }
                Tried::Done(verdicts) => {
                    conflicts = 0;
                    self.answer(requests, verdicts).await;
                }
            }
        }
    }

    async fn attempt(&mut self, requests: &[Request<A>]) -> Result<Tried<A>, LogError> {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let commit = match shared.random.array() {
            Ok(id) => CommitId(id),
            Err(error) => {
                let source = shared_error(error);
                return Ok(Tried::Failed(requests.len(), ExecuteError::Unavailable { source }));
            }
        };
        self.answered.forget(now, self.fold.chain.position);
        let table = Table {
            fold: &self.fold,
            answered: &self.answered,
            now,
            node: shared.options.node,
            commit,
            commands_max: shared.options.batch_commands_max,
            bytes_target: shared.options.frame_bytes_max,
            bytes_max: shared.frame_bytes_max,
        };
        let Batch { verdicts, writing } = match table.decide(requests) {
            Ok(batch) => batch,
            Err(error) => {
                let source = shared_error(error);
                return Ok(Tried::Failed(requests.len(), ExecuteError::Invalid { source }));
            }
        };
        match writing {
            Some(writing) => self.write(writing, verdicts).await,
            None => self.confirm(verdicts).await,
        }
    }

    /// Nothing is to be written, but what was decided must have been decided at the head.
    async fn confirm(&mut self, verdicts: Vec<Verdict<A>>) -> Result<Tried<A>, LogError> {
        match self.follow(None).await {
            Ok(Followed { moved: false, .. }) => Ok(Tried::Done(verdicts)),
            Ok(Followed { moved: true, .. }) => Ok(Tried::Again),
            Err(LogError::Unavailable { source, .. }) => {
                let source = shared_error(source);
                Ok(Tried::Failed(verdicts.len(), ExecuteError::Unavailable { source }))
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, writing: Writing<A>, verdicts: Vec<Verdict<A>>) -> Result<Tried<A>, LogError> {
        let shared = Arc::clone(&self.shared);
        let (head, bytes) = (writing.head, writing.frame.len());
        let fence = shared.fence.load_full();
        let began = Instant::now();
        let commit =
            commit::append(A::LOG, writing.frame.clone(), &head, Some(self.revision), fence.as_deref());
        let fence_key = fence.as_ref().map(|fence| &fence.key);
        let failed = |error| Tried::Failed(verdicts.len(), error);
        let sent = commit::send(&*shared.reader.store, A::LOG, head.first, commit, fence_key).await;
        match sent {
            Sent::Committed(revision) => {
                self.adopt(writing, revision)?;
                self.courtesy.written(began, head.commit);
                self.snapshots.appended(&self.fold, bytes);
                Ok(Tried::Done(verdicts))
            }
            Sent::Moved { uncertain } => {
                let ours = Some((head.first, head.commit));
                for _ in 0..STALE_READS_MAX {
                    match self.follow(ours).await {
                        Ok(Followed { landed: true, .. }) => return Ok(Tried::Done(verdicts)),
                        Ok(Followed { moved: true, .. }) => return Ok(Tried::Again),
                        Ok(_) => tokio::time::sleep(STALE_READ_PAUSE).await,
                        Err(LogError::Unavailable { source, .. }) => {
                            return Ok(failed(unanswered(source, uncertain)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                let source = StoreError::unavailable("get", "the head is older than the store says it is");
                Ok(failed(unanswered(source, uncertain)))
            }
            Sent::Fenced => Ok(failed(ExecuteError::Fenced)),
            Sent::Occupied => {
                Err(LogError::corrupt(A::LOG, head.first, "a frame lies behind the end of the log"))
            }
            Sent::Failed(error) => Ok(failed(unanswered(error, false))),
            Sent::Unknown(error) => Ok(failed(unanswered(error, true))),
        }
    }

    /// Takes over the state that a batch of ours has led to.
    fn adopt(&mut self, writing: Writing<A>, revision: Revision) -> Result<(), LogError> {
        let Writing { frame, head, state, streams } = writing;
        let frame = Frame::decode(&frame).map_err(|error| LogError::frame(A::LOG, head.first, error))?;
        self.fold.state = state;
        self.fold.chain.streams.extend(streams);
        self.fold.chain.advance(&frame);
        for (position, record) in positioned(&frame) {
            if let Some(AboutLog::Carried { from }) = about_log(A::LOG, frame.header.codec, position, record)?
            {
                self.fold.chain.carried(from);
            }
        }
        self.answered.note(&frame);
        self.publish(revision);
        Ok(())
    }

    /// Reads what others have appended. `ours`: the position and id of a commit that may be among it.
    async fn follow(&mut self, ours: Option<(Position, CommitId)>) -> Result<Followed, LogError> {
        let reader = self.shared.reader.clone();
        let log = A::LOG;
        let Some((head, revision)) = reader.head().await? else {
            return Err(LogError::corrupt(log, Position(0), "the head is gone"));
        };
        let mut followed = Followed::default();
        // A head that is older than the state is a late read; the log itself never goes back.
        if revision <= self.revision || head.position <= self.fold.chain.position {
            return Ok(followed);
        }
        let mut frames = reader.frames_behind(self.fold.chain.position);
        while self.fold.chain.position < head.position {
            for frame in frames.page(head.position).await? {
                self.fold.apply(&frame)?;
                self.answered.note(&frame);
                self.snapshots.appended(&self.fold, frame.bytes);
                followed.moved = true;
                self.courtesy.foreign = Some(Instant::now());
                followed.landed |= ours == Some((frame.first(), frame.header.commit));
            }
        }
        if self.fold.chain.hash != head.hash {
            return Err(LogError::corrupt(
                log,
                head.position,
                "the head does not name the last frame's hash",
            ));
        }
        self.publish(revision);
        Ok(followed)
    }

    fn publish(&mut self, revision: Revision) {
        self.revision = revision;
        self.shared.revision.store(revision.0, Ordering::Release);
        self.shared.view.store(Arc::new(View::of(&self.fold)));
        self.shared.changes.send_replace(self.fold.chain.position);
    }

    async fn answer(&mut self, requests: &mut Vec<Request<A>>, verdicts: Vec<Verdict<A>>) {
        let mut given: Vec<Option<Committed<A::Event>>> = Vec::with_capacity(verdicts.len());
        for (request, verdict) in requests.drain(..verdicts.len()).zip(verdicts) {
            let answer = match verdict {
                Verdict::Answer(answer) => answer,
                Verdict::Repeat(answer) => self.repeat(answer).await,
                Verdict::SameAs(index) => match given.get(index) {
                    Some(Some(first)) => Ok(Committed { repeated: true, ..first.clone() }),
                    _ => Err(ExecuteError::Conflict),
                },
            };
            given.push(answer.as_ref().ok().cloned());
            // Who asked may have gone; what happened, happened.
            let _ = request.answer.send(answer);
        }
    }

    /// The first answer again. Its events are read back: repeats are rare, memory is not.
    async fn repeat(&self, answer: crate::answered::Answer) -> Answered1<A> {
        let (first, last) = (answer.first, answer.last);
        let before = Position(first.0 - 1);
        let count = usize::try_from(last.0 - before.0).unwrap_or(usize::MAX);
        let head = self.fold.chain.position;
        let unavailable = |source| ExecuteError::Unavailable { source };
        let records = recorded::read(&self.shared.reader, before, count, last).await;
        let events = records
            .map_err(|error| unavailable(shared_error(error)))?
            .iter()
            .map(|recorded| recorded.decode().map_err(|error| unavailable(shared_error(error))))
            .collect::<Result<_, _>>()?;
        let (positions, subject) = (Some((first, last)), answer.subject);
        Ok(Committed { positions, head, events, subject, repeated: true })
    }
}

/// Lets other nodes have their turn. Who has just written knows the head and can write again at once; who
/// lost has to read first, and would lose for ever. So while others write, too, a node pauses after each
/// commit, at random up to four times what the commit took: reading and trying again takes three.
///
/// It knows of others by their frames only. Who never got in while another wrote without a pause is answered
/// [`ExecuteError::Contended`].
#[derive(Debug, Default)]
pub(crate) struct Courtesy {
    /// When a frame of another node was seen last.
    foreign: Option<Instant>,
    not_before: Option<Instant>,
}

impl Courtesy {
    /// How long others count as writing.
    const REMEMBERED: Duration = Duration::from_secs(10);
    /// A commit that took longer had other troubles than company.
    const PAUSE_MAX: Duration = Duration::from_millis(200);

    /// Whether there was anything to wait for.
    async fn wait(&mut self) -> bool {
        let Some(not_before) = self.not_before.take().filter(|then| *then > Instant::now()) else {
            return false;
        };
        tokio::time::sleep_until(not_before).await;
        true
    }

    /// `commit` has random bytes to spare.
    fn written(&mut self, began: Instant, commit: CommitId) {
        if self.foreign.is_some_and(|seen| seen.elapsed() < Self::REMEMBERED) {
            let pause = began.elapsed() * u32::from(commit.0[0]) / 64;
            self.not_before = Some(Instant::now() + pause.min(Self::PAUSE_MAX));
        }
    }
}

/// What following has found.
#[derive(Clone, Copy, Debug, Default)]
struct Followed {
    /// Others' frames, or ours.
    moved: bool,
    /// Ours.
    landed: bool,
}

fn unanswered<R>(error: StoreError, uncertain: bool) -> ExecuteError<R> {
    let source = shared_error(error);
    if uncertain { ExecuteError::Indeterminate { source } } else { ExecuteError::Unavailable { source } }
}

/// Wakes the appender when somebody else has written. Only a bell: whatever the watch does or fails to
/// do, the appender also looks by itself every few seconds.
pub(crate) async fn watch<A: Aggregate>(
    shared: Arc<Shared<A>>,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    /// Between watches that end at once.
    const PAUSE: Duration = Duration::from_millis(200);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            error = listen(&shared) => {
                tracing::debug!(log = %A::LOG, %error, "the watch on the log's head has ended");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn listen<A: Aggregate>(shared: &Shared<A>) -> StoreError {
    let log: LogName = A::LOG;
    let store = &shared.reader.store;
    let watch = async {
        let after = store.revision().await?;
        store.watch(crate::keys::head(log), after).await
    };
    let mut watch = match watch.await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    // First watch, then look: what was written in between is found now.
    shared.look.notify_one();
    loop {
        match watch.next().await {
            Ok(batch) if batch.revision.0 > shared.revision.load(Ordering::Acquire) => {
                shared.look.notify_one();
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
