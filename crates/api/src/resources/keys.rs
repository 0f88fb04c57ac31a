//! API keys.

use std::time::Duration;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};
use underpass_domain::{ApiKey, ControlCommand, KeyId, LogName, Scope, Timestamp};

use super::{Done, Tag, done, example, id};
use crate::answer::{Created, Found, control_at, only_at};
use crate::auth::{Admin, Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure, WriteFailure};
use crate::state::ApiState;

pub(crate) struct Keys;

/// What a key may be issued for.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "Scope")]
pub(crate) enum ScopeBody {
    /// Everything.
    Admin,
    /// Reading everything but what happened.
    Read,
    /// Reading what happened: events, replay, verification.
    Audit,
    /// Reading measurements.
    Metrics,
}

impl From<ScopeBody> for Scope {
    fn from(scope: ScopeBody) -> Self {
        match scope {
            ScopeBody::Admin => Self::Admin,
            ScopeBody::Read => Self::Read,
            ScopeBody::Audit => Self::Audit,
            ScopeBody::Metrics => Self::Metrics,
        }
    }
}

fn scope_text(scope: Scope) -> String {
    match scope {
        Scope::Admin => "admin".to_owned(),
        Scope::Read => "read".to_owned(),
        Scope::Audit => "audit".to_owned(),
        Scope::Metrics => "metrics".to_owned(),
        Scope::User(user) => format!("user:{user}"),
        _ => "unknown".to_owned(),
    }
}

/// What became of a key.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "KeyStatus")]
pub(crate) enum StatusBody {
    /// It is good.
    Active,
    /// It was taken back.
    Revoked,
    /// It is past its time.
    Expired,
}

/// A key to this API.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Key", example, skip_serializing_if_is_none)]
pub(crate) struct KeyBody {
    /// Its id; also a part of its token.
    id: String,
    /// What it may do: `admin`, `read`, `audit`, `metrics`, or `user:` and an id.
    scopes: Vec<String>,
    /// What it is for.
    label: Option<String>,
    /// Until when it is good; absent: until it is revoked.
    expires_at: Option<String>,
    /// What became of it.
    status: StatusBody,
    /// When this node saw it last, since it started.
    last_used_at: Option<String>,
    /// Since when it exists.
    issued_at: String,
    /// Changes with each change.
    version: u64,
}

impl Example for KeyBody {
    fn example() -> Self {
        Self {
            id: example::KEY.into(),
            scopes: vec!["read".into(), "metrics".into()],
            label: Some("dashboard".into()),
            expires_at: None,
            status: StatusBody::Active,
            last_used_at: Some(example::AT.into()),
            issued_at: example::AT.into(),
            version: 1,
        }
    }
}

impl KeyBody {
    pub(super) fn new(key: &ApiKey, now: Timestamp) -> Self {
        let status = match key {
            key if key.revoked => StatusBody::Revoked,
            key if key.is_good(now) => StatusBody::Active,
            _ => StatusBody::Expired,
        };
        Self {
            id: key.id.to_string(),
            scopes: key.scopes.iter().copied().map(scope_text).collect(),
            label: key.label.clone(),
            expires_at: key.expires_at.map(|at| at.to_string()),
            status,
            last_used_at: None,
            issued_at: key.issued_at.to_string(),
            version: key.version,
        }
    }

    fn seen(state: &ApiState, key: &ApiKey) -> Self {
        let last_used_at = state.control.last_used(key.id).map(|at| at.to_string());
        Self { last_used_at, ..Self::new(key, state.control.now()) }
    }
}

/// A page of keys.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct KeyPage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<KeyBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for KeyPage {
    fn example() -> Self {
        Self { position: example::POSITION.into(), items: vec![KeyBody::example()], next: None }
    }
}

/// A key to issue.
#[derive(Object, Clone, Debug)]
#[oai(deny_unknown_fields, example, skip_serializing_if_is_none)]
pub(crate) struct IssueKey {
    /// What it may do; at least one.
    #[oai(validator(min_items = 1, max_items = 8))]
    scopes: Vec<ScopeBody>,
    /// What it is for.
    label: Option<String>,
    /// Seconds for which it is good. Absent: until it is revoked.
    ttl_s: Option<u64>,
}

