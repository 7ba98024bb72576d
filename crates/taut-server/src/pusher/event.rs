//! What clients and server say to each other, one JSON object per WebSocket message.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::socket_id::SocketId;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// `pusher:ping`: the client wants to know whether the server is there.
    Ping,
    /// `pusher:pong`: the answer to a ping of the server.
    Pong,
    /// `pusher:subscribe`.
    Subscribe {
        /// The name as it was sent, not yet checked.
        channel: Cow<'a, str>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// The name as it was sent, not yet checked.
        channel: Cow<'a, str>,
    },
    /// An event of the client's own, meant for the other members of a channel.
    Triggered {
        /// The event's name as it was sent, not yet checked.
        event: Cow<'a, str>,
        /// Where it was meant to go, as it was sent; `None` when the message names no channel.
        channel: Option<Cow<'a, str>>,
    },
    /// A `pusher:` event that this server does not know. The protocol grows by such events, so it is no mistake.
    Unknown,
}

impl<'a> ClientEvent<'a> {
    /// Reads one message.
    ///
    /// `data` may be an object or a string that holds one: some SDKs encode it twice.
    pub fn parse(message: &'a str) -> Result<Self, Malformed> {
        let message: Message<'a> = from_object(message, Part::Message)?;
        let event = message.event.0;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => Ok(Self::Subscribe { channel: channel_in(message.data)? }),
            "pusher:unsubscribe" => Ok(Self::Unsubscribe { channel: channel_in(message.data)? }),
            name if name.starts_with("pusher:") => Ok(Self::Unknown),
            _ => Ok(Self::Triggered { event, channel: message.channel.map(|channel| channel.0) }),
        }
    }
}

/// What the server says.
///
/// Which `data` is an object and which a string that holds JSON differs by event; clients in the field rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent<'a> {
    /// The first message on every good connection.
    ConnectionEstablished {
        /// The connection's name.
        socket_id: SocketId,
        /// Seconds of silence after which the client should ask whether the server is there. Must not be 0: pusher-js gives up for good then.
        activity_timeout: u32,
    },
    /// Something was refused.
    Error {
        /// The close code's number where there is one.
        code: Option<u16>,
        /// What and why.
        message: &'a str,
    },
    /// The answer to `pusher:ping`.
    Pong,
    /// From here on the channel's events come.
    SubscriptionSucceeded {
        /// The channel's name.
        channel: &'a str,
    },
    /// A subscription was refused; the connection stays.
    SubscriptionError {
        /// The name as the client sent it.
        channel: &'a str,
        /// The kind of refusal.
        kind: &'a str,
        /// What and why.
        error: &'a str,
        /// The HTTP status that says it best.
        status: u16,
    },
    /// An event that somebody published.
    Published {
        /// The event's name.
        event: &'a str,
        /// The channel's name.
        channel: &'a str,
        /// The publisher's text, unchanged; it need not be JSON.
        data: &'a str,
    },
}

