//! The 33 symbols of connection codes.

/// Digits and letters without `i`, `l` and `o`.
const SYMBOLS: &[u8; 33] = b"0123456789abcdefghjkmnpqrstuvwxyz";

/// Bytes from here on are thrown away, so that each symbol has the same number of bytes: 7.
const FAIR: u8 = 33 * 7;

/// The symbol of a random byte; none for bytes that would favour some symbols.
pub(super) fn symbol_of(random: u8) -> Option<u8> {
    if random >= FAIR {
        return None;
    }
    SYMBOLS.get(usize::from(random % 33)).copied()
}

/// The symbol that somebody meant by this character.
pub(super) fn symbol_meant(character: char) -> Option<u8> {
    let lower = u8::try_from(character.to_ascii_lowercase()).ok()?;
    let symbol = match lower {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    SYMBOLS.contains(&symbol).then_some(symbol)
}

/// Whether people put this character between symbols to read them more easily.
pub(super) fn is_filler(character: char) -> bool {
    // Word processors turn a hyphen into one of the dashes.
    character.is_whitespace() || matches!(character, '-' | '\u{2010}'..='\u{2015}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for byte in 0..=u8::MAX {
            if let Some(symbol) = symbol_of(byte) {
                *counts.entry(symbol).or_insert(0) += 1;
            }
        }
        assert_eq!(counts.len(), 33);
        assert!(counts.values().all(|count| *count == 7));
    }

    #[test]
    fn look_alikes_are_understood() {
        let meant = |character| symbol_meant(character).map(char::from);
        assert_eq!(meant('O'), Some('0'));
        assert_eq!(meant('l'), Some('1'));
        assert_eq!(meant('I'), Some('1'));
        assert_eq!(meant('Z'), Some('z'));
        assert_eq!(meant('u'), Some('u'));
        assert_eq!(meant('_'), None);
        assert_eq!(meant('ß'), None);
    }
}
