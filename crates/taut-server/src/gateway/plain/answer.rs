//! What the backend says: the body of a response, checked as a whole before anything of it is done.

use std::fmt;
use std::time::Duration;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::gateway::event::{Answer, Close, Message, Publish, Subscription, Target, User};

use super::json::{self, Json, Object};

/// A response of the backend with a status of 2xx.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'a str>,
    /// The carrier bounds it, to 1 MiB by default.
    pub(crate) body: &'a [u8],
}

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnswerTo<'a> {
    /// With the subprotocols that the client offers.
    Open {
        protocols: &'a [&'a str],
        /// Whether an empty answer lets the client in.
        is_empty_enough: bool,
    },
    Event,
}

/// How much one answer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Messages to the connection. Default: 1000.
    pub(crate) sends: usize,
    /// Default: 100.
    pub(crate) publishes: usize,
    /// Channels to subscribe to, and as many to leave. Default: 100.
    pub(crate) channels: usize,
    /// Bytes of the merge patch as compact JSON. Default: 4 KiB.
    pub(crate) meta: usize,
    /// Bytes of the data of a publish. Default: 100 KiB.
    pub(crate) data: usize,
    /// Characters of the name of an event. Default: 200.
    pub(crate) event: usize,
    /// Bytes of a user's id and info. Default: 4 KiB.
    pub(crate) user: usize,
    /// Characters of a user's id. Default: 128.
    pub(crate) user_id: usize,
    /// Headers of the response to the upgrade. Default: 32.
    pub(crate) headers: usize,
    /// Bytes of all of them. Default: 8 KiB.
    pub(crate) header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sends: 1000,
            publishes: 100,
            channels: 100,
            meta: 4 << 10,
            data: 100 << 10,
            event: 200,
            user: 4 << 10,
            user_id: 128,
            headers: 32,
            header_bytes: 8 << 10,
        }
    }
}

/// Why an answer is rejected: a sentence for the log. The client does not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerError(Box<str>);

/// Reads a response. Beside the answer are sentences for the log about what was ignored.
pub(crate) fn read(
    response: &Response<'_>,
    to: AnswerTo<'_>,
    limits: &Limits,
) -> Result<(Answer, Vec<Box<str>>), AnswerError> {
    let &Response { status, content_type, body } = response;
    if status == 204 {
        return Ok((Answer::default(), Vec::new()));
    }
    if body.trim_ascii().is_empty() {
        // A script that dies, or does not know the event, says nothing: that lets nobody in.
        return match to {
            AnswerTo::Open { is_empty_enough: false, .. } => Err(AnswerError(EMPTY_OPEN.into())),
            AnswerTo::Open { .. } | AnswerTo::Event => Ok((Answer::default(), Vec::new())),
        };
    }
    let reject = |why: fmt::Arguments<'_>| AnswerError(format!("{why}: {}", Quoted(body)).into());
    match content_type {
        Some(content_type) if is_json(content_type) => {}
        Some(other) => return Err(reject(format_args!("the answer is {} and not JSON", Quoted(other.as_bytes())))),
        None => return Err(reject(format_args!("the answer has no content type"))),
    }
    if body.starts_with(BYTE_ORDER_MARK) {
        return Err(reject(format_args!("the answer begins with a byte order mark")));
    }
    if !body.trim_ascii_start().starts_with(b"{") && !body.trim_ascii_start().starts_with(b"[") {
        return Err(reject(format_args!("the answer does not begin with a JSON object")));
    }
    json::check(body, DEEPEST).map_err(|error| reject(format_args!("the answer cannot be read ({error})")))?;
    let raw: &RawValue = serde_json::from_slice(body).map_err(|error| reject(format_args!("{error}")))?;
    let object = match Json::of(raw) {
        Json::Object(object) => object,
        // What PHP writes of an empty array.
        Json::List(values) if values.is_empty() => return Ok((Answer::default(), Vec::new())),
        _ => return Err(reject(format_args!("the answer is not a JSON object"))),
    };
    let mut reader = Reader { to, limits, warnings: Vec::new() };
    let answer = reader.answer(object)?;
    Ok((answer, reader.warnings))
}

const EMPTY_OPEN: &str = "the answer to open is empty: {} or status 204 lets the client in";

struct Reader<'a> {
    to: AnswerTo<'a>,
    limits: &'a Limits,
    warnings: Vec<Box<str>>,
}

type Read<T> = Result<T, AnswerError>;

