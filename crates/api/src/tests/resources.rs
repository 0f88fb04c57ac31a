//! What the resources do.

use poem::http::Method;
use serde_json::{Value, json};
use underpass_control::Caller;
use underpass_control::testkit::code;
use underpass_domain::{ActivityCommand, Actor};

use super::Api;

fn web(client: &str) -> Value {
    json!({ "ingress": "port", "port": 20_017, "name": "web", "target_client": client, "target": "3000",
        "max_connections": 9 })
}

#[tokio::test]
async fn a_mapping_is_made_shown_changed_switched_and_removed() {
    let api = Api::open().await;
    let client = api.rig.client(1).await.to_string();
    let made = api.post("/v1/mappings", web(&client)).await.is(201);
    let path = made.header("location").to_owned();
    assert_eq!(path, format!("/v1/mappings/{}", made.json["id"].as_str().unwrap()));
    assert_eq!(made.json["target"], "127.0.0.1:3000");
    assert_eq!(made.json["seal"], "auto");
    assert_eq!(made.json["live"]["ends"][0]["state"], "port_in_use");

    let at = made.header("underpass-position").to_owned();
    let shown = api.get(&format!("{path}?at={at}")).await.is(200);
    assert_eq!(shown.json["port"], 20_017);
    assert_eq!(shown.json["usage"]["bytes_in"], 0);

    let changed = api.patch(&path, json!({ "target": "4000", "max_connections": null })).await.is(200);
    assert_eq!(changed.json["target"], "127.0.0.1:4000");
    assert_eq!(changed.json.get("max_connections"), None);
    assert_eq!(changed.json["name"], "web");
    assert_ne!(changed.header("etag"), shown.header("etag"));

    let off = api.ask(Method::POST, &format!("{path}/disable"), &[], None).await.is(200);
    assert_eq!((&off.json["status"], &off.json["serves"]), (&json!("disabled"), &json!(false)));
    let on = api.ask(Method::POST, &format!("{path}/enable"), &[], None).await.is(200);
    assert_eq!(on.json["serves"], true);

    let gone = api.delete(&path).await.is(200);
    assert_eq!(gone.json["changed"], true);
    api.get(&path).await.refuses(404, "mapping.not_found");
    api.rig.close().await;
}

#[tokio::test]
async fn c56_clashes_are_409_stale_versions_412_and_limits_403() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let made = api.post("/v1/mappings", web(&client.to_string())).await.is(201);
    let mut other = web(&client.to_string());
    other["name"] = json!("other");
    api.post("/v1/mappings", other).await.refuses(409, "port.taken");

    let path = made.header("location").to_owned();
    let old = made.header("etag").to_owned();
    api.patch(&path, json!({ "name": "shop" })).await.is(200);
    for (method, path) in [
        (Method::PATCH, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/disable")),
    ] {
        let body = json!({ "name": "late" });
        let body = (method == Method::PATCH).then_some(&body);
        api.ask(method, &path, &[("if-match", &old)], body).await.refuses(412, "version.mismatch");
    }
    let now = api.get(&path).await.header("etag").to_owned();
    api.ask(Method::DELETE, &path, &[("if-match", &now)], None).await.is(200);

    let offering = Caller::new(Actor::Client(client));
    for number in 0..10 {
        api.rig.control.issue_code(&offering, code(client, number).0).await.unwrap();
    }
    let eleventh = api.rig.control.issue_code(&offering, code(client, 11).0).await.unwrap_err();
    let problem = poem::IntoResponse::into_response(crate::Problem::from(eleventh));
    assert_eq!(problem.status(), 403);
    assert!(problem.into_body().into_string().await.unwrap().contains("quota.codes"));
    api.rig.close().await;
}

