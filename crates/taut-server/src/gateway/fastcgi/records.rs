//! FastCGI records: what a web server writes, and what an application answers. No I/O.
//!
//! FastCGI 1.0 §3.3 (records), §3.4 (name-value pairs), §5 (record types) and §6.2 (responders):
//! <https://fastcgi-archives.github.io/FastCGI_Specification.html>

use std::borrow::Cow;
use std::fmt;

/// Writes one request: `BEGIN_REQUEST`, PARAMS, STDIN (§6.2).
///
/// Records have no padding: the specification only proposes it, and php-fpm copies what it reads anyway.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Where the header of the last PARAMS record starts.
    params: Option<usize>,
}

impl Writer {
    /// Begins a request. With `keep` the application leaves the connection open after its answer (§5.1), which binds a
    /// worker of php-fpm to this connection.
    pub(crate) fn begin(keep: bool) -> Self {
        let mut writer = Self { bytes: Vec::with_capacity(SMALL_REQUEST), params: None };
        writer.record(BEGIN_REQUEST, &[0, RESPONDER, u8::from(keep), 0, 0, 0, 0, 0]);
        writer
    }

    /// Adds a parameter.
    ///
    /// A pair never crosses two records. The specification allows that, but php-fpm parses each record by itself and
    /// resets the connection if a pair ends in the next one.
    ///
    /// # Errors
    /// When the pair does not fit into one record.
    pub(crate) fn param(&mut self, name: &[u8], value: &[u8]) -> Result<(), PairTooLarge> {
        let size = pair_size(name, value);
        if size > LARGEST_CONTENT {
            return Err(PairTooLarge);
        }
        let has_room = |start: usize| self.bytes.len() - (start + HEADER) + size <= LARGEST_CONTENT;
        let start = match self.params {
            Some(start) if has_room(start) => start,
            _ => self.record(PARAMS, &[]),
        };
        self.params = Some(start);
        self.length(name.len());
        self.length(value.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let content = (self.bytes.len() - start - HEADER) as u16;
        self.bytes[start + 4..start + 6].copy_from_slice(&content.to_be_bytes());
        Ok(())
    }

    /// Ends the parameters, adds the body, and returns the bytes of the whole request.
    pub(crate) fn finish(mut self, body: &[u8]) -> Vec<u8> {
        self.bytes.reserve(body.len() + (body.len() / LARGEST_CONTENT + 3) * HEADER);
        self.record(PARAMS, &[]);
        for part in body.chunks(LARGEST_CONTENT) {
            self.record(STDIN, part);
        }
        self.record(STDIN, &[]);
        self.bytes
    }

    /// Writes a record of at most 65,535 bytes, and returns where it starts.
    fn record(&mut self, kind: u8, content: &[u8]) -> usize {
        let start = self.bytes.len();
        let [id_high, id_low] = REQUEST_ID.to_be_bytes();
        let [length_high, length_low] = (content.len() as u16).to_be_bytes();
        self.bytes.extend_from_slice(&[VERSION, kind, id_high, id_low, length_high, length_low, 0, 0]);
        self.bytes.extend_from_slice(content);
        start
    }

    /// The length of a name or a value: one byte below 128, otherwise four with the top bit set (§3.4).
    fn length(&mut self, length: usize) {
        match length {
            0..=127 => self.bytes.push(length as u8),
            _ => self.bytes.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
        }
    }
}

/// The bytes that a pair takes in a PARAMS record.
fn pair_size(name: &[u8], value: &[u8]) -> usize {
    [name, value].iter().map(|part| if part.len() < 128 { 1 + part.len() } else { 4 + part.len() }).sum()
}

/// A parameter that does not fit into one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairTooLarge;

impl fmt::Display for PairTooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a FastCGI parameter is larger than {LARGEST_CONTENT} bytes")
    }
}

impl std::error::Error for PairTooLarge {}

/// Reads an answer from bytes that come in any chunks.
///
/// Content goes to where it belongs at once, so a reader never holds more than its limits, whatever a record's header
/// promises.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Bytes of STDOUT.
    limit: usize,
    /// A header, or the content of `END_REQUEST`: both are 8 bytes.
    eight: Eight,
    /// The record whose content or padding is still to come.
    record: Option<Record>,
    end: Option<End>,
    stdout: Vec<u8>,
    stderr: Stderr,
}

