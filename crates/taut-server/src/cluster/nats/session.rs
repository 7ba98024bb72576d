//! The life of one incarnation.

mod answers;
mod opening;
mod upkeep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use self::answers::{Asked, Awaited, Joined, Then};
use self::opening::{Deliveries, Opening};
use self::upkeep::Upkeep;
use super::connection::Connection;
use super::entry::{Content, Entry, Holding, Key};
use super::log::{Log, Outcome};
use super::names::Names;
use super::protocol::Writer;
use super::queue::{self, Queue};
use super::router::{Delivered, Ears, FromEngine, Router, Target};
use super::url::Address;
use super::{Doubt, Kept, Memory, api};
use crate::apps::App;
use crate::cluster::backlog::Stream;
use crate::cluster::carriage::{Carriage, Room};
use crate::cluster::driver::{self, Message, Node, Session as _};
use crate::cluster::inbox::Heard;
use crate::cluster::part::{self, Counts};
use crate::cluster::shares::{Draw, Shares};
use crate::cluster::terminations::Terminations;
use crate::cluster::wire::{self, Cell};
use crate::cluster::{Phase, Question};
use crate::hub::command::Publication;
use crate::hub::engine::{Request, Update};
use crate::hub::receipt::Receipt;
use crate::pusher::channel::Kind;

/// One incarnation with its connection.
#[derive(Debug)]
pub(in crate::cluster) struct Session {
    node: Arc<Node>,
    names: Names,
    incarnation: Arc<str>,
    connection: Connection,
    queue: Queue<Then>,
    router: Arc<Router>,
    from_engine: mpsc::UnboundedReceiver<FromEngine>,
    heard: mpsc::UnboundedReceiver<Heard>,
    log: Log,
    deliveries: Deliveries,
    lease: Lease,
    /// What waits until the log has been read up to a sequence.
    awaited: BTreeMap<u64, Vec<Awaited>>,
    /// Sequences at which this node was told that a channel is full.
    full: HashSet<u64>,
    /// By app and channel: the number of the subscription.
    subscriptions: HashMap<(Box<str>, Arc<str>), u64>,
    subscription: u64,
    /// Incarnations of this node whose counts are void.
    former: Vec<Box<str>>,
    counts: Counts<Instant>,
    shares: Shares,
    /// Apps whose users' changes are wanted.
    watched: HashSet<Box<str>>,
    terminations: Terminations,
    /// Streams with last events that are there.
    lasts: HashSet<u64>,
    /// Of each stream.
    replicas: u64,
    upkeep: Upkeep,
    /// Until then other nodes may not have told a new log yet what they hold.
    settles: Option<Instant>,
    /// It has read on where the session before was.
    is_continued: bool,
    is_joined: bool,
    has_left: bool,
}

/// Until when this node may write.
#[derive(Debug)]
struct Lease {
    /// By this node's own clock, with a margin.
    ends: Instant,
    /// When the last renewal was sent that this node has read in the log: it knows all that was written before.
    proven: Instant,
    /// The sequence of the last renewal.
    last: u64,
    renew_at: Instant,
    is_renewing: bool,
}

impl driver::Session for Session {
    type Doubt = Doubt;
    type Kept = Kept;

