//! From a command of the past to the command that compensates it.
//!
//! What an undo must not do is take back more than the one command did. So whatever the command has left is
//! compared with what is there now, and where somebody has changed it since, there is no undo.

use super::model::{Client, ClientStatus, CodeStatus, InviteStatus, Mapping, MappingStatus, OptionsChange};
use super::parts::{Part, as_changed, parts_between};
use super::{ControlCommand, ControlState, NoUndo};
use crate::aggregate::DomainEvent;
use crate::events::{ControlEvent as Event, v1};
use crate::ids::{ClientId, MappingId};
use crate::meta::{Entity, Position, StreamId};
use crate::time::Timestamp;

type Undone = Result<ControlCommand, NoUndo>;

/// One whole command of the past: its events, and what they happened to as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    events: Vec<Event>,
    mapping: Option<Mapping>,
    client: Option<Client>,
    overtaken: Option<Position>,
}

impl Past {
    /// A command by all its events, in their order, and the state before the first of them.
    pub fn new(before: &ControlState, events: Vec<Event>) -> Self {
        let mut past = Self { events, mapping: None, client: None, overtaken: None };
        let StreamId { entity, id } = past.of();
        match entity {
            Entity::Mapping => past.mapping = before.mapping(MappingId::from_bytes(id)).cloned(),
            Entity::Client => past.client = before.client(ClientId::from_bytes(id)).cloned(),
            _ => {}
        }
        past
    }

    /// The same, with the newest later event that [`overtakes`](Self::overtaken_by) it. What is gone leaves no
    /// trace in the state, so only the log can tell that it was back and went again.
    #[must_use]
    pub fn overtaken_at(mut self, at: Option<Position>) -> Self {
        self.overtaken = at;
        self
    }

    /// What the command was about: of a redeemed code the mapping it became, of an enrolment the client.
    pub fn of(&self) -> StreamId {
        let event = match self.events.as_slice() {
            [Event::CodeRedeemed(_), created, ..] => Some(created),
            [first, ..] => Some(first),
            [] => None,
        };
        event.map_or(StreamId::LOG, Event::stream)
    }

    /// Whether a later event has changed what this command had left.
    pub fn overtaken_by(&self, later: &Event) -> bool {
        if later.stream() != self.of() {
            return false;
        }
        let gone =
            matches!(later, Event::MappingRemoved(_) | Event::MappingExpired(_) | Event::ClientRemoved(_));
        gone || match self.events.as_slice() {
            [Event::MappingChanged(left)] => match (later, &self.mapping) {
                (Event::MappingChanged(later), Some(was)) => {
                    let touched = parts_between(&as_changed(was), left);
                    !touched.is_disjoint(&parts_between(left, later))
                }
                _ => false,
            },
            [Event::MappingEnabled(_) | Event::MappingDisabled(_)] => {
                matches!(later, Event::MappingEnabled(_) | Event::MappingDisabled(_))
            }
            [Event::MappingRemoved(_)] => matches!(later, Event::MappingRestored(_)),
            [Event::ClientRenamed(_)] => matches!(later, Event::ClientRenamed(_)),
            [Event::ClientBlocked(_) | Event::ClientUnblocked(_)] => {
                matches!(later, Event::ClientBlocked(_) | Event::ClientUnblocked(_))
            }
            [Event::InviteIssued(_) | Event::CodeIssued(_) | Event::KeyIssued(_)] => true,
            _ => false,
        }
    }

    fn changed(&self, what: impl Into<String>) -> NoUndo {
        NoUndo::ChangedSince { of: self.of(), what: what.into(), at: self.overtaken }
    }
}

