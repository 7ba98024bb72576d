//! What is still to be written to one connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use crate::frame::{Header, MAX_HEADER, Opcode};
use crate::prepared::Frame;
use crate::{Prepared, mask};

/// Bytes to be written, in order: frames of one's own and handles of messages shared with other connections.
///
/// A driver asks for [`slices`](Self::slices), writes what the socket takes, and says how much by
/// [`consume`](Self::consume). An outbox that is empty holds nothing of its connection and may serve the next.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Each begins and ends with a frame.
    segments: VecDeque<Segment>,
    /// What is of our own and comes after them; kept for what comes next when it is empty.
    tail: Vec<u8>,
    /// Bytes already written, of the first segment or, when there is none, of the tail.
    written: usize,
    len: usize,
    /// What is written next began with bytes that are no frame.
    in_handshake: bool,
}

impl Outbox {
    /// An empty outbox. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes still to be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes to write next, in up to `N` slices, for one vectored write; and how many slices there are.
    pub fn slices<const N: usize>(&self) -> ([IoSlice<'_>; N], usize) {
        let mut slices = [IoSlice::new(&[]); N];
        let mut count = 0;
        for bytes in self.unwritten().take(N) {
            slices[count] = IoSlice::new(bytes);
            count += 1;
        }
        (slices, count)
    }

    /// The first bytes to write: all of them where they lie in one piece, as they do of a few small messages.
    pub fn front(&self) -> &[u8] {
        self.unwritten().next().unwrap_or_default()
    }

    /// Takes note that `count` bytes were written.
    ///
    /// # Panics
    /// When there were not as many.
    pub fn consume(&mut self, mut count: usize) {
        assert!(count <= self.len, "more was consumed than there was");
        self.len -= count;
        while let Some(front) = self.segments.front() {
            let left = front.len() - self.written;
            if count < left {
                self.written += count;
                return;
            }
            count -= left;
            self.written = 0;
            self.in_handshake = false;
            self.segments.pop_front();
        }
        self.written += count;
        if self.written == self.tail.len() {
            self.tail.clear();
            self.written = 0;
            self.in_handshake = false;
        }
    }

    /// Everything as one vector; for tests and for transports that want it so.
    pub fn to_vec(&self) -> Vec<u8> {
        self.unwritten().flatten().copied().collect()
    }

    /// Bytes of memory held, written or not.
    pub fn capacity(&self) -> usize {
        let segments: usize = self.segments.iter().map(Segment::capacity).sum();
        segments + self.tail.capacity() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Puts bytes in that are not frames: the opening handshake's. Frames follow them, urgent ones too.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.in_handshake |= self.is_empty();
        self.copy(bytes);
    }

    #[inline]
    pub(crate) fn push_frame(&mut self, header: Header, payload: &[u8]) {
        if let Some(bytes) = header.to_two_bytes() {
            let length = bytes.len() + payload.len();
            self.len += length;
            let own = self.own(length);
            own.reserve(length);
            own.extend_from_slice(&bytes);
            own.extend_from_slice(payload);
        } else {
            self.push_long_frame(header, payload);
        }
    }

    /// As `push_frame`, of a payload that becomes the outbox's own: a large one is not copied.
    #[inline]
    pub(crate) fn push_own_frame(&mut self, header: Header, payload: Vec<u8>) {
        // Of one that is mostly empty more memory would be held than is counted.
        if payload.len() < KEEP_FROM || payload.capacity() / 2 > payload.len() {
            self.push_frame(header, &payload);
        } else {
            self.push_large_frame(header, payload);
        }
    }

    /// As `push_own_frame`, in frames of at most `fragment` bytes: `header` is asked for that of each, by its payload
    /// and where in the message it lies. Urgent frames can be sent between them.
    pub(crate) fn push_own_fragments(
        &mut self,
        mut payload: Vec<u8>,
        fragment: usize,
        mut header: impl FnMut(&[u8], &Range<usize>) -> Header,
    ) {
        let length = payload.len();
        let ranges = (0..length).step_by(fragment).map(|start| start..(start + fragment).min(length));
        // Of one that is mostly empty more memory would be held than is counted.
        if payload.capacity() / 2 > length {
            for range in ranges {
                self.push_frame(header(&payload[range.clone()], &range), &payload[range]);
            }
            return;
        }
        // All of them are masked before they are shared.
        let mut frames = Vec::with_capacity(ranges.len());
        for range in ranges {
            let chunk = &mut payload[range.clone()];
            let header = header(chunk, &range);
            if let Some(key) = header.mask {
                mask::apply(chunk, key, 0);
            }
            frames.push((header.to_bytes(), range));
        }
        self.close_tail();
        let payload = Arc::new(payload);
        for ((header, size), range) in frames {
            self.len += size + range.len();
            self.segments.push_back(Segment::Fragment { header, size: size as u8, payload: payload.clone(), range });
        }
    }

    fn push_large_frame(&mut self, header: Header, mut payload: Vec<u8>) {
        if let Some(key) = header.mask {
            mask::apply(&mut payload, key, 0);
        }
        let (header, size) = header.to_bytes();
        self.len += size + payload.len();
        self.close_tail();
        self.segments.push_back(Segment::Large { header, size: size as u8, payload });
    }

    fn push_long_frame(&mut self, header: Header, payload: &[u8]) {
        let (bytes, size) = header.to_bytes();
        let length = size + payload.len();
        self.len += length;
        let own = self.own(length);
        own.reserve(bytes.len() + payload.len());
        // All of the header's room and then back: a copy of a fixed size is a few stores.
        let header_end = own.len() + size;
        own.extend_from_slice(&bytes);
        own.truncate(header_end);
        own.extend_from_slice(payload);
        if let Some(key) = header.mask {
            let start = own.len() - payload.len();
            mask::apply(&mut own[start..], key, 0);
        }
    }

    /// A ping or pong: in its order while little waits, else ahead of what has not begun to be written.
    ///
    /// Ahead there is one of each: a newer one takes its place (RFC 6455 §5.5.3), so that a peer that floods and
    /// never reads costs no more than one that does not. With `alone` it is so from the first.
    pub(crate) fn push_urgent(&mut self, header: Header, payload: &[u8], alone: bool) {
        if !alone && self.len <= URGENT_FROM {
            return self.push_frame(header, payload);
        }
        let mut frame = Self::new();
        frame.push_frame(header, payload);
        let frame = frame.to_vec();
        self.len += frame.len();
        if self.segments.is_empty() {
            self.close_tail();
        }
        // RFC 6455 §4.2.2: the first frame comes after the handshake.
        let unwritten = usize::from(self.written > 0 || self.in_handshake);
        let waiting = self.segments.iter_mut().skip(unwritten).take(2).find_map(|segment| match segment {
            Segment::Urgent(opcode, bytes) if *opcode == header.opcode => Some(bytes),
            _ => None,
        });
        match waiting {
            Some(waiting) => {
                self.len -= waiting.len();
                *waiting = frame;
            }
            None => self.segments.insert(unwritten, Segment::Urgent(header.opcode, frame)),
        }
    }

    pub(crate) fn push_prepared(&mut self, prepared: &Prepared, frame: Frame) {
        let bytes = prepared.frame(frame);
        if bytes.len() <= COPY_UP_TO {
            return self.copy(bytes);
        }
        self.len += bytes.len();
        self.close_tail();
        self.segments.push_back(Segment::Shared(prepared.clone(), frame));
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.own(bytes.len()).extend_from_slice(bytes);
    }

    /// Our own buffer at the end, for a whole frame.
    #[inline]
    fn own(&mut self, length: usize) -> &mut Vec<u8> {
        if self.tail.len() + length > SEGMENT {
            self.close_tail();
        }
        &mut self.tail
    }

    /// Makes a segment of the tail, if there is something in it.
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push_back(Segment::Own(mem::take(&mut self.tail)));
        }
    }

    /// What is to be written, in order and in pieces that are not empty.
    fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        self.segments.iter().flat_map(Segment::pieces).chain([&self.tail[..]]).filter_map(move |piece| {
            let written = skip.min(piece.len());
            skip -= written;
            (written < piece.len()).then(|| &piece[written..])
        })
    }
}

