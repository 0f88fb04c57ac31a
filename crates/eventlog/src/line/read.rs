//! What a line says, and whether it agrees with itself.

use std::net::IpAddr;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use underpass_domain::{Actor, CommandId, Digest32, LogId, LogName, NodeId, Position, StreamId, Timestamp};

use super::{EXPORT_FORMAT, FrameFacts, Line, SPEC};
use crate::codes;
use crate::frame::{CommitId, FrameHeader};
use crate::record::{Asked, Record};

impl Line {
    /// What a line says, or what is wrong with it, as half a sentence. Everything on it was compared with
    /// everything else on it, `data` with the payload too; what frame it makes with others was not.
    pub(crate) fn parse(text: &[u8]) -> Result<(FrameFacts, Position, Record), String> {
        let line: Self = serde_json::from_slice(text).map_err(|error| {
            // Positions within one line say columns only.
            format!("the line is no event of an export: {error}")
        })?;
        if line.specversion != SPEC || line.exportversion != EXPORT_FORMAT {
            return Err(format!(
                "the line is of version {} of CloudEvents and version {} of the export; this program knows {SPEC} \
                 and {EXPORT_FORMAT}",
                line.specversion, line.exportversion
            ));
        }
        let (facts, position, record) = line.read()?;
        let again = Self::of(&facts, position, &record).map_err(|error| {
            let mut why = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                why = format!("{why}: {source}");
            }
            why
        })?;
        if again != line {
            return Err(again.contradiction(&line));
        }
        Ok((facts, position, record))
    }

    fn read(&self) -> Result<(FrameFacts, Position, Record), String> {
        let urn = self.source.strip_prefix("urn:underpass:log:").and_then(|urn| urn.split_once(':'));
        let (id, log) = urn.ok_or_else(|| wrong("source"))?;
        let log_id: LogId = parsed("source", id)?;
        let log: LogName = parsed("source", log)?;
        let header = FrameHeader {
            log,
            codec: self.codec,
            epoch: number("epoch", &self.epoch)?,
            first: Position(number("framefirst", &self.framefirst)?),
            commit: CommitId(bytes("commitid", &self.commitid)?),
            recorded_at: Timestamp(number("recordedat", &self.recordedat)?),
            node: parsed::<NodeId>("node", &self.node)?,
            previous: parsed::<Digest32>("previoushash", &self.previoushash)?,
        };
        let hash = parsed("framehash", &self.framehash)?;
        let asked = match (&self.askedcontent, &self.askedsubject) {
            (None, None) => None,
            (Some(content), Some(subject)) => {
                let stream: StreamId = parsed("askedsubject", subject)?;
                let subject = codes::to_subject(&codes::from_stream(stream));
                let subject = subject.map_err(|_| wrong("askedsubject"))?;
                Some(Asked { content: bytes("askedcontent", content)?, subject })
            }
            _ => return Err("`askedcontent` and `askedsubject` go together".to_owned()),
        };
        let payload = BASE64.decode(self.payload.as_bytes()).map_err(|_| wrong("payload"))?;
        let record = Record {
            kind: self.eventkind,
            version: self.eventversion,
            stream: parsed("subject", &self.subject)?,
            stream_version: number("streamversion", &self.streamversion)?,
            command: parsed::<CommandId>("commandid", &self.commandid)?,
            actor: parsed::<Actor>("actor", &self.actor)?,
            source: optional("sourceaddress", self.sourceaddress.as_deref(), parsed::<IpAddr>)?,
            causation: optional("causation", self.causation.as_deref(), parsed)?,
            correlation: optional("correlation", self.correlation.as_deref(), bytes)?,
            asked,
            payload: Bytes::from(payload),
        };
        let count = self.framecount as usize;
        let position = Position(number("position", &self.position)?);
        Ok((FrameFacts { log_id, header, count, hash }, position, record))
    }

    /// The first attribute in which two lines differ. `self` is what the rest of `line` amounts to.
    fn contradiction(&self, line: &Self) -> String {
        if self.data != line.data {
            return "`data` is not what the payload holds".to_owned();
        }
        let fields = |line: &Self| match serde_json::to_value(line) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(line));
        let differs = theirs.iter().find(|(name, value)| ours.get(name.as_str()) != Some(value));
        match differs {
            Some((name, value)) => format!("`{name}` is {value}, and the rest of the line says otherwise"),
            None => "the line contradicts itself".to_owned(),
        }
    }
}

fn wrong(name: &str) -> String {
    format!("`{name}` can't be read")
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("`{name}` can't be read: {error}"))
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| wrong(name))
}

fn bytes(name: &str, text: &str) -> Result<[u8; 16], String> {
    HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| wrong(name))
}

fn optional<T>(
    name: &str,
    text: Option<&str>,
    read: impl Fn(&str, &str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    text.map(|text| read(name, text)).transpose()
}
