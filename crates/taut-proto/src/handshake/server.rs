//! The server's side of the handshake (RFC 6455 §4.2): a request, then an upgrade or a refusal.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::head::{HeadLimits, Headers};
use super::key::{accept_key, is_valid_key};
use super::{InvalidHeader, Offer, is_token, list, split_host, write_header};

/// The head of an HTTP/1.1 request, lent from the bytes that it was parsed from.
///
/// Any request can be looked at; [`wants_upgrade`](Self::wants_upgrade) tells a WebSocket handshake from plain HTTP.
/// Its `Debug` shows neither the query nor the values of headers, which hold secrets.
pub struct Request<'a> {
    method: &'a str,
    target: &'a str,
    /// The host of a target in absolute form.
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    is_http_1_1: bool,
    headers: Headers<'a>,
}

impl<'a> Request<'a> {
    /// Parses a head that [`HeadScan`](super::HeadScan) found. What follows the head in `head` is not looked at.
    ///
    /// # Errors
    /// 431 when it is larger than `limits`; 400 when it is not HTTP/1.1, when two programs could read it differently
    /// (folded lines, lone line feeds, a header twice that may occur once) or when its host is malformed.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Self, Refusal> {
        let (head, mut headers) = Headers::prepare(head, limits)?;
        let (method, target, version) = {
            let mut parsed = httparse::Request::new(headers.room());
            match parsed.parse(head) {
                Ok(httparse::Status::Complete(_)) => {}
                Ok(httparse::Status::Partial) => return Err(Cause::Incomplete.into()),
                Err(_) => return Err(Cause::Malformed.into()),
            }
            (parsed.method, parsed.path, parsed.version)
        };
        let (Some(method), Some(target)) = (method, target) else {
            return Err(Cause::Malformed.into());
        };
        let (authority, path, query) = split_target(target).ok_or(Cause::InvalidTarget)?;
        headers.check(&SINGLE)?;
        let request = Self { method, target, authority, path, query, is_http_1_1: version == Some(1), headers };
        // CVE-2026-61666: a malformed host is refused here, before anybody builds an address from it.
        if request.host().is_some_and(|host| !host.is_empty() && split_host(host).is_none()) {
            return Err(Cause::InvalidHost.into());
        }
        Ok(request)
    }

    /// The method, as written: methods have a case.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as written.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target's path, still percent-encoded; `/` when a target in absolute form has none.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The target's query without its question mark, still percent-encoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The first value of a query parameter, decoded as an HTML form's: `+` is a space, `%2B` a plus sign, and a `%`
    /// without two digits stands for itself. `None` when it is absent or does not decode to UTF-8.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let is_named = |&(key, _): &(&'a str, &'a str)| decoded(key).is_some_and(|key| key == name);
        decoded(pairs.into_iter().find(is_named)?.1)
    }

    /// The first value of a header, without the space around it; `None` when it is absent or not UTF-8. Headers that
    /// the handshake or authorization rests on occur once and are ASCII, or the head was refused.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.first(name)
    }

    /// All values of a header that are UTF-8, in order.
    pub fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'_, 'n, 'a> {
        self.headers.all(name)
    }

    /// All headers: names as written, values as bytes.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter()
    }

    /// The host, and the port if one is given, that the request is for.
    pub fn host(&self) -> Option<&'a str> {
        // RFC 9112 §3.2.2: the host of a target in absolute form takes the place of the `Host` header.
        self.authority.or_else(|| self.header("host"))
    }

    /// The `Origin` header. Browsers always send it, other clients seldom.
    pub fn origin(&self) -> Option<&'a str> {
        self.header("origin")
    }

    /// The token of `Authorization: Bearer` (RFC 6750 §2.1).
    pub fn bearer(&self) -> Option<&'a str> {
        let (scheme, rest) = self.header("authorization")?.split_once(' ')?;
        let token = rest.trim_start_matches(' ');
        let symbols = token.trim_end_matches('=');
        let is_symbol = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let is_valid = !symbols.is_empty() && symbols.bytes().all(is_symbol);
        (scheme.eq_ignore_ascii_case("bearer") && is_valid).then_some(token)
    }

    /// The first value of a cookie, as sent.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.header_values("cookie").flat_map(|line| line.split(';'));
        pairs.find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key.trim_matches([' ', '\t']) == name).then(|| value.trim_matches([' ', '\t']))
        })
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'_, 'a> {
        // RFC 6455 §11.3.4: the header may occur several times in a request, which is the same as one list.
        self.header_values("sec-websocket-protocol").flat_map(list)
    }

    /// Whether this is, or tries to be, a WebSocket handshake and not a plain HTTP request.
    pub fn wants_upgrade(&self) -> bool {
        self.headers.lists("upgrade", "websocket")
    }

    /// Checks everything that RFC 6455 §4.2.1 asks of a client's handshake. Who may connect (origin, path, token) is
    /// the application's to check, before or after.
    ///
    /// # Errors
    /// 405 for a method other than GET, 426 for a request that does not upgrade to version 13, otherwise 400.
    pub fn upgrade(&self) -> Result<Upgrade<'_>, Refusal> {
        // RFC 6455 §4.2.1 (1): GET, HTTP/1.1 or higher, a path or an absolute HTTP URI.
        if self.method != "GET" {
            return Err(Cause::Method.into());
        }
        if !self.is_http_1_1 {
            return Err(Cause::HttpVersion.into());
        }
        if !self.path.starts_with('/') {
            return Err(Cause::InvalidTarget.into());
        }
        // RFC 6455 §4.2.1 (2): a host.
        if !self.headers.contains("host") || self.host().is_none_or(str::is_empty) {
            return Err(Cause::MissingHost.into());
        }
        // RFC 6455 §4.2.1 (3): `Upgrade` with "websocket" in any case.
        if !self.wants_upgrade() {
            return Err(Cause::MissingUpgrade.into());
        }
        // RFC 6455 §4.2.1 (4): `Connection` with "upgrade" in any case.
        if !self.headers.lists("connection", "upgrade") {
            return Err(Cause::MissingConnection.into());
        }
        // RFC 6455 §4.2.1 (6), §4.4: version 13. Earlier drafts are not spoken (GHSA-4mp9-239f-g9hg).
        if self.header("sec-websocket-version") != Some("13") {
            return Err(Cause::Version.into());
        }
        // RFC 6455 §4.2.1 (5): a key that decodes to 16 bytes.
        let key = self.header("sec-websocket-key").ok_or(Cause::MissingKey)?;
        if !is_valid_key(key) {
            return Err(Cause::InvalidKey.into());
        }
        // CVE-2026-69243: bytes that a proxy takes for the body of this request would be frames to us.
        let has_body = self.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding")
                || (name.eq_ignore_ascii_case("content-length") && value.trim_ascii() != b"0")
        });
        if has_body {
            return Err(Cause::Body.into());
        }
        self.check_subprotocols()?;
        // RFC 6455 §9.1: what is outside the grammar fails the handshake, whether or not we use extensions.
        if self.offers().any(|offer| offer.is_err()) || self.lacks_offers() {
            return Err(Cause::InvalidExtensions.into());
        }
        Ok(Upgrade {
            request: self,
            accept: accept_key(key),
            subprotocol: None,
            #[cfg(feature = "deflate")]
            deflate: None,
            headers: Vec::new(),
        })
    }

    /// RFC 6455 §4.1 (10): tokens, each once. Sorting keeps the search for repeats fast however many there are.
    fn check_subprotocols(&self) -> Result<(), Refusal> {
        let mut offered: Vec<_> = self.subprotocols().collect();
        offered.sort_unstable();
        if offered.iter().any(|name| !is_token(name)) || offered.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Cause::InvalidSubprotocols.into());
        }
        Ok(())
    }

    /// RFC 6455 §9.1 and erratum 3433: several headers are one list.
    fn offers(&self) -> impl Iterator<Item = Result<Offer<'a>, super::MalformedExtensions>> + use<'_, 'a> {
        self.header_values("sec-websocket-extensions").flat_map(Offer::list)
    }

    /// RFC 6455 §9.1: if there is a list, it has at least one element.
    fn lacks_offers(&self) -> bool {
        self.headers.contains("sec-websocket-extensions") && self.offers().next().is_none()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("Request");
        shown.field("method", &self.method).field("path", &self.path).field("headers", &names).finish_non_exhaustive()
    }
}

