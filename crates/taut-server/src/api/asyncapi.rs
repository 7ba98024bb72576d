//! `/console/asyncapi.json`: the messages of the Pusher protocol in `AsyncAPI` 3.0, made from the list of events.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{Context, openapi};

/// An event of the protocol.
struct Message {
    sender: Sender,
    /// In the document.
    id: &'static str,
    title: &'static str,
    summary: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

const fn from_client(id: &'static str, title: &'static str, summary: &'static str) -> Message {
    Message { sender: Sender::Client, id, title, summary }
}

const fn from_server(id: &'static str, title: &'static str, summary: &'static str) -> Message {
    Message { sender: Sender::Server, id, title, summary }
}

/// The events. Each has a schema of the same name: its payload.
const MESSAGES: [Message; 18] = [
    from_client("subscribe", "pusher:subscribe", "Joins a channel. A private or presence channel needs a signature."),
    from_client("unsubscribe", "pusher:unsubscribe", "Leaves a channel."),
    from_client("signIn", "pusher:signin", "Says as which user the connection acts, with a signature."),
    from_client("clientPing", "pusher:ping", "Asks whether the server is there."),
    from_client("clientPong", "pusher:pong", "Answers a ping; Taut pings by WebSocket frames."),
    from_client("clientEvent", "client-…", "An event for the other members of a private or presence channel."),
    from_server("connectionEstablished", "pusher:connection_established", "The first message on every connection."),
    from_server("error", "pusher:error", "Something was refused; the connection stays, unless it is closed next."),
    from_server("serverPong", "pusher:pong", "Answers a ping of the client."),
    from_server("subscriptionSucceeded", "pusher_internal:subscription_succeeded", "The channel is joined."),
    from_server("subscriptionError", "pusher:subscription_error", "The channel is not joined; the connection stays."),
    from_server("memberAdded", "pusher_internal:member_added", "A user has joined a presence channel."),
    from_server("memberRemoved", "pusher_internal:member_removed", "A user has left a presence channel."),
    from_server("subscriptionCount", "pusher_internal:subscription_count", "How many are subscribed to a channel."),
    from_server("cacheMiss", "pusher:cache_miss", "A cache channel has no last event."),
    from_server("signinSuccess", "pusher:signin_success", "The connection acts as a user from here on."),
    from_server("watchlistEvents", "pusher_internal:watchlist_events", "Users of the watchlist are online or offline."),
    from_server("published", "an event of your own", "Published by a backend, or sent by another client."),
];

/// `GET /console/asyncapi.json`: the description of the protocol.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn show(State(context): State<Arc<Context>>) -> Response {
    openapi::specification(&document(context.path_prefix()))
}

fn document(prefix: &str) -> Value {
    let of = |sender| MESSAGES.iter().filter(move |message| message.sender == sender);
    let in_channel = |message: &Message| json!({ "$ref": format!("#/channels/app/messages/{}", message.id) });
    let references = |sender| of(sender).map(in_channel).collect::<Vec<_>>();
    let messages: Map<_, _> = MESSAGES
        .iter()
        .map(|message| (message.id.to_owned(), json!({ "$ref": format!("#/components/messages/{}", message.id) })))
        .collect();
    let schemas: Value = serde_json::from_str(include_str!("asyncapi/schemas.json")).unwrap_or_default();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Taut's WebSocket protocol",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:6001",
                "pathname": prefix,
                "protocol": "ws",
                "description": "The default address of `taut serve`; with TLS it is `wss`.",
            },
        },
        "channels": {
            "app": {
                "address": "/app/{key}",
                "title": "The WebSocket of an app",
                "parameters": { "key": { "description": "The key of the app." } },
                "bindings": { "ws": { "method": "GET", "query": schemas["Query"] } },
                "messages": messages,
            },
        },
        "operations": {
            "receive": {
                "action": "receive",
                "title": "What clients send",
                "channel": { "$ref": "#/channels/app" },
                "messages": references(Sender::Client),
            },
            "send": {
                "action": "send",
                "title": "What the server sends",
                "channel": { "$ref": "#/channels/app" },
                "messages": references(Sender::Server),
            },
        },
        "components": { "messages": MESSAGES.iter().map(described).collect::<Map<_, _>>(), "schemas": schemas },
    })
}

fn described(message: &Message) -> (String, Value) {
    let object = json!({
        "name": message.id,
        "title": message.title,
        "summary": message.summary,
        "payload": { "$ref": format!("#/components/schemas/{}", message.id) },
    });
    (message.id.to_owned(), object)
}

