//! Messages that are received and sent as they come, in parts.

mod support;

use proptest::prelude::*;
use support::{client, close_code, masked, server, text, written_frames};
use taut_proto::testing::{End, Link, Seen};
use taut_proto::{CloseCode, Message, Opcode, Settings, Time};

/// A text in three fragments with a ping between, then a whole message.
fn wire() -> Vec<u8> {
    [
        masked(false, Opcode::Text, "grüß".as_bytes()),
        masked(true, Opcode::Ping, b"?"),
        masked(false, Opcode::Continuation, b""),
        masked(true, Opcode::Continuation, " dich, 世界".as_bytes()),
        masked(true, Opcode::Text, b"next"),
    ]
    .concat()
}

/// What was received, with parts put together and whole messages as a single part.
fn messages(end: &End) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    for event in &end.events {
        match event {
            Seen::Message(whole) => messages.push(whole.as_bytes().to_vec()),
            Seen::Part(payload, is_last) => {
                assert!(*is_last || !payload.is_empty(), "an empty part is not worth a call");
                message.extend_from_slice(payload);
                if *is_last {
                    messages.push(std::mem::take(&mut message));
                }
            }
            Seen::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(message.is_empty(), "not whole");
    messages
}

proptest! {
    // RFC 6455 §5.4: fragments may be handed on as they come; control frames come between them.
    #[test]
    fn however_a_message_is_cut_its_parts_add_up(cuts in prop::collection::vec((1..9_usize, any::<bool>()), 1..80)) {
        let wire = wire();
        let mut server = server();
        let mut rest = &wire[..];
        for &(size, in_parts) in cuts.iter().cycle() {
            let (read, after) = rest.split_at(size.min(rest.len()));
            // Whichever of the two is called, and in whatever order: nothing is lost or comes twice.
            if in_parts { server.receive_parts(read, Time::ZERO) } else { server.receive(read, Time::ZERO) }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(messages(&server), ["grüß dich, 世界".as_bytes().to_vec(), b"next".to_vec()]);
        prop_assert_eq!(server.connection.buffered(), 0);
    }
}

#[test]
fn a_message_within_one_read_comes_whole() {
    let mut server = server();
    server.receive_parts(&masked(true, Opcode::Text, b"short"), Time::ZERO);
    assert_eq!(server.events, [text("short")]);
}

#[test]
fn parts_count_against_no_limit_and_are_kept_nowhere() {
    let mut settings = Settings::server();
    settings.limits.message = 1000;
    settings.limits.fragments = 3;
    let mut server = support::end(taut_proto::Role::Server, settings);
    server.receive_parts(&masked(false, Opcode::Binary, &[1; 900]), Time::ZERO);
    for _ in 0..100 {
        server.receive_parts(&masked(false, Opcode::Continuation, &[1; 900]), Time::ZERO);
        assert!(server.connection.buffered() < 200, "{}", server.connection.buffered());
    }
    server.receive_parts(&masked(true, Opcode::Continuation, b""), Time::ZERO);
    assert_eq!(messages(&server), [vec![1; 101 * 900]]);
    // The next message is as limited as ever.
    server.receive(&masked(true, Opcode::Binary, &[1; 1001]), Time::ZERO);
    assert_eq!(close_code(&mut server), 1009);
}

// RFC 6455 §8.1: text that is not UTF-8 fails the connection, in the part that brings it.
#[test]
fn the_text_of_parts_is_checked_as_it_comes() {
    let mut server = server();
    server.receive_parts(&masked(false, Opcode::Text, b"ok \xf0\x9f"), Time::ZERO);
    server.receive_parts(&masked(false, Opcode::Continuation, b"\x98\x80 \xf0\x9f"), Time::ZERO);
    assert!(server.connection.is_open());
    server.receive_parts(&masked(false, Opcode::Continuation, b"x"), Time::ZERO);
    assert_eq!(close_code(&mut server), 1007);

    let mut server = support::server();
    server.receive_parts(&masked(false, Opcode::Text, b"cut \xf0\x9f"), Time::ZERO);
    server.receive_parts(&masked(true, Opcode::Continuation, b""), Time::ZERO);
    assert_eq!(close_code(&mut server), 1007, "it ends inside of a character");
}

// RFC 6455 §5.4: the rules of fragments hold in parts too.
#[test]
fn a_message_may_not_begin_inside_of_another_that_comes_in_parts() {
    let mut server = server();
    server.receive_parts(&masked(false, Opcode::Text, b"a"), Time::ZERO);
    server.receive_parts(&masked(true, Opcode::Text, b"b"), Time::ZERO);
    assert_eq!(close_code(&mut server), 1002);
}

// RFC 6455 §5.4: fragments of one message are not mixed with another's; control frames may come between.
#[test]
fn a_message_is_sent_in_fragments_and_nothing_comes_between_but_control_frames() {
    let mut end = client();
    assert!(end.send_fragment("one ", false));
    assert!(!end.send("no"), "another message would tear it apart");
    assert!(end.ping(b"yes"));
    assert!(end.send_fragment("two", true));
    assert!(end.send("next"));
    let frames: Vec<_> =
        written_frames(&mut end).into_iter().map(|(header, payload)| (header.opcode, header.fin, payload)).collect();
    assert_eq!(
        frames,
        [
            (Opcode::Text, false, b"one ".to_vec()),
            (Opcode::Ping, true, b"yes".to_vec()),
            (Opcode::Continuation, true, b"two".to_vec()),
            (Opcode::Text, true, b"next".to_vec()),
        ]
    );
}

#[test]
fn what_is_sent_in_fragments_arrives_as_one_message() {
    for size in [1, 2, 7, 1000] {
        let mut link = Link::new();
        for part in ["to be ", "cont", ""] {
            assert!(link.client.send_fragment(part, false));
        }
        assert!(link.client.send_fragment("inued", true));
        link.settle(size);
        assert_eq!(link.server.events, [text("to be continued")]);
    }
}

#[test]
fn a_close_may_come_in_the_middle_of_a_message() {
    let mut link = Link::new();
    assert!(link.client.send_fragment(Message::from(vec![1; 10]), false));
    link.client.close(CloseCode::INTERNAL_ERROR, link.now);
    link.settle(1000);
    assert!(link.client.connection.is_done() && link.server.connection.is_done());
    assert!(!link.client.send_fragment(Message::from(vec![1; 10]), true));
}
