//! Clients.

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};
use underpass_domain::{Client, ClientId, ClientStatus, ControlCommand, LogName, LogPosition};

use super::sessions::SessionBody;
use super::{Done, Tag, done, example, id};
use crate::answer::{Found, activity_at, control_at, only_at};
use crate::auth::{Admin, Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure, WriteFailure};
use crate::state::ApiState;

/// Sessions of one client that are shown: the domain remembers 20 closed ones, and one can be open.
const SESSIONS_SHOWN_MAX: usize = 50;

pub(crate) struct Clients;

/// Whether a client is let in.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "ClientStatus")]
pub(crate) enum ClientState {
    /// It is.
    Active,
    /// It is not; its links were closed and its mappings rest.
    Blocked,
}

/// A link of a client.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Link", example)]
pub(crate) struct LinkBody {
    /// Its session.
    session: String,
    /// Where the client comes from.
    address: String,
    /// Over which transport.
    transport: String,
    /// Since when.
    since: String,
    /// Data channels that wait for tunnels.
    parked: u64,
}

impl Example for LinkBody {
    fn example() -> Self {
        Self {
            session: example::SESSION.into(),
            address: "198.51.100.7:50214".into(),
            transport: "tcp".into(),
            since: example::AT.into(),
            parked: 2,
        }
    }
}

/// An enrolled machine.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Client", example, skip_serializing_if_is_none)]
pub(crate) struct ClientBody {
    /// Its id.
    id: String,
    /// The user it belongs to, if any.
    owner: Option<String>,
    /// What it calls itself. Not unique.
    name: String,
    /// The public key it is known by, base64url.
    public_key: String,
    /// What it says about its machine.
    platform: String,
    /// Whether it is let in.
    status: ClientState,
    /// Why it is blocked.
    blocked_reason: Option<String>,
    /// Since when it is known.
    enrolled_at: String,
    /// The invite it came with.
    invite: Option<String>,
    /// Its link, if it has one to this node.
    link: Option<LinkBody>,
    /// Changes with each change.
    version: u64,
}

impl Example for ClientBody {
    fn example() -> Self {
        Self {
            id: example::CLIENT.into(),
            owner: None,
            name: "laptop".into(),
            public_key: "Dm1u0vT4mWcPz8c2sXq7rJkZb3yFhNwL5gE9oAaRUyQ".into(),
            platform: "linux x86_64 0.1.0".into(),
            status: ClientState::Active,
            blocked_reason: None,
            enrolled_at: example::AT.into(),
            invite: Some(example::INVITE.into()),
            link: Some(LinkBody::example()),
            version: 1,
        }
    }
}

impl From<&Client> for ClientBody {
    fn from(client: &Client) -> Self {
        let (status, blocked_reason) = match &client.status {
            ClientStatus::Active => (ClientState::Active, None),
            ClientStatus::Blocked { reason } => (ClientState::Blocked, Some(reason.clone())),
        };
        Self {
            id: client.id.to_string(),
            owner: client.owner.map(|id| id.to_string()),
            name: client.name.clone(),
            public_key: client.public_key.to_string(),
            platform: client.platform.clone(),
            status,
            blocked_reason,
            enrolled_at: client.enrolled_at.to_string(),
            invite: client.invite.map(|id| id.to_string()),
            link: None,
            version: client.version,
        }
    }
}

/// A page of clients.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct ClientPage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<ClientBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for ClientPage {
    fn example() -> Self {
        Self { position: example::POSITION.into(), items: vec![ClientBody::example()], next: None }
    }
}

/// Sessions of a client.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct ClientSessions {
    /// The position that is shown.
    position: String,
    /// The open one and the ones that closed last, newest first.
    items: Vec<SessionBody>,
}

impl Example for ClientSessions {
    fn example() -> Self {
        Self { position: "activity:77".into(), items: vec![SessionBody::example()] }
    }
}

