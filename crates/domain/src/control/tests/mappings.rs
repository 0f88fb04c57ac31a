use super::*;
use crate::limits::MAPPINGS_PER_CLIENT_MAX;

fn of(story: &Story, number: u8) -> &Mapping {
    story.state.mapping(mapping(number)).unwrap()
}

#[test]
fn a_port_is_used_once() {
    let mut story = Story::with_clients(2);
    story.when(acting(1), expose(1, 1, None, Some(20_003))).then(&["mapping.created"]);
    let refusal = story.when(acting(2), expose(2, 2, None, Some(20_003))).then_refused("port.taken");
    assert_eq!(refusal.class(), RefusalClass::Conflict);
    story.done(acting(1), remove(1));
    story.when(acting(2), expose(2, 2, None, Some(20_003))).then(&["mapping.created"]);
    assert_eq!(story.state.mapping_on_port(20_003).unwrap().id, mapping(2));
}

#[test]
fn a_port_outside_the_range_is_not_given() {
    let mut story = Story::with_clients(1);
    for port in [0, 22, 19_999, 20_010] {
        let refusal = story.when(acting(1), expose(1, 1, None, Some(port))).then_refused("port.out_of_range");
        assert_eq!(refusal.class(), RefusalClass::Invalid { field: "port" });
    }
}

#[test]
fn the_server_picks_every_port_once_and_then_says_that_none_is_free() {
    let mut story = Story::with_clients(1);
    for number in 1..=10 {
        story.done(acting(1), expose(number, 1, None, None));
    }
    let mut ports: Vec<_> = story.state.mappings().filter_map(Mapping::port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (20_000..=20_009).collect::<Vec<_>>());
    story.when(acting(1), expose(11, 1, None, None)).then_refused("port.none_free");
}

#[test]
fn an_empty_range_gives_no_port() {
    let mut story = Story::with_clients(1);
    let mut command = expose(1, 1, None, None);
    if let ControlCommand::CreateMapping { ports, .. } = &mut command {
        *ports = (2, 1);
    }
    story.when(acting(1), command).then_refused("port.none_free");
}

#[test]
fn a_name_is_used_once_by_a_client_and_freely_by_others() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    story.when(acting(1), expose(2, 1, Some("web"), None)).then_refused("name.taken");
    story.when(acting(2), expose(2, 2, Some("web"), None)).then(&["mapping.created"]);
    assert_eq!(story.state.mapping_by_name(client(1), "web").unwrap().id, mapping(1));
    assert_eq!(story.state.mapping_by_name(client(2), "web").unwrap().id, mapping(2));
}

#[test]
fn without_a_name_it_is_called_after_its_port() {
    let mut story = Story::with_clients(1);
    for (number, name) in [(1, "port-3000"), (2, "port-3000-2"), (3, "port-3000-3")] {
        story.done(acting(1), expose(number, 1, None, None));
        assert_eq!(of(&story, number).name, name);
    }
    assert_eq!(of(&story, 1).target.address, "127.0.0.1:3000");
}

#[test]
fn exposing_again_adopts_the_mapping_made_before() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose_again(1, 1, Some("web"), Some(20_004)));
    story.when(acting(1), expose_again(2, 1, Some("web"), None)).then_already(mapping(1));
    story.when(acting(1), expose_again(2, 1, Some("web"), Some(20_004))).then_already(mapping(1));
    // Unnamed, the target tells.
    story.when(acting(1), expose_again(2, 1, None, None)).then_already(mapping(1));
    assert_eq!(of(&story, 1).port(), Some(20_004));
    assert_eq!(story.state.mappings().count(), 1);
}

#[test]
fn what_differs_from_the_adopted_mapping_is_changed() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose_again(1, 1, Some("web"), Some(20_004)));
    story.done(acting(2), expose_again(2, 2, Some("web"), Some(20_005)));

    let mut command = expose_again(3, 1, Some("web"), Some(20_006));
    if let ControlCommand::CreateMapping { target, options, .. } = &mut command {
        target.address = "db:5432".into();
        options.max_connections = Some(3);
    }
    let decision = story.when(acting(1), command).then(&["mapping.changed"]);
    assert_eq!(decision.subject, Subject::Mapping(mapping(1)));
    let changed = of(&story, 1);
    assert_eq!(changed.port(), Some(20_006));
    assert_eq!(changed.target.address, "db:5432");
    assert_eq!(changed.options.max_connections, Some(3));
    assert_eq!(changed.version, 2);
    assert!(story.state.mapping_on_port(20_004).is_none(), "the old port is free");

    story.when(acting(1), expose_again(3, 1, Some("web"), Some(20_005))).then_refused("port.taken");
    story.when(acting(1), expose_again(3, 1, Some("web"), Some(80))).then_refused("port.out_of_range");
}

