//! Why something is as it is, with the events that say so.

use std::collections::{BTreeSet, VecDeque};

use underpass_domain::reasons::{Evidence, Finding, LiveMapping, reasons, streams_behind};
use underpass_domain::{
    ClientId, CodeId, ControlEvent, InviteId, KeyId, LogName, LogPosition, MappingId, Position, StreamId,
};
use underpass_eventlog::Recorded;

use crate::control::Control;
use crate::error::ControlError;
use crate::undo::decoded;

/// Events looked through at once.
const READ_AT_ONCE: usize = 1_000;
/// Events of the streams behind a thing that are looked at, the newest: what is so now was made so late.
pub const EXPLAINED_EVENTS_MAX: usize = 1_000;
/// Ids that are named when a name means several things.
const NAMED_MAX: usize = 10;

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What it is.
    pub of: StreamId,
    /// What it is called, where it has a name.
    pub name: Option<String>,
    /// Whether callers of a mapping are served. `None`: it is no mapping.
    pub answers: Option<bool>,
    /// What was found out, each with the events behind it.
    pub findings: Vec<(Finding, Vec<Recorded>)>,
    /// The position of the control log that is looked at.
    pub position: Position,
}

impl Control {
    /// Why a mapping does not answer, a client is not linked, or a code, invite or key is no good. `live` is what
    /// goes on with a mapping at this node; `None`: it serves nothing. Reads the control log.
    pub async fn explain(&self, of: StreamId, live: Option<&LiveMapping>) -> Result<Explained, ControlError> {
        let (view, activity) = (self.state(), self.activity());
        let history = self.history(&streams_behind(&view.state, of), view.position).await?;
        let evidence = Evidence {
            state: &view.state,
            activity: &activity.state,
            now: self.now(),
            history: &history,
            live,
        };
        let found =
            reasons(&evidence, of).ok_or_else(|| ControlError::NothingToExplain { what: of.to_string() })?;
        let mut findings = Vec::with_capacity(found.findings.len());
        for finding in found.findings {
            let mut events = Vec::with_capacity(finding.events.len());
            for at in &finding.events {
                events.extend(self.event_at(*at).await?);
            }
            findings.push((finding, events));
        }
        let (name, answers) = (found.name, found.answers);
        Ok(Explained { of, name, answers, findings, position: view.position })
    }

    /// What is meant by an id, or by the name of a mapping or client or the first part of a code: of one that is
    /// there, else of the mapping or client that was removed last.
    pub async fn meant(&self, text: &str) -> Result<StreamId, ControlError> {
        if let Some(of) = id(text) {
            return Ok(of);
        }
        let view = self.state();
        let state = &view.state;
        let mappings = state.mappings().filter(|it| it.name == text).map(|it| StreamId::from(it.id));
        let clients = state.clients().filter(|it| it.name == text).map(|it| StreamId::from(it.id));
        let code = state.code_by_lookup(text).map(|it| StreamId::from(it.id));
        let mut meant: Vec<_> = mappings.chain(clients).chain(code).take(NAMED_MAX + 1).collect();
        match (meant.pop(), meant.is_empty()) {
            (Some(of), true) => Ok(of),
            (Some(last), false) => {
                meant.push(last);
                let ids = meant.iter().take(NAMED_MAX).map(|of| bare(*of)).collect::<Vec<_>>();
                let more = if meant.len() > NAMED_MAX { ", ..." } else { "" };
                let ids = ids.join(", ") + more;
                Err(ControlError::Ambiguous { name: shown(text), ids })
            }
            (None, _) => match self.gone(text, view.position).await? {
                Some(of) => Ok(of),
                None => Err(ControlError::NothingToExplain { what: shown(text) }),
            },
        }
    }

    async fn history(
        &self,
        streams: &[StreamId],
        until: Position,
    ) -> Result<Vec<(Position, ControlEvent)>, ControlError> {
        let streams: BTreeSet<_> = streams.iter().copied().collect();
        let mut found = VecDeque::new();
        self.each(until, |event| {
            if streams.contains(&event.stream) {
                if found.len() == EXPLAINED_EVENTS_MAX {
                    found.pop_front();
                }
                found.push_back((event.position, decoded(event)?));
            }
            Ok(())
        })
        .await?;
        Ok(found.into())
    }

    /// What had this name and went last.
    async fn gone(&self, name: &str, until: Position) -> Result<Option<StreamId>, ControlError> {
        let mut last = None;
        self.each(until, |event| {
            if !matches!(event.name, "mapping.removed" | "mapping.expired" | "client.removed") {
                return Ok(());
            }
            let had = match decoded(event)? {
                ControlEvent::MappingRemoved(gone) => gone.name == name,
                ControlEvent::MappingExpired(gone) => gone.name == name,
                ControlEvent::ClientRemoved(gone) => gone.name == name,
                _ => false,
            };
            if had {
                last = Some(event.stream);
            }
            Ok(())
        })
        .await?;
        Ok(last)
    }

    async fn each(
        &self,
        until: Position,
        mut look: impl FnMut(&Recorded) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let mut at = Position(0);
        while at < until {
            let page = self.log().read(at, READ_AT_ONCE).await?;
            let Some(end) = page.last().map(|event| event.position) else { break };
            page.iter().filter(|event| event.position <= until).try_for_each(&mut look)?;
            at = end;
        }
        Ok(())
    }

    async fn event_at(&self, at: LogPosition) -> Result<Option<Recorded>, ControlError> {
        let before = Position(at.position.0.saturating_sub(1));
        let events = match at.log {
            LogName::Control => self.log().read(before, 1).await?,
            LogName::Activity => self.activity_log().read(before, 1).await?,
        };
        Ok(events.into_iter().next())
    }
}

fn id(text: &str) -> Option<StreamId> {
    let mapping = text.parse::<MappingId>().map(StreamId::from);
    let client = || text.parse::<ClientId>().map(StreamId::from);
    let code = || text.parse::<CodeId>().map(StreamId::from);
    let invite = || text.parse::<InviteId>().map(StreamId::from);
    let key = || text.parse::<KeyId>().map(StreamId::from);
    mapping.or_else(|_| client()).or_else(|_| code()).or_else(|_| invite()).or_else(|_| key()).ok()
}

/// The id alone, as it is typed.
fn bare(of: StreamId) -> String {
    let text = of.to_string();
    text.split_once('/').map_or(text.clone(), |(_, id)| id.to_owned())
}

/// A part of the request in an answer: short, and nothing that moves a cursor.
fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(80).collect()
}
