//! The load: many connections on one thread, each of which keeps a number of messages under way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use measure::Outcome;
use measure::connect::PATIENCE;
use measure::frame::{NORMAL_CLOSE, opcode, push_masked, push_unmasked};
use measure::server::Server;
use measure::window::{Reading, Window};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::case::{Case, Content};
use crate::connect::connect;
use crate::frames::Frames;
use crate::peers::Speech;

/// What is sent and what has to come back, made before anything is measured: one period of `in_flight` different
/// messages, sent over and over.
pub(crate) struct Traffic {
    /// Two periods, so that a period can be written in one piece from any point of it.
    requests: Vec<u8>,
    request_length: usize,
    /// One period and the beginning of the next, so that a sample can be compared at any point of it.
    replies: Vec<u8>,
    reply_length: usize,
    in_flight: usize,
    kind: u8,
    /// Of each message, if it may come back in several frames.
    payloads: Vec<Vec<u8>>,
    speech: Speech,
}

impl Traffic {
    pub(crate) fn new(case: &Case, speech: Speech) -> Self {
        let kind = if case.content == Content::Binary { opcode::BINARY } else { opcode::TEXT };
        let mut requests = Vec::new();
        let mut replies = Vec::new();
        let mut payloads = Vec::new();
        for number in 0..case.in_flight {
            let payload = payload(case.content, case.payload, number);
            let seed = number as u8;
            push_masked(&mut requests, kind, &payload, [seed ^ 0x37, seed ^ 0xFA, seed ^ 0x21, seed ^ 0x3D]);
            push_unmasked(&mut replies, kind, &payload);
            if case.may_be_fragmented() && speech == Speech::WebSocket {
                payloads.push(payload);
            }
        }
        if speech == Speech::Raw {
            // The raw echo gets the very bytes a WebSocket server gets, masks and all.
            replies.clone_from(&requests);
        }
        let request_length = requests.len() / case.in_flight;
        let reply_length = replies.len() / case.in_flight;
        requests.extend_from_within(..);
        let period = replies.len();
        while replies.len() < period + SAMPLE {
            replies.extend_from_within(..period.min(SAMPLE));
        }
        Self { requests, request_length, replies, reply_length, in_flight: case.in_flight, kind, payloads, speech }
    }

    /// The first message as it is sent.
    pub(crate) fn request(&self) -> &[u8] {
        &self.requests[..self.request_length]
    }

    /// The first message as it has to come back.
    pub(crate) fn reply(&self) -> &[u8] {
        &self.replies[..self.reply_length]
    }

    /// Bytes of every message as it comes back.
    pub(crate) fn reply_length(&self) -> usize {
        self.reply_length
    }

    fn request_period(&self) -> usize {
        self.request_length * self.in_flight
    }

    fn reply_period(&self) -> usize {
        self.reply_length * self.in_flight
    }
}

/// Connections to one server, all under the same load.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    traffic: Traffic,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// Bytes that may be sent and are not yet.
    unsent: usize,
    /// Where in the period of requests the next byte to send lies.
    next_request: usize,
    /// Where in the period of replies the next byte to come lies, if they are counted by their bytes.
    next_reply: usize,
    /// And if they are counted by their frames.
    frames: Frames,
    /// Messages sent (or about to be) and not echoed.
    outstanding: usize,
}

