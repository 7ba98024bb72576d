//! One thread's loop: wait, read, act, deliver, write.

mod accept;
#[cfg(feature = "testing")]
mod census;
mod drain;
mod ending;
mod handshake;
mod keep_alive;
mod reading;
mod writing;

use std::io;
use std::mem;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Scratch, Time};

use crate::connections::{Connections, Stats};
use crate::deadlines::Deadlines;
use crate::handler::Handler;
use crate::intake::Intake;
use crate::mailbox::Mailbox;
use crate::pipe::{Readiness, ShardPipe};
use crate::settings::Settings;
use crate::socket::{Kernel, Ready, System};
use crate::transport::RECORD;
use accept::ACCEPT;
#[cfg(feature = "testing")]
pub use census::Census;
use drain::{DRAIN_STEP, Draining};
pub use drain::{Drain, DrainGroup, Drainer};

/// Many connections on one thread.
///
/// A tick: wait for the kernel; read each socket and then each pipe that has bytes, hand its messages to the handler and
/// write the replies at once, in one write; take the mail; act on the handler's answers to handshakes; go on with
/// connections that it has resumed; tell it which sockets have taken everything; handle deadlines; take in sockets,
/// those that other threads hand in before those of the listener; continue a drain; then write, once each, connections
/// that were sent something on the way: of a crowd a share.
pub struct Shard<H: Handler, K: Kernel = System> {
    pub(crate) kernel: K,
    pub(crate) handler: H,
    pub(crate) settings: Arc<Settings>,
    pub(crate) connections: Connections<H::User>,
    pub(crate) deadlines: Deadlines,
    pub(crate) mailbox: Mailbox<H::Mail>,
    pub(crate) intake: Intake<K::Stream>,
    /// Tokens of pipes that have something to do.
    pub(crate) pipes: Mailbox<usize>,
    pub(crate) drain: Arc<drain::Shared>,
    pub(crate) draining: Option<Draining>,
    /// When listening ended; a drain begins with that.
    pub(crate) listening_ended: Option<Time>,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) plain: Box<[u8]>,
    /// Where answers to requests are written.
    pub(crate) response: Vec<u8>,
    /// For the next request.
    pub(crate) recycled: Vec<u8>,
    /// Sockets that have more to read than one tick gives them.
    pub(crate) read_ready: Vec<usize>,
    /// The listener has more sockets, as far as is known.
    pub(crate) accepting: bool,
    /// Since when the system has had no descriptor for the socket that is next.
    pub(crate) accept_backoff: Option<Time>,
    ready: Vec<Ready>,
    expired: Vec<(usize, u64)>,
}

impl<H: Handler> Shard<H> {
    /// A shard on a bound listener; see [`listen`](crate::listen()) for several on one address.
    pub fn new(listener: TcpListener, handler: H, settings: Settings) -> io::Result<Self> {
        Ok(Self::on(System::new(listener)?, handler, settings))
    }
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// A shard on a kernel of one's own: a test's.
    pub fn on(kernel: K, handler: H, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let mailbox = Mailbox::new(MAILBOX, kernel.waker());
        let intake = Intake::new(kernel.waker());
        let pipes = Mailbox::new(usize::MAX, kernel.waker());
        let plain = if settings.tls.is_some() { settings.read_buffer + RECORD } else { 0 };
        Self {
            kernel,
            handler,
            // A server draws no mask keys.
            connections: Connections::new(Arc::clone(&settings), Scratch::new(|_| {})),
            deadlines: Deadlines::new(),
            mailbox,
            intake,
            pipes,
            drain: Arc::default(),
            draining: None,
            listening_ended: None,
            buffer: vec![0; settings.read_buffer].into(),
            plain: vec![0; plain].into(),
            response: Vec::new(),
            recycled: Vec::new(),
            read_ready: Vec::new(),
            accepting: true,
            accept_backoff: None,
            ready: Vec::new(),
            expired: Vec::new(),
            settings,
        }
    }

    /// Where other threads put mail for the handler.
    pub fn mailbox(&self) -> Mailbox<H::Mail> {
        self.mailbox.clone()
    }

    /// How other threads hand the shard sockets that are connected already.
    pub fn intake(&self) -> Intake<K::Stream> {
        self.intake.clone()
    }

    /// How other threads stop the shard.
    pub fn drainer(&self) -> Drainer {
        Drainer { shared: Arc::clone(&self.drain), wake: self.kernel.waker() }
    }

    /// The handler, between ticks.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// What the shard has counted.
    pub fn stats(&self) -> Stats {
        self.connections.stats()
    }

