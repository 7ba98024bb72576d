//! The seam between the shard and the kernel, where tests put one of their own.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};
use taut_proto::Time;

use crate::pipe::ShardPipe;

/// What a shard needs of the operating system.
pub trait Kernel {
    /// A connected socket that never blocks.
    type Socket: Socket + Into<AnySocket>;
    /// A socket that is connected already, on its way from another thread.
    type Stream: Send + 'static;

    /// What time it is.
    fn now(&mut self) -> Time;

    /// A number that spreads timers; it need not be secret.
    fn random(&mut self) -> u32;

    /// Waits until something is ready or the time is over, and says what is. Readiness is told once, when it
    /// changes.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// Takes the next socket from the listener's queue.
    fn accept(&mut self) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Takes the next socket from the listener's queue where [`accept`](Self::accept) finds no descriptor for it, by means kept for that; answers it
    /// and closes it. An error says that nobody is waiting, or that it cannot be done.
    fn turn_away(&mut self, response: &[u8]) -> io::Result<()> {
        let _ = response;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a socket that never blocks of one that comes from another thread.
    fn adopt(&mut self, stream: Self::Stream) -> io::Result<Self::Socket>;

    /// Watches a socket for reading and writing, under a number.
    fn watch(&mut self, socket: &mut Self::Socket, token: usize) -> io::Result<()>;

    /// Lets a socket leave the shard: it is no longer watched.
    ///
    /// # Errors
    /// When it is not a socket of the operating system, or cannot be released; it is closed then.
    fn release(&mut self, socket: AnySocket) -> io::Result<TcpStream>;

    /// Ends listening: new connections are refused.
    fn stop_listening(&mut self);

    /// Makes [`wait`](Self::wait) return, from any thread.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;
}

/// A connected socket.
pub trait Socket: Read + Write {
    /// Reads once and appends to `buffer`, as much as it has room for; how many bytes, 0 at the end.
    fn read_append(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        read_zeroed(self, buffer)
    }

    /// Ends the writing side: the peer reads to the end.
    fn shutdown_write(&mut self) -> io::Result<()>;
}

/// A connected socket of whatever kind, as a shard holds it. TCP is a kind of its own, called without indirection.
pub struct AnySocket(Kind);

enum Kind {
    Tcp(mio::net::TcpStream),
    Pipe(ShardPipe),
    Other(Box<dyn Socket + Send>),
}

impl AnySocket {
    /// A socket that is not the operating system's, such as a test's.
    pub fn other(socket: impl Socket + Send + 'static) -> Self {
        Self(Kind::Other(Box::new(socket)))
    }

    /// The pipe, if it is one.
    pub(crate) fn as_pipe(&self) -> Option<&ShardPipe> {
        match &self.0 {
            Kind::Pipe(pipe) => Some(pipe),
            Kind::Tcp(_) | Kind::Other(_) => None,
        }
    }
}

impl From<ShardPipe> for AnySocket {
    fn from(pipe: ShardPipe) -> Self {
        Self(Kind::Pipe(pipe))
    }
}

impl From<mio::net::TcpStream> for AnySocket {
    fn from(socket: mio::net::TcpStream) -> Self {
        Self(Kind::Tcp(socket))
    }
}

impl Read for AnySocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.read(buffer),
            Kind::Pipe(socket) => socket.read(buffer),
            Kind::Other(socket) => socket.read(buffer),
        }
    }
}

impl Write for AnySocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.write(bytes),
            Kind::Pipe(socket) => socket.write(bytes),
            Kind::Other(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.write_vectored(slices),
            Kind::Pipe(socket) => socket.write_vectored(slices),
            Kind::Other(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is buffered.
        Ok(())
    }
}

impl Socket for AnySocket {
    fn read_append(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.read_append(buffer),
            Kind::Pipe(socket) => read_zeroed(socket, buffer),
            Kind::Other(socket) => socket.read_append(buffer),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.shutdown_write(),
            Kind::Pipe(socket) => {
                socket.finish();
                Ok(())
            }
            Kind::Other(socket) => socket.shutdown_write(),
        }
    }
}

