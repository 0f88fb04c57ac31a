//! End to end: keys that two clients agree on and no node knows.
//!
//! Two clients that met through a connection code prove it to each other once and pin each other's key;
//! from then on, and every hour anew, the pinned keys are enough. For mappings made through the API the
//! server's directory says the key; it is pinned on first use, and such tunnels are called `pinned`, never
//! `end-to-end`. The outcome of a handshake is a root, kept in memory only; every tunnel derives its keys from
//! it and from a number that is used once.

mod files;
mod initiate;
mod kept;
mod respond;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use underpass_domain::{ClientId, MappingId};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, aes_is_fast, derive};
use underpass_wire::channel::labels;
use underpass_wire::link::{Body, Envelope, Subject};
use underpass_wire::noise::{PairMessage, PairPayload, PairRoot, PairStep};

pub(crate) use files::{CodeFile, PairFile, Psk};

use crate::core::{Core, off_the_runtime};
use crate::desired::Wanted;
use crate::error::AgentError;
use crate::session::Session;
use crate::state::StateDir;
use crate::sync::lock;
use crate::window::ReplayWindow;
use files::Files;
use respond::Responding;

/// The age at which a root is replaced by a new one.
const RENEW_AFTER: Duration = Duration::from_hours(1);
/// The age at which a root is not used any more, even if there is no new one.
const ROOT_LIFE_MAX: Duration = Duration::from_hours(2);
/// Roots that the target keeps for one mapping: the one in use, its successor, and some that nobody has used
/// yet (a recorded first message makes one of those).
const TARGET_ROOTS_MAX: usize = 6;
/// Messages of one handshake that wait.
const HANDSHAKE_QUEUE: usize = 4;
/// Handshakes that are answered at once; each takes a few elliptic-curve operations.
const ANSWERING_MAX: usize = 16;

pub(crate) struct Pairs {
    state: Mutex<State>,
    /// Held while files of pairs change.
    changing: Mutex<()>,
    answering: Arc<tokio::sync::Semaphore>,
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairs").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    files: Files,
    listen: HashMap<MappingId, ListenRoot>,
    target: HashMap<MappingId, VecDeque<TargetRoot>>,
    /// One handshake per mapping at a time.
    making: HashMap<MappingId, Arc<tokio::sync::Mutex<()>>>,
    /// Handshakes begun here, by the pair's id.
    initiated: HashMap<[u8; 16], (ClientId, mpsc::Sender<PairMessage>)>,
    /// Handshakes begun elsewhere.
    responding: HashMap<[u8; 16], Responding>,
}

impl State {
    /// Whether there is a root for tunnels of a mapping, made in the way that is asked for now: one that was
    /// agreed on by keys of the directory is of no use for a mapping that was made by a code.
    fn has_listen_root(&self, mapping: MappingId) -> bool {
        let code = self.files.pairs.get(&mapping).map(|file| file.code.as_str());
        self.listen.get(&mapping).is_some_and(|root| root.code.as_deref() == code)
    }
}

/// At the listening end.
struct ListenRoot {
    id: [u8; 16],
    secret: Secret,
    aead: Aead,
    next_seq: u64,
    made: Instant,
    /// The code that the two clients met through, if they did.
    code: Option<String>,
}

/// At the target.
struct TargetRoot {
    id: [u8; 16],
    secret: Secret,
    aead: Aead,
    window: ReplayWindow,
    /// A tunnel was opened under it: it is no recording's.
    used: bool,
    made: Instant,
    code: Option<String>,
}

/// What seals one tunnel at the listening end.
#[derive(Debug)]
pub(crate) struct ListenKeys {
    pub(crate) pair: [u8; 16],
    pub(crate) seq: u64,
    pub(crate) aead: Aead,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) sealing: &'static str,
}

/// What seals one tunnel at the target.
#[derive(Debug)]
pub(crate) struct TargetKeys {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// The code that the two clients met through.
    pub(crate) code: Option<String>,
}

/// Why a tunnel can't be sealed at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such pair, or not any more.
    Unknown,
    /// The number was used before.
    Repeated,
}

