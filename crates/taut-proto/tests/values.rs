//! The handshake as values: the same rules without the text of HTTP/1.1, and RFC 8441 over HTTP/2 (RFC 9220: HTTP/3).

use proptest::prelude::*;
use taut_proto::handshake::{
    Cause, HeadLimits, Headers, Refusal, Request, RequestHead, Response, Version, http1, origin,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 16 << 10, headers: 100 };

/// The head of a good handshake over HTTP/1.1, as an HTTP library would have parsed it.
fn upgrade() -> RequestHead<'static> {
    RequestHead {
        method: "GET",
        scheme: None,
        authority: None,
        target: "/chat?room=1",
        protocol: None,
        version: Version::Http11,
        headers: UPGRADE.iter().copied().collect(),
    }
}

const UPGRADE: [(&str, &[u8]); 5] = [
    ("host", b"server.example"),
    ("upgrade", b"websocket"),
    ("connection", b"Upgrade"),
    ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", b"13"),
];

/// The head of a good handshake over HTTP/2: the example of RFC 8441 §5.1.
fn connect() -> RequestHead<'static> {
    RequestHead::extended_connect(Version::Http2, "https", "server.example.com", "/chat", of(&CONNECT))
}

const CONNECT: [(&str, &[u8]); 4] = [
    ("sec-websocket-protocol", b"chat, superchat"),
    ("sec-websocket-extensions", b"permessage-deflate"),
    ("sec-websocket-version", b"13"),
    ("origin", b"http://www.example.com"),
];

fn of<'a>(headers: &[(&'a str, &'a [u8])]) -> Headers<'a> {
    headers.iter().copied().collect()
}

/// The headers of `head` and one more.
fn with<'a>(mut head: RequestHead<'a>, name: &'a str, value: &'a [u8]) -> RequestHead<'a> {
    head.headers = head.headers.iter().chain([(name, value)]).collect();
    head
}

/// The headers of `head` without those of a name.
fn without<'a>(mut head: RequestHead<'a>, name: &str) -> RequestHead<'a> {
    head.headers = head.headers.iter().filter(|(own, _)| *own != name).collect();
    head
}

/// Why a head is refused, as a request or as a handshake.
fn cause(head: RequestHead<'_>) -> Option<Cause> {
    Some(Request::new(head, &LIMITS).and_then(|request| request.upgrade().map(drop)).err()?.cause())
}

fn shown(response: &Response<'_>) -> (u16, Vec<(String, String)>) {
    (response.status(), response.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

// RFC 6455 §4.2.2 (5): the response is a value, and the text of HTTP/1.1 is one way to write it.
#[test]
fn a_handshake_that_came_as_values_is_answered_with_values() {
    let request = Request::new(with(upgrade(), "sec-websocket-protocol", b"v1"), &LIMITS).unwrap();
    assert_eq!((request.path(), request.query(), request.host()), ("/chat", Some("room=1"), Some("server.example")));
    let upgrade = request.upgrade().unwrap().select_subprotocol(&["v1"]).header("X-Node", "a").unwrap();
    let response = upgrade.response();
    let expected = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "v1"),
        ("X-Node", "a"),
    ];
    assert_eq!(shown(&response), (101, pairs(&expected)));
    assert_eq!(response.body(), "");
    let (mut written, mut from_value) = (Vec::new(), Vec::new());
    upgrade.write_response(&mut written);
    http1::write_response(&response, &mut from_value);
    assert_eq!(written, from_value);
}

// RFC 9112 §3.2.2: the authority of a target in absolute form counts, whoever has split it.
#[test]
fn a_target_in_absolute_form_is_the_same_split_or_whole() {
    let split = RequestHead { scheme: Some("http"), authority: Some("other.example:81"), ..upgrade() };
    let whole = RequestHead { target: "http://other.example:81/chat?room=1", ..upgrade() };
    for head in [split.clone(), whole] {
        let request = Request::new(head, &LIMITS).unwrap();
        let seen = (request.host(), request.path(), request.query(), request.upgrade().is_ok());
        assert_eq!(seen, (Some("other.example:81"), "/chat", Some("room=1"), true));
    }
    for scheme in ["ftp", "ws", ""] {
        assert_eq!(
            cause(RequestHead { scheme: Some(scheme), ..split.clone() }),
            Some(Cause::InvalidTarget),
            "{scheme}"
        );
    }
    assert_eq!(cause(RequestHead { target: "http://third.example/", ..split.clone() }), Some(Cause::InvalidTarget));
    assert_eq!(cause(RequestHead { authority: Some("user@other.example"), ..split }), Some(Cause::InvalidHost));
}

