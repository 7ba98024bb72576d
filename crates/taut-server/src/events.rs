//! What happens on the server, for webhooks and the console.
//!
//! Shards record it. Recording costs nothing while nobody listens, and a slow viewer is told how much it missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, mpsc};

use crate::app::{Webhook, WebhookEvent};
use crate::apps::{App, AppSnapshot};
use crate::pusher::socket_id::SocketId;

/// Something that happened to an app.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) app: Arc<App>,
    /// When it was written down.
    pub(crate) at: SystemTime,
    /// For how long it was held back before.
    pub(crate) waited: Duration,
    /// How long before that clients were told of it.
    pub(crate) ago: Duration,
    pub(crate) event: Event,
}

impl Entry {
    fn now(app: &Arc<App>, event: Event, waited: Duration) -> Self {
        Self { app: Arc::clone(app), at: SystemTime::now(), waited, ago: Duration::ZERO, event }
    }
}

/// What happened. The first seven are what [webhooks](WebhookEvent) tell.
///
/// The `data` of a client's event is a string as it is, and anything else as the JSON that it was sent as: receivers get it as a string.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::enum_variant_names, reason = "`ClientEvent` is the protocol's own name")]
pub(crate) enum Event {
    ChannelOccupied {
        channel: Arc<str>,
    },
    ChannelVacated {
        channel: Arc<str>,
    },
    MemberAdded {
        channel: Arc<str>,
        user_id: Arc<str>,
    },
    MemberRemoved {
        channel: Arc<str>,
        user_id: Arc<str>,
    },
    ClientEvent {
        channel: Arc<str>,
        event: Box<str>,
        data: Box<str>,
        socket_id: SocketId,
        user_id: Option<Arc<str>>,
    },
    CacheMiss {
        channel: Arc<str>,
    },
    SubscriptionCount {
        channel: Arc<str>,
        count: usize,
    },
    Connected {
        socket_id: SocketId,
    },
    Disconnected {
        socket_id: SocketId,
        code: u16,
    },
    Subscribed {
        channel: Arc<str>,
        socket_id: SocketId,
    },
    Unsubscribed {
        channel: Arc<str>,
        socket_id: SocketId,
    },
    SignedIn {
        socket_id: SocketId,
        user_id: Arc<str>,
    },
    Refused {
        socket_id: SocketId,
        reason: Box<str>,
    },
    Published {
        channel: Arc<str>,
        event: Box<str>,
        data: Box<str>,
    },
    /// The backend of a connection's route was told of this event, and what came of it.
    Told {
        socket_id: SocketId,
        event: &'static str,
        outcome: Box<str>,
    },
}

impl Event {
    /// What webhooks call it and the channel that it is about; `None` for what only the console shows.
    pub(crate) fn webhook(&self) -> Option<(WebhookEvent, &Arc<str>)> {
        Some(match self {
            Self::ChannelOccupied { channel } => (WebhookEvent::ChannelOccupied, channel),
            Self::ChannelVacated { channel } => (WebhookEvent::ChannelVacated, channel),
            Self::MemberAdded { channel, .. } => (WebhookEvent::MemberAdded, channel),
            Self::MemberRemoved { channel, .. } => (WebhookEvent::MemberRemoved, channel),
            Self::ClientEvent { channel, .. } => (WebhookEvent::ClientEvent, channel),
            Self::CacheMiss { channel } => (WebhookEvent::CacheMiss, channel),
            Self::SubscriptionCount { channel, .. } => (WebhookEvent::SubscriptionCount, channel),
            _ => return None,
        })
    }

    /// What somebody published, for the console.
    pub(crate) fn published(channel: &Arc<str>, event: &str, data: Box<str>) -> Self {
        Self::Published { channel: Arc::clone(channel), event: event.into(), data }
    }

    /// The channel it is about.
    pub(crate) fn channel(&self) -> Option<&Arc<str>> {
        match self {
            Self::Subscribed { channel, .. } | Self::Unsubscribed { channel, .. } | Self::Published { channel, .. } => {
                Some(channel)
            }
            _ => self.webhook().map(|(_, channel)| channel),
        }
    }
}

/// Where shards and publishers write down what happens. Nobody waits for who reads it.
#[derive(Clone, Debug)]
pub(crate) struct EventBus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    webhooks: mpsc::Sender<Entry>,
    /// Entries for webhooks that found no room.
    dropped: AtomicU64,
    console: broadcast::Sender<Arc<Entry>>,
    watching: AtomicUsize,
}

impl EventBus {
    /// An event bus, and where the webhooks read it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (webhooks, receiver) = mpsc::channel(MOST_WAITING);
        let (console, _) = broadcast::channel(MOST_SHOWN);
        let inner = Inner { webhooks, dropped: AtomicU64::new(0), console, watching: AtomicUsize::new(0) };
        (Self(Arc::new(inner)), receiver)
    }

    /// Whether anybody wants to know of such an event: to be asked before one is put together.
    pub(crate) fn wants(&self, snapshot: &AppSnapshot, event: WebhookEvent) -> bool {
        let other = event.opposite();
        self.is_watched()
            || snapshot.config.webhooks.iter().any(|webhook| {
                let wanted = &webhook.events;
                wanted.is_empty() || wanted.iter().any(|&wanted| wanted == event || Some(wanted) == other)
            })
    }

    /// Whether a console is open.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watching.load(Ordering::Relaxed) > 0
    }

    /// Writes down what happened, for the app's webhooks that want it and for open consoles.
    pub(crate) fn record(&self, app: &Arc<App>, event: Event) {
        self.record_late(app, event, Duration::ZERO);
    }

    /// Writes down what was held back for so long.
    pub(crate) fn record_late(&self, app: &Arc<App>, event: Event, waited: Duration) {
        if self.is_watched() {
            self.show(app, event.clone());
        }
        self.record_for_webhooks(app, event, waited, Duration::ZERO);
    }

    /// Writes down what happened so long `ago` for the app's webhooks that want it, and for how long it was held back.
    pub(crate) fn record_for_webhooks(&self, app: &Arc<App>, event: Event, waited: Duration, ago: Duration) {
        let is_wanted = event.webhook().is_some_and(|(kind, channel)| {
            let other = kind.opposite();
            let wants = |webhook: &Webhook| {
                webhook.wants(kind, channel) || other.is_some_and(|other| webhook.wants(other, channel))
            };
            app.snapshot().config.webhooks.iter().any(wants)
        });
        if is_wanted && self.0.webhooks.try_send(Entry { ago, ..Entry::now(app, event, waited) }).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes down what happened for open consoles.
    pub(crate) fn show(&self, app: &Arc<App>, event: Event) {
        // Nobody may be left to see it.
        let _ = self.0.console.send(Arc::new(Entry::now(app, event, Duration::ZERO)));
    }

    /// Entries for webhooks that were lost, because more happened at once than could be taken down.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Shows everything from here on; a viewer that is too slow is told how much it has missed.
    pub(crate) fn watch(&self) -> Watch {
        self.0.watching.fetch_add(1, Ordering::Relaxed);
        Watch { entries: self.0.console.subscribe(), events: self.clone() }
    }
}

/// A view on the event bus.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) entries: broadcast::Receiver<Arc<Entry>>,
    events: EventBus,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.events.0.watching.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Entries that may wait for the webhooks' part to take them down, which takes it microseconds each.
const MOST_WAITING: usize = 65_536;

/// Entries that a console may be behind.
const MOST_SHOWN: usize = 4096;
