//! Changes by API reach clients that are connected, and what the server says of itself.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::api::Api;
use underpass_tests::bytes::{dial, echo, echoes};
use underpass_tests::{Process, Server, Store, eventually, free_address};

use crate::{client_id, problem, repository};

fn ends(api: &Api, mapping: &str) -> Vec<(bool, String)> {
    let shown = api.get(&format!("/v1/mappings/{mapping}"));
    let ends = shown["live"]["ends"].as_array().unwrap();
    ends.iter().map(|end| (end["client"].is_string(), end["state"].as_str().unwrap().to_owned())).collect()
}

fn has_ends(api: &Api, mapping: &str, expected: &[(bool, &str)]) {
    let expected: BTreeSet<_> =
        expected.iter().map(|(client, state)| (*client, (*state).to_owned())).collect();
    eventually("both ends are as they should be", || {
        let found: BTreeSet<_> = ends(api, mapping).into_iter().collect();
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn id(made: &Value) -> String {
    made["id"].as_str().unwrap().to_owned()
}

/// A tunnel that is there until somebody ends it.
fn held(address: SocketAddr) -> std::net::TcpStream {
    let mut stream = dial(address).unwrap();
    stream.write_all(b"hold").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    stream
}

/// C21: it ends, by a reset or an end.
fn has_ended(mut stream: std::net::TcpStream) {
    stream.set_read_timeout(Some(underpass_tests::SOON)).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("the tunnel goes on: {other:?}"),
    }
}

fn is_closed(address: SocketAddr) {
    eventually("nobody answers any more", || match echoes(address) {
        Ok(()) => Err("it still answers".to_owned()),
        Err(_) => Ok(()),
    });
}

#[test]
fn c21_a_port_mapping_made_by_api_carries_bytes_until_it_is_disabled_or_removed() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let mut agent = laptop.start(&["up", "--allow", &target]);
    agent.expect("connected");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let body = json!({ "name": "web", "ingress": "port", "target_client": client, "target": target });
    let made = api.post("/v1/mappings", &body);
    let (path, mapping) = (format!("/v1/mappings/{}", id(&made)), id(&made));
    let port = u16::try_from(made["port"].as_u64().unwrap()).unwrap();
    let public = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("bytes pass", || echoes(public));
    has_ends(&api, &mapping, &[(false, "listening"), (true, "offered")]);

    // Another mapping is not disturbed by what happens to this one (C19).
    let steady =
        api.post("/v1/mappings", &json!({ "ingress": "port", "target_client": client, "target": target }));
    let steady = SocketAddr::from(([127, 0, 0, 1], u16::try_from(steady["port"].as_u64().unwrap()).unwrap()));
    eventually("bytes pass", || echoes(steady));
    let mut bystander = held(steady);

    let tunnel = held(public);
    eventually("the tunnel is counted", || match api.get(&path)["live"]["tunnels"].as_u64() {
        Some(1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let disabled = api.post(&format!("{path}/disable"), &json!({}));
    assert_eq!((&disabled["status"], &disabled["serves"]), (&json!("disabled"), &json!(false)));
    has_ended(tunnel);
    is_closed(public);
    let enabled = api.post(&format!("{path}/enable"), &json!({}));
    assert_eq!((&enabled["status"], &enabled["port"]), (&json!("active"), &made["port"]));
    eventually("bytes pass again", || echoes(public));

    // Another target, in place.
    let other = underpass_tests::bytes::service(|mut stream| {
        let _ = stream.write_all(b"another");
    });
    let changed = api.send(Method::PATCH, &path, Some(&json!({ "target": other.to_string() })));
    assert_eq!(changed.status(), 200);
    has_ends(&api, &mapping, &[(false, "listening"), (true, "denied")]);
    assert!(echoes(public).is_err(), "the agent dials only what it allows");
    assert_eq!(api.send(Method::PATCH, &path, Some(&json!({ "target": target }))).status(), 200);
    eventually("bytes pass again", || echoes(public));

    let tunnel = held(public);
    assert_eq!(api.send(Method::DELETE, &path, None).status(), 200);
    has_ended(tunnel);
    is_closed(public);
    assert_eq!(problem(api.send(Method::GET, &path, None)), (404, "mapping.not_found".to_owned()));

    bystander.write_all(b"still").unwrap();
    let mut answer = [0; 5];
    bystander.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still");
    drop(bystander);
    assert_eq!(agent.end(), 0);
}

#[test]
fn a_client_mapping_made_by_api_joins_two_clients() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo().to_string();
    let start = |client: &underpass_tests::Client| -> Process {
        let mut agent = client.start(&["up", "--allow", &target]);
        agent.expect("connected");
        agent
    };
    let (mut offering, mut listening) = (start(&laptop), start(&other));
    let api = server.api();
    let listen = free_address();
    let body = json!({ "name": "desk", "ingress": "client", "listen_client": client_id(&api, "other"),
        "listen": listen.to_string(), "target_client": client_id(&api, "laptop"), "target": target });
    let mapping = id(&api.post("/v1/mappings", &body));
    eventually("bytes pass", || echoes(listen));
    has_ends(&api, &mapping, &[(true, "listening"), (true, "offered")]);

    // C20: what changed while a client was away is there when it is back.
    assert_eq!(listening.end(), 0);
    is_closed(listen);
    let elsewhere = free_address();
    let mut second = body.clone();
    second["name"] = json!("second");
    second["listen"] = json!(elsewhere.to_string());
    api.post("/v1/mappings", &second);
    let mut listening = start(&other);
    eventually("bytes pass again", || echoes(listen));
    eventually("bytes pass there, too", || echoes(elsewhere));

    // C22: a port in use is told, and hurts nobody else.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut third = body.clone();
    third["name"] = json!("third");
    third["listen"] = json!(taken.local_addr().unwrap().to_string());
    let third = id(&api.post("/v1/mappings", &third));
    has_ends(&api, &third, &[(true, "port_in_use"), (true, "offered")]);
    echoes(listen).unwrap();
    let was = taken.local_addr().unwrap();
    drop(taken);
    eventually("it listens as soon as it can", || echoes(was));

    let tunnel = held(listen);
    assert_eq!(api.send(Method::DELETE, &format!("/v1/mappings/{mapping}"), None).status(), 200);
    has_ended(tunnel);
    is_closed(listen);
    echoes(elsewhere).unwrap();
    assert_eq!((listening.end(), offering.end()), (0, 0));
}

#[test]
fn c10_a_blocked_client_loses_its_link_and_comes_back_when_it_is_let_in() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
    echoes(public).unwrap();
    let api = server.api();
    let client = client_id(&api, "laptop");
    let path = format!("/v1/clients/{client}");
    assert!(api.get(&path)["link"]["session"].is_string());
    let tunnel = held(public);
    let blocked = api.post(&format!("{path}/block"), &json!({ "reason": "stolen" }));
    assert_eq!((&blocked["status"], &blocked["blocked_reason"]), (&json!("blocked"), &json!("stolen")));
    has_ended(tunnel);
    eventually("the link is gone", || match &api.get(&path)["link"] {
        Value::Null => Ok(()),
        link => Err(link.to_string()),
    });
    is_closed(public);
    let sessions = api.get(&format!("{path}/sessions"));
    assert!(
        sessions["items"].as_array().unwrap().iter().all(|session| session["closed_at"].is_string()),
        "{sessions}"
    );
    // Credentials that are refused end the program: trying on would be of no use.
    assert_eq!(exposing.wait().code(), Some(10), "{}", exposing.stderr());
    laptop.run(&["expose", &target, "--name", "web"]).failed(10, "link.refused");

    assert_eq!(api.post(&format!("{path}/unblock"), &json!({}))["status"], "active");
    let (mut again, same) = laptop.expose(&[&target, "--name", "web"]);
    assert_eq!(same, public);
    eventually("bytes pass again", || echoes(public));
    // Disconnecting only ends the link: it comes back by itself.
    let session = api.get(&path)["link"]["session"].clone();
    assert_eq!(
        api.post(&format!("{path}/disconnect"), &json!({ "reason": "test" }))["client"],
        client.as_str()
    );
    eventually("another link", || match &api.get(&path)["link"]["session"] {
        Value::String(new) if *new != session => Ok(()),
        other => Err(other.to_string()),
    });
    eventually("bytes pass again", || echoes(public));
    assert_eq!(again.end(), 0);
}

#[test]
fn readiness_and_health_say_what_they_promise() {
    let mut server = Server::start(Store::RocksDb);
    let nobody = Api::new(server.api_address, None);
    assert_eq!(nobody.get("/healthz"), json!({ "alive": true }));
    let ready = nobody.get("/readyz");
    for (field, value) in
        [("ready", true), ("draining", false), ("may_write", true), ("store_reachable", true)]
    {
        assert_eq!(ready[field], value, "{ready}");
    }
    assert_eq!(ready["store"], "rocksdb");
    for log in ["control", "activity"] {
        let (applied, head) = (ready[log]["applied"].as_u64().unwrap(), ready[log]["head"].as_u64().unwrap());
        assert!(applied >= 1 && applied <= head, "{ready}");
    }
    let api = server.api();
    let info = api.get("/v1/server");
    assert_eq!(info["store"], "rocksdb");
    assert!(
        info["version"].is_string() && info["server_key"].is_string() && info["node"].is_string(),
        "{info}"
    );
    // Every answer says which request it answers, and what a browser may not do with it.
    let answer = api.send(Method::GET, "/v1/clients", None);
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("x-frame-options", "DENY")]
    {
        assert_eq!(answer.headers()[name], value);
    }
    assert!(answer.headers().contains_key("x-request-id"));
    assert!(answer.headers()["underpass-position"].to_str().unwrap().starts_with("control:"));
    assert_eq!(server.process.end(), 0);
}

#[test]
fn measurements_are_prometheus_text() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let (mut exposing, public) = laptop.expose(&[&echo().to_string()]);
    let tunnel = held(public);
    let api = server.api();
    let answer = api.send(Method::GET, "/metrics", None);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().unwrap();
    assert!(text.ends_with('\n'));
    let (mut helped, mut typed, mut series) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut histograms = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
            }
            ["#", "TYPE", name, kind] => {
                assert!(typed.insert(name.to_owned()), "{line}");
                assert!(matches!(kind, "gauge" | "counter" | "histogram"), "{line}");
                if kind == "histogram" {
                    histograms.insert(name.to_owned());
                }
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            }
            [series_name, value] => {
                value.parse::<f64>().unwrap();
                let (name, labels) = series_name.split_once('{').unwrap_or((series_name, "}"));
                let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let name = part.filter(|name| histograms.contains(*name)).unwrap_or(name);
                assert!(
                    name.starts_with("underpass_") && helped.contains(name) && typed.contains(name),
                    "{line}"
                );
                let labels = labels.strip_suffix('}').unwrap();
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (_, value) = label.split_once('=').unwrap();
                    assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
                    assert!(!value.contains("_01"), "no ids in labels: {line}");
                }
                assert!(series.insert(series_name.to_owned()), "twice: {line}");
            }
            _ => panic!("not of the format: {line}"),
        }
    }
    for expected in [
        "underpass_links 1",
        "underpass_tunnels 1",
        "underpass_clients{status=\"active\"} 1",
        "underpass_draining 0",
        "underpass_store_failed 0",
        "underpass_store_failures_total 0",
        "underpass_rocksdb_writes_stopped 0",
        "underpass_rocksdb_stall_seconds_total 0",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}: {text}");
    }
    let value = |series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}: {text}")).parse().unwrap()
    };
    for some in ["commits_total", "written_bytes_total", "sync_seconds_sum", "sync_seconds_count"] {
        assert!(value(&format!("underpass_store_{some}")) > 0.0, "{some}");
    }
    assert!(value("underpass_rocksdb_wal_bytes") > 0.0 && value("underpass_rocksdb_memtable_bytes") > 0.0);
    assert!(value("underpass_store_queue_requests") >= 0.0 && value("underpass_spool_facts") >= 0.0);
    let classes: Vec<f64> = ["0.0001", "0.001", "0.1", "1", "+Inf"]
        .map(|bound| value(&format!("underpass_store_sync_seconds_bucket{{le=\"{bound}\"}}")))
        .into();
    assert!(classes.is_sorted(), "each class holds those below it: {classes:?}");
    assert_eq!(classes.last().copied(), Some(value("underpass_store_sync_seconds_count")));
    drop(tunnel);
    assert_eq!(exposing.end(), 0);
}

#[test]
fn the_committed_spec_is_what_the_server_serves() {
    let node = Server::start(Store::Memory);
    let nobody = Api::new(node.api_address, None);
    for (path, file) in [("/openapi.json", "underpass.v1.json"), ("/openapi.yaml", "underpass.v1.yaml")] {
        let file: PathBuf = repository().join("openapi").join(file);
        let said = nobody.send(Method::GET, path, None).text().unwrap();
        assert!(
            said == std::fs::read_to_string(&file).unwrap(),
            "{} is old: run `make generate`",
            file.display()
        );
    }
}
