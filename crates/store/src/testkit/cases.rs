//! The cases of the suite, by trait. Each is an ordinary function that says which promise it checks, or
//! which mistake it is after.

pub mod cas;
pub mod durable;
pub mod expirable;
pub mod kv;
pub mod watchable;
