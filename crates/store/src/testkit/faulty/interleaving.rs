//! A store in which something happens in between.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::decorated::{Call, Decorated, Decorator};
use crate::StoreError;

/// A store that runs a closure right before a chosen call: the other node that is a little faster.
pub type Interleaving<S> = Decorated<S, Interleaved<S>>;

type Then<S> = Box<dyn FnOnce(S) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

pub struct Interleaved<S>(Mutex<Vec<Planned<S>>>);

struct Planned<S> {
    call: Call,
    /// So many such calls pass first.
    after: usize,
    then: Then<S>,
}

impl<S> fmt::Debug for Interleaved<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interleaved").finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync> Interleaving<S> {
    /// Nothing is planned yet. `S` is a handle, such as an `Arc` of a store.
    pub fn new(store: S) -> Self {
        Self { store, decorator: Interleaved(Mutex::new(Vec::new())) }
    }

    /// Runs `then`, once, on the store underneath, right before the call that comes after `after` other
    /// `call`s from now on; the call waits for it.
    pub fn before<F>(&self, call: Call, after: usize, then: impl FnOnce(S) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let then: Then<S> = Box::new(move |store| Box::pin(then(store)));
        self.decorator.plan(Planned { call, after, then });
    }
}

impl<S> Interleaved<S> {
    fn plan(&self, planned: Planned<S>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// Counts a call, and takes what is due at it.
    fn due(&self, call: Call) -> Vec<Then<S>> {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for mut planned in plan.drain(..) {
            if planned.call != call {
                later.push(planned);
            } else if planned.after == 0 {
                due.push(planned.then);
            } else {
                planned.after -= 1;
                later.push(planned);
            }
        }
        *plan = later;
        due
    }
}

#[async_trait]
impl<S: Clone + Send + Sync> Decorator<S> for Interleaved<S> {
    async fn before(&self, store: &S, call: Call) -> Result<(), StoreError> {
        for then in self.due(call) {
            then(store.clone()).await;
        }
        Ok(())
    }
}
