//! The listen address of a mapping that a code made is that mapping's, whatever the server says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use support::*;
use tokio::net::TcpStream;
use underpass_agent::{Agent, AgentEvent, Connect, Verbs};
use underpass_wire::link::{
    Applied, CodeRedeemed, DesiredMapping, Done, Failure, FailureClass, MappingInfo, Mappings, Outcome,
    Request, ResultStatus, Seal,
};
use underpass_wire::token::{CODE_RANDOM_BYTES, ConnectionCode};

async fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn status(applied: &Applied, number: u8) -> Option<(ResultStatus, String)> {
    let id = mapping(number);
    let found = applied.results.iter().find(|result| result.mapping == id.as_bytes());
    found.map(|result| (result.status(), result.message.clone()))
}

/// The first report of a position that says this of a mapping.
async fn reported(link: &mut FakeLink, position: u64, number: u8, wanted: ResultStatus) -> String {
    soon("the report", async {
        loop {
            let applied = link.applied(position).await;
            if let Some((status, message)) = status(&applied, number)
                && status == wanted
            {
                return message;
            }
        }
    })
    .await
}

fn code(seed: u8) -> ConnectionCode {
    let mut random = [seed; CODE_RANDOM_BYTES];
    (0..).zip(&mut random).for_each(|(number, byte): (u8, _)| *byte ^= number);
    ConnectionCode::generate(&random).unwrap()
}

/// Mapping `number`, made by `code`, as the listening agent is told of it.
fn made_by(code: &ConnectionCode, number: u8, address: SocketAddr) -> DesiredMapping {
    DesiredMapping { code_lookup: code.lookup(), seal: Seal::Auto.into(), ..listens(number, address) }
}

/// Answers the redemption of a code with mapping `number`.
async fn redeemed(link: &mut FakeLink, number: u8) -> SocketAddr {
    let command = link.command().await;
    let Request::RedeemCode(redeem) = request(&command) else { panic!("{command:?}") };
    let redeemed = CodeRedeemed {
        mapping: Some(MappingInfo {
            id: mapping(number).as_bytes().to_vec(),
            name: format!("m{number}"),
            ..MappingInfo::default()
        }),
        target_client: vec![9; 16],
        target_key: vec![9; 32],
        position: 10,
    };
    link.answer(&command, Outcome::CodeRedeemed(redeemed)).await;
    redeem.listen.parse().unwrap()
}

/// Connects by `code` up to where the agent listens for mapping `number`, and leaves: the sharing client does
/// not answer, which takes nothing from the address.
async fn connect(
    agent: &Agent,
    link: &mut FakeLink,
    code: &ConnectionCode,
    number: u8,
    listen: Option<SocketAddr>,
    position: u64,
) -> SocketAddr {
    let handle = agent.handle();
    let connect = handle.connect(Connect { code: code.to_string(), listen });
    tokio::select! {
        done = connect => panic!("the sharing client is away: {done:?}"),
        address = async {
            let address = redeemed(link, number).await;
            link.desired(position, vec![made_by(code, number, address)]).await;
            reported(link, position, number, ResultStatus::Listening).await;
            address
        } => address,
    }
}

fn pair_file(machine: &Machine, number: u8) -> PathBuf {
    machine.state.path().join(format!("pairs/{}.json", mapping(number)))
}

/// A client that has connected by `code(1)`: mapping 1, at position 10.
async fn met() -> (FakeNode, Machine, Agent, FakeLink, SocketAddr) {
    let (node, machine, agent, mut link) = connected(1).await;
    let address = connect(&agent, &mut link, &code(1), 1, None, 10).await;
    (node, machine, agent, link, address)
}

fn not_found() -> Outcome {
    Outcome::Failed(Failure {
        code: "mapping.not_found".into(),
        message: "no such mapping".into(),
        class: FailureClass::NotFound.into(),
        ..Failure::default()
    })
}

#[tokio::test]
async fn no_other_mapping_gets_the_address_of_a_code_s_mapping() {
    let (_node, machine, agent, mut link, address) = met().await;
    let mut events = agent.handle().events().await.unwrap();
    // Beside it: the other one is refused, and the rightful one goes on.
    link.desired(11, vec![listens(0, address), made_by(&code(1), 1, address)]).await;
    let message = reported(&mut link, 11, 0, ResultStatus::Failed).await;
    assert!(message.contains(&mapping(1).to_string()) && message.contains(&address.to_string()), "{message}");
    assert!(TcpStream::connect(address).await.is_ok());
    let told = soon("an event", async {
        loop {
            if let Some(AgentEvent::MappingFailed { mapping: of, code, .. }) = events.next().await {
                return (of, code);
            }
        }
    });
    assert_eq!(told.await, (mapping(0), "listen.refused".to_owned()));

    // Instead of it: the server's word ends the rightful one, and gives its address to nobody.
    link.desired(12, vec![listens(0, address)]).await;
    reported(&mut link, 12, 0, ResultStatus::Failed).await;
    assert!(refused(address).await);
    assert!(pair_file(&machine, 1).exists());
    // Nor where it says that a code made it.
    link.desired(13, vec![made_by(&code(1), 0, address), made_by(&code(2), 2, address)]).await;
    let applied = link.applied(13).await;
    for number in [0, 2] {
        assert_eq!(status(&applied, number).unwrap().0, ResultStatus::Failed, "{number}");
    }
    assert!(refused(address).await);

    // When it comes back, it has its address back.
    link.desired(14, vec![listens(0, address), made_by(&code(1), 1, address)]).await;
    reported(&mut link, 14, 1, ResultStatus::Listening).await;
    assert!(TcpStream::connect(address).await.is_ok());
}

