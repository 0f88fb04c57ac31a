//! What the clients write: tokens, each once.

use serde::{Deserialize, Serialize};
use underpass_domain::{
    Aggregate, Decision, DecodeError, DomainEvent, EncodeError, EventMeta, LogId, LogName, MappingId, Meta,
    StreamId, Subject, codec,
};

/// How many events there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    log: Option<LogId>,
    events: u64,
}

#[derive(Clone, Debug, Serialize)]
pub enum Do {
    /// Appends a token, wherever the log ends.
    Append { token: u64 },
    /// Appends a token if the log ends at this position.
    AppendAt { token: u64, expected: u64 },
    /// Changes nothing: the answer says where the log ends.
    Look,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Begun(LogId),
    Token(u64),
}

/// The log doesn't end where it was expected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log ends at {0}")]
pub struct EndsAt(pub u64);

impl DomainEvent for Event {
    fn kind(&self) -> u16 {
        match self {
            Self::Begun(_) => 60_001,
            Self::Token(_) => 60_002,
        }
    }

    fn version(&self) -> u16 {
        1
    }

    fn stream(&self) -> StreamId {
        StreamId::LOG
    }

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Begun(id) => codec::encode(&id.0),
            Self::Token(token) => codec::encode(token),
        }
    }

    fn decode(kind: u16, version: u16, _codec: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(match (kind, version) {
            (60_001, 1) => Self::Begun(LogId(codec::decode(payload)?)),
            (60_002, 1) => Self::Token(codec::decode(payload)?),
            _ => return Err(DecodeError::Unknown { kind, version }),
        })
    }

    fn name(&self) -> &'static str {
        "token.event"
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn sentence(&self) -> String {
        format!("{self:?}")
    }
}

impl Event {
    /// The token, or 0 for the beginning.
    pub fn token(&self) -> u64 {
        match self {
            Self::Begun(_) => 0,
            Self::Token(token) => *token,
        }
    }
}

impl Aggregate for Tokens {
    const LOG: LogName = LogName::Control;
    type Command = Do;
    type Event = Event;
    type Refusal = EndsAt;

    fn decide(&self, _meta: &Meta, command: &Do) -> Result<Decision<Event>, EndsAt> {
        let events = match *command {
            Do::AppendAt { expected, .. } if expected != self.events => return Err(EndsAt(self.events)),
            Do::Append { token } | Do::AppendAt { token, .. } => vec![Event::Token(token)],
            Do::Look => Vec::new(),
        };
        Ok(Decision { events, subject: Subject::Mapping(MappingId::from_bytes([1; 16])) })
    }

    fn evolve(&mut self, event: &Event, _at: &EventMeta) {
        self.events += 1;
        if let Event::Begun(id) = event {
            self.log = Some(*id);
        }
    }

    fn genesis(log: LogId) -> Event {
        Event::Begun(log)
    }

    fn log_id(&self) -> Option<LogId> {
        self.log
    }
}
