//! Durations as people write them.

use std::time::Duration;

/// `90s`, `10m`, `1h`, `7d`; a bare number is seconds.
///
/// # Errors
/// A sentence, for clap.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        unit => return Err(format!("`{unit}` is not a unit; use s, m, h or d, as in 10m")),
    };
    let number: u64 = digits.parse().map_err(|_| "use a whole number and a unit, as in 10m".to_owned())?;
    let seconds = number.checked_mul(factor).ok_or("that is too long")?;
    if seconds == 0 {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "m", "0m", "1w", "-1s", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
