//! permessage-deflate on the wire: RFC 7692 §5 to §7 from the negotiation to the inflated message, in both roles.

#![cfg(feature = "deflate")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{close_code, frame, frames, other, scratch, settings, text, written, written_frames};
use taut_proto::deflate::{self, Config, NegotiatedDeflate, Offer, Window};
use taut_proto::testing::{End, Seen};
use taut_proto::{Connection, Message, Opcode, Prepared, Role, SendError, Settings, Time, Violation};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Both ends of a connection whose handshake wrote the offer and the answer as text.
fn negotiated(client: Config, server: Config) -> (End, End) {
    let mut offer = Vec::new();
    deflate::write_offer(&client, &mut offer);
    let offer = String::from_utf8(offer).expect("ASCII");
    let of_server =
        deflate::accept(Offer::list(&offer).map(|offer| offer.expect("well-formed")), &server).expect("accepted");
    let mut answer = Vec::new();
    deflate::write_response(&of_server, &mut answer);
    let answer = String::from_utf8(answer).expect("ASCII");
    let answer = Offer::list(&answer).next().expect("one element").expect("well-formed");
    let of_client = deflate::validate_response(&answer, &client).expect("it fits the offer");
    (end(Role::Client, of_client), end(Role::Server, of_server))
}

fn end(role: Role, agreed: NegotiatedDeflate) -> End {
    end_with(role, agreed, settings(role))
}

fn end_with(role: Role, agreed: NegotiatedDeflate, settings: Settings) -> End {
    End::new(Connection::new(role, Arc::new(settings), Time::ZERO, 0).with_deflate(agreed))
}

/// The same window both ways.
fn window(bits: u8, takeover: bool) -> NegotiatedDeflate {
    let window = Window { bits, takeover };
    NegotiatedDeflate::new(window, window)
}

fn full() -> NegotiatedDeflate {
    window(15, true)
}

fn fresh() -> NegotiatedDeflate {
    window(15, false)
}

/// The payload that a sender of this agreement puts on the wire for a message.
fn compressed(message: &[u8], agreed: NegotiatedDeflate) -> Vec<u8> {
    let mut sender = end(Role::Server, agreed);
    assert!(sender.send(message));
    let frames = written_frames(&mut sender);
    let [(header, payload)] = &frames[..] else { panic!("one frame: {frames:?}") };
    assert!(header.compressed, "it pays");
    payload.clone()
}

/// Carries all that one end wrote to the other, in reads of a few bytes.
fn carry(from: &mut End, to: &mut End, size: usize) -> Vec<u8> {
    let bytes = written(from);
    for read in bytes.chunks(size) {
        to.receive(read, Time::ZERO);
    }
    bytes
}

/// Text of some length that compresses well and differs from number to number.
fn sentence(number: usize) -> String {
    format!("{{\"event\":\"price\",\"channel\":\"market-{number}\",\"data\":\"{}\"}}", "up and down, ".repeat(20))
}

