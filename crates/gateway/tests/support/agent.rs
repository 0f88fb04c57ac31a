//! What a client does with its links: dials channels, serves targets, calls.

use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use underpass_domain::{ClientId, MappingId};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer, Secret, derive, record};
use underpass_relay::{Counters, Duplex, Options, Record, RecordChannel, tunnel};
use underpass_tasks::Tasks;
use underpass_wire::channel::{
    self, DataHello, DataRole, Dial, FailReason, Failed, Open, Opened, Protection, labels,
};
use underpass_wire::link::{Body, ChannelRole, Pong, Ticket, TicketRequest};
use underpass_wire::preamble::{self, Kind};

use super::{TestLink, soon};

/// A client that answers pings, dials what it gets tickets for and connects callers to what they ask for.
pub struct Agent {
    pub client: ClientId,
    pub stop: CancellationToken,
}

impl Agent {
    pub fn start(mut link: TestLink, tasks: &Tasks) -> Self {
        let agent = Self { client: link.client, stop: CancellationToken::new() };
        let (stop, jobs) = (agent.stop.clone(), tasks.clone());
        tasks.spawn_job("agent", |drained| async move {
            loop {
                let heard = tokio::select! {
                    () = stop.cancelled() => return Ok::<_, Infallible>(()),
                    () = drained.cancelled() => return Ok(()),
                    heard = link.hear() => heard,
                };
                match heard {
                    None => return Ok(()),
                    Some(Body::Ping(ping)) => link.say(Body::Pong(Pong { nonce: ping.nonce })).await,
                    Some(Body::Tickets(tickets)) if tickets.role() == ChannelRole::Target => {
                        for ticket in tickets.tickets {
                            let (node, hash, stop) = (link.node, link.hash, stop.clone());
                            jobs.spawn_job("target channel", |_| async move {
                                let channel = DataChannel::dial(node, &ticket, &hash, DataRole::Target).await;
                                stop.run_until_cancelled(channel.serve_targets()).await;
                                Ok::<_, Infallible>(())
                            });
                        }
                    }
                    Some(_) => {}
                }
            }
        });
        agent
    }
}

/// The agent's end of a data channel.
pub struct DataChannel {
    pub records: RecordChannel,
    pub sealer: Sealer,
    pub opener: Opener,
    secret: Secret,
}

/// The keys of one direction of an end-to-end tunnel of the one pair there is in tests.
pub fn pair_keys(tunnel: &[u8], label: &str) -> DirectionKeys {
    derive(&Secret::new([77; 32]), &[tunnel, &0_u64.to_be_bytes()], label)
}

impl DataChannel {
    pub async fn dial(node: SocketAddr, ticket: &Ticket, hash: &[u8; 32], role: DataRole) -> Self {
        let key: [u8; 32] = ticket.key.as_ref().unwrap().expose().try_into().unwrap();
        let id = ticket.id.as_slice().try_into().unwrap();
        let stream = Self::show(node, &DataHello::new(id, &key, hash, role)).await;
        let secret: Secret = derive(&Secret::new(key), &[hash], labels::CHANNEL);
        let keys = |label| derive::<DirectionKeys>(&secret, &[], label);
        Self {
            records: RecordChannel::new(Duplex::Tcp(stream)),
            sealer: Sealer::sealed(Aead::XChaCha20Poly1305, keys(labels::CHANNEL_AGENT_TO_NODE)),
            opener: Opener::sealed(Aead::XChaCha20Poly1305, keys(labels::CHANNEL_NODE_TO_AGENT)),
            secret,
        }
    }

    /// A connection that has shown this ticket.
    pub async fn show(node: SocketAddr, hello: &DataHello) -> TcpStream {
        let mut stream = TcpStream::connect(node).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut first = preamble::encode(Kind::Data).to_vec();
        first.extend_from_slice(&hello.to_bytes());
        stream.write_all(&first).await.unwrap();
        stream
    }

    pub async fn say(&mut self, kind: u8, body: &[u8]) {
        self.records.send(&mut self.sealer, kind, body).await.unwrap();
    }

    /// The next record under the channel's keys; `None` when it is over.
    pub async fn hear(&mut self) -> Option<Record> {
        self.records.recv(&mut self.opener).await.ok().flatten()
    }

    /// The next request; questions are answered on the way.
    pub async fn next_open(&mut self) -> Option<Open> {
        loop {
            let record = self.hear().await?;
            match record.kind {
                record::KEEPALIVE => {
                    self.records.send(&mut self.sealer, record::KEEPALIVE_ANSWER, &[]).await.ok()?;
                }
                record::OPEN => return Some(channel::decode(&record.body).unwrap()),
                other => panic!("record kind {other} on a parked channel"),
            }
        }
    }

