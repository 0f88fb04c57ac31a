//! The spec, and a page to browse it. Nothing here is loaded from elsewhere.

use poem::http::header;
use poem::{Endpoint, IntoResponse, Response, Route, get};
use poem_openapi::{LicenseObject, OpenApiService};

use crate::resources::backups::Backups;
use crate::resources::clients::Clients;
use crate::resources::codes::Codes;
use crate::resources::difference::Differences;
use crate::resources::events::Events;
use crate::resources::explain::Explain;
use crate::resources::invites::Invites;
use crate::resources::keys::Keys;
use crate::resources::logs::Logs;
use crate::resources::mappings::Mappings;
use crate::resources::nodes::Nodes;
use crate::resources::sessions::Sessions;
use crate::resources::snapshots::Snapshots;
use crate::resources::system::System;
use crate::resources::trimming::Trimming;
use crate::resources::undo::Undo;

/// The version of the API, of which there will be one more when something has to break.
const API_VERSION: &str = "1";

const DESCRIPTION: &str = "\
The control plane of an Underpass server.

**Keys.** Send `Authorization: Bearer <key>`. The first key is in `admin.key` in the data folder of the server; \
`POST /v1/keys` makes others. Scopes: `admin` may everything, `read` reads what is there, `audit` reads what happened, \
`metrics` reads measurements.

**Positions.** Every change is an event at a position of a log, such as `control:1842`. Answers carry the position \
they show in `Underpass-Position`; `?at=` on a read waits briefly until the node has seen that position, so who writes \
then reads what he wrote.

**Repeats.** Send an `Idempotency-Key` (a UUID, or any text of 1 to 255 bytes) with a write, and sending it again within \
a day is harmless: the answer is that of the first time. The exception are answers with a secret, which is shown once: \
their repeat is a 409 that names what was made.

**Versions.** `ETag` is the version of a thing; with `If-Match` a write goes ahead only if it is still that one.

**Lists** come in the order of ids, a page at a time: send `next` as `after`.

**Problems** are documents of RFC 9457 with a stable `code`; each code has a page in `docs/errors/`.";

/// What the page may load: its own inline parts, and this server.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
frame-ancestors 'none'";

/// All resources: their type, and them.
macro_rules! resources {
    ($($resource:ident),* $(,)?) => {
        type Api = ($($resource,)*);

        fn resources() -> Api {
            ($($resource,)*)
        }
    };
}

resources! {
    Clients, Mappings, Codes, Invites, Keys, Sessions, Nodes, Events, Undo, Explain, Logs, Trimming, Snapshots, Differences,
    Backups, System,
}

pub(crate) fn service() -> OpenApiService<Api, ()> {
    OpenApiService::new(resources(), "Underpass", API_VERSION)
        .description(DESCRIPTION)
        .license(LicenseObject::new("Apache-2.0 OR MIT"))
        .server("/")
}

/// The spec (OpenAPI 3.0) as JSON, with a newline at its end.
pub fn spec_json() -> String {
    format!("{}\n", service().spec().trim_end())
}

/// The spec (OpenAPI 3.0) as YAML, with a newline at its end.
pub fn spec_yaml() -> String {
    format!("{}\n", service().spec_yaml().trim_end())
}

/// The routes of the documentation: [`DOC_ROUTES`](crate::routes::DOC_ROUTES).
pub(crate) fn routes() -> Route {
    Route::new()
        .at("/", get(fixed("text/html; charset=utf-8", ROOT.to_owned(), Some("/docs"))))
        .at("/docs", get(fixed("text/html; charset=utf-8", page(), None)))
        .at("/openapi.json", get(fixed("application/json", spec_json(), None)))
        .at("/openapi.yaml", get(fixed("application/yaml", spec_yaml(), None)))
}

const ROOT: &str = "<!doctype html><title>Underpass</title><a href=\"/docs\">API documentation</a>\n";

/// The page: the bundled viewer with the spec inside. The empty icon keeps browsers from asking for one.
fn page() -> String {
    let html = service().swagger_ui_html();
    let html = html.trim_start().replacen("<title>Swagger UI</title>", TITLE, 1);
    format!("<!doctype html>\n{html}")
}

const TITLE: &str = "<title>Underpass API</title>\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"icon\" href=\"data:,\">";

fn fixed(content_type: &'static str, body: String, location: Option<&'static str>) -> impl Endpoint {
    let body = bytes::Bytes::from(body);
    poem::endpoint::make_sync(move |_| {
        let mut response = Response::builder()
            .content_type(content_type)
            .header(header::CONTENT_SECURITY_POLICY, DOCS_POLICY)
            .header(header::CACHE_CONTROL, "no-cache");
        if let Some(location) = location {
            response = response.status(poem::http::StatusCode::SEE_OTHER).header(header::LOCATION, location);
        }
        response.body(body.clone()).into_response()
    })
}
