//! Who is let in, and for what.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;
use underpass_tests::api::Api;
use underpass_tests::{Server, Store, eventually};

use crate::{head, operations, problem, refused};

/// Every route that needs no key.
const OPEN: [&str; 6] = ["/", "/docs", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz"];

#[test]
fn c54_every_route_without_or_with_a_wrong_key_is_401_but_health_readiness_and_docs() {
    let server = Server::start(Store::Memory);
    let nobody = Api::new(server.api_address, None);
    for path in OPEN {
        assert!(nobody.send(Method::GET, path, None).status().is_success(), "{path}");
    }
    let token = std::fs::read_to_string(server.data().join("admin.key")).unwrap().trim().to_owned();
    let almost = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    let short = &token[..token.len() - 1];
    let unknown = "up_01k9yqeng4fxcrs07d5p1m9tzb_0123456789abcdefghjkmnpqrs";
    let invite = server.invite();
    let wrong = [&almost, short, unknown, "", "x", &invite, &token.to_uppercase()]
        .map(|key| Api::new(server.api_address, Some(key)));
    let spec = nobody.get("/openapi.json");
    let mut open = BTreeSet::new();
    for operation in operations(&spec) {
        let path = operation.path_to_nothing();
        let ask = |api: &Api| api.send(operation.method.clone(), &path, operation.body(&spec).as_ref());
        let answer = ask(&nobody);
        if answer.status().is_success() {
            open.insert(operation.path);
            continue;
        }
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"underpass\"", "{path}");
        assert_eq!(problem(answer), (401, "auth.required".to_owned()), "{} {path}", operation.method);
        for api in &wrong {
            assert_eq!(problem(ask(api)), (401, "auth.refused".to_owned()), "{} {path}", operation.method);
        }
        let basic = nobody.request(operation.method.clone(), &path).basic_auth("admin", Some(&token));
        assert_eq!(refused(basic), (401, "auth.refused".to_owned()));
        assert_eq!(refused(nobody.request(Method::PUT, &path)), (401, "auth.required".to_owned()));
    }
    assert_eq!(open, BTreeSet::from(["/healthz".to_owned(), "/readyz".to_owned()]));
    // What isn't there is told only to those who may ask.
    for path in ["/v1", "/v1/nothing", "/v1/clients/", "//v1/clients", "/v1/../openapi.json/x", "/docs/x"] {
        assert_eq!(refused(nobody.request(Method::GET, path)), (401, "auth.required".to_owned()), "{path}");
    }
    // The credential itself still opens everything.
    server.api().get("/v1/clients");
}

#[test]
fn c54_a_key_opens_what_its_scopes_say_and_nothing_else() {
    let server = Server::start(Store::Memory);
    let admin = server.api();
    let spec = admin.get("/openapi.json");
    let scoped = ["read", "audit", "metrics"].map(|scope| {
        let issued = admin.post("/v1/keys", &json!({ "scopes": [scope] }));
        (scope, Api::new(server.api_address, issued["token"].as_str()))
    });
    let before = head(&admin);
    let mut met = BTreeSet::new();
    for operation in operations(&spec) {
        let path = operation.path_to_nothing();
        let Some(needed) = operation.scope() else {
            assert!(OPEN.contains(&operation.path.as_str()), "{path} says which scope it needs");
            continue;
        };
        assert!(operation.method == Method::GET || needed == "admin", "{path} writes for {needed}");
        for (scope, api) in &scoped {
            let answer = api.send(operation.method.clone(), &path, operation.body(&spec).as_ref());
            if needed == *scope {
                let status = answer.status().as_u16();
                assert!(status == 200 || status == 404, "{path} with {scope}: {status}");
            } else {
                assert_eq!(problem(answer), (403, "scope.missing".to_owned()), "{path} with {scope}");
            }
        }
        if operation.method == Method::GET {
            let status = admin.send(Method::GET, &path, None).status().as_u16();
            assert!(status == 200 || status == 404, "{path} with admin: {status}");
        }
        met.insert(needed);
    }
    assert_eq!(met.len(), 4, "{met:?}");
    assert_eq!(head(&admin), before, "what was refused changed nothing");
}

#[test]
fn a_key_is_good_until_it_is_revoked_or_past_its_time() {
    let server = Server::start(Store::Memory);
    let admin = server.api();
    let issue = |body| {
        let issued = admin.post("/v1/keys", &body);
        (issued["id"].as_str().unwrap().to_owned(), Api::new(server.api_address, issued["token"].as_str()))
    };
    let (id, revoked) = issue(json!({ "scopes": ["read"] }));
    let (_, expiring) = issue(json!({ "scopes": ["read"], "ttl_s": 2 }));
    revoked.get("/v1/clients");
    expiring.get("/v1/clients");
    assert!(admin.get(&format!("/v1/keys/{id}"))["last_used_at"].is_string());
    assert_eq!(admin.send(Method::DELETE, &format!("/v1/keys/{id}"), None).status(), 200);
    let gone = (401, "auth.refused".to_owned());
    assert_eq!(refused(revoked.request(Method::GET, "/v1/clients")), gone);
    eventually("the key expires", || match expiring.call(Method::GET, "/v1/clients", None) {
        (401, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(refused(expiring.request(Method::GET, "/v1/clients")), gone);
}
