//! A log that is folded twice: whole, and from later positions on, as by nodes that start behind a cut.

use super::*;
use crate::activity::state::Bounds;
use crate::maps::Map;

/// Bounds that are reached after a few events.
pub(super) const SMALL: Bounds = Bounds { closed_per_client: 2, closed: 4, usage: 3, failures: 2 };

/// A fold that has seen nothing before a position.
struct Late {
    from: Position,
    state: ActivityState,
    /// Whether a carry that began at `from` or later was finished: from there on it must be right.
    whole: bool,
    /// Whether it was noted since that everything before `from` is gone.
    trimmed: bool,
}

pub(super) struct World {
    pub(super) state: ActivityState,
    bounds: Bounds,
    pub(super) position: u64,
    pub(super) now: Timestamp,
    late: Vec<Late>,
    /// How often a late fold was compared with the whole one.
    pub(super) compared: usize,
}

impl World {
    pub(super) fn new(bounds: Bounds) -> Self {
        let mut world = Self {
            state: ActivityState::default(),
            bounds,
            position: 0,
            now: Timestamp(1_767_225_600_000),
            late: Vec::new(),
            compared: 0,
        };
        world.append(&ActivityState::genesis(LogId([1; 16])));
        world
    }

    /// Lets a node start that sees only what comes from here on.
    pub(super) fn start_late(&mut self) {
        let from = Position(self.position).next();
        self.late.push(Late { from, state: ActivityState::default(), whole: false, trimmed: false });
    }

    pub(super) fn decide(
        &self,
        actor: Actor,
        command: &ActivityCommand,
    ) -> Result<Decision<ActivityEvent>, ActivityRefusal> {
        let (id, now) = (CommandId([0; 16]), self.now);
        let meta = Meta { id, actor, source: None, correlation: None, causation: None, now };
        self.state.decide(&meta, command)
    }

    /// What a node asks for. The names of the events that came of it.
    pub(super) fn tried(&mut self, command: &ActivityCommand) -> Result<Vec<&'static str>, ActivityRefusal> {
        let events = self.decide(Actor::System, command)?.events;
        for event in &events {
            self.append(event);
        }
        Ok(events.iter().map(DomainEvent::name).collect())
    }

    pub(super) fn done(&mut self, command: &ActivityCommand) -> Vec<&'static str> {
        self.tried(command).unwrap()
    }

    pub(super) fn all(&mut self, commands: impl IntoIterator<Item = ActivityCommand>) {
        for command in commands {
            self.done(&command);
        }
    }

    /// Everything that the running carry has not said, and its end.
    pub(super) fn finish(&mut self) -> Position {
        let steps = self.state.running_carry().unwrap().left / 2 + 1;
        self.all((0..steps).map(|_| ActivityCommand::Carry { limit: 2 }));
        self.done(&ActivityCommand::FinishCarry);
        self.state.finished_carries().next_back().unwrap().started
    }

    /// A node that sees only what comes from the carry on, which begins now.
    pub(super) fn cut_and_start(&mut self) {
        self.start_late();
        self.done(&ActivityCommand::StartCarry);
    }

    pub(super) fn note_trimmed(&mut self, until: Position) {
        self.done(&ActivityCommand::NoteTrimmed { until, hash: Digest32([7; 32]) });
    }

    fn append(&mut self, event: &ActivityEvent) {
        self.position += 1;
        self.now = self.now.plus(Duration::from_secs(1));
        let at = EventMeta {
            position: Position(self.position),
            recorded_at: self.now,
            actor: Actor::System,
            source: None,
            stream_version: 1,
        };
        self.state.apply_within(event, &at, &self.bounds);
        for late in &mut self.late {
            late.state.apply_within(event, &at, &self.bounds);
            match event {
                ActivityEvent::CarryFinished(event) if event.started >= late.from => late.whole = true,
                ActivityEvent::LogTrimmed(event) if event.until.next() >= late.from => late.trimmed = true,
                _ => {}
            }
        }
        self.compare(event.name());
    }

    fn compare(&mut self, after: &str) {
        for late in self.late.iter().filter(|late| late.whole) {
            // What was carried before the cut is known to the whole fold alone until the trimming is noted.
            let expected = if late.trimmed { self.state.clone() } else { seen_from(late.from, &self.state) };
            let state = if late.trimmed { late.state.clone() } else { seen_from(late.from, &late.state) };
            let (from, at) = (late.from, self.position);
            assert_eq!(state, expected, "seen from {from}, at {at} after {after}");
            self.compared += 1;
        }
    }
}

fn seen_from(from: Position, state: &ActivityState) -> ActivityState {
    let mut state = state.clone();
    let kept = state.finished_carries().filter(|carry| carry.started >= from);
    let mut finished = Map::default();
    for carry in kept {
        finished.insert_mut(carry.finished, *carry);
    }
    state.carries.finished = finished;
    (state.carries.trimmed, state.carries.whole_from) = (Position(0), Position(0));
    state
}

pub(super) fn mapping(number: u64) -> MappingId {
    MappingId::from_bytes(u128::from(number).to_be_bytes())
}

pub(super) fn usage(of: u64, bytes_in: u64) -> ActivityCommand {
    let (bytes_out, tunnels, refused) = (2 * bytes_in, 1, 0);
    ActivityCommand::RecordUsage { mapping: mapping(of), bytes_in, bytes_out, tunnels, refused }
}

pub(super) fn failure(number: u8) -> ActivityCommand {
    ActivityCommand::RecordAuthFailure {
        address: IpAddr::from([192, 0, 2, number]),
        identity: number.is_multiple_of(2).then_some(PublicKey([number; 32])),
        reason: format!("wrong {number}"),
    }
}
