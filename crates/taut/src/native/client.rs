//! What to connect to and how.

mod connect;
mod target;

use std::fmt;
#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::Settings;
use taut_proto::handshake::HeadLimits;
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(unix)]
use tokio::net::UnixStream;

#[cfg(unix)]
use crate::error::Doing;
use crate::error::{Cause, ConnectStage};
use crate::native::request::BEARER;
#[cfg(feature = "tls")]
use crate::native::tls::ClientTls;
use crate::native::trace::{Reporter, Step};
use crate::native::transport::proxy::basic;
use crate::native::url::Url;
use crate::{Deflate, Error, Proxy, Transport, WebSocket};
use connect::ConnectProgress;
use target::{RequestPart, Target};

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
/// A setting that is wrong makes [`connect`](Self::connect) fail.
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
    head_limits: HeadLimits,
    timeout: Duration,
    redirects: usize,
    proxy: ProxyChoice,
    /// Who is told what is done.
    reporter: Option<Reporter>,
    #[cfg(feature = "tls")]
    tls: ClientTls,
}

impl Client {
    /// A client for a `ws://` or `wss://` URL.
    pub fn new(url: &str) -> Self {
        let target = Url::parse(url).map_err(|wrong| Error::from(Cause::Url(wrong)));
        Self {
            target: target.and_then(|url| Target::new(url, Vec::new())),
            settings: Arc::new(Settings::client()),
            head_limits: HeadLimits::default(),
            timeout: CONNECT,
            redirects: REDIRECTS,
            proxy: ProxyChoice::Environment,
            reporter: None,
            #[cfg(feature = "tls")]
            tls: ClientTls::system(),
        }
    }