fn incompressible(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        // xorshift: no pattern that deflate could find.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

// RFC 7692 §5: what both sides agreed on is in use for every message after the handshake.
// RFC 7692 §6: the extension works on data messages of both types; the opcode stays what it is.
// RFC 7692 §6.1: the bit "Per-Message Compressed" is RSV1 of the first frame.
// RFC 7692 §6.2: the receiver inflates what it concatenated and delivers the original message.
#[test]
fn negotiated_ends_exchange_compressed_messages() {
    let takeover = Config { outgoing_takeover: true, incoming_takeover: true, ..Config::default() };
    for (client, server) in
        [(Config::default(), Config::default()), (takeover, takeover), (takeover, Config::default())]
    {
        let (mut client, mut server) = negotiated(client, server);
        for (number, size) in [(1, 1), (2, 7), (3, usize::MAX)] {
            let sent = sentence(number);
            assert!(client.send(sent.as_str()) && client.send(sent.as_bytes()));
            let bytes = carry(&mut client, &mut server, size);
            let frames = frames(&bytes);
            assert_eq!(frames.len(), 2);
            assert!(frames.iter().all(|(header, _)| header.compressed && header.fin));
            assert_eq!((frames[0].0.opcode, frames[1].0.opcode), (Opcode::Text, Opcode::Binary));
            assert!(bytes.len() < sent.len(), "two messages in less than one");
            assert!(server.send(sent.as_str()));
            carry(&mut server, &mut client, size);
            assert_eq!(server.events, [text(&sent), support::binary(sent.as_bytes())]);
            assert_eq!(client.events, [text(&sent)]);
            server.events.clear();
            client.events.clear();
        }
    }
}

// RFC 7692 §6.1: RSV1 is set on the first frame of a message only; control frames between the fragments are plain.
// RFC 7692 §6.1: a compressed message may be split into fragments, since its payload is what is split.
#[test]
fn control_frames_come_between_the_fragments_of_a_compressed_message() {
    for role in ROLES {
        let sent = sentence(1);
        let payload = compressed(sent.as_bytes(), full());
        let mut receiver = end(role, full());
        let (first, rest) = payload.split_at(5);
        let (second, third) = rest.split_at(1);
        for (fin, rsv1, opcode, part) in [
            (false, true, Opcode::Text, first),
            (true, false, Opcode::Ping, b"now".as_slice()),
            (false, false, Opcode::Continuation, second),
            (false, false, Opcode::Continuation, b"".as_slice()),
            (true, false, Opcode::Pong, b"".as_slice()),
            (true, false, Opcode::Continuation, third),
        ] {
            for byte in frame(other(role), fin, rsv1, opcode, part) {
                receiver.receive(&[byte], Time::ZERO);
            }
        }
        assert_eq!(receiver.events, [Seen::Ping(b"now".to_vec()), Seen::Pong(vec![]), text(&sent)]);
        let replies = written_frames(&mut receiver);
        assert_eq!(replies.len(), 1);
        assert!(replies[0].0.opcode == Opcode::Pong && !replies[0].0.compressed, "a pong is never compressed");
    }
}

// RFC 7692 §6.1: an endpoint that receives RSV1 on a frame that is not the first of a message fails the connection.
// sockudo-ws release 3: RSV1 on a continuation was accepted.
#[test]
fn rsv1_on_a_continuation_fails_the_connection() {
    for role in ROLES {
        for first_compressed in [true, false] {
            let mut receiver = end(role, full());
            receiver.receive(&frame(other(role), false, first_compressed, Opcode::Text, b"\xf2"), Time::ZERO);
            receiver.receive(&frame(other(role), true, true, Opcode::Continuation, b"\x48"), Time::ZERO);
            assert_eq!(receiver.events, [Seen::Violation(Violation::CompressedNotFirst)]);
            assert_eq!(close_code(&mut receiver), 1002);
        }
    }
}

// RFC 7692 §6.1: an endpoint that receives RSV1 on a control frame fails the connection.
#[test]
fn rsv1_on_a_control_frame_fails_the_connection() {
    for role in ROLES {
        for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
            let mut receiver = end(role, full());
            receiver.receive(&frame(other(role), true, true, opcode, b""), Time::ZERO);
            assert_eq!(receiver.events, [Seen::Violation(Violation::CompressedNotFirst)], "{opcode:?}");
        }
    }
}

// RFC 6455 §5.2: RSV1 is refused where the handshake did not give it a meaning.
// CVE-2026-59881: a client took RSV1 although nothing had been negotiated.
#[test]
fn rsv1_is_refused_in_either_role_when_nothing_was_negotiated() {
    let payload = compressed(sentence(1).as_bytes(), fresh());
    for role in ROLES {
        let mut receiver = support::end(role, settings(role));
        receiver.receive(&frame(other(role), true, true, Opcode::Text, &payload), Time::ZERO);
        assert_eq!(receiver.events, [Seen::Violation(Violation::ReservedBits)]);
        assert_eq!(close_code(&mut receiver), 1002);
    }
}

