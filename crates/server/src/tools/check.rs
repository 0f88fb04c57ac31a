//! Both logs of a store, read from end to end.

use underpass_domain::{ActivityState, Aggregate, ControlState, LogName};
use underpass_eventlog::{AsOf, LogError, Verified, replay_stored, verify};

use super::OpenPlace;

/// What was found in one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Frames, positions, chain, streams.
    pub verified: Verified,
    /// Why its events don't fold into a read model, if they don't.
    pub unreadable: Option<String>,
}

impl Checked {
    /// Whether all is well.
    pub fn ok(&self) -> bool {
        self.verified.ok && self.unreadable.is_none()
    }
}

/// Checks one log of a store, and that its events can be read to the last one.
///
/// # Errors
/// The store can't be read, or holds no such log. What is damaged is in the answer.
pub async fn check(place: &OpenPlace, log: LogName) -> Result<Checked, LogError> {
    let verified = verify(&place.store(), log).await?;
    let unreadable = match log {
        _ if !verified.ok => None,
        LogName::Control => unreadable::<ControlState>(place, &verified).await?,
        LogName::Activity => unreadable::<ActivityState>(place, &verified).await?,
    };
    Ok(Checked { verified, unreadable })
}

async fn unreadable<A: Aggregate>(
    place: &OpenPlace,
    verified: &Verified,
) -> Result<Option<String>, LogError> {
    match replay_stored::<A>(&place.store(), AsOf::Position(verified.head)).await {
        Ok(_) => Ok(None),
        Err(error @ LogError::Unavailable { .. }) => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}
