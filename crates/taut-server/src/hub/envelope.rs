//! What goes through the mailboxes of shards.

use super::command::{Command, Push, Reply};
use super::engine::Update;
use crate::place::{AppIndex, ShardIndex};

/// A message from one shard to another. `C` is how shards name their connections.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<C> {
    pub(crate) app: AppIndex,
    pub(crate) from: ShardIndex,
    pub(crate) content: Content<C>,
}

#[derive(Clone, Debug)]
pub(crate) enum Content<C> {
    Command(Command<C>),
    Reply(Reply<C>),
    Push(Push),
    /// From the engine of the cluster, to an owner.
    Update(Box<Update>),
}
