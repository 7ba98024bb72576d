//! Why a request is not upgraded, and the response that says so (RFC 6455 §4.2.2 (4), RFC 9110 §15).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::response::Response;
use super::version::Version;
use super::{InvalidHeader, check_own_header, is_token};

/// Why a request is not upgraded, and the response that says so.
///
/// ```
/// use taut_proto::handshake::Refusal;
///
/// let expired = Refusal::json(401, r#"{"error":"token expired"}"#)
///     .challenge(r#"Bearer realm="chat", error="invalid_token""#)
///     .header("X-Request-Id", "7f3a");
/// let moved = Refusal::redirect(307, "wss://eu.chat.example/room");
/// ```
///
/// Its `Debug` shows no values of headers, which may be cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    cause: Cause,
    /// The application's own words.
    text: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    /// Boxed: few refusals have any, and all of them are moved.
    headers: Option<Box<OwnHeaders>>,
}

/// Headers that the application has added.
#[derive(Clone, Default, PartialEq, Eq)]
struct OwnHeaders {
    lines: Vec<(Cow<'static, str>, String)>,
    /// The first that must not be sent.
    invalid: Option<(String, InvalidHeader)>,
}

impl Refusal {
    /// 401: the client must present a valid bearer token. [`challenge`](Self::challenge) asks for something else.
    pub fn unauthorized(text: impl Into<Cow<'static, str>>) -> Self {
        Self::with_status(401, text)
    }

    /// 403: the client may not connect, even if it is known.
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
    /// and is shown to the client.
    pub fn with_status(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let status = if matches!(status, 400..600) { status } else { 500 };
        Self { text: Some(text.into()), ..Cause::Application(status).into() }
    }

    /// A refusal whose body is JSON, sent as it is with `Content-Type: application/json`. The status is as for
    /// [`with_status`](Self::with_status).
    pub fn json(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self::with_status(status, body).header("Content-Type", "application/json")
    }

    /// Sends the client elsewhere: a status of 301, 302, 303, 307 or 308 (any other would not redirect and becomes 500)
    /// and a URL as `Location`, which may be relative. Browsers do not follow redirects of a WebSocket; many other
    /// clients do.
    pub fn redirect(status: u16, location: &str) -> Self {
        // RFC 9110 §15.4: these say where to go on.
        let status = if matches!(status, 301 | 302 | 303 | 307 | 308) { status } else { 500 };
        let text = format!("The server redirects to {location}");
        Self { text: Some(text.into()), ..Cause::Application(status).into() }.header("Location", location)
    }

