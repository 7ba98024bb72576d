//! Server-Sent Events as text (WHATWG HTML §9.2.5): what a stream is sent, and who asks for one. No I/O and no clock.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pusher::json::write_json_string;

/// The media type of a stream.
pub(crate) const MEDIA_TYPE: &str = "text/event-stream";

/// A comment: what a stream is sent in silence, so that no proxy ends it and a client that is lost is noticed.
pub(crate) const KEEP_ALIVE: &str = ":\n\n";

/// An event without a name, whose data is this text.
pub(crate) fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + PER_EVENT);
    write_data(&mut out, text);
    out
}

/// An event `binary`, whose data is the bytes in base64: a stream is text.
pub(crate) fn binary(bytes: &[u8]) -> String {
    let mut out = "event: binary\n".to_owned();
    write_data(&mut out, &STANDARD.encode(bytes));
    out
}

/// An event `close`: the stream is about to end, and why. The code is a WebSocket's.
pub(crate) fn close(code: u16, reason: &str) -> String {
    let mut json = format!("{{\"code\":{code},\"reason\":");
    write_json_string(&mut json, reason);
    json.push('}');
    let mut out = "event: close\n".to_owned();
    write_data(&mut out, &json);
    out
}

/// Tells the client how long to wait before it comes back, in milliseconds.
pub(crate) fn retry(milliseconds: u64) -> String {
    format!("retry: {milliseconds}\n\n")
}

/// The same event with an id, which the client brings when it comes back. An id is one line.
pub(crate) fn with_id(id: impl std::fmt::Display, event: &str) -> String {
    let mut out = String::with_capacity(event.len() + PER_ID);
    let _ = writeln!(out, "id: {id}");
    out.push_str(event);
    out
}

/// Whether an `Accept` header asks for a stream (RFC 9110 §12.5.1). `*/*` does not: everybody sends that.
pub(crate) fn is_accepted(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(MEDIA_TYPE));
        let is_refused = |parameter: &str| {
            let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
            weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
        };
        is_named && !parts.any(is_refused)
    })
}

/// Each line of the text in a field of its own, and the blank line that ends the event. CR, LF and CRLF end a line.
fn write_data(out: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (line, after) = rest.find(['\r', '\n']).map_or((rest, None), |end| {
            let after = &rest[end..];
            (&rest[..end], Some(after.strip_prefix("\r\n").unwrap_or_else(|| &after[1..])))
        });
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
        let Some(after) = after else { break };
        rest = after;
    }
    out.push('\n');
}

/// Bytes of an event beside its text, if that is one line.
const PER_EVENT: usize = 8;

/// Bytes of an id, about.
const PER_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_text_is_a_field() {
        for (text, expected) in [
            ("", "data: \n\n"),
            ("a", "data: a\n\n"),
            (" a", "data:  a\n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("\r\n", "data: \ndata: \n\n"),
            ("é:\u{2028}x", "data: é:\u{2028}x\n\n"),
        ] {
            assert_eq!(message(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_text_has_a_name() {
        assert_eq!(binary(&[0, 255, 128]), "event: binary\ndata: AP+A\n\n");
        assert_eq!(close(4000, "a \"b\"\n"), "event: close\ndata: {\"code\":4000,\"reason\":\"a \\\"b\\\"\\n\"}\n\n");
        assert_eq!(retry(1500), "retry: 1500\n\n");
        assert_eq!(with_id("x1", "data: a\n\n"), "id: x1\ndata: a\n\n");
        assert!(KEEP_ALIVE.starts_with(':') && KEEP_ALIVE.ends_with("\n\n"));
    }

    #[test]
    fn a_stream_is_asked_for_by_its_name() {
        for accept in [
            "text/event-stream",
            "Text/Event-Stream",
            "text/html, text/event-stream;q=0.5",
            "text/event-stream; charset=utf-8",
            "application/json;q=0, text/event-stream",
        ] {
            assert!(is_accepted(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/event-streams",
            "text/event-stream;q=0",
            "text/event-stream;a=b;Q=0",
            "text/event-stream; q=0.000",
        ] {
            assert!(!is_accepted(accept), "{accept}");
        }
    }
}
