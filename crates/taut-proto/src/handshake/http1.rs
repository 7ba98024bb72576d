//! HTTP/1.1 as text: where a head ends, what it says, and how a response is written (RFC 9112 §2 to §5).
//!
//! The one codec of this crate for heads. What it parses is a [`RequestHead`], what it writes is a [`Response`]; the
//! rules of the handshake see neither lines nor line ends.

use std::mem::MaybeUninit;

use super::head::{HeadLimits, RequestHead, ResponseHead};
use super::headers::Headers;
use super::refusal::{Cause, Refusal};
use super::response::Response;
use super::version::Version;

/// Parses the head of a request. What follows the head in `bytes` is not looked at.
///
/// [`Request::parse`](super::Request::parse) also applies the rules that hold for every request.
///
/// # Errors
/// 431 when the head exceeds `limits`, 400 when it is incomplete, not HTTP/1, or has a line that HTTP/1.1 forbids.
pub fn parse_request<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<RequestHead<'a>, Refusal> {
    let mut scan = HeadScan::new();
    scan.find(bytes, limits)?;
    let mut head = RequestHead::empty();
    read_request(bytes, &scan, &mut head)?;
    Ok(head)
}

/// Parses the head of a request that `scan` has found at the beginning of `bytes`. The checks of the scan are not
/// repeated.
///
/// It is put into `head`, an empty one, since moving it about costs more than finding its lines.
pub(super) fn read_request<'a>(bytes: &'a [u8], scan: &HeadScan, head: &mut RequestHead<'a>) -> Result<(), Cause> {
    let text = scan.head(bytes)?;
    with_room(scan, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(text, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Cause::Incomplete),
            Err(_) => return Err(Cause::Malformed),
        }
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Cause::Malformed);
        };
        (head.method, head.target, head.version) = (method, target, version(minor));
        head.headers.extend(lines(parsed.headers));
        Ok(())
    })
}

/// Parses the head of a response, as a client does.
pub(super) fn parse_response<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<ResponseHead<'a>, Refusal> {
    let mut scan = HeadScan::new();
    scan.find(bytes, limits)?;
    let text = scan.head(bytes)?;
    // RFC 9112 §2.2: only a server skips empty lines.
    if text.starts_with(b"\r") {
        return Err(Cause::Malformed.into());
    }
    let head = with_room(&scan, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, text, room) {
            Ok(httparse::Status::Complete(_)) => {}
            _ => return Err(Cause::Malformed),
        }
        let (Some(status), Some(minor)) = (parsed.code, parsed.version) else { return Err(Cause::Malformed) };
        Ok(ResponseHead { status, version: version(minor), headers: lines(parsed.headers).collect() })
    })?;
    Ok(head)
}

