//! Why something is as it is.

use poem_openapi::param::Path;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use underpass_control::Explained;
use underpass_domain::reasons::{Finding, LiveEnd, LiveMapping, LiveTrouble};
use underpass_domain::{Entity, LogPosition, MappingId, StreamId};
use underpass_eventlog::Recorded;

use super::logs::permit;
use super::{Tag, example};
use crate::answer::{Found, control_at};
use crate::auth::{Ask, Read};
use crate::live::{LiveServing, LiveState};
use crate::problem::ReadFailure;

pub(crate) struct Explain;

/// An event behind a finding.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct CitedEvent {
    /// Where it stands, `log:number`.
    position: String,
    /// When it was recorded.
    recorded_at: String,
    /// Who gave the command.
    actor: String,
    /// What happened, such as `mapping.disabled`.
    event: String,
    /// What happened, as a sentence.
    sentence: String,
}

impl Example for CitedEvent {
    fn example() -> Self {
        Self {
            position: example::POSITION.into(),
            recorded_at: example::AT.into(),
            actor: format!("key/{}", example::KEY),
            event: "mapping.disabled".into(),
            sentence: "mapping web disabled".into(),
        }
    }
}

impl From<&Recorded> for CitedEvent {
    fn from(event: &Recorded) -> Self {
        Self {
            position: LogPosition { log: event.log, position: event.position }.to_string(),
            recorded_at: event.recorded_at.to_string(),
            actor: event.actor.to_string(),
            event: event.name.to_owned(),
            sentence: event.sentence().unwrap_or_default(),
        }
    }
}

/// Something that was found out.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Finding", example, skip_serializing_if_is_none)]
pub(crate) struct FindingBody {
    /// Its stable name, for programs: `docs/findings.md` lists all.
    code: String,
    /// What it is, for people.
    sentence: String,
    /// What to do about it, where that is known.
    hint: Option<String>,
    /// The events behind it, oldest first.
    events: Vec<CitedEvent>,
}

impl Example for FindingBody {
    fn example() -> Self {
        Self {
            code: "mapping.disabled".into(),
            sentence: "it is switched off".into(),
            hint: Some("take it back: underpass undo 1842".into()),
            events: vec![CitedEvent::example()],
        }
    }
}

impl From<&(Finding, Vec<Recorded>)> for FindingBody {
    fn from((finding, events): &(Finding, Vec<Recorded>)) -> Self {
        Self {
            code: finding.code.to_owned(),
            sentence: finding.sentence.clone(),
            hint: finding.hint.clone(),
            events: events.iter().map(CitedEvent::from).collect(),
        }
    }
}

/// What was found out about one thing.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct Explanation {
    /// The position of the control log that was looked at.
    position: String,
    /// Its id.
    id: String,
    /// What it is: `mapping`, `client`, `code`, `invite` or `key`.
    kind: String,
    /// What it is called, where it has a name.
    name: Option<String>,
    /// Of a mapping: whether callers are served.
    answers: Option<bool>,
    /// What was found out; never empty.
    findings: Vec<FindingBody>,
}

impl Example for Explanation {
    fn example() -> Self {
        Self {
            position: example::POSITION.into(),
            id: example::MAPPING.into(),
            kind: "mapping".into(),
            name: Some("web".into()),
            answers: Some(false),
            findings: vec![FindingBody::example()],
        }
    }
}

impl From<&Explained> for Explanation {
    fn from(explained: &Explained) -> Self {
        let of = explained.of.to_string();
        let (kind, id) = of.split_once('/').unwrap_or((&of, &of));
        Self {
            position: control_at(explained.position).to_string(),
            id: id.to_owned(),
            kind: kind.to_owned(),
            name: explained.name.clone(),
            answers: explained.answers,
            findings: explained.findings.iter().map(FindingBody::from).collect(),
        }
    }
}

/// What goes on with a mapping at this node.
fn live(gateway: &dyn LiveState, of: StreamId) -> LiveMapping {
    if of.entity != Entity::Mapping {
        return LiveMapping::default();
    }
    let mapping = MappingId::from_bytes(of.id);
    let ends = gateway.ends(mapping).into_iter().map(|end| LiveEnd {
        client: end.client,
        trouble: match end.state {
            LiveServing::Listening | LiveServing::Offered => None,
            LiveServing::PortInUse => Some(LiveTrouble::PortInUse),
            LiveServing::Denied => Some(LiveTrouble::Denied),
            LiveServing::Failed => Some(LiveTrouble::Failed),
        },
        detail: end.detail,
    });
    let tunnels = gateway.tunnels().iter().filter(|tunnel| tunnel.mapping == mapping).count() as u64;
    LiveMapping { ends: ends.collect(), tunnels }
}

#[OpenApi(tag = "Tag::Events")]
impl Explain {
    /// Explain why something is as it is
    ///
    /// Why a mapping does not answer, why a client is not linked or was refused, what became of a code, invite or
    /// key; also of those that are gone. Each finding has the events behind it. Scope `read`.
    #[oai(path = "/v1/explain/:id", method = "get", operation_id = "explain")]
    async fn explain(
        &self,
        ask: Ask<Read>,
        /// The id of a mapping, client, code, invite or key, the name of a mapping or client, or the first part of
        /// a code.
        id: Path<String>,
    ) -> Result<Found<Explanation>, ReadFailure> {
        let _permit = permit(&ask.state)?;
        let control = &ask.state.control;
        let of = control.meant(&id.0).await?;
        let live = ask.state.gateway.as_deref().map(|gateway| live(gateway, of));
        let explained = control.explain(of, live.as_ref()).await?;
        Ok(Found::new(Explanation::from(&explained), control_at(explained.position)))
    }
}
