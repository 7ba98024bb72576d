//! A connection within the process: bytes between a shard and another thread, without a socket of the kernel.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::mailbox::Mailbox;

/// A connection to a shard that takes no descriptor: one end for any thread or task, the other for
/// [`Intake::adopt_pipe`](crate::Intake::adopt_pipe). For clients whose bytes come by another way than a socket: over
/// HTTP requests, or as a stream among others on one connection.
///
/// Each direction holds up to `capacity` bytes, of which each write takes 64 beside its own; a full one makes its
/// writer wait. Dropping an end is seen by the other at once, behind the bytes that were written before.
///
/// ```
/// use std::io::{ErrorKind, Write};
///
/// let (mut pipe, _for_the_shard) = taut_shard::pipe(64 << 10);
/// let written = pipe.write(&[0; 100_000])?;
/// assert!(written < 100_000);
/// assert_eq!(pipe.write(b"more").unwrap_err().kind(), ErrorKind::WouldBlock);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn pipe(capacity: usize) -> (Pipe, ShardPipe) {
    let shared = Arc::new(Shared {
        up: Direction::new(capacity),
        down: Direction::new(capacity),
        readable: WakerSlot::new(),
        writable: WakerSlot::new(),
        shard: OnceLock::new(),
        is_told: AtomicBool::new(false),
        wants_room: AtomicBool::new(false),
    });
    let ours = Pipe { shared: Arc::clone(&shared), unread: Unread::default() };
    (ours, ShardPipe { shared, unread: Unread::default() })
}

/// The end of a [`pipe()`] outside of the shard. It never blocks: a call that finds nothing to read, or no room, says
/// so ([`WouldBlock`](io::ErrorKind::WouldBlock)), or has a task woken when there is some.
///
/// Reading and writing have a waker each, so that two tasks may have a half each.
pub struct Pipe {
    shared: Arc<Shared>,
    unread: Unread,
}

/// The end of a [`pipe()`] that a shard is given.
pub struct ShardPipe {
    shared: Arc<Shared>,
    unread: Unread,
}

impl Pipe {
    /// Reads what has come: how many bytes, 0 at the end. `Pending` when there are none: the task is woken when there
    /// are, or the shard's side has ended. Only the task that asked last is.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(read) = ready(self.read(buffer)) {
            return Poll::Ready(read);
        }
        self.shared.readable.set(context.waker());
        // What came before the waker was there has woken nobody.
        ready(self.read(buffer))
    }

    /// Writes as many bytes as there is room for, and says how many. `Pending` when there is none: the task is woken
    /// when there is, or the shard's end is gone. Only the task that asked last is.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = ready(self.write(bytes)) {
            return Poll::Ready(written);
        }
        self.shared.writable.set(context.waker());
        // As above.
        ready(self.write(bytes))
    }

    /// Ends this side: the shard reads to the end. What comes from it can still be read.
    pub fn shutdown(&mut self) {
        self.shared.up.finish();
        self.shared.tell_shard();
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.unread.read(&self.shared.down, buffer)?;
        if count > 0 && self.shared.is_room_wanted() {
            self.shared.tell_shard();
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.shared.up.write(bytes)?;
        if count > 0 {
            self.shared.tell_shard();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.up.finish();
        self.shared.down.abandon();
        self.shared.tell_shard();
    }
}

impl ShardPipe {
    /// Has its shard told from now on, under this token, when there is something to do.
    pub(crate) fn watch(&self, token: usize, ready: &Mailbox<usize>) {
        // A pipe comes to one shard, once. The shard is awake, and looks.
        if self.shared.shard.set((token, ready.clone())).is_ok() && !self.shared.is_told.swap(true, Ordering::SeqCst) {
            drop(ready.push_to_self(token, 0));
        }
    }

    /// What there is to do, for the shard that was told.
    pub(crate) fn readiness(&self) -> Readiness {
        // First: what comes from here on is told again.
        self.shared.is_told.swap(false, Ordering::SeqCst);
        let (up, down) = (&self.shared.up, &self.shared.down);
        let ended = up.is_finished();
        let readable = ended || !up.chunks.is_empty();
        Readiness { readable, writable: down.is_abandoned() || down.room() > 0, ended }
    }
}

/// What a pipe is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) ended: bool,
}

