//! Coming in (RFC 6455 §4.2).

use std::time::Duration;

use taut_proto::deflate;
use taut_shard::testing::Client;

use crate::application::{stage, stage_with};

#[test]
fn a_handshake_may_come_a_byte_at_a_time() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    for byte in client.request("/") {
        assert_eq!(client.status(), None);
        client.write(&[byte]);
        stage.settle();
        client.read(usize::MAX);
    }
    assert!(client.is_open());
    client.send("hello");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["hello"]);
}

#[test]
fn reads_of_one_byte_give_the_same() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.remote.set_read_limit(1);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    for n in 0..20 {
        client.send(format!("message {n}"));
    }
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), (0..20).map(|n| format!("message {n}")).collect::<Vec<_>>());
}

#[test]
fn the_first_frames_may_come_with_the_handshake() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    let mut bytes = client.request("/");
    // "one" and "two", masked with zeros.
    bytes.extend_from_slice(b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two");
    client.write(&bytes);
    stage.settle();
    assert_eq!(client.remote.writes(), 1, "the response and both replies leave together");
    client.read(usize::MAX);
    assert_eq!(client.texts(), ["one", "two"]);
}

#[test]
fn the_first_frame_may_come_in_part_with_the_handshake() {
    let frame = b"\x81\x85\0\0\0\0hello";
    for split in 0..frame.len() {
        let mut stage = stage();
        let mut client = Client::new(&stage.network);
        let mut bytes = client.request("/");
        bytes.extend_from_slice(&frame[..split]);
        client.write(&bytes);
        stage.settle();
        client.write(&frame[split..]);
        stage.settle();
        client.read(usize::MAX);
        assert_eq!(client.texts(), ["hello"], "split at {split}");
    }
}

#[test]
fn a_greeting_leaves_with_the_response() {
    let mut stage = stage();
    stage.handler().greeting = Some("welcome");
    let mut client = stage.open();
    assert_eq!(client.remote.writes(), 1);
    assert_eq!(client.texts(), ["welcome"]);
}

#[test]
fn a_connection_carries_what_its_request_gave_it() {
    let mut stage = stage();
    let mut client = stage.open_at("/rooms/7");
    client.send("who");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["/rooms/7"]);
}

#[test]
fn a_refusal_is_written_whole_then_the_socket_is_shut_and_read_to_its_end() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.remote.set_capacity(10);
    client.write(&client.request("/secret"));
    for _ in 0..1000 {
        stage.settle();
        client.read(usize::MAX);
    }
    assert!(client.remote.is_at_end());
    assert_eq!(client.status(), Some(401));
    assert!(client.response.ends_with(b"who are you?\n") || client.response.ends_with(b"who are you?"));
    assert!(!client.remote.is_gone(), "it waits for the client's end");
    client.finish();
    stage.settle();
    assert!(client.remote.is_gone());
    assert_eq!(stage.shard.handler().counts(), (0, 0), "it was never open");
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn what_is_no_http_is_refused() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n");
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(400));
    assert!(client.remote.is_shut());
}

#[test]
fn a_head_without_end_is_refused_at_its_limit() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.write(b"GET / HTTP/1.1\r\n");
    let mut bytes = 16;
    while client.status().is_none() {
        assert!(bytes < 64 << 10, "nobody stops it");
        bytes += 1000;
        client.write(format!("X-Filler: {}\r\n", "x".repeat(988)).as_bytes());
        stage.settle();
        client.read(usize::MAX);
    }
    assert_eq!(client.status(), Some(431));
    assert!(bytes <= 18 << 10, "{bytes}");
}

