//! Handshakes begun by the other end: this client offers the target.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use underpass_domain::{ClientId, MappingId, PublicKey, Timestamp};
use underpass_wire::link::Subject;
use underpass_wire::noise::{NoiseError, PairMessage, PairPattern, PairResponder, PairStep, PairSubject};

use super::{CodeFile, envelope, payload};
use crate::core::Core;
use crate::error::AgentError;
use crate::events::AgentEvent;
use crate::session::Session;
use crate::sync::lock;

/// Handshakes that are under way. Older ones are forgotten; whoever began them begins anew.
const RESPONDING_MAX: usize = 64;
/// A handshake that takes longer is given up.
const RESPONDING_LIFE: Duration = Duration::from_mins(1);
/// A code is redeemed at the server within its time; the two clients may meet a little later.
const MEETING_GRACE: Duration = Duration::from_hours(24);
/// A mapping reaches this client by its desired state, the envelope by itself: it waits so long for the other.
const DESIRED_WAIT: Duration = Duration::from_secs(2);

/// What was answered, so that a repeated question gets the same answer.
pub(super) struct Responding {
    peer: ClientId,
    since: Instant,
    /// The other end's message that `answer` answers.
    question: Vec<u8>,
    answer: PairMessage,
    /// Until the third message comes.
    responder: Option<PairResponder>,
}

/// Whether nobody can need the secret half of a code any more.
pub(super) fn is_over(file: &CodeFile, now: Timestamp) -> bool {
    file.activate_until.plus(MEETING_GRACE) < now
}

pub(super) async fn respond(
    core: &Arc<Core>,
    session: &Arc<Session>,
    peer: ClientId,
    subject: Option<Subject>,
    message: PairMessage,
) -> Result<(), AgentError> {
    let refused = |error: NoiseError| AgentError::PairRefused { what: error.to_string() };
    let id = message.pair_id().map_err(refused)?;
    let Some(subject) = subject else { return Ok(()) };
    if let Some(answer) = repeated(core, id, peer, &message) {
        session.send(envelope(peer, subject, &answer));
        return Ok(());
    }
    let (answer, responder) = match (&subject, message.pattern(), message.step()) {
        (Subject::CodeLookup(lookup), PairPattern::Code, PairStep::First) => {
            let Some(file) = open_code(core, lookup) else { return Ok(()) };
            let about = PairSubject::Code(lookup_bytes(lookup)?);
            let (responder, second) =
                PairResponder::with_code(&core.key, file.psk.bytes(), &about, &message).map_err(refused)?;
            (second, Some(responder))
        }
        (Subject::CodeLookup(lookup), PairPattern::Code, PairStep::Third) => {
            let Some(responder) = take_responder(core, id, peer) else { return Ok(()) };
            (met(core, peer, lookup, responder, &message).await?, None)
        }
        (Subject::Mapping(mapping), PairPattern::Pinned, PairStep::First) => {
            let mapping = mapping
                .as_slice()
                .try_into()
                .map(MappingId::from_bytes)
                .map_err(|_| protocol("a mapping's id"))?;
            (known(core, peer, mapping, &message).await?, None)
        }
        _ => return Err(protocol("an envelope's subject")),
    };
    remember(
        core,
        id,
        Responding { peer, since: Instant::now(), question: message.body, answer: answer.clone(), responder },
    );
    session.send(envelope(peer, subject, &answer));
    Ok(())
}

/// The other end knows the code: its key is pinned before it is told so.
async fn met(
    core: &Arc<Core>,
    peer: ClientId,
    lookup: &str,
    responder: PairResponder,
    third: &PairMessage,
) -> Result<PairMessage, AgentError> {
    let Some(mut file) = open_code(core, lookup) else { return Err(protocol("a code")) };
    let (root, confirm) = responder
        .finish(&core.key, third, &payload(None))
        .map_err(|error| AgentError::PairRefused { what: error.to_string() })?;
    let key = PublicKey(root.peer);
    let mapping = root
        .payload
        .mapping
        .as_slice()
        .try_into()
        .map(MappingId::from_bytes)
        .map_err(|_| protocol("a mapping's id"))?;
    // A mapping that is known here is one of this code and this client, or none of theirs: the other end could
    // name any, and would shut its rightful listener out.
    let theirs = core.serving.get(mapping).is_none_or(|served| {
        let wanted = served.wanted();
        let listener = wanted.offer.as_ref().and_then(|offer| offer.peer);
        wanted.code.as_deref() == Some(lookup) && listener.is_some_and(|listener| listener.client == peer)
    });
    if !theirs {
        return Err(protocol("a mapping of its code"));
    }
    // One code, one client, ever.
    let met = if file.used_by.is_some_and(|known| known != key) {
        Err(AgentError::PeerKeyChanged { peer: peer.to_string() })
    } else {
        core.pairs.met(core, mapping, peer, key, lookup.to_owned()).await
    };
    if let Err(error) = met {
        if let AgentError::PeerKeyChanged { .. } = &error {
            core.tell(AgentEvent::MappingFailed {
                mapping,
                code: error.code().to_owned(),
                message: error.to_string(),
            });
        }
        return Err(error);
    }
    file.used_by = Some(key);
    core.pairs.store_code(core, lookup, file).await?;
    if !core.pairs.add_target_root(mapping, &root, Some(lookup.to_owned())) {
        return Err(answered_already());
    }
    Ok(confirm)
}

