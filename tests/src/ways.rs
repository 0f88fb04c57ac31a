//! The ways from a caller to a target, each set up whole.

use std::net::SocketAddr;

use crate::{Client, Process, Server, Store};

/// How callers come to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At a public port; sealed from the server to the client.
    Public,
    /// At a public port; plain, so that bulk is spliced.
    Plain,
    /// At a port of another client; sealed end to end.
    Private,
}

/// All of them.
pub const KINDS: [Kind; 3] = [Kind::Public, Kind::Plain, Kind::Private];

/// A server, its clients and one mapping named `way` (of a private one: the name that the code gave it).
pub struct Way {
    /// Where callers connect.
    pub address: SocketAddr,
    /// The agent that listens, for [`Kind::Private`].
    pub listening: Option<Process>,
    /// The agent that dials the target.
    pub offering: Process,
    /// The client that listens.
    pub other: Client,
    /// The client that dials the target.
    pub laptop: Client,
    /// The server.
    pub server: Server,
}

impl Way {
    /// To this target.
    #[track_caller]
    pub fn to(kind: Kind, target: SocketAddr) -> Self {
        Self::over(Server::start(Store::Memory), kind, target)
    }

    /// The same over a server that runs, with clients of its own.
    #[track_caller]
    pub fn over(server: Server, kind: Kind, target: SocketAddr) -> Self {
        let (laptop, other) = (server.client("laptop"), server.client("other"));
        let target = target.to_string();
        let (offering, listening, address) = match kind {
            Kind::Public => {
                let (offering, address) = laptop.expose(&[&target, "--name", "way"]);
                (offering, None, address)
            }
            Kind::Plain => {
                let (offering, address) = laptop.expose(&[&target, "--name", "way", "--seal", "off"]);
                (offering, None, address)
            }
            Kind::Private => {
                let (offering, code) = laptop.share(&target);
                let (listening, address) = other.connect(&code);
                (offering, Some(listening), address)
            }
        };
        Self { address, listening, offering, other, laptop, server }
    }
}
