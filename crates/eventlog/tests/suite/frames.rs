//! The bytes of frames and heads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use underpass_domain::{
    Actor, ClientId, CommandId, Digest32, Entity, KeyId, LogName, LogPosition, MappingId, NodeId,
    PAYLOAD_CODEC, Position, StreamId, Subject, Timestamp,
};
use underpass_eventlog::frame::{
    CommitId, FRAME_BYTES_MAX, FRAME_EVENTS_MAX, Frame, FrameBuilder, FrameError, FrameHeader, HEADER_BYTES,
};
use underpass_eventlog::head::{HEAD_BYTES, Head};
use underpass_eventlog::record::{Asked, Record};

fn header(first: u64) -> FrameHeader {
    FrameHeader {
        log: LogName::Control,
        codec: PAYLOAD_CODEC,
        epoch: 1,
        first: Position(first),
        commit: CommitId([0xc0; 16]),
        recorded_at: Timestamp(1_767_225_600_123),
        node: NodeId::from_bytes([0x0d; 16]),
        previous: Digest32([0x9e; 32]),
    }
}

fn plain(payload: &'static [u8]) -> Record {
    Record {
        kind: 7,
        version: 1,
        stream: StreamId { entity: Entity::Mapping, id: [0x3a; 16] },
        stream_version: 1,
        command: CommandId([0x11; 16]),
        actor: Actor::Operator,
        source: None,
        causation: None,
        correlation: None,
        asked: Some(Asked {
            content: [0x5c; 16],
            subject: Subject::Mapping(MappingId::from_bytes([0x3a; 16])),
        }),
        payload: Bytes::from_static(payload),
    }
}

fn full(source: IpAddr) -> Record {
    Record {
        kind: 0xfffe,
        version: 0x0102,
        stream: StreamId { entity: Entity::Client, id: [0xc1; 16] },
        stream_version: 0x0102_0304_0506_0708,
        command: CommandId([0x22; 16]),
        actor: Actor::Client(ClientId::from_bytes([0xc1; 16])),
        source: Some(source),
        causation: Some(LogPosition { log: LogName::Activity, position: Position(77) }),
        correlation: Some([0xcc; 16]),
        asked: None,
        payload: Bytes::from_static(b"payload"),
    }
}

fn build(header: &FrameHeader, records: &[Record]) -> Bytes {
    let mut builder = FrameBuilder::new(header);
    for record in records {
        builder.push(record);
    }
    builder.finish().unwrap().0
}

fn sample() -> Bytes {
    let records = [
        plain(b""),
        full(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        full(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    ];
    build(&header(42), &records)
}

fn head() -> Head {
    Head {
        log: LogName::Activity,
        epoch: 2,
        position: Position(44),
        first: Position(42),
        recorded_at: Timestamp(1_767_225_600_123),
        commit: CommitId([0xc0; 16]),
        hash: Digest32([0x4a; 32]),
    }
}

/// The bytes that were written once must be read for good: `fixtures/frames/` is never changed, only
/// added to. `UPDATE_FIXTURES=1` writes files that are missing.
#[test]
fn golden_files_are_what_is_written_and_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/frames");
    let one = build(
        &FrameHeader { first: Position(1), previous: Digest32([0; 32]), ..header(1) },
        &[plain(b"genesis")],
    );
    for (name, bytes) in
        [("frame-v1-one.hex", one), ("frame-v1-every-field.hex", sample()), ("head-v1.hex", head().encode())]
    {
        let path = folder.join(name);
        if !path.exists() && std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, hex(&bytes)).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(hex(&bytes), golden, "{name}");
        let golden = Bytes::from(unhex(&golden));
        if name.starts_with("frame") {
            let frame = Frame::decode(&golden).unwrap();
            assert_eq!(build(&frame.header, &frame.records), golden, "{name}");
        } else {
            assert_eq!(Head::decode(&golden).unwrap(), head(), "{name}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ") + "\n"
    });
    lines.collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn every_field_comes_back() {
    let frame = Frame::decode(&sample()).unwrap();
    assert_eq!(frame.header, header(42));
    assert_eq!((frame.first(), frame.last()), (Position(42), Position(44)));
    assert_eq!(frame.records[0], plain(b""));
    assert_eq!(frame.records[1], full(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
    assert_eq!(frame.bytes, sample().len());
}

/// C1: wherever a frame is cut off, it is refused, and never read as a shorter one.
#[test]
fn a_frame_cut_anywhere_is_refused() {
    let whole = sample();
    for length in 0..whole.len() {
        let cut = Frame::decode(&whole.slice(..length));
        assert!(matches!(cut, Err(FrameError::Foreign | FrameError::Length)), "{length}: {cut:?}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(Frame::decode(&Bytes::from(longer)), Err(FrameError::Length));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let whole = sample();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::decode(&Bytes::from(bytes)).is_err(), "bit {bit}");
    }
    let whole = head().encode();
    for bit in 0..HEAD_BYTES * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Head::decode(&bytes).is_err(), "bit {bit}");
    }
}

/// The hash is there for who mends the checksum after a change.
#[test]
fn a_change_with_a_mended_checksum_is_noticed() {
    let whole = sample();
    for at in (16..whole.len()).step_by(7) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x40;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::decode(&Bytes::from(bytes)), Err(FrameError::Hash), "byte {at}");
    }
}

