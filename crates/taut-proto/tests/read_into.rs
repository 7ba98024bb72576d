//! Large messages that are read to where they stay: the same limits, the same events.

mod support;

use std::time::Duration;

use support::{client, end, frame, masked, server, settings, unmasked};
use taut_proto::testing::{End, Seen};
use taut_proto::{Message, Opcode, Role, Time, Timeout, Violation};

/// The header of a frame that announces so much, and nothing of its payload.
fn header(opcode: Opcode, length: u64) -> Vec<u8> {
    let header = taut_proto::Header { fin: true, compressed: false, opcode, mask: Some([1, 2, 3, 4]), length };
    let (bytes, size) = header.to_bytes();
    bytes[..size].to_vec()
}

fn binary(payload: Vec<u8>) -> Seen {
    Seen::Message(Message::from(payload))
}

/// Reads all bytes where they belong, at most `most` at a time; gives the largest room there was.
fn read_all(end: &mut End, mut bytes: &[u8], most: usize, now: Time) -> usize {
    let mut room = 0;
    while !bytes.is_empty() {
        room = room.max(end.connection.read_into(1).map_or(0, |into| into.limit));
        bytes = &bytes[end.read(&bytes[..most.min(bytes.len())], now)..];
    }
    room
}

#[test]
fn a_large_message_is_read_into_a_buffer_of_its_own_in_either_role() {
    let payload: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    for most in [1, 1000, 70_000] {
        for (mut end, bytes) in
            [(server(), masked(true, Opcode::Binary, &payload)), (client(), unmasked(true, Opcode::Binary, &payload))]
        {
            assert!(read_all(&mut end, &bytes, most, Time::ZERO) > 0);
            assert_eq!(end.events, [binary(payload.clone())]);
            assert_eq!(end.connection.buffered(), 0);
        }
    }
}

// RFC 6455 §10.4: memory follows what has come and never what was announced.
#[test]
fn a_header_alone_reserves_little_whatever_it_announces() {
    let mut settings = settings(Role::Server);
    settings.limits.message = usize::MAX;
    for length in [1 << 30, 1 << 62] {
        let mut server = end(Role::Server, settings.clone());
        server.receive(&header(Opcode::Binary, length), Time::ZERO);
        let limit = server.connection.read_into(1).expect("room").limit;
        assert!(limit <= 16 << 10, "{limit}");
        assert!(server.connection.buffered() <= 17 << 10, "{}", server.connection.buffered());
    }
}

#[test]
fn there_is_room_for_as_much_as_has_come_and_never_beyond_the_frame() {
    let length = 1_000_000;
    let mut server = server();
    server.receive(&header(Opcode::Binary, length), Time::ZERO);
    let mut come = 0;
    while come < length as usize {
        let into = server.connection.read_into(1).expect("room");
        let limit = into.limit;
        assert!(limit <= come.max(16 << 10), "room for {limit} when {come} had come");
        assert!(limit > 0 && come + limit <= length as usize);
        let held = server.connection.buffered();
        assert!(held <= 2 * come + (17 << 10), "{held} held when {come} had come");
        come += server.read(&[7; 10_000], Time::ZERO);
        assert_eq!(server.connection.unfinished(), if come < length as usize { come } else { 0 });
    }
    assert_eq!(server.events.len(), 1);
}

// RFC 6455 §10.4: what a peer is trusted with is what it has sent before, and bounded whatever that was.
#[test]
fn a_peer_that_has_finished_a_large_message_gets_room_for_another() {
    let mut settings = settings(Role::Server);
    settings.limits.message = usize::MAX;
    for (first, room) in [(500_000, 512 << 10), (3 << 20, 1 << 20)] {
        let mut server = end(Role::Server, settings.clone());
        read_all(&mut server, &masked(true, Opcode::Binary, &vec![7; first]), 64 << 10, Time::ZERO);
        assert_eq!((server.events.len(), server.connection.buffered()), (1, 0));
        server.receive(&header(Opcode::Binary, 1 << 30), Time::ZERO);
        assert_eq!(server.connection.read_into(1).expect("room").limit, room);
    }
}

