//! What the writer does when the disk does what it likes. The disk is the closure that makes batches durable.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use tokio::task::JoinSet;
use underpass_store::{
    CasStore, Commit, ExpirableStore, Guard, Key, KvStore, LeaseId, Revision, StoreError, WatchableStore,
};

use crate::writer::{Durable, synced};
use crate::{RocksOptions, RocksStore};

/// A disk that stops before each sync until it is let go on, and counts.
fn halting(syncs: Arc<AtomicUsize>) -> (Durable, SyncSender<()>, Receiver<()>) {
    let (go, gate) = sync_channel::<()>(0);
    let (arrived, at_gate) = sync_channel::<()>(1000);
    let mut disk = synced();
    let durable: Durable = Box::new(move |db, batch| {
        syncs.fetch_add(1, Ordering::SeqCst);
        arrived.send(())?;
        // Once the test lets go of the gate, it stands open.
        let _ = gate.recv();
        disk(db, batch)
    });
    (durable, go, at_gate)
}

fn failing(broken: Arc<AtomicBool>) -> Durable {
    let mut disk = synced();
    Box::new(
        move |db, batch| {
            if broken.load(Ordering::SeqCst) { Err("the disk is broken".into()) } else { disk(db, batch) }
        },
    )
}

fn open(path: &Path, durable: Durable) -> Arc<RocksStore> {
    Arc::new(RocksStore::open_with(path, RocksOptions::default(), durable).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_share_one_sync_and_each_has_its_revision() {
    const COMMITS: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicUsize::new(0));
    let (durable, go, at_gate) = halting(Arc::clone(&syncs));
    let store = open(folder.path(), durable);
    let mut commits = JoinSet::new();
    let first = Arc::clone(&store);
    commits.spawn(async move { first.put(&Key::from("first"), Bytes::new()).await });
    let at_gate =
        tokio::task::spawn_blocking(move || at_gate.recv().map(|()| at_gate)).await.unwrap().unwrap();
    // The writer stands before its first sync: the others gather behind it.
    for number in 0..COMMITS {
        let store = Arc::clone(&store);
        commits.spawn(async move { store.put(&Key::from(format!("k/{number}")), Bytes::new()).await });
    }
    while store.waiting() < COMMITS {
        tokio::task::yield_now().await;
    }
    drop(go);
    let mut revisions = Vec::new();
    while let Some(revision) = commits.join_next().await {
        revisions.push(revision.unwrap().unwrap().0);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=101).collect::<Vec<_>>());
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    drop(at_gate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_a_write_before_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, go, at_gate) = halting(Arc::default());
    let store = open(folder.path(), durable);
    let mut watch = store.watch(Key::open(), Revision(0)).await.unwrap();
    let writer = Arc::clone(&store);
    let mut writing = JoinSet::new();
    writing.spawn(async move { writer.put(&Key::from("a"), Bytes::new()).await });
    tokio::task::spawn_blocking(move || at_gate.recv()).await.unwrap().unwrap();
    assert_eq!(store.get(&Key::from("a")).await.unwrap(), None);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 1000).await.unwrap(), []);
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    let told = tokio::time::timeout(std::time::Duration::from_millis(50), watch.next()).await;
    assert!(told.is_err(), "{told:?}");
    drop(go);
    assert_eq!(writing.join_next().await.unwrap().unwrap().unwrap(), Revision(1));
    assert!(store.get(&Key::from("a")).await.unwrap().is_some());
    assert_eq!(watch.next().await.unwrap().revision, Revision(1));
}

#[tokio::test]
async fn a_failed_sync_poisons_the_store_until_it_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = open(folder.path(), failing(Arc::clone(&broken)));
    store.put(&Key::from("a"), "1".into()).await.unwrap();
    let lease = store.grant(std::time::Duration::from_mins(1)).await.unwrap();

    broken.store(true, Ordering::SeqCst);
    let unknown = store.put(&Key::from("a"), "2".into()).await;
    assert!(matches!(unknown, Err(StoreError::Indeterminate { op: "put", .. })), "{unknown:?}");

    // The disk works again, but nobody knows what it has dropped.
    broken.store(false, Ordering::SeqCst);
    let refused = store.put(&Key::from("a"), "3".into()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { op: "put", .. })), "{refused:?}");
    let commit = Commit::new().guard("b", Guard::Absent).put("b", "x");
    assert!(matches!(store.commit(commit).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.renew(lease).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.revoke(lease).await, Err(StoreError::Unavailable { .. })));

    // Reads go on, from what is certain.
    assert_eq!(store.get(&Key::from("a")).await.unwrap().unwrap().value, "1");
    assert_eq!(store.revision().await.unwrap(), Revision(1));
    store.close().await;
    drop(store);

    let store = open(folder.path(), synced());
    assert_eq!(store.get(&Key::from("a")).await.unwrap().unwrap().value, "1");
    assert_eq!(store.put(&Key::from("a"), "3".into()).await.unwrap(), Revision(2));
}

