//! A server that hangs, dies or is full: what callers are told, and what is true.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::blocking;
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions};
use tokio::time::{Instant, timeout};
use underpass_store::testkit::faulty::{Flaky, Odds};
use underpass_store::{
    CasStore, Commit, ExpirableStore, Guard, Key, KvStore, Outcome, Renewal, Revision, StoreError,
    WatchableStore, limits,
};
use underpass_store_etcd::testkit::{EtcdServer, Setup};
use underpass_store_etcd::{EtcdOptions, EtcdStore};

const TIMEOUT: Duration = Duration::from_secs(1);

async fn start() -> (Arc<EtcdServer>, EtcdStore) {
    let server = blocking(|| Arc::new(EtcdServer::start())).await;
    let store = EtcdStore::open(hasty(server.options("p"))).await.unwrap();
    (server, store)
}

fn hasty(mut options: EtcdOptions) -> EtcdOptions {
    options.request_timeout = TIMEOUT;
    options
}

fn key() -> Key {
    Key::from("head")
}

fn next(head: Revision, value: &'static str) -> Commit {
    Commit::new().guard(key(), Guard::At(head)).put(key(), value)
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn assert_unknown<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Indeterminate { .. })), "{result:?}");
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn assert_away<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
}

/// The request lies in the server's socket and is done when the server wakes: what is unknown was not undone.
#[tokio::test]
async fn a_commit_to_a_server_that_hangs_is_unknown_and_the_same_again_tells() {
    let (server, store) = start().await;
    let head = store.put(&key(), "0".into()).await.unwrap();
    for round in 0..common::times(3) {
        let head = store.get(&key()).await.unwrap().map_or(head, |entry| entry.revision);
        let mine: Bytes = format!("mine {round}").into();
        let commit = Commit::new().guard(key(), Guard::At(head)).put(key(), mine.clone());
        server.pause();
        let start = Instant::now();
        assert_unknown(store.commit(commit.clone()).await);
        assert_away(store.get(&key()).await);
        assert!(start.elapsed() < 10 * TIMEOUT);
        server.resume();
        // One of the two has happened, and never both.
        let again = store.commit(commit).await.unwrap();
        let entry = store.get(&key()).await.unwrap().unwrap();
        assert_eq!(entry.value, mine);
        match again {
            Outcome::Committed(revision) => assert_eq!(revision, entry.revision),
            Outcome::Conflict(failed) => assert_eq!(failed, [(key(), Some(entry.revision))]),
        }
    }
}

/// Which of the two the server does first, nobody knows beforehand; afterwards everybody does.
#[tokio::test]
async fn of_an_unknown_commit_and_that_of_another_one_happens_and_the_same_again_tells_which() {
    let (server, store) = start().await;
    let other = EtcdStore::open(server.options("p")).await.unwrap();
    let head = store.put(&key(), "0".into()).await.unwrap();
    server.pause();
    assert_unknown(store.commit(next(head, "mine")).await);
    server.resume();
    let theirs = other.commit(next(head, "theirs")).await.unwrap().committed();
    let entry = other.get(&key()).await.unwrap().unwrap();
    assert_eq!(entry.value, if theirs.is_some() { "theirs" } else { "mine" });
    let again = store.commit(next(head, "mine")).await.unwrap();
    assert_eq!(again, Outcome::Conflict(vec![(key(), Some(entry.revision))]));
}

#[tokio::test]
async fn what_a_dead_server_is_asked_has_not_happened() {
    let (server, patient) = start().await;
    let head = patient.put(&key(), "0".into()).await.unwrap();
    let mut options = server.options("p");
    options.request_timeout = TIMEOUT / 4;
    let store = EtcdStore::open(options).await.unwrap();
    let dead = Arc::clone(&server);
    blocking(move || dead.kill()).await;
    // The first request may find the connection still up and go down with it.
    let _ = store.get(&key()).await;
    assert_away(store.commit(next(head, "1")).await);
    assert_away(store.put(&key(), "1".into()).await);
    assert_away(store.delete(&key()).await);
    assert_away(store.grant(Duration::from_secs(5)).await);
    assert_away(store.scan(&Key::open(), &Key::open(), 1).await);
    assert_away(store.revision().await);
    assert_away(store.watch(key(), head).await);
    let restarted = Arc::clone(&server);
    blocking(move || restarted.restart()).await;
    assert_eq!(patient.get(&key()).await.unwrap().unwrap().revision, head);
    patient.commit(next(head, "1")).await.unwrap().committed().unwrap();
}

