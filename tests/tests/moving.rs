//! Logs on the move: between stores, into files and out of them. The whole of it by the command line.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use underpass_store_etcd::testkit::EtcdServer;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::logs::{of, read_models};
use underpass_tests::{Server, Store, run};

/// C63: RocksDB to etcd to RocksDB. What was there is there, and a server takes it up by configuration alone.
#[test]
fn c63_a_log_moves_between_stores_with_equal_hashes_and_read_models() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let target = echo();
    let (mut exposing, public) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    let here = format!("rocksdb:{}", server.data_text());
    run(&["store", "check", &here]).failed(1, "data.in_use");
    assert_eq!(server.process.end(), 0);
    let before = read_models(&server.data());
    let checked = run(&["store", "check", &here]);
    assert_eq!(of(&checked, "control")["ok"], true);

    let etcd = EtcdServer::start();
    let there = format!("etcd://{}/moved", etcd.endpoint().trim_start_matches("http://"));
    let moved = run(&["store", "migrate", "--from", &here, "--to", &there]);
    for log in ["control", "activity"] {
        assert_eq!(of(&moved, log)["hash"], of(&checked, log)["hash"]);
        assert_eq!(of(&moved, log)["read_models_equal"], true);
        assert_eq!(of(&moved, log)["written"], true);
    }
    assert_eq!(
        of(&run(&["store", "check", &here]), "control"),
        of(&checked, "control"),
        "the source is as it was"
    );
    let again = run(&["store", "migrate", "--from", &here, "--to", &there]);
    assert_eq!(of(&again, "control")["written"], false, "what is there is not written again");

    // Another prefix is another store: the folder knows that its log is not there.
    let settings = |prefix: &str| {
        [("store.etcd.endpoints", etcd.endpoint()), ("store.etcd.prefix", prefix.to_owned())]
            .map(|(key, value)| (format!("UNDERPASS__{}", key.replace('.', "__").to_uppercase()), value))
    };
    server.configure(Store::Etcd, &settings("empty"));
    server.start_fails("store.other_log");
    server.configure(Store::Etcd, &settings("moved"));
    server.restart();
    assert_eq!(server.ready["store"], "etcd");
    let (mut exposing, same) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    assert_eq!(same, public, "same client, same name, same port");
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    assert_eq!(server.process.end(), 0);
    // Without a server, verbs find the log where the folder says that it is.
    let on_etcd = run(&["log", "verify", "--data", &server.data_text()]);
    assert!(on_etcd.last()["head"].as_u64() > of(&checked, "control")["head"].as_u64(), "{on_etcd:?}");

    // And back, into a folder of its own.
    let parent = tempfile::tempdir().unwrap();
    let back = parent.path().join("back");
    let moved = run(&["store", "migrate", "--from", &there, "--to", &format!("rocksdb:{}", back.display())]);
    assert_eq!(of(&moved, "control")["hash"], on_etcd.last()["hash"]);
    fs::copy(server.data().join("link.key"), back.join("link.key")).unwrap();
    let models = read_models(&back);
    assert_eq!(models, read_models(&server.data()), "as etcd has it");
    assert_eq!(models[0]["mappings"], before[0]["mappings"], "nothing was lost on the way");
}

#[test]
fn c63_a_log_goes_into_lines_and_comes_out_of_them_as_the_same_log() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    let folder = server.data().parent().unwrap().to_owned();
    let file = |name: &str| folder.join(name).display().to_string();
    let data = server.data_text();
    // From a running server, and without one.
    let exported = run(&["log", "export", "--data", &data, "--out", &file("running.jsonl")]);
    assert_eq!(exported.last()["event"], "exported");
    assert_eq!(fs::metadata(file("running.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(server.process.end(), 0);
    for log in ["control", "activity"] {
        run(&["log", "export", "--data", &data, "--log-name", log, "--out", &file(log)]).last();
    }
    let lines = fs::read_to_string(file("control")).unwrap();
    assert!(lines.starts_with(&fs::read_to_string(file("running.jsonl")).unwrap()), "the log only grew");
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["specversion"], &first["type"]),
        (&"1.0".into(), &"underpass.log.created.v1".into()),
        "{first}"
    );

    let verified = run(&["log", "verify-export", &file("control")]);
    let head = run(&["log", "verify", "--data", &data]);
    assert_eq!(
        (&verified.last()["hash"], &verified.last()["head"]),
        (&head.last()["hash"], &head.last()["head"])
    );

    let new = folder.join("new");
    let place = format!("rocksdb:{}", new.display());
    for log in ["control", "activity"] {
        let imported = run(&["log", "import", &file(log), "--to", &place, "--log-name", log]);
        assert_eq!(imported.last()["event"], "imported");
    }
    let checked = run(&["store", "check", &place]);
    assert_eq!(of(&checked, "control")["hash"], head.last()["hash"]);

    // A part of it can be checked as well, but is no log.
    run(&["log", "export", "--data", &data, "--after", "3", "--out", &file("part")]).last();
    assert_eq!(run(&["log", "verify-export", &file("part")]).last()["ok"], true);
    let part = format!("rocksdb:{}", folder.join("part-of").display());
    run(&["log", "import", &file("part"), "--to", &part]).failed(1, "import.line");

    // Edited, cut, or of the other log: said with the line, and nothing comes of it.
    let edited = lines.replacen("laptop", "LAPTOP", 1);
    assert_ne!(edited, lines);
    fs::write(file("edited"), edited).unwrap();
    let done = run(&["log", "verify-export", &file("edited")]);
    assert_eq!((done.code, done.lines.last().unwrap()["ok"].as_bool()), (1, Some(false)));
    assert!(done.lines.last().unwrap()["line"].as_u64().unwrap() > 1, "{done:?}");
    done.failed(1, "import.line");
    let empty = format!("rocksdb:{}", folder.join("empty").display());
    run(&["log", "import", &file("edited"), "--to", &empty]).failed(1, "import.line");
    run(&["log", "import", &file("activity"), "--to", &empty]).failed(1, "import.other_log");
}

#[test]
fn places_that_are_wrong_and_targets_that_are_taken_are_refused() {
    let mut server = Server::start(Store::RocksDb);
    let mut other = Server::start(Store::RocksDb);
    server.client("laptop");
    assert_eq!((server.process.end(), other.process.end()), (0, 0));
    let place = |server: &Server| format!("rocksdb:{}", server.data_text());
    let (here, there) = (place(&server), place(&other));
    let theirs = run(&["store", "check", &there]);
    let migrate = |from: &str, to: &str| run(&["store", "migrate", "--from", from, "--to", to]);
    migrate("nowhere", &there).failed(2, "usage");
    migrate(&here, "memory").failed(2, "usage");
    migrate(&here, &here).failed(2, "usage");
    migrate("rocksdb:/no/such/folder", &there).failed(1, "data.missing");
    let closed = underpass_tests::free_port();
    migrate(&here, &format!("etcd://127.0.0.1:{closed}")).failed(1, "store.unreachable");
    migrate(&here, &there).failed(1, "store.other_installation");
    assert_eq!(of(&run(&["store", "check", &there]), "control"), of(&theirs, "control"), "it is as it was");
    server.restart();
    other.restart();
}
