//! What is noted, and what is remembered of it.

mod carry;
mod carry_properties;
mod late;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::DomainEvent;
use crate::aggregate::Subject;
use crate::codec;
use crate::ids::{CommandId, KeyId};
use crate::limits::{
    AUTH_FAILURES_KEPT_MAX, CLOSED_SESSIONS_MAX, CLOSED_SESSIONS_PER_CLIENT_MAX, REASON_BYTES_MAX,
    USAGE_KEPT_MAX,
};
use crate::meta::{Actor, Position};

struct Story {
    state: ActivityState,
    now: Timestamp,
    position: u64,
}

impl Story {
    fn new() -> Self {
        let mut story =
            Self { state: ActivityState::default(), now: Timestamp(1_767_225_600_000), position: 0 };
        story.record(vec![ActivityState::genesis(LogId([1; 16]))]);
        story
    }

    fn record(&mut self, events: Vec<ActivityEvent>) {
        for event in events {
            self.position += 1;
            self.now = self.now.plus(Duration::from_secs(1));
            let at = EventMeta {
                position: Position(self.position),
                recorded_at: self.now,
                actor: Actor::System,
                source: None,
                stream_version: 1,
            };
            self.state.evolve(&event, &at);
        }
    }

    fn when(
        &mut self,
        actor: Actor,
        command: &ActivityCommand,
    ) -> Result<(Vec<&'static str>, Subject), ActivityRefusal> {
        let meta = Meta {
            id: CommandId([0; 16]),
            actor,
            source: None,
            correlation: None,
            causation: None,
            now: self.now,
        };
        let decision = self.state.decide(&meta, command)?;
        let names = decision.events.iter().map(DomainEvent::name).collect();
        self.record(decision.events);
        Ok((names, decision.subject))
    }
}

fn session(number: u64) -> SessionId {
    SessionId::from_bytes(u128::from(number).to_be_bytes())
}

fn client(number: u64) -> ClientId {
    ClientId::from_bytes(u128::from(number).to_be_bytes())
}

fn open(number: u64, of: u64) -> ActivityCommand {
    ActivityCommand::OpenSession {
        session: session(number),
        client: client(of),
        node: NodeId::from_bytes([1; 16]),
        address: SocketAddr::from(([192, 0, 2, 1], 5)),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    }
}

fn close(number: u64) -> ActivityCommand {
    ActivityCommand::CloseSession { session: session(number), reason: "done".into() }
}

#[test]
fn a_session_opens_and_closes_once() {
    let mut story = Story::new();
    let subject = Subject::Session(session(1));
    assert_eq!(story.when(Actor::System, &open(1, 1)), Ok((vec!["session.opened"], subject)));
    assert_eq!(story.when(Actor::System, &open(1, 1)), Ok((vec![], subject)));
    assert_eq!(story.state.open_session_of(client(1)).map(|open| open.id), Some(session(1)));
    assert_eq!(story.when(Actor::System, &close(1)), Ok((vec!["session.closed"], subject)));
    assert_eq!(story.when(Actor::System, &close(1)), Ok((vec![], subject)));
    let expire = ActivityCommand::ExpireSession { session: session(1) };
    assert_eq!(story.when(Actor::System, &expire), Ok((vec![], subject)));
    assert!(story.state.open_session_of(client(1)).is_none());
    let closed = story.state.session(session(1)).unwrap();
    assert_eq!(closed.closed, Some((story.now, "done".into())));
    let again = story.when(Actor::System, &open(1, 1));
    assert_eq!(again, Err(ActivityRefusal::SessionExists { session: session(1) }));
    let unknown = story.when(Actor::System, &close(9));
    assert_eq!(unknown, Err(ActivityRefusal::SessionUnknown { session: session(9) }));
}

#[test]
fn a_newer_link_replaces_the_session_before() {
    // C14
    let mut story = Story::new();
    story.when(Actor::System, &open(1, 1)).unwrap();
    let (names, subject) = story.when(Actor::System, &open(2, 1)).unwrap();
    assert_eq!((names, subject), (vec!["session.closed", "session.opened"], Subject::Session(session(2))));
    assert_eq!(story.state.open_sessions().count(), 1);
    assert_eq!(story.state.open_session_of(client(1)).map(|open| open.id), Some(session(2)));
    // The late goodbye of the first changes nothing.
    assert_eq!(story.when(Actor::System, &close(1)).unwrap().0, Vec::<&str>::new());
    assert_eq!(story.state.open_sessions().count(), 1);
}

#[test]
fn of_closed_sessions_the_latest_are_remembered() {
    let mut story = Story::new();
    let count = CLOSED_SESSIONS_PER_CLIENT_MAX as u64 + 5;
    for number in 1..=count {
        story.when(Actor::System, &open(number, 1)).unwrap();
        story.when(Actor::System, &close(number)).unwrap();
    }
    let kept: Vec<_> = story.state.closed_sessions_of(client(1)).map(|session| session.id).collect();
    assert_eq!(kept, (6..=count).map(session).collect::<Vec<_>>());
    assert!(story.state.session(session(5)).is_none());

    for number in 0..CLOSED_SESSIONS_MAX as u64 {
        story.when(Actor::System, &open(1000 + number, 1000 + number)).unwrap();
        story.when(Actor::System, &close(1000 + number)).unwrap();
    }
    assert_eq!(story.state.sessions().len(), CLOSED_SESSIONS_MAX);
    assert_eq!(story.state.closed_sessions_of(client(1)).count(), 0);
}

