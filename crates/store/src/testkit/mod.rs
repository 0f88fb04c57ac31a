//! What proves a backend, and what makes a good one bad.
//!
//! A backend implements [`Backend`] in its tests and runs the suite:
//!
//! ```ignore
//! underpass_store::testkit::kv!(fresh());
//! underpass_store::testkit::cas!(fresh());
//! underpass_store::testkit::expirable!(fresh());
//! underpass_store::testkit::watchable!(fresh());
//! underpass_store::testkit::durable!(fresh());
//! underpass_store::testkit::model!(fresh(), 200);
//! ```
//!
//! `fresh()` is an async expression that gives `Option<impl Backend>` with nothing stored, `None` where this
//! machine can't provide the backend. Each case becomes a test of its own, in a module named like the macro.
//! A case that could not run says so; with `REQUIRE_BACKENDS=1` it fails.

#![allow(clippy::missing_panics_doc, reason = "a case that fails panics")]

pub mod cases;
pub mod faulty;
mod harness;
mod macros;
mod random;
pub mod sequences;
mod tools;

pub use harness::{Backend, Case, Checked, Together, run, with_backend, with_store};
pub use random::Seeded;

pub use crate::{
    __store_suite_cas as cas, __store_suite_durable as durable, __store_suite_expirable as expirable,
    __store_suite_kv as kv, __store_suite_model as model, __store_suite_watchable as watchable,
};
