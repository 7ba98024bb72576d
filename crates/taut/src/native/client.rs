//! What to connect to and how.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use taut_proto::handshake::{Accepted, ClientRequest, ClientResponse, HeadLimits, InvalidRequest, Rejection};
use taut_proto::{Role, Settings};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::{Cause, Deadline, Doing, Stage};
use crate::native::head::Head;
use crate::native::request::BEARER;
#[cfg(feature = "tls")]
use crate::native::tls::ClientTls;
use crate::native::transport::proxy::basic;
use crate::native::transport::tcp;
use crate::native::url::Url;
use crate::{Deflate, Error, Proxy, Transport, WebSocket};

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
    redirects: usize,
    route: Route,
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
            timeout: CONNECT,
            redirects: REDIRECTS,
            route: Route::Environment,
            #[cfg(feature = "tls")]
            tls: ClientTls::system(),
        }
    }

    /// Adds a header to the handshake's request.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.part(if name.eq_ignore_ascii_case("cookie") {
            Part::Cookie(value.to_owned())
        } else {
            Part::Header(name.to_owned(), value.to_owned())
        })
    }

    /// Sends `Authorization: Bearer` with this token. It is shown by no `Debug`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends `Authorization: Basic` with this user and password (RFC 7617).
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        // RFC 7617 §2: the colon is what ends the user.
        if user.contains(':') {
            return self.spoiled(Cause::Setting("the user given to Client::basic must not hold a colon"));
        }
        self.header("Authorization", &basic(user, password))
    }

    /// Offers the token as a subprotocol, `bearer.TOKEN`, after those already offered: what a page in a browser does,
    /// which cannot set headers. For servers that know it only so; otherwise [`bearer`](Self::bearer) is better. A
    /// token may have letters, digits and a few signs; base64url without padding fits.
    #[must_use]
    pub fn bearer_subprotocol(self, token: &str) -> Self {
        self.part(Part::Subprotocol(format!("{BEARER}{token}")))
    }

    /// Sends a cookie, as it is, beside those already given (RFC 6265 §4.2).
    #[must_use]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        // RFC 6265 §4.1.1: a cookie-octet.
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        let is_name = |byte: u8| is_octet(byte) && !b"()<>@:/[]?={}".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) || !inner.bytes().all(is_octet) {
            return self.spoiled(Cause::Setting(
                "a cookie must not hold spaces, control characters, quotes, commas, semicolons or backslashes, nor its \
                 name be empty; encode the value, such as in base64url",
            ));
        }
        self.part(Part::Cookie(format!("{name}={value}")))
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

    /// Names the page on whose behalf the client connects, as a browser does: `https://app.example`. By default no
    /// origin is sent.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.part(Part::Origin(origin.to_owned()))
    }

    /// Offers a subprotocol, after those already offered; the server may choose one
    /// ([`WebSocket::subprotocol`]).
    #[must_use]
    pub fn subprotocol(self, name: &str) -> Self {
        self.part(Part::Subprotocol(name.to_owned()))
    }

    /// Offers permessage-deflate (RFC 7692); by default no compression is offered.
    #[must_use]
    pub fn deflate(self, config: Deflate) -> Self {
        self.part(Part::Deflate(config))
    }

    /// Limits, heartbeat and close timeout; [`Settings::client`] by default.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// How long connecting may take, from the name's lookup to the end of the handshake, TLS, a proxy and redirects
    /// included; 10 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whom to trust, and which certificate to show, when the URL is `wss://`; [`ClientTls::system`] by default.
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
        self.route = Route::Through(proxy);
        self
    }

    /// Connects directly, whatever the environment says.
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.route = Route::Direct;
        self
    }

    /// How many redirects are followed; 10. With 0 the first is an error with its status.
    ///
    /// To another origin (scheme, host or port) go no cookies, no token, no certificate and no headers of the
    /// application's but `Accept`, `Accept-Language` and `User-Agent`, and they do not come back when it leads back.
    /// From `wss://` to `ws://` no redirect is followed.
    #[must_use]
    pub fn redirects(mut self, most: usize) -> Self {
        self.redirects = most;
        self
    }

    /// Looks the name up, connects, by TLS if the URL is `wss://`, and opens the WebSocket.
    ///
    /// Of several addresses the first that answers is taken: the next is tried as well when one has not answered for
    /// 250 milliseconds (RFC 8305).
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the URL or a setting is wrong. [`is_io`](Error::is_io): the server cannot be
    /// reached. [`is_proxy`](Error::is_proxy): the proxy does not lead to it. [`is_tls`](Error::is_tls): a certificate
    /// is not accepted. [`is_handshake`](Error::is_handshake): the server answered, but did not accept;
    /// [`Error::status`] says how. [`is_timeout`](Error::is_timeout): it all took too long.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection attempt.
    pub async fn connect(&self) -> Result<WebSocket, Error> {
        let target = self.target()?;
        let progress = Progress::default();
        // Boxed, since whoever awaits this would carry the room for all stages with it.
        self.within_deadline(&progress, Box::pin(self.follow(target, &progress))).await
    }

    /// Opens the WebSocket over a stream that is connected already: a Unix socket, a tunnel, TLS of your own. The URL
    /// says what to ask the server for; nothing is encrypted here, even if it is `wss://`, and no redirect is followed.
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
        let progress = Progress::default();
        progress.is_at(Stage::Upgrade);
        self.within_deadline(&progress, self.open(Transport::new(stream), request)).await
    }

    async fn within_deadline<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| Cause::Deadline(Deadline::Connect(self.timeout, progress.stage())).into();
        timeout(self.timeout, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Connects, and goes where it is redirected.
    async fn follow(&self, first: &Target, progress: &Progress) -> Result<WebSocket, Error> {
        let mut moved: Option<Target> = None;
        for count in 0.. {
            let target = moved.as_ref().unwrap_or(first);
            let transport = self.dial(target, progress).await?;
            progress.is_at(Stage::Upgrade);
            let error = match self.open(transport, &target.request).await {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            let Some((status, location)) = error.redirect().filter(|_| self.redirects > 0) else { return Err(error) };
            let refused = |wrong| Error::from(Cause::Redirect { status, wrong });
            if count == self.redirects {
                return Err(refused(
                    "it has done so too often; is the URL right? Client::redirects says how often it may",
                ));
            }
            moved = Some(target.moved(location).map_err(refused)?);
        }
        unreachable!("it counts further than the redirects that may be followed")
    }

    /// The way to the server, up to where the request can be sent.
    async fn dial(&self, target: &Target, progress: &Progress) -> Result<Transport, Error> {
        let Target { url, .. } = target;
        let proxy = match &self.route {
            Route::Direct => None,
            Route::Environment => Proxy::from_environment().server(url.is_secure, &url.host, url.port)?,
            Route::Through(proxy) => proxy.server(url.is_secure, &url.host, url.port)?,
        };
        let (host, port) = match &proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&url.host, url.port),
        };
        progress.is_at(Stage::Lookup);
        let addresses = tcp::lookup(host, port).await?;
        progress.is_at(Stage::Tcp);
        let mut transport = Transport::from(tcp::connect(addresses).await?);
        if let Some(proxy) = &proxy {
            progress.is_at(Stage::Proxy);
            transport = proxy.tunnel(transport, &url.host, url.port).await?;
        }
        #[cfg(feature = "tls")]
        if url.is_secure {
            progress.is_at(Stage::Tls);
            let secure = if target.is_trusted {
                self.tls.connect(&url.host, transport).await?
            } else {
                self.tls.for_strangers().connect(&url.host, transport).await?
            };
            transport = Transport::over_tls(secure);
        }
        Ok(transport)
    }

    /// The client's side of the handshake (RFC 6455 §4.1).
    async fn open(&self, mut stream: Transport, request: &ClientRequest) -> Result<WebSocket, Error> {
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
            let response = ClientResponse::parse(&head.bytes[..end], &limits).map_err(rejected)?;
            match request.check(&response, nonce) {
                Ok(Accepted { subprotocol, deflate, .. }) => {
                    let unread = head.rest(end);
                    let settings = Arc::clone(&self.settings);
                    return WebSocket::open(stream, Role::Client, settings, deflate, subprotocol, unread);
                }
                // RFC 9110 §15.2: the response that counts follows.
                Err(rejection) if rejection.is_interim() => head = Head::begun(head.rest(end)),
                Err(rejection) => return Err(rejected(with_date(rejection, &response, SystemTime::now()))),
            }
        }
        Err(rejected(Rejection::Interim))
    }

    fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().map_err(Clone::clone)
    }

    fn part(mut self, part: Part) -> Self {
        self.target = self.target.and_then(|Target { url, mut parts, .. }| {
            parts.push(part);
            Target::new(url, parts)
        });
        self
    }

    fn spoiled(mut self, cause: Cause) -> Self {
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

/// How to get to the server.
#[derive(Clone)]
enum Route {
    Direct,
    Environment,
    Through(Proxy),
}

/// Where to, and what to ask for there.
#[derive(Clone)]
struct Target {
    url: Url,
    parts: Vec<Part>,
    /// Made of both.
    request: ClientRequest,
    /// Whether it is of the origin that the application named, so that it may have what is secret.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nothing else is secret"))]
    is_trusted: bool,
}

impl Target {
    fn new(url: Url, parts: Vec<Part>) -> Result<Self, Error> {
        let request = request(&url, &parts).map_err(invalid)?;
        Ok(Self { url, parts, request, is_trusted: true })
    }

    /// Where a redirect leads; or why it is not followed.
    fn moved(&self, location: &str) -> Result<Self, &'static str> {
        let url = self.url.join(location)?;
        if self.url.is_secure && !url.is_secure {
            return Err("it leads from wss:// to ws://, which is not encrypted");
        }
        let mut parts = self.parts.clone();
        let is_same_origin = self.url.is_same_origin(&url);
        if !is_same_origin {
            parts.retain(Part::is_for_strangers);
        }
        let request = request(&url, &parts).map_err(|_| "its Location is not a URL")?;
        Ok(Self { url, parts, request, is_trusted: self.is_trusted && is_same_origin })
    }
}