// CVE-2026-1527: a value that could not be one header of HTTP/1.1 comes in by no other way either.
#[test]
fn headers_that_text_could_not_have_brought_are_refused() {
    for (value, expected) in [
        (&b"a\r\nSet-Cookie: b"[..], Cause::LineEnd),
        (b"a\nb", Cause::LineEnd),
        (b"a\rb", Cause::LineEnd),
        (b"a\0b", Cause::Nul),
        (b"a\x01b", Cause::Malformed),
        (b"a\x7fb", Cause::Malformed),
    ] {
        assert_eq!(cause(with(upgrade(), "x", value)), Some(expected), "{value:?}");
        assert_eq!(cause(with(connect(), "x", value)), Some(expected), "{value:?}");
    }
    assert_eq!(cause(with(upgrade(), "x", b"a\tb \xc3\xa9 \xff")), None);
    for name in ["", "a b", "a:", "x\r\ny", "\u{e9}"] {
        assert_eq!(cause(with(upgrade(), name, b"x")), Some(Cause::Malformed), "{name:?}");
    }
    for method in ["", "GET /", "G\r\nT"] {
        assert_eq!(cause(RequestHead { method, ..upgrade() }), Some(Cause::Malformed), "{method:?}");
    }
    for target in ["", "/a b", "/a\r\nb", "/\0", "/\x7f"] {
        assert_eq!(cause(RequestHead { target, ..upgrade() }), Some(Cause::Malformed), "{target:?}");
    }
    assert_eq!(cause(RequestHead { target: "/\u{e9}", ..upgrade() }), Some(Cause::InvalidTarget));
    assert_eq!(cause(RequestHead { protocol: Some("websocket"), ..upgrade() }), Some(Cause::Malformed));
}

// CVE-2024-37890: a library that parses heads may have wider limits than we do.
#[test]
fn the_limits_hold_for_values_as_for_their_text() {
    let text = "GET /chat?room=1 HTTP/1.1\r\nhost: a\r\nx: yz\r\n\r\n";
    let absolute = "GET http://b/chat?room=1 HTTP/1.1\r\nhost: a\r\nx: yz\r\n\r\n";
    let head = RequestHead { headers: of(&[("host", b"a"), ("x", b"yz")]), ..upgrade() };
    let split = RequestHead { scheme: Some("http"), authority: Some("b"), ..head.clone() };
    for (text, head) in [(text, head), (absolute, split)] {
        for bytes in [text.len() - 1, text.len()] {
            for headers in [1, 2] {
                let limits = HeadLimits { bytes, headers };
                let of_text = Request::parse(text.as_bytes(), &limits).map(drop).map_err(|refusal| refusal.status());
                let of_values = Request::new(head.clone(), &limits).map(drop).map_err(|refusal| refusal.status());
                assert_eq!(of_values, of_text, "{limits:?}");
                assert_eq!(of_values.is_ok(), limits == HeadLimits { bytes: text.len(), headers: 2 });
            }
        }
    }
}

// RFC 8441 §5: CONNECT with `:protocol` websocket opens a WebSocket, answered 200.
// RFC 8441 §5.1: the section's example.
// RFC 9220 §3: the same over HTTP/3.
#[test]
fn an_extended_connect_is_accepted_with_200_and_without_a_key() {
    for version in [Version::Http2, Version::Http3] {
        let request = Request::new(RequestHead { version, ..connect() }, &LIMITS).unwrap();
        assert!(request.wants_upgrade());
        assert_eq!((request.host(), request.path()), (Some("server.example.com"), "/chat"));
        let upgrade = request.upgrade().unwrap().select_subprotocol(&["chat"]);
        assert_eq!(shown(&upgrade.response()), (200, pairs(&[("Sec-WebSocket-Protocol", "chat")])));
        assert_eq!(upgrade.extensions().map(|offer| offer.name()).collect::<Vec<_>>(), ["permessage-deflate"]);
    }
}

