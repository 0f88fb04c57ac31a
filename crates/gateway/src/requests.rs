//! What each request of a client does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use underpass_control::{Caller, ControlError, ErrorClass, NewCode, NewMapping};
use underpass_domain::{
    Actor, CodeId, CommandId, ControlCommand, Digest32, IngressRequest, Mapping, MappingId, MappingOptions,
    Position, Seal, StreamId, Target, Timestamp,
};
use underpass_wire::bytes32;
use underpass_wire::link::{
    CodeIssued, CodeRedeemed, Done, ExposeMapping, Failure, FailureClass, History, IssueCode, Lines,
    MappingMade, Mappings, Outcome, RedeemCode, RemoveMapping, Request, RevokeCode, Seal as WireSeal,
    StatusInfo,
};

use crate::commands::invalid;
use crate::gateway::Shared;
use crate::info::{mapping_info, milliseconds};
use crate::link::Link;

/// How long a code can be redeemed when the client does not say: long enough to hand it over in person.
const CODE_ACTIVATION_DEFAULT: Duration = Duration::from_mins(10);
/// How long the access lasts when the client does not say.
const CODE_ACCESS_DEFAULT: Duration = Duration::from_hours(7 * 24);

/// Events that an answer holds when the client does not say how many, and at most.
const HISTORY_DEFAULT: usize = 50;
const HISTORY_MAX: usize = 500;
/// The longest line of an answer. With [`HISTORY_MAX`] of them an answer stays well below a message's limit.
const HISTORY_LINE_BYTES_MAX: usize = 4 * 1024;
/// How far back in the log the events of a mapping are looked for.
const HISTORY_LOOK_BACK: u64 = 200_000;
/// Events read at once.
const HISTORY_PAGE: usize = 1_000;

/// Whether a request changes the log, so that it must run once.
pub(crate) fn changes_something(request: &Request) -> bool {
    match request {
        Request::Expose(_)
        | Request::Remove(_)
        | Request::IssueCode(_)
        | Request::RedeemCode(_)
        | Request::RevokeCode(_) => true,
        Request::List(_) | Request::Status(_) | Request::History(_) => false,
    }
}

/// Does what a client asks for, in the client's own name: whatever it may not touch, the log's rules refuse.
pub(crate) async fn execute(shared: &Shared, link: &Link, id: [u8; 16], request: Request) -> Outcome {
    let caller =
        Caller::new(Actor::Client(link.client)).from_address(link.address.ip()).with_command(CommandId(id));
    let asked = Asked { shared, link, caller };
    let outcome = match request {
        Request::Expose(expose) => asked.expose(expose).await,
        Request::Remove(remove) => asked.remove(&remove).await,
        Request::List(_) => Ok(asked.list()),
        Request::IssueCode(issue) => asked.issue_code(issue).await,
        Request::RedeemCode(redeem) => asked.redeem_code(&redeem).await,
        Request::RevokeCode(revoke) => asked.revoke_code(&revoke).await,
        Request::Status(_) => Ok(asked.status()),
        Request::History(history) => asked.history(&history).await,
    };
    outcome.unwrap_or_else(|refused| refused)
}

/// A request under way. The error of its steps is the outcome, too: what the client is told.
struct Asked<'a> {
    shared: &'a Shared,
    link: &'a Link,
    caller: Caller,
}

