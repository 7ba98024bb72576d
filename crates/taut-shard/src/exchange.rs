//! Requests that are no upgrades and are answered on the shard.

use std::mem;

use taut_proto::handshake::Request;

use crate::handler::{Handler, Responded};
use crate::shard::Shard;
use crate::socket::Kernel;
use crate::wire::{Opening, Phase, Wire};

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// More has come behind a head of `head` bytes, whose content the answer waits for.
    pub(crate) fn exchange(&mut self, token: usize, head: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let whole = head + opening.content.unwrap_or_default();
        if opening.bytes.len() < whole {
            return;
        }
        let bytes = mem::take(&mut opening.bytes);
        let request = match Request::parse_found(&bytes, &opening.scan) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(token, &refusal),
        };
        match self.respond(&request, &bytes[head..whole]) {
            Responded::Here => self.keep(token, bytes, whole),
            Responded::HandOver => self.hand_over(token, bytes),
        }
    }

    /// The content that an answer waits for is slow, or does not come any more: that is for those who have time, and words for it.
    pub(crate) fn hand_over_unfinished(&mut self, token: usize) {
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let bytes = mem::take(&mut opening.bytes);
        self.hand_over(token, bytes);
    }

    /// Asks the handler for the answer to a request that is whole.
    pub(crate) fn respond(&mut self, request: &Request<'_>, content: &[u8]) -> Responded {
        self.response.clear();
        self.handler.respond(&mut self.connections, request, content, &mut self.response)
    }

    /// A request of `whole` bytes has its answer, which is written. The socket is kept for what comes next, of which the rest of `bytes` is.
    pub(crate) fn keep(&mut self, token: usize, bytes: Vec<u8>, whole: usize) {
        self.end_handshake(token);
        let mut outbox = self.connections.outboxes.take();
        outbox.push_bytes(&self.response);
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let rest = bytes[whole..].to_vec();
        let patience = if rest.is_empty() { self.settings.keep_alive } else { self.settings.handshake_timeout };
        let deadline = self.connections.now + patience;
        // An answer may be followed by any request: all else is as it was for the first one.
        **opening = Opening { is_kept: true, bytes: rest, unsent: Some(outbox), ..Opening::new(deadline, false) };
        self.spare(bytes);
        self.set_deadline(token, deadline);
        self.flush_response(token);
    }

    /// Keeps what a request was held in for the next one: whoever has said all that he had to say holds nothing.
    fn spare(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= LARGEST_SPARE {
            bytes.clear();
            self.spare = bytes;
        }
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

/// Bytes of a buffer that is kept while it is empty.
const LARGEST_SPARE: usize = 4 << 10;
