//! What a connection writes: the rules of RFC 6455 §5 and §6 for a sender, in both roles.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{client, end, frames, masked, other, scratch, server, settings, text, written, written_frames};
use taut_proto::testing::{End, Link, Seen};
use taut_proto::{CloseCode, Opcode, Prepared, Role, Scratch, SendError, Settings, Time};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// One of everything a connection can write: a text in fragments, binary data, ping, pong, a prepared message, close.
fn everything(role: Role) -> Vec<(taut_proto::Header, Vec<u8>)> {
    let mut settings = settings(role);
    settings.fragment = 4;
    let mut end = end(role, settings);
    let ping = support::frame(other(role), true, false, Opcode::Ping, b"theirs");
    end.receive(&ping, Time::ZERO);
    assert!(end.send("fragments") && end.send(&b"\xff"[..]) && end.ping(b"ours"));
    let prepared = Prepared::new("shared");
    assert_eq!(end.connection.send_prepared(&prepared, &mut scratch(), &mut end.outbox), Ok(()));
    end.close(CloseCode::NORMAL, Time::ZERO);
    let frames = written_frames(&mut end);
    assert_eq!(frames.len(), 8);
    frames
}

// RFC 6455 §5.1: a client masks every frame it sends, TLS or not.
// RFC 6455 §5.1: a server masks none.
// RFC 6455 §5.2: the mask bit is set on every frame from client to server.
// RFC 6455 §5.5.1: a close frame of a client is masked like any other.
// RFC 6455 §6.1: data that a client sends is masked as §5.3 says.
#[test]
fn a_client_masks_every_frame_and_a_server_none() {
    for role in ROLES {
        for (header, payload) in everything(role) {
            assert_eq!(header.mask.is_some(), role == Role::Client, "{header:?} {payload:?}");
        }
    }
}

// RFC 6455 §5.2: the reserved bits are zero where no extension was agreed on.
// RFC 6455 §5.8: nothing is sent that would need an extension without one.
#[test]
fn no_reserved_bit_is_ever_set_without_an_extension() {
    for role in ROLES {
        for (header, _) in everything(role) {
            // The first byte as written; that RSV2 and RSV3 are clear is what `Header::parse` demands.
            assert_eq!(header.to_bytes().0[0] & 0x70, 0);
        }
    }
}

