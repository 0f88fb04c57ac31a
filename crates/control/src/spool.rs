//! Facts on their way to the activity log: sessions that began and ended, what mappings carried.
//!
//! They have happened, whether the store is there or not. So they are noted here, without waiting, and one task
//! brings them to the log, in order, each under one command id for as long as it takes: an attempt whose outcome
//! is unknown is made again under the same id, and the log carries it out once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use underpass_domain::{ActivityCommand, Meta, Subject};

use crate::control::Control;
use crate::error::ControlError;

/// Facts that wait at most: each of the links that a node may have ends and begins anew, and some to spare.
pub const SPOOL_FACTS_MAX: usize = 50_000;
/// Their memory at most. A fact takes some 300 bytes, a long reason included.
pub const SPOOL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Beyond so many waiting facts no failed authentications are taken: strangers must not crowd out what clients
/// did.
const STRANGERS_MAX: usize = SPOOL_FACTS_MAX / 2;
/// Facts that go out together and share a commit.
const BATCH_MAX: usize = 64;
/// Between two attempts while the store is away.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a stop waits for the spool to be empty. A store that is there takes thousands of facts in that time.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The facts that wait, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    waiting: Mutex<Waiting>,
    /// Rung when there is something to do.
    more: Notify,
    /// Rung whenever nothing is left.
    empty: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    facts: VecDeque<Fact>,
    bytes: usize,
    /// Facts that had no room, since this was told last.
    lost: u64,
}

#[derive(Debug)]
struct Fact {
    meta: Meta,
    about: Subject,
    command: ActivityCommand,
    written: Option<oneshot::Sender<()>>,
}

/// A fact that was noted.
#[derive(Debug)]
pub struct Noted {
    written: Option<oneshot::Receiver<()>>,
}

impl Noted {
    /// One that nobody will hear of again.
    pub(crate) fn nowhere() -> Self {
        Self { written: None }
    }

    /// Waits until the fact is in the log, or was refused by it. `false`: not within that time; it gets there
    /// when the store is back.
    pub async fn written(self, within: Duration) -> bool {
        let Some(written) = self.written else { return false };
        matches!(tokio::time::timeout(within, written).await, Ok(Ok(())))
    }
}

impl Fact {
    fn bytes(&self) -> usize {
        let text = match &self.command {
            ActivityCommand::OpenSession { transport, release, .. } => {
                transport.len() + release.as_ref().map_or(0, String::len)
            }
            ActivityCommand::CloseSession { reason, .. }
            | ActivityCommand::RecordAuthFailure { reason, .. } => reason.len(),
            ActivityCommand::ExpireSession { .. }
            | ActivityCommand::RecordUsage { .. }
            | ActivityCommand::StartCarry
            | ActivityCommand::Carry { .. }
            | ActivityCommand::FinishCarry
            | ActivityCommand::NoteTrimmed { .. } => 0,
        };
        size_of::<Self>() + text
    }
}

impl Spool {
    /// Takes a fact, if there is room. One that has none is counted; the end of a session that is lost so is
    /// found by the reaper.
    pub(crate) fn note(&self, meta: Meta, about: Subject, command: ActivityCommand) -> Noted {
        let stranger = matches!(command, ActivityCommand::RecordAuthFailure { .. });
        let (sender, receiver) = oneshot::channel();
        let fact = Fact { meta, about, command, written: Some(sender) };
        let mut waiting = self.lock();
        let facts_max = if stranger { STRANGERS_MAX } else { SPOOL_FACTS_MAX };
        if waiting.facts.len() >= facts_max || waiting.bytes + fact.bytes() > SPOOL_BYTES_MAX {
            waiting.lost += 1;
            if waiting.lost == 1 {
                tracing::error!(
                    facts = waiting.facts.len(),
                    "the spool is full: what happens is not recorded until the store is back"
                );
            }
            return Noted::nowhere();
        }
        waiting.bytes += fact.bytes();
        waiting.facts.push_back(fact);
        drop(waiting);
        self.more.notify_one();
        Noted { written: Some(receiver) }
    }

    /// How many facts wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().facts.len()
    }

    /// The oldest facts, at most so many, no two about the same subject: those must not overtake each other,
    /// and one batch may be written in two halves.
    fn next(&self, batch_max: usize) -> Vec<(Meta, ActivityCommand)> {
        let mut about = HashSet::new();
        let waiting = self.lock();
        let alone = |fact: &&Fact| fact.about == Subject::None || about.insert(fact.about);
        let batch = waiting.facts.iter().take(batch_max).take_while(alone);
        batch.map(|fact| (fact.meta.clone(), fact.command.clone())).collect()
    }

    /// Takes out those of the first facts that are done.
    fn done(&self, done: &[bool]) {
        let mut waiting = self.lock();
        let tried = done.len().min(waiting.facts.len());
        let rest = waiting.facts.split_off(tried);
        let first = std::mem::replace(&mut waiting.facts, rest);
        let mut kept = Vec::new();
        for (mut fact, done) in first.into_iter().zip(done) {
            if *done {
                waiting.bytes -= fact.bytes();
                if let Some(written) = fact.written.take() {
                    // Whoever noted it seldom waits.
                    let _ = written.send(());
                }
            } else {
                kept.push(fact);
            }
        }
        for fact in kept.into_iter().rev() {
            waiting.facts.push_front(fact);
        }
        if waiting.facts.is_empty() {
            let lost = std::mem::take(&mut waiting.lost);
            if lost > 0 {
                tracing::error!(lost, "facts that had no room in the spool are not recorded");
            }
            self.empty.notify_waiters();
        }
    }

    /// Waits until everything is written. `false`: not within that time.
    pub(crate) async fn emptied(&self, within: Duration) -> bool {
        let emptied = async {
            loop {
                let empty = self.empty.notified();
                let mut empty = std::pin::pin!(empty);
                // Registered before the look, so that the last fact can't slip through.
                empty.as_mut().enable();
                if self.len() == 0 {
                    return;
                }
                empty.await;
            }
        };
        tokio::time::timeout(within, emptied).await.is_ok()
    }

    /// Waits until everything is written, but not for long. Tells what is not.
    pub(crate) async fn close(&self) {
        if !self.emptied(CLOSE_WAIT).await {
            let waiting = self.lock();
            let lost = waiting.facts.len() as u64 + waiting.lost;
            tracing::error!(
                lost,
                "the node stops without its store: facts that wait for it are not recorded"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings facts to the log until told to stop.
pub(crate) async fn run(control: &Control, stop: &CancellationToken) {
    let spool = &control.spool;
    // After a failure one fact tries the ground before the others follow.
    let mut batch_max = BATCH_MAX;
    loop {
        let batch = if control.may_write() { spool.next(batch_max) } else { Vec::new() };
        if batch.is_empty() {
            let idle = spool.len() == 0;
            tokio::select! {
                () = stop.cancelled() => return,
                () = spool.more.notified(), if idle => {}
                () = tokio::time::sleep(PAUSE), if !idle => {}
            }
            continue;
        }
        let attempts = batch.into_iter().map(|(meta, command)| control.write_fact(meta, command));
        let outcomes = join_all(attempts).await;
        let done: Vec<bool> = outcomes.into_iter().map(is_done).collect();
        let failed = done.contains(&false);
        spool.done(&done);
        batch_max = if failed { 1 } else { BATCH_MAX };
        if failed && stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

fn is_done(outcome: Result<(), ControlError>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) if error.retry_after().is_some() => {
            tracing::debug!(error = &error as &dyn std::error::Error, "a fact waits for the log");
            false
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the log refuses a fact");
            true
        }
    }
}