// RFC 7692 §5, RFC 8441 §5: extensions are negotiated by the same headers.
#[cfg(feature = "deflate")]
#[test]
fn deflate_is_agreed_on_over_http_2_too() {
    let request = Request::new(connect(), &LIMITS).unwrap();
    let upgrade = request.upgrade().unwrap();
    let agreed = taut_proto::deflate::accept(upgrade.extensions(), &taut_proto::deflate::Config::default());
    let response = upgrade
        .with_deflate(agreed)
        .response()
        .headers()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect::<Vec<_>>();
    assert_eq!(response.len(), 1);
    assert!(response[0].starts_with("Sec-WebSocket-Extensions: permessage-deflate"), "{response:?}");
}

// RFC 8441 §4: an extended CONNECT has `:scheme`, `:path` and `:authority`.
// RFC 8441 §5: its version is 13; a key is not processed.
// RFC 9220 §3: another `:protocol` is answered 501.
#[test]
fn an_extended_connect_that_is_no_handshake_is_refused() {
    // A vector: a head is nearly 1 KiB.
    for (head, expected) in vec![
        (RequestHead { method: "GET", ..connect() }, Some((Cause::Method, 405))),
        (RequestHead { method: "connect", ..connect() }, Some((Cause::Method, 405))),
        (RequestHead { protocol: None, ..connect() }, Some((Cause::Protocol, 501))),
        (RequestHead { protocol: Some("connect-udp"), ..connect() }, Some((Cause::Protocol, 501))),
        (RequestHead { protocol: Some("WebSocket"), ..connect() }, None),
        (RequestHead { scheme: None, ..connect() }, Some((Cause::InvalidTarget, 400))),
        (RequestHead { scheme: Some("wss"), ..connect() }, Some((Cause::InvalidTarget, 400))),
        (RequestHead { scheme: Some("http"), ..connect() }, None),
        (RequestHead { target: "chat", ..connect() }, Some((Cause::InvalidTarget, 400))),
        (RequestHead { target: "https://server.example.com/chat", ..connect() }, Some((Cause::InvalidTarget, 400))),
        (RequestHead { authority: None, ..connect() }, Some((Cause::MissingHost, 400))),
        (RequestHead { authority: Some(""), ..connect() }, Some((Cause::MissingHost, 400))),
        (RequestHead { authority: Some("a/b"), ..connect() }, Some((Cause::InvalidHost, 400))),
        (with(RequestHead { authority: None, ..connect() }, "host", b"a"), None),
        (without(connect(), "sec-websocket-version"), Some((Cause::Version, 426))),
        (with(without(connect(), "sec-websocket-version"), "sec-websocket-version", b"8"), Some((Cause::Version, 426))),
        (with(connect(), "sec-websocket-key", b"not looked at"), None),
        (with(connect(), "sec-websocket-protocol", b"chat"), Some((Cause::InvalidSubprotocols, 400))),
        (with(connect(), "sec-websocket-extensions", b";"), Some((Cause::InvalidExtensions, 400))),
        (with(connect(), "content-length", b"5"), Some((Cause::Body, 400))),
        (with(connect(), "content-length", b"0"), None),
        (with(connect(), "origin", b"http://other.example"), Some((Cause::RepeatedHeader("origin"), 400))),
    ] {
        let shown = format!("{head:?}");
        assert_eq!(cause(head).map(|cause| (cause, cause.status())), expected, "{shown}");
    }
}

// RFC 9113 §8.2.1: a name in upper case makes a request malformed.
// RFC 9113 §8.2.2: so does a header that concerns one connection, but `TE: trailers`.
// RFC 9113 §8.3.1: so does a `Host` that differs from `:authority`.
// RFC 9114 §4.2: the same holds over HTTP/3.
#[test]
fn what_http_2_forbids_is_refused() {
    for version in [Version::Http2, Version::Http3] {
        let cause = |name, value| cause(with(RequestHead { version, ..connect() }, name, value));
        for (name, value) in [
            ("connection", &b"Upgrade"[..]),
            ("keep-alive", b"timeout=5"),
            ("proxy-connection", b"keep-alive"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"websocket"),
            ("te", b"gzip"),
            ("X-Upper", b"a"),
            ("Connection", b"close"),
        ] {
            assert_eq!(cause(name, value), Some(Cause::Malformed), "{name}");
        }
        assert_eq!(cause("te", b" trailers"), None);
        assert_eq!(cause("host", b"other.example"), Some(Cause::InvalidHost));
        assert_eq!(cause("host", b"Server.Example.COM"), None);
    }
    // HTTP/1.1 has its own rules for each.
    assert_eq!(cause(with(upgrade(), "TE", b"gzip")), None);
    let absolute = RequestHead { scheme: Some("http"), authority: Some("other.example"), ..upgrade() };
    assert_eq!(cause(absolute), None);
}