/// C2: four bytes that claim a length or a count make nobody allocate.
#[test]
fn a_length_over_the_limit_is_refused() {
    let mut bytes = sample().to_vec();
    bytes[8..12].copy_from_slice(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes());
    assert_eq!(Frame::decode(&Bytes::from(bytes)), Err(FrameError::TooLong));

    let mut builder = FrameBuilder::new(&header(1));
    let padded = Record { payload: Bytes::from(vec![0; FRAME_BYTES_MAX - HEADER_BYTES]), ..plain(b"") };
    builder.push(&padded);
    assert_eq!(builder.finish().map(|_| ()), Err(FrameError::TooLong));

    let mut builder = FrameBuilder::new(&header(1));
    for _ in 0..=FRAME_EVENTS_MAX {
        builder.push(&plain(b""));
    }
    assert_eq!(builder.finish().map(|_| ()), Err(FrameError::TooLong));
}

/// C3, as frames go: no record makes no frame, an empty payload is one.
#[test]
fn a_frame_without_records_is_refused() {
    let (bytes, _) = FrameBuilder::new(&header(1)).finish().unwrap();
    assert!(Frame::decode(&bytes).is_err());
    assert_eq!(Frame::decode(&build(&header(1), &[plain(b"")])).unwrap().records[0].payload, Bytes::new());
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = sample().to_vec();
    bytes[4] = 2;
    assert!(matches!(Frame::decode(&Bytes::from(bytes)), Err(FrameError::Newer(_))));
    let mut bytes = head().encode().to_vec();
    bytes[4] = 2;
    assert!(matches!(Head::decode(&bytes), Err(FrameError::Newer(_))));
    assert_eq!(Head::decode(b"something else entirely"), Err(FrameError::Foreign));
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (
        (any::<u16>(), any::<u16>(), 0..9_u8, any::<[u8; 16]>(), any::<u64>(), any::<[u8; 16]>(), 0..5_u8),
        proptest::option::of(any::<IpAddr>()),
        proptest::option::of((any::<bool>(), any::<u64>())),
        proptest::option::of(any::<[u8; 16]>()),
        proptest::option::of((any::<[u8; 16]>(), any::<bool>())),
        vec(any::<u8>(), 0..300),
    );
    let record = record.prop_map(|(fixed, source, causation, correlation, asked, payload)| {
        let (kind, version, entity, id, stream_version, command, actor) = fixed;
        Record {
            kind,
            version,
            stream: StreamId { entity: Entity::ALL[usize::from(entity)], id },
            stream_version,
            command: CommandId(command),
            actor: match actor {
                0 => Actor::System,
                1 => Actor::Operator,
                2 => Actor::Node(NodeId::from_bytes(id)),
                3 => Actor::Client(ClientId::from_bytes(id)),
                _ => Actor::Key(KeyId::from_bytes(id)),
            },
            source,
            causation: causation.map(|(control, position)| LogPosition {
                log: if control { LogName::Control } else { LogName::Activity },
                position: Position(position),
            }),
            correlation,
            asked: asked.map(|(content, some)| Asked {
                content,
                subject: if some { Subject::Client(ClientId::from_bytes(id)) } else { Subject::None },
            }),
            payload: Bytes::from(payload),
        }
    });
    vec(record, 1..12)
}

proptest! {
    #[test]
    fn frames_come_back_from_their_bytes(first in 1_u64..1 << 60, records in records()) {
        let bytes = build(&header(first), &records);
        let frame = Frame::decode(&bytes).unwrap();
        prop_assert_eq!(frame.header, header(first));
        prop_assert_eq!(frame.records, records);
    }

    /// C5: whatever lies there, no panic.
    #[test]
    fn random_bytes_are_refused(bytes in vec(any::<u8>(), 0..600)) {
        let mut framed = bytes.clone();
        framed.splice(..framed.len().min(4), *b"UPLF");
        prop_assert!(Frame::decode(&Bytes::from(bytes.clone())).is_err());
        prop_assert!(Frame::decode(&Bytes::from(framed)).is_err());
        prop_assert!(Head::decode(&bytes).is_err());
    }

    /// C5, past the checksums: records that lie about themselves, in a frame that is otherwise whole.
    #[test]
    fn random_records_never_panic(body in vec(any::<u8>(), 60..600), count in 0_u32..9) {
        let mut bytes = build(&header(1), &[plain(b"x")]).to_vec();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&body);
        bytes[32..36].copy_from_slice(&count.to_le_bytes());
        let _ = Frame::decode(&Bytes::from(sealed(bytes)));
    }

    /// A record with one changed byte, in a frame whose sums were mended, is read as another record or
    /// refused, and never panics.
    #[test]
    fn changed_records_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = sample().to_vec();
        bytes.truncate(bytes.len() - 32);
        let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
        bytes[at] = byte;
        if let Ok(frame) = Frame::decode(&Bytes::from(sealed(bytes))) {
            prop_assert_eq!(frame.records.len(), 3);
        }
    }
}

/// Length, hash and checksum as they must be over these bytes.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len() + 32).unwrap();
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    let mut hasher = blake3::Hasher::new_derive_key("underpass 2026 event log frame chain v1");
    hasher.update(&bytes[..12]).update(&bytes[16..]);
    bytes.extend_from_slice(hasher.finalize().as_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}
