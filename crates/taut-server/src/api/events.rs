//! `POST /apps/ID/events` and `POST /apps/ID/batch_events`: a backend publishes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use taut_proto::handshake::Framing;

use super::info::{Attributes, Info, all, by_channel};
use super::{ApiAuth, Context, PUBLISH, asked, echo, not_published, signed};
use crate::app::Limits;
use crate::apps::{App, AppSnapshot};
use crate::http::answer::{self, ApiError};
use crate::hub::command::{self, Publication};
use crate::place::ShardIndex;
use crate::pusher::auth;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::json::bytes_without_lone_surrogates;
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;
use crate::query::Occupancy;
use crate::trace::Steps;

/// Publishes one event to one channel or several.
///
/// Success means that the event is on its way, not that it has arrived; a channel without subscribers is a success too. In a cluster it means that the
/// engine has the event.
///
/// # Cancel safety
/// All of the channels get it or none. Dropped after that, only the answer is lost.
pub(crate) async fn publish(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let signed = signed::authenticated(&context, request, largest_body).await?;
    let body = bytes_without_lone_surrogates(&signed.body);
    let event = Event::parse(&body, &signed.snapshot.limits)?;
    let publications = event.publications(Instant::now());
    context.node().publish_and_wait(&signed.app, publications).await.map_err(not_published)?;
    if event.info.is_empty() {
        return Ok(answer::json("{}"));
    }
    let channels: Vec<_> = event.channels.iter().map(|channel| (&**channel, event.info)).collect();
    let attributes = attributes(&context, &signed.app, &signed.snapshot, &channels).await?;
    answer::serialized(&by_channel(event.channels.iter().map(|channel| &**channel).zip(attributes.iter().copied())))
}

/// Publishes one event where the request arrived, on a shard, without asking for tokio's time, and is to be answered `{}`; or `None`, when that is not
/// all there is to it, or when anything is wrong, and then nothing has happened and [`publish`] does it from the start.
pub(crate) fn publish_at_once(
    auth: &ApiAuth,
    shard: ShardIndex,
    request: &taut_proto::handshake::Request<'_>,
    content: &[u8],
    now: SystemTime,
) -> Option<()> {
    let (began, mut steps) = (Instant::now(), Steps::begin());
    let app = auth.node().apps().by_id(app_of(auth, request)?)?;
    let snapshot = app.snapshot();
    let (method, path, query) = (request.method(), request.path(), request.query().unwrap_or_default());
    let event = Event::parse(content, &snapshot.limits).ok().filter(|event| event.info.is_empty())?;
    steps.next();
    auth.admit(&app, &snapshot, &auth::Request::new(method, path, query, content), now).ok()?;
    steps.next();
    auth.node().publish(&app, event.publications(began), Some(shard)).ok()?;
    steps.next();
    // Told now and not as it goes: what is not answered here is told of where it is.
    let (prefix, is_secure) = (auth.path_prefix(), auth.is_secure());
    let trace_id = steps.published(request, prefix, PUBLISH, is_secure, app.id(), event.channels.len());
    auth.traffic().record(PUBLISH, StatusCode::OK, began.elapsed(), app.id(), trace_id);
    Some(())
}

/// Bytes of content that follow this head, if it is one of a request that [`publish_at_once`] may answer. None are in a cluster, where the answer waits for
/// the engine, and a shard does not wait.
pub(crate) fn content_at_once(auth: &ApiAuth, request: &taut_proto::handshake::Request<'_>) -> Option<usize> {
    app_of(auth, request)?;
    if auth.node().is_clustered() {
        return None;
    }
    let Framing::Length(length) = request.framing() else { return None };
    let is_plain = match ["expect", "connection"].map(|name| request.header(name)) {
        [None, connection] => connection.is_none_or(|option| option.eq_ignore_ascii_case("keep-alive")),
        _ => false,
    };
    usize::try_from(length).ok().filter(|length| is_plain && request.is_http_1_1() && *length <= MOST_AT_ONCE)
}

/// The id of the app that somebody wants to publish for.
fn app_of<'r>(auth: &ApiAuth, request: &taut_proto::handshake::Request<'r>) -> Option<&'r str> {
    let path = request.path().strip_prefix(auth.path_prefix())?;
    let app = path.strip_prefix("/apps/")?.strip_suffix("/events")?;
    (request.method() == "POST" && !app.contains('/')).then_some(app)
}

