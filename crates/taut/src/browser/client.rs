//! What to connect to and how.

use std::fmt;
use std::time::Duration;

use super::WebSocket;
use super::link::Link;
use crate::Error;

/// Connects to a `ws://` or `wss://` URL with the defaults of [`Client`].
///
/// # Errors
/// As [`Client::connect`].
///
/// # Cancel safety
/// Dropping it drops the connection attempt.
pub async fn connect(url: &str) -> Result<WebSocket, Error> {
    Client::new(url).connect().await
}

/// A WebSocket to be opened: where to and how. It can be used any number of times.
///
/// The browser sends the server's cookies and the page's origin by itself, and a page can set no headers: a token goes
/// into a subprotocol ([`bearer_subprotocol`](Self::bearer_subprotocol)).
///
/// A setting that is wrong makes [`connect`](Self::connect) fail.
#[derive(Clone)]
pub struct Client {
    url: String,
    subprotocols: Vec<String>,
    timeout: Duration,
}

impl Client {
    /// A client for a `ws://` or `wss://` URL, or for one relative to the page's, such as `/feed`. From a page that
    /// came by `https://`, a browser connects by `wss://` only.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), subprotocols: Vec::new(), timeout: CONNECT }
    }

    /// Offers a subprotocol, after those already offered; the server may choose one ([`WebSocket::subprotocol`]). A
    /// browser that has offered some does not accept a server that chooses none.
    #[must_use]
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.subprotocols.push(name.to_owned());
        self
    }

    /// Offers the token as a subprotocol, `bearer.TOKEN`, after those already offered. A token may have letters, digits
    /// and a few signs; base64url without padding fits. Taut's servers never choose it: offer another one as well, that
    /// they do.
    #[must_use]
    pub fn bearer_subprotocol(self, token: &str) -> Self {
        self.subprotocol(&format!("{BEARER}{token}"))
    }

    /// How long connecting may take; 10 seconds. A browser makes attempts that follow a failed one wait, which counts.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects and opens the WebSocket.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL or a subprotocol is wrong. [`is_timeout`](Error::is_timeout): it took
    /// too long. [`is_io`](Error::is_io): anything else, a server that refuses included, since a page is not told why;
    /// the browser's console says more.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection attempt.
    pub async fn connect(&self) -> Result<WebSocket, Error> {
        let link = Link::open(&self.url, &self.subprotocols)?;
        link.opened(self.timeout).await?;
        Ok(WebSocket::new(link))
    }
}

impl fmt::Debug for Client {
    // Queries and subprotocols carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Client").field("url", &url).finish_non_exhaustive()
    }
}

/// As natively.
const CONNECT: Duration = Duration::from_secs(10);

/// What a token that is offered as a subprotocol begins with.
const BEARER: &str = "bearer.";
