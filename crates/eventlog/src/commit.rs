//! One guarded commit, with an answer whatever the store does.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use underpass_domain::{LogName, Position};
use underpass_store::{Commit, Guard, Key, Outcome, Retry, Revision, Store, StoreError};

use crate::head::Head;
use crate::keys;
use crate::options::Fence;

/// How often a commit is sent again over an unavailable store or an unknown outcome: with
/// [`FIRST_PAUSE`] doubling, 1.3 s in all. Longer, and commands had better be answered.
const ATTEMPTS_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// No attempt begins later than this after the first: a store may take seconds to fail each.
const SENDING_MAX: Duration = Duration::from_secs(5);

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It happened.
    Committed(Revision),
    /// The head is another by now. If `uncertain`, this commit itself may be what changed it.
    Moved { uncertain: bool },
    /// The fence fell: the lease is gone.
    Fenced,
    /// A frame lies where none may be, though the head is as expected.
    Occupied,
    /// It did not happen.
    Failed(StoreError),
    /// It may have happened, or may still.
    Unknown(StoreError),
}

/// The commit that appends a frame: it happens only if the head is as it was read.
pub(crate) fn append(
    log: LogName,
    frame: Bytes,
    head: &Head,
    expected: Option<Revision>,
    fence: Option<&Fence>,
) -> Commit {
    let (head_key, frame_key) = (keys::head(log), keys::frame(log, head.first));
    let mut commit = Commit::new()
        .guard(head_key.clone(), expected.map_or(Guard::Absent, Guard::At))
        .guard(frame_key.clone(), Guard::Absent)
        .put(frame_key, frame)
        .put(head_key, head.encode());
    if let Some(Fence { key, revision }) = fence {
        commit = commit.guard(key.clone(), Guard::At(*revision));
    }
    commit
}

/// Sends an append until its outcome is known, within bounds. It is always the identical commit, and it
/// guards what it writes: it can't happen twice.
pub(crate) async fn send(
    store: &dyn Store,
    log: LogName,
    first: Position,
    commit: Commit,
    fence: Option<&Key>,
) -> Sent {
    let (head_key, frame_key) = (keys::head(log), keys::frame(log, first));
    let (failed, uncertain) = match deliver(store, log, commit).await {
        Delivered::Committed(revision) => return Sent::Committed(revision),
        Delivered::Failed(error) => return Sent::Failed(error),
        Delivered::Unknown(error) => return Sent::Unknown(error),
        Delivered::Conflict { failed, uncertain } => (failed, uncertain),
    };
    let fell = |key: &Key| failed.iter().any(|(at, _)| at == key);
    // Where the outcome was unknown, the commit may have happened before the fence fell.
    if fence.is_some_and(fell) && !(uncertain && fell(&head_key)) {
        Sent::Fenced
    } else if !fell(&head_key) && fell(&frame_key) {
        Sent::Occupied
    } else {
        Sent::Moved { uncertain }
    }
}

/// What became of any commit.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// It happened.
    Committed(Revision),
    /// Guards failed: these, with the revisions that are there now. If `uncertain`, this commit itself may
    /// be why.
    Conflict { failed: Vec<(Key, Option<Revision>)>, uncertain: bool },
    /// It did not happen.
    Failed(StoreError),
    /// It may have happened, or may still.
    Unknown(StoreError),
}

/// Sends a commit until its outcome is known, within bounds. It must guard what it writes.
pub(crate) async fn deliver(store: &dyn Store, log: LogName, commit: Commit) -> Delivered {
    let mut uncertain = false;
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    let began = Instant::now();
    loop {
        let error = match store.commit(commit.clone()).await {
            Ok(Outcome::Committed(revision)) => return Delivered::Committed(revision),
            Ok(Outcome::Conflict(failed)) => return Delivered::Conflict { failed, uncertain },
            Err(error) => error,
        };
        uncertain |= matches!(error, StoreError::Indeterminate { .. });
        if error.retry() != Retry::Same || attempt == ATTEMPTS_MAX || began.elapsed() >= SENDING_MAX {
            return if uncertain { Delivered::Unknown(error) } else { Delivered::Failed(error) };
        }
        tracing::debug!(%log, attempt, %error, "commit is sent again");
        tokio::time::sleep(pause).await;
        pause *= 2;
        attempt += 1;
    }
}
