//! Why there is no tunnel.

use underpass_wire::channel::FailReason;

/// Why a caller gets no tunnel. Said within a second of being known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing listens at the target's address.
    #[error("the target refused the connection: {0}")]
    Refused(String),
    /// The target's address can't be reached from the client, or the client's channels broke.
    #[error("the target can't be reached: {0}")]
    Unreachable(String),
    /// The target, or its client, did not answer in time.
    #[error("the target did not answer in time")]
    TimedOut,
    /// The target client does not allow this target.
    #[error("the target client denied the tunnel: {0}")]
    Denied(String),
    /// The tunnel can't be sealed as the mapping demands. It is never plain instead.
    #[error("the tunnel can't be sealed: {0}")]
    Unsealable(String),
    /// The target's client is not connected.
    #[error("the client of the target is not connected")]
    Offline,
    /// As many tunnels as are allowed are running.
    #[error("as many tunnels as allowed are running")]
    Limit,
    /// There is no such mapping, or it is not served now.
    #[error("the mapping is not served")]
    NotServed,
    /// This node is going down, or has more waiting callers than it can keep.
    #[error("the node takes no new tunnels: {0}")]
    Unavailable(&'static str),
}

impl OpenError {
    /// The reason as it is said on a channel.
    pub fn reason(&self) -> FailReason {
        match self {
            Self::Refused(_) => FailReason::Refused,
            Self::Unreachable(_) => FailReason::Unreachable,
            Self::TimedOut => FailReason::TimedOut,
            Self::Denied(_) => FailReason::Denied,
            Self::Offline => FailReason::Offline,
            Self::Limit => FailReason::Limit,
            Self::NotServed | Self::Unavailable(_) => FailReason::NotServed,
            Self::Unsealable(_) => FailReason::Unsealable,
        }
    }

    /// What a channel said, as an error.
    pub(crate) fn from_reason(reason: FailReason, message: String) -> Self {
        match reason {
            FailReason::Refused => Self::Refused(message),
            FailReason::TimedOut => Self::TimedOut,
            FailReason::Denied => Self::Denied(message),
            FailReason::Offline => Self::Offline,
            FailReason::Limit => Self::Limit,
            FailReason::NotServed => Self::NotServed,
            FailReason::Unsealable => Self::Unsealable(message),
            FailReason::Unreachable | FailReason::Unspecified => Self::Unreachable(message),
        }
    }
}
