//! What pusher-js and SockJS write and read when HTTP carries their connection: pure text.
//!
//! Either way a frame is a line that begins with its type: `o` the session is open, `a["…"]` messages, `h` a heartbeat, `c[code,"reason"]` the
//! end. The other way it is a JSON array of strings, one a message; an empty one is a sign of life.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use taut_proto::Close;
use taut_proto::handshake::form_value;

use crate::pusher::json::bytes_without_lone_surrogates;
use crate::pusher::json::write_json_string;

/// The session is open: the first frame, and once only, since a second one means that the server has lost the session.
pub(super) const OPEN: &str = "o";

/// The server is there, and wants to know whether the client is.
pub(super) const HEARTBEAT: &str = "h";

/// A message as it will stand in a frame.
pub(super) fn quoted(message: &str) -> Box<str> {
    let mut text = String::with_capacity(message.len() + message.len() / 4 + 2);
    write_json_string(&mut text, message);
    text.into_boxed_str()
}

/// Appends a frame with messages that are [`quoted`] already.
pub(super) fn write_messages(out: &mut String, quoted: impl IntoIterator<Item = Box<str>>) {
    out.push_str("a[");
    for (place, message) in quoted.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&message);
    }
    out.push(']');
}

/// Appends the frame that ends a session.
pub(super) fn write_close(out: &mut String, close: &Close) {
    // Writing to a String cannot fail.
    let _ = write!(out, "c[{},", close.code());
    write_json_string(out, close.reason());
    out.push(']');
}

/// All that a client gets whose session is never begun: open, what it is told, and the end.
pub(super) fn refused(message: &str, close: &Close) -> String {
    let mut out = format!("{OPEN}\n");
    write_messages(&mut out, [quoted(message)]);
    out.push('\n');
    write_close(&mut out, close);
    out.push('\n');
    out
}

/// Appends a frame as the call of a page's function: how JSONP brings it.
pub(super) fn write_call(out: &mut String, callback: &str, frame: &str) {
    // The comment keeps the page's name from being the first bytes of a file, which some plug-ins take for a file of their own.
    out.push_str("/**/");
    out.push_str(callback);
    out.push('(');
    write_json_string(out, frame);
    out.push_str(");\r\n");
}

/// The length of a text as JavaScript counts it: in units of UTF-16. pusher-js measures a response so.
pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The messages in a request; `None` when it is no array of strings.
pub(super) fn messages(body: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(&bytes_without_lone_surrogates(body)).ok()
}

/// What a SockJS client says first: `{"path":"/app/KEY?…"}`, the place it would have connected to by WebSocket.
pub(super) fn path(message: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct First {
        path: String,
    }
    let First { path } = serde_json::from_str(message).ok()?;
    let is_sane = path.len() <= LONGEST_PATH && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (path.starts_with("/app/") && is_sane).then_some(path)
}

/// Whether a function may be called by JSONP: a name or several with dots between them, so that nothing else is ever executed.
pub(super) fn is_callback(name: &str) -> bool {
    (1..=LONGEST_CALLBACK).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
        && !name.starts_with(|first: char| first.is_ascii_digit() || first == '.')
}

/// The value of a field in the content of a form; `None` when there is no such field, or when it is not UTF-8.
pub(super) fn field<'a>(form: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    form_value(str::from_utf8(form).ok()?, name)
}

/// Bytes of the path and query that a SockJS client may ask for.
const LONGEST_PATH: usize = 2048;

