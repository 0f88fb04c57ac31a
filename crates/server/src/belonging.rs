//! A data folder and a store belong together: the folder has the key that the clients in the log have pinned.
//!
//! A store says which link key its installation has, a data folder which log it has served. A server that finds
//! something else does not start: it would come up empty and healthy, or turn all clients away.

use std::sync::Arc;

use underpass_domain::{ControlEvent, LogId, LogName, Position};
use underpass_eventlog::{LogError, read_stored};
use underpass_store::{Commit, Entry, Guard, Key, Outcome, Store, StoreError};

use crate::data::DataFolder;
use crate::error::StartError;

/// Where a store says which public link key its installation has.
const LINK_KEY: &str = "installation/link-key";

/// Stands in a store while an installation is moved into it. Each log has a marker of its own while it is copied;
/// this one covers the time in which one log is there and the other is not begun.
const MOVING: &str = "installation/moving";

/// Writes that lose against another node's are tried again; whoever won has written the same.
const ATTEMPTS_MAX: u32 = 4;

/// What a store says of its installation.
#[derive(Debug)]
pub(crate) struct Belonging {
    store: Arc<dyn Store>,
    /// The log in it, if there is one.
    log: Option<LogId>,
    key: Option<Entry>,
}

impl Belonging {
    /// Looks at a store. Nothing is written.
    pub(crate) async fn of(store: Arc<dyn Store>) -> Result<Self, StartError> {
        refuse_half_moved(&store).await?;
        let log = log_id(&store).await?;
        let key = store.get(&Key::from(LINK_KEY)).await.map_err(StartError::StoreCall)?;
        Ok(Self { store, log, key })
    }

    /// Whether clients may have pinned a key already.
    pub(crate) fn has_clients(&self) -> bool {
        self.log.is_some() || self.key.is_some()
    }

    /// Refuses a store that holds another log than the folder has served, or none.
    pub(crate) fn check_log(&self, data: &DataFolder) -> Result<(), StartError> {
        match (data.served_log()?, self.log) {
            (Some(served), found) if found != Some(served) => {
                Err(StartError::OtherLog { folder: data.path().to_owned(), served, found })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a store of another installation, unless its key was lost and is made `anew`; writes down the key
    /// where none stands.
    pub(crate) async fn check_key(&mut self, key: &[u8; 32], anew: bool) -> Result<(), StartError> {
        for _ in 0..ATTEMPTS_MAX {
            let guard = match &self.key {
                Some(entry) if entry.value.as_ref() == key => return Ok(()),
                Some(entry) if anew => Guard::At(entry.revision),
                Some(_) => return Err(StartError::OtherInstallation),
                None => Guard::Absent,
            };
            let commit =
                Commit::new().guard(Key::from(LINK_KEY), guard).put(Key::from(LINK_KEY), key.to_vec());
            match self.store.commit(commit).await {
                Ok(Outcome::Committed(_)) => return Ok(()),
                // Another node was first, or it is unknown whether this one was: look again.
                Ok(Outcome::Conflict(_)) | Err(StoreError::Indeterminate { .. }) => {}
                Err(error) => return Err(StartError::StoreCall(error)),
            }
            self.key = self.store.get(&Key::from(LINK_KEY)).await.map_err(StartError::StoreCall)?;
        }
        Err(StartError::StoreCall(StoreError::unavailable("commit", "other nodes keep writing first")))
    }
}

/// Refuses a target that belongs to another installation than the source. Nothing is written.
pub(crate) async fn may_take(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Result<(), StartError> {
    let key =
        async |store: &Arc<dyn Store>| store.get(&Key::from(LINK_KEY)).await.map_err(StartError::StoreCall);
    match (key(from).await?, key(to).await?) {
        (Some(theirs), Some(ours)) if theirs.value != ours.value => Err(StartError::OtherInstallation),
        _ => Ok(()),
    }
}

/// Refuses a store into which an installation was moved in part only.
pub(crate) async fn refuse_half_moved(store: &Arc<dyn Store>) -> Result<(), StartError> {
    match store.get(&Key::from(MOVING)).await.map_err(StartError::StoreCall)? {
        None => Ok(()),
        Some(_) => Err(StartError::HalfMoved),
    }
}

/// Says in `to` that an installation is moved into it, unless both logs are there already: who brings a copy up to
/// date leaves a whole one whatever happens.
pub(crate) async fn begin_move(to: &Arc<dyn Store>) -> Result<(), StartError> {
    for log in LogName::ALL {
        match read_stored(to, log, Position(0), 1).await {
            Ok(_) => {}
            Err(LogError::Unavailable { source, .. }) => return Err(StartError::StoreCall(source)),
            Err(LogError::Absent { .. } | LogError::HalfCopied { .. }) => {
                let put = to.put(&Key::from(MOVING), "1".into()).await;
                return put.map(drop).map_err(StartError::StoreCall);
            }
            // What else lies there is for the copy to say.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The move has come to its end.
pub(crate) async fn end_move(to: &Arc<dyn Store>) -> Result<(), StartError> {
    to.delete(&Key::from(MOVING)).await.map(drop).map_err(StartError::StoreCall)
}

/// Writes down in `to` which link key the installation of `from` has, if that is known.
pub(crate) async fn take_over(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Result<(), StartError> {
    let known = from.get(&Key::from(LINK_KEY)).await.map_err(StartError::StoreCall)?;
    let Some(key) = known.and_then(|entry| <[u8; 32]>::try_from(entry.value.as_ref()).ok()) else {
        return Ok(());
    };
    let key_there = to.get(&Key::from(LINK_KEY)).await.map_err(StartError::StoreCall)?;
    let mut there = Belonging { store: Arc::clone(to), log: None, key: key_there };
    there.check_key(&key, false).await
}

async fn log_id(store: &Arc<dyn Store>) -> Result<Option<LogId>, StartError> {
    match read_stored(store, LogName::Control, Position(0), 1).await {
        Ok(events) => Ok(events.first().and_then(|first| match first.decode() {
            Ok(ControlEvent::LogCreated(created)) => Some(created.log),
            _ => None,
        })),
        Err(LogError::Absent { .. }) => Ok(None),
        Err(LogError::HalfCopied { .. }) => Err(StartError::HalfMoved),
        // What is wrong with a log is said by whoever opens it, better than here.
        Err(LogError::Unavailable { source, .. }) => Err(StartError::StoreCall(source)),
        Err(_) => Ok(None),
    }
}
