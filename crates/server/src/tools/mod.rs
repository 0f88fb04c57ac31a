//! Work on whole logs beside servers: moving them between stores, making them from exports, checking them.

mod check;
mod migrate;
mod place;
mod repair;

pub use check::{Checked, check};
pub use migrate::{MigrateError, Migrated, import, migrate};
pub use place::{OpenPlace, PlaceText, StorePlace};
pub use repair::{DamagedStore, RepairFailed};
pub use underpass_eventlog::{Copied, RepairPlan, Repaired};
