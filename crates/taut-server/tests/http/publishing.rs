//! Publishing, as backends do it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::crowd;
use super::support::{Client, Http, JSON, event, server, signed, signed_as, signed_with};

#[test]
fn an_event_reaches_every_subscriber_of_its_channel_and_app_and_nobody_else() {
    let server = server(|_| {});
    let address = server.addresses()[0];
    let (mut first, _) = Client::member(address);
    let (mut second, _) = Client::member(address);
    let (mut elsewhere, _) = Client::member(address);
    let mut other_app = Client::connect(address, "/app/key-two?protocol=7");
    other_app.greeting();
    for client in [&mut first, &mut second, &mut other_app] {
        client.subscribed("chat");
    }
    elsewhere.subscribed("news");
    let mut publisher = Http::connect(address);
    publisher.say("chat", r#"{"hello":"wörld \\ \" 😀"}"#);
    for client in [&mut first, &mut second] {
        assert_eq!(client.message(), event("chat", r#"{"hello":"wörld \\ \" 😀"}"#));
    }
    publisher.say("news", "");
    assert_eq!(elsewhere.message(), event("news", ""));
    other_app.expect_nothing_before_a_pong();
}

#[test]
fn several_channels_get_one_event_each_and_a_repeated_one_gets_it_once() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    for channel in ["a", "b"] {
        client.subscribed(channel);
    }
    let mut publisher = Http::connect(server.addresses()[0]);
    let answer =
        publisher.publish(&json!({ "name": "event", "channels": ["b", "a", "b", "nobody"], "data": { "x": 1 } }));
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert_eq!([client.message(), client.message()], [event("b", r#"{"x":1}"#), event("a", r#"{"x":1}"#)]);
    client.expect_nothing_before_a_pong();
}

#[test]
fn the_named_connection_does_not_get_the_event() {
    let server = server(|_| {});
    let (mut sender, socket_id) = Client::member(server.addresses()[0]);
    let (mut other, _) = Client::member(server.addresses()[0]);
    sender.subscribed("chat");
    other.subscribed("chat");
    let mut publisher = Http::connect(server.addresses()[0]);
    publisher.publish(&json!({ "name": "event", "channel": "chat", "data": "1", "socket_id": socket_id }));
    publisher.publish(&json!({ "name": "event", "channel": "chat", "data": "2", "socket_id": "1.1" }));
    assert_eq!(sender.message(), event("chat", "2"));
    assert_eq!([other.message(), other.message()], [event("chat", "1"), event("chat", "2")]);
}

#[test]
fn one_connection_serves_many_requests_and_their_order_is_kept() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    let mut publisher = Http::connect(server.addresses()[0]);
    for number in 0..200 {
        publisher.say("chat", &number.to_string());
    }
    for number in 0..200 {
        assert_eq!(client.message(), event("chat", &number.to_string()));
    }
}

#[test]
fn a_publish_is_answered_as_http_wants_it() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    let answer = http.publish(&json!({ "name": "event", "channel": "chat", "data": "x" }));
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert_eq!((answer.header("content-type"), answer.header("content-length")), (Some("application/json"), Some("2")));
    let date = answer.header("date").expect("RFC 9110 §6.6.1");
    let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).expect(date));
    assert!(age.expect("not of the future") < Duration::from_secs(10), "{date}");
}

#[test]
fn a_connection_may_publish_then_ask_then_publish_again_and_is_answered_in_order() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    let body = json!({ "name": "event", "channel": "chat", "data": "x" }).to_string();
    let publish = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        signed("POST", "/apps/1/events", "", body.as_bytes()),
        body.len()
    );
    let ask = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", signed("GET", "/apps/1/channels/chat", "", b""));
    let answers = ["{}", "{}", r#"{"occupied":true}"#, "{}"];
    let mut http = Http::connect(server.addresses()[0]);
    for (request, answer) in [&publish, &publish, &ask, &publish].into_iter().zip(answers) {
        http.send(request.as_bytes());
        assert_eq!(http.answer(true).text(), answer);
    }
    let mut http = Http::connect(server.addresses()[0]);
    let last = publish.replace("Host: x", "Host: x\r\nConnection: close");
    http.send([&publish, &publish, &ask, &last].map(String::as_str).concat().as_bytes());
    let mut all = String::new();
    http.read_to_end(&mut all);
    let bodies: Vec<&str> =
        all.split("HTTP/1.1 200 OK\r\n").skip(1).filter_map(|answer| Some(answer.split_once("\r\n\r\n")?.1)).collect();
    assert_eq!(bodies, answers);
    for _ in 0..6 {
        assert_eq!(client.message(), event("chat", "x"));
    }
}

