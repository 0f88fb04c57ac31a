//! The REST API of a real server, as programs and strangers use it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod events;
mod live;
mod problems;
mod repeats;
mod secrets;

use std::path::PathBuf;

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::Value;
use underpass_tests::api::Api;

/// One operation, as the spec lists it.
struct Operation {
    method: Method,
    path: String,
    spec: Value,
}

/// All operations of a spec.
fn operations(spec: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        for (method, spec) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            all.push(Operation { method, path: path.clone(), spec: spec.clone() });
        }
    }
    assert!(all.len() >= 30, "{} operations", all.len());
    all
}

impl Operation {
    /// Its path, with ids of nothing that exists.
    fn path_to_nothing(&self) -> String {
        let things = ["client", "mapping", "code", "invite", "key", "session", "node"];
        let path = self.path.replace("{log}", "control");
        things.iter().fold(path, |path, thing| {
            path.replace(&format!("{{{thing}}}"), &format!("{thing}_01k9yq4w3ee7tr5m0b8n2c6xvd"))
        })
    }

    /// Whether something is named in the path that may not be there.
    fn names_a_thing(&self) -> bool {
        self.path.replace("{log}", "").contains('{')
    }

    /// The scope it says it needs.
    fn scope(&self) -> Option<String> {
        let words =
            self.spec["description"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, scope) = words.rsplit_once("Scope `")?;
        Some(scope.split_once('`').unwrap().0.to_owned())
    }

    /// The example of its body, if it takes one.
    fn body(&self, whole: &Value) -> Option<Value> {
        let schema =
            &self.spec["requestBody"]["content"]["application/json; charset=utf-8"]["schema"]["$ref"];
        let name = schema.as_str()?.rsplit_once('/').unwrap().1;
        Some(whole["components"]["schemas"][name]["example"].clone())
    }
}

/// A failure: status and code. It must be a whole problem document with a page that explains it.
#[track_caller]
fn problem(response: Response) -> (u16, String) {
    let (status, url) = (response.status().as_u16(), response.url().clone());
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let text = response.text().unwrap();
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{url}: {status} {text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["status"], status, "{url}: {body}");
    let code = body["code"].as_str().unwrap().to_owned();
    assert_eq!(body["type"], format!("urn:underpass:error:{code}"), "{url}: {body}");
    for field in ["title", "detail"] {
        assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{url}: {body}");
    }
    let page = repository().join(format!("docs/errors/{code}.md"));
    assert!(page.is_file(), "{code} has no page {}", page.display());
    (status, code)
}

/// Sends what must fail: status and code.
#[track_caller]
fn refused(request: RequestBuilder) -> (u16, String) {
    problem(request.send().unwrap())
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The id of the client with this name.
fn client_id(api: &Api, name: &str) -> String {
    let clients = api.get("/v1/clients");
    let found = clients["items"].as_array().unwrap().iter().find(|client| client["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name}: {clients}"))["id"].as_str().unwrap().to_owned()
}

/// The end of the control log.
fn head(api: &Api) -> u64 {
    position(&api.get("/v1/logs/control/head")["position"])
}

/// The number of a position.
fn position(text: &Value) -> u64 {
    text.as_str().unwrap().split_once(':').unwrap().1.parse().unwrap()
}
