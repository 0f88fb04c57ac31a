//! Failures as problem documents (RFC 9457), each with a stable code.

use std::time::Duration;

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{Example, ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use underpass_control::{ControlError, ErrorClass};
use underpass_domain::Subject;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Every code that this crate adds to those of the domain and the control plane.
pub const CODES: &[&str] = &[
    "auth.required",
    "auth.refused",
    "scope.missing",
    "route.not_found",
    "route.method",
    "request.malformed",
    "request.parameter",
    "request.too_large",
    "request.too_slow",
    "request.media_type",
    "request.invalid",
    "position.ahead",
    "log.trimmed",
    "position.other_log",
    "session.not_found",
    "node.not_found",
    "client.offline",
    "backup.elsewhere",
    "backup.failed",
    "backup.not_empty",
    "log.not_found",
    "log.unreadable",
    "server.busy",
    "server.failed",
];

/// Why a request was not done.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: String,
    detail: String,
    field: Option<String>,
    hint: Option<String>,
    resource: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<String>,
}

/// A problem document (RFC 9457).
#[derive(Object, Clone, Debug)]
#[oai(rename = "Problem", example, skip_serializing_if_is_none)]
pub struct ProblemBody {
    /// The kind of problem: `urn:underpass:error:` and the code.
    #[oai(rename = "type")]
    kind: String,
    /// The meaning of the status code.
    title: String,
    /// The HTTP status code.
    status: u16,
    /// The stable name of the problem, for programs. Each has a page in `docs/errors/`.
    code: String,
    /// What is wrong, as a sentence.
    detail: String,
    /// The field of the request that is wrong.
    field: Option<String>,
    /// What to do about it.
    hint: Option<String>,
    /// The id of what an earlier request of the same kind has made.
    resource: Option<String>,
}

impl Example for ProblemBody {
    fn example() -> Self {
        Problem::new(StatusCode::NOT_FOUND, "mapping.not_found", "there is no such mapping").body()
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code: code.into(),
            detail: detail.into(),
            field: None,
            hint: None,
            resource: None,
            retry_after: None,
            allow: None,
        }))
    }

    /// 404: nothing has this id.
    pub(crate) fn not_found(code: &'static str, what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, format!("there is no {what} `{}`", shown(id)))
    }

    /// 422: the request is well formed but makes no sense.
    pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "request.invalid", detail).field(field)
    }

    /// 400: a parameter or header doesn't parse.
    pub(crate) fn parameter(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request.parameter", detail).field(field)
    }

    /// 503: later it may work.
    pub(crate) fn later(code: &'static str, detail: impl Into<String>, after: Duration) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.0.retry_after = Some(after);
        problem
    }

    /// 405, with the methods that are allowed.
    pub(crate) fn method_not_allowed(allow: String) -> Self {
        let detail = format!("this route knows only {allow}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "route.method", detail);
        problem.0.allow = Some(allow);
        problem
    }

    /// A backup that was not made: because of what the caller asked for, or of something here.
    pub fn no_backup(
        code: &'static str,
        ours: bool,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let status = if ours { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CONFLICT };
        Self::new(status, code, detail).hint(hint)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same about the field that the request has, where a command has `theirs` made from it.
    pub(crate) fn asked_as(mut self, theirs: &str, asked: &str) -> Self {
        if self.0.field.as_deref() == Some(theirs) {
            self.0.detail = self.0.detail.replacen(theirs, asked, 1);
            self.0.field = Some(asked.to_owned());
        }
        self
    }

    fn field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// The problem behind a failure that a library answered with plain text.
    pub(crate) fn of_library(status: StatusCode, text: &str) -> Self {
        let code = match status {
            StatusCode::BAD_REQUEST if text.contains("parameter") || text.contains("path `") => {
                "request.parameter"
            }
            StatusCode::BAD_REQUEST => "request.malformed",
            StatusCode::NOT_FOUND => "route.not_found",
            StatusCode::METHOD_NOT_ALLOWED => "route.method",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "request.media_type",
            StatusCode::PAYLOAD_TOO_LARGE => "request.too_large",
            _ => "server.failed",
        };
        let detail = if text.is_empty() { status.canonical_reason().unwrap_or("failed") } else { text };
        Self::new(status, code, detail)
    }

    fn body(&self) -> ProblemBody {
        let parts = &*self.0;
        ProblemBody {
            kind: format!("urn:underpass:error:{}", parts.code),
            title: parts.status.canonical_reason().unwrap_or("Failed").to_owned(),
            status: parts.status.as_u16(),
            code: parts.code.clone(),
            detail: parts.detail.clone(),
            field: parts.field.clone(),
            hint: parts.hint.clone(),
            resource: parts.resource.clone(),
        }
    }
}

/// A part of the request in an answer: short, and nothing that moves a cursor.
fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(80).collect()
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let status = match error.class() {
            ErrorClass::NotFound => StatusCode::NOT_FOUND,
            ErrorClass::Conflict => StatusCode::CONFLICT,
            ErrorClass::Stale => StatusCode::PRECONDITION_FAILED,
            ErrorClass::Forbidden | ErrorClass::Quota => StatusCode::FORBIDDEN,
            ErrorClass::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(error = &error as &dyn std::error::Error, "a request could not be done");
        }
        let mut problem = Self::new(status, error.code(), error.to_string());
        if let ErrorClass::Invalid(field) = error.class() {
            problem = problem.field(field);
        }
        problem.0.hint = error.hint();
        problem.0.resource = error.subject().and_then(subject_id);
        problem.0.retry_after = error.retry_after();
        problem
    }
}

