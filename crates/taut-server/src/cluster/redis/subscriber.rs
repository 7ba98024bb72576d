//! What comes from the engine: subscriptions, and the messages of other nodes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, PushInfo, PushKind, Value};

use super::names::{Names, Place};
use super::{Doubt, reply};
use crate::cluster::inbox::{Heard, Inbox};

/// The subscriptions of one incarnation at one server, changed in order on one connection, many at a time.
pub(super) struct Subscriber<T> {
    connection: MultiplexedConnection,
    is_sharded: bool,
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
    done: Pin<Box<dyn Future<Output = Result<(), Doubt>> + Send>>,
}

impl<T> Subscriber<T> {
    pub(super) fn new(connection: MultiplexedConnection, is_sharded: bool) -> Self {
        Self { connection, is_sharded, waiting: VecDeque::new(), under_way: None }
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
        let done: Pin<Box<dyn Future<Output = _> + Send>> = if self.is_sharded {
            Box::pin(change_sharded(connection, names, is_wanted))
        } else {
            Box::pin(async move {
                if is_wanted { connection.subscribe(&names).await } else { connection.unsubscribe(&names).await }?;
                Ok(())
            })
        };
        self.under_way = Some(UnderWay { confirmed, done });
    }

    /// What the batch under way is for, once it is confirmed.
    pub(super) fn poll_finished(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<T>, Doubt>> {
        let Some(under_way) = &mut self.under_way else { return Poll::Pending };
        let done = ready!(under_way.done.as_mut().poll(context));
        let UnderWay { confirmed, .. } = self.under_way.take().expect("it was there");
        Poll::Ready(done.map(|()| confirmed))
    }
}

/// Subscribes to channels of any slots of one server, or unsubscribes. One command takes channels of one slot only, so each has its own.
///
/// The server confirms in order. Anything else between is the end of a subscription for which nobody has asked: the slot has moved.
async fn change_sharded(
    mut connection: MultiplexedConnection,
    names: Vec<String>,
    is_wanted: bool,
) -> Result<(), Doubt> {
    let (command, wanted) =
        if is_wanted { ("SSUBSCRIBE", PushKind::SSubscribe) } else { ("SUNSUBSCRIBE", PushKind::SUnsubscribe) };
    let mut pipeline = Pipeline::with_capacity(names.len());
    for name in &names {
        pipeline.cmd(command).arg(name);
    }
    let replies = connection.send_packed_commands(&pipeline, 0, names.len()).await?;
    for (name, reply) in names.iter().zip(replies) {
        match reply::checked(reply)? {
            Value::Push { kind, data } if kind == wanted && is_named(&data, name) => {}
            _ => return Err(Doubt::Moved),
        }
    }
    Ok(())
}

fn is_named(data: &[Value], name: &str) -> bool {
    matches!(data.first(), Some(Value::BulkString(it)) if it == name.as_bytes())
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscriber").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// Reads what the subscribing connection to one server gets.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) names: Arc<Names>,
    pub(super) inbox: Arc<Inbox>,
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
            PushKind::SUnsubscribe => self.unsubscribed(&info.data),
            PushKind::Disconnection => self.inbox.tell(Heard::Lost),
            _ => {}
        }
    }

    /// A session never gives up the channel to all nodes, to which it is subscribed in each partition: if that ends, all of the partition do.
    fn unsubscribed(&self, data: &[Value]) {
        let Some(Value::BulkString(name)) = data.first() else { return };
        if std::str::from_utf8(name).is_ok_and(|name| self.names.place(name) == Some(Place::Control)) {
            self.inbox.tell(Heard::Moved);
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
