//! A master that a sentinel knows, and its failover.

use super::harness::{Cluster, Server, cluster};
use super::hazards::warned;
use crate::cluster::testing::nodes::*;
use crate::cluster::testing::scenarios::{Engine, LONG};
use crate::hub::engine::Standing;

/// A master with a replica, and a sentinel that watches them.
fn start(cluster: &Cluster) -> (Server, Server, Server) {
    let directory = cluster.directory();
    let memory = ["--save", "", "--appendonly", "no"];
    let master = Server::start(&memory, directory);
    let port = master.port.to_string();
    let replica = Server::start(&[&memory[..], &["--replicaof", "127.0.0.1", &port]].concat(), directory);
    cluster.wait_until(|| {
        replica.asked(&["INFO", "replication"]).is_some_and(|text| text.contains("master_link_status:up"))
    });
    let rules = [
        format!("sentinel monitor mymaster 127.0.0.1 {} 1", master.port),
        "sentinel down-after-milliseconds mymaster 1000".to_owned(),
        "sentinel failover-timeout mymaster 5000".to_owned(),
    ];
    std::fs::write(directory.join("sentinel.conf"), rules.join("\n")).expect("it is written");
    let sentinel = Server::start(&["sentinel.conf", "--sentinel"], directory);
    cluster.wait_until(|| {
        sentinel
            .asked(&["INFO", "sentinel"])
            .is_some_and(|text| text.contains("status=ok") && text.contains("slaves=1"))
    });
    (master, replica, sentinel)
}

#[test]
fn a_node_follows_the_master_that_a_sentinel_names() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let (master, _replica, sentinel) = start(&cluster);
    cluster.use_url(format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port));
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    warned(&a, "min-replicas-to-write is 0");
    subscribed(&b, "chat");
    assert!(joined(&a, "presence-a", "ann"));
    drop(master);
    for node in [&a, &b] {
        standing(node, Standing::Away);
        standing(node, Standing::Joined);
    }
    assert_eq!(members(&b, "presence-a"), ["ann"]);
    a.send(publish("chat", "again"));
    assert_eq!(event(&b).0, "again");
}
