//! What the drivers of all engines have in common.
//!
//! One task drives an engine: it keeps this node's [`Part`], and speaks with the engine in [`Session`]s. A session is the life of one *incarnation*,
//! under which the node holds a lease and writes; it ends at the first doubt (a lost connection, an answer that does not come, a lease that may be
//! over), and the next one tells the engine everything again under another incarnation. So there is one way back, whatever has happened. Nobody
//! notices: what the new incarnation holds is there before what the old one held goes.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use taut_proto::Backoff;
use tokio::runtime;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::backlog::Backlog;
use super::carriage::{Carriage, Room};
use super::part::Part;
use super::{Broker, Owners, Phase, Question, State};
use crate::apps::{App, Apps, Granted};
use crate::hub::engine::{Request, Standing};

/// How a node takes part in a cluster.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where the engine is; its scheme says which one it is.
    pub(crate) url: String,
    /// The same as it may be shown, without user and password.
    pub(crate) address: String,
    /// What all names in the engine begin with; `taut` by default. Two clusters on one engine need two.
    pub(crate) prefix: String,
    /// What the node is called, for those who look at the cluster.
    pub(crate) name: String,
    /// How long a node that says nothing counts as alive; 10 s by default. All nodes of a cluster have the same.
    pub(crate) lease: Duration,
    /// How long the engine may take to answer, and to accept a connection; 1 s by default.
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

/// The life of one incarnation.
pub(super) trait Session: Sized + Send + 'static {
    /// Why it ends.
    type Doubt: fmt::Display + Send;

    /// What outlives it, beside what all engines need. A clone of what is to change in it is the same thing.
    type Kept: fmt::Debug + Clone + Default + Send;

    /// Connects, and takes a lease.
    ///
    /// # Cancel safety
    /// What was taken ends by itself.
    fn open(
        node: Arc<Node>,
        incarnation: Box<str>,
        kept: Self::Kept,
    ) -> impl Future<Output = Result<Self, Self::Doubt>> + Send;

    /// Goes on until there is a doubt; `None` once the node has left, since it was told to or nobody sends any more.
    fn run(
        self,
        requests: &mut mpsc::UnboundedReceiver<Message>,
        memory: &mut Memory<Self::Kept>,
    ) -> impl Future<Output = Option<Self::Doubt>> + Send;

    /// Carries a request out. [`Memory::part`] knows of it already.
    fn request(&mut self, app: &Arc<App>, request: Request, room: Option<Room>, memory: &Memory<Self::Kept>);

    fn question(&mut self, question: Question);

    /// Asks for as many connections of an app as there are here and want to come.
    fn draw(&mut self, app: &Arc<App>, memory: &Memory<Self::Kept>);

    /// Ends the incarnation, behind all that was written before. Users who may be back on another node stay until their grace is over.
    fn leave(&mut self, done: Option<oneshot::Sender<()>>, memory: &mut Memory<Self::Kept>);

    /// Takes what was received together; nothing if nobody sends any more.
    fn take_all(&mut self, received: &mut Vec<Message>, memory: &mut Memory<Self::Kept>) {
        if received.is_empty() {
            self.leave(None, memory);
        }
        for message in received.drain(..) {
            self.take(message, memory);
        }
    }

    fn take(&mut self, message: Message, memory: &mut Memory<Self::Kept>) {
        match message {
            // Events and questions fail by being dropped.
            Message::Request { request: Request::Publish { receipt, .. }, room: Some(room), .. }
                if memory.is_leaving =>
            {
                drop(Carriage { receipt, _room: room });
            }
            _ if memory.is_leaving => {}
            Message::Leave { done } => self.leave(Some(done), memory),
            Message::Request { app, request, room } => {
                memory.part.apply(app.id(), &request);
                self.request(&app, request, room, memory);
            }
            Message::Question(question) => self.question(question),
            Message::Draw { app } => self.draw(&app, memory),
        }
    }
}

/// Starts the driver on a runtime. It leaves the cluster and ends once the result is dropped.
pub(super) fn start<S: Session>(
    settings: Settings,
    apps: Arc<Apps>,
    owners: Arc<dyn Owners>,
    runtime: &runtime::Handle,
) -> Arc<dyn Broker> {
    let (requests, received) = mpsc::unbounded_channel();
    let status = Arc::new(Status::default());
    let node = Arc::new(Node { origin: random_name(), settings, apps, owners, status: Arc::clone(&status) });
    for app in node.apps.all() {
        // Who comes before the node has joined waits.
        app.grant(Some(0));
    }
    let driver = Driver::<S> { node, requests: received, memory: Memory::default() };
    runtime.spawn(driver.run());
    Arc::new(Handle { requests, status })
}

/// The driver as owners and the API see it.
#[derive(Debug)]
struct Handle {
    requests: mpsc::UnboundedSender<Message>,
    status: Arc<Status>,
}