impl Read for ShardPipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.unread.read(&self.shared.up, buffer)?;
        if count > 0 {
            self.shared.writable.wake();
        }
        Ok(count)
    }
}

impl Write for ShardPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let down = &self.shared.down;
        let written = down.write(bytes).or_else(|error| {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            self.shared.wants_room.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // What was read before that was said has told nobody.
            down.write(bytes)
        })?;
        if written > 0 {
            self.shared.readable.wake();
        }
        // Of one that took less than it was given no room was asked: whoever has more to write tries again.
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ShardPipe {
    /// Sends no more.
    pub(crate) fn finish(&mut self) {
        self.shared.down.finish();
        self.shared.readable.wake();
    }
}

impl Drop for ShardPipe {
    fn drop(&mut self) {
        self.shared.down.finish();
        self.shared.up.abandon();
        self.shared.readable.wake();
        self.shared.writable.wake();
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

impl fmt::Debug for ShardPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardPipe").finish_non_exhaustive()
    }
}

/// What the ends have in common. *Up* is to the shard.
struct Shared {
    up: Direction,
    down: Direction,
    /// Who waits outside of the shard for bytes from it, and for room.
    readable: WakerSlot,
    writable: WakerSlot,
    /// Where the shard is told, and under which token.
    shard: OnceLock<(usize, Mailbox<usize>)>,
    /// The shard was told and has not looked yet.
    is_told: AtomicBool,
    /// The shard has found too little room.
    wants_room: AtomicBool,
}

impl Shared {
    /// There is something to do for the shard. A burst tells it once.
    fn tell_shard(&self) {
        fence(Ordering::SeqCst);
        if let Some((token, ready)) = self.shard.get()
            && !self.is_told.swap(true, Ordering::SeqCst)
        {
            // A shard that has ended needs to know nothing.
            drop(ready.push_always(*token));
        }
    }

    fn is_room_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wants_room.load(Ordering::SeqCst) && self.wants_room.swap(false, Ordering::SeqCst)
    }
}

/// Bytes on their way from one writer to one reader.
struct Direction {
    chunks: SegQueue<Vec<u8>>,
    /// What the chunks hold and cost.
    held: AtomicUsize,
    capacity: usize,
    /// The writer has written its last.
    finished: AtomicBool,
    /// There is no reader any more.
    abandoned: AtomicBool,
}

impl Direction {
    fn new(capacity: usize) -> Self {
        Self {
            chunks: SegQueue::new(),
            held: AtomicUsize::new(0),
            // One byte at least, or nothing would ever go through.
            capacity: capacity.max(CHUNK_COST + 1),
            finished: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    /// For its one writer: takes what there is room for.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_abandoned() || self.is_finished() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.room().min(rest.len()).min(LARGEST_CHUNK);
            if count == 0 {
                break;
            }
            let (chunk, later) = rest.split_at(count);
            self.held.fetch_add(count + CHUNK_COST, Ordering::SeqCst);
            self.chunks.push(chunk.to_vec());
            rest = later;
        }
        if rest.len() == bytes.len() && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(bytes.len() - rest.len())
    }

    /// Bytes that may be written at once.
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.held.load(Ordering::SeqCst) + CHUNK_COST)
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::SeqCst);
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    /// For its one reader, which goes: what was not read is not kept.
    fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        while self.chunks.pop().is_some() {}
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }
}

/// What a reader has taken out and not read.
#[derive(Default)]
struct Unread {
    chunk: Vec<u8>,
    used: usize,
}

impl Unread {
    /// Fills the buffer as far as there are bytes.
    fn read(&mut self, direction: &Direction, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.used == self.chunk.len() {
                // Asked first: what was written before the end is there then.
                let is_finished = direction.is_finished();
                let Some(chunk) = direction.chunks.pop() else {
                    return if filled > 0 || is_finished { Ok(filled) } else { Err(io::ErrorKind::WouldBlock.into()) };
                };
                (self.chunk, self.used) = (chunk, 0);
            }
            let rest = &self.chunk[self.used..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            self.used += count;
            if self.used == self.chunk.len() {
                let freed = self.chunk.len() + CHUNK_COST;
                (self.chunk, self.used) = (Vec::new(), 0);
                direction.held.fetch_sub(freed, Ordering::SeqCst);
            }
        }
        Ok(filled)
    }
}

