//! The Pusher protocol as a client sees it, over real sockets.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Heard, Http, JSON, eventually, server, signed, signed_with};
use taut_proto::{Message, deflate};
use taut_server::app::{AppConfig, Limits};
use taut_server::pusher::auth::Signature;

#[test]
fn a_client_is_greeted_with_a_socket_id_and_the_activity_timeout() {
    let server = server(|config| config.activity_timeout = Duration::from_secs(77));
    let mut client =
        Client::connect(server.addresses()[0], "/app/key-one?protocol=7&client=js&version=8.6.0&flash=false");
    let greeting = client.message();
    let data: Value = serde_json::from_str(greeting["data"].as_str().expect("a string")).expect("JSON");
    assert_eq!((&greeting["event"], &data["activity_timeout"]), (&json!("pusher:connection_established"), &json!(77)));
    let socket_id = data["socket_id"].as_str().expect("a string");
    let parts: Vec<u64> = socket_id.split('.').map(|part| part.parse().expect("digits")).collect();
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| *part <= 1 << 53));
}

#[test]
fn no_two_connections_share_a_socket_id() {
    let server = server(|_| {});
    let ids: std::collections::HashSet<String> = (0..50).map(|_| Client::member(server.addresses()[0]).1).collect();
    assert_eq!(ids.len(), 50);
}

#[test]
fn protocols_5_to_7_and_none_are_spoken() {
    let server = server(|_| {});
    for target in ["/app/key-one", "/app/key-one?protocol=5", "/app/key-one?protocol=6", "/app/key-two?x=y&protocol=7"]
    {
        Client::connect(server.addresses()[0], target).greeting();
    }
}

#[test]
fn a_key_of_base64_is_found_whether_its_signs_are_escaped_or_not() {
    let server = server(|config| config.apps.push(AppConfig::new("3", "q+Zk1w9R2oXz==", "secret-three")));
    let address = server.addresses()[0];
    for key in ["q+Zk1w9R2oXz==", "q%2BZk1w9R2oXz%3D%3D", "q%2bZk1w9R2oXz%3d="] {
        let mut client = Client::connect(address, &format!("/app/{key}?protocol=7"));
        let socket_id = client.greeting();
        let signature = Signature::of_subscription("secret-three", &socket_id, "private-a", None);
        let data = json!({ "auth": format!("q+Zk1w9R2oXz==:{signature}"), "channel": "private-a" });
        client.send(&json!({ "event": "pusher:subscribe", "data": data }));
        assert_eq!(client.message()["event"], "pusher_internal:subscription_succeeded");
    }
    // Once, not twice.
    let mut client = Client::connect(address, "/app/q%252BZk1w9R2oXz%3D%3D?protocol=7");
    assert_eq!(client.message()["data"]["code"], 4001);
    // A raw `+` in a query is a plus as well: no key has a space.
    let body = br#"{"name":"event","channel":"private-a","data":"{}"}"#;
    let target = signed_with("q+Zk1w9R2oXz==", "secret-three", "POST", "/apps/3/events", "", body);
    for target in [target.replace("q+Zk1w9R2oXz==", "q%2BZk1w9R2oXz%3D%3D"), target] {
        assert_eq!(Http::connect(address).request("POST", &target, &JSON, body).status, 200, "{target}");
    }
}

#[test]
fn whoever_cannot_stay_is_let_in_and_told_by_error_and_close_code() {
    let server = server(|config| config.limits = Limits { connections: 1, ..Limits::default() });
    let (_only, _) = Client::member(server.addresses()[0]);
    for (target, code, reason) in [
        ("/app/nobody?protocol=7", 4001, "Application does not exist: there is no app with the key nobody"),
        ("/app/key-one?protocol=7", 4004, "Application is over connection quota"),
        ("/app/", 4005, "Path not found: clients connect to /app/KEY"),
        ("/application", 4005, "Path not found: clients connect to /app/KEY"),
        ("/app/key-one/more", 4005, "Path not found: clients connect to /app/KEY"),
        ("/app/key-two?protocol=seven", 4006, "Invalid version string format: the protocol is a number"),
        ("/app/key-two?protocol=%2B7", 4006, "Invalid version string format: the protocol is a number"),
        ("/app/key-two?protocol=4", 4007, "Unsupported protocol version: this server speaks 5 to 7"),
        ("/app/key-two?protocol=8", 4007, "Unsupported protocol version: this server speaks 5 to 7"),
    ] {
        let mut client = Client::connect(server.addresses()[0], target);
        assert_eq!(
            client.message(),
            json!({ "event": "pusher:error", "data": { "code": code, "message": reason } }),
            "{target}"
        );
        assert_eq!(client.closed(), (code, reason.to_owned()), "{target}");
        assert_eq!(client.next(), Heard::End, "{target}");
    }
}

