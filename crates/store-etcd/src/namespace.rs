//! How an installation lies in a cluster that others may use too.
//!
//! | key | value |
//! |---|---|
//! | prefix `/format` | the marker: whose this is, and in which format |
//! | prefix `/k/` key | the entry at this key; its revision and lease are etcd's own |
//!
//! The layout is a format: it changes with the marker only.

use underpass_store::Key;

/// Longer than any name needs to be, short enough for the room that
/// [`COMMIT_BYTES_MAX`](underpass_store::limits::COMMIT_BYTES_MAX) leaves below etcd's limit of a request.
pub(crate) const PREFIX_BYTES_MAX: usize = 100;

const MARKER: &str = "/format";
const ENTRIES: &str = "/k/";

/// The keys of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    prefix: String,
    entries: Key,
}

/// Keys of etcd: from, to (exclusive).
pub(crate) type Range = (Vec<u8>, Vec<u8>);

impl Namespace {
    /// The keys below `prefix`. `Err`: the rule that it breaks.
    pub(crate) fn new(prefix: &str) -> Result<Self, &'static str> {
        let prefix = prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return Err("the prefix isn't empty");
        }
        if prefix.len() > PREFIX_BYTES_MAX {
            return Err("the prefix is no longer than 100 bytes");
        }
        if prefix.chars().any(char::is_control) {
            return Err("the prefix has no control characters");
        }
        Ok(Self { prefix: prefix.to_owned(), entries: Key::from(format!("{prefix}{ENTRIES}")) })
    }

    /// As it is shown to people.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the marker is.
    pub(crate) fn marker(&self) -> Vec<u8> {
        format!("{}{MARKER}", self.prefix).into_bytes()
    }

    /// Everything that is ours.
    pub(crate) fn all(&self) -> Range {
        below(&Key::from(format!("{}/", self.prefix)))
    }

    /// The markers of installations that would hold this one: `a` holds `a/b`.
    pub(crate) fn outer_markers(&self) -> Vec<Vec<u8>> {
        let slashes = self.prefix.match_indices('/').map(|(at, _)| at);
        slashes.map(|at| format!("{}{MARKER}", &self.prefix[..at]).into_bytes()).collect()
    }

    /// The etcd key of the entry at `key`.
    pub(crate) fn key(&self, key: &Key) -> Vec<u8> {
        self.entries.join(key).as_bytes().to_vec()
    }

    /// The range of `[from, to)` in the sense of `KvStore::scan`. `None`: nothing can be in it.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Option<Range> {
        if to.is_empty() {
            return Some((self.key(from), below(&self.entries).1));
        }
        (from < to).then(|| (self.key(from), self.key(to)))
    }

    /// The range of all entries under `prefix`.
    pub(crate) fn under(&self, prefix: &Key) -> Range {
        below(&self.entries.join(prefix))
    }

    /// The key of the entry at an etcd key.
    pub(crate) fn strip(&self, stored: &[u8]) -> Option<Key> {
        stored.strip_prefix(self.entries.as_bytes()).map(Key::from)
    }
}

/// All keys that begin with `prefix`, which has a byte that isn't 255.
fn below(prefix: &Key) -> Range {
    (prefix.as_bytes().to_vec(), prefix.prefix_end().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &[u8], to: &[u8]) -> Range {
        (from.to_vec(), to.to_vec())
    }

    #[test]
    fn the_keys_are_these() {
        let ours = Namespace::new("site/a/").unwrap();
        assert_eq!(ours.prefix(), "site/a");
        assert_eq!(ours.marker(), b"site/a/format");
        assert_eq!(ours.key(&Key::from("x\0")), b"site/a/k/x\0");
        assert_eq!(ours.all(), range(b"site/a/", b"site/a0"));
        assert_eq!(ours.outer_markers(), [b"site/format"]);
    }

    #[test]
    fn open_bounds_end_at_the_ends_of_the_installation() {
        let ours = Namespace::new("p").unwrap();
        let [a, b] = ["a", "b"].map(Key::from);
        assert_eq!(ours.range(&Key::open(), &Key::open()), Some(range(b"p/k/", b"p/k0")));
        assert_eq!(ours.range(&a, &b), Some(range(b"p/k/a", b"p/k/b")));
        assert_eq!(ours.range(&b, &a), None);
        assert_eq!(ours.range(&a, &a), None);
        assert_eq!(ours.under(&Key::from(&[0xff, 0xff][..])), range(b"p/k/\xff\xff", b"p/k0"));
    }

    #[test]
    fn what_is_not_ours_has_no_key() {
        let ours = Namespace::new("p").unwrap();
        assert_eq!(ours.strip(b"p/k/a"), Some(Key::from("a")));
        assert_eq!(ours.strip(b"p/format"), None);
        assert_eq!(ours.strip(b"p2/k/a"), None);
    }

    #[test]
    fn a_prefix_that_names_nothing_is_refused() {
        let long = "p".repeat(PREFIX_BYTES_MAX + 1);
        for prefix in ["", "/", "//", "a\nb", &long] {
            assert!(Namespace::new(prefix).is_err(), "{prefix:?}");
        }
    }
}
