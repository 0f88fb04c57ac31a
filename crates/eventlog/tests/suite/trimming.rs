//! Old frames: carried over, archived, cut off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_domain::{
    ActivityCommand, ActivityState, Actor, Aggregate, ControlCommand, ControlState, Digest32, LogName,
    MappingId, Meta, Position,
};
use underpass_eventlog::{
    Archived, Archives, AsOf, Committed, Cut, LogError, OpenError, Selection, TrimError, archive, copy,
    cut_before, keys, read_stored, replay_stored, trim, verify,
};
use underpass_store::{KvStore, MemoryStore, Store};

use crate::support::{Node, World};

const LOG: LogName = LogName::Activity;

async fn act<A: Aggregate>(node: &Node<A>, command: A::Command) -> Committed<A::Event> {
    node.log.execute(Meta { actor: Actor::System, ..node.meta() }, command).await.unwrap()
}

fn shared(world: &World) -> Arc<dyn Store> {
    Arc::clone(&world.store)
}

async fn open<A: Aggregate>(world: &World) -> Node<A> {
    world.open(|_| {}).await.unwrap()
}

async fn open_on<A: Aggregate>(store: Arc<dyn Store>) -> Node<A> {
    World::on(store).open(|_| {}).await.unwrap()
}

fn usage(mapping: u8) -> ActivityCommand {
    let mapping = MappingId::from_bytes([mapping; 16]);
    ActivityCommand::RecordUsage { mapping, bytes_in: 1, bytes_out: 2, tunnels: 1, refused: 0 }
}

/// Says everything again.
async fn carry(node: &Node<ActivityState>) {
    act(node, ActivityCommand::StartCarry).await;
    while !act(node, ActivityCommand::Carry { limit: 3 }).await.events.is_empty() {}
    act(node, ActivityCommand::FinishCarry).await;
}

/// A log with a carry in the middle, and where to cut it.
async fn carried(world: &World) -> (Node<ActivityState>, Cut) {
    let node = open::<ActivityState>(world).await;
    for mapping in 1..=9 {
        act(&node, usage(mapping)).await;
    }
    carry(&node).await;
    for mapping in 5..=14 {
        act(&node, usage(mapping)).await;
    }
    let started = node.log.view().state.finished_carries().next_back().unwrap().started;
    let cut = cut_before(&shared(world), LOG, started).await.unwrap().unwrap();
    (node, cut)
}

async fn note(node: &Node<ActivityState>, cut: Cut) {
    act(node, ActivityCommand::NoteTrimmed { until: cut.until, hash: cut.hash }).await;
}

async fn cut_off(world: &World, cut: Cut) {
    let stop = CancellationToken::new();
    trim(&shared(world), LOG, cut, None, &stop).await.unwrap();
}

async fn first_key(store: &Arc<dyn Store>) -> Option<Position> {
    let (from, to) = (keys::frame(LOG, Position(0)), keys::frames_end(LOG));
    let entries = store.scan(&from, &to, 1).await.unwrap();
    entries.first().and_then(|entry| keys::frame_position(LOG, entry.key.as_ref()))
}

/// A start from what is left gives the same read model as everything, and goes on.
#[tokio::test]
async fn a_trimmed_log_starts_with_the_same_read_model() {
    let world = World::new();
    let (node, cut) = carried(&world).await;
    note(&node, cut).await;
    cut_off(&world, cut).await;
    let whole = node.log.view();
    let bare: Arc<dyn Store> = shared(&world);
    assert_eq!(first_key(&bare).await, Some(cut.until.next()));

    let other = open::<ActivityState>(&world).await;
    assert_eq!(*other.log.view(), *whole);
    assert_eq!(replay_stored::<ActivityState>(&bare, AsOf::Position(whole.position)).await.unwrap(), *whole);
    // Both can write, and follow each other: they know the same streams.
    for mapping in [1, 14, 20] {
        act(&other, usage(mapping)).await;
        act(&node, usage(mapping)).await;
    }
    let end = node.log.view().position;
    assert!(other.log.wait_for(end, Duration::from_secs(30)).await);
    assert_eq!(*other.log.view(), *node.log.view());

    let verified = verify(&bare, LOG).await.unwrap();
    assert!(verified.ok, "{verified:?}");
    assert_eq!((verified.trimmed, verified.head), (cut.until, end));
    assert_eq!(verified.events, end.0 - cut.until.0);
}

