//! Stored logs: starts, snapshots, the past, damage.

use std::time::Duration;

use bytes::Bytes;
use underpass_domain::{Aggregate, Clock, LogName, Position, Timestamp};
use underpass_eventlog::{
    AsOf, LogError, LogOptions, OpenError, View, keys, read_stored, replay_stored, verify,
};
use underpass_store::{Key, KvStore, MemoryStore, Store};

use crate::support::{Do, Node, Tally, World};

const LOG: LogName = LogName::Control;

/// Every third event is by itself, the others come in bursts: frames of one and of several.
async fn fill(world: &World, node: &Node, rounds: u8) {
    for account in 0..rounds {
        world.clock.advance(Duration::from_secs(10));
        node.add(account % 7, u64::from(account)).await.unwrap();
        node.execute(Do::Burst { account: account % 5, events: 4, bytes: 30 }).await.unwrap();
    }
}

fn no_snapshots(options: &mut LogOptions) {
    options.snapshot_every = u64::MAX;
}

async fn replayed(world: &World) -> View<Tally> {
    let copy = World::new();
    for frame in world.frames().await {
        copy.store.put(&frame.key, frame.value).await.unwrap();
    }
    let head = keys::head(LOG);
    copy.store.put(&head, world.get(&head).await).await.unwrap();
    let node = copy.node().await;
    (*node.log.view()).clone()
}

#[tokio::test]
async fn a_snapshot_and_the_tail_are_the_same_as_the_whole_log() {
    let world = World::new();
    let node: Node = world.open(|options| options.snapshot_every = 20).await.unwrap();
    fill(&world, &node, 30).await;
    // The snapshots are stored beside the work.
    while world.snapshots().await.is_empty() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    let node: Node = world.open(no_snapshots).await.unwrap();
    fill(&world, &node, 3).await;
    let view = node.log.view();
    node.stop().await;

    assert!(world.snapshots().await.iter().all(|position| *position < view.position.0));
    let node = world.node().await;
    assert_eq!(node.log.view(), view);
    assert_eq!(*view, replayed(&world).await);
    let next = node.add(1, 1).await.unwrap();
    assert_eq!(next.head, view.position.next());
    assert!(node.log.verify().await.unwrap().ok, "the versions of streams went on, too");
}

#[tokio::test]
async fn two_snapshots_are_kept_with_their_chunks_and_no_others() {
    let world = World::new();
    for round in 1..=5 {
        let node: Node = world.node().await;
        fill(&world, &node, round).await;
        node.close().await;
    }
    let kept = world.snapshots().await;
    assert_eq!(kept.len(), 2);
    let from = keys::chunks_from(LOG, Position(0));
    let chunks = world.store.scan(&from, &keys::chunks_from(LOG, Position(u64::MAX)), 1000).await.unwrap();
    assert_eq!(chunks.len(), 2, "one small chunk each");
}

#[tokio::test]
async fn a_large_snapshot_is_stored_in_chunks() {
    let world = World::new();
    let node: Node = world.node().await;
    // A stream of its own for each of so many sessions: 25 bytes each beside the model.
    let activity = world.open::<underpass_domain::ActivityState>(|_| {}).await.unwrap();
    for number in 0..60_u32 {
        let burst = (0..400).map(|index| {
            let mut mapping = [0; 16];
            mapping[..8].copy_from_slice(&u64::from(number * 400 + index).to_be_bytes());
            activity.execute(underpass_domain::ActivityCommand::RecordUsage {
                mapping: underpass_domain::MappingId::from_bytes(mapping),
                bytes_in: 1,
                bytes_out: 1,
                tunnels: 1,
                refused: 0,
            })
        });
        for answer in futures_util::future::join_all(burst.take(250)).await {
            answer.unwrap();
        }
    }
    let view = activity.log.view();
    activity.close().await;
    node.close().await;
    let from = keys::chunks_from(LogName::Activity, Position(0));
    let to = keys::chunks_from(LogName::Activity, Position(u64::MAX));
    let chunks = world.store.scan(&from, &to, 1000).await.unwrap();
    assert!(chunks.len() > 1, "{} chunks", chunks.len());
    let activity = world.open::<underpass_domain::ActivityState>(|_| {}).await.unwrap();
    assert_eq!(activity.log.view(), view);
}

