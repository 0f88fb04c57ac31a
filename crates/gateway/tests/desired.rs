//! What clients are told to serve, and what they may ask for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use underpass_domain::{ClientId, ControlCommand, MappingId, MappingOptions, Seal};
use underpass_gateway::{AppliedState, ListenerState};
use underpass_store::MemoryStore;
use underpass_store::testkit::faulty::Slow;
use underpass_wire::link::{
    Answer, Applied, Body, Command, Desired, Envelope, ExposeMapping, FailureClass, History, IssueCode,
    ListMappings, MappingResult, MappingRole, Outcome, Ping, RedeemCode, RemoveMapping, Request,
    ResultStatus, RevokeCode, SecretBytes, Status, Subject,
};

use support::{Node, TestLink, echo};

async fn desired(link: &mut TestLink) -> Desired {
    link.expect("desired state", |body| match body {
        Body::Desired(desired) => Some(desired),
        _ => None,
    })
    .await
}

/// The desired state with exactly these mappings. Others may come before it.
async fn desired_is(link: &mut TestLink, mappings: &[MappingId]) -> Desired {
    let wanted: BTreeSet<_> = mappings.iter().map(|mapping| mapping.as_bytes().to_vec()).collect();
    let mut position = 0;
    link.expect("these mappings", |body| match body {
        Body::Desired(desired) => {
            assert!(desired.position >= position, "positions never go back");
            position = desired.position;
            let got: BTreeSet<_> = desired.mappings.iter().map(|mapping| mapping.id.clone()).collect();
            (got == wanted).then_some(desired)
        }
        _ => None,
    })
    .await
}

fn options() -> MappingOptions {
    MappingOptions::default()
}

async fn ask(link: &mut TestLink, number: u8, request: Request) -> Outcome {
    link.say(Body::Command(Command { id: vec![number; 16], request: Some(request) })).await;
    answer(link, number).await
}

async fn answer(link: &mut TestLink, number: u8) -> Outcome {
    link.expect("an answer", |body| match body {
        Body::Answer(Answer { id, outcome }) if id == vec![number; 16] => outcome,
        _ => None,
    })
    .await
}

/// The code and the class of a failure.
#[track_caller]
fn failure(outcome: Outcome) -> (String, FailureClass) {
    match outcome {
        Outcome::Failed(failure) => (failure.code.clone(), failure.class()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn c20_a_client_is_told_everything_when_it_connects_and_when_it_is_back() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    assert!(desired(&mut link).await.mappings.is_empty());
    let one = node.expose(link.client, "127.0.0.1:1", options()).await;
    let first = desired_is(&mut link, &[one]).await;
    assert_eq!(first.log_id, link.welcome.log_id);
    drop(link);
    node.until("away", |node| node.gateway.links() == 0).await;
    let client = node.control.state().state.clients().next().unwrap().id;
    let two = node.expose(client, "127.0.0.1:2", options()).await;
    node.execute(ControlCommand::RemoveMapping { mapping: one }).await;
    let mut link = node.link(1).await;
    let back = desired_is(&mut link, &[two]).await;
    assert!(back.position > first.position);
}

/// C19, C21: one more, one less; the others stay in the set, unchanged.
#[tokio::test]
async fn c19_changes_of_one_mapping_leave_the_others_in_the_set() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    let one = node.expose(link.client, "127.0.0.1:1", options()).await;
    let two = node.expose(link.client, "127.0.0.1:2", options()).await;
    let both = desired_is(&mut link, &[one, two]).await;
    let three = node.expose(link.client, "127.0.0.1:3", options()).await;
    let all = desired_is(&mut link, &[one, two, three]).await;
    assert!(both.mappings.iter().all(|mapping| all.mappings.contains(mapping)));
    node.execute(ControlCommand::DisableMapping { mapping: one }).await;
    desired_is(&mut link, &[two, three]).await;
    node.execute(ControlCommand::EnableMapping { mapping: one }).await;
    desired_is(&mut link, &[one, two, three]).await;
    node.execute(ControlCommand::RemoveMapping { mapping: two }).await;
    desired_is(&mut link, &[one, three]).await;
}

#[tokio::test]
async fn c21_an_expired_mapping_is_not_delivered() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    let expires_at = Some(underpass_domain::Timestamp(node.gateway.now().0 + 3_600_000));
    let short = node.expose(link.client, "127.0.0.1:1", MappingOptions { expires_at, ..options() }).await;
    let lasting = node.expose(link.client, "127.0.0.1:2", options()).await;
    desired_is(&mut link, &[short, lasting]).await;
    node.clock.advance(Duration::from_hours(2));
    desired_is(&mut link, &[lasting]).await;
}

