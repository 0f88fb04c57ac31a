//! A log as text that others can read.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::try_unfold;
use underpass_domain::{LogId, LogName, Position};
use underpass_store::Store;

use crate::error::LogError;
use crate::fold::positioned;
use crate::frame::Frame;
use crate::landing::stored_id;
use crate::line::{FrameFacts, LINE_BYTES_MAX, Line};
use crate::reader::{Frames, Reader};

/// Which events of a log are exported. The default is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those after this position; 0 is from the beginning.
    pub after: Position,
    /// Up to and with this one; `None` is up to the end of the log as it is now.
    pub until: Option<Position>,
    /// Also the other events of the frames at both ends. Only whole frames can be checked by
    /// [`verify_export`](crate::verify_export).
    pub whole_frames: bool,
}

/// An export under way: JSON lines of CloudEvents 1.0, one event a line, as `docs/format/export-v1.md` has it.
///
/// Nothing is written, and the log need not be open. What is appended after the start is not part of it.
/// Memory holds one page of frames and one line.
#[derive(Debug)]
pub struct Export {
    log: LogName,
    log_id: LogId,
    frames: Frames,
    selection: Selection,
    end: Position,
    page: VecDeque<Frame>,
    /// Records of the first frame of the page that were given or passed over.
    given: usize,
}

impl Export {
    /// Begins an export.
    pub async fn open(store: &Arc<dyn Store>, log: LogName, selection: Selection) -> Result<Self, LogError> {
        let reader = Reader::new(Arc::clone(store), log);
        let head = reader.present_head().await?.position;
        let end = match selection.until {
            Some(until) if until > head => return Err(LogError::Ahead { log, head }),
            Some(until) => until,
            None => head,
        };
        let log_id = stored_id(&reader).await?;
        let frames = reader.frames_after(selection.after).await?;
        Ok(Self { log, log_id, frames, selection, end, page: VecDeque::new(), given: 0 })
    }

    /// The id of the log.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The last position asked for.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The next line, without its end; `None` after the last. An event that this program doesn't know, or a
    /// frame that is damaged, ends the export with an error.
    pub async fn next(&mut self) -> Result<Option<String>, LogError> {
        let log = self.log;
        if self.selection.after >= self.end {
            return Ok(None);
        }
        loop {
            let Some(frame) = self.page.front() else {
                let page = self.frames.page(self.end).await?;
                if page.is_empty() {
                    return Ok(None);
                }
                self.page = page.into();
                continue;
            };
            let Some((position, record)) = positioned(frame).nth(self.given) else {
                self.page.pop_front();
                self.given = 0;
                continue;
            };
            self.given += 1;
            let asked_for = self.selection.after < position && position <= self.end;
            if !asked_for && !self.selection.whole_frames {
                continue;
            }
            let facts = FrameFacts::of(self.log_id, frame);
            let line = Line::of(&facts, position, record);
            let line = line.map_err(|error| LogError::payload(log, position, &error))?.to_text();
            return match line {
                Ok(line) if line.len() <= LINE_BYTES_MAX => Ok(Some(line)),
                _ => Err(LogError::corrupt(log, position, "the event makes a line that is too long")),
            };
        }
    }

    /// The lines as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<String, LogError>> + Send {
        try_unfold(self, async |mut export| Ok(export.next().await?.map(|line| (line, export))))
    }
}
