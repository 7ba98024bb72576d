//! What connections carry: one request after the other, whoever answers them, and in the end perhaps a WebSocket.

#![allow(clippy::similar_names, reason = "what was heard begins with a head")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use taut_proto::handshake::ClientRequest;
use taut_server::{Config, Running};

use crate::support::{Client, Http, JSON, MEMBER, connect, event, server, signed};

// From HTTP to WebSocket.

// RFC 9110 §7.8: a client may ask for another protocol with any request of a connection.
#[test]
fn a_websocket_handshake_is_accepted_whatever_the_connection_has_served_before() {
    let server = server(|config| config.shards = 2);
    let address = server.addresses()[0];
    for (what, requests) in histories() {
        let mut http = Http::connect(address);
        for request in &requests {
            http.send(&request.bytes);
            assert_eq!(http.answer(request.has_body).status, request.status, "{what}");
        }
        let mut client = Client::over(http.into_inner(), &handshake(address));
        client.greeting();
        client.subscribed("news");
        Http::connect(address).say("news", what);
        assert_eq!(client.message(), event("news", what));
    }
}

#[test]
fn a_websocket_handshake_is_accepted_after_requests_by_tls() {
    let (server, tls) = tls_server();
    let address = server.addresses()[0];
    for (what, requests) in histories() {
        let mut http = Http::over(tls.connect(address), address);
        for request in &requests {
            http.send(&request.bytes);
            assert_eq!(http.answer(request.has_body).status, request.status, "{what}");
        }
        let mut client = Client::over(http.into_inner(), &handshake(address));
        client.greeting();
        client.subscribed("news");
    }
}

#[test]
fn a_websocket_handshake_that_is_pipelined_behind_requests_is_accepted() {
    let server = server(|_| {});
    let (secure, tls) = tls_server();
    for (what, requests) in histories() {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.clone()).collect();
        handshake(server.addresses()[0]).write([7; 16], &mut bytes);
        let heard = [
            read_until(connect(server.addresses()[0]), &bytes, "pusher:connection_established"),
            read_until(tls.connect(secure.addresses()[0]), &bytes, "pusher:connection_established"),
        ];
        for heard in heard {
            let statuses: Vec<&str> = heard.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
            let expected = requests.iter().map(|request| request.status).chain([101]).map(|status| status.to_string());
            assert_eq!(statuses, expected.collect::<Vec<_>>(), "{what}: {heard}");
        }
    }
}

#[test]
fn forty_handshakes_come_through_one_connection_each_that_has_served_health_checks() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut http = Http::connect(address);
            for path in ["/up", "/ready", "/chat/config", "/up"] {
                http.request("GET", path, &[], b"");
            }
            let mut client = Client::over(http.into_inner(), &handshake(address));
            client.greeting();
            client
        })
        .collect();
    assert_eq!(server.connections(), 40);
    clients.iter_mut().for_each(Client::expect_nothing_before_a_pong);
}

// One judgement for a head.

