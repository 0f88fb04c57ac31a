//! What undoes what, and what stands in the way.

use super::*;
use crate::meta::Meta;
use crate::text::Digest32;

/// A command that was carried out, and where its first event stands.
pub(super) struct Done {
    pub(super) past: Past,
    pub(super) first: Position,
}

/// Does something and keeps what is needed to undo it.
#[track_caller]
pub(super) fn did(story: &mut Story, actor: Actor, command: ControlCommand) -> Done {
    let (before, first) = (story.state.clone(), Position(story.history.len() as u64 + 1));
    let decision = story.done(actor, command);
    Done { past: Past::new(&before, decision.events), first }
}

/// The command that undoes it, with what the log knows of later events.
pub(super) fn undoing(story: &Story, done: &Done) -> ControlCommand {
    let mut later = story.history.iter().filter(|(_, at)| at.position > done.first);
    let overtaking = later.rfind(|(event, _)| done.past.overtaken_by(event));
    let at = overtaking.map(|(_, at)| at.position);
    let past = Box::new(done.past.clone().overtaken_at(at));
    ControlCommand::Undo { position: done.first, past }
}

#[track_caller]
fn undo(story: &mut Story, done: &Done) -> When {
    let command = undoing(story, done);
    story.when(Actor::Operator, command)
}

/// Undoes it and keeps what is needed to undo that.
#[track_caller]
fn undid(story: &mut Story, done: &Done) -> Done {
    let command = undoing(story, done);
    did(story, Actor::Operator, command)
}

fn of(story: &Story, number: u8) -> &Mapping {
    story.state.mapping(mapping(number)).unwrap()
}

fn change(number: u8, name: Option<&str>, target: Option<&str>, max: Option<u32>) -> ControlCommand {
    ControlCommand::ChangeMapping {
        mapping: mapping(number),
        name: name.map(Into::into),
        target_address: target.map(Into::into),
        options: OptionsChange { max_connections: max.map(Some), ..OptionsChange::default() },
    }
}

fn block(number: u8, reason: &str) -> ControlCommand {
    ControlCommand::BlockClient { client: client(number), reason: reason.into() }
}

fn rename(number: u8, name: &str) -> ControlCommand {
    ControlCommand::RenameClient { client: client(number), name: name.into() }
}

#[test]
fn a_mapping_that_was_made_is_removed() {
    let mut story = Story::with_clients(1);
    let made = did(&mut story, acting(1), expose(1, 1, Some("web"), Some(20_003)));
    undo(&mut story, &made).then(&["mapping.removed"]);
    assert!(story.state.mapping(mapping(1)).is_none());
    let refusal = undo(&mut story, &made).then_refused("undo.changed_since");
    assert_eq!(refusal.to_string(), format!("mapping/{}: it is gone, by control:4", mapping(1)));
    assert_eq!(refusal.hint().as_deref(), Some("undo that first: underpass undo 4"));
}

#[test]
fn a_removed_mapping_comes_back_with_its_id_and_all_that_it_was() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, Some("web"), Some(20_003)), START.plus(60 * MINUTE)));
    story.done(acting(1), change(1, None, Some("db:5432"), Some(7)));
    story.done(Actor::Operator, ControlCommand::DisableMapping { mapping: mapping(1) });
    let was = of(&story, 1).clone();
    let removed = did(&mut story, Actor::Operator, remove(1));
    story.after(MINUTE);
    undo(&mut story, &removed).then(&["mapping.restored"]);
    // Its stream goes on: made, changed, disabled, removed, restored.
    assert_eq!(*of(&story, 1), Mapping { version: 5, ..was });
    assert_eq!(story.state.mapping_on_port(20_003).unwrap().id, mapping(1));
    let refusal = undo(&mut story, &removed).then_refused("undo.changed_since");
    assert!(refusal.to_string().contains("it is back already, by control:7"), "{refusal}");
}

