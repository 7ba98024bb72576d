//! What clients and server say to each other, one JSON object per WebSocket message.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, NotObject, Text, owned, without_lone_surrogates, write_json_string};
use crate::payload::Payload;
use crate::socket_id::SocketId;

/// The name of an event between nodes that says more than an event can: a binary message, or that connections are to be
/// closed. No publisher can use it, and clients ignore it.
pub const FRAME_EVENT: &str = "pusher_internal:frame";

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
        /// `KEY:SIGNATURE`, where the channel needs it; pusher-js sends an empty text where it does not.
        auth: Cow<'a, str>,
        /// What the signature vouches for beside the channel, as it was sent.
        channel_data: Option<Cow<'a, str>>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// The name as it was sent, not yet checked.
        channel: Cow<'a, str>,
    },
    /// A client event, meant for the other members of a channel.
    Triggered {
        /// The event's name as it was sent, not yet checked.
        event: Cow<'a, str>,
        /// Where it was meant to go, as it was sent; `None` when the message names no channel.
        channel: Option<Cow<'a, str>>,
        /// The JSON text of its data as it was sent, but for halves of surrogate pairs: others could not read those.
        data: Option<Cow<'a, str>>,
    },
    /// `pusher:signin`: the client says as which user it acts.
    SignIn {
        /// `KEY:SIGNATURE`.
        auth: Cow<'a, str>,
        /// Who the user is, as it was sent and signed.
        user_data: Cow<'a, str>,
    },
    /// A `pusher:` event that this server does not know. The protocol grows by such events, so it is not an error.
    Unknown,
}

impl<'a> ClientEvent<'a> {
    /// Reads one message.
    ///
    /// `data` may be an object or a string that holds one: some SDKs encode it twice. Half of a surrogate pair is read
    /// as U+FFFD.
    pub fn parse(message: &'a str) -> Result<Self, InvalidMessage> {
        Self::parse_whole(message).or_else(|malformed| match without_lone_surrogates(message) {
            Cow::Borrowed(_) => Err(malformed),
            Cow::Owned(message) => ClientEvent::parse_whole(&message).map(ClientEvent::into_owned),
        })
    }

    fn parse_whole(message: &'a str) -> Result<Self, InvalidMessage> {
        let message: Message<'a> = from_object(message, Part::Message)?;
        let event = message.event.0;
        match &*event {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => {
                let SubscriptionData { channel, auth, channel_data } = Part::Subscription.read(message.data)?;
                let auth = auth.map(|auth| auth.0).unwrap_or_default();
                Ok(Self::Subscribe { channel: channel.0, auth, channel_data: channel_data.map(|data| data.0) })
            }
            "pusher:unsubscribe" => {
                let data: SubscriptionData<'a> = Part::Subscription.read(message.data)?;
                Ok(Self::Unsubscribe { channel: data.channel.0 })
            }
            "pusher:signin" => {
                let SignInData { auth, user_data } = Part::SignIn.read(message.data)?;
                Ok(Self::SignIn { auth: auth.0, user_data: user_data.0 })
            }
            name if name.starts_with("pusher:") => Ok(Self::Unknown),
            _ => Ok(Self::Triggered {
                event,
                channel: message.channel.map(|channel| channel.0),
                data: message.data.map(|data| without_lone_surrogates(data.get())),
            }),
        }
    }

