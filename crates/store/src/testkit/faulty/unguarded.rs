//! A store that loses guards.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::decorated::{Decorated, Decorator};
use crate::testkit::Seeded;
use crate::{Commit, Guard, Key, Write};

/// A store that now and then doesn't look whether guards hold: it breaks the first promise of
/// [`CasStore`](crate::CasStore).
pub type Unguarded<S> = Decorated<S, Guards>;

#[derive(Debug)]
pub struct Guards {
    prefix: Key,
    thousandths: u64,
    seeded: Mutex<Seeded>,
}

impl<S> Unguarded<S> {
    /// In so many thousandths of the commits, guards at keys that begin with `prefix` are not looked at. The empty
    /// prefix means all guards.
    pub fn seeded(store: S, seed: u64, prefix: Key, thousandths: u64) -> Self {
        let seeded = Mutex::new(Seeded::new(seed));
        Self { store, decorator: Guards { prefix, thousandths, seeded } }
    }
}

impl Guards {
    fn lost(&self) -> bool {
        self.seeded.lock().unwrap_or_else(PoisonError::into_inner).below(1000) < self.thousandths
    }
}

#[async_trait]
impl<S: Send + Sync> Decorator<S> for Guards {
    fn commit(&self, commit: Commit) -> Commit {
        if !self.lost() {
            return commit;
        }
        let (guards, writes) = commit.into_parts();
        let prefix: &[u8] = self.prefix.as_ref();
        let kept = |(key, _): &(Key, Guard)| !key.as_ref().starts_with(prefix);
        let commit = guards
            .into_iter()
            .filter(kept)
            .fold(Commit::new(), |commit, (key, guard)| commit.guard(key, guard));
        writes.into_iter().fold(commit, |commit, write| match write {
            Write::Put { key, value, lease: None } => commit.put(key, value),
            Write::Put { key, value, lease: Some(lease) } => commit.put_leased(key, value, lease),
            Write::Delete { key } => commit.delete(key),
        })
    }
}
