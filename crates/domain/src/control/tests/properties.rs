//! What holds after any commands in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::meta::{Entity, StreamId};

/// A command out of a small world, so that commands meet each other, and the time before it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) actor: Actor,
    pub(super) seconds: u64,
    what: u8,
    fresh: u8,
    a: u8,
    b: u8,
    c: u8,
    flag: bool,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..19_u8, 0..6_u8, 1..5_u8, 1..7_u8, 1..5_u8, any::<bool>(), 0..240_u64);
    vec(step, 1..80).prop_map(|steps| {
        let steps = (100..).zip(steps);
        let step = |(fresh, (what, who, a, b, c, flag, seconds))| {
            let actor = if who == 0 { Actor::Operator } else { acting(who) };
            Step { actor, seconds, what, fresh, a, b, c, flag }
        };
        steps.map(step).collect()
    })
}

impl Step {
    pub(super) fn command(&self, now: Timestamp) -> ControlCommand {
        let Self { what, fresh, a, b, c, flag, .. } = *self;
        let port = flag.then_some(20_000 + u16::from(b));
        let name = flag.then(|| format!("name-{c}"));
        match what {
            0 => enrol(a, None),
            1 => ControlCommand::RemoveClient { client: client(a) },
            2 if flag => ControlCommand::BlockClient { client: client(a), reason: "r".into() },
            2 => ControlCommand::UnblockClient { client: client(a) },
            3 => expose(fresh, a, name.as_deref(), port),
            4 => expose_again(fresh, a, name.as_deref(), port),
            5 => ending(expose(b, a, name.as_deref(), None), now.plus(MINUTE)),
            6 => ControlCommand::CreateMapping {
                mapping: mapping(fresh),
                owner: None,
                name,
                ingress: IngressRequest::Client {
                    client: client(c),
                    listen: listen(2000 + u16::from(b % 3)),
                },
                target: Target { client: client(a), address: format!("db:{b}") },
                options: MappingOptions::default(),
                ports: PORTS,
                adopt: flag,
            },
            7 => ControlCommand::ChangeMapping {
                mapping: mapping(b),
                name,
                target_address: flag.then(|| (1000 + u16::from(a)).to_string()),
                options: OptionsChange {
                    max_connections: (!flag).then_some(Some(a.into())),
                    ..OptionsChange::default()
                },
            },
            8 if flag => ControlCommand::EnableMapping { mapping: mapping(b) },
            8 => ControlCommand::DisableMapping { mapping: mapping(b) },
            9 => remove(b),
            10 => ControlCommand::ExpireMapping { mapping: mapping(b) },
            11 => share(b, a, now),
            12 | 13 => redeem(b, a, c + 1),
            14 => redeem(b, a, fresh),
            15 if flag => ControlCommand::RevokeCode { code: code(b) },
            15 => ControlCommand::ExpireCode { code: code(b) },
            16 => issue_invite(b, now.plus(MINUTE)),
            17 => enrol(a, Some(Digest32([b; 32]))),
            _ => ControlCommand::ExpireInvite { invite: invite(b) },
        }
    }
}

fn mapping_of(event: &ControlEvent) -> Option<MappingId> {
    let stream = event.stream();
    (stream.entity == Entity::Mapping).then(|| MappingId::from_bytes(stream.id))
}

