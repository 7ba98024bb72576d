//! What a thread lends its connections while it works on one of them, so that an idle connection owns no buffer.

use std::cell::Cell;

use taut_proto::Scratch;

use crate::backlog::Backlog;
use crate::inbox::Inbox;

/// One thread's buffers and compressors.
pub(crate) struct Loan {
    /// Mask keys and compressors.
    pub(crate) scratch: Scratch,
    /// What is read goes here, to be parsed before anything else is done.
    pub(crate) buffer: Box<[u8]>,
    /// Empty ones with room.
    backlog: Option<Box<Backlog>>,
    inbox: Option<Box<Inbox>>,
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

    /// The connection's backlog, or an empty one with room.
    pub(crate) fn lend<'b>(&mut self, backlog: &'b mut Option<Box<Backlog>>) -> &'b mut Backlog {
        backlog.get_or_insert_with(|| self.backlog())
    }

    /// An empty backlog with room.
    pub(crate) fn backlog(&mut self) -> Box<Backlog> {
        self.backlog.take().unwrap_or_default()
    }

    /// Keeps the room of a backlog in which nothing waits any more.
    pub(crate) fn take_back(backlog: Option<Box<Backlog>>) {
        let Some(backlog) = backlog.filter(|backlog| backlog.capacity() <= KEPT) else { return };
        Self::with(|loan| loan.backlog = Some(backlog));
    }

    /// An empty inbox with room.
    pub(crate) fn inbox(&mut self) -> Box<Inbox> {
        self.inbox.take().unwrap_or_default()
    }

    /// Keeps the room of an inbox in which nothing waits any more.
    pub(crate) fn take_back_inbox(inbox: &mut Option<Box<Inbox>>) {
        let Some(inbox) = inbox.take().filter(|inbox| inbox.capacity() <= KEPT) else { return };
        Self::with(|loan| loan.inbox = Some(inbox));
    }
}

impl Default for Loan {
    fn default() -> Self {
        Self { scratch: Scratch::new(fill), buffer: vec![0; READ].into_boxed_slice(), backlog: None, inbox: None }
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

/// Bytes of one read; room for a few messages of 16 KiB, with their headers.
const READ: usize = 128 << 10;

/// Bytes of a backlog or of an inbox that a thread keeps for the next connection.
const KEPT: usize = 256 << 10;