#[tokio::test]
async fn a_watch_outlives_the_death_of_its_server_and_misses_nothing() {
    let (server, store) = start().await;
    let mut watch = store.watch(key(), store.revision().await.unwrap()).await.unwrap();
    let mut written = vec![store.put(&key(), "0".into()).await.unwrap()];
    for _ in 0..common::times(2) {
        let restarted = Arc::clone(&server);
        blocking(move || {
            restarted.kill();
            restarted.restart();
        })
        .await;
        for _ in 0..5 {
            written.push(store.put(&key(), "x".into()).await.unwrap());
        }
    }
    for revision in written {
        let told = timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
        assert_eq!(told.revision, revision);
    }
}

/// C69, as far as the store goes: a node that slept through its lease.
#[tokio::test]
async fn a_holder_that_slept_through_its_lease_writes_nothing_under_its_old_fence() {
    let (_server, store) = start().await;
    let [node, log] = ["node/a", "log/h"].map(Key::from);
    let lease = store.grant(Duration::from_secs(2)).await.unwrap();
    let take = Commit::new().guard(&node, Guard::Absent).put_leased(&node, "first run", lease);
    let fence = store.commit(take).await.unwrap().committed().unwrap();
    let append = |fence, value: &'static str| Commit::new().guard(&node, Guard::At(fence)).put(&log, value);
    store.commit(append(fence, "1")).await.unwrap().committed().unwrap();

    // It sleeps. Its entry goes, and another takes its place.
    let mut watch = store.watch(node.clone(), fence).await.unwrap();
    let gone = timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
    let other = store.grant(Duration::from_mins(1)).await.unwrap();
    let take = Commit::new().guard(&node, Guard::Absent).put_leased(&node, "second run", other);
    let fence_of_other = store.commit(take).await.unwrap().committed().unwrap();
    assert!(fence_of_other > gone.revision);

    // It wakes and goes on as if nothing had been.
    let late = store.commit(append(fence, "2")).await.unwrap();
    assert_eq!(late, Outcome::Conflict(vec![(node.clone(), Some(fence_of_other))]));
    assert_eq!(store.renew(lease).await.unwrap(), Renewal::Gone);
    let under_it = store.put_leased(&Key::from("presence/x"), "a".into(), lease).await;
    assert!(matches!(under_it, Err(StoreError::LeaseGone { lease: named, .. }) if named == lease));
    assert_eq!(store.get(&log).await.unwrap().unwrap().value, "1");
    store.commit(append(fence_of_other, "2")).await.unwrap().committed().unwrap();
}

/// etcd names none.
#[tokio::test]
async fn of_several_leases_the_one_that_is_gone_is_named() {
    let (_server, store) = start().await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(store.grant(Duration::from_mins(1)).await.unwrap());
    }
    store.revoke(leases[1]).await.unwrap();
    let commit = leases
        .iter()
        .enumerate()
        .fold(Commit::new(), |commit, (at, lease)| commit.put_leased(format!("k/{at}"), "x", *lease));
    let refused = store.commit(commit).await;
    assert!(matches!(refused, Err(StoreError::LeaseGone { lease, .. }) if lease == leases[1]));
}

