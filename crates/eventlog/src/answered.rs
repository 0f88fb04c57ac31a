//! Commands that were carried out, remembered so that a repeat gets the first answer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use underpass_domain::{Meta, Position, Subject, Timestamp};

use crate::codes::{self, Tagged};
use crate::fold::positioned;
use crate::frame::Frame;
use crate::record::{Asked, Content};

/// How long a command is remembered: longer than any client keeps trying.
pub const REMEMBERED_FOR: Duration = Duration::from_hours(24);
/// How many positions back commands are remembered: some 20 MB of memory at most. Counted in positions,
/// not commands, so that it is the same before and after a restart.
pub const REMEMBERED_POSITIONS: u64 = 100_000;

/// A command id, scoped by its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommandKey {
    actor: Tagged,
    id: [u8; 16],
}

impl CommandKey {
    pub(crate) fn of(meta: &Meta) -> Self {
        Self { actor: codes::from_actor(meta.actor), id: meta.id.0 }
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) content: Content,
    pub(crate) first: Position,
    pub(crate) last: Position,
    pub(crate) subject: Subject,
    recorded_at: Timestamp,
}

/// The commands that are remembered, oldest first in `order`.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    answers: HashMap<CommandKey, Answer>,
    order: VecDeque<(CommandKey, Position)>,
}

impl Answered {
    /// What became of a command, if it is remembered.
    pub(crate) fn get(&self, key: &CommandKey, now: Timestamp, head: Position) -> Option<&Answer> {
        self.answers.get(key).filter(|answer| is_remembered(answer, now, head))
    }

    /// Remembers the commands of a frame.
    pub(crate) fn note(&mut self, frame: &Frame) {
        let mut open: Option<(CommandKey, Asked, Position)> = None;
        for (position, record) in positioned(frame) {
            if let Some(asked) = record.asked {
                self.close(frame, open.take(), Position(position.0 - 1));
                let key = CommandKey { actor: codes::from_actor(record.actor), id: record.command.0 };
                open = Some((key, asked, position));
            }
        }
        self.close(frame, open, frame.last());
    }

    fn close(&mut self, frame: &Frame, open: Option<(CommandKey, Asked, Position)>, last: Position) {
        let Some((key, Asked { content, subject }, first)) = open else { return };
        let recorded_at = frame.header.recorded_at;
        self.answers.insert(key, Answer { content, first, last, subject, recorded_at });
        self.order.push_back((key, first));
    }

    /// Forgets what is too old or too far back.
    pub(crate) fn forget(&mut self, now: Timestamp, head: Position) {
        while let Some((key, first)) = self.order.front() {
            // An id that was used again after it had been forgotten has a newer answer by now.
            if let Some(answer) = self.answers.get(key).filter(|answer| answer.first == *first) {
                if is_remembered(answer, now, head) {
                    return;
                }
                self.answers.remove(key);
            }
            self.order.pop_front();
        }
    }
}

fn is_remembered(answer: &Answer, now: Timestamp, head: Position) -> bool {
    now.since(answer.recorded_at) < REMEMBERED_FOR
        && head.0 - answer.first.0.min(head.0) < REMEMBERED_POSITIONS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use underpass_domain::{Actor, CommandId, Digest32, LogName, MappingId, NodeId, PAYLOAD_CODEC, StreamId};

    use super::*;
    use crate::frame::{CommitId, FrameBuilder, FrameHeader};
    use crate::record::Record;

    const SUBJECT: MappingId = MappingId::from_bytes([7; 16]);

    /// A frame of commands, each with so many events.
    fn frame(first: u64, recorded_at: u64, commands: &[(u8, usize)]) -> Frame {
        let mut frame = FrameBuilder::new(&FrameHeader {
            log: LogName::Control,
            codec: PAYLOAD_CODEC,
            epoch: 1,
            first: Position(first),
            commit: CommitId([0; 16]),
            recorded_at: Timestamp(recorded_at),
            node: NodeId::from_bytes([0; 16]),
            previous: Digest32([0; 32]),
        });
        for &(command, events) in commands {
            for index in 0..events {
                let asked = Asked { content: [command; 16], subject: Subject::Mapping(SUBJECT) };
                frame.push(&Record {
                    kind: 1,
                    version: 1,
                    stream: StreamId::LOG,
                    stream_version: 1,
                    command: CommandId([command; 16]),
                    actor: Actor::Operator,
                    source: None,
                    causation: None,
                    correlation: None,
                    asked: (index == 0).then_some(asked),
                    payload: Bytes::new(),
                });
            }
        }
        Frame::decode(&frame.finish().unwrap().0).unwrap()
    }

    fn key(command: u8) -> CommandKey {
        CommandKey { actor: codes::from_actor(Actor::Operator), id: [command; 16] }
    }

    #[test]
    fn each_command_of_a_frame_has_its_own_positions() {
        let mut answered = Answered::default();
        answered.note(&frame(10, 0, &[(1, 1), (2, 3), (3, 2)]));
        let positions = |command| {
            let answer = answered.get(&key(command), Timestamp(0), Position(15)).unwrap();
            assert_eq!((answer.content, answer.subject), ([command; 16], Subject::Mapping(SUBJECT)));
            (answer.first.0, answer.last.0)
        };
        assert_eq!([positions(1), positions(2), positions(3)], [(10, 10), (11, 13), (14, 15)]);
        assert_eq!(answered.get(&key(4), Timestamp(0), Position(15)), None);
    }

    #[test]
    fn memory_is_bounded_by_time_and_by_positions() {
        let day = u64::try_from(REMEMBERED_FOR.as_millis()).unwrap();
        let mut answered = Answered::default();
        answered.note(&frame(1, 0, &[(1, 1)]));
        answered.note(&frame(2, 10, &[(2, 1)]));
        answered.forget(Timestamp(day - 1), Position(2));
        assert_eq!(answered.answers.len(), 2);
        assert_eq!(
            answered.get(&key(1), Timestamp(day), Position(2)),
            None,
            "also before it is cleared away"
        );
        answered.forget(Timestamp(day), Position(2));
        assert_eq!((answered.answers.len(), answered.order.len()), (1, 1));
        assert!(answered.get(&key(2), Timestamp(20), Position(REMEMBERED_POSITIONS + 1)).is_some());
        assert!(answered.get(&key(2), Timestamp(20), Position(REMEMBERED_POSITIONS + 2)).is_none());
        answered.forget(Timestamp(20), Position(REMEMBERED_POSITIONS + 2));
        assert_eq!((answered.answers.len(), answered.order.len()), (0, 0));
    }

    #[test]
    fn an_id_that_is_used_again_holds_up_nothing() {
        let day = u64::try_from(REMEMBERED_FOR.as_millis()).unwrap();
        let mut answered = Answered::default();
        answered.note(&frame(1, 0, &[(1, 1)]));
        answered.note(&frame(2, 1, &[(2, 1)]));
        answered.note(&frame(3, day, &[(1, 1)]));
        answered.forget(Timestamp(day + 1), Position(3));
        assert_eq!((answered.answers.len(), answered.order.len()), (1, 1));
        assert_eq!(
            answered.get(&key(1), Timestamp(day + 1), Position(3)).map(|answer| answer.first.0),
            Some(3)
        );
    }
}
