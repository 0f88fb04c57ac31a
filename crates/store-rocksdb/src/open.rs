//! Opening a store: the folder, RocksDB in it, and what both say about each other.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocksdb::statistics::StatsLevel;
use rocksdb::{DB, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions, WriteOptions};
use tokio::time::Instant;
use underpass_store::{BoxError, HistoryOptions, LeaseId, Leases, Revision};

use crate::folder::{Folder, State};
use crate::head::HeadMark;
use crate::layout;
use crate::records;

/// Files that RocksDB keeps open; it closes and opens them as needed. Leaves descriptors for connections.
const OPEN_FILES_MAX: i32 = 128;

/// RocksDB's own log, for people: so many files of so many bytes.
const INFO_LOG_FILES_MAX: usize = 4;
const INFO_LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a [`RocksStore`](crate::RocksStore) may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksOptions {
    /// How much watchers may fall behind.
    pub history: HistoryOptions,
    /// Opens a store that stands before its head mark, or whose mark is missing or damaged, and goes on
    /// from where it stands. What is lost stays lost: for a person to decide.
    pub accept_rollback: bool,
}

/// Why a store can't be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open, or this one has.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },

    /// The folder isn't empty and isn't a store.
    #[error("{} is not a store of Underpass: name an empty or a new folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },

    /// A newer release has written it.
    #[error(
        "{} has format {found}, this program knows formats up to {known}: use a newer release",
        path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },

    /// What is stored doesn't read back. Needs a person: a backup, or a disk that works.
    #[error("{} is damaged", path.display())]
    Corrupt {
        /// The folder.
        path: PathBuf,
        /// How it shows.
        #[source]
        source: BoxError,
    },

    /// The store has lost what it had acknowledged: files were cut off, or an older copy was put back.
    #[error("{} stands at revision {stands}, but had reached {marked}: its tail is lost", path.display())]
    RolledBack {
        /// The folder.
        path: PathBuf,
        /// Where it stands.
        stands: Revision,
        /// Where its head mark says it was.
        marked: Revision,
    },

    /// The system refuses.
    #[error("{} can't be opened", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// An open store, before anybody uses it.
pub(crate) struct Opened {
    pub(crate) folder: Folder,
    pub(crate) database: Database,
}

/// RocksDB in a folder, and what is read from it at first.
pub(crate) struct Database {
    pub(crate) db: DB,
    /// Those it was opened with: they lead to what it counts.
    pub(crate) options: Options,
    pub(crate) revision: Revision,
    pub(crate) last_lease: i64,
    pub(crate) leases: Leases,
    pub(crate) head: HeadMark,
}

impl Opened {
    pub(crate) fn open(path: &Path, options: RocksOptions) -> Result<Self, OpenError> {
        let mut folder = Folder::take(path)?;
        let database = Database::open(&mut folder, options)?;
        Ok(Self { folder, database })
    }
}

impl Database {
    pub(crate) fn open(folder: &mut Folder, options: RocksOptions) -> Result<Self, OpenError> {
        let path = &folder.path().to_owned();
        let corrupt = |source| OpenError::Corrupt { path: path.to_owned(), source };
        let io = |source| OpenError::Io { path: path.to_owned(), source };

        records::refuse_recycled(&folder.database()).map_err(corrupt)?;
        if let Ok(Some(mark)) = HeadMark::read(path) {
            mark.check_content(path).map_err(corrupt)?;
        }
        if folder.state() == State::Ready && !options.accept_rollback {
            inspect(folder)?;
        }
        let options = database_options(folder.state());
        let db = DB::open(&options, folder.database()).map_err(|error| not_opened(path, error))?;
        if folder.state() == State::New {
            let mut durable = WriteOptions::default();
            durable.set_sync(true);
            db.put_opt(layout::HEAD, layout::encode_head(Revision(0), 0), &durable)
                .map_err(|error| io(io::Error::other(error)))?;
            HeadMark::write(path, Revision(0)).map_err(io)?;
            folder.ready().map_err(io)?;
        }

        let (revision, last_lease) = read_head(&db).map_err(corrupt)?;
        if folder.state() == State::Ready {
            let good = |mark: Option<crate::head::Mark>| mark.is_some_and(|mark| mark.revision <= revision);
            if !HeadMark::read(path).is_ok_and(good) {
                tracing::warn!(folder = %path.display(), %revision, "going on without what the head mark tells");
            }
        }
        // Also when the revision is the one that was marked: the manifest is another since now.
        HeadMark::write(path, revision).map_err(io)?;
        let leases = read_leases(&db, Instant::now()).map_err(corrupt)?;
        let head = HeadMark::new(path, revision);
        Ok(Self { db, options, revision, last_lease, leases, head })
    }
}

