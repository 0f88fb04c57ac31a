//! Two clients that meet through a code, with a node in the middle that passes on what it can't read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use underpass_agent::{Agent, AgentEvent, Connect, Connected, EventStream, Share, Verbs};
use underpass_domain::ClientId;
use underpass_pipeline::{Opener, record};
use underpass_relay::Record;
use underpass_wire::channel::{self, Dial, FailReason, Failed, Open, Protection};
use underpass_wire::link::{
    Body, ChannelRole, CodeIssued, CodeRedeemed, DesiredMapping, Envelope, IngressKind, MappingInfo,
    MappingRole, Outcome, Request, Seal,
};

const SHARING: u8 = 1;
const LISTENING: u8 = 2;

/// One end as the node sees it.
struct Side {
    number: u8,
    link: FakeLink,
    tickets: HashMap<[u8; 16], (ChannelRole, [u8; 32])>,
    parked: VecDeque<FakeData>,
}

impl Side {
    fn new(number: u8, link: FakeLink) -> Self {
        Self { number, link, tickets: HashMap::new(), parked: VecDeque::new() }
    }

    async fn issue(&mut self, role: ChannelRole, count: usize) {
        for (id, key) in self.link.ticket(role, count).await {
            self.tickets.insert(id, (role, key));
        }
    }
}

struct Net {
    node: FakeNode,
    sharing: Side,
    listening: Side,
    code: Option<(String, Vec<u8>, String)>,
    mapping: Option<DesiredMapping>,
    /// What was passed on, and how it was asked for.
    opens: Vec<Open>,
    envelopes: usize,
}

impl Net {
    /// Plays the node until `done` is.
    async fn until<T>(&mut self, what: &str, done: impl Future<Output = T>) -> T {
        soon(what, async {
            let mut done = std::pin::pin!(done);
            loop {
                tokio::select! {
                    out = &mut done => return out,
                    body = self.sharing.link.try_recv() => self.said(SHARING, body.expect("the sharing link")).await,
                    body = self.listening.link.try_recv() => self.said(LISTENING, body.expect("the listening link")).await,
                    shown = self.node.data.recv() => {
                        let (hello, stream) = shown.unwrap();
                        for side in [&mut self.sharing, &mut self.listening] {
                            if let Some((_, key)) = side.tickets.remove(&hello.ticket) {
                                side.parked.push_back(FakeData::new(stream, key, &side.link));
                                break;
                            }
                        }
                    }
                }
            }
        })
        .await
    }

    async fn said(&mut self, from: u8, body: Body) {
        match body {
            Body::Envelope(Envelope { peer, subject, payload, .. }) => {
                self.envelopes += 1;
                let expected = client(if from == SHARING { LISTENING } else { SHARING });
                assert_eq!(peer, expected.as_bytes());
                let passed =
                    Envelope { peer: client(from).as_bytes().to_vec(), peer_key: vec![], subject, payload };
                let to = if from == SHARING { &mut self.listening } else { &mut self.sharing };
                to.link.send(Body::Envelope(passed)).await;
            }
            Body::TicketRequest(request) => {
                let side = if from == SHARING { &mut self.sharing } else { &mut self.listening };
                side.issue(ChannelRole::Caller, request.count as usize).await;
            }
            Body::Command(command) => self.asked(from, &command).await,
            _ => {}
        }
    }

