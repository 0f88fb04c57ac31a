//! File descriptors run out and come back. In a process of its own: the limit is one for all tests in it.

#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;
use underpass_transport::Listener;
use underpass_transport::tcp::TcpListener;

/// C36: accepting pauses without an error and resumes by itself; callers who waited are served.
#[tokio::test]
async fn c36_accepting_pauses_without_descriptors_and_resumes() {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr();
    let mut callers: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();

    // All descriptors below the limit are in use from now on.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = getrlimit(Resource::Nofile);
    let spare: Vec<_> = {
        setrlimit(Resource::Nofile, Rlimit { current: Some(used + 16), maximum: limit.maximum }).unwrap();
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
    };
    let paused = timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(paused.is_err(), "accepted or failed without descriptors: {paused:?}");

    drop(spare);
    let mut served = Vec::new();
    for _ in 0..callers.len() {
        let incoming = timeout(Duration::from_secs(10), listener.accept()).await.expect("accepting resumes");
        served.push(incoming.unwrap().handshake().await.unwrap());
    }
    assert_eq!(served.len(), 8);
    callers.clear();
    setrlimit(Resource::Nofile, limit).unwrap();
}
