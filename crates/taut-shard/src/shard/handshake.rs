//! A connection that speaks HTTP: the PROXY header, then requests, one of which may be an upgrade.

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_proto::{Outbox, deflate};

use super::Shard;
use super::drain::DRAINING_RETRY;
use crate::conn::{Acceptance, Conn, Http, HttpStage, Pending, Stage};
use crate::connections::Answer;
use crate::handler::{Handler, Handover, Responded, Session, Verdict};
use crate::http1::Step;
use crate::proxy::{Header, Malformed};
use crate::socket::Kernel;

/// What is to be done about a request, once nothing of it is borrowed.
enum Outcome<User> {
    NeedMore,
    Open(Acceptance, User),
    Pending(Pending),
    Refuse(Refusal),
    /// So many bytes of content have to come.
    AwaitContent(usize),
    /// The handler has seen a request with so many bytes of content.
    Responded(Responded, usize),
    HandOver,
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Bytes have come of a socket that begins with a PROXY header.
    pub(crate) fn proxy_header(&mut self, token: usize, bytes: &[u8]) {
        let Some(http) = self.connections.http(token) else { return };
        let HttpStage::ProxyHeader(received) = &mut http.stage else { return };
        received.extend_from_slice(bytes);
        match Header::parse(received, self.settings.head.bytes) {
            Ok(None) => {}
            Ok(Some(header)) => {
                // No more than this one read has brought: the header was not whole before it.
                let mut rest = received.split_off(header.length);
                http.peer = header.client.unwrap_or(http.peer);
                http.stage = HttpStage::Request;
                if !rest.is_empty() {
                    self.received(token, &mut rest);
                }
            }
            Err(Malformed) => self.fail_proxy_header(token),
        }
    }

    /// It is the proxy that has said nothing, or not what it should: what the client speaks is not known.
    fn fail_proxy_header(&mut self, token: usize) {
        self.connections.stats.proxy_errors += 1;
        self.shut(token);
    }

    /// Bytes have come on a connection that speaks HTTP, or has asked for an upgrade.
    pub(crate) fn request_bytes(&mut self, token: usize, bytes: &[u8]) {
        let Some(http) = self.connections.http(token) else { return };
        let was_idle = http.is_idle();
        if was_idle {
            http.exchange.lend(mem::take(&mut self.recycled));
        }
        http.exchange.receive(bytes);
        self.advance(token);
        self.reschedule_kept(token, was_idle);
    }

    /// Acts on what has come of a request, and of those behind it.
    pub(crate) fn advance(&mut self, token: usize) {
        while self.step(token) {}
    }

    /// Acts on one request; whether it was answered, so that the next has its turn.
    fn step(&mut self, token: usize) -> bool {
        let Some(http) = self.connections.http(token) else { return false };
        if !matches!(http.stage, HttpStage::Request) || http.exchange.is_idle() {
            return false;
        }
        let peer = http.peer;
        let mut exchange = mem::take(&mut http.exchange);
        let limits = self.settings.head;
        // By reference: a request with its headers is large, and would be moved.
        let outcome = match &exchange.step(&limits) {
            Step::NeedMore => Outcome::NeedMore,
            Step::Refuse(refusal) => Outcome::Refuse(refusal.clone()),
            Step::Head { request, behind } => self.decide(token, request, behind, peer),
            Step::Whole { request, content } => Outcome::Responded(self.respond(request, content), content.len()),
        };
        match outcome {
            Outcome::NeedMore => {}
            Outcome::AwaitContent(content) => exchange.await_content(content),
            Outcome::Pending(pending) => {
                exchange.upgrade();
                self.set_http_stage(token, HttpStage::Deciding(pending));
            }
            Outcome::Responded(Responded::Answered, content) => {
                self.keep(token, exchange, content);
                return true;
            }
            Outcome::Open(acceptance, user) => {
                exchange.upgrade();
                self.open(token, acceptance, user, &mut exchange.into_bytes());
                return false;
            }
            Outcome::Responded(Responded::Last, _) => {
                self.respond_last(token);
                return false;
            }
            Outcome::Refuse(refusal) => {
                self.refuse(token, &refusal);
                return false;
            }
            Outcome::HandOver | Outcome::Responded(Responded::HandOver, _) => {
                self.hand_over(token, exchange.into_bytes());
                return false;
            }
        }
        if let Some(http) = self.connections.http(token) {
            http.exchange = exchange;
        }
        false
    }

    /// Asks the handler about a request whose head is here.
    fn decide(&mut self, token: usize, request: &Request<'_>, behind: &[u8], peer: SocketAddr) -> Outcome<H::User> {
        if self.draining.is_some() {
            return Outcome::Refuse(Refusal::busy(DRAINING_RETRY));
        }
        let id = self.connections.next_handshake(token);
        match self.handler.request(request, peer, id) {
            Verdict::Accept(upgrade, user) => Outcome::Open(self.acceptance(upgrade), user),
            Verdict::Pending(upgrade) => {
                Outcome::Pending(Pending { generation: id.generation, acceptance: self.acceptance(upgrade) })
            }
            Verdict::Refuse(refusal) => Outcome::Refuse(refusal),
            Verdict::Respond { content } => match behind.get(..content) {
                Some(whole) => Outcome::Responded(self.respond(request, whole), content),
                None => Outcome::AwaitContent(content),
            },
            Verdict::HandOver => Outcome::HandOver,
        }
    }

