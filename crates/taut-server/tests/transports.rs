//! Clients without WebSockets, over real HTTP: as pusher-js speaks it by XHR, and SockJS.

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Http, JSON, PATIENCE, eventually, server};
use taut_server::Running;

/// A response that is being received, cut into its lines.
struct Receiver {
    stream: TcpStream,
    head: String,
    raw: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the body that were read as lines.
    consumed: usize,
    is_over: bool,
}

impl Receiver {
    fn open(address: SocketAddr, method: &str, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://a.example\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("written");
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(read_some(&mut stream, &mut raw), "the head ended too early");
        };
        let head = String::from_utf8(raw.drain(..end).collect()).expect("ASCII");
        let mut receiver = Self { stream, head, raw, body: Vec::new(), consumed: 0, is_over: false };
        let length = receiver.head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length.map(|length| length.parse::<usize>().expect("a length")) {
            while receiver.raw.len() < length {
                assert!(read_some(&mut receiver.stream, &mut receiver.raw), "the response broke off");
            }
            (receiver.body, receiver.is_over) = (std::mem::take(&mut receiver.raw), true);
        }
        receiver
    }

    /// The next line, or `None` at the proper end of the response.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(length) = self.body[self.consumed..].iter().position(|byte| *byte == b'\n') {
                let line = &self.body[self.consumed..self.consumed + length];
                self.consumed += length + 1;
                return Some(String::from_utf8(line.to_vec()).expect("UTF-8"));
            }
            if self.is_over {
                assert_eq!(self.consumed, self.body.len(), "a line without its end");
                return None;
            }
            self.chunk();
        }
    }

    /// RFC 9112 §7.1.
    fn chunk(&mut self) {
        let size = loop {
            if let Some(end) = self.raw.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.raw.drain(..end + 2).collect();
                break usize::from_str_radix(std::str::from_utf8(&line[..end]).expect("ASCII"), 16).expect("a size");
            }
            assert!(read_some(&mut self.stream, &mut self.raw), "the response broke off");
        };
        while self.raw.len() < size + 2 {
            assert!(read_some(&mut self.stream, &mut self.raw), "the response broke off");
        }
        self.body.extend(self.raw.drain(..size));
        self.raw.drain(..2);
        self.is_over = size == 0;
    }

    /// Whether pusher-js would ask for the next response now.
    fn is_enough(&self) -> bool {
        let text = std::str::from_utf8(&self.body[..self.consumed]).expect("UTF-8");
        self.consumed == self.body.len() && text.encode_utf16().count() > 256 * 1024
    }

    fn status(&self) -> &str {
        &self.head[9..12]
    }
}

fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    let count = support::read(stream, &mut buffer).expect("something in time");
    bytes.extend_from_slice(&buffer[..count]);
    count > 0
}

/// A client, as pusher-js is one: with a name of its own making.
struct Session {
    address: SocketAddr,
    base: String,
    sender: Http,
}

