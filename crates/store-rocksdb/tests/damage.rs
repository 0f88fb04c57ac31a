//! Files cut off, bits flipped, files gone: refused, or as it was; never silently wrong.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use common::{copy, is_right, name, open, put, times};
use tempfile::TempDir;
use underpass_store::testkit::Seeded;
use underpass_store::{KvStore, Revision};
use underpass_store_rocksdb::{OpenError, RocksOptions, RocksStore};

const ENTRIES: u64 = 60;

/// A store with the entries 1..=ENTRIES at the revisions 1..=ENTRIES, some of them in tables, the rest in the
/// log only. Opening moves what is in the log to a table.
async fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in [1..=20, 21..=40, 41..=ENTRIES] {
        let store = open(folder.path()).unwrap();
        for number in part {
            put(&store, number).await;
        }
        store.close().await;
    }
    folder
}

fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending) && fs::metadata(path).unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Everything that can be read is right, and what is missing is a tail that the revision admits to. Gives
/// how many entries are there; `None` if reading was refused.
async fn whole_prefix(store: &RocksStore) -> Option<u64> {
    let stands = store.revision().await.unwrap();
    assert!(stands <= Revision(ENTRIES));
    let mut refused = false;
    for number in 1..=ENTRIES {
        match store.get(&name(number)).await {
            Ok(Some(entry)) => {
                assert!(is_right(&entry, number), "entry {number} reads wrong");
                assert_eq!(entry.revision, Revision(number));
                assert!(number <= stands.0, "entry {number} is ahead of the revision {stands}");
            }
            Ok(None) => assert!(number > stands.0, "entry {number} is missing before the revision {stands}"),
            Err(_) => refused = true,
        }
    }
    match store.scan(&name(0), &name(ENTRIES + 1), 1000).await {
        Ok(entries) => {
            assert_eq!(entries.len() as u64, stands.0);
            assert!(entries.iter().zip(1..).all(|(entry, number)| is_right(entry, number)));
        }
        Err(_) => refused = true,
    }
    (!refused).then_some(stands.0)
}

fn accepting() -> RocksOptions {
    RocksOptions { accept_rollback: true, ..RocksOptions::default() }
}

#[tokio::test]
async fn a_log_that_was_cut_off_after_a_clean_close_is_noticed() {
    let original = written().await;
    let log = files(original.path(), ".log").pop().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    let mut random = Seeded::new(1);
    for _ in 0..times(12) {
        let cut = random.below(length);
        let copied = tempfile::tempdir().unwrap();
        copy(original.path(), copied.path());
        let log = copied.path().join("db").join(log.file_name().unwrap());
        OpenOptions::new().write(true).open(log).unwrap().set_len(cut).unwrap();
        match open(copied.path()) {
            Err(OpenError::RolledBack { stands, marked, .. }) => {
                assert_eq!(marked, Revision(ENTRIES));
                assert!(stands < marked);
            }
            // Nothing but padding was cut off.
            Ok(store) => assert_eq!(whole_prefix(&store).await, Some(ENTRIES)),
            Err(error) => assert!(matches!(error, OpenError::Corrupt { .. }), "{error}"),
        }
        // A person who accepts the loss gets what is left: a prefix.
        if let Ok(store) = RocksStore::open(copied.path(), accepting()) {
            let left = whole_prefix(&store).await.unwrap();
            put(&store, left + 1).await;
            store.close().await;
            open(copied.path()).unwrap();
        }
    }
}

