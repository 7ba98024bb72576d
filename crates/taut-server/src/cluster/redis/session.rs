//! The life of one incarnation.

mod answers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo, cmd};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::hazard;
use super::names::Names;
use super::queue::{Count, Join, Queue};
use super::reply;
use super::scripts::{Script, Scripts};
use super::subscriber::{Reader, Subscriber};
use super::topology::Topology;
use super::{Doubt, Kept, Memory};
use crate::apps::App;
use crate::cluster::Phase;
use crate::cluster::carriage::{Carriage, Room};
use crate::cluster::driver::{self, Message, Node};
use crate::cluster::inbox::{Heard, Inbox};
use crate::cluster::part::{self, Counts};
use crate::cluster::shares::{Draw, Shares};
use crate::cluster::terminations::Terminations;
use crate::cluster::wire::{self, Cell};
use crate::hub::command::{PresenceMember, Publication};
use crate::hub::engine::{Epoch, Request, Update};
use crate::hub::receipt::Receipt;
use answers::Answer;

/// One incarnation with its two connections.
#[derive(Debug)]
pub(in crate::cluster) struct Session {
    node: Arc<Node>,
    names: Names,
    incarnation: Box<str>,
    epoch: Epoch,
    queue: Queue<Answer>,
    subscriber: Subscriber<Confirmed>,
    hears: Arc<Reader>,
    heard: mpsc::UnboundedReceiver<Heard>,
    lease: Lease,
    /// What is still missing before the node has joined.
    missing: Missing,
    counts: Counts<Instant>,
    shares: Shares,
    /// By app: whether its users' changes are subscribed, and the questions that wait for it.
    watched: HashMap<Box<str>, Watched>,
    terminations: Terminations,
    happenings: Happenings,
    reaper: Reaper,
    probe: Probe,
    has_sentinels: bool,
    has_left: bool,
}

/// Until when this node may write.
#[derive(Debug)]
struct Lease {
    /// By this node's own clock, with a margin.
    ends: Instant,
    renew_at: Instant,
    is_renewing: bool,
}

/// Sees whether this node hears itself: a connection on which nothing comes may be one to a server to which nobody publishes.
#[derive(Debug, Default)]
struct Probe {
    sent: Option<Instant>,
}

/// What is to be done about the subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Fine,
    /// This node is to send itself a message.
    Send,
    /// It did not come.
    Silent,
}

impl Probe {
    /// Something came last at `last`.
    fn look(&mut self, last: Instant, now: Instant, lease: Duration) -> Look {
        match self.sent {
            // The clock of what comes has milliseconds.
            Some(sent) if last + Duration::from_millis(1) > sent => self.sent = None,
            Some(sent) if now > sent + (lease / 5).max(LEAST_PATIENCE) => return Look::Silent,
            Some(_) => return Look::Fine,
            None => {}
        }
        if now < last + lease / 2 {
            return Look::Fine;
        }
        self.sent = Some(now);
        Look::Send
    }
}

/// What must be confirmed before the node has joined.
#[derive(Debug)]
struct Missing {
    subscriptions: bool,
    cells: bool,
}

#[derive(Debug, Default)]
struct Watched {
    is_confirmed: bool,
    waiting: Vec<OnlineQuestion>,
}

/// Which of these users are online?
#[derive(Debug)]
struct OnlineQuestion {
    app: Arc<App>,
    user_ids: Arc<[Arc<str>]>,
    number: u32,
}

/// This node's turn to tell webhooks what has happened in the cluster.
#[derive(Debug)]
struct Happenings {
    is_turn: bool,
    is_reading: bool,
    read_at: Instant,
}

/// The taking away of what dead incarnations held.
#[derive(Debug, Default)]
struct Reaper {
    has_work: bool,
    is_working: bool,
}

/// What the engine has confirmed.
#[derive(Debug)]
enum Confirmed {
    Channel {
        app: Box<str>,
        channel: Arc<str>,
        number: u64,
    },
    Status {
        app: Box<str>,
    },
    /// Everything that was wanted when the session began.
    All,
}

