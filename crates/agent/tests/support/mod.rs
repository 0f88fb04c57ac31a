//! A hand-written node: it speaks the protocol, but each test says what it does.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use underpass_agent::{Agent, AgentOptions, JoinOptions, StateDir, Timing, join};
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{ClientId, MappingId};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
use underpass_relay::{Duplex, Record, RecordChannel};
use underpass_tasks::Tasks;
use underpass_transport::tcp::TcpConnector;
use underpass_wire::channel::{DATA_HELLO_BYTES, DataHello, DataRole, Open, Protection, encode, labels};
use underpass_wire::link::{
    Answer, Body, ChannelRole, Command, Desired, DesiredMapping, Direction, Hello, IngressKind, LinkDecoder,
    LinkEncoder, MappingRole, Outcome, Received, Request, Seal, SecretBytes, Ticket, Tickets, Welcome,
};
use underpass_wire::noise::{FIRST_BYTES, LinkOpener, LinkSealer, StaticKey, respond};
use underpass_wire::preamble::{self, Kind, PREAMBLE_BYTES};
use underpass_wire::token::Invite;

/// Generous: a busy machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// What "at once" must keep to.
pub const ONE_SECOND: Duration = Duration::from_secs(1);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

#[derive(Debug)]
pub struct FakeNode {
    pub address: SocketAddr,
    pub key: StaticKey,
    pub links: mpsc::Receiver<FakeLink>,
    pub data: mpsc::Receiver<(DataHello, TcpStream)>,
    pub tasks: Tasks,
}

impl FakeNode {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = StaticKey::from_bytes([77; 32].map(|byte: u8| byte ^ 5)).unwrap();
        let (link_sender, links) = mpsc::channel(16);
        let (data_sender, data) = mpsc::channel(64);
        let tasks = Tasks::new("fake node", CancellationToken::new());
        let (jobs, node_key) = (tasks.clone(), key.clone());
        tasks.spawn_job("accept", |stop| async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => break,
                };
                let Ok((mut stream, _)) = accepted else { continue };
                let (link_sender, data_sender, key) =
                    (link_sender.clone(), data_sender.clone(), node_key.clone());
                jobs.spawn_job("connection", |_| async move {
                    let mut first = [0; PREAMBLE_BYTES];
                    stream.read_exact(&mut first).await?;
                    match preamble::decode(first) {
                        Ok(Kind::Link) => {
                            if let Some(link) = FakeLink::accept(stream, &key).await {
                                let _ = link_sender.send(link).await;
                            }
                        }
                        Ok(Kind::Data) => {
                            let mut hello = [0; DATA_HELLO_BYTES];
                            stream.read_exact(&mut hello).await?;
                            let _ = data_sender.send((DataHello::from_bytes(&hello), stream)).await;
                        }
                        _ => {}
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
            Ok::<_, Infallible>(())
        });
        Self { address, key, links, data, tasks }
    }

    pub fn invite(&self) -> Invite {
        Invite::new(vec![self.address.to_string()], self.key.public(), [9; 16]).unwrap()
    }

    /// The next link whose hello has been read.
    pub async fn link(&mut self) -> FakeLink {
        soon("a link", self.links.recv()).await.unwrap()
    }

    /// The next link, welcomed.
    pub async fn welcomed(&mut self, client: ClientId) -> FakeLink {
        let mut link = self.link().await;
        link.welcome(client, 0, 0).await;
        link
    }

    /// Issues a ticket and takes the data channel that shows it.
    pub async fn channel(&mut self, link: &mut FakeLink, role: ChannelRole) -> FakeData {
        let ticket = link.ticket(role, 1).await.remove(0);
        self.shown(link, role, &ticket).await
    }

    pub async fn shown(
        &mut self,
        link: &FakeLink,
        role: ChannelRole,
        ticket: &([u8; 16], [u8; 32]),
    ) -> FakeData {
        let (hello, stream) = soon("a data channel", self.data.recv()).await.unwrap();
        let data_role = if role == ChannelRole::Target { DataRole::Target } else { DataRole::Caller };
        assert_eq!(hello.ticket, ticket.0);
        assert!(hello.verify(&ticket.1, &link.hash, data_role), "the ticket's proof");
        FakeData::new(stream, ticket.1, link)
    }
}

#[derive(Debug)]
pub struct FakeLink {
    stream: TcpStream,
    decoder: LinkDecoder,
    encoder: LinkEncoder,
    sealer: LinkSealer,
    opener: LinkOpener,
    wire: BytesMut,
    pub hash: [u8; 32],
    pub peer: [u8; 32],
    pub hello: Hello,
}

static TICKETS: AtomicU8 = AtomicU8::new(1);

