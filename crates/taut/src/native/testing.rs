//! A workload in which futures are dropped midway, for the tests and for fuzzers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use taut_proto::deflate::{NegotiatedDeflate, Window};
use taut_proto::{CloseCode, Message, Role, Settings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::native::buffers::Bounds;
use crate::native::driver::Driver;
use crate::native::shared::cork::Cork;
use crate::{Error, Receiver, Sender, Transport, WebSocket};

/// A client and a server do what `data` says, over pipes that give and take bytes in the pieces `data` says, and most
/// futures are dropped after a few polls.
///
/// # Panics
/// When a message is lost, duplicated, reordered or damaged; when one arrives although its `send` was dropped; when an
/// end sleeps although it could go on; when a clean close is an error; when more waits than the bounds allow.
pub fn cancelled(data: &[u8]) {
    // Timers need a runtime to be made in. It is never run, so they never fire.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    let mut workload = Workload::new(&mut Script { bytes: data });
    workload.act(&mut Script { bytes: data.get(SETUP..).unwrap_or_default() });
    workload.finish();
}

/// Both ends and what they have done.
struct Workload {
    /// The client, then the server.
    ends: [End; 2],
    wires: [Shared; 2],
    /// Payload bytes that may still be sent.
    budget: usize,
}

impl Workload {
    fn new(script: &mut Script<'_>) -> Self {
        let capacity = script.choose(&[16, 100, 1000, 8 << 10, 64 << 10]);
        let wires = [Wire::shared(capacity), Wire::shared(capacity)];
        let window = |takeover| Window { bits: 15, takeover };
        let agreed = |outgoing, incoming| Some(NegotiatedDeflate::new(window(outgoing), window(incoming)));
        let how = script.byte();
        // Half of them in several tasks, half of them inside of a cork.
        let (is_split, is_corked) = (how & 4 > 0, how & 8 > 0);
        let [client, server] = match how % 4 {
            0 => [agreed(false, false), agreed(false, false)],
            1 => [agreed(true, true), agreed(true, true)],
            2 => [agreed(true, false), agreed(false, true)],
            _ => [None, None],
        };
        let bounds = script.choose(&[&TIGHT, &TIGHTER, &Bounds::STANDARD]);
        let mut end = |role, mut settings: Settings, deflate, incoming: &Shared, outgoing: &Shared| {
            settings.fragment = FRAGMENT;
            let pipe = Pipe {
                incoming: Arc::clone(incoming),
                outgoing: Arc::clone(outgoing),
                vectored: script.byte().is_multiple_of(2),
                pieces: Pieces(u64::from(script.byte()) + 1),
            };
            let driver =
                Driver::new(Transport::new(pipe), role, Arc::new(settings), deflate, 0, Vec::new()).bounded(bounds);
            let flag = Arc::new(Flag(AtomicBool::new(true)));
            let waker = Waker::from(Arc::clone(&flag));
            let socket = WebSocket::from(driver);
            End {
                socket: if is_split { socket.split().into() } else { Socket::Whole(socket) },
                // A task of its own, which is not the one to be woken for what comes.
                sending: is_split.then(|| Task::new(Waker::noop().clone(), is_corked)),
                task: Task::new(waker, is_corked),
                bounds,
                sent: Vec::new(),
                received: Vec::new(),
                closing: false,
                finished: false,
                flag,
            }
        };
        let ends = [
            end(Role::Client, Settings::client(), client, &wires[0], &wires[1]),
            end(Role::Server, Settings::server(), server, &wires[1], &wires[0]),
        ];
        Self { ends, wires, budget: BUDGET }
    }

    /// Does what the script says, a few polls at a time.
    fn act(&mut self, script: &mut Script<'_>) {
        while let Some(byte) = script.next() {
            let who = usize::from(byte & 1);
            let polls = usize::from(byte >> 1 & 7);
            match byte >> 4 {
                0..=4 => self.recv(who, polls),
                5..=9 => self.send(who, polls, script.byte()),
                10 | 11 => self.try_send(who, script.byte()),
                12 => self.ends[who].ping(script.byte()),
                13 | 14 => self.ends[who].flush(polls),
                // A close ends the fun, so it is rare.
                _ if script.byte() < 64 => self.ends[who].close(polls),
                _ => self.recv(who, 1),
            }
        }
    }

    /// Everything arrives, then everything ends.
    fn finish(&mut self) {
        self.settle(false);
        if self.ends.iter().all(|end| !end.finished) {
            self.compare();
            self.settle(true);
        }
        assert!(self.ends.iter().all(|end| end.finished), "one end closed and the other did not");
        self.compare();
        for end in &self.ends {
            assert!(end.socket.has_peer_close());
            assert_eq!(end.socket.pending(), 0);
        }
    }

    /// Polls whoever is woken until nobody is.
    fn settle(&mut self, close: bool) {
        for end in &self.ends {
            end.flag.0.store(true, Ordering::Relaxed);
        }
        let mut rounds = 0;
        while self.ends.iter().any(|end| end.flag.0.load(Ordering::Relaxed)) {
            rounds += 1;
            assert!(rounds < ROUNDS, "the two wake each other without end");
            for who in [0, 1] {
                if self.ends[who].flag.0.swap(false, Ordering::Relaxed) && !self.ends[who].finished {
                    if close && who == 0 { self.ends[0].close(1) } else { self.recv(who, 1) }
                }
            }
        }
        // Whoever sleeps now sleeps for ever.
        for (wire, reader) in self.wires.iter().zip(&self.ends) {
            assert!(open(wire).bytes.is_empty() || reader.finished, "an end sleeps and has bytes to read");
        }
        for end in &self.ends {
            assert!(end.socket.pending() == 0 || end.finished, "an end sleeps and has bytes to write");
        }
    }

    fn recv(&mut self, who: usize, polls: usize) {
        let end = &mut self.ends[who];
        let Some(received) = end.task.poll(polls, end.socket.recv()) else { return };
        match received.expect("nothing is wrong with the peer") {
            Some(message) => {
                let number = message.as_bytes().first_chunk().map_or(0, |bytes| read_number(*bytes));
                assert_eq!(message, text(number, message.as_bytes().len()), "damaged");
                end.received.push((number, message.as_bytes().len()));
                // There was more to do than one message.
                end.flag.0.store(true, Ordering::Relaxed);
            }
            None => end.finished = true,
        }
    }

    fn send(&mut self, who: usize, polls: usize, kind: u8) {
        let Some((number, length)) = self.draw(who, kind) else { return };
        let end = &mut self.ends[who];
        let Some(sent) =
            end.sending.as_mut().unwrap_or(&mut end.task).poll(polls, end.socket.send(text(number, length)))
        else {
            return;
        };
        end.note(&sent, number, length);
    }

    fn try_send(&mut self, who: usize, kind: u8) {
        let Some((number, length)) = self.draw(who, kind) else { return };
        let end = &mut self.ends[who];
        let full = end.socket.pending() >= end.bounds.outgoing;
        let Some(sent) =
            end.sending.as_mut().unwrap_or(&mut end.task).poll(1, async { end.socket.try_send(text(number, length)) })
        else {
            return;
        };
        if sent.as_ref().is_err_and(Error::is_full) {
            assert!(full);
        } else {
            end.note(&sent, number, length);
        }
    }

    /// A number that was not used yet, and a length.
    fn draw(&mut self, who: usize, kind: u8) -> Option<(u32, usize)> {
        let length = LENGTHS[usize::from(kind) % LENGTHS.len()];
        self.budget = self.budget.checked_sub(length)?;
        Some(((self.budget * 2 + who) as u32, length))
    }

    /// What one end received is what the other sent.
    fn compare(&mut self) {
        for (who, peer) in [(0, 1), (1, 0)] {
            let discarded = self.ends[who].socket.discarded();
            let (received, sent) = (&self.ends[who].received, &self.ends[peer].sent);
            if discarded == 0 {
                assert_eq!(received, sent, "lost, duplicated or reordered");
                continue;
            }
            // Whoever closes is allowed to drop what comes after its inbox is full.
            assert!(self.ends[who].closing);
            assert_eq!(received.len() + discarded, sent.len());
            let mut rest = sent.iter();
            assert!(received.iter().all(|message| rest.any(|sent| sent == message)), "duplicated or reordered");
        }
    }
}

struct End {
    socket: Socket,
    /// Receives, and does the rest too if nobody else does.
    task: Task,
    sending: Option<Task>,
    bounds: &'static Bounds,
    /// Numbers and lengths of what was accepted.
    sent: Vec<(u32, usize)>,
    received: Vec<(u32, usize)>,
    closing: bool,
    finished: bool,
    flag: Arc<Flag>,
}

/// A WebSocket, whole or split.
enum Socket {
    Whole(WebSocket),
    Split(Sender, Receiver),
}

impl From<(Sender, Receiver)> for Socket {
    fn from((sender, receiver): (Sender, Receiver)) -> Self {
        Self::Split(sender, receiver)
    }
}

impl Socket {
    async fn recv(&mut self) -> Result<Option<Message<'static>>, Error> {
        match self {
            Self::Whole(socket) => socket.recv().await,
            Self::Split(_, receiver) => receiver.recv().await,
        }
    }

    async fn send(&mut self, message: Message<'static>) -> Result<(), Error> {
        match self {
            Self::Whole(socket) => socket.send(message).await,
            Self::Split(sender, _) => sender.clone().send(message).await,
        }
    }

    fn try_send(&mut self, message: Message<'static>) -> Result<(), Error> {
        match self {
            Self::Whole(socket) => socket.try_send(message),
            Self::Split(sender, _) => sender.try_send(message),
        }
    }

    async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        match self {
            Self::Whole(socket) => socket.ping(payload).await,
            Self::Split(sender, _) => sender.ping(payload).await,
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        match self {
            Self::Whole(socket) => socket.flush().await,
            Self::Split(sender, _) => sender.flush().await,
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        match self {
            Self::Whole(socket) => socket.close(CloseCode::NORMAL).await,
            Self::Split(sender, _) => sender.close(CloseCode::NORMAL).await,
        }
    }

    fn has_peer_close(&self) -> bool {
        match self {
            Self::Whole(socket) => socket.peer_close().is_some(),
            Self::Split(_, receiver) => receiver.peer_close().is_some(),
        }
    }

    fn pending(&self) -> usize {
        match self {
            Self::Whole(socket) => socket.pending(),
            Self::Split(sender, _) => sender.pending(),
        }
    }

    fn discarded(&self) -> usize {
        match self {
            Self::Whole(socket) => socket.discarded(),
            Self::Split(_, receiver) => receiver.discarded(),
        }
    }
}

/// Polls futures, inside of a cork or not.
struct Task {
    waker: Waker,
    cork: Option<Cork>,
}

impl Task {
    fn new(waker: Waker, is_corked: bool) -> Self {
        Self { waker, cork: is_corked.then(Cork::new) }
    }

    /// Polls a future so many times, then drops it.
    fn poll<T>(&mut self, polls: usize, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let cx = &mut Context::from_waker(&self.waker);
        (0..polls).find_map(|_| {
            let polled = match &mut self.cork {
                Some(cork) => cork.poll_task(cx, |cx| future.as_mut().poll(cx)),
                None => future.as_mut().poll(cx),
            };
            match polled {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        })
    }
}

impl End {
    fn ping(&mut self, length: u8) {
        let payload = [b'p'; 125];
        let pinged = self
            .sending
            .as_mut()
            .unwrap_or(&mut self.task)
            .poll(1, self.socket.ping(&payload[..usize::from(length) % 126]));
        check(&pinged.expect("it never waits"));
    }

    fn flush(&mut self, polls: usize) {
        if let Some(flushed) = self.sending.as_mut().unwrap_or(&mut self.task).poll(polls, self.socket.flush()) {
            flushed.expect("the stream is whole");
            assert_eq!(self.socket.pending(), 0);
        }
    }

    fn close(&mut self, polls: usize) {
        self.closing |= polls > 0;
        if let Some(closed) = self.task.poll(polls, self.socket.close()) {
            closed.expect("a clean close");
            // What came before the close is still to be received.
            self.flag.0.store(true, Ordering::Relaxed);
            while let Some(Ok(Some(message))) = self.task.poll(1, self.socket.recv()) {
                let number = message.as_bytes().first_chunk().map_or(0, |bytes| read_number(*bytes));
                self.received.push((number, message.as_bytes().len()));
            }
            self.finished = true;
        }
    }

    fn note(&mut self, sent: &Result<(), Error>, number: u32, length: usize) {
        check(sent);
        if sent.is_ok() {
            assert!(!self.closing, "sent after the close");
            self.sent.push((number, length));
            let limit = self.bounds.outgoing + length + OVERHEAD;
            assert!(self.socket.pending() <= limit, "{} bytes wait", self.socket.pending());
        }
    }
}

/// Nothing can go wrong but that the connection is closed.
fn check(result: &Result<(), Error>) {
    assert!(result.as_ref().err().is_none_or(Error::is_closed), "{result:?}");
}

/// A message that shows its number and whether it is whole. Half of them compress well, half do not.
fn text(number: u32, length: usize) -> Message<'static> {
    let mut noise = Pieces(u64::from(number) + 1);
    let digit = |index: usize| if number % 4 < 2 { index % 7 } else { (noise.next() % 64) as usize };
    let mut bytes: Vec<u8> = (0..length).map(digit).map(|digit| b'0' + digit as u8).collect();
    for (index, byte) in bytes.iter_mut().take(8).enumerate() {
        *byte = b'A' + (number >> (4 * index) & 15) as u8;
    }
    match String::from_utf8(bytes) {
        Ok(text) if number.is_multiple_of(2) => Message::from(text),
        Ok(text) => Message::from(text.into_bytes()),
        Err(_) => unreachable!("it is ASCII"),
    }
}

fn read_number(bytes: [u8; 8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 4 | u32::from(byte.wrapping_sub(b'A') & 15))
}

/// Whether somebody was woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One direction.
struct Wire {
    bytes: VecDeque<u8>,
    /// How many of them the writer keeps to itself until it is flushed.
    held: usize,
    capacity: usize,
    shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The workload has one thread; a lock and not a cell because a WebSocket may move between threads.
type Shared = Arc<Mutex<Wire>>;

fn open(wire: &Shared) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    fn shared(capacity: usize) -> Shared {
        let bytes = VecDeque::new();
        Arc::new(Mutex::new(Self { bytes, held: 0, capacity, shut: false, reader: None, writer: None }))
    }

    /// What was written can be read.
    fn release(&mut self) {
        self.held = 0;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of two wires, with the moods of a socket.
struct Pipe {
    incoming: Shared,
    outgoing: Shared,
    /// It takes slices, as a socket does; else it holds bytes back until it is flushed, as TLS does.
    vectored: bool,
    pieces: Pieces,
}

impl Pipe {
    /// How much is to be done this time; nothing now and then, although more could be.
    fn piece(&mut self, cx: &Context<'_>) -> Option<usize> {
        let piece = PIECES[(self.pieces.next() % PIECES.len() as u64) as usize];
        if piece == 0 {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(piece)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(piece) = self.piece(cx) else { return Poll::Pending };
        let mut wire = open(&self.incoming);
        let ready = wire.bytes.len() - wire.held;
        if ready == 0 && !wire.shut {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = piece.min(ready).min(room.remaining());
        room.put_slice(&wire.bytes.drain(..count).collect::<Vec<_>>());
        if let Some(writer) = wire.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(piece) = self.piece(cx) else { return Poll::Pending };
        let mut wire = open(&self.outgoing);
        assert!(!wire.shut, "written after the end");
        let room = wire.capacity - wire.bytes.len();
        if room == 0 {
            wire.release();
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = wire.bytes.len();
        wire.bytes.extend(slices.iter().flat_map(|slice| slice.iter()).take(piece.min(room)));
        let count = wire.bytes.len() - before;
        wire.held += count;
        if self.vectored {
            wire.release();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.piece(cx).is_none() {
            return Poll::Pending;
        }
        open(&self.outgoing).release();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.piece(cx).is_none() {
            return Poll::Pending;
        }
        let mut wire = open(&self.outgoing);
        wire.shut = true;
        wire.release();
        Poll::Ready(Ok(()))
    }
}

/// Numbers without a pattern, the same each time (xorshift).
struct Pieces(u64);

impl Pieces {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
    }
}

struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// 0 after the end.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

/// Bytes of the script that say how the workload is set up.
const SETUP: usize = 7;

/// Payload bytes of one workload.
const BUDGET: usize = 64 << 10;

/// Lengths of messages: on both sides of the borders between header sizes and fragments.
const LENGTHS: [usize; 12] = [8, 9, 40, 64, 125, 126, 999, 1000, 1001, 3000, 5000, 20_000];

/// Bytes of a fragment, so that messages of few bytes come in several.
const FRAGMENT: usize = 1000;

/// Bytes that a pipe takes or gives at a time.
const PIECES: [usize; 10] = [0, 1, 3, 14, 100, 1000, 5000, 64 << 10, 64 << 10, 64 << 10];

/// Headers of a message's frames, and control frames that came in between.
const OVERHEAD: usize = 16 << 10;

/// Bounds that a workload meets often.
const TIGHT: Bounds = Bounds { outgoing: 2000, messages: 3, bytes: 4000, direct: 1 };

/// And all the time.
const TIGHTER: Bounds = Bounds { outgoing: 1, messages: 1, bytes: 1, direct: 100 };

/// Polls in which everything has arrived, and many more.
const ROUNDS: usize = 200_000;
