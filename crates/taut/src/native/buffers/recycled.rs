//! Reuses the memory of a message that was sent for the next that is received.
//!
//! A loop that answers each message would otherwise free and allocate the same number of bytes over and over.

use std::borrow::Cow;

use taut_proto::Message;

/// The memory of a short text and of a short binary message.
#[derive(Debug, Default)]
pub(crate) struct Recycled {
    text: String,
    binary: Vec<u8>,
}

impl Recycled {
    /// Takes the memory of a message that was sent, which is empty afterwards.
    #[inline]
    pub(crate) fn keep(&mut self, message: &mut Message<'_>) {
        match message {
            Message::Text(Cow::Owned(text)) if text.capacity() <= SHORT => {
                self.text = std::mem::take(text);
                self.text.clear();
            }
            Message::Binary(Cow::Owned(bytes)) if bytes.capacity() <= SHORT => {
                self.binary = std::mem::take(bytes);
                self.binary.clear();
            }
            message => *message = Message::Binary(Cow::Borrowed(&[])),
        }
    }

    /// Makes a message owned; a short one reuses recycled memory, unless that is far too large.
    #[inline]
    pub(crate) fn owned(&mut self, message: Message<'_>) -> Message<'static> {
        match message {
            Message::Text(Cow::Borrowed(text)) if fits(self.text.capacity(), text.len()) => {
                let mut own = std::mem::take(&mut self.text);
                own.push_str(text);
                own.into()
            }
            Message::Binary(Cow::Borrowed(bytes)) if fits(self.binary.capacity(), bytes.len()) => {
                let mut own = std::mem::take(&mut self.binary);
                own.extend_from_slice(bytes);
                own.into()
            }
            message => message.into_owned(),
        }
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity() + self.binary.capacity()
    }
}

/// Whether a message fits and does not waste much: the application may keep it for long.
fn fits(capacity: usize, length: usize) -> bool {
    capacity >= length && capacity <= WASTED + 2 * length
}

/// Bytes up to which a message is short: copying it once more is cheaper than allocating, and its memory is reused.
/// For longer ones the allocator's share in the cost is small.
pub(crate) const SHORT: usize = 1 << 10;

/// Bytes that a message may waste, in addition to its own length.
const WASTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(message: &Message<'_>) -> *const u8 {
        message.as_bytes().as_ptr()
    }

    #[test]
    fn the_memory_of_a_message_that_was_sent_is_that_of_the_next_received() {
        for lent in [Message::from("a short text"), Message::from(&b"and some bytes"[..])] {
            let mut recycled = Recycled::default();
            let mut first = recycled.owned(lent.clone());
            assert_eq!(first, lent);
            let before = place(&first);
            recycled.keep(&mut first);
            assert_ne!(place(&first), before, "nothing is left of it");
            let second = recycled.owned(lent.clone());
            assert_eq!((&second, place(&second)), (&lent, before));
            assert_ne!(place(&recycled.owned(lent)), before, "it is somebody's");
        }
    }

    #[test]
    fn no_message_keeps_far_more_memory_than_it_needs() {
        let mut recycled = Recycled::default();
        recycled.keep(&mut Message::from("x".repeat(1000)));
        let Message::Text(Cow::Owned(short)) = recycled.owned(Message::from("short")) else { panic!() };
        assert!(short.capacity() <= WASTED + 2 * "short".len());
        recycled.keep(&mut Message::from(vec![0; 2 * SHORT]));
        assert_eq!(recycled.binary.capacity(), 0, "a large one is given back at once");
    }
}