impl Reader<'_> {
    fn answer(&mut self, mut object: Object<'_>) -> Read<Answer> {
        let mut answer = Answer::default();
        if let Some(value) = take(&mut object, "user", Place::of("user"))? {
            answer.user = Some(self.user(value)?);
        }
        if let Some(value) = take(&mut object, "meta", Place::of("meta"))? {
            answer.meta = Some(self.meta(value)?);
        }
        if let Some(value) = take(&mut object, "subscribe", Place::of("subscribe"))? {
            answer.subscribe = list(value, Place::of("subscribe"), self.limits.channels, |value, place| {
                self.subscription(value, place)
            })?;
        }
        if let Some(value) = take(&mut object, "send", Place::of("send"))? {
            answer.send = self.send(value)?;
        }
        if let Some(value) = take(&mut object, "publish", Place::of("publish"))? {
            answer.publish =
                list(value, Place::of("publish"), self.limits.publishes, |value, place| self.publish(value, place))?;
        }
        if let Some(value) = take(&mut object, "unsubscribe", Place::of("unsubscribe"))? {
            answer.unsubscribe =
                list(value, Place::of("unsubscribe"), self.limits.channels, |value, place| self.channel(value, place))?;
        }
        if let Some(value) = take(&mut object, "timer", Place::of("timer"))? {
            answer.timer = Some(timer(value)?);
        }
        if let Some(value) = take(&mut object, "close", Place::of("close"))? {
            answer.close = Some(self.close(value)?);
        }
        if let AnswerTo::Open { protocols, .. } = self.to {
            if let Some(value) = take(&mut object, "protocol", Place::of("protocol"))? {
                answer.acceptance.subprotocol = Some(protocol(value, protocols)?);
            }
            if let Some(value) = take(&mut object, "headers", Place::of("headers"))? {
                answer.acceptance.headers = self.headers(value)?;
            }
        }
        self.warn_of_rest(&object, None);
        Ok(answer)
    }

    fn user(&mut self, value: &RawValue) -> Read<Option<User>> {
        let place = Place::of("user");
        let user = match Json::of(value) {
            Json::Null => return Ok(None),
            Json::Object(mut object) => {
                let id = required(&mut object, "id", place)?;
                let id = user_id(id, place.within("id"))?;
                let info = info(&mut object, place)?;
                self.warn_of_rest(&object, Some(place));
                User { id, info }
            }
            _ => User { id: user_id(value, place)?, info: None },
        };
        if user.id.chars().count() > self.limits.user_id {
            return Err(place.error(format_args!("has an id of more than {} characters", self.limits.user_id)));
        }
        let bytes = user.id.len() + user.info.as_ref().map_or(0, |info| info.len());
        if bytes > self.limits.user {
            return Err(place.error(format_args!("has more than {} bytes", self.limits.user)));
        }
        Ok(Some(user))
    }

    fn meta(&self, value: &RawValue) -> Read<Map<String, Value>> {
        let place = Place::of("meta");
        let map = match Json::of(value) {
            Json::Object(_) => {
                serde_json::from_str(value.get()).map_err(|error| place.error(format_args!("{error}")))?
            }
            Json::List(values) if values.is_empty() => Map::new(),
            _ => return Err(place.error(format_args!("must be an object"))),
        };
        if json::compact(value.get()).len() > self.limits.meta {
            return Err(place.error(format_args!("has more than {} bytes", self.limits.meta)));
        }
        Ok(map)
    }

    fn subscription(&mut self, value: &RawValue, place: Place) -> Read<Subscription> {
        match Json::of(value) {
            Json::Text(channel) => Ok(Subscription { channel, info: None }),
            Json::Object(mut object) => {
                let channel = text(required(&mut object, "channel", place)?, place.within("channel"))?;
                let info = info(&mut object, place)?;
                self.warn_of_rest(&object, Some(place));
                Ok(Subscription { channel, info })
            }
            _ => Err(place.error(format_args!("must be a channel's name or an object with a channel"))),
        }
    }

    fn channel(&mut self, value: &RawValue, place: Place) -> Read<Box<str>> {
        match Json::of(value) {
            Json::Text(channel) => Ok(channel),
            Json::Object(mut object) => {
                let channel = text(required(&mut object, "channel", place)?, place.within("channel"))?;
                self.warn_of_rest(&object, Some(place));
                Ok(channel)
            }
            _ => Err(place.error(format_args!("must be a channel's name or an object with a channel"))),
        }
    }

    fn send(&mut self, value: &RawValue) -> Read<Vec<Message>> {
        let place = Place::of("send");
        if let Json::List(_) = Json::of(value) {
            list(value, place, self.limits.sends, |value, place| self.message(value, place))
        } else {
            Ok(vec![self.message(value, place)?])
        }
    }

    fn message(&mut self, value: &RawValue, place: Place) -> Read<Message> {
        let mut object = match Json::of(value) {
            Json::Text(text) => return Ok(Message::Text(text)),
            Json::Object(object) => object,
            _ => return Err(place.error(format_args!("must be a text, or an object with json or binary"))),
        };
        let json = take(&mut object, "json", place.within("json"))?;
        let binary = take(&mut object, "binary", place.within("binary"))?;
        self.warn_of_rest(&object, Some(place));
        match (json, binary) {
            (Some(json), None) => Ok(Message::Text(json::compact(json.get()))),
            (None, Some(binary)) => {
                let place = place.within("binary");
                let bytes = BASE64.decode(&*text(binary, place)?);
                Ok(Message::Binary(bytes.map_err(|_| place.error(format_args!("must be base64")))?.into()))
            }
            _ => Err(place.error(format_args!("must have either json or binary"))),
        }
    }

    fn publish(&mut self, value: &RawValue, place: Place) -> Read<Publish> {
        let Json::Object(mut object) = Json::of(value) else {
            return Err(place.error(format_args!("must be an object")));
        };
        let to = target(&mut object, place)?;
        let event = match take(&mut object, "event", place.within("event"))? {
            Some(event) => self.event_name(event, place.within("event"))?,
            None => "message".into(),
        };
        let data = required(&mut object, "data", place)?;
        let data = if let Json::Text(text) = Json::of(data) { text } else { json::compact(data.get()) };
        if data.len() > self.limits.data {
            return Err(place.within("data").error(format_args!("has more than {} bytes", self.limits.data)));
        }
        let except = take(&mut object, "except", place.within("except"))?;
        if let Some(except) = except {
            let place = place.within("except");
            if &*text(except, place)? != "self" {
                return Err(place.error(format_args!("must be \"self\"")));
            }
        }
        self.warn_of_rest(&object, Some(place));
        Ok(Publish { to, event, data, is_except_self: except.is_some() })
    }

    fn event_name(&self, value: &RawValue, place: Place) -> Read<Box<str>> {
        let name = text(value, place)?;
        if name.is_empty() || name.chars().count() > self.limits.event {
            return Err(place.error(format_args!("must have 1 to {} characters", self.limits.event)));
        }
        Ok(name)
    }

    fn close(&mut self, value: &RawValue) -> Read<Close> {
        let place = Place::of("close");
        let Json::Object(mut object) = Json::of(value) else {
            return Ok(Close { code: close_code(value, place)?, reason: "".into() });
        };
        let code = close_code(required(&mut object, "code", place)?, place.within("code"))?;
        let reason = match take(&mut object, "reason", place.within("reason"))? {
            Some(reason) => text(reason, place.within("reason"))?,
            None => "".into(),
        };
        if reason.len() > LONGEST_REASON {
            return Err(place.within("reason").error(format_args!("has more than {LONGEST_REASON} bytes")));
        }
        self.warn_of_rest(&object, Some(place));
        Ok(Close { code, reason })
    }

    fn headers(&self, value: &RawValue) -> Read<Vec<(Box<str>, Box<str>)>> {
        let place = Place::of("headers");
        let object = match Json::of(value) {
            Json::Object(object) => object,
            Json::List(values) if values.is_empty() => return Ok(Vec::new()),
            _ => return Err(place.error(format_args!("must be an object"))),
        };
        let mut headers = Vec::new();
        for (name, value) in object.0 {
            let name: Box<str> = name.into();
            let error = |why: &str| place.error(format_args!("{why}: {}", Quoted(name.as_bytes())));
            if !is_allowed(&name) {
                return Err(error("may have Set-Cookie and X-… only"));
            }
            let values = match Json::of(value) {
                Json::List(values) => values,
                _ => vec![value],
            };
            for value in values {
                let Json::Text(value) = Json::of(value) else {
                    return Err(error("must have texts or lists of texts as values"));
                };
                // What hyper would refuse later; CR and LF would begin another header.
                if value.chars().any(|character| character.is_ascii_control() && character != '\t') {
                    return Err(error("must have values without control characters"));
                }
                headers.push((name.clone(), value));
            }
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > self.limits.headers || bytes > self.limits.header_bytes {
            let Limits { headers, header_bytes, .. } = self.limits;
            return Err(place.error(format_args!("has more than {headers} values or {header_bytes} bytes")));
        }
        Ok(headers)
    }

    /// What is left of an object is unknown.
    fn warn_of_rest(&mut self, object: &Object<'_>, place: Option<Place>) {
        let room = MOST_WARNINGS.saturating_sub(self.warnings.len());
        for (name, _) in object.0.iter().take(room) {
            let short: String = name.chars().take(LONGEST_NAME).collect();
            self.warnings.push(match place {
                Some(place) => format!("{place} has the unknown field {short:?}").into(),
                None if matches!(&**name, "protocol" | "headers") => {
                    format!("the answer has {short:?}, which only the answer to open may have").into()
                }
                None => format!("the answer has the unknown field {short:?}").into(),
            });
        }
    }
}

