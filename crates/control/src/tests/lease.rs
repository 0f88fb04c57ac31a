//! The node lease, presence and the reaper.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{ActivityCommand, ClientId, ControlCommand, NodeId, SessionId};
use underpass_store::testkit::faulty::Slow;
use underpass_store::{ExpirableStore, Key, KvStore, MemoryStore};
use underpass_tasks::{Drained, Tasks};

use crate::lease::node_key;
use crate::testkit::{NODE, Rig, until};
use crate::{Caller, Control, ControlOptions, Enrolment, LEASE_TTL_DEFAULT, OpenError, PresenceGuard};

async fn open_session(rig: &Rig, client: ClientId) -> SessionId {
    let session = rig.control.new_session_id().unwrap();
    let open = ActivityCommand::OpenSession {
        session,
        client,
        node: rig.control.node(),
        address: "198.51.100.7:50214".parse().unwrap(),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    };
    rig.control.record(&Caller::system(), open).await.unwrap();
    session
}

async fn announced(rig: &Rig, client: ClientId, session: SessionId) -> PresenceGuard {
    let guard = rig.control.connected(client, session);
    rig.control.announce(&guard).await.unwrap();
    guard
}

async fn node(store: &Arc<MemoryStore>, byte: u8, clock: &Arc<ManualClock>) -> Rig {
    let mut options = ControlOptions::new(NodeId::from_bytes([byte; 16]), format!("node-{byte}"));
    options.enrolment = Enrolment::Open;
    Rig::open_with(store.clone(), options, clock.clone()).await
}

