//! What a connection makes of bytes: the rules of RFC 6455 §5 to §8, on bytes and a fake clock.

use std::sync::Arc;

use proptest::prelude::*;
use taut_proto::testing::{End, Link, Seen, masked};
use taut_proto::{
    Close, CloseCode, Connection, Input, Limits, Message, Opcode, Outbox, Role, Scratch, Settings, Time, Violation,
};

fn server() -> End {
    server_with(Settings::server())
}

fn server_with(settings: Settings) -> End {
    End::new(Connection::new(Role::Server, Arc::new(settings), Time::ZERO, 0))
}

fn client() -> End {
    End::new(Connection::new(Role::Client, Arc::new(Settings::client()), Time::ZERO, 0))
}

fn text(text: &str) -> Seen {
    Seen::Message(Message::from(text).into_owned())
}

fn received(bytes: &[u8]) -> Vec<Seen> {
    let mut server = server();
    server.receive(bytes, Time::ZERO);
    server.events
}

/// The close code of the last frame a server wrote.
fn close_code(end: &mut End) -> u16 {
    let written = end.write(usize::MAX);
    let at = written.windows(1).rposition(|byte| byte == [0x88]).expect("a close frame");
    u16::from_be_bytes([written[at + 2], written[at + 3]])
}

#[derive(Clone, Debug)]
struct Sent(bool, Opcode, Vec<u8>);

fn conversation() -> impl Strategy<Value = Vec<Sent>> {
    let control = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..126).prop_map(|payload| Sent(true, Opcode::Ping, payload)),
        prop::collection::vec(any::<u8>(), 0..126).prop_map(|payload| Sent(true, Opcode::Pong, payload)),
    ];
    let message = ("\\PC{0,300}", prop::collection::vec(any::<prop::sample::Index>(), 0..4), prop::option::of(control))
        .prop_map(|(text, cuts, control)| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut opcode = Opcode::Text;
            let mut frames = Vec::new();
            for pair in cuts.windows(2) {
                let fin = frames.len() == cuts.len() - 2;
                frames.push(Sent(fin, opcode, text.as_bytes()[pair[0]..pair[1]].to_vec()));
                opcode = Opcode::Continuation;
            }
            if let Some(control) = control {
                frames.insert(frames.len() / 2, control);
            }
            frames
        });
    prop::collection::vec(message, 1..6).prop_map(|messages| messages.concat())
}