/// Publishes several events, each to one channel; if one of them cannot be published, none is.
///
/// # Cancel safety
/// As [`publish`].
pub(crate) async fn publish_batch(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Batch<'a> {
        batch: Vec<Attributes<'a>>,
    }
    let signed = signed::authenticated(&context, request, largest_batch).await?;
    let body = bytes_without_lone_surrogates(&signed.body);
    let events = parse_batch(&body, &signed.snapshot.limits)?;
    let now = Instant::now();
    let publications = events.iter().flat_map(|event| event.publications(now));
    context.node().publish_and_wait(&signed.app, publications).await.map_err(not_published)?;
    if events.iter().all(|event| event.info.is_empty()) {
        return Ok(answer::json("{}"));
    }
    let channels: Vec<_> =
        events.iter().flat_map(|event| event.channels.iter().map(|channel| (&**channel, event.info))).collect();
    answer::serialized(&Batch { batch: attributes(&context, &signed.app, &signed.snapshot, &channels).await? })
}

/// What was asked for about each of the channels, as far as it has that.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
async fn attributes(
    context: &Context,
    app: &Arc<App>,
    snapshot: &AppSnapshot,
    channels: &[(&str, Info)],
) -> Result<Vec<Attributes<'static>>, ApiError> {
    let questions = channels.iter().map(async |&(channel, info)| {
        // What is kept was just sent along.
        let info = Info { cache: false, ..info.applicable(Kind::of(channel), &snapshot.config.features) };
        let occupancy =
            if info.is_empty() { Occupancy::default() } else { context.node().channel(app, channel).await.occupancy };
        Attributes::of(info, occupancy)
    });
    asked(all(questions)).await
}

/// A publish that has been checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    name: Cow<'a, str>,
    /// Each once.
    pub(super) channels: Vec<Cow<'a, str>>,
    data: Payload<'a>,
    excluded: Option<SocketId>,
    info: Info,
}

impl<'a> Event<'a> {
    pub(super) fn parse(body: &'a [u8], limits: &Limits) -> Result<Self, ApiError> {
        let fields: Fields<'a> = from_object(body, "an event")?;
        Ok(Self {
            name: check_name(fields.name, limits)?,
            channels: check_channels(fields.channel, fields.channels, limits)?,
            data: check_data(fields.data, limits)?,
            excluded: check_socket_id(fields.socket_id)?,
            info: Info::parse(fields.info.iter().flat_map(|Text(info)| info.split(',')))?,
        })
    }

    /// One for each channel. `at` is when the event came.
    pub(super) fn publications(&self, at: Instant) -> impl Iterator<Item = Publication> {
        let event = command::Event::published(&self.name, &self.data);
        self.channels.iter().map(move |channel| Publication {
            channel: (&**channel).into(),
            event: event.clone(),
            excluded: self.excluded,
            at,
            receipt: None,
        })
    }
}

/// Reads a batch and checks all that is in it.
fn parse_batch<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Event<'a>>, ApiError> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        batch: Vec<&'a RawValue>,
    }
    let Batch { batch } = from_object::<Batch<'a>>(body, "a batch of events")?;
    if batch.len() > limits.batch {
        // The first words are Pusher's, by which SDKs and their suites know the refusal; the others are Soketi's.
        return Err(ApiError::bad_request(format!(
            "Batch too large: Cannot batch-send more than {} messages at once.",
            limits.batch
        )));
    }
    let parse = |(number, event): (usize, &'a RawValue)| {
        let event = Event::parse(event.get().as_bytes(), limits).and_then(|event| match event.channels.len() {
            1 => Ok(event),
            _ => Err(ApiError::bad_request("An event of a batch goes to one \"channel\".")),
        });
        event.map_err(|problem| problem.within(&format!("Event {number} of the batch")))
    };
    (1..).zip(batch).map(parse).collect()
}

/// Reads an object. (Serde would also fill a struct from an array's elements.)
fn from_object<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, ApiError> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::bad_request(format!(
            "The body of the request cannot be read as {what}: it is an array."
        )));
    }
    // Looked at as a whole it need not be looked at string by string. If there is something else in it, that may stand where nobody reads it.
    let parsed = str::from_utf8(body).map_or_else(|_| serde_json::from_slice(body), serde_json::from_str);
    parsed.map_err(|error| {
        let error = echo(&error.to_string());
        ApiError::bad_request(format!("The body of the request cannot be read as {what}: {error}"))
    })
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
    #[serde(borrow)]
    info: Option<Text<'a>>,
}