// C15
#[tokio::test(start_paused = true)]
async fn c15_presence_of_a_killed_node_is_gone_within_one_lease() {
    let store = Arc::new(MemoryStore::new());
    let rig = Rig::open(store.clone()).await;
    let client = rig.client(1).await;
    let session = open_session(&rig, client).await;
    let guard = announced(&rig, client, session).await;
    let key = Key::from(format!("presence/{client}"));
    assert!(store.get(&key).await.unwrap().is_some());

    // It stays for as long as the node lives.
    tokio::time::sleep(LEASE_TTL_DEFAULT * 5).await;
    assert!(store.get(&key).await.unwrap().is_some());

    std::mem::forget(guard);
    rig.kill().await;
    tokio::time::sleep(LEASE_TTL_DEFAULT + store.limits().expiry_slack).await;
    assert!(store.get(&key).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn presence_goes_with_its_guard_but_never_what_a_later_link_wrote() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let (one, two) = (node(&store, 1, &clock).await, node(&store, 2, &clock).await);
    let client = one.client(1).await;
    let first = announced(&one, client, open_session(&one, client).await).await;
    let session = open_session(&two, client).await;
    let second = announced(&two, client, session).await;

    // The late goodbye of node 1.
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let present = one.control.present(client).await.unwrap();
    assert_eq!((present.node, present.session), (two.control.node(), session));

    second.withdraw().await.unwrap();
    assert_eq!(one.control.present(client).await, None);
    two.close().await;
    one.close().await;
}

#[tokio::test(start_paused = true)]
async fn c69_a_node_that_lost_its_lease_stops_writing_and_begins_again_with_a_new_one() {
    let store = Arc::new(MemoryStore::new());
    let rig = Rig::open(store.clone()).await;
    let client = rig.client(1).await;
    let session = open_session(&rig, client).await;
    let guard = announced(&rig, client, session).await;
    let entry = store.get(&node_key(NODE)).await.unwrap().unwrap();
    store.revoke(entry.lease.unwrap()).await.unwrap();

    // The node does not know yet; the fence does.
    let position = rig.control.state().position;
    let refused = rig.mapping(client, None).await.unwrap_err();
    assert_eq!(refused.code(), "store.unavailable");
    assert!(refused.retry_after().is_some());
    assert_eq!(rig.control.state().position, position, "it goes on serving what it knows");
    assert_eq!(rig.control.present(client).await, None);

    tokio::time::sleep(LEASE_TTL_DEFAULT).await;
    assert!(rig.control.may_write());
    rig.mapping(client, None).await.unwrap();
    assert_eq!(rig.control.present(client).await.map(|it| it.session), Some(session), "announced again");
    drop(guard);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.control.present(client).await, None, "the guard knows the new entry");
    assert!(!rig.fatal.is_cancelled());
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c69_a_paused_old_holder_of_a_node_id_is_fenced_off_and_goes_down() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let old = node(&store, 1, &clock).await;
    let client = old.client(1).await;
    clock.advance(Duration::from_secs(1));
    let new = node(&store, 1, &clock).await;

    let refused = old.mapping(client, None).await.unwrap_err();
    assert_eq!(refused.code(), "store.unavailable");
    new.mapping(client, None).await.unwrap();
    old.fatal.cancelled().await;
    assert!(!new.fatal.is_cancelled());
    old.kill().await;
    new.close().await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_nobody_closed_are_expired() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let (one, two) = (node(&store, 1, &clock).await, node(&store, 2, &clock).await);
    let (here, there, lost) = (one.client(1).await, one.client(2).await, one.client(3).await);
    let kept = open_session(&one, here).await;
    let guard = announced(&one, here, kept).await;
    open_session(&two, there).await;
    // Its link ended, and its end could not be recorded.
    open_session(&one, lost).await;

    two.kill().await;
    clock.advance(LEASE_TTL_DEFAULT * 3);
    until(|| one.control.activity().state.open_sessions().count() == 1).await;
    assert_eq!(one.control.activity().state.open_sessions().next().unwrap().id, kept);
    drop(guard);
    one.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_closing_the_next_start_finds_nothing_of_the_last() {
    let store = Arc::new(MemoryStore::new());
    let rig = Rig::open(store.clone()).await;
    let control = Arc::clone(&rig.control);
    rig.close().await;
    assert!(store.get(&node_key(NODE)).await.unwrap().is_none());
    let late = ControlCommand::StopNode { node: NODE };
    assert!(control.execute(&Caller::system(), late).await.is_err(), "a closed control plane writes nothing");
    let rig = Rig::open(store).await;
    let view = rig.control.state();
    let node = view.state.node(NODE).unwrap();
    assert_eq!(node.stopped_at, None);
    assert_eq!(rig.control.log().read(underpass_domain::Position(0), 100).await.unwrap().len(), 4);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_given_up_halfway_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let slow = Arc::new(Slow::new(store.clone(), Duration::from_millis(100)));
    let rig = Rig::open(slow).await;
    let client = rig.client(1).await;
    let session = open_session(&rig, client).await;
    for patience in [1, 50, 99, 100, 101, 150, 199, 250] {
        let guard = rig.control.connected(client, session);
        let announcing = rig.control.announce(&guard);
        if let Ok(done) = tokio::time::timeout(Duration::from_millis(patience), announcing).await {
            done.unwrap();
        }
        drop(guard);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let left = store.get(&Key::from(format!("presence/{client}"))).await.unwrap();
        assert_eq!(left, None, "after {patience} ms");
    }
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_late_leaves_nothing_running_and_no_lease() {
    let store = Arc::new(MemoryStore::new());
    // No line: the log refuses it, after everything else is up.
    let options = ControlOptions::new(NODE, "two\nlines");
    let tasks = Tasks::new("control", CancellationToken::new());
    let (clock, random) = (Arc::new(ManualClock::default()), Arc::new(SeededRandom::new(1)));
    let opened = Control::open(store.clone(), options, clock, random, &tasks).await;
    assert!(matches!(opened, Err(OpenError::Start(_))), "{opened:?}");
    assert!(store.get(&node_key(NODE)).await.unwrap().is_none(), "the lease was given back");
    assert_eq!(tasks.drain(Duration::from_secs(1)).await, Drained::Clean);
}