    async fn asked(&mut self, from: u8, command: &underpass_wire::link::Command) {
        match request(command) {
            Request::IssueCode(issue) => {
                assert_eq!(from, SHARING);
                self.code = Some((issue.lookup.clone(), issue.redeem_hash.clone(), issue.target.clone()));
                let issued = CodeIssued {
                    id: vec![6; 16],
                    activate_until_ms: 1_767_225_900_000,
                    ..CodeIssued::default()
                };
                self.sharing.link.answer(command, Outcome::CodeIssued(issued)).await;
            }
            Request::RedeemCode(redeem) => {
                assert_eq!(from, LISTENING);
                let (lookup, hash, target) = self.code.clone().expect("a code");
                assert_eq!(redeem.lookup, lookup);
                let proof = redeem.proof.as_ref().unwrap();
                assert_eq!(blake3::hash(proof.expose()).as_bytes(), &hash[..]);
                let sharing_key = self.sharing.link.peer.to_vec();
                let mapping = DesiredMapping {
                    id: mapping(1).as_bytes().to_vec(),
                    name: "shared".into(),
                    ingress: IngressKind::Client.into(),
                    listen: redeem.listen.clone(),
                    target,
                    target_client: client(SHARING).as_bytes().to_vec(),
                    target_key: sharing_key.clone(),
                    listen_client: client(LISTENING).as_bytes().to_vec(),
                    listen_key: self.listening.link.peer.to_vec(),
                    seal: Seal::Auto.into(),
                    code_lookup: lookup,
                    ..DesiredMapping::default()
                };
                self.mapping = Some(mapping.clone());
                let redeemed = CodeRedeemed {
                    mapping: Some(MappingInfo { id: mapping.id.clone(), ..MappingInfo::default() }),
                    target_client: mapping.target_client.clone(),
                    target_key: sharing_key,
                    position: 10,
                };
                self.listening.link.answer(command, Outcome::CodeRedeemed(redeemed)).await;
                self.push(10).await;
            }
            other => panic!("{other:?}"),
        }
    }

    async fn push(&mut self, position: u64) {
        let mapping = self.mapping.clone().expect("a mapping");
        let role = |role: MappingRole| DesiredMapping { role: role.into(), ..mapping.clone() };
        self.sharing.link.desired(position, vec![role(MappingRole::Target)]).await;
        self.listening.link.desired(position, vec![role(MappingRole::Listen)]).await;
    }

    /// The next channel of a side.
    async fn parked(&mut self, number: u8) -> FakeData {
        soon("a parked channel", async {
            loop {
                let side = if number == SHARING { &mut self.sharing } else { &mut self.listening };
                if let Some(data) = side.parked.pop_front() {
                    return data;
                }
                if side.number == SHARING && side.tickets.is_empty() {
                    side.issue(ChannelRole::Target, 1).await;
                }
                // Looks again whenever something happened, and now and then.
                self.until("a tick", tokio::time::sleep(std::time::Duration::from_millis(20))).await;
            }
        })
        .await
    }

    /// Takes the dial of a caller, opens it at the sharing side and passes the answer back.
    async fn join_once(&mut self, caller: &mut FakeData, target: &mut FakeData) -> u8 {
        let dial = self.until("a dial", caller.records.recv(&mut caller.opener)).await.unwrap().unwrap();
        self.answer_dial(&dial, caller, target).await
    }

    /// The same for the next dial on any of the caller channels, old or new: the agent takes which it likes.
    /// Says on which.
    async fn join_any(&mut self, callers: &mut Vec<FakeData>, target: &mut FakeData) -> (usize, u8) {
        let tick = std::time::Duration::from_millis(20);
        soon("a dial on any channel", async {
            loop {
                callers.extend(self.listening.parked.drain(..));
                for (index, caller) in callers.iter_mut().enumerate() {
                    let heard = tokio::time::timeout(tick, caller.records.recv(&mut caller.opener));
                    if let Ok(dial) = self.until("a tick", heard).await {
                        return (index, self.answer_dial(&dial.unwrap().unwrap(), caller, target).await);
                    }
                }
                self.until("a tick", tokio::time::sleep(tick)).await;
            }
        })
        .await
    }

    async fn answer_dial(&mut self, dial: &Record, caller: &mut FakeData, target: &mut FakeData) -> u8 {
        assert_eq!(dial.kind, record::DIAL);
        let dial: Dial = channel::decode(&dial.body).unwrap();
        assert_eq!(dial.protection(), Protection::EndToEnd);
        let open = Open {
            tunnel: dial.tunnel,
            mapping: dial.mapping,
            target: self.mapping.as_ref().unwrap().target.clone(),
            caller: dial.caller,
            protection: dial.protection,
            aead: dial.aead,
            pair: dial.pair,
            seq: dial.seq,
            idle_timeout_s: 0,
        };
        self.opens.push(open.clone());
        let answer = target.open(&open).await;
        caller.send(answer.kind, &answer.body).await;
        answer.kind
    }
}

/// A service that sends back what it gets.
async fn echo(machine: &Machine) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    machine.tasks.spawn_job("echo", |_| async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
        }
        #[allow(unreachable_code)]
        Ok::<_, std::io::Error>(())
    });
    address
}

