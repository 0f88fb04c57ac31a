//! Connections to the members of a cluster: one to each that was needed, one in use.

use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;
use underpass_store::BoxError;

use crate::options::EtcdOptions;
use crate::verdict::chain;

/// etcd ends connections that are pinged more often than each 5 s, or while nothing runs on them; then the
/// system asks instead whether the other side is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE_RETRIES: u32 = 2;

/// A member that could not be reached isn't tried again before: many waiting calls share one attempt.
const DOWN: Duration = Duration::from_millis(100);

/// The members of a cluster.
pub(crate) struct Links {
    members: Vec<Member>,
    /// The member in use.
    current: AtomicUsize,
    /// Numbers connections, so that a failure on an old one doesn't end its successor.
    made: AtomicU64,
    options: ConnectOptions,
    pub(crate) connect_timeout: Duration,
}

struct Member {
    url: String,
    endpoint: Endpoint,
    link: Mutex<Link>,
    /// Held while connecting: who else wants the connection waits for it, and doesn't make another.
    connecting: tokio::sync::Mutex<()>,
}

impl Member {
    fn link(&self) -> MutexGuard<'_, Link> {
        // Nothing panics while it is held.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Link {
    None,
    Up(Linked),
    Down { since: Instant, why: Arc<NotConnected> },
}

/// A connection to one member.
#[derive(Clone)]
pub(crate) struct Linked {
    pub(crate) client: Arc<Client>,
    member: usize,
    number: u64,
}

/// Why a member could not be used.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {url}")]
pub(crate) struct NotConnected {
    pub(crate) url: String,
    pub(crate) fault: Fault,
    #[source]
    pub(crate) source: BoxError,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody answers.
    Away,
    /// Somebody answers, but TLS fails.
    Tls,
    /// Somebody hangs up in the middle of TLS: it doesn't speak it, or it is going down.
    TlsCut,
    /// etcd doesn't take the user and password.
    Credentials,
}

