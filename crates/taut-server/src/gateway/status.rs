//! What the status of a backend's response means for the client.

use std::time::{Duration, SystemTime};

use taut_proto::handshake;

use super::Failure;

/// The head and the body of a response, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
    pub(crate) body: &'a [u8],
}

/// The outcome of a request to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenOutcome {
    /// The body decides what the response says.
    Accept,
    /// The backend's own words, as far as a client may see them.
    Refuse(Refusal),
    /// 502, with a text of the server's.
    BadGateway,
    /// 503, with a text of the server's.
    Unavailable {
        /// As the backend wrote it. Without one the server takes a random one.
        retry_after: Option<Box<str>>,
    },
}

/// A refusal by the backend. The body is at most [`LARGEST_BODY`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
    pub(crate) body: Box<[u8]>,
}

/// The outcome of a later event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventOutcome {
    CarryOut,
    /// The same event again, after this time.
    Again(Duration),
    Failed(Failure),
}

/// Bytes of a refusal's body. A larger one is left out whole: half of a JSON text cannot be read.
pub(crate) const LARGEST_BODY: usize = 64 << 10;

impl OpenOutcome {
    pub(crate) fn of(response: &Response<'_>) -> Self {
        match response.status {
            200..=299 => Self::Accept,
            300..=499 => Self::Refuse(Refusal::of(response)),
            503 => {
                // A date or a number, and nothing else that a client would see.
                let is_either = |text: &&str| retry_after(text, SystemTime::UNIX_EPOCH).is_some();
                Self::Unavailable { retry_after: response.retry_after().filter(is_either).map(Into::into) }
            }
            _ => Self::BadGateway,
        }
    }
}

impl Refusal {
    fn of(response: &Response<'_>) -> Self {
        let is_encoded = |value: &[u8]| !value.trim_ascii().eq_ignore_ascii_case(b"identity");
        // Content-Encoding is not passed on, and the client would not know what it gets.
        let has_body =
            response.body.len() <= LARGEST_BODY && !response.header("content-encoding").is_some_and(is_encoded);
        let is_passed = |name: &str, value: &[u8]| {
            PASSED.iter().any(|passed| name.eq_ignore_ascii_case(passed))
                && (has_body || !name.eq_ignore_ascii_case("content-type"))
                // A carrier of CGI may have let these through.
                && value.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t')
        };
        let headers = response.headers.iter().filter(|(name, value)| is_passed(name, value));
        Self {
            status: response.status,
            headers: headers.map(|&(name, value)| (name.into(), value.into())).collect(),
            body: if has_body { response.body.into() } else { Box::default() },
        }
    }
}

impl EventOutcome {
    /// `left` is the time that the event has until its deadline.
    pub(crate) fn of(response: &Response<'_>, now: SystemTime, left: Duration) -> Self {
        match response.status {
            200..=299 => Self::CarryOut,
            429 | 503 => match response.retry_after().and_then(|text| retry_after(text, now)) {
                Some(after) if after <= left => Self::Again(after),
                _ => Self::Failed(Failure::Busy),
            },
            400..=499 => Self::Failed(Failure::Rejected),
            _ => Self::Failed(Failure::Broken),
        }
    }
}

impl<'a> Response<'a> {
    pub(crate) fn retry_after(&self) -> Option<&'a str> {
        str::from_utf8(self.header("retry-after")?).ok().map(str::trim_ascii)
    }

    fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(*value))
    }
}

/// The time until then (RFC 9110 §10.2.3): seconds, or a date, which may be over.
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default())
}

/// Headers of a refusal that reach the client.
const PASSED: [&str; 5] = ["content-type", "www-authenticate", "retry-after", "location", "set-cookie"];

impl From<Refusal> for handshake::Refusal {
    fn from(refusal: Refusal) -> Self {
        let location = refusal.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("location"));
        let location = location.and_then(|(_, value)| str::from_utf8(value).ok());
        let mut response = match (refusal.status, location) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => Self::redirect(refusal.status, location),
            (400..=499, _) => {
                let body = Self::with_status(refusal.status, String::from_utf8_lossy(&refusal.body).into_owned());
                let has_type = refusal.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
                // With a type of its own the body is sent exactly as it is.
                if has_type { body } else { body.header("Content-Type", "text/plain; charset=utf-8") }
            }
            _ => return Self::with_status(502, "The application has not answered as it should."),
        };
        // A redirect has a body of the server's.
        let left_out = if location.is_some() { &["location", "content-type"][..] } else { &[] };
        for (name, value) in &refusal.headers {
            let is_left_out = left_out.iter().any(|known| name.eq_ignore_ascii_case(known));
            if let (Ok(value), false) = (str::from_utf8(value), is_left_out) {
                response = response.header(name, value);
            }
        }
        response
    }
}

