//! Serving what the node wants served.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use underpass_agent::{Expose, Verbs};
use underpass_domain::Seal as Sealing;
use underpass_pipeline::{Opener, Sealer, record};
use underpass_wire::channel::{self, Dial, FailReason, Failed, Opened, Protection, encode};
use underpass_wire::link::{ChannelRole, MappingInfo, MappingMade, Outcome, Request, ResultStatus, Seal};

async fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A caller at `address` and the node's end of its channel, with the tunnel open and unsealed.
async fn tunnel(node: &mut FakeNode, link: &mut FakeLink, address: SocketAddr) -> (TcpStream, FakeData) {
    let caller = TcpStream::connect(address).await.unwrap();
    let ticket = link.grant().await;
    let mut data = node.shown(link, ChannelRole::Caller, &ticket).await;
    let dial = data.recv().await.unwrap();
    assert_eq!(dial.kind, record::DIAL);
    let dial: Dial = channel::decode(&dial.body).unwrap();
    assert_eq!(dial.protection(), Protection::Plain);
    assert_eq!(dial.caller, caller.local_addr().unwrap().to_string());
    data.send(record::OPENED, &encode(&Opened { tunnel: dial.tunnel }).unwrap()).await;
    (caller, data)
}

async fn echo_through(caller: &mut TcpStream, data: &mut FakeData, text: &[u8]) {
    caller.write_all(text).await.unwrap();
    let (mut sealer, mut opener) = (Sealer::plain(), Opener::plain());
    let record = soon("data", data.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!((record.kind, &record.body[..]), (record::DATA, text));
    data.records.send(&mut sealer, record::DATA, text).await.unwrap();
    let mut back = vec![0; text.len()];
    soon("the echo", caller.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, text);
}

fn status(applied: &underpass_wire::link::Applied, number: u8) -> (ResultStatus, String) {
    let id = mapping(number);
    let found = applied.results.iter().find(|result| result.mapping == id.as_bytes()).expect("a result");
    (found.status(), found.message.clone())
}

#[tokio::test]
async fn c19_adding_and_removing_leaves_the_others_listening_and_their_tunnels_running() {
    let (mut node, _machine, _agent, mut link) = connected(1).await;
    let (one, two, three) = (free_address().await, free_address().await, free_address().await);
    link.desired(10, vec![listens(1, one), listens(2, two)]).await;
    let applied = link.applied(10).await;
    assert_eq!(status(&applied, 1), (ResultStatus::Listening, one.to_string()));
    let (mut caller, mut data) = tunnel(&mut node, &mut link, one).await;
    echo_through(&mut caller, &mut data, b"before").await;

    link.desired(11, vec![listens(1, one), listens(3, three)]).await;
    link.applied(11).await;
    echo_through(&mut caller, &mut data, b"after").await;
    assert!(refused(two).await, "the removed one is closed");
    assert!(TcpStream::connect(one).await.is_ok() && TcpStream::connect(three).await.is_ok());
}

#[tokio::test]
async fn c21_tunnels_of_a_removed_mapping_end_at_once() {
    let (mut node, _machine, _agent, mut link) = connected(1).await;
    let one = free_address().await;
    link.desired(10, vec![listens(1, one)]).await;
    link.applied(10).await;
    let (mut caller, mut data) = tunnel(&mut node, &mut link, one).await;
    echo_through(&mut caller, &mut data, b"before").await;
    link.desired(11, vec![]).await;
    let ended = timeout(2 * ONE_SECOND, caller.read(&mut [0])).await.expect("within two seconds");
    assert!(ended.is_err(), "a reset, not an end: {ended:?}");
    assert!(refused(one).await);
}

#[tokio::test]
async fn c20_a_lower_position_is_ignored_and_the_whole_set_is_there_after_being_away() {
    let (mut node, _machine, _agent, mut link) = connected(1).await;
    let (one, two) = (free_address().await, free_address().await);
    link.desired(10, vec![listens(1, one)]).await;
    link.applied(10).await;
    link.desired(9, vec![]).await;
    link.desired(11, vec![listens(1, one)]).await;
    link.applied(11).await;
    assert!(TcpStream::connect(one).await.is_ok());
    link.desired(5, vec![listens(2, two)]).await;

    // While it is away it goes on listening, and gets the new set when it is back.
    drop(link);
    let mut link = node.welcomed(client(1)).await;
    assert!(TcpStream::connect(one).await.is_ok());
    assert!(refused(two).await, "the lower position was ignored");
    link.desired(12, vec![listens(2, two)]).await;
    link.applied(12).await;
    assert!(refused(one).await);
    assert!(TcpStream::connect(two).await.is_ok());
}

#[tokio::test]
async fn c22_a_port_in_use_is_reported_hurts_no_other_and_is_taken_when_free() {
    let (_node, _machine, agent, mut link) = connected(1).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (busy, free) = (taken.local_addr().unwrap(), free_address().await);
    link.desired(10, vec![listens(1, busy), listens(2, free)]).await;
    let applied = link.applied(10).await;
    let (one, message) = status(&applied, 1);
    assert_eq!(one, ResultStatus::PortInUse);
    assert!(message.contains(&busy.to_string()), "{message}");
    assert_eq!(status(&applied, 2).0, ResultStatus::Listening);
    assert!(TcpStream::connect(free).await.is_ok());
    assert_eq!(agent.handle().status().await.unwrap().mappings, 2);
    drop(taken);
    let applied = link.applied(10).await;
    assert_eq!(status(&applied, 1).0, ResultStatus::Listening);
}

#[tokio::test]
async fn a_mapping_that_moves_listens_at_the_new_address_only() {
    let (mut node, _machine, _agent, mut link) = connected(1).await;
    let (before, after) = (free_address().await, free_address().await);
    link.desired(10, vec![listens(1, before)]).await;
    link.applied(10).await;
    let (mut caller, mut data) = tunnel(&mut node, &mut link, before).await;
    link.desired(11, vec![listens(1, after)]).await;
    link.applied(11).await;
    assert!(refused(before).await);
    assert!(TcpStream::connect(after).await.is_ok());
    echo_through(&mut caller, &mut data, b"goes on").await;
}

#[tokio::test]
async fn c27_a_caller_knows_within_a_second_that_the_target_refused() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let mut events = agent.handle().events().await.unwrap();
    let one = free_address().await;
    link.desired(10, vec![listens(1, one)]).await;
    link.applied(10).await;
    let mut caller = TcpStream::connect(one).await.unwrap();
    let begun = Instant::now();
    let ticket = link.grant().await;
    let mut data = node.shown(&link, ChannelRole::Caller, &ticket).await;
    let dial: Dial = channel::decode(&data.recv().await.unwrap().body).unwrap();
    let failed = Failed { tunnel: dial.tunnel, reason: FailReason::Refused.into(), message: String::new() };
    data.send(record::FAILED, &encode(&failed).unwrap()).await;
    let answer = caller.read(&mut [0]).await;
    assert!(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "not a reset");
    assert!(begun.elapsed() < ONE_SECOND);
    let told = soon("an event", async {
        loop {
            if let Some(underpass_agent::AgentEvent::TunnelRefused { code, .. }) = events.next().await {
                return code;
            }
        }
    });
    assert_eq!(told.await, "target.refused");
    // The channel is parked again: the next caller is dialled for on it.
    let _next = TcpStream::connect(one).await.unwrap();
    assert_eq!(data.recv().await.unwrap().kind, record::DIAL);
}