    /// The seals of the tunnel that a request is for.
    pub fn seals(&self, open: &Open) -> (Sealer, Opener) {
        let aead = Aead::XChaCha20Poly1305;
        match open.protection() {
            Protection::Plain => (Sealer::plain(), Opener::plain()),
            Protection::NodeSealed => {
                let keys = |label| derive::<DirectionKeys>(&self.secret, &[&open.tunnel], label);
                let (a2n, n2a) = (keys(labels::TUNNEL_AGENT_TO_NODE), keys(labels::TUNNEL_NODE_TO_AGENT));
                (Sealer::sealed(aead, a2n), Opener::sealed(aead, n2a))
            }
            Protection::EndToEnd => {
                let t2l = pair_keys(&open.tunnel, labels::PAIR_TARGET_TO_LISTEN);
                let l2t = pair_keys(&open.tunnel, labels::PAIR_LISTEN_TO_TARGET);
                (Sealer::sealed(aead, t2l), Opener::sealed(aead, l2t))
            }
            Protection::Unspecified => panic!("{open:?}"),
        }
    }

    pub async fn accept(&mut self, open: &Open) {
        let opened = Opened { tunnel: open.tunnel.clone() };
        self.say(record::OPENED, &channel::encode(&opened).unwrap()).await;
    }

    pub async fn fail(&mut self, open: &Open, reason: FailReason) {
        let failed = Failed { tunnel: open.tunnel.clone(), reason: reason.into(), message: "no".to_owned() };
        self.say(record::FAILED, &channel::encode(&failed).unwrap()).await;
    }

    /// Serves tunnels one after another, as long as the channel can.
    pub async fn serve_targets(mut self) {
        while let Some(open) = self.next_open().await {
            let Ok(target) = TcpStream::connect(&open.target).await else {
                self.fail(&open, FailReason::Refused).await;
                continue;
            };
            let (sealer, opener) = self.seals(&open);
            self.accept(&open).await;
            let (options, counters) = (Options::default(), Counters::default());
            let plain = Duplex::Tcp(target);
            let ended = tunnel(plain, &mut self.records, sealer, opener, &options, &counters).await;
            if !ended.channel_reusable() {
                return;
            }
        }
    }
}

/// A channel on which a client calls.
pub struct CallerChannel {
    pub channel: DataChannel,
}

impl CallerChannel {
    pub async fn get(link: &mut TestLink) -> Self {
        link.say(Body::TicketRequest(TicketRequest { role: ChannelRole::Caller.into(), count: 1 })).await;
        let ticket = link
            .expect("a ticket to call", |body| match body {
                Body::Tickets(mut tickets) if tickets.role() == ChannelRole::Caller => tickets.tickets.pop(),
                _ => None,
            })
            .await;
        Self { channel: DataChannel::dial(link.node, &ticket, &link.hash, DataRole::Caller).await }
    }

    /// Calls, and says what came of it.
    pub async fn dial(
        &mut self,
        mapping: MappingId,
        tunnel: [u8; 16],
        protection: Protection,
    ) -> Result<(Sealer, Opener), FailReason> {
        let dial = Dial {
            tunnel: tunnel.to_vec(),
            mapping: mapping.as_bytes().to_vec(),
            caller: "127.0.0.1:9".to_owned(),
            protection: protection.into(),
            aead: channel::Aead::XChaCha20Poly1305.into(),
            pair: vec![5; 16],
            seq: 0,
        };
        self.channel.say(record::DIAL, &channel::encode(&dial).unwrap()).await;
        let answer = soon("an answer to a call", self.channel.hear()).await.expect("the channel lives");
        match answer.kind {
            record::OPENED => {
                let aead = Aead::XChaCha20Poly1305;
                Ok(match protection {
                    Protection::Plain => (Sealer::plain(), Opener::plain()),
                    _ => (
                        Sealer::sealed(aead, pair_keys(&tunnel, labels::PAIR_LISTEN_TO_TARGET)),
                        Opener::sealed(aead, pair_keys(&tunnel, labels::PAIR_TARGET_TO_LISTEN)),
                    ),
                })
            }
            record::FAILED => Err(channel::decode::<Failed>(&answer.body).unwrap().reason()),
            other => panic!("record kind {other} in answer to a call"),
        }
    }
}