/// A new name.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example)]
pub(crate) struct Rename {
    /// 1 to 63 letters, digits, `-` and `_`.
    name: String,
}

impl Example for Rename {
    fn example() -> Self {
        Self { name: "workshop-pi".into() }
    }
}

/// Why something is done to a client.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example)]
pub(crate) struct Reason {
    /// A sentence, for the log and for whoever asks.
    reason: String,
}

impl Example for Reason {
    fn example() -> Self {
        Self { reason: "stolen laptop".into() }
    }
}

/// A link was ended.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct Disconnected {
    /// The client that was disconnected.
    client: String,
}

impl Example for Disconnected {
    fn example() -> Self {
        Self { client: example::CLIENT.into() }
    }
}

fn client_id(text: &str) -> Result<ClientId, Problem> {
    id("client.unknown", "client", text)
}

/// A client with its link, and the position it is shown at.
fn find(state: &ApiState, wanted: &str) -> Result<(ClientBody, LogPosition), Problem> {
    let wanted_id = client_id(wanted)?;
    let view = state.control.state();
    let client =
        view.state.client(wanted_id).ok_or_else(|| Problem::not_found("client.unknown", "client", wanted))?;
    let mut body = ClientBody::from(client);
    body.link = links(state).into_iter().find(|(id, _)| *id == wanted_id).map(|(_, link)| link);
    Ok((body, control_at(view.position)))
}

fn show(state: &ApiState, wanted: &str) -> Result<Found<ClientBody>, Problem> {
    let (body, at) = find(state, wanted)?;
    let version = body.version;
    Ok(Found::versioned(body, at, version))
}

fn links(state: &ApiState) -> Vec<(ClientId, LinkBody)> {
    let links = state.gateway.iter().flat_map(|gateway| gateway.links());
    links
        .map(|link| {
            let body = LinkBody {
                session: link.session.to_string(),
                address: link.address.to_string(),
                transport: link.transport,
                since: link.since.to_string(),
                parked: link.parked as u64,
            };
            (link.client, body)
        })
        .collect()
}

