//! Pieces of payload into a whole message: lent from the input when it lies within one read, else put together.

use std::borrow::Cow;
use std::fmt;

use crate::frame::Opcode;
use crate::utf8::{self, Utf8};
use crate::{Limits, Violation};

/// A message: text, which is UTF-8, or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// UTF-8 text.
    Text(Cow<'a, str>),
    /// Any bytes.
    Binary(Cow<'a, [u8]>),
}

impl Message<'_> {
    /// The payload, whichever kind it is.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload, whichever kind it is; copied if it is lent.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_owned().into_bytes(),
            Self::Binary(bytes) => bytes.into_owned(),
        }
    }

    /// Copies what is lent, so that the message may outlive the read.
    pub fn into_owned(self) -> Message<'static> {
        match self {
            Self::Text(text) => Message::Text(Cow::Owned(text.into_owned())),
            Self::Binary(bytes) => Message::Binary(Cow::Owned(bytes.into_owned())),
        }
    }

    pub(crate) fn is_owned(&self) -> bool {
        matches!(self, Self::Text(Cow::Owned(_)) | Self::Binary(Cow::Owned(_)))
    }

    pub(crate) fn opcode(&self) -> Opcode {
        match self {
            Self::Text(_) => Opcode::Text,
            Self::Binary(_) => Opcode::Binary,
        }
    }

    pub(crate) fn owned(opcode: Opcode, payload: Vec<u8>) -> Result<Message<'static>, Violation> {
        if opcode == Opcode::Text {
            let text = String::from_utf8(payload).map_err(|_| Violation::InvalidUtf8)?;
            return Ok(Message::Text(Cow::Owned(text)));
        }
        Ok(Message::Binary(Cow::Owned(payload)))
    }
}

impl<'a> Message<'a> {
    #[inline]
    pub(crate) fn lent(opcode: Opcode, payload: &'a [u8]) -> Result<Self, Violation> {
        if opcode == Opcode::Text {
            return Ok(Self::Text(Cow::Borrowed(utf8::text(payload)?)));
        }
        Ok(Self::Binary(Cow::Borrowed(payload)))
    }
}

impl fmt::Display for Message<'_> {
    /// The text; for a binary message, that it is one and how long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Binary(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Message<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Message<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(Cow::Owned(bytes))
    }
}

/// A message that is not whole yet. On the heap, and only while that is so.
#[derive(Debug)]
pub(crate) struct Assembly {
    opcode: Opcode,
    compressed: bool,
    /// What comes is handed on and not kept.
    in_parts: bool,
    fragments: u32,
    utf8: Utf8,
    payload: Vec<u8>,
}

impl Assembly {
    pub(crate) fn new(opcode: Opcode, compressed: bool) -> Self {
        Self { opcode, compressed, in_parts: false, fragments: 0, utf8: Utf8::default(), payload: Vec::new() }
    }

    /// Takes note of another frame, before any of its payload is kept.
    pub(crate) fn announce(&mut self, length: u64, limits: &Limits) -> Result<(), Violation> {
        self.fragments += 1;
        if self.fragments > limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        check_length(self.payload.len(), length, limits)?;
        // Room for what is announced, as far as that is cheap; the rest grows with what really comes.
        let room = usize::try_from(length).map_or(ROOM, |length| length.min(ROOM));
        self.payload.reserve(room);
        Ok(())
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Violation> {
        // Compressed bytes are not text yet; they are checked when they are inflated.
        if self.opcode == Opcode::Text && !self.compressed {
            self.utf8.check(chunk)?;
        }
        self.payload.extend_from_slice(chunk);
        Ok(())
    }

    /// Hands on the next part, behind what was kept before the message was received in parts; `None` if it cannot be,
    /// since it is compressed.
    pub(crate) fn part<'i>(&mut self, chunk: &'i [u8]) -> Result<Option<Cow<'i, [u8]>>, Violation> {
        if self.compressed {
            return Ok(None);
        }
        self.in_parts = true;
        if self.opcode == Opcode::Text {
            self.utf8.check(chunk)?;
        }
        if self.payload.is_empty() {
            return Ok(Some(Cow::Borrowed(chunk)));
        }
        let mut kept = std::mem::take(&mut self.payload);
        kept.extend_from_slice(chunk);
        Ok(Some(Cow::Owned(kept)))
    }

    pub(crate) fn is_in_parts(&self) -> bool {
        self.in_parts
    }

    pub(crate) fn is_text(&self) -> bool {
        self.opcode == Opcode::Text
    }

    /// The message ends here: its text too?
    pub(crate) fn finish(self) -> Result<(), Violation> {
        self.utf8.finish()
    }

    /// Bytes that are kept.
    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.payload.capacity()
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.compressed
    }

    pub(crate) fn into_parts(self) -> Result<(Opcode, Vec<u8>), Violation> {
        self.utf8.finish()?;
        Ok((self.opcode, self.payload))
    }
}

/// RFC 6455 §10.4: limits on frames and on the message they add up to, checked at the header.
pub(crate) fn check_length(so_far: usize, length: u64, limits: &Limits) -> Result<(), Violation> {
    let fits = usize::try_from(length)
        .ok()
        .and_then(|length| so_far.checked_add(length))
        .is_some_and(|total| total <= limits.message);
    if fits { Ok(()) } else { Err(Violation::MessageTooBig) }
}

/// The most that is set aside for a frame by its announced length alone.
const ROOM: usize = 16 << 10;
