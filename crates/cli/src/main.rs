//! `underpass`: server, client and tool in one binary.

mod admin;
mod args;
mod duration;
mod error;
mod logging;
mod output;
mod signals;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Format};
use crate::error::{CliError, Exit};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if let Some(filter) = &cli.log {
        logging::asked(filter.clone());
    }
    let output = Output::new(cli.output);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = CliError::io("starting", &error);
            error.print(cli.output);
            return error.exit.into();
        }
    };
    let done = runtime.block_on(verbs::run(cli.verb, output));
    // Whatever still runs has been given its time; a blocked thread must not keep the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print(output.format());
            error.exit.into()
        }
    }
}

/// A command line that makes no sense, in the format that it asked for; `--help` and `--version` are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Not `args`, which panics over what is no text.
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let json = words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|pair| pair == ["--output", "json"]);
    if json {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        CliError::new(Exit::Usage, "usage", first).hint("see `underpass --help`").print(Format::Json);
    } else {
        let _ = error.print();
    }
    Exit::Usage.into()
}
