//! The story that must hold on every store, here on memory and on stores that fail now and then.

use std::sync::Arc;
use std::time::Duration;

use underpass_domain::{ControlState, LogName, Position};
use underpass_eventlog::{AsOf, replay_stored, verify};
use underpass_store::testkit::faulty::{Call, Compacting, Fault, Flaky, Odds, Slow};
use underpass_store::{MemoryStore, Store};

use crate::Caller;
use crate::testkit::{Rig, scenario};

#[tokio::test(start_paused = true)]
async fn c62_the_story_holds_on_memory() {
    let view = scenario(Arc::new(MemoryStore::new())).await;
    assert_eq!(view.state.client_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn c62_the_story_ends_the_same_on_stores_that_are_slow_forget_or_leave_commits_in_doubt() {
    let plain = scenario(Arc::new(MemoryStore::new())).await;
    let slow = Slow::new(MemoryStore::new(), Duration::from_millis(20));
    let forgetful = Compacting::new(MemoryStore::new());
    let faults =
        [Fault::IndeterminateDone, Fault::None, Fault::IndeterminateNotDone, Fault::None, Fault::None];
    let doubtful = Flaky::scripted_for(MemoryStore::new(), Call::Commit, faults.repeat(50));
    let stores: [Arc<dyn Store>; 3] = [Arc::new(slow), Arc::new(forgetful), Arc::new(doubtful)];
    for store in stores {
        let name = format!("{store:?}").chars().take(60).collect::<String>();
        let view = scenario(store).await;
        assert_eq!(view.position, plain.position, "{name}");
        assert_eq!(view.state.client_count(), plain.state.client_count(), "{name}");
        assert_eq!(view.state.mappings().count(), plain.state.mappings().count(), "{name}");
        let codes = |state: &ControlState| state.codes().map(|code| code.status).collect::<Vec<_>>().len();
        assert_eq!(codes(&view.state), codes(&plain.state), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_on_a_failing_store_is_there_and_nothing_twice() {
    for seed in 1..=20 {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        // A node that can't open says so; here it is about what follows.
        let mut attempt = 0;
        let rig = loop {
            attempt += 1;
            let odds = Odds { unavailable: 50, indeterminate: 150 };
            let flaky = Arc::new(Flaky::seeded(Arc::clone(&inner), seed * 1_000 + attempt, odds));
            if let Some(rig) = Rig::try_open(flaky).await {
                break rig;
            }
            assert!(attempt < 100, "seed {seed}: it never opens");
        };
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for _ in 0..100 {
            match rig.control.issue_invite(&Caller::operator(), Duration::from_hours(1), None).await {
                Ok(issued) => acknowledged.push(issued.id),
                Err(error) => {
                    assert_eq!(error.code(), "store.unavailable", "{error:?}");
                    refused += 1;
                }
            }
        }
        rig.kill().await;

        let verified = verify(&inner, LogName::Control).await.unwrap();
        assert!(verified.ok, "seed {seed}: {:?}", verified.bad);
        let view = replay_stored::<ControlState>(&inner, AsOf::Position(verified.head)).await.unwrap();
        assert!(verified.head > Position(0));
        for id in &acknowledged {
            assert!(view.state.invite(*id).is_some(), "seed {seed}: {id} is lost");
        }
        let there = view.state.invites().count();
        assert!(there <= acknowledged.len() + refused, "seed {seed}: {there} of {}", acknowledged.len());
    }
}
