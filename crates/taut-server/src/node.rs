//! One process with all its shards, as the HTTP side sees it: publishes, queries, terminations.
//!
//! In a cluster, what is asked is asked of the engine while the node is joined, and of the shards otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::app::PublishAway;
use crate::apps::{App, Apps};
use crate::bus::{Busy, Mail, ShardBus};
use crate::cluster::{self, Done, Phase, Question};
use crate::events::{Event, EventBus};
use crate::hub::command::Publication;
use crate::hub::receipt::{Outcome, Receipt};
use crate::place::ShardIndex;
use crate::pusher::channel::Kind;
use crate::pusher::socket_id::SocketId;
use crate::query::{ChannelState, ConnectionState, Occupancy, PresentMember, Query, Statistics};
use crate::trace::Span;

/// The way in for whoever is no client: the HTTP side.
#[derive(Debug)]
pub(crate) struct Node {
    apps: Arc<Apps>,
    bus: Arc<ShardBus>,
    events: EventBus,
}

impl Node {
    pub(crate) fn new(apps: Arc<Apps>, bus: Arc<ShardBus>, events: EventBus) -> Self {
        Self { apps, bus, events }
    }

    pub(crate) fn apps(&self) -> &Apps {
        &self.apps
    }

    pub(crate) fn events(&self) -> &EventBus {
        &self.events
    }

    /// Publishes what a backend sends, all of its events or none. In a cluster it is published once the engine has it, for which this waits; many
    /// requests may wait at a time, and none for another.
    ///
    /// # Errors
    /// See [`NotPublished`], which says what may have been delivered.
    ///
    /// # Cancel safety
    /// Dropped midway, the events go where they go; only what came of them is lost.
    pub(crate) async fn publish_and_wait(
        &self,
        app: &Arc<App>,
        publications: impl Iterator<Item = Publication>,
    ) -> Result<(), NotPublished> {
        let Some(broker) = self.bus.broker() else {
            return self.publish(app, publications, None).map_err(NotPublished::from);
        };
        let may_stay_local = app.snapshot().limits.publish_away == PublishAway::Local;
        if broker.state().phase != Phase::Joined {
            return if may_stay_local {
                self.publish(app, publications, None).map_err(NotPublished::from)
            } else {
                Err(NotPublished::Away)
            };
        }
        let (carried, outcome, is_kept) = self.carry(app, publications)?;
        // The sender is dropped with the last of the receipts.
        let answered = tokio::time::timeout(LONGEST_CARRYING, carried).await.is_ok();
        match answered && !outcome.has_failed() {
            true => Ok(()),
            // The owner has delivered it here before it told the engine, unless the engine was to put it in order first.
            false if may_stay_local && !is_kept => Ok(()),
            false => Err(NotPublished::Unknown),
        }
    }

    /// Sends events on their way with a receipt. Gives what ends with the receipt, what came of them, and whether a channel keeps any.
    fn carry(
        &self,
        app: &Arc<App>,
        publications: impl Iterator<Item = Publication>,
    ) -> Result<(oneshot::Receiver<()>, Outcome, bool), Busy> {
        let (token, carried) = oneshot::channel();
        let receipt = Receipt::new(Arc::new(token));
        let (outcome, mut is_kept) = (receipt.outcome(), false);
        let publications = publications.map(|publication| {
            is_kept |= publication.is_kept();
            Publication { receipt: Some(receipt.clone()), ..publication }
        });
        self.publish(app, publications, None)?;
        drop(receipt);
        Ok((carried, outcome, is_kept))
    }

    /// Sends events on their way to their channels' owners, which have been checked: all of them or none. `here` is the shard within whose call
    /// this happens, if it does: it need not be woken for what is its own.
    pub(crate) fn publish(
        &self,
        app: &Arc<App>,
        publications: impl Iterator<Item = Publication>,
        here: Option<ShardIndex>,
    ) -> Result<(), Busy> {
        let traced = Span::within("fan out");
        let is_watched = self.events.is_watched();
        let mut shown = Vec::new();
        let mut count = 0;
        let publications = publications.inspect(|publication| {
            count += 1;
            if is_watched {
                let Publication { channel, .. } = publication;
                shown.push(Event::published(channel, publication.name(), publication.data().into()));
            }
        });
        let outcome = self.bus.publish(app.index(), publications, here);
        traced.count("taut.channels", count);
        outcome.inspect_err(|Busy| traced.failed("busy"))?;
        traced.end();
        for event in shown {
            self.events.record(app, event);
        }
        Ok(())
    }

