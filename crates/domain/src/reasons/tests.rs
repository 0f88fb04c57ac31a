//! Findings, from what a log holds.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::control::{ControlCommand, IngressRequest, MappingOptions, Scope, Target};
use crate::ids::{CommandId, LogId, NodeId, SessionId};
use crate::meta::{Actor, EventMeta, Meta};
use crate::text::{Digest32, PublicKey};
use crate::{ActivityCommand, ActivityEvent};

const START: Timestamp = Timestamp(1_767_225_600_000);
const MINUTE: std::time::Duration = std::time::Duration::from_mins(1);

fn laptop() -> ClientId {
    ClientId::from_bytes([1; 16])
}

fn other() -> ClientId {
    ClientId::from_bytes([2; 16])
}

fn web() -> MappingId {
    MappingId::from_bytes([3; 16])
}

fn session() -> SessionId {
    SessionId::from_bytes([4; 16])
}

/// Both logs of a small installation: a laptop, another client, and a mapping of the laptop.
struct Known {
    control: ControlState,
    activity: ActivityState,
    now: Timestamp,
    history: Vec<(Position, ControlEvent)>,
    activity_at: u64,
    live: Option<LiveMapping>,
}

impl Known {
    fn new() -> Self {
        let mut known = Self {
            control: ControlState::default(),
            activity: ActivityState::default(),
            now: START,
            history: Vec::new(),
            activity_at: 0,
            live: Some(LiveMapping::default()),
        };
        known.note(vec![ControlState::genesis(LogId([1; 16]))]);
        for (client, name, key) in [(laptop(), "laptop", 1), (other(), "other", 2)] {
            known.done(ControlCommand::EnrolClient {
                client,
                public_key: PublicKey([key; 32]),
                name: name.into(),
                platform: "linux".into(),
                invite_hash: None,
                open_enrolment: true,
            });
        }
        known.done(ControlCommand::CreateMapping {
            mapping: web(),
            owner: None,
            name: Some("web".into()),
            ingress: IngressRequest::Port { port: Some(20_001) },
            target: Target { client: laptop(), address: "127.0.0.1:3000".into() },
            options: MappingOptions { max_connections: Some(2), ..MappingOptions::default() },
            ports: (20_000, 20_009),
            adopt: false,
        });
        known
    }

    fn meta(&self) -> Meta {
        let (id, actor) = (CommandId([0; 16]), Actor::Operator);
        Meta { id, actor, source: None, correlation: None, causation: None, now: self.now }
    }

