//! The buffers of a connection: what waits on it, and what its thread lends it, so that an idle connection owns none.

mod inbox;
mod recycled;

use std::cell::Cell;

use taut_proto::{Input, Outbox, Part, Scratch, Time};

pub(crate) use inbox::{Bounds, Inbox};
pub(crate) use recycled::{Recycled, SHORT};

/// One thread's buffers and compressors, lent to a connection while its driver works.
pub(crate) struct ThreadBuffers {
    /// Mask keys and compressors.
    pub(crate) scratch: Scratch,
    /// Receives the bytes of one read, which are parsed before anything else is done.
    pub(crate) read: Box<[u8]>,
    /// Empty, with capacity.
    queues: Option<Box<Queues>>,
    inbox: Option<Box<Inbox>>,
}

impl ThreadBuffers {
    /// Lends this thread's buffers. They are never lent across an await: `work` is not a future.
    ///
    /// They are moved out meanwhile. A stream that is itself a connection of ours finds none and gets new ones, instead
    /// of the same ones twice.
    pub(crate) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut buffers = BUFFERS.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let result = work(&mut buffers);
        // A thread that is about to end has no place to put them back to; then they are dropped.
        let _ = BUFFERS.try_with(|place| place.set(Some(buffers)));
        result
    }

    /// The connection's queues, or empty ones with capacity.
    pub(crate) fn fill_in<'q>(&mut self, queues: &'q mut Option<Box<Queues>>) -> &'q mut Queues {
        queues.get_or_insert_with(|| self.take_queues())
    }

    /// Empty queues with capacity.
    pub(crate) fn take_queues(&mut self) -> Box<Queues> {
        self.queues.take().unwrap_or_default()
    }

    /// Keeps the memory of queues that are empty.
    pub(crate) fn recycle_queues(queues: Option<Box<Queues>>) {
        let Some(queues) = queues.filter(|queues| queues.capacity() <= KEPT) else { return };
        Self::with(|buffers| buffers.queues = Some(queues));
    }

    /// An empty inbox with capacity.
    pub(crate) fn take_inbox(&mut self) -> Box<Inbox> {
        self.inbox.take().unwrap_or_default()
    }

    /// Keeps the memory of an inbox that is empty.
    pub(crate) fn recycle_inbox(inbox: &mut Option<Box<Inbox>>) {
        let Some(inbox) = inbox.take().filter(|inbox| inbox.capacity() <= KEPT) else { return };
        Self::with(|buffers| buffers.inbox = Some(inbox));
    }
}

impl Default for ThreadBuffers {
    fn default() -> Self {
        Self { scratch: Scratch::new(fill), read: vec![0; READ].into_boxed_slice(), queues: None, inbox: None }
    }
}

thread_local! {
    static BUFFERS: Cell<Option<Box<ThreadBuffers>>> = const { Cell::new(None) };
}

/// Mask keys, from the operating system's generator, 1 KiB at a time (RFC 6455 §10.3: unpredictable).
fn fill(bytes: &mut [u8]) {
    // Every connection drew from it when it was opened and would not be here without. There is nothing to fall back to:
    // a predictable key is worse than none.
    getrandom::fill(bytes).expect("the operating system gave random numbers before and must go on");
}

/// What waits on one connection: to be written, parsed or received.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// For the stream.
    pub(crate) outbox: Outbox,
    /// For `recv`.
    pub(crate) inbox: Inbox,
    /// Comes after what is in the inbox.
    pub(crate) unparsed: Unparsed,
    /// For `recv_stream`.
    pub(crate) part: Option<Part<'static>>,
}

impl Queues {
    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.inbox.is_empty() && self.unparsed.is_empty() && self.part.is_none()
    }

    /// How much waits to be received: messages and a part.
    pub(crate) fn received(&self) -> usize {
        self.inbox.len() + usize::from(self.part.is_some())
    }

    /// The next part; a message that was received whole is one part.
    pub(crate) fn pop_part(&mut self) -> Option<Part<'static>> {
        self.part.take().or_else(|| self.inbox.pop_part())
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.outbox.capacity() + self.inbox.capacity() + self.unparsed.capacity()
    }
}

/// Bytes that were read but not parsed: they came with the handshake, or the inbox had no room.
#[derive(Debug, Default)]
pub(crate) struct Unparsed {
    bytes: Vec<u8>,
    /// Where they begin.
    first: usize,
    /// When they came.
    now: Time,
    /// Pings that were met in the same read.
    pings: u32,
}

impl Unparsed {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Keeps the rest of a read.
    pub(crate) fn keep(&mut self, bytes: &[u8], now: Time, pings: u32) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        (self.first, self.now, self.pings) = (0, now, pings);
    }

    /// Lends the bytes to `parse`, which may leave some.
    pub(crate) fn parse<'u, T>(&'u mut self, parse: impl FnOnce(&mut Input<'u>, Time) -> T) -> T {
        let Self { bytes, first, now, pings, .. } = self;
        let length = bytes.len();
        let mut input = Input::new(&mut bytes[*first..]).after_pings(*pings);
        let result = parse(&mut input, *now);
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

/// Bytes of one read; room for a few messages of 16 KiB, with their headers.
const READ: usize = 128 << 10;

/// Bytes of queues or of an inbox that a thread keeps for the next connection.
const KEPT: usize = 256 << 10;
