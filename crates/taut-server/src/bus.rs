//! Which shard is a channel's owner, and what shards say to each other.
//!
//! Every channel has one owner among a node's shards. Whatever is published to it goes through there, so that all its members see one order; the
//! owner knows which shards have members and passes it on to those only.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use taut_proto::Prepared;
use taut_proto::handshake::Refusal;
use taut_shard::{ConnectionId, HandshakeId, Mailbox};
use tokio::sync::mpsc;

use crate::owner::{Full, Subscribe, Subscribed};
use crate::pusher::member::Identity;
use crate::pusher::socket_id::SocketId;
use crate::query::Query;

/// What comes through a shard's mailbox. `app` is always the [index](crate::apps::App::index) of an app.
#[derive(Debug)]
pub(crate) enum Mail {
    /// To a channel's owner: somebody publishes.
    Publish(Published),
    /// From a channel's owner: deliver this to those here who want it.
    Deliver(Published),
    /// From a channel's owner: something for the channel found no room in the mailbox, so its members here have missed it.
    Missed { app: usize, channel: Arc<str> },
    /// To a channel's owner: a connection here subscribes, and it is one that the owner has to know of.
    Enter { app: usize, channel: Arc<str>, shard: usize, request_id: RequestId, subscribe: Subscribe },
    /// From a channel's owner, to the shard that asked with this ticket: whoever waits is subscribed, and from here on everything that is published comes.
    Entered { app: usize, channel: Arc<str>, request_id: RequestId, subscribed: Subscribed },
    /// From a channel's owner, instead: whoever waits cannot be let in.
    Rejected { app: usize, channel: Arc<str>, request_id: RequestId, why: Rejected },
    /// To a channel's owner: a user's connection, or the last connection of all here, has left.
    Leave { app: usize, channel: Arc<str>, shard: usize, user_id: Option<Arc<str>>, is_last: bool },
    /// To a channel's owner: so many are subscribed here.
    Count { app: usize, channel: Arc<str>, shard: usize, connections: usize },
    /// To the owner of an app's users: a connection has signed in, or one that had has ended.
    Online { app: usize, user_id: Arc<str>, is_online: bool },
    /// To the owner of an app's users: a connection here watches these.
    Watch { app: usize, user_ids: Arc<[Arc<str>]>, shard: usize, connection: ConnectionId },
    /// From the owner of an app's users: how it stands with those that the connection watches.
    Watched { connection: ConnectionId, online: Vec<Arc<str>>, offline: Vec<Arc<str>> },
    /// To the owner of an app's users: nobody here watches this one any more.
    Unwatch { app: usize, user_id: Arc<str>, shard: usize },
    /// From the owner of an app's users: one of them has come or gone.
    Status { app: usize, user_id: Arc<str>, is_online: bool },
    /// To all: close every connection that acts as this user. That is done, as far as this shard is concerned, when `done` is dropped.
    Terminate { app: usize, user_id: Arc<str>, done: Done },
    /// To all: what came before this is handled when `done` is dropped.
    Mark { done: Done },
    /// From the guard: who wants to come in, or why it may not.
    Vetted { handshake: HandshakeId, app: usize, outcome: Box<Result<Identity, Refusal>> },
    /// To all: apps have been changed or taken away.
    AppsChanged,
    /// To all, about once per second.
    Tick,
    /// Somebody wants to know something.
    Ask(Query),
}

/// Identifies a question to a channel's owner, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    pub(crate) number: u32,
    /// What the answer may weigh, where a single word weighs 1.
    pub(crate) weight: u32,
}

/// Tells that something is done when the last clone of it is dropped; also where a shard has stopped, which drops its mail.
pub(crate) type Done = mpsc::Sender<()>;

/// Why a channel's owner lets a connection not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The presence channel has as many users as it may.
    Full(Full),
    /// The app has as many channels as it may, and this would be a new one.
    TooManyChannels { most: usize },
    /// There is no room for the answer.
    Busy,
}

/// An event on its way to a channel's members, in the form in which all of them get it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) app: usize,
    pub(crate) channel: Arc<str>,
    pub(crate) message: Prepared,
    /// Who does not get it.
    pub(crate) excluded: Option<SocketId>,
    /// Whether it is to be kept as the last event of a cache channel.
    pub(crate) keep: bool,
    /// When it was taken from its publisher.
    pub(crate) at: Instant,
}

