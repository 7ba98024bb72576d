//! Sending: messages, fragments and pings into the outbox.

use std::fmt;

use super::Connection;
use crate::frame::{Header, MAX_CONTROL_PAYLOAD, Opcode};
use crate::prepared::Frame;
use crate::{Message, Outbox, Prepared, Role, Scratch, encode};

impl Connection {
    /// Puts a message into the outbox, compressed if that was negotiated and makes it smaller.
    ///
    /// A message that is lent is copied. One that is given, as a `String` or a `Vec`, is kept if it is large.
    pub fn send<'a>(
        &mut self,
        message: impl Into<Message<'a>>,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let message = message.into();
        self.check_ready()?;
        #[cfg(feature = "deflate")]
        if self.deflate.is_some() && self.send_deflated(message.opcode(), message.as_bytes(), scratch, outbox) {
            return Ok(());
        }
        self.send_plain(message, scratch, outbox);
        Ok(())
    }

    /// Puts a message into the outbox uncompressed, whatever was negotiated: for secrets next to text that an attacker
    /// can choose, which compression would leak by the message's length (CRIME, BREACH).
    pub fn send_uncompressed<'a>(
        &mut self,
        message: impl Into<Message<'a>>,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let message = message.into();
        self.check_ready()?;
        self.send_plain(message, scratch, outbox);
        Ok(())
    }

    /// Puts a message into the outbox that was framed for many connections.
    pub fn send_prepared(
        &mut self,
        prepared: &Prepared,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        self.check_ready()?;
        if self.role == Role::Client {
            // A client's frames differ by their mask keys: nothing to share.
            encode::message(self.role, prepared.opcode(), prepared.payload(), usize::MAX, scratch, outbox);
            return Ok(());
        }
        #[cfg(feature = "deflate")]
        let frame = self.frame_of(prepared, scratch);
        #[cfg(not(feature = "deflate"))]
        let frame = Frame::Plain;
        outbox.push_prepared(prepared, frame);
        Ok(())
    }

    /// Puts the next fragment of a message into the outbox: the first one begins the message, and `is_last` ends it. It
    /// is not compressed. Of a text each fragment has to be UTF-8 by itself, which `&str` says.
    ///
    /// Until it is ended no other message can be sent; pings, pongs and the close can.
    pub fn send_fragment(
        &mut self,
        fragment: &Message<'_>,
        is_last: bool,
        scratch: &mut Scratch,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        self.check_open()?;
        // RFC 6455 §5.4: the first frame has the opcode of the message, the others that of a continuation.
        let opcode = if self.in_message { Opcode::Continuation } else { fragment.opcode() };
        let header = encode::header(self.role, opcode, fragment.as_bytes(), scratch);
        outbox.push_frame(Header { fin: is_last, ..header }, fragment.as_bytes());
        self.in_message = !is_last;
        Ok(())
    }

    /// Puts a ping into the outbox. The heartbeat's pings are sent without it.
    pub fn ping(&mut self, payload: &[u8], scratch: &mut Scratch, outbox: &mut Outbox) -> Result<(), SendError> {
        self.check_open()?;
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::PingTooLong);
        }
        outbox.push_urgent(encode::header(self.role, Opcode::Ping, payload, scratch), payload, false);
        Ok(())
    }

    /// Puts a pong that answers no ping into the outbox: a heartbeat that asks for no answer (RFC 6455 §5.5.3). Pings are
    /// answered without it.
    ///
    /// It waits behind everything in the outbox, as a message does, and replaces no other pong. So a driver has to bound
    /// how many wait.
    pub fn pong(&mut self, payload: &[u8], scratch: &mut Scratch, outbox: &mut Outbox) -> Result<(), SendError> {
        self.check_open()?;
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::PingTooLong);
        }
        outbox.push_frame(encode::header(self.role, Opcode::Pong, payload, scratch), payload);
        Ok(())
    }

    /// Sends a message compressed if that was negotiated and makes it smaller; returns whether it did.
    #[cfg(feature = "deflate")]
    fn send_deflated(&mut self, opcode: Opcode, payload: &[u8], scratch: &mut Scratch, outbox: &mut Outbox) -> bool {
        let Some(window) = self.outgoing_window().filter(|_| payload.len() >= self.settings.deflate_from) else {
            return false;
        };
        // Decided before compressing: under takeover the peer's window must see what ours has seen.
        if let Some(compressed) = self.takeover.as_mut().and_then(|takeover| takeover.deflate(payload)) {
            encode::compressed(self.role, opcode, &compressed, scratch, outbox);
            return true;
        }
        let compressed = scratch.codec.deflate(payload, window);
        if compressed.len() >= payload.len() {
            return false;
        }
        encode::compressed(self.role, opcode, &compressed, scratch, outbox);
        true
    }

    /// The window bits to compress with; `None` when nothing is to be compressed.
    #[cfg(feature = "deflate")]
    fn outgoing_window(&self) -> Option<u8> {
        // RFC 7692 §7.1.2: a window of 8 bits cannot be produced; not compressing is always allowed.
        self.deflate.map(|deflate| deflate.outgoing.bits).filter(|&bits| bits > 8)
    }

    #[cfg(feature = "deflate")]
    fn frame_of(&self, prepared: &Prepared, scratch: &mut Scratch) -> Frame {
        if let Some(bits) = self.outgoing_window()
            && prepared.payload().len() >= self.settings.deflate_from
            // Under takeover a message compressed without our context would part the two windows.
            && self.deflate.is_some_and(|deflate| !deflate.outgoing.takeover)
        {
            return prepared.deflated(bits, &mut scratch.codec);
        }
        Frame::Plain
    }

    #[inline]
    fn send_plain(&self, message: Message<'_>, scratch: &mut Scratch, outbox: &mut Outbox) {
        let (role, opcode, fragment) = (self.role, message.opcode(), self.settings.fragment);
        if message.is_owned() {
            encode::own_message(role, opcode, message.into_bytes(), fragment, scratch, outbox);
        } else {
            encode::message(role, opcode, message.as_bytes(), fragment, scratch, outbox);
        }
    }

    /// Whether another message may begin.
    fn check_ready(&self) -> Result<(), SendError> {
        if self.in_message && self.is_open() { Err(SendError::InMessage) } else { self.check_open() }
    }

    fn check_open(&self) -> Result<(), SendError> {
        if self.is_open() { Ok(()) } else { Err(SendError::Closed) }
    }
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// A close frame was sent or received: no data may follow (RFC 6455 §5.5.1).
    Closed,
    /// A message is being sent in fragments, and no other may come between (RFC 6455 §5.4).
    InMessage,
    /// The payload of a ping or a pong is longer than 125 bytes (RFC 6455 §5.5).
    PingTooLong,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closing: nothing more can be sent",
            Self::InMessage => "another message is being sent in fragments: finish that one first",
            Self::PingTooLong => "a ping or a pong carries at most 125 bytes",
        })
    }
}

impl std::error::Error for SendError {}
