//! The group.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::guarded::{self, Ending};

/// How long [`Tasks::drain`] waits for abandoned tasks to be dropped after their grace time. A task that waits
/// is dropped at once; only one that computes without a pause can use this up.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// A group of tasks that stop together.
///
/// A clone is the same group. All methods that start a task must be called within a tokio runtime.
///
/// ```
/// # use std::{convert::Infallible, time::Duration};
/// # use tokio_util::sync::CancellationToken;
/// # use underpass_tasks::{Drained, Tasks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tasks = Tasks::new("listeners", CancellationToken::new());
/// tasks.spawn_essential("accept", |stop| async move {
///     stop.cancelled().await;
///     Ok::<_, Infallible>(())
/// });
/// assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stage: &'static str,
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    fatal: CancellationToken,
}

/// The last handle of a group is gone: nobody can drain it any more, so its tasks are asked to stop rather
/// than left running without an owner.
impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Tasks {
    /// An empty group. `stage` names it in the log; `fatal` is cancelled when an essential task ends too
    /// early.
    pub fn new(stage: &'static str, fatal: CancellationToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                stage,
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                kill: CancellationToken::new(),
                fatal,
            }),
        }
    }

    /// Starts a task the program can't do without. If it ends before it is told to, in whatever way (an error,
    /// a panic, or simply by returning), `fatal` is cancelled.
    ///
    /// An error after the task was told to stop is logged and nothing more.
    pub fn spawn_essential<F, E>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        let stage = self.inner.stage;
        let (stop, kill) = (self.inner.stop.clone(), self.inner.kill.clone());
        // Rings also when the runtime drops the task, or when building the future panics.
        let alarm = self.inner.fatal.clone().drop_guard();
        let task = task(self.child_token());
        self.inner.tracker.spawn(async move {
            match guarded::run(task, &kill).await {
                Ending::Returned(Ok(())) if stop.is_cancelled() => disarm(alarm),
                Ending::Returned(Ok(())) => tracing::error!(stage, name, "essential task ended by itself"),
                Ending::Returned(Err(error)) => {
                    tracing::error!(stage, name, error = &error as &dyn Error, "essential task failed");
                    if stop.is_cancelled() {
                        disarm(alarm);
                    }
                }
                Ending::Panicked(panic) => tracing::error!(stage, name, panic, "essential task panicked"),
                Ending::Killed => {
                    tracing::warn!(stage, name, "essential task did not stop in time");
                    disarm(alarm);
                }
            }
        });
    }

    /// Starts a task that comes and goes: one connection, one request. Its failure is its own: an error is
    /// logged at debug, a panic at error, and no other task notices.
    pub fn spawn_job<F, E>(&self, name: &'static str, job: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + 'static,
    {
        let stage = self.inner.stage;
        let kill = self.inner.kill.clone();
        let job = job(self.child_token());
        self.inner.tracker.spawn(async move {
            match guarded::run(job, &kill).await {
                Ending::Returned(Ok(())) => {}
                Ending::Returned(Err(error)) => {
                    tracing::debug!(stage, name, error = &error as &dyn Error, "job failed");
                }
                Ending::Panicked(panic) => tracing::error!(stage, name, panic, "job panicked"),
                Ending::Killed => tracing::debug!(stage, name, "job did not stop in time"),
            }
        });
    }

    /// A token that is cancelled when the group is drained. Cancelling it hurts nobody but its holder.
    pub fn child_token(&self) -> CancellationToken {
        self.inner.stop.child_token()
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.inner.tracker.is_empty()
    }

    /// The name given to [`Tasks::new`].
    pub fn stage(&self) -> &'static str {
        self.inner.stage
    }

    /// Asks every task to stop and waits for them, but not longer than `grace`. What still runs then is
    /// dropped at the point where it waits, counted and reported.
    ///
    /// A task that is started after this call finds its token cancelled and is waited for like the others, as
    /// long as there are others. Draining twice is harmless.
    pub async fn drain(&self, grace: Duration) -> Drained {
        let Inner { stage, tracker, stop, kill, .. } = &*self.inner;
        stop.cancel();
        tracker.close();
        if tokio::time::timeout(grace, tracker.wait()).await.is_ok() {
            return Drained::Clean;
        }
        let abandoned = tracker.len();
        kill.cancel();
        if tokio::time::timeout(KILL_GRACE, tracker.wait()).await.is_err() {
            tracing::error!(stage, tasks = tracker.len(), "tasks can't be dropped: they never wait");
        }
        Drained::Abandoned(abandoned)
    }
}

/// Lets the guard go without cancelling `fatal`.
fn disarm(alarm: DropGuard) {
    let _fatal = alarm.disarm();
}