/// A handshake that may be accepted: choose what to answer, then write it.
///
/// What is not chosen is not answered: no subprotocol and no extension, which every client must accept.
pub struct Upgrade<'r> {
    request: &'r Request<'r>,
    accept: [u8; 28],
    subprotocol: Option<&'r str>,
    #[cfg(feature = "deflate")]
    deflate: Option<crate::deflate::Agreed>,
    /// Further header lines, complete.
    headers: Vec<u8>,
}

impl<'r> Upgrade<'r> {
    /// The request that this answers.
    pub fn request(&self) -> &'r Request<'r> {
        self.request
    }

    /// The extensions that the client offers, in its order of preference, for
    /// [`deflate::accept`](crate::deflate::accept).
    pub fn extensions(&self) -> impl Iterator<Item = Offer<'r>> + use<'r> {
        // All are well-formed, or there would be no `Upgrade`.
        self.request.offers().filter_map(Result::ok)
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'r str> + use<'r> {
        self.request.subprotocols()
    }

    /// Answers with the first of `supported`, the server's order of preference, that the client offers; with none if
    /// it offers none of them. Names are compared exactly.
    #[must_use]
    pub fn select_subprotocol(mut self, supported: &[&str]) -> Self {
        self.subprotocol = supported.iter().find_map(|name| self.subprotocols().find(|offered| offered == name));
        self
    }

    /// The subprotocol that will be answered.
    pub fn subprotocol(&self) -> Option<&'r str> {
        self.subprotocol
    }

    /// Answers with what [`deflate::accept`](crate::deflate::accept) made of
    /// [`extensions`](Self::extensions).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<crate::deflate::Agreed>) -> Self {
        self.deflate = agreed;
        self
    }

    /// Adds a header to the response.
    ///
    /// # Errors
    /// When name or value could not be sent as one header, or when the handshake writes this header itself.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidHeader> {
        write_header(name, value, &RESERVED, &mut self.headers)?;
        Ok(self)
    }

    /// Appends the `101 Switching Protocols` response to `out`. Frames may follow at once.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        // RFC 6455 §4.2.2 (5): status 101, then `Upgrade`, `Connection` and `Sec-WebSocket-Accept`.
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        write_line(out, "Sec-WebSocket-Accept", &self.accept);
        if let Some(subprotocol) = self.subprotocol {
            write_line(out, "Sec-WebSocket-Protocol", subprotocol.as_bytes());
        }
        #[cfg(feature = "deflate")]
        if let Some(agreed) = &self.deflate {
            out.extend_from_slice(b"Sec-WebSocket-Extensions: ");
            crate::deflate::write_response(agreed, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Debug for Upgrade<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Upgrade");
        shown.field("request", self.request).field("subprotocol", &self.subprotocol).finish_non_exhaustive()
    }
}