#[OpenApi(tag = "Tag::Clients")]
impl Clients {
    /// List clients
    ///
    /// In the order of ids, which is the order in which they enrolled. Scope `read`.
    #[oai(path = "/v1/clients", method = "get", operation_id = "list_clients")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// Only clients whose name contains this text.
        q: Query<Option<String>>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<ClientPage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let page = Page::<ClientId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let wanted = |client: &&Client| q.0.as_ref().is_none_or(|text| client.name.contains(text.as_str()));
        let slice = page.of(view.state.clients().filter(wanted), |client| client.id).map(ClientBody::from);
        let links = links(&ask.state);
        let items = slice.items.into_iter().map(|mut body| {
            body.link = links.iter().find(|(id, _)| id.to_string() == body.id).map(|(_, link)| link.clone());
            body
        });
        let at = control_at(view.position);
        let body = ClientPage { position: at.to_string(), items: items.collect(), next: slice.next };
        Ok(Found::new(body, at))
    }

    /// Show a client
    ///
    /// Scope `read`.
    #[oai(path = "/v1/clients/:client", method = "get", operation_id = "get_client")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the client.
        client: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<ClientBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        Ok(show(&ask.state, &client.0)?)
    }

    /// Rename a client
    ///
    /// Scope `admin`.
    #[oai(path = "/v1/clients/:client", method = "patch", operation_id = "rename_client")]
    async fn rename(
        &self,
        ask: Ask<Admin>,
        /// The id of the client.
        client: Path<String>,
        body: Json<Rename>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the client still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<ClientBody>, WriteFailure> {
        let id = client_id(&client.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = ControlCommand::RenameClient { client: id, name: body.0.name };
        ask.state.control.execute(&caller, only_at(if_match.0.as_deref(), id, command)).await?;
        Ok(show(&ask.state, &client.0)?)
    }

    /// Block a client
    ///
    /// Its links are closed, it is not let in, and its mappings rest until it is unblocked. Scope `admin`.
    #[oai(path = "/v1/clients/:client/block", method = "post", operation_id = "block_client")]
    async fn block(
        &self,
        ask: Ask<Admin>,
        /// The id of the client.
        client: Path<String>,
        body: Json<Reason>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the client still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<ClientBody>, WriteFailure> {
        let id = client_id(&client.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = ControlCommand::BlockClient { client: id, reason: body.0.reason };
        ask.state.control.execute(&caller, only_at(if_match.0.as_deref(), id, command)).await?;
        Ok(show(&ask.state, &client.0)?)
    }

    /// Let a blocked client in again
    ///
    /// Scope `admin`.
    #[oai(path = "/v1/clients/:client/unblock", method = "post", operation_id = "unblock_client")]
    async fn unblock(
        &self,
        ask: Ask<Admin>,
        /// The id of the client.
        client: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the client still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<ClientBody>, WriteFailure> {
        let id = client_id(&client.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = ControlCommand::UnblockClient { client: id };
        ask.state.control.execute(&caller, only_at(if_match.0.as_deref(), id, command)).await?;
        Ok(show(&ask.state, &client.0)?)
    }

    /// Remove a client
    ///
    /// Its mappings and open codes go with it, in the same step. Its key is unknown from then on. Scope `admin`.
    #[oai(path = "/v1/clients/:client", method = "delete", operation_id = "remove_client")]
    async fn remove(
        &self,
        ask: Ask<Admin>,
        /// The id of the client.
        client: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the client still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<Done>, WriteFailure> {
        let id = client_id(&client.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = only_at(if_match.0.as_deref(), id, ControlCommand::RemoveClient { client: id });
        let committed = ask.state.control.execute(&caller, command).await?;
        let at = control_at(committed.head);
        Ok(Found::new(done(&committed, at), at))
    }

    /// Show the sessions of a client
    ///
    /// The open one and the ones that closed last, newest first. The log keeps more. Scope `read`.
    #[oai(path = "/v1/clients/:client/sessions", method = "get", operation_id = "list_client_sessions")]
    async fn sessions(
        &self,
        ask: Ask<Read>,
        /// The id of the client.
        client: Path<String>,
        /// A position that the answer must include, such as `activity:77`.
        at: Query<Option<String>>,
    ) -> Result<Found<ClientSessions>, ReadFailure> {
        ask.wait(LogName::Activity, at.0.as_deref()).await?;
        find(&ask.state, &client.0)?;
        let id = client_id(&client.0)?;
        let view = ask.state.control.activity();
        let mut items: Vec<_> = view.state.closed_sessions_of(id).map(SessionBody::from).collect();
        items.extend(view.state.open_session_of(id).map(SessionBody::from));
        items.reverse();
        items.truncate(SESSIONS_SHOWN_MAX);
        let at = activity_at(view.position);
        Ok(Found::new(ClientSessions { position: at.to_string(), items }, at))
    }

    /// End the link of a client
    ///
    /// It may connect again at once; block it to keep it out. Only a link to this node can be ended. Scope
    /// `admin`.
    #[oai(path = "/v1/clients/:client/disconnect", method = "post", operation_id = "disconnect_client")]
    async fn disconnect(
        &self,
        ask: Ask<Admin>,
        /// The id of the client.
        client: Path<String>,
        body: Json<Reason>,
    ) -> Result<Found<Disconnected>, WriteFailure> {
        let (known, at) = find(&ask.state, &client.0)?;
        let id = client_id(&client.0)?;
        let ended = match &ask.state.gateway {
            Some(gateway) => gateway.disconnect(id, &body.0.reason),
            None => false,
        };
        if !ended {
            let detail = format!("{} has no link to this node", known.name);
            return Err(Problem::new(poem::http::StatusCode::CONFLICT, "client.offline", detail).into());
        }
        Ok(Found::new(Disconnected { client: known.id }, at))
    }
}
