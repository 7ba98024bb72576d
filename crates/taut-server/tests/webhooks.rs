//! Webhooks of the whole server, over real sockets.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use support::{Client, Heard, server};
use taut_server::Running;
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

/// Which of four event loops a client is on is the kernel's choice, and so are the owners of its channels: there have to be several runs.
const RUNS: usize = 12;

#[test]
fn a_drain_tells_of_every_channel_and_member_that_is_gone() {
    let receiver = Receiver::start();
    for run in 0..RUNS {
        let server = server(|config| {
            config.shards = 4;
            config.apps[0].webhooks = vec![Webhook::new(receiver.url.as_str())];
            // Nobody comes back to a server that has stopped.
            config.apps[0].features.presence_grace = Duration::from_secs(if run % 2 == 0 { 0 } else { 60 });
        });
        let clients = Clients::subscribe(&server, 3);
        receiver.expect(&clients.came, &clients.gone);
        server.drain(Duration::from_secs(10)).expect("a good end");
        let told = receiver.take(&clients.came);
        assert_eq!(told, clients.gone, "run {run}");
        clients.ended();
    }
}

#[test]
fn what_a_drain_cannot_tell_any_more_is_told_after_the_next_start() {
    let receiver = Receiver::start();
    let folder = std::env::temp_dir().join(format!("taut-webhooks-drained-{}", std::process::id()));
    // Each waits for the end of the grace after the next start.
    for run in 0..RUNS / 2 {
        let start = || {
            server(|config| {
                config.shards = 4;
                config.apps[0].webhooks = vec![Webhook::new(receiver.url.as_str())];
                config.apps[0].features.presence_grace = Duration::from_secs(if run % 3 == 0 { 0 } else { 60 });
                config.data_directory = Some(folder.clone());
            })
        };
        let server = start();
        let clients = Clients::subscribe(&server, 3);
        receiver.expect(&clients.came, &clients.gone);
        // Without any time at all, too.
        server.drain(if run % 2 == 0 { Duration::from_secs(10) } else { Duration::ZERO }).expect("a good end");
        let next = start();
        receiver.expect(&clients.gone, &clients.came);
        next.drain(Duration::from_secs(10)).expect("a good end");
        assert_eq!(receiver.take(&[clients.came.as_slice(), &clients.gone].concat()), [""; 0], "run {run}");
        clients.ended();
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Clients that are subscribed, and answer when they are closed.
struct Clients {
    threads: Vec<JoinHandle<()>>,
    /// What webhooks are to tell of their coming and of their going, in the order of names.
    came: Vec<String>,
    gone: Vec<String>,
}

impl Clients {
    fn subscribe(server: &Running, count: usize) -> Self {
        let (mut threads, mut came, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let (mut client, socket_id) = Client::member(server.addresses()[0]);
            let (chat, room) = (format!("chat-{number}"), format!("presence-{number}"));
            client.subscribed(&chat);
            client.subscribed_signed(&socket_id, &room, Some(r#"{"user_id":"ada"}"#));
            came.extend([format!("channel_occupied {chat}"), format!("channel_occupied {room}")]);
            came.push(format!("member_added {room}"));
            gone.extend([format!("channel_vacated {chat}"), format!("channel_vacated {room}")]);
            gone.push(format!("member_removed {room}"));
            threads.push(thread::spawn(move || while client.next() != Heard::End {}));
        }
        came.sort();
        gone.sort();
        Self { threads, came, gone }
    }

    fn ended(self) {
        for thread in self.threads {
            thread.join().expect("it has heard the end");
        }
    }
}

/// Takes requests until the test is over, and answers each.
struct Receiver {
    url: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let events = request(&stream);
                // Before the answer: the server may end with it.
                let mut told = telling.lock().expect("no panic");
                told.extend(events.into_iter().map(|(name, channel)| format!("{name} {channel}")));
                drop(told);
                respond(&stream);
            }
        });
        Self { url, told }
    }

    /// Waits until exactly this was told since the last time, but for what was told `earlier`.
    fn expect(&self, wanted: &[String], earlier: &[String]) {
        support::eventually("webhooks", || news(&self.told.lock().expect("no panic"), earlier).len() >= wanted.len());
        assert_eq!(self.take(earlier), wanted);
    }

    /// What was told since the last time, but for what was told `earlier`.
    fn take(&self, earlier: &[String]) -> Vec<String> {
        news(&std::mem::take(&mut *self.told.lock().expect("no panic")), earlier)
    }
}

/// Webhooks come at least once: a server that ends before it has read an answer sends its request again after the next start.
fn news(told: &[String], earlier: &[String]) -> Vec<String> {
    let mut told: Vec<String> = told.iter().filter(|told| !earlier.contains(told)).cloned().collect();
    told.sort();
    told.dedup();
    told
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
    let events = request(&stream);
    respond(&stream);
    events
}

/// Names and channels of the events of a request.
fn request(stream: &TcpStream) -> Vec<(String, String)> {
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut reader = BufReader::new(stream);
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
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |event: &Value, field: &str| event[field].as_str().expect("a text").to_owned();
    let events = body["events"].as_array().expect("events");
    events.iter().map(|event| (text(event, "name"), text(event, "channel"))).collect()
}

fn respond(mut stream: &TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("an answer");
}
