//! Texts that people hand to each other: invites and connection codes.
//!
//! Both forgive upper case, spaces, and the look-alikes `o`, `i` and `l`; both end in a checksum, and their
//! errors say which part is wrong.

mod alphabet;
mod code;
mod invite;

pub use code::{CODE_RANDOM_BYTES, CodeError, CodePart, ConnectionCode};
pub use invite::{ADDRESSES_MAX, Invite, InviteError};