    async fn open(node: Arc<Node>, incarnation: Box<str>, kept: Kept) -> Result<Self, Doubt> {
        let address = Address::parse(&node.settings.url).map_err(Doubt::Url)?;
        let (names, patience) = (Names::new(&node.settings.prefix), node.settings.response_timeout);
        let (router, from_engine, heard) = Router::new(&node);
        let name = format!("taut {}", node.settings.name);
        let connection = Connection::open(&address, &name, patience, Ears(Arc::clone(&router))).await?;
        let mut opening = Opening::new(connection, from_engine, &router, &names, &incarnation, patience, &kept).await?;
        let sent = Instant::now();
        let last = match opening.enter(&node).await {
            Ok(last) => last,
            Err(doubt) => {
                // Whatever of the rest has come, the next session goes on behind it.
                if opening.is_continued {
                    kept.put(opening.log);
                }
                return Err(doubt);
            }
        };
        let Opening {
            connection,
            from_engine,
            incarnation,
            inbox,
            number,
            mut log,
            replicas,
            is_continued,
            deliveries,
            ..
        } = opening;
        log.begin(is_continued);
        let settles = kept.begin(log.epoch(), Instant::now() + node.settings.lease);
        let lease = Lease { ends: node.lease_from(sent), proven: sent, last, renew_at: sent, is_renewing: false };
        Ok(Self {
            queue: Queue::new(&inbox, names.nobody(), api::stream(&names.log()), number),
            awaited: BTreeMap::new(),
            full: HashSet::new(),
            subscriptions: HashMap::new(),
            subscription: opening::LAST,
            former: Vec::new(),
            counts: Counts::default(),
            shares: Shares::default(),
            watched: HashSet::new(),
            terminations: Terminations::default(),
            lasts: HashSet::new(),
            replicas,
            upkeep: Upkeep::default(),
            settles,
            is_continued,
            is_joined: false,
            has_left: false,
            node,
            names,
            incarnation,
            connection,
            router,
            from_engine,
            heard,
            log,
            deliveries,
            lease,
        })
    }

    async fn run(mut self, requests: &mut mpsc::UnboundedReceiver<Message>, memory: &mut Memory) -> Option<Doubt> {
        self.node.status.enter(Phase::Rejoining);
        self.begin(memory);
        let doubt = self.serve(requests, memory).await.err();
        memory.kept.put(self.log);
        doubt
    }

    fn request(&mut self, app: &Arc<App>, request: Request, room: Option<Room>, memory: &Memory) {
        let id: Arc<str> = app.id().into();
        match request {
            Request::Subscribe { channel } => {
                let Some(number) = memory.part.subscription(&id, &channel) else { return };
                if part::occupied(&id, &channel).is_some() {
                    let holding = Holding::Occupied { app: Arc::clone(&id), channel: Arc::clone(&channel) };
                    self.append(Content::Holds(holding), Then::Held(None));
                }
                self.subscribe((*id).into(), channel, number);
            }
            Request::Unsubscribe { channel, waited } => {
                self.unsubscribe((*id).into(), &channel);
                if part::occupied(&id, &channel).is_some() {
                    self.release(Key::Occupied { app: id, channel }, waited);
                }
            }
            Request::Publish { publication, kept, receipt } => {
                let Some(room) = room else { return };
                self.publish(app, &publication, kept, receipt, room);
            }
            Request::Join { channel, member, number, most } => {
                let (user_id, user_info) = (Arc::clone(&member.user_id), member.user_info);
                let (app_id, name) = (Arc::clone(&id), Arc::clone(&channel));
                let holding = Holding::Member { app: app_id, channel: name, user_id: member.user_id, user_info, most };
                let joined = Joined { app: Arc::clone(app), channel, user_id, number, most };
                self.append(Content::Holds(holding), Then::Held(Some(joined)));
            }
            Request::Leave { channel, user_id, waited } => {
                self.release(Key::Member { app: id, channel, user_id }, waited);
            }
            Request::Members { channel } => self.ask(Asked::Members { app: Arc::clone(app), channel }),
            Request::LastEvent { channel, is_missed } => self.last_event(app, channel, is_missed),
            Request::Count { channel, subscribers } => {
                let now = Instant::now();
                if let Some(subscribers) = self.counts.take(&id, &channel, subscribers, now, now + COUNT_INTERVAL) {
                    self.count(&id, &channel, subscribers);
                }
            }
            Request::SignIn { user_id } => {
                self.append(Content::Holds(Holding::SignedIn { app: id, user_id }), Then::Held(None));
            }
            Request::SignOut { user_id } => self.release(Key::SignedIn { app: id, user_id }, Duration::ZERO),
            Request::Online { user_ids, number } => {
                self.watched.insert((*id).into());
                self.ask(Asked::Online { app: Arc::clone(app), user_ids, number });
            }
        }
    }

