//! The way to a channel's owner, and whatever else shards tell each other.
//!
//! Every channel has one owner among the shards of a node. All events of the channel go through it, so all subscribers
//! see one order; it passes an event on only to shards with subscribers. Only the bus knows which shard the owner is.
//!
//! Publishers are turned away with 503 while any mailbox is half full. A gap is never silent: subscribers of a shard
//! that missed an event are closed, and reconnect.

mod end;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use taut_shard::{ConnectionId, Mailbox, Refused};

use crate::apps::{App, Granted};
use crate::cluster::{Broker, Done, Happened, Owners};
use crate::connect_auth::{Outcome, Requester};
use crate::events::{Event, EventBus};
use crate::gateway::{Outcome as Routed, Whose};
use crate::hub::command::{Command, Publication};
use crate::hub::engine::{Request, Standing, Update};
use crate::hub::envelope::{Content, Envelope};
use crate::place::{AppIndex, ShardIndex};
use crate::pusher::channel::Kind;
use crate::query::Query;
#[cfg(test)]
pub(crate) use end::WINDOW;
pub(crate) use end::{BusEnd, Outlet, Post};

/// What comes through a shard's mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    /// From another shard, or from a publisher.
    Hub(Envelope<ConnectionId>),
    /// To all: close every connection that acts as this user and is at least of this age. That is done, as far as this shard is concerned, when
    /// `done` is dropped.
    Terminate {
        app: AppIndex,
        user_id: Arc<str>,
        age: Duration,
        done: Done,
    },
    /// To all: what came before this is handled when `done` is dropped.
    Mark {
        done: Done,
    },
    /// Who wants to connect, or why that is refused.
    Authorized {
        asker: Requester,
        app: AppIndex,
        outcome: Box<Outcome>,
    },
    /// What has come of an event of a route's connection.
    Routed {
        whose: Whose,
        outcome: Routed,
    },
    /// The backend of a route's connection has sent something, which is to be taken.
    Relayed {
        connection: ConnectionId,
    },
    /// To all: clients of the app that wait for a place are let in, refused, or wait on.
    Granted {
        app: AppIndex,
        granted: Granted,
    },
    /// To all: apps or routes have been changed or taken away.
    AppsChanged,
    /// To all: the engine of the cluster decides from here on, or cannot.
    Standing(Standing),
    /// To all, about once per second.
    Tick,
    /// To all: the server stops, and the connections have gone. Nobody comes back to this process.
    EndGrace,
    Query(Query),
}

/// The way to every shard of a node.
pub(crate) struct ShardBus {
    shards: usize,
    hasher: RandomState,
    /// Set as soon as the shards exist, before the first of them runs.
    mailboxes: OnceLock<Box<[Mailbox<Mail>]>>,
    is_clustered: bool,
    /// The way to the engine of the cluster, on a node of one. Set before the first shard runs.
    broker: OnceLock<Arc<dyn Broker>>,
    began: Instant,
    /// When each shard was last told of the time, in milliseconds.
    ticked: Box<[AtomicU64]>,
}

impl ShardBus {
    pub(crate) fn new(shards: usize) -> Self {
        let ticked = (0..shards).map(|_| AtomicU64::new(0)).collect();
        Self {
            shards,
            hasher: RandomState::new(),
            mailboxes: OnceLock::new(),
            is_clustered: false,
            broker: OnceLock::new(),
            began: Instant::now(),
            ticked,
        }
    }