// RFC 6455 §5.2: a length is written in the fewest bytes that hold it, in network byte order.
#[test]
fn lengths_are_written_in_their_shortest_form() {
    let mut settings = Settings::server();
    settings.fragment = usize::MAX;
    let mut server = end(Role::Server, settings);
    for (length, expected) in [
        (0_usize, &[0_u8][..]),
        (125, &[125]),
        (126, &[126, 0, 126]),
        (0xffff, &[126, 0xff, 0xff]),
        (0x1_0000, &[127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (0x12_3456, &[127, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56]),
    ] {
        assert!(server.send(&vec![0; length][..]));
        let bytes = written(&mut server);
        assert_eq!(bytes[..=expected.len()], [&[0x82], expected].concat(), "{length}");
        assert_eq!(bytes.len(), 1 + expected.len() + length);
    }
}

// RFC 6455 §5.3: the key of a frame comes unchanged from the strong source of entropy that the driver has, and no key
// is used for a second frame.
// CVE-2025-10148: one key for a whole connection.
// GHSA-w67g-5rqw-f597: keys that whoever knows some can predict.
#[test]
fn every_key_is_drawn_once_from_the_source_of_randomness() {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    fn fill(bytes: &mut [u8]) {
        for key in bytes.chunks_exact_mut(4) {
            key.copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        }
    }
    let mut client = client();
    let mut scratch = Scratch::new(fill);
    let mut frames = Vec::new();
    for _ in 0..1000 {
        let (connection, outbox) = (&mut client.connection, &mut client.outbox);
        assert_eq!(connection.send("x", &mut scratch, outbox), Ok(()));
        assert_eq!(connection.ping(b"", &mut scratch, outbox), Ok(()));
        frames.extend(written_frames(&mut client));
    }
    let keys: HashSet<_> = frames.iter().map(|(header, _)| header.mask.expect("masked")).collect();
    assert_eq!(keys.len(), 2000);
    assert!(keys.iter().all(|key| u32::from_be_bytes(*key) < DRAWN.load(Ordering::Relaxed)), "as they were drawn");
    assert!(frames.iter().all(|(header, payload)| header.length as usize == payload.len()));
}

// RFC 6455 §5.3: byte i of the payload is XORed with byte i mod 4 of the key; its length does not change.
#[test]
fn the_masking_is_that_of_the_rfc() {
    let mut client = client();
    let mut scratch = Scratch::new(|bytes| bytes.fill_with(|| 0x37));
    assert_eq!(client.connection.send("Hello", &mut scratch, &mut client.outbox), Ok(()));
    let bytes = written(&mut client);
    assert_eq!(bytes[..6], [0x81, 0x85, 0x37, 0x37, 0x37, 0x37]);
    assert_eq!(bytes[6..], b"Hello".map(|byte| byte ^ 0x37));
    // The example of RFC 6455 §5.7: a masked "Hello".
    let example = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(support::received(&example), [text("Hello")]);
}

// RFC 6455 §5.4: the first fragment carries the type, the others opcode 0, and FIN is on the last alone.
// RFC 6455 §5.4: fragments go out in the order of the message, and nobody's fragments between them.
// RFC 6455 §6.1: a message is one frame or several of these.
// RFC 6455 §6.1: the first frame says the type; FIN on the last says the end.
#[test]
fn large_messages_are_sent_in_fragments_by_the_rules() {
    for role in ROLES {
        for (opcode, length) in [(Opcode::Text, 10_usize), (Opcode::Binary, 9), (Opcode::Text, 4), (Opcode::Binary, 0)]
        {
            let mut settings = settings(role);
            settings.fragment = 4;
            let mut sender = end(role, settings);
            let sent = "abcdefghij"[..length].to_owned();
            assert!(if opcode == Opcode::Text { sender.send(&sent[..]) } else { sender.send(sent.as_bytes()) });
            assert!(sender.send("next"));
            let mut frames = written_frames(&mut sender);
            assert_eq!(frames.pop().expect("the next message").1, b"next");
            let count = length.div_ceil(4).max(1);
            assert_eq!(frames.len(), count);
            for (index, (header, _)) in frames.iter().enumerate() {
                assert_eq!(header.opcode, if index == 0 { opcode } else { Opcode::Continuation });
                assert_eq!(header.fin, index == count - 1);
            }
            let payloads: Vec<u8> = frames.into_iter().flat_map(|(_, payload)| payload).collect();
            assert_eq!(payloads, sent.as_bytes());
        }
    }
}

// RFC 6455 §5.4: a message that is given, and so kept where it lies, leaves in the same frames as one that is lent.
#[test]
fn fragments_of_a_message_that_is_given_are_those_of_one_that_is_lent() {
    for role in ROLES {
        for length in [64_u32 << 10, (64 << 10) + 1, 128 << 10, 300_000] {
            let payload: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let [mut lent, mut given] = [settings(role), settings(role)].map(|settings| end(role, settings));
            assert!(lent.send(&payload[..]) && lent.send("next"));
            assert!(given.send(payload) && given.send("next"));
            assert_eq!(written_frames(&mut given), written_frames(&mut lent), "{length} bytes");
        }
    }
}

// RFC 6455 §5.5.2: a pong does not wait behind the fragments of a large message.
#[test]
fn a_pong_gets_between_the_fragments_of_a_message_that_is_given() {
    let mut server = server();
    assert!(server.send(vec![7; 300_000]));
    let begun = server.write(1000);
    server.receive(&masked(true, Opcode::Ping, b"now"), Time::ZERO);
    let mut bytes = begun;
    while !server.outbox.is_empty() {
        bytes.extend(server.write(usize::MAX));
    }
    let opcodes: Vec<Opcode> = frames(&bytes).iter().map(|(header, _)| header.opcode).take(3).collect();
    assert_eq!(opcodes, [Opcode::Binary, Opcode::Pong, Opcode::Continuation]);
}

// RFC 6455 §5.5: our own control frames carry 125 bytes at most and are never in fragments.
#[test]
fn our_control_frames_are_short_and_whole() {
    for role in ROLES {
        let mut end = end(role, settings(role));
        assert!(end.ping(&[b'p'; 125]));
        assert!(!end.ping(&[b'p'; 126]));
        let too_long = end.connection.ping(&[0; 1000], &mut scratch(), &mut end.outbox);
        assert_eq!(too_long, Err(SendError::PingTooLong));
        let close = taut_proto::Close::new(CloseCode::NORMAL, "long ".repeat(100));
        end.connection.close(close, Time::ZERO, &mut scratch(), &mut end.outbox);
        let frames = written_frames(&mut end);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|(header, payload)| header.fin && payload.len() <= 125));
    }
}

// RFC 6455 §5.5.2: each endpoint answers a ping, the client too.
// RFC 6455 §5.5.3: with the same payload, byte for byte.
// CVE-2016-10518, ws release 8.20.1: what a pong carries is what came, never memory that was not written.
#[test]
fn pings_of_every_length_come_back_unchanged() {
    for role in ROLES {
        let mut end = end(role, settings(role));
        for length in 0..=125_u8 {
            let payload: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(31)).collect();
            end.receive(&support::frame(other(role), true, false, Opcode::Ping, &payload), Time::ZERO);
            let frames = written_frames(&mut end);
            assert_eq!(frames.len(), 1);
            assert_eq!((frames[0].0.opcode, &frames[0].1), (Opcode::Pong, &payload));
        }
    }
}