    fn question(&mut self, question: Question) {
        match question {
            // Only a cache channel has a last event, which is not in the log.
            Question::Channel { app, channel, answer } if Kind::of(&channel).is_cache() => {
                self.ask_channel(app, channel, answer);
            }
            Question::Terminate { app, user_id, answer } => self.terminate(&app, user_id, answer),
            question => self.ask(Asked::Question(question)),
        }
    }

    fn draw(&mut self, app: &Arc<App>, _: &Memory) {
        if let Some(draw) = self.shares.draw(app, &*self.node.owners) {
            self.ask(Asked::Share { app: Arc::clone(app), draw });
        }
    }

    fn leave(&mut self, done: Option<oneshot::Sender<()>>, memory: &mut Memory) {
        memory.is_leaving = true;
        self.node.share_no_places();
        self.node.let_in();
        // Users may be back in time; what counts connections does not wait for them.
        for (app, channel, _) in memory.part.counts() {
            self.count(app, channel, 0);
        }
        self.hand_over(memory);
        let incarnation = Arc::clone(&self.incarnation);
        let grace = self.node.grace(&memory.part);
        if grace.is_zero() {
            return self.fence(&incarnation, &[], Then::Left(done));
        }
        self.append(Content::Left { grace }, Then::Left(done));
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
        let (mut received, mut read) = (Vec::new(), Vec::new());
        while !self.has_left {
            // Before anything is written: this node may have been asleep.
            if Instant::now() >= self.lease.ends {
                return Err(Doubt::Late);
            }
            self.queue.start(&self.connection);
            self.node.status.waiting.store(self.queue.len() + self.awaited.len(), Ordering::Relaxed);
            self.node.status.held_back.store(memory.backlog.len(), Ordering::Relaxed);
            tokio::select! {
                _ = self.from_engine.recv_many(&mut read, MOST_RECEIVED) => {
                    for what in read.drain(..) {
                        self.read(what, memory)?;
                    }
                }
                Some(heard) = self.heard.recv() => self.heard(heard),
                _ = ticks.tick() => self.tick(memory)?,
                _ = requests.recv_many(&mut received, MOST_RECEIVED), if !memory.is_leaving => {
                    self.take_all(&mut received, memory);
                }
            }
        }
        Ok(())
    }

    /// Tells the engine everything that this node holds. The writes of requests follow behind it.
    fn begin(&mut self, memory: &mut Memory) {
        self.upkeep.begin(&self.log, Instant::now());
        self.begin_backlog(memory);
        self.former.clone_from(&memory.former);
        for (subject, target) in
            [(self.names.control(), Target::Control), (self.names.node(&self.incarnation), Target::Control)]
        {
            self.listen(subject, target, None);
        }
        let wanted: Vec<_> =
            memory.part.subscriptions().map(|it| (Box::from(it.app), Arc::clone(it.channel), it.number)).collect();
        for (app, channel, number) in wanted {
            self.subscribe(app, channel, number);
        }
        self.watched = memory.part.watched().map(Into::into).collect();
        for (cell, user_info) in memory.part.cells() {
            let holding = holding(&cell, user_info);
            self.append(Content::Holds(holding), Then::Held(None));
        }
        for (app, channel, subscribers) in memory.part.counts() {
            self.count(app, channel, subscribers);
        }
        for app in &self.node.apps.all() {
            self.draw(app, memory);
        }
        for incarnation in &memory.former {
            self.fence(&Arc::from(&**incarnation), &[], Then::Fenced);
        }
        self.queue.push(queue::Entry::Ask(Then::Asked(Asked::Rejoined)));
    }

    /// Writes down how many connections of an app this node has, in place of the last time that any node did so.
    fn share(&mut self, app: Arc<App>, draw: Draw) {
        let (granted, shares, before) = self.log.share(&self.incarnation, &self.former, &draw);
        let content = Content::Shared { app: (*draw.app).into(), shares };
        let entry = Entry { incarnation: Arc::clone(&self.incarnation), content };
        let headers = [(api::EXPECTED, before.to_string())];
        self.queue.push(self.entry(&entry, &headers, Then::Shared { app, draw, granted }));
    }

