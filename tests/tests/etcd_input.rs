//! What `serve` says of an etcd that can't be used, or that belongs to something else; that it leaves no trace
//! there, and that the data folder still works with its own configuration.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use underpass_store_etcd::testkit::{EtcdServer, Pki, Setup};
use underpass_tests::{Done, Process, free_address, now};

/// A start that fails takes no longer: request time-outs of 2 s, some of them one after another.
const FAILS_WITHIN: Duration = Duration::from_secs(30);

/// A data folder, and how its server is told where etcd is.
struct Node {
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl Node {
    fn on(endpoint: &str) -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap(), settings: Vec::new() };
        node.with("store.etcd.endpoints", endpoint).with("store.etcd.request_timeout_s", "2")
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    fn set(&mut self, key: &str, value: &str) {
        let key = format!("UNDERPASS__{}", key.replace('.', "__").to_uppercase());
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.to_owned()));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file beside the data folder that only its owner reads.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    fn arguments(&self) -> Vec<String> {
        let (listen, api) = (free_address().to_string(), free_address().to_string());
        let data = self.data().display().to_string();
        ["serve", "--store", "etcd", "--data", &data, "--listen", &listen, "--api", &api]
            .map(str::to_owned)
            .into()
    }

    fn launch(&self, more: &[&str]) -> Process {
        let arguments = self.arguments();
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(more);
        let settings: Vec<_> =
            self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Process::start_with(&arguments, &settings)
    }

    /// It serves, and stops in order.
    #[track_caller]
    fn serves(&self) {
        let mut server = self.launch(&[]);
        server.expect("ready");
        assert_eq!(server.end(), 0, "{}", server.stderr());
    }

    /// It must not start, says why under this code, and has changed nothing in etcd.
    #[track_caller]
    fn fails(&self, etcd: Option<&EtcdServer>, code: &str) -> Done {
        let before = etcd.map(content);
        let begun = now();
        let done = self.launch(&[]).done();
        assert!(begun.elapsed() < FAILS_WITHIN, "{:?}", begun.elapsed());
        done.failed(1, code);
        assert_eq!(etcd.map(content), before, "nothing is changed in etcd");
        done
    }
}

/// All keys and values in an etcd.
fn content(etcd: &EtcdServer) -> Vec<(Vec<u8>, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(etcd.content())
}

#[test]
fn an_etcd_that_is_not_there_or_hangs_is_said_to_be_unreachable() {
    let etcd = EtcdServer::start();
    let mut node = Node::on(&etcd.endpoint());
    node.serves();
    let nobody = free_address().to_string();
    node.set("store.etcd.endpoints", &nobody);
    let done = node.fails(Some(&etcd), "store.unreachable");
    assert!(done.stderr.contains(&nobody), "{done:?}");
    node.set("store.etcd.endpoints", &etcd.endpoint());
    etcd.pause();
    node.fails(None, "store.unreachable");
    etcd.resume();
    node.serves();
    // The first start of all is no different, and leaves nothing that a second one stumbles over.
    let mut fresh = Node::on(&nobody).with("store.etcd.prefix", "fresh");
    fresh.fails(Some(&etcd), "store.unreachable");
    fresh.set("store.etcd.endpoints", &etcd.endpoint());
    fresh.serves();
}

#[test]
fn a_wrong_password_or_none_is_said_to_be_one() {
    let setup = Setup { root_password: Some("sesame".to_owned()), ..Setup::default() };
    let etcd = EtcdServer::with(setup);
    let mut node = Node::on(&etcd.endpoint());
    node.fails(Some(&etcd), "store.credentials");
    let password = node.file("password", "open up");
    node.set("store.etcd.user", "root");
    node.set("store.etcd.password_file", &password);
    let done = node.fails(Some(&etcd), "store.credentials");
    assert!(!done.stderr.contains("open up"), "no password is shown: {done:?}");
    node.file("password", "sesame\n");
    node.serves();
    node.set("store.etcd.user", "toor");
    node.fails(Some(&etcd), "store.credentials");
    node.set("store.etcd.user", "root");
    node.serves();
}

