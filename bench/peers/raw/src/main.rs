//! A raw TCP echo server over `mio`: one thread, edge-triggered, no protocol at all.
//!
//! It is the ceiling of the comparison: whatever speaks WebSocket over the same kernel must do at least this much.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

fn main() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);

    let mut connections: Slab<Connection> = Slab::new();
    let mut buffer = vec![0; BUFFER_LENGTH];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut connections)?;
                continue;
            }
            let key = event.token().0;
            let Some(connection) = connections.get_mut(key) else {
                continue;
            };
            // A peer that goes away, however rudely, ends its own connection and nothing else.
            if !connection.echo(&mut buffer).unwrap_or(false) {
                let mut connection = connections.remove(key);
                poll.registry().deregister(&mut connection.stream)?;
            }
        }
    }
}

fn accept_all(listener: &TcpListener, poll: &Poll, connections: &mut Slab<Connection>) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let entry = connections.vacant_entry();
        poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection { stream, unwritten: Vec::new() });
    }
}

struct Connection {
    stream: TcpStream,
    /// What the kernel did not take; nothing more is read until it has, so it never exceeds one buffer.
    unwritten: Vec<u8>,
}

impl Connection {
    /// Writes back all that can be read; `false` says that the peer has ended the stream.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            if !self.unwritten.is_empty() {
                let written = write_some(&mut self.stream, &self.unwritten)?;
                self.unwritten.drain(..written);
                if !self.unwritten.is_empty() {
                    return Ok(true);
                }
                self.unwritten = Vec::new();
            }
            let read = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let written = write_some(&mut self.stream, &buffer[..read])?;
            if written < read {
                self.unwritten.extend_from_slice(&buffer[written..read]);
                return Ok(true);
            }
            // epoll(7): on a stream a short read says that the socket is drained, so no second call is needed to hear
            // `WouldBlock`. The end of the stream brings an event of its own.
            if read < buffer.len() {
                return Ok(true);
            }
        }
    }
}

/// Writes until the kernel takes no more; the answer is how much it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

const LISTENER: Token = Token(usize::MAX - 1);

/// One buffer for all connections: what is read is written before the next read.
const BUFFER_LENGTH: usize = 64 * 1024;
