//! Chunked content (RFC 9112 §7.1): where it is, and where it ends.

use std::ops::Range;

/// Reads chunks, however they are cut. Extensions and trailers are skipped, within a bound.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// Of the size of a chunk that is being read, or of its content that is still to come.
    left: u64,
    digits: u8,
    /// Bytes of extensions and trailers so far.
    skipped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// Space between a size and its extensions.
    Space,
    Extension,
    SizeEnd,
    Content,
    ContentReturn,
    ContentEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Over,
}

/// What a look at some bytes has given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How many of the bytes belong to the content, its framing included, as far as was looked.
    pub(super) used: usize,
    /// Which of them are content.
    pub(super) content: Range<usize>,
}

/// What came is not chunked as RFC 9112 §7.1 says. Two programs could see its end in different places.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: State::Size, left: 0, digits: 0, skipped: 0 }
    }

    /// Whether the last chunk and its trailers have been read.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Looks at bytes that follow those which were used before, as far as the end of the first piece of content in them. When
    /// none is found and it is not over, all of them were used.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Found, Malformed> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Over => break,
                State::Content => {
                    let count =
                        bytes.len().min(at.saturating_add(usize::try_from(self.left).unwrap_or(usize::MAX))) - at;
                    self.left -= count as u64;
                    if self.left == 0 {
                        self.state = State::ContentReturn;
                    }
                    return Ok(Found { used: at + count, content: at..at + count });
                }
                _ => self.step(byte)?,
            }
            at += 1;
        }
        Ok(Found { used: at, content: at..at })
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                // Sixteen digits fill the number; more are nobody's chunk.
                self.digits += 1;
                if self.digits > 16 {
                    return Err(Malformed);
                }
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Size, _) if self.digits == 0 => return Err(Malformed),
            (State::Size | State::Space, b' ' | b'\t') => self.skip(State::Space)?,
            (State::Size | State::Space, b';') => self.skip(State::Extension)?,
            (State::Size | State::Space | State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if byte != b'\n' && byte != 0 => self.skip(State::Extension)?,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.left == 0 { State::TrailerStart } else { State::Content }
            }
            (State::ContentReturn, b'\r') => State::ContentEnd,
            (State::ContentEnd, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerStart | State::Trailer, byte) if byte != b'\n' && byte != 0 => self.skip(State::Trailer)?,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastEnd, b'\n') => State::Over,
            // A lone CR or LF is no line end here: some take it for one and some do not.
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn skip(&mut self, next: State) -> Result<State, Malformed> {
        self.skipped += 1;
        if self.skipped > MOST_SKIPPED { Err(Malformed) } else { Ok(next) }
    }
}

/// Bytes of extensions and trailers in one request: 16 KiB, as much as a head may have.
const MOST_SKIPPED: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Decoded = Result<Option<(Vec<u8>, Vec<u8>)>, Malformed>;

    /// The content, and what follows it, when the bytes come in pieces of these sizes.
    fn decoded(bytes: &[u8], sizes: &[usize]) -> Decoded {
        let mut chunks = Chunks::new();
        let mut content = Vec::new();
        let mut rest = bytes;
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (mut piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
            while !piece.is_empty() {
                let found = chunks.find(piece)?;
                content.extend_from_slice(&piece[found.content]);
                piece = &piece[found.used..];
                if chunks.is_over() {
                    return Ok(Some((content, [piece, later].concat())));
                }
            }
            rest = later;
        }
        Ok(None)
    }

    #[test]
    fn content_ends_behind_its_last_chunk_and_trailers() {
        for (bytes, content) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5\r\nhello\r\nA\r\n, world 12\r\n000\r\n\r\n", "hello, world 12"),
            ("00000001;a=b;c=\"d\"\r\nx\r\n0 ; e\r\n\r\n", "x"),
            ("1\r\n\r\r\n2\r\n\r\n\r\n0\r\nTrailer: x\r\nY:\r\n\r\n", "\r\r\n"),
        ] {
            for sizes in [&[1][..], &[2, 3], &[1000]] {
                let with_more = format!("{bytes}GET /");
                let expected = Ok(Some((content.into(), b"GET /".to_vec())));
                assert_eq!(decoded(with_more.as_bytes(), sizes), expected, "{bytes:?}");
                assert_eq!(decoded(&bytes.as_bytes()[..bytes.len() - 1], sizes), Ok(None), "{bytes:?}");
            }
        }
    }

    #[test]
    fn what_two_programs_could_read_differently_is_refused() {
        let many = format!("1;{}\r\nx\r\n", "e".repeat(MOST_SKIPPED));
        let long = format!("0\r\n{}\r\n\r\n", "t".repeat(MOST_SKIPPED + 1));
        for bytes in [
            "\r\n",
            ";\r\n",
            "x\r\n",
            " 1\r\nx",
            "-1\r\nx",
            "0x1\r\nx",
            "1\nx",
            "1\r\nxy",
            "1\r\nx\n",
            "1\r\nx\r\r",
            "1;a\nb\r\n",
            "1;a\rb\r\n",
            "1;\0\r\n",
            "1 2\r\n",
            "11111111111111111\r\n",
            "0\r\nA: b\nC",
            "0\r\nA\rb",
            "0\r\n\r0",
            "0\r\n\n",
            &many,
            &long,
        ] {
            assert_eq!(decoded(bytes.as_bytes(), &[1]), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_content_is_found(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            sizes in prop::collection::vec(1_usize..30, 1..8),
            behind: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(decoded(&bytes, &sizes), Ok(Some((parts.concat(), behind))));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(prop::sample::select(&b"0 1af;\r\n\0x"[..]), 0..60)) {
            prop_assert_eq!(decoded(&bytes, &[1]), decoded(&bytes, &[1000]));
        }
    }
}
