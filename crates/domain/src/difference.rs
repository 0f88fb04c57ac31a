//! What changed between two read models of one log.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::activity::ActivityState;
use crate::control::ControlState;
use crate::meta::{Entity, StreamId};

/// Hashes of secrets: not secret themselves, but nobody needs them to see what changed, and no answer of the
/// API shows them.
const LEFT_OUT: [&str; 3] = ["hash", "secret_hash", "redeem_hash"];

/// One entity that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    #[serde(serialize_with = "entity")]
    pub entity: Entity,
    /// Which one, as the text of its id.
    pub id: String,
    /// What it was; `None`: it is new.
    pub before: Option<Value>,
    /// What it is; `None`: it is gone.
    pub after: Option<Value>,
}

/// What changed, by kind of entity and id.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// The first changes, as many as were asked for.
    pub changes: Vec<Change>,
    /// How many entities are new, in all.
    pub added: usize,
    /// How many are others than they were, in all.
    pub changed: usize,
    /// How many are gone, in all.
    pub removed: usize,
    /// The most changes that are listed.
    #[serde(skip)]
    limit: usize,
}

/// Read models that can be compared.
pub trait Compare {
    /// What changed from `self` to `after`. At most `limit` changes are listed, all are counted. Two states of
    /// one log are meant; the time it takes is that of going through both.
    fn difference(&self, after: &Self, limit: usize) -> Difference;
}

impl Difference {
    fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// How many entities differ.
    pub fn total(&self) -> usize {
        self.added + self.changed + self.removed
    }

    /// Whether there are changes that are not listed.
    pub fn more(&self) -> bool {
        self.total() > self.changes.len()
    }

    /// Goes through the entities of one kind, which both states have in the order of their ids.
    fn merge<'a, I, T>(
        &mut self,
        before: impl Iterator<Item = (I, &'a T)>,
        after: impl Iterator<Item = (I, &'a T)>,
    ) where
        I: Copy + Ord + Into<StreamId>,
        T: PartialEq + Serialize + 'a,
    {
        let (mut before, mut after) = (before.peekable(), after.peekable());
        loop {
            let (id, was, is) = match (before.peek().copied(), after.peek().copied()) {
                (None, None) => return,
                (Some((id, was)), None) => (id, Some(was), None),
                (None, Some((id, is))) => (id, None, Some(is)),
                (Some((id, was)), Some((other, _))) if id < other => (id, Some(was), None),
                (Some((other, _)), Some((id, is))) if id < other => (id, None, Some(is)),
                (Some((id, was)), Some((_, is))) => (id, Some(was), Some(is)),
            };
            if was.is_some() {
                before.next();
            }
            if is.is_some() {
                after.next();
            }
            self.note(id.into(), was, is);
        }
    }

    fn note<T: PartialEq + Serialize>(&mut self, of: StreamId, was: Option<&T>, is: Option<&T>) {
        match (was, is) {
            (None, Some(_)) => self.added += 1,
            (Some(_), None) => self.removed += 1,
            (Some(was), Some(is)) if was != is => self.changed += 1,
            _ => return,
        }
        if self.changes.len() < self.limit {
            let text = of.to_string();
            let id = text.split_once('/').map_or(text.as_str(), |(_, id)| id).to_owned();
            let (before, after) = (was.map(shown), is.map(shown));
            self.changes.push(Change { entity: of.entity, id, before, after });
        }
    }
}

impl Compare for ControlState {
    /// Clients, mappings, codes, invites, keys, nodes.
    fn difference(&self, after: &Self, limit: usize) -> Difference {
        let mut found = Difference::new(limit);
        found.merge(self.clients().map(|it| (it.id, it)), after.clients().map(|it| (it.id, it)));
        found.merge(self.mappings().map(|it| (it.id, it)), after.mappings().map(|it| (it.id, it)));
        found.merge(self.codes().map(|it| (it.id, it)), after.codes().map(|it| (it.id, it)));
        found.merge(self.invites().map(|it| (it.id, it)), after.invites().map(|it| (it.id, it)));
        found.merge(self.keys().map(|it| (it.id, it)), after.keys().map(|it| (it.id, it)));
        found.merge(self.nodes().map(|it| (it.id, it)), after.nodes().map(|it| (it.id, it)));
        found
    }
}

impl Compare for ActivityState {
    /// Sessions, and under the name of each mapping what passed through it. Failed authentications are
    /// nothing that changes: the events themselves list them.
    fn difference(&self, after: &Self, limit: usize) -> Difference {
        let mut found = Difference::new(limit);
        let (was, is) = (self.sessions(), after.sessions());
        found.merge(was.into_iter().map(|it| (it.id, it)), is.into_iter().map(|it| (it.id, it)));
        found.merge(self.usages(), after.usages());
        found
    }
}

/// Entities have text keys and no floats, so this can't fail.
fn shown(entity: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(entity).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for field in LEFT_OUT {
            fields.remove(field);
        }
    }
    value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn entity<S: Serializer>(entity: &Entity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(entity.as_str())
}
