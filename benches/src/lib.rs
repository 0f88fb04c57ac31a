//! What the programs of this package share: load, its target, processes under measure, and reports.
//!
//! Numbers mean little by themselves. Everything is a ratio of two things measured in turn, in one run,
//! on one machine; `side-by-side` does that and says with what.

pub mod load;
#[cfg(feature = "log")]
pub mod log;
pub mod peers;
pub mod process;
pub mod report;
pub mod stats;
pub mod target;
