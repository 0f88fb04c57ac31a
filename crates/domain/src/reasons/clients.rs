//! Why a client is not linked.

use super::{Evidence, Finding, Reasons};
use crate::control::ClientStatus;
use crate::events::ControlEvent as Event;
use crate::ids::ClientId;
use crate::text::PublicKey;
use crate::time::Timestamp;

pub(super) const BLOCKED: &str = "client.blocked";
pub(super) const OFFLINE: &str = "client.offline";
pub(super) const NEVER_LINKED: &str = "client.never_linked";

/// Refused handshakes that are told: the newest say it.
const REFUSED_TOLD_MAX: usize = 3;

impl Evidence<'_> {
    pub(super) fn client(&self, id: ClientId) -> Option<Reasons> {
        let Some(client) = self.state.client(id) else { return self.gone_client(id) };
        let mut findings: Vec<_> = self.absence(id).into_iter().collect();
        if findings.is_empty()
            && let Some(session) = self.activity.open_session_of(id)
        {
            let sentence = format!("it is linked since {} from {}", session.opened_at, session.address);
            findings.push(Finding::new("client.linked", sentence));
        } else {
            findings.extend(self.refused(client.public_key, self.last_linked(id)));
        }
        Some(Reasons { name: Some(client.name.clone()), answers: None, findings })
    }

    /// Why no tunnel reaches the client; `None`: it is linked.
    pub(super) fn absence(&self, id: ClientId) -> Option<Finding> {
        if let Some(ClientStatus::Blocked { reason }) = self.state.client(id).map(|client| &client.status) {
            let at = self.newest(id, |event| matches!(event, Event::ClientBlocked(_))).map(|(at, _)| at);
            return Some(Finding::new(BLOCKED, format!("it is blocked: {reason}")).undone_by(at));
        }
        if self.activity.open_session_of(id).is_some() {
            return None;
        }
        let Some((at, session)) = self.activity.last_closed_of(id) else {
            let enrolled = self.newest(id, |event| matches!(event, Event::ClientEnrolled(_)));
            let finding = Finding::new(NEVER_LINKED, "it has not been linked, as far as is remembered")
                .hint("run its agent: underpass up")
                .by(enrolled.map(|(at, _)| at));
            return Some(finding);
        };
        let (since, why) = match &session.closed {
            Some((since, why)) => (*since, why.as_str()),
            None => (session.opened_at, ""),
        };
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let finding = Finding::new(OFFLINE, format!("it is offline since {since}{why}"))
            .hint("run its agent: underpass up; `underpass status` there says what it waits for")
            .by_activity(at);
        Some(finding)
    }

    fn gone_client(&self, id: ClientId) -> Option<Reasons> {
        let (at, last) = self.newest(id, |_| true)?;
        let Event::ClientRemoved(removed) = last else { return None };
        let finding = Finding::new("client.removed", "it was removed, and its key opens nothing since")
            .hint("it can join again, with an invite: underpass invite")
            .by(Some(at));
        let mut findings = vec![finding];
        let enrolled = self.newest(id, |event| matches!(event, Event::ClientEnrolled(_)));
        if let Some((_, Event::ClientEnrolled(enrolled))) = enrolled {
            findings.extend(self.refused(enrolled.public_key, self.last_linked(id)));
        }
        Some(Reasons { name: Some(removed.name.clone()), answers: None, findings })
    }

    fn last_linked(&self, id: ClientId) -> Timestamp {
        self.activity.last_closed_of(id).map(|(_, session)| session.opened_at).unwrap_or_default()
    }

    /// The newest handshakes with this key that were refused after its last link was made.
    fn refused(&self, key: PublicKey, after: Timestamp) -> Option<Finding> {
        let failures = self.activity.auth_failures_of(key).filter(|(_, failure)| failure.at >= after);
        let mut newest: Vec<_> = failures.rev().take(REFUSED_TOLD_MAX).collect();
        let (_, last) = newest.first()?;
        let sentence =
            format!("its key was refused, last at {} from {}: {}", last.at, last.address, last.reason);
        newest.reverse();
        let finding = Finding::new("client.refused", sentence);
        Some(newest.into_iter().fold(finding, |finding, (at, _)| finding.by_activity(at)))
    }
}
