//! Whatever happens before, during and after carries: who began behind a cut knows what all others know.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::late::{SMALL, World, failure, usage};
use super::*;

/// What is asked for next, out of a small world in which the bounds are reached.
#[derive(Clone, Debug)]
enum Step {
    Command(ActivityCommand),
    /// A node starts that sees only what comes from here on.
    Late,
    /// A carry begins, and a node that sees only what comes from it on.
    Start,
    /// The log is noted as trimmed right before the newest finished carry but so many.
    Trim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        6 => (1..16_u64, 1..4_u64).prop_map(|(number, of)| open(number, of)),
        6 => (1..16_u64).prop_map(close),
        2 => (1..16_u64).prop_map(|number| ActivityCommand::ExpireSession { session: session(number) }),
        10 => (1..7_u64, 1..9_u64).prop_map(|(of, bytes)| usage(of, bytes)),
        3 => (0..9_u8).prop_map(failure),
        14 => (1..4_usize).prop_map(|limit| ActivityCommand::Carry { limit }),
        8 => Just(ActivityCommand::FinishCarry),
    ];
    prop_oneof![
        49 => command.prop_map(Step::Command),
        1 => Just(Step::Late),
        3 => Just(Step::Start),
        1 => (0..3_usize).prop_map(Step::Trim),
    ]
}

fn torture() -> u32 {
    std::env::var("TORTURE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[test]
fn a_fold_from_any_carry_on_is_the_fold_of_everything() {
    let (carries, compared, trims) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let forgotten = AtomicUsize::new(0);
    let cases = 400 * torture();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(step(), 1..250), |steps| {
        let mut world = World::new(SMALL);
        for step in steps {
            let left = world.state.running_carry().map(|carry| carry.left);
            match step {
                Step::Late => world.start_late(),
                Step::Start => world.cut_and_start(),
                Step::Trim(back) => {
                    let carry = world.state.finished_carries().rev().nth(back).copied();
                    let until = carry.map(|carry| Position(carry.started.0 - 1));
                    if let Some(until) = until.filter(|until| *until > world.state.trimmed()) {
                        world.note_trimmed(until);
                        trims.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Step::Command(command) => {
                    // Most commands of a random story are refused now and then.
                    let events = world.tried(&command).unwrap_or_default();
                    carries.fetch_add(usize::from(events == ["carry.finished"]), Ordering::Relaxed);
                    // What was left and is neither said nor left was forgotten.
                    let said = events.iter().filter(|name| name.ends_with(".carried")).count();
                    let now = world.state.running_carry().map(|carry| carry.left + said);
                    if let (Some(left), Some(now)) = (left, now) {
                        prop_assert!(now <= left, "a carry does not grow");
                        forgotten.fetch_add(left - now, Ordering::Relaxed);
                    }
                }
            }
        }
        compared.fetch_add(world.compared, Ordering::Relaxed);
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{found}");
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = (count(&carries), count(&compared), count(&trims), count(&forgotten));
    println!("carries, comparisons, trims, forgotten amid a carry: {counts:?}");
    // Otherwise the story told nothing.
    let cases = cases as usize;
    assert!(
        counts.0 > cases && counts.1 > 20 * cases && counts.2 > cases / 8 && counts.3 > cases,
        "{counts:?}"
    );
}
