//! HTTP responses that a backend wants held open: `Grip-*` headers, or a JSON body of the type
//! `application/grip-instruct`.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::control::{Filters, KEEP_ALIVE, Mode};
use super::headers::{Header, is_name, is_value, strip_prefix_ignore_case};
use super::json::{Fields, decode_base64};
use super::parameters::{Parameters, is_media_type, list};
use super::publish;

/// The backend's instructions, and the response that the client gets first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruct<'a> {
    /// `None`: the response is complete, unless it `has_next`.
    pub(crate) hold: Option<Hold>,
    pub(crate) channels: Vec<Channel>,
    /// What a stream gets so that proxies do not end it.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Metadata of the subscriptions, for filters.
    pub(crate) meta: Vec<(String, String)>,
    /// A `Grip-Link` says where the response continues.
    pub(crate) has_next: bool,
    pub(crate) response: Response<'a>,
}

/// How long a response is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Long polling: until something is published.
    Response,
    /// Until the client or a publisher ends it.
    Stream,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channel {
    /// Not empty; otherwise not checked yet.
    pub(crate) name: String,
    pub(crate) filters: Filters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    pub(crate) content: Vec<u8>,
    pub(crate) seconds: u32,
    pub(crate) mode: Mode,
}

/// The beginning of the response, without the headers that are for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Cow<'a, [u8]>,
}

/// Why an answer's instructions are refused, for the log. The client gets a 502.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadInstruct(String);

impl From<String> for BadInstruct {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}

