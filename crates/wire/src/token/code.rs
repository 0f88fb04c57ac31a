//! Connection codes: one client lets another reach one target, once.
//!
//! ```text
//! h4x-w77-pam.f4wz-p8tn-0q3d-k2vb-ra7m-5c
//! lookup      secret                   checksum
//! ```
//!
//! The server learns the first nine symbols and, later, a proof made from the 20 of the secret; it can
//! neither guess the secret from the proof (it has 100 bits) nor seal or open anything with it.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::alphabet::{is_filler, symbol_meant, symbol_of};

const LOOKUP: usize = 9;
const SECRET: usize = 20;
const CHECKSUM: usize = 2;

/// How many random bytes [`ConnectionCode::generate`] wants. One byte in ten can't be used; of so many, more
/// than half would have to be such bytes for a code to fail.
pub const CODE_RANDOM_BYTES: usize = 64;

/// Longer texts are refused unread: a code has 31 symbols and a few fillers.
const TEXT_BYTES_MAX: usize = 256;

const REDEEM_CONTEXT: &str = "underpass 2026-11 connection code redeem proof v1";
const PSK_CONTEXT: &str = "underpass 2026-11 connection code pair psk v1";
const CHECKSUM_CONTEXT: &str = "underpass 2026-11 connection code checksum v1";

/// A connection code. Whoever has the text has access.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ConnectionCode {
    lookup: [u8; LOOKUP],
    secret: [u8; SECRET],
}

/// A part of a connection code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodePart {
    /// The first nine symbols.
    Lookup,
    /// The twenty after the dot.
    Secret,
    /// The last two.
    Checksum,
}

impl fmt::Display for CodePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "first part (before the dot)",
            Self::Secret => "second part (after the dot)",
            Self::Checksum => "checksum (the last two symbols)",
        })
    }
}

/// Why a text is no connection code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// A character that codes don't have.
    #[error("`{found}` in the {part} can't be part of a connection code")]
    Symbol {
        /// Where it stands.
        part: CodePart,
        /// The character.
        found: char,
    },
    /// Too few or too many symbols.
    #[error("the {part} has {found} symbols instead of {expected}")]
    Length {
        /// Which part.
        part: CodePart,
        /// How many it has.
        found: usize,
        /// How many it must have.
        expected: usize,
    },
    /// All symbols are possible, but not together: one is mistyped, or two changed places.
    #[error("the checksum does not fit: a symbol is mistyped")]
    Checksum,
    /// More text than any code has.
    #[error("this is too long for a connection code")]
    TooLong,
    /// Hardly any of the random bytes could be used. With a true random source this doesn't happen.
    #[error("the random bytes given can't be random")]
    NotRandom,
}

impl ConnectionCode {
    /// A new code from random bytes of the operating system. Every code is equally likely.
    pub fn generate(random: &[u8; CODE_RANDOM_BYTES]) -> Result<Self, CodeError> {
        let mut symbols = random.iter().filter_map(|byte| symbol_of(*byte));
        let mut code = Self { lookup: [0; LOOKUP], secret: [0; SECRET] };
        for place in code.lookup.iter_mut().chain(&mut code.secret) {
            *place = symbols.next().ok_or(CodeError::NotRandom)?;
        }
        Ok(code)
    }

    /// The public half: what the server looks the code up by.
    pub fn lookup(&self) -> String {
        self.lookup.iter().copied().map(char::from).collect()
    }

    /// The public half as bytes.
    pub fn lookup_bytes(&self) -> [u8; LOOKUP] {
        self.lookup
    }

    /// What proves to the server that somebody has the whole code. The server keeps a hash of it.
    pub fn redeem_proof(&self) -> Zeroizing<[u8; 32]> {
        self.derive(REDEEM_CONTEXT)
    }

    /// The pre-shared key of the pair handshake. The server never has anything to derive it from.
    pub fn psk(&self) -> Zeroizing<[u8; 32]> {
        self.derive(PSK_CONTEXT)
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.lookup).update(&self.secret);
        Zeroizing::new(hasher.finalize().into())
    }

    fn checksum(&self) -> [u8; CHECKSUM] {
        let mut hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
        hasher.update(&self.lookup).update(&self.secret);
        let mut stream = hasher.finalize_xof();
        let mut checksum = [0; CHECKSUM];
        for place in &mut checksum {
            *place = loop {
                let mut byte = [0];
                stream.fill(&mut byte);
                if let Some(symbol) = symbol_of(byte[0]) {
                    break symbol;
                }
            };
        }
        checksum
    }
}

impl PartialEq for ConnectionCode {
    fn eq(&self, other: &Self) -> bool {
        (self.lookup.ct_eq(&other.lookup) & self.secret.ct_eq(&other.secret)).into()
    }
}

impl Eq for ConnectionCode {}

/// The secret half stays out of logs.
impl fmt::Debug for ConnectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionCode").field("lookup", &self.lookup()).finish_non_exhaustive()
    }
}

/// The whole code, secret half included: for the eyes of the person who asked for it.
impl fmt::Display for ConnectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = |f: &mut fmt::Formatter<'_>, symbols: &[u8], size: usize| {
            for (index, symbol) in symbols.iter().enumerate() {
                if index > 0 && index % size == 0 {
                    f.write_str("-")?;
                }
                write!(f, "{}", char::from(*symbol))?;
            }
            Ok(())
        };
        groups(f, &self.lookup, 3)?;
        f.write_str(".")?;
        groups(f, &self.secret, 4)?;
        f.write_str("-")?;
        groups(f, &self.checksum(), CHECKSUM)
    }
}

