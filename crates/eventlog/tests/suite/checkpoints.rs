//! Signed checkpoints, and logs that do not agree with them.

use std::sync::Arc;
use std::time::Duration;

use underpass_domain::testing::SeededRandom;
use underpass_domain::{ActivityState, Digest32, LogId, LogName, MappingId, Position, Timestamp};
use underpass_eventlog::{
    BookError, CHECKPOINT_LINE_BYTES_MAX, Checkpoint, CheckpointBook, CheckpointKey, CheckpointKeyError,
    CheckpointPublicKey, LogError, Mend, SignedCheckpoint, Verified, disagreement, keys, verify, verify_with,
};
use underpass_store::{KvStore, MemoryStore, Store};

use crate::raw::Raw;
use crate::support::{Node, World};

const LOG: LogName = LogName::Activity;
const AT: Timestamp = Timestamp(1_767_225_600_000);

fn key(number: u64) -> CheckpointKey {
    CheckpointKey::generate(&SeededRandom::new(number)).unwrap()
}

fn sample() -> Checkpoint {
    Checkpoint {
        log: LOG,
        log_id: LogId([1; 16]),
        epoch: 2,
        position: Position(3),
        hash: Digest32([4; 32]),
        at: AT,
    }
}

/// A log with a checkpoint after each frame.
async fn watched(frames: u8) -> (Raw, Vec<SignedCheckpoint>) {
    let mut raw = Raw::new(LOG, 1).await;
    let mut checkpoints = Vec::new();
    for number in 0..frames {
        raw.usage(number % 4 + 1).await;
        let at = AT.plus(Duration::from_hours(u64::from(number)));
        let checkpoint = Checkpoint::stored(&raw.store(), LOG, at).await.unwrap();
        checkpoints.push(key(1).sign(checkpoint).unwrap());
    }
    (raw, checkpoints)
}

async fn verified(store: &Arc<dyn Store>, checkpoints: &[SignedCheckpoint]) -> Verified {
    verify_with(store, LOG, checkpoints, &key(1).public_key()).await.unwrap()
}

async fn bad(store: &Arc<dyn Store>, checkpoints: &[SignedCheckpoint]) -> (Position, String) {
    let verified = verified(store, checkpoints).await;
    assert!(!verified.ok);
    verified.bad.unwrap()
}

/// The bytes of RFC 8032 and of the format's document: others can check a checkpoint without this program.
#[test]
fn the_signed_bytes_and_the_line_are_what_the_document_says() {
    let mut expected = b"underpass log checkpoint v1\0\x02".to_vec();
    expected.extend([1; 16]);
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([4; 32]);
    expected.extend(1_767_225_600_000_u64.to_le_bytes());
    assert_eq!(sample().signed_bytes(), expected);

    // The first test vector of RFC 8032, 7.1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let seed: Digest32 = seed.parse().unwrap();
    let key = CheckpointKey::from_seed(&seed.0).unwrap();
    let public: Digest32 =
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().unwrap();
    assert_eq!(key.public_key(), CheckpointPublicKey(public.0));

    let signed = key.sign(sample()).unwrap();
    let line = signed.to_line();
    assert!(line.starts_with(
        "{\"checkpoint\":1,\"log_id\":\"01010101-0101-0101-0101-010101010101\",\"log\":\"activity\",\"epoch\":2,\
         \"position\":3,\"hash\":\"0404040404040404040404040404040404040404040404040404040404040404\",\
         \"at\":\"2026-01-01T00:00:00.000Z\",\"signature\":\""
    ));
    assert!(line.len() < CHECKPOINT_LINE_BYTES_MAX / 2);
    assert_eq!(SignedCheckpoint::parse(line.as_bytes()), Ok(signed));
    assert_eq!(key.sign(sample()).unwrap(), signed, "Ed25519 signs the same alike");
}

#[test]
fn keys_come_back_from_pkcs8_and_from_text() {
    let key = key(7);
    let der = key.to_pkcs8().unwrap();
    let again = CheckpointKey::from_pkcs8(&der).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!(again.to_pkcs8().unwrap(), der);
    assert!(der.windows(32).any(|part| part == key.public_key().0), "version 2 has the public half too");
    for end in 0..der.len() {
        let cut = CheckpointKey::from_pkcs8(&der[..end]);
        assert!(matches!(cut, Err(CheckpointKeyError::Invalid)), "{end}");
    }
    let text = key.public_key().to_string();
    assert_eq!((text.len(), text.parse()), (43, Ok(key.public_key())));
    assert!(text[1..].parse::<CheckpointPublicKey>().is_err());
    assert_eq!(format!("{key:?}"), format!("CheckpointKey({text})"), "nothing of the secret half");
}

