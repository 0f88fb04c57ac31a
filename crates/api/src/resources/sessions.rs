//! Sessions.

use poem_openapi::param::{Path, Query};
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use underpass_domain::{ClientId, LogName, Session, SessionId};

use super::{Tag, example, id};
use crate::answer::{Found, activity_at};
use crate::auth::{Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure};

pub(crate) struct Sessions;

/// The life of one link.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Session", example, skip_serializing_if_is_none)]
pub(crate) struct SessionBody {
    /// Its id.
    id: String,
    /// The client.
    client: String,
    /// The node it was linked to.
    node: String,
    /// Where the client came from.
    address: String,
    /// Over which transport.
    transport: String,
    /// The release of the client's program, as it said. Missing in sessions that older servers noted.
    release: Option<String>,
    /// Whether the link is there.
    open: bool,
    /// Since when.
    opened_at: String,
    /// Until when.
    closed_at: Option<String>,
    /// Why it ended.
    reason: Option<String>,
}

impl Example for SessionBody {
    fn example() -> Self {
        Self {
            id: example::SESSION.into(),
            client: example::CLIENT.into(),
            node: example::NODE.into(),
            address: "198.51.100.7:50214".into(),
            transport: "tcp".into(),
            release: Some("0.1.0".into()),
            open: true,
            opened_at: example::AT.into(),
            closed_at: None,
            reason: None,
        }
    }
}

impl From<&Session> for SessionBody {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id.to_string(),
            client: session.client.to_string(),
            node: session.node.to_string(),
            address: session.address.to_string(),
            transport: session.transport.clone(),
            release: session.release.clone(),
            open: session.closed.is_none(),
            opened_at: session.opened_at.to_string(),
            closed_at: session.closed.as_ref().map(|(at, _)| at.to_string()),
            reason: session.closed.as_ref().map(|(_, reason)| reason.clone()),
        }
    }
}

/// A page of sessions.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct SessionPage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<SessionBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for SessionPage {
    fn example() -> Self {
        Self { position: "activity:77".into(), items: vec![SessionBody::example()], next: None }
    }
}

#[OpenApi(tag = "Tag::Sessions")]
impl Sessions {
    /// List sessions
    ///
    /// Open ones and those that closed last; the log keeps more. Scope `read`.
    #[oai(path = "/v1/sessions", method = "get", operation_id = "list_sessions")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// Only those of this client.
        client: Query<Option<String>>,
        /// Only open ones (`true`) or closed ones (`false`).
        open: Query<Option<bool>>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `activity:77`.
        at: Query<Option<String>>,
    ) -> Result<Found<SessionPage>, ReadFailure> {
        ask.wait(LogName::Activity, at.0.as_deref()).await?;
        let client: Option<ClientId> = match client.0.as_deref() {
            Some(text) => {
                Some(text.parse().map_err(|_| Problem::parameter("client", "`client` is not an id"))?)
            }
            None => None,
        };
        let page = Page::<SessionId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.activity();
        let wanted = view.state.sessions().into_iter().filter(|session| {
            client.is_none_or(|client| session.client == client)
                && open.0.is_none_or(|open| session.closed.is_none() == open)
        });
        let slice = page.of(wanted, |session| session.id).map(SessionBody::from);
        let at = activity_at(view.position);
        Ok(Found::new(SessionPage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Show a session
    ///
    /// Scope `read`.
    #[oai(path = "/v1/sessions/:session", method = "get", operation_id = "get_session")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the session.
        session: Path<String>,
        /// A position that the answer must include, such as `activity:77`.
        at: Query<Option<String>>,
    ) -> Result<Found<SessionBody>, ReadFailure> {
        ask.wait(LogName::Activity, at.0.as_deref()).await?;
        let wanted: SessionId = id("session.not_found", "session", &session.0)?;
        let view = ask.state.control.activity();
        let found = view
            .state
            .session(wanted)
            .ok_or_else(|| Problem::not_found("session.not_found", "session", &session.0))?;
        Ok(Found::new(SessionBody::from(found), activity_at(view.position)))
    }
}
