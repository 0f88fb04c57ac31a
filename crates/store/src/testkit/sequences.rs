//! Random operations on a store, compared with a model so simple that it is right by looking at it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::harness::{Backend, Checked, with_backend};
use super::tools::{next, watch_all};
use crate::{
    Batch, BoxError, Change, Commit, Entry, Guard, Key, LeaseId, Outcome, Renewal, Revision, Store,
    StoreError, Watch,
};

/// Few keys, so that operations meet; prefixes of each other, so that bounds are tried.
const KEYS: [&[u8]; 7] = [b"a", b"a\0", b"ab", b"b", b"b\xff", b"\xff", b"\xff\xff"];

/// What the second watch looks at.
const WATCHED: &[u8] = b"a";

const OPERATIONS_MAX: usize = 40;

/// Far longer than a sequence takes: leases end by hand here.
const TTL: Duration = Duration::from_hours(1);

#[derive(Clone, Debug)]
enum Operation {
    Put { key: usize, value: u8 },
    PutLeased { key: usize, value: u8, lease: usize },
    Delete { key: usize },
    Commit { guards: Vec<(usize, Condition)>, writes: Vec<(usize, Effect)> },
    Grant,
    Renew { lease: usize },
    Revoke { lease: usize },
    Get { key: usize },
    Scan { from: Option<usize>, to: Option<usize>, limit: usize },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Absent,
    /// At the revision the entry has (or, where it is absent, at none it ever had).
    Now,
    /// At one of the revisions handed out before.
    Some(usize),
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Put(u8),
    PutLeased(u8, usize),
    Delete,
}

/// Runs `sequences` random sequences (times `TORTURE`), each on a fresh backend.
///
/// # Panics
///
/// With the shortest sequence it can find on which store and model differ.
pub fn check<B: Backend, F: Future<Output = Option<B>>>(sequences: u32, fresh: impl Fn() -> F) {
    let torture: u32 = env::var("TORTURE").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let config =
        Config { cases: sequences.saturating_mul(torture), failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&vec(operation(), 1..=OPERATIONS_MAX), |operations| {
        let mut outcome = Ok(());
        super::run(async {
            let checked = with_backend(fresh().await, |backend| sequence(backend, operations)).await;
            outcome = checked.map_err(|error| TestCaseError::fail(error.to_string()));
            Ok(())
        });
        outcome
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..KEYS.len();
    let lease = || 0..4_usize;
    let condition = prop_oneof![
        1 => Just(Condition::Absent),
        4 => Just(Condition::Now),
        1 => any::<usize>().prop_map(Condition::Some),
    ];
    let effect = prop_oneof![
        3 => any::<u8>().prop_map(Effect::Put),
        1 => (any::<u8>(), lease()).prop_map(|(value, lease)| Effect::PutLeased(value, lease)),
        2 => Just(Effect::Delete),
    ];
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| Operation::Put { key, value }),
        2 => (key(), any::<u8>(), lease())
            .prop_map(|(key, value, lease)| Operation::PutLeased { key, value, lease }),
        3 => key().prop_map(|key| Operation::Delete { key }),
        6 => (vec((key(), condition), 0..4), vec((key(), effect), 0..4))
            .prop_map(|(guards, writes)| Operation::Commit { guards, writes }),
        1 => Just(Operation::Grant),
        1 => lease().prop_map(|lease| Operation::Renew { lease }),
        1 => lease().prop_map(|lease| Operation::Revoke { lease }),
        2 => key().prop_map(|key| Operation::Get { key }),
        2 => (proptest::option::of(key()), proptest::option::of(key()), 0..5_usize)
            .prop_map(|(from, to, limit)| Operation::Scan { from, to, limit }),
        1 => Just(Operation::Reopen),
    ]
}

/// What ought to be stored. Revisions are those the store has answered: the model only knows that they rise.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<Key, Entry>,
    leases: BTreeSet<LeaseId>,
    /// Every lease ever granted.
    granted: Vec<LeaseId>,
    /// Where the store stood before: 0, or what others wrote where others write too.
    start: Revision,
    /// Every revision ever answered.
    revisions: Vec<Revision>,
    /// What watchers must be told, as far as they haven't been.
    untold: Vec<Batch>,
}