    /// Acts on the answers that the handler has given meanwhile.
    pub(crate) fn handle_answers(&mut self) {
        // What is answered on the way is acted on in the next tick, at once.
        for (id, answer) in mem::take(&mut self.connections.answers) {
            let token = id.index as usize;
            // The peer may have gone since, and another be in its place.
            let Some(http) = self.connections.http(token) else { continue };
            let HttpStage::Deciding(pending) = &http.stage else { continue };
            if pending.generation != id.generation {
                continue;
            }
            match answer {
                Answer::Accept(user) => self.accept_upgrade(token, user, &[]),
                Answer::AcceptWith(user, headers) => self.accept_upgrade(token, user, &headers),
                Answer::Refuse(refusal) => self.refuse(token, &refusal),
            }
            self.flush_above_high_water();
        }
    }

    /// An upgrade that was pending is accepted.
    fn accept_upgrade(&mut self, token: usize, user: H::User, headers: &[(Box<str>, Box<str>)]) {
        let Some(http) = self.connections.http(token) else { return };
        let mut rest = mem::take(&mut http.exchange).into_bytes();
        if let HttpStage::Deciding(mut pending) = mem::replace(&mut http.stage, HttpStage::Request) {
            pending.acceptance.add_headers(headers);
            self.open(token, pending.acceptance, user, &mut rest);
        }
        // It may have been left unread while it waited.
        self.read_again(token);
    }

    /// A request has taken a while, which it may unless others wait for its place.
    pub(crate) fn handle_slow_request(&mut self, token: usize, is_crowded: bool) {
        let (now, grace) = (self.connections.now, self.settings.handshake_grace);
        let Some(http) = self.connections.http(token) else { return };
        let age = self.settings.handshake_timeout.saturating_sub(http.deadline - now);
        if http.exchange.is_awaiting_content() && age >= grace {
            return self.hand_over_unfinished(token);
        }
        // Whoever waits for the application's answer has done its part, and one that is kept takes nobody's place.
        if http.is_kept {
            let deadline = http.deadline;
            return self.set_deadline(token, deadline);
        }
        if matches!(http.stage, HttpStage::Deciding(_)) || age < grace || !is_crowded {
            let next = http.deadline.min(now + grace);
            return self.set_deadline(token, next);
        }
        if matches!(http.stage, HttpStage::ProxyHeader(_)) {
            return self.fail_proxy_header(token);
        }
        self.refuse(token, &Refusal::busy(CROWDED_RETRY));
        // It is told as far as its socket takes that at once. To wait for its end would keep the descriptor from others.
        self.connections.remove(token);
    }

    /// A request has taken too long, or there was none.
    pub(crate) fn handle_late_request(&mut self, token: usize) {
        let Some(http) = self.connections.http(token) else { return };
        match &http.stage {
            HttpStage::ProxyHeader(_) => self.fail_proxy_header(token),
            // The client has done its part.
            HttpStage::Deciding(_) => self.refuse(token, &Refusal::busy(PENDING_RETRY)),
            // The answer to what was asked is not read.
            HttpStage::Responding(_) => self.end_kept(token),
            HttpStage::Request if http.exchange.is_awaiting_content() => self.hand_over_unfinished(token),
            HttpStage::Request if http.is_kept && http.exchange.is_idle() => self.end_kept(token),
            HttpStage::Request => self.refuse(token, &Refusal::timeout()),
        }
    }

    pub(crate) fn refuse(&mut self, token: usize, refusal: &Refusal) {
        self.connections.stats.refused += 1;
        let mut response = Vec::with_capacity(256);
        refusal.write_response(&mut response);
        let mut outbox = Box::new(Outbox::new());
        outbox.push_bytes(&response);
        self.linger(token, Some(outbox));
    }

    fn set_http_stage(&mut self, token: usize, stage: HttpStage) {
        if let Some(http) = self.connections.http(token) {
            http.stage = stage;
        }
    }

    fn acceptance(&self, upgrade: Upgrade<'_>) -> Acceptance {
        let deflate = self.settings.deflate.as_ref().and_then(|config| deflate::accept(upgrade.extensions(), config));
        let mut response = Vec::with_capacity(256);
        upgrade.with_deflate(deflate).write_response(&mut response);
        Acceptance { response, deflate }
    }

    fn open(&mut self, token: usize, acceptance: Acceptance, user: H::User, rest: &mut [u8]) {
        let Acceptance { response, deflate } = acceptance;
        let id = self.connections.open(token, deflate, self.kernel.random(), user);
        self.connections.act(id, |_, _, outbox| outbox.push_bytes(&response));
        self.handler.opened(&mut Session::new(id, &mut self.connections));
        self.schedule(token);
        // The first frames may have come with the handshake.
        if !rest.is_empty() {
            self.messages(id, rest);
            self.flush(token);
        }
    }

    pub(crate) fn hand_over(&mut self, token: usize, bytes: Vec<u8>) {
        let Some(Conn { transport, stage: Stage::Http(http), .. }) = self.connections.remove(token) else { return };
        let Http { peer, .. } = *http;
        // What TLS had still to say goes with it, in the live TLS connection.
        if let Ok(stream) = self.kernel.release(transport.socket) {
            self.handler.hand_over(Handover { stream, tls: transport.tls, bytes, peer });
        }
    }
}

/// What a client is told whose handshake had to make way for others.
const CROWDED_RETRY: Duration = Duration::from_secs(1);

/// What a client is told whose handshake was not answered in time.
const PENDING_RETRY: Duration = Duration::from_secs(1);
