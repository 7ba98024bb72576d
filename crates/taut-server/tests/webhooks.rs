//! Webhooks of the whole server, over real sockets.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;
use support::{Client, server};
use taut_server::app::Webhook;

#[test]
fn what_clients_do_is_told_and_what_waits_outlives_the_server() {
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", receiver.local_addr().expect("an address"));
    let folder = std::env::temp_dir().join(format!("taut-webhooks-{}", std::process::id()));
    let start = || {
        server(|config| {
            config.apps[0].webhooks = vec![Webhook::new(url.as_str())];
            config.data_directory = Some(folder.clone());
        })
    };
    let first = start();
    let (mut client, _) = Client::member(first.addresses()[0]);
    client.subscribed("chat");
    assert_eq!(told(&receiver), [("channel_occupied".to_owned(), "chat".to_owned())]);
    // The client is closed, so that the channel is vacated, which waits for three seconds.
    first.drain(Duration::from_secs(1)).expect("a good end");
    let second = start();
    assert_eq!(told(&receiver), [("channel_vacated".to_owned(), "chat".to_owned())]);
    drop(second);
    let _ = std::fs::remove_dir_all(folder);
}

/// Takes one request: names and channels of its events.
fn told(receiver: &TcpListener) -> Vec<(String, String)> {
    receiver.set_nonblocking(true).expect("non-blocking");
    let mut accepted = None;
    support::eventually("a webhook's request", || {
        accepted = receiver.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("a connection");
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("an answer");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |event: &Value, field: &str| event[field].as_str().expect("a text").to_owned();
    let events = body["events"].as_array().expect("events");
    events.iter().map(|event| (text(event, "name"), text(event, "channel"))).collect()
}
