//! A control plane to test with, and one story that must hold on every store.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::missing_panics_doc)]

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_domain::testing::{ManualClock, SeededRandom};
use underpass_domain::{
    ActivityCommand, Actor, ClientId, Clock, ControlState, IngressRequest, MappingId, MappingOptions, NodeId,
    PublicKey, Scope, SessionId, Target,
};
use underpass_eventlog::View;
use underpass_store::Store;
use underpass_tasks::Tasks;

use crate::{
    Caller, Control, ControlError, ControlOptions, Enrolment, NewCode, NewMapping, OpenError, hash_secret,
};

/// The node that [`Rig::open`] opens.
pub const NODE: NodeId = NodeId::from_bytes([0x11; 16]);

/// An open control plane with its surroundings.
#[derive(Debug)]
pub struct Rig {
    /// The control plane.
    pub control: Arc<Control>,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Its tasks.
    pub tasks: Tasks,
    /// Cancelled when one of them failed.
    pub fatal: CancellationToken,
}

impl Rig {
    /// Opens [`NODE`] on `store`, with open enrolment.
    pub async fn open(store: Arc<dyn Store>) -> Self {
        let mut options = ControlOptions::new(NODE, "gate");
        options.enrolment = Enrolment::Open;
        Self::open_with(store, options, Arc::new(ManualClock::default())).await
    }

    /// Opens a node with these options and this clock on `store`.
    pub async fn open_with(store: Arc<dyn Store>, options: ControlOptions, clock: Arc<ManualClock>) -> Self {
        Self::try_open_with(store, options, clock).await.expect("opens")
    }

    /// Opens [`NODE`] on a store that may fail.
    pub async fn try_open(store: Arc<dyn Store>) -> Option<Self> {
        let mut options = ControlOptions::new(NODE, "gate");
        options.enrolment = Enrolment::Open;
        Self::try_open_with(store, options, Arc::new(ManualClock::default())).await.ok()
    }

    async fn try_open_with(
        store: Arc<dyn Store>,
        options: ControlOptions,
        clock: Arc<ManualClock>,
    ) -> Result<Self, OpenError> {
        let fatal = CancellationToken::new();
        let tasks = Tasks::new("control", fatal.clone());
        // Ids must differ between runs, so the seed follows the clock and the node.
        let seed = clock.now().0 ^ u64::from(options.node.as_bytes()[0]) << 56;
        let random = Arc::new(SeededRandom::new(seed));
        let opened = Control::open(store, options, clock.clone(), random, &tasks).await;
        if opened.is_err() {
            let _ = tasks.drain(Duration::from_secs(10)).await;
        }
        Ok(Self { control: opened?, clock, tasks, fatal })
    }

    /// Stops it in order.
    pub async fn close(self) -> Arc<ManualClock> {
        self.control.close().await;
        let _ = self.tasks.drain(Duration::from_secs(10)).await;
        // The next run must not draw the ids of this one.
        self.clock.advance(Duration::from_secs(1));
        self.clock
    }

    /// Stops it as a kill would: nothing is closed, withdrawn or given back.
    pub async fn kill(self) -> Arc<ManualClock> {
        let _ = self.tasks.drain(Duration::from_secs(10)).await;
        self.clock.advance(Duration::from_secs(1));
        self.clock
    }

    /// Enrols a client without an invite.
    pub async fn client(&self, number: u16) -> ClientId {
        let name = format!("client-{number}");
        let enrolled =
            self.control.enrol(&Caller::system(), key(number), name, "linux x86_64".into(), None).await;
        enrolled.expect("enrols").id
    }

    /// Makes a mapping from a public port to port 3000 of `client`.
    pub async fn mapping(&self, client: ClientId, port: Option<u16>) -> Result<MappingId, ControlError> {
        let new = public(client, port);
        self.control.create_mapping(&Caller::new(Actor::Client(client)), new).await.map(|made| made.id)
    }
}

