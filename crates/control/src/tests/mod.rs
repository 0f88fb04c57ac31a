//! The control plane on the memory store.

mod codes;
mod credentials;
mod expiry;
mod keeping;
mod lease;
mod spool;
mod story;
mod undo;