impl FakeLink {
    async fn accept(mut stream: TcpStream, key: &StaticKey) -> Option<Self> {
        let mut first = [0; FIRST_BYTES];
        stream.read_exact(&mut first).await.ok()?;
        let answered = respond(Kind::Link, key, &first).ok()?;
        stream.write_all(&answered.reply).await.ok()?;
        let hash = answered.cipher.handshake_hash();
        let (sealer, opener) = answered.cipher.split();
        let mut link = Self {
            stream,
            decoder: LinkDecoder::from_stranger(),
            encoder: LinkEncoder::new(Direction::FromNode),
            sealer,
            opener,
            wire: BytesMut::new(),
            hash,
            peer: answered.peer,
            hello: Hello::default(),
        };
        let Some(Body::Hello(hello)) = link.try_recv().await else { return None };
        link.hello = hello;
        link.decoder.admit();
        Some(link)
    }

    /// `None` when the agent has closed.
    pub async fn try_recv(&mut self) -> Option<Body> {
        loop {
            match self.decoder.next(&mut self.opener, &mut self.wire).unwrap() {
                Some(Received::Known(body)) => return Some(body),
                Some(unknown) => panic!("{unknown:?}"),
                None => {
                    if self.stream.read_buf(&mut self.wire).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
            }
        }
    }

    pub async fn send(&mut self, body: Body) {
        self.encoder.push(body).unwrap();
        let mut out = BytesMut::new();
        while self.encoder.next_chunk(&mut self.sealer, &mut out).unwrap() {}
        self.stream.write_all(&out).await.unwrap();
    }

    /// The first message that `pick` takes; others are dropped.
    pub async fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(Body) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let body = self.try_recv().await.unwrap_or_else(|| panic!("{what}: the link was closed"));
                if let Some(found) = pick(body) {
                    return found;
                }
            }
        })
        .await
    }

    pub async fn applied(&mut self, position: u64) -> underpass_wire::link::Applied {
        self.expect("applied", |body| match body {
            Body::Applied(applied) if applied.position == position => Some(applied),
            _ => None,
        })
        .await
    }

    pub async fn command(&mut self) -> Command {
        self.expect("a command", |body| match body {
            Body::Command(command) => Some(command),
            _ => None,
        })
        .await
    }

    pub async fn answer(&mut self, command: &Command, outcome: Outcome) {
        self.send(Body::Answer(Answer { id: command.id.clone(), outcome: Some(outcome) })).await;
    }

    pub async fn welcome(&mut self, client: ClientId, ping_ms: u32, silence_ms: u32) {
        self.send(Body::Welcome(Welcome {
            client: client.as_bytes().to_vec(),
            session: vec![2; 16],
            node: vec![3; 16],
            log_id: LOG.to_vec(),
            ping_interval_ms: ping_ms,
            ping_timeout_ms: silence_ms,
            name: "laptop".into(),
            ..Welcome::default()
        }))
        .await;
    }

    pub async fn desired(&mut self, position: u64, mappings: Vec<DesiredMapping>) {
        self.send(Body::Desired(Desired { log_id: LOG.to_vec(), epoch: 1, position, mappings })).await;
    }

    pub async fn ticket(&mut self, role: ChannelRole, count: usize) -> Vec<([u8; 16], [u8; 32])> {
        let tickets: Vec<_> = (0..count)
            .map(|_| {
                let number = TICKETS.fetch_add(1, Ordering::Relaxed);
                ([number; 16], [number ^ 0xff; 32])
            })
            .collect();
        let wire =
            tickets.iter().map(|(id, key)| Ticket { id: id.to_vec(), key: Some(SecretBytes::from(key)) });
        self.send(Body::Tickets(Tickets { role: role.into(), tickets: wire.collect() })).await;
        tickets
    }

    /// Answers the agent's request for caller channels, with one ticket; the rest of what it asked for stays
    /// unanswered by tickets.
    pub async fn grant(&mut self) -> ([u8; 16], [u8; 32]) {
        self.expect("a ticket request", |body| match body {
            Body::TicketRequest(request) if request.role() == ChannelRole::Caller => Some(()),
            _ => None,
        })
        .await;
        self.ticket(ChannelRole::Caller, 1).await.remove(0)
    }
}

pub const LOG: [u8; 16] = [4; 16];

/// The node's end of a data channel.
#[derive(Debug)]
pub struct FakeData {
    pub records: RecordChannel,
    pub sealer: Sealer,
    pub opener: Opener,
    pub secret: Secret,
}

/// Both ends of a test run on one machine, but the node of these tests says that it has no AES.
pub const AEAD: Aead = Aead::XChaCha20Poly1305;

impl FakeData {
    pub fn new(stream: TcpStream, key: [u8; 32], link: &FakeLink) -> Self {
        let secret: Secret = derive(&Secret::new(key), &[&link.hash], labels::CHANNEL);
        let to_node: DirectionKeys = derive(&secret, &[], labels::CHANNEL_AGENT_TO_NODE);
        let to_agent: DirectionKeys = derive(&secret, &[], labels::CHANNEL_NODE_TO_AGENT);
        Self {
            records: RecordChannel::new(Duplex::Tcp(stream)),
            sealer: Sealer::sealed(AEAD, to_agent),
            opener: Opener::sealed(AEAD, to_node),
            secret,
        }
    }

