//! Requests that are no upgrades: what is answered on the shard, and what is back from an answer elsewhere.

use std::io;
use std::mem;
use std::time::Duration;

use taut_proto::handshake::{Refusal, Request};

use super::Shard;
use crate::conn::{Conn, Http, HttpStage, Stage};
use crate::handler::{Handler, Handover, Responded};
use crate::http1::Exchange;
use crate::socket::Kernel;
use crate::transport::{self, RECORD, Transport};

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Asks the handler for the answer to a request that is whole.
    pub(crate) fn respond(&mut self, request: &Request<'_>, content: &[u8]) -> Responded {
        self.response.clear();
        self.handler.respond(&mut self.connections, request, content, &mut self.response)
    }

    /// Writes the answer to a request with so many bytes of content. The socket is kept for what comes next, of which
    /// the rest of the exchange is.
    pub(crate) fn keep(&mut self, token: usize, mut exchange: Exchange, content: usize) {
        let mut outbox = self.connections.outboxes.take();
        outbox.push_bytes(&self.response);
        // Whoever has said all that he had to say holds nothing.
        if let Some(mut memory) = exchange.finish(content)
            && memory.capacity() <= LARGEST_SPARE
        {
            memory.clear();
            self.recycled = memory;
        }
        let patience = if exchange.is_idle() { self.settings.keep_alive } else { self.settings.handshake_timeout };
        let deadline = self.connections.now + patience;
        let Some(http) = self.connections.http(token) else { return };
        // An answer may be followed by any request: all else is as it was for the first one.
        (http.deadline, http.exchange, http.stage) = (deadline, exchange, HttpStage::Responding(outbox));
        let is_new = !http.is_kept;
        self.connections.keep(token);
        self.set_deadline(token, deadline);
        self.flush_response(token);
        if is_new {
            self.bound_kept();
        }
    }

    /// Writes an answer with which the connection ends.
    pub(crate) fn respond_last(&mut self, token: usize) {
        let mut outbox = self.connections.outboxes.take();
        outbox.push_bytes(&self.response);
        self.linger(token, Some(outbox));
    }

    /// The content that an answer waits for is slow, or does not come any more: that is for those who have time, and words for it.
    pub(crate) fn hand_over_unfinished(&mut self, token: usize) {
        let Some(http) = self.connections.http(token) else { return };
        let bytes = mem::take(&mut http.exchange).into_bytes();
        self.hand_over(token, bytes);
    }

    /// Takes a connection back whose request was answered elsewhere: from here on it is one that was kept.
    pub(crate) fn take_back(&mut self, handover: Handover<K::Stream>) {
        let Handover { stream, mut tls, mut bytes, peer } = handover;
        if self.connections.sockets() >= self.settings.connections && !self.close_longest_idle(Duration::ZERO) {
            return;
        }
        let Ok(mut socket) = self.kernel.adopt(stream) else { return };
        // What TLS has decrypted already comes with no event of the socket's.
        let ended = match &mut tls {
            Some(tls) => take_decrypted(tls, &mut bytes),
            None => Ok(false),
        };
        let Ok(ended) = ended else { return };
        if self.kernel.watch(&mut socket, self.connections.next_token()).is_err() {
            return;
        }
        let deadline = self.connections.now + self.settings.keep_alive;
        let transport = Transport::new(socket.into(), tls);
        let token = self.connections.insert(Conn::new(transport, Http::resumed(peer, deadline)));
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
        if self.connections.kept > self.settings.kept_connections {
            self.close_longest_idle(Duration::ZERO);
        }
    }

    /// Closes kept connections, those first that have been silent for longest: a share of them, so that looking for them
    /// costs little for each. None that has been silent for less than `patience`. Whether there was one.
    pub(crate) fn close_longest_idle(&mut self, patience: Duration) -> bool {
        let latest = self.connections.now + self.settings.keep_alive;
        let kept = |(token, http): (usize, &Http)| {
            // One with a request under way has an earlier deadline, and its turn after all that are silent.
            let is_busy = !http.is_idle();
            let may_stay = !patience.is_zero() && (is_busy || http.deadline + patience > latest);
            (http.is_kept && !may_stay).then_some((is_busy, http.deadline, token))
        };
        let mut kept: Vec<_> = self.connections.http_conns().filter_map(kept).collect();
        let count = kept.len().div_ceil(IDLE_SHARES);
        if count == 0 {
            return false;
        }
        kept.select_nth_unstable(count - 1);
        for &(is_busy, _, token) in &kept[..count] {
            if is_busy {
                self.refuse(token, &Refusal::busy(KEPT_RETRY));
            }
            // It is told as far as its socket takes that at once. To wait for its end would keep the place.
            self.shut(token);
        }
        true
    }

    /// Something has come on a connection that is perhaps a kept one, and was idle or not: a request that has begun has
    /// as long as the first one had, and one that turned out to be none leaves the connection as it was.
    pub(crate) fn reschedule_kept(&mut self, token: usize, was_idle: bool) {
        let Some(http) = self.connections.http(token).filter(|http| http.is_kept) else { return };
        let patience = match (was_idle, &http.stage) {
            // That is after an answer, and set already.
            (_, HttpStage::Responding(_)) => return,
            (true, _) if !http.is_idle() => self.settings.handshake_timeout,
            (false, _) if http.is_idle() => self.settings.keep_alive,
            _ => return,
        };
        let deadline = self.connections.now + patience;
        if let Some(http) = self.connections.http(token) {
            http.deadline = deadline;
        }
        self.set_deadline(token, deadline);
    }

    /// Writes what is left of an answer; when nothing is, the next request has its turn, which may be here already.
    pub(crate) fn flush_response(&mut self, token: usize) {
        let Some((conn, outboxes)) = self.connections.conn_and_outboxes(token) else { return };
        let Stage::Http(http) = &mut conn.stage else { return };
        let HttpStage::Responding(outbox) = &mut http.stage else { return };
        match conn.transport.write(outbox) {
            Ok(false) => {}
            Ok(true) => {
                if let HttpStage::Responding(outbox) = mem::replace(&mut http.stage, HttpStage::Request) {
                    outboxes.give(outbox);
                }
                self.read_again(token);
            }
            // Nobody reads it.
            Err(_) => self.shut(token),
        }
    }

    /// The socket of a client that was answered is kept no longer: what is left of the answer is still written.
    pub(crate) fn end_kept(&mut self, token: usize) {
        let Some(http) = self.connections.http(token) else { return };
        let unsent = match mem::replace(&mut http.stage, HttpStage::Request) {
            HttpStage::Responding(outbox) => Some(outbox),
            _ => None,
        };
        self.linger(token, unsent);
    }
}

/// What has been decrypted of a connection that is back, added to `bytes`; whether its peer has said by TLS that no more comes.
fn take_decrypted(tls: &mut rustls::ServerConnection, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut filled = bytes.len();
    loop {
        bytes.resize(filled + RECORD, 0);
        let ended = transport::take_plain(tls, bytes, &mut filled)?;
        if ended || filled < bytes.len() {
            bytes.truncate(filled);
            return Ok(ended);
        }
    }
}

/// Of the kept connections, one in so many is closed when room is to be made.
const IDLE_SHARES: usize = 16;

/// What a client is told whose connection is closed within its request, because too many are.
const KEPT_RETRY: Duration = Duration::from_secs(1);

/// Bytes of a buffer that is kept while it is empty.
const LARGEST_SPARE: usize = 4 << 10;
