//! Who may ask what.

use poem::http::Method;
use poem::test::TestClient;
use serde_json::json;
use underpass_domain::Scope;

use super::{Api, answer, operations};
use crate::{Access, OPEN_ROUTES, router};

const PUBLIC: &[&str] = &["/healthz", "/readyz"];

fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/")
}

/// C54, the first half: the table is the generated spec, so a new route can't be forgotten.
#[tokio::test]
async fn c54_every_route_but_health_and_docs_is_401_without_or_with_a_wrong_key() {
    let api = Api::open().await;
    let good = api.admin.expose().to_owned();
    let wrong_secret = format!("{}{}", &good[..good.len() - 4], "aaaa");
    let wrong = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer up_nonsense".to_owned()),
        Some(format!("Bearer {wrong_secret}")),
        Some(format!("Basic {good}")),
        Some(good.clone()),
    ];
    let mut routes: Vec<_> = operations().into_iter().map(|(method, path, _)| (method, path)).collect();
    assert!(routes.len() > 30, "{}", routes.len());
    routes.push((Method::GET, "/v1/nothing".into()));
    routes.push((Method::PUT, "/v1/clients".into()));
    for (method, path) in routes {
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        for header in &wrong {
            let headers: Vec<_> = header.iter().map(|value| ("authorization", value.as_str())).collect();
            let response = api.ask_with(method.clone(), &filled(&path), &headers, None).await;
            let answer = answer(response).await;
            assert_eq!(answer.status, 401, "{method} {path} {header:?}: {}", answer.text);
            let expected = if header.is_some() { "auth.refused" } else { "auth.required" };
            assert_eq!(answer.code(), expected);
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
    for path in OPEN_ROUTES {
        let response = api.ask_with(Method::GET, path, &[], None).await;
        let status = response.0.status();
        assert!(status.is_success() || status.is_redirection(), "{path}: {status}");
    }
    api.rig.close().await;
}

/// C54, the second half: the scope that each operation says it needs is the scope that it needs.
#[tokio::test]
async fn c54_every_route_wants_the_scope_that_it_says() {
    let api = Api::open().await;
    let scopes = [("read", Scope::Read), ("audit", Scope::Audit), ("metrics", Scope::Metrics)];
    let mut keys = Vec::new();
    for (name, scope) in scopes {
        keys.push((name, api.key(vec![scope]).await));
    }
    keys.push(("admin", api.admin.clone()));
    keys.push(("user", api.key(vec![Scope::User(underpass_domain::UserId::from_bytes([7; 16]))]).await));
    for (method, path, operation) in operations() {
        if PUBLIC.contains(&path.as_str()) {
            assert!(operation["security"].as_array().is_none_or(Vec::is_empty));
            continue;
        }
        let description = operation["description"].as_str().unwrap_or_default().replace('\n', " ");
        let needed = ["admin", "read", "audit", "metrics"]
            .into_iter()
            .find(|scope| description.contains(&format!("Scope `{scope}`")))
            .unwrap_or_else(|| panic!("{method} {path} does not say its scope"));
        assert!(!operation["security"].as_array().unwrap().is_empty(), "{method} {path}");
        for (name, token) in &keys {
            let bearer = format!("Bearer {}", token.expose());
            let headers = [("authorization", bearer.as_str())];
            let answer = answer(api.ask_with(method.clone(), &filled(&path), &headers, None).await).await;
            let may = *name == needed || *name == "admin";
            assert_eq!(answer.status != 403, may, "{method} {path} with {name}: {}", answer.text);
            assert_ne!(answer.status, 401, "{method} {path} with {name}");
            if !may {
                assert_eq!(answer.code(), "scope.missing");
            }
        }
    }
    api.rig.close().await;
}

#[tokio::test]
async fn on_the_control_socket_the_asker_is_the_operator() {
    let api = Api::open().await;
    let client = TestClient::new(router(std::sync::Arc::clone(&api.state), Access::Operator));
    let made =
        answer(client.post("/v1/keys").body_json(&json!({ "scopes": ["read"] })).send().await).await.is(201);
    let events = answer(client.get("/v1/events?types=key.issued").send().await).await.is(200);
    let last = events.json["items"].as_array().unwrap().last().unwrap();
    assert_eq!(last["actor"], "operator");
    assert_eq!(last["payload"]["key"], made.json["id"]);
    api.rig.close().await;
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_from_then_on() {
    let api = Api::open().await;
    let made = api.post("/v1/keys", json!({ "scopes": ["read"], "label": "ci" })).await.is(201);
    let bearer = format!("Bearer {}", made.json["token"].as_str().unwrap());
    let with_key = async || {
        answer(api.ask_with(Method::GET, "/v1/clients", &[("authorization", &bearer)], None).await).await
    };
    with_key().await.is(200);
    let id = made.json["id"].as_str().unwrap();
    assert!(api.get(&format!("/v1/keys/{id}")).await.is(200).json["last_used_at"].is_string());
    api.delete(&format!("/v1/keys/{id}")).await.is(200);
    with_key().await.refuses(401, "auth.refused");
    assert_eq!(api.get(&format!("/v1/keys/{id}")).await.is(200).json["status"], "revoked");
    api.rig.close().await;
}

/// C55, as far as answers go: what was shown once is in no other answer.
#[tokio::test]
async fn c55_no_answer_but_the_creating_one_holds_a_secret() {
    let api = Api::open().await;
    let client = api.rig.client(1).await;
    let key = api.post("/v1/keys", json!({ "scopes": ["read"], "label": "ci" })).await.is(201);
    let invite = api.post("/v1/invites", json!({ "label": "pi" })).await.is(201);
    let token = key.json["token"].as_str().unwrap().rsplit('_').next().unwrap().to_owned();
    let secret = invite.json["invite"].as_str().unwrap().rsplit('#').next().unwrap().to_owned();
    assert!(token.len() == 52 && secret.len() == 32);
    let session = api.state.control.new_session_id().unwrap().to_string();
    let ids = [
        ("{client}", client.to_string()),
        ("{key}", key.json["id"].as_str().unwrap().to_owned()),
        ("{invite}", invite.json["id"].as_str().unwrap().to_owned()),
        ("{node}", api.state.control.node().to_string()),
        ("{log}", "control".to_owned()),
        ("{session}", session),
    ];
    let mut seen = 0;
    for (method, path, _) in operations() {
        if method != Method::GET {
            continue;
        }
        let path = ids.iter().fold(path, |path, (name, id)| path.replace(name, id));
        for path in [path.clone(), format!("{path}?of=keys"), format!("{path}?of=invites")] {
            let answer = api.get(&filled(&path)).await;
            seen += usize::from(answer.status.is_success());
            assert!(!answer.text.contains(&token), "{path}");
            assert!(!answer.text.contains(&secret), "{path}");
        }
    }
    assert!(seen > 20, "{seen} answers were looked at");
    let again = api.post("/v1/keys", json!({ "scopes": ["read"], "label": "ci" })).await.is(201);
    assert_ne!(again.json["token"], key.json["token"]);
    api.rig.close().await;
}
