//! Stopping a shard so that its clients know it, and do not all come back in one instant.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use taut_proto::handshake::Refusal;
use taut_proto::{Close, Time};

use super::Shard;
use crate::conn::HttpStage;
use crate::handler::{Handler, Reason};
use crate::id::ConnectionId;
use crate::socket::Kernel;

/// How a shard is to stop.
#[derive(Clone, Debug)]
pub struct Drain {
    /// What the clients are told.
    pub close: Close,
    /// Over how long the closes are spread, so that the clients do not all come back in one instant. The first close
    /// comes up to 250 ms after the shard has stopped listening: clients that have just connected may still send their
    /// requests.
    pub over: Duration,
    /// When to stop at the latest, closes answered or not. Counted from the end of listening.
    pub deadline: Duration,
}

/// Stops a shard, from any thread.
#[derive(Clone)]
pub struct Drainer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl Drainer {
    /// Makes the shard stop accepting, close its connections and return from [`Shard::run`]. Only the first call
    /// counts. Shards that send each other mail are drained by a [`DrainGroup`].
    pub fn drain(&self, drain: Drain) {
        let _ = self.shared.drain.set(drain);
        (self.wake)();
    }
}

/// Drains shards that send each other mail, in phases: none of them ends while another may still have mail for it.
///
/// 1. [`close`](Self::close): every shard stops accepting and closes its connections. Mail is handled as before.
/// 2. [`wait_closed`](Self::wait_closed): the last connection of every shard has ended.
/// 3. [`settle`](Self::settle): the mail that this has caused, and the mail caused by that mail, is handled.
/// 4. [`end`](Self::end): the shards return from [`Shard::run`]. Dropping the group does the same.
pub struct DrainGroup {
    drainers: Vec<Drainer>,
    /// The number of the current round of questions; see [`Self::try_settle`].
    round: u64,
}

impl DrainGroup {
    /// A group of shards that end together. The calls that wait are for the thread that makes the group.
    pub fn new(drainers: impl IntoIterator<Item = Drainer>) -> Self {
        let drainers: Vec<Drainer> = drainers.into_iter().collect();
        for drainer in &drainers {
            let _ = drainer.shared.waiter.set(thread::current());
        }
        Self { drainers, round: 0 }
    }

    /// Makes every shard stop accepting and close its connections, as `drain` says. A shard that is being drained
    /// already goes on with that drain.
    pub fn close(&self, drain: &Drain) {
        for drainer in &self.drainers {
            drainer.shared.waits_for_end.store(true, Ordering::SeqCst);
            drainer.drain(drain.clone());
        }
    }

    /// Whether no shard has a connection.
    pub fn is_closed(&self) -> bool {
        let mut shards = self.drainers.iter().map(|drainer| &drainer.shared);
        shards.all(|shared| shared.is_closed.load(Ordering::SeqCst) || shared.is_gone())
    }

    /// Waits until no shard has a connection. That is at the [deadline](Drain::deadline) at the latest, when each
    /// shard drops those that are left.
    pub fn wait_closed(&self) {
        while !self.is_closed() {
            thread::park_timeout(LONGEST_PARK);
        }
    }

    /// Waits until no mail is under way between the shards, for `most` at the longest; `false` if there may still be
    /// some then. To be called after [`wait_closed`](Self::wait_closed). Mail from other threads that was sent before the
    /// call is handled as well; what is sent meanwhile does not end the wait, but may prolong it.
    pub fn settle(&mut self, most: Duration) -> bool {
        let until = Instant::now() + most;
        // What was answered before this call says nothing of mail that was sent since.
        self.ask();
        while !self.try_settle() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left.min(LONGEST_PARK));
        }
        true
    }

    /// The same without waiting: whether no mail is under way. While this is `false`, the shards are to have ticks, and
    /// it is to be asked again.
    ///
    /// In each round every shard is asked whether it has handled mail since the round before. It answers once its
    /// mailbox is empty. If none has, the shards are quiet: mail that was sent before the round began was handled
    /// before its receiver answered, so that it would show, and a shard without connections sends mail only while it
    /// handles some.
    pub fn try_settle(&mut self) -> bool {
        let here = || self.drainers.iter().map(|drainer| &drainer.shared).filter(|shared| !shared.is_gone());
        if self.round > 0 {
            if here().any(|shared| shared.answered.load(Ordering::SeqCst) < self.round) {
                return false;
            }
            if here().all(|shared| shared.was_quiet.load(Ordering::SeqCst)) {
                return true;
            }
        }
        self.ask();
        false
    }

    /// Begins a round.
    fn ask(&mut self) {
        self.round += 1;
        for drainer in &self.drainers {
            drainer.shared.asked.store(self.round, Ordering::SeqCst);
            (drainer.wake)();
        }
    }

    /// Lets the shards return from [`Shard::run`], as soon as they have no connections.
    pub fn end(&self) {
        for drainer in &self.drainers {
            drainer.shared.waits_for_end.store(false, Ordering::SeqCst);
            (drainer.wake)();
        }
    }
}

impl Drop for DrainGroup {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for DrainGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DrainGroup").field("shards", &self.drainers.len()).finish_non_exhaustive()
    }
}

/// What a shard and those who drain it have in common. The shard looks at it only while it drains.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) drain: OnceLock<Drain>,
    /// The shard stays after its last connection, for the mail of others.
    waits_for_end: AtomicBool,
    is_closed: AtomicBool,
    /// The shard has ended, whyever.
    is_gone: AtomicBool,
    /// The last round of questions, and the last that the shard has answered.
    asked: AtomicU64,
    answered: AtomicU64,
    was_quiet: AtomicBool,
    /// Who waits for any of this to change.
    waiter: OnceLock<Thread>,
}