    /// The occupied channels whose names begin so, without those of single users.
    pub(crate) async fn channels(&self, app: &Arc<App>, prefix: &str) -> BTreeMap<Arc<str>, Occupancy> {
        let index = app.index();
        let question = |answer| Question::Channels { app: Arc::clone(app), prefix: prefix.into(), answer };
        let (known, listed) = tokio::join!(
            self.ask_engine(question),
            self.ask_all(|answer| Query::Channels { app: index, prefix: prefix.into(), answer }),
        );
        let mut here: BTreeMap<Arc<str>, Occupancy> = BTreeMap::new();
        for (channel, occupancy) in listed.into_iter().flatten() {
            here.entry(channel).or_default().add(occupancy);
        }
        let Some(mut channels) = known else { return here };
        for (channel, occupancy) in here {
            let all = channels.entry(channel).or_default();
            *all = all.or_at_least(occupancy);
        }
        channels
    }

    /// One channel.
    pub(crate) async fn channel(&self, app: &Arc<App>, channel: &str) -> ChannelState {
        let index = app.index();
        let question = |answer| Question::Channel { app: Arc::clone(app), channel: channel.into(), answer };
        let (known, parts) = tokio::join!(
            self.ask_engine(question),
            self.ask_all(|answer| Query::Channel { app: index, channel: channel.into(), answer }),
        );
        let mut here = ChannelState::default();
        for part in parts {
            here.occupancy.add(part.occupancy);
            here.cached = here.cached.or(part.cached);
        }
        let mut state = match known {
            Some(ChannelState { occupancy, cached }) => {
                ChannelState { occupancy: occupancy.or_at_least(here.occupancy), cached }
            }
            None => here,
        };
        if Kind::of(channel).is_presence() {
            state.occupancy.users.get_or_insert(0);
        }
        state
    }

    /// The users in a presence channel.
    pub(crate) async fn users(&self, app: &Arc<App>, channel: &str) -> Vec<Arc<str>> {
        let question = |answer| Question::Users { app: Arc::clone(app), channel: channel.into(), answer };
        if let Some(users) = self.ask_engine(question).await {
            return users;
        }
        let owner = self.bus.owner(app.index(), Some(channel));
        let (app, channel) = (app.index(), channel.into());
        self.ask(owner, |answer| Query::Users { app, channel, answer }).await.unwrap_or_default()
    }

    /// The first `most` members of a presence channel, by user id. What those on other nodes say of themselves is known where this node has subscribers in the
    /// channel; their connections are not.
    pub(crate) async fn members(&self, app: &Arc<App>, channel: &str, most: usize) -> Vec<PresentMember> {
        let index = app.index();
        let owner = self.bus.owner(index, Some(channel));
        let question = |answer| Question::Users { app: Arc::clone(app), channel: channel.into(), answer };
        let (users, here) = tokio::join!(
            self.ask_engine(question),
            self.ask(owner, |answer| Query::Members { app: index, channel: channel.into(), most, answer }),
        );
        let here = here.unwrap_or_default();
        let Some(mut users) = users else { return here };
        users.sort_unstable();
        users.truncate(most);
        let mut known: HashMap<Arc<str>, PresentMember> =
            here.into_iter().map(|member| (Arc::clone(&member.user_id), member)).collect();
        let elsewhere = |user_id| PresentMember { user_id, user_info: None, connections: 0 };
        users.into_iter().map(|user_id| known.remove(&user_id).unwrap_or_else(|| elsewhere(user_id))).collect()
    }

    /// Closes one connection; whether it was open.
    ///
    /// # Cancel safety
    /// Dropped midway, it is closed all the same.
    pub(crate) async fn disconnect(&self, app: &App, socket_id: SocketId) -> bool {
        let app = app.index();
        self.ask_all(|answer| Query::Disconnect { app, socket_id, answer }).await.contains(&true)
    }

