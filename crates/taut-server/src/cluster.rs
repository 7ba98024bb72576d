//! Several nodes as one server, on an engine that they share: Redis, a Redis Cluster, or NATS.
//!
//! Each node has an owner for each channel that its clients want ([`crate::hub`]); the engine decides between nodes.
//! [`Broker`] is what an engine promises, and each engine is one folder.

mod backlog;
mod carriage;
mod crc;
mod driver;
mod inbox;
mod nats;
mod part;
mod redis;
mod shares;
mod terminations;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::driver::Settings;
use crate::apps::{App, Apps, Granted};
use crate::events::Event;
use crate::hub::engine::{Request, Standing, Update};
use crate::query::{ChannelState, Occupancy};

/// The engines that nodes can share. A new one is a folder, and an entry here.
const ENGINES: [Engine; 2] = [
    Engine {
        schemes: &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix"],
        forms: redis::FORMS,
        check_url: redis::check_url,
        start: driver::start::<redis::Session>,
    },
    Engine {
        schemes: &["nats", "tls"],
        forms: nats::FORMS,
        check_url: nats::check_url,
        start: driver::start::<nats::Session>,
    },
];

/// One kind of engine.
struct Engine {
    /// What its URLs begin with.
    schemes: &'static [&'static str],
    /// What its URLs look like.
    forms: &'static str,
    /// Says what is wrong with a URL, without repeating it: it may hold a password.
    check_url: fn(&str) -> Result<(), String>,
    start: Start,
}

/// Starts a driver.
type Start = fn(Settings, Arc<Apps>, Arc<dyn Owners>, &Handle) -> Arc<dyn Broker>;

/// The engine that a URL is for.
fn engine(url: &str) -> Option<&'static Engine> {
    let (scheme, _) = url.split_once("://")?;
    ENGINES.iter().find(|engine| engine.schemes.contains(&scheme))
}

/// Whether a URL names an engine that is understood. The error repeats nothing of it, since a password may stand in it.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    if let Some(engine) = engine(url) {
        return (engine.check_url)(url);
    }
    let forms: Vec<_> = ENGINES.iter().map(|engine| engine.forms).collect();
    Err(format!("Understood are {}", forms.join(". Or ")))
}

/// Starts the driver of the engine that the settings name. It leaves the cluster and ends once the result is dropped; `None` if no engine has such a
/// URL.
pub(crate) fn start(
    settings: Settings,
    apps: Arc<Apps>,
    owners: Arc<dyn Owners>,
    runtime: &Handle,
) -> Option<Arc<dyn Broker>> {
    Some((engine(&settings.url)?.start)(settings, apps, owners, runtime))
}

/// The driver of an engine.
///
/// # Duties
///
/// *Order.* Requests about one channel take effect in the order in which they were sent. Updates about one channel come in the order in which
/// the engine made them, those of one publisher connection in the order in which it sent them.
///
/// *Doubles.* An event that was published once comes once to each owner. What a node publishes without `kept` does not come back to it.
///
/// *What this node holds* (its subscriptions, the members that it let in, the users that have signed in, its counts) is the driver's to know:
/// it tells the engine again whenever the engine may have forgotten. Nobody else repeats a request.
///
/// *A node that dies* is noticed within its lease. Its members, users and counts are taken away once, by one of the others; the changes are
/// announced as any others.
///
/// *Webhooks* are told each change by one node. The engine keeps a change until that is done: a removal for as long as it may be undone, whatever
/// becomes of the node whose turn it is.
///
/// *Connections* of an app with a limit are shared out: never more than the limit are granted to all nodes together, but a node that comes back keeps
/// what it has. While the engine is away, each node may have as many as the limit says.
///
/// *At the start* owners wait for [`Standing::Joined`], or for [`Standing::Away`] if the engine is not there.
///
/// *When the engine is away* ([`Standing::Away`]): [`send`](Self::send) goes on taking requests. Receipts of events that cannot be carried, or
/// of which it is not known, have failed. Other requests are caught up before [`Standing::Joined`].
///
/// *Once back* it sends [`Standing::Joined`] when all that was wanted is subscribed and all that this node holds is known. Owners then ask for
/// members and last events again. Answers to what was asked before may be missing: nobody waits for them.
pub(crate) trait Broker: fmt::Debug + Send + Sync {
    /// Takes a request of an owner. Never waits: a shard calls it.
    ///
    /// What may wait for the engine is bounded: an event that finds no room has failed; all else is bounded by the connections and channels of
    /// this node.
    fn send(&self, app: &Arc<App>, request: Request);

    /// Asks something about the whole cluster. The answer comes within a second, or the sender is dropped: the engine is away.
    fn ask(&self, question: Question);

