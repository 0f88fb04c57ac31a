//! Cases for [`CasStore`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::limits::COMMIT_OP_BYTES;
use crate::testkit::harness::Checked;
use crate::testkit::tools::{assert_refused, committed, is_there, key, put, revision_of, value};
use crate::{CasStore, Commit, Guard, Key, KvStore, Outcome, Revision, Store};

/// Promise 1.
pub async fn a_commit_writes_everything_in_one_revision(store: Arc<dyn Store>) -> Checked {
    let before = put(&*store, "old", "x").await?;
    let revision = committed(&*store, Commit::new().put("a", "1").put("b", "2").delete("old")).await?;
    assert!(revision > before);
    assert_eq!(revision_of(&*store, "a").await?, Some(revision));
    assert_eq!(revision_of(&*store, "b").await?, Some(revision));
    assert_eq!(revision_of(&*store, "old").await?, None);
    Ok(())
}

/// Not only is the guarded key untouched: *no* write happens.
pub async fn a_commit_with_a_broken_guard_writes_nothing(store: Arc<dyn Store>) -> Checked {
    let stale = put(&*store, "guarded", "old").await?;
    let fresh = put(&*store, "guarded", "new").await?;
    let bystander = put(&*store, "victim", "alive").await?;
    let commit = Commit::new()
        .guard("guarded", Guard::At(stale))
        .put("guarded", "overwritten")
        .put("bystander", "written")
        .delete("victim");
    assert!(matches!(store.commit(commit).await?, Outcome::Conflict(_)));
    assert_eq!(revision_of(&*store, "guarded").await?, Some(fresh));
    assert_eq!(revision_of(&*store, "bystander").await?, None);
    assert_eq!(revision_of(&*store, "victim").await?, Some(bystander));
    Ok(())
}

/// Promise 2: those that failed, all of them, and only them.
pub async fn a_conflict_tells_how_the_failed_guards_stand(store: Arc<dyn Store>) -> Checked {
    let a = put(&*store, "a", "1").await?;
    let b = put(&*store, "b", "2").await?;
    let commit = Commit::new()
        .guard("a", Guard::Absent)
        .guard("b", Guard::At(b))
        .guard("c", Guard::At(b))
        .guard("d", Guard::Absent)
        .put("e", "3");
    assert_eq!(store.commit(commit).await?, Outcome::Conflict(vec![(key("a"), Some(a)), (key("c"), None)]));
    Ok(())
}

/// A conflict is no write.
pub async fn a_conflict_makes_no_revision(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "1").await?;
    let before = store.revision().await?;
    let outcome = store.commit(Commit::new().guard("a", Guard::Absent).put("a", "2")).await?;
    assert!(outcome.committed().is_none());
    assert_eq!(store.revision().await?, before);
    Ok(())
}

/// How a thing is made once.
pub async fn an_absent_guard_holds_once(store: Arc<dyn Store>) -> Checked {
    let create = Commit::new().guard("a", Guard::Absent).put("a", "1");
    let revision = committed(&*store, create.clone()).await?;
    assert_eq!(store.commit(create).await?, Outcome::Conflict(vec![(key("a"), Some(revision))]));
    Ok(())
}

/// Neither an older nor a later one will do.
pub async fn an_at_guard_holds_for_the_last_write_only(store: Arc<dyn Store>) -> Checked {
    let first = put(&*store, "a", "1").await?;
    let second = put(&*store, "a", "2").await?;
    for wrong in [first, Revision(second.0 + 1), Revision(0)] {
        let outcome = store.commit(Commit::new().guard("a", Guard::At(wrong)).put("a", "3")).await?;
        assert_eq!(outcome, Outcome::Conflict(vec![(key("a"), Some(second))]));
    }
    committed(&*store, Commit::new().guard("a", Guard::At(second)).put("a", "3")).await?;
    assert_eq!(value(&*store, "a").await?, Some("3".into()));
    Ok(())
}

/// The same value again is another write: no ABA.
pub async fn writing_the_same_value_again_breaks_an_at_guard(store: Arc<dyn Store>) -> Checked {
    let first = put(&*store, "a", "same").await?;
    put(&*store, "a", "same").await?;
    let outcome = store.commit(Commit::new().guard("a", Guard::At(first)).put("b", "x")).await?;
    assert!(matches!(outcome, Outcome::Conflict(_)));
    Ok(())
}

