//! A server on a port of its own, and the least that a client and a publisher need to speak to it.

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and takes what it needs")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use serde_json::{Value, json};
use taut_proto::handshake::{ClientRequest, Rejection};
pub use taut_proto::testing::read;
use taut_proto::testing::{BlockingClient, Seen};
use taut_proto::{CloseCode, Message, deflate};
use taut_server::pusher::auth::Signature;
use taut_server::{Config, Running, Server};

/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server with two apps: `1:key-one:secret-one` and `2:key-two:secret-two`.
pub fn server(change: impl FnOnce(&mut Config)) -> Running {
    let app = |text| taut_server::app::AppConfig::parse(text).expect(text);
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        apps: vec![app("1:key-one:secret-one"), app("2:key-two:secret-two")],
        shards: 1,
        metrics_token: Some(METRICS_TOKEN.into()),
        ..Config::default()
    };
    change(&mut config);
    Server::start(&config).expect("a server")
}

/// What opens the metrics of a test's server.
pub const METRICS_TOKEN: &str = "the-token-of-the-tests";

/// What a client hears.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Message(Value),
    Close(u16, String),
    End,
}

/// A client that speaks the Pusher protocol.
pub struct Client<S = TcpStream> {
    websocket: BlockingClient<S>,
}

impl Client {
    /// Connects and upgrades; nothing has been heard yet.
    pub fn connect(address: SocketAddr, target: &str) -> Self {
        Self::connect_with(address, target, None)
    }

    pub fn connect_with(address: SocketAddr, target: &str, deflate: Option<deflate::Config>) -> Self {
        let request = ClientRequest::new(&address.to_string(), target).expect("a request").deflate(deflate);
        Self::open(address, &request)
    }

    /// Connects with a request of the test's own.
    pub fn open(address: SocketAddr, request: &ClientRequest) -> Self {
        Self::over(connect(address), request)
    }

    /// Connects to the first app and takes the greeting; gives the socket id, too.
    pub fn member(address: SocketAddr) -> (Self, String) {
        let mut client = Self::connect(address, MEMBER);
        let socket_id = client.greeting();
        (client, socket_id)
    }

    /// Connects to the first app and takes the greeting, but for a server that refuses the handshake.
    pub fn try_member(address: SocketAddr) -> Result<Self, Rejection> {
        let request = ClientRequest::new(&address.to_string(), MEMBER).expect("a request");
        let mut client = Self::try_over(connect(address), &request)?;
        client.greeting();
        Ok(client)
    }

    /// Goes without a word.
    pub fn vanish(self) {
        let _ = self.websocket.stream.shutdown(Shutdown::Both);
    }
}

impl<S: Read + Write> Client<S> {
    /// Upgrades what is connected already.
    pub fn over(stream: S, request: &ClientRequest) -> Self {
        Self::try_over(stream, request).expect("upgraded")
    }

    pub fn try_over(stream: S, request: &ClientRequest) -> Result<Self, Rejection> {
        Ok(Self { websocket: BlockingClient::open(stream, request.clone())? })
    }

