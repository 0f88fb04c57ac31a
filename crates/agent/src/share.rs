//! The verbs, done by this process: offering targets, meeting other clients, and looking around.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::Instant;
use underpass_domain::{ClientId, MappingId, Seal, Timestamp};
use underpass_wire::link::{
    self, ExposeMapping, History, IngressKind, IssueCode, ListMappings, MappingRole, MappingStatus, Outcome,
    RedeemCode, RemoveMapping, Request, SecretBytes,
};
use underpass_wire::token::{CODE_RANDOM_BYTES, ConnectionCode};

use crate::allow::TargetAddress;
use crate::core::Core;
use crate::error::{AgentError, ErrorReport};
use crate::events::Events;
use crate::listen::bind;
use crate::pair::{CodeFile, PairFile, Psk};
use crate::serving::look_again;
use crate::sync::lock;
use crate::verbs::{
    Connect, Connected, EventStream, Expose, MappingInfo, Opened, Share, Shared, Status, Verbs,
};

/// How long a `connect` waits for the sharing client, which may be away for a moment.
const MEETING_PATIENCE: Duration = Duration::from_secs(20);
/// How long a `connect` waits for the server's word that it may listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(10);
/// Ports that the system chooses and that are kept for others, before a `connect` gives up.
const PORTS_TRIED_MAX: usize = 64;
/// Events of a mapping's history that are asked for: more than anybody reads, within one message.
const HISTORY_MAX: u32 = 500;

/// The verbs of an agent in this process. A clone is the same agent.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    pub(crate) core: Arc<Core>,
}

