//! C63: a migration and an import that are killed in the middle are run again, and come to the same log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_store::{Entry, Key, KvStore};
use underpass_store_etcd::testkit::EtcdServer;
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tests::logs::{of, read_models};
use underpass_tests::{Process, SOON, Server, Store, run, torture};

/// Threads that make changes, and how many each of them makes twice over.
const THREADS: usize = 2;
const PAIRS: u32 = 300;

/// How often a migration is killed, at different points.
const KILLS: u64 = 4;

/// A stopped server with a log that takes many commits to copy.
fn long_log() -> Server {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    let api = server.api();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..PAIRS {
                    let made = api.post("/v1/invites", &json!({ "label": "one of many" }));
                    let path = format!("/v1/invites/{}", made["id"].as_str().unwrap());
                    assert!(api.send(Method::DELETE, &path, None).status().is_success());
                }
            });
        }
    });
    assert_eq!(server.process.end(), 0);
    server
}

/// All entries of a store that no process uses.
fn entries(data: &Path) -> Vec<(Key, Vec<u8>)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = RocksStore::open(&data.join("store"), RocksOptions::default()).unwrap();
        let all = store.scan(&Key::from(""), &Key::from(vec![0xff; 8]), 1_000_000).await.unwrap();
        store.close().await;
        all.into_iter().map(|Entry { key, value, .. }| (key, value.to_vec())).collect()
    })
}

/// Runs a migration until `written` of the control log are there, and kills it; whether it was still running.
fn killed(from: &str, to: &str, written: u64) -> bool {
    let mut process = Process::start(&["store", "migrate", "--from", from, "--to", to]);
    while let Some(line) = process.event_within("progress", SOON) {
        if line["log"] == "activity" || line["written"].as_u64() >= Some(written) {
            break;
        }
    }
    let running = process.runs();
    process.kill();
    running
}

/// Kills migrations at several points, each into the same target, then lets one end.
fn resumes(server: &mut Server, to: &str, is_refused: &mut dyn FnMut(&Server)) {
    let from = format!("rocksdb:{}", server.data_text());
    let checked = run(&["store", "check", &from]);
    let before = entries(&server.data());
    let head = of(&checked, "control")["head"].as_u64().unwrap();
    let kills = KILLS * u64::from(torture());
    let mut halves = 0;
    for kill in 0..kills {
        let running = killed(&from, to, 1 + head * kill / kills);
        let check = run(&["store", "check", to]);
        if !running || check.code == 0 {
            continue;
        }
        if check.error["code"] == "log.half_copied" {
            halves += 1;
            is_refused(server);
        }
    }
    assert!(halves > 0, "no migration was killed in the middle");
    let again = run(&["store", "migrate", "--from", &from, "--to", to]);
    assert!(of(&again, "control")["resumed_after"].as_u64() > Some(0), "{again:?}");
    for log in ["control", "activity"] {
        assert_eq!(of(&again, log)["hash"], of(&checked, log)["hash"]);
        assert_eq!(of(&again, log)["read_models_equal"], true);
    }
    let progress: Vec<&Value> = again.lines.iter().filter(|line| line["event"] == "progress").collect();
    let last = progress.iter().rfind(|line| line["log"] == "control").unwrap();
    assert_eq!((last["checked"].as_u64(), last["end"].as_u64()), (Some(head), Some(head)), "{last}");
    let there = run(&["store", "check", to]);
    assert_eq!(of(&there, "control")["hash"], of(&checked, "control")["hash"]);
    assert!(before == entries(&server.data()), "the source is as it was, entry for entry");
}

#[test]
fn c63_a_migration_into_rocksdb_goes_on_after_kills() {
    let mut server = long_log();
    let target = server.data().with_file_name("target");
    let to = format!("rocksdb:{}", target.display());
    let secrets = ["link.key", "admin.key"];
    let source = server.data();
    let serve =
        ["serve", "--data", &target.display().to_string(), "--listen", "127.0.0.1:0"].map(str::to_owned);
    resumes(&mut server, &to, &mut |_| {
        for name in secrets {
            fs::copy(source.join(name), target.join(name)).unwrap();
        }
        let arguments: Vec<&str> = serve.iter().map(String::as_str).collect();
        run(&[&arguments[..], &["--api", "127.0.0.1:0"]].concat()).failed(1, "log.half_copied");
        run(&["invite", "--data", arguments[2]]).failed(1, "log.half_copied");
    });
    assert_eq!(read_models(&target), read_models(&server.data()));
}

