//! Inflating and deflating messages: with compressors that a thread lends to all its connections, or with one's
//! own where the context is taken over from message to message (RFC 7692 §7.2).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::Violation;
use crate::deflate::NegotiatedDeflate;

/// Compressors without history, shared by all connections of a thread. Each is made on first need.
#[derive(Default)]
pub(crate) struct Codec {
    inflater: Option<Decompress>,
    /// By window bits, 9 to 15.
    deflaters: [Option<Compress>; 7],
}

impl Codec {
    /// Compresses one message on its own.
    pub(crate) fn deflate(&mut self, payload: &[u8], bits: u8) -> Vec<u8> {
        let deflater = self.deflaters[usize::from(bits - MIN_BITS)].get_or_insert_with(|| new_deflater(bits));
        deflater.reset();
        deflate(deflater, payload)
    }

    /// Inflates one message that was compressed on its own, to at most `limit` bytes.
    pub(crate) fn inflate(&mut self, compressed: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        let inflater = self.inflater.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        inflate(inflater, &[], compressed, limit)
    }
}

/// One connection's own compressors, for the directions in which it agreed to keep the context.
///
/// Costs some 80 KiB to read and some 370 KiB to write at the largest window.
pub(crate) struct Takeover {
    deflater: Option<Compress>,
    inflater: Option<Inflater>,
}

impl Takeover {
    /// `None` when neither direction keeps its context.
    pub(crate) fn new(negotiated: &NegotiatedDeflate) -> Option<Box<Self>> {
        if !negotiated.outgoing.takeover && !negotiated.incoming.takeover {
            return None;
        }
        Some(Box::new(Self {
            deflater: negotiated.outgoing.takeover.then(|| new_deflater(negotiated.outgoing.bits.max(MIN_BITS))),
            inflater: negotiated.incoming.takeover.then(|| Inflater::new(negotiated.incoming.bits.max(MIN_BITS))),
        }))
    }

    /// Compresses with what was sent before; `None` when the context is not kept. What is returned must be
    /// sent: the peer's window has to see it.
    pub(crate) fn deflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        Some(deflate(self.deflater.as_mut()?, payload))
    }

    /// Inflates with what was received before; `None` when the context is not kept.
    pub(crate) fn inflate(&mut self, compressed: &[u8], limit: usize) -> Option<Result<Vec<u8>, Violation>> {
        Some(self.inflater.as_mut()?.inflate(compressed, limit))
    }
}

/// An inflater and the end of what it produced, which it needs again after a final block.
struct Inflater {
    stream: Decompress,
    history: Vec<u8>,
    window: usize,
}

impl Inflater {
    fn new(bits: u8) -> Self {
        Self { stream: Decompress::new_with_window_bits(false, bits), history: Vec::new(), window: 1 << bits }
    }

    fn inflate(&mut self, compressed: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        let payload = inflate(&mut self.stream, &self.history, compressed, limit)?;
        self.history.extend_from_slice(&payload[payload.len().saturating_sub(self.window)..]);
        self.history.drain(..self.history.len().saturating_sub(self.window));
        Ok(payload)
    }
}

fn new_deflater(bits: u8) -> Compress {
    Compress::new_with_window_bits(Compression::fast(), false, bits)
}

// RFC 7692 §7.2.1: compress, flush to a byte boundary, drop the four bytes of the empty block at the end.
fn deflate(deflater: &mut Compress, payload: &[u8]) -> Vec<u8> {
    if payload.is_empty() {
        return vec![0]; // RFC 7692 §7.2.3.6
    }
    let start = deflater.total_in();
    let mut compressed = Vec::with_capacity(payload.len() + payload.len() / 512 + 64);
    loop {
        let used = (deflater.total_in() - start) as usize;
        // It fails only on a misuse of its interface; a stream that is cut short would be the peer's to notice.
        let status = deflater.compress_vec(&payload[used..], &mut compressed, FlushCompress::Sync);
        let all_in = (deflater.total_in() - start) as usize == payload.len();
        // Room that is left shows that nothing is held back: the flush is complete.
        if status.is_err() || (all_in && compressed.len() < compressed.capacity()) {
            break;
        }
        compressed.reserve(4096);
    }
    if compressed.ends_with(&TAIL) {
        compressed.truncate(compressed.len() - TAIL.len());
    }
    compressed
}

// RFC 7692 §7.2.2: append the four bytes, inflate. The limit is on what comes out, while it comes out.
fn inflate(inflater: &mut Decompress, history: &[u8], compressed: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
    let most = limit.saturating_add(1);
    let mut payload = Vec::with_capacity(compressed.len().saturating_mul(4).clamp(64, FIRST_ROOM).min(most));
    let mut ended = false;
    let mut ends = 0;
    for mut rest in [compressed, &TAIL[..]] {
        loop {
            if rest.is_empty() && payload.len() < payload.capacity() {
                break;
            }
            if ended {
                // RFC 7692 §7.2.3.4: a sender may end with a final block; what follows begins a new stream that
                // may still refer to what came before. That copies a window, so whoever ends every few bytes is
                // refused: it would cost a sender two bytes and us 64 KiB of work.
                ends += 1;
                if ends > FREE_ENDS + payload.len() / BYTES_PER_END {
                    return Err(Violation::TooManyFinalBlocks);
                }
                inflater.reset(false);
                let window: Vec<u8> = tail(history, &payload);
                if !window.is_empty() {
                    inflater.set_dictionary(&window).map_err(|_| Violation::DeflateCorrupt)?;
                }
                ended = false;
            }
            let before = inflater.total_in();
            let status = inflater
                .decompress_vec(rest, &mut payload, FlushDecompress::Sync)
                .map_err(|_| Violation::DeflateCorrupt)?;
            let used = (inflater.total_in() - before) as usize;
            rest = &rest[used..];
            if payload.len() > limit {
                return Err(Violation::InflatedTooBig);
            }
            match status {
                Status::StreamEnd => ended = true,
                _ if payload.len() == payload.capacity() => {
                    let room = payload.len().clamp(64, GROWTH).min(most - payload.len());
                    payload.reserve_exact(room);
                }
                _ if used == 0 => break,
                _ => {}
            }
            if ended && rest.is_empty() {
                break;
            }
        }
        if ended && rest.is_empty() {
            // The message ended with its final block: there is no empty block to complete. The stream that a
            // next message continues is begun when it comes.
            break;
        }
    }
    if ended {
        inflater.reset(false);
        let window = tail(history, &payload);
        if !window.is_empty() {
            inflater.set_dictionary(&window).map_err(|_| Violation::DeflateCorrupt)?;
        }
    }
    Ok(payload)
}