#[test]
fn a_peer_that_ends_or_resets_within_its_handshake_leaves_nothing() {
    for end in 0..3 {
        let mut stage = stage();
        let client = Client::new(&stage.network);
        client.remote.write(b"GET / HT");
        stage.settle();
        assert_eq!(stage.census().handshakes, 1);
        match end {
            0 => client.remote.finish(),
            1 => client.remote.reset(false),
            _ => client.remote.reset(true),
        }
        stage.settle();
        assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
        assert!(client.remote.is_gone());
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_told_408_and_let_go() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.remote.write(b"GET / HTTP/1.1\r\n");
    stage.settle();
    stage.advance(Duration::from_millis(9_999));
    client.read(usize::MAX);
    assert_eq!(client.status(), None);
    stage.advance(Duration::from_millis(101));
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(408));
    assert!(client.remote.is_shut());
    // It never ends its side.
    stage.advance(Duration::from_millis(5_100));
    assert!(client.remote.is_gone());
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_byte_now_and_then_does_not_move_the_handshakes_deadline() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    for byte in &client.request("/")[..11] {
        client.remote.write(&[*byte]);
        stage.advance(Duration::from_secs(1));
    }
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(408));
}

#[test]
fn handshakes_in_progress_are_bounded_and_the_rest_wait_in_the_kernel() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 2);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::new(&stage.network)).collect();
    stage.settle();
    assert_eq!((stage.census().handshakes, stage.network.queued()), (2, 3));
    // One opens, one goes: two more come, without a further sign from the listener.
    let request = clients[0].request("/");
    clients[0].write(&request);
    clients[1].remote.finish();
    stage.settle();
    assert_eq!((stage.census().open, stage.census().handshakes, stage.network.queued()), (1, 2, 1));
    for client in &mut clients[2..] {
        client.write(&client.request("/"));
    }
    stage.settle();
    assert_eq!((stage.census().open, stage.census().handshakes, stage.network.queued()), (4, 0, 0));
}

#[test]
fn handshakes_that_take_longer_than_a_second_make_way_for_others_and_only_then() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 3);
    let mut slow: Vec<Client> = (0..2).map(|_| Client::new(&stage.network)).collect();
    slow[1].remote.write(b"GET / HTTP/1.1\r\nX: ");
    stage.sleep(Duration::from_millis(5300));
    assert_eq!(stage.census().handshakes, 2, "there is room: they may take their time");
    let young = Client::new(&stage.network);
    let mut newcomer = Client::new(&stage.network);
    newcomer.write(&newcomer.request("/"));
    stage.settle();
    assert_eq!((stage.census().handshakes, stage.network.queued()), (3, 1));
    stage.sleep(Duration::from_millis(900));
    newcomer.read(usize::MAX);
    assert!(newcomer.is_open());
    for client in &mut slow {
        client.read(usize::MAX);
        assert_eq!(client.status(), Some(503));
        assert!(client.remote.is_gone(), "nothing is kept of it");
    }
    assert_eq!(stage.census().handshakes, 1, "who has just come stays");
    drop(young);
}

#[test]
fn without_descriptors_slow_handshakes_make_way() {
    const EMFILE: i32 = 24;
    let mut stage = stage();
    let mut slow = Client::new(&stage.network);
    stage.settle();
    stage.network.fail_accept(Some(EMFILE));
    let mut newcomer = Client::new(&stage.network);
    newcomer.write(&newcomer.request("/"));
    stage.sleep(Duration::from_millis(1200));
    slow.read(usize::MAX);
    assert_eq!(slow.status(), Some(503));
    stage.network.fail_accept(None);
    stage.sleep(Duration::from_millis(200));
    newcomer.read(usize::MAX);
    assert!(newcomer.is_open());
}

