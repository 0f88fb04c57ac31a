//! Logs out of lines of text, and what can be wrong with the lines.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use underpass_domain::{
    ActivityState, Aggregate, ClientId, ControlCommand, ControlState, Digest32, InviteId, LogName, Position,
    PublicKey,
};
use underpass_eventlog::{
    AsOf, CheckpointBook, CheckpointPublicKey, Copied, CopyError, Export, ImportError, LINE_BYTES_MAX,
    LogError, Selection, copy, difference, import, keys, replay_stored, verify, verify_export, verify_with,
};
use underpass_store::{KvStore, MemoryStore, Store};

use crate::copying::{Killed, failing};
use crate::exporting::{lines, sample};
use crate::raw::{Raw, all};
use crate::support::{Node, World};

const LOG: LogName = LogName::Activity;

/// The first and last lines of the frames of [`sample`].
const FRAMES: [(usize, usize); 5] = [(1, 1), (2, 4), (5, 16), (17, 17), (18, 22)];

async fn exported(store: &Arc<dyn Store>, log: LogName) -> String {
    let mut export = Export::open(store, log, Selection::default()).await.unwrap();
    let mut text = String::new();
    while let Some(line) = export.next().await.unwrap() {
        text += &line;
        text += "\n";
    }
    text
}

async fn imported(text: &str, to: &Arc<dyn Store>) -> Result<Copied, ImportError> {
    import(text.as_bytes(), to, LOG, |_| {}, &CancellationToken::new()).await
}

fn shared(store: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(store.clone())
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// What both say of lines that are wrong. The target must not have become a log.
async fn refused(text: &str) -> (u64, String) {
    let verified = verify_export(text.as_bytes()).await.unwrap();
    assert!(!verified.ok);
    let memory = MemoryStore::new();
    match imported(text, &shared(&memory)).await {
        Err(ImportError::Line { line, why }) => {
            assert_eq!(verified.bad, Some((line, why.clone())));
            assert!(memory.get(&keys::head(LOG)).await.unwrap().is_none());
            (line, why)
        }
        other => panic!("{other:?}; {verified:?}"),
    }
}

/// C63: the same bytes, the same head hash, the same read model, of a log that a program has written.
#[tokio::test]
async fn what_was_exported_comes_back_as_the_same_log() {
    let world = World::new();
    let node: Node<ControlState> = world.open(|_| {}).await.unwrap();
    for number in 0..40_u8 {
        let client = ClientId::from_bytes([number; 16]);
        let (public_key, name) = (PublicKey([number; 32]), format!("client-{number}"));
        let issue = ControlCommand::IssueInvite {
            invite: InviteId::from_bytes([number; 16]),
            secret_hash: Digest32([number; 32]),
            expires_at: underpass_domain::Clock::now(&*world.clock).plus(Duration::from_mins(10)),
            label: (number % 2 == 0).then(|| "for \"ü\" \\".to_owned()),
        };
        let enrol = ControlCommand::EnrolClient {
            client,
            public_key,
            name,
            platform: "linux".into(),
            invite_hash: Some(Digest32([number; 32])),
            open_enrolment: false,
        };
        let block = ControlCommand::BlockClient { client, reason: "too loud at night".into() };
        node.execute(issue).await.unwrap();
        tokio::join!(async { node.execute(enrol).await.unwrap() }, async {
            let _ = node.execute(block).await;
        });
        world.clock.advance(Duration::from_millis(1234));
    }
    let view = node.log.view();
    let text = exported(&world.store, LogName::Control).await;
    node.stop().await;

    let target = World::new();
    let stop = CancellationToken::new();
    let mut end = None;
    let done = import(text.as_bytes(), &target.store, LogName::Control, |step| end = step.end, &stop).await;
    let done = done.unwrap();
    assert_eq!((done.head, done.target_hash), (view.position, view.hash));
    assert_eq!((done.source_hash, end), (view.hash, Some(view.position)));
    assert_eq!(Some(done.log_id), view.state.log_id());
    assert_eq!(target.frames().await.len() as u64, done.frames);
    for (ours, theirs) in target.frames().await.iter().zip(world.frames().await) {
        assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
    }
    let again = replay_stored::<ControlState>(&target.store, AsOf::Position(view.position)).await.unwrap();
    assert_eq!(again, *view);
    assert_eq!(exported(&target.store, LogName::Control).await, text);

    // C64: and what changed between two positions is the same in both.
    let then = |store: Arc<dyn Store>| async move {
        replay_stored::<ControlState>(&store, AsOf::Position(Position(30))).await.unwrap()
    };
    let (ours, theirs) = (then(Arc::clone(&target.store)).await, then(Arc::clone(&world.store)).await);
    let found = difference(&ours, &again, 1000);
    assert_eq!(found, difference(&theirs, &view, 1000));
    let entities = |state: &ControlState| state.clients().count() + state.invites().count();
    assert_eq!(found.added, entities(&view.state) - entities(&ours.state), "none were removed");
    assert!(found.added > 40 && found.removed == 0 && !found.more());

    let verified = verify_export(text.as_bytes()).await.unwrap();
    assert!(verified.ok && verified.bad.is_none());
    assert_eq!((verified.head, verified.hash), (view.position, view.hash));
    assert_eq!((verified.first, verified.previous), (Position(1), Digest32([0; 32])));
    assert_eq!((verified.log, verified.log_id), (Some(LogName::Control), view.state.log_id()));
    assert_eq!((verified.lines, verified.frames), (view.position.0, done.frames));
}

#[tokio::test]
async fn every_attribute_of_a_record_comes_back() {
    let raw = sample().await;
    let text = joined(&lines(&raw, Selection::default()).await);
    let target = MemoryStore::new();
    imported(&text, &shared(&target)).await.unwrap();
    assert_eq!(all(&target).await, all(&raw.store).await);
    // Whoever strips the last end of line has changed nothing; nor has who orders attributes otherwise.
    let other = MemoryStore::new();
    let sorted: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<std::collections::BTreeMap<String, Value>>(line).unwrap())
        .map(|line| serde_json::to_string_pretty(&line).unwrap().replace('\n', " "))
        .collect();
    imported(&sorted.join("\r\n"), &shared(&other)).await.unwrap();
    assert_eq!(all(&other).await, all(&raw.store).await);
    let state = replay_stored::<ActivityState>(&shared(&other), AsOf::Position(Position(22))).await.unwrap();
    assert_eq!((state.hash, state.state.log_id()), (raw.head.hash, Some(raw.id)));
}

