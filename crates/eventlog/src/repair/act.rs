//! A repair, step by step.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use underpass_domain::events::v1;
use underpass_domain::{
    ActivityEvent, Actor, CommandId, ControlEvent, DomainEvent, LogName, PAYLOAD_CODEC, StreamId,
};
use underpass_store::{Commit, Entry, Guard, Key, Revision, StoreError};

use super::keep::Keep;
use super::marker::Repairing;
use super::survey::{PAGE, ranges};
use super::{RepairError, RepairPlan, Repaired, Repairer};
use crate::commit::{self, Delivered};
use crate::error::LogError;
use crate::frame::{CommitId, FrameBuilder, FrameHeader};
use crate::head::Head;
use crate::keys;
use crate::reader::Reader;
use crate::record::Record;

pub(super) async fn repair(
    reader: &Reader,
    plan: &RepairPlan,
    folder: PathBuf,
    by: &Repairer<'_>,
) -> Result<Repaired, RepairError> {
    let entries = put_aside(reader, plan, folder.clone()).await?;
    let marker = match &plan.rest.marker {
        Some((_, revision)) => *revision,
        None => begin(reader, plan).await?,
    };
    delete(reader, plan, marker).await?;
    let head = end(reader, plan, marker, by).await?;
    let Head { log, epoch, position, hash, .. } = head;
    Ok(Repaired { log, head: position, hash, epoch, kept: folder, entries })
}

/// Writes everything that is going to be deleted to a folder.
async fn put_aside(reader: &Reader, plan: &RepairPlan, folder: PathBuf) -> Result<u64, RepairError> {
    let begun = plan.clone();
    let mut keep = blocking(plan, move || Keep::begin(&folder, &begun)).await?;
    let mut single = vec![keys::head(plan.log)];
    single.extend(plan.rest.strays.iter().cloned());
    for key in &single {
        if let Some(entry) = read(plan, reader.store.get(key).await)? {
            keep = keep_all(plan, keep, vec![entry]).await?;
        }
    }
    for (mut from, to) in ranges(plan.log, plan.stays) {
        loop {
            let entries = read(plan, reader.store.scan(&from, &to, PAGE).await)?;
            let Some(last) = entries.last() else { break };
            from = last.key.successor();
            keep = keep_all(plan, keep, entries).await?;
        }
    }
    blocking(plan, move || keep.end()).await
}

async fn keep_all(plan: &RepairPlan, mut keep: Keep, entries: Vec<Entry>) -> Result<Keep, RepairError> {
    let for_names = plan.clone();
    blocking(plan, move || {
        for entry in &entries {
            keep.take(&for_names, entry)?;
        }
        Ok(keep)
    })
    .await
}

fn read<T>(plan: &RepairPlan, answer: Result<T, StoreError>) -> Result<T, RepairError> {
    answer.map_err(|error| LogError::store(plan.log, error).into())
}

async fn blocking<T: Send + 'static>(
    plan: &RepairPlan,
    work: impl FnOnce() -> Result<T, RepairError> + Send + 'static,
) -> Result<T, RepairError> {
    let log = plan.log;
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(RepairError::Store { log, source: StoreError::unavailable("keep", error) })
    })
}

/// Takes the head away and leaves the marker.
async fn begin(reader: &Reader, plan: &RepairPlan) -> Result<Revision, RepairError> {
    let log = plan.log;
    let repairing = Repairing {
        log,
        id: plan.log_id,
        epoch: plan.epoch,
        stays: plan.stays,
        lost: plan.lost,
        hash: plan.hash,
        reason: plan.reason.clone().unwrap_or_default(),
    };
    let (head, key, marker) = (keys::head(log), keys::repairing(log), repairing.encode());
    let guard = |revision: Option<Revision>| revision.map_or(Guard::Absent, Guard::At);
    let mut commit = Commit::new()
        .guard(head.clone(), guard(plan.rest.head))
        .guard(key.clone(), guard(plan.rest.broken_marker))
        .put(key.clone(), marker.clone());
    if plan.rest.head.is_some() {
        commit = commit.delete(head);
    }
    match send(reader, commit).await? {
        Sent::Done(revision) => Ok(revision),
        // An earlier attempt of this very commit may have happened.
        Sent::Refused => match read(plan, reader.store.get(&key).await)? {
            Some(entry) if entry.value == marker => Ok(entry.revision),
            _ => Err(RepairError::Contended { log }),
        },
    }
}

/// Deletes what is cut off; what is gone already doesn't matter.
async fn delete(reader: &Reader, plan: &RepairPlan, marker: Revision) -> Result<(), RepairError> {
    for strays in plan.rest.strays.chunks(PAGE) {
        delete_some(reader, strays.to_vec(), marker).await?;
    }
    for (mut from, to) in ranges(plan.log, plan.stays) {
        loop {
            let entries = read(plan, reader.store.scan(&from, &to, PAGE).await)?;
            let Some(last) = entries.last() else { break };
            from = last.key.successor();
            delete_some(reader, entries.into_iter().map(|entry| entry.key).collect(), marker).await?;
        }
    }
    Ok(())
}

