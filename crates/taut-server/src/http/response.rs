//! The head of a response, and how its content is framed (RFC 9112 §2 to §7, RFC 9110 §8.6).

use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use hyper::body::Bytes;

/// What of a request decides how it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) is_http_1_1: bool,
    /// The client would like to go on with this connection.
    pub(super) keep_alive: bool,
}

/// How the content of a response is told apart from what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// The connection ends with it: HTTP/1.0 knows no chunks.
    UntilEnd,
}

impl Transfer {
    /// What `content` is when it is sent so; `None` when there was to be less of it.
    pub(super) fn frame(&mut self, content: Bytes, mut push: impl FnMut(Bytes)) -> Option<()> {
        if content.is_empty() {
            return Some(());
        }
        match self {
            Self::Length(left) => {
                *left = left.checked_sub(content.len() as u64)?;
                push(content);
            }
            Self::Chunked => {
                push(format!("{:x}\r\n", content.len()).into());
                push(content);
                push(Bytes::from_static(b"\r\n"));
            }
            Self::UntilEnd => push(content),
        }
        Some(())
    }

    /// What ends the content; `None` when there was to be more of it.
    pub(super) fn end(self) -> Option<&'static [u8]> {
        match self {
            Self::Length(0) | Self::UntilEnd => Some(b""),
            Self::Length(_) => None,
            Self::Chunked => Some(b"0\r\n\r\n"),
        }
    }
}