#[test]
fn only_what_is_kept_as_it_comes_is_read_into_a_message() {
    let mut server = server();
    assert!(server.connection.read_into(0).is_none(), "nothing is in progress");
    server.receive(&masked(true, Opcode::Text, &vec![b'x'; 20_000])[..10_000], Time::ZERO);
    assert!(server.connection.read_into(1).is_none(), "text is checked first");

    let mut server = support::server();
    server.receive(&masked(false, Opcode::Binary, &vec![7; 20_000]), Time::ZERO);
    assert!(server.connection.read_into(0).is_none(), "the next frame may be a ping");
    server.receive(&masked(true, Opcode::Ping, &[7; 100])[..50], Time::ZERO);
    assert!(server.connection.read_into(1).is_none(), "it is one");
    server.receive(&masked(true, Opcode::Ping, &[7; 100])[50..], Time::ZERO);
    server.receive(&masked(true, Opcode::Continuation, &vec![7; 20_000])[..10_000], Time::ZERO);
    let missing = 10_000 + 8;
    assert!(server.connection.read_into(missing).is_some());
    assert!(server.connection.read_into(missing + 1).is_none(), "a read of its own would not pay");

    let mut server = support::server();
    server.receive_parts(&masked(true, Opcode::Binary, &vec![7; 20_000])[..10_000], Time::ZERO);
    assert!(server.connection.read_into(1).is_none(), "parts are not kept");

    let mut server = support::server();
    server.receive(&masked(true, Opcode::Binary, &vec![7; 20_000])[..10_000], Time::ZERO);
    server.connection.receive_eof().expect_err("no close frame came");
    assert!(server.connection.read_into(1).is_none(), "nothing comes any longer");
}

#[test]
fn a_message_that_is_too_large_is_refused_at_the_header_that_makes_it_so() {
    let mut settings = settings(Role::Server);
    settings.limits.message = 50_000;
    let mut server = end(Role::Server, settings);
    read_all(&mut server, &masked(false, Opcode::Binary, &vec![7; 30_000]), 10_000, Time::ZERO);
    read_all(&mut server, &header(Opcode::Continuation, 20_001), 100, Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::MessageTooBig)]);
    assert!(server.connection.read_into(1).is_none());
    assert_eq!(server.connection.buffered(), 0);
}

#[test]
fn what_is_read_into_a_message_counts_for_its_pace_and_as_a_sign_of_life() {
    let minute = |minutes: u64| Time::ZERO + Duration::from_secs(60 * minutes);
    for (bytes, expected) in [((16 << 10) - 1, Some(Timeout::Message)), (16 << 10, None)] {
        let mut server = server();
        server.receive(&header(Opcode::Binary, 1 << 20), Time::ZERO);
        // Just before, so that the heartbeat has nothing to say.
        let now = Time::ZERO + Duration::from_secs(59);
        let mut rest = bytes;
        while rest > 0 {
            rest -= server.read(&vec![7; rest], now);
        }
        assert_eq!(server.handle_deadline(minute(1)), expected, "{bytes} bytes within the minute");
    }
}

#[cfg(feature = "deflate")]
#[test]
fn a_compressed_message_is_read_where_it_is_kept_and_inflated_when_it_is_whole() {
    use taut_proto::deflate::{NegotiatedDeflate, Window};
    use taut_proto::{Connection, Outbox, Settings};

    let window = Window { bits: 15, takeover: false };
    let deflating = |role, settings: Settings| {
        let connection = Connection::new(role, settings.into(), Time::ZERO, 0);
        End::new(connection.with_deflate(NegotiatedDeflate::new(window, window)))
    };
    // What compresses badly, so that much is left to be read.
    let mut state = 1_u32;
    let text: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from_u32(0x400 + (state >> 24)).expect("a letter")
    })
    .take(100_000)
    .collect();
    let mut client = deflating(Role::Client, Settings::client());
    assert!(client.send(&*text));
    let bytes = client.outbox.to_vec();
    client.outbox = Outbox::new();
    assert!(bytes.len() < text.len());

    let mut server = deflating(Role::Server, Settings::server());
    assert!(read_all(&mut server, &bytes, 5000, Time::ZERO) > 0);
    assert_eq!(server.events, [Seen::Message(Message::from(text))]);

    // RFC 6455 §8.1: text that is not UTF-8 fails the connection, however it came.
    let mut client = deflating(Role::Client, Settings::client());
    assert!(client.send(vec![0xff_u8; 100_000]));
    let mut bytes = client.outbox.to_vec();
    bytes[0] = bytes[0] & 0xf0 | 1;
    let mut server = deflating(Role::Server, Settings::server());
    read_all(&mut server, &bytes, 50, Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::InvalidUtf8)]);
    assert!(server.connection.is_done() && !server.outbox.is_empty());
}

#[test]
#[should_panic(expected = "more was read than belongs to the message")]
fn a_driver_that_reads_too_much_is_told() {
    let mut server = server();
    server.receive(&frame(Role::Client, true, false, Opcode::Binary, &[7; 100])[..50], Time::ZERO);
    let into = server.connection.read_into(1).expect("room");
    let count = into.limit + 1;
    into.buffer.extend_from_slice(&vec![7; count]);
    let mut scratch = support::scratch();
    let _ = server.connection.received_into(count, Time::ZERO, &mut scratch, &mut server.outbox);
}