/// Appends a whole response to `out`: status line, headers, body.
pub fn write_response(response: &Response<'_>, out: &mut Vec<u8>) {
    write_status(response.status(), out);
    for (name, value) in response.headers() {
        write_line(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body().as_bytes());
}

/// Appends the status line.
pub(super) fn write_status(status: u16, out: &mut Vec<u8>) {
    // RFC 9112 §4: three digits.
    let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    for part in [&b"HTTP/1.1 "[..], &digits, b" ", reason(status).as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends one header line.
pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Finds the end of a head in bytes that arrive in any pieces.
///
/// It remembers how far it has looked, so a head costs one pass however many reads bring it (CVE-2023-43669). There
/// is no guard against tiny reads: the cost of a byte does not depend on the read that brings it, the byte limit ends
/// an endless head, and a peer that is merely slow is honest until the deadline of its driver.
#[derive(Clone, Debug, Default)]
pub struct HeadScan {
    /// Bytes that need not be looked at again.
    scanned: usize,
    /// Where the line begins that `scanned` stands in.
    line: usize,
    /// Complete lines so far: the first line and the headers.
    lines: usize,
    /// Empty lines before the first.
    empty_lines: usize,
    is_complete: bool,
}

impl HeadScan {
    /// A scan that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the end of the head in `bytes`: everything received so far, from the head's first byte.
    ///
    /// `Some(n)` means that the head is `bytes[..n]`, a few empty lines before it included; what follows belongs to the
    /// next protocol and does not count against the limits. `None` asks for more bytes.
    ///
    /// # Errors
    /// 431 when the head is larger than `limits`, 400 when a line is one that HTTP/1.1 forbids.
    pub fn find(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        if self.is_complete {
            return Ok(Some(self.scanned));
        }
        let within = &bytes[..bytes.len().min(limits.bytes)];
        while let Some(&byte) = within.get(self.scanned) {
            let is_line_start = self.scanned == self.line;
            match byte {
                b'\r' => match within.get(self.scanned + 1) {
                    None => break,
                    // RFC 9112 §2.2: old clients end the content of their last request with a line end too many.
                    Some(b'\n') if is_line_start && self.lines == 0 => {
                        self.empty_lines += 1;
                        if self.empty_lines > MOST_EMPTY_LINES {
                            return Err(Cause::Malformed.into());
                        }
                        self.scanned += 2;
                        self.line = self.scanned;
                    }
                    Some(b'\n') => {
                        if !is_line_start && self.lines > limits.headers {
                            return Err(Cause::TooManyHeaders.into());
                        }
                        self.lines += usize::from(!is_line_start);
                        self.scanned += 2;
                        self.line = self.scanned;
                        if is_line_start {
                            self.is_complete = true;
                            return Ok(Some(self.scanned));
                        }
                    }
                    Some(_) => return Err(Cause::LineEnd.into()),
                },
                // RFC 9112 §2.2 lets a recipient take a lone LF for a line end. Whoever stands before us may not
                // have done so, and then we would see headers that it did not.
                b'\n' => return Err(Cause::LineEnd.into()),
                // RFC 9110 §5.5: NUL in a value is dangerous whatever is made of it.
                0 => return Err(Cause::Nul.into()),
                // RFC 9112 §5.2: a server refuses folded lines.
                b' ' | b'\t' if is_line_start => return Err(Cause::FoldedLine.into()),
                // Nothing of interest comes before one of these.
                _ => {
                    let rest = &within[self.scanned + 1..];
                    self.scanned += 1 + memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
                }
            }
        }
        if bytes.len() >= limits.bytes { Err(Cause::HeadTooLarge.into()) } else { Ok(None) }
    }

    /// The head that was found at the beginning of `bytes`.
    fn head<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Cause> {
        bytes.get(..self.scanned).filter(|_| self.is_complete).ok_or(Cause::Incomplete)
    }

    /// The header lines of the head that was found.
    fn headers(&self) -> usize {
        self.lines.saturating_sub(1)
    }
}

/// Calls `parse` with room for as many headers as the scan has counted: on the stack for all common heads.
fn with_room<'a, T>(
    scan: &HeadScan,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'a>>]) -> Result<T, Cause>,
) -> Result<T, Cause> {
    let mut few = [const { MaybeUninit::uninit() }; Headers::IN_PLACE];
    match few.get_mut(..scan.headers()) {
        Some(room) => parse(room),
        // Sized by the lines that are there, so a generous limit costs nothing.
        None => parse(&mut vec![MaybeUninit::uninit(); scan.headers()]),
    }
}

fn lines<'a>(parsed: &[httparse::Header<'a>]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    parsed.iter().map(|header| (header.name, header.value))
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

/// The reason phrase of a status (RFC 9110 §15); it may be empty.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "",
    }
}

/// Empty lines that may precede a head.
const MOST_EMPTY_LINES: usize = 4;

impl Refusal {
    /// Appends the whole [`response`](Self::response) to `out` as the text of HTTP/1.1.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        write_response(&self.response(Version::Http11), out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 64, headers: 3 };