// RFC 6455 §5.2: RSV2 and RSV3 keep no meaning when RSV1 has one.
#[test]
fn the_other_reserved_bits_stay_refused_with_deflate() {
    for bit in [0x20, 0x10] {
        let mut receiver = end(Role::Server, full());
        let mut bytes = frame(Role::Client, true, true, Opcode::Text, b"\x00");
        bytes[0] |= bit;
        receiver.receive(&bytes, Time::ZERO);
        assert_eq!(receiver.events, [Seen::Violation(Violation::ReservedBits)]);
    }
}

// RFC 7692 §6: an endpoint may send any message uncompressed, with RSV1 clear, and receives both kinds mixed.
// RFC 7692 §7.2.1: a message that is sent uncompressed leaves the window as it was.
// sockudo issue 14: a message sent raw had gone through the compressor before, and parted the two windows.
#[test]
fn plain_and_compressed_messages_mix_without_parting_the_windows() {
    for role in ROLES {
        for agreed in [full(), fresh(), window(9, true)] {
            let (mut sender, mut receiver) = (end(role, agreed), end(other(role), agreed));
            let mut scratch = scratch();
            let mut expected = Vec::new();
            for number in 0..40 {
                let message = sentence(number);
                match number % 4 {
                    0 => assert!(sender.send("short")),
                    1 => assert_eq!(
                        sender.connection.send_uncompressed(&message[..], &mut scratch, &mut sender.outbox),
                        Ok(())
                    ),
                    2 => assert_eq!(
                        sender.connection.send_prepared(&Prepared::new(&message[..]), &mut scratch, &mut sender.outbox),
                        Ok(())
                    ),
                    _ => assert!(sender.send(&message[..])),
                }
                expected.push(text(if number % 4 == 0 { "short" } else { &message }));
                let bytes = carry(&mut sender, &mut receiver, 100);
                let compressed = frames(&bytes)[0].0.compressed;
                match number % 4 {
                    0 | 1 => assert!(!compressed, "below the threshold, or asked to be plain"),
                    3 => assert!(compressed),
                    _ => {}
                }
            }
            assert_eq!(receiver.events, expected);
        }
    }
}

// RFC 7692 §7.2.1: with context takeover a message may refer to earlier ones, in the direction that agreed on it.
// RFC 7692 §7.1.1.1: a server that agreed to no context takeover compresses every message by itself.
// RFC 7692 §7.1.1.2: so does a client.
// RFC 7692 §7.2.2: the receiver keeps its window as long as the sender does.
#[test]
fn the_context_is_kept_in_each_direction_that_agreed_to_it_and_in_no_other() {
    for role in ROLES {
        for outgoing in [true, false] {
            for incoming in [true, false] {
                let out = Window { bits: 15, takeover: outgoing };
                let back = Window { bits: 15, takeover: incoming };
                let mut ours = end(role, NegotiatedDeflate::new(out, back));
                let mut theirs = end(other(role), NegotiatedDeflate::new(back, out));
                let message = String::from_utf8(incompressible(600).iter().map(|byte| b'a' + byte % 26).collect());
                let message = message.expect("letters");
                for takeover in [outgoing, incoming] {
                    let (from, to) = (&mut ours, &mut theirs);
                    let sizes = [1, 2].map(|_| {
                        assert!(from.send(&message[..]));
                        carry(from, to, 50).len()
                    });
                    assert_eq!(to.events, [text(&message), text(&message)]);
                    if takeover {
                        assert!(sizes[1] * 4 < sizes[0], "the second refers to the first: {sizes:?}");
                    } else {
                        assert_eq!(sizes[0], sizes[1], "the second knows nothing of the first");
                    }
                    std::mem::swap(&mut ours, &mut theirs);
                }
            }
        }
    }
}

