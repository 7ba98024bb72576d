//! The cluster on Redis.
//!
//! One task drives it: it keeps this node's [`Part`], and speaks with the engine in sessions. A session is the life of one *incarnation*, under
//! which the node holds a lease and writes; it ends at the first doubt (a lost connection, an answer that does not come, a lease that may be over),
//! and the next one tells the engine everything again under another incarnation. So there is one way back, whatever has happened. Nobody notices:
//! what the new incarnation holds is there before what the old one held goes.

mod hazard;
mod names;
mod queue;
mod reply;
mod scripts;
mod session;
mod slots;
mod subscriber;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::RedisError;
use taut_proto::Backoff;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::sync::oneshot;
use tokio::time::sleep;

use self::hazard::Hazard;
use self::names::Partition;
use self::queue::{Carriage, Room};
use self::session::Session;
use self::topology::{InvalidUrl, Known, Topology};
use super::part::Part;
use super::{Broker, Owners, Phase, Question, State};
use crate::apps::{App, Apps, Granted};
use crate::hub::engine::{Epoch, Request, Standing};

/// How a node takes part in a cluster on Redis.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where Redis is: `redis://[USER:PASSWORD@]HOST[:PORT]`, with further `HOST[:PORT]` behind commas for a Redis Cluster, of which one is
    /// enough; `rediss://…` for TLS, `unix:///PATH`, or, for a master that sentinels know,
    /// `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER` and `rediss+sentinel://…`.
    pub(crate) url: String,
    /// The same as it may be shown, without user and password.
    pub(crate) address: String,
    /// What all keys and pub/sub channels begin with; `taut` by default. Two clusters on one Redis need two.
    pub(crate) prefix: String,
    /// What the node is called, for those who look at the cluster.
    pub(crate) name: String,
    /// How long a node that says nothing counts as alive; 10 s by default. All nodes of a cluster have the same.
    pub(crate) lease: Duration,
    /// How long Redis may take to answer, and to accept a connection; 1 s by default.
    pub(crate) response_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1".to_owned(),
            address: "redis://127.0.0.1".to_owned(),
            prefix: "taut".to_owned(),
            name: String::new(),
            lease: Duration::from_secs(10),
            response_timeout: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, address, prefix, name, lease, response_timeout } = self;
        formatter
            .debug_struct("Settings")
            .field("address", address)
            .field("prefix", prefix)
            .field("name", name)
            .field("lease", lease)
            .field("response_timeout", response_timeout)
            .finish_non_exhaustive()
    }
}

/// Whether a text is the address of a Redis: `redis://[USER:PASSWORD@]HOST[:PORT]`, with further `HOST[:PORT]` behind commas for a Redis
/// Cluster, `rediss://…` for TLS, `unix:///PATH`, or, for a master that sentinels know,
/// `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER` and `rediss+sentinel://…`.
pub(crate) fn check_url(url: &str) -> Result<(), InvalidUrl> {
    Topology::parse(url).map(drop)
}

/// Starts the driver on a runtime. It leaves the cluster and ends once the result is dropped.
///
/// A URL that is not understood is one where nobody can be reached: the log says why.
pub(crate) fn start(settings: Settings, apps: Arc<Apps>, owners: Arc<dyn Owners>, runtime: &Handle) -> Arc<dyn Broker> {
    let (requests, received) = mpsc::unbounded_channel();
    let status = Arc::new(Status::default());
    let node = Arc::new(Node {
        known: Known::default(),
        origin: random_name(),
        settings,
        apps,
        owners,
        status: Arc::clone(&status),
    });
    for app in node.apps.all() {
        // Who comes before the node has joined waits.
        app.grant(Some(0));
    }
    let driver = Driver { node, requests: received, memory: Memory::default() };
    runtime.spawn(driver.run());
    Arc::new(Redis { requests, status })
}

/// The driver as owners and the API see it.
#[derive(Debug)]
struct Redis {
    requests: mpsc::UnboundedSender<Message>,
    status: Arc<Status>,
}

/// To the driver.
#[derive(Debug)]
enum Message {
    Request {
        app: Arc<App>,
        request: Request,
        room: Option<Room>,
    },
    Question(Question),
    /// Clients of the app wait for places.
    Draw {
        app: Arc<App>,
    },
    /// The node leaves the cluster.
    Leave {
        done: oneshot::Sender<()>,
    },
}

