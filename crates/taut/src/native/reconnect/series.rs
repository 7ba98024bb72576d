//! What is remembered from one connection to the next: failed attempts, and messages that are still to be received.

use std::collections::VecDeque;
use std::time::Duration;

use taut_proto::Message;
use taut_proto::backoff::{Backoff, Reconnect};
use tokio::time::Instant;

use super::{Attempt, Decision, Ended};
use crate::Error;
use crate::error::Cause;

/// The attempts since the last connection that lasted.
pub(super) struct Series {
    reconnect: Reconnect,
    backoff: Backoff,
    /// How many have begun.
    pub(super) attempt: u32,
    /// When the first of them did, or when that connection was lost.
    pub(super) began: Option<Instant>,
    /// What ended the attempt or the connection before.
    last: Option<Ended>,
    /// The attempt began without a delay.
    is_at_once: bool,
    credentials: Credentials,
    /// The next attempt has the number of the last.
    is_repeated: bool,
}

impl Series {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            reconnect: Reconnect::new(backoff),
            backoff,
            attempt: 0,
            began: None,
            last: None,
            is_at_once: false,
            credentials: Credentials::Usual,
            is_repeated: false,
        }
    }

    /// The number of the next attempt.
    pub(super) fn next_number(&self) -> u32 {
        if self.is_repeated { self.attempt.max(1) } else { self.attempt.saturating_add(1) }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self) -> Attempt {
        self.attempt = self.next_number();
        self.is_repeated = false;
        self.began.get_or_insert_with(Instant::now);
        Attempt { number: self.attempt, after: self.last.clone(), is_refresh: self.credentials != Credentials::Usual }
    }

    /// The attempt's client was made.
    pub(super) fn has_client(&mut self) {
        if self.credentials == Credentials::AskedFor {
            self.credentials = Credentials::Fresh;
        }
    }

    /// The attempt has led to a connection.
    pub(super) fn opened(&mut self) {
        self.reconnect.opened();
    }

    /// The open connection ended; if it had lasted, another series begins.
    pub(super) fn ended_after(&mut self, uptime: Duration) {
        let had_failed = self.reconnect.attempt() > 0;
        self.reconnect.closed_after(uptime);
        let has_lasted = if had_failed { self.reconnect.attempt() == 0 } else { uptime >= self.backoff.stable };
        if has_lasted {
            self.attempt = 0;
            self.began = None;
            self.is_at_once = false;
            self.credentials = Credentials::Usual;
        }
    }

    /// The delay before the next attempt; `None` if there is to be none.
    pub(super) fn follow(&mut self, decision: Decision, ended: &Ended) -> Result<Option<Duration>, Error> {
        self.last = Some(ended.clone());
        let was_at_once = std::mem::take(&mut self.is_at_once);
        if decision == Decision::Refresh {
            if self.credentials != Credentials::Usual {
                return Ok(None);
            }
            self.credentials = Credentials::AskedFor;
            self.is_repeated = true;
        } else if self.credentials == Credentials::Fresh {
            self.credentials = Credentials::Usual;
        }
        Ok(match decision {
            Decision::GiveUp => None,
            Decision::RetryNow | Decision::Refresh if !was_at_once => {
                self.is_at_once = true;
                Some(Duration::ZERO)
            }
            Decision::RetryAfter(delay) => {
                // It counts, so that a later delay of the usual kind is as long as it should be.
                self.delay(ended)?;
                Some(delay.max(self.backoff.floor))
            }
            Decision::Retry | Decision::RetryNow | Decision::Refresh => Some(self.delay(ended)?),
        })
    }

    /// The usual delay.
    fn delay(&mut self, ended: &Ended) -> Result<Duration, Error> {
        let random = getrandom::u64().map_err(Cause::Random)?;
        Ok(match ended.retry_after() {
            Some(told) => self.reconnect.refused(random, told),
            None => self.reconnect.failed(random, ended.is_abnormal()),
        })
    }
}

/// The credentials of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Credentials {
    /// Nothing is known against them.
    Usual,
    /// The last ones were refused, and no client has been made since.
    AskedFor,
    /// Of a client that was made since.
    Fresh,
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
