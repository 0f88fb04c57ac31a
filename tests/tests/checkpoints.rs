//! C65: signed checkpoints show what the chain of hashes can't: an older copy, a lost tail, a log written anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use underpass_domain::{LogName, Position};
use underpass_eventlog::frame::{Frame, FrameBuilder, FrameHeader};
use underpass_eventlog::head::Head;
use underpass_eventlog::keys;
use underpass_store::Store as AnyStore;
use underpass_store_etcd::testkit::EtcdServer;
use underpass_store_etcd::{EtcdOptions, EtcdStore};
use underpass_store_rocksdb::{RocksOptions, RocksStore};
use underpass_tests::{Done, Server, Store, eventually, run};

/// A server whose checkpoints lie outside its data folder.
struct Watched {
    server: Server,
    elsewhere: tempfile::TempDir,
}

impl Watched {
    fn start(store: Store) -> Self {
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().join("checkpoints.jsonl").display().to_string();
        let server = Server::start_with(store, &[("log.checkpoints.file", &file)]);
        Self { server, elsewhere }
    }

    fn file(&self) -> PathBuf {
        self.elsewhere.path().join("checkpoints.jsonl")
    }

    fn key(&self) -> String {
        self.server.data().join("checkpoint.pub").display().to_string()
    }

    /// `log verify` of the control log against these checkpoints.
    fn verify(&self, file: &Path) -> Done {
        verify(&["--data", &self.server.data_text()], file, &self.key())
    }

    fn stop(&mut self) {
        assert_eq!(self.server.process.end(), 0, "{}", self.server.process.stderr());
    }

    /// The log is refused, by the verb and by the server, and goes on when it is said to be meant.
    fn is_noticed(&mut self, position: u64, why: &str) {
        let plain = run(&["log", "verify", "--data", &self.server.data_text()]);
        assert_eq!(plain.last()["ok"], true, "the chain of hashes alone can't tell: {plain:?}");
        let line = disagrees(&self.verify(&self.file()));
        assert_eq!(line["position"], position, "{line}");
        assert!(line["reason"].as_str().unwrap().contains(why), "{line}");
        let before = fs::read(self.file()).unwrap();
        self.server.start_fails("checkpoints.disagree");
        assert_eq!(fs::read(self.file()).unwrap(), before, "a refused start writes no checkpoint");
        assert_eq!(
            run(&["log", "verify", "--data", &self.server.data_text()]).last(),
            plain.last(),
            "nor into the log"
        );

        self.server.restart_with(&["--new-checkpoints"]);
        let aside = self.elsewhere.path().join("checkpoints.jsonl.1");
        assert_eq!(fs::read(&aside).unwrap(), before, "what was said before is kept");
        disagrees(&self.verify(&aside));
        assert!(self.verify(&self.file()).last()["checkpoints"].as_u64() > Some(0));
        self.stop();
        self.server.restart();
    }
}

fn verify(reach: &[&str], file: &Path, key: &str) -> Done {
    let file = file.display().to_string();
    run(&[&["log", "verify"], reach, &["--checkpoints", &file, "--checkpoint-key", key]].concat())
}

