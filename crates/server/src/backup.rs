//! A backup of a data folder that is in use: a data folder like it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use underpass_api::{Backups, Problem};

use crate::backend::Backend;
use crate::checkpoints;
use crate::data::{ARCHIVE, DataError, DataFolder};

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
        copy_frames(&self.data.join(ARCHIVE), &folder.join(ARCHIVE)).map_err(|error| not_made(&error))?;
        for name in FILES {
            folder.copy_in(&self.data, name).map_err(|error| not_made(&error))?;
        }
        tracing::info!(to = %to.display(), "a backup was made");
        Ok(())
    }
}

/// Copies the files of an archive, which never change, and nothing else.
fn copy_frames(from: &Path, to: &Path) -> Result<(), DataError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::File { path, source }
    };
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(from))?,
    };
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in entries {
        let (source, name) = entry.map(|entry| (entry.path(), entry.file_name())).map_err(at(from))?;
        let target = to.join(name);
        if source.is_dir() {
            copy_frames(&source, &target)?;
        } else if source.extension().is_some_and(|extension| extension == "frames") {
            fs::copy(&source, &target).map_err(at(&source))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(at(&target))?;
        }
    }
    Ok(())
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
