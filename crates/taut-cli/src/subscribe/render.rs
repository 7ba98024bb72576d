//! How events look: a line each for people and pipes, an object each for programs.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::session::Shown;
use crate::json::{self, Layout, quoted};
use crate::output::printable_to;

/// How output looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Text { is_terminal: bool, is_colored: bool },
    Raw { is_terminal: bool },
    Json,
}

impl Style {
    /// The line of an event, or its lines, without the last line end.
    pub(super) fn event(self, event: &Shown) -> String {
        let data = event.data.as_deref().unwrap_or_default();
        match self {
            Self::Json => json_line(event),
            Self::Raw { is_terminal: true } => printable_to(data, true),
            Self::Raw { is_terminal: false } => data.to_owned(),
            Self::Text { is_terminal, is_colored } => {
                let paint = |color: &str, text: &str| {
                    if is_colored { format!("\u{1b}[{color}m{text}\u{1b}[0m") } else { text.to_owned() }
                };
                let safe = |text: &str| printable_to(text, is_terminal);
                let (time, channel) = (paint(DIM, &clock(event.time)), paint(CYAN, &safe(&event.channel)));
                let mut line = format!("{time}  {channel}  {}", paint(BOLD, &safe(&event.name)));
                if let Some(user_id) = &event.user_id {
                    // Writing to a `String` cannot fail.
                    let _ = write!(line, "  (from {})", safe(user_id));
                }
                if event.data.is_some() {
                    line.push_str(&shown_data(data, is_terminal));
                }
                line
            }
        }
    }
}

/// On the event's line, or for a terminal below it where it is long.
fn shown_data(data: &str, is_terminal: bool) -> String {
    if !is_json(data) {
        return format!("  {}", printable_to(data, is_terminal));
    }
    if !is_terminal || data.chars().count() <= LONG {
        return format!("  {}", printable_to(&json::compact(data), is_terminal));
    }
    let lines = json::pretty(data, Layout { width: Some(WIDTH), ..Layout::default() });
    let lines = lines.unwrap_or_else(|| json::compact(data));
    lines.lines().fold(String::new(), |shown, line| shown + "\n  " + &printable_to(line, true))
}

fn json_line(event: &Shown) -> String {
    let mut line = format!(
        r#"{{"time":"{}","channel":{},"event":{}"#,
        rfc3339(event.time),
        quoted(&event.channel),
        quoted(&event.name)
    );
    if let Some(data) = &event.data {
        // As pusher-js reads it: JSON, and a text if it is not.
        let data = if is_json(data) { json::compact(data) } else { quoted(data) };
        let _ = write!(line, r#","data":{data}"#);
    }
    if let Some(user_id) = &event.user_id {
        let _ = write!(line, r#","user_id":{}"#, quoted(user_id));
    }
    line + "}"
}

fn is_json(data: &str) -> bool {
    serde_json::from_str::<&RawValue>(data).is_ok()
}

/// RFC 3339, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let date = OffsetDateTime::from(time);
    format!("{:04}-{:02}-{:02}T{}", date.year(), u8::from(date.month()), date.day(), clock(time))
}

fn clock(time: SystemTime) -> String {
    let (hour, minute, second, millisecond) = OffsetDateTime::from(time).to_hms_milli();
    format!("{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// Characters of JSON that go on the event's line.
const LONG: usize = 80;
const WIDTH: usize = 78;

const BOLD: &str = "1";
const DIM: &str = "2";
const CYAN: &str = "36";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(data: Option<&str>) -> Shown {
        Shown {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_749_435_123_042),
            channel: "news".to_owned(),
            name: "head\u{1b}line".to_owned(),
            data: data.map(str::to_owned),
            user_id: None,
            is_hidden: false,
        }
    }

    #[test]
    fn an_event_is_a_line_that_cannot_steer_a_terminal() {
        let style = Style::Text { is_terminal: false, is_colored: false };
        let line = style.event(&event(Some("{\"a\": \"\u{9b}\",\n \"b\": 1.50}")));
        assert_eq!(line, "02:12:03.042Z  news  head\\eline  {\"a\":\"\\u{9b}\",\"b\":1.50}");
        assert_eq!(style.event(&event(None)), "02:12:03.042Z  news  head\\eline");
        let long = format!(r#"{{"a":"{}","b":[1,2]}}"#, "x".repeat(80));
        assert!(style.event(&event(Some(&long))).ends_with(&format!("  {long}")));
    }

    #[test]
    fn on_a_terminal_an_event_has_colors_and_long_json_its_own_lines() {
        let style = Style::Text { is_terminal: true, is_colored: true };
        assert!(style.event(&event(Some("[1,2]"))).ends_with("head\\eline\u{1b}[0m  [1,2]"));
        let long = format!(r#"{{"a":"{}","b":[1,2]}}"#, "x".repeat(80));
        let lines = style.event(&event(Some(&long)));
        assert!(lines.contains("\u{1b}[36mnews\u{1b}[0m") && lines.lines().count() == 5, "{lines}");
    }

    #[test]
    fn for_programs_an_event_is_an_object_on_one_line() {
        for (data, expected) in [
            ("{\"b\": 1.50,\n\"a\": 12345678901234567890}", r#"{"b":1.50,"a":12345678901234567890}"#),
            ("hello\n", r#""hello\n""#),
            ("", r#""""#),
        ] {
            let line = Style::Json.event(&Shown { user_id: Some("7".to_owned()), ..event(Some(data)) });
            let beginning = r#"{"time":"2025-06-09T02:12:03.042Z","channel":"news","event":"head\u001bline","data":"#;
            assert_eq!(line, format!(r#"{beginning}{expected},"user_id":"7"}}"#));
        }
    }

    #[test]
    fn raw_data_is_as_it_came_but_for_a_terminal() {
        assert_eq!(Style::Raw { is_terminal: false }.event(&event(Some("a\u{1b}"))), "a\u{1b}");
        assert_eq!(Style::Raw { is_terminal: true }.event(&event(Some("a\u{1b}"))), "a\\e");
    }
}
