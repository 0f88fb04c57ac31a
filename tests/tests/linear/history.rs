//! What clients did, when, and what they were told.

/// One reign of a client's fence: from the write that the client guards its appends with until the entry is
/// written or deleted again, or its lease ends.
pub type Reign = u64;

/// What one client asked for, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: usize,
    /// On a clock that only counts: what had its answer before something else was asked has a lower number.
    pub asked: u64,
    pub answered: u64,
    pub did: Did,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    Append {
        /// Each token is appended once, though perhaps in several attempts.
        token: u64,
        /// The fence that guarded it; `None` where attempts may have had different ones.
        reign: Option<Reign>,
        outcome: Appended,
    },
    /// Where the log ends: told by the client's own log, or seen in the store by reading up to there.
    Read { head: u64, read: Option<Slice> },
    /// A read of what the client's own log has followed so far. It may lag, but shows what that log has told before.
    Followed { read: Slice },
    /// A fence was taken: from now on this reign, and no longer the one before.
    Took { reign: Reign, before: Option<Reign> },
    /// A reign was ended. If not `surely`, this may or may not have happened, now or later.
    Ended { reign: Reign, surely: bool },
}

/// The answer to an append. But for the first and the last, nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    At(u64),
    /// It was expected at another end of the log than this.
    EndsAt(u64),
    Fenced,
    Failed,
    Unknown,
}

/// Tokens read: those behind `after`, up to wherever the read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub after: u64,
    pub tokens: Vec<u64>,
}

impl Slice {
    pub fn end(&self) -> u64 {
        self.after + self.tokens.len() as u64
    }
}
