//! Read models as they were.

use poem::http::StatusCode;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};
use underpass_domain::{
    ActivityState, ClientId, CodeId, ControlState, InviteId, KeyId, LogName, LogPosition, MappingId, NodeId,
    Position, SessionId, Timestamp,
};
use underpass_eventlog::{AsOf, View};

use super::clients::ClientBody;
use super::codes::CodeBody;
use super::events::unreadable;
use super::invites::InviteBody;
use super::keys::KeyBody;
use super::logs::permit;
use super::mapping_body::MappingBody;
use super::nodes::NodeBody;
use super::sessions::SessionBody;
use super::{Tag, example};
use crate::answer::Found;
use crate::auth::{Ask, Audit};
use crate::page::{Page, Slice};
use crate::problem::{Problem, ReadFailure};

pub(crate) struct Snapshots;

/// What a snapshot lists.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(crate) enum SnapshotOf {
    /// Clients (log `control`).
    Clients,
    /// Mappings (log `control`).
    Mappings,
    /// Connection codes (log `control`).
    Codes,
    /// Invites (log `control`).
    Invites,
    /// API keys (log `control`).
    Keys,
    /// Nodes (log `control`).
    Nodes,
    /// Sessions (log `activity`).
    Sessions,
}

/// A page of what was there at a position. Only the list that was asked for is present.
#[derive(Object, Clone, Debug, Default)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct Snapshot {
    /// The position that is shown, `log:number`.
    position: String,
    /// The epoch of that position.
    epoch: u64,
    /// The chained hash of the newest frame that is wholly in it, hexadecimal.
    hash: String,
    /// The time by which passing of time is judged: the one asked for, or that of the position.
    at: String,
    /// Clients.
    clients: Option<Vec<ClientBody>>,
    /// Mappings.
    mappings: Option<Vec<MappingBody>>,
    /// Connection codes.
    codes: Option<Vec<CodeBody>>,
    /// Invites.
    invites: Option<Vec<InviteBody>>,
    /// API keys.
    keys: Option<Vec<KeyBody>>,
    /// Nodes.
    nodes: Option<Vec<NodeBody>>,
    /// Sessions.
    sessions: Option<Vec<SessionBody>>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for Snapshot {
    fn example() -> Self {
        let mapping = MappingBody::example();
        Self {
            position: example::POSITION.into(),
            epoch: 1,
            hash: "6f1d".repeat(16),
            at: example::AT.into(),
            mappings: Some(vec![mapping]),
            ..Self::default()
        }
    }
}

impl Snapshot {
    fn of<A>(view: &View<A>, log: LogName) -> Self {
        Self {
            position: LogPosition { log, position: view.position }.to_string(),
            epoch: view.epoch,
            hash: view.hash.to_string(),
            at: view.at.to_string(),
            ..Self::default()
        }
    }
}

/// Takes a slice apart into the list and the cursor of the snapshot.
fn put<T>(slice: Slice<T>, list: &mut Option<Vec<T>>, next: &mut Option<String>) {
    *list = Some(slice.items);
    *next = slice.next;
}

fn control(
    view: &View<ControlState>,
    of: SnapshotOf,
    after: Option<&str>,
    limit: Option<u32>,
    this: NodeId,
) -> Result<Snapshot, Problem> {
    let mut body = Snapshot::of(view, LogName::Control);
    let (state, now, next) = (&view.state, view.at, &mut body.next);
    match of {
        SnapshotOf::Clients => {
            let slice = Page::<ClientId>::new(after, limit)?.of(state.clients(), |it| it.id);
            put(slice.map(ClientBody::from), &mut body.clients, next);
        }
        SnapshotOf::Mappings => {
            let slice = Page::<MappingId>::new(after, limit)?.of(state.mappings(), |it| it.id);
            put(slice.map(|it| MappingBody::new(state, it, now)), &mut body.mappings, next);
        }
        SnapshotOf::Codes => {
            let slice = Page::<CodeId>::new(after, limit)?.of(state.codes(), |it| it.id);
            put(slice.map(|it| CodeBody::new(it, now)), &mut body.codes, next);
        }
        SnapshotOf::Invites => {
            let slice = Page::<InviteId>::new(after, limit)?.of(state.invites(), |it| it.id);
            put(slice.map(|it| InviteBody::new(it, now)), &mut body.invites, next);
        }
        SnapshotOf::Keys => {
            let slice = Page::<KeyId>::new(after, limit)?.of(state.keys(), |it| it.id);
            put(slice.map(|it| KeyBody::new(it, now)), &mut body.keys, next);
        }
        SnapshotOf::Nodes => {
            let slice = Page::<NodeId>::new(after, limit)?.of(state.nodes(), |it| it.id);
            put(slice.map(|it| NodeBody::new(it, this)), &mut body.nodes, next);
        }
        SnapshotOf::Sessions => return Err(elsewhere(of, LogName::Activity)),
    }
    Ok(body)
}