    /// Every shard.
    pub(crate) fn all(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..self.shards).map(ShardIndex::new)
    }

    /// Opens the way; to be called once.
    pub(crate) fn connect(&self, mailboxes: Vec<Mailbox<Mail>>) {
        debug_assert_eq!(mailboxes.len(), self.shards);
        let first = self.mailboxes.set(mailboxes.into()).is_ok();
        debug_assert!(first);
    }

    /// Says before the shards are made whether the node will be one of a cluster. Its broker is started, and [set](Self::set_broker), once they can be
    /// reached, so that they miss nothing that it tells them.
    pub(crate) fn in_cluster(self, is_clustered: bool) -> Self {
        Self { is_clustered, ..self }
    }

    /// Whether the node is one of a cluster, or is going to be.
    pub(crate) fn is_clustered(&self) -> bool {
        self.is_clustered || self.broker.get().is_some()
    }

    /// Makes this node one of a cluster; to be called once, before the first shard runs.
    pub(crate) fn set_broker(&self, broker: Arc<dyn Broker>) {
        let first = self.broker.set(broker).is_ok();
        debug_assert!(first);
    }

    /// The engine of the cluster, on a node of one.
    pub(crate) fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.broker.get()
    }

    /// The shard that owns a channel, or the app's users.
    pub(crate) fn owner(&self, app: AppIndex, channel: Option<&str>) -> ShardIndex {
        let shard = match (self.shards, channel) {
            (1, _) => 0,
            // No channel has such a name.
            (shards, channel) => self.hasher.hash_one((app, channel.unwrap_or("#users"))) % shards as u64,
        };
        ShardIndex::new(shard as usize)
    }

    /// Sends the same to every shard.
    pub(crate) fn tell_all(&self, mail: impl Fn() -> Mail) {
        for shard in self.all() {
            self.tell(shard, mail());
        }
    }

    /// Sends what must not be lost. The sender sees to it that there is little of it: of each kind no more than there are connections with
    /// something to leave, or channels with members.
    pub(crate) fn tell(&self, shard: ShardIndex, mail: Mail) {
        if let Some(mailbox) = self.mailbox(shard) {
            // Refused only by a shard that has stopped, which has no members any more.
            let _ = mailbox.push_always(mail);
        }
    }

    /// Brings events to the owners of their channels, either all of them or none.
    ///
    /// Publishers are turned away while any mailbox is half full: the other half is for what their events become, one mail for each shard with
    /// members. So a burst that lasts ends in refusals, which a publisher can repeat, and not in gaps, which nobody could see.
    ///
    /// `here` is the shard within whose call this happens, if it does: it need not be woken for what is its own.
    pub(crate) fn publish(
        &self,
        app: AppIndex,
        publications: impl Iterator<Item = Publication>,
        here: Option<ShardIndex>,
    ) -> Result<(), Busy> {
        let mailboxes = self.mailboxes.get().ok_or(Busy)?;
        if self.is_overloaded() {
            return Err(Busy);
        }
        for (number, publication) in publications.enumerate() {
            let owner = self.owner(app, Some(&publication.channel));
            let (mailbox, bytes) = (&mailboxes[owner.get()], publication.bytes());
            let content = Content::Command(Command::Publish(publication));
            let mail = Mail::Hub(Envelope { app, from: here.unwrap_or(owner), content });
            let pushed =
                if here == Some(owner) { mailbox.push_to_self(mail, bytes) } else { mailbox.push(mail, bytes) };
            if let Err(refused) = pushed {
                if number == 0 {
                    return Err(Busy);
                }
                // What has begun is finished, or a publisher that tries again would publish the first ones twice.
                mailbox.push_always(refused.0).map_err(|_| Busy)?;
            }
        }
        Ok(())
    }

    /// A shard has taken its [`Mail::Tick`].
    pub(crate) fn has_ticked(&self, shard: ShardIndex, now: Instant) {
        if let Some(ticked) = self.ticked.get(shard.get()) {
            ticked.store(self.milliseconds(now), Ordering::Relaxed);
        }
    }

    /// Whether some shard has taken no tick for so long: it is stuck, or has far too much to do.
    pub(crate) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        let now = self.milliseconds(now);
        let is_late =
            |ticked: &AtomicU64| u128::from(now.saturating_sub(ticked.load(Ordering::Relaxed))) > patience.as_millis();
        self.ticked.iter().any(is_late)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether any mailbox is half full.
    pub(crate) fn is_overloaded(&self) -> bool {
        let mut mailboxes = self.mailboxes.get().into_iter().flatten();
        mailboxes.any(|mailbox| mailbox.waiting() > PUBLISHERS_SHARE)
    }

    fn mailbox(&self, shard: ShardIndex) -> Option<&Mailbox<Mail>> {
        self.mailboxes.get()?.get(shard.get())
    }
}

impl Post<ConnectionId> for ShardBus {
    fn owner(&self, app: AppIndex, channel: Option<&str>) -> ShardIndex {
        self.owner(app, channel)
    }

    fn offer(
        &self,
        to: ShardIndex,
        envelope: Envelope<ConnectionId>,
        bytes: usize,
    ) -> Result<(), Envelope<ConnectionId>> {
        let Some(mailbox) = self.mailbox(to) else { return Err(envelope) };
        match mailbox.push(Mail::Hub(envelope), bytes) {
            Err(Refused(Mail::Hub(envelope))) => Err(envelope),
            _ => Ok(()),
        }
    }

    fn send(&self, to: ShardIndex, envelope: Envelope<ConnectionId>) {
        self.tell(to, Mail::Hub(envelope));
    }