/// Whatever is wrong with a snapshot, the log is replayed, and the snapshot goes away.
#[tokio::test]
async fn a_poisoned_snapshot_is_ignored() {
    let world = World::new();
    let node: Node = world.node().await;
    fill(&world, &node, 6).await;
    let view = node.log.view();
    node.close().await;
    let position = Position(world.snapshots().await[0]);
    let manifest = keys::manifest(LOG, position);
    let whole = world.get(&manifest).await;
    let from = keys::chunks_from(LOG, Position(0));
    let to = keys::chunks_from(LOG, Position(u64::MAX));
    let chunk = world.store.scan(&from, &to, 1).await.unwrap().remove(0);

    let flipped = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let mended = |at: usize| {
        let mut bytes = flipped(&whole, at).to_vec();
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(bytes)
    };
    let poisons: Vec<(&str, Key, Bytes)> = vec![
        ("a damaged manifest", manifest.clone(), flipped(&whole, 60)),
        ("a manifest of another hash", manifest.clone(), mended(50)),
        ("a manifest of another model", manifest.clone(), mended(90)),
        ("a manifest of another length", manifest.clone(), mended(112)),
        ("no manifest at all", manifest.clone(), Bytes::from_static(b"x")),
        ("a damaged chunk", chunk.key.clone(), flipped(&chunk.value, 9)),
        ("a short chunk", chunk.key.clone(), chunk.value.slice(1..)),
    ];
    for (what, key, value) in poisons {
        world.store.put(&manifest, whole.clone()).await.unwrap();
        world.store.put(&chunk.key, chunk.value.clone()).await.unwrap();
        world.store.put(&key, value).await.unwrap();
        let node: Node = world.open(no_snapshots).await.unwrap();
        assert_eq!(node.log.view(), view, "{what}");
        node.stop().await;
    }
    world.store.put(&manifest, whole.clone()).await.unwrap();
    world.store.delete(&chunk.key).await.unwrap();
    let node: Node = world.open(no_snapshots).await.unwrap();
    assert_eq!(node.log.view(), view, "a missing chunk");
    node.stop().await;
    assert_eq!(world.snapshots().await, Vec::<u64>::new(), "thrown away");
}

/// A snapshot from beyond the end of a log that was put back from an older copy.
#[tokio::test]
async fn a_snapshot_ahead_of_the_log_is_ignored() {
    let world = World::new();
    let node: Node = world.node().await;
    fill(&world, &node, 2).await;
    let (head, old) = (keys::head(LOG), world.get(&keys::head(LOG)).await);
    let view = node.log.view();
    let frames = world.frames().await.len();
    fill(&world, &node, 2).await;
    node.close().await;
    for frame in world.frames().await.split_off(frames) {
        world.store.delete(&frame.key).await.unwrap();
    }
    world.store.put(&head, old).await.unwrap();
    assert_eq!(world.node().await.log.view(), view);
}

/// C64: as of any position, and any time, what was then.
#[tokio::test]
async fn the_past_is_what_it_was() {
    for every in [15, u64::MAX] {
        let world = World::new();
        let node: Node = world.open(|options| options.snapshot_every = every).await.unwrap();
        let mut views = vec![(world.clock.now(), node.log.view())];
        for round in 0..12 {
            world.clock.advance(Duration::from_secs(5));
            if round % 3 == 0 {
                node.add(1, round).await.unwrap();
            } else {
                node.execute(Do::Burst { account: 2, events: 3, bytes: 5 }).await.unwrap();
            }
            views.push((world.clock.now(), node.log.view()));
        }
        for (time, view) in &views {
            let then = node.log.as_of(AsOf::Position(view.position)).await.unwrap();
            assert_eq!(then, **view);
            for later in [Duration::ZERO, Duration::from_secs(4)] {
                let then = node.log.as_of(AsOf::Time(time.plus(later))).await.unwrap();
                assert_eq!((then.position, &then.state), (view.position, &view.state));
                assert_eq!(then.at, time.plus(later), "expiry is judged at the time asked for");
            }
        }
        // Within a frame, too: one event more each time.
        let head = node.log.view().position;
        for position in 0..=head.0 {
            let then = node.log.as_of(AsOf::Position(Position(position))).await.unwrap();
            assert_eq!((then.state.events, then.position.0), (position, position));
        }
        let before = node.log.as_of(AsOf::Time(Timestamp(1))).await.unwrap();
        assert_eq!((before.position, before.state), (Position(0), Tally::default()));
        let ahead = node.log.as_of(AsOf::Position(head.next())).await;
        assert!(matches!(ahead, Err(LogError::Ahead { head: at, .. }) if at == head));
        let offline = replay_stored::<Tally>(&world.store, AsOf::Position(head)).await.unwrap();
        assert_eq!(offline, *node.log.view());
    }
}