    /// Adds a header to the response. It takes the place of what the refusal would say by itself: of
    /// `Content-Type: text/plain; charset=utf-8`, after which the body is sent exactly as it was given, of
    /// `WWW-Authenticate: Bearer`, of `Retry-After` and of `Allow`.
    ///
    /// A header that must not be sent makes this a refusal with status 500, and [`invalid_header`](Self::invalid_header)
    /// names it: a value with a line end, or a header of the handshake's or of the body's framing.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if self.invalid_header().is_some() {
            return self;
        }
        match check_own_header(name, value, &RESERVED) {
            Ok(()) => self.own_headers().lines.push((name.to_owned().into(), value.to_owned())),
            Err(invalid) => self.spoil(name, invalid),
        }
        self
    }

    /// Says how the client is to authenticate: the value of a `WWW-Authenticate` header (RFC 9110 §11.6.1), such as
    /// `Basic realm="chat"`. It takes the place of the `Bearer` that goes with status 401; several calls make several
    /// challenges.
    #[must_use]
    pub fn challenge(self, challenge: &str) -> Self {
        self.header(AUTHENTICATE, challenge)
    }

    /// Tells the client how long to stay away, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The first [`header`](Self::header) that must not be sent, and why.
    pub fn invalid_header(&self) -> Option<(&str, InvalidHeader)> {
        let (name, invalid) = self.headers.as_ref()?.invalid.as_ref()?;
        Some((name, *invalid))
    }

    /// What is wrong with the request.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.cause.status()
    }

    /// The response that says so. After it the connection is to be closed: what else was received may be part of a body
    /// that nobody asked for. Where that is not so, [`Response::keep_open`] gives the response for it.
    ///
    /// Over HTTP/2 and HTTP/3 it has no `Connection` and no `Upgrade` (RFC 9113 §8.2.2); 426, which needs the latter,
    /// is 400 there.
    pub fn response(&self, version: Version) -> Response<'static> {
        let has_streams = version.has_streams();
        let status = self.status();
        let mut response = Response::new(if has_streams && status == 426 { 400 } else { status });
        match status {
            // RFC 9110 §15.5.2: 401 says how to authenticate.
            401 if !self.has_header(AUTHENTICATE) => response.push(AUTHENTICATE, "Bearer"),
            // RFC 9110 §15.5.6: 405 says what is allowed.
            405 if !self.has_header("Allow") => response.push("Allow", if has_streams { "CONNECT" } else { "GET" }),
            426 => {
                if !has_streams {
                    // RFC 9110 §15.5.22: 426 says what to upgrade to.
                    response.push("Upgrade", "websocket");
                }
                // RFC 6455 §4.2.2 (4), §4.4: and which versions are spoken.
                response.push("Sec-WebSocket-Version", "13");
            }
            _ => {}
        }
        let retry_after = self.retry_after.or(if status == 503 { Some(RETRY_AFTER) } else { None });
        if let Some(delay) = retry_after.filter(|_| !self.has_header("Retry-After")) {
            let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            response.push("Retry-After", seconds.to_string());
        }
        if !has_streams {
            // RFC 9110 §7.8: `Upgrade` is hop by hop, so `Connection` names it.
            response.push("Connection", if status == 426 { "Upgrade, close" } else { "close" });
        }
        for (name, value) in self.headers() {
            response.push(name.clone(), value.clone());
        }
        let body = if self.has_header(CONTENT_TYPE) {
            self.to_string()
        } else {
            response.push(CONTENT_TYPE, "text/plain; charset=utf-8");
            format!("{self}\n")
        };
        response.push("Content-Length", body.len().to_string());
        response.set_body(body);
        response
    }

    fn headers(&self) -> &[(Cow<'static, str>, String)] {
        self.headers.as_ref().map_or(&[], |own| &own.lines)
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers().iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    fn own_headers(&mut self) -> &mut OwnHeaders {
        self.headers.get_or_insert_default()
    }

    /// Makes it one that says what is wrong with it. Of the application's headers none is left: they were meant for
    /// another status.
    fn spoil(&mut self, name: &str, invalid: InvalidHeader) {
        // What is not a name may be a secret in the wrong place.
        let shown = if is_token(name) { format!(" ({name})") } else { String::new() };
        let text = format!("The server's response has a header that must not be sent{shown}: {invalid}.");
        *self = Self { text: Some(text.into()), ..Cause::Application(500).into() };
        self.own_headers().invalid = Some((name.to_owned(), invalid));
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { cause, text: None, retry_after: None, headers: None }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers().iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("Refusal");
        shown.field("cause", &self.cause).field("text", &self.text).field("retry_after", &self.retry_after);
        shown.field("headers", &names).finish_non_exhaustive()
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
    /// Both `Content-Length` and `Transfer-Encoding`.
    AmbiguousLength,
    /// The application refused, with this status.
    Application(u16),
    /// The handshake has a body.
    Body,
    /// No room for another connection.
    Busy,
    /// A header line that continues on the next.
    FoldedLine,
    /// The head exceeds [`HeadLimits::bytes`](super::HeadLimits::bytes).
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
    /// `Content-Length` is not a number.
    InvalidLength,
    /// `Sec-WebSocket-Protocol` holds something other than a token, or a token twice.
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
    /// A CONNECT over HTTP/2 or HTTP/3 whose `:protocol` is not `websocket`.
    Protocol,
    /// A header twice that may occur once.
    RepeatedHeader(&'static str),
    /// The head took too long.
    Timeout,
    /// The headers exceed [`HeadLimits::headers`](super::HeadLimits::headers).
    TooManyHeaders,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// `Transfer-Encoding` does not end with chunked, or names it twice, or is of HTTP/1.0.
    TransferEncoding,
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
            Self::Protocol | Self::TransferCoding => 501,
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
            Self::AmbiguousLength => "Content-Length and Transfer-Encoding must not both be sent.",
            Self::Body => "A WebSocket handshake has no body: leave out Content-Length and Transfer-Encoding.",
            Self::Busy => "The server has no room for another connection; try again later.",
            Self::FoldedLine => "A header line begins with a space; folded headers are not accepted.",
            Self::HeadTooLarge => "The request's head is too large; send fewer or shorter headers and cookies.",
            Self::HttpVersion => "A WebSocket handshake needs HTTP/1.1.",
            Self::Incomplete => "The request's head is incomplete: the empty line at its end is missing.",
            Self::InvalidExtensions => "The Sec-WebSocket-Extensions header is malformed.",
            Self::InvalidHost => "The Host header is not a host name or address with an optional port.",
            Self::InvalidKey => "The Sec-WebSocket-Key header is not the base64 encoding of 16 bytes.",
            Self::InvalidLength => "The Content-Length header is not a number of bytes.",
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
            Self::Protocol => "The :protocol of an extended CONNECT must be websocket.",
            Self::Timeout => "The request's head took too long to arrive.",
            Self::TooManyHeaders => "The request has too many headers.",
            Self::TransferCoding => "The only transfer coding that the server understands is chunked.",
            Self::TransferEncoding => "The Transfer-Encoding header must end with chunked, once, and needs HTTP/1.1.",
            Self::Version => "The server speaks WebSocket version 13 only.",
        })
    }
}

