//! What the owners of channels on this node and the engine of a cluster (Redis, NATS) say to each other.
//!
//! In a cluster each node has an owner for a channel, and the engine decides between the nodes. An owner sends
//! [`Request`]s; the engine's driver answers with [`Update`]s. [`Broker`](crate::cluster::Broker) has the promises.

use std::sync::Arc;
use std::time::Duration;

use super::command::{PresenceMember, Publication};
use super::receipt::Receipt;

/// From an owner on this node to the engine.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// The channel has its first subscriber on this node: what other nodes publish is wanted. Answered with [`Update::Subscribed`].
    Subscribe { channel: Arc<str> },
    /// The channel has no subscriber on this node any more. Where subscribers are counted, a [`Count`](Self::Count) of none comes before it.
    /// That has been so for as long as it `waited` for users to be back: webhooks wait no more than what is left of their own time.
    Unsubscribe { channel: Arc<str>, waited: Duration },
    /// Carry this to the nodes with subscribers. If `kept`, the engine keeps it as the channel's last event, and this node gets it back as
    /// [`Update::Published`] in the engine's order; otherwise the owner has delivered it on this node already.
    Publish { publication: Publication, kept: bool, receipt: Option<Receipt> },
    /// A user's first connection on this node has come to a presence channel. Answered with [`Update::Joined`].
    Join { channel: Arc<str>, member: PresenceMember, number: u32, most: usize },
    /// A user's last connection on this node has left a presence channel. If it was lost, that has been held back for as long as it `waited`.
    Leave { channel: Arc<str>, user_id: Arc<str>, waited: Duration },
    /// Who is in a presence channel, over all nodes? Answered with [`Update::Members`].
    Members { channel: Arc<str> },
    /// What is the last event of this cache channel? Answered with [`Update::LastEvent`]. `is_missed` if a new subscriber waits for it: the
    /// first one of the cluster that finds nothing is told of by a webhook.
    LastEvent { channel: Arc<str>, is_missed: bool },
    /// This node has so many subscribers in the channel now. Every node with interest hears of the new sum as [`Update::Counted`].
    Count { channel: Arc<str>, subscribers: usize },
    /// A user's first connection on this node has signed in.
    SignIn { user_id: Arc<str> },
    /// A user's last connection on this node that had signed in has ended.
    SignOut { user_id: Arc<str> },
    /// Which of these users are online? From here on their changes come as [`Update::Status`]. Answered with [`Update::Online`].
    Online { user_ids: Arc<[Arc<str>]>, number: u32 },
}

/// From the engine to the owner of a channel on this node, or of the app's users.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    /// From here on, everything that is published to the channel comes.
    Subscribed { channel: Arc<str> },
    /// Another node has published this, or the engine has kept it at this position.
    Published { publication: Publication, kept: Option<Position> },
    /// Something published to the channel was lost on the way.
    Missed { channel: Arc<str> },
    /// The user is in the presence channel, as everybody will have heard by this position; or may not be.
    Joined { channel: Arc<str>, user_id: Arc<str>, number: u32, outcome: Result<Position, TooMany> },
    /// A user has come to a presence channel or has left it.
    Changed { channel: Arc<str>, change: Change },
    /// Who is in a presence channel.
    Members { channel: Arc<str>, snapshot: Snapshot },
    /// The last event of a cache channel, and its position: of number 0 if none was ever kept.
    LastEvent { channel: Arc<str>, publication: Option<Publication>, position: Position },
    /// So many are subscribed to the channel, over all nodes.
    Counted { channel: Arc<str>, subscribers: usize },
    /// A user has come online or gone offline.
    Status { user_id: Arc<str>, is_online: bool },
    /// Those of the users asked for who are online.
    Online { number: u32, online: Vec<Arc<str>> },
}

impl Update {
    /// The channel whose owner it is for; `None` if it is for the owner of the app's users.
    pub(crate) fn channel(&self) -> Option<&Arc<str>> {
        match self {
            Self::Published { publication, .. } => Some(&publication.channel),
            Self::Subscribed { channel }
            | Self::Missed { channel }
            | Self::Joined { channel, .. }
            | Self::Changed { channel, .. }
            | Self::Members { channel, .. }
            | Self::LastEvent { channel, .. }
            | Self::Counted { channel, .. } => Some(channel),
            Self::Status { .. } | Self::Online { .. } => None,
        }
    }
}

/// Whether the engine decides, as all owners of a node are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not known yet whether the engine is there: who comes waits for that.
    Starting,
    /// It does. All that was wanted before is subscribed, and all that this node holds is known to the engine.
    Joined,
    /// It cannot be reached. Each node goes on by itself until it is [`Joined`](Self::Joined) again.
    Away,
}

/// A point in the history of a channel. The engine numbers the changes of a presence channel and the events of a cache channel, each by
/// themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) number: u64,
}

impl Position {
    /// Whether this is news to somebody who knows everything up to `known`.
    pub(crate) fn is_after(self, known: Option<Self>) -> bool {
        known.is_none_or(|known| known.epoch != self.epoch || known.number < self.number)
    }
}

/// The engine's memory: another one if it has lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

/// One step in the history of a presence channel.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) position: Position,
    /// The number of the channel's change before this one; 0 if there was none, or if nobody was there.
    pub(crate) previous: u64,
    pub(crate) difference: Difference,
}

#[derive(Clone, Debug)]
pub(crate) enum Difference {
    Added(PresenceMember),
    Removed(Arc<str>),
}

/// A presence channel's users at one position.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) position: Position,
    pub(crate) members: Vec<PresenceMember>,
    /// The engine has lost its memory a short time ago: other nodes may not have told it yet who is there.
    pub(crate) is_settling: bool,
}

/// The presence channel has this many users, its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) most: usize,
}