#[test]
fn a_mapping_of_another_kind_or_from_a_code_is_not_adopted() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    assert_eq!(of(&story, 1).name, "port-22");
    story.when(acting(1), expose_again(2, 1, Some("port-22"), None)).then_refused("name.taken");
    let mut same_target = expose_again(2, 1, None, None);
    if let ControlCommand::CreateMapping { target, .. } = &mut same_target {
        target.address = "22".into();
    }
    story.when(acting(1), same_target).then(&["mapping.created"]);
}

#[test]
fn a_disabled_mapping_is_not_adopted_as_if_it_were_open() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose_again(1, 1, Some("web"), None));
    story.done(Actor::Operator, ControlCommand::DisableMapping { mapping: mapping(1) });
    story.when(acting(1), expose_again(2, 1, Some("web"), None)).then_refused("mapping.disabled");
}

#[test]
fn disabled_and_removed_mappings_are_never_desired() {
    // C21
    let mut story = Story::with_clients(1);
    let desired = |story: &Story| story.state.desired(client(1), story.now).len();
    story.done(acting(1), expose(1, 1, None, Some(20_001)));
    assert_eq!(desired(&story), 1);
    story.when(acting(1), ControlCommand::DisableMapping { mapping: mapping(1) }).then(&["mapping.disabled"]);
    story.when(acting(1), ControlCommand::DisableMapping { mapping: mapping(1) }).then_already(mapping(1));
    assert_eq!(desired(&story), 0);
    assert!(story.state.mapping_on_port(20_001).is_some(), "it keeps its port");
    story.when(acting(1), ControlCommand::EnableMapping { mapping: mapping(1) }).then(&["mapping.enabled"]);
    story.when(acting(1), ControlCommand::EnableMapping { mapping: mapping(1) }).then_already(mapping(1));
    assert_eq!(desired(&story), 1);
    story.when(acting(1), remove(1)).then(&["mapping.removed"]);
    assert_eq!(desired(&story), 0);
    story.when(acting(1), remove(1)).then_refused("mapping.not_found");
}

#[test]
fn a_foreign_client_may_not_touch_a_mapping() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), expose(1, 1, None, None));
    let change = ControlCommand::ChangeMapping {
        mapping: mapping(1),
        name: Some("mine".into()),
        target_address: None,
        options: OptionsChange::default(),
    };
    for command in [
        remove(1),
        change,
        ControlCommand::EnableMapping { mapping: mapping(1) },
        ControlCommand::DisableMapping { mapping: mapping(1) },
        expose(2, 1, None, None),
    ] {
        story.when(acting(2), command).then_refused("forbidden");
    }
}

#[test]
fn a_listener_may_give_a_mapping_up_but_not_extend_it() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    story.done(acting(1), ControlCommand::DisableMapping { mapping: mapping(1) });
    let forever = ControlCommand::ChangeMapping {
        mapping: mapping(1),
        name: None,
        target_address: None,
        options: OptionsChange { expires_at: Some(None), ..OptionsChange::default() },
    };
    story.when(acting(2), forever).then_refused("forbidden");
    story.when(acting(2), ControlCommand::EnableMapping { mapping: mapping(1) }).then_refused("forbidden");
    story.when(acting(2), remove(1)).then(&["mapping.removed"]);
}

#[test]
fn a_client_reaches_another_one_by_a_code_only() {
    let mut story = Story::with_clients(2);
    let between = |listener, target| ControlCommand::CreateMapping {
        mapping: mapping(1),
        owner: None,
        name: None,
        ingress: IngressRequest::Client { client: client(listener), listen: listen(2222) },
        target: Target { client: client(target), address: "22".into() },
        options: MappingOptions::default(),
        ports: PORTS,
        adopt: true,
    };
    story.when(acting(1), between(1, 2)).then_refused("forbidden");
    story.when(acting(2), between(1, 2)).then_refused("forbidden");
    story.when(Actor::Operator, between(1, 2)).then(&["mapping.created"]);
    story.when(Actor::Operator, between(1, 2)).then_already(mapping(1));
}

#[test]
fn a_listen_address_is_used_once_by_a_client_but_for_port_0() {
    let mut story = Story::with_clients(2);
    let at = |number: u8, address: &str, port| ControlCommand::CreateMapping {
        mapping: mapping(number),
        owner: None,
        name: None,
        ingress: IngressRequest::Client { client: client(1), listen: listen(port) },
        target: Target { client: client(2), address: address.into() },
        options: MappingOptions::default(),
        ports: PORTS,
        adopt: false,
    };
    story.done(Actor::Operator, at(1, "22", 2222));
    story.when(Actor::Operator, at(2, "23", 2222)).then_refused("listen.taken");
    story.done(Actor::Operator, at(2, "23", 0));
    story.done(Actor::Operator, at(3, "24", 0));
    story.done(Actor::Operator, remove(1));
    story.done(Actor::Operator, at(4, "22", 2222));
}

