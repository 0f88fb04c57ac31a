//! What a log promises, seen from outside: one binary, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod appending;
mod bad_stores;
mod checkpoints;
mod copying;
mod exporting;
mod faults;
mod frames;
mod history;
mod importing;
mod nodes;
mod raw;
mod repairing;
mod support;
mod trimming;
