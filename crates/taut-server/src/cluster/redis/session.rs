//! The life of one incarnation.

mod answers;
mod happenings;
mod open;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::redis::{Cmd, cmd};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::hazard;
use super::names::{Names, Partition};
use super::queue::{Count, Join, Queue};
use super::scripts::Script;
use super::subscriber::Subscriber;
use super::{Doubt, Kept, Memory};
use crate::apps::App;
use crate::cluster::carriage::{Carriage, Room};
use crate::cluster::driver::{self, Message, Node, Session as _};
use crate::cluster::inbox::Heard;
use crate::cluster::part::{self, Counts};
use crate::cluster::shares::{Draw, Shares};
use crate::cluster::terminations::Terminations;
use crate::cluster::wire::{self, Cell};
use crate::cluster::{Phase, Question};
use crate::hub::command::{PresenceMember, Publication};
use crate::hub::engine::{Epoch, Request, Update};
use crate::hub::receipt::Receipt;
use answers::{Answer, Channels, WhoIsOnline};
use happenings::Happenings;
use server::{Look, Served, Server, served};

/// One incarnation. It holds a lease in every partition, and the node has joined once all of them know everything.
///
/// One doubt about one server ends it everywhere: the other servers are told everything again as well. That costs them little, and there is one
/// way back instead of one for each server.
#[derive(Debug)]
pub(in crate::cluster) struct Session {
    node: Arc<Node>,
    names: Arc<Names>,
    incarnation: Box<str>,
    servers: Vec<Server>,
    /// In the order of their numbers.
    partitions: Vec<PartitionState>,
    heard: mpsc::UnboundedReceiver<Heard>,
    lease: Lease,
    /// Partitions that do not know yet all that this node holds.
    untold: usize,
    counts: Counts<Instant>,
    shares: Shares,
    /// By app: whether its users' changes are subscribed, and the questions that wait for it.
    watched: HashMap<Box<str>, Watched>,
    /// Questions to all partitions.
    who_is_online: HashMap<u64, WhoIsOnline>,
    channels: HashMap<u64, Channels>,
    /// How many of these there were.
    asked: u64,
    terminations: Terminations,
    leaving: Leaving,
    has_sentinels: bool,
}

/// One partition, as this incarnation knows it.
#[derive(Debug)]
struct PartitionState {
    /// The number of the server that owns it.
    server: usize,
    epoch: Epoch,
    queue: Queue<Answer>,
    happenings: Happenings,
    reaper: Reaper,
}

/// Until when this node may write.
#[derive(Debug)]
struct Lease {
    /// By this node's own clock, with a margin.
    ends: Instant,
    renew_at: Instant,
    /// Partitions that have not answered the renewal under way.
    unanswered: usize,
}

/// The incarnation is given back.
#[derive(Debug, Default)]
struct Leaving {
    /// Partitions in which that is not done.
    left: usize,
    done: Option<oneshot::Sender<()>>,
    is_done: bool,
}

#[derive(Debug, Default)]
struct Watched {
    /// Partitions whose changes are not heard yet.
    unheard: usize,
    waiting: Vec<OnlineQuestion>,
}

/// Which of these users are online?
#[derive(Debug)]
struct OnlineQuestion {
    app: Arc<App>,
    user_ids: Arc<[Arc<str>]>,
    number: u32,
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
    /// Everything that was wanted of the server of this number when the session began.
    All {
        server: usize,
    },
}

impl driver::Session for Session {
    type Doubt = Doubt;
    type Kept = Kept;

    async fn open(node: Arc<Node>, incarnation: Box<str>, kept: Kept) -> Result<Self, Doubt> {
        Self::connect(node, incarnation, &kept).await
    }

    async fn run(mut self, requests: &mut mpsc::UnboundedReceiver<Message>, memory: &mut Memory) -> Option<Doubt> {
        self.node.status.enter(Phase::Rejoining);
        self.rejoin(memory);
        self.serve(requests, memory).await.err()
    }