#[test]
fn c63_a_migration_into_etcd_goes_on_after_kills() {
    let mut server = long_log();
    let models = read_models(&server.data());
    let etcd = EtcdServer::start();
    let to = format!("etcd://{}/moved", etcd.endpoint().trim_start_matches("http://"));
    let settings = [
        ("UNDERPASS__STORE__ETCD__ENDPOINTS".to_owned(), etcd.endpoint()),
        ("UNDERPASS__STORE__ETCD__PREFIX".to_owned(), "moved".to_owned()),
    ];
    server.configure(Store::Etcd, &settings);
    resumes(&mut server, &to, &mut |server| server.start_fails("log.half_copied"));
    server.restart();
    assert_eq!(server.ready["store"], "etcd");
    assert_eq!(server.process.end(), 0);
    let now = read_models(&server.data());
    assert_eq!(now[0]["mappings"], models[0]["mappings"]);
}

/// Between the two logs: one is whole, of the other nothing is there.
#[test]
fn c63_one_log_of_two_is_no_installation() {
    let mut server = Server::start(Store::RocksDb);
    assert_eq!(server.process.end(), 0);
    let target = server.data().with_file_name("target");
    let (from, to) = (format!("rocksdb:{}", server.data_text()), format!("rocksdb:{}", target.display()));
    of(&run(&["store", "migrate", "--from", &from, "--to", &to]), "activity");
    // What a kill between the two leaves.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = RocksStore::open(&target.join("store"), RocksOptions::default()).unwrap();
        let all = store.scan(&Key::from(""), &Key::from(vec![0xff; 8]), 1_000_000).await.unwrap();
        for Entry { key, .. } in all.iter().filter(|entry| entry.key.as_ref().starts_with(b"log/activity/")) {
            store.delete(key).await.unwrap();
        }
        store.put(&Key::from("installation/moving"), "1".into()).await.unwrap();
        store.close().await;
    });
    for name in ["link.key", "admin.key"] {
        fs::copy(server.data().join(name), target.join(name)).unwrap();
    }
    let data = target.display().to_string();
    let serve = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    run(&serve).failed(1, "log.half_copied");
    run(&["invite", "--data", &data]).failed(1, "log.half_copied");
    let again = run(&["store", "migrate", "--from", &from, "--to", &to]);
    assert_eq!(
        (&of(&again, "control")["written"], &of(&again, "activity")["written"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(read_models(&target), read_models(&server.data()));
}

/// The lines come through a pipe, which holds back the second half until the import is killed.
#[test]
fn c63_an_import_goes_on_after_a_kill() {
    let server = long_log();
    let folder = server.data().parent().unwrap().to_owned();
    let file = folder.join("control.jsonl").display().to_string();
    run(&["log", "export", "--data", &server.data_text(), "--out", &file]).last();
    let text = fs::read_to_string(&file).unwrap();
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let target = folder.join("target");
    let place = format!("rocksdb:{}", target.display());
    let mut process = Process::start(&["log", "import", &pipe.display().to_string(), "--to", &place]);
    let mut feed = OpenOptions::new().write(true).open(&pipe).unwrap();
    let half = text[..text.len() * 2 / 3].rfind('\n').unwrap();
    feed.write_all(&text.as_bytes()[..=half]).unwrap();
    let written = loop {
        let line = process.event_within("progress", SOON).expect("it gets on");
        assert!(line["end"].is_null(), "the lines go on: {line}");
        if let Some(written @ 1..) = line["written"].as_u64() {
            break written;
        }
    };
    process.kill();
    drop(feed);
    run(&["store", "check", &place]).failed(1, "log.half_copied");

    let imported = run(&["log", "import", &file, "--to", &place]);
    assert!(imported.last()["resumed_after"].as_u64() >= Some(written), "{imported:?}");
    let verified = run(&["log", "verify", "--data", &server.data_text()]);
    for key in ["head", "hash"] {
        assert_eq!(imported.last()[key], verified.last()[key], "{key}");
    }
}
