//! Copies of logs between stores.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, pending};
use tokio_util::sync::CancellationToken;
use underpass_domain::{ActivityCommand, ActivityState, Aggregate, Digest32, LogName, MappingId, Position};
use underpass_eventlog::{
    AsOf, Copied, CopyError, LogError, OpenError, Progress, copy, keys, read_stored, replay_stored, verify,
};
use underpass_store::testkit::faulty::{Call, Fault, Flaky, Interleaving, Odds, Slow};
use underpass_store::{KvStore, MemoryStore, Retry, Store};

use crate::raw::{Raw, all};
use crate::support::{Node, Tally, World};

const LOG: LogName = LogName::Control;

/// A log of several commits: many small frames, then large ones, then small ones.
async fn large() -> Raw {
    let mut raw = Raw::new(LOG, 1).await;
    for _ in 0..150 {
        raw.pad(1, 20).await;
    }
    for _ in 0..3 {
        raw.pad(3, 150_000).await;
    }
    raw.pad(1, 1_000_000).await;
    raw.pad(4, 10).await;
    raw
}

async fn copied(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Result<Copied, CopyError> {
    copy(from, to, LOG, |_| {}, &CancellationToken::new()).await
}

fn shared(store: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(store.clone())
}

/// How many commits the copy of [`large`] into an empty store takes.
const COMMITS: usize = 4;

/// C63: the same frames, the same head hash; the source is untouched.
#[tokio::test]
async fn a_copy_is_the_same_log_and_leaves_the_source_alone() {
    let source = large().await;
    let (before, revision) = (all(&source.store).await, source.store.revision().await.unwrap());
    let target = MemoryStore::new();
    let mut steps: Vec<Progress> = Vec::new();
    let stop = CancellationToken::new();
    let copied = copy(&source.store(), &shared(&target), LOG, |step| steps.push(step), &stop).await.unwrap();

    assert_eq!((copied.head, copied.frames), (source.head.position, 156));
    assert_eq!((copied.source_hash, copied.target_hash), (source.head.hash, source.head.hash));
    assert_eq!((copied.log_id, copied.resumed_after, copied.written), (source.id, Position(0), true));
    assert_eq!(all(&target).await, before, "byte for byte, and no marker");
    assert_eq!(all(&source.store).await, before);
    assert_eq!(source.store.revision().await.unwrap(), revision, "nothing was written there at all");
    assert_eq!(verify(&shared(&target), LOG).await.unwrap(), verify(&source.store(), LOG).await.unwrap());
    assert_eq!(target.revision().await.unwrap().0, COMMITS as u64, "several frames a commit");
    assert!(steps.len() > 2, "{steps:?}");
    assert!(steps.is_sorted_by_key(|step| (step.checked, step.written)));
    assert!(steps.iter().all(|step| step.end == Some(copied.head) && step.written <= step.checked));
}

/// C63: the same read model, from a log that a program has written, of the other name.
#[tokio::test]
async fn the_copy_opens_with_the_same_read_model_and_goes_on() {
    let world = World::new();
    let node: Node<ActivityState> = world.open(|options| options.snapshot_every = 20).await.unwrap();
    let usage = |mapping: u8| ActivityCommand::RecordUsage {
        mapping: MappingId::from_bytes([mapping; 16]),
        bytes_in: 5,
        bytes_out: 7,
        tunnels: 1,
        refused: 0,
    };
    for round in 0..20 {
        join_all((0..round).map(|mapping| node.execute(usage(mapping)))).await;
    }
    let view = node.log.view();
    node.close().await;
    let target = World::new();
    let stop = CancellationToken::new();
    let done = copy(&world.store, &target.store, LogName::Activity, |_| {}, &stop).await.unwrap();
    assert_eq!(
        (done.head, done.target_hash, Some(done.log_id)),
        (view.position, view.hash, view.state.log_id())
    );
    let node: Node<ActivityState> = target.open(|_| {}).await.unwrap();
    assert_eq!(node.log.view(), view);
    assert_eq!(node.execute(usage(1)).await.unwrap().head, view.position.next());
}

/// Where a copy is killed.
#[derive(Clone, Copy, Debug)]
pub enum Killed {
    /// The future is dropped before the commit happens.
    Before,
    /// The future is dropped after it happened, and before the copy was told.
    After,
    /// The store goes away.
    Unavailable,
    /// The outcome stays unknown; it happened.
    UnknownDone,
    /// The outcome stays unknown; it did not happen.
    UnknownNotDone,
}

/// A target that fails at the commit with this index.
pub fn failing(memory: &MemoryStore, at: usize, how: Killed) -> Arc<dyn Store> {
    let mut faults = vec![Fault::None; at];
    let hang = |_: MemoryStore| -> BoxFuture<'static, ()> { Box::pin(pending()) };
    match how {
        Killed::Before => {
            let store = Interleaving::new(memory.clone());
            store.before(Call::Commit, at, hang);
            return Arc::new(store);
        }
        Killed::After => {
            faults.push(Fault::IndeterminateDone);
            let store =
                Interleaving::new(Arc::new(Flaky::scripted_for(memory.clone(), Call::Commit, faults)));
            store.before(Call::Commit, at + 1, |_| Box::pin(pending()) as BoxFuture<'static, ()>);
            return Arc::new(store);
        }
        Killed::Unavailable => faults.extend([Fault::Unavailable; 8]),
        Killed::UnknownDone => {
            faults.push(Fault::IndeterminateDone);
            faults.extend([Fault::IndeterminateNotDone; 7]);
        }
        Killed::UnknownNotDone => faults.extend([Fault::IndeterminateNotDone; 8]),
    }
    Arc::new(Flaky::scripted_for(memory.clone(), Call::Commit, faults))
}

/// C63: whatever happens at whichever commit, until the end the copy is called half a copy, and when it is run
/// again it ends with the same head.
#[tokio::test(start_paused = true)]
async fn a_copy_killed_at_any_commit_goes_on_to_the_same_head() {
    let source = large().await;
    for at in 0..COMMITS {
        for how in
            [Killed::Before, Killed::After, Killed::Unavailable, Killed::UnknownDone, Killed::UnknownNotDone]
        {
            let memory = MemoryStore::new();
            let target = failing(&memory, at, how);
            let killed = tokio::time::timeout(Duration::from_mins(5), copied(&source.store(), &target)).await;
            match (how, killed) {
                (Killed::Before | Killed::After, Err(_)) => {}
                (Killed::Unavailable, Ok(Err(CopyError::Unavailable(_)))) => {}
                (
                    Killed::UnknownDone | Killed::UnknownNotDone,
                    Ok(Err(error @ CopyError::Indeterminate(_))),
                ) => assert_eq!(error.retry(), Retry::Same),
                (how, other) => panic!("commit {at}, {how:?}: {other:?}"),
            }
            let memory: Arc<dyn Store> = shared(&memory);
            let happened = matches!(how, Killed::After | Killed::UnknownDone);
            let commits = at + usize::from(happened);
            assert_eq!(memory.revision().await.unwrap().0, commits as u64, "commit {at}, {how:?}");
            match verify(&memory, LOG).await {
                Err(LogError::Absent { .. }) => assert_eq!(commits, 0),
                Err(LogError::HalfCopied { .. }) => assert!((1..COMMITS).contains(&commits)),
                Ok(verified) => assert!(verified.ok && commits == COMMITS),
                Err(error) => panic!("commit {at}, {how:?}: {error}"),
            }
            let again = copied(&source.store(), &memory).await.unwrap();
            assert_eq!((again.head, again.target_hash), (source.head.position, source.head.hash));
            assert_eq!(again.resumed_after > Position(0), commits > 0, "it does not begin anew");
            assert_eq!(again.written, commits < COMMITS);
            assert_eq!(all(&memory).await, all(&source.store).await, "commit {at}, {how:?}");
        }
    }
}

/// An outcome that is unknown for a moment costs nothing, at whichever commit.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_cleared_up_by_the_same_commit() {
    let source = large().await;
    for at in 0..COMMITS {
        for fault in [Fault::IndeterminateDone, Fault::IndeterminateNotDone, Fault::Unavailable] {
            let memory = MemoryStore::new();
            let faults = (0..at).map(|_| Fault::None).chain([fault]);
            let target: Arc<dyn Store> = Arc::new(Flaky::scripted_for(memory.clone(), Call::Commit, faults));
            copied(&source.store(), &target).await.unwrap();
            assert_eq!(memory.revision().await.unwrap().0, COMMITS as u64, "commit {at}, {fault:?}");
            assert_eq!(all(&memory).await, all(&source.store).await, "commit {at}, {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn between_stores_that_fail_by_chance_the_copy_comes_to_its_end() {
    let source = large().await;
    for seed in 0..30 {
        let odds = Odds { unavailable: 40, indeterminate: 100 };
        let memory = MemoryStore::new();
        let from: Arc<dyn Store> = Arc::new(Flaky::seeded(source.store.clone(), seed, odds));
        let to: Arc<dyn Store> = Arc::new(Flaky::seeded(memory.clone(), seed + 1000, odds));
        let mut runs = 0;
        loop {
            runs += 1;
            assert!(runs < 200, "seed {seed}: it never ends");
            match copied(&from, &to).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.retry(), Retry::Same, "seed {seed}: {error:?}"),
            }
        }
        assert_eq!(all(&memory).await, all(&source.store).await, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_stops_between_two_commits_when_it_is_told_to() {
    let source = large().await;
    for after in 1..4 {
        let memory = MemoryStore::new();
        let target: Arc<dyn Store> = Arc::new(Slow::new(memory.clone(), Duration::from_millis(5)));
        let stop = CancellationToken::new();
        let mut steps = 0;
        let progress = |_| {
            steps += 1;
            if steps == after {
                stop.cancel();
            }
        };
        let stopped = copy(&source.store(), &target, LOG, progress, &stop).await;
        let Err(CopyError::Stopped { position, .. }) = stopped else { panic!("{stopped:?}") };
        let again = copied(&source.store(), &shared(&memory)).await.unwrap();
        assert_eq!((again.resumed_after, again.target_hash), (position, source.head.hash));
    }
}

/// Opening, reading, replaying, verifying, copying from it: each says that it is half a copy.
#[tokio::test]
async fn half_a_copy_is_not_taken_for_a_log() {
    let source = large().await;
    for at in 1..COMMITS {
        let memory = MemoryStore::new();
        let failing = failing(&memory, at, Killed::Before);
        let cut = tokio::time::timeout(Duration::from_millis(300), copied(&source.store(), &failing)).await;
        assert!(cut.is_err());
        let world = World::on(memory);
        let half = |error: LogError| {
            assert!(matches!(error, LogError::HalfCopied { log: LOG }), "{error}");
            assert_eq!(error.code(), "log.half_copied");
            assert!(error.to_string().contains("run the migration again, or empty the store"));
        };
        half(verify(&world.store, LOG).await.unwrap_err());
        half(read_stored(&world.store, LOG, Position(0), 1).await.unwrap_err());
        half(replay_stored::<Tally>(&world.store, AsOf::Position(Position(1))).await.unwrap_err());
        let opened = world.open::<Tally>(|_| {}).await.map(|_| ());
        assert!(matches!(opened, Err(OpenError::HalfCopied { log: LOG })), "{opened:?}");
        let further = copied(&world.store, &shared(&MemoryStore::new())).await;
        match further {
            Err(CopyError::Source(error)) => half(error),
            other => panic!("{other:?}"),
        }
        let marker = world.store.get(&keys::copying(LOG)).await.unwrap().unwrap();
        assert_eq!((marker.value.len(), &marker.value[..4]), (68, &b"UPLC"[..]));
    }
}

#[tokio::test]
async fn a_copy_of_what_is_there_writes_nothing() {
    let source = large().await;
    let target = MemoryStore::new();
    copied(&source.store(), &shared(&target)).await.unwrap();
    let revision = target.revision().await.unwrap();
    let again = copied(&source.store(), &shared(&target)).await.unwrap();
    assert!(!again.written && again.resumed_after == again.head);
    assert_eq!(again.source_hash, again.target_hash);
    assert_eq!(target.revision().await.unwrap(), revision);
    let itself = copied(&source.store(), &source.store()).await.unwrap();
    assert!(!itself.written);
}

#[tokio::test]
async fn a_small_log_is_copied_in_one_commit_without_a_marker() {
    let mut source = Raw::new(LOG, 1).await;
    source.pad(3, 9).await;
    let target = MemoryStore::new();
    copied(&source.store(), &shared(&target)).await.unwrap();
    assert_eq!(target.revision().await.unwrap().0, 1);
    assert_eq!(all(&target).await, all(&source.store).await);
}

/// So a large log is moved with little time away: once while it is in use, and what came since when it isn't.
#[tokio::test]
async fn a_copy_is_brought_up_to_date_with_what_was_appended_since() {
    let mut source = large().await;
    let target = MemoryStore::new();
    let first = copied(&source.store(), &shared(&target)).await.unwrap();
    for rounds in [1, 300] {
        for _ in 0..rounds {
            source.pad(2, 10).await;
        }
        let before = verify(&shared(&target), LOG).await.unwrap().head;
        let next = copied(&source.store(), &shared(&target)).await.unwrap();
        assert!(next.written && next.resumed_after == before && before >= first.head);
        assert_eq!(all(&target).await, all(&source.store).await);
    }
}

#[tokio::test]
async fn a_source_that_grows_is_copied_to_where_it_ended_at_the_start() {
    let source = large().await;
    let end = source.head;
    let grown = {
        let mut more = Raw { store: source.store.clone(), ..large().await };
        more.head = end;
        more
    };
    let grown = std::sync::Mutex::new(Some(grown));
    let progress = |_| {
        if let Some(mut more) = grown.lock().unwrap().take() {
            futures_util::FutureExt::now_or_never(more.pad(2, 5)).unwrap();
        }
    };
    let target = MemoryStore::new();
    let done =
        copy(&source.store(), &shared(&target), LOG, progress, &CancellationToken::new()).await.unwrap();
    assert_eq!((done.head, done.target_hash), (end.position, end.hash));
    assert!(verify(&shared(&target), LOG).await.unwrap().ok);
    assert!(verify(&source.store(), LOG).await.unwrap().head > end.position);
}

/// Nothing is changed in a target that is no beginning of the source.
#[tokio::test]
async fn a_target_with_something_else_is_refused_and_left_alone() {
    let source = large().await;
    let mut shorter = Raw::new(LOG, 1).await;
    shorter.pad(1, 20).await;
    let other = Raw::new(LOG, 2).await;
    let mut forked = Raw::new(LOG, 1).await;
    forked.salt = 1;
    forked.pad(1, 20).await;
    let mut coarser = Raw::new(LOG, 1).await;
    coarser.pad(2, 20).await;
    let headless = MemoryStore::new();
    let frame = keys::frame(LOG, Position(1));
    headless.put(&frame, source.store.get(&frame).await.unwrap().unwrap().value).await.unwrap();
    let foreign = MemoryStore::new();
    foreign.put(&keys::head(LOG), "{}".into()).await.unwrap();
    let marked = MemoryStore::new();
    marked.put(&keys::copying(LOG), "{}".into()).await.unwrap();

    for (from, target, code) in [
        (source.store(), other.store.clone(), "copy.other_log"),
        (source.store(), forked.store.clone(), "copy.differs"),
        (source.store(), coarser.store.clone(), "copy.differs"),
        (shorter.store(), source.store.clone(), "copy.ahead"),
        (source.store(), headless, "log.corrupt"),
        (source.store(), foreign, "log.foreign"),
        (source.store(), marked, "log.corrupt"),
    ] {
        let (before, revision) = (all(&target).await, target.revision().await.unwrap());
        let error = copied(&from, &shared(&target)).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(all(&target).await, before);
        assert_eq!(target.revision().await.unwrap(), revision);
    }
}

/// The frames behind what was copied, and the marker itself, are what they were or the copy does not go on.
#[tokio::test]
async fn half_a_copy_that_was_changed_is_not_continued() {
    let source = large().await;
    let half = MemoryStore::new();
    let failing = failing(&half, 2, Killed::Before);
    let _ = tokio::time::timeout(Duration::from_millis(300), copied(&source.store(), &failing)).await;
    let marker = half.get(&keys::copying(LOG)).await.unwrap().unwrap().value;
    let reached = Position(u64::from_le_bytes(marker[24..32].try_into().unwrap()));
    assert!(reached > Position(100));

    let ends = keys::frames_end(LOG);
    let frame = half.scan(&keys::frame(LOG, Position(0)), &ends, 1000).await.unwrap().pop().unwrap();
    let (frame, bytes) = (frame.key, frame.value);
    half.delete(&frame).await.unwrap();
    let error = copied(&source.store(), &shared(&half)).await.unwrap_err();
    assert!(matches!(error, CopyError::Target(LogError::Corrupt { .. })), "{error:?}");
    half.put(&frame, bytes).await.unwrap();

    let behind = keys::frame(LOG, reached.next());
    half.put(&behind, "in the way".into()).await.unwrap();
    let error = copied(&source.store(), &shared(&half)).await.unwrap_err();
    assert!(matches!(error, CopyError::Target(LogError::Corrupt { .. })), "{error:?}");
    half.delete(&behind).await.unwrap();
    copied(&source.store(), &shared(&half)).await.unwrap();
}

/// C65: what `verify` would find in the source, the copy finds, and the target never becomes a log.
#[tokio::test]
async fn a_damaged_source_is_not_copied_to_its_end() {
    let source = large().await;
    let frames = [Position(1), Position(77), source.head.first];
    for first in frames {
        let key = keys::frame(LOG, first);
        let whole = source.store.get(&key).await.unwrap().unwrap().value;
        let mut bytes = whole.to_vec();
        bytes[60] ^= 1;
        source.store.put(&key, bytes.into()).await.unwrap();
        let target = MemoryStore::new();
        match copied(&source.store(), &shared(&target)).await {
            Err(CopyError::Source(LogError::Corrupt { position, .. })) => assert_eq!(position, first),
            other => panic!("{other:?}"),
        }
        assert!(target.get(&keys::head(LOG)).await.unwrap().is_none());
        source.store.put(&key, whole).await.unwrap();
    }
    let key = keys::head(LOG);
    let mut head = source.head;
    head.hash = Digest32([1; 32]);
    source.store.put(&key, head.encode()).await.unwrap();
    let target = MemoryStore::new();
    let error = copied(&source.store(), &shared(&target)).await.unwrap_err();
    assert!(matches!(error, CopyError::Source(LogError::Corrupt { .. })), "{error:?}");
    assert!(target.get(&keys::head(LOG)).await.unwrap().is_none());
    let absent = copied(&shared(&MemoryStore::new()), &shared(&target)).await.unwrap_err();
    assert!(matches!(absent, CopyError::Source(LogError::Absent { .. })));
}

/// Two copies at once, or a node that begins a log of its own: one of them is told, and the log is whole.
#[tokio::test]
async fn whoever_else_writes_the_target_is_noticed() {
    let source = large().await;
    for at in 0..COMMITS {
        let memory = MemoryStore::new();
        let store = Interleaving::new(memory.clone());
        let from = source.store();
        store.before(Call::Commit, at, |target| async move {
            copied(&from, &shared(&target)).await.unwrap();
        });
        let target: Arc<dyn Store> = Arc::new(store);
        let error = copied(&source.store(), &target).await.unwrap_err();
        assert_eq!(error.code(), "copy.contended", "{error:?}");
        assert_eq!(all(&memory).await, all(&source.store).await);
    }
    let memory = MemoryStore::new();
    let store = Interleaving::new(memory.clone());
    store.before(Call::Commit, 0, |target| async move {
        World::on(target).node().await.close().await;
    });
    let target: Arc<dyn Store> = Arc::new(store);
    let error = copied(&source.store(), &target).await.unwrap_err();
    assert_eq!(error.code(), "copy.contended", "{error:?}");
    assert_eq!(verify(&shared(&memory), LOG).await.unwrap().events, 1);
}
