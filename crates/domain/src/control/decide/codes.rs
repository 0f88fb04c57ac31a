//! Connection codes.

use std::net::SocketAddr;
use std::time::Duration;

use super::mappings::checked_address;
use super::{Case, Decision, within};
use crate::control::model::{Code, CodeStatus, Ingress, MappingOptions};
use crate::control::{Quota, Refusal};
use crate::events::v1;
use crate::ids::{ClientId, CodeId, MappingId};
use crate::limits::{
    CODE_ACCESS_MAX, CODE_ACCESS_MIN, CODE_ACTIVATION_MAX, CODE_ACTIVATION_MIN, CODE_LOOKUP_BYTES_MAX,
    OPEN_CODES_PER_CLIENT_MAX,
};
use crate::text::Digest32;
use crate::time::Timestamp;

/// A code as it is offered.
pub(super) struct Offer<'a> {
    pub code: CodeId,
    pub client: ClientId,
    pub lookup: &'a str,
    pub redeem_hash: Digest32,
    pub target: &'a str,
    pub activate_until: Timestamp,
    pub access_s: u64,
    pub options: &'a MappingOptions,
}

impl Case<'_> {
    pub(super) fn issue_code(&self, offer: &Offer<'_>) -> Result<Decision, Refusal> {
        let client = self.active_client(offer.client)?;
        if self.state.code(offer.code).is_some() || self.state.code_by_lookup(offer.lookup).is_some() {
            return Err(Refusal::CodeExists);
        }
        let fits = |symbol: u8| symbol.is_ascii_alphanumeric() || symbol == b'-';
        let length = offer.lookup.len();
        if length == 0 || length > CODE_LOOKUP_BYTES_MAX || !offer.lookup.bytes().all(fits) {
            let rule = format!("1 to {CODE_LOOKUP_BYTES_MAX} letters, digits or `-`");
            return Err(Refusal::invalid("lookup", rule));
        }
        let target = checked_address("target", offer.target)?;
        self.check_options(offer.options)?;
        let (shortest, longest) =
            (self.meta.now.plus(CODE_ACTIVATION_MIN), self.meta.now.plus(CODE_ACTIVATION_MAX));
        if offer.activate_until < shortest || offer.activate_until > longest {
            return Err(Refusal::out_of("activation", CODE_ACTIVATION_MIN, CODE_ACTIVATION_MAX));
        }
        if offer.access_s < CODE_ACCESS_MIN.as_secs() || offer.access_s > CODE_ACCESS_MAX.as_secs() {
            return Err(Refusal::out_of("access", CODE_ACCESS_MIN, CODE_ACCESS_MAX));
        }
        // Those past their time can't be redeemed, so they don't count, noted or not.
        let open = self.state.open_codes_of(client.id);
        let open = open.filter(|code| code.status_at(self.meta.now) == CodeStatus::Open).count();
        within(Quota::Codes, open, OPEN_CODES_PER_CLIENT_MAX)?;

        let issued = v1::CodeIssued {
            code: offer.code,
            owner: client.owner,
            client: client.id,
            lookup: offer.lookup.to_owned(),
            redeem_hash: offer.redeem_hash,
            target,
            activate_until: offer.activate_until,
            access_s: offer.access_s,
            options: offer.options.into(),
        };
        Ok(Decision::one(offer.code, issued.into()))
    }

    pub(super) fn revoke_code(&self, code: CodeId) -> Result<Decision, Refusal> {
        match self.state.code(code).ok_or(Refusal::CodeUnknown)?.status {
            CodeStatus::Open => Ok(Decision::one(code, v1::CodeRevoked { code }.into())),
            CodeStatus::Revoked | CodeStatus::Expired => Ok(Decision::already(code)),
            CodeStatus::Redeemed { .. } => Err(Refusal::CodeUsed { code }),
        }
    }

    pub(super) fn expire_code(&self, code: CodeId) -> Result<Decision, Refusal> {
        match self.state.code(code) {
            Some(known) if known.status == CodeStatus::Open => {
                if known.activate_until > self.meta.now {
                    return Err(Refusal::NotDue);
                }
                Ok(Decision::one(code, v1::CodeExpired { code }.into()))
            }
            _ => Ok(Decision::already(code)),
        }
    }

    pub(super) fn redeem_code(
        &self,
        lookup: &str,
        proof_hash: &Digest32,
        client: ClientId,
        mapping: MappingId,
        listen: SocketAddr,
    ) -> Result<Decision, Refusal> {
        self.active_client(client)?;
        // The proof comes first: who only guesses learns nothing of a code and can't use it up.
        let code = self
            .state
            .code_by_lookup(lookup)
            .filter(|code| code.redeem_hash.matches(proof_hash))
            .ok_or(Refusal::CodeUnknown)?;
        match code.status_at(self.meta.now) {
            CodeStatus::Open => self.redeem_open(code, client, mapping, listen),
            CodeStatus::Redeemed { by, mapping } if by == client => {
                // Given up or expired, the access is over: the code gave it once.
                let mapping = self.state.mapping(mapping).ok_or(Refusal::CodeUsed { code: code.id })?;
                self.move_listener(mapping, listen)
            }
            CodeStatus::Redeemed { .. } => Err(Refusal::CodeUsed { code: code.id }),
            CodeStatus::Revoked => Err(Refusal::CodeRevoked { code: code.id }),
            CodeStatus::Expired => Err(Refusal::CodeExpired { code: code.id, at: code.activate_until }),
        }
    }

    fn redeem_open(
        &self,
        code: &Code,
        client: ClientId,
        mapping: MappingId,
        listen: SocketAddr,
    ) -> Result<Decision, Refusal> {
        self.active_client(code.client)?;
        if self.state.mapping(mapping).is_some() {
            return Err(Refusal::MappingExists { mapping });
        }
        self.free_listen(client, listen, None)?;
        self.within_mappings(client)?;
        self.within_mappings(code.client)?;

        let access_end = self.meta.now.plus(Duration::from_secs(code.access_s));
        let end = code.options.expires_at.map_or(access_end, |end| end.min(access_end));
        if end <= self.meta.now {
            return Err(Refusal::CodeExpired { code: code.id, at: end });
        }
        let redeemed = v1::CodeRedeemed { code: code.id, client, mapping };
        let created = v1::MappingCreated {
            mapping,
            owner: code.owner,
            name: self.derived_name(code.client, &code.target),
            ingress: (&Ingress::Client { client, listen }).into(),
            client: code.client,
            target: code.target.clone(),
            options: (&MappingOptions { expires_at: Some(end), ..code.options.clone() }).into(),
            code: Some(code.id),
        };
        Ok(Decision::new(mapping, vec![redeemed.into(), created.into()]))
    }
}
