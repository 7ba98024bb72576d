//! How a session begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo};
use tokio::sync::mpsc;

use super::happenings::Happenings;
use super::server::{Probe, Server};
use super::{Lease, Leaving, PartitionState, Reaper, Session, describe};
use crate::cluster::driver::Node;
use crate::cluster::inbox::Inbox;
use crate::cluster::part::Counts;
use crate::cluster::redis::names::{Names, Partition};
use crate::cluster::redis::queue::{Queue, Writer};
use crate::cluster::redis::scripts::{Script, Scripts};
use crate::cluster::redis::subscriber::{Reader, Subscriber};
use crate::cluster::redis::topology::{Layout, Master, Topology};
use crate::cluster::redis::{Doubt, Kept, reply};
use crate::cluster::shares::Shares;
use crate::cluster::terminations::Terminations;
use crate::hub::engine::Epoch;

impl Session {
    /// Connects, and takes a lease in each partition.
    ///
    /// # Cancel safety
    /// What was taken ends by itself.
    pub(super) async fn connect(node: Arc<Node>, incarnation: Box<str>, kept: &Kept) -> Result<Self, Doubt> {
        let settings = &node.settings;
        let topology = Topology::parse(&settings.url).map_err(Doubt::Url)?;
        let Layout { names, servers: masters, meta } =
            topology.layout(&settings.prefix, &kept.known, settings.response_timeout).await?;
        let names = Arc::new(names);
        let (sender, heard) = mpsc::unbounded_channel();
        let inbox = Arc::new(Inbox {
            apps: Arc::clone(&node.apps),
            owners: Arc::clone(&node.owners),
            origin: node.origin.clone(),
            heard: sender,
        });
        let mut connected = Vec::with_capacity(masters.len());
        for Master { info, partitions } in masters {
            connected.push(Connected::open(&Client::open(info)?, partitions, &names, &node, &inbox).await?);
        }
        agree(&mut connected[meta].writing, &names).await?;
        // A server may have nothing but what all nodes agree on.
        connected.retain(|server| !server.partitions.is_empty());
        let (mut servers, mut partitions) = (Vec::new(), Vec::new());
        let sent = Instant::now();
        for (number, mut server) in connected.into_iter().enumerate() {
            let scripts = Arc::new(Scripts::load(&mut server.writing, names.is_sharded()).await?);
            let epochs = server.enter(&scripts, &names, &node, &incarnation).await?;
            for (at, epoch) in server.partitions.iter().zip(epochs) {
                let queue = Queue::new(*at, names.of(*at), Arc::clone(&scripts), incarnation.clone());
                let happenings = Happenings::new(sent);
                let reaper = Reaper::default();
                partitions.push((*at, PartitionState { server: number, epoch, queue, happenings, reaper }));
            }
            servers.push(Server {
                first: server.partitions[0],
                writer: Writer::new(server.writing),
                subscriber: Subscriber::new(server.subscribing, names.is_sharded()),
                hears: server.hears,
                probe: Probe::default(),
                is_subscribed: false,
            });
        }
        partitions.sort_unstable_by_key(|(at, _)| *at);
        Ok(Self {
            lease: Lease { ends: node.lease_from(sent), renew_at: sent, unanswered: 0 },
            untold: partitions.len(),
            partitions: partitions.into_iter().map(|(_, state)| state).collect(),
            counts: Counts::default(),
            shares: Shares::default(),
            watched: HashMap::new(),
            who_is_online: HashMap::new(),
            channels: HashMap::new(),
            terminations: Terminations::default(),
            asked: 0,
            leaving: Leaving::default(),
            has_sentinels: matches!(topology, Topology::Sentinel { .. }),
            node,
            names,
            incarnation,
            servers,
            heard,
        })
    }
}

/// A server that has been reached.
struct Connected {
    partitions: Vec<Partition>,
    writing: MultiplexedConnection,
    subscribing: MultiplexedConnection,
    hears: Arc<Reader>,
}

impl Connected {
    async fn open(
        client: &Client,
        partitions: Vec<Partition>,
        names: &Arc<Names>,
        node: &Node,
        inbox: &Arc<Inbox>,
    ) -> Result<Self, Doubt> {
        let timeout = node.settings.response_timeout;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let hears = Arc::new(Reader {
            names: Arc::clone(names),
            inbox: Arc::clone(inbox),
            since: Instant::now(),
            last: AtomicU64::new(0),
        });
        let to = Arc::clone(&hears);
        let take = move |info: PushInfo| -> Result<(), ()> {
            to.take(info);
            Ok(())
        };
        let subscribing =
            client.get_multiplexed_async_connection_with_config(&config.clone().set_push_sender(take)).await?;
        let writing = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { partitions, writing, subscribing, hears })
    }

    /// Takes a lease in each of the server's partitions. Gives their epochs.
    async fn enter(
        &mut self,
        scripts: &Scripts,
        names: &Names,
        node: &Node,
        incarnation: &str,
    ) -> Result<Vec<Epoch>, Doubt> {
        let (lease, described) = (node.settings.lease.as_millis() as u64, describe(node));
        let mut pipeline = Pipeline::with_capacity(self.partitions.len());
        for at in &self.partitions {
            let mut enter = scripts.call(Script::Enter, names.of(*at));
            enter.arg(incarnation).arg(getrandom::u64().unwrap_or_default().to_string()).arg(lease).arg(&described);
            pipeline.add_command(enter);
        }
        let replies = self.writing.send_packed_commands(&pipeline, 0, self.partitions.len()).await?;
        replies.into_iter().map(|value| reply::number(reply::checked(value)?).map(Epoch)).collect()
    }
}

/// Nodes that read and write something else must not share a prefix.
async fn agree(connection: &mut MultiplexedConnection, names: &Names) -> Result<(), Doubt> {
    // What the nodes of a cluster have in common: the format of keys and messages, and the number of partitions.
    let meta = [("format", "1".to_owned()), ("partitions", names.count().to_string())];
    let mut pipeline = Pipeline::with_capacity(meta.len() + 1);
    for (field, value) in &meta {
        pipeline.cmd("HSETNX").arg(names.meta()).arg(field).arg(value);
    }
    pipeline.cmd("HMGET").arg(names.meta()).arg(meta.each_ref().map(|(field, _)| *field).as_slice());
    let replies = connection.send_packed_commands(&pipeline, 0, meta.len() + 1).await?;
    let mut found = Vec::new();
    for value in replies {
        found.push(reply::checked(value)?);
    }
    let [format, partitions] = reply::tuple(found.pop().ok_or(Doubt::Unexpected)?)?;
    let found = [reply::text(format)?, reply::text(partitions)?];
    if found == meta.map(|(_, value)| value) { Ok(()) } else { Err(Doubt::Other) }
}
