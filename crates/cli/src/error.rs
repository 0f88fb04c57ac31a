//! Errors as a person or a program hears them.

use std::error::Error;
use std::process::ExitCode;

use serde_json::json;

use crate::args::Format;

/// The process's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A server refused, with a code.
    Refused = 3,
    /// The thing asked for does not exist.
    NotFound = 4,
    /// Nobody answers.
    Unreachable = 5,
    /// Somebody answers, and does not accept who we are.
    Credentials = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A verb failed.
#[derive(Debug)]
pub struct CliError {
    /// A stable code; each has a page in `docs/errors/`.
    pub code: String,
    /// What went wrong, and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl CliError {
    /// An error without a hint.
    pub fn new(exit: Exit, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, exit }
    }

    /// With what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From an error with sources, whose sentences become one.
    pub fn chain(exit: Exit, code: impl Into<String>, error: &dyn Error) -> Self {
        Self::new(exit, code, sentence(error))
    }

    /// Something on this machine failed.
    pub fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::new(Exit::Failed, "io", format!("{doing}: {error}"))
    }

    /// What to do: what the error's author said, else what helps with errors of its kind.
    fn advice(&self) -> &str {
        match (&self.hint, self.exit) {
            (Some(hint), _) => hint,
            (None, Exit::Failed) => {
                "run it again with `--log debug` to see more; docs/errors explains the code"
            }
            (None, Exit::Usage) => "see `underpass --help`",
            (None, Exit::Refused) => "docs/errors explains the code and what can be done",
            (None, Exit::NotFound) => "check the id or name; `underpass ls` lists what there is",
            (None, Exit::Unreachable) => "check the address, the network and that the server runs",
            (None, Exit::Credentials) => "check that the key or state folder belongs to this server",
        }
    }

    /// Prints it to standard error.
    pub fn print(&self, format: Format) {
        let hint = self.advice();
        match format {
            Format::Json => {
                eprintln!(
                    "{}",
                    json!({"event": "error", "code": self.code, "message": self.message, "hint": hint})
                );
            }
            Format::Text => {
                eprintln!("error: {} ({})", self.message, self.code);
                eprintln!("  hint: {hint}");
            }
        }
    }
}

/// An error and all its sources, in one line, without saying anything twice.
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<underpass_agent::ErrorReport> for CliError {
    fn from(report: underpass_agent::ErrorReport) -> Self {
        use underpass_agent::ExitClass;
        let exit = match report.class {
            ExitClass::Usage => Exit::Usage,
            ExitClass::Refused => Exit::Refused,
            ExitClass::NotFound => Exit::NotFound,
            ExitClass::Unreachable => Exit::Unreachable,
            ExitClass::Credentials => Exit::Credentials,
            ExitClass::Failed => Exit::Failed,
        };
        Self { code: report.code, message: report.message, hint: report.hint, exit }
    }
}
