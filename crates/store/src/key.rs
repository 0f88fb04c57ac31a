//! What is stored: keys, values, revisions.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;

/// The name of an entry: bytes, ordered as bytes.
///
/// The empty key is a bound and never a name: it stands for the beginning as the start of a scan, for
/// the end as the end of a scan, for everything as the prefix of a watch.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The empty key: an open bound.
    pub const fn open() -> Self {
        Self(Bytes::new())
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the key, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the empty key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key begins with `prefix`.
    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// This key with `suffix` behind it.
    pub fn join(&self, suffix: impl AsRef<[u8]>) -> Self {
        let suffix = suffix.as_ref();
        let mut bytes = Vec::with_capacity(self.0.len() + suffix.len());
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(suffix);
        Self(bytes.into())
    }

    /// The first key behind this one: where a scan goes on that has read this one.
    pub fn successor(&self) -> Self {
        self.join([0])
    }

    /// The first key behind all keys that begin with this one: `scan(&prefix, &prefix.prefix_end(), n)`
    /// reads what is under a prefix. The open key where there is no such key.
    pub fn prefix_end(&self) -> Self {
        let mut bytes = self.0.to_vec();
        while let Some(last) = bytes.pop() {
            if let Some(next) = last.checked_add(1) {
                bytes.push(next);
                break;
            }
        }
        Self(bytes.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The number of a commit: each later commit has a greater one. Not dense: on a shared backend others
/// count too. 0 is before the first commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of a lease, never used twice by a store. Greater than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub key: Key,
    /// The value; may be empty.
    pub value: Bytes,
    /// The commit that wrote the entry last.
    pub revision: Revision,
    /// The lease that the entry dies with.
    pub lease: Option<LeaseId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys_and_before_all_others() {
        for (prefix, end) in [
            (&b"a"[..], &b"b"[..]),
            (b"log/", b"log0"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff", b""),
            (b"", b""),
        ] {
            assert_eq!(Key::from(prefix).prefix_end(), Key::from(end));
        }
    }

    #[test]
    fn nothing_fits_between_a_key_and_its_successor() {
        let key = Key::from("a");
        assert_eq!(key.successor(), Key::from(&b"a\0"[..]));
        assert!(key < key.successor());
    }

    #[test]
    fn a_key_is_shown_as_text_with_escapes() {
        let key = Key::from(&b"log/e/\0\x01"[..]);
        assert_eq!(key.to_string(), "log/e/\\x00\\x01");
        assert_eq!(format!("{key:?}"), "`log/e/\\x00\\x01`");
    }
}
