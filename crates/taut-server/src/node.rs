//! One process with all its shards, as the HTTP side sees it: publishes, queries, terminations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::apps::{App, Apps};
use crate::bus::{Busy, Mail, ShardBus};
use crate::cluster::Done;
use crate::events::{Event, EventBus};
use crate::hub::command::Publication;
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
    pub(crate) async fn channels(&self, app: &App, prefix: &str) -> BTreeMap<Arc<str>, Occupancy> {
        let app = app.index();
        let mut channels: BTreeMap<Arc<str>, Occupancy> = BTreeMap::new();
        for listed in self.ask_all(|answer| Query::Channels { app, prefix: prefix.into(), answer }).await {
            for (channel, occupancy) in listed {
                channels.entry(channel).or_default().add(occupancy);
            }
        }
        channels
    }

    /// One channel.
    pub(crate) async fn channel(&self, app: &App, channel: &str) -> ChannelState {
        let app = app.index();
        let mut state = ChannelState::default();
        for part in self.ask_all(|answer| Query::Channel { app, channel: channel.into(), answer }).await {
            state.occupancy.add(part.occupancy);
            state.cached = state.cached.or(part.cached);
        }
        if Kind::of(channel).is_presence() {
            state.occupancy.users.get_or_insert(0);
        }
        state
    }

    /// The users in a presence channel.
    pub(crate) async fn users(&self, app: &App, channel: &str) -> Vec<Arc<str>> {
        let owner = self.bus.owner(app.index(), Some(channel));
        let (app, channel) = (app.index(), channel.into());
        self.ask(owner, |answer| Query::Users { app, channel, answer }).await.unwrap_or_default()
    }

    /// The first `most` members of a presence channel, by user id.
    pub(crate) async fn members(&self, app: &App, channel: &str, most: usize) -> Vec<PresentMember> {
        let owner = self.bus.owner(app.index(), Some(channel));
        let (app, channel) = (app.index(), channel.into());
        self.ask(owner, |answer| Query::Members { app, channel, most, answer }).await.unwrap_or_default()
    }

    /// Closes one connection; whether it was open.
    ///
    /// # Cancel safety
    /// Dropped midway, it is closed all the same.
    pub(crate) async fn disconnect(&self, app: &App, socket_id: SocketId) -> bool {
        let app = app.index();
        self.ask_all(|answer| Query::Disconnect { app, socket_id, answer }).await.contains(&true)
    }

    /// Closes every connection that has signed in as this user. Afterwards nothing that they have sent is still on its way to others, and they are
    /// not in any channel, whether they have answered the close or not.
    ///
    /// # Cancel safety
    /// Dropped midway, they are closed all the same.
    pub(crate) async fn terminate(&self, app: &App, user_id: &str) {
        let (app, user_id): (_, Arc<str>) = (app.index(), user_id.into());
        self.tell_all_and_wait(|done| Mail::Terminate { app, user_id: Arc::clone(&user_id), done }).await;
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

    /// Tells the shards that apps have been changed or taken away: whoever may not stay is closed.
    pub(crate) fn apps_changed(&self) {
        self.bus.tell_all(|| Mail::AppsChanged);
    }

    /// To be called about once per second.
    pub(crate) fn tick(&self) {
        self.bus.tell_all(|| Mail::Tick);
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
