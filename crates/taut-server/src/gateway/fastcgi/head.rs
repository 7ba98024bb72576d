//! The head of a CGI response: status and headers (RFC 3875 §6).

use std::fmt;

/// The status and the headers of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// From 200 to 599.
    pub(crate) status: u16,
    /// Names in lower case, without `Status`. Values have no control characters but tabs; they need not be UTF-8.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Reads the head at the beginning of these bytes, and returns it with its length: the body follows.
    ///
    /// Without `Status` the status is 200, and 302 if there is a `Location` (§6.2). A `Location` that is a path is not
    /// followed (§6.2.2 would have the server do so): the client gets it.
    ///
    /// # Errors
    /// When there is no head.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, usize), HeadError> {
        let mut headers = Vec::new();
        let mut status = None;
        let window = &bytes[..bytes.len().min(LARGEST)];
        let mut length = 0;
        loop {
            let Some(end) = window[length..].iter().position(|&byte| byte == b'\n') else {
                return Err(if bytes.len() > LARGEST { HeadError::TooLarge } else { HeadError::Unfinished });
            };
            let line = &window[length..length + end];
            length += end + 1;
            // Lines end in CRLF or LF: §6.1 leaves that to the system.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            match header(line)? {
                (name, value) if name == "status" => {
                    if status.replace(status_code(&value)?).is_some() {
                        return Err(HeadError::Status);
                    }
                }
                header => headers.push(header),
            }
        }
        if headers.is_empty() && status.is_none() {
            return Err(HeadError::Empty);
        }
        let is_redirect = headers.iter().any(|(name, _)| name == "location");
        let status = status.unwrap_or(if is_redirect { 302 } else { 200 });
        Ok((Self { status, headers }, length))
    }

    /// The first value of this name, which is in lower case.
    #[cfg(test)]
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// `name: value`.
fn header(line: &[u8]) -> Result<(String, Vec<u8>), HeadError> {
    let colon = line.iter().position(|&byte| byte == b':').ok_or(HeadError::Line)?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(HeadError::Name);
    }
    if !value.iter().copied().all(is_field_value) {
        return Err(HeadError::Value);
    }
    let name = name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    Ok((name, value.to_vec()))
}

/// The value without spaces and tabs around it (RFC 9110 §5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Three digits, and perhaps a reason (RFC 3875 §6.3.3). A response has no interim status such as 100.
fn status_code(value: &[u8]) -> Result<u16, HeadError> {
    let [hundreds @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..] = value else {
        return Err(HeadError::Status);
    };
    if !reason.is_empty() && !reason.starts_with(b" ") {
        return Err(HeadError::Status);
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    Ok(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5.
fn is_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// These bytes do not begin with a CGI head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// There is no header before the blank line.
    Empty,
    /// There is no blank line.
    Unfinished,
    TooLarge,
    /// A line without a colon.
    Line,
    Name,
    Value,
    Status,
}

impl fmt::Display for HeadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the answer has no valid CGI head: ")?;
        match self {
            Self::Empty => formatter.write_str("there are no headers"),
            Self::Unfinished => formatter.write_str("no blank line ends the headers"),
            Self::TooLarge => write!(formatter, "it is larger than {LARGEST} bytes"),
            Self::Line => formatter.write_str("a line has no colon"),
            Self::Name => formatter.write_str("a header has an invalid name"),
            Self::Value => formatter.write_str("a header has an invalid value"),
            Self::Status => formatter.write_str("`Status` is not one number from 200 to 599"),
        }
    }
}

impl std::error::Error for HeadError {}