/// What was cut off is answered as such; after 0 is from where the log begins.
#[tokio::test]
async fn what_was_cut_off_is_called_trimmed() {
    let world = World::new();
    let (node, cut) = carried(&world).await;
    let finished = node.log.view().state.finished_carries().next_back().unwrap().finished;
    note(&node, cut).await;
    cut_off(&world, cut).await;
    let store: Arc<dyn Store> = shared(&world);
    let first = cut.until.next();
    for at in [Position(1), cut.until, first, Position(finished.0 - 1)] {
        let answer = replay_stored::<ActivityState>(&store, AsOf::Position(at)).await;
        assert!(
            matches!(answer, Err(LogError::Trimmed { first: it, .. }) if it == first),
            "{at}: {answer:?}"
        );
    }
    assert!(replay_stored::<ActivityState>(&store, AsOf::Position(finished)).await.is_ok());
    let before = read_stored(&store, LOG, Position(1), 10).await;
    assert!(matches!(before, Err(LogError::Trimmed { .. })), "{before:?}");
    let events = read_stored(&store, LOG, Position(0), 4).await.unwrap();
    assert_eq!(events.first().map(|event| event.position), Some(first));
    assert_eq!(events.len(), 4);
    let mut follower = node.log.follow(Position(0));
    assert_eq!(follower.next().await.unwrap().position, first);
    assert!(matches!(node.log.follow(Position(2)).next().await, Err(LogError::Trimmed { .. })));
}

/// A cut that no event speaks of is found; so is a frame that is missing behind the cut.
#[tokio::test]
async fn a_cut_that_nobody_announced_is_found() {
    let world = World::new();
    let (node, cut) = carried(&world).await;
    let stop = CancellationToken::new();
    let refused = trim(&shared(&world), LOG, cut, None, &stop).await;
    assert!(matches!(refused, Err(TrimError::Unannounced { .. })), "{refused:?}");
    assert_eq!(first_key(&shared(&world)).await, Some(Position(1)), "nothing was deleted");

    // Somebody cuts another piece off, with a tail that fits: the chain holds, but nothing says so.
    note(&node, cut).await;
    cut_off(&world, cut).await;
    let further = cut_before(&shared(&world), LOG, Position(cut.until.0 + 4)).await.unwrap().unwrap();
    let store: Arc<dyn Store> = shared(&world);
    let tail = store.get(&keys::tail(LOG)).await.unwrap().unwrap();
    let mut tail = underpass_eventlog::tail::Tail::decode(&tail.value).unwrap();
    (tail.until, tail.hash) = (further.until, further.hash);
    store.put(&keys::tail(LOG), tail.encode()).await.unwrap();
    for position in cut.until.0 + 1..=further.until.0 {
        store.delete(&keys::frame(LOG, Position(position))).await.unwrap();
    }
    let verified = verify(&store, LOG).await.unwrap();
    let (at, why) = verified.bad.unwrap();
    assert_eq!(at, Position(1));
    assert!(why.contains("no event says"), "{why}");
}

/// A cut must be one: of this log, at the end of a frame.
#[tokio::test]
async fn a_wrong_cut_is_refused() {
    let world = World::new();
    let (_node, cut) = carried(&world).await;
    let stop = CancellationToken::new();
    let other = Cut { hash: Digest32([9; 32]), ..cut };
    assert!(matches!(trim(&shared(&world), LOG, other, None, &stop).await, Err(TrimError::Log(_))));
    assert_eq!(cut_before(&shared(&world), LOG, Position(1)).await.unwrap(), None);
    assert_eq!(first_key(&shared(&world)).await, Some(Position(1)));
}

/// After a kill between the note and the last deletion it is done again; reading works in between.
#[tokio::test]
async fn trimming_goes_on_after_a_kill() {
    let world = World::new();
    let (node, cut) = carried(&world).await;
    note(&node, cut).await;
    cut_off(&world, cut).await;
    // As if only the older half had been deleted.
    let whole = node.log.view();
    let store = shared(&world);
    let half = Position(cut.until.0 - 2);
    store.put(&keys::frame(LOG, half), bytes::Bytes::from_static(b"left over")).await.unwrap();
    assert_eq!(*open::<ActivityState>(&world).await.log.view(), *whole);
    assert!(verify(&store, LOG).await.unwrap().ok);
    let again = trim(&store, LOG, cut, None, &CancellationToken::new()).await.unwrap();
    assert_eq!(again.frames, 1);
    assert_eq!(first_key(&store).await, Some(cut.until.next()));
}

