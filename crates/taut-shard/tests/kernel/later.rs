//! Handshakes that are answered later.

use std::time::Duration;

use taut_proto::handshake::ClientRequest;
use taut_proto::{Close, CloseCode, deflate};
use taut_shard::testing::{Client, NONCE, Stage};
use taut_shard::{Drain, Reason};

use crate::application::{Application, reason, stage, stage_with};

#[test]
fn a_handshake_waits_for_its_answer_and_then_opens() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    assert_eq!((stage.census().handshakes, stage.census().open), (1, 0));
    assert_eq!(client.remote.waiting(), 0);
    assert!(stage.network.is_asleep());
    answer(&mut stage, "accept somebody");
    client.read(usize::MAX);
    assert!(client.is_open());
    assert_eq!((stage.census().handshakes, stage.census().open), (0, 1));
    client.send("who");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["somebody"]);
    stage.advance(Duration::from_secs(11));
    assert_eq!(stage.census().open, 1, "the handshake's deadline is over");
}

#[test]
fn what_comes_behind_the_request_is_handled_once_it_is_accepted() {
    // "one" and "two", masked with zeros.
    let frames = b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two";
    for with_the_head in 0..=frames.len() {
        let mut stage = stage();
        stage.handler().greeting = Some("hello");
        let mut client = Client::new(&stage.network);
        let mut bytes = client.request("/later");
        bytes.extend_from_slice(&frames[..with_the_head]);
        client.write(&bytes);
        stage.settle();
        client.write(&frames[with_the_head..]);
        stage.settle();
        assert_eq!((client.remote.waiting(), client.remote.unread()), (0, 0));
        answer(&mut stage, "accept somebody");
        assert_eq!(client.remote.writes(), 1, "the response, the greeting and both replies leave together");
        client.read(usize::MAX);
        assert_eq!(client.texts(), ["hello", "one", "two"]);
    }
}

#[test]
fn the_answer_says_what_was_chosen_when_the_request_came() {
    let mut stage = stage_with(|settings| settings.deflate = Some(deflate::Config::standard()));
    let mut client = Client::new(&stage.network).with_deflate(deflate::Config::standard());
    let request = ClientRequest::new("fake.example", "/later").unwrap().subprotocol("later").unwrap();
    let mut bytes = Vec::new();
    request.deflate(Some(deflate::Config::standard())).write(NONCE, &mut bytes);
    client.write(&bytes);
    stage.settle();
    answer(&mut stage, "accept somebody");
    let response = String::from_utf8(client.remote.read(usize::MAX)).unwrap();
    assert!(response.contains("\r\nSec-WebSocket-Protocol: later\r\n"), "{response}");
    assert!(response.contains("permessage-deflate"), "{response}");
}

#[test]
fn an_answer_may_add_headers_but_not_those_of_the_handshake() {
    let mut stage = stage();
    let client = asking(&mut stage);
    answer(&mut stage, "header somebody");
    let response = String::from_utf8(client.remote.read(usize::MAX)).unwrap();
    assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("\r\nX-Node: 1\r\n\r\n"), "{response}");
    assert!(!response.contains("h2c"), "{response}");
    assert_eq!((stage.census().handshakes, stage.census().open), (0, 1));
}

#[test]
fn a_refusal_may_come_later_too() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    answer(&mut stage, "refuse you are not on the list");
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(403));
    assert!(client.response.ends_with(b"you are not on the list\n"));
    assert!(client.remote.is_shut());
    assert_eq!(stage.shard.stats().refused, 1);
    client.finish();
    stage.settle();
    assert_eq!((stage.census().sockets, stage.shard.handler().counts()), (0, (0, 0)));
}

#[test]
fn an_answer_does_not_reach_another_in_the_place_of_one_that_has_gone() {
    for end in 0..3 {
        let mut stage = stage();
        let gone = asking(&mut stage);
        let former = stage.handler().pending.pop().unwrap();
        match end {
            0 => gone.remote.finish(),
            1 => gone.remote.reset(false),
            _ => gone.remote.reset(true),
        }
        stage.settle();
        assert!(gone.remote.is_gone());
        assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
        // It takes the same place, and waits as well.
        let mut next = asking(&mut stage);
        let fresh = std::mem::replace(&mut stage.handler().pending[0], former);
        assert_ne!(former, fresh);
        answer(&mut stage, "accept the one before");
        assert_eq!((stage.census().open, stage.census().handshakes), (0, 1));
        stage.handler().pending.push(fresh);
        answer(&mut stage, "accept the right one");
        next.read(usize::MAX);
        next.send("who");
        stage.exchange(&mut [&mut next]);
        assert_eq!(next.texts(), ["the right one"]);
        // Nor does it reach an open connection.
        stage.handler().pending = vec![former, fresh];
        answer(&mut stage, "refuse it");
        assert_eq!(stage.census().open, 1);
    }
}