/// Deleted and made anew is not what it was.
pub async fn deleting_and_putting_again_breaks_an_at_guard(store: Arc<dyn Store>) -> Checked {
    let first = put(&*store, "a", "1").await?;
    store.delete(&key("a")).await?;
    let gone = store.commit(Commit::new().guard("a", Guard::At(first)).put("b", "x")).await?;
    assert_eq!(gone, Outcome::Conflict(vec![(key("a"), None)]));
    let again = put(&*store, "a", "1").await?;
    let other = store.commit(Commit::new().guard("a", Guard::At(first)).put("b", "x")).await?;
    assert_eq!(other, Outcome::Conflict(vec![(key("a"), Some(again))]));
    Ok(())
}

/// A deleted entry leaves no ghost.
pub async fn an_absent_guard_holds_where_an_entry_was_deleted(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "1").await?;
    store.delete(&key("a")).await?;
    committed(&*store, Commit::new().guard("a", Guard::Absent).put("a", "2")).await?;
    Ok(())
}

/// An empty value is still there.
pub async fn an_absent_guard_fails_on_an_empty_value(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "").await?;
    let outcome = store.commit(Commit::new().guard("a", Guard::Absent).put("a", "x")).await?;
    assert!(matches!(outcome, Outcome::Conflict(_)));
    Ok(())
}

/// How an append is fenced by a lease it doesn't touch.
pub async fn a_guard_may_stand_where_nothing_is_written(store: Arc<dyn Store>) -> Checked {
    let fence = put(&*store, "fence", "mine").await?;
    let append = |value: &'static str| Commit::new().guard("fence", Guard::At(fence)).put("log", value);
    committed(&*store, append("1")).await?;
    assert_eq!(revision_of(&*store, "fence").await?, Some(fence));
    put(&*store, "fence", "theirs").await?;
    assert!(matches!(store.commit(append("2")).await?, Outcome::Conflict(_)));
    assert_eq!(value(&*store, "log").await?, Some("1".into()));
    Ok(())
}

/// No guard, no conflict.
pub async fn a_commit_without_guards_happens(store: Arc<dyn Store>) -> Checked {
    committed(&*store, Commit::new().put("a", "1")).await?;
    committed(&*store, Commit::new().put("a", "2")).await?;
    assert_eq!(value(&*store, "a").await?, Some("2".into()));
    Ok(())
}

/// A late goodbye deletes only what it wrote itself.
pub async fn an_entry_can_be_deleted_at_its_revision_only(store: Arc<dyn Store>) -> Checked {
    let mine = put(&*store, "presence", "node a").await?;
    let goodbye = Commit::new().guard("presence", Guard::At(mine)).delete("presence");
    let theirs = put(&*store, "presence", "node b").await?;
    assert!(matches!(store.commit(goodbye).await?, Outcome::Conflict(_)));
    assert_eq!(revision_of(&*store, "presence").await?, Some(theirs));
    committed(&*store, Commit::new().guard("presence", Guard::At(theirs)).delete("presence")).await?;
    assert!(!is_there(&*store, "presence").await?);
    Ok(())
}

/// What else is in the commit happens.
pub async fn a_commit_may_delete_what_is_absent(store: Arc<dyn Store>) -> Checked {
    let revision = committed(&*store, Commit::new().delete("nothing").put("a", "1")).await?;
    assert_eq!(revision_of(&*store, "a").await?, Some(revision));
    Ok(())
}

/// Promise 6.
pub async fn a_commit_that_changes_nothing_makes_no_revision(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "1").await?;
    let before = store.revision().await?;
    let outcome = store.commit(Commit::new().delete("nothing").delete("nowhere")).await?;
    assert_eq!(outcome, Outcome::Committed(before));
    assert_eq!(store.revision().await?, before);
    Ok(())
}