    /// The verdict on `bytes` when they arrive in pieces of the given sizes, over and over.
    fn scanned(bytes: &[u8], sizes: &[usize], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        let mut scan = HeadScan::new();
        let mut received = 0;
        let mut sizes = sizes.iter().cycle();
        while received < bytes.len() {
            received = bytes.len().min(received + sizes.next().copied().unwrap_or(1).max(1));
            let found = scan.find(&bytes[..received], limits);
            if found != Ok(None) {
                // Asking again gives the same answer.
                assert_eq!(scan.find(&bytes[..received], limits), found);
                return found;
            }
        }
        Ok(None)
    }

    fn cause(bytes: &[u8], limits: &HeadLimits) -> Option<Cause> {
        scanned(bytes, &[bytes.len()], limits).err().map(|refusal| refusal.cause())
    }

    #[test]
    fn a_head_is_parsed_into_values() {
        let bytes = b"GET /chat?a=b HTTP/1.0\r\nHost: a\r\nX: y\r\n\r\nbehind it";
        let head = parse_request(bytes, &LIMITS).expect("good");
        assert_eq!((head.method, head.target, head.version), ("GET", "/chat?a=b", Version::Http10));
        assert_eq!((head.headers.len(), head.headers.first("x")), (2, Some("y")));
        let cause = |bytes| parse_request(bytes, &LIMITS).err().map(|refusal| refusal.cause());
        assert_eq!(cause(&bytes[..30]), Some(Cause::Incomplete));
        assert_eq!(cause(b"GET / HTTP/1.1\nHost: a\r\n\r\n"), Some(Cause::LineEnd));
        assert_eq!(cause(b"GET\x01/ HTTP/1.1\r\n\r\n"), Some(Cause::Malformed));
    }

    // RFC 9110 §15, RFC 6585.
    #[test]
    fn every_status_that_is_sent_has_its_reason() {
        for (status, expected) in [
            (101, "Switching Protocols"),
            (200, "OK"),
            (400, "Bad Request"),
            (404, "Not Found"),
            (410, "Gone"),
            (501, "Not Implemented"),
            (503, "Service Unavailable"),
            (599, ""),
        ] {
            assert_eq!(reason(status), expected);
        }
    }

    // RFC 6455 §4.2.1: the request is a valid HTTP request; it ends with the first empty line.
    #[test]
    fn bytes_after_the_head_belong_to_the_next_protocol() {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let end = bytes.len();
        bytes.extend_from_slice(b"\x81\x05hello\r\n\r\n\0\n");
        bytes.resize(10 * LIMITS.bytes, 0xff);
        assert_eq!(scanned(&bytes, &[bytes.len()], &LIMITS), Ok(Some(end)));
    }

    #[test]
    fn a_head_of_exactly_the_limit_is_found() {
        for (length, expected) in [(64, Ok(Some(64))), (65, Err(Refusal::from(Cause::HeadTooLarge)))] {
            let mut bytes = b"GET / HTTP/1.1\r\nX: ".to_vec();
            bytes.resize(length - 4, b'x');
            bytes.extend_from_slice(b"\r\n\r\n");
            assert_eq!(scanned(&bytes, &[bytes.len()], &LIMITS), expected);
        }
    }

