use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Call, Compacting, Fault, Flaky, Interleaving, Odds, Slow, Stale, Unguarded};
use crate::{
    CasStore, Commit, Guard, Key, KvStore, MemoryStore, Outcome, Revision, StoreError, WatchableStore,
};

fn key() -> Key {
    Key::from("a")
}

#[tokio::test]
async fn a_script_decides_call_by_call_what_happens_and_what_is_told() {
    use Fault::{IndeterminateDone, IndeterminateNotDone, None, Unavailable};
    let store =
        Flaky::scripted(MemoryStore::new(), [Unavailable, IndeterminateDone, None, IndeterminateNotDone]);
    let there = async || store.inner().get(&key()).await.unwrap().map(|entry| entry.value);

    let first = store.put(&key(), "1".into()).await;
    assert!(matches!(first, Err(StoreError::Unavailable { op: "put", .. })));
    assert_eq!(there().await, Option::None);
    let second = store.put(&key(), "2".into()).await;
    assert!(matches!(second, Err(StoreError::Indeterminate { op: "put", .. })));
    assert_eq!(there().await, Some("2".into()));
    store.put(&key(), "3".into()).await.unwrap();
    let fourth = store.put(&key(), "4".into()).await;
    assert!(matches!(fourth, Err(StoreError::Indeterminate { .. })));
    assert_eq!(there().await, Some("3".into()));
    store.put(&key(), "5".into()).await.unwrap();

    store.add([IndeterminateDone]);
    assert!(matches!(store.get(&key()).await, Err(StoreError::Unavailable { op: "get", .. })));
    assert_eq!(store.get(&key()).await.unwrap().unwrap().value, "5");
}

#[tokio::test]
async fn a_script_for_one_kind_of_call_leaves_the_others_alone() {
    let store = Flaky::scripted_for(MemoryStore::new(), Call::Commit, [Fault::Unavailable]);
    store.put(&key(), "1".into()).await.unwrap();
    store.get(&key()).await.unwrap();
    assert!(store.commit(Commit::new().put("b", "2")).await.is_err());
    assert!(store.commit(Commit::new().put("b", "2")).await.is_ok());
}

#[tokio::test]
async fn the_same_seed_fails_the_same_way_about_as_often_as_asked() {
    let run = async |seed| {
        let odds = Odds { unavailable: 200, indeterminate: 200 };
        let store = Flaky::seeded(MemoryStore::new(), seed, odds);
        let mut told = Vec::new();
        for _ in 0..1000 {
            told.push(match store.put(&key(), "x".into()).await {
                Ok(_) => 'o',
                Err(StoreError::Unavailable { .. }) => 'u',
                Err(_) => 'i',
            });
        }
        let done = store.inner().revision().await.unwrap().0;
        let count = |kind| told.iter().filter(|one| **one == kind).count() as u64;
        assert!((100..300).contains(&count('u')) && (100..300).contains(&count('i')));
        // Some of the unknown have happened, some have not.
        assert!(done > count('o') + 20 && done < count('o') + count('i') - 20);
        told
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_its_time_both_ways_and_loses_no_batch() {
    let delay = Duration::from_secs(1);
    let store = Slow::new(MemoryStore::new(), delay);
    let start = Instant::now();
    store.put(&key(), "1".into()).await.unwrap();
    assert_eq!(start.elapsed(), 2 * delay);
    let mut watch = store.watch(key(), Revision(0)).await.unwrap();
    assert!(tokio::time::timeout(delay / 2, watch.next()).await.is_err());
    assert_eq!(watch.next().await.unwrap().revision, Revision(1));
}

#[tokio::test]
async fn compacting_kills_running_watches_and_refuses_older_ones() {
    let store = Compacting::new(MemoryStore::new());
    store.put(&key(), "1".into()).await.unwrap();
    let mut watch = store.watch(key(), Revision(0)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, Revision(1));
    store.put(&key(), "2".into()).await.unwrap();
    assert_eq!(store.compact().await.unwrap(), Revision(2));
    for _ in 0..2 {
        let killed = watch.next().await;
        assert!(matches!(killed, Err(StoreError::Compacted { after: Revision(1), oldest: Revision(2) })));
    }
    assert!(matches!(store.watch(key(), Revision(1)).await, Err(StoreError::Compacted { .. })));
    let mut anew = store.watch(key(), Revision(2)).await.unwrap();
    store.put(&key(), "3".into()).await.unwrap();
    assert_eq!(anew.next().await.unwrap().revision, Revision(3));
}

#[tokio::test]
async fn another_can_be_faster_at_a_chosen_call() {
    let store = Interleaving::new(Arc::new(MemoryStore::new()));
    store.before(Call::Commit, 1, |store| async move {
        store.put(&key(), "theirs".into()).await.unwrap();
    });
    let create = |at: &'static str| Commit::new().guard(at, Guard::Absent).put(at, "mine");
    assert!(store.commit(create("b")).await.unwrap().committed().is_some());
    let lost = store.commit(create("a")).await.unwrap();
    assert_eq!(lost, Outcome::Conflict(vec![(key(), Some(Revision(2)))]));
    assert!(store.commit(create("c")).await.unwrap().committed().is_some());
}

#[tokio::test]
async fn a_store_without_guards_overwrites_and_only_where_it_is_told_to() {
    let twice =
        Commit::new().guard("a/1", Guard::Absent).guard("b", Guard::Absent).put("a/1", "x").put("b", "x");
    for (prefix, thousandths, happens) in
        [("a", 1000, false), ("", 1000, true), ("", 0, false), ("c", 1000, false)]
    {
        let store = Unguarded::seeded(MemoryStore::new(), 1, Key::from(prefix), thousandths);
        assert!(store.commit(twice.clone()).await.unwrap().committed().is_some());
        let again = store.commit(twice.clone()).await.unwrap();
        assert_eq!(again.committed().is_some(), happens, "{prefix} {thousandths}");
        let Outcome::Conflict(failed) = again else { continue };
        assert_eq!(failed.len(), if prefix == "a" { 1 } else { 2 }, "{prefix} {thousandths}");
    }
}

#[tokio::test]
async fn a_stale_store_shows_what_it_had_shown() {
    let store = Stale::seeded(MemoryStore::new(), 1, 500);
    let mut stale = 0;
    for number in 0..100_u8 {
        store.put(&key(), vec![number].into()).await.unwrap();
        let shown = store.get(&key()).await.unwrap().unwrap().value[0];
        assert!(shown <= number);
        stale += u32::from(shown < number);
        assert_eq!(store.get(&Key::from("b")).await.unwrap(), Option::None);
    }
    assert!((25..75).contains(&stale), "{stale}");
}
