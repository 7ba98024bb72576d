//! How a session looks: for people at a terminal, for pipes, and for programs as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};
use taut::reconnect::Ended;
use taut::{Close, CloseCode, Message, Response};
use taut_pusher::hex;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::format::{Binary, base64};
use super::steps::{Size, without_secrets};
use super::text::{close_words, hex_dump, size};
use crate::dial::words;
use crate::json::{self, Layout, Palette};
use crate::output::{escaped, printable};

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A person at the prompt.
    Prompt,
    /// A person, without a prompt.
    Terminal,
    /// A program, or a file: nothing but the messages.
    Pipe,
    /// A program that wants each event as a line of JSON.
    Json,
}

/// How it looks.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Show {
    pub(super) mode: Mode,
    pub(super) binary: Option<Binary>,
    pub(super) is_colored: bool,
    /// Whether arrows can be shown.
    pub(super) is_unicode: bool,
    pub(super) is_pretty: bool,
    pub(super) has_time: bool,
}

impl Show {
    /// A message that was received, for stdout.
    pub(super) fn message(&self, message: &Message<'_>) -> Vec<u8> {
        match (self.mode, message.as_text()) {
            (Mode::Json, Some(text)) => Self::event("message", &[("text", text.into())]),
            (Mode::Json, None) => Self::event("message", &[("binary", base64(message.as_bytes()).into())]),
            (Mode::Prompt, _) => self.for_people(message).into_bytes(),
            (Mode::Terminal, _) if self.binary.is_none() => self.for_people(message).into_bytes(),
            _ => self.for_pipe(message),
        }
    }

    /// There is a connection. For people it is told, for JSON it is an event.
    pub(super) fn opened(&self, url: &str, response: Option<&Response>, subprotocol: Option<&str>) -> Told {
        if self.mode == Mode::Json {
            let headers: Map<_, _> = response.map(headers).unwrap_or_default();
            let fields = [("url", url.into()), ("subprotocol", subprotocol.into()), ("headers", headers.into())];
            return Told::Event(Self::event("open", &fields));
        }
        let mut details = Vec::new();
        details.extend(subprotocol.map(|name| format!("subprotocol {}", printable(name))));
        if let Some(extensions) = response.and_then(|response| response.header("sec-websocket-extensions")) {
            // Their parameters are shown by `-v`.
            let names = extensions.split(',').filter_map(|extension| extension.split(';').next());
            details.extend(names.map(|name| printable(name.trim())));
        }
        let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
        Told::State(self.paint(GREEN, &format!("connected to {}{details}", without_secrets(url))))
    }

    /// The connection was closed.
    pub(super) fn closed(&self, close: &Close, is_ours: bool) -> Told {
        let by = if is_ours { "us" } else { "peer" };
        if self.mode == Mode::Json {
            let fields = [("code", close.code().as_u16().into()), ("reason", close.reason().into()), ("by", by.into())];
            return Told::Event(Self::event("close", &fields));
        }
        let who = if is_ours { "closed" } else { "closed by the peer" };
        let is_good = matches!(close.code().as_u16(), 1000 | 1001 | 1005);
        Told::State(self.paint(if is_good { DIM } else { RED }, &format!("{who}: {}", close_words(close))))
    }

    /// The connection, or the attempt to make one, has failed for good.
    pub(super) fn failed(&self, error: &taut::Error) -> Told {
        if self.mode == Mode::Json {
            let code = error.close_code().map(CloseCode::as_u16);
            let fields =
                [("code", code.into()), ("status", error.status().into()), ("message", error.to_string().into())];
            return Told::Event(Self::event("error", &fields));
        }
        let is_ours = error.is_protocol() && error.close_code() == Some(CloseCode::TOO_BIG);
        let advice = if is_ours { "; --max-size allows more" } else { "" };
        Told::State(self.paint(RED, &format!("{}{advice}", words(error))))
    }

    /// There will be another attempt.
    pub(super) fn waiting(&self, ended: &Ended, delay: Duration, attempt: u32) -> Told {
        let why = match ended {
            Ended::Closed(close) => format!("closed by the peer: {}", close_words(close)),
            Ended::Failed(error) if error.close_code().is_some() => lost(error),
            Ended::Failed(error) => format!("not connected: {}", words(error)),
            other => format!("not connected: {}", printable(&other.to_string())),
        };
        if self.mode == Mode::Json {
            let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let code = ended.close_code().map(CloseCode::as_u16);
            let fields = [
                ("cause", why.into()),
                ("code", code.into()),
                ("delay_ms", milliseconds.into()),
                ("attempt", attempt.into()),
            ];
            return Told::Event(Self::event("reconnect", &fields));
        }
        let seconds = delay.as_secs_f64();
        Told::State(self.paint(YELLOW, &format!("{why}; again in {seconds:.1} s ({} try)", ordinal(attempt))))
    }