/// The heart of it.
pub async fn of_many_racing_commits_one_wins(store: Arc<dyn Store>) -> Checked {
    for _ in 0..5 {
        let head = put(&*store, "head", "0").await?;
        let mut racers = JoinSet::new();
        for racer in 0..50_u8 {
            let store = Arc::clone(&store);
            racers.spawn(async move {
                let commit = Commit::new()
                    .guard("head", Guard::At(head))
                    .put("head", vec![racer])
                    .put(Key::from(vec![b'r', racer]), Bytes::new());
                (racer, store.commit(commit).await)
            });
        }
        let mut winners = Vec::new();
        while let Some(raced) = racers.join_next().await {
            let (racer, outcome) = raced?;
            match outcome? {
                Outcome::Committed(revision) => winners.push((racer, revision)),
                Outcome::Conflict(failed) => assert_eq!(failed.len(), 1),
            }
        }
        let [(winner, revision)] = winners[..] else {
            return Err(format!("{} winners", winners.len()).into());
        };
        let head = store.get(&key("head")).await?.ok_or("absent")?;
        assert_eq!((head.value[0], head.revision), (winner, revision));
        let traces = store.scan(&key("r"), &key("r").prefix_end(), 100).await?;
        assert_eq!(traces.len(), 1, "a loser has written");
        store.delete(&traces[0].key).await?;
    }
    Ok(())
}

/// Read, decide, commit, and again on a conflict: no increment is lost, none counts twice.
pub async fn racing_increments_add_up(store: Arc<dyn Store>) -> Checked {
    const WORKERS: u64 = 8;
    const EACH: u64 = 10;
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let store = Arc::clone(&store);
        workers.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let current = store.get(&key("count")).await?;
                    let (guard, count) = match current {
                        None => (Guard::Absent, 0),
                        Some(entry) => {
                            (Guard::At(entry.revision), u64::from_be_bytes(entry.value[..].try_into()?))
                        }
                    };
                    let next = (count + 1).to_be_bytes().to_vec();
                    let commit = Commit::new().guard("count", guard).put("count", next);
                    if store.commit(commit).await?.committed().is_some() {
                        break;
                    }
                }
            }
            Checked::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let count = value(&*store, "count").await?.ok_or("absent")?;
    assert_eq!(u64::from_be_bytes(count[..].try_into()?), WORKERS * EACH);
    Ok(())
}

/// Promise 5: what makes an unknown outcome known.
pub async fn an_identical_commit_sent_again_conflicts_with_itself(store: Arc<dyn Store>) -> Checked {
    let head = put(&*store, "head", "0").await?;
    let commit = Commit::new().guard("head", Guard::At(head)).put("head", "1").put("frame/1", "f");
    let revision = committed(&*store, commit.clone()).await?;
    assert_eq!(store.commit(commit).await?, Outcome::Conflict(vec![(key("head"), Some(revision))]));
    Ok(())
}

/// Commits that follow each other at once see each other, also where a backend groups them.
pub async fn commits_in_flight_are_decided_one_after_another(store: Arc<dyn Store>) -> Checked {
    let mut commits = JoinSet::new();
    for number in 0..60_u8 {
        let store = Arc::clone(&store);
        commits.spawn(async move {
            let slot = Key::from(vec![b's', number / 3]);
            let commit = Commit::new().guard(&slot, Guard::Absent).put(&slot, vec![number]);
            store.commit(commit).await
        });
    }
    let mut won = 0;
    while let Some(outcome) = commits.join_next().await {
        won += usize::from(outcome??.committed().is_some());
    }
    assert_eq!(won, 20);
    Ok(())
}

