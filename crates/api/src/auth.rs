//! Who asks, and whether they may.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use poem::http::StatusCode;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use underpass_control::{Caller, Principal, hash_secret};
use underpass_domain::{Actor, CommandId, LogName, LogPosition, Scope};

use crate::problem::Problem;
use crate::state::ApiState;

/// The name of the security scheme in the spec.
const SCHEME: &str = "api_key";
/// The longest `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How long a read waits for the position in `at`. It is a matter of milliseconds on a node that follows.
pub const AT_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Who is behind a request.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// Whoever can reach the control socket.
    Operator,
    /// The holder of an API key.
    Key(Principal),
}

impl Asker {
    fn actor(&self) -> Actor {
        match self {
            Self::Operator => Actor::Operator,
            Self::Key(principal) => Actor::Key(principal.key),
        }
    }

    fn has(&self, scope: Scope) -> bool {
        match self {
            Self::Operator => true,
            Self::Key(principal) => principal.scopes.iter().any(|has| *has == scope || *has == Scope::Admin),
        }
    }
}

/// What the shell around all routes found out about a request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub asker: Asker,
    pub source: Option<IpAddr>,
    pub request: [u8; 16],
}

/// What a route needs.
pub trait Need: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
    /// Its name.
    const NAME: &'static str;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident = $scope:ident $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Need for $name {
            const SCOPE: Scope = Scope::$scope;
            const NAME: &'static str = $text;
        }
    )*};
}

needs! {
    /// For changes, and for what shows how to get in.
    Admin = Admin "admin";
    /// For reading what is there.
    Read = Read "read";
    /// For reading what happened.
    Audit = Audit "audit";
    /// For measurements.
    Metrics = Metrics "metrics";
}

/// A request whose asker has the scope that the route needs, with what handlers work on.
pub struct Ask<N> {
    pub(crate) state: Arc<ApiState>,
    asked: Asked,
    need: PhantomData<N>,
}

impl<N> Ask<N> {
    /// The caller of a command.
    pub(crate) fn caller(&self, idempotency_key: Option<&str>) -> Result<Caller, Problem> {
        let mut caller = Caller::new(self.asked.asker.actor());
        caller.source = self.asked.source;
        caller.correlation = Some(self.asked.request);
        caller.command = idempotency_key.map(command_id).transpose()?;
        Ok(caller)
    }

    /// Tells whether the asker is still let in: a stream outlives the request that it began with.
    pub(crate) fn standing(&self) -> impl Fn() -> bool + Send + Sync + use<N> {
        let control = Arc::clone(&self.state.control);
        let key = match &self.asked.asker {
            Asker::Operator => None,
            Asker::Key(principal) => Some(principal.key),
        };
        move || {
            let view = control.state();
            key.is_none_or(|key| view.state.key(key).is_some_and(|key| key.is_good(control.now())))
        }
    }

    /// Waits for the position that the caller has seen elsewhere, but not for long.
    pub(crate) async fn wait(&self, log: LogName, at: Option<&str>) -> Result<(), Problem> {
        let Some(text) = at else { return Ok(()) };
        let at: LogPosition = text
            .parse()
            .map_err(|_| Problem::parameter("at", "`at` must be a position such as `control:1842`"))?;
        if at.log != log {
            let detail = format!("this shows the {log} log; `at` names the {} log", at.log);
            return Err(Problem::new(StatusCode::BAD_REQUEST, "position.other_log", detail));
        }
        let control = &self.state.control;
        let reached = match log {
            LogName::Control => control.log().wait_for(at.position, AT_WAIT).await,
            LogName::Activity => control.activity_log().wait_for(at.position, AT_WAIT).await,
        };
        if reached {
            return Ok(());
        }
        let detail = format!("this node has not seen {at} yet");
        Err(Problem::later("position.ahead", detail, std::time::Duration::from_secs(1)))
    }
}

/// A UUID is taken as it is; another text is hashed into one.
fn command_id(text: &str) -> Result<CommandId, Problem> {
    if text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let rule = format!("`Idempotency-Key` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(Problem::parameter("Idempotency-Key", rule));
    }
    Ok(text.parse().unwrap_or_else(|_| {
        let mut id = [0; 16];
        id.copy_from_slice(&hash_secret(text.as_bytes()).0[..16]);
        CommandId(id)
    }))
}

impl<'a, N: Need> ApiExtractor<'a> for Ask<N> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some("An API key, as `underpass key issue` or `POST /v1/keys` shows it once."),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("up_<id>_<secret>"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let asked = request.extensions().get::<Asked>();
        let state = request.extensions().get::<Arc<ApiState>>();
        let (Some(asked), Some(state)) = (asked, state) else {
            return Err(unauthenticated().into());
        };
        if !asked.asker.has(N::SCOPE) {
            let detail = format!("this needs a key with the scope `{}`", N::NAME);
            return Err(Problem::new(StatusCode::FORBIDDEN, "scope.missing", detail).into());
        }
        Ok(Self { state: Arc::clone(state), asked: asked.clone(), need: PhantomData })
    }
}

/// 401: no key was shown.
pub(crate) fn unauthenticated() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "auth.required", "an API key is needed")
        .hint("send `Authorization: Bearer <key>`; the first key is in `admin.key` in the data folder")
}

/// 401: the key opens nothing. Why is told to the log only.
pub(crate) fn refused() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "auth.refused", "this API key is not good")
        .hint("it is mistyped, revoked, expired or of another server; the first key is in `admin.key` in the data folder")
}

/// The token of a request. `None`: it shows none.
pub(crate) fn bearer(request: &Request) -> Option<&str> {
    let value = request.header("authorization")?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        // Another scheme is a wrong credential, not a missing one.
        return Some("");
    }
    Some(token.trim())
}
