//! C56: requests that can't be done, on every route, as documented.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::bytes::dial;
use underpass_tests::{Server, Store};

use crate::{Operation, client_id, head, operations, refused};

/// A server with nothing but the first key, and its operations.
fn started() -> (Server, Value, Vec<Operation>) {
    let server = Server::start(Store::Memory);
    let spec = server.api().get("/openapi.json");
    let all = operations(&spec);
    (server, spec, all)
}

#[test]
fn c56_what_is_not_there_is_404_on_every_route() {
    let (server, spec, all) = started();
    let api = server.api();
    let before = head(&api);
    let mut met = 0;
    for operation in all.iter().filter(|operation| operation.names_a_thing()) {
        let paths = [operation.path_to_nothing(), operation.path.replace(['{', '}'], "")];
        for path in paths {
            let mut request = api.request(operation.method.clone(), &path);
            if let Some(body) = operation.body(&spec) {
                request = request.json(&body);
            }
            let (status, code) = refused(request);
            assert!(code.ends_with(".not_found") || code.ends_with(".unknown"), "{path}: {code}");
            assert_eq!(status, 404, "{} {path}: {code}", operation.method);
            met += 1;
        }
    }
    assert!(met >= 40, "{met}");
    for path in
        ["/v1", "/v1/nothing", "/v1/clients/", "/v1//clients", "/v2/clients", "/v1/clients/%00", "/%ff"]
    {
        let (status, code) = refused(api.request(Method::GET, path));
        assert_eq!(status, 404, "{path}: {code}");
    }
    for log in ["head", "verify"] {
        let path = format!("/v1/logs/nothing/{log}");
        assert_eq!(refused(api.request(Method::GET, &path)), (404, "log.not_found".to_owned()));
    }
    assert_eq!(head(&api), before);
}

#[test]
fn c56_another_method_is_405_and_names_the_right_ones() {
    let (server, _, all) = started();
    let api = server.api();
    let mut routes: BTreeMap<String, Vec<Method>> = BTreeMap::new();
    for operation in all {
        routes.entry(operation.path_to_nothing()).or_default().push(operation.method);
    }
    for (path, known) in routes {
        for method in [Method::PUT, Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if known.contains(&method) {
                continue;
            }
            let response = api.send(method.clone(), &path, None);
            let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
            assert_eq!(crate::problem(response), (405, "route.method".to_owned()), "{method} {path}");
            let allow = allow.unwrap();
            let allowed: Vec<_> = allow.split(", ").collect();
            assert!(known.iter().all(|method| allowed.contains(&method.as_str())), "{path}: {allow}");
            assert!(!allowed.contains(&method.as_str()), "{path}: {allow}");
        }
    }
}

#[test]
fn c56_a_body_that_is_too_large_malformed_or_of_another_kind_is_refused_on_every_route() {
    let (server, spec, all) = started();
    let api = server.api();
    let token = std::fs::read_to_string(server.data().join("admin.key")).unwrap();
    let before = head(&api);
    let mut met = 0;
    for operation in &all {
        let Some(example) = operation.body(&spec) else { continue };
        let path = operation.path_to_nothing();
        let ask = || api.request(operation.method.clone(), &path);
        let typed =
            |kind: &str, body: &str| refused(ask().header("content-type", kind).body(body.to_owned()));
        met += 1;

        let malformed = (400, "request.malformed".to_owned());
        for body in ["", "{", "[]", "7", "\"x\"", "null", "{\"a\":}", "{}{}", "\u{0}"] {
            assert_eq!(typed("application/json", body), malformed, "{path} {body:?}");
        }
        let mut unknown = example.clone();
        unknown["nonsense"] = json!(1);
        assert_eq!(refused(ask().json(&unknown)), malformed, "{path} knows no `nonsense`");
        for field in example.as_object().unwrap().keys() {
            let mut wrong = example.clone();
            wrong[field] = json!({ "of": "another kind" });
            assert_eq!(refused(ask().json(&wrong)), malformed, "{path} {field}");
        }
        let media = (415, "request.media_type".to_owned());
        for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense"] {
            assert_eq!(typed(kind, &example.to_string()), media, "{path} {kind}");
        }

        // Declared, and as it comes. The server need not read it all to say so.
        let large = vec![b' '; (1 << 20) + 1];
        for chunked in [false, true] {
            let mut stream = dial(server.api_address).unwrap();
            let length = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {}", large.len())
            };
            write!(
                stream,
                "{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Authorization: Bearer {}\r\n{length}\r\n\r\n",
                operation.method,
                token.trim()
            )
            .unwrap();
            if chunked {
                write!(stream, "{:x}\r\n", large.len()).unwrap();
                stream.write_all(&large).unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 413 ") && answer.contains("request.too_large"),
                "{path}: {answer}"
            );
        }
    }
    assert!(met >= 5, "{met}");
    assert_eq!(head(&api), before, "what was refused changed nothing");
}

