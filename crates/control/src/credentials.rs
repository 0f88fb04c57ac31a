//! Invites and API keys: made here, given out once, kept as hashes.

use std::time::Duration;

use subtle::ConstantTimeEq;
use underpass_domain::{
    Actor, ControlCommand, Digest32, InviteId, KeyId, Position, Scope, Subject, Timestamp,
};
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::control::{Control, lock};
use crate::error::ControlError;
use crate::secrets::{InviteSecret, TOKEN_SECRET_BYTES, Token, hash_secret, parse_token};

/// What an unknown key is compared with, so that it takes as long as a known one.
const NOBODY: Digest32 = Digest32([0; 32]);

/// An invite, with the secret that is given out once.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its id.
    pub id: InviteId,
    /// What the invite line carries.
    pub secret: InviteSecret,
    /// When it can't be used any more.
    pub expires_at: Timestamp,
    /// A position at which it can be read.
    pub position: Position,
}

/// An API key, with the token that is given out once.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// Its id.
    pub id: KeyId,
    /// The bearer token.
    pub token: Token,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it ends, if ever.
    pub expires_at: Option<Timestamp>,
    /// A position at which it can be read.
    pub position: Position,
}

/// Whose token it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key: KeyId,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// Why a token is worth nothing. For the log; the one who sent it only hears that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthFailure {
    /// It doesn't look like one of our tokens.
    #[error("malformed token")]
    Malformed,
    /// There is no such key, or its secret is another.
    #[error("unknown key or wrong secret")]
    Unknown,
    /// The key was revoked.
    #[error("revoked key")]
    Revoked,
    /// The key is past its time.
    #[error("expired key")]
    Expired,
}

impl Control {
    /// Makes an invite for one client.
    pub async fn issue_invite(
        &self,
        caller: &Caller,
        ttl: Duration,
        label: Option<String>,
    ) -> Result<Issued, ControlError> {
        let now = self.clock.now();
        let id = InviteId::new(now, self.random.array()?);
        let secret = InviteSecret::new(self.random.array()?);
        let expires_at = now.plus(ttl);
        let command = ControlCommand::IssueInvite {
            invite: id,
            secret_hash: hash_secret(secret.expose()),
            expires_at,
            label,
        };
        let position = self.execute_secret(caller, command, Subject::Invite(id)).await?;
        Ok(Issued { id, secret, expires_at, position })
    }

    /// Makes an API key.
    pub async fn issue_key(
        &self,
        caller: &Caller,
        scopes: Vec<Scope>,
        label: Option<String>,
        ttl: Option<Duration>,
    ) -> Result<IssuedKey, ControlError> {
        let now = self.clock.now();
        let id = KeyId::new(now, self.random.array()?);
        let secret: Zeroizing<[u8; TOKEN_SECRET_BYTES]> = Zeroizing::new(self.random.array()?);
        let expires_at = ttl.map(|ttl| now.plus(ttl));
        let command = ControlCommand::IssueKey {
            key: id,
            hash: hash_secret(&*secret),
            scopes: scopes.clone(),
            label,
            expires_at,
        };
        let position = self.execute_secret(caller, command, Subject::Key(id)).await?;
        Ok(IssuedKey { id, token: Token::new(id, &secret), scopes, expires_at, position })
    }

    /// The key for the operator's own use: a new one, unless `token` (what the operator's file says) already
    /// opens this installation with the scope `admin`.
    pub async fn ensure_admin_key(&self, token: Option<&str>) -> Result<Option<IssuedKey>, ControlError> {
        let works = token.is_some_and(|token| {
            self.authenticate(token).is_ok_and(|principal| principal.scopes.contains(&Scope::Admin))
        });
        if works {
            return Ok(None);
        }
        let label = Some("first admin key".to_owned());
        self.issue_key(&Caller::system(), vec![Scope::Admin], label, None).await.map(Some)
    }

    /// Whose token this is. Secrets are compared in constant time, and an unknown key takes as long as a wrong
    /// secret.
    pub fn authenticate(&self, token: &str) -> Result<Principal, AuthFailure> {
        let (id, hash) = parse_token(token).ok_or(AuthFailure::Malformed)?;
        let view = self.state();
        let key = view.state.key(id);
        let expected = key.map_or(NOBODY, |key| key.hash);
        let same = bool::from(expected.0.ct_eq(&hash.0));
        let Some(key) = key.filter(|_| same) else { return Err(AuthFailure::Unknown) };
        let now = self.clock.now();
        if key.revoked {
            return Err(AuthFailure::Revoked);
        }
        if !key.is_good(now) {
            return Err(AuthFailure::Expired);
        }
        lock(&self.last_used).insert(id, now);
        Ok(Principal { key: id, scopes: key.scopes.clone() })
    }

    /// When a key was last used since the node started.
    pub fn last_used(&self, key: KeyId) -> Option<Timestamp> {
        lock(&self.last_used).get(&key).copied()
    }

    /// Executes a command that makes `fresh`, whose secret can't be given out twice.
    async fn execute_secret(
        &self,
        caller: &Caller,
        command: ControlCommand,
        fresh: Subject,
    ) -> Result<Position, ControlError> {
        let committed = self.execute(caller, command).await?;
        if committed.subject == fresh {
            return Ok(committed.head);
        }
        Err(ControlError::SecretGivenBefore { subject: committed.subject })
    }
}

/// A key as actor.
impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        Self::Key(principal.key)
    }
}