/// The other end has a key that is pinned, or is pinned now because the directory says so.
async fn known(
    core: &Arc<Core>,
    peer: ClientId,
    mapping: MappingId,
    first: &PairMessage,
) -> Result<PairMessage, AgentError> {
    let served = core
        .serving
        .wait_for(mapping, DESIRED_WAIT)
        .await
        .ok_or_else(|| protocol("a mapping that is served here"))?;
    let wanted = served.wanted();
    let listener =
        wanted.offer.as_ref().and_then(|offer| offer.peer).filter(|listener| listener.client == peer);
    let listener = listener.ok_or_else(|| protocol("the listener of the mapping"))?;
    let changed = || AgentError::PeerKeyChanged { peer: peer.to_string() };
    let (key, met_by, first_use) = {
        let state = lock(&core.pairs.state);
        match (state.files.pairs.get(&mapping), state.files.directory.get(&peer)) {
            (Some(file), _) => {
                let key = file.key.ok_or_else(|| protocol("a pair that has met"))?;
                (key.0, Some(file.code.clone()), false)
            }
            // Made by a code, and the pin is lost: the directory is not asked instead.
            (None, _) if wanted.code.is_some() => return Err(protocol("a pair that has met")),
            (None, Some(pinned)) if pinned.0 != listener.key => {
                let error = changed();
                core.tell(AgentEvent::MappingFailed {
                    mapping,
                    code: error.code().to_owned(),
                    message: error.to_string(),
                });
                return Err(error);
            }
            (None, pinned) => (listener.key, None, pinned.is_none()),
        }
    };
    let about = PairSubject::Mapping(*mapping.as_bytes());
    let (root, reply) = PairResponder::pinned(&core.key, &key, &about, first, &payload(Some(mapping)))
        .map_err(|error| match error {
            NoiseError::KeyChanged { .. } => {
                let error = changed();
                core.tell(AgentEvent::MappingFailed {
                    mapping,
                    code: error.code().to_owned(),
                    message: error.to_string(),
                });
                error
            }
            error => AgentError::PairRefused { what: error.to_string() },
        })?;
    if first_use {
        core.pairs.pin_directory(core, peer, key).await?;
    }
    if !core.pairs.add_target_root(mapping, &root, met_by) {
        return Err(answered_already());
    }
    Ok(reply)
}

fn open_code(core: &Core, lookup: &str) -> Option<CodeFile> {
    let now = core.clock.now();
    lock(&core.pairs.state).files.codes.get(lookup).filter(|file| !is_over(file, now)).cloned()
}

fn repeated(core: &Core, id: [u8; 16], peer: ClientId, message: &PairMessage) -> Option<PairMessage> {
    let state = lock(&core.pairs.state);
    let known = state.responding.get(&id)?;
    (known.peer == peer && known.question == message.body).then(|| known.answer.clone())
}

fn take_responder(core: &Core, id: [u8; 16], peer: ClientId) -> Option<PairResponder> {
    let mut state = lock(&core.pairs.state);
    state.responding.get_mut(&id).filter(|known| known.peer == peer)?.responder.take()
}

fn remember(core: &Core, id: [u8; 16], responding: Responding) {
    let mut state = lock(&core.pairs.state);
    state.responding.retain(|_, known| known.since.elapsed() < RESPONDING_LIFE);
    if state.responding.len() >= RESPONDING_MAX {
        let oldest = state.responding.iter().min_by_key(|(_, known)| known.since).map(|(id, _)| *id);
        oldest.map(|id| state.responding.remove(&id));
    }
    state.responding.insert(id, responding);
}

fn lookup_bytes(lookup: &str) -> Result<[u8; 9], AgentError> {
    lookup.as_bytes().try_into().map_err(|_| protocol("a code's first part"))
}

/// The same question was answered at the same moment, by keys that this answer does not lead to. Asked again,
/// that answer is repeated.
fn answered_already() -> AgentError {
    AgentError::PairRefused { what: "the handshake was answered already".into() }
}

fn protocol(what: &str) -> AgentError {
    AgentError::PairRefused { what: format!("the other end's message does not name {what}") }
}
