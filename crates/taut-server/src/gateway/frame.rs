//! What connections of routes are to get where an event cannot say it: a binary message, a close, or a message for some
//! of a channel's subscribers.
//!
//! It goes through a channel like any event, so that it reaches the connections of all nodes in their order. Its name is
//! [`FRAME_EVENT`](crate::pusher::event::FRAME_EVENT).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// For those who are subscribed to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    #[serde(flatten)]
    pub(crate) action: Action,
    /// What subscriptions are filtered by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Text(String),
    /// In base64.
    Binary(String),
    Close {
        code: u16,
        reason: String,
    },
    /// Ask the backends of connections what is new.
    Refresh,
    /// In base64: bytes of the responses that GRIP holds open.
    Stream(String),
    /// Ends those responses.
    EndStream,
}

impl Action {
    pub(crate) fn binary(bytes: &[u8]) -> Self {
        Self::Binary(STANDARD.encode(bytes))
    }

    pub(crate) fn stream(bytes: &[u8]) -> Self {
        Self::Stream(STANDARD.encode(bytes))
    }

    /// The bytes of a binary message, or of a response.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        if let Self::Binary(text) | Self::Stream(text) = self { STANDARD.decode(text).ok() } else { None }
    }
}

impl From<Action> for Frame {
    fn from(action: Action) -> Self {
        Self { action, meta: BTreeMap::new() }
    }
}

impl Frame {
    /// The data of the event as which it goes through a channel.
    pub(crate) fn data(&self) -> String {
        serde_json::to_string(self).expect("its names are text, and memory can be written to")
    }

    /// What a message of a channel says, if it is one.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Published {
            data: String,
        }
        if !message.starts_with(BEGINNING) {
            return None;
        }
        let Published { data } = serde_json::from_slice(message).ok()?;
        serde_json::from_str(&data).ok()
    }
}

/// How a message of a channel begins that is one.
const BEGINNING: &[u8] = br#"{"event":"pusher_internal:frame","#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::event::{FRAME_EVENT, ServerEvent};
    use crate::pusher::payload::Payload;

    fn message(event: &str, data: &str) -> Vec<u8> {
        let mut text = String::new();
        ServerEvent::Published { event, channel: "room", data: &Payload::from(data) }.write(&mut text);
        text.into_bytes()
    }

    #[test]
    fn what_goes_through_a_channel_comes_out_as_it_was() {
        for action in [
            Action::Text("é\n\"".to_owned()),
            Action::binary(&[0, 255]),
            Action::Close { code: 4123, reason: "kicked".to_owned() },
            Action::Refresh,
            Action::stream(&[255, 10]),
            Action::EndStream,
        ] {
            let frame = Frame { action, meta: [("sender".to_owned(), "ann".to_owned())].into() };
            assert_eq!(Frame::read(&message(FRAME_EVENT, &frame.data())), Some(frame));
        }
        let frame = Frame::from(Action::binary(&[0, 255]));
        assert_eq!(
            Frame::read(&message(FRAME_EVENT, &frame.data())).and_then(|it| it.action.bytes()),
            Some(vec![0, 255])
        );
        assert_eq!(Action::stream(&[255, 10]).bytes(), Some(vec![255, 10]));
        assert_eq!(Action::Refresh.bytes(), None);
    }

    #[test]
    fn no_event_of_a_publisher_is_one() {
        for (event, data) in [("message", r#"{"text":"x"}"#), (FRAME_EVENT, "x"), (FRAME_EVENT, "{}")] {
            assert_eq!(Frame::read(&message(event, data)), None, "{event} {data}");
        }
    }
}
