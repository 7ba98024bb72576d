//! Which headers pass between client and backend, in both directions.

use std::fmt;

use super::parameters::is_media_type;

/// A header's name, in any case, and its value.
pub(crate) type Header<'a> = (&'a str, &'a [u8]);

/// The backend chose a subprotocol that the client did not offer. A browser would fail the connection: 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOffered;

impl fmt::Display for NotOffered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the backend chose a subprotocol that the client did not offer")
    }
}

impl std::error::Error for NotOffered {}

/// The headers of an accepted OPEN that go into the 101; the others are for us.
///
/// `offered` are the subprotocols of the client, one by one.
pub(crate) fn to_client<'a>(
    answer: impl IntoIterator<Item = Header<'a>>,
    offered: &[&str],
) -> Result<Vec<Header<'a>>, NotOffered> {
    let mut headers = Vec::new();
    let mut has_protocol = false;
    for (name, value) in answer {
        if name.eq_ignore_ascii_case(PROTOCOL) {
            if value.trim_ascii().is_empty() {
                continue;
            }
            let is_offered = offered.iter().any(|offer| offer.as_bytes() == value.trim_ascii());
            if std::mem::replace(&mut has_protocol, true) || !is_offered {
                return Err(NotOffered);
            }
            headers.push((name, value.trim_ascii()));
        } else if is_answered(name) && is_name(name) && is_value(value) {
            headers.push((name, value));
        }
    }
    Ok(headers)
}

/// Whether an answer's body is a list of events.
pub(crate) fn is_events(content_type: &[u8]) -> bool {
    is_media_type(content_type, EVENTS)
}

/// Seconds of a `Keep-Alive-Interval`; `None` turns the empty requests off.
pub(crate) fn keep_alive_interval(value: &[u8]) -> Option<u32> {
    let seconds: i64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (seconds > 0).then(|| u32::try_from(seconds).unwrap_or(u32::MAX).max(LEAST_INTERVAL))
}

/// The end of a name that begins so.
pub(crate) fn strip_prefix_ignore_case<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, end) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(end)
}

/// Whether a header can have this name (RFC 9110 §5.6.2).
pub(crate) fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Whether a header can have this value. UTF-8 can.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

/// Whether a header of this name may be in the 101. `X-Powered-By` would tell strangers what the backend runs.
fn is_answered(name: &str) -> bool {
    let is_custom = strip_prefix_ignore_case(name, "X-").is_some() && !name.eq_ignore_ascii_case("X-Powered-By");
    is_custom || name.eq_ignore_ascii_case("Set-Cookie")
}

/// The media type of events.
pub(crate) const EVENTS: &str = "application/websocket-events";

const PROTOCOL: &str = "Sec-WebSocket-Protocol";

/// Seconds.
const LEAST_INTERVAL: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(texts: &[(&'a str, &'a str)]) -> Vec<Header<'a>> {
        texts.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    #[test]
    fn the_101_has_the_recorded_headers_and_none_of_the_backends_own() {
        let answer = headers(&[
            ("Content-Type", "application/websocket-events"),
            ("Sec-WebSocket-Protocol", "b"),
            ("Set-Cookie", "a=1"),
            ("X-Custom", "y"),
            ("Set-Cookie", "b=2"),
            ("Set-Meta-User", "alice"),
            ("Sec-WebSocket-Extensions", "grip"),
            ("Keep-Alive-Interval", "20"),
            ("Keep-Alive", "timeout=5"),
            ("Date", "now"),
            ("Server", "s"),
            ("X-Powered-By", "Express"),
            ("Content-Length", "6"),
            ("X-Split", "a\r\nb: c"),
        ]);
        let expected =
            [("Sec-WebSocket-Protocol", "b"), ("Set-Cookie", "a=1"), ("X-Custom", "y"), ("Set-Cookie", "b=2")];
        assert_eq!(to_client(answer, &["a", "b"]), Ok(headers(&expected)), "V1");
    }

    #[test]
    fn a_subprotocol_must_have_been_offered() {
        let chosen = |values: &[&'static str]| {
            let answer: Vec<_> = values.iter().map(|value| (PROTOCOL, value.as_bytes())).collect();
            to_client(answer, &["a", "b"]).map(|headers| headers.len())
        };
        assert_eq!(chosen(&[]), Ok(0));
        assert_eq!(chosen(&[""]), Ok(0));
        assert_eq!(chosen(&["a"]), Ok(1));
        assert_eq!(chosen(&["A"]), Err(NotOffered));
        assert_eq!(chosen(&["c"]), Err(NotOffered));
        assert_eq!(chosen(&["a, b"]), Err(NotOffered));
        assert_eq!(chosen(&["a", "b"]), Err(NotOffered));
    }

    #[test]
    fn intervals_below_20_seconds_are_20() {
        for (value, expected) in [
            ("20", Some(20)),
            ("1", Some(20)),
            (" 30 ", Some(30)),
            ("0", None),
            ("-1", None),
            ("x", None),
            ("99999999999", Some(u32::MAX)),
        ] {
            assert_eq!(keep_alive_interval(value.as_bytes()), expected, "V13, V14: {value}");
        }
    }

    #[test]
    fn an_answer_must_be_of_the_type_of_events() {
        assert!(is_events(b"application/websocket-events; charset=utf-8"), "O4");
        assert!(!is_events(b"text/html"), "O3");
    }
}
