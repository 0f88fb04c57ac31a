//! Log lines on standard error.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// What `--log` said.
static ASKED: OnceLock<String> = OnceLock::new();

/// Remembers `--log`, which goes before everything else.
pub fn asked(filter: String) {
    let _ = ASKED.set(filter);
}

/// Starts logging at this level, or what `--log` said. Only the first call counts.
pub fn start(level: &str, json: bool) {
    let filter = ASKED.get().map_or(level, String::as_str);
    // The HTTP server's own lines at `info` say what ours say.
    let filter = if filter == "info" { "info,poem=warn" } else { filter };
    let filter = EnvFilter::builder().parse_lossy(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging had started already");
    }
}
