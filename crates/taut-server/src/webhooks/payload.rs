//! What a webhook's request says.

use std::sync::Arc;

use serde::Serialize;

use crate::events::Event;

use super::Millis;

/// The body of one request: one event, or those that happened at about the same time.
///
/// It is the same at each attempt, to the byte; the signature is not part of it, since the secret may be another one by then.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Payload {
    /// When the first event happened: receivers refuse what is older than five minutes by their clock.
    pub(super) time: Millis,
    /// A JSON array, closed at any time.
    pub(super) events: Arc<Vec<u8>>,
}

impl Payload {
    /// With one event, as [`write()`] writes it.
    pub(super) fn new(time: Millis, event: &str) -> Self {
        Self { time, events: Arc::new(["[", event, "]"].concat().into_bytes()) }
    }

    /// Adds an event behind the others.
    pub(super) fn push(&mut self, event: &str) {
        // Copied when the store is at work on it, else in place.
        let events = Arc::make_mut(&mut self.events);
        events.pop();
        events.push(b',');
        events.extend_from_slice(event.as_bytes());
        events.push(b']');
    }

    /// Bytes of the events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The bytes that are signed and sent.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = format!("{{\"time_ms\":{},\"events\":", self.time).into_bytes();
        body.reserve_exact(self.events.len() + 1);
        body.extend_from_slice(&self.events);
        body.push(b'}');
        body
    }
}

/// Writes what happened as webhooks tell it; `None` for what only consoles show.
pub(super) fn write(event: &Event) -> Option<String> {
    let (kind, channel) = event.webhook()?;
    let name = kind.name();
    let none =
        Told { name, channel, event: None, data: None, socket_id: None, user_id: None, subscription_count: None };
    let told = match event {
        Event::MemberAdded { user_id, .. } | Event::MemberRemoved { user_id, .. } => {
            Told { user_id: Some(user_id), ..none }
        }
        Event::ClientEvent { event, data, socket_id, user_id, .. } => Told {
            event: Some(event),
            data: Some(data),
            socket_id: Some(socket_id.to_string()),
            user_id: user_id.as_deref(),
            ..none
        },
        Event::SubscriptionCount { count, .. } => Told { subscription_count: Some(*count), ..none },
        _ => none,
    };
    serde_json::to_string(&told).ok()
}

/// The fields in the order of Pusher's documents.
#[derive(Serialize)]
struct Told<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    /// A string even where a client sent an object: receivers type it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::WebhookEvent;
    use crate::pusher::auth::Signature;
    use crate::pusher::socket_id::SocketId;

    fn written(event: &Event) -> String {
        write(event).expect("an event of webhooks")
    }

    #[test]
    fn a_body_and_its_signature_are_those_of_pushers_documents() {
        let event = written(&Event::ChannelOccupied { channel: "my-channel".into() });
        let body = Payload::new(1_327_078_148_132, &event).body();
        let expected = br#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#;
        assert_eq!(body, expected);
        let signature = Signature::of("7ad3773142a6692b25b8", &[&body]).to_string();
        assert_eq!(signature, "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf");
    }

    #[test]
    fn every_kind_has_its_fields_in_their_order() {
        let channel = || "presence-x".into();
        let socket_id = SocketId::parse("12.34").expect("an id");
        let client_event = |user_id| Event::ClientEvent {
            channel: channel(),
            event: "client-typing".into(),
            data: r#"{"a":"\"ö"}"#.into(),
            socket_id,
            user_id,
        };
        let cases = [
            (Event::ChannelOccupied { channel: channel() }, r#"{"name":"channel_occupied","channel":"presence-x"}"#),
            (Event::ChannelVacated { channel: channel() }, r#"{"name":"channel_vacated","channel":"presence-x"}"#),
            (Event::CacheMiss { channel: channel() }, r#"{"name":"cache_miss","channel":"presence-x"}"#),
            (
                Event::MemberAdded { channel: channel(), user_id: "7".into() },
                r#"{"name":"member_added","channel":"presence-x","user_id":"7"}"#,
            ),
            (
                Event::MemberRemoved { channel: channel(), user_id: "7".into() },
                r#"{"name":"member_removed","channel":"presence-x","user_id":"7"}"#,
            ),
            (
                Event::SubscriptionCount { channel: channel(), count: 12 },
                r#"{"name":"subscription_count","channel":"presence-x","subscription_count":12}"#,
            ),
            (
                client_event(None),
                r#"{"name":"client_event","channel":"presence-x","event":"client-typing","data":"{\"a\":\"\\\"ö\"}","socket_id":"12.34"}"#,
            ),
            (
                client_event(Some("7".into())),
                r#"{"name":"client_event","channel":"presence-x","event":"client-typing","data":"{\"a\":\"\\\"ö\"}","socket_id":"12.34","user_id":"7"}"#,
            ),
        ];
        for (event, text) in &cases {
            assert_eq!(written(event), *text);
        }
        let has_case = |kind| cases.iter().any(|(event, _)| event.webhook().is_some_and(|(of, _)| of == kind));
        for &kind in WebhookEvent::ALL {
            assert!(has_case(kind), "{kind:?} is never told");
        }
        assert_eq!(write(&Event::Connected { socket_id }), None);
    }

    #[test]
    fn a_payload_is_whole_after_each_event() {
        let mut payload = Payload::new(5, r#"{"name":"a"}"#);
        let before = payload.clone();
        payload.push(r#"{"name":"b"}"#);
        assert_eq!(payload.body(), br#"{"time_ms":5,"events":[{"name":"a"},{"name":"b"}]}"#);
        assert_eq!(before.body(), br#"{"time_ms":5,"events":[{"name":"a"}]}"#);
    }
}
