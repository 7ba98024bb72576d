//! A shard under arbitrary use, from bytes: for property tests and fuzzers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use taut_proto::handshake::{Refusal, Request};
use taut_proto::{Close, CloseCode, Message, Prepared, deflate};

use super::{Client, Stage};
use crate::{
    Answer, Closed, Connections, Drain, Handler, HandshakeId, Reason, Sent, Session, Settings, SlowReader, Stats,
    Verdict,
};

/// Lets clients come, speak, stall, break the rules and go, on a kernel that gives and takes as few bytes as it
/// likes, as `script` says; then drains the shard.
///
/// What holds all the while is checked by [`Stage`] and [`Client`]. Besides, every client receives the messages that
/// were sent to it, in order and from the first; all of them, unless it or the shard gave up the connection; and in
/// the end nothing is left. Gives what the shard counted.
///
/// # Panics
/// When it is not so.
pub fn run(script: &[u8]) -> Stats {
    Play::new(Script(script), None).run()
}

/// The same by TLS. The client's settings must trust the server's certificate for `fake.example`.
///
/// # Panics
/// As [`run`] does.
pub fn run_by_tls(script: &[u8], server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Stats {
    Play::new(Script(script), Some((server, client))).run()
}

struct Play<'s> {
    script: Script<'s>,
    stage: Stage<Room>,
    /// Whoever was ever there.
    peers: Vec<Peer>,
    deflate: Option<deflate::Config>,
    tls: Option<Arc<ClientConfig>>,
}

/// A client, and what is known of it.
struct Peer {
    client: Client,
    /// What it has still to send of its request.
    request: Vec<u8>,
    /// Messages heard so far.
    heard: usize,
    /// It has reset the connection, and does not hear what came before.
    has_reset: bool,
    has_finished: bool,
}

impl<'s> Play<'s> {
    fn new(mut script: Script<'s>, tls: Option<(Arc<ServerConfig>, Arc<ClientConfig>)>) -> Self {
        let (flags, outgoing) = (script.byte(), script.byte());
        let takeover = outgoing & 8 != 0;
        let config =
            deflate::Config { outgoing_takeover: takeover, incoming_takeover: takeover, ..deflate::Config::standard() };
        let deflate = (flags & 2 != 0).then_some(config);
        let (server, tls) = tls.unzip();
        let settings = Settings {
            slow_reader: if flags & 1 == 0 { SlowReader::Close } else { SlowReader::Drop },
            deflate,
            tls: server,
            read_buffer: [16, 100, 5000, 128 << 10][usize::from(flags >> 2 & 3)],
            pending_handshakes: [1, 3, 1024, 1024][usize::from(flags >> 4 & 3)],
            connections: [4, 1000, 1000, 1000][usize::from(flags >> 6)],
            outgoing: [500, 5000, 100_000, 1 << 20][usize::from(outgoing & 3)],
            ..Settings::default()
        };
        let stage = Stage::new(Room::default(), settings);
        stage.network.order(u64::from(script.byte()));
        stage.network.tell_changes_only(outgoing & 4 != 0);
        stage.network.draw_from(u32::from(script.byte()));
        Self { script, stage, peers: Vec::new(), deflate, tls }
    }

    fn run(mut self) -> Stats {
        while !self.script.0.is_empty() {
            self.step();
        }
        self.calm_down();
        self.go_down();
        self.stage.shard.stats()
    }

    fn step(&mut self) {
        let (act, who, how) = (self.script.byte(), self.script.byte(), self.script.byte());
        let amount = usize::from(how);
        match act % 24 {
            0 => return self.connect(how),
            1..4 => self.stage.tick(),
            4 => self.stage.settle(),
            5 => self.stage.advance(Duration::from_millis(u64::from(how) * 10)),
            6 => self.stage.advance(Duration::from_millis(u64::from(how) * 250)),
            7 => drop(self.stage.shard.mailbox().push(vec![how; amount * 20], amount)),
            8 => self.stage.network.fail_accept((how & 1 == 0).then_some(24)),
            9 => self.stage.network.connect_and_abort(),
            _ => {}
        }
        let newest = self.peers.len();
        let Some(index) = newest.checked_sub(1 + usize::from(who) % NEWEST) else { return };
        let peer = &mut self.peers[index];
        if !peer.client.is_open() {
            peer.hear(index, usize::MAX, &self.stage);
        }
        match act % 24 {
            10..13 => peer.say(b'e', amount * amount / 4),
            13 => peer.say(b'a', amount * amount / 4),
            14 => peer.say(b'm', amount),
            15 => match how & 3 {
                0 => peer.say(b'c', 0),
                1 => peer.client.close(CloseCode::GOING_AWAY),
                _ => peer.say(b'q', amount),
            },
            16 => {
                peer.client.end.ping(&vec![how; amount.min(125)]);
                peer.client.flush();
            }
            17 => match how & 15 {
                0 => {
                    peer.has_reset = true;
                    peer.client.remote.reset(how & 16 != 0);
                }
                1 => {
                    peer.has_finished = true;
                    peer.client.finish();
                }
                2 => peer.client.write(&vec![how; amount]),
                3 => peer.client.write(&[how, how.wrapping_mul(31), 0]),
                _ => peer.client.remote.interrupt(),
            },
            18 => peer.client.remote.set_capacity(if how & 1 == 0 { usize::MAX } else { amount * amount }),
            19 => peer.client.remote.set_up_capacity(if how & 1 == 0 { usize::MAX } else { amount * 8 }),
            20 => {
                let limit = if how & 1 == 0 { usize::MAX } else { amount };
                peer.client.remote.set_read_limit(limit);
                peer.client.remote.set_write_limit(limit);
            }
            21 => peer.ask(amount),
            22 | 23 => peer.hear(index, amount * amount, &self.stage),
            _ => {}
        }
    }

