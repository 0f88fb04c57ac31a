//! Links: who gets one, what ends one, and that nobody is kept waiting by others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use underpass_control::Caller;
use underpass_domain::{ActivityCommand, Actor, ControlCommand, MappingOptions};
use underpass_wire::link::{Body, Command, KickReason, ListMappings, Ping, Request, Unsupported};
use underpass_wire::preamble::{self, Kind};

use support::{Node, Refusal, TestLink, caller, echo, key, soon};

fn kick(body: Body) -> Option<KickReason> {
    match body {
        Body::Kick(kick) => Some(kick.reason()),
        _ => None,
    }
}

/// C6: half of them say nothing at all, half send a byte now and then. None of them delays a real client, and
/// all are closed at the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_a_thousand_silent_peers_delay_nobody_and_are_closed() {
    support::many_descriptors();
    let deadline = Duration::from_secs(3);
    let node = Node::start_with(|options| options.handshake_deadline = deadline).await;
    let mut link = node.enrol(1).await;
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&preamble::encode(Kind::Link)[..number % 6]).await.unwrap();
        }
        silent.push(stream);
    }
    node.until("all are accepted", |node| node.gateway.live().unauthenticated >= 900).await;
    let began = Instant::now();
    link.say(Body::Ping(Ping { nonce: 5 })).await;
    link.expect("pong", |body| matches!(body, Body::Pong(pong) if pong.nonce == 5).then_some(())).await;
    let second = TestLink::connect(&node, &key(1), None).await.unwrap();
    // The goal is 200 ms; a loaded machine gets the benefit of the doubt, a queue of handshakes does not.
    assert!(began.elapsed() < deadline / 2, "{:?}", began.elapsed());
    drop(second);
    for mut stream in silent {
        let end = soon("a silent peer is closed", stream.read(&mut [0; 1])).await;
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    node.until("none is left", |node| node.gateway.live().unauthenticated == 0).await;
}

#[tokio::test]
async fn c6_a_byte_now_and_then_buys_no_time() {
    let node = Node::start_with(|options| options.handshake_deadline = Duration::from_millis(600)).await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let hello = preamble::encode(Kind::Link);
    let mut sent = 0;
    let closed = soon("closed", async {
        loop {
            let mut byte = [0];
            tokio::select! {
                end = stream.read(&mut byte) => return end,
                () = tokio::time::sleep(Duration::from_millis(150)) => {}
            }
            let _ = stream.write_all(&[*hello.get(sent).unwrap_or(&0)]).await;
            sent += 1;
        }
    })
    .await;
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert!(sent < 20);
}

/// C7: the second time no invite is needed, and what went over the network holds neither the invite nor a key.
#[tokio::test]
async fn c7_an_invite_registers_a_key_once_and_does_not_show() {
    let node = Node::start().await;
    let invite = node.invite().await;
    let mut first = TestLink::connect(&node, &key(1), Some(invite)).await.unwrap();
    first.say(Body::Ping(Ping { nonce: 1 })).await;
    first.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    let again = TestLink::connect(&node, &key(1), Some(invite)).await.unwrap();
    assert_eq!(again.client, first.client);
    assert_eq!(node.control.state().state.clients().count(), 1);
    let contains = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|part| part == needle);
    for link in [&first, &again] {
        for secret in [&invite[..], key(1).private(), &key(1).public(), b"linux/test"] {
            assert!(!contains(&link.sent, secret) && !contains(&link.got, secret));
        }
    }
}

