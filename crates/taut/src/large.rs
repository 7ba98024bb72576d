//! Messages that are too large to be held: received and sent as a stream of parts.

use std::fmt;
use std::future::poll_fn;

use taut_proto::{Close, CloseCode, Message, Part};

use crate::error::Cause;
use crate::shared::Handle;
use crate::{Error, WebSocket};

impl WebSocket {
    /// The next message as a stream, however large: nothing of it is kept, so no limit on messages applies; `None` once
    /// the connection is closed.
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
    /// Nothing is lost.
    pub async fn recv_stream(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let handle = &mut self.handle;
        handle.skip_parts();
        let Some(first) = poll_fn(|cx| handle.poll_part(cx)).await? else { return Ok(None) };
        let is_text = first.is_text;
        Ok(Some(MessageReader { handle, is_text, first: Some(first), is_over: false }))
    }

    /// A message that is sent as a stream, part by part, without being held as a whole. Until it is finished nothing
    /// else can be sent.
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
        MessageWriter { handle: &self.handle, is_text: None }
    }
}

/// A message that is received part by part: see [`WebSocket::recv_stream`].
///
/// Dropped before its end, the rest of the message is read and thrown away by whatever is received next.
pub struct MessageReader<'ws> {
    handle: &'ws mut Handle,
    is_text: bool,
    first: Option<Part<'static>>,
    is_over: bool,
}

impl MessageReader<'_> {
    /// Whether the message is text. A part may end in the middle of a character; that all of it is UTF-8 is certain when
    /// the message is over.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// The next part, of at most some 128 KiB where the message came uncompressed; `None` when the message is over.
    ///
    /// # Errors
    /// As [`WebSocket::recv`]: the message was not completed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let part = match self.first.take() {
            Some(first) => Some(first),
            None => poll_fn(|cx| self.handle.poll_part(cx)).await?,
        };
        // Without a part the connection was closed, which cannot be in the middle of a message.
        let Some(Part { payload, is_last, .. }) = part else { return Ok(None) };
        self.is_over = is_last;
        // The end may come by itself, in an empty frame.
        Ok(if payload.is_empty() { None } else { Some(payload.into_owned()) })
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
/// closes the connection with code 1011: there is no other way to take back half a message.
pub struct MessageWriter<'ws> {
    handle: &'ws Handle,
    /// Once it has begun.
    is_text: Option<bool>,
}

impl MessageWriter<'_> {
    /// Sends the next part. The first makes the message text or binary, and the others have to be the same.
    ///
    /// Waits as [`WebSocket::send`] does while much is pending.
    ///
    /// # Errors
    /// As [`WebSocket::send`]; [`is_invalid`](Error::is_invalid) for a part of the other kind, which is not sent.
    ///
    /// # Cancel safety
    /// A part of up to 64 KiB is sent or not; of a larger one the beginning may have been.
    pub async fn write<'m>(&mut self, part: impl Into<Message<'m>>) -> Result<(), Error> {
        let part = part.into();
        let is_text = part.as_text().is_some();
        if self.is_text.is_some_and(|begun| begun != is_text) {
            return Err(Cause::MixedParts.into());
        }
        match &part {
            Message::Text(text) => {
                let mut rest = &**text;
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(boundary(rest));
                    self.fragment(&piece.into(), false).await?;
                    rest = after;
                }
            }
            Message::Binary(bytes) => {
                for piece in bytes.chunks(PIECE) {
                    self.fragment(&piece.into(), false).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the message. One of which nothing was written is not sent.
    ///
    /// # Errors
    /// As [`WebSocket::send`].
    ///
    /// # Cancel safety
    /// Dropped before it is done, the message is not ended, and so the connection is closed.
    pub async fn finish(mut self) -> Result<(), Error> {
        match self.is_text {
            None => return Ok(()),
            Some(true) => self.fragment(&"".into(), true).await?,
            Some(false) => self.fragment(&(&b""[..]).into(), true).await?,
        }
        self.is_text = None;
        Ok(())
    }

    async fn fragment(&mut self, fragment: &Message<'_>, is_last: bool) -> Result<(), Error> {
        let handle = self.handle;
        poll_fn(|cx| handle.poll_fragment(fragment, is_last, cx)).await?;
        self.is_text = Some(fragment.as_text().is_some());
        Ok(())
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        if self.is_text.is_some() {
            self.handle.begin_close(&Close::new(CloseCode::INTERNAL_ERROR, "message abandoned"));
        }
    }
}

impl fmt::Debug for MessageWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter").finish_non_exhaustive()
    }
}

/// Where to cut a text so that the piece is no longer than it may be, and is text itself.
fn boundary(text: &str) -> usize {
    (0..=PIECE.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

/// Bytes of one frame, so that control frames get between.
const PIECE: usize = 64 << 10;
