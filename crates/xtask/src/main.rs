//! Checks and generators of the workspace: `cargo xtask layers`, `cargo xtask generated [--check]`.

mod generated;
mod layers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["layers"] => layers::check(),
        ["generated"] => generated::write(),
        ["generated", "--check"] => generated::check(),
        _ => Err("usage: cargo xtask layers | generated [--check]".to_owned()),
    };
    match done {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
