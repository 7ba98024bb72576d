//! A WebSocket client for tests of servers. It keeps to the protocol until its test makes it break the protocol.

use std::sync::Arc;

use super::{End, Seen};
use crate::handshake::{Accepted, ClientRequest, HeadLimits, HeadScan, Rejection};
use crate::{Close, Connection, Heartbeat, Message, Role, Settings, Time};

/// A client without a socket: the opening handshake, and then an [`End`].
///
/// A test that wants to send bad bytes writes them to its own socket, between two calls or in place of them.
pub struct Client {
    /// The connection. What it has received is in [`End::events`].
    pub end: End,
    /// The response so far: its head, and the body if the server refused.
    pub response: Vec<u8>,
    request: ClientRequest,
    subprotocol: Option<String>,
    is_compressed: bool,
    is_open: bool,
}

/// The nonce of every test's client.
pub const NONCE: [u8; 16] = [7; 16];

impl Client {
    /// A client that has not sent its request yet. It sends no pings: it is silent when its test is.
    pub fn new(request: ClientRequest) -> Self {
        let (end, response) = (End::new(connection()), Vec::new());
        Self { end, response, request, subprotocol: None, is_compressed: false, is_open: false }
    }

    /// The bytes of its request.
    pub fn request(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.request.write(NONCE, &mut bytes);
        bytes
    }

    /// Takes one read, whether it is of the response or of frames.
    ///
    /// # Errors
    /// The response does not open the connection. Further reads are then added to [`response`](Self::response).
    pub fn receive(&mut self, bytes: &[u8], now: Time) -> Result<(), Rejection> {
        if self.is_open {
            self.end.receive(bytes, now);
        } else if let Some(frames) = self.upgrade(bytes)? {
            self.end.receive(&frames, now);
        }
        Ok(())
    }

    /// Takes one read of the response. Once that is complete, the connection is open, and this gives the bytes that came
    /// behind the head.
    ///
    /// # Errors
    /// The response does not open the connection.
    pub fn upgrade(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        self.response.extend_from_slice(bytes);
        let limits = HeadLimits::default();
        let Some(end) = HeadScan::new().find(&self.response, &limits)? else { return Ok(None) };
        let accepted = self.request.validate(&self.response[..end], NONCE, &limits)?;
        self.subprotocol = accepted.subprotocol.map(str::to_owned);
        if let Some(connection) = compressed(&accepted) {
            (self.end, self.is_compressed) = (End::new(connection), true);
        }
        self.is_open = true;
        Ok(Some(self.response.split_off(end)))
    }

    /// Whether the server has accepted the handshake.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes the messages that have come; other events stay.
    pub fn messages(&mut self) -> Vec<Message<'static>> {
        let mut messages = Vec::new();
        for seen in std::mem::take(&mut self.end.events) {
            match seen {
                Seen::Message(message) => messages.push(message),
                other => self.end.events.push(other),
            }
        }
        messages
    }

    /// The close frame that has come.
    pub fn closed(&self) -> Option<&Close> {
        self.end.events.iter().find_map(|seen| match seen {
            Seen::Close(close) => Some(close),
            _ => None,
        })
    }

    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether the server agreed to permessage-deflate.
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

fn connection() -> Connection {
    let mut settings = Settings::client();
    settings.heartbeat = Heartbeat::off();
    Connection::new(Role::Client, Arc::new(settings), Time::ZERO, 0)
}

/// The connection for a server that has agreed to permessage-deflate.
#[cfg(feature = "deflate")]
fn compressed(accepted: &Accepted<'_>) -> Option<Connection> {
    Some(connection().with_deflate(accepted.deflate?))
}

#[cfg(not(feature = "deflate"))]
fn compressed(_: &Accepted<'_>) -> Option<Connection> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Opcode;
    use crate::handshake::Request;
    use crate::testing::unmasked;

    fn client() -> Client {
        Client::new(
            ClientRequest::new("chat.example", "/").and_then(|request| request.subprotocol("v1")).expect("valid"),
        )
    }

    fn response_to(request: &[u8]) -> Vec<u8> {
        let (limits, mut out) = (HeadLimits::default(), Vec::new());
        let request = Request::parse(request, &limits).expect("a request");
        request.upgrade().expect("an upgrade").select_subprotocol(&["v1"]).write_response(&mut out);
        out
    }

    #[test]
    fn a_client_opens_by_any_split_of_the_response_and_of_the_frames_behind_it() {
        let request = client().request();
        let response = response_to(&request);
        let bytes = [&response[..], &unmasked(true, Opcode::Text, b"hello")].concat();
        for cut in 0..=bytes.len() {
            let mut client = client();
            client.receive(&bytes[..cut], Time::ZERO).expect("accepted");
            assert_eq!(client.is_open(), cut >= response.len(), "{cut}");
            client.receive(&bytes[cut..], Time::ZERO).expect("accepted");
            assert_eq!(client.end.events, [Seen::Message(Message::from("hello"))], "{cut}");
            assert_eq!((&client.response, client.subprotocol()), (&response, Some("v1")), "{cut}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_body() {
        let mut client = client();
        let refused = client.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nn", Time::ZERO);
        assert!(matches!(refused, Err(Rejection::Status { status: 403, .. })), "{refused:?}");
        assert!(client.receive(b"o", Time::ZERO).is_err() && !client.is_open());
        assert!(client.response.ends_with(b"\r\n\r\nno"));
    }
}