impl ServerEvent<'_> {
    /// Appends the message's JSON text.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::ConnectionEstablished { socket_id, activity_timeout } => {
                out.push_str(r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#);
                write_display(out, socket_id);
                out.push_str(r#"\",\"activity_timeout\":"#);
                write_display(out, activity_timeout);
                out.push_str(r#"}"}"#);
            }
            Self::Error { code, message } => {
                out.push_str(r#"{"event":"pusher:error","data":{"code":"#);
                match code {
                    Some(code) => write_display(out, code),
                    None => out.push_str("null"),
                }
                out.push_str(r#","message":"#);
                write_json_string(out, message);
                out.push_str("}}");
            }
            Self::Pong => out.push_str(r#"{"event":"pusher:pong","data":"{}"}"#),
            Self::SubscriptionSucceeded { channel } => {
                out.push_str(r#"{"event":"pusher_internal:subscription_succeeded","channel":"#);
                write_json_string(out, channel);
                out.push_str(r#","data":"{}"}"#);
            }
            Self::SubscriptionError { channel, kind, error, status } => {
                out.push_str(r#"{"event":"pusher:subscription_error","channel":"#);
                write_json_string(out, channel);
                out.push_str(r#","data":{"type":"#);
                write_json_string(out, kind);
                out.push_str(r#","error":"#);
                write_json_string(out, error);
                out.push_str(r#","status":"#);
                write_display(out, status);
                out.push_str("}}");
            }
            Self::Published { event, channel, data } => {
                out.push_str(r#"{"event":"#);
                write_json_string(out, event);
                out.push_str(r#","channel":"#);
                write_json_string(out, channel);
                out.push_str(r#","data":"#);
                write_json_string(out, data);
                out.push('}');
            }
        }
    }
}

/// Why a message could not be read.
///
/// The text names the place but repeats nothing of the message, which may be long and may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    part: Part,
    category: Category,
    line: usize,
    column: usize,
}

impl Malformed {
    fn new(part: Part, error: &serde_json::Error) -> Self {
        use serde_json::error::Category as Json;
        let category = match error.classify() {
            Json::Eof => Category::Unfinished,
            Json::Syntax | Json::Io => Category::Syntax,
            Json::Data => Category::Shape,
        };
        Self { part, category, line: error.line(), column: error.column() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Message => "the message",
            Part::Data => "its \"data\"",
        };
        let wanted = match self.part {
            Part::Message => "a JSON object whose \"event\" is a string",
            Part::Data => "a JSON object, or a string that holds one, whose \"channel\" is a string",
        };
        let problem = match self.category {
            Category::Missing => {
                return write!(formatter, "Invalid message: {part} is missing; it must be {wanted}.");
            }
            Category::Unfinished => "ends too early",
            Category::Syntax => "is not JSON",
            Category::Shape => "has the wrong form",
        };
        write!(
            formatter,
            "Invalid message: {part} {problem} (line {}, column {}); it must be {wanted}.",
            self.line, self.column
        )
    }
}

impl std::error::Error for Malformed {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Message,
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    Missing,
    Unfinished,
    Syntax,
    Shape,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SubscriptionData<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
}

/// A string lent from the message unless an escape forbids it. (Serde borrows a bare `Cow`, but not one within an `Option`.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn channel_in(data: Option<&RawValue>) -> Result<Cow<'_, str>, Malformed> {
    let Some(data) = data.map(RawValue::get) else {
        return Err(Malformed { part: Part::Data, category: Category::Missing, line: 0, column: 0 });
    };
    if data.starts_with('"') {
        let inner: String = serde_json::from_str(data).map_err(|error| Malformed::new(Part::Data, &error))?;
        let data: SubscriptionData<'_> = from_object(&inner, Part::Data)?;
        return Ok(Cow::Owned(data.channel.0.into_owned()));
    }
    from_object::<SubscriptionData<'_>>(data, Part::Data).map(|data| data.channel.0)
}

/// Reads an object. (Serde would also fill a struct from an array's elements.)
fn from_object<'a, T: Deserialize<'a>>(text: &'a str, part: Part) -> Result<T, Malformed> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(Malformed { part, category: Category::Shape, line: 1, column: 1 });
    }
    serde_json::from_str(text).map_err(|error| Malformed::new(part, &error))
}

/// Appends `text` as a JSON string with its quotes (RFC 8259 §7): only what must be escaped is.
pub fn write_json_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut copied = 0;
    for (position, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0x00..=0x1f => "",
            _ => continue,
        };
        // Every escaped byte is ASCII, so both ends of the slice are character borders.
        out.push_str(&text[copied..position]);
        copied = position + 1;
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 0x0f)]));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

fn write_display(out: &mut String, value: impl fmt::Display) {
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{value}");
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn written(event: ServerEvent<'_>) -> String {
        let mut out = String::new();
        event.write(&mut out);
        out
    }

    #[test]
    fn pusher_js_subscribing_to_a_public_channel_is_understood_without_a_copy() {
        let message = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}"#;
        let Ok(ClientEvent::Subscribe { channel: Cow::Borrowed(channel) }) = ClientEvent::parse(message) else {
            panic!("not lent from the message");
        };
        assert_eq!(channel, "my-channel");
    }

    #[test]
    fn data_may_be_a_string_that_holds_the_object() {
        let message = r#"{"event":"pusher:subscribe","data":"{\"channel\":\"my-channel\"}"}"#;
        assert_eq!(ClientEvent::parse(message), Ok(ClientEvent::Subscribe { channel: "my-channel".into() }));
        let message = r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"my-channel\"}"}"#;
        assert_eq!(ClientEvent::parse(message), Ok(ClientEvent::Unsubscribe { channel: "my-channel".into() }));
    }

    #[test]
    fn escapes_in_names_are_resolved() {
        let message = r#"{"event":"pusher:subscribe","data":{"channel":"caf\u00e9"}}"#;
        assert_eq!(ClientEvent::parse(message), Ok(ClientEvent::Subscribe { channel: "café".into() }));
        assert_eq!(ClientEvent::parse(r#"{"event":"pusher\u003aping"}"#), Ok(ClientEvent::Ping));
    }

    #[test]
    fn pings_and_pongs_are_understood_with_any_data_or_none() {
        for data in ["", r#","data":{}"#, r#","data":"{}""#, r#","data":null"#, r#","data":[1,2]"#] {
            assert_eq!(ClientEvent::parse(&format!(r#"{{"event":"pusher:ping"{data}}}"#)), Ok(ClientEvent::Ping));
            assert_eq!(ClientEvent::parse(&format!(r#"{{"event":"pusher:pong"{data}}}"#)), Ok(ClientEvent::Pong));
        }
    }

    #[test]
    fn unknown_pusher_events_and_unknown_keys_are_no_mistake() {
        assert_eq!(ClientEvent::parse(r#"{"event":"pusher:weather","data":7,"x":[{}]}"#), Ok(ClientEvent::Unknown));
    }

    #[test]
    fn an_event_of_the_clients_own_keeps_name_and_channel() {
        assert_eq!(
            ClientEvent::parse(r#"{"event":"client-typing","channel":"chat","data":{"x":1}}"#),
            Ok(ClientEvent::Triggered { event: "client-typing".into(), channel: Some("chat".into()) })
        );
        assert_eq!(
            ClientEvent::parse(r#"{"event":"App\\Events\\X"}"#),
            Ok(ClientEvent::Triggered { event: "App\\Events\\X".into(), channel: None })
        );
    }

    #[test]
    fn what_cannot_be_read_says_where_and_what_was_wanted_and_repeats_nothing() {
        for (message, text) in [
            ("", "the message ends too early (line 1, column 0)"),
            ("{\"event\":", "the message ends too early (line 1, column 9)"),
            ("hello", "the message is not JSON (line 1, column 1)"),
            ("{\"event\":\"a\"} x", "the message is not JSON (line 1, column 15)"),
            (r#"["pusher:ping",null,null]"#, "the message has the wrong form (line 1, column 1)"),
            ("7", "the message has the wrong form (line 1, column 1)"),
            ("{}", "the message has the wrong form (line 1, column 2)"),
            (r#"{"event":5}"#, "the message has the wrong form (line 1, column 10)"),
            (r#"{"event":"a","channel":{}}"#, "the message has the wrong form"),
            (r#"{"event":"a","event":"b"}"#, "the message has the wrong form"),
            (r#"{"event":"pusher:subscribe"}"#, "its \"data\" is missing"),
            (r#"{"event":"pusher:subscribe","data":null}"#, "its \"data\" is missing"),
            (r#"{"event":"pusher:subscribe","data":{}}"#, "its \"data\" has the wrong form (line 1, column 2)"),
            (r#"{"event":"pusher:subscribe","data":"secret"}"#, "its \"data\" is not JSON"),
            (r#"{"event":"pusher:subscribe","data":["c"]}"#, "its \"data\" has the wrong form"),
            (r#"{"event":"pusher:subscribe","data":{"channel":5}}"#, "its \"data\" has the wrong form"),
        ] {
            let refused = ClientEvent::parse(message).expect_err(message).to_string();
            assert!(refused.contains(text), "{message}: {refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!(r#"{{"event":"pusher:ping","data":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(ClientEvent::parse(&deep), Ok(ClientEvent::Ping));
        let deep = format!(r#"{{"event":"pusher:ping","x":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(ClientEvent::parse(&deep), Ok(ClientEvent::Ping));
    }

    #[test]
    fn connection_established_carries_its_data_as_a_string() {
        let mut random = [0; 16];
        random[0] = 123;
        random[8] = 7;
        let socket_id = SocketId::from_random(random);
        assert_eq!(
            written(ServerEvent::ConnectionEstablished { socket_id, activity_timeout: 120 }),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.7\",\"activity_timeout\":120}"}"#
        );
    }

    #[test]
    fn errors_carry_an_object_with_a_code_or_null() {
        assert_eq!(
            written(ServerEvent::Error { code: Some(4001), message: "There is no app with key \"k\"." }),
            r#"{"event":"pusher:error","data":{"code":4001,"message":"There is no app with key \"k\"."}}"#
        );
        assert_eq!(
            written(ServerEvent::Error { code: None, message: "no" }),
            r#"{"event":"pusher:error","data":{"code":null,"message":"no"}}"#
        );
    }

    #[test]
    fn pong_carries_an_empty_object_as_a_string() {
        assert_eq!(written(ServerEvent::Pong), r#"{"event":"pusher:pong","data":"{}"}"#);
    }

    #[test]
    fn subscription_succeeded_carries_an_empty_object_as_a_string() {
        assert_eq!(
            written(ServerEvent::SubscriptionSucceeded { channel: "my-channel" }),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"my-channel","data":"{}"}"#
        );
    }

    #[test]
    fn subscription_error_names_the_channel_even_a_nasty_one() {
        assert_eq!(
            written(ServerEvent::SubscriptionError {
                channel: "a\"\\\n",
                kind: "LimitReached",
                error: "too many",
                status: 409
            }),
            r#"{"event":"pusher:subscription_error","channel":"a\"\\\n","data":{"type":"LimitReached","error":"too many","status":409}}"#
        );
    }

    #[test]
    fn a_published_event_carries_the_publishers_string() {
        assert_eq!(
            written(ServerEvent::Published { event: "App\\Events\\X", channel: "c", data: r#"{"hello":"world"}"# }),
            r#"{"event":"App\\Events\\X","channel":"c","data":"{\"hello\":\"world\"}"}"#
        );
    }

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        let mut out = String::new();
        write_json_string(&mut out, "\u{0}\u{1f}\u{8}\u{c}\t\r\n/é\u{2028}\u{7f}😀");
        assert_eq!(out, "\"\\u0000\\u001f\\b\\f\\t\\r\\n/é\u{2028}\u{7f}😀\"");
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back_unchanged(event: String, channel: String, data: String) {
            let text = written(ServerEvent::Published { event: &event, channel: &channel, data: &data });
            let value: Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(value, json!({ "event": event, "channel": channel, "data": data }));
        }

        #[test]
        fn no_text_makes_the_parser_panic(message: String) {
            let _ = ClientEvent::parse(&message);
        }

        #[test]
        fn any_channel_name_survives_both_forms_of_data(channel: String) {
            let data = json!({ "channel": channel });
            for data in [data.clone(), Value::String(data.to_string())] {
                let message = json!({ "event": "pusher:subscribe", "data": data }).to_string();
                let expected = Ok(ClientEvent::Subscribe { channel: channel.as_str().into() });
                prop_assert_eq!(ClientEvent::parse(&message), expected);
            }
        }
    }
}
