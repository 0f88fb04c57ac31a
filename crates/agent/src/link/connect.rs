//! From an address to a link that is let in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use underpass_relay::Duplex;
use underpass_transport::Connector;
use underpass_wire::link::{
    Body, Direction, Hello, LinkDecoder, LinkEncoder, LinkError, PushError, Received, Welcome,
};
use underpass_wire::noise::{Initiator, LinkOpener, LinkSealer, NoiseError, REPLY_BYTES, StaticKey};
use underpass_wire::preamble::{self, Kind};

use crate::parked::duplex;

/// From the first byte to the server's welcome. The server closes silent peers after the same time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Read at once: a few chunks.
const READ_BYTES: usize = 32 * 1024;

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// No address answers, or not as a server that has the pinned key.
    #[error("{0}")]
    Unreachable(String),
    /// The server, proven by its key, does not let us in.
    #[error("it does not know this key, or the invite is used, expired or revoked")]
    Refused,
    /// It speaks something this program does not.
    #[error("{0}")]
    Protocol(String),
}

/// Both directions of a link, sealed.
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) hash: [u8; 32],
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) address: String,
    pub(crate) transport: &'static str,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Messages from the node.
pub(crate) struct Reader {
    io: ReadHalf<Duplex>,
    decoder: LinkDecoder,
    opener: LinkOpener,
    wire: BytesMut,
}

impl Reader {
    /// The next message; `None` at the end. Cancel-safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next(&mut self.opener, &mut self.wire)? {
                return Ok(Some(message));
            }
            self.wire.reserve(self.decoder.missing(&self.wire).max(READ_BYTES));
            match self.io.read_buf(&mut self.wire).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the link can't be read");
                    return Ok(None);
                }
            }
        }
    }
}

/// Messages to the node.
pub(crate) struct Writer {
    io: WriteHalf<Duplex>,
    encoder: LinkEncoder,
    sealer: LinkSealer,
    out: BytesMut,
}

/// Why messages can't be written any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteFailure {
    #[error("the link can't be written")]
    Io(#[from] std::io::Error),
    #[error("a message can't be sealed")]
    Noise(#[from] NoiseError),
    #[error("a message can't be queued")]
    Push(#[from] PushError),
}

impl Writer {
    pub(crate) fn push(&mut self, body: Body) -> Result<(), PushError> {
        self.encoder.push(body)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.out.is_empty() || !self.encoder.is_empty()
    }

    /// Writes some of what waits: one chunk at a time, so that a ping pushed meanwhile comes next. Cancel-safe.
    pub(crate) async fn write_some(&mut self) -> Result<(), WriteFailure> {
        if self.out.is_empty() {
            self.encoder.next_chunk(&mut self.sealer, &mut self.out)?;
        }
        while !self.out.is_empty() {
            if self.io.write_buf(&mut self.out).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
        }
        self.io.flush().await?;
        Ok(())
    }

    pub(crate) async fn send(&mut self, body: Body) -> Result<(), WriteFailure> {
        self.push(body)?;
        while self.has_work() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Says that nothing more comes. A peer that is gone need not be told.
    pub(crate) async fn close(&mut self) {
        let _ = self.io.shutdown().await;
    }
}

/// Tries every address over every connector, in order, until one proves to be the server.
pub(crate) async fn connect(
    addresses: &[String],
    connectors: &[Arc<dyn Connector>],
    key: &StaticKey,
    server_key: &[u8; 32],
    deadline: Duration,
) -> Result<Link, ConnectFailure> {
    let mut failures = Vec::new();
    for address in addresses {
        for connector in connectors {
            match connect_one(address, connector, key, server_key, deadline).await {
                Ok(link) => return Ok(link),
                Err(why) => {
                    failures.push(if addresses.len() > 1 { format!("{address}: {why}") } else { why });
                }
            }
        }
    }
    Err(ConnectFailure::Unreachable(if failures.is_empty() {
        "no address to try".into()
    } else {
        failures.join("; ")
    }))
}

async fn connect_one(
    address: &str,
    connector: &Arc<dyn Connector>,
    key: &StaticKey,
    server_key: &[u8; 32],
    deadline: Duration,
) -> Result<Link, String> {
    let channel = connector.connect(address, deadline).await.map_err(|error| sentence(&error))?;
    let transport = channel.transport;
    let handshake = handshake(duplex(channel.stream), key, server_key);
    let (io, cipher) = timeout(HANDSHAKE_DEADLINE, handshake).await.map_err(|_| {
        format!("it was silent for {} s during the handshake", HANDSHAKE_DEADLINE.as_secs())
    })??;
    let hash = cipher.handshake_hash();
    let (sealer, opener) = cipher.split();
    let (read, write) = tokio::io::split(io);
    Ok(Link {
        reader: Reader { io: read, decoder: LinkDecoder::from_node(), opener, wire: BytesMut::new() },
        writer: Writer {
            io: write,
            encoder: LinkEncoder::new(Direction::FromClient),
            sealer,
            out: BytesMut::new(),
        },
        hash,
        connector: connector.clone(),
        address: address.to_owned(),
        transport,
    })
}

async fn handshake(
    mut io: Duplex,
    key: &StaticKey,
    server_key: &[u8; 32],
) -> Result<(Duplex, underpass_wire::noise::LinkCipher), String> {
    let (initiator, first) =
        Initiator::new(Kind::Link, key, server_key).map_err(|error| error.to_string())?;
    let opening = [&preamble::encode(Kind::Link)[..], &first].concat();
    io.write_all(&opening).await.map_err(|error| error.to_string())?;
    io.flush().await.map_err(|error| error.to_string())?;
    let mut reply = [0; REPLY_BYTES];
    io.read_exact(&mut reply).await.map_err(|_| {
        "it closed the connection during the handshake: it is no Underpass server, or not the one whose key is pinned".to_owned()
    })?;
    let cipher = initiator.finish(&reply).map_err(|_| "it could not prove the server's key".to_owned())?;
    Ok((io, cipher))
}

/// An error with all that caused it.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// What came of an introduction.
#[derive(Debug)]
pub(crate) struct Introduced {
    pub(crate) link: Link,
    pub(crate) welcome: Welcome,
}

/// Says hello and waits for the server's word.
pub(crate) async fn introduce(mut link: Link, hello: Hello) -> Result<Introduced, ConnectFailure> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let lost = |what: &str| ConnectFailure::Unreachable(format!("it closed the connection {what}"));
    timeout_at(deadline, link.writer.send(Body::Hello(hello)))
        .await
        .map_err(|_| lost("before it read the hello"))?
        .map_err(|_| lost("before it read the hello"))?;
    loop {
        let received = timeout_at(deadline, link.reader.next())
            .await
            .map_err(|_| ConnectFailure::Unreachable("it did not answer the hello in time".into()))?
            .map_err(|error| ConnectFailure::Protocol(error.to_string()))?;
        match received {
            None => return Err(lost("instead of an answer to the hello")),
            Some(Received::Known(Body::Welcome(welcome))) => return Ok(Introduced { link, welcome }),
            Some(Received::Known(Body::Refused(_))) => return Err(ConnectFailure::Refused),
            Some(Received::Known(Body::Kick(kick))) => {
                return Err(ConnectFailure::Unreachable(format!("it ended the link: {}", kick.message)));
            }
            Some(Received::Known(_)) => {}
            Some(unknown) => {
                if let Some(answer) = unknown.answer() {
                    // Its failure shows at the next read.
                    let _ = timeout_at(deadline, link.writer.send(answer)).await;
                }
            }
        }
    }
}
