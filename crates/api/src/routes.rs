//! The routes of the API, as its spec lists them.

use std::collections::{BTreeMap, BTreeSet};

use poem::http::Method;
use serde_json::Value;

/// Routes that need no key: liveness, readiness and the documentation.
pub const OPEN_ROUTES: &[&str] = &["/", "/docs", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz"];

/// Routes that are outside of the spec: the documentation itself.
pub(crate) const DOC_ROUTES: &[&str] = &["/", "/docs", "/openapi.json", "/openapi.yaml"];

/// What a method of a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Operation {
    query: BTreeSet<String>,
}

/// All routes, to answer what no handler sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes(Vec<(Vec<Segment>, BTreeMap<String, Operation>)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Fixed(String),
    Any,
}

/// What a request meets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Route,
    NoRoute,
    /// The methods that are allowed, for the header of that name.
    OtherMethods(String),
    UnknownParameter(String),
}

impl Routes {
    /// Reads them from the spec.
    pub(crate) fn new(spec: &Value) -> Self {
        let mut routes: Vec<_> = DOC_ROUTES
            .iter()
            .map(|path| (segments(path), BTreeMap::from([("GET".to_owned(), Operation::default())])))
            .collect();
        for (path, methods) in spec["paths"].as_object().into_iter().flatten() {
            let methods = methods.as_object().into_iter().flatten();
            let operations = methods.map(|(method, operation)| {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let query = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
                (method.to_uppercase(), Operation { query: query.collect() })
            });
            routes.push((segments(path), operations.collect()));
        }
        Self(routes)
    }

    pub(crate) fn meet(&self, method: &Method, path: &str, query: Option<&str>) -> Met {
        let wanted: Vec<_> = path.split('/').skip(1).collect();
        let found = self.0.iter().filter(|(segments, _)| matches(segments, &wanted));
        // Where a fixed segment and a parameter both fit, the fixed one is meant.
        let fixed = |segments: &[Segment]| segments.iter().filter(|one| **one != Segment::Any).count();
        let Some((_, operations)) = found.max_by_key(|(segments, _)| fixed(segments)) else {
            return Met::NoRoute;
        };
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let Some(operation) = operations.get(method) else {
            let mut allowed: Vec<_> = operations.keys().map(String::as_str).collect();
            if operations.contains_key("GET") {
                allowed.push("HEAD");
            }
            return Met::OtherMethods(allowed.join(", "));
        };
        let names = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        match names.find(|name| !operation.query.contains(*name)) {
            Some(name) => Met::UnknownParameter(name.chars().take(80).collect()),
            None => Met::Route,
        }
    }
}

fn segments(path: &str) -> Vec<Segment> {
    let parts = path.split('/').skip(1);
    parts
        .map(|part| if part.starts_with('{') { Segment::Any } else { Segment::Fixed(part.to_owned()) })
        .collect()
}

fn matches(segments: &[Segment], wanted: &[&str]) -> bool {
    segments.len() == wanted.len()
        && segments.iter().zip(wanted).all(|(segment, part)| match segment {
            Segment::Fixed(fixed) => fixed == part,
            Segment::Any => !part.is_empty(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn routes() -> Routes {
        Routes::new(&json!({ "paths": {
            "/v1/things": { "get": { "parameters": [{ "in": "query", "name": "limit" }] }, "post": {} },
            "/v1/things/{thing}": { "get": {}, "delete": {} },
            "/v1/things/special": { "put": {} },
        }}))
    }

    #[test]
    fn a_request_meets_its_route_or_learns_why_not() {
        let meet = |method, path, query| routes().meet(&method, path, query);
        assert_eq!(meet(Method::GET, "/v1/things", Some("limit=3")), Met::Route);
        assert_eq!(meet(Method::HEAD, "/v1/things", None), Met::Route);
        assert_eq!(meet(Method::GET, "/v1/things", Some("limit=3&x")), Met::UnknownParameter("x".into()));
        assert_eq!(meet(Method::GET, "/v1/things/7", None), Met::Route);
        assert_eq!(meet(Method::PUT, "/v1/things", None), Met::OtherMethods("GET, POST, HEAD".into()));
        assert_eq!(meet(Method::GET, "/v1/things/special", None), Met::OtherMethods("PUT".into()));
        assert_eq!(meet(Method::GET, "/v1/things/", None), Met::NoRoute);
        assert_eq!(meet(Method::GET, "/v1/thing", None), Met::NoRoute);
        assert_eq!(meet(Method::GET, "/", None), Met::Route);
    }
}
