//! A store that fails.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::decorated::{Call, Decorated, Decorator};
use crate::StoreError;
use crate::testkit::Seeded;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is not made: [`StoreError::Unavailable`].
    Unavailable,
    /// It is made, and its outcome is unknown. On a read: [`Fault::Unavailable`].
    IndeterminateDone,
    /// It is not made, and its outcome is unknown. On a read: [`Fault::Unavailable`].
    IndeterminateNotDone,
}

/// How often calls fail, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Unavailable`].
    pub unavailable: u64,
    /// [`Fault::IndeterminateDone`] and [`Fault::IndeterminateNotDone`], half each.
    pub indeterminate: u64,
}

/// A store whose calls fail by a script or by chance.
pub type Flaky<S> = Decorated<S, Flakiness>;

#[derive(Debug)]
pub struct Flakiness(Mutex<Plan>);

#[derive(Debug)]
struct Plan {
    script: VecDeque<Fault>,
    /// Only such calls take from the script.
    only: Option<Call>,
    odds: Option<(Odds, Seeded)>,
    /// An unknown outcome that must be told after the call.
    pending: Vec<Call>,
}

impl<S> Flaky<S> {
    /// The first calls fail as `faults` say, one after another, the later ones don't.
    pub fn scripted(store: S, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::planned(store, faults, None, None)
    }

    /// Like [`scripted`](Self::scripted), but only `call`s count and fail.
    pub fn scripted_for(store: S, call: Call, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::planned(store, faults, Some(call), None)
    }

    /// Calls fail by chance, the same way for the same seed and order of calls.
    pub fn seeded(store: S, seed: u64, odds: Odds) -> Self {
        Self::planned(store, [], None, Some((odds, Seeded::new(seed))))
    }

    /// Adds to the script.
    pub fn add(&self, faults: impl IntoIterator<Item = Fault>) {
        self.decorator.plan().script.extend(faults);
    }

    fn planned(
        store: S,
        faults: impl IntoIterator<Item = Fault>,
        only: Option<Call>,
        odds: Option<(Odds, Seeded)>,
    ) -> Self {
        let plan = Plan { script: faults.into_iter().collect(), only, odds, pending: Vec::new() };
        Self { store, decorator: Flakiness(Mutex::new(plan)) }
    }
}

impl Flakiness {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn fault(&mut self, call: Call) -> Fault {
        if self.only.is_some_and(|only| only != call) {
            return Fault::None;
        }
        let fault = match (self.script.pop_front(), &mut self.odds) {
            (Some(fault), _) => fault,
            (None, None) => Fault::None,
            (None, Some((odds, seeded))) => match seeded.below(1000) {
                dice if dice < odds.unavailable => Fault::Unavailable,
                dice if dice < odds.unavailable + odds.indeterminate => {
                    if dice % 2 == 0 {
                        Fault::IndeterminateDone
                    } else {
                        Fault::IndeterminateNotDone
                    }
                }
                _ => Fault::None,
            },
        };
        match fault {
            Fault::IndeterminateDone | Fault::IndeterminateNotDone if !call.writes() => Fault::Unavailable,
            fault => fault,
        }
    }
}

#[async_trait]
impl<S: Send + Sync> Decorator<S> for Flakiness {
    async fn before(&self, _store: &S, call: Call) -> Result<(), StoreError> {
        let mut plan = self.plan();
        match plan.fault(call) {
            Fault::None => Ok(()),
            Fault::Unavailable => Err(StoreError::unavailable(call.name(), "a fault on purpose")),
            Fault::IndeterminateNotDone => Err(StoreError::indeterminate(call.name(), "a fault on purpose")),
            Fault::IndeterminateDone => {
                plan.pending.push(call);
                Ok(())
            }
        }
    }

    async fn after(&self, _store: &S, call: Call) -> Result<(), StoreError> {
        let pending = &mut self.plan().pending;
        match pending.iter().position(|one| *one == call) {
            None => Ok(()),
            Some(at) => {
                pending.swap_remove(at);
                Err(StoreError::indeterminate(call.name(), "a fault on purpose"))
            }
        }
    }
}
