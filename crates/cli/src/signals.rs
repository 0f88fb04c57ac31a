//! SIGINT, SIGTERM and SIGHUP (the terminal is gone): the first asks for an orderly end, the second ends at once.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// What a shell reports for a process that was ended by SIGINT.
const ENDED_BY_SIGNAL: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When the handlers can't be installed.
pub fn stop_token() -> Result<CancellationToken, CliError> {
    let install = |kind| signal(kind).map_err(|error| CliError::io("installing signal handlers", &error));
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    let mut hangup = install(SignalKind::hangup())?;
    // A file that may not grow further is an error of its write, as a full disk is, and no reason to die. That the
    // signal has a handler at all is enough, and a handler stays.
    drop(install(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    let token = CancellationToken::new();
    let first = token.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the process, above every group of tasks"
    )]
    tokio::spawn(async move {
        for nth in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if nth > 0 {
                std::process::exit(ENDED_BY_SIGNAL);
            }
            first.cancel();
        }
    });
    Ok(token)
}
