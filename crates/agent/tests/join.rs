//! Becoming known to a server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::*;
use underpass_agent::{Agent, StateDir, join};
use underpass_wire::link::{Body, Refused};
use underpass_wire::token::Invite;

#[tokio::test]
async fn c7_the_invite_registers_the_key_and_only_its_public_half_leaves() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    let (invite, options) = (node.invite(), machine.join_options());
    let (joined, link) = tokio::join!(join(&machine.state, &invite, &options), node.welcomed(client(1)));
    let joined = joined.unwrap();
    assert_eq!((joined.client, joined.server.as_str()), (client(1), node.address.to_string().as_str()));
    assert_eq!(joined.name, "laptop");
    assert_eq!(link.peer, machine.state.key().unwrap().public());
    assert_eq!(link.hello.invite.as_ref().map(|secret| secret.expose().to_vec()), Some(vec![9; 16]));
    let server = machine.state.server().unwrap();
    assert_eq!(server.server_key.0, node.key.public());
    assert_eq!(server.addresses, [node.address.to_string()]);
}

#[tokio::test]
async fn a_refused_join_leaves_nothing_behind() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    let (invite, options) = (node.invite(), machine.join_options());
    let (joined, ()) = tokio::join!(join(&machine.state, &invite, &options), async {
        node.link().await.send(Body::Refused(Refused {})).await;
    });
    let error = joined.unwrap_err();
    assert_eq!((error.code(), error.exit_class().exit_code()), ("link.refused", 10));
    assert_eq!(std::fs::read_dir(machine.state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_join_that_was_cut_off_is_repeated_with_the_same_key() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    let (invite, options) = (node.invite(), machine.join_options());
    let (joined, first) = tokio::join!(join(&machine.state, &invite, &options), async {
        let link = node.link().await;
        link.peer
    });
    let error = joined.unwrap_err();
    assert_eq!((error.code(), error.exit_class().exit_code()), ("link.unreachable", 5));
    assert!(!machine.state.has_joined());
    let (joined, link) = tokio::join!(join(&machine.state, &invite, &options), node.welcomed(client(1)));
    joined.unwrap();
    assert_eq!(link.peer, first);
}

#[tokio::test]
async fn nobody_there_and_another_key_are_unreachable() {
    let machine = Machine::new(1);
    let nobody = Invite::new(vec![free_address().await.to_string()], [5; 32], [9; 16]).unwrap();
    let error = join(&machine.state, &nobody, &machine.join_options()).await.unwrap_err();
    assert_eq!((error.code(), error.exit_class().exit_code()), ("link.unreachable", 5));

    let node = FakeNode::start().await;
    let other = underpass_wire::noise::StaticKey::from_bytes([3; 32]).unwrap().public();
    let wrong = Invite::new(vec![node.address.to_string()], other, [9; 16]).unwrap();
    let error = join(&machine.state, &wrong, &machine.join_options()).await.unwrap_err();
    assert_eq!(error.code(), "link.unreachable");
    assert!(error.to_string().contains("key"), "{error}");
    assert!(!machine.state.has_joined());
}

#[tokio::test]
async fn a_folder_of_another_server_is_left_alone() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let before = machine.state.server().unwrap();
    let other = Invite::new(vec!["127.0.0.1:1".into()], [5; 32], [9; 16]).unwrap();
    let error = join(&machine.state, &other, &machine.join_options()).await.unwrap_err();
    assert_eq!((error.code(), error.exit_class().exit_code()), ("state.joined", 3));
    assert_eq!(machine.state.server().unwrap(), before);
}

#[tokio::test]
async fn without_a_join_there_is_no_agent() {
    let machine = Machine::new(1);
    let error = Agent::start(machine.options(), &machine.tasks).unwrap_err();
    assert_eq!(error.code(), "state.not_joined");
    assert!(error.hint().unwrap().contains("underpass join"));
    // The attempt gives the folder back.
    let state = StateDir::open(machine.state.path()).unwrap();
    let error = Agent::start(underpass_agent::AgentOptions { state, ..machine.options() }, &machine.tasks)
        .unwrap_err();
    assert_eq!(error.code(), "state.not_joined");
}
