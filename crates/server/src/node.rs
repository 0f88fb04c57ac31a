//! A node: started in one order, stopped in the reverse.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_api::{Access, ApiState, Backups, InviteLine};
use underpass_control::{CARRIES_PER_AGE, Caller, Control, ControlError, ControlOptions, KeepOptions};
use underpass_domain::{Clock, NodeId, Random};
use underpass_gateway::{Gateway, GatewayOptions};
use underpass_ingress::Ingress;
use underpass_tasks::{Drained, Tasks};
use underpass_transport::tcp::TcpListener;
use underpass_transport::{BindError, Listener};
use underpass_wire::noise::StaticKey;

use crate::advertise::{advertised, split_host};
use crate::api_server::{self, invite_line};
use crate::backend::{Backend, Place};
use crate::backup::FolderBackups;
use crate::belonging::Belonging;
use crate::checkpoints::Checkpoints;
use crate::config::{Config, Enrolment, StoreKind};
use crate::data::{ARCHIVE, DataError, DataFolder};
use crate::error::StartError;

/// Time for tasks that only have to notice that they should stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub struct Node {
    ready: Ready,
    grace: Duration,
    fatal: CancellationToken,
    draining: CancellationToken,
    listeners: Tasks,
    public: Tasks,
    links: Tasks,
    api: Tasks,
    log: Tasks,
    checkpoints: Option<Arc<Checkpoints>>,
    control: Arc<Control>,
    gateway: Arc<Gateway>,
    _ingress: Ingress,
    backend: Backend,
    data: DataFolder,
}

