//! The texts that are sent, as each protocol has them, and how a reply to one is recognized.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use measure::connect;
use measure::frame::{opcode, push_masked};

/// Bytes of each text: no two texts of a run are the same.
pub(crate) const LENGTH: usize = 60;

/// The text of a connection's message.
pub(crate) fn text(connection: usize, number: u64) -> String {
    format!("{connection:05} says {number:010}: the tide is rising, bring in the boats")[..LENGTH].to_owned()
}

/// A text as it is sent over a WebSocket.
pub(crate) fn frame(out: &mut Vec<u8>, text: &str, number: u64) {
    let [a, b, c, d, ..] = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    push_masked(out, opcode::TEXT, text.as_bytes(), [a, b, c, d]);
}

/// The event that Taut sends for a text.
fn event(text: &str, seq: u64) -> String {
    format!(
        "{{\"v\":1,\"event\":\"text\",\"connection\":\"1.1\",\"seq\":{seq},\"attempt\":1,\"route\":\"/echo\",\
         \"params\":{{}},\"path\":\"/echo\",\"user\":null,\"meta\":{{}},\"data\":\"{text}\"}}"
    )
}

/// What the script answers to it.
fn answer(text: &str) -> String {
    format!("{{\"send\":\"{text}\"}}")
}

/// The header fields of a browser that Taut passes on, less its `Origin`: they come with every event, so a server keeps them
/// as long as the connection is open.
const BROWSER: [(&str, &str); 3] = [
    ("Cookie", "session=2f6c1d0e7a9b4835b1c4d8e2f7a06935; theme=dark"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept-Language", "en-GB,en;q=0.7,de;q=0.3"),
];

/// The handshake of a browser.
pub(crate) fn handshake(address: SocketAddr) -> Vec<u8> {
    let mut request = connect::request(address, "/echo");
    request.truncate(request.len() - b"\r\n".len());
    // A cookie counts for pages of the same host.
    request.extend_from_slice(format!("Origin: http://{address}\r\n").as_bytes());
    push_fields(&mut request, &BROWSER);
    request.extend_from_slice(b"\r\n");
    request
}

fn push_fields(out: &mut Vec<u8>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
}

/// The header fields that Taut adds. Nobody checks the signature here.
const FIELDS: [(&str, &str); 7] = [
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "127.0.0.1:80"),
    ("Webhook-Id", "ev_1.1_1"),
    ("Idempotency-Key", "ev_1.1_1"),
    ("Webhook-Timestamp", "1790000000"),
    ("Webhook-Signature", "v1,47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
];

/// An event as an HTTP request.
pub(crate) fn http_request(out: &mut Vec<u8>, text: &str, seq: u64) {
    let body = event(text, seq);
    out.extend_from_slice(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n");
    out.extend_from_slice(b"Origin: http://127.0.0.1\r\n");
    push_fields(out, &BROWSER);
    push_fields(out, &FIELDS);
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

/// Whether what has come is the whole answer to a text; it is an error if it is another one.
pub(crate) fn is_http_answer(received: &[u8], text: &str) -> io::Result<bool> {
    // PHP names no length, so nginx sends chunks.
    if !received.ends_with(b"\r\n0\r\n\r\n") {
        return Ok(false);
    }
    if received.starts_with(b"HTTP/1.1 200 ") && contains(received, &answer(text)) {
        return Ok(true);
    }
    Err(unexpected(received))
}

/// An event as a FastCGI request, with the parameters that Taut sends.
pub(crate) fn fastcgi_request(out: &mut Vec<u8>, script: &str, text: &str, seq: u64) {
    let body = event(text, seq);
    let length = body.len().to_string();
    let mut pairs = Vec::new();
    let fixed = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "taut"),
        ("REDIRECT_STATUS", "200"),
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_FILENAME", script),
        ("DOCUMENT_ROOT", "/"),
        ("SCRIPT_NAME", "/echo.php"),
        ("REQUEST_URI", "/echo"),
        ("QUERY_STRING", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("CONTENT_TYPE", "application/json"),
        ("CONTENT_LENGTH", &length),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "40000"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "80"),
    ];
    for (name, value) in fixed {
        push_pair(&mut pairs, name, value);
    }
    for (name, value) in [("Origin", "http://127.0.0.1")].iter().chain(&BROWSER).chain(&FIELDS) {
        push_pair(&mut pairs, &format!("HTTP_{}", name.to_uppercase().replace('-', "_")), value);
    }
    // A responder, and the connection is closed after the answer.
    push_record(out, BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0]);
    push_record(out, PARAMS, &pairs);
    push_record(out, PARAMS, &[]);
    push_record(out, STDIN, body.as_bytes());
    push_record(out, STDIN, &[]);
}

fn push_record(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let [high, low] = (content.len() as u16).to_be_bytes();
    out.extend_from_slice(&[1, kind, 0, 1, high, low, 0, 0]);
    out.extend_from_slice(content);
}

fn push_pair(out: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        match text.len() {
            length @ 0..128 => out.push(length as u8),
            length => out.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
        }
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// Whether what has come is the whole answer to a text; it is an error if it is another one.
pub(crate) fn is_fastcgi_answer(received: &[u8], text: &str) -> io::Result<bool> {
    let mut rest = received;
    let mut output = Vec::new();
    while let &[_, kind, _, _, high, low, padding, _, ref behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = behind.get(..length) else { break };
        match kind {
            STDOUT => output.extend_from_slice(content),
            END_REQUEST if !output.starts_with(b"Status:") && output.ends_with(answer(text).as_bytes()) => {
                return Ok(true);
            }
            _ => return Err(unexpected(received)),
        }
        rest = behind.get(length + usize::from(padding)..).unwrap_or_default();
    }
    Ok(false)
}

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

fn unexpected(received: &[u8]) -> io::Error {
    let answer = String::from_utf8_lossy(received);
    io::Error::new(ErrorKind::InvalidData, format!("it answered {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_one_length_and_differ() {
        assert_eq!(text(9_999, u64::from(u32::MAX)).len(), LENGTH);
        assert_ne!(text(0, 1), text(1, 0));
        assert_ne!(text(0, 1), text(0, 2));
    }

    #[test]
    fn the_handshake_has_one_head() {
        let request = handshake(([127, 0, 0, 1], 80).into());
        assert_eq!(connect::head_length(&request), Some(request.len()));
    }

    #[test]
    fn an_answer_over_http_is_whole_with_its_last_chunk() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"send\":\"moo\"}\r\n0\r\n\r\n";
        assert!(is_http_answer(whole, "moo").unwrap());
        assert!(!is_http_answer(&whole[..whole.len() - 1], "moo").unwrap());
        is_http_answer(whole, "mow").unwrap_err();
    }

    #[test]
    fn an_answer_over_fastcgi_is_whole_with_its_end() {
        let mut whole = Vec::new();
        push_record(&mut whole, STDOUT, b"Content-Type: application/json\r\n\r\n{\"send\":");
        push_record(&mut whole, STDOUT, b"\"moo\"}");
        push_record(&mut whole, END_REQUEST, &[0; 8]);
        assert!(is_fastcgi_answer(&whole, "moo").unwrap());
        for length in 0..whole.len() {
            assert!(!is_fastcgi_answer(&whole[..length], "moo").unwrap(), "{length}");
        }
        is_fastcgi_answer(&whole, "mow").unwrap_err();
    }
}
