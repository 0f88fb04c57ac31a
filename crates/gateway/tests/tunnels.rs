//! Tunnels of public ports and of listening clients, end to end through a node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use underpass_domain::{ClientId, ControlCommand, MappingId, MappingOptions, Seal};
use underpass_gateway::{OpenError, OpenTunnel};
use underpass_pipeline::record;
use underpass_relay::{Counters, Duplex, How, Options, tunnel};
use underpass_wire::channel::{DataHello, DataRole, FailReason, Protection};
use underpass_wire::link::{Body, ChannelRole, Ticket, TicketRequest};

use support::{Agent, CallerChannel, DataChannel, Node, TestLink, caller, echo, nobody, soon, tcp_pair};

fn options() -> MappingOptions {
    MappingOptions::default()
}

async fn open(node: &Node, mapping: MappingId, early: &'static [u8]) -> Result<OpenTunnel, OpenError> {
    soon("open", node.gateway.open(mapping, caller(), Bytes::from_static(early))).await
}

/// Runs a tunnel in the node's group; gives the caller's end of it.
async fn run(node: &Node, tunnel: OpenTunnel) -> TcpStream {
    let (near, far) = tcp_pair().await;
    node.tasks.spawn_job("tunnel", |_| async move {
        tunnel.run(Duplex::Tcp(far)).await;
        Ok::<_, std::convert::Infallible>(())
    });
    near
}

async fn say_and_hear(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut heard = vec![0; text.len()];
    soon("echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, text);
}

/// The next ticket of a role.
async fn ticket(link: &mut TestLink, role: ChannelRole) -> Ticket {
    if role == ChannelRole::Caller {
        link.say(Body::TicketRequest(TicketRequest { role: role.into(), count: 1 })).await;
    }
    link.expect("a ticket", |body| match body {
        Body::Tickets(mut tickets) if tickets.role() == role => tickets.tickets.pop(),
        _ => None,
    })
    .await
}

/// C25 in small: the caller ends its side first, and gets the rest all the same. Sealed and plain.
#[tokio::test]
async fn c25_a_tunnel_carries_bytes_both_ways_and_keeps_half_close() {
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    for seal in [Seal::Auto, Seal::On, Seal::Off] {
        let mapping = node.expose(agent.client, &target, MappingOptions { seal, ..options() }).await;
        let mut near = run(&node, open(&node, mapping, b"early ").await.unwrap()).await;
        near.write_all(b"and late").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        soon("echo", near.read_to_string(&mut heard)).await.unwrap();
        assert_eq!(heard, "early and late", "{seal:?}");
    }
}

/// A channel serves many tunnels, one after another.
#[tokio::test]
async fn a_channel_is_parked_again_after_its_tunnel() {
    let node = Node::start_with(|options| (options.parked_min, options.parked_max) = (1, 1)).await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(agent.client, &target, options()).await;
    node.until("parked", |node| node.gateway.live().links[0].parked == 1).await;
    for _ in 0..5 {
        let mut near = run(&node, open(&node, mapping, b"").await.unwrap()).await;
        say_and_hear(&mut near, b"hello").await;
        near.shutdown().await.unwrap();
        let mut rest = Vec::new();
        soon("end", near.read_to_end(&mut rest)).await.unwrap();
        node.until("over", |node| node.gateway.tunnels() == 0).await;
        node.until("parked", |node| node.gateway.live().links[0].parked == 1).await;
    }
}

/// C27: each reason reaches the caller's side, in under a second, and the channel is not lost for it.
#[tokio::test]
async fn c27_refused_offline_and_unserved_are_told_at_once() {
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let gone = node.enrol(2).await;
    let refusing = node.expose(agent.client, &nobody().await, options()).await;
    let offline = node.expose(gone.client, "127.0.0.1:9", options()).await;
    let disabled = node.expose(agent.client, "127.0.0.1:9", options()).await;
    node.execute(ControlCommand::DisableMapping { mapping: disabled }).await;
    drop(gone);
    node.until("offline", |node| node.gateway.links() == 1).await;
    node.until("parked", |node| node.gateway.live().links[0].parked >= 2).await;

    let began = Instant::now();
    assert!(matches!(open(&node, refusing, b"").await, Err(OpenError::Refused(_))));
    assert!(matches!(open(&node, refusing, b"early").await, Err(OpenError::Refused(_))));
    assert_eq!(open(&node, offline, b"").await.unwrap_err(), OpenError::Offline);
    assert_eq!(open(&node, disabled, b"").await.unwrap_err(), OpenError::NotServed);
    assert_eq!(open(&node, MappingId::from_bytes([9; 16]), b"").await.unwrap_err(), OpenError::NotServed);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(node.gateway.tunnels(), 0);

    let target = echo(&node.tasks).await;
    let working = node.expose(agent.client, &target, options()).await;
    say_and_hear(&mut run(&node, open(&node, working, b"").await.unwrap()).await, b"hello").await;
}

/// C27: success is told only when the target is connected, and a target that says nothing ends in time.
#[tokio::test]
async fn c27_success_waits_for_the_target() {
    let node = Node::start_with(|options| options.open_deadline = Duration::from_millis(300)).await;
    let mut link = node.enrol(1).await;
    let mapping = node.expose(link.client, "127.0.0.1:9", options()).await;
    let sheet = ticket(&mut link, ChannelRole::Target).await;
    let mut channel = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Target).await;
    let (opened, asked) = tokio::join!(open(&node, mapping, b"x"), channel.next_open());
    assert_eq!(opened.unwrap_err(), OpenError::TimedOut);
    assert_eq!(asked.unwrap().target, "127.0.0.1:9");
    assert!(soon("the channel is closed", channel.next_open()).await.is_none());
}

