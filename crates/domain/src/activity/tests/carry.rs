//! Carries, case by case. Every event behind a carry compares the fold that saw all with the one that began
//! with the carry: see [`World`].

use super::late::{SMALL, World, failure, mapping, usage};
use super::*;
use crate::activity::state::Bounds;
use crate::limits::{CARRY_BATCH_MAX, FINISHED_CARRIES_MAX};

fn trim(until: u64) -> ActivityCommand {
    ActivityCommand::NoteTrimmed { until: Position(until), hash: Digest32([7; 32]) }
}

#[test]
fn a_link_that_stands_over_the_cut_is_known_behind_it() {
    let mut world = World::new(SMALL);
    world.done(&open(1, 1));
    world.done(&open(2, 2));
    world.cut_and_start();
    world.finish();
    let known = world.state.open_session_of(client(1)).cloned();
    assert_eq!(known.map(|session| session.transport), Some("tcp".into()));
    world.done(&close(1));
    // The other is replaced by a newer link.
    assert_eq!(world.done(&open(3, 2)), ["session.closed", "session.opened"]);
    assert!(world.compared > 2);
}

#[test]
fn a_link_may_end_while_it_is_carried() {
    for ends_after in 0..=3 {
        let mut world = World::new(SMALL);
        world.all((1..=3).map(|number| open(number, number)));
        world.cut_and_start();
        world.all((0..ends_after).map(|_| ActivityCommand::Carry { limit: 1 }));
        world.done(&close(1));
        world.done(&ActivityCommand::ExpireSession { session: session(2) });
        world.finish();
        assert_eq!(world.state.session(session(1)).unwrap().transport, "tcp");
        world.done(&open(4, 1));
        assert!(world.compared >= 2);
    }
}

#[test]
fn closed_sessions_are_kept_and_forgotten_alike() {
    let mut world = World::new(SMALL);
    for number in 1..=6 {
        world.done(&open(number, number % 3));
        world.done(&close(number));
    }
    world.cut_and_start();
    world.done(&ActivityCommand::Carry { limit: 2 });
    // Some that were carried are forgotten, and some that were not.
    for number in 7..=9 {
        world.done(&open(number, number % 3));
        world.done(&close(number));
    }
    world.finish();
    world.done(&open(10, 0));
    world.done(&close(10));
    assert_eq!(world.state.sessions().len(), 4);
}

#[test]
fn an_id_that_comes_again_names_the_newer_session() {
    let mut world = World::new(SMALL);
    for number in 1..=2 {
        world.done(&open(number, 1));
        world.done(&close(number));
    }
    world.cut_and_start();
    // The first is carried, then forgotten where all is known; its id is free.
    world.done(&ActivityCommand::Carry { limit: 1 });
    for number in [3, 1] {
        world.done(&open(number, 1));
        world.done(&close(number));
    }
    world.finish();
    assert_eq!(
        world.state.session(session(1)).unwrap().closed,
        Some((world.now.minus(Duration::from_secs(1)), "done".into()))
    );
    assert_eq!(world.compared, 1);
}

#[test]
fn usage_goes_on_while_it_is_carried() {
    for used_after in 0..=3 {
        let mut world = World::new(SMALL);
        world.all((1..=3).map(|number| usage(number, 100 * number)));
        world.cut_and_start();
        world.all((0..used_after).map(|_| ActivityCommand::Carry { limit: 1 }));
        world.all((1..=3).map(|number| usage(number, 1)));
        world.finish();
        world.done(&usage(2, 5));
        let total = world.state.usage(mapping(2));
        assert_eq!((total.bytes_in, total.bytes_out, total.tunnels), (206, 412, 3));
        assert_eq!(total.last_at, world.now);
    }
}

#[test]
fn a_mapping_that_was_forgotten_after_it_was_carried_counts_from_zero_again() {
    for carried in 0..=3 {
        let mut world = World::new(SMALL);
        world.all((1..=3).map(|number| usage(number, 100)));
        world.cut_and_start();
        world.all((0..carried).map(|_| ActivityCommand::Carry { limit: 1 }));
        // The two used longest ago make room, and come back.
        world.done(&usage(4, 100));
        world.done(&usage(5, 100));
        world.done(&usage(1, 1));
        world.done(&usage(2, 1));
        world.finish();
        assert_eq!(world.state.usage(mapping(1)).bytes_in, 1);
        assert_eq!(world.state.usage(mapping(3)).bytes_in, 0);
    }
}