    /// Adds a header to the handshake's request. `Cookie` goes with the [cookies](Self::cookie), `Host` sets the
    /// [host](Self::host).
    ///
    /// What the handshake writes itself is an error that names the method to use instead: `Sec-WebSocket-Protocol` is
    /// set by [`subprotocol`](Self::subprotocol), `Sec-WebSocket-Extensions` by [`deflate`](Self::deflate), `Origin` by
    /// [`origin`](Self::origin).
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.with_part(if name.eq_ignore_ascii_case("cookie") {
            RequestPart::Cookie(value)
        } else if name.eq_ignore_ascii_case("host") {
            RequestPart::Host(value)
        } else {
            RequestPart::Header(name, value)
        })
    }

    /// Asks for this virtual host: what the `Host` header says, `host` or `host:port`, instead of the host of the URL.
    /// The URL still says where to connect to, and whose certificate `wss://` expects
    /// (`ClientTls::server_name` changes that). A redirect to another origin drops it.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.with_part(RequestPart::Host(host.to_owned()))
    }

    /// Sends `Authorization: Bearer` with this token. `Debug` never shows it.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends `Authorization: Basic` with this user and password (RFC 7617).
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        // RFC 7617 §2: the colon is what ends the user.
        if user.contains(':') {
            return self.with_error(Cause::Setting("the user given to Client::basic must not hold a colon"));
        }
        self.header("Authorization", &basic(user, password))
    }

    /// Offers the token as a subprotocol, `bearer.TOKEN`, after those already offered: as browsers do, which cannot set
    /// headers. For servers that accept nothing else; otherwise prefer [`bearer`](Self::bearer). A token may have
    /// letters, digits and a few signs; base64url without padding fits.
    #[must_use]
    pub fn bearer_subprotocol(self, token: &str) -> Self {
        self.with_part(RequestPart::Subprotocol(format!("{BEARER}{token}")))
    }

    /// Sends a cookie, as it is, beside those already given (RFC 6265 §4.2).
    #[must_use]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        // RFC 6265 §4.1.1: a cookie-octet.
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        let is_name = |byte: u8| is_octet(byte) && !b"()<>@:/[]?={}".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) || !inner.bytes().all(is_octet) {
            return self.with_error(Cause::Setting(
                "a cookie must not hold spaces, control characters, quotes, commas, semicolons or backslashes, nor its \
                 name be empty; encode the value, such as in base64url",
            ));
        }
        self.with_part(RequestPart::Cookie(format!("{name}={value}")))
    }

    /// Adds a parameter to the URL's query, percent-encoded. Queries end up in the logs of servers and proxies: a token
    /// is better sent by [`bearer`](Self::bearer).
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.target = self.target.and_then(|Target { mut url, parts, .. }| {
            url.query(name, value);
            Target::new(url, parts)
        });
        self
    }

    /// Sends an `Origin`, as browsers do for the page that connects: `https://app.example`. By default none is sent.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.with_part(RequestPart::Origin(origin.to_owned()))
    }

    /// Offers a subprotocol, after those already offered; the server may choose one
    /// ([`WebSocket::subprotocol`]).
    #[must_use]
    pub fn subprotocol(self, name: &str) -> Self {
        self.with_part(RequestPart::Subprotocol(name.to_owned()))
    }

    /// Offers permessage-deflate (RFC 7692); by default no compression is offered.
    #[must_use]
    pub fn deflate(self, config: Deflate) -> Self {
        self.with_part(RequestPart::Deflate(config))
    }

    /// Limits, heartbeat and close timeout; [`Settings::client`] by default.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// Sets how large the head of the server's response may be; 16 KiB and 100 headers. It holds for every response on the
    /// way, redirects too, and is held in memory until the connection is gone.
    #[must_use]
    pub fn head_limits(mut self, limits: HeadLimits) -> Self {
        self.head_limits = limits;
        self
    }

    /// Sets how long connecting may take, from the DNS lookup to the end of the handshake, including TLS, a proxy and
    /// redirects; 10 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whom to trust, and which certificate to show, for `wss://` URLs; [`ClientTls::system`] by default.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    /// Connects through this proxy; by default through the one that the environment names, if any
    /// ([`Proxy::from_environment`]).
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = ProxyChoice::Through(proxy);
        self
    }

    /// Connects directly, whatever the environment says.
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxyChoice::Direct;
        self
    }

    /// Sets how many redirects are followed; 10. With 0, the first one is an error with its status.
    ///
    /// A redirect to another origin (scheme, host or port) drops cookies, token, certificate and the application's
    /// headers, except `Accept`, `Accept-Language` and `User-Agent`, for good: they are not sent again if a later
    /// redirect leads back. A redirect from `wss://` to `ws://` is never followed.
    #[must_use]
    pub fn redirects(mut self, most: usize) -> Self {
        self.redirects = most;
        self
    }

    /// Calls `report` with each [step](crate::trace): of connecting, and of what is sent and received afterwards. It is
    /// called while the connection is locked, so it must neither block nor use the connection.
    #[must_use]
    pub fn trace(mut self, report: impl Fn(Step<'_>) + Send + Sync + 'static) -> Self {
        self.reporter = Some(Reporter::new(report));
        self
    }

    /// Resolves the host, connects, with TLS if the URL is `wss://`, and opens the WebSocket.
    ///
    /// If the host has several addresses, the first one that answers is used: when one has not answered for 250
    /// milliseconds, the next is tried as well (RFC 8305).
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL or a setting is wrong. [`is_io`](Error::is_io): the server cannot be
    /// reached. [`is_proxy`](Error::is_proxy): the proxy does not lead to it. [`is_tls`](Error::is_tls): a certificate
    /// is not accepted. [`is_handshake`](Error::is_handshake): the server answered, but did not accept;
    /// [`Error::status`] and [`Error::response`] say how. [`is_timeout`](Error::is_timeout): it all took too long.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection attempt.
    pub async fn connect(&self) -> Result<WebSocket, Error> {
        let target = self.target()?;
        let progress = ConnectProgress::new(ConnectStage::Lookup);
        // Boxed, since whoever awaits this would carry the room for all stages with it.
        self.within_deadline(&progress, Box::pin(self.follow(target, &progress))).await
    }

    /// Opens the WebSocket over a stream that is connected already: a Unix socket, a tunnel, TLS of your own. The URL
    /// says what to request; nothing is encrypted here, even if it is `wss://`, and redirects are not followed.
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
        let Target { request, .. } = self.target()?;
        let progress = ConnectProgress::new(ConnectStage::Upgrade);
        self.within_deadline(&progress, self.open(Transport::new(stream), request, false, &progress)).await
    }

    /// Opens the WebSocket over a Unix socket. The URL says what to request, as with
    /// [`connect_over`](Self::connect_over).
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`is_connect`](Error::is_connect): nobody listens there.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection attempt.
    #[cfg(unix)]
    pub async fn connect_unix(&self, path: impl AsRef<Path>) -> Result<WebSocket, Error> {
        let Target { request, .. } = self.target()?;
        let progress = ConnectProgress::new(ConnectStage::Tcp);
        let path = path.as_ref();
        let work = async {
            let stream = UnixStream::connect(path).await.map_err(|error| {
                let told = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                Error::io(Doing::Connecting, told)
            })?;
            progress.set(ConnectStage::Upgrade);
            self.open(Transport::new(stream), request, false, &progress).await
        };
        self.within_deadline(&progress, Box::pin(work)).await
    }

    fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().map_err(Clone::clone)
    }

    fn with_part(mut self, part: RequestPart) -> Self {
        self.target = self.target.and_then(|Target { url, mut parts, .. }| {
            parts.push(part);
            Target::new(url, parts)
        });
        self
    }

    fn with_error(mut self, cause: Cause) -> Self {
        self.target = self.target.and_then(|_| Err(cause.into()));
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

/// Which proxy leads to the server.
#[derive(Clone)]
enum ProxyChoice {
    Direct,
    Environment,
    Through(Proxy),
}

/// From the name's lookup to the end of the handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// What browsers follow for a page; Python's and Go's clients do the same.
const REDIRECTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_setting_that_is_wrong_is_told_when_connecting() {
        for (client, word) in [
            (Client::new("ws://a.example/ x"), "path"),
            (Client::new("ws://a b/").bearer("a"), "host"),
            (Client::new("ws://a.example").header("X: y", "z").bearer("b\n"), "name"),
            (Client::new("ws://a.example").bearer("token\n"), "value"),
            (Client::new("ws://a.example").header("Upgrade", "x"), "Upgrade belongs to the handshake"),
            (Client::new("ws://a.example").header("X-Id", "a\r\nb"), "X-Id"),
            (Client::new("ws://a.example").header("sec-websocket-protocol", "x"), "use Client::subprotocol"),
            (Client::new("ws://a.example").header("origin", "http://a.example"), "use Client::origin"),
            (Client::new("ws://a.example").header("host", "a b"), "host"),
            (Client::new("ws://a.example").host("http://b.example"), "host"),
            (Client::new("ws://a.example").subprotocol("a b"), "subprotocol"),
            (Client::new("ws://a.example").subprotocol("a").subprotocol("a"), "once"),
            (Client::new("ws://a.example").origin("a.example"), "origin"),
            (Client::new("ws://a.example").basic("a:b", "c"), "colon"),
            (Client::new("ws://a.example").cookie("a", "b; c=d"), "cookie"),
            (Client::new("ws://a.example").cookie("", "b"), "cookie"),
            (Client::new("ws://a.example").cookie("a=b", "c"), "cookie"),
            (Client::new("ws://a.example").bearer_subprotocol("a/b="), "subprotocol"),
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