impl Model {
    fn lease(&self, number: usize) -> LeaseId {
        self.granted.get(number).copied().unwrap_or(LeaseId(i64::MAX))
    }

    fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.entries.get(key).map(|entry| entry.revision)
    }

    /// Writes in one revision, which the store has answered.
    fn write(
        &mut self,
        revision: Revision,
        writes: impl IntoIterator<Item = (Key, Option<(Bytes, Option<LeaseId>)>)>,
    ) -> Checked {
        let mut changes = Vec::new();
        for (key, put) in writes {
            if let Some((value, lease)) = put {
                let entry = Entry { key: key.clone(), value, revision, lease };
                self.entries.insert(key, entry.clone());
                changes.push(Change::Put(entry));
            } else if self.entries.remove(&key).is_some() {
                changes.push(Change::Deleted(key));
            }
        }
        let last = self.revisions.last().copied().unwrap_or(self.start);
        if changes.is_empty() {
            same("revision of no change", &revision, &last)
        } else if revision <= last {
            Err(format!("revision {revision} after {last}").into())
        } else {
            self.revisions.push(revision);
            self.untold.push(Batch { revision, changes });
            Ok(())
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, store: &T, model: &T) -> Checked {
    if store == model {
        return Ok(());
    }
    Err(format!("{what}: the store says {store:?}, the model {model:?}").into())
}

fn key(number: usize) -> Key {
    Key::from(KEYS[number])
}

fn one_byte(value: u8) -> Bytes {
    Bytes::from(vec![value])
}

async fn sequence(backend: Arc<dyn Backend>, operations: Vec<Operation>) -> Checked {
    let mut store = backend.open().await;
    let mut model = Model { start: store.revision().await?, ..Model::default() };
    let mut watches = watches(&*store).await?;
    for operation in operations {
        if matches!(operation, Operation::Reopen) {
            if backend.durable() {
                told(&mut watches, &mut model).await?;
                drop(watches);
                backend.close().await;
                drop(store);
                store = backend.open().await;
                watches = self::watches(&*store).await?;
            }
        } else {
            apply(&*store, &mut model, &operation)
                .await
                .map_err(|error| format!("{operation:?}: {error}"))?;
        }
    }
    told(&mut watches, &mut model).await?;
    let stored = store.scan(&Key::open(), &Key::open(), usize::MAX).await?;
    same("everything", &stored, &model.entries.values().cloned().collect())?;
    backend.close().await;
    Ok(())
}

async fn watches(store: &dyn Store) -> Result<[Watch; 2], StoreError> {
    Ok([watch_all(store).await?, store.watch(Key::from(WATCHED), store.revision().await?).await?])
}

/// The watches are told what the model has noted, and nothing else by now.
async fn told([all, some]: &mut [Watch; 2], model: &mut Model) -> Checked {
    let prefix = Key::from(WATCHED);
    for batch in std::mem::take(&mut model.untold) {
        same("batch", &sorted(next(all).await?), &sorted(batch.clone()))?;
        let mut part = batch;
        part.changes.retain(|change| change.key().starts_with(&prefix));
        if !part.changes.is_empty() {
            same("part of a batch", &sorted(next(some).await?), &sorted(part))?;
        }
    }
    Ok(())
}

fn sorted(mut batch: Batch) -> Batch {
    batch.changes.sort_by(|one, other| one.key().cmp(other.key()));
    batch
}

async fn apply(store: &dyn Store, model: &mut Model, operation: &Operation) -> Checked {
    match *operation {
        Operation::Put { key: at, value } => {
            let revision = store.put(&key(at), one_byte(value)).await?;
            model.write(revision, [(key(at), Some((one_byte(value), None)))])
        }
        Operation::PutLeased { key: at, value, lease } => {
            let lease = model.lease(lease);
            let put = store.put_leased(&key(at), one_byte(value), lease).await;
            if !model.leases.contains(&lease) {
                return expect_gone(put);
            }
            model.write(put?, [(key(at), Some((one_byte(value), Some(lease))))])
        }
        Operation::Delete { key: at } => {
            let deleted = store.delete(&key(at)).await?;
            same("was there", &deleted.is_some(), &model.entries.contains_key(&key(at)))?;
            deleted.map_or(Ok(()), |revision| model.write(revision, [(key(at), None)]))
        }
        Operation::Commit { ref guards, ref writes } => commit(store, model, guards, writes).await,
        Operation::Grant => {
            let lease = store.grant(TTL).await?;
            if model.granted.contains(&lease) {
                return Err(format!("lease {lease} was given twice").into());
            }
            model.leases.insert(lease);
            model.granted.push(lease);
            Ok(())
        }
        Operation::Renew { lease } => {
            let lease = model.lease(lease);
            let renewal = if model.leases.contains(&lease) { Renewal::Renewed } else { Renewal::Gone };
            same("renewal", &store.renew(lease).await?, &renewal)
        }
        Operation::Revoke { lease } => revoke(store, model, lease).await,
        Operation::Get { key: at } => {
            same("entry", &store.get(&key(at)).await?, &model.entries.get(&key(at)).cloned())
        }
        Operation::Scan { from, to, limit } => {
            let (from, to) = (from.map_or(Key::open(), key), to.map_or(Key::open(), key));
            let expected = model
                .entries
                .values()
                .filter(|entry| entry.key >= from && (to.is_empty() || entry.key < to))
                .take(limit)
                .cloned()
                .collect();
            same("scan", &store.scan(&from, &to, limit).await?, &expected)
        }
        Operation::Reopen => Ok(()),
    }
}

async fn revoke(store: &dyn Store, model: &mut Model, lease: usize) -> Checked {
    let lease = model.lease(lease);
    store.revoke(lease).await?;
    model.leases.remove(&lease);
    let on_it = |entry: &&Entry| entry.lease == Some(lease);
    let keys: Vec<_> = model.entries.values().filter(on_it).map(|entry| entry.key.clone()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    model.write(store.revision().await?, keys.into_iter().map(|key| (key, None)))
}

async fn commit(
    store: &dyn Store,
    model: &mut Model,
    guards: &[(usize, Condition)],
    writes: &[(usize, Effect)],
) -> Checked {
    let mut commit = Commit::new();
    let mut failed = Vec::new();
    for (at, condition) in guards {
        let (at, current) = (key(*at), model.revision_of(&key(*at)));
        let guard = match condition {
            Condition::Absent => Guard::Absent,
            Condition::Now => Guard::At(current.unwrap_or(Revision(0))),
            Condition::Some(number) if model.revisions.is_empty() => {
                Guard::At(Revision(u64::try_from(*number)?))
            }
            Condition::Some(number) => Guard::At(model.revisions[number % model.revisions.len()]),
        };
        let holds = match guard {
            Guard::Absent => current.is_none(),
            Guard::At(revision) => current == Some(revision),
        };
        if !holds {
            failed.push((at.clone(), current));
        }
        commit = commit.guard(at, guard);
    }
    let mut effects = Vec::new();
    let mut leases_live = true;
    for (at, effect) in writes {
        let at = key(*at);
        let (changed, put) = match *effect {
            Effect::Put(value) => (commit.put(&at, one_byte(value)), Some((one_byte(value), None))),
            Effect::PutLeased(value, lease) => {
                let lease = model.lease(lease);
                leases_live &= model.leases.contains(&lease);
                (commit.put_leased(&at, one_byte(value), lease), Some((one_byte(value), Some(lease))))
            }
            Effect::Delete => (commit.delete(&at), None),
        };
        commit = changed;
        effects.push((at, put));
    }
    let outcome = store.commit(commit).await;
    if writes.is_empty() || repeats(guards) || repeats(writes) {
        return match outcome {
            Err(StoreError::Refused { .. }) => Ok(()),
            other => Err(format!("not refused: {other:?}").into()),
        };
    }
    if !failed.is_empty() {
        return same("outcome", &outcome?, &Outcome::Conflict(failed));
    }
    if !leases_live {
        return expect_gone(outcome);
    }
    match outcome? {
        Outcome::Committed(revision) => model.write(revision, effects),
        conflict @ Outcome::Conflict(_) => Err(format!("unexpected {conflict:?}").into()),
    }
}

fn repeats<T>(by_key: &[(usize, T)]) -> bool {
    by_key.iter().map(|(at, _)| at).collect::<BTreeSet<_>>().len() < by_key.len()
}

fn expect_gone<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Result<(), BoxError> {
    match result {
        Err(StoreError::LeaseGone { .. }) => Ok(()),
        other => Err(format!("the lease is gone, but: {other:?}").into()),
    }
}