#[tokio::test]
async fn a_repeat_under_one_idempotency_key_is_the_same_request() {
    let api = Api::open().await;
    let client = api.rig.client(1).await.to_string();
    for key in ["1b4e28ba-2fa1-41d2-883f-0016d3cca427", "not a uuid"] {
        let mut wanted = web(&client);
        (wanted["name"], wanted["port"]) = (json!(format!("n{}", key.len())), Value::Null);
        let headers = [("idempotency-key", key)];
        let post = async |body: &Value| api.ask(Method::POST, "/v1/mappings", &headers, Some(body)).await;
        let first = post(&wanted).await.is(201);
        let again = post(&wanted).await.is(201);
        assert_eq!(again.json["id"], first.json["id"]);
        wanted["target"] = json!("5000");
        post(&wanted).await.refuses(409, "command.reused");

        // What a change comes to depends on what is there; what was asked for doesn't.
        let path = format!("/v1/mappings/{}", first.json["id"].as_str().unwrap());
        let headers = [("idempotency-key", format!("{key}, a change"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let fewer = json!({ "max_connections": 5 });
        for _ in 0..2 {
            let changed = api.ask(Method::PATCH, &path, &headers, Some(&fewer)).await.is(200);
            assert_eq!((&changed.json["max_connections"], &changed.json["version"]), (&json!(5), &json!(2)));
        }
    }
    assert_eq!(api.get("/v1/mappings").await.json["items"].as_array().unwrap().len(), 2);

    let headers = [("idempotency-key", "k")];
    let body = json!({ "scopes": ["read"] });
    let first = api.ask(Method::POST, "/v1/keys", &headers, Some(&body)).await.is(201);
    let again =
        api.ask(Method::POST, "/v1/keys", &headers, Some(&body)).await.refuses(409, "command.repeated");
    assert_eq!(again.json["resource"], first.json["id"]);
    let empty = [("idempotency-key", "")];
    api.ask(Method::POST, "/v1/keys", &empty, Some(&body)).await.refuses(400, "request.parameter");
    api.rig.close().await;
}

#[tokio::test]
async fn a_client_is_renamed_blocked_unblocked_disconnected_and_removed() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let path = format!("/v1/clients/{client}");
    assert_eq!(api.patch(&path, json!({ "name": "pi" })).await.is(200).json["name"], "pi");
    let blocked = api.post(&format!("{path}/block"), json!({ "reason": "stolen" })).await.is(200);
    assert_eq!(
        (&blocked.json["status"], &blocked.json["blocked_reason"]),
        (&json!("blocked"), &json!("stolen"))
    );
    let free = api.ask(Method::POST, &format!("{path}/unblock"), &[], None).await.is(200);
    assert_eq!(free.json["status"], "active");

    let reason = json!({ "reason": "maintenance" });
    api.post(&format!("{path}/disconnect"), reason.clone()).await.refuses(409, "client.offline");
    *api.gateway.client.lock().unwrap() = Some(client);
    assert_eq!(api.get(&path).await.json["link"]["transport"], "tcp");
    assert_eq!(api.get("/v1/clients?q=p").await.json["items"][0]["link"]["parked"], 2);
    api.post(&format!("{path}/disconnect"), reason).await.is(200);
    assert_eq!(api.get(&path).await.json.get("link"), None);

    api.post("/v1/mappings", web(&client.to_string())).await.is(201);
    api.delete(&path).await.is(200);
    assert_eq!(api.get("/v1/mappings").await.json["items"], json!([]));
    assert_eq!(api.get("/v1/clients").await.json["items"], json!([]));
    api.rig.close().await;
}

#[tokio::test]
async fn c57_lists_page_stably_while_others_write() {
    let api = Api::open().await;
    let mut wanted = Vec::new();
    for number in 0..25 {
        api.rig.clock.advance(std::time::Duration::from_millis(5));
        wanted.push(api.rig.client(number).await.to_string());
    }
    let (mut seen, mut path, mut number) = (Vec::new(), "/v1/clients?limit=4".to_owned(), 100);
    loop {
        let page = api.get(&path).await.is(200);
        let items = page.json["items"].as_array().unwrap();
        assert!(items.len() <= 4);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        // One that was shown goes; one comes at the end.
        api.delete(&format!("/v1/clients/{}", seen[0])).await;
        if number < 103 {
            api.rig.clock.advance(std::time::Duration::from_millis(5));
            wanted.push(api.rig.client(number).await.to_string());
            number += 1;
        }
        match page.json["next"].as_str() {
            Some(next) => path = format!("/v1/clients?limit=4&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, wanted);
    api.rig.close().await;
}

#[tokio::test]
async fn codes_invites_keys_sessions_and_nodes_are_listed_and_shown() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let code =
        api.rig.control.issue_code(&Caller::new(Actor::Client(client)), code(client, 1).0).await.unwrap().id;
    let session = api.state.control.new_session_id().unwrap();
    let open = ActivityCommand::OpenSession {
        session,
        client,
        node: api.state.control.node(),
        address: "198.51.100.7:50214".parse().unwrap(),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    };
    let recorded = api.rig.control.record(&Caller::system(), open).await.unwrap();
    let invite = api.post("/v1/invites", json!({ "label": "pi" })).await.is(201);

    let path = format!("/v1/codes/{code}");
    assert_eq!(api.get(&path).await.is(200).json["status"], "open");
    assert_eq!(
        api.get(&format!("/v1/codes?client={client}")).await.json["items"].as_array().unwrap().len(),
        1
    );
    api.delete(&path).await.is(200);
    assert_eq!(api.delete(&path).await.is(200).json["changed"], false);
    assert_eq!(api.get(&path).await.json["status"], "revoked");

    let path = invite.header("location").to_owned();
    assert_eq!(api.get(&path).await.is(200).json["label"], "pi");
    api.delete(&path).await.is(200);
    assert_eq!(api.get(&path).await.json["status"], "revoked");
    assert_eq!(api.get("/v1/invites").await.json["items"][0]["status"], "revoked");

    let at = format!("activity:{}", recorded.head);
    let sessions = api.get(&format!("/v1/sessions?open=true&client={client}&at={at}")).await.is(200);
    assert_eq!(sessions.json["items"][0]["id"], session.to_string());
    assert_eq!(api.get("/v1/sessions?open=false").await.json["items"], json!([]));
    assert_eq!(api.get(&format!("/v1/sessions/{session}")).await.is(200).json["open"], true);
    let of_client = api.get(&format!("/v1/clients/{client}/sessions")).await.is(200);
    assert_eq!(of_client.json["items"][0]["id"], session.to_string());
    let closed = ActivityCommand::CloseSession { session, reason: "gone home".into() };
    api.rig.control.record(&Caller::system(), closed).await.unwrap();
    assert_eq!(api.get(&format!("/v1/sessions/{session}")).await.json["reason"], "gone home");

    assert_eq!(api.get("/v1/nodes").await.json["items"][0]["this"], true);
    assert_eq!(
        api.get(&format!("/v1/nodes/{}", api.state.control.node())).await.is(200).json["name"],
        "gate"
    );
    let server = api.get("/v1/server").await.is(200);
    assert_eq!((&server.json["port_first"], &server.json["store"]), (&json!(20_000), &json!("memory")));
    api.rig.close().await;
}

#[tokio::test]
async fn a_read_waits_for_a_position_but_not_for_ever() {
    let api = Api::open().await;
    let head = api.state.control.state().position.0;
    let next = format!("/v1/clients?at=control:{}", head + 1);
    let (late, client) = tokio::join!(api.get(&next), api.rig.client(1));
    assert_eq!(late.is(200).json["items"][0]["id"], client.to_string());
    let never = api.get(&format!("/v1/clients?at={}", head + 100)).await.refuses(503, "position.ahead");
    assert_eq!(never.header("retry-after"), "1");
    api.get("/v1/clients?at=activity:1").await.refuses(400, "position.other_log");
    api.get("/v1/clients?at=yesterday").await.refuses(400, "request.parameter");
    api.rig.close().await;
}

#[tokio::test]
async fn readiness_ends_when_draining_begins_and_life_goes_on() {
    let api = Api::open().await;
    let ready = api.get("/readyz").await.is(200);
    assert_eq!(ready.json["control"]["applied"], ready.json["control"]["head"]);
    api.state.draining.cancel();
    let draining = api.get("/readyz").await.is(503);
    assert_eq!((&draining.json["ready"], &draining.json["draining"]), (&json!(false), &json!(true)));
    api.get("/healthz").await.is(200);
    api.get("/v1/clients").await.is(200);
    api.rig.close().await;
}

#[tokio::test]
async fn readiness_says_that_the_store_is_away() {
    let api = Api::open().await;
    api.store.close();
    let away = api.get("/readyz").await.is(503);
    assert_eq!((&away.json["store_reachable"], &away.json["ready"]), (&json!(false), &json!(false)));
    assert_eq!(away.json["control"].get("head"), None);
    let _ = api.rig.tasks.drain(std::time::Duration::from_secs(5)).await;
}

#[tokio::test]
async fn measurements_are_in_the_prometheus_text_format() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    *api.gateway.client.lock().unwrap() = Some(client);
    api.get("/v1/nothing").await.is(404);
    let metrics = api.get("/metrics").await.is(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in [
        "underpass_clients{status=\"active\"} 1",
        "underpass_links 1",
        "underpass_may_write 1",
        "underpass_api_requests_total{class=\"4xx\"} 1",
        "# TYPE underpass_mappings gauge",
    ] {
        assert!(metrics.text.lines().any(|one| one == line), "{line} is not in {}", metrics.text);
    }
    for line in metrics.text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("underpass_"), "{line}");
        value.parse::<u64>().unwrap();
    }
    api.rig.close().await;
}