/// Promise 1: two entries that are always written together are never read apart.
pub async fn a_scan_never_shows_half_a_commit(store: Arc<dyn Store>) -> Checked {
    let writer = Arc::clone(&store);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 0..60_u8 {
            committed(&*writer, Commit::new().put("pair/a", vec![number]).put("pair/b", vec![number]))
                .await?;
        }
        Checked::Ok(())
    });
    while tasks.try_join_next().transpose()?.transpose()?.is_none() {
        // Both ways of scanning: few entries and many.
        for limit in [2, 1000] {
            let pair = store.scan(&key("pair/"), &key("pair0"), limit).await?;
            if let [a, b] = &pair[..] {
                assert_eq!((&a.value, a.revision), (&b.value, b.revision));
            } else {
                assert!(pair.is_empty());
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Promise 3. Guards alone are no commit.
pub async fn a_commit_without_a_write_is_refused(store: Arc<dyn Store>) -> Checked {
    assert_refused(store.commit(Commit::new()).await);
    assert_refused(store.commit(Commit::new().guard("a", Guard::Absent)).await);
    Ok(())
}

/// Promise 3, in every mixture, and nothing of it happens.
pub async fn a_key_written_twice_is_refused(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "before").await?;
    for commit in [
        Commit::new().put("a", "1").put("a", "2"),
        Commit::new().put("a", "1").delete("a"),
        Commit::new().delete("a").put("a", "1"),
        Commit::new().delete("a").delete("a"),
    ] {
        assert_refused(store.commit(commit.put("b", "x")).await);
    }
    assert_eq!(value(&*store, "a").await?, Some("before".into()));
    assert!(!is_there(&*store, "b").await?);
    Ok(())
}

/// Promise 3.
pub async fn a_key_guarded_twice_is_refused(store: Arc<dyn Store>) -> Checked {
    let commit = Commit::new().guard("a", Guard::Absent).guard("a", Guard::Absent).put("b", "x");
    assert_refused(store.commit(commit).await);
    assert!(!is_there(&*store, "b").await?);
    Ok(())
}

/// Writes and guards count each for themselves.
pub async fn a_commit_may_have_as_many_writes_and_guards_as_allowed(store: Arc<dyn Store>) -> Checked {
    let mut commit = Commit::new();
    for number in 0..store.limits().commit_ops_max {
        let name = format!("k/{number:05}");
        commit = commit.guard(name.as_str(), Guard::Absent).put(name, "x");
    }
    let revision = committed(&*store, commit).await?;
    let found = store.scan(&key("k/"), &key("k0"), 10_000).await?;
    assert_eq!(found.len(), store.limits().commit_ops_max);
    assert!(found.iter().all(|entry| entry.revision == revision));
    Ok(())
}

/// Promise 3.
pub async fn a_commit_with_too_many_writes_is_refused(store: Arc<dyn Store>) -> Checked {
    let commit = (0..=store.limits().commit_ops_max)
        .fold(Commit::new(), |commit, number| commit.put(format!("k/{number}"), "x"));
    assert_refused(store.commit(commit).await);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 1).await?, []);
    Ok(())
}

/// Promise 3.
pub async fn a_commit_with_too_many_guards_is_refused(store: Arc<dyn Store>) -> Checked {
    let commit = (0..=store.limits().commit_ops_max)
        .fold(Commit::new(), |commit, number| commit.guard(format!("k/{number}"), Guard::Absent));
    assert_refused(store.commit(commit.put("a", "x")).await);
    assert!(!is_there(&*store, "a").await?);
    Ok(())
}

/// A commit of exactly `bytes` bytes.
fn commit_of(store: &dyn Store, bytes: usize) -> Commit {
    let mut commit = Commit::new();
    let mut left = bytes;
    let mut number = 0;
    while left > 0 {
        number += 1;
        let name = format!("k/{number:03}");
        let room = left - name.len() - COMMIT_OP_BYTES;
        let value = room.min(store.limits().value_bytes_max / 2);
        commit = commit.put(name, vec![0; value]);
        left -= 5 + COMMIT_OP_BYTES + value;
    }
    commit
}

/// The limit itself is allowed.
pub async fn the_largest_commit_happens(store: Arc<dyn Store>) -> Checked {
    let commit = commit_of(&*store, store.limits().commit_bytes_max);
    assert_eq!(commit.bytes(), store.limits().commit_bytes_max);
    let writes = commit.writes().len();
    committed(&*store, commit).await?;
    assert_eq!(store.scan(&key("k/"), &key("k0"), 100).await?.len(), writes);
    Ok(())
}

/// Promise 3.
pub async fn a_commit_that_is_too_large_is_refused(store: Arc<dyn Store>) -> Checked {
    let commit = commit_of(&*store, store.limits().commit_bytes_max).delete("x");
    assert_refused(store.commit(commit).await);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 1).await?, []);
    Ok(())
}

/// The limits of single writes hold in commits, too.
pub async fn a_commit_with_a_bad_key_or_value_is_refused(store: Arc<dyn Store>) -> Checked {
    let long = Key::from(vec![b'k'; store.limits().key_bytes_max + 1]);
    let large = vec![0; store.limits().value_bytes_max + 1];
    for commit in [
        Commit::new().put(Key::open(), "x"),
        Commit::new().delete(Key::open()),
        Commit::new().guard(Key::open(), Guard::Absent),
        Commit::new().put(&long, "x"),
        Commit::new().delete(&long),
        Commit::new().guard(&long, Guard::Absent),
        Commit::new().put("b", large),
    ] {
        assert_refused(store.commit(commit.put("a", "x")).await);
    }
    assert_eq!(store.scan(&Key::open(), &Key::open(), 1).await?, []);
    Ok(())
}
