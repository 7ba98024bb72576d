//! Writing to sockets what connections have to write.

use super::Shard;
use crate::conn::Stage;
use crate::handler::{Handler, Reason};
use crate::socket::Kernel;

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Writes to those that were sent something, but not to all of them at once when they are many: what comes for
    /// them meanwhile goes into the same writes, and neither a handshake nor a pong waits for ten thousand writes.
    pub(crate) fn flush_dirty(&mut self) {
        let share = (self.connections.dirty() / SHARES).max(FLUSHES);
        for _ in 0..share {
            let Some(id) = self.connections.pop_dirty() else { return };
            self.flush(id.token());
        }
    }

    /// Writes to those for whom much has gathered, so that it does not count against them as if they were slow:
    /// their sockets have not been asked.
    pub(crate) fn flush_above_high_water(&mut self) {
        while let Some(id) = self.connections.pop_above_high_water() {
            self.flush(id.token());
        }
    }

    /// Writes what a connection has to write.
    pub(crate) fn flush(&mut self, token: usize) {
        let Some((conn, outboxes)) = self.connections.conn_and_outboxes(token) else { return };
        let open = match &mut conn.stage {
            Stage::Open(open) => open,
            Stage::Http(_) => return self.flush_http(token),
            Stage::Lingering(_) => return self.tear_down(token),
        };
        open.dirty = false;
        if open.slow {
            return self.drop_connection(token, Reason::Slow);
        }
        let Some(mut outbox) = open.outbox.take() else {
            if let Err(error) = conn.transport.write_tls() {
                self.drop_connection(token, Reason::Failed(error));
            }
            return;
        };
        let is_closing = !open.connection.is_open();
        let waiting = outbox.len();
        let mut written = None;
        match conn.transport.write(&mut outbox) {
            Ok(true) => {
                open.full = false;
                outboxes.give(outbox);
                written = std::mem::take(&mut open.tells_written).then(|| open.id(token));
            }
            Ok(false) => {
                open.progressed |= open.full && outbox.len() < waiting;
                open.full = true;
                open.outbox = Some(outbox);
            }
            Err(error) => return self.drop_connection(token, Reason::Failed(error)),
        }
        // It may have been left unread while it did not read.
        if open.is_readable() && conn.enqueue() {
            self.read_ready.push(token);
        }
        self.connections.written.extend(written);
        if is_closing {
            self.schedule(token);
        }
    }

    /// Tells the handler of connections whose sockets have taken everything.
    pub(crate) fn handle_written(&mut self) {
        // What is written on the way is told in the next tick.
        for id in std::mem::take(&mut self.connections.written) {
            if self.connections.get_mut(id).is_some() {
                self.handler.written(&mut self.connections, id);
                self.flush_above_high_water();
            }
        }
    }

    fn flush_http(&mut self, token: usize) {
        let Some(conn) = self.connections.conn(token) else { return };
        if let Err(error) = conn.transport.write_tls() {
            return self.fail(token, error);
        }
        self.flush_response(token);
        self.advance(token);
    }
}

/// Connections written in one tick, if so many were sent something.
const FLUSHES: usize = 64;

/// In how many ticks, at the least, a message that went to more is written. Each may bring news that is written along;
/// with more of them whoever is written last would wait for too much of it.
const SHARES: usize = 4;
