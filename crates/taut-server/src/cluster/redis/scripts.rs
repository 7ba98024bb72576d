//! The scripts that decide between nodes: one for each decision, and what they share.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, Value};

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

/// A script with what all share. On a Redis Cluster it would publish otherwise.
fn whole(body: &str) -> String {
    format!("local PUBLISH = 'PUBLISH'\n{COMMON}\n{body}")
}

/// The text of a script.
#[cfg(test)]
pub(super) fn source(script: Script) -> String {
    whole(SOURCES[script as usize])
}

/// The scripts as a server knows them.
///
/// They are loaded when a connection begins. A server that has forgotten them since (it was restarted, or is another one) has forgotten more:
/// its `NOSCRIPT` ends the session like any doubt, so nothing is sent again out of order.
#[derive(Debug)]
pub(super) struct Scripts {
    partition: Box<str>,
    digests: Vec<String>,
}

impl Scripts {
    pub(super) async fn load(connection: &mut MultiplexedConnection, partition: &str) -> Result<Self, Doubt> {
        let mut pipeline = Pipeline::with_capacity(SOURCES.len());
        for body in SOURCES {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(whole(body));
        }
        let replies = connection.send_packed_commands(&pipeline, 0, SOURCES.len()).await?;
        let digests = replies.into_iter().map(|reply| reply::checked(reply).and_then(reply::text));
        Ok(Self { partition: partition.into(), digests: digests.collect::<Result<_, _>>()? })
    }

    /// The command that runs a script: its arguments follow.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let mut command = ::redis::cmd("EVALSHA");
        command.arg(&self.digests[script as usize]).arg(1).arg(&*self.partition);
        command
    }

    /// Runs a script at once, before there is a queue.
    pub(super) async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        script: Script,
        arguments: &[&[u8]],
    ) -> Result<Value, Doubt> {
        let mut command = self.call(script);
        for argument in arguments {
            command.arg(*argument);
        }
        reply::checked(connection.send_packed_command(&command).await?)
    }
}
