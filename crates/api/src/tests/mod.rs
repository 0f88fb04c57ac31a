//! The API over a control plane in memory.

mod access;
mod committed;
mod difference;
mod events;
mod explain;
mod problems;
mod resources;
mod undo;

use std::sync::{Arc, Mutex};

use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode};
use poem::test::{TestClient, TestResponse};
use poem::{Body, EndpointExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use underpass_control::testkit::Rig;
use underpass_control::{Caller, Token};
use underpass_domain::{ClientId, MappingId, Scope, SessionId, Timestamp};
use underpass_store::MemoryStore;

use crate::{
    Access, ApiState, LiveEnd, LiveLink, LiveServing, LiveState, LiveTunnel, PROBLEM_JSON, router, spec_json,
};

/// A gateway that has one link.
#[derive(Debug)]
struct OneLink {
    client: Mutex<Option<ClientId>>,
}

impl LiveState for OneLink {
    fn links(&self) -> Vec<LiveLink> {
        let client = *self.client.lock().unwrap();
        let link = client.map(|client| LiveLink {
            client,
            session: SessionId::from_bytes([5; 16]),
            address: "198.51.100.7:50214".parse().unwrap(),
            transport: "tcp".into(),
            since: Timestamp(1_767_225_600_000),
            parked: 2,
        });
        link.into_iter().collect()
    }

    fn ends(&self, _: MappingId) -> Vec<LiveEnd> {
        vec![LiveEnd { client: None, state: LiveServing::PortInUse, detail: None }]
    }

    fn tunnels(&self) -> Vec<LiveTunnel> {
        Vec::new()
    }

    fn disconnect(&self, client: ClientId, _: &str) -> bool {
        let mut link = self.client.lock().unwrap();
        let had = *link == Some(client);
        *link = link.filter(|linked| *linked != client);
        had
    }
}

/// An API to ask.
struct Api {
    rig: Rig,
    store: Arc<MemoryStore>,
    state: Arc<ApiState>,
    gateway: Arc<OneLink>,
    admin: Token,
    keyed: TestClient<BoxEndpoint<'static>>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    json: Value,
    text: String,
    headers: poem::http::HeaderMap,
}

impl Answer {
    fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A problem document with this status and code.
    #[track_caller]
    fn refuses(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{}", self.text);
        assert_eq!(self.header("content-type"), PROBLEM_JSON);
        assert_eq!(self.json["type"], format!("urn:underpass:error:{code}"));
        assert_eq!(self.json["status"], status);
        self
    }
}

impl Api {
    async fn open() -> Self {
        let store = Arc::new(MemoryStore::new());
        let rig = Rig::open(store.clone()).await;
        let admin = rig.control.ensure_admin_key(None).await.unwrap().unwrap().token;
        let gateway = Arc::new(OneLink { client: Mutex::new(None) });
        let line: crate::InviteLine = Arc::new(|secret| {
            let digits = u128::from_be_bytes(*secret.expose());
            format!("203.0.113.5:7400#{digits:032x}")
        });
        let mut state = ApiState::new(Arc::clone(&rig.control), line, CancellationToken::new());
        state.gateway = Some(gateway.clone());
        let state = Arc::new(state);
        let keyed = TestClient::new(router(Arc::clone(&state), Access::Keys).boxed());
        Self { rig, store, state, gateway, admin, keyed }
    }

    async fn key(&self, scopes: Vec<Scope>) -> Token {
        self.rig.control.issue_key(&Caller::operator(), scopes, None, None).await.unwrap().token
    }

    /// Asks with these headers, and no key of its own accord.
    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Body>,
    ) -> TestResponse {
        let mut request = self.keyed.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        request.send().await
    }

    /// Asks as the administrator.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.admin.expose());
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        let body = body.map(|value| Body::from(value.to_string()));
        answer(self.ask_with(method, path, &all, body).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, &[], Some(&body)).await
    }

    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, &[], Some(&body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], None).await
    }
}

async fn answer(response: TestResponse) -> Answer {
    let (status, headers) = (response.0.status(), response.0.headers().clone());
    let text = response.0.into_body().into_string().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or_default();
    Answer { status, json, text, headers }
}

fn spec() -> Value {
    serde_json::from_str(&spec_json()).unwrap()
}

/// Method, path, and operation of every route in the spec.
fn operations() -> Vec<(Method, String, Value)> {
    let spec = spec();
    let mut operations = Vec::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push((method, path.clone(), operation.clone()));
        }
    }
    operations
}
