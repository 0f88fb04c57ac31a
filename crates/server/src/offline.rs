//! The data folder opened without a server: the same control plane and the same API, on the control socket
//! alone, for as long as an administrator's verb takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_api::{Access, ApiState};
use underpass_control::{Control, ControlOptions};
use underpass_domain::LogName;
use underpass_eventlog::{CheckpointBook, CheckpointPublicKey, LogError, Verified};
use underpass_tasks::Tasks;

use crate::advertise::advertised;
use crate::api_server::{self, invite_line};
use crate::backend::{Backend, Place, archived};
use crate::backup::FolderBackups;
use crate::belonging;
use crate::data::{ARCHIVE, DataFolder};
use crate::error::StartError;
use crate::system::{SystemClock, SystemRandom};

/// Where a server listens when nobody says anything.
const CLIENTS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7400);

/// Time for the parts to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why a log could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The folder could not be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store could not be read.
    #[error("the log can't be read")]
    Log(#[from] LogError),
}

/// A data folder that no server uses, held by this process.
#[derive(Debug)]
pub struct Offline {
    log: Tasks,
    api: Tasks,
    control: Arc<Control>,
    backend: Backend,
    data: DataFolder,
}

impl Offline {
    /// Takes the folder and serves its control socket. Nothing is made in a folder that is not there.
    ///
    /// # Errors
    /// [`DataError::InUse`](crate::DataError::InUse) when a server runs on it: then its own socket answers.
    pub async fn open(folder: &Path) -> Result<Self, StartError> {
        let data = DataFolder::open(folder, false)?;
        let place = place(&data)?;
        let random = Arc::new(SystemRandom);
        let clock = Arc::new(SystemClock);
        let link_key = data.link_key(&*random, true, false)?;
        // What the last start said; without one there was no server that an invite could lead to.
        let (advertise, _) = advertised(data.advertised()?.as_deref(), CLIENTS_DEFAULT);
        let line = invite_line(vec![advertise.clone()], link_key.public())?;
        let node = data.node_id(underpass_domain::Clock::now(&*clock), &*random)?;
        let backend = Backend::open(&place, &data.join("store")).await?;
        if let Err(error) = belonging::refuse_half_moved(&backend.store()).await {
            backend.close().await;
            return Err(error);
        }
        let fatal = CancellationToken::new();
        let log = Tasks::new("log", fatal.clone());
        let mut options = ControlOptions::new(node, "offline");
        options.serving = false;
        options.keep.archive = Some(data.join(ARCHIVE));
        let control = match Control::open(backend.store(), options, clock, random, &log).await {
            Ok(control) => control,
            Err(error) => {
                let _ = log.drain(STOP_GRACE).await;
                backend.close().await;
                return Err(error.into());
            }
        };
        let mut state = ApiState::new(Arc::clone(&control), line, CancellationToken::new());
        state.advertise = vec![advertise];
        state.server_key = link_key.public();
        place.kind().name().clone_into(&mut state.store);
        state.backups =
            Some(Arc::new(FolderBackups { data: data.path().to_owned(), backend: backend.clone() }));
        let api = Tasks::new("api", fatal);
        let serve = || {
            let socket = api_server::bind_socket(&crate::control_socket(data.path()))?;
            api_server::serve_socket(&api, socket, underpass_api::router(Arc::new(state), Access::Operator))
        };
        if let Err(error) = serve() {
            control.close().await;
            let _ = log.drain(STOP_GRACE).await;
            backend.close().await;
            return Err(error);
        }
        Ok(Self { log, api, control, backend, data })
    }

    /// Checks a log of a folder that no server uses, without opening it: a damaged log can't be opened, and this
    /// says where the damage is.
    ///
    /// # Errors
    /// As [`Offline::open`], and what the store says.
    pub async fn verify(folder: &Path, log: LogName) -> Result<Verified, VerifyError> {
        let data = DataFolder::open(folder, false).map_err(StartError::from)?;
        let backend = Backend::open(&place(&data)?, &data.join("store")).await?;
        let verified = async {
            let store = archived(backend.store(), &data.join(ARCHIVE)).await?;
            Ok(underpass_eventlog::verify(&store, log).await?)
        };
        let verified = verified.await;
        backend.close().await;
        verified
    }

    /// The same, and that it agrees with the checkpoints in `book`.
    ///
    /// # Errors
    /// As [`Offline::verify`].
    pub async fn verify_with(
        folder: &Path,
        log: LogName,
        book: &CheckpointBook,
        key: &CheckpointPublicKey,
    ) -> Result<Verified, VerifyError> {
        let data = DataFolder::open(folder, false).map_err(StartError::from)?;
        let backend = Backend::open(&place(&data)?, &data.join("store")).await?;
        let verified = async {
            let store = archived(backend.store(), &data.join(ARCHIVE)).await?;
            Ok(underpass_eventlog::verify_with(&store, log, &book.of(log), key).await?)
        };
        let verified = verified.await;
        backend.close().await;
        verified
    }

    /// Gives the folder back.
    pub async fn close(self) {
        let _ = self.api.drain(STOP_GRACE).await;
        self.control.close().await;
        let _ = self.log.drain(STOP_GRACE).await;
        self.backend.close().await;
        let _ = std::fs::remove_file(crate::control_socket(self.data.path()));
    }
}

/// Where the log of this folder is kept, if it is kept at all.
fn place(data: &DataFolder) -> Result<Place, StartError> {
    match data.place()? {
        Place::RocksDb if !data.join("store").is_dir() => Err(StartError::NoStore(data.path().to_owned())),
        Place::Memory => Err(StartError::NoStore(data.path().to_owned())),
        place => Ok(place),
    }
}
