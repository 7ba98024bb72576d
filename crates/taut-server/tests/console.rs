//! The console as its page and as strangers see it, over real sockets.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, Client, Http, JSON, event, eventually, server};
use taut_server::config::Config;
use taut_server::{Running, Server};

const PASSWORD: &str = "correct horse battery";

fn locked() -> Running {
    server(|config| config.console_password = Some(PASSWORD.into()))
}

/// A server whose console has a listener of its own and asks for nothing there, and the addresses of clients and of the console.
fn open() -> (Running, SocketAddr, SocketAddr) {
    let server = server(|config| config.console_listen = Some(LOOPBACK));
    let addresses = (server.addresses()[0], server.console_address().expect("a listener"));
    (server, addresses.0, addresses.1)
}

/// A server without an app of its own.
fn development(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config { listen: LOOPBACK, shards: 2, ..Config::default() };
    change(&mut config);
    Server::start(&config).expect("a server")
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What is only for operators: with each of these somebody would see or send what is not his.
fn operators_requests() -> [(&'static str, &'static str, &'static [u8]); 7] {
    [
        ("GET", "/metrics", b""),
        ("GET", "/console/api/overview", b""),
        ("GET", "/console/api/events", b""),
        ("GET", "/console/api/apps/1/channels", b""),
        ("GET", "/console/api/apps/1/connections", b""),
        ("DELETE", "/console/api/apps/1/connections/1.1", b""),
        ("POST", "/console/api/apps/1/events", br#"{"name":"e","channel":"private-c","data":""}"#),
    ]
}

fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    Http::connect(address).request("GET", path, headers, b"")
}

fn log_in(address: SocketAddr, password: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&JSON[..], headers].concat();
    let body = json!({ "password": password }).to_string();
    Http::connect(address).request("POST", "/console/api/session", &headers, body.as_bytes())
}

/// What a browser sends back.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned()
}

/// A request whose `Host` is what the test wants.
fn with_host(address: SocketAddr, path: &str, hosts: &[&str]) -> u16 {
    let mut http = Http::connect(address);
    let hosts = hosts.join("\r\nHost: ");
    http.send(format!("GET {path} HTTP/1.1\r\nHost: {hosts}\r\n\r\n").as_bytes());
    http.answer(true).status
}

