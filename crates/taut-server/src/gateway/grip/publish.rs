//! The body of `/publish`: items for channels, each with a format per transport.

use std::fmt;

use serde_json::Value;

use super::control::{Message, message_kind};
use super::events::{self, Kind};
use super::headers::{is_name, is_value};
use super::json::{Content, Fields};

/// What may be published at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: usize,
    /// Bytes of one content or body.
    pub(crate) content: usize,
    /// Bytes of an id.
    pub(crate) id: usize,
    /// Bytes of an item's meta, and of a response's headers.
    pub(crate) meta: usize,
}

/// An item to publish, with at least one format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// Not empty; otherwise not checked yet.
    pub(crate) channel: String,
    /// An id that was seen before is dropped.
    pub(crate) id: Option<String>,
    /// The id of the item before it.
    pub(crate) prev_id: Option<String>,
    pub(crate) ws_message: Option<WsMessage>,
    pub(crate) http_stream: Option<HttpStream>,
    pub(crate) http_response: Option<HttpResponse>,
    /// For filters, in the order of the names.
    pub(crate) meta: Vec<(String, String)>,
    /// It need not wait for the item before it.
    pub(crate) no_seq: bool,
}

/// The format `ws-message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WsMessage {
    Send {
        message: Message,
        /// Only subscriptions with the same content filters get the message. This server has none, so unless it is
        /// empty nobody gets it.
        content_filters: Vec<String>,
    },
    /// Close the connections. Without a code it is 1000.
    Close { code: Option<u16>, reason: String },
    /// Send an empty request for each WebSocket-over-HTTP connection.
    Refresh,
    /// Has no effect on WebSockets.
    Hint,
}

/// The format `http-stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpStream {
    Send {
        content: Vec<u8>,
        /// As in [`WsMessage::Send`].
        content_filters: Vec<String>,
    },
    /// End the response.
    Close,
    /// Ask the backend what is new.
    Hint,
}

/// The format `http-response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpResponse {
    Send {
        code: u16,
        /// `None` is the usual one.
        reason: Option<String>,
        headers: Vec<(String, String)>,
        body: Body,
        /// As in [`WsMessage::Send`].
        content_filters: Vec<String>,
    },
    /// Ask the backend what is new.
    Hint,
}

/// The body of an [`HttpResponse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Whole(Vec<u8>),
    /// A JSON patch for the body of the held response, not checked yet.
    Patch(Vec<Value>),
}

/// Why nothing is published. `Display` is the response's body without its final line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// 400.
    NotJson,
    /// 400.
    Format(String),
    /// 413.
    TooLarge(String),
}

impl PublishError {
    /// The response's status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::NotJson | Self::Format(_) => 400,
            Self::TooLarge(_) => 413,
        }
    }
}