impl Links {
    /// Connects to nothing yet. `Err`: the rule that the options break.
    pub(crate) fn new(options: &EtcdOptions) -> Result<Self, BoxError> {
        if options.endpoints.is_empty() {
            return Err("at least one endpoint is named".into());
        }
        let members =
            options.endpoints.iter().map(|named| member(named, options)).collect::<Result<_, _>>()?;
        // A member that has lost its leader says so, instead of letting us wait for it.
        let mut connect = ConnectOptions::new().with_require_leader(true);
        if let Some(credentials) = &options.credentials {
            connect = connect.with_user(credentials.user(), credentials.password());
        }
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            options: connect,
            connect_timeout: options.connect_timeout,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// All members, for people.
    pub(crate) fn urls(&self) -> String {
        self.members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The connection to the member in use. On an error, the next call tries the next member.
    pub(crate) async fn get(&self) -> Result<Linked, Arc<NotConnected>> {
        let number = self.current.load(Ordering::Relaxed);
        let member = &self.members[number];
        if let Some(known) = self.known(number) {
            return known;
        }
        let _connecting = member.connecting.lock().await;
        if let Some(known) = self.known(number) {
            return known;
        }
        match self.connect(number).await {
            Ok(client) => {
                let linked = self.linked(client, number);
                *member.link() = Link::Up(linked.clone());
                Ok(linked)
            }
            Err(why) => {
                let why = Arc::new(why);
                *member.link() = Link::Down { since: Instant::now(), why: Arc::clone(&why) };
                self.next(number);
                Err(why)
            }
        }
    }

    /// What can be said of a member without asking it.
    fn known(&self, number: usize) -> Option<Result<Linked, Arc<NotConnected>>> {
        let link = self.members[number].link();
        match &*link {
            Link::Up(linked) => Some(Ok(linked.clone())),
            Link::Down { since, why } if since.elapsed() < DOWN => {
                self.next(number);
                Some(Err(Arc::clone(why)))
            }
            Link::None | Link::Down { .. } => None,
        }
    }

    /// A connection of its own to the member in use, for what must not hold up others.
    pub(crate) async fn another(&self) -> Result<Linked, NotConnected> {
        let member = self.current.load(Ordering::Relaxed);
        match self.connect(member).await {
            Ok(client) => Ok(self.linked(client, member)),
            Err(why) => {
                self.next(member);
                Err(why)
            }
        }
    }

    fn linked(&self, client: Arc<Client>, member: usize) -> Linked {
        Linked { client, member, number: self.made.fetch_add(1, Ordering::Relaxed) }
    }

    /// Stops using a connection, and its member if there is another one.
    pub(crate) fn leave(&self, linked: &Linked) {
        self.next(linked.member);
        let mut link = self.members[linked.member].link();
        if matches!(&*link, Link::Up(up) if up.number == linked.number) {
            *link = Link::None;
        }
    }

    /// Ends all connections, once what runs on them has ended.
    pub(crate) fn close(&self) {
        for member in &self.members {
            *member.link() = Link::None;
        }
    }

    /// The url of the member of a connection.
    pub(crate) fn url(&self, linked: &Linked) -> &str {
        &self.members[linked.member].url
    }

    fn next(&self, failed: usize) {
        let next = (failed + 1) % self.members.len();
        // Somebody else may have gone on already.
        let _ = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn connect(&self, member: usize) -> Result<Arc<Client>, NotConnected> {
        let Member { url, endpoint, .. } = &self.members[member];
        let failed = |fault, source| NotConnected { url: url.clone(), fault, source };
        let connect = async {
            let channel = endpoint.connect().await.map_err(|error| {
                let fault = match kind(&error) {
                    Some(ErrorKind::InvalidData) => Fault::Tls,
                    Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
                        if url.starts_with("https") =>
                    {
                        Fault::TlsCut
                    }
                    _ => Fault::Away,
                };
                failed(fault, error.into())
            })?;
            // Sends the user and password, if there are any.
            let client = Client::from_channel(Channel::Tonic(channel), Some(self.options.clone())).await;
            client.map(Arc::new).map_err(|error| failed(fault(&error), source(error)))
        };
        match timeout(self.connect_timeout, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(failed(Fault::Away, format!("no answer within {:?}", self.connect_timeout).into())),
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("urls", &self.urls()).finish_non_exhaustive()
    }
}

fn member(named: &str, options: &EtcdOptions) -> Result<Member, BoxError> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let url = match named.split_once("://") {
        None => format!("{scheme}://{named}"),
        Some((said, _)) if said == scheme => named.to_owned(),
        Some(("http", _)) => return Err(format!("{named}: with TLS, endpoints are https").into()),
        Some(("https", _)) => {
            return Err(format!("{named}: TLS needs the certificate of an authority").into());
        }
        Some(_) => return Err(format!("{named}: an endpoint is host:port, http:// or https://").into()),
    };
    let mut endpoint = Endpoint::from_shared(url.clone())?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
        .tcp_keepalive(Some(PING_INTERVAL))
        .tcp_keepalive_interval(Some(PING_TIMEOUT))
        .tcp_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
    if let Some(tls) = &options.tls {
        endpoint = endpoint.tls_config(tls.config())?;
    }
    Ok(Member { url, endpoint, link: Mutex::new(Link::None), connecting: tokio::sync::Mutex::default() })
}

/// Whose fault an error of a request is, as far as it can be told.
pub(crate) fn fault(error: &etcd_client::Error) -> Fault {
    use tonic::Code;
    let etcd_client::Error::GRpcStatus(status) = error else { return Fault::Away };
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unauthenticated => Fault::Credentials,
        // A server that wants a certificate says so after the handshake is over for us.
        _ if kind(status) == Some(ErrorKind::InvalidData) => Fault::Tls,
        _ => Fault::Away,
    }
}

/// The client's own error has no source; the status in it has.
pub(crate) fn source(error: etcd_client::Error) -> BoxError {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.into(),
        etcd_client::Error::TransportError(error) => error.into(),
        error => error.into(),
    }
}

/// What the system says, or TLS: rustls gives its errors to tokio as "invalid data".
fn kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    chain(error).find_map(|error| error.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tls;

    #[test]
    fn an_endpoint_and_its_scheme_must_fit() {
        let new = |endpoints: &[&str], tls: bool| {
            let mut options = EtcdOptions::new(endpoints.iter().copied(), "p");
            options.tls = tls.then(|| Tls::new(""));
            Links::new(&options).map(|links| links.urls())
        };
        assert_eq!(new(&["a:1", "http://b:2"], false).unwrap(), "http://a:1, http://b:2");
        for (endpoint, tls) in
            [("https://a:1", false), ("http://a:1", true), ("unix:///x", false), ("", false)]
        {
            assert!(new(&[endpoint], tls).is_err(), "{endpoint}");
        }
        assert!(new(&[], false).is_err());
    }
}