    /// Closes every connection that has signed in as this user, on all nodes. Afterwards nothing that they have sent here is still on its way to
    /// others, and they are not in any channel, whether they have answered the close or not.
    ///
    /// # Errors
    /// [`Away`] if those on other nodes could not be told; those here are closed.
    ///
    /// # Cancel safety
    /// Dropped midway, they are closed all the same.
    pub(crate) async fn terminate(&self, app: &Arc<App>, user_id: &str) -> Result<(), Away> {
        let user_id: Arc<str> = user_id.into();
        let elsewhere = async {
            let question = |answer| Question::Terminate { app: Arc::clone(app), user_id: Arc::clone(&user_id), answer };
            self.bus.broker().is_none() || self.ask_engine(question).await.is_some()
        };
        let (is_told, ()) = tokio::join!(elsewhere, self.terminate_here(app, &user_id));
        if is_told { Ok(()) } else { Err(Away) }
    }

    /// Closes the user's connections on this node, for the cluster or for [`terminate`](Self::terminate).
    async fn terminate_here(&self, app: &App, user_id: &Arc<str>) {
        let app = app.index();
        self.tell_all_and_wait(|done| Mail::Terminate { app, user_id: Arc::clone(user_id), age: Duration::ZERO, done })
            .await;
        // Their last events and their leaves are with the owners of the channels now, and after that with the shards of the other members.
        self.tell_all_and_wait(|done| Mail::Mark { done }).await;
        self.tell_all_and_wait(|done| Mail::Mark { done }).await;
    }

    async fn tell_all_and_wait(&self, mail: impl Fn(Done) -> Mail) {
        let (done, mut all_done) = mpsc::channel(1);
        self.bus.tell_all(|| mail(done.clone()));
        drop(done);
        // Nobody sends anything: it ends with the last sender.
        let _ = all_done.recv().await;
    }

    /// How it stands with the engine; `None` where the node is alone.
    pub(crate) fn cluster(&self) -> Option<cluster::State> {
        self.bus.broker().map(|broker| broker.state())
    }

    /// Whether the node is one of a cluster, so that a publish is published only once the engine has it.
    pub(crate) fn is_clustered(&self) -> bool {
        self.bus.is_clustered()
    }

    /// The nodes of the cluster, by their names; `None` where the node is alone, or the engine does not say.
    ///
    /// # Cancel safety
    /// Nothing is lost: it only asks.
    pub(crate) async fn nodes(&self) -> Option<Vec<cluster::Node>> {
        let mut nodes = self.ask_engine(|answer| Question::Nodes { answer }).await?;
        nodes.sort_unstable_by(|one, other| (&one.name, &one.incarnation).cmp(&(&other.name, &other.incarnation)));
        Some(nodes)
    }

    /// Leaves the cluster, once its clients have gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it leaves all the same.
    pub(crate) async fn leave_cluster(&self) {
        let Some(broker) = self.bus.broker() else { return };
        let (done, left) = oneshot::channel();
        broker.leave(done);
        // Answered or dropped, it has left.
        let _ = left.await;
    }

