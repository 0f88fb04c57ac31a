//! Cases for [`KvStore`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::testkit::harness::Checked;
use crate::testkit::tools::{assert_refused, entry, is_there, key, keys, put, revision_of, value};
use crate::{Key, KvStore, Revision, Store};

/// Promise 1.
pub async fn what_is_put_is_read(store: Arc<dyn Store>) -> Checked {
    let revision = put(&*store, "a", "one").await?;
    let entry = entry(&*store, "a").await?.ok_or("absent")?;
    assert_eq!(entry.key, key("a"));
    assert_eq!(entry.value, "one");
    assert_eq!(entry.revision, revision);
    assert_eq!(entry.lease, None);
    Ok(())
}

/// Not even an error.
pub async fn an_absent_key_reads_as_nothing(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    assert_eq!(entry(&*store, "b").await?, None);
    Ok(())
}

/// A backend that finds what another test has left would pass many cases by luck.
pub async fn a_fresh_store_is_empty(store: Arc<dyn Store>) -> Checked {
    assert_eq!(store.scan(&Key::open(), &Key::open(), 10).await?, []);
    Ok(())
}

/// The old value is nowhere.
pub async fn a_put_replaces_the_value(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    put(&*store, "a", "two").await?;
    assert_eq!(value(&*store, "a").await?, Some("two".into()));
    assert_eq!(keys(&*store, "", "").await?, ["a"]);
    Ok(())
}

/// Promise 2; also where the value stays the same.
pub async fn every_write_has_a_greater_revision(store: Arc<dyn Store>) -> Checked {
    let mut last = Revision(0);
    for at in ["a", "b", "a", "a"] {
        let revision = put(&*store, at, "same").await?;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
    let deleted = store.delete(&key("a")).await?.ok_or("absent")?;
    assert!(deleted > last);
    Ok(())
}

/// Promise 2, the other half: writing elsewhere leaves an entry's revision alone.
pub async fn an_entry_carries_the_revision_of_its_own_last_write(store: Arc<dyn Store>) -> Checked {
    let first = put(&*store, "a", "one").await?;
    put(&*store, "b", "two").await?;
    assert_eq!(revision_of(&*store, "a").await?, Some(first));
    let again = put(&*store, "a", "three").await?;
    assert_eq!(revision_of(&*store, "a").await?, Some(again));
    Ok(())
}

/// Who looks changes nothing.
pub async fn reading_makes_no_revision(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    let before = store.revision().await?;
    entry(&*store, "a").await?;
    keys(&*store, "", "").await?;
    assert_eq!(store.revision().await?, before);
    Ok(())
}

/// Promise 7.
pub async fn the_revision_of_the_store_covers_what_was_written(store: Arc<dyn Store>) -> Checked {
    let revision = put(&*store, "a", "one").await?;
    assert!(store.revision().await? >= revision);
    let deleted = store.delete(&key("a")).await?.ok_or("absent")?;
    assert!(store.revision().await? >= deleted);
    Ok(())
}

/// For reads and for scans.
pub async fn a_deleted_entry_is_gone(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    put(&*store, "b", "two").await?;
    assert!(store.delete(&key("a")).await?.is_some());
    assert_eq!(entry(&*store, "a").await?, None);
    assert_eq!(keys(&*store, "", "").await?, ["b"]);
    Ok(())
}

/// Promise 4.
pub async fn deleting_what_is_absent_writes_nothing(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    let before = store.revision().await?;
    assert_eq!(store.delete(&key("b")).await?, None);
    assert_eq!(store.revision().await?, before);
    assert!(store.delete(&key("a")).await?.is_some());
    assert_eq!(store.delete(&key("a")).await?, None);
    Ok(())
}

/// As if it had never been.
pub async fn a_deleted_key_can_be_put_again(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "one").await?;
    let deleted = store.delete(&key("a")).await?.ok_or("absent")?;
    let again = put(&*store, "a", "two").await?;
    assert!(again > deleted);
    assert_eq!(value(&*store, "a").await?, Some("two".into()));
    Ok(())
}

/// Promise 5.
pub async fn an_empty_value_is_a_value(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "").await?;
    assert_eq!(value(&*store, "a").await?, Some(Bytes::new()));
    assert_eq!(keys(&*store, "", "").await?, ["a"]);
    Ok(())
}

/// Promise 5: nothing is text, nothing is terminated.
pub async fn keys_and_values_are_any_bytes(store: Arc<dyn Store>) -> Checked {
    let all: Vec<u8> = (0..=255).collect();
    for byte in 0..=255_u8 {
        store.put(&Key::from(vec![byte]), Bytes::from(all.clone())).await?;
    }
    store.put(&Key::from(all.clone()), Bytes::from(all.clone())).await?;
    for name in (0..=255).map(|byte| vec![byte]).chain([all.clone()]) {
        let entry = store.get(&Key::from(name)).await?.ok_or("absent")?;
        assert_eq!(entry.value, all);
    }
    assert_eq!(store.scan(&Key::open(), &Key::open(), 1000).await?.len(), 257);
    Ok(())
}

