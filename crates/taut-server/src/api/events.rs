//! `POST /apps/ID/events`: a backend publishes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{self, Problem};
use super::{Context, body};
use crate::app::{Limits, Secret};
use crate::node::Publication;
use crate::pusher::auth;
use crate::pusher::channel::Channel;
use crate::pusher::socket_id::SocketId;

/// Publishes one event to one channel or several.
///
/// Success means that the event is on its way, not that it has arrived; a channel without subscribers is a success too.
pub(crate) async fn publish(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let Some(tenant) = context.node().apps().by_id(&id) else {
        body::discard(body).await;
        let id: String = id.chars().take(LONGEST_ECHO).collect();
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("The app {id} could not be found.")));
    };
    let terms = Arc::clone(&tenant.terms());
    let body = body::read(body, largest_body(&terms.limits)).await?;
    let query = head.uri.query().unwrap_or_default();
    auth::Request::new(head.method.as_str(), head.uri.path(), query, &body)
        .verify(|key| terms.app.secret(key).map(Secret::reveal), context.path_prefix(), seconds_since_1970())
        .map_err(|refused| Problem::new(StatusCode::UNAUTHORIZED, refused.to_string()))?;
    let event = Event::parse(&body, &terms.limits)?;
    let publication = Publication { event: &event.name, data: &event.data, excluded: event.excluded };
    context.node().publish(&tenant, &event.channels, &publication).map_err(super::busy)?;
    Ok(answer::json("{}"))
}

/// A publish that has been checked.
#[derive(Debug, PartialEq, Eq)]
struct Event<'a> {
    name: Cow<'a, str>,
    /// Each once.
    channels: Vec<Cow<'a, str>>,
    data: Cow<'a, str>,
    excluded: Option<SocketId>,
}

impl<'a> Event<'a> {
    fn parse(body: &'a [u8], limits: &Limits) -> Result<Self, Problem> {
        let fields: Fields<'a> = serde_json::from_slice(body).map_err(|error| {
            let error: String = error.to_string().chars().take(LONGEST_ECHO).collect();
            Problem::bad_request(format!("The body of the request cannot be read as an event: {error}"))
        })?;
        Ok(Self {
            name: check_name(fields.name, limits)?,
            channels: check_channels(fields.channel, fields.channels, limits)?,
            data: check_data(fields.data, limits)?,
            excluded: check_socket_id(fields.socket_id)?,
        })
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    /// pusher-http-php sends this when there is exactly one.
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    socket_id: Option<Text<'a>>,
}

/// Serde lends a bare `Cow`, but not one within an `Option` or a `Vec`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The charset is free: Laravel's event names hold backslashes, and there are names in all languages.
fn check_name<'a>(name: Cow<'a, str>, limits: &Limits) -> Result<Cow<'a, str>, Problem> {
    if name.is_empty() {
        return Err(Problem::bad_request("The event name is empty."));
    }
    if name.chars().count() > limits.event_name {
        let error = format!("Event name is too long. Maximum allowed size is {}.", limits.event_name);
        return Err(Problem::bad_request(error));
    }
    if name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
        return Err(Problem::bad_request(
            "Event names that begin with pusher: or pusher_internal: are reserved for the server.",
        ));
    }
    Ok(name)
}

fn check_channels<'a>(
    one: Option<Text<'a>>,
    several: Option<Vec<Text<'a>>>,
    limits: &Limits,
) -> Result<Vec<Cow<'a, str>>, Problem> {
    let mut channels: Vec<Cow<'a, str>> = several.into_iter().flatten().chain(one).map(|text| text.0).collect();
    if channels.is_empty() {
        return Err(Problem::bad_request("The event names no channel: give \"channel\" or \"channels\"."));
    }
    if channels.len() > limits.channels_per_publish {
        let error = format!("Cannot broadcast to more than {} channels at once.", limits.channels_per_publish);
        return Err(Problem::bad_request(error));
    }
    for channel in &channels {
        Channel::parse(channel, limits.channel_name).map_err(|invalid| {
            let channel: String = channel.chars().take(LONGEST_ECHO).collect();
            Problem::bad_request(format!("{invalid} (channel {channel:?})"))
        })?;
    }
    let mut seen = HashSet::with_capacity(channels.len());
    channels.retain(|channel| seen.insert(channel.clone()));
    Ok(channels)
}

/// A string goes out as it is; the JSON text of anything else does.
fn check_data<'a>(data: &'a RawValue, limits: &Limits) -> Result<Cow<'a, str>, Problem> {
    let text = data.get();
    let data = if text.starts_with('"') {
        serde_json::from_str::<Text<'a>>(text)
            .map(|text| text.0)
            .map_err(|error| Problem::bad_request(format!("The event's data cannot be read: {error}")))?
    } else {
        Cow::Borrowed(text)
    };
    if data.len() > limits.event_data {
        return Err(Problem::too_large(format!(
            "The data content of this event exceeds the allowed maximum ({} bytes).",
            limits.event_data
        )));
    }
    Ok(data)
}

fn check_socket_id(socket_id: Option<Text<'_>>) -> Result<Option<SocketId>, Problem> {
    match socket_id {
        Some(Text(text)) if !SocketId::is_well_formed(&text) => Err(Problem::bad_request(
            "Invalid socket_id: it is two numbers with a dot between them, as the client was told.",
        )),
        // One that cannot be ours excludes nobody.
        socket_id => Ok(socket_id.and_then(|Text(text)| SocketId::parse(&text))),
    }
}

