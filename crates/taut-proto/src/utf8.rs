//! UTF-8 across chunk borders: a bad byte is found in the chunk that brings it (RFC 6455 §8.1).

use crate::Violation;

/// What is carried from one chunk to the next: at most three bytes of an unfinished character.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    carry: [u8; 4],
    carried: u8,
}

impl Utf8 {
    /// Checks the next chunk of a text and hands on what has become whole characters by it. Every byte is looked at
    /// once.
    pub(crate) fn check(&mut self, mut chunk: &[u8], mut whole: impl FnMut(&str)) -> Result<(), Violation> {
        while self.carried > 0 {
            let Some((&next, rest)) = chunk.split_first() else { return Ok(()) };
            chunk = rest;
            self.carry[usize::from(self.carried)] = next;
            self.carried += 1;
            match std::str::from_utf8(&self.carry[..usize::from(self.carried)]) {
                Ok(character) => {
                    self.carried = 0;
                    whole(character);
                }
                // No error length: the character may still be finished by the next byte.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::InvalidUtf8),
            }
        }
        let (characters, unfinished) = chunk.split_at(chunk.len() - unfinished(chunk));
        whole(text(characters)?);
        // No error length: its end may come with the next chunk.
        if std::str::from_utf8(unfinished).is_err_and(|error| error.error_len().is_some()) {
            return Err(Violation::InvalidUtf8);
        }
        self.carry[..unfinished.len()].copy_from_slice(unfinished);
        self.carried = unfinished.len() as u8;
        Ok(())
    }

    /// The beginning of a character whose end has not come.
    pub(crate) fn carried(&self) -> &[u8] {
        &self.carry[..usize::from(self.carried)]
    }

    /// Checks that the text does not end inside a character.
    pub(crate) fn finish(self) -> Result<(), Violation> {
        if self.carried == 0 { Ok(()) } else { Err(Violation::InvalidUtf8) }
    }
}

/// The whole text at once.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::InvalidUtf8)
}

/// How many bytes at the end look like the beginning of a character whose end is missing.
fn unfinished(chunk: &[u8]) -> usize {
    let behind = chunk.iter().rev().take(3).take_while(|&byte| byte & 0xc0 == 0x80).count();
    let length = match chunk.iter().rev().nth(behind) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 0,
    };
    if behind + 1 < length { behind + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked_in_parts(bytes: &[u8], sizes: &[usize]) -> Result<String, Violation> {
        let mut utf8 = Utf8::default();
        let mut whole = String::new();
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            utf8.check(chunk, |characters| whole.push_str(characters))?;
            rest = tail;
        }
        utf8.finish().map(|()| whole)
    }

    proptest! {
        // RFC 6455 §8.1: a fragment may end inside a character; the whole message is what must be UTF-8.
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(bytes: Vec<u8>, sizes in prop::collection::vec(1_usize..9, 1..9)) {
            prop_assert_eq!(checked_in_parts(&bytes, &sizes).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }

        #[test]
        fn any_split_of_valid_text_is_valid(text: String, sizes in prop::collection::vec(1_usize..9, 1..9)) {
            prop_assert_eq!(checked_in_parts(text.as_bytes(), &sizes), Ok(text));
        }
    }

    // RFC 6455 §8.1: the connection fails at the bad byte; a client need not send the rest of the message.
    #[test]
    fn a_surrogate_is_refused_at_its_second_byte() {
        let mut utf8 = Utf8::default();
        assert!(utf8.check(b"\xed", |_| {}).is_ok());
        assert!(utf8.check(b"\xa0", |_| {}).is_err());
    }
}
