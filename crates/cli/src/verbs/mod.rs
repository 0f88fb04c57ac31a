//! The verbs, one file each.

mod checkpoints;
mod client;
mod completion;
mod config;
mod connect;
mod demo;
mod diff;
mod explain;
mod export;
mod expose;
mod foreground;
mod history;
mod invite;
mod join;
mod log;
mod ls;
mod repair;
mod rm;
mod serve;
mod share;
mod status;
mod store;
mod trim;
mod undo;
mod up;

use crate::args::Verb;
use crate::error::CliError;
use crate::output::Output;

/// Does what the command line asks for.
///
/// # Errors
/// Why it was not done; printing it is the caller's.
pub async fn run(verb: Verb, output: Output) -> Result<(), CliError> {
    match verb {
        Verb::Serve(args) => serve::run(&args, output).await,
        Verb::Invite(args) => invite::run(&args, output).await,
        Verb::Join(args) => join::run(args, output).await,
        Verb::Up(args) => up::run(&args, output).await,
        Verb::Expose(args) => expose::run(args, output).await,
        Verb::Share(args) => share::run(args, output).await,
        Verb::Connect(args) => connect::run(args, output).await,
        Verb::Ls(args) => ls::run(&args, output).await,
        Verb::Rm(args) => rm::run(&args, output).await,
        Verb::Status(args) => status::run(&args, output).await,
        Verb::History(args) => history::run(&args, output).await,
        Verb::Explain(args) => explain::run(&args, output).await,
        Verb::Undo(args) => undo::run(&args, output).await,
        Verb::Log { verb } => log::run(verb, output).await,
        Verb::Store { verb } => store::run(verb, output).await,
        Verb::Config { verb } => config::run(&verb, output),
        Verb::Demo(args) => demo::run(&args, output).await,
        Verb::Completion { shell } => completion::run(shell),
    }
}