#[track_caller]
fn disagrees(done: &Done) -> Value {
    done.failed(1, "checkpoints.disagree");
    let line = done.lines.last().unwrap().clone();
    assert_eq!((&line["ok"], &line["log"]), (&json!(false), &json!("control")), "{line}");
    line
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where the newest checkpoint of the control log says it ends.
fn newest(file: &Path) -> u64 {
    let lines = lines(file);
    let control = lines.iter().rfind(|line| line["log"] == "control").unwrap();
    control["position"].as_u64().unwrap()
}

fn head(server: &Server) -> u64 {
    server.verified().0
}

/// Works on the store of a server that is stopped.
async fn with_store<T>(server: &Server, kind: Store, work: impl AsyncFnOnce(&dyn AnyStore) -> T) -> T {
    if kind == Store::Etcd {
        let endpoints = server.etcd().members().iter().map(EtcdServer::endpoint);
        let store = EtcdStore::open(EtcdOptions::new(endpoints, "underpass")).await.unwrap();
        let done = work(&store).await;
        store.close().await;
        return done;
    }
    let store = RocksStore::open(&server.data().join("store"), RocksOptions::default()).unwrap();
    let done = work(&store).await;
    store.close().await;
    done
}

async fn frames(store: &dyn AnyStore) -> Vec<Frame> {
    let from = keys::frame(LogName::Control, Position(0));
    let entries = store.scan(&from, &keys::frames_end(LogName::Control), 1000).await.unwrap();
    entries.iter().map(|entry| Frame::decode(&entry.value).unwrap()).collect()
}

async fn set_head(store: &dyn AnyStore, last: &Frame) {
    let key = keys::head(LogName::Control);
    let head = Head::decode(&store.get(&key).await.unwrap().unwrap().value).unwrap();
    let head = Head {
        position: last.last(),
        first: last.first(),
        hash: last.hash,
        commit: last.header.commit,
        recorded_at: last.header.recorded_at,
        epoch: last.header.epoch,
        ..head
    };
    store.put(&key, head.encode()).await.unwrap();
}

/// Says of the third frame that it came from somewhere else, and makes all hashes from there on anew.
async fn rewrite(store: &dyn AnyStore) {
    let mut previous = None;
    let mut last = None;
    for (nth, frame) in frames(store).await.into_iter().enumerate() {
        let mut records = frame.records.clone();
        if nth == 2 {
            records[0].source = Some("203.0.113.9".parse().unwrap());
        }
        let header = FrameHeader { previous: previous.unwrap_or(frame.header.previous), ..frame.header };
        let mut builder = FrameBuilder::new(&header);
        for record in &records {
            builder.push(record);
        }
        let (bytes, hash) = builder.finish().unwrap();
        store.put(&keys::frame(LogName::Control, header.first), bytes).await.unwrap();
        assert_eq!(hash == frame.hash, nth < 2, "the hashes before are the same");
        previous = Some(hash);
        last = Some(Frame { header, records, hash, ..frame });
    }
    set_head(store, &last.unwrap()).await;
}

/// Takes the last frames away, and lets the head name the one before.
async fn cut(store: &dyn AnyStore, count: usize) -> u64 {
    let mut frames = frames(store).await;
    let gone = frames.split_off(frames.len() - count);
    let last = frames.last().unwrap();
    for frame in gone {
        store.delete(&keys::frame(LogName::Control, frame.first())).await.unwrap();
    }
    set_head(store, last).await;
    last.last().0
}

#[test]
fn c65_a_folder_put_back_from_an_older_copy_is_noticed() {
    let mut watched = Watched::start(Store::RocksDb);
    watched.server.client("laptop");
    watched.stop();
    let old = watched.server.data().with_file_name("old");
    let copied = Command::new("cp").arg("-a").arg(watched.server.data()).arg(&old).status().unwrap();
    assert!(copied.success());
    let behind = head(&watched.server);
    watched.server.restart();
    watched.server.client("desk");
    watched.stop();
    assert_eq!(newest(&watched.file()), head(&watched.server), "a clean stop says where the log ends");
    let good = watched.verify(&watched.file());
    assert_eq!((&good.last()["ok"], good.last()["checkpoints"].as_u64() > Some(1)), (&json!(true), true));

    fs::rename(watched.server.data(), watched.server.data().with_file_name("new")).unwrap();
    fs::rename(&old, watched.server.data()).unwrap();
    watched.is_noticed(behind + 1, "put back from an older copy");
}

async fn a_lost_tail_is_noticed(kind: Store) {
    let mut watched = Watched::start(kind);
    watched.server.client("laptop");
    watched.stop();
    let left = with_store(&watched.server, kind, async |store| cut(store, 2).await).await;
    watched.is_noticed(left + 1, "short of its tail");
}

#[tokio::test(flavor = "multi_thread")]
async fn c65_a_lost_tail_is_noticed_on_rocksdb() {
    a_lost_tail_is_noticed(Store::RocksDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c65_a_lost_tail_is_noticed_on_etcd() {
    a_lost_tail_is_noticed(Store::Etcd).await;
}

async fn a_log_written_anew_is_noticed(kind: Store) {
    let mut watched = Watched::start(kind);
    watched.server.client("laptop");
    watched.stop();
    let first = oldest(&watched.file());
    with_store(&watched.server, kind, async |store| rewrite(store).await).await;
    watched.is_noticed(first, "the log was changed up to there");
}

/// The first position that a checkpoint of the control log speaks of.
fn oldest(file: &Path) -> u64 {
    let lines = lines(file);
    let control = lines.iter().find(|line| line["log"] == "control").unwrap();
    control["position"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c65_a_log_written_anew_with_all_its_hashes_is_noticed_on_rocksdb() {
    a_log_written_anew_is_noticed(Store::RocksDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c65_a_log_written_anew_with_all_its_hashes_is_noticed_on_etcd() {
    a_log_written_anew_is_noticed(Store::Etcd).await;
}

#[test]
fn c65_a_running_server_is_checked_without_taking_its_word() {
    for kind in [Store::RocksDb, Store::Etcd] {
        let server = Server::start_with(kind, &[("log.checkpoints.interval_s", "1")]);
        let file = server.data().join("checkpoints.jsonl");
        server.client("laptop");
        let written = eventually("a checkpoint is written while the server runs", || {
            let (newest, head) = (newest(&file), head(&server));
            if newest == head { Ok(newest) } else { Err(format!("{newest} of {head}")) }
        });
        let key = fs::read_to_string(server.data().join("checkpoint.pub")).unwrap().trim().to_owned();
        let (api, admin) = (format!("http://{}", server.api_address), server.data().join("admin.key"));
        let admin = admin.display().to_string();
        for reach in [&["--data", &server.data_text()][..], &["--api", &api, "--key-file", &admin]] {
            let good = verify(reach, &file, &key);
            assert!(good.last()["checkpoints"].as_u64() >= Some(2), "{good:?}");
            assert!(good.last()["head"].as_u64() >= Some(written), "{good:?}");
            let activity = verify(&[reach, &["--log-name", "activity"]].concat(), &file, &key);
            assert_eq!(activity.last()["ok"], true, "{activity:?}");
        }

        // A line that was changed, or is signed by another.
        let text = fs::read_to_string(&file).unwrap();
        let copy = file.with_file_name("copy.jsonl");
        fs::write(&copy, text.replacen("\"epoch\":1", "\"epoch\":2", 1)).unwrap();
        let line = disagrees(&verify(&["--data", &server.data_text()], &copy, &key));
        assert!(line["reason"].as_str().unwrap().contains("wrong signature"), "{line}");
        let other = "A".repeat(43);
        disagrees(&verify(&["--data", &server.data_text()], &file, &other));

        // What is no checkpoint, no key, or says nothing of this log.
        fs::write(&copy, text.replacen("\"log\"", "\"lock\"", 1)).unwrap();
        verify(&["--data", &server.data_text()], &copy, &key).failed(1, "checkpoints.line");
        fs::write(&copy, "").unwrap();
        verify(&["--data", &server.data_text()], &copy, &key).failed(1, "checkpoints.none");
        let secret = server.data().join("checkpoint.key").display().to_string();
        verify(&["--data", &server.data_text()], &file, &secret).failed(2, "usage");
        let data = server.data_text();
        let alone = ["log", "verify", "--data", &data, "--checkpoints", &copy.display().to_string()];
        assert_eq!(run(&alone).code, 2, "a key is needed");
    }
}

#[test]
fn c65_an_export_is_checked_against_checkpoints() {
    let mut watched = Watched::start(Store::RocksDb);
    watched.server.client("laptop");
    watched.stop();
    let export = |name: &str, more: &[&str]| {
        let file = watched.elsewhere.path().join(name).display().to_string();
        let data = watched.server.data_text();
        run(&[&["log", "export", "--data", &data, "--out", &file], more].concat()).last();
        file
    };
    let verify = |file: &str| {
        let checkpoints = watched.file().display().to_string();
        let arguments = ["log", "verify-export", file, "--checkpoints", &checkpoints];
        run(&[&arguments[..], &["--checkpoint-key", &watched.key()]].concat())
    };
    let whole = verify(&export("whole", &[]));
    assert!(whole.last()["checkpoints"].as_u64() >= Some(2), "{whole:?}");
    // Of a part, those that lie in it; where none does, that is said.
    let first = oldest(&watched.file()).to_string();
    assert_eq!(verify(&export("begin", &["--until", &first])).last()["checkpoints"], 1);
    verify(&export("early", &["--until", "1"])).failed(1, "checkpoints.none");
}

#[test]
fn a_folder_keeps_its_key_and_its_checkpoints_and_a_backup_has_both() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    let data = server.data();
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("checkpoint.key"), 0o600);
    let backup = data.with_file_name("backup");
    run(&["store", "backup", "--data", &server.data_text(), "--to", &backup.display().to_string()]).last();
    let of_backup = |name: &str| backup.join(name).display().to_string();
    let reach = ["--data", &backup.display().to_string()];
    let good = verify(&reach, &backup.join("checkpoints.jsonl"), &of_backup("checkpoint.pub"));
    assert!(good.last()["checkpoints"].as_u64() >= Some(1), "{good:?}");

    // Stopped for good before the copy was made: it says so.
    server.client("desk");
    assert_eq!(server.process.end(), 0);
    disagrees(&verify(&reach, &data.join("checkpoints.jsonl"), &of_backup("checkpoint.pub")));
    let key = fs::read(data.join("checkpoint.pub")).unwrap();
    server.restart();
    assert_eq!(fs::read(data.join("checkpoint.pub")).unwrap(), key, "the same key");

    // A kill in the middle of a line costs that line; anything else that is none stops the server.
    server.kill();
    let file = data.join("checkpoints.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() - 30]).unwrap();
    server.restart();
    let whole = fs::read_to_string(&file).unwrap();
    assert!(whole.ends_with('\n') && lines(&file).len() >= text.lines().count(), "mended: {whole}");
    assert_eq!(server.process.end(), 0);
    fs::write(&file, format!("rubbish\n{whole}")).unwrap();
    server.start_fails("checkpoints.line");
    fs::write(&file, whole).unwrap();
    fs::set_permissions(data.join("checkpoint.key"), fs::Permissions::from_mode(0o640)).unwrap();
    server.start_fails("data.mode");
    fs::set_permissions(data.join("checkpoint.key"), fs::Permissions::from_mode(0o600)).unwrap();
    server.restart();
}

#[test]
fn a_file_that_cannot_be_written_is_told_at_the_start_and_memory_has_none() {
    let mut server = Server::start(Store::Memory);
    assert!(!server.data().join("checkpoints.jsonl").exists(), "what is gone with the process has none");
    assert_eq!(server.process.end(), 0);
    let name = "UNDERPASS__LOG__CHECKPOINTS__FILE".to_owned();
    server.configure(Store::RocksDb, &[(name, "/no/such/folder/checkpoints.jsonl".to_owned())]);
    server.start_fails("config.file");
}
