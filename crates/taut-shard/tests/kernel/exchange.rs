//! Requests that are answered on the shard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use taut_proto::CloseCode;
use taut_shard::testing::{Client, FakeStream, Remote};
use taut_shard::{Drain, Handover, Settings};

use crate::application::{TestStage, stage, stage_with};

#[test]
fn a_request_is_answered_and_its_socket_kept() {
    let mut stage = stage();
    let mut member = stage.open();
    let backend = stage.network.connect();
    for content in ["one", "", "three"] {
        backend.write(&request(content));
        stage.settle();
        assert_eq!(text(&backend), response(content));
        assert_eq!((stage.census().handshakes, stage.census().kept, stage.census().open), (0, 1, 1));
        assert!(stage.network.is_asleep());
    }
    stage.exchange(&mut [&mut member]);
    assert_eq!(member.texts(), ["one", "", "three"]);
    backend.finish();
    stage.settle();
    assert!(backend.is_gone());
    assert_eq!(stage.census().sockets, 1);
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let mut stage = stage();
    let backend = stage.network.connect();
    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    backend.write(&numbers.iter().flat_map(|number| request(number)).collect::<Vec<u8>>());
    stage.settle();
    assert_eq!(text(&backend), numbers.iter().map(|number| response(number)).collect::<String>());
}

proptest! {
    #[test]
    fn requests_may_be_split_anywhere(cuts in prop::collection::vec(1..60_usize, 1..30)) {
        let mut stage = stage();
        let backend = stage.network.connect();
        let contents = ["one", "", &"x".repeat(100), "four"];
        let bytes: Vec<u8> = contents.iter().flat_map(|content| request(content)).collect();
        let mut rest = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            backend.write(now);
            stage.settle();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(text(&backend), contents.map(response).concat());
        prop_assert_eq!(stage.census().kept, 1);
    }
}

#[test]
fn a_kept_socket_may_become_a_connection() {
    let mut stage = stage();
    let remote = stage.network.connect();
    remote.write(&request("one"));
    stage.settle();
    assert_eq!(text(&remote), response("one"));
    let mut client = Client::on(&stage.network, remote);
    client.write(&client.request("/"));
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
    client.send("two");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["two"]);
    assert_eq!((stage.census().handshakes, stage.census().kept, stage.census().open), (0, 0, 1));
}

#[test]
fn content_that_does_not_come_at_once_is_waited_for_elsewhere() {
    for kept in [false, true] {
        let mut stage = stage();
        let backend = stage.network.connect();
        if kept {
            backend.write(&request("one"));
            stage.advance(Duration::from_secs(30));
            text(&backend);
        }
        let whole = request("two");
        backend.write(&whole[..whole.len() - 1]);
        stage.sleep(Duration::from_millis(900));
        assert_eq!((text(&backend).as_str(), stage.census().sockets), ("", 1), "kept: {kept}");
        // A socket that was kept may be looked at a little later.
        stage.sleep(Duration::from_millis(if kept { 9300 } else { 300 }));
        assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0), "kept: {kept}");
    }
}

#[test]
fn a_kept_socket_that_is_silent_is_closed_without_a_word() {
    let mut stage = stage_with(|settings| settings.keep_alive = Duration::from_secs(20));
    let backend = stage.network.connect();
    for _ in 0..3 {
        backend.write(&request("one"));
        stage.sleep(Duration::from_secs(19));
        assert_eq!(text(&backend), response("one"));
        assert!(!backend.is_at_end());
    }
    stage.sleep(Duration::from_secs(2));
    assert_eq!(text(&backend), "");
    assert!(backend.is_at_end());
}

#[test]
fn kept_sockets_are_no_handshakes_in_progress() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 1);
    let backends: Vec<Remote> = (0..5).map(|_| stage.network.connect()).collect();
    for backend in &backends {
        backend.write(&request("one"));
        stage.settle();
        assert_eq!(text(backend), response("one"));
    }
    assert_eq!((stage.census().kept, stage.census().handshakes), (5, 0));
    drop(stage.open());
}

