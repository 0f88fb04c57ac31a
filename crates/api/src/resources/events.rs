//! What happened: pages of events, and streams of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use poem::web::sse::{Event, SSE};
use poem::{IntoResponse, Response};
use poem_openapi::param::{Header, Query};
use poem_openapi::registry::{MetaMediaType, MetaResponses, Registry};
use poem_openapi::types::{Any, Example, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use underpass_control::Control;
use underpass_domain::{LogName, LogPosition, Position, StreamId, registry};
use underpass_eventlog::{Follower, LogError, Recorded};

use super::{Tag, example};
use crate::answer::Found;
use crate::auth::{Ask, Audit};
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::problem::{Problem, ReadFailure};
use crate::state::STREAMS_MAX;

/// How many events one page may look through for those that are asked for; `next` goes on from there.
pub const SCAN_MAX: usize = 20_000;
/// How many are read at once.
const READ_AT_ONCE: usize = 1_000;
/// A comment is sent so often on a silent stream, so that neither end takes it for dead.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client that lost the stream should try again.
const RECONNECT_MS: u64 = 2_000;

pub(crate) struct Events;

/// A fact.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Event", example, skip_serializing_if_is_none)]
pub(crate) struct EventBody {
    /// Where it stands, `log:number`. Numbers are dense, from 1.
    position: String,
    /// The epoch it was written in.
    epoch: u64,
    /// When it was recorded.
    recorded_at: String,
    /// The node that recorded it.
    node: String,
    /// What happened, such as `mapping.created`.
    event: String,
    /// The version of the payload's schema.
    version: u16,
    /// The thing it happened to, such as `mapping/mapping_01...`.
    stream: String,
    /// Its number among the events of that thing, from 1.
    stream_version: u64,
    /// The command it follows from.
    command: String,
    /// Who gave the command.
    actor: String,
    /// The address the command came from.
    source: Option<String>,
    /// The event that made somebody give the command.
    pub(super) causation: Option<String>,
    /// What ties together all that one request set off.
    correlation: Option<String>,
    /// What happened, as a sentence.
    sentence: Option<String>,
    /// What happened, as data: see `schemas/`.
    payload: Any<Value>,
}

impl Example for EventBody {
    fn example() -> Self {
        Self {
            position: example::POSITION.into(),
            epoch: 1,
            recorded_at: example::AT.into(),
            node: example::NODE.into(),
            event: "mapping.disabled".into(),
            version: 1,
            stream: format!("mapping/{}", example::MAPPING),
            stream_version: 2,
            command: "0190163d-8694-739b-aea5-966c26f8ad91".into(),
            actor: format!("key/{}", example::KEY),
            source: Some("203.0.113.9".into()),
            causation: None,
            correlation: None,
            sentence: Some("mapping web disabled".into()),
            payload: Any(serde_json::json!({ "mapping": example::MAPPING, "name": "web" })),
        }
    }
}

impl From<&Recorded> for EventBody {
    fn from(event: &Recorded) -> Self {
        let mut line = event.to_json();
        let correlation = line["correlation"].as_str().map(str::to_owned);
        Self {
            position: LogPosition { log: event.log, position: event.position }.to_string(),
            epoch: event.epoch,
            recorded_at: event.recorded_at.to_string(),
            node: event.node.to_string(),
            event: event.name.to_owned(),
            version: event.version,
            stream: event.stream.to_string(),
            stream_version: event.stream_version,
            command: event.command.to_string(),
            actor: event.actor.to_string(),
            source: event.source.map(|source| source.to_string()),
            causation: event.causation.map(|cause| cause.to_string()),
            correlation,
            sentence: event.sentence(),
            payload: Any(line["payload"].take()),
        }
    }
}

/// A page of events.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct EventPage {
    /// The end of the log as it was read.
    position: String,
    /// In the order of positions.
    items: Vec<EventBody>,
    /// What to send as `after` for the next page; absent: that was the end of the log. A page can have a next
    /// one and no items: what was looked through held nothing that was asked for.
    next: Option<String>,
}

impl Example for EventPage {
    fn example() -> Self {
        Self { position: "control:1843".into(), items: vec![EventBody::example()], next: None }
    }
}

/// A page, or a stream.
pub(crate) enum EventsAnswer {
    Page(Found<EventPage>),
    Stream(SSE),
}

impl IntoResponse for EventsAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Page(page) => page.into_response(),
            Self::Stream(stream) => stream.into_response(),
        }
    }
}

