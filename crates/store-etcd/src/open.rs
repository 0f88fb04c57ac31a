//! Opening a store: finding the cluster, being let in, making sure that the prefix is ours.

use std::sync::Arc;

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, GetResponse, Txn, TxnOp};
use tokio::time::{Instant, sleep, timeout};
use underpass_store::{BoxError, Retry};

use crate::call::{Failed, Kind, Server};
use crate::link::{Fault, NotConnected, fault, source};
use crate::namespace::Namespace;
use crate::options::EtcdOptions;

/// The format this program writes, and the only one it reads.
const FORMAT: u32 = 1;

const TITLE: &str = "underpass-store-etcd";

/// The first release that answers as we expect. (3.3 doesn't know fragments of watches.)
const VERSION_MIN: (u64, u64) = (3, 4);

/// Releases before it no longer get corrections.
const VERSION_SUPPORTED: (u64, u64) = (3, 5);

/// Reading and setting the marker takes no longer than so many requests may.
const CLAIM_REQUESTS: u32 = 2;

/// Between rounds over the members.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Why a store can't be opened. Nothing was changed below the prefix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict themselves.
    #[error("the options for etcd can't be used")]
    Options {
        /// The rule that they break.
        #[source]
        source: BoxError,
    },

    /// No member answers. It may be a matter of time.
    #[error("etcd can't be reached at {endpoints}: start it, or name other endpoints")]
    Unreachable {
        /// The members that were tried.
        endpoints: String,
        /// What the last one that was tried says.
        #[source]
        source: BoxError,
    },

    /// A member answers, and TLS with it fails: another authority, another name, no or another certificate of
    /// ours, or one side doesn't speak TLS.
    #[error(
        "{endpoint} and this node don't agree on TLS: check the authority, the name and the certificates"
    )]
    Tls {
        /// The member.
        endpoint: String,
        /// What TLS says.
        #[source]
        source: BoxError,
    },

    /// etcd doesn't take the user and password, or wants some.
    #[error("etcd at {endpoint} refuses the user or password: check them, and whether etcd asks for any")]
    Credentials {
        /// The member.
        endpoint: String,
        /// What etcd says.
        #[source]
        source: BoxError,
    },

    /// The user may not read and write below the prefix.
    #[error("etcd lets this user not read and write below `{prefix}/`: grant it a role that may")]
    Denied {
        /// The prefix.
        prefix: String,
        /// What etcd says.
        #[source]
        source: BoxError,
    },

    /// etcd is too old.
    #[error("etcd at {endpoints} is release {found}: use {}.{} or newer", VERSION_MIN.0, VERSION_MIN.1)]
    Version {
        /// The members.
        endpoints: String,
        /// Its release.
        found: String,
    },

    /// Something lies below the prefix that isn't a store of Underpass, or the prefix lies within another store.
    #[error("what lies below `{prefix}/` in etcd is not a store of Underpass: name an unused prefix")]
    Foreign {
        /// The prefix.
        prefix: String,
    },

    /// Nothing lies below the prefix, and nothing was to be begun there.
    #[error("there is no store below `{prefix}/` in etcd")]
    Absent {
        /// The prefix.
        prefix: String,
    },

    /// A newer release has written it.
    #[error(
        "`{prefix}/` in etcd has format {found}, this program knows formats up to {known}: use a newer release"
    )]
    Newer {
        /// The prefix.
        prefix: String,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
}

impl OpenError {
    /// Whether the same may succeed later: only where nobody answers.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } => Retry::Same,
            _ => Retry::Never,
        }
    }
}

/// Opens what `options` name.
pub(crate) async fn open(options: &EtcdOptions) -> Result<(Server, Namespace), OpenError> {
    let bad = |source| OpenError::Options { source };
    let namespace = Namespace::new(&options.prefix).map_err(|rule| bad(rule.into()))?;
    let server = Server::new(options).map_err(bad)?;
    if options.credentials.is_some() && options.tls.is_none() {
        tracing::warn!("without TLS, the password for etcd can be read on its way");
    }
    let opening = Opening { server: &server, namespace: &namespace, begin: options.begin };
    let version = opening.find().await?;
    opening.check_version(&version)?;
    // A few requests, which an election may hold up one after another.
    timeout(CLAIM_REQUESTS * options.request_timeout, opening.claim())
        .await
        .unwrap_or_else(|_| Err(opening.unreachable("no answer in time".into())))?;
    Ok((server, namespace))
}

struct Opening<'a> {
    server: &'a Server,
    namespace: &'a Namespace,
    begin: bool,
}