/// All that must be true of any state.
pub(super) fn check(story: &Story) {
    let state = &story.state;
    let (mut ports, mut names, mut listens) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for mapping in state.mappings() {
        assert!(state.client(mapping.target.client).is_some());
        assert!(names.insert((mapping.target.client, &mapping.name)), "a name twice");
        match mapping.ingress {
            Ingress::Port { port } => {
                assert!(ports.insert(port), "a port twice");
                assert_eq!(state.mapping_on_port(port), Some(mapping));
                assert!((PORTS.0..=PORTS.1).contains(&port));
            }
            Ingress::Client { client, listen } => {
                assert!(state.client(client).is_some());
                assert!(listens.insert((client, listen)), "a listen address twice");
                assert!(state.mappings_of(client).any(|of| of.id == mapping.id));
            }
        }
        assert_eq!(state.mapping_by_name(mapping.target.client, &mapping.name), Some(mapping));
    }

    let (mut codes, mut invites, mut made) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut versions: BTreeMap<StreamId, u64> = BTreeMap::new();
    for (event, _) in &story.history {
        *versions.entry(event.stream()).or_default() += 1;
        match event {
            ControlEvent::CodeRedeemed(event) => assert!(codes.insert(event.code), "a code redeemed twice"),
            ControlEvent::InviteUsed(event) => assert!(invites.insert(event.invite), "an invite used twice"),
            ControlEvent::MappingCreated(event) => {
                if let Some(code) = event.code {
                    assert!(made.insert(code), "a code with two mappings");
                }
            }
            _ => {}
        }
    }
    assert_eq!(codes, made);

    for client in state.clients() {
        let open =
            state.open_codes_of(client.id).filter(|code| code.status_at(story.now) == CodeStatus::Open);
        assert!(open.count() <= crate::limits::OPEN_CODES_PER_CLIENT_MAX);
        let desired = state.desired(client.id, story.now);
        assert!(client.is_active() || desired.is_empty());
        for mapping in desired {
            assert!(mapping.involves(client.id) && !mapping.is_past(story.now));
            assert_eq!(mapping.status, MappingStatus::Active);
        }
    }
    for code in state.codes() {
        assert_eq!(versions.get(&code.id.into()), Some(&code.version));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decision_breaks_what_must_hold(steps in steps()) {
        let mut story = Story::with_clients(4);
        for step in steps {
            let actor = step.actor;
            story.after(Duration::from_secs(step.seconds));
            let command = step.command(story.now);
            let before = story.state.clone();
            let Ok(decision) = story.execute(actor, &command) else {
                prop_assert_eq!(&story.state, &before);
                continue;
            };
            if let (Actor::Client(actor), false) = (actor, matches!(command, ControlCommand::EnrolClient { .. })) {
                for touched in decision.events.iter().filter_map(mapping_of) {
                    let mapping = before.mapping(touched).or_else(|| story.state.mapping(touched));
                    prop_assert!(mapping.is_some_and(|mapping| mapping.involves(actor)));
                }
            }
            check(&story);
        }
        // What is overdue can be noted, and then nothing is.
        story.after(Duration::from_hours(24));
        for command in story.state.due(story.now) {
            prop_assert!(!story.done(Actor::System, command).events.is_empty());
        }
        prop_assert!(story.state.due(story.now).is_empty());
        check(&story);
    }

    /// Who follows by what was touched serves what somebody serves who looks at everything.
    #[test]
    fn whatever_is_served_otherwise_is_touched(steps in steps(), looks in vec(1..5_usize, 1..20)) {
        let mut story = Story::with_clients(4);
        let (mut seen, mut then) = (story.state.clone(), story.now);
        let mut looks = looks.into_iter().cycle();
        let mut until = looks.next().unwrap_or(1);
        for step in steps {
            let actor = step.actor;
            story.after(Duration::from_secs(step.seconds));
            let command = step.command(story.now);
            let _ = story.execute(actor, &command);
            until -= 1;
            if until > 0 {
                continue;
            }
            until = looks.next().unwrap_or(1);
            let (state, now) = (&story.state, story.now);
            let touched = state.touched_since(&seen, then, now);
            let served = |state: &ControlState, now| -> BTreeMap<MappingId, Mapping> {
                let served = state.mappings().filter(|mapping| state.serves(mapping, now));
                served.map(|mapping| (mapping.id, mapping.clone())).collect()
            };
            let (was, is) = (served(&seen, then), served(state, now));
            for id in was.keys().chain(is.keys()) {
                if was.get(id) != is.get(id) {
                    prop_assert!(touched.mappings.contains(id));
                    for mapping in was.get(id).into_iter().chain(is.get(id)) {
                        prop_assert!(touched.clients.contains(&mapping.target.client));
                        prop_assert!(mapping.listener().is_none_or(|it| touched.clients.contains(&it)));
                    }
                }
            }
            for number in 0..6 {
                let active = |state: &ControlState| state.client(client(number)).map(Client::is_active);
                if active(&seen) != active(state) {
                    prop_assert!(touched.clients.contains(&client(number)));
                }
            }
            (seen, then) = (state.clone(), now);
        }
    }

    #[test]
    fn folding_the_log_again_gives_the_same_state(steps in steps(), cut: prop::sample::Index) {
        let mut story = Story::with_clients(3);
        for step in steps {
            let actor = step.actor;
            story.after(Duration::from_secs(step.seconds));
            let command = step.command(story.now);
            let _ = story.execute(actor, &command);
        }
        // Through bytes, and through a snapshot somewhere on the way.
        let cut = cut.index(story.history.len());
        let mut state = ControlState::default();
        for (index, (event, at)) in story.history.iter().enumerate() {
            if index == cut {
                state = codec::decode_snapshot(&codec::encode_snapshot(&state)?)?;
            }
            let payload = event.encode()?;
            let again = ControlEvent::decode(event.kind(), event.version(), crate::PAYLOAD_CODEC, &payload)?;
            prop_assert_eq!(&again, event);
            state.evolve(&again, at);
        }
        prop_assert_eq!(codec::encode_snapshot(&state)?, codec::encode_snapshot(&story.state)?);
        prop_assert_eq!(state, story.state);
    }
}
