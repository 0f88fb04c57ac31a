//! Support for whole-system tests: the real binary as child processes, spoken to as a program would, and real
//! services to put behind tunnels. Everything listens on 127.0.0.1, and ends with the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod api;
pub mod bytes;
pub mod process;
pub mod server;
pub mod services;
pub mod tap;
pub mod ways;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use process::{Done, Process, run};
pub use server::{Client, Server, Store};

/// Long enough for anything that should happen soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// The binary under test: `make test` builds it first, into the folder this test was built into.
///
/// `UNDERPASS_BIN` names another one.
pub fn underpass() -> PathBuf {
    if let Some(program) = std::env::var_os("UNDERPASS_BIN") {
        return program.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release"));
    let program = folder.expect("a test lies in the target folder").join("underpass");
    assert!(program.is_file(), "{} is missing: run `cargo build`, or `make test`", program.display());
    program
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The same, as an address.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// Tries until it works, or fails the test after [`SOON`] with the last thing it said.
#[track_caller]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = now() + SOON;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) if now() >= deadline => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The clock of tests.
#[expect(clippy::disallowed_methods, reason = "whole-system tests run in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// How much more of everything long-running tests do: 1, or what `TORTURE` says.
pub fn torture() -> u32 {
    std::env::var("TORTURE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
