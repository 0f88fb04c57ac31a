//! Support for whole-system tests: the real binary as child processes, spoken to as a program would, and real
//! services to put behind tunnels. Everything listens on 127.0.0.1, and ends with the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod api;
pub mod bytes;
pub mod logs;
pub mod process;
pub mod server;
pub mod services;
pub mod synced;
pub mod tap;
pub mod ways;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
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

/// A port of 127.0.0.1 that was free a moment ago. Above those that the kernel gives to whoever connects or binds
/// port 0 (on Linux 32768 to 60999), so that it stays free, and never the same one twice in a row.
pub fn free_port() -> u16 {
    const LOW: u32 = 61_000;
    const COUNT: u32 = 4_500;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(2_654_435_761);
    (0..COUNT)
        .map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|offset| u16::try_from(LOW + offset).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
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
