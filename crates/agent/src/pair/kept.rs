//! What becomes of the file of a pair: made by a code, proven by a handshake, given up by the user.
//!
//! A file outlives its mapping. That a mapping is gone is the server's word, and the file holds what is promised
//! against the server: the pinned key, and at the listening end the address. So it goes when the user removes
//! the mapping at this client or connects anew at its address, and the oldest one goes when a new one needs the
//! room.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use underpass_domain::{ClientId, MappingId, PublicKey};

use super::files::{self, FILES_MAX, Files};
use super::{PairFile, Pairs};
use crate::core::{Core, off_the_runtime};
use crate::error::AgentError;
use crate::sync::lock;

/// A change of the files of pairs.
#[derive(Default)]
struct Change {
    kept: Option<(MappingId, PairFile)>,
    gone: Vec<MappingId>,
}

impl Pairs {
    /// The code that made a mapping for which this client listens, and the address that its user asked for.
    pub(crate) fn listens(&self, mapping: MappingId) -> Option<(String, SocketAddr)> {
        let state = lock(&self.state);
        let file = state.files.pairs.get(&mapping)?;
        file.listen.map(|address| (file.code.clone(), address))
    }

    /// The mapping made by a code whose callers a listener at this address would get.
    pub(crate) fn keeper_of(&self, address: SocketAddr) -> Option<MappingId> {
        let state = lock(&self.state);
        let holds = |file: &PairFile| file.listen.is_some_and(|kept| overlap(kept, address));
        state.files.pairs.iter().find(|(_, file)| holds(file)).map(|(mapping, _)| *mapping)
    }

    /// Whether there is a file about this mapping.
    pub(crate) fn knows(&self, mapping: MappingId) -> bool {
        lock(&self.state).files.pairs.contains_key(&mapping)
    }

    /// Whether who says this name may mean this mapping: which mapping has which name is the server's word, and
    /// an address is given up only under the name that its mapping had when it was made.
    pub(crate) fn may_be_named(&self, mapping: MappingId, name: &str) -> bool {
        let state = lock(&self.state);
        let Some(file) = state.files.pairs.get(&mapping) else { return true };
        file.listen.is_none() || file.name.as_deref() == Some(name)
    }

    /// Remembers what a code made, before its handshake: it can be tried again at any time. The user said where
    /// to listen, so whoever had the address from an earlier code has it no more.
    pub(crate) async fn remember(
        &self,
        core: &Arc<Core>,
        mapping: MappingId,
        mut file: PairFile,
    ) -> Result<(), AgentError> {
        let wanted = core.serving.all_wanted();
        change(core, move |files| {
            match files.pairs.get(&mapping) {
                // The server names the mapping, and could name one that was made with somebody else.
                Some(known) if known.code != file.code => {
                    return Err(AgentError::Protocol {
                        what: "its answer names a mapping that another code has made".into(),
                    });
                }
                // Only the very client that the key was proven by.
                Some(known) if known.key.is_some() && known.peer == file.peer => {
                    file.key = known.key;
                    file.psk = None;
                    file.made = known.made;
                }
                _ => {}
            }
            let same = |other: &PairFile| other.listen.is_some() && other.listen == file.listen;
            let others = files.pairs.iter().filter(|(other, known)| **other != mapping && same(known));
            let mut gone: Vec<_> = others.map(|(other, _)| *other).collect();
            gone.extend(make_room(files, mapping, &gone, wanted.as_ref(), true)?);
            Ok(Change { kept: Some((mapping, file)), gone })
        })
        .await
    }

