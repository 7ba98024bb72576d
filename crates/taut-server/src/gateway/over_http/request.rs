//! What the backend is told: events as the body of a request, and the headers that come with it.

use serde_json::{Map, Value};

use crate::gateway::event::Event;
use crate::gateway::grip::control::FEATURES;
use crate::gateway::grip::events::{self, Kind};
use crate::gateway::grip::headers::{EVENTS, is_name, is_value, strip_prefix_ignore_case};

/// Writes the body of a request. It is empty if nothing has happened but time.
pub(crate) fn write(events: &[Event]) -> Vec<u8> {
    let mut body = Vec::new();
    for event in events {
        match event {
            Event::Open => events::Event::bare(Kind::Open).write(&mut body),
            Event::Text(text) => events::Event::new(Kind::Text, text.as_bytes()).write(&mut body),
            Event::Binary(bytes) => events::Event::new(Kind::Binary, bytes).write(&mut body),
            Event::Timer => {}
            Event::Close { is_clean: false, .. } => events::Event::bare(Kind::Disconnect).write(&mut body),
            Event::Close { code: NO_CODE, .. } => events::Event::bare(Kind::Close).write(&mut body),
            Event::Close { code, reason, .. } => {
                events::Event::new(Kind::Close, &events::close_content(*code, reason)).write(&mut body);
            }
        }
    }
    body
}

/// The headers of a request, beside those that the client sent.
pub(crate) fn fields(connection: &str, token: String, meta: &Map<String, Value>) -> Vec<(String, String)> {
    let mut fields = vec![
        ("Accept".to_owned(), EVENTS.to_owned()),
        ("Connection-Id".to_owned(), connection.to_owned()),
        ("Sec-WebSocket-Extensions".to_owned(), "grip".to_owned()),
        ("Grip-Sig".to_owned(), token),
        ("Grip-Feature".to_owned(), FEATURES.to_owned()),
    ];
    fields.extend(fields_of_meta(meta));
    fields
}

fn fields_of_meta(meta: &Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    meta.iter().filter_map(|(name, value)| Some((format!("{META}{name}"), value.as_str()?.to_owned())))
}

/// What is kept of a connection whose user is known, so that each request names it: `Meta-User`. `None` if a header
/// cannot have this value.
pub(crate) fn meta_of_user(user: &str) -> Option<Map<String, Value>> {
    let is_whole = !user.is_empty() && user.trim() == user && is_value(user.as_bytes());
    is_whole.then(|| Map::from_iter([("User".to_owned(), user.into())]))
}

/// The headers of the client's own request, that is of a GET for a stream, beside those that the client sent.
pub(crate) fn fields_of_own(token: String, meta: &Map<String, Value>) -> Vec<(String, String)> {
    let features = format!("status, {FEATURES}");
    let mut fields = vec![("Grip-Sig".to_owned(), token), ("Grip-Feature".to_owned(), features)];
    fields.extend(fields_of_meta(meta));
    fields
}

/// Whether a backend may get this header of a client's: not one that belongs to the client's connection, nor one that
/// the server itself writes. CGI reads `meta_user` and `Meta-User` as the same name, so names with `_` end here.
pub(crate) fn is_forwarded(name: &str) -> bool {
    let is_ours = OURS.iter().any(|prefix| strip_prefix_ignore_case(name, prefix).is_some());
    !is_ours && is_name(name) && !NOT_FORWARDED.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What stands before the name of a text that the server keeps for the backend.
const META: &str = "Meta-";

/// A Close frame without a code (RFC 6455 §7.4.1).
const NO_CODE: u16 = 1005;

/// How the names begin of headers that the server writes.
const OURS: [&str; 4] = [META, "Grip-", "Webhook-", "X-Forwarded-"];

/// Headers of the client's connection, headers that we write, and `Proxy`, which CGI turns into `HTTP_PROXY`
/// (CVE-2016-5385).
const NOT_FORWARDED: &[&str] = &[
    "Accept",
    "Accept-Encoding",
    "Connection",
    "Connection-Id",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Expect",
    "Forwarded",
    "Idempotency-Key",
    "Keep-Alive",
    "Proxy",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Sec-WebSocket-Extensions",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str, is_clean: bool) -> Event {
        Event::Close { code, reason: reason.into(), is_clean }
    }

    #[test]
    fn the_bodies_are_the_recorded_ones() {
        let text = |text: &str| Event::Text(text.into());
        for (vector, events, expected) in [
            ("V1", vec![Event::Open], &b"OPEN\r\n"[..]),
            ("V2", vec![text("héé")], b"TEXT 5\r\nh\xc3\xa9\xc3\xa9\r\n"),
            ("V3", vec![Event::Binary([0, 255, 128].into())], b"BINARY 3\r\n\x00\xff\x80\r\n"),
            ("V5", vec![text("m1"), text("m2")], b"TEXT 2\r\nm1\r\nTEXT 2\r\nm2\r\n"),
            ("V8", vec![close(1000, "ok", true)], b"CLOSE 4\r\n\x03\xe8ok\r\n"),
            ("V9", vec![close(1005, "", true)], b"CLOSE\r\n"),
            ("V11", vec![close(1006, "", false)], b"DISCONNECT\r\n"),
            ("V13", vec![Event::Timer], b""),
        ] {
            assert_eq!(write(&events), expected, "{vector}");
        }
    }

    #[test]
    fn each_request_says_whose_it_is_and_what_is_kept() {
        let mut meta = Map::new();
        meta.insert("User".to_owned(), "zoë".into());
        let written = fields("12.34", "a.b.c".to_owned(), &meta);
        let written: Vec<(&str, &str)> = written.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("Accept", "application/websocket-events"),
            ("Connection-Id", "12.34"),
            ("Sec-WebSocket-Extensions", "grip"),
            ("Grip-Sig", "a.b.c"),
            ("Grip-Feature", "filter:skip-self, filter:skip-users, filter:require-sub"),
            ("Meta-User", "zoë"),
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn the_clients_own_request_says_what_is_there_for_its_response() {
        let expected = [
            ("Grip-Sig", "a.b.c"),
            ("Grip-Feature", "status, filter:skip-self, filter:skip-users, filter:require-sub"),
            ("Meta-User", "ann"),
        ];
        assert_eq!(
            fields_of_own("a.b.c".to_owned(), &meta_of_user("ann").expect("a header")),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn forged_headers_and_those_of_the_clients_connection_end_here() {
        for name in ["Meta-Evil", "META-user", "grip-feature", "GRIP-Last", "connection-id", "proxy", "Keep-Alive"] {
            assert!(!is_forwarded(name), "{name}");
        }
        for name in ["Accept", "accept-encoding", "Content-Length", "x-forwarded-for", "webhook-id", "TE", "", "a b"] {
            assert!(!is_forwarded(name), "{name}");
        }
        for name in ["Host", "Sec-WebSocket-Key", "Origin", "Cookie", "Authorization", "Metadata", "X"] {
            assert!(is_forwarded(name), "{name}");
        }
    }
}
