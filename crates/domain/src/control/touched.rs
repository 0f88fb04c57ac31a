//! What may have to be served otherwise than a moment ago, found without looking at everything.

use std::collections::BTreeSet;

use super::state::{ControlState, Due};
use super::{Client, Mapping};
use crate::ids::{ClientId, MappingId};
use crate::time::Timestamp;

/// Mappings that may be served otherwise than before, and the clients that take part in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Those that came, went or changed, whose time ran out, or whose clients were blocked or let in again.
    pub mappings: BTreeSet<MappingId>,
    /// Who takes part in one of them, or did; and those that came, went, or were blocked or let in again.
    pub clients: BTreeSet<ClientId>,
}

impl ControlState {
    /// What may be served otherwise in this state and at `now` than in the state `before` at `then`. The cost is
    /// that of what has changed: the two states share the rest, and what they share is not looked at.
    pub fn touched_since(&self, before: &Self, then: Timestamp, now: Timestamp) -> Touched {
        let mut touched = Touched::default();
        for (_, was, is) in self.clients.changes_since(&before.clients) {
            if was.map(Client::is_active) == is.map(Client::is_active) {
                continue;
            }
            let Some(client) = was.or(is) else { continue };
            touched.clients.insert(client.id);
            for mapping in before.mappings_of(client.id).chain(self.mappings_of(client.id)) {
                touched.add(mapping);
            }
        }
        // By comparison, not by the maps' own difference: a removal must never be missed.
        for (id, is) in self.mappings.iter() {
            let was = before.mappings.get(id);
            if was != Some(is) {
                was.into_iter().chain([is]).for_each(|mapping| touched.add(mapping));
            }
        }
        for (id, was) in before.mappings.iter() {
            if self.mappings.get(id).is_none() {
                touched.add(was);
            }
        }
        // A clock may be set back, too.
        let between = (then.min(now), Due::FIRST)..=(then.max(now), Due::LAST);
        for (_, due) in self.deadlines.range(between) {
            if let Due::Mapping(id) = due
                && let Some(mapping) = self.mapping(*id)
            {
                touched.add(mapping);
            }
        }
        touched
    }
}

impl Touched {
    fn add(&mut self, mapping: &Mapping) {
        self.mappings.insert(mapping.id);
        self.clients.insert(mapping.target.client);
        self.clients.extend(mapping.listener());
    }
}
