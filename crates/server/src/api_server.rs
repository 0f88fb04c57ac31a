//! Serving the API: on a TCP address with keys, on a socket in the data folder without.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use poem::listener::{Acceptor, TcpAcceptor, UnixAcceptor};
use poem::{Endpoint, IntoEndpoint, Server};
use underpass_api::InviteLine;
use underpass_control::InviteSecret;
use underpass_tasks::Tasks;
use underpass_wire::token::Invite;

use crate::bounded::{Bounded, CONNECTIONS_MAX};
use crate::error::StartError;

/// How long requests that run may go on when the node stops.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// How long a connection may be silent before it is closed, once no request runs on it. Event streams say
/// something more often.
const IDLE_MAX: Duration = Duration::from_mins(2);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens for the API.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|source| cannot_listen(address, source))
}

pub(crate) fn cannot_listen(address: SocketAddr, source: io::Error) -> StartError {
    let in_use = source.kind() == io::ErrorKind::AddrInUse;
    StartError::Listen { what: "the API", address, in_use, source: source.into() }
}

/// Listens on a socket file that only its owner can use. The caller holds the folder's lock, so a file that is
/// there already is left over.
pub(crate) fn bind_socket(path: &Path) -> Result<UnixListener, StartError> {
    let listen = || -> io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| StartError::Socket { path: path.to_owned(), source })
}

pub(crate) fn serve_tcp<E>(tasks: &Tasks, listener: TcpListener, app: E) -> Result<(), StartError>
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let acceptor = TcpAcceptor::from_std(listener).map_err(|source| cannot_listen(address, source))?;
    serve(tasks, "api", acceptor, app.into_endpoint());
    Ok(())
}

pub(crate) fn serve_socket<E>(tasks: &Tasks, listener: UnixListener, app: E) -> Result<(), StartError>
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    let acceptor = UnixAcceptor::from_std(listener)
        .map_err(|source| StartError::Socket { path: "control.sock".into(), source })?;
    serve(tasks, "control socket", acceptor, app.into_endpoint());
    Ok(())
}

fn serve<A, E>(tasks: &Tasks, name: &'static str, acceptor: A, app: E)
where
    A: Acceptor + 'static,
    E: Endpoint + 'static,
{
    tasks.spawn_essential(name, |stop| async move {
        Server::new_with_acceptor(Bounded::new(acceptor, CONNECTIONS_MAX))
            .idle_timeout(IDLE_MAX)
            .run_with_graceful_shutdown(app, stop.cancelled(), Some(REQUESTS_GRACE))
            .await
    });
}

/// Makes the lines that people paste.
pub(crate) fn invite_line(addresses: Vec<String>, server_key: [u8; 32]) -> Result<InviteLine, StartError> {
    let invite = move |secret: [u8; 16]| Invite::new(addresses.clone(), server_key, secret);
    // What can be wrong with an invite is its address, and that is the same for all of them.
    invite([0; 16]).map_err(StartError::Advertise)?;
    Ok(Arc::new(move |secret: &InviteSecret| {
        invite(*secret.expose()).map(|invite| invite.to_string()).unwrap_or_default()
    }))
}
