//! Events one after another, from the past into the present.

use std::collections::VecDeque;

use tokio::sync::watch;
use underpass_domain::Position;

use crate::error::LogError;
use crate::reader::Reader;
use crate::recorded::{self, Recorded};

/// Events read at once.
const PAGE_EVENTS: usize = 256;

/// Gives every event after a position once and in order, and waits for those to come. A notice only
/// wakes it; what happened it reads in the log. So notices that come late, twice or never cost time and
/// nothing else.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    changes: watch::Receiver<Position>,
    after: Position,
    waiting: VecDeque<Recorded>,
}

impl Follower {
    pub(crate) fn new(reader: Reader, changes: watch::Receiver<Position>, after: Position) -> Self {
        Self { reader, changes, after, waiting: VecDeque::new() }
    }

    /// The last position that was given.
    pub fn position(&self) -> Position {
        self.after
    }

    /// The next event, once it is in the read models of this node. Dropping the future loses nothing.
    /// After an error the next call tries again.
    pub async fn next(&mut self) -> Result<Recorded, LogError> {
        loop {
            if let Some(recorded) = self.waiting.pop_front() {
                self.after = recorded.position;
                return Ok(recorded);
            }
            let head = *self.changes.borrow_and_update();
            if head > self.after {
                let events = recorded::read(&self.reader, self.after, PAGE_EVENTS, head).await?;
                // After 0 is after whatever was trimmed.
                let first = events.first().map(|event| event.position);
                if first.is_none() || (first != Some(self.after.next()) && self.after.0 > 0) {
                    return Err(LogError::corrupt(
                        self.reader.log,
                        self.after.next(),
                        "the event is missing",
                    ));
                }
                self.waiting = events.into();
            } else if self.changes.changed().await.is_err() {
                return Err(LogError::Closed { log: self.reader.log });
            }
        }
    }
}