// RFC 6455 §5.5.3: an unsolicited pong is allowed and asks for no answer.
#[test]
fn an_unsolicited_pong_is_taken_and_not_answered() {
    for role in ROLES {
        let mut end = end(role, settings(role));
        end.receive(&support::frame(other(role), true, false, Opcode::Pong, b"beat"), Time::ZERO);
        assert_eq!(end.events, [Seen::Pong(b"beat".to_vec())]);
        assert!(end.outbox.is_empty() && end.connection.is_open());
    }
}

// RFC 6455 §5.5.3: a pong may be sent unsolicited; §5.5: it carries at most 125 bytes.
#[test]
fn a_pong_may_be_sent_that_no_ping_has_asked_for() {
    for role in ROLES {
        let mut end = end(role, settings(role));
        for payload in [&b""[..], &[b'p'; 125]] {
            assert_eq!(end.connection.pong(payload, &mut scratch(), &mut end.outbox), Ok(()));
            let frames = written_frames(&mut end);
            assert_eq!((frames.len(), frames[0].0.opcode, &frames[0].1[..]), (1, Opcode::Pong, payload));
        }
        let too_long = end.connection.pong(&[0; 126], &mut scratch(), &mut end.outbox);
        assert_eq!(too_long, Err(SendError::PingTooLong));
        assert!(end.outbox.is_empty());
    }
}

// RFC 6455 §5.6: both types of data go both ways and stay what they are.
// RFC 6455 §6.2: a message has the type of its first frame and the payload of all of them, unmasked.
// RFC 6455 §5.4: messages are received in fragments and whole.
#[test]
fn messages_of_both_types_arrive_as_they_were_sent() {
    for fragment in [usize::MAX, 3] {
        let mut link = {
            let (mut client, mut server) = (Settings::client(), Settings::server());
            (client.fragment, server.fragment) = (fragment, fragment);
            Link::with(client, server)
        };
        let bytes: Vec<u8> = (0..=255).collect();
        for end in [&mut link.client, &mut link.server] {
            assert!(end.send("żółć") && end.send(&bytes[..]) && end.send("") && end.send(&[][..]));
        }
        link.settle(10);
        let expected = [text("żółć"), support::binary(&bytes), text(""), support::binary(b"")];
        assert_eq!(link.client.events, expected);
        assert_eq!(link.server.events, expected);
    }
}

// RFC 6455 §6.1: data is sent only while the connection is open.
// RFC 6455 §5.5.1: after a close frame an application sends no more data.
#[test]
fn nothing_can_be_sent_unless_the_connection_is_open() {
    let ways: [fn(&mut End); 4] = [
        |end| end.close(CloseCode::NORMAL, Time::ZERO),
        |end| end.receive(&support::unmasked(true, Opcode::Close, b""), Time::ZERO),
        |end| end.receive(b"\xff\xff", Time::ZERO),
        |end| assert!(end.connection.receive_eof().is_err()),
    ];
    for end_it in ways {
        let mut client = client();
        end_it(&mut client);
        written(&mut client);
        let (mut scratch, prepared) = (scratch(), Prepared::new("x"));
        let (connection, outbox) = (&mut client.connection, &mut client.outbox);
        assert_eq!(connection.send("x", &mut scratch, outbox), Err(SendError::Closed));
        assert_eq!(connection.send_uncompressed("x", &mut scratch, outbox), Err(SendError::Closed));
        assert_eq!(connection.send_prepared(&prepared, &mut scratch, outbox), Err(SendError::Closed));
        assert_eq!(connection.ping(b"", &mut scratch, outbox), Err(SendError::Closed));
        connection.close(CloseCode::NORMAL, Time::ZERO, &mut scratch, outbox);
        assert!(client.outbox.is_empty());
    }
}

// RFC 6455 §4.2.2: the connection is open once the response is sent, so nothing overtakes the response.
#[test]
fn nothing_gets_ahead_of_the_handshake() {
    let mut server = server();
    server.outbox.push_bytes(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert!(server.send(&[1; 8000][..]));
    assert!(server.ping(b"urgent"));
    server.receive(&masked(true, Opcode::Ping, b"hello?"), Time::ZERO);
    let bytes = written(&mut server);
    assert!(bytes.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "{:?}", &bytes[..20]);
    let rest = frames(&bytes[36..]);
    let opcodes: Vec<_> = rest.iter().map(|(header, _)| header.opcode).collect();
    assert_eq!(opcodes.len(), 3);
    assert!([Opcode::Binary, Opcode::Ping, Opcode::Pong].iter().all(|opcode| opcodes.contains(opcode)), "{opcodes:?}");
}
