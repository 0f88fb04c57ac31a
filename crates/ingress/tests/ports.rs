//! Public ports, from a caller's socket to a target's and back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ControlCommand, MappingId};
use underpass_gateway::ListenerState;
use underpass_ingress::Ingress;
use underpass_tasks::{Drained, Tasks};

use support::{Node, echo, free_port, nobody, soon};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Ports {
    node: Node,
    ingress: Ingress,
    listeners: Tasks,
}

impl Ports {
    async fn start() -> Self {
        let node = Node::start().await;
        let listeners = Tasks::new("listeners", CancellationToken::new());
        let ingress = Ingress::new(node.control.clone(), node.gateway.clone(), HERE, listeners.clone());
        Self { node, ingress, listeners }
    }

    fn state(&self, mapping: MappingId) -> Option<ListenerState> {
        self.node.gateway.live().listeners.get(&mapping).cloned()
    }

    async fn listening(&self, mapping: MappingId) {
        let listening = |_: &Node| matches!(self.state(mapping), Some(ListenerState::Listening(_)));
        self.node.until("listening", listening).await;
    }
}

async fn connect(port: u16) -> TcpStream {
    soon("connect", TcpStream::connect((HERE, port))).await.unwrap()
}

async fn say_and_hear(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut heard = vec![0; text.len()];
    soon("echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, text);
}

/// C25: the caller says its last word first, and gets 4 MiB back after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c25_half_close_is_kept_through_a_public_port() {
    let ports = Ports::start().await;
    let agent = ports.node.agent(1).await;
    let target = echo(&ports.node.tasks).await;
    let port = free_port().await;
    let mapping = ports.node.expose_at(port, agent.client, &target).await;
    ports.listening(mapping).await;
    let text: Vec<u8> = (0..4 * 1024 * 1024_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let mut stream = connect(port).await;
    let (mut read, mut write) = stream.split();
    let mut heard = Vec::with_capacity(text.len());
    let (said, got) = soon("4 MiB", async {
        tokio::join!(
            async {
                write.write_all(&text).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut heard)
        )
    })
    .await;
    said.unwrap();
    got.unwrap();
    assert!(heard == text, "{} of {} bytes", heard.len(), text.len());
    ports.node.until("over", |node| node.gateway.tunnels() == 0).await;
    assert_eq!(ports.ingress.callers(), 0);
}

/// C27, 10.28: whoever gets no tunnel is reset at once, whatever the reason.
#[tokio::test]
async fn c27_a_caller_without_a_tunnel_is_reset_within_a_second() {
    let ports = Ports::start().await;
    let (agent, gone) = (ports.node.agent(1).await, ports.node.enrol(2).await);
    let (refusing, offline) = (free_port().await, free_port().await);
    let nobody = nobody().await;
    let first = ports.node.expose_at(refusing, agent.client, &nobody).await;
    let second = ports.node.expose_at(offline, gone.client, &nobody).await;
    ports.listening(first).await;
    ports.listening(second).await;
    drop(gone);
    ports.node.until("offline", |node| node.gateway.links() == 1).await;
    for port in [refusing, offline] {
        let began = Instant::now();
        let mut stream = connect(port).await;
        let error = soon("reset", stream.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    ports.node.until("nobody is served", |_| ports.ingress.callers() == 0).await;
}

/// C22: a port in use is a state of its mapping, hurts no other, and is taken as soon as it is free.
#[tokio::test]
async fn c22_a_port_in_use_is_told_and_tried_again() {
    let ports = Ports::start().await;
    let agent = ports.node.agent(1).await;
    let target = echo(&ports.node.tasks).await;
    let taken = TcpListener::bind((HERE, 0)).await.unwrap();
    let (busy, free) = (taken.local_addr().unwrap().port(), free_port().await);
    let unlucky = ports.node.expose_at(busy, agent.client, &target).await;
    let lucky = ports.node.expose_at(free, agent.client, &target).await;
    ports.listening(lucky).await;
    ports.node.until("told", |_| ports.state(unlucky) == Some(ListenerState::PortInUse)).await;
    say_and_hear(&mut connect(free).await, b"hello").await;
    drop(taken);
    ports.listening(unlucky).await;
    say_and_hear(&mut connect(busy).await, b"hello").await;
    // Exactly the address asked for, not all there are.
    assert_eq!(ports.state(lucky), Some(ListenerState::Listening((HERE, free).into())));
}

/// C19: the others listen on, and their tunnels run on; C21: its own end.
#[tokio::test]
async fn c19_removing_a_mapping_stops_its_listener_and_no_other() {
    let ports = Ports::start().await;
    let agent = ports.node.agent(1).await;
    let target = echo(&ports.node.tasks).await;
    let (one, two) = (free_port().await, free_port().await);
    let going = ports.node.expose_at(one, agent.client, &target).await;
    let staying = ports.node.expose_at(two, agent.client, &target).await;
    ports.listening(going).await;
    ports.listening(staying).await;
    let (mut ending, mut lasting) = (connect(one).await, connect(two).await);
    say_and_hear(&mut ending, b"hello").await;
    say_and_hear(&mut lasting, b"hello").await;

    let began = Instant::now();
    ports.node.execute(ControlCommand::RemoveMapping { mapping: going }).await;
    assert!(soon("reset", ending.read(&mut [0; 1])).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    soon("refused", async {
        while TcpStream::connect((HERE, one)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(ports.state(going), None);
    say_and_hear(&mut lasting, b"still here").await;
    say_and_hear(&mut connect(two).await, b"and others too").await;
}

/// A port may pass from one mapping to another.
#[tokio::test]
async fn a_port_that_was_given_up_is_taken_by_the_next_mapping() {
    let ports = Ports::start().await;
    let agent = ports.node.agent(1).await;
    let target = echo(&ports.node.tasks).await;
    let port = free_port().await;
    let first = ports.node.expose_at(port, agent.client, &target).await;
    ports.listening(first).await;
    ports.node.execute(ControlCommand::RemoveMapping { mapping: first }).await;
    let second = ports.node.expose_at(port, agent.client, &target).await;
    ports.listening(second).await;
    say_and_hear(&mut connect(port).await, b"hello").await;
}

/// C68: listeners go first, tunnels may finish.
#[tokio::test]
async fn c68_draining_the_listeners_leaves_the_tunnels() {
    let ports = Ports::start().await;
    let agent = ports.node.agent(1).await;
    let target = echo(&ports.node.tasks).await;
    let port = free_port().await;
    let mapping = ports.node.expose_at(port, agent.client, &target).await;
    ports.listening(mapping).await;
    let mut stream = connect(port).await;
    say_and_hear(&mut stream, b"before").await;
    assert_eq!(ports.listeners.drain(Duration::from_secs(10)).await, Drained::Clean);
    assert!(TcpStream::connect((HERE, port)).await.is_err());
    say_and_hear(&mut stream, b"after").await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("end", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ports.node.gateway.drain(Duration::from_secs(10)).await, 0);
}

/// A caller that is gone before its target answers is not waited for.
#[tokio::test]
async fn a_caller_that_resets_while_it_waits_leaves_nothing() {
    let ports = Ports::start().await;
    // A client without channels: its callers wait.
    let link = ports.node.enrol(1).await;
    let port = free_port().await;
    let mapping = ports.node.expose_at(port, link.client, "127.0.0.1:9").await;
    ports.listening(mapping).await;
    let stream = connect(port).await;
    ports.node.until("it waits", |node| node.gateway.tunnels() == 1).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    let began = Instant::now();
    ports.node.until("gone", |node| node.gateway.tunnels() == 0 && ports.ingress.callers() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(3), "not by a time-out: {:?}", began.elapsed());
}