proptest! {
    // RFC 6455 §5.4, §5.5: fragments and the control frames between them mean the same however TCP cuts them.
    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(
        frames in conversation(), sizes in prop::collection::vec(1_usize..200, 1..20), close: bool,
    ) {
        let mut bytes: Vec<u8> =
            frames.iter().flat_map(|Sent(fin, opcode, payload)| masked(*fin, *opcode, payload)).collect();
        if close {
            bytes.extend(masked(true, Opcode::Close, b"\x03\xe8done"));
        }
        let mut whole = server();
        whole.receive(&bytes, Time::ZERO);
        let mut split = server();
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            let (read, tail) = rest.split_at((*size).min(rest.len()));
            split.receive(read, Time::ZERO);
            rest = tail;
            if rest.is_empty() { break }
        }
        prop_assert!(!whole.events.iter().any(|seen| matches!(seen, Seen::Violation(_))));
        prop_assert_eq!(&whole.events, &split.events);
        if !close {
            prop_assert_eq!(split.connection.buffered(), 0);
        }
    }

    // RFC 6455 §5.4: where a driver reads the bytes to does not change what they mean, whatever comes between.
    #[test]
    fn any_mixture_of_reads_into_the_message_and_elsewhere_gives_the_same_events(
        frames in conversation(), reads in prop::collection::vec((1_usize..200, any::<bool>()), 1..20), close: bool,
    ) {
        let mut bytes: Vec<u8> = frames
            .iter()
            .flat_map(|Sent(fin, opcode, payload)| {
                // Half of the conversations are binary, since text is not read into the message.
                let opcode = if close && *opcode == Opcode::Text { Opcode::Binary } else { *opcode };
                masked(*fin, opcode, payload)
            })
            .collect();
        if close {
            bytes.extend(masked(true, Opcode::Close, b"\x03\xe8done"));
        }
        let mut whole = server();
        whole.receive(&bytes, Time::ZERO);
        let mut mixed = server();
        let mut rest = &bytes[..];
        for &(size, asks) in reads.iter().cycle() {
            let read = &rest[..size.min(rest.len())];
            let mut taken = read.len();
            if asks { taken = mixed.read(read, Time::ZERO) } else { mixed.receive(read, Time::ZERO) }
            prop_assert!(taken > 0);
            rest = &rest[taken..];
            if rest.is_empty() { break }
        }
        prop_assert!(!whole.events.iter().any(|seen| matches!(seen, Seen::Violation(_))));
        prop_assert_eq!(&whole.events, &mixed.events);
        if !close {
            prop_assert_eq!(mixed.connection.buffered(), 0);
        }
    }

    // The same for bytes that mean nothing: the same violation after the same events.
    #[test]
    fn any_split_of_garbage_ends_the_same(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..20) {
        let mut whole = server();
        whole.receive(&bytes, Time::ZERO);
        let mut split = server();
        for read in bytes.chunks(size) {
            split.receive(read, Time::ZERO);
        }
        // A header that breaks two rules may be judged by its first byte when that is all there is.
        let violated = |seen: &Seen| matches!(seen, Seen::Violation(_));
        prop_assert_eq!(whole.events.iter().position(violated), split.events.iter().position(violated));
    }

    #[test]
    fn what_a_client_sends_a_server_receives_in_any_reads(
        texts in prop::collection::vec("\\PC{0,400}", 0..8), bytes: Vec<u8>, size in 1_usize..500,
    ) {
        let mut link = Link::new();
        for text in &texts {
            prop_assert!(link.client.send(text.as_str()));
        }
        prop_assert!(link.client.send(&bytes[..]));
        link.settle(size);
        let mut expected: Vec<Seen> = texts.iter().map(|sent| text(sent)).collect();
        expected.push(Seen::Message(Message::from(&bytes[..]).into_owned()));
        prop_assert_eq!(&link.server.events, &expected);
    }
}

// RFC 6455 §5.5.2: a ping is answered as soon as is practical, with its own payload; also between fragments.
// RFC 6455 §5.5.3: a pong has the payload of the ping it answers.
#[test]
fn a_ping_between_fragments_is_answered_at_once() {
    let mut server = server();
    server.receive(&masked(false, Opcode::Text, b"Hel"), Time::ZERO);
    server.receive(&masked(true, Opcode::Ping, b"there?"), Time::ZERO);
    assert_eq!(server.write(usize::MAX), b"\x8a\x06there?");
    server.receive(&masked(true, Opcode::Continuation, b"lo"), Time::ZERO);
    assert_eq!(server.events, [Seen::Ping(b"there?".to_vec()), text("Hello")]);
}

// RFC 6455 §5.5: control frames may come in the middle of a fragmented message, and in pieces of their own.
#[test]
fn a_split_ping_does_not_wipe_a_half_assembled_message() {
    let mut server = server();
    server.receive(&masked(false, Opcode::Text, b"Hel"), Time::ZERO);
    for byte in masked(true, Opcode::Ping, b"ping") {
        server.receive(&[byte], Time::ZERO);
    }
    server.receive(&masked(true, Opcode::Continuation, b"lo"), Time::ZERO);
    assert_eq!(server.events, [Seen::Ping(b"ping".to_vec()), text("Hello")]);
}

// RFC 6455 §5.1: a server closes on a frame that is not masked, and a client on one that is.
// facil.io issue 169: an unmasked payload reached the application.
// Bun issue 35526: a client took a masked control frame.
#[test]
fn masking_is_demanded_of_clients_and_refused_from_servers() {
    for opcode in [Opcode::Text, Opcode::Ping, Opcode::Close] {
        let mut server = server();
        server.receive(&[0x80 | opcode as u8, 0], Time::ZERO);
        assert_eq!(server.events, [Seen::Violation(Violation::Unmasked)]);
        assert_eq!(close_code(&mut server), 1002);

        let mut client = client();
        client.receive(&masked(true, opcode, b""), Time::ZERO);
        assert_eq!(client.events, [Seen::Violation(Violation::Masked)]);
    }
}

