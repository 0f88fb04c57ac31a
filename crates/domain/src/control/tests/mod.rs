//! Rules as sentences: given what happened, when a command comes, then this follows.

mod clients;
mod codes;
mod difference;
mod expiry;
mod invites;
mod mappings;
mod properties;
mod rest;

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::aggregate::Subject;
use crate::events::v1;
use crate::ids::{ClientId, CodeId, CommandId, InviteId, KeyId, MappingId, NodeId};
use crate::meta::{Actor, Position};
use crate::text::{Digest32, PublicKey};
use crate::time::Timestamp;
use crate::{Aggregate, DomainEvent};

const START: Timestamp = Timestamp(1_767_225_600_000);
const PORTS: (u16, u16) = (20_000, 20_009);
const MINUTE: Duration = Duration::from_mins(1);

/// A log that is decided and folded as a real one is.
#[derive(Clone, Debug)]
struct Story {
    state: ControlState,
    now: Timestamp,
    history: Vec<(ControlEvent, EventMeta)>,
}

impl Story {
    fn new() -> Self {
        let mut story = Self { state: ControlState::default(), now: START, history: Vec::new() };
        story.record(Actor::System, vec![ControlState::genesis(LogId([1; 16]))]);
        story
    }

    /// With so many clients, from `client(1)` on.
    fn with_clients(count: u8) -> Self {
        let mut story = Self::new();
        for number in 1..=count {
            story.done(Actor::Operator, enrol(number, None));
        }
        story
    }

    fn record(&mut self, actor: Actor, events: Vec<ControlEvent>) {
        for event in events {
            let position = Position(self.history.len() as u64 + 1);
            let at = EventMeta { position, recorded_at: self.now, actor, source: None };
            self.state.evolve(&event, &at);
            self.history.push((event, at));
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now = self.now.plus(time);
        self
    }

    fn decide(&self, actor: Actor, command: &ControlCommand) -> Result<Decision<ControlEvent>, Refusal> {
        let meta = Meta {
            id: CommandId([0; 16]),
            actor,
            source: None,
            correlation: None,
            causation: None,
            now: self.now,
        };
        self.state.decide(&meta, command)
    }

    fn execute(&mut self, actor: Actor, command: &ControlCommand) -> Result<Decision<ControlEvent>, Refusal> {
        let decision = self.decide(actor, command)?;
        self.record(actor, decision.events.clone());
        Ok(decision)
    }

    /// Given that this was done.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn done(&mut self, actor: Actor, command: ControlCommand) -> Decision<ControlEvent> {
        match self.execute(actor, &command) {
            Ok(decision) => decision,
            Err(refusal) => panic!("{command:?} is refused: {refusal}"),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn when(&mut self, actor: Actor, command: ControlCommand) -> When {
        When(self.execute(actor, &command))
    }
}

/// What a command led to.
struct When(Result<Decision<ControlEvent>, Refusal>);

impl When {
    #[track_caller]
    fn then(self, names: &[&str]) -> Decision<ControlEvent> {
        match self.0 {
            Ok(decision) => {
                let happened: Vec<_> = decision.events.iter().map(DomainEvent::name).collect();
                assert_eq!(happened, names);
                decision
            }
            Err(refusal) => panic!("refused: {refusal}"),
        }
    }

    #[track_caller]
    fn then_already(self, subject: impl Into<Subject>) {
        let decision = self.then(&[]);
        assert_eq!(decision.subject, subject.into());
    }

    #[track_caller]
    fn then_refused(self, code: &str) -> Refusal {
        match self.0 {
            Ok(decision) => panic!("not refused: {decision:?}"),
            Err(refusal) => {
                assert_eq!(refusal.code(), code, "{refusal}");
                refusal
            }
        }
    }
}

fn client(number: u8) -> ClientId {
    ClientId::from_bytes([number; 16])
}

fn acting(number: u8) -> Actor {
    Actor::Client(client(number))
}

fn mapping(number: u8) -> MappingId {
    MappingId::from_bytes([number; 16])
}

fn code(number: u8) -> CodeId {
    CodeId::from_bytes([number; 16])
}

fn invite(number: u8) -> InviteId {
    InviteId::from_bytes([number; 16])
}

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn listen(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn enrol(number: u8, invite_hash: Option<Digest32>) -> ControlCommand {
    ControlCommand::EnrolClient {
        client: client(number),
        public_key: PublicKey([number; 32]),
        name: format!("host-{number}"),
        platform: "linux".into(),
        invite_hash,
        open_enrolment: invite_hash.is_none(),
    }
}

fn issue_invite(number: u8, expires_at: Timestamp) -> ControlCommand {
    ControlCommand::IssueInvite {
        invite: invite(number),
        secret_hash: Digest32([number; 32]),
        expires_at,
        label: None,
    }
}

/// A public port of `of` for its port 3000.
fn expose(number: u8, of: u8, name: Option<&str>, port: Option<u16>) -> ControlCommand {
    ControlCommand::CreateMapping {
        mapping: mapping(number),
        owner: None,
        name: name.map(Into::into),
        ingress: IngressRequest::Port { port },
        target: Target { client: client(of), address: "3000".into() },
        options: MappingOptions::default(),
        ports: PORTS,
        adopt: false,
    }
}

/// The same, as the verb `expose` sends it.
fn expose_again(number: u8, of: u8, name: Option<&str>, asked: Option<u16>) -> ControlCommand {
    let mut command = expose(number, of, name, asked);
    if let ControlCommand::CreateMapping { adopt, .. } = &mut command {
        *adopt = true;
    }
    command
}

fn ending(mut command: ControlCommand, at: Timestamp) -> ControlCommand {
    if let ControlCommand::CreateMapping { options, .. } | ControlCommand::IssueCode { options, .. } =
        &mut command
    {
        options.expires_at = Some(at);
    }
    command
}

fn share(number: u8, of: u8, now: Timestamp) -> ControlCommand {
    ControlCommand::IssueCode {
        code: code(number),
        client: client(of),
        lookup: format!("code-{number}"),
        redeem_hash: Digest32([number; 32]),
        target: "22".into(),
        activate_until: now.plus(10 * MINUTE),
        access_s: 3600,
        options: MappingOptions::default(),
    }
}

fn redeem(number: u8, by: u8, becoming: u8) -> ControlCommand {
    ControlCommand::RedeemCode {
        lookup: format!("code-{number}"),
        proof_hash: Digest32([number; 32]),
        client: client(by),
        mapping: mapping(becoming),
        listen: listen(2000 + u16::from(becoming)),
    }
}

fn remove(number: u8) -> ControlCommand {
    ControlCommand::RemoveMapping { mapping: mapping(number) }
}
