//! What operators are warned of.

use super::harness::cluster;
use crate::cluster::Question;
use crate::cluster::testing::nodes::*;
use crate::cluster::testing::scenarios::{Engine, LONG};
use crate::hub::engine::Standing;

/// The next warning about a setting of Redis.
pub(super) fn warned(node: &Node, setting: &str) {
    node.until(|seen| matches!(seen, Seen::Warned(line) if line.contains(setting)).then_some(()));
}

/// How often there was a warning about a setting of Redis, up to now.
fn warnings(node: &Node, setting: &str) -> usize {
    // It is answered behind what the node asks for when it joins.
    ask(node, |answer| Question::Nodes { answer }).expect("an answer");
    node.all().iter().filter(|seen| matches!(seen, Seen::Warned(line) if line.contains(setting))).count()
}

#[test]
fn a_redis_that_evicts_is_warned_of_once_also_where_its_settings_are_secret() {
    let Some(cluster) = cluster(LONG) else { return };
    cluster.command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    cluster.command(&["ACL", "SETUSER", "default", "-config"]);
    let node = cluster.join("a");
    warned(&node, "maxmemory-policy is allkeys-lru");
    for _ in 0..2 {
        cluster.kill_connections();
        standing(&node, Standing::Away);
        standing(&node, Standing::Joined);
        assert_eq!(warnings(&node, "maxmemory-policy"), 0, "once is enough");
    }
    assert_eq!(node.state().losses, 2, "that it may not ask is no doubt");
}

#[test]
fn a_redis_that_cuts_nodes_off_early_is_warned_of() {
    let Some(cluster) = cluster(LONG) else { return };
    cluster.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 4mb 2mb 60"]);
    let node = cluster.join("a");
    warned(&node, "more than 2097152 bytes");
}

#[test]
fn a_redis_as_it_comes_is_not_complained_about() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    assert_eq!(warnings(&node, ""), 0);
}
