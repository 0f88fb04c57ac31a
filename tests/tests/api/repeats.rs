//! Repeats, versions, and lists that are read while others write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::api::Api;
use underpass_tests::{Server, Store};

use crate::{client_id, head, problem, refused};

fn keyed(api: &Api, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let answer = api.request(Method::POST, path).header("Idempotency-Key", key).json(body).send().unwrap();
    (answer.status().as_u16(), answer.json().unwrap())
}

#[test]
fn a_repeat_under_the_same_idempotency_key_is_the_same_request() {
    let mut server = Server::start(Store::RocksDb);
    let _laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let body =
        json!({ "name": "web", "ingress": "port", "target_client": client, "target": "127.0.0.1:3000" });
    let (status, first) = keyed(&api, "/v1/mappings", "make web", &body);
    assert_eq!(status, 201, "{first}");
    let after = head(&api);

    // Many at once, and again after a restart: one mapping, one answer.
    let again: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..8).map(|_| scope.spawn(|| keyed(&api, "/v1/mappings", "make web", &body))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    for (status, answer) in again {
        assert_eq!((status, &answer["id"], &answer["port"]), (201, &first["id"], &first["port"]), "{answer}");
    }
    assert_eq!(head(&api), after);
    assert_eq!(server.process.end(), 0);
    server.restart();
    let after = head(&api);
    assert_eq!(keyed(&api, "/v1/mappings", "make web", &body).1["id"], first["id"]);
    assert_eq!(head(&api), after);

    // Other content under the same key is a mistake, and so is the key on another route.
    let mut other = body.clone();
    other["name"] = json!("other");
    let reused = (409, json!("command.reused"));
    for (path, body) in [("/v1/mappings", &other), ("/v1/invites", &json!({ "label": "x" }))] {
        let (status, answer) = keyed(&api, path, "make web", body);
        assert_eq!((status, answer["code"].clone()), reused, "{path}: {answer}");
    }

    // What returned a secret can't return it again: it names what was made.
    for (path, body) in
        [("/v1/keys", json!({ "scopes": ["read"] })), ("/v1/invites", json!({ "label": "l" }))]
    {
        let (status, made) = keyed(&api, path, path, &body);
        assert_eq!(status, 201, "{made}");
        let (status, answer) = keyed(&api, path, path, &body);
        assert_eq!(
            (status, &answer["code"], &answer["resource"]),
            (409, &json!("command.repeated"), &made["id"])
        );
    }

    // Keys belong to who uses them: another's key of the same text is another request.
    let second = api.post("/v1/keys", &json!({ "scopes": ["admin"] }));
    let second = Api::new(server.api_address, second["token"].as_str());
    let (status, theirs) = keyed(&second, "/v1/mappings", "make web", &other);
    assert_eq!(status, 201, "{theirs}");
    assert_ne!(theirs["id"], first["id"]);

    for bad in ["", &"x".repeat(256)] {
        let request = api.request(Method::POST, "/v1/mappings").header("Idempotency-Key", bad).json(&body);
        assert_eq!(refused(request), (400, "request.parameter".to_owned()));
    }
}

#[test]
fn c56_a_write_to_another_version_is_412_and_changes_nothing() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let mapping = api.post(
        "/v1/mappings",
        &json!({ "name": "web", "ingress": "port", "target_client": client, "target": "127.0.0.1:3000" }),
    );
    let (mut sharing, _) = laptop.share("127.0.0.1:3001");
    assert_eq!(sharing.end(), 0);
    let id = |list: &str| api.get(list)["items"][0]["id"].as_str().unwrap().to_owned();
    api.post("/v1/keys", &json!({ "scopes": ["read"] }));
    let keys = api.get("/v1/keys")["items"].as_array().unwrap().clone();
    let spare =
        keys.iter().find(|key| key["scopes"] == json!(["read"])).unwrap()["id"].as_str().unwrap().to_owned();
    let mapping = format!("/v1/mappings/{}", mapping["id"].as_str().unwrap());
    let client = format!("/v1/clients/{client}");
    api.post("/v1/invites", &json!({}));
    let open = api.get("/v1/invites")["items"].as_array().unwrap().clone();
    let open =
        open.iter().rfind(|invite| invite["status"] == "open").unwrap()["id"].as_str().unwrap().to_owned();
    let writes = [
        (Method::PATCH, mapping.clone(), mapping.clone(), Some(json!({ "max_connections": 3 }))),
        (Method::POST, mapping.clone(), format!("{mapping}/disable"), None),
        (Method::POST, mapping.clone(), format!("{mapping}/enable"), None),
        (Method::DELETE, mapping.clone(), mapping, None),
        (Method::PATCH, client.clone(), client.clone(), Some(json!({ "name": "desk" }))),
        (Method::POST, client.clone(), format!("{client}/block"), Some(json!({ "reason": "test" }))),
        (Method::POST, client.clone(), format!("{client}/unblock"), None),
        (
            Method::DELETE,
            format!("/v1/codes/{}", id("/v1/codes")),
            format!("/v1/codes/{}", id("/v1/codes")),
            None,
        ),
        (Method::DELETE, format!("/v1/invites/{open}"), format!("/v1/invites/{open}"), None),
        (Method::DELETE, format!("/v1/keys/{spare}"), format!("/v1/keys/{spare}"), None),
        (Method::DELETE, client.clone(), client, None),
    ];
    for (method, thing, path, body) in writes {
        let tag = api.send(Method::GET, &thing, None).headers()["etag"].to_str().unwrap().to_owned();
        let ask = |tag: &str| {
            let request = api.request(method.clone(), &path).header("If-Match", tag);
            match &body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let before = head(&api);
        for stale in ["\"999\"", "999", "W/\"1\""] {
            assert_eq!(refused(ask(stale)), (412, "version.mismatch".to_owned()), "{method} {path}");
        }
        assert_eq!(head(&api), before, "{method} {path}");
        let done = ask(&tag).send().unwrap();
        assert_eq!(done.status(), 200, "{method} {path}: {}", done.text().unwrap());
        assert_eq!(head(&api), before + 1, "{method} {path}");
    }
}