impl Session {
    fn new(address: SocketAddr, app: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = format!("{app}/421/{:08}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { address, base, sender: Http::connect(address) }
    }

    fn receive(&self, how: &str) -> Receiver {
        let target = format!("{}/{how}?protocol=7&client=js&version=8.6.0&t=1&n=2", self.base);
        Receiver::open(self.address, "POST", &target)
    }

    fn say(&mut self, messages: &[Value]) -> u16 {
        let texts: Vec<String> = messages.iter().map(Value::to_string).collect();
        self.say_body(json!(texts).to_string().as_bytes())
    }

    fn say_body(&mut self, body: &[u8]) -> u16 {
        self.sender.request("POST", &format!("{}/xhr_send?t=1&n=3", self.base), &JSON, body).status
    }

    /// Opens a stream, takes the greeting, subscribes.
    fn subscribed(address: SocketAddr, channel: &str) -> (Self, Receiver) {
        let mut session = Self::new(address, APP);
        let mut receiver = session.receive("xhr_streaming");
        assert_eq!(receiver.line().as_deref(), Some("o"));
        assert_eq!(names(&receiver.line().expect("a greeting")), ["pusher:connection_established"]);
        assert_eq!(session.say(&[subscribe(channel)]), 204);
        assert_eq!(names(&receiver.line().expect("an answer")), ["pusher_internal:subscription_succeeded"]);
        (session, receiver)
    }
}

fn subscribe(channel: &str) -> Value {
    json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": channel } })
}

fn messages(line: &str) -> Vec<Value> {
    let array = line.strip_prefix('a').unwrap_or_else(|| panic!("messages were expected, but this came: {line}"));
    let texts: Vec<String> = serde_json::from_str(array).expect("an array of strings");
    texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

fn names(line: &str) -> Vec<String> {
    messages(line).iter().map(|message| message["event"].as_str().expect("a name").to_owned()).collect()
}

fn data(line: &str) -> Vec<String> {
    messages(line).iter().map(|message| message["data"].as_str().expect("a text").to_owned()).collect()
}

const APP: &str = "/pusher/app/key-one";

#[test]
fn a_stream_brings_messages_as_they_come() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut session, mut receiver) = Session::subscribed(address, "chat");
    assert_eq!(server.connections(), 1);
    let mut publisher = Http::connect(address);
    for text in ["one\n\"\u{2028}", "zwölf 😀", ""] {
        publisher.say("chat", text);
        assert_eq!(data(&receiver.line().expect("an event")), [text]);
    }
    assert_eq!(session.say(&[json!({ "event": "pusher:ping", "data": {} })]), 204);
    assert_eq!(names(&receiver.line().expect("a pong")), ["pusher:pong"]);
    let twice = [json!({ "event": "pusher:ping", "data": {} }), subscribe("news")];
    assert_eq!(session.say(&twice), 204);
    let mut heard = names(&receiver.line().expect("a pong"));
    if heard.len() == 1 {
        heard.extend(names(&receiver.line().expect("an answer")));
    }
    assert_eq!(heard, ["pusher:pong", "pusher_internal:subscription_succeeded"]);
}

#[test]
fn connections_are_counted_by_their_transport() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let counts = |transport: &str| {
        let sample = format!("taut_connections{{app=\"1\",transport=\"{transport}\"}}");
        Http::connect(address).metrics()[&sample].to_string()
    };
    let (websocket, _) = support::Client::member(address);
    let (_streaming, _stream) = Session::subscribed(address, "chat");
    let polling = Session::new(address, APP);
    assert_eq!(polling.receive("xhr").line().as_deref(), Some("o"));
    assert_eq!(names(&polling.receive("xhr").line().expect("a greeting")), ["pusher:connection_established"]);
    let mut sockjs = Session::new(address, "/pusher");
    assert_eq!(sockjs.receive("xhr").line().as_deref(), Some("o"));
    assert_eq!(sockjs.say(&[json!({ "path": "/app/key-one?protocol=7" })]), 204);
    assert_eq!(names(&sockjs.receive("xhr").line().expect("a greeting")), ["pusher:connection_established"]);
    for transport in ["ws", "xhr_streaming", "xhr_polling", "sockjs"] {
        assert_eq!(counts(transport), "1", "{transport}");
    }
    drop(websocket);
    eventually("a WebSocket that has gone", || counts("ws") == "0");
}

#[test]
fn where_it_is_switched_off_there_is_nothing() {
    let server = server(|config| config.fallback = false);
    let address = server.addresses()[0];
    let status = |target: &str| Receiver::open(address, "POST", target).status().to_owned();
    assert_eq!(status("/pusher/app/key-one/421/abcdefgh/xhr_streaming?protocol=7"), "404");
    assert_eq!(status("/pusher/421/abcdefgh/xhr"), "404");
    assert_eq!(Http::connect(address).request("GET", "/pusher/info", &[], b"").status, 404);
}

#[test]
fn an_app_that_does_not_want_it_closes_its_clients_and_no_others() {
    let server = server(|config| config.apps[0].features.fallback = false);
    let address = server.addresses()[0];
    let close = r#"c[4005,"Path not found: clients of this app connect by WebSockets alone"]"#;
    for path in [None, Some("/app/key-one?protocol=7"), Some("/app/key-one")] {
        // By pusher-js the app is in the path, by SockJS in the first message.
        let mut session = Session::new(address, if path.is_some() { "/pusher" } else { APP });
        let mut receiver = session.receive("xhr_streaming");
        assert_eq!(receiver.line().as_deref(), Some("o"));
        if let Some(path) = path {
            assert_eq!(session.say(&[json!({ "path": path })]), 204);
        }
        assert_eq!(names(&receiver.line().expect("an error")), ["pusher:error"]);
        assert_eq!(receiver.line().as_deref(), Some(close), "{path:?}");
    }
    let session = Session::new(address, "/pusher/app/key-two");
    let mut receiver = session.receive("xhr_streaming");
    assert_eq!(receiver.line().as_deref(), Some("o"));
    assert_eq!(names(&receiver.line().expect("a greeting")), ["pusher:connection_established"]);
}

