//! What waits on one connection.

use std::borrow::Cow;

use taut_proto::{Outbox, Part};

use crate::inbox::Inbox;
use crate::spare::Spare;
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
    /// Waits for nothing; it is memory of messages that were sent.
    pub(crate) spare: Spare,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.inbox.is_empty() && self.unread.is_empty() && self.part.is_none()
    }

    /// The next part; a message that was received whole is one.
    pub(crate) fn pop_part(&mut self) -> Option<Part<'static>> {
        self.part.take().or_else(|| {
            let message = self.inbox.pop()?;
            let is_text = message.as_text().is_some();
            Some(Part { payload: Cow::Owned(message.into_bytes()), is_text, is_last: true })
        })
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.outbox.capacity() + self.inbox.capacity() + self.unread.capacity() + self.spare.capacity()
    }
}
