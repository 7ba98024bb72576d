//! Bad input of every kind, in floods, against `taut serve` as a process of its own: clear errors, nobody else disturbed, and memory and descriptors
//! back to where they were.
//!
//! Without optimising the floods are smaller. The figures of the large ones, one after the other:
//! `cargo test --release -p taut-cli --test floods -- --nocapture --test-threads 1`.

#![cfg(target_os = "linux")]

mod bystander;
mod crowd;
mod figures;
mod mistakes;
mod process;
mod storm;
#[path = "../../../taut-server/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use taut_proto::deflate;

use bystander::Bystander;
use crowd::Crowd;
use figures::Dice;
use mistakes::{Answer, Message, Request};
use process::{Rest, Taut};
use storm::Storm;
use support::{Client, Heard, Http, event};

// Mistakes.

#[test]
fn thousands_of_mistakes_get_the_one_right_answer_each_and_leave_nothing_behind() {
    let mut server = Taut::serve(&mistakes::SETTINGS);
    let address = server.address();
    println!("fresh: {}", server.at_rest());
    make_mistakes(address, 1);
    let before = server.at_rest();
    let bystander = Bystander::watch(address);
    let start = Instant::now();
    let answered = make_mistakes(address, 2);
    let elapsed = start.elapsed();
    let others = bystander.ask();
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("mistakes, in {elapsed:.2?}, all answered as they should be:");
    for (what, count) in answered {
        println!("  {count} {what}");
    }
    println!("{others}");
    compare(&before, &after);
    others.check(SLOWEST, SLOWEST);
    server.check_log();
}

/// Makes mistakes of each kind; gives how many got which kind of answer.
fn make_mistakes(address: SocketAddr, seed: u64) -> BTreeMap<String, usize> {
    let mut dice = Dice::new(seed);
    let mut tally = Tally::default();
    let (mut client, socket_id) = crowd_member(address);
    let mut http = Http::connect(address);
    for round in 0..MISTAKES {
        let Message { text, answer } = Message::invent(&mut dice, &socket_id);
        client.send_message(text.as_str());
        let heard = client.message();
        let kind = match answer {
            Answer::Error(code, _) => format!("pusher:error {code:?}"),
            Answer::Subscription(status, _) => format!("pusher:subscription_error {status}"),
        };
        tally.count(kind, answer.is(&heard), || format!("{answer:?} was expected, but {heard} came for {text:.500}"));
        // It was the only answer, and everything works on.
        client.expect_nothing_before_a_pong();
        let Request { method, target, body, status, words } = Request::invent(&mut dice);
        let answer = http.request(method, &target, &mistakes::HEADERS, &body);
        let error = answer.error();
        tally.count(format!("JSON with status {status}"), answer.status == status && error.contains(words), || {
            let body = String::from_utf8_lossy(&body);
            format!(
                "{status} {words:?} was expected, but {} {error:?} came for {target:.300} {body:.500}",
                answer.status
            )
        });
        if round % 100 == 0 {
            let number = round.to_string();
            http.say("private-room", &number);
            assert_eq!(client.message(), event("private-room", &number));
        }
    }
    for _ in 0..MISTAKES / 5 {
        let (bytes, code, words) = mistakes::unforgivable(&mut dice);
        let (mut client, _) = Client::member(address);
        client.send_bytes(&bytes);
        let close = closed(&mut client);
        tally.count(format!("close {code}"), close.0 == code && close.1.contains(words), || {
            let said = &bytes[..bytes.len().min(40)];
            format!("{code} {words:?} was expected, but {close:?} came for {said:?}")
        });
        let (target, code, words) = mistakes::wrong_address(&mut dice);
        let mut client = Client::connect(address, &target);
        let told = client.message();
        let close = closed(&mut client);
        let is_told = told["event"] == "pusher:error" && told["data"]["code"] == code;
        tally.count(format!("close {code}"), is_told && close.0 == code && close.1.starts_with(words), || {
            format!("{code} {words:?} was expected, but {told} and {close:?} came for {target}")
        });
        let (bytes, status, words) = mistakes::unreadable(&mut dice);
        let answer = exchange(address, &bytes);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let is_clear = answer.starts_with(&format!("HTTP/1.1 {status} "))
            && body.contains(words)
            && body.split_whitespace().count() >= 3;
        tally.count(format!("status {status} and the end"), is_clear, || {
            let said = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
            format!("{status} and {words:?} was expected, but {answer:?} came for {said:?}")
        });
    }
    for _ in 0..MISTAKES / 50 {
        let close = inflate(address, dice.below(2) == 0);
        tally.count(format!("close {close}"), true, String::new);
    }
    assert!(tally.complaints.is_empty(), "not as they should be:\n{}", tally.complaints.join("\n"));
    tally.counts
}