fn subject_id(subject: Subject) -> Option<String> {
    Some(match subject {
        Subject::Client(id) => id.to_string(),
        Subject::Mapping(id) => id.to_string(),
        Subject::Code(id) => id.to_string(),
        Subject::Invite(id) => id.to_string(),
        Subject::Session(id) => id.to_string(),
        Subject::Node(id) => id.to_string(),
        Subject::Key(id) => id.to_string(),
        Subject::None => return None,
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::builder()
            .status(self.0.status)
            .content_type(PROBLEM_JSON)
            .body(self.body().to_json_string());
        let headers = response.headers_mut();
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"underpass\""));
        }
        if let Some(allow) = self.0.allow.and_then(|methods| HeaderValue::try_from(methods).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<Problem> for poem::Error {
    fn from(problem: Problem) -> Self {
        Self::from_response(problem.into_response())
    }
}

const READS: &[(u16, &str)] = &[
    (400, "A parameter can't be read (`request.parameter`)."),
    (401, "No API key, or none that is good (`auth.required`, `auth.refused`)."),
    (403, "The key lacks the scope (`scope.missing`)."),
    (404, "There is no such thing (`*.not_found`, `route.not_found`)."),
    (500, "A mistake of the server (`server.failed`)."),
    (503, "Later it may work; `Retry-After` says when (`store.*`, `server.*`, `position.ahead`)."),
];

const WRITES: &[(u16, &str)] = &[
    (
        400,
        "The body or a parameter can't be read, or has unknown fields (`request.malformed`, `request.parameter`).",
    ),
    (401, "No API key, or none that is good (`auth.required`, `auth.refused`)."),
    (
        403,
        "The key lacks the scope, a rule forbids it, or a limit is reached (`scope.missing`, `forbidden`, `quota.*`).",
    ),
    (404, "There is no such thing (`*.not_found`, `route.not_found`)."),
    (408, "The body did not come in time (`request.too_slow`)."),
    (409, "It clashes with what is there, or repeats an earlier command (`port.taken`, `command.*`, ...)."),
    (412, "`If-Match` names another version (`version.mismatch`)."),
    (413, "The body is too large (`request.too_large`)."),
    (415, "The body is not JSON (`request.media_type`)."),
    (422, "A field makes no sense; `field` says which (`request.invalid` and codes of the rules)."),
    (500, "A mistake of the server (`server.failed`, `random.failed`)."),
    (503, "Nothing happened; `Retry-After` says when to try again (`store.*`, `server.*`)."),
];

/// The failures of a request that reads.
#[derive(Debug)]
pub struct ReadFailure(pub Problem);

/// The failures of a request that changes something.
#[derive(Debug)]
pub struct WriteFailure(pub Problem);

macro_rules! failures {
    ($($name:ident => $documented:ident),*) => {$(
        impl<E: Into<Problem>> From<E> for $name {
            fn from(error: E) -> Self {
                Self(error.into())
            }
        }

        impl ApiResponse for $name {
            fn meta() -> MetaResponses {
                meta($documented)
            }

            fn register(registry: &mut Registry) {
                ProblemBody::register(registry);
            }
        }
    )*};
}

failures! { ReadFailure => READS, WriteFailure => WRITES }

impl From<ReadFailure> for poem::Error {
    fn from(failure: ReadFailure) -> Self {
        failure.0.into()
    }
}

impl From<WriteFailure> for poem::Error {
    fn from(failure: WriteFailure) -> Self {
        failure.0.into()
    }
}

fn meta(documented: &'static [(u16, &'static str)]) -> MetaResponses {
    let responses = documented.iter().map(|(status, description)| MetaResponse {
        description,
        status: Some(*status),
        status_range: None,
        content: vec![MetaMediaType { content_type: PROBLEM_JSON, schema: ProblemBody::schema_ref() }],
        headers: Vec::new(),
    });
    MetaResponses { responses: responses.collect() }
}
