//! What is served now, and getting from there to what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use underpass_domain::MappingId;
use underpass_wire::link::{Applied, Body, Desired, MappingResult, ResultStatus};

use crate::allow::Approach;
use crate::claim::{May, Reservations, may_listen};
use crate::core::Core;
use crate::desired::{self, Listen, Version, Wanted};
use crate::error::AgentError;
use crate::events::AgentEvent;
use crate::listen::{Listening, bind};
use crate::sync::{lock, read, write};

/// How often a listener that could not be bound is tried again: the program that has the port may end.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// One mapping that is served here.
#[derive(Debug)]
pub(crate) struct Served {
    wanted: RwLock<Arc<Wanted>>,
    /// Cancelled when the mapping is served no more: its tunnels end.
    pub(crate) gone: CancellationToken,
    tunnels: AtomicUsize,
    listening: Mutex<Option<Listening>>,
    problem: Mutex<Option<Problem>>,
}

/// Why a mapping can't be served for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: ResultStatus,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Served {
    fn new(wanted: Arc<Wanted>) -> Self {
        Self {
            wanted: RwLock::new(wanted),
            gone: CancellationToken::new(),
            tunnels: AtomicUsize::new(0),
            listening: Mutex::default(),
            problem: Mutex::default(),
        }
    }

    pub(crate) fn wanted(&self) -> Arc<Wanted> {
        read(&self.wanted).clone()
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        lock(&self.problem).clone()
    }

    /// Where callers are listened for.
    pub(crate) fn listens_on(&self) -> Option<SocketAddr> {
        lock(&self.listening).as_ref().map(|listening| listening.address)
    }

    /// Counts a tunnel for as long as the answer lives.
    pub(crate) fn count_tunnel(self: &Arc<Self>) -> impl Drop + use<> {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }
}

struct Running(Arc<Served>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The newest word of the server; older ones that were not looked at yet don't matter.
    newest: watch::Sender<Option<Arc<Desired>>>,
    served: RwLock<BTreeMap<MappingId, Arc<Served>>>,
    /// Counts up after every change of the above.
    changes: watch::Sender<u64>,
    /// Listeners bound before their mapping exists, for a `connect` that is under way.
    pub(crate) reservations: Reservations,
    /// One change at a time.
    applying: tokio::sync::Mutex<Option<Version>>,
}

impl Serving {
    pub(crate) fn new() -> Self {
        Self {
            newest: watch::Sender::new(None),
            served: RwLock::default(),
            changes: watch::Sender::new(0),
            reservations: Reservations::default(),
            applying: tokio::sync::Mutex::default(),
        }
    }

    /// The server wants this. It is looked at by [`follow`].
    pub(crate) fn wanted(&self, desired: Desired) {
        self.newest.send_replace(Some(Arc::new(desired)));
    }

    /// The server's words, beginning with the newest that was said already: the link may be up before anybody
    /// follows.
    fn words(&self) -> watch::Receiver<Option<Arc<Desired>>> {
        let mut words = self.newest.subscribe();
        words.mark_changed();
        words
    }

    pub(crate) fn get(&self, mapping: MappingId) -> Option<Arc<Served>> {
        read(&self.served).get(&mapping).cloned()
    }

    /// The mapping, as soon as it is served, unless that takes too long.
    pub(crate) async fn wait_for(&self, mapping: MappingId, patience: Duration) -> Option<Arc<Served>> {
        self.wait_until(patience, || self.get(mapping)).await
    }

