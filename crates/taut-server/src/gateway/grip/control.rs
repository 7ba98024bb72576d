//! GRIP on a WebSocket: messages for the client, and control messages that the client never sees.

use serde_json::Value;

use super::events::{self, Kind};
use super::json::{Content, Fields};
use super::parameters::{Parameters, list};

/// The extension as the backend's answer to OPEN turns it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    /// The prefix of messages for the client; may be empty.
    prefix: Box<str>,
}

/// How to treat a message from a backend that speaks GRIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing<'a> {
    /// JSON for [`Control::parse`].
    Control(&'a [u8]),
    /// For the client, without the prefix.
    Message(&'a [u8]),
    /// It has no prefix. Count these: a backend that forgets the prefix sees no error.
    Dropped,
}

/// What a control message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Subscribe {
        channel: String,
        filters: Filters,
    },
    Unsubscribe {
        channel: String,
    },
    /// The backend wants no more events of this connection.
    Detach,
    /// `None` turns it off.
    KeepAlive(Option<KeepAlive>),
    /// Names the connection for refreshes. `None` takes the name away.
    Session {
        id: Option<String>,
    },
    /// Metadata of the connection's subscriptions, for filters. `None` removes it.
    SetMeta {
        name: String,
        value: Option<String>,
    },
    /// Replaces a message that is still waiting, which is sent at once.
    SendDelayed {
        message: Message,
        seconds: u32,
    },
    FlushDelayed,
    /// The message is malformed or unknown, and why. The connection goes on.
    Ignored(String),
}

/// A message that the server sends to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Text, Binary, Ping or Pong.
    pub(crate) kind: Kind,
    /// UTF-8 if the kind is [`Kind::Text`]; short enough for a control frame if it is one.
    pub(crate) content: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    pub(crate) message: Message,
    pub(crate) seconds: u32,
    pub(crate) mode: Mode,
}

/// When a keep-alive is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// When nothing else was sent in the meantime.
    #[default]
    Idle,
    /// In any case.
    Interval,
}

/// Which messages of a channel a subscription skips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Those whose meta `sender` is the subscription's meta `user`.
    pub(crate) skip_self: bool,
    /// Those whose meta `skip_users` lists the subscription's meta `user`.
    pub(crate) skip_users: bool,
    /// Those whose meta `require_sub` is a channel that the connection has not subscribed to.
    pub(crate) require_sub: bool,
    /// Filters that this server does not have, for the log.
    pub(crate) unknown: Vec<String>,
}

impl Extension {
    /// Reads a `Sec-WebSocket-Extensions` of the answer to OPEN; `None` if GRIP is not in it.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let grip = list(header).filter_map(Parameters::parse).find(|it| it.value.eq_ignore_ascii_case("grip"))?;
        Some(Self { prefix: grip.get("message-prefix").unwrap_or(DEFAULT_PREFIX).into() })
    }

    /// Classifies a TEXT or BINARY from the backend.
    pub(crate) fn classify<'a>(&self, kind: Kind, content: &'a [u8]) -> Outgoing<'a> {
        let control = content.strip_prefix(CONTROL_PREFIX).filter(|_| kind == Kind::Text);
        if let Some(json) = control {
            return Outgoing::Control(json);
        }
        content.strip_prefix(self.prefix.as_bytes()).map_or(Outgoing::Dropped, Outgoing::Message)
    }
}

impl Control {
    /// Reads a control message, what stands after `c:`.
    pub(crate) fn parse(json: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice(json) else { return Self::Ignored("not JSON".into()) };
        Self::of(&value).unwrap_or_else(Self::Ignored)
    }

    fn of(value: &Value) -> Result<Self, String> {
        let fields = Fields::of("control message", value)?;
        Ok(match fields.required_text("type")? {
            "subscribe" => Self::Subscribe {
                channel: fields.required_text("channel")?.into(),
                filters: Filters::of(fields.texts("filters")?),
            },
            "unsubscribe" => Self::Unsubscribe { channel: fields.required_text("channel")?.into() },
            "detach" => Self::Detach,
            "keep-alive" => Self::KeepAlive(KeepAlive::of(fields)?),
            "session" => Self::Session { id: fields.text("id")?.filter(|id| !id.is_empty()).map(Into::into) },
            "set-meta" => Self::SetMeta {
                name: fields.required_text("name")?.into(),
                value: fields.text("value")?.map(Into::into),
            },
            "send-delayed" => Self::SendDelayed {
                message: Message::of(fields)?.ok_or_else(|| fields.missing("content"))?,
                seconds: timeout(fields, DELAY)?,
            },
            "flush-delayed" => Self::FlushDelayed,
            _ => return Err(fields.unknown("type")),
        })
    }
}

