//! A client's request: the rules of HTTP that hold for every one (RFC 9110, RFC 9112, RFC 9113), and questions about it.

use std::borrow::Cow;
use std::fmt;

use super::form::form_value;
use super::head::{HeadLimits, RequestHead};
use super::headers::Headers;
use super::http1::{self, HeadScan};
use super::refusal::{Cause, Refusal};
use super::version::Version;
use super::{list, split_host};

/// A request whose head follows the rules of HTTP, borrowed from what it was received in.
///
/// Any request can be looked at; [`wants_upgrade`](Self::wants_upgrade) tells a WebSocket handshake from plain HTTP.
/// Its `Debug` shows neither the query nor the values of headers, which hold secrets.
pub struct Request<'a> {
    head: RequestHead<'a>,
    host: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    framing: Framing,
}

/// How a request says where its content ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes follow the head; 0 when it says nothing. In HTTP/2 and HTTP/3 the stream says where content ends.
    Length(u64),
    /// Chunks follow, the last of which is empty (RFC 9112 §7.1).
    Chunked,
}

impl<'a> Request<'a> {
    /// Parses a head of HTTP/1.1 that [`HeadScan`] found. What follows the head in `head` is not looked at.
    ///
    /// # Errors
    /// 431 when it is larger than `limits`; 501 when its content has a transfer coding beside chunked; 400 when it is not
    /// HTTP/1.1, when two programs could read it differently (folded lines, lone line feeds, a header twice that may occur
    /// once, two ways to tell where the content ends) or when its host or length is missing or malformed.
    pub fn parse(head: &'a [u8], limits: &HeadLimits) -> Result<Self, Refusal> {
        let mut scan = HeadScan::new();
        scan.find(head, limits)?;
        Self::parse_found(head, &scan)
    }

    /// Parses a head of HTTP/1.1 that `scan` has found at the beginning of `bytes`. The checks of the scan, the limits
    /// among them, are not repeated.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); also when the scan has found nothing, or in other bytes.
    #[inline]
    pub fn parse_found(bytes: &'a [u8], scan: &HeadScan) -> Result<Self, Refusal> {
        let mut request = Self::unchecked(RequestHead::empty());
        http1::read_request(bytes, scan, &mut request.head)?;
        request.check()?;
        Ok(request)
    }

    /// Takes a head that has come as values: from an HTTP library, or over HTTP/2 or HTTP/3.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), so far as there are faults that values can have: a line end or NUL in a header is one.
    pub fn new(head: RequestHead<'a>, limits: &HeadLimits) -> Result<Self, Refusal> {
        head.check(limits)?;
        let mut request = Self::unchecked(head);
        request.check()?;
        Ok(request)
    }

    fn unchecked(head: RequestHead<'a>) -> Self {
        Self { head, host: None, path: "", query: None, framing: Framing::Length(0) }
    }

    /// Applies the rules that hold for every request, plain HTTP too, and keeps what they have found out.
    fn check(&mut self) -> Result<(), Refusal> {
        let Self { head, host, path, query, framing } = self;
        let authority;
        (authority, *path, *query) = split(head)?;
        let RequestHead { headers, version, .. } = head;
        if version.has_streams() {
            check_fields(headers)?;
        } else if head.protocol.is_some() {
            return Err(Cause::Malformed.into());
        }
        headers.check(&SINGLE)?;
        *host = find_host(headers, authority, *version)?;
        // A handshake has no content at all, and its refusal says that instead.
        *framing = find_framing(headers, *version)
            .map_err(|cause| if headers.lists("upgrade", "websocket") { Cause::Body } else { cause })?;
        Ok(())
    }