/// Only those are told whom a change concerns.
#[tokio::test]
async fn a_change_is_told_to_both_sides_of_a_mapping_and_to_nobody_else() {
    let node = Node::start().await;
    let (mut target, mut listener, mut other) =
        (node.enrol(1).await, node.enrol(2).await, node.enrol(3).await);
    for link in [&mut target, &mut listener, &mut other] {
        assert!(desired(link).await.mappings.is_empty());
    }
    let mapping = node.join(listener.client, target.client, "127.0.0.1:1", Seal::Auto).await;
    let at_target = desired_is(&mut target, &[mapping]).await.mappings.remove(0);
    let at_listener = desired_is(&mut listener, &[mapping]).await.mappings.remove(0);
    assert_eq!((at_target.role(), at_listener.role()), (MappingRole::Target, MappingRole::Listen));
    assert_eq!(at_listener.target_key, support::key(1).public());
    assert_eq!(at_target.listen_key, support::key(2).public());
    other.say(Body::Ping(Ping { nonce: 1 })).await;
    let told = other
        .expect("pong", |body| match body {
            Body::Pong(_) => Some(false),
            Body::Desired(_) => Some(true),
            _ => None,
        })
        .await;
    assert!(!told);
}

/// C22: what a client reports becomes state, and hurts no other mapping.
#[tokio::test]
async fn c22_a_port_in_use_is_state_of_its_mapping() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    let one = node.expose(link.client, "127.0.0.1:1", options()).await;
    let two = node.expose(link.client, "127.0.0.1:2", options()).await;
    let told = desired_is(&mut link, &[one, two]).await;
    let result = |mapping: MappingId, status: ResultStatus| MappingResult {
        mapping: mapping.as_bytes().to_vec(),
        status: status.into(),
        message: "said so".to_owned(),
    };
    let results = vec![result(one, ResultStatus::Denied), result(two, ResultStatus::Offered)];
    let (position, epoch) = (told.position, told.epoch);
    link.say(Body::Applied(Applied { position, epoch, results })).await;
    // An older report comes late and changes nothing.
    link.say(Body::Applied(Applied { position: position - 1, epoch, results: Vec::new() })).await;
    link.say(Body::Ping(Ping { nonce: 1 })).await;
    link.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    let live = node.gateway.live();
    let of = |mapping| live.applied.iter().find(|applied| applied.mapping == mapping).unwrap();
    assert_eq!(of(one).state, AppliedState::Denied);
    assert_eq!(of(two).state, AppliedState::Offered);
    // What somebody says of a mapping that is not theirs is nobody's state.
    let mut stranger = node.enrol(2).await;
    let results = vec![result(one, ResultStatus::Offered)];
    stranger.say(Body::Applied(Applied { position, epoch, results })).await;
    stranger.say(Body::Ping(Ping { nonce: 1 })).await;
    stranger.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    assert!(node.gateway.live().applied.iter().all(|applied| applied.client == link.client));
    node.gateway.report_listener(two, ListenerState::PortInUse);
    assert_eq!(node.gateway.live().listeners[&two], ListenerState::PortInUse);

    let Outcome::Mappings(list) = ask(&mut link, 1, Request::List(ListMappings {})).await else { panic!() };
    let trouble = |id: MappingId| {
        list.mappings.iter().find(|mapping| mapping.id == id.as_bytes()).unwrap().trouble.clone()
    };
    assert!(trouble(one).contains("denied") && trouble(two).contains("in use"), "{list:?}");
}

