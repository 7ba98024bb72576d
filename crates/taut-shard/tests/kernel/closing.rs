//! Ending (RFC 6455 §7): who says what, who waits for whom, and that `closed` is called once with the right reason.

use std::time::Duration;

use taut_proto::{CloseCode, Opcode, Timeout, Violation};
use taut_shard::testing::Client;
use taut_shard::{Reason, Sent};

use crate::application::{reason, stage, stage_with};

#[test]
fn a_close_of_the_peers_is_echoed_then_the_server_shuts_first_and_reads_to_the_end() {
    let mut stage = stage();
    let mut client = stage.open();
    client.close(CloseCode::GOING_AWAY);
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.closed().unwrap().code(), CloseCode::GOING_AWAY);
    // RFC 6455 §7.1.1: the server ends TCP first.
    assert!(client.remote.is_shut() && !client.remote.is_gone());
    assert!(matches!(reason(&mut stage), Reason::Closed(close) if close.code() == CloseCode::GOING_AWAY));
    assert_eq!((stage.census().open, stage.census().lingering), (0, 1));
    client.finish();
    stage.settle();
    assert!(client.remote.is_gone());
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_close_of_our_own_waits_for_the_peers() {
    let mut stage = stage();
    let mut client = stage.open();
    client.send("close");
    stage.settle();
    assert_eq!(stage.census().open, 1, "its answer is awaited");
    assert!(!client.remote.is_shut());
    client.read(usize::MAX);
    stage.settle();
    assert!(client.remote.is_shut());
    assert!(matches!(reason(&mut stage), Reason::Closed(close) if close.code() == CloseCode::NORMAL));
    client.finish();
    stage.settle();
    assert_eq!(stage.census().sockets, 0);
    assert_eq!(client.frames.opcodes, [Opcode::Close], "once");
}

#[test]
fn a_peer_that_never_answers_our_close_is_let_go_at_the_deadline() {
    let mut stage = stage();
    let mut client = stage.open();
    client.send("close");
    stage.settle();
    stage.advance(Duration::from_millis(4_999));
    assert_eq!(stage.census().open, 1);
    stage.advance(Duration::from_millis(101));
    assert!(matches!(reason(&mut stage), Reason::TimedOut(Timeout::Close)));
    assert!(client.remote.is_shut());
    stage.advance(Duration::from_millis(5_100));
    assert!(client.remote.is_gone());
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_peer_that_never_ends_its_side_is_let_go_at_the_deadline() {
    let mut stage = stage();
    let mut client = stage.open();
    client.close(CloseCode::NORMAL);
    stage.settle();
    assert_eq!(stage.census().lingering, 1);
    // Whatever it still says is read and thrown away.
    client.remote.write(&vec![0; 100_000]);
    stage.settle();
    assert_eq!(client.remote.unread(), 0);
    stage.advance(Duration::from_millis(4_999));
    assert!(!client.remote.is_gone());
    stage.advance(Duration::from_millis(101));
    assert!(client.remote.is_gone());
}

#[test]
fn after_our_close_the_handler_hears_and_sends_nothing_more() {
    let mut stage = stage();
    let mut client = stage.open();
    client.end.send("close");
    client.end.send("hello");
    client.end.send("hello again");
    client.flush();
    stage.settle();
    client.send("and again");
    stage.settle();
    assert_eq!(stage.handler().messages.len(), 1);
    stage.shard.mailbox().push("to all".to_owned(), 0).unwrap();
    stage.settle();
    assert_eq!(stage.handler().sent, [Sent::Closed]);
    client.read(usize::MAX);
    assert_eq!(client.frames.opcodes, [Opcode::Close]);
}

#[test]
fn messages_before_a_close_in_the_same_read_are_answered_before_it() {
    let mut stage = stage();
    let mut client = stage.open();
    client.end.send("one");
    client.end.send("two");
    let now = stage.network.now();
    client.end.close(CloseCode::NORMAL, now);
    client.flush();
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.frames.opcodes, [Opcode::Text, Opcode::Text, Opcode::Close]);
    assert_eq!(client.texts(), ["one", "two"]);
}

#[test]
fn a_violation_is_told_by_a_close_frame_then_the_socket_is_shut() {
    let mut stage = stage();
    let mut client = stage.open();
    client.send("before");
    // Not masked (RFC 6455 §5.1), and something after it that nobody may hear.
    client.write(b"\x81\x05hello\x81\x85\0\0\0\0hello");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.frames.opcodes, [Opcode::Text, Opcode::Close]);
    assert_eq!(client.closed().unwrap().code(), CloseCode::PROTOCOL_ERROR);
    assert!(client.remote.is_shut());
    assert!(matches!(reason(&mut stage), Reason::Violated(Violation::Unmasked)));
    assert_eq!(stage.handler().messages.len(), 1);
    client.finish();
    stage.settle();
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_close_frame_behind_a_full_socket_is_still_written_then_the_socket_shut() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(1000);
    let text = "x".repeat(30_000);
    client.end.send(text.as_str());
    client.flush();
    client.write(b"\x83\x80\0\0\0\0"); // opcode 3 is reserved
    stage.settle();
    assert_eq!((stage.census().open, stage.census().lingering), (0, 1));
    assert!(!client.remote.is_shut());
    for _ in 0..1000 {
        client.read(usize::MAX);
        stage.settle();
    }
    assert!(client.remote.is_shut());
    client.read(usize::MAX);
    assert_eq!(client.texts(), [text]);
    assert_eq!(client.closed().unwrap().code(), CloseCode::PROTOCOL_ERROR);
}