// RFC 6455 §5.3: the key is fresh for every frame. CVE-2025-10148: one key for a whole connection.
#[test]
fn every_frame_of_a_client_has_a_key_of_its_own() {
    let mut client = client();
    let mut keys = std::collections::HashSet::new();
    for _ in 0..100 {
        assert!(client.send("x"));
        let frame = client.write(usize::MAX);
        keys.insert(frame[2..6].to_vec());
    }
    // The test's source repeats after 256 bytes: 64 keys; a driver's is a CSPRNG.
    assert_eq!(keys.len(), 64);
}

// RFC 6455 §5.4: a continuation continues something; a message is finished before the next begins.
#[test]
fn fragments_follow_each_other() {
    let alone = received(&masked(true, Opcode::Continuation, b"x"));
    assert_eq!(alone, [Seen::Violation(Violation::ContinuationWithoutStart)]);
    let interleaved = [masked(false, Opcode::Text, b"x"), masked(true, Opcode::Text, b"y")].concat();
    assert_eq!(received(&interleaved), [Seen::Violation(Violation::ExpectedContinuation)]);
}

// RFC 6455 §5.6: a text message is UTF-8 as a whole; a fragment need not be.
// RFC 6455 §8.1: the connection fails on bytes that are not UTF-8, with 1007 (§7.4.1).
#[test]
fn text_is_checked_as_a_whole_and_at_the_first_bad_byte() {
    let split = [masked(false, Opcode::Text, b"\xce"), masked(true, Opcode::Continuation, b"\xba")].concat();
    assert_eq!(received(&split), [text("κ")]);

    let mut server = server();
    server.receive(&masked(false, Opcode::Text, b"ok \xed\xa0"), Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::InvalidUtf8)], "before the message ends");
    assert_eq!(close_code(&mut server), 1007);

    assert_eq!(received(&masked(true, Opcode::Text, b"\xce")), [Seen::Violation(Violation::InvalidUtf8)]);
    // RFC 6455 §5.6: binary data is the application's to interpret.
    assert!(matches!(received(&masked(true, Opcode::Binary, b"\xce"))[..], [Seen::Message(Message::Binary(_))]));
}

// A bad byte is found in the part of a frame that brings it.
#[test]
fn a_bad_byte_in_an_unfinished_frame_is_not_waited_out() {
    let mut server = server();
    let frame = masked(true, Opcode::Text, &[b"good ".as_slice(), b"\xff", &[b'x'; 1000]].concat());
    server.receive(&frame[..20], Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::InvalidUtf8)]);
}

// RFC 6455 §5.2, §5.5: what a header may not say fails the connection with 1002 (§7.4.1).
#[test]
fn a_broken_header_closes_with_1002() {
    for (bytes, violation) in [
        (&b"\xf0\x80"[..], Violation::ReservedBits),
        (b"\x83\x80", Violation::ReservedOpcode),
        (b"\x09\x80", Violation::ControlFragmented),
        (b"\x89\xfe", Violation::ControlTooLong),
        (b"\x82\xfe\x00\x01", Violation::LengthNotMinimal),
    ] {
        let mut server = server();
        server.receive(bytes, Time::ZERO);
        assert_eq!(server.events, [Seen::Violation(violation)]);
        assert_eq!(close_code(&mut server), 1002);
    }
}

// RFC 6455 §5.2: RSV1 without an extension that defines it fails the connection.
// CVE-2026-59881: RSV1 was taken although compression had not been agreed.
#[test]
fn rsv1_without_negotiation_is_refused() {
    assert_eq!(received(b"\xc1\x80\0\0\0\0"), [Seen::Violation(Violation::ReservedBits)]);
}

// RFC 6455 §5.5.1: a close is answered with a close of the same code, and nothing is sent after it.
// RFC 6455 §1.4: whatever comes after the peer's close is discarded.
#[test]
fn a_close_is_echoed_once_and_ends_everything() {
    let mut server = server();
    let after = masked(true, Opcode::Text, b"too late");
    server.receive(&[masked(true, Opcode::Close, b"\x0f\xa0bye"), after].concat(), Time::ZERO);
    server.receive(&masked(true, Opcode::Ping, b""), Time::ZERO);
    assert_eq!(server.events, [Seen::Close(Close::new(CloseCode::new(4000), "bye"))]);
    assert_eq!(server.write(usize::MAX), b"\x88\x02\x0f\xa0");
    assert!(!server.send("more") && !server.ping(b""));
    assert!(server.connection.is_done());
    assert_eq!(server.connection.receive_eof(), Ok(()));
}

