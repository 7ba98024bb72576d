//! What is remembered from one connection to the next: failed attempts, and messages that are still to be received.

use std::collections::VecDeque;
use std::time::Duration;

use taut_proto::Message;
use taut_proto::backoff::{Backoff, Reconnect};
use tokio::time::Instant;

use super::Ended;
use crate::Error;
use crate::error::Cause;

/// The attempts since the last connection that lasted.
pub(super) struct Series {
    pub(super) reconnect: Reconnect,
    /// [`Backoff::stable`].
    stable: Duration,
    /// How many have begun.
    pub(super) attempt: u32,
    /// When the first of them did, or when that connection was lost.
    pub(super) began: Option<Instant>,
    /// The credentials are fresh and nothing but a 401 has been the answer to them.
    pub(super) is_refreshed: bool,
}

impl Series {
    pub(super) fn new(backoff: Backoff) -> Self {
        let reconnect = Reconnect::new(backoff);
        Self { reconnect, stable: backoff.stable, attempt: 0, began: None, is_refreshed: false }
    }

    /// The open connection ended; if it had lasted, another series begins.
    pub(super) fn ended_after(&mut self, uptime: Duration) {
        let had_failed = self.reconnect.attempt() > 0;
        self.reconnect.closed_after(uptime);
        let has_lasted = if had_failed { self.reconnect.attempt() == 0 } else { uptime >= self.stable };
        if has_lasted {
            self.attempt = 0;
            self.began = None;
        }
    }

    /// The delay before the next attempt.
    pub(super) fn delay(&mut self, ended: &Ended) -> Result<Duration, Error> {
        let random = getrandom::u64().map_err(Cause::Random)?;
        Ok(match ended.retry_after() {
            Some(told) => self.reconnect.refused(random, told),
            None => self.reconnect.failed(random, ended.is_abnormal()),
        })
    }
}

/// Messages of a connection that is gone, as many as a connection keeps.
#[derive(Default)]
pub(super) struct KeptMessages {
    messages: VecDeque<Message<'static>>,
    bytes: usize,
}

impl KeptMessages {
    pub(super) fn has_room(&self) -> bool {
        self.messages.len() < KEPT_MESSAGES && self.bytes < KEPT_BYTES
    }

    pub(super) fn push(&mut self, message: Message<'static>) {
        self.bytes += message.as_bytes().len();
        self.messages.push_back(message);
    }

    pub(super) fn pop(&mut self) -> Option<Message<'static>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.as_bytes().len();
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        Some(message)
    }
}

/// Messages that are kept of a connection that is gone.
const KEPT_MESSAGES: usize = 1024;

/// And their bytes.
const KEPT_BYTES: usize = 1 << 20;
