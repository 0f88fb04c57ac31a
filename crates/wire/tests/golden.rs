//! The bytes of `fixtures/wire/`. They say what other releases see: a test that fails here is a change of the
//! protocol. New cases are written by running the tests with `UNDERPASS_BLESS=1`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fmt::Write as _;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use prost::Message;
use underpass_wire::channel::{
    Aead, DataHello, DataRole, Dial, FailReason, Failed, Open, Opened, Protection, encode,
};
use underpass_wire::link::{
    Answer, Applied, Body, ChannelRole, CodeIssued, CodeRedeemed, Command, Desired, DesiredMapping, Done,
    Envelope, ExposeMapping, Failure, FailureClass, GoingAway, Hello, History, IngressKind, IssueCode, Kick,
    KickReason, Lines, LinkMessage, ListMappings, MappingInfo, MappingMade, MappingResult, MappingRole,
    MappingStatus, MappingUsage, Mappings, Outcome, Ping, Pong, RedeemCode, Refused, RemoveMapping, Report,
    Request, ResultStatus, RevokeCode, Seal, SecretBytes, Status, StatusInfo, Subject, Ticket, TicketRequest,
    Tickets, Unsupported, Welcome,
};
use underpass_wire::preamble::{self, Kind};
use underpass_wire::token::{CODE_RANDOM_BYTES, ConnectionCode, Invite};

/// Compares `name hex` lines with the fixture.
#[track_caller]
fn check(file: &str, lines: &[(&str, Vec<u8>)]) {
    let mut found = String::new();
    for (name, bytes) in lines {
        writeln!(found, "{name} {}", HEXLOWER.encode(bytes)).unwrap();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/wire").join(file);
    if std::env::var_os("UNDERPASS_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} differs:\n--- found\n{found}--- expected\n{expected}");
}

#[test]
fn preambles() {
    let line = |kind| preamble::encode(kind).to_vec();
    check(
        "preamble.hex",
        &[("link", line(Kind::Link)), ("data", line(Kind::Data)), ("peer", line(Kind::Peer))],
    );
}

#[test]
fn data_hello() {
    let hello = |role| DataHello::new([1; 16], &[2; 32], &[3; 32], role).to_bytes().to_vec();
    check("data-hello.hex", &[("target", hello(DataRole::Target)), ("caller", hello(DataRole::Caller))]);
}

#[test]
fn channel_messages() {
    let open = Open {
        tunnel: vec![1; 16],
        mapping: vec![2; 16],
        target: "127.0.0.1:22".into(),
        caller: "192.0.2.7:5000".into(),
        protection: Protection::EndToEnd.into(),
        aead: Aead::Aes256Gcm.into(),
        pair: vec![3; 16],
        seq: 7,
        idle_timeout_s: 60,
    };
    let dial = Dial {
        tunnel: vec![1; 16],
        mapping: vec![2; 16],
        caller: "127.0.0.1:5000".into(),
        protection: Protection::NodeSealed.into(),
        aead: Aead::XChaCha20Poly1305.into(),
        pair: vec![],
        seq: 0,
    };
    let failed = Failed {
        tunnel: vec![1; 16],
        reason: FailReason::Refused.into(),
        message: "127.0.0.1:22 refused the connection".into(),
    };
    check(
        "channel-messages.hex",
        &[
            ("open", encode(&open).unwrap()),
            ("opened", encode(&Opened { tunnel: vec![1; 16] }).unwrap()),
            ("failed", encode(&failed).unwrap()),
            ("dial", encode(&dial).unwrap()),
        ],
    );
}

#[test]
fn tokens() {
    let invite = Invite::new(vec!["203.0.113.5:7400".into()], [0xa5; 32], [0x5a; 16]).unwrap();
    let mut random = [0; CODE_RANDOM_BYTES];
    for (index, byte) in random.iter_mut().enumerate() {
        *byte = u8::try_from(index * 7 % 256).unwrap();
    }
    let code = ConnectionCode::generate(&random).unwrap();
    check(
        "tokens.hex",
        &[
            ("invite_text", invite.to_string().into_bytes()),
            ("code_random", random.to_vec()),
            ("code_text", code.to_string().into_bytes()),
            ("code_lookup", code.lookup().into_bytes()),
            ("code_redeem_proof", code.redeem_proof().to_vec()),
            ("code_psk", code.psk().to_vec()),
        ],
    );
}

#[test]
fn link_messages() {
    let lines: Vec<(&str, Vec<u8>)> = bodies()
        .into_iter()
        .map(|(name, body)| (name, LinkMessage { body: Some(body) }.encode_to_vec()))
        .collect();
    check("link-messages.hex", &lines);
}

/// What was written by the release that made the fixtures is still understood.
#[test]
fn stored_link_messages_are_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/wire/link-messages.hex");
    let stored = std::fs::read_to_string(path).unwrap();
    let stored: Vec<_> = stored.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let bodies = bodies();
    assert_eq!(stored.len(), bodies.len());
    for ((name, hex), (expected_name, body)) in stored.into_iter().zip(bodies) {
        assert_eq!(name, expected_name);
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(LinkMessage::decode(&*bytes).unwrap().body, Some(body), "{name}");
    }
}