#[test]
fn a_signature_holds_for_its_checkpoint_and_key_only() {
    let signed = key(1).sign(sample()).unwrap();
    assert!(signed.is_by(&key(1).public_key()));
    assert!(!signed.is_by(&key(2).public_key()));
    assert!(!signed.is_by(&CheckpointPublicKey([0; 32])));
    for checkpoint in [
        Checkpoint { log: LogName::Control, ..sample() },
        Checkpoint { log_id: LogId([2; 16]), ..sample() },
        Checkpoint { epoch: 1, ..sample() },
        Checkpoint { position: Position(4), ..sample() },
        Checkpoint { hash: Digest32([5; 32]), ..sample() },
        Checkpoint { at: Timestamp(AT.0 + 1), ..sample() },
    ] {
        assert!(!SignedCheckpoint { checkpoint, ..signed }.is_by(&key(1).public_key()), "{checkpoint:?}");
    }
    for bit in 0..512 {
        let mut changed = signed;
        changed.signature[bit / 8] ^= 1 << (bit % 8);
        assert!(!changed.is_by(&key(1).public_key()), "bit {bit}");
    }
}

async fn book(checkpoints: &[SignedCheckpoint]) -> Vec<u8> {
    let mut file = Vec::new();
    for checkpoint in checkpoints {
        CheckpointBook::append(&mut file, checkpoint).await.unwrap();
    }
    file
}

#[tokio::test]
async fn a_book_gives_back_what_was_appended() {
    let (_, checkpoints) = watched(5).await;
    let mut all = checkpoints.clone();
    let other = key(1).sign(Checkpoint { log: LogName::Control, ..sample() }).unwrap();
    all.insert(2, other);
    let read = CheckpointBook::read(&book(&all).await[..]).await.unwrap();
    assert_eq!((&read.checkpoints, read.mend), (&all, Mend::Nothing));
    assert_eq!((read.of(LOG), read.of(LogName::Control)), (checkpoints, vec![other]));
    assert_eq!(CheckpointBook::read(&[][..]).await.unwrap(), CheckpointBook::default());
}

/// A crash at any byte of the last line: what was before is there, and appending goes on after the mend.
#[tokio::test]
async fn a_torn_last_line_costs_that_line_only() {
    let (_, checkpoints) = watched(3).await;
    let file = book(&checkpoints).await;
    let second = book(&checkpoints[..2]).await.len();
    for end in second..file.len() {
        let mut torn = file[..end].to_vec();
        let read = CheckpointBook::read(&torn[..]).await.unwrap();
        match read.mend {
            Mend::Nothing => assert_eq!(end, second),
            Mend::EndLine => {
                assert_eq!(end, file.len() - 1);
                torn.push(b'\n');
            }
            Mend::CutTo(bytes) => {
                assert_eq!(bytes, second as u64);
                torn.truncate(second);
            }
        }
        assert_eq!(read.checkpoints.len(), if read.mend == Mend::EndLine { 3 } else { 2 });
        CheckpointBook::append(&mut torn, &checkpoints[2]).await.unwrap();
        let again = CheckpointBook::read(&torn[..]).await.unwrap();
        assert_eq!((again.checkpoints.last(), again.mend), (Some(&checkpoints[2]), Mend::Nothing), "{end}");
    }
    // A system that crashed may leave zeros.
    let mut zeros = file[..second].to_vec();
    zeros.extend([0; 300]);
    let read = CheckpointBook::read(&zeros[..]).await.unwrap();
    assert_eq!((read.checkpoints.len(), read.mend), (2, Mend::CutTo(second as u64)));
}