// RFC 7692 §7.1.1.1: without context takeover any message inflates with an empty window, as its receiver may do.
// RFC 7692 §7.1.1.2: the same for messages of a client.
#[test]
fn without_takeover_each_message_inflates_alone() {
    for role in ROLES {
        let mut sender = end(role, fresh());
        for number in 0..5 {
            assert!(sender.send(sentence(number)));
            let mut newcomer = end(other(role), fresh());
            carry(&mut sender, &mut newcomer, usize::MAX);
            assert_eq!(newcomer.events, [text(&sentence(number))]);
        }
    }
}

// RFC 7692 §7.1.2.1: a server compresses with no larger window than was agreed.
// RFC 7692 §7.1.2.2: nor does a client.
// RFC 7692 §7.2.1: an LZ77 window is not longer than agreed, here shown by an inflater that has no more.
#[test]
fn every_window_from_9_to_15_bits_is_kept() {
    for role in ROLES {
        for takeover in [true, false] {
            for bits in 9..=15 {
                let agreed = window(bits, takeover);
                let mut sender = end(role, agreed);
                let mut receiver = end(other(role), agreed);
                // A repeat just outside the window, which a larger one would use.
                let block = incompressible((1 << bits) + 300);
                let message = [&block[..], &block[..]].concat();
                for _ in 0..2 {
                    assert!(sender.send(&message[..]));
                    let bytes = carry(&mut sender, &mut receiver, 4096);
                    assert!(bytes.len() > message.len() * 9 / 10, "{bits} bits: {} bytes", bytes.len());
                }
                // And one inside it, which is used.
                let near = [&block[..200], &block[..200]].concat();
                assert!(sender.send(&near[..]));
                let bytes = carry(&mut sender, &mut receiver, 4096);
                assert!(bytes.len() < 300, "{bits} bits: {} bytes", bytes.len());
                let lengths: Vec<_> = receiver
                    .events
                    .iter()
                    .map(|seen| if let Seen::Message(message) = seen { message.as_bytes().len() } else { 0 })
                    .collect();
                assert_eq!(lengths, [message.len(), message.len(), 400], "{bits} bits: {role:?}");
            }
        }
    }
}

// RFC 7692 §7.1.2.2: a client of which 8 bits are asked sends no larger window, here by sending uncompressed.
// RFC 7692 §7.1.2.1: a window of 8 bits of the server is read.
#[test]
fn a_window_of_8_bits_is_read_and_never_produced() {
    let agreed = window(8, true);
    for role in ROLES {
        let mut sender = end(role, agreed);
        assert!(sender.send(sentence(1)));
        let (header, payload) = written_frames(&mut sender).remove(0);
        assert!(!header.compressed && payload == sentence(1).as_bytes());

        // Blocks without compression fit any window.
        let mut receiver = end(role, agreed);
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00];
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
        for payload in [&stored[..], &hello, &again] {
            receiver.receive(&frame(other(role), true, true, Opcode::Text, payload), Time::ZERO);
        }
        assert_eq!(receiver.events, [text("Hello"), text("Hello"), text("Hello")]);
    }
}

// RFC 7692 §6: whether a message is compressed is the sender's choice; ours depends on its length.
#[test]
fn messages_below_the_threshold_are_sent_as_they_are() {
    for role in ROLES {
        for agreed in [full(), fresh()] {
            for threshold in [0, 64, 1000] {
                let mut settings = settings(role);
                settings.deflate_from = threshold;
                let mut sender = end_with(role, agreed, settings);
                for length in [1, 63, 64, 999, 1000] {
                    assert!(sender.send("a".repeat(length)));
                    let frames = written_frames(&mut sender);
                    // One letter takes more compressed than plain; only takeover may not go back on its decision.
                    let pays = length > 4 || agreed.outgoing.takeover;
                    assert_eq!(frames[0].0.compressed, length >= threshold && pays, "{length} from {threshold}");
                }
            }
        }
    }
}

