//! Over the decorators of the storage suite: stores that fail by chance, are far away, or forget.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use underpass_domain::{LogName, Position};
use underpass_eventlog::{ExecuteError, LogError, OpenError, verify};
use underpass_store::testkit::faulty::{Compacting, Flaky, Odds, Slow};
use underpass_store::{MemoryStore, Store};

use crate::support::{Do, Node, World};

/// Every call of a start, of appends, of reads: one in eight fails, half of the writes among them after
/// they were done.
#[tokio::test(start_paused = true)]
async fn on_a_store_that_fails_by_chance_nothing_is_lost_or_doubled() {
    for seed in 0..30 {
        let memory = MemoryStore::new();
        let odds = Odds { unavailable: 70, indeterminate: 60 };
        let world = World::on(Arc::new(Flaky::seeded(memory.clone(), seed, odds)));
        let mut total = 0;
        for _ in 0..4 {
            let node: Node = loop {
                match world.open(|options| options.snapshot_every = 10).await {
                    Ok(node) => break node,
                    Err(OpenError::Unavailable { .. } | OpenError::Contended { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            };
            for amount in 1..=25 {
                let meta = node.meta();
                let done = loop {
                    match node.log.execute(meta.clone(), Do::Add { account: 1, amount }).await {
                        Err(ExecuteError::Unavailable { .. } | ExecuteError::Indeterminate { .. }) => {}
                        answer => break answer.unwrap(),
                    }
                };
                total += amount;
                assert!(done.positions.is_some(), "seed {seed}");
                assert_eq!(node.log.view().state.sums[&1], total, "seed {seed}");
            }
            let mut follower = node.log.follow(Position(0));
            let head = node.log.view().position;
            while follower.position() < head {
                match follower.next().await {
                    Ok(_) | Err(LogError::Unavailable { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            node.close().await;
        }
        let store: Arc<dyn Store> = Arc::new(memory);
        let verified = verify(&store, LogName::Control).await.unwrap();
        assert!(verified.ok && verified.events == 101, "seed {seed}: {verified:?}");
    }
}

/// Far away, what waits while a commit is under way shares the next: the time is that of the commits, not of
/// the commands.
#[tokio::test(start_paused = true)]
async fn on_a_store_far_away_commands_share_commits() {
    let world = World::on(Arc::new(Slow::new(MemoryStore::new(), Duration::from_millis(50))));
    let node = world.node().await;
    let writers = (0..64).map(|account| {
        let node = &node;
        async move {
            for _ in 0..10 {
                node.add(account, 1).await.unwrap();
            }
        }
    });
    join_all(writers).await;
    let frames = world.frames().await.len();
    assert!(frames <= 1 + 2 * 10, "{frames} frames for 640 commands");
    assert!((0..64).all(|account| node.log.view().state.sums[&account] == 10));
    assert!(node.log.verify().await.unwrap().ok);
}

/// Two nodes far from the store. One never stops writing, and knows the head after each commit; the other has
/// to read first each time, and still gets its share.
#[tokio::test(start_paused = true)]
async fn on_a_store_far_away_no_node_starves() {
    let world = World::on(Arc::new(Slow::new(MemoryStore::new(), Duration::from_millis(20))));
    let (one, two) = (world.node().await, world.node().await);
    let write = async |node: &Node, times| {
        for _ in 0..times {
            node.add(1, 1).await.unwrap();
        }
    };
    // As nodes do when they start: so they know of each other.
    write(&one, 1).await;
    write(&two, 1).await;
    assert!(one.log.wait_for(Position(3), Duration::from_secs(10)).await);
    tokio::join!(write(&one, 400), write(&two, 50));
    assert!(two.log.wait_for(Position(453), Duration::from_secs(10)).await);
    assert_eq!(two.log.view().state.sums[&1], 452);
}

#[tokio::test(start_paused = true)]
async fn a_node_goes_on_following_when_its_watch_is_compacted_away() {
    let store = Arc::new(Compacting::new(MemoryStore::new()));
    let world = World::on(Arc::clone(&store));
    let (one, two) = (world.node().await, world.node().await);
    for _ in 0..20 {
        store.compact().await.unwrap();
        let head = one.add(1, 1).await.unwrap().head;
        assert!(two.log.wait_for(head, Duration::from_secs(10)).await);
        store.compact().await.unwrap();
        let head = two.add(1, 1).await.unwrap().head;
        assert!(one.log.wait_for(head, Duration::from_secs(10)).await);
    }
    assert_eq!(one.log.view(), two.log.view());
    assert!(one.log.verify().await.unwrap().ok);
}
