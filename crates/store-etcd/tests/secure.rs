//! TLS and passwords.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::sync::Arc;

use common::blocking;
use etcd_client::{Permission, PermissionType};
use underpass_store::{BoxError, ExpirableStore, Key, KvStore, Revision, WatchableStore};
use underpass_store_etcd::testkit::{EtcdServer, Pki, Setup};
use underpass_store_etcd::{Credentials, EtcdOptions, EtcdStore, OpenError, Tls};

async fn with(setup: Setup) -> EtcdServer {
    blocking(move || EtcdServer::with(setup)).await
}

fn chain(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Opens with another TLS, which must fail as TLS.
async fn refused(server: &EtcdServer, tls: Option<Tls>) {
    let mut options = server.options("p");
    options.tls = tls;
    let error = EtcdStore::open(options).await.unwrap_err();
    assert!(matches!(error, OpenError::Tls { .. }), "{}", chain(&error));
}

/// Writes, reads, watches, renews.
async fn works(options: EtcdOptions) -> Result<(), BoxError> {
    let store = EtcdStore::open(options).await?;
    let mut watch = store.watch(Key::open(), store.revision().await?).await?;
    let lease = store.grant(std::time::Duration::from_mins(1)).await?;
    let written = store.put_leased(&Key::from("a"), "1".into(), lease).await?;
    assert_eq!(watch.next().await?.revision, written);
    assert_eq!(store.renew(lease).await?, underpass_store::Renewal::Renewed);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 10).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_server_of_our_authority_is_trusted_and_no_other() {
    let pki = Arc::new(Pki::new());
    let server = with(Setup { tls: Some(Arc::clone(&pki)), ..Setup::default() }).await;
    works(server.options("p")).await.unwrap();
    refused(&server, Some(Tls::new(Pki::new().ca()))).await;
    refused(&server, Some(Tls::new(pki.ca()).domain("etcd.example"))).await;
    // The certificate is for both names.
    let mut options = server.options("p");
    options.tls = Some(Tls::new(pki.ca()).domain("localhost"));
    works(options).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_takes_ours_and_no_other() {
    let pki = Arc::new(Pki::new());
    let server =
        with(Setup { tls: Some(Arc::clone(&pki)), client_certificates: true, ..Setup::default() }).await;
    works(server.options("p")).await.unwrap();
    refused(&server, Some(Tls::new(pki.ca()))).await;
    let stranger = Pki::new();
    let (certificate, key) = stranger.client();
    refused(&server, Some(Tls::new(pki.ca()).identity(certificate, key))).await;
}

#[tokio::test]
async fn tls_with_a_server_that_has_none_fails_as_tls() {
    let server = with(Setup::default()).await;
    refused(&server, Some(Tls::new(Pki::new().ca()))).await;
}

#[tokio::test]
async fn no_tls_with_a_server_that_wants_it_fails() {
    let server = with(Setup { tls: Some(Arc::new(Pki::new())), ..Setup::default() }).await;
    let mut options = server.options("p");
    options.tls = None;
    options.request_timeout = std::time::Duration::from_secs(1);
    let error = EtcdStore::open(options).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn the_right_password_opens_and_a_wrong_one_does_not() {
    let server = with(Setup { root_password: Some("sesame".to_owned()), ..Setup::default() }).await;
    works(server.options("p")).await.unwrap();
    for credentials in [None, Some(("root", "guess")), Some(("nobody", "sesame"))] {
        let mut options = server.options("p");
        options.credentials = credentials.map(|(user, password)| Credentials::new(user, password));
        let start = tokio::time::Instant::now();
        let error = EtcdStore::open(options).await.unwrap_err();
        assert!(matches!(error, OpenError::Credentials { .. }), "{}", chain(&error));
        assert!(!chain(&error).contains("guess"));
        // Time doesn't mend it, so none is spent.
        assert!(start.elapsed() < std::time::Duration::from_secs(4));
    }
}

#[tokio::test]
async fn a_user_needs_rights_below_the_prefix_and_no_others() {
    let server = with(Setup { root_password: Some("sesame".to_owned()), ..Setup::default() }).await;
    let mut client = server.client().await;
    client.user_add("node", "pass", None).await.unwrap();
    client.role_add("tunnels").await.unwrap();
    client.user_grant_role("node", "tunnels").await.unwrap();
    let mut options = server.options("site/underpass");
    options.credentials = Some(Credentials::new("node", "pass"));
    let error = EtcdStore::open(options.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Denied { .. }), "{}", chain(&error));
    let below = Permission::new(PermissionType::Readwrite, "site/underpass/").with_prefix();
    client.role_grant_permission("tunnels", below).await.unwrap();
    works(options).await.unwrap();
}

/// A server forgets the tokens that it gave when it is started again: each is asked for anew.
#[tokio::test]
async fn a_forgotten_token_is_asked_for_again() {
    let server = Arc::new(with(Setup { root_password: Some("sesame".to_owned()), ..Setup::default() }).await);
    let store = EtcdStore::open(server.options("p")).await.unwrap();
    let key = Key::from("a");
    let mut watch = store.watch(Key::open(), Revision(0)).await.unwrap();
    let first = store.put(&key, "1".into()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, first);
    let restarted = Arc::clone(&server);
    blocking(move || {
        restarted.kill();
        restarted.restart();
    })
    .await;
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, "1");
    let second = store.put(&key, "2".into()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, second);
}