fn activity(
    view: &View<ActivityState>,
    of: SnapshotOf,
    after: Option<&str>,
    limit: Option<u32>,
) -> Result<Snapshot, Problem> {
    if of != SnapshotOf::Sessions {
        return Err(elsewhere(of, LogName::Control));
    }
    let mut body = Snapshot::of(view, LogName::Activity);
    let sessions = view.state.sessions().into_iter();
    let slice = Page::<SessionId>::new(after, limit)?.of(sessions, |it| it.id);
    put(slice.map(SessionBody::from), &mut body.sessions, &mut body.next);
    Ok(body)
}

fn elsewhere(of: SnapshotOf, log: LogName) -> Problem {
    let of = format!("{of:?}").to_lowercase();
    Problem::parameter("of", format!("{of} are in the log `{log}`"))
}

fn moment(log: LogName, position: Option<&str>, time: Option<&str>) -> Result<Option<AsOf>, Problem> {
    match (position, time) {
        (Some(_), Some(_)) => Err(Problem::parameter("time", "either `position` or `time`, not both")),
        (None, None) => Ok(None),
        (Some(text), None) => {
            let wrong = || Problem::parameter("position", format!("`position` must be like `{log}:18`"));
            let bare = text.parse::<Position>().ok();
            let named = || text.parse::<LogPosition>().ok().filter(|at| at.log == log).map(|at| at.position);
            bare.or_else(named).map(|at| Some(AsOf::Position(at))).ok_or_else(wrong)
        }
        (None, Some(text)) => {
            let time = text.parse::<Timestamp>();
            time.map(|time| Some(AsOf::Time(time)))
                .map_err(|error| Problem::parameter("time", error.to_string()))
        }
    }
}

#[OpenApi(tag = "Tag::Events")]
impl Snapshots {
    /// Show what was there
    ///
    /// Replays a log to a position or a time and lists what was there then, a page at a time; without either,
    /// what is there now. Scope `audit`.
    #[oai(path = "/v1/snapshots/:log", method = "get", operation_id = "get_snapshot")]
    #[allow(clippy::too_many_arguments)]
    async fn get(
        &self,
        ask: Ask<Audit>,
        /// `control` or `activity`.
        log: Path<String>,
        /// A position, such as `control:1842`.
        position: Query<Option<String>>,
        /// A time, RFC 3339.
        time: Query<Option<String>>,
        /// What to list. Absent: mappings of `control`, sessions of `activity`.
        of: Query<Option<SnapshotOf>>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
    ) -> Result<Found<Snapshot>, ReadFailure> {
        let log: LogName = log.0.parse().map_err(|_| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "log.not_found",
                "there are two logs, `control` and `activity`",
            )
        })?;
        let moment = moment(log, position.0.as_deref(), time.0.as_deref())?;
        let _permit = moment.is_some().then(|| permit(&ask.state)).transpose()?;
        let (after, limit) = (after.0.as_deref(), limit.0);
        let service = &ask.state.control;
        let body = match log {
            LogName::Control => {
                let view = match moment {
                    Some(at) => service.log().as_of(at).await.map_err(|error| unreadable(&error))?,
                    None => View { at: service.now(), ..View::clone(&service.state()) },
                };
                control(&view, of.0.unwrap_or(SnapshotOf::Mappings), after, limit, service.node())?
            }
            LogName::Activity => {
                let view = match moment {
                    Some(at) => service.activity_log().as_of(at).await.map_err(|error| unreadable(&error))?,
                    None => View { at: service.now(), ..View::clone(&service.activity()) },
                };
                activity(&view, of.0.unwrap_or(SnapshotOf::Sessions), after, limit)?
            }
        };
        let at = body.position.parse().map_err(|_| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "server.failed", "a position does not parse")
        })?;
        Ok(Found::new(body, at))
    }
}
