//! The console as its page and as strangers see it, over real sockets.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, Client, Http, JSON, event, eventually, server};
use taut_server::config::Config;
use taut_server::{Running, Server};

const PASSWORD: &str = "correct horse battery";

fn locked() -> Running {
    server(|config| config.console_password = Some(PASSWORD.into()))
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
fn with_host(address: SocketAddr, hosts: &[&str]) -> u16 {
    let mut http = Http::connect(address);
    let hosts = hosts.join("\r\nHost: ");
    http.send(format!("GET /console/api/overview HTTP/1.1\r\nHost: {hosts}\r\n\r\n").as_bytes());
    http.answer(true).status
}

#[test]
fn on_the_servers_machine_the_console_needs_no_password() {
    let server = server(|_| {});
    let address = server.addresses()[0];
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
    assert_eq!((&session["password"], &session["admitted"]), (&json!(false), &json!(true)));
    let overview = get(address, "/console/api/overview", &[]);
    assert_eq!((overview.status, overview.header("cache-control")), (200, Some("no-store")));
    assert_eq!(overview.json()["apps"][0]["id"], "1");
}

#[test]
fn a_name_that_somebody_pointed_to_this_machine_finds_no_console() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    for host in ["127.0.0.1", "localhost:6001", "[::1]:6001", "LocalHost"] {
        assert_eq!(with_host(address, &[host]), 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:6001", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
    {
        assert_eq!(with_host(address, &[host]), 404, "{host}");
    }
    assert_ne!(with_host(address, &["localhost", "evil.example"]), 200);
    let mut http = Http::connect(address);
    http.send(b"GET http://evil.example/console/api/overview HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(http.answer(true).status, 404);
}

#[test]
fn what_a_proxy_passes_on_does_not_come_from_this_machine() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    for header in ["Forwarded", "X-Forwarded-For", "X-Real-IP"] {
        for path in ["/console", "/console/console.js", "/console/api/session", "/console/api/events"] {
            assert_eq!(get(address, path, &[(header, "192.0.2.1")]).status, 404, "{header} {path}");
        }
    }
    let publish = Http::connect(address).request(
        "POST",
        "/console/api/apps/1/events",
        &[("X-Forwarded-For", "127.0.0.1"), JSON[0]],
        br#"{"name":"e","channel":"c","data":""}"#,
    );
    assert_eq!(publish.status, 404);
}

#[test]
fn other_sites_pages_may_not_ask_and_may_not_send() {
    let server = server(|_| {});
    let address = server.addresses()[0];
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
    assert_eq!((&session["password"], &session["admitted"]), (&json!(true), &json!(false)));
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
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut feed = Feed::open(address);
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
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut feed = Feed::open(address);
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
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut feeds: Vec<Feed> = (0..32).map(|_| Feed::open(address)).collect();
    let refused = get(address, "/console/api/events", &[]);
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    feeds.pop();
    eventually("room for another", || {
        let mut http = Http::connect(address);
        http.send(format!("GET /console/api/events HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
        http.answer(false).status == 200
    });
}

#[test]
fn who_does_not_read_is_told_how_much_was_missed_and_holds_nobody_up() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut feed = Feed::open(address);
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
    let server = server(|_| {});
    let mut feed = Feed::open(server.addresses()[0]);
    let draining = std::thread::spawn(move || server.drain(Duration::from_secs(20)));
    while feed.http.read_more(&mut feed.text) {}
    draining.join().expect("no panic").expect("in order");
    // The end of a chunked body: it was not just cut off.
    assert!(feed.text.ends_with("0\r\n\r\n"), "{}", feed.text);
}

#[test]
fn the_console_publishes_as_a_backend_could() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut client, socket_id) = Client::member(address);
    let (mut other, _) = Client::member(address);
    client.subscribed("news");
    other.subscribed("news");
    let publish = |app: &str, body: &Value| {
        let path = format!("/console/api/apps/{app}/events");
        Http::connect(address).request("POST", &path, &JSON, body.to_string().as_bytes())
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
fn channels_connections_and_numbers_are_told_and_no_secrets() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut first, first_id) = Client::member(address);
    let (mut second, _) = Client::member(address);
    first.subscribed("news");
    second.subscribed("news");
    first.subscribed("sports");
    Http::connect(address).say("news", "1");
    first.message();
    second.message();

    let channels = get(address, "/console/api/apps/1/channels", &[]).json();
    assert_eq!(channels["total"], 2);
    assert_eq!(channels["channels"][0], json!({ "name": "news", "subscriptions": 2 }));
    let filtered = get(address, "/console/api/apps/1/channels?filter=port", &[]).json();
    assert_eq!((&filtered["total"], &filtered["channels"][0]["name"]), (&json!(1), &json!("sports")));
    let channel = get(address, "/console/api/apps/1/channels/news", &[]).json();
    assert_eq!((&channel["subscriptions"], &channel["members"]), (&json!(2), &json!([])));
    let connections = get(address, "/console/api/apps/1/connections", &[]).json();
    assert_eq!(connections["total"], 2);
    let found = connections["connections"].as_array().expect("a list").iter().find(|one| one["socket_id"] == first_id);
    let mut names: Vec<_> = found.expect("the first")["channels"].as_array().expect("a list").clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["news", "sports"]);
    let overview = get(address, "/console/api/overview", &[]);
    let app = &overview.json()["apps"][0];
    let counts = ["connections", "channels", "subscriptions", "published", "delivered"].map(|name| app[name].clone());
    assert_eq!(counts, [2, 2, 3, 1, 2].map(|count| json!(count)));
    assert_eq!(overview.json()["latency"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    assert!(!overview.text().contains("secret"), "{}", overview.text());
    for path in ["/console/api/apps/3/channels", "/console/api/apps/3/connections", "/console/api/nothing"] {
        assert_eq!(get(address, path, &[]).status, 404, "{path}");
    }
}

#[test]
fn its_requests_are_counted_by_routes_of_their_own() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    for path in ["/console", "/console/console.js", "/console/console.css", "/console/nothing", "/nothing"] {
        get(address, path, &[]);
    }
    for name in ["a", "b"] {
        get(address, &format!("/console/api/apps/1/channels/{name}"), &[]);
    }
    get(address, "/console/api/apps/7/channels", &[]);
    get(address, "/console/api/overview", &[]);
    drop(Feed::open(address));
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

#[test]
fn the_development_server_has_a_console_too() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start(&Config { listen, shards: 2, ..Config::default() }).expect("a server");
    let overview = get(server.addresses()[0], "/console/api/overview", &[]);
    assert_eq!((overview.status, &overview.json()["apps"][0]["id"]), (200, &json!("app-id")));
}
