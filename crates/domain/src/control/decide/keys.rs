//! API keys.

use super::{Case, Decision, checked_label, within};
use crate::control::model::Scope;
use crate::control::{Quota, Refusal};
use crate::events::v1;
use crate::ids::KeyId;
use crate::limits::{ACTIVE_KEYS_MAX, SCOPES_MAX};
use crate::text::Digest32;
use crate::time::Timestamp;

impl Case<'_> {
    pub(super) fn issue_key(
        &self,
        key: KeyId,
        hash: Digest32,
        scopes: &[Scope],
        label: Option<String>,
        expires_at: Option<Timestamp>,
    ) -> Result<Decision, Refusal> {
        if self.state.key(key).is_some() || self.state.key_by_hash(&hash).is_some() {
            return Err(Refusal::KeyExists { key });
        }
        if scopes.is_empty() || scopes.len() > SCOPES_MAX {
            return Err(Refusal::invalid("scopes", format!("from 1 to {SCOPES_MAX}")));
        }
        self.check_end(expires_at)?;
        let label = checked_label(label)?;
        within(Quota::Keys, self.state.active_key_count(), ACTIVE_KEYS_MAX)?;
        let scopes = scopes.iter().copied().map(Into::into).collect();
        Ok(Decision::one(key, v1::KeyIssued { key, hash, scopes, label, expires_at }.into()))
    }

    pub(super) fn revoke_key(&self, key: KeyId) -> Result<Decision, Refusal> {
        let known = self.state.key(key).ok_or(Refusal::KeyUnknown { key })?;
        if known.revoked || known.expired {
            return Ok(Decision::already(key));
        }
        Ok(Decision::one(key, v1::KeyRevoked { key }.into()))
    }

    pub(super) fn expire_key(&self, key: KeyId) -> Result<Decision, Refusal> {
        match self.state.key(key) {
            Some(known) if !known.revoked && !known.expired => {
                if known.expires_at.is_none_or(|end| end > self.meta.now) {
                    return Err(Refusal::NotDue);
                }
                Ok(Decision::one(key, v1::KeyExpired { key }.into()))
            }
            _ => Ok(Decision::already(key)),
        }
    }
}