    /// Asks the log, once it has been read up to where it is when the engine gets this.
    fn ask(&mut self, asked: Asked) {
        self.queue.push(queue::Entry::Ask(Then::Asked(asked)));
    }

    fn subscribe(&mut self, app: Box<str>, channel: Arc<str>, number: u64) {
        self.unsubscribe(app.clone(), &channel);
        if let (true, Some(known)) = (Kind::of(&channel).is_cache(), self.node.apps.by_id(&app)) {
            // What comes of it has a position in this stream.
            self.last_stream(known.snapshot().limits.cache_ttl);
        }
        let subject = self.names.channel(&app, &channel);
        let target = Target::Channel { app: Arc::from(&*app), channel: Arc::clone(&channel) };
        let then = Then::Subscribed { app: app.clone(), channel: Arc::clone(&channel), number };
        let subscription = self.listen(subject, target, Some(then));
        self.subscriptions.insert((app, channel), subscription);
    }

    fn unsubscribe(&mut self, app: Box<str>, channel: &Arc<str>) {
        if let Some(subscription) = self.subscriptions.remove(&(app, Arc::clone(channel))) {
            self.router.remove(subscription);
            self.queue.push(queue::Entry::Unsubscribe { subscription });
        }
    }

    fn listen(&mut self, subject: String, target: Target, then: Option<Then>) -> u64 {
        self.subscription += 1;
        let subscription = self.subscription;
        self.router.add(subscription, target);
        self.queue.push(queue::Entry::Subscribe { subject, subscription, then });
        subscription
    }

    fn publish(&mut self, app: &App, publication: &Publication, kept: bool, receipt: Option<Receipt>, room: Room) {
        let carriage = Carriage { receipt, _room: room };
        let payload = wire::Message::published(&self.node.origin, publication);
        if payload.len() + HEADERS > self.connection.max_payload {
            // The server would end the connection.
            let (channel, bytes, most) = (&*publication.channel, payload.len(), self.connection.max_payload);
            tracing::warn!(
                channel,
                bytes,
                most,
                "an event is larger than the server of NATS takes: see its max_payload"
            );
            return;
        }
        let subject = self.names.channel(app.id(), &publication.channel);
        if !kept {
            return self.queue.push(queue::Entry::Publish { subject, payload, then: Then::Carried(carriage) });
        }
        let ttl = app.snapshot().limits.cache_ttl;
        let seconds = self.last_stream(ttl);
        let until = self.deliveries.now(Instant::now()).saturating_add(ttl.as_millis() as u64);
        self.queue.push(queue::Entry::Append {
            subject: self.names.keep(seconds, app.id(), &publication.channel),
            headers: vec![(api::UNTIL, until.to_string())],
            payload,
            before: Some(subject),
            then: Then::Kept { carriage, seconds },
        });
    }

    /// The stream for last events that are kept for this long: it is made if it is not there.
    fn last_stream(&mut self, ttl: Duration) -> u64 {
        // Few streams do for all apps: what is kept for too long is not given out.
        let seconds = ttl.as_secs().clamp(SHORTEST_KEPT, LONGEST_KEPT).next_power_of_two();
        if self.lasts.insert(seconds) {
            let request = api::stream(&self.names.last(seconds));
            self.queue.push(queue::Entry::Request { request, is_first: true, then: Then::LastStream { seconds } });
        }
        seconds
    }

    fn last_event(&mut self, app: &Arc<App>, channel: Arc<str>, is_missed: bool) {
        let (seconds, request) = self.request_last(app, &channel);
        let then = Then::LastEvent { app: Arc::clone(app), channel, is_missed, seconds };
        self.queue.push(queue::Entry::Request { request, is_first: false, then });
    }

