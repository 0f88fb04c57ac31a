//! One request: its deadline, its attempts, what became of it.
//!
//! The client connects once, waits without end and tries nothing again. All requests therefore go through
//! [`Server::call`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use underpass_store::{BoxError, StoreError};

use crate::link::{Links, source};
use crate::verdict::{Verdict, is_full, is_too_long, verdict};

/// What may be repeated gets so many attempts at least before the deadline, on other members if there are
/// any: a member that hangs costs a third of the time.
const ATTEMPTS_MIN: u32 = 3;

/// Between attempts, doubling.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// Whether a request may be sent again when it is unknown whether it has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It reads.
    Read,
    /// It writes, but done twice it is as if done once.
    Repeatable,
    /// It writes: only the caller knows.
    Once,
}

/// A request that got no good answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It didn't happen.
    NotDone(BoxError),
    /// It may have happened, or may still happen.
    Unknown(BoxError),
    /// It didn't happen: etcd answers so. Or, where the database is full, it is unknown.
    Answer(Error),
}

impl Failed {
    /// As an error of the store.
    pub(crate) fn into_store(self, op: &'static str, kind: Kind) -> StoreError {
        match self {
            Self::Unknown(source) if kind != Kind::Read => StoreError::indeterminate(op, source),
            Self::Answer(error) if kind != Kind::Read && is_full(&error) => {
                StoreError::indeterminate(op, source(error))
            }
            Self::NotDone(source) | Self::Unknown(source) => StoreError::unavailable(op, source),
            Self::Answer(error) => StoreError::unavailable(op, source(error)),
        }
    }
}

/// A cluster, and how long we wait for it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) links: Links,
    pub(crate) request_timeout: Duration,
    pub(crate) closed: CancellationToken,
}

impl Server {
    /// Sends what `request` makes, until it is answered or `request_timeout` has passed.
    pub(crate) async fn call<T, F>(
        &self,
        kind: Kind,
        request: impl Fn(Arc<Client>) -> F + Send + Sync,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut pause = PAUSE_MIN;
        let mut happened = false;
        loop {
            if self.closed.is_cancelled() {
                return Err(Failed::NotDone("the store is closed".into()));
            }
            let failure: BoxError = match timeout_at(deadline, self.links.get()).await {
                Err(_) => return Err(ended(happened, self.too_late())),
                Ok(Err(why)) => why.into(),
                Ok(Ok(linked)) => {
                    let until = match kind {
                        Kind::Once => deadline,
                        _ => deadline.min(Instant::now() + self.request_timeout / ATTEMPTS_MIN),
                    };
                    match timeout_at(until, request(Arc::clone(&linked.client))).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error)) if is_full(&error) || kind == Kind::Read && is_too_long(&error) => {
                            return Err(Failed::Answer(error));
                        }
                        Ok(Err(error)) => match verdict(&error) {
                            Verdict::Refused => return Err(Failed::Answer(error)),
                            Verdict::NotYet { leave } => {
                                if leave {
                                    self.links.leave(&linked);
                                }
                                source(error)
                            }
                            Verdict::Unknown => {
                                self.links.leave(&linked);
                                if kind == Kind::Once {
                                    return Err(Failed::Unknown(source(error)));
                                }
                                happened = true;
                                source(error)
                            }
                        },
                        Err(_) => {
                            self.links.leave(&linked);
                            happened = true;
                            let late = format!("no answer from {}", self.links.url(&linked));
                            if kind == Kind::Once || Instant::now() >= deadline {
                                return Err(Failed::Unknown(late.into()));
                            }
                            late.into()
                        }
                    }
                }
            };
            tracing::debug!(error = %*failure, ?kind, "a request to etcd goes out again");
            if Instant::now() + pause >= deadline {
                return Err(ended(happened, failure));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn too_late(&self) -> BoxError {
        format!("no connection within {:?} to any of {}", self.request_timeout, self.links.urls()).into()
    }
}

fn ended(happened: bool, source: BoxError) -> Failed {
    if happened { Failed::Unknown(source) } else { Failed::NotDone(source) }
}
