//! Several nodes on one store, and followers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use underpass_domain::Position;
use underpass_eventlog::{ExecuteError, LogError};

use crate::support::{Do, Fault, Node, Scripted, Tally, World};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_one_node_writes_the_other_shows() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    assert_eq!(one.log.id(), two.log.id());
    let head = one.add(1, 5).await.unwrap().head;
    assert!(two.log.wait_for(head, SOON).await);
    assert_eq!(two.log.view(), one.log.view());
    let head = two.add(1, 6).await.unwrap().head;
    assert!(one.log.wait_for(head, SOON).await);
    assert_eq!(one.log.view().state.sums[&1], 11);
    assert!(one.log.verify().await.unwrap().ok);
    assert!(!one.log.wait_for(head.next(), Duration::from_millis(1)).await);
}

/// A watch that never rings costs time: at most until the next look at the head.
#[tokio::test(start_paused = true)]
async fn a_node_whose_watch_is_dead_follows_all_the_same() {
    let store = Scripted::deaf();
    let world = World::on(store);
    let (one, two) = (world.node().await, world.node().await);
    for _ in 0..3 {
        let head = one.add(1, 5).await.unwrap().head;
        assert!(two.log.wait_for(head, SOON).await);
    }
}

/// Answers are about the head, also where nothing is written: what another node has acknowledged is seen.
#[tokio::test]
async fn a_node_that_is_behind_decides_at_the_head() {
    let store = Scripted::deaf();
    let world = World::on(store);
    let far = |options: &mut underpass_eventlog::LogOptions| options.poll_every = Duration::from_hours(1);
    let one: Node = world.open(far).await.unwrap();
    let two: Node = world.open(far).await.unwrap();
    tokio::task::yield_now().await;
    one.add(1, 5).await.unwrap();
    assert_eq!(two.log.view().position, Position(1), "it has not heard of it");
    let already = two.execute(Do::Ensure { account: 1, sum: 5 }).await.unwrap();
    assert_eq!((already.positions, already.head), (None, Position(2)));
    one.add(1, crate::support::SUM_MAX - 5).await.unwrap();
    assert!(matches!(two.add(1, 1).await, Err(ExecuteError::Refused(_))));
    one.add(2, 1).await.unwrap();
    assert_eq!(two.add(3, 1).await.unwrap().head, Position(5), "a conflict, then decided again");
}

#[tokio::test]
async fn a_repeat_on_another_node_gets_the_first_answer() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    let meta = one.meta();
    let command = Do::Add { account: 1, amount: 5 };
    let first = one.log.execute(meta.clone(), command.clone()).await.unwrap();
    let again = two.log.execute(meta, command).await.unwrap();
    assert!(again.repeated && again.positions == first.positions && again.events == first.events);
    assert_eq!(world.frames().await.len(), 2);
}

/// Rules over the whole log hold on many nodes: of many who want the last one, one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_nodes_one_gets_the_last() {
    let world = World::new();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(world.node().await);
    }
    nodes[0].add(1, crate::support::SUM_MAX - 1).await.unwrap();
    let mut racing = tokio::task::JoinSet::new();
    for node in &nodes {
        for _ in 0..10 {
            let (log, meta) = (node.log.clone(), node.meta());
            racing.spawn(async move { log.execute(meta, Do::Add { account: 1, amount: 1 }).await });
        }
    }
    let answers = racing.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(ExecuteError::Refused(_)))));
}

