//! What is different between two points of the control log.

use poem_openapi::param::Query;
use poem_openapi::types::{Any, Example};
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;
use underpass_domain::{
    Change, ChangeKind, ControlState, FieldChange, LogName, LogPosition, Position, Timestamp,
};
use underpass_eventlog::{AsOf, View};

use super::events::unreadable;
use super::logs::permit;
use super::{Tag, example};
use crate::answer::{Found, control_at};
use crate::auth::{Ask, Read};
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::problem::{Problem, ReadFailure};
use crate::state::ApiState;

pub(crate) struct Differences;

/// A point of the log.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct Point {
    /// The last position that is in it, `log:number`.
    position: String,
    /// The time that was asked for, or that of the position.
    at: String,
}

impl Example for Point {
    fn example() -> Self {
        Self { position: example::POSITION.into(), at: example::AT.into() }
    }
}

impl From<&View<ControlState>> for Point {
    fn from(view: &View<ControlState>) -> Self {
        Self { position: control_at(view.position).to_string(), at: view.at.to_string() }
    }
}

/// Whether a thing is there at both points.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(crate) enum ChangeKindBody {
    /// Only at the later one.
    Added,
    /// At both.
    Changed,
    /// Only at the earlier one.
    Removed,
}

/// How one field is different.
#[derive(Object, Clone, Debug)]
#[oai(rename = "FieldChange", example, skip_serializing_if_is_none)]
pub(crate) struct FieldChangeBody {
    /// Its name.
    field: String,
    /// What it was; absent: nothing.
    before: Option<Any<Value>>,
    /// What it is; absent: nothing.
    after: Option<Any<Value>>,
}

impl Example for FieldChangeBody {
    fn example() -> Self {
        let value = |text: &str| Some(Any(Value::from(text)));
        Self { field: "status".into(), before: value("active"), after: value("disabled") }
    }
}

impl From<FieldChange> for FieldChangeBody {
    fn from(change: FieldChange) -> Self {
        let there = |value: Value| Some(value).filter(|value| !value.is_null()).map(Any);
        Self { field: change.field.to_owned(), before: there(change.before), after: there(change.after) }
    }
}

/// How one thing is different.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Change", example, skip_serializing_if_is_none)]
pub(crate) struct ChangeBody {
    /// Whether it came, changed or went.
    change: ChangeKindBody,
    /// What it is: `client`, `mapping`, `code`, `invite`, `key` or `node`.
    kind: String,
    /// Its id.
    id: String,
    /// What it is called, where it has a name.
    name: Option<String>,
    /// What is different; of what came or went, all that it has.
    fields: Vec<FieldChangeBody>,
}

impl Example for ChangeBody {
    fn example() -> Self {
        Self {
            change: ChangeKindBody::Changed,
            kind: "mapping".into(),
            id: example::MAPPING.into(),
            name: Some("web".into()),
            fields: vec![FieldChangeBody::example()],
        }
    }
}

impl From<Change> for ChangeBody {
    fn from(change: Change) -> Self {
        let of = change.of.to_string();
        let (kind, id) = of.split_once('/').unwrap_or((&of, &of));
        Self {
            change: match change.kind {
                ChangeKind::Added => ChangeKindBody::Added,
                ChangeKind::Changed => ChangeKindBody::Changed,
                ChangeKind::Removed => ChangeKindBody::Removed,
            },
            kind: kind.to_owned(),
            id: id.to_owned(),
            name: change.name,
            fields: change.fields.into_iter().map(FieldChangeBody::from).collect(),
        }
    }
}

/// What is different between two points.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Difference", example)]
pub(crate) struct DifferenceBody {
    /// The earlier point.
    from: Point,
    /// The later point.
    to: Point,
    /// Clients first, then mappings, codes, invites, keys and nodes, each by id.
    items: Vec<ChangeBody>,
    /// Whether there are more than `limit`.
    cut: bool,
}

impl Example for DifferenceBody {
    fn example() -> Self {
        let from = Point { position: "control:1790".into(), at: example::AT.into() };
        Self { from, to: Point::example(), items: vec![ChangeBody::example()], cut: false }
    }
}

/// A position of the control log or a time.
fn moment(field: &str, text: &str) -> Result<AsOf, Problem> {
    if let Ok(position) = text.parse::<Position>() {
        return Ok(AsOf::Position(position));
    }
    if let Ok(LogPosition { log: LogName::Control, position }) = text.parse() {
        return Ok(AsOf::Position(position));
    }
    text.parse::<Timestamp>().map(AsOf::Time).map_err(|_| {
        let rule = format!("`{field}` must be a position such as `control:18` or a time (RFC 3339)");
        Problem::parameter(field, rule)
    })
}

async fn view(state: &ApiState, at: AsOf) -> Result<View<ControlState>, Problem> {
    state.control.log().as_of(at).await.map_err(|error| unreadable(&error))
}

#[OpenApi(tag = "Tag::Events")]
impl Differences {
    /// Show what is different between two points
    ///
    /// What came, what went and what changed in the control log's read model from one position or time to another,
    /// with each changed field before and after. Between points in the wrong order it is told the other way round.
    /// Scope `read`.
    #[oai(path = "/v1/snapshots/diff", method = "get", operation_id = "get_difference")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// A position, such as `control:1790` or `1790`, or a time, RFC 3339. Absent: before the first event.
        from: Query<Option<String>>,
        /// The same. Absent: now.
        to: Query<Option<String>>,
        /// Things at the most: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
    ) -> Result<Found<DifferenceBody>, ReadFailure> {
        let from = from.0.as_deref().map_or(Ok(AsOf::Position(Position(0))), |text| moment("from", text))?;
        let to = to.0.as_deref().map(|text| moment("to", text)).transpose()?;
        let limit = limit.0.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
        let _permit = permit(&ask.state)?;
        let before = view(&ask.state, from).await?;
        let after = if let Some(at) = to {
            view(&ask.state, at).await?
        } else {
            let control = &ask.state.control;
            View { at: control.now(), ..View::clone(&control.state()) }
        };
        let difference = before.state.difference(&after.state, limit);
        let body = DifferenceBody {
            from: Point::from(&before),
            to: Point::from(&after),
            items: difference.changes.into_iter().map(ChangeBody::from).collect(),
            cut: difference.cut,
        };
        Ok(Found::new(body, control_at(after.position)))
    }
}