    /// More clients of the app want to connect than this node may have where the nodes [share](App::grant) its connections. Once the engine has said
    /// how many it may have, or cannot, [`Owners::granted`] is called. Never waits.
    fn draw(&self, app: &Arc<App>);

    /// How it stands with the engine now. Called for each publish: it reads a value that the driver keeps.
    fn state(&self) -> State;

    /// Leaves the cluster: once all requests that were sent before are carried, the node's lease and all that it holds are given back, and the other
    /// nodes go on without waiting for the lease to lapse. Users of apps with a `presence-grace` stay for as long: what the node still holds is theirs,
    /// and they may be back on another node. `done` is answered or dropped when that is done, or when the engine is away. Whatever is sent afterwards
    /// goes nowhere.
    ///
    /// An engine that need not be told does nothing.
    fn leave(&self, done: oneshot::Sender<()>) {
        drop(done);
    }
}

/// A question about the whole cluster, with the way for its answer.
#[derive(Debug)]
pub(crate) enum Question {
    /// The occupied channels of an app whose names begin so, without those of single users. Presence channels have their number of users.
    /// Subscribers are as many as are counted, and at least 1.
    Channels { app: Arc<App>, prefix: Box<str>, answer: oneshot::Sender<BTreeMap<Arc<str>, Occupancy>> },
    /// One channel: its subscribers where they are counted, and otherwise 1 if there are any; its users; its last event.
    Channel { app: Arc<App>, channel: Box<str>, answer: oneshot::Sender<ChannelState> },
    /// The users in a presence channel.
    Users { app: Arc<App>, channel: Box<str>, answer: oneshot::Sender<Vec<Arc<str>>> },
    /// Close every connection of this user on all other nodes: answered with how many of them have done so. A node that is away, for up to a
    /// minute, does so when it is back.
    Terminate { app: Arc<App>, user_id: Arc<str>, answer: oneshot::Sender<usize> },
    /// The nodes of the cluster.
    Nodes { answer: oneshot::Sender<Vec<Node>> },
}

/// One node of a cluster, as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Another one each time it comes to the cluster.
    pub(crate) incarnation: Box<str>,
    /// What it is called: its host's name, or what its operator calls it.
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
    /// This is the node that was asked.
    pub(crate) is_here: bool,
    pub(crate) connections: u64,
    /// Until when it counts as alive unless it says more.
    pub(crate) lease: Duration,
}

/// How it stands with the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Times that the engine was lost since the start.
    pub(crate) losses: u64,
    /// Requests that wait for the engine.
    pub(crate) waiting: usize,
    /// Removals in the cluster that this node holds back before it tells webhooks.
    pub(crate) held_back: usize,
    /// How long the engine took to answer last.
    pub(crate) lag: Duration,
}

/// Where a node is on its way into the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not been in the cluster yet.
    #[default]
    Starting,
    Joined,
    /// The engine cannot be reached, or does not answer.
    Away,
    /// The engine is there again, and is being told what this node holds.
    Rejoining,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Starting, Self::Joined, Self::Away, Self::Rejoining];

    /// What operators call it: in metrics, in `/nodes` and in the console.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Joined => "joined",
            Self::Away => "away",
            Self::Rejoining => "rejoining",
        }
    }
}

/// The owners of a node, as the driver sees them. Nothing here waits.
pub(crate) trait Owners: fmt::Debug + Send + Sync {
    /// To the owner of the channel or of the app's users. An event that finds no room is missed there, and its subscribers are closed.
    fn update(&self, app: &Arc<App>, update: Update);

    /// To every owner of the node, after all updates that were sent before.
    fn standing(&self, standing: Standing);

    /// The app has been [granted](App::grant) places for connections on this node. Clients that wait for one are let in, refused, or
    /// [drawn](Broker::draw) for again.
    fn granted(&self, app: &Arc<App>, granted: Granted);

    /// Another node wants all connections of this user closed that are at least of this `age`. That is done when the last clone of `done` is
    /// dropped.
    fn terminate(&self, app: &Arc<App>, user_id: &Arc<str>, age: Duration, done: Done);

    /// Something that webhooks tell of has happened in the cluster, and it is this node's turn to tell them.
    fn happened(&self, app: &Arc<App>, happened: Happened);
}

/// Something that webhooks tell of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Happened {
    pub(crate) event: Event,
    /// For how long it was held back.
    pub(crate) waited: Duration,
    /// How long ago clients were told of it.
    pub(crate) ago: Duration,
}

/// Tells that something is done when the last clone of it is dropped; also where a shard has stopped, which drops its mail.
pub(crate) type Done = mpsc::Sender<()>;