/// What `serve` says when everything is up.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where the API listens.
    pub api: SocketAddr,
    /// The backend's name.
    pub store: &'static str,
    /// A fresh invite; `None` when enrolment is closed, or so many are open that there is no further one.
    pub invite: Option<String>,
    /// How long it can be used.
    pub invite_ttl: Duration,
    /// What is worth knowing about the invite's address.
    pub advertise_hint: Option<String>,
    /// The file with the first API key.
    pub admin_key: std::path::PathBuf,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stopped {
    /// It was asked to, and everything was closed in order.
    Clean,
    /// An essential task ended first.
    Failed,
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// Addresses are taken before anything is written, so that a port in use leaves no trace.
    pub async fn start(
        config: &Config,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, StartError> {
        let clients = TcpListener::bind(config.listen).map_err(|source| StartError::Listen {
            what: "clients",
            address: config.listen,
            in_use: matches!(source, BindError::InUse { .. }),
            source: source.into(),
        })?;
        let api_listener = api_server::bind(config.api)?;
        let clients_address = clients.local_addr();
        let api_address =
            api_listener.local_addr().map_err(|source| api_server::cannot_listen(config.api, source))?;

        let Ground { data, link_key, node, backend, checkpoints } =
            Ground::open(config, &clock, &*random).await?;
        let fatal = CancellationToken::new();
        let log = Tasks::new("log", fatal.clone());
        let options = control_options(config, node);
        let control = open_control(&backend, options, clock, Arc::clone(&random), &log).await?;
        let (advertise, advertise_hint) = advertised(config.advertise.as_deref(), clients_address);

        let watch = checkpoints.as_ref().map(|checkpoints| (checkpoints, &log));
        let first = begin(config, &data, &control, &advertise, link_key.public(), watch).await;
        let First { line, invite, socket } = match first {
            Ok(first) => first,
            Err(error) => {
                control.close().await;
                let _ = log.drain(STOP_GRACE).await;
                backend.close().await;
                return Err(error);
            }
        };

        let server_key = link_key.public();
        let links = Tasks::new("links", fatal.clone());
        let gateway = Gateway::new(
            Arc::clone(&control),
            GatewayOptions {
                public_host: split_host(&advertise).to_owned(),
                ..GatewayOptions::new(link_key)
            },
            random,
            links.clone(),
        );
        let listeners = Tasks::new("listeners", fatal.clone());
        let accepting = Arc::clone(&gateway);
        listeners.spawn_essential("clients", |stop| async move {
            accepting.serve(Box::new(clients), stop).await;
            Ok::<_, Infallible>(())
        });
        let public = Tasks::new("public ports", fatal.clone());
        let ingress = Ingress::new(Arc::clone(&control), Arc::clone(&gateway), config.bind, public.clone());

        let draining = CancellationToken::new();
        let state = |backups: Option<Arc<dyn Backups>>| {
            let mut state = ApiState::new(Arc::clone(&control), line.clone(), draining.clone());
            state.gateway = Some(gateway.clone());
            state.advertise = vec![advertise.clone()];
            state.server_key = server_key;
            config.store.name().clone_into(&mut state.store);
            state.backups = backups;
            state.measures = Some(Arc::new(backend.clone()));
            Arc::new(state)
        };
        let backups: Arc<dyn Backups> =
            Arc::new(FolderBackups { data: data.path().to_owned(), backend: backend.clone() });
        let api = Tasks::new("api", fatal.clone());
        api_server::serve_tcp(&api, api_listener, underpass_api::router(state(None), Access::Keys))?;
        api_server::serve_socket(
            &api,
            socket,
            underpass_api::router(state(Some(backups)), Access::Operator),
        )?;
        if !api_address.ip().is_loopback() {
            tracing::warn!(%api_address, "the API is served without TLS on an address others can reach");
        }
        tracing::info!(%node, %clients_address, %api_address, store = config.store.name(), "ready");

        Ok(Self {
            ready: Ready {
                clients: clients_address,
                api: api_address,
                store: config.store.name(),
                invite,
                invite_ttl: config.invite_ttl,
                advertise_hint,
                admin_key: data.join("admin.key"),
            },
            grace: config.shutdown_grace,
            fatal,
            draining,
            listeners,
            public,
            links,
            api,
            log,
            checkpoints,
            control,
            gateway,
            _ingress: ingress,
            backend,
            data,
        })
    }

    /// What to tell the person who started it.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until `stop`, or until an essential task has failed; then closes everything in order: public
    /// ports, new clients, running tunnels, links, API, log, store.
    pub async fn run(self, stop: CancellationToken) -> Stopped {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.fatal.cancelled() => tracing::error!("an essential task has ended: shutting down"),
        }
        let failed = self.fatal.is_cancelled();
        let grace = if failed { Duration::ZERO } else { self.grace };
        tracing::info!(grace_s = grace.as_secs(), "stopping");

        self.draining.cancel();
        drained("public ports", self.public.drain(STOP_GRACE).await);
        drained("listeners", self.listeners.drain(STOP_GRACE).await);
        self.gateway.going_away(grace);
        let cut = self.gateway.drain(grace).await;
        if cut > 0 {
            tracing::warn!(cut, "tunnels were cut off at the end of the grace time");
        }
        drained("links", self.links.drain(STOP_GRACE).await);
        drained("api", self.api.drain(STOP_GRACE).await);
        self.control.close().await;
        drained("log", self.log.drain(STOP_GRACE).await);
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.last().await;
        }
        self.backend.close().await;
        if let Err(error) = std::fs::remove_file(crate::control_socket(self.data.path())) {
            tracing::debug!(%error, "the control socket was gone already");
        }
        tracing::info!("stopped");
        if failed { Stopped::Failed } else { Stopped::Clean }
    }
}

/// What a node does once its log is open, before it lets anybody in.
struct First {
    line: InviteLine,
    invite: Option<String>,
    socket: UnixListener,
}