    fn ask_channel(&mut self, app: Arc<App>, channel: Box<str>, answer: oneshot::Sender<crate::query::ChannelState>) {
        let (_, request) = self.request_last(&app, &channel);
        let then = Then::ChannelState { app, channel, answer };
        self.queue.push(queue::Entry::Request { request, is_first: false, then });
        self.ask(Asked::Nothing);
    }

    fn request_last(&mut self, app: &App, channel: &str) -> (u64, api::Request) {
        let seconds = self.last_stream(app.snapshot().limits.cache_ttl);
        (seconds, api::last_of(&self.names.last(seconds), &self.names.keep(seconds, app.id(), channel)))
    }

    /// A stream keeps it for nodes that are away.
    fn terminate(&mut self, app: &App, user_id: Arc<str>, answer: oneshot::Sender<usize>) {
        let request = self.terminations.ask(Instant::now(), answer);
        let (origin, from) = (self.node.origin.clone(), (*self.incarnation).into());
        let subject = self.names.terminated_user(app.id(), &user_id);
        let message = wire::Message::Terminate { origin, from, request, app: app.id().into(), user_id };
        let until = self.deliveries.now(Instant::now()).saturating_add(api::TERMINATED.as_millis() as u64);
        self.queue.push(queue::Entry::Append {
            subject,
            headers: vec![(api::UNTIL, until.to_string())],
            payload: message.write(),
            before: None,
            then: Then::Terminating,
        });
        self.announce(self.names.control(), &message);
        self.ask(Asked::Terminating { request });
    }

    fn count(&mut self, app: &str, channel: &Arc<str>, subscribers: usize) {
        let (app, channel) = (app.into(), Arc::clone(channel));
        if subscribers == 0 {
            return self.release(Key::Counted { app, channel }, Duration::ZERO);
        }
        let holding = Holding::Counted { app, channel, subscribers, former: self.former.clone() };
        self.append(Content::Holds(holding), Then::Held(None));
    }

    /// Gives something up, which has been held back for as long as it `waited`.
    fn release(&mut self, key: Key, waited: Duration) {
        self.append(Content::Released { key, waited }, Then::Spent);
    }

    /// Writes something into the log.
    fn append(&mut self, content: Content, then: Then) {
        let entry = Entry { incarnation: Arc::clone(&self.incarnation), content };
        self.queue.push(self.entry(&entry, &[], then));
    }

