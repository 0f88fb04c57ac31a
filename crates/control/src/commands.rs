//! Commands that need an id made for them.

use std::net::SocketAddr;
use std::time::Duration;

use underpass_domain::{
    ClientId, CodeId, ControlCommand, ControlEvent, Digest32, IngressRequest, MappingId, MappingOptions,
    Position, PublicKey, Subject, Target, Timestamp, UserId,
};
use underpass_eventlog::Committed;

use crate::caller::Caller;
use crate::control::Control;
use crate::error::ControlError;
use crate::options::Enrolment;
use crate::secrets::hash_secret;

/// What a command made, or found already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made<I> {
    /// Its id.
    pub id: I,
    /// A position at which it can be read.
    pub position: Position,
    /// Whether anything changed. `false`: it was so already.
    pub changed: bool,
    /// Whether this is the answer to an earlier call under the same command id.
    pub repeated: bool,
}

impl<I> Made<I> {
    fn new(id: I, committed: &Committed<ControlEvent>) -> Self {
        Self {
            id,
            position: committed.head,
            changed: committed.positions.is_some(),
            repeated: committed.repeated,
        }
    }
}

/// A client that wants to become known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClient {
    /// Its static key, proven by the handshake of the link.
    pub public_key: PublicKey,
    /// What it calls itself.
    pub name: String,
    /// Operating system and architecture.
    pub platform: String,
    /// The hash of the secret of its invite, if it has one.
    pub invite_hash: Option<Digest32>,
}

/// A mapping that somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMapping {
    /// The user it belongs to.
    pub owner: Option<UserId>,
    /// Its name; one is derived from the target without it.
    pub name: Option<String>,
    /// Where its callers come in.
    pub ingress: IngressRequest,
    /// Where they go.
    pub target: Target,
    /// Its options.
    pub options: MappingOptions,
    /// Take the mapping that was made before, if there is one of the same client, kind and name (or target).
    pub adopt: bool,
}

/// A connection code that a client offers. Its secret half stays with the client.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCode {
    /// Who offers the target.
    pub client: ClientId,
    /// The half of the code that the server knows.
    pub lookup: String,
    /// The hash of what a redeemer has to prove.
    pub redeem_hash: Digest32,
    /// The address that is offered.
    pub target: String,
    /// How long the code can be redeemed.
    pub activation: Duration,
    /// How long the mapping lives after that.
    pub access: Duration,
    /// Options of the mapping.
    pub options: MappingOptions,
}

impl Control {
    /// Makes a client known: by its invite, or without one where enrolment is open. A client that is known
    /// already gets its id again, whatever it brings.
    pub async fn enrol(
        &self,
        caller: &Caller,
        public_key: PublicKey,
        name: String,
        platform: String,
        invite_secret: Option<[u8; 16]>,
    ) -> Result<Made<ClientId>, ControlError> {
        let invite_hash = invite_secret.map(|secret| hash_secret(&secret));
        self.enrol_client(caller, NewClient { public_key, name, platform, invite_hash }).await
    }

    async fn enrol_client(&self, caller: &Caller, new: NewClient) -> Result<Made<ClientId>, ControlError> {
        let known = self.state().state.client_by_key(&new.public_key).is_some();
        if !known && self.options.enrolment == Enrolment::Closed {
            return Err(ControlError::EnrolmentClosed);
        }
        let command = ControlCommand::EnrolClient {
            client: self.new_client_id()?,
            public_key: new.public_key,
            name: new.name,
            platform: new.platform,
            invite_hash: new.invite_hash,
            open_enrolment: self.options.enrolment == Enrolment::Open,
        };
        let committed = self.execute(caller, command).await?;
        match committed.subject {
            Subject::Client(id) => Ok(Made::new(id, &committed)),
            other => Err(unexpected(other)),
        }
    }

    /// Makes a mapping, or adopts the one that was made before.
    pub async fn create_mapping(
        &self,
        caller: &Caller,
        new: NewMapping,
    ) -> Result<Made<MappingId>, ControlError> {
        let command = ControlCommand::CreateMapping {
            mapping: self.new_mapping_id()?,
            owner: new.owner,
            name: new.name,
            ingress: new.ingress,
            target: new.target,
            options: new.options,
            ports: self.options.ports,
            adopt: new.adopt,
        };
        let committed = self.execute(caller, command).await?;
        mapping(&committed)
    }

    /// Records a connection code that a client offers.
    pub async fn issue_code(&self, caller: &Caller, new: NewCode) -> Result<Made<CodeId>, ControlError> {
        let command = ControlCommand::IssueCode {
            code: self.new_code_id()?,
            client: new.client,
            lookup: new.lookup,
            redeem_hash: new.redeem_hash,
            target: new.target,
            activate_until: self.after(new.activation),
            access_s: new.access.as_secs(),
            options: new.options,
        };
        let committed = self.execute(caller, command).await?;
        match committed.subject {
            Subject::Code(id) => Ok(Made::new(id, &committed)),
            other => Err(unexpected(other)),
        }
    }

    /// Redeems a connection code for the client that listens: its proof is checked before the code is used up,
    /// so guessing never burns one. The same client gets its mapping again; anybody else is refused.
    pub async fn redeem_code(
        &self,
        caller: &Caller,
        lookup: &str,
        proof: [u8; 32],
        client: ClientId,
        listen: SocketAddr,
    ) -> Result<Made<MappingId>, ControlError> {
        let command = ControlCommand::RedeemCode {
            lookup: lookup.to_owned(),
            proof_hash: hash_secret(&proof),
            client,
            mapping: self.new_mapping_id()?,
            listen,
        };
        let committed = self.execute(caller, command).await?;
        mapping(&committed)
    }

    /// When a code or mapping that is made now and lives for `ttl` ends.
    pub fn after(&self, ttl: Duration) -> Timestamp {
        self.clock.now().plus(ttl)
    }
}

fn mapping(committed: &Committed<ControlEvent>) -> Result<Made<MappingId>, ControlError> {
    match committed.subject {
        Subject::Mapping(id) => Ok(Made::new(id, committed)),
        other => Err(unexpected(other)),
    }
}

/// The rules answer every command with its own kind of subject; a program that sees this has a bug.
pub(crate) fn unexpected(subject: Subject) -> ControlError {
    ControlError::unavailable(format!("a command was answered with {subject:?}"))
}
