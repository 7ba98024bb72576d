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

use super::names::{Names, Place};
use crate::cluster::inbox::{Heard, Inbox};

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

/// Reads what the subscribing connection gets.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) names: Names,
    pub(super) inbox: Inbox,
    pub(super) since: Instant,
    /// When something came last, in milliseconds from `since`.
    pub(super) last: AtomicU64,
}

impl Reader {
    /// When something came last.
    pub(super) fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Takes what the connection has read.
    pub(super) fn take(&self, info: PushInfo) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        match info.kind {
            PushKind::Message | PushKind::SMessage => self.message(info.data),
            PushKind::Disconnection => self.inbox.tell(Heard::Lost),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>) {
        let Ok([Value::BulkString(name), Value::BulkString(bytes)]) = <[Value; 2]>::try_from(data) else { return };
        let Ok(name) = std::str::from_utf8(&name) else { return };
        match self.names.place(name) {
            Some(Place::Channel { app, channel }) => self.inbox.to_channel(app, &Arc::from(channel), &bytes, None),
            Some(Place::Status { app }) => self.inbox.to_users(app, &bytes),
            Some(Place::Control) => self.inbox.control(&bytes),
            None => {}
        }
    }
}

/// Channels in one command.
const BATCH: usize = 512;