#[test]
fn a_connection_that_has_published_may_become_a_websocket() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    http.say("chat", "x");
    http.send(
        b"GET /app/key-one?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(http.answer(false).status, 101);
}

#[test]
fn a_publish_is_counted_wherever_it_is_answered() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    for _ in 0..3 {
        http.say("chat", "x");
    }
    // This one is answered by the HTTP side, and so is what comes after it.
    http.publish(&json!({ "name": "event", "channel": "chat", "data": "x", "info": "subscription_count" }));
    http.say("chat", "x");
    let metrics = http.metrics();
    for sample in [
        r#"taut_http_requests_total{route="/apps/{app}/events",status="200"}"#,
        r#"taut_http_request_duration_seconds_count{route="/apps/{app}/events"}"#,
    ] {
        assert_eq!(metrics[sample].to_bits(), 5_f64.to_bits(), "{sample}");
    }
}

#[test]
fn what_is_not_signed_by_the_app_is_refused() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    let mut http = Http::connect(server.addresses()[0]);
    let body = json!({ "name": "event", "channel": "chat", "data": "x" }).to_string();
    let body = body.as_bytes();
    let path = "/apps/1/events";
    for (target, reason) in [
        (path.to_owned(), "Missing query parameter: auth_key"),
        (
            signed_with("key-one", "wrong", "POST", path, "", body),
            "Invalid signature: you should have sent HmacSHA256Hex(\"POST\\n/apps/1/events\\nauth_key=key-one&",
        ),
        (signed_with("key-two", "secret-two", "POST", path, "", body), "Unknown auth_key"),
        (signed("POST", path, "", b"another body"), "Invalid body_md5"),
        (signed("GET", path, "", body), "Invalid signature"),
        (signed("POST", "/apps/2/events", "", body).replace("/apps/2/", "/apps/1/"), "Invalid signature"),
        (format!("{}&more=1", signed("POST", path, "", body)), "Invalid signature"),
        (
            format!("{path}?auth_key=key-one&auth_timestamp=1353088179&auth_version=1.0&auth_signature=x"),
            "Timestamp expired: Given timestamp (2012-11-16T17:49:39Z) not within 600s",
        ),
    ] {
        let answer = http.request("POST", &target, &JSON, body);
        assert_eq!(answer.status, 401, "{target}");
        let error = answer.error();
        assert!(error.starts_with(reason), "{error}");
        assert!(!error.contains("secret-one"), "{error}");
    }
    http.say("chat", "signed");
    assert_eq!(client.message(), event("chat", "signed"));
}

#[test]
fn a_signature_that_comes_twice_and_a_number_with_a_sign_are_refused() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    let body = br#"{"name":"event","channel":"chat","data":"x"}"#;
    let target = signed("POST", "/apps/1/events", "", body);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let with_sign = |sign: &str| {
        let auth = format!("auth_key=key-one&auth_timestamp={sign}{now}&auth_version=1.0");
        signed_as(&auth, "secret-one", "POST", "/apps/1/events", "", body)
    };
    for (target, reason) in [
        (format!("{target}&auth_signature=0"), "Query parameter given more than once: auth_signature"),
        (target.replace('?', "?auth_key=key-one&"), "Query parameter given more than once: auth_key"),
        (with_sign("+"), "Invalid auth_timestamp"),
        (with_sign("%2B"), "Invalid auth_timestamp"),
    ] {
        let answer = http.request("POST", &target, &JSON, body);
        assert_eq!((answer.status, answer.error().starts_with(reason)), (401, true), "{target}: {}", answer.text());
    }
    assert_eq!(http.request("POST", &with_sign(""), &JSON, body).status, 200);
}

