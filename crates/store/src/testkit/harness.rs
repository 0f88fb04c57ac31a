//! Runs cases.

use std::any::Any;
use std::collections::HashMap;
use std::env;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::{BoxError, Store};

/// What a case comes to, beside its assertions.
pub type Checked = Result<(), BoxError>;

/// A named case on its way.
pub type Case = (&'static str, Pin<Box<dyn Future<Output = Checked> + Send>>);

/// Longer means that it hangs. The longest case waits for leases of a few seconds.
const CASE_DEADLINE: Duration = Duration::from_mins(2);

/// One place to store things, for tests: a folder, a namespace, or nothing but memory.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Opens what is stored there. Called again only after [`close`](Self::close).
    async fn open(&self) -> Arc<dyn Store>;

    /// Closes what [`open`](Self::open) gave, as an orderly shutdown does.
    async fn close(&self);

    /// Whether closing keeps what was stored.
    fn durable(&self) -> bool;

    /// Whether the store goes on without us while it is closed, as a server that others use does: leases run out
    /// meanwhile. Otherwise its time stands still, and opening starts every ttl anew.
    fn runs_while_closed(&self) -> bool {
        false
    }
}

/// Runs a case to its end.
pub fn run(case: impl Future<Output = Checked>) {
    let outcome = runtime().block_on(async { tokio::time::timeout(CASE_DEADLINE, case).await });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{}", chain(&*error)),
        Err(elapsed) => panic!("the case hangs: {elapsed}"),
    }
}

/// Runs a case on a fresh backend, or says that it could not.
pub async fn with_backend<B: Backend, F: Future<Output = Checked>>(
    backend: Option<B>,
    case: impl FnOnce(Arc<dyn Backend>) -> F,
) -> Checked {
    let Some(backend) = backend else {
        assert!(env::var_os("REQUIRE_BACKENDS").is_none_or(|value| value != "1"), "the backend is missing");
        eprintln!("not run: the backend is missing on this machine");
        return Ok(());
    };
    case(Arc::new(backend)).await
}

/// Runs a case on a fresh store, and closes it.
pub async fn with_store<B: Backend, F: Future<Output = Checked>>(
    backend: Option<B>,
    case: impl FnOnce(Arc<dyn Store>) -> F,
) -> Checked {
    with_backend(backend, async |backend: Arc<dyn Backend>| {
        let checked = case(backend.open().await).await;
        backend.close().await;
        checked
    })
    .await
}

/// Cases that mostly wait, run at once: the first test that asks runs all of them, each test answers for its
/// own.
#[derive(Debug, Default)]
pub struct Together(OnceLock<HashMap<&'static str, Result<(), String>>>);

impl Together {
    /// Nothing has run.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Passes if the case `name` of `cases` does.
    pub fn check(&self, name: &str, cases: impl FnOnce() -> Vec<Case>) {
        match self.0.get_or_init(|| run_together(cases())).get(name) {
            Some(Ok(())) => {}
            Some(Err(failure)) => panic!("{failure}"),
            None => panic!("no case has this name"),
        }
    }
}

fn run_together(cases: Vec<Case>) -> HashMap<&'static str, Result<(), String>> {
    runtime().block_on(async {
        let mut outcomes = HashMap::new();
        let mut running = JoinSet::new();
        let mut names = HashMap::new();
        for (name, case) in cases {
            let task = running.spawn(tokio::time::timeout(CASE_DEADLINE, case));
            names.insert(task.id(), name);
        }
        while let Some(ended) = running.join_next_with_id().await {
            let (id, outcome) = match ended {
                Ok((id, Ok(Ok(())))) => (id, Ok(())),
                Ok((id, Ok(Err(error)))) => (id, Err(chain(&*error))),
                Ok((id, Err(_))) => (id, Err("the case hangs".to_owned())),
                Err(error) => (error.id(), Err(reason(error.into_panic()))),
            };
            if let Some(name) = names.remove(&id) {
                outcomes.insert(name, outcome);
            }
        }
        outcomes
    })
}

#[expect(clippy::expect_used, reason = "a test without a runtime has failed")]
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn reason(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic", |text| text).to_owned(),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