impl AgentHandle {
    async fn expose_target(&self, expose: Expose) -> Result<Opened, AgentError> {
        let target: TargetAddress = expose.target.parse()?;
        let core = &self.core;
        let for_list = target.clone();
        let fresh = core.change_allow(move |allow| allow.expose(&for_list)).await?;
        let request = Request::Expose(ExposeMapping {
            name: expose.name,
            port: expose.port.map(u32::from),
            target: target.to_string(),
            seal: match expose.seal {
                Seal::Auto => link::Seal::Auto,
                Seal::On => link::Seal::On,
                Seal::Off => link::Seal::Off,
            }
            .into(),
            max_connections: expose.max_connections,
            idle_timeout_s: expose.idle_timeout_s,
            expires_at_ms: None,
            adopt: true,
        });
        let made = match core.command(request).await {
            Ok(Outcome::Exposed(made)) => made.mapping.ok_or_else(|| unexpected("a mapping")),
            Ok(_) => Err(unexpected("a mapping")),
            Err(error) => Err(error),
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                // After an answer that was lost the mapping may exist; then the target stays allowed.
                if fresh && !matches!(error, AgentError::Unanswered) {
                    core.change_allow(move |allow| Ok(allow.forget_unused(&target))).await?;
                }
                return Err(error);
            }
        };
        let mapping = mapping_id(&made.id)?;
        let for_list = target.clone();
        core.change_allow(move |allow| Ok(allow.belongs_to(&for_list, mapping))).await?;
        look_again(core).await;
        Ok(Opened { mapping, public: self.public(&made.public), target: target.to_string(), name: made.name })
    }

    async fn share_target(&self, share: Share) -> Result<Shared, AgentError> {
        let target: TargetAddress = share.target.parse()?;
        let agent = &self.core;
        let random = zeroize::Zeroizing::new(
            (*agent.random).array::<CODE_RANDOM_BYTES>().map_err(|_| AgentError::Random)?,
        );
        let code = ConnectionCode::generate(&random).map_err(|_| AgentError::Random)?;
        let lookup = code.lookup();
        let proof_hash = *blake3::hash(code.redeem_proof().as_slice()).as_bytes();
        // Before the server knows the code: whoever redeems it finds this side ready.
        let kept = CodeFile {
            psk: Psk::new(*code.psk()),
            target: target.to_string(),
            // Put right by the server's answer.
            activate_until: agent.clock.now().plus(share.activation.unwrap_or(Duration::from_hours(24))),
            used_by: None,
        };
        agent.pairs.keep_code(agent, &lookup, kept.clone()).await?;
        let (for_list, for_code) = (target.clone(), lookup.clone());
        let allowed = agent.change_allow(move |allow| allow.share(&for_list, &for_code)).await;
        let issued = match allowed {
            Ok(_) => {
                let request = Request::IssueCode(IssueCode {
                    lookup: lookup.clone(),
                    redeem_hash: proof_hash.to_vec(),
                    target: target.to_string(),
                    activation_s: share.activation.map(|time| time.as_secs()),
                    access_s: share.access.map(|time| time.as_secs()),
                    max_connections: None,
                    idle_timeout_s: None,
                });
                match agent.command(request).await {
                    Ok(Outcome::CodeIssued(issued)) => Ok(issued),
                    Ok(_) => Err(unexpected("a code")),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match issued {
            Ok(issued) => {
                let activate_until = Timestamp(issued.activate_until_ms);
                agent.pairs.keep_code(agent, &lookup, CodeFile { activate_until, ..kept }).await?;
                Ok(Shared { code: code.to_string(), expires_at: activate_until, target: target.to_string() })
            }
            Err(error) => {
                // Nobody ever sees this code: also where it was issued and the answer was lost, it is worth
                // nothing to anybody.
                agent.pairs.drop_code(agent, &lookup).await?;
                agent.change_allow(move |allow| Ok(allow.forget_code(&lookup))).await?;
                Err(error)
            }
        }
    }

    async fn connect_by_code(&self, connect: Connect) -> Result<Connected, AgentError> {
        let code: ConnectionCode =
            connect.code.parse().map_err(|error: underpass_wire::token::CodeError| {
                AgentError::CodeInvalid { why: error.to_string() }
            })?;
        let agent = &self.core;
        let lookup = code.lookup();
        let before = agent.pairs.made_by(&lookup);
        let wanted = connect.listen.or(before.and_then(|(_, listen)| listen));
        let listen = self.reserve(wanted, before.map(|(mapping, _)| mapping), &lookup)?;
        // Taken by its mapping, or of no use any more; also when whoever asked leaves in the middle.
        let _reserved = Reserved { core: agent, address: listen };
        self.redeem(&code, &lookup, listen).await
    }

    /// Binds where to listen before anything is asked for, so that a port in use costs no code. An address that
    /// this very mapping listens on already is left as it is.
    fn reserve(
        &self,
        wanted: Option<SocketAddr>,
        mapping: Option<MappingId>,
        code: &str,
    ) -> Result<SocketAddr, AgentError> {
        let address = wanted.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        let listening = self.core.serving.listener_on(address);
        if listening.is_some() && listening == mapping {
            return Ok(address);
        }
        let (bound, listener) = self.bind_free(address)?;
        self.core.serving.reservations.keep(bound, code.to_owned(), listener);
        Ok(bound)
    }

    /// Binds the address. A port that the system chooses is none that an earlier code's mapping has: the user
    /// has not asked for that one.
    fn bind_free(&self, address: SocketAddr) -> Result<(SocketAddr, TcpListener), AgentError> {
        // Held until the end, so that the system does not choose them again.
        let mut kept = Vec::new();
        while kept.len() < PORTS_TRIED_MAX {
            let listener = bind(address)?;
            let bound = listener.local_addr().map_err(|error| AgentError::Listen {
                address,
                in_use: false,
                why: error.to_string(),
            })?;
            if address.port() != 0 || self.core.pairs.keeper_of(bound).is_none() {
                return Ok((bound, listener));
            }
            kept.push(listener);
        }
        Err(AgentError::Listen {
            address,
            in_use: false,
            why: "the free ports are kept for mappings that connection codes made".into(),
        })
    }

    async fn redeem(
        &self,
        code: &ConnectionCode,
        lookup: &str,
        listen: SocketAddr,
    ) -> Result<Connected, AgentError> {
        let agent = &self.core;
        let request = Request::RedeemCode(RedeemCode {
            lookup: lookup.to_owned(),
            proof: Some(SecretBytes::from(&*code.redeem_proof())),
            listen: listen.to_string(),
        });
        let Outcome::CodeRedeemed(redeemed) = agent.command(request).await? else {
            return Err(unexpected("a mapping"));
        };
        let made = redeemed.mapping.ok_or_else(|| unexpected("a mapping"))?;
        let mapping = mapping_id(&made.id)?;
        let peer = redeemed
            .target_client
            .as_slice()
            .try_into()
            .map(ClientId::from_bytes)
            .map_err(|_| unexpected("the sharing client"))?;
        // Kept before the two clients meet: if they can't now, the same command or the first caller tries again.
        let file = PairFile {
            peer,
            key: None,
            code: lookup.to_owned(),
            psk: Some(Psk::new(*code.psk())),
            listen: Some(listen),
            name: Some(made.name).filter(|name| !name.is_empty()),
            made: agent.clock.now(),
        };
        agent.pairs.remember(agent, mapping, file).await?;
        // The server's word may have come before its answer, and waits for this.
        look_again(agent).await;

        let listening = agent.serving.wait_until(LISTEN_PATIENCE, || {
            let served = agent.serving.get(mapping)?;
            // What is said of another address is of the time before.
            served.wanted().listen.as_ref().filter(|wanted| wanted.address == listen)?;
            let problem = served.problem();
            let there = served.listens_on() == Some(listen);
            (there || problem.is_some()).then_some((served, problem))
        });
        let (served, problem) = listening.await.ok_or(AgentError::Unanswered)?;
        if let Some(problem) = problem {
            return Err(AgentError::Listen {
                address: listen,
                in_use: problem.code == "listen.in_use",
                why: problem.message,
            });
        }
        agent.pairs.agree(agent, &served.wanted(), Instant::now() + MEETING_PATIENCE).await?;
        Ok(Connected { mapping, listen, sealed: "end-to-end".into() })
    }

    async fn list_mappings(&self) -> Result<Vec<MappingInfo>, AgentError> {
        match self.core.command(Request::List(ListMappings {})).await? {
            Outcome::Mappings(mappings) => mappings.mappings.iter().map(|info| self.info(info)).collect(),
            _ => Err(unexpected("mappings")),
        }
    }

    fn info(&self, info: &link::MappingInfo) -> Result<MappingInfo, AgentError> {
        let mapping = mapping_id(&info.id)?;
        let here =
            self.core.serving.get(mapping).and_then(|served| served.problem()).map(|problem| problem.message);
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let by_client = info.ingress() == IngressKind::Client;
        Ok(MappingInfo {
            mapping,
            name: info.name.clone(),
            ingress: if by_client { "client" } else { "port" }.into(),
            entrance: if by_client { info.public.clone() } else { self.public(&info.public) },
            target: info.target.clone(),
            target_client: info.target_client.clone(),
            listen_client: some(&info.listen_client),
            role: match info.role() {
                MappingRole::Listen => "listen",
                MappingRole::Both => "both",
                MappingRole::Target | MappingRole::Unspecified => "target",
            }
            .into(),
            seal: match info.seal() {
                link::Seal::Off => "off",
                link::Seal::On => "on",
                link::Seal::Auto | link::Seal::Unspecified => "auto",
            }
            .into(),
            created_at: Timestamp(info.created_at_ms),
            expires_at: info.expires_at_ms.map(Timestamp),
            max_connections: info.max_connections,
            status: if info.status() == MappingStatus::Disabled { "disabled" } else { "active" }.into(),
            problem: here.or_else(|| some(&info.trouble)),
        })
    }

    async fn remove_mapping(&self, mapping: &str) -> Result<MappingId, AgentError> {
        // The id is needed here, to take the target off the allow list.
        let id = match mapping.parse::<MappingId>() {
            Ok(id) => Some(id),
            Err(_) => self
                .list_mappings()
                .await?
                .into_iter()
                .find(|info| info.name == mapping)
                .map(|info| info.mapping),
        };
        let pairs = &self.core.pairs;
        let by_id = mapping.parse::<MappingId>().ok().filter(|id| pairs.knows(*id));
        match self.core.command(Request::Remove(RemoveMapping { mapping: mapping.to_owned() })).await {
            Ok(Outcome::Done(_)) => {}
            Ok(_) => return Err(unexpected("the end of a mapping")),
            // Gone before, by the server's word. What is kept for it here goes by the user's.
            Err(AgentError::Refused { not_found: true, .. }) if by_id.is_some() => {}
            Err(error) => return Err(error),
        }
        let id = id.ok_or_else(|| unexpected("a mapping of that name"))?;
        let code = pairs.code_of(id);
        if by_id.is_some() || pairs.may_be_named(id, mapping) {
            pairs.unpin(&self.core, id).await?;
        } else {
            tracing::warn!(mapping = %id, "it had another name when a code made it; its listen address stays kept until it is removed by its id");
        }
        self.core
            .change_allow(move |allow| {
                let by_code = code.is_some_and(|lookup| allow.forget_code(&lookup));
                Ok(allow.forget_mapping(id) || by_code)
            })
            .await?;
        // Another mapping may have waited for its address.
        look_again(&self.core).await;
        Ok(id)
    }

    async fn history_of(&self, mapping: &str) -> Result<Vec<Value>, AgentError> {
        let request = Request::History(History { mapping: mapping.to_owned(), limit: HISTORY_MAX });
        match self.core.command(request).await? {
            Outcome::Lines(lines) => lines
                .lines
                .iter()
                .map(|line| {
                    serde_json::from_str(line)
                        .map_err(|error| AgentError::Protocol { what: format!("a line of history: {error}") })
                })
                .collect(),
            _ => Err(unexpected("history")),
        }
    }

    fn status_now(&self) -> Status {
        let core = &self.core;
        let session = core.link.borrow().clone();
        let (mappings, tunnels) = core.serving.counts();
        Status {
            client: core.server.client,
            name: core.server.name.clone(),
            server: core.server.addresses.clone(),
            node: session.as_ref().map(|session| session.node),
            transport: session.as_ref().map(|session| session.transport.to_owned()),
            connected_at: session.as_ref().map(|session| session.since),
            last_error: if session.is_some() { None } else { lock(&core.trouble).clone() },
            mappings,
            tunnels,
            parked: session.as_ref().map_or((0, 0), |session| {
                (session.target_parked.load(std::sync::atomic::Ordering::Relaxed), session.pool.idle())
            }),
        }
    }

    /// Where callers connect. Without a host it is the one this client reaches the server by.
    fn public(&self, address: &str) -> String {
        let Some((host, port)) = address.rsplit_once(':') else { return address.to_owned() };
        if !matches!(host, "" | "0.0.0.0" | "[::]") {
            return address.to_owned();
        }
        let session = self.core.link.borrow().clone();
        let said =
            session.as_ref().map(|session| session.public_host.clone()).filter(|host| !host.is_empty());
        let reached = session
            .map(|session| session.address.clone())
            .or_else(|| self.core.server.addresses.first().cloned());
        let reached = reached.and_then(|address| address.rsplit_once(':').map(|(host, _)| host.to_owned()));
        format!("{}:{port}", said.or(reached).unwrap_or_default())
    }
}

/// A listener that was bound for a mapping which may never come.
struct Reserved<'a> {
    core: &'a Core,
    address: SocketAddr,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.core.serving.reservations.release(self.address);
    }
}