/// Serde lends a bare `Cow`, but not one within an `Option` or a `Vec`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The charset is free: Laravel's event names hold backslashes, and there are names in all languages.
fn check_name<'a>(name: Cow<'a, str>, limits: &Limits) -> Result<Cow<'a, str>, ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_request("The event name is empty."));
    }
    if name.chars().count() > limits.event_name {
        let error = format!("Event name is too long. Maximum allowed size is {}.", limits.event_name);
        return Err(ApiError::bad_request(error));
    }
    if name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
        return Err(ApiError::bad_request(
            "Event names that begin with pusher: or pusher_internal: are reserved for the server.",
        ));
    }
    Ok(name)
}

fn check_channels<'a>(
    one: Option<Text<'a>>,
    several: Option<Vec<Text<'a>>>,
    limits: &Limits,
) -> Result<Vec<Cow<'a, str>>, ApiError> {
    let mut channels: Vec<Cow<'a, str>> = several.unwrap_or_default().into_iter().map(|text| text.0).collect();
    channels.extend(one.map(|text| text.0));
    if channels.is_empty() {
        return Err(ApiError::bad_request("The event names no channel: give \"channel\" or \"channels\"."));
    }
    if channels.len() > limits.channels_per_publish {
        let error = format!("Cannot broadcast to more than {} channels at once.", limits.channels_per_publish);
        return Err(ApiError::bad_request(error));
    }
    for channel in &channels {
        Channel::parse(channel, limits.channel_name)
            .map_err(|invalid| ApiError::bad_request(format!("{invalid} (channel {:?})", echo(channel))))?;
    }
    if channels.len() == 1 {
        return Ok(channels);
    }
    let mut seen = HashSet::with_capacity(channels.len());
    channels.retain(|channel| seen.insert(channel.clone()));
    let is_encrypted =
        |channel: &Cow<'_, str>| matches!(Kind::of(channel), Kind::PrivateEncrypted | Kind::PrivateEncryptedCache);
    if channels.len() > 1 && channels.iter().any(is_encrypted) {
        // Each has a key of its own, so one text cannot be meant for several.
        return Err(ApiError::bad_request("You cannot trigger to multiple channels when using encrypted channels."));
    }
    Ok(channels)
}

fn check_data<'a>(data: &'a RawValue, limits: &Limits) -> Result<Payload<'a>, ApiError> {
    let data = Payload::of(data);
    if data.is_longer_than(limits.event_data) {
        return Err(ApiError::too_large(format!(
            "The data content of this event exceeds the allowed maximum ({} bytes).",
            limits.event_data
        )));
    }
    Ok(data)
}

fn check_socket_id(socket_id: Option<Text<'_>>) -> Result<Option<SocketId>, ApiError> {
    match socket_id {
        Some(Text(text)) if !SocketId::is_well_formed(&text) => Err(ApiError::bad_request(
            "Invalid socket_id: it is two numbers with a dot between them, as the client was told.",
        )),
        // One that cannot be ours excludes nobody.
        socket_id => Ok(socket_id.and_then(|Text(text)| SocketId::parse(&text))),
    }
}

/// Bytes. Within JSON an escape may take four times as many as what it stands for, and the names come on top.
pub(super) fn largest_body(limits: &Limits) -> usize {
    limits.event_data * 4 + (limits.channels_per_publish + 1) * (limits.channel_name + 8) + limits.event_name * 4 + 1024
}

/// Bytes of a request's content that a shard waits for.
const MOST_AT_ONCE: usize = 16 << 10;

fn largest_batch(limits: &Limits) -> usize {
    limits.batch * largest_body(limits) + 1024
}

/// For the fuzz targets.
#[cfg(feature = "testing")]
pub(crate) mod testing {
    use super::{Event, Limits, bytes_without_lone_surrogates, parse_batch};

    pub(crate) fn event(body: &[u8], limits: &Limits) -> Option<usize> {
        Event::parse(&bytes_without_lone_surrogates(body), limits).ok().map(|event| event.channels.len())
    }

