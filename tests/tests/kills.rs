//! C61: the server, or the etcd under it, is killed in the middle of writes, again and again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::api::Api;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Server, Store, eventually, now, run};

/// Writers at once.
const WRITERS: u32 = 4;

/// What a mapping is, after the last write that was acknowledged. While a write is under way and when it ends
/// without an answer, both what was and what was asked for are possible.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// Exactly this target, or no mapping.
    Surely(Option<String>),
    /// One of the two.
    Either(Option<String>, Option<String>),
}

type Book = Mutex<BTreeMap<String, Known>>;

/// A request that may find no server: its status and answer, or nothing.
fn ask(
    http: &reqwest::blocking::Client,
    server: &Target,
    method: Method,
    path: &str,
    body: &Value,
) -> Option<(u16, Value)> {
    let request = http.request(method, format!("{}{path}", server.base)).bearer_auth(&server.key);
    let answer = request.json(body).send().ok()?;
    let status = answer.status().as_u16();
    let text = answer.text().ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or_default()))
}

struct Target {
    base: String,
    key: String,
    client: String,
}

/// An answer without an outcome: the store didn't say.
fn is_away(status: u16, problem: &Value) -> bool {
    status == 503 && problem["code"] == "store.unavailable"
}

/// Makes, changes and removes mappings one after another until told to stop or until nobody knows.
fn write(server: &Target, writer: u32, round: u32, book: &Book, stop: &AtomicBool) -> u32 {
    let http = reqwest::blocking::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let mut acknowledged = 0;
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("m-{round}-{writer}-{nth}");
        let note = |known: Known| book.lock().unwrap().insert(name.clone(), known);
        let first = format!("127.0.0.1:{}", 1000 + nth % 1000);
        let second = format!("127.0.0.1:{}", 2000 + nth % 1000);

        note(Known::Either(None, Some(first.clone())));
        let body = json!({"name": name, "ingress": "client", "listen_client": server.client, "listen": "127.0.0.1:0",
                          "target_client": server.client, "target": first});
        let Some((status, made)) = ask(&http, server, Method::POST, "/v1/mappings", &body) else { break };
        if is_away(status, &made) {
            break;
        }
        assert_eq!(status, 201, "{made}");
        note(Known::Surely(Some(first.clone())));
        acknowledged += 1;
        let path = format!("/v1/mappings/{}", made["id"].as_str().unwrap());

        note(Known::Either(Some(first), Some(second.clone())));
        let change = json!({"target": second});
        let Some((status, changed)) = ask(&http, server, Method::PATCH, &path, &change) else { break };
        if is_away(status, &changed) {
            break;
        }
        assert_eq!(status, 200, "{changed}");
        note(Known::Surely(Some(second.clone())));
        acknowledged += 1;

        if nth % 2 == 0 {
            continue;
        }
        note(Known::Either(Some(second), None));
        let Some((status, gone)) = ask(&http, server, Method::DELETE, &path, &Value::Null) else { break };
        if is_away(status, &gone) {
            break;
        }
        assert!((200..300).contains(&status), "{status} {gone}");
        note(Known::Surely(None));
        acknowledged += 1;
    }
    acknowledged
}

