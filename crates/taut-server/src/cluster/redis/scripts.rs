//! The scripts that decide between nodes: one for each decision, and what they share.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline};

use super::Doubt;
use super::reply;

/// Names a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Enter,
    Renew,
    Retire,
    Reap,
    Join,
    Leave,
    Count,
    Draw,
    Keep,
    Last,
    Members,
    Channels,
    Channel,
    Nodes,
    Terminate,
    Terminated,
    Happened,
}

/// In the order of [`Script`].
const SOURCES: [&str; 17] = [
    include_str!("scripts/enter.lua"),
    include_str!("scripts/renew.lua"),
    include_str!("scripts/retire.lua"),
    include_str!("scripts/reap.lua"),
    include_str!("scripts/join.lua"),
    include_str!("scripts/leave.lua"),
    include_str!("scripts/count.lua"),
    include_str!("scripts/draw.lua"),
    include_str!("scripts/keep.lua"),
    include_str!("scripts/last.lua"),
    include_str!("scripts/members.lua"),
    include_str!("scripts/channels.lua"),
    include_str!("scripts/channel.lua"),
    include_str!("scripts/nodes.lua"),
    include_str!("scripts/terminate.lua"),
    include_str!("scripts/terminated.lua"),
    include_str!("scripts/happened.lua"),
];

const COMMON: &str = include_str!("scripts/common.lua");

/// A script with what all share. On a Redis Cluster it publishes in the slot of its partition.
fn whole(body: &str, is_sharded: bool) -> String {
    let publish = if is_sharded { "SPUBLISH" } else { "PUBLISH" };
    format!("local PUBLISH = '{publish}'\n{COMMON}\n{body}")
}

/// The text of a script.
#[cfg(test)]
pub(super) fn source(script: Script) -> String {
    whole(SOURCES[script as usize], false)
}

/// The scripts as a server knows them.
///
/// They are loaded when a connection begins. A server that has forgotten them since (it was restarted, or is another one) has forgotten more:
/// its `NOSCRIPT` ends the session like any doubt, so nothing is sent again out of order.
///
/// Each is called with the beginning of its partition's names as its key. Nothing ever has that name: while a slot moves, a Redis Cluster refuses
/// commands whose key it lacks (`ASK`), so no script runs there, and none stops half way at a key that has gone already.
#[derive(Debug)]
pub(super) struct Scripts {
    digests: Vec<String>,
}

impl Scripts {
    pub(super) async fn load(connection: &mut MultiplexedConnection, is_sharded: bool) -> Result<Self, Doubt> {
        let mut pipeline = Pipeline::with_capacity(SOURCES.len());
        for body in SOURCES {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(whole(body, is_sharded));
        }
        let replies = connection.send_packed_commands(&pipeline, 0, SOURCES.len()).await?;
        let digests = replies.into_iter().map(|reply| reply::checked(reply).and_then(reply::text));
        Ok(Self { digests: digests.collect::<Result<_, _>>()? })
    }

    /// As no server knows them.
    #[cfg(test)]
    pub(super) fn unloaded() -> Self {
        Self { digests: vec![String::new(); SOURCES.len()] }
    }

    /// The command that runs a script in a partition: its arguments follow.
    pub(super) fn call(&self, script: Script, partition: &str) -> Cmd {
        let mut command = ::redis::cmd("EVALSHA");
        command.arg(&self.digests[script as usize]).arg(1).arg(partition);
        command
    }
}