impl Example for IssueKey {
    fn example() -> Self {
        Self {
            scopes: vec![ScopeBody::Read, ScopeBody::Metrics],
            label: Some("dashboard".into()),
            ttl_s: Some(2_592_000),
        }
    }
}

/// A key that was just issued. The only answer that holds its token.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct IssuedKey {
    /// Its id.
    id: String,
    /// The bearer token. Shown this once.
    token: String,
    /// Until when it is good; absent: until it is revoked.
    expires_at: Option<String>,
    /// The position at which it can be read (`?at=`).
    position: String,
}

impl Example for IssuedKey {
    fn example() -> Self {
        Self {
            id: example::KEY.into(),
            token: "up_01k9yqeng4fxcrs07d5p1m9tzb_(shown once)".into(),
            expires_at: Some(example::LATER.into()),
            position: example::POSITION.into(),
        }
    }
}

#[OpenApi(tag = "Tag::Keys")]
impl Keys {
    /// List API keys
    ///
    /// Good ones and, as far as they are remembered, others. Scope `read`.
    #[oai(path = "/v1/keys", method = "get", operation_id = "list_keys")]
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
    ) -> Result<Found<KeyPage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let page = Page::<KeyId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let slice = page.of(view.state.keys(), |key| key.id).map(|key| KeyBody::seen(&ask.state, key));
        let at = control_at(view.position);
        Ok(Found::new(KeyPage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Issue an API key
    ///
    /// The answer shows the token, and is the only one that does: a repeat under the same `Idempotency-Key`
    /// answers 409 and names the key. Scope `admin`.
    #[oai(path = "/v1/keys", method = "post", operation_id = "issue_key")]
    async fn issue(
        &self,
        ask: Ask<Admin>,
        body: Json<IssueKey>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
    ) -> Result<Created<IssuedKey>, WriteFailure> {
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let scopes = body.0.scopes.into_iter().map(Scope::from).collect();
        let ttl = body.0.ttl_s.map(Duration::from_secs);
        let issued = ask.state.control.issue_key(&caller, scopes, body.0.label, ttl).await;
        let issued = issued.map_err(|error| Problem::from(error).asked_as("expires_at", "ttl_s"))?;
        let at = control_at(issued.position);
        let location = format!("/v1/keys/{}", issued.id);
        let body = IssuedKey {
            id: issued.id.to_string(),
            token: issued.token.expose().to_owned(),
            expires_at: issued.expires_at.map(|at| at.to_string()),
            position: at.to_string(),
        };
        Ok(Created::new(body, at, location, None))
    }

    /// Show an API key
    ///
    /// Without its token. Scope `read`.
    #[oai(path = "/v1/keys/:key", method = "get", operation_id = "get_key")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the key.
        key: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<KeyBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let wanted: KeyId = id("key.not_found", "key", &key.0)?;
        let view = ask.state.control.state();
        let found =
            view.state.key(wanted).ok_or_else(|| Problem::not_found("key.not_found", "key", &key.0))?;
        let body = KeyBody::seen(&ask.state, found);
        Ok(Found::versioned(body, control_at(view.position), found.version))
    }

    /// Revoke an API key
    ///
    /// It opens nothing from then on. Scope `admin`.
    #[oai(path = "/v1/keys/:key", method = "delete", operation_id = "revoke_key")]
    async fn revoke(
        &self,
        ask: Ask<Admin>,
        /// The id of the key.
        key: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the key still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<Done>, WriteFailure> {
        let wanted: KeyId = id("key.not_found", "key", &key.0)?;
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let command = only_at(if_match.0.as_deref(), wanted, ControlCommand::RevokeKey { key: wanted });
        let committed = ask.state.control.execute(&caller, command).await?;
        let at = control_at(committed.head);
        Ok(Found::new(done(&committed, at), at))
    }
}
