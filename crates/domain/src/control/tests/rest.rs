//! Keys, nodes, snapshots, and what is forgotten.

use super::*;
use crate::codec;
use crate::limits::{CLOSED_KEPT_MAX, NODES_KEPT_MAX};
use crate::meta::StreamId;

fn issue_key(number: u8, expires_at: Option<Timestamp>) -> ControlCommand {
    ControlCommand::IssueKey {
        key: key(number),
        hash: Digest32([number; 32]),
        scopes: vec![Scope::Admin],
        label: Some("laptop".into()),
        expires_at,
    }
}

#[test]
fn a_key_is_good_until_it_is_revoked_or_its_time_runs_out() {
    let mut story = Story::new();
    story.done(Actor::Operator, issue_key(1, None));
    story.done(Actor::Operator, issue_key(2, Some(START.plus(MINUTE))));
    let good =
        |story: &Story, number| story.state.key_by_hash(&Digest32([number; 32])).unwrap().is_good(story.now);
    assert!(good(&story, 1) && good(&story, 2));
    story.when(Actor::Operator, ControlCommand::RevokeKey { key: key(1) }).then(&["key.revoked"]);
    story.when(Actor::Operator, ControlCommand::RevokeKey { key: key(1) }).then_already(key(1));
    story.after(MINUTE);
    assert!(!good(&story, 1) && !good(&story, 2), "past its time at once");
    story.when(Actor::System, ControlCommand::ExpireKey { key: key(2) }).then(&["key.expired"]);
    assert!(!good(&story, 2));
    story.when(Actor::Operator, issue_key(1, None)).then_refused("key.exists");
    let now = story.now;
    for wrong in [now, Timestamp(u64::MAX)] {
        story.when(Actor::Operator, issue_key(3, Some(wrong))).then_refused("invalid");
    }
    story.when(Actor::Operator, ControlCommand::RevokeKey { key: key(9) }).then_refused("key.not_found");
}

#[test]
fn a_key_without_a_scope_is_invalid() {
    let mut command = issue_key(1, None);
    if let ControlCommand::IssueKey { scopes, .. } = &mut command {
        scopes.clear();
    }
    let refusal = Story::new().when(Actor::Operator, command).then_refused("invalid");
    assert_eq!(refusal.class(), RefusalClass::Invalid { field: "scopes" });
}

#[test]
fn each_start_of_a_node_is_noted_and_each_stop_once() {
    let mut story = Story::new();
    let start = ControlCommand::StartNode { node: node(1), name: "a".into(), version: "0.1.0".into() };
    let stop = ControlCommand::StopNode { node: node(1) };
    story.when(Actor::Node(node(1)), stop.clone()).then_refused("node.not_found");
    story.when(Actor::Node(node(1)), start.clone()).then(&["node.started"]);
    story.when(Actor::Node(node(1)), start).then(&["node.started"]);
    assert_eq!(story.state.node(node(1)).unwrap().stopped_at, None);
    story.when(Actor::Node(node(1)), stop.clone()).then(&["node.stopped"]);
    story.when(Actor::Node(node(1)), stop).then_already(node(1));
    assert_eq!(story.state.node(node(1)).unwrap().stopped_at, Some(START));
}

#[test]
fn that_the_log_was_trimmed_is_noted_once_and_never_by_clients() {
    let mut story = Story::with_clients(1);
    let note = |until| ControlCommand::NoteTrimmed { until: Position(until), hash: Digest32([7; 32]) };
    story.when(acting(1), note(1)).then_refused("forbidden");
    let before = story.state.clone();
    story.when(Actor::System, note(1)).then(&["log.trimmed"]);
    story.when(Actor::Node(node(1)), note(1)).then_refused("trim.noted");
    story.when(Actor::Operator, note(2)).then(&["log.trimmed"]);
    story.when(Actor::System, note(0)).then_refused("trim.noted");
    assert_eq!(story.state.trimmed(), Position(2));
    assert!(before.difference(&story.state, 10).changes.is_empty(), "it changes no thing");
}

#[test]
fn of_many_nodes_those_stopped_for_longest_are_forgotten() {
    let mut story = Story::new();
    for number in 0..=NODES_KEPT_MAX {
        let node = NodeId::from_bytes((number as u128).to_be_bytes());
        story.after(MINUTE);
        story.done(
            Actor::Node(node),
            ControlCommand::StartNode { node, name: "n".into(), version: "1".into() },
        );
        if number > 0 {
            story.done(Actor::Node(node), ControlCommand::StopNode { node });
        }
    }
    assert_eq!(story.state.nodes().count(), NODES_KEPT_MAX);
    assert!(story.state.node(NodeId::from_bytes([0; 16])).is_some(), "it runs");
}

