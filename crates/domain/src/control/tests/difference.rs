//! What is told to be different between two moments.

use proptest::prelude::*;
use serde_json::json;

use super::properties::steps;
use super::*;
use crate::meta::StreamId;

fn of(difference: &Difference) -> Vec<(StreamId, ChangeKind)> {
    difference.changes.iter().map(|change| (change.of, change.kind)).collect()
}

#[test]
fn nothing_is_different_from_itself() {
    let story = Story::with_clients(3);
    assert_eq!(story.state.difference(&story.state, 100), Difference::default());
}

#[test]
fn what_came_changed_and_went_is_told_with_what_it_was_and_is() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, Some("web"), Some(20_001)));
    story.done(acting(1), expose(2, 1, Some("db"), None));
    let before = story.state.clone();
    story.done(acting(1), remove(2));
    story.done(acting(2), expose(3, 2, Some("ssh"), None));
    story.done(acting(1), ControlCommand::DisableMapping { mapping: mapping(1) });
    story.done(Actor::Operator, ControlCommand::BlockClient { client: client(2), reason: "lost".into() });

    let difference = before.difference(&story.state, 100);
    let expected = [
        (client(2).into(), ChangeKind::Changed),
        (mapping(1).into(), ChangeKind::Changed),
        (mapping(2).into(), ChangeKind::Removed),
        (mapping(3).into(), ChangeKind::Added),
    ];
    assert_eq!((of(&difference).as_slice(), difference.cut), (expected.as_slice(), false));
    let fields = |nth: usize| {
        let fields = difference.changes[nth].fields.iter();
        fields.map(|it| (it.field, it.before.clone(), it.after.clone())).collect::<Vec<_>>()
    };
    let blocked = [("reason", json!(null), json!("lost")), ("status", json!("active"), json!("blocked"))];
    assert_eq!(fields(0), blocked);
    assert_eq!(fields(1), [("status", json!("active"), json!("disabled"))]);
    assert!(fields(2).contains(&("name", json!("db"), json!(null))));
    assert!(fields(3).contains(&("name", json!(null), json!("ssh"))));
    assert_eq!(difference.changes[2].name.as_deref(), Some("db"));
}

#[test]
fn what_was_changed_and_changed_back_is_not_different() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, None, None));
    let before = story.state.clone();
    story.done(acting(1), ControlCommand::DisableMapping { mapping: mapping(1) });
    story.done(acting(1), ControlCommand::EnableMapping { mapping: mapping(1) });
    assert_eq!(before.difference(&story.state, 100), Difference::default());
}

#[test]
fn of_too_many_differences_the_first_are_told_and_that_there_are_more() {
    let story = Story::with_clients(5);
    let nothing = ControlState::default();
    for limit in 0..5 {
        let difference = nothing.difference(&story.state, limit);
        assert_eq!((difference.changes.len(), difference.cut), (limit, true));
    }
    let all = nothing.difference(&story.state, 5);
    assert_eq!((all.changes.len(), all.cut), (5, false));
}

#[test]
fn no_difference_holds_a_hash_of_a_secret() {
    let mut story = Story::with_clients(1);
    let now = story.now;
    story.done(Actor::Operator, issue_invite(7, now.plus(MINUTE)));
    story.done(acting(1), share(7, 1, now));
    let scopes = vec![Scope::Read];
    let hash = Digest32([7; 32]);
    story.done(
        Actor::Operator,
        ControlCommand::IssueKey { key: key(1), hash, scopes, label: None, expires_at: None },
    );
    let difference = ControlState::default().difference(&story.state, 100);
    assert_eq!(difference.changes.len(), 4);
    assert!(!format!("{difference:?}").contains(&hash.to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_is_the_same_both_ways_round(steps in steps(), cut: prop::sample::Index) {
        let mut story = Story::with_clients(3);
        let mut states = vec![story.state.clone()];
        for step in steps {
            story.after(Duration::from_secs(step.seconds));
            let _ = story.execute(step.actor, &step.command(story.now));
            states.push(story.state.clone());
        }
        let (before, after) = (&states[cut.index(states.len())], &story.state);
        let forth = before.difference(after, usize::MAX);
        let mut back = after.difference(before, usize::MAX);
        prop_assert_eq!(forth.changes.len(), back.changes.len());
        for (forth, back) in forth.changes.iter().zip(&mut back.changes) {
            for field in &mut back.fields {
                std::mem::swap(&mut field.before, &mut field.after);
            }
            prop_assert_eq!((forth.of, &forth.fields), (back.of, &back.fields));
        }
        let is_same = before.mappings().eq(after.mappings()) && before.clients().eq(after.clients());
        if is_same {
            let told = forth.changes.iter();
            let entities = told.map(|change| change.of.entity).collect::<Vec<_>>();
            prop_assert!(!entities.contains(&crate::Entity::Mapping) && !entities.contains(&crate::Entity::Client));
        }
    }
}
