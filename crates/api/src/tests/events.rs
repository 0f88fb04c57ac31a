//! Events, streams of them, replay and verification.

use futures_util::StreamExt;
use poem::http::Method;
use poem::web::sse::Event;
use serde_json::{Value, json};

use super::Api;

/// Follows `path` with these headers and takes the first `count` events: their ids and data.
async fn follow(api: &Api, path: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let bearer = format!("Bearer {}", api.admin.expose());
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(last.map(|id| ("last-event-id", id)));
    let response = api.ask_with(Method::GET, path, &headers, None).await;
    response.assert_status_is_ok();
    response.assert_content_type("text/event-stream");
    let mut events = Vec::new();
    let mut stream = response.sse_stream();
    while events.len() < count {
        let Some(event) = stream.next().await else { break };
        if let Event::Message { id, event, data } = event {
            let data: Value = serde_json::from_str(&data).unwrap();
            assert_eq!(data["event"], event);
            assert_eq!(data["position"], id);
            events.push((id, data));
        }
    }
    events
}

/// C58, as far as one node goes.
#[tokio::test]
async fn c58_a_stream_goes_on_from_any_position_without_gap_or_double() {
    let api = Api::open().await;
    for number in 0..20 {
        api.rig.client(number).await;
    }
    let head = usize::try_from(api.state.control.state().position.0).unwrap();
    let all = follow(&api, "/v1/events?follow=true", None, head).await;
    let expected: Vec<_> = (1..=head).map(|n| format!("control:{n}")).collect();
    assert_eq!(all.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), expected);

    for cut in 1..head {
        let id = format!("control:{cut}");
        let rest = follow(&api, "/v1/events?follow=true", Some(&id), head - cut).await;
        assert_eq!(rest, all[cut..]);
    }

    // Across the seam to what has not happened yet, while it happens.
    let (more, ()) =
        tokio::join!(follow(&api, "/v1/events?follow=true&after=control:3", None, head + 27), async {
            for number in 100..130 {
                api.rig.client(number).await;
                tokio::task::yield_now().await;
            }
        });
    let expected: Vec<_> = (4..=head + 30).map(|n| format!("control:{n}")).collect();
    assert_eq!(more.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), expected);
    api.rig.close().await;
}

#[tokio::test]
async fn streams_and_pages_show_only_what_was_asked_for() {
    let api = Api::open().await;
    let first = api.rig.client(1).await;
    let second = api.rig.client(2).await;
    for client in [first, second] {
        api.post(&format!("/v1/clients/{client}/block"), json!({ "reason": "x" })).await.is(200);
    }
    let path = format!("/v1/events?stream=client/{second}&types=client.blocked,client.enrolled");
    let page = api.get(&path).await.is(200);
    let kinds: Vec<_> =
        page.json["items"].as_array().unwrap().iter().map(|item| item["event"].clone()).collect();
    assert_eq!(kinds, ["client.enrolled", "client.blocked"]);
    let streamed = follow(&api, &format!("{path}&follow=true"), None, 2).await;
    assert_eq!(
        streamed.into_iter().map(|(_, data)| data).collect::<Vec<_>>(),
        *page.json["items"].as_array().unwrap()
    );
    assert!(page.json["items"][1]["sentence"].as_str().unwrap().contains('x'));

    api.get("/v1/events?types=mapping.exploded").await.refuses(400, "request.parameter");
    api.get("/v1/events?stream=x").await.refuses(400, "request.parameter");
    api.get("/v1/events?after=activity:1").await.refuses(400, "request.parameter");
    api.get("/v1/events?after=9999").await.refuses(503, "position.ahead");
    api.get("/v1/events?log=activity").await.is(200);
    api.rig.close().await;
}