/// 503, and when to come back.
pub(crate) fn unavailable(retry_after: Option<&str>) -> handshake::Refusal {
    let refusal = handshake::Refusal::with_status(503, "The application has too much to do.");
    match retry_after {
        Some(text) => refusal.header("Retry-After", text),
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response<'a>(status: u16, headers: &'a [(&'a str, &'a [u8])], body: &'a [u8]) -> Response<'a> {
        Response { status, headers, body }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_status_of_the_answer_to_open_decides_what_the_client_gets() {
        let refused = |status| OpenOutcome::Refuse(Refusal { status, ..Refusal::default() });
        for (status, outcome) in [
            (200, OpenOutcome::Accept),
            (204, OpenOutcome::Accept),
            (299, OpenOutcome::Accept),
            (300, refused(300)),
            (302, refused(302)),
            (400, refused(400)),
            (401, refused(401)),
            (429, refused(429)),
            (499, refused(499)),
            (503, OpenOutcome::Unavailable { retry_after: None }),
            (0, OpenOutcome::BadGateway),
            (101, OpenOutcome::BadGateway),
            (199, OpenOutcome::BadGateway),
            (500, OpenOutcome::BadGateway),
            (502, OpenOutcome::BadGateway),
            (504, OpenOutcome::BadGateway),
            (600, OpenOutcome::BadGateway),
        ] {
            assert_eq!(OpenOutcome::of(&response(status, &[], b"")), outcome, "{status}");
        }
    }

    #[test]
    fn a_refusal_has_only_what_a_client_may_see() {
        let headers: [(&str, &[u8]); 9] = [
            ("Content-Type", b"text/plain"),
            ("WWW-Authenticate", b"Bearer"),
            ("retry-after", b"7"),
            ("Location", b"/login"),
            ("Set-Cookie", b"a=1"),
            ("set-cookie", b"b=2\r\nX: y"),
            ("set-cookie", "zo\u{eb}\t".as_bytes()),
            ("X-Powered-By", b"PHP"),
            ("Content-Length", b"7"),
        ];
        let OpenOutcome::Refuse(refusal) = OpenOutcome::of(&response(401, &headers, b"no user")) else {
            panic!("a refusal");
        };
        let passed: Vec<(&str, &[u8])> = refusal.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(passed, [headers[0], headers[1], headers[2], headers[3], headers[4], headers[6]]);
        assert_eq!((refusal.status, &*refusal.body), (401, &b"no user"[..]));
    }

    #[test]
    fn a_body_that_is_too_large_or_encoded_is_left_out_with_its_type() {
        let largest = vec![b'x'; LARGEST_BODY];
        let larger = vec![b'x'; LARGEST_BODY + 1];
        let plain: [(&str, &[u8]); 2] = [("content-type", b"text/plain"), ("Content-Encoding", b" Identity ")];
        let zipped: [(&str, &[u8]); 2] = [("content-type", b"text/plain"), ("Content-Encoding", b"gzip")];
        for (headers, body, has_body) in
            [(&plain, &largest, true), (&plain, &larger, false), (&zipped, &largest, false)]
        {
            let OpenOutcome::Refuse(refusal) = OpenOutcome::of(&response(403, headers, body)) else {
                panic!("a refusal");
            };
            assert_eq!((refusal.headers.len(), refusal.body.len()), if has_body { (1, LARGEST_BODY) } else { (0, 0) });
        }
    }

    #[test]
    fn a_503_passes_its_retry_after_and_nothing_else() {
        for (value, passed) in [
            (&b" 30 "[..], Some("30")),
            (b"Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (b"soon", None),
            (b"1\r\nX: y", None),
            (b"\xff", None),
            (b"", None),
        ] {
            let headers = [("Retry-After", value), ("Set-Cookie", b"a")];
            let outcome = OpenOutcome::of(&response(503, &headers, b"trace"));
            assert_eq!(outcome, OpenOutcome::Unavailable { retry_after: passed.map(Into::into) });
        }
    }

    #[test]
    fn the_status_of_a_later_answer_decides_whether_the_connection_stays() {
        let left = Duration::from_secs(10);
        let decided = |status, retry_after: Option<&str>| {
            let headers: Vec<_> = retry_after.map(|value| ("Retry-After", value.as_bytes())).into_iter().collect();
            EventOutcome::of(&response(status, &headers, b""), at(784_111_770), left)
        };
        let again = |seconds| EventOutcome::Again(Duration::from_secs(seconds));
        for (status, retry_after, outcome) in [
            (200, None, EventOutcome::CarryOut),
            (204, Some("1"), EventOutcome::CarryOut),
            (299, None, EventOutcome::CarryOut),
            (429, Some("2"), again(2)),
            (503, Some("10"), again(10)),
            (503, Some("0"), again(0)),
            (503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), again(7)),
            (503, Some("Sun, 06 Nov 1994 08:49:41 GMT"), EventOutcome::Failed(Failure::Busy)),
            (503, Some("Sat, 06 Nov 1993 08:49:37 GMT"), again(0)),
            (503, Some("11"), EventOutcome::Failed(Failure::Busy)),
            (503, Some("99999999999999999999999"), EventOutcome::Failed(Failure::Busy)),
            (503, Some("-1"), EventOutcome::Failed(Failure::Busy)),
            (429, None, EventOutcome::Failed(Failure::Busy)),
            (503, None, EventOutcome::Failed(Failure::Busy)),
            (400, Some("1"), EventOutcome::Failed(Failure::Rejected)),
            (401, None, EventOutcome::Failed(Failure::Rejected)),
            (499, None, EventOutcome::Failed(Failure::Rejected)),
            (101, None, EventOutcome::Failed(Failure::Broken)),
            (302, None, EventOutcome::Failed(Failure::Broken)),
            (500, Some("1"), EventOutcome::Failed(Failure::Broken)),
            (502, None, EventOutcome::Failed(Failure::Broken)),
            (504, None, EventOutcome::Failed(Failure::Broken)),
        ] {
            assert_eq!(decided(status, retry_after), outcome, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn a_refusal_becomes_the_response_to_the_upgrade() {
        let text = |status, headers: &[(&str, &[u8])], body: &[u8]| {
            let OpenOutcome::Refuse(refusal) = OpenOutcome::of(&response(status, headers, body)) else {
                panic!("a refusal");
            };
            let mut text = Vec::new();
            handshake::Refusal::from(refusal).write_response(&mut text);
            String::from_utf8(text).expect("a text")
        };
        let json: (&str, &[u8]) = ("Content-Type", b"application/json");
        let unauthorized = text(401, &[json, ("WWW-Authenticate", b"Bearer realm=\"chat\"")], b"{}");
        assert!(unauthorized.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{unauthorized}");
        for line in ["WWW-Authenticate: Bearer realm=\"chat\"", "Content-Type: application/json", "Content-Length: 2"] {
            assert!(unauthorized.contains(&format!("{line}\r\n")), "{line}: {unauthorized}");
        }
        assert!(unauthorized.ends_with("\r\n\r\n{}"), "{unauthorized}");
        let redirect = text(302, &[json, ("Location", b"/login")], b"<a>");
        assert!(
            redirect.starts_with("HTTP/1.1 302 Found\r\n") && redirect.contains("Location: /login\r\n"),
            "{redirect}"
        );
        assert!(!redirect.contains("<a>") && !redirect.contains("application/json"), "{redirect}");
        for odd in [text(300, &[], b"x"), text(304, &[("Location", b"/a")], b"x")] {
            assert!(odd.starts_with("HTTP/1.1 502 "), "{odd}");
        }
    }

    #[test]
    fn who_is_told_to_wait_is_told_how_long() {
        let text = |retry_after| {
            let mut text = Vec::new();
            unavailable(retry_after).write_response(&mut text);
            String::from_utf8(text).expect("a text")
        };
        assert!(text(Some("30")).contains("Retry-After: 30\r\n"));
        assert!(text(None).contains("Retry-After: "));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text: String, date in "[MTWFS][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9é]{4} [0-9:é]{8} GMT", status: u16, value: Vec<u8>) {
            let _ = retry_after(&text, at(0));
            let _ = retry_after(&date, at(u64::from(u32::MAX)));
            let headers = [("retry-after", &value[..])];
            let response = response(status, &headers, &value);
            let _ = OpenOutcome::of(&response);
            let _ = EventOutcome::of(&response, at(0), Duration::MAX);
        }
    }
}