/// One thing that the application wants in the request.
#[derive(Clone)]
enum Part {
    Cookie(String),
    Deflate(Deflate),
    Header(String, String),
    Origin(String),
    Subprotocol(String),
}

impl Part {
    /// Whether another origin may see it. Any header may be a secret, so only those do that are known to be none.
    fn is_for_strangers(&self) -> bool {
        match self {
            Self::Cookie(_) => false,
            Self::Deflate(_) | Self::Origin(_) => true,
            Self::Header(name, _) => {
                ["accept", "accept-language", "user-agent"].iter().any(|known| name.eq_ignore_ascii_case(known))
            }
            Self::Subprotocol(name) => !name.starts_with(BEARER),
        }
    }
}

fn request(url: &Url, parts: &[Part]) -> Result<ClientRequest, InvalidRequest> {
    let mut request = ClientRequest::new(&url.authority, &url.target)?;
    let mut cookies: Vec<&str> = Vec::new();
    for part in parts {
        request = match part {
            Part::Cookie(cookie) => {
                cookies.push(cookie);
                request
            }
            Part::Deflate(config) => request.deflate(Some(*config)),
            Part::Header(name, value) => request.header(name, value)?,
            Part::Origin(origin) => request.origin(origin)?,
            Part::Subprotocol(name) => request.subprotocol(name)?,
        };
    }
    // RFC 6265 §5.4: one header for all.
    if cookies.is_empty() { Ok(request) } else { request.header("Cookie", &cookies.join("; ")) }
}

