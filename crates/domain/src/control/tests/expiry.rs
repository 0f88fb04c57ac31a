use super::*;

#[test]
fn reads_hide_a_mapping_at_once_but_only_the_event_frees_its_name_and_port() {
    // C21
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, Some("web"), Some(20_001)), START.plus(MINUTE)));
    assert_eq!(story.state.next_deadline(), Some(START.plus(MINUTE)));
    assert_eq!(story.state.desired(client(1), story.now).len(), 1);

    story.after(MINUTE);
    assert!(story.state.desired(client(1), story.now).is_empty());
    story.when(acting(1), expose(2, 1, Some("web"), None)).then_refused("name.taken");
    story.when(acting(1), expose(2, 1, None, Some(20_001))).then_refused("port.taken");
    story.when(acting(1), expose_again(2, 1, Some("web"), None)).then_refused("mapping.expired");
    story
        .when(acting(1), ControlCommand::EnableMapping { mapping: mapping(1) })
        .then_refused("mapping.expired");

    let expire = ControlCommand::ExpireMapping { mapping: mapping(1) };
    assert_eq!(story.state.due(story.now), std::slice::from_ref(&expire));
    story.when(Actor::System, expire.clone()).then(&["mapping.expired"]);
    story.when(Actor::System, expire).then_already(mapping(1));
    assert!(story.state.due(story.now).is_empty());
    story.when(acting(1), expose(2, 1, Some("web"), Some(20_001))).then(&["mapping.created"]);
}

#[test]
fn nothing_expires_before_its_time() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, None, None), START.plus(MINUTE)));
    story.done(acting(1), expose(2, 1, None, None));
    story.done(acting(1), share(1, 1, START));
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.after(Duration::from_millis(59_999));
    assert!(story.state.due(story.now).is_empty());
    for command in [
        ControlCommand::ExpireMapping { mapping: mapping(1) },
        ControlCommand::ExpireMapping { mapping: mapping(2) },
        ControlCommand::ExpireCode { code: code(1) },
        ControlCommand::ExpireInvite { invite: invite(1) },
    ] {
        story.when(Actor::System, command).then_refused("expiry.not_due");
    }
}

#[test]
fn what_is_due_comes_in_order_and_the_next_deadline_follows() {
    let mut story = Story::with_clients(1);
    story.done(Actor::Operator, issue_invite(1, START.plus(3 * MINUTE)));
    story.done(acting(1), ending(expose(1, 1, None, None), START.plus(2 * MINUTE)));
    story.done(acting(1), share(1, 1, START));
    story.done(
        Actor::Operator,
        ControlCommand::IssueKey {
            key: key(1),
            hash: Digest32([1; 32]),
            scopes: vec![Scope::Read],
            label: None,
            expires_at: Some(START.plus(MINUTE)),
        },
    );
    assert_eq!(story.state.next_deadline(), Some(START.plus(MINUTE)));
    story.after(20 * MINUTE);
    let due = story.state.due(story.now);
    assert_eq!(
        due,
        [
            ControlCommand::ExpireKey { key: key(1) },
            ControlCommand::ExpireMapping { mapping: mapping(1) },
            ControlCommand::ExpireInvite { invite: invite(1) },
            ControlCommand::ExpireCode { code: code(1) },
        ]
    );
    for command in due {
        story.done(Actor::System, command);
    }
    assert_eq!(story.state.next_deadline(), None);
}

#[test]
fn a_changed_end_is_the_one_that_counts() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), ending(expose(1, 1, None, None), START.plus(MINUTE)));
    let change = |expires_at| ControlCommand::ChangeMapping {
        mapping: mapping(1),
        name: None,
        target_address: None,
        options: OptionsChange { expires_at: Some(expires_at), ..OptionsChange::default() },
    };
    story.done(acting(1), change(Some(START.plus(2 * MINUTE))));
    assert_eq!(story.state.next_deadline(), Some(START.plus(2 * MINUTE)));
    story.done(acting(1), change(None));
    assert_eq!(story.state.next_deadline(), None);
}
