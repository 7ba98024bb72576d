//! What the page is told of the server, bounded in rows and bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use taut_shard::Carrier;

use crate::apps::App;
use crate::cluster::Phase;
use crate::pusher::channel::Kind;
use crate::query::{ChannelState, ConnectionState, EventLoops, Occupancy, PresentMember, Statistics, Traffic};

/// The beginning of a text, for it may be long.
pub(super) fn preview(text: &str) -> &str {
    beginning(text, LONGEST_PREVIEW)
}

/// At most so many bytes of a text.
fn beginning(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Counted since the start; the page makes rates of it.
#[derive(Serialize)]
pub(super) struct Overview<'a> {
    version: &'static str,
    /// Seconds since the server started.
    uptime: u64,
    /// How it stands with the engine of the cluster, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'static str>,
    #[serde(flatten)]
    event_loops: EventLoops,
    /// Of those below 2, 4, 8 … microseconds; the last one has all the rest.
    latency: &'a [u64],
    apps: Vec<AppConfig<'a>>,
}

#[derive(Serialize)]
struct AppConfig<'a> {
    id: &'a str,
    enabled: bool,
    connections: usize,
    /// Connections, subscriptions, sign-ins and client events.
    refused: u64,
    #[serde(flatten)]
    traffic: Traffic,
}

impl<'a> Overview<'a> {
    pub(super) fn new(
        statistics: &'a Statistics,
        apps: &'a [Arc<App>],
        uptime: Duration,
        cluster: Option<Phase>,
    ) -> Self {
        let apps = apps.iter().filter(|app| app.snapshot().known).map(|app| AppConfig {
            id: app.id(),
            enabled: app.snapshot().config.enabled,
            connections: app.connections(),
            refused: app.refusals().of_clients(),
            traffic: statistics.apps.get(app.index().get()).copied().unwrap_or_default(),
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime: uptime.as_secs(),
            cluster: cluster.map(Phase::name),
            event_loops: statistics.event_loops,
            latency: &statistics.latency.counts,
            apps: apps.take(MOST_ROWS).collect(),
        }
    }
}

/// What the page looks for.
#[derive(Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    pub(super) filter: String,
}

/// The fullest channels first.
#[derive(Serialize)]
pub(super) struct Channels<'a> {
    /// How many there are that the filter lets through, shown or not.
    total: usize,
    channels: Vec<Occupied<'a>>,
}

#[derive(Serialize)]
struct Occupied<'a> {
    name: &'a str,
    subscriptions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<usize>,
}

impl<'a> Channels<'a> {
    pub(super) fn new(channels: &'a BTreeMap<Arc<str>, Occupancy>, filter: &str) -> Self {
        let found = channels.iter().filter(|(name, _)| name.contains(filter));
        let mut channels: Vec<_> = found
            .map(|(name, occupancy)| Occupied { name, subscriptions: occupancy.subscriptions, users: occupancy.users })
            .collect();
        // By name, where the numbers are the same.
        channels.sort_by_key(|channel| std::cmp::Reverse(channel.subscriptions));
        let total = channels.len();
        channels.truncate(MOST_ROWS);
        Self { total, channels }
    }
}

#[derive(Serialize)]
pub(super) struct Channel<'a> {
    name: &'a str,
    subscriptions: usize,
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<usize>,
    /// By user id; the first of them.
    members: Vec<Member<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<Cached<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    user_id: &'a str,
    /// The beginning of the JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_info: Option<&'a str>,
    connections: u32,
}

#[derive(Serialize)]
struct Cached<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    size: usize,
    /// Seconds.
    ttl: u64,
}

impl<'a> Channel<'a> {
    pub(super) fn new(name: &'a str, state: &'a ChannelState, members: &'a [PresentMember]) -> Self {
        let encrypted = Kind::of(name).is_encrypted();
        let cached = state.cached.as_ref().map(|cached| Cached {
            data: (!encrypted).then(|| preview(&cached.data)),
            size: cached.data.len(),
            ttl: cached.ttl.as_secs(),
        });
        Self {
            name,
            subscriptions: state.occupancy.subscriptions,
            encrypted,
            users: state.occupancy.users,
            members: members.iter().map(Member::new).collect(),
            cached,
        }
    }
}

impl<'a> Member<'a> {
    fn new(member: &'a PresentMember) -> Self {
        Self {
            user_id: beginning(&member.user_id, LONGEST_USER),
            user_info: member.user_info.as_deref().map(|info| beginning(info, LONGEST_USER)),
            connections: member.connections,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Connections<'a> {
    /// How many there are, shown or not.
    total: usize,
    connections: Vec<Connected<'a>>,
}

#[derive(Serialize)]
struct Connected<'a> {
    socket_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    address: String,
    /// What it says it is: `client` and `version` of its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    transport: &'static str,
    /// Seconds.
    age: u64,
    /// How many it is subscribed to, shown or not.
    subscriptions: usize,
    channels: Vec<&'a str>,
}

impl<'a> Connections<'a> {
    pub(super) fn new(total: usize, connections: &'a [ConnectionState]) -> Self {
        let connections = connections.iter().map(|connection| Connected {
            socket_id: connection.socket_id.to_string(),
            user_id: connection.user_id.as_deref(),
            address: connection.address.to_string(),
            client: connection.sdk.as_ref().map(|sdk| &*sdk.name),
            version: connection.sdk.as_ref().map(|sdk| &*sdk.version),
            transport: match connection.carrier {
                _ if connection.is_stream => "SSE",
                Carrier::Tcp => "websocket",
                Carrier::Tls => "websocket with TLS",
                Carrier::Pipe => "HTTP",
            },
            age: connection.age.as_secs(),
            subscriptions: connection.subscriptions,
            channels: connection.channels.iter().take(MOST_CHANNELS).map(|channel| &**channel).collect(),
        });
        Self { total, connections: connections.collect() }
    }
}

/// Rows of one answer.
pub(super) const MOST_ROWS: usize = 500;

/// Members that are named of one channel.
pub(super) const MOST_MEMBERS: usize = 200;

/// Channels that are named of one connection.
const MOST_CHANNELS: usize = 20;

/// Bytes of a user's id and of what the user says of itself, in a list.
const LONGEST_USER: usize = 1024;

/// Bytes of data that are shown.
const LONGEST_PREVIEW: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_ends_between_characters() {
        assert_eq!(preview("short"), "short");
        let long = "é".repeat(3000);
        assert_eq!(preview(&long).len(), 4096);
        let odd = format!("x{long}");
        assert_eq!(preview(&odd).len(), 4095);
    }

    #[test]
    fn the_fullest_channels_come_first_and_the_rest_is_counted() {
        let channels: BTreeMap<Arc<str>, _> = (0..MOST_ROWS + 7)
            .map(|number| (format!("channel-{number:04}").into(), Occupancy { subscriptions: number, users: None }))
            .collect();
        let view = Channels::new(&channels, "channel-");
        assert_eq!((view.total, view.channels.len(), view.channels[0].subscriptions), (507, 500, 506));
        assert_eq!(Channels::new(&channels, "-0003").channels[0].name, "channel-0003");
        assert_eq!(Channels::new(&channels, "-0003").total, 1);
    }
}