impl Shared {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    /// For the shard that ends.
    pub(crate) fn gone(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        self.changed();
    }

    fn changed(&self) {
        if let Some(waiter) = self.waiter.get() {
            waiter.unpark();
        }
    }
}

/// A drain under way.
pub(crate) struct Draining {
    drain: Drain,
    listening_ended: Time,
    /// When the first connection was closed.
    closing_began: Time,
    /// Connections that have not been told yet.
    waiting: Vec<ConnectionId>,
    total: usize,
    /// Mail was handled since the last question of a [`DrainGroup`].
    has_handled_mail: bool,
}

impl Draining {
    /// Some mail was handled.
    pub(crate) fn handled_mail(&mut self) {
        self.has_handled_mail = true;
    }
}

impl<H: Handler, K: Kernel> Shard<H, K> {
    /// Takes the next step of a drain that was asked for.
    pub(crate) fn continue_draining(&mut self) {
        if self.draining.is_none() {
            let Some(drain) = self.drain.drain.get() else { return };
            let drain = drain.clone();
            let listening_ended = self.stop_listening();
            let closing_began = self.connections.now;
            if closing_began - listening_ended < LAST_CALL.min(drain.deadline) && self.has_newcomers() {
                return;
            }
            self.intake.close();
            self.end_handshakes();
            let waiting: Vec<ConnectionId> = self.connections.ids().collect();
            let total = waiting.len();
            self.draining =
                Some(Draining { drain, listening_ended, closing_began, waiting, total, has_handled_mail: true });
        }
        let Some(draining) = &mut self.draining else { return };
        let passed = self.connections.now - draining.closing_began;
        let (over, total) = (draining.drain.over.as_micros(), draining.total as u128);
        let share = (total * passed.as_micros()).checked_div(over).map_or(total, |share| share.min(total));
        // At least one, so that the first are not kept waiting for a share that rounds to none.
        let due = (share as usize).max(1);
        while draining.total - draining.waiting.len() < due {
            let Some(id) = draining.waiting.pop() else { break };
            let close = self.handler.draining(&mut self.connections, id, &draining.drain.close);
            self.connections.close(id, close);
        }
        if self.connections.now - draining.listening_ended >= draining.drain.deadline {
            for id in self.connections.ids().collect::<Vec<_>>() {
                self.drop_connection(id.token(), Reason::Stopped);
            }
            self.connections.clear();
        }
        self.answer_drain_group();
    }

    /// Stops listening, if it has not stopped yet; returns when it did.
    fn stop_listening(&mut self) -> Time {
        let now = self.connections.now;
        *self.listening_ended.get_or_insert_with(|| {
            self.kernel.stop_listening();
            self.accepting = false;
            now
        })
    }

    /// Whether there are clients that were accepted just now, and whose request may be on its way. They are served for a
    /// moment longer: a socket that is closed before its request is read is reset, which looks as if nobody were there.
    fn has_newcomers(&self) -> bool {
        let accepted_by = self.connections.now + self.settings.handshake_timeout;
        self.connections.http_conns().any(|(_, http)| {
            let is_silent = http.is_idle() || matches!(http.stage, HttpStage::ProxyHeader(_));
            is_silent && !http.is_kept && http.deadline + NEWCOMER > accepted_by
        })
    }

    /// Tells a [`DrainGroup`] that the last connection has ended, and whether mail was handled since it last asked.
    fn answer_drain_group(&mut self) {
        let Some(draining) = self.draining.as_mut().filter(|_| self.connections.sockets() == 0) else { return };
        let shared = &self.drain;
        let asked = shared.asked.load(Ordering::SeqCst);
        // Looked at after the question: mail that was sent before it is handled by now, or is still there.
        let is_answered = asked > shared.answered.load(Ordering::SeqCst) && self.mailbox.is_empty();
        if is_answered {
            shared.was_quiet.store(!std::mem::take(&mut draining.has_handled_mail), Ordering::SeqCst);
            shared.answered.store(asked, Ordering::SeqCst);
        }
        if !shared.is_closed.swap(true, Ordering::SeqCst) || is_answered {
            shared.changed();
        }
    }

    /// A client that has begun to speak is told to come back; one that has not, as a browser's connection in reserve,
    /// has nothing to be told, and would be waited for until its deadline. One that has not read its last answer may.
    fn end_handshakes(&mut self) {
        for token in self.connections.http_conns().map(|(token, _)| token).collect::<Vec<_>>() {
            let Some(http) = self.connections.http(token) else { continue };
            match http.stage {
                HttpStage::Responding(_) => self.end_kept(token),
                HttpStage::Request | HttpStage::Deciding(_) if !http.is_idle() => {
                    self.refuse(token, &Refusal::busy(DRAINING_RETRY));
                }
                _ => drop(self.connections.remove(token)),
            }
        }
    }

    /// Whether the drain is complete.
    pub(crate) fn is_drained(&self) -> bool {
        let drained = self.draining.is_some()
            && self.connections.sockets() == 0
            && !self.drain.waits_for_end.load(Ordering::SeqCst);
        if drained {
            self.mailbox.close();
        }
        drained
    }
}

/// How finely the closes are spread.
pub(crate) const DRAIN_STEP: Duration = Duration::from_millis(10);

/// How long a drain waits for the first words of those who came just before it. With TLS they take two round trips.
const LAST_CALL: Duration = Duration::from_millis(250);

/// How recently they must have connected. A connection silent for longer is a spare one.
const NEWCOMER: Duration = Duration::from_millis(500);

/// What a client that comes while we go is told.
pub(crate) const DRAINING_RETRY: Duration = Duration::from_secs(1);

/// How long somebody who waits for a shard sleeps at a time, should nobody wake him.
const LONGEST_PARK: Duration = Duration::from_millis(100);
