//! What is written: commands as users and nodes give them, each of which is carried out.

use underpass_domain::{
    ActivityCommand, ActivityState, Aggregate, ClientId, ControlCommand, ControlState, IngressRequest,
    MappingId, MappingOptions, NodeId, OptionsChange, PublicKey, SessionId, Target,
};

/// A run of commands in lanes. What one lane asks for never depends on another lane, so that lanes can be
/// written at once; within a lane, order matters.
pub trait Story<A: Aggregate>: Sync {
    /// The next command of `lane` out of `lanes`; `step` counts from 0.
    fn command(&self, lane: u64, lanes: u64, step: u64) -> A::Command;
}

/// Mappings that come, change, are switched off and on, and go. After the first commands there are always about
/// as many: `mappings` of them, ten to a client, half of them with public ports.
///
/// Each command makes one event.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Mappings at a time.
    pub mappings: u64,
}

/// Mappings of one client.
const PER_CLIENT: u64 = 10;
/// The first public port, and how many there are.
const PORTS: (u16, u64) = (10_000, 50_000);
/// Events in the life of one mapping.
const LIFE: u64 = 6;

impl Control {
    /// Clients it has.
    pub fn clients(&self) -> u64 {
        self.mappings.div_ceil(PER_CLIENT)
    }

    /// What makes client `number` known. All of these come before everything else.
    pub fn enrol(number: u64) -> ControlCommand {
        let mut key = [0x51; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        ControlCommand::EnrolClient {
            client: client(number),
            public_key: PublicKey(key),
            name: format!("machine-{number}"),
            platform: "linux x86_64 0.1.0".to_owned(),
            invite_hash: None,
            open_enrolment: true,
        }
    }

    /// What makes mapping number `slot`, for the `life`th time.
    pub fn create(&self, slot: u64, life: u64) -> ControlCommand {
        let target = client(slot / PER_CLIENT);
        let ingress = if slot.is_multiple_of(2) && slot / 2 < PORTS.1 {
            let port = PORTS.0 + u16::try_from(slot / 2).unwrap_or(0);
            IngressRequest::Port { port: Some(port) }
        } else {
            let listener = client((slot / PER_CLIENT + 1) % self.clients());
            let port = 10_000 + u16::try_from(slot % PER_CLIENT).unwrap_or(0);
            IngressRequest::Client { client: listener, listen: ([127, 0, 0, 1], port).into() }
        };
        ControlCommand::CreateMapping {
            mapping: mapping(slot, life),
            owner: None,
            name: Some(format!("service-{slot}")),
            ingress,
            target: Target { client: target, address: "127.0.0.1:3000".to_owned() },
            options: MappingOptions::default(),
            ports: (1, u16::MAX),
            adopt: false,
        }
    }
}

impl Story<ControlState> for Control {
    fn command(&self, lane: u64, lanes: u64, step: u64) -> ControlCommand {
        let slots = (self.mappings / lanes).max(1);
        let (pass, slot) = (step / slots, lane + lanes * (step % slots));
        let mapping = mapping(slot, pass / LIFE);
        let change = |target_address, options| ControlCommand::ChangeMapping {
            mapping,
            name: None,
            target_address,
            options,
        };
        match pass % LIFE {
            0 => self.create(slot, pass / LIFE),
            1 => change(None, OptionsChange { max_connections: Some(Some(100)), ..OptionsChange::default() }),
            2 => ControlCommand::DisableMapping { mapping },
            3 => ControlCommand::EnableMapping { mapping },
            4 => change(Some("127.0.0.1:8080".to_owned()), OptionsChange::default()),
            _ => ControlCommand::RemoveMapping { mapping },
        }
    }
}

/// Usage of mappings, and now and then a client that links itself anew.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Mappings with traffic.
    pub mappings: u64,
}

/// One in so many commands is about a session.
const SESSION_EVERY: u64 = 20;

impl Story<ActivityState> for Activity {
    fn command(&self, lane: u64, lanes: u64, step: u64) -> ActivityCommand {
        let number = lane + lanes * step;
        if step.is_multiple_of(SESSION_EVERY) {
            return ActivityCommand::OpenSession {
                session: SessionId::from_bytes(bytes(3, number, 0)),
                client: client(lane + lanes * (step / SESSION_EVERY % 16)),
                node: NodeId::from_bytes([0x6e; 16]),
                address: ([192, 0, 2, 7], 40_000).into(),
                transport: "tcp".to_owned(),
                release: Some("0.1.0".to_owned()),
            };
        }
        ActivityCommand::RecordUsage {
            mapping: mapping(number % self.mappings, 0),
            bytes_in: 1_000 + number % 100_000,
            bytes_out: 20_000 + number % 1_000_000,
            tunnels: 1 + number % 7,
            refused: 0,
        }
    }
}

fn client(number: u64) -> ClientId {
    ClientId::from_bytes(bytes(1, number, 0))
}

fn mapping(number: u64, life: u64) -> MappingId {
    MappingId::from_bytes(bytes(2, number, life))
}

/// Like ids that were drawn: nothing in their order tells who belongs to whom.
fn bytes(kind: u8, number: u64, life: u64) -> [u8; 16] {
    let spread = (number ^ (life << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    let mut bytes = [0; 16];
    bytes[0] = kind;
    bytes[1..8].copy_from_slice(&spread.to_be_bytes()[..7]);
    bytes[8..].copy_from_slice(&(number | life << 40).to_be_bytes());
    bytes
}
