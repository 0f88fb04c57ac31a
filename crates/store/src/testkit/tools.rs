//! What cases share.

use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, BoxError, Commit, Entry, Key, Outcome, Revision, Store, StoreError, Watch};

/// How long a case waits for what must come, and comes at once on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long a case waits for what must not come.
pub(crate) const A_WHILE: Duration = Duration::from_millis(150);

pub(crate) fn key(text: &str) -> Key {
    Key::from(text)
}

pub(crate) async fn put(store: &dyn Store, at: &str, value: &'static str) -> Result<Revision, StoreError> {
    store.put(&key(at), Bytes::from_static(value.as_bytes())).await
}

pub(crate) async fn entry(store: &dyn Store, at: &str) -> Result<Option<Entry>, StoreError> {
    store.get(&key(at)).await
}

pub(crate) async fn value(store: &dyn Store, at: &str) -> Result<Option<Bytes>, StoreError> {
    Ok(entry(store, at).await?.map(|entry| entry.value))
}

pub(crate) async fn revision_of(store: &dyn Store, at: &str) -> Result<Option<Revision>, StoreError> {
    Ok(entry(store, at).await?.map(|entry| entry.revision))
}

pub(crate) async fn is_there(store: &dyn Store, at: &str) -> Result<bool, StoreError> {
    Ok(entry(store, at).await?.is_some())
}

/// The keys of `[from, to)` as text.
pub(crate) async fn keys(store: &dyn Store, from: &str, to: &str) -> Result<Vec<String>, StoreError> {
    let entries = store.scan(&key(from), &key(to), 1000).await?;
    Ok(entries.into_iter().map(|entry| entry.key.to_string()).collect())
}

/// The revision of a commit that must happen.
pub(crate) async fn committed(store: &dyn Store, commit: Commit) -> Result<Revision, BoxError> {
    match store.commit(commit).await? {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict(failed) => Err(format!("unexpected conflict at {failed:?}").into()),
    }
}

/// A watch over everything that is still to come.
pub(crate) async fn watch_all(store: &dyn Store) -> Result<Watch, StoreError> {
    store.watch(Key::open(), store.revision().await?).await
}

/// The batch that must come.
pub(crate) async fn next(watch: &mut Watch) -> Result<Batch, BoxError> {
    Ok(tokio::time::timeout(SOON, watch.next()).await.map_err(|_| "a batch is missing")??)
}

/// Nothing comes.
pub(crate) async fn silent(watch: &mut Watch) -> bool {
    tokio::time::timeout(A_WHILE, watch.next()).await.is_err()
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Refused { .. })), "{result:?}");
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
pub(crate) fn assert_lease_gone<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::LeaseGone { .. })), "{result:?}");
}
