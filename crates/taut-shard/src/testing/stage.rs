//! A shard on the fake kernel, and what must always hold.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::handshake::Request;
use taut_proto::{Close, Message};

use super::{Census, Client, Fake, Network};
use crate::{
    Closed, ConnectionId, Connections, Handler, Handover, HandshakeId, Responded, Session, Settings, Shard, Verdict,
};

/// A shard under a test's control.
pub struct Stage<H: Handler> {
    /// The shard itself.
    pub shard: Shard<Watched<H>, Fake>,
    /// Its kernel, and its peers.
    pub network: Network,
    /// It was drained: there are no more ticks.
    pub is_drained: bool,
}

impl<H: Handler> Stage<H> {
    /// A shard that has not had a tick.
    pub fn new(handler: H, settings: Settings) -> Self {
        let network = Network::new();
        let shard = Shard::on(network.kernel(), Watched::new(handler), settings);
        Self { shard, network, is_drained: false }
    }

    /// One tick.
    ///
    /// # Panics
    /// When something does not hold that always must.
    pub fn tick(&mut self) {
        if self.is_drained {
            return;
        }
        self.is_drained = !self.shard.tick().expect("the fake kernel never fails");
        self.check();
    }

    /// Ticks until nothing more happens by itself.
    ///
    /// # Panics
    /// When the shard does not come to rest.
    pub fn settle(&mut self) {
        // What the first tick does is not known to the wait before it.
        self.tick();
        for _ in 0..TICKS {
            self.tick();
            if self.is_drained || self.network.is_asleep() {
                return;
            }
        }
        panic!("the shard does not come to rest: {:?}", self.shard.census());
    }

    /// Lets time pass at once, and what it brings.
    pub fn advance(&mut self, duration: Duration) {
        self.network.advance(duration);
        self.settle();
    }

    /// Lets time pass as the shard asks for it, waking it neither early nor late.
    ///
    /// # Panics
    /// When it wakes more than a thousand times a second for nothing.
    pub fn sleep(&mut self, duration: Duration) {
        let end = self.network.now() + duration;
        let mut turns = duration.as_millis() + 1000;
        self.settle();
        while self.network.now() < end && !self.is_drained {
            let left = end - self.network.now();
            let nap = self.network.timeout().map_or(left, |timeout| timeout.min(left));
            self.advance(nap.max(Duration::from_micros(1)));
            turns = turns.checked_sub(1).expect("the shard wakes too often");
        }
    }

    /// A client whose connection is open.
    ///
    /// # Panics
    /// When it does not open.
    pub fn open(&mut self) -> Client {
        self.open_at("/")
    }

    /// A client whose connection to `target` is open.
    ///
    /// # Panics
    /// When it does not open.
    pub fn open_at(&mut self, target: &str) -> Client {
        let mut client = Client::new(&self.network);
        client.write(&client.request(target));
        self.settle();
        client.read(usize::MAX);
        assert!(client.is_open(), "{}", String::from_utf8_lossy(&client.response));
        client
    }

    /// Lets bytes go to and fro until none are left.
    ///
    /// # Panics
    /// When the two keep each other busy without end.
    pub fn exchange(&mut self, clients: &mut [&mut Client]) {
        for _ in 0..TICKS {
            self.settle();
            let waiting: usize = clients.iter().map(|client| client.remote.waiting()).sum();
            if waiting == 0 {
                return;
            }
            for client in &mut *clients {
                client.read(usize::MAX);
            }
        }
        panic!("the shard and its clients answer each other without end");
    }

    /// What the shard holds.
    pub fn census(&self) -> Census {
        self.shard.census()
    }

    /// The test's own handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.shard.handler().inner
    }

    fn check(&mut self) {
        let census = self.shard.census();
        let watched = self.shard.handler();
        assert_eq!(watched.open.len(), census.open, "opened less closed is what is open");
        assert_eq!(census.sockets, census.handshakes + census.kept + census.open + census.lingering, "{census:?}");
    }
}

/// A handler whose calls are checked before the test's own gets them.
pub struct Watched<H> {
    /// The test's own.
    pub inner: H,
    /// Those that were opened and not closed.
    open: HashSet<ConnectionId>,
    opened: usize,
    closed: usize,
    /// All there ever were.
    known: HashSet<ConnectionId>,
    /// Handshakes there ever were.
    asked: HashSet<HandshakeId>,
}

impl<H> Watched<H> {
    fn new(inner: H) -> Self {
        Self { inner, open: HashSet::new(), opened: 0, closed: 0, known: HashSet::new(), asked: HashSet::new() }
    }

    /// Calls of `opened` and of `closed`.
    pub fn counts(&self) -> (usize, usize) {
        (self.opened, self.closed)
    }
}

impl<H: Handler> Handler for Watched<H> {
    type User = H::User;
    type Mail = H::Mail;

    fn request<'r>(&mut self, request: &'r Request<'r>, peer: SocketAddr, id: HandshakeId) -> Verdict<'r, H::User> {
        assert!(self.asked.insert(id), "the id of a handshake was used again");
        self.inner.request(request, peer, id)
    }

    fn opened(&mut self, session: &mut Session<'_, H::User>) {
        self.opened += 1;
        assert!(self.known.insert(session.id()), "an id was used again");
        self.open.insert(session.id());
        self.inner.opened(session);
    }

    fn message(&mut self, session: &mut Session<'_, H::User>, message: Message<'_>) {
        assert!(self.open.contains(&session.id()), "a message of a connection that is not open");
        assert!(session.user().is_some(), "a message of a connection that has ended");
        self.inner.message(session, message);
    }

    fn closed(&mut self, connections: &mut Connections<H::User>, closed: Closed<H::User>) {
        self.closed += 1;
        assert!(self.open.remove(&closed.id), "closed twice, or never opened");
        assert!(connections.user(closed.id).is_none(), "what has ended can still be reached");
        self.inner.closed(connections, closed);
    }

    fn written(&mut self, connections: &mut Connections<H::User>, id: ConnectionId) {
        assert!(self.open.contains(&id), "a connection that is not open is told of");
        self.inner.written(connections, id);
    }

    fn draining(&mut self, connections: &mut Connections<H::User>, id: ConnectionId, close: &Close) -> Close {
        assert!(self.open.contains(&id), "a connection that is not open is to be closed");
        self.inner.draining(connections, id, close)
    }

    fn mail(&mut self, connections: &mut Connections<H::User>, mail: H::Mail) {
        self.inner.mail(connections, mail);
    }

    fn out_of_descriptors(&mut self, error: &io::Error, turned_away: usize) {
        self.inner.out_of_descriptors(error, turned_away);
    }

    fn respond(
        &mut self,
        connections: &mut Connections<H::User>,
        request: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        self.inner.respond(connections, request, content, response)
    }

    fn hand_over(&mut self, handover: Handover) {
        self.inner.hand_over(handover);
    }
}

/// More than any test's bytes need.
const TICKS: usize = 100_000;
