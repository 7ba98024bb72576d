//! Requests that are no upgrades: what is answered on the shard, and what is back from an answer elsewhere.

use std::io;
use std::mem;
use std::time::Duration;

use taut_proto::handshake::{Refusal, Request};

use super::Shard;
use crate::handler::{Handler, Handover, Responded};
use crate::socket::Kernel;
use crate::wire::{self, Opening, Phase, RECORD, Wire};

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
        let responded = self.respond(&request, &bytes[head..whole]);
        self.answered(token, responded, bytes, whole);
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

    /// Acts on what the handler has made of a request of `whole` bytes; what follows it in `bytes` is of the next.
    pub(crate) fn answered(&mut self, token: usize, responded: Responded, bytes: Vec<u8>, whole: usize) {
        match responded {
            Responded::Here => self.keep(token, bytes, whole),
            Responded::Last => {
                let mut outbox = self.connections.outboxes.take();
                outbox.push_bytes(&self.response);
                self.end_handshake(token);
                self.linger(token, Some(outbox));
            }
            Responded::HandOver => self.hand_over(token, bytes),
        }
    }

    /// Writes the answer to a request of `whole` bytes. The socket is kept for what comes next, of which the rest of `bytes` is.
    fn keep(&mut self, token: usize, bytes: Vec<u8>, whole: usize) {
        let mut outbox = self.connections.outboxes.take();
        outbox.push_bytes(&self.response);
        let Some(Wire { phase: Phase::Handshake(opening), .. }) = self.wires.get_mut(token) else { return };
        let is_new = !opening.is_kept;
        let rest = after_empty_lines(&bytes[whole..]).to_vec();
        let patience = if rest.is_empty() { self.settings.keep_alive } else { self.settings.handshake_timeout };
        let deadline = self.connections.now + patience;
        // An answer may be followed by any request: all else is as it was for the first one.
        **opening = Opening { is_kept: true, bytes: rest, unsent: Some(outbox), ..Opening::new(deadline, false) };
        self.spare(bytes);
        self.set_deadline(token, deadline);
        self.flush_response(token);
        if is_new {
            self.handshakes -= 1;
            self.kept += 1;
            self.bound_kept();
        }
    }

    /// Takes a connection back whose request was answered elsewhere: from here on it is one that was kept.
    pub(crate) fn take_back(&mut self, handover: Handover<K::Stream>) {
        let Handover { stream, mut tls, mut bytes, peer } = handover;
        if self.wires.len() >= self.settings.connections && !self.close_longest_idle(Duration::ZERO) {
            return;
        }
        let Ok(mut socket) = self.kernel.adopt(stream) else { return };
        // What TLS has decrypted already comes with no event of the socket's.
        let ended = match &mut tls {
            Some(tls) => take_decrypted(tls, &mut bytes),
            None => Ok(false),
        };
        let Ok(ended) = ended else { return };
        let entry = self.wires.vacant_entry();
        let token = entry.key();
        if self.kernel.watch(&mut socket, token).is_err() {
            return;
        }
        let deadline = self.connections.now + self.settings.keep_alive;
        let opening = Opening { is_kept: true, ..Opening::new(deadline, false) };
        entry.insert(Wire::new(socket, tls, opening, peer));
        self.kept += 1;
        self.set_deadline(token, deadline);
        self.bound_kept();
        if !bytes.is_empty() {
            self.plaintext(token, &mut bytes);
            self.flush(token);
        }
        if ended {
            self.handle_end(token);
        }
    }

    /// Closes those that have been silent for longest, when more are kept than may be.
    fn bound_kept(&mut self) {
        if self.kept > self.settings.kept_connections {
            self.close_longest_idle(Duration::ZERO);
        }
    }

    /// Closes kept connections, those first that have been silent for longest: a share of them, so that looking for them
    /// costs little for each. None that has been silent for less than `patience`. Whether there was one.
    pub(crate) fn close_longest_idle(&mut self, patience: Duration) -> bool {
        let latest = self.connections.now + self.settings.keep_alive;
        let kept = |(token, wire): (usize, &Wire<K::Socket>)| match &wire.phase {
            Phase::Handshake(opening) if opening.is_kept => {
                // One with a request under way has an earlier deadline, and its turn after all that are silent.
                let is_busy = !opening.is_silent() || opening.unsent.is_some();
                let may_stay = !patience.is_zero() && (is_busy || opening.deadline + patience > latest);
                (!may_stay).then_some((is_busy, opening.deadline, token))
            }
            _ => None,
        };
        let mut kept: Vec<_> = self.wires.iter().filter_map(kept).collect();
        let count = kept.len().div_ceil(IDLE_SHARES);
        if count == 0 {
            return false;
        }
        kept.select_nth_unstable(count - 1);
        for &(is_busy, _, token) in &kept[..count] {
            if is_busy {
                self.refuse(token, &Refusal::busy(KEPT_RETRY));
            } else {
                self.end_handshake(token);
                // It is told by TLS too, if its socket takes that at once. To wait for its end would keep the place.
                let _ = self.wires[token].shutdown();
            }
            if self.wires.contains(token) {
                self.wires.remove(token);
            }
        }
        true
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

/// What has been decrypted of a connection that is back, added to `bytes`; whether its peer has said by TLS that no more comes.
fn take_decrypted(tls: &mut rustls::ServerConnection, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut filled = bytes.len();
    loop {
        bytes.resize(filled + RECORD, 0);
        let ended = wire::take_plain(tls, bytes, &mut filled)?;
        if ended || filled < bytes.len() {
            bytes.truncate(filled);
            return Ok(ended);
        }
    }
}

/// RFC 9112 §2.2: what follows the line ends that old clients send behind the content of a request.
pub(crate) fn skip_empty_lines(bytes: &mut [u8]) -> &mut [u8] {
    let skipped = bytes.len() - after_empty_lines(bytes).len();
    &mut bytes[skipped..]
}

fn after_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

/// Of the kept connections, one in so many is closed when room is to be made.
const IDLE_SHARES: usize = 16;

/// What a client is told whose connection is closed within its request, because too many are.
const KEPT_RETRY: Duration = Duration::from_secs(1);

/// Bytes of a buffer that is kept while it is empty.
const LARGEST_SPARE: usize = 4 << 10;