fn mapping_info() -> MappingInfo {
    MappingInfo {
        id: vec![2; 16],
        name: "web".into(),
        ingress: IngressKind::Port.into(),
        public: "203.0.113.5:20017".into(),
        target: "127.0.0.1:3000".into(),
        target_client: "laptop".into(),
        listen_client: String::new(),
        role: MappingRole::Target.into(),
        status: MappingStatus::Active.into(),
        trouble: String::new(),
        seal: Seal::Auto.into(),
        created_at_ms: 1_763_900_000_000,
        expires_at_ms: Some(1_764_500_000_000),
        max_connections: Some(10),
    }
}

fn command(request: Request) -> Body {
    Body::Command(Command { id: vec![9; 16], request: Some(request) })
}

fn answer(outcome: Outcome) -> Body {
    Body::Answer(Answer { id: vec![9; 16], outcome: Some(outcome) })
}

/// One of each kind, with every field set.
fn bodies() -> Vec<(&'static str, Body)> {
    let mut all = plain_bodies();
    all.extend(command_bodies());
    all.extend(answer_bodies());
    all
}

fn plain_bodies() -> Vec<(&'static str, Body)> {
    let hello = Hello {
        version: "0.1.0".into(),
        name: "laptop".into(),
        platform: "linux/x86_64".into(),
        invite: Some(SecretBytes::from(&[0x5a; 16])),
        aes: true,
    };
    let welcome = Welcome {
        client: vec![1; 16],
        session: vec![2; 16],
        node: vec![3; 16],
        server_version: "0.1.0".into(),
        log_id: vec![4; 16],
        epoch: 1,
        ping_interval_ms: 15_000,
        ping_timeout_ms: 45_000,
        aes: true,
        successor_key: vec![5; 32],
        name: "laptop".into(),
        public_host: "tunnel.example.org".into(),
    };
    let mapping = DesiredMapping {
        id: vec![2; 16],
        name: "web".into(),
        ingress: IngressKind::Client.into(),
        listen: "127.0.0.1:2222".into(),
        port: 20_017,
        target: "127.0.0.1:22".into(),
        target_client: vec![6; 16],
        target_key: vec![7; 32],
        listen_client: vec![8; 16],
        listen_key: vec![9; 32],
        seal: Seal::On.into(),
        max_connections: Some(10),
        idle_timeout_s: Some(600),
        role: MappingRole::Listen.into(),
        code_lookup: "h4xw77pam".into(),
        expires_at_ms: Some(1_764_500_000_000),
    };
    let desired = Desired { log_id: vec![4; 16], epoch: 1, position: 1842, mappings: vec![mapping] };
    let result = MappingResult {
        mapping: vec![2; 16],
        status: ResultStatus::PortInUse.into(),
        message: "127.0.0.1:2222 is in use by another program".into(),
    };
    let tickets = Tickets {
        role: ChannelRole::Target.into(),
        tickets: vec![Ticket { id: vec![1; 16], key: Some(SecretBytes::from(&[2; 32])) }],
    };
    let by_mapping = Envelope {
        peer: vec![6; 16],
        peer_key: vec![7; 32],
        subject: Some(Subject::Mapping(vec![2; 16])),
        payload: b"sealed".to_vec(),
    };
    let by_code = Envelope { subject: Some(Subject::CodeLookup("h4xw77pam".into())), ..by_mapping.clone() };
    let usage =
        MappingUsage { mapping: vec![2; 16], bytes_in: 1000, bytes_out: 2000, tunnels: 3, refused: 1 };
    vec![
        ("hello", Body::Hello(hello)),
        ("welcome", Body::Welcome(welcome)),
        ("refused", Body::Refused(Refused {})),
        ("ping", Body::Ping(Ping { nonce: 7 })),
        ("pong", Body::Pong(Pong { nonce: 7 })),
        ("desired", Body::Desired(desired)),
        ("applied", Body::Applied(Applied { position: 1842, results: vec![result], epoch: 1 })),
        ("ticket_request", Body::TicketRequest(TicketRequest { role: ChannelRole::Caller.into(), count: 4 })),
        ("tickets", Body::Tickets(tickets)),
        ("envelope_mapping", Body::Envelope(by_mapping)),
        ("envelope_code", Body::Envelope(by_code)),
        ("report", Body::Report(Report { usage: vec![usage], parked: 2 })),
        ("going_away", Body::GoingAway(GoingAway { grace_ms: 30_000, message: "restart".into() })),
        ("kick", Body::Kick(Kick { reason: KickReason::Replaced.into(), message: "replaced".into() })),
        ("unsupported", Body::Unsupported(Unsupported { kind: 900 })),
    ]
}

