//! TLS in place, against rustls as the client.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use taut_proto::{CloseCode, Message};
use taut_shard::testing::{Client, Stage};
use taut_shard::{Reason, Settings};

use crate::application::{Application, reason, stage_with};
use crate::tls_settings;

struct Keys {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn keys(version: &'static rustls::SupportedProtocolVersion) -> Keys {
    let (server, client) = tls_settings::settings("fake.example", &[version]);
    Keys { server, client }
}

fn secure(version: &'static rustls::SupportedProtocolVersion) -> (Stage<Application>, Client) {
    let keys = keys(version);
    let stage = stage_with(|settings| settings.tls = Some(keys.server));
    let client = client(&stage, &keys.client);
    (stage, client)
}

fn client(stage: &Stage<Application>, config: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from("fake.example").unwrap();
    Client::new(&stage.network).with_tls(ClientConnection::new(Arc::clone(config), name).unwrap())
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn messages_go_by_tls_in_either_version() {
    for version in VERSIONS {
        let (mut stage, mut client) = secure(version);
        client.write(&client.request("/"));
        stage.exchange(&mut [&mut client]);
        assert!(client.is_open());
        for size in [0, 1, 1000, 16_384, 16_385, 100_000, 900_000] {
            client.send("x".repeat(size));
            stage.exchange(&mut [&mut client]);
            assert_eq!(client.messages(), [Message::from("x".repeat(size))], "{size} bytes");
        }
    }
}

#[test]
fn reads_and_writes_of_one_byte_give_the_same_by_tls() {
    for version in VERSIONS {
        let (mut stage, mut client) = secure(version);
        client.remote.set_read_limit(1);
        client.remote.set_write_limit(1);
        client.remote.set_capacity(100);
        client.write(&client.request("/"));
        stage.exchange(&mut [&mut client]);
        for n in 0..10 {
            client.send(format!("{n:0>500}"));
        }
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts().len(), 10);
    }
}

#[test]
fn a_record_that_spans_reads_of_any_size_is_whole() {
    let keys = keys(&rustls::version::TLS13);
    for read_buffer in [1, 5, 100, 16_406, 20_000] {
        let mut stage = stage_with(|settings| {
            settings.tls = Some(Arc::clone(&keys.server));
            settings.read_buffer = read_buffer;
        });
        let mut client = client(&stage, &keys.client);
        client.write(&client.request("/"));
        stage.exchange(&mut [&mut client]);
        let text = "y".repeat(50_000);
        client.send(text.as_str());
        stage.exchange(&mut [&mut client]);
        assert_eq!(client.texts(), [text], "reads of {read_buffer}");
    }
}

#[test]
fn replies_to_all_messages_of_a_read_leave_in_one_write_by_tls() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    let before = client.remote.writes();
    for n in 0..50 {
        client.end.send(n.to_string());
    }
    client.flush();
    stage.settle();
    assert_eq!(client.remote.writes() - before, 1);
}

#[test]
fn a_full_socket_by_tls_is_written_when_there_is_room() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    client.remote.set_capacity(1000);
    let text = "z".repeat(400_000);
    client.send(text.as_str());
    client.send("after it");
    stage.settle();
    assert_eq!(client.remote.waiting(), 1000);
    stage.exchange(&mut [&mut client]);
    assert_eq!(client.texts(), [text, "after it".to_owned()]);
}

#[test]
fn an_end_by_tls_alone_is_an_end() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    client.send("last words");
    client.tls().unwrap().send_close_notify();
    client.write(b""); // flushes it; TCP stays open
    stage.settle();
    client.read(usize::MAX);
    assert_eq!(client.texts(), ["last words"]);
    assert!(matches!(reason(&mut stage), Reason::Ended));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_close_by_tls_ends_with_a_close_notify() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    client.close(CloseCode::NORMAL);
    stage.exchange(&mut [&mut client]);
    assert!(client.closed().is_some() && client.remote.is_shut());
    assert!(client.tls().unwrap().process_new_packets().unwrap().peer_has_closed());
    client.finish();
    stage.settle();
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_close_notify_that_finds_no_room_is_written_before_the_socket_is_shut() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    // Room for the close frame's record and a part of the next.
    client.remote.set_capacity(4 + 22 + 5);
    client.close(CloseCode::NORMAL);
    stage.exchange(&mut [&mut client]);
    assert!(client.closed().is_some() && client.remote.is_shut());
    assert!(client.tls().unwrap().process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn what_is_no_tls_is_answered_with_an_alert_and_let_go() {
    let (mut stage, client) = secure(&rustls::version::TLS13);
    client.remote.write(b"GET / HTTP/1.1\r\nHost: fake.example\r\n\r\n");
    stage.settle();
    let answer = client.remote.read(usize::MAX);
    assert_eq!(answer.first(), Some(&21), "an alert record");
    assert!(client.remote.is_gone());
    assert_eq!((stage.census().sockets, stage.census().handshakes), (0, 0));
}

#[test]
fn a_record_that_was_tampered_with_ends_the_connection() {
    let (mut stage, mut client) = secure(&rustls::version::TLS13);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    client.remote.write(b"\x17\x03\x03\x00\x20................................");
    stage.settle();
    assert!(matches!(reason(&mut stage), Reason::Failed(_)));
    assert_eq!(stage.census().sockets, 0);
}

#[test]
fn a_peer_that_says_nothing_by_tls_is_let_go_at_its_deadline() {
    let (mut stage, client) = secure(&rustls::version::TLS13);
    let timeouts = Settings::default();
    stage.settle();
    stage.advance(timeouts.handshake_timeout + timeouts.protocol.close_timeout);
    stage.advance(timeouts.protocol.close_timeout);
    assert!(client.remote.is_gone());
    assert_eq!(stage.census().sockets, 0);
}