#[test]
fn a_removed_mapping_does_not_come_back_where_its_place_is_taken() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, Some("web"), Some(20_003)));
    let removed = did(&mut story, acting(1), remove(1));

    story.done(acting(2), expose(2, 2, Some("web"), Some(20_003)));
    undo(&mut story, &removed).then_refused("port.taken");
    story.done(acting(2), remove(2));
    story.done(acting(1), expose(3, 1, Some("web"), None));
    undo(&mut story, &removed).then_refused("name.taken");
    story.done(acting(1), remove(3));
    undo(&mut story, &removed).then(&["mapping.restored"]);
}

#[test]
fn a_removed_mapping_does_not_come_back_where_its_listen_address_is_taken() {
    let mut story = Story::with_clients(3);
    let start = story.now;
    story.done(acting(1), share(1, 1, start));
    story.done(acting(2), redeem(1, 2, 1));
    let removed = did(&mut story, acting(2), remove(1));
    story.done(acting(3), share(2, 3, start));
    let ControlCommand::RedeemCode { lookup, proof_hash, client, mapping, .. } = redeem(2, 2, 2) else {
        unreachable!("redeem redeems");
    };
    story.done(
        acting(2),
        ControlCommand::RedeemCode { lookup, proof_hash, client, mapping, listen: listen(2001) },
    );
    undo(&mut story, &removed).then_refused("listen.taken");
}

#[test]
fn a_removed_mapping_does_not_come_back_without_its_clients_or_past_its_time() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), ending(expose(1, 1, Some("web"), None), START.plus(MINUTE)));
    let removed = did(&mut story, acting(1), remove(1));
    let mut later = story.clone();
    later.after(MINUTE);
    undo(&mut later, &removed).then_refused("undo.over");
    story.done(Actor::Operator, ControlCommand::RemoveClient { client: client(1) });
    undo(&mut story, &removed).then_refused("client.unknown");
}

#[test]
fn a_removal_that_was_undone_and_done_again_is_not_undone_by_its_old_position() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, None, None));
    let removed = did(&mut story, acting(1), remove(1));
    undo(&mut story, &removed).then(&["mapping.restored"]);
    let again = did(&mut story, acting(1), remove(1));
    let refusal = undo(&mut story, &removed).then_refused("undo.changed_since");
    assert!(refusal.to_string().ends_with("by control:6"), "{refusal}");
    undo(&mut story, &again).then(&["mapping.restored"]);
    assert_eq!(of(&story, 1).version, 5);
}

#[test]
fn a_change_is_taken_back_in_what_it_changed_and_nothing_else() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    let before = of(&story, 1).clone();
    let changed = did(&mut story, acting(1), change(1, Some("site"), Some("8080"), None));
    // What others have changed since stays.
    story.done(acting(1), change(1, None, None, Some(9)));
    undo(&mut story, &changed).then(&["mapping.changed"]);
    let after = of(&story, 1);
    assert_eq!((&after.name, &after.target), (&before.name, &before.target));
    assert_eq!(after.options.max_connections, Some(9));
}

#[test]
fn a_change_that_was_changed_again_is_not_taken_back_and_says_by_what() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    let changed = did(&mut story, acting(1), change(1, Some("site"), Some("8080"), None));
    story.done(acting(1), change(1, None, None, Some(9)));
    let again = did(&mut story, acting(1), change(1, None, Some("9090"), None));
    let refusal = undo(&mut story, &changed).then_refused("undo.changed_since");
    let said = refusal.to_string();
    assert!(said.contains("target changed again since") && said.ends_with("by control:6"), "{said}");
    // What the hint says helps.
    undo(&mut story, &again).then(&["mapping.changed"]);
    undo(&mut story, &changed).then(&["mapping.changed"]);
    assert_eq!(of(&story, 1).name, "web");
    assert_eq!(of(&story, 1).options.max_connections, Some(9));
}