impl Reader {
    /// A reader that takes at most this many bytes of STDOUT: a CGI head and a body.
    pub(crate) fn new(limit: usize) -> Self {
        let (eight, stdout, stderr) = (Eight::default(), Vec::new(), Stderr::default());
        Self { limit, eight, record: None, end: None, stdout, stderr }
    }

    /// Reads the next bytes. Returns how the request ended once `END_REQUEST` was read; what comes after it is ignored.
    ///
    /// # Errors
    /// When the bytes are not an answer, or STDOUT is larger than the limit. The reader is of no use then.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Option<End>, RecordError> {
        while self.end.is_none() && !bytes.is_empty() {
            match &mut self.record {
                None => {
                    if let Some(header) = self.eight.fill(&mut bytes) {
                        self.record = Some(Record::parse(header)?);
                    }
                }
                Some(Record { content: 0, padding: 0, .. }) => self.record = None,
                Some(Record { content: 0, padding, .. }) => *padding -= take(&mut bytes, *padding).len(),
                Some(Record { content, kind, .. }) => {
                    let (part, kind) = (take(&mut bytes, *content), *kind);
                    *content -= part.len();
                    self.content(kind, part)?;
                }
            }
        }
        Ok(self.end)
    }

    /// What was read of STDOUT and STDERR.
    pub(crate) fn into_output(self) -> (Vec<u8>, Stderr) {
        (self.stdout, self.stderr)
    }

    fn content(&mut self, kind: Kind, mut part: &[u8]) -> Result<(), RecordError> {
        match kind {
            Kind::Stdout if part.len() > self.limit - self.stdout.len() => {
                return Err(RecordError::TooLarge(self.limit));
            }
            Kind::Stdout => self.stdout.extend_from_slice(part),
            Kind::Stderr => self.stderr.push(part),
            Kind::Management => {}
            Kind::End => {
                if let Some(content) = self.eight.fill(&mut part) {
                    self.end = Some(self.ended(content)?);
                }
            }
        }
        Ok(())
    }

    /// `END_REQUEST` (§5.5). Its application status is not read: php-fpm says 0 even after an uncaught exception.
    fn ended(&self, content: [u8; 8]) -> Result<End, RecordError> {
        let rejection = match content[4] {
            0 => return Ok(End::Complete),
            1 => Rejection::CannotMultiplex,
            2 => Rejection::Overloaded,
            3 => Rejection::UnknownRole,
            other => return Err(RecordError::Status(other)),
        };
        // A rejected request is one that may be repeated, and one with output was not rejected.
        let has_output = !self.stdout.is_empty() || !self.stderr.is_empty();
        if has_output { Err(RecordError::RejectedLate) } else { Ok(End::Rejected(rejection)) }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Rejected(Rejection),
}

/// Why an application did not accept a request (§5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    CannotMultiplex,
    Overloaded,
    UnknownRole,
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CannotMultiplex => "it takes one request per connection",
            Self::Overloaded => "it is overloaded",
            Self::UnknownRole => "it is not a responder",
        })
    }
}

/// What an application wrote to STDERR, for the log: the first 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stderr {
    text: Vec<u8>,
    dropped: u64,
}

impl Stderr {
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    /// How many bytes came after those that were kept.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn push(&mut self, part: &[u8]) {
        let (kept, dropped) = part.split_at(part.len().min(MOST_STDERR - self.text.len()));
        self.text.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }
}

/// The bytes are not an answer to our request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    Version(u8),
    /// A record of a request that nobody made.
    RequestId(u16),
    /// A record that an application does not send.
    Type(u8),
    EndLength(u16),
    /// A protocol status that the specification does not know.
    Status(u8),
    /// A rejection after output.
    RejectedLate,
    /// More of STDOUT than this limit.
    TooLarge(usize),
}

