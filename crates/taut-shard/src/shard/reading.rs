//! Reading one socket: bytes in, messages to the handler.

use std::mem;

use taut_proto::{Close, CloseCode, Event, Input, Message, TeardownStep, Violation};

use super::Shard;
use crate::conn::{Conn, HttpStage, Paused, Stage};
use crate::connections::{Idle, Unfinished};
use crate::handler::{Handler, Reason, Session};
use crate::id::ConnectionId;
use crate::socket::Kernel;
use crate::tls;
use crate::transport;

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Reads what a socket has, up to its share of a tick.
    pub(crate) fn read(&mut self, token: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        self.read_into(token, &mut buffer);
        self.buffer = buffer;
    }

    fn read_into(&mut self, token: usize, buffer: &mut [u8]) {
        for _ in 0..READS {
            if !self.read_once(token, buffer) {
                return;
            }
        }
        self.read_again(token);
    }

    /// Reads a connection once whose peer does not read.
    pub(crate) fn read_backed_up(&mut self, token: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        self.read_upto(token, &mut buffer, usize::MAX);
        self.buffer = buffer;
    }

    /// One read and what comes of it; whether there may be another.
    fn read_once(&mut self, token: usize, buffer: &mut [u8]) -> bool {
        let Some(conn) = self.connections.conn(token) else { return false };
        // When there is none, it is read on once it is resumed, the peer has read, or its request is answered.
        let most = conn.allowance(&self.settings.head);
        self.read_upto(token, buffer, most)
    }

    fn read_upto(&mut self, token: usize, buffer: &mut [u8], most: usize) -> bool {
        let Some(conn) = self.connections.conn(token) else { return false };
        let most = most.min(buffer.len());
        if most == 0 || !conn.transport.readable {
            return false;
        }
        if let Some(id) = conn.receiving(token)
            && self.read_message(id)
        {
            return false;
        }
        let Some(conn) = self.connections.conn(token) else { return false };
        match conn.transport.read(&mut buffer[..most]) {
            Ok(None) => return false,
            Ok(Some(0)) => {
                match &conn.stage {
                    Stage::Http(http) if http.exchange.is_awaiting_content() => self.hand_over_unfinished(token),
                    _ => self.handle_end(token),
                }
                return false;
            }
            Ok(Some(count)) => self.received(token, &mut buffer[..count]),
            Err(error) => {
                self.fail(token, error);
                return false;
            }
        }
        self.flush(token);
        true
    }

    /// Reads to where a large message lies that has begun, so that the kernel copies its bytes there and nobody copies
    /// them again; false when they do not belong there, and nothing was read.
    fn read_message(&mut self, id: ConnectionId) -> bool {
        let now = self.connections.now;
        let token = id.token();
        self.connections.begin_reading(id);
        let read = self.connections.conn(token).and_then(Conn::read_message);
        let Some(read) = read else {
            self.connections.has_read(id);
            return false;
        };
        if let Ok(Some(count @ 1..)) = read
            && let Ok((connection, scratch, outbox)) = self.connections.receiver(id)
        {
            let event = connection.received_into(count, now, scratch, outbox);
            let is_open = connection.is_open();
            match event {
                Ok(Some(Event::Message(message))) => self.handle_message(id, message, is_open),
                event => drop(self.handle_event(id, event)),
            }
        }
        self.account(id);
        match read {
            Ok(None) => {}
            Ok(Some(0)) => self.handle_end(token),
            Ok(Some(_)) => {
                self.flush(token);
                // It may have been as much as many reads: the others have their turn.
                self.read_again(token);
            }
            Err(error) => self.fail(token, error),
        }
        true
    }

    /// In the next tick, after the others had their turn.
    pub(crate) fn read_again(&mut self, token: usize) {
        if self.connections.conn(token).is_some_and(Conn::enqueue) {
            self.read_ready.push(token);
        }
    }

    /// Bytes have come on a socket.
    pub(crate) fn received(&mut self, token: usize, bytes: &mut [u8]) {
        let Some(conn) = self.connections.conn(token) else { return };
        match (&conn.stage, &mut conn.transport.tls) {
            (Stage::Open(open), None) => {
                let id = open.id(token);
                self.messages(id, bytes);
            }
            // After our end nothing counts but the peer's.
            (Stage::Lingering(lingering), _) if lingering.teardown.step() == TeardownStep::Read => {}
            (Stage::Http(http), _) if matches!(http.stage, HttpStage::ProxyHeader(_)) => {
                self.proxy_header(token, bytes);
            }
            (_, None) => self.plaintext(token, bytes),
            (_, Some(tls)) => {
                let mut plain = mem::take(&mut self.plain);
                match transport::decrypt(tls, bytes, &mut plain) {
                    Ok((count, ended)) => {
                        self.plaintext(token, &mut plain[..count]);
                        if ended {
                            self.handle_end(token);
                        }
                    }
                    Err(error) => {
                        // The alert that says what was wrong, if the socket takes it.
                        let _ = conn.transport.write_tls();
                        self.fail(token, error);
                    }
                }
                self.plain = plain;
            }
        }
    }

    pub(crate) fn plaintext(&mut self, token: usize, bytes: &mut [u8]) {
        let Some(conn) = self.connections.conn(token) else { return };
        match &conn.stage {
            // RFC 8737 §3: nothing follows the handshake by which an authority asks.
            Stage::Http(_) if conn.transport.tls.as_deref().is_some_and(tls::has_answered_challenge) => {
                self.linger(token, None);
            }
            Stage::Http(_) => self.request_bytes(token, bytes),
            Stage::Open(open) => {
                let id = open.id(token);
                self.messages(id, bytes);
            }
            Stage::Lingering(_) => {}
        }
    }

    /// Bytes of frames have come. The caller flushes the replies.
    pub(crate) fn messages(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        self.connections.begin_reading(id);
        self.messages_in(id, bytes);
        self.account(id);
    }

    /// Takes into account what a read has left of a message.
    fn account(&mut self, id: ConnectionId) {
        match self.connections.has_read(id) {
            Unfinished::None => {}
            // It has a deadline now, which may be sooner than what the wheel holds.
            Unfinished::Some => self.schedule(id.token()),
            Unfinished::TooMuch => self.shed(id),
        }
    }

    fn messages_in(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let now = self.connections.now;
        let count = bytes.len();
        let mut input = Input::new(bytes);
        loop {
            let (connection, scratch, outbox) = match self.connections.receiver(id) {
                Ok(receiver) => receiver,
                Err(Idle::Paused) => {
                    let used = count - input.len();
                    return self.connections.hold(id, &bytes[used..]);
                }
                Err(Idle::Gone) => return,
            };
            let event = connection.receive(&mut input, now, scratch, outbox);
            let is_open = connection.is_open();
            match event {
                Ok(None) => return,
                Ok(Some(Event::Message(message))) => self.handle_message(id, message, is_open),
                event => {
                    if !self.handle_event(id, event) {
                        return;
                    }
                }
            }
        }
    }

    #[inline]
    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, is_open: bool) {
        self.connections.stats.messages += 1;
        // After our close frame the handler has nothing more to hear.
        if is_open {
            self.handler.message(&mut Session::new(id, &mut self.connections), message);
        }
        self.flush_above_high_water();
    }

    /// Does what anything but a message leads to; whether more may come.
    fn handle_event(&mut self, id: ConnectionId, event: Result<Option<Event<'_>>, Violation>) -> bool {
        let reason = match event {
            Ok(Some(Event::Close(close))) => {
                let was_cut_off = self.connections.get_mut(id).is_some_and(|open| open.connection.was_cut_off());
                if was_cut_off { Reason::CutOff(close) } else { Reason::Closed(close) }
            }
            Ok(_) => return true,
            Err(violation) => {
                self.connections.stats.violations += 1;
                Reason::Violated(violation)
            }
        };
        self.finish(id.token(), reason);
        false
    }

    /// Goes on with connections whose pause is over.
    pub(crate) fn handle_resumed(&mut self) {
        // Those that are resumed on the way have their turn in the next tick, at once.
        for id in mem::take(&mut self.connections.resumed) {
            let now = self.connections.now;
            let Some(open) = self.connections.get_mut(id) else { continue };
            // It may have been paused again.
            let Some(paused) = open.paused.take_if(|paused| paused.is_over) else { continue };
            open.connection.note_reading(now);
            let Paused { mut held, has_ended, .. } = *paused;
            self.messages(id, &mut held);
            if has_ended {
                self.handle_end(id.token());
            }
            // At once: a message that has begun would else be late before its rest, which is here, is read.
            self.read(id.token());
            self.flush(id.token());
            self.schedule(id.token());
            self.flush_above_high_water();
        }
    }

    /// There is no room for so much of an unfinished message.
    fn shed(&mut self, id: ConnectionId) {
        self.connections.stats.overloaded += 1;
        let close = Close::new(CloseCode::TRY_AGAIN_LATER, "too many unfinished messages");
        self.connections.begin_reading(id);
        self.connections.act(id, |connection, scratch, outbox| connection.fail(&close, scratch, outbox));
        self.finish(id.token(), Reason::Overloaded);
        self.connections.has_read(id);
    }
}

/// Reads of one socket in one tick, before the others have their turn.
const READS: usize = 4;