#[test]
fn the_first_answer_counts() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    let id = stage.handler().pending[0];
    stage.handler().pending.push(id);
    answer(&mut stage, "accept somebody");
    client.read(usize::MAX);
    assert!(client.is_open());
    assert_eq!(stage.shard.handler().counts(), (1, 0));
}

#[test]
fn a_handshake_that_is_not_answered_in_time_is_told_503() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    stage.advance(Duration::from_millis(9_999));
    assert_eq!(client.remote.waiting(), 0);
    stage.advance(Duration::from_millis(101));
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(503));
    let response = String::from_utf8(client.response.clone()).unwrap().to_ascii_lowercase();
    assert!(response.contains("\r\nretry-after: 1\r\n"), "{response}");
    answer(&mut stage, "accept nobody");
    assert_eq!((stage.census().open, stage.census().handshakes), (0, 0));
}

#[test]
fn handshakes_that_wait_for_an_answer_count_among_those_in_progress() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 2);
    let mut clients: Vec<Client> = (0..3).map(|_| asking(&mut stage)).collect();
    assert_eq!((stage.census().handshakes, stage.network.queued()), (2, 1));
    answer(&mut stage, "accept two");
    assert_eq!((stage.census().open, stage.census().handshakes, stage.network.queued()), (2, 1, 0));
    answer(&mut stage, "accept the third");
    for client in &mut clients {
        client.read(usize::MAX);
    }
    assert!(clients.iter().all(|client| client.is_open()));
}

#[test]
fn who_speaks_ahead_of_the_answer_is_read_no_further_than_a_head_may_reach() {
    for read_buffer in [100, 128 << 10] {
        let mut stage = stage_with(|settings| settings.read_buffer = read_buffer);
        let mut client = Client::new(&stage.network);
        let mut bytes = client.request("/later");
        // Texts of a byte, masked with zeros.
        (0..30_000).for_each(|_| bytes.extend_from_slice(b"\x81\x81\0\0\0\0x"));
        client.write(&bytes);
        stage.settle();
        let read = bytes.len() - client.remote.unread();
        assert!((16 << 10..33 << 10).contains(&read), "{read}");
        let reads = client.remote.reads();
        client.write(b"\x81\x81\0\0\0\0x");
        stage.settle();
        assert_eq!(client.remote.reads(), reads, "nothing is read of it meanwhile");
        answer(&mut stage, "accept somebody");
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts().len(), 30_001);
    }
}

#[test]
fn one_that_has_spoken_too_much_is_noticed_when_it_goes() {
    for end in 0..2 {
        let mut stage = stage();
        let mut client = asking(&mut stage);
        client.write(&vec![0; 100_000]);
        stage.settle();
        assert!(client.remote.unread() > 0);
        match end {
            0 => client.remote.finish(),
            _ => client.remote.reset(false),
        }
        stage.settle();
        assert!(client.remote.is_gone());
        assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
    }
}

#[test]
fn a_drain_refuses_those_that_wait_for_an_answer() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    let close = Close::from(CloseCode::SERVICE_RESTART);
    stage.shard.drainer().drain(Drain { close, over: Duration::ZERO, deadline: Duration::from_secs(5) });
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(503));
    answer(&mut stage, "accept nobody");
    client.finish();
    stage.settle();
    assert!(stage.is_drained);
    assert_eq!(stage.shard.handler().counts(), (0, 0));
}

#[test]
fn frames_behind_the_request_may_end_the_connection_as_it_opens() {
    let mut stage = stage();
    let mut client = asking(&mut stage);
    client.write(b"\x88\x82\0\0\0\0\x03\xe8"); // a close with 1000
    stage.settle();
    answer(&mut stage, "accept somebody");
    client.read(usize::MAX);
    assert!(client.closed().is_some());
    assert!(matches!(reason(&mut stage), Reason::Closed(_)));
}

#[test]
fn an_answer_may_be_given_from_any_call() {
    let mut stage = stage();
    let mut first = stage.open();
    let mut second = asking(&mut stage);
    stage.handler().successor = stage.handler().pending.pop();
    first.close(CloseCode::NORMAL);
    stage.exchange(&mut [&mut first, &mut second]);
    assert!(second.is_open());
    let third = stage.open();
    let mut fourth = asking(&mut stage);
    stage.handler().successor = stage.handler().pending.pop();
    // Its end is noticed as the tick is about to be over.
    third.remote.break_writes();
    stage.shard.mailbox().push("to all".to_owned(), 0).unwrap();
    stage.settle();
    fourth.read(usize::MAX);
    assert!(fourth.is_open());
}

/// A client whose request waits.
fn asking(stage: &mut Stage<Application>) -> Client {
    let mut client = Client::new(&stage.network);
    client.write(&client.request("/later"));
    stage.settle();
    client
}

fn answer(stage: &mut Stage<Application>, how: &str) {
    let _ = stage.shard.mailbox().push(how.to_owned(), 0);
    stage.settle();
}