    // CVE-2024-37890: 10 000 headers are refused when the one over the limit ends.
    // CVE-2026-54465: a list of headers that never ends is refused at the limit, whoever sends it.
    #[test]
    fn one_header_too_many_is_refused() {
        let head = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(headers));
        assert_eq!(cause(head(3).as_bytes(), &LIMITS), None);
        assert_eq!(cause(head(4).as_bytes(), &LIMITS), Some(Cause::TooManyHeaders));
        let endless = format!("GET / HTTP/1.1\r\n{}", "a:\r\n".repeat(10_000));
        assert_eq!(cause(endless.as_bytes(), &HeadLimits::default()), Some(Cause::TooManyHeaders));
        let wide = HeadLimits { headers: usize::MAX, ..HeadLimits::default() };
        assert_eq!(cause(endless.as_bytes(), &wide), Some(Cause::HeadTooLarge));
    }

    // CVE-2023-43669: a header of 1 MiB in one-byte writes is refused at 16 KiB, and costs one look at each byte.
    #[test]
    fn a_long_header_in_one_byte_writes_takes_linear_time() {
        let mut bytes = b"GET / HTTP/1.1\r\nX: ".to_vec();
        bytes.resize(1 << 20, b'x');
        let limits = HeadLimits::default();
        let mut scan = HeadScan::new();
        let refused_at = (1..=bytes.len()).find(|&received| scan.find(&bytes[..received], &limits).is_err());
        assert_eq!(refused_at, Some(16 << 10));

        // The same with a limit that lets all of it in: a scan from the start at each byte would take 5·10¹¹ steps.
        let wide = HeadLimits { bytes: 2 << 20, ..limits };
        let mut scan = HeadScan::new();
        let began = std::time::Instant::now();
        for received in 1..=bytes.len() {
            assert_eq!(scan.find(&bytes[..received], &wide), Ok(None));
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn an_honest_head_in_one_byte_segments_is_found() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(460));
        assert_eq!(scanned(head.as_bytes(), &[1], &HeadLimits::default()), Ok(Some(head.len())));
    }

    // RFC 6455 §4.2.1: a head that is not HTTP/1.1 is refused, here because of how its lines end or begin.
    #[test]
    fn lines_that_http_forbids_are_refused() {
        for (head, expected) in [
            ("GET / HTTP/1.1\nHost: a\n\n", Cause::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Cause::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Cause::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Cause::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Cause::FoldedLine),
            ("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", Cause::FoldedLine),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", Cause::Nul),
            ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Cause::Malformed),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Cause::LineEnd),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Cause::FoldedLine),
        ] {
            assert_eq!(cause(head.as_bytes(), &LIMITS), Some(expected), "{head:?}");
        }
    }

    // RFC 9112 §2.2: a server ignores at least one empty line before the request line.
    #[test]
    fn a_few_empty_lines_before_a_head_are_skipped() {
        for lines in 1..=MOST_EMPTY_LINES {
            let head = format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(lines));
            for sizes in [&[1][..], &[100]] {
                assert_eq!(scanned(head.as_bytes(), sizes, &LIMITS), Ok(Some(head.len())), "{lines}");
            }
        }
    }

    proptest! {
        // CVE-2023-43669: how a head is cut into reads changes nothing.
        #[test]
        fn any_split_of_a_head_gives_the_same_result(
            bytes in prop::collection::vec(prop::sample::select(&b"aG: \t\r\n\r\n\0"[..]), 0..90),
            lines in prop::collection::vec("[a-zA-Z:]{1,9}( [a-z]{0,9})?", 1..7),
            sizes in prop::collection::vec(1_usize..20, 1..9),
        ) {
            let head = format!("{}\r\n\r\nframes", lines.join("\r\n"));
            let mixed = [head.as_bytes(), &bytes].concat();
            for bytes in [&bytes, head.as_bytes(), &mixed] {
                prop_assert_eq!(scanned(bytes, &sizes, &LIMITS), scanned(bytes, &[bytes.len()], &LIMITS));
                prop_assert_eq!(scanned(bytes, &[1], &LIMITS), scanned(bytes, &[bytes.len()], &LIMITS));
            }
        }

        #[test]
        fn any_bytes_are_scanned_without_a_panic(bytes: Vec<u8>, limit in 0_usize..64, headers in 0_usize..4) {
            let limits = HeadLimits { bytes: limit, headers };
            if let Ok(Some(end)) = HeadScan::new().find(&bytes, &limits) {
                prop_assert!(end <= limit && bytes[..end].ends_with(b"\r\n\r\n"));
            }
        }
    }
}