/// Why a request is not upgraded, and the response that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    cause: Cause,
    /// The application's own words.
    text: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// 401: whoever connects must present a valid bearer token.
    pub fn unauthorized(text: impl Into<Cow<'static, str>>) -> Self {
        Self::with_status(401, text)
    }

    /// 403: whoever connects is known, or need not be, but may not.
    pub fn forbidden(text: impl Into<Cow<'static, str>>) -> Self {
        Self::with_status(403, text)
    }

    /// 408: the deadline for the head has passed.
    pub fn timeout() -> Self {
        Cause::Timeout.into()
    }

    /// 503: no room for another connection now.
    pub fn busy(retry_after: Duration) -> Self {
        Self::from(Cause::Busy).retry_after(retry_after)
    }

    /// Any other refusal. A status outside 400 to 599 would not refuse and becomes 500. `text` is the response's body
    /// and is shown to whoever connects.
    pub fn with_status(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let status = if matches!(status, 400..600) { status } else { 500 };
        Self { cause: Cause::Application(status), text: Some(text.into()), retry_after: None }
    }

    /// Tells the client how long to stay away, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What is wrong with the request.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.cause.status()
    }

    /// Appends the whole response to `out`. The connection is to be closed once it is written: what else was received
    /// may be part of a body that nobody asked for.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let status = self.status();
        let body = format!("{self}\n");
        let head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        out.extend_from_slice(head.as_bytes());
        match status {
            401 => write_line(out, "WWW-Authenticate", b"Bearer"),
            // RFC 9110 §15.5.6: 405 says what is allowed.
            405 => write_line(out, "Allow", b"GET"),
            426 => {
                // RFC 9110 §15.5.22: 426 says what to upgrade to.
                write_line(out, "Upgrade", b"websocket");
                // RFC 6455 §4.2.2 (4), §4.4: and which versions are spoken.
                write_line(out, "Sec-WebSocket-Version", b"13");
            }
            _ => {}
        }
        let retry_after = self.retry_after.or(if status == 503 { Some(RETRY_AFTER) } else { None });
        if let Some(delay) = retry_after {
            let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            write_line(out, "Retry-After", seconds.to_string().as_bytes());
        }
        // RFC 9110 §7.8: `Upgrade` is hop by hop, so `Connection` names it.
        let connection: &[u8] = if status == 426 { b"Upgrade, close" } else { b"close" };
        write_line(out, "Connection", connection);
        write_line(out, "Content-Type", b"text/plain; charset=utf-8");
        write_line(out, "Content-Length", body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body.as_bytes());
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { cause, text: None, retry_after: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.cause.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The application refused, with this status.
    Application(u16),
    /// The handshake has a body.
    Body,
    /// No room for another connection.
    Busy,
    /// A header line that continues on the next.
    FoldedLine,
    /// The head exceeds [`HeadLimits::bytes`].
    HeadTooLarge,
    /// Not HTTP/1.1.
    HttpVersion,
    /// The head ends before its empty line.
    Incomplete,
    /// `Sec-WebSocket-Extensions` does not follow its grammar.
    InvalidExtensions,
    /// The host is not a host with an optional port.
    InvalidHost,
    /// `Sec-WebSocket-Key` is not base64 of 16 bytes.
    InvalidKey,
    /// `Sec-WebSocket-Protocol` holds something that is no token, or a token twice.
    InvalidSubprotocols,
    /// The request target is neither a path nor an absolute HTTP URI.
    InvalidTarget,
    /// A line that does not end with CR LF.
    LineEnd,
    /// The head is not HTTP.
    Malformed,
    /// The method is not GET.
    Method,
    /// `Connection` does not name `Upgrade`.
    MissingConnection,
    /// No host.
    MissingHost,
    /// No `Sec-WebSocket-Key`.
    MissingKey,
    /// `Upgrade` does not name `websocket`.
    MissingUpgrade,
    /// A header of the handshake holds bytes outside ASCII.
    NotAscii,
    /// A NUL byte in the head.
    Nul,
    /// The origin may not connect.
    Origin,
    /// A header twice that may occur once.
    RepeatedHeader(&'static str),
    /// The head took too long.
    Timeout,
    /// The headers exceed [`HeadLimits::headers`].
    TooManyHeaders,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
}

impl Cause {
    /// The HTTP status that answers it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Application(status) => status,
            Self::Origin => 403,
            Self::Method => 405,
            Self::Timeout => 408,
            Self::MissingConnection | Self::MissingUpgrade | Self::Version => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::Busy => 503,
            _ => 400,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Application(status) => {
                return write!(f, "The server refused the connection with status {status}.");
            }
            Self::RepeatedHeader(name) => {
                return write!(f, "The {name} header may occur only once in a request.");
            }
            Self::Body => "A WebSocket handshake has no body: leave out Content-Length and Transfer-Encoding.",
            Self::Busy => "The server has no room for another connection; try again later.",
            Self::FoldedLine => "A header line begins with a space; folded headers are not accepted.",
            Self::HeadTooLarge => "The request's head is too large; send fewer or shorter headers and cookies.",
            Self::HttpVersion => "A WebSocket handshake needs HTTP/1.1.",
            Self::Incomplete => "The request's head is incomplete: the empty line at its end is missing.",
            Self::InvalidExtensions => "The Sec-WebSocket-Extensions header is malformed.",
            Self::InvalidHost => "The Host header is not a host name or address with an optional port.",
            Self::InvalidKey => "The Sec-WebSocket-Key header is not the base64 encoding of 16 bytes.",
            Self::InvalidSubprotocols => "The Sec-WebSocket-Protocol header is not a list of different tokens.",
            Self::InvalidTarget => "The request target is neither a path nor an absolute http or https URI.",
            Self::LineEnd => "A line of the request's head does not end with CR LF.",
            Self::Malformed => "The request is not valid HTTP/1.1.",
            Self::Method => "A WebSocket handshake uses the method GET.",
            Self::MissingConnection => "This address speaks WebSocket; the Connection header must name Upgrade.",
            Self::MissingHost => "The Host header is missing.",
            Self::MissingKey => "The Sec-WebSocket-Key header is missing.",
            Self::MissingUpgrade => "This address speaks WebSocket; the Upgrade header must name websocket.",
            Self::NotAscii => "A header of the handshake holds bytes outside ASCII.",
            Self::Nul => "The request's head holds a NUL byte.",
            Self::Origin => "Pages of this origin may not connect; the server must allow it.",
            Self::Timeout => "The request's head took too long to arrive.",
            Self::TooManyHeaders => "The request has too many headers.",
            Self::Version => "The server speaks WebSocket version 13 only.",
        })
    }
}

/// Which pages may connect (RFC 6455 §4.2.2 (4), §10.2).
///
/// A browser sends cookies with a WebSocket handshake whatever page opens it, and the same-origin policy does not apply
/// (CVE-2020-14368, CVE-2026-44211, CVE-2026-59390): without one of these checks any page that a user visits can act
/// for that user, on a server on the loopback address too. Other clients send no origin and are let through.
pub mod origin {
    use super::super::split_host;
    use super::{Cause, Refusal, Request};

    /// Lets a page through that was loaded from the host and port that the request is for.
    ///
    /// Whether the page came by http or https is not compared, since behind a proxy that ends TLS a server cannot know
    /// which was right; [`same_origin`] compares it.
    pub fn same_host(request: &Request<'_>) -> Result<(), Refusal> {
        check(request, |origin| {
            (origin.is("http") || origin.is("https")) && origin.is_at(request.host(), origin.scheme)
        })
    }

    /// Lets a page through that was loaded from the same scheme, host and port as the request. `secure` says that the
    /// browser's connection is encrypted, here or at a proxy.
    pub fn same_origin(request: &Request<'_>, secure: bool) -> Result<(), Refusal> {
        let scheme = if secure { "https" } else { "http" };
        check(request, |origin| origin.is(scheme) && origin.is_at(request.host(), scheme))
    }

    /// Lets a page through whose origin is one of `allowed`, such as `https://chat.example` or
    /// `http://localhost:5173`. Scheme, host and port are compared, a default port may be left out; there are no
    /// patterns. An entry that is no origin matches nothing.
    pub fn allowed(request: &Request<'_>, allowed: &[&str]) -> Result<(), Refusal> {
        check(request, |origin| {
            allowed.iter().filter_map(|entry| Origin::parse(entry)).any(|entry| entry.matches(origin))
        })
    }

