//! The memory of a message that was sent, for the next that is received.
//!
//! A loop that answers each message would ask the allocator for as many bytes as it has just given back, over and over.

use std::borrow::Cow;

use taut_proto::Message;

/// The memory of a short text and of a short binary message.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    text: String,
    binary: Vec<u8>,
}

impl Spare {
    /// Keeps the memory of a message that was sent; nothing is left of it.
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

    /// A message of its own; a short one in the memory of one that was sent, if that is not far too large.
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

/// Whether a message fits and keeps not much more memory than it needs, as might whoever keeps the message.
fn fits(capacity: usize, length: usize) -> bool {
    capacity >= length && capacity <= WASTED + 2 * length
}

/// Bytes of a message whose memory is kept. Beyond it the allocator's share in the cost of a message is small.
pub(crate) const SHORT: usize = 1 << 10;

/// Bytes that a message may hold in vain, besides as many as its own.
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
            let mut spare = Spare::default();
            let mut first = spare.owned(lent.clone());
            assert_eq!(first, lent);
            let before = place(&first);
            spare.keep(&mut first);
            assert_ne!(place(&first), before, "nothing is left of it");
            let second = spare.owned(lent.clone());
            assert_eq!((&second, place(&second)), (&lent, before));
            assert_ne!(place(&spare.owned(lent)), before, "it is somebody's");
        }
    }

    #[test]
    fn no_message_keeps_far_more_memory_than_it_needs() {
        let mut spare = Spare::default();
        spare.keep(&mut Message::from("x".repeat(1000)));
        let Message::Text(Cow::Owned(short)) = spare.owned(Message::from("short")) else { panic!() };
        assert!(short.capacity() <= WASTED + 2 * "short".len());
        spare.keep(&mut Message::from(vec![0; 2 * SHORT]));
        assert_eq!(spare.binary.capacity(), 0, "a large one is given back at once");
    }
}