#[test]
fn a_poll_ends_with_what_there_is_and_the_next_one_goes_on() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut session = Session::new(address, APP);
    let mut publisher = Http::connect(address);
    let polled = || {
        let mut receiver = session.receive("xhr");
        let line = receiver.line().expect("a line");
        assert_eq!(receiver.line(), None);
        line
    };
    assert_eq!(polled(), "o");
    assert_eq!(names(&polled()), ["pusher:connection_established"]);
    assert_eq!(session.say(&[subscribe("chat")]), 204);
    let mut receiver = session.receive("xhr");
    assert_eq!(names(&receiver.line().expect("a line")), ["pusher_internal:subscription_succeeded"]);
    let mut expected: VecDeque<String> = (0..100).map(|number| number.to_string()).collect();
    for text in &expected {
        publisher.say("chat", text);
    }
    while !expected.is_empty() {
        let mut receiver = session.receive("xhr");
        for text in data(&receiver.line().expect("a line")) {
            assert_eq!(Some(text), expected.pop_front());
        }
        assert_eq!(receiver.line(), None);
    }
}

#[test]
fn a_long_response_is_dropped_by_the_client_and_nothing_is_lost() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (session, mut receiver) = Session::subscribed(address, "chat");
    let mut publisher = Http::connect(address);
    let mut expected = VecDeque::new();
    let mut responses = 1;
    for round in 0..40 {
        // Characters of one, two, three and four bytes: a page counts them as 1, 1, 1 and 2.
        let text = format!("{round} {}", ["x", "é", "€", "😀"][round % 4].repeat(8_000));
        publisher.say("chat", &text);
        expected.push_back(text);
        if round % 5 == 4 {
            while !expected.is_empty() {
                for text in data(&receiver.line().expect("an event")) {
                    assert_eq!(Some(text), expected.pop_front());
                }
                if receiver.is_enough() {
                    receiver = session.receive("xhr_streaming");
                    responses += 1;
                }
            }
        }
    }
    assert!(responses > 1, "{responses}");
}