/// Callers write `localhost`, which is `[::1]` first, and a socket at no address in particular takes all.
#[tokio::test]
async fn no_other_mapping_gets_a_part_of_the_address_or_all_around_it() {
    let (_node, _machine, _agent, mut link, address) = met().await;
    let port = address.port();
    let around = [
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    let all = (2..).zip(around).map(|(number, address)| listens(number, address));
    link.desired(11, all.collect()).await;
    let applied = link.applied(11).await;
    for number in 2..5 {
        assert_eq!(status(&applied, number).unwrap().0, ResultStatus::Failed, "{number}");
    }
    assert!(refused(address).await);
    // Another address of this machine is another listener.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    link.desired(12, vec![listens(2, elsewhere)]).await;
    reported(&mut link, 12, 2, ResultStatus::Listening).await;
}

#[tokio::test]
async fn the_address_is_kept_over_a_restart_of_the_agent() {
    let (mut node, machine, agent, _link, address) = met().await;
    let _ = agent.shutdown(ONE_SECOND).await;
    let agent = machine.start();
    let mut link = node.welcomed(client(1)).await;
    link.desired(20, vec![listens(2, address)]).await;
    reported(&mut link, 20, 2, ResultStatus::Failed).await;
    assert!(refused(address).await);
    drop(agent);
}

#[tokio::test]
async fn a_code_s_mapping_listens_where_its_user_said_or_nowhere() {
    let (_node, _machine, _agent, mut link, address) = met().await;
    let elsewhere = free_address().await;
    let anywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    for (position, said) in [(11, elsewhere), (12, anywhere)] {
        link.desired(position, vec![made_by(&code(1), 1, said)]).await;
        let message = reported(&mut link, position, 1, ResultStatus::Failed).await;
        assert!(message.contains(&address.to_string()) && message.contains(&said.to_string()), "{message}");
        assert!(refused(elsewhere).await && refused(address).await);
    }
    link.desired(13, vec![made_by(&code(1), 1, address)]).await;
    reported(&mut link, 13, 1, ResultStatus::Listening).await;
}

#[tokio::test]
async fn the_user_moves_a_code_s_mapping_and_frees_its_address() {
    let (_node, _machine, agent, mut link, before) = met().await;
    let after = free_address().await;
    assert_eq!(connect(&agent, &mut link, &code(1), 1, Some(after), 11).await, after);
    assert!(refused(before).await);
    link.desired(12, vec![made_by(&code(1), 1, after), listens(2, before)]).await;
    reported(&mut link, 12, 2, ResultStatus::Listening).await;
    assert!(TcpStream::connect(after).await.is_ok());
}

/// Also where the server does not know the mapping any more: it is this client's own word that counts.
#[tokio::test]
async fn removing_the_mapping_here_frees_its_address() {
    for gone in [false, true] {
        let (_node, machine, agent, mut link, address) = met().await;
        link.desired(11, vec![listens(2, address)]).await;
        reported(&mut link, 11, 2, ResultStatus::Failed).await;
        let (handle, id) = (agent.handle(), mapping(1).to_string());
        let (removed, ()) = tokio::join!(handle.remove(&id), async {
            let command = link.command().await;
            let answer = if gone { not_found() } else { Outcome::Done(Done::default()) };
            link.answer(&command, answer).await;
        });
        assert_eq!(removed.unwrap(), mapping(1));
        assert!(!pair_file(&machine, 1).exists());
        reported(&mut link, 11, 2, ResultStatus::Listening).await;
        assert!(TcpStream::connect(address).await.is_ok());
        // There is nothing left to give up.
        let (removed, ()) = tokio::join!(handle.remove(&id), async {
            let command = link.command().await;
            link.answer(&command, not_found()).await;
        });
        assert_eq!(removed.unwrap_err().code, "mapping.not_found");
    }
}

/// Which mapping a name means is the server's word.
#[tokio::test]
async fn removing_by_a_name_frees_the_address_of_no_mapping_with_another() {
    for (name, freed) in [("web", false), ("m1", true)] {
        let (_node, machine, agent, mut link, address) = met().await;
        let handle = agent.handle();
        let (removed, ()) = tokio::join!(handle.remove(name), async {
            let command = link.command().await;
            let info = MappingInfo {
                id: mapping(1).as_bytes().to_vec(),
                name: name.into(),
                ..MappingInfo::default()
            };
            link.answer(&command, Outcome::Mappings(Mappings { mappings: vec![info] })).await;
            let command = link.command().await;
            link.answer(&command, Outcome::Done(Done::default())).await;
        });
        removed.unwrap();
        assert_eq!(pair_file(&machine, 1).exists(), !freed);
        link.desired(11, vec![listens(2, address)]).await;
        let expected = if freed { ResultStatus::Listening } else { ResultStatus::Failed };
        reported(&mut link, 11, 2, expected).await;
    }
}

#[tokio::test]
async fn a_new_connect_at_the_address_takes_it_over() {
    let (_node, machine, agent, mut link, address) = met().await;
    link.desired(11, vec![]).await;
    link.applied(11).await;
    assert_eq!(connect(&agent, &mut link, &code(2), 2, Some(address), 12).await, address);
    assert!(pair_file(&machine, 2).exists());
    assert!(!pair_file(&machine, 1).exists(), "nobody needs it any more");
    link.desired(13, vec![made_by(&code(1), 1, address), made_by(&code(2), 2, address)]).await;
    reported(&mut link, 13, 1, ResultStatus::Failed).await;
    assert!(TcpStream::connect(address).await.is_ok());
}

/// The same code once more, and the server names another mapping than before: it is proven anew, and the one of
/// before does not stay beside it.
#[tokio::test]
async fn who_listened_at_the_address_before_stops() {
    let (_node, machine, agent, mut link, address) = met().await;
    let handle = agent.handle();
    let connect = handle.connect(Connect { code: code(1).to_string(), listen: None });
    tokio::select! {
        done = connect => panic!("the sharing client is away: {done:?}"),
        () = async {
            assert_eq!(redeemed(&mut link, 3).await, address);
            reported(&mut link, 10, 1, ResultStatus::Failed).await;
            assert!(refused(address).await);
            link.desired(11, vec![made_by(&code(1), 1, address), made_by(&code(1), 3, address)]).await;
            let applied = link.applied(11).await;
            assert_eq!(status(&applied, 3).unwrap().0, ResultStatus::Listening);
            assert_eq!(status(&applied, 1).unwrap().0, ResultStatus::Failed);
        } => {}
    }
    assert!(pair_file(&machine, 3).exists() && !pair_file(&machine, 1).exists());
}

/// Else the address of the mapping that the server names would be free.
#[tokio::test]
async fn a_code_makes_no_mapping_that_another_code_made() {
    let (_node, machine, agent, mut link, address) = met().await;
    let before = std::fs::read(pair_file(&machine, 1)).unwrap();
    let handle = agent.handle();
    let connect = handle.connect(Connect { code: code(2).to_string(), listen: None });
    let (connected, _) = tokio::join!(connect, redeemed(&mut link, 1));
    assert_eq!(connected.unwrap_err().code, "link.protocol");
    assert_eq!(std::fs::read(pair_file(&machine, 1)).unwrap(), before);
    link.desired(11, vec![listens(2, address)]).await;
    reported(&mut link, 11, 2, ResultStatus::Failed).await;
}

#[tokio::test]
async fn while_a_connect_is_under_way_its_address_waits_for_the_mapping_it_makes() {
    let (_node, _machine, agent, mut link) = connected(1).await;
    let address = free_address().await;
    let code = code(1);
    let handle = agent.handle();
    let connect = handle.connect(Connect { code: code.to_string(), listen: Some(address) });
    tokio::select! {
        done = connect => panic!("the sharing client is away: {done:?}"),
        () = async {
            let command = link.command().await;
            // One that has nothing to do with it, one that says so, and the one, before its name is known.
            let others = || vec![listens(2, address), made_by(&code, 3, address), made_by(&code, 1, address)];
            link.desired(9, others()).await;
            let applied = link.applied(9).await;
            assert_eq!(status(&applied, 2).unwrap().0, ResultStatus::Failed);
            assert_eq!((status(&applied, 3), status(&applied, 1)), (None, None), "nothing is known yet");
            let redeemed = CodeRedeemed {
                mapping: Some(MappingInfo { id: mapping(1).as_bytes().to_vec(), ..MappingInfo::default() }),
                target_client: vec![9; 16],
                target_key: vec![9; 32],
                position: 10,
            };
            link.answer(&command, Outcome::CodeRedeemed(redeemed)).await;
            reported(&mut link, 9, 1, ResultStatus::Listening).await;
            link.desired(10, others()).await;
            reported(&mut link, 10, 3, ResultStatus::Failed).await;
        } => {}
    }
}