/// The write that fills the quota is done and yet answered with an error; later ones aren't done. An operator
/// makes room, and it goes on as if nothing had been.
#[tokio::test]
async fn a_full_database_never_lies_about_what_happened_and_recovers() {
    let setup = Setup {
        arguments: vec!["--quota-backend-bytes".to_owned(), (4 * 1024 * 1024).to_string()],
        ..Setup::default()
    };
    let server = blocking(move || EtcdServer::with(setup)).await;
    let store = EtcdStore::open(hasty(server.options("p"))).await.unwrap();
    let mut head = store.put(&key(), "0".into()).await.unwrap();
    let mut frames = 0_u32;
    let full = loop {
        let frame = Key::from(format!("frame/{frames}"));
        let commit = Commit::new()
            .guard(key(), Guard::At(head))
            .put(key(), frames.to_string())
            .put(frame, vec![7; 256 * 1024]);
        match store.commit(commit).await {
            Ok(outcome) => head = outcome.committed().unwrap(),
            Err(error) => break error,
        }
        frames += 1;
        assert!(frames < 100, "the quota is not kept");
    };
    let now = store.get(&key()).await.unwrap().unwrap();
    match full {
        StoreError::Unavailable { .. } => assert_eq!(now.revision, head, "it did happen: {full}"),
        StoreError::Indeterminate { .. } => {}
        other => panic!("{other}"),
    }
    // What is full stays so for writes, with a clear word; reads and deletions go on.
    let refused = store.commit(next(now.revision, "x")).await;
    assert_away(refused);
    assert_unknown(store.put(&Key::from("loose"), "x".into()).await);
    assert_eq!(store.get(&key()).await.unwrap().unwrap().revision, now.revision);
    for frame in 0..=frames {
        store.delete(&Key::from(format!("frame/{frame}"))).await.unwrap();
    }

    let stands = i64::try_from(store.revision().await.unwrap().0).unwrap();
    let mut client = server.client().await;
    client.compact(stands, Some(CompactionOptions::new().with_physical())).await.unwrap();
    client.defragment().await.unwrap();
    let raised = client.alarm(AlarmAction::Get, AlarmType::Nospace, None).await.unwrap();
    for alarm in raised.alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    }
    store.commit(next(now.revision, "x")).await.unwrap().committed().unwrap();
}

/// However the bytes are spread: the limits of the trait stay below what etcd takes.
#[tokio::test]
async fn every_commit_within_the_limits_fits_below_the_longest_prefix() {
    let server = blocking(EtcdServer::start).await;
    let store = EtcdStore::open(server.options(&"p".repeat(100))).await.unwrap();
    let long =
        |kind: char, at: usize| Key::from(format!("{kind}{at:0width$}", width = limits::KEY_BYTES_MAX - 1));
    let lease = store.grant(Duration::from_mins(1)).await.unwrap();
    let mut commit = Commit::new();
    for at in 0..limits::COMMIT_OPS_MAX {
        commit = commit.guard(long('g', at), Guard::Absent).put_leased(long('k', at), "", lease);
    }
    // What is left goes into one value of the largest size, and the rest of it into the others.
    let left = limits::COMMIT_BYTES_MAX - commit.bytes();
    let each = left / limits::COMMIT_OPS_MAX;
    let mut filled = Commit::new();
    for at in 0..limits::COMMIT_OPS_MAX {
        filled = filled.guard(long('g', at), Guard::Absent).put_leased(long('k', at), vec![0; each], lease);
    }
    assert!(limits::COMMIT_BYTES_MAX - filled.bytes() < limits::COMMIT_OPS_MAX);
    store.commit(filled.clone()).await.unwrap().committed().unwrap();
    // And the answer to a conflict on all of them.
    for at in 0..limits::COMMIT_OPS_MAX {
        store.put(&long('g', at), "x".into()).await.unwrap();
    }
    let Outcome::Conflict(failed) = store.commit(filled).await.unwrap() else { panic!("no conflict") };
    assert_eq!(failed.len(), limits::COMMIT_OPS_MAX);
}

/// What stands on stores resends what is unknown: on a bad network to a good etcd nothing is lost or doubled.
#[tokio::test]
async fn increments_over_a_flaky_network_add_up() {
    const EACH: u64 = 60;
    let (_server, store) = start().await;
    let store = Flaky::seeded(store, 7, Odds { unavailable: 100, indeterminate: 300 });
    let count = Key::from("count");
    for number in 1..=EACH {
        let current = loop {
            if let Ok(current) = store.get(&count).await {
                break current;
            }
        };
        let guard = current.map_or(Guard::Absent, |entry| Guard::At(entry.revision));
        let commit = Commit::new().guard(&count, guard).put(&count, number.to_string());
        // One writer: a conflict means that an attempt of our own was done.
        while store.commit(commit.clone()).await.is_err() {}
    }
    let history = store.inner().scan(&Key::open(), &Key::open(), 10).await.unwrap();
    assert_eq!(history[0].value, EACH.to_string());
    // The marker is one revision, each increment one.
    assert_eq!(store.inner().revision().await.unwrap().0, 1 + 1 + EACH);
}
