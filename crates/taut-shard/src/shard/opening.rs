//! The opening handshake: from the first byte of a request to its answer.

use std::mem;
use std::time::Duration;

use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_proto::{Outbox, deflate};

use super::Shard;
use super::drain::DRAINING_RETRY;
use crate::connections::Answer;
use crate::handler::{Handler, Handover, Session, Verdict};
use crate::proxy::{Header, Malformed};
use crate::socket::{Kernel, Socket};
use crate::wire::{Acceptance, Pending, Phase, Wire};

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Bytes have come of a socket that begins with a PROXY header.
    pub(crate) fn announcement(&mut self, token: usize, bytes: &[u8]) {
        let Some(Wire { phase: Phase::Handshake(opening), peer, .. }) = self.wires.get_mut(token) else { return };
        opening.bytes.extend_from_slice(bytes);
        match Header::parse(&opening.bytes, self.settings.head.bytes) {
            Ok(None) => {}
            Ok(Some(header)) => {
                *peer = header.client.unwrap_or(*peer);
                opening.is_announced = false;
                // No more than this one read has brought: the header was not whole before it.
                let mut rest = mem::take(&mut opening.bytes).split_off(header.length);
                if !rest.is_empty() {
                    self.received(token, &mut rest);
                }
            }
            Err(Malformed) => {
                self.connections.stats.unannounced += 1;
                self.handle_end(token);
            }
        }
    }

    /// Acts on what has come of a request, and of those behind it.
    pub(crate) fn advance(&mut self, token: usize) {
        let mut left = usize::MAX;
        // A request that was answered has become less; else it waits for more.
        while let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get(token)
            && !opening.is_announced
            && opening.pending.is_none()
            && opening.unsent.is_none()
            && (1..left).contains(&opening.bytes.len())
        {
            left = opening.bytes.len();
            self.handshake(token);
        }
    }

    /// Bytes of a head, or behind it, have come.
    fn handshake(&mut self, token: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), peer, .. }) = self.wires.get_mut(token) else { return };
        let peer = *peer;
        let end = match opening.scan.find(&opening.bytes, &self.settings.head) {
            Ok(None) => return,
            Ok(Some(end)) => end,
            Err(refusal) => return self.refuse(token, &refusal),
        };
        if opening.content.is_some() {
            return self.exchange(token, end);
        }
        let scan = opening.scan.clone();
        let mut bytes = mem::take(&mut opening.bytes);
        let (head, rest) = bytes.split_at_mut(end);
        let request = match Request::parse_found(head, &scan) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(token, &refusal),
        };
        if self.draining.is_some() {
            return self.refuse(token, &Refusal::busy(DRAINING_RETRY));
        }
        let id = self.connections.next_handshake(token);
        match self.handler.handshake(&request, peer, id) {
            Verdict::Accept(upgrade, user) => {
                let acceptance = self.acceptance(upgrade);
                self.open(token, acceptance, user, rest);
            }
            Verdict::Later(upgrade) => {
                let pending = Pending { generation: id.generation, acceptance: self.acceptance(upgrade) };
                if let Phase::Handshake(opening) = &mut self.wires[token].phase {
                    opening.bytes = rest.to_vec();
                    opening.pending = Some(pending);
                }
            }
            Verdict::Refuse(refusal) => self.refuse(token, &refusal),
            Verdict::Respond { content } if content <= rest.len() => {
                let responded = self.respond(&request, &rest[..content]);
                self.answered(token, responded, bytes, end + content);
            }
            Verdict::Respond { content } => {
                if let Phase::Handshake(opening) = &mut self.wires[token].phase {
                    opening.bytes = bytes;
                    opening.content = Some(content);
                }
            }
            Verdict::HandOver => self.hand_over(token, bytes),
        }
    }

    /// Acts on the answers that the handler has given meanwhile.
    pub(crate) fn handle_answers(&mut self) {
        // What is answered on the way is acted on in the next tick, at once.
        for (id, answer) in mem::take(&mut self.connections.answers) {
            let token = id.index as usize;
            // The peer may have gone since, and another be in its place.
            let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { continue };
            let Some(pending) = opening.pending.take_if(|pending| pending.generation == id.generation) else {
                continue;
            };
            match answer {
                Answer::Accept(user) => {
                    let mut rest = mem::take(&mut opening.bytes);
                    self.open(token, pending.acceptance, user, &mut rest);
                    // It may have been left unread while it waited.
                    self.read_again(token);
                }
                Answer::Refuse(refusal) => self.refuse(token, &refusal),
            }
            self.flush_brimming();
        }
    }

    /// The handshake has taken a while, which it may unless others wait for its place.
    pub(crate) fn handle_slow_handshake(&mut self, token: usize, is_crowded: bool) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get(token) else { return };
        let (now, grace) = (self.connections.now, self.settings.handshake_grace);
        let age = self.settings.handshake_timeout.saturating_sub(opening.deadline - now);
        if opening.content.is_some() && age >= grace {
            return self.hand_over_unfinished(token);
        }
        // Whoever waits for the application's answer has done its part, and one that is kept takes nobody's place.
        if opening.pending.is_some() || opening.is_kept || age < grace || !is_crowded {
            let next = if opening.is_kept { opening.deadline } else { opening.deadline.min(now + grace) };
            return self.set_deadline(token, next);
        }
        if opening.is_announced {
            self.connections.stats.unannounced += 1;
            return self.handle_end(token);
        }
        self.refuse(token, &Refusal::busy(CROWDED_RETRY));
        // It is told as far as its socket takes that at once. To wait for its end would keep the descriptor from others.
        if self.wires.contains(token) {
            self.wires.remove(token);
        }
    }

    /// The handshake has taken too long.
    pub(crate) fn handle_late_handshake(&mut self, token: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get(token) else { return };
        match opening.pending {
            // It is the proxy that has said nothing, and what the client speaks is not known.
            None if opening.is_announced => {
                self.connections.stats.unannounced += 1;
                self.handle_end(token);
            }
            None if opening.content.is_some() => self.hand_over_unfinished(token),
            // Nothing was asked, or the answer to what was is not read.
            None if opening.unsent.is_some() || opening.is_kept && opening.bytes.is_empty() => self.end_kept(token),
            None => self.refuse(token, &Refusal::timeout()),
            // The client has done its part.
            Some(_) => self.refuse(token, &Refusal::busy(PENDING_RETRY)),
        }
    }

    pub(crate) fn refuse(&mut self, token: usize, refusal: &Refusal) {
        self.connections.stats.refused += 1;
        let mut response = Vec::with_capacity(256);
        refusal.write_response(&mut response);
        let mut outbox = Box::new(Outbox::new());
        outbox.push_bytes(&response);
        self.end_handshake(token);
        self.linger(token, Some(outbox));
    }

    /// A socket is neither a handshake in progress any more nor kept for a request, whatever becomes of it.
    pub(crate) fn end_handshake(&mut self, token: usize) {
        match self.wires.get(token) {
            Some(Wire { phase: Phase::Handshake(opening), .. }) if opening.is_kept => self.kept -= 1,
            Some(Wire { phase: Phase::Handshake(_), .. }) => self.handshakes -= 1,
            _ => {}
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
        self.end_handshake(token);
        self.wires[token].phase = Phase::Open;
        let id = self.connections.open(token, deflate, self.kernel.random(), user);
        self.connections.act(id, |_, _, outbox| outbox.push_bytes(&response));
        self.handler.opened(&mut Session::new(id, &mut self.connections));
        self.schedule(token);
        // The first frames may have come with the handshake.
        if !rest.is_empty() {
            self.messages(token, rest);
        }
    }

    pub(crate) fn hand_over(&mut self, token: usize, bytes: Vec<u8>) {
        self.end_handshake(token);
        let mut wire = self.wires.remove(token);
        // What TLS had still to say goes with it, in the live TLS connection.
        if self.kernel.forget(&mut wire.socket).is_ok()
            && let Ok(stream) = wire.socket.into_stream()
        {
            self.handler.hand_over(Handover { stream, tls: wire.tls, bytes, peer: wire.peer });
        }
    }
}

/// What a client is told whose handshake had to make way for others.
const CROWDED_RETRY: Duration = Duration::from_secs(1);

/// What a client is told whose handshake was not answered in time.
const PENDING_RETRY: Duration = Duration::from_secs(1);
