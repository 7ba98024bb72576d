//! How a connection ends: RFC 6455 §5.5.1, §7 and §8.1, in both roles.

mod support;

use std::time::Duration;

use support::{close_code, end, frame, masked, other, scratch, server, settings, text, written, written_frames};
use taut_proto::testing::{Link, Seen};
use taut_proto::{Close, CloseCode, Opcode, Role, Time, Timeout, UnexpectedEnd, Violation};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

// RFC 6455 §7.1.2: a close is started by sending a close frame with the code and the reason.
// RFC 6455 §5.5.1: its body is the code as two bytes in network order, then the reason as UTF-8.
// RFC 6455 §7.1.6: the peer's reason is what follows the code.
#[test]
fn a_close_frame_carries_code_and_reason() {
    for role in ROLES {
        let mut closing = end(role, settings(role));
        let close = Close::new(CloseCode::new(4001), "ciao, à bientôt");
        closing.connection.close(close.clone(), Time::ZERO, &mut scratch(), &mut closing.outbox);
        let bytes = written(&mut closing);
        let frames = support::frames(&bytes);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].0.opcode, Opcode::Close);
        assert_eq!(frames[0].1, [&[0x0f, 0xa1], "ciao, à bientôt".as_bytes()].concat());

        let mut peer = end(other(role), settings(other(role)));
        peer.receive(&bytes, Time::ZERO);
        assert_eq!(peer.events, [Seen::Close(close)]);
    }
}

// RFC 6455 §5.5.1: whoever receives a close frame and has not sent one sends one in response, whichever role it has.
// RFC 6455 §5.5.1: with both closes gone the connection is closed and its TCP connection may end.
// RFC 6455 §7.1.3: from the first of the two on, the connection is closing.
#[test]
fn a_close_is_answered_in_either_role() {
    for role in ROLES {
        let mut closed = end(role, settings(role));
        closed.receive(&frame(other(role), true, false, Opcode::Close, b"\x03\xe9away"), Time::ZERO);
        assert_eq!(closed.events, [Seen::Close(Close::new(CloseCode::GOING_AWAY, "away"))]);
        assert!(!closed.connection.is_open() && closed.connection.is_done());
        assert_eq!(close_code(&mut closed), 1001);

        let mut closing = end(role, settings(role));
        closing.close(CloseCode::NORMAL, Time::ZERO);
        assert!(!closing.connection.is_open() && !closing.connection.is_done());
        written(&mut closing);
        closing.receive(&frame(other(role), true, false, Opcode::Close, b"\x03\xe8"), Time::ZERO);
        assert!(closing.connection.is_done() && closing.outbox.is_empty());
    }
}

// RFC 6455 §5.5.1: a close frame may come in pieces like any other. Bun issue 23832: a client died of it.
#[test]
fn a_close_frame_that_is_split_over_reads_is_one_close() {
    for role in ROLES {
        let mut closed = end(role, settings(role));
        for byte in frame(other(role), true, false, Opcode::Close, b"\x03\xe8bye") {
            closed.receive(&[byte], Time::ZERO);
        }
        assert_eq!(closed.events, [Seen::Close(Close::new(CloseCode::NORMAL, "bye"))]);
        assert_eq!(close_code(&mut closed), 1000);
    }
}

// RFC 6455 §5.5.1: what the peer sent before it saw our close is still delivered.
#[test]
fn data_on_its_way_when_we_close_is_delivered() {
    let mut server = server();
    server.close(CloseCode::GOING_AWAY, Time::ZERO);
    server.receive(&masked(true, Opcode::Text, b"crossed"), Time::ZERO);
    server.receive(&masked(true, Opcode::Close, b"\x03\xe9"), Time::ZERO);
    assert_eq!(server.events, [text("crossed"), Seen::Close(CloseCode::GOING_AWAY.into())]);
}

// RFC 6455 §7.1.7: an endpoint that fails the connection says so in a close frame and ends it.
// RFC 6455 §7.1.7: it processes nothing that comes after, not even a close frame.
// RFC 6455 §7.2.1: a client closes by failing where the RFC demands it.
// RFC 6455 §7.2.2: so does a server.
#[test]
fn after_a_violation_nothing_of_the_peers_counts() {
    for role in ROLES {
        let mut failing = end(role, settings(role));
        let more = [
            frame(other(role), true, false, Opcode::Text, b"late"),
            frame(other(role), true, false, Opcode::Close, b"\x03\xe8"),
        ]
        .concat();
        let bad = frame(other(role), true, false, Opcode::Text, b"\xff");
        failing.receive(&[&bad[..], &more].concat(), Time::ZERO);
        failing.receive(&more, Time::ZERO);
        assert_eq!(failing.events, [Seen::Violation(Violation::InvalidUtf8)]);
        let frames = written_frames(&mut failing);
        assert_eq!(frames.len(), 1, "one close and no answer to the peer's");
        assert!(failing.connection.is_done() && !failing.send("x"));
        assert_eq!(failing.connection.deadline(), None);
        assert_eq!(failing.connection.receive_eof(), Ok(()));
    }
}

// RFC 6455 §7.1.7: an endpoint that has sent its close and is then broken with sends no second one.
#[test]
fn a_violation_after_our_close_sends_no_second_close() {
    let mut server = server();
    server.close(CloseCode::NORMAL, Time::ZERO);
    written(&mut server);
    server.receive(b"\xff\xff", Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::ReservedBits)]);
    assert!(server.outbox.is_empty() && server.connection.is_done());
}

