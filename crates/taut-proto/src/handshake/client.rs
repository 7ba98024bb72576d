//! The client's side of the handshake (RFC 6455 §4.1): write a request, validate the response.

mod body;
mod rejection;
mod response;

use std::fmt;

#[cfg(feature = "deflate")]
use super::deflate;
use super::head::HeadLimits;
use super::headers::Headers;
use super::key::{accept_key, encode_nonce};
use super::{InvalidHeader, MalformedExtensions, Offer, is_token, split_host, write_header};
pub use body::ResponseBody;
pub use rejection::{Fault, Rejection};
pub use response::ClientResponse;

/// A client's request to open a WebSocket. Everything in it is checked when it is set, so no text, wherever the
/// application has it from, can smuggle in another header or another request (CVE-2026-1527).
///
/// Its `Debug` shows neither the query nor the values of headers, which hold secrets.
#[derive(Clone)]
pub struct ClientRequest {
    host: String,
    target: String,
    origin: Option<String>,
    subprotocols: Vec<String>,
    /// Further header lines, complete.
    headers: Vec<u8>,
    #[cfg(feature = "deflate")]
    deflate: Option<deflate::Config>,
}

impl ClientRequest {
    /// A request to `host`, or `host:port` if the port is not the default of the scheme, for `target`: a path with an
    /// optional query, percent-encoded. An empty path means `/`.
    pub fn new(host: &str, target: &str) -> Result<Self, InvalidRequest> {
        if split_host(host).is_none() {
            return Err(InvalidRequest::Host);
        }
        // RFC 6455 §3: a fragment is never part of the resource name.
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        let slash = match target.as_bytes() {
            [] | [b'?', ..] => "/",
            [b'/', ..] => "",
            _ => return Err(InvalidRequest::Target),
        };
        if !target.bytes().all(is_allowed) {
            return Err(InvalidRequest::Target);
        }
        Ok(Self {
            host: host.to_owned(),
            target: format!("{slash}{target}"),
            origin: None,
            subprotocols: Vec::new(),
            headers: Vec::new(),
            #[cfg(feature = "deflate")]
            deflate: None,
        })
    }

    /// Names another host in the `Host` header than the one that is connected to: `host`, or `host:port`.
    pub fn host(mut self, host: &str) -> Result<Self, InvalidRequest> {
        if split_host(host).is_none() {
            return Err(InvalidRequest::Host);
        }
        host.clone_into(&mut self.host);
        Ok(self)
    }

