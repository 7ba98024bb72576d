//! Proxies that say for whom they speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use taut_proto::{Close, CloseCode};
use taut_shard::testing::{Client, Stage};
use taut_shard::{Drain, Network, ProxyProtocol, Settings};

use crate::application::{Application, stage_with};
use crate::tls_settings;

#[test]
fn a_header_replaces_the_proxys_address_by_the_clients() {
    for header in headers() {
        let mut stage = trusting("127.0.0.0/8");
        let mut client = Client::new(&stage.network);
        let request = client.request("/");
        client.write(&[&header[..], &request].concat());
        stage.settle();
        client.read(usize::MAX);
        assert!(client.is_open());
        assert_eq!(stage.handler().peers, [CLIENT.parse().unwrap()]);
    }
}

#[test]
fn header_head_and_frames_may_be_split_anywhere() {
    for header in headers() {
        let request = Client::new(&trusting("127.0.0.1").network).request("/");
        let bytes = [&header[..], &request, b"\x81\x83\0\0\0\0one"].concat();
        for split in 1..bytes.len() {
            let mut stage = trusting("127.0.0.1");
            let mut client = Client::new(&stage.network);
            client.write(&bytes[..split]);
            stage.settle();
            client.write(&bytes[split..]);
            stage.settle();
            client.read(usize::MAX);
            assert_eq!(client.texts(), ["one"], "split at {split}");
            assert_eq!(stage.handler().peers, [CLIENT.parse().unwrap()]);
        }
        let mut stage = trusting("127.0.0.1");
        let mut client = Client::new(&stage.network);
        client.remote.set_read_limit(1);
        client.write(&bytes);
        stage.settle();
        client.read(usize::MAX);
        assert_eq!(client.texts(), ["one"]);
    }
}

#[test]
fn the_header_comes_before_tls() {
    let (server, config) = tls_settings::settings("fake.example", rustls::DEFAULT_VERSIONS);
    for header in headers() {
        for read_limit in [1, 7, usize::MAX] {
            let mut stage = stage_with(|settings| {
                settings.proxy_protocol = from("127.0.0.1");
                settings.tls = Some(Arc::clone(&server));
            });
            let mut client = Client::new(&stage.network);
            client.remote.set_read_limit(read_limit);
            client.write(&header);
            let name = ServerName::try_from("fake.example").unwrap();
            client = client.with_tls(ClientConnection::new(Arc::clone(&config), name).unwrap());
            client.write(&client.request("/"));
            stage.exchange(&mut [&mut client]);
            assert!(client.is_open());
            client.send("by TLS");
            stage.exchange(&mut [&mut client]);
            assert_eq!(client.texts(), ["by TLS"]);
            assert_eq!(stage.handler().peers, [CLIENT.parse().unwrap()]);
        }
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_keeps_its_address() {
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut stage = trusting("127.0.0.1");
        let mut client = Client::new(&stage.network);
        let request = client.request("/");
        client.write(&[header, &request].concat());
        stage.settle();
        client.read(usize::MAX);
        assert!(client.is_open());
        assert_eq!(stage.handler().peers, ["127.0.0.1:10000".parse::<SocketAddr>().unwrap()]);
    }
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    for header in headers() {
        let mut stage = trusting("10.0.0.0/8");
        let mut client = Client::new(&stage.network);
        let request = client.request("/");
        client.write(&[&header[..], &request].concat());
        stage.settle();
        client.read(usize::MAX);
        assert_eq!(client.status(), Some(400));
        let mut honest = stage.open();
        honest.send("hello");
        stage.exchange(&mut [&mut honest]);
        assert_eq!(stage.handler().peers.len(), 1);
        assert_eq!(stage.shard.stats().proxy_errors, 0);
    }
}

#[test]
fn who_is_trusted_and_says_no_header_is_dropped_and_counted() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PROXY TCP4 nobody\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c"]
    {
        let mut stage = trusting("127.0.0.1");
        let client = Client::new(&stage.network);
        client.remote.write(bytes);
        stage.settle();
        assert!(client.remote.is_gone());
        assert_eq!(client.remote.waiting(), 0);
        assert_eq!((stage.census().sockets, stage.census().handshakes, stage.shard.stats().proxy_errors), (0, 0, 1));
    }
}