/// Losing again and again ends in an answer.
#[tokio::test(start_paused = true)]
async fn who_always_comes_second_is_told_so() {
    let store = Scripted::new();
    let world = World::on(store.clone());
    let one = world.node().await;
    let other = Arc::new(World::on(store.inner()).node().await);
    store.plan((0..40).map(|_| {
        let other = Arc::clone(&other);
        let first = Box::pin(async move { drop(other.add(2, 1).await.unwrap()) });
        Fault::After(Box::new(move || first))
    }));
    assert!(matches!(one.add(1, 1).await, Err(ExecuteError::Contended)));
    assert!(!other.log.view().state.sums.contains_key(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_every_event_once_and_in_order() {
    let world = World::new();
    let (one, two) = (world.node().await, world.node().await);
    for _ in 0..50 {
        one.add(1, 1).await.unwrap();
    }
    let mut following = tokio::task::JoinSet::new();
    for (node, after) in [(&one, 0_u64), (&two, 0), (&one, 17), (&two, 51), (&two, 400)] {
        let mut follower = node.log.follow(Position(after));
        following.spawn(async move {
            let mut seen = Vec::new();
            while seen.last() != Some(&651) {
                // Impatient: each wait is given up and begun anew now and then.
                if let Ok(event) = tokio::time::timeout(Duration::from_micros(200), follower.next()).await {
                    seen.push(event.unwrap().position.0);
                }
            }
            assert_eq!(seen, (after + 1..=651).collect::<Vec<_>>());
        });
    }
    let write = async |node: &Node| {
        for round in 0..100 {
            let events = if round % 10 == 0 { 12 } else { 2 };
            node.execute(Do::Burst { account: 1, events, bytes: 3 }).await.unwrap();
        }
    };
    tokio::join!(write(&one), write(&two));
    tokio::time::timeout(SOON, following.join_all()).await.unwrap();
}

#[tokio::test]
async fn a_follower_of_a_closed_log_gives_all_there_is_and_ends() {
    let world = World::new();
    let node = world.node().await;
    node.add(1, 1).await.unwrap();
    let mut follower = node.log.follow(Position(0));
    node.close().await;
    assert_eq!(follower.next().await.unwrap().position, Position(1));
    assert_eq!(follower.next().await.unwrap().position, Position(2));
    assert!(matches!(follower.next().await, Err(LogError::Closed { .. })));
}

/// What one client did and saw: where it stands in the log, and when it began and ended.
#[derive(Clone, Copy, Debug)]
struct Done {
    began: u64,
    ended: u64,
    /// An append stands at its position; a read right behind the head that it saw.
    place: (u64, bool),
}

/// There is one order of all operations, the log's. It must agree with real time: what had ended before
/// another began comes first.
fn check(history: &[Done]) {
    let mut appended: Vec<u64> =
        history.iter().filter(|done| !done.place.1).map(|done| done.place.0).collect();
    let count = appended.len();
    appended.sort_unstable();
    appended.dedup();
    assert_eq!(appended.len(), count, "two appends at one position");
    for first in history {
        for second in history.iter().filter(|second| first.ended < second.began) {
            assert!(first.place <= second.place, "{first:?} had ended before {second:?} began");
        }
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let at = |began, ended, place| Done { began, ended, place };
    check(&[at(0, 1, (2, false)), at(2, 3, (2, true)), at(4, 5, (3, false))]);
    check(&[at(0, 9, (3, false)), at(1, 2, (2, false))]);
    for wrong in [
        [at(0, 1, (3, false)), at(2, 3, (2, false))],
        [at(0, 1, (3, false)), at(2, 3, (2, true))],
        [at(0, 1, (3, true)), at(2, 3, (3, false))],
        [at(0, 9, (3, false)), at(1, 2, (3, false))],
    ] {
        assert!(std::panic::catch_unwind(|| check(&wrong)).is_err(), "{wrong:?}");
    }
}

/// 50 histories of 5 clients x 100 operations, on two nodes whose commits fail in every way now and
/// then.
#[tokio::test(start_paused = true)]
async fn appends_and_reads_are_linearizable() {
    for seed in 0..50_u64 {
        let store = Scripted::taking_turns(seed);
        let world = World::on(store.clone());
        let nodes = [world.node().await, world.node().await];
        let time = Arc::new(AtomicU64::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..5_u64 {
            let node = &nodes[usize::from(client % 2 == 0)];
            let log = node.log.clone();
            let metas: Vec<_> = (0..100).map(|_| node.meta()).collect();
            let (time, store) = (Arc::clone(&time), store.clone());
            clients.spawn(async move {
                let account = u8::try_from(client).unwrap();
                let mut history = Vec::new();
                for (step, meta) in metas.into_iter().enumerate() {
                    let chance = (seed * 31 + client * 7 + step as u64 * 13) % 23;
                    store.plan(match chance {
                        0 => Some(Fault::Done),
                        1 => Some(Fault::NotDone),
                        2 => Some(Fault::Unavailable),
                        _ => None,
                    });
                    let read = chance.is_multiple_of(3);
                    let ensure = Do::Ensure { account, sum: 0 };
                    let command = if read { ensure } else { Do::Add { account, amount: 1 } };
                    let began = time.fetch_add(1, Ordering::SeqCst);
                    // Until the outcome is known: the same id again.
                    let answer = loop {
                        match log.execute(meta.clone(), command.clone()).await {
                            Err(
                                ExecuteError::Indeterminate { .. }
                                | ExecuteError::Unavailable { .. }
                                | ExecuteError::Contended,
                            ) => {}
                            answer => break answer.unwrap(),
                        }
                    };
                    let ended = time.fetch_add(1, Ordering::SeqCst);
                    let place = match answer.positions {
                        Some((position, _)) => (position.0, false),
                        None => (answer.head.0, true),
                    };
                    assert_eq!(place.1, read);
                    history.push(Done { began, ended, place });
                }
                history
            });
        }
        let history: Vec<Done> = clients.join_all().await.concat();
        assert_eq!(history.len(), 500);
        check(&history);

        let appends = history.iter().filter(|done| !done.place.1).count() as u64;
        let verified = nodes[0].log.verify().await.unwrap();
        assert!(verified.ok && verified.events == appends + 1, "{verified:?}: each once");
        for node in nodes {
            assert!(node.log.wait_for(verified.head, SOON).await);
            let view = node.log.view();
            assert_eq!(view.state.sums.values().sum::<u64>(), appends);
            assert_eq!(view.hash, verified.hash);
            node.stop().await;
        }
        let again: Node<Tally> = world.node().await;
        assert_eq!(again.log.view().hash, verified.hash);
    }
}
