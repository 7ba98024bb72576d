//! Channels and users as pure values: commands in, effects out. No socket, clock, task or shard.
//!
//! Each channel has one [owner](owner::Owner), on one shard: it orders, remembers and decides. Each shard knows which
//! of its connections are [members](members::Members) and what they wait for. How a command reaches an owner is up to
//! the [bus](crate::bus).

mod channels;
pub(crate) mod command;
pub(crate) mod effects;
pub(crate) mod engine;
pub(crate) mod envelope;
mod grace;
mod history;
pub(crate) mod members;
pub(crate) mod owner;
pub(crate) mod presence;
pub(crate) mod receipt;
#[cfg(test)]
mod simulation;
pub(crate) mod subscriptions;
mod users;
mod view;

use std::hash::Hash;
use std::sync::Arc;

use taut_proto::Time;

use crate::apps::App;
use crate::place::ShardIndex;
use command::{Command, Rejected, Reply};
use effects::Effects;
use engine::{Standing, Update};
use members::Members;
use owner::Owner;

/// One app on one shard. `C` is how the shard names its connections.
#[derive(Debug)]
pub(crate) struct Hub<C> {
    app: Arc<App>,
    pub(crate) members: Members<C>,
    owner: Owner<C>,
}

impl<C: Copy + Eq + Hash> Hub<C> {
    /// On a node of a cluster, if it has a `standing`.
    pub(crate) fn new(app: Arc<App>, standing: Option<Standing>) -> Self {
        let members = Members::new(Arc::clone(&app), standing.is_some());
        Self { members, app, owner: Owner::new(standing) }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    pub(crate) fn owner(&self) -> &Owner<C> {
        &self.owner
    }

    /// A command has come to the owner, from one of the shards.
    pub(crate) fn command(&mut self, from: ShardIndex, command: Command<C>, now: Time, effects: &mut Effects<C>) {
        self.owner.handle(&self.app, from, command, now, effects);
    }

    /// The engine of the cluster tells the owner something.
    pub(crate) fn update(&mut self, update: Update, now: Time, effects: &mut Effects<C>) {
        self.owner.update(&self.app, update, now, effects);
    }

    /// The engine decides from here on, or cannot.
    pub(crate) fn stand(&mut self, standing: Standing, now: Time, effects: &mut Effects<C>) {
        self.owner.stand(standing, now, effects);
    }

    /// The owner's reply to `shard` finds no room there. Gives the one to send instead.
    ///
    /// A user who has come by it leaves again, and may be back: the app's grace applies. If nobody else is interested over there, that shard says so itself.
    pub(crate) fn refused(
        &mut self,
        shard: ShardIndex,
        reply: Reply<C>,
        now: Time,
        effects: &mut Effects<C>,
    ) -> Reply<C> {
        let Reply::Subscribed { channel, request, user_id, .. } = reply else { return reply };
        if user_id.is_some() {
            let command =
                Command::Unsubscribe { channel: Arc::clone(&channel), user_id, is_last: false, may_return: true };
            self.command(shard, command, now, effects);
        }
        Reply::Rejected { channel, request, why: Rejected::Busy }
    }

    /// Whether [`tick`](Self::tick) has anything to do, at once or later.
    pub(crate) fn is_due(&self) -> bool {
        self.members.is_due() || self.owner.is_due()
    }

    /// To be called about once a second while [`is_due`](Self::is_due).
    pub(crate) fn tick(&mut self, now: Time, effects: &mut Effects<C>) {
        self.members.tick(effects);
        self.owner.tick(&self.app, now, effects);
    }

    /// The server stops, and all connections have gone: whoever may be back comes to another process. On a server that is alone, webhooks hear
    /// that the users have left. In a cluster the engine goes on with the grace.
    pub(crate) fn end_grace(&mut self, now: Time, effects: &mut Effects<C>) {
        self.owner.end_grace(&self.app, now, effects);
    }

    #[cfg(test)]
    pub(crate) fn is_vacant(&self) -> bool {
        self.members.is_vacant() && self.owner.is_vacant()
    }
}