impl From<&str> for BadInstruct {
    fn from(sentence: &str) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for BadInstruct {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BadInstruct {}

impl<'a> Instruct<'a> {
    /// Reads the instructions of an answer; `None` if it is an ordinary response.
    pub(crate) fn read(status: u16, headers: &[Header<'a>], body: &'a [u8]) -> Result<Option<Self>, BadInstruct> {
        let is_json = find(headers, "Content-Type").is_some_and(|it| is_media_type(it, MEDIA_TYPE));
        if !is_json && !headers.iter().any(|(name, _)| strip_prefix_ignore_case(name, PREFIX).is_some()) {
            return Ok(None);
        }
        let mut instruct = Self::of_headers(status, headers, body)?;
        if is_json {
            instruct.take_json(status, body)?;
        }
        Ok(Some(instruct))
    }

    fn of_headers(status: u16, headers: &[Header<'a>], body: &'a [u8]) -> Result<Self, BadInstruct> {
        let grip = Grip(headers);
        let hold = grip.text("Grip-Hold")?.map(|mode| hold("Grip-Hold", mode)).transpose()?;
        let channels = grip.elements("Grip-Channel")?.into_iter().map(Channel::of_header);
        let keep_alive = grip.text("Grip-Keep-Alive")?.map(KeepAlive::of_header).transpose()?;
        let meta = grip.elements("Grip-Set-Meta")?.into_iter().map(meta_of_header);
        Ok(Self {
            hold,
            channels: channels.collect::<Result<_, _>>()?,
            keep_alive,
            meta: meta.collect::<Result<_, _>>()?,
            has_next: has_next(&grip)?,
            response: Response::of_headers(status, &grip, body)?,
        })
    }

    /// The body's instructions win over those of the headers, as in Pushpin.
    fn take_json(&mut self, status: u16, body: &[u8]) -> Result<(), BadInstruct> {
        if status != 200 {
            return Err(format!("the status of {MEDIA_TYPE} must be 200").into());
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| format!("{MEDIA_TYPE} is not JSON"))?;
        let fields = Fields::of("instruct", &value)?;
        if let Some(value) = fields.value("hold") {
            self.take_hold(Fields::of("hold", value)?)?;
        }
        self.response = Response::of_json(fields.value("response"), self.response.status)?;
        Ok(())
    }

    fn take_hold(&mut self, fields: Fields<'_>) -> Result<(), BadInstruct> {
        let channels = fields.list("channels")?.ok_or_else(|| fields.missing("channels"))?;
        self.hold = Some(hold("hold 'mode'", fields.text("mode")?.unwrap_or("response"))?);
        for channel in channels {
            self.channels.push(Channel::of_json(Fields::of("channel", channel)?)?);
        }
        if let Some(value) = fields.value("keep-alive") {
            self.keep_alive = KeepAlive::of_json(Fields::of("keep-alive", value)?)?;
        }
        self.meta.extend(fields.dictionary("meta")?);
        Ok(())
    }
}

impl Channel {
    fn of_header(text: &str) -> Result<Self, BadInstruct> {
        let channel =
            Parameters::parse(text).filter(|it| !it.value.is_empty()).ok_or("failed to parse Grip-Channel")?;
        Ok(Self { name: channel.value.into(), filters: Filters::of(channel.all("filter")) })
    }

    fn of_json(fields: Fields<'_>) -> Result<Self, BadInstruct> {
        Ok(Self { name: fields.required_text("name")?.into(), filters: Filters::of(fields.texts("filters")?) })
    }
}

impl KeepAlive {
    fn of_header(text: &str) -> Result<Self, BadInstruct> {
        let keep_alive = Parameters::parse(text).ok_or("failed to parse Grip-Keep-Alive")?;
        if keep_alive.value.is_empty() {
            return Err("Grip-Keep-Alive cannot be empty".into());
        }
        let content = match keep_alive.get("format").unwrap_or("raw") {
            "" | "raw" => keep_alive.value.as_bytes().to_vec(),
            "cstring" => unescape(keep_alive.value).ok_or("failed to parse Grip-Keep-Alive cstring format")?,
            "base64" => decode_base64(keep_alive.value).ok_or("failed to parse Grip-Keep-Alive base64 format")?,
            _ => return Err("no such Grip-Keep-Alive format".into()),
        };
        let mode = match keep_alive.get("mode").unwrap_or_default() {
            "" | "idle" => Mode::Idle,
            "interval" => Mode::Interval,
            _ => return Err("no such Grip-Keep-Alive mode".into()),
        };
        let timeout = keep_alive.get("timeout").map(|text| number(text, "Grip-Keep-Alive timeout")).transpose()?;
        Ok(Self { content, seconds: timeout.unwrap_or(KEEP_ALIVE).max(1), mode })
    }

    /// `None` without content.
    fn of_json(fields: Fields<'_>) -> Result<Option<Self>, BadInstruct> {
        let Some(content) = fields.content("content")? else { return Ok(None) };
        let mode = match fields.text("mode")?.unwrap_or("idle") {
            "idle" => Mode::Idle,
            "interval" => Mode::Interval,
            _ => return Err(fields.unknown("mode").into()),
        };
        let seconds = fields.seconds("timeout")?.unwrap_or(KEEP_ALIVE).max(1);
        Ok(Some(Self { content: content.bytes, seconds, mode }))
    }
}

impl<'a> Response<'a> {
    fn of_headers(status: u16, grip: &Grip<'_, 'a>, body: &'a [u8]) -> Result<Self, BadInstruct> {
        let status = grip.text("Grip-Status")?.map_or(Ok(status), grip_status)?;
        let exposed = grip.elements("Grip-Expose-Headers")?;
        let is_exposed = |name: &str| exposed.is_empty() || exposed.iter().any(|it| it.eq_ignore_ascii_case(name));
        let headers = grip.0.iter().filter(|(name, value)| is_for_client(name) && is_exposed(name) && is_value(value));
        let headers = headers.map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Ok(Self { status, headers, body: Cow::Borrowed(body) })
    }

    /// The headers of the HTTP response that carried the JSON are not for the client.
    fn of_json(value: Option<&Value>, status: u16) -> Result<Self, BadInstruct> {
        let mut response = Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]) };
        let Some(value) = value else { return Ok(response) };
        let fields = Fields::of("response", value)?;
        response.status = publish::status(fields)?.unwrap_or(status);
        for (name, value) in fields.pairs("headers")? {
            if !is_name(&name) || !is_value(value.as_bytes()) {
                return Err(fields.invalid("headers").into());
            }
            if is_for_client(&name) {
                response.headers.push((name, value.into_bytes()));
            }
        }
        if let Some(body) = fields.content("body")? {
            response.body = Cow::Owned(body.bytes);
        }
        Ok(response)
    }
}

/// An answer's headers.
struct Grip<'h, 'a>(&'h [Header<'a>]);

impl<'a> Grip<'_, 'a> {
    /// The first value of this name.
    fn text(&self, name: &str) -> Result<Option<&'a str>, BadInstruct> {
        find(self.0, name).map(|value| utf8(value, name)).transpose()
    }

    /// The elements of all values of this name.
    fn elements(&self, name: &str) -> Result<Vec<&'a str>, BadInstruct> {
        let mut elements = Vec::new();
        for (_, value) in self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
            elements.extend(list(utf8(value, name)?));
        }
        Ok(elements)
    }
}

