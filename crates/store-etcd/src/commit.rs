//! A commit as a transaction of etcd.

use std::sync::Arc;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use underpass_store::{Commit, Guard, Key, LeaseId, Outcome, Revision, StoreError, Write};

use crate::call::{Failed, Kind};
use crate::namespace::Namespace;
use crate::store::{Shared, written};
use crate::verdict::{is_full, lease_is_gone};

const OP: &str = "commit";

/// Does `commit`, which keeps the limits.
pub(crate) async fn commit(shared: &Shared, commit: &Commit) -> Result<Outcome, StoreError> {
    let transaction = transaction(&shared.namespace, commit);
    let answer = match send(shared, Kind::Once, &transaction).await {
        Ok(answer) => answer,
        Err(Failed::Answer(error)) if lease_is_gone(&error) => {
            return Err(StoreError::LeaseGone { op: OP, lease: gone(shared, commit).await });
        }
        Err(failed @ Failed::Answer(_)) => return full(shared, commit, failed).await,
        Err(failed) => return Err(failed.into_store(OP, Kind::Once)),
    };
    if answer.succeeded() {
        return Ok(Outcome::Committed(written(OP, TxnResponse::header(&answer))?));
    }
    match failed_guards(commit, &answer) {
        Some(failed) if !failed.is_empty() => Ok(Outcome::Conflict(failed)),
        _ => Err(StoreError::unavailable(OP, "etcd's answer to a failed guard doesn't say which one")),
    }
}

async fn send(shared: &Shared, kind: Kind, transaction: &Txn) -> Result<TxnResponse, Failed> {
    let request = |client: Arc<Client>| {
        let transaction = transaction.clone();
        async move { client.kv_client().txn(transaction).await }
    };
    shared.server.call(kind, request).await
}

fn transaction(namespace: &Namespace, commit: &Commit) -> Txn {
    let compares: Vec<_> =
        commit.guards().iter().map(|(key, guard)| compare(namespace.key(key), *guard)).collect();
    let writes: Vec<_> = commit.writes().iter().map(|write| operation(namespace, write)).collect();
    Txn::new().when(compares).and_then(writes).or_else(looks(namespace, commit))
}

/// How the guarded entries stand, without their values.
fn looks(namespace: &Namespace, commit: &Commit) -> Vec<TxnOp> {
    let look =
        |(key, _): &(Key, Guard)| TxnOp::get(namespace.key(key), Some(GetOptions::new().with_keys_only()));
    commit.guards().iter().map(look).collect()
}

fn compare(key: Vec<u8>, guard: Guard) -> Compare {
    match guard {
        Guard::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Guard::At(Revision(revision)) => match i64::try_from(revision) {
            Ok(revision) if revision > 0 => Compare::mod_revision(key, CompareOp::Equal, revision),
            // What is absent has the revision 0 for etcd, and no entry has a greater one than these: the guard
            // fails.
            _ => Compare::version(key, CompareOp::Less, 0),
        },
    }
}

fn operation(namespace: &Namespace, write: &Write) -> TxnOp {
    let key = namespace.key(write.key());
    match write {
        Write::Put { value, lease, .. } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key, value.to_vec(), options)
        }
        Write::Delete { .. } => TxnOp::delete(key, None::<DeleteOptions>),
    }
}

/// The guards that don't hold where the entries stand as in `answer`.
fn failed_guards(commit: &Commit, answer: &TxnResponse) -> Option<Vec<(Key, Option<Revision>)>> {
    let looks = answer.op_responses();
    if looks.len() != commit.guards().len() {
        return None;
    }
    let mut failed = Vec::new();
    for ((key, guard), look) in commit.guards().iter().zip(looks) {
        let TxnOpResponse::Get(found) = look else { return None };
        let current = found.kvs().first().map(|stored| Revision(stored.mod_revision().cast_unsigned()));
        if !guard.holds(current) {
            failed.push((key.clone(), current));
        }
    }
    Some(failed)
}

/// Which of the leases of `commit` it is that is gone: etcd doesn't say.
async fn gone(shared: &Shared, commit: &Commit) -> LeaseId {
    let mut leases: Vec<_> = commit.writes().iter().filter_map(Write::lease).collect();
    leases.dedup();
    let last = leases.pop().unwrap_or(LeaseId(0));
    for lease in leases {
        let request =
            |client: Arc<Client>| async move { client.lease_client().time_to_live(lease.0, None).await };
        match shared.server.call(Kind::Read, request).await {
            Ok(left) if left.ttl() > 0 => {}
            _ => return lease,
        }
    }
    last
}

/// The database is full: etcd says so of a commit that it didn't do, and of the one that filled it, which it did.
/// It won't do it later, so here a look at the guards tells, where one of them guards what is written: if all
/// hold, nothing happened.
async fn full(shared: &Shared, commit: &Commit, failed: Failed) -> Result<Outcome, StoreError> {
    let Failed::Answer(error) = failed else { return Err(failed.into_store(OP, Kind::Once)) };
    let guarded = |write: &Write| commit.guards().iter().find(|(key, _)| key == write.key());
    let tells = |write: &Write| match (guarded(write), write) {
        // Deleting what must be absent changes nothing.
        (Some((_, Guard::Absent)), Write::Delete { .. }) | (None, _) => false,
        (Some(_), _) => true,
    };
    if is_full(&error) && commit.writes().iter().any(tells) {
        let looks = Txn::new().and_then(looks(&shared.namespace, commit));
        if let Ok(answer) = send(shared, Kind::Read, &looks).await
            && failed_guards(commit, &answer).is_some_and(|failed| failed.is_empty())
        {
            return Err(StoreError::unavailable(OP, crate::link::source(error)));
        }
    }
    Err(Failed::Answer(error).into_store(OP, Kind::Once))
}