// RFC 9112 §3.2, §6.1, §6.3: whoever would have answered the request, and whatever the connection has served before.
#[test]
fn a_faulty_head_is_refused_on_any_connection_and_for_any_path() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let faults = [
        ("HTTP/1.1\nHost: x\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("HTTP/1.1\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        ("HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ];
    for before in [None, Some("/up"), Some("/nowhere")] {
        for line in ["GET /up", "GET /nowhere", "POST /apps/1/events", "POST /apps/1/batch_events"] {
            for (fault, status) in faults {
                let mut http = Http::connect(address);
                if let Some(path) = before {
                    http.request("GET", path, &[], b"");
                }
                http.send(format!("{line} {fault}GET /up HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
                let mut heard = String::new();
                while http.read_more(&mut heard) {}
                let is_right =
                    heard.starts_with(&format!("HTTP/1.1 {status} ")) && heard.matches("HTTP/1.1 ").count() == 1;
                assert!(is_right, "after {before:?}, {line} {fault:?}: {heard}");
            }
        }
    }
}

#[test]
fn chunks_that_two_programs_could_read_differently_end_the_connection() {
    let server = server(|_| {});
    for chunks in
        ["2\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "2;a\nb\r\n{}\r\n0\r\n\r\n", "x\r\n", "0\r\n\n", "2\r\n{}\r\n"]
    {
        let mut http = Http::connect(server.addresses()[0]);
        let target = signed("POST", "/apps/1/events", "", b"{}");
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        http.send(format!("{head}{chunks}").as_bytes());
        http.end();
        let mut heard = String::new();
        while http.read_more(&mut heard) {}
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("connection: close"), "{chunks:?}: {heard}");
    }
}

// RFC 9112 §2.2: empty lines before a request line are skipped.
#[test]
fn line_ends_that_old_clients_send_behind_their_content_are_skipped() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for _ in 0..2 {
        for request in [publish(10), publish(20_000), get("/nowhere", 404)] {
            http.send(b"\r\n");
            http.send(&request.bytes);
            http.send(b"\r\n");
            assert_eq!(http.answer(true).status, request.status);
        }
    }
}

#[test]
fn a_target_that_is_no_uri_is_refused_in_words() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    http.send(b"GET /<x> HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = http.answer(true);
    assert_eq!((answer.status, answer.text()), (400, "The request target is not a URI.\n"));
    assert!(http.is_at_end());
}

// Clients that end their side.

#[test]
fn who_ends_its_side_behind_a_whole_request_is_answered() {
    let server = server(|_| {});
    let (secure, tls) = tls_server();
    for _ in 0..20 {
        for (what, requests) in histories() {
            for request in requests {
                let mut stream = connect(server.addresses()[0]);
                stream.write_all(&request.bytes).expect("written");
                stream.shutdown(Shutdown::Write).expect("ended");
                let heard = read_to_end(stream);
                assert!(heard.starts_with(&format!("HTTP/1.1 {} ", request.status)), "{what}: {heard:?}");
            }
        }
    }
    for (what, requests) in histories() {
        for request in requests {
            let mut stream = tls.connect(secure.addresses()[0]);
            stream.write_all(&request.bytes).expect("written");
            stream.conn.send_close_notify();
            stream.flush().expect("written");
            stream.sock.shutdown(Shutdown::Write).expect("ended");
            let heard = read_to_end(stream);
            assert!(heard.starts_with(&format!("HTTP/1.1 {} ", request.status)), "{what} by TLS: {heard:?}");
        }
    }
}

#[test]
fn who_ends_its_side_behind_several_requests_is_answered_all_of_them() {
    let server = server(|_| {});
    for _ in 0..20 {
        let all: Vec<Sent> = histories().into_iter().flat_map(|(_, requests)| requests).collect();
        let mut stream = connect(server.addresses()[0]);
        stream.write_all(&all.iter().flat_map(|sent| sent.bytes.clone()).collect::<Vec<u8>>()).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        let heard = read_to_end(stream);
        let statuses: Vec<u16> =
            heard.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().expect("a status")).collect();
        assert_eq!(statuses, all.iter().map(|sent| sent.status).collect::<Vec<_>>());
    }
}

#[test]
fn who_ends_its_side_behind_a_handshake_is_told_that_it_was_accepted() {
    let server = server(|_| {});
    for _ in 0..20 {
        let address = server.addresses()[0];
        let mut stream = connect(address);
        let mut bytes = Vec::new();
        handshake(address).write([7; 16], &mut bytes);
        stream.write_all(&bytes).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the end");
        assert!(heard.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&heard));
    }
}

#[test]
fn who_ends_its_side_within_a_request_is_told_so_or_let_go() {
    let server = server(|_| {});
    for request in [publish(20_000), chunked(20_000, 1000), get("/nowhere", 404)] {
        let mut stream = connect(server.addresses()[0]);
        stream.write_all(&request.bytes[..request.bytes.len() - 1]).expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        let heard = read_to_end(stream);
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 400 "), "{heard}");
    }
}

// How connections end.

#[test]
fn a_connection_ends_when_its_client_says_so_and_not_before() {
    let server = server(|_| {});
    for path in ["/up", "/nowhere", "/base.css"] {
        for (version, connection, ends) in [
            ("1.1", "", false),
            ("1.1", "Connection: keep-alive\r\n", false),
            ("1.1", "Connection: x, Close\r\n", true),
            ("1.0", "", true),
            ("1.0", "Connection: Keep-Alive\r\n", false),
            ("1.0", "Connection: close\r\n", true),
        ] {
            let mut http = Http::connect(server.addresses()[0]);
            let request = format!("GET {path} HTTP/{version}\r\nHost: x\r\n{connection}\r\n");
            for _ in 0..if ends { 1 } else { 3 } {
                http.send(request.as_bytes());
                let answer = http.answer(true);
                let said = answer.header("connection").map(str::to_ascii_lowercase);
                let expected = match (ends, version) {
                    (true, _) => Some("close"),
                    (false, "1.0") => Some("keep-alive"),
                    _ => None,
                };
                assert_eq!(said.as_deref(), expected, "{path} {version} {connection:?}");
            }
            if ends {
                assert!(http.is_at_end());
            }
        }
    }
}

#[test]
fn content_that_nobody_wants_is_read_if_it_is_little_and_else_ends_the_connection() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    // Pages do not read what comes with a request for them.
    assert_eq!(http.request("GET", "/base.css", &[], &vec![b'x'; 60_000]).status, 200);
    let expecting = "GET /base.css HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(http.request("GET", "/base.css", &[], b"").status, 200);
    http.send(expecting.as_bytes());
    let answer = http.answer(true);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "it is not known what comes next");
    let mut http = Http::connect(server.addresses()[0]);
    http.send(b"GET /base.css HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let answer = http.answer(true);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // The client is not cut off while it still sends, or it would not see the response.
    http.send(&vec![b'x'; 500_000]);
    http.end();
    assert!(http.is_at_end());
}

