//! Killed in the middle of writing.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{is_right, name, open, times, value};
use underpass_store::testkit::Seeded;
use underpass_store::{CasStore, Commit, KvStore, Revision};

const WRITE: &str = "UNDERPASS_TEST_WRITE";
const WRITERS: u64 = 8;

/// The other half of the next test: writes until it is killed, and says what was acknowledged.
#[test]
fn write_until_killed() {
    let Ok(path) = std::env::var(WRITE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(Path::new(&path)).unwrap());
        let start = store.revision().await.unwrap().0;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for round in 0.. {
                    let number = start * 1000 + round * WRITERS + writer;
                    let twin = name(number).join("/twin");
                    let commit = Commit::new().put(name(number), value(number)).put(twin, value(number));
                    let revision = store.commit(commit).await.unwrap().committed().unwrap();
                    println!("ack {number} {revision}");
                }
            });
        }
        writers.join_next().await;
    });
}

/// C61, as far as the store goes: everything acknowledged is there, whole, at its revision.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Seeded::new(3);
    let mut acknowledged = Vec::new();
    for _ in 0..times(6) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env(WRITE, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 20 + usize::try_from(random.below(100)).unwrap();
        let mut read = 0;
        while let Some(Ok(line)) = lines.next() {
            // What was acknowledged may share its line with the words of the test runner.
            let Some((_, ack)) = line.split_once("ack ") else {
                continue;
            };
            // The last line may be cut off by the kill.
            if let Some((number, revision)) = ack.split_once(' ')
                && let (Ok(number), Ok(revision)) = (number.parse::<u64>(), revision.parse::<u64>())
            {
                acknowledged.push((number, Revision(revision)));
            }
            read += 1;
            if read == enough {
                child.kill().unwrap();
            }
        }
        assert!(read >= enough, "the writer ended by itself");
        child.wait().unwrap();
        acknowledged.pop();

        let store = open(folder.path()).unwrap();
        let stands = store.revision().await.unwrap();
        for (number, revision) in &acknowledged {
            let entry = store.get(&name(*number)).await.unwrap().unwrap();
            assert!(is_right(&entry, *number));
            assert_eq!(entry.revision, *revision);
            assert!(*revision <= stands);
        }
        // Acknowledged or not: commits are whole, and every revision up to the last is there, once.
        let all = store.scan(&name(0), &underpass_store::Key::from("entry0"), usize::MAX).await.unwrap();
        for pair in all.chunks(2) {
            assert_eq!(pair[1].key, pair[0].key.join("/twin"));
            assert_eq!((&pair[0].value, pair[0].revision), (&pair[1].value, pair[1].revision));
        }
        let mut revisions: Vec<_> = all.chunks(2).map(|pair| pair[0].revision.0).collect();
        revisions.sort_unstable();
        assert_eq!(revisions, (1..=stands.0).collect::<Vec<_>>());
        store.close().await;
    }
    assert!(acknowledged.len() > 100);
}
