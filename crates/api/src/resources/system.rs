//! The server itself: liveness, readiness, measurements, what it is.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::Data;
use poem::{IntoResponse, Response};
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{Example, ToJSON, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};
use underpass_domain::{LogName, PublicKey};

use super::{Tag, example};
use crate::answer::{Found, control_at};
use crate::auth::{Ask, Metrics, Read};
use crate::metrics::{self, TEXT_FORMAT};
use crate::problem::ReadFailure;
use crate::state::ApiState;

pub(crate) struct System;

/// That the program runs.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct Alive {
    /// `true`, or there is no answer.
    alive: bool,
}

impl Example for Alive {
    fn example() -> Self {
        Self { alive: true }
    }
}

/// How far a log is applied on this node.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct LogReadiness {
    /// The newest position that this node shows.
    applied: u64,
    /// The newest position in the store; absent if the store doesn't answer.
    head: Option<u64>,
}

impl Example for LogReadiness {
    fn example() -> Self {
        Self { applied: 1_842, head: Some(1_842) }
    }
}

/// Whether this node should get traffic.
#[allow(clippy::struct_excessive_bools, reason = "each is a question of its own")]
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct Readiness {
    /// Whether it should.
    ready: bool,
    /// The node is stopping.
    draining: bool,
    /// The node holds its lease and can write.
    may_write: bool,
    /// The store answers and takes what is written.
    store_reachable: bool,
    /// The kind of store.
    store: String,
    /// The log `control`.
    control: LogReadiness,
    /// The log `activity`.
    activity: LogReadiness,
}

impl Example for Readiness {
    fn example() -> Self {
        Self {
            ready: true,
            draining: false,
            may_write: true,
            store_reachable: true,
            store: "rocksdb".into(),
            control: LogReadiness::example(),
            activity: LogReadiness { applied: 77, head: Some(77) },
        }
    }
}

/// 200 when ready, else 503, with the same body.
pub(crate) struct ReadinessAnswer(Readiness);

impl IntoResponse for ReadinessAnswer {
    fn into_response(self) -> Response {
        let status = if self.0.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Response::builder().status(status).content_type("application/json").body(self.0.to_json_string())
    }
}

impl ApiResponse for ReadinessAnswer {
    fn meta() -> MetaResponses {
        let response = |status, description| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/json",
                schema: Readiness::schema_ref(),
            }],
            headers: Vec::new(),
        };
        MetaResponses {
            responses: vec![response(200, "Ready."), response(503, "Not ready; the body says why.")],
        }
    }

    fn register(registry: &mut Registry) {
        Readiness::register(registry);
    }
}

/// Measurements.
pub(crate) struct MetricsAnswer(String);

impl IntoResponse for MetricsAnswer {
    fn into_response(self) -> Response {
        Response::builder().content_type(TEXT_FORMAT).body(self.0)
    }
}

impl ApiResponse for MetricsAnswer {
    fn meta() -> MetaResponses {
        let mut meta = PlainText::<String>::meta();
        for response in &mut meta.responses {
            response.description = "The Prometheus text format.";
            for content in &mut response.content {
                content.content_type = "text/plain";
            }
        }
        meta
    }

    fn register(registry: &mut Registry) {
        <PlainText<String> as ApiResponse>::register(registry);
    }
}

/// What clients need to know of this server.
#[derive(Object, Clone, Debug)]
#[oai(example)]
pub(crate) struct ServerInfo {
    /// The version of the program.
    version: String,
    /// The node that answers.
    node: String,
    /// Its name.
    name: String,
    /// What clients connect to, as invites say it.
    advertise: Vec<String>,
    /// The public link key of the installation, base64url; invites pin it.
    server_key: String,
    /// The kind of store.
    store: String,
    /// The first public port that is given out.
    port_first: u16,
    /// The last public port that is given out.
    port_last: u16,
}

impl Example for ServerInfo {
    fn example() -> Self {
        Self {
            version: "0.1.0".into(),
            node: example::NODE.into(),
            name: "gate".into(),
            advertise: vec!["203.0.113.5:7400".into()],
            server_key: "Dm1u0vT4mWcPz8c2sXq7rJkZb3yFhNwL5gE9oAaRUyQ".into(),
            store: "rocksdb".into(),
            port_first: 20_000,
            port_last: 29_999,
        }
    }
}

async fn readiness(state: &ApiState) -> Readiness {
    let control = &state.control;
    let (kept, trimmed) =
        tokio::join!(control.stored_head(LogName::Control), control.stored_head(LogName::Activity));
    let draining = state.draining.is_cancelled();
    let may_write = control.may_write();
    let store_reachable = kept.is_ok() && trimmed.is_ok() && !control.store_is_away();
    Readiness {
        ready: !draining && may_write && store_reachable,
        draining,
        may_write,
        store_reachable,
        store: state.store.clone(),
        control: LogReadiness { applied: control.state().position.0, head: kept.ok().map(|head| head.0) },
        activity: LogReadiness {
            applied: control.activity().position.0,
            head: trimmed.ok().map(|head| head.0),
        },
    }
}

#[OpenApi(tag = "Tag::System")]
impl System {
    /// Show that the program runs
    ///
    /// For whoever restarts programs that hang. Needs no key.
    #[oai(path = "/healthz", method = "get", operation_id = "get_health")]
    async fn health(&self) -> Json<Alive> {
        Json(Alive { alive: true })
    }

    /// Show whether this node should get traffic
    ///
    /// 503 while it is stopping, has lost its lease or can't reach its store; running tunnels and known mappings
    /// are served all the same. Needs no key.
    #[oai(path = "/readyz", method = "get", operation_id = "get_readiness")]
    async fn ready(&self, state: Data<&Arc<ApiState>>) -> ReadinessAnswer {
        ReadinessAnswer(readiness(&state).await)
    }

    /// Show measurements
    ///
    /// In the Prometheus text format. Scope `metrics`.
    #[oai(path = "/metrics", method = "get", operation_id = "get_metrics")]
    async fn metrics(&self, ask: Ask<Metrics>) -> Result<MetricsAnswer, ReadFailure> {
        Ok(MetricsAnswer(metrics::text(&ask.state).await))
    }

    /// Show what this server is
    ///
    /// Scope `read`.
    #[oai(path = "/v1/server", method = "get", operation_id = "get_server")]
    async fn server(&self, ask: Ask<Read>) -> Result<Found<ServerInfo>, ReadFailure> {
        let control = &ask.state.control;
        let options = control.options();
        let body = ServerInfo {
            version: options.version.clone(),
            node: options.node.to_string(),
            name: options.node_name.clone(),
            advertise: ask.state.advertise.clone(),
            server_key: PublicKey(ask.state.server_key).to_string(),
            store: ask.state.store.clone(),
            port_first: options.ports.0,
            port_last: options.ports.1,
        };
        Ok(Found::new(body, control_at(control.state().position)))
    }
}