#[test]
fn a_compressed_body_is_refused_with_words_and_the_connection_goes_on() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    // An empty object, as gzip has it.
    let body = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0C\xbf\xa6\xa3\x02\0\0\0";
    for path in ["/apps/1/events", "/apps/1/batch_events", "/chat/messages"] {
        for encoding in ["gzip", "br", "identity, gzip"] {
            let target = signed("POST", path, "", body);
            let answer = http.request("POST", &target, &[("Content-Encoding", encoding), JSON[0]], body);
            assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("identity")), "{path} {encoding}");
            assert!(answer.error().contains("compressed"));
        }
    }
    let body = json!({ "name": "e", "channel": "c", "data": "x".repeat(5000) }).to_string();
    let target = signed("POST", "/apps/1/events", "", body.as_bytes());
    let answer = http.request("POST", &target, &[("Content-Encoding", "identity"), JSON[0]], body.as_bytes());
    assert_eq!((answer.status, answer.text()), (200, "{}"));
}

#[test]
fn a_connection_that_is_silent_for_as_long_as_is_set_is_closed() {
    let server = server(|config| config.keep_alive = Duration::from_secs(1));
    for path in ["/up", "/nowhere"] {
        let mut http = Http::connect(server.addresses()[0]);
        http.request("GET", path, &[], b"");
        // It ends without a word.
        assert!(http.is_at_end());
    }
}

// Load balancers.

