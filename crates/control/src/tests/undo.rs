//! Undoing through the log.

use std::sync::Arc;

use underpass_domain::{CommandId, ControlCommand, LogName, LogPosition, Position};
use underpass_store::MemoryStore;

use crate::Caller;
use crate::testkit::Rig;

fn at(position: u64) -> LogPosition {
    LogPosition { log: LogName::Control, position: Position(position) }
}

async fn rig() -> Rig {
    Rig::open(Arc::new(MemoryStore::new())).await
}

#[tokio::test(start_paused = true)]
async fn an_undo_names_what_it_undoes_and_a_repeat_of_it_gets_the_first_answer() {
    let rig = rig().await;
    let client = rig.client(1).await;
    let mapping = rig.mapping(client, Some(20_001)).await.unwrap();
    let made = rig.control.state().position;
    let caller = Caller::operator().with_command(CommandId([7; 16]));
    let undone = rig.control.undo(&caller, made).await.unwrap();
    assert!(rig.control.state().state.mapping(mapping).is_none());
    let head = rig.control.state().position;
    let events = rig.control.log().read(made, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].name, events[0].causation), ("mapping.removed", Some(at(made.0))));

    let again = rig.control.undo(&caller, made).await.unwrap();
    assert_eq!((again.positions, again.repeated), (undone.positions, true));
    assert_eq!(rig.control.state().position, head, "nothing happened twice");
    let other = rig.control.undo(&caller, Position(made.0 - 1)).await.unwrap_err();
    assert_eq!(other.code(), "command.reused");

    // An undo of an undo works: it is a command like any other.
    rig.control.undo(&Caller::operator(), head).await.unwrap();
    assert_eq!(rig.control.state().state.mapping(mapping).unwrap().port(), Some(20_001));
    assert_eq!(rig.control.state().state.mapping(mapping).unwrap().version, 3);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn any_event_of_a_command_stands_for_the_whole_of_it() {
    let rig = rig().await;
    let client = rig.client(1).await;
    for port in [20_001, 20_002] {
        let mut wanted = crate::testkit::public(client, Some(port));
        wanted.name = Some(format!("web-{port}"));
        rig.control.create_mapping(&Caller::operator(), wanted).await.unwrap();
    }
    let head = rig.control.state().position.0;
    rig.control.execute(&Caller::operator(), ControlCommand::RemoveClient { client }).await.unwrap();
    // Two mappings went with the client; neither comes back without it.
    for position in [head + 1, head + 2, head + 3] {
        let command = rig.control.log().command_at(Position(position)).await.unwrap().unwrap();
        let names: Vec<_> = command.iter().map(|event| (event.position.0 - head, event.name)).collect();
        assert_eq!(names, [(1, "mapping.removed"), (2, "mapping.removed"), (3, "client.removed")]);
        let refused = rig.control.undo(&Caller::operator(), Position(position)).await.unwrap_err();
        assert_eq!(refused.code(), "undo.none");
    }
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_undone() {
    let rig = rig().await;
    let head = rig.control.state().position.0;
    for position in [0, head + 1, u64::MAX] {
        let refused = rig.control.undo(&Caller::operator(), Position(position)).await.unwrap_err();
        assert_eq!(refused.code(), "event.not_found", "{position}");
    }
    assert_eq!(rig.control.undo(&Caller::operator(), Position(1)).await.unwrap_err().code(), "undo.none");
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_many_undos_at_once_one_wins() {
    let rig = rig().await;
    let client = rig.client(1).await;
    rig.mapping(client, Some(20_001)).await.unwrap();
    let made = rig.control.state().position;
    let operator = Caller::operator();
    let undos = (0..8).map(|_| rig.control.undo(&operator, made));
    let done = futures_util::future::join_all(undos).await;
    let (won, lost): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for lost in lost {
        assert_eq!(lost.unwrap_err().code(), "undo.changed_since");
    }
    rig.close().await;
}