/// What was exported once is read for good.
#[tokio::test]
async fn golden_lines_are_read() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/export/activity-v1.jsonl");
    let text = std::fs::read(path).unwrap();
    let verified = verify_export(&text[..]).await.unwrap();
    assert!(verified.ok, "{verified:?}");
    assert_eq!((verified.head, verified.hash), (Position(22), sample().await.head.hash));
}

/// C65: on each line, each attribute, changed and left out; both ways the line is named, or its frame.
#[tokio::test]
async fn any_edited_attribute_is_found_with_its_line() {
    let raw = sample().await;
    let whole = lines(&raw, Selection::default()).await;
    let edited = |value: &Value| match value {
        Value::String(text) => {
            let mut text: Vec<char> = text.chars().collect();
            let last = text.last_mut().unwrap();
            *last = if *last == '0' { '1' } else { '0' };
            Value::from(text.into_iter().collect::<String>())
        }
        Value::Number(number) => Value::from(number.as_u64().unwrap() ^ 1),
        Value::Object(fields) => {
            let mut fields = fields.clone();
            fields.insert("tunnels".into(), 7.into());
            Value::Object(fields)
        }
        other => panic!("{other}"),
    };
    let mut edits = 0;
    for (index, line) in whole.iter().enumerate() {
        let (first, last) = *FRAMES.iter().find(|(_, last)| *last > index).unwrap();
        let fields: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        for (name, value) in &fields {
            for change in [Some(edited(value)), None, Some(Value::Null), Some(Value::from("\u{0}"))] {
                let mut fields = fields.clone();
                match change {
                    Some(value) => fields.insert(name.clone(), value),
                    None => fields.remove(name),
                };
                let mut changed = whole.clone();
                changed[index] = Value::Object(fields).to_string();
                let (at, why) = refused(&joined(&changed)).await;
                let within = (first as u64..=last as u64).contains(&at);
                assert!(within, "line {}, {name}: named line {at}: {why}", index + 1);
                edits += 1;
            }
        }
        let mut more = fields.clone();
        more.insert("unheardof".into(), 1.into());
        let mut changed = whole.clone();
        changed[index] = Value::Object(more).to_string();
        assert_eq!(refused(&joined(&changed)).await.0, index as u64 + 1);
    }
    assert!(edits > 2000, "{edits}");
}

