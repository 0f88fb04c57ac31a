//! What people paste: invites and connection codes.
//!
//! Input: the text.

use underpass_wire::token::{ConnectionCode, Invite};

/// Reads the text as both; what is accepted must be shown in a form that is read the same.
pub fn replay(data: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let mut accepted = 0;
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(invite.to_string().parse(), Ok(invite));
        accepted += 1;
    }
    if let Ok(code) = text.parse::<ConnectionCode>() {
        assert_eq!(code.to_string().parse(), Ok(code));
        accepted += 1;
    }
    accepted
}