fn command_bodies() -> Vec<(&'static str, Body)> {
    let expose = ExposeMapping {
        name: Some("web".into()),
        port: Some(20_017),
        target: "127.0.0.1:3000".into(),
        seal: Seal::Auto.into(),
        max_connections: Some(10),
        idle_timeout_s: Some(600),
        expires_at_ms: Some(1_764_500_000_000),
        adopt: true,
    };
    let issue = IssueCode {
        lookup: "h4xw77pam".into(),
        redeem_hash: vec![3; 32],
        target: "127.0.0.1:22".into(),
        activation_s: Some(600),
        access_s: Some(604_800),
        max_connections: Some(2),
        idle_timeout_s: Some(3600),
    };
    let redeem = RedeemCode {
        lookup: "h4xw77pam".into(),
        proof: Some(SecretBytes::from(&[4; 32])),
        listen: "127.0.0.1:2222".into(),
    };
    vec![
        ("command_expose", command(Request::Expose(expose))),
        ("command_remove", command(Request::Remove(RemoveMapping { mapping: "web".into() }))),
        ("command_list", command(Request::List(ListMappings {}))),
        ("command_issue_code", command(Request::IssueCode(issue))),
        ("command_redeem_code", command(Request::RedeemCode(redeem))),
        ("command_revoke_code", command(Request::RevokeCode(RevokeCode { code: "h4xw77pam".into() }))),
        ("command_status", command(Request::Status(Status {}))),
        ("command_history", command(Request::History(History { mapping: "web".into(), limit: 50 }))),
        ("command_of_a_later_release", Body::Command(Command { id: vec![9; 16], request: None })),
    ]
}

fn answer_bodies() -> Vec<(&'static str, Body)> {
    let failure = Failure {
        code: "port.taken".into(),
        message: "port 20017 is taken".into(),
        hint: "leave the port out and the server picks a free one".into(),
        class: FailureClass::Conflict.into(),
        retry_after_ms: 500,
    };
    let made = MappingMade { mapping: Some(mapping_info()), adopted: true, position: 1843 };
    let issued = CodeIssued {
        id: vec![5; 16],
        activate_until_ms: 1_763_900_600_000,
        access_s: 604_800,
        position: 1844,
    };
    let redeemed = CodeRedeemed {
        mapping: Some(mapping_info()),
        target_client: vec![6; 16],
        target_key: vec![7; 32],
        position: 1845,
    };
    let status = StatusInfo {
        client: vec![1; 16],
        name: "laptop".into(),
        session: vec![2; 16],
        since_ms: 1_763_900_000_000,
        address: "192.0.2.7:50000".into(),
        node: "node-a".into(),
        server_version: "0.1.0".into(),
        mappings: 3,
        open_codes: 1,
        tunnels: 2,
        position: 1845,
    };
    let lines = Lines { lines: vec![r#"{"type":"mapping.created"}"#.into()], truncated: true };
    vec![
        ("answer_failed", answer(Outcome::Failed(failure))),
        ("answer_done", answer(Outcome::Done(Done { position: 1843 }))),
        ("answer_exposed", answer(Outcome::Exposed(made))),
        ("answer_mappings", answer(Outcome::Mappings(Mappings { mappings: vec![mapping_info()] }))),
        ("answer_code_issued", answer(Outcome::CodeIssued(issued))),
        ("answer_code_redeemed", answer(Outcome::CodeRedeemed(redeemed))),
        ("answer_status", answer(Outcome::Status(status))),
        ("answer_lines", answer(Outcome::Lines(lines))),
    ]
}
