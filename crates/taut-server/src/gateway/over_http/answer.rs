//! What the backend says: headers and events of a response, read as a whole before anything of it is done.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::gateway::event::{Acceptance, Answer, Close, Message, Step};
use crate::gateway::grip::control::{Control, Extension, Outgoing};
use crate::gateway::grip::events::{self, Closing, Event, Kind};
use crate::gateway::grip::headers::{self, Header, strip_prefix_ignore_case};

/// A response with a status of 2xx.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) body: &'a [u8],
}

/// What the response answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// OPEN, of a client that offers these subprotocols.
    Open {
        protocols: &'a [&'a str],
        /// Whether an empty answer lets the client in.
        is_empty_enough: bool,
    },
    /// What comes later. The backend may have turned GRIP on.
    Later(Option<&'a Extension>),
}

/// Reads a response; `meta` is what is kept of the connection. Beside the answer are sentences for the log about what
/// was left out; an error is one about why nothing of it is done.
pub(crate) fn read(
    response: &Response<'_>,
    to: To<'_>,
    meta: &Map<String, Value>,
) -> Result<(Answer, Vec<Box<str>>), Box<str>> {
    let Response { status, headers, body } = *response;
    let content_type = header(headers, "Content-Type").unwrap_or_default();
    let is_empty = matches!(status, 200 | 204) && body.is_empty();
    let is_accepted_as_empty = is_empty && matches!(to, To::Open { is_empty_enough: true, .. });
    if !is_accepted_as_empty && (status != 200 || !headers::is_events(content_type)) {
        return Err(format!("the answer is not {} with status 200", headers::EVENTS).into());
    }
    let events = events::read(body, MOST_EVENTS).map_err(|malformed| malformed.to_string())?;
    events::check_order(&events, matches!(to, To::Open { .. })).map_err(|malformed| malformed.to_string())?;
    let mut answer = Answer { meta: patch(headers, meta)?, timer: timer(headers), ..Answer::default() };
    let grip = match to {
        To::Open { .. } if events.is_empty() && !is_accepted_as_empty => {
            return Err("the answer to OPEN does not accept the connection".into());
        }
        To::Open { protocols, .. } => {
            answer.acceptance = acceptance(headers, protocols)?;
            answer.grip = header(headers, EXTENSIONS).and_then(|it| Extension::parse(str::from_utf8(it).ok()?));
            answer.grip.clone()
        }
        To::Later(grip) => grip.cloned(),
    };
    let mut warnings = Vec::new();
    for event in &events {
        let is_last = matches!(event.kind, Kind::Close | Kind::Disconnect);
        answer.steps.extend(step(event, grip.as_ref(), &mut warnings)?);
        if is_last {
            break;
        }
    }
    Ok((answer, warnings))
}

fn step(event: &Event<'_>, grip: Option<&Extension>, warnings: &mut Vec<Box<str>>) -> Result<Option<Step>, Box<str>> {
    let content = event.content;
    Ok(match event.kind {
        Kind::Text | Kind::Binary => {
            match grip.map_or(Outgoing::Message(content), |it| it.classify(event.kind, content)) {
                Outgoing::Message(content) => Some(Step::Send(message(event.kind, content)?)),
                Outgoing::Control(json) => match Control::parse(json) {
                    Control::Ignored(why) => {
                        warnings.push(format!("a control message was ignored: {why}").into());
                        None
                    }
                    control => Some(Step::Control(control)),
                },
                Outgoing::Dropped => {
                    warnings.push("a message without the prefix of messages for clients was left out".into());
                    None
                }
            }
        }
        Kind::Close => Some(Step::Close(close(content, warnings)?)),
        // Pushpin drops the connection, and the client is told nothing.
        Kind::Disconnect => Some(Step::Close(backend_error())),
        // The server answers pings by itself, and sends its own.
        Kind::Open | Kind::Ping | Kind::Pong => None,
    })
}

