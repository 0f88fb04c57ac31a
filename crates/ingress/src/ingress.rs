//! Which listeners there are.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_control::Control;
use underpass_domain::{self as domain, MappingId};
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
    let mut started = HashMap::new();
    loop {
        changes.mark_unchanged();
        reconcile(&shared, &mut started).await;
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

/// Stops what is not wanted and starts what is missing. Others are not touched.
async fn reconcile(shared: &Arc<Shared>, started: &mut HashMap<MappingId, Started>) {
    let wanted = wanted(shared);
    let gone: Vec<_> = started
        .iter()
        .filter(|(mapping, listener)| wanted.get(mapping) != Some(&listener.port))
        .map(|(mapping, _)| *mapping)
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
    let missing: Vec<_> = wanted.iter().filter(|(mapping, _)| !started.contains_key(mapping)).collect();
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
        started.insert(*mapping, start(shared, *mapping, *port));
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

/// The mappings with a public port that are served now.
fn wanted(shared: &Shared) -> BTreeMap<MappingId, u16> {
    let view = shared.control.state();
    let now = shared.gateway.now();
    view.state
        .mappings()
        .filter_map(|mapping| match mapping.ingress {
            domain::Ingress::Port { port } if view.state.serves(mapping, now) => Some((mapping.id, port)),
            _ => None,
        })
        .collect()
}