// RFC 6455 §10.2, RFC 8441 §5: the origin is checked by the same rules.
#[test]
fn the_origin_of_an_extended_connect_is_compared_with_its_authority() {
    for (page, expected) in
        [("https://server.example.com", Ok(())), ("https://evil.example", Err(Cause::Origin.into()))]
    {
        let head = with(without(connect(), "origin"), "origin", page.as_bytes());
        let request = Request::new(head, &LIMITS).unwrap();
        assert_eq!(origin::same_host(&request), expected);
        assert_eq!(origin::same_origin(&request, true), expected);
    }
}

// RFC 9113 §8.2.2: a response over HTTP/2 has no `Connection` and no `Upgrade`.
// RFC 9110 §15.5.22: 426 needs `Upgrade`, so over HTTP/2 it is 400.
#[test]
fn a_refusal_over_http_2_says_nothing_of_the_connection() {
    let refusal = Refusal::from(Cause::Version);
    let text = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "45")];
    let version = ("Sec-WebSocket-Version", "13");
    assert_eq!(shown(&refusal.response(Version::Http2)), (400, pairs(&[version, text[0], text[1]])));
    assert_eq!(refusal.response(Version::Http2).body(), "The server speaks WebSocket version 13 only.\n");
    let over_1 = [("Upgrade", "websocket"), version, ("Connection", "Upgrade, close"), text[0], text[1]];
    assert_eq!(shown(&refusal.response(Version::Http11)), (426, pairs(&over_1)));
    let allowed = |version| {
        let response = Refusal::from(Cause::Method).response(version);
        let allowed = response.headers().find(|(name, _)| *name == "Allow").map(|(_, value)| value.to_owned());
        (response.status(), allowed)
    };
    assert_eq!(allowed(Version::Http10), (405, Some("GET".to_owned())));
    assert_eq!(allowed(Version::Http3), (405, Some("CONNECT".to_owned())));
    let busy = Refusal::busy(std::time::Duration::from_secs(7));
    assert!(busy.response(Version::Http2).headers().any(|header| header == ("Retry-After", "7")));
}

// RFC 9110 §7.8: `Upgrade` is hop by hop, so `Connection` names it, whether or not the connection is closed.
#[test]
fn a_response_for_a_connection_that_stays_open_does_not_close_it() {
    let connection = |cause: Cause| {
        let refusal = Refusal::from(cause);
        let response = refusal.response(Version::Http11).keep_open();
        response.headers().find(|(name, _)| *name == "Connection").map(|(_, value)| value.to_owned())
    };
    assert_eq!(connection(Cause::Version).as_deref(), Some("Upgrade"));
    assert_eq!(connection(Cause::InvalidKey), None);
    let request = Request::new(upgrade(), &LIMITS).unwrap();
    let accepted = request.upgrade().unwrap().header("X", "close").unwrap();
    assert_eq!(accepted.response().keep_open(), accepted.response());
    let refusal = Refusal::from(Cause::InvalidKey);
    let (closing, open) = (refusal.response(Version::Http11), refusal.response(Version::Http11).keep_open());
    assert_eq!((closing.body(), closing.headers().count() - 1), (open.body(), open.headers().count()));
}

#[test]
fn debug_output_holds_no_secrets() {
    let head = RequestHead { target: "/chat?token=s3cret", ..with(upgrade(), "authorization", b"Bearer s3cret") };
    let shown = format!("{head:?}");
    assert!(shown.contains("/chat") && shown.contains("authorization") && !shown.contains("s3cret"), "{shown}");
    let request = Request::new(head, &LIMITS).unwrap();
    let upgrade = request.upgrade().unwrap().header("Set-Cookie", "s3cret").unwrap();
    let shown = format!("{:?}", upgrade.response());
    assert!(shown.contains("101") && shown.contains("Set-Cookie") && !shown.contains("s3cret"), "{shown}");
}