impl Broker for Redis {
    fn send(&self, app: &Arc<App>, request: Request) {
        let mut room = None;
        if let Request::Publish { publication, receipt, .. } = &request {
            room = Room::take(&self.status.taken, publication.bytes() + OVERHEAD);
            if room.is_none() {
                if let Some(receipt) = receipt {
                    receipt.fail();
                }
                return;
            }
        }
        let sent = self.requests.send(Message::Request { app: Arc::clone(app), request, room });
        // The driver has ended: the node has left the cluster.
        if let Err(SendError(Message::Request { request: Request::Publish { receipt: Some(receipt), .. }, .. })) = sent
        {
            receipt.fail();
        }
    }

    fn ask(&self, question: Question) {
        let _ = self.requests.send(Message::Question(question));
    }

    fn draw(&self, app: &Arc<App>) {
        let _ = self.requests.send(Message::Draw { app: Arc::clone(app) });
    }

    fn state(&self) -> State {
        self.status.state()
    }

    fn leave(&self, done: oneshot::Sender<()>) {
        let _ = self.requests.send(Message::Leave { done });
    }
}

/// What is shown of the driver.
#[derive(Debug, Default)]
struct Status {
    phase: AtomicU8,
    losses: AtomicU64,
    waiting: AtomicUsize,
    /// Microseconds.
    lag: AtomicU64,
    /// Bytes of events that wait for the engine.
    taken: Arc<AtomicUsize>,
}

impl Status {
    fn state(&self) -> State {
        State {
            phase: PHASES[usize::from(self.phase.load(Ordering::Relaxed))],
            losses: self.losses.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            lag: Duration::from_micros(self.lag.load(Ordering::Relaxed)),
        }
    }

    fn phase(&self) -> Phase {
        self.state().phase
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// In the order of [`Phase`].
const PHASES: [Phase; 4] = [Phase::Starting, Phase::Joined, Phase::Away, Phase::Rejoining];

/// What stays the same for all sessions.
#[derive(Debug)]
struct Node {
    settings: Settings,
    known: Known,
    /// What this node calls itself in the events that it publishes: it is one and the same in all its incarnations.
    origin: Box<str>,
    apps: Arc<Apps>,
    owners: Arc<dyn Owners>,
    status: Arc<Status>,
}

impl Node {
    /// From here on the engine does not say how many connections this node may have.
    fn share_no_places(&self) {
        for app in self.apps.all() {
            app.grant(None);
        }
    }
}

/// What outlives a session.
#[derive(Debug, Default)]
struct Memory {
    part: Part,
    /// Incarnations of this node that may still hold something.
    former: Vec<Box<str>>,
    /// By partition: the last thing that this node has told webhooks, of this memory of the engine.
    told: HashMap<Partition, (Epoch, String)>,
    /// What operators have been warned of.
    hazards: Vec<Hazard>,
    /// The node is leaving, or has left: it does not come back.
    is_leaving: bool,
}

impl Memory {
    /// Warns of what was not warned of before.
    fn warn(&mut self, hazards: impl IntoIterator<Item = Hazard>, engine: &str) {
        for hazard in hazards {
            if !self.hazards.iter().any(|known| known.is_like(&hazard)) {
                tracing::warn!(engine, "{hazard}");
                self.hazards.push(hazard);
            }
        }
    }
}

/// Why a session ends.
#[derive(Debug)]
enum Doubt {
    /// Redis answers with an error, or not at all.
    Engine(RedisError),
    /// Another node may have counted this one as dead.
    Fenced,
    /// The last answered renewal is too long ago.
    Late,
    /// The connection with the subscriptions has ended.
    Lost,
    /// Slots of a Redis Cluster have another master.
    Moved,
    /// Slots of a Redis Cluster have no master.
    Uncovered,
    /// Several servers are named, and they are not in a Redis Cluster.
    NoCluster,
    /// Nothing comes by the subscriptions, not even this node's own message.
    Silent,
    /// No answer that a script of ours gives.
    Unexpected,
    /// The sentinels know no master.
    NoMaster,
    /// Nodes with another format or number of partitions use the prefix.
    Other,
    Url(InvalidUrl),
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(formatter),
            Self::Fenced => formatter.write_str("this node's lease was over, or Redis has lost its memory"),
            Self::Late => formatter.write_str("this node has not renewed its lease in time"),
            Self::Lost => formatter.write_str("the connection with the subscriptions was closed"),
            Self::Moved => formatter.write_str("slots of the Redis Cluster have moved to another server"),
            Self::Uncovered => formatter.write_str("the Redis Cluster has no server for some of its slots"),
            Self::NoCluster => {
                formatter.write_str("several servers are named, but the one that answered is not in a Redis Cluster")
            }
            Self::Silent => formatter.write_str("this node does not hear its own messages"),
            Self::Unexpected => formatter.write_str("an answer was not what Taut's scripts give"),
            Self::NoMaster => formatter.write_str("the sentinels know no master of this name"),
            Self::Other => formatter
                .write_str("another version of Taut uses this prefix; choose another prefix, or stop those nodes"),
            Self::Url(invalid) => invalid.fmt(formatter),
        }
    }
}

