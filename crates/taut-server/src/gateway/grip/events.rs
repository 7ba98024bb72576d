//! The events of WebSocket-over-HTTP: what happened on a connection, as the body of a request or of its answer.
//!
//! An event is `TYPE [SP HEX] CRLF [content CRLF]`. The length counts the content's bytes without its CRLF; without a
//! length there is no content line. Pushpin also reads content that is cut short, negative lengths and bytes after the
//! last event. They are errors here: a guess would show clients text that the backend never sent.

use std::fmt;

use crate::pusher::hex;

/// What happens on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The client asks to connect. In an answer: it is accepted.
    Open,
    Text,
    Binary,
    Ping,
    Pong,
    /// A Close frame. Its content is read by [`Closing`].
    Close,
    /// The client has vanished. In an answer: drop it without a Close frame.
    Disconnect,
}

/// One event. Empty content and none are the same: the libraries write both forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) kind: Kind,
    /// UTF-8 if the kind is [`Kind::Text`].
    pub(crate) content: &'a [u8],
}

/// What a backend's CLOSE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing<'a> {
    /// There is no code, or it is 0, which every library's `close()` sends: echo the client's code, else 1000.
    NoCode,
    /// A code that a Close frame may have, and a reason that fits into it.
    Code(u16, &'a str),
    /// A code that a Close frame must not have (RFC 6455 §7.4): close with 1011, and log it.
    Invalid(u16),
}

/// Why an answer's body is not a list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A line has no end, is longer than [`LONGEST_LINE`], or is not a type and a length.
    Line,
    /// There are fewer bytes than the event declares.
    Short,
    /// The content is not followed by CRLF.
    End,
    /// A text or a reason is not UTF-8.
    Text,
    /// A control frame cannot carry this content: a PING or PONG over 125 bytes, or a CLOSE of one byte.
    Control,
    /// There are more events than the caller takes.
    TooMany,
    /// The first answer does not begin with OPEN, or there is a second OPEN.
    Order,
}

impl Kind {
    /// Whether it is a message of the application.
    pub(crate) fn is_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Close)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Text => "TEXT",
            Self::Binary => "BINARY",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Close => "CLOSE",
            Self::Disconnect => "DISCONNECT",
        }
    }

    fn read(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"OPEN" => Self::Open,
            b"TEXT" => Self::Text,
            b"BINARY" => Self::Binary,
            b"PING" => Self::Ping,
            b"PONG" => Self::Pong,
            b"CLOSE" => Self::Close,
            b"DISCONNECT" => Self::Disconnect,
            _ => return None,
        })
    }
}

impl<'a> Event<'a> {
    pub(crate) fn new(kind: Kind, content: &'a [u8]) -> Self {
        Self { kind, content }
    }

    /// An event without content.
    pub(crate) fn bare(kind: Kind) -> Self {
        Self { kind, content: &[] }
    }

    /// Appends the event.
    ///
    /// Empty messages are written as `TEXT 0` with an empty content line: every library reads this form as an empty
    /// text.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.kind.name().as_bytes());
        if self.content.is_empty() && !self.kind.is_message() {
            out.extend_from_slice(CRLF);
            return;
        }
        out.extend_from_slice(format!(" {:x}\r\n", self.content.len()).as_bytes());
        out.extend_from_slice(self.content);
        out.extend_from_slice(CRLF);
    }
}

/// Reads a whole body: at most `limit` events. Unknown types are skipped, and count.
pub(crate) fn read(body: &[u8], limit: usize) -> Result<Vec<Event<'_>>, Malformed> {
    let mut events = Vec::new();
    let mut rest = body;
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        if count > limit {
            return Err(Malformed::TooMany);
        }
        let line = line(rest)?;
        rest = &rest[line.len() + CRLF.len()..];
        let (name, length) = head(line)?;
        let content = match length {
            None => &[][..],
            Some(length) => take_content(&mut rest, length)?,
        };
        if let Some(kind) = Kind::read(name) {
            events.push(checked(Event { kind, content })?);
        }
    }
    Ok(events)
}

