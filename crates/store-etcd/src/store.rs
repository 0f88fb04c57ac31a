//! The store that callers hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, DeleteResponse, Error, GetOptions, KeyValue, PutOptions, PutResponse, ResponseHeader,
};
use tokio_util::sync::CancellationToken;
use underpass_store::{
    CasStore, Commit, Entry, ExpirableStore, Key, KvStore, LeaseId, Limits, Outcome, Renewal, Revision,
    StoreError, Watch, WatchableStore,
};

use crate::call::{Failed, Kind, Server};
use crate::namespace::Namespace;
use crate::open::{self, OpenError};
use crate::options::EtcdOptions;
use crate::verdict::lease_is_gone;
use crate::{commit, lease, scan, watch};

/// A store below a prefix of an etcd cluster. See the [crate](crate).
///
/// It belongs to the tokio runtime that it was opened in, which runs its connections. [`close`](Self::close) it in
/// the end, so that its watches end too.
pub struct EtcdStore {
    pub(crate) shared: Arc<Shared>,
}

/// What a store and its watches share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) server: Server,
    pub(crate) namespace: Namespace,
    pub(crate) limits: Limits,
}

impl EtcdStore {
    /// Finds the cluster, makes sure that it is one we can work with, that it lets us in and that the prefix
    /// is ours; marks the prefix if it is unused. Takes no longer than three times `request_timeout`, and where
    /// no member answers no longer than that.
    pub async fn open(options: EtcdOptions) -> Result<Self, OpenError> {
        open::open(&options).await.map(|(server, namespace)| Self {
            shared: Arc::new(Shared { server, namespace, limits: lease::LIMITS }),
        })
    }

    /// Ends all watches, and answers [`StoreError::Unavailable`] to all later calls. Calls that are on their way
    /// end as they end. Closing twice is fine.
    #[expect(clippy::unused_async, reason = "stores close alike, and on others it takes a while")]
    pub async fn close(&self) {
        self.shared.server.closed.cancel();
        self.shared.server.links.close();
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shared.server.closed.cancel();
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("links", &self.shared.server.links)
            .field("prefix", &self.shared.namespace.prefix())
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn new(options: &EtcdOptions) -> Result<Self, underpass_store::BoxError> {
        Ok(Self {
            links: crate::link::Links::new(options)?,
            request_timeout: options.request_timeout,
            closed: CancellationToken::new(),
        })
    }
}

impl Shared {
    /// One request.
    pub(crate) async fn ask<T, F>(
        &self,
        op: &'static str,
        kind: Kind,
        request: impl Fn(Arc<Client>) -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        self.server.call(kind, request).await.map_err(|failed| failed.into_store(op, kind))
    }

    async fn put(
        &self,
        op: &'static str,
        key: &Key,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        self.limits.check_key(op, key)?;
        self.limits.check_value(op, value.len())?;
        let key = self.namespace.key(key);
        let request = |client: Arc<Client>| {
            let (key, value) = (key.clone(), value.to_vec());
            async move {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                client.kv_client().put(key, value, options).await
            }
        };
        let put = match (self.server.call(Kind::Once, request).await, lease) {
            (Ok(put), _) => put,
            (Err(Failed::Answer(error)), Some(lease)) if lease_is_gone(&error) => {
                return Err(StoreError::LeaseGone { op, lease });
            }
            (Err(failed), _) => return Err(failed.into_store(op, Kind::Once)),
        };
        written(op, PutResponse::header(&put))
    }
}

/// What is wrong with an answer that names no revision. No etcd sends one.
pub(crate) const NO_HEADER: &str = "the answer of etcd has no header";

/// The revision that an answer names.
pub(crate) fn revision_in(header: Option<&ResponseHeader>) -> Option<Revision> {
    header.map(|header| Revision(header.revision().cast_unsigned()))
}

/// The revision of a write. Without one it is not known what happened.
pub(crate) fn written(op: &'static str, header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
    revision_in(header).ok_or_else(|| StoreError::indeterminate(op, NO_HEADER))
}

/// An entry as etcd has it.
pub(crate) fn entry(key: Key, stored: KeyValue) -> Entry {
    let revision = Revision(stored.mod_revision().cast_unsigned());
    let lease = Some(stored.lease()).filter(|lease| *lease != 0).map(LeaseId);
    let (_, value) = stored.into_key_value();
    Entry { key, value: value.into(), revision, lease }
}

#[async_trait]
impl KvStore for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.limits().check_key("get", key)?;
        let at = self.shared.namespace.key(key);
        let request = |client: Arc<Client>| {
            let at = at.clone();
            async move { client.kv_client().get(at, None).await }
        };
        let mut found = self.shared.ask("get", Kind::Read, request).await?;
        Ok(found.take_kvs().pop().map(|stored| entry(key.clone(), stored)))
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.limits().check_bound("scan", from)?;
        self.limits().check_bound("scan", to)?;
        match self.shared.namespace.range(from, to) {
            Some(range) if limit > 0 => scan::scan(&self.shared, range, limit).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.shared.put("put", key, value, None).await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.limits().check_key("delete", key)?;
        let at = self.shared.namespace.key(key);
        let request = |client: Arc<Client>| {
            let at = at.clone();
            async move { client.kv_client().delete(at, None).await }
        };
        let deleted = self.shared.ask("delete", Kind::Once, request).await?;
        let revision = written("delete", DeleteResponse::header(&deleted))?;
        Ok((deleted.deleted() > 0).then_some(revision))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        // Any linearizable read tells; this one carries nothing.
        let marker = self.shared.namespace.marker();
        let request = |client: Arc<Client>| {
            let marker = marker.clone();
            async move { client.kv_client().get(marker, Some(GetOptions::new().with_count_only())).await }
        };
        let found = self.shared.ask("revision", Kind::Read, request).await?;
        revision_in(found.header()).ok_or_else(|| StoreError::unavailable("revision", NO_HEADER))
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl CasStore for EtcdStore {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        commit.check(&self.limits())?;
        commit::commit(&self.shared, &commit).await
    }
}

#[async_trait]
impl ExpirableStore for EtcdStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        lease::grant(&self.shared, ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        lease::renew(&self.shared, lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        lease::revoke(&self.shared, lease).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.shared.put("put_leased", key, value, Some(lease)).await
    }
}

#[async_trait]
impl WatchableStore for EtcdStore {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.limits().check_bound("watch", &prefix)?;
        watch::watch(&self.shared, &prefix, after).await
    }
}