    /// The client at the other end has proven to know the code, here where its target is.
    pub(super) async fn met(
        &self,
        core: &Arc<Core>,
        mapping: MappingId,
        peer: ClientId,
        key: PublicKey,
        met_by: String,
    ) -> Result<(), AgentError> {
        let (wanted, made) = (core.serving.all_wanted(), core.clock.now());
        change(core, move |files| {
            let known = files.pairs.get(&mapping);
            // One code, one client, ever; and no code takes over the mapping of another.
            if known.is_some_and(|known| known.code != met_by || known.key.is_some_and(|known| known != key))
            {
                return Err(AgentError::PeerKeyChanged { peer: peer.to_string() });
            }
            let gone = make_room(files, mapping, &[], wanted.as_ref(), false)?.into_iter().collect();
            let file = PairFile {
                peer,
                key: Some(key),
                code: met_by,
                psk: None,
                // There when a client redeems its own code.
                listen: known.and_then(|known| known.listen),
                name: known.and_then(|known| known.name.clone()),
                made: known.map_or(made, |known| known.made),
            };
            Ok(Change { kept: Some((mapping, file)), gone })
        })
        .await
    }

    /// The client at the other end has proven to know the code, here where this client listens.
    pub(super) async fn proven(
        &self,
        core: &Arc<Core>,
        mapping: MappingId,
        met_by: Option<String>,
        key: PublicKey,
    ) -> Result<(), AgentError> {
        change(core, move |files| {
            // Another code may have taken its place meanwhile.
            let known = files.pairs.get(&mapping).filter(|file| Some(&file.code) == met_by.as_ref());
            let file = known.map(|known| PairFile { key: Some(key), psk: None, ..known.clone() });
            Ok(Change { kept: file.map(|file| (mapping, file)), gone: Vec::new() })
        })
        .await
    }

    /// Forgets the pins of a mapping that the user has removed for good.
    pub(crate) async fn unpin(&self, core: &Arc<Core>, mapping: MappingId) -> Result<(), AgentError> {
        self.forget(mapping);
        change(core, move |files| {
            let gone = files.pairs.contains_key(&mapping).then_some(mapping).into_iter().collect();
            Ok(Change { kept: None, gone })
        })
        .await
    }
}

/// Changes files and what is known of them, on disk first. One change at a time, and one that has begun is
/// finished, also when whoever asked for it leaves.
async fn change(
    core: &Arc<Core>,
    decide: impl FnOnce(&Files) -> Result<Change, AgentError> + Send + 'static,
) -> Result<(), AgentError> {
    let for_files = core.clone();
    let codes = off_the_runtime(move || {
        let core = for_files;
        let _one = lock(&core.pairs.changing);
        let Change { kept, gone } = decide(&lock(&core.pairs.state).files)?;
        if let Some((mapping, file)) = kept {
            files::store_pair(&core.state, mapping, &file, &*core.random)?;
            lock(&core.pairs.state).files.pairs.insert(mapping, file);
        }
        let mut codes = Vec::new();
        for mapping in gone {
            files::delete_pair(&core.state, mapping)?;
            let file = lock(&core.pairs.state).files.pairs.remove(&mapping);
            codes.extend(file.filter(|file| file.listen.is_none()).map(|file| file.code));
        }
        Ok(codes)
    })
    .await?;
    // What was shared by a code is of use to nobody without its pair.
    if !codes.is_empty() {
        core.change_allow(move |allow| Ok(codes.iter().filter(|code| allow.forget_code(code)).count() > 0))
            .await?;
    }
    Ok(())
}

/// Which file goes so that there is room for one about `mapping`; none, mostly. Of those whose mappings are not
/// wanted now it is the oldest: first of targets, and, where the user asks for the new one, of listeners.
fn make_room(
    files: &Files,
    mapping: MappingId,
    leaving: &[MappingId],
    wanted: Option<&BTreeSet<MappingId>>,
    listeners: bool,
) -> Result<Option<MappingId>, AgentError> {
    if files.pairs.contains_key(&mapping) || files.pairs.len() < FILES_MAX + leaving.len() {
        return Ok(None);
    }
    let full = AgentError::Busy { what: "there are too many pairs; remove mappings with `underpass rm`" };
    // Before the server's first word nothing is known to be gone.
    let Some(wanted) = wanted else { return Err(full) };
    let spare = files.pairs.iter().filter(|(other, file)| {
        !wanted.contains(other) && !leaving.contains(other) && (listeners || file.listen.is_none())
    });
    let oldest = spare.min_by_key(|(other, file)| (file.listen.is_some(), file.made, **other));
    oldest.map(|(other, _)| Some(*other)).ok_or(full)
}