    /// What has been counted, all shards together.
    pub(crate) async fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for part in self.ask_all(|answer| Query::Statistics { answer }).await {
            sum.add(&part);
        }
        sum
    }

    /// Whether a shard has so much to do that publishers are turned away.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.bus.is_overloaded()
    }

    /// Whether a shard is stuck: it has taken no tick for so long, of which there is one a second.
    pub(crate) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        self.bus.is_stuck(now, patience)
    }

    /// At most `most` of an app's connections that the filter finds; see [`Query::Connections`].
    pub(crate) async fn connections(&self, app: &App, filter: &str, most: usize) -> Vec<ConnectionState> {
        let app = app.index();
        let mut connections: Vec<ConnectionState> = self
            .ask_all(|answer| Query::Connections { app, filter: filter.into(), most, answer })
            .await
            .into_iter()
            .flatten()
            .collect();
        // The newest first, those of all shards together.
        connections.sort_by_key(|connection| connection.age);
        connections.truncate(most);
        connections
    }

    /// Tells the shards that apps or routes have been changed or taken away: whoever may not stay is closed.
    pub(crate) fn apps_changed(&self) {
        self.bus.tell_all(|| Mail::AppsChanged);
    }

    /// To be called about once per second.
    pub(crate) fn tick(&self) {
        self.bus.tell_all(|| Mail::Tick);
    }

    /// Tells the shards that no connection is left, and that nobody comes back to this process.
    pub(crate) fn end_grace(&self) {
        self.bus.tell_all(|| Mail::EndGrace);
    }

    /// Asks the engine; `None` where the node is alone or not joined, or where no answer comes: then the shards know what this node does.
    async fn ask_engine<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let broker = self.bus.broker().filter(|broker| broker.state().phase == Phase::Joined)?;
        let (sender, receiver) = oneshot::channel();
        broker.ask(question(sender));
        tokio::time::timeout(LONGEST_ANSWER, receiver).await.ok()?.ok()
    }

    fn ask<T>(&self, shard: ShardIndex, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        self.bus.tell(shard, Mail::Query(query(sender)));
        receiver
    }

    /// Asks all shards at the same time; gives the replies in the order of the shards, of which one that has stopped gives none.
    async fn ask_all<T>(&self, query: impl Fn(oneshot::Sender<T>) -> Query) -> Vec<T> {
        let pending: Vec<_> = self.bus.all().map(|shard| self.ask(shard, &query)).collect();
        let mut replies = Vec::with_capacity(pending.len());
        for reply in pending {
            replies.extend(reply.await.ok());
        }
        replies
    }
}

/// Why a backend's events were not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotPublished {
    /// The shards have more to do than they can hold: nothing was delivered.
    Busy,
    /// The engine of the cluster cannot be reached: nothing was delivered.
    Away,
    /// The engine has failed meanwhile: the events may have been delivered, to some or to all.
    Unknown,
}

impl From<Busy> for NotPublished {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

/// The engine of the cluster cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

/// How long the engine may take over a question, which it answers within a second.
const LONGEST_ANSWER: Duration = Duration::from_secs(2);

/// How long the engine may take over an event. Its driver gives up long before. Tests reach it sooner.
const LONGEST_CARRYING: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use taut_proto::Message;
    use taut_shard::{Connections, Handler, Session, Settings, Shard};
    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::app::{AppConfig, Limits};
    use crate::cluster::Broker;
    use crate::cluster::testing::TestEngine;
    use crate::hub::command::{Command, Event as Published};
    use crate::hub::envelope::{Content, Envelope};
    use crate::pusher::payload::Payload;

    /// A shard that only keeps what is published.
    struct Keeper(Vec<Publication>);

    impl Handler for Keeper {
        type User = ();
        type Mail = Mail;

        fn message(&mut self, _session: &mut Session<'_, ()>, _message: Message<'_>) {}

        fn mail(&mut self, _connections: &mut Connections<()>, mail: Mail) {
            if let Mail::Hub(Envelope { content: Content::Command(Command::Publish(publication)), .. }) = mail {
                self.0.push(publication);
            }
        }
    }

    /// A node with one shard, in a cluster.
    struct Clustered {
        node: Arc<Node>,
        app: Arc<App>,
        shard: Shard<Keeper>,
        engine: Arc<TestEngine>,
    }

    impl Clustered {
        fn new(publish_away: PublishAway) -> Self {
            let limits = Limits { publish_away, ..Limits::default() };
            let apps = Apps::new(vec![AppConfig::parse("1:a:x").expect("an app")], &limits).expect("one app");
            let app = apps.by_id("1").expect("the app");
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            let shard = Shard::new(listener, Keeper(Vec::new()), Settings::default()).expect("a shard");
            let bus = Arc::new(ShardBus::new(1));
            bus.connect(vec![shard.mailbox()]);
            let engine = TestEngine::in_phase(Phase::Joined);
            bus.set_broker(Arc::clone(&engine) as Arc<dyn Broker>);
            let node = Arc::new(Node::new(Arc::new(apps), bus, EventBus::new().0));
            Self { node, app, shard, engine }
        }