#[test]
fn used_up_things_are_forgotten_in_the_order_of_their_end() {
    let mut story = Story::with_clients(1);
    for number in 0..=CLOSED_KEPT_MAX as u128 {
        let code = CodeId::from_bytes(number.to_be_bytes());
        let issued = v1::CodeIssued {
            code,
            owner: None,
            client: client(1),
            lookup: format!("c{number}"),
            redeem_hash: Digest32([0; 32]),
            target: "127.0.0.1:22".into(),
            activate_until: START.plus(MINUTE),
            access_s: 60,
            options: (&MappingOptions::default()).into(),
        };
        story.record(Actor::System, vec![issued.into(), v1::CodeRevoked { code }.into()]);
    }
    assert_eq!(story.state.codes().count(), CLOSED_KEPT_MAX);
    assert!(story.state.code_by_lookup("c0").is_none());
    assert!(story.state.code_by_lookup("c1").is_some());
}

#[test]
fn a_snapshot_holds_the_whole_state_in_one_form() {
    let mut story = Story::with_clients(3);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 2));
    story.done(acting(3), share(2, 3, START));
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.done(Actor::Operator, issue_key(1, Some(START.plus(MINUTE))));
    let bytes = codec::encode_snapshot(&story.state).unwrap();
    let back: ControlState = codec::decode_snapshot(&bytes).unwrap();
    assert_eq!(back, story.state);
    assert_eq!(codec::encode_snapshot(&back).unwrap(), bytes);
    assert_eq!(back.log_id(), Some(LogId([1; 16])));
}

#[test]
fn a_repeated_request_compares_equal_whatever_the_server_made_up() {
    let asked = codec::encode(&share(1, 1, START)).unwrap();
    let mut again = share(1, 1, START.plus(MINUTE));
    if let ControlCommand::IssueCode { code: id, .. } = &mut again {
        *id = code(9);
    }
    assert_eq!(codec::encode(&again).unwrap(), asked);
    assert_eq!(
        codec::encode(&expose(1, 1, Some("web"), None)).unwrap(),
        codec::encode(&expose(2, 1, Some("web"), None)).unwrap()
    );
    assert_ne!(
        codec::encode(&expose(1, 1, Some("web"), None)).unwrap(),
        codec::encode(&expose(1, 1, Some("shop"), None)).unwrap()
    );
}

#[test]
fn every_refusal_that_can_be_helped_says_how() {
    for refusal in [
        Refusal::CodeUnknown,
        Refusal::InviteRequired,
        Refusal::PortTaken { port: 1 },
        Refusal::PortOutOfRange { port: 1, first: 2, last: 3 },
        Refusal::NameTaken { name: "web".into(), mapping: mapping(1) },
        Refusal::Quota { quota: Quota::Codes, limit: 10, used: 10 },
    ] {
        assert!(refusal.hint().is_some_and(|hint| !hint.is_empty()), "{refusal}");
    }
}

#[test]
fn what_is_held_to_a_version_is_decided_against_the_version_at_the_head() {
    let only_at = |of: StreamId, versions: &[u64], command| ControlCommand::OnlyAt {
        of,
        versions: versions.to_vec(),
        command: Box::new(command),
    };
    let rename = |name: &str| ControlCommand::RenameClient { client: client(1), name: name.into() };
    let this = client(1).into();
    let mut story = Story::with_clients(1);
    for stale in [&[][..], &[2], &[0, 2]] {
        let refusal =
            story.when(Actor::Operator, only_at(this, stale, rename("a"))).then_refused("version.mismatch");
        assert_eq!(refusal, Refusal::VersionMismatch { of: this, current: 1 });
        assert_eq!(refusal.class(), RefusalClass::Stale);
    }
    story.when(Actor::Operator, only_at(this, &[7, 1], rename("a"))).then(&["client.renamed"]);
    // Who has seen the same version and comes second has not seen what the first one did.
    story.when(Actor::Operator, only_at(this, &[1], rename("b"))).then_refused("version.mismatch");
    story.when(Actor::Operator, only_at(this, &[2], rename("a"))).then_already(client(1));
    // What is not there says so itself, and nobody may do under a version what he may not do without.
    let unknown = ControlCommand::RemoveMapping { mapping: mapping(9) };
    story.when(Actor::Operator, only_at(mapping(9).into(), &[1], unknown)).then_refused("mapping.not_found");
    let foreign =
        only_at(this, &[2], ControlCommand::BlockClient { client: client(1), reason: String::new() });
    story.when(acting(1), foreign).then_refused("forbidden");
}