/// C28, on the wire: whatever is wrong with a ticket, the channel is closed without a word; the tunnel that
/// runs and the ticket's rightful holder notice nothing.
#[tokio::test]
async fn c28_tickets_shown_wrongly_are_refused() {
    let node = Node::start_with(|options| options.ticket_ttl = Duration::from_secs(3)).await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(agent.client, &target, options()).await;
    let mut running = run(&node, open(&node, mapping, b"").await.unwrap()).await;
    say_and_hear(&mut running, b"before").await;

    let (mut link, other) = (node.enrol(2).await, node.enrol(3).await);
    let sheet = ticket(&mut link, ChannelRole::Caller).await;
    let id: [u8; 16] = sheet.id.as_slice().try_into().unwrap();
    let key: [u8; 32] = sheet.key.as_ref().unwrap().expose().try_into().unwrap();
    let table = [
        ("by another client", DataHello::new(id, &key, &other.hash, DataRole::Caller)),
        ("for another role", DataHello::new(id, &key, &link.hash, DataRole::Target)),
        ("without its key", DataHello::new(id, &[1; 32], &link.hash, DataRole::Caller)),
        ("that never was", DataHello::new([1; 16], &key, &link.hash, DataRole::Caller)),
    ];
    for (case, hello) in table {
        let mut stream = DataChannel::show(link.node, &hello).await;
        let end = soon(case, stream.read(&mut [0; 1])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{case}: {end:?}");
    }
    // The rightful holder still can, and only once.
    let mut channel = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Caller).await;
    channel.say(record::KEEPALIVE, &[]).await;
    assert_eq!(soon("answer", channel.hear()).await.unwrap().kind, record::KEEPALIVE_ANSWER);
    let mut twice = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Caller).await;
    assert!(soon("used twice", twice.hear()).await.is_none());
    channel.say(record::KEEPALIVE, &[]).await;
    assert_eq!(soon("answer", channel.hear()).await.unwrap().kind, record::KEEPALIVE_ANSWER);

    let late = ticket(&mut link, ChannelRole::Caller).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut channel = DataChannel::dial(link.node, &late, &link.hash, DataRole::Caller).await;
    assert!(soon("late", channel.hear()).await.is_none());

    say_and_hear(&mut running, b"after").await;
}