fn expose(target: &str, port: Option<u32>) -> Request {
    Request::Expose(ExposeMapping {
        target: target.to_owned(),
        port,
        adopt: true,
        ..ExposeMapping::default()
    })
}

#[tokio::test]
async fn a_client_makes_finds_and_removes_its_mappings() {
    let node = Node::start_with(|options| options.public_host = "demo.example".to_owned()).await;
    let (mut link, mut other) = (node.enrol(1).await, node.enrol(2).await);
    let Outcome::Exposed(made) = ask(&mut link, 1, expose("3000", Some(20017))).await else { panic!() };
    let info = made.mapping.clone().unwrap();
    assert_eq!((info.public.as_str(), info.target.as_str()), ("demo.example:20017", "127.0.0.1:3000"));
    assert!(!made.adopted);
    let Outcome::Exposed(again) = ask(&mut link, 2, expose("3000", None)).await else { panic!() };
    assert_eq!(again.mapping.unwrap().id, info.id);
    assert!(again.adopted);
    let taken = ask(&mut other, 3, expose("3000", Some(20017))).await;
    assert_eq!(failure(taken), ("port.taken".to_owned(), FailureClass::Conflict));
    assert_eq!(failure(ask(&mut link, 4, expose("3000", Some(70_000))).await).1, FailureClass::Invalid);

    let text = MappingId::from_bytes(info.id.as_slice().try_into().unwrap()).to_string();
    let remove = |mapping: &str| Request::Remove(RemoveMapping { mapping: mapping.to_owned() });
    assert_eq!(failure(ask(&mut other, 5, remove(&text)).await).1, FailureClass::NotFound, "not its own");
    let history = Request::History(History { mapping: info.name.clone(), limit: 10 });
    let Outcome::Lines(lines) = ask(&mut link, 6, history).await else { panic!() };
    assert!(lines.lines[0].contains("mapping.created") && !lines.truncated, "{lines:?}");
    let Outcome::Status(status) = ask(&mut link, 7, Request::Status(Status {})).await else { panic!() };
    assert_eq!((status.mappings, status.client), (1, link.client.as_bytes().to_vec()));
    assert!(matches!(ask(&mut link, 8, remove(&info.name)).await, Outcome::Done(_)));
    let Outcome::Mappings(left) = ask(&mut link, 9, Request::List(ListMappings {})).await else { panic!() };
    assert!(left.mappings.is_empty());
}

const LOOKUP: &str = "abcdefghj";

fn issue(hash: [u8; 32]) -> Request {
    Request::IssueCode(IssueCode {
        lookup: LOOKUP.to_owned(),
        redeem_hash: hash.to_vec(),
        target: "127.0.0.1:22".to_owned(),
        ..IssueCode::default()
    })
}

fn redeem(proof: [u8; 32]) -> Request {
    Request::RedeemCode(RedeemCode {
        lookup: LOOKUP.to_owned(),
        proof: Some(SecretBytes::from(&proof)),
        listen: "127.0.0.1:0".to_owned(),
    })
}