/// To the driver.
#[derive(Debug)]
pub(super) enum Message {
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

impl Broker for Handle {
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
pub(super) struct Status {
    phase: AtomicU8,
    losses: AtomicU64,
    pub(super) waiting: AtomicUsize,
    pub(super) held_back: AtomicUsize,
    /// Microseconds.
    pub(super) lag: AtomicU64,
    /// Bytes of events that wait for the engine.
    taken: Arc<AtomicUsize>,
}

impl Status {
    fn state(&self) -> State {
        State {
            phase: PHASES[usize::from(self.phase.load(Ordering::Relaxed))],
            losses: self.losses.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            held_back: self.held_back.load(Ordering::Relaxed),
            lag: Duration::from_micros(self.lag.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// In the order of [`Phase`].
const PHASES: [Phase; 4] = [Phase::Starting, Phase::Joined, Phase::Away, Phase::Rejoining];

/// What stays the same for all sessions.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) settings: Settings,
    /// What this node calls itself in the events that it publishes: it is one and the same in all its incarnations.
    pub(super) origin: Box<str>,
    pub(super) apps: Arc<Apps>,
    pub(super) owners: Arc<dyn Owners>,
    pub(super) status: Arc<Status>,
}

impl Node {
    /// Until when a lease that was taken or renewed at this time surely holds.
    pub(super) fn lease_from(&self, sent: Instant) -> Instant {
        sent + self.settings.lease * 4 / 5
    }

    /// How often a session looks at its clock.
    pub(super) fn tick(&self) -> Duration {
        (self.settings.lease / 20).clamp(Duration::from_millis(5), Duration::from_millis(100))
    }

    /// How many clients are connected to this node.
    pub(super) fn connections(&self) -> u64 {
        self.apps.all().iter().map(|app| app.connections() as u64).sum()
    }

    /// From here on the engine does not say how many connections this node may have.
    pub(super) fn share_no_places(&self) {
        for app in self.apps.all() {
            app.grant(None);
        }
    }

    /// Clients that wait for a place are let in, as far as this node alone has places.
    pub(super) fn let_in(&self) {
        for app in self.apps.all() {
            self.owners.granted(&app, Granted::All);
        }
    }

    /// Closes a user's connections that are at least of this age: others did so while this node was away. Nobody waits for it.
    pub(super) fn terminated(&self, app: &str, user_id: &Arc<str>, age: Duration) {
        if let Some(app) = self.apps.by_id(app) {
            let (done, _) = mpsc::channel(1);
            self.owners.terminate(&app, user_id, age, done);
        }
    }

    /// How long users whom this node holds may be away.
    pub(super) fn grace(&self, part: &Part) -> Duration {
        part.grace(|app| Some(self.apps.by_id(app)?.snapshot().config.features.presence_grace))
    }

    /// All that was wanted is there.
    pub(super) fn joined(&self, incarnation: &str) {
        self.status.enter(Phase::Joined);
        let engine = &*self.settings.address;
        tracing::info!(engine, incarnation, "this node has joined the cluster");
        self.owners.standing(Standing::Joined);
    }
}

/// What outlives a session.
#[derive(Debug)]
pub(super) struct Memory<K> {
    pub(super) part: Part,
    /// Incarnations of this node that may still hold something.
    pub(super) former: Vec<Box<str>>,
    /// The node is leaving, or has left: it does not come back.
    pub(super) is_leaving: bool,
    /// What webhooks are still to be told by this node.
    pub(super) backlog: Backlog,
    /// What this engine needs beside.
    pub(super) kept: K,
}

impl<K: Default> Default for Memory<K> {
    fn default() -> Self {
        Self {
            part: Part::default(),
            former: Vec::new(),
            is_leaving: false,
            backlog: Backlog::default(),
            kept: K::default(),
        }
    }
}

/// The task.
#[derive(Debug)]
struct Driver<S: Session> {
    node: Arc<Node>,
    requests: mpsc::UnboundedReceiver<Message>,
    memory: Memory<S::Kept>,
}

impl<S: Session> Driver<S> {
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
    async fn once(&mut self, failed: &mut u32) -> Option<S::Doubt> {
        let incarnation = random_name();
        let opening = S::open(Arc::clone(&self.node), incarnation.clone(), self.memory.kept.clone());
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
                message = self.requests.recv() => match message {
                    // There is no engine that could be told, and nobody who surely tells webhooks the rest.
                    Some(Message::Leave { .. }) | None => {
                        self.memory.backlog.tell_all(Instant::now(), &*self.node.owners);
                        return None;
                    }
                    Some(message) => self.take(message),
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
pub(super) fn random_name() -> Box<str> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    format!("{:032x}", u128::from_ne_bytes(bytes)).into()
}
