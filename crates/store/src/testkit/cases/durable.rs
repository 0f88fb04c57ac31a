//! Cases for stores that outlive their process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::testkit::harness::{Backend, Checked};
use crate::testkit::tools::{assert_lease_gone, committed, entry, is_there, key, keys, next, put, watch_all};
use crate::{
    Commit, ExpirableStore, Guard, Key, KvStore, Outcome, Renewal, Store, StoreError, WatchableStore,
};

const TTL: Duration = Duration::from_secs(2);

async fn reopen(backend: &dyn Backend, store: Arc<dyn Store>) -> Arc<dyn Store> {
    backend.close().await;
    drop(store);
    backend.open().await
}

/// Entry for entry: keys, values, revisions.
pub async fn what_was_written_is_there_after_opening_again(backend: Arc<dyn Backend>) -> Checked {
    let store = backend.open().await;
    put(&*store, "a", "1").await?;
    put(&*store, "b", "2").await?;
    committed(&*store, Commit::new().put("c", "3").put("d", "").delete("b")).await?;
    let before = store.scan(&Key::open(), &Key::open(), 100).await?;
    assert_eq!(before.len(), 3);
    let store = reopen(&*backend, store).await;
    assert_eq!(store.scan(&Key::open(), &Key::open(), 100).await?, before);
    backend.close().await;
    Ok(())
}

/// A revision given twice would let a stale guard hold.
pub async fn revisions_go_on_rising_after_opening_again(backend: Arc<dyn Backend>) -> Checked {
    let mut store = backend.open().await;
    let mut last = put(&*store, "a", "1").await?;
    for _ in 0..3 {
        store = reopen(&*backend, store).await;
        assert_eq!(store.revision().await?, last);
        let next = put(&*store, "a", "1").await?;
        assert!(next > last);
        last = next;
    }
    // Also where the last write was a deletion, which no entry shows.
    let deleted = store.delete(&key("a")).await?.ok_or("absent")?;
    store = reopen(&*backend, store).await;
    assert_eq!(store.revision().await?, deleted);
    backend.close().await;
    Ok(())
}

/// A head that was read before counts after.
pub async fn guards_hold_across_opening_again(backend: Arc<dyn Backend>) -> Checked {
    use crate::CasStore;
    let store = backend.open().await;
    let revision = put(&*store, "head", "1").await?;
    let store = reopen(&*backend, store).await;
    let commit = Commit::new().guard("head", Guard::At(revision)).put("head", "2");
    committed(&*store, commit.clone()).await?;
    assert!(matches!(store.commit(commit).await?, Outcome::Conflict(_)));
    backend.close().await;
    Ok(())
}

/// Promise 3 of `WatchableStore`: no silent gap.
pub async fn the_history_ends_with_the_process_and_says_so(backend: Arc<dyn Backend>) -> Checked {
    let store = backend.open().await;
    let first = put(&*store, "a", "1").await?;
    let second = put(&*store, "a", "2").await?;
    let store = reopen(&*backend, store).await;
    match store.watch(key("a"), first).await {
        Ok(mut watch) => assert_eq!(next(&mut watch).await?.revision, second),
        Err(StoreError::Compacted { oldest, .. }) => assert_eq!(oldest, second),
        Err(error) => return Err(error.into()),
    }
    let mut watch = store.watch(key("a"), second).await?;
    let third = put(&*store, "a", "3").await?;
    assert_eq!(next(&mut watch).await?.revision, third);
    backend.close().await;
    Ok(())
}