/// How often what was answered, and what should have been answered otherwise.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<String, usize>,
    complaints: Vec<String>,
}

impl Tally {
    fn count(&mut self, what: String, is_right: bool, complaint: impl FnOnce() -> String) {
        *self.counts.entry(what).or_default() += 1;
        if !is_right && self.complaints.len() < 40 {
            self.complaints.push(complaint());
        }
    }
}

/// A client that is in as many channels as it may be in.
fn crowd_member(address: SocketAddr) -> (Client, String) {
    let (mut client, socket_id) = Client::member(address);
    let [private, presence, public] = mistakes::SUBSCRIBED;
    client.subscribed_signed(&socket_id, private, None);
    client.subscribed_signed(&socket_id, presence, Some(r#"{"user_id":"1"}"#));
    client.subscribed(public);
    (client, socket_id)
}

/// The code and the reason of the close that comes, whatever is said before.
fn closed(client: &mut Client) -> (u16, String) {
    loop {
        match client.next() {
            Heard::Message(message) => assert_eq!(message["event"], "pusher:error", "{message}"),
            Heard::Close(code, reason) => return (code, reason),
            Heard::End => panic!("an end without a close frame"),
        }
    }
}

/// Sends a message that is a thousand times as large as what is sent, or one that is not compressed though it says so.
fn inflate(address: SocketAddr, is_large: bool) -> u16 {
    let target = "/app/key-one?protocol=7";
    let mut client = Client::connect_with(address, target, Some(deflate::Config::standard()));
    client.greeting();
    let (code, words) = if is_large {
        client.send_message("\0".repeat(3 << 20).as_str());
        (1009, "message inflates beyond the limit")
    } else {
        client.send_bytes(&[0xc1, 0x84, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        (1007, "compressed data does not inflate")
    };
    assert_eq!(closed(&mut client), (code, words.to_owned()));
    code
}

/// Says something and that it is all; gives the answer.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may have been enough before all was said.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    // Who says too much may be cut off, after the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

// Those who say nothing.

#[test]
fn thousands_of_silent_sockets_and_clients_gone_deaf_are_let_go_while_others_are_served() {
    let mut server = Taut::serve(&["--ping-interval", "1", "--pong-timeout", "1"]);
    let address = server.address();
    let silent = |_| (Vec::new(), Vec::new());
    let (sockets, deaf) = (sockets(SILENT), sockets(DEAF));
    println!("fresh: {}", server.at_rest());
    // As many once, who leave by themselves: room for so many is kept.
    let crowd = (Crowd::gather(address, sockets, silent), deaf_clients(address, deaf));
    server.accepted(sockets + deaf);
    drop(crowd);
    let before = server.at_rest();
    let bystander = Bystander::watch(address);
    let start = Instant::now();
    let clients = deaf_clients(address, deaf);
    let mut crowd = Crowd::gather(address, sockets, silent);
    println!(
        "{sockets} sockets that say nothing and {deaf} clients that have gone deaf, after {:.2?}",
        start.elapsed()
    );
    crowd.endure(sockets, PACE, PATIENCE * 4);
    println!("  each was ended by the server, the last after {:.2?}", start.elapsed());
    let others = bystander.ask();
    // None has hung up: it is the server that has to let go.
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("  all was let go after {:.2?}", start.elapsed());
    let answers = crowd.answers();
    println!("  kept for {:.2?} to {:.2?}: {answers:?}", crowd.lasted().0, crowd.lasted().1);
    println!("{others}");
    compare(&before, &after);
    check_answers(&answers, &["HTTP/1.1 408 ", "HTTP/1.1 503 "]);
    for mut client in clients {
        // What it could have heard: that it was asked, and then why it was given up.
        let close = closed(&mut client);
        assert_eq!(close.0, 4201, "{close:?}");
        assert_eq!(client.next(), Heard::End);
    }
    others.check(SLOWEST, LATEST);
    server.check_log();
}

#[test]
fn thousands_of_idle_http_connections_take_nothing_from_those_who_come_after_them() {
    let mut server = Taut::serve(&[]);
    let address = server.address();
    let count = sockets(IDLE);
    let idle = || {
        let connection = |number| {
            let mut http = Http::connect(address);
            // The event loop answers the one itself, and the other not.
            let path = if number % 2 == 0 { "/up" } else { "/nowhere" };
            let status = http.request("GET", path, &[], b"").status;
            assert_eq!(status, if number % 2 == 0 { 200 } else { 404 }, "connection {number}");
            http
        };
        (0..count).map(connection).collect::<Vec<Http>>()
    };
    let fresh = server.at_rest();
    drop(idle());
    let before = server.settle(&fresh, ROOM, PATIENCE);
    let start = Instant::now();
    let mut idle = idle();
    let held = server.look();
    println!(
        "{count} idle connections, after {:.2?}, hold {} KiB",
        start.elapsed(),
        held.own.saturating_sub(fresh.look.own)
    );
    assert!(server.metrics().contains_key("process_open_fds"));
    for path in ["/ready", "/up", "/nowhere"] {
        let status = Http::connect(address).request("GET", path, &[], b"").status;
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
    }
    let mut http = Http::connect(address);
    assert_eq!(http.get("/apps/1/channels", "").status, 200);
    let batch = serde_json::json!({ "batch": [{ "name": "event", "channel": "chat", "data": "" }] });
    assert_eq!(http.post("/apps/1/batch_events", &batch).status, 200);
    Client::member(address).0.subscribed("chat");
    // Those that came last are still served.
    for http in idle.iter_mut().rev().take(100) {
        assert_eq!(http.request("GET", "/nowhere", &[], b"").status, 404);
    }
    // Each is an entry in an event loop, and nothing else.
    let grown = held.own.saturating_sub(fresh.look.own);
    assert!(grown < ROOM + count as u64, "{count} idle connections hold {grown} KiB");
    drop((idle, http));
    let after = server.settle(&before, MARGIN, PATIENCE);
    compare(&before, &after);
    server.check_log();
}

/// Clients that are connected and subscribed, and then neither read nor write.
fn deaf_clients(address: SocketAddr, count: usize) -> Vec<Client> {
    let client = |_| {
        let mut client = Client::member(address).0;
        client.subscribed("deaf");
        client
    };
    (0..count).map(client).collect()
}

// Those who say it slowly.

#[test]
fn thousands_of_heads_bodies_and_hellos_that_come_byte_by_byte_are_cut_while_others_are_served() {
    let mut plain = Taut::serve(&[]);
    let files = Certificate::new();
    let mut secure = Taut::serve(&["--tls-certificate", &files.certificate, "--tls-key", &files.key]);
    let (address, tls_address) = (plain.address(), secure.address());
    let head = b"GET /app/key-one?protocol=7 HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_vec();
    let post = b"POST /apps/1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let hello = client_hello();
    let head = |_| (Vec::new(), [&head[..], &[b'x'; 200]].concat());
    let body = |_| (post.clone(), vec![b'x'; 200]);
    let hello = |_| (Vec::new(), hello.clone());
    let (heads, bodies, hellos) = (sockets(HEADS), sockets(BODIES), sockets(HELLOS));
    let gather = || {
        [
            Crowd::gather(address, heads, head),
            Crowd::gather(address, bodies, body),
            Crowd::gather(tls_address, hellos, hello),
        ]
    };
    let (fresh, fresh_secure) = (plain.at_rest(), secure.at_rest());
    println!("fresh: {fresh}\nfresh: {fresh_secure}");
    let warm_up = || {
        let mut crowds = gather();
        if IS_LARGE {
            // As many once, who are cut off as well.
            endure_all(&mut crowds);
        } else {
            // As many once, who leave by themselves, since it takes half a minute to be cut off.
            plain.accepted(heads + bodies);
            secure.accepted(hellos);
            crowds.iter_mut().for_each(Crowd::speak);
        }
    };
    warm_up();
    let before = plain.settle(&fresh, ROOM, PATIENCE);
    let before_secure = secure.settle(&fresh_secure, ROOM, PATIENCE);
    let bystander = Bystander::watch(address);
    let start = Instant::now();
    let mut crowds = gather();
    println!("byte by byte: {heads} heads, {bodies} bodies, {hellos} TLS hellos, after {:.2?}", start.elapsed());
    let (((), _, peak_secure), _, peak) = watched(&plain, || watched(&secure, || endure_all(&mut crowds)));
    let others = bystander.ask();
    let after = plain.settle(&before, MARGIN, PATIENCE);
    let after_secure = secure.settle(&before_secure, MARGIN, PATIENCE);
    let [heads, bodies, hellos] = &crowds;
    for (what, crowd) in [("heads", heads), ("bodies", bodies), ("hellos", hellos)] {
        let (shortest, longest) = crowd.lasted();
        println!("  {what} were kept for {shortest:.2?} to {longest:.2?}: {:?}", crowd.answers());
    }
    println!("  at most {} KiB of its own, by TLS {}\n{others}", peak.0, peak_secure.0);
    compare(&before, &after);
    compare(&before_secure, &after_secure);
    check_answers(&heads.answers(), &["HTTP/1.1 408 ", "HTTP/1.1 503 "]);
    check_answers(
        &bodies.answers(),
        &[
            "HTTP/1.1 408 Request Timeout: {\"error\":\"The body did not arrive within 30 seconds.\",\"code\":408}",
            "HTTP/1.1 503 ",
        ],
    );
    others.check(SLOWEST, LATEST);
    plain.check_log();
    secure.check_log();
}

#[test]
fn large_bodies_that_nobody_has_signed_hold_a_bounded_amount_of_memory() {
    let mut server = Taut::serve(&[]);
    let address = server.address();
    let fresh = server.at_rest();
    println!("fresh: {fresh}");
    let send = || {
        let mut clients: Vec<Http> = (0..LARGE_BODIES).map(|_| Http::connect(address)).collect();
        for http in &mut clients {
            http.send(b"POST /apps/1/batch_events HTTP/1.1\r\nHost: a\r\nContent-Length: 4000001\r\n\r\n");
            http.send(&vec![b'x'; 4_000_000]);
        }
        clients
    };
    drop(send());
    let before = server.settle(&fresh, ROOM, PATIENCE);
    let bystander = Bystander::watch(address);
    let (mut clients, _, peak) = watched(&server, send);
    let mut answers: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for http in &mut clients {
        http.send(b"x");
        let answer = http.answer(true);
        *answers.entry((answer.status, answer.error())).or_default() += 1;
    }
    let others = bystander.ask();
    drop(clients);
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("{LARGE_BODIES} bodies of 4 MB that nobody has signed: {answers:?}");
    println!("  at most {} KiB of its own, {} descriptors\n{others}", peak.0, peak.1);
    compare(&before, &after);
    // Twice what they may hold together, as what grows is copied; and of each what is common, and what HTTP reads ahead.
    let most = 2 * (64 << 10) + LARGE_BODIES as u64 * 128;
    assert!(peak.0 < before.look.own + most, "{} KiB were held", peak.0);
    let statuses: Vec<u16> = answers.keys().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [401, 503], "{answers:?}");
    others.check(SLOWEST, SLOWEST);
    server.check_log();
}

#[test]
fn messages_that_are_never_finished_hold_a_bounded_amount_of_memory_and_give_it_back() {
    let mut server = Taut::serve(&["--message-timeout", "5"]);
    let address = server.address();
    let fresh = server.at_rest();
    println!("fresh: {fresh}");
    let count = sockets(UNFINISHED);
    // A frame of 65,000 bytes, masked with zeros, of which the last byte never comes.
    let frame = [&[0x82, 0xfe, 0xfd, 0xe8, 0, 0, 0, 0][..], &vec![b'x'; 64_999]].concat();
    let send = || {
        let begin = |_| {
            let mut client = Client::member(address).0;
            client.send_bytes(&frame);
            client
        };
        (0..count).map(begin).collect::<Vec<Client>>()
    };
    drop(send());
    let before = server.settle(&fresh, ROOM, PATIENCE);
    let bystander = Bystander::watch(address);
    let (mut clients, _, peak) = watched(&server, send);
    let mut closes: BTreeMap<(u16, String), usize> = BTreeMap::new();
    // None has hung up: it is the server that has to let go.
    for client in &mut clients {
        *closes.entry(closed(client)).or_default() += 1;
    }
    let others = bystander.ask();
    let overloaded = server.metrics()["taut_connections_overloaded_total"];
    drop(clients);
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("{count} messages of 65 kB that are never finished: {closes:?}");
    println!("  at most {} KiB of its own, {} descriptors\n{others}", peak.0, peak.1);
    compare(&before, &after);
    let told = |code, reason: &str| closes.get(&(code, reason.to_owned())).copied().unwrap_or_default();
    let (full, slow) = (told(1013, "too many unfinished messages"), told(1008, "message too slow"));
    assert_eq!(full + slow, count, "each was told why: {closes:?}");
    // What they may hold together, the first 16 KiB of each, and what a connection takes by itself.
    let most = (64 << 10) + count as u64 * (16 + 8);
    assert!(peak.0 < before.look.own + most, "{} KiB were held", peak.0);
    if count == UNFINISHED {
        assert!(full > 0 && overloaded > 0.0, "there were more than could be");
    }
    others.check(SLOWEST, SLOWEST);
    server.check_log();
}

/// Lets all of them go on until the server has ended each.
fn endure_all(crowds: &mut [Crowd]) {
    thread::scope(|scope| {
        for crowd in crowds {
            scope.spawn(|| crowd.endure(crowd.len(), PACE, PATIENCE * 4));
        }
    });
}

fn check_answers(answers: &BTreeMap<String, usize>, allowed: &[&str]) {
    for answer in answers.keys() {
        assert!(allowed.iter().any(|allowed| answer.starts_with(allowed)), "{answer:?} was answered");
    }
}

/// The first message of a client that wants to speak TLS.
fn client_hello() -> Vec<u8> {
    use taut_shard::tls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName};
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = ClientConnection::new(config.into(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

/// A certificate and its key, in files that go with it.
struct Certificate {
    certificate: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let path = |name: &str| format!("{}/floods-{}-{name}.pem", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let files = Self { certificate: path("certificate"), key: path("key") };
        std::fs::write(&files.certificate, cert.pem()).expect("written");
        std::fs::write(&files.key, signing_key.serialize_pem()).expect("written");
        files
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        for file in [&self.certificate, &self.key] {
            let _ = std::fs::remove_file(file);
        }
    }
}

// Those who subscribe to everything.

/// Without optimising fewer, but not so few that they would be lost among what a connection takes.
const CHANNELS: usize = if IS_LARGE { 300_000 } else { 30_000 };

/// Bytes that a channel may take that nobody but one connection is in, its name of 200 bytes included.
const BYTES_PER_CHANNEL: u64 = 640;

#[test]
fn channels_that_whoever_has_the_key_makes_up_take_a_bounded_amount_of_memory() {
    let mut server = Taut::serve(&["--max-channels", &CHANNELS.to_string()]);
    let address = server.address();
    let fresh = server.at_rest();
    println!("fresh: {fresh}");
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    let clients: Vec<Client> = (0..2 * CHANNELS / 1000)
        .map(|number| {
            let (mut client, _) = Client::member(address);
            for block in 0..10 {
                for channel in 0..100 {
                    client.subscribe(&format!("{number}-{block}-{channel}-{}", "x".repeat(200))[..200]);
                }
                for _ in 0..100 {
                    let answer = client.message();
                    let status = &answer["data"]["status"];
                    *answers.entry(format!("{} {status}", answer["event"])).or_default() += 1;
                }
            }
            client
        })
        .collect();
    let held = server.at_rest();
    let each = (held.look.own - fresh.look.own) * 1024 / CHANNELS as u64;
    println!("{answers:?}\n  {held}: {each} bytes for each channel");
    let wanted = [
        ("\"pusher:subscription_error\" 409", CHANNELS),
        ("\"pusher_internal:subscription_succeeded\" null", CHANNELS),
    ];
    assert_eq!(answers, wanted.map(|(answer, count)| (answer.to_owned(), count)).into());
    assert!(each <= BYTES_PER_CHANNEL, "{each} bytes for each channel");
    drop(clients);
    server.settle(&fresh, ROOM, PATIENCE);
    server.check_log();
}

// Those who come and go.

#[test]
fn ten_thousand_clients_a_second_come_and_go_and_memory_is_where_it_was() {
    let mut server = Taut::serve(&[]);
    let address = server.address();
    let storm = Storm { address, rate: Some(RATE), clients: CLIENTS, at_once: sockets(AT_ONCE) };
    println!("fresh: {}", server.at_rest());
    storm.rage();
    let before = server.at_rest();
    let bystander = Bystander::watch(address);
    let (outcome, spent, peak) = watched(&server, || storm.rage());
    let others = bystander.ask();
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("{CLIENTS} clients at {RATE} per second: connect, upgrade, greeting, subscription, end");
    println!("{outcome}");
    println!("  processor time: {spent:.2?} the server, {:.2?} the clients, in {:.2?}", outcome.spent, outcome.elapsed);
    println!("  at most {} KiB of its own, {} descriptors", peak.0, peak.1);
    println!("{others}");
    compare(&before, &after);
    assert_eq!(outcome.served, CLIENTS, "all were served: {outcome}");
    others.check(SLOWEST, SLOWEST);
    server.check_log();
}

#[test]
fn more_clients_than_can_be_are_refused_in_words_and_nobody_else_notices() {
    let mut server = Taut::serve(&["--max-connections", "100"]);
    let address = server.address();
    let storm = Storm { address, rate: None, clients: CLIENTS / 2, at_once: sockets(AT_ONCE) };
    println!("fresh: {}", server.at_rest());
    storm.rage();
    let before = server.at_rest();
    let bystander = Bystander::watch_alone(address);
    let (outcome, spent, peak) = watched(&server, || storm.rage());
    let others = bystander.ask();
    let after = server.settle(&before, MARGIN, PATIENCE);
    println!("{} clients as fast as can be, {} at a time, where 100 connections may be:", storm.clients, storm.at_once);
    println!("{outcome}");
    println!("  processor time: {spent:.2?} the server, {:.2?} the clients, in {:.2?}", outcome.spent, outcome.elapsed);
    println!("  at most {} KiB of its own, {} descriptors", peak.0, peak.1);
    println!("{others}");
    compare(&before, &after);
    let refused = outcome.refused.get("4004 Application is over connection quota").copied().unwrap_or_default();
    assert_eq!(outcome.served + refused, storm.clients, "each was served or told why not: {outcome}");
    assert!(refused > 0, "there were more than could be");
    others.check(SLOWEST, SLOWEST);
    server.check_log();
}

#[test]
fn a_server_without_descriptors_serves_those_it_has_and_soon_newcomers_again() {
    let mut server = Taut::serve_with_descriptors(256, &[]);
    let address = server.address();
    let before = server.at_rest();
    let bystander = Bystander::watch_persistent(address);
    let start = Instant::now();
    let count = sockets(1000);
    let mut crowd = Crowd::gather(address, count, |_| (b"GET".to_vec(), Vec::new()));
    crowd.endure(count, PACE, PATIENCE * 4);
    let others = bystander.ask();
    println!("{count} sockets that do not go on, at a server with 256 descriptors: over after {:.2?}", start.elapsed());
    println!("  {:?}\n{others}", crowd.answers());
    check_answers(&crowd.answers(), &["HTTP/1.1 408 ", "HTTP/1.1 503 "]);
    others.check(SLOWEST, LATEST * 3);
    let after = server.settle(&before, MARGIN, PATIENCE);
    compare(&before, &after);
    server.check_log();
}

/// Does it, and looks at the server meanwhile: its processor time, and the most memory and descriptors that it had.
fn watched<T>(server: &Taut, what: impl FnOnce() -> T) -> (T, Duration, (u64, usize)) {
    let before = server.processor_time();
    let (is_over, over) = std::sync::mpsc::channel::<()>();
    let (outcome, peak) = thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let mut peak = (0, 0);
            while over.recv_timeout(Duration::from_millis(100)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let look = server.look();
                peak = (peak.0.max(look.own), peak.1.max(look.descriptors));
            }
            peak
        });
        let outcome = what();
        drop(is_over);
        (outcome, watching.join().expect("it looked"))
    });
    (outcome, server.processor_time().saturating_sub(before), peak)
}

/// So many sockets, or as many as this process may have descriptors for beside those of the other tests.
fn sockets(count: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line");
    let limit: usize = limit.split_whitespace().next().and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let room = limit.saturating_sub(200);
    if room < ALL_SOCKETS {
        println!("no more than {limit} descriptors: the floods are smaller than they should be (ulimit -n)");
        return count * room / ALL_SOCKETS;
    }
    count
}

fn compare(before: &Rest, after: &Rest) {
    println!("  before: {before}\n  after:  {after}");
}

const IS_LARGE: bool = !cfg!(debug_assertions);

/// Mistakes of a connection that stays, and as many requests.
const MISTAKES: usize = if IS_LARGE { 10_000 } else { 1000 };
/// Sockets that say nothing.
const SILENT: usize = if IS_LARGE { 8000 } else { 1000 };
/// Clients that have gone deaf.
const DEAF: usize = if IS_LARGE { 4000 } else { 500 };
/// HTTP connections that are kept; there were places for 10,000 once.
const IDLE: usize = if IS_LARGE { 12_000 } else { 3000 };
/// Sockets of each kind that say it slowly.
const HEADS: usize = if IS_LARGE { 4000 } else { 500 };
const BODIES: usize = if IS_LARGE { 4000 } else { 500 };
const HELLOS: usize = if IS_LARGE { 2000 } else { 500 };
/// Most sockets of all tests that run at a time; the large ones run one after the other.
const ALL_SOCKETS: usize = if IS_LARGE { 13_000 } else { 12_000 };
/// Bodies of 4 MB.
const LARGE_BODIES: usize = if IS_LARGE { 500 } else { 100 };
/// Messages of 65 kB that are begun, of which some 1,400 may be held.
const UNFINISHED: usize = if IS_LARGE { 3000 } else { 1800 };
/// Clients per second who come and go, how many, and how many may be there at a time.
const RATE: u32 = if IS_LARGE { 10_000 } else { 1000 };
const CLIENTS: usize = if IS_LARGE { 100_000 } else { 5000 };
const AT_ONCE: usize = if IS_LARGE { 8000 } else { 1000 };

/// KiB that a server may take more after a flood than after an equal one before it. It is what an allocator with an arena per thread keeps here
/// and there; a leak of 25 bytes per client, or of 250 per mistake, would be more.
const MARGIN: u64 = 2048;

/// KiB that a server may take more after its first flood than when it was fresh: its tables stay as large as they were needed once, and each of its
/// threads keeps a few blocks of each size for itself. The large floods take three to
/// twenty times as much at their height; the small ones not always more.
const ROOM: u64 = 8192;

/// How slow a bystander may be served, on a machine that has other things to do.
const SLOWEST: Duration = Duration::from_secs(2);

/// The same for a newcomer while handshakes of others fill all room that there is for them.
const LATEST: Duration = Duration::from_secs(5);

/// How often those who say it slowly say a byte.
const PACE: Duration = Duration::from_secs(1);

/// How long the server may take to let go.
const PATIENCE: Duration = Duration::from_secs(20);
