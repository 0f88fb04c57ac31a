//! Whose prefix it is, and whether there is an etcd at all.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{blocking, unused};
use etcd_client::{Client, GetOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;
use underpass_store::{Key, KvStore, Retry, Revision, WatchableStore};
use underpass_store_etcd::testkit::EtcdServer;
use underpass_store_etcd::{Credentials, EtcdOptions, EtcdStore, OpenError};

async fn server() -> EtcdServer {
    blocking(EtcdServer::start).await
}

/// All keys of a server with the revisions of their last writes.
async fn everything(client: &mut Client) -> Vec<(Vec<u8>, i64)> {
    let mut all = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    all.take_kvs().into_iter().map(|stored| (stored.key().to_vec(), stored.mod_revision())).collect()
}

#[tokio::test]
async fn an_unused_prefix_is_marked_once() {
    let server = server().await;
    let mut client = server.client().await;
    EtcdStore::open(server.options("site/underpass/")).await.unwrap().close().await;
    let after = everything(&mut client).await;
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].0, b"site/underpass/format");
    let marker = client.get("site/underpass/format", None).await.unwrap();
    assert_eq!(marker.kvs()[0].value(), b"underpass-store-etcd\nformat 1\n");
    EtcdStore::open(server.options("site/underpass")).await.unwrap();
    assert_eq!(everything(&mut client).await, after);
}

/// Nodes of an installation start together.
#[tokio::test]
async fn many_may_open_an_unused_prefix_at_once() {
    let server = server().await;
    let mut openers = JoinSet::new();
    for _ in 0..10 {
        openers.spawn(EtcdStore::open(server.options("p")));
    }
    while let Some(opened) = openers.join_next().await {
        opened.unwrap().unwrap();
    }
    assert_eq!(everything(&mut server.client().await).await.len(), 1);
}

#[tokio::test]
async fn a_prefix_that_others_use_is_refused_and_left_alone() {
    let server = server().await;
    let mut client = server.client().await;
    client.put("theirs/settings", "x", None).await.unwrap();
    client.put("marked/format", "another-program\nformat 1\n", None).await.unwrap();
    client.put("odd/format", "underpass-store-etcd\nformat one\n", None).await.unwrap();
    client.put("empty/format", "", None).await.unwrap();
    let before = everything(&mut client).await;
    for prefix in ["theirs", "marked", "odd", "empty"] {
        let error = EtcdStore::open(server.options(prefix)).await.unwrap_err();
        assert!(matches!(&error, OpenError::Foreign { prefix: named } if named == prefix), "{error}");
        assert!(error.to_string().contains("name an unused prefix"));
        assert_eq!(error.retry(), Retry::Never);
    }
    assert_eq!(everything(&mut client).await, before);
    // A neighbour whose name goes on differently is no matter.
    EtcdStore::open(server.options("their")).await.unwrap();
}

#[tokio::test]
async fn a_prefix_within_another_installation_is_refused_and_so_is_one_around_it() {
    let server = server().await;
    EtcdStore::open(server.options("a/b")).await.unwrap();
    for prefix in ["a", "a/b/c", "a/b/k"] {
        let error = EtcdStore::open(server.options(prefix)).await.unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{prefix}: {error}");
    }
    assert_eq!(everything(&mut server.client().await).await.len(), 1);
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let server = server().await;
    let mut client = server.client().await;
    client.put("p/format", "underpass-store-etcd\nformat 2\n", None).await.unwrap();
    let error = EtcdStore::open(server.options("p")).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn installations_side_by_side_see_nothing_of_each_other() {
    let server = server().await;
    let [one, other] = [unused(), unused()];
    let one = EtcdStore::open(server.options(&one)).await.unwrap();
    let other = EtcdStore::open(server.options(&other)).await.unwrap();
    let key = Key::from("a");
    let mut watch = other.watch(Key::open(), Revision(0)).await.unwrap();
    one.put(&key, "1".into()).await.unwrap();
    assert_eq!(other.get(&key).await.unwrap(), None);
    assert_eq!(other.scan(&Key::open(), &Key::open(), 10).await.unwrap(), []);
    let written = other.put(&key, "2".into()).await.unwrap();
    let told = watch.next().await.unwrap();
    assert_eq!((told.revision, told.changes.len()), (written, 1));
    assert_eq!(one.get(&key).await.unwrap().unwrap().value, "1");
}

#[tokio::test]
async fn where_nobody_listens_opening_says_so_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = EtcdOptions::new([free.to_string(), "localhost:1".to_owned()], "p");
    options.request_timeout = Duration::from_secs(1);
    let start = Instant::now();
    let error = EtcdStore::open(options).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert_eq!(error.retry(), Retry::Same);
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// The system takes the connection; nobody answers on it.
#[tokio::test]
async fn where_nobody_answers_opening_says_so_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = EtcdOptions::new([silent.local_addr().unwrap().to_string()], "p");
    options.request_timeout = Duration::from_secs(1);
    let error = tokio::time::timeout(Duration::from_secs(10), EtcdStore::open(options)).await.unwrap();
    assert!(matches!(error, Err(OpenError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn one_member_that_answers_is_enough() {
    let server = server().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = server.options("p");
    options.connect_timeout = Duration::from_millis(300);
    options.endpoints =
        vec![silent.local_addr().unwrap().to_string(), "127.0.0.1:1".to_owned(), server.endpoint()];
    let store = EtcdStore::open(options).await.unwrap();
    store.put(&Key::from("a"), "1".into()).await.unwrap();
}

#[tokio::test]
async fn options_that_contradict_themselves_are_refused() {
    let changes: [fn(&mut EtcdOptions); 4] = [
        |options| options.endpoints.clear(),
        |options| options.endpoints = vec!["https://127.0.0.1:1".to_owned()],
        |options| options.prefix = "/".to_owned(),
        |options| options.prefix = "p".repeat(1000),
    ];
    for change in changes {
        let mut options = EtcdOptions::new(["127.0.0.1:1"], "p");
        change(&mut options);
        let error = EtcdStore::open(options).await.unwrap_err();
        assert!(matches!(error, OpenError::Options { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_password_where_none_is_asked_for_is_refused() {
    let server = server().await;
    let mut options = server.options("p");
    options.credentials = Some(Credentials::new("root", "sesame"));
    let error = EtcdStore::open(options).await.unwrap_err();
    assert!(matches!(error, OpenError::Credentials { .. }), "{error}");
}

#[tokio::test]
async fn a_store_that_must_be_there_is_not_begun() {
    let server = blocking(EtcdServer::start).await;
    let mut options = server.options("p");
    options.begin = false;
    let error = EtcdStore::open(options.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Absent { .. }), "{error}");
    assert_eq!(server.content().await, [], "and nothing is written");
    EtcdStore::open(server.options("p")).await.unwrap();
    EtcdStore::open(options).await.unwrap();
}
