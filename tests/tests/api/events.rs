//! What happened: pages, streams, and what was there then.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use underpass_tests::api::Api;
use underpass_tests::{Server, Store, eventually, run};

use crate::{client_id, head, position, refused};

fn pages(api: &Api, query: &str, limit: usize) -> Vec<Value> {
    let (mut after, mut events) = (String::new(), Vec::new());
    loop {
        let page = api.get(&format!("/v1/events?limit={limit}{query}{after}"));
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        events.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return events,
        }
    }
}

/// What browsers call an event source: it comes back where it was.
struct Source {
    url: String,
    token: String,
    http: Client,
    last: Option<String>,
    lines: Option<std::io::Lines<BufReader<reqwest::blocking::Response>>>,
    connections: usize,
}

impl Source {
    fn new(server: &Server, query: &str) -> Self {
        Self {
            url: format!("http://{}/v1/events?follow=true{query}", server.api_address),
            token: std::fs::read_to_string(server.data().join("admin.key")).unwrap().trim().to_owned(),
            // A stream that is silent for so long has failed the test.
            http: Client::builder().timeout(Duration::from_mins(1)).build().unwrap(),
            last: None,
            lines: None,
            connections: 0,
        }
    }

    fn connect(&mut self) -> std::io::Lines<BufReader<reqwest::blocking::Response>> {
        let answer = eventually("the stream opens", || {
            let mut request = self.http.get(&self.url).bearer_auth(&self.token);
            if let Some(last) = &self.last {
                request = request.header("Last-Event-ID", last);
            }
            let answer = request.send().map_err(|error| error.to_string())?;
            match answer.status().as_u16() {
                200 => Ok(answer),
                status => Err(format!("{status} {}", answer.text().unwrap_or_default())),
            }
        });
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        self.connections += 1;
        BufReader::new(answer).lines()
    }

    /// The next event; when the stream ends, it goes on from where it was.
    fn next(&mut self) -> Value {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), String::new());
        loop {
            let mut lines = match self.lines.take() {
                Some(lines) => lines,
                None => self.connect(),
            };
            let Some(Ok(line)) = lines.next() else {
                // Half an event doesn't count.
                (id, kind, data) = Default::default();
                continue;
            };
            self.lines = Some(lines);
            match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => data.push_str(value),
                None if line.is_empty() && !data.is_empty() => {
                    let event: Value = serde_json::from_str(&data).unwrap();
                    assert_eq!((&event["position"], &event["event"]), (&json!(id), &json!(kind)));
                    self.last = Some(id);
                    return event;
                }
                _ => {}
            }
        }
    }

    /// Breaks the connection.
    fn lose(&mut self) {
        self.lines = None;
    }
}

