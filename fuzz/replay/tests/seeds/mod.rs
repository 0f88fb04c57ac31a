//! Inputs that their decoders accept: where the search begins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use underpass_domain::{
    ActivityCommand, ActivityState, Actor, Aggregate, ClientId, CommandId, ControlCommand, ControlState,
    Digest32, DomainEvent, InviteId, LogId, LogName, LogPosition, Meta, NodeId, PAYLOAD_CODEC, Position,
    SessionId, StreamId, Subject, Timestamp,
};
use underpass_eventlog::frame::{CommitId, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::record::{Asked, Record};
use underpass_fuzz_replay::records;
use underpass_pipeline::record::{DATA, FIN, OPEN};
use underpass_wire::noise::{PairInitiator, PairPayload, PairSubject, StaticKey};

/// Target, name, bytes.
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (number, (name, bytes)) in
        hex(include_str!("../../../../fixtures/wire/channel-messages.hex")).enumerate()
    {
        seeds.push(("channel", name, [&[u8::try_from(number).unwrap()], &bytes[..]].concat()));
    }
    seeds.push(("frame", "frame".into(), [&[0], &frame()[..]].concat()));
    seeds.push(("frame", "frame-mended".into(), [&[1], &frame()[..]].concat()));
    seeds.push(("frame", "head".into(), [&[2], &head()[..]].concat()));
    seeds.push(("frame", "head-mended".into(), [&[3], &head()[..]].concat()));
    seeds.extend(handshakes());
    for (name, bytes) in hex(include_str!("../../../../fixtures/wire/link-messages.hex")) {
        seeds.push(("link", name, link(&bytes)));
    }
    seeds.extend(payloads());
    for (mode, name) in [(0, "plain"), (1, "xchacha"), (2, "aes")] {
        seeds.push(("records", name.into(), records_of(mode)));
    }
    for (name, bytes) in hex(include_str!("../../../../fixtures/wire/tokens.hex")) {
        if let Some(name) = name.strip_suffix("_text") {
            seeds.push(("tokens", name.into(), bytes));
        }
    }
    seeds
}

fn hex(text: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    text.lines().map(|line| {
        let (name, hex) = line.split_once(' ').unwrap();
        (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).unwrap())
    })
}

/// A message as one chunk of the bulk lane, from a node.
fn link(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    let chunk = [&[2, 1], &length.to_be_bytes()[..], message].concat();
    [&[2], &u16::try_from(chunk.len()).unwrap().to_be_bytes()[..], &chunk].concat()
}

fn records_of(mode: u8) -> Vec<u8> {
    let (mut sealer, _) = records::ends(mode);
    let mut wire = BytesMut::new();
    for (kind, body) in [(OPEN, &b"open"[..]), (DATA, &[7; 40]), (DATA, b""), (FIN, b"")] {
        sealer.seal(kind, body, &mut wire).unwrap();
    }
    [&[mode], &wire[..]].concat()
}

fn handshakes() -> Vec<(&'static str, String, Vec<u8>)> {
    let fixture: Vec<_> = hex(include_str!("../../../../fixtures/wire/link-handshake.hex")).collect();
    let named = |wanted: &str| fixture.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
    let link = [vec![0], named("preamble"), named("first"), named("chunk_hello")].concat();
    let (client, server) = (StaticKey::from_bytes([1; 32]).unwrap(), StaticKey::from_bytes([2; 32]).unwrap());
    let hello = underpass_wire::channel::DataHello::new(
        [3; 16],
        &[1; 32],
        &[2; 32],
        underpass_wire::channel::DataRole::Target,
    );
    let (_, by_code) =
        PairInitiator::with_code(&client, &[5; 32], &PairSubject::Code(*b"h4xw77pam"), [9; 16]).unwrap();
    let subject = PairSubject::Mapping([8; 16]);
    let payload = PairPayload { mapping: vec![8; 16], aes: true };
    let (_, pinned) = PairInitiator::pinned(&client, &server.public(), &subject, [9; 16], &payload).unwrap();
    vec![
        ("handshake", "link".into(), link),
        ("handshake", "ticket".into(), [&[1], &hello.to_bytes()[..]].concat()),
        ("handshake", "pair-by-code".into(), [vec![2], by_code.to_bytes()].concat()),
        ("handshake", "pair-pinned".into(), [vec![3], pinned.to_bytes()].concat()),
    ]
}

