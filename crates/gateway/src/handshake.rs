//! Who is there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use underpass_control::{Caller, ErrorClass};
use underpass_domain::limits::{NAME_BYTES_MAX, PLATFORM_BYTES_MAX, WORD_BYTES_MAX};
use underpass_domain::{Actor, ClientId, PublicKey, check_name};
use underpass_relay::Duplex;
use underpass_transport::{Incoming, Stream};
use underpass_wire::channel::{DATA_HELLO_BYTES, DataHello, DataRole};
use underpass_wire::link::{Body, Hello, LinkDecoder, LinkError, Received, Refused};
use underpass_wire::noise::{self, LinkOpener, LinkSealer, NoiseError};
use underpass_wire::preamble::{self, Kind, PREAMBLE_BYTES, PreambleError};

use crate::channel::DataChannel;
use crate::gateway::Shared;
use crate::link::Link;
use crate::outbox::Outbox;
use crate::tickets::{Admission, TicketError};
use crate::unauthenticated::Stranger;

/// Room made for one read from a link: it stays with the link while that is idle, and there are many.
pub(crate) const READ_BYTES_MAX: usize = 8 * 1024;

/// What a channel turned out to be.
#[derive(Debug)]
pub(crate) enum Proven {
    /// A link of an enrolled client.
    Link(Box<Newcomer>),
    /// A data channel to be parked.
    Target(Box<DataChannel>, Arc<Link>),
    /// A data channel on which the client dials.
    Caller(Box<DataChannel>, Arc<Link>),
}

/// A client at the other end of a link that has no session yet.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub client: ClientId,
    pub hello: Hello,
    pub address: SocketAddr,
    pub transport: &'static str,
    pub handshake_hash: [u8; 32],
    pub wire: Wire,
}

/// The bytes of a link and what makes sense of them.
#[derive(Debug)]
pub(crate) struct Wire {
    pub duplex: Duplex,
    pub sealer: LinkSealer,
    pub opener: LinkOpener,
    pub decoder: LinkDecoder,
    pub read: BytesMut,
}

