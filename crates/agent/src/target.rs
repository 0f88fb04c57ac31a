//! Dialling the target of a tunnel.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::allow::{Host, TargetAddress};

/// A target that does not answer within this time won't; the node waits a little longer.
pub(crate) const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// The next address of a name is tried after this time, without giving up the ones before (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 16;

/// Why a target was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{target} refused the connection")]
    Refused { target: String },
    #[error("{target} can't be reached: {why}")]
    Unreachable { target: String, why: String },
    #[error("{target} did not answer within {} s", DIAL_DEADLINE.as_secs())]
    TimedOut { target: String },
    #[error("{target} is not on the allow list of this client")]
    Denied { target: String },
}

/// The addresses of a target, at most [`ADDRESSES_MAX`], IPv6 and IPv4 in turns, beginning with what the
/// system's resolver prefers.
pub(crate) async fn resolve(target: &TargetAddress, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let name = match target.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, target.port())]),
        Host::Name(name) => name,
    };
    let unreachable = |why: String| DialError::Unreachable { target: target.to_string(), why };
    let found = timeout_at(deadline, tokio::net::lookup_host((name.as_str(), target.port())))
        .await
        .map_err(|_| DialError::TimedOut { target: target.to_string() })?
        .map_err(|error| unreachable(format!("its name does not resolve ({error})")))?;
    let addresses = in_turns(found.collect());
    if addresses.is_empty() { Err(unreachable("its name has no address".into())) } else { Ok(addresses) }
}

fn in_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let six_first = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == six_first);
    first.reverse();
    second.reverse();
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX && !(first.is_empty() && second.is_empty()) {
        turns.extend(first.pop());
        turns.extend(second.pop());
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

/// Connects to the first of `addresses` that answers.
pub(crate) async fn dial(
    target: &TargetAddress,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let text = || target.to_string();
    match timeout_at(deadline, race(addresses)).await {
        Ok(Ok(stream)) => {
            // A target that talks in small pieces must not be delayed; a failure here costs only that.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ConnectionRefused => DialError::Refused { target: text() },
            ErrorKind::TimedOut => DialError::TimedOut { target: text() },
            _ => DialError::Unreachable { target: text(), why: error.to_string() },
        }),
        Err(_) => Err(DialError::TimedOut { target: text() }),
    }
}

/// Starts one attempt after the other, the next as soon as one fails or [`STAGGER`] has passed. The losers
/// are dropped with the set. The error is that of the first address: the preferred one.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().copied().enumerate();
    let mut attempts = JoinSet::new();
    let mut first_error: Option<(usize, io::Error)> = None;
    loop {
        if let Some((index, address)) = waiting.next() {
            attempts.spawn(async move { TcpStream::connect(address).await.map_err(|error| (index, error)) });
        }
        let ended = if waiting.len() == 0 {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(STAGGER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            None if waiting.len() == 0 => {
                return Err(first_error.map_or_else(|| io::Error::other("no address"), |(_, error)| error));
            }
            None => {}
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err((index, error)))) => {
                first_error = match first_error {
                    Some(known) if known.0 < index => Some(known),
                    _ => Some((index, error)),
                };
            }
            Some(Err(panic)) => return Err(io::Error::other(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn deadline() -> Instant {
        Instant::now() + DIAL_DEADLINE
    }

    async fn closed_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: TargetAddress =
            format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let addresses = resolve(&target, deadline()).await.unwrap();
        let stream = dial(&target, &addresses, deadline()).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_second_address_is_taken_when_the_first_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [closed_port().await, listener.local_addr().unwrap()];
        let target: TargetAddress = "x:1".parse().unwrap();
        let stream = dial(&target, &addresses, deadline()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
    }

    #[tokio::test]
    async fn each_reason_is_told_apart() {
        let closed = closed_port().await;
        let target: TargetAddress = closed.to_string().parse().unwrap();
        let refused = dial(&target, &[closed], deadline()).await.unwrap_err();
        assert_eq!(refused, DialError::Refused { target: closed.to_string() });

        // Long over when the first address is tried, so that no network has a say.
        let past = Instant::now().checked_sub(DIAL_DEADLINE).unwrap();
        assert_eq!(
            dial(&target, &[closed], past).await.unwrap_err(),
            DialError::TimedOut { target: closed.to_string() }
        );

        let nobody: TargetAddress = "no-such-host.invalid:80".parse().unwrap();
        assert!(matches!(
            resolve(&nobody, deadline()).await,
            Err(DialError::Unreachable { .. } | DialError::TimedOut { .. })
        ));
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = vec![parse("[::1]:1"), parse("[::2]:1"), parse("1.1.1.1:1"), parse("[::3]:1")];
        let expected = vec![parse("[::1]:1"), parse("1.1.1.1:1"), parse("[::2]:1"), parse("[::3]:1")];
        assert_eq!(in_turns(found), expected);
        let many = (0..100).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(in_turns(many).len(), ADDRESSES_MAX);
    }
}
