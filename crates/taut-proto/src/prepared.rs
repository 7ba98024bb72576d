//! One message, framed once, for many connections.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "deflate")]
use std::sync::OnceLock;

use crate::Message;
use crate::frame::{Header, Opcode};

/// A message framed once as a server sends it, and compressed once if any receiver wants it so.
///
/// Clones are handles; sending one to ten thousand connections encodes nothing. It goes out as a single frame.
#[derive(Clone)]
pub struct Prepared(Arc<Inner>);

struct Inner {
    opcode: Opcode,
    /// The plain frame; its last `payload` bytes are the payload.
    plain: Vec<u8>,
    payload: usize,
    /// By window bits, 9 to 15; an empty one where compressing does not pay. Made on first need, by whichever
    /// thread needs it first.
    #[cfg(feature = "deflate")]
    deflated: [OnceLock<Vec<u8>>; 7],
}

/// Which of a prepared message's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Plain,
    #[cfg(feature = "deflate")]
    Deflated(u8),
}

impl Prepared {
    /// Frames `message`.
    pub fn new<'a>(message: impl Into<Message<'a>>) -> Self {
        let message = message.into();
        let (opcode, payload) = (message.opcode(), message.as_bytes());
        Self(Arc::new(Inner {
            opcode,
            plain: framed(opcode, false, payload),
            payload: payload.len(),
            #[cfg(feature = "deflate")]
            deflated: Default::default(),
        }))
    }

    /// The message's payload.
    pub fn payload(&self) -> &[u8] {
        &self.0.plain[self.0.plain.len() - self.0.payload..]
    }

    /// Bytes of the plain frame.
    pub fn len(&self) -> usize {
        self.0.plain.len()
    }

    /// Never: even an empty message has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(crate) fn opcode(&self) -> Opcode {
        self.0.opcode
    }

    /// The best frame for a window of `bits`.
    #[cfg(feature = "deflate")]
    pub(crate) fn deflated(&self, bits: u8, codec: &mut crate::deflate::codec::Codec) -> Frame {
        let frame = self.0.deflated[usize::from(bits - 9)].get_or_init(|| {
            let compressed = codec.deflate(self.payload(), bits);
            if compressed.len() < self.0.payload { framed(self.0.opcode, true, &compressed) } else { Vec::new() }
        });
        if frame.is_empty() { Frame::Plain } else { Frame::Deflated(bits) }
    }

    pub(crate) fn frame(&self, frame: Frame) -> &[u8] {
        match frame {
            Frame::Plain => &self.0.plain,
            #[cfg(feature = "deflate")]
            Frame::Deflated(bits) => self.0.deflated[usize::from(bits - 9)].get().map_or(&[], Vec::as_slice),
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("opcode", &self.0.opcode).field("payload", &self.0.payload).finish()
    }
}

fn framed(opcode: Opcode, compressed: bool, payload: &[u8]) -> Vec<u8> {
    let header = Header { fin: true, compressed, opcode, mask: None, length: payload.len() as u64 };
    let (bytes, size) = header.to_bytes();
    let mut frame = Vec::with_capacity(size + payload.len());
    frame.extend_from_slice(&bytes[..size]);
    frame.extend_from_slice(payload);
    frame
}
