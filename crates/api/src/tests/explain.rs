//! Explanations over the API.

use poem::http::Method;
use serde_json::{Value, json};
use underpass_domain::{ActivityCommand, ClientId, Scope};

use super::{Api, answer};
use underpass_control::Caller;

fn codes(explanation: &Value) -> Vec<String> {
    let findings = explanation["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

async fn web(api: &Api, client: ClientId) -> String {
    let client = client.to_string();
    let body = json!({ "ingress": "port", "target_client": client, "target": "3000", "name": "web" });
    let made = api.post("/v1/mappings", body).await.is(201);
    made.json["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_mapping_is_explained_by_id_and_by_name_also_when_it_is_gone() {
    let api = Api::open().await;
    let id = web(&api, api.rig.client(1).await).await;
    let off = api.post(&format!("/v1/mappings/{id}/disable"), json!({})).await.is(200);
    let by_id = api.get(&format!("/v1/explain/{id}")).await.is(200);
    assert_eq!(codes(&by_id.json), ["mapping.disabled", "target.never_linked", "port.in_use"]);
    assert_eq!((&by_id.json["answers"], &by_id.json["kind"]), (&json!(false), &json!("mapping")));
    let cited = &by_id.json["findings"][0]["events"][0];
    assert_eq!(cited["position"], off.header("underpass-position"));
    assert_eq!(cited["sentence"], "mapping web disabled");
    assert!(cited["actor"].as_str().unwrap().starts_with("key/"), "{cited}");
    assert_eq!(api.get("/v1/explain/web").await.is(200).json, by_id.json);

    api.delete(&format!("/v1/mappings/{id}")).await.is(200);
    for name in [id.as_str(), "web"] {
        let gone = api.get(&format!("/v1/explain/{name}")).await.is(200);
        assert_eq!((codes(&gone.json), &gone.json["id"]), (vec!["mapping.removed".to_owned()], &json!(id)));
    }
    api.rig.close().await;
}

/// C8: the precise reason is told to who runs the server.
#[tokio::test]
async fn c8_a_client_that_is_refused_is_explained() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let session = api.state.control.new_session_id().unwrap();
    let open = ActivityCommand::OpenSession {
        session,
        client,
        node: api.state.control.node(),
        address: "198.51.100.7:50214".parse().unwrap(),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    };
    api.state.control.record(&Caller::system(), open).await.unwrap();
    let linked = api.get("/v1/explain/client-1").await.is(200);
    assert_eq!(codes(&linked.json), ["client.linked"]);
    let close = ActivityCommand::CloseSession { session, reason: "it went".into() };
    api.state.control.record(&Caller::system(), close).await.unwrap();
    api.post(&format!("/v1/clients/{client}/block"), json!({ "reason": "stolen" })).await.is(200);
    let key = api.state.control.state().state.client(client).unwrap().public_key;
    let address = "198.51.100.7".parse().unwrap();
    api.state.control.record_auth_failure(address, Some(key), "it is blocked").await.unwrap();

    let blocked = api.get(&format!("/v1/explain/{client}")).await.is(200);
    assert_eq!(codes(&blocked.json), ["client.blocked", "client.refused"]);
    assert_eq!(blocked.json["findings"][0]["events"][0]["event"], "client.blocked");
    assert_eq!(blocked.json["findings"][1]["events"][0]["event"], "auth.failed");
    assert!(blocked.json["answers"].is_null());
    api.rig.close().await;
}

#[tokio::test]
async fn codes_invites_and_keys_are_explained() {
    let api = Api::open().await;
    let invite = api.post("/v1/invites", json!({ "label": "pi" })).await.is(201);
    let id = invite.json["id"].as_str().unwrap();
    assert_eq!(codes(&api.get(&format!("/v1/explain/{id}")).await.is(200).json), ["invite.open"]);
    api.delete(&format!("/v1/invites/{id}")).await.is(200);
    assert_eq!(codes(&api.get(&format!("/v1/explain/{id}")).await.is(200).json), ["invite.revoked"]);

    let key = api.post("/v1/keys", json!({ "scopes": ["read"] })).await.is(201);
    let id = key.json["id"].as_str().unwrap();
    assert_eq!(codes(&api.get(&format!("/v1/explain/{id}")).await.is(200).json), ["key.good"]);

    let client = api.rig.client(1).await;
    let (new, _) = underpass_control::testkit::code(client, 7);
    let lookup = new.lookup.clone();
    api.state.control.issue_code(&Caller::operator(), new).await.unwrap();
    assert_eq!(codes(&api.get(&format!("/v1/explain/{lookup}")).await.is(200).json), ["code.open"]);
    api.rig.close().await;
}

#[tokio::test]
async fn c56_what_nothing_is_known_of_or_what_means_several_things_is_refused() {
    let api = Api::open().await;
    let nobody = ClientId::from_bytes([9; 16]).to_string();
    for unknown in ["nothing", &nobody, &nobody.replace("client", "mapping"), "node_x"] {
        api.get(&format!("/v1/explain/{unknown}")).await.refuses(404, "explain.not_found");
    }
    for number in [1, 2] {
        web(&api, api.rig.client(number).await).await;
    }
    let several = api.get("/v1/explain/web").await.refuses(409, "explain.ambiguous");
    assert_eq!(several.json["detail"].as_str().unwrap().matches("mapping_").count(), 2, "{}", several.text);
    let all = api.state.replays.acquire_many(u32::try_from(crate::REPLAYS_MAX).unwrap()).await.unwrap();
    api.get("/v1/explain/web").await.refuses(503, "server.busy");
    drop(all);
    api.rig.close().await;
}

#[tokio::test]
async fn who_may_read_may_ask_why() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    for (scope, status) in [(Scope::Read, 200), (Scope::Audit, 403), (Scope::Metrics, 403)] {
        let token = api.key(vec![scope]).await;
        let bearer = format!("Bearer {}", token.expose());
        let path = format!("/v1/explain/{client}");
        let asked = api.ask_with(Method::GET, &path, &[("authorization", bearer.as_str())], None).await;
        answer(asked).await.is(status);
    }
    api.rig.close().await;
}
