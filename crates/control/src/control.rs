//! The service itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use underpass_domain::{
    ActivityCommand, ActivityEvent, ActivityState, Actor, Aggregate, ClientId, Clock, CodeId, CommandId,
    ControlCommand, ControlEvent, ControlState, InviteId, KeyId, LogName, MappingId, Meta, NodeId, Position,
    PublicKey, Random, RandomFailed, SessionId, Subject, Timestamp,
};
use underpass_eventlog::head::Head;
use underpass_eventlog::{
    Archived, Archives, Committed, ExecuteError, Export, Log, LogError, LogOptions, Selection, View, keys,
};
use underpass_store::Store;
use underpass_tasks::Tasks;

use crate::auth_failures::{Limiter, Verdict};
use crate::caller::Caller;
use crate::error::{ControlError, OpenError};
use crate::lease::{LeaseLost, NodeLease, Round};
use crate::options::ControlOptions;
use crate::presence::{Announcer, Presence, PresenceGuard};
use crate::spool::{Noted, Spool};
use crate::{expirer, keeper, reaper, spool};

/// How long [`Control::stored_head`] waits: a store that takes longer is as good as away.
pub const STORED_HEAD_WAIT: Duration = Duration::from_secs(2);
/// How long a command waits for the log. A store that is there answers within milliseconds, and within two or
/// three seconds while it elects a leader; who asked should hear before their own patience ends.
pub const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// How long the caller of [`Control::record_auth_failure`] waits for the log.
const FAILURE_WAIT: Duration = Duration::from_secs(2);
/// The longest reason that is recorded with an authentication failure. Parts of it may come from the peer.
const REASON_BYTES_MAX: usize = 200;

/// The control plane of one node.
#[derive(Debug)]
pub struct Control {
    pub(crate) options: ControlOptions,
    /// With the archive behind it.
    pub(crate) store: Arc<dyn Store>,
    /// Without.
    pub(crate) bare: Arc<dyn Store>,
    pub(crate) archives: Option<Arc<Archives>>,
    /// Old frames are moved by one at a time.
    pub(crate) keeping: tokio::sync::Mutex<()>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) lease: Arc<NodeLease>,
    pub(crate) announcer: Arc<Announcer>,
    logs: Arc<Logs>,
    failures: Mutex<Limiter>,
    pub(crate) spool: Spool,
    /// When each key was last used since the start. Only known keys are in here, so their number bounds it.
    pub(crate) last_used: Mutex<HashMap<KeyId, Timestamp>>,
    closing: CancellationToken,
}

/// Both logs, as soon as they are open.
#[derive(Debug)]
struct Logs {
    control: Log<ControlState>,
    activity: Log<ActivityState>,
}

impl Control {
    /// Takes the node lease, opens both logs (making them where there are none) and starts the tasks that keep
    /// them: renewal of the lease, expiry, reaping. They are essential tasks of `tasks`, as are the appenders.
    ///
    /// Call [`Control::close`] before `tasks` is drained.
    pub async fn open(
        store: Arc<dyn Store>,
        options: ControlOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let run = random.array().map_err(|failed| OpenError::Start(failed.into()))?;
        let ttl = options.lease_ttl;
        let lease = Arc::new(NodeLease::take(Arc::clone(&store), options.node, run, ttl).await?);
        let announcer = Arc::new(Announcer::new(Arc::clone(&store), options.node, tasks.clone()));
        let closing = CancellationToken::new();
        // Replaying a long log may outlast the lease, so renewal starts before the logs open.
        let opened = Arc::new(OnceLock::new());
        keep_lease(tasks, &lease, &announcer, &opened, &closing);

        let bare = Arc::clone(&store);
        let opening = async {
            let (store, archives) = with_archive(store, options.keep.archive.as_deref()).await?;
            let logs = Logs::open(&store, &options, &lease, &clock, &random, tasks).await?;
            Ok((store, archives, Arc::new(logs)))
        };
        let (store, archives, logs) = match opening.await {
            Ok(opened) => opened,
            Err(error) => {
                closing.cancel();
                if let Err(error) = lease.give_back().await {
                    tracing::debug!(%error, "the node lease stays until it runs out");
                }
                return Err(error);
            }
        };
        // The lease may have been lost and regained while the logs opened.
        if opened.set(Arc::clone(&logs)).is_ok() {
            logs.refence(&lease);
        }

        let control = Arc::new(Self {
            options,
            store,
            bare,
            archives,
            keeping: tokio::sync::Mutex::default(),
            clock,
            random,
            lease,
            announcer,
            logs,
            failures: Mutex::new(Limiter::new(Instant::now())),
            spool: Spool::default(),
            last_used: Mutex::default(),
            closing,
        });
        if control.options.serving
            && let Err(error) = control.start(tasks).await
        {
            control.end().await;
            return Err(OpenError::Start(error));
        }
        Ok(control)
    }