    /// Nothing that the incarnation has written counts from here on.
    fn fence(&mut self, incarnation: &Arc<str>, headers: &[(&'static str, String)], then: Then) {
        let entry = Entry { incarnation: Arc::clone(incarnation), content: Content::Fenced };
        self.queue.push(self.entry(&entry, headers, then));
    }

    fn entry(&self, entry: &Entry, headers: &[(&'static str, String)], then: Then) -> queue::Entry<Then> {
        let (subject, mut headers) = (self.names.entry(entry), headers.to_vec());
        headers.extend(entry.header().map(|header| (api::TOLD, header)));
        queue::Entry::Append { subject, headers, payload: entry.write(), before: None, then }
    }

    /// Sends something to nodes.
    fn announce(&mut self, subject: String, message: &wire::Message) {
        self.queue.push(queue::Entry::Publish { subject, payload: message.write(), then: Then::Nothing });
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Lost | Heard::Moved => {}
            Heard::Terminated { request, node } => self.terminations.done(request, node),
            Heard::Closed { from, request } => {
                let message = wire::Message::Terminated { request, node: (*self.incarnation).into() };
                self.announce(self.names.node(&from), &message);
            }
        }
    }

    fn read(&mut self, what: FromEngine, memory: &mut Memory) -> Result<(), Doubt> {
        match what {
            FromEngine::Lost(doubt) => return Err(doubt),
            FromEngine::Answer { number, answer } => {
                if let Some(finished) = self.queue.answered(number, answer) {
                    self.finished(finished, memory)?;
                }
            }
            FromEngine::Stalled { reply } => {
                let mut writer = Writer::default();
                writer.publish(&reply, None, &[], b"");
                self.connection.send(writer.take());
            }
            FromEngine::Log(delivered) => self.delivered(delivered, memory)?,
        }
        Ok(())
    }

    /// The next entry of the log has come.
    fn delivered(&mut self, delivered: Delivered, memory: &mut Memory) -> Result<(), Doubt> {
        let Delivered { sequence, number, at, entry } = delivered;
        let now = Instant::now();
        self.deliveries.take(number, at, now)?;
        let Some(entry) = entry else {
            self.log.skip(sequence);
            self.reached(sequence, memory);
            return Ok(());
        };
        if matches!(entry.content, Content::Renewed { .. } | Content::Left { .. }) {
            self.upkeep.seen(&entry.incarnation, now);
        }
        let mut outcomes = Vec::new();
        self.log.apply(sequence, at, entry, &mut outcomes);
        for outcome in outcomes {
            self.outcome(outcome, memory)?;
        }
        self.reached(sequence, memory);
        Ok(())
    }

    fn outcome(&mut self, outcome: Outcome, memory: &Memory) -> Result<(), Doubt> {
        match outcome {
            Outcome::Changed { app, channel, change } => {
                self.tell(&app, Some(&channel), memory, || Update::Changed { channel: Arc::clone(&channel), change });
            }
            Outcome::Counted { app, channel, subscribers } => {
                let counted = || Update::Counted { channel: Arc::clone(&channel), subscribers };
                self.tell(&app, Some(&channel), memory, counted);
            }
            Outcome::Status { app, user_id, is_online } => {
                if self.watched.contains(&*app) {
                    self.tell(&app, None, memory, || Update::Status { user_id, is_online });
                }
            }
            Outcome::Full { incarnation, key } if incarnation == self.incarnation => {
                self.full.insert(self.log.sequence());
                self.release(key, Duration::ZERO);
            }
            Outcome::Full { .. } => {}
            Outcome::Fenced { incarnation } if incarnation == self.incarnation && !memory.is_leaving => {
                return Err(Doubt::Fenced);
            }
            Outcome::Fenced { incarnation } => self.upkeep.fenced(incarnation, self.log.sequence(), Instant::now()),
            Outcome::Void { incarnation } => self.upkeep.void(incarnation),
        }
        Ok(())
    }

    /// Tells an owner on this node, if the channel has one.
    fn tell(&self, app: &str, channel: Option<&Arc<str>>, memory: &Memory, update: impl FnOnce() -> Update) {
        if channel.is_some_and(|channel| memory.part.subscription(app, channel).is_none()) {
            return;
        }
        if let Some(app) = self.node.apps.by_id(app) {
            self.node.owners.update(&app, update());
        }
    }
}

/// What a cell is in the log.
fn holding(cell: &Cell<'_>, user_info: Option<&str>) -> Holding {
    match *cell {
        Cell::Occupied { app, channel } => Holding::Occupied { app: app.into(), channel: channel.into() },
        Cell::SignedIn { app, user_id } => Holding::SignedIn { app: app.into(), user_id: user_id.into() },
        Cell::Member { app, channel, user_id } => Holding::Member {
            app: app.into(),
            channel: channel.into(),
            user_id: user_id.into(),
            user_info: user_info.map(Into::into),
            most: 0,
        },
    }
}

/// What this node says of itself.
fn said(node: &Node) -> Content {
    Content::Renewed {
        name: (*node.settings.name).into(),
        version: env!("CARGO_PKG_VERSION").into(),
        connections: node.connections(),
    }
}

/// What is taken at once.
const MOST_RECEIVED: usize = 256;

/// There is one log.
const LOG: Stream = 0;

/// Between two numbers of subscribers of one channel.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of headers, for what the server counts to a message.
const HEADERS: usize = 256;

/// Seconds for which a stream keeps last events.
const SHORTEST_KEPT: u64 = 64;
const LONGEST_KEPT: u64 = 1 << 31;
