//! Clients that work on one log at the same time, each with a log of its own over a store of its own that fails now
//! and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{Actor, Clock, CommandId, DomainEvent, LogName, Meta, NodeId, Position};
use underpass_eventlog::frame::Frame;
use underpass_eventlog::record::Record;
use underpass_eventlog::{
    Committed, ExecuteError, Fence, Log, LogOptions, OpenError, Recorded, keys, read_stored,
};
use underpass_store::testkit::Seeded;
use underpass_store::testkit::faulty::{Fault, Flaky, Odds};
use underpass_store::{Commit, Guard, Key, LeaseId, Store};
use underpass_tasks::Tasks;

use super::check::{Illegal, check};
use super::history::{Appended, Did, Operation, Reign, Slice};
use super::tokens::{Do, EndsAt, Event, Tokens};

pub const CLIENTS: usize = 5;
pub const OPERATIONS: usize = 100;

/// How often the calls of a client fail: enough that most commits of a history meet some, and few enough that they
/// get through.
const ODDS: Odds = Odds { unavailable: 20, indeterminate: 40 };
/// More than a log tries: a row of these, and the outcome stays unknown.
const FAULTS_IN_A_ROW: usize = 12;
/// No lease runs out by itself while a history takes place.
const TTL: Duration = Duration::from_mins(10);

/// What happened, and what was there in the end.
pub struct History {
    pub operations: Vec<Operation>,
    /// The tokens of the log, or why they can't be read.
    pub log: Result<Vec<u64>, Illegal>,
}

impl History {
    /// Whether the log and what everybody was told of it go together.
    pub fn check(&self) -> Result<(), Illegal> {
        check(self.log.as_ref()?, &self.operations)
    }

    /// How many appends had this outcome.
    pub fn appends(&self, wanted: impl Fn(Appended) -> bool) -> usize {
        let is =
            |operation: &&Operation| matches!(operation.did, Did::Append { outcome, .. } if wanted(outcome));
        self.operations.iter().filter(is).count()
    }
}

/// Makes a store worse, for the client of this number.
pub type Spoil = fn(Arc<dyn Store>, u64) -> Arc<dyn Store>;

/// What the clients share.
struct Stage {
    store: Arc<dyn Store>,
    time: AtomicU64,
    reigns: AtomicU64,
    /// Of each client the fence that it holds, for others to strike.
    fences: Mutex<[Option<Held>; CLIENTS]>,
    done: Mutex<Vec<Operation>>,
}

#[derive(Clone)]
struct Held {
    reign: Reign,
    lease: LeaseId,
    fence: Fence,
}

impl Stage {
    fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    fn held(&self, client: usize) -> Option<Held> {
        self.fences.lock().unwrap()[client].clone()
    }
}