impl fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::TooLarge(limit) = self {
            return write!(formatter, "the answer is larger than {limit} bytes");
        }
        formatter.write_str("the server does not speak FastCGI 1.0: ")?;
        match self {
            Self::Version(version) => write!(formatter, "a record has version {version}"),
            Self::RequestId(id) => write!(formatter, "a record belongs to request {id}, which was not sent"),
            Self::Type(kind) => write!(formatter, "an application does not send records of type {kind}"),
            Self::EndLength(length) => write!(formatter, "END_REQUEST has {length} bytes instead of 8"),
            Self::Status(status) => write!(formatter, "END_REQUEST has protocol status {status}"),
            Self::RejectedLate => formatter.write_str("END_REQUEST rejects a request that has output"),
            Self::TooLarge(_) => Ok(()),
        }
    }
}

impl std::error::Error for RecordError {}

/// What is left of a record.
#[derive(Debug)]
struct Record {
    kind: Kind,
    content: usize,
    padding: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Stdout,
    Stderr,
    End,
    /// About the application, not about a request. Nothing was asked, so nothing is read.
    Management,
}

impl Record {
    /// Reads a header (§3.3).
    fn parse(
        [version, kind, id_high, id_low, length_high, length_low, padding, _]: [u8; 8],
    ) -> Result<Self, RecordError> {
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let id = u16::from_be_bytes([id_high, id_low]);
        let length = u16::from_be_bytes([length_high, length_low]);
        let kind = match (id, kind) {
            (NO_REQUEST, GET_VALUES_RESULT | UNKNOWN_TYPE) => Kind::Management,
            (REQUEST_ID, STDOUT) => Kind::Stdout,
            (REQUEST_ID, STDERR) => Kind::Stderr,
            (REQUEST_ID, END_REQUEST) if length != 8 => return Err(RecordError::EndLength(length)),
            (REQUEST_ID, END_REQUEST) => Kind::End,
            (_, STDOUT | STDERR | END_REQUEST) => return Err(RecordError::RequestId(id)),
            (_, kind) => return Err(RecordError::Type(kind)),
        };
        Ok(Self { kind, content: length.into(), padding: padding.into() })
    }
}

/// Eight bytes that come in pieces.
#[derive(Debug, Default)]
struct Eight {
    bytes: [u8; 8],
    len: usize,
}

impl Eight {
    /// Takes what is missing, and returns all once they are eight.
    fn fill(&mut self, bytes: &mut &[u8]) -> Option<[u8; 8]> {
        let part = take(bytes, 8 - self.len);
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len = (self.len + part.len()) % 8;
        (self.len == 0).then_some(self.bytes)
    }
}

/// Takes at most this many bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    part
}

const VERSION: u8 = 1;

/// The id of every request: a connection carries one.
const REQUEST_ID: u16 = 1;

/// The request id of management records (§3.3).
const NO_REQUEST: u16 = 0;

const RESPONDER: u8 = 1;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const GET_VALUES_RESULT: u8 = 10;
const UNKNOWN_TYPE: u8 = 11;

/// Bytes of a record's header.
const HEADER: usize = 8;

/// Bytes of a record's content.
const LARGEST_CONTENT: usize = u16::MAX as usize;

/// Bytes that are kept of STDERR.
const MOST_STDERR: usize = 64 * 1024;