// RFC 6455 §7.1.5: without a code in the close frame, the code is 1005 and ours carries none either.
#[test]
fn an_empty_close_is_answered_by_an_empty_one() {
    let mut server = server();
    server.receive(&masked(true, Opcode::Close, b""), Time::ZERO);
    assert_eq!(server.events, [Seen::Close(CloseCode::NO_STATUS.into())]);
    assert_eq!(server.write(usize::MAX), b"\x88\x00");
}

// RFC 6455 §7.4.1: codes that are not to be set in a close frame. RFC 6455 §5.5.1: nor half a code.
#[test]
fn a_broken_close_is_a_violation() {
    for (payload, violation, code) in [
        (&b"\x03"[..], Violation::CloseTooShort, 1002),
        (b"\x03\xed", Violation::CloseCodeInvalid, 1002),
        (b"\x03\xe8\xff", Violation::InvalidUtf8, 1007),
    ] {
        let mut server = server();
        server.receive(&masked(true, Opcode::Close, payload), Time::ZERO);
        assert_eq!(server.events, [Seen::Violation(violation)]);
        assert_eq!(close_code(&mut server), code);
    }
}

// RFC 6455 §7.1.3: the close handshake is started by either side. §7.1.4: closed cleanly when both closes went.
#[test]
fn a_close_from_either_side_is_clean() {
    for client_begins in [true, false] {
        let mut link = Link::new();
        let now = link.now;
        if client_begins { &mut link.client } else { &mut link.server }.close(CloseCode::NORMAL, now);
        link.settle(usize::MAX);
        assert!(link.client.connection.is_done() && link.server.connection.is_done());
        assert_eq!(link.client.connection.receive_eof(), Ok(()));
    }
}

// RFC 6455 §7.1.5: an end without a close frame is not clean (1006).
#[test]
fn an_end_without_a_close_is_not_clean() {
    let mut server = server();
    server.receive(&masked(true, Opcode::Text, b"hi"), Time::ZERO);
    assert!(server.connection.receive_eof().is_err());
}

// RFC 6455 §5.5.2: no pong is owed once a close was sent; §5.5.1: no frame may follow it.
#[test]
fn nothing_is_sent_after_our_close() {
    let mut server = server();
    server.close(CloseCode::GOING_AWAY, Time::ZERO);
    server.write(usize::MAX);
    server.receive(&masked(true, Opcode::Ping, b""), Time::ZERO);
    assert!(server.outbox.is_empty() && !server.send("x"));
    server.receive(&masked(true, Opcode::Close, b"\x03\xe9"), Time::ZERO);
    assert!(server.outbox.is_empty() && server.connection.is_done());
}

// RFC 6455 §10.4: limits on the size of frames and of reassembled messages.
// CVE-2022-35922, RUSTSEC-2022-0035: memory was set aside for the length announced.
// CVE-2026-54274, PYSEC-2026-2108: the limit holds at the header, before the payload comes.
#[test]
fn an_announced_length_costs_no_memory_and_is_refused_at_the_header() {
    let mut header = vec![0x82, 0xff];
    header.extend((1_u64 << 40).to_be_bytes());
    header.extend([0; 4]);
    let mut server = server();
    server.receive(&header, Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::MessageTooBig)]);
    assert_eq!(close_code(&mut server), 1009);

    // Within the limit: what is held follows what has come.
    let mut server = self::server();
    server.receive(&masked(true, Opcode::Binary, &vec![0; 1 << 20])[..20], Time::ZERO);
    assert!(server.connection.buffered() <= 20 << 10, "{}", server.connection.buffered());
}

// PYSEC-2026-4395: a fragment, then a length that overflows the sum. CVE-2026-1528: lengths near 2^63.
// CVE-2020-27813, GO-2020-0019: a sum that wrapped round made an endless loop. CVE-2020-13935: a bad length made one.
#[test]
fn a_sum_of_lengths_that_overflows_is_too_big() {
    let mut server = server();
    server.receive(&masked(false, Opcode::Binary, b"x"), Time::ZERO);
    let mut header = vec![0x80, 0xff];
    header.extend((u64::MAX >> 1).to_be_bytes());
    header.extend([0; 4]);
    server.receive(&header, Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::MessageTooBig)]);
}

