//! Where randomness comes from.

use std::error::Error;
use std::fmt;

/// The random source failed. What needed it must not go on.
#[derive(Debug, thiserror::Error)]
#[error("the random source failed")]
pub struct RandomFailed {
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

impl RandomFailed {
    /// With what the source said.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into() }
    }
}

/// A source of random bytes that are fit for keys and tokens.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills all of `out`. On failure `out` must not be used.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomFailed>;
}

impl dyn Random + '_ {
    /// `N` random bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], RandomFailed> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }
}
