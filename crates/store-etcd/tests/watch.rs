//! Watches where they are hard: large answers, slow readers, compaction.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::time::Duration;

use common::blocking;
use tokio::task::JoinSet;
use tokio::time::timeout;
use underpass_store::{
    Batch, CasStore, Commit, ExpirableStore, Key, KvStore, Revision, StoreError, Watch, WatchableStore,
};
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdServer;

async fn start() -> (EtcdServer, EtcdStore) {
    let server = blocking(EtcdServer::start).await;
    let store = EtcdStore::open(server.options("p")).await.unwrap();
    (server, store)
}

async fn next(watch: &mut Watch) -> Result<Batch, StoreError> {
    timeout(Duration::from_secs(30), watch.next()).await.expect("a batch is missing")
}

/// Far more than the 4 MiB that one message may have: etcd sends it in fragments.
#[tokio::test]
async fn a_watch_that_catches_up_with_large_commits_gets_all_of_them() {
    let (_server, store) = start().await;
    let start = store.revision().await.unwrap();
    let mut written = Vec::new();
    for number in 0..16_u8 {
        let commit = Commit::new()
            .put(Key::from(vec![b'a', number]), vec![number; 700 * 1024])
            .put(Key::from(vec![b'b', number]), vec![number; 700 * 1024]);
        written.push(store.commit(commit).await.unwrap().committed().unwrap());
    }
    let mut watch = store.watch(Key::open(), start).await.unwrap();
    for revision in written {
        let batch = next(&mut watch).await.unwrap();
        assert_eq!((batch.revision, batch.changes.len()), (revision, 2));
    }
}

/// One commit that is larger than a message: etcd cuts it, and we put it together again.
#[tokio::test]
async fn the_end_of_a_lease_with_thousands_of_entries_is_one_batch() {
    const ENTRIES: usize = 4_000;
    let (_server, store) = start().await;
    let lease = store.grant(Duration::from_mins(1)).await.unwrap();
    let mut at = 0;
    while at < ENTRIES {
        let mut commit = Commit::new();
        for _ in 0..100 {
            commit = commit.put_leased(format!("{at:01000}"), "", lease);
            at += 1;
        }
        store.commit(commit).await.unwrap().committed().unwrap();
    }
    let before = store.revision().await.unwrap();
    let mut running = store.watch(Key::open(), before).await.unwrap();
    store.revoke(lease).await.unwrap();
    let mut later = store.watch(Key::open(), before).await.unwrap();
    for watch in [&mut running, &mut later] {
        let batch = next(watch).await.unwrap();
        assert_eq!(batch.changes.len(), ENTRIES);
        assert_eq!(batch.revision, store.revision().await.unwrap());
    }
}

/// A page of a scan is bounded too.
#[tokio::test]
async fn a_scan_of_small_and_large_entries_is_whole() {
    let (_server, store) = start().await;
    for number in 0..40_u8 {
        store.put(&Key::from(vec![b'a', number]), "small".into()).await.unwrap();
    }
    // Behind the small ones, which let the scan think that the next page may be long.
    for number in 0..40_u8 {
        store.put(&Key::from(vec![b'b', number]), vec![number; 1024 * 1024].into()).await.unwrap();
    }
    let scanned = store.scan(&Key::open(), &Key::open(), usize::MAX).await.unwrap();
    assert_eq!(scanned.len(), 80);
    assert!(scanned.is_sorted_by_key(|entry| entry.key.clone()));
    assert_eq!(store.scan(&Key::from("b"), &Key::open(), 7).await.unwrap().len(), 7);
}

#[tokio::test]
async fn watchers_that_stop_reading_hold_up_nobody_and_lose_nothing() {
    const WRITES: usize = 300;
    let (_server, store) = start().await;
    let start = store.revision().await.unwrap();
    let mut asleep = Vec::new();
    for _ in 0..8 {
        asleep.push(store.watch(Key::open(), start).await.unwrap());
    }
    let mut awake = store.watch(Key::open(), start).await.unwrap();
    let mut written = Vec::new();
    for number in 0..WRITES {
        let value = vec![0; 64 * 1024];
        written.push(store.put(&Key::from(format!("k/{}", number % 10)), value.into()).await.unwrap());
        assert_eq!(next(&mut awake).await.unwrap().revision, written[number]);
    }
    for mut watch in asleep {
        for revision in &written {
            assert_eq!(next(&mut watch).await.unwrap().revision, *revision);
        }
    }
}

#[tokio::test]
async fn who_watches_from_before_a_compaction_is_told_so() {
    let (server, store) = start().await;
    let key = Key::from("a");
    let first = store.put(&key, "1".into()).await.unwrap();
    let mut running = store.watch(key.clone(), first).await.unwrap();
    for _ in 0..10 {
        store.put(&key, "x".into()).await.unwrap();
    }
    let last = store.put(&key, "y".into()).await.unwrap();
    let oldest = i64::try_from(last.0).unwrap();
    server.client().await.compact(oldest, None).await.unwrap();
    let mut late = store.watch(key.clone(), first).await.unwrap();
    for _ in 0..2 {
        let told = next(&mut late).await.unwrap_err();
        assert!(
            matches!(told, StoreError::Compacted { after, oldest } if after == first && oldest == last),
            "{told}"
        );
    }
    // From there it works, and who was there before has missed nothing.
    let mut anew = store.watch(key.clone(), last).await.unwrap();
    let newest = store.put(&key, "z".into()).await.unwrap();
    assert_eq!(next(&mut anew).await.unwrap().revision, newest);
    for _ in 0..11 {
        next(&mut running).await.unwrap();
    }
    assert_eq!(next(&mut running).await.unwrap().revision, newest);
}

/// A scan of many pages stands on one revision; where that is compacted meanwhile, it begins again.
#[tokio::test]
async fn scans_under_compaction_are_of_one_instant() {
    const PAIRS: u32 = 400;
    let (server, store) = start().await;
    let write = async |round: u32| {
        let mut at = 0;
        while at < PAIRS {
            let mut commit = Commit::new();
            for _ in 0..100 {
                commit = commit.put(format!("{at:05}"), round.to_string());
                at += 1;
            }
            store.commit(commit).await.unwrap().committed().unwrap();
        }
    };
    write(0).await;
    let mut compacting = JoinSet::new();
    let mut client = server.client().await;
    compacting.spawn(async move {
        loop {
            let now = client.get("x", None).await.unwrap().header().unwrap().revision();
            // It may be compacted already.
            let _ = client.compact(now, None).await;
        }
    });
    let all = Key::open();
    for round in 1..20 {
        let ((), scanned) = tokio::join!(write(round), store.scan(&all, &all, usize::MAX));
        let scanned = match scanned {
            Ok(scanned) => scanned,
            // Compacted again and again: that is answered, too, and nothing false is.
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
                continue;
            }
        };
        assert_eq!(scanned.len(), PAIRS as usize);
        for hundred in scanned.chunks(100) {
            assert!(hundred.iter().all(|entry| entry.revision == hundred[0].revision));
        }
    }
    assert!(store.revision().await.unwrap() > Revision(0));
}
