//! The parts of a mapping that can change, each for itself.

use std::collections::BTreeSet;

use super::model::Mapping;
use crate::events::v1;

/// A part of a mapping that can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Name,
    Ingress,
    Target,
    Seal,
    MaxConnections,
    IdleTimeout,
    ExpiresAt,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Ingress => "ingress",
            Self::Target => "target",
            Self::Seal => "seal",
            Self::MaxConnections => "max_connections",
            Self::IdleTimeout => "idle_timeout_s",
            Self::ExpiresAt => "expires_at",
        }
    }
}

/// In which parts the two differ.
pub(super) fn parts_between(a: &v1::MappingChanged, b: &v1::MappingChanged) -> BTreeSet<Part> {
    let (old, new) = (&a.options, &b.options);
    let all = [
        (Part::Name, a.name != b.name),
        (Part::Ingress, a.ingress != b.ingress),
        (Part::Target, a.target != b.target),
        (Part::Seal, old.seal != new.seal),
        (Part::MaxConnections, old.max_connections != new.max_connections),
        (Part::IdleTimeout, old.idle_timeout_s != new.idle_timeout_s),
        (Part::ExpiresAt, old.expires_at != new.expires_at),
    ];
    all.into_iter().filter_map(|(part, differs)| differs.then_some(part)).collect()
}

/// The mapping as an event would say that it has become so.
pub(super) fn as_changed(mapping: &Mapping) -> v1::MappingChanged {
    v1::MappingChanged {
        mapping: mapping.id,
        name: mapping.name.clone(),
        ingress: (&mapping.ingress).into(),
        target: mapping.target.address.clone(),
        options: (&mapping.options).into(),
    }
}