/// C8: the wire says the same to all, the log says which.
#[tokio::test]
async fn c8_refusals_look_alike_on_the_wire_and_differ_in_the_log() {
    let node = Node::start().await;
    let used = node.invite().await;
    let known = TestLink::connect(&node, &key(1), Some(used)).await.unwrap();
    let expired = node.invite().await;
    node.clock.advance(Duration::from_hours(1));
    node.execute(ControlCommand::BlockClient { client: known.client, reason: "test".into() }).await;
    let table = [
        ("no invite", 2, None, "unknown key"),
        ("wrong invite", 3, Some([9; 16]), "invite"),
        ("used invite", 4, Some(used), "used"),
        ("expired invite", 5, Some(expired), "expired"),
        ("blocked client", 1, None, "blocked"),
    ];
    for (case, number, invite, reason) in table {
        let refusal = TestLink::connect(&node, &key(number), invite).await.err();
        assert_eq!(refusal, Some(Refusal::Refused), "{case}");
        // One address is recorded once in ten seconds, so the reasons are looked at where there is one.
        if number == 2 {
            node.until("the reason is in the log", |node| {
                let view = node.control.activity();
                view.state.auth_failures().any(|failure| failure.reason.contains(reason))
            })
            .await;
        }
    }
    assert_eq!(node.control.state().state.clients().count(), 1);
    assert_eq!(node.gateway.links(), 0);
}

/// C8, wrong server key: the handshake can't even be read, and there is nothing to say.
#[tokio::test]
async fn c8_a_client_that_pins_another_server_is_closed() {
    let mut node = Node::start().await;
    node.server_key = key(99).public();
    assert_eq!(TestLink::connect(&node, &key(1), None).await.err(), Some(Refusal::Closed));
    node.until("the log says so", |node| {
        node.control.activity().state.auth_failures().any(|failure| failure.identity.is_none())
    })
    .await;
}

/// C9: the recording of a whole link, enrolment included, played again: nothing is kicked, enrolled, recorded.
#[tokio::test]
async fn c9_a_recorded_link_played_again_does_nothing() {
    let node = Node::start_with(|options| options.handshake_deadline = Duration::from_secs(2)).await;
    let mut link = node.enrol(1).await;
    let (control, activity) = (node.control.state().position, node.control.activity().position);
    let mut replay = TcpStream::connect(node.address).await.unwrap();
    replay.write_all(&link.sent).await.unwrap();
    let mut got = Vec::new();
    let _ = soon("closed", replay.read_to_end(&mut got)).await;
    assert!(got.len() <= underpass_wire::noise::REPLY_BYTES, "a reply, and nothing after it");
    link.say(Body::Ping(Ping { nonce: 8 })).await;
    link.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    assert_eq!((node.control.state().position, node.control.activity().position), (control, activity));
}

#[tokio::test]
async fn c10_a_blocked_client_is_kicked_and_can_not_come_back() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    node.execute(ControlCommand::BlockClient { client: link.client, reason: "test".into() }).await;
    assert_eq!(link.expect("kick", kick).await, KickReason::Blocked);
    link.closed().await;
    assert_eq!(TestLink::connect(&node, &key(1), None).await.err(), Some(Refusal::Refused));
    node.execute(ControlCommand::UnblockClient { client: link.client }).await;
    assert!(TestLink::connect(&node, &key(1), None).await.is_ok());
}

/// C13: the strangers push each other out, and nobody else.
#[tokio::test]
async fn c13_strangers_never_push_out_a_client() {
    let node = Node::start_with(|options| options.unauthenticated_max = 8).await;
    let mut link = node.enrol(1).await;
    let mut strangers = Vec::new();
    for _ in 0..64 {
        strangers.push(TcpStream::connect(node.address).await.unwrap());
    }
    // The oldest was pushed out long before its deadline.
    assert!(matches!(soon("pushed out", strangers[0].read(&mut [0; 1])).await, Ok(0) | Err(_)));
    assert!(node.gateway.live().unauthenticated <= 8);
    let other = node.enrol(2).await;
    link.say(Body::Ping(Ping { nonce: 1 })).await;
    link.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    assert_eq!(node.gateway.links(), 2);
    drop(other);
}