/// The last 32 KiB of `history` followed by `payload`.
fn tail(history: &[u8], payload: &[u8]) -> Vec<u8> {
    const WINDOW: usize = 1 << 15;
    let payload = &payload[payload.len().saturating_sub(WINDOW)..];
    let history = &history[history.len().saturating_sub(WINDOW - payload.len())..];
    [history, payload].concat()
}

/// The empty stored block that a flush ends with; never on the wire.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What zlib can produce.
const MIN_BITS: u8 = 9;

/// Final blocks that a message may have whatever its length; senders that cannot flush write one, at its end.
const FREE_ENDS: usize = 64;

/// Inflated bytes that pay for another: a sender that ends with every buffer it fills has a few KiB in each.
const BYTES_PER_END: usize = 1 << 10;

/// Room for the first output, whatever the input promises.
const FIRST_ROOM: usize = 16 << 10;

/// The most by which the output grows at once.
const GROWTH: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    use super::*;
    use crate::deflate::Window;

    const LIMIT: usize = 1 << 20;

    fn takeover(bits: u8) -> (Takeover, Takeover) {
        let window = Window { bits, takeover: true };
        let negotiated = NegotiatedDeflate::new(window, window);
        (*Takeover::new(&negotiated).unwrap(), *Takeover::new(&negotiated).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_deflated_inflates(payload: Vec<u8>, repeats in 1..200_usize, bits in 9..=15_u8) {
            let payload = payload.repeat(repeats);
            let mut codec = Codec::default();
            let compressed = codec.deflate(&payload, bits);
            prop_assert_eq!(codec.inflate(&compressed, LIMIT), Ok(payload));
        }

        #[test]
        fn contexts_are_kept_from_message_to_message(messages in prop::collection::vec("[a-f]{0,400}", 1..20), bits in 9..=15_u8) {
            let (mut sender, mut receiver) = takeover(bits);
            for message in messages {
                let compressed = sender.deflate(message.as_bytes()).unwrap();
                prop_assert_eq!(receiver.inflate(&compressed, LIMIT).unwrap(), Ok(message.into_bytes()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_the_limit(bytes: Vec<u8>, limit in 0..5000_usize) {
            if let Ok(payload) = Codec::default().inflate(&bytes, limit) {
                prop_assert!(payload.len() <= limit);
            }
        }
    }

    // RFC 7692 §7.2.3.1: a compressed "Hello", and again with the context kept, §7.2.3.2.
    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let (_, mut receiver) = takeover(15);
        for hello in [&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
            assert_eq!(receiver.inflate(hello, LIMIT).unwrap().unwrap(), b"Hello");
        }
        let mut codec = Codec::default();
        // RFC 7692 §7.2.3.3: a block without compression.
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(codec.inflate(&stored, LIMIT).unwrap(), b"Hello");
        // RFC 7692 §7.2.3.4: a block with BFINAL set to 1.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(codec.inflate(&last, LIMIT).unwrap(), b"Hello");
        // RFC 7692 §7.2.3.5: two blocks in one message.
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(codec.inflate(&two, LIMIT).unwrap(), b"Hello");
        // RFC 7692 §7.2.3.6: an empty message is a single zero byte.
        assert_eq!(codec.inflate(&[0x00], LIMIT).unwrap(), b"");
        assert_eq!(codec.deflate(b"", 15), [0x00]);
    }

    // RFC 7692 §7.2.2: after a final block a new one may follow, and may refer to what came before it.
    #[test]
    fn a_final_block_does_not_lose_the_context() {
        let mut ending = DeflateEncoder::new(Vec::new(), Compression::fast());
        ending.write_all(b"the context that is kept, ").unwrap();
        let ending = ending.finish().unwrap();
        let (_, mut receiver) = takeover(15);
        assert_eq!(receiver.inflate(&ending, LIMIT).unwrap().unwrap(), b"the context that is kept, ");

        let mut deflater = new_deflater(15);
        deflater.set_dictionary(b"the context that is kept, ").unwrap();
        let next = deflate(&mut deflater, b"the context that is kept, again");
        assert!(next.len() < 20, "it refers to the first message");
        assert_eq!(receiver.inflate(&next, LIMIT).unwrap().unwrap(), b"the context that is kept, again");
    }

    // CVE-2016-10544: the limit holds for what comes out. CVE-2026-54464: also one byte past it.
    #[test]
    fn the_limit_is_exact() {
        let mut codec = Codec::default();
        let compressed = codec.deflate(&vec![0; LIMIT], 15);
        assert_eq!(codec.inflate(&compressed, LIMIT).map(|payload| payload.len()), Ok(LIMIT));
        assert_eq!(codec.inflate(&compressed, LIMIT - 1), Err(Violation::InflatedTooBig));
    }
}
