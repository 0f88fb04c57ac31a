//! What becomes of old frames.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_domain::testing::ManualClock;
use underpass_domain::{ActivityCommand, LogName, MappingId, Position};
use underpass_eventlog::{keys, read_stored, verify};
use underpass_store::{KvStore, MemoryStore, Store};

use crate::testkit::{NODE, Rig, until};
use crate::{Caller, ControlOptions, Enrolment, KeepError, KeepOptions};

const DAY: Duration = Duration::from_hours(24);

fn options(archive: Option<&Path>) -> ControlOptions {
    let mut options = ControlOptions::new(NODE, "gate");
    options.enrolment = Enrolment::Open;
    options.keep = KeepOptions {
        activity: DAY * 8,
        carry_every: DAY,
        look_every: Duration::from_millis(50),
        archive: archive.map(Path::to_owned),
        ..KeepOptions::default()
    };
    options
}

async fn use_mapping(rig: &Rig, mapping: u8) {
    let mapping = MappingId::from_bytes([mapping; 16]);
    let usage = ActivityCommand::RecordUsage { mapping, bytes_in: 1, bytes_out: 2, tunnels: 1, refused: 0 };
    rig.control.record(&Caller::system(), usage).await.unwrap();
}

async fn first(store: &Arc<dyn Store>, log: LogName) -> u64 {
    let entries = store.scan(&keys::frame(log, Position(0)), &keys::frames_end(log), 1).await.unwrap();
    keys::frame_position(log, entries[0].key.as_ref()).unwrap().0
}

/// Day after day something happens; what is older than is kept leaves the store, and totals stay.
async fn days(rig: &Rig, days: u32) {
    for day in 0..days {
        for mapping in 1..=3 {
            use_mapping(rig, mapping).await;
        }
        let carries = rig.control.activity().state.finished_carries().count();
        rig.clock.advance(DAY);
        if day < 8 {
            until(|| rig.control.activity().state.finished_carries().count() > carries).await;
        } else {
            let trimmed = rig.control.activity().state.trimmed();
            until(|| rig.control.activity().state.trimmed() > trimmed).await;
        }
    }
}

#[tokio::test]
async fn activity_is_trimmed_by_age_and_totals_stay() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let rig = Rig::open_with(Arc::clone(&store), options(None), Arc::new(ManualClock::default())).await;
    days(&rig, 20).await;
    let trimmed = rig.control.activity().state.trimmed();
    let at = rig.clock.clone();
    {
        let store = Arc::clone(&store);
        until_async(async || first(&store, LogName::Activity).await == trimmed.0 + 1).await;
    }
    let usage = rig.control.activity().state.usage(MappingId::from_bytes([2; 16]));
    assert_eq!((usage.bytes_in, usage.tunnels), (20, 20), "all twenty days");
    assert!(verify(&store, LogName::Activity).await.unwrap().ok);
    let oldest = read_stored(&store, LogName::Activity, Position(0), 1).await.unwrap();
    let age = underpass_domain::Clock::now(&*at).since(oldest[0].recorded_at);
    assert!(age >= DAY * 8 && age <= DAY * 11, "{age:?}");

    let before = rig.control.activity();
    let clock = rig.close().await;
    let rig = Rig::open_with(store, options(None), clock).await;
    assert_eq!(rig.control.activity().state.usage(MappingId::from_bytes([2; 16])), usage);
    assert!(rig.control.activity().position >= before.position);
    rig.close().await;
}

async fn until_async(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never became so");
}

#[tokio::test]
async fn what_leaves_the_store_is_read_from_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let rig =
        Rig::open_with(Arc::clone(&store), options(Some(folder.path())), Arc::new(ManualClock::default()))
            .await;
    days(&rig, 11).await;
    let trimmed = rig.control.activity().state.trimmed();
    assert!(trimmed.0 > 0);
    let events = rig.control.activity_log().read(Position(0), 10_000).await.unwrap();
    assert_eq!(events[0].position, Position(1), "from the first event on");
    assert_eq!(events.len() as u64, rig.control.activity().position.0);
    let verified = rig.control.activity_log().verify().await.unwrap();
    assert!(verified.ok && verified.trimmed.0 == 0, "{verified:?}");
    rig.close().await;
}

