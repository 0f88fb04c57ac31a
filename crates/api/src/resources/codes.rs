//! Connection codes.

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};
use underpass_domain::{ClientId, Code, CodeId, CodeStatus, ControlCommand, LogName, Timestamp};

use super::{Done, Tag, done, example, id};
use crate::answer::{Found, control_at, only_at};
use crate::auth::{Admin, Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure, WriteFailure};

pub(crate) struct Codes;

/// What became of a code.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "CodeStatus")]
pub(crate) enum StatusBody {
    /// It can be redeemed.
    Open,
    /// It was redeemed.
    Redeemed,
    /// It was taken back.
    Revoked,
    /// It was not redeemed in time.
    Expired,
}

/// A connection code: one client offers one target to whoever redeems it.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Code", example, skip_serializing_if_is_none)]
pub(crate) struct CodeBody {
    /// Its id.
    id: String,
    /// The user it belongs to, if any.
    owner: Option<String>,
    /// The client that offers the target.
    client: String,
    /// The half of the code that the server knows. The other half is between the clients.
    lookup: String,
    /// What the client dials, `host:port`.
    target: String,
    /// Until when it can be redeemed.
    activate_until: String,
    /// Seconds of access, from the redemption on.
    access_s: u64,
    /// What became of it.
    status: StatusBody,
    /// Who redeemed it.
    redeemed_by: Option<String>,
    /// The mapping it became.
    mapping: Option<String>,
    /// Since when it exists.
    issued_at: String,
    /// Changes with each change.
    version: u64,
}

impl Example for CodeBody {
    fn example() -> Self {
        Self {
            id: example::CODE.into(),
            owner: None,
            client: example::CLIENT.into(),
            lookup: "h4x-w77-pam".into(),
            target: "127.0.0.1:22".into(),
            activate_until: example::AT.into(),
            access_s: 604_800,
            status: StatusBody::Redeemed,
            redeemed_by: Some(example::LISTENER.into()),
            mapping: Some(example::MAPPING.into()),
            issued_at: example::AT.into(),
            version: 2,
        }
    }
}

impl CodeBody {
    pub(super) fn new(code: &Code, now: Timestamp) -> Self {
        let (status, redeemed) = match code.status_at(now) {
            CodeStatus::Open => (StatusBody::Open, None),
            CodeStatus::Redeemed { by, mapping } => (StatusBody::Redeemed, Some((by, mapping))),
            CodeStatus::Revoked => (StatusBody::Revoked, None),
            CodeStatus::Expired => (StatusBody::Expired, None),
        };
        Self {
            id: code.id.to_string(),
            owner: code.owner.map(|id| id.to_string()),
            client: code.client.to_string(),
            lookup: code.lookup.clone(),
            target: code.target.clone(),
            activate_until: code.activate_until.to_string(),
            access_s: code.access_s,
            status,
            redeemed_by: redeemed.map(|(by, _)| by.to_string()),
            mapping: redeemed.map(|(_, mapping)| mapping.to_string()),
            issued_at: code.issued_at.to_string(),
            version: code.version,
        }
    }
}

/// A page of codes.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct CodePage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<CodeBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for CodePage {
    fn example() -> Self {
        Self { position: example::POSITION.into(), items: vec![CodeBody::example()], next: None }
    }
}

#[OpenApi(tag = "Tag::Codes")]
impl Codes {
    /// List connection codes
    ///
    /// Open ones and, as far as they are remembered, used ones. Scope `read`.
    #[oai(path = "/v1/codes", method = "get", operation_id = "list_codes")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// Only those that this client offers.
        client: Query<Option<String>>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<CodePage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let client: Option<ClientId> = match client.0.as_deref() {
            Some(text) => {
                Some(text.parse().map_err(|_| Problem::parameter("client", "`client` is not an id"))?)
            }
            None => None,
        };
        let page = Page::<CodeId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let now = ask.state.control.now();
        let wanted = view.state.codes().filter(|code| client.is_none_or(|client| code.client == client));
        let slice = page.of(wanted, |code| code.id).map(|code| CodeBody::new(code, now));
        let at = control_at(view.position);
        Ok(Found::new(CodePage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Show a connection code
    ///
    /// Scope `read`.
    #[oai(path = "/v1/codes/:code", method = "get", operation_id = "get_code")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the code.
        code: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<CodeBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let wanted: CodeId = id("code.unknown", "code", &code.0)?;
        let view = ask.state.control.state();
        let found =
            view.state.code(wanted).ok_or_else(|| Problem::not_found("code.unknown", "code", &code.0))?;
        let body = CodeBody::new(found, ask.state.control.now());
        Ok(Found::versioned(body, control_at(view.position), found.version))
    }

    /// Revoke a connection code
    ///
    /// It can't be redeemed any more. A mapping it has become stays: remove that. Scope `admin`.
    #[oai(path = "/v1/codes/:code", method = "delete", operation_id = "revoke_code")]
    async fn revoke(
        &self,
        ask: Ask<Admin>,
        /// The id of the code.
        code: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the code still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<Done>, WriteFailure> {
        let wanted: CodeId = id("code.unknown", "code", &code.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = only_at(if_match.0.as_deref(), wanted, ControlCommand::RevokeCode { code: wanted });
        let committed = ask.state.control.execute(&caller, command).await?;
        let at = control_at(committed.head);
        Ok(Found::new(done(&committed, at), at))
    }
}