async fn begin(
    config: &Config,
    data: &DataFolder,
    control: &Control,
    advertise: &str,
    server_key: [u8; 32],
    watch: Option<(&Arc<Checkpoints>, &Tasks)>,
) -> Result<First, StartError> {
    remember_log(data, config.store, control)?;
    let token = data.admin_key()?;
    if let Some(key) = control.ensure_admin_key(token.as_ref().map(|token| token.as_str())).await? {
        data.set_admin_key(key.token.expose())?;
    }
    data.set_advertised(advertise)?;
    let line = invite_line(vec![advertise.to_owned()], server_key)?;
    let invite = match config.enrolment {
        Enrolment::Closed => None,
        Enrolment::Open | Enrolment::Invite => {
            let label = Some("printed at start".to_owned());
            match control.issue_invite(&Caller::operator(), config.invite_ttl, label).await {
                Ok(issued) => Some(line(&issued.secret)),
                // Too many are open: no reason not to serve the clients there are.
                Err(error @ ControlError::Refused(_)) => {
                    tracing::warn!(%error, "no invite at this start");
                    None
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let socket = api_server::bind_socket(&crate::control_socket(data.path()))?;
    if let Some((checkpoints, log)) = watch {
        checkpoints.begin().await?;
        checkpoints.keep(log);
    }
    Ok(First { line, invite, socket })
}

/// What a node stands on.
struct Ground {
    data: DataFolder,
    link_key: StaticKey,
    node: NodeId,
    backend: Backend,
    checkpoints: Option<Arc<Checkpoints>>,
}

impl Ground {
    /// Opens folder and store, and makes sure that they belong together.
    async fn open(config: &Config, clock: &Arc<dyn Clock>, random: &dyn Random) -> Result<Self, StartError> {
        let data = DataFolder::open(&config.data, true)?;
        let place = Place::configured(config.store, &config.etcd);
        // A folder that has served a log finds it, or is told so before anything is begun.
        let served = if config.store == StoreKind::Memory { None } else { data.served_log()? };
        let backend = match Backend::open_or(&place, &data.join("store"), served.is_none()).await {
            Err(error) if error.code() == "store.none" => {
                let folder = data.path().to_owned();
                return Err(served.map_or(error, |served| StartError::OtherLog {
                    folder,
                    served,
                    found: None,
                }));
            }
            opened => opened?,
        };
        let now = clock.now();
        let belongs = async {
            let mut belonging = Belonging::of(backend.store()).await?;
            if config.store != StoreKind::Memory {
                belonging.check_log(&data)?;
            }
            let link_key = data.link_key(random, belonging.has_clients(), config.new_link_key)?;
            belonging.check_key(&link_key.public(), config.new_link_key).await?;
            let (store, clock) = (backend.store(), Arc::clone(clock));
            let anew = config.new_checkpoints;
            let checkpoints = match config.store {
                StoreKind::Memory => None,
                _ => Some(Checkpoints::open(&config.checkpoints, &data, store, clock, random, anew).await?),
            };
            data.set_place(&place)?;
            Ok::<_, StartError>((link_key, data.node_id(now, random)?, checkpoints.map(Arc::new)))
        };
        match belongs.await {
            Ok((link_key, node, checkpoints)) => Ok(Self { data, link_key, node, backend, checkpoints }),
            Err(error) => {
                backend.close().await;
                Err(error)
            }
        }
    }
}

/// Opens the control plane. If that fails, what it had started by then holds the store, and so the folder: both are
/// given back.
async fn open_control(
    backend: &Backend,
    options: ControlOptions,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    log: &Tasks,
) -> Result<Arc<Control>, StartError> {
    match Control::open(backend.store(), options, clock, random, log).await {
        Ok(control) => Ok(control),
        Err(error) => {
            let _ = log.drain(STOP_GRACE).await;
            backend.close().await;
            Err(error.into())
        }
    }
}

/// Notes which log this folder serves, so that another one, or none, is noticed.
fn remember_log(data: &DataFolder, kind: StoreKind, control: &Control) -> Result<(), DataError> {
    match control.log().id() {
        Some(log) if kind != StoreKind::Memory => data.set_served_log(log),
        _ => Ok(()),
    }
}

/// How the configuration is told to the control plane.
fn control_options(config: &Config, node: NodeId) -> ControlOptions {
    ControlOptions {
        ports: config.ports,
        enrolment: match config.enrolment {
            Enrolment::Open => underpass_control::Enrolment::Open,
            Enrolment::Invite => underpass_control::Enrolment::Invite,
            Enrolment::Closed => underpass_control::Enrolment::Closed,
        },
        lease_ttl: config.presence_ttl,
        keep: KeepOptions {
            activity: config.keep.activity,
            carry_every: config.keep.activity / CARRIES_PER_AGE,
            // Of a log in memory nothing is left to read in the archive of the next start.
            archive: (config.store != StoreKind::Memory).then(|| config.data.join(ARCHIVE)),
            archiving: config.keep.archive,
            // RocksDB has room; etcd is small.
            trim_control: config.keep.archive && config.store == StoreKind::Etcd,
            ..KeepOptions::default()
        },
        ..ControlOptions::new(node, config.name.clone())
    }
}

fn drained(stage: &'static str, how: Drained) {
    if let Drained::Abandoned(tasks) = how {
        tracing::warn!(stage, tasks, "tasks did not stop in time");
    }
}
