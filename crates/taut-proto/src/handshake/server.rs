//! What a server does with a request (RFC 6455 §4.2, RFC 8441 §5): check it and answer it.

use std::borrow::Cow;
use std::fmt;

use super::head::RequestHead;
use super::key::{accept_key, is_valid_key};
use super::refusal::{Cause, Refusal};
use super::request::Request;
use super::response::Response;
use super::{InvalidHeader, MalformedExtensions, Offer, check_own_header, http1, is_token};

impl<'a> Request<'a> {
    /// Checks everything that RFC 6455 §4.2.1 asks of a client's handshake, or RFC 8441 where it comes over HTTP/2 or
    /// HTTP/3. Who may connect (origin, path, token) is the application's to check, before or after.
    ///
    /// # Errors
    /// 405 for a method other than GET (over HTTP/2: CONNECT), 426 for a request that does not upgrade to version 13,
    /// 501 for an extended CONNECT to another protocol, otherwise 400.
    pub fn upgrade(&self) -> Result<Upgrade<'_>, Refusal> {
        let accept = if self.version().has_streams() {
            self.check_extended_connect()?;
            None
        } else {
            Some(self.check_upgrade()?)
        };
        // CVE-2026-69243: bytes that a proxy takes for the body of this request would be frames to us.
        let has_body = self.headers().any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding")
                || (name.eq_ignore_ascii_case("content-length") && value.trim_ascii() != b"0")
        });
        if has_body {
            return Err(Cause::Body.into());
        }
        self.check_subprotocols()?;
        self.check_extensions()?;
        Ok(Upgrade {
            request: self,
            accept,
            subprotocol: None,
            #[cfg(feature = "deflate")]
            deflate: None,
            headers: Vec::new(),
        })
    }

    /// The handshake of HTTP/1.1; gives the value of `Sec-WebSocket-Accept`.
    fn check_upgrade(&self) -> Result<[u8; 28], Cause> {
        let RequestHead { headers, .. } = self.head();
        // RFC 6455 §4.2.1 (1): GET, HTTP/1.1 or higher, a path or an absolute HTTP URI.
        if self.method() != "GET" {
            return Err(Cause::Method);
        }
        if !self.is_http_1_1() {
            return Err(Cause::HttpVersion);
        }
        self.check_target()?;
        // RFC 6455 §4.2.1 (2): a host.
        if !headers.contains("host") || self.host().is_none_or(str::is_empty) {
            return Err(Cause::MissingHost);
        }
        // RFC 6455 §4.2.1 (3): `Upgrade` with "websocket" in any case.
        if !self.wants_upgrade() {
            return Err(Cause::MissingUpgrade);
        }
        // RFC 6455 §4.2.1 (4): `Connection` with "upgrade" in any case.
        if !headers.lists("connection", "upgrade") {
            return Err(Cause::MissingConnection);
        }
        self.check_version()?;
        // RFC 6455 §4.2.1 (5): a key that decodes to 16 bytes.
        let key = self.header("sec-websocket-key").ok_or(Cause::MissingKey)?;
        if is_valid_key(key) { Ok(accept_key(key)) } else { Err(Cause::InvalidKey) }
    }

    /// The handshake of HTTP/2 and HTTP/3. `:protocol` takes the place of `Upgrade` and `Connection`; a key is not
    /// looked at, since it proved that the server is not an HTTP cache, and a stream is proof enough (RFC 8441 §5).
    fn check_extended_connect(&self) -> Result<(), Cause> {
        // RFC 8441 §5: CONNECT.
        if self.method() != "CONNECT" {
            return Err(Cause::Method);
        }
        // RFC 9220 §3: a protocol that is not known is answered 501.
        if !self.wants_upgrade() {
            return Err(Cause::Protocol);
        }
        // RFC 8441 §4: an extended CONNECT has `:scheme` and `:path`.
        if self.head().scheme.is_none() {
            return Err(Cause::InvalidTarget);
        }
        self.check_target()?;
        // RFC 8441 §4: `:authority` says which host it is for, as in any other request.
        if self.host().is_none_or(str::is_empty) {
            return Err(Cause::MissingHost);
        }
        self.check_version()
    }

    /// RFC 6455 §4.2.1 (1), RFC 8441 §5: a path, of an HTTP URI if it is absolute.
    fn check_target(&self) -> Result<(), Cause> {
        let is_http = |scheme: &str| ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
        let is_valid = self.path().starts_with('/') && self.head().scheme.is_none_or(is_http);
        if is_valid { Ok(()) } else { Err(Cause::InvalidTarget) }
    }

    /// RFC 6455 §4.2.1 (6), §4.4: version 13. Earlier drafts are not spoken (GHSA-4mp9-239f-g9hg).
    fn check_version(&self) -> Result<(), Cause> {
        if self.header("sec-websocket-version") == Some("13") { Ok(()) } else { Err(Cause::Version) }
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
    fn offers(&self) -> impl Iterator<Item = Result<Offer<'a>, MalformedExtensions>> + use<'_, 'a> {
        self.header_values("sec-websocket-extensions").flat_map(Offer::list)
    }

    /// RFC 6455 §9.1: what is outside the grammar fails the handshake, whether or not we use extensions. If there is a
    /// list, it has at least one element.
    fn check_extensions(&self) -> Result<(), Cause> {
        let mut is_offered = false;
        for offer in self.offers() {
            offer.map_err(|_| Cause::InvalidExtensions)?;
            is_offered = true;
        }
        let is_empty = !is_offered && self.head().headers.contains("sec-websocket-extensions");
        if is_empty { Err(Cause::InvalidExtensions) } else { Ok(()) }
    }
}

