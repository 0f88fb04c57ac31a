//! A node, wired from its configuration: start-up, readiness, drain.
//!
//! With the command line this is the only crate that names backends and transports, and the only one that asks
//! the operating system for time and randomness.

mod advertise;
mod api_server;
mod backend;
mod backup;
mod belonging;
mod bounded;
mod checkpoints;
pub mod config;
mod data;
mod error;
mod measures;
mod node;
mod offline;
mod system;
pub mod tools;

use std::path::{Path, PathBuf};

pub use data::{DataError, DataFolder};
pub use error::StartError;
pub use node::{Node, Ready, Stopped};
pub use offline::{Offline, VerifyError};
pub use system::{SystemClock, SystemRandom};
pub use underpass_eventlog::{
    CheckpointBook, CheckpointPublicKey, Export, InvalidCheckpointKey, LogError, Progress, Selection,
    Verified, VerifiedExport, verify_export, verify_export_with,
};

/// Where a server answers whoever may read its data folder.
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}