async fn archived(world: &World, root: &Path, until: Position) -> Arc<Archives> {
    let (_, archives) = Archived::open(shared(world), root).await.unwrap();
    let id = replay_stored::<ActivityState>(&shared(world), AsOf::Position(Position(1))).await;
    let id = id.unwrap().state.log_id().unwrap();
    let place = archives.of(LOG, id).unwrap();
    let done = archive(&shared(world), &place, until, &CancellationToken::new()).await.unwrap();
    assert_eq!(done.until, until);
    archives
}

/// With the archive at hand a trimmed log reads as if nothing had happened: replay of any position, export, copy,
/// verify.
#[tokio::test]
async fn an_archive_makes_a_trimmed_log_whole() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let (node, cut) = carried(&world).await;
    let mut before = Vec::new();
    for at in 0..=node.log.view().position.0 {
        before.push(node.log.as_of(AsOf::Position(Position(at))).await.unwrap());
    }
    drop(archived(&world, folder.path(), Position(3)).await);
    let archives = archived(&world, folder.path(), cut.until).await;
    note(&node, cut).await;
    let place = archives.of(LOG, node.log.id().unwrap()).unwrap();
    assert_eq!(place.segments().len(), 2);
    trim(&shared(&world), LOG, cut, Some(&place), &CancellationToken::new()).await.unwrap();

    let (store, _) = Archived::open(shared(&world), folder.path()).await.unwrap();
    for view in &before {
        let then = replay_stored::<ActivityState>(&store, AsOf::Position(view.position)).await.unwrap();
        assert_eq!(then, *view);
    }
    let events = read_stored(&store, LOG, Position(0), 1000).await.unwrap();
    assert_eq!(events.len() as u64, node.log.view().position.0);
    for after in [1, cut.until.0 - 1, cut.until.0, cut.until.0 + 1] {
        let events = read_stored(&store, LOG, Position(after), 3).await.unwrap();
        let positions: Vec<_> = events.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, [after + 1, after + 2, after + 3]);
    }
    let verified = verify(&store, LOG).await.unwrap();
    assert!(verified.ok && verified.trimmed.0 == 0, "{verified:?}");

    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let whole = copy(&store, &target, LOG, |_| {}, &CancellationToken::new()).await.unwrap();
    assert_eq!(first_key(&target).await, Some(Position(1)));
    assert_eq!(whole.head, node.log.view().position);
    assert!(verify(&target, LOG).await.unwrap().ok);
}

/// A damaged file of the archive is found where it is read, and a foreign one is not taken.
#[tokio::test]
async fn a_damaged_archive_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let (node, cut) = carried(&world).await;
    let archives = archived(&world, folder.path(), cut.until).await;
    note(&node, cut).await;
    let place = archives.of(LOG, node.log.id().unwrap()).unwrap();
    trim(&shared(&world), LOG, cut, Some(&place), &CancellationToken::new()).await.unwrap();
    let file = std::fs::read_dir(place.folder()).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bad).unwrap();
        let (store, _) = Archived::open(shared(&world), folder.path()).await.unwrap();
        let verified = verify(&store, LOG).await;
        assert!(!verified.as_ref().is_ok_and(|verified| verified.ok), "byte {at}: {verified:?}");
    }
    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    let (store, _) = Archived::open(shared(&world), folder.path()).await.unwrap();
    assert!(!verify(&store, LOG).await.is_ok_and(|verified| verified.ok), "cut short");
    std::fs::write(&file, &good).unwrap();
    let (store, _) = Archived::open(shared(&world), folder.path()).await.unwrap();
    assert!(verify(&store, LOG).await.unwrap().ok);
}

