//! A backend that nobody ships: the four traits on SQLite, written from `docs/guide/backend.md`.
//!
//! It shows that the guide suffices, and that the suite knows nothing of the backends it was written with. Read it
//! beside the guide, in this order: `table` (bytes in a database), `change` (what one commit does), `store` (the
//! traits).
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod change;
mod log;
mod store;
mod table;

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tempfile::TempDir;
use underpass_store::Store;
use underpass_store::testkit::{Backend, cas, durable, expirable, kv, model, watchable};

use crate::store::SqliteStore;

/// A file in a folder of its own.
struct Place {
    folder: TempDir,
    store: Mutex<Option<Arc<SqliteStore>>>,
}

fn fresh() -> Ready<Option<Place>> {
    ready(Some(Place { folder: tempfile::tempdir().unwrap(), store: Mutex::new(None) }))
}

#[async_trait]
impl Backend for Place {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(SqliteStore::open(&self.folder.path().join("store.sqlite")).unwrap());
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

kv!(fresh());
cas!(fresh());
expirable!(fresh());
watchable!(fresh());
durable!(fresh());
model!(fresh(), 50);