/// Refuses what would be refused later, without writing: RocksDB, opened to be written to, begins a new manifest
/// and deletes the files that a damaged one no longer names. They may be what a repair needs.
fn inspect(folder: &Folder) -> Result<(), OpenError> {
    let path = folder.path();
    let corrupt = |source| OpenError::Corrupt { path: path.to_owned(), source };
    let db = DB::open_for_read_only(&database_options(State::Ready), folder.database(), false)
        .map_err(|error| not_opened(path, error))?;
    let (stands, _) = read_head(&db).map_err(corrupt)?;
    let mark = HeadMark::read(path).map_err(corrupt)?;
    let mark = mark.ok_or_else(|| corrupt("the head mark (HEAD) is missing".into()))?;
    if mark.revision > stands {
        return Err(OpenError::RolledBack { path: path.to_owned(), stands, marked: mark.revision });
    }
    mark.check_manifest(path).map_err(corrupt)?;
    read_leases(&db, Instant::now()).map_err(corrupt)?;
    Ok(())
}

fn not_opened(path: &Path, error: rocksdb::Error) -> OpenError {
    // RocksDB has no kind of its own for a file that it names and that is gone.
    let gone = error.as_ref().contains("No such file or directory");
    match error.kind() {
        rocksdb::ErrorKind::IOError if !gone => {
            OpenError::Io { path: path.to_owned(), source: io::Error::other(error) }
        }
        _ => OpenError::Corrupt { path: path.to_owned(), source: error.into() },
    }
}

fn database_options(state: State) -> Options {
    let mut options = Options::default();
    // A store that was there must not come up empty because its files are gone.
    options.create_if_missing(state == State::New);
    // The default, `PointInTime`, drops acknowledged commits behind damage in the middle without a word.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    // For how long writes were held back. Counters alone: what takes times would cost each write some.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

fn read_head(db: &DB) -> Result<(Revision, i64), BoxError> {
    let stored = db.get_pinned(layout::HEAD)?.ok_or("the head is missing")?;
    layout::decode_head(&stored)
}

/// The leases of the store, each with its full ttl from `now`: nobody knows how long it was closed.
fn read_leases(db: &DB, now: Instant) -> Result<Leases, BoxError> {
    let mut leases = Leases::new();
    each(db, layout::lease_range(), |key, stored| {
        let (lease, ttl_s) = layout::decode_lease(key, stored)?;
        leases.grant(lease, Duration::from_secs(ttl_s), now)?;
        Ok(())
    })?;
    each(db, layout::attached_range(), |key, _| {
        let (lease, key) = layout::decode_attached(key)?;
        if !leases.contains(lease) {
            return Err(missing_lease(lease, &key));
        }
        leases.attach(&key, Some(lease));
        Ok(())
    })?;
    Ok(leases)
}

fn missing_lease(lease: LeaseId, key: &underpass_store::Key) -> BoxError {
    format!("`{key}` hangs on lease {lease}, which doesn't exist").into()
}

fn each(
    db: &DB,
    (from, to): layout::Range,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let mut bounds = ReadOptions::default();
    bounds.set_iterate_upper_bound(to);
    let mut iterator = db.raw_iterator_opt(bounds);
    iterator.seek(from);
    while let Some((key, value)) = iterator.item() {
        visit(key, value)?;
        iterator.next();
    }
    Ok(iterator.status()?)
}