#[test]
fn a_name_that_somebody_else_has_by_now_does_not_come_back() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    let changed = did(&mut story, acting(1), change(1, Some("site"), None, None));
    story.done(acting(1), expose(2, 1, Some("web"), None));
    undo(&mut story, &changed).then_refused("name.taken");
}

#[test]
fn a_port_that_was_moved_is_moved_back() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, Some("web"), Some(20_001)));
    let moved = did(&mut story, acting(1), expose_again(2, 1, Some("web"), Some(20_002)));
    let mut taken = story.clone();
    taken.done(acting(2), expose(3, 2, None, Some(20_001)));
    undo(&mut taken, &moved).then_refused("port.taken");
    undo(&mut story, &moved).then(&["mapping.changed"]);
    assert_eq!(story.state.mapping_on_port(20_001).unwrap().id, mapping(1));
    assert!(story.state.mapping_on_port(20_002).is_none());
}

#[test]
fn a_time_that_is_over_does_not_come_back() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, None, None), START.plus(MINUTE)));
    let options = OptionsChange { expires_at: Some(None), ..OptionsChange::default() };
    let command =
        ControlCommand::ChangeMapping { mapping: mapping(1), name: None, target_address: None, options };
    let changed = did(&mut story, acting(1), command);
    let mut early = story.clone();
    undo(&mut early, &changed).then(&["mapping.changed"]);
    assert_eq!(of(&early, 1).options.expires_at, Some(START.plus(MINUTE)));
    undo(story.after(MINUTE), &changed).then_refused("undo.over");
}

#[test]
fn switching_is_switched_back_unless_somebody_switched_since() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, None, None));
    let off = did(&mut story, acting(1), ControlCommand::DisableMapping { mapping: mapping(1) });
    let on = undid(&mut story, &off);
    assert_eq!(of(&story, 1).status, MappingStatus::Active);
    undo(&mut story, &off).then_refused("undo.changed_since");
    undo(&mut story, &on).then(&["mapping.disabled"]);
}

#[test]
fn what_happened_to_a_client_is_taken_back() {
    let mut story = Story::with_clients(1);
    let renamed = did(&mut story, Actor::Operator, rename(1, "other"));
    undo(&mut story, &renamed).then(&["client.renamed"]);
    assert_eq!(story.state.client(client(1)).unwrap().name, "host-1");
    undo(&mut story, &renamed).then_refused("undo.changed_since");

    let blocked = did(&mut story, Actor::Operator, block(1, "lost"));
    let reworded = did(&mut story, Actor::Operator, block(1, "stolen"));
    undo(&mut story, &blocked).then_refused("undo.changed_since");
    undo(&mut story, &reworded).then(&["client.blocked"]);
    let unblocked = undid(&mut story, &blocked);
    assert!(story.state.client(client(1)).unwrap().is_active());
    undo(&mut story, &unblocked).then(&["client.blocked"]);
    let reason = ClientStatus::Blocked { reason: "lost".into() };
    assert_eq!(story.state.client(client(1)).unwrap().status, reason);
}

#[test]
fn an_enrolment_is_undone_by_removing_the_client_unless_it_has_something_by_now() {
    let mut story = Story::new();
    let until = story.now.plus(MINUTE);
    story.done(Actor::Operator, issue_invite(1, until));
    let enrolled = did(&mut story, Actor::System, enrol(1, Some(Digest32([1; 32]))));
    let mut busy = story.clone();
    busy.done(acting(1), expose(1, 1, None, None));
    let refusal = undo(&mut busy, &enrolled).then_refused("undo.built_upon");
    assert!(refusal.to_string().contains("1 mappings"), "{refusal}");
    let removal = undid(&mut story, &enrolled);
    assert!(story.state.client(client(1)).is_none());
    assert!(matches!(story.state.invite(invite(1)).unwrap().status, InviteStatus::Used { .. }));
    undo(&mut story, &enrolled).then_refused("undo.changed_since");
    undo(&mut story, &removal).then_refused("undo.none");
}