#[test]
fn c56_of_many_who_have_seen_the_same_version_one_writes() {
    let server = Server::start(Store::RocksDb);
    let _laptop = server.client("laptop");
    let api = server.api();
    let mapping = api.post(
        "/v1/mappings",
        &json!({ "name": "web", "ingress": "port", "target_client": client_id(&api, "laptop"), "target": "127.0.0.1:3000" }),
    );
    let path = format!("/v1/mappings/{}", mapping["id"].as_str().unwrap());
    for round in 1..=10 {
        let seen = format!("\"{}\"", api.get(&path)["version"]);
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let write = |limit: u32| {
                let body = json!({ "max_connections": limit });
                api.request(Method::PATCH, &path)
                    .header("If-Match", &seen)
                    .json(&body)
                    .send()
                    .unwrap()
                    .status()
            };
            let writing: Vec<_> =
                (1..=8).map(|writer| scope.spawn(move || write(round * 100 + writer))).collect();
            writing.into_iter().map(|writing| writing.join().unwrap().as_u16()).collect()
        });
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 412).count(), 7, "{answers:?}");
    }
}

#[test]
fn conflicts_are_409_and_say_what_is_in_the_way() {
    let server = Server::start(Store::Memory);
    let _laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let body = |name: &str, port: Option<u64>| json!({ "name": name, "ingress": "port", "port": port, "target_client": client, "target": "127.0.0.1:3000" });
    let made = api.post("/v1/mappings", &body("web", None));
    let port = made["port"].as_u64();
    let answer = api.send(Method::POST, "/v1/mappings", Some(&body("other", port)));
    assert_eq!(problem(answer), (409, "port.taken".to_owned()));
    let answer = api.send(Method::POST, "/v1/mappings", Some(&body("web", None)));
    assert_eq!(problem(answer), (409, "name.taken".to_owned()));
    let disconnect = api.send(
        Method::POST,
        &format!("/v1/clients/{client}/disconnect"),
        Some(&json!({ "reason": "test" })),
    );
    assert_eq!(problem(disconnect), (409, "client.offline".to_owned()));
    let mut adopting = body("web", None);
    adopting["adopt"] = json!(true);
    assert_eq!(api.post("/v1/mappings", &adopting)["id"], made["id"]);
}

/// Says that it is over, also when the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// C57: what was there all the time is on the pages once, in order, whatever others do.
#[test]
fn lists_page_stably_while_others_write() {
    let server = Server::start(Store::Memory);
    let _laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let make = |name: String| {
        let body = json!({ "name": name, "ingress": "client", "listen_client": client, "listen": "127.0.0.1:0",
            "target_client": client, "target": "127.0.0.1:3000" });
        api.post("/v1/mappings", &body)["id"].as_str().unwrap().to_owned()
    };
    let remove =
        |id: &str| assert_eq!(api.send(Method::DELETE, &format!("/v1/mappings/{id}"), None).status(), 200);
    let all: Vec<_> = (0..60).map(|number| make(format!("m{number}"))).collect();
    let (staying, going): (Vec<_>, Vec<_>) =
        all.into_iter().enumerate().partition(|(number, _)| number % 3 != 0);
    let mut staying: Vec<String> = staying.into_iter().map(|(_, id)| id).collect();
    // What was made in the same millisecond is in no order among itself.
    staying.sort();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut going = going.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                going.push(make(format!("new{number}")));
                remove(&going.remove(0));
            }
        });
        let _stopped = SetOnDrop(&stop);
        for limit in [1, 2, 7, 59, 500] {
            let (mut after, mut seen) = (String::new(), Vec::new());
            loop {
                let page = api.get(&format!("/v1/mappings?limit={limit}{after}"));
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert!(seen.is_sorted(), "{seen:?}");
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "none is there twice");
            let stayed: Vec<_> = seen.into_iter().filter(|id| staying.contains(id)).collect();
            assert_eq!(stayed, staying, "limit {limit}");
        }
    });
    // Totals are right after deletes.
    let left = api.get("/v1/mappings?limit=500")["items"].as_array().unwrap().len();
    assert_eq!(left, 60);
    let metrics = api.send(Method::GET, "/metrics", None).text().unwrap();
    assert!(metrics.contains(&format!("underpass_mappings{{status=\"served\"}} {left}\n")), "{metrics}");
    // Filters.
    assert_eq!(
        api.get("/v1/mappings?q=m1&limit=500")["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| { !item["name"].as_str().unwrap().contains("m1") })
            .count(),
        0
    );
}