/// What is cut off is done with: later looks don't miss an archive that somebody took away.
#[tokio::test]
async fn an_archive_that_was_taken_away_hinders_no_later_look() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keeping = options(Some(folder.path()));
    let rig = Rig::open_with(Arc::clone(&store), keeping.clone(), Arc::new(ManualClock::default())).await;
    days(&rig, 10).await;
    let clock = rig.close().await;
    std::fs::remove_dir_all(folder.path()).unwrap();
    let mut quiet = keeping;
    quiet.keep.look_every = DAY;
    let rig = Rig::open_with(store, quiet, clock).await;
    let (system, stop) = (Caller::system(), CancellationToken::new());
    let early = rig.control.now().minus(DAY * 300);
    let done = rig.control.trim(&system, LogName::Activity, early, false, &stop).await.unwrap();
    assert_eq!((done.cut, done.frames), (None, 0));
    rig.close().await;
}

/// The control log: only into an archive, and only what no start needs.
#[tokio::test]
async fn the_control_log_stays_whole_and_a_start_needs_no_archived_frame() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let stop = CancellationToken::new();
    let system = Caller::system();
    let rig = Rig::open_with(Arc::clone(&store), options(None), Arc::new(ManualClock::default())).await;
    let now = rig.control.now();
    let refused = rig.control.trim(&system, LogName::Control, now, false, &stop).await;
    assert!(matches!(refused, Err(KeepError::NoArchive)), "{refused:?}");
    let refused = rig.control.archive(LogName::Control, None, &stop).await;
    assert!(matches!(refused, Err(KeepError::NoArchive)), "{refused:?}");

    // Each clean stop leaves a snapshot.
    let mut clock = rig.close().await;
    for number in 0..3 {
        let rig = Rig::open_with(Arc::clone(&store), options(Some(folder.path())), clock).await;
        rig.client(number).await;
        rig.clock.advance(DAY);
        clock = rig.close().await;
    }
    let rig = Rig::open_with(Arc::clone(&store), options(Some(folder.path())), clock).await;
    let before = rig.control.state();
    let now = rig.control.now();
    let looked = rig.control.trim(&system, LogName::Control, now, true, &stop).await.unwrap();
    assert_eq!(rig.control.state().position, before.position, "only a look");
    assert_eq!(first(&store, LogName::Control).await, 1);
    let done = rig.control.trim(&system, LogName::Control, now, false, &stop).await.unwrap();
    assert_eq!(done.cut, looked.cut);
    let cut = done.cut.unwrap();
    assert!(done.archived && done.frames > 0);
    assert_eq!(first(&store, LogName::Control).await, cut.until.0 + 1);
    assert_eq!(rig.control.log().read(Position(0), 3).await.unwrap()[0].position, Position(1));
    let clients = rig.control.state().state.clients().count();
    let clock = rig.close().await;

    // Without the archive: snapshots do.
    let rig = Rig::open_with(Arc::clone(&store), options(None), clock).await;
    assert_eq!(rig.control.state().state.clients().count(), clients);
    let clock = rig.close().await;
    // Without snapshots: the archive does.
    for manifest in store
        .scan(&keys::manifest(LogName::Control, Position(0)), &keys::manifests_end(LogName::Control), 9)
        .await
        .unwrap()
    {
        store.delete(&manifest.key).await.unwrap();
    }
    let rig = Rig::open_with(Arc::clone(&store), options(Some(folder.path())), clock).await;
    assert_eq!(rig.control.state().state.clients().count(), clients);
    assert!(rig.control.log().verify().await.unwrap().ok);
    rig.close().await;
}

/// A kill between the note and the deletion: the next look ends it.
#[tokio::test]
async fn a_cut_that_was_noted_is_made_after_a_kill() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut slow = options(None);
    slow.keep.look_every = DAY;
    let rig = Rig::open_with(Arc::clone(&store), slow.clone(), Arc::new(ManualClock::default())).await;
    let stop = CancellationToken::new();
    for mapping in 1..=5 {
        use_mapping(&rig, mapping).await;
    }
    rig.control.carry(&stop).await.unwrap();
    let started = rig.control.activity().state.finished_carries().next_back().unwrap().started;
    let cut = underpass_eventlog::cut_before(&store, LogName::Activity, started).await.unwrap().unwrap();
    let note = ActivityCommand::NoteTrimmed { until: cut.until, hash: cut.hash };
    rig.control.record(&Caller::system(), note).await.unwrap();
    let whole = rig.control.activity();
    let clock = rig.kill().await;
    assert_eq!(first(&store, LogName::Activity).await, 1);
    let rig = Rig::open_with(Arc::clone(&store), slow, clock).await;
    until_async(async || first(&store, LogName::Activity).await == cut.until.0 + 1).await;
    assert_eq!(rig.control.activity().state, whole.state);
    assert!(verify(&store, LogName::Activity).await.unwrap().ok);
    rig.close().await;
}
