//! A copy of a store that is in use.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;
use underpass_store::{BoxError, Revision};

use crate::folder::{Folder, State};
use crate::head::HeadMark;
use crate::open::OpenError;

/// Why there is no backup. The store goes on as before; a folder that was begun is no store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something at the place already.
    #[error("{} is not an empty or new folder", .0.display())]
    NotEmpty(PathBuf),
    /// The folder can't be made.
    #[error("no backup can be made in {}", to.display())]
    Folder {
        /// Where.
        to: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The store has failed, or is closed.
    #[error("the store can't be copied: {0}")]
    Store(String),
}

/// Makes `to` a store of its own that stands at `revision`: RocksDB links its files where it can and copies where it
/// must. Only the last step makes a store of the folder.
pub(crate) fn make(db: &DB, revision: Revision, to: &Path) -> Result<(), BackupError> {
    let failed = |source: BoxError| BackupError::Folder { to: to.to_owned(), source };
    let io = |error: io::Error| failed(error.into());
    let mut folder = match Folder::take(to) {
        Ok(folder) => folder,
        Err(OpenError::Foreign { .. } | OpenError::InUse { .. } | OpenError::Newer { .. }) => {
            return Err(BackupError::NotEmpty(to.to_owned()));
        }
        Err(error) => return Err(failed(error.into())),
    };
    if folder.state() != State::New || folder.database().exists() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    Checkpoint::new(db)
        .and_then(|checkpoint| checkpoint.create_checkpoint(folder.database()))
        .map_err(|error| failed(error.into()))?;
    HeadMark::write(to, revision).map_err(io)?;
    folder.ready().map_err(io)
}
