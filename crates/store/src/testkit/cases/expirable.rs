//! Cases for [`ExpirableStore`]. They run at once, in real time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::limits::LEASE_TTL_MAX;
use crate::testkit::harness::Checked;
use crate::testkit::tools::{
    A_WHILE, assert_lease_gone, assert_refused, committed, entry, is_there, key, keys, next, put, silent,
    watch_all,
};
use crate::{
    BoxError, CasStore, Change, Commit, ExpirableStore, Guard, KvStore, LeaseId, Outcome, Renewal, Store,
};

/// The shortest lease that every backend can do.
const TTL: Duration = Duration::from_secs(2);

/// A lease, and the instant from which its ttl counts.
async fn lease(store: &dyn Store) -> Result<(LeaseId, Instant), BoxError> {
    let lease = store.grant(TTL).await?;
    Ok((lease, Instant::now()))
}

async fn put_leased(store: &dyn Store, at: &str, lease: LeaseId) -> Checked {
    store.put_leased(&key(at), "leased".into(), lease).await?;
    Ok(())
}

/// Waits until a lease whose ttl counts from `since` must be gone.
async fn outlive(store: &dyn Store, since: Instant) {
    sleep_until(since + TTL + store.limits().expiry_slack).await;
}

/// Whether the entry at `at` is there all the time until `until`.
async fn stays(store: &dyn Store, at: &str, until: Instant) -> Result<bool, BoxError> {
    loop {
        let there = is_there(store, at).await?;
        // The answer counts only if it came in time.
        if Instant::now() >= until {
            return Ok(true);
        }
        if !there {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Promise 1.
pub async fn a_leased_entry_is_there_for_its_ttl(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    assert!(stays(&*store, "a", since + TTL).await?);
    Ok(())
}

/// Promise 2.
pub async fn a_leased_entry_is_gone_when_its_lease_has_run_out(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    outlive(&*store, since).await;
    assert_eq!(entry(&*store, "a").await?, None);
    assert_eq!(keys(&*store, "", "").await?, [""; 0]);
    Ok(())
}

/// Promise 1 with renewals: well beyond the first ttl.
pub async fn a_renewed_lease_lives_on(store: Arc<dyn Store>) -> Checked {
    let (lease, mut since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    for _ in 0..3 {
        assert!(stays(&*store, "a", since + TTL * 2 / 3).await?);
        assert_eq!(store.renew(lease).await?, Renewal::Renewed);
        since = Instant::now();
    }
    assert!(stays(&*store, "a", since + TTL).await?);
    Ok(())
}

/// Promise 2 with renewals: each starts the same ttl, none adds up.
pub async fn renewals_do_not_add_up(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    for _ in 0..10 {
        assert_eq!(store.renew(lease).await?, Renewal::Renewed);
    }
    outlive(&*store, Instant::now()).await;
    assert!(!is_there(&*store, "a").await?);
    Ok(())
}

/// Promise 4.
pub async fn a_lease_that_ran_out_is_not_revived(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    outlive(&*store, since).await;
    assert_eq!(store.renew(lease).await?, Renewal::Gone);
    assert!(!is_there(&*store, "a").await?);
    assert_lease_gone(store.put_leased(&key("b"), "x".into(), lease).await);
    assert!(!is_there(&*store, "b").await?);
    Ok(())
}

/// Promise 3, as a watcher sees it who is the only one to look.
pub async fn all_entries_of_a_lease_go_in_one_commit_without_a_reader(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    for at in ["c", "a", "b"] {
        put_leased(&*store, at, lease).await?;
    }
    let mut watch = watch_all(&*store).await?;
    let batch = next(&mut watch).await?;
    let mut gone: Vec<_> = batch.changes;
    gone.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(gone, ["a", "b", "c"].map(|at| Change::Deleted(key(at))));
    assert_eq!(keys(&*store, "", "").await?, [""; 0]);
    assert!(silent(&mut watch).await);
    Ok(())
}

/// Promise 3: it is a commit like any other.
pub async fn an_expiry_has_a_revision(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    let before = store.revision().await?;
    outlive(&*store, since).await;
    assert!(store.revision().await? > before);
    Ok(())
}

/// Promise 5.
pub async fn a_plain_put_takes_an_entry_off_its_lease(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    put_leased(&*store, "b", lease).await?;
    put(&*store, "a", "plain").await?;
    committed(&*store, Commit::new().put("b", "plain")).await?;
    assert_eq!(entry(&*store, "a").await?.ok_or("absent")?.lease, None);
    outlive(&*store, since).await;
    assert_eq!(keys(&*store, "", "").await?, ["a", "b"]);
    Ok(())
}

/// Promise 5.
pub async fn a_leased_put_moves_an_entry_to_its_lease(store: Arc<dyn Store>) -> Checked {
    let (first, since) = lease(&*store).await?;
    put_leased(&*store, "a", first).await?;
    put_leased(&*store, "b", first).await?;
    let second = store.grant(Duration::from_mins(1)).await?;
    put_leased(&*store, "a", second).await?;
    assert_eq!(entry(&*store, "a").await?.ok_or("absent")?.lease, Some(second));
    outlive(&*store, since).await;
    assert_eq!(keys(&*store, "", "").await?, ["a"]);
    store.revoke(second).await?;
    assert!(!is_there(&*store, "a").await?);
    Ok(())
}

/// Promise 5: also from none to one.
pub async fn a_plain_entry_can_be_put_on_a_lease(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "plain").await?;
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    outlive(&*store, since).await;
    assert!(!is_there(&*store, "a").await?);
    Ok(())
}

/// A key that was deleted and put again must not die with the lease it once had.
pub async fn a_deleted_entry_leaves_its_lease(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    store.delete(&key("a")).await?;
    put(&*store, "a", "plain").await?;
    outlive(&*store, since).await;
    assert!(is_there(&*store, "a").await?);
    Ok(())
}

/// Presence is written under guards.
pub async fn an_entry_of_a_commit_can_be_leased(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    let commit = Commit::new().guard("a", Guard::Absent).put_leased("a", "x", lease).put("b", "x");
    let revision = committed(&*store, commit).await?;
    let a = entry(&*store, "a").await?.ok_or("absent")?;
    assert_eq!((a.revision, a.lease), (revision, Some(lease)));
    assert_eq!(entry(&*store, "b").await?.ok_or("absent")?.lease, None);
    outlive(&*store, since).await;
    assert_eq!(keys(&*store, "", "").await?, ["b"]);
    Ok(())
}

/// Neighbours and other leases stay.
pub async fn leases_run_out_each_for_itself(store: Arc<dyn Store>) -> Checked {
    put(&*store, "plain", "x").await?;
    let (short, since) = lease(&*store).await?;
    let long = store.grant(Duration::from_mins(10)).await?;
    put_leased(&*store, "long", long).await?;
    put_leased(&*store, "short", short).await?;
    outlive(&*store, since).await;
    assert_eq!(keys(&*store, "", "").await?, ["long", "plain"]);
    assert_eq!(store.renew(long).await?, Renewal::Renewed);
    Ok(())
}

/// What a guard sees is what a reader sees.
pub async fn an_expired_entry_is_absent_for_guards(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    let revision = store.put_leased(&key("a"), "x".into(), lease).await?;
    outlive(&*store, since).await;
    let fenced = store.commit(Commit::new().guard("a", Guard::At(revision)).put("b", "x")).await?;
    assert_eq!(fenced, Outcome::Conflict(vec![(key("a"), None)]));
    committed(&*store, Commit::new().guard("a", Guard::Absent).put("a", "x")).await?;
    Ok(())
}

/// Promise 7.
pub async fn a_lease_without_entries_runs_out(store: Arc<dyn Store>) -> Checked {
    let (lease, since) = lease(&*store).await?;
    let before = store.revision().await?;
    outlive(&*store, since).await;
    assert_eq!(store.renew(lease).await?, Renewal::Gone);
    assert_eq!(store.revision().await?, before);
    Ok(())
}

/// Shorter than any backend can do is lengthened, not refused.
pub async fn a_short_ttl_is_lengthened(store: Arc<dyn Store>) -> Checked {
    let lease = store.grant(Duration::from_millis(1)).await?;
    let since = Instant::now();
    put_leased(&*store, "a", lease).await?;
    assert!(stays(&*store, "a", since + store.limits().lease_ttl_min).await?);
    Ok(())
}

/// A ttl is never rounded down.
pub async fn a_ttl_is_rounded_up_to_whole_seconds(store: Arc<dyn Store>) -> Checked {
    let ttl = Duration::from_millis(2_900);
    let lease = store.grant(ttl).await?;
    let since = Instant::now();
    put_leased(&*store, "a", lease).await?;
    assert!(stays(&*store, "a", since + ttl).await?);
    Ok(())
}

/// An entry tells its lease, in reads and in scans.
pub async fn a_lease_shows_on_its_entries(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    assert_eq!(entry(&*store, "a").await?.ok_or("absent")?.lease, Some(lease));
    assert_eq!(store.scan(&key("a"), &key("b"), 1).await?[0].lease, Some(lease));
    Ok(())
}

/// At once, and in one commit.
pub async fn revoking_ends_a_lease_and_its_entries(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    put_leased(&*store, "a", lease).await?;
    put_leased(&*store, "b", lease).await?;
    put(&*store, "c", "plain").await?;
    let mut watch = watch_all(&*store).await?;
    store.revoke(lease).await?;
    assert_eq!(keys(&*store, "", "").await?, ["c"]);
    assert_eq!(store.renew(lease).await?, Renewal::Gone);
    assert_lease_gone(store.put_leased(&key("d"), "x".into(), lease).await);
    assert_eq!(next(&mut watch).await?.changes.len(), 2);
    Ok(())
}

/// A goodbye may come twice, or for a lease that never was.
pub async fn revoking_what_is_gone_succeeds(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    store.revoke(lease).await?;
    let before = store.revision().await?;
    store.revoke(lease).await?;
    store.revoke(LeaseId(i64::MAX)).await?;
    assert_eq!(store.revision().await?, before);
    Ok(())
}

/// Promise 4.
pub async fn renewing_an_unknown_lease_answers_gone(store: Arc<dyn Store>) -> Checked {
    assert_eq!(store.renew(LeaseId(i64::MAX)).await?, Renewal::Gone);
    Ok(())
}

/// Promise 6.
pub async fn writing_under_an_unknown_lease_is_refused(store: Arc<dyn Store>) -> Checked {
    let unknown = LeaseId(i64::MAX);
    assert_lease_gone(store.put_leased(&key("a"), "x".into(), unknown).await);
    assert_lease_gone(store.commit(Commit::new().put("b", "x").put_leased("c", "x", unknown)).await);
    assert_eq!(keys(&*store, "", "").await?, [""; 0]);
    Ok(())
}

/// Promise 4 of `CasStore`: who has lost a race learns that first.
pub async fn a_conflict_comes_before_a_lease_that_is_gone(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "x").await?;
    let commit = Commit::new().guard("a", Guard::Absent).put_leased("a", "y", LeaseId(i64::MAX));
    assert!(matches!(store.commit(commit).await?, Outcome::Conflict(_)));
    Ok(())
}

/// Promise 7.
pub async fn lease_ids_are_never_given_twice(store: Arc<dyn Store>) -> Checked {
    let mut given = Vec::new();
    for _ in 0..10 {
        let lease = store.grant(TTL).await?;
        assert!(lease.0 > 0);
        assert!(!given.contains(&lease));
        store.revoke(lease).await?;
        given.push(lease);
    }
    Ok(())
}

/// It would be no lease.
pub async fn a_ttl_beyond_the_longest_is_refused(store: Arc<dyn Store>) -> Checked {
    assert_refused(store.grant(LEASE_TTL_MAX + Duration::from_secs(1)).await);
    assert_refused(store.grant(Duration::MAX).await);
    store.grant(LEASE_TTL_MAX).await?;
    Ok(())
}

/// Heartbeats must not fill the history.
pub async fn granting_and_renewing_make_no_revision(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "x").await?;
    let before = store.revision().await?;
    let mut watch = watch_all(&*store).await?;
    let lease = store.grant(Duration::from_mins(1)).await?;
    assert_eq!(store.renew(lease).await?, Renewal::Renewed);
    assert_eq!(store.revision().await?, before);
    tokio::time::sleep(A_WHILE).await;
    assert!(silent(&mut watch).await);
    Ok(())
}

/// The limits of plain writes hold.
pub async fn leased_writes_keep_the_limits(store: Arc<dyn Store>) -> Checked {
    let (lease, _) = lease(&*store).await?;
    let large = vec![0; store.limits().value_bytes_max + 1];
    assert_refused(store.put_leased(&key(""), "x".into(), lease).await);
    assert_refused(store.put_leased(&key("a"), large.into(), lease).await);
    assert!(!is_there(&*store, "a").await?);
    Ok(())
}