impl ControlState {
    /// The command that undoes a whole command of the past, or why there is none. Who decides it may still be
    /// refused: a name or port may have been taken since.
    pub fn undo(&self, past: &Past, now: Timestamp) -> Undone {
        let never = |what, why| Err(NoUndo::Never { what, why });
        match past.events.as_slice() {
            [
                Event::MappingCreated(v1::MappingCreated { mapping, .. })
                | Event::MappingRestored(v1::MappingRestored { mapping, .. }),
            ]
            | [Event::CodeRedeemed(_), Event::MappingCreated(v1::MappingCreated { mapping, .. })] => {
                self.left(past, *mapping)?;
                Ok(ControlCommand::RemoveMapping { mapping: *mapping })
            }
            [Event::MappingChanged(left)] => self.undo_change(past, left, now),
            [Event::MappingEnabled(v1::MappingEnabled { mapping, .. })] => {
                self.left_as(past, *mapping, MappingStatus::Active)?;
                Ok(ControlCommand::DisableMapping { mapping: *mapping })
            }
            [Event::MappingDisabled(v1::MappingDisabled { mapping, .. })] => {
                self.left_as(past, *mapping, MappingStatus::Disabled)?;
                Ok(ControlCommand::EnableMapping { mapping: *mapping })
            }
            [Event::MappingRemoved(removed)] => self.undo_removal(past, removed.mapping, now),
            [Event::MappingExpired(_)] => never("the end of a mapping's time", "that time is over"),

            [Event::ClientEnrolled(enrolled)] | [Event::ClientEnrolled(enrolled), Event::InviteUsed(_)] => {
                self.undo_enrolment(past, enrolled.client)
            }
            [Event::ClientRenamed(renamed)] => self.undo_renaming(past, renamed),
            [Event::ClientBlocked(blocked)] => self.undo_blocking(past, blocked),
            [Event::ClientUnblocked(unblocked)] => self.undo_unblocking(past, unblocked.client),
            [.., Event::ClientRemoved(_)] => {
                never("removing a client", "it is known again only when it joins again, with an invite")
            }

            [Event::InviteIssued(v1::InviteIssued { invite, .. })] => {
                match self.invite(*invite).map(|invite| invite.status) {
                    Some(InviteStatus::Open) => Ok(ControlCommand::RevokeInvite { invite: *invite }),
                    _ => Err(past.changed("it was used, revoked or ran out since")),
                }
            }
            [Event::CodeIssued(v1::CodeIssued { code, .. })] => {
                match self.code(*code).map(|code| code.status) {
                    Some(CodeStatus::Open) => Ok(ControlCommand::RevokeCode { code: *code }),
                    _ => Err(past.changed("it was redeemed, revoked or ran out since")),
                }
            }
            [Event::KeyIssued(v1::KeyIssued { key, .. })] => match self.key(*key) {
                Some(known) if !known.revoked && !known.expired => {
                    Ok(ControlCommand::RevokeKey { key: *key })
                }
                _ => Err(past.changed("it was revoked or ran out since")),
            },
            [Event::InviteRevoked(_) | Event::InviteExpired(_)] => {
                never("the end of an invite", "a secret that was taken back stays so; issue another one")
            }
            [Event::CodeRevoked(_) | Event::CodeExpired(_)] => {
                never("the end of a code", "a secret that was taken back stays so; issue another one")
            }
            [Event::KeyRevoked(_) | Event::KeyExpired(_)] => {
                never("the end of a key", "a secret that was taken back stays so; issue another one")
            }
            [Event::NodeStarted(_) | Event::NodeStopped(_)] => {
                never("the start or stop of a node", "it says what a program did, not what somebody decided")
            }
            [Event::LogTrimmed(_)] => never("the trimming of the log", "what was deleted does not come back"),
            [Event::LogRepaired(_), ..] => {
                never("the repair of the log", "what was cut off could not be trusted")
            }
            [Event::LogCreated(_)] => never("the beginning of the log", "everything else rests on it"),
            _ => never("this", "there is no command that compensates it"),
        }
    }