    fn ask_engine(&self, app: &Arc<App>, request: Request) {
        if let Some(broker) = self.broker() {
            broker.send(app, request);
        }
    }
}

/// The owners of this node, as the engine of a cluster sees them.
#[derive(Debug)]
pub(crate) struct NodeOwners {
    pub(crate) bus: Arc<ShardBus>,
    pub(crate) events: EventBus,
}

impl Owners for NodeOwners {
    fn update(&self, app: &Arc<App>, update: Update) {
        let (app, bus) = (app.index(), &self.bus);
        let owner = bus.owner(app, update.channel().map(|channel| &**channel));
        let envelope = |update| Envelope { app, from: owner, content: Content::Update(Box::new(update)) };
        let bytes = match &update {
            Update::Published { publication, .. } => publication.bytes(),
            _ => return bus.send(owner, envelope(update)),
        };
        if let Err(Envelope { content: Content::Update(update), .. }) = bus.offer(owner, envelope(update), bytes)
            && let Some(channel) = update.channel().map(Arc::clone)
        {
            bus.send(owner, envelope(Update::Missed { channel }));
        }
    }

    fn standing(&self, standing: Standing) {
        self.bus.tell_all(|| Mail::Standing(standing));
    }

    fn granted(&self, app: &Arc<App>, granted: Granted) {
        let app = app.index();
        self.bus.tell_all(|| Mail::Granted { app, granted });
    }

    fn terminate(&self, app: &Arc<App>, user_id: &Arc<str>, age: Duration, done: Done) {
        let app = app.index();
        self.bus.tell_all(|| Mail::Terminate { app, user_id: Arc::clone(user_id), age, done: done.clone() });
    }

    fn happened(&self, app: &Arc<App>, happened: Happened) {
        let Happened { event, waited, ago } = happened;
        if let Event::SubscriptionCount { channel, .. } = &event
            && !app.snapshot().config.features.announces_count(Kind::of(channel))
        {
            return; // The nodes count it for backends that ask.
        }
        self.events.record_for_webhooks(app, event, waited, ago);
    }
}

