//! Clients that come by a pipe, without a socket.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::handshake::ClientRequest;
use taut_proto::testing::Client;
use taut_proto::{CloseCode, Message, Time};
use taut_shard::testing::Stage;
use taut_shard::{Drain, Pipe, Reason, pipe};

use crate::application::{Application, reason, stage, stage_with};

#[test]
fn a_client_that_comes_by_a_pipe_is_served_as_any_other() {
    let mut stage = stage();
    let (mut ours, mut client) = open_at(&mut stage, "/peer", 64 << 10);
    assert_eq!(stage.handler().peers, [PEER]);
    for text in ["one", "two"] {
        assert_eq!(say(&mut stage, &mut ours, &mut client, text), [Message::from(text)]);
        assert!(stage.network.is_asleep());
    }
    assert_eq!(stage.network.wakes(), 3, "once when it came in, and once for each message");
    drop(ours);
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Ended));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn pipes_count_among_handshakes_and_connections() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 1);
    let pipes: Vec<Pipe> = (0..3)
        .map(|_| {
            let (ours, theirs) = pipe(1000);
            stage.shard.intake().adopt_pipe(theirs, PEER).unwrap();
            ours
        })
        .collect();
    stage.settle();
    assert_eq!(stage.census().handshakes, 1);
    drop(pipes);
    stage.settle();
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_pipe_that_is_full_is_written_on_when_it_is_read() {
    let mut stage = stage();
    let (mut ours, mut client) = open(&mut stage, 5000);
    let text = "x".repeat(300_000);
    let mailbox = stage.shard.mailbox();
    mailbox.push(text.clone(), 0).unwrap();
    stage.settle();
    assert!(stage.census().waiting > 200_000 && stage.network.is_asleep());
    let mut turns = 0;
    while client.end.events.is_empty() {
        hear(&mut ours, &mut client);
        stage.settle();
        turns += 1;
        assert!(turns < 1000, "it is not written on");
    }
    assert!(turns > 50, "{turns}: it held too much");
    assert_eq!(client.messages(), [Message::from(text)]);
    assert_eq!(stage.census().outboxes, 0);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut stage = stage();
    let (mut ours, mut client) = open(&mut stage, 2000);
    // A pipe's room and what may wait for a reader bound what it can say.
    let mut said = 0;
    for _ in 0..2000 {
        client.end.send("y".repeat(1000));
        said += 1;
        if !flush(&mut stage, &mut ours, &mut client) {
            break;
        }
    }
    assert!((50..200).contains(&said), "{said}");
    let mut heard = 0;
    for _ in 0..10_000 {
        hear(&mut ours, &mut client);
        heard += client.messages().len();
        flush(&mut stage, &mut ours, &mut client);
        if heard == said {
            return;
        }
    }
    panic!("{heard} of {said}");
}

#[test]
fn a_drain_closes_pipes_and_a_shard_that_is_dropped_ends_them() {
    let mut stage = stage();
    let (mut ours, mut client) = open(&mut stage, 5000);
    let (over, deadline) = (Duration::ZERO, Duration::from_secs(5));
    stage.shard.drainer().drain(Drain { close: CloseCode::SERVICE_RESTART.into(), over, deadline });
    stage.settle();
    hear(&mut ours, &mut client);
    flush(&mut stage, &mut ours, &mut client);
    assert_eq!(ours.read(&mut [0; 10]).unwrap(), 0, "its side is shut");
    assert!(!stage.is_drained);
    ours.shutdown();
    stage.settle();
    assert!(stage.is_drained);
    let mut stage = self::stage();
    let (mut ours, _) = open(&mut stage, 5000);
    drop(stage);
    assert_eq!(ours.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(ours.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_request_by_a_pipe_cannot_leave_the_shard() {
    let mut stage = stage();
    let (mut ours, theirs) = pipe(5000);
    stage.shard.intake().adopt_pipe(theirs, PEER).unwrap();
    ours.write_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stage.settle();
    assert_eq!(ours.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
}

/// A connection by a pipe that is open.
fn open(stage: &mut Stage<Application>, capacity: usize) -> (Pipe, Client) {
    open_at(stage, "/", capacity)
}

fn open_at(stage: &mut Stage<Application>, target: &str, capacity: usize) -> (Pipe, Client) {
    let (mut ours, theirs) = pipe(capacity);
    let mut client = Client::new(ClientRequest::new("fake.example", target).unwrap());
    ours.write_all(&client.request()).unwrap();
    stage.shard.intake().adopt_pipe(theirs, PEER).unwrap();
    stage.settle();
    hear(&mut ours, &mut client);
    assert!(client.is_open());
    (ours, client)
}

/// Says something, and gives what came back.
fn say(stage: &mut Stage<Application>, ours: &mut Pipe, client: &mut Client, text: &str) -> Vec<Message<'static>> {
    client.end.send(text.to_owned());
    assert!(flush(stage, ours, client));
    hear(ours, client);
    client.messages()
}

/// Writes what there is room for; whether that was all.
fn flush(stage: &mut Stage<Application>, ours: &mut Pipe, client: &mut Client) -> bool {
    let outbox = &mut client.end.outbox;
    while !outbox.is_empty() {
        match ours.write(outbox.front()) {
            Ok(count) => outbox.consume(count),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                stage.settle();
                match ours.write(outbox.front()) {
                    Ok(count) => outbox.consume(count),
                    Err(_) => return false,
                }
            }
        }
    }
    stage.settle();
    true
}

/// Reads once.
fn hear(ours: &mut Pipe, client: &mut Client) {
    let mut buffer = vec![0; 1 << 20];
    let count = ours.read(&mut buffer).unwrap_or(0);
    client.receive(&buffer[..count], Time::ZERO).unwrap();
}

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), 9);