/// How far connecting has come, for the error that a deadline gives.
#[derive(Default)]
struct Progress(AtomicU8);

impl Progress {
    const STAGES: [Stage; 5] = [Stage::Lookup, Stage::Tcp, Stage::Proxy, Stage::Tls, Stage::Upgrade];

    fn is_at(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        Self::STAGES[usize::from(self.0.load(Ordering::Relaxed))]
    }
}

fn invalid(invalid: InvalidRequest) -> Error {
    Cause::Request(invalid).into()
}

fn rejected(rejection: Rejection) -> Error {
    Cause::Rejected(rejection).into()
}

/// RFC 9110 §10.2.3: `Retry-After` may be a date. It is taken by the clock that wrote it, the `Date` of the response,
/// so that it does not matter whether ours is right.
fn with_date(mut rejection: Rejection, response: &ClientResponse<'_>, now: SystemTime) -> Rejection {
    let date = |name| response.header(name).and_then(|date| httpdate::parse_http_date(date).ok());
    if let Rejection::Status { retry_after: retry_after @ None, .. } = &mut rejection
        && let Some(at) = date("retry-after")
    {
        *retry_after = Some(at.duration_since(date("date").unwrap_or(now)).unwrap_or_default());
    }
    rejection
}

/// From the name's lookup to the end of the handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// What browsers follow for a page; Python's and Go's clients do the same.
const REDIRECTS: usize = 10;