// RFC 7692 §6: what compression would only lengthen is sent as it is, where that leaves no window behind.
#[test]
fn what_does_not_compress_is_sent_plain_without_takeover() {
    let mut sender = end(Role::Server, fresh());
    assert!(sender.send(&incompressible(5000)[..]));
    let frames = written_frames(&mut sender);
    assert!(!frames[0].0.compressed && frames[0].1 == incompressible(5000));
}

// RFC 7692 §7.2.1: the four bytes at the end are removed once, however the compressor's output happened to be cut.
// sockudo-ws release 3: an incompressible message was cut where the output buffer filled exactly.
#[test]
fn incompressible_messages_of_any_length_arrive_whole() {
    for agreed in [full(), window(9, true)] {
        let (mut sender, mut peer) = (end(Role::Server, agreed), end(Role::Client, agreed));
        let lengths = (64..1200).chain([4095, 4096, 16_384, 32_767, 32_768, 65_535, 65_536, 262_144, 262_145, 1 << 20]);
        for length in lengths {
            let message = incompressible(length);
            assert!(sender.send(&message[..]));
            carry(&mut sender, &mut peer, usize::MAX);
            let Some(Seen::Message(received)) = peer.events.pop() else { panic!("{length}: nothing came") };
            assert!(received.as_bytes() == message, "{length} bytes");
        }
    }
}

// RFC 7692 §7.2.1: a message shared by many connections is compressed without any one's context, so a connection that
// keeps a context gets it uncompressed.
#[test]
fn a_prepared_message_is_plain_under_takeover_and_compressed_without() {
    let prepared = Prepared::new(Message::from(sentence(1)));
    for (agreed, expected) in [(full(), false), (fresh(), true), (window(8, false), false)] {
        let mut server = end(Role::Server, agreed);
        let sent = server.connection.send_prepared(&prepared, &mut scratch(), &mut server.outbox);
        assert_eq!(sent, Ok(()));
        let frames = written_frames(&mut server);
        assert_eq!(frames[0].0.compressed, expected, "{agreed:?}");
        assert_eq!(frames[0].0.opcode, Opcode::Text);
        let mut client = end(Role::Client, agreed);
        client.receive(&frame(Role::Server, true, expected, Opcode::Text, &frames[0].1), Time::ZERO);
        assert_eq!(client.events, [text(&sentence(1))]);
    }
}

// A prepared message is compressed by the first connection that needs it, and the others send the same bytes.
#[test]
fn a_prepared_message_is_compressed_once_for_each_window() {
    let prepared = Prepared::new(Message::from(sentence(1)));
    let mut scratch = scratch();
    let mut first_bits = Vec::new();
    for bits in [15, 9, 15, 9] {
        let mut server = end(Role::Server, window(bits, false));
        assert_eq!(server.connection.send_prepared(&prepared, &mut scratch, &mut server.outbox), Ok(()));
        first_bits.push((bits, written(&mut server)));
    }
    assert_eq!(first_bits[0], first_bits[2]);
    assert_eq!(first_bits[1], first_bits[3]);
    // A short one, and one that does not compress, go out plain.
    for message in [b"short".to_vec(), incompressible(3000)] {
        let mut server = end(Role::Server, fresh());
        let prepared = Prepared::new(Message::from(message.clone()));
        assert_eq!(server.connection.send_prepared(&prepared, &mut scratch, &mut server.outbox), Ok(()));
        assert_eq!(written(&mut server), frame(Role::Server, true, false, Opcode::Binary, &message));
    }
}