impl KeepAlive {
    fn of(fields: Fields<'_>) -> Result<Option<Self>, String> {
        let Some(message) = Message::of(fields)? else { return Ok(None) };
        let mode = fields.text("mode")?.map_or(Mode::Idle, Mode::of);
        Ok(Some(Self { message, seconds: timeout(fields, KEEP_ALIVE)?, mode }))
    }
}

impl Mode {
    /// As in Pushpin, an unknown mode is `idle`.
    fn of(name: &str) -> Self {
        if name == "interval" { Self::Interval } else { Self::Idle }
    }
}

impl Message {
    /// A text, unless `message-type` says otherwise, also if its content is base64.
    fn of(fields: Fields<'_>) -> Result<Option<Self>, String> {
        let kind = message_kind(fields, "message-type")?.unwrap_or(Kind::Text);
        fields.content("content")?.map(|content| Self::new(kind, content, fields)).transpose()
    }

    /// Checks that a frame of this kind can carry the content.
    pub(crate) fn new(kind: Kind, content: Content, fields: Fields<'_>) -> Result<Self, String> {
        let Content { bytes: content, is_binary } = content;
        let fits = match kind {
            Kind::Text => std::str::from_utf8(&content).is_ok(),
            Kind::Binary => true,
            _ => content.len() <= events::LONGEST_CONTROL,
        };
        let field = if is_binary { "content-bin" } else { "content" };
        if fits { Ok(Self { kind, content }) } else { Err(fields.invalid(field)) }
    }
}

/// Reads the kind of a message that the server is to send.
pub(crate) fn message_kind(fields: Fields<'_>, name: &str) -> Result<Option<Kind>, String> {
    Ok(Some(match fields.text(name)? {
        None => return Ok(None),
        Some("text") => Kind::Text,
        Some("binary") => Kind::Binary,
        Some("ping") => Kind::Ping,
        Some("pong") => Kind::Pong,
        Some(_) => return Err(fields.unknown(name)),
    }))
}

impl Filters {
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut filters = Self::default();
        for name in names {
            match name {
                "skip-self" => filters.skip_self = true,
                "skip-users" => filters.skip_users = true,
                "require-sub" => filters.require_sub = true,
                name => filters.unknown.push(name.into()),
            }
        }
        filters
    }

    /// Whether a subscription skips a message with this meta. `user` is the meta `user` of the connection's
    /// subscriptions, and `is_subscribed` looks a channel up among them.
    pub(crate) fn skip<'a>(
        &self,
        user: Option<&str>,
        meta: impl Fn(&str) -> Option<&'a str>,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> bool {
        let meta = |name| meta(name).unwrap_or_default();
        let user = user.filter(|user| !user.is_empty());
        let is_user = |name: &str| user == Some(name.trim());
        (self.skip_self && user == Some(meta("sender")))
            || (self.skip_users && meta("skip_users").split(',').any(is_user))
            || (self.require_sub && !meta("require_sub").is_empty() && !is_subscribed(meta("require_sub")))
    }
}

/// Seconds; 0 and none are the default.
fn timeout(fields: Fields<'_>, default: u32) -> Result<u32, String> {
    Ok(fields.seconds("timeout")?.filter(|seconds| *seconds > 0).unwrap_or(default))
}

/// The filters for `Grip-Feature`. Libraries hand that header to the application, which chooses by it.
pub(crate) const FEATURES: &str = "filter:skip-self, filter:skip-users, filter:require-sub";

const CONTROL_PREFIX: &[u8] = b"c:";

const DEFAULT_PREFIX: &str = "m:";

/// Seconds of a keep-alive that names none.
pub(crate) const KEEP_ALIVE: u32 = 55;

