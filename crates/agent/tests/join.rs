//! Becoming known to a server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::*;
use underpass_agent::{Agent, StateDir, join};
use underpass_wire::link::{Body, Refused};
use underpass_wire::token::Invite;

/// The files of a state folder, with what is in them.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut all: Vec<_> = files
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

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
    // The lock's file stays: whoever removed it could take it from under somebody who waits for it.
    assert_eq!(contents(machine.state.path()), [("agent.lock".to_owned(), Vec::new())]);
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

/// A join proves the same key: the server would take it for the agent's successor and end the agent's link.
#[tokio::test]
async fn a_join_beside_a_running_agent_leaves_it_its_link_and_its_folder() {
    let (mut node, machine, agent, mut link) = connected(1).await;
    let before = contents(machine.state.path());
    let same = node.invite();
    let other = Invite::new(vec![node.address.to_string()], [5; 32], [9; 16]).unwrap();
    for (invite, code, exit) in [(&same, "agent.running", 1), (&other, "state.joined", 3)] {
        let error =
            soon("the join", join(&machine.state, invite, &machine.join_options())).await.unwrap_err();
        assert_eq!((error.code(), error.exit_class().exit_code()), (code, exit));
        assert!(error.to_string().contains(&node.address.to_string()), "it names the server: {error}");
        assert!(error.hint().is_some());
    }
    assert!(node.links.try_recv().is_err(), "the server was asked");
    assert_eq!(contents(machine.state.path()), before);
    link.desired(10, vec![]).await;
    link.applied(10).await;

    // When the agent has ended, the folder can be joined again, as the same client.
    let _ = agent.shutdown(ONE_SECOND).await;
    machine.join(&mut node, client(1)).await;
}

#[tokio::test]
async fn of_two_joins_at_once_one_wins_and_the_other_is_told() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    let (invite, options) = (node.invite(), machine.join_options());
    let (first, ()) = tokio::join!(join(&machine.state, &invite, &options), async {
        let mut link = node.link().await;
        let error = soon("the second join", join(&machine.state, &invite, &options)).await.unwrap_err();
        assert_eq!((error.code(), error.exit_class().exit_code()), ("agent.running", 1));
        assert!(error.to_string().contains("join"), "{error}");
        assert!(!machine.state.has_joined());
        link.welcome(client(1), 0, 0).await;
    });
    assert_eq!(first.unwrap().client, client(1));
    assert!(node.links.try_recv().is_err(), "the second one asked the server");
    // Whoever comes after it finds the folder free.
    machine.join(&mut node, client(1)).await;
}

#[tokio::test]
async fn a_join_that_is_given_up_leaves_the_folder_free() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    let (invite, options) = (node.invite(), machine.join_options());
    tokio::select! {
        done = join(&machine.state, &invite, &options) => panic!("nobody answered: {done:?}"),
        _ = node.links.recv() => {}
    }
    machine.join(&mut node, client(1)).await;
}

/// With the same key, for example because the server has other addresses now, or has made the client anew.
#[tokio::test]
async fn a_folder_that_has_joined_joins_the_same_server_again_with_its_key() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let key = machine.state.key().unwrap().public();
    let dead = free_address().await.to_string();
    let addresses = vec![dead.clone(), node.address.to_string()];
    let invite = Invite::new(addresses, node.key.public(), [9; 16]).unwrap();
    let options = machine.join_options();
    let (joined, link) = tokio::join!(join(&machine.state, &invite, &options), node.welcomed(client(2)));
    assert_eq!(joined.unwrap().client, client(2));
    assert_eq!(link.peer, key);
    let server = machine.state.server().unwrap();
    assert_eq!((server.client, &server.addresses[..]), (client(2), &[node.address.to_string(), dead][..]));

    // A refusal, or nobody there, takes nothing from who has joined.
    let before = contents(machine.state.path());
    let (refused, ()) = tokio::join!(join(&machine.state, &invite, &options), async {
        node.link().await.send(Body::Refused(Refused {})).await;
    });
    assert_eq!(refused.unwrap_err().code(), "link.refused");
    let nobody = Invite::new(vec![free_address().await.to_string()], node.key.public(), [9; 16]).unwrap();
    assert_eq!(join(&machine.state, &nobody, &options).await.unwrap_err().code(), "link.unreachable");
    assert_eq!(contents(machine.state.path()), before);
    let _agent = machine.start();
    node.welcomed(client(2)).await;
}