/// Frames of all lengths, to be found from any position within.
#[tokio::test]
async fn any_position_is_found_in_frames_of_any_length() {
    let world = World::new();
    let node: Node = world.open(no_snapshots).await.unwrap();
    for events in [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 300, 1000, 4096, 1, 1, 1] {
        node.execute(Do::Burst { account: 1, events, bytes: 1 }).await.unwrap();
    }
    let head = node.log.view().position.0;
    for after in (0..head).step_by(11).chain(head - 20..head) {
        let event = node.log.read(Position(after), 1).await.unwrap();
        assert_eq!(event[0].position.0, after + 1);
    }
    assert_eq!(node.log.read(Position(0), 10_000).await.unwrap().len() as u64, head);
}

#[tokio::test]
async fn reading_gives_what_was_asked_for_and_no_more() {
    let world = World::new();
    let node: Node = world.node().await;
    fill(&world, &node, 40).await;
    let head = node.log.view().position.0;
    assert_eq!(head, 201);
    for (after, limit) in
        [(0, 1), (0, 201), (0, 500), (1, 4), (3, 3), (4, 100), (200, 5), (201, 5), (999, 5), (7, 0)]
    {
        let events = node.log.read(Position(after), usize::try_from(limit).unwrap()).await.unwrap();
        let positions: Vec<u64> = events.iter().map(|event| event.position.0).collect();
        let expected: Vec<u64> = (after + 1..=head.min(after + limit)).collect();
        assert_eq!(positions, expected, "after {after}, {limit}");
        let offline = read_stored(&world.store, LOG, Position(after), usize::try_from(limit).unwrap()).await;
        assert_eq!(offline.unwrap(), events);
    }
    assert!(matches!(
        read_stored(&world.store, LogName::Activity, Position(0), 1).await,
        Err(LogError::Absent { .. })
    ));
}

/// C65: each byte of each frame and of the head.
#[tokio::test]
async fn any_flipped_byte_is_found_with_its_position() {
    let world = World::new();
    let node: Node = world.open(no_snapshots).await.unwrap();
    fill(&world, &node, 2).await;
    let good = node.log.verify().await.unwrap();
    assert!(good.ok && good.bad.is_none());
    assert_eq!((good.head, good.hash, good.frames), (node.log.view().position, node.log.view().hash, 5));
    node.stop().await;

    for frame in world.frames().await {
        let key: &[u8] = frame.key.as_ref();
        let first = u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap());
        for at in 0..frame.value.len() {
            let mut bytes = frame.value.to_vec();
            bytes[at] ^= 1 << (at % 8);
            world.store.put(&frame.key, bytes.into()).await.unwrap();
            let verified = verify(&world.store, LOG).await.unwrap();
            let (bad, why) = verified.bad.unwrap();
            assert!(!verified.ok && bad.0 == first, "byte {at} of the frame at {first}: {bad} {why}");
            assert_eq!(verified.head.0, first - 1);
        }
        world.store.put(&frame.key, frame.value).await.unwrap();
    }
    let key = keys::head(LOG);
    let head = world.get(&key).await;
    for at in 0..head.len() {
        let mut bytes = head.to_vec();
        bytes[at] ^= 1 << (at % 8);
        world.store.put(&key, bytes.into()).await.unwrap();
        let verified = verify(&world.store, LOG).await.unwrap();
        let (bad, why) = verified.bad.unwrap();
        assert!(!verified.ok && bad == good.head, "byte {at} of the head: {bad} {why}");
    }
    world.store.put(&key, head).await.unwrap();
    assert_eq!(verify(&world.store, LOG).await.unwrap(), good);
}

