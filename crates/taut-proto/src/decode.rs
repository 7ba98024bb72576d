//! Bytes into headers and pieces of payload. Payload is never kept here; an incomplete header is.

use std::mem;

use crate::frame::{Header, MAX_HEADER, Opcode};
use crate::{Role, Violation, mask};

/// What one read brought, lent to [`Connection::receive`](crate::Connection::receive) until it is used up.
#[derive(Debug)]
pub struct Input<'i> {
    rest: &'i mut [u8],
    /// Pings seen in this read: beyond a limit they are answered by the newest alone.
    pub(crate) pings: u32,
}

impl<'i> Input<'i> {
    /// Lends the bytes of one read. They are unmasked where they lie.
    pub fn new(bytes: &'i mut [u8]) -> Self {
        Self { rest: bytes, pings: 0 }
    }

    /// Says how many [`pings`](Self::pings) were in the part of the read that was received before.
    #[must_use]
    pub fn after_pings(mut self, pings: u32) -> Self {
        self.pings = pings;
        self
    }

    /// Pings met so far: beyond [`Limits::pings_per_read`](crate::Limits::pings_per_read) the newest alone is answered.
    pub fn pings(&self) -> u32 {
        self.pings
    }

    /// Whether every byte was used.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are still to be used.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Gives up the rest.
    pub(crate) fn discard(&mut self) {
        self.rest = &mut [];
    }

    #[inline]
    fn take(&mut self, length: usize) -> &'i mut [u8] {
        let (taken, rest) = mem::take(&mut self.rest).split_at_mut(length);
        self.rest = rest;
        taken
    }
}

/// A piece of a frame's payload, already unmasked.
#[derive(Debug)]
pub(crate) struct Chunk<'i> {
    pub(crate) header: Header,
    /// The header has just been read: the place to check what it announces, before any payload is kept.
    pub(crate) first: bool,
    /// The frame's payload ends here.
    pub(crate) last: bool,
    pub(crate) payload: &'i mut [u8],
    /// Payload bytes of the frame that follow this piece, and how many of them the input holds already.
    pub(crate) ahead: Ahead,
}

/// How long the pieces of a payload may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PieceLimits {
    /// Bytes of a frame up to which it is given whole if it lies within the read.
    pub(crate) whole: usize,
    /// Bytes of a piece of any other.
    pub(crate) piece: usize,
}

/// Payload bytes of a frame that follow a piece of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// All of them, come or not.
    pub(crate) announced: u64,
    /// Those that are already in the input.
    pub(crate) available: usize,
}

/// Where in a frame the bytes so far have led: 40 bytes per connection.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Payload bytes of the current frame still to come.
    remaining: u64,
    /// The current frame's header as it was on the wire, or as much of it as there is.
    header: [u8; MAX_HEADER],
    header_size: u8,
    in_payload: bool,
    phase: u8,
}

impl Decoder {
    /// The next piece, or `None` when the input is used up. A frame that does not lie within one read, or is longer
    /// than may be, comes in pieces.
    pub(crate) fn next<'i>(
        &mut self,
        input: &mut Input<'i>,
        role: Role,
        limits: PieceLimits,
    ) -> Result<Option<Chunk<'i>>, Violation> {
        let (header, first) = if self.in_payload {
            (self.stored_header(), false)
        } else {
            let Some(header) = self.header(input)? else { return Ok(None) };
            // RFC 6455 §5.1: a client masks every frame, a server none.
            match (role, header.mask) {
                (Role::Server, None) => return Err(Violation::Unmasked),
                (Role::Client, Some(_)) => return Err(Violation::Masked),
                _ => {}
            }
            self.remaining = header.length;
            (header, true)
        };
        if !first && input.is_empty() {
            return Ok(None);
        }
        let available = usize::try_from(self.remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        // What is to be inflated is not kept if it lies within the read.
        let is_whole = first && available as u64 == self.remaining && (available <= limits.whole || header.compressed);
        let length = if is_whole { available } else { available.min(limits.piece) };
        let payload = input.take(length);
        if let Some(key) = header.mask {
            self.phase = mask::apply(payload, key, if first { 0 } else { self.phase });
        }
        self.remaining -= length as u64;
        self.in_payload = self.remaining > 0;
        if self.in_payload && first {
            let (bytes, size) = header.to_bytes();
            (self.header, self.header_size) = (bytes, size as u8);
        }
        if !self.in_payload {
            self.header_size = 0;
        }
        let ahead = Ahead { announced: self.remaining, available: available - length };
        Ok(Some(Chunk { header, first, last: !self.in_payload, payload, ahead }))
    }

    /// The header of the frame whose payload is in progress, and how many bytes of it are still to come.
    pub(crate) fn in_progress(&self) -> Option<(Header, u64)> {
        self.in_payload.then(|| (self.stored_header(), self.remaining))
    }

    /// Takes note of payload that was received elsewhere, at most what is still to come, and unmasks it there; whether
    /// the frame ends with it.
    pub(crate) fn received_elsewhere(&mut self, payload: &mut [u8]) -> bool {
        if let Some(key) = self.stored_header().mask {
            self.phase = mask::apply(payload, key, self.phase);
        }
        self.remaining -= payload.len() as u64;
        self.in_payload = self.remaining > 0;
        if !self.in_payload {
            self.header_size = 0;
        }
        !self.in_payload
    }

    fn stored_header(&self) -> Header {
        // It was parsed once, so it parses again; a frame in pieces is rare enough for that.
        let Ok(Some((header, _))) = Header::parse(&self.header[..usize::from(self.header_size)]) else {
            unreachable!("a stored header was complete");
        };
        header
    }

    /// The common case in few steps: a whole, plain message that lies before us.
    #[inline]
    pub(crate) fn whole_message<'i>(
        &mut self,
        input: &mut Input<'i>,
        role: Role,
        limit: usize,
    ) -> Option<(Opcode, &'i mut [u8])> {
        if self.in_payload || self.header_size > 0 {
            return None;
        }
        let masked = role == Role::Server;
        let (opcode, key, size, length) = Header::parse_whole_message(input.rest, masked)?;
        if length > limit {
            return None;
        }
        let payload = &mut input.take(size + length)[size..];
        if masked {
            mask::apply(payload, key, 0);
        }
        Some((opcode, payload))
    }

    /// Reads a header, in one piece from the input or from the bytes kept of earlier reads.
    fn header(&mut self, input: &mut Input<'_>) -> Result<Option<Header>, Violation> {
        if self.header_size == 0
            && let Some((header, size)) = Header::parse(input.rest)?
        {
            input.take(size);
            return Ok(Some(header));
        }
        // One byte at a time, so that not one byte of payload is taken: at most 14 turns.
        while !input.is_empty() {
            let size = usize::from(self.header_size);
            self.header[size] = input.take(1)[0];
            self.header_size += 1;
            if let Some((header, _)) = Header::parse(&self.header[..=size])? {
                self.header_size = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}