    fn request(&mut self, app: &Arc<App>, request: Request, room: Option<Room>, memory: &Memory) {
        let id = app.id();
        match request {
            Request::Subscribe { channel } => self.subscribe(id, channel, memory),
            Request::Unsubscribe { channel, waited } => {
                let at = self.names.partition(id, &channel);
                let name = self.names.channel(at, id, &channel);
                self.subscriber(at).unsubscribe(name);
                if let Some(cell) = part::occupied(id, &channel) {
                    self.queue(at).leave(cell.write(), waited);
                }
            }
            Request::Publish { publication, kept, receipt } => {
                let Some(room) = room else { return };
                self.publish(app, &publication, kept, receipt, room);
            }
            Request::Join { channel, member, number, most } => self.join(app, channel, member, number, most),
            Request::Leave { channel, user_id, waited } => {
                self.leave_cell(&Cell::Member { app: id, channel: &channel, user_id: &user_id }, waited);
            }
            Request::Members { channel } => {
                let (settles, queue) = (self.node.settings.lease, self.queue_of(id, &channel));
                let mut call = queue.call(Script::Members);
                call.arg(id).arg(&*channel).arg(settles.as_millis() as u64);
                queue.send(call, 0, Answer::Members { app: Arc::clone(app), channel });
            }
            Request::LastEvent { channel, is_missed } => {
                let queue = self.queue_of(id, &channel);
                let mut call = queue.call(Script::Last);
                call.arg(id).arg(&*channel).arg(u8::from(is_missed));
                queue.send(call, 0, Answer::LastEvent { app: Arc::clone(app), channel });
            }
            Request::Count { channel, subscribers } => {
                let now = Instant::now();
                if let Some(subscribers) = self.counts.take(id, &channel, subscribers, now, now + COUNT_INTERVAL) {
                    self.count(Count { app: id.into(), channel, subscribers });
                }
            }
            Request::SignIn { user_id } => {
                self.join_cell(&Cell::SignedIn { app: id, user_id: &user_id }, Vec::new(), 0, None);
            }
            Request::SignOut { user_id } => {
                self.leave_cell(&Cell::SignedIn { app: id, user_id: &user_id }, Duration::ZERO);
            }
            Request::Online { user_ids, number } => self.online(app, user_ids, number),
        }
    }

    fn question(&mut self, question: Question) {
        self.ask(question);
    }

    fn draw(&mut self, app: &Arc<App>, memory: &Memory) {
        if let Some(draw) = self.shares.draw(app, &*self.node.owners) {
            let (at, then) = (self.names.places(app.id()), Answer::Drawn { app: Arc::clone(app), draw: draw.clone() });
            self.queue(at).draw(draw, &memory.former, then);
        }
    }

    fn leave(&mut self, done: Option<oneshot::Sender<()>>, memory: &mut Memory) {
        memory.is_leaving = true;
        self.node.share_no_places();
        self.node.let_in();
        // Users may be back in time; what counts connections does not wait for them.
        for (app, channel, _) in memory.part.counts() {
            self.count(Count { app: app.into(), channel: Arc::clone(channel), subscribers: 0 });
        }
        for draw in self.shares.end() {
            let at = self.names.places(&draw.app);
            self.queue(at).draw(draw, &[], Answer::Ignored);
        }
        self.hand_over(memory);
        self.leaving = Leaving { left: self.partitions.len(), done, is_done: false };
        let grace = self.node.grace(&memory.part);
        for PartitionState { queue, .. } in &mut self.partitions {
            let mut retire = queue.call(Script::Retire);
            retire.arg(grace.as_millis() as u64).arg(&*self.incarnation);
            queue.send(retire, 0, Answer::Left);
        }
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
        while !self.leaving.is_done {
            // Before anything is written: this node may have been asleep.
            if Instant::now() >= self.lease.ends {
                return Err(Doubt::Late);
            }
            for (number, server) in self.servers.iter_mut().enumerate() {
                server.start(number, &mut self.partitions);
            }
            self.node.status.waiting.store(self.waiting(), Ordering::Relaxed);
            self.node.status.held_back.store(memory.backlog.len(), Ordering::Relaxed);
            tokio::select! {
                served = served(&mut self.servers) => match served? {
                    Served::Answered(finished) => self.answered(finished, memory)?,
                    Served::Confirmed(confirmed) => self.confirmed(confirmed, memory),
                },
                Some(heard) = self.heard.recv() => self.heard(heard)?,
                _ = ticks.tick() => self.tick(memory)?,
                _ = requests.recv_many(&mut received, MOST_RECEIVED), if !memory.is_leaving => {
                    self.take_all(&mut received, memory);
                }
            }
        }
        Ok(())
    }

