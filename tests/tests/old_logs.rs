//! Logs of older releases are read by this one, and those of newer ones stop it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::Value;
use underpass_domain::{Actor, CommandId, Entity, LogName, Position, SessionId, StreamId};
use underpass_eventlog::frame::{CommitId, Frame, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::keys;
use underpass_eventlog::record::Record;
use underpass_store::{CasStore, Commit, Guard, KvStore, Outcome};
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tests::{Server, Store, run};

const LOG: LogName = LogName::Activity;
/// `session.opened`.
const KIND: u16 = 100;

/// A payload as the release that knew only this version wrote it.
fn shipped(version: u16, file: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read(root.join(format!("fixtures/events/session.opened/v{version}/{file}"))).unwrap()
}

/// The session of a payload: its first 16 bytes, whatever the version.
fn session(payload: &[u8]) -> SessionId {
    SessionId::from_bytes(payload[..16].try_into().unwrap())
}

/// Appends one event to the activity log of a stopped server, as whoever wrote `version` did.
fn append(data: &Path, version: u16, payload: Vec<u8>) -> Position {
    tokio::runtime::Runtime::new().unwrap().block_on(appended(data, version, payload))
}

async fn appended(data: &Path, version: u16, payload: Vec<u8>) -> Position {
    let store = RocksStore::open(&data.join("store"), RocksOptions::default()).unwrap();
    let entry = store.get(&keys::head(LOG)).await.unwrap().unwrap();
    let head = Head::decode(&entry.value).unwrap();
    let last = store.get(&keys::frame(LOG, head.first)).await.unwrap().unwrap();
    let last = Frame::decode(&last.value).unwrap();
    let (first, commit) = (head.position.next(), CommitId([0x0d; 16]));
    let mut frame = FrameBuilder::new(&FrameHeader { first, commit, previous: head.hash, ..last.header });
    frame.push(&Record {
        kind: KIND,
        version,
        stream: StreamId { entity: Entity::Session, id: *session(&payload).as_bytes() },
        stream_version: 1,
        command: CommandId(commit.0),
        actor: Actor::System,
        source: None,
        causation: None,
        correlation: None,
        asked: None,
        payload: payload.into(),
    });
    let (frame, hash) = frame.finish().unwrap();
    let next = Head { position: first, first, commit, hash, ..head };
    let commit = Commit::new()
        .guard(keys::head(LOG), Guard::At(entry.revision))
        .put(keys::frame(LOG, first), frame)
        .put(keys::head(LOG), next.encode());
    assert!(matches!(store.commit(commit).await.unwrap(), Outcome::Committed(_)));
    store.close().await;
    first
}

/// C66, with a kind that really has two versions: the log holds both, and the read model is of one shape.
#[test]
fn c66_a_log_with_events_of_the_first_version_is_served_by_this_release() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop").expose(&["127.0.0.1:9"]);
    assert_eq!(server.process.end(), 0);
    let data = server.data();
    let old = shipped(1, "unicode.bin");
    let position = append(&data, 1, old.clone());
    server.restart();

    let api = server.api();
    let there = api.get(&format!("/v1/sessions/{}", session(&old)));
    assert_eq!(there["transport"], "Grüße, 世界 🦀 \"\\ \u{202e}", "{there}");
    assert!(there.get("release").is_none(), "a session of the first version says nothing of it: {there}");

    let all = api.get("/v1/sessions");
    let linked = all["items"].as_array().unwrap().iter().find(|item| item["id"] != there["id"]);
    assert_eq!(linked.unwrap()["release"], env!("CARGO_PKG_VERSION"), "{all}");

    let events = api.get(&format!("/v1/events?log=activity&after={}&limit=1", position.0 - 1));
    let event = &events["items"][0];
    assert_eq!(event["position"], format!("activity:{position}"), "{event}");

    let text = data.display().to_string();
    assert_eq!(server.process.end(), 0);
    let verified = run(&["log", "verify", "--log", "activity", "--data", &text]);
    assert_eq!((verified.code, &verified.last()["ok"]), (0, &Value::Bool(true)), "{verified:?}");
}

/// The other way round: a version that is newer than the program is not guessed at.
#[test]
fn a_version_of_a_newer_release_stops_the_program_and_says_what_to_do() {
    let mut server = Server::start(Store::RocksDb);
    assert_eq!(server.process.end(), 0);
    let data = server.data();
    let mut newer = shipped(2, "unicode.bin");
    newer.push(0);
    append(&data, 3, newer);

    let text = data.display().to_string();
    let done = run(&["serve", "--data", &text, "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    done.failed(1, "log.newer");
    let (message, hint) = (done.error["message"].to_string(), done.error["hint"].to_string());
    assert!(message.contains("event kind 100 version 3 is newer than this program"), "{message}");
    assert!(hint.contains("release"), "{hint}");
}
