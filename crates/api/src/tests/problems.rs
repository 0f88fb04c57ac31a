//! Requests that can't be done.

use std::sync::Arc;
use std::time::Duration;

use poem::Body;
use poem::http::Method;
use serde_json::json;
use underpass_store::{ExpirableStore, KvStore};

use super::{Api, answer};
use crate::shell::PASSED_OVER_BYTES_MAX;
use crate::{BODY_BYTES_MAX, PROBLEM_JSON};

#[tokio::test]
async fn c56_what_no_handler_sees_is_a_problem_document_too() {
    let api = Api::open().await;
    api.get("/v1/nothing").await.refuses(404, "route.not_found");
    api.get("/v1/clients/").await.refuses(404, "route.not_found");
    let put = api.ask(Method::PUT, "/v1/clients", &[], Some(&json!({}))).await.refuses(405, "route.method");
    assert_eq!(put.header("allow"), "GET, HEAD");
    api.get("/v1/clients?limt=5").await.refuses(400, "request.parameter");
    api.get("/v1/clients?limit=0").await.refuses(400, "request.parameter");
    api.get("/v1/clients?limit=501").await.refuses(400, "request.parameter");
    api.get("/v1/clients?limit=x").await.refuses(400, "request.parameter");
    api.get("/v1/clients?after=x").await.refuses(400, "request.parameter");
    api.post("/v1/invites", json!({ "label": "x", "ttl": 60 })).await.refuses(400, "request.malformed");
    api.post("/v1/invites", json!({ "label": ["x"] })).await.refuses(400, "request.malformed");
    api.post("/v1/keys", json!({ "scopes": ["root"] })).await.refuses(400, "request.malformed");
    api.post("/v1/keys", json!({ "scopes": [] })).await.refuses(400, "request.malformed");

    let bearer = format!("Bearer {}", api.admin.expose());
    let send = async |kind: Option<&str>, body: Body| {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(kind.map(|kind| ("content-type", kind)));
        answer(api.ask_with(Method::POST, "/v1/invites", &headers, Some(body)).await).await
    };
    send(None, Body::from("{}")).await.refuses(415, "request.media_type");
    send(Some("text/xml"), Body::from("<a/>")).await.refuses(415, "request.media_type");
    send(Some("application/json"), Body::from("{\"label\":")).await.refuses(400, "request.malformed");
    send(Some("application/json"), Body::from(vec![0xFF, 0xFE])).await.refuses(400, "request.malformed");
    api.rig.close().await;
}