/// A public key for tests.
pub fn key(number: u16) -> PublicKey {
    let mut bytes = [0x42; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

/// A mapping from a public port to port 3000 of `client`.
pub fn public(client: ClientId, port: Option<u16>) -> NewMapping {
    NewMapping {
        owner: None,
        name: None,
        ingress: IngressRequest::Port { port },
        target: Target::parse(client, "3000").expect("an address"),
        options: MappingOptions::default(),
        adopt: false,
    }
}

/// A code of `client` for its port 22, and the proof that redeems it.
pub fn code(client: ClientId, number: u16) -> (NewCode, [u8; 32]) {
    let mut proof = [0x77; 32];
    proof[..2].copy_from_slice(&number.to_be_bytes());
    let new = NewCode {
        client,
        lookup: format!("h4x-{number:05}"),
        redeem_hash: hash_secret(&proof),
        target: "127.0.0.1:22".into(),
        activation: Duration::from_mins(10),
        access: Duration::from_hours(7 * 24),
        options: MappingOptions::default(),
    };
    (new, proof)
}

/// The same story on any store (C62): enrolment, keys, mappings, codes, sessions and presence, a restart, a
/// kill, verification and replay. Panics where it does not go as told; gives the read model at its end, which
/// is the same on every store.
pub async fn scenario(store: Arc<dyn Store>) -> Arc<View<ControlState>> {
    let mut options = ControlOptions::new(NODE, "gate");
    options.ports = (20_000, 20_009);
    let clock = Arc::new(ManualClock::default());
    let rig = Rig::open_with(Arc::clone(&store), options.clone(), clock).await;
    let control = &rig.control;

    let admin = control.ensure_admin_key(None).await.expect("made").expect("there was none");
    let principal = control.authenticate(admin.token.expose()).expect("opens");
    assert_eq!(principal.scopes, [Scope::Admin]);
    assert!(control.ensure_admin_key(Some(admin.token.expose())).await.expect("works").is_none());

    let admin_caller = Caller::new(Actor::Key(principal.key));
    let (laptop, other) = two_clients_by_invite(control, &admin_caller).await;
    let web = one_mapping_adopted(control, laptop).await;
    let ssh = one_code_redeemed_once(control, laptop, other).await;

    let session = one_session(control, laptop).await;
    let presence = control.connected(laptop, session);
    control.announce(&presence).await.expect("announced");
    assert_eq!(control.present(laptop).await.map(|it| it.session), Some(session));
    let at_kill = control.state().position;
    // The guard outlives the node: nothing is withdrawn.
    std::mem::forget(presence);
    let clock = rig.kill().await;

    let rig = Rig::open_with(Arc::clone(&store), options.clone(), clock).await;
    let control = &rig.control;
    let state = control.state();
    assert!(state.position > at_kill, "the start is an event");
    assert!(state.state.mapping(web).is_some() && state.state.mapping(ssh).is_some());
    assert_eq!(control.present(laptop).await, None, "presence of the killed run is gone");
    until(|| control.activity().state.open_session_of(laptop).is_none()).await;

    let old = control.log().as_of(underpass_eventlog::AsOf::Position(at_kill)).await.expect("replays");
    assert_eq!(old.position, at_kill);
    assert_eq!(old.state.mappings().count(), 2);

    control
        .execute(&admin_caller, underpass_domain::ControlCommand::RemoveClient { client: laptop })
        .await
        .expect("removed");
    assert_eq!(control.state().state.mappings().count(), 0, "its mappings went with it");
    rig.close().await;

    for log in underpass_domain::LogName::ALL {
        let verified = underpass_eventlog::verify(&store, log).await.expect("reads");
        assert!(verified.ok, "{log}: {:?}", verified.bad);
    }
    let end = underpass_eventlog::replay_stored::<ControlState>(
        &store,
        underpass_eventlog::AsOf::Position(
            underpass_eventlog::verify(&store, underpass_domain::LogName::Control).await.expect("reads").head,
        ),
    );
    Arc::new(end.await.expect("replays"))
}

async fn two_clients_by_invite(control: &Control, admin: &Caller) -> (ClientId, ClientId) {
    let ttl = Duration::from_mins(10);
    let mut clients = Vec::new();
    for number in [1, 2] {
        let invite = control.issue_invite(admin, ttl, Some(format!("for {number}"))).await.expect("issued");
        let secret = Some(*invite.secret.expose());
        let (name, platform) = (format!("client-{number}"), "linux x86_64".to_owned());
        let enrolled = control
            .enrol(&Caller::system(), key(number), name.clone(), platform.clone(), secret)
            .await
            .expect("enrols");
        let again =
            control.enrol(&Caller::system(), key(number + 100), name, platform, secret).await.unwrap_err();
        assert_eq!(again.code(), "invite.used");
        clients.push(enrolled.id);
    }
    (clients[0], clients[1])
}

async fn one_mapping_adopted(control: &Control, client: ClientId) -> MappingId {
    let caller = Caller::new(Actor::Client(client));
    let mut wanted = public(client, Some(20_003));
    wanted.adopt = true;
    let first = control.create_mapping(&caller, wanted.clone()).await.expect("made");
    let again = control.create_mapping(&caller, wanted).await.expect("adopted");
    assert_eq!((again.id, again.changed), (first.id, false));
    let mut taken = public(client, Some(20_003));
    taken.name = Some("other".into());
    let taken = control.create_mapping(&caller, taken).await.unwrap_err();
    assert_eq!(taken.code(), "port.taken");
    first.id
}

async fn one_code_redeemed_once(control: &Control, from: ClientId, to: ClientId) -> MappingId {
    let (new, proof) = code(from, 1);
    control.issue_code(&Caller::new(Actor::Client(from)), new.clone()).await.expect("issued");
    let listen = "127.0.0.1:2222".parse().expect("an address");
    let redeemer = Caller::new(Actor::Client(to));
    let wrong = control.redeem_code(&redeemer, &new.lookup, [0; 32], to, listen).await.unwrap_err();
    assert_eq!(wrong.code(), "code.unknown", "a wrong proof burns nothing");
    let first = control.redeem_code(&redeemer, &new.lookup, proof, to, listen).await.expect("redeemed");
    let again = control.redeem_code(&redeemer, &new.lookup, proof, to, listen).await.expect("the same again");
    assert_eq!(again.id, first.id);
    let thief = Caller::new(Actor::Client(from));
    let used = control.redeem_code(&thief, &new.lookup, proof, from, listen).await.unwrap_err();
    assert_eq!(used.code(), "code.used");
    first.id
}

async fn one_session(control: &Control, client: ClientId) -> SessionId {
    let session = control.new_session_id().expect("random");
    let open = ActivityCommand::OpenSession {
        session,
        client,
        node: control.node(),
        address: "198.51.100.7:50214".parse().expect("an address"),
        transport: "tcp".into(),
        release: Some("0.1.0".into()),
    };
    control.record(&Caller::system(), open).await.expect("recorded");
    session
}

/// Waits until something is so; gives up after a minute.
pub async fn until(so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_mins(1), async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "it did not become so within a minute");
}