fn find<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn utf8<'a>(value: &'a [u8], name: &str) -> Result<&'a str, BadInstruct> {
    std::str::from_utf8(value).map_err(|_| format!("{name} is not UTF-8").into())
}

/// Framing headers belong to the backend's connection, `Grip-*` are for us, and what the backend runs is nobody's.
pub(crate) fn is_for_client(name: &str) -> bool {
    let is_kept_back = KEPT_BACK.iter().any(|known| name.eq_ignore_ascii_case(known));
    !is_kept_back && strip_prefix_ignore_case(name, PREFIX).is_none()
}

fn hold(what: &str, mode: &str) -> Result<Hold, BadInstruct> {
    match mode.trim() {
        "response" => Ok(Hold::Response),
        "stream" => Ok(Hold::Stream),
        _ => Err(format!("{what} must be set to either 'response' or 'stream'").into()),
    }
}

fn has_next(grip: &Grip<'_, '_>) -> Result<bool, BadInstruct> {
    let mut has_next = false;
    for text in grip.elements("Grip-Link")? {
        let link = Parameters::parse(text).ok_or("failed to parse Grip-Link")?;
        has_next |= link.get("rel") == Some("next");
    }
    Ok(has_next)
}

fn meta_of_header(text: &str) -> Result<(String, String), BadInstruct> {
    let (name, value) = Parameters::parse_pair(text).ok_or("failed to parse Grip-Set-Meta")?;
    Ok((name.into(), value.into_owned()))
}

/// The code alone: a reason behind it is what HTTP/2 has no place for (RFC 9113 §8.3.2).
fn grip_status(text: &str) -> Result<u16, BadInstruct> {
    let code = text.split_whitespace().next().and_then(|code| code.parse().ok());
    Ok(code.filter(|code| (200..=999).contains(code)).ok_or("Grip-Status contains invalid status code")?)
}

/// Digits and nothing else: `parse` would take a sign.
fn number(text: &str, name: &str) -> Result<u32, BadInstruct> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(digits.parse().unwrap_or(u32::MAX)) } else { Err(format!("{name} is not a number").into()) }
}

/// Reads the escapes of C that a keep-alive may have. `\t` is not in Pushpin's list, but the JavaScript library writes
/// it.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'\\' => b'\\',
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            _ => return None,
        });
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

const MEDIA_TYPE: &str = "application/grip-instruct";

const PREFIX: &str = "Grip-";