/// C56: a body without a declared length is counted while it comes.
#[tokio::test]
async fn c56_a_body_over_the_limit_is_refused_while_it_comes() {
    let api = Api::open().await;
    let bearer = format!("Bearer {}", api.admin.expose());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (sent, count) = (Arc::new(std::sync::atomic::AtomicUsize::new(0)), 10_000);
    let counter = Arc::clone(&sent);
    let chunks = futures_util::stream::iter((0..count).map(move |_| {
        counter.fetch_add(4096, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, std::io::Error>(vec![b' '; 4096])
    }));
    let body = Body::from_bytes_stream(chunks);
    let refused = api.ask_with(Method::POST, "/v1/invites", &headers, Some(body)).await;
    answer(refused).await.refuses(413, "request.too_large");
    let read = sent.load(std::sync::atomic::Ordering::SeqCst);
    // What is over the limit is passed over for a while, so that the caller hears the answer, but not for ever.
    let bound = BODY_BYTES_MAX + PASSED_OVER_BYTES_MAX;
    assert!(read <= bound + 64 * 1024 && bound < count * 4096, "{read} bytes were read");

    let declared = [headers.as_slice(), &[("content-length", "9999999999")]].concat();
    let refused = api.ask_with(Method::POST, "/v1/invites", &declared, Some(Body::empty())).await;
    answer(refused).await.refuses(413, "request.too_large");
    api.rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let api = Api::open().await;
    let bearer = format!("Bearer {}", api.admin.expose());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = Body::from_bytes_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let refused = api.ask_with(Method::POST, "/v1/invites", &headers, Some(body)).await;
    answer(refused).await.refuses(408, "request.too_slow");
    api.rig.close().await;
}

#[tokio::test]
async fn c56_unknown_ids_are_404_whatever_they_look_like() {
    let api = Api::open().await;
    let nobody = underpass_domain::ClientId::from_bytes([9; 16]).to_string();
    for id in ["x", "%00", "client_", &nobody] {
        api.get(&format!("/v1/clients/{id}")).await.refuses(404, "client.unknown");
        api.delete(&format!("/v1/clients/{id}")).await.refuses(404, "client.unknown");
        api.patch(&format!("/v1/clients/{id}"), json!({ "name": "a" })).await.refuses(404, "client.unknown");
    }
    let unknown = |prefix: &str| nobody.replace("client", prefix);
    api.get(&format!("/v1/mappings/{}", unknown("mapping"))).await.refuses(404, "mapping.not_found");
    api.delete(&format!("/v1/mappings/{}", unknown("mapping"))).await.refuses(404, "mapping.not_found");
    api.get(&format!("/v1/codes/{}", unknown("code"))).await.refuses(404, "code.unknown");
    api.delete(&format!("/v1/codes/{}", unknown("code"))).await.refuses(404, "code.unknown");
    api.delete(&format!("/v1/invites/{}", unknown("invite"))).await.refuses(404, "invite.unknown");
    api.delete(&format!("/v1/keys/{}", unknown("key"))).await.refuses(404, "key.not_found");
    api.get(&format!("/v1/sessions/{}", unknown("session"))).await.refuses(404, "session.not_found");
    api.get(&format!("/v1/nodes/{}", unknown("node"))).await.refuses(404, "node.not_found");
    api.get("/v1/logs/other/head").await.refuses(404, "log.not_found");
    api.rig.close().await;
}

#[tokio::test]
async fn c56_what_makes_no_sense_is_422_and_names_its_field() {
    let api = Api::open().await;
    let client = api.rig.client(1).await.to_string();
    let wrong = [
        (json!({ "ingress": "port", "target_client": "x", "target": "80" }), "target_client"),
        (json!({ "ingress": "port", "target_client": client, "target": "80:80:80" }), "target"),
        (json!({ "ingress": "port", "target_client": client, "target": "80", "port": 80 }), "port"),
        (
            json!({ "ingress": "port", "target_client": client, "target": "80", "listen": "127.0.0.1:1" }),
            "listen",
        ),
        (
            json!({ "ingress": "client", "target_client": client, "target": "80", "listen": "127.0.0.1:1" }),
            "listen_client",
        ),
        (json!({ "ingress": "port", "target_client": client, "target": "80", "name": "no spaces" }), "name"),
        (
            json!({ "ingress": "port", "target_client": client, "target": "80", "expires_at": "soon" }),
            "expires_at",
        ),
        (
            json!({ "ingress": "port", "target_client": client, "target": "80", "max_connections": 0 }),
            "max_connections",
        ),
    ];
    for (body, field) in wrong {
        let refused = api.post("/v1/mappings", body.clone()).await.is(422);
        assert_eq!(refused.json["field"], field, "{body}: {}", refused.text);
        assert_eq!(refused.header("content-type"), PROBLEM_JSON);
    }
    assert_eq!(api.get("/v1/mappings").await.json["items"], json!([]));
    api.rig.close().await;
}

#[tokio::test]
async fn c56_without_its_lease_the_node_says_when_to_come_back() {
    let api = Api::open().await;
    let client = api.rig.client(1).await.to_string();
    let store = Arc::clone(&api.store);
    let node = underpass_store::Key::from(format!("node/{}", api.state.control.node()));
    let lease = store.get(&node).await.unwrap().unwrap().lease.unwrap();
    store.revoke(lease).await.unwrap();

    let refused = api.post(&format!("/v1/clients/{client}/block"), json!({ "reason": "x" })).await;
    let refused = refused.refuses(503, "store.unavailable");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    api.get(&format!("/v1/clients/{client}")).await.is(200);
    assert_eq!(api.get(&format!("/v1/clients/{client}")).await.json["status"], "active");
    let _ = api.rig.tasks.drain(Duration::from_secs(5)).await;
}
