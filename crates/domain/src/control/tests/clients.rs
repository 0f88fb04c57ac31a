use super::*;

fn block(number: u8) -> ControlCommand {
    ControlCommand::BlockClient { client: client(number), reason: "lost laptop".into() }
}

#[test]
fn a_blocked_client_has_nothing_to_do_and_may_do_nothing() {
    // C10
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 2));
    assert_eq!(story.state.desired(client(1), story.now).len(), 2);
    assert_eq!(story.state.desired(client(2), story.now).len(), 1);

    story.when(Actor::Operator, block(1)).then(&["client.blocked"]);
    assert!(story.state.desired(client(1), story.now).is_empty());
    assert!(story.state.desired(client(2), story.now).is_empty(), "nobody listens for a blocked target");
    story.when(acting(1), expose(3, 1, None, None)).then_refused("client.blocked");
    story.when(acting(1), share(2, 1, START)).then_refused("client.blocked");
    story.when(Actor::System, enrol(1, None)).then_refused("client.blocked");

    story
        .when(Actor::Operator, ControlCommand::UnblockClient { client: client(1) })
        .then(&["client.unblocked"]);
    assert_eq!(story.state.desired(client(1), story.now).len(), 2);
}

#[test]
fn a_blocked_listener_is_not_served() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    story.done(Actor::Operator, block(2));
    assert!(!story.state.serves(story.state.mapping(mapping(1)).unwrap(), story.now));
    assert!(story.state.desired(client(1), story.now).is_empty());
}

#[test]
fn a_code_of_a_blocked_client_is_not_redeemed() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(Actor::Operator, block(1));
    story.when(acting(2), redeem(1, 2, 1)).then_refused("client.blocked");
}

#[test]
fn blocking_and_renaming_twice_changes_nothing() {
    let mut story = Story::with_clients(1);
    story.done(Actor::Operator, block(1));
    story.when(Actor::Operator, block(1)).then_already(client(1));
    story.done(Actor::Operator, ControlCommand::UnblockClient { client: client(1) });
    story.when(Actor::Operator, ControlCommand::UnblockClient { client: client(1) }).then_already(client(1));
    let rename = ControlCommand::RenameClient { client: client(1), name: "attic".into() };
    story.when(acting(1), rename.clone()).then(&["client.renamed"]);
    story.when(acting(1), rename).then_already(client(1));
    assert_eq!(story.state.client(client(1)).unwrap().version, 4);
}

#[test]
fn removing_a_client_takes_its_mappings_and_open_codes_along() {
    let mut story = Story::with_clients(3);
    story.done(acting(1), expose(1, 1, Some("web"), Some(20_000)));
    story.done(acting(1), share(1, 1, START));
    story.done(acting(1), share(2, 1, START));
    story.done(acting(2), redeem(1, 2, 2));
    story.done(acting(3), expose(3, 3, None, Some(20_001)));

    story.when(Actor::Operator, ControlCommand::RemoveClient { client: client(1) }).then(&[
        "mapping.removed",
        "mapping.removed",
        "code.revoked",
        "client.removed",
    ]);
    assert!(story.state.client(client(1)).is_none());
    assert!(story.state.client_by_key(&PublicKey([1; 32])).is_none());
    assert!(story.state.desired(client(2), story.now).is_empty());
    assert!(story.state.mapping_on_port(20_000).is_none());
    assert_eq!(story.state.mappings().map(|mapping| mapping.id).collect::<Vec<_>>(), [mapping(3)]);
    story.when(acting(2), redeem(2, 2, 4)).then_refused("code.revoked");
    story.when(acting(1), expose(5, 1, None, None)).then_refused("client.unknown");
}

#[test]
fn a_client_may_leave_but_not_send_others_away() {
    let mut story = Story::with_clients(2);
    let leave = |number| ControlCommand::RemoveClient { client: client(number) };
    story.when(acting(1), leave(2)).then_refused("forbidden");
    story.when(acting(1), leave(1)).then(&["client.removed"]);
}

#[test]
fn a_client_does_not_administer_the_server() {
    let mut story = Story::with_clients(2);
    for command in [
        issue_invite(1, START.plus(MINUTE)),
        block(2),
        ControlCommand::UnblockClient { client: client(1) },
        ControlCommand::RevokeInvite { invite: invite(1) },
        ControlCommand::ExpireMapping { mapping: mapping(1) },
        ControlCommand::RevokeKey { key: key(1) },
        ControlCommand::StartNode { node: node(1), name: "a".into(), version: "1".into() },
    ] {
        let refusal = story.when(acting(1), command).then_refused("forbidden");
        assert_eq!(refusal.class(), RefusalClass::Forbidden);
    }
}

#[test]
fn names_and_platforms_are_checked() {
    let mut story = Story::with_clients(1);
    for name in ["", "a b", "ü", &"x".repeat(64)] {
        let rename = ControlCommand::RenameClient { client: client(1), name: name.into() };
        let refusal = story.when(acting(1), rename).then_refused("invalid");
        assert_eq!(refusal.class(), RefusalClass::Invalid { field: "name" });
    }
    let mut loud = enrol(2, None);
    if let ControlCommand::EnrolClient { platform, .. } = &mut loud {
        *platform = "\x1b[31mred".into();
    }
    let refusal = story.when(Actor::System, loud).then_refused("invalid");
    assert_eq!(refusal.class(), RefusalClass::Invalid { field: "platform" });
}

#[test]
fn an_id_in_use_is_no_new_client() {
    let mut story = Story::with_clients(1);
    let mut other_key = enrol(1, None);
    if let ControlCommand::EnrolClient { public_key, .. } = &mut other_key {
        *public_key = PublicKey([9; 32]);
    }
    story.when(Actor::System, other_key).then_refused("client.exists");
}
