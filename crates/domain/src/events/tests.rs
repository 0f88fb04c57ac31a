//! Events on disk: schemas, fixtures, garbage.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, LogId, MappingId, NodeId, SessionId, UserId};
use crate::meta::Position;
use crate::random::Random;
use crate::testing::SeededRandom;
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;

/// The values of one fixture: the least, the most, or what people write.
#[derive(Clone, Copy)]
enum Values {
    Min,
    Max,
    Unicode,
}

impl Values {
    const ALL: [(Self, &str); 3] = [(Self::Min, "min"), (Self::Max, "max"), (Self::Unicode, "unicode")];

    fn pick<T>(self, min: T, max: T, unicode: T) -> T {
        match self {
            Self::Min => min,
            Self::Max => max,
            Self::Unicode => unicode,
        }
    }

    fn bytes<const N: usize>(self, seed: u8) -> [u8; N] {
        self.pick([0; N], [255; N], [seed; N])
    }

    fn text(self) -> String {
        self.pick(String::new(), "x".repeat(300), "Grüße, 世界 🦀 \"\\ \u{202e}".into())
    }

    fn time(self) -> Timestamp {
        self.pick(Timestamp(0), Timestamp::MAX, Timestamp(1_767_225_600_123))
    }

    fn maybe<T>(self, value: T) -> Option<T> {
        self.pick(false, true, true).then_some(value)
    }

    fn number(self) -> u64 {
        self.pick(0, u64::MAX, 70_000)
    }

    fn socket(self) -> SocketAddr {
        self.pick(
            SocketAddr::from(([0; 4], 0)),
            SocketAddr::from(([u16::MAX; 8], u16::MAX)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 2222)),
        )
    }

    fn options(self) -> v1::Options {
        v1::Options {
            seal: self.pick(v1::Seal::Auto, v1::Seal::Off, v1::Seal::On),
            max_connections: self.maybe(self.pick(0, u32::MAX, 300)),
            idle_timeout_s: self.maybe(self.pick(0, u32::MAX, 60)),
            expires_at: self.maybe(self.time()),
        }
    }

    fn ingress(self) -> v1::Ingress {
        let client =
            v1::Ingress::Client { client: ClientId::from_bytes(self.bytes(3)), listen: self.socket() };
        self.pick(v1::Ingress::Port { port: 0 }, client, v1::Ingress::Port { port: 20_017 })
    }

    fn scopes(self) -> Vec<v1::Scope> {
        let user = v1::Scope::User(UserId::from_bytes(self.bytes(9)));
        let all = vec![v1::Scope::Admin, v1::Scope::Read, v1::Scope::Audit, v1::Scope::Metrics, user];
        self.pick(Vec::new(), all, vec![user])
    }
}

