//! The kernel that is none.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taut_proto::Time;

use crate::{AnySocket, Kernel, Ready, Socket};

/// The test's hold on the kernel and on the peers; clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<World>>);

impl Network {
    /// A listener that nobody has come to, at time zero.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            now: Time::ZERO,
            listening: true,
            arrived: false,
            queue: VecDeque::new(),
            accept_error: None,
            accepts_left: 0,
            pipes: Vec::new(),
            ready: Vec::new(),
            order: 0,
            changes_only: false,
            wakes: Arc::default(),
            seen_wakes: 0,
            asleep: false,
            timeout: None,
            drawn: 99,
        })))
    }

    /// The shard's side.
    pub fn kernel(&self) -> Fake {
        Fake(self.clone())
    }

    /// A peer connects: it waits in the listener's queue. One that comes after the listener has gone is reset.
    pub fn connect(&self) -> Remote {
        let mut world = self.world();
        let index = world.pipes.len();
        world.pipes.push(Pipe::new());
        if world.listening {
            world.queue.push_back(Some(index));
            world.arrived = true;
        } else {
            world.pipes[index].reset = true;
        }
        drop(world);
        Remote { network: self.clone(), index }
    }

    /// A peer connects past the listener: gives its end, and the one that a shard may be handed.
    pub fn pair(&self) -> (Remote, FakeStream) {
        let mut world = self.world();
        let index = world.pipes.len();
        world.pipes.push(Pipe::new());
        drop(world);
        (Remote { network: self.clone(), index }, FakeStream(index))
    }

    /// A peer connects and is gone before it is accepted.
    pub fn connect_and_abort(&self) {
        let mut world = self.world();
        world.queue.push_back(None);
        world.arrived = true;
    }

    /// Until it is lifted, accepting fails with this error number and takes nothing off the queue, as when there are
    /// no descriptors left.
    pub fn fail_accept(&self, error: Option<i32>) {
        self.world().accept_error = error;
    }

    /// Lets so many in although accepting fails, as when descriptors become free.
    pub fn accept_only(&self, count: usize) {
        self.world().accepts_left = count;
    }

    /// Peers in the listener's queue.
    pub fn queued(&self) -> usize {
        self.world().queue.len()
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.world().now
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let mut world = self.world();
        world.now = world.now + duration;
    }

    /// Whether the shard would be asleep now, had its last wait been a real one.
    pub fn is_asleep(&self) -> bool {
        self.world().asleep
    }

    /// How long the last wait was for.
    pub fn timeout(&self) -> Option<Duration> {
        self.world().timeout
    }

    /// How often the waker was called.
    pub fn wakes(&self) -> usize {
        self.world().wakes.load(Ordering::SeqCst)
    }

    /// What is ready at the same time is told in an order that this number makes; 0 for that in which it came.
    pub fn order(&self, seed: u64) {
        self.world().order = seed;
    }

    /// With one change, only that is told, as by `kqueue`, and not all else that is true, as by `epoll`.
    pub fn tell_changes_only(&self, only: bool) {
        self.world().changes_only = only;
    }

    /// What the numbers that spread timers begin at; 99 unless told, which makes them no spread at first.
    pub fn draw_from(&self, drawn: u32) {
        self.world().drawn = drawn;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A test that fails in the middle of a change is over anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pipe<T>(&self, index: usize, act: impl FnOnce(&mut Pipe) -> T) -> T {
        let mut world = self.world();
        let pipe = &mut world.pipes[index];
        let outcome = act(pipe);
        // Each change is told once, and only of a socket that is watched.
        if (pipe.came || pipe.freed) && !pipe.listed && pipe.token.is_some() {
            pipe.listed = true;
            world.ready.push(index);
        }
        outcome
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// A shard's kernel that is the test's [`Network`].
pub struct Fake(Network);

impl Kernel for Fake {
    type Socket = FakeSocket;
    type Stream = FakeStream;

    fn now(&mut self) -> Time {
        self.0.now()
    }

    fn random(&mut self) -> u32 {
        let mut world = self.0.world();
        world.drawn = world.drawn.wrapping_add(1);
        world.drawn
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let world = &mut *self.0.world();
        if std::mem::take(&mut world.arrived) && !world.queue.is_empty() {
            ready.push(Ready::Accept);
        }
        for index in std::mem::take(&mut world.ready) {
            let pipe = &mut world.pipes[index];
            pipe.listed = false;
            let came = std::mem::take(&mut pipe.came) || !world.changes_only;
            let freed = std::mem::take(&mut pipe.freed) || !world.changes_only;
            let readable = came && pipe.is_readable();
            let writable = freed && (pipe.room() > 0 || pipe.reset);
            // Who is told nothing because the room is gone again is told of the next.
            pipe.full |= freed && !writable;
            let ended = came && (pipe.finished || pipe.reset);
            if let Some(token) = pipe.token
                && (readable || writable || ended)
            {
                ready.push(Ready::Socket { token, readable, writable, ended });
            }
        }
        if world.order != 0 {
            shuffle(ready, &mut world.order);
        }
        let wakes = world.wakes.load(Ordering::SeqCst);
        let woken = std::mem::replace(&mut world.seen_wakes, wakes) != wakes;
        world.timeout = timeout;
        world.asleep = ready.is_empty() && !woken && timeout != Some(Duration::ZERO);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(FakeSocket, SocketAddr)> {
        let mut world = self.0.world();
        // Linux takes a descriptor before it looks whether anybody waits.
        if let Some(error) = world.accept_error.filter(|_| world.listening) {
            world.accepts_left =
                world.accepts_left.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(error))?;
        }
        if !world.listening || world.queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(index) = world.queue.pop_front().flatten() else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + (index % 50_000) as u16));
        Ok((FakeSocket { network: self.0.clone(), index }, peer))
    }

    fn turn_away(&mut self, response: &[u8]) -> io::Result<()> {
        let index = self.0.world().queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let Some(index) = index else { return Err(io::ErrorKind::ConnectionAborted.into()) };
        self.0.pipe(index, |pipe| {
            pipe.down.extend(response);
            pipe.gone = true;
        });
        Ok(())
    }

    fn adopt(&mut self, stream: FakeStream) -> io::Result<FakeSocket> {
        Ok(FakeSocket { network: self.0.clone(), index: stream.0 })
    }

    fn watch(&mut self, socket: &mut FakeSocket, token: usize) -> io::Result<()> {
        socket.network.pipe(socket.index, |pipe| {
            pipe.token = Some(token);
            pipe.came = true;
            pipe.freed = true;
        });
        Ok(())
    }

    fn release(&mut self, _: AnySocket) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stop_listening(&mut self) {
        let mut world = self.0.world();
        world.listening = false;
        for index in std::mem::take(&mut world.queue).into_iter().flatten() {
            world.pipes[index].reset = true;
        }
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wakes = Arc::clone(&self.0.world().wakes);
        Arc::new(move || {
            wakes.fetch_add(1, Ordering::SeqCst);
        })
    }
}

