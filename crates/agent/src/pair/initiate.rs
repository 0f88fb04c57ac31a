//! Handshakes begun here: this client listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use underpass_domain::{ClientId, MappingId, PublicKey};
use underpass_wire::link::Subject;
use underpass_wire::noise::{InitiatorStep, NoiseError, PairInitiator, PairMessage, PairRoot, PairSubject};

use super::{HANDSHAKE_QUEUE, Pairs, Psk, envelope, files, payload};
use crate::core::{Core, off_the_runtime};
use crate::desired::Wanted;
use crate::error::AgentError;
use crate::sync::lock;

/// A message without an answer is said again after this: envelopes may be dropped on the way.
const REPEAT_EVERY: Duration = Duration::from_secs(2);
/// For a renewal nobody waits; the old root does meanwhile.
const RENEWAL_DEADLINE: Duration = Duration::from_mins(1);

/// How the other end proves to be who we think.
enum Proof {
    Code { psk: Psk, lookup: [u8; 9] },
    Pinned { key: [u8; 32], first_use: bool },
}

/// Replaces the root of a mapping in the background.
pub(super) fn renew(core: &Arc<Core>, wanted: &Arc<Wanted>) {
    let making = core.pairs.making(wanted.mapping);
    let Ok(guard) = making.try_lock_owned() else { return };
    let (core, wanted) = (core.clone(), wanted.clone());
    core.clone().tasks.spawn_job("pair renewal", |stop| async move {
        let _guard = guard;
        let deadline = Instant::now() + RENEWAL_DEADLINE;
        tokio::select! {
            made = core.pairs.handshake(&core, &wanted, deadline) => {
                if let Err(error) = made {
                    tracing::debug!(%error, "a pair could not be renewed");
                }
            }
            () = stop.cancelled() => {}
        }
        Ok::<_, Infallible>(())
    });
}

impl Pairs {
    fn making(&self, mapping: MappingId) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.state).making.entry(mapping).or_default().clone()
    }

    /// Agrees on a root for a mapping, unless somebody else just did.
    pub(crate) async fn agree(
        &self,
        core: &Arc<Core>,
        wanted: &Arc<Wanted>,
        deadline: Instant,
    ) -> Result<(), AgentError> {
        let making = self.making(wanted.mapping);
        let _guard =
            tokio::time::timeout_at(deadline, making.lock()).await.map_err(|_| AgentError::PeerOffline)?;
        if lock(&self.state).has_listen_root(wanted.mapping) {
            return Ok(());
        }
        self.handshake(core, wanted, deadline).await
    }

    async fn handshake(
        &self,
        core: &Arc<Core>,
        wanted: &Arc<Wanted>,
        deadline: Instant,
    ) -> Result<(), AgentError> {
        let listen = wanted
            .listen
            .as_ref()
            .ok_or_else(|| AgentError::Internal { what: "a pair for a mapping without a listener".into() })?;
        let (proof, met_by) = self.proof(wanted, listen.peer.client, listen.peer.key)?;
        let root = self.exchange(core, wanted.mapping, listen.peer.client, &proof, deadline).await?;
        match proof {
            Proof::Code { .. } => {
                self.proven(core, wanted.mapping, met_by.clone(), PublicKey(root.peer)).await?;
            }
            Proof::Pinned { key, first_use: true } => {
                self.pin_directory(core, listen.peer.client, key).await?;
            }
            Proof::Pinned { .. } => {}
        }
        // Whoever got here late finds a newer root replaced by one that is good as well.
        self.add_listen_root(wanted.mapping, &root, met_by);
        Ok(())
    }

    /// By what the other end is to be known, and the code that the two met, or are to meet, through.
    fn proof(
        &self,
        wanted: &Wanted,
        peer: ClientId,
        directory_key: [u8; 32],
    ) -> Result<(Proof, Option<String>), AgentError> {
        let state = lock(&self.state);
        if let Some(file) = state.files.pairs.get(&wanted.mapping) {
            if let Some(key) = file.key {
                if key.0 != directory_key {
                    return Err(AgentError::PeerKeyChanged { peer: peer.to_string() });
                }
                return Ok((Proof::Pinned { key: key.0, first_use: false }, Some(file.code.clone())));
            }
            let psk = file.psk.clone().ok_or_else(lost_pin)?;
            let lookup = file.code.as_bytes().try_into().map_err(|_| lost_pin())?;
            return Ok((Proof::Code { psk, lookup }, Some(file.code.clone())));
        }
        if wanted.code.is_some() {
            return Err(lost_pin());
        }
        match state.files.directory.get(&peer) {
            Some(pinned) if pinned.0 == directory_key => {
                Ok((Proof::Pinned { key: directory_key, first_use: false }, None))
            }
            Some(_) => Err(AgentError::PeerKeyChanged { peer: peer.to_string() }),
            None => Ok((Proof::Pinned { key: directory_key, first_use: true }, None)),
        }
    }

    pub(super) async fn pin_directory(
        &self,
        core: &Arc<Core>,
        peer: ClientId,
        key: [u8; 32],
    ) -> Result<(), AgentError> {
        if lock(&self.state).files.directory.len() >= files::FILES_MAX {
            return Err(AgentError::Busy { what: "there are too many pinned keys" });
        }
        let for_file = core.clone();
        off_the_runtime(move || {
            files::store_directory(&for_file.state, peer, PublicKey(key), &*for_file.random)
        })
        .await?;
        lock(&self.state).files.directory.insert(peer, PublicKey(key));
        Ok(())
    }

    /// Handshakes until one succeeds or the time is over. A message that does not authenticate costs one
    /// attempt: whoever can put one in the way can also drop all.
    async fn exchange(
        &self,
        core: &Arc<Core>,
        mapping: MappingId,
        peer: ClientId,
        proof: &Proof,
        deadline: Instant,
    ) -> Result<PairRoot, AgentError> {
        let mut last = AgentError::PeerOffline;
        while Instant::now() < deadline {
            let id = (*core.random).array::<16>().map_err(|_| AgentError::Random)?;
            let (sender, receiver) = mpsc::channel(HANDSHAKE_QUEUE);
            lock(&self.state).initiated.insert(id, (peer, sender));
            let _forget = Forget { pairs: self, id };
            match attempt(core, mapping, peer, proof, id, receiver, deadline).await {
                Ok(root) => return Ok(root),
                Err(Attempt::Fatal(error)) => return Err(error),
                Err(Attempt::Again(error)) => last = error,
            }
        }
        Err(last)
    }
}

