//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::future::{Ready, ready};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tempfile::TempDir;
use underpass_store::testkit::Backend;
use underpass_store::{Entry, Key, KvStore, Store};
use underpass_store_rocksdb::{OpenError, RocksOptions, RocksStore};

pub fn open(path: &Path) -> Result<RocksStore, OpenError> {
    RocksStore::open(path, RocksOptions::default())
}

/// The entry that the tests write as number `number`.
pub fn name(number: u64) -> Key {
    Key::from(format!("entry/{number:06}"))
}

/// Its value: long enough to fill blocks, different everywhere.
pub fn value(number: u64) -> Vec<u8> {
    (0..200 + number % 100).flat_map(|at| (number * 1_000_003 + at * at).to_le_bytes()).collect()
}

pub async fn put(store: &RocksStore, number: u64) {
    store.put(&name(number), value(number).into()).await.unwrap();
}

/// Whether `entry` is what was written as number `number`.
pub fn is_right(entry: &Entry, number: u64) -> bool {
    entry.key == name(number) && entry.value == value(number)
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// So many times, or more if `TORTURE` says so.
pub fn times(base: u64) -> u64 {
    base * std::env::var("TORTURE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// A folder, for the conformance suite.
pub struct Folder {
    folder: TempDir,
    store: Mutex<Option<Arc<RocksStore>>>,
}

pub fn fresh() -> Ready<Option<Folder>> {
    ready(Some(Folder { folder: tempfile::tempdir().unwrap(), store: Mutex::new(None) }))
}

#[async_trait]
impl Backend for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(open(self.folder.path()).unwrap());
        *self.store.lock().unwrap() = Some(Arc::clone(&store));
        store
    }

    async fn close(&self) {
        let store = self.store.lock().unwrap().take();
        if let Some(store) = store {
            store.close().await;
        }
    }

    fn durable(&self) -> bool {
        true
    }
}
