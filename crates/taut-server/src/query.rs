//! Questions to the shards, and their answers. The asker waits; a shard never does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use taut_shard::{Carrier, Stats};
use tokio::sync::oneshot;

use crate::metric::counters;
use crate::place::AppIndex;
use crate::pusher::socket_id::SocketId;

/// A question, with the way for its answer. An asker that has gone away gets none.
#[derive(Debug)]
pub(crate) enum Query {
    /// The channels of an app whose names begin so, as far as this shard knows.
    Channels { app: AppIndex, prefix: Box<str>, answer: oneshot::Sender<Vec<(Arc<str>, Occupancy)>> },
    /// One channel of an app, as far as this shard knows.
    Channel { app: AppIndex, channel: Box<str>, answer: oneshot::Sender<ChannelState> },
    /// To a presence channel's owner: who is there?
    Users { app: AppIndex, channel: Box<str>, answer: oneshot::Sender<Vec<Arc<str>>> },
    /// To a presence channel's owner: the first `most` members by user id.
    Members { app: AppIndex, channel: Box<str>, most: usize, answer: oneshot::Sender<Vec<PresentMember>> },
    /// What has been counted.
    Statistics { answer: oneshot::Sender<Statistics> },
    /// At most `most` of an app's connections: those that the filter finds, by socket id, user, channel, address or SDK.
    Connections { app: AppIndex, filter: Box<str>, most: usize, answer: oneshot::Sender<Vec<ConnectionState>> },
    /// Close this connection: was it here?
    Disconnect { app: AppIndex, socket_id: SocketId, answer: oneshot::Sender<bool> },
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Connections.
    pub(crate) subscriptions: usize,
    /// Users, of a presence channel.
    pub(crate) users: Option<usize>,
}

impl Occupancy {
    pub(crate) fn add(&mut self, other: Self) {
        self.subscriptions += other.subscriptions;
        self.users = self.users.or(other.users);
    }

    /// What the cluster knows, but no less than this node does: the engine hears of its subscribers a little later, and counts them only where that
    /// is asked for.
    pub(crate) fn or_at_least(self, here: Self) -> Self {
        let users = self.users.or(here.users);
        Self { subscriptions: self.subscriptions.max(here.subscriptions).max(users.unwrap_or(0)), users }
    }
}

/// What is known of a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChannelState {
    pub(crate) occupancy: Occupancy,
    /// What a cache channel has kept.
    pub(crate) cached: Option<CachedEvent>,
}

/// The last event of a cache channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CachedEvent {
    pub(crate) data: Arc<str>,
    /// For how long it is still kept.
    pub(crate) ttl: Duration,
}

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionState {
    pub(crate) socket_id: SocketId,
    pub(crate) user_id: Option<Arc<str>>,
    /// The client's, or that of the proxy that does not say which client it speaks for.
    pub(crate) address: IpAddr,
    pub(crate) sdk: Option<Arc<Sdk>>,
    pub(crate) carrier: Carrier,
    /// It only listens: a stream of a route.
    pub(crate) is_stream: bool,
    /// For how long it has been open.
    pub(crate) age: Duration,
    /// How many channels it is subscribed to, listed or not.
    pub(crate) subscriptions: usize,
    /// Some of its channels.
    pub(crate) channels: Vec<Arc<str>>,
}

/// What a client says it is, by `client` and `version` of its query; both may be empty, but not at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sdk {
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
}

/// A user in a presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresentMember {
    pub(crate) user_id: Arc<str>,
    /// JSON text of what the user says of itself.
    pub(crate) user_info: Option<Box<str>>,
    /// How many connections the user has in the channel.
    pub(crate) connections: u32,
}

/// What has been counted since the start, and what there is now; of one shard or of all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Statistics {
    pub(crate) event_loops: EventLoops,
    /// By the index of the app.
    pub(crate) apps: Vec<Traffic>,
    /// How long events took from their publisher to the sockets' queues.
    pub(crate) latency: Histogram,
}

impl Statistics {
    pub(crate) fn add(&mut self, other: &Self) {
        self.event_loops += &other.event_loops;
        if self.apps.len() < other.apps.len() {
            self.apps.resize(other.apps.len(), Traffic::default());
        }
        for (traffic, more) in self.apps.iter_mut().zip(&other.apps) {
            *traffic += more;
        }
        self.latency.add(&other.latency);
    }
}

counters! {
    /// What one app's clients and publishers do.
    pub(crate) struct Traffic by "app" {
        /// Subscriptions of clients to channels.
        subscriptions: Gauge "taut_subscriptions",
        /// Channels that have subscribers.
        channels: Gauge "taut_channels",
        /// Messages from clients.
        received: Counter "taut_messages_received_total",
        /// Bytes of the messages from clients.
        received_bytes: Counter "taut_received_bytes_total",
        /// Events that clients sent to others.
        client_events: Counter "taut_client_events_total",
        /// Events that were published to a channel, those of clients and the server's own included.
        published: Counter "taut_events_published_total",
        /// Copies of published events for clients.
        delivered: Counter "taut_events_delivered_total",
        /// Bytes of those copies, framed and before compression.
        delivered_bytes: Counter "taut_delivered_bytes_total",
    }
}

counters! {
    /// What the event loops count.
    pub(crate) struct EventLoops {
        /// Connections of clients that were opened.
        opened: Counter "taut_connections_opened_total",
        /// Connections closed because their reader was too slow.
        kicked: Counter "taut_connections_kicked_total",
        /// Connections closed because unfinished messages held all the memory there is for them.
        overloaded: Counter "taut_connections_overloaded_total",
        /// Handshakes that were refused, or given up at their deadline.
        #[serde(rename = "handshakes_refused")]
        refused: Counter "taut_handshakes_refused_total",
        /// Sockets dropped for a PROXY header that was missing or malformed.
        unannounced: Counter "taut_sockets_unannounced_total",
        /// Messages dropped because their reader was too slow.
        dropped: Counter "taut_messages_dropped_total",
        /// Peers that broke the WebSocket protocol.
        violations: Counter "taut_protocol_violations_total",
    }
}

impl From<Stats> for EventLoops {
    /// Messages are counted by app.
    fn from(stats: Stats) -> Self {
        let Stats {
            opened,
            refused,
            proxy_errors: unannounced,
            messages: _,
            dropped,
            slow_consumers: kicked,
            violations,
            overloaded,
        } = stats;
        Self { opened, kicked, overloaded, refused, unannounced, dropped, violations }
    }
}

/// How often something took how long: counts by powers of two of microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// Of those below 2, 4, 8 … microseconds; the last one has all the rest.
    pub(crate) counts: [u64; BUCKETS],
    /// Microseconds.
    pub(crate) sum: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()).saturating_sub(1) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.sum = self.sum.saturating_add(micros);
    }

    fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.iter_mut().zip(more.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(more.sum);
    }
}

/// Up to 2^24 microseconds, 16 seconds.
pub(crate) const BUCKETS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_buckets_by_powers_of_two() {
        let mut histogram = Histogram::default();
        for micros in [0, 1, 2, 3, 4, 1_000_000, u64::MAX] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.counts[..3], [2, 2, 1]);
        assert_eq!((histogram.counts[19], histogram.counts[BUCKETS - 1]), (1, 1));
        let mut sum = Statistics::default();
        let one = Statistics {
            apps: vec![Traffic { received: 2, ..Traffic::default() }],
            latency: histogram,
            ..Statistics::default()
        };
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.apps[0].received, sum.latency.counts[0]), (4, 4));
    }
}
