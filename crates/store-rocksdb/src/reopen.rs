//! Opening RocksDB anew in place, after the disk has failed it.
//!
//! What had been acknowledged was synced before, so it must be there again; of the group that failed nobody knows,
//! and whoever asked for it was told so. Going through its own log, RocksDB writes what it finds there into new
//! files and syncs those, so what is shown afterwards is on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::open::{Database, OpenError, RocksOptions};
use crate::writer::Writer;

/// Between two attempts: a disk that somebody makes room on is used again within a moment, and one that stays
/// full isn't kept busy.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Room that must be there before RocksDB is closed and opened: about what going through its log may write at
/// first. While there is less, reads go on from what is open.
const PROBE_BYTES: usize = 4 * 1024 * 1024;

/// A store that doesn't write.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What callers are told.
    pub(crate) reason: String,
    /// When it is tried to open it anew; `None` where that is hopeless.
    pub(crate) retry_at: Option<Instant>,
}

impl Failure {
    pub(crate) fn new(reason: String, now: Instant) -> Self {
        Self { reason, retry_at: Some(now + REOPEN_EVERY) }
    }
}

impl Writer {
    /// Tries to open a store that has failed, if it is time to.
    pub(crate) fn reopen_if_due(&mut self, now: Instant) {
        let Some(failure) = &mut self.failed else { return };
        if failure.retry_at.is_none_or(|due| due > now) {
            return;
        }
        failure.retry_at = Some(now + REOPEN_EVERY);
        let path = self.folder.path().to_owned();
        if let Err(error) = probe(&path) {
            tracing::debug!(folder = %path.display(), %error, "the disk still fails");
            return;
        }
        self.shared.suspend();
        match Database::open(&mut self.folder, RocksOptions::default()) {
            Ok(found) if found.revision >= self.revision => {
                tracing::warn!(folder = %path.display(), revision = %found.revision, "the store is opened anew");
                self.adopt(found);
            }
            Ok(found) => {
                let (stands, reached) = (found.revision, self.revision);
                drop(found);
                self.give_up(&format!("it stands at revision {stands}, but had reached {reached}"));
            }
            Err(error @ (OpenError::Io { .. } | OpenError::InUse { .. })) => {
                tracing::warn!(folder = %path.display(), %error, "the store can't be opened anew yet");
            }
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    fn adopt(&mut self, found: Database) {
        let Database { db, options, revision, last_lease, leases, head } = found;
        if revision > self.revision {
            // The group that failed did happen. No watcher was told, so they have to look.
            self.shared.history.forget(revision);
        }
        self.revision = revision;
        self.last_lease = last_lease;
        self.leases = leases;
        self.head = head;
        self.shared.resume(db, revision);
        self.shared.counters.opened(options);
        self.shared.counters.is_reopened();
        self.failed = None;
    }

    /// A person has to look.
    fn give_up(&mut self, why: &str) {
        let folder = self.folder.path().display();
        tracing::error!(%folder, why, "the store can't be opened anew: restore it from a backup");
        self.failed =
            Some(Failure { reason: format!("the store can't be opened anew: {why}"), retry_at: None });
    }
}

/// Whether the disk takes anything.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x55; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}