/// A body as a person reads it, a line for each event: messages as text or as hexadecimal digits, and of a CLOSE its
/// code and reason.
pub(crate) fn lines(body: &[u8]) -> Result<Vec<String>, Malformed> {
    let line = |event: &Event<'_>| {
        let (name, content) = (event.kind.name(), event.content);
        if content.is_empty() {
            return name.to_owned();
        }
        match (event.kind, Closing::read(content)) {
            (Kind::Close, Ok(Closing::Code(code, "") | Closing::Invalid(code))) => format!("{name} {code}"),
            (Kind::Close, Ok(Closing::Code(code, reason))) => format!("{name} {code} {reason}"),
            (Kind::Text, _) => format!("{name} {}", String::from_utf8_lossy(content)),
            _ => format!("{name} {}", hex::encode(content)),
        }
    };
    Ok(read(body, usize::MAX)?.iter().map(line).collect())
}

/// Checks that OPEN is the first event of the answer to OPEN, and is nowhere else. An answer without events passes: the
/// caller knows whether the handshake may be answered later.
pub(crate) fn check_order(events: &[Event<'_>], is_opening: bool) -> Result<(), Malformed> {
    let later = match events {
        [first, later @ ..] if is_opening => {
            if first.kind != Kind::Open {
                return Err(Malformed::Order);
            }
            later
        }
        events => events,
    };
    if later.iter().any(|event| event.kind == Kind::Open) { Err(Malformed::Order) } else { Ok(()) }
}

impl<'a> Closing<'a> {
    /// Reads the content of a CLOSE. A reason that is too long for a Close frame is cut.
    pub(crate) fn read(content: &'a [u8]) -> Result<Self, Malformed> {
        let (code, reason) = match content {
            [] => return Ok(Self::NoCode),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
            [_] => return Err(Malformed::Control),
        };
        let reason = std::str::from_utf8(reason).map_err(|_| Malformed::Text)?;
        Ok(match code {
            0 => Self::NoCode,
            code if is_close_code(code) => Self::Code(code, cut_reason(reason)),
            code => Self::Invalid(code),
        })
    }
}

/// Whether a Close frame may have this code. 1004 to 1006 and 1015 are reserved; 1016 to 2999 are not assigned.
pub(crate) fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// As much of a reason as a Close frame holds, whole characters.
pub(crate) fn cut_reason(reason: &str) -> &str {
    let end = (0..=reason.len().min(LONGEST_REASON)).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.unwrap_or(0)]
}

/// The content of a CLOSE for the backend: the client's code and reason.
pub(crate) fn close_content(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// The next line, without its end.
fn line(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let longest = bytes.len().min(LONGEST_LINE + CRLF.len());
    let end = bytes[..longest].windows(CRLF.len()).position(|pair| pair == CRLF).ok_or(Malformed::Line)?;
    Ok(&bytes[..end])
}

/// An event's type, and the length of its content if it has one.
///
/// A type is a word: without that, an HTML page with the right content type would be a list of unknown events.
fn head(line: &[u8]) -> Result<(&[u8], Option<usize>), Malformed> {
    let (name, length) = match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], Some(hexadecimal(&line[space + 1..])?)),
        None => (line, None),
    };
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.iter().all(is_word) {
        return Err(Malformed::Line);
    }
    Ok((name, length))
}

/// Hexadecimal digits and nothing else: `from_str_radix` would take a sign. A number that overflows is larger than any
/// body.
fn hexadecimal(digits: &[u8]) -> Result<usize, Malformed> {
    if digits.is_empty() {
        return Err(Malformed::Line);
    }
    digits.iter().try_fold(0usize, |number, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Malformed::Line)?;
        number.checked_mul(16).and_then(|number| number.checked_add(digit as usize)).ok_or(Malformed::Short)
    })
}

fn take_content<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (content, after) = rest.split_at_checked(length).ok_or(Malformed::Short)?;
    *rest = match after {
        [b'\r', b'\n', after @ ..] => after,
        [] | [b'\r'] => return Err(Malformed::Short),
        _ => return Err(Malformed::End),
    };
    Ok(content)
}

fn checked(event: Event<'_>) -> Result<Event<'_>, Malformed> {
    if event.kind == Kind::Text && std::str::from_utf8(event.content).is_err() {
        return Err(Malformed::Text);
    }
    if event.kind == Kind::Close {
        Closing::read(event.content)?;
    } else if event.kind.is_control() && event.content.len() > LONGEST_CONTROL {
        return Err(Malformed::Control);
    }
    Ok(event)
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Line => "a line is not an event's type and length",
            Self::Short => "an event is shorter than it declares",
            Self::End => "an event's content does not end with CRLF",
            Self::Text => "a text is not UTF-8",
            Self::Control => "a control frame cannot carry its content",
            Self::TooMany => "there are too many events",
            Self::Order => "OPEN is missing or out of place",
        })
    }
}

