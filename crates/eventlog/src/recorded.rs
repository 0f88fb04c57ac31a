//! One event as readers get it.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use underpass_domain::{
    Actor, AnyEvent, CommandId, DecodeError, DomainEvent, LogName, LogPosition, NodeId, Position, StreamId,
    Timestamp, decode_any, registry,
};
use underpass_store::Store;

use crate::error::LogError;
use crate::fold::positioned;
use crate::frame::Frame;
use crate::reader::Reader;
use crate::record::Record;

/// The most events one read gives.
pub const READ_EVENTS_MAX: usize = 10_000;

/// One event with all that is known of it. The payload is still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its log.
    pub log: LogName,
    /// Its position there.
    pub position: Position,
    /// The epoch it was written in.
    pub epoch: u64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The node that recorded it.
    pub node: NodeId,
    /// Number of its kind.
    pub kind: u16,
    /// Name of its kind, as in `mapping.created`; `unknown` if this program has none for it.
    pub name: &'static str,
    /// Version of its schema.
    pub version: u16,
    /// The entity it happened to.
    pub stream: StreamId,
    /// Its number within that stream, from 1.
    pub stream_version: u64,
    /// The command it follows from.
    pub command: CommandId,
    /// Who gave the command.
    pub actor: Actor,
    /// Where from.
    pub source: Option<IpAddr>,
    /// The event that made somebody give the command.
    pub causation: Option<LogPosition>,
    /// Ties together what one request set off.
    pub correlation: Option<[u8; 16]>,
    /// How the payload is encoded.
    pub codec: u8,
    /// The event itself.
    pub payload: Bytes,
}

impl Recorded {
    pub(crate) fn new(frame: &Frame, position: Position, record: &Record) -> Self {
        let header = &frame.header;
        Self {
            log: header.log,
            position,
            epoch: header.epoch,
            recorded_at: header.recorded_at,
            node: header.node,
            kind: record.kind,
            name: kind_name(header.log, record.kind),
            version: record.version,
            stream: record.stream,
            stream_version: record.stream_version,
            command: record.command,
            actor: record.actor,
            source: record.source,
            causation: record.causation,
            correlation: record.correlation,
            codec: header.codec,
            payload: record.payload.clone(),
        }
    }

    /// The event, where its type is known.
    pub fn decode<E: DomainEvent>(&self) -> Result<E, DecodeError> {
        E::decode(self.kind, self.version, self.codec, &self.payload)
    }

    /// The event, of either log.
    pub fn decode_any(&self) -> Result<AnyEvent, DecodeError> {
        decode_any(self.log, self.kind, self.version, self.codec, &self.payload)
    }

    /// What happened, for people. `None` if this program doesn't know the event.
    pub fn sentence(&self) -> Option<String> {
        Some(match self.decode_any().ok()? {
            AnyEvent::Control(event) => event.sentence(),
            AnyEvent::Activity(event) => event.sentence(),
        })
    }

    /// One line of `log show`. The payload is decoded; where that fails `payload` is null, `error` says
    /// why and `payload_hex` has the bytes.
    pub fn to_json(&self) -> Value {
        let mut line = json!({
            "log": self.log.to_string(),
            "position": LogPosition { log: self.log, position: self.position }.to_string(),
            "epoch": self.epoch,
            "recorded_at": self.recorded_at.to_string(),
            "node": self.node.to_string(),
            "event": self.name,
            "kind": self.kind,
            "version": self.version,
            "stream": self.stream.to_string(),
            "stream_version": self.stream_version,
            "command": self.command.to_string(),
            "actor": self.actor.to_string(),
            "sentence": self.sentence(),
            "source": self.source.map(|source| source.to_string()),
            "causation": self.causation.map(|cause| cause.to_string()),
            "correlation": self.correlation.map(|id| hex(&id)),
        });
        match self.decode_any() {
            Ok(AnyEvent::Control(event)) => line["payload"] = event.to_json(),
            Ok(AnyEvent::Activity(event)) => line["payload"] = event.to_json(),
            Err(error) => {
                line["payload"] = Value::Null;
                line["payload_hex"] = Value::from(hex(&self.payload));
                line["error"] = Value::from(error.to_string());
            }
        }
        line
    }
}

impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

fn kind_name(log: LogName, number: u16) -> &'static str {
    registry()
        .iter()
        .find(|kind| kind.log == log && kind.number == number)
        .map_or("unknown", |kind| kind.name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Events after `after`, at most `limit` and [`READ_EVENTS_MAX`], of a log that need not be open: for
/// tools beside or without a server. Fewer than asked for means that the log ends there. After 0 is from where
/// the log begins, which in a trimmed one is not position 1; after another position that was cut off is
/// [`LogError::Trimmed`].
pub async fn read_stored(
    store: &Arc<dyn Store>,
    log: LogName,
    after: Position,
    limit: usize,
) -> Result<Vec<Recorded>, LogError> {
    let reader = Reader::new(Arc::clone(store), log);
    let head = reader.present_head().await?;
    read(&reader, after, limit, head.position).await
}

/// Events after `after` and up to `head`.
pub(crate) async fn read(
    reader: &Reader,
    after: Position,
    limit: usize,
    head: Position,
) -> Result<Vec<Recorded>, LogError> {
    let limit = limit.min(READ_EVENTS_MAX);
    let mut events = Vec::new();
    if limit == 0 || head <= after {
        return Ok(events);
    }
    let mut frames = reader.frames_after(after).await?;
    let after = if after.0 == 0 { Position(frames.next_position().0 - 1) } else { after };
    let until = Position(after.0.saturating_add(limit as u64)).min(head);
    while frames.next_position() <= until {
        for frame in frames.page(until).await? {
            let wanted = positioned(&frame).filter(|(at, _)| *at > after && *at <= until);
            events.extend(wanted.map(|(at, record)| Recorded::new(&frame, at, record)));
        }
    }
    Ok(events)
}

/// All events of the command that made the event at `position`: they are in one frame, and the first of each
/// command says what was asked for. `None`: there is no such position.
pub(crate) async fn command_at(
    reader: &Reader,
    position: Position,
) -> Result<Option<Vec<Recorded>>, LogError> {
    let head = reader.present_head().await?;
    if position.0 == 0 || position > head.position {
        return Ok(None);
    }
    let frame = reader.present_frame(position).await?;
    let mut command = Vec::new();
    for (at, record) in positioned(&frame) {
        if record.asked.is_some() {
            if at > position {
                break;
            }
            command.clear();
        }
        command.push(Recorded::new(&frame, at, record));
    }
    Ok(Some(command))
}
