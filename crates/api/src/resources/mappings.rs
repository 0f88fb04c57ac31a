//! Mappings.

use poem_openapi::OpenApi;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use underpass_domain::{ClientId, ControlCommand, LogName, LogPosition, Mapping, MappingId, Target};

use super::mapping_body::{ChangeMapping, CreateMapping, EndBody, LiveBody, MappingBody, MappingPage};
use super::{Done, Tag, done, id};
use crate::answer::{Created, Found, control_at, only_at};
use crate::auth::{Admin, Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure, WriteFailure};
use crate::state::ApiState;

pub(crate) struct Mappings;

fn mapping_id(text: &str) -> Result<MappingId, Problem> {
    id("mapping.not_found", "mapping", text)
}

fn find(state: &ApiState, wanted: &str) -> Result<Mapping, Problem> {
    let view = state.control.state();
    let found = view.state.mapping(mapping_id(wanted)?).cloned();
    found.ok_or_else(|| Problem::not_found("mapping.not_found", "mapping", wanted))
}

/// A mapping with its usage and what is going on with it.
fn body(state: &ApiState, id: MappingId) -> Result<(MappingBody, LogPosition), Problem> {
    let view = state.control.state();
    let text = id.to_string();
    let mapping =
        view.state.mapping(id).ok_or_else(|| Problem::not_found("mapping.not_found", "mapping", &text))?;
    let mut body = MappingBody::new(&view.state, mapping, state.control.now());
    body.usage = Some(state.control.activity().state.usage(id).into());
    body.live = state.gateway.as_ref().map(|gateway| LiveBody {
        ends: gateway.ends(id).into_iter().map(EndBody::from).collect(),
        tunnels: gateway.tunnels().iter().filter(|tunnel| tunnel.mapping == id).count() as u64,
    });
    Ok((body, control_at(view.position)))
}

fn show(state: &ApiState, id: MappingId) -> Result<Found<MappingBody>, Problem> {
    let (body, at) = body(state, id)?;
    let version = body.version;
    Ok(Found::versioned(body, at, version))
}

/// Executes a command about one mapping and shows it afterwards.
async fn apply(
    ask: &Ask<Admin>,
    mapping: &str,
    idempotency_key: Option<&str>,
    if_match: Option<&str>,
    command: impl FnOnce(&Mapping) -> Result<ControlCommand, Problem>,
) -> Result<Found<MappingBody>, WriteFailure> {
    let before = find(&ask.state, mapping)?;
    let caller = ask.caller(idempotency_key)?;
    ask.state.control.execute(&caller, only_at(if_match, before.id, command(&before)?)).await?;
    Ok(show(&ask.state, before.id)?)
}