impl Pairs {
    pub(crate) fn load(state: &StateDir) -> Result<Self, AgentError> {
        let state = State { files: Files::load(state)?, ..State::default() };
        Ok(Self {
            state: Mutex::new(state),
            changing: Mutex::default(),
            answering: Arc::new(tokio::sync::Semaphore::new(ANSWERING_MAX)),
        })
    }

    /// The code that the clients of a mapping met through, as this client remembers it.
    pub(crate) fn code_of(&self, mapping: MappingId) -> Option<String> {
        lock(&self.state).files.pairs.get(&mapping).map(|file| file.code.clone())
    }

    /// Whether tunnels of a mapping must be sealed, whatever the server says of it: clients that met through a
    /// code were promised so.
    pub(crate) fn must_seal(&self, wanted: &Wanted) -> bool {
        wanted.sealed || wanted.code.is_some() || self.code_of(wanted.mapping).is_some()
    }

    /// The mapping that was made here by a code, and where it listens.
    pub(crate) fn made_by(&self, lookup: &str) -> Option<(MappingId, Option<SocketAddr>)> {
        let state = lock(&self.state);
        let found = state.files.pairs.iter().find(|(_, file)| file.code == lookup && file.listen.is_some());
        found.map(|(mapping, file)| (*mapping, file.listen))
    }

    /// Keeps the secret half of a code that is about to be issued.
    pub(crate) async fn keep_code(
        &self,
        core: &Arc<Core>,
        lookup: &str,
        file: CodeFile,
    ) -> Result<(), AgentError> {
        self.drop_old_codes(core).await?;
        if lock(&self.state).files.codes.len() >= files::FILES_MAX {
            return Err(AgentError::Busy { what: "there are too many codes" });
        }
        self.store_code(core, lookup, file).await
    }

    async fn store_code(&self, core: &Arc<Core>, lookup: &str, file: CodeFile) -> Result<(), AgentError> {
        let (core_for_file, name, to_store) = (core.clone(), lookup.to_owned(), file.clone());
        off_the_runtime(move || {
            files::store_code(&core_for_file.state, &name, &to_store, &*core_for_file.random)
        })
        .await?;
        lock(&self.state).files.codes.insert(lookup.to_owned(), file);
        Ok(())
    }

    pub(crate) async fn drop_code(&self, core: &Arc<Core>, lookup: &str) -> Result<(), AgentError> {
        lock(&self.state).files.codes.remove(lookup);
        let (core, lookup) = (core.clone(), lookup.to_owned());
        off_the_runtime(move || files::delete_code(&core.state, &lookup)).await
    }

    /// Forgets the secret halves that can't be needed any more; of codes that nobody used, the allowed target
    /// too.
    pub(crate) async fn drop_old_codes(&self, core: &Arc<Core>) -> Result<(), AgentError> {
        let now = core.clock.now();
        let old: Vec<_> = {
            let state = lock(&self.state);
            let codes = state.files.codes.iter();
            codes
                .filter(|(_, file)| respond::is_over(file, now))
                .map(|(lookup, file)| (lookup.clone(), file.used_by.is_none()))
                .collect()
        };
        for (lookup, unused) in old {
            self.drop_code(core, &lookup).await?;
            if unused {
                core.change_allow(move |allow| Ok(allow.forget_code(&lookup))).await?;
            }
        }
        Ok(())
    }

    /// Forgets the roots of a mapping that is not served any more. Pins stay: it may be switched on again.
    pub(crate) fn forget(&self, mapping: MappingId) {
        let mut state = lock(&self.state);
        state.listen.remove(&mapping);
        state.target.remove(&mapping);
        state.making.remove(&mapping);
    }

    /// Gives up a root that the other end does not know.
    pub(crate) fn renounce(&self, mapping: MappingId, pair: [u8; 16]) {
        let mut state = lock(&self.state);
        if state.listen.get(&mapping).is_some_and(|root| root.id == pair) {
            state.listen.remove(&mapping);
        }
    }

