//! Appending, through the log and without it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;
use underpass_domain::{Actor, Aggregate, CommandId, Meta, Position};
use underpass_eventlog::{Log, frame::Frame, keys};
use underpass_store::{Key, Store};

use super::{Failure, Story, now};

/// Frames that are read at once.
const PAGE: usize = 512;

/// Has `lanes` writers carry out `commands` commands between them, each waiting for its answer before it asks for
/// more. `steps` is how many each lane has carried out before. Gives the time it took and the events it made.
pub async fn append<A: Aggregate>(
    log: &Log<A>,
    story: impl Story<A> + Copy + Send + 'static,
    lanes: u64,
    steps: u64,
    commands: u64,
) -> Result<(Duration, u64), Failure> {
    let before = log.view().position.0;
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for lane in 0..lanes {
        let log = log.clone();
        writers.spawn(async move {
            for step in steps..steps + commands / lanes {
                let command = story.command(lane, lanes, step);
                log.execute(meta(), command).await.map_err(|error| format!("{error:?}"))?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok((began.elapsed(), log.view().position.0 - before))
}

/// Every command has an id of its own: none is a repeat.
fn meta() -> Meta {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Meta {
        id: CommandId(id),
        actor: Actor::Operator,
        source: Some([192, 0, 2, 1].into()),
        correlation: None,
        causation: None,
        now: now(),
    }
}

/// Frames as they lie in a store, and the head that each was written with.
#[derive(Debug)]
pub struct Frames {
    stored: Vec<(Key, Bytes)>,
    head: (Key, Bytes),
    /// Events in them.
    pub events: u64,
}

/// The frames of a log after `after`.
pub async fn frames<A: Aggregate>(store: &Arc<dyn Store>, after: Position) -> Result<Frames, Failure> {
    let head = store.get(&keys::head(A::LOG)).await?.ok_or("the log has no head")?;
    let (mut next, end) = (keys::frame(A::LOG, after.next()), keys::frames_end(A::LOG));
    let (mut frames, mut events) = (Vec::new(), 0);
    loop {
        let page = store.scan(&next, &end, PAGE).await?;
        let Some(last) = page.last() else { break };
        next = last.key.successor();
        for entry in page {
            events += Frame::decode(&entry.value)?.records.len() as u64;
            frames.push((entry.key, entry.value));
        }
    }
    Ok(Frames { stored: frames, head: (head.key, head.value), events })
}

/// RocksDB by itself.
#[derive(Debug)]
pub struct RawRocks(DB);

impl RawRocks {
    /// A new database in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let mut options = Options::default();
        options.create_if_missing(true);
        Ok(Self(DB::open(&options, folder)?))
    }

    /// Writes the same bytes: for each frame one synced batch of the frame and the head.
    pub fn write(&self, frames: &Frames) -> Result<Duration, Failure> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let began = Instant::now();
        for (key, frame) in &frames.stored {
            let mut batch = WriteBatch::default();
            batch.put(key, frame);
            batch.put(&frames.head.0, &frames.head.1);
            self.0.write_opt(batch, &synced)?;
        }
        Ok(began.elapsed())
    }
}

/// etcd by itself.
pub struct RawEtcd(pub etcd_client::Client);

impl RawEtcd {
    /// Puts the same bytes: one put for each frame.
    pub async fn write(&mut self, frames: &Frames) -> Result<Duration, Failure> {
        let began = Instant::now();
        for (key, frame) in &frames.stored {
            self.0.put(key.as_bytes(), frame.to_vec(), None).await?;
        }
        Ok(began.elapsed())
    }
}

/// How long the disk takes to make 4 KiB durable behind what is there: so many times.
pub fn sync_times(folder: &Path, times: usize) -> Result<Vec<Duration>, Failure> {
    let mut file = File::create(folder.join("synced"))?;
    (0..times)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[0x5a; 4096])?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect()
}
