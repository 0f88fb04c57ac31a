//! Is an export what a log said?

use std::io;

use serde::Serialize;
use tokio::io::AsyncBufRead;
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::agreement::Check;
use crate::checkpoint::CheckpointPublicKey;
use crate::checkpoint_book::CheckpointBook;
use crate::rebuild::{Broken, Rebuild, Start};

/// What [`verify_export`] has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedExport {
    /// Whether all is well.
    pub ok: bool,
    /// Which log, as the first line says.
    pub log: Option<LogName>,
    /// Its id.
    pub log_id: Option<LogId>,
    /// The position of the first line; 1 where the export has the log from its beginning.
    pub first: Position,
    /// Hash of the frame before the first line, taken as given; zeros at the beginning of a log.
    pub previous: Digest32,
    /// The last position that is well.
    pub head: Position,
    /// The chained hash there: to be compared with a checkpoint, or with the log itself.
    pub hash: Digest32,
    /// Frames that are well.
    pub frames: u64,
    /// Lines that were read.
    pub lines: u64,
    /// Checkpoints that agree with the lines; 0 where none were given.
    pub checkpoints: u64,
    /// The first position at which a checkpoint does not agree, and how, as half a sentence.
    pub disagrees: Option<(Position, String)>,
    /// The first line, from 1, that is not well, and what is wrong, as half a sentence.
    pub bad: Option<(u64, String)>,
}

/// Checks the lines of an export without any store: that is how what happened is proved to somebody else. Each
/// frame is made again and must have the hash it says; each must follow on the one before. The lines may begin
/// and end anywhere in a log, at the ends of frames.
///
/// What is wrong is part of the result; an error is one of reading. Memory holds one line, one frame, and the
/// version of each stream.
pub async fn verify_export(lines: impl AsyncBufRead + Unpin) -> io::Result<VerifiedExport> {
    walk(lines, |_| None, false).await
}

/// The same, and that the lines agree with the checkpoints in `book` of their log, as
/// [`verify_with`](crate::verify_with) has it. Checkpoints before the first line are passed over; those behind the
/// last are, too, unless the lines go on to the end of the log (`to_the_end`): then the log is short of its tail.
pub async fn verify_export_with(
    lines: impl AsyncBufRead + Unpin,
    book: &CheckpointBook,
    key: &CheckpointPublicKey,
    to_the_end: bool,
) -> io::Result<VerifiedExport> {
    walk(lines, |start| Some(Check::new(start.log, &book.of(start.log), key)), to_the_end).await
}

async fn walk(
    lines: impl AsyncBufRead + Unpin,
    checks: impl Fn(Start) -> Option<Check>,
    to_the_end: bool,
) -> io::Result<VerifiedExport> {
    let mut rebuild = Rebuild::part(lines);
    let mut frames = 0;
    let mut check: Option<Check> = None;
    let bad = loop {
        match rebuild.next().await {
            Ok(None) => break None,
            Ok(Some((frame, _))) => {
                if frames == 0
                    && let Some(start) = rebuild.start()
                {
                    check = checks(start);
                    if let Some(check) = &mut check {
                        check.log_id = Some(start.log_id);
                    }
                }
                frames += 1;
                if let Some(check) = &mut check {
                    check.see(&frame);
                }
            }
            Err(Broken::Line(line, why)) => break Some((line, why)),
            Err(Broken::Read(error)) => return Err(error),
        }
    };
    let start = rebuild.start();
    let (head, hash) = rebuild.reached();
    if let Some(check) = check.as_mut().filter(|_| to_the_end && bad.is_none()) {
        check.end(head);
    }
    let (checkpoints, disagrees) = check.map_or((0, None), |check| (check.agreeing, check.bad));
    Ok(VerifiedExport {
        ok: bad.is_none() && disagrees.is_none(),
        log: start.map(|start| start.log),
        log_id: start.map(|start| start.log_id),
        first: start.map_or(Position(0), |start| start.first),
        previous: start.map_or(Digest32([0; 32]), |start| start.previous),
        head,
        hash,
        frames,
        lines: rebuild.lines(),
        checkpoints,
        disagrees,
        bad,
    })
}
