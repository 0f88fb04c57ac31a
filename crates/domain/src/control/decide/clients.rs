//! Clients.

use super::{Case, Decision, checked_name, checked_text, within};
use crate::control::model::ClientStatus;
use crate::control::{Quota, Refusal};
use crate::events::{ControlEvent, v1};
use crate::ids::ClientId;
use crate::limits::{CLIENTS_MAX, PLATFORM_BYTES_MAX, REASON_BYTES_MAX};
use crate::text::{Digest32, PublicKey};

/// What a new client says of itself.
pub(super) struct Enrolment<'a> {
    pub client: ClientId,
    pub public_key: PublicKey,
    pub name: &'a str,
    pub platform: &'a str,
    pub invite_hash: Option<&'a Digest32>,
    pub open: bool,
}

impl Case<'_> {
    pub(super) fn enrol_client(&self, enrolment: &Enrolment<'_>) -> Result<Decision, Refusal> {
        // The same key again is the same client: an answer that got lost may be asked for again,
        // and no invite is used up by it.
        if let Some(known) = self.state.client_by_key(&enrolment.public_key) {
            self.active_client(known.id)?;
            return Ok(Decision::already(known.id));
        }
        let client = enrolment.client;
        if self.state.client(client).is_some() {
            return Err(Refusal::ClientExists { client });
        }
        let name = checked_name("name", enrolment.name)?;
        let platform = checked_text("platform", enrolment.platform, PLATFORM_BYTES_MAX)?;
        let invite = enrolment.invite_hash.map(|hash| self.usable_invite(hash)).transpose()?;
        if invite.is_none() && !enrolment.open {
            return Err(Refusal::InviteRequired);
        }
        within(Quota::Clients, self.state.client_count(), CLIENTS_MAX)?;

        let invite = invite.map(|invite| invite.id);
        let enrolled = v1::ClientEnrolled {
            client,
            owner: None,
            name,
            public_key: enrolment.public_key,
            platform,
            invite,
        };
        let used = invite.map(|invite| v1::InviteUsed { invite, client }.into());
        Ok(Decision::new(client, [enrolled.into()].into_iter().chain(used).collect()))
    }

    pub(super) fn rename_client(&self, client: ClientId, name: &str) -> Result<Decision, Refusal> {
        let known = self.client(client)?;
        let name = checked_name("name", name)?;
        if known.name == name {
            return Ok(Decision::already(client));
        }
        Ok(Decision::one(client, v1::ClientRenamed { client, name }.into()))
    }

    pub(super) fn block_client(&self, client: ClientId, reason: &str) -> Result<Decision, Refusal> {
        let known = self.client(client)?;
        let reason = checked_text("reason", reason, REASON_BYTES_MAX)?;
        if matches!(&known.status, ClientStatus::Blocked { reason: same } if *same == reason) {
            return Ok(Decision::already(client));
        }
        Ok(Decision::one(client, v1::ClientBlocked { client, reason }.into()))
    }

    pub(super) fn unblock_client(&self, client: ClientId) -> Result<Decision, Refusal> {
        if self.client(client)?.is_active() {
            return Ok(Decision::already(client));
        }
        Ok(Decision::one(client, v1::ClientUnblocked { client }.into()))
    }

    pub(super) fn remove_client(&self, client: ClientId) -> Result<Decision, Refusal> {
        let known = self.client(client)?;
        let mappings = self
            .state
            .mappings_of(client)
            .map(|mapping| v1::MappingRemoved { mapping: mapping.id, name: mapping.name.clone() }.into());
        let codes = self.state.open_codes_of(client).map(|code| v1::CodeRevoked { code: code.id }.into());
        let removed: ControlEvent = v1::ClientRemoved { client, name: known.name.clone() }.into();
        Ok(Decision::new(client, mappings.chain(codes).chain([removed]).collect()))
    }
}