impl fmt::Debug for ShardBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ShardBus").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// The shards have more to do than they can hold: try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Bytes that may wait in a mailbox before publishers are turned away; half of what one holds.
const PUBLISHERS_SHARE: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::command::Event;
    use crate::pusher::payload::Payload;
    use std::net::TcpListener;
    use taut_proto::Message;
    use taut_shard::{Connections, Handler, Session, Settings, Shard};
    use tokio::sync::oneshot::{self, error::TryRecvError};

    /// A shard that only collects its mail, and only when it is told to.
    struct Collector(Vec<Mail>);

    impl Handler for Collector {
        type User = ();
        type Mail = Mail;

        fn message(&mut self, _session: &mut Session<'_, ()>, _message: Message<'_>) {}

        fn mail(&mut self, _connections: &mut Connections<()>, mail: Mail) {
            self.0.push(mail);
        }
    }

    fn shards(count: usize) -> (ShardBus, Vec<Shard<Collector>>) {
        let shard = |_| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            Shard::new(listener, Collector(Vec::new()), Settings::default()).expect("a shard")
        };
        let shards: Vec<_> = (0..count).map(shard).collect();
        let bus = ShardBus::new(count);
        bus.connect(shards.iter().map(Shard::mailbox).collect());
        (bus, shards)
    }

    fn collected(shard: &mut Shard<Collector>) -> Vec<Mail> {
        let mailbox = shard.mailbox();
        while mailbox.waiting() > 0 {
            shard.tick().expect("a tick");
        }
        std::mem::take(&mut shard.handler().0)
    }

    fn publication(channel: &str, bytes: usize) -> Publication {
        let event = Event::published("event", &Payload::from("x".repeat(bytes).as_str()));
        Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None }
    }

    fn publish(bus: &ShardBus, publications: impl IntoIterator<Item = Publication>) -> Result<(), Busy> {
        bus.publish(AppIndex::new(0), publications.into_iter(), None)
    }

    fn is_publish(mail: &Mail, name: &str) -> bool {
        let Mail::Hub(Envelope { content: Content::Command(Command::Publish(publication)), .. }) = mail else {
            return false;
        };
        *publication.channel == *name
    }

    fn owner(bus: &ShardBus, channel: &str) -> usize {
        bus.owner(AppIndex::new(0), Some(channel)).get()
    }

    /// Some channel whose owner is this shard.
    fn channel_of(bus: &ShardBus, shard: usize) -> String {
        (0..1000).map(|number| format!("channel-{number}")).find(|name| owner(bus, name) == shard).expect("one of many")
    }

    #[test]
    fn owners_are_spread_and_stay() {
        let bus = ShardBus::new(4);
        let mut counts = [0; 4];
        for number in 0..1000 {
            let name = format!("channel-{number}");
            counts[owner(&bus, &name)] += 1;
            assert_eq!(owner(&bus, &name), owner(&bus, &name));
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
        assert_eq!(owner(&ShardBus::new(1), "chat"), 0);
    }

    #[test]
    fn an_event_goes_to_its_owner_only() {
        let (bus, mut shards) = shards(2);
        let channel = channel_of(&bus, 1);
        assert_eq!(publish(&bus, [publication(&channel, 10)]), Ok(()));
        assert!(collected(&mut shards[0]).is_empty());
        let mail = collected(&mut shards[1]);
        assert!(mail.len() == 1 && is_publish(&mail[0], &channel), "{mail:?}");
    }

    #[test]
    fn what_is_told_to_all_comes_to_every_shard_once() {
        let (bus, mut shards) = shards(3);
        bus.tell_all(|| Mail::Tick);
        for shard in &mut shards {
            assert!(matches!(collected(shard)[..], [Mail::Tick]));
        }
    }

    #[test]
    fn a_full_mailbox_gives_back_what_it_is_offered_and_takes_what_must_not_be_lost() {
        let (bus, mut shards) = shards(1);
        let (app, to) = (AppIndex::new(0), ShardIndex::new(0));
        let content = |channel: &str| Content::Command(Command::Publish(publication(channel, 10)));
        let envelope = |channel: &str| Envelope { app, from: to, content: content(channel) };
        let taken = (0..1000).take_while(|_| bus.offer(to, envelope("first"), 100_000).is_ok()).count();
        assert!((160..=180).contains(&taken), "{taken}");
        let refused = bus.offer(to, envelope("second"), 100_000).map_err(Mail::Hub).expect_err("it is full");
        assert!(is_publish(&refused, "second"), "{refused:?}");
        bus.send(to, envelope("third"));
        let mail = collected(&mut shards[0]);
        assert!(mail.len() == taken + 1 && is_publish(&mail[taken], "third"));
        assert!(bus.offer(to, envelope("fourth"), 100_000).is_ok());
    }

    #[test]
    fn publishers_are_turned_away_while_any_mailbox_is_half_full() {
        let (bus, mut shards) = shards(2);
        let (first, second) = (channel_of(&bus, 0), channel_of(&bus, 1));
        let taken = (0..1000).take_while(|_| publish(&bus, [publication(&first, 100_000)]).is_ok()).count();
        assert!((80..=90).contains(&taken), "{taken}");
        assert!(bus.is_overloaded());
        assert_eq!(publish(&bus, [publication(&second, 10)]), Err(Busy));
        assert_eq!(collected(&mut shards[0]).len(), taken);
        assert!(!bus.is_overloaded());
        assert_eq!(publish(&bus, [publication(&second, 10)]), Ok(()));
    }

    #[test]
    fn a_shard_that_takes_no_tick_is_noticed() {
        let (bus, _shards) = shards(2);
        let patience = Duration::from_secs(3);
        let at = |seconds| bus.began + Duration::from_secs(seconds);
        assert!(!bus.is_stuck(at(3), patience), "none has had the time");
        assert!(bus.is_stuck(at(4), patience));
        bus.has_ticked(ShardIndex::new(0), at(4));
        assert!(bus.is_stuck(at(4), patience), "the other one has not");
        bus.has_ticked(ShardIndex::new(1), at(4));
        assert!(!bus.is_stuck(at(6), patience));
        assert!(bus.is_stuck(at(8), patience));
    }

    #[test]
    fn a_publish_that_has_begun_is_finished() {
        let (bus, mut shards) = shards(1);
        let events = (0..100).map(|_| publication("chat", 1_000_000));
        assert_eq!(publish(&bus, events), Ok(()));
        assert_eq!(collected(&mut shards[0]).len(), 100);
    }

    #[test]
    fn who_asks_a_shard_that_stops_learns_so_at_once() {
        let (bus, shards) = shards(1);
        let (answer, mut answered) = oneshot::channel();
        bus.tell(ShardIndex::new(0), Mail::Query(Query::Statistics { answer }));
        assert_eq!(answered.try_recv(), Err(TryRecvError::Empty));
        drop(shards);
        assert_eq!(answered.try_recv(), Err(TryRecvError::Closed));
    }
}