/// One event of each kind.
#[allow(clippy::too_many_lines, reason = "a table")]
fn samples(v: Values) -> Vec<AnyEvent> {
    let user = UserId::from_bytes(v.bytes(1));
    let client = ClientId::from_bytes(v.bytes(2));
    let mapping = MappingId::from_bytes(v.bytes(3));
    let code = CodeId::from_bytes(v.bytes(4));
    let invite = InviteId::from_bytes(v.bytes(5));
    let session = SessionId::from_bytes(v.bytes(6));
    let node = NodeId::from_bytes(v.bytes(7));
    let key = KeyId::from_bytes(v.bytes(8));
    let log_id = LogId(v.bytes(10));
    let log = v1::LogCreated { log: log_id };
    let hash = Digest32(v.bytes(11));
    let public_key = PublicKey(v.bytes(12));

    let control: Vec<ControlEvent> = vec![
        log.clone().into(),
        v1::InviteIssued { invite, secret_hash: hash, expires_at: v.time(), label: v.maybe(v.text()) }.into(),
        v1::InviteUsed { invite, client }.into(),
        v1::InviteRevoked { invite }.into(),
        v1::InviteExpired { invite }.into(),
        v1::ClientEnrolled {
            client,
            owner: v.maybe(user),
            name: v.text(),
            public_key,
            platform: v.text(),
            invite: v.maybe(invite),
        }
        .into(),
        v1::ClientRenamed { client, name: v.text() }.into(),
        v1::ClientBlocked { client, reason: v.text() }.into(),
        v1::ClientUnblocked { client }.into(),
        v1::ClientRemoved { client, name: v.text() }.into(),
        v1::MappingCreated {
            mapping,
            owner: v.maybe(user),
            name: v.text(),
            ingress: v.ingress(),
            client,
            target: v.text(),
            options: v.options(),
            code: v.maybe(code),
        }
        .into(),
        v1::MappingChanged {
            mapping,
            name: v.text(),
            ingress: v.ingress(),
            target: v.text(),
            options: v.options(),
        }
        .into(),
        v1::MappingEnabled { mapping, name: v.text() }.into(),
        v1::MappingDisabled { mapping, name: v.text() }.into(),
        v1::MappingRemoved { mapping, name: v.text() }.into(),
        v1::MappingExpired { mapping, name: v.text() }.into(),
        v1::MappingRestored {
            mapping,
            owner: v.maybe(user),
            name: v.text(),
            ingress: v.ingress(),
            client,
            target: v.text(),
            options: v.options(),
            code: v.maybe(code),
            enabled: v.pick(false, true, true),
            created_at: v.time(),
            created_by: v.pick(v1::Actor::System, v1::Actor::Key(key), v1::Actor::Client(client)),
        }
        .into(),
        v1::CodeIssued {
            code,
            owner: v.maybe(user),
            client,
            lookup: v.text(),
            redeem_hash: hash,
            target: v.text(),
            activate_until: v.time(),
            access_s: v.number(),
            options: v.options(),
        }
        .into(),
        v1::CodeRedeemed { code, client, mapping }.into(),
        v1::CodeRevoked { code }.into(),
        v1::CodeExpired { code }.into(),
        v1::KeyIssued {
            key,
            hash,
            scopes: v.scopes(),
            label: v.maybe(v.text()),
            expires_at: v.maybe(v.time()),
        }
        .into(),
        v1::KeyRevoked { key }.into(),
        v1::KeyExpired { key }.into(),
        v1::NodeStarted { node, name: v.text(), version: v.text() }.into(),
        v1::NodeStopped { node }.into(),
        v1::LogTrimmed { until: Position(v.number()), hash }.into(),
        v1::LogRepaired {
            cut_from: Position(v.number()),
            lost: v.number(),
            cut_hash: hash,
            reason: v.text(),
        }
        .into(),
    ];
    let activity: Vec<ActivityEvent> = vec![
        log.into(),
        v2::SessionOpened {
            session,
            client,
            node,
            address: v.socket(),
            transport: v.text(),
            release: v.maybe(v.text()),
        }
        .into(),
        v1::SessionClosed { session, client, reason: v.text() }.into(),
        v1::SessionExpired { session, client }.into(),
        v1::UsageRecorded {
            mapping,
            bytes_in: v.number(),
            bytes_out: v.number(),
            tunnels: v.number(),
            refused: v.number(),
        }
        .into(),
        v1::AuthFailed { address: v.socket().ip(), identity: v.maybe(public_key), reason: v.text() }.into(),
        v1::CarryStarted { log: log_id }.into(),
        v1::SessionCarried {
            session,
            client,
            node,
            address: v.socket(),
            transport: v.text(),
            release: v.maybe(v.text()),
            opened_at: v.time(),
            closed: v.maybe(v1::SessionEnd {
                at: v.time(),
                position: Position(v.number()),
                reason: v.text(),
            }),
        }
        .into(),
        v1::UsageCarried {
            mapping,
            bytes_in: v.number(),
            bytes_out: v.number(),
            tunnels: v.number(),
            refused: v.number(),
            last_at: v.time(),
            position: Position(v.number()),
        }
        .into(),
        v1::AuthFailureCarried {
            position: Position(v.number()),
            at: v.time(),
            address: v.socket().ip(),
            identity: v.maybe(public_key),
            reason: v.text(),
        }
        .into(),
        v1::CarryFinished { started: Position(v.number()) }.into(),
        v1::LogTrimmed { until: Position(v.number()), hash }.into(),
        v1::LogRepaired {
            cut_from: Position(v.number()),
            lost: v.number(),
            cut_hash: hash,
            reason: v.text(),
        }
        .into(),
    ];
    control.into_iter().map(AnyEvent::Control).chain(activity.into_iter().map(AnyEvent::Activity)).collect()
}

