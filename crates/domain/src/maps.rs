//! Persistent maps: a clone takes constant time and shares everything that does not change afterwards.
//!
//! All are ordered, so that equal states have equal snapshots, byte for byte. The only module that knows which crate
//! they are from.
//!
//! They are B-trees: some thirty entries lie side by side in a node, so a look-up touches three or four places in
//! memory for a million entries, where a binary tree touches twenty, and an entry of an index costs little more
//! than its bytes. A node that is shared with an older clone is copied as a whole before it changes, so what is
//! large or owns memory belongs in a [`Table`], whose nodes hold references.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Small values by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent, bound(serialize = "K: Ord + Serialize, V: Serialize"))]
#[serde(bound(deserialize = "K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>"))]
pub(crate) struct Map<K: Ord, V>(OrdMap<K, V>);

impl<K: Ord, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.0.get_min().map(|(key, value)| (key, value))
    }

    pub(crate) fn insert_mut(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter()
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Whether it was there.
    pub(crate) fn remove_mut(&mut self, key: &K) -> bool {
        self.0.remove(key).is_some()
    }
}

/// Small values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent, bound(serialize = "T: Ord + Serialize"))]
#[serde(bound(deserialize = "T: Ord + Clone + Deserialize<'de>"))]
pub(crate) struct Set<T: Ord>(OrdSet<T>);

impl<T: Ord> Default for Set<T> {
    fn default() -> Self {
        Self(OrdSet::new())
    }
}

impl<T: Ord + Clone> Set<T> {
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn first(&self) -> Option<&T> {
        self.0.get_min()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter()
    }

    pub(crate) fn range(&self, range: impl RangeBounds<T>) -> impl DoubleEndedIterator<Item = &T> {
        self.0.range(range)
    }

    pub(crate) fn insert_mut(&mut self, value: T) {
        self.0.insert(value);
    }

    /// Whether it was there.
    pub(crate) fn remove_mut(&mut self, value: &T) -> bool {
        self.0.remove(value).is_some()
    }
}

/// Things by key, each in a place of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table<K: Ord, V>(OrdMap<K, Arc<V>>);

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|value| &**value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(Arc::make_mut)
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.0.get_min().map(|(key, value)| (key, &**value))
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, &**value))
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.0.iter().map(|(_, value)| &**value)
    }

    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.range(range).map(|(key, value)| (key, &**value))
    }

    /// What came, went or changed since `before`: the value then and the value now. Nodes that both share are not
    /// looked at, so this costs what the changes between two clones cost.
    pub(crate) fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)>
    where
        V: PartialEq,
    {
        before.0.diff(&self.0).map(|change| match change {
            DiffItem::Add(key, is) => (key, None, Some(&**is)),
            DiffItem::Update { old: (_, was), new: (key, is) } => (key, Some(&**was), Some(&**is)),
            DiffItem::Remove(key, was) => (key, Some(&**was), None),
        })
    }

    pub(crate) fn insert_mut(&mut self, key: K, value: V) {
        self.0.insert(key, Arc::new(value));
    }

    pub(crate) fn remove_mut(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// Takes a value out, without a copy if no older clone has it.
    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        self.0.remove(key).map(Arc::unwrap_or_clone)
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not `collect_map` over an iterator: its length must be known before.
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(self.size()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, K, V> Deserialize<'de> for Table<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Entries<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    type Value = Table<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut table = Table::default();
        while let Some((key, value)) = entries.next_entry()? {
            table.insert_mut(key, value);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    proptest! {
        /// Whatever comes and goes, and however clones are made on the way: what is there is what a `BTreeMap`
        /// has, and no clone sees what happened after it.
        #[test]
        fn a_table_is_a_map_and_its_clones_stand_still(
            steps in proptest::collection::vec((0_u16..400, 0_u8..4), 1..1500),
        ) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            let mut kept: Vec<(Table<u16, String>, BTreeMap<u16, String>)> = Vec::new();
            for (number, (key, what)) in steps.into_iter().enumerate() {
                let text = number.to_string();
                match what {
                    0 | 1 => {
                        table.insert_mut(key, text.clone());
                        model.insert(key, text);
                    }
                    2 => prop_assert_eq!(table.take(&key), model.remove(&key)),
                    _ => {
                        if let Some(value) = table.get_mut(&key) {
                            value.push('!');
                        }
                        if let Some(value) = model.get_mut(&key) {
                            value.push('!');
                        }
                    }
                }
                if number % 100 == 0 {
                    kept.push((table.clone(), model.clone()));
                }
            }
            kept.push((table, model));
            for ((before, was), (after, is)) in kept.iter().zip(kept.iter().skip(1)) {
                let keys: BTreeSet<_> = was.keys().chain(is.keys()).collect();
                let expected = keys.into_iter().map(|key| (key, was.get(key), is.get(key)));
                prop_assert!(after.changes_since(before).eq(expected.filter(|(_, was, is)| was != is)));
            }
            for (table, model) in kept {
                prop_assert_eq!(table.size(), model.len());
                prop_assert!(table.iter().eq(model.iter()));
                let part = |(key, _): &(&u16, &String)| (100..=200).contains(*key);
                prop_assert!(table.range(100..=200).eq(model.iter().filter(part)));
                prop_assert!(table.values().rev().eq(model.values().rev()));
                // As a snapshot: the same bytes, and back.
                let bytes = codec::encode_snapshot(&table).unwrap();
                prop_assert_eq!(&bytes, &codec::encode_snapshot(&model).unwrap());
                prop_assert_eq!(codec::decode_snapshot::<Table<u16, String>>(&bytes).unwrap(), table);
            }
        }
    }
}
