//! Many sockets that say little, slowly or nothing, and never hang up.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Sockets that are connected, and what has come of them. They stay as they are until the crowd goes.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    peers: Vec<Peer>,
    /// Those to whom the server has said that it is over.
    over: usize,
}

/// One socket.
struct Peer {
    stream: TcpStream,
    /// What it says, a byte at a time.
    says: Vec<u8>,
    said: usize,
    since: Instant,
    heard: Vec<u8>,
    /// How long the server kept it, if it has ended it.
    lasted: Option<Duration>,
}

impl Crowd {
    /// Connects so many, of whom each begins with some bytes that it says at once, and goes on with others, a byte at a time.
    pub(crate) fn gather(address: SocketAddr, count: usize, mut what: impl FnMut(usize) -> (Vec<u8>, Vec<u8>)) -> Self {
        let poll = Poll::new().expect("a poll");
        let peers = (0..count).map(|number| {
            let mut stream = TcpStream::connect(address).expect("a socket");
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(number), interest).expect("watched");
            let (first, says) = what(number);
            if !first.is_empty() {
                // By loopback a connection is there at once, and a fresh socket takes a few bytes.
                stream.write_all(&first).expect("written at once");
            }
            Peer { stream, says, said: 0, since: Instant::now(), heard: Vec::new(), lasted: None }
        });
        let peers = peers.collect();
        Self { poll, events: Events::with_capacity(1024), peers, over: 0 }
    }

    /// Says and hears, a byte each per `pace`, until the server has ended so many of them.
    pub(crate) fn endure(&mut self, until: usize, pace: Duration, patience: Duration) {
        let start = Instant::now();
        let mut next = start;
        while self.over < until {
            let now = Instant::now();
            let over = self.over;
            assert!(now - start < patience, "only {over} of {} were ended by the server", self.peers.len());
            if now >= next {
                self.speak();
                next = now + pace;
            }
            self.listen(next.saturating_duration_since(now));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Each says its next byte.
    pub(crate) fn speak(&mut self) {
        self.peers.iter_mut().for_each(Peer::say);
    }

    /// Hears what has come, or comes within that time.
    fn listen(&mut self, wait: Duration) {
        self.poll.poll(&mut self.events, Some(wait)).or_else(ignore_interruption).expect("polled");
        for event in &self.events {
            let peer = &mut self.peers[event.token().0];
            if event.is_readable() || event.is_read_closed() {
                self.over += usize::from(peer.hear());
            }
        }
    }

    /// The answers, each with how many got it.
    pub(crate) fn answers(&self) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for peer in &self.peers {
            *answers.entry(peer.answer()).or_default() += 1;
        }
        answers
    }

    /// The shortest and the longest time that one was kept.
    pub(crate) fn lasted(&self) -> (Duration, Duration) {
        let lasted = || self.peers.iter().filter_map(|peer| peer.lasted);
        (lasted().min().unwrap_or_default(), lasted().max().unwrap_or_default())
    }
}

impl Peer {
    fn say(&mut self) {
        if self.lasted.is_none()
            && let Some(byte) = self.says.get(self.said)
            && self.stream.write(std::slice::from_ref(byte)).is_ok()
        {
            self.said += 1;
        }
    }

    /// Whether it has just heard that it is over.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => self.heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // The end, or a reset.
                _ => return self.lasted.replace(self.since.elapsed()).is_none(),
            }
        }
    }

    /// Status and body of what it was answered, as far as that is HTTP.
    fn answer(&self) -> String {
        let text = String::from_utf8_lossy(&self.heard);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return if text.is_empty() { "nothing".to_owned() } else { format!("{} bytes", self.heard.len()) };
        };
        format!("{}: {}", head.lines().next().unwrap_or_default(), body.trim())
    }
}

/// # Errors
/// Any other.
pub(crate) fn ignore_interruption(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