struct Met {
    net: Net,
    sharing: (Machine, Agent),
    listening: (Machine, Agent),
    connected: Connected,
    code: String,
    target: SocketAddr,
}

async fn start(node: &mut FakeNode, seed: u64, id: ClientId) -> (Machine, Agent, FakeLink) {
    let machine = Machine::new(seed);
    machine.join(node, id).await;
    let agent = machine.start();
    let link = node.welcomed(id).await;
    (machine, agent, link)
}

async fn meet() -> Met {
    let mut node = FakeNode::start().await;
    let (sharing_machine, sharing_agent, sharing_link) = start(&mut node, 1, client(SHARING)).await;
    let (listening_machine, listening_agent, listening_link) = start(&mut node, 2, client(LISTENING)).await;
    let target = echo(&sharing_machine).await;
    let mut net = Net {
        node,
        sharing: Side::new(SHARING, sharing_link),
        listening: Side::new(LISTENING, listening_link),
        code: None,
        mapping: None,
        opens: Vec::new(),
        envelopes: 0,
    };
    let handle = sharing_agent.handle();
    let share = Share { target: target.to_string(), activation: None, access: None };
    let shared = net.until("the share", handle.share(share)).await.unwrap();
    let handle = listening_agent.handle();
    let connect = Connect { code: shared.code.clone(), listen: None };
    let connected = net.until("the connect", handle.connect(connect)).await.unwrap();
    Met {
        net,
        sharing: (sharing_machine, sharing_agent),
        listening: (listening_machine, listening_agent),
        connected,
        code: shared.code,
        target,
    }
}

async fn opened_as(events: &mut EventStream) -> String {
    soon("an opened tunnel", async {
        loop {
            if let AgentEvent::TunnelOpened { sealed, .. } = events.next().await.expect("an event") {
                return sealed;
            }
        }
    })
    .await
}

#[tokio::test]
async fn c32_two_clients_that_met_through_a_code_are_sealed_end_to_end() {
    let mut met = meet().await;
    assert_eq!(met.connected.sealed, "end-to-end");
    assert!(met.connected.listen.ip().is_loopback());
    let mut events = met.sharing.1.handle().events().await.unwrap();

    let mut target = met.net.parked(SHARING).await;
    let mut stream = TcpStream::connect(met.connected.listen).await.unwrap();
    let mut caller = met.net.parked(LISTENING).await;
    assert_eq!(met.net.join_once(&mut caller, &mut target).await, record::OPENED);
    assert_eq!(opened_as(&mut events).await, "end-to-end");

    // What passes the node is not what was written.
    stream.write_all(b"a marker in the payload").await.unwrap();
    let mut unread = Opener::plain();
    let sealed = soon("a record", caller.records.recv(&mut unread)).await.unwrap().unwrap();
    assert_eq!(sealed.kind, record::DATA);
    assert_eq!(sealed.body.len(), b"a marker in the payload".len() + record::TAG_BYTES);
    assert!(!sealed.body.windows(6).any(|window| window == b"marker"));
    let mut as_it_is = underpass_pipeline::Sealer::plain();
    target.records.send(&mut as_it_is, record::DATA, &sealed.body).await.unwrap();
    let back = soon("the echo", target.records.recv(&mut unread)).await.unwrap().unwrap();
    caller.records.send(&mut as_it_is, record::DATA, &back.body).await.unwrap();
    let mut read = [0; 23];
    soon("the bytes", stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"a marker in the payload");

    // A record that came once is refused the second time: the tunnel ends with a reset.
    caller.records.send(&mut as_it_is, record::DATA, &back.body).await.unwrap();
    assert!(soon("the end", stream.read(&mut [0])).await.is_err());

    // A recorded open is refused, too.
    let mut target = met.net.parked(SHARING).await;
    let recorded = met.net.opens[0].clone();
    let answer = target.open(&recorded).await;
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Unsealable);
}

