//! The reader in `tests/reader` was written from the documents of the formats alone and shares no code with the server: if
//! it says the same of a log as the server does, the documents suffice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Done, Server, Store, run};

const LOGS: [&str; 2] = ["control", "activity"];

fn python(arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reader");
    let mut command = Command::new("python3");
    command.arg("-B").args(arguments).current_dir(folder);
    command.output().expect("python3 is on the PATH (Debian: python3)")
}

/// What the reader says.
#[derive(Debug)]
struct Read {
    code: Option<i32>,
    /// Position, name, version, stream, actor and payload of each event.
    events: Vec<(u64, Vec<String>, Value)>,
    last: Value,
}

fn read(arguments: &[&str]) -> Read {
    let output = python(&[&["underpass_log.py"], arguments].concat());
    let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    let (events, last) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    let event = |line: &str| {
        let words: Vec<_> = line.splitn(7, ' ').map(ToOwned::to_owned).collect();
        assert_eq!(words.len(), 7, "{line}");
        (words[0].parse().unwrap(), words[1..6].to_vec(), serde_json::from_str(&words[6]).unwrap())
    };
    Read {
        code: output.status.code(),
        events: events.lines().map(event).collect(),
        last: serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {said}{error}")),
    }
}

/// The same of `log show`.
fn shown(done: &Done) -> Vec<(u64, Vec<String>, Value)> {
    assert_eq!(done.code, 0, "{done:?}");
    let event = |line: &Value| {
        let position = line["position"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
        let version = format!("v{}", line["version"]);
        let words = vec![text("recorded_at"), text("event"), version, text("stream"), text("actor")];
        (position, words, line["payload"].clone())
    };
    done.lines.iter().map(event).collect()
}

/// A server on etcd in which a good part of all kinds of events has happened, stopped.
fn stopped() -> Server {
    let mut server = Server::start(Store::Etcd);
    let (laptop, desk) = (server.client("laptop"), server.client("desk"));
    let target = echo();
    let (mut exposing, public) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    echoes(public).unwrap();
    let (mut sharing, code) = laptop.share(&target.to_string());
    let (mut connecting, listen) = desk.connect(&code);
    echoes(listen).unwrap();
    let api = server.api();
    let web = format!("/v1/mappings/{}", api.mapping("web")["id"].as_str().unwrap());
    let client = format!("/v1/clients/{}", api.client_id("desk"));
    let change = json!({ "name": "shop", "max_connections": 300, "seal": "on" });
    assert_eq!(api.call(Method::PATCH, &web, Some(&change)).0, 200);
    for (path, body) in [
        (format!("{web}/disable"), json!({})),
        (format!("{web}/enable"), json!({})),
        (format!("{client}/block"), json!({ "reason": "lost" })),
        (format!("{client}/unblock"), json!({})),
    ] {
        api.post(&path, &body);
    }
    let invite =
        api.post("/v1/invites", &json!({ "label": "für niemand \"🦀\"" }))["id"].as_str().unwrap().to_owned();
    let key =
        api.post("/v1/keys", &json!({ "scopes": ["read", "audit"] }))["id"].as_str().unwrap().to_owned();
    for path in [format!("/v1/invites/{invite}"), format!("/v1/keys/{key}"), web, client] {
        let (status, said) = api.call(Method::DELETE, &path, None);
        assert!((200..300).contains(&status), "{path}: {status} {said}");
    }
    exposing.end();
    sharing.end();
    connecting.end();
    assert_eq!(server.process.end(), 0);
    server
}

/// C65, C66
#[test]
fn c65_c66_a_reader_that_shares_no_code_with_the_server_says_the_same_of_its_logs() {
    let server = stopped();
    let etcd = server.etcd().members()[0].endpoint();
    let data = server.data_text();
    for log in LOGS {
        let of = |verb: &str| run(&["log", verb, "--data", &data, "--log-name", log]);
        let verified = of("verify");
        let good = read(&["etcd", &etcd, "--log", log]);
        assert_eq!(good.code, Some(0), "{good:?}");
        let hash = &verified.last()["hash"];
        assert_eq!(
            good.last,
            json!({ "ok": true, "log": log, "head": verified.last()["head"], "hash": hash })
        );
        assert_eq!(good.events, shown(&of("show")));

        let file = server.data().parent().unwrap().join(format!("{log}.jsonl"));
        let file = file.to_str().unwrap();
        run(&["log", "export", "--data", &data, "--log-name", log, "--out", file]).last();
        let exported = read(&["export", file]);
        assert_eq!(
            (exported.code, exported.last, exported.events),
            (Some(0), good.last.clone(), good.events)
        );

        // One byte of a frame in the middle.
        let lines = std::fs::read_to_string(file).unwrap();
        let line = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let middle = line(lines.lines().nth(lines.lines().count() / 2).unwrap());
        let first: u64 = middle["framefirst"].as_str().unwrap().parse().unwrap();
        flip_a_byte_of_the_frame(&server, log, first);
        let bad = read(&["etcd", &etcd, "--log", log]);
        assert_eq!((bad.code, &bad.last["ok"]), (Some(1), &json!(false)), "{bad:?}");
        assert_eq!(bad.last["position"], first, "{bad:?}");
        assert_eq!(of("verify").lines.last().unwrap()["position"], first, "as the server says");
        flip_a_byte_of_the_frame(&server, log, first);
        assert_eq!(read(&["etcd", &etcd, "--log", log]).last, good.last, "put back, all is well");

        let changed = lines.replacen(&format!("\"position\":\"{first}\""), "\"position\":\"0\"", 1);
        std::fs::write(file, changed).unwrap();
        let bad = read(&["export", file]);
        assert_eq!((bad.code, &bad.last["position"]), (Some(1), &json!(first)), "{bad:?}");
    }
}

/// By etcd's own means: the key is made as the document says, not by the code of the store.
#[tokio::main(flavor = "current_thread")]
async fn flip_a_byte_of_the_frame(server: &Server, log: &str, first: u64) {
    let mut key = format!("underpass/k/log/{log}/e/").into_bytes();
    key.extend(first.to_be_bytes());
    let mut etcd = server.etcd().members()[0].client().await;
    let found = etcd.get(key.clone(), None).await.unwrap();
    let mut frame = found.kvs().first().expect("a frame is where the document says").value().to_vec();
    let middle = frame.len() / 2;
    frame[middle] ^= 0x10;
    etcd.put(key, frame, None).await.unwrap();
}

#[test]
fn the_reader_passes_its_own_tests() {
    let tests = python(&["-m", "unittest", "-v", "test_underpass_log"]);
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success() && said.contains("test_every_fixture_decodes_to_its_json"), "{said}");
}
