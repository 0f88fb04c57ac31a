//! The storage backends that a configuration can name, and which of them are built in.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use underpass_control::OpenError;
use underpass_eventlog::Archived;
use underpass_store::{MemoryStore, Store};

use crate::config::{EtcdConfig, StoreKind};
use crate::error::StartError;

/// Which store, and what is needed to open it again without the configuration: the data folder remembers it for
/// verbs that work without a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Place {
    /// Gone with the process.
    Memory,
    /// In the data folder.
    RocksDb,
    /// In a cluster.
    Etcd(Box<EtcdConfig>),
}

impl Place {
    /// Where this configuration keeps its log. Files are named from the root on, for whoever works elsewhere.
    pub(crate) fn configured(kind: StoreKind, etcd: &EtcdConfig) -> Self {
        match kind {
            StoreKind::Memory => Self::Memory,
            StoreKind::RocksDb => Self::RocksDb,
            StoreKind::Etcd => {
                let mut etcd = Box::new(etcd.clone());
                let files =
                    [&mut etcd.password_file, &mut etcd.ca_file, &mut etcd.cert_file, &mut etcd.key_file];
                for file in files.into_iter().flatten() {
                    if let Ok(absolute) = std::path::absolute(&*file) {
                        *file = absolute;
                    }
                }
                Self::Etcd(etcd)
            }
        }
    }

    pub(crate) fn kind(&self) -> StoreKind {
        match self {
            Self::Memory => StoreKind::Memory,
            Self::RocksDb => StoreKind::RocksDb,
            Self::Etcd(_) => StoreKind::Etcd,
        }
    }
}

/// An open store. Clones are the same store.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Memory(Arc<MemoryStore>),
    #[cfg(feature = "rocksdb")]
    RocksDb(Arc<underpass_store_rocksdb::RocksStore>),
    #[cfg(feature = "etcd")]
    Etcd(Arc<underpass_store_etcd::EtcdStore>),
}

impl Backend {
    /// Opens the store at this place, or begins one; those with files keep them in `folder`.
    pub(crate) async fn open(place: &Place, folder: &Path) -> Result<Self, StartError> {
        Self::open_or(place, folder, true).await
    }

    /// The same. With `begin` false, nothing is begun in a cluster that others use, too: where there is no store,
    /// that is [`StartError::Etcd`] with the code `store.none`.
    pub(crate) async fn open_or(place: &Place, folder: &Path, begin: bool) -> Result<Self, StartError> {
        #[cfg(not(feature = "etcd"))]
        let _ = begin;
        match place {
            Place::Memory => Ok(Self::Memory(Arc::new(MemoryStore::new()))),
            #[cfg(feature = "rocksdb")]
            Place::RocksDb => {
                let folder = folder.to_owned();
                // Going through RocksDB's log after a crash takes as long as the disk does.
                let opened = tokio::task::spawn_blocking(move || {
                    underpass_store_rocksdb::RocksStore::open(
                        &folder,
                        underpass_store_rocksdb::RocksOptions::default(),
                    )
                })
                .await
                .map_err(|_| StartError::Fatal)?;
                Ok(Self::RocksDb(Arc::new(opened.map_err(StartError::Store)?)))
            }
            #[cfg(feature = "etcd")]
            Place::Etcd(config) => {
                let mut options = etcd::options(config)?;
                options.begin = begin;
                let opened = underpass_store_etcd::EtcdStore::open(options).await;
                Ok(Self::Etcd(Arc::new(opened.map_err(|error| StartError::Etcd(Box::new(error)))?)))
            }
            #[allow(unreachable_patterns, reason = "with every backend built in nothing is left")]
            _ => {
                let _ = folder;
                Err(StartError::NotBuiltIn(place.kind().name()))
            }
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::<MemoryStore>::clone(store),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => Arc::<underpass_store_rocksdb::RocksStore>::clone(store),
            #[cfg(feature = "etcd")]
            Self::Etcd(store) => Arc::<underpass_store_etcd::EtcdStore>::clone(store),
        }
    }

    /// Whether other processes may use it at this moment.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(_) => false,
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => true,
        }
    }

    /// Says why this store is not backed up by this program, if it isn't.
    pub(crate) fn can_back_up(&self) -> Result<(), &'static str> {
        match self {
            Self::Memory(_) => Err("the log is in memory: there is nothing that a backup could bring back"),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(_) => Ok(()),
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => Err("the log is in etcd, which has backups of its own"),
        }
    }

    /// Copies the store into a folder, while it is in use.
    pub(crate) async fn back_up(&self, to: &Path) -> Result<(), String> {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => store.backup(to).await.map(drop).map_err(|error| {
                use std::error::Error;
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                text
            }),
            #[allow(unreachable_patterns, reason = "without a backend that can, this is all there is")]
            _ => {
                let _ = to;
                self.can_back_up().map_err(str::to_owned)
            }
        }
    }

    /// Finishes all writes and gives files and connections back.
    pub(crate) async fn close(&self) {
        match self {
            Self::Memory(store) => store.close(),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => store.close().await,
            #[cfg(feature = "etcd")]
            Self::Etcd(store) => store.close().await,
        }
    }
}

/// A store, with what an archive holds of its logs.
pub(crate) async fn archived(store: Arc<dyn Store>, folder: &Path) -> Result<Arc<dyn Store>, StartError> {
    match Archived::open(store, folder).await {
        Ok((store, _)) => Ok(store),
        Err(error) => Err(StartError::Control(OpenError::Archive(error))),
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    //! From names of files to what is in them.

    use std::path::Path;

    use underpass_store_etcd::{Credentials, EtcdOptions, Tls};
    use zeroize::Zeroizing;

    use crate::config::EtcdConfig;
    use crate::data::{DataError, check_mode};

    /// Keys, certificates and passwords are far shorter.
    const FILE_BYTES_MAX: u64 = 1 << 20;

    pub(super) fn options(config: &EtcdConfig) -> Result<EtcdOptions, DataError> {
        let mut options = EtcdOptions::new(config.endpoints.iter().cloned(), config.prefix.clone());
        options.request_timeout = config.request_timeout;
        if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
            let password = secret(file)?;
            let text = std::str::from_utf8(&password)
                .map_err(|_| DataError::BadKey { path: file.clone(), reason: "it is no text" })?;
            options.credentials = Some(Credentials::new(user, text.trim_end_matches(['\r', '\n'])));
        }
        if let Some(ca) = &config.ca_file {
            let mut tls = Tls::new(&**read(ca)?);
            if let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) {
                tls = tls.identity(&**read(certificate)?, &**secret(key)?);
            }
            if let Some(name) = &config.tls_name {
                tls = tls.domain(name);
            }
            options.tls = Some(tls);
        }
        Ok(options)
    }

    fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, DataError> {
        let bytes = read(path)?;
        check_mode(path, 0o600)?;
        Ok(bytes)
    }

    fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DataError> {
        use std::io::Read;
        let failed = |source| DataError::File { path: path.to_owned(), source };
        let mut bytes = Zeroizing::new(Vec::new());
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}
