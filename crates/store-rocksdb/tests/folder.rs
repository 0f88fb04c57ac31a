//! Whose folder it is: foreign, newer, in use, half made.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{is_right, name, open, put};
use underpass_store::KvStore;
use underpass_store_rocksdb::OpenError;

const HOLD: &str = "UNDERPASS_TEST_HOLD";

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_missing_folder_is_made_with_its_parents() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data/store");
    let store = open(&path).unwrap();
    put(&store, 1).await;
    store.close().await;
    assert_eq!(names(&path), ["FORMAT", "HEAD", "db", "underpass.lock"]);
    assert!(is_right(&open(&path).unwrap().get(&name(1)).await.unwrap().unwrap(), 1));
}

#[test]
fn a_foreign_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "ten years").unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("is not a store of Underpass"));
    assert_eq!(names(folder.path()), ["thesis.txt"]);
}

#[test]
fn a_file_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(open(&file), Err(OpenError::Foreign { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

/// RocksDB's own folder of another program has no marker of ours.
#[test]
fn a_database_of_another_program_is_foreign() {
    let ours = tempfile::tempdir().unwrap();
    drop(open(ours.path()).unwrap());
    assert!(matches!(open(&ours.path().join("db")), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let marker = folder.path().join("FORMAT");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("format 1", "format 2")).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    fs::write(&marker, text).unwrap();
    open(folder.path()).unwrap();
}

#[test]
fn a_marker_that_says_nothing_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let marker = folder.path().join("FORMAT");
    for text in ["", "underpass-store-rocksdb\n", "underpass-store-rocksdb\nformat 1\nstate odd\n", "rust"] {
        fs::write(&marker, text).unwrap();
        assert!(matches!(open(folder.path()), Err(OpenError::Foreign { .. })), "{text:?}");
    }
    fs::write(&marker, [0xff; 4096]).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::InUse { .. })));
    put(&first, 1).await;
    first.close().await;
    let second = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::InUse { .. })));
    drop(second);
    open(folder.path()).unwrap();
}

/// The other half of the next test: holds a store open until its standard input ends.
#[test]
fn hold_a_store_open_for_another_process() {
    let Ok(path) = std::env::var(HOLD) else {
        return;
    };
    let store = open(Path::new(&path)).unwrap();
    println!("open");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(store);
}

#[test]
fn a_store_of_another_process_is_in_use() {
    use std::io::{BufRead, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_a_store_open_for_another_process", "--nocapture"])
        .env(HOLD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("open")));
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    // Dies without a goodbye: the system lets go of the lock.
    other.kill().unwrap();
    other.wait().unwrap();
    open(folder.path()).unwrap();
}

/// A crash in the middle of making a store must not leave a folder that nobody can use.
#[tokio::test]
async fn a_store_whose_making_was_cut_off_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    drop(open(&made).unwrap());
    let new = fs::read_to_string(made.join("FORMAT")).unwrap().replace("ready", "new");
    for left in [&["underpass.lock"][..], &["FORMAT"], &["FORMAT", "db"], &["FORMAT", "db", "HEAD"]] {
        let path = folder.path().join(left.join("-"));
        common::copy(&made, &path);
        for name in names(&path) {
            if !left.contains(&name.as_str()) {
                let path = path.join(name);
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
            }
        }
        if left.contains(&"FORMAT") {
            fs::write(path.join("FORMAT"), &new).unwrap();
        }
        let store = open(&path).unwrap();
        put(&store, 1).await;
        store.close().await;
        assert_eq!(open(&path).unwrap().revision().await.unwrap().0, 1);
    }
}
