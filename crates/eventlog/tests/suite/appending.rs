//! Commands on one node.

use std::time::Duration;

use futures_util::future::join_all;
use underpass_domain::{Actor, Clock, LogName, Position, Subject};
use underpass_eventlog::{ExecuteError, REMEMBERED_FOR};

use crate::support::{Do, Event, Node, SUM_MAX, TooMuch, World, client};

#[tokio::test]
async fn a_new_log_begins_with_an_event_that_names_it() {
    let world = World::new();
    let node = world.node().await;
    let view = node.log.view();
    assert_eq!((view.position, view.epoch), (Position(1), 1));
    let id = node.log.id().unwrap();
    let events = node.log.read(Position(0), 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].decode::<Event<false>>().unwrap(), Event::Created(id));
    assert_eq!((events[0].actor, events[0].stream_version), (Actor::System, 1));

    node.close().await;
    assert_eq!(world.node().await.log.id(), Some(id), "the id is the log's, not the start's");
}

#[tokio::test]
async fn an_answer_is_in_the_view_and_in_the_store() {
    let world = World::new();
    let node = world.node().await;
    let done = node.add(1, 5).await.unwrap();
    assert_eq!(done.positions, Some((Position(2), Position(2))));
    assert_eq!(done.events, [Event::Added { account: 1, amount: 5 }]);
    assert!(matches!(done.subject, Subject::Mapping(_)) && !done.repeated);
    assert_eq!(node.log.view().state.sums[&1], 5);
    assert_eq!(node.log.view().position, done.head);
    assert_eq!(world.frames().await.len(), 2);
}

/// With one in the queue there is one in the frame; with many there are many: nobody waits for company,
/// and company costs nothing.
#[tokio::test]
async fn commands_that_wait_share_a_commit() {
    let world = World::new();
    let node = world.node().await;
    for _ in 0..5 {
        node.add(0, 1).await.unwrap();
    }
    assert_eq!(world.frames().await.len(), 6, "one by one, each has a frame");

    let answers = join_all((0..200).map(|_| node.add(1, 1))).await;
    assert!(world.frames().await.len() <= 8, "{} frames", world.frames().await.len());
    let mut positions: Vec<u64> = answers.iter().map(|answer| answer.as_ref().unwrap().head.0).collect();
    positions.sort_unstable();
    assert_eq!(positions, (7..207).collect::<Vec<_>>(), "dense, each once");
    assert_eq!(node.log.view().state.sums[&1], 200);
    assert!(node.log.verify().await.unwrap().ok);
}

/// C61 in small: many threads of writers, and everything acknowledged is there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_and_double_nothing() {
    let world = World::new();
    let node = world.node().await;
    let mut writers = tokio::task::JoinSet::new();
    for account in 0..16_u8 {
        let log = node.log.clone();
        let metas: Vec<_> = (0..50).map(|_| node.meta()).collect();
        writers.spawn(async move {
            let mut heads = Vec::new();
            for meta in metas {
                heads.push(log.execute(meta, Do::Add { account, amount: 1 }).await.unwrap().head.0);
            }
            heads
        });
    }
    let mut positions = Vec::new();
    for heads in writers.join_all().await {
        assert!(heads.is_sorted(), "a writer's commands are in the order it gave them");
        positions.extend(heads);
    }
    positions.sort_unstable();
    assert_eq!(positions, (2..=801).collect::<Vec<_>>());
    assert!((0..16).all(|account| node.log.view().state.sums[&account] == 50));
    let frames = world.frames().await.len();
    assert!(frames < 801, "{frames} frames: nobody shared a commit");
    let verified = node.log.verify().await.unwrap();
    assert!(verified.ok && verified.events == 801 && verified.frames == frames as u64, "{verified:?}");
}

#[tokio::test]
async fn commands_of_one_batch_see_each_other() {
    let world = World::new();
    let node = world.node().await;
    node.add(1, SUM_MAX - 10).await.unwrap();
    let answers = join_all([node.add(1, 8), node.add(1, 8), node.add(1, 2), node.add(1, 1)]).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Err(ExecuteError::Refused(TooMuch))));
    assert!(matches!(answers[3], Err(ExecuteError::Refused(TooMuch))));
    assert_eq!(world.frames().await.len(), 3, "they were one batch");
    assert_eq!(node.log.view().state.sums[&1], SUM_MAX);
}

#[tokio::test]
async fn what_is_already_so_is_answered_without_an_event() {
    let world = World::new();
    let node = world.node().await;
    node.add(1, 5).await.unwrap();
    let answer = node.execute(Do::Ensure { account: 1, sum: 4 }).await.unwrap();
    assert_eq!((answer.positions, answer.head, answer.events), (None, Position(2), vec![]));
    assert!(matches!(answer.subject, Subject::Mapping(_)));
    assert_eq!(world.frames().await.len(), 2);
}