fn take<'a>(object: &mut Object<'a>, name: &str, place: Place) -> Read<Option<&'a RawValue>> {
    object.take(name).map_err(|_| place.error(format_args!("is there twice")))
}

fn required<'a>(object: &mut Object<'a>, name: &'static str, place: Place) -> Read<&'a RawValue> {
    take(object, name, place.within(name))?.ok_or_else(|| place.within(name).error(format_args!("is missing")))
}

/// JSON of any kind; null is none.
fn info(object: &mut Object<'_>, place: Place) -> Read<Option<Box<str>>> {
    let info = take(object, "info", place.within("info"))?;
    Ok(info.filter(|info| info.get() != "null").map(|info| json::compact(info.get())))
}

fn list<T>(
    value: &RawValue,
    place: Place,
    most: usize,
    mut read: impl FnMut(&RawValue, Place) -> Read<T>,
) -> Read<Vec<T>> {
    let Json::List(values) = Json::of(value) else {
        return Err(place.error(format_args!("must be a list")));
    };
    if values.len() > most {
        return Err(place.error(format_args!("has more than {most} items")));
    }
    values.into_iter().enumerate().map(|(index, value)| read(value, place.item(index))).collect()
}

fn text(value: &RawValue, place: Place) -> Read<Box<str>> {
    if let Json::Text(text) = Json::of(value) { Ok(text) } else { Err(place.error(format_args!("must be a text"))) }
}

/// Databases count their users, so numbers are fine, as text.
fn user_id(value: &RawValue, place: Place) -> Read<Box<str>> {
    let id = match Json::of(value) {
        Json::Text(id) => Some(id),
        Json::Number(number) => json::integer(number).map(|id| id.to_string().into()),
        _ => None,
    };
    id.filter(|id| !id.is_empty())
        .ok_or_else(|| place.error(format_args!("must be a text that is not empty, or a whole number")))
}

fn target(object: &mut Object<'_>, place: Place) -> Read<Target> {
    let channel = take(object, "channel", place.within("channel"))?;
    let user = take(object, "user", place.within("user"))?;
    let connection = take(object, "connection", place.within("connection"))?;
    match (channel, user, connection) {
        (Some(channel), None, None) => Ok(Target::Channel(text(channel, place.within("channel"))?)),
        (None, Some(user), None) => Ok(Target::User(user_id(user, place.within("user"))?)),
        (None, None, Some(connection)) => Ok(Target::Connection(text(connection, place.within("connection"))?)),
        _ => Err(place.error(format_args!("must have exactly one of channel, user and connection"))),
    }
}

fn timer(value: &RawValue) -> Read<Option<Duration>> {
    let seconds = if let Json::Number(number) = Json::of(value) { json::integer(number) } else { None };
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(0) => Ok(None),
        Some(seconds @ SHORTEST_TIMER..=LONGEST_TIMER) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Place::of("timer")
            .error(format_args!("must be 0 or whole seconds from {SHORTEST_TIMER} to {LONGEST_TIMER}"))),
    }
}

fn close_code(value: &RawValue, place: Place) -> Read<u16> {
    let code = if let Json::Number(number) = Json::of(value) { json::integer(number) } else { None };
    match code.and_then(|code| u16::try_from(code).ok()) {
        Some(code @ (1000 | 3000..=4999)) => Ok(code),
        _ => Err(place.error(format_args!("must be 1000 or from 3000 to 4999"))),
    }
}