/// How a group of tasks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Every task stopped by itself.
    Clean,
    /// So many tasks did not stop in time and were dropped.
    Abandoned(usize),
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    type Never = Result<(), Infallible>;

    fn group() -> (Tasks, CancellationToken) {
        let fatal = CancellationToken::new();
        (Tasks::new("test", fatal.clone()), fatal)
    }

    fn bug() {
        assert!(std::hint::black_box(false), "bug");
    }

    /// Counts the living: what is leaked is not dropped.
    struct Alive(Arc<AtomicUsize>);

    impl Alive {
        fn new(count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::SeqCst);
            Self(count.clone())
        }
    }

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    // C72
    #[tokio::test(start_paused = true)]
    async fn c72_a_panic_in_an_essential_task_is_fatal() {
        let (tasks, fatal) = group();
        tasks.spawn_essential("broken", |_| async {
            tokio::task::yield_now().await;
            bug();
            Never::Ok(())
        });
        fatal.cancelled().await;
    }

    // C72
    #[tokio::test(start_paused = true)]
    async fn c72_a_panic_in_a_job_hurts_nobody_else() {
        let (tasks, fatal) = group();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn_essential("polite", |stop| async move {
            stop.cancelled().await;
            Never::Ok(())
        });
        for _ in 0..10 {
            tasks.spawn_job("broken", |_| async {
                tokio::task::yield_now().await;
                bug();
                Never::Ok(())
            });
        }
        tasks.spawn_job("neighbour", |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = sender.send("done");
            Never::Ok(())
        });

        assert_eq!(receiver.await, Ok("done"));
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert!(!fatal.is_cancelled());
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_essential_task_that_just_returns_is_fatal() {
        let (tasks, fatal) = group();
        tasks.spawn_essential("short", |_| async { Never::Ok(()) });
        fatal.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_essential_task_that_fails_is_fatal() {
        let (tasks, fatal) = group();
        tasks.spawn_essential("failing", |_| async { Err(std::io::Error::other("no disk")) });
        fatal.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_essential_task_that_stops_when_told_is_not_fatal() {
        let (tasks, fatal) = group();
        tasks.spawn_essential("polite", |stop| async move {
            stop.cancelled().await;
            Never::Ok(())
        });
        tasks.spawn_essential("loses its connection on the way out", |stop| async move {
            stop.cancelled().await;
            Err(std::io::Error::other("gone"))
        });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert!(!fatal.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_fails_is_not_fatal() {
        let (tasks, fatal) = group();
        tasks.spawn_job("failing", |_| async { Err(std::io::Error::other("reset")) });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert!(!fatal.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn stuck_tasks_are_counted_and_dropped() {
        let (tasks, fatal) = group();
        let alive = Arc::new(AtomicUsize::new(0));
        let (one, two) = (Alive::new(&alive), Alive::new(&alive));
        tasks.spawn_job("stuck", |_| async move {
            let _one = one;
            pending::<Never>().await
        });
        tasks.spawn_essential("stuck as well", |_| async move {
            let _two = two;
            pending::<Never>().await
        });
        tasks.spawn_job("polite", |stop| async move {
            stop.cancelled().await;
            Never::Ok(())
        });

        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Abandoned(2));
        assert_eq!(alive.load(Ordering::SeqCst), 0, "an abandoned task was leaked");
        assert!(tasks.is_empty());
        assert!(!fatal.is_cancelled(), "the group was stopping anyway");
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_time_is_waited_for_and_no_more() {
        let (tasks, _fatal) = group();
        tasks.spawn_job("slow", |_| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Never::Ok(())
        });
        let begun = tokio::time::Instant::now();
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert_eq!(begun.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_cancelling_its_own_token_stops_nobody_else() {
        let (tasks, _fatal) = group();
        tasks.spawn_job("selfish", |stop| async move {
            stop.cancel();
            Never::Ok(())
        });
        let other = tasks.child_token();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!other.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn clones_are_one_group_and_the_last_one_stops_it() {
        let (tasks, _fatal) = group();
        let clone = tasks.clone();
        let stop = clone.child_token();
        drop(tasks);
        assert!(!stop.is_cancelled());
        drop(clone);
        assert!(stop.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_started_after_the_drain_finds_its_token_cancelled() {
        let (tasks, _fatal) = group();
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        tasks.spawn_job("late", |stop| async move {
            stop.cancelled().await;
            Never::Ok(())
        });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_jobs_leave_nothing_behind() {
        let (tasks, _fatal) = group();
        let alive = Arc::new(AtomicUsize::new(0));
        for _ in 0..10_000 {
            let alive = Alive::new(&alive);
            tasks.spawn_job("short", |_| async move {
                let _alive = alive;
                tokio::task::yield_now().await;
                Never::Ok(())
            });
        }
        assert_eq!(tasks.len(), 10_000);
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert_eq!((tasks.len(), alive.load(Ordering::SeqCst)), (0, 0));
    }
}
