//! What the program says of a log that is damaged, or newer than it is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use underpass_domain::LogName;
use underpass_eventlog::frame::{CommitId, Frame, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::keys;
use underpass_store::{Entry, Key, KvStore};
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tests::{Done, Server, Store, run};

/// Works on the store of a data folder that no server uses.
async fn with_store<T>(data: &Path, work: impl AsyncFnOnce(&RocksStore) -> T) -> T {
    let store = RocksStore::open(&data.join("store"), RocksOptions::default()).unwrap();
    let done = work(&store).await;
    store.close().await;
    done
}

async fn frames(store: &RocksStore) -> Vec<Entry> {
    let from = keys::frame(LogName::Control, underpass_domain::Position(0));
    store.scan(&from, &keys::frames_end(LogName::Control), 1000).await.unwrap()
}

async fn put(data: &Path, key: &Key, value: Vec<u8>) {
    with_store(data, async |store| store.put(key, value.into()).await.unwrap()).await;
}

fn verify(data: &Path) -> Done {
    run(&["log", "verify", "--data", &data.display().to_string()])
}

/// C65: as a person sees it.
#[tokio::test]
async fn c65_log_verify_says_where_the_damage_is_and_fails() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    assert_eq!(server.process.end(), 0);
    let data = server.data();
    let good = verify(&data);
    assert_eq!((good.code, &good.last()["ok"]), (0, &serde_json::json!(true)), "{good:?}");

    let frames = with_store(&data, frames).await;
    let at = frames.len() / 2;
    let position =
        |entry: &Entry| keys::frame_position(LogName::Control, entry.key.as_ref()).expect("a frame's key").0;
    let (first, behind) = (position(&frames[at]), position(&frames[at + 1]));
    let size = frames[at].value.len();
    for byte in [0, size / 3, size - 1] {
        let mut damaged = frames[at].value.to_vec();
        damaged[byte] ^= 1;
        put(&data, &frames[at].key, damaged).await;
        let bad = verify(&data);
        let line = bad.lines.last().expect("a last line");
        assert_eq!((bad.code, &line["ok"]), (1, &serde_json::json!(false)), "{bad:?}");
        assert_eq!(line["log"], "control", "{line}");
        let said = line["position"].as_u64().unwrap_or_else(|| panic!("no position in {line}"));
        assert!((first..behind).contains(&said), "byte {byte} of the frame at {first}: said {said}");
        bad.failed(1, "log.bad");
    }
    put(&data, &frames[at].key, frames[at].value.to_vec()).await;
    assert_eq!(verify(&data).last(), good.last(), "put back, all is well");
    server.restart();
}

/// A log that a newer release has written to stops this one: it does not skip what it does not know.
#[tokio::test]
async fn an_event_of_a_newer_release_stops_the_program_and_says_what_to_do() {
    let mut server = Server::start(Store::RocksDb);
    assert_eq!(server.process.end(), 0);
    let data = server.data();
    let (frame_key, head) = with_store(&data, async |store| {
        let head_key = keys::head(LogName::Control);
        let head = Head::decode(&store.get(&head_key).await.unwrap().unwrap().value).unwrap();
        let last = Frame::decode(&frames(store).await.last().unwrap().value).unwrap();
        let header = FrameHeader {
            first: head.position.next(),
            commit: CommitId([7; 16]),
            previous: head.hash,
            ..last.header
        };
        let mut record = last.records.last().unwrap().clone();
        (record.kind, record.stream_version) = (9999, record.stream_version + 1);
        let mut newer = FrameBuilder::new(&header);
        newer.push(&record);
        let (bytes, hash) = newer.finish().unwrap();
        let frame_key = keys::frame(LogName::Control, header.first);
        store.put(&frame_key, bytes).await.unwrap();
        let newer = Head { position: header.first, first: header.first, commit: header.commit, hash, ..head };
        store.put(&head_key, newer.encode()).await.unwrap();
        (frame_key, head)
    })
    .await;

    let text = data.display().to_string();
    let serve = ["serve", "--data", &text, "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    for arguments in [&serve[..], &["log", "tail", "--data", &text], &["invite", "--data", &text]] {
        let done = run(arguments);
        done.failed(1, "log.newer");
        let (message, hint) = (done.error["message"].to_string(), done.error["hint"].to_string());
        assert!(message.contains("9999") && message.contains("newer"), "{message}");
        assert!(hint.contains("release"), "{hint}");
    }

    // Nothing was skipped and nothing was written: without that event the log is what it was.
    with_store(&data, async |store| {
        store.delete(&frame_key).await.unwrap();
        store.put(&keys::head(LogName::Control), head.encode()).await.unwrap();
    })
    .await;
    let line = verify(&data);
    assert_eq!(line.last()["head"].as_u64(), Some(head.position.0), "{line:?}");
    server.restart();
}
