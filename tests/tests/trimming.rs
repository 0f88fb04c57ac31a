//! Old frames leave the store: by the operator's command, into the archive in the data folder.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Done, Server, Store, eventually, run};

/// All sessions, once none is open any more: the end of a link is written down a moment after it.
fn sessions(server: &Server) -> Vec<Value> {
    eventually("all sessions are closed", || {
        let all = server.api().get("/v1/sessions?limit=500")["items"].as_array().unwrap().clone();
        let closed = all.iter().all(|session| session["closed_at"].is_string());
        if closed { Ok(all) } else { Err(format!("{all:?}")) }
    })
}

fn trim(server: &Server, more: &[&str]) -> Done {
    let data = server.data_text();
    run(&[&["log", "trim", "--log-name", "activity", "--data", &data], more].concat())
}

fn verify(server: &Server) -> Value {
    run(&["log", "verify", "--log-name", "activity", "--data", &server.data_text()]).last().clone()
}

fn replayed(server: &Server, log: &str) -> Value {
    run(&["log", "replay", "--log-name", log, "--data", &server.data_text()]).last().clone()
}

/// Trims a log that a server has open, and stops it, starts it, reads it with its archive and without.
fn trims(store: Store) {
    let mut server = Server::start(store);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    for _ in 0..3 {
        let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
        echoes(public).unwrap();
        assert_eq!(exposing.end(), 0);
    }
    let before = sessions(&server);
    assert!(before.len() >= 3, "{before:?}");
    let head = verify(&server)["head"].as_u64().unwrap();

    // Nothing happens unasked, nor where the log can't be cut.
    let looked = trim(&server, &["--carry"]);
    assert_eq!(looked.last()["dry_run"], true);
    assert_eq!(verify(&server)["head"], head);
    assert_eq!(trim(&server, &["--yes"]).last()["until"], Value::Null);
    assert_eq!(verify(&server)["head"], head);

    let done = trim(&server, &["--carry", "--yes"]).last().clone();
    let until: u64 = done["until"].as_str().unwrap().trim_start_matches("activity:").parse().unwrap();
    assert!(done["frames"].as_u64().unwrap() > 0 && until > 0, "{done}");
    assert_eq!(sessions(&server), before, "what is remembered stays");
    let (whole, has_archive) = (verify(&server), store != Store::Memory);
    assert_eq!(whole["ok"], true);
    assert_eq!(done["archived"], has_archive);
    if !has_archive {
        assert_eq!(whole["trimmed"], until);
        let api = server.api();
        assert_eq!(api.call(reqwest::Method::GET, "/v1/events?log=activity&after=1", None).0, 410);
        let events = api.get("/v1/events?log=activity&limit=1");
        assert_eq!(events["items"][0]["position"], format!("activity:{}", until + 1));
        return;
    }
    assert_eq!((&whole["trimmed"], &whole["events"]), (&Value::Null, &whole["head"]));

    server.kill();
    server.restart();
    assert_eq!(sessions(&server), before);
    let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    let early =
        run(&["log", "show", "--log-name", "activity", "--limit", "1", "--data", &server.data_text()]);
    assert_eq!(early.last()["position"], "activity:1");

    // Without the archive: what is left is enough to go on, and what is gone is called so.
    assert_eq!(server.process.end(), 0);
    let archive = server.data().join("archive");
    let away = server.data().parent().unwrap().join("away");
    std::fs::rename(&archive, &away).unwrap();
    let short = verify(&server);
    assert_eq!((&short["ok"], &short["trimmed"]), (&json!(true), &json!(until)));
    server.restart();
    assert_eq!(sessions(&server).len(), before.len() + 1);
    assert_eq!(server.api().call(reqwest::Method::GET, "/v1/events?log=activity&after=1", None).0, 410);
    let past = server.api().call(reqwest::Method::GET, "/v1/snapshots/activity?position=1", None);
    assert_eq!((past.0, past.1["code"].as_str()), (410, Some("log.trimmed")), "{past:?}");
    let now = replayed(&server, "activity");
    assert_eq!(server.process.end(), 0);

    // And with it again.
    if archive.exists() {
        std::fs::remove_dir_all(&archive).unwrap();
    }
    std::fs::rename(&away, &archive).unwrap();
    server.restart();
    assert_eq!(
        replayed(&server, "activity")["sessions"].as_array().unwrap().len(),
        now["sessions"].as_array().unwrap().len()
    );
    let past = server.api().get("/v1/snapshots/activity?position=1");
    assert_eq!(past["position"], "activity:1");
    assert_eq!(verify(&server)["trimmed"], Value::Null);
}

#[test]
fn a_log_in_memory_is_trimmed() {
    trims(Store::Memory);
}

#[test]
fn a_log_in_rocksdb_is_trimmed_into_its_archive() {
    trims(Store::RocksDb);
}

#[test]
fn a_log_in_etcd_is_trimmed_into_its_archive() {
    trims(Store::Etcd);
}

/// A backup has the archive, and a migration brings what is in it.
#[test]
fn backups_and_migrations_have_what_was_archived() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let (mut exposing, public) = laptop.expose(&[&echo().to_string()]);
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
    trim(&server, &["--carry", "--yes"]);
    let data = server.data_text();
    let folder = server.data().parent().unwrap().to_owned();
    let archived = run(&["log", "archive", "--data", &data]).last().clone();
    assert!(archived["frames"].as_u64().unwrap() > 0, "{archived}");
    let backup = folder.join("backup").display().to_string();
    run(&["store", "backup", "--data", &data, "--to", &backup]);
    let whole = verify(&server);
    assert_eq!(server.process.end(), 0);
    let saved = run(&["log", "verify", "--log-name", "activity", "--data", &backup]).last().clone();
    assert_eq!((&saved["ok"], &saved["trimmed"]), (&json!(true), &Value::Null));
    let moved = folder.join("moved").display().to_string();
    let done =
        run(&["store", "migrate", "--from", &format!("rocksdb:{data}"), "--to", &format!("rocksdb:{moved}")]);
    assert_eq!(done.last()["event"], "migrated", "{done:?}");
    let moved = run(&["log", "verify", "--log-name", "activity", "--data", &moved]).last().clone();
    assert_eq!((&moved["ok"], &moved["trimmed"]), (&json!(true), &Value::Null));
    assert!(moved["events"].as_u64().unwrap() >= whole["events"].as_u64().unwrap());
}
