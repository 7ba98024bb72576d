//! The body of a response that does not open a connection (RFC 9112 §6, §7.1).

use super::response::ClientResponse;
use crate::handshake::list;

/// Takes the body of a response out of the bytes that follow its head, up to a limit.
///
/// Give it what was received, until [`is_done`](Self::is_done) or the end of the stream. A server can send without end:
/// neither what is kept nor what is read past (the lines of chunks) exceeds the limit; the deadline is the driver's.
#[derive(Clone, Debug)]
pub struct ResponseBody {
    step: Step,
    content: Vec<u8>,
    /// Bytes that may still be kept.
    room: usize,
    /// Bytes of the lines of chunks that may still be read past.
    patience: usize,
    is_complete: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many bytes of a body of known length.
    Length(u64),
    /// All until the stream ends.
    UntilEnd,
    /// The size of a chunk, of which so much is known.
    Size(Option<u64>),
    /// The rest of the line with the size of a chunk.
    Line(u64),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Done,
}

impl ResponseBody {
    /// A body of which up to `most` bytes are kept.
    pub fn new(response: &ClientResponse<'_>, most: usize) -> Self {
        // RFC 9112 §6.3 (1): these have no body.
        let step = if matches!(response.status(), 100..200 | 204 | 304) {
            Some(Step::Length(0))
        } else {
            first_step(response)
        };
        let step = step.unwrap_or(Step::Done);
        let mut body = Self { step, content: Vec::new(), room: most, patience: most, is_complete: false };
        if matches!(step, Step::Length(0)) {
            body.complete();
        }
        body
    }

    /// Takes the next bytes that were received.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.step {
                Step::Done => return,
                Step::Length(_) | Step::UntilEnd | Step::Chunk(_) => {
                    bytes = self.take(bytes);
                    continue;
                }
                Step::Size(_) | Step::Line(_) | Step::ChunkEnd if self.patience == 0 => return self.give_up(),
                Step::Size(size) => self.step = after_digit(size, byte),
                Step::Line(size) if byte == b'\n' => self.begin_chunk(size),
                Step::ChunkEnd if byte == b'\n' => self.step = Step::Size(None),
                // RFC 9112 §7.1.1: extensions of a chunk are ignored.
                Step::Line(_) => {}
                Step::ChunkEnd if byte == b'\r' => {}
                Step::ChunkEnd => return self.give_up(),
            }
            self.patience -= 1;
            bytes = rest;
        }
    }

    /// The stream has ended: the end of a body that has no other.
    pub fn receive_eof(&mut self) {
        match self.step {
            Step::UntilEnd => self.complete(),
            _ => self.give_up(),
        }
    }

    /// Whether nothing more is to be read: the body is complete, as long as it may be, or malformed.
    pub fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Whether this is the whole body.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What has come of it so far.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// What has come of it.
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// Takes bytes of the content; what is left of them.
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let expected = match self.step {
            Step::Length(rest) | Step::Chunk(rest) => usize::try_from(rest).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let there = expected.min(bytes.len());
        let taken = there.min(self.room);
        self.content.extend_from_slice(&bytes[..taken]);
        self.room -= taken;
        if taken < there {
            self.give_up();
            return &[];
        }
        // Not more than there was room for.
        let taken = taken as u64;
        match &mut self.step {
            Step::Length(rest) if *rest == taken => self.complete(),
            Step::Chunk(rest) if *rest == taken => self.step = Step::ChunkEnd,
            Step::Length(rest) | Step::Chunk(rest) => *rest -= taken,
            _ => {}
        }
        &bytes[there..]
    }

    fn begin_chunk(&mut self, size: u64) {
        // RFC 9112 §7.1: the last chunk is empty. The trailers behind it say nothing of the body.
        if size == 0 { self.complete() } else { self.step = Step::Chunk(size) }
    }

    fn complete(&mut self) {
        self.is_complete = true;
        self.give_up();
    }

    fn give_up(&mut self) {
        self.step = Step::Done;
        self.content.shrink_to_fit();
    }
}

/// RFC 9112 §6.3: how the body ends; `None` if that cannot be told, or it would have to be decoded first.
fn first_step(response: &ClientResponse<'_>) -> Option<Step> {
    let mut codings = response.header_values("transfer-encoding").flat_map(list);
    if let Some(coding) = codings.next() {
        let is_chunked = coding.eq_ignore_ascii_case("chunked") && codings.next().is_none();
        return is_chunked.then_some(Step::Size(None));
    }
    // RFC 9110 §8.6: a length that was sent twice counts if it is the same.
    let mut lengths = response.header_values("content-length").flat_map(list);
    let Some(length) = lengths.next() else { return Some(Step::UntilEnd) };
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit()) && lengths.all(|other| other == length);
    is_number.then(|| length.parse().ok()).flatten().map(Step::Length)
}