/// All mappings there are: name and target.
fn there(api: &Api) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = api.get(&format!("/v1/mappings?limit=500{after}"));
        for item in page["items"].as_array().unwrap() {
            all.insert(
                item["name"].as_str().unwrap().to_owned(),
                item["target"].as_str().unwrap().to_owned(),
            );
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[test]
fn c61_what_was_acknowledged_is_there_after_every_kill() {
    outlives(Store::RocksDb, 20, Server::kill, Server::restart);
}

#[test]
fn c61_what_was_acknowledged_is_there_after_every_kill_of_a_node_on_etcd() {
    outlives(Store::Etcd, 6, Server::kill, Server::restart);
}

#[test]
fn c61_what_was_acknowledged_is_there_after_every_kill_of_etcd_itself() {
    let back = |server: &mut Server| {
        server.etcd().members()[0].restart();
        // What is written now comes behind everything that may still have been under way.
        eventually("a change is made", || {
            match server.api().call(Method::POST, "/v1/invites", Some(&json!({"ttl_s": 1}))) {
                (201, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    outlives(Store::Etcd, 4, |server| server.etcd().members()[0].kill(), back);
}

/// Writes, a `strike` in the midst of them, what brings all `back`; again and again.
fn outlives(store: Store, rounds: u32, strike: impl Fn(&mut Server), back: impl Fn(&mut Server)) {
    let kills = rounds * underpass_tests::torture();
    let mut server = Server::start_with(store, &[("store.etcd.request_timeout_s", "2")]);
    let (laptop, other, scratch) =
        (server.client("laptop"), server.client("other"), server.client("scratch"));
    let target = echo().to_string();
    let (mut exposing, public) = laptop.expose(&[&target, "--name", "web"]);
    let (mut sharing, code) = laptop.share(&target);
    let (mut connecting, private) = other.connect(&code);
    let scratch_id = {
        let mut up = scratch.up();
        up.end();
        server.api().client_id("scratch")
    };
    let book = Book::default();
    let mut heads = server.verified();
    let mut acknowledged = 0;

    for round in 0..kills {
        let goal = Target {
            base: format!("http://{}", server.api_address),
            key: std::fs::read_to_string(server.data().join("admin.key")).unwrap().trim().to_owned(),
            client: scratch_id.clone(),
        };
        let stop = AtomicBool::new(false);
        let done: u32 = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (goal, book, stop) = (&goal, &book, &stop);
                    scope.spawn(move || write(goal, writer, round, book, stop))
                })
                .collect();
            // Never at the same moment of a write.
            std::thread::sleep(Duration::from_millis(80 + u64::from(round) * 37 % 150));
            strike(&mut server);
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        acknowledged += done;
        back(&mut server);

        let found = there(&server.api());
        assert_eq!(found.get("web"), Some(&target), "round {round}");
        let mut book = book.lock().unwrap();
        for (name, known) in book.iter_mut() {
            let is = found.get(name).cloned();
            match known {
                Known::Surely(was) => assert_eq!(&is, was, "round {round}: {name} was acknowledged"),
                Known::Either(before, after) => {
                    assert!(
                        is == *before || is == *after,
                        "round {round}: {name} is {is:?}, which nobody asked for"
                    );
                    // From now on it is what it is.
                    *known = Known::Surely(is);
                }
            }
        }
        let unasked: Vec<_> =
            found.keys().filter(|name| name.starts_with("m-") && !book.contains_key(*name)).collect();
        assert!(unasked.is_empty(), "{unasked:?}");
        // Room for the next rounds: a client has a bounded number of mappings.
        if book.len() > 500 {
            let api = server.api();
            let page = api.get("/v1/mappings?limit=500");
            for item in page["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|item| item["target_client"] == scratch_id.as_str())
            {
                let (status, answer) =
                    api.call(Method::DELETE, &format!("/v1/mappings/{}", item["id"].as_str().unwrap()), None);
                assert!((200..300).contains(&status), "{answer}");
            }
            let left = there(&api);
            book.retain(|name, _| left.contains_key(name));
        }
        drop(book);

        let (control, activity) = server.verified();
        assert!(control >= heads.0 && activity >= heads.1, "round {round}: the log went back");
        heads = (control, activity);
        // Agents wait longer after each loss; whether they come back is asked while that is short, and at the end.
        if round < 3 {
            tunnels_work(&[public, private], Duration::from_secs(30), round);
        }
    }
    assert!(acknowledged > kills * 5, "only {acknowledged} writes in {kills} rounds");

    tunnels_work(&[public, private], Duration::from_secs(90), kills);
    assert_eq!((connecting.end(), sharing.end(), exposing.end()), (0, 0, 0));
    assert_eq!(server.process.end(), 0);
    // And with nobody serving it.
    let verify = run(&["log", "verify", "--data", &server.data_text()]);
    assert_eq!(verify.last()["ok"], true);
}

fn tunnels_work(addresses: &[std::net::SocketAddr], within: Duration, round: u32) {
    for address in addresses {
        let deadline = now() + within;
        while let Err(why) = echoes(*address) {
            assert!(now() < deadline, "after kill {round}: {address}: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