    pub async fn send(&mut self, kind: u8, body: &[u8]) {
        self.records.send(&mut self.sealer, kind, body).await.unwrap();
    }

    /// The next record of the channel; `None` when the agent has closed it.
    pub async fn recv(&mut self) -> Option<Record> {
        soon("a record", self.records.recv(&mut self.opener)).await.unwrap_or(None)
    }

    pub async fn open(&mut self, open: &Open) -> Record {
        self.send(record::OPEN, &encode(open).unwrap()).await;
        self.recv().await.expect("an answer to the open")
    }

    /// The node's sealer and opener of a tunnel.
    pub fn tunnel(&self, tunnel: [u8; 16]) -> (Sealer, Opener) {
        let to_node: DirectionKeys = derive(&self.secret, &[&tunnel], labels::TUNNEL_AGENT_TO_NODE);
        let to_agent: DirectionKeys = derive(&self.secret, &[&tunnel], labels::TUNNEL_NODE_TO_AGENT);
        (Sealer::sealed(AEAD, to_agent), Opener::sealed(AEAD, to_node))
    }
}

pub fn mapping(number: u8) -> MappingId {
    MappingId::from_bytes([number; 16])
}

pub fn client(number: u8) -> ClientId {
    ClientId::from_bytes([number; 16])
}

/// The agent listens for it, unsealed.
pub fn listens(number: u8, address: SocketAddr) -> DesiredMapping {
    DesiredMapping {
        id: mapping(number).as_bytes().to_vec(),
        name: format!("m{number}"),
        ingress: IngressKind::Client.into(),
        listen: address.to_string(),
        target: "127.0.0.1:1".into(),
        target_client: vec![9; 16],
        target_key: vec![9; 32],
        listen_client: vec![1; 16],
        listen_key: vec![8; 32],
        seal: Seal::Off.into(),
        role: MappingRole::Listen.into(),
        ..DesiredMapping::default()
    }
}

/// The agent dials for it; callers come in at a port of the server.
pub fn offers(number: u8, target: &str, seal: Seal) -> DesiredMapping {
    DesiredMapping {
        id: mapping(number).as_bytes().to_vec(),
        name: format!("m{number}"),
        ingress: IngressKind::Port.into(),
        port: 20_000 + u32::from(number),
        target: target.into(),
        target_client: vec![1; 16],
        target_key: vec![8; 32],
        seal: seal.into(),
        role: MappingRole::Target.into(),
        ..DesiredMapping::default()
    }
}

pub fn open(number: u8, target: &str, protection: Protection) -> Open {
    Open {
        tunnel: vec![number; 16],
        mapping: mapping(number).as_bytes().to_vec(),
        target: target.into(),
        caller: "192.0.2.7:5000".into(),
        protection: protection.into(),
        aead: underpass_wire::channel::Aead::XChaCha20Poly1305.into(),
        ..Open::default()
    }
}

pub async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A client with a folder of its own.
#[derive(Debug)]
pub struct Machine {
    pub folder: tempfile::TempDir,
    pub state: StateDir,
    pub clock: Arc<ManualClock>,
    pub random: Arc<SeededRandom>,
    pub tasks: Tasks,
}

impl Machine {
    pub fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path().join("state")).unwrap();
        Self {
            folder,
            state,
            clock: Arc::new(ManualClock::default()),
            random: Arc::new(SeededRandom::new(seed)),
            tasks: Tasks::new("test", CancellationToken::new()),
        }
    }

    pub fn join_options(&self) -> JoinOptions {
        JoinOptions {
            name: "laptop".into(),
            version: "0.0.0".into(),
            connectors: vec![Arc::new(TcpConnector::new())],
            random: self.random.clone(),
            connect_deadline: DEADLINE,
        }
    }

    pub fn options(&self) -> AgentOptions {
        AgentOptions {
            state: self.state.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            connectors: vec![Arc::new(TcpConnector::new())],
            allow: Vec::new(),
            version: "0.0.0".into(),
            timing: Timing::default(),
        }
    }

    /// Joins the node as this client.
    pub async fn join(&self, node: &mut FakeNode, client: ClientId) {
        let (invite, options) = (node.invite(), self.join_options());
        let (joined, ()) = tokio::join!(join(&self.state, &invite, &options), async {
            let mut link = node.welcomed(client).await;
            soon("the end of the join's link", async { while link.try_recv().await.is_some() {} }).await;
        });
        assert_eq!(joined.unwrap().client, client);
    }

    pub fn start(&self) -> Agent {
        Agent::start(self.options(), &self.tasks).unwrap()
    }
}

/// A node, a client that has joined it, and its link.
pub async fn connected(seed: u64) -> (FakeNode, Machine, Agent, FakeLink) {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(seed);
    machine.join(&mut node, client(1)).await;
    let agent = machine.start();
    let link = node.welcomed(client(1)).await;
    (node, machine, agent, link)
}

/// What a request of the agent is about.
pub fn request(command: &Command) -> &Request {
    command.request.as_ref().expect("a request")
}
