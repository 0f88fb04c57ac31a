//! One node on a store that fails.

use underpass_domain::Position;
use underpass_eventlog::{ExecuteError, Fence};
use underpass_store::{Key, KvStore, Revision, Store};

use crate::support::{Do, Fault, Node, Scripted, World};

async fn world() -> (World, Scripted, Node) {
    let store = Scripted::new();
    let world = World::on(store.clone());
    let node = world.node().await;
    (world, store, node)
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_of_the_store_is_waited_out() {
    let (_world, store, node) = world().await;
    store.plan([Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    assert_eq!(node.add(1, 5).await.unwrap().head, Position(2));
    assert!(node.log.verify().await.unwrap().ok);
}

#[tokio::test(start_paused = true)]
async fn a_long_one_is_an_answer_and_nothing_was_written() {
    let (world, store, node) = world().await;
    store.plan((0..8).map(|_| Fault::Unavailable));
    assert!(matches!(node.add(1, 5).await, Err(ExecuteError::Unavailable { .. })));
    assert_eq!(world.frames().await.len(), 1);
    assert_eq!(node.add(1, 5).await.unwrap().head, Position(2), "and then it goes on");
    assert_eq!(node.log.view().state.sums[&1], 5);
}

/// The hardest case: it was done, and the store couldn't say so. The identical commit, sent again, meets
/// itself.
#[tokio::test(start_paused = true)]
async fn a_commit_that_happened_unnoticed_is_not_done_twice() {
    for faults in [
        vec![Fault::Done],
        vec![Fault::NotDone],
        vec![Fault::NotDone, Fault::Done],
        vec![Fault::Done, Fault::Unavailable],
        vec![Fault::Done, Fault::NotDone, Fault::NotDone],
    ] {
        let (world, store, node) = world().await;
        store.plan(faults);
        let answer = node.add(1, 5).await.unwrap();
        assert_eq!((answer.head, answer.repeated), (Position(2), false));
        assert_eq!(node.log.view().state.sums[&1], 5);
        assert_eq!(world.frames().await.len(), 2);
        assert_eq!(node.add(1, 5).await.unwrap().head, Position(3), "the state is at the head again");
        assert!(node.log.verify().await.unwrap().ok);
    }
}

/// While the outcome was unknown, another node was first. The commit id at the position tells.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_that_lost_is_decided_again() {
    let (world, store, node) = world().await;
    let other = World::on(store.inner()).node().await;
    let first = Box::pin(async move { assert_eq!(other.add(1, 100).await.unwrap().head, Position(2)) });
    store.plan([Fault::NotDone, Fault::After(Box::new(move || first))]);
    let answer = node.add(1, 5).await.unwrap();
    assert_eq!(answer.head, Position(3));
    assert_eq!(node.log.view().state.sums[&1], 105);
    assert_eq!(world.frames().await.len(), 3);
}

/// It was done, unnoticed; then another node went on. Ours is found behind it.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_that_won_is_found_behind_what_came_after() {
    let (world, store, node) = world().await;
    let other = World::on(store.inner()).node().await;
    let after = Box::pin(async move {
        assert!(other.log.wait_for(Position(2), std::time::Duration::from_mins(1)).await);
        assert_eq!(other.add(1, 100).await.unwrap().head, Position(3));
    });
    store.plan([Fault::Done, Fault::After(Box::new(move || after))]);
    let answer = node.add(1, 5).await.unwrap();
    assert_eq!(answer.positions, Some((Position(2), Position(2))));
    assert_eq!(node.log.view().state.sums[&1], 105);
    assert_eq!(world.frames().await.len(), 3);
}

/// If it can't be found out, the answer says so, and the same id sent again finds out.
#[tokio::test(start_paused = true)]
async fn what_stays_unknown_is_called_unknown_and_a_repeat_clears_it_up() {
    for happened in [true, false] {
        let (world, store, node) = world().await;
        let first = if happened { Fault::Done } else { Fault::NotDone };
        store.plan([first].into_iter().chain((0..7).map(|_| Fault::NotDone)));
        let meta = node.meta();
        let command = Do::Add { account: 1, amount: 5 };
        let answer = node.log.execute(meta.clone(), command.clone()).await;
        assert!(matches!(answer, Err(ExecuteError::Indeterminate { .. })), "{answer:?}");

        let again = node.log.execute(meta, command).await.unwrap();
        assert_eq!((again.repeated, again.positions), (happened, Some((Position(2), Position(2)))));
        assert_eq!(node.log.view().state.sums[&1], 5);
        assert_eq!(world.frames().await.len(), 2);
    }
}

/// C69: a node whose lease entry is gone, or another's, writes nothing.
#[tokio::test]
async fn a_node_without_its_lease_writes_nothing() {
    let store = Scripted::new();
    let key = Key::from("presence/node");
    let revision = store.put(&key, "mine".into()).await.unwrap();
    let world = World::on(store.clone());
    let fence = Some(Fence { key: key.clone(), revision });
    let node: Node = world.open(|options| options.fence.clone_from(&fence)).await.unwrap();
    node.add(1, 1).await.unwrap();
    node.log.set_fence(Some(Fence { key: key.clone(), revision: Revision(revision.0 + 1000) }));
    assert!(matches!(node.add(1, 1).await, Err(ExecuteError::Fenced)));
    node.log.set_fence(fence);
    store.delete(&key).await.unwrap();
    assert!(matches!(node.add(1, 1).await, Err(ExecuteError::Fenced)));
    assert_eq!(world.frames().await.len(), 2);

    let revision = store.put(&key, "mine again".into()).await.unwrap();
    node.log.set_fence(Some(Fence { key, revision }));
    assert_eq!(node.add(1, 1).await.unwrap().head, Position(3));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_the_start_is_waited_for_a_little() {
    let store = Scripted::new();
    store.plan([Fault::Unavailable, Fault::Done, Fault::NotDone]);
    let world = World::on(store);
    let node = world.node().await;
    assert_eq!(node.log.view().position, Position(1));
    assert_eq!(world.frames().await.len(), 1);
}

/// A log that is damaged while it runs stops the node instead of going on.
#[tokio::test]
async fn a_head_that_turns_into_something_else_stops_the_node() {
    let (world, store, node) = world().await;
    let head = underpass_eventlog::keys::head(underpass_domain::LogName::Control);
    let store: &dyn Store = &store;
    store.put(&head, "something else".into()).await.unwrap();
    node.fatal.cancelled().await;
    assert!(matches!(node.add(1, 1).await, Err(ExecuteError::Closed)));
    assert_eq!(world.frames().await.len(), 1);
}
