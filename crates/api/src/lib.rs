//! The REST API of a node: parse, authorise, call the control plane, translate.
//!
//! [`router`] is the whole of it as one `poem` endpoint. Handlers decide nothing: they turn requests into
//! commands and queries of [`underpass_control::Control`], and what comes back into JSON or a problem document
//! (RFC 9457, [`Problem`]) with a stable code. Around every route lies one shell: authentication, limits on what
//! comes in, unknown routes, methods and parameters, security headers.
//!
//! The spec is generated from the handlers ([`spec_json`], [`spec_yaml`]) and committed in `openapi/`; `/docs`
//! shows it without loading anything from elsewhere.

mod answer;
mod auth;
mod docs;
mod live;
mod metrics;
mod page;
mod problem;
mod resources;
mod routes;
mod shell;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use poem::{Endpoint, IntoEndpoint, Response};

pub use answer::POSITION_HEADER;
pub use auth::{AT_WAIT, IDEMPOTENCY_KEY_BYTES_MAX};
pub use docs::{spec_json, spec_yaml};
pub use live::{LiveEnd, LiveLink, LiveServing, LiveState, LiveTunnel};
pub use metrics::{Measured, Measurement};
pub use page::{LIMIT_DEFAULT, LIMIT_MAX};
pub use problem::{CODES, PROBLEM_JSON, Problem};
pub use routes::OPEN_ROUTES;
pub use shell::{BODY_BYTES_MAX, BODY_TIMEOUT};
pub use state::{Access, ApiState, Backups, InviteLine, REPLAYS_MAX, STREAMS_MAX, StoreMeasures};

/// The API over `state`, for whom `access` says. It answers every request; it never fails.
pub fn router(state: Arc<ApiState>, access: Access) -> impl Endpoint<Output = Response> + use<> {
    let spec = serde_json::from_str(&spec_json()).unwrap_or_default();
    shell::Shell {
        state,
        access,
        routes: routes::Routes::new(&spec),
        docs: docs::routes(),
        inner: docs::service().into_endpoint(),
    }
}
