//! The program where file descriptors are few.

#![cfg(target_os = "linux")]

#[path = "process/mod.rs"]
mod process;
#[path = "../../taut-server/tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use process::Taut;
use support::{Client, Http, PATIENCE};

#[test]
fn as_many_descriptors_as_the_hard_limit_allows_are_used_and_told() {
    for arguments in [&SERVE[..], &["echo", "--listen", "127.0.0.1:0"]] {
        let mut taut = limited("ulimit -Sn 60 && ulimit -Hn 900", arguments);
        let told = taut.logged("file descriptors");
        assert!(told.contains("INFO") && told.contains("limit=900") && told.contains("before=60"), "{told}");
        // More than the soft limit would let in.
        let clients: Vec<Http> = (0..100).map(|_| Http::connect(taut.address())).collect();
        drop(clients);
    }
}

#[test]
fn the_metrics_count_descriptors_and_name_their_limit() {
    let taut = limited("ulimit -n 300", &SERVE);
    let (_client, _) = Client::member(taut.address());
    let metrics = Http::connect(taut.address()).metrics();
    assert!((metrics["process_max_fds"] - 300.0).abs() < 0.1);
    // The standard ones, listener, event loops, two clients, and what the runtime needs.
    assert!((8.0..100.0).contains(&metrics["process_open_fds"]), "{}", metrics["process_open_fds"]);
}

#[test]
fn without_descriptors_clients_are_told_to_come_back_and_the_log_says_what_to_do() {
    for (arguments, path) in [
        (&SERVE[..], "/app/key-one"),
        (&["echo", "--listen", "127.0.0.1:0", "--driver", "shard"], "/"),
        (&["echo", "--listen", "127.0.0.1:0", "--driver", "tokio"], "/"),
    ] {
        let mut taut = limited("ulimit -n 64", arguments);
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut clients: Vec<TcpStream> = (0..100).map(|_| support::connect(taut.address())).collect();
        for client in &mut clients {
            client.write_all(handshake.as_bytes()).expect("written");
        }
        let (mut served, mut turned_away) = (Vec::new(), 0);
        for mut client in clients {
            let mut status = [0; 12];
            client
                .read_exact(&mut status)
                .unwrap_or_else(|error| panic!("{arguments:?}: nobody is left hanging: {error}"));
            match &status {
                b"HTTP/1.1 101" => served.push(client),
                b"HTTP/1.1 503" => {
                    let mut rest = String::new();
                    client.read_to_string(&mut rest).expect("the end");
                    assert!(rest.contains("\r\nRetry-After: 5\r\n"), "{rest}");
                    turned_away += 1;
                }
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
        assert!(served.len() > 20 && turned_away > 20, "{arguments:?}: {} and {turned_away}", served.len());
        let warning = taut.logged("no file descriptor is left");
        assert!(warning.contains("WARN") && warning.contains("ulimit -n"), "{warning}");
        // As soon as some are free, new clients are served.
        drop(served);
        let start = Instant::now();
        loop {
            let mut client = support::connect(taut.address());
            client.write_all(handshake.as_bytes()).expect("written");
            let mut status = [0; 12];
            client.read_exact(&mut status).expect("an answer");
            if &status == b"HTTP/1.1 101" {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{arguments:?}");
        }
        assert!(taut.told("no file descriptor is left") <= 2, "{arguments:?}: the log is not flooded");
    }
}

const SERVE: [&str; 9] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--app",
    "1:key-one:secret-one",
    "--shards",
    "2",
    "--metrics-token",
    support::METRICS_TOKEN,
];

/// The program under limits that a shell has set.
fn limited(limits: &str, arguments: &[&str]) -> Taut {
    let mut command = Command::new("/bin/sh");
    command.env_clear().args(["-c", &format!("{limits} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_taut")]);
    command.args(arguments).stdin(Stdio::null());
    Taut::start(command)
}
