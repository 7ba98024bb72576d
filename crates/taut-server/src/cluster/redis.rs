//! The cluster on Redis: [`driver`] says how it is driven.

mod hazard;
mod names;
mod queue;
mod reply;
mod scripts;
mod session;
mod slots;
mod subscriber;
#[cfg(test)]
mod tests;
mod topology;
mod url;

use std::fmt;

use ::redis::RedisError;

use self::hazard::Hazard;
pub(super) use self::session::Session;
use self::topology::{InvalidUrl, Known};
pub(super) use self::url::{FORMS, check_url};
use super::driver;

/// What outlives a session.
type Memory = driver::Memory<Kept>;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    known: Known,
    /// What operators have been warned of.
    hazards: Vec<Hazard>,
}

impl Kept {
    /// Warns of what was not warned of before.
    fn warn(&mut self, hazards: impl IntoIterator<Item = Hazard>, engine: &str) {
        for hazard in hazards {
            if !self.hazards.iter().any(|known| known.is_like(&hazard)) {
                tracing::warn!(engine, "{hazard}");
                self.hazards.push(hazard);
            }
        }
    }
}

/// Why a session ends.
#[derive(Debug)]
pub(super) enum Doubt {
    /// Redis answers with an error, or not at all.
    Engine(RedisError),
    /// Another node may have counted this one as dead.
    Fenced,
    /// The last answered renewal is too long ago.
    Late,
    /// The connection with the subscriptions has ended.
    Lost,
    /// Slots of a Redis Cluster have another master.
    Moved,
    /// Slots of a Redis Cluster have no master.
    Uncovered,
    /// Several servers are named, and they are not in a Redis Cluster.
    NoCluster,
    /// Nothing comes by the subscriptions, not even this node's own message.
    Silent,
    /// No answer that a script of ours gives.
    Unexpected,
    /// The sentinels know no master.
    NoMaster,
    /// Nodes with another format or number of partitions use the prefix.
    Other,
    Url(InvalidUrl),
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(formatter),
            Self::Fenced => formatter.write_str("this node's lease was over, or Redis has lost its memory"),
            Self::Late => formatter.write_str("this node has not renewed its lease in time"),
            Self::Lost => formatter.write_str("the connection with the subscriptions was closed"),
            Self::Moved => formatter.write_str("slots of the Redis Cluster have moved to another server"),
            Self::Uncovered => formatter.write_str("the Redis Cluster has no server for some of its slots"),
            Self::NoCluster => {
                formatter.write_str("several servers are named, but the one that answered is not in a Redis Cluster")
            }
            Self::Silent => formatter.write_str("this node does not hear its own messages"),
            Self::Unexpected => formatter.write_str("an answer was not what Taut's scripts give"),
            Self::NoMaster => formatter.write_str("the sentinels know no master of this name"),
            Self::Other => formatter
                .write_str("another version of Taut uses this prefix; choose another prefix, or stop those nodes"),
            Self::Url(invalid) => invalid.fmt(formatter),
        }
    }
}

impl From<RedisError> for Doubt {
    fn from(error: RedisError) -> Self {
        Self::Engine(error)
    }
}
