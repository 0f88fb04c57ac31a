//! What the frames so far amount to.

use std::collections::HashMap;

use underpass_domain::{
    ActivityEvent, Aggregate, AnyEvent, ControlEvent, Digest32, DomainEvent, EventMeta, LogId, LogName,
    Position, Timestamp, decode_any,
};

use crate::codes::{self, Tagged};
use crate::error::LogError;
use crate::frame::{CommitId, Frame};
use crate::head::Head;
use crate::reader::BROKEN_CHAIN;
use crate::record::Record;

/// The newest version of each stream.
pub(crate) type Streams = HashMap<Tagged, u64>;

/// Where a run of frames has got to, whatever the events mean. Both replay and `verify` stand on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) log: LogName,
    pub(crate) epoch: u64,
    pub(crate) position: Position,
    pub(crate) hash: Digest32,
    pub(crate) recorded_at: Timestamp,
    pub(crate) streams: Streams,
}

impl Chain {
    pub(crate) fn new(log: LogName) -> Self {
        Self {
            log,
            epoch: 0,
            position: Position(0),
            hash: Digest32([0; 32]),
            recorded_at: Timestamp(0),
            streams: Streams::new(),
        }
    }

    /// Whether `frame` follows; apart from its streams.
    pub(crate) fn check(&self, frame: &Frame) -> Result<(), LogError> {
        let header = &frame.header;
        let corrupt = |why: String| Err(LogError::corrupt(self.log, self.position.next(), why));
        if header.first != self.position.next() {
            return corrupt(format!("the frame that follows begins at {}", header.first));
        }
        if header.previous != self.hash {
            return corrupt(BROKEN_CHAIN.to_owned());
        }
        if header.epoch == 0 || header.epoch < self.epoch {
            return corrupt(format!("epoch {} follows on epoch {}", header.epoch, self.epoch));
        }
        if header.recorded_at < self.recorded_at {
            return corrupt("the frame is older than the one before".to_owned());
        }
        Ok(())
    }

    /// Takes note of one event's stream.
    pub(crate) fn count(&mut self, position: Position, record: &Record) -> Result<(), LogError> {
        let version = self.streams.entry(codes::from_stream(record.stream)).or_default();
        *version += 1;
        if *version == record.stream_version {
            return Ok(());
        }
        let why = format!(
            "version {} of stream {} stands where {version} belongs",
            record.stream_version, record.stream
        );
        Err(LogError::corrupt(self.log, position, why))
    }

    /// Checks that `frame` follows, with its streams, and takes note of it. After an error the chain stands
    /// where it stood, but must not be used any more.
    pub(crate) fn follow(&mut self, frame: &Frame) -> Result<(), LogError> {
        self.check(frame)?;
        for (position, record) in positioned(frame) {
            self.count(position, record)?;
        }
        self.advance(frame);
        Ok(())
    }

    /// Takes note of the end of a checked frame.
    pub(crate) fn advance(&mut self, frame: &Frame) {
        self.epoch = frame.header.epoch;
        self.position = frame.last();
        self.hash = frame.hash;
        self.recorded_at = frame.header.recorded_at;
    }
}

impl Chain {
    /// Whether `head` names the end of the chain. `newest`: where the last frame begins, and its commit.
    pub(crate) fn ends_at(&self, head: &Head, newest: Option<(Position, CommitId)>) -> Result<(), LogError> {
        let named = (head.position, head.hash, head.epoch, head.recorded_at);
        let found = (self.position, self.hash, self.epoch, self.recorded_at);
        if named == found && newest == Some((head.first, head.commit)) {
            return Ok(());
        }
        Err(LogError::corrupt(self.log, head.position, "the head does not name the last frame"))
    }
}

/// A read model and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Fold<A: Aggregate> {
    pub(crate) chain: Chain,
    pub(crate) state: A,
}

impl<A: Aggregate> Fold<A> {
    pub(crate) fn new() -> Self {
        Self { chain: Chain::new(A::LOG), state: A::default() }
    }

    /// Applies a whole frame. After an error the fold must not be used.
    pub(crate) fn apply(&mut self, frame: &Frame) -> Result<(), LogError> {
        self.chain.check(frame)?;
        for (position, record) in positioned(frame) {
            self.chain.count(position, record)?;
            self.evolve(frame, position, record)?;
        }
        self.chain.advance(frame);
        Ok(())
    }

    /// Applies the events of the following frame up to and with `until`, to the state alone: the fold
    /// then stands within a frame and can go no further.
    pub(crate) fn apply_part(&mut self, frame: &Frame, until: Position) -> Result<(), LogError> {
        self.chain.check(frame)?;
        for (position, record) in positioned(frame).take_while(|(position, _)| *position <= until) {
            self.evolve(frame, position, record)?;
        }
        self.chain.epoch = frame.header.epoch;
        self.chain.position = until;
        self.chain.recorded_at = frame.header.recorded_at;
        Ok(())
    }

    fn evolve(&mut self, frame: &Frame, position: Position, record: &Record) -> Result<(), LogError> {
        let event: A::Event = decode_event(self.chain.log, frame.header.codec, position, record)?;
        let at = EventMeta {
            position,
            recorded_at: frame.header.recorded_at,
            actor: record.actor,
            source: record.source,
        };
        self.state.evolve(&event, &at);
        Ok(())
    }
}

/// The id of the log that begins with `frame`.
pub(crate) fn log_id(frame: &Frame) -> Result<LogId, LogError> {
    let (log, first) = (frame.header.log, frame.first());
    let broken = || LogError::corrupt(log, first, "the log does not begin with its id");
    let record = frame.records.first().filter(|_| first == Position(1)).ok_or_else(broken)?;
    let event = decode_any(log, record.kind, record.version, frame.header.codec, &record.payload);
    match event.map_err(|error| LogError::payload(log, first, &error))? {
        AnyEvent::Control(ControlEvent::LogCreated(event)) => Ok(event.log),
        AnyEvent::Activity(ActivityEvent::LogCreated(event)) => Ok(event.log),
        _ => Err(broken()),
    }
}

/// The records of a frame with their positions.
pub(crate) fn positioned(frame: &Frame) -> impl Iterator<Item = (Position, &Record)> {
    (frame.first().0..).map(Position).zip(&frame.records)
}

pub(crate) fn decode_event<E: DomainEvent>(
    log: LogName,
    codec: u8,
    position: Position,
    record: &Record,
) -> Result<E, LogError> {
    E::decode(record.kind, record.version, codec, &record.payload)
        .map_err(|error| LogError::payload(log, position, &error))
}
