//! What the store says of itself in `/metrics`.

use async_trait::async_trait;
use underpass_api::{Measurement, StoreMeasures};

use crate::backend::Backend;

#[async_trait]
impl StoreMeasures for Backend {
    async fn measure(&self) -> Vec<Measurement> {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(store) => rocksdb::measurements(&store.measure().await),
            // Memory has nothing to say, and etcd says it itself.
            _ => Vec::new(),
        }
    }
}

#[cfg(feature = "rocksdb")]
mod rocksdb {
    use underpass_api::{Measured, Measurement};
    use underpass_store_rocksdb::{DatabaseMeasures, Level, Measures, SYNC_BOUNDS_US};

    const US: f64 = 1_000_000.0;

    #[expect(
        clippy::cast_precision_loss,
        reason = "the format has 64-bit floats; so many bytes are exact enough"
    )]
    fn number(count: u64) -> f64 {
        count as f64
    }

    pub(super) fn measurements(measures: &Measures) -> Vec<Measurement> {
        use Measured::{Counter, Gauge};
        let mut all = Vec::new();
        let mut say = |name, help, value| all.push(Measurement { name, help, value });
        say(
            "store_commits_total",
            "Commits that have changed something and are on disk.",
            Counter(number(measures.commits)),
        );
        say("store_written_bytes_total", "Bytes of those commits.", Counter(number(measures.bytes)));
        say("store_sync_seconds", "Time to write and sync a group of commits.", syncs(measures));
        say("store_queue_requests", "Requests that wait for the writer.", Gauge(number(measures.queue)));
        let failed = Gauge(f64::from(u8::from(measures.failed)));
        say("store_failed", "1 while nothing is written, because the disk has failed a write.", failed);
        say("store_failures_total", "Writes that the disk has failed.", Counter(number(measures.failures)));
        let reopened = Counter(number(measures.reopened));
        say("store_reopened_total", "Times that the store opened itself anew after that.", reopened);
        if let Some(database) = &measures.database {
            tell(database, &mut say);
        }
        all
    }

    fn syncs(measures: &Measures) -> Measured {
        let mut count = 0;
        let mut classes = Vec::new();
        for (bound, syncs) in SYNC_BOUNDS_US.iter().zip(measures.syncs) {
            count += syncs;
            classes.push((number(*bound) / US, count));
        }
        let count = measures.syncs.iter().sum();
        Measured::Histogram { classes, count, sum: number(measures.sync_us) / US }
    }

    fn tell(database: &DatabaseMeasures, say: &mut impl FnMut(&'static str, &'static str, Measured)) {
        use Measured::{Counter, Gauge, Gauges};
        let by_level = |of: fn(&Level) -> u64| {
            let levels = database.levels.iter().enumerate();
            Gauges("level", levels.map(|(nth, level)| (nth.to_string(), number(of(level)))).collect())
        };
        let wal = Gauge(number(database.wal_bytes));
        say(
            "rocksdb_wal_bytes",
            "Files of the write-ahead log, which a start after a crash goes through.",
            wal,
        );
        say(
            "rocksdb_memtable_bytes",
            "Memory of what is in no table yet.",
            Gauge(number(database.memtable_bytes)),
        );
        say(
            "rocksdb_level_files",
            "Tables of each level that has any, or lies above one.",
            by_level(|level| level.files),
        );
        say("rocksdb_level_bytes", "Their size.", by_level(|level| level.bytes));
        let pending = Gauge(number(database.compaction_pending_bytes));
        say(
            "rocksdb_compaction_pending_bytes",
            "Bytes that compactions have yet to go through, estimated.",
            pending,
        );
        let stopped = Gauge(f64::from(u8::from(database.writes_stopped)));
        say("rocksdb_writes_stopped", "1 while writes wait for compactions.", stopped);
        let rate = Gauge(number(database.delayed_write_rate));
        say(
            "rocksdb_delayed_write_bytes",
            "Bytes a second to which writes are held back; 0 where they are not.",
            rate,
        );
        let stalled = Counter(number(database.stall_us) / US);
        say("rocksdb_stall_seconds_total", "Time that writes were stopped or held back.", stalled);
        let errors = Counter(number(database.background_errors));
        say("rocksdb_background_errors_total", "Flushes and compactions that have failed.", errors);
    }
}
