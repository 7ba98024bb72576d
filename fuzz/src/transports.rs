//! Any bytes as what clients of XHR and SockJS post: no panic, and what is read is written so that it is read again.
//!
//! Input: one octet that says what it is (a body, the first message, a function of JSONP, a form), then that.

use taut_server::testing::transports;

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let choice = octets.octet() % 4;
    let rest = octets.rest();
    if choice == 3 {
        let value = transports::field(rest, "d");
        assert!(value.is_none_or(|value| value.len() <= rest.len()));
        return;
    }
    if choice == 0 {
        let Some(messages) = transports::messages(rest) else { return };
        let frame = transports::frame(&messages);
        assert!(!frame.contains(['\n', '\r']), "a frame is one line");
        let array = frame.strip_prefix('a').expect("a frame of messages");
        assert_eq!(transports::messages(array.as_bytes()), Some(messages));
        return;
    }
    let Ok(text) = str::from_utf8(rest) else { return };
    if choice == 1 {
        let path = transports::path(text);
        // It goes into a request line.
        assert!(
            path.is_none_or(|path| path.starts_with("/app/") && path.bytes().all(|octet| octet.is_ascii_graphic()))
        );
    } else if let Some(call) = transports::call(text, "o") {
        assert_eq!(call, format!("/**/{text}(\"o\");\r\n"));
        assert!(
            text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._".contains(&octet)),
            "nothing is executed but that"
        );
    }
}