#[test]
fn a_response_that_is_long_enough_gets_no_more() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (session, mut receiver) = Session::subscribed(address, "chat");
    let mut publisher = Http::connect(address);
    let text = "x".repeat(90_000);
    for _ in 0..3 {
        publisher.say("chat", &text);
        assert_eq!(data(&receiver.line().expect("an event")), [text.as_str()]);
    }
    assert!(receiver.is_enough());
    publisher.say("chat", "after");
    let mut next = session.receive("xhr_streaming");
    assert_eq!(data(&next.line().expect("an event")), ["after"]);
    assert_eq!(receiver.line().as_deref(), Some(r#"c[2010,"Another connection still open"]"#));
    assert_eq!(receiver.line(), None);
}

#[test]
fn a_second_response_ends_the_first() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    for how in ["xhr", "xhr_streaming"] {
        let (session, _first) = Session::subscribed(address, "chat");
        let mut second = session.receive(how);
        let mut third = session.receive("xhr_streaming");
        assert_eq!(second.line().as_deref(), Some(r#"c[2010,"Another connection still open"]"#));
        assert_eq!(second.line(), None);
        Http::connect(address).say("chat", "to the last");
        assert_eq!(data(&third.line().expect("an event")), ["to the last"]);
    }
}

#[test]
fn a_client_that_asks_is_answered_and_its_own_answers_are_not() {
    let server = server(|config| config.ping_interval = Duration::from_millis(300));
    let (mut session, mut receiver) = Session::subscribed(server.addresses()[0], "chat");
    // Three of the server's, answered as pusher-js does.
    for _ in 0..3 {
        assert_eq!(receiver.line().as_deref(), Some("h"));
        assert_eq!(session.say(&[]), 204);
    }
    drop(server);

    let server = support::server(|_| {});
    let (mut session, mut receiver) = Session::subscribed(server.addresses()[0], "chat");
    assert_eq!(session.say(&[]), 204);
    assert_eq!(receiver.line().as_deref(), Some("h"));
    // Its answer to this one is none to be answered, but the next one is a question again.
    assert_eq!([session.say(&[]), session.say(&[])], [204, 204]);
    assert_eq!(receiver.line().as_deref(), Some("h"));
    assert_eq!(session.say(&[]), 204);
    assert_eq!(session.say(&[json!({ "event": "pusher:ping" })]), 204);
    assert_eq!(names(&receiver.line().expect("a pong")), ["pusher:pong"]);

    let mut poll = session.receive("xhr");
    for _ in 0..2 {
        assert_eq!(session.say(&[]), 204);
        assert_eq!(poll.line().as_deref(), Some("h"));
        assert_eq!(poll.line(), None);
        poll = session.receive("xhr");
    }
}

#[test]
fn a_client_that_does_not_answer_is_given_up_though_its_response_is_open() {
    let server = server(|config| {
        config.ping_interval = Duration::from_millis(200);
        config.pong_timeout = Duration::from_millis(300);
    });
    let (_session, mut receiver) = Session::subscribed(server.addresses()[0], "chat");
    let mut heartbeats = 0;
    let last = loop {
        match receiver.line().expect("an end").as_str() {
            "h" => heartbeats += 1,
            other => break other.to_owned(),
        }
    };
    assert!(heartbeats > 0);
    assert_eq!(last, r#"c[4201,"Pong reply not received: no request came in time"]"#);
    assert_eq!(receiver.line(), None);
    eventually("the shard's side of it ends", || server.connections() == 0);
}

#[test]
fn who_stays_away_is_forgotten_and_told_so_if_he_comes_back_soon() {
    let server = server(|config| config.pong_timeout = Duration::from_millis(500));
    let (mut session, receiver) = Session::subscribed(server.addresses()[0], "chat");
    drop(receiver);
    eventually("the session ends", || server.connections() == 0);
    let mut receiver = session.receive("xhr_streaming");
    let line = receiver.line().expect("an end");
    assert!(line.starts_with("c[4201,"), "{line}");
    assert_eq!(receiver.line(), None);
    assert_eq!(session.say(&[]), 404);
    eventually("the name is free again", || {
        let mut receiver = session.receive("xhr_streaming");
        receiver.line().as_deref() == Some("o")
    });
}

#[test]
fn a_session_that_nobody_has_begun_cannot_be_spoken_in() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (session, mut receiver) = Session::subscribed(address, "chat");
    let name = session.base.strip_prefix(APP).expect("its app").to_owned();
    let mut http = Http::connect(address);
    for target in [format!("{APP}/1/nobodyxx"), format!("/pusher/app/key-two{name}"), format!("/pusher{name}")] {
        let answer = http.request("POST", &format!("{target}/xhr_send"), &JSON, b"[]");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (404, Some("*")), "{target}");
        assert_eq!(answer.error(), "There is no such session, or it is over.");
    }
    let answer = http.request("POST", &format!("{APP}/1/short/xhr_streaming"), &[], b"");
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("8 characters or more"), "{}", answer.error());
    Http::connect(address).say("chat", "still there");
    assert_eq!(data(&receiver.line().expect("an event")), ["still there"]);
}

#[test]
fn thousands_of_sessions_that_one_connection_invents_keep_nobody_out() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut before, mut receiver) = Session::subscribed(address, "chat");
    let mut attacker = Http::connect(address);
    for round in 0..55 {
        let polls = (0..100).map(|number| {
            format!("POST /pusher/1/{:08}/xhr HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", round * 100 + number)
        });
        attacker.send(polls.collect::<String>().as_bytes());
        let mut answers = String::new();
        while answers.matches("HTTP/1.1 ").count() < 100 || !answers.ends_with("\r\n0\r\n\r\n") {
            assert!(attacker.read_more(&mut answers), "{answers}");
        }
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 100, "{answers}");
    }
    // Who was there is still there, and whoever comes is let in, by either of the two ways.
    assert_eq!(before.say(&[json!({ "event": "pusher:ping" })]), 204);
    assert_eq!(names(&receiver.line().expect("a pong")), ["pusher:pong"]);
    Session::subscribed(address, "chat");
    let mut session = sockjs(&server, "/app/key-one?protocol=7&client=js&version=8.6.0");
    let mut receiver = session.receive("xhr_streaming");
    assert_eq!(names(&receiver.line().expect("a greeting")), ["pusher:connection_established"]);
    assert_eq!(session.say(&[subscribe("chat")]), 204);
}

