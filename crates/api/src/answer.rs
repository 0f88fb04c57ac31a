//! Successful answers: a body, the position it belongs to, and the version of what it shows.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type};
use underpass_domain::{ControlCommand, LogName, LogPosition, Position, StreamId};

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

/// The command, held to the versions that an `If-Match` header names: whether they still hold is decided with
/// the command itself, so that nothing comes between. A tag that is not one of ours matches nothing.
pub(crate) fn only_at(
    if_match: Option<&str>,
    of: impl Into<StreamId>,
    command: ControlCommand,
) -> ControlCommand {
    let Some(wanted) = if_match.map(str::trim).filter(|wanted| *wanted != "*") else { return command };
    let versions = wanted.split(',').filter_map(|one| {
        let digits = one.trim().strip_prefix('"')?.strip_suffix('"')?;
        let version: u64 = digits.parse().ok()?;
        (tag(version) == one.trim()).then_some(version)
    });
    ControlCommand::OnlyAt { of: of.into(), versions: versions.collect(), command: Box::new(command) }
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
    use underpass_domain::KeyId;

    use super::*;

    #[test]
    fn a_write_goes_ahead_only_at_the_version_its_caller_has_seen() {
        let key = KeyId::from_bytes([1; 16]);
        let command = ControlCommand::RevokeKey { key };
        for any in [None, Some("*"), Some(" * ")] {
            assert_eq!(only_at(any, key, command.clone()), command, "{any:?}");
        }
        let table: &[(&str, &[u64])] = &[
            ("\"7\"", &[7]),
            (" \"7\" ", &[7]),
            ("\"6\", \"7\"", &[6, 7]),
            ("7", &[]),
            ("\"+7\"", &[]),
            ("\"07\"", &[]),
            ("W/\"7\"", &[]),
            ("", &[]),
        ];
        for (header, expected) in table {
            let ControlCommand::OnlyAt { versions, .. } = only_at(Some(header), key, command.clone()) else {
                panic!("{header}: not held to a version");
            };
            assert_eq!(&versions, expected, "{header}");
        }
    }
}
