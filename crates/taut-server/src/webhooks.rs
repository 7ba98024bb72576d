//! Webhooks: tells the addresses that an app names what happened, by `POST`.
//!
//! One task takes events from the [event bus](crate::events). A removal is held for three seconds in case it is undone.
//! Each event becomes one delivery per webhook that wants it, and the store keeps a delivery from before the first
//! attempt until it has succeeded or failed for good. So each arrives at least once, in no promised order. What waits
//! is bounded, in memory and in the file.
//!
//! Memory is the truth and the file its mirror: it is read only at the start. While the disk fails, the server goes on
//! as if there were no file, opens it again every five seconds, and then writes all that waits.

mod address;
mod dead_letters;
mod delivery;
mod payload;
mod queue;
mod state;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::apps::Apps;
use crate::events::{Entry, EventBus};
use crate::http::client::Client;
use crate::metric::counters;

pub(crate) use address::{check, is_reserved};
pub(crate) use dead_letters::DeadLetter;
pub(crate) use store::StoreError;

use queue::Bounds;
use state::State;
use store::Store;
use worker::Worker;

/// The webhooks of all apps while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks(Arc<Shared>);

/// A data directory that has been opened, and what an earlier run has left there.
#[derive(Debug)]
pub(crate) struct DataDirectory(Store, store::Contents);

impl DataDirectory {
    /// Opens it for a server; no other server can until this is dropped.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        Store::open(directory).map(|(store, contents)| Self(store, contents))
    }

    /// Whether it could be opened, without a trace; gives what to know about it.
    pub(crate) fn probe(directory: &Path) -> Result<Option<String>, StoreError> {
        Store::probe(directory)
    }
}

impl Webhooks {
    /// Starts to deliver what the event bus brings, and what an earlier run has left in the data directory. Without one all is in memory alone.
    pub(crate) fn start(
        runtime: &Handle,
        apps: &Arc<Apps>,
        events: EventBus,
        entries: mpsc::Receiver<Entry>,
        data: Option<DataDirectory>,
        client: Client,
    ) -> Self {
        let _within = runtime.enter();
        let clock = Clock::new();
        let mut state = State::new(BOUNDS, data.is_some());
        let store = data.map(|DataDirectory(store, contents)| {
            state.restore(contents, apps, clock.now());
            store
        });
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            clock,
            apps: Arc::clone(apps),
            events,
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            stop: Mutex::new(None),
            over: watch::Sender::new(false),
        });
        runtime.spawn(Worker { shared: Arc::clone(&shared), events: entries, store, client }.run());
        Self(shared)
    }

    /// What has failed for good of this app's, the newest first.
    pub(crate) fn dead_letters(&self, app: &str) -> Vec<DeadLetter> {
        self.0.state().dead_letters(app)
    }

    /// Sends what has failed for good once more, for five minutes from now and with the time of now; `false` if there is none with this id.
    pub(crate) fn retry(&self, app: &str, id: u64) -> bool {
        let Some(app) = self.0.apps.by_id(app) else { return false };
        let now = self.0.clock.now();
        let is_there = self.0.state().retry(&app, id, now, milliseconds(SystemTime::now()));
        self.0.wake.notify_one();
        is_there
    }

    /// How it goes.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = self.0.state().statistics();
        statistics.dropped += self.0.events.dropped();
        statistics
    }

    /// How long the oldest request that is not delivered has waited; `None` if none waits.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.0.state().oldest(self.0.clock.now())
    }

    /// Ends the deliveries: takes down what the event bus still has, sends all that is due, and returns when that is done or the deadline has passed.
    ///
    /// With a data directory, what waits (for the end of its grace, or for its next attempt) is left to the next run. Without one, nothing waits for
    /// its grace any more, and what fails is tried again until the deadline.
    ///
    /// # Cancel safety
    /// Dropped midway, the deliveries end all the same.
    pub(crate) async fn flush(&self, deadline: Duration) {
        let mut over = self.0.over.subscribe();
        self.0.stop(Instant::now() + deadline);
        // The sender lives as long as we do.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Waits until so many entries of the event bus are kept by the store, or need not be.
    #[cfg(test)]
    async fn recorded(&self, entries: u64) {
        let mut progress = self.0.progress.subscribe();
        let _ = progress.wait_for(|recorded| *recorded >= entries).await;
    }
}

