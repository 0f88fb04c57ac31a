//! Logs made frame by frame, to be copied and exported: of any size, and of events of real kinds.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use underpass_domain::{ActivityEvent, ControlEvent};
use underpass_domain::{
    Actor, CommandId, Digest32, DomainEvent, Entity, LogId, LogName, LogPosition, MappingId, NodeId,
    PAYLOAD_CODEC, Position, StreamId, Subject, Timestamp, events::v1,
};
use underpass_eventlog::frame::{CommitId, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::keys;
use underpass_eventlog::record::{Asked, Record};
use underpass_store::{Entry, KvStore, MemoryStore, Store};

/// The number of a kind of event that no release knows.
pub const UNKNOWN_KIND: u16 = 60_000;

/// A log under construction.
pub struct Raw {
    pub store: MemoryStore,
    pub log: LogName,
    pub head: Head,
    pub id: LogId,
    pub epoch: u64,
    /// Told to all frames, so that logs can go different ways.
    pub salt: u8,
    pub versions: HashMap<StreamId, u64>,
}

impl Raw {
    pub async fn new(log: LogName, id: u8) -> Self {
        let zero = Digest32([0; 32]);
        let head = Head {
            log,
            epoch: 1,
            position: Position(0),
            first: Position(0),
            recorded_at: Timestamp(1_767_225_600_000),
            commit: CommitId([0; 16]),
            hash: zero,
        };
        let (store, id) = (MemoryStore::new(), LogId([id; 16]));
        let mut raw = Self { store, log, head, id, epoch: 1, salt: 0, versions: HashMap::new() };
        let created = v1::LogCreated { log: id };
        let payload = match log {
            LogName::Control => ControlEvent::from(created).encode(),
            LogName::Activity => ActivityEvent::from(created).encode(),
        };
        raw.frame(vec![(1, StreamId::LOG, payload.unwrap().into())]).await;
        raw
    }

    /// One frame of `count` events with payloads of `bytes` each. Of a kind that no release knows: copies
    /// don't care what events mean.
    pub async fn pad(&mut self, count: usize, bytes: usize) {
        let stream = |index: usize| StreamId { entity: Entity::Mapping, id: [low(index) % 7; 16] };
        let payload = Bytes::from(vec![0x5a; bytes]);
        self.frame((0..count).map(|index| (UNKNOWN_KIND, stream(index), payload.clone())).collect()).await;
    }

    /// One frame of `count` events of a kind that there is.
    pub async fn usage(&mut self, count: u8) {
        assert_eq!(self.log, LogName::Activity);
        let event = |index: u8| {
            ActivityEvent::from(v1::UsageRecorded {
                mapping: MappingId::from_bytes([index % 5; 16]),
                bytes_in: u64::from(index) * 1000,
                bytes_out: u64::MAX,
                tunnels: 1,
                refused: 0,
            })
        };
        let record = |event: ActivityEvent| (event.kind(), event.stream(), event.encode().unwrap().into());
        self.frame((0..count).map(event).map(record).collect()).await;
    }

    pub async fn frame(&mut self, events: Vec<(u16, StreamId, Bytes)>) {
        let first = self.head.position.next();
        let mut commit = [self.salt; 16];
        commit[..8].copy_from_slice(&first.0.to_be_bytes());
        let header = FrameHeader {
            log: self.log,
            codec: PAYLOAD_CODEC,
            epoch: self.epoch,
            first,
            commit: CommitId(commit),
            recorded_at: Timestamp(self.head.recorded_at.0 + 1500),
            node: NodeId::from_bytes([9; 16]),
            previous: self.head.hash,
        };
        let count = events.len() as u64;
        let mut frame = FrameBuilder::new(&header);
        for (index, (kind, stream, payload)) in (0_u64..).zip(events) {
            let version = self.versions.entry(stream).or_default();
            *version += 1;
            let some = index % 2 == 1;
            frame.push(&Record {
                kind,
                version: 1,
                stream,
                stream_version: *version,
                command: CommandId([low(index); 16]),
                actor: if some { Actor::Node(NodeId::from_bytes([3; 16])) } else { Actor::System },
                source: match index % 3 {
                    0 => None,
                    1 => Some("192.0.2.7".parse().unwrap()),
                    _ => Some("2001:db8::7".parse().unwrap()),
                },
                causation: some
                    .then_some(LogPosition { log: LogName::Control, position: Position(first.0 + index) }),
                correlation: some.then_some([low(index); 16]),
                asked: match index % 4 {
                    0 => Some(Asked { content: [7; 16], subject: Subject::None }),
                    2 => Some(Asked {
                        content: [8; 16],
                        subject: Subject::Mapping(MappingId::from_bytes([1; 16])),
                    }),
                    _ => None,
                },
                payload,
            });
        }
        let (bytes, hash) = frame.finish().unwrap();
        self.store.put(&keys::frame(self.log, first), bytes).await.unwrap();
        self.head = Head {
            log: self.log,
            epoch: self.epoch,
            position: Position(first.0 + count - 1),
            first,
            recorded_at: header.recorded_at,
            commit: header.commit,
            hash,
        };
        self.store.put(&keys::head(self.log), self.head.encode()).await.unwrap();
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }
}

fn low(index: impl TryInto<u64>) -> u8 {
    index.try_into().map_or(0, |index| index.to_le_bytes()[0])
}

/// Everything in a store, but not in which revision.
pub async fn all(store: &dyn Store) -> Vec<(String, Bytes)> {
    let entries = store.scan(&"a".into(), &"z".into(), 100_000).await.unwrap();
    let plain = |entry: Entry| (entry.key.to_string(), entry.value);
    entries.into_iter().map(plain).collect()
}