/// C65: any one bit, in the text of a frame.
#[tokio::test]
async fn any_flipped_bit_of_a_line_is_found() {
    let raw = sample().await;
    let text = joined(&lines(&raw, Selection { until: Some(Position(4)), ..Selection::default() }).await);
    let begins = text.find('\n').unwrap() + 1;
    for at in begins..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (at % 8);
        let verified = verify_export(&bytes[..]).await.unwrap();
        // The last end of line is nothing but that.
        let harmless = at + 1 == text.len() && bytes[at].is_ascii_whitespace();
        assert_eq!(verified.ok, harmless, "byte {at}: {verified:?}");
    }
}

/// An edit that is carried through everything that can be, by somebody who doesn't make the hashes anew.
#[tokio::test]
async fn an_edit_of_payload_and_data_alike_is_found_by_the_hash() {
    let raw = sample().await;
    let mut other = Raw::new(LOG, 1).await;
    other.usage(2).await;
    other.usage(1).await;
    let mut whole = lines(&raw, Selection::default()).await;
    let (mine, theirs) = (&whole[2], &lines(&other, Selection::default()).await[1]);
    let mut mine: Value = serde_json::from_str(mine).unwrap();
    let theirs: Value = serde_json::from_str(theirs).unwrap();
    assert_ne!(mine["payload"], theirs["payload"]);
    mine["payload"] = theirs["payload"].clone();
    let half = whole.clone();
    whole[2] = mine.to_string();
    let (line, why) = refused(&joined(&whole)).await;
    assert_eq!((line, why.as_str()), (3, "`data` is not what the payload holds"));
    mine["data"] = theirs["data"].clone();
    whole[2] = mine.to_string();
    let (line, why) = refused(&joined(&whole)).await;
    assert!(line == 2 && why.contains("positions 2 to 4 has another hash than it says"), "{line}: {why}");

    // A name twice: one reader would see the one, another the other.
    let mut twice = half;
    twice[2] = twice[2].replacen("\"bytes_in\":1000", "\"bytes_in\":0,\"bytes_in\":1000", 1);
    let (line, why) = refused(&joined(&twice)).await;
    assert!(line == 3 && why.contains("`bytes_in` stands there twice"), "{line}: {why}");
    twice[2] = twice[2].replacen("\"bytes_in\":0,", "", 1).replacen('{', "{\"actor\":\"operator\",", 1);
    let (line, why) = refused(&joined(&twice)).await;
    assert!(line == 3 && why.contains("duplicate field `actor`"), "{line}: {why}");
}

#[tokio::test]
async fn lines_missing_doubled_or_moved_are_found() {
    let raw = sample().await;
    let whole = lines(&raw, Selection::default()).await;
    for index in 0..whole.len() {
        let mut missing = whole.clone();
        missing.remove(index);
        if index + 1 < whole.len() {
            let verified = verify_export(joined(&missing).as_bytes()).await.unwrap();
            // Without the first line, the rest is a part of the log, and sound.
            assert_eq!(verified.bad.as_ref().map(|(line, _)| *line), (index > 0).then_some(index as u64 + 1));
            assert!(imported(&joined(&missing), &shared(&MemoryStore::new())).await.is_err());
        }

        let mut doubled = whole.clone();
        doubled.insert(index, whole[index].clone());
        let (line, why) = refused(&joined(&doubled)).await;
        assert!(line == index as u64 + 2 && why.contains("doubled"), "{line}: {why}");

        let mut empty = whole.clone();
        empty.insert(index, String::new());
        assert_eq!(refused(&joined(&empty)).await, (index as u64 + 1, "the line is empty".to_owned()));
        if index > 0 {
            let mut swapped = whole.clone();
            swapped.swap(index - 1, index);
            let text = joined(&swapped);
            assert!(!verify_export(text.as_bytes()).await.unwrap().ok);
            assert!(imported(&text, &shared(&MemoryStore::new())).await.is_err());
        }
    }
    let (line, why) = refused("").await;
    assert_eq!((line, why.as_str()), (1, "there is no line"));
}

