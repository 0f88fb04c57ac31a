//! Deciding many commands at once: each against the state at the head plus what the batch has already
//! decided.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::oneshot;
use underpass_domain::{
    Aggregate, Digest32, DomainEvent, EventMeta, Meta, NodeId, PAYLOAD_CODEC, Position, Subject, Timestamp,
};

use crate::answered::{Answer, Answered, CommandKey};
use crate::codes::{self, Tagged};
use crate::error::{ExecuteError, SharedError, shared_error};
use crate::fold::{Fold, StreamAt, Streams, is_about_log};
use crate::frame::{CommitId, FRAME_EVENTS_MAX, FrameBuilder, FrameError, FrameHeader};
use crate::head::Head;
use crate::record::{Asked, Content, Record};

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<E> {
    /// First and last position of its events; `None` if it was already so.
    pub positions: Option<(Position, Position)>,
    /// The end of the log as the command was decided (and carried out).
    pub head: Position,
    /// What happened. Empty: it was already so.
    pub events: Vec<E>,
    /// What the command was about.
    pub subject: Subject,
    /// Whether this is the answer to an earlier command with the same id.
    pub repeated: bool,
}

pub(crate) type Answered1<A> =
    Result<Committed<<A as Aggregate>::Event>, ExecuteError<<A as Aggregate>::Refusal>>;

/// A command in the queue.
#[derive(Debug)]
pub(crate) struct Request<A: Aggregate> {
    pub(crate) meta: Meta,
    pub(crate) command: A::Command,
    pub(crate) content: Content,
    pub(crate) answer: oneshot::Sender<Answered1<A>>,
}

/// What the batch says to one command, should it be committed.
#[derive(Debug)]
pub(crate) enum Verdict<A: Aggregate> {
    /// Answer this.
    Answer(Answered1<A>),
    /// It was carried out before: give that answer.
    Repeat(Answer),
    /// Another command of this batch (by index) with the same id decides for both.
    SameAs(usize),
}

/// Commands decided together.
#[derive(Debug)]
pub(crate) struct Batch<A: Aggregate> {
    /// One for each of the first commands that were given.
    pub(crate) verdicts: Vec<Verdict<A>>,
    /// What is to be written, if anything happens.
    pub(crate) writing: Option<Writing<A>>,
}

/// The frame of a batch, and what is so once it is committed.
#[derive(Debug)]
pub(crate) struct Writing<A: Aggregate> {
    pub(crate) frame: Bytes,
    pub(crate) head: Head,
    pub(crate) state: A,
    pub(crate) streams: Streams,
}

/// Where and how a batch is decided.
#[derive(Debug)]
pub(crate) struct Table<'a, A: Aggregate> {
    pub(crate) fold: &'a Fold<A>,
    pub(crate) answered: &'a Answered,
    pub(crate) now: Timestamp,
    pub(crate) node: NodeId,
    pub(crate) commit: CommitId,
    /// Commands in a batch.
    pub(crate) commands_max: usize,
    /// Bytes after which a batch takes no more.
    pub(crate) bytes_target: usize,
    /// Bytes that a commit holds.
    pub(crate) bytes_max: usize,
}