/// Damage in the middle of the log is refused, as what comes behind it was acknowledged, too.
#[tokio::test]
async fn damage_in_the_middle_of_the_log_is_refused() {
    let original = written().await;
    let log = files(original.path(), ".log").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[100] ^= 1;
    fs::write(&log, bytes).unwrap();
    let error = RocksStore::open(original.path(), accepting()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_refused_or_harmless() {
    let original = written().await;
    let all: Vec<_> = ["", ".log", ".sst"].iter().flat_map(|ending| files(original.path(), ending)).collect();
    let mut random = Seeded::new(2);
    let (mut refused, mut harmless) = (0, 0);
    for _ in 0..times(120) {
        let file = &all[usize::try_from(random.below(all.len() as u64)).unwrap()];
        let copied = tempfile::tempdir().unwrap();
        copy(original.path(), copied.path());
        let file = copied.path().join("db").join(file.file_name().unwrap());
        let mut bytes = fs::read(&file).unwrap();
        let bit = random.below(bytes.len() as u64 * 8);
        bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        fs::write(&file, bytes).unwrap();
        // The head mark stands at the last revision, so an open store is whole or refuses to be read.
        match open(copied.path()) {
            Err(_) => refused += 1,
            Ok(store) => match whole_prefix(&store).await {
                Some(entries) => {
                    assert_eq!(entries, ENTRIES, "{} bit {bit}", file.display());
                    harmless += 1;
                }
                None => refused += 1,
            },
        }
    }
    // Most bits matter; some are in RocksDB's texts for people.
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
}

/// All bits of the manifest, and of the headers of the first records of the log (seven bytes: checksum, length, type).
/// RocksDB goes round in circles over some of them, if it is let.
#[tokio::test]
async fn every_flipped_bit_of_the_manifest_and_of_headers_of_the_log_is_refused_or_harmless() {
    const HEADER: usize = 7;
    let original = written().await;
    let log = files(original.path(), ".log").pop().unwrap();
    let current = fs::read_to_string(original.path().join("db/CURRENT")).unwrap();
    let manifest = original.path().join("db").join(current.trim_end());
    let content = fs::read(&log).unwrap();
    let mut headers = vec![0];
    while headers.len() < 3 {
        let at = headers[headers.len() - 1];
        headers.push(at + HEADER + usize::from(u16::from_le_bytes([content[at + 4], content[at + 5]])));
    }
    let of_headers = headers.iter().flat_map(|at| at * 8..(at + HEADER) * 8);
    let all_of_manifest = 0..usize::try_from(fs::metadata(&manifest).unwrap().len()).unwrap() * 8;
    let bits = all_of_manifest.map(|bit| (&manifest, bit)).chain(of_headers.map(|bit| (&log, bit)));
    let fresh = || {
        let copied = tempfile::tempdir().unwrap();
        copy(original.path(), copied.path());
        copied
    };
    let mut copied = fresh();
    for (file, bit) in bits {
        let mut bytes = fs::read(file).unwrap();
        let damaged = copied.path().join("db").join(file.file_name().unwrap());
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&damaged, &bytes).unwrap();
        // On a thread of its own: it may never come back.
        let path = copied.path().to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path));
        let name = file.file_name().unwrap().display();
        let Ok(opened) = tokio::time::timeout(std::time::Duration::from_mins(1), opened).await else {
            eprintln!("bit {bit} of {name}: opening does not end");
            std::process::exit(1);
        };
        if let Ok(store) = opened.unwrap() {
            let whole = whole_prefix(&store).await;
            assert!(
                whole.is_none_or(|entries| entries == ENTRIES),
                "bit {bit} of {name}: {whole:?} are left"
            );
            store.close().await;
            copied = fresh();
        } else {
            // A store that is refused is left as it was.
            fs::copy(file, damaged).unwrap();
        }
    }
    assert_eq!(whole_prefix(&open(copied.path()).unwrap()).await, Some(ENTRIES));
}

#[tokio::test]
async fn a_store_whose_database_is_gone_does_not_come_up_empty() {
    let folder = written().await;
    fs::remove_dir_all(folder.path().join("db")).unwrap();
    for options in [RocksOptions::default(), accepting()] {
        let error = RocksStore::open(folder.path(), options).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. } | OpenError::Io { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    put(&store, 1).await;
    store.close().await;
    copy(&folder.path().join("db"), &old.path().join("db"));
    let store = open(folder.path()).unwrap();
    put(&store, 2).await;
    store.close().await;
    fs::remove_dir_all(folder.path().join("db")).unwrap();
    copy(&old.path().join("db"), &folder.path().join("db"));
    let error = open(folder.path()).unwrap_err();
    let OpenError::RolledBack { stands, marked, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((stands, marked), (Revision(1), Revision(2)));
}

#[tokio::test]
async fn a_missing_or_damaged_head_mark_is_for_a_person_to_decide() {
    let folder = written().await;
    let mark = folder.path().join("HEAD");
    let text = fs::read_to_string(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Corrupt { .. })));
    fs::write(&mark, text.replace("revision 6", "revision 5")).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Corrupt { .. })));
    drop(RocksStore::open(folder.path(), accepting()).unwrap());
    let (revision, _) = text.split_once(" manifest ").unwrap();
    assert!(fs::read_to_string(&mark).unwrap().starts_with(revision));
    open(folder.path()).unwrap();
}

/// The mark must not cost a store that is well.
#[tokio::test]
async fn the_head_mark_follows_a_store_that_nobody_closes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    put(&store, 1).await;
    let mark = || fs::read_to_string(folder.path().join("HEAD")).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !mark().starts_with("revision 1 ") {
        assert!(tokio::time::Instant::now() < deadline, "{}", mark());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // A copy of the files as they are now is what a crash would leave.
    let crashed = tempfile::tempdir().unwrap();
    copy(folder.path(), crashed.path());
    File::open(crashed.path()).unwrap().sync_all().unwrap();
    assert!(is_right(&open(crashed.path()).unwrap().get(&name(1)).await.unwrap().unwrap(), 1));
}

/// Each file of RocksDB and what is in it, without its own log for people.
fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("LOG"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

/// What a damaged manifest no longer names may be what a repair needs.
#[tokio::test]
async fn a_store_that_is_refused_is_left_as_it_was() {
    let original = written().await;
    let manifest = fs::read_dir(original.path().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("MANIFEST"))
        .unwrap();
    let length = fs::metadata(original.path().join("db").join(&manifest)).unwrap().len();
    for cut in (0..length).step_by(usize::try_from(length / 12).unwrap()) {
        let copied = tempfile::tempdir().unwrap();
        copy(original.path(), copied.path());
        let path = copied.path().join("db").join(&manifest);
        OpenOptions::new().write(true).open(path).unwrap().set_len(cut).unwrap();
        let before = content(copied.path());
        let error = open(copied.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Corrupt { .. } | OpenError::RolledBack { .. }),
            "cut at {cut} of {length}: {error}"
        );
        assert!(content(copied.path()) == before, "cut at {cut} of {length}: refused, and changed");
    }
}