    /// Runs until it was drained.
    pub fn run(mut self) -> io::Result<()> {
        while self.tick()? {}
        Ok(())
    }

    /// One turn of the loop; whether there is to be another.
    pub fn tick(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        let mut ready = mem::take(&mut self.ready);
        self.kernel.wait(timeout, &mut ready)?;
        self.connections.now = self.kernel.now();
        for token in mem::take(&mut self.read_ready) {
            if let Some(conn) = self.connections.conn(token) {
                conn.dequeue();
                self.read(token);
            }
        }
        for ready in ready.drain(..) {
            match ready {
                Ready::Accept => self.accepting = true,
                Ready::Socket { token, readable, writable, ended } => self.ready(token, readable, writable, ended),
            }
            self.flush_above_high_water();
        }
        self.ready = ready;
        self.handle_pipes();
        self.handle_mail();
        self.handle_answers();
        self.handle_resumed();
        self.handle_written();
        self.handle_deadlines();
        self.adopt();
        self.accept();
        self.continue_draining();
        self.flush_dirty();
        self.connections.outboxes.trim(self.connections.now);
        Ok(!self.is_drained())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn watched(&self) -> &H {
        &self.handler
    }

    fn timeout(&mut self) -> Option<Duration> {
        let may_accept = (self.accepting || !self.intake.arrivals.is_empty()) && self.has_room();
        let connections = &self.connections;
        let has_work = connections.dirty() > 0
            || !connections.answers.is_empty()
            || !connections.resumed.is_empty()
            || !connections.written.is_empty();
        if !self.read_ready.is_empty()
            || may_accept
            || !self.intake.returns.is_empty()
            || !self.mailbox.is_empty()
            || !self.pipes.is_empty()
            || has_work
        {
            return Some(Duration::ZERO);
        }
        // By the time of the tick that is over: a deadline is not so exact that its length would count.
        let deadline = self.deadlines.until_next(self.connections.now);
        match self.listening_ended {
            Some(_) => Some(deadline.unwrap_or(DRAIN_STEP).min(DRAIN_STEP)),
            None => deadline,
        }
    }

    fn handle_pipes(&mut self) {
        self.pipes.rearm();
        for _ in 0..PIPES {
            let Some(token) = self.pipes.pop() else { return };
            // Another socket may be in its place by now.
            let pipe = self.connections.conn(token).and_then(|conn| conn.transport.socket.as_pipe());
            if let Some(Readiness { readable, writable, ended }) = pipe.map(ShardPipe::readiness) {
                self.ready(token, readable, writable, ended);
                self.flush_above_high_water();
            }
        }
    }

    fn ready(&mut self, token: usize, readable: bool, writable: bool, ended: bool) {
        let Some(conn) = self.connections.conn(token) else { return };
        conn.transport.readable |= readable || ended;
        conn.transport.ended |= ended;
        if writable {
            self.flush(token);
        }
        if readable || ended {
            self.read(token);
        }
        if ended {
            self.handle_unread_end(token);
        }
    }

    fn handle_deadlines(&mut self) {
        let mut expired = mem::take(&mut self.expired);
        self.deadlines.expire(self.connections.now, &mut expired);
        // Before the first makes room: how many wait is not known, and one place a tick would be too little.
        let is_crowded = self.is_crowded();
        for (token, tick) in expired.drain(..) {
            if token == ACCEPT {
                self.accepting = true;
            } else if let Some(conn) = self.connections.conn(token)
                && conn.due == tick
            {
                conn.due = 0;
                self.handle_deadline(token, is_crowded);
            }
        }
        self.expired = expired;
    }

    fn handle_mail(&mut self) {
        self.mailbox.rearm();
        // Not without end: sockets wait. What is left is taken in the next tick, at once.
        for _ in 0..MAILS {
            let Some(mail) = self.mailbox.pop() else { return };
            self.handler.mail(&mut self.connections, mail);
            self.flush_above_high_water();
            if let Some(draining) = &mut self.draining {
                draining.handled_mail();
            }
        }
    }
}

impl<H: Handler, K: Kernel> Drop for Shard<H, K> {
    /// Nobody is left who would read what comes from now on, whyever the shard has ended.
    fn drop(&mut self) {
        self.mailbox.close();
        self.intake.close();
        self.drain.gone();
    }
}

/// Bytes of mail that may wait: 16 MiB.
const MAILBOX: usize = 16 << 20;

/// Pipes that have their turn in one tick.
const PIPES: usize = 1024;

/// Letters read in one tick.
const MAILS: usize = 4096;