#[test]
fn failures_keep_their_time_and_their_order() {
    let mut world = World::new(SMALL);
    world.all((1..=2).map(failure));
    world.cut_and_start();
    world.done(&ActivityCommand::Carry { limit: 1 });
    world.done(&failure(3));
    world.finish();
    assert_eq!(world.state.auth_failures_of(PublicKey([2; 32])).count(), 1);
    world.done(&failure(4));
    let kept: Vec<_> = world.state.auth_failures().map(|failure| failure.reason.clone()).collect();
    assert_eq!(kept, ["wrong 3", "wrong 4"]);
}

#[test]
fn a_carry_follows_another_and_the_log_is_cut_behind_either() {
    let mut world = World::new(SMALL);
    world.done(&open(1, 1));
    world.done(&usage(1, 10));
    world.cut_and_start();
    let first = world.finish();
    world.done(&failure(1));
    world.note_trimmed(Position(first.0 - 1));
    let whole_from = world.state.whole_from();
    assert_eq!(whole_from, world.state.finished_carries().next().unwrap().finished);

    world.done(&usage(1, 1));
    world.cut_and_start();
    world.done(&close(1));
    let second = world.finish();
    assert_eq!(world.state.finished_carries().count(), 2);
    assert_eq!(world.tried(&trim(second.0)), Err(ActivityRefusal::TrimUncarried { until: second }));
    world.note_trimmed(Position(second.0 - 1));
    let left: Vec<_> = world.state.finished_carries().map(|carry| carry.started).collect();
    assert_eq!(left, [second]);
    assert_eq!(world.state.trimmed(), Position(second.0 - 1));
    assert!(world.state.whole_from() > whole_from);
    world.done(&open(2, 1));
    world.done(&usage(1, 1));
    assert_eq!(world.state.usage(mapping(1)).bytes_in, 12);
}

#[test]
fn a_carry_that_is_begun_anew_says_all_again() {
    let mut world = World::new(SMALL);
    world.done(&open(1, 1));
    world.done(&usage(1, 10));
    world.done(&ActivityCommand::StartCarry);
    world.done(&ActivityCommand::Carry { limit: 1 });
    assert_eq!(world.state.running_carry().unwrap().left, 1);
    world.cut_and_start();
    let running = world.state.running_carry().unwrap();
    assert_eq!((running.left, running.started), (2, Position(world.position)));
    let said = world.done(&ActivityCommand::Carry { limit: usize::MAX });
    assert_eq!(said, ["usage.carried", "session.carried"]);
    assert_eq!(world.finish(), running.started);
    assert_eq!(world.state.finished_carries().count(), 1);
}

#[test]
fn the_rest_of_a_carry_that_was_given_up_says_nothing() {
    let mut world = World::new(SMALL);
    world.all((1..=3).map(|number| usage(number, 100)));
    world.done(&ActivityCommand::StartCarry);
    world.done(&ActivityCommand::Carry { limit: 1 });
    // The cut may lie a little before the carry, within its frame.
    world.start_late();
    world.done(&ActivityCommand::Carry { limit: 1 });
    world.done(&ActivityCommand::StartCarry);
    world.all([4, 5, 2].map(|number| usage(number, 1)));
    world.finish();
    assert_eq!(world.state.usage(mapping(2)).bytes_in, 1);
    assert_eq!(world.compared, 1);
}

#[test]
fn a_carry_says_everything_once_in_steps_of_a_bounded_size() {
    let mut world = World::new(Bounds { usage: 1000, ..SMALL });
    for number in 0..600 {
        world.done(&usage(number, 1));
    }
    world.done(&open(1, 1));
    world.done(&failure(1));
    world.cut_and_start();
    // What is new since is not said again.
    world.done(&usage(1000, 1));
    world.done(&open(2, 2));
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(world.done(&ActivityCommand::Carry { limit: usize::MAX }).len());
    }
    assert_eq!(steps, [CARRY_BATCH_MAX, CARRY_BATCH_MAX, 602 - 2 * CARRY_BATCH_MAX, 0]);
    world.finish();
    assert_eq!(world.done(&usage(0, 1)), ["usage.recorded"]);
}