impl driver::Session for Session {
    type Doubt = Doubt;
    type Kept = Kept;

    async fn open(node: Arc<Node>, incarnation: Box<str>, _: Kept) -> Result<Self, Doubt> {
        let names = Names::new(&node.settings.prefix);
        let topology = Topology::parse(&node.settings.url).map_err(Doubt::Url)?;
        let timeout = node.settings.response_timeout;
        let client = Client::open(topology.master(timeout).await?)?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let (reader, heard) = hears(&node, &names);
        let to = Arc::clone(&reader);
        let take = move |info: PushInfo| -> Result<(), ()> {
            to.take(info);
            Ok(())
        };
        let subscribing =
            client.get_multiplexed_async_connection_with_config(&config.clone().set_push_sender(take)).await?;
        let mut writing = client.get_multiplexed_async_connection_with_config(&config).await?;
        agree(&mut writing, &names).await?;
        let scripts = Scripts::load(&mut writing, names.partition()).await?;
        let sent = Instant::now();
        let epoch = enter(&mut writing, &scripts, &node, &incarnation).await?;
        Ok(Self {
            lease: Lease { ends: node.lease_from(sent), renew_at: sent, is_renewing: false },
            queue: Queue::new(writing, scripts, incarnation.clone()),
            subscriber: Subscriber::new(subscribing),
            missing: Missing { subscriptions: true, cells: true },
            counts: Counts::default(),
            shares: Shares::default(),
            watched: HashMap::new(),
            terminations: Terminations::default(),
            happenings: Happenings { is_turn: false, is_reading: false, read_at: sent },
            reaper: Reaper::default(),
            probe: Probe::default(),
            has_sentinels: matches!(topology, Topology::Sentinel { .. }),
            has_left: false,
            node,
            names,
            incarnation,
            epoch,
            hears: reader,
            heard,
        })
    }

    async fn run(mut self, requests: &mut mpsc::UnboundedReceiver<Message>, memory: &mut Memory) -> Option<Doubt> {
        self.node.status.enter(Phase::Rejoining);
        self.rejoin(memory);
        self.serve(requests, memory).await.err()
    }
}

