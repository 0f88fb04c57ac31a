//! Where a log lies, as it is said on a command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use underpass_store::Store;

use crate::backend::{Backend, Place, archived};
use crate::config::{EtcdConfig, Loaded, Sources, StoreKind};
use crate::data::{ARCHIVE, DataFolder};
use crate::error::StartError;

/// A store, said in one of these ways:
///
/// | text | is |
/// |---|---|
/// | `rocksdb:DIR` | the RocksDB in this data folder |
/// | `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]` | that etcd, without password and TLS |
/// | `config:FILE` | what this configuration names, with password and TLS |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// In a data folder.
    RocksDb(PathBuf),
    /// In an etcd cluster.
    Etcd(Box<EtcdConfig>),
}

/// Why a text says no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlaceText(String);

impl FromStr for StorePlace {
    type Err = PlaceText;

    fn from_str(text: &str) -> Result<Self, PlaceText> {
        if let Some(folder) = text.strip_prefix("rocksdb:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::RocksDb(PathBuf::from(folder)));
        }
        if let Some(rest) = text.strip_prefix("etcd://") {
            let (endpoints, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let mut environment =
                vec![("UNDERPASS__STORE__ETCD__ENDPOINTS".to_owned(), endpoints.to_owned())];
            if !prefix.is_empty() {
                environment.push(("UNDERPASS__STORE__ETCD__PREFIX".to_owned(), prefix.to_owned()));
            }
            // No file: what is not said here has its default.
            let sources = Sources { no_file: true, environment, ..Sources::default() };
            return load(&sources).map(|config| Self::Etcd(Box::new(config.etcd)));
        }
        if let Some(file) = text.strip_prefix("config:").filter(|file| !file.is_empty()) {
            let sources = Sources { file: Some(PathBuf::from(file)), ..Sources::default() };
            let config = load(&sources)?;
            return match config.store {
                StoreKind::RocksDb => Ok(Self::RocksDb(config.data)),
                StoreKind::Etcd => Ok(Self::Etcd(Box::new(config.etcd))),
                StoreKind::Memory => Err(PlaceText(format!(
                    "{file} keeps its log in memory: nothing of it is left to work on"
                ))),
            };
        }
        Err(PlaceText(format!(
            "`{text}` names no store: use rocksdb:DIR, etcd://HOST:PORT/PREFIX or config:FILE"
        )))
    }
}

fn load(sources: &Sources) -> Result<crate::config::Config, PlaceText> {
    Loaded::load(sources)
        .map(|loaded| loaded.config)
        .map_err(|errors| PlaceText(errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// An open store at such a place, and its data folder if it has one, held by this process.
#[derive(Debug)]
pub struct OpenPlace {
    /// With its archive, if it has a data folder.
    store: Arc<dyn Store>,
    backend: Backend,
    data: Option<DataFolder>,
}

impl OpenPlace {
    /// Opens it. Only with `create` something is made where nothing is.
    ///
    /// # Errors
    /// A data folder that a server uses is refused; stop the server first.
    pub async fn open(place: &StorePlace, create: bool) -> Result<Self, StartError> {
        match place {
            StorePlace::RocksDb(folder) => {
                let data = DataFolder::open(folder, create)?;
                let store = data.join("store");
                if !create && !store.is_dir() {
                    return Err(StartError::NoStore(folder.clone()));
                }
                let backend = Backend::open(&Place::RocksDb, &store).await?;
                Self::whole(backend, Some(data)).await
            }
            StorePlace::Etcd(etcd) => {
                let place = Place::configured(StoreKind::Etcd, etcd);
                Self::whole(Backend::open(&place, Path::new("")).await?, None).await
            }
        }
    }

    /// Opens the store of a data folder, wherever the folder says it is. Nothing is made.
    ///
    /// # Errors
    /// As [`OpenPlace::open`].
    pub async fn of_folder(folder: &Path) -> Result<Self, StartError> {
        let data = DataFolder::open(folder, false)?;
        let place = data.place()?;
        let store = data.join("store");
        if matches!(place, Place::Memory) || (matches!(place, Place::RocksDb) && !store.is_dir()) {
            return Err(StartError::NoStore(folder.to_owned()));
        }
        Self::whole(Backend::open_or(&place, &store, false).await?, Some(data)).await
    }

    /// With the archive of the data folder behind it.
    async fn whole(backend: Backend, data: Option<DataFolder>) -> Result<Self, StartError> {
        let store = match &data {
            None => Ok(backend.store()),
            Some(data) => archived(backend.store(), &data.join(ARCHIVE)).await,
        };
        match store {
            Ok(store) => Ok(Self { store, backend, data }),
            Err(error) => {
                backend.close().await;
                Err(error)
            }
        }
    }

    /// The data folder, if there is one.
    pub(crate) fn data(&self) -> Option<&DataFolder> {
        self.data.as_ref()
    }

    /// Whether others than this process may use the store at this moment.
    pub(crate) fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// The store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Gives it back.
    pub async fn close(self) {
        self.backend.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_understood() {
        assert_eq!("rocksdb:./data".parse(), Ok(StorePlace::RocksDb("./data".into())));
        let StorePlace::Etcd(etcd) = "etcd://127.0.0.1:2379,db.lan:2379/mine".parse().unwrap() else {
            panic!("not etcd");
        };
        assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str()), (2, "mine"));
        let StorePlace::Etcd(etcd) = "etcd://127.0.0.1:2379".parse().unwrap() else { panic!("not etcd") };
        assert_eq!(etcd.prefix, "underpass");
        for wrong in ["", "rocksdb:", "etcd://", "etcd://nowhere", "memory", "./data", "config:/no/such/file"]
        {
            let error = wrong.parse::<StorePlace>().unwrap_err();
            assert!(!error.to_string().is_empty(), "{wrong}");
        }
    }
}
