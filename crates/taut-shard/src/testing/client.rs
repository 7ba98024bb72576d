//! A WebSocket client on a [`Remote`].

use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};

use taut_proto::handshake::{ClientRequest, Rejection};
use taut_proto::testing::{self, Seen};
use taut_proto::{CloseCode, Header, Message, Opcode, deflate};

use super::{Network, Remote};

/// A [`testing::Client`] on a socket, by TLS if its test wants that. It checks what it is sent.
pub struct Client {
    /// The socket.
    pub remote: Remote,
    /// What came after the head.
    pub frames: Frames,
    websocket: testing::Client,
    network: Network,
    tls: Option<Box<rustls::ClientConnection>>,
    offer: Option<deflate::Config>,
    /// It has ended its side by TLS.
    has_finished: bool,
    /// What has found no room in the socket.
    unsent: Vec<u8>,
}

impl Deref for Client {
    type Target = testing::Client;

    fn deref(&self) -> &testing::Client {
        &self.websocket
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut testing::Client {
        &mut self.websocket
    }
}

impl Client {
    /// Connects, and says nothing yet.
    pub fn new(network: &Network) -> Self {
        Self::on(network, network.connect())
    }

    /// The same on a socket that is connected already.
    pub fn on(network: &Network, remote: Remote) -> Self {
        Self {
            remote,
            frames: Frames::default(),
            websocket: testing::Client::new(request("/", None)),
            network: network.clone(),
            tls: None,
            offer: None,
            has_finished: false,
            unsent: Vec::new(),
        }
    }

    /// The same by TLS.
    #[must_use]
    pub fn with_tls(mut self, mut tls: rustls::ClientConnection) -> Self {
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        self
    }

    /// The same with an offer of permessage-deflate.
    #[must_use]
    pub fn with_deflate(mut self, config: deflate::Config) -> Self {
        self.offer = Some(config);
        self.websocket = testing::Client::new(request("/", self.offer));
        self
    }

    /// The request for `target` that this client makes.
    ///
    /// # Panics
    /// When that is no target.
    pub fn request(&self, target: &str) -> Vec<u8> {
        testing::Client::new(request(target, self.offer)).request()
    }

    /// Sends bytes as they are; by TLS if that is spoken. What finds no room is sent by the next that sends, reads or
    /// flushes.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(bytes),
            // What ended within its handshake has failed, and takes nothing more.
            Some(_) if self.has_finished => {}
            Some(tls) => tls.writer().write_all(bytes).expect("it goes to memory"),
        }
        self.flush_unsent();
    }

    /// Sends a message.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        self.end.send(message);
        self.flush();
    }

    /// Begins the close.
    pub fn close(&mut self, code: CloseCode) {
        let now = self.network.now();
        self.end.close(code, now);
        self.flush();
    }

    /// Writes what the connection has to say, as far as there is room.
    pub fn flush(&mut self) {
        self.flush_unsent();
        while self.is_open() && self.unsent.is_empty() && !self.end.outbox.is_empty() {
            let bytes = self.end.outbox.front().to_vec();
            self.end.outbox.consume(bytes.len());
            self.write(&bytes);
        }
    }

    /// Ends this side, by TLS first if that is spoken.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.has_finished = true;
            self.flush_unsent();
        }
        self.remote.finish();
    }

    /// Reads up to `limit` bytes of what has come, and answers it.
    ///
    /// # Panics
    /// When it is not what a server may send.
    pub fn read(&mut self, limit: usize) {
        let bytes = self.remote.read(limit);
        match self.decrypt(bytes) {
            plain if plain.is_empty() => {}
            plain => self.receive(&plain),
        }
        self.flush();
    }

    /// Takes the messages that have come, as texts.
    ///
    /// # Panics
    /// When one is not text.
    pub fn texts(&mut self) -> Vec<String> {
        self.messages().iter().map(|message| message.as_text().expect("text").to_owned()).collect()
    }

    /// The status of the response; `None` before it has come.
    pub fn status(&self) -> Option<u16> {
        let line = self.response.split(|byte| *byte == b'\r').next()?;
        std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
    }

    /// The TLS connection, if there is one.
    pub fn tls(&mut self) -> Option<&mut rustls::ClientConnection> {
        self.tls.as_deref_mut()
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.is_open() {
            return self.take_frames(bytes);
        }
        match self.websocket.upgrade(bytes) {
            Ok(Some(frames)) => self.take_frames(&frames),
            // What comes behind the head of a refusal is its body.
            Ok(None) | Err(Rejection::Status { .. }) => {}
            Err(rejection) => panic!("the shard broke the handshake: {rejection}"),
        }
    }

    fn take_frames(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
        let now = self.network.now();
        self.end.receive(bytes, now);
        for seen in &self.end.events {
            assert!(!matches!(seen, Seen::Violation(_)), "the shard broke the protocol: {seen:?}");
        }
    }

    fn decrypt(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return bytes };
        let mut plain = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if tls.read_tls(&mut rest).expect("it comes from memory") == 0 {
                break; // the peer has ended by TLS
            }
            match tls.process_new_packets() {
                Ok(_) => {}
                // To end within the handshake is no way to speak TLS; the alert says so.
                Err(rustls::Error::AlertReceived(_)) if self.has_finished => break,
                Err(error) => panic!("the shard does not speak TLS: {error}"),
            }
            // `WouldBlock` at the end of what there is.
            let _ = tls.reader().read_to_end(&mut plain);
        }
        self.flush_unsent();
        plain
    }

    fn flush_unsent(&mut self) {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent).expect("it goes to memory");
            }
        }
        let taken = self.remote.write(&self.unsent);
        self.unsent.drain(..taken);
    }
}

/// The frames of a server, checked as they come: none is masked, and nothing follows a close frame.
#[derive(Default)]
pub struct Frames {
    /// Their opcodes.
    pub opcodes: Vec<Opcode>,
    /// The beginning of a frame that is not whole.
    rest: Vec<u8>,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((header, size)) = Header::parse(&self.rest[at..]).expect("a header that is valid") {
            assert_eq!(header.mask, None, "RFC 6455 §5.1: a server masks nothing");
            let end = at + size + usize::try_from(header.length).expect("a length that fits");
            if end > self.rest.len() {
                break;
            }
            // RFC 6455 §5.5.1
            assert_ne!(self.opcodes.last(), Some(&Opcode::Close), "a frame came after a close frame");
            self.opcodes.push(header.opcode);
            at = end;
        }
        self.rest.drain(..at);
        let closed = self.opcodes.last() == Some(&Opcode::Close);
        assert!(self.rest.is_empty() || !closed, "bytes came after a close frame");
    }

    /// Whether all that came are whole frames.
    pub fn are_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

fn request(target: &str, offer: Option<deflate::Config>) -> ClientRequest {
    ClientRequest::new("fake.example", target).expect("a valid target").deflate(offer)
}
