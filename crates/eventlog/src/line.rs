//! One event as one line of an export: a CloudEvent, from which the frame can be made again.
//!
//! `docs/format/export-v1.md` describes every attribute.

mod read;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use underpass_domain::{DecodeError, Digest32, LogId, PAYLOAD_CODEC, Position, StreamId, registry};

use crate::codes;
use crate::frame::{Frame, FrameHeader};
use crate::record::{Asked, Record};
use crate::strict;

/// The longest line, without its end. The longest event there is makes one of some 20 KiB; no event that fits
/// a frame comes near this, and a reader needs some bound.
pub const LINE_BYTES_MAX: usize = 8 << 20;
/// The version of the attributes.
pub const EXPORT_FORMAT: u32 = 1;

const SPEC: &str = "1.0";
const JSON: &str = "application/json";

/// What the lines of one frame have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameFacts {
    pub(crate) log_id: LogId,
    pub(crate) header: FrameHeader,
    pub(crate) count: usize,
    pub(crate) hash: Digest32,
}

impl FrameFacts {
    pub(crate) fn of(log_id: LogId, frame: &Frame) -> Self {
        Self { log_id, header: frame.header, count: frame.records.len(), hash: frame.hash }
    }
}

/// A line, attribute by attribute. Numbers that may pass 32 bits are texts: CloudEvents knows no larger ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    time: String,
    subject: String,
    datacontenttype: String,
    dataschema: String,
    exportversion: u32,
    position: String,
    streamversion: String,
    eventkind: u16,
    eventversion: u16,
    commandid: String,
    actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sourceaddress: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    askedcontent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    askedsubject: Option<String>,
    codec: u8,
    payload: String,
    epoch: String,
    framefirst: String,
    framecount: u32,
    commitid: String,
    node: String,
    recordedat: String,
    previoushash: String,
    framehash: String,
    #[serde(deserialize_with = "strict::value")]
    data: Value,
}

impl Line {
    /// The line of one record. Fails if this program doesn't know the event.
    pub(crate) fn of(facts: &FrameFacts, position: Position, record: &Record) -> Result<Self, DecodeError> {
        let FrameFacts { log_id, header, count, hash } = facts;
        let Record { kind, version, payload, .. } = record;
        let known = registry()
            .iter()
            .find(|row| row.log == header.log && row.number == *kind && row.version == *version);
        let known = known.ok_or(DecodeError::Unknown { kind: *kind, version: *version })?;
        if header.codec != PAYLOAD_CODEC {
            return Err(DecodeError::UnknownCodec { codec: header.codec });
        }
        let subject = |asked: &Asked| match codes::to_stream(&codes::from_subject(asked.subject)) {
            Ok(stream) => stream.to_string(),
            // Every subject is an entity.
            Err(_) => StreamId::LOG.to_string(),
        };
        Ok(Self {
            specversion: SPEC.to_owned(),
            id: format!("{log_id}/{position}"),
            source: format!("urn:underpass:log:{log_id}:{}", header.log),
            r#type: format!("underpass.{}.v{version}", known.name),
            time: header.recorded_at.to_string(),
            subject: record.stream.to_string(),
            datacontenttype: JSON.to_owned(),
            dataschema: format!("urn:underpass:event:{}:v{version}", known.name),
            exportversion: EXPORT_FORMAT,
            position: position.to_string(),
            streamversion: record.stream_version.to_string(),
            eventkind: *kind,
            eventversion: *version,
            commandid: record.command.to_string(),
            actor: record.actor.to_string(),
            sourceaddress: record.source.map(|source| source.to_string()),
            causation: record.causation.map(|cause| cause.to_string()),
            correlation: record.correlation.map(|id| HEXLOWER.encode(&id)),
            askedcontent: record.asked.map(|asked| HEXLOWER.encode(&asked.content)),
            askedsubject: record.asked.as_ref().map(subject),
            codec: header.codec,
            payload: BASE64.encode(payload),
            epoch: header.epoch.to_string(),
            framefirst: header.first.to_string(),
            framecount: u32::try_from(*count).unwrap_or(u32::MAX),
            commitid: HEXLOWER.encode(&header.commit.0),
            node: header.node.to_string(),
            recordedat: header.recorded_at.0.to_string(),
            previoushash: header.previous.to_string(),
            framehash: hash.to_string(),
            data: (known.payload_to_json)(payload)?,
        })
    }

    /// Its text, without an end of line.
    pub(crate) fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}