/// Writes a head; gives how its content is sent, if it has any, and whether the connection may be kept.
///
/// `length` is the content's, if it is known.
pub(super) fn write_head(
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
    asked: Asked,
    now: SystemTime,
    out: &mut Vec<u8>,
) -> (Option<Transfer>, bool) {
    // RFC 9110 §6.4.1: these have no content, whatever is in them.
    let has_content =
        !(status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED);
    let transfer = match length {
        Some(length) => Transfer::Length(length),
        None if asked.is_http_1_1 => Transfer::Chunked,
        None => Transfer::UntilEnd,
    };
    let says_close = headers.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|option| option.trim().eq_ignore_ascii_case("close")))
    });
    let sends = has_content && !asked.is_head;
    let keep = asked.keep_alive && !says_close && !(sends && transfer == Transfer::UntilEnd);

    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in headers {
        // How the content is framed is decided here; of a response to HEAD, whoever made it knows its length.
        let is_framing = name == TRANSFER_ENCODING || name == CONTENT_LENGTH && !(asked.is_head && has_content);
        if !is_framing {
            write_line(name.as_str(), value.as_bytes(), out);
        }
    }
    match transfer {
        _ if !has_content || asked.is_head && (headers.contains_key(CONTENT_LENGTH) || length == Some(0)) => {}
        Transfer::Length(length) => write_line("content-length", length.to_string().as_bytes(), out),
        Transfer::Chunked => write_line("transfer-encoding", b"chunked", out),
        Transfer::UntilEnd => {}
    }
    if !keep && !says_close {
        write_line("connection", b"close", out);
    } else if keep && !asked.is_http_1_1 {
        // RFC 9112 §9.3: a client of HTTP/1.0 has to be told.
        write_line("connection", b"keep-alive", out);
    }
    if !headers.contains_key(DATE) {
        // RFC 9110 §6.6.1: a response says when it was made.
        write_line("date", httpdate::fmt_http_date(now).as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
    (sends.then_some(transfer), keep)
}

fn write_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CONTENT_TYPE, UPGRADE};

    use super::*;

    const ASKED: Asked = Asked { is_head: false, is_http_1_1: true, keep_alive: true };

    fn head(
        status: u16,
        lines: &[(http::HeaderName, &'static str)],
        length: Option<u64>,
        asked: Asked,
    ) -> (String, Option<Transfer>, bool) {
        let mut headers = HeaderMap::new();
        headers.extend(lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
        headers.insert(DATE, HeaderValue::from_static("now"));
        let mut out = Vec::new();
        let status = StatusCode::from_u16(status).expect("a status");
        let (transfer, keep) = write_head(status, &headers, length, asked, SystemTime::UNIX_EPOCH, &mut out);
        (String::from_utf8(out).expect("text").replace("date: now\r\n", ""), transfer, keep)
    }

    #[test]
    fn content_has_a_length_or_chunks_or_lasts_until_the_end() {
        let old = Asked { is_http_1_1: false, ..ASKED };
        for (length, asked, line, transfer, keep) in [
            (Some(5), ASKED, "content-length: 5\r\n", Transfer::Length(5), true),
            (Some(0), ASKED, "content-length: 0\r\n", Transfer::Length(0), true),
            (None, ASKED, "transfer-encoding: chunked\r\n", Transfer::Chunked, true),
            (Some(5), old, "content-length: 5\r\nconnection: keep-alive\r\n", Transfer::Length(5), true),
            (None, old, "connection: close\r\n", Transfer::UntilEnd, false),
        ] {
            let expected = (format!("HTTP/1.1 200 OK\r\n{line}\r\n"), Some(transfer), keep);
            assert_eq!(head(200, &[], length, asked), expected);
        }
    }

    #[test]
    fn a_response_to_head_says_what_get_would_and_has_no_content() {
        let asked = Asked { is_head: true, ..ASKED };
        let expected = ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_owned(), None, true);
        assert_eq!(head(200, &[(CONTENT_LENGTH, "7")], Some(0), asked), expected);
        assert_eq!(head(200, &[], Some(7), asked), expected);
        let old = Asked { is_http_1_1: false, ..asked };
        assert!(head(200, &[], None, old).2, "nothing follows that would have to end");
    }

    #[test]
    fn some_statuses_have_no_content() {
        for status in [204, 304] {
            let (text, transfer, keep) = head(status, &[(CONTENT_LENGTH, "0")], Some(0), ASKED);
            assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
            assert_eq!((transfer, keep), (None, true));
        }
    }

    #[test]
    fn a_connection_is_kept_if_both_sides_want_it() {
        let last = Asked { keep_alive: false, ..ASKED };
        assert_eq!(
            head(200, &[], Some(0), last).0,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let (text, _, keep) = head(200, &[(CONNECTION, "x, Close")], Some(0), ASKED);
        assert_eq!((text.matches("connection").count(), keep), (1, false), "{text}");
        let (text, _, keep) = head(426, &[(UPGRADE, "websocket"), (CONNECTION, "upgrade")], Some(0), ASKED);
        assert!(keep && text.contains("connection: upgrade\r\n"), "{text}");
    }

    #[test]
    fn a_handlers_own_framing_does_not_count() {
        let lines = [(TRANSFER_ENCODING, "gzip"), (CONTENT_LENGTH, "9"), (CONTENT_TYPE, "text/plain")];
        let (text, ..) = head(200, &lines, Some(2), ASKED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n");
    }

    #[test]
    fn content_that_is_not_as_long_as_was_said_is_noticed() {
        let framed = |mut transfer: Transfer, parts: &[&'static str]| {
            let mut out = Vec::new();
            for part in parts {
                transfer.frame(Bytes::from_static(part.as_bytes()), |bytes| out.extend_from_slice(&bytes))?;
            }
            out.extend_from_slice(transfer.end()?);
            String::from_utf8(out).ok()
        };
        assert_eq!(framed(Transfer::Length(5), &["he", "", "llo"]).as_deref(), Some("hello"));
        assert_eq!(framed(Transfer::Length(5), &["hell"]), None);
        assert_eq!(framed(Transfer::Length(5), &["hello", "!"]), None);
        // An empty chunk would be the last.
        assert_eq!(
            framed(Transfer::Chunked, &["he", "", "0123456789abcdef"]).as_deref(),
            Some("2\r\nhe\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n")
        );
        assert_eq!(framed(Transfer::UntilEnd, &["a", "b"]).as_deref(), Some("ab"));
    }
}