impl FromStr for ConnectionCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CodeError::TooLong);
        }
        let mut symbols = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX));
        let mut dot = None;
        for character in text.chars().filter(|character| !is_filler(*character)) {
            if character == '.' && dot.is_none() {
                dot = Some(symbols.len());
            } else if let Some(symbol) = symbol_meant(character) {
                symbols.push(symbol);
            } else {
                return Err(CodeError::Symbol { part: part_at(symbols.len(), dot), found: character });
            }
        }
        // Without its dot, a code is cut where the dot belongs.
        if let Some(found) = dot.filter(|found| *found != LOOKUP) {
            return Err(CodeError::Length { part: CodePart::Lookup, found, expected: LOOKUP });
        }
        check_length(symbols.len())?;
        let mut code = Self { lookup: [0; LOOKUP], secret: [0; SECRET] };
        code.lookup.copy_from_slice(&symbols[..LOOKUP]);
        code.secret.copy_from_slice(&symbols[LOOKUP..LOOKUP + SECRET]);
        if bool::from(code.checksum().ct_eq(&symbols[LOOKUP + SECRET..])) {
            Ok(code)
        } else {
            Err(CodeError::Checksum)
        }
    }
}

fn part_at(position: usize, dot: Option<usize>) -> CodePart {
    let lookup = dot.unwrap_or(LOOKUP);
    if position < lookup || (dot.is_none() && position < LOOKUP) {
        CodePart::Lookup
    } else if position < lookup + SECRET {
        CodePart::Secret
    } else {
        CodePart::Checksum
    }
}

/// Which part a wrong number of symbols is missing from, reading from the front.
fn check_length(symbols: usize) -> Result<(), CodeError> {
    let (part, found, expected) = match symbols {
        0..LOOKUP => (CodePart::Lookup, symbols, LOOKUP),
        LOOKUP..=28 => (CodePart::Secret, symbols - LOOKUP, SECRET),
        29..=30 => (CodePart::Checksum, symbols - LOOKUP - SECRET, CHECKSUM),
        31 => return Ok(()),
        _ => (CodePart::Secret, symbols - LOOKUP - CHECKSUM, SECRET),
    };
    Err(CodeError::Length { part, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> ConnectionCode {
        let mut random = [0; CODE_RANDOM_BYTES];
        for (index, byte) in random.iter_mut().enumerate() {
            *byte = u8::try_from(index * 7 % 256).unwrap();
        }
        ConnectionCode::generate(&random).unwrap()
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let text = code().to_string();
        assert_eq!(text.len(), "xxx-xxx-xxx.xxxx-xxxx-xxxx-xxxx-xxxx-cc".len());
        assert_eq!(text.parse(), Ok(code()));
    }

    #[test]
    fn case_spaces_dashes_and_look_alikes_are_forgiven() {
        let text = code().to_string();
        for forgiven in [
            text.to_uppercase(),
            text.replace(['-', '.'], ""),
            text.replace('-', " "),
            format!("  {}\n", text.replace('-', "\u{2013}")),
            text.replace('0', "O").replace('1', "l"),
        ] {
            assert_eq!(forgiven.parse(), Ok(code()), "{forgiven}");
        }
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        let text = code().to_string();
        let read = |text: &str| text.parse::<ConnectionCode>().unwrap_err();
        let length = |part, found, expected| CodeError::Length { part, found, expected };
        assert_eq!(read(&text[1..]), length(CodePart::Lookup, 8, 9));
        assert_eq!(read(""), length(CodePart::Lookup, 0, 9));
        assert_eq!(read(&text[..text.len() - 5]), length(CodePart::Secret, 18, 20));
        assert_eq!(read(&text[..text.len() - 1]), length(CodePart::Checksum, 1, 2));
        assert_eq!(read(&format!("{text}7")), length(CodePart::Secret, 21, 20));
        assert_eq!(read("h4x-w_7"), CodeError::Symbol { part: CodePart::Lookup, found: '_' });
        assert_eq!(read("h4x-w77-pam.f$"), CodeError::Symbol { part: CodePart::Secret, found: '$' });
        assert_eq!(read(&"7".repeat(300)), CodeError::TooLong);
    }

    #[test]
    fn mistyped_symbols_are_noticed() {
        let text = code().to_string();
        let mut missed = 0;
        let mut tried = 0;
        for (index, symbol) in text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()) {
            for other in b"0123456789abcdefghjkmnpqrstuvwxyz" {
                if *other != symbol {
                    let mut mistyped = text.clone().into_bytes();
                    mistyped[index] = *other;
                    tried += 1;
                    let mistyped = String::from_utf8(mistyped).unwrap();
                    missed += usize::from(mistyped.parse::<ConnectionCode>().is_ok());
                }
            }
        }
        // One in 1089 slips through a checksum of two symbols.
        assert!(missed * 300 < tried, "{missed} of {tried}");
    }

    #[test]
    fn the_server_can_not_derive_the_psk_from_the_proof() {
        assert_ne!(code().redeem_proof(), code().psk());
        let mut other = code();
        other.secret[19] = if other.secret[19] == b'7' { b'8' } else { b'7' };
        assert_ne!(other.redeem_proof(), code().redeem_proof());
        assert_ne!(other.psk(), code().psk());
    }

    #[test]
    fn the_secret_half_is_not_in_the_debug_text() {
        let text = format!("{:?}", code());
        let secret: String = code().secret.iter().copied().map(char::from).collect();
        assert!(text.contains(&code().lookup()), "{text}");
        assert!(!text.contains(&secret[..8]), "{text}");
    }

    #[test]
    fn bytes_that_are_not_random_make_no_code() {
        assert_eq!(ConnectionCode::generate(&[0xff; CODE_RANDOM_BYTES]), Err(CodeError::NotRandom));
    }
}