const KEPT_BACK: &[&str] = &[
    "Connection",
    "Content-Length",
    "Date",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Connection",
    "Server",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "X-Powered-By",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::arbitrary::any_json;
    use super::*;

    const WORDS: &[&str] = &[
        "hold",
        "mode",
        "stream",
        "response",
        "channels",
        "name",
        "prev-id",
        "filters",
        "timeout",
        "keep-alive",
        "content",
        "content-bin",
        "interval",
        "meta",
        "code",
        "reason",
        "headers",
        "body",
        "body-bin",
    ];

    fn read<'a>(headers: &[(&'a str, &'a str)], body: &'a str) -> Result<Option<Instruct<'a>>, BadInstruct> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Instruct::read(200, &headers, body.as_bytes())
    }

    fn instruct<'a>(headers: &[(&'a str, &'a str)], body: &'a str) -> Instruct<'a> {
        read(headers, body).expect("instructions").expect("a hold")
    }

    fn json(body: &str) -> Result<Instruct<'_>, BadInstruct> {
        read(&[("Content-Type", "application/grip-instruct")], body).map(|it| it.expect("instructions"))
    }

    fn channel(name: &str) -> Channel {
        Channel { name: name.into(), ..Channel::default() }
    }

    fn keep_alive(header: &str) -> Result<KeepAlive, BadInstruct> {
        KeepAlive::of_header(header)
    }

    #[test]
    fn the_recorded_stream_is_held() {
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Grip-Hold", "stream"),
            ("Grip-Channel", "room"),
            ("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=2"),
            ("Cache-Control", "no-cache"),
            ("Content-Length", "27"),
        ];
        let body = "event: stream-open\ndata:\n\n";
        let expected = Instruct {
            hold: Some(Hold::Stream),
            channels: vec![channel("room")],
            keep_alive: Some(KeepAlive { content: b":\n\n".to_vec(), seconds: 2, mode: Mode::Idle }),
            meta: Vec::new(),
            has_next: false,
            response: Response {
                status: 200,
                headers: vec![
                    ("Content-Type".into(), b"text/event-stream".to_vec()),
                    ("Cache-Control".into(), b"no-cache".to_vec()),
                ],
                body: Cow::Borrowed(body.as_bytes()),
            },
        };
        assert_eq!(instruct(&headers, body), expected, "§6");
    }

    #[test]
    fn the_recorded_json_is_held() {
        let body = r#"{"hold":{"mode":"stream","channels":[{"name":"room"}]},"response":{"headers":
            {"Content-Type":"text/event-stream","Content-Length":"3"},"body":"hi\n"}}"#;
        let read = json(body).expect("instructions");
        assert_eq!((read.hold, read.channels), (Some(Hold::Stream), vec![channel("room")]), "§6");
        let response = Response {
            status: 200,
            headers: vec![("Content-Type".into(), b"text/event-stream".to_vec())],
            body: Cow::Borrowed(b"hi\n"),
        };
        assert_eq!(read.response, response);

        let read = json(
            r#"{"hold":{"channels":[{"name":"a","prev-id":"5","filters":["skip-self"]}],"timeout":1,
            "keep-alive":{"content-bin":"AP8=","timeout":0,"mode":"interval"},"meta":{"user":"7"}},
            "response":{"code":201,"reason":"Made","headers":[["A","1"],["Grip-B","2"]],"body-bin":"AP8="}}"#,
        );
        let read = read.expect("instructions");
        assert_eq!(read.hold, Some(Hold::Response));
        assert!(read.channels[0].filters.skip_self);
        let expected = KeepAlive { content: vec![0, 255], seconds: 1, mode: Mode::Interval };
        assert_eq!(read.keep_alive, Some(expected));
        assert_eq!(read.meta, [("user".into(), "7".into())]);
        assert_eq!(read.response.status, 201);
        assert_eq!(read.response.headers, [("A".into(), b"1".to_vec())]);
        assert_eq!(&*read.response.body, &[0, 255]);
    }

    #[test]
    fn an_answer_without_instructions_is_a_response_like_any_other() {
        assert_eq!(read(&[("Content-Type", "text/html"), ("X-Grip", "1")], "<p>"), Ok(None));
        let read = instruct(&[("Grip-Status", "304 Not Modified")], "");
        assert_eq!((read.hold, read.response.status), (None, 304));
    }

    #[test]
    fn channels_come_in_lists_and_lines_with_their_parameters() {
        let headers =
            [("Grip-Channel", "a; prev-id=5; filter=skip-users; filter=x, b"), ("grip-channel", "c;prev-id=\"6\"")];
        let read = instruct(&headers, "");
        let filters = Filters { skip_users: true, unknown: vec!["x".into()], ..Filters::default() };
        let first = Channel { name: "a".into(), filters };
        assert_eq!(read.channels, [first, channel("b"), channel("c")]);
    }

    #[test]
    fn the_other_headers_are_read() {
        let headers = [
            ("Grip-Hold", "response"),
            ("Grip-Set-Meta", r#"user="a, \"b\"", room=1"#),
            ("Grip-Link", "</next?a=1>; rel=next; timeout=30, </gone>; rel=gone, </x>; rel=x"),
            ("Grip-Expose-Headers", "x-one"),
            ("X-One", "1"),
            ("X-Two", "2"),
        ];
        let read = instruct(&headers, "");
        assert_eq!(read.hold, Some(Hold::Response));
        assert_eq!(read.meta, [("user".into(), "a, \"b\"".into()), ("room".into(), "1".into())]);
        assert!(read.has_next);
        assert_eq!(read.response.headers, [("X-One".into(), b"1".to_vec())]);
        assert!(!instruct(&[("Grip-Link", "</gone>; rel=gone")], "").has_next);
    }

    #[test]
    fn keep_alives_have_three_formats() {
        let read = |header| keep_alive(header).map(|it| (it.content, it.seconds, it.mode));
        assert_eq!(read("x"), Ok((b"x".to_vec(), 55, Mode::Idle)));
        assert_eq!(read(r"a\n;format=raw;mode=interval"), Ok((br"a\n".to_vec(), 55, Mode::Interval)));
        assert_eq!(
            read(r"\\\r\n\t\x00\xfF; format=cstring; timeout=0"),
            Ok((b"\\\r\n\t\x00\xff".to_vec(), 1, Mode::Idle))
        );
        assert_eq!(read("AP8=; format=base64; timeout=20"), Ok((vec![0, 255], 20, Mode::Idle)));
        for header in
            ["", "; timeout=5", r"\q; format=cstring", r"\; format=cstring", r"\x0; format=cstring", "%; format=base64"]
        {
            assert!(read(header).is_err(), "{header}");
        }
        for header in ["a; format=x", "a; mode=x", "a; timeout=x", "a; timeout=-1", "a; timeout=+1", "a; timeout=NaN"] {
            assert!(read(header).is_err(), "{header}");
        }
    }

    #[test]
    fn what_cannot_be_followed_says_why() {
        for (name, value, sentence) in [
            ("Grip-Hold", "forever", "Grip-Hold must be set to either 'response' or 'stream'"),
            ("Grip-Channel", "; prev-id=1", "failed to parse Grip-Channel"),
            ("Grip-Channel", "a; prev-id=\"1", "failed to parse Grip-Channel"),
            ("Grip-Keep-Alive", "a; format=x", "no such Grip-Keep-Alive format"),
            ("Grip-Link", "</next>; rel=\"next", "failed to parse Grip-Link"),
            ("Grip-Status", "99", "Grip-Status contains invalid status code"),
        ] {
            assert_eq!(read(&[(name, value)], ""), Err(sentence.into()), "{name}: {value}");
        }
        let bytes = Instruct::read(200, &[("Grip-Channel", b"\xff")], b"");
        assert_eq!(bytes, Err("Grip-Channel is not UTF-8".into()));
        for (body, sentence) in [
            ("x", "application/grip-instruct is not JSON"),
            ("[]", "instruct is not an object"),
            (r#"{"hold":7}"#, "hold is not an object"),
            (r#"{"hold":{}}"#, "hold does not contain 'channels'"),
            (r#"{"hold":{"mode":"x","channels":[]}}"#, "hold 'mode' must be set to either 'response' or 'stream'"),
            (r#"{"hold":{"channels":[{}]}}"#, "channel does not contain 'name'"),
            (r#"{"hold":{"channels":[],"meta":{"a":1}}}"#, "'meta' contains 'a' with wrong type"),
            (r#"{"response":{"headers":{"a":"b\r\nc"}}}"#, "response contains 'headers' with invalid value"),
            (r#"{"response":{"code":0}}"#, "response contains 'code' with invalid value"),
        ] {
            assert_eq!(json(body), Err(sentence.into()), "{body}");
        }
        let accepted = Instruct::read(201, &[("Content-Type", b"application/grip-instruct")], b"{}");
        assert_eq!(accepted, Err("the status of application/grip-instruct must be 200".into()));
    }

    proptest! {
        #[test]
        fn a_c_string_reads_back(content: Vec<u8>) {
            let escaped: Vec<_> = content.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(unescape(&escaped.concat()), Some(content));
        }

        #[test]
        fn no_fields_make_the_reader_panic(value in any_json(WORDS)) {
            for body in [serde_json::json!({ "hold": value, "response": {} }), value] {
                if let Ok(read) = json(&body.to_string()) {
                    prop_assert!(read.channels.iter().all(|channel| !channel.name.is_empty()));
                    prop_assert!((200..1000).contains(&read.response.status));
                }
            }
        }

        #[test]
        fn nothing_makes_the_reader_panic(values: Vec<(u8, Vec<u8>)>, body: Vec<u8>, text: String) {
            let names = ["Grip-Hold", "Grip-Channel", "Grip-Keep-Alive", "Grip-Link", "Grip-Set-Meta", "Grip-Status"];
            let headers: Vec<_> =
                values.iter().map(|(name, value)| (names[usize::from(*name) % names.len()], &**value)).collect();
            let _ = Instruct::read(200, &headers, &body);
            let _ = Instruct::read(200, &[("Content-Type", MEDIA_TYPE.as_bytes())], &body);
            for name in names {
                let _ = Instruct::read(200, &[(name, text.as_bytes())], b"");
            }
        }
    }
}