#[OpenApi(tag = "Tag::Mappings")]
impl Mappings {
    /// List mappings
    ///
    /// In the order of ids. Removed and expired ones are gone; the log has their history. Scope `read`.
    #[oai(path = "/v1/mappings", method = "get", operation_id = "list_mappings")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// Only those in which this client listens or dials.
        client: Query<Option<String>>,
        /// Only mappings whose name contains this text.
        q: Query<Option<String>>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<MappingPage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let client: Option<ClientId> = match client.0.as_deref() {
            Some(text) => {
                Some(text.parse().map_err(|_| Problem::parameter("client", "`client` is not an id"))?)
            }
            None => None,
        };
        let page = Page::<MappingId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let now = ask.state.control.now();
        let wanted = view.state.mappings().filter(|mapping| {
            client.is_none_or(|client| mapping.involves(client))
                && q.0.as_ref().is_none_or(|text| mapping.name.contains(text.as_str()))
        });
        let slice =
            page.of(wanted, |mapping| mapping.id).map(|mapping| MappingBody::new(&view.state, mapping, now));
        let at = control_at(view.position);
        Ok(Found::new(MappingPage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Make a mapping
    ///
    /// With `adopt` the one that was made before is taken, and 201 names it. Scope `admin`.
    #[oai(path = "/v1/mappings", method = "post", operation_id = "create_mapping")]
    async fn create(
        &self,
        ask: Ask<Admin>,
        body: Json<CreateMapping>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
    ) -> Result<Created<MappingBody>, WriteFailure> {
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let made = ask.state.control.create_mapping(&caller, body.0.into_new()?).await?;
        let (shown, _) = self::body(&ask.state, made.id)?;
        let version = shown.version;
        let location = format!("/v1/mappings/{}", made.id);
        Ok(Created::new(shown, control_at(made.position), location, Some(version)))
    }

    /// Show a mapping
    ///
    /// With what passed through it and how it is doing just now. Scope `read`.
    #[oai(path = "/v1/mappings/:mapping", method = "get", operation_id = "get_mapping")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the mapping.
        mapping: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<MappingBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        Ok(show(&ask.state, mapping_id(&mapping.0)?)?)
    }

    /// Change a mapping
    ///
    /// What is absent stays; `null` takes an option away. The ingress can't change: make another mapping. Scope
    /// `admin`.
    #[oai(path = "/v1/mappings/:mapping", method = "patch", operation_id = "change_mapping")]
    async fn change(
        &self,
        ask: Ask<Admin>,
        /// The id of the mapping.
        mapping: Path<String>,
        body: Json<ChangeMapping>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the mapping still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<MappingBody>, WriteFailure> {
        apply(&ask, &mapping.0, idempotency_key.0.as_deref(), if_match.0.as_deref(), |before| {
            let options = body.0.options()?;
            let target = body.0.target.as_ref().map(|text| Target::parse(before.target.client, text));
            let target = target.transpose().map_err(|error| Problem::invalid("target", error.to_string()))?;
            Ok(ControlCommand::ChangeMapping {
                mapping: before.id,
                name: body.0.name,
                target_address: target.map(|target| target.address),
                options,
            })
        })
        .await
    }

    /// Switch a mapping on
    ///
    /// Scope `admin`.
    #[oai(path = "/v1/mappings/:mapping/enable", method = "post", operation_id = "enable_mapping")]
    async fn enable(
        &self,
        ask: Ask<Admin>,
        /// The id of the mapping.
        mapping: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the mapping still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<MappingBody>, WriteFailure> {
        apply(&ask, &mapping.0, idempotency_key.0.as_deref(), if_match.0.as_deref(), |before| {
            Ok(ControlCommand::EnableMapping { mapping: before.id })
        })
        .await
    }

    /// Switch a mapping off
    ///
    /// Its tunnels end; it keeps its name and port. Scope `admin`.
    #[oai(path = "/v1/mappings/:mapping/disable", method = "post", operation_id = "disable_mapping")]
    async fn disable(
        &self,
        ask: Ask<Admin>,
        /// The id of the mapping.
        mapping: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the mapping still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<MappingBody>, WriteFailure> {
        apply(&ask, &mapping.0, idempotency_key.0.as_deref(), if_match.0.as_deref(), |before| {
            Ok(ControlCommand::DisableMapping { mapping: before.id })
        })
        .await
    }

    /// Remove a mapping
    ///
    /// Its tunnels end, and its name and port are free. Scope `admin`.
    #[oai(path = "/v1/mappings/:mapping", method = "delete", operation_id = "remove_mapping")]
    async fn remove(
        &self,
        ask: Ask<Admin>,
        /// The id of the mapping.
        mapping: Path<String>,
        /// Makes a repeat harmless: the same key again is the same request.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        /// Only if the mapping still has this `ETag`.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Found<Done>, WriteFailure> {
        let caller = ask.caller(idempotency_key.0.as_deref())?;
        let mapping = mapping_id(&mapping.0)?;
        let command = only_at(if_match.0.as_deref(), mapping, ControlCommand::RemoveMapping { mapping });
        let committed = ask.state.control.execute(&caller, command).await?;
        let at = control_at(committed.head);
        Ok(Found::new(done(&committed, at), at))
    }
}
