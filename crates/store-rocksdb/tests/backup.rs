//! Backups of a store that is in use.
#![allow(clippy::unwrap_used)]

use underpass_store::{Key, KvStore};
use underpass_store_rocksdb::{BackupError, RocksOptions, RocksStore};

fn open(path: &std::path::Path) -> RocksStore {
    RocksStore::open(path, RocksOptions::default()).unwrap()
}

fn key(number: u32) -> Key {
    Key::from(format!("key/{number:06}"))
}

/// What was acknowledged before is in the copy; of what came later it has the beginning.
#[tokio::test]
async fn a_backup_of_a_store_in_use_holds_a_moment_of_it() {
    let parent = tempfile::tempdir().unwrap();
    let store = open(&parent.path().join("store"));
    for number in 0..200 {
        store.put(&key(number), vec![7; 5000].into()).await.unwrap();
    }
    let mut stood = Vec::new();
    let writing = async {
        for number in 200..1200 {
            store.put(&key(number), vec![7; 5000].into()).await.unwrap();
        }
    };
    let backing_up = async {
        for nth in 0..3 {
            let acknowledged = store.revision().await.unwrap();
            let copy = parent.path().join(format!("copy-{nth}"));
            let at = store.backup(&copy).await.unwrap();
            assert!(at >= acknowledged);
            stood.push((copy, at));
        }
    };
    tokio::join!(writing, backing_up);
    store.close().await;
    for (copy, at) in stood {
        let opened = open(&copy);
        assert_eq!(opened.revision().await.unwrap(), at);
        let entries = opened.scan(&key(0), &Key::from("key0"), 5000).await.unwrap();
        assert!(entries.len() >= 200);
        for (number, entry) in (0..).zip(&entries) {
            assert_eq!((&entry.key, entry.value.len()), (&key(number), 5000), "dense up to its end");
        }
        // It is a store of its own.
        opened.put(&key(9999), "new".into()).await.unwrap();
        opened.close().await;
    }
    let again = open(&parent.path().join("store"));
    assert_eq!(again.get(&key(9999)).await.unwrap(), None, "the source is not touched by its copies");
    assert_eq!(again.scan(&key(0), &Key::from("key0"), 5000).await.unwrap().len(), 1200);
}

#[tokio::test]
async fn a_place_that_is_taken_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let store = open(&parent.path().join("store"));
    store.put(&key(1), "one".into()).await.unwrap();
    let foreign = parent.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "mine").unwrap();
    let copy = parent.path().join("copy");
    store.backup(&copy).await.unwrap();
    for taken in [&foreign, &copy, &parent.path().join("store")] {
        let error = store.backup(taken).await.unwrap_err();
        assert!(matches!(error, BackupError::NotEmpty(_)), "{error}");
    }
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().value, "one");
    store.close().await;
    let closed = store.backup(&parent.path().join("late")).await.unwrap_err();
    assert!(matches!(closed, BackupError::Store(_)), "{closed}");
}