/// A connected socket outside of the shard; see [`Network::pair`]. Dropping it tells its peer nothing.
#[derive(Debug)]
pub struct FakeStream(usize);

/// A socket of the shard's, whose other end is a [`Remote`].
pub struct FakeSocket {
    network: Network,
    index: usize,
}

impl Read for FakeSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.network.pipe(self.index, |pipe| {
            pipe.reads += 1;
            if std::mem::take(&mut pipe.interrupt) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if pipe.up.is_empty() {
                return match (pipe.reset, pipe.finished) {
                    (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                    (_, true) => Ok(0),
                    _ => Err(io::ErrorKind::WouldBlock.into()),
                };
            }
            let count = buffer.len().min(pipe.up.len()).min(pipe.read_limit);
            for (byte, read) in buffer.iter_mut().zip(pipe.up.drain(..count)) {
                *byte = read;
            }
            // A read takes all there is: the rest has come right after it.
            pipe.came |= count < buffer.len() && !pipe.up.is_empty();
            Ok(count)
        })
    }
}

impl Write for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.network.pipe(self.index, |pipe| {
            assert!(!pipe.shut, "a socket was written to after its write side was shut");
            if pipe.reset || pipe.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if std::mem::take(&mut pipe.interrupt) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let asked: usize = slices.iter().map(|slice| slice.len()).sum();
            assert!(asked > 0, "a write of nothing");
            let count = asked.min(pipe.room()).min(pipe.write_limit);
            pipe.full |= count < asked && count == pipe.room();
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            pipe.writes += 1;
            pipe.down.extend(slices.iter().flat_map(|slice| slice.iter()).take(count));
            Ok(count)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for FakeSocket {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.network.pipe(self.index, |pipe| {
            if pipe.reset {
                return Err(io::ErrorKind::NotConnected.into());
            }
            assert!(!pipe.shut, "a write side was shut twice");
            pipe.shut = true;
            Ok(())
        })
    }
}

impl From<FakeSocket> for AnySocket {
    fn from(socket: FakeSocket) -> Self {
        Self::other(socket)
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        self.network.pipe(self.index, |pipe| {
            pipe.gone = true;
            pipe.token = None;
        });
    }
}

/// The peer's end of a connection.
#[derive(Clone)]
pub struct Remote {
    network: Network,
    index: usize,
}

impl Remote {
    /// Sends bytes, as many as there is room for; how many that were.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.network.pipe(self.index, |pipe| {
            if pipe.gone || pipe.reset || pipe.finished {
                return bytes.len();
            }
            let count = bytes.len().min(pipe.up_capacity.saturating_sub(pipe.up.len()));
            pipe.up.extend(&bytes[..count]);
            pipe.came |= count > 0;
            count
        })
    }

    /// Takes up to `limit` bytes of what has come.
    pub fn read(&self, limit: usize) -> Vec<u8> {
        self.network.pipe(self.index, |pipe| {
            let count = limit.min(pipe.down.len());
            let bytes: Vec<u8> = pipe.down.drain(..count).collect();
            // Room is told to those who found none.
            if pipe.full && pipe.room() > 0 {
                pipe.full = false;
                pipe.freed = true;
            }
            bytes
        })
    }

    /// Ends this side: the shard reads to the end.
    pub fn finish(&self) {
        self.network.pipe(self.index, |pipe| pipe.came |= !std::mem::replace(&mut pipe.finished, true));
    }

    /// Resets the connection. What was sent before can still be read unless `discard` says otherwise.
    pub fn reset(&self, discard: bool) {
        self.network.pipe(self.index, |pipe| {
            pipe.reset = true;
            pipe.came = true;
            pipe.freed = true;
            if discard {
                pipe.up.clear();
            }
        });
    }

    /// From now on writes fail; it is told by nothing else, as when a reset comes in the middle of a tick.
    pub fn break_writes(&self) {
        self.network.pipe(self.index, |pipe| pipe.broken = true);
    }

    /// Whether the shard has let go of its socket.
    pub fn is_gone(&self) -> bool {
        self.network.pipe(self.index, |pipe| pipe.gone)
    }

    /// Whether nothing more will come: the shard has shut its write side or let go, and all was read.
    pub fn is_at_end(&self) -> bool {
        self.network.pipe(self.index, |pipe| (pipe.shut || pipe.gone || pipe.reset) && pipe.down.is_empty())
    }

    /// Whether the shard has shut its write side.
    pub fn is_shut(&self) -> bool {
        self.network.pipe(self.index, |pipe| pipe.shut)
    }

    /// Bytes that have come and were not read.
    pub fn waiting(&self) -> usize {
        self.network.pipe(self.index, |pipe| pipe.down.len())
    }

    /// Bytes that the shard has not read.
    pub fn unread(&self) -> usize {
        self.network.pipe(self.index, |pipe| pipe.up.len())
    }

    /// Writes of the shard that took something.
    pub fn writes(&self) -> usize {
        self.network.pipe(self.index, |pipe| pipe.writes)
    }

    /// Reads of the shard, whatever came of them.
    pub fn reads(&self) -> usize {
        self.network.pipe(self.index, |pipe| pipe.reads)
    }

    /// How many bytes may wait on the way to the peer; without bound at first.
    pub fn set_capacity(&self, bytes: usize) {
        self.network.pipe(self.index, |pipe| pipe.capacity = bytes);
    }

    /// How many bytes may wait on the way to the shard; without bound at first.
    pub fn set_up_capacity(&self, bytes: usize) {
        self.network.pipe(self.index, |pipe| pipe.up_capacity = bytes);
    }

    /// How many bytes one read of the shard gives at most.
    pub fn set_read_limit(&self, bytes: usize) {
        self.network.pipe(self.index, |pipe| pipe.read_limit = bytes.max(1));
    }

    /// How many bytes one write of the shard takes at most.
    pub fn set_write_limit(&self, bytes: usize) {
        self.network.pipe(self.index, |pipe| pipe.write_limit = bytes.max(1));
    }

    /// A signal comes in the middle of the next read or write.
    pub fn interrupt(&self) {
        self.network.pipe(self.index, |pipe| pipe.interrupt = true);
    }
}

