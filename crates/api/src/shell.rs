//! What happens around every route: authentication, limits, problems, headers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::web::RemoteAddr;
use poem::{Addr, Body, Endpoint, IntoResponse, Request, Response, Route};
use tokio::io::{AsyncRead, AsyncReadExt};
use underpass_domain::CommandId;

use crate::auth::{Asked, Asker, bearer, refused, unauthenticated};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::routes::{DOC_ROUTES, Met, OPEN_ROUTES, Routes};
use crate::state::{Access, ApiState};

/// The largest body of a request. The largest that makes sense is some kilobytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take to come in.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read all the same, for how long, and with which pauses in it.
pub(crate) const PASSED_OVER_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
const PASSED_OVER_TIMEOUT: Duration = Duration::from_secs(3);
const PASSED_OVER_PAUSE: Duration = Duration::from_millis(200);
/// How much of a library's plain-text failure is put into a problem document.
const LIBRARY_TEXT_MAX: usize = 2_000;

/// The outermost endpoint.
pub(crate) struct Shell<E> {
    pub state: Arc<ApiState>,
    pub access: Access,
    pub routes: Routes,
    pub docs: Route,
    pub inner: E,
}

impl<E: Endpoint<Output = Response>> Endpoint for Shell<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let id = self.state.control.new_command_id();
        let mut response = match &id {
            Ok(id) => self.answer(request, *id).await.unwrap_or_else(IntoResponse::into_response),
            Err(failed) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "random.failed", failed.to_string())
                    .into_response()
            }
        };
        let status = response.status();
        self.state.requests.count(status);
        tracing::debug!(%method, path, status = status.as_u16(), "api");
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(value) = id.ok().and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            headers.insert("x-request-id", value);
        }
        Ok(response)
    }
}

impl<E: Endpoint<Output = Response>> Shell<E> {
    async fn answer(&self, mut request: Request, id: CommandId) -> Result<Response, Problem> {
        let source = source(&request);
        let path = request.uri().path().to_owned();
        if !OPEN_ROUTES.contains(&path.as_str()) {
            let asker = self.authenticate(&request, source).await?;
            request.extensions_mut().insert(Asked { asker, source, request: id.0 });
        }
        match self.routes.meet(request.method(), &path, request.uri().query()) {
            Met::Route => {}
            Met::NoRoute => {
                return Err(Problem::new(StatusCode::NOT_FOUND, "route.not_found", "there is no such route")
                    .hint("the routes are listed at /docs"));
            }
            Met::OtherMethods(allowed) => return Err(Problem::method_not_allowed(allowed)),
            Met::UnknownParameter(name) => {
                return Err(Problem::parameter(&name, format!("this route knows no parameter `{name}`")));
            }
        }
        let body = read_body(&mut request).await?;
        request.set_body(body);
        request.extensions_mut().insert(Arc::clone(&self.state));
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let method = request.method().clone();
        let asker = request.extensions().get::<Asked>().map(|asked| asked.asker.clone());
        let answered = if DOC_ROUTES.contains(&path.as_str()) {
            self.docs.call(request).await
        } else {
            self.inner.call(request).await
        };
        let response = answered.unwrap_or_else(poem::Error::into_response);
        if changes && response.status().is_success() {
            tracing::info!(%method, path, ?asker, request = %id, "changed through the API");
        }
        Ok(as_problem(response).await)
    }

    async fn authenticate(&self, request: &Request, source: Option<IpAddr>) -> Result<Asker, Problem> {
        if self.access == Access::Operator {
            return Ok(Asker::Operator);
        }
        let token = bearer(request).ok_or_else(unauthenticated)?;
        match self.state.control.authenticate(token) {
            Ok(principal) => Ok(Asker::Key(principal)),
            Err(failure) => {
                let reason = format!("api: {failure}");
                if let Some(address) = source
                    && let Err(error) = self.state.control.record_auth_failure(address, None, &reason).await
                {
                    tracing::debug!(%error, "a failed authentication is not recorded");
                }
                Err(refused())
            }
        }
    }
}

fn source(request: &Request) -> Option<IpAddr> {
    match request.remote_addr() {
        RemoteAddr(Addr::SocketAddr(address)) => Some(address.ip()),
        _ => None,
    }
}

/// Reads the body, counting what comes and not what a header says.
async fn read_body(request: &mut Request) -> Result<Body, Problem> {
    let declared = request.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let mut coming = request.take_body().into_async_read();
    if declared.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large(&mut coming, declared).await);
    }
    let mut bytes = Vec::new();
    let mut some = (&mut coming).take(BODY_BYTES_MAX as u64 + 1);
    match tokio::time::timeout(BODY_TIMEOUT, some.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) if bytes.len() > BODY_BYTES_MAX => Err(too_large(&mut coming, None).await),
        Ok(Ok(_)) => Ok(Body::from_vec(bytes)),
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, "request.malformed", error.to_string())),
        Err(_) => {
            let detail = format!("the body did not come within {} seconds", BODY_TIMEOUT.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request.too_slow", detail))
        }
    }
}

/// Passes over a body that is not absurdly large before it is refused: whoever is still sending when the
/// connection closes sees it break, and not the answer.
async fn too_large(coming: &mut (impl AsyncRead + Unpin), declared: Option<u64>) -> Problem {
    if declared.is_none_or(|length| length <= PASSED_OVER_BYTES_MAX as u64) {
        let mut rest = coming.take(PASSED_OVER_BYTES_MAX as u64);
        let mut some = vec![0; 16 * 1024];
        let _ = tokio::time::timeout(PASSED_OVER_TIMEOUT, async {
            while let Ok(Ok(1..)) = tokio::time::timeout(PASSED_OVER_PAUSE, rest.read(&mut some)).await {}
        })
        .await;
    }
    let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail)
}

/// Turns a failure that a library answered into a problem document.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let already = response.content_type().is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
    // Readiness answers 503 with what it found, not with a problem.
    let json = response.content_type().is_some_and(|kind| kind.starts_with("application/json"));
    if !failed || already || json {
        return response;
    }
    let bytes = response.into_body().into_bytes_limit(LIBRARY_TEXT_MAX).await.unwrap_or_default();
    Problem::of_library(status, String::from_utf8_lossy(&bytes).trim()).into_response()
}
