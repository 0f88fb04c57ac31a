//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use underpass_store::Store;
use underpass_store::testkit::Backend;
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdServer;

/// Servers that no case is using. Revisions belong to a whole server, and many cases count them: each case has a
/// server to itself while it runs, and a new prefix on it.
static IDLE: Mutex<Vec<Arc<EtcdServer>>> = Mutex::new(Vec::new());

/// So many times, or more if `TORTURE` says so.
pub fn times(base: u32) -> u32 {
    base * std::env::var("TORTURE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// A prefix that nobody has used.
pub fn unused() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("case-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A prefix on a server, for the conformance suite.
pub struct Place {
    server: Option<Arc<EtcdServer>>,
    prefix: String,
    store: Mutex<Option<Arc<EtcdStore>>>,
    /// Closing stops the server too.
    restarts: bool,
}

/// A server that goes on while a store on it is closed.
pub async fn fresh() -> Option<Place> {
    let idle = IDLE.lock().unwrap().pop();
    let server = match idle {
        Some(server) => server,
        None => blocking(|| Arc::new(EtcdServer::start())).await,
    };
    // A lease that an earlier case has left would run out in the middle of this one.
    server.revoke_all_leases().await;
    Some(Place { server: Some(server), prefix: unused(), store: Mutex::new(None), restarts: false })
}

/// A server that is killed when the store is closed, and started when it is opened.
pub async fn restarting() -> Option<Place> {
    let mut place = fresh().await?;
    place.restarts = true;
    Some(place)
}

impl Place {
    fn server(&self) -> Arc<EtcdServer> {
        Arc::clone(self.server.as_ref().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && !self.restarts
            && !std::thread::panicking()
        {
            IDLE.lock().unwrap().push(server);
        }
    }
}

#[async_trait]
impl Backend for Place {
    async fn open(&self) -> Arc<dyn Store> {
        let server = self.server();
        if self.restarts {
            blocking(move || {
                if !server.is_running() {
                    server.restart();
                }
            })
            .await;
        }
        let store = Arc::new(EtcdStore::open(self.server().options(&self.prefix)).await.unwrap());
        *self.store.lock().unwrap() = Some(Arc::clone(&store));
        store
    }

    async fn close(&self) {
        let store = self.store.lock().unwrap().take();
        if let Some(store) = store {
            store.close().await;
        }
        if self.restarts {
            let server = self.server();
            blocking(move || server.kill()).await;
        }
    }

    fn durable(&self) -> bool {
        true
    }

    fn runs_while_closed(&self) -> bool {
        !self.restarts
    }
}

/// Servers start, stop and wait on the thread that asks.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
