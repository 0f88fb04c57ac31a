//! The guides are true: every command in them is run, in order, as a reader would.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use underpass_store_etcd::testkit::EtcdServer;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Server, Store};

/// The lines that begin with `$ ` in console blocks.
fn commands(guide: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(guide);
    let text = std::fs::read_to_string(file).unwrap();
    let blocks = text.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).map(ToOwned::to_owned).collect()
}

/// A folder in which a server has run and served a mapping `web`.
fn prepared() -> tempfile::TempDir {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let (mut exposing, public) = laptop.expose(&[&echo().to_string(), "--name", "web"]);
    echoes(public).unwrap();
    assert_eq!((exposing.end(), server.process.end()), (0, 0));
    let folder = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-a").arg(server.data()).arg(folder.path().join("underpass-data")).status();
    assert!(copied.unwrap().success());
    folder
}

fn run_all(guide: &str, folder: &Path, commands: &[String]) {
    let binary = underpass_tests::underpass();
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    for command in commands {
        let done =
            Command::new("sh").args(["-c", command]).current_dir(folder).env("PATH", &path).output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{guide}: `{command}` failed: {error}{out}");
        assert!(command.contains("cp ") || !out.trim().is_empty(), "{guide}: `{command}` says nothing");
    }
}

#[test]
fn the_guide_to_storage_is_true() {
    let etcd = EtcdServer::start();
    let endpoint = etcd.endpoint().trim_start_matches("http://").to_owned();
    let commands: Vec<_> =
        commands("storage.md").iter().map(|command| command.replace("127.0.0.1:2379", &endpoint)).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    let folder = prepared();
    run_all("storage.md", folder.path(), &commands);
}

#[test]
fn the_guide_to_audits_is_true() {
    let commands = commands("audit.md");
    assert!(commands.len() >= 11, "{commands:?}");
    let folder = prepared();
    run_all("audit.md", folder.path(), &commands);
}
