//! The name of one connection.

use std::fmt;

/// The name of one connection, as `connection_established` tells it and as publishers and auth endpoints repeat it.
///
/// Every server SDK refuses an id that does not match `^\d+\.\d+$`. Both parts are random: who knows the id can have
/// the connection left out of a publish and can ask an auth endpoint to sign for it, so it must not be guessable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    first: u64,
    second: u64,
}

impl SocketId {
    /// Makes an id from 16 random bytes, 104 bits of which are used.
    pub fn from_random(random: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(random);
        Self { first: (whole as u64) & PART_MASK, second: ((whole >> 64) as u64) & PART_MASK }
    }

    /// Reads an id of ours back.
    ///
    /// `None` says that no connection of Taut can have that name; it may still be [well formed](Self::is_well_formed).
    pub fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.split_once('.')?;
        Some(Self { first: parse_part(first)?, second: parse_part(second)? })
    }

    /// Whether the text has the form that every Pusher SDK asks for: digits, a dot, digits.
    pub fn is_well_formed(text: &str) -> bool {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.').is_some_and(|(first, second)| digits(first) && digits(second))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.first, self.second)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Exactly one spelling per id: `007.1` is not `7.1`.
fn parse_part(text: &str) -> Option<u64> {
    let canonical = text == "0" || (text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0'));
    text.parse().ok().filter(|part| canonical && *part <= PART_MASK)
}

/// 52 bits, so that a client that reads the parts as floating point numbers keeps every digit.
const PART_MASK: u64 = (1 << 52) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_reads_back_as_itself_and_satisfies_the_sdks(random: [u8; 16]) {
            let id = SocketId::from_random(random);
            let text = id.to_string();
            prop_assert!(SocketId::is_well_formed(&text));
            prop_assert_eq!(SocketId::parse(&text), Some(id));
            prop_assert!(id.first <= 1 << 53 && id.second <= 1 << 53);
        }
    }

    #[test]
    fn no_random_bit_within_the_parts_is_lost() {
        assert_eq!(SocketId::from_random([0xff; 16]).to_string(), "4503599627370495.4503599627370495");
        assert_eq!(SocketId::from_random([0; 16]).to_string(), "0.0");
    }

    #[test]
    fn only_digits_dot_digits_is_well_formed() {
        for good in ["1.2", "123.456", "99999999999999999999.1", "007.1"] {
            assert!(SocketId::is_well_formed(good), "{good}");
        }
        for bad in ["", ".", "1.", ".1", "1", "1.2.3", "1.2\n", " 1.2", "1.2:private-x", "-1.2", "+1.2", "1,2", "a.b"] {
            assert!(!SocketId::is_well_formed(bad), "{bad}");
            assert_eq!(SocketId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_foreign_id_is_well_formed_but_names_no_connection() {
        assert_eq!(SocketId::parse("99999999999999999999.1"), None);
        assert_eq!(SocketId::parse("4503599627370496.1"), None);
        assert_eq!(SocketId::parse("007.1"), None);
    }
}
