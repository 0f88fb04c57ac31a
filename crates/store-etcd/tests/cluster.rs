//! Three members, one of which fails while others write: nothing acknowledged is lost, nothing is doubled, the
//! order is kept.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;
mod load;

use std::sync::Arc;
use std::time::Duration;

use common::{blocking, times};
use load::Load;
use tokio::time::sleep;
use underpass_store::{Key, KvStore, Revision, WatchableStore};
use underpass_store_etcd::EtcdStore;
use underpass_store_etcd::testkit::EtcdCluster;

async fn cluster() -> Arc<EtcdCluster> {
    blocking(|| Arc::new(EtcdCluster::start(3))).await
}

/// Does something to the cluster on the thread for it.
async fn with(cluster: &Arc<EtcdCluster>, act: impl FnOnce(&EtcdCluster) + Send + 'static) {
    let cluster = Arc::clone(cluster);
    blocking(move || act(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_and_comes_back_nothing_is_lost_or_doubled() {
    let cluster = cluster().await;
    let load = Load::start(&cluster).await;
    for _ in 0..times(1) {
        load.progress().await;
        with(&cluster, |cluster| {
            let dead = cluster.leader();
            dead.kill();
            // Another one leads.
            cluster.leader();
            std::thread::sleep(Duration::from_secs(1));
            dead.restart();
        })
        .await;
        load.progress().await;
    }
    load.check("leader killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_hangs_for_five_seconds_nothing_is_lost_or_doubled() {
    let cluster = cluster().await;
    let load = Load::start(&cluster).await;
    for _ in 0..times(1) {
        load.progress().await;
        with(&cluster, |cluster| {
            let asleep = cluster.leader();
            asleep.pause();
            std::thread::sleep(Duration::from_secs(5));
            asleep.resume();
        })
        .await;
        load.progress().await;
    }
    load.check("leader paused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_member_is_started_again_nothing_is_lost_or_doubled() {
    let cluster = cluster().await;
    let load = Load::start(&cluster).await;
    for _ in 0..times(2) {
        load.progress().await;
        with(&cluster, |cluster| {
            let member = cluster.follower();
            member.kill();
            std::thread::sleep(Duration::from_millis(500));
            member.restart();
        })
        .await;
        load.progress().await;
    }
    load.check("member restarted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_compaction_nothing_is_lost_or_doubled() {
    let cluster = cluster().await;
    let load = Load::start(&cluster).await;
    let mut client = cluster.members()[0].client().await;
    for _ in 0..times(40) {
        sleep(Duration::from_millis(100)).await;
        let now = client.get("x", None).await.unwrap().header().unwrap().revision();
        client.compact(now, None).await.unwrap();
    }
    load.progress().await;
    load.check("compaction").await;
}

/// Two of three: without a majority nothing is acknowledged, and what is unknown becomes known afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_majority_is_away_for_a_while_nothing_is_lost_or_doubled() {
    let cluster = cluster().await;
    let load = Load::start(&cluster).await;
    load.progress().await;
    with(&cluster, |cluster| {
        let [one, other, _] = cluster.members() else { panic!("three members") };
        one.kill();
        other.kill();
        std::thread::sleep(Duration::from_secs(3));
        one.restart_without_waiting();
        other.restart_without_waiting();
        one.wait_until_ready();
        other.wait_until_ready();
    })
    .await;
    load.progress().await;
    load.check("majority away").await;
}

/// Nothing comes and nothing breaks: only the pings of the connection tell. The writers go on with the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_a_member_that_hangs_moves_to_another() {
    let cluster = cluster().await;
    let first = cluster.members()[0].endpoint();
    let mut options = cluster.options("p");
    options.request_timeout = Duration::from_secs(2);
    let watching = EtcdStore::open(options.clone()).await.unwrap();
    options.endpoints.retain(|endpoint| *endpoint != first);
    let writing = EtcdStore::open(options).await.unwrap();
    let key = Key::from("a");
    let mut watch = watching.watch(key.clone(), Revision(0)).await.unwrap();
    let before = writing.put(&key, "1".into()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, before);
    with(&cluster, |cluster| cluster.members()[0].pause()).await;
    let after = loop {
        // The one that hangs may have been the leader.
        if let Ok(revision) = writing.put(&Key::from("b"), "x".into()).await {
            assert!(revision > before);
            break writing.put(&key, "2".into()).await.unwrap();
        }
    };
    let told = tokio::time::timeout(Duration::from_mins(1), watch.next()).await.unwrap().unwrap();
    assert_eq!(told.revision, after);
    assert_eq!(watching.get(&key).await.unwrap().unwrap().revision, after);
}
