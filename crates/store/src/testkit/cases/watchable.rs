//! Cases for [`WatchableStore`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::testkit::harness::Checked;
use crate::testkit::tools::{A_WHILE, SOON, committed, key, next, put, silent, value, watch_all};
use crate::{
    Batch, Change, Commit, Entry, ExpirableStore, Guard, Key, KvStore, Revision, Store, StoreError,
    WatchableStore,
};

fn put_of(batch: &Batch) -> Option<&Entry> {
    match &batch.changes[..] {
        [Change::Put(entry)] => Some(entry),
        _ => None,
    }
}

/// Promise 1.
pub async fn later_commits_are_told_in_their_order(store: Arc<dyn Store>) -> Checked {
    let mut watch = watch_all(&*store).await?;
    let mut written = Vec::new();
    for at in ["b", "a", "c", "a"] {
        written.push((key(at), put(&*store, at, "x").await?));
    }
    for (key, revision) in written {
        let batch = next(&mut watch).await?;
        assert_eq!(batch.revision, revision);
        assert_eq!(put_of(&batch).ok_or("no put")?.key, key);
    }
    assert!(silent(&mut watch).await);
    Ok(())
}

/// What was before is not told.
pub async fn a_watch_starts_behind_its_revision(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "1").await?;
    let after = put(&*store, "a", "2").await?;
    let third = put(&*store, "a", "3").await?;
    let mut watch = store.watch(key("a"), after).await?;
    assert_eq!(next(&mut watch).await?.revision, third);
    assert!(silent(&mut watch).await);
    Ok(())
}

/// A put is told as it reads.
pub async fn a_put_is_told_whole(store: Arc<dyn Store>) -> Checked {
    let lease = store.grant(std::time::Duration::from_mins(1)).await?;
    let mut watch = watch_all(&*store).await?;
    put(&*store, "plain", "value").await?;
    store.put_leased(&key("leased"), Bytes::new(), lease).await?;
    for at in ["plain", "leased"] {
        let batch = next(&mut watch).await?;
        let entry = put_of(&batch).ok_or("no put")?;
        assert_eq!(Some(entry), store.get(&key(at)).await?.as_ref());
        assert_eq!(entry.revision, batch.revision);
    }
    Ok(())
}

/// By its key.
pub async fn a_deletion_is_told(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "1").await?;
    let mut watch = watch_all(&*store).await?;
    let revision = store.delete(&key("a")).await?.ok_or("absent")?;
    let batch = next(&mut watch).await?;
    assert_eq!(batch, Batch { revision, changes: vec![Change::Deleted(key("a"))] });
    Ok(())
}

/// Promise 1: none split.
pub async fn a_commit_is_told_as_one_batch(store: Arc<dyn Store>) -> Checked {
    put(&*store, "old", "x").await?;
    let mut watch = watch_all(&*store).await?;
    let revision = committed(&*store, Commit::new().put("b", "2").put("a", "1").delete("old")).await?;
    let mut batch = next(&mut watch).await?;
    assert_eq!(batch.revision, revision);
    batch.changes.sort_by(|one, other| one.key().cmp(other.key()));
    let told: Vec<_> = batch.changes.iter().map(|change| change.key().to_string()).collect();
    assert_eq!(told, ["a", "b", "old"]);
    assert!(matches!(&batch.changes[..], [Change::Put(_), Change::Put(_), Change::Deleted(_)]));
    assert!(silent(&mut watch).await);
    Ok(())
}

/// Promise 1: only what is under the prefix.
pub async fn a_batch_holds_only_what_is_under_the_prefix(store: Arc<dyn Store>) -> Checked {
    let mut watch = store.watch(key("log/"), store.revision().await?).await?;
    let commit = Commit::new().put("log/h", "1").put("log", "2").put("log0", "3").put("presence/a", "4");
    committed(&*store, commit).await?;
    let batch = next(&mut watch).await?;
    assert_eq!(put_of(&batch).ok_or("more than one change")?.key, key("log/h"));
    Ok(())
}

/// Promise 1: no empty batches.
pub async fn commits_elsewhere_are_not_told(store: Arc<dyn Store>) -> Checked {
    let mut watch = store.watch(key("a/"), store.revision().await?).await?;
    put(&*store, "b/1", "x").await?;
    committed(&*store, Commit::new().put("b/2", "x").delete("b/1")).await?;
    assert!(silent(&mut watch).await);
    let revision = put(&*store, "a/1", "x").await?;
    assert_eq!(next(&mut watch).await?.revision, revision);
    Ok(())
}

