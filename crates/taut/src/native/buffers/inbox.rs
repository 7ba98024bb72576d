//! Received messages that wait for `recv`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use taut_proto::{Message, Part};

use super::recycled::{Recycled, SHORT};

/// How much may wait.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Bytes to be written with which no further message is accepted; 1 MiB.
    pub(crate) outgoing: usize,
    /// Received messages that wait for `recv`; 1,024.
    pub(crate) messages: usize,
    /// And their bytes; 1 MiB. The last may exceed it.
    pub(crate) bytes: usize,
    /// Bytes that have to be missing from a message for a read into its own buffer; 16 KiB. Fewer are read together
    /// with what follows them.
    pub(crate) direct: usize,
}

impl Bounds {
    /// What holds for every connection outside of tests.
    pub(crate) const STANDARD: Self = Self { outgoing: 1 << 20, messages: 1024, bytes: 1 << 20, direct: 16 << 10 };
}

/// Received messages that wait for `recv`.
///
/// Short ones are stored back to back and copied into memory of their own when they are received: that of a message
/// that was sent, if there is one, or a block from the allocator, which hands out a block that has just come back at a
/// fraction of the cost of sixteen that are held at once.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    entries: VecDeque<Entry>,
    /// Payload bytes.
    bytes: usize,
    texts: String,
    binaries: Vec<u8>,
    large: VecDeque<Message<'static>>,
    /// Where in each the first message that waits begins.
    first_text: usize,
    first_binary: usize,
    recycled: Recycled,
}

/// Where a message is. Two words, which are read as they were written: a larger one is copied in other pieces than it
/// was written in, and the processor waits for that.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// So many bytes of `texts`.
    Text(usize),
    /// So many bytes of `binaries`.
    Binary(usize),
    /// The next of `large`.
    Large,
}

impl Inbox {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn has_room(&self, bounds: &Bounds) -> bool {
        self.entries.len() < bounds.messages && self.bytes < bounds.bytes
    }

    pub(crate) fn push(&mut self, message: Message<'_>) {
        let length = message.as_bytes().len();
        self.bytes += length;
        let is_short = length <= SHORT;
        let entry = match message {
            Message::Text(Cow::Borrowed(text)) if is_short => {
                self.texts.push_str(text);
                Entry::Text(length)
            }
            Message::Binary(Cow::Borrowed(bytes)) if is_short => {
                self.binaries.extend_from_slice(bytes);
                Entry::Binary(length)
            }
            message => {
                self.large.push_back(message.into_owned());
                Entry::Large
            }
        };
        self.entries.push_back(entry);
    }

    /// Pushes a message without copying it, however short.
    pub(crate) fn push_own(&mut self, message: Message<'static>) {
        self.bytes += message.as_bytes().len();
        self.large.push_back(message);
        self.entries.push_back(Entry::Large);
    }

    /// The next message; a short one reuses the memory of one that was sent.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Message<'static>> {
        self.pop_with(|message, recycled| recycled.owned(message))
    }

    /// Lends the next message, so that a short one needs no allocation.
    #[inline]
    pub(crate) fn pop_with<T>(&mut self, receive: impl FnOnce(Message<'_>, &mut Recycled) -> T) -> Option<T> {
        let message = match self.entries.pop_front()? {
            Entry::Text(length) => Message::from(&self.texts[taken(&mut self.first_text, length)]),
            Entry::Binary(length) => Message::from(&self.binaries[taken(&mut self.first_binary, length)]),
            Entry::Large => self.large.pop_front()?,
        };
        self.bytes -= message.as_bytes().len();
        let received = receive(message, &mut self.recycled);
        self.tidy_up();
        Some(received)
    }

    /// The next message, as a single part.
    pub(crate) fn pop_part(&mut self) -> Option<Part<'static>> {
        let message = self.pop()?;
        let is_text = message.as_text().is_some();
        Some(Part { payload: Cow::Owned(message.into_bytes()), is_text, is_last: true })
    }

    /// Keeps the memory of a sent message for the next to be received.
    #[inline]
    pub(crate) fn keep(&mut self, message: &mut Message<'_>) {
        self.recycled.keep(message);
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<Entry>() + self.large.capacity() * size_of::<Message<'_>>();
        self.texts.capacity() + self.binaries.capacity() + entries + self.recycled.capacity()
    }

    /// Frees the space of messages that were received: at once if none waits, otherwise when much has gathered.
    #[inline]
    fn tidy_up(&mut self) {
        if self.entries.is_empty() || self.first_text.max(self.first_binary) > TIDY {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.texts.drain(..self.first_text);
        self.binaries.drain(..self.first_binary);
        (self.first_text, self.first_binary) = (0, 0);
    }
}

/// The next `length` bytes, and moves past them.
fn taken(first: &mut usize, length: usize) -> Range<usize> {
    let start = *first;
    *first += length;
    start..*first
}

/// Bytes of received messages that gather before those that wait are moved to the front.
const TIDY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_bounded_by_bytes() {
        let mut inbox = Inbox::default();
        while inbox.has_room(&Bounds::STANDARD) {
            inbox.push(Message::from(vec![0; 300 << 10]));
        }
        assert_eq!(inbox.len(), 4);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(acts in prop::collection::vec((any::<bool>(), any::<bool>(), 0..3000_usize), 0..200)) {
            let mut inbox = Inbox::default();
            let mut expected = VecDeque::new();
            for (number, (is_push, is_text, length)) in acts.into_iter().enumerate() {
                if is_push {
                    let payload = vec![b'a' + (number % 26) as u8; length];
                    let message = if is_text { String::from_utf8(payload).unwrap().into() } else { Message::from(payload) };
                    // Lent, as the driver has it.
                    inbox.push(match &message {
                        Message::Text(text) => Message::from(&**text),
                        Message::Binary(bytes) => Message::from(&**bytes),
                    });
                    expected.push_back(message);
                } else {
                    prop_assert_eq!(inbox.pop(), expected.pop_front());
                }
                prop_assert_eq!(inbox.len(), expected.len());
                prop_assert_eq!(inbox.bytes, expected.iter().map(|message| message.as_bytes().len()).sum::<usize>());
            }
        }

        #[test]
        fn what_was_received_does_not_stay(length in 1..1000_usize) {
            let mut inbox = Inbox::default();
            let text = "x".repeat(length);
            inbox.push(Message::from(&*text));
            // Never empty, for longer than it takes to fill what may be held.
            for _ in 0..(4 * TIDY) / length {
                inbox.push(Message::from(&*text));
                inbox.pop();
            }
            prop_assert!(inbox.capacity() < 4 * TIDY, "{}", inbox.capacity());
        }
    }
}
