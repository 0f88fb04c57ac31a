//! Records of a tunnel.
//!
//! Input: plain or which cipher, then records one after another.

use bytes::BytesMut;
use underpass_pipeline::record::{HEADER_BYTES, Header, LENGTH_MAX};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer};

/// The seeds were sealed with these.
pub fn keys() -> DirectionKeys {
    DirectionKeys::new([7; 32], [9; 16])
}

/// Both ends for a mode byte.
pub fn ends(mode: u8) -> (Sealer, Opener) {
    let aead = match mode % 3 {
        0 => return (Sealer::plain(), Opener::plain()),
        1 => Aead::XChaCha20Poly1305,
        _ => Aead::Aes256Gcm,
    };
    (Sealer::sealed(aead, keys()), Opener::sealed(aead, keys()))
}

/// Opens the records; what is accepted must seal to the same bytes.
pub fn replay(data: &[u8]) -> usize {
    let Some((mode, mut rest)) = data.split_first() else { return 0 };
    let (mut sealer, mut opener) = ends(*mode);
    let mut accepted = 0;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::parse(head) else { break };
        assert!(header.length as usize <= LENGTH_MAX);
        let Some((body, after)) = after.split_at_checked(header.length as usize) else { break };
        let mut body = body.to_vec();
        let Ok(length) = opener.open_in_place(header, &mut body) else { break };
        let mut again = BytesMut::new();
        let result = sealer.seal(header.kind, &body[..length], &mut again);
        assert!(result.is_ok(), "what was opened can't be sealed: {result:?}");
        assert_eq!(again[..], rest[..header.record_bytes()]);
        rest = after;
        accepted += 1;
    }
    accepted
}