#[test]
fn a_connection_that_ends_gives_its_place_to_another() {
    let server = server(|config| config.limits = Limits { connections: 1, ..Limits::default() });
    let (first, _) = Client::member(server.addresses()[0]);
    first.vanish();
    eventually("the place became free", || server.connections() == 0);
    Client::member(server.addresses()[0]);
}

#[test]
fn a_path_prefix_precedes_the_key() {
    let server = server(|config| config.path_prefix = "/realtime".to_owned());
    Client::connect(server.addresses()[0], "/realtime/app/key-one?protocol=7").greeting();
    let mut client = Client::connect(server.addresses()[0], "/app/key-one?protocol=7");
    assert_eq!(client.message()["data"]["code"], 4005);
}

#[test]
fn a_ping_is_answered() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.expect_nothing_before_a_pong();
    client.send(&json!({ "event": "pusher:ping" }));
    assert_eq!(client.message(), json!({ "event": "pusher:pong", "data": "{}" }));
}

#[test]
fn a_silent_client_is_pinged_and_given_up_with_4201() {
    let second = Duration::from_secs(1);
    let server = server(|config| (config.ping_interval, config.pong_timeout) = (second, second));
    let start = Instant::now();
    // It reads nothing until it is too late, so it answers no ping.
    let mut silent = Client::connect(server.addresses()[0], "/app/key-one?protocol=7");
    // This one reads, and so its pongs keep it.
    let (mut alive, _) = Client::member(server.addresses()[0]);
    eventually("the silent one was given up", || {
        alive.expect_nothing_before_a_pong();
        server.connections() == 1
    });
    assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    silent.greeting();
    assert_eq!(silent.closed().0, 4201);
    alive.expect_nothing_before_a_pong();
}

#[test]
fn subscribing_twice_is_confirmed_twice_and_delivers_once() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    client.subscribed("chat");
    Http::connect(server.addresses()[0]).say("chat", "once");
    assert_eq!(client.message(), support::event("chat", "once"));
    client.expect_nothing_before_a_pong();
}