/// C16: a repeated command id runs once.
#[tokio::test]
async fn a_repeat_gets_the_first_answer() {
    let world = World::new();
    let node = world.node().await;
    let meta = node.meta();
    let command = Do::Burst { account: 3, events: 3, bytes: 10 };
    let first = node.log.execute(meta.clone(), command.clone()).await.unwrap();
    node.add(3, 1).await.unwrap();
    let again = node.log.execute(meta.clone(), command.clone()).await.unwrap();
    assert!(again.repeated && !first.repeated);
    assert_eq!(
        (again.positions, &again.events, again.subject),
        (first.positions, &first.events, first.subject)
    );
    assert_eq!(again.head, Position(5));

    let other = node.log.execute(meta.clone(), Do::Add { account: 3, amount: 1 }).await;
    assert!(matches!(other, Err(ExecuteError::Conflict)));
    let mut elsewhere = meta.clone();
    elsewhere.actor = client(9);
    let by_another = node.log.execute(elsewhere, command.clone()).await.unwrap();
    assert!(!by_another.repeated, "ids are each actor's own");

    // The same with snapshot and without, after a start.
    for clean in [true, false] {
        let node = world.node().await;
        let again = node.log.execute(meta.clone(), command.clone()).await.unwrap();
        assert!(again.repeated && again.events == first.events && again.positions == first.positions);
        if clean { node.close().await } else { node.stop().await }
    }
}

#[tokio::test]
async fn a_repeat_in_the_same_batch_gets_the_same_answer() {
    let world = World::new();
    let node = world.node().await;
    let meta = node.meta();
    let add = |amount| node.log.execute(meta.clone(), Do::Add { account: 1, amount });
    let answers = join_all([add(7), add(7), add(8)]).await;
    let (first, second) = (answers[0].as_ref().unwrap(), answers[1].as_ref().unwrap());
    assert!(!first.repeated && second.repeated);
    assert_eq!((first.positions, &first.events), (second.positions, &second.events));
    assert!(matches!(answers[2], Err(ExecuteError::Conflict)));
    assert_eq!(node.log.view().state.sums[&1], 7);
}

#[tokio::test]
async fn repeats_are_told_by_what_was_asked_where_the_command_holds_more() {
    let world = World::new();
    let node = world.node().await;
    let meta = node.meta();
    let first = node.log.execute_as(meta.clone(), &"open an account", Do::Add { account: 1, amount: 1 });
    let first = first.await.unwrap();
    let again = node.log.execute_as(meta.clone(), &"open an account", Do::Add { account: 2, amount: 1 });
    assert_eq!(again.await.unwrap().events, first.events);
    let other = node.log.execute_as(meta, &"close it", Do::Add { account: 1, amount: 1 }).await;
    assert!(matches!(other, Err(ExecuteError::Conflict)));
}

#[tokio::test]
async fn refusals_are_decided_again() {
    let world = World::new();
    let node = world.node().await;
    let meta = node.meta();
    let ensure = |sum| node.log.execute(meta.clone(), Do::Ensure { account: 1, sum });
    let add = |amount| node.log.execute(meta.clone(), Do::Add { account: 1, amount });
    assert!(matches!(add(SUM_MAX + 1).await, Err(ExecuteError::Refused(TooMuch))));
    assert_eq!(ensure(0).await.unwrap().positions, None);
    let done = ensure(3).await.unwrap();
    assert!(done.positions.is_some() && !done.repeated, "neither the refusal nor the no-op used the id up");
}

#[tokio::test]
async fn a_command_is_forgotten_after_a_day() {
    let world = World::new();
    let node = world.node().await;
    let meta = node.meta();
    let add = || node.log.execute(meta.clone(), Do::Add { account: 1, amount: 1 });
    add().await.unwrap();
    world.clock.advance(REMEMBERED_FOR.saturating_sub(Duration::from_millis(1)));
    assert!(add().await.unwrap().repeated);
    let node = world.node().await;
    let add = || node.log.execute(meta.clone(), Do::Add { account: 1, amount: 1 });
    assert!(add().await.unwrap().repeated);
    world.clock.advance(Duration::from_millis(1));
    assert!(!add().await.unwrap().repeated);
    assert!(add().await.unwrap().repeated, "and remembered anew");
}

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let world = World::new();
    let node: Node = world.open(|options| options.queue_max = 4).await.unwrap();
    let answers = join_all((0..10).map(|_| node.add(1, 1))).await;
    let busy = answers.iter().filter(|answer| matches!(answer, Err(ExecuteError::Busy))).count();
    assert_eq!((busy, node.log.view().state.sums[&1]), (6, 4));
}

/// A batch ends where a frame is full; the rest follows in the next, still in order.
#[tokio::test]
async fn a_batch_larger_than_a_frame_takes_several() {
    let world = World::new();
    let node: Node = world.open(|options| options.frame_bytes_max = 4096).await.unwrap();
    let burst = || node.execute(Do::Burst { account: 1, events: 1, bytes: 1000 });
    let answers = join_all((0..30).map(|_| burst())).await;
    let heads: Vec<u64> = answers.iter().map(|answer| answer.as_ref().unwrap().head.0).collect();
    assert_eq!(heads, (2..32).collect::<Vec<_>>());
    let frames = world.frames().await;
    assert_eq!(frames.len(), 11, "three of a kilobyte to each");
    assert!(frames.iter().all(|frame| frame.value.len() <= 4096));
}

