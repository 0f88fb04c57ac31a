//! Checkpoints, one a line, in a file that grows and now and then is thinned.

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};
use underpass_domain::LogName;

use crate::checkpoint::SignedCheckpoint;
use crate::lines::{LineError, Lines};

/// The longest line of a book. One has some 350 bytes.
pub const CHECKPOINT_LINE_BYTES_MAX: usize = 1024;
/// The most checkpoints in a book: one an hour for 22 years. They take 30 MB of memory.
pub const CHECKPOINTS_MAX: usize = 200_000;

/// The checkpoints of a file, in the order they were written. Signatures are not checked by reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointBook {
    /// All of them, of whichever log.
    pub checkpoints: Vec<SignedCheckpoint>,
    /// What has to be done with the file before something is appended.
    pub mend: Mend,
}

/// What the end of a book's file needs before something is appended: after a crash a line may lie there in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mend {
    /// Nothing.
    #[default]
    Nothing,
    /// The file has to be cut to so many bytes. What is behind is a part of a line, which counts for nothing.
    CutTo(u64),
    /// The last line is whole but for its end: a `\n` has to be written.
    EndLine,
}

/// Why a book can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// A line is no checkpoint. Put the file back from where it is kept, or leave out the line.
    #[error("line {line}: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong, as half a sentence.
        why: String,
    },
    /// There are more than [`CHECKPOINTS_MAX`]. Begin another file.
    #[error("there are more than {CHECKPOINTS_MAX} checkpoints")]
    TooMany,
    /// The lines can't be read.
    #[error("the checkpoints can't be read")]
    Read(#[source] io::Error),
}

impl BookError {
    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Line { .. } => "checkpoints.line",
            Self::TooMany => "checkpoints.too_many",
            Self::Read(_) => "io",
        }
    }
}

impl CheckpointBook {
    /// Reads a book. A last line without an end that is no checkpoint was cut off by a crash, and is passed over;
    /// any other line that is none is an error.
    pub async fn read(input: impl AsyncBufRead + Unpin) -> Result<Self, BookError> {
        let mut lines = Lines::new(input, CHECKPOINT_LINE_BYTES_MAX);
        let mut book = Self::default();
        let mut whole = 0;
        loop {
            let read = lines.next().await;
            let (parsed, ended) = match read {
                Ok(None) => return Ok(book),
                Ok(Some(line)) => (SignedCheckpoint::parse(line.text), line.ended),
                Err(error @ LineError::TooLong(_)) => (Err(error.to_string()), true),
                Err(LineError::Io(error)) => return Err(BookError::Read(error)),
            };
            match parsed {
                Ok(_) if book.checkpoints.len() == CHECKPOINTS_MAX => return Err(BookError::TooMany),
                Ok(checkpoint) => {
                    book.checkpoints.push(checkpoint);
                    book.mend = if ended { Mend::Nothing } else { Mend::EndLine };
                    whole = lines.read();
                }
                Err(_) if !ended => book.mend = Mend::CutTo(whole),
                Err(why) => return Err(BookError::Line { line: lines.number(), why }),
            }
        }
    }

    /// Those of one log: a book may hold both.
    pub fn of(&self, log: LogName) -> Vec<SignedCheckpoint> {
        self.checkpoints.iter().copied().filter(|signed| signed.checkpoint.log == log).collect()
    }

    /// The same, with fewer: all of the newer half, and of the older half every second one of each log. What is
    /// thinned again and again has ever fewer of what is long past, and always the first.
    pub fn thinned(&self) -> Vec<SignedCheckpoint> {
        let (older, newer) = self.checkpoints.split_at(self.checkpoints.len() / 2);
        let mut seen: BTreeMap<LogName, u64> = BTreeMap::new();
        let kept = older.iter().filter(|signed| {
            let nth = seen.entry(signed.checkpoint.log).or_default();
            *nth += 1;
            *nth % 2 == 1
        });
        kept.chain(newer).copied().collect()
    }

    /// Appends a line, after what [`Mend`] asks for was done once. To have it on disk is the caller's.
    pub async fn append(to: &mut (impl AsyncWrite + Unpin), checkpoint: &SignedCheckpoint) -> io::Result<()> {
        let line = checkpoint.to_line() + "\n";
        to.write_all(line.as_bytes()).await?;
        to.flush().await
    }
}