impl Session {
    async fn serve(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Message>,
        memory: &mut Memory,
    ) -> Result<(), Doubt> {
        let mut ticks = interval(self.node.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut received = Vec::new();
        while !self.has_left {
            // Before anything is written: this node may have been asleep.
            if Instant::now() >= self.lease.ends {
                return Err(Doubt::Late);
            }
            self.queue.start();
            self.subscriber.start();
            self.node.status.waiting.store(self.queue.len() + self.subscriber.len(), Ordering::Relaxed);
            tokio::select! {
                finished = self.queue.finished() => self.answered(finished, memory)?,
                confirmed = self.subscriber.finished() => self.confirmed(confirmed?, memory),
                Some(heard) = self.heard.recv() => self.heard(heard)?,
                _ = ticks.tick() => self.tick(memory)?,
                count = requests.recv_many(&mut received, MOST_RECEIVED), if !memory.is_leaving => {
                    if count == 0 {
                        self.leave(None, memory);
                    }
                    for message in received.drain(..) {
                        self.take(message, memory);
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the engine everything that this node holds. The writes of requests follow behind it.
    fn rejoin(&mut self, memory: &Memory) {
        let names = self.names.clone();
        for subscription in memory.part.subscriptions() {
            let (app, channel) = (subscription.app, subscription.channel);
            let confirmed =
                Confirmed::Channel { app: app.into(), channel: Arc::clone(channel), number: subscription.number };
            self.subscriber.subscribe(names.channel(app, channel), Some(confirmed));
        }
        for app in memory.part.watched() {
            self.watch(app);
        }
        self.subscriber.subscribe(names.control(), None);
        self.subscriber.subscribe(names.node(&self.incarnation), Some(Confirmed::All));
        for (cell, user_info) in memory.part.cells() {
            let (cell, user_info) = (cell.write(), wire::user_info(user_info));
            self.queue.join(Join { cell, user_info, most: 0, then: None });
        }
        for (app, channel, subscribers) in memory.part.counts() {
            let count = Count { app: app.into(), channel: Arc::clone(channel), subscribers };
            self.queue.count(count, &memory.former);
        }
        for app in &self.node.apps.all() {
            self.draw(app, memory);
        }
        let mut retire = self.queue.call(Script::Retire);
        retire.arg(0);
        for incarnation in &memory.former {
            retire.arg(&**incarnation);
        }
        self.queue.send(retire, 0, Answer::Rejoined);
    }

    /// Whether all that was wanted is there, now that a part of it has come.
    fn check_joined(&mut self) {
        let Missing { subscriptions: false, cells: false } = self.missing else { return };
        if self.node.status.phase() == Phase::Joined {
            return;
        }
        self.node.joined(&self.incarnation);
        let call = self.queue.call(Script::Terminated);
        self.queue.send(call, 0, Answer::Terminated);
        self.queue.send(hazard::ask_memory(), 0, Answer::EngineMemory);
        self.queue.send(hazard::ask_settings(), 0, Answer::EngineSettings);
    }

    fn take(&mut self, message: Message, memory: &mut Memory) {
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

    /// Asks for as many connections of an app as there are here and want to come.
    fn draw(&mut self, app: &Arc<App>, memory: &Memory) {
        if let Some(draw) = self.shares.draw(app, &*self.node.owners) {
            let answer = Answer::Drawn { app: Arc::clone(app), draw: draw.clone() };
            self.queue.draw(draw, &memory.former, answer);
        }
    }

    /// This node may have so many connections of an app.
    fn drawn(&mut self, app: &Arc<App>, draw: &Draw, granted: usize, memory: &Memory) {
        // While it leaves, this node shares nothing any longer.
        if !memory.is_leaving && self.shares.drawn(app, draw, granted, &*self.node.owners) {
            self.draw(app, memory);
        }
    }

    /// Ends the incarnation, behind all that was written before. Users who may be back on another node stay until their grace is over.
    fn leave(&mut self, done: Option<oneshot::Sender<()>>, memory: &mut Memory) {
        memory.is_leaving = true;
        self.node.share_no_places();
        self.node.let_in();
        // Users may be back in time; what counts connections does not wait for them.
        for (app, channel, _) in memory.part.counts() {
            self.queue.count(Count { app: app.into(), channel: Arc::clone(channel), subscribers: 0 }, &[]);
        }
        for draw in self.shares.end() {
            self.queue.draw(draw, &[], Answer::Ignored);
        }
        let mut retire = self.queue.call(Script::Retire);
        let grace = self.node.grace(&memory.part);
        retire.arg(grace.as_millis() as u64).arg(&*self.incarnation);
        self.queue.send(retire, 0, Answer::Left { done });
    }

    fn request(&mut self, app: &Arc<App>, request: Request, room: Option<Room>, memory: &Memory) {
        let id = app.id();
        match request {
            Request::Subscribe { channel } => self.subscribe(id, channel, memory),
            Request::Unsubscribe { channel, waited } => {
                self.subscriber.unsubscribe(self.names.channel(id, &channel));
                if let Some(cell) = part::occupied(id, &channel) {
                    self.queue.leave(cell.write(), waited);
                }
            }
            Request::Publish { publication, kept, receipt } => {
                let Some(room) = room else { return };
                self.publish(app, &publication, kept, receipt, room);
            }
            Request::Join { channel, member, number, most } => self.join(app, channel, member, number, most),
            Request::Leave { channel, user_id, waited } => {
                self.queue.leave(Cell::Member { app: id, channel: &channel, user_id: &user_id }.write(), waited);
            }
            Request::Members { channel } => {
                let mut call = self.queue.call(Script::Members);
                call.arg(id).arg(&*channel).arg(self.node.settings.lease.as_millis() as u64);
                self.queue.send(call, 0, Answer::Members { app: Arc::clone(app), channel });
            }
            Request::LastEvent { channel, is_missed } => {
                let mut call = self.queue.call(Script::Last);
                call.arg(id).arg(&*channel).arg(u8::from(is_missed));
                self.queue.send(call, 0, Answer::LastEvent { app: Arc::clone(app), channel });
            }
            Request::Count { channel, subscribers } => {
                let now = Instant::now();
                if let Some(subscribers) = self.counts.take(id, &channel, subscribers, now, now + COUNT_INTERVAL) {
                    self.queue.count(Count { app: id.into(), channel, subscribers }, &[]);
                }
            }
            Request::SignIn { user_id } => {
                let cell = Cell::SignedIn { app: id, user_id: &user_id }.write();
                self.queue.join(Join { cell, user_info: Vec::new(), most: 0, then: None });
            }
            Request::SignOut { user_id } => {
                self.queue.leave(Cell::SignedIn { app: id, user_id: &user_id }.write(), Duration::ZERO);
            }
            Request::Online { user_ids, number } => self.online(app, user_ids, number),
        }
    }

    fn subscribe(&mut self, app: &str, channel: Arc<str>, memory: &Memory) {
        let Some(number) = memory.part.subscription(app, &channel) else { return };
        if let Some(cell) = part::occupied(app, &channel) {
            self.queue.join(Join { cell: cell.write(), user_info: Vec::new(), most: 0, then: None });
        }
        let name = self.names.channel(app, &channel);
        self.subscriber.subscribe(name, Some(Confirmed::Channel { app: app.into(), channel, number }));
    }

    fn publish(&mut self, app: &App, publication: &Publication, kept: bool, receipt: Option<Receipt>, room: Room) {
        let (origin, bytes, carriage) = (&*self.node.origin, publication.bytes(), Carriage { receipt, _room: room });
        if !kept {
            let mut publish = cmd("PUBLISH");
            publish.arg(self.names.channel(app.id(), &publication.channel));
            publish.arg(wire::Message::published(origin, publication));
            return self.queue.send(publish, bytes, Answer::Carried(carriage));
        }
        let (head, tail) = wire::Message::to_keep(origin, publication);
        let mut keep = self.queue.call(Script::Keep);
        keep.arg(&*self.incarnation).arg(app.id()).arg(&*publication.channel).arg(head).arg(tail);
        keep.arg(app.snapshot().limits.cache_ttl.as_millis() as u64);
        self.queue.send(keep, bytes, Answer::Carried(carriage));
    }

    fn join(&mut self, app: &Arc<App>, channel: Arc<str>, member: PresenceMember, number: u32, most: usize) {
        let PresenceMember { user_id, user_info } = member;
        let cell = Cell::Member { app: app.id(), channel: &channel, user_id: &user_id }.write();
        let user_info = wire::user_info(user_info.as_deref());
        let then = Some(Answer::Joined { app: Arc::clone(app), channel, user_id, number, most });
        self.queue.join(Join { cell, user_info, most, then });
    }

    /// Subscribes to the changes of an app's users, unless that is done already.
    fn watch(&mut self, app: &str) -> &mut Watched {
        if !self.watched.contains_key(app) {
            self.watched.insert(app.into(), Watched::default());
            self.subscriber.subscribe(self.names.status(app), Some(Confirmed::Status { app: app.into() }));
        }
        self.watched.get_mut(app).expect("it was put there where it was missing")
    }

    /// The question waits until changes are heard: else one between the two would be missed.
    fn online(&mut self, app: &Arc<App>, user_ids: Arc<[Arc<str>]>, number: u32) {
        let question = OnlineQuestion { app: Arc::clone(app), user_ids, number };
        let watched = self.watch(app.id());
        if watched.is_confirmed {
            self.ask_online(question);
        } else {
            watched.waiting.push(question);
        }
    }

    fn ask_online(&mut self, question: OnlineQuestion) {
        let OnlineQuestion { app, user_ids, number } = question;
        if user_ids.is_empty() {
            return self.node.owners.update(&app, Update::Online { number, online: Vec::new() });
        }
        let mut get = cmd("HMGET");
        get.arg(self.names.online(app.id()));
        for user_id in &*user_ids {
            get.arg(&**user_id);
        }
        self.queue.send(get, 0, Answer::Online { app, user_ids, number });
    }

    fn confirmed(&mut self, confirmed: Vec<Confirmed>, memory: &mut Memory) {
        for confirmed in confirmed {
            match confirmed {
                Confirmed::Channel { app, channel, number } => {
                    if let (true, Some(known)) =
                        (memory.part.confirm(&app, &channel, number), self.node.apps.by_id(&app))
                    {
                        self.node.owners.update(&known, Update::Subscribed { channel });
                    }
                }
                Confirmed::Status { app } => {
                    let Some(watched) = self.watched.get_mut(&app) else { continue };
                    watched.is_confirmed = true;
                    for question in std::mem::take(&mut watched.waiting) {
                        self.ask_online(question);
                    }
                }
                Confirmed::All => self.missing.subscriptions = false,
            }
        }
        self.check_joined();
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Doubt> {
        match heard {
            Heard::Lost => return Err(Doubt::Lost),
            Heard::Terminated { request, node } => self.terminations.done(request, node),
            Heard::Closed { from, request } => {
                let message = wire::Message::Terminated { request, node: self.incarnation.clone() };
                self.announce(&self.names.node(&from), &message);
            }
        }
        Ok(())
    }

    /// Publishes something to nodes.
    fn announce(&mut self, name: &str, message: &wire::Message) {
        let mut publish = cmd("PUBLISH");
        publish.arg(name).arg(message.write());
        self.queue.send(publish, 0, Answer::Ignored);
    }

    fn tick(&mut self, memory: &Memory) -> Result<(), Doubt> {
        if memory.is_leaving {
            // The lease is given back.
            return Ok(());
        }
        let now = Instant::now();
        self.probe(now)?;
        if !self.lease.is_renewing && now >= self.lease.renew_at {
            self.lease.is_renewing = true;
            self.queue.renew(self.node.settings.lease, describe(&self.node), Answer::Renewed { sent: now });
        }
        for (app, channel, subscribers) in self.counts.due(now, now + COUNT_INTERVAL) {
            self.queue.count(Count { app, channel, subscribers }, &[]);
        }
        for app in self.shares.due(&self.node.apps) {
            self.draw(&app, memory);
        }
        self.reap();
        self.read(now, memory);
        self.terminations.end(now);
        Ok(())
    }

    /// Looks whether the subscriptions work, once there are any.
    fn probe(&mut self, now: Instant) -> Result<(), Doubt> {
        if self.missing.subscriptions {
            return Ok(());
        }
        match self.probe.look(self.hears.last(), now, self.node.settings.lease) {
            Look::Fine => {}
            Look::Send => self.announce(&self.names.node(&self.incarnation), &wire::Message::Probe(0)),
            Look::Silent => return Err(Doubt::Silent),
        }
        Ok(())
    }

    /// Takes away a part of what a dead incarnation held: one part at a time.
    fn reap(&mut self) {
        if self.reaper.has_work && !self.reaper.is_working {
            self.reaper.is_working = true;
            let mut call = self.queue.call(Script::Reap);
            call.arg(REAPED);
            self.queue.send(call, REAPED * 512, Answer::Reaped);
        }
    }

    /// Reads what has happened, if it is this node's turn to tell it. That it was told is known to the engine by the next call.
    fn read(&mut self, now: Instant, memory: &Memory) {
        if self.happenings.is_turn && !self.happenings.is_reading && now >= self.happenings.read_at {
            self.happenings.is_reading = true;
            let told = memory.kept.told.as_ref().filter(|(epoch, _)| *epoch == self.epoch).map_or("", |(_, told)| told);
            let mut call = self.queue.call(Script::Happened);
            call.arg(&*self.incarnation).arg(told).arg(MOST_READ);
            self.queue.send(call, 0, Answer::Happened);
        }
    }
}

/// What a node says of itself.
fn describe(node: &Node) -> Vec<u8> {
    wire::node(&node.settings.name, env!("CARGO_PKG_VERSION"), node.connections())
}

fn hears(node: &Node, names: &Names) -> (Arc<Reader>, mpsc::UnboundedReceiver<Heard>) {
    let (sender, heard) = mpsc::unbounded_channel();
    let inbox = Inbox {
        apps: Arc::clone(&node.apps),
        owners: Arc::clone(&node.owners),
        origin: node.origin.clone(),
        heard: sender,
    };
    let reader = Reader { names: names.clone(), inbox, since: Instant::now(), last: AtomicU64::new(0) };
    (Arc::new(reader), heard)
}

/// Nodes that read and write something else must not share a prefix.
async fn agree(connection: &mut MultiplexedConnection, names: &Names) -> Result<(), Doubt> {
    let mut pipeline = Pipeline::with_capacity(META.len() + 1);
    for (field, value) in META {
        pipeline.cmd("HSETNX").arg(names.meta()).arg(field).arg(value);
    }
    pipeline.cmd("HMGET").arg(names.meta()).arg(META.map(|(field, _)| field).as_slice());
    let replies = connection.send_packed_commands(&pipeline, 0, META.len() + 1).await?;
    let mut found = Vec::new();
    for value in replies {
        found.push(reply::checked(value)?);
    }
    let found: [String; META.len()] = match reply::tuple(found.pop().ok_or(Doubt::Unexpected)?)? {
        [format, partitions] => [reply::text(format)?, reply::text(partitions)?],
    };
    if found == META.map(|(_, value)| value) { Ok(()) } else { Err(Doubt::Other) }
}

async fn enter(
    connection: &mut MultiplexedConnection,
    scripts: &Scripts,
    node: &Node,
    incarnation: &str,
) -> Result<Epoch, Doubt> {
    let epoch = getrandom::u64().unwrap_or_default().to_string();
    let lease = node.settings.lease.as_millis().to_string();
    let arguments = [incarnation.as_bytes(), epoch.as_bytes(), lease.as_bytes(), &describe(node)];
    reply::number(scripts.run(connection, Script::Enter, &arguments).await?).map(Epoch)
}

/// What the nodes of a cluster have in common: the format of keys and messages, and the number of partitions.
const META: [(&str, &str); 2] = [("format", "1"), ("partitions", "1")];

/// How long a node waits for its own message, however short the lease: a busy computer is no silent engine.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Requests that are taken at once.
const MOST_RECEIVED: usize = 256;

/// Between two numbers of subscribers of one channel.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Cells that are taken away at once: Redis serves nobody else in the meantime.
const REAPED: usize = 200;

/// Things that have happened, in one answer.
const MOST_READ: usize = 100;

/// Between two looks at what has happened.
const READ_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_hears_nothing_asks_itself_and_gives_up_if_that_does_not_come_either() {
        let (start, lease) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probe = Probe::default();
        assert_eq!(probe.look(start, at(4), lease), Look::Fine);
        assert_eq!(probe.look(at(1), at(5), lease), Look::Fine, "something has come");
        assert_eq!(probe.look(at(1), at(6), lease), Look::Send);
        assert_eq!(probe.look(at(1), at(8), lease), Look::Fine, "it may be on its way");
        assert_eq!(probe.look(at(7), at(9), lease), Look::Fine, "it has come");
        assert_eq!(probe.look(at(7), at(12), lease), Look::Send);
        assert_eq!(probe.look(at(7), at(14), lease), Look::Fine);
        assert_eq!(probe.look(at(7), at(15), lease), Look::Silent);
    }

    #[test]
    fn a_message_that_comes_within_the_millisecond_has_come() {
        let (start, lease) = (Instant::now(), Duration::from_secs(10));
        let sent = start + Duration::from_micros(6_000_900);
        let mut probe = Probe::default();
        assert_eq!(probe.look(start, sent, lease), Look::Send);
        let heard = start + Duration::from_secs(6);
        for seconds in 7..11 {
            assert_eq!(probe.look(heard, start + Duration::from_secs(seconds), lease), Look::Fine);
        }
    }
}
