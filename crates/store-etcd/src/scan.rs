//! Long answers, in pages of one revision.

use std::sync::Arc;

use etcd_client::{Client, GetOptions, GetResponse, KvClient};
use underpass_store::{Entry, Revision, StoreError, limits};

use crate::call::{Failed, Kind};
use crate::namespace::Range;
use crate::store::{NO_HEADER, Shared, entry, revision_in};
use crate::verdict::{is_compacted, is_too_long};

/// Entries in a page that fits however large they are.
const PAGE_MIN: usize = 16;
/// Most entries in a page.
const PAGE_MAX: usize = 4096;
/// What a page aims at, going by the largest entry before it.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The longest answer that is read: `PAGE_MIN` entries of the largest kind, and as much again for entries that
/// are larger than those before them. (The client's own limit is 4 MiB, and an answer beyond it is an error.)
const ANSWER_BYTES_MAX: usize = 2 * PAGE_MIN * (limits::VALUE_BYTES_MAX + limits::KEY_BYTES_MAX);

/// A scan whose revision is compacted in the middle begins anew, so often.
const ATTEMPTS_MAX: u32 = 3;

/// The first `limit` entries of `range`, as they all were at one revision.
pub(crate) async fn scan(shared: &Shared, range: Range, limit: usize) -> Result<Vec<Entry>, StoreError> {
    let mut attempt = 1;
    loop {
        match pages(shared, &range, limit).await {
            Err(Failed::Answer(error)) if is_compacted(&error) && attempt < ATTEMPTS_MAX => attempt += 1,
            scanned => return scanned.map_err(|failed| failed.into_store("scan", Kind::Read)),
        }
    }
}

async fn pages(shared: &Shared, (from, to): &Range, limit: usize) -> Result<Vec<Entry>, Failed> {
    let mut from = from.clone();
    let mut entries: Vec<Entry> = Vec::new();
    let mut revision = None;
    let mut largest = 0;
    let mut page = PAGE_MIN;
    loop {
        let wanted = page.min(limit - entries.len());
        let mut found = match read(shared, &from, to, wanted, revision).await {
            Err(Failed::Answer(error)) if is_too_long(&error) && page > PAGE_MIN => {
                page = PAGE_MIN;
                continue;
            }
            Err(failed) => return Err(failed),
            Ok(found) => found,
        };
        if revision.is_none() {
            let named = revision_in(GetResponse::header(&found));
            revision = Some(named.ok_or_else(|| Failed::NotDone(NO_HEADER.into()))?);
        }
        let more = found.more();
        for stored in found.take_kvs() {
            largest = largest.max(stored.key().len() + stored.value().len() + limits::COMMIT_OP_BYTES);
            from = stored.key().to_vec();
            match shared.namespace.strip(stored.key()) {
                Some(key) => entries.push(entry(key, stored)),
                None => debug_assert!(false, "etcd answers what lies outside of the range"),
            }
        }
        if !more || entries.len() >= limit {
            return Ok(entries);
        }
        // The first key behind the last one.
        from.push(0);
        page = (PAGE_BYTES / largest.max(1)).clamp(PAGE_MIN, PAGE_MAX);
    }
}

async fn read(
    shared: &Shared,
    from: &[u8],
    to: &[u8],
    limit: usize,
    revision: Option<Revision>,
) -> Result<GetResponse, Failed> {
    let request = |client: Arc<Client>| {
        let mut options =
            GetOptions::new().with_range(to).with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        if let Some(revision) = revision {
            options = options.with_revision(revision.0.cast_signed());
        }
        let from = from.to_vec();
        async move { reader(&client).get(from, Some(options)).await }
    };
    shared.server.call(Kind::Read, request).await
}

fn reader(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX)
}