#[test]
fn what_is_no_array_of_messages_is_refused_and_the_session_stays() {
    let server = server(|config| config.message = 1024);
    let (mut session, mut receiver) = Session::subscribed(server.addresses()[0], "chat");
    for body in ["", "{}", "[1]", "\"x\"", "[\"x\""] {
        assert_eq!(session.say_body(body.as_bytes()), 400, "{body}");
    }
    assert_eq!(session.say_body(format!("[\"{}\"]", "x".repeat(4096)).as_bytes()), 413);
    assert_eq!(session.say(&[json!({ "event": "pusher:ping" })]), 204);
    assert_eq!(names(&receiver.line().expect("a pong")), ["pusher:pong"]);
    // One that a WebSocket would not be allowed ends it as it would end that.
    assert_eq!(session.say_body(format!("[\"{}\"]", "x".repeat(2000)).as_bytes()), 204);
    let line = receiver.line().expect("an end");
    assert!(line.starts_with("c[1009,"), "{line}");
}

#[test]
fn a_client_with_a_wrong_key_is_told_so_as_by_websocket() {
    let server = server(|_| {});
    let session = Session::new(server.addresses()[0], "/pusher/app/nonsense");
    let mut receiver = session.receive("xhr_streaming");
    assert_eq!(receiver.line().as_deref(), Some("o"));
    let error = messages(&receiver.line().expect("an error"));
    assert_eq!((&error[0]["event"], &error[0]["data"]["code"]), (&json!("pusher:error"), &json!(4001)));
    let line = receiver.line().expect("an end");
    assert!(line.starts_with("c[4001,\"Application does not exist"), "{line}");
    assert_eq!(receiver.line(), None);
}

#[test]
fn who_reads_nothing_is_dropped_and_the_server_holds_little_for_him() {
    let server = server(|config| {
        config.outgoing = 64 * 1024;
        config.ping_interval = Duration::from_millis(500);
        config.pong_timeout = Duration::from_millis(500);
    });
    let address = server.addresses()[0];
    let (session, mut receiver) = Session::subscribed(address, "chat");
    let mut publisher = Http::connect(address);
    let text = "x".repeat(90_000);
    let mut sent = 0;
    eventually("the shard drops it", || {
        publisher.say("chat", &text);
        sent += text.len();
        server.connections() == 0
    });
    assert!(sent < 64 << 20, "{sent}");
    // Its HTTP connection is cut as well: that the response does not end properly is how one can tell.
    drop(session);
    let mut rest = Vec::new();
    let cut = loop {
        let mut buffer = [0; 16 * 1024];
        match support::read(&mut receiver.stream, &mut buffer) {
            Ok(0) => break true,
            Ok(count) => rest.extend_from_slice(&buffer[..count]),
            Err(error) => break error.kind() == ErrorKind::ConnectionReset,
        }
    };
    assert!(cut);
    assert!(rest.len() < sent);
}

#[test]
fn a_page_of_any_site_may_ask() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut http = Http::connect(address);
    let asks = [
        ("Origin", "https://shop.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    for target in [format!("{APP}/1/abcdefgh/xhr_streaming"), "/pusher/1/abcdefgh/xhr_send".to_owned()] {
        let answer = http.request("OPTIONS", &target, &asks, b"");
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
        assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    }
    let (_, receiver) = Session::subscribed(address, "chat");
    let head = receiver.head.to_ascii_lowercase();
    for expected in [
        "access-control-allow-origin: http://a.example",
        "content-type: application/javascript; charset=utf-8",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "vary: origin",
    ] {
        assert!(head.contains(expected), "{expected} in {head}");
    }
    assert_eq!(http.request("GET", &format!("{APP}/1/abcdefgh/xhr"), &[], b"").status, 405);
}

