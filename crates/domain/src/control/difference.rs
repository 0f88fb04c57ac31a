//! What is different between two states: what came, what went, what changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::ControlState;
use super::model::{
    ApiKey, Client, ClientStatus, Code, CodeStatus, Ingress, Invite, InviteStatus, Mapping, MappingStatus,
    Node,
};
use crate::maps::Table;
use crate::meta::StreamId;

/// The differences between two states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Clients first, then mappings, codes, invites, keys and nodes, each by id.
    pub changes: Vec<Change>,
    /// Whether there are more than were asked for.
    pub cut: bool,
}

/// How one thing is different.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which thing.
    pub of: StreamId,
    /// What it is called in the later state, else in the earlier one.
    pub name: Option<String>,
    /// Whether it is there in both.
    pub kind: ChangeKind,
    /// What is different of it; of a thing that came or went, everything it has. Never a secret or its hash.
    pub fields: Vec<FieldChange>,
}

/// Whether a thing is in both states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// In the later one alone.
    Added,
    /// In both.
    Changed,
    /// In the earlier one alone.
    Removed,
}

/// How one field is different.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Its name.
    pub field: &'static str,
    /// What it was; null where there was nothing.
    pub before: Value,
    /// What it is; null where there is nothing.
    pub after: Value,
}

type Fields = BTreeMap<&'static str, Value>;

/// A thing that can be compared, as people see it. Versions are left out: they say that something changed, not
/// what.
trait Shown: PartialEq {
    fn name(&self) -> Option<String>;
    fn fields(&self) -> Fields;
}

impl ControlState {
    /// What came, went and changed from this state to `later`, `limit` things at the most.
    pub fn difference(&self, later: &Self, limit: usize) -> Difference {
        let mut found = Difference::default();
        compare(&self.clients, &later.clients, limit, &mut found);
        compare(&self.mappings, &later.mappings, limit, &mut found);
        compare(&self.codes, &later.codes, limit, &mut found);
        compare(&self.invites, &later.invites, limit, &mut found);
        compare(&self.keys, &later.keys, limit, &mut found);
        compare(&self.nodes, &later.nodes, limit, &mut found);
        found
    }
}

/// Both maps are in the order of ids, so one walk through both finds all.
fn compare<I, T>(before: &Table<I, T>, after: &Table<I, T>, limit: usize, found: &mut Difference)
where
    I: Copy + Ord + Into<StreamId>,
    T: Shown + Clone,
{
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    while !found.cut {
        let (id, was, is) = match (old.peek().copied(), new.peek().copied()) {
            (None, None) => return,
            (Some((id, was)), None) => (*id, Some(was), None),
            (None, Some((id, is))) => (*id, None, Some(is)),
            (Some((a, was)), Some((b, is))) => match a.cmp(b) {
                std::cmp::Ordering::Less => (*a, Some(was), None),
                std::cmp::Ordering::Equal => (*a, Some(was), Some(is)),
                std::cmp::Ordering::Greater => (*b, None, Some(is)),
            },
        };
        if was.is_some() {
            old.next();
        }
        if is.is_some() {
            new.next();
        }
        let Some(change) = change(id.into(), was, is) else { continue };
        if found.changes.len() == limit {
            found.cut = true;
        } else {
            found.changes.push(change);
        }
    }
}

fn change<T: Shown>(of: StreamId, was: Option<&T>, is: Option<&T>) -> Option<Change> {
    if was == is {
        return None;
    }
    let kind = match (was, is) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    };
    let (mut before, after) =
        (was.map(Shown::fields).unwrap_or_default(), is.map(Shown::fields).unwrap_or_default());
    let mut fields = Vec::new();
    for (field, after) in after {
        let before = before.remove(field).unwrap_or_default();
        if before != after {
            fields.push(FieldChange { field, before, after });
        }
    }
    let gone = before.into_iter().filter(|(_, before)| !before.is_null());
    fields.extend(gone.map(|(field, before)| FieldChange { field, before, after: Value::Null }));
    fields.sort_by_key(|change| change.field);
    let name = is.or(was).and_then(Shown::name);
    // Changed and changed back: only the version says so.
    (!fields.is_empty()).then_some(Change { of, name, kind, fields })
}

