//! The verbs, done by the agent of another process.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use underpass_domain::MappingId;

use super::{Reply, Request, line, lock, read_line};
use crate::error::{AgentError, ErrorReport};
use crate::events::AgentEvent;
use crate::state::StateDir;
use crate::verbs::{
    Connect, Connected, EventStream, Expose, MappingInfo, Opened, Share, Shared, Status, Verbs,
};

/// Speaks to the agent that owns the state folder. Each verb makes a connection of its own.
#[derive(Clone, Debug)]
pub struct LocalClient {
    state: StateDir,
}

impl LocalClient {
    pub(crate) fn new(state: StateDir) -> Self {
        Self { state }
    }

    async fn send(&self, request: &Request) -> Result<BufReader<UnixStream>, ErrorReport> {
        let failed = |error: std::io::Error| AgentError::Local { what: error.to_string() }.to_report();
        let mut stream = lock::connect(&self.state).map_err(failed)?;
        stream.write_all(&line(request).map_err(failed)?).await.map_err(failed)?;
        Ok(BufReader::new(stream))
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ErrorReport> {
        let mut reader = self.send(&request).await?;
        match receive(&mut reader).await? {
            Some(Reply::Answer(value)) => serde_json::from_value(value)
                .map_err(|error| AgentError::Local { what: error.to_string() }.to_report()),
            Some(Reply::Error(report)) => Err(report),
            Some(Reply::Event(_)) => {
                Err(AgentError::Local { what: "an event where an answer was due".into() }.to_report())
            }
            None => Err(AgentError::Ended.to_report()),
        }
    }
}

async fn receive(reader: &mut BufReader<UnixStream>) -> Result<Option<Reply>, ErrorReport> {
    let failed = |what: String| AgentError::Local { what }.to_report();
    match read_line(reader).await {
        Ok(None) => Ok(None),
        Ok(Some(line)) => serde_json::from_slice(&line).map(Some).map_err(|error| failed(error.to_string())),
        // The owner died in the middle: the same as if it had ended.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[async_trait]
impl Verbs for LocalClient {
    async fn expose(&self, expose: Expose) -> Result<Opened, ErrorReport> {
        self.ask(Request::Expose(expose)).await
    }

    async fn share(&self, share: Share) -> Result<Shared, ErrorReport> {
        self.ask(Request::Share(share)).await
    }

    async fn connect(&self, connect: Connect) -> Result<Connected, ErrorReport> {
        self.ask(Request::Connect(connect)).await
    }

    async fn list(&self) -> Result<Vec<MappingInfo>, ErrorReport> {
        self.ask(Request::List).await
    }

    async fn remove(&self, mapping: &str) -> Result<MappingId, ErrorReport> {
        self.ask(Request::Remove { mapping: mapping.to_owned() }).await
    }

    async fn status(&self) -> Result<Status, ErrorReport> {
        self.ask(Request::Status).await
    }

    async fn history(&self, mapping: &str) -> Result<Vec<Value>, ErrorReport> {
        self.ask(Request::History { mapping: mapping.to_owned() }).await
    }

    async fn events(&self) -> Result<EventStream, ErrorReport> {
        let mut reader = self.send(&Request::Events).await?;
        // The answer comes when the subscription stands: nothing that happens later is missed.
        match receive(&mut reader).await? {
            Some(Reply::Answer(_)) => Ok(EventStream::There(RemoteEvents { reader })),
            Some(Reply::Error(report)) => Err(report),
            Some(Reply::Event(_)) | None => Err(AgentError::Ended.to_report()),
        }
    }
}

/// The event stream of the agent of another process.
#[derive(Debug)]
pub struct RemoteEvents {
    reader: BufReader<UnixStream>,
}

impl RemoteEvents {
    /// The next event; `None` when that agent has ended.
    pub async fn next(&mut self) -> Option<AgentEvent> {
        loop {
            match receive(&mut self.reader).await {
                Ok(Some(Reply::Event(event))) => return Some(event),
                // A newer agent may tell kinds of events that this program does not know.
                Err(_) => {}
                Ok(Some(Reply::Answer(_) | Reply::Error(_)) | None) => return None,
            }
        }
    }
}