impl ApiResponse for EventsAnswer {
    fn meta() -> MetaResponses {
        let mut meta = Found::<EventPage>::meta();
        for response in &mut meta.responses {
            response.description = "A page of events, or with `follow` a stream of server-sent events.";
            let event = MetaMediaType { content_type: "text/event-stream", schema: EventBody::schema_ref() };
            response.content.push(event);
            // A stream has no position of its own.
            response.headers.iter_mut().for_each(|header| header.required = false);
        }
        meta
    }

    fn register(registry: &mut Registry) {
        EventPage::register(registry);
        EventBody::register(registry);
    }
}

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
struct Filter {
    kinds: BTreeSet<String>,
    stream: Option<StreamId>,
}

impl Filter {
    fn new(types: Option<&str>, stream: Option<&str>) -> Result<Self, Problem> {
        let kinds: BTreeSet<String> = types
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            // Not `kind.is_empty()`: that would be the trait of the schema library, which answers for `&str`.
            .filter(|kind| !str::is_empty(kind))
            .map(str::to_owned)
            .collect();
        if let Some(unknown) =
            kinds.iter().find(|name| registry().iter().all(|kind| kind.name != name.as_str()))
        {
            let known: BTreeSet<_> = registry().iter().map(|kind| kind.name).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Problem::parameter("types", format!("there are no `{unknown}` events"))
                .hint(format!("there are {known}")));
        }
        let stream = match stream {
            Some(text) => Some(text.parse().map_err(|_| {
                Problem::parameter("stream", "`stream` must be like `mapping/mapping_01...` or `log`")
            })?),
            None => None,
        };
        Ok(Self { kinds, stream })
    }

    fn wants(&self, event: &Recorded) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(event.name))
            && self.stream.is_none_or(|stream| event.stream == stream)
    }
}

/// The problem behind a log that can't be read.
pub(super) fn unreadable(error: &LogError) -> Problem {
    match error {
        LogError::Unavailable { .. } | LogError::Closed { .. } => {
            Problem::later("store.unavailable", error.to_string(), Duration::from_secs(2))
        }
        LogError::Ahead { .. } => Problem::later("position.ahead", error.to_string(), Duration::from_secs(1)),
        LogError::Trimmed { .. } => {
            Problem::new(poem::http::StatusCode::GONE, "log.trimmed", error.to_string())
                .hint("ask for a later position or time")
        }
        _ => {
            tracing::error!(%error, "a log can't be read");
            Problem::new(poem::http::StatusCode::INTERNAL_SERVER_ERROR, "log.unreadable", error.to_string())
                .hint("check it with `underpass log verify`")
        }
    }
}

pub(super) fn log_name(text: Option<&str>) -> Result<LogName, Problem> {
    let Some(text) = text else { return Ok(LogName::Control) };
    text.parse().map_err(|_| Problem::parameter("log", "`log` must be `control` or `activity`"))
}

/// A cursor of this log; a bare number is one, too.
fn cursor(field: &str, log: LogName, text: Option<&str>) -> Result<Position, Problem> {
    let Some(text) = text else { return Ok(Position(0)) };
    if let Ok(position) = text.parse::<Position>() {
        return Ok(position);
    }
    let parsed = text.parse::<LogPosition>().ok().filter(|at| at.log == log);
    parsed
        .map(|at| at.position)
        .ok_or_else(|| Problem::parameter(field, format!("`{field}` must be a position such as `{log}:18`")))
}

async fn read(
    control: &Control,
    log: LogName,
    after: Position,
    limit: usize,
) -> Result<Vec<Recorded>, LogError> {
    match log {
        LogName::Control => control.log().read(after, limit).await,
        LogName::Activity => control.activity_log().read(after, limit).await,
    }
}

pub(super) fn head(control: &Control, log: LogName) -> Position {
    match log {
        LogName::Control => control.state().position,
        LogName::Activity => control.activity().position,
    }
}

async fn page(
    control: &Control,
    log: LogName,
    after: Position,
    filter: &Filter,
    limit: usize,
) -> Result<Found<EventPage>, Problem> {
    let head = head(control, log);
    if after > head {
        return Err(unreadable(&LogError::Ahead { log, head }));
    }
    let (mut at, mut scanned, mut items) = (after, 0, Vec::new());
    while at < head && items.len() < limit && scanned < SCAN_MAX {
        let events = read(control, log, at, READ_AT_ONCE).await.map_err(|error| unreadable(&error))?;
        if events.is_empty() {
            break;
        }
        for event in events.iter().take_while(|event| event.position <= head) {
            at = event.position;
            scanned += 1;
            if filter.wants(event) {
                items.push(EventBody::from(event));
                if items.len() == limit {
                    break;
                }
            }
        }
    }
    let position = LogPosition { log, position: head };
    let next = (at < head).then(|| LogPosition { log, position: at }.to_string());
    Ok(Found::new(EventPage { position: position.to_string(), items, next }, position))
}