/// At each line, and at each byte of the last: either the frame is short, or the line is no JSON.
#[tokio::test]
async fn a_file_that_breaks_off_within_a_frame_is_found() {
    let raw = sample().await;
    let whole = lines(&raw, Selection::default()).await;
    for count in 1..whole.len() {
        let text = joined(&whole[..count]);
        let frame = FRAMES.iter().find(|(_, last)| *last >= count).unwrap();
        if frame.1 == count {
            let verified = verify_export(text.as_bytes()).await.unwrap();
            assert!(verified.ok && verified.head.0 == count as u64, "whole frames; the head is told");
        } else {
            let (line, why) = refused(&text).await;
            assert!(line == count as u64 && why.contains("the lines end too early"), "{line}: {why}");
        }
    }
    let text = whole.join("\n");
    let last = text.len() - whole[21].len();
    for end in last + 1..text.len() {
        let (line, why) = refused(&text[..end]).await;
        assert!(line == 22 && why.contains("perhaps it was cut off"), "{line}: {why}");
    }
}

#[tokio::test]
async fn something_else_than_an_export_is_refused_at_its_first_line() {
    let raw = sample().await;
    let mut whole = lines(&raw, Selection::default()).await;
    for wrong in ["{}", "[]", "null", "log", "\u{feff}{}", "{\"specversion\":\"1.0\"}"] {
        assert_eq!(refused(wrong).await.0, 1, "{wrong}");
    }
    whole[4] = whole[4].replace("\"exportversion\":1", "\"exportversion\":2");
    let (line, why) = refused(&joined(&whole)).await;
    assert!(line == 5 && why.contains("version 2 of the export"), "{line}: {why}");
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX));
    let (line, why) = refused(&long).await;
    assert!(line == 1 && why.contains("longer than"), "{line}: {why}");

    let text = joined(&lines(&raw, Selection::default()).await);
    let stop = CancellationToken::new();
    let store = shared(&MemoryStore::new());
    let other = import(text.as_bytes(), &store, LogName::Control, |_| {}, &stop).await.unwrap_err();
    assert_eq!(other.code(), "import.other_log", "{other}");
}

/// Two logs in one file, or a log whose events were moved into another.
#[tokio::test]
async fn lines_of_another_log_are_found() {
    let (raw, mut other) = (sample().await, Raw::new(LOG, 2).await);
    other.usage(3).await;
    let mut whole = lines(&raw, Selection::default()).await;
    let theirs = lines(&other, Selection::default()).await;
    whole.splice(1..4, theirs[1..4].iter().cloned());
    let (line, why) = refused(&joined(&whole)).await;
    assert!(line == 2 && why.contains("another log"), "{line}: {why}");
    let renamed = joined(&lines(&raw, Selection::default()).await)
        .replace(&raw.id.to_string(), &other.id.to_string())
        .replacen(&format!("\"log\":\"{}\"", other.id), &format!("\"log\":\"{}\"", raw.id), 1);
    let (line, why) = refused(&renamed).await;
    assert!(line == 1 && why.contains("id"), "{line}: {why}");
}