    fn connect(&mut self, how: u8) {
        let number = self.peers.len();
        let mut client = Client::new(&self.stage.network);
        if let Some(config) = self.deflate.filter(|_| how & 1 == 0) {
            client = client.with_deflate(config);
        }
        if let Some(config) = &self.tls {
            let name = ServerName::try_from("fake.example").expect("a name");
            let tls = ClientConnection::new(Arc::clone(config), name).expect("settings that are valid");
            client = client.with_tls(tls);
        }
        let request = client.request(&format!("/{number}"));
        self.stage.shard.handler().inner.ledger.push(Page::default());
        let mut peer = Peer { client, request, heard: 0, has_reset: false, has_finished: false };
        // Most ask at once; a few in pieces, or never to the end.
        if how & 0x0c != 0 {
            peer.ask(usize::MAX);
        } else {
            peer.ask(usize::from(how));
        }
        self.peers.push(peer);
        if how & 0x30 != 0 {
            self.stage.settle();
        }
    }

    /// From here on everybody behaves.
    fn calm_down(&mut self) {
        self.stage.network.fail_accept(None);
        for peer in &mut self.peers {
            peer.client.remote.set_capacity(usize::MAX);
            peer.client.remote.set_up_capacity(usize::MAX);
            peer.client.remote.set_read_limit(usize::MAX);
            peer.client.remote.set_write_limit(usize::MAX);
        }
        self.exchange();
        for (index, peer) in self.peers.iter().enumerate() {
            let Page { sent, closed, opened } = &self.stage.shard.handler().inner.ledger[index];
            if *opened && !peer.has_reset && (closed.is_none() || peer.client.remote.is_shut()) {
                assert_eq!(peer.heard, sent.len(), "{index} has not heard all; it was closed as {closed:?}");
                assert!(peer.client.frames.are_whole());
            }
        }
    }

    fn go_down(&mut self) {
        self.stage.shard.drainer().drain(Drain {
            close: Close::from(CloseCode::SERVICE_RESTART),
            over: Duration::from_millis(100),
            deadline: Duration::from_secs(3),
        });
        // Those who have just come may still say something, for a quarter of a second.
        self.stage.sleep(Duration::from_millis(400));
        self.exchange();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Page { closed, opened, .. } = &self.stage.shard.handler().inner.ledger[index];
            // One that was told need not be closed: if it has begun a frame, its answer is taken for a part of that.
            assert_eq!(*opened, closed.is_some() || peer.client.closed().is_some(), "{index} was left out");
            if !peer.has_finished {
                peer.client.finish();
            }
        }
        self.stage.sleep(Duration::from_secs(3));
        assert!(self.stage.is_drained, "{:?}", self.stage.census());
        let census = self.stage.census();
        assert_eq!((census.sockets, census.handshakes, census.open, census.outboxes), (0, 0, 0, 0));
        let (opened, closed) = self.stage.shard.handler().counts();
        assert_eq!(opened, closed);
        assert_eq!(self.stage.shard.stats().opened, opened as u64);
        for peer in &self.peers {
            let remote = &peer.client.remote;
            // Those that were never accepted, or no more, have been reset.
            assert!(remote.is_gone() || remote.is_at_end());
        }
    }

    fn exchange(&mut self) {
        for _ in 0..ROUNDS {
            self.stage.settle();
            if self.peers.iter().all(|peer| peer.client.remote.waiting() == 0) {
                return;
            }
            for (index, peer) in self.peers.iter_mut().enumerate() {
                peer.hear(index, usize::MAX, &self.stage);
            }
        }
        panic!("the shard and its clients answer each other without end");
    }
}

impl Peer {
    fn ask(&mut self, bytes: usize) {
        let rest = self.request.split_off(bytes.min(self.request.len()));
        let part = std::mem::replace(&mut self.request, rest);
        self.client.write(&part);
    }

