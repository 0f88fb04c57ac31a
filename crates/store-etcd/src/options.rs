//! What a store is told when it is opened.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

/// Long enough for an election of a leader (one to two seconds by etcd's defaults) and an attempt after it;
/// a third of it is given to one attempt at a read.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// A handshake takes a few round trips; what takes longer is not there.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// Which etcd, and what of it.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Members of one cluster, each as `host:port`, `http://host:port` or `https://host:port`. One is used at
    /// a time, the next when it fails.
    pub endpoints: Vec<String>,
    /// All keys of this installation begin with it and a slash, and no others do. Two installations in one
    /// cluster have different ones, neither the beginning of the other.
    pub prefix: String,
    /// Who we are, where the cluster asks for a password.
    pub credentials: Option<Credentials>,
    /// How to speak TLS; `None` speaks plain HTTP/2.
    pub tls: Option<Tls>,
    /// Whether a store is begun where nothing lies below the prefix. Otherwise that is
    /// [`OpenError::Absent`](crate::OpenError::Absent), and nothing is written.
    pub begin: bool,
    /// How long a call may take, attempts and pauses between them included.
    pub request_timeout: Duration,
    /// How long connecting to one member may take, TLS and the password included.
    pub connect_timeout: Duration,
}

impl EtcdOptions {
    /// The defaults: no password, no TLS, a store is begun where there is none, 5 s for a call, 2 s to connect.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>, prefix: impl Into<String>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: prefix.into(),
            credentials: None,
            tls: None,
            begin: true,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
        }
    }
}

/// A user of etcd. The password is wiped when it is dropped, and `Debug` doesn't show it.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// A user and the password, which the caller has from wherever secrets are kept.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// The name.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// TLS to etcd. Only `ca` is trusted: a cluster's certificates come from an authority of its own, and the
/// world's authorities have no say in it.
#[derive(Clone)]
pub struct Tls {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    domain: Option<String>,
}

impl Tls {
    /// Trusts servers with a certificate of `ca` (PEM, one or more certificates).
    pub fn new(ca: impl Into<Vec<u8>>) -> Self {
        Self { ca: ca.into(), identity: None, domain: None }
    }

    /// Shows this certificate (PEM, with its chain) to servers that ask for one; `key` is its private key
    /// (PEM).
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), Zeroizing::new(key.into())));
        self
    }

    /// The name that servers' certificates bear, where it isn't the host of the endpoint.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    pub(crate) fn config(&self) -> tonic::transport::ClientTlsConfig {
        use tonic::transport::{Certificate, ClientTlsConfig, Identity};
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca));
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, &**key));
        }
        if let Some(domain) = &self.domain {
            config = config.domain_name(domain);
        }
        config
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("domain", &self.domain)
            .field("identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = EtcdOptions::new(["localhost:2379"], "underpass");
        options.credentials = Some(Credentials::new("node", "sesame"));
        options.tls = Some(Tls::new("CA PEM").identity("CERT PEM", "KEY PEM"));
        let shown = format!("{options:?}");
        assert!(shown.contains("node") && shown.contains("localhost:2379"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("PEM"), "{shown}");
    }
}