impl Opening<'_> {
    /// The release of the first member that answers. An answer that more time doesn't change ends the search
    /// after one round.
    async fn find(&self) -> Result<String, OpenError> {
        let deadline = Instant::now() + self.server.request_timeout;
        // What was seen last counts: the very last attempt may end with the deadline, seeing nothing.
        let mut away = None;
        loop {
            let mut wrong = None;
            for _ in 0..self.server.links.len() {
                match timeout(deadline - Instant::now(), self.ask_version()).await {
                    Ok(Ok(version)) => return Ok(version),
                    Ok(Err(why)) if matches!(why.fault, Fault::Away | Fault::TlsCut) => away = Some(why),
                    Ok(Err(why)) => wrong = Some(why),
                    Err(_) => break,
                }
            }
            if let Some(NotConnected { url: endpoint, fault, source }) = wrong {
                return Err(match fault {
                    Fault::Tls => OpenError::Tls { endpoint, source },
                    _ => OpenError::Credentials { endpoint, source },
                });
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(match away {
                    Some(NotConnected { url: endpoint, fault: Fault::TlsCut, source }) => {
                        OpenError::Tls { endpoint, source }
                    }
                    Some(why) => self.unreachable(why.into()),
                    None => self.unreachable("no answer in time".into()),
                });
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_version(&self) -> Result<String, NotConnected> {
        let links = &self.server.links;
        let linked = match links.get().await {
            Ok(linked) => linked,
            Err(why) => {
                let text = |source: &BoxError| BoxError::from(chain_text(&**source));
                return Err(NotConnected {
                    url: why.url.clone(),
                    fault: why.fault,
                    source: text(&why.source),
                });
            }
        };
        let url = links.url(&linked).to_owned();
        let (fault, source) =
            match timeout(links.connect_timeout, linked.client.maintenance_client().status()).await {
                Ok(Ok(status)) => return Ok(status.version().to_owned()),
                Ok(Err(error)) => (fault(&error), source(error)),
                Err(_) => (Fault::Away, format!("no answer within {:?}", links.connect_timeout).into()),
            };
        links.leave(&linked);
        Err(NotConnected { url, fault, source })
    }

    fn check_version(&self, version: &str) -> Result<(), OpenError> {
        let found = release(version);
        if found < VERSION_MIN {
            let endpoints = self.server.links.urls();
            return Err(OpenError::Version { endpoints, found: version.to_owned() });
        }
        if found < VERSION_SUPPORTED {
            tracing::warn!(version, "this release of etcd gets no corrections any more: use 3.5 or newer");
        }
        Ok(())
    }

    /// Reads the marker, and sets it where nothing is and something may begin.
    async fn claim(&self) -> Result<(), OpenError> {
        for outer in self.namespace.outer_markers() {
            // What we may not read is not ours, whatever it is.
            if let Ok(found) = self.read(outer, None).await
                && found.kvs().first().is_some_and(|stored| stored.value().starts_with(TITLE.as_bytes()))
            {
                return Err(self.foreign());
            }
        }
        // Twice, as another node may be setting it right now.
        for _ in 0..2 {
            let found = self.read(self.namespace.marker(), None).await.map_err(|why| self.failed(why))?;
            if let Some(marker) = found.kvs().first() {
                return self.check_marker(marker.value());
            }
            let (from, to) = self.namespace.all();
            let any = GetOptions::new().with_range(to).with_limit(1).with_keys_only();
            let found = self.read(from, Some(any)).await.map_err(|why| self.failed(why))?;
            if found.kvs().first().is_some_and(|stored| stored.key() != self.namespace.marker()) {
                return Err(self.foreign());
            }
            if !self.begin {
                return Err(OpenError::Absent { prefix: self.namespace.prefix().to_owned() });
            }
            self.mark().await.map_err(|why| self.failed(why))?;
        }
        Err(self.foreign())
    }

    async fn read(&self, key: Vec<u8>, options: Option<GetOptions>) -> Result<GetResponse, Failed> {
        let request = |client: Arc<Client>| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.kv_client().get(key, options).await }
        };
        self.server.call(Kind::Read, request).await
    }

    /// Sets the marker if nothing at all is below the prefix: a guard over the whole range.
    async fn mark(&self) -> Result<(), Failed> {
        let (from, to) = self.namespace.all();
        let empty = Compare::create_revision(from, CompareOp::Equal, 0).with_range(to);
        let text = format!("{TITLE}\nformat {FORMAT}\n");
        let put = TxnOp::put(self.namespace.marker(), text, None);
        let set = Txn::new().when([empty]).and_then([put]);
        let request = |client: Arc<Client>| {
            let set = set.clone();
            async move { client.kv_client().txn(set).await }
        };
        self.server.call(Kind::Repeatable, request).await.map(drop)
    }

    fn check_marker(&self, value: &[u8]) -> Result<(), OpenError> {
        let text = String::from_utf8_lossy(value);
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(self.foreign());
        }
        let format = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
        match format {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                let prefix = self.namespace.prefix().to_owned();
                Err(OpenError::Newer { prefix, found, known: FORMAT })
            }
            _ => Err(self.foreign()),
        }
    }

    fn foreign(&self) -> OpenError {
        OpenError::Foreign { prefix: self.namespace.prefix().to_owned() }
    }

    fn unreachable(&self, source: BoxError) -> OpenError {
        OpenError::Unreachable { endpoints: self.server.links.urls(), source }
    }

    fn failed(&self, failed: Failed) -> OpenError {
        let error = match failed {
            Failed::NotDone(source) | Failed::Unknown(source) => return self.unreachable(source),
            Failed::Answer(error) => error,
        };
        let denied =
            matches!(&error, Error::GRpcStatus(status) if status.code() == tonic::Code::PermissionDenied);
        if denied {
            let prefix = self.namespace.prefix().to_owned();
            return OpenError::Denied { prefix, source: source(error) };
        }
        match fault(&error) {
            Fault::Credentials => {
                OpenError::Credentials { endpoint: self.server.links.urls(), source: source(error) }
            }
            _ => self.unreachable(source(error)),
        }
    }
}

/// The first two numbers of a version.
fn release(version: &str) -> (u64, u64) {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// An error and its sources in one line: the error itself is shared and stays where it is.
fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    crate::verdict::chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_numbers() {
        for (version, number) in [("3.4.23", (3, 4)), ("3.10.0-rc.1", (3, 10)), ("", (0, 0)), ("x.y", (0, 0))]
        {
            assert_eq!(release(version), number, "{version}");
        }
        assert!(release("3.3.27") < VERSION_MIN && release("3.10.0") > VERSION_SUPPORTED);
    }
}