#[test]
fn a_change_leaves_the_rest_as_it_is() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("web"), Some(20_001)));
    story.done(acting(1), expose(2, 1, Some("api"), None));
    let change = |name: Option<&str>, address: Option<&str>| ControlCommand::ChangeMapping {
        mapping: mapping(1),
        name: name.map(Into::into),
        target_address: address.map(Into::into),
        options: OptionsChange::default(),
    };
    story.when(acting(1), change(Some("api"), None)).then_refused("name.taken");
    story.when(acting(1), change(Some("web"), Some("3000"))).then_already(mapping(1));
    story.when(acting(1), change(Some("shop"), None)).then(&["mapping.changed"]);
    let changed = of(&story, 1);
    assert_eq!((changed.name.as_str(), changed.port()), ("shop", Some(20_001)));
    assert_eq!(changed.target.address, "127.0.0.1:3000");
    assert!(story.state.mapping_by_name(client(1), "web").is_none(), "the old name is free");
    story.when(acting(1), change(None, Some("nowhere"))).then_refused("invalid");
}

/// Both were asked for by somebody who had seen neither.
#[test]
fn two_changes_of_two_options_both_last() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("web"), None));
    let change = |options| ControlCommand::ChangeMapping {
        mapping: mapping(1),
        name: None,
        target_address: None,
        options,
    };
    let few = OptionsChange { max_connections: Some(Some(5)), ..OptionsChange::default() };
    let open = OptionsChange { seal: Some(Seal::Off), ..OptionsChange::default() };
    story.when(acting(1), change(few.clone())).then(&["mapping.changed"]);
    story.when(acting(1), change(open)).then(&["mapping.changed"]);
    let wanted = MappingOptions { seal: Seal::Off, max_connections: Some(5), ..MappingOptions::default() };
    assert_eq!(of(&story, 1).options, wanted);
    story.when(acting(1), change(few)).then_already(mapping(1));
    let any = OptionsChange { max_connections: Some(None), ..OptionsChange::default() };
    story.done(acting(1), change(any));
    assert_eq!(of(&story, 1).options, MappingOptions { max_connections: None, ..wanted });
}

#[test]
fn options_are_checked() {
    let mut story = Story::with_clients(1);
    let with = |options| {
        let mut command = expose(1, 1, None, None);
        if let ControlCommand::CreateMapping { options: wanted, .. } = &mut command {
            *wanted = options;
        }
        command
    };
    let usual = MappingOptions::default();
    for (field, options) in [
        ("max_connections", MappingOptions { max_connections: Some(0), ..usual.clone() }),
        ("max_connections", MappingOptions { max_connections: Some(65_536), ..usual.clone() }),
        ("idle_timeout_s", MappingOptions { idle_timeout_s: Some(0), ..usual.clone() }),
        ("idle_timeout_s", MappingOptions { idle_timeout_s: Some(u32::MAX), ..usual.clone() }),
        ("expires_at", MappingOptions { expires_at: Some(START), ..usual.clone() }),
        ("expires_at", MappingOptions { expires_at: Some(Timestamp(u64::MAX)), ..usual.clone() }),
    ] {
        let refusal = story.when(acting(1), with(options)).then_refused("invalid");
        assert_eq!(refusal.class(), RefusalClass::Invalid { field });
    }
    let fine = MappingOptions { max_connections: Some(65_535), idle_timeout_s: Some(1), ..usual };
    story.when(acting(1), with(fine)).then(&["mapping.created"]);
}

#[test]
fn a_client_has_so_many_mappings_and_no_more() {
    let mut story = Story::with_clients(1);
    let create = |number: usize| ControlCommand::CreateMapping {
        mapping: MappingId::from_bytes((number as u128).to_be_bytes()),
        owner: None,
        name: Some(format!("m{number}")),
        ingress: IngressRequest::Port { port: None },
        target: Target { client: client(1), address: "3000".into() },
        options: MappingOptions::default(),
        ports: (20_000, 29_999),
        adopt: false,
    };
    for number in 0..MAPPINGS_PER_CLIENT_MAX {
        story.done(acting(1), create(number));
    }
    let refusal = story.when(acting(1), create(MAPPINGS_PER_CLIENT_MAX)).then_refused("quota.mappings");
    assert_eq!(refusal.to_string(), "1000 of 1000 mappings of the client are in use");
}

#[test]
fn the_id_of_a_mapping_is_not_used_twice() {
    let mut story = Story::with_clients(1);
    story.done(acting(1), expose(1, 1, Some("a"), None));
    story.when(acting(1), expose(1, 1, Some("b"), None)).then_refused("mapping.exists");
}

#[test]
fn a_listen_address_with_a_zone_is_invalid() {
    // It would not come back from disk as it was.
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    let mut there = redeem(1, 2, 1);
    if let ControlCommand::RedeemCode { listen, .. } = &mut there {
        *listen = std::net::SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 2222, 0, 3).into();
    }
    let refusal = story.when(acting(2), there).then_refused("invalid");
    assert_eq!(refusal.class(), RefusalClass::Invalid { field: "listen" });
}
