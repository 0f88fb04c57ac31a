//! What stands on the traits doesn't know that it stands on SQLite.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{
    Actor, Aggregate, Clock, CommandId, ControlCommand, ControlState, Meta, NodeId, Position,
};
use underpass_eventlog::{Log, LogOptions, verify};
use underpass_store::Store;
use underpass_store::testkit::{Backend, run};
use underpass_tasks::Tasks;

use crate::fresh;

async fn open(store: &Arc<dyn Store>, clock: &Arc<ManualClock>) -> (Log<ControlState>, Tasks) {
    let tasks = Tasks::new("log", CancellationToken::new());
    let options = LogOptions::new(NodeId::from_bytes([1; 16]));
    let (clock, random) = (Arc::clone(clock), Arc::new(SeededRandom::new(7)));
    (Log::open(Arc::clone(store), options, clock, random, &tasks).await.unwrap(), tasks)
}

#[test]
fn a_log_lives_in_it_across_opening_again() {
    run(async {
        let place = fresh().await.unwrap();
        let clock = Arc::new(ManualClock::default());
        for start in 1..=3_u8 {
            let store = place.open().await;
            let (log, tasks) = open(&store, &clock).await;
            assert_eq!(log.view().position, Position(1 + 10 * u64::from(start - 1)));
            for number in 0..10 {
                let meta = Meta {
                    id: CommandId([start, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                    actor: Actor::Operator,
                    source: None,
                    correlation: None,
                    causation: None,
                    now: clock.now(),
                };
                let node = NodeId::from_bytes([number + 1; 16]);
                let command = ControlCommand::StartNode {
                    node,
                    name: format!("node-{number}"),
                    version: start.to_string(),
                };
                log.execute(meta, command).await?;
            }
            let verified = verify(&store, ControlState::LOG).await?;
            assert!(verified.ok, "{verified:?}");
            assert_eq!(verified.events, 1 + 10 * u64::from(start));
            log.close().await;
            let _ = tasks.drain(Duration::from_secs(10)).await;
            drop(log);
            place.close().await;
        }
        Ok(())
    });
}