impl Crowd {
    /// Opens the connections, handshakes included.
    pub(crate) fn connect(case: &Case, speech: Speech, address: SocketAddr) -> Outcome<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(case.connections);
        for number in 0..case.connections {
            let stream = connect(speech, address, number)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            connections.push(Connection::new(stream));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            connections,
            traffic: Traffic::new(case, speech),
            buffer: vec![0; BUFFER_LENGTH],
        })
    }

    /// Sends for the warm-up and the window, counts what comes back in the window, then waits for all that is missing.
    pub(crate) fn measure(
        &mut self,
        server: &Server,
        cores: [usize; 2],
        warm_up: Duration,
        window: Duration,
    ) -> Outcome<Window> {
        for connection in &mut self.connections {
            connection.start(&self.traffic)?;
        }
        let mut received = 0;
        let warm = Instant::now() + warm_up;
        while Instant::now() < warm {
            received += self.turn(true)?;
        }
        let begin = Reading::take(server, cores, received)?;
        let end_at = begin.at + window;
        while Instant::now() < end_at {
            received += self.turn(true)?;
        }
        let end = Reading::take(server, cores, received)?;

        while self.connections.iter().any(|connection| connection.outstanding > 0) {
            self.turn(false)?;
        }
        Ok(end.since(&begin))
    }

    /// Waits for events and serves them; the answer is how many messages came back.
    fn turn(&mut self, refill: bool) -> Outcome<u64> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(PATIENCE)) {
            return if error.kind() == ErrorKind::Interrupted { Ok(0) } else { Err(error.into()) };
        }
        if self.events.is_empty() {
            let missing: usize = self.connections.iter().map(|connection| connection.outstanding).sum();
            return Err(format!("nothing came for {PATIENCE:?}; {missing} messages are missing").into());
        }
        let mut messages = 0;
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            if event.is_readable() {
                messages += connection.receive(&self.traffic, &mut self.buffer, refill)?;
            }
            connection.send(&self.traffic)?;
        }
        Ok(messages)
    }

    /// Ends every connection as its protocol has it and waits until the server has ended its side, so that its work with
    /// closing lies before the next window.
    pub(crate) fn close(mut self) -> Outcome<()> {
        let mut open = self.connections.len();
        let mut goodbye = Vec::new();
        push_masked(&mut goodbye, opcode::CLOSE, &NORMAL_CLOSE, [1, 2, 3, 4]);
        for connection in &mut self.connections {
            match self.traffic.speech {
                Speech::Raw => connection.stream.shutdown(Shutdown::Write)?,
                // Everything sent has been echoed, so the socket has room for eight bytes.
                Speech::WebSocket => connection.stream.write_all(&goodbye)?,
            }
        }
        let mut ended = vec![false; open];
        while open > 0 {
            match self.poll.poll(&mut self.events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            if self.events.is_empty() {
                return Err(format!("{open} connections were not ended within {PATIENCE:?} of the close").into());
            }
            for event in &self.events {
                let number = event.token().0;
                if !ended[number] && self.connections[number].has_ended(&mut self.buffer)? {
                    ended[number] = true;
                    open -= 1;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: 0, next_request: 0, next_reply: 0, frames: Frames::default(), outstanding: 0 }
    }

    fn start(&mut self, traffic: &Traffic) -> Outcome<()> {
        self.outstanding = traffic.in_flight;
        self.unsent = traffic.request_period();
        self.send(traffic)
    }

    /// Sends what may be sent, as far as the kernel takes it.
    fn send(&mut self, traffic: &Traffic) -> Outcome<()> {
        while self.unsent > 0 {
            let bytes = &traffic.requests[self.next_request..self.next_request + self.unsent];
            match self.stream.write(bytes) {
                Ok(written) => {
                    self.unsent -= written;
                    self.next_request = (self.next_request + written) % traffic.request_period();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is; the answer is how many messages it completed, each of which lets another one go out.
    fn receive(&mut self, traffic: &Traffic, buffer: &mut [u8], refill: bool) -> Outcome<u64> {
        let mut messages = 0;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err("the server ended a connection that was in use".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            messages += self.count(traffic, &buffer[..read])?;
            // epoll(7): a short read says that the socket is drained.
            if read < buffer.len() {
                break;
            }
        }
        if refill {
            self.outstanding += messages;
            self.unsent += messages * traffic.request_length;
        }
        Ok(messages as u64)
    }

    /// Compares the beginning of what came (whole bytes are compared before the run; this finds a stream that has slipped
    /// or is out of order) and counts the messages that it completes.
    fn count(&mut self, traffic: &Traffic, received: &[u8]) -> Outcome<usize> {
        let messages = if traffic.payloads.is_empty() {
            self.count_bytes(traffic, received)?
        } else {
            self.frames.count(&traffic.payloads, traffic.kind, received)?
        };
        self.outstanding = self.outstanding.checked_sub(messages).ok_or("more came back than was sent")?;
        Ok(messages)
    }

    fn count_bytes(&mut self, traffic: &Traffic, received: &[u8]) -> Outcome<usize> {
        let sample = received.len().min(SAMPLE);
        if received[..sample] != traffic.replies[self.next_reply..self.next_reply + sample] {
            return Err("what comes back is not what was sent".into());
        }
        let end = self.next_reply + received.len();
        let messages = end / traffic.reply_length - self.next_reply / traffic.reply_length;
        self.next_reply = end % traffic.reply_period();
        Ok(messages)
    }

    /// Reads and forgets (it is the close frame) until the end of the stream or of what is there.
    fn has_ended(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
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

/// Printable, of the length asked for, and different for each number.
fn payload(content: Content, length: usize, number: usize) -> Vec<u8> {
    if content != Content::NonAscii {
        return (b'a'..=b'z').cycle().skip(number % 26).take(length).collect();
    }
    let letters: String = ('а'..='я').cycle().skip(number % 32).take(length / 2).collect();
    let mut text = letters.into_bytes();
    text.resize(length, b'.');
    text
}

/// Bytes compared at the beginning of every read: enough to notice a slip, too few to cost the load its headroom.
const SAMPLE: usize = 64;

const BUFFER_LENGTH: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { connections: 1, payload: 20, in_flight: 3, content: Content::Ascii };

    #[test]
    fn websocket_requests_have_six_bytes_of_frame_and_replies_two() {
        let traffic = Traffic::new(&CASE, Speech::WebSocket);
        assert_eq!(traffic.request().len(), 26);
        assert_eq!(traffic.reply().len(), 22);
        assert_eq!(&traffic.reply()[2..], b"abcdefghijklmnopqrst");
        assert_eq!(traffic.request_period(), 78);
        assert_eq!(&traffic.requests[..78], &traffic.requests[78..]);
        assert_eq!(&traffic.replies[66..66 + 44], &traffic.replies[..44]);
        assert!(traffic.replies.len() >= 66 + SAMPLE);
    }

    #[test]
    fn the_raw_echo_gets_and_gives_the_bytes_of_the_websocket_requests() {
        let raw = Traffic::new(&CASE, Speech::Raw);
        let framed = Traffic::new(&CASE, Speech::WebSocket);
        assert_eq!(raw.requests, framed.requests);
        assert_eq!(raw.reply(), raw.request());
    }

    fn connection(listener: &std::net::TcpListener) -> Connection {
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Connection { outstanding: 3, ..Connection::new(TcpStream::from_std(stream)) }
    }

    #[test]
    fn text_that_is_not_ascii_has_the_length_asked_for_and_is_valid() {
        for length in [1, 2, 65_535, 65_536] {
            let text = String::from_utf8(payload(Content::NonAscii, length, 3)).unwrap();
            assert_eq!((text.len(), text.is_ascii()), (length, length < 2));
        }
    }

    #[test]
    fn messages_are_counted_wherever_reads_are_cut() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = Traffic::new(&CASE, Speech::WebSocket);
        let stream: Vec<u8> = traffic.replies[..66].repeat(2);
        for cut in 1..66 {
            let mut connection = connection(&listener);
            connection.outstanding = 6;
            let messages: usize = stream.chunks(cut).map(|chunk| connection.count(&traffic, chunk).unwrap()).sum();
            assert_eq!(messages, 6, "reads of {cut}");
            assert_eq!(connection.outstanding, 0);
        }
    }

    #[test]
    fn what_differs_or_is_too_much_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = Traffic::new(&CASE, Speech::WebSocket);
        let slipped = &traffic.replies[1..30];
        assert!(connection(&listener).count(&traffic, slipped).is_err());
        let second_first = &traffic.replies[22..44];
        assert!(connection(&listener).count(&traffic, second_first).is_err());
        let mut connection = connection(&listener);
        connection.outstanding = 1;
        assert!(connection.count(&traffic, &traffic.replies[..44]).is_err());
    }
}
