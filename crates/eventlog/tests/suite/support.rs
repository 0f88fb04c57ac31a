//! A small aggregate, and logs over it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{
    Actor, Aggregate, ClientId, CommandId, Decision, DecodeError, DomainEvent, EncodeError, Entity,
    EventMeta, LogId, LogName, MappingId, Meta, NodeId, Position, StreamId, Subject, Timestamp, codec,
};
use underpass_eventlog::{Committed, ExecuteError, Log, LogOptions, OpenError, keys};
use underpass_store::{
    CasStore, Commit, Entry, ExpirableStore, Key, KvStore, LeaseId, Limits, MemoryStore, Outcome, Renewal,
    Revision, Store, StoreError, Watch, WatchableStore,
};
use underpass_tasks::Tasks;

/// The most that an account may hold.
pub const SUM_MAX: u64 = 1_000_000;

/// Sums by account. With `NEWER` it knows one kind of event more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally<const NEWER: bool = false> {
    log: Option<LogId>,
    pub sums: BTreeMap<u8, u64>,
    pub events: u64,
    /// What `evolve` was told last.
    pub last: Option<(Position, Timestamp)>,
}

#[derive(Clone, Debug, Serialize)]
pub enum Do {
    /// Adds to an account; refused beyond [`SUM_MAX`].
    Add { account: u8, amount: u64 },
    /// Adds what is missing; nothing, if nothing is.
    Ensure { account: u8, sum: u64 },
    /// Many events at once.
    Burst { account: u8, events: usize, bytes: usize },
    /// What only a newer release knows.
    Invent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<const NEWER: bool> {
    Created(LogId),
    Added { account: u8, amount: u64 },
    Padded { account: u8, padding: Vec<u8> },
    Invented,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is too much")]
pub struct TooMuch;

impl<const NEWER: bool> DomainEvent for Event<NEWER> {
    fn kind(&self) -> u16 {
        match self {
            Self::Created(_) => 60_001,
            Self::Added { .. } => 60_002,
            Self::Padded { .. } => 60_003,
            Self::Invented => 60_004,
        }
    }

    fn version(&self) -> u16 {
        1
    }

    fn stream(&self) -> StreamId {
        match self {
            Self::Created(_) | Self::Invented => StreamId::LOG,
            Self::Added { account, .. } | Self::Padded { account, .. } => {
                StreamId { entity: Entity::Mapping, id: [*account; 16] }
            }
        }
    }

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Created(id) => codec::encode(&id.0),
            Self::Added { account, amount } => codec::encode(&(account, amount)),
            Self::Padded { account, padding } => codec::encode(&(account, padding)),
            Self::Invented => codec::encode(&()),
        }
    }

    fn decode(kind: u16, version: u16, _codec: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(match (kind, version) {
            (60_001, 1) => Self::Created(LogId(codec::decode(payload)?)),
            (60_002, 1) => {
                let (account, amount) = codec::decode(payload)?;
                Self::Added { account, amount }
            }
            (60_003, 1) => {
                let (account, padding) = codec::decode(payload)?;
                Self::Padded { account, padding }
            }
            (60_004, 1) if NEWER => Self::Invented,
            _ => return Err(DecodeError::Unknown { kind, version }),
        })
    }

    fn name(&self) -> &'static str {
        "tally.event"
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn sentence(&self) -> String {
        format!("{self:?}")
    }
}

impl<const NEWER: bool> Aggregate for Tally<NEWER> {
    const LOG: LogName = LogName::Control;
    type Command = Do;
    type Event = Event<NEWER>;
    type Refusal = TooMuch;

    fn decide(&self, _meta: &Meta, command: &Do) -> Result<Decision<Event<NEWER>>, TooMuch> {
        let sum = |account| self.sums.get(&account).copied().unwrap_or_default();
        let subject = |account| Subject::Mapping(MappingId::from_bytes([account; 16]));
        let (account, events) = match *command {
            Do::Add { account, amount } if sum(account) + amount > SUM_MAX => return Err(TooMuch),
            Do::Add { account, amount } => (account, vec![Event::Added { account, amount }]),
            Do::Ensure { account, sum: wanted } => {
                let missing = wanted.saturating_sub(sum(account));
                let event = Event::Added { account, amount: missing };
                (account, if missing == 0 { vec![] } else { vec![event] })
            }
            Do::Burst { account, events, bytes } => {
                let event = Event::Padded { account, padding: vec![account; bytes] };
                (account, vec![event; events])
            }
            Do::Invent => (0, vec![Event::Invented]),
        };
        Ok(Decision { events, subject: subject(account) })
    }