impl<A: Aggregate> Table<'_, A> {
    /// Decides as many of the first `requests` as fit one frame, at least one.
    pub(crate) fn decide(&self, requests: &[Request<A>]) -> Result<Batch<A>, FrameError> {
        let chain = &self.fold.chain;
        let recorded_at = self.now.max(chain.recorded_at);
        let first = chain.position.next();
        let mut frame = FrameBuilder::new(&FrameHeader {
            log: A::LOG,
            codec: PAYLOAD_CODEC,
            epoch: chain.epoch.max(1),
            first,
            commit: self.commit,
            recorded_at,
            node: self.node,
            previous: chain.hash,
        });
        let mut state = self.fold.state.clone();
        let mut streams = Streams::new();
        let mut seen: HashMap<CommandKey, usize> = HashMap::new();
        let mut verdicts = Vec::with_capacity(requests.len().min(self.commands_max));

        for (index, request) in requests.iter().take(self.commands_max.max(1)).enumerate() {
            let key = CommandKey::of(&request.meta);
            if let Some(answer) = self.answered.get(&key, self.now, chain.position) {
                let same = answer.content == request.content;
                verdicts.push(if same { Verdict::Repeat(*answer) } else { reused() });
                continue;
            }
            if let Some(&before) = seen.get(&key) {
                let same = requests[before].content == request.content;
                verdicts.push(if same { Verdict::SameAs(before) } else { reused() });
                continue;
            }
            let head = Position(chain.position.0 + frame.count() as u64);
            let decision = match state.decide(&request.meta, &request.command) {
                Ok(decision) => decision,
                Err(refusal) => {
                    verdicts.push(Verdict::Answer(Err(ExecuteError::Refused(refusal))));
                    continue;
                }
            };
            let subject = decision.subject;
            if decision.events.is_empty() {
                let answer =
                    Committed { positions: None, head, events: Vec::new(), subject, repeated: false };
                verdicts.push(Verdict::Answer(Ok(answer)));
                continue;
            }
            let records = match self.records(request, subject, &decision.events, &streams) {
                Ok(records) => records,
                Err(source) => {
                    verdicts.push(Verdict::Answer(Err(ExecuteError::Invalid { source })));
                    continue;
                }
            };
            let bytes: usize = records.iter().map(Record::encoded_len).sum();
            let fits =
                frame.len() + bytes <= self.bytes_max && frame.count() + records.len() <= FRAME_EVENTS_MAX;
            if !frame.is_empty() && (!fits || frame.len() + bytes > self.bytes_target) {
                break;
            }
            if !fits {
                let source = Oversized { events: records.len(), bytes, bytes_max: self.bytes_max };
                verdicts.push(Verdict::Answer(Err(ExecuteError::Invalid { source: shared_error(source) })));
                continue;
            }
            let mut position = head;
            for (event, record) in decision.events.iter().zip(&records) {
                position = position.next();
                let Meta { actor, source, .. } = request.meta;
                let stream_version = record.stream_version;
                state.evolve(event, &EventMeta { position, recorded_at, actor, source, stream_version });
                streams.insert(
                    codes::from_stream(record.stream),
                    StreamAt { version: record.stream_version, last: position },
                );
                frame.push(record);
            }
            seen.insert(key, index);
            verdicts.push(Verdict::Answer(Ok(Committed {
                positions: Some((head.next(), position)),
                head: position,
                events: decision.events,
                subject,
                repeated: false,
            })));
            if records.iter().any(|record| is_about_log(A::LOG, record)) {
                // It may change which streams are known: what follows is decided after that.
                break;
            }
        }

        if frame.is_empty() {
            return Ok(Batch { verdicts, writing: None });
        }
        let position = Position(chain.position.0 + frame.count() as u64);
        let epoch = chain.epoch.max(1);
        let (frame, hash) = frame.finish()?;
        let head = Head { log: A::LOG, epoch, position, first, recorded_at, commit: self.commit, hash };
        Ok(Batch { verdicts, writing: Some(Writing { frame, head, state, streams }) })
    }

    fn records(
        &self,
        request: &Request<A>,
        subject: Subject,
        events: &[A::Event],
        streams: &Streams,
    ) -> Result<Vec<Record>, SharedError> {
        let mut versions: HashMap<Tagged, u64> = HashMap::new();
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let stream = event.stream();
            let key = codes::from_stream(stream);
            let version = versions.entry(key).or_insert_with(|| {
                let decided = streams.get(&key).or_else(|| self.fold.chain.streams.get(&key));
                decided.map_or(0, |at| at.version)
            });
            *version += 1;
            let payload = event.encode().map_err(shared_error)?;
            let asked = records.is_empty().then_some(Asked { content: request.content, subject });
            records.push(Record {
                kind: event.kind(),
                version: event.version(),
                stream,
                stream_version: *version,
                command: request.meta.id,
                actor: request.meta.actor,
                source: request.meta.source,
                causation: request.meta.causation,
                correlation: request.meta.correlation,
                asked,
                payload: Bytes::from(payload),
            });
        }
        Ok(records)
    }
}

fn reused<A: Aggregate>() -> Verdict<A> {
    Verdict::Answer(Err(ExecuteError::Conflict))
}

/// The first frame of a new log.
pub(crate) fn genesis<A: Aggregate>(
    event: &A::Event,
    node: NodeId,
    commit: CommitId,
    now: Timestamp,
) -> Result<(Bytes, Head), SharedError> {
    let payload = event.encode().map_err(shared_error)?;
    let header = FrameHeader {
        log: A::LOG,
        codec: PAYLOAD_CODEC,
        epoch: 1,
        first: Position(1),
        commit,
        recorded_at: now,
        node,
        previous: Digest32([0; 32]),
    };
    let mut frame = FrameBuilder::new(&header);
    frame.push(&Record {
        kind: event.kind(),
        version: event.version(),
        stream: event.stream(),
        stream_version: 1,
        command: underpass_domain::CommandId(commit.0),
        actor: underpass_domain::Actor::System,
        source: None,
        causation: None,
        correlation: None,
        asked: None,
        payload: Bytes::from(payload),
    });
    let (bytes, hash) = frame.finish().map_err(shared_error)?;
    let position = Position(1);
    let head = Head { log: A::LOG, epoch: 1, position, first: position, recorded_at: now, commit, hash };
    Ok((bytes, head))
}

/// One command makes more events than one commit holds.
#[derive(Debug, thiserror::Error)]
#[error(
    "{events} events of {bytes} bytes together don't fit a commit of {bytes_max} bytes and {FRAME_EVENTS_MAX} events"
)]
struct Oversized {
    events: usize,
    bytes: usize,
    bytes_max: usize,
}