fn message(kind: Kind, content: &[u8]) -> Result<Message, Box<str>> {
    if kind == Kind::Binary {
        return Ok(Message::Binary(content.into()));
    }
    let text = str::from_utf8(content).map_err(|_| "a text is not UTF-8")?;
    Ok(Message::Text(text.into()))
}

fn close(content: &[u8], warnings: &mut Vec<Box<str>>) -> Result<Close, Box<str>> {
    Ok(match Closing::read(content).map_err(|malformed| malformed.to_string())? {
        Closing::NoCode => Close { code: NORMAL, reason: "".into() },
        Closing::Code(code, reason) => Close { code, reason: reason.into() },
        Closing::Invalid(code) => {
            warnings.push(format!("a Close frame cannot have the code {code}: 1011 was sent").into());
            backend_error()
        }
    })
}

fn backend_error() -> Close {
    Close { code: INTERNAL_ERROR, reason: "backend error".into() }
}

/// What `Set-Meta-*` change of what is kept, as a merge patch. Names are the same in any case: the first one stays.
fn patch(headers: &[Header<'_>], meta: &Map<String, Value>) -> Result<Option<Map<String, Value>>, Box<str>> {
    let mut patch = Map::new();
    for &(name, value) in headers {
        let Some(name) = strip_prefix_ignore_case(name, SET_META) else { continue };
        let value = str::from_utf8(value).ok().filter(|value| headers::is_value(value.as_bytes()));
        let Some(value) = value.filter(|_| headers::is_name(name)) else {
            return Err("metadata is not a header's name and value".into());
        };
        let known = patch.keys().chain(meta.keys()).find(|known| known.eq_ignore_ascii_case(name)).cloned();
        let value = value.trim();
        patch.insert(
            known.unwrap_or_else(|| name.to_owned()),
            if value.is_empty() { Value::Null } else { value.into() },
        );
    }
    Ok(Some(patch).filter(|patch| !patch.is_empty()))
}

/// What `Keep-Alive-Interval` says, if it is there.
#[expect(clippy::option_option, reason = "as the answer has it")]
fn timer(headers: &[Header<'_>]) -> Option<Option<Duration>> {
    let value = header(headers, "Keep-Alive-Interval")?;
    Some(headers::keep_alive_interval(value).map(|seconds| Duration::from_secs(seconds.into())))
}

/// What goes into the response to the client's upgrade, which offers these subprotocols.
pub(crate) fn acceptance(headers: &[Header<'_>], offered: &[&str]) -> Result<Acceptance, Box<str>> {
    let headers = headers::to_client(headers.iter().copied(), offered).map_err(|error| error.to_string())?;
    let text = |(name, value): Header<'_>| Some((name.into(), str::from_utf8(value).ok()?.into()));
    let headers = headers.into_iter().filter_map(text).collect();
    Ok(Acceptance { headers, ..Acceptance::default() })
}

fn header<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

const SET_META: &str = "Set-Meta-";

/// Events in one answer.
const MOST_EVENTS: usize = 10_000;

/// Codes of RFC 6455 §7.4.1.
const NORMAL: u16 = 1000;
const INTERNAL_ERROR: u16 = 1011;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::grip::Filters;

    const EVENTS: (&str, &[u8]) = ("Content-Type", b"application/websocket-events");

    const OPEN: To<'_> = To::Open { protocols: &["a", "b"], is_empty_enough: false };

    fn opened(headers: &[Header<'_>], body: &[u8]) -> Result<(Answer, Vec<Box<str>>), Box<str>> {
        let headers = [&[EVENTS], headers].concat();
        read(&Response { status: 200, headers: &headers, body }, OPEN, &Map::new())
    }

    fn later(grip: Option<&Extension>, body: &[u8]) -> Result<(Answer, Vec<Box<str>>), Box<str>> {
        read(&Response { status: 200, headers: &[EVENTS], body }, To::Later(grip), &Map::new())
    }

    fn steps(body: &[u8]) -> Vec<Step> {
        later(None, body).expect("an answer").0.steps
    }

    fn text(text: &str) -> Step {
        Step::Send(Message::Text(text.into()))
    }

    fn close(code: u16, reason: &str) -> Step {
        Step::Close(Close { code, reason: reason.into() })
    }

    #[test]
    fn open_is_accepted_with_what_the_response_may_have() {
        let headers: [Header<'_>; 4] = [
            ("Sec-WebSocket-Protocol", b"b"),
            ("Set-Cookie", b"a=1"),
            ("Set-Meta-User", "zoë".as_bytes()),
            ("keep-alive-interval", b"1"),
        ];
        let (answer, warnings) = opened(&headers, b"OPEN\r\nTEXT 2\r\nhi\r\n").expect("accepted");
        let passed = [("Sec-WebSocket-Protocol", "b"), ("Set-Cookie", "a=1")];
        assert_eq!(answer.acceptance.headers, passed.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(answer.meta.expect("meta")["User"], "zoë");
        assert_eq!(answer.timer, Some(Some(Duration::from_secs(20))), "V14");
        assert_eq!((answer.steps, answer.grip, warnings.len()), (vec![text("hi")], None, 0));
    }

    #[test]
    fn what_does_not_accept_is_an_error() {
        for (vector, body) in [
            ("O6", &b""[..]),
            ("O8", b"TEXT 2\r\nhi\r\n"),
            ("O8", b"open\r\n"),
            ("O8", b"OPEN\n"),
            ("O12", b"OPEN\r\nTEXT 50\r\nshort\r\n"),
            ("O13", b"OPEN\r\nTEXT -5\r\n"),
            ("two", b"OPEN\r\nOPEN\r\n"),
        ] {
            assert!(opened(&[], body).is_err(), "{vector}: {body:?}");
        }
        assert!(opened(&[("Sec-WebSocket-Protocol", b"c")], b"OPEN\r\n").is_err(), "it was not offered");
        let html: [Header<'_>; 1] = [("Content-Type", b"text/html")];
        let read_as = |status, headers| read(&Response { status, headers, body: b"OPEN\r\n" }, OPEN, &Map::new());
        assert!(read_as(200, &html).is_err(), "O3");
        assert!(read_as(204, &[EVENTS]).is_err(), "O5");
        assert!(read_as(200, &[]).is_err());
        assert!(read_as(200, &[("content-type", b"application/websocket-events; charset=utf-8")]).is_ok(), "O4");
    }

    #[test]
    fn an_empty_answer_accepts_where_that_is_enough() {
        let to = To::Open { protocols: &["a"], is_empty_enough: true };
        let read_as = |status, headers, body| read(&Response { status, headers, body }, to, &Map::new());
        let headers: [Header<'_>; 3] =
            [("Set-Cookie", b"a=1"), ("Sec-WebSocket-Extensions", b"grip"), ("Content-Type", b"text/html")];
        for status in [200, 204] {
            let (answer, _) = read_as(status, &headers, b"").expect("accepted");
            assert_eq!(answer.acceptance.headers, [("Set-Cookie".into(), "a=1".into())]);
            assert!(answer.grip.is_some() && answer.steps.is_empty());
        }
        assert!(read_as(201, &headers, b"").is_err());
        assert!(read_as(200, &headers, b"<b>").is_err());
        assert!(read_as(200, &[EVENTS], b"TEXT 2\r\nhi\r\n").is_err(), "what is said has to begin with OPEN");
        assert!(read_as(200, &[EVENTS], b"OPEN\r\n").is_ok());
    }

    #[test]
    fn without_grip_everything_is_a_message() {
        let body = b"TEXT 9\r\nc:{\"a\":1}\r\nBINARY 2\r\n\x00\xff\r\nTEXT 0\r\n\r\nPONG\r\nPING 1\r\nx\r\n";
        assert_eq!(steps(body), [text("c:{\"a\":1}"), Step::Send(Message::Binary([0, 255].into())), text("")]);
        assert_eq!(steps(b""), [], "nothing to do");
    }

    #[test]
    fn with_grip_messages_have_a_prefix_and_the_order_is_kept() {
        let grip: [Header<'_>; 1] = [("Sec-WebSocket-Extensions", b"grip")];
        let body = b"OPEN\r\nTEXT 2a\r\nc:{\"type\": \"subscribe\", \"channel\": \"room\"}\r\nTEXT 9\r\nm:welcome\r\nTEXT 12\r\ndropped: no prefix\r\nBINARY 4\r\nm:\x00\xff\r\nTEXT 2c\r\nc:{\"type\": \"unsubscribe\", \"channel\": \"room\"}\r\nTEXT 5\r\nc:bad\r\n";
        let (answer, warnings) = opened(&grip, body).expect("accepted");
        let subscribe = Control::Subscribe { channel: "room".into(), filters: Filters::default() };
        let expected = [
            Step::Control(subscribe),
            text("welcome"),
            Step::Send(Message::Binary([0, 255].into())),
            Step::Control(Control::Unsubscribe { channel: "room".into() }),
        ];
        assert_eq!((answer.steps.as_slice(), warnings.len()), (&expected[..], 2));
        let grip = answer.grip.expect("GRIP is on");
        let (answer, _) = later(Some(&grip), b"TEXT 3\r\nm:x\r\n").expect("an answer");
        assert_eq!(answer.steps, [text("x")]);
        let p: [Header<'_>; 1] = [("Sec-WebSocket-Extensions", b"grip; message-prefix=\"p:\"")];
        let (answer, _) = opened(&p, b"OPEN\r\nTEXT 3\r\np:x\r\n").expect("accepted");
        assert_eq!(answer.steps, [text("x")], "G1");
    }

    #[test]
    fn a_close_is_the_last_step_and_its_code_one_that_a_frame_may_have() {
        assert_eq!(steps(b"CLOSE 8\r\n\x0f\xa1by app\r\nTEXT 1\r\nx\r\n"), [close(4001, "by app")], "V15");
        assert_eq!(steps(b"TEXT 1\r\nx\r\nCLOSE\r\n"), [text("x"), close(1000, "")]);
        assert_eq!(steps(b"CLOSE 2\r\n\x00\x00\r\n"), [close(1000, "")], "V16");
        assert_eq!(steps(b"CLOSE 2\r\n\x03\xed\r\n"), [close(1011, "backend error")], "V17");
        assert_eq!(steps(b"DISCONNECT\r\nTEXT 1\r\nx\r\n"), [close(1011, "backend error")]);
        assert_eq!(later(None, b"CLOSE 2\r\n\x03\xed\r\n").expect("an answer").1.len(), 1);
        assert!(later(None, b"OPEN\r\n").is_err(), "it is open");
        assert!(later(None, b"TEXT 2\r\n\xff\xfe\r\n").is_err(), "V18");
    }

    #[test]
    fn metadata_is_merged_under_the_name_that_it_had_first() {
        let kept: Map<String, Value> = [("User".to_owned(), "alice".into())].into_iter().collect();
        let patched = |headers: &[Header<'_>]| {
            let headers = [&[EVENTS], headers].concat();
            read(&Response { status: 200, headers: &headers, body: b"" }, To::Later(None), &kept).map(|(it, _)| it.meta)
        };
        let expected = |pairs: &[(&str, Value)]| {
            Ok(Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()))
        };
        assert_eq!(patched(&[]), Ok(None));
        assert_eq!(patched(&[("Set-Meta-user", b"bob")]), expected(&[("User", "bob".into())]));
        assert_eq!(patched(&[("set-meta-User", b" ")]), expected(&[("User", Value::Null)]));
        let twice: [Header<'_>; 2] = [("Set-Meta-Room", b"r1"), ("Set-Meta-ROOM", b"r2")];
        assert_eq!(patched(&twice), expected(&[("Room", "r2".into())]));
        assert!(patched(&[("Set-Meta-", b"x")]).is_err());
        assert!(patched(&[("Set-Meta-A", b"\xff")]).is_err());
    }
}
