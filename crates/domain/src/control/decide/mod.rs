//! What follows from a command, or what stands in its way.
//!
//! Who may do what: a client may touch itself, what it offers, and give up what it listens for;
//! everybody else here is trusted (what API keys may do is decided by the API). What a mapping *is*
//! belongs to the client that dials the target: a listener that could change or enable it would
//! extend its own access.

mod clients;
mod codes;
mod invites;
mod keys;
mod mappings;
mod nodes;

use super::model::{Client, ClientStatus};
use super::{ControlCommand as Command, ControlState, Quota, Refusal};
use crate::aggregate;
use crate::events::ControlEvent;
use crate::ids::ClientId;
use crate::limits::LABEL_BYTES_MAX;
use crate::meta::{Actor, Meta, StreamId};
use crate::names::check_name;
use crate::time::Timestamp;

type Decision = aggregate::Decision<ControlEvent>;

pub(super) fn decide(state: &ControlState, meta: &Meta, command: &Command) -> Result<Decision, Refusal> {
    let case = Case { state, meta };
    case.authorise(command)?;
    match command {
        Command::IssueInvite { invite, secret_hash, expires_at, label } => {
            case.issue_invite(*invite, *secret_hash, *expires_at, label.clone())
        }
        Command::RevokeInvite { invite } => case.revoke_invite(*invite),
        Command::ExpireInvite { invite } => case.expire_invite(*invite),

        Command::EnrolClient { client, public_key, name, platform, invite_hash, open_enrolment } => case
            .enrol_client(&clients::Enrolment {
                client: *client,
                public_key: *public_key,
                name,
                platform,
                invite_hash: invite_hash.as_ref(),
                open: *open_enrolment,
            }),
        Command::RenameClient { client, name } => case.rename_client(*client, name),
        Command::BlockClient { client, reason } => case.block_client(*client, reason),
        Command::UnblockClient { client } => case.unblock_client(*client),
        Command::RemoveClient { client } => case.remove_client(*client),

        Command::CreateMapping { mapping, owner, name, ingress, target, options, ports, adopt } => case
            .create_mapping(&mappings::Wanted {
                id: *mapping,
                owner: *owner,
                name: name.as_deref(),
                ingress: *ingress,
                target,
                options,
                ports: *ports,
                adopt: *adopt,
            }),
        Command::ChangeMapping { mapping, name, target_address, options } => {
            case.change_mapping(*mapping, name.as_deref(), target_address.as_deref(), options)
        }
        Command::EnableMapping { mapping } => case.enable_mapping(*mapping),
        Command::DisableMapping { mapping } => case.disable_mapping(*mapping),
        Command::RemoveMapping { mapping } => case.remove_mapping(*mapping),
        Command::ExpireMapping { mapping } => case.expire_mapping(*mapping),

        Command::IssueCode {
            code,
            client,
            lookup,
            redeem_hash,
            target,
            activate_until,
            access_s,
            options,
        } => case.issue_code(&codes::Offer {
            code: *code,
            client: *client,
            lookup,
            redeem_hash: *redeem_hash,
            target,
            activate_until: *activate_until,
            access_s: *access_s,
            options,
        }),
        Command::RevokeCode { code } => case.revoke_code(*code),
        Command::ExpireCode { code } => case.expire_code(*code),
        Command::RedeemCode { lookup, proof_hash, client, mapping, listen } => {
            case.redeem_code(lookup, proof_hash, *client, *mapping, *listen)
        }

        Command::IssueKey { key, hash, scopes, label, expires_at } => {
            case.issue_key(*key, *hash, scopes, label.clone(), *expires_at)
        }
        Command::RevokeKey { key } => case.revoke_key(*key),
        Command::ExpireKey { key } => case.expire_key(*key),

        Command::StartNode { node, name, version } => Case::start_node(*node, name, version),
        Command::StopNode { node } => case.stop_node(*node),
        Command::NoteTrimmed { until, hash } => case.note_trimmed(*until, *hash),

        Command::OnlyAt { of, versions, command } => {
            case.check_version(*of, versions)?;
            decide(state, meta, command)
        }

        Command::RevertMapping { mapping, name, ingress, target_address, options } => {
            case.revert_mapping(*mapping, name.as_deref(), *ingress, target_address.as_deref(), options)
        }
        Command::RestoreMapping { was } => case.restore_mapping(was),
        Command::Undo { past, .. } => decide(state, meta, &state.undo(past, meta.now)?),
    }
}