    fn evolve(&mut self, event: &Event<NEWER>, at: &EventMeta) {
        self.events += 1;
        self.last = Some((at.position, at.recorded_at));
        match event {
            Event::Created(id) => self.log = Some(*id),
            Event::Added { account, amount } => *self.sums.entry(*account).or_default() += amount,
            Event::Padded { .. } | Event::Invented => {}
        }
    }

    fn genesis(log: LogId) -> Event<NEWER> {
        Event::Created(log)
    }

    fn log_id(&self) -> Option<LogId> {
        self.log
    }
}

pub type Answer = Result<Committed<Event<false>>, ExecuteError<TooMuch>>;

/// A store, a clock, and nodes on it.
pub struct World {
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
}

/// Nodes so far, in all worlds: worlds may share a store, and no two nodes may draw the same ids.
static NODES: AtomicU64 = AtomicU64::new(1);

/// One log of one node.
pub struct Node<A: Aggregate = Tally> {
    pub log: Log<A>,
    pub tasks: Tasks,
    pub fatal: CancellationToken,
    clock: Arc<ManualClock>,
    commands: AtomicU64,
    number: u64,
}

impl World {
    pub fn new() -> Self {
        Self::on(MemoryStore::new())
    }

    pub fn on(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store), clock: Arc::new(ManualClock::default()) }
    }

    pub async fn node(&self) -> Node {
        self.open(|_| {}).await.unwrap()
    }

    pub async fn open<A: Aggregate>(
        &self,
        adjust: impl FnOnce(&mut LogOptions),
    ) -> Result<Node<A>, OpenError> {
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        let mut options = LogOptions::new(NodeId::from_bytes(id));
        adjust(&mut options);
        let fatal = CancellationToken::new();
        let tasks = Tasks::new("log", fatal.clone());
        let random = Arc::new(SeededRandom::new(number));
        let clock = Arc::clone(&self.clock);
        let log = Log::open(Arc::clone(&self.store), options, clock.clone(), random, &tasks).await?;
        Ok(Node { log, tasks, fatal, clock, commands: AtomicU64::new(1), number })
    }

    pub async fn get(&self, key: &Key) -> Bytes {
        self.store.get(key).await.unwrap().unwrap().value
    }

    /// The stored frames, in order.
    pub async fn frames(&self) -> Vec<Entry> {
        let log = LogName::Control;
        let from = keys::frame(log, Position(0));
        self.store.scan(&from, &keys::frames_end(log), 100_000).await.unwrap()
    }

    /// The positions of the stored snapshots.
    pub async fn snapshots(&self) -> Vec<u64> {
        let log = LogName::Control;
        let from = keys::manifest(log, Position(0));
        let entries = self.store.scan(&from, &keys::manifests_end(log), 100).await.unwrap();
        let position = |entry: &Entry| {
            let key: &[u8] = entry.key.as_ref();
            u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap())
        };
        entries.iter().map(position).collect()
    }
}

impl<A: Aggregate> Node<A> {
    /// A command id that was not used before.
    pub fn meta(&self) -> Meta {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number.to_be_bytes());
        id[8..].copy_from_slice(&self.commands.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Meta {
            id: CommandId(id),
            actor: Actor::Operator,
            source: None,
            correlation: None,
            causation: None,
            now: underpass_domain::Clock::now(&*self.clock),
        }
    }

    pub async fn execute(
        &self,
        command: A::Command,
    ) -> Result<Committed<A::Event>, ExecuteError<A::Refusal>> {
        self.log.execute(self.meta(), command).await
    }

    /// Stops as after a clean shutdown.
    pub async fn close(self) {
        self.log.close().await;
        let drained = self.tasks.drain(std::time::Duration::from_secs(10)).await;
        assert_eq!(drained, underpass_tasks::Drained::Clean);
    }

