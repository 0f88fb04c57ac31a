//! Names that people give.

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Nothing, or too much.
    #[error("a name has 1 to {NAME_BYTES_MAX} characters")]
    Length,
    /// Something else than letters, digits, `-`, `_` and `.`.
    #[error("a name is made of letters a-z and A-Z, digits, `-`, `_` and `.`")]
    Character,
}

/// Whether `name` can name a client or a mapping: 1 to 63 ASCII letters, digits, `-`, `_`, `.`.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(InvalidName::Length);
    }
    let fits = |symbol: u8| symbol.is_ascii_alphanumeric() || matches!(symbol, b'-' | b'_' | b'.');
    if name.bytes().all(fits) { Ok(()) } else { Err(InvalidName::Character) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "web", "Web-1_x.y", &"x".repeat(63)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(""), Err(InvalidName::Length));
        assert_eq!(check_name(&"x".repeat(64)), Err(InvalidName::Length));
        for bad in ["a b", "ü", "a/b", "a\n", "a:b", "\0"] {
            assert_eq!(check_name(bad), Err(InvalidName::Character), "{bad:?}");
        }
    }
}