#[expect(clippy::struct_excessive_bools, reason = "as below")]
struct World {
    now: Time,
    listening: bool,
    /// Somebody has come to the listener since it was last told.
    arrived: bool,
    /// By index of the pipe; `None` is one that is gone already.
    queue: VecDeque<Option<usize>>,
    accept_error: Option<i32>,
    /// How many are accepted in spite of it.
    accepts_left: usize,
    /// One for each connection there ever was.
    pipes: Vec<Pipe>,
    /// Those with something to tell, by index.
    ready: Vec<usize>,
    order: u64,
    changes_only: bool,
    wakes: Arc<AtomicUsize>,
    seen_wakes: usize,
    asleep: bool,
    timeout: Option<Duration>,
    drawn: u32,
}

/// One connection. *Up* is from the peer to the shard.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing a socket can be or not")]
struct Pipe {
    up: VecDeque<u8>,
    up_capacity: usize,
    down: VecDeque<u8>,
    capacity: usize,
    read_limit: usize,
    write_limit: usize,
    reads: usize,
    writes: usize,
    interrupt: bool,
    /// The peer has ended its side.
    finished: bool,
    reset: bool,
    broken: bool,
    /// The shard has ended its side.
    shut: bool,
    /// The shard has dropped its socket.
    gone: bool,
    token: Option<usize>,
    /// Bytes have come, or the end, since the shard was last told.
    came: bool,
    /// There is room again, since the shard was last told.
    freed: bool,
    /// It is on the list of those with something to tell.
    listed: bool,
    /// The shard found no room, and is told when there is.
    full: bool,
}

impl Pipe {
    fn new() -> Self {
        Self {
            up: VecDeque::new(),
            up_capacity: usize::MAX,
            down: VecDeque::new(),
            capacity: usize::MAX,
            read_limit: usize::MAX,
            write_limit: usize::MAX,
            reads: 0,
            writes: 0,
            interrupt: false,
            finished: false,
            reset: false,
            broken: false,
            shut: false,
            gone: false,
            token: None,
            came: false,
            freed: false,
            listed: false,
            full: false,
        }
    }

    fn is_readable(&self) -> bool {
        !self.up.is_empty() || self.finished || self.reset
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.down.len())
    }
}

fn shuffle<T>(items: &mut [T], seed: &mut u64) {
    for last in (1..items.len()).rev() {
        // Any sequence will do (Knuth's MMIX constants).
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (*seed >> 33) as usize % (last + 1));
    }
}
