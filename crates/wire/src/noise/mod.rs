//! Who is there, and that nobody else can read along: Noise handshakes as state machines without I/O.
//!
//! Two families:
//!
//! - **links** (client to node, node to node): `Noise_IK_25519_ChaChaPoly_BLAKE2s`, prologue = the preamble.
//!   The initiator knows the responder's key beforehand (from the invite). [`Initiator`], [`respond`].
//! - **pairs** (client to client, carried by envelopes over two links): the first time
//!   `Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s` with a key from the connection code, later `Noise_IK…` with the
//!   keys pinned then. The outcome is a [`PairRoot`] that seals tunnels end to end.
//!
//! The first message of a link can be recorded and sent again by anybody, so it carries nothing, and nothing
//! may be done before the initiator's first transport message was opened: only that proves that the key's
//! owner is there now.

mod cipher;
mod key;
mod link;
mod pair;

use snow::Builder;
use snow::params::NoiseParams;

pub use cipher::{LinkCipher, LinkOpener, LinkSealer};
pub use key::StaticKey;
pub use link::{Answered, FIRST_BYTES, Initiator, REPLY_BYTES, respond};
pub use pair::{
    InitiatorStep, PAIR_PAYLOAD_BYTES_MAX, PairInitiator, PairMessage, PairPattern, PairPayload,
    PairResponder, PairRoot, PairStep, PairSubject,
};

/// What the tag of a sealed Noise message adds.
pub const TAG_BYTES: usize = 16;

/// Why a handshake or a sealed message is refused. The connection is of no use afterwards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// The bytes are not such a message: the peer is broken or speaks something else.
    #[error("malformed {what}")]
    Malformed {
        /// Which message.
        what: &'static str,
    },
    /// The message does not authenticate: a wrong key, a replay, or somebody changed it.
    #[error("{what} does not authenticate")]
    Forged {
        /// Which message.
        what: &'static str,
    },
    /// The peer's public key is one that everybody shares a secret with.
    #[error("the peer's public key is degenerate")]
    WeakKey,
    /// The peer proved another key than the one pinned for it. A person must decide.
    #[error("the peer's key has changed")]
    KeyChanged {
        /// The key that was pinned.
        pinned: [u8; 32],
        /// The key that was shown.
        shown: [u8; 32],
    },
    /// The random source of the operating system failed. Nothing was sent.
    #[error("the random source failed")]
    Random,
    /// So many messages were sealed that the keys are used up. Connect anew.
    #[error("the keys are used up")]
    Exhausted,
}

impl NoiseError {
    /// What a failure inside the library means while `what` is at work.
    fn of(what: &'static str, error: &snow::Error) -> Self {
        match error {
            snow::Error::Decrypt | snow::Error::Dh => Self::Forged { what },
            snow::Error::Rng => Self::Random,
            snow::Error::State(snow::error::StateProblem::Exhausted) => Self::Exhausted,
            _ => Self::Malformed { what },
        }
    }
}

fn builder<'a>(
    pattern: &str,
    key: &'a StaticKey,
    prologue: &'a [u8],
    ephemeral: Option<&'a [u8; 32]>,
) -> Result<Builder<'a>, NoiseError> {
    let failed = |error: snow::Error| NoiseError::of("handshake parameters", &error);
    let params: NoiseParams = pattern.parse().map_err(failed)?;
    let builder = Builder::new(params)
        .local_private_key(key.private())
        .and_then(|builder| builder.prologue(prologue))
        .map_err(failed)?;
    Ok(match ephemeral {
        // Only golden fixtures fix it.
        Some(ephemeral) => builder.fixed_ephemeral_key_for_testing_only(ephemeral),
        None => builder,
    })
}