impl Asked<'_> {
    async fn expose(&self, expose: ExposeMapping) -> Result<Outcome, Outcome> {
        let port = match expose.port.map(u16::try_from) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return Err(invalid("a port is a number up to 65535")),
        };
        let options = MappingOptions {
            seal: match expose.seal() {
                WireSeal::Off => Seal::Off,
                WireSeal::On => Seal::On,
                WireSeal::Auto | WireSeal::Unspecified => Seal::Auto,
            },
            max_connections: expose.max_connections,
            idle_timeout_s: expose.idle_timeout_s,
            expires_at: expose.expires_at_ms.map(Timestamp),
        };
        let target =
            Target::parse(self.link.client, &expose.target).map_err(|error| invalid(&error.to_string()))?;
        let new = NewMapping {
            owner: self.shared.control.state().state.client(self.link.client).and_then(|client| client.owner),
            name: expose.name,
            ingress: IngressRequest::Port { port },
            target,
            options,
            adopt: expose.adopt,
        };
        let made = self.shared.control.create_mapping(&self.caller, new).await.map_err(refused)?;
        // A mapping that is a moment old, or that this command did not make, was there before.
        let adopted = !made.repeated
            && self.with_mapping(made.id, |mapping| mapping.version > 1 || !made.changed).unwrap_or_default();
        let mapping =
            self.with_mapping(made.id, |mapping| mapping_info(self.shared, mapping, self.link.client));
        Ok(Outcome::Exposed(MappingMade { mapping, adopted, position: made.position.0 }))
    }

    async fn remove(&self, remove: &RemoveMapping) -> Result<Outcome, Outcome> {
        let mapping = self.find(&remove.mapping).ok_or_else(no_mapping)?;
        self.execute(ControlCommand::RemoveMapping { mapping }).await
    }

    fn list(&self) -> Outcome {
        let view = self.shared.control.state();
        let client = self.link.client;
        let mappings = view
            .state
            .mappings_of(client)
            .map(|mapping| mapping_info(self.shared, mapping, client))
            .collect();
        Outcome::Mappings(Mappings { mappings })
    }

    async fn issue_code(&self, issue: IssueCode) -> Result<Outcome, Outcome> {
        let redeem_hash =
            bytes32("redeem hash", &issue.redeem_hash).map_err(|error| invalid(&error.to_string()))?;
        let access = issue.access_s.map_or(CODE_ACCESS_DEFAULT, Duration::from_secs);
        let new = NewCode {
            client: self.link.client,
            lookup: issue.lookup,
            redeem_hash: Digest32(redeem_hash),
            target: issue.target,
            activation: issue.activation_s.map_or(CODE_ACTIVATION_DEFAULT, Duration::from_secs),
            access,
            options: MappingOptions {
                max_connections: issue.max_connections,
                idle_timeout_s: issue.idle_timeout_s,
                ..MappingOptions::default()
            },
        };
        let made = self.shared.control.issue_code(&self.caller, new).await.map_err(refused)?;
        let view = self.shared.control.state();
        let code = view.state.code(made.id);
        Ok(Outcome::CodeIssued(CodeIssued {
            id: made.id.as_bytes().to_vec(),
            activate_until_ms: code.map(|code| code.activate_until.0).unwrap_or_default(),
            access_s: code.map_or(access.as_secs(), |code| code.access_s),
            position: made.position.0,
        }))
    }

    async fn redeem_code(&self, redeem: &RedeemCode) -> Result<Outcome, Outcome> {
        let proof = redeem.proof.as_ref().map(|proof| bytes32("proof", proof.expose()));
        let Some(Ok(proof)) = proof else { return Err(invalid("a proof has 32 bytes")) };
        let listen: SocketAddr =
            redeem.listen.parse().map_err(|_| invalid("the address to listen on is IP:PORT"))?;
        let (control, client) = (&self.shared.control, self.link.client);
        let redeemed = control.redeem_code(&self.caller, &redeem.lookup, proof, client, listen).await;
        let made = redeemed.map_err(refused)?;
        let view = control.state();
        let mapping = view.state.mapping(made.id);
        let target = mapping.and_then(|mapping| view.state.client(mapping.target.client));
        Ok(Outcome::CodeRedeemed(CodeRedeemed {
            mapping: mapping.map(|mapping| mapping_info(self.shared, mapping, client)),
            target_client: target.map(|target| target.id.as_bytes().to_vec()).unwrap_or_default(),
            target_key: target.map(|target| target.public_key.0.to_vec()).unwrap_or_default(),
            position: made.position.0,
        }))
    }

    async fn revoke_code(&self, revoke: &RevokeCode) -> Result<Outcome, Outcome> {
        let view = self.shared.control.state();
        let by_id = revoke.code.parse::<CodeId>().ok().and_then(|id| view.state.code(id));
        let code = by_id.or_else(|| view.state.code_by_lookup(&revoke.code));
        // Somebody else's code is treated like none.
        let code = code.filter(|code| code.client == self.link.client).map(|code| code.id);
        let code = code.ok_or_else(|| not_found("code.unknown", "this client has no such code"))?;
        self.execute(ControlCommand::RevokeCode { code }).await
    }

    fn status(&self) -> Outcome {
        let (link, view) = (self.link, self.shared.control.state());
        let state = &view.state;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let tunnels = self.shared.tunnels.all();
        Outcome::Status(StatusInfo {
            client: link.client.as_bytes().to_vec(),
            name: state.client(link.client).map(|client| client.name.clone()).unwrap_or_default(),
            session: link.session.as_bytes().to_vec(),
            since_ms: milliseconds(link.since),
            address: link.address.to_string(),
            node: self.shared.control.options().node_name.clone(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            mappings: count(state.mappings_of(link.client).count()),
            open_codes: count(state.open_codes_of(link.client).count()),
            tunnels: count(tunnels.iter().filter(|tunnel| tunnel.concerns(link.client)).count()),
            position: view.position.0,
        })
    }

    async fn history(&self, history: &History) -> Result<Outcome, Outcome> {
        let mapping = self.find(&history.mapping).ok_or_else(no_mapping)?;
        let limit =
            if history.limit == 0 { HISTORY_DEFAULT } else { (history.limit as usize).min(HISTORY_MAX) };
        let stream = StreamId::from(mapping);
        let log = self.shared.control.log();
        let head = self.shared.control.state().position;
        let mut after = Position(head.0.saturating_sub(HISTORY_LOOK_BACK));
        let mut found = VecDeque::new();
        while after < head {
            let page =
                log.read(after, HISTORY_PAGE).await.map_err(|error| unavailable(&error.to_string()))?;
            let Some(last) = page.last().map(|event| event.position) else { break };
            for event in page.into_iter().filter(|event| event.stream == stream) {
                if found.len() == limit {
                    found.pop_front();
                }
                found.push_back(event);
            }
            after = last;
        }
        let truncated = found.front().is_some_and(|first| first.stream_version > 1);
        let own = Actor::Client(self.link.client);
        let lines = found
            .into_iter()
            .map(|mut event| {
                // From where others connect is not this client's business.
                event.source = event.source.filter(|_| event.actor == own);
                event.to_json().to_string()
            })
            .filter(|line| line.len() <= HISTORY_LINE_BYTES_MAX)
            .collect();
        Ok(Outcome::Lines(Lines { lines, truncated }))
    }

    async fn execute(&self, command: ControlCommand) -> Result<Outcome, Outcome> {
        let committed = self.shared.control.execute(&self.caller, command).await.map_err(refused)?;
        Ok(Outcome::Done(Done { position: committed.head.0 }))
    }

    fn with_mapping<T>(&self, id: MappingId, look: impl FnOnce(&Mapping) -> T) -> Option<T> {
        self.shared.control.state().state.mapping(id).map(look)
    }

    /// A mapping in which this client takes part, by its id or its name. Of two with one name the one that
    /// leads to this client counts.
    fn find(&self, text: &str) -> Option<MappingId> {
        let view = self.shared.control.state();
        let (state, client) = (&view.state, self.link.client);
        let mapping = match text.parse::<MappingId>() {
            Ok(id) => state.mapping(id).filter(|mapping| mapping.involves(client)),
            Err(_) => state
                .mapping_by_name(client, text)
                .or_else(|| state.mappings_of(client).find(|mapping| mapping.name == text)),
        };
        mapping.map(|mapping| mapping.id)
    }
}

