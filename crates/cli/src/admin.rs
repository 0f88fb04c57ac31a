//! Speaking to a server as its administrator: over its API, or through its data folder.
//!
//! `--api URL --key-file F` is the REST API with a key. `--data DIR` is the same API on the folder's
//! `control.sock`, with the file mode as the credential. When no server runs on the folder, this process opens
//! the folder itself and serves that socket for as long as the verb takes: one way for both.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use underpass_server::{DataError, Offline};

use crate::args::AdminArgs;
use crate::error::{CliError, Exit};

/// How long one answer may take. Verifying a long log is the slowest.
const ANSWER_DEADLINE: Duration = Duration::from_mins(10);

/// A server that runs on this machine answers within this.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Items asked for at once: the largest page there is.
const PAGE: u64 = 500;

/// A server's API.
#[derive(Debug)]
pub struct Admin {
    http: reqwest::Client,
    base: String,
    key: Option<zeroize::Zeroizing<String>>,
    /// The folder that this process opened because no server runs on it.
    offline: Option<Offline>,
}

impl Admin {
    /// Finds the server that the arguments name, by default the one of `./underpass-data`.
    ///
    /// # Errors
    /// When there is no such folder, or it can't be opened.
    pub async fn reach(args: &AdminArgs) -> Result<Self, CliError> {
        if let Some(base) = &args.api {
            let path = args.key_file.as_deref().ok_or_else(|| {
                CliError::new(Exit::Usage, "usage", "--api needs --key-file")
                    .hint("add --key-file DIR/admin.key")
            })?;
            return Ok(Self {
                http: client(None)?,
                base: base.trim_end_matches('/').to_owned(),
                key: Some(read_key(path)?),
                offline: None,
            });
        }
        let folder = args.folder();
        // Take the folder if nobody has it; whoever has it serves the socket.
        let offline = match Offline::open(folder).await {
            Ok(offline) => Some(offline),
            Err(underpass_server::StartError::Data(DataError::InUse(_))) => None,
            Err(error) => {
                let hint = error.hint();
                return Err(CliError::chain(Exit::Failed, error.code(), &error).hint(hint));
            }
        };
        let socket = underpass_server::control_socket(folder);
        Ok(Self { http: client(Some(&socket))?, base: "http://control.sock".to_owned(), key: None, offline })
    }

    /// Whether this process serves the folder itself, because no server does.
    pub fn is_offline(&self) -> bool {
        self.offline.is_some()
    }