/// A handshake that may be accepted: choose what to answer, then write it.
///
/// What is not chosen is not answered: no subprotocol and no extension, which every client must accept.
pub struct Upgrade<'r> {
    request: &'r Request<'r>,
    /// `None` where the handshake has no key: over HTTP/2 and HTTP/3.
    accept: Option<[u8; 28]>,
    subprotocol: Option<&'r str>,
    #[cfg(feature = "deflate")]
    deflate: Option<super::deflate::NegotiatedDeflate>,
    /// The application's headers, checked.
    headers: Vec<(String, String)>,
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
    pub fn with_deflate(mut self, deflate: Option<super::deflate::NegotiatedDeflate>) -> Self {
        self.deflate = deflate;
        self
    }

    /// Adds a header to the response.
    ///
    /// # Errors
    /// When name or value could not be sent as one header, or when the handshake writes this header itself.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidHeader> {
        check_own_header(name, value, &RESERVED)?;
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// The response that accepts the handshake: status 101, or 200 over HTTP/2 and HTTP/3. Frames may follow at once.
    pub fn response(&self) -> Response<'_> {
        let mut response = Response::new(self.status());
        self.each_header(|name, value| response.push(name, value));
        response
    }

    /// Appends the [`response`](Self::response) to `out` as the text of HTTP/1.1.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        // Every connection is answered so: its lines are written as they come, and not made values first.
        http1::write_status(self.status(), out);
        self.each_header(|name, value| http1::write_line(out, name, value.as_bytes()));
        out.extend_from_slice(b"\r\n");
    }

    fn status(&self) -> u16 {
        // RFC 6455 §4.2.2 (5): status 101. RFC 8441 §5: a status of 2xx.
        if self.accept.is_some() { 101 } else { 200 }
    }

    /// Gives the headers of the response, in order.
    fn each_header<'u>(&'u self, mut push: impl FnMut(&'u str, Cow<'u, str>)) {
        // RFC 6455 §4.2.2 (5): `Upgrade`, `Connection` and `Sec-WebSocket-Accept`. RFC 8441 §5: none of these.
        if let Some(accept) = &self.accept {
            push("Upgrade", "websocket".into());
            push("Connection", "Upgrade".into());
            push("Sec-WebSocket-Accept", str::from_utf8(accept).unwrap_or_default().into());
        }
        if let Some(subprotocol) = self.subprotocol {
            push("Sec-WebSocket-Protocol", subprotocol.into());
        }
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &self.deflate {
            let mut value = Vec::with_capacity(MOST_PARAMETERS);
            super::deflate::write_response(deflate, &mut value);
            push("Sec-WebSocket-Extensions", String::from_utf8(value).unwrap_or_default().into());
        }
        for (name, value) in &self.headers {
            push(name, value.into());
        }
    }
}