/// One command to be decided: the state it meets, and what accompanies it.
struct Case<'a> {
    state: &'a ControlState,
    meta: &'a Meta,
}

impl<'a> Case<'a> {
    fn authorise(&self, command: &Command) -> Result<(), Refusal> {
        let Actor::Client(actor) = self.meta.actor else { return Ok(()) };
        // The gateway enrols whoever has proven a key; the invite is what allows it.
        if matches!(command, Command::EnrolClient { .. }) {
            return Ok(());
        }
        self.active_client(actor)?;
        let forbidden = |what| Err(Refusal::Forbidden { what });
        match command {
            Command::OnlyAt { command, .. } => self.authorise(command),
            Command::RenameClient { client, .. }
            | Command::RemoveClient { client }
            | Command::IssueCode { client, .. }
            | Command::RedeemCode { client, .. } => {
                if *client == actor {
                    Ok(())
                } else {
                    forbidden("a client acts for itself only")
                }
            }
            Command::CreateMapping { ingress, target, .. } => {
                let listener = match ingress {
                    super::IngressRequest::Client { client, .. } => *client,
                    super::IngressRequest::Port { .. } => actor,
                };
                if target.client == actor && listener == actor {
                    Ok(())
                } else {
                    forbidden("a client reaches another one by a connection code only")
                }
            }
            Command::RemoveMapping { mapping } => match self.state.mapping(*mapping) {
                Some(mapping) if !mapping.involves(actor) => {
                    forbidden("a client touches only mappings it takes part in")
                }
                _ => Ok(()),
            },
            Command::ChangeMapping { mapping, .. }
            | Command::EnableMapping { mapping }
            | Command::DisableMapping { mapping } => match self.state.mapping(*mapping) {
                Some(mapping) if mapping.target.client != actor => {
                    forbidden("only the client that dials the target changes a mapping")
                }
                _ => Ok(()),
            },
            Command::RevokeCode { code } => match self.state.code(*code) {
                Some(code) if code.client != actor => forbidden("a client revokes only its own codes"),
                _ => Ok(()),
            },
            _ => forbidden("clients don't administer the server"),
        }
    }

    /// An end that is yet to come, and that reads back.
    fn check_end(&self, end: Option<Timestamp>) -> Result<(), Refusal> {
        if end.is_some_and(|end| end <= self.meta.now || end > Timestamp::MAX) {
            return Err(Refusal::invalid("expires_at", "in the future, before the year 10000"));
        }
        Ok(())
    }

    fn check_version(&self, of: StreamId, versions: &[u64]) -> Result<(), Refusal> {
        match self.state.version(of) {
            Some(current) if !versions.contains(&current) => Err(Refusal::VersionMismatch { of, current }),
            _ => Ok(()),
        }
    }

    fn client(&self, client: ClientId) -> Result<&'a Client, Refusal> {
        self.state.client(client).ok_or(Refusal::ClientUnknown { client })
    }

    fn active_client(&self, client: ClientId) -> Result<&'a Client, Refusal> {
        let known = self.client(client)?;
        match &known.status {
            ClientStatus::Active => Ok(known),
            ClientStatus::Blocked { reason } => {
                Err(Refusal::ClientBlocked { client, reason: reason.clone() })
            }
        }
    }
}

/// Refuses when one more would be more than `limit`.
fn within(quota: Quota, used: usize, limit: usize) -> Result<(), Refusal> {
    if used < limit {
        return Ok(());
    }
    Err(Refusal::Quota { quota, limit: limit as u64, used: used as u64 })
}

fn checked_name(field: &'static str, name: &str) -> Result<String, Refusal> {
    check_name(name).map_err(|rule| Refusal::invalid(field, rule.to_string()))?;
    Ok(name.to_owned())
}

/// A text for people: not too long, nothing that moves a cursor.
fn checked_text(field: &'static str, text: &str, bytes_max: usize) -> Result<String, Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::invalid(field, format!("at most {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "one line, without control characters"));
    }
    Ok(text.to_owned())
}

fn checked_label(label: Option<String>) -> Result<Option<String>, Refusal> {
    label.map(|label| checked_text("label", &label, LABEL_BYTES_MAX)).transpose()
}