#[tokio::test]
async fn c27_the_target_s_refusal_is_told_within_a_second() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let target = free_address().await.to_string();
    expose(&agent, &mut link, 1, &target).await;
    link.desired(10, vec![offers(1, &target, Seal::Auto)]).await;
    link.applied(10).await;
    let mut data = node.channel(&mut link, ChannelRole::Target).await;
    let begun = Instant::now();
    let answer = data.open(&open(1, &target, Protection::NodeSealed)).await;
    assert!(begun.elapsed() < ONE_SECOND);
    assert_eq!(answer.kind, record::FAILED);
    let failed: Failed = channel::decode(&answer.body).unwrap();
    assert_eq!(failed.reason(), FailReason::Refused);
    assert!(failed.message.contains(&target));
}

/// Exposes a target, with the node answering that mapping `number` was made of it.
async fn expose(agent: &underpass_agent::Agent, link: &mut FakeLink, number: u8, target: &str) {
    let handle = agent.handle();
    let expose = Expose {
        target: target.to_owned(),
        port: None,
        name: None,
        seal: Sealing::Auto,
        max_connections: None,
        idle_timeout_s: None,
    };
    let (opened, ()) = tokio::join!(handle.expose(expose), async {
        let command = link.command().await;
        let Request::Expose(request) = request(&command) else { panic!("{command:?}") };
        assert!(request.adopt);
        let made = MappingInfo {
            id: mapping(number).as_bytes().to_vec(),
            name: "web".into(),
            public: "0.0.0.0:20001".into(),
            ..MappingInfo::default()
        };
        link.answer(
            &command,
            Outcome::Exposed(MappingMade { mapping: Some(made), ..MappingMade::default() }),
        )
        .await;
    });
    let opened = opened.unwrap();
    assert_eq!((opened.mapping, opened.name.as_str()), (mapping(number), "web"));
    assert_eq!(opened.public, "127.0.0.1:20001", "the host is the one that the server is reached by");
}

