//! Heartbeat and deadlines, by a clock that the tests move.

use std::time::Duration;

use taut_proto::{CloseCode, Heartbeat, Opcode, Timeout};
use taut_shard::Reason;
use taut_shard::testing::Client;

use crate::application::{reason, stage, stage_with};

#[test]
fn a_silent_peer_is_pinged_and_given_up_when_it_does_not_answer() {
    let mut stage = stage();
    let mut client = stage.open();
    stage.sleep(Duration::from_millis(19_900));
    assert_eq!(client.remote.waiting(), 0);
    stage.sleep(Duration::from_millis(200));
    assert_eq!(client.remote.waiting(), 10, "a ping");
    stage.sleep(Duration::from_millis(19_800));
    assert_eq!(stage.census().open, 1);
    stage.sleep(Duration::from_millis(300));
    assert!(matches!(reason(&mut stage), Reason::TimedOut(Timeout::Heartbeat)));
    client.read(usize::MAX);
    assert_eq!(client.frames.opcodes, [Opcode::Ping, Opcode::Close]);
    assert_eq!(client.closed().unwrap().code(), CloseCode::INTERNAL_ERROR);
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_peer_that_answers_pings_lives_for_ever() {
    let mut stage = stage();
    let mut client = stage.open();
    for _ in 0..1000 {
        stage.advance(Duration::from_secs(5));
        client.read(usize::MAX);
        stage.settle();
    }
    assert_eq!(stage.census().open, 1);
    let pings = client.frames.opcodes.len();
    assert!((200..=260).contains(&pings), "{pings} pings in 5000 seconds");
}

// The period became the timeout where that was longer: 25 and 30 seconds were a ping every 30.
#[test]
fn a_silent_peer_that_answers_is_pinged_once_an_interval_whatever_the_timeout() {
    for (interval, timeout) in [(2, 6), (6, 2), (4, 4), (25, 30), (1, 60)] {
        let mut stage = stage_with(|settings| {
            settings.protocol.heartbeat =
                Heartbeat { interval: Duration::from_secs(interval), timeout: Duration::from_secs(timeout) };
        });
        let mut client = stage.open();
        let mut pings = Vec::new();
        for tenth in 0..2000_u64 {
            stage.sleep(Duration::from_millis(100));
            if client.remote.waiting() > 0 {
                pings.push(tenth);
                client.read(usize::MAX);
                stage.settle();
            }
        }
        assert!(client.frames.opcodes.iter().all(|opcode| *opcode == Opcode::Ping));
        // The interval is spread by a tenth, and the wheel turns by tenths of a second.
        let (least, most) = (interval * 9, interval * 11 + 2);
        let periods: Vec<u64> = pings.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(periods.len() >= 5, "{interval}/{timeout}: {pings:?}");
        assert!(periods.iter().all(|period| (least..=most).contains(period)), "{interval}/{timeout}: {periods:?}");
    }
}

#[test]
fn a_busy_peer_is_not_pinged() {
    let mut stage = stage();
    let mut client = stage.open();
    for _ in 0..100 {
        client.send("quiet");
        stage.sleep(Duration::from_secs(15));
    }
    assert_eq!(client.remote.waiting(), 0);
}

#[test]
fn heartbeats_of_those_that_opened_together_are_spread() {
    let mut stage = stage();
    stage.network.draw_from(0);
    let clients: Vec<Client> = (0..200).map(|_| stage.open()).collect();
    let pinged = |clients: &[Client]| clients.iter().filter(|client| client.remote.waiting() > 0).count();
    stage.sleep(Duration::from_millis(17_900));
    assert_eq!(pinged(&clients), 0);
    stage.sleep(Duration::from_millis(2_100));
    assert!((80..120).contains(&pinged(&clients)), "{}", pinged(&clients));
    stage.sleep(Duration::from_millis(2_100));
    assert_eq!(pinged(&clients), 200);
}

#[test]
fn a_deadline_of_the_past_does_not_reach_the_next_in_the_same_place() {
    let mut stage = stage();
    // Its handshake would time out at 10 s.
    let first = Client::new(&stage.network);
    stage.settle();
    stage.advance(Duration::from_secs(9));
    first.remote.reset(true);
    stage.settle();
    let mut second = Client::new(&stage.network);
    stage.settle();
    assert_eq!(stage.census().handshakes, 1);
    stage.advance(Duration::from_secs(5));
    second.read(usize::MAX);
    assert_eq!((second.status(), stage.census().handshakes), (None, 1));
    second.write(&second.request("/"));
    stage.exchange(&mut [&mut second]);
    assert!(second.is_open());
    // Nor does its own handshake's, now that it is open.
    stage.advance(Duration::from_secs(7));
    assert_eq!((second.remote.waiting(), stage.census().open), (0, 1));
}

#[test]
fn a_close_timeout_sooner_than_the_heartbeat_is_kept() {
    let mut stage = stage_with(|settings| settings.protocol.close_timeout = Duration::from_secs(1));
    let mut client = stage.open();
    // The wheel holds its next heartbeat now.
    stage.sleep(Duration::from_secs(15));
    client.send("close");
    stage.settle();
    stage.sleep(Duration::from_millis(1_200));
    assert!(matches!(reason(&mut stage), Reason::TimedOut(Timeout::Close)));
}

#[test]
fn timeouts_longer_than_the_wheel_are_kept() {
    let mut stage = stage_with(|settings| settings.handshake_timeout = Duration::from_secs(200));
    let mut client = Client::new(&stage.network);
    stage.sleep(Duration::from_secs(199));
    client.read(usize::MAX);
    assert_eq!(client.status(), None);
    stage.sleep(Duration::from_millis(1_200));
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(408));
}

#[test]
fn a_long_sleep_pings_everybody_and_loses_nobody() {
    let mut stage = stage();
    let mut clients: Vec<Client> = (0..50).map(|_| stage.open()).collect();
    // The machine was suspended for a day.
    stage.advance(Duration::from_secs(86_400));
    for client in &mut clients {
        client.read(usize::MAX);
        assert_eq!(client.frames.opcodes, [Opcode::Ping]);
    }
    stage.settle();
    stage.advance(Duration::from_secs(15));
    assert_eq!(stage.census().open, 50);
}