#[test]
fn a_drain_tells_them_to_come_back_and_does_not_wait_for_them() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (_streaming, mut stream) = Session::subscribed(address, "chat");
    let (polling, first) = Session::subscribed(address, "chat");
    let mut poll = polling.receive("xhr");
    // One that has not yet said where it wants to go.
    let nowhere = Session::new(address, "/pusher");
    let mut sockjs = nowhere.receive("xhr_streaming");
    assert_eq!(sockjs.line().as_deref(), Some("o"));
    let drained = std::thread::spawn(move || server.drain(PATIENCE));
    for receiver in [&mut stream, &mut poll, &mut sockjs] {
        let line = receiver.line().expect("an end");
        assert!(line.starts_with("c[4100,\"The server is going down"), "{line}");
        assert_eq!(receiver.line(), None);
    }
    drop(first);
    let start = std::time::Instant::now();
    drained.join().expect("no panic").expect("drained");
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn it_stands_below_the_prefix_of_all_paths() {
    let server = server(|config| "/realtime".clone_into(&mut config.path_prefix));
    let address = server.addresses()[0];
    let mut session = Session::new(address, "/realtime/pusher/app/key-one");
    let mut receiver = session.receive("xhr_streaming");
    assert_eq!(receiver.line().as_deref(), Some("o"));
    assert_eq!(names(&receiver.line().expect("a greeting")), ["pusher:connection_established"]);
    assert_eq!(session.say(&[]), 204);
    let nowhere = Session::new(address, APP).receive("xhr_streaming");
    assert_eq!(nowhere.status(), "404");
}

/// Says where to go, as the SockJS of pusher-js does.
fn sockjs(server: &Running, path: &str) -> Session {
    let mut session = Session::new(server.addresses()[0], "/pusher");
    let mut receiver = session.receive("xhr");
    assert_eq!(receiver.line().as_deref(), Some("o"));
    assert_eq!(receiver.line(), None);
    assert_eq!(session.say(&[json!({ "path": path })]), 204);
    session
}

#[test]
fn sockjs_says_first_where_it_wants_to_go() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let info = Http::connect(address).request("GET", "/pusher/info?t=1", &[("Origin", "null")], b"");
    assert_eq!((info.status, info.header("access-control-allow-origin")), (200, Some("null")));
    assert_eq!(info.header("access-control-allow-credentials"), Some("true"));
    assert_eq!((&info.json()["websocket"], &info.json()["server_heartbeat_interval"]), (&json!(false), &json!(25_000)));

    let mut session = sockjs(&server, "/app/key-one?protocol=7&client=js&version=8.6.0");
    let mut receiver = session.receive("xhr_streaming");
    assert_eq!(names(&receiver.line().expect("a greeting")), ["pusher:connection_established"]);
    assert_eq!(session.say(&[subscribe("chat")]), 204);
    assert_eq!(names(&receiver.line().expect("an answer")), ["pusher_internal:subscription_succeeded"]);
    let mut publisher = Http::connect(address);
    let text = "x".repeat(70_000);
    for _ in 0..2 {
        publisher.say("chat", &text);
        assert_eq!(data(&receiver.line().expect("an event")), [text.as_str()]);
    }
    assert_eq!(receiver.line(), None, "the server ends a response of 128 KiB");
    publisher.say("chat", "after");
    assert_eq!(data(&session.receive("xhr_streaming").line().expect("an event")), ["after"]);

    for path in ["/apps/1/events", "/app/key-one HTTP/1.1\r\nX: y", ""] {
        let line = sockjs(&server, path).receive("xhr").line().expect("an end");
        assert!(line.starts_with("c[4005,\"Path not found"), "{line}");
    }
    let lines: Vec<String> =
        (0..2).map(|_| sockjs(&server, "/app/nonsense").receive("xhr").line().expect("one")).collect();
    assert_eq!(names(&lines[0]), ["pusher:error"]);
}

#[test]
fn jsonp_calls_back_and_takes_forms() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut http = Http::connect(address);
    let call = |callback: &str| {
        let mut receiver = Receiver::open(address, "GET", &format!("/pusher/7/abcd1234/jsonp?c={callback}"));
        let line = receiver.line().expect("a line");
        assert_eq!((receiver.line(), receiver.status()), (None, "200"));
        line
    };
    assert_eq!(call("_jp.a1b2"), "/**/_jp.a1b2(\"o\");\r");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let say = |http: &mut Http, message: &Value| {
        let array = json!([message.to_string()]).to_string();
        let escaped =
            array.replace('%', "%25").replace('+', "%2B").replace('&', "%26").replace(' ', "+").replace('"', "%22");
        let field = format!("d={escaped}");
        http.request("POST", "/pusher/7/abcd1234/jsonp_send?i=x", &form, field.as_bytes())
    };
    let answer = say(&mut http, &json!({ "path": "/app/key-one?protocol=7" }));
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    let frame = |line: String| -> String {
        let argument = line.strip_prefix("/**/f(").and_then(|rest| rest.strip_suffix(");\r")).expect("a call");
        serde_json::from_str(argument).expect("a string")
    };
    assert_eq!(names(&frame(call("f"))), ["pusher:connection_established"]);
    say(&mut http, &subscribe("chat"));
    assert_eq!(names(&frame(call("f"))), ["pusher_internal:subscription_succeeded"]);
    http.say("chat", "</script>\"😀");
    assert_eq!(data(&frame(call("f"))), ["</script>\"😀"]);
    for callback in ["", "alert(1)//", "a%28b"] {
        let answer = http.request("GET", &format!("/pusher/7/abcd1234/jsonp?c={callback}"), &[], b"");
        assert_eq!(answer.status, 400, "{callback}");
    }
}