// C67
#[tokio::test]
async fn c67_a_store_whose_disk_has_failed_opens_itself_anew_with_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let store = open(folder.path(), failing(Arc::clone(&broken)));
    store.put(&Key::from("a"), "1".into()).await.unwrap();
    let lease = store.grant(std::time::Duration::from_mins(1)).await.unwrap();
    store.put_leased(&Key::from("l"), "x".into(), lease).await.unwrap();
    let before = store.revision().await.unwrap();

    broken.store(true, Ordering::SeqCst);
    assert!(store.put(&Key::from("a"), "2".into()).await.is_err());
    broken.store(false, Ordering::SeqCst);
    let deadline = std::time::Duration::from_secs(30);
    let again = tokio::time::timeout(deadline, async {
        loop {
            match store.put(&Key::from("a"), "3".into()).await {
                Ok(revision) => break revision,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    });
    assert_eq!(again.await.unwrap(), Revision(before.0 + 1));
    assert_eq!(store.get(&Key::from("a")).await.unwrap().unwrap().value, "3");
    assert_eq!(store.get(&Key::from("l")).await.unwrap().unwrap().lease, Some(lease));
    assert!(matches!(store.renew(lease).await, Ok(underpass_store::Renewal::Renewed)));
    assert!(
        store.watch(Key::open(), before).await.is_ok(),
        "nothing happened that watchers could have missed"
    );
}

// C67
#[tokio::test]
async fn c67_a_write_that_failed_and_did_happen_is_no_secret_to_watchers() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = synced();
    let mut first = true;
    // The first write gets to the disk, and the answer doesn't.
    let durable: Durable = Box::new(move |db, batch| {
        disk(db, batch)?;
        if std::mem::take(&mut first) { Err("the answer is lost".into()) } else { Ok(()) }
    });
    let store = open(folder.path(), durable);
    let mut watch = store.watch(Key::open(), Revision(0)).await.unwrap();
    let create = || Commit::new().guard("a", Guard::Absent).put("a", "x");
    assert!(matches!(store.commit(create()).await, Err(StoreError::Indeterminate { .. })));
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), watch.next()).await.unwrap();
    assert!(matches!(told, Err(StoreError::Compacted { .. })), "{told:?}");
    let again = store.commit(create()).await.unwrap();
    assert!(matches!(again, underpass_store::Outcome::Conflict(_)), "{again:?}");
    assert_eq!(store.revision().await.unwrap(), Revision(1));
}

#[tokio::test]
async fn a_conflict_decided_on_a_write_that_fails_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let store = open(folder.path(), failing(broken));
    let create = || Commit::new().guard("a", Guard::Absent).put("a", "x");
    // Sent together: both may be of one group, where the second loses against the first.
    let (one, two) = tokio::join!(store.commit(create()), store.commit(create()));
    for outcome in [one, two] {
        assert!(
            matches!(outcome, Err(StoreError::Indeterminate { .. } | StoreError::Unavailable { .. })),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_caller_that_stops_waiting_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), synced());
    for number in 0..50_u8 {
        let name = Key::from(vec![b'k', number]);
        let put = store.put(&name, Bytes::new());
        let _ = tokio::time::timeout(std::time::Duration::from_micros(u64::from(number) * 20), put).await;
    }
    store.put(&Key::from("last"), Bytes::new()).await.unwrap();
    let stored = store.scan(&Key::open(), &Key::open(), 1000).await.unwrap();
    assert_eq!(stored.len() as u64, store.revision().await.unwrap().0);
}

#[tokio::test]
async fn closing_finishes_what_was_asked_for_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), synced());
    let mut writes = JoinSet::new();
    for number in 0..50_u8 {
        let store = Arc::clone(&store);
        writes.spawn(async move { store.put(&Key::from(vec![b'k', number]), Bytes::new()).await });
    }
    tokio::task::yield_now().await;
    store.close().await;
    store.close().await;
    let mut acknowledged = 0;
    while let Some(write) = writes.join_next().await {
        match write.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error}"),
        }
    }
    let store = open(folder.path(), synced());
    assert_eq!(store.revision().await.unwrap(), Revision(acknowledged));
    assert!(matches!(store.renew(LeaseId(9)).await, Ok(underpass_store::Renewal::Gone)));
}