/// RFC 9112 §7.1: 1*HEXDIG, then an extension or the end of the line.
fn after_digit(size: Option<u64>, byte: u8) -> Step {
    match (char::from(byte).to_digit(16), size) {
        (Some(digit), size) => {
            let size = size.unwrap_or(0).checked_mul(16).map(|size| size + u64::from(digit));
            size.map_or(Step::Done, |size| Step::Size(Some(size)))
        }
        (None, Some(size)) if matches!(byte, b';' | b' ' | b'\t' | b'\r') => Step::Line(size),
        _ => Step::Done,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::HeadLimits;

    const MOST: usize = 64;

    fn body(head: &str) -> ResponseBody {
        let head = format!("HTTP/1.1 {head}\r\n\r\n");
        ResponseBody::new(&ClientResponse::parse(head.as_bytes(), &HeadLimits::default()).expect("a head"), MOST)
    }

    /// What is made of the bytes after this head when they come in pieces: the body, whether it is whole, and whether
    /// the end of the stream had to be waited for.
    fn read(head: &str, bytes: &[u8], size: usize) -> (Vec<u8>, bool, bool) {
        let mut body = body(head);
        for piece in bytes.chunks(size) {
            body.receive(piece);
        }
        let waits = !body.is_done();
        body.receive_eof();
        assert!(body.is_done());
        (body.content().to_vec(), body.is_complete(), waits)
    }

    // RFC 9112 §6.3: a response's body ends by its length, by its last chunk, or with the connection.
    #[test]
    fn a_body_ends_in_each_of_the_ways_of_http() {
        let length = "401 x\r\nContent-Length: 5";
        let chunked = "401 x\r\nTransfer-Encoding: Chunked";
        for (head, bytes, content, is_complete, waits) in [
            (length, "hello", "hello", true, false),
            (length, "hellomore", "hello", true, false),
            (length, "hel", "hel", false, true),
            ("401 x\r\nContent-Length: 0", "more", "", true, false),
            ("401 x\r\nContent-Length: 5, 5", "hello", "hello", true, false),
            ("401 x\r\nContent-Length: 5\r\nContent-Length: 5", "hello", "hello", true, false),
            ("401 x\r\nContent-Length: 5, 6", "hello!", "", false, false),
            ("401 x\r\nContent-Length: +5", "hello", "", false, false),
            ("401 x", "hello", "hello", true, true),
            ("401 x", "", "", true, true),
            (chunked, "5\r\nhello\r\n0\r\n\r\n", "hello", true, false),
            (chunked, "2;a=\"b\"\r\nhe\r\n00003\r\nllo\r\n0\r\nX: y\r\n\r\n", "hello", true, false),
            (chunked, "A\r\n0123456789\r\n0\r\n\r\n", "0123456789", true, false),
            (chunked, "5\r\nhel", "hel", false, true),
            (chunked, "5\r\nhello\r\n", "hello", false, true),
            (chunked, "5\r\nhello!", "hello", false, false),
            (chunked, "x\r\n", "", false, false),
            (chunked, "\r\n", "", false, false),
            (chunked, "-1\r\n", "", false, false),
            (chunked, "fffffffffffffffff\r\n", "", false, false),
            ("401 x\r\nTransfer-Encoding: gzip, chunked", "5\r\nhello", "", false, false),
            // RFC 9112 §6.1: chunks overrule a length.
            ("401 x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2", "1\r\na\r\n0\r\n", "a", true, false),
            // RFC 9112 §6.3 (1): these have none, whatever they say.
            ("304 x\r\nContent-Length: 5", "hello", "", true, false),
            ("204 x", "hello", "", true, false),
        ] {
            for size in [1, 2, 1000] {
                let expected = (content.as_bytes().to_vec(), is_complete, waits);
                assert_eq!(read(head, bytes.as_bytes(), size), expected, "{head} {bytes:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_body_is_kept_up_to_the_limit_and_no_longer() {
        let (full, more) = ([b'x'; MOST], [b'x'; MOST + 1]);
        for (head, bytes, is_complete, waits) in [
            (format!("401 x\r\nContent-Length: {MOST}"), full.to_vec(), true, false),
            (format!("401 x\r\nContent-Length: {}", MOST + 1), more.to_vec(), false, false),
            (format!("401 x\r\nContent-Length: {}", u64::MAX), more.to_vec(), false, false),
            ("401 x".to_owned(), full.to_vec(), true, true),
            ("401 x".to_owned(), more.to_vec(), false, false),
        ] {
            for size in [1, 7, 1000] {
                assert_eq!(read(&head, &bytes, size), (full.to_vec(), is_complete, waits), "{head}");
            }
        }
        let chunked = |chunks: String| read("401 x\r\nTransfer-Encoding: chunked", chunks.as_bytes(), 1000);
        assert_eq!(chunked(format!("40\r\n{}\r\n0\r\n", "x".repeat(MOST))), (full.to_vec(), true, false));
        assert_eq!(chunked(format!("ff\r\n{}", "x".repeat(MOST + 1))), (full.to_vec(), false, false));
        // Lines of chunks that bring nothing count as well.
        assert_eq!(chunked(format!("1;{}", "x".repeat(MOST))), (Vec::new(), false, false));
    }

    proptest! {
        #[test]
        fn any_body_is_read_the_same_in_any_pieces(
            head in prop::sample::select(&["401 x", "401 x\r\nContent-Length: 9", "401 x\r\nTransfer-Encoding: chunked"][..]),
            bytes in "([0-9a-f;]{1,2}|\r\n|[\\PC]){0,40}",
            size in 1_usize..9,
        ) {
            let whole = read(head, bytes.as_bytes(), 1000);
            prop_assert!(whole.0.len() <= MOST);
            prop_assert_eq!(read(head, bytes.as_bytes(), size), whole);
        }
    }
}