fn parts(event: &AnyEvent) -> (LogName, u16, u16, Vec<u8>) {
    match event {
        AnyEvent::Control(event) => {
            (LogName::Control, event.kind(), event.version(), event.encode().unwrap())
        }
        AnyEvent::Activity(event) => {
            (LogName::Activity, event.kind(), event.version(), event.encode().unwrap())
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether missing schemas and fixtures are to be written.
fn updating() -> bool {
    std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1")
}

/// The content of a file that never changes; written where it is missing and may be.
fn unchangeable(path: &Path, content: &[u8]) -> Vec<u8> {
    if !path.exists() && updating() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::read(path).unwrap_or_else(|_| panic!("{} is missing: UPDATE_SCHEMAS=1 writes it", path.display()))
}

#[test]
fn schemas_are_those_that_were_released() {
    let files = schema_files();
    for (path, content) in &files {
        let file = root().join(path);
        if path.ends_with("registry.json") && updating() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
        }
        let there = unchangeable(&file, content.as_bytes());
        assert_eq!(
            String::from_utf8(there).unwrap(),
            *content,
            "{path}: what was released stays; a new shape is a new version"
        );
    }
    let expected: BTreeSet<_> = files.keys().filter(|path| path.contains("/events/")).cloned().collect();
    let there = fs::read_dir(root().join("schemas/events")).unwrap();
    let there = there.map(|entry| format!("schemas/events/{}", entry.unwrap().file_name().display()));
    assert_eq!(there.collect::<BTreeSet<_>>(), expected, "schemas without an event");
}

#[test]
fn every_fixture_of_every_version_decodes_and_matches_its_json() {
    // C66. Fixtures of the newest versions are made from the samples above; those of older versions
    // are only read.
    for (values, flavour) in Values::ALL {
        for event in samples(values) {
            let (log, number, version, payload) = parts(&event);
            let folder = root().join(format!("fixtures/events/{}/v{version}", event.name()));
            let bin = unchangeable(&folder.join(format!("{flavour}.bin")), &payload);
            assert_eq!(bin, payload, "{}: the encoding of {flavour} drifted", event.name());
            let json = schema::pretty(&event.to_json());
            unchangeable(&folder.join(format!("{flavour}.json")), json.as_bytes());
            assert_eq!(decode_any(log, number, version, PAYLOAD_CODEC, &bin).unwrap(), event);
        }
    }
    for kind in registry() {
        for (_, flavour) in Values::ALL {
            let folder = root().join(format!("fixtures/events/{}/v{}", kind.name, kind.version));
            let bin = fs::read(folder.join(format!("{flavour}.bin"))).unwrap();
            let json = fs::read(folder.join(format!("{flavour}.json"))).unwrap();
            let json: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!((kind.payload_to_json)(&bin).unwrap(), json, "{} {flavour}", kind.name);
            assert_eq!((kind.payload_again)(&bin).unwrap(), bin, "{} {flavour}", kind.name);
            let lifted = decode_any(kind.log, kind.number, kind.version, PAYLOAD_CODEC, &bin).unwrap();
            assert_eq!(lifted.name(), kind.name);
            if kind.newest {
                assert_eq!(lifted.to_json(), json);
            }
        }
    }
}

#[test]
fn every_kind_has_samples_and_no_fixture_is_without_a_kind() {
    let sampled: BTreeSet<_> = samples(Values::Min).iter().map(|event| parts(event).1).collect();
    let kinds: BTreeSet<_> = registry().iter().map(|kind| kind.number).collect();
    assert_eq!(sampled, kinds);
    let names: BTreeSet<_> = registry().iter().map(|kind| kind.name.to_owned()).collect();
    let folders = fs::read_dir(root().join("fixtures/events")).unwrap();
    for folder in folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(names.contains(&folder), "fixtures of an unknown kind: {folder}");
    }
}

#[test]
fn numbers_and_names_are_unique_in_their_log() {
    let mut seen = BTreeSet::new();
    for kind in registry() {
        assert!(seen.insert((kind.log, kind.number.to_string(), kind.version)), "{}", kind.name);
        assert!(seen.insert((kind.log, kind.name.to_owned(), kind.version)), "{}", kind.name);
        let newest =
            registry().iter().filter(|row| (row.log, row.number) == (kind.log, kind.number) && row.newest);
        assert_eq!(newest.count(), 1, "{}", kind.name);
    }
}

#[test]
fn an_event_that_is_newer_than_the_program_stops_it() {
    for (kind, version) in [(9999, 1), (30, 2), (30, 0)] {
        let decoded = ControlEvent::decode(kind, version, PAYLOAD_CODEC, &[]);
        assert!(
            matches!(decoded, Err(DecodeError::Unknown { kind: k, version: v }) if (k, v) == (kind, version))
        );
    }
    let decoded = ControlEvent::decode(1, 1, PAYLOAD_CODEC + 1, &[]);
    assert!(matches!(decoded, Err(DecodeError::UnknownCodec { .. })));
    let foreign = ControlEvent::decode(100, 1, PAYLOAD_CODEC, &[]);
    assert!(matches!(foreign, Err(DecodeError::Unknown { .. })), "an event of the other log");
}

#[test]
fn a_cut_or_longer_payload_is_refused() {
    for (values, _) in Values::ALL {
        for event in samples(values) {
            let (log, kind, version, mut payload) = parts(&event);
            let decode = |payload: &[u8]| decode_any(log, kind, version, PAYLOAD_CODEC, payload);
            assert!(decode(&payload[..payload.len() - 1]).is_err(), "{}", event.name());
            payload.push(0);
            let longer = decode(&payload);
            assert!(matches!(longer, Err(DecodeError::Trailing { bytes: 1 })), "{}", event.name());
        }
    }
}

#[test]
fn random_bytes_never_make_a_decoder_panic() {
    // C5: more than a million inputs, half of them random, half damaged samples. Whatever decodes
    // can be said, shown and encoded.
    const ROUNDS: usize = 17_000;
    let random = SeededRandom::new(5);
    let random: &dyn Random = &random;
    let kinds = registry();
    let valid: Vec<_> =
        Values::ALL.iter().flat_map(|(values, _)| samples(*values)).map(|event| parts(&event)).collect();
    let try_one = |log, kind, version, payload: &[u8]| {
        if let Ok(event) = decode_any(log, kind, version, PAYLOAD_CODEC, payload) {
            assert!(!event.sentence().is_empty());
            assert!(event.to_json().is_object());
            let (log, kind, version, again) = parts(&event);
            assert_eq!(decode_any(log, kind, version, PAYLOAD_CODEC, &again).unwrap(), event);
        }
    };
    for _ in 0..ROUNDS {
        for kind in kinds {
            let noise: [u8; 96] = random.array().unwrap();
            let length = usize::from(noise[0]) % noise.len();
            try_one(kind.log, kind.number, kind.version, &noise[1..=length]);
        }
        for _ in 0..kinds.len() {
            let noise: [u8; 8] = random.array().unwrap();
            let pick = usize::from(u16::from_le_bytes([noise[0], noise[1]]));
            let (log, kind, version, payload) = &valid[pick % valid.len()];
            let mut payload = payload.clone();
            let place = usize::from(u16::from_le_bytes([noise[2], noise[3]])) % payload.len();
            payload[place] ^= noise[4].max(1);
            if noise[5] < 64 {
                payload.truncate(place);
            }
            try_one(*log, *kind, *version, &payload);
        }
    }
}

#[test]
fn what_happened_is_said_in_a_sentence() {
    let mapping = MappingId::from_bytes([0; 16]);
    let client = ClientId::from_bytes([0; 16]);
    let options =
        v1::Options { seal: v1::Seal::Off, max_connections: Some(3), idle_timeout_s: None, expires_at: None };
    let created = v1::MappingCreated {
        mapping,
        owner: None,
        name: "web".into(),
        ingress: v1::Ingress::Port { port: 20_017 },
        client,
        target: "127.0.0.1:3000".into(),
        options,
        code: None,
    };
    assert_eq!(
        ControlEvent::from(created).sentence(),
        "mapping web created: port 20017 -> 127.0.0.1:3000 at client_00000000000000000000000000, \
         not sealed, at most 3 connections"
    );
    let failed =
        v1::AuthFailed { address: IpAddr::from([192, 0, 2, 1]), identity: None, reason: "no ticket".into() };
    assert_eq!(ActivityEvent::from(failed).sentence(), "authentication from 192.0.2.1 failed: no ticket");
}

#[test]
fn events_belong_to_the_stream_of_their_entity() {
    for (values, _) in Values::ALL {
        for event in samples(values) {
            let stream = match &event {
                AnyEvent::Control(event) => event.stream(),
                AnyEvent::Activity(event) => event.stream(),
            };
            let noun = event.name().split('.').next().unwrap();
            let expected = match noun {
                "usage" => "mapping",
                "auth" | "auth_failure" | "carry" => "log",
                noun => noun,
            };
            assert_eq!(stream.entity.as_str(), expected);
        }
    }
}
