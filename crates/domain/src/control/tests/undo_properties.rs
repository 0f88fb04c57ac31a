//! Undoing gives back what was, whatever was done before.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::properties::{check, steps};
use super::undo::{Done, undoing};
use super::*;

/// What can come back: not versions, nor secrets that were open.
fn shown(state: &ControlState) -> (Vec<Client>, Vec<Mapping>) {
    let clients = state.clients().map(|client| Client { version: 0, ..client.clone() });
    let mappings = state.mappings().map(|mapping| Mapping { version: 0, ..mapping.clone() });
    (clients.collect(), mappings.collect())
}

/// Everything by which somebody could still get in.
fn open(state: &ControlState) -> BTreeSet<String> {
    let codes = state.codes().filter(|code| code.status == CodeStatus::Open).map(|code| code.id.to_string());
    let invites = state.invites().filter(|invite| invite.status == InviteStatus::Open);
    codes.chain(invites.map(|invite| invite.id.to_string())).collect()
}

/// What an accepted command may be refused for: its kind has no way back, or its time is over.
const REASONS: [&str; 3] = ["undo.none", "undo.over", "mapping.expired"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn undoing_the_last_command_gives_back_the_state_before_and_undoing_that_the_state_after(steps in steps()) {
        let mut story = Story::with_clients(4);
        for step in steps {
            story.after(Duration::from_secs(step.seconds));
            let before = story.state.clone();
            let first = Position(story.history.len() as u64 + 1);
            let Ok(decision) = story.execute(step.actor, &step.command(story.now)) else { continue };
            if decision.events.is_empty() {
                continue;
            }
            let after = story.state.clone();
            let done = Done { past: Past::new(&before, decision.events.clone()), first };
            let mut back = story.clone();
            let command = undoing(&back, &done);
            let undoing_first = Position(back.history.len() as u64 + 1);
            match back.execute(Actor::Operator, &command) {
                Err(refusal) => {
                    prop_assert!(REASONS.contains(&refusal.code()), "{}: {:?}", refusal, decision.events);
                    prop_assert_eq!(&back.state, &after);
                }
                Ok(undo) => {
                    prop_assert_eq!(shown(&back.state), shown(&before), "{:?}", decision.events);
                    prop_assert!(open(&back.state).is_subset(&open(&before)));
                    check(&back);
                    let done = Done { past: Past::new(&after, undo.events), first: undoing_first };
                    let command = undoing(&back, &done);
                    match back.execute(Actor::Operator, &command) {
                        Ok(_) => prop_assert_eq!(shown(&back.state), shown(&after)),
                        Err(refusal) => prop_assert!(REASONS.contains(&refusal.code()), "{}", refusal),
                    }
                    check(&back);
                }
            }
        }
    }
}