// RFC 6455 §7.1.1: a peer that has sent its close frame, and ended its side, may still read what was under way to it.
#[test]
fn a_peer_that_ends_its_side_after_its_close_frame_still_gets_all_that_waits() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(1000);
    let text = "x".repeat(30_000);
    client.end.send(text.as_str());
    client.flush();
    client.close(CloseCode::NORMAL);
    client.remote.finish();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Closed(close) if close.code() == CloseCode::NORMAL));
    assert_eq!(stage.census().lingering, 1, "much is still to be written");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), [text]);
    assert_eq!(client.closed().unwrap().code(), CloseCode::NORMAL);
    assert_eq!(stage.census().sockets, 0, "both sides have ended");
}

#[test]
fn a_peer_that_ends_its_side_and_does_not_read_is_let_go_at_the_deadline() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(1000);
    client.send("x".repeat(30_000));
    client.close(CloseCode::NORMAL);
    client.remote.finish();
    stage.settle();
    stage.advance(Duration::from_millis(4_999));
    assert_eq!(stage.census().lingering, 1);
    stage.advance(Duration::from_millis(101));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_peer_may_end_or_reset_at_any_byte() {
    let mut bytes = Vec::new();
    let mut sample = Client::new(&stage().network);
    bytes.extend_from_slice(&sample.request("/"));
    let head = bytes.len();
    sample.end.send("hello");
    sample.end.ping(b"ping");
    bytes.extend_from_slice(&sample.end.outbox.to_vec());
    for end in 0..3 {
        for count in 0..=bytes.len() {
            for settled in [false, true] {
                let mut stage = stage();
                let client = Client::new(&stage.network);
                client.remote.write(&bytes[..count]);
                if settled {
                    stage.settle();
                }
                match end {
                    0 => client.remote.finish(),
                    1 => client.remote.reset(false),
                    _ => client.remote.reset(true),
                }
                stage.settle();
                assert!(client.remote.is_gone());
                assert_eq!(stage.census().sockets, 0);
                let is_heard = settled || end < 2;
                let opened = usize::from(count >= head && is_heard);
                assert_eq!(stage.shard.handler().counts(), (opened, opened), "{count} bytes of {}", bytes.len());
                if opened == 1 {
                    match reason(&mut stage) {
                        Reason::Ended => assert_eq!(end, 0),
                        Reason::Failed(_) => assert_ne!(end, 0),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_reset_while_something_waits_is_told_once() {
    for discard in [false, true] {
        let mut stage = stage();
        let mut client = stage.open();
        client.remote.set_capacity(10);
        client.send("x".repeat(1000));
        stage.settle();
        assert!(stage.census().waiting > 0);
        client.remote.reset(discard);
        stage.settle();
        assert!(matches!(reason(&mut stage), Reason::Failed(_)));
        assert_eq!(stage.census().sockets, 0);
    }
}

#[test]
fn a_reset_that_is_found_by_writing_is_told_once() {
    let mut stage = stage();
    let mut client = stage.open();
    let _other = stage.open();
    // What it said can be read, to its end; what is answered cannot be written.
    client.send("hello");
    client.remote.finish();
    client.remote.reset(false);
    stage.shard.mailbox().push("to all".to_owned(), 0).unwrap();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Failed(_)));
    assert_eq!(stage.census().sockets, 1);
}

#[test]
fn a_last_write_that_fails_ends_the_connection_once() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(10);
    client.send("x".repeat(1000));
    stage.settle();
    // The end is read; what waits is tried once more.
    client.remote.break_writes();
    client.remote.finish();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Failed(_)));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn an_end_with_replies_that_wait_ends_the_connection_once() {
    let mut stage = stage();
    let mut client = stage.open();
    client.remote.set_capacity(10);
    client.send("x".repeat(1000));
    stage.settle();
    client.remote.finish();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Ended));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn what_was_said_before_the_end_is_heard_and_answered() {
    let mut stage = stage();
    let mut client = stage.open();
    client.send("last words");
    client.remote.finish();
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.texts(), ["last words"]);
    assert!(matches!(reason(&mut stage), Reason::Ended));
}

#[test]
fn the_others_may_be_told_when_one_goes() {
    let mut stage = stage();
    stage.handler().obituary = true;
    let mut others: Vec<Client> = (0..3).map(|_| stage.open()).collect();
    let resets = stage.open();
    let mut closes = stage.open();
    let mut breaks = stage.open();
    resets.remote.reset(true);
    closes.close(CloseCode::NORMAL);
    breaks.write(b"\xff\xff");
    stage.settle();
    for other in &mut others {
        other.read(usize::MAX);
        assert_eq!(other.texts(), ["one has gone"; 3]);
    }
}

#[test]
fn a_socket_that_fails_while_all_are_written_is_told_to_those_already_written() {
    let mut stage = stage();
    stage.handler().obituary = true;
    let mut first = stage.open();
    let second = stage.open();
    // Mail is written at the end of the tick: the first, then the second, which fails there.
    stage.shard.mailbox().push("to all".to_owned(), 0).unwrap();
    second.remote.break_writes();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Failed(_)));
    first.read(usize::MAX);
    assert_eq!(first.texts(), ["to all", "one has gone"]);
}

#[test]
fn a_slow_reader_that_ends_in_the_tick_in_which_it_is_found_slow_is_told_once() {
    let mut stage = stage_with(|settings| settings.outgoing = 1000);
    let client = stage.open();
    let mut talker = stage.open();
    client.remote.set_capacity(0);
    talker.send(format!("all {}", "x".repeat(2000)));
    stage.settle();
    // The talker's broadcast is over the bound; in the same tick the slow one's end is read.
    talker.send(format!("all {}", "x".repeat(2000)));
    client.remote.finish();
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Slow | Reason::Ended));
    assert_eq!(stage.census().open, 1);
}