const NOW: Timestamp = Timestamp(1_763_900_000_000);

fn meta() -> Meta {
    Meta {
        id: CommandId([1; 16]),
        actor: Actor::Operator,
        source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        correlation: None,
        causation: None,
        now: NOW,
    }
}

fn payload<E: DomainEvent>(log: u8, event: &E) -> (&'static str, String, Vec<u8>) {
    let head = [&[log], &event.kind().to_be_bytes()[..], &event.version().to_be_bytes(), &[PAYLOAD_CODEC]];
    ("payload", event.name().replace('.', "-"), [head.concat(), event.encode().unwrap()].concat())
}

fn payloads() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = vec![payload(0, &ControlState::genesis(LogId([4; 16])))];
    let invite = ControlCommand::IssueInvite {
        invite: InviteId::from_bytes([5; 16]),
        secret_hash: Digest32([6; 32]),
        expires_at: Timestamp(NOW.0 + 600_000),
        label: Some("laptop".into()),
    };
    let node = ControlCommand::StartNode {
        node: NodeId::from_bytes([7; 16]),
        name: "node-a".into(),
        version: "0.1.0".into(),
    };
    for command in [invite, node] {
        let decision = ControlState::default().decide(&meta(), &command).unwrap();
        seeds.extend(decision.events.iter().map(|event| payload(0, event)));
    }
    let session = ActivityCommand::OpenSession {
        session: SessionId::from_bytes([8; 16]),
        client: ClientId::from_bytes([9; 16]),
        node: NodeId::from_bytes([7; 16]),
        address: SocketAddr::from(([192, 0, 2, 7], 50_000)),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    };
    let failure = ActivityCommand::RecordAuthFailure {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        identity: None,
        reason: "unknown client".into(),
    };
    for command in [session, failure] {
        let decision = ActivityState::default().decide(&meta(), &command).unwrap();
        seeds.extend(decision.events.iter().map(|event| payload(1, event)));
    }
    seeds
}

/// Two records, one with everything, one with nothing optional.
pub fn frame() -> Vec<u8> {
    let header = FrameHeader {
        log: LogName::Control,
        codec: PAYLOAD_CODEC,
        epoch: 1,
        first: Position(1),
        commit: CommitId([1; 16]),
        recorded_at: NOW,
        node: NodeId::from_bytes([7; 16]),
        previous: Digest32([0; 32]),
    };
    let genesis = ControlState::genesis(LogId([4; 16]));
    let full = Record {
        kind: genesis.kind(),
        version: genesis.version(),
        stream: StreamId::from(InviteId::from_bytes([5; 16])),
        stream_version: 1,
        command: CommandId([2; 16]),
        actor: Actor::Client(ClientId::from_bytes([9; 16])),
        source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        causation: Some(LogPosition { log: LogName::Activity, position: Position(7) }),
        correlation: Some([3; 16]),
        asked: Some(Asked { content: [6; 16], subject: Subject::Invite(InviteId::from_bytes([5; 16])) }),
        payload: Bytes::from(genesis.encode().unwrap()),
    };
    let bare = Record {
        stream: StreamId::LOG,
        stream_version: 2,
        actor: Actor::System,
        source: None,
        causation: None,
        correlation: None,
        asked: None,
        payload: Bytes::new(),
        ..full.clone()
    };
    let mut builder = FrameBuilder::new(&header);
    builder.push(&full);
    builder.push(&bare);
    builder.finish().unwrap().0.to_vec()
}

pub fn head() -> Vec<u8> {
    let head = Head {
        log: LogName::Control,
        epoch: 1,
        position: Position(2),
        first: Position(1),
        recorded_at: NOW,
        commit: CommitId([1; 16]),
        hash: Digest32([2; 32]),
    };
    head.encode().to_vec()
}