    /// `GET`, as JSON.
    ///
    /// # Errors
    /// The server's problem document, or that nobody answered.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.call(Method::GET, path, None).await
    }

    /// All items of a list, page by page.
    ///
    /// # Errors
    /// As [`Admin::get`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, CliError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let mut page = self.get(&format!("{path}?limit={PAGE}{after}")).await?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                all.extend(items);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Calls `each` with the events after a position, in order, `limit` at the most. `path` has its query.
    ///
    /// # Errors
    /// As [`Admin::get`], and whatever `each` fails with.
    pub async fn each_event(
        &self,
        path: &str,
        after: u64,
        limit: Option<u64>,
        each: &mut (dyn FnMut(&Value) -> Result<(), CliError> + Send),
    ) -> Result<(), CliError> {
        let mut after = after;
        let mut left = limit.unwrap_or(u64::MAX);
        while left > 0 {
            let size = left.min(PAGE);
            let page = self.get(&format!("{path}&after={after}&limit={size}")).await?;
            let items = page.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for event in items {
                each(event)?;
            }
            left -= size.min(items.len() as u64);
            match page.get("next").and_then(position_number) {
                Some(next) if next > after => after = next,
                _ => break,
            }
        }
        Ok(())
    }

    /// The same, collected.
    ///
    /// # Errors
    /// As [`Admin::get`].
    pub async fn events(&self, path: &str, after: u64, limit: Option<u64>) -> Result<Vec<Value>, CliError> {
        let mut all = Vec::new();
        self.each_event(path, after, limit, &mut |event| {
            all.push(event.clone());
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// A call with a JSON body.
    ///
    /// # Errors
    /// As [`Admin::get`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let response = self.send(method, path, body).await?;
        let text = response.text().await.map_err(|error| unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| CliError::new(Exit::Failed, "api.answer", format!("not a JSON answer: {error}")))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, CliError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.as_str());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Value = response.json().await.unwrap_or_default();
        Err(refusal(status, &problem))
    }

    /// A stream of server-sent events: each `data` as JSON, until `each` says to stop or the server ends.
    ///
    /// # Errors
    /// As [`Admin::get`], and whatever `each` fails with.
    pub async fn stream(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let response = self.send(Method::GET, path, None).await?;
        let mut chunks = response.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.next().await {
            buffer.extend_from_slice(&chunk.map_err(|error| unreachable(&error))?);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.trim_end().strip_prefix("data:")
                    && let Ok(value) = serde_json::from_str(data.trim())
                {
                    each(value)?;
                }
            }
        }
        Ok(())
    }

    /// An answer of any length, as it comes.
    ///
    /// # Errors
    /// As [`Admin::get`], and whatever `each` fails with.
    pub async fn download(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut chunks = self.send(Method::GET, path, None).await?.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            each(&chunk.map_err(|error| unreachable(&error))?)?;
        }
        Ok(())
    }

    /// Gives the folder back, if this process holds it.
    pub async fn close(self) {
        if let Some(offline) = self.offline {
            offline.close().await;
        }
    }
}

fn client(socket: Option<&Path>) -> Result<reqwest::Client, CliError> {
    let mut builder =
        reqwest::Client::builder().connect_timeout(CONNECT_DEADLINE).read_timeout(ANSWER_DEADLINE);
    if let Some(socket) = socket {
        builder = builder.unix_socket(socket);
    }
    builder.build().map_err(|error| CliError::chain(Exit::Failed, "api.client", &error))
}

fn read_key(path: &Path) -> Result<zeroize::Zeroizing<String>, CliError> {
    use std::os::unix::fs::PermissionsExt;
    let doing = format!("reading {}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| CliError::io(&doing, &error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(CliError::new(
            Exit::Failed,
            "key_file.mode",
            format!("{} is open to others (mode {mode:o})", path.display()),
        )
        .hint(format!("run: chmod 600 {}", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| CliError::io(&doing, &error))?;
    Ok(zeroize::Zeroizing::new(text.trim().to_owned()))
}

fn unreachable(error: &reqwest::Error) -> CliError {
    CliError::new(Exit::Unreachable, "api.unreachable", format!("the API does not answer: {}", reason(error)))
        .hint("check that the server runs and that the address is right")
}

/// What a problem document means for the exit code.
fn refusal(status: StatusCode, problem: &Value) -> CliError {
    let text = |key: &str| problem.get(key).and_then(Value::as_str);
    let exit = match status {
        StatusCode::UNAUTHORIZED => Exit::Credentials,
        StatusCode::NOT_FOUND => Exit::NotFound,
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Failed,
    };
    let code = text("code").unwrap_or("api.error");
    let message = text("detail").or_else(|| text("title")).unwrap_or(status.as_str());
    CliError {
        code: code.to_owned(),
        message: message.to_owned(),
        hint: text("hint").map(ToOwned::to_owned),
        exit,
    }
}

/// The number in `control:1842`, or a bare one.
pub fn position_number(position: &Value) -> Option<u64> {
    match position {
        Value::String(text) => text.rsplit(':').next()?.parse().ok(),
        other => other.as_u64(),
    }
}

/// Why a request failed, without its address, which says nothing for a socket.
fn reason(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    let mut source = std::error::Error::source(error);
    let mut innermost = None;
    while let Some(cause) = source {
        innermost = Some(cause.to_string());
        source = cause.source();
    }
    innermost.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}"))
}