#[derive(Debug)]
enum Segment {
    Own(Vec<u8>),
    Shared(Prepared, Frame),
    /// A frame whose payload was given to us.
    Large {
        header: [u8; MAX_HEADER],
        size: u8,
        payload: Vec<u8>,
    },
    /// A frame with a part of a message that was given to us.
    Fragment {
        header: [u8; MAX_HEADER],
        size: u8,
        payload: Arc<Vec<u8>>,
        range: Range<usize>,
    },
    /// A ping or pong that went ahead.
    Urgent(Opcode, Vec<u8>),
}

impl Segment {
    /// Its bytes, in order; one piece may be empty.
    fn pieces(&self) -> [&[u8]; 2] {
        match self {
            Self::Own(bytes) | Self::Urgent(_, bytes) => [bytes, &[]],
            Self::Shared(prepared, frame) => [prepared.frame(*frame), &[]],
            Self::Large { header, size, payload } => [&header[..usize::from(*size)], payload],
            Self::Fragment { header, size, payload, range } => [&header[..usize::from(*size)], &payload[range.clone()]],
        }
    }

    fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Own(bytes) | Self::Urgent(_, bytes) => bytes.capacity(),
            Self::Large { payload, .. } => payload.capacity(),
            // The rest of the message is counted by the other frames, or was written.
            Self::Fragment { range, .. } => range.len(),
            Self::Shared(..) => 0,
        }
    }
}

