//! An echo server that drives `taut-proto` on tokio's current-thread runtime by hand, in about a hundred lines.
//!
//! It is to the library `taut` what a sketch is to a house: messages are echoed out of the read buffer and never owned, no
//! handle can be split or moved, no heartbeat or deadline is ever looked at, and a peer that never reads holds up its own
//! reading only. What `taut` needs beyond it is the price of all that.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

use taut_proto::handshake::{HeadLimits, HeadScan, Request};
use taut_proto::{Connection, Event, Input, Outbox, Role, Scratch, Settings, Time};
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

async fn serve(stream: TcpStream, settings: Arc<Settings>, start: Instant) -> io::Result<()> {
    open(&stream).await?;
    let mut connection = Connection::new(Role::Server, settings, Time::ZERO + start.elapsed(), 0);
    while !connection.is_done() {
        stream.readable().await?;
        let now = Time::ZERO + start.elapsed();
        let turn = THREAD.with_borrow_mut(|thread| thread.turn(&stream, &mut connection, now));
        let Some(mut unwritten) = turn? else { return Ok(()) };
        write_all(&stream, &mut unwritten).await?;
    }
    Ok(())
}

/// The opening handshake. The clients of this bench send nothing before its answer.
async fn open(stream: &TcpStream) -> io::Result<()> {
    let (mut head, mut scan, limits) = (Vec::new(), HeadScan::new(), HeadLimits::default());
    let mut response = Outbox::new();
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut head) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        if scan.find(&head, &limits).map_err(io::Error::other)?.is_some() {
            break;
        }
    }
    let request = Request::parse_found(&head, &scan).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    request.upgrade().map_err(io::Error::other)?.write_response(&mut bytes);
    response.push_bytes(&bytes);
    write_all(stream, &mut response).await
}

async fn write_all(stream: &TcpStream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.is_empty() {
        stream.writable().await?;
        write_some(stream, outbox)?;
    }
    Ok(())
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

/// What the thread lends each connection in turn.
struct Thread {
    buffer: Vec<u8>,
    scratch: Scratch,
    outbox: Outbox,
}

impl Thread {
    /// Echoes what one read brings and gives what the kernel did not take; `None` says that the peer has ended the stream.
    fn turn(&mut self, stream: &TcpStream, connection: &mut Connection, now: Time) -> io::Result<Option<Outbox>> {
        let Self { buffer, scratch, outbox } = self;
        let read = match stream.try_read(buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let mut input = Input::new(&mut buffer[..read]);
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
        written.map(|()| Some(unwritten))
    }
}

thread_local! {
    /// A server masks nothing, so it draws no random numbers.
    static THREAD: RefCell<Thread> =
        RefCell::new(Thread { buffer: vec![0; 128 * 1024], scratch: Scratch::new(|_| {}), outbox: Outbox::new() });
}