#[test]
fn a_wrong_authority_or_none_is_said_to_be_one() {
    let pki = Arc::new(Pki::new());
    let etcd = EtcdServer::with(Setup { tls: Some(Arc::clone(&pki)), ..Setup::default() });
    let mut node = Node::on(&etcd.endpoint());
    // Plain text to a server of TLS: it hangs up, which others do, too.
    node.fails(Some(&etcd), "store.unreachable");
    let ca = node.file("ca.pem", Pki::new().ca());
    node.set("store.etcd.ca_file", &ca);
    node.fails(Some(&etcd), "store.tls");
    node.file("ca.pem", pki.ca());
    node.serves();
    node.set("store.etcd.tls_name", "etcd.example");
    node.fails(Some(&etcd), "store.tls");
    node.set("store.etcd.tls_name", "localhost");
    node.serves();
}

#[test]
fn a_prefix_that_somebody_else_uses_is_left_alone() {
    let etcd = EtcdServer::start();
    etcd_put(&etcd, "theirs/config", "precious");
    let mut node = Node::on(&etcd.endpoint());
    node.serves();
    node.set("store.etcd.prefix", "theirs");
    node.fails(Some(&etcd), "store.foreign");
    node.set("store.etcd.prefix", "underpass");
    node.serves();
    assert!(content(&etcd).contains(&(b"theirs/config".to_vec(), b"precious".to_vec())));
}

#[test]
fn the_store_of_another_installation_is_left_alone() {
    let etcd = EtcdServer::start();
    let ours = Node::on(&etcd.endpoint());
    ours.serves();
    // A folder that never had a key would make one, and turn all clients away.
    let stranger = Node::on(&etcd.endpoint());
    stranger.fails(Some(&etcd), "data.key_missing");
    // One with a key of its own.
    let mut other = Node::on(&etcd.endpoint()).with("store.etcd.prefix", "other");
    other.serves();
    other.set("store.etcd.prefix", "underpass");
    fs::remove_file(other.data().join("log")).unwrap();
    other.fails(Some(&etcd), "store.other_installation");
    ours.serves();
    // A second node of ours has our key.
    fs::copy(ours.data().join("link.key"), stranger.data().join("link.key")).unwrap();
    stranger.serves();
    ours.serves();
}

#[test]
fn a_folder_whose_log_is_elsewhere_does_not_begin_a_new_one() {
    let etcd = EtcdServer::start();
    // Its log is in the folder itself, in another etcd, or in the same one under another prefix.
    let node = Node::on(&etcd.endpoint());
    let data = node.data().display().to_string();
    let (listen, api) = (free_address().to_string(), free_address().to_string());
    let mut rocks = Process::start(&["serve", "--data", &data, "--listen", &listen, "--api", &api]);
    rocks.expect("ready");
    assert_eq!(rocks.end(), 0);
    node.fails(Some(&etcd), "store.other_log");
    let mut rocks = Process::start(&["serve", "--data", &data, "--listen", &listen, "--api", &api]);
    rocks.expect("ready");
    assert_eq!(rocks.end(), 0);

    let mut moved = Node::on(&etcd.endpoint()).with("store.etcd.prefix", "moved");
    moved.serves();
    let elsewhere = EtcdServer::start();
    moved.set("store.etcd.endpoints", &elsewhere.endpoint());
    moved.fails(Some(&elsewhere), "store.other_log");
    moved.set("store.etcd.endpoints", &etcd.endpoint());
    moved.set("store.etcd.prefix", "nowhere");
    moved.fails(Some(&etcd), "store.other_log");
    moved.set("store.etcd.prefix", "moved");
    moved.serves();
}

fn etcd_put(etcd: &EtcdServer, key: &str, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { etcd.client().await.put(key, value, None).await.map(drop).unwrap() });
}