/// The one waker of a task that waits: the last that was set.
struct WakerSlot(ArrayQueue<Waker>);

impl WakerSlot {
    fn new() -> Self {
        Self(ArrayQueue::new(1))
    }

    fn set(&self, waker: &Waker) {
        self.0.force_push(waker.clone());
        // So that either this side sees what the other has done, when it looks again, or the other sees the waker.
        fence(Ordering::SeqCst);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if let Some(waker) = self.0.pop() {
            waker.wake();
        }
    }
}

fn ready(outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

/// What a chunk costs beside its bytes: its place in the queue, and the allocator's own.
const CHUNK_COST: usize = 64;

/// So that reader and writer can work at the same time.
const LARGEST_CHUNK: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Wake;
    use std::thread::{self, Thread};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_end_reads_what_the_other_has_written() {
        let (mut ours, mut shard) = pipe(1000);
        assert_eq!(ours.write(b"hello").unwrap(), 5);
        assert_eq!(ours.write(b" world").unwrap(), 6);
        assert_eq!(read(&mut shard, 100), Ok(b"hello world".to_vec()));
        assert_eq!(shard.unread.chunk.capacity(), 0, "what was read is not kept");
        assert_eq!(shard.write(b"and back").unwrap(), 8);
        assert_eq!(read(&mut ours, 3), Ok(b"and".to_vec()));
        assert_eq!(read(&mut ours, 100), Ok(b" back".to_vec()));
        assert_eq!(read(&mut ours, 100), Err(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_full_pipe_takes_nothing_until_it_is_read() {
        let (mut ours, mut shard) = pipe(1000);
        let written = ours.write(&[7; 5000]).unwrap();
        assert!((800..1000).contains(&written), "{written}");
        assert_eq!(ours.write(b"more").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(read(&mut shard, 5000), Ok(vec![7; written]));
        assert_eq!(ours.write(b"more").unwrap(), 4);
    }

    #[test]
    fn short_writes_are_bounded_by_what_they_cost() {
        let (mut ours, _shard) = pipe(64 << 10);
        let writes = (0..10_000).take_while(|_| ours.write(b"x").is_ok()).count();
        assert!((900..1100).contains(&writes), "{writes}");
    }

    #[test]
    fn the_least_capacity_lets_a_byte_through() {
        let (mut ours, mut shard) = pipe(0);
        assert_eq!(ours.write(b"xy").unwrap(), 1);
        assert_eq!(read(&mut shard, 9), Ok(b"x".to_vec()));
    }

    #[test]
    fn the_end_comes_behind_what_was_written() {
        let (mut ours, mut shard) = pipe(1000);
        ours.write_all(b"last words").unwrap();
        drop(ours);
        assert_eq!(read(&mut shard, 4), Ok(b"last".to_vec()));
        assert_eq!(read(&mut shard, 100), Ok(b" words".to_vec()));
        assert_eq!(read(&mut shard, 100), Ok(Vec::new()));
        assert_eq!(shard.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (mut ours, mut shard) = pipe(1000);
        shard.write_all(b"bye").unwrap();
        shard.finish();
        assert_eq!(read(&mut ours, 100), Ok(b"bye".to_vec()));
        assert_eq!(read(&mut ours, 100), Ok(Vec::new()));
        assert_eq!(ours.write(b"still read").unwrap(), 10);
        drop(shard);
        assert_eq!(ours.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_task_that_waits_is_woken_by_bytes_by_room_and_by_the_end() {
        let (mut ours, mut shard) = pipe(1000);
        let (counter, waker) = counter();
        let mut context = Context::from_waker(&waker);
        assert!(ours.poll_read(&mut context, &mut [0; 10]).is_pending());
        shard.write_all(b"x").unwrap();
        shard.write_all(b"y").unwrap();
        assert_eq!(counter.load(Ordering::SeqCst), 1, "who was woken has to ask again");
        assert!(matches!(ours.poll_read(&mut context, &mut [0; 10]), Poll::Ready(Ok(2))));
        fill(|| ours.poll_write(&mut context, &[0; 100]).is_ready());
        read(&mut shard, 5000).unwrap();
        assert_eq!(counter.load(Ordering::SeqCst), 2);
        assert!(ours.poll_read(&mut context, &mut [0; 10]).is_pending());
        drop(shard);
        assert!(counter.load(Ordering::SeqCst) >= 3);
        assert!(matches!(ours.poll_read(&mut context, &mut [0; 10]), Poll::Ready(Ok(0))));
    }

    #[test]
    fn reading_and_writing_have_a_waker_each() {
        let (mut ours, mut shard) = pipe(1000);
        let (reader, read_waker) = counter();
        let (writer, write_waker) = counter();
        fill(|| ours.poll_write(&mut Context::from_waker(&write_waker), &[0; 100]).is_ready());
        assert!(ours.poll_read(&mut Context::from_waker(&read_waker), &mut [0; 10]).is_pending());
        read(&mut shard, 5000).unwrap();
        shard.write_all(b"x").unwrap();
        assert_eq!((reader.load(Ordering::SeqCst), writer.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn a_shard_is_told_once_until_it_has_looked() {
        let (mut ours, mut shard) = pipe(1000);
        ours.write_all(b"early").unwrap();
        let (ready, wakes) = shards_list();
        shard.watch(7, &ready);
        for _ in 0..3 {
            ours.write_all(b"x").unwrap();
        }
        assert_eq!((ready.pop(), ready.pop(), wakes.load(Ordering::SeqCst)), (Some(7), None, 0));
        assert_eq!(shard.readiness(), Readiness { readable: true, writable: true, ended: false });
        read(&mut shard, 100).unwrap();
        assert_eq!(shard.readiness(), Readiness { readable: false, writable: true, ended: false });
        // What is read tells nobody who has not looked for room.
        shard.write_all(b"y").unwrap();
        read(&mut ours, 100).unwrap();
        assert_eq!(ready.pop(), None);
        fill(|| shard.write(&[0; 100]).is_ok());
        assert!(!shard.readiness().writable);
        read(&mut ours, 5000).unwrap();
        assert_eq!(ready.pop(), Some(7));
        assert!(shard.readiness().writable);
        drop(ours);
        assert_eq!(ready.pop(), Some(7));
        assert_eq!(shard.readiness(), Readiness { readable: true, writable: true, ended: true });
    }

    /// A pipe whose shard has been told of everything so far.
    fn watched(capacity: usize) -> (Pipe, ShardPipe, Mailbox<usize>) {
        let (ours, shard) = pipe(capacity);
        let (ready, _) = shards_list();
        shard.watch(7, &ready);
        assert_eq!(ready.pop(), Some(7));
        shard.readiness();
        (ours, shard, ready)
    }

    #[test]
    fn a_shard_is_told_of_bytes_and_of_their_end() {
        let (mut ours, mut shard, ready) = watched(1000);
        assert_eq!(ours.write(b"").unwrap(), 0);
        assert_eq!(ready.pop(), None, "nothing has come");
        ours.write_all(b"x").unwrap();
        ours.write_all(b"y").unwrap();
        assert_eq!((ready.pop(), ready.pop()), (Some(7), None), "once");
        shard.readiness();
        read(&mut shard, 100).unwrap();
        ours.shutdown();
        assert_eq!(ready.pop(), Some(7));
        assert_eq!(shard.readiness(), Readiness { readable: true, writable: true, ended: true });
    }

    #[test]
    fn a_shard_that_found_no_room_is_told_once_when_there_is_some() {
        let (mut ours, mut shard, ready) = watched(1000);
        fill(|| shard.write(&[0; 100]).is_ok());
        assert_eq!(ours.read(&mut []).unwrap(), 0);
        assert_eq!(ready.pop(), None, "no room was made");
        for _ in 0..3 {
            read(&mut ours, 100).unwrap();
            shard.readiness();
        }
        assert_eq!((ready.pop(), ready.pop()), (Some(7), None));
    }

    #[test]
    fn who_waits_is_woken_by_what_has_happened_and_by_nothing_else() {
        let (mut ours, mut shard) = pipe(1000);
        let (reader, read_waker) = counter();
        assert!(ours.poll_read(&mut Context::from_waker(&read_waker), &mut [0; 10]).is_pending());
        assert_eq!(shard.write(b"").unwrap(), 0);
        assert_eq!(reader.load(Ordering::SeqCst), 0, "no byte has come");
        shard.finish();
        assert_eq!(reader.load(Ordering::SeqCst), 1, "the end has");
        let (writer, write_waker) = counter();
        let wait_for_room =
            |ours: &mut Pipe| fill(|| ours.poll_write(&mut Context::from_waker(&write_waker), &[0; 100]).is_ready());
        wait_for_room(&mut ours);
        assert_eq!(shard.read(&mut []).unwrap(), 0);
        assert_eq!(writer.load(Ordering::SeqCst), 0, "no room was made");
        read(&mut shard, 5000).unwrap();
        assert_eq!(writer.load(Ordering::SeqCst), 1);
        wait_for_room(&mut ours);
        drop(shard);
        assert_eq!(writer.load(Ordering::SeqCst), 2, "there is nobody to write to");
        let Poll::Ready(Err(error)) = ours.poll_write(&mut Context::from_waker(&write_waker), b"x") else {
            panic!("it would wait for nobody");
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn two_threads_with_little_room_lose_no_byte_and_no_wake() {
        const BYTES: usize = 200_000;
        let (mut ours, mut shard) = pipe(300);
        let here = thread::current();
        let ready = Mailbox::new(usize::MAX, Arc::new(move || here.unpark()));
        shard.watch(0, &ready);
        // Echoes all, then ends: it waits for nothing but its waker.
        let echo = thread::spawn(move || {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut context = Context::from_waker(&waker);
            let mut buffer = [0; 77];
            loop {
                let Poll::Ready(read) = ours.poll_read(&mut context, &mut buffer) else {
                    park();
                    continue;
                };
                let mut rest = &buffer[..read.unwrap()];
                if rest.is_empty() {
                    return;
                }
                while !rest.is_empty() {
                    match ours.poll_write(&mut context, rest) {
                        Poll::Ready(Ok(0)) => panic!("nothing was written, and nothing said"),
                        Poll::Ready(written) => rest = &rest[written.unwrap()..],
                        Poll::Pending => park(),
                    }
                }
            }
        });
        let (mut sent, mut received, mut is_shut) = (0, 0, false);
        let mut buffer = [0; 100];
        for turn in 0.. {
            assert!(turn < 100 * BYTES, "there is no end to it");
            let mut has_moved = false;
            let chunk: Vec<u8> = (sent..BYTES.min(sent + 50)).map(|n| n as u8).collect();
            if let Ok(written) = if chunk.is_empty() { Ok(0) } else { shard.write(&chunk) } {
                sent += written;
                has_moved |= written > 0;
            }
            if sent == BYTES && !std::mem::replace(&mut is_shut, true) {
                shard.finish();
            }
            if let Ok(count) = shard.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                assert!(buffer[..count].iter().enumerate().all(|(at, byte)| *byte == (received + at) as u8));
                received += count;
                has_moved = true;
            }
            if !has_moved {
                ready.rearm();
                if ready.pop().is_some() {
                    shard.readiness();
                } else {
                    park();
                }
            }
        }
        assert_eq!((sent, received), (BYTES, BYTES));
        echo.join().unwrap();
    }

    #[derive(Clone, Debug)]
    enum Act {
        Write(bool, usize),
        Read(bool, usize),
        Finish(bool),
        Drop(bool),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (any::<bool>(), 0..700_usize).prop_map(|(end, bytes)| Act::Write(end, bytes)),
            4 => (any::<bool>(), 1..700_usize).prop_map(|(end, bytes)| Act::Read(end, bytes)),
            1 => any::<bool>().prop_map(Act::Finish),
            1 => any::<bool>().prop_map(Act::Drop),
        ]
    }

    /// A direction as plainly as can be.
    #[derive(Default)]
    struct Model {
        bytes: VecDeque<u8>,
        is_finished: bool,
        is_abandoned: bool,
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_queue_does(acts in prop::collection::vec(act(), 0..60)) {
            const CAPACITY: usize = 1000;
            let (ours, shard) = pipe(CAPACITY);
            let mut ends = (Some(ours), Some(shard));
            // By who writes: the shard, or not.
            let mut models = [Model::default(), Model::default()];
            let mut next = 0_u8;
            for act in acts {
                let (Act::Write(is_shard, _) | Act::Read(is_shard, _) | Act::Finish(is_shard) | Act::Drop(is_shard)) = act;
                let (outgoing, incoming) = (usize::from(is_shard), usize::from(!is_shard));
                if if is_shard { ends.1.is_none() } else { ends.0.is_none() } {
                    continue;
                }
                match act {
                    Act::Write(_, count) => {
                        let bytes: Vec<u8> = (0..count).map(|n| next.wrapping_add(n as u8)).collect();
                        let outcome = match &mut ends {
                            (_, Some(shard)) if is_shard => shard.write(&bytes),
                            (Some(ours), _) => ours.write(&bytes),
                            _ => unreachable!(),
                        };
                        let model = &mut models[outgoing];
                        match outcome {
                            Ok(written) => {
                                prop_assert!(!model.is_finished && !model.is_abandoned);
                                prop_assert!(written > 0 || count == 0);
                                model.bytes.extend(&bytes[..written]);
                                next = next.wrapping_add(written as u8);
                                prop_assert!(model.bytes.len() <= CAPACITY);
                            }
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                prop_assert!(!model.bytes.is_empty(), "an empty pipe has room");
                            }
                            Err(error) => {
                                prop_assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                                prop_assert!(model.is_finished || model.is_abandoned);
                            }
                        }
                    }
                    Act::Read(_, count) => {
                        let outcome = match &mut ends {
                            (_, Some(shard)) if is_shard => read(shard, count),
                            (Some(ours), _) => read(ours, count),
                            _ => unreachable!(),
                        };
                        let model = &mut models[incoming];
                        let expected: Vec<u8> = model.bytes.drain(..count.min(model.bytes.len())).collect();
                        if expected.is_empty() && !model.is_finished {
                            prop_assert_eq!(outcome, Err(io::ErrorKind::WouldBlock));
                        } else {
                            prop_assert_eq!(outcome, Ok(expected));
                        }
                    }
                    Act::Finish(_) => {
                        match &mut ends {
                            (_, Some(shard)) if is_shard => shard.finish(),
                            (Some(ours), _) => ours.shutdown(),
                            _ => unreachable!(),
                        }
                        models[outgoing].is_finished = true;
                    }
                    Act::Drop(_) => {
                        if is_shard { drop(ends.1.take()) } else { drop(ends.0.take()) }
                        models[outgoing].is_finished = true;
                        models[incoming].is_abandoned = true;
                    }
                }
            }
        }
    }

    /// Writes until nothing more is taken.
    fn fill(mut write: impl FnMut() -> bool) {
        assert!((0..1000).any(|_| !write()), "it is never full");
    }

    fn read(end: &mut impl Read, most: usize) -> Result<Vec<u8>, io::ErrorKind> {
        let mut buffer = vec![0; most];
        let count = end.read(&mut buffer).map_err(|error| error.kind())?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Nothing but a wake ends it; one that is lost fails the test.
    fn park() {
        let (began, longest) = (Instant::now(), Duration::from_secs(20));
        thread::park_timeout(longest);
        assert!(began.elapsed() < longest, "a wake was lost");
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl std::ops::Deref for Count {
        type Target = AtomicUsize;

        fn deref(&self) -> &AtomicUsize {
            &self.0
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (Arc::clone(&count), Waker::from(count))
    }

    fn shards_list() -> (Mailbox<usize>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let wake = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        (Mailbox::new(usize::MAX, Arc::new(wake)), wakes)
    }
}
