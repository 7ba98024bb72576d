//! An echo server that drives `taut-proto` on tokio's current-thread runtime by hand, in about a hundred lines.
//!
//! It is to the library `taut` what a sketch is to a house: messages are echoed out of the read buffer and never owned, no
//! handle can be split or moved, no heartbeat or deadline is ever looked at, and a peer that never reads holds up its own
//! reading only. What `taut` needs beyond it is the price of all that.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use taut_proto::handshake::{HeadLimits, HeadScan, Request};
use taut_proto::{Connection, Event, Input, Outbox, Role, Scratch, Settings, Time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut settings = Settings::server();
    settings.limits.message = 64 << 20;
    settings.limits.fragments = u32::MAX;
    let (settings, start) = (Arc::new(settings), Instant::now());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A peer that goes away, however rudely, ends its own task and nothing else.
        tokio::spawn(serve(stream, Arc::clone(&settings), start));
    }
}

async fn serve(mut stream: TcpStream, settings: Arc<Settings>, start: Instant) -> io::Result<()> {
    open(&mut stream).await?;
    let mut connection = Connection::new(Role::Server, settings, Time::ZERO + start.elapsed(), 0);
    while !connection.is_done() {
        let turn =
            poll_fn(|cx| THREAD.with_borrow_mut(|thread| thread.poll_turn(&mut stream, &mut connection, start, cx)));
        let Some(mut unwritten) = turn.await? else { return Ok(()) };
        while !unwritten.is_empty() {
            let written = stream.write(unwritten.front()).await?;
            unwritten.consume(written);
        }
    }
    Ok(())
}

/// The opening handshake. The clients of this bench send nothing before its answer.
async fn open(stream: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut scan, limits) = (Vec::new(), HeadScan::new(), HeadLimits::default());
    while scan.find(&head, &limits).map_err(io::Error::other)?.is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let mut response = Vec::new();
    let request = Request::parse_found(&head, &scan).map_err(io::Error::other)?;
    request.upgrade().map_err(io::Error::other)?.write_response(&mut response);
    stream.write_all(&response).await
}

/// What the thread lends each connection in turn.
struct Thread {
    buffer: Vec<u8>,
    scratch: Scratch,
    outbox: Outbox,
}

impl Thread {
    /// Echoes what one read brings and gives what the kernel did not take; `None` says that the peer has ended the stream.
    ///
    /// It polls rather than tries: only so does tokio take a short read for the last, and spares the one that finds nothing.
    fn poll_turn(
        &mut self,
        stream: &mut TcpStream,
        connection: &mut Connection,
        start: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Outbox>>> {
        let Self { buffer, scratch, outbox } = self;
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(None));
        }
        let (mut input, now) = (Input::new(read.filled_mut()), Time::ZERO + start.elapsed());
        // A violation ends it: its close frame is written, and what follows it is discarded.
        while let Ok(Some(event)) = connection.receive(&mut input, now, scratch, outbox) {
            if let Event::Message(message) = event {
                // It fails only once the close has begun, when nobody waits for an echo any more.
                let _ = connection.send(message, scratch, outbox);
            }
        }
        let written = write_some(stream, outbox);
        // Whatever became of it, the next connection finds none of it.
        let unwritten = if outbox.is_empty() { Outbox::new() } else { std::mem::take(outbox) };
        Poll::Ready(written.map(|()| Some(unwritten)))
    }
}

/// Writes until the kernel takes no more.
fn write_some(stream: &TcpStream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.is_empty() {
        match stream.try_write(outbox.front()) {
            Ok(written) => outbox.consume(written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

thread_local! {
    /// A server masks nothing, so it draws no random numbers.
    static THREAD: RefCell<Thread> =
        RefCell::new(Thread { buffer: vec![0; 128 * 1024], scratch: Scratch::new(|_| {}), outbox: Outbox::new() });
}
