//! What the fuzz targets do with an input, as plain functions.
//!
//! Each target is a module with `replay(data)`, which feeds the bytes to a decoder and checks what must hold
//! for whatever comes out. It panics where something doesn't hold, and otherwise returns how many things were
//! accepted, so that tests can tell a seed that reaches its decoder from one that is refused at the door.
//!
//! `cargo fuzz run <target>` (nightly) searches for inputs; the tests of this crate replay the stored corpus
//! and a million random inputs on stable.

#![allow(clippy::missing_panics_doc, reason = "panicking is how a target says that it found something")]

pub mod channel;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod payload;
pub mod records;
pub mod tokens;

/// A target: takes any bytes, says how many things it accepted, panics on a finding.
pub type Replay = fn(&[u8]) -> usize;

/// All targets, by the names of their corpus folders.
pub const TARGETS: [(&str, Replay); 7] = [
    ("channel", channel::replay),
    ("frame", frame::replay),
    ("handshake", handshake::replay),
    ("link", link::replay),
    ("payload", payload::replay),
    ("records", records::replay),
    ("tokens", tokens::replay),
];
