//! Every stable code that the program can say has a page that says what to do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Words with a dot that stand in the sources and are no codes.
const NOT_CODES: [&str; 14] = [
    "admin.key",
    "agent.lock",
    "agent.sock",
    "checkpoint.key",
    "checkpoint.pub",
    "checkpoints.jsonl",
    "control.sock",
    "link.key",
    "place.json",
    "server.toml",
    "shares.json",
    "key.joining",
    "thesis.txt",
    "underpass.toml",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What looks like a code: `"noun.what"`, lower case, before the tests of a file.
fn codes_in(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.split('"')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.split_once('.').is_some_and(|(noun, what)| {
                let plain = |part: &str| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                };
                plain(noun) && plain(what)
            })
        })
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_code_of_the_command_line_has_a_page() {
    let mut files = Vec::new();
    for folder in ["crates/cli/src", "crates/agent/src", "crates/server/src"] {
        sources(&root().join(folder), &mut files);
    }
    let mut codes = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("config/settings.rs")) {
        codes.extend(codes_in(&std::fs::read_to_string(file).unwrap()));
    }
    // Settings are named like codes where they are read.
    let settings = std::fs::read_to_string(root().join("crates/server/src/config/settings.rs")).unwrap();
    for setting in codes_in(&settings) {
        codes.remove(&setting);
    }
    for word in NOT_CODES {
        codes.remove(word);
    }
    assert!(codes.len() > 40, "the sources were not read: {codes:?}");
    let index = std::fs::read_to_string(root().join("docs/errors/README.md")).unwrap();
    for code in ["io", "stopped", "usage"].into_iter().chain(codes.iter().map(String::as_str)) {
        let page = root().join(format!("docs/errors/{code}.md"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|_| panic!("{code} has no page"));
        assert!(text.starts_with(&format!("# `{code}`")) && text.contains("## What to do"), "{code}");
        assert!(index.contains(&format!("({code}.md)")), "{code} is not in the index");
    }
}