#[test]
fn a_proxy_that_says_nothing_is_let_go_at_the_handshakes_deadline() {
    for said in [&b""[..], b"PROXY TCP4 "] {
        let mut stage = trusting("127.0.0.1");
        let client = Client::new(&stage.network);
        client.remote.write(said);
        stage.settle();
        stage.advance(Duration::from_millis(9_999));
        assert!(!client.remote.is_gone());
        stage.advance(Duration::from_millis(101));
        assert!(client.remote.is_gone());
        assert_eq!((stage.census().sockets, stage.census().handshakes, stage.shard.stats().proxy_errors), (0, 0, 1));
    }
}

#[test]
fn a_health_check_leaves_nothing() {
    for said in [&b""[..], b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut stage = trusting("127.0.0.1");
        let client = Client::new(&stage.network);
        client.remote.write(said);
        stage.settle();
        client.remote.finish();
        stage.settle();
        assert!(client.remote.is_gone());
        assert_eq!((stage.census().sockets, stage.census().handshakes, stage.shard.stats().proxy_errors), (0, 0, 0));
    }
}

#[test]
fn a_large_header_is_skipped_up_to_the_heads_limit() {
    let header = |more: usize| {
        let length = u16::try_from(12 + more).unwrap().to_be_bytes();
        let addresses = [192, 0, 2, 7, 0, 0, 0, 0, 0, 99, 0, 0];
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &addresses, &vec![4; more]].concat()
    };
    let limit = Settings::default().head.bytes;
    let mut stage = trusting("127.0.0.1");
    let mut client = Client::new(&stage.network);
    let request = client.request("/");
    client.write(&[header(limit - 28), request].concat());
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
    let too_large = Client::new(&stage.network);
    too_large.remote.write(&header(limit - 27)[..100]);
    stage.settle();
    assert!(too_large.remote.is_gone());
}

#[test]
fn a_drain_does_not_wait_for_proxies_that_have_not_said_for_whom() {
    let mut stage = trusting("127.0.0.1");
    let client = Client::new(&stage.network);
    client.remote.write(b"PROXY ");
    stage.sleep(Duration::from_secs(1));
    let close = Close::from(CloseCode::SERVICE_RESTART);
    stage.shard.drainer().drain(Drain { close, over: Duration::ZERO, deadline: Duration::from_secs(5) });
    stage.settle();
    assert!(stage.is_drained);
    assert_eq!(client.remote.waiting(), 0);
}

#[test]
fn a_socket_that_is_handed_in_has_no_header() {
    let mut stage = trusting("0.0.0.0/0");
    let (remote, stream) = stage.network.pair();
    stage.shard.intake().adopt(stream, "127.0.0.1:1".parse().unwrap()).unwrap();
    let mut client = Client::on(&stage.network, remote);
    client.write(&client.request("/"));
    stage.settle();
    client.read(usize::MAX);
    assert!(client.is_open());
}

fn trusting(network: &str) -> Stage<Application> {
    stage_with(|settings| settings.proxy_protocol = from(network))
}

fn from(network: &str) -> ProxyProtocol {
    ProxyProtocol::Accept { from: vec!["192.0.2.0/24".parse::<Network>().unwrap(), network.parse().unwrap()] }
}

const CLIENT: &str = "192.0.2.7:99";

/// Of either version, for [`CLIENT`].
fn headers() -> [Vec<u8>; 2] {
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 99 443\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc6\x33\x64\x01\0\x63\x01\xbb\x04\0\x01x".to_vec(),
    ]
}
