//! Work on whole logs beside servers: moving them between stores, making them from exports, checking them.

mod check;
mod migrate;
mod place;

pub use check::{Checked, check};
pub use migrate::{MigrateError, Migrated, import, migrate};
pub use place::{OpenPlace, PlaceText, StorePlace};
pub use underpass_eventlog::Copied;