async fn delete_some(reader: &Reader, entries: Vec<Key>, marker: Revision) -> Result<(), RepairError> {
    let log = reader.log;
    let guarded = Commit::new().guard(keys::repairing(log), Guard::At(marker));
    match send(reader, entries.into_iter().fold(guarded, Commit::delete)).await? {
        Sent::Done(_) => Ok(()),
        Sent::Refused => Err(RepairError::Contended { log }),
    }
}

/// Writes the event and the head, and takes the marker away.
async fn end(
    reader: &Reader,
    plan: &RepairPlan,
    marker: Revision,
    by: &Repairer<'_>,
) -> Result<Head, RepairError> {
    let log = plan.log;
    let (frame, head) = last_frame(plan, by)?;
    let (head_key, frame_key, marker_key) =
        (keys::head(log), keys::frame(log, head.first), keys::repairing(log));
    let commit = Commit::new()
        .guard(marker_key.clone(), Guard::At(marker))
        .guard(head_key.clone(), Guard::Absent)
        .guard(frame_key.clone(), Guard::Absent)
        .put(frame_key, frame)
        .put(head_key, head.encode())
        .delete(marker_key);
    match send(reader, commit).await? {
        Sent::Done(_) => Ok(head),
        Sent::Refused => match reader.head().await? {
            Some((there, _)) if there == head => Ok(head),
            _ => Err(RepairError::Contended { log }),
        },
    }
}

/// The frame that begins the new epoch.
fn last_frame(plan: &RepairPlan, by: &Repairer<'_>) -> Result<(Bytes, Head), RepairError> {
    let log = plan.log;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RepairError::Event { log, source };
    let first = plan.stays.next();
    let header = FrameHeader {
        log,
        codec: PAYLOAD_CODEC,
        epoch: plan.epoch,
        first,
        commit: CommitId(by.random.array()?),
        recorded_at: by.now.max(plan.since),
        node: by.node,
        previous: plan.hash,
    };
    let command = CommandId(by.random.array()?);
    let mut events = vec![encoded(log, v1_repaired(plan)).map_err(|error| failed(error.into()))?];
    if let Some(tail) = &plan.rest.unannounced {
        let trimmed = v1::LogTrimmed { until: tail.until, hash: tail.hash };
        events.push(encoded(log, trimmed).map_err(|error| failed(error.into()))?);
    }
    let mut frame = FrameBuilder::new(&header);
    for ((kind, version, payload), stream_version) in events.into_iter().zip(plan.rest.log_version + 1..) {
        frame.push(&Record {
            kind,
            version,
            stream: StreamId::LOG,
            stream_version,
            command,
            actor: Actor::Operator,
            source: None,
            causation: None,
            correlation: None,
            asked: None,
            payload: payload.into(),
        });
    }
    let position = underpass_domain::Position(plan.stays.0 + frame.count() as u64);
    let (bytes, hash) = frame.finish().map_err(|error| failed(error.into()))?;
    let FrameHeader { epoch, commit, recorded_at, .. } = header;
    Ok((bytes, Head { log, epoch, position, first, recorded_at, commit, hash }))
}

fn v1_repaired(plan: &RepairPlan) -> v1::LogRepaired {
    v1::LogRepaired {
        cut_from: plan.stays.next(),
        lost: plan.lost,
        cut_hash: plan.hash,
        reason: plan.reason.clone().unwrap_or_default(),
    }
}

/// An event that both logs know: kind, version and payload.
fn encoded<E>(log: LogName, event: E) -> Result<(u16, u16, Vec<u8>), underpass_domain::EncodeError>
where
    ControlEvent: From<E>,
    ActivityEvent: From<E>,
{
    match log {
        LogName::Control => parts(&ControlEvent::from(event)),
        LogName::Activity => parts(&ActivityEvent::from(event)),
    }
}

fn parts(event: &impl DomainEvent) -> Result<(u16, u16, Vec<u8>), underpass_domain::EncodeError> {
    Ok((event.kind(), event.version(), event.encode()?))
}

/// What became of a commit whose outcome is known.
enum Sent {
    Done(Revision),
    Refused,
}

async fn send(reader: &Reader, commit: Commit) -> Result<Sent, RepairError> {
    let log = reader.log;
    match commit::deliver(&*reader.store, log, commit).await {
        Delivered::Committed(revision) => Ok(Sent::Done(revision)),
        Delivered::Conflict { .. } => Ok(Sent::Refused),
        Delivered::Failed(source) | Delivered::Unknown(source) => Err(RepairError::Store { log, source }),
    }
}
