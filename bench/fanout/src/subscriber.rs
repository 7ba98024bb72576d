//! One subscribed connection: how it comes to be one, and how it counts what it gets.

use std::io::{self, ErrorKind, Read, Write};

use measure::Outcome;
use measure::connect::{check, head_length};
use measure::frame::Frame;
use mio::net::TcpStream;

/// A connection of one client, which subscribes to one channel and then gets events.
pub(crate) struct Subscriber {
    pub(crate) stream: TcpStream,
    /// The number of its channel.
    pub(crate) channel: usize,
    /// Events that it got.
    pub(crate) events: u64,
    phase: Phase,
    counter: Counter,
}

/// How far it is, with what has come and is not understood yet.
enum Phase {
    /// To be connected.
    Connecting,
    /// To be answered.
    Handshake(Vec<u8>),
    /// To be told that it is connected.
    Greeting(Vec<u8>),
    /// To be told that it is subscribed.
    Subscribing(Vec<u8>),
    Subscribed,
}

/// What a server is told by every client, made before.
pub(crate) struct Script {
    /// The HTTP request.
    pub(crate) request: Vec<u8>,
    /// By channel: the frame that subscribes.
    pub(crate) subscribe: Vec<Vec<u8>>,
}

impl Subscriber {
    pub(crate) fn new(stream: TcpStream, channel: usize) -> Self {
        Self { stream, channel, events: 0, phase: Phase::Connecting, counter: Counter::default() }
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed)
    }

    /// Goes on as far as it can; the answer is how many events came meanwhile.
    pub(crate) fn advance(&mut self, script: &Script, buffer: &mut [u8]) -> Outcome<u64> {
        if let Phase::Connecting = self.phase {
            // Nothing can have come before it has asked; the next event says that something has.
            return self.ask(script).map(|()| 0);
        }
        let mut events = 0;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err("the server ended a connection that was in use".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            events += self.understand(script, &buffer[..read])?;
            // epoll(7): a short read says that the socket is drained.
            if read < buffer.len() {
                break;
            }
        }
        self.events += events;
        Ok(events)
    }

    fn ask(&mut self, script: &Script) -> Outcome<()> {
        match self.stream.write(&script.request) {
            Ok(written) if written == script.request.len() => self.phase = Phase::Handshake(Vec::new()),
            Ok(_) => return Err("a fresh socket did not take the whole request".into()),
            // connect(2): the connection is still being made.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn understand(&mut self, script: &Script, came: &[u8]) -> Outcome<u64> {
        match &mut self.phase {
            // The others are few and have time.
            Phase::Subscribed => return self.counter.count(came),
            Phase::Connecting => return Err("it spoke before it was connected".into()),
            Phase::Handshake(bytes) | Phase::Greeting(bytes) | Phase::Subscribing(bytes) => {
                bytes.extend_from_slice(came);
            }
        }
        loop {
            match &mut self.phase {
                Phase::Connecting => {}
                Phase::Handshake(bytes) => {
                    let Some(length) = head_length(bytes) else { return Ok(0) };
                    check(&bytes[..length])?;
                    self.phase = Phase::Greeting(bytes.split_off(length));
                }
                Phase::Greeting(bytes) => {
                    let Some(rest) = message(bytes, r#""event":"pusher:connection_established""#)? else {
                        return Ok(0);
                    };
                    self.phase = Phase::Subscribing(rest);
                    self.say(&script.subscribe[self.channel])?;
                }
                Phase::Subscribing(bytes) => {
                    let Some(rest) = message(bytes, "subscription_succeeded")? else { return Ok(0) };
                    self.phase = Phase::Subscribed;
                    return self.counter.count(&rest);
                }
                Phase::Subscribed => return Ok(0),
            }
        }
    }

    /// A fresh socket takes a few hundred bytes.
    fn say(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads and forgets (it is the close frame) until the end of the stream or of what is there.
    pub(crate) fn has_ended(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A server that closes at once has ended the connection, too.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes the first message off, which has to contain `expected`; `None` while it is not whole.
fn message(bytes: &[u8], expected: &str) -> Outcome<Option<Vec<u8>>> {
    let mut rest = bytes;
    let frame = match Frame::read(&mut rest) {
        Ok(frame) => frame,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&frame.payload);
    if text.contains(expected) {
        Ok(Some(rest.to_vec()))
    } else {
        Err(format!("{expected} should come, but it is {text}").into())
    }
}

/// Counts messages by their headers alone, however reads are cut.
#[derive(Default)]
struct Counter {
    /// Bytes of the current message that are still to come.
    missing: usize,
    header: [u8; 4],
    /// How much of a header has come.
    header_length: usize,
}

impl Counter {
    /// How many messages these bytes complete.
    fn count(&mut self, mut bytes: &[u8]) -> Outcome<u64> {
        let mut messages = 0;
        while !bytes.is_empty() {
            if self.missing == 0 {
                // Commonly a header is whole.
                if let (0, &[FINAL_TEXT, LENGTH_16, high, low, ref rest @ ..]) = (self.header_length, bytes) {
                    self.missing = usize::from(u16::from_be_bytes([high, low]));
                    bytes = rest;
                    check_beginning(bytes)?;
                } else {
                    self.header[self.header_length] = bytes[0];
                    self.header_length += 1;
                    bytes = &bytes[1..];
                    if self.header_length < 4 {
                        continue;
                    }
                    self.header_length = 0;
                    let [FINAL_TEXT, LENGTH_16, high, low] = self.header else {
                        return Err(format!("a frame begins with {:02x?}, as no event does", self.header).into());
                    };
                    self.missing = usize::from(u16::from_be_bytes([high, low]));
                }
            }
            let here = self.missing.min(bytes.len());
            self.missing -= here;
            bytes = &bytes[here..];
            if self.missing == 0 {
                messages += 1;
            }
        }
        Ok(messages)
    }
}

fn check_beginning(payload: &[u8]) -> Outcome<()> {
    // An event is some 170 bytes of JSON; which member comes first is up to the server.
    if matches!(payload, [] | [b'{'] | [b'{', b'"', ..]) {
        Ok(())
    } else {
        Err("an event does not begin as JSON".into())
    }
}

const FINAL_TEXT: u8 = 0x81;
/// Every event is longer than what fits into the first length.
const LENGTH_16: u8 = 126;

#[cfg(test)]
mod tests {
    use measure::frame::{opcode, push_unmasked};

    use super::*;

    #[test]
    fn messages_are_counted_wherever_reads_are_cut() {
        let mut stream = Vec::new();
        for length in [150, 200, 126, 1000] {
            let payload = format!("{{\"{}", "x".repeat(length - 2));
            push_unmasked(&mut stream, opcode::TEXT, payload.as_bytes());
        }
        for cut in 1..stream.len() {
            let mut counter = Counter::default();
            let messages: u64 = stream.chunks(cut).map(|chunk| counter.count(chunk).unwrap()).sum();
            assert_eq!(messages, 4, "reads of {cut}");
            assert_eq!((counter.missing, counter.header_length), (0, 0));
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for bytes in [&[0x88, 2, 3, 0xE8][..], &[0x89, 0, 0x81, 126], &[0x81, 126, 0, 150, b'x']] {
            assert!(Counter::default().count(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_message_is_taken_off_once_it_is_whole() {
        let mut bytes = Vec::new();
        push_unmasked(&mut bytes, opcode::TEXT, b"to be expected");
        assert!(message(&bytes[..10], "expected").unwrap().is_none());
        bytes.push(7);
        assert_eq!(message(&bytes, "expected").unwrap().unwrap(), [7]);
        assert!(message(&bytes, "other").is_err());
    }
}