/// Interim responses that are read past before a server counts as broken.
const INTERIM_RESPONSES: usize = 8;

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
            (Client::new("ws://a.example").header("Upgrade", "x"), "handshake"),
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

    fn written(target: &Target) -> String {
        let mut bytes = Vec::new();
        target.request.write([0; 16], &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn secretive() -> Client {
        Client::new("ws://a.example/x")
            .bearer("s3cret")
            .cookie("id", "s3cret")
            .header("X-Api-Key", "s3cret")
            .header("Cookie", "more=s3cret")
            .header("User-Agent", "me")
            .origin("http://a.example")
            .subprotocol("v1")
            .bearer_subprotocol("s3cret")
            .query("token", "s3cret")
            .deflate(Deflate::default())
    }

    #[test]
    fn conveniences_end_up_in_the_request() {
        let request = written(secretive().target.as_ref().unwrap());
        for line in [
            "GET /x?token=s3cret HTTP/1.1",
            "Authorization: Bearer s3cret",
            // RFC 6265 §5.4: a client sends one Cookie header.
            "Cookie: id=s3cret; more=s3cret",
            "Sec-WebSocket-Protocol: v1, bearer.s3cret",
        ] {
            assert!(request.lines().any(|found| found == line), "{line}: {request}");
        }
        // RFC 7617 §2: the example.
        let client = Client::new("ws://a.example").basic("Aladdin", "open sesame");
        assert!(written(client.target.as_ref().unwrap()).contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    }

    // RFC 9110 §15.4: a redirected request is made anew, without what was meant for the first origin.
    #[test]
    fn what_is_secret_does_not_follow_to_another_origin_and_does_not_come_back() {
        let target = secretive().target.unwrap();
        let near = target.moved("/y").unwrap();
        assert!(near.is_trusted && written(&near).contains("Authorization: Bearer s3cret"));
        for away in ["ws://b.example/y", "ws://a.example:81/y", "//b.example/y"] {
            let away = target.moved(away).unwrap();
            let request = written(&away);
            assert!(!request.contains("s3cret") && !away.is_trusted, "{request}");
            for kept in ["GET /y ", "User-Agent: me", "Origin: http://a.example", "Protocol: v1\r\n", "permessage"] {
                assert!(request.contains(kept), "{kept}: {request}");
            }
            assert!(!away.moved("/z").unwrap().is_trusted);
            let back = away.moved("ws://a.example/z").unwrap();
            assert!(!written(&back).contains("s3cret") && !back.is_trusted);
        }
        for wrong in ["ftp://a.example", "ws://a b/", "/a b", "ws://u:p@a.example/"] {
            assert!(target.moved(wrong).is_err(), "{wrong}");
        }
    }

    // RFC 9110 §10.2.3: Retry-After = HTTP-date / delay-seconds; §5.6.7: a date has three forms.
    #[test]
    fn a_server_may_say_by_a_date_when_to_come_back() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = "Sun, 06 Nov 1994 08:51:37 GMT";
        for (headers, expected) in [
            (format!("Retry-After: {later}\r\n"), Some(120)),
            ("Retry-After: Sunday, 06-Nov-94 08:49:40 GMT\r\n".to_owned(), Some(3)),
            ("Retry-After: Sun Nov  6 08:50:37 1994\r\n".to_owned(), Some(60)),
            // By the server's clock, where that is told.
            (format!("Date: Sun, 06 Nov 1994 08:51:30 GMT\r\nRetry-After: {later}\r\n"), Some(7)),
            (format!("Date: today\r\nRetry-After: {later}\r\n"), Some(120)),
            // What is past is now.
            ("Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n".to_owned(), Some(0)),
            ("Retry-After: 7\r\n".to_owned(), Some(7)),
            ("Retry-After: soon\r\n".to_owned(), None),
            (String::new(), None),
        ] {
            let head = format!("HTTP/1.1 503 Service Unavailable\r\n{headers}\r\n");
            let limits = HeadLimits::default();
            let response = ClientResponse::parse(head.as_bytes(), &limits).unwrap();
            let Target { request, .. } = Client::new("ws://a.example/").target.unwrap();
            let rejection = with_date(request.check(&response, [0; 16]).unwrap_err(), &response, now);
            let error = Error::from(Cause::Rejected(rejection));
            assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{headers}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn no_redirect_leads_from_tls_to_plain_text() {
        let target = Client::new("wss://a.example/").bearer("s3cret").target.unwrap();
        for plain in ["ws://a.example/", "http://a.example/", "ws://b.example/"] {
            assert!(target.moved(plain).err().unwrap().contains("not encrypted"), "{plain}");
        }
        assert!(target.moved("https://a.example/y").unwrap().is_trusted);
        // Another scheme is another origin.
        let plain = secretive().target.unwrap();
        assert!(!written(&plain.moved("wss://a.example/").unwrap()).contains("s3cret"));
    }
}