#[test]
fn who_does_not_read_its_answers_is_not_read_from() {
    let mut stage = stage();
    let backend = stage.network.connect();
    backend.set_capacity(100);
    let content = "x".repeat(1000);
    for _ in 0..100 {
        backend.write(&request(&content));
        stage.settle();
    }
    // One answer that waits, and what was read with its request.
    assert!(backend.unread() > 50_000, "{}", backend.unread());
    let mut read = String::new();
    while read.len() < response(&content).len() * 100 {
        let more = text(&backend);
        assert!(!more.is_empty(), "after {} bytes", read.len());
        read += &more;
        stage.settle();
    }
    assert_eq!(read, response(&content).repeat(100));
}

#[test]
fn an_answer_that_has_begun_is_finished_when_the_socket_is_kept_no_longer() {
    let ends: [fn(&mut TestStage); 2] = [
        |stage| stage.sleep(Duration::from_secs(76)),
        |stage| {
            let (over, deadline) = (Duration::ZERO, Duration::from_secs(5));
            stage.shard.drainer().drain(Drain { close: CloseCode::GOING_AWAY.into(), over, deadline });
        },
    ];
    for end in ends {
        let mut stage = stage();
        let backend = stage.network.connect();
        backend.set_capacity(10);
        backend.write(&request("hello"));
        stage.settle();
        end(&mut stage);
        let mut read = String::new();
        for _ in 0..20 {
            read += &text(&backend);
            stage.settle();
        }
        assert_eq!(read, response("hello"));
        assert!(backend.is_at_end());
    }
}

#[test]
fn a_drain_ends_kept_sockets_at_once() {
    let mut stage = stage();
    let (silent, speaking) = (stage.network.connect(), stage.network.connect());
    for backend in [&silent, &speaking] {
        backend.write(&request("one"));
        stage.settle();
        text(backend);
    }
    speaking.write(&request("two")[..10]);
    stage.settle();
    let drain = Drain { close: CloseCode::GOING_AWAY.into(), over: Duration::ZERO, deadline: Duration::from_secs(5) };
    stage.shard.drainer().drain(drain);
    stage.settle();
    assert!(silent.is_gone());
    assert!(text(&speaking).starts_with("HTTP/1.1 503 "));
    speaking.finish();
    stage.settle();
    assert!(stage.is_drained);
}

#[test]
fn content_is_held_beside_a_head_as_large_as_heads_may_be() {
    let mut stage = stage();
    let backend = stage.network.connect();
    let content = "y".repeat(100_000);
    let line = |filler: usize| {
        let filler = "f".repeat(filler);
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nX: {filler}\r\nContent-Length: {}\r\n\r\n", content.len())
    };
    let head = line(Settings::default().head.bytes - line(0).len());
    backend.write(head.as_bytes());
    stage.settle();
    backend.write(content.as_bytes());
    stage.settle();
    assert_eq!(text(&backend), response(&content));
}

#[test]
fn an_answer_may_be_the_last() {
    let mut stage = stage();
    let backend = stage.network.connect();
    backend.set_capacity(10);
    let last = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    backend.write(&[request("one"), last.into(), request("never")].concat());
    let mut read = String::new();
    for _ in 0..20 {
        stage.settle();
        read += &text(&backend);
    }
    assert_eq!(read, response("one") + &response("hello"));
    assert!(backend.is_at_end() && !backend.is_gone(), "its end is waited for");
    backend.finish();
    stage.settle();
    assert_eq!((stage.census().sockets, stage.census().handshakes, stage.census().kept), (0, 0, 0));
}

// RFC 9112 §2.2: an empty line before a request line is skipped.
#[test]
fn line_ends_behind_content_are_no_request() {
    let mut stage = stage();
    let backend = stage.network.connect();
    backend.write(b"\r\n");
    backend.write(&[request("one"), b"\r\n\r\n".to_vec()].concat());
    stage.settle();
    backend.write(b"\r\n");
    stage.settle();
    assert_eq!(text(&backend), response("one"));
    stage.sleep(Duration::from_secs(20));
    assert!(!backend.is_at_end(), "it was taken for the beginning of a request");
    backend.write(&[b"\r\n".to_vec(), request("two")].concat());
    stage.settle();
    assert_eq!(text(&backend), response("two"));
}

