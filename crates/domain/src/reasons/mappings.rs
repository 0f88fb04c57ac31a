//! Why a mapping does not answer.

use super::clients::{BLOCKED, NEVER_LINKED, OFFLINE};
use super::{Evidence, Finding, LiveEnd, LiveTrouble, Reasons};
use crate::control::{Mapping, MappingStatus};
use crate::events::ControlEvent as Event;
use crate::ids::{ClientId, MappingId};

/// One end of a mapping, and what its findings are called.
#[derive(Clone, Copy)]
struct End {
    role: &'static str,
    blocked: &'static str,
    offline: &'static str,
    never_linked: &'static str,
    failed: &'static str,
}

const TARGET: End = End {
    role: "target",
    blocked: "target.blocked",
    offline: "target.offline",
    never_linked: "target.never_linked",
    failed: "target.failed",
};

const LISTENER: End = End {
    role: "listening",
    blocked: "listener.blocked",
    offline: "listener.offline",
    never_linked: "listener.never_linked",
    failed: "listener.failed",
};

impl Evidence<'_> {
    pub(super) fn mapping(&self, id: MappingId) -> Option<Reasons> {
        let Some(mapping) = self.state.mapping(id) else { return self.gone(id) };
        let mut findings = self.switched(mapping);
        let target = mapping.target.client;
        for (client, end) in
            [(target, TARGET)].into_iter().chain(mapping.listener().map(|client| (client, LISTENER)))
        {
            findings.extend(self.away(client, end));
        }
        match self.live {
            None => findings.push(
                Finding::new("server.stopped", "no server runs on this data folder")
                    .hint("start it: underpass serve"),
            ),
            Some(live) => {
                findings.extend(live.ends.iter().filter_map(|end| self.troubled(mapping, end)));
                let limit = mapping.options.max_connections.map(u64::from);
                if let Some(limit) = limit.filter(|limit| live.tunnels >= *limit) {
                    let sentence = format!("all of its {limit} connections are taken");
                    findings.push(
                        Finding::new("limit.reached", sentence)
                            .hint("wait until one ends, or raise `max_connections`"),
                    );
                }
            }
        }
        let answers = findings.is_empty();
        if answers {
            let sentence = format!(
                "nothing is in the way here; {} dials {} for each caller",
                self.called(target),
                mapping.target.address
            );
            findings.push(
                Finding::new("mapping.answers", sentence)
                    .hint("if callers get nothing, look at the service itself at that address"),
            );
        }
        Some(Reasons { name: Some(mapping.name.clone()), answers: Some(answers), findings })
    }

    fn gone(&self, id: MappingId) -> Option<Reasons> {
        let (at, last) = self.newest(id, |_| true)?;
        let (name, finding) = match last {
            Event::MappingRemoved(event) => {
                (&event.name, Finding::new("mapping.removed", "it was removed").undone_by(Some(at)))
            }
            Event::MappingExpired(event) => {
                let finding = Finding::new("mapping.expired", "its time ran out").by(Some(at));
                (&event.name, finding.hint("make it anew"))
            }
            // Something of it is in the log and it is not in the state: the state is behind.
            _ => return None,
        };
        Some(Reasons { name: Some(name.clone()), answers: Some(false), findings: vec![finding] })
    }

    fn switched(&self, mapping: &Mapping) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(end) = mapping.options.expires_at.filter(|end| *end <= self.now) {
            let sentence = format!("its time ran out at {end}");
            findings.push(Finding::new("mapping.expired", sentence).hint("make it anew"));
        }
        if mapping.status == MappingStatus::Disabled {
            let off = |event: &Event| matches!(event, Event::MappingDisabled(_));
            let at = self.newest(mapping.id, off).map(|(at, _)| at);
            findings.push(Finding::new("mapping.disabled", "it is switched off").undone_by(at));
        }
        findings
    }

    fn away(&self, client: ClientId, end: End) -> Option<Finding> {
        let found = self.absence(client)?;
        let code = match found.code {
            BLOCKED => end.blocked,
            OFFLINE => end.offline,
            NEVER_LINKED => end.never_linked,
            other => other,
        };
        let sentence = format!("the {} {}: {}", end.role, self.called(client), found.sentence);
        Some(Finding { code, sentence, ..found })
    }

    fn troubled(&self, mapping: &Mapping, end: &LiveEnd) -> Option<Finding> {
        let trouble = end.trouble?;
        let detail = end.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        Some(match (end.client, trouble) {
            (None, LiveTrouble::PortInUse) => {
                let port = mapping.port().map(|port| port.to_string()).unwrap_or_default();
                Finding::new("port.in_use", format!("another program has the public port {port}{detail}"))
                    .hint("end that program; the port is tried again by itself")
            }
            (None, _) => Finding::new("port.failed", format!("the public port can't be bound{detail}")),
            (Some(client), LiveTrouble::Denied) => {
                let sentence = format!("{} does not allow the target{detail}", self.called(client));
                Finding::new("target.denied", sentence)
                    .hint(format!("allow it there: underpass up --allow {}", mapping.target.address))
            }
            (Some(client), LiveTrouble::PortInUse) => {
                let sentence =
                    format!("at {} another program has the port to listen on{detail}", self.called(client));
                Finding::new("listener.port_in_use", sentence)
                    .hint("end that program, or listen elsewhere: underpass connect CODE --listen ADDR:PORT")
            }
            (Some(client), LiveTrouble::Failed) => {
                let end = if client == mapping.target.client { TARGET } else { LISTENER };
                Finding::new(end.failed, format!("{} can't serve it{detail}", self.called(client)))
            }
        })
    }
}