#[test]
fn a_text_that_was_cut_within_an_emoji_arrives_with_the_replacement_character() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("chat");
    let mut http = Http::connect(server.addresses()[0]);
    let mut post = |path: &str, body: &str| {
        let answer = http.request("POST", &signed("POST", path, "", body.as_bytes()), &JSON, body.as_bytes());
        assert_eq!((answer.status, answer.text()), (200, "{}"), "{body}");
    };
    // What JavaScript sends for `"Great 👍".slice(0, 7)`.
    for (body, name, data) in [
        (r#"{"name":"event","channel":"chat","data":"Great \ud83d"}"#, "event", "Great \u{fffd}"),
        (r#"{"name":"event","channel":"chat","data":{"text":"Great \ud83d"}}"#, "event", r#"{"text":"Great \ufffd"}"#),
        (r#"{"name":"Great \ud83d","channels":["chat"],"data":"\ud83d\udc4d"}"#, "Great \u{fffd}", "\u{1f44d}"),
        (r#"{"name":"event","channel":"chat","data":"x","more":"\udc4d"}"#, "event", "x"),
    ] {
        let expected = json!({ "event": name, "channel": "chat", "data": data });
        post("/apps/1/events", body);
        assert_eq!(client.message(), expected, "{body}");
        post("/apps/1/batch_events", &format!(r#"{{"batch":[{body}]}}"#));
        assert_eq!(client.message(), expected, "{body}");
    }
    let body = r#"{"name":"event","channel":"\ud83d","data":""}"#;
    let answer = http.request("POST", &signed("POST", "/apps/1/events", "", body.as_bytes()), &JSON, body.as_bytes());
    assert!(answer.error().contains("The channel name contains a character that is not allowed"), "{}", answer.text());
}

#[test]
fn a_prefix_of_the_path_may_be_signed_or_not() {
    let server = server(|config| config.path_prefix = "/realtime".to_owned());
    let mut http = Http::connect(server.addresses()[0]);
    let body = br#"{"name":"e","channel":"c","data":""}"#;
    let with = signed("POST", "/realtime/apps/1/events", "", body);
    let without = format!("/realtime{}", signed("POST", "/apps/1/events", "", body));
    for target in [with, without] {
        assert_eq!(http.request("POST", &target, &JSON, body).status, 200, "{target}");
    }
    assert_eq!(http.request("POST", &signed("POST", "/apps/1/events", "", body), &JSON, body).status, 404);
}

#[test]
fn refusals_say_what_is_wrong_with_status_and_text() {
    let server = server(|config| config.limits.event_data = 10_240);
    let mut http = Http::connect(server.addresses()[0]);
    for (event, status, reason) in [
        (json!({ "name": "e", "channel": "c" }), 400, "missing field `data`"),
        (json!({ "name": "e", "channel": "a b", "data": "" }), 400, "The channel name contains a character"),
        (
            json!({ "name": "e", "channels": vec!["c"; 101], "data": "" }),
            400,
            "Cannot broadcast to more than 100 channels at once.",
        ),
        (
            json!({ "name": "e", "channel": "c", "data": "x".repeat(10_241) }),
            413,
            "The data content of this event exceeds the allowed maximum (10240 bytes).",
        ),
    ] {
        let answer = http.publish(&event);
        assert_eq!(answer.status, status);
        assert!(answer.error().contains(reason), "{}", answer.text());
    }
    let unknown = http.request("POST", "/apps/9/events", &JSON, b"{}");
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "The app 9 could not be found."));
    let nowhere = http.request("GET", "/nowhere", &[], b"");
    assert_eq!((nowhere.status, nowhere.error().as_str()), (404, "There is nothing at this path."));
    let method = http.request("GET", "/apps/1/events", &[], b"");
    assert_eq!((method.status, method.header("allow")), (405, Some("POST")));
    assert!(method.error().contains("not allowed"));
    let socket = http.request("GET", "/app/key-one", &[], b"");
    assert_eq!((socket.status, socket.header("upgrade")), (426, Some("websocket")));
}

#[test]
fn a_body_beyond_every_limit_is_refused() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    // So much that it would not even be thrown away.
    http.send(b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{");
    let answer = http.answer(true);
    assert_eq!(answer.status, 413);
    assert!(answer.error().starts_with("The body of the request exceeds the allowed maximum ("));

    let mut http = Http::connect(server.addresses()[0]);
    http.send(b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"8000\r\n".to_vec(), vec![b' '; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..20 {
        http.send(&chunk);
    }
    http.send(b"0\r\n\r\n");
    assert_eq!(http.answer(true).status, 413);
}

#[test]
fn a_batch_reaches_each_of_its_channels_in_its_order() {
    let server = server(|_| {});
    let (mut client, socket_id) = Client::member(server.addresses()[0]);
    for channel in ["a", "b"] {
        client.subscribed(channel);
    }
    let mut http = Http::connect(server.addresses()[0]);
    let answer = http.post(
        "/apps/1/batch_events",
        &json!({ "batch": [
            { "name": "event", "channel": "a", "data": "1" },
            { "name": "event", "channel": "b", "data": "2" },
            { "name": "event", "channel": "a", "data": "not for this one", "socket_id": socket_id },
            { "name": "event", "channel": "a", "data": { "three": 3 } },
        ] }),
    );
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert_eq!(
        [client.message(), client.message(), client.message()],
        [event("a", "1"), event("b", "2"), event("a", r#"{"three":3}"#)]
    );
}

#[test]
fn of_a_batch_with_a_mistake_nothing_is_published() {
    let server = server(|_| {});
    let (mut client, _) = Client::member(server.addresses()[0]);
    client.subscribed("a");
    let mut http = Http::connect(server.addresses()[0]);
    let good = json!({ "name": "event", "channel": "a", "data": "1" });
    for (batch, status, reason) in [
        (
            json!({ "batch": [good, { "name": "event", "channel": "a b", "data": "" }] }),
            400,
            "Event 2 of the batch: The channel name",
        ),
        (json!({ "batch": vec![&good; 11] }), 400, "Batch too large: Cannot batch-send more than 10 messages at once."),
        (
            json!({ "batch": [good, { "name": "event", "channel": "a", "data": "x".repeat(102_401) }] }),
            413,
            "Event 2 of the batch: The data content of this event exceeds the allowed maximum (102400 bytes).",
        ),
        (json!({ "batch": good }), 400, "cannot be read as a batch of events"),
    ] {
        let answer = http.post("/apps/1/batch_events", &batch);
        assert_eq!(answer.status, status);
        assert!(answer.error().contains(reason), "{}", answer.text());
    }
    client.expect_nothing_before_a_pong();
    let empty = http.post("/apps/1/batch_events", &json!({ "batch": [] }));
    assert_eq!((empty.status, empty.text()), (200, "{}"));
}

#[test]
fn a_publish_tells_about_its_channels_what_it_was_asked() {
    let (server, _clients) = crowd(|config| config.apps[0].features.subscription_count = true);
    let mut http = Http::connect(server.addresses()[0]);
    let info = "user_count,subscription_count,cache";
    let channels = ["presence-room", "private-room", "nobody", "presence-nobody", "chat"];
    let answer = http.publish(&json!({ "name": "event", "channels": channels, "data": "", "info": info }));
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({ "channels": {
                "presence-room": { "user_count": 3, "subscription_count": 6 },
                "private-room": { "subscription_count": 6 },
                "nobody": { "subscription_count": 0 },
                "presence-nobody": { "user_count": 0, "subscription_count": 0 },
                "chat": { "subscription_count": 1 },
            } })
        )
    );
    let answer = http.post(
        "/apps/1/batch_events",
        &json!({ "batch": [
            { "name": "event", "channel": "presence-room", "data": "", "info": "user_count" },
            { "name": "event", "channel": "private-room", "data": "" },
            { "name": "event", "channel": "private-room", "data": "", "info": "user_count,subscription_count" },
            { "name": "event", "channel": "presence-room", "data": "", "info": "user_count,subscription_count" },
        ] }),
    );
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({ "batch": [
                { "user_count": 3 },
                {},
                { "subscription_count": 6 },
                { "user_count": 3, "subscription_count": 6 },
            ] })
        )
    );
}

#[test]
fn what_is_not_switched_on_is_left_out_of_a_publishs_answer() {
    let server = server(|_| {});
    let mut http = Http::connect(server.addresses()[0]);
    let info = "user_count,subscription_count";
    let answer = http.publish(&json!({ "name": "event", "channel": "chat", "data": "", "info": info }));
    assert_eq!(answer.text(), r#"{"channels":{"chat":{}}}"#);
}

#[test]
fn an_event_for_a_user_reaches_that_user_and_its_channel_is_not_listed() {
    let server = server(|_| {});
    let (mut client, socket_id) = Client::member(server.addresses()[0]);
    client.signed_in(&socket_id, r#"{"id":"12345"}"#);
    client.subscribed("#server-to-user-12345");
    let mut http = Http::connect(server.addresses()[0]);
    http.say("#server-to-user-12345", "hello");
    assert_eq!(client.message(), event("#server-to-user-12345", "hello"));
    assert_eq!(http.get("/apps/1/channels", "").text(), r#"{"channels":{}}"#);
}

/// pusher-js says that a user has signed in as soon as it hears so, and only then subscribes to the user's channel; what comes before the answer to
/// that, it hands to the user all the same.
#[test]
fn an_event_for_a_user_who_has_just_signed_in_is_delivered_once_whether_its_channel_is_subscribed_or_not() {
    let server = server(|config| config.shards = 4);
    let mut http = Http::connect(server.addresses()[0]);
    for number in 0..20 {
        let channel = format!("#server-to-user-{number}");
        let (mut client, socket_id) = Client::member(server.addresses()[0]);
        client.signed_in(&socket_id, &json!({ "id": number.to_string() }).to_string());
        http.say(&channel, "before");
        assert_eq!(client.message(), event(&channel, "before"));
        client.subscribed(&channel);
        http.say(&channel, "after");
        assert_eq!(client.message(), event(&channel, "after"));
        client.expect_nothing_before_a_pong();
        // Who does not want to hear of it says so.
        client.unsubscribe(&channel);
        client.expect_nothing_before_a_pong();
        http.say(&channel, "late");
        client.expect_nothing_before_a_pong();
    }
}
