//! Is the log what was written?

use std::sync::Arc;

use serde::Serialize;
use underpass_domain::{Digest32, LogName, Position};
use underpass_store::Store;

use crate::error::LogError;
use crate::fold::Chain;
use crate::frame::Frame;
use crate::head::Head;
use crate::keys;
use crate::reader::Reader;

/// What `verify` has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whether all is well.
    pub ok: bool,
    /// Which log.
    pub log: LogName,
    /// The last position that is well.
    pub head: Position,
    /// The chained hash there.
    pub hash: Digest32,
    /// Frames that are well.
    pub frames: u64,
    /// Events that are well.
    pub events: u64,
    /// What was not looked at because it was trimmed and no archive that holds it is at hand: all up to this
    /// position; 0 if the log was read from its first event. The hash behind it is the one that the rest
    /// follows on.
    pub trimmed: Position,
    /// Checkpoints that agree with the log; 0 where none were given.
    pub checkpoints: u64,
    /// Whether what is bad was told by a checkpoint: the log is sound in itself, and not what it was.
    pub by_checkpoint: bool,
    /// The first position that is not, and what is wrong, as half a sentence.
    pub bad: Option<(Position, String)>,
}

/// Reads a log from its beginning to its head and checks that each frame is whole, that positions are
/// dense, that each frame follows on its predecessor's hash, that the versions of each stream are dense,
/// and that the head names the end. The log need not be open, and may be written meanwhile.
///
/// What is damaged is part of the result; errors are those of the store, and that the log isn't there or was
/// copied in part only.
pub async fn verify(store: &Arc<dyn Store>, log: LogName) -> Result<Verified, LogError> {
    walk(store, log, |_| {}).await
}

/// The same; `see` is shown each frame that is well.
pub(crate) async fn walk(
    store: &Arc<dyn Store>,
    log: LogName,
    see: impl FnMut(&Frame) + Send,
) -> Result<Verified, LogError> {
    let reader = Reader::new(Arc::clone(store), log);
    reader.refuse_half_copied().await?;
    // Where it is damaged, what lies behind the cut can't be found: it is met again as the walk begins.
    let tail = match reader.beginning().await {
        Err(LogError::Corrupt { .. } | LogError::Newer { .. } | LogError::Foreign { .. }) => None,
        tail => tail?,
    };
    let trimmed = tail.map_or(Position(0), |tail| tail.until);
    let mut walk = Walk { chain: Chain::behind(log, tail.as_ref()), frames: 0, see };
    let outcome = match reader.head().await {
        Ok(Some((head, _))) => walk.run(&reader, Some(head)).await,
        Ok(None) if !reader.any_frame().await? => return Err(LogError::Absent { log }),
        // Without a head, the frames may still tell where the log broke off.
        Ok(None) => {
            reader.refuse_half_repaired().await?;
            walk.headless(&reader, "the head is missing".to_owned()).await
        }
        Err(LogError::Corrupt { why, .. } | LogError::Newer { why, .. }) => walk.headless(&reader, why).await,
        Err(LogError::Foreign { .. }) if reader.any_frame().await? => {
            walk.headless(&reader, "something else lies at the head's place".to_owned()).await
        }
        Err(error) => Err(error),
    };
    let bad = match outcome {
        Ok(()) => None,
        Err(LogError::Corrupt { position, why, .. } | LogError::Newer { position, why, .. }) => {
            Some((position, why))
        }
        Err(error) => return Err(error),
    };
    let chain = walk.chain;
    Ok(Verified {
        ok: bad.is_none(),
        log,
        head: chain.position,
        hash: chain.hash,
        frames: walk.frames,
        events: chain.position.0 - trimmed.0,
        trimmed,
        checkpoints: 0,
        by_checkpoint: false,
        bad,
    })
}

struct Walk<F> {
    chain: Chain,
    frames: u64,
    see: F,
}

impl<F: FnMut(&Frame) + Send> Walk<F> {
    async fn run(&mut self, reader: &Reader, head: Option<Head>) -> Result<(), LogError> {
        let Some(head) = head else { return Ok(()) };
        let mut frames = reader.frames_behind(self.chain.position);
        let mut newest = None;
        while self.chain.position < head.position {
            for frame in frames.page(head.position).await? {
                self.chain.follow(&frame)?;
                self.frames += 1;
                (self.see)(&frame);
                newest = Some((frame.first(), frame.header.commit));
            }
        }
        self.chain.ends_at(&head, newest)?;
        if let Some(trimmed) = self.chain.trimmed.filter(|trimmed| !trimmed.announced) {
            let why = format!("no event says that everything up to {} was trimmed", trimmed.until);
            return Err(LogError::corrupt(reader.log, Position(1), why));
        }
        self.beyond(reader, &head).await
    }

    /// Frames behind the end were never committed, unless the log has grown meanwhile.
    async fn beyond(&self, reader: &Reader, head: &Head) -> Result<(), LogError> {
        let log = reader.log;
        let (from, to) = (keys::frame(log, head.position.next()), keys::frames_end(log));
        let entries = reader.store.scan(&from, &to, 1).await.map_err(|error| LogError::store(log, error))?;
        let Some(at) = entries.first().and_then(|entry| keys::frame_position(log, entry.key.as_ref())) else {
            return Ok(());
        };
        match reader.head().await? {
            Some((now, _)) if now.position > head.position => Ok(()),
            _ => Err(LogError::corrupt(log, at, "a frame lies behind the end of the log")),
        }
    }

    /// Walks all frames there are; then says what is wrong with the head.
    async fn headless(&mut self, reader: &Reader, why: String) -> Result<(), LogError> {
        let log = reader.log;
        let mut next = self.chain.position.next();
        while let Some(frame) = reader.frame_at(next).await? {
            self.chain.follow(&frame)?;
            self.frames += 1;
            (self.see)(&frame);
            next = frame.last().next();
        }
        Err(LogError::corrupt(log, self.chain.position, why))
    }
}
