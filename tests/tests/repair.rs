//! A damaged log is cut back to what is good, by a person's command.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use underpass_domain::{LogName, Position};
use underpass_eventlog::keys;
use underpass_store::KvStore;
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Done, Server, Store, run};

/// Flips a bit in the frame in the middle of the second half of the control log; gives its position.
async fn damage(data: &Path) -> u64 {
    let store = RocksStore::open(&data.join("store"), RocksOptions::default()).unwrap();
    let (from, to) = (keys::frame(LogName::Control, Position(0)), keys::frames_end(LogName::Control));
    let frames = store.scan(&from, &to, 1000).await.unwrap();
    let frame = &frames[frames.len() - 3];
    let mut bytes = frame.value.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    store.put(&frame.key, bytes.into()).await.unwrap();
    // A snapshot behind the damage would let a server start without seeing it.
    let manifests = keys::manifest(LogName::Control, Position(0));
    for entry in store.scan(&manifests, &keys::manifests_end(LogName::Control), 9).await.unwrap() {
        store.delete(&entry.key).await.unwrap();
    }
    store.close().await;
    keys::frame_position(LogName::Control, frame.key.as_ref()).unwrap().0
}

fn repair(data: &str, more: &[&str]) -> Done {
    run(&[&["log", "repair", "--data", data], more].concat())
}

#[test]
fn a_damaged_log_is_repaired_when_somebody_says_so() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    // Something to lose: what comes last.
    for _ in 0..4 {
        server.invite();
    }
    assert_eq!(server.process.end(), 0);
    let (data, text) = (server.data(), server.data_text());
    assert_eq!(repair(&text, &[]).lines.iter().filter(|line| line["event"] == "good").count(), 2);

    let bad = tokio::runtime::Runtime::new().unwrap().block_on(damage(&data));
    run(&["log", "verify", "--data", &text]).failed(1, "log.bad");
    server.start_fails("log.bad");
    let looked = repair(&text, &[]);
    looked.failed(3, "repair.unconfirmed");
    let plan = looked.lines.iter().find(|line| line["event"] == "damaged").unwrap();
    assert_eq!((&plan["log"], plan["stays"].as_u64()), (&"control".into(), Some(bad - 1)), "{plan}");
    run(&["log", "verify", "--data", &text]).failed(1, "log.bad");
    assert!(!data.join("repair").exists(), "nothing was touched");

    let done = repair(&text, &["--yes"]);
    let done = done.lines.iter().find(|line| line["event"] == "repaired").unwrap();
    assert_eq!((done["head"].as_u64(), done["epoch"].as_u64()), (Some(bad), Some(2)), "{done}");
    let kept = Path::new(done["kept"].as_str().unwrap());
    assert!(std::fs::read_dir(kept).unwrap().count() > 1, "what was cut off is there");
    let good = run(&["log", "verify", "--data", &text]);
    assert_eq!((good.code, good.last()["head"].as_u64()), (0, Some(bad)), "{good:?}");
    assert_eq!(repair(&text, &["--yes"]).lines.iter().filter(|line| line["event"] == "good").count(), 2);

    // The newest checkpoint speaks of what was cut off; told so, the server goes on, and so do its clients.
    server.start_fails("checkpoints.disagree");
    server.restart_with(&["--new-checkpoints"]);
    let (mut exposing, same) = laptop.expose(&[&target, "--name", "web"]);
    assert_eq!(same, public, "the mapping was before the damage");
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    let events = server.api().get("/v1/events?types=log.repaired");
    assert_eq!(events["items"].as_array().unwrap().len(), 1, "{events}");
    assert_eq!(events["items"][0]["actor"], "operator");
    server.verified();
}