/// A third person can be given a part.
#[tokio::test]
async fn a_part_of_a_log_is_verified_by_itself() {
    let raw = sample().await;
    for after in 0..22 {
        for until in after + 1..=22 {
            let mut selection =
                Selection { after: Position(after), until: Some(Position(until)), whole_frames: true };
            let text = joined(&lines(&raw, selection).await);
            let verified = verify_export(text.as_bytes()).await.unwrap();
            assert!(verified.ok && verified.head.0 >= until && verified.first.0 <= after + 1);
            let begins = FRAMES.iter().any(|(first, _)| *first as u64 == after + 1);
            let ends = FRAMES.iter().any(|(_, last)| *last as u64 == until);
            selection.whole_frames = false;
            let text = joined(&lines(&raw, selection).await);
            assert_eq!(verify_export(text.as_bytes()).await.unwrap().ok, begins && ends, "{after}..{until}");
            if after > 0 && begins {
                let error = imported(&text, &shared(&MemoryStore::new())).await.unwrap_err();
                assert!(matches!(error, ImportError::Line { line: 1, .. }), "{error}");
            }
        }
    }
}

/// C63: as for copies.
#[tokio::test(start_paused = true)]
async fn an_import_killed_at_any_commit_goes_on_to_the_same_head() {
    let mut raw = Raw::new(LOG, 1).await;
    for _ in 0..300 {
        raw.usage(2).await;
    }
    let text = joined(&lines(&raw, Selection::default()).await);
    for at in 0..3 {
        for how in [Killed::Before, Killed::After, Killed::Unavailable, Killed::UnknownDone] {
            let memory = MemoryStore::new();
            let target = failing(&memory, at, how);
            let killed = tokio::time::timeout(Duration::from_mins(5), imported(&text, &target)).await;
            assert!(!matches!(killed, Ok(Ok(_))), "{killed:?}");
            let memory = shared(&memory);
            let commits = at + usize::from(matches!(how, Killed::After | Killed::UnknownDone));
            match verify(&memory, LOG).await {
                Err(LogError::Absent { .. }) => assert_eq!(commits, 0),
                Err(LogError::HalfCopied { .. }) => assert!((1..3).contains(&commits)),
                other => assert!(other.unwrap().ok && commits == 3),
            }
            let again = imported(&text, &memory).await.unwrap();
            assert_eq!((again.target_hash, again.written), (raw.head.hash, commits < 3));
            assert_eq!(all(&memory).await, all(&raw.store).await);
        }
    }
}

/// What was written before the bad line counts for nothing, and is gone on from once the lines are mended.
#[tokio::test]
async fn a_refusal_leaves_half_a_copy_that_the_right_lines_complete() {
    let mut raw = Raw::new(LOG, 1).await;
    for _ in 0..300 {
        raw.usage(2).await;
    }
    let mut whole = lines(&raw, Selection::default()).await;
    let good = joined(&whole);
    whole[590] = whole[590].replace("\"tunnels\":1", "\"tunnels\":2");
    let memory = shared(&MemoryStore::new());
    let error = imported(&joined(&whole), &memory).await.unwrap_err();
    assert!(matches!(error, ImportError::Line { line: 591, .. }), "{error}");
    assert!(matches!(verify(&memory, LOG).await, Err(LogError::HalfCopied { .. })));
    let again = imported(&good, &memory).await.unwrap();
    assert!(again.resumed_after > Position(200) && again.target_hash == raw.head.hash);
    let stop = CancellationToken::new();
    stop.cancel();
    let fresh = shared(&MemoryStore::new());
    let stopped = import(good.as_bytes(), &fresh, LOG, |_| {}, &stop).await;
    assert!(matches!(stopped, Err(ImportError::Target(CopyError::Stopped { .. }))));
    let other = Raw::new(LOG, 9).await;
    let error = imported(&good, &other.store()).await.unwrap_err();
    assert_eq!(error.code(), "copy.other_log");
}

/// The server runs them as tasks.
#[test]
fn long_work_can_be_given_to_a_task() {
    fn sendable(_: impl Send) {}
    let (store, stop) = (shared(&MemoryStore::new()), CancellationToken::new());
    let key = CheckpointPublicKey([0; 32]);
    sendable(copy(&store, &store, LOG, |_| {}, &stop));
    sendable(import(&b""[..], &store, LOG, |_| {}, &stop));
    sendable(verify_export(&b""[..]));
    sendable(verify_with(&store, LOG, &[], &key));
    sendable(Export::open(&store, LOG, Selection::default()));
    sendable(CheckpointBook::read(&b""[..]));
}