impl Published {
    fn bytes(&self) -> usize {
        self.channel.len() + self.message.len()
    }
}

/// The way to every shard of a node.
pub(crate) struct ShardBus {
    shards: usize,
    hasher: RandomState,
    /// Set as soon as the shards exist, before the first of them runs.
    mailboxes: OnceLock<Box<[Mailbox<Mail>]>>,
    began: Instant,
    /// When each shard was last told of the time, in milliseconds.
    ticked: Box<[AtomicU64]>,
}

impl ShardBus {
    pub(crate) fn new(shards: usize) -> Self {
        let ticked = (0..shards).map(|_| AtomicU64::new(0)).collect();
        Self { shards, hasher: RandomState::new(), mailboxes: OnceLock::new(), began: Instant::now(), ticked }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// Opens the way; to be called once.
    pub(crate) fn connect(&self, mailboxes: Vec<Mailbox<Mail>>) {
        debug_assert_eq!(mailboxes.len(), self.shards);
        let first = self.mailboxes.set(mailboxes.into()).is_ok();
        debug_assert!(first);
    }

    pub(crate) fn owner(&self, app: usize, channel: &str) -> usize {
        if self.shards == 1 {
            return 0;
        }
        (self.hasher.hash_one((app, channel)) % self.shards as u64) as usize
    }

    /// The shard that keeps which of an app's users have signed in.
    pub(crate) fn owner_of_users(&self, app: usize) -> usize {
        // No channel has such a name.
        self.owner(app, "#users")
    }

    /// Sends what may be refused when the mailbox is full.
    pub(crate) fn ask(&self, shard: usize, mail: Mail, bytes: usize) -> Result<(), Busy> {
        self.mailbox(shard).ok_or(Busy)?.push(mail, bytes).map_err(|_| Busy)
    }

    /// Sends the same to every shard.
    pub(crate) fn tell_all(&self, mail: impl Fn() -> Mail) {
        for shard in 0..self.shards {
            self.tell(shard, mail());
        }
    }

    /// Sends what must not be lost. The sender sees to it that there is little of it: of each kind no more than there are connections with
    /// something to leave, or channels with members.
    pub(crate) fn tell(&self, shard: usize, mail: Mail) {
        if let Some(mailbox) = self.mailbox(shard) {
            // Refused only by a shard that has stopped, which has no members any more.
            let _ = mailbox.push_always(mail);
        }
    }

    /// Passes an event from its owner on to a shard with members.
    pub(crate) fn pass_on(&self, shard: usize, published: &Published) {
        let Some(mailbox) = self.mailbox(shard) else {
            return;
        };
        if mailbox.push(Mail::Deliver(published.clone()), published.bytes()).is_err() {
            self.tell(shard, Mail::Missed { app: published.app, channel: Arc::clone(&published.channel) });
        }
    }

    /// Brings events to the owners of their channels, either all of them or none.
    ///
    /// Publishers are turned away while any mailbox is half full: the other half is for what their events become, one mail for each shard with
    /// members. So a burst that lasts ends in refusals, which a publisher can repeat, and not in gaps, which nobody could see.
    ///
    /// `here` is the shard within whose call this happens, if it does: it need not be woken for what is its own.
    pub(crate) fn publish(&self, events: impl Iterator<Item = Published>, here: Option<usize>) -> Result<(), Busy> {
        let mailboxes = self.mailboxes.get().ok_or(Busy)?;
        if self.is_overloaded() {
            return Err(Busy);
        }
        for (number, published) in events.enumerate() {
            let owner = self.owner(published.app, &published.channel);
            let (mailbox, bytes) = (&mailboxes[owner], published.bytes());
            let mail = Mail::Publish(published);
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
    pub(crate) fn has_ticked(&self, shard: usize, now: Instant) {
        if let Some(ticked) = self.ticked.get(shard) {
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

    fn mailbox(&self, shard: usize) -> Option<&Mailbox<Mail>> {
        self.mailboxes.get()?.get(shard)
    }
}

impl fmt::Debug for ShardBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Routes").field("shards", &self.shards).finish_non_exhaustive()
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

    fn published(channel: &str, bytes: usize) -> Published {
        let message = Prepared::new("x".repeat(bytes).as_str());
        Published { app: 0, channel: channel.into(), message, excluded: None, keep: false, at: Instant::now() }
    }

    /// Some channel whose owner is this shard.
    fn channel_of(bus: &ShardBus, shard: usize) -> String {
        (0..1000)
            .map(|number| format!("channel-{number}"))
            .find(|name| bus.owner(0, name) == shard)
            .expect("one of many")
    }

    #[test]
    fn homes_are_spread_and_stay() {
        let bus = ShardBus::new(4);
        let mut counts = [0; 4];
        for number in 0..1000 {
            let name = format!("channel-{number}");
            counts[bus.owner(0, &name)] += 1;
            assert_eq!(bus.owner(0, &name), bus.owner(0, &name));
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
        assert_eq!(ShardBus::new(1).owner(0, "chat"), 0);
    }

    #[test]
    fn an_event_goes_to_its_home_only() {
        let (bus, mut shards) = shards(2);
        let channel = channel_of(&bus, 1);
        assert_eq!(bus.publish([published(&channel, 10)].into_iter(), None), Ok(()));
        assert!(collected(&mut shards[0]).is_empty());
        assert!(
            matches!(collected(&mut shards[1]).as_slice(), [Mail::Publish(published)] if *published.channel == *channel)
        );
    }

    #[test]
    fn publishers_are_turned_away_while_any_mailbox_is_half_full() {
        let (bus, mut shards) = shards(2);
        let (first, second) = (channel_of(&bus, 0), channel_of(&bus, 1));
        let mut taken = 0;
        while bus.publish([published(&first, 100_000)].into_iter(), None).is_ok() {
            taken += 1;
        }
        assert!((80..=90).contains(&taken), "{taken}");
        assert!(bus.is_overloaded());
        assert_eq!(bus.publish([published(&second, 10)].into_iter(), None), Err(Busy));
        assert_eq!(collected(&mut shards[0]).len(), taken);
        assert!(!bus.is_overloaded());
        assert_eq!(bus.publish([published(&second, 10)].into_iter(), None), Ok(()));
    }

    #[test]
    fn a_shard_that_takes_no_tick_is_noticed() {
        let (bus, _shards) = shards(2);
        let (patience, start) = (Duration::from_secs(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!bus.is_stuck(at(2), patience), "none has had the time");
        assert!(bus.is_stuck(at(4), patience));
        bus.has_ticked(0, at(4));
        assert!(bus.is_stuck(at(4), patience), "the other one has not");
        bus.has_ticked(1, at(4));
        assert!(!bus.is_stuck(at(6), patience));
        assert!(bus.is_stuck(at(8), patience));
    }

    #[test]
    fn a_publish_that_has_begun_is_finished() {
        let (bus, mut shards) = shards(1);
        let events = (0..100).map(|_| published("chat", 1_000_000));
        assert_eq!(bus.publish(events, None), Ok(()));
        assert_eq!(collected(&mut shards[0]).len(), 100);
    }

    #[test]
    fn what_finds_no_room_is_owned_up_to() {
        let (bus, mut shards) = shards(2);
        let event = published("chat", 1_000_000);
        for _ in 0..20 {
            bus.pass_on(1, &event);
        }
        let mail = collected(&mut shards[1]);
        let delivered = mail.iter().filter(|mail| matches!(mail, Mail::Deliver(_))).count();
        let missed =
            mail.iter().filter(|mail| matches!(mail, Mail::Missed { channel, .. } if **channel == *"chat")).count();
        assert_eq!((delivered, missed), (16, 4));
    }

    #[test]
    fn who_asks_a_shard_that_stops_learns_so_at_once() {
        let (bus, shards) = shards(1);
        let (answer, mut answered) = oneshot::channel();
        bus.tell(0, Mail::Ask(Query::Statistics { answer }));
        assert_eq!(answered.try_recv(), Err(TryRecvError::Empty));
        drop(shards);
        assert_eq!(answered.try_recv(), Err(TryRecvError::Closed));
    }
}
