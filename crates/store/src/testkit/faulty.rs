//! Good stores made bad, to test what stands on them.
//!
//! Each decorator is a store around a store. They nest: a slow, flaky store is
//! `Slow::new(Flaky::scripted(MemoryStore::new(), faults), delay)`.

mod compacting;
mod decorated;
mod flaky;
mod interleaving;
mod slow;
#[cfg(test)]
mod tests;

pub use compacting::Compacting;
pub use decorated::{Call, Decorated, Decorator};
pub use flaky::{Fault, Flaky, Odds};
pub use interleaving::Interleaving;
pub use slow::Slow;