#[tokio::test]
async fn what_was_shared_is_reached_by_its_code_alone() {
    let mut met = meet().await;
    let mut target = met.net.parked(SHARING).await;
    // The server opens the same target by itself: not end to end, so not at all.
    for protection in [Protection::Plain, Protection::NodeSealed] {
        let answer = target.open(&open(1, &met.target.to_string(), protection)).await;
        assert_eq!(answer.kind, record::FAILED, "{protection:?}");
    }
    // And by a mapping of its own.
    met.net.sharing.link.desired(11, vec![offers(7, &met.target.to_string(), Seal::Auto)]).await;
    let answer = target.open(&open(7, &met.target.to_string(), Protection::NodeSealed)).await;
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Denied);
}

/// C32: the server says which mappings are sealed, but not of two clients that met through a code.
#[tokio::test]
async fn c32_a_server_can_not_talk_a_pair_out_of_its_seal() {
    let mut met = meet().await;
    met.net.mapping.as_mut().unwrap().seal = Seal::Off.into();
    met.net.push(11).await;
    loop {
        let body = soon("a message", met.net.listening.link.try_recv()).await.expect("the listening link");
        if matches!(&body, Body::Applied(applied) if applied.position == 11) {
            break;
        }
        met.net.said(LISTENING, body).await;
    }
    let mut target = met.net.parked(SHARING).await;
    let answer = target.open(&open(1, &met.target.to_string(), Protection::Plain)).await;
    assert_eq!(channel::decode::<Failed>(&answer.body).unwrap().reason(), FailReason::Unsealable);
    let _stream = TcpStream::connect(met.connected.listen).await.unwrap();
    let mut caller = met.net.parked(LISTENING).await;
    // The dial itself says how it is sealed: end to end, or not at all.
    assert_eq!(met.net.join_once(&mut caller, &mut target).await, record::OPENED);
}

#[tokio::test]
async fn after_a_restart_of_the_sharing_side_the_pinned_keys_are_enough() {
    let mut met = meet().await;
    let (machine, agent) = met.sharing;
    let _ = agent.shutdown(ONE_SECOND).await;
    let _agent = machine.start();
    met.net.sharing = Side::new(SHARING, met.net.node.welcomed(client(SHARING)).await);
    met.net.push(11).await;
    let before = met.net.envelopes;

    let mut target = met.net.parked(SHARING).await;
    let mut stream = TcpStream::connect(met.connected.listen).await.unwrap();
    let mut callers = vec![met.net.parked(LISTENING).await];
    // The pair of before is not known any more; the two agree on a new one, and it works.
    assert_eq!(met.net.join_any(&mut callers, &mut target).await.1, record::FAILED);
    let (dialled, again) = met.net.join_any(&mut callers, &mut target).await;
    assert_eq!(again, record::OPENED);
    let mut caller = callers.swap_remove(dialled);
    assert_eq!(met.net.envelopes - before, 2, "one question, one answer");
    stream.write_all(b"x").await.unwrap();
    let counters = underpass_relay::Counters::default();
    let options = underpass_relay::Options::default();
    let mut read = [0];
    tokio::select! {
        ended = underpass_relay::forward(&mut caller.records, &mut target.records, &options, &counters) => panic!("{ended:?}"),
        read = soon("the echo", stream.read_exact(&mut read)) => { read.unwrap(); }
    }
    assert_eq!(&read, b"x");
}

#[tokio::test]
async fn the_same_code_again_finds_the_same_mapping_and_address() {
    let mut met = meet().await;
    let handle = met.listening.1.handle();
    let connect = Connect { code: met.code.clone(), listen: None };
    let again = met.net.until("the connect", handle.connect(connect)).await.unwrap();
    assert_eq!(again, met.connected);
    assert!(TcpStream::connect(again.listen).await.is_ok());
    let kept =
        std::fs::read_to_string(met.listening.0.state.path().join(format!("pairs/{}.json", again.mapping)))
            .unwrap();
    assert!(!kept.contains("psk"), "the code's secret half is not kept longer than needed");
}

/// Whoever gives a connect up before it is done leaves no port behind.
#[tokio::test]
async fn a_connect_that_is_given_up_frees_its_port() {
    let (_node, _machine, agent, mut link) = connected(3).await;
    let mut random = [0; underpass_wire::token::CODE_RANDOM_BYTES];
    (0..).zip(&mut random).for_each(|(number, byte): (u8, _)| *byte = number);
    let code = underpass_wire::token::ConnectionCode::generate(&random).unwrap().to_string();
    let listen = free_address().await;
    let handle = agent.handle();
    let connect = handle.connect(Connect { code, listen: Some(listen) });
    tokio::select! {
        done = connect => panic!("nobody answered: {done:?}"),
        _ = link.command() => {}
    }
    TcpListener::bind(listen).await.unwrap();
}