/// Headers that would contradict the refusal's own.
const RESERVED: [&str; 4] = ["Connection", "Content-Length", "Transfer-Encoding", "Upgrade"];

const AUTHENTICATE: &str = "WWW-Authenticate";
const CONTENT_TYPE: &str = "Content-Type";

/// What 503 says when the application does not.
const RETRY_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::testing::written;

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
            let response = written(|out| refusal.write_response(out));
            let body = format!("{refusal}\n");
            let length = body.len();
            let rest = format!(
                "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            assert_eq!(response, format!("HTTP/1.1 {status} {expected}{rest}"));
        }
    }

    #[test]
    fn a_refusal_may_have_headers_challenges_and_a_body_of_its_own() {
        let refusal = Refusal::json(401, r#"{"error":"token expired"}"#)
            .challenge(r#"Bearer realm="chat", error="invalid_token""#)
            .challenge(r#"Basic realm="chat""#)
            .header("X-Request-Id", "7f3a")
            .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
            .retry_after(Duration::from_secs(1));
        assert_eq!(refusal.invalid_header(), None);
        let expected = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Type: application/json\r\n\
                        WWW-Authenticate: Bearer realm=\"chat\", error=\"invalid_token\"\r\n\
                        WWW-Authenticate: Basic realm=\"chat\"\r\nX-Request-Id: 7f3a\r\n\
                        retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 25\r\n\r\n\
                        {\"error\":\"token expired\"}";
        assert_eq!(written(|out| refusal.write_response(out)), expected);
        let html = Refusal::forbidden("<p>not you</p>").header("Content-Type", "text/html");
        assert!(written(|out| html.write_response(out)).ends_with("\r\nContent-Length: 14\r\n\r\n<p>not you</p>"));
        assert!(!format!("{:?}", Refusal::forbidden("no").header("Set-Cookie", "s3cret")).contains("s3cret"));
    }

    // RFC 9110 §15.4: 301, 302, 303, 307 and 308 redirect; 304 and 300 do not.
    #[test]
    fn a_refusal_may_be_a_redirect() {
        for (status, phrase) in [
            (301, "Moved Permanently"),
            (302, "Found"),
            (303, "See Other"),
            (307, "Temporary Redirect"),
            (308, "Permanent Redirect"),
        ] {
            let response = written(|out| Refusal::redirect(status, "wss://a.example/x").write_response(out));
            let start = format!("HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nLocation: wss://a.example/x\r\n");
            assert!(response.starts_with(&start), "{response}");
        }
        for status in [101, 200, 300, 304, 400] {
            assert_eq!(Refusal::redirect(status, "/x").status(), 500);
        }
    }

    // CVE-2026-1527: no value of a refusal ends its header and begins another.
    #[test]
    fn a_header_that_must_not_be_sent_makes_a_refusal_with_500_that_names_it() {
        let refusal = || Refusal::unauthorized("who are you?").header("Set-Cookie", "a=b");
        for (refusal, name, invalid) in [
            (refusal().header("X-Id", "a\r\nSet-Cookie: b"), "X-Id", InvalidHeader::Value),
            (refusal().challenge("Basic\n"), "WWW-Authenticate", InvalidHeader::Value),
            (Refusal::redirect(302, "/a\r\nX: y"), "Location", InvalidHeader::Value),
            (refusal().header("X: y", "z"), "X: y", InvalidHeader::Name),
            (refusal().header("", "z"), "", InvalidHeader::Name),
            (refusal().header("connection", "close"), "connection", InvalidHeader::Reserved("Connection")),
            (refusal().header("Content-Length", "1"), "Content-Length", InvalidHeader::Reserved("Content-Length")),
            (
                refusal().header("sec-websocket-accept", "x"),
                "sec-websocket-accept",
                InvalidHeader::Reserved("Sec-WebSocket-Accept"),
            ),
        ] {
            assert_eq!(refusal.invalid_header(), Some((name, invalid)));
            let refusal = refusal.header("X-Later", "y");
            assert_eq!(refusal.status(), 500);
            let response = written(|out| refusal.write_response(out));
            assert!(!response.contains("Cookie") && !response.contains("X-Later"), "{response}");
            let (_, body) = response.split_once("\r\n\r\n").expect("a body");
            assert!(body.contains("must not be sent") && body.contains(&invalid.to_string()), "{body}");
            assert_eq!(body.contains(&format!("({name})")), is_token(name), "{body}");
        }
    }
}