#[test]
fn a_carry_is_finished_only_when_all_is_said_and_trimmed_behind_only_when_it_is_finished() {
    let mut world = World::new(SMALL);
    world.done(&usage(1, 1));
    world.done(&failure(1));
    let none = Err(ActivityRefusal::CarryNone);
    assert_eq!(world.tried(&ActivityCommand::Carry { limit: 1 }), none);
    assert_eq!(world.tried(&ActivityCommand::FinishCarry), none);
    world.done(&ActivityCommand::StartCarry);
    let started = world.position;
    let unfinished = |left| Err(ActivityRefusal::CarryUnfinished { left });
    assert_eq!(world.tried(&ActivityCommand::FinishCarry), unfinished(2));
    assert_eq!(world.done(&ActivityCommand::Carry { limit: 0 }), ["usage.carried"]);
    assert_eq!(world.tried(&ActivityCommand::FinishCarry), unfinished(1));
    let until = Position(started - 1);
    assert_eq!(world.tried(&trim(until.0)), Err(ActivityRefusal::TrimUncarried { until }));
    world.finish();
    assert_eq!(world.tried(&ActivityCommand::FinishCarry), none);
    assert_eq!(world.done(&trim(until.0)), ["log.trimmed"]);
    for again in [until.0, until.0 - 1, 0] {
        let refused = ActivityRefusal::TrimNoted { until: Position(again), trimmed: until };
        assert_eq!(world.tried(&trim(again)), Err(refused));
    }
}

#[test]
fn only_nodes_carry_and_clients_never_trim() {
    let world = World::new(SMALL);
    let node = Actor::Node(NodeId::from_bytes([1; 16]));
    for command in
        [ActivityCommand::StartCarry, ActivityCommand::Carry { limit: 1 }, ActivityCommand::FinishCarry]
    {
        for actor in [Actor::Operator, Actor::Client(client(1)), Actor::Key(KeyId::from_bytes([1; 16]))] {
            let refused = world.decide(actor, &command).unwrap_err();
            assert_eq!(refused, ActivityRefusal::Forbidden, "{actor} {command:?}");
        }
        for actor in [Actor::System, node] {
            assert_ne!(world.decide(actor, &command).err(), Some(ActivityRefusal::Forbidden));
        }
    }
    let trims = |actor| world.decide(actor, &trim(1)).unwrap_err();
    assert_eq!(trims(Actor::Client(client(1))), ActivityRefusal::Forbidden);
    for actor in [Actor::System, node, Actor::Operator, Actor::Key(KeyId::from_bytes([1; 16]))] {
        assert_ne!(trims(actor), ActivityRefusal::Forbidden, "{actor}");
    }
}

#[test]
fn the_newest_carry_that_is_old_enough_is_found_and_only_the_last_ones_are_remembered() {
    let mut world = World::new(SMALL);
    let before = world.now;
    let mut started = Vec::new();
    for _ in 0..FINISHED_CARRIES_MAX + 3 {
        world.done(&ActivityCommand::StartCarry);
        started.push(world.finish());
    }
    assert_eq!(world.state.last_carry_before(before), None);
    assert_eq!(world.state.last_carry_before(world.now).map(|carry| carry.started), started.last().copied());
    let kept: Vec<_> = world.state.finished_carries().copied().collect();
    assert_eq!(kept.iter().map(|carry| carry.started).collect::<Vec<_>>(), started[3..]);
    // A carry counts from its end on, not from its beginning.
    let third = kept[2];
    assert!(third.started_at < third.finished_at);
    assert_eq!(world.state.last_carry_before(third.finished_at), Some(third));
    assert_eq!(
        world.state.last_carry_before(third.finished_at.minus(Duration::from_millis(1))),
        Some(kept[1])
    );
}

#[test]
fn a_log_without_a_beginning_has_nothing_to_carry_and_one_that_begins_with_a_carry_has_its_id() {
    let at = EventMeta {
        position: Position(7),
        recorded_at: Timestamp(1),
        actor: Actor::System,
        source: None,
        stream_version: 1,
    };
    let mut state = ActivityState::default();
    let meta = Meta {
        id: CommandId([0; 16]),
        actor: Actor::System,
        source: None,
        correlation: None,
        causation: None,
        now: Timestamp(1),
    };
    assert_eq!(state.decide(&meta, &ActivityCommand::StartCarry), Ok(Decision::already(Subject::None)));
    state.evolve(&v1::CarryStarted { log: LogId([9; 16]) }.into(), &at);
    assert_eq!(state.log_id(), Some(LogId([9; 16])));
}

#[test]
fn a_snapshot_amid_a_carry_goes_on_with_it() {
    let mut world = World::new(SMALL);
    world.done(&usage(1, 1));
    world.done(&open(1, 1));
    world.done(&open(2, 2));
    world.done(&close(2));
    world.done(&failure(1));
    world.done(&ActivityCommand::StartCarry);
    world.done(&ActivityCommand::Carry { limit: 1 });
    let bytes = codec::encode_snapshot(&world.state).unwrap();
    let back: ActivityState = codec::decode_snapshot(&bytes).unwrap();
    assert_eq!(back, world.state);
    assert_eq!(back.running_carry().unwrap().left, 3);
    assert_eq!(codec::encode_snapshot(&back).unwrap(), bytes);
    world.state = back;
    world.finish();
}