#[tokio::test]
async fn pages_of_events_follow_each_other() {
    let api = Api::open().await;
    for number in 0..10 {
        api.rig.client(number).await;
    }
    let head = api.state.control.state().position.0;
    let (mut seen, mut path) = (Vec::new(), "/v1/events?limit=3".to_owned());
    loop {
        let page = api.get(&path).await.is(200);
        seen.extend(page.json["items"].as_array().unwrap().iter().map(|item| item["position"].clone()));
        match page.json["next"].as_str() {
            Some(next) => path = format!("/v1/events?limit=3&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=head).map(|n| json!(format!("control:{n}"))).collect::<Vec<_>>());
    api.rig.close().await;
}

#[tokio::test]
async fn streams_end_when_the_node_drains_and_are_bounded_in_number() {
    let api = Api::open().await;
    let head = usize::try_from(api.state.control.state().position.0).unwrap();
    let permits = std::sync::Arc::clone(&api.state.streams)
        .try_acquire_many_owned(u32::try_from(crate::STREAMS_MAX).unwrap())
        .unwrap();
    let refused = api.get("/v1/events?follow=true").await.refuses(503, "server.busy");
    assert_eq!(refused.header("retry-after"), "10");
    drop(permits);
    let (all, ()) = tokio::join!(follow(&api, "/v1/events?follow=true", None, usize::MAX), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        api.state.draining.cancel();
    });
    assert_eq!(all.len(), head);
    assert_eq!(api.state.streams.available_permits(), crate::STREAMS_MAX);
    api.rig.close().await;
}

#[tokio::test]
async fn a_log_is_verified_and_replayed_as_of_a_position_or_a_time() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let body =
        json!({ "ingress": "port", "target_client": client.to_string(), "target": "3000", "name": "web" });
    let made = api.post("/v1/mappings", body).await.is(201);
    let then = api.rig.clock.as_ref();
    let time = underpass_domain::Clock::now(then).to_string();
    api.rig.clock.advance(std::time::Duration::from_secs(10));
    api.delete(made.header("location")).await.is(200);

    let at = made.header("underpass-position").to_owned();
    let old = api.get(&format!("/v1/snapshots/control?position={at}")).await.is(200);
    assert_eq!(old.json["mappings"][0]["name"], "web");
    assert_eq!(old.json["position"], at);
    let by_time = api.get(&format!("/v1/snapshots/control?time={time}&of=mappings")).await.is(200);
    assert_eq!(by_time.json["mappings"][0]["id"], made.json["id"]);
    let now = api.get("/v1/snapshots/control").await.is(200);
    assert_eq!(now.json["mappings"], json!([]));
    for of in ["clients", "codes", "invites", "keys", "nodes"] {
        assert!(api.get(&format!("/v1/snapshots/control?of={of}")).await.is(200).json[of].is_array());
    }
    assert!(api.get("/v1/snapshots/activity").await.is(200).json["sessions"].is_array());
    api.get("/v1/snapshots/activity?of=keys").await.refuses(400, "request.parameter");
    api.get("/v1/snapshots/control?position=1&time=2026-01-01T00:00:00Z")
        .await
        .refuses(400, "request.parameter");
    api.get("/v1/snapshots/control?position=99999").await.refuses(503, "position.ahead");
    api.get("/v1/snapshots/other").await.refuses(404, "log.not_found");

    let head = api.get("/v1/logs/control/head").await.is(200);
    let verified = api.get("/v1/logs/control/verify").await.is(200);
    assert_eq!((&verified.json["ok"], &verified.json["hash"]), (&json!(true), &head.json["hash"]));
    assert_eq!(verified.json["position"], head.json["position"]);
    assert!(api.get("/v1/logs/activity/verify").await.is(200).json["ok"].as_bool().unwrap());

    let all = api.state.replays.acquire_many(u32::try_from(crate::REPLAYS_MAX).unwrap()).await.unwrap();
    api.get("/v1/logs/control/verify").await.refuses(503, "server.busy");
    drop(all);
    api.rig.close().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_it_was_asked_for_with() {
    let api = Api::open().await;
    let key = api.post("/v1/keys", json!({ "scopes": ["audit"] })).await.is(201);
    let head = usize::try_from(api.state.control.state().position.0).unwrap();
    let bearer = format!("Bearer {}", key.json["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let response = api.ask_with(Method::GET, "/v1/events?follow=true", &headers, None).await;
    let messages = response.sse_stream().filter(|event| {
        let message = matches!(event, Event::Message { .. });
        async move { message }
    });
    let mut stream = std::pin::pin!(messages);
    for _ in 0..head {
        stream.next().await.unwrap();
    }
    api.delete(key.header("location")).await.is(200);
    let rest = tokio::time::timeout(std::time::Duration::from_secs(10), stream.next()).await;
    assert_eq!(rest.unwrap(), None, "not even the revocation is shown");
    api.rig.close().await;
}
