//! Is an export what a log said?

use std::io;

use serde::Serialize;
use tokio::io::AsyncBufRead;
use underpass_domain::{Digest32, LogId, LogName, Position};

use crate::rebuild::{Broken, Rebuild};

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
    let mut rebuild = Rebuild::part(lines);
    let mut frames = 0;
    let bad = loop {
        match rebuild.next().await {
            Ok(None) => break None,
            Ok(Some(_)) => frames += 1,
            Err(Broken::Line(line, why)) => break Some((line, why)),
            Err(Broken::Read(error)) => return Err(error),
        }
    };
    let start = rebuild.start();
    let (head, hash) = rebuild.reached();
    Ok(VerifiedExport {
        ok: bad.is_none(),
        log: start.map(|start| start.log),
        log_id: start.map(|start| start.log_id),
        first: start.map_or(Position(0), |start| start.first),
        previous: start.map_or(Digest32([0; 32]), |start| start.previous),
        head,
        hash,
        frames,
        lines: rebuild.lines(),
        bad,
    })
}
