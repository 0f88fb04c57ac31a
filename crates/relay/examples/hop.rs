//! A tunnel in its barest form: two processes, a fixed key, and nothing around them.
//!
//! ```text
//! hop far  127.0.0.1:7002 127.0.0.1:8080 aes      listens for channels, dials the target
//! hop near 127.0.0.1:7001 127.0.0.1:7002 aes      listens for callers, dials channels
//! ```
//!
//! The last word is `plain`, `aes` or `xchacha`. Channels are used again where they may be. It shows how
//! the crate is used, and what its loops cost without the product around them. The key is no secret:
//! never use it for anything else.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
use underpass_relay::{Counters, Options, RecordChannel, tunnel};

type Failure = Box<dyn Error + Send + Sync>;

/// Channels that wait for a caller, at most so many.
const PARKED_MAX: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [side, listen, to, seal] = args.as_slice() else {
        return Err("usage: hop near|far LISTEN TO plain|aes|xchacha".into());
    };
    let (listen, to): (SocketAddr, SocketAddr) = (listen.parse()?, to.parse()?);
    let aead = match seal.as_str() {
        "plain" => None,
        "aes" => Some(Aead::Aes256Gcm),
        "xchacha" => Some(Aead::XChaCha20Poly1305),
        other => return Err(format!("`{other}` is none of plain, aes, xchacha").into()),
    };
    let listener = TcpListener::bind(listen).await?;
    let parked = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        if side == "near" {
            let parked = Arc::clone(&parked);
            tasks.spawn(async move { near(stream, to, aead, &parked).await });
        } else {
            tasks.spawn(async move { far(stream, to, aead).await });
        }
        while let Some(done) = tasks.try_join_next() {
            if let Ok(Err(failure)) = done {
                eprintln!("{failure}");
            }
        }
    }
}

async fn near(
    caller: TcpStream,
    to: SocketAddr,
    aead: Option<Aead>,
    parked: &Mutex<Vec<(u64, RecordChannel)>>,
) -> Result<(), Failure> {
    let kept = parked.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let (number, mut channel) = match kept {
        Some((number, channel)) => (number + 1, channel),
        None => (0, RecordChannel::new(dial(to).await?.into())),
    };
    // Goes out with the first bytes; the other end takes it for the beginning of a tunnel.
    channel.queue(&mut Sealer::plain(), record::OPEN, &number.to_be_bytes())?;
    let (sealer, opener) = ends(aead, number, ["near", "far"]);
    let (options, counters) = (Options::default(), Counters::default());
    let ended = tunnel(caller.into(), &mut channel, sealer, opener, &options, &counters).await;
    let mut parked = parked.lock().unwrap_or_else(PoisonError::into_inner);
    if ended.channel_reusable() && parked.len() < PARKED_MAX {
        parked.push((number, channel));
    }
    Ok(())
}

async fn far(channel: TcpStream, to: SocketAddr, aead: Option<Aead>) -> Result<(), Failure> {
    let mut channel = RecordChannel::new(channel.into());
    while let Some(open) = channel.recv(&mut Opener::plain()).await? {
        let number = u64::from_be_bytes(open.body[..].try_into()?);
        let (sealer, opener) = ends(aead, number, ["far", "near"]);
        let target = dial(to).await?;
        let (options, counters) = (Options::default(), Counters::default());
        let ended = tunnel(target.into(), &mut channel, sealer, opener, &options, &counters).await;
        if !ended.channel_reusable() {
            break;
        }
    }
    Ok(())
}

async fn dial(to: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ends(aead: Option<Aead>, number: u64, labels: [&str; 2]) -> (Sealer, Opener) {
    let Some(aead) = aead else { return (Sealer::plain(), Opener::plain()) };
    let [seal, open] = labels
        .map(|label| -> DirectionKeys { derive(&Secret::new([1; 32]), &[&number.to_be_bytes()], label) });
    (Sealer::sealed(aead, seal), Opener::sealed(aead, open))
}