    /// Keys for one tunnel at the listening end; agrees on a root first where there is none.
    pub(crate) async fn listen_keys(
        &self,
        core: &Arc<Core>,
        wanted: &Arc<Wanted>,
        tunnel: &[u8; 16],
        deadline: Instant,
    ) -> Result<ListenKeys, AgentError> {
        if let Some((keys, age)) = self.next_listen_keys(wanted.mapping, tunnel) {
            if age >= RENEW_AFTER {
                initiate::renew(core, wanted);
            }
            return Ok(keys);
        }
        self.agree(core, wanted, deadline).await?;
        self.next_listen_keys(wanted.mapping, tunnel)
            .map(|(keys, _)| keys)
            .ok_or_else(|| AgentError::PairRefused { what: "the mapping is not served any more".into() })
    }

    fn next_listen_keys(&self, mapping: MappingId, tunnel: &[u8; 16]) -> Option<(ListenKeys, Duration)> {
        let mut state = lock(&self.state);
        if !state.has_listen_root(mapping) {
            return None;
        }
        let root = state.listen.get_mut(&mapping)?;
        let age = root.made.elapsed();
        if age >= ROOT_LIFE_MAX {
            state.listen.remove(&mapping);
            return None;
        }
        let seq = root.next_seq;
        root.next_seq += 1;
        let (forward, back) = tunnel_keys(&root.secret, tunnel, seq);
        let keys = ListenKeys {
            pair: root.id,
            seq,
            aead: root.aead,
            sealer: Sealer::sealed(root.aead, forward),
            opener: Opener::sealed(root.aead, back),
            sealing: if root.code.is_some() { "end-to-end" } else { "pinned" },
        };
        Some((keys, age))
    }

    /// Keys for one tunnel at the target. The number is used up by this.
    pub(crate) fn target_keys(
        &self,
        mapping: MappingId,
        pair: [u8; 16],
        seq: u64,
        tunnel: &[u8; 16],
    ) -> Result<TargetKeys, Refusal> {
        let mut state = lock(&self.state);
        let roots = state.target.get_mut(&mapping).ok_or(Refusal::Unknown)?;
        roots.retain(|root| root.made.elapsed() < ROOT_LIFE_MAX);
        let root = roots.iter_mut().find(|root| root.id == pair).ok_or(Refusal::Unknown)?;
        if !root.window.take(seq) {
            return Err(Refusal::Repeated);
        }
        root.used = true;
        let (forward, back) = tunnel_keys(&root.secret, tunnel, seq);
        Ok(TargetKeys {
            sealer: Sealer::sealed(root.aead, back),
            opener: Opener::sealed(root.aead, forward),
            code: root.code.clone(),
        })
    }

    fn add_listen_root(&self, mapping: MappingId, root: &PairRoot, code: Option<String>) {
        let PairRoot { id, secret, payload, .. } = root;
        let root = ListenRoot {
            id: *id,
            secret: Secret::new(**secret),
            aead: agreed(payload),
            next_seq: 0,
            made: Instant::now(),
            code,
        };
        lock(&self.state).listen.insert(mapping, root);
    }

    /// `false`: a root of this id is there already, and stays. What was just answered belongs to another one,
    /// so that nobody may hear it.
    fn add_target_root(&self, mapping: MappingId, root: &PairRoot, code: Option<String>) -> bool {
        let PairRoot { id, secret, payload, .. } = root;
        let root = TargetRoot {
            id: *id,
            secret: Secret::new(**secret),
            aead: agreed(payload),
            window: ReplayWindow::new(),
            used: false,
            made: Instant::now(),
            code,
        };
        let mut state = lock(&self.state);
        let roots = state.target.entry(mapping).or_default();
        if roots.iter().any(|known| known.id == root.id) {
            return false;
        }
        roots.push_back(root);
        if roots.len() > TARGET_ROOTS_MAX {
            // The oldest that nobody has used: what is in use is not pushed out by recordings. Where all are in
            // use, the oldest of them.
            let oldest =
                roots.iter().position(|root| !root.used).filter(|at| at + 1 < roots.len()).unwrap_or(0);
            roots.remove(oldest);
        }
        true
    }