    /// The head as it came.
    pub fn head(&self) -> &RequestHead<'a> {
        &self.head
    }

    /// The method, as written: methods have a case.
    pub fn method(&self) -> &'a str {
        self.head.method
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Whether it is of HTTP/1.1, and not of HTTP/1.0.
    pub fn is_http_1_1(&self) -> bool {
        self.head.version == Version::Http11
    }

    /// Where its content ends, which begins behind the head.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The request target as written; in HTTP/2 and HTTP/3 `:path`.
    pub fn target(&self) -> &'a str {
        self.head.target
    }

    /// The target's path, still percent-encoded; `/` when a target in absolute form has none.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The target's query without its question mark, still percent-encoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The first value of a query parameter, decoded as [`form_value`] does. `None` when it is absent or does not decode
    /// to UTF-8.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        form_value(self.query?, name)
    }

    /// The first value of a header, without the space around it; `None` when it is absent or not UTF-8. Headers that
    /// the handshake or authorization rests on occur once and are ASCII, or the head was refused.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.headers.first(name)
    }

    /// All values of a header that are UTF-8, in order.
    pub fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'_, 'n, 'a> {
        self.head.headers.all(name)
    }

    /// All headers: names as written, values as bytes.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.head.headers.iter()
    }

    /// The host, and the port if one is given, that the request is for.
    pub fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// The `Origin` header. Browsers always send it, other clients seldom.
    pub fn origin(&self) -> Option<&'a str> {
        self.header("origin")
    }

    /// The token of `Authorization: Bearer` (RFC 6750 §2.1).
    pub fn bearer(&self) -> Option<&'a str> {
        let token = bearer_credentials(self.header("authorization")?)?;
        let symbols = token.trim_end_matches('=');
        let is_symbol = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        (!symbols.is_empty() && symbols.bytes().all(is_symbol)).then_some(token)
    }

    /// The first value of a cookie, as sent.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        cookie_value(self.header_values("cookie"), name)
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'_, 'a> {
        // RFC 6455 §11.3.4: the header may occur several times in a request, which is the same as one list.
        self.header_values("sec-websocket-protocol").flat_map(list)
    }

    /// Whether this is, or tries to be, a WebSocket handshake and not a plain HTTP request.
    pub fn wants_upgrade(&self) -> bool {
        if self.head.version.has_streams() {
            // RFC 8441 §4, §5. Protocol names have no case (RFC 9110 §7.8).
            return self.head.protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        }
        self.head.headers.lists("upgrade", "websocket")
    }
}

/// The first value of a cookie among the values of `Cookie` headers, as sent (RFC 6265 §5.4). For requests that have come
/// by an HTTP library; [`Request::cookie`] looks in a head.
///
/// ```
/// use taut_proto::handshake::cookie_value;
///
/// assert_eq!(cookie_value(["a=1; session=x", "b=2"], "session"), Some("x"));
/// ```
pub fn cookie_value<'a>(lines: impl IntoIterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let mut pairs = lines.into_iter().flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim_matches([' ', '\t']) == name).then(|| value.trim_matches([' ', '\t']))
    })
}

/// What an `Authorization` header shows by the scheme `Bearer`, whose case does not matter (RFC 9110 §11.1, §11.4). For
/// requests that have come by an HTTP library.
///
/// It is given as it stands there, to be compared with a secret that may hold any character. [`Request::bearer`] asks
/// for a token by the grammar of RFC 6750 §2.1.
///
/// ```
/// use taut_proto::handshake::bearer_credentials;
///
/// assert_eq!(bearer_credentials("bearer correct horse"), Some("correct horse"));
/// assert_eq!(bearer_credentials("Basic YTpi"), None);
/// ```
pub fn bearer_credentials(authorization: &str) -> Option<&str> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    let credentials = credentials.trim_matches([' ', '\t']);
    (scheme.eq_ignore_ascii_case("bearer") && !credentials.is_empty()).then_some(credentials)
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequestHead { method, headers, .. } = &self.head;
        let mut shown = f.debug_struct("Request");
        shown.field("method", method).field("path", &self.path).field("headers", headers).finish_non_exhaustive()
    }
}

/// Headers that may occur once in a request (RFC 6455 §11.3, RFC 9110 §7.2, §8.6, §11.6.2). Of two that differ, a proxy
/// might trust one and we the other.
const SINGLE: [&str; 6] =
    ["authorization", "content-length", "host", "origin", "sec-websocket-key", "sec-websocket-version"];