    /// Tells the engine everything that this node holds. The writes of requests follow behind it.
    fn rejoin(&mut self, memory: &mut Memory) {
        let names = Arc::clone(&self.names);
        for (at, PartitionState { epoch, .. }) in self.partitions.iter().enumerate() {
            memory.backlog.begin(at, *epoch);
        }
        // Before everything else in its slot: its end is noticed.
        for at in 0..names.count() {
            self.subscriber(at).subscribe(names.control(at), None);
        }
        for subscription in memory.part.subscriptions() {
            let (app, channel) = (subscription.app, subscription.channel);
            let confirmed =
                Confirmed::Channel { app: app.into(), channel: Arc::clone(channel), number: subscription.number };
            let at = names.partition(app, channel);
            self.subscriber(at).subscribe(names.channel(at, app, channel), Some(confirmed));
        }
        for app in memory.part.watched() {
            self.watch(app);
        }
        for (number, server) in self.servers.iter_mut().enumerate() {
            let confirmed = Some(Confirmed::All { server: number });
            server.subscriber.subscribe(names.node(server.first, &self.incarnation), confirmed);
        }
        for (cell, user_info) in memory.part.cells() {
            let at = names.partition_of(&cell);
            let (cell, user_info) = (cell.write(), wire::user_info(user_info));
            self.queue(at).join(Join { cell, user_info, most: 0, then: None });
        }
        for (app, channel, subscribers) in memory.part.counts() {
            let count = Count { app: app.into(), channel: Arc::clone(channel), subscribers };
            self.queue(names.partition(app, channel)).count(count, &memory.former);
        }
        for app in &self.node.apps.all() {
            self.draw(app, memory);
        }
        for PartitionState { queue, .. } in &mut self.partitions {
            let mut retire = queue.call(Script::Retire);
            retire.arg(0);
            for incarnation in &memory.former {
                retire.arg(&**incarnation);
            }
            queue.send(retire, 0, Answer::Rejoined);
        }
    }

    fn queue(&mut self, at: Partition) -> &mut Queue<Answer> {
        &mut self.partitions[at].queue
    }

    fn subscriber(&mut self, at: Partition) -> &mut Subscriber<Confirmed> {
        &mut self.servers[self.partitions[at].server].subscriber
    }

    /// How many requests wait for the engine.
    fn waiting(&self) -> usize {
        let queued: usize = self.partitions.iter().map(|it| it.queue.len()).sum();
        queued + self.servers.iter().map(|it| it.writer.len() + it.subscriber.len()).sum::<usize>()
    }

    /// Whether all that was wanted is there, now that a part of it has come.
    fn check_joined(&mut self) {
        if self.untold > 0 || self.servers.iter().any(|it| !it.is_subscribed) {
            return;
        }
        if self.node.status.phase() == Phase::Joined {
            return;
        }
        self.node.joined(&self.incarnation);
        let call = self.queue(FIRST).call(Script::Terminated);
        self.queue(FIRST).send(call, 0, Answer::Terminated);
        for Server { first, .. } in &self.servers {
            let queue = &mut self.partitions[*first].queue;
            queue.send(hazard::ask_memory(), 0, Answer::EngineMemory);
            queue.send(hazard::ask_settings(), 0, Answer::EngineSettings);
        }
    }

    /// This node may have so many connections of an app.
    fn drawn(&mut self, app: &Arc<App>, draw: &Draw, granted: usize, memory: &Memory) {
        // While it leaves, this node shares nothing any longer.
        if !memory.is_leaving && self.shares.drawn(app, draw, granted, &*self.node.owners) {
            self.draw(app, memory);
        }
    }