/// What a damaged log must never do is to open and look well.
#[tokio::test]
async fn a_damaged_log_does_not_open() {
    let world = World::new();
    let node: Node = world.open(no_snapshots).await.unwrap();
    fill(&world, &node, 2).await;
    node.stop().await;
    let frames = world.frames().await;
    for frame in &frames {
        for at in (0..frame.value.len()).step_by(13) {
            let mut bytes = frame.value.to_vec();
            bytes[at] ^= 4;
            world.store.put(&frame.key, bytes.into()).await.unwrap();
            let opened = world.open::<Tally>(|_| {}).await.map(|_| ());
            assert!(opened.is_err(), "byte {at}");
        }
        world.store.delete(&frame.key).await.unwrap();
        let opened = world.open::<Tally>(|_| {}).await.map(|_| ());
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "missing: {opened:?}");
        assert!(!verify(&world.store, LOG).await.unwrap().ok);
        world.store.put(&frame.key, frame.value.clone()).await.unwrap();
    }
    world.open::<Tally>(|_| {}).await.unwrap();

    let key = keys::head(LOG);
    world.store.delete(&key).await.unwrap();
    let opened = world.open::<Tally>(|_| {}).await.map(|_| ());
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "never start empty and healthy: {opened:?}");
    world.store.put(&key, "{\"json\": true}".into()).await.unwrap();
    let opened = world.open::<Tally>(|_| {}).await.map(|_| ());
    assert!(matches!(opened, Err(OpenError::Foreign { .. })), "{opened:?}");
}

/// Frames swapped, one taken from another log, or one behind the end.
#[tokio::test]
async fn frames_at_the_wrong_place_are_found() {
    let world = World::new();
    let node: Node = world.open(no_snapshots).await.unwrap();
    for _ in 0..4 {
        node.add(1, 1).await.unwrap();
    }
    let frames = world.frames().await;
    world.store.put(&frames[2].key, frames[3].value.clone()).await.unwrap();
    assert_eq!(verify(&world.store, LOG).await.unwrap().bad.unwrap().0, Position(3));

    let other = World::new();
    let node: Node = other.open(no_snapshots).await.unwrap();
    other.clock.advance(Duration::from_secs(1));
    for _ in 0..4 {
        node.add(1, 1).await.unwrap();
    }
    world.store.put(&frames[2].key, other.frames().await[2].value.clone()).await.unwrap();
    let verified = verify(&world.store, LOG).await.unwrap();
    assert_eq!(verified.bad.map(|(position, _)| position), Some(Position(3)), "whole, but of another chain");
    world.store.put(&frames[2].key, frames[2].value.clone()).await.unwrap();

    world.store.put(&keys::frame(LOG, Position(6)), frames[4].value.clone()).await.unwrap();
    assert_eq!(verify(&world.store, LOG).await.unwrap().bad.unwrap().0, Position(6));
}

#[tokio::test]
async fn an_event_that_is_newer_than_the_program_stops_the_start() {
    let world = World::new();
    let newer: Node<Tally<true>> = world.open(no_snapshots).await.unwrap();
    newer.execute(Do::Add { account: 1, amount: 1 }).await.unwrap();
    newer.execute(Do::Invent).await.unwrap();
    newer.close().await;
    let opened = world.open::<Tally<false>>(|_| {}).await.map(|_| ());
    match opened {
        Err(error @ OpenError::Newer { position: Position(3), .. }) => {
            assert!(error.to_string().contains("newer"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    world.open::<Tally<true>>(|_| {}).await.unwrap();
    assert!(verify(&world.store, LOG).await.unwrap().ok, "the log itself is well");
}

#[tokio::test]
async fn an_absent_log_is_told_from_a_damaged_one() {
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(MemoryStore::new());
    assert!(matches!(verify(&store, LOG).await, Err(LogError::Absent { .. })));
    let replayed = replay_stored::<Tally>(&store, AsOf::Position(Position(0))).await;
    assert!(matches!(replayed, Err(LogError::Absent { .. })));
    assert_eq!(Tally::<false>::LOG, LOG);
}
