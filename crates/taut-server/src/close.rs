//! Why the server closes connections, and what it refuses without closing them: codes, and the words that begin each reason.

use std::fmt::Display;

use taut_proto::{Close, CloseCode};

/// A reason to close a connection. Clients do not come back after 4000 to 4099, come back a second later after 4100 to 4199, and
/// at once after 4200 to 4299.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    code: u16,
    text: &'static str,
}

impl Reason {
    pub(crate) const NO_SUCH_APP: Self = Self::new(4001, "Application does not exist");
    pub(crate) const APP_DISABLED: Self = Self::new(4003, "Application disabled");
    pub(crate) const OVER_QUOTA: Self = Self::new(4004, "Application is over connection quota");
    pub(crate) const PATH_NOT_FOUND: Self = Self::new(4005, "Path not found");
    pub(crate) const INVALID_VERSION: Self = Self::new(4006, "Invalid version string format");
    pub(crate) const UNSUPPORTED_VERSION: Self = Self::new(4007, "Unsupported protocol version");
    pub(crate) const ORIGIN_NOT_ALLOWED: Self = Self::new(4009, "Origin not allowed");
    /// The client has neither signed in nor subscribed to a private channel in time.
    pub(crate) const NOT_AUTHORIZED: Self = Self::new(4009, "Connection not authorized within timeout");
    pub(crate) const UNAUTHORIZED: Self = Self::new(4009, "Connection is unauthorized");
    /// There is no room for the client, or for what is to be sent to it.
    pub(crate) const OVER_CAPACITY: Self = Self::new(4100, "Over capacity");
    /// The server goes down. After 4200 pusher-js comes back in the same instant, finds nobody where there is one server that
    /// restarts, and waits out a timer of 15 seconds; after a code of this hundred it comes a second later.
    pub(crate) const GOING_DOWN: Self = Self::new(4100, "The server is going down: please reconnect");
    pub(crate) const PONG_NOT_RECEIVED: Self = Self::new(4201, "Pong reply not received");

    const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text }
    }

    /// The code alone.
    pub(crate) const fn code(self) -> CloseCode {
        CloseCode::new(self.code)
    }

    /// A close for this reason.
    pub(crate) fn close(self) -> Close {
        Close::new(self.code(), self.text)
    }

    /// A close for this reason that says what exactly is wrong.
    pub(crate) fn because(self, details: impl Display) -> Close {
        Close::new(self.code(), format!("{}: {details}", self.text))
    }
}

/// The code of a client event that is refused; its connection stays.
pub(crate) const CLIENT_EVENT_REJECTED: u16 = 4301;

/// The code of a watchlist that is too long; its connection stays.
pub(crate) const WATCHLIST_EXCEEDED: u16 = 4302;