impl Shown for Client {
    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn fields(&self) -> Fields {
        let (status, reason) = match &self.status {
            ClientStatus::Active => ("active", None),
            ClientStatus::Blocked { reason } => ("blocked", Some(reason)),
        };
        Fields::from([
            ("owner", json!(self.owner)),
            ("name", json!(self.name)),
            ("public_key", json!(self.public_key)),
            ("platform", json!(self.platform)),
            ("status", json!(status)),
            ("reason", json!(reason)),
            ("enrolled_at", json!(self.enrolled_at)),
            ("invite", json!(self.invite)),
        ])
    }
}

impl Shown for Mapping {
    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn fields(&self) -> Fields {
        let (ingress, listen_client, listen) = match self.ingress {
            Ingress::Client { client, listen } => ("client", Some(client), Some(listen)),
            Ingress::Port { .. } => ("port", None, None),
        };
        let status = match self.status {
            MappingStatus::Active => "active",
            MappingStatus::Disabled => "disabled",
        };
        Fields::from([
            ("owner", json!(self.owner)),
            ("name", json!(self.name)),
            ("ingress", json!(ingress)),
            ("port", json!(self.port())),
            ("listen_client", json!(listen_client)),
            ("listen", json!(listen)),
            ("target_client", json!(self.target.client)),
            ("target", json!(self.target.address)),
            ("seal", seal(&self.options)),
            ("max_connections", json!(self.options.max_connections)),
            ("idle_timeout_s", json!(self.options.idle_timeout_s)),
            ("expires_at", json!(self.options.expires_at)),
            ("status", json!(status)),
            ("code", json!(self.code)),
            ("created_at", json!(self.created_at)),
            ("created_by", json!(self.created_by)),
        ])
    }
}

impl Shown for Code {
    fn name(&self) -> Option<String> {
        Some(self.lookup.clone())
    }

    fn fields(&self) -> Fields {
        let (status, by, mapping) = match self.status {
            CodeStatus::Open => ("open", None, None),
            CodeStatus::Redeemed { by, mapping } => ("redeemed", Some(by), Some(mapping)),
            CodeStatus::Revoked => ("revoked", None, None),
            CodeStatus::Expired => ("expired", None, None),
        };
        Fields::from([
            ("owner", json!(self.owner)),
            ("client", json!(self.client)),
            ("lookup", json!(self.lookup)),
            ("target", json!(self.target)),
            ("activate_until", json!(self.activate_until)),
            ("access_s", json!(self.access_s)),
            ("seal", seal(&self.options)),
            ("max_connections", json!(self.options.max_connections)),
            ("idle_timeout_s", json!(self.options.idle_timeout_s)),
            ("expires_at", json!(self.options.expires_at)),
            ("status", json!(status)),
            ("redeemed_by", json!(by)),
            ("mapping", json!(mapping)),
            ("issued_at", json!(self.issued_at)),
        ])
    }
}

impl Shown for Invite {
    fn name(&self) -> Option<String> {
        self.label.clone()
    }

    fn fields(&self) -> Fields {
        let (status, by) = match self.status {
            InviteStatus::Open => ("open", None),
            InviteStatus::Used { by } => ("used", Some(by)),
            InviteStatus::Revoked => ("revoked", None),
            InviteStatus::Expired => ("expired", None),
        };
        Fields::from([
            ("label", json!(self.label)),
            ("expires_at", json!(self.expires_at)),
            ("status", json!(status)),
            ("used_by", json!(by)),
            ("issued_at", json!(self.issued_at)),
            ("issued_by", json!(self.issued_by)),
        ])
    }
}

impl Shown for ApiKey {
    fn name(&self) -> Option<String> {
        self.label.clone()
    }

    fn fields(&self) -> Fields {
        let status = match (self.revoked, self.expired) {
            (true, _) => "revoked",
            (false, true) => "expired",
            (false, false) => "good",
        };
        let scopes: Vec<_> = self.scopes.iter().map(|scope| crate::events::v1::Scope::from(*scope)).collect();
        Fields::from([
            ("label", json!(self.label)),
            ("scopes", json!(scopes)),
            ("expires_at", json!(self.expires_at)),
            ("status", json!(status)),
            ("issued_at", json!(self.issued_at)),
        ])
    }
}

impl Shown for Node {
    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn fields(&self) -> Fields {
        Fields::from([
            ("name", json!(self.name)),
            ("version", json!(self.version_text)),
            ("started_at", json!(self.started_at)),
            ("stopped_at", json!(self.stopped_at)),
        ])
    }
}

fn seal(options: &super::MappingOptions) -> Value {
    json!(crate::events::v1::Options::from(options).seal)
}