// CVE-2026-9675: the limit held for each frame and not for their sum.
// GHSA-6663-c963-2gqg, CVE-2016-10542: 256 MiB by default.
#[test]
fn fragments_are_summed_up_against_a_default_of_one_mebibyte() {
    let mut server = server();
    server.receive(&masked(false, Opcode::Binary, &vec![0; 1 << 19]), Time::ZERO);
    server.receive(&masked(false, Opcode::Continuation, &vec![0; 1 << 19]), Time::ZERO);
    assert!(server.events.is_empty());
    server.receive(&masked(true, Opcode::Continuation, b"x"), Time::ZERO);
    assert_eq!(server.events, [Seen::Violation(Violation::MessageTooBig)]);
}

// CVE-2026-48779: tiny fragments without end. CVE-2026-12151: the same at a client.
// CVE-2026-62389: a message that is never finished.
#[test]
fn a_million_one_byte_fragments_end_at_the_limit() {
    flood_of_fragments(b"x");
}

// ws commit a2f4e7c0: empty fragments were not counted.
#[test]
fn a_million_empty_continuations_end_at_the_limit() {
    flood_of_fragments(b"");
}

fn flood_of_fragments(payload: &[u8]) {
    let mut server = server();
    server.receive(&masked(false, Opcode::Text, payload), Time::ZERO);
    let fragment = masked(false, Opcode::Continuation, payload);
    for _ in 0..1_000_000 {
        server.receive(&fragment, Time::ZERO);
        assert!(server.connection.buffered() < 4096);
    }
    assert_eq!(server.events, [Seen::Violation(Violation::TooManyFragments)], "and said once");
    assert_eq!(close_code(&mut server), 1008);
}

// CVE-2026-123817, PYSEC-2026-4389: one object for each tiny read.
#[test]
fn a_frame_in_one_byte_reads_holds_no_more_than_its_bytes() {
    let mut server = server();
    let frame = masked(true, Opcode::Binary, &vec![7; 1 << 20]);
    for byte in &frame {
        server.receive(std::slice::from_ref(byte), Time::ZERO);
        assert!(server.connection.buffered() <= (2 << 20) + 4096);
    }
    assert!(matches!(&server.events[..], [Seen::Message(message)] if message.as_bytes().len() == 1 << 20));
    assert_eq!(server.connection.buffered(), 0);
}

// GHSA-9fm3-97px-rjf6, CVE-2026-11586: pongs piled up at a peer that pings and never reads.
#[test]
fn a_ping_flood_at_a_peer_that_never_reads_holds_a_few_pongs() {
    let mut server = server();
    let pings = masked(true, Opcode::Ping, &[b'p'; 125]).repeat(50);
    for _ in 0..20_000 {
        server.receive(&pings, Time::ZERO);
        server.events.clear();
        assert!(server.outbox.capacity() < 16 << 10, "{}", server.outbox.capacity());
    }
    // RFC 6455 §5.5.3: of several unanswered pings only the newest need be answered.
    server.receive(&masked(true, Opcode::Ping, b"newest"), Time::ZERO);
    let written: Vec<u8> =
        std::iter::from_fn(|| Some(server.write(1000)).filter(|bytes| !bytes.is_empty())).flatten().collect();
    assert!(written.ends_with(b"newest") || written.windows(6).any(|bytes| bytes == b"newest"));
}

// Pings of one read beyond a limit are answered by the newest alone.
#[test]
fn many_pings_of_one_read_do_not_come_back_as_many_pongs() {
    let mut server = server();
    let pings: Vec<u8> = (0..10_000_u32).flat_map(|n| masked(true, Opcode::Ping, &n.to_be_bytes())).collect();
    server.receive(&pings, Time::ZERO);
    let written = server.write(usize::MAX);
    assert!(written.len() <= 101 * 6, "{} bytes", written.len());
    assert!(written.windows(6).any(|pong| pong == [0x8a, 4, 0, 0, 0x27, 0x0f]), "the newest is answered");
}