#[test]
fn usage_adds_up_and_nothing_is_no_event() {
    let mut story = Story::new();
    let mapping = MappingId::from_bytes([3; 16]);
    let usage = |bytes_in, tunnels| ActivityCommand::RecordUsage {
        mapping,
        bytes_in,
        bytes_out: 0,
        tunnels,
        refused: 0,
    };
    assert_eq!(story.when(Actor::System, &usage(0, 0)).unwrap().0, Vec::<&str>::new());
    story.when(Actor::System, &usage(5, 1)).unwrap();
    story.when(Actor::System, &usage(u64::MAX, 1)).unwrap();
    let total = story.state.usage(mapping);
    assert_eq!((total.bytes_in, total.tunnels, total.last_at), (u64::MAX, 2, story.now));
}

#[test]
fn of_failed_authentications_the_latest_are_remembered_and_reasons_are_cut() {
    let mut story = Story::new();
    for number in 0..AUTH_FAILURES_KEPT_MAX + 10 {
        let reason = format!("{number} {}", "ü".repeat(REASON_BYTES_MAX));
        let command = ActivityCommand::RecordAuthFailure {
            address: IpAddr::from([192, 0, 2, 1]),
            identity: None,
            reason,
        };
        story.when(Actor::System, &command).unwrap();
    }
    assert_eq!(story.state.auth_failures().count(), AUTH_FAILURES_KEPT_MAX);
    let first = story.state.auth_failures().next().unwrap();
    assert!(first.reason.starts_with("10 ") && first.reason.len() <= REASON_BYTES_MAX);
}

#[test]
fn clients_do_not_write_the_activity_log() {
    let mut story = Story::new();
    let refused = story.when(Actor::Client(client(1)), &open(1, 1));
    assert_eq!(refused, Err(ActivityRefusal::Forbidden));
}

#[test]
fn a_snapshot_holds_the_whole_state_in_one_form() {
    let mut story = Story::new();
    for number in 1..10 {
        story.when(Actor::System, &open(number, number % 3)).unwrap();
    }
    let bytes = codec::encode_snapshot(&story.state).unwrap();
    let back: ActivityState = codec::decode_snapshot(&bytes).unwrap();
    assert_eq!(back, story.state);
    assert_eq!(codec::encode_snapshot(&back).unwrap(), bytes);
}

#[test]
fn what_is_noted_reads_back_as_it_is() {
    let mut story = Story::new();
    let zoned = std::net::SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 5, 7, 3);
    let mut command = open(1, 1);
    if let ActivityCommand::OpenSession { address, .. } = &mut command {
        *address = zoned.into();
    }
    story.when(Actor::System, &command).unwrap();
    let back: ActivityState = codec::decode_snapshot(&codec::encode_snapshot(&story.state).unwrap()).unwrap();
    assert_eq!(back, story.state);
}

/// C66: what was folded from events of the first version is folded from them for ever.
#[test]
fn c66_sessions_of_the_first_version_fold_to_sessions_without_a_release() {
    use crate::events::{v1, v2};

    let (session, client, node) = (session(1), client(1), NodeId::from_bytes([1; 16]));
    let (address, transport) = (SocketAddr::from(([192, 0, 2, 1], 5)), "tcp".to_owned());
    let old = v1::SessionOpened { session, client, node, address, transport: transport.clone() };
    let decode = |version, payload: Vec<u8>| {
        ActivityEvent::decode(100, version, codec::PAYLOAD_CODEC, &payload).unwrap()
    };
    let lifted = decode(1, codec::encode(&old).unwrap());
    let same = v2::SessionOpened { session, client, node, address, transport, release: None };
    assert_eq!(lifted, ActivityEvent::from(same.clone()));
    assert_eq!(lifted.sentence().matches("release").count(), 0, "{}", lifted.sentence());

    let newer = v2::SessionOpened { release: Some("0.2.0".into()), ..same.clone() };
    let newer = decode(2, codec::encode(&newer).unwrap());
    assert!(newer.sentence().ends_with("over tcp, release 0.2.0"), "{}", newer.sentence());

    let fold = |event| {
        let mut story = Story::new();
        story.record(vec![event]);
        story.state
    };
    assert_eq!(fold(lifted.clone()), fold(same.into()));
    assert_eq!(fold(lifted).session(session).unwrap().release, None);
    assert_eq!(fold(newer).session(session).unwrap().release.as_deref(), Some("0.2.0"));
}

#[test]
fn of_too_many_mappings_with_traffic_the_one_without_for_longest_is_forgotten() {
    let mut story = Story::new();
    let mapping = |number: usize| MappingId::from_bytes((number as u128).to_be_bytes());
    let traffic = |number: usize| {
        let used =
            v1::UsageRecorded { mapping: mapping(number), bytes_in: 1, bytes_out: 0, tunnels: 0, refused: 0 };
        vec![used.into()]
    };
    for number in 0..USAGE_KEPT_MAX {
        story.record(traffic(number));
    }
    // The first two have traffic again, so the third is the one that is quiet for longest.
    story.record(traffic(0));
    story.record(traffic(1));
    story.record(traffic(USAGE_KEPT_MAX));
    let bytes = |story: &Story, number: usize| story.state.usage(mapping(number)).bytes_in;
    assert_eq!([0, 1, 2, 3, USAGE_KEPT_MAX].map(|number| bytes(&story, number)), [2, 2, 0, 1, 1]);
    // And again: the fourth, not the ones that were looked at before.
    story.record(traffic(2));
    assert_eq!([0, 1, 2, 3, 4].map(|number| bytes(&story, number)), [2, 2, 1, 0, 1]);
}
