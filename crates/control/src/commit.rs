//! Commits that are carried through.

use std::time::Duration;

use underpass_store::{Commit, Outcome, Retry, Store, StoreError};

/// How often a commit is sent before its failure is the caller's: with [`PAUSE`] doubling in between, about
/// three seconds, which outlasts an election of a store's leader.
const ATTEMPTS_MAX: u32 = 6;
/// The first pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends `commit` until its outcome is known. When an attempt whose outcome was unknown did happen, the next
/// one meets its own write and conflicts: the caller compares what is stored with what it meant to store.
pub(crate) async fn commit(store: &dyn Store, commit: &Commit) -> Result<Outcome, StoreError> {
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        match store.commit(commit.clone()).await {
            Err(error) if error.retry() == Retry::Same && attempt < ATTEMPTS_MAX => {
                tracing::debug!(attempt, %error, "commit goes out again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            known => return known,
        }
    }
}
