//! What changed between two states.

use serde_json::Value;

use super::*;
use crate::meta::Entity;
use crate::{Change, Compare, Difference};

/// `(entity, number of the id, there before, there after)` of what is listed.
fn outline(found: &Difference) -> Vec<(Entity, String, bool, bool)> {
    let line =
        |change: &Change| (change.entity, change.id.clone(), change.before.is_some(), change.after.is_some());
    found.changes.iter().map(line).collect()
}

fn issue_key() -> ControlCommand {
    ControlCommand::IssueKey {
        key: key(1),
        hash: Digest32([1; 32]),
        scopes: vec![Scope::Admin],
        label: None,
        expires_at: None,
    }
}

/// C64: of every kind of entity, by kind and id, what is new, other and gone.
#[test]
fn what_is_new_other_or_gone_is_told_of_every_kind() {
    let mut story = Story::with_clients(3);
    story.done(Actor::Operator, expose(1, 1, Some("web"), None));
    story.done(Actor::Operator, expose(2, 1, Some("old"), None));
    let before = story.state.clone();
    assert!(before.difference(&before, 10).is_empty());

    story.done(Actor::Operator, ControlCommand::RenameClient { client: client(2), name: "other".into() });
    story.done(Actor::Operator, ControlCommand::RemoveClient { client: client(3) });
    story.done(Actor::Operator, enrol(4, None));
    story.done(Actor::Operator, ControlCommand::DisableMapping { mapping: mapping(1) });
    story.done(Actor::Operator, remove(2));
    story.done(acting(1), share(1, 1, START));
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.done(Actor::Operator, issue_key());
    let start = ControlCommand::StartNode { node: node(1), name: "a".into(), version: "0.1.0".into() };
    story.done(Actor::Node(node(1)), start);

    let found = before.difference(&story.state, 100);
    let expected = vec![
        (Entity::Client, client(2).to_string(), true, true),
        (Entity::Client, client(3).to_string(), true, false),
        (Entity::Client, client(4).to_string(), false, true),
        (Entity::Mapping, mapping(1).to_string(), true, true),
        (Entity::Mapping, mapping(2).to_string(), true, false),
        (Entity::Code, code(1).to_string(), false, true),
        (Entity::Invite, invite(1).to_string(), false, true),
        (Entity::Key, key(1).to_string(), false, true),
        (Entity::Node, node(1).to_string(), false, true),
    ];
    assert_eq!(outline(&found), expected);
    assert_eq!((found.added, found.changed, found.removed, found.more()), (5, 2, 2, false));
    let renamed = &found.changes[0];
    assert_eq!(renamed.before.as_ref().unwrap()["name"], "host-2");
    assert_eq!(renamed.after.as_ref().unwrap()["name"], "other");
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!((&json["changes"][0]["entity"], &json["added"]), (&"client".into(), &5.into()));

    // Backwards it is the same the other way round.
    let back = story.state.difference(&before, 100);
    assert_eq!((back.added, back.changed, back.removed), (2, 2, 5));
    for (one, other) in found.changes.iter().zip(&back.changes) {
        assert_eq!((&one.before, &one.after), (&other.after, &other.before));
    }
}

#[test]
fn no_more_changes_are_listed_than_were_asked_for_and_all_are_counted() {
    let story = Story::with_clients(9);
    for limit in 0..12 {
        let found = ControlState::default().difference(&story.state, limit);
        assert_eq!((found.changes.len(), found.total(), found.added), (limit.min(9), 9, 9));
        assert_eq!(found.more(), limit < 9);
    }
}

/// C55: nor anything that is made from a secret.
#[test]
fn no_hash_of_a_secret_is_shown() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), share(1, 1, START));
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.done(Actor::Operator, issue_key());
    let found = ControlState::default().difference(&story.state, 100);
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("hash") && !text.contains(&Digest32([1; 32]).to_string()), "{text}");
    assert!(found.changes.iter().all(|change| change.after.as_ref().is_some_and(Value::is_object)));
}
