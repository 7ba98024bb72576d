//! Messages that are too large to be held: received and sent as a stream of parts.

use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;

use taut_proto::{Close, CloseCode, Message, Part};

use crate::error::Cause;
use crate::native::shared::Handle;
use crate::{Error, Receiver, Sender, WebSocket};

impl WebSocket {
    /// Receives the next message as a stream, however large: it is not kept, so limits on messages do not apply; `None`
    /// once the connection is closed.
    ///
    /// Waits until the message begins. A message that is compressed is inflated as a whole first, under the usual limit
    /// ([`Limits::message`](crate::Limits::message)), and so comes in one part.
    ///
    /// ```no_run
    /// # async fn run(mut socket: taut::WebSocket) -> Result<(), taut::Error> {
    /// if let Some(mut message) = socket.recv_stream().await? {
    ///     let mut bytes = 0;
    ///     while let Some(part) = message.part().await? {
    ///         bytes += part.len();
    ///     }
    ///     println!("{bytes} bytes");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost when it is called again. [`recv`](Self::recv) after it skips a message that has begun meanwhile.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        MessageReader::begin(&mut self.handle).await
    }

    /// Sends a message part by part, without holding it as a whole. The first part makes it text or binary. Until it is
    /// finished nothing else can be sent.
    ///
    /// ```no_run
    /// # async fn run(mut socket: taut::WebSocket, mut file: tokio::fs::File) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::AsyncReadExt;
    ///
    /// let mut buffer = vec![0; 64 << 10];
    /// let mut message = socket.send_stream();
    /// loop {
    ///     match file.read(&mut buffer).await? {
    ///         0 => break,
    ///         count => message.write(&buffer[..count]).await?,
    ///     }
    /// }
    /// message.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, None)
    }

    /// Sends a text message part by part. The parts may be strings, or bytes that are cut anywhere, in the middle of a
    /// character too: together they have to be UTF-8, which is checked before they are sent. Otherwise as
    /// [`send_stream`](Self::send_stream).
    ///
    /// ```no_run
    /// # async fn run(mut socket: taut::WebSocket) -> Result<(), taut::Error> {
    /// let mut message = socket.send_text_stream();
    /// for part in "Grüße".as_bytes().chunks(3) {
    ///     message.write(part).await?;
    /// }
    /// message.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_text_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, Some(Kind::Text))
    }

    /// Sends a binary message part by part, as [`send_stream`](Self::send_stream) does; a string counts as its bytes.
    pub fn send_binary_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, Some(Kind::Binary))
    }
}

impl Receiver {
    /// Receives the next message as a stream, however large, as [`WebSocket::recv_stream`] does.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost when it is called again. [`recv`](Self::recv) after it skips a message that has begun meanwhile.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        MessageReader::begin(&mut self.handle).await
    }
}

impl Sender {
    /// Sends a message part by part, as [`WebSocket::send_stream`] does.
    ///
    /// Between the parts of a message no other may come (RFC 6455 §5.4): from the first [`write`](MessageWriter::write)
    /// to [`finish`](MessageWriter::finish), what other Senders of this connection send waits, and their
    /// [`try_send`](Self::try_send) fails with [`is_full`](Error::is_full). So a task that sends in parts must not wait
    /// for another one that sends on the same connection.
    pub fn send_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, None)
    }

    /// Sends a text message part by part, as [`WebSocket::send_text_stream`] does; what others send waits, as with
    /// [`send_stream`](Self::send_stream).
    pub fn send_text_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, Some(Kind::Text))
    }

    /// Sends a binary message part by part, as [`WebSocket::send_binary_stream`] does; what others send waits, as with
    /// [`send_stream`](Self::send_stream).
    pub fn send_binary_stream(&mut self) -> MessageWriter<'_> {
        MessageWriter::new(&self.handle, Some(Kind::Binary))
    }
}

/// A message that is received part by part: see [`WebSocket::recv_stream`].
///
/// Dropped before its end, the rest of the message is read and thrown away by whatever is received next.
pub struct MessageReader<'ws> {
    handle: &'ws mut Handle,
    is_text: bool,
    first: Option<Part<'static>>,
    /// Of a text: the beginning of a character whose end has not come, at most three bytes.
    unfinished: Vec<u8>,
    is_over: bool,
}

