//! Points in time, and where they come from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::text::text_serde;

/// Milliseconds since 1970-01-01T00:00:00 UTC. Text: RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Why a text or a number is not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time from 1970 to 9999 as RFC 3339 is needed, such as 2026-01-31T12:00:00Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The last point that has a text: 9999-12-30T22:00:00.000Z, the end of `jiff`'s milliseconds.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// This point, unless it lies past [`Timestamp::MAX`].
    fn checked(self) -> Result<Self, InvalidTimestamp> {
        if self <= Self::MAX { Ok(self) } else { Err(InvalidTimestamp) }
    }

    /// This much later, at most [`Timestamp::MAX`].
    pub fn plus(self, duration: Duration) -> Self {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(milliseconds)).min(Self::MAX)
    }

    /// This much earlier, at least the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(milliseconds))
    }

    /// How long ago `earlier` was; nothing when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.min(&Self::MAX).0).map_err(|_| fmt::Error)?;
        let instant = jiff::Timestamp::from_millisecond(milliseconds).map_err(|_| fmt::Error)?;
        write!(f, "{instant:.3}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        u64::try_from(instant.as_millisecond())
            .map_err(|_| InvalidTimestamp)
            .and_then(|time| Self(time).checked())
    }
}

text_serde!(Timestamp as u64, |time| time.0, |milliseconds| Timestamp(milliseconds).checked(),
    format "date-time");

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now. May step back; who needs order keeps the larger.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_700_000_000_120).to_string(), "2023-11-14T22:13:20.120Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn another_offset_means_the_same_instant() {
        assert_eq!("2023-11-14T23:13:20.12+01:00".parse(), Ok(Timestamp(1_700_000_000_120)));
    }

    #[test]
    fn times_before_the_epoch_are_refused() {
        assert_eq!("1969-12-31T23:59:59Z".parse::<Timestamp>(), Err(InvalidTimestamp));
    }

    #[test]
    fn times_past_the_last_one_are_refused() {
        assert_eq!("9999-12-30T22:00:00.001Z".parse::<Timestamp>(), Err(InvalidTimestamp));
        let late = serde_json::to_value(Timestamp::MAX.plus(Duration::from_secs(1)));
        assert_eq!(late.ok(), serde_json::to_value(Timestamp::MAX).ok());
        let bytes = crate::codec::encode(&(Timestamp::MAX.0 + 1)).unwrap();
        assert!(crate::codec::decode::<Timestamp>(&bytes).is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(5).plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp(5).minus(Duration::MAX), Timestamp(0));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(u64::MAX).to_string(), Timestamp::MAX.to_string());
    }

    proptest! {
        #[test]
        fn every_timestamp_comes_back_from_its_text(milliseconds in 0..=Timestamp::MAX.0) {
            prop_assert_eq!(Timestamp(milliseconds).to_string().parse(), Ok(Timestamp(milliseconds)));
        }
    }
}
