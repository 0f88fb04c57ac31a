//! Frames out of the lines of an export.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncBufRead;
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::codes;
use crate::error::LogError;
use crate::fold::{self, Chain, StreamAt};
use crate::frame::{FRAME_BYTES_MAX, FRAME_EVENTS_MAX, Frame, FrameBuilder};
use crate::line::{FrameFacts, LINE_BYTES_MAX, Line};
use crate::lines::{LineError, Lines};
use crate::record::Record;

/// Why lines make no frame.
#[derive(Debug)]
pub(crate) enum Broken {
    /// This line, from 1, is at fault, and how, as half a sentence.
    Line(u64, String),
    /// The lines can't be read.
    Read(io::Error),
}

/// Makes the frames again, one after another, and checks that they are what they say and follow on each other.
/// Memory holds one line, one frame, and the version of each stream.
#[derive(Debug)]
pub(crate) struct Rebuild<R> {
    lines: Lines<R>,
    /// Whether the lines may begin behind the beginning of the log.
    part: bool,
    start: Option<Start>,
    chain: Option<Chain>,
}

/// What the first line says of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) log: LogName,
    pub(crate) log_id: LogId,
    pub(crate) first: Position,
    /// Hash of the frame before; zeros at the beginning of a log.
    pub(crate) previous: Digest32,
}

impl<R: AsyncBufRead + Unpin> Rebuild<R> {
    /// Over the lines of a whole log.
    pub(crate) fn whole(input: R) -> Self {
        Self { lines: Lines::new(input, LINE_BYTES_MAX), part: false, start: None, chain: None }
    }

    /// Over lines that may begin with any frame of a log.
    pub(crate) fn part(input: R) -> Self {
        Self { part: true, ..Self::whole(input) }
    }

    /// What the first line says.
    pub(crate) fn start(&self) -> Option<Start> {
        self.start
    }

    /// Where the frames that were given end.
    pub(crate) fn reached(&self) -> (Position, Digest32) {
        self.chain.as_ref().map_or((Position(0), Digest32([0; 32])), |chain| (chain.position, chain.hash))
    }