/// Watch the head key only: that is watching a prefix that is a key.
pub async fn a_key_is_under_itself(store: Arc<dyn Store>) -> Checked {
    let mut watch = store.watch(key("head"), store.revision().await?).await?;
    let revision = put(&*store, "head", "x").await?;
    assert_eq!(next(&mut watch).await?.revision, revision);
    Ok(())
}

/// Prefixes are bytes.
pub async fn a_prefix_may_end_in_the_last_byte(store: Arc<dyn Store>) -> Checked {
    let prefix = Key::from(&[b'p', 0xff][..]);
    let mut watch = store.watch(prefix.clone(), store.revision().await?).await?;
    store.put(&key("q"), Bytes::new()).await?;
    let revision = store.put(&prefix.join([0xff]), Bytes::new()).await?;
    assert_eq!(next(&mut watch).await?.revision, revision);
    Ok(())
}

/// What didn't happen is not told.
pub async fn a_conflict_is_not_told(store: Arc<dyn Store>) -> Checked {
    use crate::CasStore;
    put(&*store, "a", "1").await?;
    let mut watch = watch_all(&*store).await?;
    let outcome = store.commit(Commit::new().guard("a", Guard::Absent).put("b", "2")).await?;
    assert!(outcome.committed().is_none());
    assert!(silent(&mut watch).await);
    Ok(())
}

/// Promise 4 of `KvStore`.
pub async fn deleting_what_is_absent_is_not_told(store: Arc<dyn Store>) -> Checked {
    let mut watch = watch_all(&*store).await?;
    assert_eq!(store.delete(&key("a")).await?, None);
    committed(&*store, Commit::new().delete("a").put("b", "1")).await?;
    let batch = next(&mut watch).await?;
    assert_eq!(put_of(&batch).ok_or("more than one change")?.key, key("b"));
    assert!(silent(&mut watch).await);
    Ok(())
}

/// Told when it happens, not when somebody asks again.
pub async fn a_waiting_watch_wakes(store: Arc<dyn Store>) -> Checked {
    let mut watch = watch_all(&*store).await?;
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { next(&mut watch).await });
    tokio::time::sleep(A_WHILE).await;
    let revision = put(&*store, "a", "x").await?;
    let batch = timeout(SOON, waiting.join_next()).await?.ok_or("no task")???;
    assert_eq!(batch.revision, revision);
    Ok(())
}

/// `select!` drops futures all the time.
pub async fn a_dropped_next_loses_nothing(store: Arc<dyn Store>) -> Checked {
    let mut watch = watch_all(&*store).await?;
    let mut told = Vec::new();
    let mut written = Vec::new();
    for round in 0..10 {
        for _ in 0..5 {
            if let Ok(batch) = timeout(std::time::Duration::from_micros(50 * round), watch.next()).await {
                told.push(batch?.revision);
            }
        }
        written.push(put(&*store, "a", "x").await?);
    }
    while told.len() < written.len() {
        told.push(next(&mut watch).await?.revision);
    }
    assert_eq!(told, written);
    Ok(())
}

/// One watcher takes nothing from another, however slow.
pub async fn watches_are_independent(store: Arc<dyn Store>) -> Checked {
    let mut quick = watch_all(&*store).await?;
    let mut slow = watch_all(&*store).await?;
    let dropped = watch_all(&*store).await?;
    let first = put(&*store, "a", "1").await?;
    assert_eq!(next(&mut quick).await?.revision, first);
    drop(dropped);
    let second = put(&*store, "a", "2").await?;
    assert_eq!(next(&mut quick).await?.revision, second);
    assert_eq!(next(&mut slow).await?.revision, first);
    assert_eq!(next(&mut slow).await?.revision, second);
    Ok(())
}