#[tokio::test]
async fn c14_a_second_link_replaces_the_first_at_once() {
    let node = Node::start().await;
    let mut first = node.enrol(1).await;
    let began = Instant::now();
    let second = node.link(1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(first.expect("kick", kick).await, KickReason::Replaced);
    assert_eq!(first.closed().await, None);
    let live = node.gateway.live();
    assert_eq!(live.links.len(), 1);
    assert_eq!(live.links[0].session, second.session);
    let present = node.control.present(second.client).await.unwrap();
    assert_eq!(present.session, second.session, "the old link's end does not take the new one's presence");
}

/// C14: the old link leads nowhere: its client does not read, and some six megabytes wait for it, more than the
/// kernel takes.
#[tokio::test]
async fn c14_a_black_holed_link_does_not_hold_up_its_successor() {
    let node = Node::start().await;
    let mut black_hole = node.enrol(1).await;
    for port in 1..=100 {
        node.expose(
            black_hole.client,
            &format!("{}.example:{port}", "long".repeat(15)),
            MappingOptions::default(),
        )
        .await;
    }
    for number in 0..300_u32 {
        let mut id = vec![0; 12];
        id.extend_from_slice(&number.to_be_bytes());
        black_hole.say(Body::Command(Command { id, request: Some(Request::List(ListMappings {})) })).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let agent = support::Agent::start(node.link(1).await, &node.tasks);
    let target = echo(&node.tasks).await;
    let mapping = node.expose(agent.client, &target, MappingOptions::default()).await;
    let tunnel = node.gateway.open(mapping, caller(), bytes::Bytes::new()).await;
    assert!(tunnel.is_ok(), "{tunnel:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let last = black_hole.closed().await;
    assert!(!matches!(last, Some(Body::Kick(_))), "it really was stuck: no farewell got through");
}

// C15
#[tokio::test]
async fn c15_a_silent_client_is_noticed_and_its_presence_goes() {
    let node = Node::start_with(|options| {
        options.ping_every = Duration::from_millis(100);
        options.ping_timeout = Duration::from_millis(600);
    })
    .await;
    let mut link = node.enrol(1).await;
    link.expect("a ping of the node", |body| matches!(body, Body::Ping(_)).then_some(())).await;
    assert!(node.control.present(link.client).await.is_some());
    link.closed().await;
    node.until("the link is gone", |node| node.gateway.links() == 0).await;
    soon("presence is gone", async {
        while node.control.present(link.client).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// C4: the answer names the kind, and the link goes on.
#[tokio::test]
async fn c4_an_unknown_kind_is_answered_and_the_link_goes_on() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    // Lane 1, first chunk, three bytes in all: field 99, empty.
    link.say_chunk(&[1, 1, 0, 0, 0, 3, 0x9a, 0x06, 0x00]).await;
    let kind = link
        .expect("unsupported", |body| match body {
            Body::Unsupported(Unsupported { kind }) => Some(kind),
            _ => None,
        })
        .await;
    assert_eq!(kind, 99);
    link.say(Body::Ping(Ping { nonce: 3 })).await;
    link.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn what_only_nodes_say_ends_the_link() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    link.say(Body::Kick(underpass_wire::link::Kick::default())).await;
    assert_eq!(link.expect("kick", kick).await, KickReason::Protocol);
    link.closed().await;
}

#[tokio::test]
async fn a_session_is_in_the_log_from_its_beginning_to_its_end() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    let session = link.session;
    assert!(node.control.activity().state.session(session).is_some_and(|session| session.closed.is_none()));
    link.close().await;
    node.until("closed in the log", |node| {
        node.control.activity().state.session(session).is_some_and(|session| session.closed.is_some())
    })
    .await;
    // What the gateway wrote can't be written again.
    let again = ActivityCommand::CloseSession { session, reason: "again".into() };
    let _ = node.control.record(&Caller::new(Actor::System), again).await;
    let view = node.control.activity();
    let reason = view.state.session(session).and_then(|session| session.closed.clone()).unwrap().1;
    assert_eq!(reason, "closed by client");
}

#[tokio::test]
async fn a_client_that_is_disconnected_may_come_back() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    assert!(node.gateway.disconnect(link.client, "test"));
    assert_eq!(link.expect("kick", kick).await, KickReason::Disconnected);
    link.closed().await;
    node.until("gone", |node| node.gateway.links() == 0).await;
    assert!(!node.gateway.disconnect(link.client, "test"));
    assert!(TestLink::connect(&node, &key(1), None).await.is_ok());
}