#[test]
fn line_ends_that_come_in_halves_are_no_request_either() {
    let mut stage = stage();
    let backend = stage.network.connect();
    backend.write(&request("one"));
    stage.settle();
    assert_eq!(text(&backend), response("one"));
    for half in [b"\r", b"\n"].repeat(6) {
        backend.write(half);
        stage.sleep(Duration::from_secs(5));
    }
    stage.sleep(Duration::from_secs(14));
    assert_eq!((text(&backend).as_str(), backend.is_at_end()), ("", false));
    backend.write(&request("two"));
    stage.settle();
    assert_eq!(text(&backend), response("two"));
}

#[test]
fn an_upgrade_on_a_kept_connection_has_as_long_for_its_decision_as_on_a_new_one() {
    let mut stage = stage();
    let remote = stage.network.connect();
    remote.write(&request("one"));
    stage.settle();
    text(&remote);
    stage.sleep(Duration::from_secs(74));
    let mut client = Client::on(&stage.network, remote);
    client.write(&client.request("/later"));
    stage.sleep(Duration::from_secs(9));
    assert_eq!(client.remote.waiting(), 0, "it was refused when its time to be idle was over");
    stage.shard.mailbox().push("accept somebody".to_owned(), 0).unwrap();
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
}

#[test]
fn who_has_asked_and_ended_its_side_is_answered_all_of_it() {
    // As much as the socket takes at once, and less than one answer.
    for capacity in [1 << 20, 10] {
        let mut stage = stage();
        let backend = stage.network.connect();
        backend.set_capacity(capacity);
        let numbers: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        backend.write(&numbers.iter().flat_map(|number| request(number)).collect::<Vec<u8>>());
        backend.finish();
        let mut read = String::new();
        for _ in 0..1000 {
            stage.settle();
            read += &text(&backend);
        }
        assert_eq!(read, numbers.iter().map(|number| response(number)).collect::<String>(), "{capacity}");
        assert!(backend.is_gone());
        assert_eq!((stage.census().sockets, stage.census().kept), (0, 0));
    }
}

#[test]
fn one_that_reads_nothing_and_resets_is_let_go() {
    let mut stage = stage();
    let backend = stage.network.connect();
    backend.set_capacity(10);
    backend.write(&request("hello"));
    stage.settle();
    backend.reset(true);
    stage.settle();
    assert_eq!((stage.census().sockets, stage.census().kept), (0, 0));
}

// RFC 9110 §7.8: a connection that has served requests may become a WebSocket, whoever has answered them.
#[test]
fn a_connection_that_was_answered_elsewhere_comes_back_as_one_that_is_kept() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 1);
    // Somebody takes the only place of a handshake.
    let slow = stage.network.connect();
    slow.write(b"GET");
    stage.settle();
    let (remote, stream) = stage.network.pair();
    stage.shard.intake().give_back(handover(stream, b"")).unwrap();
    stage.settle();
    assert_eq!((stage.census().handshakes, stage.census().kept, stage.census().sockets), (1, 1, 2));
    assert!(stage.network.is_asleep());
    remote.write(&request("one"));
    stage.settle();
    assert_eq!(text(&remote), response("one"));
    let mut client = Client::on(&stage.network, remote);
    client.write(&client.request("/peer"));
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
    assert_eq!(stage.handler().peers.last(), Some(&PEER));
    client.send("two");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["two"]);
    assert_eq!((stage.census().handshakes, stage.census().kept, stage.census().open), (1, 0, 1));
}

#[test]
fn what_was_read_behind_a_request_comes_back_with_its_connection() {
    let behind = [b"\r\n".to_vec(), request("one"), request("two")].concat();
    for cut in 0..=behind.len() {
        let mut stage = stage();
        let (remote, stream) = stage.network.pair();
        let (read, rest) = behind.split_at(cut);
        stage.shard.intake().give_back(handover(stream, read)).unwrap();
        stage.settle();
        remote.write(rest);
        remote.finish();
        stage.settle();
        assert_eq!(text(&remote), response("one") + &response("two"), "{cut}");
        assert_eq!(stage.census().sockets, 0);
    }
}

