//! `completion`: what a shell needs to complete our command line.

use std::io::Write;

use clap::CommandFactory;

use crate::args::Cli;
use crate::error::CliError;

pub(super) fn run(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "underpass", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| CliError::io("writing to standard output", &error))
}