proptest! {
    // RFC 6455 §4.2.1: the rules see values. Text that was parsed and the same values get the same verdict and response.
    #[test]
    fn text_and_values_get_the_same_verdict(
        line in prop::sample::select(&["GET", "POST", "GET http://a.example", "CONNECT"][..]),
        changed in 0..UPGRADE.len() + 1,
        more in prop::collection::vec((
            prop::sample::select(&["Host", "Origin", "Upgrade", "Connection", "Sec-WebSocket-Protocol", "Content-Length",
                "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Transfer-Encoding", "X"][..]),
            "([a-z0-9,; =\"é]{0,12}|13|0|websocket|Upgrade|chunked)",
        ), 0..4),
    ) {
        let slash = if line.contains(' ') { "/chat?a=b" } else { " /chat?a=b" };
        let mut text = format!("{line}{slash} HTTP/1.1\r\n").into_bytes();
        let kept = UPGRADE.iter().enumerate().filter(|(index, _)| *index != changed).map(|(_, header)| *header);
        let more = more.iter().map(|(name, value)| (*name, value.as_bytes()));
        for (name, value) in kept.chain(more) {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        text.extend_from_slice(b"\r\n");
        let head = http1::parse_request(&text, &LIMITS).expect("well-formed lines");
        let answer = |request: Result<Request<'_>, Refusal>| {
            let mut out = Vec::new();
            match request.as_ref().map(Request::upgrade) {
                Ok(Ok(upgrade)) => upgrade.write_response(&mut out),
                Ok(Err(refusal)) => refusal.write_response(&mut out),
                Err(refusal) => refusal.write_response(&mut out),
            }
            String::from_utf8(out).expect("text")
        };
        let of_text = answer(Request::parse(&text, &LIMITS));
        prop_assert_eq!(&answer(Request::new(head.clone(), &LIMITS)), &of_text);
        if let Some(path) = head.target.strip_prefix("http://a.example") {
            let split = RequestHead { scheme: Some("http"), authority: Some("a.example"), target: path, ..head };
            prop_assert_eq!(&answer(Request::new(split, &LIMITS)), &of_text);
        }
    }

    // CVE-2026-1527: no line end and no NUL comes out of a response, whatever went in.
    #[test]
    fn no_header_of_a_response_ends_its_line(
        name in "[a-zA-Z\\r\\n: -]{0,6}",
        value in "[a-z\\r\\n\\x00\\t ]{0,8}",
        protocols in "[a-c, \\r\\n\\x00]{0,8}",
        version in prop::sample::select(&[Version::Http11, Version::Http2][..]),
    ) {
        let head = if version == Version::Http2 { without(connect(), "sec-websocket-protocol") } else { upgrade() };
        let head = with(head, "sec-websocket-protocol", protocols.as_bytes());
        let Ok(request) = Request::new(head, &LIMITS) else { return Ok(()) };
        let Ok(upgrade) = request.upgrade() else { return Ok(()) };
        let Ok(upgrade) = upgrade.select_subprotocol(&["a", "b", ""]).header(&name, &value) else { return Ok(()) };
        for (name, value) in upgrade.response().headers() {
            prop_assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
            prop_assert!(!value.contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn any_values_are_judged_without_a_panic(
        method in "\\PC{0,8}", scheme in prop::option::of("\\PC{0,8}"), authority in prop::option::of("\\PC{0,8}"),
        target in "(/[a-z?#]{0,9}|\\PC{0,9})", protocol in prop::option::of("(websocket|\\PC{0,9})"), old: bool,
        headers in prop::collection::vec(("(host|origin|\\PC{0,8})", prop::collection::vec(any::<u8>(), 0..12)), 0..30),
    ) {
        let head = RequestHead {
            method: &method,
            scheme: scheme.as_deref(),
            authority: authority.as_deref(),
            target: &target,
            protocol: protocol.as_deref(),
            version: if old { Version::Http11 } else { Version::Http2 },
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect(),
        };
        if let Ok(request) = Request::new(head, &LIMITS) {
            let _ = (request.bearer(), request.cookie("a"), request.query_value("a"), request.upgrade().is_ok());
            let _ = origin::same_host(&request);
        }
    }
}