#[tokio::test]
async fn a_changed_key_is_refused_with_a_clear_message() {
    let mut met = meet().await;
    let mut events = met.listening.1.handle().events().await.unwrap();
    // Keys are agreed on already; with another client at the other end they are given up.
    met.net.mapping.as_mut().unwrap().target_key = vec![99; 32];
    met.net.push(11).await;
    met.net.listening.link.applied(11).await;
    let wait = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(met.connected.listen).await {
                let _ = stream.read(&mut [0]).await;
            }
            while let Ok(Some(event)) = tokio::time::timeout(ONE_SECOND / 10, events.next()).await {
                if let AgentEvent::TunnelRefused { code, message, .. } = event
                    && code == "pair.key_changed"
                {
                    return message;
                }
            }
        }
    };
    let message = met.net.until("the refusal", wait).await;
    assert!(message.contains(&client(SHARING).to_string()), "{message}");
}

#[tokio::test]
async fn a_port_in_use_costs_no_code_and_nonsense_is_told_by_its_part() {
    let (_node, _machine, agent, mut link) = connected(1).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let random = [7; underpass_wire::token::CODE_RANDOM_BYTES];
    let code = underpass_wire::token::ConnectionCode::generate(&random).unwrap().to_string();
    let connect = Connect { code: code.clone(), listen: Some(taken.local_addr().unwrap()) };
    let report = agent.handle().connect(connect).await.unwrap_err();
    assert_eq!(report.code, "listen.in_use");
    let report = agent
        .handle()
        .connect(Connect { code: code[..code.len() - 1].into(), listen: None })
        .await
        .unwrap_err();
    assert_eq!((report.code.as_str(), report.class.exit_code()), ("code.invalid", 2));
    let nothing = tokio::time::timeout(ONE_SECOND / 4, async {
        loop {
            if let Some(Body::Command(command)) = link.try_recv().await {
                return command;
            }
        }
    });
    assert!(nothing.await.is_err(), "the server was asked");
}

#[tokio::test]
async fn a_share_that_is_refused_leaves_nothing_behind() {
    let (_node, machine, agent, mut link) = connected(1).await;
    let handle = agent.handle();
    let (shared, ()) =
        tokio::join!(handle.share(Share { target: "22".into(), activation: None, access: None }), async {
            let command = link.command().await;
            let failure = underpass_wire::link::Failure {
                code: "quota.codes".into(),
                message: "too many open codes".into(),
                class: underpass_wire::link::FailureClass::Quota.into(),
                ..underpass_wire::link::Failure::default()
            };
            link.answer(&command, Outcome::Failed(failure)).await;
        });
    let report = shared.unwrap_err();
    assert_eq!((report.code.as_str(), report.class.exit_code()), ("quota.codes", 3));
    let path = machine.state.path();
    assert_eq!(std::fs::read_dir(path.join("codes")).unwrap().count(), 0);
    assert_eq!(std::fs::read_to_string(path.join("shares.json")).unwrap(), "[]");
}

#[tokio::test]
async fn the_code_s_secret_half_never_reaches_the_server() {
    let (_node, _machine, agent, mut link) = connected(1).await;
    let handle = agent.handle();
    let (shared, command) =
        tokio::join!(handle.share(Share { target: "22".into(), activation: None, access: None }), async {
            let command = link.command().await;
            link.answer(
                &command,
                Outcome::CodeIssued(CodeIssued {
                    activate_until_ms: 1_767_225_900_000,
                    ..CodeIssued::default()
                }),
            )
            .await;
            command
        });
    let code = shared.unwrap().code;
    let (_, secret) = code.split_once('.').unwrap();
    let secret: String = secret.chars().filter(|symbol| *symbol != '-').collect();
    let said = format!("{command:?}");
    assert!(!said.contains(&secret[..8]));
    let Request::IssueCode(issue) = request(&command) else { panic!("{command:?}") };
    assert_eq!(issue.redeem_hash.len(), 32);
}
