//! A folder that no server uses: what `log verify` says of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(feature = "rocksdb")]

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use underpass_domain::{LogName, Position};
use underpass_server::config::{Loaded, Sources};
use underpass_server::{Node, Offline, Stopped, SystemClock, SystemRandom};
use underpass_store::{Entry, Key, KvStore};
use underpass_store_rocksdb::{RocksOptions, RocksStore};

/// A node that starts on the folder, writes what it writes at its start, and stops.
async fn run_once(data: &Path) {
    let flags = vec![
        ("server.listen", "127.0.0.1:0".to_owned()),
        ("api.listen", "127.0.0.1:0".to_owned()),
        ("server.data", data.display().to_string()),
    ];
    let sources = Sources { flags, ..Sources::default() };
    let config = Loaded::load(&sources).unwrap().config;
    let node = Node::start(&config, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(node.run(stop).await, Stopped::Clean);
}

fn open(data: &Path) -> RocksStore {
    RocksStore::open(&data.join("store"), RocksOptions::default()).unwrap()
}

/// The frames of the control log, in order.
async fn frames(data: &Path) -> Vec<Entry> {
    let store = open(data);
    let (from, to) = (Key::from("log/control/e/".to_owned()), Key::from("log/control/e0".to_owned()));
    let frames = store.scan(&from, &to, 1000).await.unwrap();
    store.close().await;
    frames
}

/// A frame's key ends with its first position.
fn first_position(frame: &Entry) -> u64 {
    let key: &[u8] = frame.key.as_ref();
    u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap())
}

async fn put(data: &Path, key: &Key, value: Vec<u8>) {
    let store = open(data);
    store.put(key, value.into()).await.unwrap();
    store.close().await;
}

async fn bad_position(data: &Path) -> Option<u64> {
    let verified = Offline::verify(data, LogName::Control).await.unwrap();
    assert_eq!(verified.ok, verified.bad.is_none());
    verified.bad.map(|(position, why)| {
        assert!(!why.is_empty());
        position.0
    })
}

/// C65
#[tokio::test]
async fn c65_verify_names_the_first_position_that_is_damaged() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    run_once(&data).await;
    run_once(&data).await;
    let good = Offline::verify(&data, LogName::Control).await.unwrap();
    assert!(good.ok && good.bad.is_none());
    let frames = frames(&data).await;
    assert!(frames.len() > 3, "{} frames", frames.len());

    for (nth, frame) in frames.iter().enumerate() {
        let first = first_position(frame);
        let behind = frames.get(nth + 1).map_or(good.head.0 + 1, first_position);
        let size = frame.value.len();
        // The header, the middle and the very last byte.
        for at in [0, size / 2, size - 1] {
            let mut damaged = frame.value.to_vec();
            damaged[at] ^= 0x10;
            put(&data, &frame.key, damaged).await;
            let bad = bad_position(&data).await.expect("a flipped bit is found");
            assert!((first..behind).contains(&bad), "byte {at} of frame {first}: said {bad}");
        }
        put(&data, &frame.key, frame.value.to_vec()).await;
    }

    // A frame that is gone, and one that was exchanged for another one that is whole.
    let middle = &frames[frames.len() / 2];
    let store = open(&data);
    store.delete(&middle.key).await.unwrap();
    store.close().await;
    assert_eq!(bad_position(&data).await, Some(first_position(middle)));
    put(&data, &middle.key, frames[0].value.to_vec()).await;
    assert_eq!(bad_position(&data).await, Some(first_position(middle)));

    put(&data, &middle.key, middle.value.to_vec()).await;
    let again = Offline::verify(&data, LogName::Control).await.unwrap();
    assert_eq!((again.ok, again.head, again.hash), (true, good.head, good.hash));
    assert!(good.head > Position(0));
    // And a server starts on it.
    run_once(&data).await;
}
