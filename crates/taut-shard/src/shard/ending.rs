//! How a connection ends: by the protocol, by its socket, or by time.

use std::{io, mem};

use taut_proto::{Outbox, TeardownStep, Time};

use super::Shard;
use crate::conn::{Conn, HttpStage, Lingering, Open, Stage};
use crate::deadlines::Deadlines;
use crate::handler::{Closed, Handler, Reason};
use crate::id::ConnectionId;
use crate::outboxes::Outboxes;
use crate::socket::Kernel;
use crate::transport::Transport;

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// The peer has nothing more to say.
    pub(crate) fn handle_end(&mut self, token: usize) {
        match self.connections.conn(token).map(|conn| &mut conn.stage) {
            // What came before is to be delivered first.
            Some(Stage::Open(Open { paused: Some(paused), .. })) => paused.has_ended = true,
            Some(Stage::Open(_)) => {
                self.flush(token);
                self.drop_connection(token, Reason::Ended);
            }
            // Whoever has asked is still to be answered, and may have asked for more than that.
            Some(Stage::Http(http)) if matches!(http.stage, HttpStage::Responding(_)) => {}
            Some(Stage::Http(_)) => self.shut(token),
            // What is left is still written: the peer may read, though it sends no more.
            Some(Stage::Lingering(lingering)) => {
                lingering.teardown.ended();
                self.tear_down(token);
            }
            None => {}
        }
    }

    /// The peer has nothing more to say, nor waits for the answer to its request: what it has said is not read.
    pub(crate) fn handle_unread_end(&mut self, token: usize) {
        if let Some(conn) = self.connections.conn(token)
            && matches!(conn.stage, Stage::Http(_))
            && conn.allowance(&self.settings.head) == 0
        {
            self.handle_end(token);
        }
    }

    /// The socket has failed.
    pub(crate) fn fail(&mut self, token: usize, error: io::Error) {
        match self.connections.conn(token).map(|conn| &conn.stage) {
            Some(Stage::Open(_)) => self.drop_connection(token, Reason::Failed(error)),
            Some(_) => drop(self.connections.remove(token)),
            None => {}
        }
    }

    /// Lets go of a socket. Its end is told by TLS too, if it takes that at once.
    pub(crate) fn shut(&mut self, token: usize) {
        if let Some(mut conn) = self.connections.remove(token) {
            let _ = conn.transport.shutdown();
        }
    }

    /// The connection has ended, by the protocol: what is in its outbox is still written.
    pub(crate) fn finish(&mut self, token: usize, reason: Reason) {
        let Some(id) = self.connections.id_at(token) else { return };
        let outbox = self.connections.get_mut(id).and_then(|open| open.outbox.take());
        if let Some(Stage::Open(open)) = self.linger(token, outbox) {
            self.tell_closed(id, open, reason);
        }
    }

    /// The connection has ended, and nothing more can be said.
    pub(crate) fn drop_connection(&mut self, token: usize, reason: Reason) {
        // It may have been dropped on the way here: by a last write that failed, or as a slow reader.
        let Some(id) = self.connections.id_at(token) else { return };
        if let Some(Conn { stage: Stage::Open(open), .. }) = self.connections.remove(token) {
            self.tell_closed(id, open, reason);
        }
    }

    fn tell_closed(&mut self, id: ConnectionId, open: Open<H::User>, reason: Reason) {
        self.handler.closed(&mut self.connections, Closed { id, user: open.user, reason });
    }

    /// Writes what is left, then ends our side and waits for the peer's end; gives the stage before.
    pub(crate) fn linger(&mut self, token: usize, outbox: Option<Box<Outbox>>) -> Option<Stage<H::User>> {
        let deadline = self.connections.now + self.settings.protocol.close_timeout;
        let former = self.connections.enter(token, Stage::Lingering(Lingering::new(deadline, outbox)));
        self.set_deadline(token, deadline);
        self.flush(token);
        former
    }

    /// Ends the TCP connection, as its [`Teardown`](taut_proto::Teardown) says.
    pub(crate) fn tear_down(&mut self, token: usize) {
        let Some((conn, outboxes)) = self.connections.conn_and_outboxes(token) else { return };
        let Stage::Lingering(Lingering { teardown, outbox }) = &mut conn.stage else { return };
        loop {
            let done = match teardown.step() {
                TeardownStep::Write => write_rest(&mut conn.transport, outbox, outboxes).inspect(|done| {
                    if *done {
                        teardown.wrote();
                    }
                }),
                TeardownStep::Shut => conn.transport.shutdown().inspect(|done| {
                    if *done {
                        teardown.shut();
                    }
                }),
                TeardownStep::Read => return,
                TeardownStep::Reset | TeardownStep::Done => break,
            };
            match done {
                Ok(true) => {}
                // The socket says when it has room.
                Ok(false) => return,
                Err(_) => break,
            }
        }
        self.connections.remove(token);
    }

    // Time.

    /// Sets a socket's deadline by what its connection says.
    pub(crate) fn schedule(&mut self, token: usize) {
        if let Some(Stage::Open(open)) = self.connections.conn(token).map(|conn| &conn.stage)
            && let Some(deadline) = open.connection.deadline()
        {
            self.set_deadline(token, deadline);
        }
    }

    pub(crate) fn set_deadline(&mut self, token: usize, at: Time) {
        let Some(conn) = self.connections.conn(token) else { return };
        // One entry a socket: a later deadline is found when the earlier entry comes up.
        let tick = Deadlines::tick_of(at);
        if conn.due == 0 || tick < conn.due {
            conn.due = self.deadlines.set(at, token);
        }
    }

    /// A socket's entry in the wheel has come up.
    pub(crate) fn handle_deadline(&mut self, token: usize, is_crowded: bool) {
        let now = self.connections.now;
        match self.connections.conn(token).map(|conn| &mut conn.stage) {
            Some(Stage::Http(http)) if now < http.deadline => self.handle_slow_request(token, is_crowded),
            Some(Stage::Http(_)) => self.handle_late_request(token),
            Some(Stage::Lingering(lingering)) => {
                lingering.teardown.handle_deadline(now);
                let deadline = lingering.teardown.deadline();
                self.tear_down(token);
                self.set_deadline(token, deadline);
            }
            Some(Stage::Open(_)) => self.handle_open_deadline(token),
            None => {}
        }
    }

    fn handle_open_deadline(&mut self, token: usize) {
        let now = self.connections.now;
        let Some(Stage::Open(open)) = self.connections.conn(token).map(|conn| &conn.stage) else { return };
        // What cannot be seen is not missed: it is scheduled again when it is resumed.
        if open.paused.is_some() && open.connection.is_open() {
            return;
        }
        if open.is_backed_up() {
            // The sign of life may be among what was not read, as it reads slowly.
            self.read_backed_up(token);
        }
        let Some(id) = self.connections.id_at(token) else { return };
        if let Some(open) = self.connections.get_mut(id)
            && mem::take(&mut open.progressed)
        {
            // It reads, however slowly: a ping behind a long message has not reached it yet.
            open.connection.note_reading(now);
        }
        self.connections.begin_reading(id);
        let timeout =
            self.connections.act(id, |connection, scratch, outbox| connection.handle_deadline(now, scratch, outbox));
        match timeout {
            Some(Some(timeout)) => self.finish(token, Reason::TimedOut(timeout)),
            _ => self.schedule(token),
        }
        self.connections.has_read(id);
    }
}

/// Writes what a connection has left; whether nothing is.
fn write_rest(
    transport: &mut Transport,
    outbox: &mut Option<Box<Outbox>>,
    outboxes: &mut Outboxes,
) -> io::Result<bool> {
    let Some(mut rest) = outbox.take() else { return Ok(true) };
    let is_written = transport.write(&mut rest)?;
    if is_written {
        outboxes.give(rest);
    } else {
        *outbox = Some(rest);
    }
    Ok(is_written)
}
