//! The storage backends that a configuration can name, and which of them are built in.

use std::path::Path;
use std::sync::Arc;

use underpass_store::{MemoryStore, Store};

use crate::config::StoreKind;
use crate::error::StartError;

/// An open store.
#[derive(Debug)]
pub(crate) enum Backend {
    Memory(Arc<MemoryStore>),
    #[cfg(feature = "rocksdb")]
    RocksDb(Arc<underpass_store_rocksdb::RocksStore>),
}

impl Backend {
    /// Opens the store of this kind; those with files keep them in `folder`.
    pub(crate) async fn open(kind: StoreKind, folder: &Path) -> Result<Self, StartError> {
        match kind {
            StoreKind::Memory => Ok(Self::Memory(Arc::new(MemoryStore::new()))),
            #[cfg(feature = "rocksdb")]
            StoreKind::RocksDb => {
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
            #[cfg(not(feature = "rocksdb"))]
            StoreKind::RocksDb => {
                let _ = folder;
                Err(StartError::NotBuiltIn(kind.name()))
            }
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::<MemoryStore>::clone(store),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => Arc::<underpass_store_rocksdb::RocksStore>::clone(store),
        }
    }

    /// Finishes all writes and gives the files back.
    pub(crate) async fn close(&self) {
        match self {
            Self::Memory(store) => store.close(),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => store.close().await,
        }
    }
}