/// Reads into room that was filled with zeros.
fn read_zeroed<S: Read + ?Sized>(socket: &mut S, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let length = buffer.len();
    buffer.resize(buffer.capacity(), 0);
    let read = socket.read(&mut buffer[length..]);
    buffer.truncate(length + *read.as_ref().unwrap_or(&0));
    read
}

/// What is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The listener has sockets.
    Accept,
    /// A socket can be read or written.
    Socket {
        /// The number it is watched under.
        token: usize,
        /// There are bytes.
        readable: bool,
        /// There is room.
        writable: bool,
        /// The peer has ended its side, or the socket has failed.
        ended: bool,
    },
}

/// The real one: `mio`, edge-triggered.
pub struct System {
    poll: Poll,
    events: Events,
    listener: Option<mio::net::TcpListener>,
    /// Kept so that, when there is no other descriptor, one is left to say so with.
    spare: Option<File>,
    waker: Arc<Waker>,
    start: Instant,
    random: RandomState,
    drawn: u64,
}

impl System {
    /// Listens on a socket that is bound already.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            listener: Some(listener),
            spare: spare(),
            waker,
            start: Instant::now(),
            random: RandomState::new(),
            drawn: 0,
        })
    }
}

impl Kernel for System {
    type Socket = mio::net::TcpStream;
    type Stream = TcpStream;

    fn now(&mut self) -> Time {
        Time::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn random(&mut self) -> u32 {
        self.drawn += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.drawn);
        hasher.finish() as u32
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        ready.extend(self.events.iter().filter_map(|event| match event.token() {
            WAKER => None,
            LISTENER => Some(Ready::Accept),
            Token(token) => Some(Ready::Socket {
                token,
                readable: event.is_readable(),
                writable: event.is_writable(),
                ended: event.is_read_closed() || event.is_error(),
            }),
        }));
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(Self::Socket, SocketAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let (socket, peer) = listener.accept()?;
        // Replies leave in one write; nothing is gained by waiting for more (Nagle).
        socket.set_nodelay(true)?;
        Ok((socket, peer))
    }

    fn turn_away(&mut self, response: &[u8]) -> io::Result<()> {
        // Somebody else may have been faster the last time.
        drop(self.spare.take().or_else(spare).ok_or(io::ErrorKind::QuotaExceeded)?);
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let outcome = listener.accept().map(|(mut socket, _)| answer(&mut socket, response));
        self.spare = spare();
        outcome
    }

    fn adopt(&mut self, stream: TcpStream) -> io::Result<Self::Socket> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(mio::net::TcpStream::from_std(stream))
    }

    fn watch(&mut self, socket: &mut Self::Socket, token: usize) -> io::Result<()> {
        socket.register(self.poll.registry(), Token(token), Interest::READABLE | Interest::WRITABLE)
    }

    fn release(&mut self, socket: AnySocket) -> io::Result<TcpStream> {
        let Kind::Tcp(mut socket) = socket.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        socket.deregister(self.poll.registry())?;
        Ok(socket.into())
    }

    fn stop_listening(&mut self) {
        self.listener = None;
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        // It fails only when the poll is gone, and then nobody is to be woken.
        Arc::new(move || drop(waker.wake()))
    }
}

/// A descriptor that is good for nothing; none, where that cannot be had.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Says something to a client that is let go, without waiting.
fn answer(socket: &mut mio::net::TcpStream, response: &[u8]) {
    // What is left unread would make a reset of the end, at which the client would forget the answer.
    let mut unread = [0; 4096];
    for _ in 0..READS {
        if !matches!(socket.read(&mut unread), Ok(1..)) {
            break;
        }
    }
    // A socket that is new has room for it.
    let _ = socket.write_all(response);
    let _ = socket.shutdown(Shutdown::Write);
}

impl Socket for mio::net::TcpStream {
    #[cfg(unix)]
    fn read_append(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        // Without `unsafe`, std reads only to where it has written zeros before.
        Ok(rustix::io::read(&*self, rustix::buffer::spare_capacity(buffer))?)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Reads of a client that is turned away: its request, if that is not much longer than usual.
const READS: usize = 8;

/// Events taken at a time: enough that a busy shard seldom asks twice in a tick.
const EVENTS: usize = 1024;
