//! Questions to the shards, and their answers. The asker waits; a shard never does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

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
    /// What has been counted.
    Statistics { answer: oneshot::Sender<Statistics> },
    /// Some of an app's connections.
    Connections { app: AppIndex, most: usize, answer: oneshot::Sender<Vec<ConnectionState>> },
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
    pub(crate) channels: Vec<Arc<str>>,
}

/// What has been counted since the start, and what there is now; of one shard or of all together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Statistics {
    /// What the event loops count.
    pub(crate) stats: taut_shard::Stats,
    /// By the index of the app.
    pub(crate) apps: Vec<Traffic>,
    /// How long events took from their publisher to the sockets' queues.
    pub(crate) latency: Histogram,
}

impl Statistics {
    pub(crate) fn add(&mut self, other: &Self) {
        let (stats, more) = (&mut self.stats, &other.stats);
        stats.opened += more.opened;
        stats.refused += more.refused;
        stats.unannounced += more.unannounced;
        stats.messages += more.messages;
        stats.dropped += more.dropped;
        stats.kicked += more.kicked;
        stats.violations += more.violations;
        stats.overloaded += more.overloaded;
        if self.apps.len() < other.apps.len() {
            self.apps.resize(other.apps.len(), Traffic::default());
        }
        for (traffic, more) in self.apps.iter_mut().zip(&other.apps) {
            traffic.add(more);
        }
        self.latency.add(&other.latency);
    }
}

/// What one app's clients and publishers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Subscriptions there are now.
    pub(crate) subscriptions: u64,
    /// Occupied channels there are now.
    pub(crate) channels: u64,
    /// Messages from clients.
    pub(crate) received: u64,
    /// Bytes of them.
    pub(crate) received_bytes: u64,
    /// Events that clients sent to others.
    pub(crate) client_events: u64,
    /// Events that were published to a channel, those of clients and the server's own included.
    pub(crate) published: u64,
    /// Copies of them that went to clients.
    pub(crate) delivered: u64,
    /// Bytes of those.
    pub(crate) delivered_bytes: u64,
    /// Subscriptions, sign-ins and client events that were refused, and clients that were not let in.
    pub(crate) refused: u64,
}

impl Traffic {
    fn add(&mut self, more: &Self) {
        self.subscriptions += more.subscriptions;
        self.channels += more.channels;
        self.received += more.received;
        self.received_bytes += more.received_bytes;
        self.client_events += more.client_events;
        self.published += more.published;
        self.delivered += more.delivered;
        self.delivered_bytes += more.delivered_bytes;
        self.refused += more.refused;
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