counters! {
    /// How the webhooks go.
    pub(crate) struct Statistics {
        /// Webhook requests that are to be sent.
        queued: Gauge "taut_webhooks_waiting",
        /// Bytes that they take.
        queued_bytes: Gauge "taut_webhooks_waiting_bytes",
        /// Those of them that are under way.
        in_flight: Gauge "taut_webhooks_in_flight",
        /// Removals that may still be undone within their grace. Those of a cluster are counted apart.
        held_back: Gauge "taut_webhooks_held_back",
        /// Requests that failed for good and can be looked at.
        dead_letters: Gauge "taut_webhooks_dead_letters",
        /// 1 while what waits cannot be written to disk.
        store_failing: Gauge "taut_webhooks_store_failing",
        /// Events that were taken down for webhooks.
        recorded: Counter "taut_webhooks_recorded_total",
        /// Requests that were answered with success.
        delivered: Counter "taut_webhooks_delivered_total",
        /// Tries of requests that failed.
        failed_attempts: Counter "taut_webhooks_failed_total",
        /// Requests that were given up.
        dead: Counter "taut_webhooks_dead_total",
        /// Events that found no room, once for each webhook.
        dropped: Counter "taut_webhooks_dropped_total",
        /// Times that the disk began to fail, until it was written again.
        store_errors: Counter "taut_webhooks_store_errors_total",
    }
}

/// What the task and those who ask about it have in common.
#[derive(Debug)]
struct Shared {
    /// Nobody waits while holding it.
    state: Mutex<State>,
    clock: Clock,
    apps: Arc<Apps>,
    events: EventBus,
    wake: Notify,
    /// Entries taken down.
    progress: watch::Sender<u64>,
    stop: Mutex<Option<Instant>>,
    over: watch::Sender<bool>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells how many entries of the event bus are taken down.
    fn progress(&self, recorded: u64) {
        self.progress.send_if_modified(|before| std::mem::replace(before, recorded) != recorded);
    }

    fn stop(&self, deadline: Instant) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.state().stop(self.clock.now());
        self.wake.notify_one();
    }

    /// When all has to be over, if it has to.
    fn deadline(&self) -> Option<Instant> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to end. `is_busy`: something is under way that the state does not know of. That is asked last: before the end is called for,
    /// something may come at any moment.
    fn is_over(&self, is_busy: impl FnOnce() -> bool) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        Instant::now() >= deadline || (!is_busy() && self.state().is_settled(self.clock.now()))
    }

    fn ended(&self) {
        self.over.send_replace(true);
    }
}

/// Milliseconds since 1970, which never go back.
type Millis = u64;

/// The system's clock as it was at the start, and the time since.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    at: Millis,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), at: milliseconds(SystemTime::now()) }
    }

    fn now(&self) -> Millis {
        self.at + self.start.elapsed().as_millis() as Millis
    }

    fn instant(&self, time: Millis) -> Instant {
        // A millisecond later, since the time has been rounded down.
        self.start + duration(time.saturating_sub(self.at).saturating_add(1).min(FAR))
    }
}

fn milliseconds(time: SystemTime) -> Millis {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as Millis
}

fn system_time(time: Millis) -> SystemTime {
    SystemTime::UNIX_EPOCH + duration(time)
}

fn duration(time: Millis) -> Duration {
    Duration::from_millis(time)
}

/// A year.
const FAR: Millis = 365 * 24 * 60 * 60 * 1000;

/// What may wait: with a file, that is also about its size.
const BOUNDS: Bounds = Bounds { entries: 100_000, bytes: 128 << 20 };
