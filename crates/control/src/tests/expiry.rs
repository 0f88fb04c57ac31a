//! The passing of time.

use std::sync::Arc;
use std::time::Duration;

use underpass_domain::testing::ManualClock;
use underpass_domain::{Actor, Clock, NodeId, Position};
use underpass_store::MemoryStore;

use crate::testkit::{NODE, Rig, public, until};
use crate::{Caller, ControlOptions, Enrolment};

#[tokio::test(start_paused = true)]
async fn what_is_past_its_time_is_hidden_at_once_and_freed_by_the_event() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let client = rig.client(1).await;
    let caller = Caller::new(Actor::Client(client));
    let mut short = public(client, Some(20_000));
    short.options.expires_at = Some(rig.clock.now().plus(Duration::from_hours(1)));
    let made = rig.control.create_mapping(&caller, short).await.unwrap();

    let before = rig.control.state();
    assert!(before.state.serves(before.state.mapping(made.id).unwrap(), rig.clock.now()));
    rig.clock.advance(Duration::from_hours(1));

    // No event yet, and nobody is served any more; the port is still taken.
    assert_eq!(rig.control.state().position, before.position);
    assert!(!before.state.serves(before.state.mapping(made.id).unwrap(), rig.clock.now()));
    assert!(before.state.desired(client, rig.clock.now()).is_empty());
    assert!(before.state.mapping_on_port(20_000).is_some());

    until(|| rig.control.state().state.mapping(made.id).is_none()).await;
    assert!(rig.mapping(client, Some(20_000)).await.is_ok(), "the event freed the port");
    let last = rig.control.log().read(before.position, 1).await.unwrap();
    assert_eq!(last[0].name, "mapping.expired");
    assert_eq!(last[0].actor, Actor::System);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn five_hundred_things_that_expire_at_once_are_all_noted() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let ttl = Duration::from_mins(10);
    for _ in 0..500 {
        rig.control.issue_invite(&Caller::operator(), ttl, None).await.unwrap();
    }
    rig.clock.advance(ttl);
    until(|| rig.control.state().state.next_deadline().is_none()).await;
    let expired = events(&rig, "invite.expired").await;
    assert_eq!(expired, 500);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_both_see_a_deadline_pass_one_notes_it() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let options = |byte: u8| {
        let mut options = ControlOptions::new(NodeId::from_bytes([byte; 16]), format!("node-{byte}"));
        options.enrolment = Enrolment::Open;
        options
    };
    let one = Rig::open_with(store.clone(), options(1), clock.clone()).await;
    let two = Rig::open_with(store, options(2), clock.clone()).await;
    one.control.issue_invite(&Caller::operator(), Duration::from_mins(1), None).await.unwrap();
    until(|| two.control.state().state.invites().count() == 1).await;
    clock.advance(Duration::from_mins(1));
    until(|| one.control.state().state.next_deadline().is_none()).await;
    until(|| two.control.state().state.next_deadline().is_none()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(events(&one, "invite.expired").await, 1);
    two.close().await;
    one.close().await;
}

async fn events(rig: &Rig, name: &str) -> usize {
    let all = rig.control.log().read(Position(0), 10_000).await.unwrap();
    all.iter().filter(|event| event.name == name).count()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_late_notes_what_passed_meanwhile() {
    let store = Arc::new(MemoryStore::new());
    let rig = Rig::open(store.clone()).await;
    rig.control.issue_invite(&Caller::operator(), Duration::from_mins(1), None).await.unwrap();
    let clock = rig.kill().await;
    clock.advance(Duration::from_hours(1));
    let rig = Rig::open_with(store, ControlOptions::new(NODE, "gate"), clock).await;
    until(|| rig.control.state().state.next_deadline().is_none()).await;
    assert_eq!(events(&rig, "invite.expired").await, 1);
    rig.close().await;
}