#[test]
fn a_connection_that_is_back_is_closed_when_it_is_silent_for_too_long_or_the_shard_drains() {
    let mut stage = stage();
    let (remote, stream) = stage.network.pair();
    stage.shard.intake().give_back(handover(stream, b"")).unwrap();
    stage.sleep(Duration::from_secs(74));
    assert!(!remote.is_at_end());
    stage.sleep(Duration::from_secs(2));
    assert!(remote.is_at_end());
    let (remote, stream) = stage.network.pair();
    stage.shard.intake().give_back(handover(stream, b"")).unwrap();
    stage.settle();
    let (over, deadline) = (Duration::ZERO, Duration::from_secs(5));
    stage.shard.drainer().drain(Drain { close: CloseCode::GOING_AWAY.into(), over, deadline });
    stage.settle();
    assert!(remote.is_gone());
    assert!(stage.shard.intake().give_back(handover(stage.network.pair().1, b"")).is_err());
}

#[test]
fn where_more_are_kept_than_may_be_those_silent_for_longest_are_closed() {
    let mut stage = stage_with(|settings| settings.kept_connections = 32);
    let backends: Vec<Remote> = (0..100)
        .map(|number| {
            let backend = if number % 2 == 0 {
                let backend = stage.network.connect();
                backend.write(&request("one"));
                backend
            } else {
                let (backend, stream) = stage.network.pair();
                stage.shard.intake().give_back(handover(stream, b"")).unwrap();
                backend
            };
            stage.advance(Duration::from_millis(10));
            text(&backend);
            assert!(stage.census().kept <= 32);
            backend
        })
        .collect();
    let open: Vec<bool> = backends.iter().map(|backend| !backend.is_at_end()).collect();
    let first = open.iter().position(|is_open| *is_open).unwrap();
    assert!((68..=71).contains(&first) && open[first..].iter().all(|is_open| *is_open), "{open:?}");
    // One that has asked meanwhile was not silent, and is not in the middle of a request while others are silent.
    let (oldest, next) = (&backends[first], &backends[first + 1]);
    oldest.write(&request("two"));
    next.write(&request("three")[..20]);
    stage.settle();
    assert_eq!(text(oldest), response("two"));
    for _ in 0..20 {
        let backend = stage.network.connect();
        backend.write(&request("one"));
        stage.advance(Duration::from_millis(10));
    }
    assert!(!oldest.is_at_end() && !next.is_at_end());
    next.write(&request("three")[20..]);
    stage.settle();
    assert_eq!(text(next), response("three"));
}

#[test]
fn connections_that_are_only_kept_make_room_for_new_ones() {
    let mut stage = stage_with(|settings| settings.connections = 4);
    let backends: Vec<Remote> = (0..4)
        .map(|_| {
            let backend = stage.network.connect();
            backend.write(&request("one"));
            stage.advance(Duration::from_millis(10));
            text(&backend);
            backend
        })
        .collect();
    let member = stage.open();
    assert!(member.is_open());
    assert_eq!(backends.iter().map(Remote::is_at_end).collect::<Vec<_>>(), [true, false, false, false]);
    let (_remote, stream) = stage.network.pair();
    stage.shard.intake().give_back(handover(stream, b"")).unwrap();
    stage.settle();
    assert_eq!((stage.census().sockets, stage.census().kept), (4, 3));
    assert!(backends[1].is_at_end());
}

#[test]
fn without_descriptors_connections_that_are_silent_for_a_second_make_way() {
    let mut stage = stage();
    let (silent, busy) = (stage.network.connect(), stage.network.connect());
    for backend in [&silent, &busy] {
        backend.write(&request("one"));
        stage.settle();
        text(backend);
    }
    stage.sleep(Duration::from_millis(900));
    busy.write(&request("two"));
    stage.sleep(Duration::from_millis(200));
    text(&busy);
    stage.network.fail_accept(Some(24)); // EMFILE
    let _newcomer = stage.network.connect();
    stage.settle();
    assert_eq!((silent.is_gone(), busy.is_gone()), (true, false));
}

fn handover(stream: FakeStream, bytes: &[u8]) -> Handover<FakeStream> {
    Handover { stream, tls: None, bytes: bytes.to_vec(), peer: PEER }
}

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 7);

fn request(content: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}", content.len()).into_bytes()
}

fn response(content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{content}", content.len())
}

/// What has come.
fn text(remote: &Remote) -> String {
    String::from_utf8(remote.read(usize::MAX)).unwrap()
}