    /// A ping or a pong has come or gone.
    pub(super) fn control(&self, name: &str, payload: &[u8], is_ours: bool, round_trip: Option<Duration>) -> Told {
        if self.mode == Mode::Json {
            let milliseconds = round_trip.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
            let fields = [
                ("by", if is_ours { "us" } else { "peer" }.into()),
                ("payload", payload_text(payload).into()),
                ("round_trip_ms", milliseconds.into()),
            ];
            return Told::Event(Self::event(name, &fields));
        }
        let payload =
            if payload.is_empty() { String::new() } else { format!(" {}", printable(&payload_text(payload))) };
        let time = round_trip.map(|time| format!(" after {}", milliseconds(time))).unwrap_or_default();
        let mark = if is_ours { self.sent_mark() } else { self.received_mark() };
        Told::State(self.paint(DIM, &format!("{mark} {name}{payload}{time}")))
    }

    /// How large a message is, and how large on the connection.
    pub(super) fn size(&self, bytes: Size, is_ours: bool) -> Option<String> {
        if self.mode == Mode::Json {
            return None;
        }
        let mark = if is_ours { self.sent_mark() } else { self.received_mark() };
        let ratio = if bytes.wire < bytes.plain {
            // Rounded; the plain size is not 0.
            format!(" ({} %)", (bytes.wire.saturating_mul(100) + bytes.plain / 2) / bytes.plain)
        } else {
            String::new()
        };
        let text = format!("{mark} {}, {} on the connection{ratio}", size(bytes.plain), size(bytes.wire));
        Some(self.paint(DIM, &text))
    }

    /// What the prompt is.
    pub(super) fn prompt(&self) -> String {
        format!("{} ", self.sent_mark())
    }

    /// A remark for the person who runs the command.
    pub(super) fn remark(&self, text: &str) -> String {
        self.paint(DIM, text)
    }

    /// A mistake of that person.
    pub(super) fn mistake(&self, text: &str) -> String {
        self.paint(RED, text)
    }

    fn for_pipe(&self, message: &Message<'_>) -> Vec<u8> {
        if let Some(binary) = self.binary {
            return binary.written(message);
        }
        let mut line = self.time();
        match (message.as_text(), self.is_pretty) {
            (Some(text), true) => match json::pretty(text, Layout::default()) {
                Some(lines) => line.push_str(&lines),
                None => line.push_str(text),
            },
            (Some(text), false) => line.push_str(text),
            (None, _) => line.push_str(&hex::encode(message.as_bytes())),
        }
        line.push('\n');
        line.into_bytes()
    }

    fn for_people(&self, message: &Message<'_>) -> String {
        let time = self.paint(DIM, &self.time());
        let mark = self.paint(CYAN, self.received_mark());
        let Some(text) = message.as_text() else {
            let bytes = message.as_bytes();
            let head = self.paint(DIM, &format!("binary, {}", size(bytes.len())));
            return format!("{time}{mark} {head}\n{}", hex_dump(bytes));
        };
        let palette = if self.is_colored { Palette::COLORED } else { Palette::default() };
        let layout = Layout { palette, is_for_terminal: true, ..Layout::default() };
        // Escaped after it was read: escapes would make other JSON of it, or none.
        let lines = self.is_pretty.then(|| json::pretty(text, layout)).flatten();
        let shown = lines.unwrap_or_else(|| escaped(text));
        // What follows the first line stands below it.
        format!("{time}{mark} {}\n", shown.replace('\n', "\n  "))
    }

    fn event(name: &str, fields: &[(&str, Value)]) -> Vec<u8> {
        let mut event = Map::new();
        event.insert("event".to_owned(), name.into());
        event.insert("time".to_owned(), now().into());
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            event.insert((*name).to_owned(), value.clone());
        }
        format!("{}\n", json!(event)).into_bytes()
    }

    fn time(&self) -> String {
        let now = if self.has_time { now() } else { return String::new() };
        match self.mode {
            Mode::Pipe | Mode::Json => format!("{now} "),
            // The day is known to who sits there: 12:34:56.789Z.
            Mode::Prompt | Mode::Terminal => format!("{}Z ", now.get(11..23).unwrap_or_default()),
        }
    }

    fn sent_mark(&self) -> &'static str {
        if self.is_unicode { "→" } else { ">" }
    }

    fn received_mark(&self) -> &'static str {
        if self.is_unicode { "←" } else { "<" }
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.is_colored && !text.is_empty() { format!("{color}{text}{RESET}") } else { text.to_owned() }
    }
}

/// Something to be told.
#[derive(Debug)]
pub(super) enum Told {
    /// A line for people, on stderr.
    State(String),
    /// A line of JSON, on stdout.
    Event(Vec<u8>),
}

/// Why the connection ended; the code is told once.
fn lost(error: &taut::Error) -> String {
    let code = error.close_code().map_or(1006, CloseCode::as_u16);
    let text = words(error);
    if text.ends_with("without a close frame (1006)") {
        "connection lost (1006)".to_owned()
    } else {
        format!("connection lost ({code}): {text}")
    }
}

fn headers(response: &Response) -> Map<String, Value> {
    let headers = response.headers().into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("set-cookie"));
    headers.map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(value).into())).collect()
}

