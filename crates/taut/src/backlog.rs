//! What waits on one connection.

use taut_proto::{Outbox, Part};

use crate::inbox::Inbox;
use crate::unread::Unread;

/// What waits on one connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// For the stream.
    pub(crate) outbox: Outbox,
    /// For `recv`.
    pub(crate) inbox: Inbox,
    /// Behind what is in the inbox.
    pub(crate) unread: Unread,
    /// For whoever receives in parts.
    pub(crate) part: Option<Part<'static>>,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.inbox.is_empty() && self.unread.is_empty() && self.part.is_none()
    }

    /// The next part; a message that was received whole is one.
    pub(crate) fn pop_part(&mut self) -> Option<Part<'static>> {
        self.part.take().or_else(|| self.inbox.pop_part())
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.outbox.capacity() + self.inbox.capacity() + self.unread.capacity()
    }
}