#[tokio::test]
async fn c34_only_what_was_exposed_is_dialled() {
    let (mut node, machine, agent, mut link) = connected(1).await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    link.desired(10, vec![offers(1, &target, Seal::Auto)]).await;
    assert_eq!(status(&link.applied(10).await, 1).0, ResultStatus::Denied);
    let mut data = node.channel(&mut link, ChannelRole::Target).await;
    let answer = data.open(&open(1, &target, Protection::NodeSealed)).await;
    assert_eq!(answer.kind, record::FAILED);
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Denied);

    expose(&agent, &mut link, 1, &target).await;
    assert_eq!(status(&link.applied(10).await, 1).0, ResultStatus::Offered);
    let answer = data.open(&open(1, &target, Protection::NodeSealed)).await;
    assert_eq!(answer.kind, record::OPENED);
    let (mut sealer, mut opener) = data.tunnel([1; 16]);
    let (mut served, _) = soon("the target's caller", service.accept()).await.unwrap();
    data.records.send(&mut sealer, record::DATA, b"hello").await.unwrap();
    let mut read = [0; 5];
    soon("the bytes", served.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"hello");
    // Half-close: the target answers after the caller's end.
    data.records.send(&mut sealer, record::FIN, &[]).await.unwrap();
    assert_eq!(soon("the end", served.read(&mut read)).await.unwrap(), 0);
    served.write_all(b"bye").await.unwrap();
    drop(served);
    let record = soon("the answer", data.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!((record.kind, &record.body[..]), (record::DATA, &b"bye"[..]));
    let record = soon("the answer's end", data.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!(record.kind, record::FIN);
    // And the channel serves the next tunnel. Another target of the same mapping is still forbidden.
    let other = free_address().await.to_string();
    let answer = data.open(&open(1, &other, Protection::NodeSealed)).await;
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Denied);

    // Removing the mapping takes the permission back, also for the next run.
    let handle = agent.handle();
    let name = mapping(1).to_string();
    let (removed, ()) = tokio::join!(handle.remove(&name), async {
        let command = link.command().await;
        link.answer(&command, Outcome::Done(underpass_wire::link::Done { position: 11 })).await;
    });
    assert_eq!(removed.unwrap(), mapping(1));
    let answer = data.open(&open(1, &target, Protection::NodeSealed)).await;
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Denied);
    let kept = std::fs::read_to_string(machine.state.path().join("shares.json")).unwrap();
    assert!(!kept.contains(&target), "{kept}");
}

#[tokio::test]
async fn c34_a_range_allows_what_it_covers() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    let mut options = machine.options();
    options.allow = vec!["127.0.0.0/8:*".parse().unwrap()];
    let _agent = underpass_agent::Agent::start(options, &machine.tasks).unwrap();
    let mut link = node.welcomed(client(1)).await;
    link.desired(10, vec![offers(1, &target, Seal::Auto)]).await;
    assert_eq!(status(&link.applied(10).await, 1).0, ResultStatus::Offered);
    let mut data = node.channel(&mut link, ChannelRole::Target).await;
    assert_eq!(data.open(&open(1, &target, Protection::NodeSealed)).await.kind, record::OPENED);
}

