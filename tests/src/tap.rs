//! A proxy on the way from clients to their server: it records what passes, and meddles with it when told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// What is kept of each direction of a connection. Tests look for markers near the beginning of a tunnel.
const RECORDED_MAX: usize = 16 << 20;

/// Read at once. Small writes pass one by one, as they were written.
const CHUNK: usize = 64 * 1024;

/// Chunks below this are keepalives and the like: nobody meddles with them.
pub const MEDDLED_MIN: usize = 1000;

/// Bytes of a channel's preamble and of the ticket that a data channel shows after it.
pub const DATA_HELLO_BYTES: usize = 6 + 48;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of a client.
    ToServer,
    /// Into a client.
    ToClient,
}

/// What is done to one chunk of a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddle {
    /// One bit of the byte at this offset is flipped; from the end when negative.
    Flip(isize),
    /// It passes twice.
    Repeat,
    /// It passes after the next one.
    Swap,
    /// It is left out.
    Drop,
    /// Its first half passes, and then nothing any more.
    Cut,
}

/// One connection that passed.
#[derive(Debug, Default)]
pub struct Passage {
    to_server: Mutex<Vec<u8>>,
    to_client: Mutex<Vec<u8>>,
}

impl Passage {
    fn recorded(&self, way: Way) -> &Mutex<Vec<u8>> {
        match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        }
    }

    /// What passed that way.
    pub fn bytes(&self, way: Way) -> Vec<u8> {
        self.recorded(way).lock().unwrap().clone()
    }

    /// Whether it is a channel for the data of tunnels.
    pub fn is_data(&self) -> bool {
        let start = self.to_server.lock().unwrap();
        start.len() >= 6 && start.starts_with(b"UPSS") && start[5] == 2
    }

    fn holds(&self, marker: &[u8]) -> bool {
        [Way::ToServer, Way::ToClient]
            .iter()
            .any(|way| self.recorded(*way).lock().unwrap().windows(marker.len()).any(|seen| seen == marker))
    }
}

#[derive(Debug, Default)]
struct State {
    upstream: OnceLock<SocketAddr>,
    passages: Mutex<Vec<Arc<Passage>>>,
    meddle: Mutex<Option<(Way, Meddle)>>,
    meddled: AtomicUsize,
    over: AtomicBool,
    swallows: AtomicBool,
}

/// The proxy.
#[derive(Debug)]
pub struct Tap {
    /// Where it listens: what the server advertises.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}

impl Tap {
    /// Listens; who comes before [`Tap::leads_to`] is sent away.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let Some(upstream) = shared.upstream.get() else { continue };
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let passage = Arc::new(Passage::default());
                shared.passages.lock().unwrap().push(Arc::clone(&passage));
                let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to, way) in
                    [(client, server, Way::ToServer), (server_too, client_too, Way::ToClient)]
                {
                    let (state, passage) = (Arc::clone(&shared), Arc::clone(&passage));
                    std::thread::spawn(move || pass(&state, &passage, from, to, way));
                }
            }
        });
        Self { address, state }
    }

    /// Where it leads.
    pub fn leads_to(&self, server: SocketAddr) {
        self.state.upstream.set(server).unwrap();
    }

    /// All connections so far.
    pub fn passages(&self) -> Vec<Arc<Passage>> {
        self.state.passages.lock().unwrap().clone()
    }

    /// How many connections the marker passed on.
    pub fn saw(&self, marker: &[u8]) -> usize {
        self.passages().iter().filter(|passage| passage.holds(marker)).count()
    }

    /// Bytes recorded, all together.
    pub fn recorded(&self) -> usize {
        let len = |passage: &Passage, way| passage.recorded(way).lock().unwrap().len();
        self.passages().iter().map(|passage| len(passage, Way::ToServer) + len(passage, Way::ToClient)).sum()
    }

    /// Meddles once with what next passes that way on a data channel, if it is [`MEDDLED_MIN`] bytes or more.
    pub fn meddle(&self, way: Way, meddle: Meddle) {
        *self.state.meddle.lock().unwrap() = Some((way, meddle));
    }

    /// From now on nothing passes: no connection is closed, new ones are accepted, and all of them are silent.
    pub fn swallow(&self) {
        self.state.swallows.store(true, Ordering::SeqCst);
    }

    /// How often it has meddled.
    pub fn meddled(&self) -> usize {
        self.state.meddled.load(Ordering::SeqCst)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn pass(state: &State, passage: &Passage, mut from: TcpStream, mut to: TcpStream, way: Way) {
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let mut chunk = vec![0; CHUNK];
    let mut held: Option<Vec<u8>> = None;
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        if state.swallows.load(Ordering::SeqCst) {
            continue;
        }
        let piece = &mut chunk[..read];
        {
            let mut recorded = passage.recorded(way).lock().unwrap();
            let room = RECORDED_MAX.saturating_sub(recorded.len()).min(read);
            recorded.extend_from_slice(&piece[..room]);
        }
        let meddle = if read >= MEDDLED_MIN && passage.is_data() {
            let mut asked = state.meddle.lock().unwrap();
            let wanted = asked.filter(|(on, _)| *on == way).map(|(_, meddle)| meddle);
            if wanted.is_some() {
                *asked = None;
                state.meddled.fetch_add(1, Ordering::SeqCst);
            }
            wanted
        } else {
            None
        };
        let written = match meddle {
            None => to.write_all(piece),
            Some(Meddle::Flip(at)) => {
                let at = if at < 0 { read.saturating_add_signed(at) } else { at.unsigned_abs() };
                piece[at] ^= 1;
                to.write_all(piece)
            }
            Some(Meddle::Repeat) => to.write_all(piece).and_then(|()| to.write_all(piece)),
            Some(Meddle::Swap) => {
                held = Some(piece.to_vec());
                continue;
            }
            Some(Meddle::Drop) => Ok(()),
            Some(Meddle::Cut) => {
                let _ = to.write_all(&piece[..read / 2]);
                break;
            }
        };
        let written = written.and_then(|()| held.take().map_or(Ok(()), |piece| to.write_all(&piece)));
        if written.is_err() {
            break;
        }
    }
    if state.swallows.load(Ordering::SeqCst) {
        return;
    }
    // As the end came: what goes the other way may go on.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
