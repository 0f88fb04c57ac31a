//! A damaged log of a store that no server uses, cut back to what is good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use underpass_domain::{Clock, LogName, NodeId};
use underpass_eventlog::{
    Archived, LogError, RepairError, RepairPlan, Repaired, Repairer, TrimError, plan_repair, repair,
};
use underpass_store::{Key, Store};

use super::OpenPlace;
use crate::error::StartError;
use crate::system::{SystemClock, SystemRandom};

/// Where what is cut off is put, in the data folder.
const FOLDER: &str = "repair";
/// Why a good log gets a new epoch.
const RESTORED: &str = "a new epoch was asked for: the store was put back from an older copy";
/// Keys of nodes: `node/<node id>`, each under the lease of a node that runs.
const NODES: (&str, &str) = ("node/", "node0");

/// Why a log was not repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairFailed {
    /// The store can't be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A node is alive on the store.
    #[error("a server runs on the store: {0}")]
    InUse(String),
    /// There is no data folder in which to put what is cut off.
    #[error("it is not said where what is cut off is to be put")]
    NoKeep,
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] TrimError),
    /// The log can't be repaired, or was not.
    #[error(transparent)]
    Repair(#[from] RepairError),
}

impl RepairFailed {
    /// A stable code; each has a page in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start(error) => error.code(),
            Self::InUse(_) => "repair.in_use",
            Self::NoKeep => "repair.no_keep",
            Self::Archive(error) => error.code(),
            Self::Repair(RepairError::Log(LogError::Corrupt { .. })) => "log.bad",
            Self::Repair(RepairError::Log(LogError::Absent { .. })) => "store.none",
            Self::Repair(error) => error.code(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Start(error) => return error.hint(),
            Self::InUse(_) => "stop all servers; after a kill, wait until their leases have run out",
            Self::NoKeep => "name a folder with --keep",
            Self::Archive(_) => "check the folder named with --archive",
            Self::Repair(RepairError::NothingLeft { .. } | RepairError::Tail { .. }) => {
                "restore the store from a backup, or begin anew with another data folder"
            }
            Self::Repair(RepairError::NeedsArchive { .. }) => "name the archive's folder with --archive",
            Self::Repair(RepairError::InArchive { .. }) => "restore the archive, or the store, from a backup",
            Self::Repair(RepairError::Keep { .. }) => {
                "nothing was changed; check that the folder is yours and its disk has space"
            }
            Self::Repair(RepairError::Contended { .. }) => "stop all servers, and run it again",
            Self::Repair(RepairError::Store { .. }) => "run it again: it goes on where it was",
            Self::Repair(_) => "check the store with `underpass store check`",
        }
        .to_owned()
    }
}

/// A store whose logs are to be repaired, held by this process.
#[derive(Debug)]
pub struct DamagedStore {
    place: OpenPlace,
    store: Arc<dyn Store>,
    keep: PathBuf,
}

impl DamagedStore {
    /// Takes a store that no server uses. What is cut off goes below `keep`, by default into the data folder.
    ///
    /// # Errors
    /// See [`RepairFailed`]. Nothing was changed.
    pub async fn take(
        place: OpenPlace,
        keep: Option<&Path>,
        archive: Option<&Path>,
    ) -> Result<Self, RepairFailed> {
        match Self::look(&place, keep, archive).await {
            Ok((store, keep)) => Ok(Self { place, store, keep }),
            Err(error) => {
                place.close().await;
                Err(error)
            }
        }
    }

    async fn look(
        place: &OpenPlace,
        keep: Option<&Path>,
        archive: Option<&Path>,
    ) -> Result<(Arc<dyn Store>, PathBuf), RepairFailed> {
        let keep = match (keep, place.data()) {
            (Some(keep), _) => keep.to_owned(),
            (None, Some(data)) => data.join(FOLDER),
            (None, None) => return Err(RepairFailed::NoKeep),
        };
        let mut store = place.store();
        if place.is_shared() {
            let (from, to) = (Key::from(NODES.0), Key::from(NODES.1));
            let nodes = store.scan(&from, &to, 1).await.map_err(StartError::StoreCall)?;
            if let Some(node) = nodes.first() {
                let name = String::from_utf8_lossy(node.key.as_ref()).into_owned();
                return Err(RepairFailed::InUse(name));
            }
        }
        if let Some(archive) = archive {
            store = Archived::open(store, archive).await?.0;
        }
        Ok((store, keep))
    }

    /// What a repair of this log would do; see [`plan_repair`]. Nothing is changed.
    ///
    /// # Errors
    /// See [`RepairFailed`].
    pub async fn plan(&self, log: LogName, new_epoch: bool) -> Result<RepairPlan, RepairFailed> {
        Ok(plan_repair(&self.store, log, new_epoch.then_some(RESTORED)).await?)
    }

    /// Where a repair puts what it cuts off.
    pub fn keep(&self) -> &Path {
        &self.keep
    }

    /// Does what the plan says.
    ///
    /// # Errors
    /// See [`RepairFailed`].
    pub async fn repair(&self, plan: &RepairPlan) -> Result<Repaired, RepairFailed> {
        let now = SystemClock.now();
        let node = match self.place.data() {
            Some(data) => data.node_id(now, &SystemRandom).map_err(StartError::from)?,
            None => NodeId::from_bytes([0; 16]),
        };
        let time = now.to_string().replace([':', '.'], "-");
        let folder = self.keep.join(format!("{time}-{}", plan.log));
        Ok(repair(&self.store, plan, folder, &Repairer { node, now, random: &SystemRandom }).await?)
    }

    /// Gives the store back.
    pub async fn close(self) {
        self.place.close().await;
    }
}