impl fmt::Debug for Upgrade<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Upgrade");
        shown.field("request", self.request).field("subprotocol", &self.subprotocol).finish_non_exhaustive()
    }
}

/// Adds a header to what [`Upgrade::write_response`] has written, if more is known of an upgrade by the time its response
/// is sent: one of the application's own, or `Sec-WebSocket-Protocol` where [none was selected](Upgrade::subprotocol).
///
/// # Errors
/// When name or value could not be sent as one header, or when the handshake writes this header itself.
pub fn add_header(response: &mut Vec<u8>, name: &str, value: &str) -> Result<(), InvalidHeader> {
    let is_subprotocol = name.eq_ignore_ascii_case("Sec-WebSocket-Protocol") && is_token(value);
    if !is_subprotocol {
        check_own_header(name, value, &RESERVED)?;
    }
    // The empty line that ends the head.
    response.truncate(response.len().saturating_sub(2));
    http1::write_line(response, name, value.as_bytes());
    response.extend_from_slice(b"\r\n");
    Ok(())
}

/// Bytes of an answer to permessage-deflate with all its parameters, and a few more.
#[cfg(feature = "deflate")]
const MOST_PARAMETERS: usize = 128;

/// Response headers that would contradict the handshake's own.
const RESERVED: [&str; 4] = ["Connection", "Content-Length", "Transfer-Encoding", "Upgrade"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::testing::{head, written};
    use crate::handshake::{HeadLimits, HeadScan, origin};

    fn request(head: &str) -> Request<'_> {
        Request::parse(head.as_bytes(), &HeadLimits::default()).expect("a well-formed head")
    }

    /// Why the good handshake with these changes is refused.
    fn cause(changes: &[(&str, &str)]) -> Option<Cause> {
        let head = head(changes);
        let request = Request::parse(head.as_bytes(), &HeadLimits::default());
        Some(request.and_then(|request| request.upgrade().map(drop)).err()?.cause())
    }

    // RFC 6455 §4.2.2 (5.1): the response has status 101.
    // RFC 6455 §4.2.2 (5.2): and `Upgrade: websocket`.
    // RFC 6455 §4.2.2 (5.3): and `Connection: Upgrade`.
    // RFC 6455 §4.2.2 (5.4): and `Sec-WebSocket-Accept` for the client's key; an empty line ends it.
    #[test]
    fn the_sample_handshake_gets_the_sample_response() {
        let head = head(&[]);
        let request = request(&head);
        let response = written(|out| request.upgrade().expect("good").write_response(out));
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
        let response = written(|out| Refusal::from(Cause::Method).write_response(out));
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
    #[test]
    fn a_target_is_a_path_or_an_absolute_uri() {
        for target in ["/", "/chat?a=1?b", "/chat?", "//a/b", "http://a/x?y", "HTTPS://a:8443", "http://a?q"] {
            assert_eq!(cause(&[("GET", &format!("GET {target} HTTP/1.1"))]), None, "{target}");
        }
        for target in ["chat", "*", "server.example:80", "ftp://a/", "https:"] {
            let line = format!("GET {target} HTTP/1.1");
            assert_eq!(cause(&[("GET", &line)]), Some(Cause::InvalidTarget), "{target}");
        }
    }

    // RFC 6455 §4.2.1 (2): a `Host` header with the server's authority.
    #[test]
    fn a_missing_host_is_refused() {
        assert_eq!(cause(&[("Host", "")]), Some(Cause::MissingHost));
        assert_eq!(cause(&[("Host", "Host:")]), Some(Cause::MissingHost));
        assert_eq!(cause(&[("Host", ""), ("GET", "GET http://a/ HTTP/1.1")]), Some(Cause::MissingHost));
        assert_eq!(cause(&[("Host", "Host: \t[::1]:9000 ")]), None);
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
            let response = written(|out| Refusal::from(cause).write_response(out));
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
            let response = written(|out| upgrade(supported).write_response(out));
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
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    }

    // RFC 6455 §4.2.1 (9): extensions that the server does not know are ignored.
    // RFC 6455 §4.2.1 (10): so are other headers.
    #[test]
    fn what_the_server_does_not_know_is_ignored() {
        let changes =
            [("", "Sec-WebSocket-Extensions: x-unknown; a"), ("", "Sec-WebSocket-Protocol: x"), ("", "X-Any: \u{e9}")];
        let head = head(&changes);
        let request = request(&head);
        let response = written(|out| request.upgrade().expect("good").write_response(out));
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
        let deflate = deflate::accept(upgrade.extensions(), &config);
        let response = written(|out| upgrade.with_deflate(deflate).write_response(out));
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
        for (name, known) in [
            ("Connection", "Connection"),
            ("content-length", "Content-Length"),
            ("Transfer-Encoding", "Transfer-Encoding"),
            ("Upgrade", "Upgrade"),
            ("SEC-WEBSOCKET-accept", "Sec-WebSocket-Accept"),
            ("Sec-WebSocket-Location", "Sec-WebSocket-*"),
        ] {
            assert_eq!(upgrade().header(name, "a").err(), Some(InvalidHeader::Reserved(known)));
        }
        let response = written(|out| upgrade().header("X-Node", "a b").expect("good").write_response(out));
        assert!(response.ends_with("\r\nX-Node: a b\r\n\r\n"), "{response}");
    }

    #[test]
    fn a_response_that_was_written_before_takes_further_headers() {
        let head = head(&[]);
        let request = request(&head);
        let mut response = Vec::new();
        request.upgrade().expect("good").write_response(&mut response);
        let before = response.clone();
        for (name, value, invalid) in [
            ("X", "a\r\nSet-Cookie: b", InvalidHeader::Value),
            ("X Y", "a", InvalidHeader::Name),
            ("Upgrade", "h2c", InvalidHeader::Reserved("Upgrade")),
            ("Sec-WebSocket-Protocol", "a, b", InvalidHeader::Reserved("Sec-WebSocket-Protocol")),
        ] {
            assert_eq!(add_header(&mut response, name, value), Err(invalid), "{name}");
        }
        assert_eq!(response, before);
        assert_eq!(add_header(&mut response, "Sec-WebSocket-Protocol", "v1"), Ok(()));
        assert_eq!(add_header(&mut response, "Set-Cookie", "a=b"), Ok(()));
        let text = String::from_utf8(response).expect("a text");
        let first = String::from_utf8(before).expect("a text");
        let added = "Sec-WebSocket-Protocol: v1\r\nSet-Cookie: a=b\r\n\r\n";
        assert_eq!(text, format!("{}{added}", first.strip_suffix("\r\n").expect("it ends so")));
    }

    #[test]
    fn the_text_of_a_response_is_that_of_its_values() {
        let head = head(&[("", "Sec-WebSocket-Protocol: v1"), ("", "Sec-WebSocket-Extensions: permessage-deflate")]);
        let request = request(&head);
        let upgrade = request.upgrade().expect("good").select_subprotocol(&["v1"]).header("X", "y").expect("good");
        #[cfg(feature = "deflate")]
        let upgrade = {
            let deflate = crate::deflate::accept(upgrade.extensions(), &crate::deflate::Config::default());
            upgrade.with_deflate(deflate)
        };
        let text = written(|out| upgrade.write_response(out));
        assert_eq!(text, written(|out| http1::write_response(&upgrade.response(), out)));
        assert!(text.contains("\r\nSec-WebSocket-Protocol: v1\r\n") && text.ends_with("\r\nX: y\r\n\r\n"), "{text}");
    }

    #[test]
    fn debug_output_holds_no_secrets() {
        let head = head(&[("GET", "GET /chat?token=s3cret HTTP/1.1"), ("", "Authorization: Bearer s3cret")]);
        let request = request(&head);
        let shown = format!("{:?}", request.upgrade().expect("good").header("X", "s3cret").expect("good"));
        assert!(shown.contains("/chat") && shown.contains("Authorization") && !shown.contains("s3cret"), "{shown}");
    }

    proptest! {
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
            if let Ok(request) = Request::parse(head.as_bytes(), &HeadLimits::default()) {
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
