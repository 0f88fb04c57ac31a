//! What events make of the state. Total: an event that speaks of something unknown changes nothing.

use super::model::{
    ApiKey, Client, ClientStatus, Code, CodeStatus, Invite, InviteStatus, Mapping, MappingStatus, Node,
    Target,
};
use super::state::ControlState;
use crate::events::ControlEvent as Event;
use crate::ids::{ClientId, CodeId, InviteId, KeyId, MappingId};
use crate::meta::EventMeta;

#[expect(clippy::too_many_lines, reason = "a table: one arm for each kind")]
pub(super) fn evolve(state: &mut ControlState, event: &Event, at: &EventMeta) {
    match event {
        Event::LogCreated(event) => state.log = Some(event.log),

        Event::InviteIssued(event) => state.put_invite(
            Invite {
                id: event.invite,
                secret_hash: event.secret_hash,
                expires_at: event.expires_at,
                label: event.label.clone(),
                status: InviteStatus::Open,
                issued_at: at.recorded_at,
                issued_by: at.actor,
                version: 1,
            },
            at.position,
        ),
        Event::InviteUsed(event) => {
            close_invite(state, event.invite, InviteStatus::Used { by: event.client }, at);
        }
        Event::InviteRevoked(event) => close_invite(state, event.invite, InviteStatus::Revoked, at),
        Event::InviteExpired(event) => close_invite(state, event.invite, InviteStatus::Expired, at),

        Event::ClientEnrolled(event) => state.put_client(Client {
            id: event.client,
            owner: event.owner,
            name: event.name.clone(),
            public_key: event.public_key,
            platform: event.platform.clone(),
            status: ClientStatus::Active,
            enrolled_at: at.recorded_at,
            invite: event.invite,
            version: 1,
        }),
        Event::ClientRenamed(event) => {
            change_client(state, event.client, |client| client.name.clone_from(&event.name));
        }
        Event::ClientBlocked(event) => change_client(state, event.client, |client| {
            client.status = ClientStatus::Blocked { reason: event.reason.clone() };
        }),
        Event::ClientUnblocked(event) => {
            change_client(state, event.client, |client| client.status = ClientStatus::Active);
        }
        Event::ClientRemoved(event) => {
            state.take_client(event.client);
        }

        Event::MappingCreated(event) => state.put_mapping(Mapping {
            id: event.mapping,
            owner: event.owner,
            name: event.name.clone(),
            ingress: (&event.ingress).into(),
            target: Target { client: event.client, address: event.target.clone() },
            options: (&event.options).into(),
            status: MappingStatus::Active,
            code: event.code,
            created_at: at.recorded_at,
            created_by: at.actor,
            version: 1,
        }),
        // It may have been back before: only the log knows how many events it has by now.
        Event::MappingRestored(event) => state.put_mapping(Mapping {
            id: event.mapping,
            owner: event.owner,
            name: event.name.clone(),
            ingress: (&event.ingress).into(),
            target: Target { client: event.client, address: event.target.clone() },
            options: (&event.options).into(),
            status: if event.enabled { MappingStatus::Active } else { MappingStatus::Disabled },
            code: event.code,
            created_at: event.created_at,
            created_by: event.created_by.into(),
            version: at.stream_version,
        }),
        Event::MappingChanged(event) => change_mapping(state, event.mapping, |mapping| {
            mapping.name.clone_from(&event.name);
            mapping.ingress = (&event.ingress).into();
            mapping.target.address.clone_from(&event.target);
            mapping.options = (&event.options).into();
        }),
        Event::MappingEnabled(event) => {
            change_mapping(state, event.mapping, |mapping| mapping.status = MappingStatus::Active);
        }
        Event::MappingDisabled(event) => {
            change_mapping(state, event.mapping, |mapping| mapping.status = MappingStatus::Disabled);
        }
        Event::MappingRemoved(event) => {
            state.take_mapping(event.mapping);
        }
        Event::MappingExpired(event) => {
            state.take_mapping(event.mapping);
        }

        Event::CodeIssued(event) => state.put_code(
            Code {
                id: event.code,
                owner: event.owner,
                client: event.client,
                lookup: event.lookup.clone(),
                redeem_hash: event.redeem_hash,
                target: event.target.clone(),
                activate_until: event.activate_until,
                access_s: event.access_s,
                options: (&event.options).into(),
                status: CodeStatus::Open,
                issued_at: at.recorded_at,
                version: 1,
            },
            at.position,
        ),
        Event::CodeRedeemed(event) => {
            let status = CodeStatus::Redeemed { by: event.client, mapping: event.mapping };
            close_code(state, event.code, status, at);
        }
        Event::CodeRevoked(event) => close_code(state, event.code, CodeStatus::Revoked, at),
        Event::CodeExpired(event) => close_code(state, event.code, CodeStatus::Expired, at),

        Event::KeyIssued(event) => state.put_key(
            ApiKey {
                id: event.key,
                hash: event.hash,
                scopes: event.scopes.iter().copied().map(Into::into).collect(),
                label: event.label.clone(),
                expires_at: event.expires_at,
                revoked: false,
                expired: false,
                issued_at: at.recorded_at,
                version: 1,
            },
            at.position,
        ),
        Event::KeyRevoked(event) => close_key(state, event.key, |key| key.revoked = true, at),
        Event::KeyExpired(event) => close_key(state, event.key, |key| key.expired = true, at),

        Event::NodeStarted(event) => state.put_node(Node {
            id: event.node,
            name: event.name.clone(),
            version_text: event.version.clone(),
            started_at: at.recorded_at,
            stopped_at: None,
        }),
        Event::NodeStopped(event) => {
            if let Some(mut node) = state.node(event.node).cloned() {
                node.stopped_at = Some(at.recorded_at);
                state.put_node(node);
            }
        }

        Event::LogTrimmed(event) => state.trimmed = state.trimmed.max(event.until),
        // What it cut off was never in this state.
        Event::LogRepaired(_) => {}
    }
}

fn change_client(state: &mut ControlState, id: ClientId, change: impl FnOnce(&mut Client)) {
    state.change_client(id, |client| {
        change(client);
        client.version += 1;
    });
}

fn change_mapping(state: &mut ControlState, id: MappingId, change: impl FnOnce(&mut Mapping)) {
    state.change_mapping(id, |mapping| {
        change(mapping);
        mapping.version += 1;
    });
}

fn close_code(state: &mut ControlState, id: CodeId, status: CodeStatus, at: &EventMeta) {
    if let Some(mut code) = state.take_code(id) {
        code.status = status;
        code.version += 1;
        state.put_code(code, at.position);
    }
}

fn close_invite(state: &mut ControlState, id: InviteId, status: InviteStatus, at: &EventMeta) {
    if let Some(mut invite) = state.take_invite(id) {
        invite.status = status;
        invite.version += 1;
        state.put_invite(invite, at.position);
    }
}

fn close_key(state: &mut ControlState, id: KeyId, close: impl FnOnce(&mut ApiKey), at: &EventMeta) {
    if let Some(mut key) = state.take_key(id) {
        close(&mut key);
        key.version += 1;
        state.put_key(key, at.position);
    }
}
