//! Bytes to send, and peers that send them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A connection that fails rather than hangs.
pub fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes `total` bytes that look random and are the same for the same `seed`; their hash.
pub fn pour(mut out: impl Write, seed: u64, total: u64) -> std::io::Result<String> {
    let mut source = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 256 * 1024];
    let mut left = total;
    while left > 0 {
        let size = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        source.fill(&mut chunk[..size]);
        hasher.update(&chunk[..size]);
        out.write_all(&chunk[..size])?;
        left -= size as u64;
    }
    Ok(hasher.finalize().to_string())
}

/// Reads to the end; how much, and its hash.
pub fn drain(mut from: impl Read) -> std::io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok((total, hasher.finalize().to_string())),
            read => {
                hasher.update(&chunk[..read]);
                total += read as u64;
            }
        }
    }
}

/// A service of our own: `serve` runs for each connection, in a thread.
pub fn service(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends everything back, and ends when the caller does.
pub fn echo() -> SocketAddr {
    service(|stream| {
        let _ = stream.set_nodelay(true);
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut &stream);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Whether a service that echoes answers through this address, right now.
pub fn echoes(address: SocketAddr) -> Result<(), String> {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = dial(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"are you there?")?;
        let mut answer = [0; 14];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"are you there?")
    };
    match attempt() {
        Ok(true) => Ok(()),
        Ok(false) => Err("another answer".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads to the end or a failure, whatever comes first: what came.
pub fn read_all(mut from: impl Read) -> (Vec<u8>, std::io::Result<()>) {
    let mut all = Vec::new();
    let ended = from.read_to_end(&mut all).map(drop);
    (all, ended)
}

/// How a service that may be reached or not answers a caller at this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It echoes.
    Answers,
    /// The caller was accepted and reset.
    Reset,
    /// Nobody listens.
    Nobody,
}

/// One caller, and how it fared. Fails the test when it is left waiting, or is told an end that was none.
#[track_caller]
pub fn call(address: SocketAddr) -> Reached {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    let mut stream = match dial(address) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ConnectionRefused => return Reached::Nobody,
        // Between the handshake of the kernels and the first look at the socket.
        Err(error) if error.kind() == ConnectionReset => return Reached::Reset,
        Err(error) => panic!("{address}: {error}"),
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 5];
    match stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) => {
            assert_eq!(&answer, b"hello");
            Reached::Answers
        }
        Err(error) if matches!(error.kind(), ConnectionReset | BrokenPipe) => Reached::Reset,
        Err(error) => panic!("{address}: {error}"),
    }
}