/// RFC 9113 §8.2.1, §8.2.2: names are in lower case, and what concerns one connection is not a header there. RFC 9114 §4.2
/// says so of HTTP/3.
fn check_fields(headers: &Headers<'_>) -> Result<(), Cause> {
    let is_allowed = |(name, value): (&str, &[u8])| match name {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => false,
        "te" => value.trim_ascii() == b"trailers",
        _ => !name.bytes().any(|byte| byte.is_ascii_uppercase()),
    };
    if headers.iter().all(is_allowed) { Ok(()) } else { Err(Cause::Malformed) }
}

/// The host that a request is for. RFC 9112 §3.2: a request of HTTP/1.1 without `Host`, or any with a malformed one, is answered 400.
///
/// CVE-2026-61666: a malformed host is refused here, before anybody builds an address from it.
fn find_host<'a>(
    headers: &Headers<'a>,
    authority: Option<&'a str>,
    version: Version,
) -> Result<Option<&'a str>, Cause> {
    let field = match headers.value("host") {
        Some(value) => Some(str::from_utf8(value).map_err(|_| Cause::InvalidHost)?.trim_ascii()),
        None if version == Version::Http11 => return Err(Cause::MissingHost),
        None => None,
    };
    // RFC 9110 §7.2: the field is empty where the target has no authority.
    let is_malformed = |host: &str| !host.is_empty() && split_host(host).is_none();
    if [field, authority].into_iter().flatten().any(is_malformed) {
        return Err(Cause::InvalidHost);
    }
    // RFC 9113 §8.3.1: two hosts that differ are one too many. HTTP/1.1 says which of them counts.
    let differs = || field.zip(authority).is_some_and(|(field, authority)| !field.eq_ignore_ascii_case(authority));
    if version.has_streams() && differs() {
        return Err(Cause::InvalidHost);
    }
    // RFC 9112 §3.2.2: the host of a target in absolute form takes the place of the `Host` header.
    Ok(authority.or(field))
}

/// RFC 9112 §6.1, §6.3: where the content ends, unless two programs could see that differently.
fn find_framing(headers: &Headers<'_>, version: Version) -> Result<Framing, Cause> {
    let length = headers.value("content-length");
    if headers.contains("transfer-encoding") {
        if length.is_some() {
            return Err(Cause::AmbiguousLength);
        }
        // What is of HTTP/1.0 may have come through a proxy that knows nothing of chunks.
        if version == Version::Http10 {
            return Err(Cause::TransferEncoding);
        }
        let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
        let mut chunked = 0;
        let mut last_is_chunked = false;
        let mut others = 0;
        for coding in headers.all("transfer-encoding").flat_map(list) {
            last_is_chunked = is_chunked(coding);
            chunked += usize::from(last_is_chunked);
            others += usize::from(!last_is_chunked);
        }
        return match (last_is_chunked, chunked, others) {
            (true, 1, 0) => Ok(Framing::Chunked),
            (true, 1, _) => Err(Cause::TransferCoding),
            _ => Err(Cause::TransferEncoding),
        };
    }
    match length {
        None => Ok(Framing::Length(0)),
        Some(value) => number(value).map(Framing::Length).ok_or(Cause::InvalidLength),
    }
}

