//! A log out of the lines of an export.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncBufRead;
use tokio_util::sync::CancellationToken;
use underpass_domain::LogName;
use underpass_store::Store;

use crate::copy::{Copied, Progress};
use crate::copy_error::CopyError;
use crate::head::Head;
use crate::landing::Landing;
use crate::rebuild::{Broken, Rebuild};

/// Frames between two reports of progress.
const PROGRESS_FRAMES: u64 = 256;

/// Why lines did not become a log. What was written so far counts for nothing: the target bears the marker of
/// half a copy until an import, or a copy, of the same log comes to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A line is not what an export wrote there.
    #[error("line {line}: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong, as half a sentence.
        why: String,
    },

    /// The lines are those of the other log.
    #[error("the lines are of the {found} log, not of the {log} log")]
    OtherName {
        /// The log that was to be imported.
        log: LogName,
        /// The log that it is.
        found: LogName,
    },

    /// The lines can't be read.
    #[error("the lines can't be read")]
    Read(#[source] io::Error),

    /// The target does not take the log, or not now.
    #[error(transparent)]
    Target(#[from] CopyError),
}

impl ImportError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Line { .. } => "import.line",
            Self::OtherName { .. } => "import.other_log",
            Self::Read(_) => "io",
            Self::Target(error) => error.code(),
        }
    }
}

impl From<Broken> for ImportError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Line(line, why) => Self::Line { line, why },
            Broken::Read(error) => Self::Read(error),
        }
    }
}

/// Makes a log again from all lines of an export, bit for bit, and writes it as [`copy`](crate::copy) does: into
/// a target that holds nothing of it or its beginning, with the same marker until the end, and to be run again
/// after a failure.
///
/// Each frame is checked before any of it is written: every line against itself, its hash, the chain, positions
/// from 1, the versions of streams. There is no pass over all lines before that: the lines may come through a
/// pipe, and a log that was written in part counts for nothing anyway. Who wants to know beforehand asks
/// [`verify_export`](crate::verify_export).
///
/// A file that ends early at the end of a frame can't be told from one that is whole: compare
/// [`Copied::head`] and its hash with what is known of the log.
pub async fn import(
    lines: impl AsyncBufRead + Unpin,
    to: &Arc<dyn Store>,
    log: LogName,
    mut progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Copied, ImportError> {
    let mut rebuild = Rebuild::whole(lines);
    let mut landing: Option<Landing> = None;
    let mut frames = 0;
    let mut newest = None;
    while let Some((frame, bytes)) = rebuild.next().await? {
        let landing = if let Some(landing) = &mut landing {
            landing
        } else {
            if frame.header.log != log {
                return Err(ImportError::OtherName { log, found: frame.header.log });
            }
            let Some(start) = rebuild.start() else { return Err(nothing()) };
            landing.insert(Landing::open(to, log, start.log_id, None, stop).await?)
        };
        landing.take(&frame, bytes).await?;
        newest = Some(Head::of(&frame));
        frames += 1;
        let written = landing.reached();
        if stop.is_cancelled() {
            return Err(CopyError::Stopped { log, position: written }.into());
        }
        if frames % PROGRESS_FRAMES == 0 {
            progress(Progress { log, checked: frame.last(), written, end: None });
        }
    }
    let (Some(landing), Some(head)) = (landing, newest) else {
        return Err(nothing());
    };
    let (log_id, resumed_after) = (landing.id(), landing.found());
    let written = landing.finish(&head).await?;
    let end = Some(head.position);
    progress(Progress { log, checked: head.position, written: head.position, end });
    let (source_hash, target_hash) = (head.hash, head.hash);
    Ok(Copied { log, log_id, head: head.position, source_hash, target_hash, frames, resumed_after, written })
}

fn nothing() -> ImportError {
    ImportError::Line { line: 1, why: "there is no line".to_owned() }
}