impl<'ws> MessageReader<'ws> {
    /// Waits until a message begins.
    async fn begin(handle: &'ws mut Handle) -> Result<Option<Self>, Error> {
        handle.skip_parts();
        let Some(first) = poll_fn(|cx| handle.poll_part(cx)).await? else { return Ok(None) };
        let is_text = first.is_text;
        Ok(Some(Self { handle, is_text, first: Some(first), unfinished: Vec::new(), is_over: false }))
    }

    /// Whether the message is text.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// The next part, of at most some 128 KiB where the message came uncompressed; `None` when the message is over.
    ///
    /// The parts of a text are cut between characters: each is UTF-8 by itself.
    ///
    /// # Errors
    /// As [`WebSocket::recv`]: the message was not finished, whatever ended it. Also when the peer closed in the middle
    /// of it ([`is_cut_off`](Error::is_cut_off)), as it does in answer to our close. What came before is not the whole
    /// message.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while !self.is_over {
            let part = match self.first.take() {
                Some(first) => Some(first),
                None => poll_fn(|cx| self.handle.poll_part(cx)).await?,
            };
            // The end of the connection is no end of a message, and an error; it was told above.
            let Some(Part { payload, is_last, .. }) = part else { return Err(Cause::Closed.into()) };
            self.is_over = is_last;
            let part = self.between_characters(payload.into_owned());
            // The end may come by itself, in an empty frame.
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    /// Keeps the beginning of a character for the next part. That all of it is UTF-8 was checked when it was received.
    fn between_characters(&mut self, mut part: Vec<u8>) -> Vec<u8> {
        if !self.is_text {
            return part;
        }
        if !self.unfinished.is_empty() {
            part.splice(..0, self.unfinished.drain(..));
        }
        self.unfinished = part.split_off(part.len() - unfinished(&part));
        part
    }
}

impl Drop for MessageReader<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.handle.skip_parts();
        }
    }
}

impl fmt::Debug for MessageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageReader").field("is_text", &self.is_text).finish_non_exhaustive()
    }
}

/// A message that is sent part by part: see [`WebSocket::send_stream`].
///
/// What is sent this way is not compressed. Dropped before [`finish`](Self::finish), when something was written, it
/// closes the connection with code 1011: half a message cannot be taken back otherwise, and the peer can tell that it
/// is one.
pub struct MessageWriter<'ws> {
    handle: &'ws Handle,
    /// As it was asked for, or as the first part has made it.
    kind: Option<Kind>,
    /// Parts may be text or bytes, whichever kind the message is.
    is_kind_given: bool,
    has_begun: bool,
    /// Of a text: the beginning of a character whose end was not written, at most three bytes.
    unfinished: Vec<u8>,
}

impl<'ws> MessageWriter<'ws> {
    fn new(handle: &'ws Handle, kind: Option<Kind>) -> Self {
        Self { handle, kind, is_kind_given: kind.is_some(), has_begun: false, unfinished: Vec::new() }
    }