const DESCRIPTION: &str = "\
Version 7 of the Pusher protocol: one JSON object in each text message. Some events have an object as `data`, others a \
    text that holds JSON; clients rely on which.

Close codes say what to do: 4000 to 4099, do not connect again; 4100 to 4199, connect again after a second or later; \
    4200 to 4299, connect again at once.

The HTTP API for backends is in `openapi.json`.";

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::pusher::event::{ClientEvent, ServerEvent};
    use crate::pusher::payload::Payload;
    use crate::pusher::socket_id::SocketId;

    /// A new event is a new line here, and so in the list.
    fn id_of(event: &ServerEvent<'_>) -> &'static str {
        match event {
            ServerEvent::ConnectionEstablished { .. } => "connectionEstablished",
            ServerEvent::Error { .. } => "error",
            ServerEvent::Pong => "serverPong",
            ServerEvent::SubscriptionSucceeded { .. } => "subscriptionSucceeded",
            ServerEvent::SubscriptionError { .. } => "subscriptionError",
            ServerEvent::MemberAdded { .. } => "memberAdded",
            ServerEvent::MemberRemoved { .. } => "memberRemoved",
            ServerEvent::SubscriptionCount { .. } => "subscriptionCount",
            ServerEvent::CacheMiss { .. } => "cacheMiss",
            ServerEvent::SigninSuccess { .. } => "signinSuccess",
            ServerEvent::WatchlistEvents { .. } => "watchlistEvents",
            ServerEvent::Client { .. } | ServerEvent::Published { .. } => "published",
        }
    }

    #[test]
    fn every_event_of_the_server_is_in_the_list() {
        let (channel, user_id, data) = ("presence-room", "ann", Payload::from("1"));
        let online: [Arc<str>; 1] = ["ann".into()];
        let socket_id = SocketId::parse("123.456").expect("a socket id");
        let events = [
            ServerEvent::ConnectionEstablished { socket_id, activity_timeout: 120 },
            ServerEvent::Error { code: Some(4301), message: "no", channel: None },
            ServerEvent::Pong,
            ServerEvent::SubscriptionSucceeded { channel, members: None },
            ServerEvent::SubscriptionError { channel, kind: "AuthError", error: "no", status: 401 },
            ServerEvent::MemberAdded { channel, user_id, user_info: None },
            ServerEvent::MemberRemoved { channel, user_id },
            ServerEvent::SubscriptionCount { channel, count: 1 },
            ServerEvent::CacheMiss { channel },
            ServerEvent::SigninSuccess { user_data: "{}" },
            ServerEvent::WatchlistEvents { online: &online, offline: &[] },
            ServerEvent::Client { event: "client-typing", channel, data: None, user_id: Some(user_id) },
            ServerEvent::Published { event: "headline", channel, data: &data },
        ];
        let mut listed: Vec<&str> = events.iter().map(id_of).collect();
        for event in &events {
            let mut text = String::new();
            event.write(&mut text);
            let sent: Value = serde_json::from_str(&text).expect("JSON");
            let message = MESSAGES.iter().find(|message| message.id == id_of(event)).expect("a message of the list");
            let is_named = message.title == sent["event"] || message.id == "published";
            assert!(is_named && message.sender == Sender::Server, "{text}");
        }
        listed.dedup();
        assert_eq!(listed.len(), MESSAGES.iter().filter(|message| message.sender == Sender::Server).count());
    }

    #[test]
    fn every_event_of_the_list_is_understood_from_clients() {
        for message in MESSAGES.iter().filter(|message| message.sender == Sender::Client) {
            let name = message.title.replace('…', "typing");
            let data = json!({ "channel": "presence-room", "auth": "key:0", "user_data": "{}" });
            let text = json!({ "event": name, "channel": "presence-room", "data": data }).to_string();
            let understood = ClientEvent::parse(&text).expect("an event");
            assert_ne!(understood, ClientEvent::Unknown, "{text}");
        }
    }

    #[test]
    fn every_event_has_a_schema_that_says_its_name() {
        let document = document("");
        for message in &MESSAGES {
            let schema = &document["components"]["schemas"][message.id];
            let event = &schema["properties"]["event"];
            let is_named =
                event["const"] == message.title || (event["type"] == "string" && !message.title.contains(':'));
            assert!(is_named, "{}: {schema}", message.id);
        }
    }

    #[test]
    fn the_file_in_docs_is_what_the_server_serves() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/asyncapi.json");
        super::super::testing::is_in_docs(&path, &document(""));
    }
}