    fn check(request: &Request<'_>, is_allowed: impl Fn(&Origin<'_>) -> bool) -> Result<(), Refusal> {
        // A header that is there but unreadable was refused with the head, so `None` means absent: not a browser.
        let Some(text) = request.origin() else {
            return Ok(());
        };
        // "null" (sandboxed frames, local files) is no origin and fails here, as does a list of origins.
        match Origin::parse(text) {
            Some(origin) if is_allowed(&origin) => Ok(()),
            _ => Err(Cause::Origin.into()),
        }
    }

    /// The serialization of RFC 6454 §6.2: no path, not even a slash.
    struct Origin<'a> {
        scheme: &'a str,
        host: &'a str,
        port: Option<u16>,
    }

    impl<'a> Origin<'a> {
        fn parse(text: &'a str) -> Option<Self> {
            let (scheme, rest) = text.split_once("://")?;
            let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            let (host, port) = split_host(rest)?;
            let is_valid =
                scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_scheme);
            is_valid.then_some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
        }

        fn is(&self, scheme: &str) -> bool {
            self.scheme.eq_ignore_ascii_case(scheme)
        }

        /// Whether this is the host and port of a `Host` header, which leaves out the default port of `scheme`.
        fn is_at(&self, host: Option<&str>, scheme: &str) -> bool {
            host.and_then(split_host).is_some_and(|(name, port)| {
                self.host.eq_ignore_ascii_case(name) && self.port == port.or_else(|| default_port(scheme))
            })
        }

        fn matches(&self, other: &Origin<'_>) -> bool {
            self.is(other.scheme) && self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
        }
    }

    fn default_port(scheme: &str) -> Option<u16> {
        match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => Some(80),
            _ if scheme.eq_ignore_ascii_case("https") => Some(443),
            _ => None,
        }
    }
}

/// Headers that may occur once in a request (RFC 6455 §11.3, RFC 9110 §7.2, §8.6, §11.6.2). Of two that differ, a proxy
/// might trust one and we the other.
const SINGLE: [&str; 6] =
    ["authorization", "content-length", "host", "origin", "sec-websocket-key", "sec-websocket-version"];

/// Response headers that would contradict the handshake's own.
const RESERVED: [&str; 4] = ["connection", "content-length", "transfer-encoding", "upgrade"];

/// What 503 says when the application does not.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Authority, path and query of a request target (RFC 9112 §3.2). `*` and the authority form, which no handshake may
/// use but plain HTTP requests do, count as paths.
fn split_target(target: &str) -> Option<(Option<&str>, &str, Option<&str>)> {
    // RFC 6455 §3: a fragment is never sent. RFC 3986: everything else is ASCII.
    if !target.is_ascii() || target.contains('#') {
        return None;
    }
    let scheme = |name: &str| target.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name)).map(str::len);
    let (authority, rest) = match scheme("http://").or_else(|| scheme("https://")) {
        Some(length) => {
            let rest = &target[length..];
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if authority.is_empty() {
                return None;
            }
            (Some(authority), rest)
        }
        None => (None, target),
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Some((authority, if path.is_empty() && authority.is_some() { "/" } else { path }, query))
}

