//! Differences over the API.

use poem::http::Method;
use serde_json::{Value, json};
use underpass_domain::{Clock, Scope};

use super::{Api, answer};

fn told(difference: &Value) -> Vec<(String, String)> {
    let items = difference["items"].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    items.map(|item| (text(item, "change"), text(item, "name"))).collect()
}

#[tokio::test]
async fn what_came_changed_and_went_is_told_by_position_and_by_time() {
    let api = Api::open().await;
    let client = api.rig.client(1).await.to_string();
    let body =
        |name: &str| json!({ "ingress": "port", "target_client": client, "target": "3000", "name": name });
    let kept = api.post("/v1/mappings", body("kept")).await.is(201);
    let gone = api.post("/v1/mappings", body("gone")).await.is(201);
    let from = api.state.control.state().position.0;
    let then = api.rig.clock.now();
    api.rig.clock.advance(std::time::Duration::from_mins(1));
    api.patch(kept.header("location"), json!({ "target": "4000" })).await.is(200);
    api.delete(gone.header("location")).await.is(200);
    api.rig.clock.advance(std::time::Duration::from_mins(1));
    api.post("/v1/mappings", body("new")).await.is(201);

    // In the order of ids, which are random where they are of one moment.
    let mut expected = [("added", "new"), ("changed", "kept"), ("removed", "gone")]
        .map(|(change, name)| (change.to_owned(), name.to_owned()))
        .to_vec();
    let sorted = |difference: &Value| {
        let mut told = told(difference);
        told.sort();
        told
    };
    let head = api.state.control.state().position.0;
    let by_position = api.get(&format!("/v1/snapshots/diff?from={from}&to=control:{head}")).await.is(200);
    assert_eq!(sorted(&by_position.json), expected);
    assert_eq!(by_position.json["cut"], false);
    assert_eq!(by_position.header("underpass-position"), format!("control:{head}"));
    let items = by_position.json["items"].as_array().unwrap();
    let changed = items.iter().find(|item| item["change"] == "changed").unwrap();
    assert_eq!((&changed["kind"], &changed["id"]), (&json!("mapping"), &kept.json["id"]));
    let field = json!([{ "field": "target", "before": "127.0.0.1:3000", "after": "127.0.0.1:4000" }]);
    assert_eq!(changed["fields"], field);
    let by_time = api.get(&format!("/v1/snapshots/diff?from={then}")).await.is(200);
    assert_eq!(by_time.json["items"], by_position.json["items"]);
    assert_eq!(by_time.json["from"]["position"], format!("control:{from}"));

    let cut = api.get(&format!("/v1/snapshots/diff?from={from}&limit=2")).await.is(200);
    assert_eq!((told(&cut.json), &cut.json["cut"]), (told(&by_position.json)[..2].to_vec(), &json!(true)));
    let none = api.get(&format!("/v1/snapshots/diff?from={head}")).await.is(200);
    assert_eq!(none.json["items"], json!([]));
    let all = api.get("/v1/snapshots/diff").await.is(200);
    assert_eq!(all.json["from"]["position"], "control:0");
    assert!(all.json["items"].as_array().unwrap().iter().all(|item| item["change"] == "added"));
    expected[0].0 = "removed".to_owned();
    expected[2].0 = "added".to_owned();
    expected.sort();
    let back = api.get(&format!("/v1/snapshots/diff?from={head}&to={from}")).await.is(200);
    assert_eq!(sorted(&back.json), expected);
    api.rig.close().await;
}

#[tokio::test]
async fn c56_points_that_are_none_are_refused() {
    let api = Api::open().await;
    let wrong =
        ["from=", "from=x", "from=activity:1", "from=1&to=yesterday", "from=1&limit=0", "from=1&limit=501"];
    for query in wrong {
        api.get(&format!("/v1/snapshots/diff?{query}")).await.refuses(400, "request.parameter");
    }
    for query in ["from=9999", "from=1&to=9999"] {
        api.get(&format!("/v1/snapshots/diff?{query}")).await.refuses(503, "position.ahead");
    }
    for (scope, status) in [(Scope::Read, 200), (Scope::Audit, 403)] {
        let token = api.key(vec![scope]).await;
        let bearer = format!("Bearer {}", token.expose());
        let headers = [("authorization", bearer.as_str())];
        let asked = api.ask_with(Method::GET, "/v1/snapshots/diff?from=0", &headers, None).await;
        let answer = answer(asked).await.is(status);
        // No hash of a secret for who may only read.
        assert!(!answer.text.contains("hash"), "{}", answer.text);
    }
    api.rig.close().await;
}
