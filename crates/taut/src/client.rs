//! What to connect to and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::handshake::{Agreed, ClientRequest, ClientResponse, HeadLimits, InvalidRequest, Rejection};
use taut_proto::{Role, Settings};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Cause, Deadline, Doing};
use crate::head::Head;
use crate::url::Url;
use crate::{Deflate, Error, Transport, WebSocket};

/// Connects to a `ws://` URL with the defaults of [`Client`].
///
/// `wss://` comes with a later version; it is refused with a clear error.
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
/// What is wrong with a setting is told by [`connect`](Self::connect).
///
/// ```no_run
/// # async fn run() -> Result<(), taut::Error> {
/// use taut::{Client, Deflate};
///
/// let client = Client::new("ws://api.example/v1").bearer("t0ken").subprotocol("v1.json").deflate(Deflate::default());
/// let mut socket = client.connect().await?;
/// socket.send("hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    /// The first setting that is wrong spoils it.
    target: Result<Target, Error>,
    settings: Arc<Settings>,
    timeout: Duration,
}

impl Client {
    /// A client for a `ws://` URL.
    pub fn new(url: &str) -> Self {
        let target = Url::parse(url).map_err(|wrong| Error::from(Cause::Url(wrong))).and_then(|url| {
            let request = ClientRequest::new(&url.authority, &url.target).map_err(invalid)?;
            Ok(Target { url, request })
        });
        Self { target, settings: Arc::new(Settings::client()), timeout: CONNECT }
    }

    /// Adds a header to the handshake's request.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.request(|request| request.header(name, value))
    }

    /// Sends `Authorization: Bearer` with this token. It is shown by no `Debug`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Names the page on whose behalf the client connects, as a browser does: `https://app.example`. By default no
    /// origin is sent.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.request(|request| request.origin(origin))
    }

    /// Offers a subprotocol, after those already offered; the server may choose one
    /// ([`WebSocket::subprotocol`]).
    #[must_use]
    pub fn subprotocol(self, name: &str) -> Self {
        self.request(|request| request.subprotocol(name))
    }

    /// Offers permessage-deflate (RFC 7692); by default no compression is offered.
    #[must_use]
    pub fn deflate(self, config: Deflate) -> Self {
        self.request(|request| Ok(request.deflate(Some(config))))
    }

    /// Limits, heartbeat and close timeout; [`Settings::client`] by default.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// How long connecting may take, from the name's lookup to the end of the handshake; 10 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Looks the name up, connects by TCP and opens the WebSocket.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL or a setting is wrong. [`is_io`](Error::is_io): the server cannot be
    /// reached. [`is_handshake`](Error::is_handshake): it answered, but did not accept; [`Error::status`] says how.
    /// [`is_timeout`](Error::is_timeout): it all took too long.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection attempt.
    pub async fn connect(&self) -> Result<WebSocket, Error> {
        let Target { url, .. } = self.target()?;
        self.within_deadline(async {
            let connecting = |error| Error::io(Doing::Connecting, error);
            let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(connecting)?;
            // A message is written whole, so there is nothing for Nagle's algorithm to gather.
            stream.set_nodelay(true).map_err(connecting)?;
            self.open(stream.into()).await
        })
        .await
    }

    /// Opens the WebSocket over a stream that is connected already: a Unix socket, a tunnel, TLS of your own. The URL
    /// says what to ask the server for.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Dropping it drops the stream.
    pub async fn connect_over<S>(&self, stream: S) -> Result<WebSocket, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.within_deadline(self.open(Transport::new(stream))).await
    }

    async fn within_deadline<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Cause::Deadline(Deadline::Connect(self.timeout)).into();
        timeout(self.timeout, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// The client's side of the handshake (RFC 6455 §4.1).
    async fn open(&self, mut stream: Transport) -> Result<WebSocket, Error> {
        let Target { request, .. } = self.target()?;
        let mut nonce = [0; 16];
        // RFC 6455 §4.1 (7): fresh and unpredictable for each connection.
        getrandom::fill(&mut nonce).map_err(|error| Error::from(Cause::Random(error)))?;
        let opening = |error| Error::io(Doing::Opening, error);
        let mut bytes = Vec::with_capacity(1024);
        request.write(nonce, &mut bytes);
        stream.write_all(&bytes).await.map_err(opening)?;
        stream.flush().await.map_err(opening)?;

        let limits = HeadLimits::default();
        let mut head = Head::default();
        for _ in 0..INTERIM_RESPONSES {
            let end = head.read(&mut stream, &limits).await?.map_err(|refusal| rejected(refusal.into()))?;
            let agreed =
                ClientResponse::parse(&head.bytes[..end], &limits).and_then(|response| request.check(&response, nonce));
            match agreed {
                Ok(Agreed { subprotocol, deflate, .. }) => {
                    let unread = head.rest(end);
                    let settings = Arc::clone(&self.settings);
                    return WebSocket::open(stream, Role::Client, settings, deflate, subprotocol, unread);
                }
                // RFC 9110 §15.2: the response that counts follows.
                Err(rejection) if rejection.is_interim() => head = Head::begun(head.rest(end)),
                Err(rejection) => return Err(rejected(rejection)),
            }
        }
        Err(rejected(Rejection::Malformed))
    }

    fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().map_err(Clone::clone)
    }

    fn request(mut self, change: impl FnOnce(ClientRequest) -> Result<ClientRequest, InvalidRequest>) -> Self {
        self.target = self.target.and_then(|Target { url, request }| {
            let request = change(request).map_err(invalid)?;
            Ok(Target { url, request })
        });
        self
    }
}

impl fmt::Debug for Client {
    // Headers and queries carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Ok(Target { url, .. }) => f.debug_tuple("Client").field(url).finish(),
            Err(error) => f.debug_tuple("Client").field(error).finish(),
        }
    }
}

#[derive(Clone)]
struct Target {
    url: Url,
    request: ClientRequest,
}

fn invalid(invalid: InvalidRequest) -> Error {
    Cause::Request(invalid).into()
}

fn rejected(rejection: Rejection) -> Error {
    Cause::Rejected(rejection).into()
}

/// From the name's lookup to the end of the handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// Interim responses that are read past before a server counts as broken.
const INTERIM_RESPONSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_setting_that_is_wrong_is_told_when_connecting() {
        for (client, word) in [
            (Client::new("wss://a.example"), "TLS"),
            (Client::new("ws://a.example/ x"), "path"),
            (Client::new("ws://a b/").bearer("a"), "host"),
            (Client::new("ws://a.example").header("X: y", "z").bearer("b\n"), "name"),
            (Client::new("ws://a.example").bearer("token\n"), "value"),
            (Client::new("ws://a.example").header("Upgrade", "x"), "handshake"),
            (Client::new("ws://a.example").subprotocol("a b"), "subprotocol"),
            (Client::new("ws://a.example").subprotocol("a").subprotocol("a"), "once"),
            (Client::new("ws://a.example").origin("a.example"), "origin"),
        ] {
            let error = client.connect().await.expect_err(word);
            assert!(error.is_invalid(), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        let client = Client::new("ws://a.example/x?key=hidden").bearer("hidden").header("X-Key", "hidden");
        assert_eq!(format!("{client:?}"), "Client(ws://a.example/x)");
    }
}
