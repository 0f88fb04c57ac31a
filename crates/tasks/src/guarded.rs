//! One task, with its panics caught and its killing arranged.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio_util::sync::CancellationToken;

/// How a guarded task ended.
pub(crate) enum Ending<T> {
    /// By itself, with this value.
    Returned(T),
    /// It panicked, with this message.
    Panicked(String),
    /// `kill` was cancelled; the future was dropped where it waited.
    Killed,
}

/// Runs `task` to its end, unless `kill` is cancelled first.
pub(crate) async fn run<F: Future>(task: F, kill: &CancellationToken) -> Ending<F::Output> {
    match kill.run_until_cancelled(catching(task)).await {
        None => Ending::Killed,
        Some(Ok(value)) => Ending::Returned(value),
        Some(Err(panic)) => Ending::Panicked(message(panic.as_ref())),
    }
}

/// A future that panicked is never polled again, so nobody sees what it left half-done: asserting unwind
/// safety is right for the future itself. What it shares with others is behind their own locks.
async fn catching<F: Future>(task: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut task = pin!(task);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
