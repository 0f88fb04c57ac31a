//! Invites.

use std::time::Duration;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};
use underpass_domain::{ControlCommand, Invite, InviteId, InviteStatus, LogName, Timestamp};

use super::{Done, Tag, done, example, id};
use crate::answer::{Created, Found, control_at, only_at};
use crate::auth::{Admin, Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure, WriteFailure};

/// How long an invite can be used when the request says nothing.
const TTL_DEFAULT_S: u64 = 600;

pub(crate) struct Invites;

/// What became of an invite.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "InviteStatus")]
pub(crate) enum StatusBody {
    /// It can be used.
    Open,
    /// It let a client in.
    Used,
    /// It was taken back.
    Revoked,
    /// It was not used in time.
    Expired,
}

/// An invite: lets one new client enrol.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Invite", example, skip_serializing_if_is_none)]
pub(crate) struct InviteBody {
    /// Its id.
    id: String,
    /// What it is for.
    label: Option<String>,
    /// Until when it can be used.
    expires_at: String,
    /// What became of it.
    status: StatusBody,
    /// The client it let in.
    used_by: Option<String>,
    /// Since when it exists.
    issued_at: String,
    /// Who issued it.
    issued_by: String,
    /// Changes with each change.
    version: u64,
}

impl Example for InviteBody {
    fn example() -> Self {
        Self {
            id: example::INVITE.into(),
            label: Some("the new laptop".into()),
            expires_at: example::LATER.into(),
            status: StatusBody::Open,
            used_by: None,
            issued_at: example::AT.into(),
            issued_by: format!("key/{}", example::KEY),
            version: 1,
        }
    }
}

impl InviteBody {
    pub(super) fn new(invite: &Invite, now: Timestamp) -> Self {
        let (status, used_by) = match invite.status_at(now) {
            InviteStatus::Open => (StatusBody::Open, None),
            InviteStatus::Used { by } => (StatusBody::Used, Some(by.to_string())),
            InviteStatus::Revoked => (StatusBody::Revoked, None),
            InviteStatus::Expired => (StatusBody::Expired, None),
        };
        Self {
            id: invite.id.to_string(),
            label: invite.label.clone(),
            expires_at: invite.expires_at.to_string(),
            status,
            used_by,
            issued_at: invite.issued_at.to_string(),
            issued_by: invite.issued_by.to_string(),
            version: invite.version,
        }
    }
}

/// A page of invites.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct InvitePage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<InviteBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for InvitePage {
    fn example() -> Self {
        Self { position: example::POSITION.into(), items: vec![InviteBody::example()], next: None }
    }
}

/// An invite to issue.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example, skip_serializing_if_is_none)]
pub(crate) struct IssueInvite {
    /// What it is for.
    label: Option<String>,
    /// Seconds for which it can be used. Absent: 600.
    ttl_s: Option<u64>,
}

impl Example for IssueInvite {
    fn example() -> Self {
        Self { label: Some("the new laptop".into()), ttl_s: Some(600) }
    }
}

/// An invite that was just issued. The only answer that holds its secret.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct IssuedInvite {
    /// Its id.
    id: String,
    /// The line for `underpass join`. Shown this once.
    invite: String,
    /// Until when it can be used.
    expires_at: String,
    /// The position at which it can be read (`?at=`).
    position: String,
}

impl Example for IssuedInvite {
    fn example() -> Self {
        Self {
            id: example::INVITE.into(),
            invite: "203.0.113.5:7400#(shown once)".into(),
            expires_at: example::LATER.into(),
            position: example::POSITION.into(),
        }
    }
}

#[OpenApi(tag = "Tag::Invites")]
impl Invites {
    /// List invites
    ///
    /// Open ones and, as far as they are remembered, used ones. Scope `read`.
    #[oai(path = "/v1/invites", method = "get", operation_id = "list_invites")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<InvitePage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let page = Page::<InviteId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let now = ask.state.control.now();
        let slice =
            page.of(view.state.invites(), |invite| invite.id).map(|invite| InviteBody::new(invite, now));
        let at = control_at(view.position);
        Ok(Found::new(InvitePage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Issue an invite
    ///
    /// The answer shows the whole line for `underpass join`, and is the only one that does: a repeat under the
    /// same `Idempotency-Key` answers 409 and names the invite. Scope `admin`.
    #[oai(path = "/v1/invites", method = "post", operation_id = "issue_invite")]
    async fn issue(
        &self,
        ask: Ask<Admin>,
        body: Json<IssueInvite>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
    ) -> Result<Created<IssuedInvite>, WriteFailure> {
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let ttl = Duration::from_secs(body.0.ttl_s.unwrap_or(TTL_DEFAULT_S));
        let issued = ask.state.control.issue_invite(&caller, ttl, body.0.label).await;
        let issued = issued.map_err(|error| Problem::from(error).asked_as("expires_at", "ttl_s"))?;
        let at = control_at(issued.position);
        let location = format!("/v1/invites/{}", issued.id);
        let body = IssuedInvite {
            id: issued.id.to_string(),
            invite: (ask.state.invite_line)(&issued.secret),
            expires_at: issued.expires_at.to_string(),
            position: at.to_string(),
        };
        Ok(Created::new(body, at, location, None))
    }

    /// Show an invite
    ///
    /// Without its secret. Scope `read`.
    #[oai(path = "/v1/invites/:invite", method = "get", operation_id = "get_invite")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the invite.
        invite: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<InviteBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let wanted: InviteId = id("invite.unknown", "invite", &invite.0)?;
        let view = ask.state.control.state();
        let found = view
            .state
            .invite(wanted)
            .ok_or_else(|| Problem::not_found("invite.unknown", "invite", &invite.0))?;
        let body = InviteBody::new(found, ask.state.control.now());
        Ok(Found::versioned(body, control_at(view.position), found.version))
    }

    /// Revoke an invite
    ///
    /// It lets nobody in any more. A client it has let in stays: block or remove that. Scope `admin`.
    #[oai(path = "/v1/invites/:invite", method = "delete", operation_id = "revoke_invite")]
    async fn revoke(
        &self,
        ask: Ask<Admin>,
        /// The id of the invite.
        invite: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the invite still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<Done>, WriteFailure> {
        let wanted: InviteId = id("invite.unknown", "invite", &invite.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = only_at(if_match.0.as_deref(), wanted, ControlCommand::RevokeInvite { invite: wanted });
        let committed = ask.state.control.execute(&caller, command).await?;
        let at = control_at(committed.head);
        Ok(Found::new(done(&committed, at), at))
    }
}