    fn subscribe(&mut self, app: &str, channel: Arc<str>, memory: &Memory) {
        let Some(number) = memory.part.subscription(app, &channel) else { return };
        if let Some(cell) = part::occupied(app, &channel) {
            self.join_cell(&cell, Vec::new(), 0, None);
        }
        let at = self.names.partition(app, &channel);
        let name = self.names.channel(at, app, &channel);
        self.subscriber(at).subscribe(name, Some(Confirmed::Channel { app: app.into(), channel, number }));
    }

    fn publish(&mut self, app: &App, publication: &Publication, kept: bool, receipt: Option<Receipt>, room: Room) {
        let (origin, bytes, carriage) = (&*self.node.origin, publication.bytes(), Carriage { receipt, _room: room });
        let at = self.names.partition(app.id(), &publication.channel);
        let queue = &mut self.partitions[at].queue;
        if !kept {
            let mut publish = publishing(&self.names);
            publish.arg(self.names.channel(at, app.id(), &publication.channel));
            publish.arg(wire::Message::published(origin, publication));
            return queue.send(publish, bytes, Answer::Carried(carriage));
        }
        let (head, tail) = wire::Message::to_keep(origin, publication);
        let mut keep = queue.call(Script::Keep);
        keep.arg(&*self.incarnation).arg(app.id()).arg(&*publication.channel).arg(head).arg(tail);
        keep.arg(app.snapshot().limits.cache_ttl.as_millis() as u64);
        queue.send(keep, bytes, Answer::Carried(carriage));
    }

    fn join(&mut self, app: &Arc<App>, channel: Arc<str>, member: PresenceMember, number: u32, most: usize) {
        let PresenceMember { user_id, user_info } = member;
        let user_info = wire::user_info(user_info.as_deref());
        let (of_channel, of_user) = (Arc::clone(&channel), Arc::clone(&user_id));
        let cell = Cell::Member { app: app.id(), channel: &of_channel, user_id: &of_user };
        let then = Answer::Joined { app: Arc::clone(app), channel, user_id, number, most };
        self.join_cell(&cell, user_info, most, Some(then));
    }

    fn join_cell(&mut self, cell: &Cell<'_>, user_info: Vec<u8>, most: usize, then: Option<Answer>) {
        let at = self.names.partition_of(cell);
        self.queue(at).join(Join { cell: cell.write(), user_info, most, then });
    }

    /// Gives a cell up, which has been held back for as long as it `waited`.
    fn leave_cell(&mut self, cell: &Cell<'_>, waited: Duration) {
        let at = self.names.partition_of(cell);
        self.queue(at).leave(cell.write(), waited);
    }

    fn count(&mut self, count: Count) {
        self.queue_of(&count.app, &count.channel).count(count, &[]);
    }

    /// The queue of what belongs to a channel.
    fn queue_of(&mut self, app: &str, channel: &str) -> &mut Queue<Answer> {
        let at = self.names.partition(app, channel);
        self.queue(at)
    }

    /// Subscribes to the changes of an app's users, unless that is done already.
    fn watch(&mut self, app: &str) -> &mut Watched {
        if !self.watched.contains_key(app) {
            let names = Arc::clone(&self.names);
            self.watched.insert(app.into(), Watched { unheard: names.count(), waiting: Vec::new() });
            for at in 0..names.count() {
                let confirmed = Some(Confirmed::Status { app: app.into() });
                self.subscriber(at).subscribe(names.status(at, app), confirmed);
            }
        }
        self.watched.get_mut(app).expect("it was put there where it was missing")
    }

