//! The client's end of a link.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use underpass_domain::{ClientId, SessionId};
use underpass_wire::link::{
    Body, Direction, Hello, LinkDecoder, LinkEncoder, Received, SecretBytes, Welcome,
};
use underpass_wire::noise::{Initiator, LinkOpener, LinkSealer, REPLY_BYTES, StaticKey};
use underpass_wire::preamble::{self, Kind};

use super::{Node, soon};

/// What the kernel takes for a client that does not read.
const RECEIVE_BYTES: u32 = 16 * 1024;

/// What a client is told that gets no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Refused`, which says nothing more.
    Refused,
    /// The channel closed.
    Closed,
}

/// A link as a client has it.
pub struct TestLink {
    pub client: ClientId,
    pub session: SessionId,
    pub welcome: Welcome,
    pub node: SocketAddr,
    pub hash: [u8; 32],
    /// Everything this side has sent, and got.
    pub sent: Vec<u8>,
    pub got: Vec<u8>,
    stream: TcpStream,
    sealer: LinkSealer,
    opener: LinkOpener,
    encoder: LinkEncoder,
    decoder: LinkDecoder,
    read: BytesMut,
}

impl TestLink {
    pub async fn connect(node: &Node, key: &StaticKey, invite: Option<[u8; 16]>) -> Result<Self, Refusal> {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a client that does not read is noticed by the node's writer.
        socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
        let mut stream = socket.connect(node.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (initiator, first) = Initiator::new(Kind::Link, key, &node.server_key).unwrap();
        let mut sent = preamble::encode(Kind::Link).to_vec();
        sent.extend_from_slice(&first);
        stream.write_all(&sent).await.unwrap();
        let mut reply = [0; REPLY_BYTES];
        if stream.read_exact(&mut reply).await.is_err() {
            return Err(Refusal::Closed);
        }
        let cipher = initiator.finish(&reply).unwrap();
        let hash = cipher.handshake_hash();
        let (sealer, opener) = cipher.split();
        let mut link = Self {
            client: ClientId::from_bytes([0; 16]),
            session: SessionId::from_bytes([0; 16]),
            welcome: Welcome::default(),
            node: node.address,
            hash,
            sent,
            got: reply.to_vec(),
            stream,
            sealer,
            opener,
            encoder: LinkEncoder::new(Direction::FromClient),
            decoder: LinkDecoder::from_node(),
            read: BytesMut::new(),
        };
        link.say(Body::Hello(Hello {
            version: "test".to_owned(),
            name: "box".to_owned(),
            platform: "linux/test".to_owned(),
            invite: invite.map(|secret| SecretBytes::from(&secret)),
            aes: false,
        }))
        .await;
        match soon("welcome", link.hear()).await {
            Some(Body::Welcome(welcome)) => {
                link.client = ClientId::from_bytes(welcome.client.as_slice().try_into().unwrap());
                link.session = SessionId::from_bytes(welcome.session.as_slice().try_into().unwrap());
                link.welcome = welcome;
                Ok(link)
            }
            Some(Body::Refused(_)) => Err(Refusal::Refused),
            Some(other) => panic!("{other:?}"),
            None => Err(Refusal::Closed),
        }
    }

    /// Sends a message. A broken link is noticed when it is read.
    pub async fn say(&mut self, body: Body) {
        self.encoder.push(body).unwrap();
        let mut out = BytesMut::new();
        while self.encoder.next_chunk(&mut self.sealer, &mut out).unwrap() {}
        self.say_bytes(&out).await;
    }

    /// Sends bytes as they are.
    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends one chunk of the given content.
    pub async fn say_chunk(&mut self, chunk: &[u8]) {
        let mut out = BytesMut::new();
        self.sealer.seal(chunk, &mut out).unwrap();
        self.say_bytes(&out).await;
    }

    /// The next message; `None` when the link is closed. Cancel-safe.
    pub async fn hear(&mut self) -> Option<Body> {
        loop {
            match self.decoder.next(&mut self.opener, &mut self.read).unwrap() {
                Some(Received::Known(body)) => return Some(body),
                Some(Received::Unknown { kind }) => panic!("unknown kind {kind}"),
                None => {}
            }
            let before = self.read.len();
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => self.got.extend_from_slice(&self.read[before..]),
            }
        }
    }

    /// The first message that fits; others are dropped.
    pub async fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(Body) -> Option<T>) -> T {
        soon(what, async {
            loop {
                match self.hear().await {
                    Some(body) => {
                        if let Some(picked) = pick(body) {
                            return picked;
                        }
                    }
                    None => panic!("the link was closed, waiting for {what}"),
                }
            }
        })
        .await
    }

    /// Ends the link, as a client does that has no more to say.
    pub async fn close(&mut self) {
        self.stream.shutdown().await.unwrap();
        self.closed().await;
    }

    /// Waits until the link is closed; gives the last message before that.
    pub async fn closed(&mut self) -> Option<Body> {
        soon("end of the link", async {
            let mut last = None;
            while let Some(body) = self.hear().await {
                last = Some(body);
            }
            last
        })
        .await
    }
}
