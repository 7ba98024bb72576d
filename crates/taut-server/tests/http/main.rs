//! The HTTP side as backends and the chat page see it, over real sockets.

mod connections;
mod publishing;
#[path = "../support/mod.rs"]
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Http, JSON, event, server, signed, signed_with};
use taut_server::gateway::{Backend, RouteConfig};
use taut_server::{Config, Running, Server};

fn development_server() -> Running {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::start(&Config { listen, shards: 1, ..Config::default() }).expect("a server")
}

/// On two event loops, so that somebody is not where the channel is at home.
fn crowd(change: impl FnOnce(&mut Config)) -> (Running, Vec<(Client, String)>) {
    let server = server(|config| {
        config.shards = 2;
        change(config);
    });
    let mut clients: Vec<_> = (0..6).map(|_| Client::member(server.addresses()[0])).collect();
    for (number, (client, socket_id)) in clients.iter_mut().enumerate() {
        // Each user comes twice.
        let user = json!({ "user_id": format!("user-{}", number / 2) }).to_string();
        if number == 0 {
            client.subscribed("chat");
        }
        client.subscribed_signed(socket_id, "presence-room", Some(&user));
        client.subscribed_signed(socket_id, "private-room", None);
    }
    (server, clients)
}

#[test]
fn a_request_in_pieces_and_two_requests_in_one_piece_are_answered() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for piece in ["GET /u", "p HTTP/1.1\r", "\nHost: x\r\n\r", "\n"] {
        http.send(piece.as_bytes());
        // Without Nagle's delay each piece is a segment of its own, most of the time.
        std::thread::yield_now();
    }
    assert_eq!(http.answer(true).text(), r#"{"health":"OK"}"#);
    http.send(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut both = String::new();
    http.read_to_end(&mut both);
    assert!(both.contains(r#"{"health":"OK"}"#) && both.contains("HTTP/1.1 404"), "{both}");
}

#[test]
fn occupied_channels_are_told_with_what_they_have() {
    let (server, _clients) = crowd(|config| config.apps[0].features.subscription_count = true);
    let mut http = Http::connect(server.addresses()[0]);
    for (path, parameters, answer) in [
        ("/channels", "", json!({ "channels": { "presence-room": {}, "private-room": {}, "chat": {} } })),
        (
            "/channels",
            "&filter_by_prefix=presence-&info=user_count",
            json!({ "channels": { "presence-room": { "user_count": 3 } } }),
        ),
        ("/channels", "&filter_by_prefix=pri", json!({ "channels": { "private-room": {} } })),
        ("/channels", "&filter_by_prefix=x", json!({ "channels": {} })),
        (
            "/channels",
            "&info=subscription_count",
            json!({ "channels": {
                "presence-room": { "subscription_count": 6 },
                "private-room": { "subscription_count": 6 },
                "chat": { "subscription_count": 1 },
            } }),
        ),
        (
            "/channels",
            "&filter_by_prefix=presence-&info=user_count,subscription_count",
            json!({ "channels": { "presence-room": { "user_count": 3, "subscription_count": 6 } } }),
        ),
        ("/channels/presence-room", "&info=user_count", json!({ "occupied": true, "user_count": 3 })),
        (
            "/channels/presence-room",
            "&info=user_count,subscription_count",
            json!({ "occupied": true, "user_count": 3, "subscription_count": 6 }),
        ),
        ("/channels/private-room", "&info=subscription_count", json!({ "occupied": true, "subscription_count": 6 })),
        ("/channels/chat", "", json!({ "occupied": true })),
        ("/channels/other", "&info=subscription_count", json!({ "occupied": false, "subscription_count": 0 })),
        ("/connections", "", json!({ "connections": 6 })),
    ] {
        let found = http.get(&format!("/apps/1{path}"), parameters);
        assert_eq!((found.status, found.json()), (200, answer), "{path}{parameters}");
    }
    let users = http.get("/apps/1/channels/presence-room/users", "").json();
    let mut users: Vec<&str> =
        users["users"].as_array().expect("a list").iter().map(|user| user["id"].as_str().expect("an id")).collect();
    users.sort_unstable();
    assert_eq!(users, ["user-0", "user-1", "user-2"]);
    let of_two = signed_with("key-two", "secret-two", "GET", "/apps/2/channels", "", b"");
    assert_eq!(http.request("GET", &of_two, &[], b"").json(), json!({ "channels": {} }), "the other app has none");
}

#[test]
fn a_cache_channel_tells_its_last_event_and_how_long_it_is_kept() {
    let server = server(|config| config.shards = 2);
    let mut http = Http::connect(server.addresses()[0]);
    for channel in ["cache-a", "private-cache-a", "presence-cache-a", "private-encrypted-cache-a"] {
        for data in ["first", r#"{"last":"é"}"#] {
            http.say(channel, data);
        }
        let path = format!("/apps/1/channels/{channel}");
        let state = http.get(&path, "&info=cache").json();
        assert_eq!((&state["occupied"], &state["cache"]["data"]), (&json!(false), &json!(r#"{"last":"é"}"#)));
        let ttl = state["cache"]["ttl"].as_u64().expect("seconds");
        assert!((1700..=1800).contains(&ttl), "{ttl}");
    }
}

#[test]
fn terminating_ends_the_users_connections_and_nobody_elses() {
    for path in ["/apps/1/users/user%201/terminate_connections", "/users/user%201/terminate_connections"] {
        let server = server(|config| config.shards = 2);
        let address = server.addresses()[0];
        let connect = |user: &str| {
            let (mut client, socket_id) = Client::member(address);
            client.signed_in(&socket_id, &json!({ "id": user }).to_string());
            client
        };
        let mut theirs = [connect("user 1"), connect("user 1"), connect("user 1")];
        let mut another = connect("user 2");
        let answer = Http::connect(address).post(path, &json!({}));
        assert_eq!((answer.status, answer.text()), (200, "{}"));
        for client in &mut theirs {
            let code = loop {
                match client.next() {
                    support::Heard::Close(code, _) => break code,
                    support::Heard::Message(_) => {}
                    support::Heard::End => panic!("it ended without a code"),
                }
            };
            assert_eq!(code, 4009);
        }
        another.expect_nothing_before_a_pong();
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_refused() {
    let server = server(|config| config.apps[1].features.subscription_count = true);
    let mut http = Http::connect(server.addresses()[0]);
    for (path, parameters, reason) in [
        ("/channels", "&info=user_count", "user_count may only be requested for presence channels"),
        ("/channels", "&filter_by_prefix=private-&info=user_count", "user_count may only be requested for presence"),
        ("/channels", "&info=subscription_count", "subscription_count is not enabled for this app"),
        ("/channels", "&filter_by_prefix=cache-&info=cache", "cache may only be requested for one channel"),
        ("/channels", "&info=users", "There is no attribute \"users\""),
        ("/channels/chat", "&info=user_count", "user_count may only be requested for presence channels"),
        ("/channels/chat", "&info=subscription_count", "subscription_count is not enabled for this app"),
        ("/channels/presence-chat", "&info=cache", "cache may only be requested for cache channels"),
        ("/channels/presence-cache-chat", "&info=cache,weather", "There is no attribute \"weather\""),
        ("/channels/a%20b", "", "The channel name contains a character that is not allowed."),
        ("/channels/%ff", "", "percent-encoded bytes that are not UTF-8"),
        ("/channels/chat/users", "", "The channel must be a presence channel."),
        ("/channels/private-chat/users", "", "The channel must be a presence channel."),
    ] {
        let answer = http.get(&format!("/apps/1{path}"), parameters);
        assert_eq!(answer.status, 400, "{path}{parameters}");
        assert!(answer.error().contains(reason), "{}", answer.text());
    }
    let of_two = |path: &str, parameters: &str| signed_with("key-two", "secret-two", "GET", path, parameters, b"");
    let target = of_two("/apps/2/channels/presence-chat", "&info=subscription_count");
    assert_eq!(http.request("GET", &target, &[], b"").json(), json!({ "occupied": false, "subscription_count": 0 }));
    let target = of_two("/apps/2/channels", "&info=subscription_count");
    assert_eq!(http.request("GET", &target, &[], b"").json(), json!({ "channels": {} }));
}

#[test]
fn what_nobody_has_subscribed_to_is_vacant_and_no_mistake() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for (path, parameters, answer) in [
        ("/channels", "", r#"{"channels":{}}"#),
        ("/channels", "&filter_by_prefix=presence-&info=user_count", r#"{"channels":{}}"#),
        ("/channels/chat", "", r#"{"occupied":false}"#),
        ("/channels/presence-chat", "&info=user_count", r#"{"occupied":false,"user_count":0}"#),
        ("/channels/cache-chat", "&info=cache", r#"{"occupied":false,"cache":null}"#),
        ("/channels/presence-chat/users", "", r#"{"users":[]}"#),
        ("/channels/presence-a%40b%3B/users", "", r#"{"users":[]}"#),
    ] {
        let found = http.get(&format!("/apps/1{path}"), parameters);
        assert_eq!((found.status, found.text()), (200, answer), "{path}{parameters}");
        assert_eq!(found.header("content-type"), Some("application/json"));
    }
}

#[test]
fn lists_are_understood_however_an_sdk_writes_them() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    let path = "/apps/1/channels/presence-cache-chat";
    let signed = signed("GET", path, "&info=user_count,cache", b"");
    for written in ["info=user_count,cache", "info=user_count%2Ccache", "info%5B0%5D=user_count&info%5B1%5D=cache"] {
        let target = signed.replace("info=user_count,cache", written);
        assert_eq!(
            http.request("GET", &target, &[], b"").json(),
            json!({ "occupied": false, "user_count": 0, "cache": null }),
            "{written}"
        );
    }
}

#[test]
fn connections_are_counted_for_who_asks() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut http = Http::connect(address);
    assert_eq!(http.get("/apps/1/connections", "").text(), r#"{"connections":0}"#);
    let (client, _) = Client::member(address);
    assert_eq!(http.get("/apps/1/connections", "").text(), r#"{"connections":1}"#);
    client.vanish();
    support::eventually("the end of a connection", || {
        http.get("/apps/1/connections", "").text() == r#"{"connections":0}"#
    });
}

#[test]
fn terminating_takes_every_spelling_of_the_path_and_the_body() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for (path, body) in [
        ("/apps/1/users/12345/terminate_connections", &b"{}"[..]),
        ("/apps/1/users/12345/terminate_connections", b""),
        ("/apps/1/users/a%2Fb%20c/terminate_connections", b"{}"),
        // As pusher-http-python has it.
        ("/users/12345/terminate_connections", b"{}"),
    ] {
        let answer = http.request("POST", &signed("POST", path, "", body), &JSON, body);
        assert_eq!((answer.status, answer.text()), (200, "{}"), "{path}");
    }
    let decoded = signed("POST", "/apps/1/users/a b/terminate_connections", "", b"{}").replace("a b", "a%20b");
    assert_eq!(http.request("POST", &decoded, &JSON, b"{}").status, 200);
    let long = format!("/apps/1/users/{}/terminate_connections", "x".repeat(129));
    let refused = http.post(&long, &json!({}));
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (400, "Invalid user id: it has between 1 and 128 characters.")
    );
    let path = "/users/1/terminate_connections";
    for (target, reason) in [
        (path.to_owned(), "Missing query parameter: auth_key"),
        (signed_with("nobody", "x", "POST", path, "", b"{}"), "Unknown auth_key"),
        (signed_with("key-one", "x", "POST", path, "", b"{}"), "Invalid signature"),
    ] {
        let refused = http.request("POST", &target, &JSON, b"{}");
        assert_eq!(refused.status, 401);
        assert!(refused.error().starts_with(reason), "{}", refused.text());
    }
}

#[test]
fn a_disabled_app_is_refused_once_it_has_shown_who_it_is() {
    let server = server(|config| config.apps[0].enabled = false);
    let mut http = Http::connect(server.addresses()[0]);
    let refused = http.publish(&json!({ "name": "e", "channel": "c", "data": "" }));
    assert_eq!((refused.status, refused.error().as_str()), (403, "The app 1 is disabled."));
    assert_eq!(http.get("/apps/1/channels", "").status, 403);
    assert_eq!(http.request("GET", "/apps/1/channels", &[], b"").status, 401);
}

#[test]
fn an_app_that_asks_too_often_is_told_when_to_come_back() {
    let server = server(|config| config.limits.requests = 2);
    let mut http = Http::connect(server.addresses()[0]);
    // Strangers use up nothing.
    for _ in 0..5 {
        assert_eq!(http.request("GET", "/apps/1/channels", &[], b"").status, 401);
    }
    let mut allowed = 0;
    let refused = loop {
        let answer = http.get("/apps/1/channels", "");
        if answer.status != 200 {
            break answer;
        }
        allowed += 1;
        assert!(allowed < 1000, "no flood is refused");
    };
    assert!(allowed >= 2, "{allowed}");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.error(), "Too many requests: at most 2 per second.");
    let other = signed_with("key-two", "secret-two", "GET", "/apps/2/channels", "", b"");
    assert_eq!(http.request("GET", &other, &[], b"").status, 200, "the other app has its own");
}

#[test]
fn each_path_says_which_methods_it_knows() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for (path, method, allowed) in [
        ("/apps/1/events", "GET", "POST"),
        ("/apps/1/batch_events", "DELETE", "POST"),
        ("/apps/1/channels", "POST", "GET,HEAD"),
        ("/apps/1/channels/c", "PUT", "GET,HEAD"),
        ("/apps/1/channels/c/users", "POST", "GET,HEAD"),
        ("/apps/1/connections", "POST", "GET,HEAD"),
        ("/apps/1/users/u/terminate_connections", "GET", "POST"),
        ("/users/u/terminate_connections", "GET", "POST"),
        ("/up", "POST", "GET,HEAD"),
        ("/ready", "POST", "GET,HEAD"),
        ("/metrics", "POST", "GET,HEAD"),
    ] {
        let answer = http.request(method, path, &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        answer.error();
    }
}

#[test]
fn a_server_is_ready_until_it_goes() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    let answer = http.request("GET", "/ready", &[], b"");
    assert_eq!((answer.status, answer.text()), (200, r#"{"ready":true}"#));
    assert_eq!(http.request("HEAD", "/ready", &[], b"").status, 200);
    assert!(server.announce_end(), "somebody has asked, and is to see it");
    let answer = http.request("GET", "/ready", &[], b"");
    assert_eq!((answer.status, answer.error().as_str()), (503, "The server is going down."));
    // Meanwhile all is as before, for those who come now as well.
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("news");
    http.say("news", "1");
    assert_eq!(client.message(), event("news", "1"));
    assert_eq!(Http::connect(server.addresses()[0]).request("GET", "/up", &[], b"").status, 200);
}

#[test]
fn nobody_is_told_of_an_end_where_nobody_asks() {
    let server = server(|_| {});
    assert_eq!(Http::connect(server.addresses()[0]).request("GET", "/up", &[], b"").status, 200);
    assert!(!server.announce_end());
}

#[test]
fn metrics_are_for_those_who_have_the_token_and_without_one_for_their_own_listener() {
    let token = "a-long-enough-token";
    let bearer = format!("Bearer {token}");
    let nothing: &[(&str, &str)] = &[];
    let right: &[(&str, &str)] = &[("Authorization", &bearer)];
    let wrong: &[(&str, &str)] = &[("Authorization", "Bearer another-long-token")];
    let basic: &[(&str, &str)] = &[("Authorization", "Basic YTpi")];
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    for (with_token, headers, where_clients_connect, on_its_own) in [
        (false, nothing, 403, 200),
        (false, wrong, 403, 200),
        (true, nothing, 401, 401),
        (true, wrong, 401, 401),
        (true, basic, 401, 401),
        (true, right, 200, 200),
    ] {
        let server = server(|config| {
            config.metrics_token = with_token.then(|| token.into());
            config.metrics_listen = Some(loopback);
            config.console_listen = Some(loopback);
        });
        let own = [server.metrics_address(), server.console_address()].map(|address| address.expect("a listener"));
        for (address, status) in
            [(server.addresses()[0], where_clients_connect), (own[0], on_its_own), (own[1], on_its_own)]
        {
            let answer = Http::connect(address).request("GET", "/metrics", headers, b"");
            assert_eq!(answer.status, status, "{with_token} {headers:?}");
            match status {
                200 => assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8")),
                401 => assert_eq!(answer.header("www-authenticate"), Some("Bearer")),
                _ => assert!(["metrics-listen", "metrics-token"].iter().all(|name| answer.error().contains(name))),
            }
        }
    }
}

#[test]
fn the_metrics_listener_has_the_metrics_and_the_health_and_nothing_else() {
    let server = server(|config| {
        config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.console_password = Some("correct horse battery".into());
    });
    let mut http = Http::connect(server.metrics_address().expect("a listener"));
    for path in ["/up", "/ready"] {
        assert_eq!(http.request("GET", path, &[], b"").status, 200, "{path}");
    }
    // Requests there are counted as everywhere.
    let metrics = http.metrics();
    assert_eq!(metrics.get("taut_http_requests_total{route=\"/up\",status=\"200\"}"), Some(&1.0));
    for path in ["/", "/console", "/console/api/session", "/app/key-one", "/chat/config"] {
        assert_eq!(http.request("GET", path, &[], b"").status, 404, "{path}");
    }
    assert_eq!(http.post("/apps/1/events", &json!({ "name": "e", "channel": "c", "data": "" })).status, 404);
    server.announce_end();
    assert_eq!(http.request("GET", "/ready", &[], b"").status, 503);
}

#[test]
fn metrics_tell_what_has_happened() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    http.say("chat", "");
    http.say("chat", "");
    assert_eq!(http.request("GET", "/apps/1/channels", &[], b"").status, 401);
    assert_eq!(http.request("GET", "/nowhere/private-secret", &[], b"").status, 404);
    assert_eq!(http.request("BREW", "/up", &[], b"").status, 405);
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    http.say("chat", "four");
    client.message();
    client.send(&json!({ "event": "client-no", "channel": "chat", "data": {} }));
    client.message();
    let metrics = http.metrics();
    for (sample, value) in [
        ("taut_connections{app=\"1\",transport=\"ws\"}", 1.0),
        ("taut_connections{app=\"1\",transport=\"sockjs\"}", 0.0),
        ("taut_connections{app=\"2\",transport=\"ws\"}", 0.0),
        ("taut_subscriptions{app=\"1\"}", 1.0),
        ("taut_channels{app=\"1\"}", 1.0),
        ("taut_messages_received_total{app=\"1\"}", 2.0),
        ("taut_events_published_total{app=\"1\"}", 3.0),
        ("taut_events_delivered_total{app=\"1\"}", 1.0),
        ("taut_refusals_total{app=\"1\",what=\"client_event\",reason=\"channel\"}", 1.0),
        ("taut_refusals_total{app=\"1\",what=\"request\",reason=\"parameter\"}", 1.0),
        ("taut_connections_opened_total", 1.0),
        ("taut_connections_kicked_total", 0.0),
        ("taut_connections_overloaded_total", 0.0),
        ("taut_http_requests_total{route=\"/apps/{app}/events\",status=\"200\"}", 3.0),
        ("taut_http_requests_total{route=\"/apps/{app}/channels\",status=\"401\"}", 1.0),
        ("taut_http_requests_total{route=\"other\",status=\"404\"}", 1.0),
        ("taut_http_requests_total{route=\"/up\",status=\"405\"}", 1.0),
        ("taut_http_request_duration_seconds_count{route=\"/apps/{app}/events\"}", 3.0),
        ("taut_build_info{version=\"0.1.0\"}", 1.0),
    ] {
        assert_eq!(metrics.get(sample), Some(&value), "{sample} in {metrics:#?}");
    }
    // Two bytes of header, and {"event":"event","channel":"chat","data":"four"}.
    assert_eq!(metrics.get("taut_delivered_bytes_total{app=\"1\"}"), Some(&50.0));
    assert!(
        metrics["taut_delivery_duration_seconds_count"] >= 1.0 && metrics["taut_delivery_duration_seconds_sum"] < 20.0
    );
    assert!(metrics["process_resident_memory_bytes"] > 1_000_000.0);
    assert!(metrics["process_cpu_seconds_total"] > 0.0);
    assert!(metrics["process_virtual_memory_bytes"] > metrics["process_resident_memory_bytes"]);
    assert!(!metrics.keys().any(|sample| sample.contains("secret") || sample.contains("auth_")));
}

#[test]
fn refusals_are_counted_by_their_reasons() {
    let server = server(|config| config.apps[1].enabled = false);
    let address = server.addresses()[0];
    for (target, code) in [
        ("/app/nobody", 4001),
        ("/app/nobody/else", 4005),
        ("/app/key-two", 4003),
        ("/app/key-one?protocol=4", 4007),
        ("/app/nobody", 4001),
    ] {
        assert_eq!(Client::connect(address, target).message()["data"]["code"], code, "{target}");
    }
    let mut http = Http::connect(address);
    assert_eq!(http.request("GET", "/app/key-one", &[], b"").status, 426);
    for (key, secret, path) in [
        ("key-one", "wrong", "/apps/1/channels"),
        ("key-two", "wrong", "/apps/1/channels"),
        ("k", "s", "/apps/7/channels"),
    ] {
        let target = signed_with(key, secret, "GET", path, "", b"");
        assert_ne!(http.request("GET", &target, &[], b"").status, 200);
    }
    let (mut client, _) = Client::member(address);
    client.send(&json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": "key-one:00" } }));
    client.send(&json!({ "event": "pusher:subscribe", "data": { "channel": "a b" } }));
    client.send(&json!({ "event": "pusher:signin", "data": { "auth": "", "user_data": "{}" } }));
    (0..3).for_each(|_| drop(client.message()));
    let metrics = http.metrics();
    let found: Vec<_> = metrics.iter().filter(|(sample, _)| sample.starts_with("taut_refusals_total")).collect();
    for (app, what, reason, count) in [
        ("", "connection", "unknown_key", 2.0),
        ("", "connection", "path", 1.0),
        ("", "connection", "handshake", 1.0),
        ("2", "connection", "app_disabled", 1.0),
        ("1", "connection", "protocol_version", 1.0),
        ("1", "request", "signature", 1.0),
        ("1", "request", "unknown_key", 1.0),
        ("", "request", "unknown_app", 1.0),
        ("1", "subscription", "signature", 1.0),
        ("1", "subscription", "channel_name", 1.0),
        ("1", "sign_in", "signature", 1.0),
    ] {
        let sample = format!("taut_refusals_total{{app=\"{app}\",what=\"{what}\",reason=\"{reason}\"}}");
        assert_eq!(metrics.get(&sample), Some(&count), "{sample} in {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_page_of_metrics_lists_exactly_those_that_there_are() {
    let backend = Backend::Http { url: "http://127.0.0.1:9/".to_owned() };
    let server = server(|config| config.routes.push(RouteConfig::new("/routed", "1", backend)));
    let bearer = format!("Bearer {}", support::METRICS_TOKEN);
    let answer = Http::connect(server.addresses()[0]).request("GET", "/metrics", &[("Authorization", &bearer)], b"");
    let told: std::collections::BTreeSet<String> =
        answer.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    let page = include_str!("../../../../docs/metrics.md");
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| {
        let (name, rest) = line.split_once("` | ")?;
        Some(format!("{name} {}", rest.split_once(" |")?.0))
    });
    let listed = listed.filter(|line| ["counter", "gauge", "histogram"].iter().any(|kind| line.ends_with(kind)));
    // Those of a cluster are on its nodes only, those of certificates where TLS is spoken; they are tested there.
    let elsewhere = ["taut_cluster_", "taut_tls_", "taut_acme_"];
    let listed = listed.filter(|line| !elsewhere.iter().any(|prefix| line.starts_with(prefix)));
    assert_eq!(listed.collect::<std::collections::BTreeSet<_>>(), told);
}

#[test]
fn only_what_is_not_there_is_counted_as_other() {
    let server = server(|config| config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let mut http = Http::connect(server.addresses()[0]);
    for (method, path, label) in [
        ("GET", "/apps/1/webhooks/failed", "/apps/{app}/webhooks/failed"),
        ("POST", "/apps/1/webhooks/failed/7/retry", "/apps/{app}/webhooks/failed/{number}/retry"),
        ("GET", "/", "/"),
        ("GET", "/chat.js", "/chat.js"),
        ("GET", "/pusher/info", "/pusher/info"),
        ("POST", "/pusher/app/k/1/session1/xhr", "/pusher/app/{key}/{server}/{session}/xhr"),
        // A body makes a shard hand it over.
        ("POST", "/live", "/up"),
        ("POST", "/accept-traffic", "/ready"),
        ("POST", "/up/1", "/up"),
    ] {
        let status = http.request(method, path, &[], b"{}").status;
        let sample = format!("taut_http_requests_total{{route=\"{label}\",status=\"{status}\"}}");
        assert!(http.metrics().contains_key(&sample), "{path}: no {sample}");
    }
    // The listeners for operators have the same labels.
    let mut metrics = Http::connect(server.metrics_address().expect("a listener"));
    for path in ["/live", "/accept-traffic", "/up/1"] {
        assert_eq!(metrics.request("GET", path, &[], b"").status, 200, "{path}");
    }
    assert!(!metrics.metrics().keys().any(|sample| sample.contains("route=\"other\"")));
}

#[test]
fn with_a_prefix_requests_are_counted_under_the_same_names() {
    let server = server(|config| config.path_prefix = "/realtime".to_owned());
    let mut http = Http::connect(server.addresses()[0]);
    assert_eq!(http.get("/realtime/apps/1/channels", "").status, 200);
    assert_eq!(http.request("GET", "/up", &[], b"").status, 200);
    let metrics = http.metrics();
    assert_eq!(metrics.get("taut_http_requests_total{route=\"/apps/{app}/channels\",status=\"200\"}"), Some(&1.0));
    assert_eq!(metrics.get("taut_http_requests_total{route=\"/up\",status=\"200\"}"), Some(&1.0));
}

#[test]
fn health_is_told() {
    let server = server(|_| {});
    let answer = Http::connect(server.addresses()[0]).request("GET", "/up", &[], b"");
    assert_eq!((answer.status, answer.text()), (200, r#"{"health":"OK"}"#));
}

#[test]
fn a_server_with_apps_of_its_own_says_what_it_is_and_nothing_else() {
    let server = server(|_| {});
    let page = Http::connect(server.addresses()[0]).request("GET", "/", &[], b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    let text = page.text().to_lowercase();
    assert!(text.contains("this is a taut server"), "{text}");
    for told in [env!("CARGO_PKG_VERSION"), "key-one", "<script", "chat", "console"] {
        assert!(!text.contains(told), "{told}");
    }
    // With the development app it is the chat, until other apps take its place.
    let server = development_server();
    let mut http = Http::connect(server.addresses()[0]);
    assert!(http.request("GET", "/", &[], b"").text().contains("/chat.js"));
    let app = taut_server::app::AppConfig::parse("1:key-one:secret-one").expect("an app");
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), shards: 1, ..Config::default() };
    server.reload(&Config { apps: vec![app], ..config }).expect("good");
    assert!(!http.request("GET", "/", &[], b"").text().contains("/chat.js"));
}

#[test]
fn the_pages_are_served_with_their_types_and_a_strict_policy() {
    let server = development_server();
    let mut http = Http::connect(server.addresses()[0]);
    for (path, content_type, part) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/base.css", "text/css; charset=utf-8", "{"),
        ("/chat.css", "text/css; charset=utf-8", "{"),
        ("/server.css", "text/css; charset=utf-8", "{"),
        ("/chat.js", "text/javascript; charset=utf-8", "import"),
        ("/taut.js", "text/javascript; charset=utf-8", "export"),
    ] {
        let answer = http.request("GET", path, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert!(
            answer
                .header("content-security-policy")
                .is_some_and(|policy| policy.starts_with("default-src 'none'; script-src 'self';"))
        );
        assert!(answer.text().to_lowercase().contains(part), "{path}");
        let length = answer.body.len().to_string();
        let head = http.request("HEAD", path, &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
    }
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let server = development_server();
    let mut http = Http::connect(server.addresses()[0]);
    for (page, least) in [("/", 4), ("/console", 9)] {
        let text = http.request("GET", page, &[], b"").text().to_owned();
        let named = |attribute| text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
        let files: Vec<&str> = named("href=\"").chain(named("src=\"")).filter(|name| name.starts_with('/')).collect();
        assert!(files.len() >= least, "{files:?}");
        for file in files {
            // A proxy may pass on nothing but the console.
            assert!(page == "/" || file == "/" || file.starts_with(page), "{file}");
            assert_eq!(http.request("GET", file, &[], b"").status, 200, "{file}");
        }
    }
}

#[test]
fn what_is_said_in_the_chat_reaches_everybody_there() {
    let server = development_server();
    let address = server.addresses()[0];
    assert_eq!(server.development_app().map(|app| app.key().key.clone()).as_deref(), Some("app-key"));
    let mut http = Http::connect(address);
    assert_eq!(http.request("GET", "/chat/config", &[], b"").json(), json!({ "key": "app-key", "channel": "chat" }));
    let mut client = Client::connect(address, "/app/app-key?protocol=7");
    client.greeting();
    client.subscribed("chat");
    let message = json!({ "name": "Ann", "text": "<b>hello</b> 😀", "id": "1" });
    let origin = format!("http://{address}");
    let answer =
        http.request("POST", "/chat/messages", &[("Origin", &origin), JSON[0]], message.to_string().as_bytes());
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    let heard = client.message();
    assert_eq!((&heard["event"], &heard["channel"]), (&json!("message"), &json!("chat")));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(heard["data"].as_str().expect("a string")).ok(),
        Some(message)
    );
}

#[test]
fn the_chat_refuses_other_sites_bad_messages_and_floods() {
    let server = development_server();
    let mut http = Http::connect(server.addresses()[0]);
    let good = br#"{"name":"Ann","text":"hello","id":"1"}"#;
    let mut say = |headers: &[(&str, &str)], body: &[u8]| http.request("POST", "/chat/messages", headers, body);
    assert_eq!(say(&[("Origin", "http://evil.example"), JSON[0]], good).status, 403);
    assert_eq!(say(&[("Content-Type", "text/plain")], good).status, 415);
    assert_eq!(say(&JSON, b"{}").status, 400);
    let long = json!({ "name": "Ann", "text": "x".repeat(1025), "id": "1" }).to_string();
    assert!(say(&JSON, long.as_bytes()).error().contains("at most 1024 bytes"));
    assert_eq!(say(&JSON, &vec![b' '; 20_000]).status, 413);
    let mut allowed = 0;
    let refused = loop {
        let answer = say(&JSON, good);
        if answer.status != 200 {
            break answer;
        }
        allowed += 1;
        assert!(allowed < 1000, "no flood is refused");
    };
    assert!(allowed >= 20, "{allowed}");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
}

#[test]
fn there_is_no_chat_beside_apps_of_ones_own() {
    let server = server(|_| {});
    assert!(server.development_app().is_none());
    let mut http = Http::connect(server.addresses()[0]);
    let config = http.request("GET", "/chat/config", &[], b"");
    assert_eq!(config.status, 404);
    assert!(config.error().contains("development app"));
    assert_eq!(http.request("POST", "/chat/messages", &JSON, b"{}").status, 404);
}

#[test]
fn a_drain_answers_the_request_that_is_under_way_and_ends_idle_connections() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let mut idle = Http::connect(address);
    assert_eq!(idle.request("GET", "/up", &[], b"").status, 200);
    let body = json!({ "name": "event", "channel": "chat", "data": "late" }).to_string();
    let target = signed("POST", "/apps/1/events", "", body.as_bytes());
    let mut busy = Http::connect(address);
    busy.send(
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len())
            .as_bytes(),
    );
    assert_eq!(busy.answer(false).status, 100, "the request is being read");
    let start = Instant::now();
    let draining = std::thread::spawn(move || server.drain(Duration::from_secs(10)));
    assert!(idle.is_at_end());
    busy.send(body.as_bytes());
    assert!([200, 503].contains(&busy.answer(true).status), "it was answered");
    assert!(busy.is_at_end());
    draining.join().expect("no panic").expect("drained");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_address_in_use_is_refused_with_what_to_do() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    for shards in [1, 2] {
        let config = Config { listen: address, shards, ..Config::default() };
        let refused = Server::start(&config).expect_err("taken").to_string();
        assert!(
            refused.contains(&format!("listen: cannot listen on {address}: "))
                && refused.contains("choose another port"),
            "{refused}"
        );
    }
    server.drain(Duration::from_secs(5)).expect("drained");
    let config = Config { listen: address, shards: 1, ..Config::default() };
    Server::start(&config).expect("the port is free at once");
}

#[test]
fn a_server_that_is_dropped_lets_go_of_everything() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut client, _) = Client::member(address);
    let mut http = Http::connect(address);
    assert_eq!(http.request("GET", "/up", &[], b"").status, 200);
    drop(server);
    assert!(http.is_at_end());
    while client.next() != support::Heard::End {}
    let mut stream = std::net::TcpStream::connect(address).map(|mut stream| stream.read(&mut [0]).unwrap_or(0));
    assert!(matches!(stream.as_mut(), Err(_) | Ok(0)));
}