impl std::error::Error for Malformed {}

const CRLF: &[u8] = b"\r\n";

/// Bytes of a type and a length.
const LONGEST_LINE: usize = 32;

/// Bytes of a control frame's payload (RFC 6455 §5.5).
pub(crate) const LONGEST_CONTROL: usize = 125;

const LONGEST_REASON: usize = LONGEST_CONTROL - 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_recorded_requests_are_written_byte_for_byte() {
        for (vector, kind, content, expected) in [
            ("V1", Kind::Open, &b""[..], &b"OPEN\r\n"[..]),
            ("V2", Kind::Text, "héé".as_bytes(), b"TEXT 5\r\nh\xc3\xa9\xc3\xa9\r\n"),
            ("V3", Kind::Binary, b"\x00\xff\x80", b"BINARY 3\r\n\x00\xff\x80\r\n"),
            ("V4 of a newer Pushpin", Kind::Text, b"", b"TEXT 0\r\n\r\n"),
            ("V4 of a newer Pushpin", Kind::Binary, b"", b"BINARY 0\r\n\r\n"),
            ("V7", Kind::Ping, b"pg", b"PING 2\r\npg\r\n"),
            ("V7 empty", Kind::Ping, b"", b"PING\r\n"),
            ("V7 answer", Kind::Pong, b"", b"PONG\r\n"),
            ("V8", Kind::Close, &close_content(1000, "ok"), b"CLOSE 4\r\n\x03\xe8ok\r\n"),
            ("V9", Kind::Close, b"", b"CLOSE\r\n"),
            ("V10", Kind::Close, &close_content(1000, ""), b"CLOSE 2\r\n\x03\xe8\r\n"),
            ("V11", Kind::Disconnect, b"", b"DISCONNECT\r\n"),
        ] {
            let mut out = Vec::new();
            let event = Event::new(kind, content);
            event.write(&mut out);
            assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{vector}");
            assert_eq!(read(expected, 1), Ok(vec![event]), "{vector}");
        }
    }

    #[test]
    fn a_person_reads_a_line_for_each_event() {
        let body = b"OPEN\r\nTEXT 3\r\nh\xc3\xa9\r\nTEXT 0\r\n\r\nBINARY 2\r\n\x00\xff\r\nPING 1\r\nx\r\nCLOSE 5\r\n\x03\xe8bye\r\nCLOSE 2\r\n\x10\x68\r\nCLOSE 3\r\n\x03\x00x\r\nCLOSE\r\nDISCONNECT\r\n";
        let expected = [
            "OPEN",
            "TEXT hé",
            "TEXT",
            "BINARY 00ff",
            "PING 78",
            "CLOSE 1000 bye",
            "CLOSE 4200",
            "CLOSE 768",
            "CLOSE",
            "DISCONNECT",
        ];
        assert_eq!(lines(body), Ok(expected.map(str::to_owned).to_vec()));
        assert_eq!(lines(b"<html>"), Err(Malformed::Line));
    }

    #[test]
    fn several_messages_share_a_request_as_in_v5_and_v20() {
        let mut out = Vec::new();
        for text in ["m1", "m2"] {
            Event::new(Kind::Text, text.as_bytes()).write(&mut out);
        }
        assert_eq!(out, b"TEXT 2\r\nm1\r\nTEXT 2\r\nm2\r\n");
        out.clear();
        Event::new(Kind::Binary, &vec![7; 65_536]).write(&mut out);
        assert!(out.starts_with(b"BINARY 10000\r\n\x07"));
    }

    #[test]
    fn what_libraries_and_pushpin_write_is_read() {
        for (vector, body, expected) in [
            ("V4", &b"TEXT\r\nBINARY\r\n"[..], vec![Event::bare(Kind::Text), Event::bare(Kind::Binary)]),
            ("V4", b"TEXT 0\r\n\r\n", vec![Event::bare(Kind::Text)]),
            ("V13", b"", vec![]),
            ("O9", b"OPEN 0\r\n\r\n", vec![Event::bare(Kind::Open)]),
            (
                "O10",
                b"OPEN\r\nTEXT 0A\r\n0123456789\r\n",
                vec![Event::bare(Kind::Open), Event::new(Kind::Text, b"0123456789")],
            ),
            (
                "O11",
                b"OPEN\r\nFROB 2\r\nxx\r\nTEXT 2\r\nok\r\n",
                vec![Event::bare(Kind::Open), Event::new(Kind::Text, b"ok")],
            ),
            (
                "O14",
                b"OPEN\r\nTEXT 3\r\nbye\r\nCLOSE 9\r\n\x0f\xa1go away\r\n",
                vec![
                    Event::bare(Kind::Open),
                    Event::new(Kind::Text, b"bye"),
                    Event::new(Kind::Close, b"\x0f\xa1go away"),
                ],
            ),
            ("PHP", b"TEXT B\r\nm:[bob] h\xc3\xa9\r\n", vec![Event::new(Kind::Text, "m:[bob] hé".as_bytes())]),
            ("a CRLF in a message", b"TEXT 4\r\n\r\n\r\n\r\n", vec![Event::new(Kind::Text, b"\r\n\r\n")]),
            ("case", b"open\r\n", vec![]),
        ] {
            assert_eq!(read(body, 10), Ok(expected), "{vector}");
        }
    }

    #[test]
    fn what_pushpin_guesses_at_is_refused() {
        for (vector, body, expected) in [
            ("O8", &b"OPEN\n"[..], Malformed::Line),
            ("O12", b"OPEN\r\nTEXT 50\r\nshort\r\n", Malformed::Short),
            ("O13", b"OPEN\r\nTEXT -5\r\n", Malformed::Line),
            ("a sign", b"TEXT +1\r\na\r\n", Malformed::Line),
            ("a prefix", b"TEXT 0x1\r\na\r\n", Malformed::Line),
            ("no digits", b"TEXT \r\n", Malformed::Line),
            ("two spaces", b"TEXT  1\r\na\r\n", Malformed::Line),
            ("more than a length", b"TEXT 1 2\r\na\r\n", Malformed::Line),
            ("2^64", b"TEXT 10000000000000000\r\na\r\n", Malformed::Short),
            ("2^64 - 1", b"TEXT ffffffffffffffff\r\na\r\n", Malformed::Short),
            ("content too long", b"TEXT 1\r\nab\r\n", Malformed::End),
            ("no CRLF after the content", b"TEXT 1\r\na", Malformed::Short),
            ("half of it", b"TEXT 1\r\na\r", Malformed::Short),
            ("a bare LF after the content", b"TEXT 1\r\na\n", Malformed::End),
            ("§3", b"garbage without end", Malformed::Line),
            ("bytes after the last event", b"OPEN\r\nx", Malformed::Line),
            ("an empty line", b"OPEN\r\n\r\n", Malformed::Line),
            ("HTML", b"<b>hi</b>\r\n", Malformed::Line),
            ("a line of 33 bytes", b"TEXT 000000000000000000000000000a\r\n0123456789\r\n", Malformed::Line),
            ("V18", b"TEXT 2\r\n\xff\xfe\r\n", Malformed::Text),
            ("a reason that is not UTF-8", b"CLOSE 3\r\n\x03\xe8\xff\r\n", Malformed::Text),
            ("half a code", b"CLOSE 1\r\n\x03\r\n", Malformed::Control),
        ] {
            assert_eq!(read(body, 10), Err(expected), "{vector}");
        }
        let line = b"TEXT 00000000000000000000000000a\r\n0123456789\r\n";
        assert_eq!(read(line, 1), Ok(vec![Event::new(Kind::Text, b"0123456789")]), "32 bytes");
        assert_eq!(read(b"TEXT 1\r\na\r\nFROB\r\n", 1), Err(Malformed::TooMany));
    }

    #[test]
    fn memory_follows_what_is_there_and_not_what_is_declared() {
        assert_eq!(read(b"TEXT 7fffffffffffffff\r\na\r\n", 10), Err(Malformed::Short));
        let body = b"FROB 1\r\na\r\n".repeat(1000);
        let skipped = read(&body, usize::MAX).expect("events");
        assert_eq!((skipped.len(), skipped.capacity()), (0, 0));
    }

    #[test]
    fn a_control_frame_holds_125_bytes() {
        let written = |kind, length| {
            let mut out = Vec::new();
            Event::new(kind, &vec![b'a'; length]).write(&mut out);
            out
        };
        assert!(read(&written(Kind::Ping, 125), 1).is_ok());
        assert_eq!(read(&written(Kind::Ping, 126), 1), Err(Malformed::Control));
        assert!(read(&written(Kind::Binary, 126), 1).is_ok());
    }

    #[test]
    fn open_stands_first_and_once() {
        let order = |body, is_opening| check_order(&read(body, 9).expect("events"), is_opening);
        assert_eq!(order(b"OPEN\r\nTEXT\r\n", true), Ok(()));
        assert_eq!(order(b"", true), Ok(()), "O6, O7");
        assert_eq!(order(b"TEXT 2\r\nhi\r\n", true), Err(Malformed::Order), "O8");
        assert_eq!(order(b"FROB\r\nOPEN\r\n", true), Ok(()), "O11");
        assert_eq!(order(b"OPEN\r\nOPEN\r\n", true), Err(Malformed::Order));
        assert_eq!(order(b"TEXT\r\n", false), Ok(()));
        assert_eq!(order(b"TEXT\r\nOPEN\r\n", false), Err(Malformed::Order), "§3");
    }

    #[test]
    fn a_close_tells_its_code_or_that_it_has_none() {
        for (vector, content, expected) in [
            ("V8", &b"\x03\xe8ok"[..], Ok(Closing::Code(1000, "ok"))),
            ("V9", b"", Ok(Closing::NoCode)),
            ("V15", b"\x0f\xa1by app", Ok(Closing::Code(4001, "by app"))),
            ("V16", b"\x00\x00", Ok(Closing::NoCode)),
            ("V17", b"\x03\xed", Ok(Closing::Invalid(1005))),
            ("one byte", b"\x03", Err(Malformed::Control)),
        ] {
            assert_eq!(Closing::read(content), expected, "{vector}");
        }
        let invalid = [1u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX];
        assert!(invalid.iter().all(|code| Closing::read(&code.to_be_bytes()) == Ok(Closing::Invalid(*code))));
        let valid = [1000u16, 1001, 1003, 1007, 1014, 3000, 4999];
        assert!(valid.iter().all(|code| Closing::read(&code.to_be_bytes()) == Ok(Closing::Code(*code, ""))));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let content = close_content(1000, &"é".repeat(100));
        assert_eq!(Closing::read(&content), Ok(Closing::Code(1000, "é".repeat(61).as_str())));
        assert_eq!(cut_reason(""), "");
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Open),
            Just(Kind::Text),
            Just(Kind::Binary),
            Just(Kind::Ping),
            Just(Kind::Pong),
            Just(Kind::Disconnect),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(events in prop::collection::vec((any_kind(), "[^\0]{0,30}"), 0..20)) {
            let events: Vec<_> = events.iter().map(|(kind, text)| Event::new(*kind, text.as_bytes())).collect();
            let mut out = Vec::new();
            for event in &events {
                event.write(&mut out);
            }
            prop_assert_eq!(read(&out, 20), Ok(events));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, 100);
            let _ = Closing::read(&bytes);
        }

        #[test]
        fn nothing_nearly_right_makes_the_reader_panic(
            body in "(TEXT|OPEN|CLOSE|PING|X)( [0-9a-fA-F]{0,20})?\r\n.{0,10}(\r\n)?(TEXT 1\r\na)?",
        ) {
            // Each event takes at least the bytes of its content and six more.
            if let Ok(events) = read(body.as_bytes(), 100) {
                let least: usize = events.iter().map(|event| event.content.len() + 6).sum();
                prop_assert!(least <= body.len());
            }
        }

        #[test]
        fn every_cut_of_a_body_is_refused_or_ends_between_events(texts in prop::collection::vec("[a-z]{0,9}", 1..5)) {
            let mut out = Vec::new();
            let mut ends = vec![0];
            for text in &texts {
                Event::new(Kind::Text, text.as_bytes()).write(&mut out);
                ends.push(out.len());
            }
            for end in 0..=out.len() {
                prop_assert_eq!(read(&out[..end], 9).is_ok(), ends.contains(&end));
            }
        }

        #[test]
        fn a_reason_always_fits(code in 3000u16..5000, reason: String) {
            let content = close_content(code, &reason);
            let Ok(Closing::Code(_, cut)) = Closing::read(&content) else { panic!("a code") };
            prop_assert!(cut.len() <= LONGEST_REASON && reason.starts_with(cut));
        }
    }
}