    /// The question waits until changes are heard: else one between the two would be missed.
    fn online(&mut self, app: &Arc<App>, user_ids: Arc<[Arc<str>]>, number: u32) {
        let question = OnlineQuestion { app: Arc::clone(app), user_ids, number };
        let watched = self.watch(app.id());
        if watched.unheard == 0 {
            self.ask_online(&question);
        } else {
            watched.waiting.push(question);
        }
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
                    watched.unheard -= 1;
                    if watched.unheard == 0 {
                        for question in std::mem::take(&mut watched.waiting) {
                            self.ask_online(&question);
                        }
                    }
                }
                Confirmed::All { server } => self.servers[server].is_subscribed = true,
            }
        }
        self.check_joined();
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Doubt> {
        match heard {
            Heard::Lost => return Err(Doubt::Lost),
            Heard::Moved => return Err(Doubt::Moved),
            Heard::Terminated { request, node } => self.terminations.done(request, node),
            Heard::Closed { from, request } => {
                let message = wire::Message::Terminated { request, node: self.incarnation.clone() };
                self.announce(FIRST, self.names.node(FIRST, &from), &message);
            }
        }
        Ok(())
    }

    /// Publishes something to nodes, in a partition.
    fn announce(&mut self, at: Partition, name: String, message: &wire::Message) {
        let mut publish = publishing(&self.names);
        publish.arg(name).arg(message.write());
        self.queue(at).send(publish, 0, Answer::Ignored);
    }

    fn tick(&mut self, memory: &mut Memory) -> Result<(), Doubt> {
        if memory.is_leaving {
            // The lease is given back.
            return Ok(());
        }
        let now = Instant::now();
        self.probe(now)?;
        if self.lease.unanswered == 0 && now >= self.lease.renew_at {
            self.renew(now);
        }
        for (app, channel, subscribers) in self.counts.due(now, now + COUNT_INTERVAL) {
            self.count(Count { app, channel, subscribers });
        }
        self.tell_due(memory)?;
        for at in 0..self.partitions.len() {
            self.reap(at);
            self.read(at, now, memory);
        }
        for app in self.shares.due(&self.node.apps) {
            self.draw(&app, memory);
        }
        self.terminations.end(now);
        Ok(())
    }

    /// Looks whether the subscriptions work, once there are any.
    fn probe(&mut self, now: Instant) -> Result<(), Doubt> {
        let lease = self.node.settings.lease;
        for number in 0..self.servers.len() {
            let server = &mut self.servers[number];
            if !server.is_subscribed {
                continue;
            }
            match server.probe.look(server.hears.last(), now, lease) {
                Look::Fine => {}
                Look::Send => {
                    let first = server.first;
                    self.announce(first, self.names.node(first, &self.incarnation), &wire::Message::Probe(0));
                }
                Look::Silent => return Err(Doubt::Silent),
            }
        }
        Ok(())
    }

    /// Renews the lease in every partition.
    fn renew(&mut self, now: Instant) {
        let (lease, node) = (self.node.settings.lease, describe(&self.node));
        self.lease.unanswered = self.partitions.len();
        for PartitionState { queue, .. } in &mut self.partitions {
            queue.renew(lease, node.clone(), Answer::Renewed { sent: now });
        }
    }

    /// Takes away a part of what a dead incarnation held: one part at a time.
    fn reap(&mut self, at: Partition) {
        let PartitionState { queue, reaper, .. } = &mut self.partitions[at];
        if reaper.has_work && !reaper.is_working {
            reaper.is_working = true;
            let mut call = queue.call(Script::Reap);
            call.arg(REAPED);
            queue.send(call, REAPED * 512, Answer::Reaped);
        }
    }
}

/// What a node says of itself.
fn describe(node: &Node) -> Vec<u8> {
    wire::node(&node.settings.name, env!("CARGO_PKG_VERSION"), node.connections())
}

/// The command that publishes, in the slot of the channel's partition.
fn publishing(names: &Names) -> Cmd {
    cmd(if names.is_sharded() { "SPUBLISH" } else { "PUBLISH" })
}

/// The partition in which nodes know each other.
const FIRST: Partition = 0;

/// Requests that are taken at once.
const MOST_RECEIVED: usize = 256;

/// Between two numbers of subscribers of one channel.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Cells that are taken away at once: Redis serves nobody else in the meantime.
const REAPED: usize = 200;
