//! What keys and pub/sub channels are called.
//!
//! Redis' numbered databases do not separate pub/sub, so everything begins with the prefix of the cluster. What is decided together has one hash
//! tag, so that it lies on one server of a Redis Cluster.

/// The names of one partition. So far there is one partition.
#[derive(Clone, Debug)]
pub(super) struct Names {
    partition: Box<str>,
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
    pub(super) fn new(prefix: &str) -> Self {
        Self { partition: format!("{prefix}{{0}}").into(), meta: format!("{prefix}:meta").into() }
    }

    /// What all names of the partition begin with.
    pub(super) fn partition(&self) -> &str {
        &self.partition
    }

    /// The key with what all nodes must agree on.
    pub(super) fn meta(&self) -> &str {
        &self.meta
    }

    /// The key with the users of an app who are online.
    pub(super) fn online(&self, app: &str) -> String {
        format!("{}:online:{app}", self.partition)
    }

    /// The key with the users of a presence channel.
    pub(super) fn users(&self, app: &str, channel: &str) -> String {
        format!("{}:users:{app}:{channel}", self.partition)
    }

    /// The pub/sub channel of a channel.
    pub(super) fn channel(&self, app: &str, channel: &str) -> String {
        format!("{}:channel:{app}:{channel}", self.partition)
    }

    /// The pub/sub channel of an app's users.
    pub(super) fn status(&self, app: &str) -> String {
        format!("{}:status:{app}", self.partition)
    }

    /// The pub/sub channel to all nodes.
    pub(super) fn control(&self) -> String {
        format!("{}:control", self.partition)
    }

    /// The pub/sub channel to one node.
    pub(super) fn node(&self, incarnation: &str) -> String {
        format!("{}:node:{incarnation}", self.partition)
    }

    /// What a pub/sub channel is for.
    pub(super) fn place<'a>(&self, name: &'a str) -> Option<Place<'a>> {
        let name = name.strip_prefix(&*self.partition)?.strip_prefix(':')?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_for() {
        let names = Names::new("taut");
        for (name, place) in [
            (names.channel("1", "chat"), Some(Place::Channel { app: "1", channel: "chat" })),
            (
                names.channel("1", "#server-to-user-a:b"),
                Some(Place::Channel { app: "1", channel: "#server-to-user-a:b" }),
            ),
            (names.status("1"), Some(Place::Status { app: "1" })),
            (names.control(), Some(Place::Control)),
            (names.node("abc"), Some(Place::Control)),
            (names.users("1", "chat"), None),
            ("taut{0}".to_owned(), None),
            ("taut{0}:channel:1".to_owned(), None),
            (Names::new("other").control(), None),
        ] {
            assert_eq!(names.place(&name), place, "{name}");
        }
        assert_eq!(names.channel("1", "chat"), "taut{0}:channel:1:chat");
        assert_eq!(names.meta(), "taut:meta");
    }

    #[test]
    fn keys_are_called_as_the_scripts_call_them() {
        let names = Names::new("taut");
        assert_eq!(names.partition(), "taut{0}");
        assert_eq!(names.online("1"), "taut{0}:online:1");
        assert_eq!(names.users("1", "presence-a"), "taut{0}:users:1:presence-a");
    }
}