    fn into_owned<'b>(self) -> ClientEvent<'b> {
        match self {
            Self::Ping => ClientEvent::Ping,
            Self::Pong => ClientEvent::Pong,
            Self::Unknown => ClientEvent::Unknown,
            Self::Subscribe { channel, auth, channel_data } => ClientEvent::Subscribe {
                channel: owned(channel),
                auth: owned(auth),
                channel_data: channel_data.map(owned),
            },
            Self::Unsubscribe { channel } => ClientEvent::Unsubscribe { channel: owned(channel) },
            Self::Triggered { event, channel, data } => {
                ClientEvent::Triggered { event: owned(event), channel: channel.map(owned), data: data.map(owned) }
            }
            Self::SignIn { auth, user_data } => ClientEvent::SignIn { auth: owned(auth), user_data: owned(user_data) },
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
        /// Seconds of silence after which the client should ask whether the server is there. Must not be 0: pusher-js
        /// gives up for good then.
        activity_timeout: u32,
    },
    /// Something was refused.
    Error {
        /// The close code's number where there is one.
        code: Option<u16>,
        /// What and why.
        message: &'a str,
        /// The channel that it is about, if it is about one: clients emit the event on that channel and on the
        /// connection. Soketi's clients expect it of a client event that is refused.
        channel: Option<&'a str>,
    },
    /// The answer to `pusher:ping`.
    Pong,
    /// From here on the channel's events come.
    SubscriptionSucceeded {
        /// The channel's name.
        channel: &'a str,
        /// Of a presence channel, who is there: JSON text in which everything is escaped already that a JSON string
        /// must not hold as it is.
        members: Option<&'a str>,
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
    /// A user has come to a presence channel.
    MemberAdded {
        /// The channel's name.
        channel: &'a str,
        /// Who.
        user_id: &'a str,
        /// JSON text of what the user says of itself.
        user_info: Option<&'a str>,
    },
    /// A user has left a presence channel.
    MemberRemoved {
        /// The channel's name.
        channel: &'a str,
        /// Who.
        user_id: &'a str,
    },
    /// How many are subscribed to a channel.
    SubscriptionCount {
        /// The channel's name.
        channel: &'a str,
        /// How many.
        count: usize,
    },
    /// There is no last event in a cache channel.
    CacheMiss {
        /// The channel's name.
        channel: &'a str,
    },
    /// The connection acts as a user from here on.
    SigninSuccess {
        /// Who the user is, exactly as the client sent it.
        user_data: &'a str,
    },
    /// Users on the watchlist have come or gone.
    WatchlistEvents {
        /// Who is there.
        online: &'a [Arc<str>],
        /// Who is not.
        offline: &'a [Arc<str>],
    },
    /// An event that another client sent.
    Client {
        /// The event's name.
        event: &'a str,
        /// The channel's name.
        channel: &'a str,
        /// The sender's JSON text, unchanged.
        data: Option<&'a str>,
        /// Who sent it, in presence channels.
        user_id: Option<&'a str>,
    },
    /// An event that somebody published.
    Published {
        /// The event's name.
        event: &'a str,
        /// The channel's name.
        channel: &'a str,
        /// What it carries.
        data: &'a Payload<'a>,
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
            Self::Error { code, message, channel } => write_error(out, *code, message, *channel),
            Self::Pong => out.push_str(r#"{"event":"pusher:pong","data":"{}"}"#),
            Self::SubscriptionSucceeded { channel, members } => {
                out.push_str(r#"{"event":"pusher_internal:subscription_succeeded","channel":"#);
                write_json_string(out, channel);
                out.push_str(r#","data":""#);
                out.push_str(members.unwrap_or("{}"));
                out.push_str(r#""}"#);
            }
            Self::MemberAdded { channel, user_id, user_info } => {
                let mut data = String::from(r#"{"user_id":"#);
                write_json_string(&mut data, user_id);
                if let Some(user_info) = user_info {
                    data.push_str(r#","user_info":"#);
                    data.push_str(user_info);
                }
                data.push('}');
                write_internal(out, "member_added", channel, &data);
            }
            Self::MemberRemoved { channel, user_id } => {
                let mut data = String::from(r#"{"user_id":"#);
                write_json_string(&mut data, user_id);
                data.push('}');
                write_internal(out, "member_removed", channel, &data);
            }
            Self::SubscriptionCount { channel, count } => {
                write_internal(out, "subscription_count", channel, &format!(r#"{{"subscription_count":{count}}}"#));
            }
            Self::CacheMiss { channel } => {
                out.push_str(r#"{"event":"pusher:cache_miss","channel":"#);
                write_json_string(out, channel);
                out.push('}');
            }
            Self::SigninSuccess { user_data } => {
                out.push_str(r#"{"event":"pusher:signin_success","data":{"user_data":"#);
                write_json_string(out, user_data);
                out.push_str("}}");
            }
            Self::WatchlistEvents { online, offline } => {
                let mut data = String::from(r#"{"events":["#);
                write_watchlist_event(&mut data, "online", online);
                write_watchlist_event(&mut data, "offline", offline);
                data.push_str("]}");
                out.push_str(r#"{"event":"pusher_internal:watchlist_events","data":"#);
                write_json_string(out, &data);
                out.push('}');
            }
            Self::Client { event, channel, data, user_id } => {
                out.push_str(r#"{"event":"#);
                write_json_string(out, event);
                out.push_str(r#","channel":"#);
                write_json_string(out, channel);
                if let Some(data) = data {
                    out.push_str(r#","data":"#);
                    out.push_str(data);
                }
                if let Some(user_id) = user_id {
                    out.push_str(r#","user_id":"#);
                    write_json_string(out, user_id);
                }
                out.push('}');
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
                data.write(out);
                out.push('}');
            }
        }
    }
}

fn write_error(out: &mut String, code: Option<u16>, message: &str, channel: Option<&str>) {
    out.push_str(r#"{"event":"pusher:error","#);
    if let Some(channel) = channel {
        out.push_str(r#""channel":"#);
        write_json_string(out, channel);
        out.push(',');
    }
    out.push_str(r#""data":{"code":"#);
    match code {
        Some(code) => write_display(out, code),
        None => out.push_str("null"),
    }
    out.push_str(r#","message":"#);
    write_json_string(out, message);
    out.push_str("}}");
}

/// Why a message could not be read.
///
/// The text names the place but repeats nothing of the message, which may be long and may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMessage {
    part: Part,
    category: Category,
    line: usize,
    column: usize,
}

impl InvalidMessage {
    fn new(part: Part, NotObject { category, line, column }: NotObject) -> Self {
        use serde_json::error::Category as Json;
        let category = match category {
            Json::Eof => Category::Unfinished,
            Json::Syntax | Json::Io => Category::Syntax,
            Json::Data => Category::Shape,
        };
        Self { part, category, line, column }
    }
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Message => "the message",
            Part::Subscription | Part::SignIn => "its \"data\"",
        };
        let wanted = match self.part {
            Part::Message => "a JSON object whose \"event\" is a string",
            Part::Subscription => {
                "a JSON object, or a string that holds one, whose \"channel\" is a string, as are \"auth\" and \
                 \"channel_data\" if they are there"
            }
            Part::SignIn => "a JSON object, or a string that holds one, whose \"auth\" and \"user_data\" are strings",
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

impl std::error::Error for InvalidMessage {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Message,
    Subscription,
    SignIn,
}

impl Part {
    /// Reads the data of a message: an object, or a string that holds one, since some SDKs encode it twice.
    fn read<'a, T: Data<'a>>(self, data: Option<&'a RawValue>) -> Result<T, InvalidMessage> {
        let Some(data) = data.map(RawValue::get) else {
            return Err(InvalidMessage { part: self, category: Category::Missing, line: 0, column: 0 });
        };
        if data.starts_with('"') {
            let inner: String = serde_json::from_str(data).map_err(|error| InvalidMessage::new(self, error.into()))?;
            return T::read_owned(&without_lone_surrogates(&inner), self);
        }
        from_object(data, self)
    }
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

/// What a message's data may be.
trait Data<'a>: Deserialize<'a> {
    /// Reads it from a text that does not outlive the call.
    fn read_owned(text: &str, part: Part) -> Result<Self, InvalidMessage>;
}

#[derive(Deserialize)]
struct SubscriptionData<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    auth: Option<Text<'a>>,
    #[serde(borrow)]
    channel_data: Option<Text<'a>>,
}

impl<'a> Data<'a> for SubscriptionData<'a> {
    fn read_owned(text: &str, part: Part) -> Result<Self, InvalidMessage> {
        let SubscriptionData { channel, auth, channel_data } = from_object(text, part)?;
        let (auth, channel_data) = (auth.map(Text::into_owned), channel_data.map(Text::into_owned));
        Ok(Self { channel: channel.into_owned(), auth, channel_data })
    }
}

#[derive(Deserialize)]
struct SignInData<'a> {
    #[serde(borrow)]
    auth: Text<'a>,
    #[serde(borrow)]
    user_data: Text<'a>,
}

impl<'a> Data<'a> for SignInData<'a> {
    fn read_owned(text: &str, part: Part) -> Result<Self, InvalidMessage> {
        let SignInData { auth, user_data } = from_object(text, part)?;
        Ok(Self { auth: auth.into_owned(), user_data: user_data.into_owned() })
    }
}

fn from_object<'a, T: Deserialize<'a>>(text: &'a str, part: Part) -> Result<T, InvalidMessage> {
    json::from_object(text).map_err(|error| InvalidMessage::new(part, error))
}

/// Appends a `pusher_internal:` event, whose data is JSON text in a string.
fn write_internal(out: &mut String, event: &str, channel: &str, data: &str) {
    out.push_str(r#"{"event":"pusher_internal:"#);
    out.push_str(event);
    out.push_str(r#"","channel":"#);
    write_json_string(out, channel);
    out.push_str(r#","data":"#);
    write_json_string(out, data);
    out.push('}');
}

/// Appends an element of a watchlist's events, unless it would tell of nobody.
fn write_watchlist_event(out: &mut String, name: &str, user_ids: &[Arc<str>]) {
    if user_ids.is_empty() {
        return;
    }
    if out.ends_with('}') {
        out.push(',');
    }
    write_display(out, format_args!(r#"{{"name":"{name}","user_ids":["#));
    for (number, user_id) in user_ids.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        write_json_string(out, user_id);
    }
    out.push_str("]}");
}

fn write_display(out: &mut String, value: impl fmt::Display) {
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{value}");
}

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

    fn subscribe(channel: &str) -> ClientEvent<'_> {
        ClientEvent::Subscribe { channel: channel.into(), auth: Cow::Borrowed(""), channel_data: None }
    }

    #[test]
    fn what_vouches_for_a_subscription_is_read_in_both_forms() {
        let expected = ClientEvent::Subscribe {
            channel: "presence-a".into(),
            auth: "key:00".into(),
            channel_data: Some(r#"{"user_id":1}"#.into()),
        };
        for message in [
            r#"{"event":"pusher:subscribe","data":{"auth":"key:00","channel_data":"{\"user_id\":1}","channel":"presence-a"}}"#,
            r#"{"event":"pusher:subscribe","data":"{\"auth\":\"key:00\",\"channel_data\":\"{\\\"user_id\\\":1}\",\"channel\":\"presence-a\"}"}"#,
        ] {
            assert_eq!(ClientEvent::parse(message).as_ref(), Ok(&expected), "{message}");
        }
    }

    #[test]
    fn signing_in_needs_both_parts() {
        let expected = ClientEvent::SignIn { auth: "key:00".into(), user_data: r#"{"id":"1"}"#.into() };
        let message = r#"{"event":"pusher:signin","data":{"auth":"key:00","user_data":"{\"id\":\"1\"}"}}"#;
        assert_eq!(ClientEvent::parse(message), Ok(expected));
        let refused = ClientEvent::parse(r#"{"event":"pusher:signin","data":{"auth":"x"}}"#).expect_err("no user_data");
        assert!(refused.to_string().contains("whose \"auth\" and \"user_data\" are strings"), "{refused}");
    }

    #[test]
    fn the_servers_own_events_have_the_forms_that_clients_read() {
        let both: [Arc<str>; 2] = ["1".into(), "b\"c".into()];
        for (event, text) in [
            (
                ServerEvent::SubscriptionSucceeded { channel: "presence-a", members: Some(r#"{\"presence\":{}}"#) },
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":"{\"presence\":{}}"}"#,
            ),
            (
                ServerEvent::MemberAdded { channel: "presence-a", user_id: "11", user_info: Some(r#"{"name":"B"}"#) },
                r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"11\",\"user_info\":{\"name\":\"B\"}}"}"#,
            ),
            (
                ServerEvent::MemberRemoved { channel: "presence-a", user_id: "11" },
                r#"{"event":"pusher_internal:member_removed","channel":"presence-a","data":"{\"user_id\":\"11\"}"}"#,
            ),
            (
                ServerEvent::SubscriptionCount { channel: "a", count: 42 },
                r#"{"event":"pusher_internal:subscription_count","channel":"a","data":"{\"subscription_count\":42}"}"#,
            ),
            (ServerEvent::CacheMiss { channel: "cache-a" }, r#"{"event":"pusher:cache_miss","channel":"cache-a"}"#),
            (
                ServerEvent::SigninSuccess { user_data: r#"{"id":"1"}"# },
                r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"1\"}"}}"#,
            ),
            (
                ServerEvent::WatchlistEvents { online: &both, offline: &both[..1] },
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"1\",\"b\\\"c\"]},{\"name\":\"offline\",\"user_ids\":[\"1\"]}]}"}"#,
            ),
            (
                ServerEvent::WatchlistEvents { online: &[], offline: &both[..1] },
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"1\"]}]}"}"#,
            ),
            (
                ServerEvent::Client {
                    event: "client-x",
                    channel: "presence-a",
                    data: Some("[1 ]"),
                    user_id: Some("11"),
                },
                r#"{"event":"client-x","channel":"presence-a","data":[1 ],"user_id":"11"}"#,
            ),
            (
                ServerEvent::Client { event: "client-x", channel: "private-a", data: None, user_id: None },
                r#"{"event":"client-x","channel":"private-a"}"#,
            ),
        ] {
            assert_eq!(written(event), text);
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn pusher_js_subscribing_to_a_public_channel_is_understood_without_a_copy() {
        let message = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}"#;
        let Ok(ClientEvent::Subscribe { channel: Cow::Borrowed(channel), auth: Cow::Borrowed(""), channel_data: None }) =
            ClientEvent::parse(message)
        else {
            panic!("not lent from the message");
        };
        assert_eq!(channel, "my-channel");
    }

    #[test]
    fn data_may_be_a_string_that_holds_the_object() {
        let message = r#"{"event":"pusher:subscribe","data":"{\"channel\":\"my-channel\"}"}"#;
        assert_eq!(ClientEvent::parse(message), Ok(subscribe("my-channel")));
        let message = r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"my-channel\"}"}"#;
        assert_eq!(ClientEvent::parse(message), Ok(ClientEvent::Unsubscribe { channel: "my-channel".into() }));
    }

    #[test]
    fn escapes_in_names_are_resolved() {
        let message = r#"{"event":"pusher:subscribe","data":{"channel":"caf\u00e9"}}"#;
        assert_eq!(ClientEvent::parse(message), Ok(subscribe("café")));
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
            Ok(ClientEvent::Triggered {
                event: "client-typing".into(),
                channel: Some("chat".into()),
                data: Some(r#"{"x":1}"#.into())
            })
        );
        assert_eq!(
            ClientEvent::parse(r#"{"event":"App\\Events\\X"}"#),
            Ok(ClientEvent::Triggered { event: "App\\Events\\X".into(), channel: None, data: None })
        );
    }

    #[test]
    fn half_a_surrogate_pair_is_the_replacement_character_wherever_it_stands() {
        let triggered = |event: &'static str, data: &'static str| ClientEvent::Triggered {
            event: event.into(),
            channel: Some("private-a".into()),
            data: Some(data.into()),
        };
        for (message, event) in [
            (
                r#"{"event":"client-x","channel":"private-a","data":{"text":"Great \ud83d"}}"#,
                triggered("client-x", r#"{"text":"Great \ufffd"}"#),
            ),
            (
                r#"{"event":"client-\ud83d","channel":"private-a","data":"\ud83d\ude00"}"#,
                triggered("client-\u{fffd}", r#""\ud83d\ude00""#),
            ),
            (r#"{"event":"pusher:ping","data":"\ud83d"}"#, ClientEvent::Ping),
            (r#"{"event":"pusher:subscribe","data":{"channel":"a\ud83d"}}"#, subscribe("a\u{fffd}")),
            (r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\\ud83d\"}"}"#, subscribe("a\u{fffd}")),
            (
                r#"{"event":"pusher:signin","data":{"auth":"key:00","user_data":"{\"id\":\"\ud83d\"}"}}"#,
                ClientEvent::SignIn { auth: "key:00".into(), user_data: "{\"id\":\"\u{fffd}\"}".into() },
            ),
        ] {
            assert_eq!(ClientEvent::parse(message), Ok(event), "{message}");
        }
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
            written(ServerEvent::Error { code: Some(4001), message: "There is no app with key \"k\".", channel: None }),
            r#"{"event":"pusher:error","data":{"code":4001,"message":"There is no app with key \"k\"."}}"#
        );
        assert_eq!(
            written(ServerEvent::Error { code: None, message: "no", channel: None }),
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
            written(ServerEvent::SubscriptionSucceeded { channel: "my-channel", members: None }),
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
            written(ServerEvent::Published {
                event: "App\\Events\\X",
                channel: "c",
                data: &r#"{"hello":"world"}"#.into()
            }),
            r#"{"event":"App\\Events\\X","channel":"c","data":"{\"hello\":\"world\"}"}"#
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back_unchanged(event: String, channel: String, data: String) {
            let carried = Payload::from(&*data);
            let text = written(ServerEvent::Published { event: &event, channel: &channel, data: &carried });
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
                let expected = Ok(subscribe(&channel));
                prop_assert_eq!(ClientEvent::parse(&message), expected);
            }
        }
    }
}