// RFC 7692 §6.2: what was inflated obeys the rules of its type, so text must be UTF-8.
// RFC 6455 §8.1: compressed text that inflates to something else fails the connection, with 1007.
#[test]
fn text_that_inflates_to_invalid_utf_8_fails_the_connection() {
    for role in ROLES {
        for agreed in [full(), fresh()] {
            let payload = compressed(&[&b"good until here ".repeat(10)[..], b"\xed\xa0\x80"].concat(), agreed);
            let mut receiver = end(role, agreed);
            receiver.receive(&frame(other(role), true, true, Opcode::Text, &payload), Time::ZERO);
            assert_eq!(receiver.events, [Seen::Violation(Violation::InvalidUtf8)]);
            assert_eq!(close_code(&mut receiver), 1007);

            let mut receiver = end(role, agreed);
            receiver.receive(&frame(other(role), true, true, Opcode::Binary, &payload), Time::ZERO);
            assert!(matches!(receiver.events[..], [Seen::Message(Message::Binary(_))]), "bytes may be anything");
        }
    }
}

// RFC 7692 §7.2.2: the payload of a compressed message is DEFLATE; what does not inflate fails the connection.
#[test]
fn what_does_not_inflate_fails_the_connection() {
    for role in ROLES {
        for (payload, agreed) in [
            (&[0xff, 0xff, 0xff][..], full()),                  // a block of the reserved type
            (&[0x00, 0x05, 0x00, 0x05, 0x00], fresh()),         // a stored block whose lengths disagree
            (&[0x4b, 0x04, 0x12, 0x00, 0x00], window(9, true)), // a distance before the beginning
            (&[0xf2, 0x00, 0x11, 0x00, 0x00], fresh()),         // refers to a message whose context was not kept
        ] {
            let mut receiver = end(role, agreed);
            receiver.receive(&frame(other(role), true, true, Opcode::Binary, payload), Time::ZERO);
            assert_eq!(receiver.events, [Seen::Violation(Violation::DeflateCorrupt)], "{payload:x?}");
            assert_eq!(close_code(&mut receiver), 1007);
        }
    }
}

// CVE-2018-1000518: the limit was not applied to what was inflated.
// CVE-2016-10544: the limit was checked before inflating.
// CVE-2026-1526: the same at a client, with a bomb from the server.
// CVE-2026-54464: the limit was compared with the compressed length.
// GHSA-x8v2-478q-2hvg: 2 MiB became 2 GiB.
#[test]
fn a_bomb_of_a_thousand_to_one_ends_at_the_limit() {
    for role in ROLES {
        for takeover in [true, false] {
            let agreed = window(15, takeover);
            let limit = settings(role).limits.message;
            let at_limit = compressed(&vec![0; limit], agreed);
            assert!(at_limit.len() * 100 < limit, "a bomb: {} bytes for {limit}", at_limit.len());
            let mut receiver = end(role, agreed);
            receiver.receive(&frame(other(role), true, true, Opcode::Binary, &at_limit), Time::ZERO);
            assert!(matches!(&receiver.events[..], [Seen::Message(message)] if message.as_bytes().len() == limit));

            for past in [limit + 1, limit * 4] {
                let bomb = compressed(&vec![0; past], agreed);
                let mut receiver = end(role, agreed);
                // Whole, and in fragments: the sum of what came compressed is far below the limit.
                let (head, tail) = bomb.split_at(bomb.len() / 2);
                receiver.receive(&frame(other(role), false, true, Opcode::Binary, head), Time::ZERO);
                receiver.receive(&frame(other(role), true, false, Opcode::Continuation, tail), Time::ZERO);
                assert_eq!(receiver.events, [Seen::Violation(Violation::InflatedTooBig)]);
                assert_eq!(close_code(&mut receiver), 1009);
            }
        }
    }
}

// CVE-2026-27571: a bomb before whoever connects is known; with a small limit for that time it ends there.
#[test]
fn a_bomb_against_a_small_limit_ends_at_that_limit() {
    let bomb = compressed(&vec![0; 1 << 20], fresh());
    let mut settings = Settings::server();
    settings.limits.message = 16 << 10;
    assert!(bomb.len() < 16 << 10, "what comes is within the limit");
    let mut server = end_with(Role::Server, fresh(), settings);
    server.receive(&frame(Role::Client, true, true, Opcode::Binary, &bomb), Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::InflatedTooBig)]);
}