    /// Takes the greeting; gives the socket id.
    pub fn greeting(&mut self) -> String {
        let greeting = self.message();
        assert_eq!(greeting["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(greeting["data"].as_str().expect("a string")).expect("JSON in it");
        data["socket_id"].as_str().expect("a socket id").to_owned()
    }

    pub fn subscribe(&mut self, channel: &str) {
        self.send(&json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": channel } }));
    }

    /// Subscribes and takes the answer.
    pub fn subscribed(&mut self, channel: &str) {
        self.subscribe(channel);
        let answer = json!({ "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}" });
        assert_eq!(self.message(), answer);
    }

    /// Subscribes as the first app's backend allows, with whatever `channel_data` it has signed; takes the answer and what the server itself
    /// said before it.
    pub fn subscribed_signed(&mut self, socket_id: &str, channel: &str, channel_data: Option<&str>) {
        let signature = Signature::of_subscription("secret-one", socket_id, channel, channel_data);
        let mut data = json!({ "auth": format!("key-one:{signature}"), "channel": channel });
        if let Some(channel_data) = channel_data {
            data["channel_data"] = json!(channel_data);
        }
        self.send(&json!({ "event": "pusher:subscribe", "data": data }));
        let answer = loop {
            let message = self.message();
            if message["channel"] == channel || message["event"] == "pusher:error" {
                break message;
            }
            assert!(message["event"].as_str().is_some_and(|event| event.starts_with("pusher_internal:")), "{message}");
        };
        assert_eq!(answer["event"], "pusher_internal:subscription_succeeded", "{answer}");
    }

    /// Signs in as the first app's backend allows, and takes the answer.
    pub fn signed_in(&mut self, socket_id: &str, user_data: &str) {
        let signature = Signature::of_user("secret-one", socket_id, user_data);
        let data = json!({ "auth": format!("key-one:{signature}"), "user_data": user_data });
        self.send(&json!({ "event": "pusher:signin", "data": data }));
        let answer = self.message();
        assert_eq!(answer["event"], "pusher:signin_success", "{answer}");
    }

    pub fn unsubscribe(&mut self, channel: &str) {
        self.send(&json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }));
    }

    /// Hears a pong next, and so nothing that came before it.
    pub fn expect_nothing_before_a_pong(&mut self) {
        self.send(&json!({ "event": "pusher:ping", "data": {} }));
        assert_eq!(self.message(), json!({ "event": "pusher:pong", "data": "{}" }));
    }

    pub fn send(&mut self, message: &Value) {
        self.send_message(message.to_string().as_str());
    }

    pub fn send_message<'m>(&mut self, message: impl Into<Message<'m>>) {
        self.websocket.send(message);
    }

    /// Sends bytes that need be no frames.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // It may have been enough before all was said.
        let _ = self.websocket.stream.write_all(bytes);
    }

    pub fn close(&mut self, code: u16) {
        self.websocket.close(CloseCode::new(code));
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.websocket.client.subprotocol()
    }

    /// Whether permessage-deflate was agreed on.
    pub fn is_compressed(&self) -> bool {
        self.websocket.client.is_compressed()
    }

    /// The next message; anything else is a failure.
    pub fn message(&mut self) -> Value {
        match self.next() {
            Heard::Message(message) => message,
            other => panic!("a message was expected, but {other:?} came"),
        }
    }

    /// The code and the reason with which the server closes next.
    pub fn closed(&mut self) -> (u16, String) {
        match self.next() {
            Heard::Close(code, reason) => (code, reason),
            other => panic!("a close was expected, but {other:?} came"),
        }
    }

    pub fn next(&mut self) -> Heard {
        loop {
            match self.websocket.receive() {
                Ok(Some(Seen::Message(message))) => {
                    let text = message.as_text().expect("text");
                    return Heard::Message(serde_json::from_str(text).expect("JSON"));
                }
                Ok(Some(Seen::Close(close))) => return Heard::Close(close.code().as_u16(), close.reason().to_owned()),
                Ok(Some(_)) => {}
                Ok(None) => return Heard::End,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::End,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }
}

/// A connection for HTTP/1.1 requests, kept alive from one to the next.
pub struct Http<S = TcpStream> {
    stream: S,
    host: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address), address)
    }

    /// Asks for this host, whatever it is.
    pub fn named(address: SocketAddr, host: &str) -> Self {
        Self { stream: connect(address), host: host.to_owned() }
    }

    /// Sends no more.
    pub fn end(&self) {
        self.stream.shutdown(Shutdown::Write).expect("ended");
    }

    /// Asks for a WebSocket, and is to get something else.
    pub fn refused(address: SocketAddr, request: &ClientRequest) -> Answer {
        let mut http = Self::connect(address);
        let mut head = Vec::new();
        request.write([7; 16], &mut head);
        http.send(&head);
        http.answer(true)
    }
}

impl<S: Read + Write> Http<S> {
    /// Asks by what is connected already.
    pub fn over(stream: S, address: SocketAddr) -> Self {
        Self { stream, host: address.to_string() }
    }