/// Decodes one name or value of a query.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|value| value as u8);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The reason phrase of a status (RFC 9110 §15.5, §15.6); it may be empty.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::HeadScan;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// The lines of a good handshake.
    const GOOD: [&str; 6] = [
        "GET /chat HTTP/1.1",
        "Host: server.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];

    /// The good handshake with some lines exchanged for others, left out (an empty replacement) or added.
    fn head(changes: &[(&str, &str)]) -> String {
        let mut lines: Vec<_> = GOOD.iter().map(|&line| line.to_owned()).collect();
        for &(old, new) in changes {
            match lines.iter().position(|line| !old.is_empty() && line.starts_with(old)) {
                Some(index) if new.is_empty() => drop(lines.remove(index)),
                Some(index) => new.clone_into(&mut lines[index]),
                None if old.is_empty() => lines.push(new.to_owned()),
                None => panic!("no line begins with {old}"),
            }
        }
        lines.join("\r\n") + "\r\n\r\n"
    }

    fn parse(head: &str) -> Result<Request<'_>, Refusal> {
        Request::parse(head.as_bytes(), &HeadLimits::default())
    }

    fn request(head: &str) -> Request<'_> {
        parse(head).expect("a well-formed head")
    }

    /// Why the good handshake with these changes is refused.
    fn cause(changes: &[(&str, &str)]) -> Option<Cause> {
        let head = head(changes);
        let refusal = parse(&head).and_then(|request| request.upgrade().map(drop)).err()?;
        Some(refusal.cause())
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    fn refused(refusal: &Refusal) -> String {
        text(|out| refusal.write_response(out))
    }

    // RFC 6455 §4.2.2 (5.1): the response has status 101.
    // RFC 6455 §4.2.2 (5.2): and `Upgrade: websocket`.
    // RFC 6455 §4.2.2 (5.3): and `Connection: Upgrade`.
    // RFC 6455 §4.2.2 (5.4): and `Sec-WebSocket-Accept` for the client's key; an empty line ends it.
    #[test]
    fn the_sample_handshake_gets_the_sample_response() {
        let head = head(&[]);
        let request = request(&head);
        let response = text(|out| request.upgrade().expect("good").write_response(out));
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(response, expected);
    }

    // RFC 6455 §4.2.1 (1): GET.
    #[test]
    fn a_method_other_than_get_is_refused_with_405() {
        for method in ["POST", "HEAD", "OPTIONS", "get", "CONNECT"] {
            let line = format!("{method} /chat HTTP/1.1");
            assert_eq!(cause(&[("GET", &line)]), Some(Cause::Method), "{method}");
        }
        let response = refused(&Cause::Method.into());
        assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n"), "{response}");
    }

    // RFC 6455 §4.2.1 (1): HTTP/1.1 or higher.
    #[test]
    fn a_version_of_http_below_1_1_is_refused() {
        assert_eq!(cause(&[("GET", "GET /chat HTTP/1.0")]), Some(Cause::HttpVersion));
        for line in
            ["GET /chat HTTP/0.9", "GET /chat", "GET /chat HTTP/2.0", "GET /chat http/1.1", "GET  /chat HTTP/1.1"]
        {
            assert_eq!(cause(&[("GET", line)]), Some(Cause::Malformed), "{line}");
        }
    }

    // RFC 6455 §4.2.1 (1): the request target is a path or an absolute HTTP or HTTPS URI.
    // RFC 6455 §3: a resource name has no fragment.
    #[test]
    fn a_target_is_a_path_or_an_absolute_uri() {
        for (target, path, query, host) in [
            ("/", "/", None, "server.example"),
            ("/chat?a=1?b", "/chat", Some("a=1?b"), "server.example"),
            ("/chat?", "/chat", Some(""), "server.example"),
            ("//a/b", "//a/b", None, "server.example"),
            ("http://other.example/x?y", "/x", Some("y"), "other.example"),
            ("HTTPS://other.example:8443", "/", None, "other.example:8443"),
            ("http://other.example?q", "/", Some("q"), "other.example"),
        ] {
            let head = head(&[("GET", &format!("GET {target} HTTP/1.1"))]);
            let request = request(&head);
            assert_eq!((request.path(), request.query(), request.host()), (path, query, Some(host)), "{target}");
            assert_eq!(request.target(), target);
            assert!(request.upgrade().is_ok());
        }
        for target in
            ["chat", "*", "server.example:80", "/chat#x", "/ch\u{e4}t", "ftp://a/", "http://", "http:///x", "https:"]
        {
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(cause(&[("GET", &line)]), Some(Cause::InvalidTarget), "{target}");
        }
        assert_eq!(cause(&[("GET", "GET http://user@a/ HTTP/1.1")]), Some(Cause::InvalidHost));
    }

    // RFC 6455 §4.2.1 (2): a `Host` header with the server's authority.
    // CVE-2026-61666: a malformed host is refused with a clear answer.
    #[test]
    fn a_missing_or_malformed_host_is_refused() {
        assert_eq!(cause(&[("Host", "")]), Some(Cause::MissingHost));
        assert_eq!(cause(&[("Host", "Host:")]), Some(Cause::MissingHost));
        assert_eq!(cause(&[("Host", ""), ("GET", "GET http://a/ HTTP/1.1")]), Some(Cause::MissingHost));
        for host in
            ["a b", "a:b", "a:99999", "[::1", "a/b", "http://a", "u@a", "a,b:1:2", "<a>", "[]:80", ":80", "a\\b"]
        {
            assert_eq!(cause(&[("Host", &format!("Host: {host}"))]), Some(Cause::InvalidHost), "{host}");
        }
        for host in ["a", "A.example:1", "[::1]:9000", "127.0.0.1:0"] {
            assert_eq!(cause(&[("Host", &format!("Host: \t{host} "))]), None, "{host}");
        }
    }

    // RFC 6455 §4.2.1 (3): `Upgrade` contains "websocket", in any case.
    // RFC 6455 §4.2.1 (4): `Connection` contains "upgrade", in any case.
    #[test]
    fn upgrade_and_connection_name_the_protocol_exactly() {
        for (line, expected) in [
            ("Upgrade: WebSocket", None),
            ("uPGRADE: h2c, websocket", None),
            ("Upgrade: ,\twebsocket ,", None),
            ("Upgrade:", Some(Cause::MissingUpgrade)),
            ("Upgrade: websockets", Some(Cause::MissingUpgrade)),
            ("Upgrade: web socket", Some(Cause::MissingUpgrade)),
            ("Upgrade: websocket/13", Some(Cause::MissingUpgrade)),
            ("Upgrade: \"websocket\"", Some(Cause::MissingUpgrade)),
            ("", Some(Cause::MissingUpgrade)),
        ] {
            assert_eq!(cause(&[("Upgrade", line)]), expected, "{line}");
        }
        for (line, expected) in [
            ("Connection: upgrade", None),
            ("Connection: keep-alive, UPGRADE", None),
            ("Connection: keep-alive", Some(Cause::MissingConnection)),
            ("Connection: upgrades", Some(Cause::MissingConnection)),
            ("", Some(Cause::MissingConnection)),
        ] {
            assert_eq!(cause(&[("Connection", line)]), expected, "{line}");
        }
        assert_eq!(cause(&[("Connection", "Connection: keep-alive"), ("", "Connection: Upgrade")]), None);
    }

    #[test]
    fn a_plain_http_request_is_told_from_a_handshake() {
        let plain = "POST /apps/1/events?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        assert!(!request(plain).wants_upgrade());
        assert!(request(&head(&[("Sec-WebSocket-Version", "")])).wants_upgrade());
        assert_eq!(request(plain).method(), "POST");
        assert!(!request("OPTIONS * HTTP/1.0\r\n\r\n").wants_upgrade());
    }

    // RFC 6455 §4.2.1 (6): `Sec-WebSocket-Version` is 13.
    // RFC 6455 §4.4: any other version is answered with the versions that are spoken.
    // RFC 6455 §4.2.2 (4): the answer is an HTTP error such as 426 with `Sec-WebSocket-Version`.
    // GHSA-4mp9-239f-g9hg: drafts 0, 7 and 8 are refused, with and without `Upgrade`; so are versions to come.
    // CVE-2026-54466: draft 75 and 76, whose lengths had no end, are not spoken.
    #[test]
    fn any_version_but_13_is_refused_with_426() {
        for version in ["0", "7", "8", "12", "14", "255", "013", "13, 8", "13.0", "", "x"] {
            let line = format!("Sec-WebSocket-Version: {version}");
            assert_eq!(cause(&[("Sec-WebSocket-Version", &line)]), Some(Cause::Version), "{version}");
            let without_upgrade = [("Sec-WebSocket-Version", line.as_str()), ("Upgrade", "")];
            assert_eq!(cause(&without_upgrade), Some(Cause::MissingUpgrade), "{version}");
        }
        assert_eq!(cause(&[("Sec-WebSocket-Version", "")]), Some(Cause::Version));
        let draft_76 =
            [("Sec-WebSocket-Version", "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5"), ("Sec-WebSocket-Key:", "")];
        assert_eq!(cause(&draft_76), Some(Cause::Version));
        for cause in [Cause::Version, Cause::MissingUpgrade, Cause::MissingConnection] {
            let response = refused(&cause.into());
            let expected = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                            Connection: Upgrade, close\r\n";
            assert!(response.starts_with(expected), "{response}");
        }
    }

    // RFC 6455 §4.2.1 (5): `Sec-WebSocket-Key` decodes to 16 bytes.
    #[test]
    fn a_missing_or_malformed_key_is_refused() {
        assert_eq!(cause(&[("Sec-WebSocket-Key", "")]), Some(Cause::MissingKey));
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25j ZQ=="] {
            let line = format!("Sec-WebSocket-Key: {key}");
            assert_eq!(cause(&[("Sec-WebSocket-Key", &line)]), Some(Cause::InvalidKey), "{key}");
        }
    }

    // RFC 6455 §11.3.1: `Sec-WebSocket-Key` occurs once in a request.
    // RFC 6455 §11.3.5: `Sec-WebSocket-Version` occurs once in a request.
    #[test]
    fn a_header_that_may_occur_once_is_refused_twice() {
        for (line, name) in [
            (format!("SEC-WEBSOCKET-KEY: {KEY}"), "sec-websocket-key"),
            ("sec-websocket-version: 13".to_owned(), "sec-websocket-version"),
            ("host: server.example".to_owned(), "host"),
        ] {
            assert_eq!(cause(&[("", &line)]), Some(Cause::RepeatedHeader(name)));
        }
        let twice = |line: &str| cause(&[("", line), ("", line)]);
        assert_eq!(twice("Origin: http://a"), Some(Cause::RepeatedHeader("origin")));
        assert_eq!(twice("Authorization: Bearer a"), Some(Cause::RepeatedHeader("authorization")));
        assert_eq!(twice("Content-Length: 0"), Some(Cause::RepeatedHeader("content-length")));
        assert_eq!(twice("X-Other: 0"), None);
    }

    // CVE-2026-69243: a handshake with a body is refused, or the body would be read as frames.
    #[test]
    fn a_handshake_with_a_body_is_refused() {
        for line in [
            "Content-Length: 5",
            "Content-Length: 00",
            "Content-Length: +0",
            "Content-Length:",
            "Content-Length: 0, 5",
            "Transfer-Encoding: chunked",
            "transfer-encoding: identity",
            "Transfer-Encoding:",
        ] {
            assert_eq!(cause(&[("", line)]), Some(Cause::Body), "{line}");
        }
        assert_eq!(cause(&[("", "Content-Length: 0")]), None);
    }

    // RFC 6455 §9.1: several `Sec-WebSocket-Extensions` headers are the same as one list (erratum 3433 for responses).
    // RFC 6455 §11.3.2: the header may occur several times in a request.
    #[test]
    fn repeated_extension_headers_are_one_list() {
        let head = head(&[("", "Sec-WebSocket-Extensions: a; b=1, c"), ("", "sec-websocket-extensions: d")]);
        let request = request(&head);
        let names: Vec<_> = request.upgrade().expect("good").extensions().map(|offer| offer.name()).collect();
        assert_eq!(names, ["a", "c", "d"]);
    }

    // RFC 6455 §9.1: a server that receives a malformed list fails the handshake.
    #[test]
    fn malformed_extensions_are_refused() {
        for value in ["", ",", "a;", "a b", "a;b=\"", "a, ;", "a;b=\"c d\""] {
            let line = format!("Sec-WebSocket-Extensions: {value}");
            assert_eq!(cause(&[("", &line)]), Some(Cause::InvalidExtensions), "{value}");
        }
        let good_then_bad = [("", "Sec-WebSocket-Extensions: a"), ("", "Sec-WebSocket-Extensions: b=1")];
        assert_eq!(cause(&good_then_bad), Some(Cause::InvalidExtensions));
    }

    // RFC 6455 §4.2.2 (4): the subprotocol is one that the client offered, or none.
    // RFC 6455 §4.2.2 (5.5): it is answered in `Sec-WebSocket-Protocol`, once.
    // RFC 6455 §11.3.4: the header may occur several times in a request.
    #[test]
    fn the_subprotocol_is_the_servers_favourite_among_the_offered() {
        let head = head(&[("", "Sec-WebSocket-Protocol: v1, v2"), ("", "Sec-WebSocket-Protocol:\tbearer.abc ,V3")]);
        let request = request(&head);
        let upgrade = |supported: &[&str]| request.upgrade().expect("good").select_subprotocol(supported);
        assert_eq!(upgrade(&[]).subprotocols().collect::<Vec<_>>(), ["v1", "v2", "bearer.abc", "V3"]);
        for (supported, expected) in [
            (&["v2", "v1"][..], Some("v2")),
            (&["v0", "v1"], Some("v1")),
            (&["v3"], None),
            (&["v"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(upgrade(supported).subprotocol(), expected, "{supported:?}");
            let response = text(|out| upgrade(supported).write_response(out));
            let lines: Vec<_> = response.lines().filter(|line| line.starts_with("Sec-WebSocket-Protocol")).collect();
            let line = expected.map(|name| format!("Sec-WebSocket-Protocol: {name}"));
            assert_eq!(lines, line.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    // RFC 6455 §4.1 (10): offered subprotocols are tokens, each once.
    // RFC 6455 §4.2.1 (8): a list of subprotocols, in the client's order of preference.
    #[test]
    fn subprotocols_that_are_no_tokens_or_repeated_are_refused() {
        for value in ["a, a", "a b", "a/b", "a;b", "\"a\"", "{a}", "a, b, a"] {
            let line = format!("Sec-WebSocket-Protocol: {value}");
            assert_eq!(cause(&[("", &line)]), Some(Cause::InvalidSubprotocols), "{value}");
        }
        assert_eq!(cause(&[("", "Sec-WebSocket-Protocol: a, A, b")]), None);
    }

    // CVE-2021-32640: a subprotocol followed by 32 000 spaces is looked at in linear time.
    #[test]
    fn a_subprotocol_with_many_spaces_takes_linear_time() {
        let limits = HeadLimits { bytes: 1 << 20, ..HeadLimits::default() };
        let values = [
            format!("b{}x", " ".repeat(32_000)),
            "b, ".repeat(10_000),
            (0..60_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","),
        ];
        let began = std::time::Instant::now();
        for (value, is_good) in values.iter().zip([false, false, true]) {
            let head = head(&[("", &format!("Sec-WebSocket-Protocol: {value}"))]);
            let request = Request::parse(head.as_bytes(), &limits).expect("within the limits");
            assert_eq!(request.upgrade().is_ok(), is_good);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    // RFC 6455 §4.2.1 (9): extensions that the server does not know are ignored.
    // RFC 6455 §4.2.1 (10): so are other headers.
    #[test]
    fn what_the_server_does_not_know_is_ignored() {
        let changes =
            [("", "Sec-WebSocket-Extensions: x-unknown; a"), ("", "Sec-WebSocket-Protocol: x"), ("", "X-Any: 1")];
        let head = head(&changes);
        let request = request(&head);
        let response = text(|out| request.upgrade().expect("good").write_response(out));
        assert!(!response.contains("Extensions") && !response.contains("Protocol:"), "{response}");
    }

    // RFC 6455 §4.2.2 (5.6): accepted extensions are answered in `Sec-WebSocket-Extensions`.
    // RFC 7692 §5: the answer holds the parameters agreed on, for one of the offers.
    #[cfg(feature = "deflate")]
    #[test]
    fn deflate_is_answered_when_it_is_offered_and_wanted() {
        use crate::deflate;

        let value = "permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits";
        let head = head(&[("", &format!("Sec-WebSocket-Extensions: {value}"))]);
        let request = request(&head);
        let upgrade = request.upgrade().expect("good");
        let config = deflate::Config { outgoing_takeover: true, incoming_bits: 12, ..deflate::Config::default() };
        let agreed = deflate::accept(upgrade.extensions(), &config);
        let response = text(|out| upgrade.with_deflate(agreed).write_response(out));
        let line = "\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; client_max_window_bits=12\r\n";
        assert!(response.contains(line), "{response}");
    }

    // CVE-2026-1527: a response header of the application's cannot add lines of its own.
    #[test]
    fn a_response_header_that_would_forge_others_is_refused() {
        let head = head(&[]);
        let request = request(&head);
        let upgrade = || request.upgrade().expect("good");
        assert_eq!(upgrade().header("X", "a\r\nSet-Cookie: b").err(), Some(InvalidHeader::Value));
        assert_eq!(upgrade().header("X\r\nY", "a").err(), Some(InvalidHeader::Name));
        for name in ["Connection", "content-length", "Transfer-Encoding", "Upgrade", "Sec-WebSocket-Accept"] {
            assert_eq!(upgrade().header(name, "a").err(), Some(InvalidHeader::Reserved));
        }
        let response = text(|out| upgrade().header("X-Node", "a b").expect("good").write_response(out));
        assert!(response.ends_with("\r\nX-Node: a b\r\n\r\n"), "{response}");
    }

    // CVE-2024-37890: 10 000 headers are an error with a status, under any limit on bytes.
    // CVE-2026-54465: the server limits headers in number and in bytes.
    #[test]
    fn a_head_over_the_limits_is_refused_with_431() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
        let wide = HeadLimits { bytes: 1 << 20, headers: 100 };
        let statuses = [HeadLimits::default(), wide]
            .map(|limits| Request::parse(many.as_bytes(), &limits).map(drop).map_err(|refusal| refusal.status()));
        assert_eq!(statuses, [Err(431), Err(431)]);
        let hundred = head(&vec![("", "X: y"); 95]);
        assert_eq!(request(&hundred).headers().count(), 100);
        assert_eq!(cause(&[("", "X: y"); 96]), Some(Cause::TooManyHeaders));
    }

    // RFC 6455 §4.2.1: a request that does not match the description is not processed but answered with an error.
    #[test]
    fn header_lines_that_http_forbids_are_refused() {
        for line in [": x", "X y: z", "X : y", "X", "X\u{e9}: y", "X: a\u{7f}", "X: a\u{1}", "X(: y", "\"X\": y"] {
            assert_eq!(cause(&[("", line)]), Some(Cause::Malformed), "{line:?}");
        }
        for line in ["Origin: http://\u{e9}", "Connection: \u{e9}", "Sec-WebSocket-Protocol: \u{e9}"] {
            assert_eq!(cause(&[("", line)]), Some(Cause::NotAscii), "{line:?}");
        }
        assert_eq!(cause(&[("", "X: \u{e9}")]), None);
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\n").map(drop).map_err(|r| r.cause()), Err(Cause::Incomplete));
    }

    #[test]
    fn an_origin_that_is_not_utf_8_is_refused_and_not_taken_for_absent() {
        let head = [head(&[]).trim_end().as_bytes(), b"\r\nOrigin: http://\xff\r\n\r\n"].concat();
        let refusal = Request::parse(&head, &HeadLimits::default()).map(drop);
        assert_eq!(refusal, Err(Cause::NotAscii.into()));
    }

    #[test]
    fn query_values_are_percent_decoded() {
        let head = head(&[("GET", "GET /?a=1&b=%C3%A9%2b+%zz%4&a=2&%63=x&d&bad=%ff& HTTP/1.1")]);
        let request = request(&head);
        for (name, value) in
            [("a", Some("1")), ("b", Some("é+ %zz%4")), ("c", Some("x")), ("d", Some("")), ("bad", None), ("e", None)]
        {
            assert_eq!(request.query_value(name).as_deref(), value, "{name}");
        }
        assert!(matches!(request.query_value("a"), Some(Cow::Borrowed("1"))));
    }

    #[test]
    fn bearer_tokens_and_cookies_are_found() {
        for (line, expected) in [
            ("Authorization: Bearer abc.DEF-_~+/9==", Some("abc.DEF-_~+/9==")),
            ("authorization: bEARER  x", Some("x")),
            ("Authorization: Bearer", None),
            ("Authorization: Bearer ==", None),
            ("Authorization: Bearer a b", None),
            ("Authorization: Bearer a=b", None),
            ("Authorization: Basic YTpi", None),
        ] {
            assert_eq!(request(&head(&[("", line)])).bearer(), expected, "{line}");
        }
        let head = head(&[("", "Cookie: a=1; session=x=y ;b"), ("", "Cookie: c=\"3\"; a=9")]);
        let request = request(&head);
        for (name, value) in
            [("a", Some("1")), ("session", Some("x=y")), ("c", Some("\"3\"")), ("b", None), ("A", None)]
        {
            assert_eq!(request.cookie(name), value, "{name}");
        }
    }

    #[test]
    fn debug_output_holds_no_secrets() {
        let changes =
            [("GET", "GET /chat?token=s3cret HTTP/1.1"), ("", "Authorization: Bearer s3cret"), ("", "Cookie: s3cret")];
        let head = head(&changes);
        let request = request(&head);
        let shown = format!("{request:?} {:?}", request.upgrade().expect("good").header("X", "s3cret"));
        assert!(shown.contains("/chat") && shown.contains("Authorization") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_refusal_is_a_complete_response() {
        let busy = Refusal::busy(Duration::from_millis(2_500));
        for (refusal, status, expected) in [
            (Refusal::from(Cause::Malformed), 400, "Bad Request"),
            (Refusal::unauthorized("who are you?"), 401, "Unauthorized\r\nWWW-Authenticate: Bearer"),
            (Refusal::forbidden("not you"), 403, "Forbidden"),
            (Cause::Origin.into(), 403, "Forbidden"),
            (Refusal::timeout(), 408, "Request Timeout"),
            (Refusal::with_status(413, "too much"), 413, "Content Too Large"),
            (Cause::HeadTooLarge.into(), 431, "Request Header Fields Too Large"),
            (busy, 503, "Service Unavailable\r\nRetry-After: 3"),
            (Refusal::with_status(503, "resting"), 503, "Service Unavailable\r\nRetry-After: 5"),
            (
                Refusal::with_status(429, "slowly").retry_after(Duration::from_secs(9)),
                429,
                "Too Many Requests\r\nRetry-After: 9",
            ),
            (Refusal::with_status(200, "a mistake"), 500, "Internal Server Error"),
            (Refusal::with_status(101, "a mistake"), 500, "Internal Server Error"),
        ] {
            assert_eq!(refusal.status(), status);
            let response = refused(&refusal);
            let body = format!("{refusal}\n");
            let length = body.len();
            let rest = format!(
                "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            assert_eq!(response, format!("HTTP/1.1 {status} {expected}{rest}"));
        }
    }

    // RFC 6455 §4.2.1 (7): `Origin` names the page on whose behalf a browser connects; others may leave it out.
    // RFC 6455 §4.2.2 (4): an unacceptable origin is answered with an HTTP error such as 403.
    // RFC 6455 §10.2: a server that is not for every page checks the origin.
    // CVE-2020-14368: an origin is compared as a whole: no suffix, no prefix, no substring.
    // CVE-2026-44211: a server on the loopback address checks it too.
    // CVE-2026-59390: the check needs no configuration.
    #[test]
    fn only_pages_of_the_same_host_pass() {
        for (host, origin, passes) in [
            ("chat.example", "https://chat.example", true),
            ("chat.example", "http://chat.example", true),
            ("chat.example", "HTTPS://CHAT.example", true),
            ("chat.example:443", "https://chat.example", true),
            ("chat.example", "https://chat.example:443", true),
            ("chat.example:80", "http://chat.example", true),
            ("chat.example:8080", "http://chat.example:8080", true),
            ("[::1]:9000", "http://[::1]:9000", true),
            ("127.0.0.1:9000", "http://127.0.0.1:9000", true),
            ("chat.example", "null", false),
            ("chat.example", "", false),
            ("chat.example", "chat.example", false),
            ("chat.example", "https://", false),
            ("chat.example", "https://evil.example", false),
            ("chat.example", "https://chat.example.evil.example", false),
            ("chat.example", "https://evil-chat.example", false),
            ("chat.example", "https://sub.chat.example", false),
            ("chat.example", "https://example", false),
            ("sub.chat.example", "https://chat.example", false),
            ("chat.example", "https://chat.example.", false),
            ("chat.example", "https://chat.example@evil.example", false),
            ("chat.example", "https://evil.example/chat.example", false),
            ("chat.example", "https://evil.example?chat.example", false),
            ("chat.example", "https://evil.example#chat.example", false),
            ("chat.example", "https://chat.example/", false),
            ("chat.example", "https://chat.example https://evil.example", false),
            ("chat.example", "https://evil.example, https://chat.example", false),
            ("chat.example", "https://chat.example:8443", false),
            ("chat.example", "https://chat.example:80", false),
            ("chat.example:80", "https://chat.example", false),
            ("chat.example:8080", "http://chat.example", false),
            ("chat.example", "ftp://chat.example", false),
            ("chat.example", "chrome-extension://chat.example", false),
            ("chat.example", "file://", false),
            ("127.0.0.1:9000", "http://localhost:9000", false),
            ("127.0.0.1:9000", "https://evil.example", false),
            ("localhost:9000", "http://localhost:5173", false),
        ] {
            let head = head(&[("Host", &format!("Host: {host}")), ("", &format!("Origin: {origin}"))]);
            let expected = if passes { Ok(()) } else { Err(Refusal::from(Cause::Origin)) };
            assert_eq!(origin::same_host(&request(&head)), expected, "{origin} at {host}");
        }
        assert_eq!(origin::same_host(&request(&head(&[]))), Ok(()));
        assert_eq!(Refusal::from(Cause::Origin).status(), 403);
    }

    // RFC 6455 §10.2: where the scheme is known, it is compared too.
    #[test]
    fn only_pages_of_the_same_scheme_pass_where_it_is_known() {
        for (host, origin, secure, passes) in [
            ("chat.example", "https://chat.example", true, true),
            ("chat.example", "http://chat.example", false, true),
            ("chat.example", "http://chat.example", true, false),
            ("chat.example", "https://chat.example", false, false),
            ("chat.example", "http://chat.example:443", true, false),
            ("chat.example:443", "https://chat.example", true, true),
            ("chat.example:80", "https://chat.example", true, false),
        ] {
            let head = head(&[("Host", &format!("Host: {host}")), ("", &format!("Origin: {origin}"))]);
            assert_eq!(origin::same_origin(&request(&head), secure).is_ok(), passes, "{origin} at {host}, {secure}");
        }
    }

    // GHSA-frjg-g767-7363: an allow-list names whole origins.
    #[test]
    fn only_listed_origins_pass_an_allow_list() {
        let list =
            ["https://chat.example", "http://localhost:5173", "app://shell", "*", "https://*.example", "null", ""];
        for (origin, passes) in [
            ("https://chat.example", true),
            ("https://CHAT.example:443", true),
            ("http://localhost:5173", true),
            ("app://shell", true),
            ("http://chat.example", false),
            ("https://chat.example:444", false),
            ("https://a.example", false),
            ("https://chat.example.evil.example", false),
            ("http://localhost", false),
            ("http://localhost:51730", false),
            ("app://shell2", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            let head = head(&[("", &format!("Origin: {origin}"))]);
            assert_eq!(origin::allowed(&request(&head), &list).is_ok(), passes, "{origin}");
        }
        assert!(origin::allowed(&request(&head(&[])), &[]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes, &HeadLimits::default());
        }

        // CVE-2026-61666: no value of a header, `Host` among them, makes the parser or its answers panic.
        #[test]
        fn any_header_line_is_parsed_without_a_panic(
            name in prop::sample::select(&["Host", "Origin", "Cookie", "Authorization", "Upgrade", "Sec-WebSocket-Protocol",
                "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Content-Length", "X"][..]),
            value in "([ -~]{0,30}|[\\PC\\x00-\\x20]{0,10}|[a-z\\[\\]:0-9@,;=\"\\\\]{0,20})",
            target in "/[!-~]{0,20}",
        ) {
            let line = format!("{name}: {value}");
            let get = format!("GET {target} HTTP/1.1");
            let head = head(&[("", &line), ("GET", &get)]);
            if let Ok(request) = parse(&head) {
                let _ = (request.host(), request.bearer(), request.cookie("a"), request.query_value("a"));
                let _ = (origin::same_host(&request), origin::allowed(&request, &["https://a"]));
                if let Ok(upgrade) = request.upgrade() {
                    let count = upgrade.extensions().count() + upgrade.subprotocols().count();
                    prop_assert!(count <= value.len());
                    let mut out = Vec::new();
                    upgrade.write_response(&mut out);
                    // One head and nothing after it.
                    prop_assert_eq!(HeadScan::new().find(&out, &HeadLimits::default()), Ok(Some(out.len())));
                }
            }
        }
    }
}
