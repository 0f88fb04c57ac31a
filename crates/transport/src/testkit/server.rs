//! A server for the suite: accepts, and runs one job for each channel.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use underpass_tasks::{Drained, Tasks};

use crate::{Channel, Listener};

/// Longer than anything in the suite takes on a slow machine.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

/// How long a job may take to end when the test is over.
const GRACE: Duration = Duration::from_secs(10);

/// Accepts until dropped or drained.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: String,
    tasks: Tasks,
}

impl Server {
    /// Serves every channel with `serve`.
    pub(super) fn start<F, S>(mut listener: Box<dyn Listener>, serve: S) -> Self
    where
        S: Fn(Channel) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let tasks = Tasks::new("testkit", CancellationToken::new());
        let address = listener.local_addr().to_string();
        let (jobs, serve) = (tasks.clone(), Arc::new(serve));
        tasks.spawn_job("accept", |stop| async move {
            while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                let incoming = accepted.map_err(io::Error::other)?;
                let serve = serve.clone();
                jobs.spawn_job("serve", |stop| async move {
                    let served = async {
                        let channel = incoming.handshake().await.map_err(io::Error::other)?;
                        serve(channel).await
                    };
                    stop.run_until_cancelled(served).await.unwrap_or(Ok(()))
                });
            }
            Ok::<_, io::Error>(())
        });
        Self { address, tasks }
    }

    /// Ends everything and says whether all of it ended.
    pub(super) async fn stop(self) {
        assert_eq!(self.tasks.drain(GRACE).await, Drained::Clean);
    }
}

/// Sends back what comes, until it ends.
pub(super) async fn echo(mut channel: Channel) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(&mut channel.stream);
    tokio::io::copy(&mut reader, &mut writer).await?;
    tokio::io::AsyncWriteExt::shutdown(&mut writer).await
}