#[tokio::test]
async fn a_bad_line_elsewhere_is_named() {
    let (_, checkpoints) = watched(4).await;
    let lines: Vec<String> = checkpoints.iter().map(SignedCheckpoint::to_line).collect();
    let long = "x".repeat(CHECKPOINT_LINE_BYTES_MAX + 1);
    let half = lines[1][..100].to_owned();
    let newer = lines[1].replace("\"checkpoint\":1", "\"checkpoint\":2");
    let more = lines[1].replace("\"epoch\"", "\"more\":1,\"epoch\"");
    let short = lines[1].replace("==\"}", "\"}");
    for wrong in [String::new(), "{}".to_owned(), long, half, newer, more, short] {
        let mut lines = lines.clone();
        lines[1] = wrong.clone();
        let error = CheckpointBook::read((lines.join("\n") + "\n").as_bytes()).await.unwrap_err();
        assert!(matches!(error, BookError::Line { line: 2, .. }), "{wrong}: {error}");
        assert_eq!(error.code(), "checkpoints.line");
    }
}

/// C65: in any order, and twice.
#[tokio::test]
async fn a_log_that_is_what_it_was_agrees_with_every_checkpoint() {
    let (raw, mut checkpoints) = watched(20).await;
    let store = raw.store();
    let plain = verify(&store, LOG).await.unwrap();
    assert_eq!(verified(&store, &[]).await, plain);
    checkpoints.reverse();
    checkpoints.extend(checkpoints.clone());
    assert_eq!(verified(&store, &checkpoints).await, Verified { checkpoints: 40, ..plain });
}

/// C65: as a whole, an older copy is sound; only what was kept elsewhere tells.
#[tokio::test]
async fn a_store_put_back_from_an_older_copy_is_noticed() {
    let (_, checkpoints) = watched(12).await;
    for kept in 0..12_u8 {
        let (older, _) = watched(kept).await;
        let store = older.store();
        assert!(verify(&store, LOG).await.unwrap().ok);
        let (position, why) = bad(&store, &checkpoints).await;
        let (head, newest) = (older.head.position, checkpoints[11].checkpoint);
        assert_eq!(position, head.next());
        let expected = format!(
            "the log ends at {head}, but a checkpoint of {} says it reached {}: the store was put back from an \
             older copy, or is short of its tail",
            newest.at, newest.position
        );
        assert_eq!(why, expected);
        assert_eq!(verified(&store, &checkpoints).await.checkpoints, u64::from(kept));
    }
}

/// C65: somebody who can write the store writes the log anew from some point on, chain and all.
#[tokio::test]
async fn a_log_written_anew_from_some_point_on_is_noticed() {
    let (_, checkpoints) = watched(8).await;
    for (salted_at, epoch) in [(0, 1), (3, 1), (7, 1), (3, 2)] {
        let mut raw = Raw::new(LOG, 1).await;
        for number in 0..8 {
            if number == salted_at {
                raw.salt = 1;
                raw.epoch = epoch;
            }
            raw.usage(number % 4 + 1).await;
        }
        let store = raw.store();
        assert!(verify(&store, LOG).await.unwrap().ok);
        let (position, why) = bad(&store, &checkpoints).await;
        let first = checkpoints[usize::from(salted_at)].checkpoint;
        assert_eq!(position, first.position);
        let sentence =
            if epoch == 1 { "has another hash than the log" } else { "restored or repaired since" };
        assert!(
            why.starts_with(&format!("the checkpoint of {} ", first.at)) && why.contains(sentence),
            "{why}"
        );
        assert_eq!(verified(&store, &checkpoints).await.checkpoints, u64::from(salted_at));
    }
    let mut coarse = Raw::new(LOG, 1).await;
    coarse.usage(5).await;
    let (position, why) = bad(&coarse.store(), &checkpoints[..1]).await;
    assert!(position == Position(2) && why.contains("no frame of the log ends there"), "{why}");
}

#[tokio::test]
async fn checkpoints_of_others_are_noticed() {
    let (raw, mut checkpoints) = watched(6).await;
    let store = raw.store();
    let good = checkpoints[3];
    checkpoints[3].checkpoint.at = Timestamp(AT.0 + 1);
    let (position, why) = bad(&store, &checkpoints).await;
    assert!(position == good.checkpoint.position && why.contains("wrong signature"), "{why}");
    assert_eq!(verified(&store, &checkpoints).await.checkpoints, 5);
    checkpoints[3] = key(2).sign(good.checkpoint).unwrap();
    assert!(bad(&store, &checkpoints).await.1.contains("signed with another key"));

    for position in [good.checkpoint.position, Position(1000)] {
        let other = Checkpoint { log_id: LogId([9; 16]), position, ..good.checkpoint };
        checkpoints[3] = key(1).sign(other).unwrap();
        let (at, why) = bad(&store, &checkpoints).await;
        assert!(at == position && why.contains("is of another log: activity 09090909-"), "{why}");
    }
    let other = Checkpoint { log: LogName::Control, ..good.checkpoint };
    checkpoints[3] = key(1).sign(other).unwrap();
    assert!(bad(&store, &checkpoints).await.1.contains("is of another log: control 01010101-"));

    // A forged one that would make the log look too short is not believed.
    checkpoints[3] = key(2).sign(Checkpoint { position: Position(1000), ..good.checkpoint }).unwrap();
    assert!(bad(&store, &checkpoints).await.1.contains("wrong signature"));
}