/// Seconds of a delayed message that names none.
const DELAY: u32 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::events::read;
    use super::super::json::arbitrary::any_json;
    use super::*;

    const WORDS: &[&str] = &[
        "type",
        "subscribe",
        "channel",
        "filters",
        "keep-alive",
        "content",
        "content-bin",
        "timeout",
        "mode",
        "session",
        "id",
        "set-meta",
        "name",
        "value",
        "send-delayed",
        "message-type",
        "ping",
        "text",
        "binary",
    ];

    fn extension(header: &str) -> Extension {
        Extension::parse(header).expect(header)
    }

    fn control(json: &str) -> Control {
        Control::parse(json.as_bytes())
    }

    fn subscribe(channel: &str) -> Control {
        Control::Subscribe { channel: channel.into(), filters: Filters::default() }
    }

    fn message(kind: Kind, content: &str) -> Message {
        Message { kind, content: content.into() }
    }

    #[test]
    fn the_recorded_answer_is_told_apart() {
        let body = b"OPEN\r\nTEXT 2a\r\nc:{\"type\": \"subscribe\", \"channel\": \"room\"}\r\nTEXT 9\r\nm:welcome\r\n\
            TEXT 12\r\ndropped: no prefix\r\nBINARY 4\r\nm:\x00\xff\r\n";
        let events = read(body, 10).expect("events");
        let grip = extension("grip");
        let seen: Vec<_> = events[1..].iter().map(|event| grip.classify(event.kind, event.content)).collect();
        assert_eq!(
            seen,
            [
                Outgoing::Control(b"{\"type\": \"subscribe\", \"channel\": \"room\"}"),
                Outgoing::Message(b"welcome"),
                Outgoing::Dropped,
                Outgoing::Message(b"\x00\xff"),
            ]
        );
        assert_eq!(Control::parse(b"{\"type\": \"subscribe\", \"channel\": \"room\"}"), subscribe("room"));
    }

    #[test]
    fn the_prefix_is_the_backends_to_choose() {
        let other = extension("grip; message-prefix=\"p:\"");
        assert_eq!(other.classify(Kind::Text, b"m:x"), Outgoing::Dropped, "G1");
        assert_eq!(other.classify(Kind::Text, b"p:x"), Outgoing::Message(b"x"), "G1");
        let none = extension("grip; message-prefix=\"\"");
        assert_eq!(none.classify(Kind::Text, b"m:x"), Outgoing::Message(b"m:x"), "G2");
        assert_eq!(none.classify(Kind::Text, b""), Outgoing::Message(b""), "G2");
        assert_eq!(none.classify(Kind::Text, b"c:{}"), Outgoing::Control(b"{}"), "G2");
        assert_eq!(none.classify(Kind::Binary, b"c:{}"), Outgoing::Message(b"c:{}"), "only texts are control messages");
        assert_eq!(extension("permessage-deflate, GRIP;x"), extension("grip"));
        assert_eq!(Extension::parse("permessage-deflate"), None);
        assert_eq!(Extension::parse(""), None);
        assert_eq!(Extension::parse("grip; message-prefix=\"x"), None);
    }

    #[test]
    fn control_messages_are_read() {
        for (json, expected) in [
            (r#"{"channel":"test","type":"subscribe"}"#, subscribe("test")),
            (
                r#"{"type":"subscribe","channel":"a","filters":["skip-self","skip-users","require-sub","build-id"]}"#,
                Control::Subscribe {
                    channel: "a".into(),
                    filters: Filters {
                        skip_self: true,
                        skip_users: true,
                        require_sub: true,
                        unknown: vec!["build-id".into()],
                    },
                },
            ),
            (r#"{"type":"unsubscribe","channel":"room"}"#, Control::Unsubscribe { channel: "room".into() }),
            (r#"{"type":"detach"}"#, Control::Detach),
            (
                r#"{"type":"keep-alive","content":"{}","timeout":2}"#,
                Control::KeepAlive(Some(KeepAlive {
                    message: message(Kind::Text, "{}"),
                    seconds: 2,
                    mode: Mode::Idle,
                })),
            ),
            (
                r#"{"type":"keep-alive","content-bin":"cA==","message-type":"ping","mode":"interval"}"#,
                Control::KeepAlive(Some(KeepAlive {
                    message: message(Kind::Ping, "p"),
                    seconds: 55,
                    mode: Mode::Interval,
                })),
            ),
            (r#"{"type":"keep-alive"}"#, Control::KeepAlive(None)),
            (r#"{"type":"session","id":"s"}"#, Control::Session { id: Some("s".into()) }),
            (r#"{"type":"session","id":""}"#, Control::Session { id: None }),
            (
                r#"{"type":"set-meta","name":"user","value":"7"}"#,
                Control::SetMeta { name: "user".into(), value: Some("7".into()) },
            ),
            (r#"{"type":"set-meta","name":"user"}"#, Control::SetMeta { name: "user".into(), value: None }),
            (
                r#"{"type":"send-delayed","content":"x","timeout":0}"#,
                Control::SendDelayed { message: message(Kind::Text, "x"), seconds: 1 },
            ),
            (r#"{"type":"flush-delayed"}"#, Control::FlushDelayed),
        ] {
            assert_eq!(control(json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_not_known_is_ignored_with_a_reason() {
        for (json, reason) in [
            (r#"{"type":"frobnicate"}"#, "control message contains 'type' with unknown value"),
            ("not json", "not JSON"),
            ("", "not JSON"),
            ("[]", "control message is not an object"),
            ("{}", "control message does not contain 'type'"),
            (r#"{"type":7}"#, "control message contains 'type' with wrong type"),
            (r#"{"type":"subscribe"}"#, "control message does not contain 'channel'"),
            (r#"{"type":"subscribe","channel":""}"#, "control message contains 'channel' with invalid value"),
            (r#"{"type":"subscribe","channel":"a","filters":[1]}"#, "filters contains value with wrong type"),
            (r#"{"type":"send-delayed"}"#, "control message does not contain 'content'"),
            (r#"{"type":"keep-alive","content":1}"#, "control message contains 'content' with wrong type"),
            (r#"{"type":"keep-alive","content-bin":"%"}"#, "control message contains 'content-bin' with invalid value"),
            (
                r#"{"type":"keep-alive","content-bin":"/w"}"#,
                "control message contains 'content-bin' with invalid value",
            ),
            (
                r#"{"type":"keep-alive","content":"","timeout":-1}"#,
                "control message contains 'timeout' with invalid value",
            ),
            (
                r#"{"type":"keep-alive","content":"","message-type":"close"}"#,
                "control message contains 'message-type' with unknown value",
            ),
        ] {
            assert_eq!(control(json), Control::Ignored(reason.into()), "{json}");
        }
        let long = format!(r#"{{"type":"keep-alive","message-type":"ping","content":"{}"}}"#, "a".repeat(126));
        assert_eq!(control(&long), Control::Ignored("control message contains 'content' with invalid value".into()));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(control(&deep), Control::Ignored("not JSON".into()));
    }

    #[test]
    fn the_advertised_filters_are_known() {
        let names: Vec<_> = list(FEATURES).filter_map(|it| it.strip_prefix("filter:")).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(Filters::of(names).unknown, [""; 0]);
    }

    #[test]
    fn filters_compare_the_subscription_with_the_message() {
        let skip = |filter: &str, user: Option<&str>, name: &str, value: &'static str| {
            Filters::of([filter]).skip(user, |it| (it == name).then_some(value), |channel| channel == "mine")
        };
        assert!(skip("skip-self", Some("a"), "sender", "a"));
        assert!(!skip("skip-self", Some("a"), "sender", "b"));
        assert!(!skip("skip-self", Some(""), "sender", ""));
        assert!(!skip("skip-self", None, "sender", ""));
        assert!(skip("skip-users", Some("a"), "skip_users", "b, a"));
        assert!(!skip("skip-users", Some("a"), "skip_users", "b, ab"));
        assert!(!skip("skip-users", None, "skip_users", ""));
        assert!(skip("require-sub", None, "require_sub", "other"));
        assert!(!skip("require-sub", None, "require_sub", "mine"));
        assert!(!skip("require-sub", None, "require_sub", ""));
        assert!(!skip("build-id", Some("a"), "sender", "a"));
    }

    proptest! {
        #[test]
        fn any_channel_is_read_as_it_was_written(channel in ".+") {
            let json = serde_json::json!({ "type": "subscribe", "channel": channel }).to_string();
            prop_assert_eq!(control(&json), subscribe(&channel));
        }

        #[test]
        fn a_message_with_any_prefix_loses_it(prefix in "[ -~]{0,5}", content: Vec<u8>) {
            let quoted = prefix.replace('\\', "\\\\").replace('"', "\\\"");
            let grip = extension(&format!("grip; message-prefix=\"{quoted}\""));
            let whole = [prefix.as_bytes(), &content].concat();
            prop_assert_eq!(grip.classify(Kind::Binary, &whole), Outgoing::Message(&content));
        }

        #[test]
        fn no_fields_make_the_parser_panic(value in any_json(WORDS)) {
            if let Control::KeepAlive(Some(KeepAlive { message, seconds, .. })) = control(&value.to_string()) {
                prop_assert!(seconds > 0);
                prop_assert!(message.kind != Kind::Text || std::str::from_utf8(&message.content).is_ok());
            }
        }

        #[test]
        fn nothing_makes_the_parsers_panic(bytes: Vec<u8>, text: String) {
            let _ = Control::parse(&bytes);
            let _ = Control::parse(text.as_bytes());
            let _ = Extension::parse(&text);
        }
    }
}