/// A store that pads or terminates keys mixes them up.
pub async fn a_key_and_its_extensions_are_different_entries(store: Arc<dyn Store>) -> Checked {
    let names = [&b"a"[..], b"a\0", b"a\0\0", b"aa"];
    for (number, name) in names.iter().enumerate() {
        store.put(&Key::from(*name), Bytes::from(vec![u8::try_from(number)?])).await?;
    }
    store.delete(&Key::from(names[1])).await?;
    let left: Vec<_> = store.scan(&Key::open(), &Key::open(), 10).await?;
    let left: Vec<_> = left.iter().map(|entry| entry.value[0]).collect();
    assert_eq!(left, [0, 2, 3]);
    Ok(())
}

/// As bytes, not as text, not as written.
pub async fn a_scan_is_in_the_order_of_bytes(store: Arc<dyn Store>) -> Checked {
    let mut names: Vec<Vec<u8>> = vec![
        vec![0xff],
        b"b".to_vec(),
        b"B".to_vec(),
        b"a\0".to_vec(),
        b"a".to_vec(),
        vec![0],
        vec![0x7f],
        vec![0x80],
        "\u{e9}".into(),
    ];
    for name in &names {
        store.put(&Key::from(name.clone()), Bytes::new()).await?;
    }
    names.sort();
    let found: Vec<_> = store.scan(&Key::open(), &Key::open(), 100).await?;
    let found: Vec<_> = found.into_iter().map(|entry| entry.key.as_bytes().to_vec()).collect();
    assert_eq!(found, names);
    Ok(())
}

/// Promise 3.
pub async fn a_scan_includes_its_start_and_excludes_its_end(store: Arc<dyn Store>) -> Checked {
    for at in ["a", "b", "c", "d"] {
        put(&*store, at, "x").await?;
    }
    assert_eq!(keys(&*store, "b", "d").await?, ["b", "c"]);
    assert_eq!(keys(&*store, "aa", "cc").await?, ["b", "c"]);
    Ok(())
}

/// Promise 3.
pub async fn a_scan_stops_at_its_limit(store: Arc<dyn Store>) -> Checked {
    for at in ["a", "b", "c"] {
        put(&*store, at, "x").await?;
    }
    for (limit, found) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (usize::MAX, 3)] {
        let entries = store.scan(&Key::open(), &Key::open(), limit).await?;
        assert_eq!(entries.len(), found, "limit {limit}");
        assert!(entries.iter().map(|entry| &entry.key).eq([key("a"), key("b"), key("c")].iter().take(found)));
    }
    Ok(())
}

/// How pages are read.
pub async fn pages_put_together_are_the_whole(store: Arc<dyn Store>) -> Checked {
    for number in 0..25_u8 {
        store.put(&Key::from(vec![b'k', number]), Bytes::from(vec![number])).await?;
    }
    let (mut from, mut read) = (key("k"), Vec::new());
    loop {
        let page = store.scan(&from, &key("k").prefix_end(), 4).await?;
        read.extend(page.iter().map(|entry| entry.value[0]));
        match page.last() {
            Some(last) if page.len() == 4 => from = last.key.successor(),
            _ => break,
        }
    }
    assert_eq!(read, (0..25).collect::<Vec<u8>>());
    Ok(())
}

/// Promise 3.
pub async fn open_bounds_reach_to_both_ends(store: Arc<dyn Store>) -> Checked {
    for name in [&[0_u8][..], b"m", &[0xff, 0xff, 0xff]] {
        store.put(&Key::from(name), Bytes::new()).await?;
    }
    assert_eq!(store.scan(&Key::open(), &Key::open(), 10).await?.len(), 3);
    assert_eq!(store.scan(&Key::open(), &key("m"), 10).await?.len(), 1);
    assert_eq!(store.scan(&key("m"), &Key::open(), 10).await?.len(), 2);
    Ok(())
}

/// Promise 3: not an error, and not the other way round.
pub async fn a_scan_that_ends_before_it_starts_is_empty(store: Arc<dyn Store>) -> Checked {
    for at in ["a", "b", "c"] {
        put(&*store, at, "x").await?;
    }
    assert_eq!(keys(&*store, "b", "b").await?, [""; 0]);
    assert_eq!(keys(&*store, "c", "a").await?, [""; 0]);
    Ok(())
}

