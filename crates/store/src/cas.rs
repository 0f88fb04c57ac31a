//! Writing several entries at once, under conditions.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Commit, KvStore, Outcome, StoreError};

/// Guarded commits.
///
/// This is what the log stands on: who appends guards the head it has decided against; of many who race,
/// one wins and the others learn where the head is now.
///
/// # Contract
///
/// 1. If every guard holds at one instant, all writes happen at that instant, in one revision; else none
///    of them happens. Nobody sees a part of a commit.
/// 2. A failed guard is an answer, [`Outcome::Conflict`], with the present revisions of the guards that
///    failed, of one instant; not of those that held.
/// 3. A commit without a write, with a key written twice or guarded twice, or beyond the
///    [`limits`](KvStore::limits) is [`StoreError::Refused`].
/// 4. Where a write is under a lease that is gone, and all guards hold, nothing happens:
///    [`StoreError::LeaseGone`].
/// 5. [`StoreError::Indeterminate`]: it may have happened, or may still happen. The identical commit sent
///    again, with a guard on a key that it writes, tells: at most one of the two happens.
/// 6. A commit that only deletes what is absent is committed, changes nothing, makes no revision and
///    answers the one that the store stands at.
///
/// # Implementing
///
/// Run `testkit::cas!` (cargo feature `testkit`). Ask [`Commit::check`] first, so that all backends refuse
/// the same.
#[async_trait]
pub trait CasStore: KvStore {
    /// Does all of `commit` or nothing.
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError>;
}

#[async_trait]
impl<S: CasStore + ?Sized> CasStore for Arc<S> {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        (**self).commit(commit).await
    }
}
