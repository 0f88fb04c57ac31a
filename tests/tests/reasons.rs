//! Why things are as they are, and how they become what they were: `explain`, `undo`, `history`, `log replay` and
//! `log diff`, which must say the same of the same log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Client, Done, Server, Store, eventually, run};

/// What an administrator asks, on the data folder.
struct Admin {
    data: String,
}

impl Admin {
    fn ask(&self, arguments: &[&str]) -> Done {
        run(&[arguments, &["--data", &self.data]].concat())
    }

    #[track_caller]
    fn explain(&self, what: &str) -> Value {
        self.ask(&["explain", what]).last().clone()
    }

    #[track_caller]
    fn undo(&self, position: &str) -> Value {
        let undone = self.ask(&["undo", position]).last().clone();
        assert_eq!((&undone["event"], &undone["undone"]), (&json!("undone"), &json!(position)));
        for event in undone["events"].as_array().unwrap() {
            assert_eq!(event["causation"], position, "{undone}");
        }
        undone
    }

    #[track_caller]
    fn history(&self, mapping: &str) -> Vec<Value> {
        let done = self.ask(&["history", mapping]);
        assert_eq!(done.code, 0, "{done:?}");
        done.lines
    }

    fn head(&self) -> u64 {
        self.ask(&["log", "verify"]).last()["head"].as_u64().unwrap()
    }

    /// The mappings as of a position, without what no undo brings back.
    #[track_caller]
    fn as_of(&self, position: u64) -> Vec<Value> {
        let snapshot = self.ask(&["log", "replay", "--as-of", &position.to_string()]).last().clone();
        assert_eq!(snapshot["position"], format!("control:{position}"));
        let mut mappings = snapshot["mappings"].as_array().unwrap().clone();
        for mapping in &mut mappings {
            let shown = mapping.as_object_mut().unwrap();
            shown.remove("version");
            // Whether it is served depends on other things, too.
            shown.remove("serves");
        }
        mappings
    }

