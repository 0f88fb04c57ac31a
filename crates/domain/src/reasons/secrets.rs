//! What became of codes, invites and keys. The log knows also of those that the state has forgotten.

use super::{Evidence, Finding, Reasons};
use crate::events::ControlEvent as Event;
use crate::ids::{CodeId, InviteId, KeyId};
use crate::meta::StreamId;

impl Evidence<'_> {
    pub(super) fn code(&self, id: CodeId) -> Option<Reasons> {
        let (at, last) = self.newest(id, |_| true)?;
        let (issued_at, issued) = self.newest(id, |event| matches!(event, Event::CodeIssued(_)))?;
        let Event::CodeIssued(issued) = issued else { return None };
        let finding = match last {
            Event::CodeRedeemed(redeemed) => {
                let sentence = format!(
                    "it was redeemed by {} and became {}",
                    self.called(redeemed.client),
                    redeemed.mapping
                );
                let finding = Finding::new("code.redeemed", sentence);
                finding.hint(format!("see how that is doing: underpass explain {}", redeemed.mapping))
            }
            Event::CodeRevoked(_) => {
                Finding::new("code.revoked", "it was taken back").hint("make another one: underpass share")
            }
            _ if matches!(last, Event::CodeExpired(_)) || issued.activate_until <= self.now => {
                let sentence = format!("nobody redeemed it until {}", issued.activate_until);
                Finding::new("code.expired", sentence).hint("make another one: underpass share")
            }
            _ => Finding::new("code.open", format!("it can be redeemed until {}", issued.activate_until)),
        };
        Some(only(Some(issued.lookup.clone()), between(finding, issued_at, at)))
    }

    pub(super) fn invite(&self, id: InviteId) -> Option<Reasons> {
        let (at, last) = self.newest(id, |_| true)?;
        let (issued_at, issued) = self.newest(id, |event| matches!(event, Event::InviteIssued(_)))?;
        let Event::InviteIssued(issued) = issued else { return None };
        let another = "make another one: underpass invite";
        let finding = match last {
            Event::InviteUsed(used) => {
                Finding::new("invite.used", format!("it let in {}", self.called(used.client))).hint(another)
            }
            Event::InviteRevoked(_) => Finding::new("invite.revoked", "it was taken back").hint(another),
            _ if matches!(last, Event::InviteExpired(_)) || issued.expires_at <= self.now => {
                let sentence = format!("nobody used it until {}", issued.expires_at);
                Finding::new("invite.expired", sentence).hint(another)
            }
            _ => Finding::new("invite.open", format!("it can be used until {}", issued.expires_at)),
        };
        Some(only(issued.label.clone(), between(finding, issued_at, at)))
    }

    pub(super) fn key(&self, id: KeyId) -> Option<Reasons> {
        let (at, last) = self.newest(StreamId::from(id), |_| true)?;
        let (issued_at, issued) = self.newest(id, |event| matches!(event, Event::KeyIssued(_)))?;
        let Event::KeyIssued(issued) = issued else { return None };
        let finding = match (last, issued.expires_at) {
            (Event::KeyRevoked(_), _) => Finding::new("key.revoked", "it was taken back"),
            (last, Some(end)) if matches!(last, Event::KeyExpired(_)) || end <= self.now => {
                Finding::new("key.expired", format!("its time ran out at {end}"))
            }
            (_, Some(end)) => Finding::new("key.good", format!("it is good until {end}")),
            (_, None) => Finding::new("key.good", "it is good until it is revoked"),
        };
        Some(only(issued.label.clone(), between(finding, issued_at, at)))
    }
}

fn only(name: Option<String>, finding: Finding) -> Reasons {
    Reasons { name, answers: None, findings: vec![finding] }
}

/// With its first and its last event.
fn between(finding: Finding, first: crate::meta::Position, last: crate::meta::Position) -> Finding {
    finding.by(Some(first)).by(Some(last).filter(|last| *last != first))
}