    fn say(&mut self, what: u8, bytes: usize) {
        if self.client.is_open() {
            let mut message = vec![b'.'; bytes + 1];
            message[0] = what;
            self.client.send(message);
        }
    }

    fn hear(&mut self, index: usize, bytes: usize, stage: &Stage<Room>) {
        self.client.read(bytes);
        let sent = &stage.shard.watched().inner.ledger[index].sent;
        for message in self.client.messages() {
            assert_eq!(message.as_bytes(), sent[self.heard], "{index} heard what was not sent to it, or not then");
            self.heard += 1;
        }
    }
}

/// Does what the clients ask for, and keeps a ledger of it.
#[derive(Default)]
struct Room {
    ledger: Vec<Page>,
    /// Handshakes that wait for their answer, and whose they are.
    pending: Vec<(HandshakeId, usize)>,
    /// Numbers the messages, so that no two are the same.
    count: u32,
}

/// What happened to one client.
#[derive(Default)]
struct Page {
    opened: bool,
    sent: Vec<Vec<u8>>,
    closed: Option<Reason>,
}

impl Room {
    fn text(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.count += 1;
        [&self.count.to_be_bytes(), bytes].concat()
    }

    fn note(&mut self, to: usize, message: &[u8], sent: Sent) {
        if sent == Sent::Sent {
            self.ledger[to].sent.push(message.to_vec());
        }
    }

    /// Answers the handshakes that wait, some of them twice, and most of them well.
    fn answer_all(&mut self, connections: &mut Connections<usize>, how: usize) {
        for (id, number) in self.pending.drain(..) {
            match how % 7 {
                1 => connections.answer(id, Answer::Refuse(Refusal::forbidden("not you"))),
                2 => {
                    connections.answer(id, Answer::Accept(number));
                    connections.answer(id, Answer::Refuse(Refusal::forbidden("not you")));
                }
                _ => connections.answer(id, Answer::Accept(number)),
            }
        }
    }

    fn tell_all(&mut self, connections: &mut Connections<usize>, bytes: &[u8]) {
        let message = self.text(bytes);
        let prepared = Prepared::new(Message::from(message.clone()));
        for id in connections.ids().collect::<Vec<_>>() {
            let to = *connections.user(id).expect("it is open");
            let sent = connections.send_prepared(id, &prepared);
            self.note(to, &message, sent);
        }
    }
}

impl Handler for Room {
    /// The client's number.
    type User = usize;
    type Mail = Vec<u8>;

    fn request<'r>(&mut self, request: &'r Request<'r>, _: SocketAddr, id: HandshakeId) -> Verdict<'r, usize> {
        let number = request.path().trim_start_matches('/').parse().unwrap_or(usize::MAX);
        match request.upgrade() {
            Ok(upgrade) if number < self.ledger.len() && number % 8 == 2 => {
                self.pending.push((id, number));
                Verdict::Pending(upgrade)
            }
            Ok(upgrade) if number < self.ledger.len() => Verdict::Accept(upgrade, number),
            Err(refusal) => Verdict::Refuse(refusal),
            _ => Verdict::HandOver,
        }
    }

    fn opened(&mut self, session: &mut Session<'_, usize>) {
        let number = *session.user().expect("it has just opened");
        self.ledger[number].opened = true;
    }

    fn message(&mut self, session: &mut Session<'_, usize>, message: Message<'_>) {
        let number = *session.user().expect("it has just spoken");
        let bytes = message.as_bytes();
        self.answer_all(session.connections(), bytes.len());
        match bytes.first() {
            Some(b'e') => {
                let reply = self.text(bytes);
                let sent = session.send(Message::from(reply.clone()));
                self.note(number, &reply, sent);
            }
            Some(b'a') => self.tell_all(session.connections(), bytes),
            Some(b'm') => {
                for _ in 0..bytes.len() {
                    let reply = self.text(bytes);
                    let sent = session.send(Message::from(reply.clone()));
                    self.note(number, &reply, sent);
                }
            }
            Some(b'c') => session.close(CloseCode::NORMAL),
            _ => {}
        }
    }

    fn closed(&mut self, connections: &mut Connections<usize>, closed: Closed<usize>) {
        self.tell_all(connections, b"one has gone");
        self.ledger[closed.user].closed = Some(closed.reason);
    }

    fn mail(&mut self, connections: &mut Connections<usize>, mail: Vec<u8>) {
        self.answer_all(connections, mail.len());
        self.tell_all(connections, &mail);
    }
}

/// Bytes that decide; zeros at the end.
struct Script<'s>(&'s [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}

/// Clients that may still act: the last that came.
const NEWEST: usize = 6;

/// More than any script's bytes need.
const ROUNDS: usize = 100_000;