/// Bytes of a request with usual headers and a small body.
const SMALL_REQUEST: usize = 2048;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record as an application writes it.
    pub(crate) fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
        let ([id_high, id_low], [length_high, length_low]) = (id.to_be_bytes(), (content.len() as u16).to_be_bytes());
        let header = [1, kind, id_high, id_low, length_high, length_low, padding, 0];
        [&header[..], content, &vec![0xee; padding.into()]].concat()
    }

    pub(crate) fn end(status: u8) -> Vec<u8> {
        record(END_REQUEST, 1, &[0, 0, 0, 9, status, 0, 0, 0], 0)
    }

    /// Reads all of these, and returns STDOUT and STDERR.
    fn read(bytes: &[u8], limit: usize) -> Result<(Option<End>, Vec<u8>, Stderr), RecordError> {
        let mut reader = Reader::new(limit);
        let end = reader.push(bytes)?;
        let (stdout, stderr) = reader.into_output();
        Ok((end, stdout, stderr))
    }

    /// What an application reads of a request: parameters and body, and whether the connection is kept.
    #[derive(Debug, Default, PartialEq)]
    struct Received {
        keep: bool,
        params: Vec<(Vec<u8>, Vec<u8>)>,
        body: Vec<u8>,
    }

    /// Reads a request as php-fpm does: records in this order, and each PARAMS record by itself.
    fn receive(mut bytes: &[u8]) -> Received {
        let mut next = |kind: u8| {
            let header = take(&mut bytes, HEADER);
            assert_eq!([header[0], header[1], header[2], header[3], header[6]], [1, kind, 0, 1, 0]);
            let length = u16::from_be_bytes([header[4], header[5]]).into();
            let content = take(&mut bytes, length);
            assert_eq!(content.len(), length);
            (content, bytes.len())
        };
        let (begin, _) = next(BEGIN_REQUEST);
        assert!(begin.len() == 8 && begin[..2] == [0, 1] && begin[3..] == [0; 5], "{begin:?}");
        let mut received = Received { keep: begin[2] == 1, ..Received::default() };
        loop {
            let (mut content, _) = next(PARAMS);
            if content.is_empty() {
                break;
            }
            while !content.is_empty() {
                let lengths = [length(&mut content), length(&mut content)];
                let [name, value] = lengths.map(|length| {
                    let part = take(&mut content, length).to_vec();
                    assert_eq!(part.len(), length, "a pair crosses two records");
                    part
                });
                received.params.push((name, value));
            }
        }
        loop {
            let (content, left) = next(STDIN);
            if content.is_empty() {
                assert_eq!(left, 0);
                return received;
            }
            received.body.extend_from_slice(content);
        }
    }

    fn length(bytes: &mut &[u8]) -> usize {
        let first = take(bytes, 1)[0];
        if first < 128 {
            return first.into();
        }
        let rest = take(bytes, 3);
        u32::from_be_bytes([first & 127, rest[0], rest[1], rest[2]]) as usize
    }

    fn write(params: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> Vec<u8> {
        let mut writer = Writer::begin(false);
        for (name, value) in params {
            writer.param(name, value).expect("it fits");
        }
        writer.finish(body)
    }

    #[test]
    fn a_request_has_the_bytes_that_php_fpm_reads() {
        let mut writer = Writer::begin(false);
        writer.param(b"REQUEST_METHOD", b"POST").expect("it fits");
        writer.param(b"SCRIPT_FILENAME", b"/srv/app.php").expect("it fits");
        let expected = [
            &b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..],
            b"\x01\x04\x00\x01\x00\x31\x00\x00\x0e\x04REQUEST_METHODPOST\x0f\x0cSCRIPT_FILENAME/srv/app.php",
            b"\x01\x04\x00\x01\x00\x00\x00\x00",
            b"\x01\x05\x00\x01\x00\x02\x00\x00{}",
            b"\x01\x05\x00\x01\x00\x00\x00\x00",
        ];
        assert_eq!(writer.finish(b"{}"), expected.concat());
        assert_eq!(
            Writer::begin(true).finish(b"")[..16],
            *b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00"
        );
    }

    #[test]
    fn a_length_from_128_on_has_four_bytes() {
        let pair = |length: usize| write(&[(b"HTTP_X".to_vec(), vec![b'a'; length])], b"")[24..].to_vec();
        assert!(pair(127).starts_with(b"\x06\x7fHTTP_Xaaa"));
        assert!(pair(128).starts_with(b"\x06\x80\x00\x00\x80HTTP_Xaaa"));
        assert!(pair(0x1234).starts_with(b"\x06\x80\x00\x12\x34HTTP_Xaaa"));
    }

    #[test]
    fn a_pair_crosses_no_record_and_a_larger_one_is_an_error() {
        let pair = |size: usize| (b"n".to_vec(), vec![b'v'; size - 1 - 1 - 4]);
        for sizes in [
            &[LARGEST_CONTENT][..],
            &[LARGEST_CONTENT - 200, 200],
            &[LARGEST_CONTENT - 200, 201],
            &[40_000, 40_000, 200],
        ] {
            let pairs: Vec<_> = sizes.iter().map(|&size| pair(size)).collect();
            assert_eq!(receive(&write(&pairs, b"")).params, pairs, "{sizes:?}");
        }
        // Two that fit exactly share a record.
        let shared = write(&[pair(LARGEST_CONTENT - 200), pair(200)], b"");
        assert_eq!(shared[16..24], [1, 4, 0, 1, 0xff, 0xff, 0, 0]);
        let (name, value) = pair(LARGEST_CONTENT + 1);
        assert_eq!(Writer::begin(false).param(&name, &value), Err(PairTooLarge));
        assert!(PairTooLarge.to_string().contains("65535 bytes"));
    }

    #[test]
    fn a_large_body_takes_several_records() {
        for length in [0, 1, LARGEST_CONTENT, LARGEST_CONTENT + 1, 3 * LARGEST_CONTENT] {
            let body: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let bytes = write(&[], &body);
            assert_eq!(receive(&bytes).body, body, "{length}");
            assert_eq!(bytes.len(), 16 + 8 + length + 8 * length.div_ceil(LARGEST_CONTENT) + 8);
        }
    }

    #[test]
    fn an_answer_of_php_fpm_is_read() {
        let head =
            b"Status: 503 Service Unavailable\r\nRetry-After: 2\r\nContent-type: text/html; charset=UTF-8\r\n\r\nbusy";
        let warning = b"PHP message: PHP Warning:  Undefined variable $undefined in app.php on line 4";
        let end = b"\x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        let bytes = [&record(STDERR, 1, warning, 4)[..], &record(STDOUT, 1, head, 1), end].concat();
        let (end, stdout, stderr) = read(&bytes, 1000).expect("an answer");
        assert_eq!((end, &stdout[..]), (Some(End::Complete), &head[..]));
        assert_eq!((stderr.text().as_bytes(), stderr.dropped(), stderr.is_empty()), (&warning[..], 0, false));
    }

    #[test]
    fn an_answer_ends_with_end_request_and_not_before() {
        let bytes =
            [record(STDOUT, 1, b"a", 0), record(STDOUT, 1, b"", 255), record(STDOUT, 1, b"b", 0), end(0)].concat();
        for length in 0..bytes.len() {
            let (end, ..) = read(&bytes[..length], 10).expect("so far");
            assert_eq!(end, None, "{length}");
        }
        // Padding of END_REQUEST and what comes after it do not matter.
        let (end, stdout, _) = read(&[&bytes[..], b"HTTP/1.1"].concat(), 10).expect("an answer");
        assert_eq!((end, &stdout[..]), (Some(End::Complete), &b"ab"[..]));
    }

    #[test]
    fn management_records_are_skipped() {
        let values = record(GET_VALUES_RESULT, 0, b"\x0f\x01FCGI_MPXS_CONNS0", 3);
        let unknown = record(UNKNOWN_TYPE, 0, &[99, 0, 0, 0, 0, 0, 0, 0], 0);
        let bytes = [values, unknown, record(STDOUT, 1, b"a", 0), end(0)].concat();
        assert_eq!(read(&bytes, 1), Ok((Some(End::Complete), b"a".to_vec(), Stderr::default())));
    }

    #[test]
    fn a_rejection_is_one_only_without_output() {
        for (status, rejection) in
            [(1, Rejection::CannotMultiplex), (2, Rejection::Overloaded), (3, Rejection::UnknownRole)]
        {
            let (end_request, ..) = read(&end(status), 0).expect("an end");
            assert_eq!(end_request, Some(End::Rejected(rejection)));
            for kind in [STDOUT, STDERR] {
                let bytes = [record(kind, 1, b"a", 0), end(status)].concat();
                assert_eq!(read(&bytes, 1), Err(RecordError::RejectedLate));
            }
        }
        assert_eq!(read(&end(4), 0), Err(RecordError::Status(4)));
    }

    #[test]
    fn what_no_application_sends_is_refused() {
        let mut version = end(0);
        version[0] = 2;
        for (bytes, error) in [
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), RecordError::Version(b'H')),
            (version, RecordError::Version(2)),
            (record(STDOUT, 2, b"a", 0), RecordError::RequestId(2)),
            (record(STDERR, 257, b"a", 0), RecordError::RequestId(257)),
            (record(END_REQUEST, 0, &[0; 8], 0), RecordError::RequestId(0)),
            (record(GET_VALUES_RESULT, 1, b"", 0), RecordError::Type(10)),
            (record(UNKNOWN_TYPE, 1, b"", 0), RecordError::Type(11)),
            (record(BEGIN_REQUEST, 1, &[0; 8], 0), RecordError::Type(1)),
            (record(PARAMS, 1, b"", 0), RecordError::Type(4)),
            (record(STDIN, 1, b"", 0), RecordError::Type(5)),
            (record(12, 1, b"", 0), RecordError::Type(12)),
            (record(0, 0, b"", 0), RecordError::Type(0)),
            (record(END_REQUEST, 1, &[0; 7], 0), RecordError::EndLength(7)),
            (record(END_REQUEST, 1, &[0; 9], 0), RecordError::EndLength(9)),
            (record(END_REQUEST, 1, b"", 0), RecordError::EndLength(0)),
        ] {
            assert_eq!(read(&bytes, 1), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn stdout_has_a_limit() {
        let bytes = [record(STDOUT, 1, b"abc", 0), record(STDOUT, 1, b"de", 0), end(0)].concat();
        assert!(read(&bytes, 5).is_ok());
        assert_eq!(read(&bytes, 4), Err(RecordError::TooLarge(4)));
        assert_eq!(read(&bytes, 0), Err(RecordError::TooLarge(0)));
        assert_eq!(RecordError::TooLarge(4).to_string(), "the answer is larger than 4 bytes");
        assert_eq!(
            RecordError::Version(72).to_string(),
            "the server does not speak FastCGI 1.0: a record has version 72"
        );
    }

    #[test]
    fn ten_megabytes_of_stderr_take_64_kib() {
        let mut reader = Reader::new(10);
        let line = record(STDERR, 1, &[b'x'; 10_000], 0);
        for _ in 0..1000 {
            assert_eq!(reader.push(&line), Ok(None));
        }
        let (_, stderr) = reader.into_output();
        assert_eq!((stderr.text.len(), stderr.dropped), (MOST_STDERR, 10_000_000 - 65_536));
        assert!(stderr.text.capacity() <= 2 * MOST_STDERR);
    }

    /// So many bytes at most. To draw each of them would take seconds.
    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        (0..most, any::<u8>()).prop_map(|(length, first)| (0..length).map(|at| first.wrapping_add(at as u8)).collect())
    }

    fn content() -> impl Strategy<Value = (u8, Vec<u8>, u8)> {
        (prop::sample::select(vec![STDOUT, STDERR]), prop::collection::vec(any::<u8>(), 0..300), any::<u8>())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            params in prop::collection::vec((bytes(200), bytes(40_000)), 0..12),
            body in bytes(200_000),
        ) {
            let received = receive(&write(&params, &body));
            prop_assert_eq!(received, Received { keep: false, params, body });
        }

        #[test]
        fn an_answer_may_come_in_any_chunks(
            records in prop::collection::vec(content(), 0..8),
            cuts in prop::collection::vec(1..400_usize, 1..40),
        ) {
            let mut bytes = Vec::new();
            let (mut written_stdout, mut written_stderr) = (Vec::new(), Vec::new());
            for (kind, content, padding) in &records {
                bytes.extend(record(*kind, 1, content, *padding));
                let stream = if *kind == STDOUT { &mut written_stdout } else { &mut written_stderr };
                stream.extend_from_slice(content);
            }
            bytes.extend(end(0));
            let mut reader = Reader::new(10_000);
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let end = reader.push(take(&mut rest, *cut)).expect("an answer");
                prop_assert_eq!(end, rest.is_empty().then_some(End::Complete));
                if rest.is_empty() {
                    break;
                }
            }
            let (stdout, stderr) = reader.into_output();
            prop_assert_eq!((stdout, stderr.text), (written_stdout, written_stderr));
        }

        #[test]
        fn garbage_gives_the_same_in_any_chunks(
            bytes: Vec<u8>, kind in 0..13_u8, id in 0..3_u16, content: Vec<u8>, padding: u8,
        ) {
            let bytes = [record(kind, id, &content, padding), bytes].concat();
            let mut reader = Reader::new(100);
            let by_one = bytes.iter().try_fold(None, |_, byte| reader.push(&[*byte]));
            let whole = read(&bytes, 100);
            prop_assert_eq!(by_one, whole.map(|(end, ..)| end));
        }
    }
}