#[test]
fn where_clients_connect_nothing_is_granted_by_where_a_request_seems_to_come_from() {
    let own_app = server(|config| config.metrics_token = None);
    let development = development(|_| {});
    let locked = server(|config| {
        config.metrics_token = None;
        config.console_password = Some(PASSWORD.into());
    });
    // As proxies send them that say nothing of a client, and as clients would have them: each comes from 127.0.0.1.
    let claims: [&[(&str, &str)]; 4] = [
        &[],
        &[("X-Forwarded-For", "127.0.0.1")],
        &[("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "127.0.0.1")],
        &[("X-Forwarded-Host", "localhost"), ("Origin", "http://localhost")],
    ];
    for (server, refused) in [(&own_app, 404), (&development, 401), (&locked, 401)] {
        let port = server.addresses()[0].port();
        for host in ["localhost", "127.0.0.1", "[::1]:6001", "taut", &format!("127.0.0.1:{port}")] {
            for headers in claims {
                for (method, path, body) in operators_requests() {
                    let mut http = Http::named(server.addresses()[0], host);
                    let answer = http.request(method, path, &[headers, &JSON].concat(), body);
                    let foreign = headers.iter().any(|(name, _)| *name == "Origin") && host != "localhost";
                    let expected = match path {
                        "/metrics" => 403,
                        _ if foreign && refused == 401 => 403,
                        _ => refused,
                    };
                    assert_eq!(answer.status, expected, "{method} {path} as {host} with {headers:?}");
                }
            }
        }
    }
    // Where nothing could open it, there is no console at all.
    for path in ["/console", "/console/console.js", "/console/api/session"] {
        assert_eq!(get(own_app.addresses()[0], path, &[]).status, 404, "{path}");
    }
}

#[test]
fn on_a_loopback_listener_of_its_own_the_console_asks_for_nothing() {
    let (server, clients, address) = open();
    let page = get(address, "/console", &[]);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.header("access-control-allow-origin").is_none());
    let text = page.text();
    for path in text.split('"').filter(|path| path.starts_with("/console/")) {
        assert_eq!(get(address, path, &[]).status, 200, "{path}");
    }
    let session = get(address, "/console/api/session", &[]).json();
    assert_eq!((&session["login"], &session["admitted"]), (&json!("nothing"), &json!(true)));
    let overview = get(address, "/console/api/overview", &[]);
    assert_eq!((overview.status, overview.header("cache-control")), (200, Some("no-store")));
    assert_eq!(overview.json()["apps"][0]["id"], "1");
    assert_eq!((get(address, "/", &[]).status, get(address, "/", &[]).header("location")), (303, Some("/console")));
    // What clients and backends ask is served where they connect, and nowhere else.
    for path in ["/app/key-one", "/apps/1/channels", "/chat/config", "/taut.js"] {
        assert_eq!(get(address, path, &[]).status, 404, "{path}");
    }
    for path in ["/up", "/ready"] {
        assert_eq!((get(address, path, &[]).status, get(clients, path, &[]).status), (200, 200), "{path}");
    }
    assert_eq!(get(clients, "/console", &[]).status, 404, "it is there alone");
    server.drain(Duration::from_secs(5)).expect("in order");
}

#[test]
fn on_its_own_listener_a_password_is_asked_for_where_one_is_set() {
    let server = server(|config| {
        config.console_password = Some(PASSWORD.into());
        config.console_listen = Some(LOOPBACK);
        config.metrics_token = None;
    });
    let address = server.console_address().expect("a listener");
    for (method, path, body) in operators_requests() {
        let expected = if path == "/metrics" { 403 } else { 401 };
        assert_eq!(Http::connect(address).request(method, path, &JSON, body).status, expected, "{method} {path}");
    }
    // Whoever guesses where clients connect locks nobody out here, though both come from one address.
    while log_in(server.addresses()[0], "guess", &[]).status != 429 {}
    let cookie = cookie(&log_in(address, PASSWORD, &[]));
    // A password opens it by whatever name.
    let overview =
        Http::named(address, "console.example").request("GET", "/console/api/overview", &[("Cookie", &cookie)], b"");
    assert_eq!(overview.status, 200);
}

#[test]
fn a_console_that_others_could_reach_without_a_password_does_not_start() {
    let config = Config { listen: LOOPBACK, console_listen: Some(SocketAddr::from(([0; 4], 0))), ..Config::default() };
    let refused = Server::start(&config).expect_err("open to everybody").to_string();
    assert!(refused.starts_with("console-listen: ") && refused.contains("console-password"), "{refused}");
}

#[test]
fn a_port_of_an_operators_listener_that_is_taken_is_told() {
    let (_server, _, taken) = open();
    for metrics in [false, true] {
        let mut config = Config { listen: LOOPBACK, ..Config::default() };
        *(if metrics { &mut config.metrics_listen } else { &mut config.console_listen }) = Some(taken);
        let refused = Server::start(&config).expect_err("taken").to_string();
        let setting = if metrics { "metrics-listen" } else { "console-listen" };
        assert!(refused.contains(&format!("{setting}: cannot listen on {taken}: ")), "{refused}");
    }
}

#[test]
fn the_token_of_the_link_opens_the_console_of_the_development_app() {
    let server = development(|_| {});
    let address = server.addresses()[0];
    let token = server.console_token().expect("a token").reveal().to_owned();
    assert_eq!(token.len(), 32, "128 bits");
    let session = get(address, "/console/api/session", &[]).json();
    assert_eq!((&session["login"], &session["admitted"]), (&json!("token"), &json!(false)));
    let give = |body: Value| {
        Http::connect(address).request("POST", "/console/api/session", &JSON, body.to_string().as_bytes())
    };
    for wrong in [json!({ "token": "" }), json!({ "token": "0".repeat(32) }), json!({ "token": &token[1..] })] {
        let refused = give(wrong);
        assert_eq!((refused.status, refused.header("set-cookie")), (401, None));
    }
    assert_eq!(give(json!({ "password": token })).status, 400);
    // Nobody locks out the person with the link by guessing.
    for _ in 0..30 {
        assert_eq!(give(json!({ "token": "guess" })).status, 401);
    }
    let admitted = give(json!({ "token": token }));
    assert_eq!(admitted.status, 200);
    let cookie = cookie(&admitted);
    let overview = get(address, "/console/api/overview", &[("Cookie", &cookie)]);
    assert_eq!((overview.status, &overview.json()["apps"][0]["id"]), (200, &json!("1")));
    // A link in the address itself would be in every proxy's log: it opens nothing.
    assert_eq!(get(address, &format!("/console/api/overview?token={token}"), &[]).status, 401);
    let another = development(|_| {});
    assert_ne!(another.console_token().map(|token| token.reveal().to_owned()), Some(token));
}

#[test]
fn there_is_no_token_with_a_password_nor_with_an_app_of_ones_own() {
    assert!(development(|config| config.console_password = Some(PASSWORD.into())).console_token().is_none());
    assert!(server(|_| {}).console_token().is_none());
}

#[test]
fn sessions_of_the_token_end_with_the_development_app() {
    let server = development(|_| {});
    let address = server.addresses()[0];
    let token = json!({ "token": server.console_token().expect("a token").reveal() }).to_string();
    let cookie = cookie(&Http::connect(address).request("POST", "/console/api/session", &JSON, token.as_bytes()));
    let mut feed = Feed::open_with(address, &cookie);
    let app = taut_server::app::AppConfig::parse("1:key-one:secret-one").expect("an app");
    let own = Config { listen: LOOPBACK, shards: 2, apps: vec![app], ..Config::default() };
    server.reload(&own).expect("good");
    // The stream that was open ends, and nothing is seen of the apps that came.
    while feed.http.read_more(&mut feed.text) && !feed.text.ends_with("0\r\n\r\n") {
        assert!(feed.text.matches(": heartbeat").count() < 3, "it goes on");
    }
    assert_eq!(get(address, "/console/api/overview", &[("Cookie", &cookie)]).status, 404);
    server.reload(&Config { apps: Vec::new(), ..own }).expect_err("the development app does not come back");
    assert_eq!(get(address, "/console/api/overview", &[("Cookie", &cookie)]).status, 404);
}

#[test]
fn a_name_that_somebody_pointed_to_this_machine_finds_no_console_and_no_metrics_there() {
    let server = server(|config| {
        config.console_listen = Some(LOOPBACK);
        config.metrics_token = None;
    });
    let address = server.console_address().expect("a listener");
    for path in ["/console/api/overview", "/console", "/metrics"] {
        for host in ["127.0.0.1", "localhost:6001", "[::1]:6001", "LocalHost"] {
            assert_eq!(with_host(address, path, &[host]), 200, "{path} {host}");
        }
        for host in
            ["evil.example", "evil.example:6001", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
        {
            assert_eq!(with_host(address, path, &[host]), 403, "{path} {host}");
        }
        assert_ne!(with_host(address, path, &["localhost", "evil.example"]), 200);
        let mut http = Http::connect(address);
        http.send(format!("GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert_eq!(http.answer(true).status, 403);
    }
}

#[test]
fn other_sites_pages_may_not_ask_and_may_not_send() {
    let (_server, _, address) = open();
    let own = format!("http://{address}");
    let body = br#"{"name":"e","channel":"c","data":""}"#;
    let publish = |headers: &[(&str, &str)]| {
        Http::connect(address).request("POST", "/console/api/apps/1/events", headers, body).status
    };
    assert_eq!(publish(&[("Origin", &own), JSON[0]]), 200);
    assert_eq!(publish(&[("Sec-Fetch-Site", "same-origin"), ("Origin", &own), JSON[0]]), 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(publish(&[("Origin", origin), JSON[0]]), 403, "{origin}");
    }
    assert_eq!(publish(&[("Sec-Fetch-Site", "cross-site"), JSON[0]]), 403);
    for headers in [[("Origin", "http://evil.example")], [("Sec-Fetch-Site", "cross-site")]] {
        let path = "/console/api/apps/1/connections/1.1";
        assert_eq!(Http::connect(address).request("DELETE", path, &headers, b"").status, 403, "{headers:?}");
        // A browser asks first whether a page of another site may send this; no answer of ours says so.
        let asked = Http::connect(address).request("OPTIONS", path, &headers, b"");
        assert!(asked.header("access-control-allow-methods").is_none(), "{}", asked.head);
    }
    // A form of another site can send this one without asking first.
    assert_eq!(publish(&[("Content-Type", "text/plain")]), 415);
    for path in ["/console/api/overview", "/console/api/events", "/console/api/session"] {
        assert_eq!(get(address, path, &[("Sec-Fetch-Site", "cross-site")]).status, 403, "{path}");
        assert_eq!(get(address, path, &[("Sec-Fetch-Site", "same-site")]).status, 403, "{path}");
    }
}

#[test]
fn with_a_password_nobody_sees_anything_before_giving_it() {
    let server = locked();
    let address = server.addresses()[0];
    assert_eq!(get(address, "/console", &[]).status, 200, "the page that asks for it");
    let session = get(address, "/console/api/session", &[]).json();
    assert_eq!((&session["login"], &session["admitted"]), (&json!("password"), &json!(false)));
    for path in [
        "/console/api/overview",
        "/console/api/events",
        "/console/api/apps/1/channels",
        "/console/api/apps/1/channels/c",
        "/console/api/apps/1/connections",
    ] {
        for cookie in ["", "taut_console=", "taut_console=00", &format!("taut_console={}", "0".repeat(64))] {
            assert_eq!(get(address, path, &[("Cookie", cookie)]).status, 401, "{path} {cookie}");
        }
    }
    let body = br#"{"name":"e","channel":"c","data":""}"#;
    assert_eq!(Http::connect(address).request("POST", "/console/api/apps/1/events", &JSON, body).status, 401);

    let refused = log_in(address, "correct horse batterz", &[]);
    assert_eq!((refused.status, refused.header("set-cookie")), (401, None));
    let admitted = log_in(address, PASSWORD, &[]);
    assert_eq!(admitted.status, 200);
    let set = admitted.header("set-cookie").expect("a cookie");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age="] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let cookie = cookie(&admitted);
    assert_eq!(get(address, "/console/api/overview", &[("Cookie", &cookie)]).status, 200);
    // Whoever has the password may come from anywhere.
    let elsewhere = [("Cookie", cookie.as_str()), ("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(get(address, "/console/api/overview", &elsewhere).status, 200);
    let mut http = Http::connect(address);
    assert_eq!(http.request("DELETE", "/console/api/session", &[("Cookie", &cookie)], b"").status, 200);
    assert_eq!(get(address, "/console/api/overview", &[("Cookie", &cookie)]).status, 401);
}

#[test]
fn a_password_can_be_guessed_only_slowly_and_not_from_another_site() {
    let server = locked();
    let address = server.addresses()[0];
    assert_eq!(log_in(address, PASSWORD, &[("Origin", "http://evil.example")]).status, 403);
    let statuses: Vec<u16> = (0..6).map(|number| log_in(address, &format!("guess {number}"), &[]).status).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    // Not even the right one is looked at now.
    let late = log_in(address, PASSWORD, &[]);
    assert_eq!((late.status, late.header("set-cookie")), (429, None));
    let seconds: u32 = late.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=5).contains(&seconds), "{seconds}");
    // Whom no proxy speaks for is one with it.
    assert_eq!(log_in(address, PASSWORD, &[("X-Forwarded-For", "192.0.2.1")]).status, 429);
}

#[test]
fn who_guesses_behind_a_proxy_locks_nobody_else_out_but_all_together_guess_slowly_too() {
    let server = server(|config| {
        config.console_password = Some(PASSWORD.into());
        config.trusted_proxies = vec!["127.0.0.1".parse().expect("a network")];
    });
    let address = server.addresses()[0];
    let from = |client: &str, password: &str| log_in(address, password, &[("X-Forwarded-For", client)]).status;
    let statuses: Vec<u16> = (0..6).map(|number| from("192.0.2.1", &format!("guess {number}"))).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    // One of them has another bucket, or all of 16 would have the same of 512.
    assert!((1..=16).any(|number| from(&format!("198.51.100.{number}"), PASSWORD) == 200));
    assert!((1..=100).any(|number| from(&format!("203.0.113.{number}"), "guess") == 429), "more than all may have");
}

#[test]
fn logging_out_ends_the_events_of_that_login_and_of_no_other() {
    let server = locked();
    let address = server.addresses()[0];
    let (first, second) = (cookie(&log_in(address, PASSWORD, &[])), cookie(&log_in(address, PASSWORD, &[])));
    let mut feeds = [&first, &first, &second].map(|cookie| Feed::open_with(address, cookie));
    let log_out = Http::connect(address).request("DELETE", "/console/api/session", &[("Cookie", &first)], b"");
    assert_eq!(log_out.status, 200);
    for feed in &mut feeds[..2] {
        // A stream that goes on has a heartbeat every 15 seconds.
        while feed.http.read_more(&mut feed.text) && !feed.text.ends_with("0\r\n\r\n") {
            assert!(feed.text.matches(": heartbeat").count() < 2, "it goes on");
        }
    }
    assert_eq!(get(address, "/console/api/events", &[("Cookie", &first)]).status, 401);
    Http::connect(address).say("news", "for the one that is left");
    assert_eq!(feeds[2].event("published")["data"], "for the one that is left");
    assert!(!feeds[0].text.contains("for the one"), "{}", feeds[0].text);
}

/// The events as the page gets them, without its heartbeats.
struct Feed {
    http: Http,
    text: String,
}

impl Feed {
    fn open(address: SocketAddr) -> Self {
        Self::open_with(address, "")
    }

    fn open_with(address: SocketAddr, cookie: &str) -> Self {
        let mut http = Http::connect(address);
        let head = format!("GET /console/api/events HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
        http.send(head.as_bytes());
        let answer = http.answer(false);
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let mut feed = Self { http, text: String::from_utf8(answer.body).expect("UTF-8") };
        feed.wait_for(": heartbeat");
        feed
    }

    fn wait_for(&mut self, part: &str) {
        while !self.text.contains(part) {
            assert!(self.http.read_more(&mut self.text), "the stream ended before {part}: {}", self.text);
        }
    }

    /// The first event of this kind, waited for.
    fn event(&mut self, kind: &str) -> Value {
        self.wait_for(&format!("\"kind\":\"{kind}\""));
        // A chunk's head may stand between two lines, but never within one of less than a read.
        self.wait_for("\n\n");
        loop {
            let found = self
                .text
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .find_map(|data| serde_json::from_str::<Value>(data).ok().filter(|row| row["kind"] == kind));
            match found {
                Some(row) => return row,
                None => assert!(self.http.read_more(&mut self.text), "the stream ended"),
            }
        }
    }

    fn forget(&mut self) {
        self.text.clear();
    }
}

#[test]
fn everything_that_happens_is_shown_as_it_happens() {
    let (_server, address, console) = open();
    let mut feed = Feed::open(console);
    let (mut client, socket_id) = Client::member(address);
    let connected = feed.event("connected");
    assert_eq!((&connected["socket_id"], &connected["app"]), (&json!(socket_id), &json!("1")));
    client.subscribed("news");
    assert_eq!(feed.event("occupied")["channel"], "news");
    let subscribed = feed.event("subscribed");
    assert_eq!((&subscribed["channel"], &subscribed["socket_id"]), (&json!("news"), &json!(socket_id)));
    Http::connect(address).say("news", "{\"a\":\n1}");
    assert_eq!(client.message(), event("news", "{\"a\":\n1}"));
    let published = feed.event("published");
    assert_eq!(
        (&published["event"], &published["data"], &published["size"]),
        (&json!("event"), &json!("{\"a\":\n1}"), &json!(8))
    );
    client.subscribe("private-news");
    let refused = feed.event("refused");
    assert_eq!(refused["socket_id"], json!(socket_id));
    assert!(refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{refused}");
    client.unsubscribe("news");
    assert_eq!(feed.event("unsubscribed")["channel"], "news");
    client.close(1000);
    assert_eq!(feed.event("disconnected")["socket_id"], json!(socket_id));
    assert!(!feed.text.contains("secret-one"), "{}", feed.text);
}

#[test]
fn long_data_are_cut_and_encrypted_ones_are_not_shown() {
    let (_server, address, console) = open();
    let mut feed = Feed::open(console);
    let mut publisher = Http::connect(address);
    publisher.say("news", &"é".repeat(5000));
    let row = feed.event("published");
    assert_eq!((row["data"].as_str().map(str::len), &row["size"]), (Some(4096), &json!(10_000)));
    feed.forget();
    publisher.say("private-encrypted-news", r#"{"nonce":"n","ciphertext":"hidden"}"#);
    let row = feed.event("published");
    assert_eq!((row.get("data"), &row["encrypted"], &row["size"]), (None, &json!(true), &json!(35)));
    assert!(!feed.text.contains("hidden"), "{}", feed.text);
}

#[test]
fn only_so_many_may_watch_and_who_goes_makes_room() {
    let (_server, _, console) = open();
    let mut feeds: Vec<Feed> = (0..32).map(|_| Feed::open(console)).collect();
    let refused = get(console, "/console/api/events", &[]);
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    feeds.pop();
    eventually("room for another", || {
        let mut http = Http::connect(console);
        http.send(format!("GET /console/api/events HTTP/1.1\r\nHost: {console}\r\n\r\n").as_bytes());
        http.answer(false).status == 200
    });
}

#[test]
fn who_does_not_read_is_told_how_much_was_missed_and_holds_nobody_up() {
    let (_server, address, console) = open();
    let mut feed = Feed::open(console);
    let (mut client, _) = Client::member(address);
    client.subscribed("news");
    let mut publisher = Http::connect(address);
    // Far more than the kernel's buffers and the journal hold, without a read.
    let data = "x".repeat(4000);
    for _ in 0..12_000 {
        publisher.say("news", &data);
        client.message();
    }
    feed.wait_for("event: missed\ndata: ");
}

#[test]
fn a_drain_ends_the_events() {
    let (server, _, console) = open();
    let mut feed = Feed::open(console);
    let draining = std::thread::spawn(move || server.drain(Duration::from_secs(20)));
    while feed.http.read_more(&mut feed.text) {}
    draining.join().expect("no panic").expect("in order");
    // The end of a chunked body: it was not just cut off.
    assert!(feed.text.ends_with("0\r\n\r\n"), "{}", feed.text);
}

#[test]
fn the_console_publishes_as_a_backend_could() {
    let (_server, address, console) = open();
    let (mut client, socket_id) = Client::member(address);
    let (mut other, _) = Client::member(address);
    client.subscribed("news");
    other.subscribed("news");
    let publish = |app: &str, body: &Value| {
        let path = format!("/console/api/apps/{app}/events");
        Http::connect(console).request("POST", &path, &JSON, body.to_string().as_bytes())
    };
    let good = json!({ "name": "event", "channel": "news", "data": "{\"a\":1}", "socket_id": socket_id });
    assert_eq!(publish("1", &good).status, 200);
    assert_eq!(other.message(), event("news", "{\"a\":1}"));
    client.expect_nothing_before_a_pong();
    for (bad, reason) in [
        (json!({ "name": "", "channel": "news", "data": "" }), "event name is empty"),
        (json!({ "name": "pusher:x", "channel": "news", "data": "" }), "reserved"),
        (json!({ "name": "e", "channel": "no spaces", "data": "" }), "no spaces"),
        (json!({ "name": "e", "channel": "news", "data": "", "socket_id": "x" }), "socket_id"),
        (json!([]), "cannot be read"),
    ] {
        let refused = publish("1", &bad);
        assert_eq!(refused.status, 400, "{bad}");
        assert!(refused.error().contains(reason), "{}", refused.error());
    }
    assert_eq!(publish("1", &json!({ "name": "e", "channel": "c", "data": "x".repeat(102_401) })).status, 413);
    assert_eq!(publish("3", &good).status, 404);
}

#[test]
fn a_connection_is_listed_with_its_client_and_can_be_closed() {
    let (_server, address, console) = open();
    let target = "/app/key-one?protocol=7&client=swift&version=10.1.5";
    let mut client = Client::connect(address, target);
    let socket_id = client.greeting();
    let (mut other, _) = Client::member(address);
    client.subscribed("news");
    let listed = |filter: &str| {
        let path = format!("/console/api/apps/1/connections?filter={filter}");
        get(console, &path, &[]).json()["connections"].as_array().expect("a list").clone()
    };
    assert_eq!(listed("").len(), 2);
    let found = listed("10.1.5").remove(0);
    for (name, expected) in [
        ("socket_id", json!(socket_id)),
        ("address", json!("127.0.0.1")),
        ("client", json!("swift")),
        ("version", json!("10.1.5")),
        ("transport", json!("websocket")),
        ("subscriptions", json!(1)),
        ("channels", json!(["news"])),
    ] {
        assert_eq!(found[name], expected, "{name}");
    }
    assert!(found["age"].as_u64().is_some_and(|age| age < 20), "{found}");
    for filter in ["127.0.0.1", &socket_id] {
        assert_ne!(listed(filter).len(), 0, "{filter}");
    }
    assert_eq!((listed("ews").len(), listed("nobody").len()), (1, 0));

    let close = |app: &str, socket_id: &str| {
        let path = format!("/console/api/apps/{app}/connections/{socket_id}");
        Http::connect(console).request("DELETE", &path, &[], b"").status
    };
    for (app, socket_id) in [("1", "1.1"), ("1", "x"), ("3", socket_id.as_str()), ("2", &socket_id)] {
        assert_eq!(close(app, socket_id), 404, "{app} {socket_id}");
    }
    assert_eq!(close("1", &socket_id), 200);
    assert_eq!(client.message()["data"]["code"], 4009);
    assert_eq!(client.closed().0, 4009);
    assert_eq!(close("1", &socket_id), 404);
    other.expect_nothing_before_a_pong();
}

#[test]
fn members_are_listed_by_id_with_what_they_say_of_themselves() {
    let (_server, address, console) = open();
    let mut clients = Vec::new();
    let long = format!(r#"{{"user_id":"b","user_info":{{"text":"{}"}}}}"#, "é".repeat(900));
    for data in [r#"{"user_id":"c"}"#, &long, r#"{"user_id":"a","user_info":{"name":"Ann"}}"#, r#"{"user_id":"a"}"#] {
        let (mut client, socket_id) = Client::member(address);
        client.subscribed_signed(&socket_id, "presence-room", Some(data));
        clients.push(client);
    }
    let channel = get(console, "/console/api/apps/1/channels/presence-room", &[]).json();
    assert_eq!((&channel["users"], &channel["subscriptions"]), (&json!(3), &json!(4)));
    assert_eq!(channel["members"][0], json!({ "user_id": "a", "user_info": "{\"name\":\"Ann\"}", "connections": 2 }));
    assert_eq!(channel["members"][1]["user_info"].as_str().map(str::len), Some(1023), "cut between characters");
    assert_eq!(channel["members"][2], json!({ "user_id": "c", "connections": 1 }));
}

#[test]
fn channels_connections_and_numbers_are_told_and_no_secrets() {
    let (_server, address, console) = open();
    let (mut first, first_id) = Client::member(address);
    let (mut second, _) = Client::member(address);
    first.subscribed("news");
    second.subscribed("news");
    first.subscribed("sports");
    Http::connect(address).say("news", "1");
    first.message();
    second.message();

    let channels = get(console, "/console/api/apps/1/channels", &[]).json();
    assert_eq!(channels["total"], 2);
    assert_eq!(channels["channels"][0], json!({ "name": "news", "subscriptions": 2 }));
    let filtered = get(console, "/console/api/apps/1/channels?filter=port", &[]).json();
    assert_eq!((&filtered["total"], &filtered["channels"][0]["name"]), (&json!(1), &json!("sports")));
    let channel = get(console, "/console/api/apps/1/channels/news", &[]).json();
    assert_eq!((&channel["subscriptions"], &channel["members"]), (&json!(2), &json!([])));
    let connections = get(console, "/console/api/apps/1/connections", &[]).json();
    assert_eq!(connections["total"], 2);
    let found = connections["connections"].as_array().expect("a list").iter().find(|one| one["socket_id"] == first_id);
    let mut names: Vec<_> = found.expect("the first")["channels"].as_array().expect("a list").clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["news", "sports"]);
    let overview = get(console, "/console/api/overview", &[]);
    let app = &overview.json()["apps"][0];
    let counts = ["connections", "channels", "subscriptions", "published", "delivered"].map(|name| app[name].clone());
    assert_eq!(counts, [2, 2, 3, 1, 2].map(|count| json!(count)));
    assert_eq!(overview.json()["latency"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    assert!(!overview.text().contains("secret"), "{}", overview.text());
    assert_eq!(overview.json()["version"], env!("CARGO_PKG_VERSION"));
    assert!(overview.json()["uptime"].as_u64().is_some_and(|uptime| uptime < 600), "{}", overview.text());
    for path in ["/console/api/apps/3/channels", "/console/api/apps/3/connections", "/console/api/nothing"] {
        assert_eq!(get(console, path, &[]).status, 404, "{path}");
    }
}

#[test]
fn its_requests_are_counted_by_routes_of_their_own() {
    let (_server, address, console) = open();
    for path in ["/console", "/console/console.js", "/console/console.css", "/console/nothing", "/nothing"] {
        get(console, path, &[]);
    }
    for name in ["a", "b"] {
        get(console, &format!("/console/api/apps/1/channels/{name}"), &[]);
    }
    get(console, "/console/api/apps/7/channels", &[]);
    get(console, "/console/api/overview", &[]);
    drop(Feed::open(console));
    let metrics = Http::connect(address).metrics();
    let count = |route: &str, status: u16| {
        metrics.get(&format!("taut_http_requests_total{{route=\"{route}\",status=\"{status}\"}}")).copied()
    };
    assert_eq!(count("/console", 200), Some(3.0));
    assert_eq!(count("/console/api/apps/{app}/channels/{channel}", 200), Some(2.0));
    assert_eq!(count("/console/api/apps/{app}/channels", 404), Some(1.0));
    assert_eq!(count("/console/api/overview", 200), Some(1.0));
    assert_eq!(count("/console/api/events", 200), Some(1.0));
    assert_eq!((count("other", 404), count("other", 200)), (Some(2.0), None));
}