#[tokio::test]
async fn a_command_that_no_commit_holds_is_refused_and_harms_nobody() {
    let world = World::new();
    let node = world.node().await;
    let large = node.execute(Do::Burst { account: 1, events: 3, bytes: 400_000 });
    let many = node.execute(Do::Burst { account: 1, events: 5000, bytes: 1 });
    let (before, large, many, after) = tokio::join!(node.add(2, 1), large, many, node.add(2, 1));
    assert!(before.is_ok() && after.is_ok());
    for refused in [large, many] {
        assert!(matches!(refused, Err(ExecuteError::Invalid { .. })), "{refused:?}");
    }
    let largest = node.execute(Do::Burst { account: 1, events: 2, bytes: 400_000 }).await.unwrap();
    assert_eq!(largest.events.len(), 2, "more than a batch aims at, less than a commit holds");
    assert!(node.log.verify().await.unwrap().ok);
}

#[tokio::test]
async fn time_in_the_log_never_steps_back() {
    let world = World::new();
    let node = world.node().await;
    node.add(1, 1).await.unwrap();
    let before = world.clock.now();
    world.clock.set(before.minus(Duration::from_hours(1)));
    node.add(1, 1).await.unwrap();
    let events = node.log.read(Position(0), 10).await.unwrap();
    assert!(events.iter().all(|event| event.recorded_at == before));
    assert!(node.log.verify().await.unwrap().ok);
}

#[tokio::test]
async fn a_record_says_who_from_where_and_why() {
    let world = World::new();
    let node = world.node().await;
    let mut meta = node.meta();
    meta.actor = client(7);
    meta.source = Some("2001:db8::7".parse().unwrap());
    meta.correlation = Some([4; 16]);
    meta.causation = Some("activity:9".parse().unwrap());
    node.log.execute(meta.clone(), Do::Add { account: 1, amount: 1 }).await.unwrap();
    let event = node.log.read(Position(1), 1).await.unwrap().remove(0);
    assert_eq!((event.command, event.actor, event.source), (meta.id, meta.actor, meta.source));
    assert_eq!((event.correlation, event.causation), (meta.correlation, meta.causation));
    assert_eq!((event.log, event.position, event.epoch), (LogName::Control, Position(2), 1));

    let line = event.to_json();
    assert_eq!(line["actor"], meta.actor.to_string());
    assert_eq!(line["source"], "2001:db8::7");
    assert_eq!(line["causation"], "activity:9");
    assert_eq!(line["event"], "unknown", "the tally's events are no domain events");
    assert!(line["payload"].is_null() && line["payload_hex"].is_string() && line["error"].is_string());
}

#[tokio::test]
async fn after_close_reading_goes_on_and_writing_does_not() {
    let world = World::new();
    let node = world.node().await;
    let waiting = node.add(1, 1);
    let closing = async {
        tokio::task::yield_now().await;
        node.log.close().await;
    };
    let (answer, ()) = tokio::join!(waiting, closing);
    assert!(answer.is_ok(), "what waited is carried out");
    assert!(matches!(node.add(1, 1).await, Err(ExecuteError::Closed)));
    node.log.close().await;
    assert_eq!(node.log.read(Position(0), 10).await.unwrap().len(), 2);
    assert_eq!(world.snapshots().await, [2]);
    tokio::task::yield_now().await;
    assert!(!node.fatal.is_cancelled(), "to be closed is no failure");
    node.close().await;
}

#[tokio::test]
async fn the_real_read_models_run_on_it() {
    use underpass_domain::{ActivityCommand, ActivityState, ControlState, MappingId};
    let world = World::new();
    let node: Node<ActivityState> = world.open(|_| {}).await.unwrap();
    let control: Node<ControlState> = world.open(|_| {}).await.unwrap();
    let usage = ActivityCommand::RecordUsage {
        mapping: MappingId::from_bytes([1; 16]),
        bytes_in: 5,
        bytes_out: 6,
        tunnels: 1,
        refused: 0,
    };
    node.execute(usage).await.unwrap();
    let line = node.log.read(Position(1), 1).await.unwrap()[0].to_json();
    assert_eq!((&line["event"], &line["log"]), (&"usage.recorded".into(), &"activity".into()));
    assert!(line["payload"].is_object() && line.get("error").is_none(), "{line}");
    assert!(node.log.read(Position(1), 1).await.unwrap()[0].sentence().is_some());

    let (state, control_state) = (node.log.view(), control.log.view());
    node.close().await;
    control.close().await;
    let node: Node<ActivityState> = world.open(|_| {}).await.unwrap();
    let control: Node<ControlState> = world.open(|_| {}).await.unwrap();
    assert_eq!((node.log.view(), control.log.view()), (state, control_state), "from their snapshots");
}