impl From<String> for PublishError {
    fn from(sentence: String) -> Self {
        Self::Format(sentence)
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => formatter.write_str("Body is not valid JSON."),
            Self::Format(sentence) => write!(formatter, "Invalid format: {sentence}"),
            Self::TooLarge(sentence) => write!(formatter, "Too large: {sentence}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Reads the items of a body, all or none.
pub(crate) fn read(body: &[u8], limits: &Limits) -> Result<Vec<Item>, PublishError> {
    let value: Value = serde_json::from_slice(body).map_err(|_| PublishError::NotJson)?;
    let object = Fields::of("object", &value).map_err(|_| "the body is not an object".to_owned())?;
    let items = object.list("items")?.ok_or_else(|| object.missing("items"))?;
    if items.len() > limits.items {
        return Err(PublishError::TooLarge(format!("there are more than {} items", limits.items)));
    }
    items.iter().map(|item| Item::of(item, limits)).collect()
}

impl Item {
    fn of(value: &Value, limits: &Limits) -> Result<Self, PublishError> {
        let fields = Fields::of("publish item object", value)?;
        let mut item = Self {
            channel: fields.required_text("channel")?.into(),
            id: id(fields, "id", limits)?,
            prev_id: id(fields, "prev-id", limits)?,
            ..Self::default()
        };
        // Old publishers write the formats beside the channel.
        let formats = match fields.value("formats") {
            Some(formats @ Value::Object(_)) => Fields::of("formats", formats)?,
            Some(_) => return Err(fields.wrong_type("formats").into()),
            None => fields,
        };
        item.take_formats(formats, limits)?;
        item.meta = fields.dictionary("meta")?;
        within("an item's meta", pairs_len(&item.meta), limits.meta)?;
        item.no_seq = fields.flag("no-seq")?;
        Ok(item)
    }

    fn take_formats(&mut self, formats: Fields<'_>, limits: &Limits) -> Result<(), PublishError> {
        let format = |what, name| formats.value(name).map(|value| Fields::of(what, value)).transpose();
        if let Some(fields) = format("'http-response'", "http-response")? {
            self.http_response = Some(HttpResponse::of(fields, limits)?);
        }
        if let Some(fields) = format("'http-stream'", "http-stream")? {
            self.http_stream = Some(HttpStream::of(fields, limits)?);
        }
        if let Some(fields) = format("'ws-message'", "ws-message")? {
            self.ws_message = Some(WsMessage::of(fields, limits)?);
        }
        if self.http_response.is_none() && self.http_stream.is_none() && self.ws_message.is_none() {
            return Err(PublishError::Format("no formats specified".into()));
        }
        Ok(())
    }
}

impl WsMessage {
    fn of(fields: Fields<'_>, limits: &Limits) -> Result<Self, PublishError> {
        Ok(match fields.text("action")?.unwrap_or("send") {
            "send" => Self::send(fields, limits)?,
            "close" => Self::close(fields)?,
            "refresh" => Self::Refresh,
            "hint" => Self::Hint,
            _ => return Err(fields.unknown("action").into()),
        })
    }

    /// A text if the content is one and a binary message if it is base64, unless `type` says otherwise. Only pings and
    /// pongs may have no content.
    fn send(fields: Fields<'_>, limits: &Limits) -> Result<Self, PublishError> {
        let kind = message_kind(fields, "type")?;
        let content = match fields.content("content")? {
            Some(content) => content,
            None if kind.is_some_and(|kind| !kind.is_message()) => Content { bytes: Vec::new(), is_binary: false },
            None => return Err(without_content(fields)),
        };
        within("a content", content.bytes.len(), limits.content)?;
        let kind = kind.unwrap_or(if content.is_binary { Kind::Binary } else { Kind::Text });
        let content_filters = content_filters(fields)?;
        Ok(Self::Send { message: Message::new(kind, content, fields)?, content_filters })
    }

    fn close(fields: Fields<'_>) -> Result<Self, PublishError> {
        let code = match fields.integer("code")? {
            None | Some(0) => None,
            Some(code) => {
                let code = u16::try_from(code).ok().filter(|code| events::is_close_code(*code));
                Some(code.ok_or_else(|| fields.invalid("code"))?)
            }
        };
        Ok(Self::Close { code, reason: events::cut_reason(fields.text("reason")?.unwrap_or_default()).into() })
    }
}

impl HttpStream {
    fn of(fields: Fields<'_>, limits: &Limits) -> Result<Self, PublishError> {
        Ok(match fields.text("action")?.unwrap_or("send") {
            "send" => {
                let content = fields.content("content")?.ok_or_else(|| without_content(fields))?.bytes;
                within("a content", content.len(), limits.content)?;
                Self::Send { content, content_filters: content_filters(fields)? }
            }
            "close" => Self::Close,
            "hint" => Self::Hint,
            _ => return Err(fields.unknown("action").into()),
        })
    }
}

impl HttpResponse {
    fn of(fields: Fields<'_>, limits: &Limits) -> Result<Self, PublishError> {
        match fields.text("action")?.unwrap_or("send") {
            "send" => {}
            "hint" => return Ok(Self::Hint),
            _ => return Err(fields.unknown("action").into()),
        }
        Ok(Self::Send {
            code: status(fields)?.unwrap_or(200),
            reason: fields.text("reason")?.filter(|reason| !reason.is_empty()).map(Into::into),
            headers: response_headers(fields, limits)?,
            body: Body::of(fields, limits)?,
            content_filters: content_filters(fields)?,
        })
    }
}

impl Body {
    fn of(fields: Fields<'_>, limits: &Limits) -> Result<Self, PublishError> {
        if let Some(body) = fields.content("body")? {
            within("a body", body.bytes.len(), limits.content)?;
            return Ok(Self::Whole(body.bytes));
        }
        match fields.list("body-patch")? {
            Some(patch) => Ok(Self::Patch(patch.to_vec())),
            None => Err(format!("{}, 'body-bin', or 'body-patch'", fields.missing("body")).into()),
        }
    }
}

/// The status of a response in JSON.
pub(crate) fn status(fields: Fields<'_>) -> Result<Option<u16>, String> {
    let status = |code: i64| u16::try_from(code).ok().filter(|code| (200..=999).contains(code));
    fields.integer("code")?.map(|code| status(code).ok_or_else(|| fields.invalid("code"))).transpose()
}

fn response_headers(fields: Fields<'_>, limits: &Limits) -> Result<Vec<(String, String)>, PublishError> {
    let headers = fields.pairs("headers")?;
    within("a response's headers", pairs_len(&headers), limits.meta)?;
    let is_header = |(name, value): &(String, String)| is_name(name) && is_value(value.as_bytes());
    if headers.iter().all(is_header) { Ok(headers) } else { Err(fields.invalid("headers").into()) }
}

fn id(fields: Fields<'_>, name: &str, limits: &Limits) -> Result<Option<String>, PublishError> {
    let id = fields.text(name)?.filter(|id| !id.is_empty());
    within("an id", id.map_or(0, str::len), limits.id)?;
    Ok(id.map(Into::into))
}

fn content_filters(fields: Fields<'_>) -> Result<Vec<String>, PublishError> {
    Ok(fields.texts("content-filters")?.into_iter().map(Into::into).collect())
}

fn without_content(fields: Fields<'_>) -> PublishError {
    format!("{} or 'content-bin'", fields.missing("content")).into()
}

fn within(what: &str, length: usize, limit: usize) -> Result<(), PublishError> {
    if length <= limit { Ok(()) } else { Err(PublishError::TooLarge(format!("{what} has more than {limit} bytes"))) }
}

fn pairs_len(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::json::arbitrary::any_json;
    use super::*;

    const WORDS: &[&str] = &[
        "items",
        "channel",
        "id",
        "prev-id",
        "formats",
        "ws-message",
        "http-stream",
        "http-response",
        "meta",
        "content",
        "content-bin",
        "type",
        "action",
        "close",
        "refresh",
        "hint",
        "send",
        "code",
        "reason",
        "headers",
        "body",
        "body-bin",
        "body-patch",
        "content-filters",
        "no-seq",
        "text",
        "binary",
        "ping",
    ];

    const LIMITS: Limits = Limits { items: 10, content: 1000, id: 20, meta: 100 };

    fn items(body: &str) -> Vec<Item> {
        read(body.as_bytes(), &LIMITS).expect(body)
    }

    /// The only item, of this `ws-message`.
    fn ws_message(format: &str) -> WsMessage {
        let body = format!(r#"{{"items":[{{"channel":"room","formats":{{"ws-message":{format}}}}}]}}"#);
        items(&body).remove(0).ws_message.expect("a message")
    }

    fn refused(body: &str) -> String {
        read(body.as_bytes(), &LIMITS).expect_err(body).to_string()
    }

    fn sent(kind: Kind, content: &[u8]) -> WsMessage {
        WsMessage::Send { message: Message { kind, content: content.into() }, content_filters: Vec::new() }
    }

    #[test]
    fn the_recorded_bodies_are_read() {
        let expected = Item { channel: "room".into(), ws_message: Some(sent(Kind::Text, b"hello")), ..Item::default() };
        let body = r#"{"items":[{"channel":"room","formats":{"ws-message":{"content":"hello"}}}]}"#;
        assert_eq!(items(body), std::slice::from_ref(&expected));
        assert_eq!(items(r#"{"items":[{"channel":"room","ws-message":{"content":"hello"}}]}"#), [expected]);
        assert_eq!(items(r#"{"items":[]}"#), []);
    }

    #[test]
    fn the_recorded_effects_are_those_of_the_formats() {
        for (format, expected) in [
            (r#"{"content-bin":"AP+A"}"#, sent(Kind::Binary, b"\x00\xff\x80")),
            (r#"{"content":"x","content-bin":"AP+A"}"#, sent(Kind::Binary, b"\x00\xff\x80")),
            (r#"{"content-bin":"aMOp","type":"text"}"#, sent(Kind::Text, "hé".as_bytes())),
            (r#"{"content":"x","type":"binary","action":"send"}"#, sent(Kind::Binary, b"x")),
            (r#"{"type":"ping"}"#, sent(Kind::Ping, b"")),
            (r#"{"content":""}"#, sent(Kind::Text, b"")),
            (
                r#"{"action":"close","code":4123,"reason":"kicked"}"#,
                WsMessage::Close { code: Some(4123), reason: "kicked".into() },
            ),
            (r#"{"action":"close","code":0}"#, WsMessage::Close { code: None, reason: String::new() }),
            (r#"{"action":"close"}"#, WsMessage::Close { code: None, reason: String::new() }),
            (r#"{"action":"refresh"}"#, WsMessage::Refresh),
            (r#"{"action":"hint"}"#, WsMessage::Hint),
        ] {
            assert_eq!(ws_message(format), expected, "{format}");
        }
    }

    #[test]
    fn errors_have_the_recorded_sentences() {
        for (body, sentence) in [
            ("not json", "Body is not valid JSON."),
            ("", "Body is not valid JSON."),
            ("{}", "Invalid format: object does not contain 'items'"),
            (r#"{"items":[{}]}"#, "Invalid format: publish item object does not contain 'channel'"),
            (r#"{"items":[{"channel":"a"}]}"#, "Invalid format: no formats specified"),
            (
                r#"{"items":[{"channel":"a","formats":{"ws-message":{}}}]}"#,
                "Invalid format: 'ws-message' does not contain 'content' or 'content-bin'",
            ),
        ] {
            assert_eq!(refused(body), sentence);
            assert_eq!(read(body.as_bytes(), &LIMITS).map_err(|error| error.status()), Err(400));
        }
    }

    #[test]
    fn other_mistakes_are_named_in_the_same_words() {
        for (body, sentence) in [
            ("[]", "the body is not an object"),
            (r#"{"items":{}}"#, "object contains 'items' with wrong type"),
            (r#"{"items":[7]}"#, "publish item object is not an object"),
            (r#"{"items":[{"channel":7}]}"#, "publish item object contains 'channel' with wrong type"),
            (r#"{"items":[{"channel":""}]}"#, "publish item object contains 'channel' with invalid value"),
            (r#"{"items":[{"channel":"a","id":7}]}"#, "publish item object contains 'id' with wrong type"),
            (r#"{"items":[{"channel":"a","formats":[]}]}"#, "publish item object contains 'formats' with wrong type"),
            (r#"{"items":[{"channel":"a","formats":{}}]}"#, "no formats specified"),
            (r#"{"items":[{"channel":"a","formats":{"other":{}}}]}"#, "no formats specified"),
            (r#"{"items":[{"channel":"a","ws-message":7}]}"#, "'ws-message' is not an object"),
            (
                r#"{"items":[{"channel":"a","ws-message":{"content":7}}]}"#,
                "'ws-message' contains 'content' with wrong type",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"content":"","type":"close"}}]}"#,
                "'ws-message' contains 'type' with unknown value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"action":"x"}}]}"#,
                "'ws-message' contains 'action' with unknown value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"content-bin":"//4=","type":"text"}}]}"#,
                "'ws-message' contains 'content-bin' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"content-bin":"!"}}]}"#,
                "'ws-message' contains 'content-bin' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"action":"close","code":1005}}]}"#,
                "'ws-message' contains 'code' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"action":"close","code":70000}}]}"#,
                "'ws-message' contains 'code' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","http-stream":{}}]}"#,
                "'http-stream' does not contain 'content' or 'content-bin'",
            ),
            (
                r#"{"items":[{"channel":"a","http-stream":{"action":"refresh"}}]}"#,
                "'http-stream' contains 'action' with unknown value",
            ),
            (
                r#"{"items":[{"channel":"a","http-response":{}}]}"#,
                "'http-response' does not contain 'body', 'body-bin', or 'body-patch'",
            ),
            (
                r#"{"items":[{"channel":"a","http-response":{"body":"","headers":{"a":"x\ny"}}}]}"#,
                "'http-response' contains 'headers' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","http-response":{"body":"","headers":[["a"]]}}]}"#,
                "headers contains element with wrong type",
            ),
            (
                r#"{"items":[{"channel":"a","http-response":{"body":"","code":1000}}]}"#,
                "'http-response' contains 'code' with invalid value",
            ),
            (
                r#"{"items":[{"channel":"a","ws-message":{"content":""},"meta":{"b":7}}]}"#,
                "'meta' contains 'b' with wrong type",
            ),
        ] {
            assert_eq!(refused(body), format!("Invalid format: {sentence}"), "{body}");
        }
    }

    #[test]
    fn the_formats_for_http_are_read() {
        let body = r#"{"items":[{"channel":"a","id":"1","prev-id":"0","no-seq":true,"meta":{"sender":"7"},"formats":{
            "http-stream":{"content":"id: 8\ndata: hi\n\n","content-filters":["build-id"]},
            "http-response":{"code":"201","headers":{"Content-Type":"application/json"},"body":"{\"n\":1}\n"}}}]}"#;
        let item = items(body).remove(0);
        assert_eq!((item.id.as_deref(), item.prev_id.as_deref(), item.no_seq), (Some("1"), Some("0"), true));
        assert_eq!(item.meta, [("sender".to_owned(), "7".to_owned())]);
        let content = b"id: 8\ndata: hi\n\n".to_vec();
        assert_eq!(item.http_stream, Some(HttpStream::Send { content, content_filters: vec!["build-id".into()] }));
        let response = HttpResponse::Send {
            code: 201,
            reason: None,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: Body::Whole(b"{\"n\":1}\n".to_vec()),
            content_filters: Vec::new(),
        };
        assert_eq!(item.http_response, Some(response));

        let body = r#"{"items":[{"channel":"a","http-stream":{"action":"close","content":""},
            "http-response":{"action":"hint"}},
            {"channel":"a","http-response":{"body-patch":[{}],"headers":[["a","b"]]}}]}"#;
        let read = items(body);
        assert_eq!(read[0].http_stream, Some(HttpStream::Close));
        assert_eq!(read[0].http_response, Some(HttpResponse::Hint));
        let Some(HttpResponse::Send { code: 200, headers, body: Body::Patch(patch), .. }) = &read[1].http_response
        else {
            panic!("{read:?}")
        };
        assert_eq!((headers.len(), patch.len()), (1, 1));
    }

    #[test]
    fn limits_are_named() {
        let too_large = |value: Value, sentence: &str| {
            let error = read(value.to_string().as_bytes(), &LIMITS).expect_err(sentence);
            assert_eq!((error.status(), error.to_string()), (413, format!("Too large: {sentence}")));
        };
        let item = |format: Value| json!({ "items": [{ "channel": "a", "ws-message": format }] });
        let ten = vec![json!({ "channel": "a", "ws-message": { "content": "" } }); 10];
        assert_eq!(items(&json!({ "items": ten }).to_string()).len(), 10);
        too_large(json!({ "items": vec![0; 11] }), "there are more than 10 items");
        too_large(item(json!({ "content": "x".repeat(1001) })), "a content has more than 1000 bytes");
        too_large(
            json!({ "items": [{ "channel": "a", "id": "x".repeat(21), "ws-message": { "content": "" } }] }),
            "an id has more than 20 bytes",
        );
        too_large(
            json!({ "items": [{ "channel": "a", "meta": { "x": "y".repeat(100) }, "ws-message": { "content": "" } }] }),
            "an item's meta has more than 100 bytes",
        );
        assert_eq!(
            read(item(json!({ "content": "x".repeat(1000) })).to_string().as_bytes(), &LIMITS).map(|it| it.len()),
            Ok(1)
        );
    }

    proptest! {
        #[test]
        fn a_published_text_is_read_as_it_was_written(channel in ".+", content: String, id in "[!-~]{1,20}") {
            let formats = json!({ "ws-message": { "content": content } });
            let body = json!({ "items": [{ "channel": channel, "id": id, "formats": formats }] }).to_string();
            let expected = Item {
                channel,
                id: Some(id),
                ws_message: Some(sent(Kind::Text, content.as_bytes())),
                ..Item::default()
            };
            let limits = Limits { content: usize::MAX, ..LIMITS };
            prop_assert_eq!(read(body.as_bytes(), &limits), Ok(vec![expected]));
        }

        #[test]
        fn no_fields_make_the_reader_panic(value in any_json(WORDS)) {
            let item = json!({ "channel": "a", "formats": value });
            for body in [value.clone(), json!({ "items": [value] }), json!({ "items": [item] })] {
                for item in read(body.to_string().as_bytes(), &LIMITS).unwrap_or_default() {
                    prop_assert!(!item.channel.is_empty());
                    let formats = (&item.ws_message, &item.http_stream, &item.http_response);
                    prop_assert_ne!(formats, (&None, &None, &None));
                }
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, &LIMITS);
        }
    }
}
