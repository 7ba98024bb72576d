//! What comes from the engine: subscriptions, and the messages of other nodes.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc::{self, UnboundedSender};

use super::names::{Names, Place};
use crate::apps::Apps;
use crate::cluster::Owners;
use crate::cluster::wire::Message;
use crate::hub::engine::Update;

/// The subscriptions of one incarnation, changed in order on one connection, many at a time.
pub(super) struct Subscriber<T> {
    connection: MultiplexedConnection,
    waiting: VecDeque<Change<T>>,
    under_way: Option<UnderWay<T>>,
}

struct Change<T> {
    name: String,
    is_wanted: bool,
    then: Option<T>,
}

struct UnderWay<T> {
    confirmed: Vec<T>,
    done: Pin<Box<dyn Future<Output = RedisResult<()>> + Send>>,
}

impl<T> Subscriber<T> {
    pub(super) fn new(connection: MultiplexedConnection) -> Self {
        Self { connection, waiting: VecDeque::new(), under_way: None }
    }

    /// How many changes wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives `then` back once the engine has confirmed it.
    pub(super) fn subscribe(&mut self, name: String, then: Option<T>) {
        self.waiting.push_back(Change { name, is_wanted: true, then });
    }

    pub(super) fn unsubscribe(&mut self, name: String) {
        self.waiting.push_back(Change { name, is_wanted: false, then: None });
    }

    /// Sends the next batch, unless one is under way.
    pub(super) fn start(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some(is_wanted) = self.waiting.front().map(|first| first.is_wanted) else { return };
        let same = self.waiting.iter().take(BATCH).take_while(|change| change.is_wanted == is_wanted).count();
        let (mut names, mut confirmed) = (Vec::with_capacity(same), Vec::new());
        for Change { name, then, .. } in self.waiting.drain(..same) {
            names.push(name);
            confirmed.extend(then);
        }
        let mut connection = self.connection.clone();
        let done = Box::pin(async move {
            if is_wanted { connection.subscribe(&names).await } else { connection.unsubscribe(&names).await }
        });
        self.under_way = Some(UnderWay { confirmed, done });
    }

    /// Waits until the batch under way is confirmed.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call goes on waiting.
    pub(super) async fn finished(&mut self) -> RedisResult<Vec<T>> {
        let Some(under_way) = &mut self.under_way else { return pending().await };
        let done = under_way.done.as_mut().await;
        let UnderWay { confirmed, .. } = self.under_way.take().expect("it was there");
        done.map(|()| confirmed)
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscriber").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Where the subscribing connection leaves what it reads: events go to their owners at once, so nothing waits here.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) names: Names,
    pub(super) apps: Arc<Apps>,
    pub(super) owners: Arc<dyn Owners>,
    /// What this node calls itself in the events that it publishes.
    pub(super) origin: Box<str>,
    pub(super) heard: UnboundedSender<Heard>,
    pub(super) since: Instant,
    /// When something came last, in milliseconds from `since`.
    pub(super) last: AtomicU64,
}

/// What a session must know.
#[derive(Debug)]
pub(super) enum Heard {
    /// The connection has ended.
    Lost,
    /// A node has closed a user's connections as it was asked.
    Terminated { request: u64, node: Box<str> },
    /// This node has closed a user's connections as `from` has asked.
    Closed { from: Box<str>, request: u64 },
}

impl Inbox {
    /// When something came last.
    pub(super) fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Takes what the connection has read.
    pub(super) fn take(&self, info: PushInfo) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        match info.kind {
            PushKind::Message | PushKind::SMessage => self.message(info.data),
            PushKind::Disconnection => self.tell(Heard::Lost),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>) {
        let Ok([Value::BulkString(name), Value::BulkString(bytes)]) = <[Value; 2]>::try_from(data) else { return };
        let Ok(name) = std::str::from_utf8(&name) else { return };
        match self.names.place(name) {
            Some(Place::Channel { app, channel }) => self.to_channel(app, channel, &bytes),
            Some(Place::Status { app }) => self.to_users(app, &bytes),
            Some(Place::Control) => self.control(&bytes),
            None => {}
        }
    }

    fn to_channel(&self, app: &str, channel: &str, bytes: &[u8]) {
        let Some(app) = self.apps.by_id(app) else { return };
        let channel = Arc::from(channel);
        let Some(message) = read(&channel, bytes) else { return };
        let update = match message {
            // The owner has delivered it already.
            Message::Published { origin, kept: None, .. } if origin == self.origin => return,
            Message::Published { origin: _, kept, publication } => Update::Published { publication, kept },
            Message::Changed(change) => Update::Changed { channel, change },
            Message::Counted(subscribers) => Update::Counted { channel, subscribers },
            _ => return,
        };
        self.owners.update(&app, update);
    }

    fn to_users(&self, app: &str, bytes: &[u8]) {
        let Some(app) = self.apps.by_id(app) else { return };
        if let Some(Message::Status { user_id, is_online }) = read(&Arc::from(""), bytes) {
            self.owners.update(&app, Update::Status { user_id, is_online });
        }
    }

    fn control(&self, bytes: &[u8]) {
        match read(&Arc::from(""), bytes) {
            Some(Message::Terminate { origin, from, request, app, user_id }) if origin != self.origin => {
                self.terminate(from, request, &app, &user_id);
            }
            Some(Message::Terminated { request, node }) => self.tell(Heard::Terminated { request, node }),
            _ => {}
        }
    }

    fn terminate(&self, from: Box<str>, request: u64, app: &str, user_id: &Arc<str>) {
        let (done, mut waited) = mpsc::channel(1);
        if let Some(app) = self.apps.by_id(app) {
            self.owners.terminate(&app, user_id, Duration::ZERO, done);
        }
        let heard = self.heard.clone();
        tokio::spawn(async move {
            // Nothing is ever sent: it ends with the last clone.
            let _ = waited.recv().await;
            let _ = heard.send(Heard::Closed { from, request });
        });
    }

    fn tell(&self, heard: Heard) {
        // The session may be over.
        let _ = self.heard.send(heard);
    }
}

fn read(channel: &Arc<str>, bytes: &[u8]) -> Option<Message> {
    Message::read(channel, bytes)
        .inspect_err(|malformed| tracing::warn!(%malformed, "a message of the cluster was not understood"))
        .ok()
}

/// Channels in one command.
const BATCH: usize = 512;
