//! Facts and commands while the store is away.

use std::iter::repeat_n;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use underpass_domain::{ActivityCommand, ActivityEvent, ClientId, MappingId, SessionId, Subject};
use underpass_store::MemoryStore;
use underpass_store::testkit::faulty::{Call, Fault, Flaky, Interleaving};

use crate::testkit::{Rig, until};
use crate::{COMMAND_WAIT, Caller, SPOOL_FACTS_MAX};

fn open(rig: &Rig, client: ClientId, session: SessionId) -> ActivityCommand {
    ActivityCommand::OpenSession {
        session,
        client,
        node: rig.control.node(),
        address: "198.51.100.7:50214".parse().unwrap(),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    }
}

fn note_session(rig: &Rig, client: ClientId) -> SessionId {
    let session = rig.control.new_session_id().unwrap();
    let (caller, about) = (Caller::system(), Subject::Client(client));
    let _ = rig.control.note(&caller, about, open(rig, client, session));
    let close = ActivityCommand::CloseSession { session, reason: "closed".into() };
    let _ = rig.control.note(&caller, about, close);
    session
}

#[tokio::test(start_paused = true)]
async fn c67_facts_of_an_outage_are_recorded_once_and_in_order() {
    let store = Arc::new(Flaky::scripted_for(MemoryStore::new(), Call::Commit, []));
    let rig = Rig::open(store.clone()).await;
    let (one, two) = (rig.client(1).await, rig.client(2).await);
    let before = rig.control.activity().position;
    // The first attempt gets through without an answer; then nothing does for a while.
    store.add([Fault::IndeterminateDone].into_iter().chain(repeat_n(Fault::Unavailable, 100)));
    let mut noted = Vec::new();
    for client in [one, one, two, one, two, two] {
        noted.push(note_session(&rig, client));
    }
    until(|| rig.control.store_is_away()).await;
    assert!(rig.control.noted() > 0);
    until(|| rig.control.noted() == 0).await;
    assert!(!rig.control.store_is_away());

    let recorded = rig.control.activity_log().read(before, 1000).await.unwrap();
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for event in recorded {
        match event.decode().unwrap() {
            ActivityEvent::SessionOpened(event) => opened.push(event.session),
            ActivityEvent::SessionClosed(event) => {
                assert!(opened.contains(&event.session));
                closed.push(event.session);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&opened, &closed), (&noted, &noted));
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c67_the_spool_is_bounded_and_strangers_leave_room_for_clients() {
    let store = Arc::new(Flaky::scripted_for(MemoryStore::new(), Call::Commit, []));
    let rig = Rig::open(store.clone()).await;
    store.add(repeat_n(Fault::Unavailable, 1_000_000));
    until(|| {
        note_session(&rig, ClientId::from_bytes([1; 16]));
        rig.control.store_is_away()
    })
    .await;
    for stranger in 0..u32::try_from(SPOOL_FACTS_MAX).unwrap() {
        let address = IpAddr::from(Ipv4Addr::from(0x0A00_0000 + stranger));
        rig.control.record_auth_failure(address, None, "noise").await.unwrap();
    }
    assert!(rig.control.noted() <= SPOOL_FACTS_MAX / 2, "{}", rig.control.noted());
    let usage = |number: u32| ActivityCommand::RecordUsage {
        mapping: MappingId::from_bytes([2; 16]),
        bytes_in: u64::from(number) + 1,
        bytes_out: 0,
        tunnels: 0,
        refused: 0,
    };
    for number in 0..u32::try_from(SPOOL_FACTS_MAX).unwrap() {
        let _ = rig.control.note(&Caller::system(), Subject::None, usage(number));
    }
    assert_eq!(rig.control.noted(), SPOOL_FACTS_MAX);
    rig.kill().await;
}

#[tokio::test(start_paused = true)]
async fn c67_a_command_is_answered_in_time_and_what_was_only_waiting_does_not_happen_later() {
    let store = Arc::new(Interleaving::new(Arc::new(MemoryStore::new())));
    let rig = Rig::open(store.clone()).await;
    let client = rig.client(1).await;
    store.before(Call::Commit, 0, |_| tokio::time::sleep(COMMAND_WAIT * 3));
    let begun = Instant::now();
    // The first is being written when it is given up, the second has not begun.
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.mapping(client, None).await
    };
    let (first, second) = tokio::join!(rig.mapping(client, None), second);
    for refused in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(refused.code(), "store.unavailable");
        assert!(refused.retry_after().is_some());
    }
    assert!(begun.elapsed() <= COMMAND_WAIT + Duration::from_secs(2), "{:?}", begun.elapsed());
    until(|| rig.control.state().state.mappings().count() == 1).await;
    tokio::time::sleep(COMMAND_WAIT).await;
    assert_eq!(rig.control.state().state.mappings().count(), 1);
    rig.mapping(client, None).await.unwrap();
    rig.close().await;
}
