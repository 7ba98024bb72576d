//! What the application is asked, and what it may answer.

use std::time::Duration;

use super::Ended;

/// What to do after an attempt or a connection has ended, for [`Reconnecting::decide`](super::Reconnecting::decide).
///
/// Two attempts in a row are never made at once unless a connection that [lasted](super#how-long-it-waits) lies between
/// them: the second one waits as with [`Retry`](Self::Retry). So no answer of the server's makes a client spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Try again after the delay that [`Backoff`](super::Backoff) and the server's `Retry-After` give.
    Retry,
    /// Try again at once: the server has asked for it, or the next attempt goes elsewhere.
    RetryNow,
    /// Try again after this delay and no other; at least [`Backoff::floor`](super::Backoff::floor), 100 ms.
    RetryAfter(Duration),
    /// The credentials were not accepted: try again at once with a client that is made for it, and tell
    /// [the function that makes it](super::Reconnecting::new) so ([`Attempt::is_refresh`]). It counts as the same
    /// attempt.
    ///
    /// Gives up if fresh credentials were refused before a connection lasted, and if the client is always the same, as
    /// with [`Client::reconnecting`](crate::Client::reconnecting).
    Refresh,
    /// End: every call from now on returns what has ended the attempt or the connection.
    GiveUp,
}

/// An attempt to connect, for the function that makes its [`Client`](crate::Client); see
/// [`Reconnecting::new`](super::Reconnecting::new).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Its number, from 1 since the last connection that [lasted](super#how-long-it-waits). To try several servers in
    /// turn, take it modulo their number.
    pub number: u32,
    /// What ended the attempt or the connection before; `None` for the very first attempt.
    pub after: Option<Ended>,
    /// Whether the last credentials were not accepted ([`Decision::Refresh`]): a token that was kept must not be used
    /// again. It stays so until a client has been made.
    pub is_refresh: bool,
}

impl Ended {
    /// What is done unless the application [decides](super::Reconnecting::decide) otherwise: [`Decision::Refresh`]
    /// after a server's 401, [`Decision::Retry`] after what [is transient](Self::is_transient), else [`Decision::GiveUp`].
    pub fn decision(&self) -> Decision {
        match self {
            Self::Failed(error) if error.status() == Some(401) && !error.is_proxy() => Decision::Refresh,
            _ if self.is_transient() => Decision::Retry,
            _ => Decision::GiveUp,
        }
    }
}