    async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<(), ControlError> {
        let left_open = reaper::open_sessions_of(self, self.options.node);
        let start = ControlCommand::StartNode {
            node: self.options.node,
            name: self.options.node_name.clone(),
            version: self.options.version.clone(),
        };
        self.execute(&self.as_node(), start).await?;
        let (control, closing) = (Arc::clone(self), self.closing.clone());
        tasks.spawn_essential("spool", |stop| async move {
            closing.run_until_cancelled(spool::run(&control, &stop)).await;
            drop(control);
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let (control, closing) = (Arc::clone(self), self.closing.clone());
        tasks.spawn_essential("expirer", |stop| async move {
            closing.run_until_cancelled(expirer::run(&control, &stop)).await;
            drop(control);
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let (control, closing) = (Arc::clone(self), self.closing.clone());
        tasks.spawn_essential("log keeper", |stop| async move {
            closing.run_until_cancelled(keeper::run(&control, &stop)).await;
            drop(control);
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let (control, closing) = (Arc::clone(self), self.closing.clone());
        tasks.spawn_essential("reaper", |stop| async move {
            closing.run_until_cancelled(reaper::run(&control, left_open, &stop)).await;
            drop(control);
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        Ok(())
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.options.node
    }

    /// What the node was told at its start.
    pub fn options(&self) -> &ControlOptions {
        &self.options
    }

    /// Everything that is kept, as of the newest position of this node. Costs no lock and no copy.
    pub fn state(&self) -> Arc<View<ControlState>> {
        self.logs.control.view()
    }

    /// Sessions, usage and failures, as of the newest position of this node.
    pub fn activity(&self) -> Arc<View<ActivityState>> {
        self.logs.activity.view()
    }

    /// The position of [`Control::state`]; changes whenever it does.
    pub fn changes(&self) -> watch::Receiver<Position> {
        self.logs.control.changes()
    }

    /// The control log.
    pub fn log(&self) -> &Log<ControlState> {
        &self.logs.control
    }

    /// The activity log.
    pub fn activity_log(&self) -> &Log<ActivityState> {
        &self.logs.activity
    }

    /// The end of a log as the store has it, which other nodes may have moved on. Answers within
    /// [`STORED_HEAD_WAIT`], so it also tells whether the store can be reached.
    pub async fn stored_head(&self, log: LogName) -> Result<Position, ControlError> {
        let read = tokio::time::timeout(STORED_HEAD_WAIT, self.store.get(&keys::head(log))).await;
        let entry = read.map_err(ControlError::unavailable)?.map_err(ControlError::unavailable)?;
        let Some(entry) = entry else { return Ok(Position(0)) };
        Head::decode(&entry.value).map(|head| head.position).map_err(ControlError::unavailable)
    }

    /// A log as lines for others to read, up to its present end.
    ///
    /// # Errors
    /// Those of reading the log.
    pub async fn export(&self, log: LogName, selection: Selection) -> Result<Export, LogError> {
        Export::open(&self.store, log, selection).await
    }

    /// The time, as the node sees it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether this node holds its lease, and so may write.
    pub fn may_write(&self) -> bool {
        self.lease.held().is_some()
    }

    /// Whether the store has failed the last time something was to be written. Unlike [`Control::may_write`]
    /// this changes at once, not when the lease has run out.
    pub fn store_is_away(&self) -> bool {
        !self.may_write() || self.lease.is_away()
    }

    /// Executes a command at the head of the control log. When this returns, its events are durable and
    /// [`Control::state`] shows them. It returns within [`COMMAND_WAIT`].
    pub async fn execute(
        &self,
        caller: &Caller,
        command: ControlCommand,
    ) -> Result<Committed<ControlEvent>, ControlError> {
        let meta = self.meta(caller)?;
        self.heard(in_time(execute(&self.logs.control, meta, command)).await)
    }

    /// Executes a command at the head of the activity log, like [`Control::execute`].
    pub async fn record(
        &self,
        caller: &Caller,
        command: ActivityCommand,
    ) -> Result<Committed<ActivityEvent>, ControlError> {
        let meta = self.meta(caller)?;
        self.heard(in_time(execute(&self.logs.activity, meta, command)).await)
    }

    /// Notes what has happened: it goes to the activity log in the order in which it was noted, once, and as
    /// soon as the store takes it. Facts about the same subject never overtake each other.
    ///
    /// Up to [`SPOOL_FACTS_MAX`](crate::SPOOL_FACTS_MAX) facts wait; what has no room is counted, and the
    /// program's log says how many.
    pub fn note(&self, caller: &Caller, about: Subject, command: ActivityCommand) -> Noted {
        let id = match caller.command {
            Some(command) => Ok(command),
            None => self.new_command_id(),
        };
        match id {
            Ok(id) => self.spool.note(self.meta_of(caller, id), about, command),
            Err(error) => {
                tracing::error!(%error, "a fact is not recorded");
                Noted::nowhere()
            }
        }
    }

    /// How many facts wait for the log.
    pub fn noted(&self) -> usize {
        self.spool.len()
    }

    /// Waits until every fact that was noted is in the log. `false`: not within that time.
    pub async fn all_written(&self, within: Duration) -> bool {
        self.spool.emptied(within).await
    }

    /// One attempt to write a fact.
    pub(crate) async fn write_fact(&self, meta: Meta, command: ActivityCommand) -> Result<(), ControlError> {
        self.heard(execute(&self.logs.activity, meta, command).await).map(drop)
    }

    /// Keeps in mind whether the store did its part.
    fn heard<T>(&self, outcome: Result<T, ControlError>) -> Result<T, ControlError> {
        match &outcome {
            Ok(_) => self.lease.set_away(false),
            Err(ControlError::Unavailable { .. }) => self.lease.set_away(true),
            Err(_) => {}
        }
        outcome
    }

    /// Records that somebody failed to authenticate, unless that happens too often to be worth an event each
    /// ([`RECORD_EVERY`](crate::RECORD_EVERY)). Answers whether it was recorded.
    pub async fn record_auth_failure(
        &self,
        address: IpAddr,
        identity: Option<PublicKey>,
        reason: &str,
    ) -> Result<bool, ControlError> {
        let verdict = lock(&self.failures).failed(address, Instant::now());
        let Verdict::Record { unrecorded } = verdict else { return Ok(false) };
        let mut reason = shortened(reason, REASON_BYTES_MAX).to_owned();
        if unrecorded > 0 {
            reason = format!("{reason} ({unrecorded} more of this address unrecorded)");
        }
        let command = ActivityCommand::RecordAuthFailure { address, identity, reason };
        let noted = self.note(&self.as_node().from_address(address), Subject::None, command);
        if !self.store_is_away() {
            noted.written(FAILURE_WAIT).await;
        }
        Ok(true)
    }

    /// Announces that a client is connected to this node, under the node lease, for as long as the guard lives.
    /// The session is expired by the reaper if there is no guard of it two lease times after its opening.
    ///
    /// This makes the guard only; the announcement is written by [`Control::announce`], and where that fails,
    /// once the store is back.
    pub fn connected(&self, client: ClientId, session: SessionId) -> PresenceGuard {
        self.announcer.connected(client, session)
    }

    /// Writes an announcement now.
    pub async fn announce(&self, guard: &PresenceGuard) -> Result<(), ControlError> {
        self.announcer.announce(&self.lease, guard.session()).await
    }

    /// Where a client is connected, if it is.
    pub async fn present(&self, client: ClientId) -> Option<Presence> {
        self.announcer.present(client).await
    }

    /// Stops expiry and reaping, records the stop of the node, flushes both logs and gives the lease back.
    /// Whatever of that fails is made good by the next start.
    pub async fn close(&self) {
        if self.closing.is_cancelled() {
            return;
        }
        if self.options.serving {
            self.spool.close().await;
            let stop = ControlCommand::StopNode { node: self.options.node };
            if let Err(error) = self.execute(&self.as_node(), stop).await {
                tracing::warn!(%error, "the stop of the node is not recorded");
            }
        }
        self.end().await;
    }

    /// Closes what [`Control::open`] has opened.
    async fn end(&self) {
        self.closing.cancel();
        self.logs.activity.close().await;
        self.logs.control.close().await;
        if let Err(error) = self.lease.give_back().await {
            tracing::debug!(%error, "the node lease stays until it runs out");
        }
    }

    /// A new client id.
    pub fn new_client_id(&self) -> Result<ClientId, RandomFailed> {
        Ok(ClientId::new(self.clock.now(), self.random.array()?))
    }

    /// A new mapping id.
    pub fn new_mapping_id(&self) -> Result<MappingId, RandomFailed> {
        Ok(MappingId::new(self.clock.now(), self.random.array()?))
    }

    /// A new connection code id.
    pub fn new_code_id(&self) -> Result<CodeId, RandomFailed> {
        Ok(CodeId::new(self.clock.now(), self.random.array()?))
    }

    /// A new invite id.
    pub fn new_invite_id(&self) -> Result<InviteId, RandomFailed> {
        Ok(InviteId::new(self.clock.now(), self.random.array()?))
    }

    /// A new session id.
    pub fn new_session_id(&self) -> Result<SessionId, RandomFailed> {
        Ok(SessionId::new(self.clock.now(), self.random.array()?))
    }

    /// A new command id.
    pub fn new_command_id(&self) -> Result<CommandId, RandomFailed> {
        Ok(CommandId(self.random.array()?))
    }

    /// This node as a caller.
    pub(crate) fn as_node(&self) -> Caller {
        Caller::new(Actor::Node(self.options.node))
    }

    fn meta(&self, caller: &Caller) -> Result<Meta, ControlError> {
        if self.lease.held().is_none() {
            return Err(ControlError::no_lease());
        }
        let id = match caller.command {
            Some(command) => command,
            None => self.new_command_id()?,
        };
        Ok(self.meta_of(caller, id))
    }

    fn meta_of(&self, caller: &Caller, id: CommandId) -> Meta {
        Meta {
            id,
            actor: caller.actor,
            source: caller.source,
            correlation: caller.correlation,
            causation: caller.causation,
            now: self.clock.now(),
        }
    }
}

/// The store with its archive, if there is one.
async fn with_archive(
    store: Arc<dyn Store>,
    folder: Option<&Path>,
) -> Result<(Arc<dyn Store>, Option<Arc<Archives>>), OpenError> {
    let Some(folder) = folder else { return Ok((store, None)) };
    let (store, archives) = Archived::open(store, folder).await.map_err(OpenError::Archive)?;
    Ok((store, Some(archives)))
}

impl Logs {
    async fn open(
        store: &Arc<dyn Store>,
        options: &ControlOptions,
        lease: &NodeLease,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
        tasks: &Tasks,
    ) -> Result<Self, OpenError> {
        let settings = || {
            let mut settings = LogOptions::new(options.node);
            settings.fence = Some(lease.fence());
            settings
        };
        let control = Log::open(Arc::clone(store), settings(), Arc::clone(clock), Arc::clone(random), tasks)
            .await
            .map_err(|source| OpenError::Log { log: LogName::Control, source })?;
        let activity = Log::open(Arc::clone(store), settings(), Arc::clone(clock), Arc::clone(random), tasks)
            .await
            .map_err(|source| OpenError::Log { log: LogName::Activity, source })?;
        Ok(Self { control, activity })
    }

    fn refence(&self, lease: &NodeLease) {
        self.control.set_fence(Some(lease.fence()));
        self.activity.set_fence(Some(lease.fence()));
    }
}

/// Starts the task that renews the lease until the control plane closes.
fn keep_lease(
    tasks: &Tasks,
    lease: &Arc<NodeLease>,
    announcer: &Arc<Announcer>,
    logs: &Arc<OnceLock<Arc<Logs>>>,
    closing: &CancellationToken,
) {
    let (lease, announcer) = (Arc::clone(lease), Arc::clone(announcer));
    let (logs, closing) = (Arc::clone(logs), closing.clone());
    tasks.spawn_essential("node lease", |stop| async move {
        let kept = closing.run_until_cancelled(async {
            while lease.pause(&stop).await {
                match lease.renew().await {
                    Ok(Round::Renewed) => {
                        if let Err(error) = announcer.announce_missing(&lease).await {
                            tracing::debug!(%error, "not every link could be announced");
                        }
                    }
                    Ok(Round::Regained) => {
                        if let Some(logs) = logs.get() {
                            logs.refence(&lease);
                        }
                        tracing::warn!("the node has a new lease and may write again");
                        if let Err(error) = announcer.announce_again(&lease).await {
                            tracing::error!(%error, "not every link could be announced again");
                        }
                    }
                    Err(LeaseLost::TakenOver) => return Err(LeaseLost::TakenOver),
                    Err(LeaseLost::Store(error)) => tracing::warn!(%error, "the node lease is not renewed"),
                }
            }
            Ok(())
        });
        if let Some(ended) = kept.await {
            return ended;
        }
        stop.cancelled().await;
        Ok(())
    });
}

/// Executes a command, and once more under the same id if it is unknown whether it was executed.
async fn execute<A>(
    log: &Log<A>,
    meta: Meta,
    command: A::Command,
) -> Result<Committed<A::Event>, ControlError>
where
    A: Aggregate,
    ControlError: From<A::Refusal>,
{
    match log.execute(meta.clone(), command.clone()).await {
        Err(ExecuteError::Indeterminate { .. }) => {
            let committed = log.execute(meta, command).await?;
            // If it is a repeat, then of the attempt just before: nobody has been answered yet.
            Ok(Committed { repeated: false, ..committed })
        }
        known => Ok(known?),
    }
}

/// A bound on what callers wait for.
async fn in_time<T>(asked: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    tokio::time::timeout(COMMAND_WAIT, asked)
        .await
        .unwrap_or_else(|late| Err(ControlError::unavailable(late)))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest prefix of `text` within `bytes_max`, cut between characters.
fn shortened(text: &str, bytes_max: usize) -> &str {
    text.char_indices()
        .map(|(at, character)| at + character.len_utf8())
        .take_while(|end| *end <= bytes_max)
        .last()
        .map_or("", |end| &text[..end])
}