    /// Offers a subprotocol, after those already offered: the first is preferred.
    pub fn subprotocol(mut self, name: &str) -> Result<Self, InvalidRequest> {
        // RFC 6455 §4.1 (10): tokens, each once.
        if !is_token(name) || self.subprotocols.iter().any(|offered| offered == name) {
            return Err(InvalidRequest::Subprotocol);
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Adds a header, such as `Authorization`.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidRequest> {
        write_header(name, value, &RESERVED, &mut self.headers)?;
        Ok(self)
    }

    /// Names the page on whose behalf the client connects, as a browser does; `scheme://host:port` without a path.
    pub fn origin(mut self, origin: &str) -> Result<Self, InvalidRequest> {
        // RFC 6454 §6.2 knows "null" besides, and a page from a file may be "file://"; what a server makes of any of
        // them is its own affair.
        let is_origin =
            origin.split_once("://").is_some_and(|(scheme, host)| is_token(scheme) && split_host(host).is_some());
        if !is_origin && !["null", "file://"].contains(&origin) {
            return Err(InvalidRequest::Origin);
        }
        self.origin = Some(origin.to_owned());
        Ok(self)
    }

    /// Offers permessage-deflate; without it no extension is offered.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, config: Option<deflate::Config>) -> Self {
        self.deflate = config;
        self
    }

    /// Appends the request to `out`.
    ///
    /// The nonce is 16 bytes from a good random source, fresh for each connection (RFC 6455 §4.1 (7)). Nothing may be
    /// sent after the request until the response is validated.
    pub fn write(&self, nonce: [u8; 16], out: &mut Vec<u8>) {
        let mut write = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
        };
        write(&["GET ", &self.target, " HTTP/1.1\r\nHost: ", &self.host, "\r\n"]);
        write(&["Upgrade: websocket\r\nConnection: Upgrade\r\n"]);
        if let Some(origin) = &self.origin {
            write(&["Origin: ", origin, "\r\n"]);
        }
        write(&["Sec-WebSocket-Version: 13\r\n"]);
        if !self.subprotocols.is_empty() {
            write(&["Sec-WebSocket-Protocol: ", &self.subprotocols.join(", "), "\r\n"]);
        }
        out.extend_from_slice(b"Sec-WebSocket-Key: ");
        out.extend_from_slice(&encode_nonce(nonce));
        out.extend_from_slice(b"\r\n");
        #[cfg(feature = "deflate")]
        if let Some(config) = &self.deflate {
            out.extend_from_slice(b"Sec-WebSocket-Extensions: ");
            deflate::write_offer(config, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(b"\r\n");
    }

    /// Checks the response to the request that was written with the same nonce: everything that RFC 6455 §4.1 asks
    /// before the connection is open. `head` is what [`HeadScan`](super::HeadScan) found.
    pub fn validate(&self, head: &[u8], nonce: [u8; 16], limits: &HeadLimits) -> Result<Accepted<'_>, Rejection> {
        self.check(&ClientResponse::parse(head, limits)?, nonce)
    }

    /// Checks a response that is already parsed, for callers that need its headers too.
    pub fn check(&self, response: &ClientResponse<'_>, nonce: [u8; 16]) -> Result<Accepted<'_>, Rejection> {
        // RFC 6455 §4.1 response (1): any other status is HTTP's business.
        if response.status != 101 {
            return Err(Rejection::Status {
                status: response.status,
                retry_after: response.retry_after(),
                location: response.header("location").map(str::to_owned),
            });
        }
        if !response.is_http_1_1 {
            return Err(Rejection::HttpVersion);
        }
        let headers = &response.headers;
        // RFC 6455 §4.1 response (2): `Upgrade` is "websocket" in any case; a list of protocols is not that.
        let mut upgrades = headers.all("upgrade");
        if !upgrades.next().is_some_and(|value| value.eq_ignore_ascii_case("websocket")) || upgrades.next().is_some() {
            return Err(Rejection::Upgrade);
        }
        // RFC 6455 §4.1 response (3): `Connection` holds the token "upgrade" in any case.
        if !headers.lists("connection", "upgrade") {
            return Err(Rejection::Connection);
        }
        // RFC 6455 §4.1 response (4): exactly the value that belongs to our nonce.
        let key = encode_nonce(nonce);
        let expected = std::str::from_utf8(&key).map(accept_key);
        let accept = headers.first("sec-websocket-accept").map(str::as_bytes);
        if !expected.is_ok_and(|expected| accept == Some(&expected)) {
            return Err(Rejection::Accept);
        }
        #[cfg(feature = "deflate")]
        let negotiated = self.check_extensions(headers)?;
        #[cfg(not(feature = "deflate"))]
        check_no_extensions(headers)?;
        // RFC 6455 §4.1 response (6): none, or one that was offered, in the same case.
        let subprotocol = match headers.first("sec-websocket-protocol") {
            None if headers.contains("sec-websocket-protocol") => {
                return Err(Rejection::Subprotocol);
            }
            None => None,
            Some(name) => {
                Some(self.subprotocols.iter().find(|offered| *offered == name).ok_or(Rejection::Subprotocol)?.as_str())
            }
        };
        Ok(Accepted {
            subprotocol,
            #[cfg(feature = "deflate")]
            deflate: negotiated,
        })
    }

    /// RFC 6455 §4.1 response (5): no extension that was not offered, and each as RFC 7692 has it.
    #[cfg(feature = "deflate")]
    fn check_extensions(&self, headers: &Headers<'_>) -> Result<Option<deflate::NegotiatedDeflate>, Rejection> {
        let mut negotiated = None;
        for extension in extensions(headers) {
            let extension = extension?;
            let Some(config) =
                self.deflate.as_ref().filter(|_| extension.name() == deflate::NAME && negotiated.is_none())
            else {
                return Err(Rejection::Extension);
            };
            negotiated = Some(deflate::validate_response(&extension, config).map_err(Rejection::Deflate)?);
        }
        Ok(negotiated)
    }
}

impl fmt::Debug for ClientRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        f.debug_struct("ClientRequest").field("host", &self.host).field("path", &path).finish_non_exhaustive()
    }
}

