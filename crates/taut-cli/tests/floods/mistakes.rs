//! What peers get wrong, made up by dice, each with the one answer that it is to get.

use serde_json::{Value, json};
use taut_server::pusher::auth::Signature;

use crate::figures::Dice;
use crate::support::{JSON, signed, signed_with};

/// The server's settings that these count on.
pub(crate) const SETTINGS: [&str; 4] = ["--max-event-data", "10KiB", "--max-subscriptions", "3"];

/// Channels that the connection is subscribed to already: as many as it may.
pub(crate) const SUBSCRIBED: [&str; 3] = ["private-room", "presence-room", "room"];

/// A message that cannot be granted. Its connection stays.
pub(crate) struct Message {
    pub(crate) text: String,
    pub(crate) answer: Answer,
}

/// How a message is refused.
#[derive(Debug)]
pub(crate) enum Answer {
    /// `pusher:error` with this code and these words.
    Error(Option<u16>, &'static str),
    /// `pusher:subscription_error` with this status and these words.
    Subscription(u16, &'static str),
}

impl Answer {
    pub(crate) fn is(&self, heard: &Value) -> bool {
        let contains = |text: &Value, words: &str| text.as_str().is_some_and(|text| text.contains(words));
        let data = &heard["data"];
        match *self {
            Self::Error(code, words) => {
                heard["event"] == "pusher:error" && data["code"] == json!(code) && contains(&data["message"], words)
            }
            Self::Subscription(status, words) => {
                heard["event"] == "pusher:subscription_error"
                    && heard["channel"].is_string()
                    && data["status"] == status
                    && data["type"].is_string()
                    && contains(&data["error"], words)
            }
        }
    }
}

impl Message {
    pub(crate) fn invent(dice: &mut Dice, socket_id: &str) -> Self {
        let (text, answer) = match dice.below(9) {
            0 => broken(dice),
            1 => misshapen(dice),
            2 => bad_name(dice),
            3 => bad_signature(dice),
            4 => bad_member(dice, socket_id),
            5 => bad_event(dice),
            6 => bad_user(dice, socket_id),
            7 => one_too_many(dice, socket_id),
            _ => of_wrong_types(dice),
        };
        Self { text, answer }
    }
}

/// Not JSON, or not to its end.
fn broken(dice: &mut Dice) -> (String, Answer) {
    let good = subscribe(&json!({ "channel": "a", "auth": "x".repeat(dice.below(2000)) }));
    if dice.below(2) == 0 {
        return (good[..dice.below(good.len())].to_owned(), malformed("Invalid message: the message ends too early"));
    }
    let garbage: String =
        (0..dice.below(3000)).map(|_| char::from_u32(0x21 + dice.below(0x400) as u32)).map(Option::unwrap).collect();
    (format!("!{garbage}"), malformed("Invalid message: the message is not JSON"))
}

/// JSON, but no message.
fn misshapen(dice: &mut Dice) -> (String, Answer) {
    let depth = 1 + dice.below(20_000);
    let text = match dice.below(6) {
        0 => "[".repeat(depth) + &"]".repeat(depth),
        1 => dice.roll().to_string(),
        2 => json!("x".repeat(dice.below(60_000))).to_string(),
        3 => json!({ "data": wrong_type(dice) }).to_string(),
        4 => json!([{ "event": "pusher:ping" }]).to_string(),
        _ => r#"{"event":"pusher:ping","event":"pusher:ping"}"#.to_owned(),
    };
    (text, malformed("Invalid message: the message "))
}

fn of_wrong_types(dice: &mut Dice) -> (String, Answer) {
    let wrong = wrong_type(dice);
    let data = |value: Value, dice: &mut Dice| {
        // Some SDKs write the data as JSON in a text.
        if dice.below(2) == 0 { json!(value.to_string()) } else { value }
    };
    let (event, data) = match dice.below(7) {
        0 => {
            return (
                json!({ "event": wrong }).to_string(),
                malformed("Invalid message: the message has the wrong form"),
            );
        }
        1 => {
            let event = json!({ "event": "client-a", "channel": wrong, "data": "" });
            return (event.to_string(), malformed("Invalid message: the message has the wrong form"));
        }
        2 => ("pusher:subscribe", wrong),
        3 => ("pusher:subscribe", data(json!({ "channel": wrong, "auth": "" }), dice)),
        4 => {
            let key = dice.one_of(&["auth", "channel_data"]);
            ("pusher:subscribe", data(json!({ "channel": "a", key: wrong }), dice))
        }
        5 => ("pusher:unsubscribe", data(json!({ "channel": wrong }), dice)),
        _ => {
            let mut fields = json!({ "auth": "a:b", "user_data": "{}" });
            fields[dice.one_of(&["auth", "user_data"])] = wrong;
            ("pusher:signin", data(fields, dice))
        }
    };
    (json!({ "event": event, "data": data }).to_string(), malformed(r#"Invalid message: its "data" "#))
}

fn bad_name(dice: &mut Dice) -> (String, Answer) {
    let (name, words) = match dice.below(3) {
        0 => (String::new(), "The channel name is empty"),
        1 => ("n".repeat(201 + dice.below(60_000)), "The channel name is too long. Maximum allowed size is 200."),
        _ => {
            let bad = dice.one_of(&[" ", "\n", "\u{0}", "é", "\u{1f980}", "/", "\"", "<", "#"]);
            (
                format!("{}{bad}", "n".repeat(dice.below(100))),
                "The channel name contains a character that is not allowed",
            )
        }
    };
    (subscribe(&json!({ "channel": name, "auth": "" })), Answer::Subscription(400, words))
}

fn bad_signature(dice: &mut Dice) -> (String, Answer) {
    let channel = dice.one_of(&["private-a", "presence-a", "private-encrypted-a", "private-cache-a"]);
    let digits =
        |count: usize, dice: &mut Dice| (0..count).map(|_| dice.one_of(&["0", "7", "f", "g", "É"])).collect::<String>();
    let (auth, words) = match dice.below(4) {
        0 => (String::new(), "of the form KEY:SIGNATURE"),
        1 => (digits(dice.below(30_000), dice), "of the form KEY:SIGNATURE"),
        2 => (format!("another:{}", digits(64, dice)), "Invalid key in subscription auth data"),
        _ => {
            let count = [0, 1, 63, 64, 65, 20_000][dice.below(6)];
            (format!("key-one:{}", digits(count, dice)), "Invalid signature: Expected HMAC SHA256 hex digest of ")
        }
    };
    let data = json!({ "channel": channel, "auth": auth, "channel_data": r#"{"user_id":"1"}"# });
    (subscribe(&data), Answer::Subscription(401, words))
}

/// Signed, but no member.
fn bad_member(dice: &mut Dice, socket_id: &str) -> (String, Answer) {
    let many = dice.below(40_000);
    let (status, words, channel_data) = match dice.below(6) {
        0 => (400, "Invalid channel_data: it must be a JSON object", "{\"user_id\":".to_owned()),
        1 => (400, "Invalid channel_data: it must be a JSON object", "[".repeat(1 + many)),
        2 => (400, "Invalid channel_data: it must be a JSON object", json!({ "user_info": {} }).to_string()),
        3 => {
            let wrong = match wrong_type(dice) {
                // That one is right.
                Value::Number(_) => json!(true),
                wrong => wrong,
            };
            (400, "Invalid channel_data: its \"user_id\" must be a string", json!({ "user_id": wrong }).to_string())
        }
        4 => (400, "The user_id is too long. Maximum", json!({ "user_id": "u".repeat(129 + many) }).to_string()),
        _ => {
            let data = json!({ "user_id": "u", "user_info": "i".repeat(2047 + many) });
            (413, "The user_info is too large. Maximum allowed size is 2048 bytes.", data.to_string())
        }
    };
    let signature = Signature::of_subscription("secret-one", socket_id, "presence-a", Some(&channel_data));
    let data = json!({ "channel": "presence-a", "auth": format!("key-one:{signature}"), "channel_data": channel_data });
    (subscribe(&data), Answer::Subscription(status, words))
}

/// One that a client may not send to others.
fn bad_event(dice: &mut Dice) -> (String, Answer) {
    let many = dice.below(40_000);
    let message = |event: &str, channel: &str, data: Value| {
        json!({ "event": event, "channel": channel, "data": data }).to_string()
    };
    let rejected = |words| Answer::Error(None, words);
    match dice.below(7) {
        0 => {
            let name = dice.one_of(&["", "event", "Client-a", "client", "pusher_internal:member_added"]);
            (message(name, "private-room", json!("")), rejected("begins with client-"))
        }
        1 => (json!({ "event": "client-a", "data": "" }).to_string(), rejected("it names no channel")),
        2 => {
            let data = json!(["d".repeat(many)]);
            (message("client-a", "room", data), rejected("only supported on private and presence channels"))
        }
        3 => (message("client-a", "private-encrypted-a", json!(1)), rejected("not supported on encrypted channels")),
        4 => (
            message("client-a", "private-another", json!({})),
            rejected("you are not subscribed to channel private-another"),
        ),
        5 => {
            let name = format!("client-{}", "é".repeat(194 + many / 2));
            (
                message(&name, "private-room", json!("")),
                Answer::Error(Some(4301), "Event name is too long. Maximum allowed size is 200."),
            )
        }
        _ => {
            let data = json!("d".repeat(10_240 + many));
            (
                message("client-a", "presence-room", data),
                Answer::Error(Some(4301), "The event data should be less than 10240 bytes."),
            )
        }
    }
}

fn bad_user(dice: &mut Dice, socket_id: &str) -> (String, Answer) {
    let many = dice.below(40_000);
    let mut auth = None;
    let (user_data, words) = match dice.below(6) {
        0 => {
            auth = Some("u".repeat(many));
            ("{}".to_owned(), "Sign-in refused: auth must be KEY:SIGNATURE with a key of this app.")
        }
        1 => {
            auth = Some(format!("key-one:{}", "0".repeat(many)));
            ("{}".to_owned(), "Sign-in refused: Invalid signature")
        }
        2 => ("{".repeat(many), "Sign-in refused: Invalid user_data: it must be a JSON object"),
        3 => (json!({ "id": [many] }).to_string(), "Sign-in refused: Invalid user_data: its \"id\" must be a string"),
        4 => (json!({ "id": "u".repeat(129 + many) }).to_string(), "Sign-in refused: the id is too long, at most 128"),
        _ => (
            json!({ "id": "u", "user_info": "i".repeat(2047 + many) }).to_string(),
            "Sign-in refused: the user_info is too large, at most 2048 bytes.",
        ),
    };
    let auth = auth.unwrap_or_else(|| format!("key-one:{}", Signature::of_user("secret-one", socket_id, &user_data)));
    let data = json!({ "auth": auth, "user_data": user_data });
    (json!({ "event": "pusher:signin", "data": data }).to_string(), Answer::Error(None, words))
}

/// A good subscription, for which there is no room.
fn one_too_many(dice: &mut Dice, socket_id: &str) -> (String, Answer) {
    let channel = format!("{}{}", dice.one_of(&["", "private-", "cache-"]), dice.roll());
    let auth = format!("key-one:{}", Signature::of_subscription("secret-one", socket_id, &channel, None));
    let words = "A connection may be subscribed to at most 3 channels.";
    (subscribe(&json!({ "channel": channel, "auth": auth })), Answer::Subscription(409, words))
}

fn malformed(words: &'static str) -> Answer {
    Answer::Error(None, words)
}

fn subscribe(data: &Value) -> String {
    json!({ "event": "pusher:subscribe", "data": data }).to_string()
}

/// Something that is no text, nor null, which counts as absent.
fn wrong_type(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => json!(dice.roll()),
        1 => json!(-0.5),
        2 => json!(dice.below(2) == 0),
        3 => json!([["x".repeat(dice.below(1000))]]),
        _ => json!({ "x": {} }),
    }
}

/// Bytes for which a connection is closed, and with which code and words.
pub(crate) fn unforgivable(dice: &mut Dice) -> (Vec<u8>, u16, &'static str) {
    let many = dice.below(60_000);
    let large = 65_537 + many;
    let ping = br#"{"event":"pusher:ping"}"#;
    match dice.below(18) {
        0 => (frame(0x81, &vec![b'x'; large]), 1009, "message beyond the limit"),
        // Announced, and never to come.
        1 => (header(0x82, 1 << (17 + dice.below(45))), 1009, "message beyond the limit"),
        2 => {
            let part = vec![b' '; 20_000];
            let bytes = [frame(0x01, &part), frame(0x00, &part), frame(0x00, &part), frame(0x00, &part)].concat();
            (bytes, 1009, "message beyond the limit")
        }
        3 => {
            let bytes = [frame(0x01, b""), frame(0x00, b"").repeat(1024 + many)].concat();
            (bytes, 1008, "message in too many fragments")
        }
        4 => (vec![0x81, 2, b'{', b'}'], 1002, "unmasked frame from a client"),
        5 => (frame(0x83 + dice.below(5) as u8, ping), 1002, "reserved opcode"),
        6 => (frame(0x81 | 0x10 << dice.below(3), ping), 1002, "reserved bit without an extension"),
        7 => (frame(0x89, &[0; 126]), 1002, "control frame longer than 125 bytes"),
        8 => (frame(0x09, b""), 1002, "fragmented control frame"),
        9 => (frame(0x80, ping), 1002, "continuation frame without a message to continue"),
        10 => ([frame(0x01, ping), frame(0x81, ping)].concat(), 1002, "new message before the last one was finished"),
        11 => (frame(0x88, &[3]), 1002, "close payload of one byte"),
        12 => {
            let code = [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000][dice.below(8)];
            (frame(0x88, &code.to_be_bytes()), 1002, "close code that must not be sent")
        }
        13 => {
            let mut bytes = vec![0x81, 0xfe, 0, 2, 0, 0, 0, 0];
            bytes.extend(b"{}");
            (bytes, 1002, "length not in its shortest form")
        }
        14 => (header(0x81, 1 << 63), 1002, "length with its highest bit set"),
        15 => {
            let bad: &[u8] =
                dice.one_of(&[&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]);
            (frame(0x81, bad), 1007, "text is not UTF-8")
        }
        16 => (frame(0x82, &vec![0xfe; many]), 1003, "A binary message that is not the Pusher protocol in JSON"),
        _ => (
            frame(0x81, b"!").repeat(10 + many / 100),
            1003,
            "Too many messages in a row that are not the Pusher protocol",
        ),
    }
}

/// A client's frame, under a mask that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..0x1_0000 => {
            bytes.push(0xfe);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

/// A path and query of a client that is let in only to be told why it cannot stay.
pub(crate) fn wrong_address(dice: &mut Dice) -> (String, u16, &'static str) {
    let text = "x".repeat(1 + dice.below(8000));
    match dice.below(5) {
        0 => (format!("/app/{text}"), 4001, "Application does not exist"),
        1 => (format!("/{text}"), 4005, "Path not found"),
        2 => (format!("/app/key-one/{text}"), 4005, "Path not found"),
        3 => (format!("/app/key-one?protocol={text}"), 4006, "Invalid version string format"),
        _ => (format!("/app/key-one?protocol={}&x={text}", 8 + dice.below(1000)), 4007, "Unsupported protocol version"),
    }
}

/// A request to the API that is answered with this status and, in JSON, with these words. Its connection stays.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) words: &'static str,
}

impl Request {
    pub(crate) fn invent(dice: &mut Dice) -> Self {
        if dice.below(4) == 0 {
            return Self::misdirected(dice);
        }
        if dice.below(4) == 0 {
            return Self::batch(dice);
        }
        let (body, status, words) = bad_publish(dice);
        Self::post("/apps/1/events", body.into_bytes(), status, words)
    }

    fn post(path: &str, body: Vec<u8>, status: u16, words: &'static str) -> Self {
        Self { method: "POST", target: signed("POST", path, "", &body), body, status, words }
    }

    fn batch(dice: &mut Dice) -> Self {
        let path = "/apps/1/batch_events";
        let good = json!({ "name": "e", "channel": "a", "data": "" });
        let (body, status, words) = match dice.below(5) {
            0 => (
                json!({ "batch": vec![good; 11 + dice.below(1000)] }).to_string(),
                400,
                "Cannot batch-send more than 10",
            ),
            1 => (json!({ "batch": { "1": wrong_type(dice) } }).to_string(), 400, BATCH),
            2 => (json!([good]).to_string(), 400, BATCH),
            3 => {
                let (bad, status, _) = bad_publish(dice);
                // Broken JSON would break all of the batch, and what is too large for one event is not for ten.
                if serde_json::from_str::<Value>(&bad).is_err() || bad.len() > 20_000 {
                    (format!(r#"{{"batch":[{good},["#), 400, BATCH)
                } else {
                    (format!(r#"{{"batch":[{good},{bad}]}}"#), status, "Event 2 of the batch: ")
                }
            }
            _ => {
                let event = json!({ "name": "e", "channels": ["a", "b"], "data": "" });
                (json!({ "batch": [event] }).to_string(), 400, r#"An event of a batch goes to one "channel"."#)
            }
        };
        Self::post(path, body.into_bytes(), status, words)
    }

    /// Not signed as it should be, or nothing that is there.
    fn misdirected(dice: &mut Dice) -> Self {
        let body =
            json!({ "name": "e", "channel": "a", "data": "d".repeat(dice.below(5000)) }).to_string().into_bytes();
        let path = "/apps/1/events";
        let long = "9".repeat(2 + dice.below(8000));
        let (method, target, status, words) = match dice.below(12) {
            0 => ("POST", path.to_owned(), 401, "Missing query parameter: auth_key"),
            1 => ("POST", signed_with("key-one", "wrong", "POST", path, "", &body), 401, "Invalid signature: "),
            2 => ("POST", signed_with(&long, "wrong", "POST", path, "", &body), 401, "Unknown auth_key"),
            3 => ("POST", signed("POST", path, "", b"another body"), 401, "Invalid body_md5"),
            4 => ("POST", format!("{}&more={long}", signed("POST", path, "", &body)), 401, "Invalid signature: "),
            5 => (
                "POST",
                format!("{path}?auth_key=key-one&auth_timestamp={long}&auth_version=1.0&auth_signature=x"),
                401,
                "Invalid auth_timestamp",
            ),
            6 => (
                "POST",
                format!("{path}?auth_key=key-one&auth_timestamp=1&auth_version=1.0&auth_signature={long}"),
                401,
                "Timestamp expired",
            ),
            7 => ("POST", format!("/apps/{long}/events"), 404, "could not be found"),
            8 => ("POST", format!("/{long}"), 404, "There is nothing at this path."),
            9 => ("DELETE", path.to_owned(), 405, "This method is not allowed here"),
            10 => ("GET", signed("GET", "/apps/1/channels/a", "&info=weather", &body), 400, "There is no attribute"),
            _ => ("GET", format!("/app/key-one?x={long}"), 426, "This is where WebSocket clients connect"),
        };
        // A question has no body, and one with a timestamp of more than 20 digits has none that could be read.
        let is_question = method == "GET";
        let target = if is_question && status == 400 {
            signed("GET", "/apps/1/channels/a", "&info=weather", b"")
        } else {
            target
        };
        let is_short = status == 401 && words == "Invalid auth_timestamp" && long.len() <= 19;
        let words = if is_short { "Timestamp expired" } else { words };
        Self { method, target, body: if is_question { Vec::new() } else { body }, status, words }
    }
}

/// The body of a publish with one mistake.
fn bad_publish(dice: &mut Dice) -> (String, u16, &'static str) {
    let many = dice.below(60_000);
    let mut event = json!({ "name": "e", "channel": "a", "data": "" });
    let (status, words) = match dice.below(16) {
        0 => {
            let good = event.to_string();
            return (good[..dice.below(good.len())].to_owned(), 400, EVENT);
        }
        1 => return ("[".repeat(1 + many), 400, EVENT),
        2 => return (format!("{event}{{"), 400, EVENT),
        3 => {
            // Larger than any event's body may be.
            event["data"] = json!("d".repeat(200_000 + many));
            return (event.to_string(), 413, "The body of the request exceeds the allowed maximum (");
        }
        4 => {
            event["data"] = json!("d".repeat(10_241 + many / 8));
            (413, "The data content of this event exceeds the allowed maximum (10240 bytes).")
        }
        5 => {
            event[dice.one_of(&["name", "channel", "socket_id", "info"])] = wrong_type(dice);
            (400, EVENT)
        }
        6 => {
            event["channels"] = dice.one_of(&[&json!("a"), &json!([1]), &json!({}), &json!([["a"]])]).clone();
            (400, EVENT)
        }
        7 => {
            event.as_object_mut().expect("an object").remove(dice.one_of(&["name", "data"]));
            (400, "missing field `")
        }
        8 => {
            event.as_object_mut().expect("an object").remove("channel");
            (400, "The event names no channel")
        }
        9 => {
            event["name"] = json!("n".repeat(201 + many / 8));
            (400, "Event name is too long. Maximum allowed size is 200.")
        }
        10 => {
            event["name"] = json!(dice.one_of(&["pusher:a", "pusher_internal:a"]));
            (400, "are reserved for the server")
        }
        11 => {
            event["channel"] = json!("c".repeat(201 + many / 8));
            (400, "The channel name is too long. Maximum allowed size is 200.")
        }
        12 => {
            event["channel"] = json!(dice.one_of(&["a b", "\u{7}", "é", "private-\u{1f980}"]));
            (400, "The channel name contains a character that is not allowed")
        }
        13 => {
            event["channels"] = json!(vec!["c"; 101 + many / 100]);
            (400, "Cannot broadcast to more than 100 channels at once.")
        }
        14 => {
            event["socket_id"] = json!(dice.one_of(&["", "1", "1.", "a.b", "1.2.3"]));
            (400, "Invalid socket_id")
        }
        _ => {
            event["info"] = json!("w".repeat(1 + many / 8));
            (400, "There is no attribute")
        }
    };
    (event.to_string(), status, words)
}

/// Bytes that are no HTTP, or no whole request, after which the connection ends: status and words of the answer.
pub(crate) fn unreadable(dice: &mut Dice) -> (Vec<u8>, u16, &'static str) {
    let host = "Host: a\r\n";
    let post = "POST /apps/1/events HTTP/1.1\r\nHost: a\r\n";
    let many = dice.below(10_000);
    let (text, status, words) = match dice.below(14) {
        0 => (format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(16_384 + many)), 431, "head is too large"),
        1 => (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(100 + many / 10)), 431, "too many header"),
        2 => (format!("{}\r\n\r\n", "\u{1}!".repeat(1 + many / 10)), 400, ""),
        3 => (format!("GET /{} HTTP/1.1\n{host}\r\n", "x".repeat(many)), 400, ""),
        4 => (format!("GET / HTTP/1.1\r\n{host}X: \0\r\n\r\n"), 400, ""),
        5 => (format!("GET / HTTP/1.1\r\n{host} folded: {}\r\n\r\n", "x".repeat(many)), 400, "folded"),
        6 => (format!("GET / HTTP/{}.1\r\n{host}\r\n", 2 + many), 400, ""),
        7 => (format!("GET /app/key-one HTTP/1.1\r\n{host}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), 426, ""),
        8 => {
            let head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ";
            (format!("GET /app/key-one HTTP/1.1\r\n{host}{head}{}\r\n\r\n", "A".repeat(many % 1000)), 400, "")
        }
        // Cut short.
        9 => (format!("{post}Content-Length: {}\r\n\r\n{}", many + 2, "x".repeat(many)), 400, "ended too early"),
        10 => (format!("{post}Transfer-Encoding: chunked\r\n\r\n{:x}\r\nxx", 3 + many), 400, "ended too early"),
        11 => (format!("{post}Transfer-Encoding: chunked\r\n\r\n!{}\r\n", "z".repeat(many)), 400, ""),
        12 => (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), 400, ""),
        _ => (format!("{post}Content-Length: -{many}\r\n\r\n"), 400, ""),
    };
    (text.into_bytes(), status, words)
}

pub(crate) const HEADERS: [(&str, &str); 1] = JSON;

const EVENT: &str = "The body of the request cannot be read as an event: ";
const BATCH: &str = "The body of the request cannot be read as a batch of events: ";