    /// What `log diff` says of mappings: how they differ, and in which fields.
    #[track_caller]
    fn diff(&self, from: u64, to: u64) -> Vec<(String, Vec<String>)> {
        let difference = self.ask(&["log", "diff", &from.to_string(), &to.to_string()]).last().clone();
        assert_eq!(difference["cut"], false);
        let items = difference["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "mapping");
        let fields = |item: &Value| {
            let fields = item["fields"].as_array().unwrap().iter();
            fields.map(|field| field["field"].as_str().unwrap().to_owned()).collect()
        };
        items.map(|item| (item["change"].as_str().unwrap().to_owned(), fields(item))).collect()
    }
}

#[track_caller]
fn found(explained: &Value) -> Vec<String> {
    let findings = explained["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// The first event behind the first finding.
#[track_caller]
fn cited(explained: &Value) -> Value {
    explained["findings"][0]["events"][0].clone()
}

#[track_caller]
fn number(position: &Value) -> u64 {
    position.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// A mapping that the agent of a client serves: its id and public address.
fn exposed(client: &Client, target: &str) -> (String, SocketAddr) {
    let open = client.run(&["expose", target, "--name", "web", "--detach"]);
    let public = open.text("public").parse().unwrap();
    eventually("it is served", || echoes(public));
    (open.text("mapping"), public)
}

/// C64: what explains a mapping, what its history says, what undoing does and what was there then, agree.
#[test]
fn c64_replay_history_explain_undo_and_diff_agree() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let admin = Admin { data: server.data_text() };
    let _agent = laptop.up();
    let target = echo().to_string();
    let (id, public) = exposed(&laptop, &target);
    let begin = admin.head();
    let well = admin.explain("web");
    assert_eq!((found(&well), &well["answers"]), (vec!["mapping.answers".to_owned()], &json!(true)));

    // Switched off: the explanation cites the event of the history, and undoing that event switches it on.
    let path = format!("/v1/mappings/{id}");
    server.api().post(&format!("{path}/disable"), &json!({}));
    let off = admin.explain("web");
    assert_eq!((found(&off), &off["answers"]), (vec!["mapping.disabled".to_owned()], &json!(false)));
    let last = admin.history("web").pop().unwrap();
    assert_eq!(cited(&off)["position"], last["position"]);
    assert_eq!(cited(&off)["sentence"], last["sentence"]);
    let off_at = number(&last["position"]);
    assert_eq!(admin.as_of(off_at)[0]["status"], "disabled");
    assert_eq!(admin.diff(begin, off_at), [("changed".to_owned(), vec!["status".to_owned()])]);
    admin.undo(last["position"].as_str().unwrap());
    eventually("it is served again", || echoes(public));
    assert_eq!(found(&admin.explain("web")), ["mapping.answers"]);

    // Changed, and changed back.
    let (status, _) = server.api().call(Method::PATCH, &path, Some(&json!({ "name": "site" })));
    assert_eq!(status, 200);
    let renamed = admin.history(&id).pop().unwrap();
    admin.undo(renamed["position"].as_str().unwrap());

    // Removed: it comes back with its id, its name and its port, and is served without anybody doing more.
    admin.ask(&["rm", "web"]).last();
    let gone = admin.explain("web");
    assert_eq!((found(&gone), &gone["id"]), (vec!["mapping.removed".to_owned()], &json!(id)));
    assert_eq!(admin.explain(&id), gone);
    assert!(echoes(public).is_err());
    let removed_at = cited(&gone)["position"].as_str().unwrap().to_owned();
    assert_eq!(removed_at, admin.history(&id).pop().unwrap()["position"].as_str().unwrap());
    assert_eq!(admin.as_of(number(&json!(removed_at))), Vec::<Value>::new());
    let undone = admin.undo(&removed_at);
    assert_eq!(undone["events"][0]["event"], "mapping.restored");
    eventually("it is served once more", || echoes(public));
    let after = number(&undone["position"]);
    assert_eq!(admin.as_of(after), admin.as_of(begin), "all is as it was");
    assert_eq!(admin.diff(begin, after), []);

    // Step by step, the differences are those of the replays.
    for position in begin..after {
        let (before, after) = (admin.as_of(position), admin.as_of(position + 1));
        let expected = match (before.len(), after.len()) {
            (0, 1) => vec!["added"],
            (1, 0) => vec!["removed"],
            _ if before == after => vec![],
            _ => vec!["changed"],
        };
        let told = admin.diff(position, position + 1);
        let told: Vec<_> = told.iter().map(|(change, _)| change.as_str()).collect();
        assert_eq!(told, expected, "from {position}");
    }

    // The client sees the same history, with its causes.
    let own = laptop.run(&["history", "web"]);
    let causes = |lines: &[Value]| lines.iter().map(|it| it["causation"].clone()).collect::<Vec<_>>();
    let history = admin.history("web");
    assert_eq!(causes(&own.lines), causes(&history));
    assert_eq!(history.last().unwrap()["causation"], removed_at);
    let kinds: Vec<_> = history.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = ["created", "disabled", "enabled", "changed", "changed", "removed", "restored"];
    assert_eq!(kinds, expected.map(|what| format!("mapping.{what}")));
    server.verified();
}

#[test]
fn what_can_not_be_undone_or_explained_says_why() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let admin = Admin { data: server.data_text() };
    let _agent = laptop.up();
    let (id, _) = exposed(&laptop, &echo().to_string());
    let made = admin.history(&id).pop().unwrap()["position"].as_str().unwrap().to_owned();
    admin.undo(&made);
    let again = admin.ask(&["undo", &made]);
    again.failed(3, "undo.changed_since");
    let hint = again.error["hint"].as_str().unwrap();
    let first = hint.rsplit(' ').next().unwrap();
    assert_eq!(admin.undo(&format!("control:{first}"))["events"][0]["event"], "mapping.restored");

    admin.ask(&["undo", "1"]).failed(3, "undo.none");
    admin.ask(&["undo", "activity:1"]).failed(3, "undo.none");
    admin.ask(&["undo", "99999"]).failed(4, "event.not_found");
    admin.ask(&["undo", "yesterday"]).failed(2, "usage");
    admin.ask(&["explain", "nothing"]).failed(4, "explain.not_found");
    admin.ask(&["explain", "a/b"]).failed(4, "explain.not_found");
    admin.ask(&["log", "diff", "sometime"]).failed(2, "usage");
    admin.ask(&["log", "diff", "99999"]).failed(1, "position.ahead");
}

/// C8: who runs the server learns what the client is not told.
#[test]
fn c8_a_blocked_client_is_explained_and_let_in_again_by_undoing_that() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let admin = Admin { data: server.data_text() };
    let mut agent = laptop.up();
    let (id, public) = exposed(&laptop, &echo().to_string());
    assert_eq!(found(&admin.explain("laptop")), ["client.linked"]);
    let client = server.api().client_id("laptop");
    server.api().post(&format!("/v1/clients/{client}/block"), &json!({ "reason": "left in a train" }));
    agent.wait();
    laptop.run(&["up"]).failed(10, "link.refused");
    eventually("the refusal is known", || {
        let found = found(&admin.explain("laptop"));
        let expected = ["client.blocked", "client.refused"];
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let blocked = admin.explain(&client);
    assert!(blocked["findings"][0]["sentence"].as_str().unwrap().contains("left in a train"), "{blocked}");
    assert!(blocked["findings"][1]["sentence"].as_str().unwrap().contains("is blocked"), "{blocked}");
    assert_eq!(found(&admin.explain(&id)), ["target.blocked"]);

    admin.undo(cited(&blocked)["position"].as_str().unwrap());
    assert_eq!(found(&admin.explain(&id)), ["target.offline"]);
    let _agent = laptop.up();
    eventually("it is served again", || echoes(public));
    assert_eq!(found(&admin.explain(&id)), ["mapping.answers"]);
}

#[test]
fn the_same_works_on_a_folder_whose_server_does_not_run() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let admin = Admin { data: server.data_text() };
    let _agent = laptop.up();
    let (id, public) = exposed(&laptop, &echo().to_string());
    let begin = admin.head();
    admin.ask(&["rm", "web"]).last();
    assert_eq!(server.process.end(), 0);

    let gone = admin.explain("web");
    assert_eq!(found(&gone), ["mapping.removed"]);
    admin.undo(cited(&gone)["position"].as_str().unwrap());
    let back = admin.explain(&id);
    assert_eq!(back["answers"], false);
    assert!(found(&back).contains(&"server.stopped".to_owned()), "{back}");
    assert_eq!(admin.as_of(begin), admin.as_of(admin.head()));

    server.restart();
    eventually("it is served after the restart", || echoes(public));
}

/// What a client allows is its own: an undo on the server brings back a mapping, and no permission.
#[test]
fn a_mapping_that_its_client_gave_up_comes_back_without_the_clients_permission() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let admin = Admin { data: server.data_text() };
    let _agent = laptop.up();
    let target = echo().to_string();
    let (id, public) = exposed(&laptop, &target);
    laptop.run(&["rm", "web"]).last();
    admin.undo(cited(&admin.explain(&id))["position"].as_str().unwrap());
    eventually("the client says that it does not allow the target", || {
        let found = found(&admin.explain(&id));
        if found == ["target.denied"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert!(echoes(public).is_err());
    // Asking for it again allows it again, and adopts the mapping.
    let again = laptop.run(&["expose", &target, "--name", "web", "--detach"]);
    assert_eq!(again.text("mapping"), id);
    eventually("it is served again", || echoes(public));
}
