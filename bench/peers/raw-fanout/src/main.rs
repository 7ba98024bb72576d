//! A fan-out over `mio`: one thread, edge-triggered, one write per message and subscriber, and no protocol: it takes for
//! granted what the load says, looks at fixed places of it, and answers with bytes that are made before.
//!
//! It is the ceiling of the comparison for whoever writes each message by itself: the same bytes come and go as with a
//! server that understands them.

use std::collections::HashMap;
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

    let mut hub = Hub::default();
    let mut buffer = vec![0; BUFFER_LENGTH];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                hub.accept_all(&listener, &poll)?;
                continue;
            }
            let key = event.token().0;
            // A peer that goes away, however rudely, ends its own connection and nothing else.
            if hub.connections.contains(key) && !hub.serve(key, &mut buffer).unwrap_or(false) {
                hub.remove(key, &poll)?;
            }
        }
    }
}

#[derive(Default)]
struct Hub {
    connections: Slab<Connection>,
    /// By the digits of a channel's name: who is subscribed to it.
    channels: HashMap<Digits, Vec<usize>>,
    frame: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// What has come of a request that is not whole yet.
    unread: Vec<u8>,
    /// What the kernel did not take.
    unwritten: Vec<u8>,
    is_open: bool,
    channel: Option<Digits>,
}

type Digits = [u8; 5];

impl Hub {
    fn accept_all(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
            entry.insert(Connection {
                stream,
                unread: Vec::new(),
                unwritten: Vec::new(),
                is_open: false,
                channel: None,
            });
        }
    }

    fn remove(&mut self, key: usize, poll: &Poll) -> io::Result<()> {
        let mut connection = self.connections.remove(key);
        if let Some(members) = connection.channel.and_then(|channel| self.channels.get_mut(&channel)) {
            members.retain(|member| *member != key);
        }
        poll.registry().deregister(&mut connection.stream)
    }

    /// Writes what is left, then reads and answers; `false` says that the connection is over.
    fn serve(&mut self, key: usize, buffer: &mut [u8]) -> io::Result<bool> {
        let connection = &mut self.connections[key];
        connection.write(&[])?;
        loop {
            let read = match connection.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let connection = &mut self.connections[key];
            let is_whole = connection.unread.is_empty();
            if !is_whole {
                connection.unread.extend_from_slice(&buffer[..read]);
            }
            let mut unread = std::mem::take(&mut connection.unread);
            let used = self.act(key, if is_whole { &buffer[..read] } else { &unread })?;
            let Some(used) = used else { return Ok(false) };
            if is_whole {
                unread.extend_from_slice(&buffer[used..read]);
            } else {
                unread.drain(..used);
            }
            self.connections[key].unread = unread;
            // epoll(7): a short read says that the socket is drained.
            if read < buffer.len() {
                return Ok(true);
            }
            return self.serve(key, buffer);
        }
    }

    /// Does what the bytes ask for; gives how many of them are done with, and `None` at the end.
    fn act(&mut self, key: usize, bytes: &[u8]) -> io::Result<Option<usize>> {
        let connection = &mut self.connections[key];
        let length = bytes.len();
        if bytes.starts_with(b"POST") {
            let Some(body) = body(bytes) else { return Ok(Some(0)) };
            connection.write(ANSWER)?;
            self.publish(body);
        } else if !connection.is_open {
            if !bytes.ends_with(b"\r\n\r\n") {
                return Ok(Some(0));
            }
            connection.is_open = true;
            connection.write(GREETING)?;
        } else if bytes[0] == CLOSE[0] {
            connection.write(CLOSE)?;
            return Ok(None);
        } else {
            let Some(channel) = subscribed(bytes) else { return Ok(Some(0)) };
            connection.channel = Some(channel);
            let digits = str::from_utf8(&channel).unwrap_or_default();
            let succeeded = format!(
                r#"{{"event":"pusher_internal:subscription_succeeded","channel":"channel-{digits}","data":"{{}}"}}"#
            );
            connection.write(&framed(succeeded.as_bytes()))?;
            self.channels.entry(channel).or_default().push(key);
        }
        Ok(Some(length))
    }

    fn publish(&mut self, body: &[u8]) {
        // `{"name":"news","channel":"channel-00042","data":"…"}` goes out as
        // `{"event":"news","channel":"channel-00042","data":"…"}`: one byte more.
        let length = (body.len() + 1) as u16;
        self.frame.clear();
        self.frame.extend_from_slice(&[0x81, 126]);
        self.frame.extend_from_slice(&length.to_be_bytes());
        self.frame.extend_from_slice(br#"{"event""#);
        self.frame.extend_from_slice(&body[br#"{"name""#.len()..]);
        let Some(members) = body[CHANNEL_AT..].first_chunk().and_then(|channel| self.channels.get(channel)) else {
            return;
        };
        for member in members {
            // Who is gone says so by an event of its own.
            let _ = self.connections[*member].write(&self.frame);
        }
    }
}

impl Connection {
    /// Writes what is left over and then these bytes, as far as the kernel takes them; the rest is left over.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            let written = write_some(&mut self.stream, &self.unwritten)?;
            self.unwritten.drain(..written);
            if !self.unwritten.is_empty() {
                self.unwritten.extend_from_slice(bytes);
                return Ok(());
            }
            self.unwritten = Vec::new();
        }
        let written = write_some(&mut self.stream, bytes)?;
        if written < bytes.len() {
            self.unwritten.extend_from_slice(&bytes[written..]);
        }
        Ok(())
    }
}

/// The body of a request, once it is whole.
fn body(request: &[u8]) -> Option<&[u8]> {
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    // The load gives the length last.
    let digits = request[..head - 4].rsplit(|byte| *byte == b' ').next()?;
    let length: usize = str::from_utf8(digits).ok()?.parse().ok()?;
    request.get(head..head + length)
}

/// The channel of `…"channel":"channel-00042"}}`, the last of a masked message, once that is whole.
fn subscribed(frame: &[u8]) -> Option<Digits> {
    let length = usize::from(frame.get(1)? & 0x7F);
    let (key, payload) = frame[2..].split_first_chunk::<4>()?;
    let start = length - SUBSCRIPTION_END.len() - size_of::<Digits>();
    let masked = payload.get(..length)?[start..].first_chunk::<5>()?;
    let mut position = start;
    Some(masked.map(|byte| {
        position += 1;
        byte ^ key[(position - 1) % 4]
    }))
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = match payload.len() {
        length @ 0..=125 => vec![0x81, length as u8],
        length => [&[0x81, 126], &(length as u16).to_be_bytes()[..]].concat(),
    };
    frame.extend_from_slice(payload);
    frame
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

const BUFFER_LENGTH: usize = 64 * 1024;

/// The answer to the key of RFC 6455 §1.3, which the load sends, and a frame of 117 bytes.
const GREETING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
    \x81\x75{\"event\":\"pusher:connection_established\",\
    \"data\":\"{\\\"socket_id\\\":\\\"1234567890.1234567890\\\",\\\"activity_timeout\\\":120}\"}";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// Code 1000.
const CLOSE: &[u8] = &[0x88, 2, 3, 0xE8];

const CHANNEL_AT: usize = br#"{"name":"news","channel":"channel-"#.len();

const SUBSCRIPTION_END: &[u8] = br#""}}"#;