/// With their entries, and with a full ttl.
pub async fn leases_live_on_after_opening_again(backend: Arc<dyn Backend>) -> Checked {
    let store = backend.open().await;
    let lease = store.grant(TTL).await?;
    let ended = store.grant(TTL).await?;
    store.put_leased(&key("a"), "x".into(), lease).await?;
    store.put_leased(&key("b"), "x".into(), lease).await?;
    store.put_leased(&key("c"), "x".into(), ended).await?;
    put(&*store, "b", "plain").await?;
    store.revoke(ended).await?;
    let store = reopen(&*backend, store).await;
    assert_eq!(entry(&*store, "a").await?.ok_or("absent")?.lease, Some(lease));
    assert_eq!(store.renew(lease).await?, Renewal::Renewed);
    assert_eq!(store.renew(ended).await?, Renewal::Gone);
    assert_lease_gone(store.put_leased(&key("c"), "x".into(), ended).await);
    sleep_until(Instant::now() + TTL + store.limits().expiry_slack).await;
    assert_eq!(keys(&*store, "", "").await?, ["b"]);
    assert_eq!(store.renew(lease).await?, Renewal::Gone);
    backend.close().await;
    Ok(())
}

/// Nobody renews while the store is closed. Where its time stood still, nobody knows how long it was, and the
/// ttl starts anew; where it went on, the entry is gone as soon as it would have been.
pub async fn an_entry_whose_lease_nobody_renews_goes_after_opening_again(
    backend: Arc<dyn Backend>,
) -> Checked {
    let store = backend.open().await;
    let lease = store.grant(TTL).await?;
    let granted = Instant::now();
    store.put_leased(&key("a"), "x".into(), lease).await?;
    let written = store.revision().await?;
    backend.close().await;
    drop(store);
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    let store = backend.open().await;
    let opened = Instant::now();
    if backend.runs_while_closed() {
        sleep_until(granted + TTL + store.limits().expiry_slack).await;
        assert!(!is_there(&*store, "a").await?);
        assert!(store.revision().await? > written);
        assert_eq!(store.renew(lease).await?, Renewal::Gone);
        backend.close().await;
        return Ok(());
    }
    let there = is_there(&*store, "a").await?;
    assert!(there || opened.elapsed() >= TTL, "the ttl did not start anew");
    let mut watch = watch_all(&*store).await?;
    assert_eq!(next(&mut watch).await?.changes.len(), 1);
    assert!(!is_there(&*store, "a").await?);
    backend.close().await;
    Ok(())
}

/// A node that comes back must not hold another's lease.
pub async fn lease_ids_are_not_given_again_after_opening_again(backend: Arc<dyn Backend>) -> Checked {
    let store = backend.open().await;
    let first = store.grant(TTL).await?;
    store.revoke(first).await?;
    let store = reopen(&*backend, store).await;
    let second = store.grant(TTL).await?;
    assert_ne!(first, second);
    let store = reopen(&*backend, store).await;
    assert_ne!(store.grant(TTL).await?, second);
    backend.close().await;
    Ok(())
}

/// Nobody waits for a store that is closed.
pub async fn a_closed_store_is_unavailable_and_its_watches_end(backend: Arc<dyn Backend>) -> Checked {
    use crate::CasStore;
    let store = backend.open().await;
    put(&*store, "a", "1").await?;
    let mut watch = watch_all(&*store).await?;
    backend.close().await;
    let unavailable = |error: &StoreError| matches!(error, StoreError::Unavailable { .. });
    assert!(watch.next().await.is_err_and(|error| unavailable(&error)));
    assert!(store.get(&key("a")).await.is_err_and(|error| unavailable(&error)));
    assert!(store.scan(&key("a"), &key("b"), 100).await.is_err_and(|error| unavailable(&error)));
    assert!(store.revision().await.is_err_and(|error| unavailable(&error)));
    assert!(put(&*store, "a", "2").await.is_err_and(|error| unavailable(&error)));
    let commit = store.commit(Commit::new().put("a", "2")).await;
    assert!(commit.is_err_and(|error| unavailable(&error)));
    assert!(store.grant(TTL).await.is_err_and(|error| unavailable(&error)));
    drop(store);
    let store = backend.open().await;
    assert_eq!(entry(&*store, "a").await?.ok_or("absent")?.value, "1");
    backend.close().await;
    Ok(())
}
