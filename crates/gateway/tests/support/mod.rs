//! A node in this process, and clients made of the crates below the gateway: nothing of `agent` is used, so
//! that both ends of the protocol are written down twice.

#![allow(dead_code, unused_imports, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent;
mod link;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use underpass_control::{Caller, Control, ControlOptions, Enrolment, NewMapping};
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{
    ClientId, ControlCommand, Ingress, IngressRequest, MappingId, MappingOptions, NodeId, Seal, Target,
};
use underpass_gateway::{Gateway, GatewayOptions};
use underpass_store::{MemoryStore, Store};
use underpass_tasks::Tasks;
use underpass_transport::Listener;
use underpass_transport::tcp::TcpListener as TcpTransport;
use underpass_wire::noise::StaticKey;

pub use agent::{Agent, CallerChannel, DataChannel, pair_keys};
pub use link::{Refusal, TestLink};

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

/// Public ports of the mappings in tests: any, so that a test that listens can take a free one.
pub const PORTS: (u16, u16) = (1024, 65_535);

/// A whole node but for its public listeners, over a store in memory.
pub struct Node {
    pub control: Arc<Control>,
    pub gateway: Arc<Gateway>,
    pub address: SocketAddr,
    pub server_key: [u8; 32],
    pub clock: Arc<ManualClock>,
    pub tasks: Tasks,
    pub fatal: CancellationToken,
}

/// The key of a client, by number.
pub fn key(number: u8) -> StaticKey {
    StaticKey::from_bytes([number; 32]).unwrap()
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        Self::start_on(Arc::new(MemoryStore::new()), change).await
    }

    pub async fn start_on(store: Arc<dyn Store>, change: impl FnOnce(&mut GatewayOptions)) -> Self {
        let fatal = CancellationToken::new();
        let tasks = Tasks::new("node", fatal.clone());
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(SeededRandom::new(7));
        let mut options = ControlOptions::new(NodeId::from_bytes([1; 16]), "test");
        options.ports = PORTS;
        options.enrolment = Enrolment::Invite;
        let control = Control::open(store, options, clock.clone(), random.clone(), &tasks).await.unwrap();
        let link_key = StaticKey::from_bytes([200; 32]).unwrap();
        let server_key = link_key.public();
        let mut options = GatewayOptions::new(link_key);
        change(&mut options);
        let gateway = Gateway::new(control.clone(), options, random, tasks.clone());
        let listener = TcpTransport::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr();
        let serving = gateway.clone();
        tasks.spawn_job("serve", |stop| async move {
            serving.serve(Box::new(listener), stop).await;
            Ok::<_, Infallible>(())
        });
        Self { control, gateway, address, server_key, clock, tasks, fatal }
    }

    /// The secret of a new invite.
    pub async fn invite(&self) -> [u8; 16] {
        let ttl = Duration::from_mins(10);
        *self.control.issue_invite(&Caller::operator(), ttl, None).await.unwrap().secret.expose()
    }

    /// The link of a client that is enrolled by this.
    pub async fn enrol(&self, number: u8) -> TestLink {
        let invite = self.invite().await;
        TestLink::connect(self, &key(number), Some(invite)).await.unwrap()
    }

    /// A link of a client that is known.
    pub async fn link(&self, number: u8) -> TestLink {
        TestLink::connect(self, &key(number), None).await.unwrap()
    }

    /// A client that serves its targets.
    pub async fn agent(&self, number: u8) -> Agent {
        Agent::start(self.enrol(number).await, &self.tasks)
    }

    /// A mapping from any public port to a target of a client.
    pub async fn expose(&self, client: ClientId, target: &str, options: MappingOptions) -> MappingId {
        self.map(client, target, IngressRequest::Port { port: None }, options).await
    }

    /// A mapping from this public port to a target of a client.
    pub async fn expose_at(&self, port: u16, client: ClientId, target: &str) -> MappingId {
        let ingress = IngressRequest::Port { port: Some(port) };
        self.map(client, target, ingress, MappingOptions::default()).await
    }

    /// A mapping from a port of one client to a target of another.
    pub async fn join(&self, listener: ClientId, client: ClientId, target: &str, seal: Seal) -> MappingId {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let ingress = IngressRequest::Client { client: listener, listen };
        self.map(client, target, ingress, MappingOptions { seal, ..MappingOptions::default() }).await
    }

    async fn map(
        &self,
        client: ClientId,
        target: &str,
        ingress: IngressRequest,
        options: MappingOptions,
    ) -> MappingId {
        let new = NewMapping {
            owner: None,
            name: None,
            ingress,
            target: Target::parse(client, target).unwrap(),
            options,
            adopt: false,
        };
        self.control.create_mapping(&Caller::operator(), new).await.unwrap().id
    }

    pub async fn execute(&self, command: ControlCommand) {
        self.control.execute(&Caller::operator(), command).await.unwrap();
    }

    pub fn port(&self, mapping: MappingId) -> u16 {
        match self.control.state().state.mapping(mapping).unwrap().ingress {
            Ingress::Port { port } => port,
            ref other => panic!("{other:?}"),
        }
    }

    /// Waits until something is true of the node.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(LONG, async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:#?}", self.gateway.live());
    }
}

/// Where a tunnel of a test comes from.
pub fn caller() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4711))
}

/// A service that says everything back, until the caller has said all.
pub async fn echo(tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let jobs = tasks.clone();
    tasks.spawn_job("echo", |stop| async move {
        while let Some(Ok((mut stream, _))) = stop.run_until_cancelled(listener.accept()).await {
            jobs.spawn_job("echo", |_| async move {
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            });
        }
        Ok::<_, Infallible>(())
    });
    address
}

/// A port that is free just now.
pub async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// An address where nobody listens.
pub async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Lets this process have as many sockets as the machine allows: a thousand peers are two thousand here.
pub fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Both ends of a TCP connection.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// Fails the test when something takes too long.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(LONG, future).await;
    assert!(value.is_ok(), "takes too long: {what}");
    value.unwrap()
}