#[tokio::test]
async fn c32_a_tunnel_with_weaker_sealing_than_its_mapping_is_refused() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    expose(&agent, &mut link, 1, &target).await;
    link.desired(10, vec![offers(1, &target, Seal::Auto)]).await;
    link.applied(10).await;
    let mut data = node.channel(&mut link, ChannelRole::Target).await;
    for protection in [Protection::Plain, Protection::Unspecified, Protection::EndToEnd] {
        let answer = data.open(&open(1, &target, protection)).await;
        assert_eq!(answer.kind, record::FAILED, "{protection:?}");
        assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Unsealable);
    }
    assert_eq!(data.open(&open(1, &target, Protection::NodeSealed)).await.kind, record::OPENED);
}

/// C28: a node that lost patience with one channel and asks again on another finds the tunnel opened; the
/// caller's first bytes, which go with each request, reach the target once.
#[tokio::test]
async fn c28_a_tunnel_is_opened_once() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    expose(&agent, &mut link, 1, &target).await;
    link.desired(10, vec![offers(1, &target, Seal::Auto)]).await;
    let mut first = node.channel(&mut link, ChannelRole::Target).await;
    let mut second = node.channel(&mut link, ChannelRole::Target).await;
    assert_eq!(first.open(&open(1, &target, Protection::NodeSealed)).await.kind, record::OPENED);
    assert_eq!(second.open(&open(1, &target, Protection::NodeSealed)).await.kind, record::FAILED);
    let another =
        underpass_wire::channel::Open { tunnel: vec![2; 16], ..open(1, &target, Protection::NodeSealed) };
    assert_eq!(second.open(&another).await.kind, record::OPENED, "another one is");
}

#[tokio::test]
async fn c34_an_idle_tunnel_ends_at_its_limit() {
    let (mut node, _machine, agent, mut link) = connected(1).await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().to_string();
    expose(&agent, &mut link, 1, &target).await;
    let mut wanted = offers(1, &target, Seal::Auto);
    wanted.idle_timeout_s = Some(1);
    link.desired(10, vec![wanted]).await;
    link.applied(10).await;
    let mut data = node.channel(&mut link, ChannelRole::Target).await;
    assert_eq!(data.open(&open(1, &target, Protection::NodeSealed)).await.kind, record::OPENED);
    let (mut served, _) = service.accept().await.unwrap();
    let (mut sealer, _) = data.tunnel([1; 16]);
    for _ in 0..8 {
        tokio::time::sleep(ONE_SECOND / 4).await;
        data.records.send(&mut sealer, record::DATA, b"x").await.unwrap();
        soon("a byte", served.read_exact(&mut [0])).await.unwrap();
    }
    soon("the end of the idle tunnel", async {
        while served.read(&mut [0]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
}

#[tokio::test]
async fn a_mapping_that_is_not_understood_is_reported_and_hurts_no_other() {
    let (_node, _machine, _agent, mut link) = connected(1).await;
    let one = free_address().await;
    let mut strange = listens(2, one);
    strange.listen = "somewhere".into();
    let mut newer = listens(3, one);
    newer.ingress = 99;
    link.desired(10, vec![strange, newer, listens(1, one)]).await;
    let applied = link.applied(10).await;
    assert_eq!(status(&applied, 1).0, ResultStatus::Listening);
    assert_eq!(status(&applied, 2).0, ResultStatus::Failed);
    assert_eq!(status(&applied, 3).0, ResultStatus::Failed);
}

#[tokio::test]
async fn c68_a_shutdown_lets_tunnels_finish_and_takes_no_new_callers() {
    let (mut node, machine, agent, mut link) = connected(1).await;
    let one = free_address().await;
    link.desired(10, vec![listens(1, one)]).await;
    link.applied(10).await;
    let (mut caller, mut data) = tunnel(&mut node, &mut link, one).await;
    let (drained, ()) = tokio::join!(agent.shutdown(DEADLINE), async {
        soon("the listener's end", async { while !refused(one).await {} }).await;
        echo_through(&mut caller, &mut data, b"still here").await;
        caller.shutdown().await.unwrap();
        let (mut sealer, mut opener) = (Sealer::plain(), Opener::plain());
        let fin = soon("the end", data.records.recv(&mut opener)).await.unwrap().unwrap();
        assert_eq!(fin.kind, record::FIN);
        data.records.send(&mut sealer, record::FIN, &[]).await.unwrap();
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    });
    assert_eq!(drained, underpass_tasks::Drained::Clean);
    assert!(!machine.state.path().join("agent.sock").exists());
    soon("the link's end", async { while link.try_recv().await.is_some() {} }).await;
}
