//! What the API works on.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use underpass_control::{Control, InviteSecret};

use crate::live::LiveState;
use crate::metrics::{Measurement, Requests};
use crate::problem::Problem;

/// Event streams at a time. Each holds a connection and reads the log; programs that follow are few.
pub const STREAMS_MAX: usize = 64;
/// Requests at a time that read a whole log: a replay or a check keeps a core and the disk busy.
pub const REPLAYS_MAX: usize = 2;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has an API key, as far as its scopes go.
    Keys,
    /// Whoever can reach the endpoint is the operator: a unix socket in the data folder.
    Operator,
}

/// Makes the line that a person pastes from the secret of an invite: address, server key and secret.
pub type InviteLine = Arc<dyn Fn(&InviteSecret) -> String + Send + Sync>;

/// Makes backups of the data folder of a node.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Makes one in a folder that is new or empty. What was acknowledged before is in it.
    async fn make(&self, to: &Path) -> Result<(), Problem>;
}

/// What a store says of itself in `/metrics`.
#[async_trait]
pub trait StoreMeasures: Send + Sync {
    /// All there is to say at this moment.
    async fn measure(&self) -> Vec<Measurement>;
}

/// What the API works on.
pub struct ApiState {
    /// The control plane.
    pub control: Arc<Control>,
    /// Links and tunnels of this node, if it serves any.
    pub gateway: Option<Arc<dyn LiveState>>,
    /// Cancelled when the node begins to stop: readiness ends, and so do event streams.
    pub draining: CancellationToken,
    /// How an invite becomes a line to paste.
    pub invite_line: InviteLine,
    /// What clients connect to, as invites say it.
    pub advertise: Vec<String>,
    /// The public link key of the installation.
    pub server_key: [u8; 32],
    /// The kind of store: `memory`, `rocksdb`.
    pub store: String,
    /// Who makes backups of the data folder, where the one who asks may have one.
    pub backups: Option<Arc<dyn Backups>>,
    /// What the store says of itself, if it says something.
    pub measures: Option<Arc<dyn StoreMeasures>>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) replays: Arc<Semaphore>,
    pub(crate) requests: Requests,
}

impl ApiState {
    /// The state of an API over `control`, without a gateway.
    pub fn new(control: Arc<Control>, invite_line: InviteLine, draining: CancellationToken) -> Self {
        Self {
            control,
            gateway: None,
            draining,
            invite_line,
            advertise: Vec::new(),
            server_key: [0; 32],
            store: "memory".to_owned(),
            backups: None,
            measures: None,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            requests: Requests::default(),
        }
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("store", &self.store).finish_non_exhaustive()
    }
}