// A limit that is no limit is not an overflow.
#[test]
fn a_message_inflates_when_nothing_limits_it() {
    for agreed in [fresh(), full()] {
        let mut settings = Settings::server();
        settings.limits.message = usize::MAX;
        let mut server = end_with(Role::Server, agreed, settings);
        let payload = compressed(&vec![7; 300_000], agreed);
        server.receive(&frame(Role::Client, true, true, Opcode::Binary, &payload), Time::ZERO);
        assert!(matches!(&server.events[..], [Seen::Message(message)] if message.as_bytes() == vec![7; 300_000]));
    }
}

// RFC 7692 §7.2.3.4: a message may end with a block whose BFINAL is set; the next one goes on with the context kept.
// sockudo-ws release 3: a final block lost the context.
#[test]
fn final_blocks_end_a_message_and_not_the_context() {
    for role in ROLES {
        for bits in [8, 9, 15] {
            let mut receiver = end(role, window(bits, true));
            let ended = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
            let refers = [0xf2, 0x00, 0x11, 0x00, 0x00];
            for payload in [&ended[..], &refers, &ended, &refers, &refers] {
                receiver.receive(&frame(other(role), true, true, Opcode::Text, payload), Time::ZERO);
            }
            assert_eq!(receiver.events, vec![text("Hello"); 5], "{bits} bits");
        }
    }
}

// RFC 7692 §7.2.3.5: a message may consist of several blocks, final ones among them.
#[test]
fn a_message_of_many_final_blocks_arrives() {
    for agreed in [full(), fresh(), window(9, true)] {
        let mut receiver = end(Role::Server, agreed);
        // As a sender writes that ends its stream with every buffer of 4 KiB.
        let piece = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let payload = piece.repeat(64);
        receiver.receive(&frame(Role::Client, true, true, Opcode::Text, &payload), Time::ZERO);
        assert_eq!(receiver.events, [text(&"Hello".repeat(64))], "{agreed:?}");

        let buffer = final_block(&incompressible(4096)).repeat(200);
        receiver.receive(&frame(Role::Client, true, true, Opcode::Binary, &buffer), Time::ZERO);
        assert_eq!(receiver.events[1..], [support::binary(&incompressible(4096).repeat(200))], "{agreed:?}");
    }
}

/// A stored block with BFINAL set.
fn final_block(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("one block");
    [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), payload].concat()
}

// Every final block makes the receiver begin a stream with a window's worth of history; it costs a sender two bytes.
#[test]
fn a_message_of_countless_final_blocks_is_refused_before_it_costs_anything() {
    for agreed in [full(), fresh(), window(9, true)] {
        let mut receiver = end(Role::Server, agreed);
        let history = compressed(&vec![0; 1 << 15], fresh());
        receiver.receive(&frame(Role::Client, true, true, Opcode::Binary, &history), Time::ZERO);
        let many = [0x03, 0x00].repeat((1 << 19) - 16);
        let began = std::time::Instant::now();
        receiver.receive(&frame(Role::Client, true, true, Opcode::Binary, &many), Time::ZERO);
        assert_eq!(receiver.events[1..], [Seen::Violation(Violation::TooManyFinalBlocks)]);
        assert_eq!(close_code(&mut receiver), 1008);
        // Half a million windows take seconds.
        assert!(began.elapsed() < std::time::Duration::from_millis(500), "{:?}", began.elapsed());
    }
}