#[test]
fn data_of_a_subscription_may_be_encoded_twice() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.send(&json!({ "event": "pusher:subscribe", "data": r#"{"channel":"chat"}"# }));
    assert_eq!(client.message()["event"], "pusher_internal:subscription_succeeded");
}

#[test]
fn after_unsubscribing_nothing_comes_any_more() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    client.subscribed("news");
    client.unsubscribe("chat");
    client.unsubscribe("never-subscribed");
    client.expect_nothing_before_a_pong();
    let mut publisher = Http::connect(server.addresses()[0]);
    publisher.say("chat", "missed");
    publisher.say("news", "heard");
    assert_eq!(client.message(), support::event("news", "heard"));
}

#[test]
fn names_that_cannot_be_subscribed_are_refused_and_the_connection_stays() {
    let server = server(|config| config.limits.channel_name = 164);
    let (mut client, _) = Client::member(server.addresses()[0]);
    let long = "x".repeat(165);
    for (channel, kind, status, reason) in [
        ("private-x", "AuthError", 401, "this channel needs an auth of the form KEY:SIGNATURE"),
        ("private-encrypted-x", "AuthError", 401, "this channel needs an auth of the form KEY:SIGNATURE"),
        ("presence-x", "AuthError", 401, "this channel needs an auth of the form KEY:SIGNATURE"),
        ("#server-to-user-1", "AuthError", 403, "Only who has signed in as this user"),
        ("#x", "InvalidChannel", 400, "contains a character that is not allowed"),
        ("a b", "InvalidChannel", 400, "contains a character that is not allowed"),
        ("caf\u{e9}\"\n", "InvalidChannel", 400, "contains a character that is not allowed"),
        ("", "InvalidChannel", 400, "The channel name is empty."),
        (long.as_str(), "InvalidChannel", 400, "Maximum allowed size is 164."),
    ] {
        client.subscribe(channel);
        let answer = client.message();
        let data = &answer["data"];
        assert_eq!((&answer["event"], &answer["channel"]), (&json!("pusher:subscription_error"), &json!(channel)));
        assert_eq!((&data["type"], &data["status"]), (&json!(kind), &json!(status)), "{channel}");
        assert!(data["error"].as_str().expect("a text").contains(reason), "{answer}");
    }
    client.subscribed(&"x".repeat(164));
    client.subscribed("foo-private-x");
}

#[test]
fn one_subscription_too_many_is_refused() {
    let server = server(|config| config.limits.subscriptions = 2);
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("a");
    client.subscribed("b");
    client.subscribe("c");
    let answer = client.message();
    assert_eq!((&answer["data"]["type"], &answer["data"]["status"]), (&json!("LimitReached"), &json!(409)));
    client.subscribed("b");
    client.unsubscribe("a");
    client.subscribed("c");
}

#[test]
fn client_events_are_refused_and_reach_nobody() {
    let server = server(|_| {});
    let (mut sender, _) = Client::member(server.addresses()[0]);
    let (mut other, _) = Client::member(server.addresses()[0]);
    sender.subscribed("chat");
    other.subscribed("chat");
    sender.send(&json!({ "event": "client-typing", "channel": "chat", "data": {} }));
    let text = "Client event rejected - only supported on private and presence channels";
    // With the channel, so that whoever listens to that hears it, as clients of Soketi do.
    let refusal = json!({ "event": "pusher:error", "channel": "chat", "data": { "code": null, "message": text } });
    assert_eq!(sender.message(), refusal);
    for (channel, is_repeated) in [("chat", true), ("private-elsewhere", true), ("no name", false)] {
        sender.send(&json!({ "event": "message", "channel": channel, "data": {} }));
        let answer = sender.message();
        assert!(answer["data"]["message"].as_str().expect("a text").ends_with("begins with client-"));
        assert_eq!(answer["channel"], if is_repeated { json!(channel) } else { json!(null) });
    }
    let long = "x".repeat(201);
    sender.send(&json!({ "event": "client-typing", "channel": long, "data": {} }));
    assert!(sender.message().get("channel").is_none(), "it may be as long as a message");
    other.expect_nothing_before_a_pong();
}

#[test]
fn a_text_that_a_client_cut_within_an_emoji_arrives_with_the_replacement_character() {
    let server = server(|_| {});
    let (mut sender, sender_id) = Client::member(server.addresses()[0]);
    let (mut receiver, receiver_id) = Client::member(server.addresses()[0]);
    receiver.subscribed_signed(&receiver_id, "presence-a", Some(r#"{"user_id":"b"}"#));
    // Signed as it was written, and told to others as they can read it.
    sender.subscribed_signed(&sender_id, "presence-a", Some(r#"{"user_id":"a","user_info":{"name":"Great \ud83d"}}"#));
    let added = receiver.message();
    assert_eq!(
        (&added["event"], &added["data"]),
        (&json!("pusher_internal:member_added"), &json!(r#"{"user_id":"a","user_info":{"name":"Great \ufffd"}}"#))
    );
    for (message, event, data) in [
        (
            r#"{"event":"client-x","channel":"presence-a","data":{"text":"Great \ud83d"}}"#,
            "client-x",
            json!({ "text": "Great \u{fffd}" }),
        ),
        (r#"{"event":"client-\ud83d","channel":"presence-a","data":"x"}"#, "client-\u{fffd}", json!("x")),
    ] {
        sender.send_message(message);
        let expected = json!({ "event": event, "channel": "presence-a", "data": data, "user_id": "a" });
        assert_eq!(receiver.message(), expected, "{message}");
    }
}

#[test]
fn unknown_events_of_the_protocol_are_ignored() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.send(&json!({ "event": "pusher:weather", "data": { "x": 1 } }));
    client.send(&json!({ "event": "pusher:pong", "data": {} }));
    client.expect_nothing_before_a_pong();
}

#[test]
fn what_cannot_be_read_is_explained_and_ten_in_a_row_end_the_connection() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    for _ in 0..2 {
        for _ in 0..9 {
            client.send_message("hello");
            let answer = client.message();
            assert_eq!((&answer["event"], &answer["data"]["code"]), (&json!("pusher:error"), &json!(null)));
            let message = answer["data"]["message"].as_str().expect("a text");
            assert!(message.starts_with("Invalid message: the message is not JSON (line 1, column 1)"), "{message}");
        }
        // A good one in between, and the count begins anew.
        client.expect_nothing_before_a_pong();
    }
    for _ in 0..10 {
        client.send_message("{}");
        assert_eq!(client.message()["event"], "pusher:error");
    }
    assert_eq!(client.closed(), (1003, "Too many messages in a row that are not the Pusher protocol".to_owned()));
}

#[test]
fn a_binary_message_counts_if_it_is_the_protocol_and_ends_the_connection_if_not() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.send_message(&br#"{"event":"pusher:ping"}"#[..]);
    assert_eq!(client.message()["event"], "pusher:pong");
    for bytes in [&b"\xff\xfe"[..], b"hello"] {
        let (mut client, _) = Client::member(server.addresses()[0]);
        client.send_message(Message::from(bytes));
        assert_eq!(client.closed().0, 1003);
    }
}

#[test]
fn a_message_above_the_limit_ends_the_connection_with_1009() {
    let server = server(|config| config.message = 1024);
    let (mut client, _) = Client::member(server.addresses()[0]);
    let message = |length: usize| format!("{:length$}", r#"{"event":"pusher:ping"}"#);
    client.send_message(message(1024).as_str());
    assert_eq!(client.message()["event"], "pusher:pong");
    client.send_message(message(1025).as_str());
    assert_eq!(client.closed().0, 1009);
}

#[test]
fn deflate_is_agreed_on_when_offered_and_switched_on() {
    let text = "a b c d e f g ".repeat(500);
    for (on, agreed) in [(true, true), (false, false)] {
        let server = server(|config| config.deflate = on);
        let target = "/app/key-one?protocol=7";
        let mut client = Client::connect_with(server.addresses()[0], target, Some(deflate::Config::standard()));
        client.greeting();
        client.subscribed("chat");
        Http::connect(server.addresses()[0]).say("chat", &text);
        assert_eq!(client.message(), support::event("chat", &text));
        assert_eq!(client.is_compressed(), agreed);
    }
}

#[test]
fn a_handshake_that_is_wrong_is_refused_by_status() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    http.send(b"GET /app/key-one HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n");
    let answer = http.answer(true);
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, Some("13")));
}

#[test]
fn a_drain_tells_every_client_to_come_back() {
    let server = server(|config| config.shards = 2);
    let address = server.addresses()[0];
    let clients: Vec<Client> = (0..40).map(|_| Client::member(address).0).collect();
    let start = Instant::now();
    let draining = thread::spawn(move || server.drain(Duration::from_secs(10)));
    for mut client in clients {
        assert_eq!(client.closed().0, 4100);
        assert_eq!(client.next(), Heard::End);
    }
    draining.join().expect("no panic").expect("drained");
    assert!(start.elapsed() < Duration::from_secs(5), "all was done, and yet it took {:?}", start.elapsed());
    assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn a_drain_is_over_at_its_deadline_whatever_clients_do() {
    let server = server(|_| {});
    // It never answers the close, and so is waited for until the last quarter.
    let (_client, _) = Client::member(server.addresses()[0]);
    let start = Instant::now();
    server.drain(Duration::from_millis(300)).expect("drained");
    assert!((200..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

/// Clients of one user send events without a pause, wherever they are. As soon as their termination is answered, none of those is under way any more,
/// and none of the user's connections is listed, though they do not answer their closes.
#[test]
fn when_a_termination_is_answered_it_holds() {
    const ROOM: &str = "presence-room";
    let server = server(|config| {
        config.shards = 4;
        config.limits.client_events = 1_000_000;
        // Who is terminated does not come back by itself.
        config.apps[0].features.presence_grace = Duration::from_secs(60);
    });
    let address = server.addresses()[0];
    let mut others: Vec<Client> = (0..8)
        .map(|number| {
            let (mut client, socket_id) = Client::member(address);
            client.subscribed_signed(&socket_id, ROOM, Some(&json!({ "user_id": number }).to_string()));
            client
        })
        .collect();
    let mut http = Http::connect(address);
    for _ in 0..10 {
        let mut talkers: Vec<Client> = (0..4)
            .map(|_| {
                let (mut client, socket_id) = Client::member(address);
                client.signed_in(&socket_id, r#"{"id":"ada"}"#);
                client.subscribed_signed(&socket_id, ROOM, Some(r#"{"user_id":"ada"}"#));
                client
            })
            .collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for talker in &mut talkers {
                let is_over = &is_over;
                scope.spawn(move || {
                    let event = json!({ "event": "client-talk", "channel": ROOM, "data": "x" });
                    while !is_over.load(Ordering::Relaxed) {
                        // It hears nothing, its close included.
                        talker.send(&event);
                        thread::yield_now();
                    }
                });
            }
            let target = signed("POST", "/apps/1/users/ada/terminate_connections", "", b"");
            let answer = http.request("POST", &target, &JSON, b"");
            let users =
                http.request("GET", &signed("GET", &format!("/apps/1/channels/{ROOM}/users"), "", b""), &[], b"");
            for other in &mut others {
                // What the shard had for it when it was answered.
                other.send(&json!({ "event": "pusher:ping", "data": {} }));
                while other.message()["event"] != "pusher:pong" {}
                other.expect_nothing_before_a_pong();
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(answer.status, 200);
            let users: Value = serde_json::from_slice(&users.body).expect("JSON");
            let users = users["users"].as_array().expect("users").clone();
            assert!(users.len() == 8 && users.iter().all(|user| user["id"] != "ada"), "{users:?}");
        });
        for talker in talkers {
            talker.vanish();
        }
    }
}