    /// Stops without a last snapshot.
    pub async fn stop(self) {
        let drained = self.tasks.drain(std::time::Duration::from_secs(10)).await;
        assert_eq!(drained, underpass_tasks::Drained::Clean);
    }
}

impl Node {
    pub async fn add(&self, account: u8, amount: u64) -> Answer {
        self.execute(Do::Add { account, amount }).await
    }
}

pub fn client(number: u8) -> Actor {
    Actor::Client(ClientId::from_bytes([number; 16]))
}

/// What is to become of a commit.
pub enum Fault {
    /// Nothing happens, and the store says so.
    Unavailable,
    /// It happens, and the store doesn't know.
    Done,
    /// It doesn't happen, and the store doesn't know.
    NotDone,
    /// Something else happens just before.
    After(Box<dyn FnOnce() -> futures_util::future::BoxFuture<'static, ()> + Send>),
}

/// A store whose next commits go as planned, and whose watches can be deaf.
#[derive(Clone)]
pub struct Scripted {
    inner: MemoryStore,
    script: Arc<Mutex<VecDeque<Fault>>>,
    deaf: bool,
    /// If not 0, calls take turns in an order that follows from it.
    seed: Arc<AtomicU64>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    pub fn new() -> Self {
        Self { inner: MemoryStore::new(), script: Arc::default(), deaf: false, seed: Arc::default() }
    }

    /// Watches that never tell anything.
    pub fn deaf() -> Self {
        Self { deaf: true, ..Self::new() }
    }

    /// Calls that take turns with those of other tasks, before and after they are carried out: one thread
    /// then runs through as many orders as many would, and the same ones for the same seed.
    pub fn taking_turns(seed: u64) -> Self {
        Self { seed: Arc::new(AtomicU64::new(seed + 1)), ..Self::new() }
    }

    async fn turn(&self) {
        let seed = self.seed.load(Ordering::Relaxed);
        if seed == 0 {
            return;
        }
        let next = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed.store(next.max(1), Ordering::Relaxed);
        for _ in 0..next >> 61 {
            tokio::task::yield_now().await;
        }
    }

    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// The store without faults.
    pub fn inner(&self) -> MemoryStore {
        self.inner.clone()
    }

    fn next(&self) -> Option<Fault> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[async_trait]
impl KvStore for Scripted {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.turn().await;
        let entry = self.inner.get(key).await;
        self.turn().await;
        entry
    }

    async fn scan(&self, from: &Key, to: &Key, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.turn().await;
        let entries = self.inner.scan(from, to, limit).await;
        self.turn().await;
        entries
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.inner.put(key, value).await
    }

    async fn delete(&self, key: &Key) -> Result<Option<Revision>, StoreError> {
        self.inner.delete(key).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[async_trait]
impl CasStore for Scripted {
    async fn commit(&self, commit: Commit) -> Result<Outcome, StoreError> {
        self.turn().await;
        let outcome = match self.next() {
            None => self.inner.commit(commit).await,
            Some(Fault::Unavailable) => Err(StoreError::unavailable("commit", "planned")),
            Some(Fault::Done) => {
                let done = self.inner.commit(commit).await;
                done.and(Err(StoreError::indeterminate("commit", "planned")))
            }
            Some(Fault::NotDone) => Err(StoreError::indeterminate("commit", "planned")),
            Some(Fault::After(first)) => {
                first().await;
                self.inner.commit(commit).await
            }
        };
        self.turn().await;
        outcome
    }
}

#[async_trait]
impl WatchableStore for Scripted {
    async fn watch(&self, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        let prefix = if self.deaf { Key::from("nothing is ever written here") } else { prefix };
        self.inner.watch(prefix, after).await
    }
}

#[async_trait]
impl ExpirableStore for Scripted {
    async fn grant(&self, ttl: std::time::Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.inner.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }

    async fn put_leased(&self, key: &Key, value: Bytes, lease: LeaseId) -> Result<Revision, StoreError> {
        self.inner.put_leased(key, value, lease).await
    }
}
