//! Bytes in a database: three tables, and how they are read.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::time::Instant;
use underpass_store::{BoxError, Entry, Key, LeaseId, Leases, Revision};

/// What a store stands at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) revision: Revision,
    pub(crate) last_lease: i64,
}

/// Keys are BLOBs, which SQLite compares as bytes: TEXT would be compared by a collation.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY, ttl_s INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS head (
        one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, last_lease INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO head VALUES (1, 0, 0);
";

/// Opens the file, or makes it. Nobody else may have it open.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL would sync at checkpoints only, and lose what was acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(TABLES)?;
    Ok(connection)
}

pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    connection.query_row("SELECT revision, last_lease FROM head", [], |row| {
        Ok(Head { revision: revision(row, 0)?, last_lease: row.get(1)? })
    })
}

/// All leases, each with its full ttl from `now`: nobody knows how long the store was closed.
pub(crate) fn leases(connection: &Connection, now: Instant) -> Result<Leases, BoxError> {
    let mut leases = Leases::new();
    let mut query = connection.prepare("SELECT id, ttl_s FROM leases")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let ttl: u32 = row.get(1)?;
        leases.grant(LeaseId(row.get(0)?), Duration::from_secs(ttl.into()), now)?;
    }
    let mut query = connection.prepare("SELECT key, lease FROM entries WHERE lease IS NOT NULL")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        leases.attach(&Key::from(row.get::<_, Vec<u8>>(0)?), Some(LeaseId(row.get(1)?)));
    }
    Ok(leases)
}

pub(crate) fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Entry>> {
    let mut query =
        connection.prepare_cached("SELECT key, value, revision, lease FROM entries WHERE key = ?")?;
    query.query_row([key.as_bytes()], entry).optional()
}

pub(crate) fn revision_of(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Revision>> {
    let mut query = connection.prepare_cached("SELECT revision FROM entries WHERE key = ?")?;
    query.query_row([key.as_bytes()], |row| revision(row, 0)).optional()
}

/// One statement is one instant.
pub(crate) fn scan(
    connection: &Connection,
    from: &Key,
    to: &Key,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut query = connection.prepare_cached(
        "SELECT key, value, revision, lease FROM entries
         WHERE key >= ?1 AND (length(?2) = 0 OR key < ?2) ORDER BY key LIMIT ?3",
    )?;
    query.query_map(params![from.as_bytes(), to.as_bytes(), limit], entry)?.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: Key::from(row.get::<_, Vec<u8>>(0)?),
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        revision: revision(row, 2)?,
        lease: row.get::<_, Option<i64>>(3)?.map(LeaseId),
    })
}

/// SQLite's integers have a sign; no store lives to see 2^63 commits.
fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(Revision(row.get::<_, i64>(column)?.unsigned_abs()))
}

pub(crate) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
