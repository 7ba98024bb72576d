//! The opening handshake as a driver performs it: RFC 6455 §4 from the request to the first frame.

mod support;

use support::{masked, text, unmasked};
use taut_proto::handshake::{
    Cause, ClientRequest, HeadLimits, HeadScan, InvalidRequest, Refusal, Rejection, Request, origin,
};
use taut_proto::{Opcode, Time};

const NONCE: [u8; 16] = *b"the sample nonce";

fn request() -> ClientRequest {
    ClientRequest::new("chat.example", "/room").expect("valid")
}

fn head(request: &ClientRequest) -> Vec<u8> {
    let mut head = Vec::new();
    request.write(NONCE, &mut head);
    head
}

/// A server's answer to what it received, and how much of that was the head.
fn answered(received: &[u8]) -> Result<(Vec<u8>, usize), Refusal> {
    let limits = HeadLimits::default();
    let end = HeadScan::new().find(received, &limits)?.expect("a whole head");
    let mut response = Vec::new();
    Request::parse(&received[..end], &limits)?.upgrade()?.write_response(&mut response);
    Ok((response, end))
}

// RFC 6455 §4.2.2: the connection is open as soon as the response is sent; what followed the head is frames.
// RFC 6455 §4.1: the connection of a client is open as soon as the response is validated; frames may follow at once.
// sockudo-ws release 3: bytes behind the head counted against the head's limit.
#[test]
fn frames_that_come_with_the_head_belong_to_the_connection() {
    let mut received = head(&request());
    let frames = [masked(true, Opcode::Text, b"first"), masked(true, Opcode::Binary, &vec![b'x'; 100_000])].concat();
    received.extend_from_slice(&frames);
    let (response, end) = answered(&received).expect("a handshake");
    let mut server = support::server();
    server.receive(&received[end..], Time::ZERO);
    assert_eq!(server.events.len(), 2);
    assert_eq!(server.events[0], text("first"));

    let mut came = response;
    came.extend(unmasked(true, Opcode::Text, b"welcome"));
    let limits = HeadLimits::default();
    let end = HeadScan::new().find(&came, &limits).expect("in order").expect("whole");
    assert!(request().validate(&came[..end], NONCE, &limits).is_ok());
    let mut client = support::client();
    client.receive(&came[end..], Time::ZERO);
    assert_eq!(client.events, [text("welcome")]);
}

// RFC 6455 §4.1: the components of the URI are valid or the connection fails before anything is written.
#[test]
fn a_request_for_an_invalid_uri_is_never_written() {
    for (host, target, expected) in [
        ("", "/", InvalidRequest::Host),
        ("chat.example/", "/", InvalidRequest::Host),
        ("chat example", "/", InvalidRequest::Host),
        ("chat.example", "room", InvalidRequest::Target),
        ("chat.example", "/room#fragment", InvalidRequest::Target),
        ("chat.example", "/ro om", InvalidRequest::Target),
    ] {
        assert_eq!(ClientRequest::new(host, target).err(), Some(expected), "{host:?} {target:?}");
    }
}

// RFC 6455 §4.1: a client fails the connection unless every condition on the response holds.
// RFC 6455 §4.1 response (4): the accept value belongs to this nonce and no other, so no cached response opens it.
#[test]
fn a_response_to_another_key_opens_nothing() {
    let (response, _) = answered(&head(&request())).expect("a handshake");
    let limits = HeadLimits::default();
    assert!(request().validate(&response, NONCE, &limits).is_ok());
    for bit in 0..128 {
        let mut nonce = NONCE;
        nonce[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(request().validate(&response, nonce, &limits).map(drop), Err(Rejection::Accept));
    }
}

// RFC 6455 §4.3: header values follow the grammar: versions, tokens, base64.
// RFC 6455 §4.2.1: a handshake with any line missing or wrong stops, and an HTTP error answers it.
#[test]
fn a_handshake_without_any_one_of_its_lines_is_refused() {
    let good = String::from_utf8(head(&request())).expect("ASCII");
    assert!(answered(good.as_bytes()).is_ok());
    let lines: Vec<_> = good.trim_end().split("\r\n").collect();
    for left_out in 1..lines.len() {
        let mut some = lines.clone();
        let line = some.remove(left_out);
        let refusal = answered((some.join("\r\n") + "\r\n\r\n").as_bytes()).expect_err(line);
        assert!(matches!(refusal.status(), 400 | 426), "{line}");
        let mut response = Vec::new();
        refusal.write_response(&mut response);
        assert!(response.starts_with(b"HTTP/1.1 4") && !response.starts_with(b"HTTP/1.1 101"));
    }
    for (line, bad) in [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 013"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: +13"),
        ("Sec-WebSocket-Key: dGhl", "Sec-WebSocket-Key: d*hl"),
        ("Upgrade: websocket", "Upgrade: web socket"),
    ] {
        assert!(good.contains(line));
        assert!(answered(good.replace(line, bad).as_bytes()).is_err(), "{bad}");
    }
}

// CVE-2026-54466, CVE-2026-54463: the lengths of drafts 75 and 76 had no end; neither draft is spoken.
#[test]
fn handshakes_of_the_old_drafts_are_refused() {
    let draft_75 = "GET /room HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nHost: chat.example\r\n\
                    Origin: http://chat.example\r\n\r\n";
    let draft_76 = "GET /room HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\
                    Upgrade: WebSocket\r\nSec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nOrigin: http://chat.example\r\n\r\n^n:ds[4U";
    for head in [draft_75, draft_76] {
        assert_eq!(answered(head.as_bytes()).map(drop).map_err(|refusal| refusal.cause()), Err(Cause::Version));
    }
}

// GHSA-m9rr-h88h-h8w6: a page of any origin could open a connection with the cookies of the user.
#[test]
fn a_page_of_another_origin_is_refused_whatever_cookies_it_brings() {
    let with =
        |page: &str| request().origin(page).and_then(|request| request.header("Cookie", "session=1")).expect("valid");
    let checked = |page: &str| {
        let head = head(&with(page));
        let request = Request::parse(&head, &HeadLimits::default()).expect("well-formed");
        origin::same_host(&request).map_err(|refusal| refusal.status())
    };
    assert_eq!(checked("https://chat.example"), Ok(()));
    assert_eq!(checked("https://evil.example"), Err(403));
    assert_eq!(checked("null"), Err(403));
}