/// Where a stream stands.
struct Following {
    follower: Follower,
    filter: Filter,
    /// Whether whoever follows is still let in, and what tells that it may have changed.
    standing: Box<dyn Fn() -> bool + Send + Sync>,
    changes: watch::Receiver<Position>,
    draining: CancellationToken,
    greeted: bool,
    _permit: OwnedSemaphorePermit,
}

/// Every event after the cursor that is asked for, once and in order, until the node drains, the log can't be
/// read or the key is taken back; the client then comes back with `Last-Event-ID`.
fn follow(following: Following) -> impl Stream<Item = Event> + Send {
    stream::unfold(following, |mut at| async move {
        if !at.greeted {
            at.greeted = true;
            return Some((Event::retry(RECONNECT_MS), at));
        }
        loop {
            let next = tokio::select! {
                () = at.draining.cancelled() => return None,
                Ok(()) = at.changes.changed() => None,
                next = at.follower.next() => Some(next),
            };
            if !(at.standing)() {
                return None;
            }
            let Some(next) = next else { continue };
            match next {
                Ok(event) if at.filter.wants(&event) => {
                    let body = EventBody::from(&event);
                    let text = poem_openapi::types::ToJSON::to_json_string(&body);
                    return Some((Event::message(text).id(body.position).event_type(body.event), at));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "an event stream ends");
                    return None;
                }
            }
        }
    })
}

#[OpenApi(tag = "Tag::Events")]
impl Events {
    /// Read or follow a log
    ///
    /// Pages by position, oldest first. With `follow=true` the answer is a stream of server-sent events: what is
    /// there after the cursor, then what comes, without gap or double. Its ids are positions, so a client that
    /// reconnects with `Last-Event-ID` goes on where it was. Scope `audit`.
    #[oai(path = "/v1/events", method = "get", operation_id = "list_events")]
    #[allow(clippy::too_many_arguments)]
    async fn list(
        &self,
        ask: Ask<Audit>,
        /// `control` (absent) or `activity`.
        log: Query<Option<String>>,
        /// Only events behind this position, such as `control:1842`. Absent: from the beginning.
        after: Query<Option<String>>,
        /// Only these kinds, with commas between: `mapping.created,mapping.removed`.
        types: Query<Option<String>>,
        /// Only events of this thing, such as `mapping/mapping_01...`.
        stream: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most. A stream has no pages.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// Answer with a stream that doesn't end.
        follow: Query<Option<bool>>,
        /// Where a stream was lost; counts before `after`.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
    ) -> Result<EventsAnswer, ReadFailure> {
        let log = log_name(log.0.as_deref())?;
        let filter = Filter::new(types.0.as_deref(), stream.0.as_deref())?;
        let control = &ask.state.control;
        if follow.0 != Some(true) {
            let after = cursor("after", log, after.0.as_deref())?;
            let limit = limit.0.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
            return Ok(EventsAnswer::Page(page(control, log, after, &filter, limit).await?));
        }
        let after = match last_event_id.0.as_deref() {
            Some(id) => cursor("Last-Event-ID", log, Some(id))?,
            None => cursor("after", log, after.0.as_deref())?,
        };
        let head = head(control, log);
        if after > head {
            return Err(unreadable(&LogError::Ahead { log, head }).into());
        }
        let permit = Arc::clone(&ask.state.streams).try_acquire_owned().map_err(|_| {
            let detail = format!("{STREAMS_MAX} streams run already");
            Problem::later("server.busy", detail, Duration::from_secs(10))
        })?;
        let follower = match log {
            LogName::Control => control.log().follow(after),
            LogName::Activity => control.activity_log().follow(after),
        };
        let draining = ask.state.draining.clone();
        let (standing, changes) = (Box::new(ask.standing()), control.changes());
        let following =
            Following { follower, filter, standing, changes, draining, greeted: false, _permit: permit };
        Ok(EventsAnswer::Stream(SSE::new(self::follow(following)).keep_alive(KEEP_ALIVE)))
    }
}
