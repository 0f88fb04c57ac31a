//! A store that shows what was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::decorated::{Decorated, Decorator};
use crate::testkit::Seeded;
use crate::{Entry, Key};

/// A store whose reads of single entries now and then show what they had shown before, as a replica does that lags
/// behind: it breaks the first promise of [`KvStore`](crate::KvStore).
pub type Stale<S> = Decorated<S, Staleness>;

#[derive(Debug)]
pub struct Staleness {
    thousandths: u64,
    shown: Mutex<(Seeded, HashMap<Key, Option<Entry>>)>,
}

impl<S> Stale<S> {
    /// So many thousandths of the reads show what the last one of that key did that was not stale.
    pub fn seeded(store: S, seed: u64, thousandths: u64) -> Self {
        let shown = Mutex::new((Seeded::new(seed), HashMap::new()));
        Self { store, decorator: Staleness { thousandths, shown } }
    }
}

#[async_trait]
impl<S: Send + Sync> Decorator<S> for Staleness {
    fn entry(&self, key: &Key, entry: Option<Entry>) -> Option<Entry> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (seeded, before) = &mut *shown;
        if seeded.below(1000) < self.thousandths
            && let Some(before) = before.get(key)
        {
            return before.clone();
        }
        before.insert(key.clone(), entry.clone());
        entry
    }
}
