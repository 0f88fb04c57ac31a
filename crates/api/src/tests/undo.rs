//! Undoing over the API.

use poem::http::Method;
use serde_json::{Value, json};
use underpass_domain::Scope;

use super::{Answer, Api, answer};

async fn undo(api: &Api, position: &str) -> Answer {
    api.ask(Method::POST, &format!("/v1/events/{position}/undo"), &[], None).await
}

/// A public port of a client, called `web`, and where that happened.
async fn web(api: &Api) -> (Value, String) {
    let client = api.rig.client(1).await.to_string();
    let body = json!({ "ingress": "port", "target_client": client, "target": "3000", "name": "web" });
    let made = api.post("/v1/mappings", body).await.is(201);
    let at = made.header("underpass-position").to_owned();
    (made.json, at)
}

#[tokio::test]
async fn a_removed_mapping_comes_back_as_it_was() {
    let api = Api::open().await;
    let (web, _) = web(&api).await;
    let path = format!("/v1/mappings/{}", web["id"].as_str().unwrap());
    let before = api.get(&path).await.is(200);
    let removed = api.delete(&path).await.is(200);
    api.get(&path).await.refuses(404, "mapping.not_found");

    let at = removed.header("underpass-position").to_owned();
    let undone = undo(&api, &at).await.is(200);
    assert_eq!((&undone.json["undone"], &undone.json["changed"]), (&json!(at), &json!(true)));
    assert_eq!(undone.json["events"][0]["event"], "mapping.restored");
    assert_eq!(undone.json["events"][0]["causation"], at);
    assert_eq!(undone.json["position"], undone.header("underpass-position"));
    let mut after = api.get(&path).await.is(200).json;
    assert_eq!(after["version"], 3, "made, removed, restored");
    after["version"] = before.json["version"].clone();
    assert_eq!(after, before.json);

    // The history shows the cause, and undoing the undo removes it again.
    let events = api.get(&format!("/v1/events?stream=mapping/{}", web["id"].as_str().unwrap())).await.is(200);
    assert_eq!(events.json["items"][2]["causation"], at);
    undo(&api, undone.json["position"].as_str().unwrap()).await.is(200);
    api.get(&path).await.refuses(404, "mapping.not_found");
    api.rig.close().await;
}

#[tokio::test]
async fn an_undo_that_is_sent_again_is_answered_as_the_first_time() {
    let api = Api::open().await;
    let (_, at) = web(&api).await;
    let path = format!("/v1/events/{at}/undo");
    let key = [("idempotency-key", "once")];
    let first = api.ask(Method::POST, &path, &key, None).await.is(200);
    let again = api.ask(Method::POST, &path, &key, None).await.is(200);
    assert_eq!(again.json["changed"], false);
    for field in ["position", "undone", "events"] {
        assert_eq!(again.json[field], first.json[field], "{field}");
    }
    undo(&api, &at).await.refuses(409, "undo.changed_since");
    api.ask(Method::POST, "/v1/events/1/undo", &key, None).await.refuses(409, "command.reused");
    api.rig.close().await;
}

#[tokio::test]
async fn c56_what_can_not_be_undone_says_why() {
    let api = Api::open().await;
    let (web, made) = web(&api).await;
    undo(&api, "1").await.refuses(409, "undo.none");
    let activity = undo(&api, "activity:1").await.refuses(409, "undo.none");
    assert!(activity.json["detail"].as_str().unwrap().contains("the activity log"), "{}", activity.text);
    for unknown in ["0", "9999", "control:9999", "x", "control:", "other:1", "-1"] {
        undo(&api, unknown).await.refuses(404, "event.not_found");
    }
    let path = format!("/v1/mappings/{}", web["id"].as_str().unwrap());
    let first = api.patch(&path, json!({ "target": "8080" })).await.is(200);
    let second = api.patch(&path, json!({ "target": "9090" })).await.is(200);
    let refused = undo(&api, first.header("underpass-position")).await.refuses(409, "undo.changed_since");
    let by = second.header("underpass-position");
    assert!(refused.json["detail"].as_str().unwrap().ends_with(by), "{}", refused.text);
    assert!(refused.json["hint"].as_str().unwrap().contains("underpass undo"), "{}", refused.text);

    let removed = api.delete(&path).await.is(200);
    let port = web["port"].as_u64().unwrap();
    let client = &web["target_client"];
    let body =
        json!({ "ingress": "port", "port": port, "target_client": client, "target": "1", "name": "b" });
    api.post("/v1/mappings", body).await.is(201);
    undo(&api, removed.header("underpass-position")).await.refuses(409, "port.taken");
    undo(&api, &made).await.refuses(409, "undo.changed_since");

    let all = api.state.replays.acquire_many(u32::try_from(crate::REPLAYS_MAX).unwrap()).await.unwrap();
    undo(&api, &made).await.refuses(503, "server.busy");
    drop(all);
    api.rig.close().await;
}

#[tokio::test]
async fn who_may_only_read_undoes_nothing() {
    let api = Api::open().await;
    let (_, at) = web(&api).await;
    let head = api.state.control.state().position;
    for scope in [Scope::Read, Scope::Audit] {
        let token = api.key(vec![scope]).await;
        let bearer = format!("Bearer {}", token.expose());
        let path = format!("/v1/events/{at}/undo");
        let asked = api.ask_with(Method::POST, &path, &[("authorization", bearer.as_str())], None).await;
        answer(asked).await.refuses(403, "scope.missing");
    }
    assert_eq!(api.state.control.state().position.0, head.0 + 2, "the two keys, and nothing else");
    api.rig.close().await;
}