// RFC 6455 §7.1.5: an end without the peer's close frame is 1006 to the application.
// RFC 6455 §7.2.1: a transport that is lost fails the connection.
#[test]
fn a_lost_transport_fails_the_connection_in_either_role() {
    for role in ROLES {
        let mut lost = end(role, settings(role));
        lost.receive(&frame(other(role), false, false, Opcode::Text, b"half a"), Time::ZERO);
        assert_eq!(lost.connection.receive_eof(), Err(UnexpectedEnd));
        assert!(lost.connection.is_done() && lost.connection.buffered() == 0);
        assert!(UnexpectedEnd.to_string().contains("1006"));

        // Our own close does not make it clean: the peer's never came.
        let mut lost = end(role, settings(role));
        lost.close(CloseCode::NORMAL, Time::ZERO);
        assert_eq!(lost.connection.receive_eof(), Err(UnexpectedEnd));
    }
}

// RFC 6455 §7.4.1: 1005, 1006 and 1015 are never set in a close frame, nor is the reserved 1004.
// RFC 6455 §7.4.2: nor a code from a range that is not in use.
#[test]
fn a_code_that_must_not_be_sent_is_left_out_of_the_frame() {
    for role in ROLES {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            let mut closing = end(role, settings(role));
            let close = Close::new(CloseCode::new(code), "reason");
            closing.connection.close(close, Time::ZERO, &mut scratch(), &mut closing.outbox);
            let frames = written_frames(&mut closing);
            assert!(frames[0].0.opcode == Opcode::Close && frames[0].1.is_empty(), "{code}: {frames:?}");
        }
        for code in [1000, 1003, 1007, 1014, 3000, 4999] {
            let mut closing = end(role, settings(role));
            closing.close(CloseCode::new(code), Time::ZERO);
            assert_eq!(close_code(&mut closing), code);
        }
    }
}

// RFC 6455 §7.4.1: a peer that sends a code that must not be sent breaks the protocol, in either role.
// RFC 6455 §7.4.2: so does one that sends a code out of the ranges in use.
#[test]
fn a_received_code_is_checked_in_either_role() {
    for role in ROLES {
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000, 65_535] {
            let mut closed = end(role, settings(role));
            closed.receive(&frame(other(role), true, false, Opcode::Close, &code.to_be_bytes()), Time::ZERO);
            assert_eq!(closed.events, [Seen::Violation(Violation::CloseCodeInvalid)], "{code}");
            assert_eq!(close_code(&mut closed), 1002);
        }
    }
}

// RFC 6455 §8.1: bytes that are to be UTF-8 and are not fail the connection: a text, or the reason of a close.
// RFC 6455 §8.1: bytes that only look like UTF-8 (surrogates, overlong forms, beyond U+10FFFF) are not.
#[test]
fn what_is_not_utf_8_fails_the_connection_in_either_role() {
    let not_utf_8: [&[u8]; 8] = [
        b"\x80",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xce\xba\xe1\xbd",
    ];
    for role in ROLES {
        for bytes in not_utf_8 {
            let closing = [b"\x03\xe8", bytes].concat();
            for (opcode, payload) in [(Opcode::Text, bytes), (Opcode::Close, &closing[..])] {
                let mut failing = end(role, settings(role));
                failing.receive(&frame(other(role), true, false, opcode, payload), Time::ZERO);
                assert_eq!(failing.events, [Seen::Violation(Violation::InvalidUtf8)], "{opcode:?} {bytes:x?}");
                assert_eq!(close_code(&mut failing), 1007);
            }
        }
    }
}

// sockudo-ws release 3: a code point lay over the edge of a block of SIMD, or of a fragment.
// RFC 6455 §5.6: a fragment may end inside a character; the message is UTF-8 as a whole.
#[test]
fn a_character_may_lie_over_any_edge() {
    for character in ["ß", "€", "😀"] {
        for before in 0..130 {
            let message = format!("{}{character}tail", "x".repeat(before));
            for cut in before..=before + character.len() {
                let (first, second) = message.as_bytes().split_at(cut);
                let bytes = [masked(false, Opcode::Text, first), masked(true, Opcode::Continuation, second)].concat();
                let mut server = server();
                server.receive(&bytes, Time::ZERO);
                assert_eq!(server.events, [text(&message)]);
            }
        }
    }
}

// RFC 6455 §7.1.1: the peer is waited for no longer than a reasonable time.
// RFC 6455 §5.5.1: a flood of frames instead of the close does not put that off.
#[test]
fn a_peer_that_goes_on_sending_cannot_put_the_end_off() {
    let mut link = Link::new();
    link.server.close(CloseCode::GOING_AWAY, link.now);
    let deadline = link.server.connection.deadline().expect("it waits for the close");
    while link.now < deadline {
        link.advance(Duration::from_millis(500));
        link.server.receive(&masked(true, Opcode::Ping, b"still here"), link.now);
        assert_eq!(link.server.connection.deadline(), Some(deadline));
    }
    assert_eq!(link.server.handle_deadline(link.now), Some(Timeout::Close));
    assert!(link.server.connection.is_done());
}