fn number(value: &[u8]) -> Option<u64> {
    // The parser of numbers would take a plus sign, too.
    let digits = str::from_utf8(value.trim_ascii()).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Authority, path and query of a head.
fn split<'a>(head: &RequestHead<'a>) -> Result<(Option<&'a str>, &'a str, Option<&'a str>), Cause> {
    let (authority, path, query) = split_target(head.target).ok_or(Cause::InvalidTarget)?;
    // Once the authority is apart, the target is a path; two of them would contradict each other.
    let is_split = head.authority.is_some() || head.version.has_streams();
    match authority {
        Some(_) if is_split => Err(Cause::InvalidTarget),
        _ => Ok((head.authority.or(authority), path, query)),
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::testing::head;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn parse(head: &str) -> Result<Request<'_>, Refusal> {
        Request::parse(head.as_bytes(), &HeadLimits::default())
    }

    fn request(head: &str) -> Request<'_> {
        parse(head).expect("a well-formed head")
    }

    /// Why the head of the good handshake with these changes is refused.
    fn cause(changes: &[(&str, &str)]) -> Option<Cause> {
        parse(&head(changes)).err().map(|refusal| refusal.cause())
    }

    #[test]
    fn a_head_that_was_found_need_not_be_looked_for_again() {
        let head = "POST /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        let bytes = format!("{head}rest");
        let cause =
            |bytes: &str, scan: &HeadScan| Request::parse_found(bytes.as_bytes(), scan).err().map(|it| it.cause());
        let mut scan = HeadScan::new();
        assert_eq!(cause(&bytes, &scan), Some(Cause::Incomplete), "nothing was found");
        assert_eq!(scan.find(bytes.as_bytes(), &HeadLimits::default()), Ok(Some(head.len())));
        let request = Request::parse_found(bytes.as_bytes(), &scan).unwrap();
        assert_eq!((request.method(), request.host(), request.header("x")), ("POST", Some("a"), Some("y")));
        assert_eq!(cause("GET / HTTP/1.1", &scan), Some(Cause::Incomplete), "it was found in other bytes");
        let longer = "POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n";
        assert!(Request::parse_found(longer.as_bytes(), &scan).is_err(), "it has more lines than were counted");
    }

    // RFC 6455 §4.2.1 (1): the request target is a path or an absolute HTTP or HTTPS URI.
    // RFC 6455 §3: a resource name has no fragment.
    #[test]
    fn a_target_is_split_into_host_path_and_query() {
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
        }
        for target in ["/chat#x", "/ch\u{e4}t", "http://", "http:///x"] {
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(cause(&[("GET", &line)]), Some(Cause::InvalidTarget), "{target}");
        }
        assert_eq!(cause(&[("GET", "GET http://user@a/ HTTP/1.1")]), Some(Cause::InvalidHost));
    }

    // RFC 6455 §4.2.1 (2): a `Host` header with the server's authority.
    // CVE-2026-61666: a malformed host is refused with a clear answer.
    #[test]
    fn a_malformed_host_is_refused() {
        for host in
            ["a b", "a:b", "a:99999", "[::1", "a/b", "http://a", "u@a", "a,b:1:2", "<a>", "[]:80", ":80", "a\\b"]
        {
            assert_eq!(cause(&[("Host", &format!("Host: {host}"))]), Some(Cause::InvalidHost), "{host}");
        }
        for host in ["a", "A.example:1", "[::1]:9000", "127.0.0.1:0"] {
            assert_eq!(cause(&[("Host", &format!("Host: \t{host} "))]), None, "{host}");
        }
    }

    #[test]
    fn a_plain_http_request_is_told_from_a_handshake() {
        let plain = "POST /apps/1/events?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        assert!(!request(plain).wants_upgrade());
        assert!(request(&head(&[("Sec-WebSocket-Version", "")])).wants_upgrade());
        assert_eq!(request(plain).method(), "POST");
        assert!(!request("OPTIONS * HTTP/1.0\r\n\r\n").wants_upgrade());
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

    #[test]
    fn a_length_that_is_no_number_is_refused() {
        let plain = |line: &str| cause(&[("Upgrade", ""), ("", line)]);
        for length in ["-1", "+1", "1, 1", "0x1", "one", "99999999999999999999", ""] {
            assert_eq!(plain(&format!("Content-Length: {length}")), Some(Cause::InvalidLength), "{length}");
        }
        assert_eq!(plain("Content-Length: 18446744073709551615"), None);
    }

    // RFC 9112 §3.2: a request of HTTP/1.1 that lacks `Host` is answered 400, and so is one with an invalid value.
    #[test]
    fn a_plain_request_is_judged_by_its_host_as_a_handshake_is() {
        let plain = |lines: &str| parse(&format!("GET /x {lines}\r\n\r\n")).err().map(|refusal| refusal.cause());
        for (lines, expected) in [
            ("HTTP/1.1", Some(Cause::MissingHost)),
            ("HTTP/1.1\r\nX: y", Some(Cause::MissingHost)),
            ("HTTP/1.0", None),
            ("HTTP/1.1\r\nHost:", None),
            ("HTTP/1.1\r\nHost: a", None),
            ("HTTP/1.1\r\nHost: a b", Some(Cause::InvalidHost)),
            ("HTTP/1.0\r\nHost: a/b", Some(Cause::InvalidHost)),
            ("HTTP/1.1\r\nHost: a\r\nHost: a", Some(Cause::RepeatedHeader("host"))),
        ] {
            assert_eq!(plain(lines), expected, "{lines}");
        }
        let absolute = |lines: &str| parse(&format!("GET http://a/x HTTP/1.1\r\n{lines}\r\n")).map(drop);
        assert_eq!(absolute("Host: b\r\n"), Ok(()));
        assert_eq!(absolute(""), Err(Cause::MissingHost.into()));
        assert_eq!(
            absolute("Host: b/c\r\n"),
            Err(Cause::InvalidHost.into()),
            "the header that does not count is judged too"
        );
    }

    // RFC 9112 §6.1, §6.3: both ways at once, another coding than chunked at the end, and chunks in HTTP/1.0 are faulty.
    // RFC 9112 §6.1: a coding that is not understood is answered 501.
    #[test]
    fn content_whose_end_two_programs_could_see_differently_is_refused() {
        let of = |version: &str, lines: &[&str]| {
            let head = format!("POST /x HTTP/{version}\r\nHost: a\r\n{}\r\n", lines.concat());
            parse(&head).map(|request| request.framing()).map_err(|refusal| (refusal.cause(), refusal.status()))
        };
        let (te, ambiguous) = (Err((Cause::TransferEncoding, 400)), Err((Cause::AmbiguousLength, 400)));
        for (lines, expected) in [
            (&[][..], Ok(Framing::Length(0))),
            (&["Content-Length: 7\r\n"], Ok(Framing::Length(7))),
            (&["Transfer-Encoding: chunked\r\n"], Ok(Framing::Chunked)),
            (&["Transfer-Encoding:  Chunked ,\r\n"], Ok(Framing::Chunked)),
            (&["Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n"], ambiguous),
            (&["Transfer-Encoding: identity\r\n", "Content-Length: 7\r\n"], ambiguous),
            (&["Transfer-Encoding: chunked, gzip\r\n"], te),
            (&["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n"], te),
            (&["Transfer-Encoding: identity\r\n"], te),
            (&["Transfer-Encoding: xchunked\r\n"], te),
            (&["Transfer-Encoding:\r\n"], te),
            (&["Transfer-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n"], Err((Cause::TransferCoding, 501))),
        ] {
            assert_eq!(of("1.1", lines), expected, "{lines:?}");
        }
        assert_eq!(of("1.0", &["Transfer-Encoding: chunked\r\n"]), te);
        assert_eq!(of("1.0", &["Content-Length: 7\r\n"]), Ok(Framing::Length(7)));
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
    fn bearer_credentials_are_found_whatever_the_case_of_their_scheme() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc\t", Some("abc")),
            ("BEARER a b=c é", Some("a b=c é")),
            ("Bearer", None),
            ("Bearer  ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
        ] {
            assert_eq!(bearer_credentials(value), expected, "{value:?}");
        }
    }

    #[test]
    fn debug_output_holds_no_secrets() {
        let changes =
            [("GET", "GET /chat?token=s3cret HTTP/1.1"), ("", "Authorization: Bearer s3cret"), ("", "Cookie: s3cret")];
        let head = head(&changes);
        let request = request(&head);
        let shown = format!("{request:?}");
        assert!(shown.contains("/chat") && shown.contains("Authorization") && !shown.contains("s3cret"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes, &HeadLimits::default());
        }
    }
}