/// A handshake that the client accepts: what was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted<'r> {
    /// The subprotocol that the server chose among the offered ones, if any.
    pub subprotocol: Option<&'r str>,
    /// permessage-deflate, if it was offered and accepted.
    #[cfg(feature = "deflate")]
    pub deflate: Option<deflate::NegotiatedDeflate>,
}

/// A request that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// Not a host name or address with an optional port.
    Host,
    /// Not a path with an optional query in percent-encoded ASCII without a fragment.
    Target,
    /// Not `scheme://host:port`.
    Origin,
    /// Not a token, or offered twice.
    Subprotocol,
    /// A header that cannot be sent.
    Header(InvalidHeader),
}

impl From<InvalidHeader> for InvalidRequest {
    fn from(header: InvalidHeader) -> Self {
        Self::Header(header)
    }
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host must be a name or address with an optional port, such as chat.example:8080",
            Self::Target => "the path must be percent-encoded ASCII and must not hold spaces or a fragment",
            Self::Origin => "an origin is a scheme, a host and an optional port, such as https://chat.example",
            Self::Subprotocol => "a subprotocol may only hold letters, digits and !#$%&'*+-.^_`|~, and is offered once",
            Self::Header(header) => return header.fmt(f),
        })
    }
}

impl std::error::Error for InvalidRequest {}

/// Request headers that the handshake writes, or that would give it a body.
const RESERVED: [&str; 6] = ["Connection", "Content-Length", "Host", "Origin", "Transfer-Encoding", "Upgrade"];

/// RFC 6455 §9.1 and erratum 3433: several headers are one list, which has at least one element if it is there.
fn extensions<'a>(headers: &Headers<'a>) -> impl Iterator<Item = Result<Offer<'a>, MalformedExtensions>> {
    let mut elements = headers.all("sec-websocket-extensions").flat_map(Offer::list).peekable();
    let is_empty = elements.peek().is_none() && headers.contains("sec-websocket-extensions");
    is_empty.then_some(Err(MalformedExtensions)).into_iter().chain(elements)
}