        /// A backend publishes to these channels, and waits.
        fn publish(&self, channels: &[&str]) -> JoinHandle<Result<(), NotPublished>> {
            let publication = |channel: &&str| Publication {
                channel: (*channel).into(),
                event: Published::published("event", &Payload::from("x")),
                excluded: None,
                at: Instant::now(),
                receipt: None,
            };
            let publications: Vec<_> = channels.iter().map(publication).collect();
            let (node, app) = (Arc::clone(&self.node), Arc::clone(&self.app));
            tokio::spawn(async move { node.publish_and_wait(&app, publications.into_iter()).await })
        }

        /// What has come to the owner.
        fn published(&mut self) -> Vec<Publication> {
            let mailbox = self.shard.mailbox();
            while mailbox.waiting() > 0 {
                self.shard.tick().expect("a tick");
            }
            std::mem::take(&mut self.shard.handler().0)
        }
    }

    #[tokio::test]
    async fn a_publish_is_done_when_the_engine_has_the_event_of_each_channel() {
        let mut clustered = Clustered::new(PublishAway::Refuse);
        let waiting = clustered.publish(&["a", "b"]);
        yield_now().await;
        let mut published = clustered.published();
        assert_eq!(published.len(), 2);
        drop(published.pop());
        yield_now().await;
        assert!(!waiting.is_finished(), "one of its channels is still on its way");
        drop(published);
        assert_eq!(waiting.await.expect("no panic"), Ok(()));
    }

    #[tokio::test]
    async fn no_publish_waits_for_another_one() {
        let mut clustered = Clustered::new(PublishAway::Refuse);
        let waiting: Vec<_> = (0..1000).map(|_| clustered.publish(&["a"])).collect();
        let mut published = Vec::new();
        while published.len() < 1000 {
            yield_now().await;
            published.extend(clustered.published());
        }
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "all are on their way before any is answered");
        // The engine may answer in any order.
        for (publication, waiting) in published.into_iter().zip(waiting).rev() {
            drop(publication);
            assert_eq!(waiting.await.expect("no panic"), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_publish_that_fails_for_one_of_its_channels_may_have_been_delivered() {
        let mut clustered = Clustered::new(PublishAway::Refuse);
        let waiting = clustered.publish(&["a", "b"]);
        yield_now().await;
        let published = clustered.published();
        published[1].receipt.as_ref().expect("a receipt").fail();
        drop(published);
        assert_eq!(waiting.await.expect("no panic"), Err(NotPublished::Unknown));
    }

    #[tokio::test]
    async fn an_engine_that_says_nothing_is_not_waited_for_for_ever() {
        let mut clustered = Clustered::new(PublishAway::Refuse);
        let waiting = clustered.publish(&["a"]);
        yield_now().await;
        let _kept = clustered.published();
        assert_eq!(waiting.await.expect("no panic"), Err(NotPublished::Unknown));
    }

    #[tokio::test]
    async fn while_the_engine_is_away_nothing_is_published_unless_the_app_takes_it_here_alone() {
        for (publish_away, outcome, delivered) in
            [(PublishAway::Refuse, Err(NotPublished::Away), 0), (PublishAway::Local, Ok(()), 1)]
        {
            let mut clustered = Clustered::new(publish_away);
            clustered.engine.tables().state.phase = Phase::Away;
            assert_eq!(clustered.publish(&["a"]).await.expect("no panic"), outcome);
            let published = clustered.published();
            assert_eq!(published.len(), delivered);
            assert!(published.iter().all(|publication| publication.receipt.is_none()), "nobody waits for it");
        }
    }

    #[tokio::test]
    async fn an_app_that_takes_events_here_alone_is_told_of_a_failure_where_the_engine_was_to_deliver_them_here_too() {
        for (channel, outcome) in [("a", Ok(())), ("cache-a", Err(NotPublished::Unknown))] {
            let mut clustered = Clustered::new(PublishAway::Local);
            let waiting = clustered.publish(&[channel]);
            yield_now().await;
            for publication in clustered.published() {
                publication.receipt.as_ref().expect("a receipt").fail();
            }
            assert_eq!(waiting.await.expect("no panic"), outcome, "{channel}");
        }
    }
}
