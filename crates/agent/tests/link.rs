//! Keeping the link.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use support::*;
use tokio::time::Instant;
use underpass_agent::{AgentEvent, EventStream, Verbs};
use underpass_wire::link::{Body, GoingAway, Kick, KickReason, Ping, Refused};

async fn event(events: &mut EventStream, pick: impl Fn(&AgentEvent) -> bool) -> AgentEvent {
    soon("an event", async {
        loop {
            let event = events.next().await.expect("an event before the end");
            if pick(&event) {
                return event;
            }
        }
    })
    .await
}

// C15
#[tokio::test]
async fn c15_a_silent_server_is_noticed_and_the_link_made_again() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let agent = machine.start();
    let mut events = agent.handle().events().await.unwrap();
    let mut silent = node.link().await;
    silent.welcome(client(1), 100, 400).await;
    // It pings, hears nothing, and gives the link up; this side stays open all the while.
    silent.expect("a ping", |body| matches!(body, Body::Ping(_)).then_some(())).await;
    let lost = event(&mut events, |event| matches!(event, AgentEvent::Disconnected { .. })).await;
    assert!(matches!(lost, AgentEvent::Disconnected { reason, .. } if reason.contains("silent")));
    node.welcomed(client(1)).await;
    event(&mut events, |event| matches!(event, AgentEvent::Connected { .. })).await;
}

// C15
#[tokio::test]
async fn c15_a_server_that_answers_keeps_the_link() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let _agent = machine.start();
    let mut link = node.link().await;
    link.welcome(client(1), 100, 400).await;
    for _ in 0..12 {
        let nonce = link
            .expect("a ping", |body| if let Body::Ping(ping) = body { Some(ping.nonce) } else { None })
            .await;
        link.send(Body::Pong(underpass_wire::link::Pong { nonce })).await;
    }
    link.send(Body::Ping(Ping { nonce: 4711 })).await;
    link.expect("a pong", |body| matches!(body, Body::Pong(pong) if pong.nonce == 4711).then_some(())).await;
    assert!(node.links.try_recv().is_err(), "no second link");
}

// C17
#[tokio::test]
async fn c17_refused_credentials_end_with_code_10() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let agent = machine.start();
    node.link().await.send(Body::Refused(Refused {})).await;
    let error = soon("the end", agent.ended()).await;
    assert_eq!((error.code(), error.exit_class().exit_code()), ("link.refused", 10));
    // Not retried, and every verb says the same.
    assert!(tokio::time::timeout(ONE_SECOND, node.links.recv()).await.is_err());
    let report = agent.handle().list().await.unwrap_err();
    assert_eq!(report.code, "link.refused");
}

#[tokio::test]
async fn a_blocked_client_ends_with_code_10() {
    let (_node, _machine, agent, mut link) = connected(1).await;
    link.send(Body::Kick(Kick { reason: KickReason::Blocked.into(), message: "too much".into() })).await;
    let error = soon("the end", agent.ended()).await;
    assert_eq!(error.exit_class().exit_code(), 10);
    assert!(error.to_string().contains("too much"));
}

#[tokio::test]
async fn c14_a_replaced_link_does_not_fight_back() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    link.send(Body::Kick(Kick { reason: KickReason::Replaced.into(), message: String::new() })).await;
    assert_eq!(soon("the end", agent.ended()).await.code(), "link.replaced");
    assert!(tokio::time::timeout(ONE_SECOND, node.links.recv()).await.is_err(), "it came back");
}

// C17
#[tokio::test]
async fn c17_a_lost_link_and_a_server_that_moves_are_followed_by_new_ones() {
    let (mut node, _machine, _agent, link) = connected(1).await;
    drop(link);
    let mut link = node.welcomed(client(1)).await;
    link.send(Body::GoingAway(GoingAway { grace_ms: 5000, message: "restart".into() })).await;
    // The link is the server's to close.
    assert!(tokio::time::timeout(Duration::from_millis(300), node.links.recv()).await.is_err());
    drop(link);
    node.welcomed(client(1)).await;
}

#[tokio::test]
async fn without_a_server_a_verb_says_so_and_the_agent_goes_on() {
    let (node, machine, agent) = {
        let mut node = FakeNode::start().await;
        let machine = Machine::new(1);
        machine.join(&mut node, client(1)).await;
        let mut options = machine.options();
        options.timing.patience = Duration::from_millis(300);
        let _ = node.tasks.drain(ONE_SECOND).await;
        let agent = underpass_agent::Agent::start(options, &machine.tasks).unwrap();
        (node, machine, agent)
    };
    let begun = Instant::now();
    let report = agent.handle().list().await.unwrap_err();
    assert_eq!((report.code.as_str(), report.class.exit_code()), ("link.unreachable", 5));
    assert!(report.message.contains(&node.address.to_string()), "{}", report.message);
    assert!(begun.elapsed() < DEADLINE);
    drop(machine);
}

#[tokio::test]
async fn c16_a_command_whose_link_is_lost_is_sent_again_with_the_same_id() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let handle = agent.handle();
    let (listed, first, second) = tokio::join!(
        handle.list(),
        async {
            let first = link.command().await;
            drop(link);
            first
        },
        async {
            let mut link = node.welcomed(client(1)).await;
            let command = link.command().await;
            let outcome = underpass_wire::link::Outcome::Mappings(underpass_wire::link::Mappings::default());
            link.answer(&command, outcome).await;
            command
        }
    );
    assert_eq!(listed.unwrap(), []);
    assert_eq!(first.id, second.id);
}