    /// Sends the next part.
    ///
    /// Waits as [`WebSocket::send`] does while much is pending.
    ///
    /// # Errors
    /// As [`WebSocket::send`]. [`is_invalid`](Error::is_invalid), and nothing of the part was sent: it makes the text
    /// no UTF-8, or it is text and the first part of [`send_stream`](WebSocket::send_stream) was binary, or the other
    /// way round.
    ///
    /// # Cancel safety
    /// A part of up to 64 KiB is sent or not; of a larger one the beginning may have been.
    pub async fn write<'m>(&mut self, part: impl Into<Message<'m>>) -> Result<(), Error> {
        let part = part.into();
        let part_kind = if part.as_text().is_some() { Kind::Text } else { Kind::Binary };
        let kind = self.kind.unwrap_or(part_kind);
        if !self.is_kind_given && kind != part_kind {
            return Err(Cause::MixedParts.into());
        }
        match (kind, &part) {
            (Kind::Binary, part) => {
                for piece in part.as_bytes().chunks(PIECE) {
                    self.fragment(&piece.into(), false).await?;
                }
                Ok(())
            }
            (Kind::Text, Message::Text(text)) if self.unfinished.is_empty() => self.write_text(text).await,
            (Kind::Text, part) => self.write_bytes_of_text(part.as_bytes()).await,
        }
    }

    async fn write_text(&mut self, text: &str) -> Result<(), Error> {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(boundary(rest));
            self.fragment(&piece.into(), false).await?;
            rest = after;
        }
        Ok(())
    }

    async fn write_bytes_of_text(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut whole = Cow::Borrowed(bytes);
        if !self.unfinished.is_empty() {
            whole = Cow::Owned([&self.unfinished[..], bytes].concat());
        }
        let text = match std::str::from_utf8(&whole) {
            Ok(text) => text,
            // The rest of a character may come with the next part.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&whole[..error.valid_up_to()]).map_err(|_| Error::from(Cause::PartsNotUtf8))?
            }
            Err(_) => return Err(Cause::PartsNotUtf8.into()),
        };
        let unfinished = whole[text.len()..].to_vec();
        if text.is_empty() {
            self.unfinished = unfinished;
            return Ok(());
        }
        // The last fragment is what makes the part sent, and what was kept is a part of the first.
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(boundary(rest));
            self.fragment(&piece.into(), false).await?;
            self.unfinished.clear();
            rest = after;
        }
        self.unfinished = unfinished;
        Ok(())
    }

    /// Ends the message. One of [`send_stream`](WebSocket::send_stream) of which nothing was written is not sent, since
    /// it is neither text nor binary; of the other two it is an empty message.
    ///
    /// # Errors
    /// As [`WebSocket::send`]. [`is_invalid`](Error::is_invalid): the text ends in the middle of a character; then the
    /// message is not ended, and so the connection is closed.
    ///
    /// # Cancel safety
    /// Dropped before it is done, the message is not ended, and so the connection is closed.
    pub async fn finish(mut self) -> Result<(), Error> {
        if !self.unfinished.is_empty() {
            return Err(Cause::PartsNotUtf8.into());
        }
        match self.kind {
            None => return Ok(()),
            Some(Kind::Text) => self.fragment(&"".into(), true).await?,
            Some(Kind::Binary) => self.fragment(&(&b""[..]).into(), true).await?,
        }
        self.has_begun = false;
        Ok(())
    }

    async fn fragment(&mut self, fragment: &Message<'_>, is_last: bool) -> Result<(), Error> {
        let (handle, has_begun) = (self.handle, self.has_begun);
        poll_fn(|cx| handle.poll_fragment(fragment, has_begun, is_last, cx)).await?;
        self.kind = Some(if fragment.as_text().is_some() { Kind::Text } else { Kind::Binary });
        self.has_begun = true;
        Ok(())
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        if self.has_begun {
            self.handle.begin_close(&Close::new(CloseCode::INTERNAL_ERROR, "message abandoned"));
        }
    }
}

impl fmt::Debug for MessageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// How many bytes at the end are the beginning of a character, and no whole one. What comes before is UTF-8.
fn unfinished(bytes: &[u8]) -> usize {
    let is_continuation = |byte: &u8| byte & 0xc0 == 0x80;
    let behind = bytes.iter().rev().take(3).take_while(|byte| is_continuation(byte)).count();
    let length = match bytes.iter().rev().nth(behind) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..) => 4,
        _ => 0,
    };
    if behind + 1 < length { behind + 1 } else { 0 }
}

/// Where to cut a text so that the piece is no longer than it may be, and is text itself.
fn boundary(text: &str) -> usize {
    (0..=PIECE.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

/// Bytes of one frame, so that control frames get between.
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_character_is_told_from_a_whole_one() {
        for text in ["", "a", "ß", "€", "😀", "a😀", "😀ß"] {
            for at in 0..=text.len() {
                let whole = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap();
                assert_eq!(unfinished(&text.as_bytes()[..at]), at - whole, "{text} {at}");
            }
        }
    }
}