/// C65: what is damaged is named before what doesn't agree.
/// What a server asks of its newest checkpoint: the same answer as from all of them, by a look at one frame.
#[tokio::test]
async fn one_checkpoint_tells_without_reading_the_whole_log() {
    let (raw, checkpoints) = watched(20).await;
    let store = raw.store();
    let ask = async |signed: &SignedCheckpoint, number| {
        disagreement(&store, signed, &key(number).public_key()).await.unwrap()
    };
    for signed in &checkpoints {
        assert_eq!(ask(signed, 1).await, None);
    }
    let newest = checkpoints.last().unwrap();
    assert!(ask(newest, 2).await.unwrap().contains("wrong signature"));
    let forged = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = newest.checkpoint;
        change(&mut checkpoint);
        key(1).sign(checkpoint).unwrap()
    };
    for (change, why) in [
        (
            &(|checkpoint: &mut Checkpoint| checkpoint.hash = Digest32([9; 32])) as &dyn Fn(&mut Checkpoint),
            "another hash",
        ),
        (&|checkpoint| checkpoint.epoch = 9, "epoch 9"),
        (&|checkpoint| checkpoint.log_id = LogId([9; 16]), "another log"),
        (&|checkpoint| checkpoint.position = checkpoint.position.next(), "the log ends at"),
    ] {
        let said = ask(&forged(change), 1).await.unwrap();
        assert!(said.contains(why), "{said}");
    }

    // A frame that is gone is missed in the middle, and not where everything before it is gone, too.
    let first = checkpoints[0].checkpoint.position;
    let frame = keys::frame(LOG, first);
    let entries = store.scan(&keys::frame(LOG, Position(0)), &keys::frames_end(LOG), 3).await.unwrap();
    assert_eq!(entries[1].key, frame, "one event a frame");
    store.delete(&frame).await.unwrap();
    assert!(ask(&checkpoints[0], 1).await.unwrap().contains("missing"));
    store.delete(&entries[0].key).await.unwrap();
    assert_eq!(ask(&checkpoints[0], 1).await, None, "trimmed");
    assert_eq!(ask(newest, 1).await, None);
}

#[tokio::test]
async fn damage_is_named_before_disagreement() {
    let (raw, mut checkpoints) = watched(6).await;
    checkpoints[0].signature[0] ^= 1;
    let frame = keys::frame(LOG, raw.head.first);
    let mut bytes = raw.store.get(&frame).await.unwrap().unwrap().value.to_vec();
    bytes[70] ^= 1;
    raw.store.put(&frame, bytes.into()).await.unwrap();
    assert_eq!(bad(&raw.store(), &checkpoints).await.0, raw.head.first);
    let absent: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let verified = verify_with(&absent, LOG, &checkpoints, &key(1).public_key()).await;
    assert!(matches!(verified, Err(LogError::Absent { .. })));
}

#[tokio::test]
async fn an_open_log_says_where_it_ends() {
    let world = World::new();
    let node: Node<ActivityState> = world.open(|_| {}).await.unwrap();
    let usage = underpass_domain::ActivityCommand::RecordUsage {
        mapping: MappingId::from_bytes([1; 16]),
        bytes_in: 1,
        bytes_out: 1,
        tunnels: 1,
        refused: 0,
    };
    node.execute(usage).await.unwrap();
    let checkpoint = node.log.checkpoint(AT).unwrap();
    assert_eq!(checkpoint, Checkpoint::stored(&world.store, LOG, AT).await.unwrap());
    assert_eq!(checkpoint.position, Position(2));
    let signed = key(1).sign(checkpoint).unwrap();
    assert!(verified(&world.store, &[signed]).await.ok);
}
