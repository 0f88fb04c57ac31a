//! Watches: etcd's own, taken up again when they break.
//!
//! Each watch has a connection of its own. A watcher that stops reading fills the window of its connection and
//! nothing else: neither other watches nor requests wait for it, and etcd, which keeps the history anyway, catches
//! up with it later. For the same reason nothing runs in the background: what isn't asked for isn't read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::proto::PbEvent;
use etcd_client::{KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, sleep, timeout};
use underpass_store::{Batch, BoxError, Change, Key, Revision, StoreError, Watch, WatchSource};

use crate::batches::Batches;
use crate::link::source;
use crate::namespace::Range;
use crate::store::{Shared, entry};

const OP: &str = "watch";

/// So long a broken watch is taken up again by itself. Outlasts the restart of a member and an election.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// A watch of what comes after `after` under `prefix`.
pub(crate) async fn watch(shared: &Arc<Shared>, prefix: &Key, after: Revision) -> Result<Watch, StoreError> {
    let range = shared.namespace.under(prefix);
    let deadline = Instant::now() + shared.server.request_timeout;
    let stream = begin(Arc::clone(shared), range.clone(), after, deadline)
        .await
        .map_err(|error| StoreError::unavailable(OP, error))?;
    Ok(Watch::new(EtcdWatch {
        shared: Arc::clone(shared),
        range,
        batches: Batches::new(after),
        state: State::running(stream),
        trouble: None,
    }))
}

struct EtcdWatch {
    shared: Arc<Shared>,
    range: Range,
    batches: Batches,
    state: State,
    /// Since when it breaks each time before it has run for a while.
    trouble: Option<Instant>,
}

/// Outlives the futures that wait: dropping one loses neither an answer nor an attempt.
enum State {
    Beginning(Pin<Box<dyn Future<Output = Result<WatchStream, BoxError>> + Send>>),
    Running { stream: Box<WatchStream>, since: Instant },
    Ended(Ended),
}

impl State {
    fn running(stream: WatchStream) -> Self {
        Self::Running { stream: Box::new(stream), since: Instant::now() }
    }
}

#[derive(Clone)]
enum Ended {
    Compacted { after: Revision, oldest: Revision },
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
}

impl From<Ended> for StoreError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Compacted { after, oldest } => Self::Compacted { after, oldest },
            Ended::Unavailable(why) => Self::unavailable(OP, why),
        }
    }
}

#[async_trait]
impl WatchSource for EtcdWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            if let Some(batch) = self.batches.next() {
                return Ok(batch);
            }
            let closed = self.shared.server.closed.clone();
            tokio::select! {
                biased;
                () = closed.cancelled() => {
                    return Err(StoreError::unavailable(OP, "the store is closed"));
                }
                ended = self.advance() => ended?,
            }
        }
    }
}

impl EtcdWatch {
    /// One step. Cancelling it between two of them is fine, and there is nothing within one to lose.
    async fn advance(&mut self) -> Result<(), StoreError> {
        match &mut self.state {
            State::Ended(ended) => return Err(ended.clone().into()),
            State::Beginning(beginning) => match beginning.await {
                Ok(stream) => self.state = State::running(stream),
                Err(error) => self.state = State::Ended(Ended::Unavailable(error.into())),
            },
            State::Running { stream, .. } => match stream.message().await {
                Ok(Some(answer)) => self.take(answer),
                Ok(None) => self.begin_again("the watch has ended".into()),
                Err(error) => self.begin_again(source(error)),
            },
        }
        Ok(())
    }

    fn take(&mut self, answer: WatchResponse) {
        if answer.compact_revision() > 0 {
            let oldest = Revision(answer.compact_revision().cast_unsigned());
            let after = self.batches.interrupted();
            self.state = State::Ended(Ended::Compacted { after, oldest });
            return;
        }
        if answer.canceled() {
            return match answer.cancel_reason() {
                reason if reason.contains("permission denied") => {
                    let why: BoxError = reason.to_owned().into();
                    self.state = State::Ended(Ended::Unavailable(why.into()));
                }
                reason => self.begin_again(reason.to_owned().into()),
            };
        }
        let goes_on = answer.0.fragment;
        for event in answer.0.events {
            self.add(event);
        }
        if !goes_on {
            self.batches.end();
        }
    }

    /// (The client's own `event_type()` panics at a kind it doesn't know.)
    fn add(&mut self, event: PbEvent) {
        let Some(stored) = event.kv.map(KeyValue) else { return };
        let Some(key) = self.shared.namespace.strip(stored.key()) else { return };
        let revision = Revision(stored.mod_revision().cast_unsigned());
        let change = match event.r#type {
            PUT => Change::Put(entry(key, stored)),
            _ => Change::Deleted(key),
        };
        self.batches.add(revision, change);
    }

    fn begin_again(&mut self, why: BoxError) {
        let after = self.batches.interrupted();
        tracing::debug!(error = %*why, %after, "a watch of etcd begins again");
        if let State::Running { since, .. } = &self.state
            && since.elapsed() > PATIENCE
        {
            self.trouble = None;
        }
        let again = self.trouble.is_some();
        let deadline = *self.trouble.get_or_insert_with(Instant::now) + PATIENCE;
        if Instant::now() >= deadline {
            self.state = State::Ended(Ended::Unavailable(why.into()));
            return;
        }
        let (shared, range) = (Arc::clone(&self.shared), self.range.clone());
        self.state = State::Beginning(Box::pin(async move {
            if again {
                sleep(PAUSE).await;
            }
            begin(shared, range, after, deadline).await
        }));
    }
}

/// `mvccpb.Event.EventType`.
const PUT: i32 = etcd_client::EventType::Put as i32;

/// Begins a watch, at whichever member takes it before `deadline`.
async fn begin(
    shared: Arc<Shared>,
    range: Range,
    after: Revision,
    deadline: Instant,
) -> Result<WatchStream, BoxError> {
    loop {
        if shared.server.closed.is_cancelled() {
            return Err("the store is closed".into());
        }
        let error = match begin_once(&shared, &range, after).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(error);
        }
        tracing::debug!(error = %*error, "a watch of etcd could not begin");
        sleep(PAUSE).await;
    }
}

async fn begin_once(shared: &Shared, range: &Range, after: Revision) -> Result<WatchStream, BoxError> {
    let linked = shared.server.links.another().await?;
    let start = i64::try_from(after.0).unwrap_or(i64::MAX).saturating_add(1);
    let options = WatchOptions::new().with_range(range.1.clone()).with_start_revision(start).with_fragment();
    let watch = async {
        let mut stream =
            linked.client.watch_client().watch(range.0.clone(), Some(options)).await.map_err(source)?;
        // The first answer says that the watch is there. What is wrong with it comes in the next one.
        match stream.message().await.map_err(source)? {
            Some(answer) if answer.created() && !answer.canceled() => Ok(stream),
            Some(answer) => Err(answer.cancel_reason().to_owned().into()),
            None => Err("etcd ends a watch that it was asked for".into()),
        }
    };
    let begun = timeout(shared.server.request_timeout / 2, watch)
        .await
        .unwrap_or_else(|_| Err(format!("no answer from {}", shared.server.links.url(&linked)).into()));
    if begun.is_err() {
        shared.server.links.leave(&linked);
    }
    begun
}
