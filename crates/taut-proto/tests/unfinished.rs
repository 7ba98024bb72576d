//! Messages that are begun and not finished: what is told of them, and how long they are waited for.

mod support;

use std::time::Duration;

use support::{close_code, end, frame, masked, other, server, settings, text};
use taut_proto::testing::{Link, Seen};
use taut_proto::{Close, CloseCode, Heartbeat, Opcode, Role, Settings, Time, Timeout, Violation};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A server that does not ping, so that nothing but messages has a deadline.
fn patient() -> Settings {
    let mut settings = Settings::server();
    settings.heartbeat = Heartbeat::off();
    settings
}

fn seconds(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

// RFC 6455 §5.4: a message is over with its final fragment; a close frame may come before that, whatever its code.
#[test]
fn a_close_in_the_middle_of_a_message_is_told_from_one_behind_it() {
    for role in ROLES {
        let of_peer = |fin, opcode, payload: &[u8]| frame(other(role), fin, false, opcode, payload);
        for code in [1000_u16, 1001, 1011, 4000] {
            let close = of_peer(true, Opcode::Close, &code.to_be_bytes());
            for (before, is_cut_off) in [
                (of_peer(false, Opcode::Text, b"ab"), true),
                (of_peer(false, Opcode::Text, b""), true),
                ([of_peer(false, Opcode::Binary, b"ab"), of_peer(false, Opcode::Continuation, b"c")].concat(), true),
                ([of_peer(false, Opcode::Text, b"ab"), of_peer(true, Opcode::Ping, b"")].concat(), true),
                ([of_peer(false, Opcode::Text, b"ab"), of_peer(true, Opcode::Continuation, b"c")].concat(), false),
                (of_peer(true, Opcode::Text, b"ab"), false),
                (Vec::new(), false),
            ] {
                for (in_parts, size) in [(false, 1), (true, 1), (false, 999), (true, 999)] {
                    let mut closed = end(role, settings(role));
                    for read in [&before[..], &close].concat().chunks(size) {
                        if in_parts {
                            closed.receive_parts(read, Time::ZERO);
                        } else {
                            closed.receive(read, Time::ZERO);
                        }
                    }
                    assert_eq!(closed.events.last(), Some(&Seen::Close(CloseCode::new(code).into())));
                    assert_eq!(closed.connection.was_cut_off(), is_cut_off, "{before:x?}");
                    assert_eq!((close_code(&mut closed), closed.connection.buffered()), (code, 0));
                }
            }
        }
    }
}

// RFC 6455 §5.5.1: the peer's answer to our close may come in the middle of its message, which is cut off by that.
#[test]
fn an_answer_to_our_close_may_cut_a_message_off() {
    for deferred in [false, true] {
        let mut server = server();
        if deferred {
            server.connection = server.connection.with_deferred_end();
        }
        server.receive_parts(&masked(false, Opcode::Binary, &vec![1; 70_000]), Time::ZERO);
        server.close(CloseCode::GOING_AWAY, Time::ZERO);
        assert!(!server.connection.was_cut_off(), "it may still come");
        server.receive_parts(&masked(false, Opcode::Continuation, b"more"), Time::ZERO);
        server.receive_parts(&masked(true, Opcode::Close, b"\x03\xe9"), Time::ZERO);
        assert!(server.connection.was_cut_off() && server.connection.is_done());
    }
}

// What waits for the application must not keep the memory of what will never be whole.
#[test]
fn of_a_message_that_was_cut_off_nothing_is_kept() {
    let mut server = server();
    server.connection = server.connection.with_deferred_end();
    server.receive(&masked(false, Opcode::Binary, &vec![1; 70_000]), Time::ZERO);
    assert!(server.connection.is_receiving() && server.connection.buffered() >= 70_000);
    server.receive(&masked(true, Opcode::Close, b"\x03\xe8"), Time::ZERO);
    assert!(!server.connection.is_receiving() && server.connection.buffered() == 0);
    assert!(server.connection.is_open() && server.connection.was_cut_off(), "it may still answer what came before");
}

// RFC 6455 §5.4: what is given up in the middle is never made to look whole.
#[test]
fn a_message_that_is_given_up_is_cut_off_at_the_peer() {
    for size in [1, 2, 1000] {
        let mut link = Link::new();
        assert!(link.client.send_fragment("half a mess", false));
        link.client.close(CloseCode::INTERNAL_ERROR, link.now);
        link.settle(size);
        assert_eq!(link.server.events, [Seen::Close(CloseCode::INTERNAL_ERROR.into())]);
        assert!(link.server.connection.was_cut_off() && !link.client.connection.was_cut_off());
    }
}

// The heartbeat takes any byte for life, and in the middle of a frame no pong can come (RFC 6455 §5.4).
#[test]
fn a_message_of_one_byte_a_second_is_given_up_however_it_is_cut() {
    let whole_frame = masked(true, Opcode::Binary, &[7; 10_000]);
    let fragments: Vec<u8> =
        (0..1000).flat_map(|number| masked(false, [Opcode::Text, Opcode::Continuation][number.min(1)], b"x")).collect();
    let ping = masked(true, Opcode::Ping, &[7; 125]);
    for (bytes, at_most) in [(whole_frame, 67), (fragments, 67), (ping, 67)] {
        for in_parts in [false, true] {
            let mut server = end(Role::Server, Settings::server());
            let mut lapsed = None;
            for (second, byte) in (0..).zip(bytes.chunks(1)) {
                if in_parts {
                    server.receive_parts(byte, seconds(second));
                } else {
                    server.receive(byte, seconds(second));
                }
                if let Some(timeout) = server.handle_deadline(seconds(second)) {
                    lapsed = Some((timeout, second));
                    break;
                }
            }
            // A minute after the header is whole.
            let (timeout, second) = lapsed.expect("for ever");
            assert_eq!(timeout, Timeout::Message);
            assert!((60..=at_most).contains(&second), "{second}");
            assert_eq!((close_code(&mut server), server.connection.buffered()), (1008, 0));
            assert!(server.connection.is_done() && server.connection.deadline().is_none());
        }
    }
}

#[test]
fn a_message_that_goes_on_at_its_pace_may_take_as_long_as_it_wants() {
    let mut settings = patient();
    settings.limits.message = usize::MAX;
    settings.limits.fragments = u32::MAX;
    for in_parts in [false, true] {
        let mut server = end(Role::Server, settings.clone());
        let mut next = Opcode::Binary;
        // A day at 16 KiB a minute: a frame every 30 seconds.
        for half_minute in 0..2880 {
            let bytes = masked(false, std::mem::replace(&mut next, Opcode::Continuation), &[0; 8 << 10]);
            let now = seconds(half_minute * 30);
            if in_parts {
                server.receive_parts(&bytes, now);
            } else {
                server.receive(&bytes, now);
            }
            assert_eq!(server.handle_deadline(now), None, "after {half_minute} half minutes");
        }
        server.receive(&masked(true, Opcode::Continuation, b""), seconds(86_400));
        assert!(matches!(server.events.last(), Some(Seen::Message(_) | Seen::Part(_, true))));
        assert_eq!((server.connection.deadline(), server.connection.is_receiving()), (None, false));
    }
}

#[test]
fn a_message_that_falls_behind_its_pace_is_given_up_at_the_end_of_that_minute() {
    for (second_minute, is_given_up) in [((16 << 10) - 1, true), (16 << 10, false)] {
        let mut server = end(Role::Server, patient());
        server.receive(&masked(false, Opcode::Binary, &[0; 16 << 10]), seconds(5));
        assert_eq!(server.connection.deadline(), Some(seconds(65)));
        assert_eq!(server.handle_deadline(Time::from_micros(65_000_000 - 1)), None);
        assert_eq!(server.handle_deadline(seconds(65)), None);
        assert_eq!(server.connection.deadline(), Some(seconds(125)));
        server.receive(&masked(false, Opcode::Continuation, &vec![0; second_minute]), seconds(124));
        assert_eq!(server.handle_deadline(seconds(124)), None);
        assert_eq!(server.handle_deadline(seconds(125)), is_given_up.then_some(Timeout::Message));
        assert_eq!(server.connection.is_open(), !is_given_up);
    }
}

// 18 KiB a minute, but now two and now three or four pieces between two looks.
#[test]
fn who_sends_in_bursts_does_not_fall_between_two_looks() {
    let mut server = end(Role::Server, patient());
    let piece = |opcode| masked(false, opcode, &[0; 6 << 10]);
    server.receive_parts(&piece(Opcode::Binary), Time::ZERO);
    for twenty_seconds in 1..180 {
        let now = seconds(20 * twenty_seconds);
        if twenty_seconds % 2 == 0 {
            assert_eq!(server.handle_deadline(now), None, "{now:?}");
            server.receive_parts(&piece(Opcode::Continuation), now);
        } else {
            server.receive_parts(&piece(Opcode::Continuation), now);
            assert_eq!(server.handle_deadline(now), None, "{now:?}");
        }
    }
}

// However much comes at once: who then says nothing has a minute more, and no hours.
#[test]
fn a_burst_counts_for_one_minute_more() {
    for (burst, minutes) in [((32 << 10) - 1, 2), (32 << 10, 3), (900 << 10, 3)] {
        let mut server = end(Role::Server, patient());
        server.receive(&masked(false, Opcode::Binary, &vec![0; burst]), Time::ZERO);
        let mut looks = 1;
        while server.handle_deadline(server.connection.deadline().unwrap()).is_none() {
            looks += 1;
        }
        assert_eq!(looks, minutes, "{burst}");
    }
}

#[test]
fn nothing_but_an_unfinished_message_is_hurried() {
    let mut server = end(Role::Server, patient());
    assert_eq!(server.connection.deadline(), None);
    server.receive(&masked(true, Opcode::Text, b"whole"), seconds(1));
    assert_eq!(server.connection.deadline(), None);
    server.receive(&masked(false, Opcode::Text, b"be"), seconds(2));
    assert_eq!(server.connection.deadline(), Some(seconds(62)));
    server.receive(&masked(true, Opcode::Continuation, b"gun"), seconds(3));
    assert_eq!((server.connection.deadline(), server.handle_deadline(seconds(62))), (None, None));
    assert_eq!(server.events, [text("whole"), text("begun")]);
    // The next message has a minute of its own.
    server.receive(&masked(false, Opcode::Text, b"a"), seconds(50));
    assert_eq!(server.connection.deadline(), Some(seconds(110)));
    // Once we close, the close has its own time, and what the peer still sends may take all of it.
    server.close(CloseCode::NORMAL, seconds(51));
    assert_eq!(server.connection.deadline(), Some(seconds(56)));
    assert_eq!(server.handle_deadline(seconds(56)), Some(Timeout::Close));
}

#[test]
fn an_unfinished_message_and_the_heartbeat_each_keep_their_time() {
    // Pinged after 20 seconds all the same, and given up after 40 if nothing comes.
    let mut silent = end(Role::Server, Settings::server());
    silent.receive(&masked(false, Opcode::Text, b"a"), Time::ZERO);
    let first = silent.connection.deadline().unwrap();
    assert!(first < seconds(23));
    assert_eq!(silent.handle_deadline(first), None);
    let mut timeout = None;
    while timeout.is_none() {
        timeout = silent.handle_deadline(silent.connection.deadline().unwrap());
    }
    assert_eq!(timeout, Some(Timeout::Heartbeat));

    // One that answers pings between the fragments does not gain time by it.
    let mut link = Link::new();
    assert!(link.client.send_fragment("a", false));
    link.settle(usize::MAX);
    let mut timeout = None;
    while timeout.is_none() {
        link.now = link.server.connection.deadline().unwrap();
        timeout = link.server.handle_deadline(link.now);
        link.settle(usize::MAX);
    }
    assert_eq!((timeout, link.now), (Some(Timeout::Message), seconds(60)));
    assert_eq!(link.client.events.last(), Some(&Seen::Close(Close::new(CloseCode::POLICY, "message too slow"))));
}

#[test]
fn without_a_limit_a_message_is_waited_for_without_end() {
    let mut settings = patient();
    settings.limits.message_timeout = Duration::MAX;
    let mut server = end(Role::Server, settings);
    server.receive(&masked(false, Opcode::Text, b"a"), seconds(1));
    let later = seconds(1 << 40);
    assert_eq!(server.handle_deadline(later), None);
    assert!(server.connection.deadline().is_none_or(|deadline| deadline > later));
}

// RFC 6455 §7.1.7: whoever fails the connection says so and processes nothing that comes after.
#[test]
fn a_driver_without_room_fails_the_connection() {
    for role in ROLES {
        let of_peer = |fin, opcode, payload: &[u8]| frame(other(role), fin, false, opcode, payload);
        let mut failing = end(role, settings(role));
        failing.receive(&of_peer(false, Opcode::Binary, &vec![1; 50_000]), Time::ZERO);
        failing.connection.fail(&CloseCode::TRY_AGAIN_LATER.into(), &mut support::scratch(), &mut failing.outbox);
        assert_eq!((close_code(&mut failing), failing.connection.buffered()), (1013, 0));
        failing.receive(&of_peer(true, Opcode::Continuation, b"end"), Time::ZERO);
        assert!(failing.connection.is_done() && failing.events.is_empty());

        // Our own close was said before, and is not said twice.
        let mut closing = end(role, settings(role));
        closing.close(CloseCode::NORMAL, Time::ZERO);
        support::written(&mut closing);
        closing.connection.fail(&CloseCode::TRY_AGAIN_LATER.into(), &mut support::scratch(), &mut closing.outbox);
        assert!(closing.outbox.is_empty() && closing.connection.is_done());
    }
}

#[test]
fn a_violation_is_no_cut() {
    let mut server = server();
    server.receive(&masked(false, Opcode::Text, b"a"), Time::ZERO);
    server.receive(&masked(true, Opcode::Text, b"b"), Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::ExpectedContinuation)]);
    assert!(!server.connection.was_cut_off());
}
