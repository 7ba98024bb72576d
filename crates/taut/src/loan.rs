//! What a thread lends its connections while it works on one of them, so that an idle connection owns no buffer.

use std::cell::Cell;
use std::collections::VecDeque;

use taut_proto::{Message, Outbox, Scratch};

/// One thread's buffers and compressors.
pub(crate) struct Loan {
    /// Mask keys and compressors.
    pub(crate) scratch: Scratch,
    /// What is read goes here, to be parsed before anything else is done.
    pub(crate) buffer: Box<[u8]>,
    /// An empty outbox with room.
    outbox: Outbox,
    /// An empty queue with room.
    messages: VecDeque<Message<'static>>,
}

impl Loan {
    /// Lends this thread's. It is never lent across an await: `work` is no future.
    ///
    /// It is moved out meanwhile, so a stream that is itself a connection of ours finds none, and gets a new one,
    /// instead of the same one twice.
    pub(crate) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut loan = LOAN.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let result = work(&mut loan);
        // In a thread that is about to end there is no place to put it back to; then it is dropped.
        let _ = LOAN.try_with(|place| place.set(Some(loan)));
        result
    }

    /// Gives room to an outbox that has none.
    pub(crate) fn lend_outbox(&mut self, outbox: &mut Outbox) {
        if outbox.capacity() == 0 {
            std::mem::swap(outbox, &mut self.outbox);
        }
    }

    /// Takes the room of an outbox that is empty.
    pub(crate) fn return_outbox(&mut self, outbox: &mut Outbox) {
        if outbox.is_empty() && outbox.capacity() > 0 {
            let returned = std::mem::take(outbox);
            if returned.capacity() <= KEPT {
                self.outbox = returned;
            }
        }
    }

    /// Gives room to a queue that has none.
    pub(crate) fn lend_messages(&mut self, messages: &mut VecDeque<Message<'static>>) {
        if messages.capacity() == 0 {
            std::mem::swap(messages, &mut self.messages);
        }
    }

    /// Takes the room of a queue that is empty.
    pub(crate) fn return_messages(&mut self, messages: &mut VecDeque<Message<'static>>) {
        if messages.is_empty() && messages.capacity() > 0 {
            self.messages = std::mem::take(messages);
        }
    }
}

impl Default for Loan {
    fn default() -> Self {
        Self {
            scratch: Scratch::new(fill),
            buffer: vec![0; READ].into_boxed_slice(),
            outbox: Outbox::new(),
            messages: VecDeque::new(),
        }
    }
}

thread_local! {
    static LOAN: Cell<Option<Box<Loan>>> = const { Cell::new(None) };
}

/// Mask keys, from the generator of the operating system, 1 KiB at a time (RFC 6455 §10.3: unpredictable).
fn fill(bytes: &mut [u8]) {
    // Every connection drew from it when it was opened and would not be here without. There is nothing to fall back to:
    // a predictable key is worse than none.
    getrandom::fill(bytes).expect("the operating system gave random numbers before and must go on");
}

/// Bytes of one read.
const READ: usize = 64 << 10;

/// Bytes of an outbox that a thread keeps for the next connection.
const KEPT: usize = 256 << 10;