// RFC 7692 §7.2.3.6: an empty message is the one byte of an empty block.
#[test]
fn an_empty_message_is_one_byte_when_it_is_compressed() {
    for role in ROLES {
        for agreed in [full(), fresh()] {
            let mut settings = settings(role);
            settings.deflate_from = 0;
            let mut sender = end_with(role, agreed, settings);
            assert!(sender.send("") && sender.send(sentence(1)));
            let mut receiver = end(other(role), agreed);
            let bytes = carry(&mut sender, &mut receiver, 1);
            assert_eq!(receiver.events, [text(""), text(&sentence(1))]);
            let (header, payload) = &frames(&bytes)[0];
            // Without takeover the plain frame is shorter still.
            assert_eq!(
                (header.compressed, &payload[..]),
                if agreed.outgoing.takeover { (true, &[0][..]) } else { (false, &[][..]) }
            );
        }
    }
}

// RFC 7692 §7.2.3.1: "Hello" in one compressed block. RFC 7692 §7.2.3.2: and again, in a context that is kept.
// RFC 7692 §7.2.3.3: in a block without compression. RFC 7692 §7.2.3.5: in two blocks.
#[test]
fn the_examples_of_the_rfc_arrive_in_either_role() {
    let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    for role in ROLES {
        let mut receiver = end(role, full());
        let whole = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        receiver.receive(&frame(other(role), true, true, Opcode::Text, &whole), Time::ZERO);
        receiver.receive(&frame(other(role), true, true, Opcode::Text, &[0xf2, 0x00, 0x11, 0x00, 0x00]), Time::ZERO);
        // §7.2.3.1 shows the same message in two fragments.
        receiver.receive(&frame(other(role), false, true, Opcode::Text, &whole[..3]), Time::ZERO);
        receiver.receive(&frame(other(role), true, false, Opcode::Continuation, &whole[3..]), Time::ZERO);
        receiver.receive(&frame(other(role), true, true, Opcode::Text, &stored), Time::ZERO);
        receiver.receive(&frame(other(role), true, true, Opcode::Text, &two_blocks), Time::ZERO);
        assert_eq!(receiver.events, vec![text("Hello"); 5]);
    }
}

// RFC 6455 §5.5.1: with compression, too, nothing follows a close.
#[test]
fn nothing_is_compressed_after_the_close() {
    let mut server = end(Role::Server, full());
    server.receive(&frame(Role::Client, true, false, Opcode::Close, b"\x03\xe8"), Time::ZERO);
    written(&mut server);
    let prepared = Prepared::new(Message::from(sentence(1)));
    assert!(!server.send(sentence(1)));
    let mut scratch = scratch();
    let connection = &mut server.connection;
    assert_eq!(connection.send_prepared(&prepared, &mut scratch, &mut server.outbox), Err(SendError::Closed));
    assert_eq!(connection.send_uncompressed("x", &mut scratch, &mut server.outbox), Err(SendError::Closed));
    assert!(server.outbox.is_empty());
}

proptest! {
    // RFC 7692 §7.2.2: whatever was agreed, however it is cut, what is sent is what is received.
    #[test]
    fn any_conversation_arrives_as_it_was_sent(
        messages in prop::collection::vec(("[a-e ]{0,12}", 0..200_usize), 1..12),
        client in (any::<(bool, bool)>(), 9..=15_u8, 8..=15_u8),
        server in (any::<(bool, bool)>(), 9..=15_u8, 8..=15_u8),
        size in 1..300_usize,
    ) {
        let config = |((outgoing_takeover, incoming_takeover), outgoing_bits, incoming_bits): ((bool, bool), u8, u8)| {
            Config { outgoing_takeover, incoming_takeover, outgoing_bits, incoming_bits: incoming_bits.max(9) }
        };
        let (mut client, mut server) = negotiated(config(client), config(server));
        for (word, repeats) in &messages {
            let message = word.repeat(*repeats);
            prop_assert!(client.send(&message[..]) && server.send(&message[..]));
            carry(&mut client, &mut server, size);
            carry(&mut server, &mut client, size);
            prop_assert_eq!(server.events.pop(), Some(text(&message)));
            prop_assert_eq!(client.events.pop(), Some(text(&message)));
        }
    }
}