/// Promise 2.
pub async fn what_is_told_can_be_read(store: Arc<dyn Store>) -> Checked {
    let mut watch = watch_all(&*store).await?;
    let writer = Arc::clone(&store);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 0..50_u8 {
            writer.put(&key("a"), Bytes::from(vec![number])).await?;
        }
        Checked::Ok(())
    });
    for _ in 0..50 {
        let batch = next(&mut watch).await?;
        let read = store.get(&key("a")).await?.ok_or("absent")?;
        assert!(read.revision >= batch.revision);
        assert!(store.revision().await? >= batch.revision);
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Promise 1, with many writers: none missing, none doubled, in order, whole.
pub async fn under_many_writers_nothing_is_missing_or_doubled(store: Arc<dyn Store>) -> Checked {
    const WRITERS: u8 = 8;
    const EACH: u8 = 25;
    let mut watch = watch_all(&*store).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for number in 0..EACH {
                let one = Key::from(vec![b'a', writer]);
                let two = Key::from(vec![b'b', writer]);
                let commit = Commit::new().put(one, vec![number]).put(two, vec![number]);
                revisions.push(committed(&*store, commit).await?);
            }
            Ok::<_, crate::BoxError>(revisions)
        });
    }
    let mut written = Vec::new();
    while let Some(revisions) = writers.join_next().await {
        written.extend(revisions??);
    }
    written.sort_unstable();
    let mut told = Vec::new();
    for _ in 0..written.len() {
        let batch = next(&mut watch).await?;
        assert_eq!(batch.changes.len(), 2);
        told.push(batch.revision);
    }
    assert_eq!(told, written);
    assert!(silent(&mut watch).await);
    Ok(())
}

/// The seam from reading to watching, with a writer at work: promise 7 of `KvStore`.
pub async fn who_reads_and_then_watches_misses_nothing(store: Arc<dyn Store>) -> Checked {
    const WRITES: u8 = 60;
    let writer = Arc::clone(&store);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 1..=WRITES {
            writer.put(&key("count"), Bytes::from(vec![number])).await?;
        }
        Checked::Ok(())
    });
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let after = store.revision().await?;
    let mut seen = value(&*store, "count").await?.map_or(0, |value| value[0]);
    let mut watch = store.watch(key("count"), after).await?;
    while seen < WRITES {
        let batch = next(&mut watch).await?;
        let told = put_of(&batch).ok_or("no put")?.value[0];
        // It may tell again what was read, but never skip.
        assert!(told <= seen + 1, "{told} after {seen}");
        seen = seen.max(told);
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Promise 4.
pub async fn a_revision_ahead_is_waited_for(store: Arc<dyn Store>) -> Checked {
    let now = put(&*store, "a", "0").await?;
    let ahead = Revision(now.0 + 2);
    let mut watch = store.watch(key("a"), ahead).await?;
    let mut later = Vec::new();
    for _ in 0..4 {
        later.push(put(&*store, "a", "x").await?);
    }
    later.retain(|revision| *revision > ahead);
    for revision in later {
        assert_eq!(next(&mut watch).await?.revision, revision);
    }
    Ok(())
}

/// Promise 3: either the whole history or a clear word, never a gap.
pub async fn who_is_too_late_is_told_so(store: Arc<dyn Store>) -> Checked {
    const WRITERS: usize = 64;
    const EACH: usize = 80;
    let start = put(&*store, "k/start", "x").await?;
    let mut sleepy = store.watch(key("k/"), start).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for _ in 0..EACH {
                store.put(&Key::from(format!("k/{writer}")), Bytes::new()).await?;
            }
            Checked::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let mut told = 0;
    let oldest = loop {
        match timeout(SOON, sleepy.next()).await? {
            Ok(_) => told += 1,
            Err(StoreError::Compacted { after, oldest }) => {
                assert!(after < oldest);
                break oldest;
            }
            Err(error) => return Err(error.into()),
        }
        if told == WRITERS * EACH {
            return Ok(());
        }
    };
    assert_eq!(told, 0, "it was told a part");
    assert!(oldest <= store.revision().await?);
    assert!(matches!(store.watch(key("k/"), start).await, Err(StoreError::Compacted { .. })));
    let mut anew = store.watch(key("k/"), oldest).await?;
    assert!(next(&mut anew).await?.revision > oldest);
    Ok(())
}

/// Promise 3: the way back in.
pub async fn watching_after_the_present_revision_always_works(store: Arc<dyn Store>) -> Checked {
    for _ in 0..20 {
        put(&*store, "a", "x").await?;
        let mut watch = watch_all(&*store).await?;
        let revision = put(&*store, "a", "y").await?;
        assert_eq!(next(&mut watch).await?.revision, revision);
    }
    Ok(())
}