    /// The connection, for something else.
    pub fn into_inner(self) -> S {
        self.stream
    }

    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.host, body.len());
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        self.send(head.as_bytes());
        self.send(body);
        self.answer(method != "HEAD")
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    pub fn read_to_end(&mut self, text: &mut String) {
        self.stream.read_to_string(text).expect("the end");
    }

    pub fn answer(&mut self, with_body: bool) -> Answer {
        let (head, mut body) = read_head(&mut self.stream);
        let head = String::from_utf8(head).expect("ASCII");
        let status = head[9..12].parse().expect("a status");
        let length = header_of(&head, "content-length").map_or(0, |length| length.parse().expect("a length"));
        while with_body && body.len() < length {
            let mut buffer = [0; 16 * 1024];
            let count = read(&mut self.stream, &mut buffer).expect("the body");
            assert_ne!(count, 0, "the body ended too early");
            body.extend_from_slice(&buffer[..count]);
        }
        Answer { status, head, body }
    }

    /// Adds what comes next, whatever it is; false at the end.
    pub fn read_more(&mut self, text: &mut String) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = read(&mut self.stream, &mut buffer).expect("more, or the end");
        let mut bytes = buffer[..count].to_vec();
        // A read may end within a character.
        while std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_none()) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("the rest of a character");
            bytes.extend(byte);
        }
        text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        count > 0
    }

    /// Whether the server has ended the connection.
    pub fn is_at_end(&mut self) -> bool {
        let mut byte = [0];
        matches!(read(&mut self.stream, &mut byte), Ok(0))
    }

    /// Posts what the first app has signed.
    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.request("POST", &signed("POST", path, "", body.as_bytes()), &JSON, body.as_bytes())
    }

    /// Asks what the first app has signed; `parameters` begin with `&`.
    pub fn get(&mut self, path: &str, parameters: &str) -> Answer {
        self.request("GET", &signed("GET", path, parameters, b""), &[], b"")
    }

    /// The metrics, by their names with their labels, of a server that has [`METRICS_TOKEN`].
    pub fn metrics(&mut self) -> BTreeMap<String, f64> {
        let bearer = format!("Bearer {METRICS_TOKEN}");
        let answer = self.request("GET", "/metrics", &[("Authorization", &bearer)], b"");
        assert_eq!(answer.status, 200);
        let samples = answer.text().lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        };
        samples.map(parse).collect()
    }

    /// Publishes to the first app.
    pub fn publish(&mut self, event: &Value) -> Answer {
        let body = event.to_string();
        let target = signed("POST", "/apps/1/events", "", body.as_bytes());
        self.request("POST", &target, &JSON, body.as_bytes())
    }

    /// Publishes an event named `event` to one channel of the first app.
    pub fn say(&mut self, channel: &str, data: &str) {
        let answer = self.publish(&json!({ "name": "event", "channel": channel, "data": data }));
        assert_eq!((answer.status, answer.text()), (200, "{}"));
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The text of an error whose `code` repeats the status, as it should.
    pub fn error(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let error = self.json();
        assert_eq!(error["code"], self.status);
        error["error"].as_str().expect("a text").to_owned()
    }
}

/// What a subscriber gets.
pub fn event(channel: &str, data: &str) -> Value {
    json!({ "event": "event", "channel": channel, "data": data })
}

/// Path and query of a request that the first app has signed now.
pub fn signed(method: &str, path: &str, parameters: &str, body: &[u8]) -> String {
    signed_with("key-one", "secret-one", method, path, parameters, body)
}

pub fn signed_with(key: &str, secret: &str, method: &str, path: &str, parameters: &str, body: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let auth = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0");
    signed_as(&auth, secret, method, path, parameters, body)
}

/// Signs with parameters of the test's own in the place of key, time and version.
pub fn signed_as(auth: &str, secret: &str, method: &str, path: &str, parameters: &str, body: &[u8]) -> String {
    let digest = u128::from_be_bytes(Md5::digest(body).into());
    let query = format!("{auth}&body_md5={digest:032x}{parameters}");
    let signature = Signature::of(secret, &[format!("{method}\n{path}\n{query}").as_bytes()]);
    format!("{path}?{query}&auth_signature={signature}")
}

/// Tries again until it is so; for what happens elsewhere and announces itself nowhere.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// The path by which pusher-js comes to the first app.
pub const MEMBER: &str = "/app/key-one?protocol=7&client=js&version=8.6.0&flash=false";

pub const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    // Head and body leave as they are written.
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A head, and what came with it.
fn read_head(stream: &mut impl Read) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (bytes, rest);
        }
        let mut buffer = [0; 16 * 1024];
        let count = read(stream, &mut buffer).expect("a head");
        assert_ne!(count, 0, "the head ended too early: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn header_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
