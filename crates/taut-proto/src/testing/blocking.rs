//! The tests' client on a blocking stream.

use std::io::{self, ErrorKind, Read, Write};

use super::{Client, Seen};
use crate::handshake::{ClientRequest, Rejection};
use crate::{Close, Message, Time};

/// A [`Client`] on a stream that blocks, such as a `TcpStream` or TLS over one.
///
/// Set a read timeout on the socket, so that a test ends whose server says nothing. Time stands still for this client.
pub struct BlockingClient<S> {
    /// The stream. A test may write to it what is not a frame, and shut it down.
    pub stream: S,
    /// The client.
    pub client: Client,
}

impl<S: Read + Write> BlockingClient<S> {
    /// Sends the request and reads until the response is complete.
    ///
    /// # Errors
    /// The response does not open the connection.
    ///
    /// # Panics
    /// When the stream fails or ends before.
    pub fn open(mut stream: S, request: ClientRequest) -> Result<Self, Rejection> {
        let mut client = Client::new(request);
        stream.write_all(&client.request()).expect("the request is written");
        let mut buffer = vec![0; READ];
        while !client.is_open() {
            let count = read(&mut stream, &mut buffer).expect("a response");
            assert_ne!(count, 0, "the response ended early: {}", String::from_utf8_lossy(&client.response));
            client.receive(&buffer[..count], Time::ZERO)?;
        }
        let mut opened = Self { stream, client };
        opened.flush();
        Ok(opened)
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the connection is closing.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        assert!(self.client.end.send(message), "the connection is open");
        self.flush();
    }

    /// Sends a close frame.
    pub fn close(&mut self, close: impl Into<Close>) {
        self.client.end.close(close, Time::ZERO);
        self.flush();
    }

    /// The message that comes next.
    ///
    /// # Panics
    /// When anything else comes, or nothing.
    pub fn message(&mut self) -> Message<'static> {
        match self.receive() {
            Ok(Some(Seen::Message(message))) => message,
            other => panic!("a message was expected, but {other:?} came"),
        }
    }

    /// What comes next; `None` at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    ///
    /// # Panics
    /// When the server breaks the protocol.
    pub fn receive(&mut self) -> io::Result<Option<Seen>> {
        while self.client.end.events.is_empty() {
            let mut buffer = [0; READ];
            let count = read(&mut self.stream, &mut buffer)?;
            if count == 0 {
                return Ok(None);
            }
            self.client.end.receive(&buffer[..count], Time::ZERO);
            self.flush();
        }
        match self.client.end.events.remove(0) {
            Seen::Violation(violation) => panic!("the server broke the protocol: {violation}"),
            seen => Ok(Some(seen)),
        }
    }

    /// Reads to the end of the stream; gives the close frame that came, whatever came before it.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn read_to_close(&mut self) -> io::Result<Option<Close>> {
        let mut closed = None;
        while let Some(seen) = self.receive()? {
            if let Seen::Close(close) = seen {
                closed = Some(close);
            }
        }
        Ok(closed)
    }

    /// Writes what the connection has to say.
    pub fn flush(&mut self) {
        let bytes = self.client.end.outbox.to_vec();
        self.client.end.outbox.consume(bytes.len());
        // The server may have gone already. What it said is still to be read.
        let _ = self.stream.write_all(&bytes);
    }
}

/// Reads once. A socket with a timeout gives up when its process is stopped and continued, as in a debugger: that is not
/// an answer.
///
/// # Errors
/// Those of the stream, except `Interrupted`.
pub fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Bytes per read.
const READ: usize = 16 << 10;
