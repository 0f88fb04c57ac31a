//! What the server wants served, and the difference to what is.
//!
//! Desired state comes whole, with its position. Pure: sockets are the business of [`crate::serving`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use underpass_domain::{ClientId, MappingId};
use underpass_wire::link;

use crate::allow::TargetAddress;

/// From which point of which log a desired state was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) log: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) position: u64,
}

impl Version {
    /// Whether this state is of the past. Another log is another story: there its order says nothing.
    pub(crate) fn is_before(&self, applied: &Self) -> bool {
        self.log == applied.log && (self.epoch, self.position) < (applied.epoch, applied.position)
    }
}

/// The client at the other end of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) client: ClientId,
    /// As the server's directory says; believed only on first use, and only where no code was involved.
    pub(crate) key: [u8; 32],
}

/// What this client does for a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) mapping: MappingId,
    pub(crate) name: String,
    /// Listen here for callers.
    pub(crate) listen: Option<Listen>,
    /// Dial this target for tunnels.
    pub(crate) offer: Option<Offer>,
    /// Whether tunnels must be sealed.
    pub(crate) sealed: bool,
    /// Tunnels on which nothing passes for this long end.
    pub(crate) idle_timeout: Option<Duration>,
    /// The lookup half of the connection code it was made with.
    pub(crate) code: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    /// Who dials the target.
    pub(crate) peer: Peer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) target: TargetAddress,
    /// Who listens; `None` when callers come in at a public port.
    pub(crate) peer: Option<Peer>,
}

impl Wanted {
    /// The clients at the other end.
    pub(crate) fn peers(&self) -> (Option<Peer>, Option<Peer>) {
        (self.listen.as_ref().map(|listen| listen.peer), self.offer.as_ref().and_then(|offer| offer.peer))
    }
}

/// Why one mapping of a desired state can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NotUnderstood {
    pub(crate) mapping: MappingId,
    pub(crate) what: String,
}

/// Reads a desired state. What one mapping says wrong costs that mapping alone.
pub(crate) fn read(desired: &link::Desired) -> Option<(Version, Vec<Result<Wanted, NotUnderstood>>)> {
    let log = desired.log_id.as_slice().try_into().ok()?;
    let version = Version { log, epoch: desired.epoch, position: desired.position };
    Some((version, desired.mappings.iter().filter_map(read_one).collect()))
}

/// `None` for a mapping without an id: nothing can be said about it.
fn read_one(mapping: &link::DesiredMapping) -> Option<Result<Wanted, NotUnderstood>> {
    let id = MappingId::from_bytes(mapping.id.as_slice().try_into().ok()?);
    Some(understand(id, mapping).map_err(|what| NotUnderstood { mapping: id, what }))
}

fn understand(mapping: MappingId, from: &link::DesiredMapping) -> Result<Wanted, String> {
    let peer = |client: &[u8], key: &[u8]| -> Result<Peer, String> {
        let client = client.try_into().map_err(|_| "the id of the client at the other end is missing")?;
        let key = key.try_into().map_err(|_| "the key of the client at the other end is missing")?;
        Ok(Peer { client: ClientId::from_bytes(client), key })
    };
    let by_client = match from.ingress() {
        link::IngressKind::Client => true,
        link::IngressKind::Port => false,
        link::IngressKind::Unspecified => return Err("this program does not know its kind of ingress".into()),
    };
    let (listens, offers) = match from.role() {
        link::MappingRole::Listen => (true, false),
        link::MappingRole::Target => (false, true),
        link::MappingRole::Both => (true, true),
        link::MappingRole::Unspecified => return Err("this program does not know its role".into()),
    };
    if listens && !by_client {
        return Err("a client can't listen for a public port".into());
    }
    let listen = if listens {
        let address =
            from.listen.parse().map_err(|_| format!("`{}` is no address to listen on", from.listen))?;
        Some(Listen { address, peer: peer(&from.target_client, &from.target_key)? })
    } else {
        None
    };
    let offer = if offers {
        let target = from.target.parse().map_err(|error: crate::AgentError| error.to_string())?;
        let peer = if by_client { Some(peer(&from.listen_client, &from.listen_key)?) } else { None };
        Some(Offer { target, peer })
    } else {
        None
    };
    Ok(Wanted {
        mapping,
        name: from.name.clone(),
        listen,
        offer,
        sealed: from.seal() != link::Seal::Off,
        idle_timeout: from
            .idle_timeout_s
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())),
        code: Some(&from.code_lookup).filter(|lookup| !lookup.is_empty()).cloned(),
    })
}

/// What to do to get from one state to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Served from now on.
    pub(crate) added: Vec<Arc<Wanted>>,
    /// Served differently; what runs goes on.
    pub(crate) changed: Vec<Arc<Wanted>>,
    /// Not served any more; what runs ends.
    pub(crate) removed: Vec<MappingId>,
}

/// The difference. What is in neither list stays untouched (C19).
pub(crate) fn plan(current: &BTreeMap<MappingId, Arc<Wanted>>, wanted: &[Wanted]) -> Plan {
    let mut plan = Plan::default();
    for one in wanted {
        match current.get(&one.mapping) {
            None => plan.added.push(Arc::new(one.clone())),
            Some(known) if **known != *one => plan.changed.push(Arc::new(one.clone())),
            Some(_) => {}
        }
    }
    let kept: std::collections::BTreeSet<_> = wanted.iter().map(|one| one.mapping).collect();
    plan.removed = current.keys().filter(|mapping| !kept.contains(mapping)).copied().collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> MappingId {
        MappingId::from_bytes([number; 16])
    }

    fn wanted(number: u8, port: u16) -> Wanted {
        Wanted {
            mapping: id(number),
            name: format!("m{number}"),
            listen: Some(Listen {
                address: SocketAddr::from(([127, 0, 0, 1], port)),
                peer: Peer { client: ClientId::from_bytes([9; 16]), key: [9; 32] },
            }),
            offer: None,
            sealed: true,
            idle_timeout: None,
            code: None,
        }
    }

    fn served(all: &[Wanted]) -> BTreeMap<MappingId, Arc<Wanted>> {
        all.iter().map(|one| (one.mapping, Arc::new(one.clone()))).collect()
    }

    #[test]
    fn c19_what_stays_the_same_is_not_touched() {
        let current = served(&[wanted(1, 1001), wanted(2, 1002), wanted(3, 1003)]);
        let plan = plan(&current, &[wanted(1, 1001), wanted(2, 2002), wanted(4, 1004)]);
        assert_eq!(plan.added, [Arc::new(wanted(4, 1004))]);
        assert_eq!(plan.changed, [Arc::new(wanted(2, 2002))]);
        assert_eq!(plan.removed, [id(3)]);
    }

    #[test]
    fn the_same_state_again_plans_nothing() {
        let all = [wanted(1, 1001), wanted(2, 1002)];
        assert_eq!(plan(&served(&all), &all), Plan::default());
    }

    #[test]
    fn c20_a_lower_position_is_of_the_past_within_one_log_only() {
        let at = |log: u8, epoch, position| Version { log: [log; 16], epoch, position };
        let applied = at(1, 2, 10);
        assert!(at(1, 2, 9).is_before(&applied));
        assert!(!at(1, 2, 10).is_before(&applied));
        assert!(!at(1, 2, 11).is_before(&applied));
        assert!(at(1, 1, 99).is_before(&applied), "an epoch that was given up");
        assert!(!at(1, 3, 1).is_before(&applied), "a restore starts a new epoch, with lower positions");
        assert!(!at(2, 0, 0).is_before(&applied), "another log");
    }
}
