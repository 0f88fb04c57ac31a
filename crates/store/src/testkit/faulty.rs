//! Good stores made bad, to test what stands on them.
//!
//! Each decorator is a store around a store. They nest: a slow, flaky store is
//! `Slow::new(Flaky::scripted(MemoryStore::new(), faults), delay)`.
//!
//! Most keep the contracts: they fail, wait and forget as a store may. [`Unguarded`] and [`Stale`] break them. A
//! check that is meant to find such a store is worth something only if it finds these.

mod compacting;
mod decorated;
mod flaky;
mod interleaving;
mod slow;
mod stale;
#[cfg(test)]
mod tests;
mod unguarded;

pub use compacting::Compacting;
pub use decorated::{Call, Decorated, Decorator};
pub use flaky::{Fault, Flaky, Odds};
pub use interleaving::Interleaving;
pub use slow::Slow;
pub use stale::Stale;
pub use unguarded::Unguarded;