/// An archive of another history is refused: nothing is added to it.
#[tokio::test]
async fn an_archive_of_another_copy_of_the_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let node = open::<ActivityState>(&world).await;
    for mapping in 1..=3 {
        act(&node, usage(mapping)).await;
    }
    let archives = archived(&world, folder.path(), Position(4)).await;
    let place = archives.of(LOG, node.log.id().unwrap()).unwrap();
    // The same log, gone another way since position 2.
    let other: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let source = shared(&world);
    let entries =
        source.scan(&keys::frame(LOG, Position(0)), &keys::frame(LOG, Position(3)), 9).await.unwrap();
    let mut head = None;
    for entry in entries {
        head = Some(underpass_eventlog::frame::Frame::decode(&entry.value).unwrap());
        other.put(&entry.key, entry.value).await.unwrap();
    }
    let head = head.unwrap();
    let head = underpass_eventlog::head::Head {
        log: LOG,
        epoch: head.header.epoch,
        position: head.last(),
        first: head.first(),
        recorded_at: head.header.recorded_at,
        commit: head.header.commit,
        hash: head.hash,
    };
    other.put(&keys::head(LOG), head.encode()).await.unwrap();
    let second = open_on::<ActivityState>(Arc::clone(&other)).await;
    for mapping in 4..=8 {
        act(&second, usage(mapping)).await;
    }
    let refused = archive(&other, &place, Position(7), &CancellationToken::new()).await;
    assert!(matches!(refused, Err(TrimError::OtherHistory { .. })), "{refused:?}");
    assert_eq!(place.until(), Position(4));
}

/// The control log is never cut without its archive; with it, all can be read, and a start works with a snapshot
/// and without.
#[tokio::test]
async fn the_control_log_needs_its_archive() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let node = open::<ControlState>(&world).await;
    for index in 0..20_u8 {
        let id = underpass_domain::NodeId::from_bytes([index; 16]);
        let version = "1".to_owned();
        act(&node, ControlCommand::StartNode { node: id, name: format!("n{index}"), version }).await;
    }
    let log = LogName::Control;
    let stop = CancellationToken::new();
    let cut = cut_before(&shared(&world), log, Position(12)).await.unwrap().unwrap();
    act(&node, ControlCommand::NoteTrimmed { until: cut.until, hash: cut.hash }).await;
    let refused = trim(&shared(&world), log, cut, None, &stop).await;
    assert!(matches!(refused, Err(TrimError::NeedsArchive { .. })), "{refused:?}");
    let (store, archives) = Archived::open(shared(&world), folder.path()).await.unwrap();
    let place = archives.of(log, node.log.id().unwrap()).unwrap();
    let refused = trim(&shared(&world), log, cut, Some(&place), &stop).await;
    assert!(matches!(refused, Err(TrimError::NeedsArchive { .. })), "{refused:?}");
    archive(&shared(&world), &place, cut.until, &stop).await.unwrap();
    trim(&shared(&world), log, cut, Some(&place), &stop).await.unwrap();

    let bare = shared(&world);
    let start = World::on(bare.clone()).open::<ControlState>(|_| {}).await.map(|_| ());
    assert!(matches!(start, Err(OpenError::Trimmed { .. })), "{start:?}");
    let early = open_on::<ControlState>(store).await;
    assert_eq!(*early.log.view(), *node.log.view());
    let mut export = underpass_eventlog::Export::open(&bare, log, Selection::default()).await.unwrap();
    let line = export.next().await.unwrap().unwrap();
    assert!(line.contains("12"), "{line}");
}

/// A copy without the archive is a copy of what is left, and is one to go on with.
#[tokio::test]
async fn what_is_left_can_be_copied() {
    let world = World::new();
    let (node, cut) = carried(&world).await;
    note(&node, cut).await;
    cut_off(&world, cut).await;
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let stop = CancellationToken::new();
    let copied = copy(&shared(&world), &target, LOG, |_| {}, &stop).await.unwrap();
    assert_eq!((copied.head, copied.source_hash), (node.log.view().position, node.log.view().hash));
    assert_eq!(first_key(&target).await, Some(cut.until.next()));
    assert!(verify(&target, LOG).await.unwrap().ok);
    let there = open_on::<ActivityState>(Arc::clone(&target)).await;
    assert_eq!(*there.log.view(), *node.log.view());
    drop(there);
    // And once more, brought up to date.
    act(&node, usage(3)).await;
    let again = copy(&shared(&world), &target, LOG, |_| {}, &stop).await.unwrap();
    assert_eq!(again.resumed_after, copied.head);
}