#[test]
fn connections_are_bounded_and_a_place_that_is_free_is_taken() {
    let mut stage = stage_with(|settings| settings.connections = 2);
    let first = stage.open();
    let _second = stage.open();
    let mut third = Client::new(&stage.network);
    third.write(&third.request("/"));
    stage.settle();
    assert_eq!((stage.census().sockets, stage.network.queued()), (2, 1));
    first.remote.reset(false);
    stage.settle();
    third.read(usize::MAX);
    assert!(third.is_open());
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_by_itself() {
    const EMFILE: i32 = 24;
    let mut stage = stage();
    stage.network.fail_accept(Some(EMFILE));
    let clients: Vec<Client> = (0..3).map(|_| Client::new(&stage.network)).collect();
    // It rests, rather than to ask again and again.
    stage.settle();
    assert!(stage.network.timeout().is_some_and(|timeout| timeout <= Duration::from_millis(200)));
    stage.sleep(Duration::from_millis(1500));
    assert_eq!(stage.network.queued(), 3);
    stage.network.fail_accept(None);
    stage.sleep(Duration::from_millis(200));
    assert_eq!((stage.network.queued(), stage.census().handshakes), (0, 3));
    drop(clients);
}

#[test]
fn who_waits_in_vain_for_a_descriptor_is_told_to_come_back() {
    const EMFILE: i32 = 24;
    let mut stage = stage();
    stage.network.fail_accept(Some(EMFILE));
    let mut clients: Vec<Client> = (0..300).map(|_| Client::new(&stage.network)).collect();
    for client in &mut clients {
        client.write(&client.request("/"));
    }
    stage.sleep(Duration::from_millis(2500));
    // Who comes while it lasts does not wait as long.
    let mut late = Client::new(&stage.network);
    stage.sleep(Duration::from_millis(200));
    for client in clients.iter_mut().chain([&mut late]) {
        client.read(usize::MAX);
        let response = String::from_utf8(client.response.clone()).expect("ASCII");
        assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("\r\nRetry-After: 5\r\n"), "{response}");
        assert!(client.remote.is_gone());
    }
    assert_eq!(stage.shard.stats().refused, 301);
    stage.network.fail_accept(None);
    stage.sleep(Duration::from_millis(200));
    let _served = stage.open();
}

#[test]
fn a_descriptor_for_one_does_not_make_the_others_wait_anew() {
    const EMFILE: i32 = 24;
    let mut stage = stage();
    stage.network.fail_accept(Some(EMFILE));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&stage.network)).collect();
    for client in &mut clients {
        client.write(&client.request("/"));
    }
    stage.sleep(Duration::from_millis(1500));
    stage.network.accept_only(1);
    stage.sleep(Duration::from_secs(1));
    let statuses = clients.iter_mut().map(|client| {
        client.read(usize::MAX);
        client.status()
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [Some(101), Some(503), Some(503)]);
}

#[test]
fn a_peer_that_is_gone_before_it_is_accepted_does_not_hold_up_the_next() {
    let mut stage = stage();
    stage.network.connect_and_abort();
    stage.network.connect_and_abort();
    let _client = stage.open();
    assert_eq!(stage.census().open, 1);
}

#[test]
fn more_sockets_than_one_tick_accepts_all_come_in() {
    let mut stage = stage();
    let clients: Vec<Client> = (0..1000).map(|_| Client::new(&stage.network)).collect();
    stage.settle();
    assert_eq!((stage.census().handshakes, stage.network.queued()), (1000, 0));
    drop(clients);
}

#[test]
fn a_socket_that_cannot_leave_is_closed_and_forgotten() {
    let mut stage = stage();
    let mut client = Client::new(&stage.network);
    client.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.settle();
    assert!(client.remote.is_gone());
    assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
}

#[test]
fn deflate_is_agreed_on_where_it_is_set_and_offered() {
    for (set, offered) in [(false, true), (true, false), (true, true)] {
        let mut stage = stage_with(|settings| settings.deflate = set.then(deflate::Config::standard));
        let mut client = Client::new(&stage.network);
        if offered {
            client = client.with_deflate(deflate::Config::standard());
        }
        client.write(&client.request("/"));
        stage.exchange(&mut [&mut client]);
        let response = String::from_utf8(client.response.clone()).unwrap();
        assert_eq!(response.contains("permessage-deflate"), set && offered, "{response}");
        let text = "the same again ".repeat(100);
        client.send(text.as_str());
        stage.settle();
        assert_eq!(client.remote.waiting() < 200, set && offered, "{}", client.remote.waiting());
        client.read(usize::MAX);
        assert_eq!(client.texts(), [text]);
    }
}