/// Bytes of the name of a page's function.
const LONGEST_CALLBACK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use taut_proto::CloseCode;

    fn frame(messages: &[&str]) -> String {
        let mut out = String::new();
        write_messages(&mut out, messages.iter().map(|message| quoted(message)));
        out
    }

    #[test]
    fn messages_stand_in_one_array_and_in_one_line() {
        assert_eq!(frame(&["{\"event\":\"x\"}"]), r#"a["{\"event\":\"x\"}"]"#);
        assert_eq!(frame(&["a\nb\r\u{0}", "ß😀\u{2028}"]), "a[\"a\\nb\\r\\u0000\",\"ß😀\u{2028}\"]");
    }

    #[test]
    fn the_end_has_its_code_and_its_reason() {
        let mut out = String::new();
        write_close(&mut out, &Close::new(CloseCode::new(4001), "no \"app\""));
        assert_eq!(out, r#"c[4001,"no \"app\""]"#);
    }

    #[test]
    fn jsonp_calls_one_function_with_one_string() {
        let mut out = String::new();
        write_call(&mut out, "_jp.a1", &frame(&["</script>"]));
        assert_eq!(out, "/**/_jp.a1(\"a[\\\"</script>\\\"]\");\r\n");
        assert!(is_callback("_jp.abc123") && is_callback("f"));
        let long = "a".repeat(65);
        for name in ["", "1a", ".a", "a(b", "a;b", "a b", "alert(1)//", "ä", "a[0]", long.as_str()] {
            assert!(!is_callback(name), "{name}");
        }
    }

    #[test]
    fn only_arrays_of_strings_are_messages() {
        assert_eq!(messages(br#"["a","\u00df\ud83d\ude00"]"#), Some(vec!["a".to_owned(), "ß😀".to_owned()]));
        assert_eq!(messages(b" [ ] "), Some(Vec::new()));
        assert_eq!(messages(br#"["\ud83d"]"#), Some(vec!["\u{fffd}".to_owned()]));
        for body in [&b""[..], b"\"a\"", b"{}", b"[1]", b"[null]", b"[\"a\"", b"[\"a\"]x", b"[\"\xff\"]"] {
            assert_eq!(messages(body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_first_message_of_sockjs_names_a_path_of_an_app() {
        let named = |name: &str| path(&serde_json::json!({ "path": name }).to_string());
        assert_eq!(named("/app/key?protocol=7").as_deref(), Some("/app/key?protocol=7"));
        assert_eq!(path(r#"{"path":"/app/key","more":1}"#).as_deref(), Some("/app/key"));
        let long = format!("/app/{}", "k".repeat(2048));
        for bad in
            ["", "/", "/apps/1/events", "app/key", "/app/key HTTP/1.1", "/app/k\r\nHost: x", "/app/é", "/app/k#", &long]
        {
            assert_eq!(named(bad), None, "{bad}");
        }
        assert_eq!(path(r#"{"event":"pusher:ping"}"#), None);
        assert_eq!(path("nonsense"), None);
    }

    #[test]
    fn a_forms_field_is_decoded() {
        assert_eq!(field(b"a=1&d=%5B%22x+%C3%9f%22%5d&e", "d").as_deref(), Some("[\"x ß\"]"));
        assert_eq!(field(b"d", "d").as_deref(), Some(""));
        assert_eq!(field(b"d=%", "d").as_deref(), Some("%"));
        assert_eq!(field(b"d=%4", "d").as_deref(), Some("%4"));
        assert_eq!(field(b"d=%zz%41=", "d").as_deref(), Some("%zzA="));
        assert_eq!(field(b"%64=1", "d").as_deref(), Some("1"));
        assert_eq!(field(b"dd=1", "d"), None);
        // No message arrives that nobody has sent.
        assert_eq!(field(b"d=%ff", "d"), None);
    }

    #[test]
    fn length_is_counted_as_a_page_counts_it() {
        assert_eq!([units("a"), units("ß"), units("\u{2028}"), units("😀")], [1, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_back(messages in proptest::collection::vec(any::<String>(), 0..5)) {
            let texts: Vec<&str> = messages.iter().map(String::as_str).collect();
            let framed = frame(&texts);
            prop_assert!(!framed.contains('\n'));
            prop_assert_eq!(super::messages(&framed.as_bytes()[1..]), Some(messages));
        }
    }
}