    /// Lines read.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.number()
    }

    /// The next frame and its bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<(Frame, Bytes)>, Broken> {
        let Some((facts, position, record)) = self.line().await? else {
            return match self.start {
                Some(_) => Ok(None),
                None => Err(Broken::Line(1, "there is no line".to_owned())),
            };
        };
        let begins = self.lines.number();
        self.begin(&facts, position)?;
        let mut builder = FrameBuilder::new(&facts.header);
        self.push(&mut builder, &record)?;
        while builder.count() < facts.count {
            let expected = Position(facts.header.first.0 + builder.count() as u64);
            let Some((these, position, record)) = self.line().await? else {
                let missing = facts.count - builder.count();
                let why = format!(
                    "the frame that begins at position {} lacks its last {missing} of {} events: the lines end \
                     too early",
                    facts.header.first, facts.count
                );
                return Err(Broken::Line(self.lines.number(), why));
            };
            self.expect(position, expected)?;
            if these != facts {
                return Err(self.here("it says other things of its frame than the line before".to_owned()));
            }
            self.push(&mut builder, &record)?;
        }
        let (bytes, hash) = builder.finish().map_err(|error| self.here(format!("its frame: {error}")))?;
        if hash != facts.hash {
            let (first, last) = (facts.header.first, facts.header.first.0 + facts.count as u64 - 1);
            let why = format!(
                "the frame of positions {first} to {last} has another hash than it says: something in the lines \
                 {begins} to {} was changed",
                self.lines.number()
            );
            return Err(Broken::Line(begins, why));
        }
        let frame = Frame::decode(&bytes).map_err(|error| self.here(format!("its frame: {error}")))?;
        self.follow(&frame, begins)?;
        Ok(Some((frame, bytes)))
    }

    async fn line(&mut self) -> Result<Option<(FrameFacts, Position, Record)>, Broken> {
        let parsed = match self.lines.next().await {
            Ok(None) => return Ok(None),
            Ok(Some(line)) if line.text.trim_ascii().is_empty() => Err("the line is empty".to_owned()),
            Ok(Some(line)) => Line::parse(line.text).map_err(|why| {
                let cut =
                    if line.ended { "" } else { "; it is the last, and has no end: perhaps it was cut off" };
                format!("{why}{cut}")
            }),
            Err(error @ LineError::TooLong(_)) => Err(error.to_string()),
            Err(LineError::Io(error)) => return Err(Broken::Read(error)),
        };
        parsed.map(Some).map_err(|why| self.here(why))
    }

    /// Whether a line may begin a frame, and that frame follow.
    fn begin(&mut self, facts: &FrameFacts, position: Position) -> Result<(), Broken> {
        let FrameFacts { log_id, header, count, .. } = facts;
        if let Some(start) = self.start {
            let expected = self.reached().0.next();
            self.expect(position, expected)?;
            if (header.log, *log_id) != (start.log, start.log_id) {
                return Err(self.here("it is of another log than the lines before".to_owned()));
            }
        } else if !self.part {
            self.expect(position, Position(1))?;
        }
        if header.first != position {
            let why = format!(
                "position {position} stands within the frame that begins at {}; only whole frames can be checked",
                header.first
            );
            return Err(self.here(why));
        }
        if *count == 0 || *count > FRAME_EVENTS_MAX || position.0.checked_add(*count as u64).is_none() {
            return Err(self.here("`framecount` can't be".to_owned()));
        }
        if self.start.is_none() {
            let previous = header.previous;
            self.start = Some(Start { log: header.log, log_id: *log_id, first: position, previous });
            let mut chain = Chain::new(header.log);
            if position > Position(1) {
                chain.position = Position(position.0 - 1);
                chain.hash = previous;
            }
            self.chain = Some(chain);
        }
        Ok(())
    }

    fn push(&self, builder: &mut FrameBuilder, record: &Record) -> Result<(), Broken> {
        if builder.len() + record.encoded_len() > FRAME_BYTES_MAX {
            return Err(self.here("its frame would be larger than a frame can be".to_owned()));
        }
        builder.push(record);
        Ok(())
    }

    fn follow(&mut self, frame: &Frame, begins: u64) -> Result<(), Broken> {
        let Some(chain) = &mut self.chain else { return Ok(()) };
        if frame.first() == Position(1) {
            let id = fold::log_id(frame).map_err(|error| Broken::Line(begins, reason(&error)))?;
            if self.start.is_some_and(|start| start.log_id != id) {
                let why = "the log does not begin with the id that `source` names";
                return Err(Broken::Line(begins, why.to_owned()));
            }
        }
        if self.start.is_some_and(|start| start.first > Position(1)) {
            // What came before isn't known: the first version that shows is taken as given.
            for record in &frame.records {
                let stream = codes::from_stream(record.stream);
                let before =
                    StreamAt { version: record.stream_version.saturating_sub(1), ..StreamAt::default() };
                chain.streams.entry(stream).or_insert(before);
            }
        }
        chain.follow(frame).map_err(|error| {
            let within = match error {
                LogError::Corrupt { position, .. } => position.0.saturating_sub(frame.first().0),
                _ => 0,
            };
            Broken::Line(begins + within, reason(&error))
        })
    }

    fn expect(&self, position: Position, expected: Position) -> Result<(), Broken> {
        if position == expected {
            return Ok(());
        }
        Err(self.here(if position > expected {
            format!("position {position} stands where {expected} belongs: a line is missing, or out of order")
        } else {
            format!("position {position} stands where {expected} belongs: a line is doubled, or out of order")
        }))
    }

    fn here(&self, why: String) -> Broken {
        Broken::Line(self.lines.number(), why)
    }
}

/// What is wrong, without the position: the number of the line says where.
fn reason(error: &LogError) -> String {
    match error {
        LogError::Corrupt { why, .. } | LogError::Newer { why, .. } => why.clone(),
        error => error.to_string(),
    }
}