/// Why a channel was closed before it was anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    #[error("the handshake took too long")]
    Late,
    #[error("younger channels took its place")]
    Evicted,
    #[error("the transport's own handshake failed")]
    Transport(#[source] underpass_transport::HandshakeError),
    #[error("the channel broke")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    #[error("there are no links between nodes here")]
    Peer,
    #[error("the handshake failed")]
    Noise(#[from] NoiseError),
    #[error("the link broke")]
    Link(#[from] LinkError),
    #[error("the first message is no hello")]
    NoHello,
    #[error("the client is refused: {0}")]
    Refused(String),
    #[error("no client can be enrolled just now")]
    Unavailable(#[source] underpass_control::ControlError),
    #[error("the ticket is refused")]
    Ticket(#[from] TicketError),
}

/// Carries a channel through its handshake. `stranger` is given up as soon as the other end has proved who it
/// is. Whoever calls this has the deadline in hand.
pub(crate) async fn prove(
    shared: &Arc<Shared>,
    incoming: Box<dyn Incoming>,
    stranger: &mut Option<Stranger>,
) -> Result<Proven, HandshakeError> {
    let channel = incoming.handshake().await.map_err(HandshakeError::Transport)?;
    let (address, transport) = (channel.peer, channel.transport);
    let mut duplex = match channel.stream {
        Stream::Tcp(stream) => Duplex::Tcp(stream),
        Stream::Other(stream) => Duplex::other(stream),
    };
    let first: [u8; PREAMBLE_BYTES] = exactly(&mut duplex).await?;
    match preamble::decode(first)? {
        Kind::Link => {
            let (key, hello, hash, wire) = greet(shared, duplex, address).await?;
            let mut newcomer = Newcomer {
                client: ClientId::from_bytes([0; 16]),
                hello,
                address,
                transport,
                handshake_hash: hash,
                wire,
            };
            match identify(shared, &newcomer.hello, address, key, stranger).await {
                Ok(client) => newcomer.client = client,
                Err(error) => {
                    refuse(shared, &mut newcomer, key, &error).await;
                    return Err(error);
                }
            }
            newcomer.wire.decoder.admit();
            Ok(Proven::Link(Box::new(newcomer)))
        }
        Kind::Data => {
            let shown: [u8; DATA_HELLO_BYTES] = exactly(&mut duplex).await?;
            let Admission { key, link, role } =
                shared.tickets.redeem(&DataHello::from_bytes(&shown), Instant::now())?;
            *stranger = None;
            let channel = DataChannel::new(duplex, &key, &link.handshake_hash, link.aead, Instant::now());
            Ok(match role {
                DataRole::Target => Proven::Target(Box::new(channel), link),
                DataRole::Caller => Proven::Caller(Box::new(channel), link),
            })
        }
        Kind::Peer => Err(HandshakeError::Peer),
    }
}

/// The handshake of a link, up to the client's first message. That message is the proof: what came before may
/// be a recording, so nothing has happened on its account.
async fn greet(
    shared: &Shared,
    mut duplex: Duplex,
    address: SocketAddr,
) -> Result<([u8; 32], Hello, [u8; 32], Wire), HandshakeError> {
    let first: [u8; noise::FIRST_BYTES] = exactly(&mut duplex).await?;
    let answered = match noise::respond(Kind::Link, &shared.options.link_key, &first) {
        Ok(answered) => answered,
        Err(error) => {
            // Somebody with another server's key, or noise. There is no way to say anything to them.
            note_failure(shared, address, None, &format!("handshake: {error}")).await;
            return Err(error.into());
        }
    };
    duplex.write_all(&answered.reply).await?;
    duplex.flush().await?;
    let hash = answered.cipher.handshake_hash();
    let (sealer, opener) = answered.cipher.split();
    let mut wire =
        Wire { duplex, sealer, opener, decoder: LinkDecoder::from_stranger(), read: BytesMut::new() };
    loop {
        match wire.decoder.next(&mut wire.opener, &mut wire.read) {
            Ok(Some(Received::Known(Body::Hello(hello)))) => return Ok((answered.peer, hello, hash, wire)),
            Ok(Some(_)) => return Err(HandshakeError::NoHello),
            Ok(None) => read_some(&mut wire.duplex, &mut wire.read).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Which client it is. A key that nobody knows needs an invite, or a node that takes everybody.
async fn identify(
    shared: &Shared,
    hello: &Hello,
    address: SocketAddr,
    key: [u8; 32],
    stranger: &mut Option<Stranger>,
) -> Result<ClientId, HandshakeError> {
    let view = shared.control.state();
    if let Some(client) = view.state.client_by_key(&PublicKey(key)) {
        if client.is_active() {
            *stranger = None;
            return Ok(client.id);
        }
        return Err(HandshakeError::Refused(format!("{} is blocked", client.id)));
    }
    let secret = match &hello.invite {
        Some(secret) => Some(
            secret.expose().try_into().map_err(|_| HandshakeError::Refused("malformed invite".to_owned()))?,
        ),
        None => None,
    };
    let caller = Caller::new(Actor::System).from_address(address.ip());
    let enrolled = shared
        .control
        .enrol(&caller, PublicKey(key), name_of(&hello.name), platform_of(&hello.platform), secret)
        .await;
    match enrolled {
        Ok(made) => {
            tracing::info!(client = %made.id, %address, "client enrolled");
            Ok(made.id)
        }
        Err(error) if matches!(error.class(), ErrorClass::Unavailable | ErrorClass::Internal) => {
            Err(HandshakeError::Unavailable(error))
        }
        Err(error) => Err(HandshakeError::Refused(format!("unknown key: {error}"))),
    }
}

/// What a client calls itself, made into a name. Machines are called all sorts of things, and somebody with a
/// good invite is not turned away for that.
fn name_of(said: &str) -> String {
    let fits = |symbol: char| if check_name(symbol.encode_utf8(&mut [0; 4])).is_ok() { symbol } else { '-' };
    let name: String = said.trim().chars().take(NAME_BYTES_MAX).map(fits).collect();
    if name.chars().any(|symbol| symbol.is_ascii_alphanumeric()) { name } else { "client".to_owned() }
}

/// What a client says of its machine, made into a short line.
fn platform_of(said: &str) -> String {
    line_of(said, PLATFORM_BYTES_MAX)
}

/// The release of a client's program, as it says; `None` if it doesn't.
pub(crate) fn release_of(said: &str) -> Option<String> {
    Some(line_of(said, WORD_BYTES_MAX)).filter(|release| !release.is_empty())
}

fn line_of(said: &str, bytes_max: usize) -> String {
    said.chars().filter(|symbol| symbol.is_ascii_graphic() || *symbol == ' ').take(bytes_max).collect()
}

/// Tells the other end that it is not wanted, and the log why.
async fn refuse(shared: &Shared, newcomer: &mut Newcomer, key: [u8; 32], error: &HandshakeError) {
    let HandshakeError::Refused(reason) = error else { return };
    let outbox = Outbox::new();
    outbox.say(Body::Refused(Refused {}));
    let mut bytes = BytesMut::new();
    let wire = &mut newcomer.wire;
    if outbox.seal(&mut wire.sealer, &mut bytes).is_ok() {
        // A peer that has gone meanwhile needs no answer.
        let _ = wire.duplex.write_all(&bytes).await;
        let _ = wire.duplex.shutdown().await;
    }
    note_failure(shared, newcomer.address, Some(PublicKey(key)), reason).await;
}

async fn note_failure(shared: &Shared, address: SocketAddr, key: Option<PublicKey>, reason: &str) {
    tracing::info!(%address, ?key, reason, "authentication failed");
    if let Err(error) = shared.control.record_auth_failure(address.ip(), key, reason).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a failed authentication is not recorded");
    }
}

async fn exactly<const N: usize>(from: &mut Duplex) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads what there is, at least one byte. Cancel-safe.
pub(crate) async fn read_some(from: &mut (impl AsyncRead + Unpin), into: &mut BytesMut) -> io::Result<()> {
    into.reserve(READ_BYTES_MAX);
    match from.read_buf(into).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_machine_is_called_becomes_a_name() {
        let long = "x".repeat(200);
        for (said, name) in [
            ("laptop", "laptop"),
            (" build box.local ", "build-box.local"),
            ("jürgens pc", "j-rgens-pc"),
            ("", "client"),
            ("ü§", "client"),
            (long.as_str(), &long[..NAME_BYTES_MAX]),
        ] {
            assert_eq!(name_of(said), name);
            assert_eq!(check_name(&name_of(said)), Ok(()));
        }
    }

    #[test]
    fn what_a_machine_is_becomes_a_short_line() {
        assert_eq!(platform_of("linux/x86_64"), "linux/x86_64");
        assert_eq!(platform_of("a\n\0ü\u{7f}b"), "ab");
        assert_eq!(platform_of(&"x".repeat(1000)).len(), PLATFORM_BYTES_MAX);
        assert_eq!(release_of("0.1.0\u{1b}[2J").as_deref(), Some("0.1.0[2J"));
        assert_eq!(release_of("\n"), None);
        assert_eq!(release_of(&"9".repeat(1000)).map(|release| release.len()), Some(WORD_BYTES_MAX));
    }
}