    /// What `look` finds, as soon as it finds something.
    pub(crate) async fn wait_until<T>(&self, patience: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut changes = self.changes.subscribe();
        timeout(patience, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look() {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten()
    }

    /// How many mappings are served, and how many tunnels run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let served = read(&self.served);
        (served.len(), served.values().map(|one| one.tunnels.load(Ordering::Relaxed)).sum())
    }

    /// Who listens on this address now.
    pub(crate) fn listener_on(&self, address: SocketAddr) -> Option<MappingId> {
        let served = read(&self.served);
        served.iter().find(|(_, one)| one.listens_on() == Some(address)).map(|(mapping, _)| *mapping)
    }

    /// All mappings that the server wants served; `None` before its first word.
    pub(crate) fn all_wanted(&self) -> Option<BTreeSet<MappingId>> {
        (*self.changes.borrow() > 0).then(|| read(&self.served).keys().copied().collect())
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Stops to listen; tunnels go on. For the shutdown.
    pub(crate) async fn stop_listening(&self) {
        let all: Vec<_> = read(&self.served).values().cloned().collect();
        for one in all {
            let listening = lock(&one.listening).take();
            if let Some(listening) = listening {
                listening.stop().await;
            }
        }
    }

    /// Ends everything: this client may not be here any more.
    pub(crate) async fn clear(&self, core: &Arc<Core>) {
        let mut version = self.applying.lock().await;
        *version = None;
        let all: Vec<_> = read(&self.served).keys().copied().collect();
        for mapping in all {
            self.end(core, mapping).await;
        }
        self.changed();
    }

    async fn end(&self, core: &Arc<Core>, mapping: MappingId) {
        let Some(one) = write(&self.served).remove(&mapping) else { return };
        one.gone.cancel();
        let listening = lock(&one.listening).take();
        if let Some(listening) = listening {
            // Waited for, so that another mapping can have the port at once.
            listening.stop().await;
        }
        core.pairs.forget(mapping);
        core.tell(AgentEvent::MappingGone { mapping });
    }
}

/// Follows the server's word until `stop`.
pub(crate) async fn follow(core: Arc<Core>, stop: CancellationToken) -> Result<(), Infallible> {
    let mut newest = core.serving.words();
    let mut retry_at = Instant::now() + BIND_RETRY;
    loop {
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    break;
                }
                let desired = newest.borrow_and_update().clone();
                if let Some(desired) = desired {
                    apply(&core, &desired).await;
                }
            }
            () = tokio::time::sleep_until(retry_at) => {
                retry_at = Instant::now() + BIND_RETRY;
                retry(&core).await;
            }
            () = core.closing.cancelled() => break,
            () = stop.cancelled() => break,
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// Applies a desired state and reports what became of it.
async fn apply(core: &Arc<Core>, desired: &Desired) {
    let serving = &core.serving;
    let Some((version, mappings)) = desired::read(desired) else {
        tracing::warn!("a desired state without a log id is ignored");
        return;
    };
    let mut applied = serving.applying.lock().await;
    if let Some(known) = &*applied
        && version.is_before(known)
    {
        tracing::debug!(
            position = version.position,
            applied = known.position,
            "an older desired state is ignored"
        );
        return;
    }
    let mut wanted = Vec::with_capacity(mappings.len());
    let mut results = Vec::new();
    for mapping in mappings {
        match mapping {
            Ok(one) => wanted.push(one),
            Err(error) => {
                core.tell(AgentEvent::MappingFailed {
                    mapping: error.mapping,
                    code: "tunnel.failed".into(),
                    message: error.what.clone(),
                });
                results.push(result(error.mapping, ResultStatus::Failed, error.what));
            }
        }
    }
    let current = read(&serving.served).iter().map(|(mapping, one)| (*mapping, one.wanted())).collect();
    let plan = desired::plan(&current, &wanted);

    // First what ends: it frees ports that others may want.
    for mapping in plan.removed {
        serving.end(core, mapping).await;
    }
    for one in plan.changed {
        let Some(served) = serving.get(one.mapping) else { continue };
        let moved = served.wanted().listen.as_ref().map(|listen| listen.address)
            != one.listen.as_ref().map(|listen| listen.address);
        // Keys that were agreed on with another client, or under another key, are not for this one.
        if served.wanted().peers() != one.peers() {
            core.pairs.forget(one.mapping);
        }
        *write(&served.wanted) = one;
        *lock(&served.problem) = None;
        if moved {
            let listening = lock(&served.listening).take();
            if let Some(listening) = listening {
                listening.stop().await;
            }
        }
    }
    for one in plan.added {
        write(&serving.served).insert(one.mapping, Arc::new(Served::new(one)));
    }
    *applied = Some(version);
    stop_unclaimed(core).await;
    serve_all(core);
    report(core, version, results);
}

/// Tries again what could not be served, and reports if something changed.
async fn retry(core: &Arc<Core>) {
    let applied = core.serving.applying.lock().await;
    let Some(version) = *applied else { return };
    stop_unclaimed(core).await;
    if serve_all(core) {
        report(core, version, Vec::new());
    }
}

/// Stops listeners at addresses that have become somebody else's: a `connect` since then has made them so.
async fn stop_unclaimed(core: &Arc<Core>) {
    let all: Vec<_> = read(&core.serving.served).values().cloned().collect();
    for served in all {
        let Some(address) = served.listens_on() else { continue };
        if matches!(may_listen(core, &served.wanted(), address), May::Not(_)) {
            let listening = lock(&served.listening).take();
            if let Some(listening) = listening {
                listening.stop().await;
            }
        }
    }
}

/// Starts what is wanted and not served yet. Answers whether anything changed.
fn serve_all(core: &Arc<Core>) -> bool {
    let all: Vec<_> = read(&core.serving.served).values().cloned().collect();
    let mut changed = false;
    let mut listens = false;
    for served in all {
        let before = (served.listens_on(), served.problem());
        let wanted = served.wanted();
        listens |= wanted.listen.is_some();
        let waits = |listen: &Listen| may_listen(core, &wanted, listen.address) == May::Wait;
        if wanted.listen.as_ref().is_some_and(waits) {
            continue;
        }
        let problem = serve_one(core, &served);
        lock(&served.problem).clone_from(&problem);
        if before == (served.listens_on(), problem.clone()) && before != (None, None) {
            continue;
        }
        changed = true;
        core.tell(match problem {
            Some(Problem { code, message, .. }) => {
                AgentEvent::MappingFailed { mapping: wanted.mapping, code, message }
            }
            None => AgentEvent::MappingReady { mapping: wanted.mapping, listen: served.listens_on() },
        });
    }
    if listens && let Some(session) = &*core.link.borrow() {
        crate::pool::keep_some(session);
    }
    core.serving.changed();
    changed
}

/// What stands in the way of one mapping, after an attempt to serve it.
fn serve_one(core: &Arc<Core>, served: &Arc<Served>) -> Option<Problem> {
    let wanted = served.wanted();
    if let Some(listen) = &wanted.listen
        && served.listens_on().is_none()
    {
        if let May::Not(why) = may_listen(core, &wanted, listen.address) {
            return Some(not_ours(why));
        }
        let made_by = core.pairs.listens(wanted.mapping);
        let reserved = made_by.and_then(|(code, _)| core.serving.reservations.take(listen.address, &code));
        match reserved.map_or_else(|| bind(listen.address), Ok) {
            Ok(listener) => {
                // Where the system chose the port, the chosen one is what counts.
                let address = listener.local_addr().unwrap_or(listen.address);
                if let May::Not(why) = may_listen(core, &wanted, address) {
                    return Some(not_ours(why));
                }
                *lock(&served.listening) = Some(Listening::start(core, served, listener, address));
            }
            Err(error) => {
                let in_use = matches!(error, AgentError::Listen { in_use: true, .. });
                let status = if in_use { ResultStatus::PortInUse } else { ResultStatus::Failed };
                return Some(Problem { status, code: error.code().to_owned(), message: error.to_string() });
            }
        }
    }
    if let Some(offer) = &wanted.offer {
        let allow = read(&core.allow);
        let known = core.pairs.code_of(wanted.mapping).or_else(|| wanted.code.clone());
        let approach = known.as_deref().map_or(Approach::Server, Approach::Code);
        if !allow.may_resolve(&offer.target, approach) {
            return Some(Problem {
                status: ResultStatus::Denied,
                code: "target.denied".into(),
                message: format!("{} is not on the allow list of this client", offer.target),
            });
        }
    }
    None
}

fn not_ours(message: String) -> Problem {
    Problem { status: ResultStatus::Failed, code: "listen.refused".into(), message }
}

/// Tells the server. Without a link nobody is told: the next one begins with a desired state.
fn report(core: &Arc<Core>, version: Version, mut results: Vec<MappingResult>) {
    for (mapping, served) in &*read(&core.serving.served) {
        results.push(match served.problem() {
            Some(problem) => result(*mapping, problem.status, problem.message),
            None => match served.listens_on() {
                Some(address) => result(*mapping, ResultStatus::Listening, address.to_string()),
                // It waits for a `connect`; there is nothing to say yet.
                None if served.wanted().listen.is_some() => continue,
                None => result(*mapping, ResultStatus::Offered, String::new()),
            },
        });
    }
    let applied = Applied { position: version.position, results, epoch: version.epoch };
    if let Some(session) = &*core.link.borrow() {
        session.send(Body::Applied(applied));
    }
}

fn result(mapping: MappingId, status: ResultStatus, message: String) -> MappingResult {
    MappingResult { mapping: mapping.as_bytes().to_vec(), status: status.into(), message }
}

/// Looks at the allow list again: what was denied may be allowed now. Called after a change of the list.
pub(crate) async fn look_again(core: &Arc<Core>) {
    // A change that is being applied looks at the list itself.
    let _ = timeout(BIND_RETRY, retry(core)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_of_the_server_that_came_before_anybody_followed_is_heard() {
        let serving = Serving::new();
        serving.wanted(Desired { position: 7, ..Desired::default() });
        let mut words = serving.words();
        timeout(Duration::from_secs(10), words.changed()).await.unwrap().unwrap();
        assert_eq!(words.borrow_and_update().as_ref().map(|desired| desired.position), Some(7));
        assert!(!words.has_changed().unwrap(), "once");
    }
}