/// One history on an empty store. The same seed makes the clients want the same.
pub async fn history(store: Arc<dyn Store>, seed: u64, spoil: Spoil) -> History {
    let stage = Arc::new(Stage {
        store: Arc::clone(&store),
        time: AtomicU64::new(1),
        reigns: AtomicU64::new(1),
        fences: Mutex::default(),
        done: Mutex::default(),
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let stage = Arc::clone(&stage);
        clients.spawn(async move {
            // On a store that is bad enough, there is no log to open any more.
            let Some(mut client) = Client::open(stage, number, seed, spoil).await else { return };
            for _ in 0..OPERATIONS {
                client.act().await;
            }
            let _ = client.tasks.drain(Duration::from_secs(30)).await;
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let log = stored(&store).await;
    let mut operations = std::mem::take(&mut *stage.done.lock().unwrap());
    operations.sort_by_key(|operation| operation.asked);
    History { operations, log }
}

/// The tokens of all frames, as they lie there: whether the log is well is another question.
async fn stored(store: &Arc<dyn Store>) -> Result<Vec<u64>, Illegal> {
    let log = LogName::Control;
    let mut from = keys::frame(log, Position(0));
    let mut tokens = Vec::new();
    loop {
        let entries = store.scan(&from, &keys::frames_end(log), 500).await.unwrap();
        for entry in &entries {
            let frame = Frame::decode(&entry.value).map_err(|error| error.to_string())?;
            if frame.first().0 != tokens.len() as u64 + 1 {
                return Err(format!("a frame of position {} stands behind {}", frame.first(), tokens.len()));
            }
            for Record { kind, version, payload, .. } in &frame.records {
                let event = Event::decode(*kind, *version, frame.header.codec, payload);
                tokens.push(event.map_err(|error| error.to_string())?.token());
            }
        }
        match entries.last() {
            Some(last) if entries.len() == 500 => from = last.key.join([0]),
            _ => return Ok(tokens),
        }
    }
}

struct Client {
    stage: Arc<Stage>,
    number: usize,
    random: Seeded,
    /// Of this client alone: what fails for one works for another.
    flaky: Arc<Flaky<Arc<dyn Store>>>,
    store: Arc<dyn Store>,
    log: Log<Tokens>,
    tasks: Tasks,
    commands: u64,
    /// The end of the log as it was told last.
    head: u64,
    reign: Option<Reign>,
}

impl Client {
    async fn open(stage: Arc<Stage>, number: usize, seed: u64, spoil: Spoil) -> Option<Self> {
        let seed = seed * 1000 + number as u64;
        let spoilt = spoil(Arc::clone(&stage.store), seed);
        let flaky = Arc::new(Flaky::seeded(spoilt, seed, ODDS));
        let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
        let tasks = Tasks::new("client", CancellationToken::new());
        let log = loop {
            let options = LogOptions::new(NodeId::from_bytes([u8::try_from(number).unwrap() + 1; 16]));
            let (clock, random) = (Arc::new(ManualClock::default()), Arc::new(SeededRandom::new(seed)));
            match Log::open(Arc::clone(&store), options, clock, random, &tasks).await {
                Ok(log) => break log,
                Err(OpenError::Unavailable { .. } | OpenError::Contended { .. }) => {}
                Err(_) => return None,
            }
        };
        let random = Seeded::new(seed);
        Some(Self { stage, number, random, flaky, store, log, tasks, commands: 0, head: 1, reign: None })
    }

    /// Does one thing.
    async fn act(&mut self) {
        let Some(reign) = self.reign else { return self.take().await };
        match self.random.below(100) {
            0..30 => self.append(reign, false).await,
            30..50 => self.append(reign, true).await,
            50..68 => self.look().await,
            68..84 => self.read().await,
            84..90 => self.follow().await,
            90..94 => self.take().await,
            _ => self.strike().await,
        }
    }

    fn note(&self, asked: u64, did: Did) {
        let operation = Operation { client: self.number, asked, answered: self.stage.now(), did };
        self.stage.done.lock().unwrap().push(operation);
    }

    /// A token, with or without saying where; now and then through a wall of faults, or without waiting for the
    /// answer. What stays unknown is asked for again, sometimes.
    async fn append(&mut self, reign: Reign, expecting: bool) {
        let (meta, token) = self.meta();
        // Often wrong, as others write meanwhile.
        let expected = self.log.view().position.0;
        let command = if expecting { Do::AppendAt { token, expected } } else { Do::Append { token } };
        let patience = match self.random.below(20) {
            0 => Duration::from_micros(200 * self.random.below(30)),
            _ => TTL,
        };
        if self.random.below(60) == 0 {
            let fault = if self.random.below(2) == 0 {
                Fault::IndeterminateDone
            } else {
                Fault::IndeterminateNotDone
            };
            self.flaky.add([fault; FAULTS_IN_A_ROW]);
        }
        let asked = self.stage.now();
        let first = timeout(patience, self.log.execute(meta.clone(), command.clone())).await;
        let mut outcome = self.outcome(first.ok());
        let mut under = Some(reign);
        if first_is_open(outcome, patience) {
            // What is still under way may be written under the next fence.
            under = None;
        }
        if outcome == Appended::Unknown && self.random.below(2) == 0 {
            let again = self.outcome(Some(self.log.execute(meta, command).await));
            if matches!(again, Appended::At(_)) {
                outcome = again;
            }
        }
        self.note(asked, Did::Append { token, reign: under, outcome });
        if outcome == Appended::Fenced {
            self.reign = None;
        }
    }

    fn outcome(&mut self, answer: Option<Result<Committed<Event>, ExecuteError<EndsAt>>>) -> Appended {
        match answer {
            Some(Ok(Committed { positions: Some((at, last)), .. })) => {
                assert_eq!(at, last, "one token is one event");
                self.head = self.head.max(at.0);
                Appended::At(at.0)
            }
            Some(Err(ExecuteError::Refused(EndsAt(head)))) => {
                self.head = self.head.max(head);
                Appended::EndsAt(head)
            }
            Some(Err(ExecuteError::Fenced)) => Appended::Fenced,
            Some(Err(ExecuteError::Unavailable { .. } | ExecuteError::Contended)) => Appended::Failed,
            // A log that has stopped over what it saw may have written before.
            None | Some(Err(ExecuteError::Indeterminate { .. } | ExecuteError::Closed)) => Appended::Unknown,
            Some(other) => panic!("{other:?}"),
        }
    }

    /// A command that changes nothing: its answer is where the log ends.
    async fn look(&mut self) {
        let (meta, _) = self.meta();
        let asked = self.stage.now();
        if let Ok(Committed { head, .. }) = self.log.execute(meta, Do::Look).await {
            self.head = self.head.max(head.0);
            self.note(asked, Did::Read { head: head.0, read: None });
        }
    }

    /// What tools read that have not opened the log.
    async fn read(&mut self) {
        let after = self.random.below(self.head);
        let asked = self.stage.now();
        if let Ok(events) = read_stored(&self.store, LogName::Control, Position(after), 10_000).await {
            let read = slice(after, &events);
            self.head = self.head.max(read.end());
            self.note(asked, Did::Read { head: read.end(), read: Some(read) });
        }
    }

    /// What the log of this client has followed so far.
    async fn follow(&mut self) {
        let asked = self.stage.now();
        if let Ok(events) = self.log.read(Position(0), 10_000).await {
            self.note(asked, Did::Followed { read: slice(0, &events) });
        }
    }

    /// A fence: an entry of this client's own, under a new lease. It takes the place of the one before.
    async fn take(&mut self) {
        let (before, reign) = (self.reign.take(), self.stage.reigns.fetch_add(1, Ordering::SeqCst));
        let Ok(lease) = self.stage.store.grant(TTL).await else { return };
        let key = Key::from(format!("fence/{}", self.number));
        let asked = self.stage.now();
        let taken = self.store.put_leased(&key, "mine".into(), lease).await;
        if let Ok(revision) = taken {
            let fence = Fence { key, revision };
            self.log.set_fence(Some(fence.clone()));
            self.reign = Some(reign);
            self.note(asked, Did::Took { reign, before });
            self.stage.fences.lock().unwrap()[self.number] = Some(Held { reign, lease, fence });
        } else {
            self.stage.fences.lock().unwrap()[self.number] = None;
            if let Some(reign) = before {
                self.note(asked, Did::Ended { reign, surely: false });
            }
        }
    }

    /// Ends the fence of somebody: its lease, or its entry if it is still the one that was seen.
    async fn strike(&mut self) {
        let victim = usize::try_from(self.random.below(CLIENTS as u64)).unwrap();
        let Some(Held { reign, lease, fence }) = self.stage.held(victim) else { return };
        let asked = self.stage.now();
        let surely = if self.random.below(2) == 0 {
            self.stage.store.revoke(lease).await.is_ok()
        } else {
            let Fence { key, revision } = fence;
            let commit = Commit::new().guard(key.clone(), Guard::At(revision)).delete(key);
            self.stage.store.commit(commit).await.is_ok()
        };
        self.note(asked, Did::Ended { reign, surely });
    }

    /// A command id that was not used before, and a token to it.
    fn meta(&mut self) -> (Meta, u64) {
        self.commands += 1;
        let token = (self.number as u64 + 1) * 1_000_000 + self.commands;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&token.to_be_bytes());
        let now = ManualClock::default().now();
        let meta = Meta {
            id: CommandId(id),
            actor: Actor::Operator,
            source: None,
            correlation: None,
            causation: None,
            now,
        };
        (meta, token)
    }
}

/// Whether an append may be on its way though its client has gone on.
fn first_is_open(outcome: Appended, patience: Duration) -> bool {
    outcome == Appended::Unknown && patience < TTL
}

fn slice(after: u64, events: &[Recorded]) -> Slice {
    let tokens = events.iter().map(|event| event.decode::<Event>().unwrap().token());
    Slice { after, tokens: tokens.collect() }
}
