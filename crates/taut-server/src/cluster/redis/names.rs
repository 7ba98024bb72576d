//! What keys and pub/sub channels are called.
//!
//! Redis' numbered databases do not separate pub/sub, so everything begins with the prefix of the cluster. What is decided together is in one
//! *partition*: its names have one hash tag, so that they lie on one server of a Redis Cluster. One Redis has one partition.

use super::slots;
use crate::cluster::wire::Cell;

/// The number of a partition.
pub(super) type Partition = usize;

/// The names of all partitions.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Box<str>,
    /// What all names of each partition begin with.
    partitions: Box<[Box<str>]>,
    meta: Box<str>,
}

/// What a pub/sub channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// Events, members and counts of a channel.
    Channel { app: &'a str, channel: &'a str },
    /// The users of an app coming online and going offline.
    Status { app: &'a str },
    /// From node to node.
    Control,
}

impl Names {
    /// On one Redis.
    pub(super) fn new(prefix: &str) -> Self {
        Self::with_tags(prefix, &["0".to_owned()])
    }

    /// On a Redis Cluster.
    pub(super) fn sharded(prefix: &str) -> Self {
        Self::with_tags(prefix, &slots::tags(PARTITIONS))
    }

    fn with_tags(prefix: &str, tags: &[String]) -> Self {
        let partitions = tags.iter().map(|tag| format!("{prefix}{{{tag}}}").into()).collect();
        Self { prefix: prefix.into(), partitions, meta: format!("{prefix}:meta").into() }
    }

    /// How many partitions there are.
    pub(super) fn count(&self) -> usize {
        self.partitions.len()
    }

    /// Whether the partitions may lie on several servers.
    pub(super) fn is_sharded(&self) -> bool {
        self.count() > 1
    }

    /// The partition of what belongs to a channel or to a user of an app.
    pub(super) fn partition(&self, app: &str, name: &str) -> Partition {
        if self.is_sharded() { spread(app, name) as usize % self.count() } else { 0 }
    }

    /// The partition in which a node holds something.
    pub(super) fn partition_of(&self, cell: &Cell<'_>) -> Partition {
        match cell {
            Cell::Occupied { app, channel } | Cell::Member { app, channel, .. } => self.partition(app, channel),
            Cell::SignedIn { app, user_id } => self.partition(app, user_id),
        }
    }

    /// The partition in which an app's connections are counted.
    pub(super) fn places(&self, app: &str) -> Partition {
        self.partition(app, "")
    }

    /// What all names of a partition begin with.
    pub(super) fn of(&self, at: Partition) -> &str {
        &self.partitions[at]
    }

    /// The key with what all nodes must agree on.
    pub(super) fn meta(&self) -> &str {
        &self.meta
    }

    /// The key with the users of an app who are online, as far as they are in this partition.
    pub(super) fn online(&self, at: Partition, app: &str) -> String {
        format!("{}:online:{app}", self.of(at))
    }

    /// The key with the users of a presence channel.
    pub(super) fn users(&self, at: Partition, app: &str, channel: &str) -> String {
        format!("{}:users:{app}:{channel}", self.of(at))
    }

    /// The pub/sub channel of a channel.
    pub(super) fn channel(&self, at: Partition, app: &str, channel: &str) -> String {
        format!("{}:channel:{app}:{channel}", self.of(at))
    }

    /// The pub/sub channel of an app's users, as far as they are in this partition.
    pub(super) fn status(&self, at: Partition, app: &str) -> String {
        format!("{}:status:{app}", self.of(at))
    }

    /// The pub/sub channel to all nodes.
    pub(super) fn control(&self, at: Partition) -> String {
        format!("{}:control", self.of(at))
    }

    /// The pub/sub channel to one node.
    pub(super) fn node(&self, at: Partition, incarnation: &str) -> String {
        format!("{}:node:{incarnation}", self.of(at))
    }

