//! Callers and their target. Prints one JSON object a run.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::net::TcpListener;
use underpass_benches::load::{self, Kind};
use underpass_benches::target;

/// Load for anything that carries TCP.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answers the callers; prints its address.
    Target {
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Calls an address behind which the target stands.
    Run {
        /// What the callers do.
        kind: Kind,
        /// Whom they call.
        address: SocketAddr,
        /// How many at once.
        #[arg(long, default_value_t = 1)]
        callers: usize,
        /// For how long, after half a second of warming up.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse().verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> io::Result<()> {
    match verb {
        Verb::Target { listen } => {
            let listener = TcpListener::bind(listen).await?;
            println!("{}", json!({"event": "ready", "address": listener.local_addr()?.to_string()}));
            target::serve(listener).await
        }
        Verb::Run { kind, address, callers, seconds } => {
            let time = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
            let outcome = load::run(kind, address, callers, time).await?;
            println!("{}", outcome.to_json(kind, callers));
            Ok(())
        }
    }
}