fn protocol(value: &RawValue, offered: &[&str]) -> Read<Box<str>> {
    let place = Place::of("protocol");
    let protocol = text(value, place)?;
    if offered.contains(&&*protocol) {
        Ok(protocol)
    } else {
        Err(place.error(format_args!("must be one that the client offers, not {}", Quoted(protocol.as_bytes()))))
    }
}

/// `Set-Cookie` and `X-…`: the others are the server's business.
fn is_allowed(header: &str) -> bool {
    let Some((start, rest)) = header.split_at_checked(2) else { return false };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    header.eq_ignore_ascii_case("set-cookie")
        || (start.eq_ignore_ascii_case("x-") && !rest.is_empty() && rest.bytes().all(is_token))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((_, subtype)) = essence.split_once('/') else { return false };
    matches!(&*essence, "application/json" | "text/json") || subtype.ends_with("+json")
}

/// Where in an answer: `publish[3].data`.
#[derive(Clone, Copy)]
struct Place {
    field: &'static str,
    index: Option<usize>,
    inner: Option<&'static str>,
}

impl Place {
    fn of(field: &'static str) -> Self {
        Self { field, index: None, inner: None }
    }

    fn item(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    fn within(self, inner: &'static str) -> Self {
        Self { inner: Some(inner), ..self }
    }

    fn error(self, why: fmt::Arguments<'_>) -> AnswerError {
        AnswerError(format!("{self} {why}").into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.field)?;
        if let Some(index) = self.index {
            write!(formatter, "[{index}]")?;
        }
        self.inner.map_or(Ok(()), |inner| write!(formatter, ".{inner}"))
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The beginning of a stranger's text, in quotes, on one line.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(start) = self.0.get(..LONGEST_QUOTE) else {
            return write!(formatter, "{:?}", String::from_utf8_lossy(self.0));
        };
        // Without the character that the cut goes through.
        let whole = start.utf8_chunks().last().is_none_or(|chunk| chunk.invalid().is_empty());
        let text = String::from_utf8_lossy(start);
        let text = if whole { &text } else { text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(&text) };
        write!(formatter, "{text:?}…")
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Objects and lists within each other.
const DEEPEST: usize = 32;

/// Bytes of an answer in the log.
const LONGEST_QUOTE: usize = 200;

const MOST_WARNINGS: usize = 10;

/// Characters of a field's name in the log.
const LONGEST_NAME: usize = 64;

/// Seconds.
const SHORTEST_TIMER: u64 = 5;
const LONGEST_TIMER: u64 = 30 * 24 * 3600;

/// Bytes (RFC 6455 §5.5: a control frame has 125, of which the code takes 2).
const LONGEST_REASON: usize = 123;

/// Some encoders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::Acceptance;
    use proptest::prelude::*;
    use serde_json::json;

    const OPEN: AnswerTo<'_> = AnswerTo::Open { protocols: &["chat.v1", "chat.v2"], is_empty_enough: false };

    fn read_as(to: AnswerTo<'_>, body: &str) -> Result<(Answer, Vec<Box<str>>), AnswerError> {
        let response = Response { status: 200, content_type: Some("application/json"), body: body.as_bytes() };
        read(&response, to, &Limits::default())
    }

    /// Without warnings.
    fn answer(body: &str) -> Answer {
        let (answer, warnings) = read_as(OPEN, body).unwrap_or_else(|error| panic!("{body}: {error}"));
        assert!(warnings.is_empty(), "{body}: {warnings:?}");
        answer
    }

    fn error(body: &str) -> String {
        read_as(OPEN, body).expect_err(body).to_string()
    }

    fn text(text: &str) -> Message {
        Message::Text(text.into())
    }

    fn to_channel(channel: &str, event: &str, data: &str) -> Publish {
        Publish { to: Target::Channel(channel.into()), event: event.into(), data: data.into(), is_except_self: false }
    }

    #[test]
    fn nothing_can_be_said_in_several_ways() {
        let response = |status, content_type, body| Response { status, content_type, body };
        let nothing = || Ok((Answer::default(), Vec::new()));
        for response in [
            response(204, None, &b""[..]),
            response(204, Some("text/html"), b"<html>"),
            response(200, Some("application/json"), b"{}"),
            response(201, Some("application/json"), b" [ ]\n"),
        ] {
            assert_eq!(read(&response, OPEN, &Limits::default()), nothing(), "{response:?}");
        }
        for response in [response(200, None, b""), response(200, Some("text/html"), b" \r\n")] {
            assert_eq!(read(&response, AnswerTo::Event, &Limits::default()), nothing(), "{response:?}");
            let refused = read(&response, OPEN, &Limits::default()).expect_err("nobody is let in");
            assert!(refused.to_string().contains("204 lets the client in"), "{refused}");
            let to = AnswerTo::Open { protocols: &[], is_empty_enough: true };
            assert_eq!(read(&response, to, &Limits::default()), nothing(), "{response:?}");
        }
    }

    #[test]
    fn everything_that_can_be_said_is_read() {
        let all = answer(
            r#"{
                "user": {"id": 7, "info": {"name": "Zoë"}},
                "protocol": "chat.v2", "headers": {"set-cookie": ["a=1", "b=2"], "X-Node": "é"},
                "meta": {"room": "42", "old": null},
                "subscribe": ["room-1", {"channel": "presence-a", "info": {"n": 1}}],
                "send": ["hi", {"json": {"a": [1, 2.0]}}, {"binary": "AP8="}, {"json": "text"}],
                "publish": [
                    {"channel": "room-1", "event": "joined", "data": {"from": "7"}, "except": "self"},
                    {"user": 7, "data": "as it is"},
                    {"connection": "c8", "data": null}
                ],
                "unsubscribe": ["room-0", {"channel": "room-00"}],
                "timer": 30,
                "close": {"code": 3000, "reason": "enough"}
            }"#,
        );
        let user = User { id: "7".into(), info: Some(r#"{"name":"Zoë"}"#.into()) };
        let data = |to, data: &str| Publish { to, event: "message".into(), data: data.into(), is_except_self: false };
        let expected = Answer {
            user: Some(Some(user)),
            meta: json!({"room": "42", "old": null}).as_object().cloned(),
            subscribe: vec![
                Subscription { channel: "room-1".into(), info: None },
                Subscription { channel: "presence-a".into(), info: Some(r#"{"n":1}"#.into()) },
            ],
            send: vec![text("hi"), text(r#"{"a":[1,2.0]}"#), Message::Binary([0, 255].into()), text("\"text\"")],
            publish: vec![
                Publish { is_except_self: true, ..to_channel("room-1", "joined", r#"{"from":"7"}"#) },
                data(Target::User("7".into()), "as it is"),
                data(Target::Connection("c8".into()), "null"),
            ],
            unsubscribe: vec!["room-0".into(), "room-00".into()],
            timer: Some(Some(Duration::from_secs(30))),
            close: Some(Close { code: 3000, reason: "enough".into() }),
            acceptance: Acceptance {
                subprotocol: Some("chat.v2".into()),
                headers: [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("X-Node", "é")]
                    .map(|(name, value)| (name.into(), value.into()))
                    .to_vec(),
                ..Acceptance::default()
            },
            ..Answer::default()
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn what_has_several_forms_is_read_in_each() {
        let user = |id: &str| Some(Some(User { id: id.into(), info: None }));
        let close = |code, reason: &str| Some(Close { code, reason: reason.into() });
        let none = Answer::default;
        for (body, expected) in [
            (r#"{"user":"zoë"}"#, Answer { user: user("zoë"), ..none() }),
            (r#"{"user":18446744073709551615}"#, Answer { user: user("18446744073709551615"), ..none() }),
            (r#"{"user":-7}"#, Answer { user: user("-7"), ..none() }),
            (r#"{"user":{"id":"a","info":null}}"#, Answer { user: user("a"), ..none() }),
            (r#"{"user":null}"#, Answer { user: Some(None), ..none() }),
            (r#"{"meta":[]}"#, Answer { meta: Some(Map::new()), ..none() }),
            (r#"{"meta":{}}"#, Answer { meta: Some(Map::new()), ..none() }),
            (r#"{"headers":[]}"#, none()),
            (r#"{"send":"a"}"#, Answer { send: vec![text("a")], ..none() }),
            (r#"{"send":{"json":[ ]}}"#, Answer { send: vec![text("[]")], ..none() }),
            (r#"{"send":{"json":null}}"#, Answer { send: vec![text("null")], ..none() }),
            (r#"{"send":{"binary":"AP8"}}"#, Answer { send: vec![Message::Binary([0, 255].into())], ..none() }),
            (r#"{"send":[],"publish":[],"subscribe":[],"unsubscribe":[]}"#, none()),
            (r#"{"timer":0}"#, Answer { timer: Some(None), ..none() }),
            (r#"{"timer":5}"#, Answer { timer: Some(Some(Duration::from_secs(5))), ..none() }),
            (r#"{"timer":2592000}"#, Answer { timer: Some(Some(Duration::from_secs(2_592_000))), ..none() }),
            (r#"{"close":1000}"#, Answer { close: close(1000, ""), ..none() }),
            (r#"{"close":{"code":4999}}"#, Answer { close: close(4999, ""), ..none() }),
            (
                r#"{"protocol":"chat.v1"}"#,
                Answer {
                    acceptance: Acceptance { subprotocol: Some("chat.v1".into()), ..Acceptance::default() },
                    ..none()
                },
            ),
            (r#"{"\u0073end":"\ud83d\ude00"}"#, Answer { send: vec![text("😀")], ..none() }),
        ] {
            assert_eq!(answer(body), expected, "{body}");
        }
    }

    #[test]
    fn a_wrong_type_rejects_all_and_names_the_field() {
        for (body, expected) in [
            (r#"{"user":true}"#, "user must be a text that is not empty, or a whole number"),
            (r#"{"user":""}"#, "user must be a text that is not empty, or a whole number"),
            (r#"{"user":7.0}"#, "user must be a text that is not empty, or a whole number"),
            (r#"{"user":1e3}"#, "user must be a text that is not empty, or a whole number"),
            (r#"{"user":{}}"#, "user.id is missing"),
            (r#"{"user":{"id":null}}"#, "user.id must be a text that is not empty, or a whole number"),
            (r#"{"user":"a","user":"b"}"#, "user is there twice"),
            (r#"{"meta":null}"#, "meta must be an object"),
            (r#"{"meta":[1]}"#, "meta must be an object"),
            (r#"{"meta":"a"}"#, "meta must be an object"),
            (r#"{"subscribe":"a"}"#, "subscribe must be a list"),
            (r#"{"subscribe":{"0":"a"}}"#, "subscribe must be a list"),
            (r#"{"subscribe":["a",7]}"#, "subscribe[1] must be a channel's name or an object with a channel"),
            (r#"{"subscribe":[{"info":1}]}"#, "subscribe[0].channel is missing"),
            (r#"{"subscribe":[{"channel":1}]}"#, "subscribe[0].channel must be a text"),
            (r#"{"unsubscribe":[null]}"#, "unsubscribe[0] must be a channel's name or an object with a channel"),
            (r#"{"unsubscribe":[{}]}"#, "unsubscribe[0].channel is missing"),
            (r#"{"unsubscribe":[{"channel":[]}]}"#, "unsubscribe[0].channel must be a text"),
            (r#"{"unsubscribe":null}"#, "unsubscribe must be a list"),
            (r#"{"send":null}"#, "send must be a text, or an object with json or binary"),
            (r#"{"send":["a","b",7]}"#, "send[2] must be a text, or an object with json or binary"),
            (r#"{"send":{}}"#, "send must have either json or binary"),
            (r#"{"send":[{"json":1,"binary":""}]}"#, "send[0] must have either json or binary"),
            (r#"{"send":[{"json":1,"json":1}]}"#, "send[0].json is there twice"),
            (r#"{"send":[{"binary":7}]}"#, "send[0].binary must be a text"),
            (r#"{"send":[{"binary":"_-"}]}"#, "send[0].binary must be base64"),
            (r#"{"publish":{"channel":"a","data":1}}"#, "publish must be a list"),
            (r#"{"publish":["a"]}"#, "publish[0] must be an object"),
            (r#"{"publish":[{"data":1}]}"#, "publish[0] must have exactly one of channel, user and connection"),
            (
                r#"{"publish":[{"data":1,"channel":"a","user":"b"}]}"#,
                "publish[0] must have exactly one of channel, user and connection",
            ),
            (
                r#"{"publish":[{"data":1,"connection":"a","user":"b"}]}"#,
                "publish[0] must have exactly one of channel, user and connection",
            ),
            (r#"{"publish":[{"channel":"a"}]}"#, "publish[0].data is missing"),
            (r#"{"publish":[{"channel":7,"data":1}]}"#, "publish[0].channel must be a text"),
            (r#"{"publish":[{"connection":7,"data":1}]}"#, "publish[0].connection must be a text"),
            (
                r#"{"publish":[{"user":null,"data":1}]}"#,
                "publish[0].user must be a text that is not empty, or a whole number",
            ),
            (r#"{"publish":[{"channel":"a","event":"","data":1}]}"#, "publish[0].event must have 1 to 200 characters"),
            (r#"{"publish":[{"channel":"a","event":1,"data":1}]}"#, "publish[0].event must be a text"),
            (r#"{"publish":[{"channel":"a","data":1,"except":"c7"}]}"#, "publish[0].except must be \"self\""),
            (r#"{"publish":[{"channel":"a","data":1,"except":null}]}"#, "publish[0].except must be a text"),
            (r#"{"timer":4}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":5.5}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":30.0}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":-5}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":2592001}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":18446744073709551616}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":"30"}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"timer":null}"#, "timer must be 0 or whole seconds from 5 to 2592000"),
            (r#"{"close":true}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":999}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":1001}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":2999}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":5000}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":66536}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":"1000"}"#, "close must be 1000 or from 3000 to 4999"),
            (r#"{"close":{"code":1006}}"#, "close.code must be 1000 or from 3000 to 4999"),
            (r#"{"close":{"reason":"a"}}"#, "close.code is missing"),
            (r#"{"close":{"code":1000,"reason":7}}"#, "close.reason must be a text"),
            (r#"{"protocol":null}"#, "protocol must be a text"),
            (r#"{"protocol":"CHAT.v1"}"#, "protocol must be one that the client offers, not \"CHAT.v1\""),
            (r#"{"headers":["a"]}"#, "headers must be an object"),
            (r#"{"headers":"a"}"#, "headers must be an object"),
            (r#"{"headers":{"Content-Type":"a"}}"#, "headers may have Set-Cookie and X-… only: \"Content-Type\""),
            (r#"{"headers":{"X-":"a"}}"#, "headers may have Set-Cookie and X-… only: \"X-\""),
            (r#"{"headers":{"X-a b":"a"}}"#, "headers may have Set-Cookie and X-… only: \"X-a b\""),
            (r#"{"headers":{"X-a\r\nb":"a"}}"#, "headers may have Set-Cookie and X-… only: \"X-a\\r\\nb\""),
            (r#"{"headers":{"":"a"}}"#, "headers may have Set-Cookie and X-… only: \"\""),
            (r#"{"headers":{"é":"a"}}"#, "headers may have Set-Cookie and X-… only: \"é\""),
            (r#"{"headers":{"X-A":7}}"#, "headers must have texts or lists of texts as values: \"X-A\""),
            (r#"{"headers":{"X-A":[[]]}}"#, "headers must have texts or lists of texts as values: \"X-A\""),
            (r#"{"headers":{"X-A":"a\r\nb"}}"#, "headers must have values without control characters: \"X-A\""),
            (r#"{"headers":{"X-A":["a","\u0000"]}}"#, "headers must have values without control characters: \"X-A\""),
            (r#"{"headers":{"X-A":"\u007f"}}"#, "headers must have values without control characters: \"X-A\""),
        ] {
            assert_eq!(error(body), expected, "{body}");
        }
        assert_eq!(answer(r#"{"headers":{"x-a":"a\tb"}}"#).acceptance.headers.len(), 1);
    }

    #[test]
    fn what_is_not_json_is_shown_by_its_beginning() {
        for (body, expected) in [
            ("\u{feff}{}", "the answer begins with a byte order mark: \"\\u{feff}{}\""),
            (
                "<br />\n<b>Warning</b>: x{}",
                "the answer does not begin with a JSON object: \"<br />\\n<b>Warning</b>: x{}\"",
            ),
            ("null", "the answer does not begin with a JSON object: \"null\""),
            ("[1]", "the answer is not a JSON object: \"[1]\""),
            ("[{}]", "the answer is not a JSON object: \"[{}]\""),
            (
                "{\"send\":\"a",
                "the answer cannot be read (EOF while parsing a string at line 1 column 10): \"{\\\"send\\\":\\\"a\"",
            ),
            ("{} x", "the answer cannot be read (trailing characters at line 1 column 4): \"{} x\""),
            (
                "{\"a\":1e999}",
                "the answer cannot be read (number out of range at line 1 column 10): \"{\\\"a\\\":1e999}\"",
            ),
            (
                "{\"a\":\"\u{202e}\u{1b}\u{7f}é\"",
                "the answer cannot be read (control character (\\u0000-\\u001F) found while parsing a string at line 1 column 10): \"{\\\"a\\\":\\\"\\u{202e}\\u{1b}\\u{7f}é\\\"\"",
            ),
        ] {
            assert_eq!(error(body), expected, "{body}");
        }
        assert!(
            error(r#"{"publish":[{"channel":"a","data":{"a":"\ud83d"}}]}"#).starts_with("the answer cannot be read")
        );
        let nested = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read_as(OPEN, &nested(32)).is_ok());
        assert!(error(&nested(33)).contains("nested more than 32 levels deep"));
        assert!(error(&format!("{{\"x\":{}", "[".repeat(1 << 20))).contains("nested more than 32 levels deep"));
    }

    #[test]
    fn at_most_200_bytes_are_quoted_and_no_part_of_a_character() {
        for (body, quoted) in [
            ("x".repeat(199), "x".repeat(199)),
            ("x".repeat(201), "x".repeat(200)),
            (format!("{}é", "x".repeat(199)), "x".repeat(199)),
            (format!("{}éx", "x".repeat(198)), format!("{}é", "x".repeat(198))),
        ] {
            let end = if body.len() < 200 { "" } else { "…" };
            assert_eq!(error(&body), format!("the answer does not begin with a JSON object: \"{quoted}\"{end}"));
        }
        let response = Response { status: 200, content_type: Some("application/json"), body: b"{\"\xff" };
        let error = read(&response, OPEN, &Limits::default()).expect_err("not UTF-8").to_string();
        assert!(error.ends_with(": \"{\\\"\u{fffd}\""), "{error}");
    }

    #[test]
    fn the_content_type_must_be_json() {
        for (content_type, is_json) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=UTF-8"), true),
            (Some(" text/json ;x=y"), true),
            (Some("application/vnd.taut+json"), true),
            (Some("text/html; charset=UTF-8"), false),
            (Some("application/json-seq"), false),
            (Some("application/jsonp"), false),
            (Some("+json"), false),
            (Some("x; a=application/json"), false),
            (Some(""), false),
            (None, false),
        ] {
            let response = Response { status: 200, content_type, body: b"{}" };
            assert_eq!(read(&response, OPEN, &Limits::default()).is_ok(), is_json, "{content_type:?}");
        }
        let html = |content_type| Response { status: 200, content_type, body: b"<html>\n" };
        let error = |content_type| read(&html(content_type), OPEN, &Limits::default()).expect_err("HTML").to_string();
        assert_eq!(error(Some("text/html")), "the answer is \"text/html\" and not JSON: \"<html>\\n\"");
        assert_eq!(error(None), "the answer has no content type: \"<html>\\n\"");
    }

    #[test]
    fn unknown_fields_are_warnings() {
        let body = r#"{"sned":1,"user":{"id":"a","x":1},"subscribe":[{"channel":"a","x":1}],"send":["",{"json":1,"x":1}],
            "publish":[{"channel":"a","data":1,"socket_id":1}],"unsubscribe":[{"channel":"a","info":1}],
            "close":{"code":1000,"\n":1}}"#;
        let (answer, warnings) = read_as(OPEN, body).expect("an answer");
        let without = r#"{"user":"a","subscribe":["a"],"send":["","1"],"publish":[{"channel":"a","data":1}],
            "unsubscribe":["a"],"close":1000}"#;
        assert_eq!(answer, self::answer(without));
        let warnings: Vec<&str> = warnings.iter().map(|warning| &**warning).collect();
        assert_eq!(
            warnings,
            [
                "user has the unknown field \"x\"",
                "subscribe[0] has the unknown field \"x\"",
                "send[1] has the unknown field \"x\"",
                "publish[0] has the unknown field \"socket_id\"",
                "unsubscribe[0] has the unknown field \"info\"",
                "close has the unknown field \"\\n\"",
                "the answer has the unknown field \"sned\"",
            ]
        );
    }

    #[test]
    fn warnings_are_few_and_short() {
        let fields: Vec<_> = (0..1000).map(|number| format!("\"{number}{}\":0", "é".repeat(100))).collect();
        let (_, warnings) = read_as(OPEN, &format!("{{{}}}", fields.join(","))).expect("an answer");
        assert_eq!(warnings.len(), 10);
        assert_eq!(&*warnings[9], format!("the answer has the unknown field \"9{}\"", "é".repeat(63)));
    }

    #[test]
    fn what_belongs_to_the_handshake_counts_at_open_only() {
        let body = r#"{"protocol":7,"headers":{"X-A":"a"},"send":"a"}"#;
        let (answer, warnings) = read_as(AnswerTo::Event, body).expect("an answer");
        assert_eq!(answer, Answer { send: vec![text("a")], ..Answer::default() });
        let warnings: Vec<&str> = warnings.iter().map(|warning| &**warning).collect();
        assert_eq!(
            warnings,
            [
                "the answer has \"protocol\", which only the answer to open may have",
                "the answer has \"headers\", which only the answer to open may have",
            ]
        );
        assert!(
            read_as(AnswerTo::Open { protocols: &[], is_empty_enough: false }, r#"{"protocol":"chat.v1"}"#).is_err()
        );
    }

    #[test]
    fn each_limit_is_the_most_that_is_taken() {
        /// With so many.
        type Body<'a> = &'a dyn Fn(usize) -> String;
        let list = |item: &str, count| vec![item; count].join(",");
        let x = |count| "x".repeat(count);
        let cases: [(Body<'_>, usize, &str); 13] = [
            (&|n| format!(r#"{{"send":[{}]}}"#, list("\"\"", n)), 1000, "send has more than 1000 items"),
            (
                &|n| format!(r#"{{"publish":[{}]}}"#, list(r#"{"user":1,"data":1}"#, n)),
                100,
                "publish has more than 100 items",
            ),
            (&|n| format!(r#"{{"subscribe":[{}]}}"#, list("\"a\"", n)), 100, "subscribe has more than 100 items"),
            (&|n| format!(r#"{{"unsubscribe":[{}]}}"#, list("\"a\"", n)), 100, "unsubscribe has more than 100 items"),
            (&|n| format!(r#"{{"meta":{{ "a": "{}" }}}}"#, x(n - 8)), 4096, "meta has more than 4096 bytes"),
            (
                &|n| format!(r#"{{"publish":[{{"user":1,"data":"{}"}}]}}"#, x(n)),
                102_400,
                "publish[0].data has more than 102400 bytes",
            ),
            (
                &|n| format!(r#"{{"publish":[{{"user":1,"data":[ "{}" ]}}]}}"#, x(n - 4)),
                102_400,
                "publish[0].data has more than 102400 bytes",
            ),
            (
                &|n| format!(r#"{{"publish":[{{"user":1,"data":1,"event":"{}"}}]}}"#, "é".repeat(n)),
                200,
                "publish[0].event must have 1 to 200 characters",
            ),
            (&|n| format!(r#"{{"user":"{}"}}"#, x(n)), 128, "user has an id of more than 128 characters"),
            (&|n| format!(r#"{{"user":{{"id":"ab","info":"{}"}}}}"#, x(n - 4)), 4096, "user has more than 4096 bytes"),
            (
                &|n| format!(r#"{{"close":{{"code":1000,"reason":"é{}"}}}}"#, x(n - 2)),
                123,
                "close.reason has more than 123 bytes",
            ),
            (
                &|n| format!(r#"{{"headers":{{"X-A":[{}]}}}}"#, list("\"\"", n)),
                32,
                "headers has more than 32 values or 8192 bytes",
            ),
            (
                &|n| format!(r#"{{"headers":{{"X-A":"{}"}}}}"#, x(n - 3)),
                8192,
                "headers has more than 32 values or 8192 bytes",
            ),
        ];
        for (body, most, expected) in cases {
            answer(&body(most));
            assert_eq!(error(&body(most + 1)), expected);
        }
    }

    #[test]
    fn data_is_a_text_as_it_is_or_json_as_it_was_written() {
        for (data, expected) in [
            (r#""a\n\u00e9""#, "a\né"),
            (r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#"{ "b" : 1.0, "a" : [ "x y" ] }"#, r#"{"b":1.0,"a":["x y"]}"#),
            ("12345678901234567890123", "12345678901234567890123"),
            ("[]", "[]"),
            ("false", "false"),
        ] {
            let body = format!(r#"{{"publish":[{{"channel":"c","data":{data}}}]}}"#);
            assert_eq!(answer(&body).publish, [to_channel("c", "message", expected)]);
        }
    }

    /// Answers that are right but for a place or two.
    fn nearly() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!("self")),
            Just(json!("AP8=")),
            (-5i64..6000).prop_map(|number| json!(number)),
            any::<f64>().prop_map(|number| json!(number)),
            any::<String>().prop_map(|text| json!(text)),
        ];
        let name = || {
            prop::sample::select(vec![
                "user",
                "id",
                "info",
                "meta",
                "send",
                "json",
                "binary",
                "publish",
                "channel",
                "connection",
                "event",
                "data",
                "except",
                "subscribe",
                "unsubscribe",
                "timer",
                "close",
                "code",
                "reason",
                "protocol",
                "headers",
                "X-A",
                "z",
            ])
        };
        leaf.prop_recursive(4, 40, 6, move |within| {
            prop_oneof![
                prop::collection::vec(within.clone(), 0..3).prop_map(|values| json!(values)),
                prop::collection::btree_map(name(), within, 0..6).prop_map(|fields| json!(fields)),
            ]
        })
        .prop_map(|value| value.to_string())
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, body in nearly(), cut in any::<prop::sample::Index>(), byte: u8) {
            let _ = read_as(AnswerTo::Event, &body);
            let mut broken = body.into_bytes();
            let index = cut.index(broken.len());
            for body in [&bytes[..], &broken[..index]] {
                let _ = read(&Response { status: 200, content_type: Some("a/b+json"), body }, OPEN, &Limits::default());
            }
            broken[index] = byte;
            let response = Response { status: 200, content_type: Some("text/json"), body: &broken };
            if let Err(error) = read(&response, OPEN, &Limits::default()) {
                let text = error.to_string();
                prop_assert!(!text.contains(char::is_control) && text.len() < 3000, "{}", text);
            }
        }

        #[test]
        fn messages_and_data_arrive_as_they_are(
            texts in prop::collection::vec(any::<String>(), 0..4),
            bytes in any::<Vec<u8>>(),
            data in any::<String>(),
        ) {
            let mut send: Vec<_> = texts.iter().map(|text| json!(text)).collect();
            send.push(json!({"binary": BASE64.encode(&bytes)}));
            let publish = json!([{"channel": "c", "data": data}, {"channel": "c", "data": {"a": data}}]);
            let (answer, _) = read_as(AnswerTo::Event, &json!({"send": send, "publish": publish}).to_string()).expect("an answer");
            let mut expected: Vec<_> = texts.iter().map(|text| self::text(text)).collect();
            expected.push(Message::Binary(bytes.into()));
            prop_assert_eq!(answer.send, expected);
            prop_assert_eq!(&*answer.publish[0].data, &*data);
            prop_assert_eq!(&*answer.publish[1].data, &*json!({"a": data}).to_string());
        }
    }
}
