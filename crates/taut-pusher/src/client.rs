//! What a client sends and reads, and when it may come back.
//!
//! ```
//! use taut_pusher::client::{self, Received};
//!
//! let message = client::subscribe("news", None, None);
//! assert_eq!(message, r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
//!
//! let received = Received::parse(r#"{"event":"headline","channel":"news","data":"{\"n\":1}"}"#).unwrap();
//! assert_eq!((&*received.event, received.data.as_deref()), ("headline", Some(r#"{"n":1}"#)));
//! ```

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Text, from_object, owned, without_lone_surrogates, write_json_string};
use crate::payload::Payload;

/// Asks whether the server is there.
pub const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

/// Answers a ping of the server.
pub const PONG: &str = r#"{"event":"pusher:pong","data":{}}"#;

/// Subscribes to a channel. `auth` is `KEY:SIGNATURE`, which private and presence channels need; `channel_data` is what
/// was signed with it.
pub fn subscribe(channel: &str, auth: Option<&str>, channel_data: Option<&str>) -> String {
    let mut message = String::from(r#"{"event":"pusher:subscribe","data":{"channel":"#);
    write_json_string(&mut message, channel);
    for (name, value) in [("auth", auth), ("channel_data", channel_data)] {
        if let Some(value) = value {
            message.push_str(",\"");
            message.push_str(name);
            message.push_str("\":");
            write_json_string(&mut message, value);
        }
    }
    message.push_str("}}");
    message
}

/// A message of the server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The event's name, such as `pusher:connection_established`.
    pub event: Cow<'a, str>,
    /// The channel, unless the event is about the connection.
    pub channel: Option<Cow<'a, str>>,
    /// What the event carries: the content of a string, the JSON text of anything else.
    pub data: Option<Cow<'a, str>>,
    /// Who sent a client event in a presence channel.
    pub user_id: Option<Cow<'a, str>>,
}

impl<'a> Received<'a> {
    /// Reads a message; `None` if it is not a JSON object with an event.
    pub fn parse(message: &'a str) -> Option<Self> {
        match without_lone_surrogates(message) {
            Cow::Borrowed(message) => Self::parse_whole(message),
            Cow::Owned(message) => Received::parse_whole(&message).map(Received::into_owned),
        }
    }

    fn parse_whole(message: &'a str) -> Option<Self> {
        let Fields { event, channel, data, user_id } = from_object(message).ok()?;
        let data = data.map(|data| Payload::of(data).text().into_owned().into());
        Some(Self { event: event.0, channel: channel.map(|text| text.0), data, user_id: user_id.map(|text| text.0) })
    }

    /// A copy that outlives the message.
    pub fn into_owned<'b>(self) -> Received<'b> {
        Received {
            event: owned(self.event),
            channel: self.channel.map(owned),
            data: self.data.map(owned),
            user_id: self.user_id.map(owned),
        }
    }
}

/// When a client may come back after a close, or after a `pusher:error` before its connection was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Not without a change: the app, the key or the client is wrong.
    Never,
    /// After a while: at least a second, longer each time.
    AfterBackoff,
    /// At once.
    AtOnce,
}

impl Reconnect {
    /// What a code asks for; `None` if it is not one of Pusher's.
    pub fn after(code: u16) -> Option<Self> {
        match code {
            4000..=4099 => Some(Self::Never),
            4100..=4199 => Some(Self::AfterBackoff),
            4200..=4299 => Some(Self::AtOnce),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ClientEvent, ServerEvent};
    use proptest::prelude::*;

    #[test]
    fn a_server_reads_what_a_client_writes() {
        let message = subscribe("presence-a", Some("key:00"), Some(r#"{"user_id":"1"}"#));
        let expected = ClientEvent::Subscribe {
            channel: "presence-a".into(),
            auth: "key:00".into(),
            channel_data: Some(r#"{"user_id":"1"}"#.into()),
        };
        assert_eq!(ClientEvent::parse(&message), Ok(expected));
        assert_eq!(ClientEvent::parse(PING), Ok(ClientEvent::Ping));
        assert_eq!(ClientEvent::parse(PONG), Ok(ClientEvent::Pong));
    }

    #[test]
    fn data_is_read_as_a_string_or_as_what_it_is() {
        let data = |data: &str| {
            let message = format!(r#"{{"event":"e","data":{data}}}"#);
            Received::parse(&message).and_then(|received| received.data.map(Cow::into_owned))
        };
        assert_eq!(data(r#""{\"a\":1}""#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(data(r#"{"code": 4001}"#).as_deref(), Some(r#"{"code": 4001}"#));
        assert_eq!(data(r#""caf\u00e9 \ud83d""#).as_deref(), Some("café \u{fffd}"));
        assert_eq!(data("null"), None);
    }

    #[test]
    fn what_is_not_an_event_is_not_read() {
        for message in ["", "hello", "[]", r#"["e"]"#, "{}", r#"{"event":7}"#] {
            assert_eq!(Received::parse(message), None, "{message}");
        }
    }

    #[test]
    fn a_hundred_of_codes_says_when_to_come_back() {
        for (code, reconnect) in [
            (1000, None),
            (3999, None),
            (4000, Some(Reconnect::Never)),
            (4099, Some(Reconnect::Never)),
            (4100, Some(Reconnect::AfterBackoff)),
            (4201, Some(Reconnect::AtOnce)),
            (4300, None),
        ] {
            assert_eq!(Reconnect::after(code), reconnect, "{code}");
        }
    }

    proptest! {
        #[test]
        fn a_client_reads_what_a_server_writes(event: String, channel: String, data: String) {
            let mut message = String::new();
            let payload = Payload::from(&*data);
            ServerEvent::Published { event: &event, channel: &channel, data: &payload }.write(&mut message);
            let read = Received::parse(&message);
            let expected =
                Received { event: event.into(), channel: Some(channel.into()), data: Some(data.into()), user_id: None };
            prop_assert_eq!(read, Some(expected));
        }
    }
}
