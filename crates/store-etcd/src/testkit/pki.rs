//! Certificates for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// An authority, and what it vouches for: servers on loopback, and clients.
#[derive(Debug)]
pub struct Pki {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Pki {
    /// A new authority with keys of its own.
    pub fn new() -> Self {
        let mut params = named("test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let issue = |mut params: CertificateParams| {
            // etcd's own gateway is a client of the server with the server's certificate.
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            (certificate.pem(), key.serialize_pem())
        };
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = issue(CertificateParams::new(names).expect("names"));
        let client = issue(named("test client"));
        Self { ca: authority.pem(), server, client }
    }

    /// The authority's certificate (PEM).
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The certificate and key (PEM) of servers on `127.0.0.1` and `localhost`.
    pub fn server(&self) -> (&str, &str) {
        (&self.server.0, &self.server.1)
    }

    /// The certificate and key (PEM) of a client.
    pub fn client(&self) -> (&str, &str) {
        (&self.client.0, &self.client.1)
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
