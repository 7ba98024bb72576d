//! Pieces of payload into a whole message: lent from the input when it lies within one read, else put together.

mod conversions;

use std::borrow::Cow;
use std::{fmt, mem};

use crate::decode::Ahead;
use crate::frame::Opcode;
use crate::utf8::{self, Utf8};
use crate::{Limits, Violation};

pub use conversions::NotText;

/// A message: text, which is UTF-8, or bytes.
///
/// Whatever is text or bytes becomes a message, and so can be given to every `send`: `&str`, `String`, `Cow<str>`,
/// `Box<str>` and `Arc<str>` become text; `&[u8]`, `b"…"`, `[u8; N]`, `Vec<u8>`, `Cow<[u8]>`, `Box<[u8]>` and
/// `Arc<[u8]>` become binary, and with the feature `bytes` also `bytes::Bytes`. Each can be given or lent: of what is
/// given the message takes the memory over where that is possible; a reference, to another message too, is not copied
/// before it is sent.
///
/// ```
/// use taut_proto::Message;
///
/// let name = String::from("Ada");
/// assert_eq!(Message::from(&name).as_text(), Some("Ada")); // lent
/// assert_eq!(Message::from(name).into_text().as_deref(), Ok("Ada")); // given, and nothing is copied
/// assert_eq!(Message::from(b"\x00\x01").as_bytes(), [0, 1]);
/// ```
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

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Whether it is binary.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// The length of the payload in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The text; copied if it is lent.
    ///
    /// # Errors
    /// [`NotText`]: the message is binary, even if its bytes are UTF-8. The error has them: for a peer that sends text as
    /// binary there is `String::from_utf8(message.into_bytes())`.
    pub fn into_text(self) -> Result<String, NotText> {
        match self {
            Self::Text(text) => Ok(text.into_owned()),
            Self::Binary(bytes) => Err(NotText(bytes.into_owned())),
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

/// A message that is not whole yet. On the heap, and only while that is so.
#[derive(Debug)]
pub(crate) struct Assembly {
    opcode: Opcode,
    compressed: bool,
    /// What comes is handed on and not kept.
    in_parts: bool,
    fragments: u32,
    /// Bytes worth reserving: the peer has finished a message of this length before.
    expected_len: usize,
    utf8: Utf8,
    content: Content,
}

/// What has come of a message.
#[derive(Debug)]
enum Content {
    /// Whole characters. It grows by pieces that were just checked, so that it never has to be checked as a whole:
    /// copying a piece while it is in the processor's first cache costs less than that.
    Text(String),
    /// Of a binary message, or of a compressed one of either kind: bytes are checked when they are inflated.
    Bytes(Vec<u8>),
}

impl Assembly {
    /// A message of which nothing has come, from a peer that has finished one of `expected_len` bytes before.
    pub(crate) fn new(opcode: Opcode, compressed: bool, expected_len: usize) -> Self {
        let content = if opcode == Opcode::Text && !compressed {
            Content::Text(String::new())
        } else {
            Content::Bytes(Vec::new())
        };
        Self { opcode, compressed, in_parts: false, fragments: 0, expected_len, utf8: Utf8::default(), content }
    }

    /// Takes note of another frame, before any of its payload is kept.
    pub(crate) fn announce(&mut self, length: u64, limits: &Limits) -> Result<(), Violation> {
        self.fragments += 1;
        if self.fragments > limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        check_length(self.len(), length, limits)
    }

    /// Keeps the next piece of a frame, of which so much follows, and maybe other frames.
    pub(crate) fn push(&mut self, chunk: &[u8], ahead: Ahead, is_last_frame: bool) -> Result<(), Violation> {
        let available = chunk.len() + ahead.available;
        self.make_room(available, self.len() + available, chunk.len() as u64 + ahead.announced, is_last_frame);
        match &mut self.content {
            Content::Text(text) => self.utf8.check(chunk, |characters| text.push_str(characters)),
            Content::Bytes(bytes) => {
                bytes.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    /// Reserves `needed` bytes, and more of what is announced: as much as is `available`, as the peer has sent in one
    /// message before, or as is cheap. So memory grows with what has really come, and not beyond the end of the last
    /// frame.
    fn make_room(&mut self, needed: usize, available: usize, announced: u64, is_last_frame: bool) {
        let kept = self.len();
        if self.capacity() - kept >= needed {
            return;
        }
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        let likely = self.expected_len.saturating_sub(kept);
        let room = announced.min(available.max(ROOM).max(likely)).max(needed);
        // Each of many small frames must not move all that is kept.
        let room = if is_last_frame { room } else { room.max(kept).max(likely) };
        match &mut self.content {
            Content::Text(text) => text.reserve_exact(self.utf8.carried().len() + room),
            Content::Bytes(bytes) => bytes.reserve_exact(room),
        }
    }

    /// Where the next bytes of a frame belong of which so many are still to come, and how many there is room for;
    /// `None` if they have to be looked at before they are kept.
    pub(crate) fn room(&mut self, announced: u64, is_last_frame: bool) -> Option<(&mut Vec<u8>, usize)> {
        if self.in_parts || matches!(self.content, Content::Text(_)) {
            return None;
        }
        // For what is left of the last time a read would not pay.
        let most = usize::try_from(announced).unwrap_or(usize::MAX);
        self.make_room(most.min(ROOM), self.len(), announced, is_last_frame);
        let Content::Bytes(bytes) = &mut self.content else { return None };
        let room = bytes.capacity() - bytes.len();
        Some((bytes, most.min(room)))
    }

    /// The last `count` bytes, which were appended to the buffer that `room` gave.
    pub(crate) fn newest(&mut self, count: usize) -> &mut [u8] {
        let Content::Bytes(bytes) = &mut self.content else { return &mut [] };
        let start = bytes.len().checked_sub(count).expect("as many bytes were appended as were said to be");
        &mut bytes[start..]
    }

    /// Hands on the next part, behind what was kept before the message was received in parts; `None` if it cannot be,
    /// since it is compressed.
    pub(crate) fn part<'i>(&mut self, chunk: &'i [u8]) -> Result<Option<Cow<'i, [u8]>>, Violation> {
        if self.compressed {
            return Ok(None);
        }
        let mut kept = Vec::new();
        if !self.in_parts {
            self.in_parts = true;
            kept = match mem::replace(&mut self.content, Content::Bytes(Vec::new())) {
                Content::Text(text) => text.into_bytes(),
                Content::Bytes(bytes) => bytes,
            };
            kept.extend_from_slice(self.utf8.carried());
        }
        if self.opcode == Opcode::Text {
            self.utf8.check(chunk, |_| {})?;
        }
        if kept.is_empty() {
            return Ok(Some(Cow::Borrowed(chunk)));
        }
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
        match &self.content {
            Content::Text(text) => text.len() + self.utf8.carried().len(),
            Content::Bytes(bytes) => bytes.len(),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.capacity(),
            Content::Bytes(bytes) => bytes.capacity(),
        }
    }

    /// The whole message, or what it is to be inflated from.
    pub(crate) fn into_whole(self) -> Result<Whole, Violation> {
        self.utf8.finish()?;
        Ok(match self.content {
            Content::Text(text) => Whole::Message(text.into()),
            Content::Bytes(bytes) if self.compressed => Whole::Compressed(self.opcode, bytes),
            Content::Bytes(bytes) => Whole::Message(bytes.into()),
        })
    }
}

/// What an [`Assembly`] becomes.
#[derive(Debug)]
pub(crate) enum Whole {
    Message(Message<'static>),
    /// A message of that kind, to be inflated.
    Compressed(Opcode, Vec<u8>),
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