impl From<RedisError> for Doubt {
    fn from(error: RedisError) -> Self {
        Self::Engine(error)
    }
}

/// The task.
#[derive(Debug)]
struct Driver {
    node: Arc<Node>,
    requests: mpsc::UnboundedReceiver<Message>,
    memory: Memory,
}

impl Driver {
    async fn run(mut self) {
        let mut failed = 0;
        while let Some(doubt) = self.once(&mut failed).await {
            if failed == 0 {
                let engine = &*self.node.settings.address;
                tracing::warn!(
                    engine,
                    reason = %doubt,
                    "the engine of the cluster is away: clients stay, and this node goes on by itself until it is back"
                );
            } else {
                tracing::debug!(reason = %doubt, failed, "the engine of the cluster is still away");
            }
            let delay = backoff(self.node.settings.lease).delay(failed, getrandom::u64().unwrap_or_default());
            failed = failed.saturating_add(1);
            if self.meanwhile(sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// One session; `None` once nobody needs the driver any more.
    async fn once(&mut self, failed: &mut u32) -> Option<Doubt> {
        let incarnation = random_name();
        let opening = Session::open(Arc::clone(&self.node), incarnation.clone());
        let session = match self.meanwhile(opening).await? {
            Ok(session) => session,
            Err(doubt) => {
                self.end(incarnation);
                return Some(doubt);
            }
        };
        let doubt = session.run(&mut self.requests, &mut self.memory).await;
        if self.node.status.phase() == Phase::Joined {
            *failed = 0;
        }
        if doubt.is_some() {
            self.end(incarnation);
        }
        doubt.filter(|_| !self.memory.is_leaving)
    }

    /// The incarnation writes nothing from here on.
    fn end(&mut self, incarnation: Box<str>) {
        // Those before them lapse by themselves.
        if self.memory.former.len() >= MOST_FORMER {
            self.memory.former.remove(0);
        }
        self.memory.former.push(incarnation);
        let status = &self.node.status;
        if status.phase() == Phase::Joined {
            status.losses.fetch_add(1, Ordering::Relaxed);
        }
        self.node.share_no_places();
        // Told more than once it changes nothing; the first time may be at the start.
        self.node.owners.standing(Standing::Away);
        status.enter(if status.state().losses == 0 { Phase::Starting } else { Phase::Away });
        status.waiting.store(0, Ordering::Relaxed);
    }

    /// Takes requests until something else is done; `None` if nobody sends any more, or the node leaves.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                message = self.requests.recv() => match message? {
                    // There is no engine that could be told.
                    Message::Leave { .. } => return None,
                    message => self.take(message),
                },
            }
        }
    }

    /// Without an engine only this node's part changes. Events and questions fail by being dropped.
    fn take(&mut self, message: Message) {
        match message {
            Message::Request { app, request, room } => {
                self.memory.part.apply(app.id(), &request);
                if let (Request::Publish { receipt, .. }, Some(room)) = (request, room) {
                    drop(Carriage { receipt, _room: room });
                }
            }
            // At the start they wait until it is known that there is none.
            Message::Draw { app } if app.granted().is_none() => self.node.owners.granted(&app, Granted::All),
            Message::Draw { .. } | Message::Question(_) | Message::Leave { .. } => {}
        }
    }
}

/// Few nodes share an engine, and clients notice each second: short delays, though not all at once. An engine that is back is found well within
/// the lease.
fn backoff(lease: Duration) -> Backoff {
    let mut backoff = Backoff::standard();
    backoff.floor = Duration::from_millis(20);
    backoff.base = Duration::from_millis(100);
    backoff.cap = Duration::from_secs(3).min(lease / 4);
    backoff
}

/// Bytes that an event takes beside its texts while it waits, about.
const OVERHEAD: usize = 256;

/// Incarnations that are remembered to be retired.
const MOST_FORMER: usize = 16;

/// Sixteen random bytes in hexadecimal.
fn random_name() -> Box<str> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:032x}", u128::from_ne_bytes(bytes)).into()
}