/// Bytes of one's own put together in one segment; control frames get in at the end of each.
const SEGMENT: usize = 128 << 10;

/// With more than this unwritten, pings and pongs no longer queue behind each other.
const URGENT_FROM: usize = 4 << 10;

/// A payload that is given to us is kept from this size on; below, a copy costs less than slices of their own.
pub(crate) const KEEP_FROM: usize = 8 << 10;

/// A shared frame up to this size is copied: cheaper than a handle counted by several threads, and it lets small
/// messages leave in one slice.
const COPY_UP_TO: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Message;

    #[derive(Clone, Debug)]
    enum Act {
        Frame(usize),
        Own(usize, bool),
        Prepared(usize),
        Urgent(usize, bool),
        Write(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..100_000_usize).prop_map(Act::Frame),
            (0..300_usize).prop_map(Act::Frame),
            (0..20_000_usize, any::<bool>()).prop_map(|(length, masked)| Act::Own(length, masked)),
            (0..10_000_usize).prop_map(Act::Prepared),
            (0..126_usize, any::<bool>()).prop_map(|(length, alone)| Act::Urgent(length, alone)),
            (0..200_000_usize).prop_map(Act::Write),
        ]
    }

    fn header(opcode: Opcode, length: usize) -> Header {
        Header { fin: true, compressed: false, opcode, mask: None, length: length as u64 }
    }

    proptest! {
        // What leaves is whole frames, every message in its order, however it is written.
        #[test]
        fn what_is_written_is_whole_frames_in_order(acts in prop::collection::vec(act(), 1..40)) {
            let mut outbox = Outbox::new();
            let mut written = Vec::new();
            let mut sent = Vec::new();
            let mut write = |outbox: &mut Outbox, limit: usize| {
                let (slices, count) = outbox.slices::<4>();
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter()).copied().take(limit).collect();
                outbox.consume(bytes.len());
                written.extend(bytes);
            };
            for act in acts {
                match act {
                    Act::Frame(length) => {
                        outbox.push_frame(header(Opcode::Binary, length), &vec![1; length]);
                        sent.push(length);
                    }
                    Act::Own(length, masked) => {
                        let mask = masked.then_some([7; 4]);
                        outbox.push_own_frame(Header { mask, ..header(Opcode::Binary, length) }, vec![1; length]);
                        sent.push(length);
                    }
                    Act::Prepared(length) => {
                        outbox.push_prepared(&Prepared::new(Message::from(vec![2; length])), Frame::Plain);
                        sent.push(length);
                    }
                    Act::Urgent(length, alone) => outbox.push_urgent(header(Opcode::Pong, length), &vec![3; length], alone),
                    Act::Write(limit) => write(&mut outbox, limit),
                }
                prop_assert_eq!(outbox.to_vec().len(), outbox.len());
                prop_assert!(outbox.to_vec().starts_with(outbox.front()));
            }
            while !outbox.is_empty() {
                write(&mut outbox, usize::MAX);
            }
            let mut rest = &written[..];
            let mut left = Vec::new();
            while !rest.is_empty() {
                let (header, size) = Header::parse(rest).unwrap().unwrap();
                let end = size + header.length as usize;
                if header.opcode == Opcode::Binary {
                    left.push(header.length as usize);
                    let mask = header.mask.map_or(0, |mask| mask[0]);
                    prop_assert!(rest[size..end].iter().all(|byte| matches!(byte ^ mask, 1 | 2)));
                }
                rest = &rest[end..];
            }
            prop_assert_eq!(left, sent);
        }
    }
}
