//! The sealed stream of a link after its handshake.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use snow::StatelessTransportState;

use super::{NoiseError, TAG_BYTES};
use crate::link::CHUNK_BYTES_MAX;

/// Both directions of a link.
pub struct LinkCipher {
    hash: [u8; 32],
    sealer: LinkSealer,
    opener: LinkOpener,
}

impl LinkCipher {
    pub(super) fn new(state: StatelessTransportState, hash: [u8; 32]) -> Self {
        let state = Arc::new(state);
        Self {
            hash,
            sealer: LinkSealer { state: state.clone(), counter: 0 },
            opener: LinkOpener { state, counter: 0 },
        }
    }

    /// A name for this very handshake that both ends know and nobody can repeat. Tickets are bound to it.
    pub fn handshake_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The two directions apart, for a reader and a writer of their own.
    pub fn split(self) -> (LinkSealer, LinkOpener) {
        (self.sealer, self.opener)
    }
}

/// Seals what this end sends.
pub struct LinkSealer {
    state: Arc<StatelessTransportState>,
    counter: u64,
}

impl LinkSealer {
    /// Appends `chunk` to `out`: a 16-bit length, then the sealed bytes.
    ///
    /// # Errors
    ///
    /// `Malformed` if the chunk is larger than [`CHUNK_BYTES_MAX`]; `Exhausted`. Nothing is appended then.
    pub fn seal(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), NoiseError> {
        let malformed = NoiseError::Malformed { what: "outgoing chunk" };
        if chunk.len() > CHUNK_BYTES_MAX {
            return Err(malformed);
        }
        let sealed = chunk.len() + TAG_BYTES;
        let length = u16::try_from(sealed).map_err(|_| malformed)?;
        let begin = out.len();
        out.put_u16(length);
        out.resize(begin + 2 + sealed, 0);
        match self.state.write_message(self.counter, chunk, &mut out[begin + 2..]) {
            Ok(_) => {
                self.counter += 1;
                Ok(())
            }
            Err(error) => {
                out.truncate(begin);
                Err(NoiseError::of("outgoing chunk", &error))
            }
        }
    }
}

/// Opens what the other end sealed.
pub struct LinkOpener {
    state: Arc<StatelessTransportState>,
    counter: u64,
}

impl LinkOpener {
    /// Replaces the contents of `out` by what is sealed in `sealed` (without its length in front).
    ///
    /// Messages open only in the order in which they were sealed, each once.
    pub fn open(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let what = "chunk";
        let length = sealed.len().checked_sub(TAG_BYTES).ok_or(NoiseError::Malformed { what })?;
        if length > CHUNK_BYTES_MAX {
            return Err(NoiseError::Malformed { what });
        }
        out.clear();
        out.resize(length, 0);
        self.state.read_message(self.counter, sealed, out).map_err(|error| {
            out.clear();
            NoiseError::of(what, &error)
        })?;
        self.counter += 1;
        Ok(())
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque!(LinkCipher, LinkSealer, LinkOpener);