#[test]
fn events_page_densely_and_by_filter() {
    let server = Server::start(Store::RocksDb);
    let _laptop = server.client("laptop");
    let api = server.api();
    for number in 0..30 {
        api.post("/v1/invites", &json!({ "label": format!("{number}") }));
    }
    for log in ["control", "activity"] {
        let query = format!("&log={log}");
        let all = pages(&api, &query, 500);
        for (number, event) in all.iter().enumerate() {
            assert_eq!(event["position"], format!("{log}:{}", number + 1));
            for field in ["recorded_at", "node", "event", "stream", "command", "actor", "sentence"] {
                assert!(event[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {event}");
            }
        }
        assert_eq!(all[0]["event"], "log.created");
        for limit in [1, 7] {
            assert_eq!(pages(&api, &query, limit), all, "{log} by {limit}");
        }
    }
    let invites = pages(&api, "&types=invite.issued", 4);
    assert!(invites.len() >= 31 && invites.iter().all(|event| event["event"] == "invite.issued"));
    assert!(
        invites.iter().filter(|event| event["actor"].as_str().unwrap().starts_with("key/")).count() == 30
    );
    let stream = format!("client/{}", client_id(&api, "laptop"));
    let of_client = pages(&api, &format!("&stream={stream}"), 2);
    assert_eq!(of_client[0]["event"], "client.enrolled");
    assert!(of_client.iter().all(|event| event["stream"] == stream.as_str()));
    // The command line reads the same log.
    let shown = run(&["log", "show", "--data", &server.data_text()]);
    let positions =
        |events: &[Value]| events.iter().map(|event| event["position"].clone()).collect::<Vec<_>>();
    assert_eq!(positions(&shown.lines), positions(&pages(&api, "", 500)));
    // A cursor from a longer log than this one is not the end of it.
    let ahead = refused(api.request(Method::GET, "/v1/events?after=control:99999"));
    assert_eq!(ahead, (503, "position.ahead".to_owned()));
}

/// C58: no gap and no double, over lost connections, a clean restart and SIGKILL.
#[test]
fn c58_a_stream_goes_on_where_it_was_without_gap_or_double() {
    let mut server = Server::start(Store::RocksDb);
    let mut source = Source::new(&server, "");
    let mut filtered = Source::new(&server, "&types=invite.issued");
    let mut seen = Vec::new();
    let write = |server: &Server, count: usize| {
        let api = server.api();
        for _ in 0..count {
            api.post("/v1/invites", &json!({}));
        }
        head(&api)
    };
    let read_to = |source: &mut Source, seen: &mut Vec<Value>, end: u64| {
        while seen.last().is_none_or(|event: &Value| position(&event["position"]) < end) {
            seen.push(source.next());
        }
    };
    // What was there before and what comes while it follows.
    let end = write(&server, 5);
    read_to(&mut source, &mut seen, end);
    let end = write(&server, 5);
    read_to(&mut source, &mut seen, end - 2);
    source.lose();
    let end = write(&server, 5);
    read_to(&mut source, &mut seen, end - 1);
    // It reads while the server goes, cleanly and not.
    for clean in [true, false] {
        let end = write(&server, 3);
        if clean {
            assert_eq!(server.process.end(), 0, "a stream does not keep a server from ending");
        } else {
            server.kill();
        }
        server.restart();
        let end = end.max(write(&server, 3));
        read_to(&mut source, &mut seen, end);
    }
    assert_eq!(source.connections, 4);
    let api = server.api();
    assert_eq!(seen, pages(&api, "", 500)[..seen.len()]);
    assert_eq!(position(&seen.last().unwrap()["position"]), head(&api));

    let expected = pages(&api, "&types=invite.issued", 500);
    for event in &expected {
        assert_eq!(&filtered.next(), event);
        filtered.lose();
    }
    // From any position, also one in the middle.
    for after in (0..end).step_by(7) {
        let mut from = Source::new(&server, &format!("&after=control:{after}"));
        assert_eq!(position(&from.next()["position"]), after + 1);
    }
}

#[test]
fn a_snapshot_of_a_position_or_a_time_is_what_was_there_then() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let things = ["clients", "mappings", "codes", "invites", "keys", "nodes"];
    // What changes without an event, or is not in the log, is not compared.
    let plain = |mut items: Value| {
        for item in items.as_array_mut().unwrap() {
            let item = item.as_object_mut().unwrap();
            for passing in ["link", "last_used_at"] {
                item.remove(passing);
            }
        }
        items
    };
    let lists = || things.map(|of| plain(api.get(&format!("/v1/{of}?limit=500"))["items"].clone()));
    let mut then: Vec<(u64, [Value; 6])> = Vec::new();
    let mut note = || {
        then.push((head(&api), lists()));
        // Times of the log are milliseconds.
        std::thread::sleep(Duration::from_millis(3));
    };
    note();
    let made = api.post(
        "/v1/mappings",
        &json!({ "name": "web", "ingress": "port", "target_client": client, "target": "127.0.0.1:3000" }),
    );
    note();
    let path = format!("/v1/mappings/{}", made["id"].as_str().unwrap());
    api.post(&format!("{path}/disable"), &json!({}));
    note();
    assert_eq!(api.send(Method::PATCH, &path, Some(&json!({ "target": "127.0.0.1:3001" }))).status(), 200);
    note();
    let (mut sharing, _) = laptop.share("127.0.0.1:22");
    assert_eq!(sharing.end(), 0);
    api.post("/v1/keys", &json!({ "scopes": ["read"], "label": "dashboard" }));
    api.post("/v1/invites", &json!({ "label": "guest" }));
    note();
    api.post(&format!("/v1/clients/{client}/block"), &json!({ "reason": "stolen" }));
    note();
    assert_eq!(api.send(Method::DELETE, &format!("/v1/clients/{client}"), None).status(), 200);
    note();
    let events = pages(&api, "", 500);
    for (at, lists) in &then {
        let recorded = events[usize::try_from(*at).unwrap() - 1]["recorded_at"].as_str().unwrap();
        for moment in [format!("position=control:{at}"), format!("position={at}"), format!("time={recorded}")]
        {
            for (of, list) in things.iter().zip(lists) {
                let snapshot = api.get(&format!("/v1/snapshots/control?{moment}&of={of}&limit=500"));
                assert_eq!(plain(snapshot[of].clone()), *list, "{of} at {moment}");
                assert_eq!(snapshot["position"], format!("control:{at}"), "{moment}");
            }
        }
    }
    assert_ne!(then[0].1, then[6].1);
    let now = api.get("/v1/snapshots/control");
    assert_eq!(now["mappings"], json!([]));
    assert_eq!(now["hash"], api.get("/v1/logs/control/head")["hash"]);
    assert_eq!(api.get("/v1/logs/control/verify")["ok"], true);
    let sessions = api.get("/v1/snapshots/activity?limit=500")["sessions"].clone();
    assert_eq!(sessions, api.get("/v1/sessions?limit=500")["items"]);
    let before =
        refused(api.request(Method::GET, "/v1/snapshots/control?time=2001-01-01T00:00:00Z&position=1"));
    assert_eq!(before, (400, "request.parameter".to_owned()));
    let ahead = refused(api.request(Method::GET, "/v1/snapshots/control?position=99999"));
    assert_eq!(ahead, (503, "position.ahead".to_owned()));
}
