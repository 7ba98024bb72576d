//! Bytes that were read and are still to be parsed.

use taut_proto::{Input, Time};

/// Bytes that were read and are still to be parsed: they came with the handshake, or the inbox had no room.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    /// Where they begin.
    first: usize,
    /// When they came.
    now: Time,
    /// Pings that were met in the same read.
    pings: u32,
}

impl Unread {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Keeps what nobody has room for.
    pub(crate) fn keep(&mut self, bytes: &[u8], now: Time, pings: u32) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        (self.first, self.now, self.pings) = (0, now, pings);
    }

    /// Has `read` use some of the bytes.
    pub(crate) fn read<'u, T>(&'u mut self, read: impl FnOnce(&mut Input<'u>, Time) -> T) -> T {
        let Self { bytes, first, now, pings, .. } = self;
        let length = bytes.len();
        let mut input = Input::new(&mut bytes[*first..]).after_pings(*pings);
        let result = read(&mut input, *now);
        (*first, *pings) = (length - input.len(), input.pings());
        result
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.bytes.len()
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