/// 10.20: a wrong proof does not burn the code, the right one makes a mapping, once for one client.
#[tokio::test]
async fn a_code_joins_two_clients_who_may_then_talk() {
    let node = Node::start().await;
    let (mut offering, mut redeeming, mut late) =
        (node.enrol(1).await, node.enrol(2).await, node.enrol(3).await);
    let proof = [42; 32];
    let hash = underpass_control::hash_secret(&proof).0;
    let Outcome::CodeIssued(code) = ask(&mut offering, 1, issue(hash)).await else { panic!() };
    assert!(code.activate_until_ms > node.gateway.now().0);

    // Before it is redeemed, knowing the public half joins nobody.
    redeeming.say(Body::Envelope(envelope(offering.client, b"too early"))).await;
    assert!(matches!(ask(&mut redeeming, 2, redeem([1; 32])).await, Outcome::Failed(_)), "a guess");
    let Outcome::CodeRedeemed(made) = ask(&mut redeeming, 3, redeem(proof)).await else { panic!() };
    assert_eq!(made.target_client, offering.client.as_bytes());
    assert_eq!(made.target_key, support::key(1).public());
    assert_eq!(failure(ask(&mut late, 4, redeem(proof)).await).0, "code.used");

    late.say(Body::Envelope(envelope(offering.client, b"a stranger"))).await;
    late.say(Body::Ping(Ping { nonce: 1 })).await;
    late.expect("pong", |body| matches!(body, Body::Pong(_)).then_some(())).await;
    redeeming.say(Body::Envelope(envelope(offering.client, b"hello"))).await;
    let got = offering
        .expect("an envelope", |body| match body {
            Body::Envelope(envelope) => Some(envelope),
            _ => None,
        })
        .await;
    assert_eq!(got.payload, b"hello", "nothing of strangers came before it");
    assert_eq!(got.peer, redeeming.client.as_bytes());
    assert_eq!(got.peer_key, support::key(2).public());
    let revoke = Request::RevokeCode(RevokeCode { code: LOOKUP.to_owned() });
    assert!(matches!(ask(&mut late, 5, revoke).await, Outcome::Failed(_)), "not its own");
}

fn envelope(to: ClientId, payload: &[u8]) -> Envelope {
    Envelope {
        peer: to.as_bytes().to_vec(),
        // Nobody believes what a client says of its own key.
        peer_key: vec![9; 32],
        subject: Some(Subject::CodeLookup(LOOKUP.to_owned())),
        payload: payload.to_vec(),
    }
}

/// C16: the store is slow, and with it the command that was sent three times and runs once. Neither a ping nor
/// a command that needs no store waits for it.
#[tokio::test]
async fn c16_a_slow_command_delays_nothing_and_a_repeated_one_runs_once() {
    let store = Arc::new(Slow::new(MemoryStore::new(), Duration::from_millis(100)));
    let node = Node::start_on(store, |_| {}).await;
    let mut link = node.enrol(1).await;
    let before = node.control.state().position;
    let command = |number, request| Body::Command(Command { id: vec![number; 16], request: Some(request) });
    for _ in 0..3 {
        link.say(command(1, expose("3000", None))).await;
    }
    link.say(command(2, Request::List(ListMappings {}))).await;
    link.say(Body::Ping(Ping { nonce: 7 })).await;
    let mut order = Vec::new();
    let made = link
        .expect("the slow answer", |body| match body {
            Body::Pong(_) => {
                order.push("pong");
                None
            }
            Body::Answer(answer) if answer.id == vec![1; 16] => answer.outcome,
            Body::Answer(_) => {
                order.push("list");
                None
            }
            _ => None,
        })
        .await;
    order.sort_unstable();
    assert_eq!(order, ["list", "pong"], "both came before");
    assert!(matches!(made, Outcome::Exposed(_)), "{made:?}");
    link.say(command(1, expose("3000", None))).await;
    assert_eq!(answer(&mut link, 1).await, made);
    assert_eq!(node.control.state().position.0, before.0 + 1, "one event");
}

#[tokio::test]
async fn a_command_that_nobody_knows_is_said_to_be_unknown() {
    let node = Node::start().await;
    let mut link = node.enrol(1).await;
    link.say(Body::Command(Command { id: vec![1; 16], request: None })).await;
    assert_eq!(failure(answer(&mut link, 1).await).1, FailureClass::Unsupported);
    let target = echo(&node.tasks).await;
    assert!(matches!(ask(&mut link, 2, expose(&target, None)).await, Outcome::Exposed(_)));
}

/// C23 in small: a hundred clients, one change each; the last one knows in a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c23_a_change_reaches_a_connected_client_soon() {
    let node = Node::start().await;
    let mut links = Vec::new();
    for number in 1..=100 {
        let mut link = node.enrol(number).await;
        desired(&mut link).await;
        links.push(link);
    }
    let mut slowest = Duration::ZERO;
    for link in &mut links {
        let began = Instant::now();
        let mapping = node.expose(link.client, "127.0.0.1:1", options()).await;
        desired_is(link, &[mapping]).await;
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