/// The key that is the prefix itself belongs to it, its neighbours don't.
pub async fn a_scan_of_a_prefix_reads_what_is_under_it(store: Arc<dyn Store>) -> Checked {
    for name in [&b"log"[..], b"log/", b"log/1", b"log/\xff", b"log/\xff\xff", b"log0", b"logs"] {
        store.put(&Key::from(name), Bytes::new()).await?;
    }
    let prefix = key("log/");
    let found = store.scan(&prefix, &prefix.prefix_end(), 100).await?;
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|entry| entry.key.starts_with(&prefix)));
    Ok(())
}

/// More than any backend reads at once, or does on the calling thread.
pub async fn a_long_scan_is_whole(store: Arc<dyn Store>) -> Checked {
    const ENTRIES: u32 = 2_000;
    let mut writes = JoinSet::new();
    for lane in 0..50 {
        let store = Arc::clone(&store);
        writes.spawn(async move {
            for number in (lane..ENTRIES).step_by(50) {
                let name = Key::from(number.to_be_bytes().to_vec());
                store.put(&name, Bytes::from(number.to_string())).await?;
            }
            Checked::Ok(())
        });
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    let found = store.scan(&Key::open(), &Key::open(), usize::MAX).await?;
    assert_eq!(found.len(), ENTRIES as usize);
    for (number, entry) in found.iter().enumerate() {
        assert_eq!(entry.value, number.to_string());
    }
    Ok(())
}

/// Promise 5.
pub async fn the_empty_key_names_no_entry(store: Arc<dyn Store>) -> Checked {
    assert_refused(store.put(&Key::open(), "x".into()).await);
    assert_refused(store.get(&Key::open()).await);
    assert_refused(store.delete(&Key::open()).await);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 10).await?, []);
    Ok(())
}

/// The limit itself is allowed.
pub async fn the_longest_key_is_kept(store: Arc<dyn Store>) -> Checked {
    let longest = Key::from(vec![b'k'; store.limits().key_bytes_max]);
    store.put(&longest, "x".into()).await?;
    assert_eq!(store.get(&longest).await?.ok_or("absent")?.key, longest);
    Ok(())
}

/// Promise 6.
pub async fn a_key_that_is_too_long_is_refused(store: Arc<dyn Store>) -> Checked {
    let long = Key::from(vec![b'k'; store.limits().key_bytes_max + 1]);
    assert_refused(store.put(&long, "x".into()).await);
    assert_refused(store.get(&long).await);
    assert_refused(store.delete(&long).await);
    assert_refused(store.scan(&long, &Key::open(), 1).await);
    assert_eq!(store.scan(&Key::open(), &Key::open(), 10).await?, []);
    Ok(())
}

/// The limit itself is allowed, and comes back byte for byte.
pub async fn the_largest_value_is_kept(store: Arc<dyn Store>) -> Checked {
    let bytes = store.limits().value_bytes_max;
    let largest: Bytes = (0..bytes).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
    store.put(&key("a"), largest.clone()).await?;
    assert!(value(&*store, "a").await? == Some(largest));
    Ok(())
}

/// Promise 6.
pub async fn a_value_that_is_too_large_is_refused(store: Arc<dyn Store>) -> Checked {
    put(&*store, "a", "before").await?;
    let large = Bytes::from(vec![0; store.limits().value_bytes_max + 1]);
    assert_refused(store.put(&key("a"), large).await);
    assert_eq!(value(&*store, "a").await?, Some("before".into()));
    Ok(())
}

/// Also where a backend writes many at once.
pub async fn writers_at_once_each_get_a_revision_of_their_own(store: Arc<dyn Store>) -> Checked {
    let mut writes = JoinSet::new();
    for number in 0..100_u8 {
        let store = Arc::clone(&store);
        writes.spawn(async move { (number, store.put(&Key::from(vec![number]), Bytes::new()).await) });
    }
    let mut revisions = Vec::new();
    while let Some(written) = writes.join_next().await {
        let (number, revision) = written?;
        let revision = revision?;
        let entry = store.get(&Key::from(vec![number])).await?.ok_or("absent")?;
        assert_eq!(entry.revision, revision);
        revisions.push(revision);
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 100);
    Ok(())
}

/// Promise 1: from one task to the next, without a pause.
pub async fn a_write_is_seen_by_others_as_soon_as_it_returns(store: Arc<dyn Store>) -> Checked {
    for round in 0..20 {
        let at = format!("round/{round}");
        let writer = Arc::clone(&store);
        let name = Key::from(at.as_str());
        let mut task = JoinSet::new();
        task.spawn(async move { writer.put(&name, Bytes::new()).await });
        task.join_next().await.ok_or("no task")???;
        assert!(is_there(&*store, &at).await?);
    }
    Ok(())
}
