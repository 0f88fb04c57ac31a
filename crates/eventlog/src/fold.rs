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
use crate::tail::Tail;

/// How far each stream has got.
pub(crate) type Streams = HashMap<Tagged, StreamAt>;

/// How far one stream has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamAt {
    /// Its newest version.
    pub(crate) version: u64,
    /// The position of its newest event.
    pub(crate) last: Position,
}

/// Where a run of frames has got to, whatever the events mean. Both replay and `verify` stand on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) log: LogName,
    pub(crate) epoch: u64,
    pub(crate) position: Position,
    pub(crate) hash: Digest32,
    pub(crate) recorded_at: Timestamp,
    pub(crate) streams: Streams,
    /// What was trimmed before the beginning, while it is still unknown to this chain: a stream that shows for
    /// the first time may have begun there.
    pub(crate) trimmed: Option<Trimmed>,
}

/// What a chain knows of frames that were trimmed before its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// The last of their positions.
    pub(crate) until: Position,
    /// Their last hash.
    pub(crate) hash: Digest32,
    /// Whether everything that counts of them has been carried over the cut by now.
    pub(crate) carried: bool,
    /// Whether an event has said that they were trimmed.
    pub(crate) announced: bool,
}

impl Chain {
    /// The beginning of a log, or of what a trimmed one has left.
    pub(crate) fn behind(log: LogName, tail: Option<&Tail>) -> Self {
        let Some(tail) = tail else { return Self::new(log) };
        Self {
            epoch: tail.epoch,
            position: tail.until,
            hash: tail.hash,
            recorded_at: tail.recorded_at,
            trimmed: Some(Trimmed { until: tail.until, hash: tail.hash, carried: false, announced: false }),
            ..Self::new(log)
        }
    }

    /// Whether what came before the beginning is known, as far as it counts.
    pub(crate) fn is_whole(&self) -> bool {
        self.trimmed.is_none_or(|trimmed| trimmed.carried)
    }

    pub(crate) fn new(log: LogName) -> Self {
        Self {
            log,
            epoch: 0,
            position: Position(0),
            hash: Digest32([0; 32]),
            recorded_at: Timestamp(0),
            streams: Streams::new(),
            trimmed: None,
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

    /// Takes note of one event's stream, and of what the event means for the chain itself.
    pub(crate) fn count(&mut self, codec: u8, position: Position, record: &Record) -> Result<(), LogError> {
        let whole = self.is_whole();
        let at = self.streams.entry(codes::from_stream(record.stream)).or_default();
        let expected = at.version + 1;
        if record.stream_version != expected && (whole || at.version > 0 || record.stream_version == 0) {
            let why = format!(
                "version {} of stream {} stands where {expected} belongs",
                record.stream_version, record.stream
            );
            return Err(LogError::corrupt(self.log, position, why));
        }
        *at = StreamAt { version: record.stream_version, last: position };
        match about_log(self.log, codec, position, record)? {
            Some(AboutLog::Carried { from }) => self.carried(from),
            Some(AboutLog::Trimmed { until, hash }) => {
                if let Some(trimmed) = &mut self.trimmed {
                    trimmed.announced |= (until, hash) == (trimmed.until, trimmed.hash);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// All that is remembered of what came before `from` has been said again. So a node that reads only from
    /// there knows the same streams as one that has read everything.
    pub(crate) fn carried(&mut self, from: Position) {
        self.streams.retain(|_, at| at.last >= from);
        if let Some(trimmed) = &mut self.trimmed {
            trimmed.carried |= from > trimmed.until;
        }
    }

    /// Checks that `frame` follows, with its streams, and takes note of it. After an error the chain stands
    /// where it stood, but must not be used any more.
    pub(crate) fn follow(&mut self, frame: &Frame) -> Result<(), LogError> {
        self.check(frame)?;
        for (position, record) in positioned(frame) {
            self.count(frame.header.codec, position, record)?;
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
        Self::behind(None)
    }

    /// A log of which everything up to the tail is missing. What is folded on it counts once the chain
    /// [is whole](Chain::is_whole).
    pub(crate) fn behind(tail: Option<&Tail>) -> Self {
        Self { chain: Chain::behind(A::LOG, tail), state: A::default() }
    }

    /// Applies a whole frame. After an error the fold must not be used.
    pub(crate) fn apply(&mut self, frame: &Frame) -> Result<(), LogError> {
        self.chain.check(frame)?;
        for (position, record) in positioned(frame) {
            self.chain.count(frame.header.codec, position, record)?;
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
            stream_version: record.stream_version,
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

/// What an event says of its log itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AboutLog {
    /// Everything remembered has been said again since this position.
    Carried { from: Position },
    /// Frames were cut off.
    Trimmed { until: Position, hash: Digest32 },
}

/// What an event says of its log, if it is of that kind.
pub(crate) fn about_log(
    log: LogName,
    codec: u8,
    position: Position,
    record: &Record,
) -> Result<Option<AboutLog>, LogError> {
    if !is_about_log(log, record) {
        return Ok(None);
    }
    let event = decode_any(log, record.kind, record.version, codec, &record.payload)
        .map_err(|error| LogError::payload(log, position, &error))?;
    Ok(match event {
        AnyEvent::Activity(ActivityEvent::CarryFinished(event)) => {
            Some(AboutLog::Carried { from: event.started })
        }
        AnyEvent::Activity(ActivityEvent::LogTrimmed(event)) => {
            Some(AboutLog::Trimmed { until: event.until, hash: event.hash })
        }
        AnyEvent::Control(ControlEvent::LogTrimmed(event)) => {
            Some(AboutLog::Trimmed { until: event.until, hash: event.hash })
        }
        _ => None,
    })
}

/// Whether a log says now and then all again that is remembered, so that it can be read from there. The other one
/// is never cut without an archive.
pub(crate) fn carries(log: LogName) -> bool {
    log == LogName::Activity
}

/// Whether an event says something of its log itself.
pub(crate) fn is_about_log(log: LogName, record: &Record) -> bool {
    ABOUT_LOGS.contains(&(log, record.kind))
}

/// The kinds of events that mean something to the chain, whatever their payload's version.
const ABOUT_LOGS: [(LogName, u16); 3] =
    [(LogName::Activity, 134), (LogName::Activity, 135), (LogName::Control, 70)];

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