fn no_mapping() -> Outcome {
    not_found("mapping.not_found", "this client has no such mapping")
}

/// A refusal of the control plane, as the client is told.
#[expect(clippy::needless_pass_by_value, reason = "reads better at the calls")]
fn refused(error: ControlError) -> Outcome {
    let class = match error.class() {
        ErrorClass::NotFound => FailureClass::NotFound,
        ErrorClass::Conflict => FailureClass::Conflict,
        ErrorClass::Forbidden => FailureClass::Forbidden,
        ErrorClass::Quota => FailureClass::Quota,
        ErrorClass::Invalid(_) => FailureClass::Invalid,
        _ => FailureClass::Unavailable,
    };
    Outcome::Failed(Failure {
        code: error.code().to_owned(),
        message: error.to_string(),
        hint: error.hint().unwrap_or_default(),
        class: class.into(),
        retry_after_ms: error.retry_after().map(crate::session::milliseconds).unwrap_or_default(),
    })
}

fn not_found(code: &str, message: &str) -> Outcome {
    Outcome::Failed(Failure {
        code: code.to_owned(),
        message: message.to_owned(),
        hint: "`underpass ls` shows what there is".to_owned(),
        class: FailureClass::NotFound.into(),
        retry_after_ms: 0,
    })
}

fn unavailable(message: &str) -> Outcome {
    Outcome::Failed(Failure {
        code: "store.unavailable".to_owned(),
        message: message.to_owned(),
        hint: String::new(),
        class: FailureClass::Unavailable.into(),
        retry_after_ms: 1000,
    })
}