/// RFC 6455 §4.1 response (5): nothing was offered, so nothing can be accepted.
#[cfg(not(feature = "deflate"))]
fn check_no_extensions(headers: &Headers<'_>) -> Result<(), Rejection> {
    if extensions(headers).next().is_some() { Err(Rejection::Extension) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::handshake::{HeadScan, Request};

    /// Its key is the one of RFC 6455 §1.3.
    const NONCE: [u8; 16] = *b"the sample nonce";

    /// The lines of the good response to it.
    const GOOD: [&str; 4] = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ];

    fn plain() -> ClientRequest {
        ClientRequest::new("server.example", "/chat").expect("valid")
    }

    /// Two subprotocols and, if there is the feature, permessage-deflate with takeover.
    fn full() -> ClientRequest {
        let request = plain().subprotocol("v2").and_then(|request| request.subprotocol("v1")).expect("valid");
        #[cfg(feature = "deflate")]
        let request = request.deflate(Some(deflate::Config {
            outgoing_takeover: true,
            incoming_takeover: true,
            ..deflate::Config::default()
        }));
        request
    }

    fn written(request: &ClientRequest) -> String {
        let mut out = Vec::new();
        request.write(NONCE, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    /// The good response with the line at an index exchanged (left out if empty), and more lines.
    fn response(exchange: Option<(usize, &str)>, more: &[&str]) -> String {
        let mut lines = GOOD.to_vec();
        if let Some((index, line)) = exchange {
            lines[index] = line;
        }
        lines.extend(more);
        lines.retain(|line| !line.is_empty());
        lines.join("\r\n") + "\r\n\r\n"
    }

    fn validated<'r>(request: &'r ClientRequest, response: &str) -> Result<Accepted<'r>, Rejection> {
        request.validate(response.as_bytes(), NONCE, &HeadLimits::default())
    }

    fn exchanged(index: usize, line: &str) -> Result<(), Rejection> {
        validated(&full(), &response(Some((index, line)), &[])).map(drop)
    }

    fn with(more: &[&str]) -> Result<(), Rejection> {
        validated(&full(), &response(None, more)).map(drop)
    }

    // RFC 6455 §4.1 (1): the request is valid HTTP.
    // RFC 6455 §4.1 (2): its method is GET, its version HTTP/1.1.
    // RFC 6455 §4.1 (3): its target is the resource name.
    // RFC 6455 §4.1 (4): `Host` holds the host, and the port if it is not the default one.
    // RFC 6455 §4.1 (5): `Upgrade` holds "websocket".
    // RFC 6455 §4.1 (6): `Connection` holds "Upgrade".
    // RFC 6455 §4.1 (7): `Sec-WebSocket-Key` holds the nonce in base64.
    // RFC 6455 §4.1 (9): `Sec-WebSocket-Version` is 13.
    #[test]
    fn the_plain_request_holds_what_the_rfc_requires() {
        let expected = "GET /chat HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(written(&plain()), expected);
    }

    // RFC 6455 §4.1 (8): `Origin` is sent for a page.
    // RFC 6455 §4.1 (10): `Sec-WebSocket-Protocol` lists the subprotocols in order of preference.
    // RFC 6455 §4.1 (11): `Sec-WebSocket-Extensions` holds the offers.
    // RFC 6455 §4.1 (12): other headers, such as authorization, may follow.
    #[test]
    fn everything_that_is_asked_for_is_in_the_request() {
        let request = full()
            .origin("https://chat.example:8443")
            .and_then(|request| request.host("virtual.example:81"))
            .and_then(|request| request.header("Authorization", "Bearer abc"))
            .and_then(|request| request.header("Cookie", "a=1"))
            .expect("valid");
        let text = written(&request);
        let request = Request::parse(text.as_bytes(), &HeadLimits::default()).expect("valid HTTP");
        assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["v2", "v1"]);
        assert_eq!((request.origin(), request.host()), (Some("https://chat.example:8443"), Some("virtual.example:81")));
        assert_eq!((request.bearer(), request.cookie("a")), (Some("abc"), Some("1")));
        #[cfg(feature = "deflate")]
        assert_eq!(request.header("sec-websocket-extensions"), Some("permessage-deflate; client_max_window_bits"));
        assert!(request.upgrade().is_ok());
    }

    // RFC 6455 §3: the path is "/" if it is empty; there is no fragment.
    #[test]
    fn a_target_is_completed_or_refused() {
        for (target, expected) in [("", "/"), ("?a=b", "/?a=b"), ("/a?b?c", "/a?b?c"), ("/%20", "/%20"), ("//a", "//a")]
        {
            let request = ClientRequest::new("a", target).expect("valid");
            assert!(written(&request).starts_with(&format!("GET {expected} HTTP/1.1\r\n")), "{target}");
        }
        for target in ["a", "http://a/", "/a b", "/a#b", "/é", "*"] {
            assert_eq!(ClientRequest::new("a", target).err(), Some(InvalidRequest::Target), "{target}");
        }
    }

    // CVE-2026-1527: no text of the caller's can add a line, a header or a second request.
    #[test]
    fn line_ends_are_refused_in_every_text() {
        for bad in ["\r\nX: y", "\nX: y", "\rX: y", "\0", "\r\n\r\nGET / HTTP/1.1\r\n"] {
            assert_eq!(ClientRequest::new(&format!("a{bad}"), "/").err(), Some(InvalidRequest::Host), "{bad:?}");
            assert_eq!(ClientRequest::new("a", &format!("/{bad}")).err(), Some(InvalidRequest::Target), "{bad:?}");
            assert_eq!(plain().subprotocol(&format!("a{bad}")).err(), Some(InvalidRequest::Subprotocol), "{bad:?}");
            assert_eq!(plain().origin(&format!("http://a{bad}")).err(), Some(InvalidRequest::Origin), "{bad:?}");
            assert_eq!(plain().origin(&format!("a{bad}://a")).err(), Some(InvalidRequest::Origin), "{bad:?}");
            let value = plain().header("X", &format!("a{bad}")).err();
            assert_eq!(value, Some(InvalidRequest::Header(InvalidHeader::Value)), "{bad:?}");
            let name = plain().header(&format!("X{bad}"), "a").err();
            assert_eq!(name, Some(InvalidRequest::Header(InvalidHeader::Name)), "{bad:?}");
        }
    }

    // RFC 6455 §4.1 (10): subprotocols are tokens that differ from each other.
    // RFC 6455 §11.3.1: `Sec-WebSocket-Key` stands in a request once; so do the others that the handshake writes.
    #[test]
    fn what_would_make_the_request_ambiguous_is_refused() {
        for name in ["v2", "", "a b", "a,b", "a/b", "é"] {
            assert_eq!(full().subprotocol(name).err(), Some(InvalidRequest::Subprotocol), "{name}");
        }
        for (name, known) in [
            ("Host", "Host"),
            ("UPGRADE", "Upgrade"),
            ("connection", "Connection"),
            ("Content-Length", "Content-Length"),
            ("Transfer-Encoding", "Transfer-Encoding"),
            ("Origin", "Origin"),
            ("sec-websocket-key", "Sec-WebSocket-Key"),
            ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol"),
        ] {
            let invalid = InvalidHeader::Reserved(known);
            assert_eq!(plain().header(name, "a").err(), Some(InvalidRequest::Header(invalid)), "{name}");
            assert!(invalid.to_string().contains(known));
        }
        for origin in ["", "a", "https://a/", "https://", "://a", "https://u@a", "https://a b"] {
            assert_eq!(plain().origin(origin).err(), Some(InvalidRequest::Origin), "{origin}");
        }
        assert!(plain().origin("null").is_ok() && plain().origin("file://").is_ok());
        for host in ["", "a/b", "u@a", "a b", "a:x", "::1", "[::1"] {
            assert_eq!(ClientRequest::new(host, "/").err(), Some(InvalidRequest::Host), "{host}");
            assert_eq!(plain().host(host).err(), Some(InvalidRequest::Host), "{host}");
        }
    }

    #[test]
    fn the_sample_response_opens_the_connection() {
        let request = full();
        let accepted = validated(&request, &response(None, &[])).expect("good");
        assert_eq!(accepted.subprotocol, None);
        #[cfg(feature = "deflate")]
        assert_eq!(accepted.deflate, None);
    }

    // RFC 6455 §4.1 response (1): a status other than 101 is handled as HTTP says.
    #[test]
    fn any_other_status_is_a_rejection_with_what_http_says_about_it() {
        let status = |line: &str, more: &[&str]| validated(&plain(), &response(Some((0, line)), more)).err();
        let rejected = |status, seconds: Option<u64>, location: Option<&str>| {
            let (retry_after, location) = (seconds.map(Duration::from_secs), location.map(str::to_owned));
            Some(Rejection::Status { status, retry_after, location })
        };
        assert_eq!(status("HTTP/1.1 200 OK", &[]), rejected(200, None, None));
        assert_eq!(status("HTTP/1.1 503", &["retry-after: 120"]), rejected(503, Some(120), None));
        for odd in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "+1", "", "99999999999999999999999"] {
            assert_eq!(status("HTTP/1.0 429 ", &[&format!("Retry-After: {odd}")]), rejected(429, None, None), "{odd}");
        }
        let redirect = status("HTTP/1.1 302 Found", &["Location: wss://b/"]);
        assert_eq!(redirect, rejected(302, None, Some("wss://b/")));
        assert_eq!(status("HTTP/1.0 101 Switching Protocols", &[]), Some(Rejection::HttpVersion));
        for line in ["HTTP/1.1 1010 x", "HTTP/1.1 000 x", "HTTP/1.1 999 x", "HTTP/2 101 x", "101 x", "GET / HTTP/1.1"] {
            assert_eq!(status(line, &[]), Some(Rejection::Malformed), "{line}");
        }
    }

    #[test]
    fn a_rejection_says_who_is_at_fault_and_whether_to_try_again() {
        let status = |status| Rejection::Status { status, retry_after: None, location: None };
        for code in [408, 425, 429, 500, 502, 503, 504] {
            assert!(status(code).is_transient() && status(code).fault() == Fault::Server, "{code}");
        }
        for code in [200, 301, 400, 401, 403, 404, 405, 410, 426, 431] {
            assert!(!status(code).is_transient() && status(code).fault() == Fault::Request, "{code}");
        }
        assert!(!status(501).is_transient() && status(501).fault() == Fault::Server);
        assert!(!Rejection::Accept.is_transient() && Rejection::Accept.fault() == Fault::Server);
        assert!(status(100).is_interim() && status(103).is_interim() && !status(200).is_interim());
        assert!(status(401).to_string().contains("401") && status(401).to_string().contains("credentials"));
    }

    // RFC 6455 §4.1 response (2): `Upgrade` is "websocket" in any case, or the client fails the connection.
    #[test]
    fn a_response_without_the_right_upgrade_is_refused() {
        assert_eq!(exchanged(1, "upgrade: WEBSOCKET"), Ok(()));
        for line in [
            "",
            "Upgrade:",
            "Upgrade: h2c",
            "Upgrade: websocket, h2c",
            "Upgrade: websockets",
            "Upgrade: web\u{17f}ocket",
        ] {
            let expected = if line.is_ascii() { Rejection::Upgrade } else { Rejection::Malformed };
            assert_eq!(exchanged(1, line), Err(expected), "{line}");
        }
        assert_eq!(with(&["Upgrade: websocket"]), Err(Rejection::Upgrade));
    }

    // RFC 6455 §4.1 response (3): `Connection` has the token "upgrade" in any case, or the client fails the connection.
    #[test]
    fn a_response_without_the_right_connection_is_refused() {
        assert_eq!(exchanged(2, "Connection: keep-alive, uPgrade"), Ok(()));
        for line in ["", "Connection: close", "Connection: upgrades", "Connection: up grade"] {
            assert_eq!(exchanged(2, line), Err(Rejection::Connection), "{line}");
        }
    }

    // RFC 6455 §4.1 response (4): `Sec-WebSocket-Accept` is the one value for our key, but for the space around it.
    // RFC 6455 §11.3.3: it occurs once in a response.
    #[test]
    fn a_response_without_the_right_accept_is_refused() {
        assert_eq!(exchanged(3, "sec-websocket-accept:\t s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t"), Ok(()));
        for value in
            ["", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo", "dGhlIHNhbXBsZSBub25jZQ==", "x"]
        {
            assert_eq!(exchanged(3, &format!("Sec-WebSocket-Accept: {value}")), Err(Rejection::Accept), "{value}");
        }
        assert_eq!(exchanged(3, ""), Err(Rejection::Accept));
        assert_eq!(with(&[GOOD[3]]), Err(Rejection::Accept));
        let other = plain().validate(response(None, &[]).as_bytes(), [0; 16], &HeadLimits::default()).map(drop);
        assert_eq!(other, Err(Rejection::Accept));
    }

    // RFC 6455 §4.1 response (5): an extension that was not offered fails the connection.
    // RFC 6455 §9.1: so does a list outside the grammar.
    #[test]
    fn an_extension_that_was_not_offered_is_refused() {
        for value in ["x-other", "permessage-deflate, x-other", "", ",", "permessage-deflate;", "a b"] {
            let line = format!("Sec-WebSocket-Extensions: {value}");
            assert_eq!(with(&[&line]), Err(Rejection::Extension), "{value}");
        }
        let line = "Sec-WebSocket-Extensions: permessage-deflate";
        assert_eq!(validated(&plain(), &response(None, &[line])).err(), Some(Rejection::Extension));
        assert_eq!(with(&[line, line]), Err(Rejection::Extension));
    }

    // RFC 7692 §5: the client takes the parameters that the server answers, or fails the connection.
    // RFC 7692 §7.1: a parameter that is invalid in a response fails the connection.
    #[cfg(feature = "deflate")]
    #[test]
    fn the_answer_to_deflate_is_taken_or_refused() {
        let request = full();
        let answered = |value: &str| {
            let line = format!("Sec-WebSocket-Extensions: {value}");
            validated(&request, &response(None, &[&line])).map(|accepted| accepted.deflate)
        };
        let negotiated = answered("permessage-deflate; client_max_window_bits=10; server_no_context_takeover");
        let negotiated = negotiated.expect("valid").expect("agreed");
        assert_eq!(negotiated.outgoing, deflate::Window { bits: 10, takeover: true });
        assert_eq!(negotiated.incoming, deflate::Window { bits: 15, takeover: false });
        let invalid = deflate::InvalidResponse::Parameter(deflate::InvalidParameter::WindowBits);
        assert_eq!(answered("permessage-deflate; server_max_window_bits=7"), Err(Rejection::Deflate(invalid)));
    }

    // RFC 6455 §9.1: several `Sec-WebSocket-Extensions` headers in a response are one list (erratum 3433).
    #[cfg(feature = "deflate")]
    #[test]
    fn repeated_extension_headers_in_a_response_are_one_list() {
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate";
        assert_eq!(with(&[deflate, "Sec-WebSocket-Extensions: ,"]), Ok(()));
        assert_eq!(with(&[deflate, "Sec-WebSocket-Extensions: x-other"]), Err(Rejection::Extension));
    }

    // RFC 6455 §4.1 response (6): a subprotocol that was not offered fails the connection.
    // RFC 6455 §11.3.4: `Sec-WebSocket-Protocol` occurs at most once in a response.
    #[test]
    fn a_subprotocol_that_was_not_offered_is_refused() {
        let request = full();
        let accepted = validated(&request, &response(None, &["Sec-WebSocket-Protocol: v1"])).expect("good");
        assert_eq!(accepted.subprotocol, Some("v1"));
        for value in ["v3", "V1", "v1, v2", "v1,", "", "v"] {
            let line = format!("Sec-WebSocket-Protocol: {value}");
            assert_eq!(with(&[&line]), Err(Rejection::Subprotocol), "{value}");
        }
        let line = "Sec-WebSocket-Protocol: v1";
        assert_eq!(with(&[line, line]), Err(Rejection::Subprotocol));
        assert_eq!(validated(&plain(), &response(None, &[line])).err(), Some(Rejection::Subprotocol));
    }

    // CVE-2026-54465: a server that sends headers without end is refused by the client at the same limits.
    #[test]
    fn a_response_of_endless_headers_is_refused() {
        let endless = format!("{}\r\n{}", GOOD.join("\r\n"), "a: b\r\n".repeat(1_000));
        let limits = HeadLimits::default();
        let result = plain().validate(endless.as_bytes(), NONCE, &limits).map(drop);
        assert_eq!(result, Err(Rejection::HeadTooLarge));
        let long = response(None, &[&format!("X: {}", "x".repeat(16 << 10))]);
        assert_eq!(validated(&plain(), &long).err(), Some(Rejection::HeadTooLarge));
        assert_eq!(validated(&plain(), &endless[..100]).err(), Some(Rejection::Malformed));
        let folded = response(None, &["X: a", " b"]);
        assert_eq!(validated(&plain(), &folded).err(), Some(Rejection::Malformed));
    }

    #[test]
    fn debug_output_of_a_request_holds_no_secrets() {
        let request = ClientRequest::new("a", "/chat?token=s3cret").expect("valid");
        let request =
            request.header("Authorization", "Bearer s3cret").and_then(|request| request.subprotocol("s3cret"));
        let shown = format!("{:?}", request.expect("valid"));
        assert!(shown.contains("/chat") && !shown.contains("s3cret"), "{shown}");
        let head = response(None, &["Set-Cookie: s3cret"]);
        let response = ClientResponse::parse(head.as_bytes(), &HeadLimits::default()).expect("valid");
        assert!(!format!("{response:?}").contains("s3cret"));
        assert_eq!(response.header("set-cookie"), Some("s3cret"));
    }

    proptest! {
        // RFC 6455 §4.1: what our client writes our server accepts, and what that answers our client accepts.
        #[test]
        fn our_client_and_our_server_shake_hands(
            nonce: [u8; 16],
            target in "(/[a-z%0-9]{0,9}(\\?[a-z=&]{0,9})?)?",
            offered in prop::collection::btree_set("[a-z.]{1,4}", 0..4),
            supported in prop::collection::vec("[a-z.]{1,2}", 0..4),
            value in "[ -~]{0,20}",
        ) {
            let mut request = ClientRequest::new("a.example:81", &target).and_then(|request| request.header("X", &value));
            for name in &offered {
                request = request.and_then(|request| request.subprotocol(name));
            }
            let request = request.expect("valid");
            let (mut wire, mut answer) = (Vec::new(), Vec::new());
            request.write(nonce, &mut wire);
            let limits = HeadLimits::default();
            prop_assert_eq!(HeadScan::new().find(&wire, &limits), Ok(Some(wire.len())));
            let parsed = Request::parse(&wire, &limits).expect("well-formed");
            prop_assert_eq!(parsed.header("x"), Some(value.trim()));
            let supported: Vec<_> = supported.iter().map(String::as_str).collect();
            let upgrade = parsed.upgrade().expect("a handshake").select_subprotocol(&supported);
            upgrade.write_response(&mut answer);
            let accepted = request.validate(&answer, nonce, &limits).expect("an answer");
            prop_assert_eq!(accepted.subprotocol, upgrade.subprotocol());
            prop_assert_eq!(accepted.subprotocol, supported.into_iter().find(|name| offered.contains(*name)));
        }

        #[test]
        fn any_response_is_validated_without_a_panic(
            bytes: Vec<u8>,
            name in prop::sample::select(&["Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol",
                "Sec-WebSocket-Extensions", "Retry-After", "Location"][..]),
            value in "([ -~]{0,30}|[\\PC\\x00-\\x20]{0,10})",
            status in "[0-9]{1,4}",
        ) {
            let request = full();
            let _ = request.validate(&bytes, NONCE, &HeadLimits::default());
            let line = format!("{name}: {value}");
            let _ = validated(&request, &response(None, &[&line]));
            let first = format!("HTTP/1.1 {status} x");
            let _ = validated(&request, &response(Some((0, &first)), &[&line]));
        }

        #[test]
        fn no_text_makes_a_request_of_two_lines(text in "(\\PC|[\\x00-\\x20]|[a-z]){0,12}") {
            for request in [
                ClientRequest::new(&text, "/"),
                ClientRequest::new("a", &text),
                plain().host(&text),
                plain().origin(&text),
                plain().subprotocol(&text),
                plain().header("X", &text),
                plain().header(&text, "x"),
            ].into_iter().flatten() {
                let wire = written(&request);
                let lines = wire.matches('\n').count();
                prop_assert!(lines == 7 || lines == 8);
                prop_assert!(Request::parse(wire.as_bytes(), &HeadLimits::default()).is_ok());
            }
        }
    }
}