    /// An envelope came from another client.
    pub(crate) fn received(&self, core: &Arc<Core>, session: &Arc<Session>, envelope: Envelope) {
        let Ok(message) = PairMessage::from_bytes(&envelope.payload) else {
            tracing::debug!("an envelope that is no pair message");
            return;
        };
        let (Ok(id), Ok(peer)) = (message.pair_id(), <[u8; 16]>::try_from(envelope.peer.as_slice())) else {
            return;
        };
        let peer = ClientId::from_bytes(peer);
        match message.step() {
            PairStep::Second | PairStep::Confirm => {
                let waiting = lock(&self.state).initiated.get(&id).cloned();
                if let Some((_, sender)) = waiting.filter(|(expected, _)| *expected == peer) {
                    // A full queue holds repetitions.
                    let _ = sender.try_send(message);
                }
            }
            PairStep::First | PairStep::Third => {
                // Over the bound it is dropped; the other end says it again.
                let Ok(slot) = self.answering.clone().try_acquire_owned() else { return };
                let (core, session) = (core.clone(), session.clone());
                core.clone().tasks.spawn_job("pair answer", |_| async move {
                    let _slot = slot;
                    respond::respond(&core, &session, peer, envelope.subject, message).await
                });
            }
            PairStep::Unspecified => {}
        }
    }
}

/// Listen to target, target to listen.
fn tunnel_keys(root: &Secret, tunnel: &[u8; 16], seq: u64) -> (DirectionKeys, DirectionKeys) {
    let seq = seq.to_be_bytes();
    let context: [&[u8]; 2] = [tunnel, &seq];
    (
        derive(root, &context, labels::PAIR_LISTEN_TO_TARGET),
        derive(root, &context, labels::PAIR_TARGET_TO_LISTEN),
    )
}

fn agreed(said: &PairPayload) -> Aead {
    Aead::agree(said.aes && aes_is_fast())
}

fn envelope(peer: ClientId, subject: Subject, message: &PairMessage) -> Body {
    Body::Envelope(Envelope {
        peer: peer.as_bytes().to_vec(),
        peer_key: Vec::new(),
        subject: Some(subject),
        payload: message.to_bytes(),
    })
}

