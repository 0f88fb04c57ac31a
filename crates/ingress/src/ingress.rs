//! Which listeners there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_control::{Control, View};
use underpass_domain::{self as domain, ControlState, MappingId, Timestamp};
use underpass_gateway::Gateway;
use underpass_tasks::Tasks;

use crate::listener::Listener;
use crate::places::{CALLERS_MAX, Places};

/// How often the set is looked at without a change of the log: a mapping that runs out is not always an event
/// at the very second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a port that is being given up may take before another mapping tries to bind it.
const RELEASE_WAIT: Duration = Duration::from_secs(1);

/// The public listeners of a node. They live until the tasks they were started with are drained; callers that
/// have a tunnel belong to the gateway and go on.
#[derive(Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub control: Arc<Control>,
    pub gateway: Arc<Gateway>,
    pub bind_ip: IpAddr,
    pub tasks: Tasks,
    pub places: Places,
}

/// A listener that was started.
#[derive(Debug)]
struct Started {
    port: u16,
    stop: CancellationToken,
    /// Cancelled when its socket is closed.
    closed: CancellationToken,
}

impl Ingress {
    /// Starts to follow the mappings and to listen on `bind_ip`.
    pub fn new(control: Arc<Control>, gateway: Arc<Gateway>, bind_ip: IpAddr, tasks: Tasks) -> Self {
        let places = Places::default();
        let shared = Arc::new(Shared { control, gateway, bind_ip, tasks, places });
        let follower = shared.clone();
        shared.tasks.spawn_essential("public listeners", |stop| async move {
            follow(follower, stop).await;
            Ok::<_, Infallible>(())
        });
        Self { shared }
    }

    /// The address public ports are bound on.
    pub fn bind_ip(&self) -> IpAddr {
        self.shared.bind_ip
    }

    /// How many callers are being served.
    pub fn callers(&self) -> usize {
        CALLERS_MAX - self.shared.places.free()
    }
}

/// Keeps the listeners what they should be, until told to stop.
async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.control.changes();
    let (mut wanted, mut started) = (Wanted::default(), HashMap::new());
    loop {
        changes.mark_unchanged();
        let looked_at = wanted.look(&shared);
        reconcile(&shared, &wanted.ports, &looked_at, &mut started).await;
        tokio::select! {
            () = stop.cancelled() => break,
            told = changes.changed() => if told.is_err() {
                // The log is closed and nothing changes any more; what listens goes on until it is stopped.
                stop.cancelled().await;
                break;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    for (_, listener) in started {
        listener.stop.cancel();
    }
}

/// Stops what is not wanted and starts what is missing, of what was looked at. Others are not touched.
async fn reconcile(
    shared: &Arc<Shared>,
    wanted: &BTreeMap<MappingId, u16>,
    looked_at: &BTreeSet<MappingId>,
    started: &mut HashMap<MappingId, Started>,
) {
    let gone: Vec<_> = looked_at
        .iter()
        .filter(|mapping| {
            started.get(mapping).is_some_and(|listener| wanted.get(mapping) != Some(&listener.port))
        })
        .copied()
        .collect();
    let mut closing = Vec::new();
    for mapping in gone {
        if let Some(listener) = started.remove(&mapping) {
            listener.stop.cancel();
            closing.push(listener.closed);
        }
        if !wanted.contains_key(&mapping) {
            shared.gateway.forget_listener(mapping);
        }
    }
    let missing: Vec<_> = looked_at
        .iter()
        .filter(|mapping| !started.contains_key(mapping))
        .filter_map(|mapping| Some((*mapping, *wanted.get(mapping)?)))
        .collect();
    if !missing.is_empty() && !closing.is_empty() {
        // A port may pass from one mapping to another.
        let closed = async {
            for closed in closing {
                closed.cancelled().await;
            }
        };
        if tokio::time::timeout(RELEASE_WAIT, closed).await.is_err() {
            tracing::debug!("a listener is slow to close; its port is tried again later");
        }
    }
    for (mapping, port) in missing {
        started.insert(mapping, start(shared, mapping, port));
    }
}

fn start(shared: &Arc<Shared>, mapping: MappingId, port: u16) -> Started {
    let stop = CancellationToken::new();
    let closed = CancellationToken::new();
    let address = SocketAddr::new(shared.bind_ip, port);
    let listener = Listener {
        shared: shared.clone(),
        places: shared.places.of_port(),
        mapping,
        address,
        stop: stop.clone(),
    };
    let closed_when_dropped = closed.clone().drop_guard();
    shared.tasks.spawn_job("public listener", |drained| async move {
        let _closed = closed_when_dropped;
        tokio::select! {
            () = drained.cancelled() => {}
            () = listener.run() => {}
        }
        Ok::<_, Infallible>(())
    });
    Started { port, stop, closed }
}

/// The mappings with a public port that are served, as of the last look.
#[derive(Debug, Default)]
struct Wanted {
    ports: BTreeMap<MappingId, u16>,
    seen: Option<(Arc<View<ControlState>>, Timestamp)>,
}

impl Wanted {
    /// Looks at what is touched since the last time, the first time at everything, and gives what was looked at.
    fn look(&mut self, shared: &Shared) -> BTreeSet<MappingId> {
        let (view, now) = (shared.control.state(), shared.gateway.now());
        let state = &view.state;
        let looked_at = match &self.seen {
            Some((before, then)) => state.touched_since(&before.state, *then, now).mappings,
            None => state.mappings().map(|mapping| mapping.id).collect(),
        };
        for id in &looked_at {
            let mapping = state.mapping(*id).filter(|mapping| state.serves(mapping, now));
            match mapping.and_then(domain::Mapping::port) {
                Some(port) => self.ports.insert(*id, port),
                None => self.ports.remove(id),
            };
        }
        self.seen = Some((view, now));
        looked_at
    }
}