    fn undo_change(&self, past: &Past, left: &v1::MappingChanged, now: Timestamp) -> Undone {
        let mapping = self.left(past, left.mapping)?;
        let Some(was) = &past.mapping else { return Err(past.changed("it is not known what it was")) };
        let touched = parts_between(&as_changed(was), left);
        let since = parts_between(left, &as_changed(mapping));
        let since: Vec<_> = touched.intersection(&since).map(|part| part.name()).collect();
        if !since.is_empty() {
            return Err(past.changed(format!("{} changed again since", since.join(", "))));
        }
        let touched = |part| touched.contains(&part);
        if let Some(at) = was.options.expires_at.filter(|end| touched(Part::ExpiresAt) && *end <= now) {
            return Err(NoUndo::Over { at });
        }
        Ok(ControlCommand::RevertMapping {
            mapping: was.id,
            name: touched(Part::Name).then(|| was.name.clone()),
            ingress: touched(Part::Ingress).then_some(was.ingress),
            target_address: touched(Part::Target).then(|| was.target.address.clone()),
            options: OptionsChange {
                seal: touched(Part::Seal).then_some(was.options.seal),
                max_connections: touched(Part::MaxConnections).then_some(was.options.max_connections),
                idle_timeout_s: touched(Part::IdleTimeout).then_some(was.options.idle_timeout_s),
                expires_at: touched(Part::ExpiresAt).then_some(was.options.expires_at),
            },
        })
    }

    fn undo_removal(&self, past: &Past, mapping: MappingId, now: Timestamp) -> Undone {
        if self.mapping(mapping).is_some() {
            return Err(past.changed("it is back already"));
        }
        if past.overtaken.is_some() {
            return Err(past.changed("it was back and went again"));
        }
        let Some(was) = &past.mapping else { return Err(past.changed("it is not known what it was")) };
        match was.options.expires_at {
            Some(at) if at <= now => Err(NoUndo::Over { at }),
            _ => Ok(ControlCommand::RestoreMapping { was: Box::new(was.clone()) }),
        }
    }

    fn undo_enrolment(&self, past: &Past, client: ClientId) -> Undone {
        self.left_client(past, client)?;
        let (mappings, codes) = (self.mappings_of(client).count(), self.open_codes_of(client).count());
        if mappings + codes > 0 {
            return Err(NoUndo::BuiltUpon { client, mappings, codes });
        }
        Ok(ControlCommand::RemoveClient { client })
    }

    fn undo_renaming(&self, past: &Past, renamed: &v1::ClientRenamed) -> Undone {
        let client = self.left_client(past, renamed.client)?;
        match &past.client {
            Some(was) if client.name == renamed.name => {
                Ok(ControlCommand::RenameClient { client: client.id, name: was.name.clone() })
            }
            _ => Err(past.changed("it was renamed again since")),
        }
    }

    fn undo_blocking(&self, past: &Past, blocked: &v1::ClientBlocked) -> Undone {
        let client = self.left_client(past, blocked.client)?;
        if client.status != (ClientStatus::Blocked { reason: blocked.reason.clone() }) {
            return Err(past.changed("it was blocked or unblocked again since"));
        }
        Ok(match past.client.as_ref().map(|was| &was.status) {
            Some(ClientStatus::Blocked { reason }) => {
                ControlCommand::BlockClient { client: client.id, reason: reason.clone() }
            }
            _ => ControlCommand::UnblockClient { client: client.id },
        })
    }

    fn undo_unblocking(&self, past: &Past, client: ClientId) -> Undone {
        let client = self.left_client(past, client)?;
        match past.client.as_ref().map(|was| &was.status) {
            Some(ClientStatus::Blocked { reason }) if client.is_active() => {
                Ok(ControlCommand::BlockClient { client: client.id, reason: reason.clone() })
            }
            _ => Err(past.changed("it was blocked again since")),
        }
    }

    fn left(&self, past: &Past, mapping: MappingId) -> Result<&Mapping, NoUndo> {
        self.mapping(mapping).ok_or_else(|| past.changed("it is gone"))
    }

    fn left_as(&self, past: &Past, mapping: MappingId, status: MappingStatus) -> Result<(), NoUndo> {
        if self.left(past, mapping)?.status == status {
            return Ok(());
        }
        Err(past.changed("it was switched on or off again since"))
    }

    fn left_client(&self, past: &Past, client: ClientId) -> Result<&Client, NoUndo> {
        self.client(client).ok_or_else(|| past.changed("it is gone"))
    }
}