/// What a client does next with what it receives by.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Polls once.
    Poll,
    /// Streams until it has read so many lines, then opens the next response beside this one, which it reads to its end.
    Replace(usize),
    /// Streams until pusher-js would have had enough, and drops the response.
    Drop,
    /// Asks whether the server is there.
    Ask,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Poll),
        3 => (0_usize..6).prop_map(Act::Replace),
        2 => Just(Act::Drop),
        1 => Just(Act::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_becomes_of_its_responses_a_client_gets_every_message_once_and_in_order(
        acts in proptest::collection::vec(act(), 1..40),
        lengths in proptest::collection::vec(0_usize..6000, 400),
    ) {
        storm(&acts, &lengths);
    }
}

#[test]
fn a_client_that_only_asks_whether_the_server_is_there_gets_its_messages_in_the_end() {
    storm(&[Act::Ask], &[100; 20]);
}

/// Gives how many responses it took.
fn storm(acts: &[Act], lengths: &[usize]) -> usize {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut session, mut receiver) = Session::subscribed(address, "chat");
    let texts: Vec<String> = lengths
        .iter()
        .enumerate()
        .map(|(number, length)| format!("{number} {}", ["y", "ü😀"][number % 2].repeat(*length)))
        .collect();
    let said = texts.clone();
    let publishing = std::thread::spawn(move || {
        let mut publisher = Http::connect(address);
        for text in &said {
            publisher.say("chat", text);
        }
    });
    let mut expected: VecDeque<String> = texts.into();
    let mut responses = 1;
    // What a response says, until it ends; true when it was displaced or is over.
    let hear = |receiver: &mut Receiver, expected: &mut VecDeque<String>| match receiver.line() {
        None => true,
        Some(line) if line == "h" => false,
        Some(line) if line.starts_with("c[2010") => true,
        Some(line) => {
            for text in data(&line) {
                assert_eq!(Some(text), expected.pop_front());
            }
            false
        }
    };
    // A script of questions alone would receive nothing, and never end: each round ends with a poll.
    let mut acts = acts.iter().chain([&Act::Poll]).cycle();
    while !expected.is_empty() {
        let act = acts.next().expect("without end");
        let mut next = |how: &str| {
            responses += 1;
            session.receive(how)
        };
        match act {
            Act::Poll => {
                let mut poll = next("xhr");
                while !hear(&mut receiver, &mut expected) {}
                // It may have been all there was.
                if !expected.is_empty() {
                    while !hear(&mut poll, &mut expected) {}
                }
                receiver = next("xhr_streaming");
            }
            Act::Replace(lines) => {
                for _ in 0..*lines {
                    if receiver.is_enough() || expected.is_empty() {
                        break;
                    }
                    hear(&mut receiver, &mut expected);
                }
                let following = next("xhr_streaming");
                while !hear(&mut receiver, &mut expected) {}
                receiver = following;
            }
            Act::Drop => {
                while !receiver.is_enough() && !expected.is_empty() {
                    assert!(!hear(&mut receiver, &mut expected), "the server ended a response that nobody displaced");
                }
                if receiver.is_enough() {
                    receiver = next("xhr_streaming");
                }
            }
            Act::Ask => assert_eq!(session.say(&[]), 204),
        }
    }
    publishing.join().expect("published");
    assert_eq!(session.say(&[json!({ "event": "pusher:ping" })]), 204);
    // Nothing came twice.
    loop {
        if receiver.is_enough() {
            receiver = session.receive("xhr_streaming");
        }
        match receiver.line().expect("a pong") {
            line if line == "h" => {}
            line => break assert_eq!(names(&line), ["pusher:pong"]),
        }
    }
    responses
}