fn mapping_id(bytes: &[u8]) -> Result<MappingId, AgentError> {
    bytes.try_into().map(MappingId::from_bytes).map_err(|_| unexpected("a mapping's id"))
}

fn unexpected(expected: &str) -> AgentError {
    AgentError::Protocol { what: format!("its answer does not name {expected}") }
}

#[async_trait]
impl Verbs for AgentHandle {
    async fn expose(&self, expose: Expose) -> Result<Opened, ErrorReport> {
        Ok(self.expose_target(expose).await?)
    }

    async fn share(&self, share: Share) -> Result<Shared, ErrorReport> {
        Ok(self.share_target(share).await?)
    }

    async fn connect(&self, connect: Connect) -> Result<Connected, ErrorReport> {
        Ok(self.connect_by_code(connect).await?)
    }

    async fn list(&self) -> Result<Vec<MappingInfo>, ErrorReport> {
        Ok(self.list_mappings().await?)
    }

    async fn remove(&self, mapping: &str) -> Result<MappingId, ErrorReport> {
        Ok(self.remove_mapping(mapping).await?)
    }

    async fn status(&self) -> Result<Status, ErrorReport> {
        Ok(self.status_now())
    }

    async fn history(&self, mapping: &str) -> Result<Vec<Value>, ErrorReport> {
        Ok(self.history_of(mapping).await?)
    }

    async fn events(&self) -> Result<EventStream, ErrorReport> {
        Ok(EventStream::Here(Events::new(self.core.events.subscribe(), self.core.end.subscribe())))
    }
}
