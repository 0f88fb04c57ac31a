//! The conformance suite on the in-memory backend.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::testkit::{Backend, cas, expirable, kv, model, watchable};
use crate::{Change, ExpirableStore, Key, KvStore, MemoryStore, Revision, Store, WatchableStore};

#[derive(Debug, Default)]
struct Memory(Mutex<Option<MemoryStore>>);

#[async_trait]
impl Backend for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let store = MemoryStore::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
        Arc::new(store)
    }

    async fn close(&self) {
        if let Some(store) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            store.close();
        }
    }

    fn durable(&self) -> bool {
        false
    }
}

fn fresh() -> Ready<Option<Memory>> {
    ready(Some(Memory::default()))
}

kv!(fresh());
cas!(fresh());
expirable!(fresh());
watchable!(fresh());
model!(fresh(), 2_000);

/// The clock of leases is tokio's, so tests of what stands on a store need not wait.
#[tokio::test(start_paused = true)]
async fn leases_run_on_a_clock_that_can_be_paused() {
    use std::time::Duration;

    use tokio::time::Instant;

    let store = MemoryStore::new();
    let start = Instant::now();
    let lease = store.grant(Duration::from_hours(1)).await.unwrap();
    store.put_leased(&Key::from("a"), "x".into(), lease).await.unwrap();
    let mut watch = store.watch(Key::open(), Revision(1)).await.unwrap();
    // Nobody calls the store: the watch alone sees the end of the lease.
    assert_eq!(watch.next().await.unwrap().changes, [Change::Deleted(Key::from("a"))]);
    let passed = start.elapsed();
    assert!(passed >= Duration::from_hours(1));
    assert!(passed <= Duration::from_hours(1) + store.limits().expiry_slack);
    assert_eq!(store.revision().await.unwrap(), Revision(2));
}
