//! `config`: look at the server's configuration without starting it.

use serde_json::json;
use underpass_server::config::{Loaded, Sources};

use crate::args::ConfigVerb;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(verb: &ConfigVerb, output: Output) -> Result<(), CliError> {
    let (ConfigVerb::Check { config } | ConfigVerb::Show { config }) = verb;
    let loaded = load(&Sources { file: config.clone(), environment: environment(), ..Sources::default() })?;
    match verb {
        ConfigVerb::Check { .. } => output.line(&json!({"ok": true}), "the configuration is good"),
        ConfigVerb::Show { .. } => {
            let values: Vec<_> = loaded
                .shown
                .iter()
                .map(|row| json!({"key": row.key, "value": row.value, "origin": row.origin.to_string()}))
                .collect();
            let rows: Vec<_> = loaded
                .shown
                .iter()
                .map(|row| {
                    let value = row.value.clone().unwrap_or_else(|| "-".to_owned());
                    vec![row.key.to_owned(), value, row.origin.to_string()]
                })
                .collect();
            output.table(&["KEY", "VALUE", "FROM"], &rows, &values)
        }
    }
}

/// The variables of the process. One that is no text is none of ours, and no reason to stop.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Reads and checks a configuration; all its mistakes are one error.
pub(super) fn load(sources: &Sources) -> Result<Loaded, CliError> {
    Loaded::load(sources).map_err(|errors| {
        let text = errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
        CliError::new(Exit::Failed, "config.invalid", text)
            .hint("docs/configuration.md lists all settings; `underpass config show` shows what is in effect")
    })
}