    pub(crate) fn batch(body: &[u8], limits: &Limits) -> Option<usize> {
        parse_batch(&bytes_without_lone_surrogates(body), limits).ok().map(|events| events.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
        assert_eq!((&*event.name, &*event.data.text()), ("foo", r#"{"some":"data"}"#));
        assert_eq!(event.channels, ["project-3"]);
        assert_eq!(event.excluded, None);
    }

    #[test]
    fn one_channel_and_several_channels_are_two_spellings() {
        for body in [
            r#"{"name":"e","data":"","channel":"a"}"#,
            r#"{"name":"e","data":"","channels":["a"]}"#,
            r#"{"name":"e","data":"","channel":"a","channels":["a","a"]}"#,
            r#"{"name":"e","data":"","channel":"a","channels":null,"info":null,"extra":[1]}"#,
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
            assert_eq!(parse(&body).expect(&body).data.text(), text);
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
            (r#" ["e","",null,["a"],null,null]"#, "it is an array"),
            (r#"{"name":"e","data":"","channel":"a","info":"users"}"#, "There is no attribute \\\"users\\\""),
            (r#"{"name":"e","data":"","channels":["a","private-encrypted-b"]}"#, "when using encrypted channels"),
            (r#"{"name":"e","data":"","channels":["private-encrypted-cache-b","a"]}"#, "when using encrypted channels"),
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
            (r#"{"name":"e","data":"\x","channel":"a"}"#, "invalid escape"),
            ("{\"name\":\"e\",\"data\":\"\n\",\"channel\":\"a\"}", "control character"),
            (r#"{"name":"e","data":"","data":"","channel":"a"}"#, "duplicate field `data`"),
            (r#"{"name":"e","data":"","channels":["a"],"channels":["b"]}"#, "duplicate field `channels`"),
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
    fn what_is_no_utf_8_is_refused_wherever_somebody_would_read_it() {
        let refused = |body: &[u8]| Event::parse(body, &Limits::default()).err().map(|problem| format!("{problem:?}"));
        for body in [
            &b"{\"name\":\"\xff\",\"data\":\"\",\"channel\":\"a\"}"[..],
            b"{\"name\":\"e\",\"data\":\"\xff\",\"channel\":\"a\"}",
            b"{\"name\":\"e\",\"data\":[\"\xc3\"],\"channel\":\"a\"}",
            // Half of a surrogate pair, as WTF-8 has it.
            b"{\"name\":\"e\",\"data\":\"\xed\xa0\x80\",\"channel\":\"a\"}",
            b"{\"name\":\"e\",\"data\":\"\",\"channels\":[\"\xff\"]}",
        ] {
            let error = refused(body).expect("no UTF-8");
            assert!(error.contains("status: 400") && error.contains("invalid unicode code point"), "{error}");
        }
        assert_eq!(refused(b"{\"name\":\"e\",\"data\":\"\",\"channel\":\"a\",\"extra\":\"\xff\"}"), None);
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
        assert_eq!((&*event.name, &*event.data.text()), ("App\\Events\\注文", "é"));
    }

    #[test]
    fn an_encrypted_channel_gets_its_events_alone() {
        let body = r#"{"name":"e","data":"","channel":"private-encrypted-a","channels":["private-encrypted-a"]}"#;
        assert_eq!(parse(body).expect("one channel").channels, ["private-encrypted-a"]);
    }

    #[test]
    fn attributes_may_be_asked_for() {
        let info =
            |info: &str| parse(&format!(r#"{{"name":"e","channel":"a","data":"","info":{info}}}"#)).expect(info).info;
        assert_eq!(info("null"), Info::default());
        assert_eq!(info(r#""""#), Info::default());
        let both = Info { user_count: true, subscription_count: true, cache: false };
        assert_eq!(info(r#""user_count,subscription_count""#), both);
    }

    #[test]
    fn a_batch_is_as_good_as_its_worst_event() {
        let parse = |events: &[&str]| {
            let body = format!(r#"{{"batch":[{}]}}"#, events.join(","));
            parse_batch(body.as_bytes(), &Limits::default())
                .map(|events| events.iter().map(|event| event.channels[0].to_string()).collect::<Vec<_>>())
                .map_err(|problem| format!("{problem:?}"))
        };
        let good = r#"{"name":"e","channel":"a","data":"x"}"#;
        assert_eq!(parse(&[]), Ok(vec![]));
        assert_eq!(
            parse(&[good, r#"{"name":"f","channels":["b"],"data":1}"#]),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(parse(&[good; 10]).is_ok());
        for (events, reason) in [
            (vec![good; 11], "Batch too large: Cannot batch-send more than 10 messages at once."),
            (vec![good, "7"], "Event 2 of the batch: The body"),
            (vec![r#"{"name":"e","data":"x"}"#, good], "Event 1 of the batch: The event names no channel"),
            (
                vec![good, good, r#"{"name":"e","channels":["a","b"],"data":"x"}"#],
                "Event 3 of the batch: An event of a",
            ),
        ] {
            let error = parse(&events).expect_err(reason);
            assert!(error.contains(reason) && error.contains("status: 400"), "{error}");
        }
        let large = json!({ "name": "e", "channel": "a", "data": "x".repeat(102_401) }).to_string();
        assert!(parse(&[good, &large]).is_err_and(|error| error.contains("status: 413") && error.contains("Event 2")));
        for body in ["", "{}", "[]", r#"{"batch":{}}"#, r#"{"batch":null}"#, "[[]]"] {
            let error = parse_batch(body.as_bytes(), &Limits::default()).map_err(|problem| format!("{problem:?}"));
            assert!(error.is_err_and(|error| error.contains("cannot be read as a batch of events")), "{body}");
        }
    }

    #[test]
    fn the_largest_body_leaves_room_for_escapes() {
        let limits = Limits::default();
        let body =
            json!({ "name": "\u{1}", "data": "\"".repeat(limits.event_data), "channels": vec!["c".repeat(200); 100] })
                .to_string();
        assert!(body.len() < largest_body(&limits) && parse(&body).is_ok());
    }

    /// Something like what SDKs send, with every part of it possibly wrong.
    fn almost_an_event() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            Just("null".to_owned()),
            Just("{}".to_owned()),
            Just("[[]]".to_owned()),
            "-?[0-9]{1,30}",
            any::<String>().prop_map(|text| json!(text).to_string()),
            prop::collection::vec(any::<String>(), 0..4).prop_map(|texts| json!(texts).to_string()),
            r#""(a|private-encrypted-a|\\ud800|1\.2|user_count|,){0,3}""#,
        ];
        let key = prop_oneof!["name", "data", "channel", "channels", "socket_id", "info", "batch", "[a-z]{0,3}"];
        prop::collection::vec((key, value), 0..7).prop_map(|fields| {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        })
    }

    fn is_bounded(problem: &ApiError) -> bool {
        format!("{problem:?}").len() < 4096
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic_or_the_error_long(body: Vec<u8>) {
            prop_assert!(Event::parse(&body, &Limits::default()).err().as_ref().is_none_or(is_bounded));
            prop_assert!(parse_batch(&body, &Limits::default()).err().as_ref().is_none_or(is_bounded));
        }

        #[test]
        fn what_is_almost_an_event_is_read_or_refused_in_few_words(event in almost_an_event()) {
            let limits = Limits::default();
            let parsed = Event::parse(event.as_bytes(), &limits);
            prop_assert!(parsed.as_ref().err().is_none_or(is_bounded));
            let batch = format!(r#"{{"batch":[{event}]}}"#);
            let batched = parse_batch(batch.as_bytes(), &limits);
            prop_assert!(batched.as_ref().err().is_none_or(is_bounded));
            match (parsed, batched) {
                (Ok(event), Ok(events)) => prop_assert_eq!(vec![event], events),
                (Ok(event), Err(_)) => prop_assert!(event.channels.len() > 1),
                (Err(_), Ok(events)) => prop_assert!(false, "{events:?}"),
                (Err(_), Err(_)) => {}
            }
        }

        #[test]
        fn long_texts_of_a_stranger_are_not_repeated_in_full(text in "[^a-z]{300,2000}") {
            for key in ["name", "channel", "socket_id", "info"] {
                let mut event = json!({ "name": "e", "channel": "a", "data": "" });
                event[key] = json!(text);
                let problem = Event::parse(event.to_string().as_bytes(), &Limits::default()).expect_err("too long");
                prop_assert!(is_bounded(&problem));
            }
        }
    }
}
