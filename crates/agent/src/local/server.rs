//! Serving the verbs of other processes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use underpass_tasks::Tasks;

use super::{Ownership, Reply, Request, line, read_line};
use crate::error::{AgentError, ErrorReport};
use crate::verbs::Verbs;

/// Verbs at once; each takes a task and a file descriptor.
const CONNECTIONS_MAX: usize = 128;
/// Whoever connects says what he wants at once: it is a program on this machine.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// A pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop`; then the folder is given up at once, so that a waiting verb can take over.
pub(crate) async fn serve(
    ownership: Ownership,
    listener: UnixListener,
    verbs: Arc<dyn Verbs>,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the local socket does not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over the bound the connection is closed unanswered; the verb says that the agent can't be spoken to.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (verbs, stop) = (verbs.clone(), stop.clone());
        tasks.spawn_job("local request", |_| async move {
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                served = answer(stream, &*verbs) => served,
            }
        });
    }
    // The listener first: whoever connects from now on is refused and tries again.
    drop(listener);
    drop(ownership);
}

async fn answer(stream: UnixStream, verbs: &dyn Verbs) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let Some(text) = tokio::time::timeout(REQUEST_DEADLINE, read_line(&mut reader)).await?? else {
        return Ok(());
    };
    let request = match serde_json::from_slice(&text) {
        Ok(request) => request,
        Err(error) => {
            let report = AgentError::Local { what: format!("it does not understand the request: {error}") }
                .to_report();
            return write.write_all(&line(&Reply::Error(report))?).await;
        }
    };
    let work = async {
        Some(match request {
            Request::Events => return None,
            Request::Expose(expose) => reply(verbs.expose(expose).await),
            Request::Share(share) => reply(verbs.share(share).await),
            Request::Connect(connect) => reply(verbs.connect(connect).await),
            Request::List => reply(verbs.list().await),
            Request::Remove { mapping } => reply(verbs.remove(&mapping).await),
            Request::Status => reply(verbs.status().await),
            Request::History { mapping } => reply(verbs.history(&mapping).await),
        })
    };
    let reply = tokio::select! {
        reply = work => reply,
        // Whoever asked is gone: nobody waits for the answer.
        () = gone(reader.get_mut()) => return Ok(()),
    };
    match reply {
        Some(reply) => write.write_all(&line(&reply)?).await,
        None => stream_events(reader, write, verbs).await,
    }
}

async fn stream_events(
    mut reader: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
    verbs: &dyn Verbs,
) -> io::Result<()> {
    let mut events = match verbs.events().await {
        Ok(events) => events,
        Err(report) => return write.write_all(&line(&Reply::Error(report))?).await,
    };
    write.write_all(&line(&Reply::Answer(serde_json::Value::Null))?).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = gone(reader.get_mut()) => return Ok(()),
        };
        let Some(event) = event else { return Ok(()) };
        write.write_all(&line(&Reply::Event(event))?).await?;
    }
}

/// Returns when the other side has closed, or says more than one request.
async fn gone(read: &mut OwnedReadHalf) {
    let _ = read.read(&mut [0]).await;
}

fn reply<T: Serialize>(done: Result<T, ErrorReport>) -> Reply {
    match done {
        Ok(value) => match serde_json::to_value(value) {
            Ok(value) => Reply::Answer(value),
            Err(error) => Reply::Error(AgentError::Internal { what: error.to_string() }.to_report()),
        },
        Err(report) => Reply::Error(report),
    }
}
