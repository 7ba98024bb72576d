//! What a reconnecting client reports.

use std::fmt;
use std::time::Duration;

use taut_proto::{Close, CloseCode, Message};

use crate::error::{Cause, may_come_back};
use crate::{Error, WebSocket};

/// What ended an attempt to connect, or a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// The server closed the connection.
    Closed(Close),
    /// The attempt failed, or the connection did.
    Failed(Error),
}

impl Ended {
    /// Whether trying again may help: see [the module](super#what-is-retried).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Closed(close) => may_come_back(close),
            Self::Failed(error) => error.is_transient(),
        }
    }

    /// The close code: the server's, 1006 for a connection that broke, the one that the server was sent when it broke
    /// the protocol. `None` when there was no connection.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed(close) => Some(close.code()),
            Self::Failed(error) => error.close_code(),
        }
    }

    /// The HTTP status of a handshake that failed.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Closed(_) => None,
            Self::Failed(error) => error.status(),
        }
    }

    /// Whether all of the server's clients are likely to have lost their connections in the same instant
    /// (RFC 6455 §7.2.3).
    pub(super) fn is_abnormal(&self) -> bool {
        match self {
            Self::Closed(close) => matches!(close.code().as_u16(), 1001 | 1006 | 1011..=1014),
            Self::Failed(error) => error.close_code() == Some(CloseCode::ABNORMAL),
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Closed(_) => None,
            Self::Failed(error) => error.retry_after(),
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Closed(close) => Cause::ClosedBy(close).into(),
            Self::Failed(error) => error,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(close) => write!(f, "the server closed the connection: {close}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// A change in a [`Reconnecting`](super::Reconnecting), for [`on_event`](super::Reconnecting::on_event).
///
/// An attempt or a connection that ends is reported as [`Failed`](Self::Failed) or [`Lost`](Self::Lost); then comes
/// what follows: [`Refreshing`](Self::Refreshing), [`Waiting`](Self::Waiting), [`GaveUp`](Self::GaveUp), or at once
/// [`Connecting`](Self::Connecting). Attempts are counted from 1 since the last connection that lasted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An attempt begins; with fresh credentials it begins once more under the same number.
    Connecting {
        /// Its number.
        attempt: u32,
    },
    /// The credentials were not accepted; the next attempt is made with fresh ones
    /// ([`Decision::Refresh`](super::Decision::Refresh)).
    Refreshing,
    /// There is a connection, and the hook is done.
    Open {
        /// The number of the attempt that led to it.
        attempt: u32,
    },
    /// The connection is gone.
    Lost(Ended),
    /// The attempt failed.
    Failed(Error),
    /// The next attempt is waited for.
    Waiting {
        /// For how long.
        delay: Duration,
        /// The number of the attempt that follows.
        attempt: u32,
    },
    /// It has ended, since trying again cannot help or is not wanted: the error that every call gives from now on.
    GaveUp(Error),
    /// It was [closed](super::Reconnecting::close) by us.
    Closed,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { attempt } => write!(f, "connecting, attempt {attempt}"),
            Self::Refreshing => f.write_str("asking for fresh credentials"),
            Self::Open { .. } => f.write_str("connected"),
            Self::Lost(ended) => write!(f, "connection lost: {ended}"),
            Self::Failed(error) => write!(f, "not connected: {error}"),
            Self::Waiting { delay, attempt } => write!(f, "waiting {delay:.1?} before attempt {attempt}"),
            Self::GaveUp(error) => write!(f, "given up: {error}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// What comes next on a [`Reconnecting`](super::Reconnecting), from [`next`](super::Reconnecting::next).
#[derive(Debug)]
pub enum Next<'a> {
    /// A connection was opened, and nothing has been received on it: the place to subscribe, or to ask for what was
    /// missed. When that fails, call [`reconnect`](super::Reconnecting::reconnect).
    Opened(&'a mut WebSocket),
    /// A message.
    Message(Message<'static>),
}

/// What a [`Reconnecting`](super::Reconnecting) is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Connecting, or about to; making the client for it, or in the hook.
    Connecting,
    /// There is a connection, unless it was lost and nobody has looked yet.
    Open,
    /// Waiting before the next attempt.
    Waiting,
    /// Closed, or given up.
    Over,
}