#[test]
fn c56_values_that_make_no_sense_are_422_and_name_the_field() {
    let (server, ..) = started();
    let _laptop = server.client("laptop");
    let api = server.api();
    let client = client_id(&api, "laptop");
    let before = head(&api);
    let with = |field: &str, value: Value| {
        let mut body = json!({ "ingress": "port", "target_client": client, "target": "127.0.0.1:3000" });
        body[field] = value;
        body
    };
    let from = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    let listen = with("ingress", json!("client"));
    let listen = from(from(listen, "listen_client", json!(client)), "listen", json!("127.0.0.1:0"));
    let cases = [
        ("/v1/mappings", with("target", json!("nowhere")), "target"),
        ("/v1/mappings", with("target", json!("host:99999")), "target"),
        ("/v1/mappings", with("target", json!("")), "target"),
        ("/v1/mappings", with("target_client", json!("laptop")), "target_client"),
        ("/v1/mappings", with("name", json!("a b")), "name"),
        ("/v1/mappings", with("name", json!("")), "name"),
        ("/v1/mappings", with("name", json!("x".repeat(300))), "name"),
        ("/v1/mappings", with("max_connections", json!(0)), "max_connections"),
        ("/v1/mappings", with("expires_at", json!("tomorrow")), "expires_at"),
        ("/v1/mappings", with("expires_at", json!("2001-01-01T00:00:00Z")), "expires_at"),
        ("/v1/mappings", with("listen", json!("127.0.0.1:80")), "listen"),
        ("/v1/mappings", with("listen_client", json!(client)), "listen_client"),
        ("/v1/mappings", with("port", json!(1)), "port"),
        ("/v1/mappings", from(listen.clone(), "port", json!(20_000)), "port"),
        ("/v1/mappings", from(listen.clone(), "listen", json!("here")), "listen"),
        ("/v1/mappings", from(listen, "listen", Value::Null), "listen"),
        ("/v1/invites", json!({ "ttl_s": 0 }), "ttl_s"),
        ("/v1/invites", json!({ "ttl_s": u64::MAX }), "ttl_s"),
        ("/v1/invites", json!({ "label": "x".repeat(100_000) }), "label"),
        ("/v1/keys", json!({ "scopes": ["read"], "ttl_s": 0 }), "ttl_s"),
        ("/v1/keys", json!({ "scopes": ["read"], "label": "x".repeat(100_000) }), "label"),
    ];
    for (path, body, field) in cases {
        let (status, answer) = api.call(Method::POST, path, Some(&body));
        let shown = body.to_string().chars().take(200).collect::<String>();
        assert_eq!((status, &answer["field"]), (422, &json!(field)), "{shown}: {answer}");
        refused(api.request(Method::POST, path).json(&body));
    }
    let path = format!("/v1/clients/{client}");
    for name in ["", "a b", "ü/..", &"x".repeat(300)] {
        let (status, answer) = api.call(Method::PATCH, &path, Some(&json!({ "name": name })));
        assert_eq!((status, &answer["field"]), (422, &json!("name")), "{answer}");
    }
    assert_eq!(head(&api), before, "what was refused changed nothing");
}

#[test]
fn c56_a_parameter_that_is_unknown_or_can_not_be_read_is_400() {
    let (server, _, all) = started();
    let api = server.api();
    let parameter = (400, "request.parameter".to_owned());
    for operation in all.iter().filter(|operation| operation.method == Method::GET) {
        let path = operation.path_to_nothing();
        let ask = |query: &str| refused(api.request(Method::GET, &format!("{path}?{query}")));
        assert_eq!(ask("nonsense=1"), parameter, "{path}");
        let known = operation.spec["parameters"].as_array().into_iter().flatten();
        for name in known.filter(|it| it["in"] == "query").map(|it| it["name"].as_str().unwrap()) {
            let values: &[&str] = match name {
                "limit" => &["0", "501", "-1", "x", "1.5", "99999999999999999999", ""],
                "after" | "until" | "at" | "position" | "time" | "log" | "types" | "stream" | "of"
                | "client" => &["nonsense"],
                "follow" | "open" => &["maybe"],
                "q" => continue,
                other => panic!("{path} has a parameter {other} that is not tested here"),
            };
            for value in values {
                assert_eq!(ask(&format!("{name}={value}")), parameter, "{path}?{name}={value}");
            }
        }
    }
    let other_log = refused(api.request(Method::GET, "/v1/clients?at=activity:1"));
    assert_eq!(other_log, (400, "position.other_log".to_owned()));
    let ahead = api.send(Method::GET, "/v1/clients?at=control:999999", None);
    assert!(ahead.headers().contains_key("retry-after"));
    assert_eq!(crate::problem(ahead), (503, "position.ahead".to_owned()));
}