/// Whether callers of one address may come to a listener at the other. Those who write `localhost` come to
/// `[::1]` as well as to 127.0.0.1, and those of a name to whatever it stands for.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let localhost = |ip: std::net::IpAddr| {
        ip == std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST)
            || ip == std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
    };
    one.port() == other.port()
        && (a == b || a.is_unspecified() || b.is_unspecified() || (localhost(a) && localhost(b)))
}

#[cfg(test)]
mod tests {
    use underpass_domain::Timestamp;

    use super::*;

    #[test]
    fn addresses_overlap_where_a_caller_of_one_may_reach_the_other() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (one, other, shared) in [
            ("127.0.0.1:22", "127.0.0.1:22", true),
            ("127.0.0.1:22", "127.0.0.1:23", false),
            ("127.0.0.1:22", "127.0.0.2:22", false),
            ("127.0.0.1:22", "[::1]:22", true),
            ("127.0.0.2:22", "[::1]:22", false),
            ("127.0.0.1:22", "0.0.0.0:22", true),
            ("127.0.0.1:22", "[::]:22", true),
            ("[::1]:22", "0.0.0.0:22", true),
            ("192.0.2.1:22", "[::ffff:192.0.2.1]:22", true),
            ("192.0.2.1:22", "192.0.2.2:22", false),
        ] {
            assert_eq!(overlap(at(one), at(other)), shared, "{one} {other}");
            assert_eq!(overlap(at(other), at(one)), shared, "{other} {one}");
        }
    }

    fn id(number: usize) -> MappingId {
        MappingId::from_bytes((number as u128).to_be_bytes())
    }

    fn file(made: usize, listen: Option<SocketAddr>) -> PairFile {
        let (peer, made) = (ClientId::from_bytes([3; 16]), Timestamp(made as u64));
        PairFile { peer, key: None, code: "abc".into(), psk: None, listen, name: None, made }
    }

    #[test]
    fn files_of_mappings_that_went_make_room_the_oldest_first_and_addresses_last() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 22)));
        let mut files = Files::default();
        files.pairs.insert(id(1), file(1, address));
        files.pairs.insert(id(2), file(2, address));
        files.pairs.insert(id(3), file(4, None));
        files.pairs.insert(id(4), file(3, None));
        for number in 5..FILES_MAX {
            files.pairs.insert(id(number), file(0, None));
        }
        let mut wanted: BTreeSet<_> = (5..=FILES_MAX).map(id).collect();
        let new = id(FILES_MAX + 1);
        assert_eq!(make_room(&files, new, &[], Some(&wanted), true).unwrap(), None, "there is room");
        files.pairs.insert(id(FILES_MAX), file(0, None));
        assert_eq!(make_room(&files, id(1), &[], Some(&wanted), true).unwrap(), None, "it is there already");
        assert_eq!(make_room(&files, new, &[id(1)], Some(&wanted), true).unwrap(), None, "one leaves");
        assert!(make_room(&files, new, &[], None, true).is_err(), "nothing is known to be gone");
        for gone in [4, 3] {
            for listeners in [false, true] {
                let spare = make_room(&files, new, &[], Some(&wanted), listeners).unwrap();
                assert_eq!(spare, Some(id(gone)));
            }
            wanted.insert(id(gone));
        }
        for gone in [1, 2] {
            assert!(make_room(&files, new, &[], Some(&wanted), false).is_err(), "addresses stay");
            assert_eq!(make_room(&files, new, &[], Some(&wanted), true).unwrap(), Some(id(gone)));
            wanted.insert(id(gone));
        }
        assert_eq!(make_room(&files, new, &[], Some(&wanted), true).unwrap_err().code(), "agent.busy");
    }
}
