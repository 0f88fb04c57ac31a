//! One agent per folder, shared by all verbs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::*;
use tokio::net::TcpStream;
use underpass_agent::local::Attachment;
use underpass_agent::{Agent, AgentEvent};
use underpass_wire::link::{Failure, FailureClass, Outcome};

#[tokio::test]
async fn a_waiting_guest_takes_over_and_the_mapping_goes_on() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let owner = Attachment::new(machine.options(), &machine.tasks).await.unwrap();
    let mut link = node.welcomed(client(1)).await;
    let mut guest = Attachment::new(machine.options(), &machine.tasks).await.unwrap();
    assert!(owner.is_owner() && !guest.is_owner());
    let one = free_address().await;
    link.desired(10, vec![listens(1, one)]).await;
    link.applied(10).await;
    // What happens at the owner is seen by the guest.
    let ready = soon("an event at the guest", async {
        loop {
            if let AgentEvent::MappingReady { mapping, listen } = guest.next_event().await.unwrap() {
                return (mapping, listen);
            }
        }
    });
    assert_eq!(ready.await, (mapping(1), Some(one)));

    let (drained, took_over) = tokio::join!(owner.shutdown(ONE_SECOND), async {
        soon("the takeover", async { while guest.next_event().await.unwrap() != AgentEvent::TookOver {} })
            .await;
    });
    assert_eq!(drained, underpass_tasks::Drained::Clean);
    let () = took_over;
    assert!(guest.is_owner());
    let mut link = node.welcomed(client(1)).await;
    link.desired(11, vec![listens(1, one)]).await;
    link.applied(11).await;
    assert!(TcpStream::connect(one).await.is_ok());
}

#[tokio::test]
async fn a_guest_s_verbs_are_done_by_the_owner_with_codes_and_hints_kept() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let _owner = Attachment::new(machine.options(), &machine.tasks).await.unwrap();
    let mut link = node.welcomed(client(1)).await;
    let guest = Attachment::new(machine.options(), &machine.tasks).await.unwrap();
    let status = guest.verbs().status().await.unwrap();
    assert_eq!((status.client, status.name.as_str()), (client(1), "laptop"));

    let (removed, ()) = tokio::join!(guest.verbs().remove("web"), async {
        let command = link.command().await;
        link.answer(&command, Outcome::Mappings(underpass_wire::link::Mappings::default())).await;
        let command = link.command().await;
        let failure = Failure {
            code: "mapping.not_found".into(),
            message: "there is no mapping `web`".into(),
            hint: "see `underpass ls`".into(),
            class: FailureClass::NotFound.into(),
            retry_after_ms: 0,
        };
        link.answer(&command, Outcome::Failed(failure)).await;
    });
    let report = removed.unwrap_err();
    assert_eq!((report.code.as_str(), report.class.exit_code()), ("mapping.not_found", 4));
    assert_eq!(report.hint.as_deref(), Some("see `underpass ls`"));
}

#[tokio::test]
async fn two_agents_never_have_one_folder() {
    let mut node = FakeNode::start().await;
    let machine = Machine::new(1);
    machine.join(&mut node, client(1)).await;
    let agent = machine.start();
    let error = Agent::start(machine.options(), &machine.tasks).unwrap_err();
    assert_eq!(error.code(), "agent.busy");
    let _ = agent.shutdown(ONE_SECOND).await;
    let again = Agent::start(machine.options(), &machine.tasks).unwrap();
    let _ = again.shutdown(ONE_SECOND).await;
}
