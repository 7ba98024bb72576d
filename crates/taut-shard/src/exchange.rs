//! Requests that are no upgrades and are answered on the shard.

use std::mem;

use taut_proto::handshake::{HeadScan, Request};

use crate::handler::{Handler, Responded};
use crate::shard::Shard;
use crate::socket::Kernel;
use crate::wire::{Phase, Wire};

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// A request is to be answered whose head, of `head` bytes, is here: its content may be.
    pub(crate) fn exchange(&mut self, token: usize, head: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let whole = head + opening.content.unwrap_or_default();
        if opening.bytes.len() < whole {
            return;
        }
        opening.content = None;
        let bytes = mem::take(&mut opening.bytes);
        let (request, content) = bytes[..whole].split_at(head);
        let request = match Request::parse(request, &self.settings.head) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(token, &refusal),
        };
        let mut response = mem::take(&mut self.response);
        response.clear();
        let responded = self.handler.respond(&mut self.connections, &request, content, &mut response);
        drop(request);
        match responded {
            Responded::HandOver => self.hand_over(token, bytes),
            Responded::Here => {
                self.keep(token, &bytes[whole..]);
                self.write_response(token, &response);
            }
        }
        self.response = response;
    }

    /// A request has its answer: the socket is kept for what comes next, of which `rest` is here.
    fn keep(&mut self, token: usize, rest: &[u8]) {
        self.end_handshake(token);
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        opening.is_kept = true;
        opening.bytes = rest.to_vec();
        opening.scan = HeadScan::default();
        let patience = if rest.is_empty() { self.settings.keep_alive } else { self.settings.handshake_timeout };
        opening.deadline = self.connections.now + patience;
        let deadline = opening.deadline;
        self.set_deadline(token, deadline);
    }

    /// The first bytes of a request have come on a socket that was kept, and perhaps not all of it.
    pub(crate) fn expect_rest(&mut self, token: usize) {
        let deadline = self.connections.now + self.settings.handshake_timeout;
        if let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token)
            && !opening.bytes.is_empty()
        {
            opening.deadline = deadline;
            self.set_deadline(token, deadline);
        }
    }

    fn write_response(&mut self, token: usize, response: &[u8]) {
        let mut outbox = self.connections.outboxes.take();
        outbox.push_bytes(response);
        if let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) {
            opening.unsent = Some(outbox);
        }
        self.flush_response(token);
    }

    /// Writes what is left of an answer; when nothing is, the next request has its turn, which may be here already.
    pub(crate) fn flush_response(&mut self, token: usize) {
        let Some(wire) = self.wires.get_mut(token) else { return };
        let Phase::Handshake(opening) = &mut wire.phase else { return };
        let Some(mut outbox) = opening.unsent.take() else { return };
        match wire.write(&mut outbox) {
            Ok(true) => {
                self.connections.outboxes.give(outbox);
                self.read_again(token);
            }
            Ok(false) => {
                if let Phase::Handshake(opening) = &mut wire.phase {
                    opening.unsent = Some(outbox);
                }
            }
            Err(_) => self.handle_end(token),
        }
    }

    /// The socket of a client that was answered is kept no longer: what is left of the answer is still written.
    pub(crate) fn end_kept(&mut self, token: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let unsent = opening.unsent.take();
        self.end_handshake(token);
        self.linger(token, unsent);
    }
}