/// Bytes, with the blank line.
const LARGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<(Head, usize), HeadError> {
        Head::parse(text.as_bytes())
    }

    fn status(text: &str) -> Result<u16, HeadError> {
        parse(text).map(|(head, _)| head.status)
    }

    #[test]
    fn a_head_has_a_status_and_headers_and_ends_at_the_blank_line() {
        let text =
            "Status: 503 Service Unavailable\r\nRetry-After: 2\r\nContent-type: text/html; charset=UTF-8\r\n\r\nbusy";
        let (head, length) = parse(text).expect("a head");
        assert_eq!((head.status, &text[length..]), (503, "busy"));
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.header("retry-after"), Some(&b"2"[..]));
        assert_eq!(head.header("content-type"), Some(&b"text/html; charset=UTF-8"[..]));
        assert_eq!((head.header("status"), head.header("etag")), (None, None));
    }

    #[test]
    fn lines_end_in_crlf_or_lf_and_names_have_any_case() {
        let text = "STATUS: 201\nSet-Cookie: a=1\r\nset-cookie:\t b=2 \t\n\nContent-type: body";
        let (head, length) = parse(text).expect("a head");
        assert_eq!((head.status, &text[length..]), (201, "Content-type: body"));
        let cookie = |value: &[u8]| ("set-cookie".to_owned(), value.to_vec());
        assert_eq!(head.headers, [cookie(b"a=1"), cookie(b"b=2")]);
        assert_eq!(head.header("set-cookie"), Some(&b"a=1"[..]));
    }

    #[test]
    fn without_a_status_it_is_200_or_302_for_a_location() {
        assert_eq!(status("Content-type: text/plain\r\n\r\n"), Ok(200));
        assert_eq!(status("Location: /elsewhere\r\n\r\n"), Ok(302));
        assert_eq!(status("Location: /made\r\nStatus: 201 Created\r\n\r\n"), Ok(201));
    }

    #[test]
    fn a_status_is_a_number_from_200_to_599() {
        for text in ["200", "599", "418 ", "404 Not Found", "302 Found: there"] {
            let number = text[..3].parse().expect("a number");
            assert_eq!(status(&format!("Status: {text}\n\n")), Ok(number), "{text}");
        }
        for text in ["", "20", "2000", "100 Continue", "199", "600", "2x0", "20x", "200OK", "200\tOK", "-200", "+200"] {
            assert_eq!(status(&format!("Status: {text}\n\n")), Err(HeadError::Status), "{text}");
        }
        assert_eq!(status("Status: 200\nstatus: 200\n\n"), Err(HeadError::Status));
    }

    #[test]
    fn what_is_not_a_head_is_refused() {
        for (text, error) in [
            ("", HeadError::Unfinished),
            ("\r\n", HeadError::Empty),
            ("\nbody", HeadError::Empty),
            ("Content-type: text/html\r\n", HeadError::Unfinished),
            ("Content-type: text/html", HeadError::Unfinished),
            ("Warning\n\n", HeadError::Line),
            // PHP with `cgi.rfc2616_headers = 1`.
            ("HTTP/1.1 404 Not Found\r\nContent-type: text/html\r\n\r\n", HeadError::Line),
            (": x\n\n", HeadError::Name),
            ("a b: x\n\n", HeadError::Name),
            ("a : x\n\n", HeadError::Name),
            ("a: x\n folded: y\n\n", HeadError::Name),
            ("n\u{e4}me: x\n\n", HeadError::Name),
            ("a: x\0\n\n", HeadError::Value),
            ("a: x\ry\n\n", HeadError::Value),
            ("a: x\r\r\n\n", HeadError::Value),
            ("a: \x7f\n\n", HeadError::Value),
            ("a: x\x0c\n\n", HeadError::Value),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn values_may_have_any_text() {
        let (head, _) = parse("Set-Meta-Name: zo\u{eb}\t~ :\nX-Empty:\n!#$%&'*+-.^_`|~9: x\n\n").expect("a head");
        assert_eq!(head.header("set-meta-name"), Some("zo\u{eb}\t~ :".as_bytes()));
        assert_eq!(head.header("x-empty"), Some(&b""[..]));
        assert_eq!(head.header("!#$%&'*+-.^_`|~9"), Some(&b"x"[..]));
    }

    #[test]
    fn a_head_has_at_most_16_kib() {
        let head = |value: usize| format!("a: {}\n\nbody", "x".repeat(value));
        let room = LARGEST - "a: \n\n".len();
        assert_eq!(parse(&head(room)).map(|(_, length)| length), Ok(LARGEST));
        assert_eq!(parse(&head(room + 1)), Err(HeadError::TooLarge));
        assert_eq!(parse(&"x".repeat(LARGEST)), Err(HeadError::Unfinished));
        assert_eq!(parse(&"x".repeat(LARGEST + 1)), Err(HeadError::TooLarge));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = |error: HeadError| error.to_string();
        assert_eq!(text(HeadError::Line), "the answer has no valid CGI head: a line has no colon");
        assert_eq!(text(HeadError::TooLarge), "the answer has no valid CGI head: it is larger than 16384 bytes");
    }

    proptest! {
        #[test]
        fn any_headers_are_read_back(
            headers in prop::collection::vec(("x-[a-z0-9]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 1..20),
            body: Vec<u8>,
            is_crlf: bool,
        ) {
            let end = if is_crlf { "\r\n" } else { "\n" };
            let lines = headers.iter().map(|(name, value)| format!("{name}: {value}{end}"));
            let mut bytes = lines.collect::<String>().into_bytes();
            bytes.extend_from_slice(end.as_bytes());
            bytes.extend_from_slice(&body);
            let (head, length) = Head::parse(&bytes).expect("a head");
            let expected: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            prop_assert_eq!((head.status, head.headers, &bytes[length..]), (200, expected, &body[..]));
        }

        #[test]
        fn garbage_does_not_panic(bytes: Vec<u8>, text in "[a-z:0-9 \r\n]{0,200}") {
            let _ = Head::parse(&bytes);
            let _ = Head::parse(text.as_bytes());
        }
    }
}
