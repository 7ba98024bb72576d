//! Sockets that other threads hand in.

use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::{Close, CloseCode};
use taut_shard::testing::{Client, FakeStream, Stage};
use taut_shard::{Drain, Refused};

use crate::application::{Application, stage, stage_with};
use crate::tls_settings;

#[test]
fn a_socket_that_is_handed_in_is_served_with_the_address_that_came_with_it() {
    let mut stage = stage();
    stage.settle();
    let (mut client, stream) = pair(&stage);
    client.write(&client.request("/peer"));
    stage.settle();
    assert!(!client.is_open() && stage.network.is_asleep());
    stage.shard.intake().adopt(stream, peer(7)).unwrap();
    assert_eq!(stage.network.wakes(), 1);
    stage.exchange(&mut [&mut client]);
    assert!(client.is_open());
    client.send("hello");
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), ["hello"]);
    assert_eq!(stage.handler().peers, [peer(7)]);
}

#[test]
fn a_socket_that_is_handed_in_speaks_no_tls_although_the_listeners_do() {
    let (server, _) = tls_settings::settings("fake.example", rustls::DEFAULT_VERSIONS);
    let mut stage = stage_with(|settings| settings.tls = Some(server));
    let (mut client, stream) = pair(&stage);
    stage.shard.intake().adopt(stream, peer(7)).unwrap();
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    assert!(client.is_open());
}

#[test]
fn sockets_handed_in_count_among_the_handshakes_and_wait_while_there_are_as_many_as_may_be() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = 2);
    let intake = stage.shard.intake();
    let mut clients: Vec<Client> = (0..5)
        .map(|n| {
            let (client, stream) = pair(&stage);
            intake.adopt(stream, peer(n)).unwrap();
            client
        })
        .collect();
    stage.settle();
    assert_eq!(stage.census().handshakes, 2);
    for _ in 0..4 {
        for client in &mut clients {
            if !client.is_open() && client.response.is_empty() {
                client.write(&client.request("/"));
                stage.settle();
                client.read(usize::MAX);
            }
        }
    }
    assert_eq!((stage.census().open, stage.census().handshakes), (5, 0));
}

#[test]
fn sockets_handed_in_count_among_the_connections() {
    let mut stage = stage_with(|settings| settings.connections = 1);
    let first = stage.open();
    let (mut client, stream) = pair(&stage);
    stage.shard.intake().adopt(stream, peer(1)).unwrap();
    client.write(&client.request("/"));
    stage.settle();
    assert_eq!(stage.census().sockets, 1);
    first.remote.reset(false);
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
}

#[test]
fn a_socket_handed_in_that_says_nothing_is_let_go_at_its_deadline() {
    let mut stage = stage();
    let (mut client, stream) = pair(&stage);
    stage.shard.intake().adopt(stream, peer(1)).unwrap();
    stage.settle();
    stage.advance(Duration::from_millis(10_100));
    client.read(usize::MAX);
    assert_eq!(client.status(), Some(408));
}

#[test]
fn a_shard_that_has_not_looked_takes_a_bounded_number_and_gives_the_rest_back() {
    let mut stage = stage_with(|settings| settings.pending_handshakes = usize::MAX);
    let intake = stage.shard.intake();
    let hand_in = |stage: &Stage<Application>| {
        let (client, stream) = pair(stage);
        (client, intake.adopt(stream, peer(1)))
    };
    let taken: Vec<Client> = (0..1024)
        .map(|_| {
            let (client, outcome) = hand_in(&stage);
            outcome.unwrap();
            client
        })
        .collect();
    assert!(matches!(hand_in(&stage).1, Err(Refused(FakeStream { .. }))));
    stage.settle();
    assert_eq!(stage.census().handshakes, 1024);
    assert!(hand_in(&stage).1.is_ok(), "there is room again");
    drop(taken);
}

#[test]
fn a_shard_that_drains_or_has_stopped_refuses_sockets() {
    let mut stage = stage();
    let mut open = stage.open();
    let intake = stage.shard.intake();
    let close = Close::from(CloseCode::SERVICE_RESTART);
    stage.shard.drainer().drain(Drain { close, over: Duration::ZERO, deadline: Duration::from_secs(5) });
    stage.settle();
    assert!(!stage.is_drained);
    assert!(intake.adopt(pair(&stage).1, peer(1)).is_err());
    open.read(usize::MAX);
    open.finish();
    stage.settle();
    assert!(stage.is_drained);
    assert!(intake.adopt(pair(&stage).1, peer(1)).is_err());
}

#[test]
fn a_shard_that_is_dropped_refuses_sockets_and_mail() {
    let stage = stage();
    let (intake, mailbox, network) = (stage.shard.intake(), stage.shard.mailbox(), stage.network.clone());
    drop(stage);
    assert!(intake.adopt(network.pair().1, peer(1)).is_err());
    assert!(mailbox.push("too late".to_owned(), 0).is_err());
}

fn pair(stage: &Stage<Application>) -> (Client, FakeStream) {
    let (remote, stream) = stage.network.pair();
    (Client::on(&stage.network, remote), stream)
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 1))
}
