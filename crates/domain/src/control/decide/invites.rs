//! Invites.

use super::{Case, Decision, checked_label, within};
use crate::control::model::{Invite, InviteStatus};
use crate::control::{Quota, Refusal};
use crate::events::v1;
use crate::ids::InviteId;
use crate::limits::{INVITE_TTL_MAX, OPEN_INVITES_MAX};
use crate::text::Digest32;
use crate::time::Timestamp;

impl<'a> Case<'a> {
    pub(super) fn issue_invite(
        &self,
        invite: InviteId,
        secret_hash: Digest32,
        expires_at: Timestamp,
        label: Option<String>,
    ) -> Result<Decision, Refusal> {
        if self.state.invite(invite).is_some() || self.state.invite_by_hash(&secret_hash).is_some() {
            return Err(Refusal::InviteExists { invite });
        }
        if expires_at <= self.meta.now || expires_at > self.meta.now.plus(INVITE_TTL_MAX) {
            let days = INVITE_TTL_MAX.as_secs() / (24 * 3600);
            return Err(Refusal::invalid("expires_at", format!("in the future, at most {days} days ahead")));
        }
        let label = checked_label(label)?;
        within(Quota::Invites, self.state.open_invite_count(), OPEN_INVITES_MAX)?;
        Ok(Decision::one(invite, v1::InviteIssued { invite, secret_hash, expires_at, label }.into()))
    }

    pub(super) fn revoke_invite(&self, invite: InviteId) -> Result<Decision, Refusal> {
        match self.state.invite(invite).ok_or(Refusal::InviteUnknown)?.status {
            InviteStatus::Open => Ok(Decision::one(invite, v1::InviteRevoked { invite }.into())),
            InviteStatus::Revoked | InviteStatus::Expired => Ok(Decision::already(invite)),
            InviteStatus::Used { .. } => Err(Refusal::InviteUsed { invite }),
        }
    }

    pub(super) fn expire_invite(&self, invite: InviteId) -> Result<Decision, Refusal> {
        match self.state.invite(invite) {
            Some(known) if known.status == InviteStatus::Open => {
                if known.expires_at > self.meta.now {
                    return Err(Refusal::NotDue);
                }
                Ok(Decision::one(invite, v1::InviteExpired { invite }.into()))
            }
            _ => Ok(Decision::already(invite)),
        }
    }

    /// The invite whose secret has this hash, if it can be used now.
    pub(super) fn usable_invite(&self, secret_hash: &Digest32) -> Result<&'a Invite, Refusal> {
        let known = self.state.invite_by_hash(secret_hash).ok_or(Refusal::InviteUnknown)?;
        let invite = known.id;
        match known.status_at(self.meta.now) {
            InviteStatus::Open => Ok(known),
            InviteStatus::Used { .. } => Err(Refusal::InviteUsed { invite }),
            InviteStatus::Revoked => Err(Refusal::InviteRevoked { invite }),
            InviteStatus::Expired => Err(Refusal::InviteExpired { invite, at: known.expires_at }),
        }
    }
}