#[test]
fn load_balancers_ask_by_any_method_and_by_the_names_that_they_know_from_other_servers() {
    let server = server(|config| {
        config.path_prefix = "/ws".to_owned();
        config.apps[1].enabled = false;
    });
    let mut http = Http::connect(server.addresses()[0]);
    for prefix in ["", "/ws"] {
        for (path, status, body) in [
            ("/up", 200, r#"{"health":"OK"}"#),
            ("/live", 200, r#"{"health":"OK"}"#),
            ("/up/1", 200, r#"{"health":"OK"}"#),
            ("/up/2", 404, r#"{"error":"The app 2 is disabled.","code":404}"#),
            ("/up/3", 404, r#"{"error":"The app 3 could not be found.","code":404}"#),
            ("/ready", 200, r#"{"ready":true}"#),
            ("/accept-traffic", 200, r#"{"ready":true}"#),
        ] {
            let path = format!("{prefix}{path}");
            // What has content, or a list of options, leaves the shard.
            for content in ["", "{}"] {
                let answer = http.request("GET", &path, &[], content.as_bytes());
                assert_eq!((answer.status, answer.text()), (status, body), "{path}");
                let answer = http.request("HEAD", &path, &[], content.as_bytes());
                let length = body.len().to_string();
                assert_eq!((answer.status, answer.header("content-length")), (status, Some(&*length)), "{path}");
                let answer = http.request("OPTIONS", &path, &[], content.as_bytes());
                assert_eq!(answer.status, 204, "{path}");
                assert!(answer.header("allow").is_some_and(|allowed| allowed.contains("GET")), "{path}");
                let answer = http.request("POST", &path, &[], content.as_bytes());
                assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{path}");
            }
        }
    }
    // Wherever they are answered they have one label.
    let metrics = http.metrics();
    assert_eq!(metrics.get("taut_http_requests_total{route=\"/up\",status=\"404\"}"), Some(&16.0));
    assert!(!metrics.keys().any(|sample| sample.contains("route=\"other\"")));
}

#[test]
fn what_is_no_health_check_is_not_taken_for_one() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for path in ["/up/", "/up/1/2", "/ready/1", "/upp", "/ws/up", "/accept-traffic/"] {
        assert_eq!(http.request("GET", path, &[], b"").status, 404, "{path}");
    }
}

// Any mix.

#[derive(Clone, Debug)]
enum Kind {
    Up,
    Head,
    Options,
    Page,
    Nowhere,
    Query,
    Publish(usize),
    Chunked(usize, usize),
    Batch,
    Old,
    Unwanted(usize),
    EmptyLine,
}

#[derive(Clone, Debug)]
enum Ending {
    End,
    Close,
    Upgrade,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Up),
        Just(Kind::Head),
        Just(Kind::Options),
        Just(Kind::Page),
        Just(Kind::Nowhere),
        Just(Kind::Query),
        Just(Kind::Batch),
        Just(Kind::Old),
        Just(Kind::EmptyLine),
        (1_usize..20_000).prop_map(Kind::Publish),
        // Each chunk has an extension, and the server takes 16 KiB of them in a request.
        (1_usize..20_000, 1_usize..8000).prop_map(|(size, chunk)| Kind::Chunked(size, chunk.max(size / 3000))),
        (0_usize..20_000).prop_map(Kind::Unwanted),
    ]
}

impl Kind {
    fn sent(&self) -> Option<Sent> {
        Some(match *self {
            Self::Up => get("/up", 200),
            Self::Head => Sent { has_body: false, ..request("HEAD", "/base.css", b"", 200) },
            Self::Options => request("OPTIONS", "/ready", b"", 204),
            Self::Page => get("/base.css", 200),
            Self::Nowhere => get("/nowhere", 404),
            Self::Query => get(&signed("GET", "/apps/1/channels", "", b""), 200),
            Self::Publish(size) => publish(size),
            Self::Chunked(size, chunk) => chunked(size, chunk),
            Self::Batch => batch(),
            Self::Old => {
                let bytes = b"GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec();
                Sent { bytes, status: 404, has_body: true }
            }
            Self::Unwanted(size) => request("GET", "/base.css", &vec![b'x'; size], 200),
            Self::EmptyLine => return None,
        })
    }
}

// Whatever comes on a connection, cut anywhere, each request has its own answer, in order, and nothing is taken for a request
// that is none.
#[test]
fn any_mix_of_requests_cut_anywhere_is_answered_in_order() {
    let server = server(|config| config.shards = 2);
    let address = server.addresses()[0];
    let mixes = (
        prop::collection::vec(kind(), 0..12),
        prop_oneof![Just(Ending::End), Just(Ending::Close), Just(Ending::Upgrade)],
        prop::collection::vec(1_usize..3000, 1..20),
    );
    proptest!(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() }, |((kinds, ending, cuts) in mixes)| {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for kind in &kinds {
            match kind.sent() {
                Some(sent) => {
                    bytes.extend_from_slice(&sent.bytes);
                    expected.push((sent.status, sent.has_body));
                }
                None => bytes.extend_from_slice(b"\r\n"),
            }
        }
        match ending {
            Ending::End => {}
            Ending::Close => {
                bytes.extend_from_slice(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /up HTTP/1.1\r\nHost: x\r\n\r\n");
                expected.push((404, true));
            }
            Ending::Upgrade => {
                handshake(address).write([7; 16], &mut bytes);
                expected.push((101, false));
            }
        }
        let mut stream = connect(address);
        let mut writer = stream.try_clone().expect("a second handle");
        let writing = thread::spawn(move || {
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                // The server may have ended the connection, as it was asked to.
                if piece.is_empty() || writer.write_all(piece).is_err() {
                    break;
                }
                rest = later;
                thread::yield_now();
            }
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut heard = Vec::new();
        // A reset may follow the last answer, where more was sent behind it.
        let _ = stream.read_to_end(&mut heard);
        writing.join().expect("no panic");
        let mut rest = &heard[..];
        for (number, (status, has_body)) in expected.iter().enumerate() {
            let end = rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
            prop_assert!(end.is_some(), "answer {} of {:?} is missing in {}", number, expected, String::from_utf8_lossy(&heard));
            let (head, body) = rest.split_at(end.unwrap_or_default());
            let head = String::from_utf8_lossy(head).to_ascii_lowercase();
            prop_assert!(head.starts_with(&format!("http/1.1 {status} ")), "{} instead of {}, answer {}", head, status, number);
            let length = head.split("content-length: ").nth(1).map_or(0, |rest| rest.split('\r').next().unwrap_or("0").parse().unwrap_or(0));
            rest = &body[if *has_body { length } else { 0 }..];
        }
        prop_assert!(rest.is_empty() || matches!(ending, Ending::Upgrade), "more was answered: {}", String::from_utf8_lossy(rest));
    });
}

/// A request, and what it is to be answered.
struct Sent {
    bytes: Vec<u8>,
    status: u16,
    has_body: bool,
}

fn request(method: &str, target: &str, body: &[u8], status: u16) -> Sent {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n");
    Sent { bytes: [head.as_bytes(), body].concat(), status, has_body: true }
}

fn get(target: &str, status: u16) -> Sent {
    request("GET", target, b"", status)
}

fn publish(size: usize) -> Sent {
    let body = event_of(size);
    request("POST", &signed("POST", "/apps/1/events", "", body.as_bytes()), body.as_bytes(), 200)
}

fn event_of(size: usize) -> String {
    json!({ "name": "event", "channel": "chat", "data": "x".repeat(size) }).to_string()
}

fn chunked(size: usize, size_of_chunk: usize) -> Sent {
    let Sent { bytes, status, .. } = publish(size);
    let bytes = String::from_utf8(bytes).expect("text");
    let (head, body) = bytes.split_once("\r\n\r\n").expect("a head");
    let (head, _) = head.rsplit_once("\r\nContent-Length").expect("a length");
    let chunk = |chunk: &[u8]| format!("{:X};x=y\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).expect("text"));
    let chunks: String = body.as_bytes().chunks(size_of_chunk).map(chunk).collect();
    let chunked = format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX-Trailer: x\r\n\r\n");
    Sent { bytes: chunked.into_bytes(), status, has_body: true }
}

fn batch() -> Sent {
    let body = json!({ "batch": [{ "name": "event", "channel": "chat", "data": "x" }] }).to_string();
    request("POST", &signed("POST", "/apps/1/batch_events", "", body.as_bytes()), body.as_bytes(), 200)
}

/// Requests of every kind: what the shard answers, and what it does not.
fn histories() -> Vec<(&'static str, Vec<Sent>)> {
    vec![
        ("up", vec![get("/up", 200)]),
        ("ready", vec![get("/ready", 200)]),
        ("not found", vec![get("/nowhere", 404)]),
        ("a page", vec![get("/", 200)]),
        ("a query", vec![get(&signed("GET", "/apps/1/channels", "", b""), 200)]),
        ("a publish", vec![publish(10)]),
        ("a long publish", vec![publish(20_000)]),
        ("chunks", vec![chunked(5000, 100)]),
        ("a batch", vec![batch()]),
        ("unauthorized", vec![get("/apps/1/channels", 401)]),
        (
            "this and that",
            vec![publish(10), get("/up", 200), batch(), get("/nowhere", 404), publish(10), get("/", 200)],
        ),
    ]
}

fn handshake(address: SocketAddr) -> ClientRequest {
    ClientRequest::new(&address.to_string(), MEMBER).expect("a request")
}

fn read_to_end(mut stream: impl Read) -> String {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("the end");
    String::from_utf8_lossy(&heard).into_owned()
}

/// Writes, and reads until this has come.
fn read_until(mut stream: impl Read + Write, bytes: &[u8], end: &str) -> String {
    stream.write_all(bytes).expect("written");
    let mut heard = Vec::new();
    loop {
        let mut buffer = [0; 16 * 1024];
        let count = stream.read(&mut buffer).expect("more");
        heard.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&heard);
        if text.contains(end) || count == 0 {
            return text.into_owned();
        }
    }
}

/// What a client by TLS needs.
struct Tls(Arc<ClientConfig>);

impl Tls {
    fn connect(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("a.example").expect("a name");
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).expect("a client"), connect(address))
    }
}

fn tls_server() -> (Running, Tls) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let folder = std::env::temp_dir().join(format!("taut-http-{}-{:?}", std::process::id(), thread::current().id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (certificate, key) = (write("certificate.pem", cert.pem()), write("key.pem", signing_key.serialize_pem()));
    let server = server(|config: &mut Config| {
        config.tls_certificate = Some(certificate.clone());
        config.tls_key = Some(key);
    });
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(&certificate).expect("a certificate")).expect("a root");
    let _ = std::fs::remove_dir_all(&folder);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, Tls(Arc::new(config)))
}