/// The payload of a ping: text if it is readable, else hexadecimal.
fn payload_text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => hex::encode(payload),
    }
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// RFC 3339, in UTC, as in the log.
fn now() -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

const RESET: &str = "\u{1b}[0m";
const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const CYAN: &str = "\u{1b}[36m";

#[cfg(test)]
mod tests {
    use super::*;

    fn show(mode: Mode) -> Show {
        Show { mode, binary: None, is_colored: false, is_unicode: true, is_pretty: false, has_time: false }
    }

    fn printed(show: &Show, message: &Message<'_>) -> String {
        String::from_utf8(show.message(message)).unwrap()
    }

    #[test]
    fn people_see_marks_and_pipes_see_the_message() {
        assert_eq!(printed(&show(Mode::Prompt), &"a\nb\u{1b}".into()), "← a\n  b\\e\n");
        assert_eq!(printed(&show(Mode::Pipe), &"a\u{1b}[1m".into()), "a\u{1b}[1m\n");
        assert!(printed(&show(Mode::Terminal), &b"Hi"[..].into()).starts_with("← binary, 2 bytes\n  0000  48 69"));
        assert_eq!(printed(&show(Mode::Pipe), &b"Hi"[..].into()), "4869\n");
        let raw = Show { binary: Some(Binary::Raw), ..show(Mode::Pipe) };
        assert_eq!(raw.message(&b"Hi"[..].into()), b"Hi");
        let pretty = Show { is_pretty: true, ..show(Mode::Prompt) };
        assert_eq!(printed(&pretty, &r#"{"a":1}"#.into()), "← {\n    \"a\": 1\n  }\n");
        let text = "{\r\n\"a\":\"\u{202e}\"}";
        assert_eq!(printed(&pretty, &text.into()), "← {\n    \"a\": \"\\u{202e}\"\n  }\n");
        let pretty = Show { is_pretty: true, ..show(Mode::Pipe) };
        assert_eq!(printed(&pretty, &text.into()), "{\n  \"a\": \"\u{202e}\"\n}\n");
        let ascii = Show { is_unicode: false, is_colored: true, ..show(Mode::Prompt) };
        assert_eq!(printed(&ascii, &"x".into()), "\u{1b}[36m<\u{1b}[0m x\n");
    }

    #[test]
    fn json_has_an_event_a_line() {
        let show = show(Mode::Json);
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let message = read(show.message(&"a\nb".into()));
        assert_eq!((&message["event"], &message["text"]), (&"message".into(), &"a\nb".into()));
        assert!(message["time"].as_str().unwrap().ends_with('Z'), "{message}");
        assert_eq!(read(show.message(&b"Hi"[..].into()))["binary"], "SGk=");
        let Told::Event(line) = show.closed(&Close::new(CloseCode::new(4001), "why"), false) else { panic!() };
        let close = read(line);
        assert_eq!((&close["code"], &close["reason"], &close["by"]), (&4001.into(), &"why".into(), &"peer".into()));
    }

    #[test]
    fn no_reason_of_a_peer_reaches_the_terminal_as_it_is() {
        let error = taut::Error::from(Close::new(CloseCode::new(4001), "\u{1b}]0;owned\u{7}\u{202e}"));
        let show = show(Mode::Prompt);
        let Told::State(failed) = show.failed(&error) else { panic!() };
        let Told::State(waiting) = show.waiting(&Ended::Failed(error), Duration::ZERO, 2) else { panic!() };
        for line in [failed, waiting] {
            assert!(line.contains("\\e]0;owned\\u{7}\\u{202e}") && !line.contains(char::is_control), "{line:?}");
        }
        let Told::State(line) = show.control("ping", "\u{202e}".as_bytes(), false, None) else { panic!() };
        assert_eq!(line, "← ping \\u{202e}");
    }

    #[test]
    fn the_line_of_a_new_connection_has_no_secret() {
        let Told::State(line) = show(Mode::Pipe).opened("ws://a/x?token=s3cret&room=1", None, None) else { panic!() };
        assert_eq!(line, "connected to ws://a/x?token=…&room=1");
    }

    #[test]
    fn a_retry_says_why_and_when() {
        let ended = Ended::Closed(Close::new(CloseCode::new(1012), ""));
        let Told::State(line) = show(Mode::Pipe).waiting(&ended, Duration::from_millis(1_340), 2) else { panic!() };
        assert_eq!(line, "closed by the peer: 1012 (service restart); again in 1.3 s (2nd try)");
        for (number, text) in [(1, "1st"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")] {
            assert_eq!(ordinal(number), text);
        }
    }

    #[test]
    fn sizes_have_a_ratio_where_something_was_saved() {
        let show = show(Mode::Pipe);
        assert_eq!(
            show.size(Size { plain: 1000, wire: 250 }, false).unwrap(),
            "← 1,000 bytes, 250 bytes on the connection (25 %)"
        );
        assert_eq!(show.size(Size { plain: 5, wire: 11 }, true).unwrap(), "→ 5 bytes, 11 bytes on the connection");
    }
}