fn lost_pin() -> AgentError {
    AgentError::PairRefused {
        what: "this client no longer has what it needs to know the other end by; connect with a new code"
            .into(),
    }
}

enum Attempt {
    Again(AgentError),
    Fatal(AgentError),
}

async fn attempt(
    core: &Arc<Core>,
    mapping: MappingId,
    peer: ClientId,
    proof: &Proof,
    id: [u8; 16],
    mut answers: mpsc::Receiver<PairMessage>,
    deadline: Instant,
) -> Result<PairRoot, Attempt> {
    let ours = payload(Some(mapping));
    let broken = |error: NoiseError| Attempt::Fatal(AgentError::PairRefused { what: error.to_string() });
    let (mut initiator, mut message, subject) = match proof {
        Proof::Code { psk, lookup } => {
            let (initiator, first) =
                PairInitiator::with_code(&core.key, psk.bytes(), &PairSubject::Code(*lookup), id)
                    .map_err(broken)?;
            (initiator, first, Subject::CodeLookup(String::from_utf8_lossy(lookup).into_owned()))
        }
        Proof::Pinned { key, .. } => {
            let about = PairSubject::Mapping(*mapping.as_bytes());
            let (initiator, first) =
                PairInitiator::pinned(&core.key, key, &about, id, &ours).map_err(broken)?;
            (initiator, first, Subject::Mapping(mapping.as_bytes().to_vec()))
        }
    };
    let mut answered = false;
    let silent = |answered: bool| {
        Attempt::Again(if answered {
            AgentError::PairRefused { what: "the other end did not confirm the code".into() }
        } else {
            AgentError::PeerOffline
        })
    };
    loop {
        let session = core.session(deadline).await.map_err(Attempt::Again)?;
        session.send(envelope(peer, subject.clone(), &message));
        let wait = REPEAT_EVERY.min(deadline.saturating_duration_since(Instant::now()));
        let Ok(answer) = timeout(wait, answers.recv()).await else {
            if Instant::now() >= deadline {
                return Err(silent(answered));
            }
            continue;
        };
        let Some(answer) = answer else { return Err(silent(answered)) };
        if answered && answer.step() == underpass_wire::noise::PairStep::Second {
            // A repetition of what was answered already.
            continue;
        }
        match initiator.step(&core.key, &answer, &ours) {
            Ok(InitiatorStep::Done(root)) => return Ok(root),
            Ok(InitiatorStep::Send(next, third)) => {
                initiator = next;
                message = third;
                answered = true;
            }
            Err(NoiseError::KeyChanged { .. }) => {
                return Err(Attempt::Fatal(AgentError::PeerKeyChanged { peer: peer.to_string() }));
            }
            Err(error) => {
                // Not in a tight loop, whoever sends such answers.
                tokio::time::sleep(REPEAT_EVERY.min(deadline.saturating_duration_since(Instant::now())))
                    .await;
                return Err(Attempt::Again(AgentError::PairRefused { what: error.to_string() }));
            }
        }
    }
}

struct Forget<'a> {
    pairs: &'a Pairs,
    id: [u8; 16],
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.pairs.state).initiated.remove(&self.id);
    }
}
