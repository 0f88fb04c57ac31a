//! Successful answers: a body, the position it belongs to, and the version of what it shows.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type};
use underpass_domain::{LogName, LogPosition, Position};

use crate::problem::Problem;

/// The header that carries the position an answer belongs to.
pub const POSITION_HEADER: &str = "Underpass-Position";

/// A position of the control log.
pub(crate) fn control_at(position: Position) -> LogPosition {
    LogPosition { log: LogName::Control, position }
}

/// A position of the activity log.
pub(crate) fn activity_at(position: Position) -> LogPosition {
    LogPosition { log: LogName::Activity, position }
}

/// 200 with a JSON body.
#[derive(Debug)]
pub struct Found<T> {
    body: T,
    at: LogPosition,
    version: Option<u64>,
}

/// 201 with a JSON body and the place of what was made.
#[derive(Debug)]
pub struct Created<T> {
    body: T,
    at: LogPosition,
    version: Option<u64>,
    location: String,
}

impl<T> Found<T> {
    pub(crate) fn new(body: T, at: LogPosition) -> Self {
        Self { body, at, version: None }
    }

    pub(crate) fn versioned(body: T, at: LogPosition, version: u64) -> Self {
        Self { body, at, version: Some(version) }
    }
}

impl<T> Created<T> {
    pub(crate) fn new(body: T, at: LogPosition, location: String, version: Option<u64>) -> Self {
        Self { body, at, version, location }
    }
}

fn tag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Holds a write back when the caller has seen another version than there is.
pub(crate) fn check_version(if_match: Option<&str>, version: u64) -> Result<(), Problem> {
    let Some(wanted) = if_match.map(str::trim) else { return Ok(()) };
    let current = tag(version);
    if wanted == "*" || wanted.split(',').any(|one| one.trim() == current) {
        return Ok(());
    }
    let detail = format!("the version is {current} by now");
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, "version.mismatch", detail)
        .hint("read it again and decide anew"))
}

fn response<T: ToJSON>(status: StatusCode, body: &T, at: LogPosition, version: Option<u64>) -> Response {
    let mut response =
        Response::builder().status(status).content_type("application/json").body(body.to_json_string());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(at.to_string()) {
        headers.insert("underpass-position", value);
    }
    if let Some(value) = version.and_then(|version| HeaderValue::try_from(tag(version)).ok()) {
        headers.insert(header::ETAG, value);
    }
    response
}

impl<T: ToJSON + Send> IntoResponse for Found<T> {
    fn into_response(self) -> Response {
        response(StatusCode::OK, &self.body, self.at, self.version)
    }
}

impl<T: ToJSON + Send> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut response = response(StatusCode::CREATED, &self.body, self.at, self.version);
        if let Ok(value) = HeaderValue::try_from(self.location) {
            response.headers_mut().insert(header::LOCATION, value);
        }
        response
    }
}

impl<T: ToJSON> ApiResponse for Found<T> {
    fn meta() -> MetaResponses {
        let headers = vec![position_header(), version_header()];
        meta::<T>(200, "As asked for.", headers)
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ToJSON> ApiResponse for Created<T> {
    fn meta() -> MetaResponses {
        let location = text_header("Location", "Where it can be read.", true);
        meta::<T>(201, "It was made.", vec![location, position_header(), version_header()])
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

fn meta<T: Type>(status: u16, description: &'static str, headers: Vec<MetaHeader>) -> MetaResponses {
    MetaResponses {
        responses: vec![MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }],
            headers,
        }],
    }
}

pub(crate) fn position_header() -> MetaHeader {
    text_header(POSITION_HEADER, "The position of the log that the answer shows.", true)
}

fn version_header() -> MetaHeader {
    text_header("ETag", "The version of what is shown, for `If-Match`, where it has one.", false)
}

fn text_header(name: &str, description: &str, required: bool) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required,
        deprecated: false,
        schema: String::schema_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_ahead_only_at_the_version_its_caller_has_seen() {
        for good in [None, Some("*"), Some("\"7\""), Some(" \"7\" "), Some("\"6\", \"7\"")] {
            assert!(check_version(good, 7).is_ok(), "{good:?}");
        }
        for stale in ["\"6\"", "7", "W/\"7\"", ""] {
            let problem = check_version(Some(stale), 7).unwrap_err();
            assert_eq!(problem.status(), StatusCode::PRECONDITION_FAILED, "{stale}");
        }
    }
}
