//! A backup of a data folder that is in use: a data folder like it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use underpass_api::{Backups, Problem};

use crate::backend::Backend;
use crate::checkpoints;
use crate::data::{DataError, DataFolder};

/// Files that make a data folder what it is, beside the store.
const FILES: &[&str] =
    &["checkpoint.key", "checkpoint.pub", "link.key", "admin.key", "node", "advertised", "place.json", "log"];

/// Makes backups of one folder.
#[derive(Debug)]
pub(crate) struct FolderBackups {
    pub(crate) data: PathBuf,
    pub(crate) backend: Backend,
}

#[async_trait]
impl Backups for FolderBackups {
    async fn make(&self, to: &Path) -> Result<(), Problem> {
        self.backend.can_back_up().map_err(|why| {
            Problem::no_backup(
                "backup.elsewhere",
                false,
                why,
                "use `etcdctl snapshot save`, or `underpass store migrate`",
            )
        })?;
        let folder = DataFolder::open(to, true).map_err(|error| not_made(&error))?;
        if folder.join("store").exists() || FILES.iter().any(|name| folder.join(name).exists()) {
            return Err(taken(to));
        }
        // Before the store: a checkpoint of what the copy does not have would say that it is short of its tail.
        folder.copy_in(&self.data, checkpoints::FILE).map_err(|error| not_made(&error))?;
        // The keys last: a folder without them is no backup that anybody could take for whole.
        self.backend.back_up(&folder.join("store")).await.map_err(|error| {
            tracing::error!(to = %to.display(), error, "no backup was made");
            Problem::no_backup(
                "backup.failed",
                true,
                error,
                "check that the folder's disk has space, and try another folder",
            )
        })?;
        // Behind the store: what it no longer has by then is in the archive.
        folder.copy_archive(&self.data).map_err(|error| not_made(&error))?;
        for name in FILES {
            folder.copy_in(&self.data, name).map_err(|error| not_made(&error))?;
        }
        tracing::info!(to = %to.display(), "a backup was made");
        Ok(())
    }
}

fn taken(to: &Path) -> Problem {
    let detail = format!("{} holds something already", to.display());
    Problem::no_backup("backup.not_empty", false, detail, "name a folder that is new or empty")
}

fn not_made(error: &DataError) -> Problem {
    match error {
        DataError::Foreign(path) | DataError::InUse(path) => taken(path),
        error => Problem::no_backup("backup.failed", true, error.to_string(), error.hint()),
    }
}
