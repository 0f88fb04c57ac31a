//! Turns the passing of time into events.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::control::Control;
use crate::error::ControlError;

/// The longest sleep. The wall clock may jump (a suspended machine, a corrected clock) while timers sleep on;
/// a jump is noticed within this.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two looks, so that a stream of changes doesn't cost a look each.
const SLEEP_MIN: Duration = Duration::from_millis(20);
/// How many commands go out together: they share one commit, and others still come in between.
const BATCH_MAX: usize = 64;

/// Issues what is due until told to stop.
pub(crate) async fn run(control: &Control, stop: &CancellationToken) {
    let mut changes = control.changes();
    loop {
        let wait = expire(control).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            next = changes.changed() => match next {
                Ok(()) => tokio::time::sleep(SLEEP_MIN).await,
                Err(_) => return stop.cancelled().await,
            },
        }
    }
}

/// Issues what is due now; answers how long nothing will be.
async fn expire(control: &Control) -> Duration {
    // Without its lease the node doesn't react; it couldn't write anyway.
    if !control.may_write() {
        return SLEEP_MAX;
    }
    let now = control.clock.now();
    let view = control.state();
    if view.state.next_deadline().is_some_and(|at| at <= now) {
        let mut due = view.state.due(now);
        due.truncate(BATCH_MAX);
        let caller = Caller::system();
        let mut progress = false;
        let expired = join_all(due.into_iter().map(|command| control.execute(&caller, command))).await;
        for outcome in expired {
            match outcome {
                Ok(committed) => progress |= committed.positions.is_some(),
                // Another node, or a person, was faster.
                Err(ControlError::Refused(refusal)) => tracing::debug!(%refusal, "nothing to expire"),
                Err(error) => tracing::warn!(%error, "expiry has to wait"),
            }
        }
        return if progress { SLEEP_MIN } else { SLEEP_MAX };
    }
    view.state.next_deadline().map_or(SLEEP_MAX, |at| at.since(now)).clamp(SLEEP_MIN, SLEEP_MAX)
}
