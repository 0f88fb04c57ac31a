//! The control plane of a node, as a service.
//!
//! [`Control`] opens both logs of an installation (`control`, what is kept, and `activity`, what is trimmed),
//! executes commands at their heads and publishes the read models that everything else on the node works from.
//! It is the only crate that writes events; the gateway, the API and the server call it.
//!
//! What it adds to the logs:
//!
//! - the **node lease**: one lease per node, renewed at a third of its time. Every append is fenced by the key
//!   that hangs on it, so a node that lost its lease can't write, whatever it believes. It goes on serving what
//!   it knows, and starts to write again when it has a lease again;
//! - **presence**: which client is connected to which node, as entries under the node lease ([`Control::announce`]).
//!   When the node dies they go by themselves. They are deleted only at the revision that was written;
//! - the **expirer**, which turns the passing of time into `*.expired` events, and the **reaper**, which ends
//!   sessions that nobody ended;
//! - **undo**: the command that compensates one of the past ([`Control::undo`]);
//! - **explain**: why something is as it is, with the events behind it ([`Control::explain`]);
//! - **credentials**: invites, connection codes and API keys. Secrets are made here, given out once, and only
//!   their hashes go into events.
//!
//! Time, randomness and storage are arguments.

mod auth_failures;
mod caller;
mod commands;
mod commit;
mod control;
mod credentials;
mod error;
mod expirer;
mod explain;
mod keeper;
mod lease;
mod options;
mod presence;
mod reaper;
mod secrets;
mod spool;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(test)]
mod tests;
mod undo;

pub use auth_failures::{ADDRESSES_MAX, RECORD_EVERY};
pub use caller::Caller;
pub use commands::{Made, NewClient, NewCode, NewMapping};
pub use control::{COMMAND_WAIT, Control, STORED_HEAD_WAIT};
pub use credentials::{AuthFailure, Issued, IssuedKey, Principal};
pub use error::{BoxError, CODES, ControlError, ErrorClass, OpenError};
pub use explain::{EXPLAINED_EVENTS_MAX, Explained};
pub use keeper::{KeepError, Trimming};
pub use lease::{LEASE_TTL_DEFAULT, LeaseLost};
pub use options::{CARRIES_PER_AGE, ControlOptions, Enrolment, KeepOptions};
pub use presence::{Presence, PresenceGuard};
pub use secrets::{InviteSecret, Token, hash_secret};
pub use spool::{Noted, SPOOL_BYTES_MAX, SPOOL_FACTS_MAX};
pub use underpass_eventlog::View;
