//! Messages that come back in frames: counted by their headers, and compared where each read and each frame begins.

use measure::Outcome;
use measure::frame::opcode;

/// Where in the stream of replies the next byte lies.
#[derive(Default)]
pub(crate) struct Frames {
    /// The header of the frame that comes next, as far as it has come.
    header: Vec<u8>,
    /// Payload bytes of the current frame that are missing.
    missing: usize,
    /// The current frame is the last of its message.
    is_last: bool,
    /// Payload bytes of the current message that have come.
    position: usize,
    /// Which message of the period it is.
    number: usize,
}

impl Frames {
    /// Takes what has come; the answer is how many messages it completed.
    pub(crate) fn count(&mut self, payloads: &[Vec<u8>], kind: u8, mut received: &[u8]) -> Outcome<usize> {
        let mut messages = 0;
        while !received.is_empty() {
            if self.missing == 0 {
                let Some(header) = self.header(&mut received) else { break };
                let continues = self.position > 0;
                let (opcode, length) = parse(&header)?;
                if opcode != if continues { opcode::CONTINUATION } else { kind } {
                    return Err(format!("a frame with opcode {opcode} came back").into());
                }
                (self.missing, self.is_last) = (length, header[0] & FIN != 0);
                let fits = self.position + length <= payloads[self.number].len();
                if !fits || (length == 0 && !self.is_last) {
                    return Err("what comes back is not as long as what was sent".into());
                }
            }
            let (piece, rest) = received.split_at(self.missing.min(received.len()));
            let sample = piece.len().min(SAMPLE);
            let payload = &payloads[self.number];
            if piece[..sample] != payload[self.position..self.position + sample] {
                return Err("what comes back is not what was sent".into());
            }
            received = rest;
            self.missing -= piece.len();
            self.position += piece.len();
            if self.missing == 0 && self.is_last {
                if self.position != payload.len() {
                    return Err("what comes back is shorter than what was sent".into());
                }
                messages += 1;
                self.position = 0;
                self.number = (self.number + 1) % payloads.len();
            }
        }
        Ok(messages)
    }

    /// The next header, once all of it has come.
    fn header(&mut self, received: &mut &[u8]) -> Option<Vec<u8>> {
        while let Some((&byte, rest)) = received.split_first() {
            self.header.push(byte);
            *received = rest;
            let size = match self.header.get(1) {
                None => continue,
                Some(126) => 4,
                Some(127) => 10,
                Some(_) => 2,
            };
            if self.header.len() == size {
                return Some(std::mem::take(&mut self.header));
            }
        }
        None
    }
}

/// Opcode and length of a frame that is not masked and has no reserved bit set.
fn parse(header: &[u8]) -> Outcome<(u8, usize)> {
    if header[0] & RESERVED != 0 || header[1] & MASKED != 0 {
        return Err("a frame came back masked or with a reserved bit".into());
    }
    let length = match header.len() {
        2 => usize::from(header[1]),
        _ => header[2..].iter().fold(0, |length, &byte| (length << 8) | usize::from(byte)),
    };
    Ok((header[0] & 0x0F, length))
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Bytes compared at the beginning of every piece.
const SAMPLE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages, the first in three frames of which the second is empty.
    fn replies() -> (Vec<Vec<u8>>, Vec<u8>) {
        let payloads = vec![vec![b'a'; 70_300], vec![b'b'; 300]];
        let mut stream = vec![0x01, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        stream.extend_from_slice(&vec![b'a'; 65_536]);
        stream.extend_from_slice(&[0x00, 126, 0x12, 0x9B]);
        stream.extend_from_slice(&[b'a'; 4763]);
        stream.extend_from_slice(&[0x80, 1, b'a', 0x81, 126, 1, 44]);
        stream.extend_from_slice(&[b'b'; 300]);
        (payloads, stream)
    }

    #[test]
    fn messages_in_frames_are_counted_wherever_reads_are_cut() {
        let (payloads, stream) = replies();
        for cut in [1, 2, 3, 1000, 65_535, 65_547, 1 << 20] {
            let mut frames = Frames::default();
            let stream = stream.repeat(2);
            let counts = stream.chunks(cut).map(|read| frames.count(&payloads, opcode::TEXT, read).unwrap());
            assert_eq!(counts.sum::<usize>(), 4, "reads of {cut}");
        }
    }

    #[test]
    fn what_is_not_the_echo_is_an_error() {
        let (payloads, stream) = replies();
        for (at, byte) in [(0, 0x02), (0, 0xC1), (1, 0xFF), (7, 2), (10, b'x'), (65_546, 0x01), (65_549, 0x9C)] {
            let mut changed = stream.clone();
            changed[at] = byte;
            assert!(Frames::default().count(&payloads, opcode::TEXT, &changed).is_err(), "{at}");
        }
    }
}
