//! Clients that append to one log, read it and take and lose fences, all at once: what they were told could have been
//! told by one log that does one thing after another.
//!
//! [`check`] says how that is found out, [`rules`] shows that it finds what it is meant to find.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod clients;
mod history;
mod rules;
mod tokens;

use std::sync::Arc;

use tokio::task::JoinSet;
use underpass_domain::LogName;
use underpass_eventlog::verify;
use underpass_store::testkit::faulty::{Stale, Unguarded};
use underpass_store::{Key, MemoryStore, Store};
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdServer;
use underpass_store_rocksdb::{RocksOptions, RocksStore};

use clients::{CLIENTS, History, OPERATIONS, Spoil, history};
use history::Appended;

/// Histories of a backend, all at once. `TORTURE=10` makes 50 of them, in ten rounds.
const HISTORIES: u64 = 5;

fn as_it_is(store: Arc<dyn Store>, _seed: u64) -> Arc<dyn Store> {
    store
}

/// What all histories of a backend came to: a check of nothing finds nothing.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: usize,
    elsewhere: usize,
    fenced: usize,
    unknown: usize,
    unknown_and_there: usize,
}

impl Seen {
    fn add(&mut self, history: &History) {
        let acknowledged = history.appends(|outcome| matches!(outcome, Appended::At(_)));
        self.acknowledged += acknowledged;
        self.elsewhere += history.appends(|outcome| matches!(outcome, Appended::EndsAt(_)));
        self.fenced += history.appends(|outcome| outcome == Appended::Fenced);
        self.unknown += history.appends(|outcome| outcome == Appended::Unknown);
        self.unknown_and_there += history.log.as_ref().unwrap().len() - 1 - acknowledged;
    }
}

/// Runs `one` for each seed.
async fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(one: impl Fn(u64) -> F) -> Vec<T> {
    let mut all = Vec::new();
    for round in 0..underpass_tests::torture().into() {
        let mut running = JoinSet::new();
        for seed in round * HISTORIES..(round + 1) * HISTORIES {
            running.spawn(one(seed));
        }
        all.extend(running.join_all().await);
    }
    all
}

async fn legal(store: Arc<dyn Store>, seed: u64) -> History {
    let history = history(Arc::clone(&store), seed, as_it_is).await;
    if let Err(why) = history.check() {
        panic!("seed {seed}: {why}\nthe log: {:?}\n{:#?}", history.log, history.operations);
    }
    assert!(history.operations.len() > CLIENTS * OPERATIONS / 2, "seed {seed}: most had no answer");
    let verified = verify(&store, LogName::Control).await.unwrap();
    assert!(verified.ok, "seed {seed}: {verified:?}");
    history
}

fn enough(histories: &[History]) {
    let mut seen = Seen::default();
    for history in histories {
        seen.add(history);
    }
    println!("{} histories: {seen:?}", histories.len());
    let least = histories.len();
    assert!(seen.acknowledged > 50 * least && seen.elsewhere > least && seen.fenced > least, "{seen:?}");
    assert!(seen.unknown > least && seen.unknown_and_there > 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_in_memory_is_linearizable() {
    enough(&each(|seed| legal(Arc::new(MemoryStore::new()), seed)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_on_rocksdb_is_linearizable() {
    let on_rocksdb = |seed| async move {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(RocksStore::open(folder.path(), RocksOptions::default()).unwrap());
        let history = legal(Arc::clone(&store) as _, seed).await;
        store.close().await;
        history
    };
    enough(&each(on_rocksdb).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_on_etcd_is_linearizable() {
    let server = Arc::new(tokio::task::spawn_blocking(EtcdServer::start).await.unwrap());
    let on_etcd = |seed| {
        let server = Arc::clone(&server);
        async move {
            let options = server.options(&format!("history-{seed}"));
            let store = Arc::new(EtcdStore::open(options).await.unwrap());
            let history = legal(Arc::clone(&store) as _, seed).await;
            store.close().await;
            history
        }
    };
    enough(&each(on_etcd).await);
}

/// Each history on a store that is bad in this way is found out.
async fn found(spoil: Spoil, how: &'static [&'static str]) {
    let one = move |seed| async move {
        let history = history(Arc::new(MemoryStore::new()), seed, spoil).await;
        let why = history.check().expect_err("nothing was found");
        println!("seed {seed}: {why}");
        assert!(how.iter().any(|how| why.contains(how)), "seed {seed}: {why}");
    };
    each(one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_loses_guards_is_found_out() {
    found(
        |store, seed| Arc::new(Unguarded::seeded(store, seed, Key::from("log/"), 300)),
        &["was acknowledged", "in the log twice", "were read"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_shows_what_was_is_found_out() {
    found(|store, seed| Arc::new(Stale::seeded(store, seed, 300)), &["had its answer before"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_takes_appends_under_a_lost_fence_is_found_out() {
    found(
        |store, seed| Arc::new(Unguarded::seeded(store, seed, Key::from("fence/"), 1000)),
        &["had its answer before", "stands behind itself"],
    )
    .await;
}