// A driver that hands on a message of a read lends the rest as another input, and goes on counting.
#[test]
fn pings_of_one_read_are_counted_over_all_the_inputs_that_it_is_lent_in() {
    let mut connection = Connection::new(Role::Server, Arc::new(Settings::server()), Time::ZERO, 0);
    let (mut scratch, mut outbox) = (Scratch::new(|bytes| bytes.fill(0x5a)), Outbox::new());
    let mut receive = |before: u32| {
        let mut bytes = masked(true, Opcode::Ping, b"").repeat(60);
        let mut input = Input::new(&mut bytes).after_pings(before);
        while connection.receive(&mut input, Time::ZERO, &mut scratch, &mut outbox).expect("by the rules").is_some() {}
        input.pings()
    };
    assert_eq!(receive(0), 60);
    assert_eq!(receive(60), 120);
    assert!((200..=202).contains(&outbox.len()), "{}: the first hundred are answered, and the newest", outbox.len());
}

// Large messages leave in fragments, so that a pong gets between them (RFC 6455 §5.4: that is what they are for).
#[test]
fn a_pong_gets_in_between_the_frames_of_a_large_message() {
    let mut server = server();
    assert!(server.send(&vec![1; 1 << 20][..]));
    let first = server.write(1000);
    assert_eq!(&first[..2], [0x02, 127], "not the final frame");
    server.receive(&masked(true, Opcode::Ping, b"now"), Time::ZERO);
    let mut client = client();
    client.receive(&first, Time::ZERO);
    while !server.outbox.is_empty() {
        let bytes = server.write(50_000);
        client.receive(&bytes, Time::ZERO);
        if client.events.contains(&Seen::Pong(b"now".to_vec())) {
            break;
        }
    }
    assert!(server.outbox.len() > 900_000, "the pong came after the first frame");
    let rest = server.outbox.to_vec();
    client.receive(&rest, Time::ZERO);
    assert!(matches!(&client.events[1], Seen::Message(message) if message.as_bytes().len() == 1 << 20));
}

// The heartbeat, end to end.
#[test]
fn a_silent_link_is_pinged_and_a_dead_one_is_given_up() {
    let mut link = Link::new();
    link.now = link.server.connection.deadline().expect("a heartbeat by default");
    assert_eq!(link.server.handle_deadline(link.now), None);
    link.settle(usize::MAX);
    assert!(matches!(link.client.events[..], [Seen::Ping(_)]) && matches!(link.server.events[..], [Seen::Pong(_)]));
    assert!(link.server.connection.round_trip().is_some());

    link.now = link.server.connection.deadline().unwrap();
    assert_eq!(link.server.handle_deadline(link.now), None);
    link.now = link.server.connection.deadline().unwrap();
    assert_eq!(link.server.handle_deadline(link.now), Some(taut_proto::Timeout::Heartbeat));
    assert!(link.server.connection.is_done() && link.server.connection.deadline().is_none());
}

// RFC 6455 §7.1.1: a reasonable time-out when the peer does not answer the close.
#[test]
fn an_unanswered_close_times_out() {
    let mut server = server();
    server.close(CloseCode::GOING_AWAY, Time::ZERO);
    assert_eq!(server.connection.deadline(), Some(Time::from_millis(5000)));
    assert_eq!(server.handle_deadline(Time::from_millis(4999)), None);
    assert_eq!(server.handle_deadline(Time::from_millis(5000)), Some(taut_proto::Timeout::Close));
    assert!(server.connection.receive_eof().is_ok(), "we have said why");
}

// What was received whole before a violation in the same read is not lost.
#[test]
fn messages_before_a_malformed_frame_are_delivered() {
    let bytes = [masked(true, Opcode::Text, b"kept"), b"\xff\xff".to_vec()].concat();
    assert_eq!(received(&bytes), [text("kept"), Seen::Violation(Violation::ReservedBits)]);
}

// The sizes that DESIGN promises: an idle connection is small, and owns nothing on the heap.
#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 160, "{}", size_of::<Connection>());
    let mut link = Link::new();
    assert!(link.client.send("x".repeat(100_000)));
    link.settle(1000);
    assert_eq!(link.server.connection.buffered(), 0);
    let limits = Limits::server();
    assert!(limits.message == 1 << 20 && limits.fragments == 1024);
}