#[test]
fn secrets_are_revoked_and_never_come_back() {
    let mut story = Story::with_clients(2);
    let (now, until) = (story.now, story.now.plus(10 * MINUTE));
    let issue_key = ControlCommand::IssueKey {
        key: key(1),
        hash: Digest32([1; 32]),
        scopes: vec![Scope::Read],
        label: None,
        expires_at: None,
    };
    let issued = [
        (issue_invite(1, until), "invite.revoked"),
        (share(1, 1, now), "code.revoked"),
        (issue_key, "key.revoked"),
    ];
    for (command, revoked) in issued {
        let issued = did(&mut story, Actor::Operator, command);
        let command = undoing(&story, &issued);
        let revocation = did(&mut story, Actor::Operator, command);
        assert_eq!(story.history.last().unwrap().0.name(), revoked);
        undo(&mut story, &issued).then_refused("undo.changed_since");
        undo(&mut story, &revocation).then_refused("undo.none");
    }
}

#[test]
fn a_code_that_was_redeemed_stays_used_when_its_mapping_goes() {
    let mut story = Story::with_clients(2);
    let start = story.now;
    let issued = did(&mut story, acting(1), share(1, 1, start));
    let redeemed = did(&mut story, acting(2), redeem(1, 2, 1));
    undo(&mut story, &issued).then_refused("undo.changed_since");
    let removal = undid(&mut story, &redeemed);
    assert!(story.state.mapping(mapping(1)).is_none());
    story.when(acting(2), redeem(1, 2, 2)).then_refused("code.used");
    undo(&mut story, &removal).then(&["mapping.restored"]);
    // The same client again gets its mapping again.
    story.when(acting(2), redeem(1, 2, 1)).then_already(mapping(1));
}

#[test]
fn what_nothing_compensates_says_so() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, None, None), START.plus(MINUTE)));
    let until = story.now.plus(MINUTE);
    story.done(Actor::Operator, issue_invite(1, until));
    story.after(MINUTE);
    let start = ControlCommand::StartNode { node: node(1), name: "gate".into(), version: "1".into() };
    let commands = [
        ControlCommand::ExpireMapping { mapping: mapping(1) },
        ControlCommand::ExpireInvite { invite: invite(1) },
        start,
        ControlCommand::StopNode { node: node(1) },
        ControlCommand::NoteTrimmed { until: Position(1), hash: Digest32([7; 32]) },
        ControlCommand::RemoveClient { client: client(1) },
    ];
    let genesis = Past::new(&ControlState::default(), vec![story.history[0].0.clone()]);
    let mut all = vec![Done { past: genesis, first: Position(1) }];
    all.extend(commands.into_iter().map(|command| did(&mut story, Actor::System, command)));
    for done in all {
        let refusal = undo(&mut story, &done).then_refused("undo.none");
        assert!(refusal.to_string().contains("can't be undone: "), "{refusal}");
        assert_eq!(refusal.class(), RefusalClass::Conflict);
    }
}

#[test]
fn clients_undo_nothing() {
    let mut story = Story::with_clients(1);
    let made = did(&mut story, acting(1), expose(1, 1, None, None));
    let command = undoing(&story, &made);
    story.when(acting(1), command).then_refused("forbidden");
}

#[test]
fn a_repeat_of_an_undo_is_told_by_its_position() {
    let mut story = Story::with_clients(1);
    let made = did(&mut story, acting(1), expose(1, 1, None, None));
    let first = undoing(&story, &made);
    story.done(Actor::Operator, first.clone());
    let again = undoing(&story, &made);
    assert_ne!(first, again);
    assert_eq!(crate::codec::encode(&first).unwrap(), crate::codec::encode(&again).unwrap());
    let meta = Meta {
        id: CommandId([0; 16]),
        actor: Actor::Operator,
        source: None,
        correlation: None,
        causation: None,
        now: story.now,
    };
    assert!(story.state.decide(&meta, &again).is_err());
}