    /// What a pub/sub channel is for.
    pub(super) fn place<'a>(&self, name: &'a str) -> Option<Place<'a>> {
        let (_, name) = name.strip_prefix(&*self.prefix)?.strip_prefix('{')?.split_once("}:")?;
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        // The id of an app has no colon; the name of a channel may have one.
        match (kind, rest.split_once(':')) {
            ("channel", Some((app, channel))) => Some(Place::Channel { app, channel }),
            ("status", None) => Some(Place::Status { app: rest }),
            ("control" | "node", None) => Some(Place::Control),
            _ => None,
        }
    }
}

/// The same number on every node, for ever: it is part of the format. FNV-1a, whose upper half decides as well: its lowest bits know little.
fn spread(app: &str, name: &str) -> u32 {
    let bytes = app.bytes().chain([0]).chain(name.bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash >> 32) as u32 ^ hash as u32
}

/// Partitions on a Redis Cluster: enough for dozens of servers, and few enough that renewing the lease in each costs nothing.
const PARTITIONS: u16 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_for() {
        for names in [Names::new("taut"), Names::sharded("taut")] {
            let at = names.count() - 1;
            for (name, place) in [
                (names.channel(at, "1", "chat"), Some(Place::Channel { app: "1", channel: "chat" })),
                (
                    names.channel(at, "1", "#server-to-user-a:b"),
                    Some(Place::Channel { app: "1", channel: "#server-to-user-a:b" }),
                ),
                (names.channel(at, "1", "a{b}:c"), Some(Place::Channel { app: "1", channel: "a{b}:c" })),
                (names.status(at, "1"), Some(Place::Status { app: "1" })),
                (names.control(at), Some(Place::Control)),
                (names.node(at, "abc"), Some(Place::Control)),
                (names.users(at, "1", "chat"), None),
                ("taut{0}".to_owned(), None),
                ("taut{0}:channel:1".to_owned(), None),
                (Names::new("other").control(0), None),
            ] {
                assert_eq!(names.place(&name), place, "{name}");
            }
        }
        assert_eq!(Names::new("taut").channel(0, "1", "chat"), "taut{0}:channel:1:chat");
        assert_eq!(Names::new("taut").meta(), "taut:meta");
    }

    #[test]
    fn channels_and_apps_are_spread_evenly_and_each_has_its_partition_for_ever() {
        let names = Names::sharded("taut");
        let mut channels = vec![0; names.count()];
        for number in 0..6_400 {
            channels[names.partition("1", &format!("private-user-{number}"))] += 1;
        }
        assert!(channels.iter().all(|count| (50..150).contains(count)), "{channels:?}");
        let known = [("1", "chat"), ("1", "presence-lobby"), ("app-2", "chat")];
        assert_eq!(known.map(|(app, channel)| names.partition(app, channel)), [9, 8, 14]);
        assert_eq!(["1", "2", "app-2"].map(|app| names.places(app)), [51, 40, 8]);
        assert_eq!((Names::new("taut").partition("1", "chat"), Names::new("taut").places("1")), (0, 0));
    }

    #[test]
    fn whatever_belongs_to_a_partition_has_its_slot() {
        let names = Names::sharded("taut");
        for at in 0..names.count() {
            let slot = slots::slot(names.of(at));
            assert_eq!(usize::from(slot) / 256, at);
            for name in [
                names.channel(at, "1", "a{b}"),
                names.status(at, "1"),
                names.control(at),
                names.node(at, "abc"),
                names.users(at, "1", "chat"),
                names.online(at, "1"),
            ] {
                assert_eq!(slots::slot(&name), slot, "{name}");
            }
        }
    }

    #[test]
    fn keys_are_called_as_the_scripts_call_them() {
        let names = Names::new("taut");
        assert_eq!(names.of(0), "taut{0}");
        assert_eq!(names.online(0, "1"), "taut{0}:online:1");
        assert_eq!(names.users(0, "1", "presence-a"), "taut{0}:users:1:presence-a");
    }
}