/// Bytes. Within JSON an escape may take four times as many as what it stands for, and the names come on top.
fn largest_body(limits: &Limits) -> usize {
    limits.event_data * 4 + (limits.channels_per_publish + 1) * (limits.channel_name + 8) + limits.event_name * 4 + 1024
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Characters of a peer's own text that an error repeats.
const LONGEST_ECHO: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: &str) -> Result<Event<'_>, String> {
        Event::parse(body.as_bytes(), &Limits::default()).map_err(|problem| format!("{problem:?}"))
    }

    fn refused(body: &str, status: u16, reason: &str) {
        let error = parse(body).expect_err(body);
        assert!(error.contains(&format!("status: {status}")) && error.contains(reason), "{error}");
    }

    #[test]
    fn the_published_example_is_read() {
        let event = parse(r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#).expect("good");
        assert_eq!((&*event.name, &*event.data), ("foo", r#"{"some":"data"}"#));
        assert_eq!(event.channels, ["project-3"]);
        assert_eq!(event.excluded, None);
    }

    #[test]
    fn one_channel_and_several_channels_are_two_spellings() {
        for body in [
            r#"{"name":"e","data":"","channel":"a"}"#,
            r#"{"name":"e","data":"","channels":["a"]}"#,
            r#"{"name":"e","data":"","channel":"a","channels":["a","a"]}"#,
            r#"{"name":"e","data":"","channel":"a","channels":null,"info":"user_count","extra":[1]}"#,
        ] {
            assert_eq!(parse(body).expect(body).channels, ["a"], "{body}");
        }
        assert_eq!(parse(r#"{"name":"e","data":"","channels":["b","a","b"]}"#).expect("good").channels, ["b", "a"]);
    }

    #[test]
    fn data_that_is_no_string_goes_out_as_its_json_text() {
        for (data, text) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            ("[1,2]", "[1,2]"),
            ("7", "7"),
            ("null", "null"),
            (r#""""#, ""),
            (r#""caf\u00e9 \\ \"""#, "café \\ \""),
        ] {
            let body = format!(r#"{{"name":"e","channel":"a","data":{data}}}"#);
            assert_eq!(parse(&body).expect(&body).data, text);
        }
    }

    #[test]
    fn the_limits_hold_at_their_borders() {
        let body = |data: usize, name: usize, channels: usize| {
            let channels: Vec<String> = (0..channels).map(|number| format!("c{number}")).collect();
            json!({ "name": "é".repeat(name), "data": "x".repeat(data), "channels": channels }).to_string()
        };
        assert!(parse(&body(102_400, 200, 100)).is_ok());
        refused(&body(102_401, 1, 1), 413, "exceeds the allowed maximum (102400 bytes)");
        refused(&body(1, 201, 1), 400, "Event name is too long. Maximum allowed size is 200.");
        refused(&body(1, 1, 101), 400, "Cannot broadcast to more than 100 channels at once.");
        let named = |length| json!({ "name": "e", "data": "", "channel": "c".repeat(length) }).to_string();
        assert!(parse(&named(200)).is_ok());
        refused(&named(201), 400, "The channel name is too long. Maximum allowed size is 200.");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (body, reason) in [
            ("", "EOF while parsing"),
            ("{", "EOF while parsing"),
            ("7", "cannot be read as an event"),
            (r#"{"data":"","channel":"a"}"#, "missing field `name`"),
            (r#"{"name":"e","channel":"a"}"#, "missing field `data`"),
            (r#"{"name":"e","data":""}"#, "The event names no channel"),
            (r#"{"name":"e","data":"","channels":[]}"#, "The event names no channel"),
            (r#"{"name":"","data":"","channel":"a"}"#, "The event name is empty."),
            (r#"{"name":5,"data":"","channel":"a"}"#, "invalid type: integer `5`"),
            (r#"{"name":"e","data":"","channel":"a b"}"#, "contains a character that is not allowed"),
            (r#"{"name":"e","data":"","channel":""}"#, "The channel name is empty."),
            (r#"{"name":"pusher:e","data":"","channel":"a"}"#, "are reserved"),
            (r#"{"name":"pusher_internal:e","data":"","channel":"a"}"#, "are reserved"),
            (r#"{"name":"e","data":"","channel":"a","socket_id":"x"}"#, "Invalid socket_id"),
            (r#"{"name":"e","data":"","channel":"a","socket_id":""}"#, "Invalid socket_id"),
            (r#"{"name":"e","data":"\ud800","channel":"a"}"#, "cannot be read"),
        ] {
            refused(body, 400, reason);
        }
        refused(
            &format!(r#"{{"name":{},"data":"","channel":"a"}}"#, "[".repeat(100_000)),
            400,
            "cannot be read as an event",
        );
    }

    #[test]
    fn a_socket_id_is_optional_and_a_foreign_one_excludes_nobody() {
        let excluded = |socket_id: &str| {
            parse(&format!(r#"{{"name":"e","data":"","channel":"a","socket_id":{socket_id}}}"#))
                .expect(socket_id)
                .excluded
                .map(|id| id.to_string())
        };
        assert_eq!(excluded("null"), None);
        assert_eq!(excluded(r#""123.456""#).as_deref(), Some("123.456"));
        assert_eq!(excluded(r#""99999999999999999999.1""#), None);
    }

    #[test]
    fn names_in_every_language_and_with_backslashes_are_names() {
        let event = parse(r#"{"name":"App\\Events\\注文","data":"é","channel":"a"}"#).expect("good");
        assert_eq!((&*event.name, &*event.data), ("App\\Events\\注文", "é"));
    }

    #[test]
    fn the_largest_body_leaves_room_for_escapes() {
        let limits = Limits::default();
        let body =
            json!({ "name": "\u{1}", "data": "\"".repeat(limits.event_data), "channels": vec!["c".repeat(200); 100] })
                .to_string();
        assert!(body.len() < largest_body(&limits) && parse(&body).is_ok());
    }
}