fn payload(mapping: Option<MappingId>) -> PairPayload {
    PairPayload {
        mapping: mapping.map(|mapping| mapping.as_bytes().to_vec()).unwrap_or_default(),
        aes: aes_is_fast(),
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn pairs() -> Pairs {
        Pairs {
            state: Mutex::default(),
            changing: Mutex::default(),
            answering: Arc::new(tokio::sync::Semaphore::new(1)),
        }
    }

    fn root(id: u8) -> PairRoot {
        PairRoot { id: [id; 16], secret: Zeroizing::new([id; 32]), peer: [0; 32], payload: payload(None) }
    }

    const MAPPING: MappingId = MappingId::from_bytes([1; 16]);
    const TUNNEL: [u8; 16] = [2; 16];

    #[tokio::test(start_paused = true)]
    async fn c32_a_recorded_open_is_refused() {
        let pairs = pairs();
        pairs.add_target_root(MAPPING, &root(1), None);
        assert!(pairs.target_keys(MAPPING, [1; 16], 0, &TUNNEL).is_ok());
        assert_eq!(pairs.target_keys(MAPPING, [1; 16], 0, &TUNNEL).unwrap_err(), Refusal::Repeated);
        assert_eq!(pairs.target_keys(MAPPING, [9; 16], 1, &TUNNEL).unwrap_err(), Refusal::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_derive_the_same_keys_and_numbers_differ() {
        let (listening, target) = (pairs(), pairs());
        listening.add_listen_root(MAPPING, &root(1), None);
        target.add_target_root(MAPPING, &root(1), Some("abc".into()));
        for seq in 0..3 {
            let (mut here, _) = listening.next_listen_keys(MAPPING, &TUNNEL).unwrap();
            assert_eq!(here.seq, seq);
            let mut there = target.target_keys(MAPPING, here.pair, here.seq, &TUNNEL).unwrap();
            assert_eq!(there.code.as_deref(), Some("abc"));
            for (sealer, opener) in
                [(&mut here.sealer, &mut there.opener), (&mut there.sealer, &mut here.opener)]
            {
                let mut wire = bytes::BytesMut::new();
                sealer.seal(0, b"hello", &mut wire).unwrap();
                let (head, body) = wire.split_at_mut(5);
                let header = underpass_pipeline::record::Header::parse((&*head).try_into().unwrap()).unwrap();
                assert_eq!(opener.open_in_place(header, body).unwrap(), 5);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn recordings_do_not_push_out_the_root_in_use() {
        let pairs = pairs();
        pairs.add_target_root(MAPPING, &root(1), None);
        pairs.target_keys(MAPPING, [1; 16], 0, &TUNNEL).unwrap();
        for id in 2..100 {
            pairs.add_target_root(MAPPING, &root(id), None);
        }
        assert!(pairs.target_keys(MAPPING, [1; 16], 1, &TUNNEL).is_ok());
        assert!(pairs.target_keys(MAPPING, [99; 16], 0, &TUNNEL).is_ok(), "the newest is there, too");
        assert!(lock(&pairs.state).target[&MAPPING].len() <= TARGET_ROOTS_MAX);
    }

    /// The server decides which mapping a code makes: it can name one whose root it had a hand in.
    #[tokio::test(start_paused = true)]
    async fn c32_a_root_of_the_directory_does_not_serve_a_mapping_made_by_a_code() {
        let pairs = pairs();
        pairs.add_listen_root(MAPPING, &root(1), None);
        assert_eq!(pairs.next_listen_keys(MAPPING, &TUNNEL).unwrap().0.sealing, "pinned");
        let peer = ClientId::from_bytes([3; 16]);
        let file = |code: &str| PairFile {
            peer,
            key: None,
            code: code.into(),
            psk: None,
            listen: None,
            name: None,
            made: underpass_domain::Timestamp::default(),
        };
        lock(&pairs.state).files.pairs.insert(MAPPING, file("abc"));
        assert!(!lock(&pairs.state).has_listen_root(MAPPING), "the two have to meet first");
        assert!(pairs.next_listen_keys(MAPPING, &TUNNEL).is_none());
        pairs.add_listen_root(MAPPING, &root(2), Some("abc".into()));
        assert_eq!(pairs.next_listen_keys(MAPPING, &TUNNEL).unwrap().0.sealing, "end-to-end");
        lock(&pairs.state).files.pairs.insert(MAPPING, file("xyz"));
        assert!(pairs.next_listen_keys(MAPPING, &TUNNEL).is_none(), "nor does a root of another code");
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_is_not_replaced_by_another_of_its_id() {
        let pairs = pairs();
        assert!(pairs.add_target_root(MAPPING, &root(1), None));
        assert!(!pairs.add_target_root(MAPPING, &root(1), None));
        assert!(pairs.add_target_root(MAPPING, &root(2), None));
    }

    #[tokio::test(start_paused = true)]
    async fn roots_die_of_old_age() {
        let pairs = pairs();
        pairs.add_target_root(MAPPING, &root(1), None);
        pairs.add_listen_root(MAPPING, &root(1), None);
        tokio::time::advance(RENEW_AFTER).await;
        assert!(pairs.next_listen_keys(MAPPING, &TUNNEL).is_some_and(|(_, age)| age >= RENEW_AFTER));
        tokio::time::advance(ROOT_LIFE_MAX).await;
        assert!(pairs.next_listen_keys(MAPPING, &TUNNEL).is_none());
        assert_eq!(pairs.target_keys(MAPPING, [1; 16], 0, &TUNNEL).unwrap_err(), Refusal::Unknown);
    }

    #[test]
    fn secret_halves_are_not_shown() {
        let psk = Psk::new([7; 32]);
        let text = serde_json::to_string(&psk).unwrap();
        assert_eq!(serde_json::from_str::<Psk>(&text).unwrap(), psk);
        assert_eq!(format!("{psk:?}"), "Psk(..)");
        assert!(serde_json::from_str::<Psk>("\"AAAA\"").is_err());
    }
}
