//! Damaged logs, cut back to what is good.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use underpass_domain::events::v1;
use underpass_domain::testing::SeededRandom;
use underpass_domain::{
    ActivityCommand, ActivityEvent, ActivityState, Actor, LogName, MappingId, Meta, NodeId, Position,
    Timestamp,
};
use underpass_eventlog::frame::{CommitId, Frame, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::{
    Committed, LogError, OpenError, RepairError, RepairPlan, Repaired, Repairer, cut_before, keys,
    plan_repair, read_stored, repair, trim, verify,
};
use underpass_store::testkit::faulty::{Call, Fault, Flaky};
use underpass_store::{Entry, Key, KvStore, MemoryStore, Store};

use crate::copying::{Killed, failing};
use crate::support::{Node, World};

const LOG: LogName = LogName::Activity;
/// Events of [`log`], each in a frame of its own; the first is the log's beginning.
const EVENTS: u64 = 21;
const NOW: Timestamp = Timestamp(1_893_456_000_000);

fn usage(mapping: u8) -> ActivityCommand {
    let mapping = MappingId::from_bytes([mapping; 16]);
    ActivityCommand::RecordUsage { mapping, bytes_in: 1, bytes_out: 2, tunnels: 1, refused: 0 }
}

/// A log of [`EVENTS`] events with a snapshot at its end.
async fn log() -> MemoryStore {
    let memory = MemoryStore::new();
    let node: Node<ActivityState> = World::on(memory.clone()).open(|_| {}).await.unwrap();
    for number in 1..EVENTS {
        node.execute(usage(u8::try_from(number % 5 + 1).unwrap())).await.unwrap();
    }
    node.close().await;
    memory
}

fn shared(memory: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(memory.clone())
}

async fn everything(store: &MemoryStore) -> Vec<(Key, Bytes)> {
    let entries = store.scan(&Key::from("log/"), &Key::from("log0"), 100_000).await.unwrap();
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

async fn frame(store: &MemoryStore, at: u64) -> Entry {
    store.get(&keys::frame(LOG, Position(at))).await.unwrap().unwrap()
}

async fn put(store: &MemoryStore, key: &Key, value: impl Into<Bytes>) {
    store.put(key, value.into()).await.unwrap();
}

async fn flip(store: &MemoryStore, key: &Key, byte: usize) {
    let mut value = store.get(key).await.unwrap().unwrap().value.to_vec();
    value[byte] ^= 1;
    put(store, key, value).await;
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

async fn plan(store: &Arc<dyn Store>) -> Result<RepairPlan, RepairError> {
    plan_repair(store, LOG, None).await
}

async fn carry_out(
    store: &Arc<dyn Store>,
    plan: &RepairPlan,
    folder: PathBuf,
    seed: u64,
) -> Result<Repaired, RepairError> {
    let random = SeededRandom::new(seed);
    let by = Repairer { node: NodeId::from_bytes([9; 16]), now: NOW, random: &random };
    repair(store, plan, folder, &by).await
}

/// The log is whole, opens, and takes another event.
async fn goes_on(memory: &MemoryStore) {
    let store = shared(memory);
    let verified = verify(&store, LOG).await.unwrap();
    assert!(verified.ok, "{verified:?}");
    let node: Node<ActivityState> = World::on(memory.clone()).open(|_| {}).await.unwrap();
    let next = node.execute(usage(1)).await.unwrap().head;
    assert_eq!(next, verified.head.next());
    assert!(!plan(&store).await.unwrap().needed());
    node.stop().await;
}

/// What the newest event says.
async fn repaired_event(store: &Arc<dyn Store>, at: Position) -> v1::LogRepaired {
    let events = read_stored(store, LOG, Position(at.0 - 1), 1).await.unwrap();
    match events[0].decode().unwrap() {
        ActivityEvent::LogRepaired(event) => event,
        other => panic!("{other:?}"),
    }
}

/// What was put aside is what is gone, byte for byte.
fn kept(folder: &std::path::Path, before: &[(Key, Bytes)], after: &[(Key, Bytes)]) {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let mut files: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for entry in entries {
        let bytes = std::fs::read(folder.join(entry["file"].as_str().unwrap())).unwrap();
        assert_eq!(entry["blake3"], blake3::hash(&bytes).to_hex().as_str());
        assert_eq!(entry["length"], bytes.len());
        let key = data_encoding::HEXLOWER.decode(entry["key"].as_str().unwrap().as_bytes()).unwrap();
        files.push((key, bytes));
    }
    for (key, value) in before {
        if !after.iter().any(|(there, same)| (there, same) == (key, value)) {
            let key: &[u8] = key.as_ref();
            assert!(
                files.iter().any(|(name, bytes)| name == key && bytes == value),
                "{} is gone and was not kept",
                String::from_utf8_lossy(key)
            );
        }
    }
}

/// A frame that follows on the log's last one, with a payload that can't be decoded.
fn undecodable(head: &Head, last: &Frame) -> (Bytes, Head) {
    let header = FrameHeader {
        first: head.position.next(),
        commit: CommitId([7; 16]),
        previous: head.hash,
        ..last.header
    };
    let mut record = last.records[0].clone();
    (record.payload, record.stream_version) = (Bytes::from_static(b"?"), record.stream_version + 1);
    let mut builder = FrameBuilder::new(&header);
    builder.push(&record);
    let (bytes, hash) = builder.finish().unwrap();
    let (position, first, commit) = (header.first, header.first, header.commit);
    (bytes, Head { position, first, commit, hash, ..*head })
}

/// Kinds of damage, the last position that stays, and how many positions are known to be lost.
const DAMAGES: [(&str, u64, u64); 13] = [
    ("a flipped byte", 9, 12),
    ("a flipped format", 9, 12),
    ("a missing frame", 9, 12),
    ("the last frame missing", 20, 1),
    ("a broken chain", 9, 12),
    ("an undecodable payload", 21, 1),
    ("no head", 21, 0),
    ("a flipped head", 21, 0),
    ("a flipped format of the head", 21, 0),
    ("an older head", 21, 0),
    ("a frame behind the head", 21, 1),
    ("a gap behind the head", 21, 10),
    ("no head and a missing frame", 9, 12),
];

async fn damage(store: &MemoryStore, kind: &str) {
    let head_key = keys::head(LOG);
    let head = Head::decode(&store.get(&head_key).await.unwrap().unwrap().value).unwrap();
    let tenth = keys::frame(LOG, Position(10));
    let last = Frame::decode(&frame(store, EVENTS).await.value).unwrap();
    match kind {
        "a flipped byte" => flip(store, &tenth, 120).await,
        "a flipped format" => flip(store, &tenth, 4).await,
        "a missing frame" => drop(store.delete(&tenth).await.unwrap()),
        "the last frame missing" => drop(store.delete(&keys::frame(LOG, Position(EVENTS))).await.unwrap()),
        "a broken chain" => {
            let there = Frame::decode(&frame(store, 10).await.value).unwrap();
            let mut other = FrameBuilder::new(&FrameHeader { previous: head.hash, ..there.header });
            there.records.iter().for_each(|record| other.push(record));
            put(store, &tenth, other.finish().unwrap().0).await;
        }
        "an undecodable payload" => {
            let (bytes, head) = undecodable(&head, &last);
            put(store, &keys::frame(LOG, head.first), bytes).await;
            put(store, &head_key, head.encode()).await;
        }
        "no head" => drop(store.delete(&head_key).await.unwrap()),
        "a flipped head" => flip(store, &head_key, 30).await,
        "a flipped format of the head" => flip(store, &head_key, 4).await,
        "an older head" => {
            let older = Frame::decode(&frame(store, 15).await.value).unwrap();
            let header = older.header;
            let (recorded_at, commit) = (header.recorded_at, header.commit);
            let (position, first) = (Position(15), Position(15));
            let older = Head { position, first, recorded_at, commit, hash: older.hash, ..head };
            put(store, &head_key, older.encode()).await;
        }
        "a frame behind the head" => {
            let (bytes, newer) = undecodable(&head, &last);
            put(store, &keys::frame(LOG, newer.first), bytes).await;
        }
        "a gap behind the head" => {
            let stray = frame(store, EVENTS).await.value;
            put(store, &keys::frame(LOG, Position(31)), stray).await;
        }
        "no head and a missing frame" => {
            store.delete(&tenth).await.unwrap();
            store.delete(&head_key).await.unwrap();
        }
        other => panic!("{other}"),
    }
}

/// A plan changes nothing; a repair keeps what it cuts, says so in the log, and the log goes on in a new epoch.
#[tokio::test]
async fn each_kind_of_damage_is_cut_off_and_kept() {
    for (kind, stays, lost) in DAMAGES {
        let (memory, place) = (log().await, Place::new());
        damage(&memory, kind).await;
        let (store, before) = (shared(&memory), everything(&memory).await);
        assert!(!verify(&store, LOG).await.unwrap().ok || kind == "an undecodable payload", "{kind}");
        let plan = plan(&store).await.unwrap();
        assert!(plan.needed(), "{kind}");
        assert_eq!((plan.stays.0, plan.lost, plan.epoch), (stays, lost, 2), "{kind}: {plan:?}");
        assert_eq!(everything(&memory).await, before, "{kind}: planning changed something");

        let folder = place.folder("repair/now");
        let done = carry_out(&store, &plan, folder.clone(), 1).await.unwrap();
        assert_eq!((done.head.0, done.epoch, done.entries), (stays + 1, 2, plan.entries), "{kind}");
        let event = repaired_event(&store, done.head).await;
        assert_eq!((event.cut_from.0, event.lost, event.cut_hash), (stays + 1, lost, plan.hash), "{kind}");
        assert_eq!(Some(event.reason), plan.reason, "{kind}");
        kept(&folder, &before, &everything(&memory).await);
        let [from, to] = [keys::manifest(LOG, done.head), keys::manifests_end(LOG)];
        assert!(store.scan(&from, &to, 1).await.unwrap().is_empty(), "{kind}: a snapshot of what is gone");
        goes_on(&memory).await;
    }
}

/// A second damage, in what came after a repair: the epoch goes on to rise.
#[tokio::test]
async fn a_repaired_log_can_be_repaired_again() {
    let (memory, place) = (log().await, Place::new());
    let store = shared(&memory);
    for (epoch, at) in [(2, 15), (3, 12), (4, 8)] {
        flip(&memory, &keys::frame(LOG, Position(at)), 50).await;
        let plan = plan(&store).await.unwrap();
        assert_eq!((plan.epoch, plan.stays.0), (epoch, at - 1));
        carry_out(&store, &plan, place.folder(&format!("repair/{epoch}")), epoch).await.unwrap();
        goes_on(&memory).await;
    }
}

#[tokio::test]
async fn a_good_log_is_left_as_it_is() {
    let memory = log().await;
    let (store, before) = (shared(&memory), everything(&memory).await);
    let plan = plan(&store).await.unwrap();
    assert!(!plan.needed() && plan.entries == 0 && plan.stays.0 == EVENTS, "{plan:?}");
    assert_eq!(everything(&memory).await, before);
}

/// An older copy that was put back: nothing is cut, and positions of what was given up belong to another epoch.
#[tokio::test]
async fn a_good_log_gets_a_new_epoch_when_it_is_asked_for() {
    let (memory, place) = (log().await, Place::new());
    let store = shared(&memory);
    let plan = plan_repair(&store, LOG, Some("it was restored")).await.unwrap();
    assert_eq!((plan.reason.as_deref(), plan.stays.0, plan.epoch), (Some("it was restored"), EVENTS, 2));
    let done = carry_out(&store, &plan, place.folder("repair"), 1).await.unwrap();
    assert_eq!(repaired_event(&store, done.head).await.lost, 0);
    goes_on(&memory).await;
}

#[tokio::test]
async fn where_nothing_is_good_nothing_is_changed() {
    let memory = log().await;
    flip(&memory, &keys::frame(LOG, Position(1)), 60).await;
    let (store, before) = (shared(&memory), everything(&memory).await);
    let refused = plan(&store).await.unwrap_err();
    assert!(matches!(refused, RepairError::NothingLeft { .. }), "{refused:?}");
    assert_eq!(everything(&memory).await, before);

    let refused = plan(&shared(&MemoryStore::new())).await.unwrap_err();
    assert!(matches!(refused, RepairError::Log(LogError::Absent { .. })), "{refused:?}");
}

/// What a newer release wrote is no damage.
#[tokio::test]
async fn what_a_newer_release_wrote_is_not_cut_off() {
    let memory = log().await;
    let head_key = keys::head(LOG);
    let head = Head::decode(&memory.get(&head_key).await.unwrap().unwrap().value).unwrap();
    let last = Frame::decode(&frame(&memory, EVENTS).await.value).unwrap();
    let mut record = last.records[0].clone();
    (record.kind, record.stream_version) = (60_000, record.stream_version + 1);
    let header = FrameHeader { first: head.position.next(), previous: head.hash, ..last.header };
    let mut newer = FrameBuilder::new(&header);
    newer.push(&record);
    put(&memory, &keys::frame(LOG, header.first), newer.finish().unwrap().0).await;
    let refused = plan(&shared(&memory)).await.unwrap_err();
    assert!(matches!(refused, RepairError::Log(LogError::Newer { .. })), "{refused:?}");
}

async fn act(node: &Node<ActivityState>, command: ActivityCommand) -> Committed<ActivityEvent> {
    node.log.execute(Meta { actor: Actor::System, ..node.meta() }, command).await.unwrap()
}

/// A trimmed log with its cut announced.
async fn trimmed() -> (MemoryStore, Position, Position) {
    let memory = MemoryStore::new();
    let node: Node<ActivityState> = World::on(memory.clone()).open(|_| {}).await.unwrap();
    for number in 1..=9 {
        act(&node, usage(number)).await;
    }
    act(&node, ActivityCommand::StartCarry).await;
    while !act(&node, ActivityCommand::Carry { limit: 3 }).await.events.is_empty() {}
    act(&node, ActivityCommand::FinishCarry).await;
    for number in 5..=8 {
        act(&node, usage(number)).await;
    }
    let carry = *node.log.view().state.finished_carries().next_back().unwrap();
    let cut = cut_before(&shared(&memory), LOG, carry.started).await.unwrap().unwrap();
    let noted = ActivityCommand::NoteTrimmed { until: cut.until, hash: cut.hash };
    act(&node, noted).await;
    for number in 5..=8 {
        act(&node, usage(number)).await;
    }
    node.stop().await;
    trim(&shared(&memory), LOG, cut, None, &tokio_util::sync::CancellationToken::new()).await.unwrap();
    (memory, carry.started, carry.finished)
}

/// Of a trimmed log everything behind its carry can be cut; if the event that spoke of the trimming goes, it is said
/// again.
#[tokio::test]
async fn a_trimmed_log_is_repaired_behind_its_carry() {
    let (_, started, finished) = trimmed().await;
    for (number, at) in [finished.0 + 1, finished.0 + 2, finished.0 + 7].into_iter().enumerate() {
        let ((memory, ..), place) = (trimmed().await, Place::new());
        flip(&memory, &keys::frame(LOG, Position(at)), 70).await;
        let store = shared(&memory);
        let plan = plan(&store).await.unwrap();
        assert_eq!(plan.stays.0, at - 1);
        let done = carry_out(&store, &plan, place.folder("repair"), 1).await.unwrap();
        let said_again = u64::from(number < 2);
        assert_eq!(done.head.0, at + said_again, "the event of the repair, and that of the trimming");
        goes_on(&memory).await;
    }
    for at in [started.0, finished.0] {
        let (memory, ..) = trimmed().await;
        flip(&memory, &keys::frame(LOG, Position(at)), 70).await;
        let before = everything(&memory).await;
        let refused = plan(&shared(&memory)).await.unwrap_err();
        assert!(matches!(refused, RepairError::NothingLeft { .. }), "{at}: {refused:?}");
        assert_eq!(everything(&memory).await, before);
    }
}

/// Nothing but the tail proves what is left of a trimmed log.
#[tokio::test]
async fn a_damaged_tail_is_not_made_up() {
    let (memory, ..) = trimmed().await;
    flip(&memory, &keys::tail(LOG), 40).await;
    let refused = plan(&shared(&memory)).await.unwrap_err();
    assert!(matches!(refused, RepairError::Tail { .. }), "{refused:?}");

    // Where all frames are there still, it is not needed.
    let (memory, place) = (log().await, Place::new());
    put(&memory, &keys::tail(LOG), Bytes::from_static(b"UPLTnonsense")).await;
    let (store, before) = (shared(&memory), everything(&memory).await);
    let plan = plan(&store).await.unwrap();
    assert_eq!(plan.stays.0, EVENTS);
    carry_out(&store, &plan, place.folder("repair"), 1).await.unwrap();
    kept(&place.folder("repair"), &before, &everything(&memory).await);
    goes_on(&memory).await;
}

/// Whatever happens at whichever commit: either nothing has changed, or nothing opens the log until the repair was
/// run again and ended, or it is done. What was cut off is kept, all of it.
#[tokio::test(start_paused = true)]
async fn a_repair_killed_at_any_commit_is_finished_by_the_next() {
    for at in 0..8 {
        for how in
            [Killed::Before, Killed::After, Killed::Unavailable, Killed::UnknownDone, Killed::UnknownNotDone]
        {
            let (memory, place) = (log().await, Place::new());
            damage(&memory, "no head and a missing frame").await;
            let (store, before) = (shared(&memory), everything(&memory).await);
            let first = plan(&store).await.unwrap();
            let failing = failing(&memory, at, how);
            let folder = place.folder("repair/1");
            let killed =
                tokio::time::timeout(Duration::from_mins(5), carry_out(&failing, &first, folder.clone(), 1))
                    .await;
            if let Ok(Ok(done)) = &killed {
                assert!(at >= 4, "commit {at}, {how:?}: {done:?}");
            } else {
                let opened = World::on(memory.clone()).open::<ActivityState>(|_| {}).await.map(drop);
                let now = everything(&memory).await;
                match opened {
                    Err(OpenError::Corrupt { .. }) => assert_eq!(now, before, "commit {at}, {how:?}"),
                    Err(OpenError::HalfRepaired { .. }) => {
                        let verified = verify(&store, LOG).await;
                        assert!(matches!(verified, Err(LogError::HalfRepaired { .. })), "{verified:?}");
                    }
                    Ok(()) => assert!(verify(&store, LOG).await.unwrap().ok),
                    Err(error) => panic!("commit {at}, {how:?}: {error}"),
                }
                kept(&folder, &before, &now);
            }
            let again = plan(&store).await.unwrap();
            if again.needed() {
                assert_eq!((again.stays, again.epoch, again.lost), (first.stays, first.epoch, first.lost));
                assert_eq!(again.reason, first.reason);
                carry_out(&store, &again, place.folder("repair/2"), 2).await.unwrap();
            }
            assert_eq!(repaired_event(&store, first.stays.next()).await.lost, first.lost);
            goes_on(&memory).await;
        }
    }
}

/// An outcome that is unknown for a moment costs nothing.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_at_any_commit_is_cleared_up() {
    for at in 0..6 {
        for fault in [Fault::IndeterminateDone, Fault::IndeterminateNotDone, Fault::Unavailable] {
            let (memory, place) = (log().await, Place::new());
            damage(&memory, "a flipped byte").await;
            let faults = (0..at).map(|_| Fault::None).chain([fault]);
            let store: Arc<dyn Store> = Arc::new(Flaky::scripted_for(memory.clone(), Call::Commit, faults));
            let plan = plan(&store).await.unwrap();
            carry_out(&store, &plan, place.folder("repair"), 1).await.unwrap();
            goes_on(&memory).await;
        }
    }
}

/// A server that came between the plan and the repair stands in the way of it.
#[tokio::test]
async fn a_log_that_was_written_since_the_plan_is_not_touched() {
    let (memory, place) = (log().await, Place::new());
    let store = shared(&memory);
    let plan = plan_repair(&store, LOG, Some("it was restored")).await.unwrap();
    goes_on(&memory).await;
    let before = everything(&memory).await;
    let refused = carry_out(&store, &plan, place.folder("repair"), 1).await.unwrap_err();
    assert!(matches!(refused, RepairError::Contended { .. }), "{refused:?}");
    assert_eq!(everything(&memory).await, before);
}