    fn note(&mut self, events: Vec<ControlEvent>) {
        for event in events {
            let position = Position(self.history.len() as u64 + 1);
            let (recorded_at, actor) = (self.now, Actor::Operator);
            let at = EventMeta { position, recorded_at, actor, source: None, stream_version: 1 };
            self.control.evolve(&event, &at);
            self.history.push((position, event));
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn done(&mut self, command: ControlCommand) -> &mut Self {
        let decision = self.control.decide(&self.meta(), &command).unwrap();
        self.note(decision.events);
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn noted(&mut self, command: ActivityCommand) -> &mut Self {
        let events: Vec<ActivityEvent> = self.activity.decide(&self.meta(), &command).unwrap().events;
        for event in events {
            self.activity_at += 1;
            let at = EventMeta {
                position: Position(self.activity_at),
                recorded_at: self.now,
                actor: Actor::System,
                source: None,
                stream_version: 1,
            };
            self.activity.evolve(&event, &at);
        }
        self
    }

    fn linked(&mut self) -> &mut Self {
        self.noted(ActivityCommand::OpenSession {
            session: session(),
            client: laptop(),
            node: NodeId::from_bytes([9; 16]),
            address: "198.51.100.7:50214".parse().unwrap(),
            transport: "tcp".into(),
            release: Some("0.1.0".into()),
        })
    }

    fn unlinked(&mut self) -> &mut Self {
        self.noted(ActivityCommand::CloseSession { session: session(), reason: "the link broke".into() })
    }

    fn refused(&mut self, reason: &str) -> &mut Self {
        let (address, identity) = ("198.51.100.7".parse().unwrap(), Some(PublicKey([1; 32])));
        self.noted(ActivityCommand::RecordAuthFailure { address, identity, reason: reason.into() })
    }

    fn end(&mut self, client: Option<ClientId>, trouble: LiveTrouble) -> &mut Self {
        let end = LiveEnd { client, trouble: Some(trouble), detail: None };
        self.live.get_or_insert_default().ends = vec![end];
        self
    }

    fn reasons(&self, of: impl Into<StreamId>) -> Option<Reasons> {
        let of = of.into();
        let streams = streams_behind(&self.control, of);
        let behind = self.history.iter().filter(|(_, event)| streams.contains(&event.stream()));
        let history: Vec<_> = behind.cloned().collect();
        let evidence = Evidence {
            state: &self.control,
            activity: &self.activity,
            now: self.now,
            history: &history,
            live: self.live.as_ref(),
        };
        reasons(&evidence, of)
    }

    /// What is found, and the events behind each.
    #[track_caller]
    fn finds(&self, of: impl Into<StreamId>, expected: &[(&str, &str)]) -> Reasons {
        let reasons = self.reasons(of).unwrap();
        let events =
            |finding: &Finding| finding.events.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let found: Vec<_> = reasons.findings.iter().map(|finding| (finding.code, events(finding))).collect();
        let found: Vec<_> = found.iter().map(|(code, events)| (*code, events.as_str())).collect();
        assert_eq!(found, expected, "{reasons:?}");
        reasons
    }
}

#[test]
fn of_a_mapping_that_works_nothing_is_in_the_way() {
    let mut known = Known::new();
    let reasons = known.linked().finds(web(), &[("mapping.answers", "")]);
    assert_eq!((reasons.answers, reasons.name.as_deref()), (Some(true), Some("web")));
}

#[test]
fn all_that_is_in_the_way_of_a_mapping_is_told() {
    let mut known = Known::new();
    known.done(ControlCommand::DisableMapping { mapping: web() });
    known.linked().unlinked();
    let reasons = known.finds(web(), &[("mapping.disabled", "control:5"), ("target.offline", "activity:2")]);
    assert_eq!(reasons.answers, Some(false));
    assert_eq!(reasons.findings[0].hint.as_deref(), Some("take it back: underpass undo 5"));
    assert!(reasons.findings[1].sentence.contains("the target client laptop"), "{reasons:?}");
    assert!(reasons.findings[1].sentence.ends_with("the link broke"), "{reasons:?}");
}

#[test]
fn a_mapping_whose_client_is_blocked_or_was_never_there_does_not_answer() {
    let mut known = Known::new();
    known.finds(web(), &[("target.never_linked", "control:2")]);
    known.linked();
    known.done(ControlCommand::BlockClient { client: laptop(), reason: "stolen".into() });
    let reasons = known.finds(web(), &[("target.blocked", "control:5")]);
    assert!(reasons.findings[0].sentence.contains("stolen"));
}

#[test]
fn what_a_node_and_its_clients_say_of_a_mapping_is_told() {
    let mut known = Known::new();
    known.linked();
    known.end(None, LiveTrouble::PortInUse).finds(web(), &[("port.in_use", "")]);
    known.end(None, LiveTrouble::Failed).finds(web(), &[("port.failed", "")]);
    known.end(Some(laptop()), LiveTrouble::Denied).finds(web(), &[("target.denied", "")]);
    known.end(Some(laptop()), LiveTrouble::Failed).finds(web(), &[("target.failed", "")]);
    known.end(Some(other()), LiveTrouble::PortInUse).finds(web(), &[("listener.port_in_use", "")]);
    known.end(Some(other()), LiveTrouble::Failed).finds(web(), &[("listener.failed", "")]);
    known.live = Some(LiveMapping { ends: Vec::new(), tunnels: 2 });
    known.finds(web(), &[("limit.reached", "")]);
    known.live = None;
    assert_eq!(known.finds(web(), &[("server.stopped", "")]).answers, Some(false));
}

#[test]
fn a_mapping_that_is_gone_says_what_became_of_it() {
    let mut known = Known::new();
    known.done(ControlCommand::RemoveMapping { mapping: web() });
    let reasons = known.finds(web(), &[("mapping.removed", "control:5")]);
    assert_eq!((reasons.answers, reasons.name.as_deref()), (Some(false), Some("web")));
    assert_eq!(known.reasons(MappingId::from_bytes([99; 16])), None, "it never existed");

    let mut known = Known::new();
    let end = START.plus(MINUTE);
    let options = crate::OptionsChange { expires_at: Some(Some(end)), ..crate::OptionsChange::default() };
    known.done(ControlCommand::ChangeMapping { mapping: web(), name: None, target_address: None, options });
    known.linked();
    known.now = end;
    known.finds(web(), &[("mapping.expired", "")]);
    known.done(ControlCommand::ExpireMapping { mapping: web() });
    known.finds(web(), &[("mapping.expired", "control:6")]);
}

#[test]
fn a_client_ingress_needs_both_clients() {
    let mut known = Known::new();
    let id = MappingId::from_bytes([5; 16]);
    known.done(ControlCommand::CreateMapping {
        mapping: id,
        owner: None,
        name: None,
        ingress: IngressRequest::Client { client: other(), listen: "127.0.0.1:2222".parse().unwrap() },
        target: Target { client: laptop(), address: "127.0.0.1:22".into() },
        options: MappingOptions::default(),
        ports: (20_000, 20_009),
        adopt: false,
    });
    known.linked();
    known.finds(id, &[("listener.never_linked", "control:3")]);
    known.done(ControlCommand::BlockClient { client: other(), reason: "x".into() });
    known.finds(id, &[("listener.blocked", "control:6")]);
}

#[test]
fn c8_a_client_learns_why_it_is_not_linked_and_why_it_was_refused() {
    let mut known = Known::new();
    known.finds(laptop(), &[("client.never_linked", "control:2")]);
    known.refused("before its first link").linked().finds(laptop(), &[("client.linked", "")]);
    known.now = known.now.plus(MINUTE);
    known.unlinked();
    known.done(ControlCommand::BlockClient { client: laptop(), reason: "stolen".into() });
    known.now = known.now.plus(MINUTE);
    for _ in 0..5 {
        known.refused("client_1 is blocked");
    }
    let expected = [("client.blocked", "control:5"), ("client.refused", "activity:6 activity:7 activity:8")];
    let reasons = known.finds(laptop(), &expected);
    assert!(reasons.findings[1].sentence.ends_with("is blocked"));
    known.done(ControlCommand::UnblockClient { client: laptop() });
    let expected = [("client.offline", "activity:3"), ("client.refused", "activity:6 activity:7 activity:8")];
    known.finds(laptop(), &expected);
    known.done(ControlCommand::RemoveClient { client: laptop() });
    let expected = [("client.removed", "control:8"), ("client.refused", "activity:6 activity:7 activity:8")];
    assert_eq!(known.finds(laptop(), &expected).name.as_deref(), Some("laptop"));
    assert_eq!(known.reasons(ClientId::from_bytes([99; 16])), None);
}

#[test]
fn a_code_says_what_became_of_it() {
    let mut known = Known::new();
    let codes: Vec<_> = (10..13).map(|number| CodeId::from_bytes([number; 16])).collect();
    for (code, number) in codes.iter().zip(10..) {
        known.done(ControlCommand::IssueCode {
            code: *code,
            client: laptop(),
            lookup: format!("code-{number}"),
            redeem_hash: Digest32([number; 32]),
            target: "22".into(),
            activate_until: START.plus(10 * MINUTE),
            access_s: 3600,
            options: MappingOptions::default(),
        });
    }
    known.finds(codes[0], &[("code.open", "control:5")]);
    known.done(ControlCommand::RevokeCode { code: codes[0] });
    known.finds(codes[0], &[("code.revoked", "control:5 control:8")]);
    known.done(ControlCommand::RedeemCode {
        lookup: "code-11".into(),
        proof_hash: Digest32([11; 32]),
        client: other(),
        mapping: MappingId::from_bytes([7; 16]),
        listen: "127.0.0.1:2222".parse().unwrap(),
    });
    let reasons = known.finds(codes[1], &[("code.redeemed", "control:6 control:9")]);
    assert!(reasons.findings[0].sentence.contains("client other"), "{reasons:?}");
    known.now = START.plus(10 * MINUTE);
    known.finds(codes[2], &[("code.expired", "control:7")]);
    known.done(ControlCommand::ExpireCode { code: codes[2] });
    known.finds(codes[2], &[("code.expired", "control:7 control:11")]);
}

#[test]
fn an_invite_and_a_key_say_what_became_of_them() {
    let mut known = Known::new();
    let end = START.plus(10 * MINUTE);
    let invites: Vec<_> = (10..13).map(|number| InviteId::from_bytes([number; 16])).collect();
    for (invite, number) in invites.iter().zip(10..) {
        let (secret_hash, label) = (Digest32([number; 32]), Some("pi".into()));
        known.done(ControlCommand::IssueInvite { invite: *invite, secret_hash, expires_at: end, label });
    }
    assert_eq!(known.finds(invites[0], &[("invite.open", "control:5")]).name.as_deref(), Some("pi"));
    known.done(ControlCommand::RevokeInvite { invite: invites[0] });
    known.finds(invites[0], &[("invite.revoked", "control:5 control:8")]);
    known.done(ControlCommand::EnrolClient {
        client: ClientId::from_bytes([30; 16]),
        public_key: PublicKey([30; 32]),
        name: "pi".into(),
        platform: "linux".into(),
        invite_hash: Some(Digest32([11; 32])),
        open_enrolment: false,
    });
    let reasons = known.finds(invites[1], &[("invite.used", "control:6 control:10")]);
    assert!(reasons.findings[0].sentence.contains("client pi"), "{reasons:?}");

    let keys: Vec<_> = (1..4).map(|number| KeyId::from_bytes([number; 16])).collect();
    for (key, number) in keys.iter().zip(1..) {
        let (hash, scopes) = (Digest32([number; 32]), vec![Scope::Read]);
        let expires_at = (number == 3).then_some(end);
        known.done(ControlCommand::IssueKey { key: *key, hash, scopes, label: None, expires_at });
    }
    known.finds(keys[0], &[("key.good", "control:11")]);
    known.done(ControlCommand::RevokeKey { key: keys[1] });
    known.finds(keys[1], &[("key.revoked", "control:12 control:14")]);
    known.finds(keys[2], &[("key.good", "control:13")]);
    known.now = end;
    known.finds(keys[2], &[("key.expired", "control:13")]);
    known.finds(invites[2], &[("invite.expired", "control:7")]);
}

#[test]
fn every_finding_is_in_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(root.join("../../docs/findings.md")).unwrap();
    let listed: BTreeSet<_> =
        list.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut codes = BTreeSet::new();
    let sources: Vec<_> = ["clients", "mappings", "secrets"]
        .iter()
        .map(|name| std::fs::read_to_string(root.join(format!("src/reasons/{name}.rs"))).unwrap())
        .collect();
    for text in sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2)) {
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if text.split_once('.').is_some_and(|(noun, what)| word(noun) && word(what)) {
            codes.insert(text);
        }
    }
    assert!(codes.len() > 20, "{codes:?}");
    assert_eq!(codes, listed);
}