/// C28: a tunnel's id is taken once. The second call fails, the first goes on.
#[tokio::test]
async fn c28_a_running_tunnel_is_joined_by_nobody() {
    let node = Node::start().await;
    let (target_agent, mut link) = (node.agent(1).await, node.enrol(2).await);
    let target = echo(&node.tasks).await;
    let mapping = node.join(link.client, target_agent.client, &target, Seal::Auto).await;
    let mut first = CallerChannel::get(&mut link).await;
    let mut second = CallerChannel::get(&mut link).await;
    let (mut sealer, mut opener) = first.dial(mapping, [1; 16], Protection::EndToEnd).await.unwrap();
    assert_eq!(second.dial(mapping, [1; 16], Protection::EndToEnd).await.err(), Some(FailReason::Denied));
    first.channel.records.send(&mut sealer, record::DATA, b"hello").await.unwrap();
    let heard = soon("echo", first.channel.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!((heard.kind, &heard.body[..]), (record::DATA, &b"hello"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c29_of_a_thousand_racing_callers_exactly_as_many_as_allowed_get_in() {
    support::many_descriptors();
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    let limit = MappingOptions { max_connections: Some(10), ..options() };
    let mapping = node.expose(agent.client, &target, limit).await;
    let (sender, mut results) = tokio::sync::mpsc::channel(1000);
    for _ in 0..1000 {
        let (gateway, sender) = (node.gateway.clone(), sender.clone());
        node.tasks.spawn_job("caller", |_| async move {
            sender.send(gateway.open(mapping, caller(), Bytes::new()).await).await
        });
    }
    drop(sender);
    let (mut inside, mut outside) = (Vec::new(), 0);
    while let Some(result) = soon("a result", results.recv()).await {
        match result {
            Ok(tunnel) => inside.push(tunnel),
            Err(OpenError::Limit) => outside += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((inside.len(), outside), (10, 990));
    inside.pop();
    assert!(open(&node, mapping, b"").await.is_ok(), "one left, one may come");
}

/// C21 and C10: whatever ends a mapping ends its running tunnels within two seconds, both kinds of them, and no
/// others.
#[tokio::test]
async fn c21_tunnels_end_with_their_mapping() {
    type Way = fn(MappingId, ClientId) -> Option<ControlCommand>;
    let node = Node::start().await;
    let target = echo(&node.tasks).await;
    let staying_agent = node.agent(9).await;
    let staying = node.expose(staying_agent.client, &target, options()).await;
    let mut other = run(&node, open(&node, staying, b"").await.unwrap()).await;
    let ways: [(&str, Way); 5] = [
        ("removed", |mapping, _| Some(ControlCommand::RemoveMapping { mapping })),
        ("disabled", |mapping, _| Some(ControlCommand::DisableMapping { mapping })),
        ("blocked", |_, client| Some(ControlCommand::BlockClient { client, reason: "test".into() })),
        ("client removed", |_, client| Some(ControlCommand::RemoveClient { client })),
        ("expired", |_, _| None),
    ];
    for (number, (way, command)) in (10..).zip(ways) {
        let agent = node.agent(number).await;
        let mut link = node.enrol(number + 50).await;
        let expires_at = Some(underpass_domain::Timestamp(node.gateway.now().0 + 3_600_000));
        let limited = MappingOptions { expires_at, ..options() };
        let mapping = node.expose(agent.client, &target, limited).await;
        let joined = node.join(link.client, agent.client, &target, Seal::Auto).await;
        let mut near = run(&node, open(&node, mapping, b"").await.unwrap()).await;
        say_and_hear(&mut near, b"hello").await;
        let mut called = CallerChannel::get(&mut link).await;
        let (_, mut opener) = called.dial(joined, [number; 16], Protection::EndToEnd).await.unwrap();

        let began = Instant::now();
        match command(mapping, agent.client) {
            Some(command) => node.execute(command).await,
            None => node.clock.advance(Duration::from_hours(2)),
        }
        let end = soon(way, near.read(&mut [0; 1])).await;
        assert!(end.is_err(), "{way}: a reset, not an end: {end:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{way}: {:?}", began.elapsed());
        if matches!(way, "blocked" | "client removed") {
            let end = soon(way, called.channel.records.recv(&mut opener)).await;
            assert!(matches!(end, Ok(None) | Err(_)), "{way}: {end:?}");
        }
        drop(called);
        drop(link);
        agent.stop.cancel();
        assert!(open(&node, mapping, b"").await.is_err(), "{way}");
        say_and_hear(&mut other, b"still here").await;
    }
}

/// C32: what passes the node between two clients is sealed by them: a marker sent through is not in what either
/// side of the node carries, and it arrives.
#[tokio::test]
async fn c32_the_node_never_sees_what_two_clients_say() {
    const MARKER: &[u8] = b"the quick brown marker";
    let node = Node::start().await;
    let (mut target_link, mut link) = (node.enrol(1).await, node.enrol(2).await);
    let mapping = node.join(link.client, target_link.client, "127.0.0.1:9", Seal::Auto).await;
    let sheet = ticket(&mut target_link, ChannelRole::Target).await;
    let mut target = DataChannel::dial(target_link.node, &sheet, &target_link.hash, DataRole::Target).await;
    let mut calling = CallerChannel::get(&mut link).await;

    let (called, served) = tokio::join!(calling.dial(mapping, [3; 16], Protection::EndToEnd), async {
        let open = target.next_open().await.unwrap();
        target.accept(&open).await;
        open
    });
    let (mut sealer, mut opener) = called.unwrap();
    assert_eq!((served.protection(), served.pair.len()), (Protection::EndToEnd, 16));
    // Read as if plain: the bytes as the node had them.
    calling.channel.records.send(&mut sealer, record::DATA, MARKER).await.unwrap();
    let raw = soon("record", target.records.recv(&mut underpass_pipeline::Opener::plain())).await;
    let raw = raw.unwrap().unwrap();
    assert_eq!(raw.kind, record::DATA);
    assert!(!raw.body.windows(MARKER.len()).any(|part| part == MARKER));
    // And as what it is, the next one. (The first used up a number.)
    let (mut target_sealer, mut target_opener) = target.seals(&served);
    let mut body = raw.body.to_vec();
    let header = record::Header { kind: record::DATA, flags: 0, length: u32::try_from(body.len()).unwrap() };
    let length = target_opener.open_in_place(header, &mut body).unwrap();
    assert_eq!(&body[..length], MARKER);
    target.records.send(&mut target_sealer, record::DATA, b"answer").await.unwrap();
    let heard = soon("answer", calling.channel.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!(&heard.body[..], b"answer");

    // Both ends said: both channels are parked again, and serve the next tunnel.
    calling.channel.records.send(&mut sealer, record::FIN, b"").await.unwrap();
    target.records.send(&mut target_sealer, record::FIN, b"").await.unwrap();
    let fin = soon("fin", target.records.recv(&mut target_opener)).await.unwrap().unwrap();
    assert_eq!(fin.kind, record::FIN);
    let fin = soon("fin", calling.channel.records.recv(&mut opener)).await.unwrap().unwrap();
    assert_eq!(fin.kind, record::FIN);
    node.until("over", |node| node.gateway.tunnels() == 0).await;
    let (again, open) = tokio::join!(calling.dial(mapping, [4; 16], Protection::EndToEnd), async {
        let open = target.next_open().await.unwrap();
        target.fail(&open, FailReason::Unsealable).await;
        open
    });
    assert_eq!(again.err(), Some(FailReason::Unsealable), "the reason passes as it is");
    assert_eq!(open.tunnel, [4; 16]);
}

/// C32: sealing impossible means no tunnel; nothing is ever plain, or sealed less than the mapping says, by
/// mistake.
#[tokio::test]
async fn c32_a_call_that_is_sealed_otherwise_than_the_mapping_says_fails() {
    let node = Node::start().await;
    let (agent, mut link, mut stranger) = (node.agent(1).await, node.enrol(2).await, node.enrol(3).await);
    let target = echo(&node.tasks).await;
    let sealed = node.join(link.client, agent.client, &target, Seal::Auto).await;
    let plain = node.join(link.client, agent.client, &target, Seal::Off).await;
    let mut calling = CallerChannel::get(&mut link).await;
    let table = [
        (sealed, Protection::Plain),
        (sealed, Protection::NodeSealed),
        (sealed, Protection::Unspecified),
        (plain, Protection::EndToEnd),
        (plain, Protection::NodeSealed),
    ];
    for (number, (mapping, protection)) in (1..).zip(table) {
        let outcome = calling.dial(mapping, [number; 16], protection).await.err();
        assert_eq!(outcome, Some(FailReason::Unsealable), "{protection:?}");
    }
    let mut other = CallerChannel::get(&mut stranger).await;
    let outcome = other.dial(sealed, [9; 16], Protection::EndToEnd).await.err();
    assert_eq!(outcome, Some(FailReason::NotServed), "somebody else's mapping");
    assert!(calling.dial(plain, [8; 16], Protection::Plain).await.is_ok());
}

/// 10.26: parked channels that died without a word: the caller notices nothing, its first bytes included.
#[tokio::test]
async fn a_dead_parked_channel_is_replaced_and_the_first_bytes_sent_again() {
    let node = Node::start_with(|options| (options.parked_min, options.parked_max) = (1, 1)).await;
    let mut link = node.enrol(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(link.client, &target, options()).await;
    let sheet = ticket(&mut link, ChannelRole::Target).await;
    let dying = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Target).await;
    node.until("parked", |node| node.gateway.live().links[0].parked == 1).await;
    drop(dying);
    let agent = Agent::start(link, &node.tasks);
    let mut near = run(&node, open(&node, mapping, b"early").await.unwrap()).await;
    let mut heard = [0; 5];
    soon("echo", near.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"early");
    drop(agent);
}

/// C14: a caller that came while the old link led nowhere is served by the new one.
#[tokio::test]
async fn c14_a_caller_that_waits_moves_on_to_the_new_link() {
    let node = Node::start().await;
    let old = node.enrol(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(old.client, &target, options()).await;
    let (opened, agent) = tokio::join!(open(&node, mapping, b"early"), async {
        node.until("it waits", |node| node.gateway.tunnels() == 1).await;
        Agent::start(node.link(1).await, &node.tasks)
    });
    let mut near = run(&node, opened.unwrap()).await;
    let mut heard = [0; 5];
    soon("echo", near.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"early");
    drop((agent, old));
}

/// A parked channel that answers nothing is found out without a caller, and replaced.
#[tokio::test]
async fn a_parked_channel_that_does_not_answer_is_replaced() {
    let node = Node::start_with(|options| {
        (options.parked_min, options.parked_max) = (1, 1);
        options.keepalive_every = Duration::from_millis(200);
        options.keepalive_timeout = Duration::from_millis(200);
    })
    .await;
    let mut link = node.enrol(1).await;
    let sheet = ticket(&mut link, ChannelRole::Target).await;
    let silent = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Target).await;
    let sheet = ticket(&mut link, ChannelRole::Target).await;
    let mut lively = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Target).await;
    let answered = soon("three questions", async {
        for _ in 0..3 {
            assert_eq!(lively.hear().await.unwrap().kind, record::KEEPALIVE);
            lively.say(record::KEEPALIVE_ANSWER, &[]).await;
        }
    });
    answered.await;
    assert_eq!(node.gateway.live().links[0].parked, 1);
    drop(silent);
}

/// Running tunnels outlive their link; their channel is not parked after that.
#[tokio::test]
async fn a_tunnel_goes_on_without_its_link() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(link.client, &target, options()).await;
    let sheet = ticket(&mut link, ChannelRole::Target).await;
    let channel = DataChannel::dial(link.node, &sheet, &link.hash, DataRole::Target).await;
    node.tasks.spawn_job("target", |_| async move {
        channel.serve_targets().await;
        Ok::<_, std::convert::Infallible>(())
    });
    let mut near = run(&node, open(&node, mapping, b"").await.unwrap()).await;
    say_and_hear(&mut near, b"with").await;
    drop(link);
    node.until("the link is gone", |node| node.gateway.links() == 0).await;
    say_and_hear(&mut near, b"without").await;
    assert_eq!(node.gateway.tunnels(), 1);
}

/// C68: no new tunnel, the running one finishes, then everything is closed, and what it carried is in the log.
#[tokio::test]
async fn c68_draining_lets_tunnels_finish_and_writes_down_what_they_carried() {
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let mut watching = node.enrol(2).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(agent.client, &target, options()).await;
    let mut near = run(&node, open(&node, mapping, b"12345").await.unwrap()).await;
    say_and_hear_after(&mut near, b"12345", b"678").await;
    node.gateway.going_away(Duration::from_secs(5));
    let grace = watching
        .expect("going away", |body| match body {
            Body::GoingAway(going) => Some(going.grace_ms),
            _ => None,
        })
        .await;
    assert_eq!(grace, 5000);
    assert!(matches!(open(&node, mapping, b"").await, Err(OpenError::Unavailable(_))));
    let (cut, ()) = tokio::join!(node.gateway.drain(Duration::from_secs(10)), async {
        say_and_hear(&mut near, b"9").await;
        near.shutdown().await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
    });
    assert_eq!((cut, node.gateway.tunnels(), node.gateway.links()), (0, 0, 0));
    let usage = node.control.activity().state.usage(mapping);
    assert_eq!((usage.bytes_in, usage.bytes_out, usage.tunnels, usage.refused), (9, 9, 1, 1));
    watching.closed().await;
}

async fn say_and_hear_after(stream: &mut TcpStream, early: &[u8], text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut heard = vec![0; early.len() + text.len()];
    soon("echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, [early, text].concat());
}

/// C68: what does not finish within the grace time is cut off.
#[tokio::test]
async fn c68_draining_cuts_off_what_does_not_finish() {
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    let mapping = node.expose(agent.client, &target, options()).await;
    let mut near = run(&node, open(&node, mapping, b"").await.unwrap()).await;
    assert_eq!(node.gateway.drain(Duration::from_millis(100)).await, 1);
    assert!(soon("reset", near.read(&mut [0; 1])).await.is_err());
    assert_eq!(node.gateway.tunnels(), 0);
}

/// C34: a tunnel without traffic ends when its mapping says so.
#[tokio::test]
async fn c34_an_idle_tunnel_ends_at_its_limit() {
    let node = Node::start().await;
    let agent = node.agent(1).await;
    let target = echo(&node.tasks).await;
    let limit = MappingOptions { idle_timeout_s: Some(1), ..options() };
    let mapping = node.expose(agent.client, &target, limit).await;
    let (_near, far) = tcp_pair().await;
    let opened = open(&node, mapping, b"").await.unwrap();
    let ended = soon("idle", opened.run(Duplex::Tcp(far))).await;
    assert!(matches!(ended.how, How::Idle), "{ended:?}");
}

/// Through a call, the relay of both clients and the node in the middle.
#[tokio::test]
async fn a_call_carries_a_whole_conversation() {
    let node = Node::start().await;
    let (agent, mut link) = (node.agent(1).await, node.enrol(2).await);
    let target = echo(&node.tasks).await;
    let mapping = node.join(link.client, agent.client, &target, Seal::On).await;
    let mut calling = CallerChannel::get(&mut link).await;
    for number in 1..4 {
        let (sealer, opener) = calling.dial(mapping, [number; 16], Protection::EndToEnd).await.unwrap();
        let (mut near, far) = tcp_pair().await;
        let text = vec![number; 300_000];
        let (settings, counters) = (Options::default(), Counters::default());
        let records = &mut calling.channel.records;
        let relayed = tunnel(Duplex::Tcp(far), records, sealer, opener, &settings, &counters);
        let (mut read, mut write) = near.split();
        let mut heard = Vec::new();
        let (ended, said, got) = soon("a conversation", async {
            tokio::join!(
                Box::pin(relayed),
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
        assert!(ended.channel_reusable());
    }
}
