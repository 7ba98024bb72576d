//! A Redis Cluster: three masters and three replicas, slots that move, and a master that dies.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::names::Names;
use super::super::slots::{SLOTS, slot};
use super::harness::{Cluster, Server, cluster, eventually};
use super::hazards::warned;
use crate::cluster::testing::nodes::*;
use crate::cluster::testing::scenarios::{self, Engine, LONG, SHORT, comes};
use crate::cluster::{Phase, Question};
use crate::hub::engine::{Request, Standing, Update};
use crate::hub::receipt::Receipt;

/// The first three servers are masters at the start; further ones are their replicas.
struct Sharded {
    servers: Vec<Server>,
    /// What nodes are started with; its own server is stopped.
    nodes: Cluster,
}

/// A Redis Cluster with a replica for each master, and no node.
fn sharded(lease: Duration) -> Option<Sharded> {
    start(lease, 2 * MASTERS)
}

/// A Redis Cluster of so many servers and no node.
fn start(lease: Duration, count: usize) -> Option<Sharded> {
    let mut nodes = cluster(lease)?;
    nodes.stop();
    let directory = nodes.directory();
    let servers: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| Server::start_with(arguments, directory))).collect();
        starting.into_iter().map(|it| it.join().expect("it starts")).collect()
    });
    for (number, server) in servers.iter().enumerate() {
        tell(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        if number < MASTERS {
            let share = usize::from(SLOTS).div_ceil(MASTERS);
            let last = ((number + 1) * share).min(usize::from(SLOTS)) - 1;
            tell(server, &["CLUSTER", "ADDSLOTSRANGE", &(number * share).to_string(), &last.to_string()]);
        }
    }
    // Each meets each: to hear of one another takes them a second or more.
    for (number, server) in servers.iter().enumerate() {
        for Server { port, bus, .. } in &servers[number + 1..] {
            tell(server, &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()]);
        }
    }
    for (number, server) in servers.iter().enumerate().skip(MASTERS) {
        tell(server, &["CLUSTER", "REPLICATE", &id(&servers[number - MASTERS])]);
    }
    let known = format!("cluster_known_nodes:{count}");
    let is_whole = |server: &Server| {
        let text = server.asked(&["CLUSTER", "INFO"]).unwrap_or_default();
        text.contains("cluster_state:ok") && text.contains(&known)
    };
    assert!(eventually(|| servers.iter().all(is_whole)), "the servers find each other");
    let is_copied = |server: &Server| {
        server.asked(&["INFO", "replication"]).is_some_and(|text| text.contains("master_link_status:up"))
    };
    assert!(eventually(|| servers[MASTERS..].iter().all(is_copied)), "the replicas have copies");
    let addresses: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    nodes.use_url(format!("redis://{}", addresses.join(",")));
    Some(Sharded { servers, nodes })
}

/// Of a server that listens to the others on this port. Replicas get their copies at once.
fn arguments(bus: u16) -> Vec<String> {
    let (bus, file) = (bus.to_string(), format!("nodes-{bus}.conf"));
    let arguments = ["--cluster-enabled", "yes", "--cluster-config-file", &file, "--cluster-port", &bus];
    let patience = ["--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"];
    let memory = ["--save", "", "--appendonly", "no"];
    arguments.into_iter().chain(patience).chain(memory).map(str::to_owned).collect()
}

/// Tells a server something as soon as it takes it.
fn tell(server: &Server, words: &[&str]) {
    assert!(eventually(|| server.query::<()>(words).is_ok()), "{words:?}: {:?}", server.query::<()>(words));
}

fn id(server: &Server) -> String {
    let mut id = None;
    assert!(eventually(|| {
        id = server.asked(&["CLUSTER", "MYID"]);
        id.is_some()
    }));
    id.expect("it has come")
}

impl Engine for Sharded {
    fn url(&self) -> String {
        self.nodes.url()
    }

    fn lease(&self) -> Duration {
        self.nodes.lease()
    }

    /// It still knows who its servers are.
    fn start(&mut self) {
        self.servers.iter_mut().for_each(Server::start_again);
    }

    fn stop(&mut self) {
        self.servers.iter_mut().for_each(Server::stop);
    }

    fn processes(&self) -> Vec<&Child> {
        self.servers.iter().map(Server::process).collect()
    }

    fn kill_connections(&self) {
        for server in &self.servers {
            tell(server, &["CLIENT", "KILL", "SKIPME", "yes"]);
        }
    }

    fn most_connections(&self) -> usize {
        self.nodes.most_connections()
    }

    fn limit_connections(&mut self, most: usize) {
        self.nodes.limit_connections(most);
    }

    fn wipe(&self) {
        for server in &self.servers {
            tell(server, &["FLUSHALL"]);
        }
    }

    fn wait_until_reaped(&self) {
        self.wait_until(|| self.keys("taut{*}:dead").is_empty());
    }

    fn wait_until_told_all_but(&self, _: &Node, held: u64) {
        let untold = |server: &Server| -> u64 {
            let streams: Vec<String> = server.query(&["KEYS", "taut{*}:happened"]).expect("keys");
            streams.iter().map(|stream| server.query::<u64>(&["XLEN", stream]).expect("a number")).sum()
        };
        self.wait_until(|| self.servers.iter().map(untold).sum::<u64>() == held);
    }
}

impl Sharded {
    /// The master that owns a slot, as it says itself.
    fn master(&self, slot: u16) -> usize {
        let mut found = None;
        assert!(eventually(|| {
            found =
                self.servers.iter().position(|server| server.query::<Option<String>>(&["GET", &name_in(slot)]).is_ok());
            found.is_some()
        }));
        found.expect("it has come")
    }

    /// Moves a slot as `redis-cli --cluster reshard` does. `meanwhile` is called when it has begun.
    fn move_slot(&self, slot: u16, to: usize, meanwhile: impl FnOnce()) {
        let from = self.master(slot);
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let number = slot.to_string();
        let tell = |server: &Server, words: &[&str]| server.query::<()>(words).expect("an answer");
        tell(target, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &id(source)]);
        tell(source, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &id(target)]);
        meanwhile();
        loop {
            let keys: Vec<String> = source.query(&["CLUSTER", "GETKEYSINSLOT", &number, "10"]).expect("keys");
            if keys.is_empty() {
                break;
            }
            let port = target.port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            tell(source, &words);
        }
        for server in [target, source] {
            tell(server, &["CLUSTER", "SETSLOT", &number, "NODE", &id(target)]);
        }
    }

    /// The master that counts the connections of the app.
    fn counting(&self) -> usize {
        let names = Names::sharded("taut");
        self.master(slot(names.of(names.places(APP))))
    }

    /// Keys of the cluster, of all servers.
    fn keys(&self, pattern: &str) -> BTreeSet<String> {
        self.servers.iter().flat_map(|it| it.query::<Vec<String>>(&["KEYS", pattern]).expect("keys")).collect()
    }

    /// The cluster's channels that a server has subscribers for.
    fn heard_at(&self, server: usize) -> usize {
        let channels: Vec<String> =
            self.servers[server].query(&["PUBSUB", "SHARDCHANNELS", "taut{*}:channel:*"]).expect("names");
        channels.len()
    }
}

/// Some key of a slot.
fn name_in(wanted: u16) -> String {
    (0..1_000_000).map(|number: u32| number.to_string()).find(|name| slot(name) == wanted).expect("each slot has one")
}

fn channels(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("channel-{number}")).collect()
}

fn subscribe_all(node: &Node, channels: &[String]) {
    for channel in channels {
        node.send(subscribe(channel));
    }
    let mut missing: BTreeSet<&str> = channels.iter().map(String::as_str).collect();
    while !missing.is_empty() {
        let channel = node.until(|seen| match seen {
            Seen::Update(Update::Subscribed { channel }) => Some(Arc::clone(channel)),
            _ => None,
        });
        assert!(missing.remove(&*channel), "{channel} once");
    }
}

/// Publishes one event to each channel, and waits for it at the other node: once each.
fn all_hear(from: &Node, to: &Node, channels: &[String], what: &str) {
    for channel in channels {
        from.send(publish(channel, &format!("{what} {channel}")));
    }
    let mut missing: BTreeSet<String> = channels.iter().map(|channel| format!("{what} {channel}")).collect();
    while !missing.is_empty() {
        let (data, _) = event(to);
        if data.starts_with(what) {
            assert!(missing.remove(&data), "{data} once");
        }
    }
}

fn come_back(nodes: &[&Node]) {
    for node in nodes {
        standing(node, Standing::Away);
    }
    let came = Instant::now();
    for node in nodes {
        standing(node, Standing::Joined);
    }
    eprintln!("all are back {:?} after the last one was away", came.elapsed());
}

/// Plays scenarios of all engines one after the other: a Redis Cluster takes some seconds to start.
fn play(lease: Duration, scenarios: &[fn(&mut Sharded)]) {
    let Some(mut cluster) = start(lease, MASTERS) else { return };
    for scenario in scenarios {
        scenario(&mut cluster);
        cluster.wipe();
        cluster.limit_connections(0);
    }
}

#[test]
fn a_redis_cluster_does_what_every_engine_does() {
    play(
        LONG,
        &[
            scenarios::an_event_reaches_other_nodes_once_and_its_own_node_not_at_all,
            scenarios::a_user_whom_two_nodes_let_in_at_once_comes_once_and_goes_with_the_last,
            scenarios::changes_name_the_one_before_and_a_join_its_own,
            scenarios::connections_that_are_cut_come_back_and_nobody_flickers,
            scenarios::the_last_event_is_kept_and_numbered_for_all,
            scenarios::thousands_of_channels_are_listed_in_parts,
            scenarios::a_node_that_leaves_takes_its_users_with_it_at_once,
            scenarios::events_that_cannot_be_carried_fail_and_nothing_else_is_lost,
        ],
    );
}

#[test]
fn a_redis_cluster_does_what_every_engine_does_for_nodes_that_die_or_were_away() {
    play(
        SHORT,
        &[
            scenarios::an_engine_whose_memory_is_wiped_under_way_is_noticed,
            scenarios::webhooks_hear_of_each_thing_once_and_in_order,
            scenarios::another_node_tells_webhooks_when_the_one_that_did_dies,
            scenarios::subscribers_are_counted_over_all_nodes,
            scenarios::a_users_connections_are_closed_on_all_other_nodes,
            scenarios::a_node_that_was_away_closes_a_users_connections_when_it_is_back,
        ],
    );
}

#[test]
fn events_members_and_answers_are_the_same_whatever_server_has_them() {
    let Some(cluster) = sharded(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let channels = channels(200);
    subscribe_all(&b, &channels);
    for master in 0..MASTERS {
        let heard = cluster.heard_at(master);
        assert!(heard > 30, "server {master} has {heard} of 200");
    }
    all_hear(&a, &b, &channels, "first");
    b.send(subscribe("presence-0"));
    for number in 0..30 {
        assert!(joined(&a, &format!("presence-{number}"), "ann") && joined(&b, &format!("presence-{number}"), "bob"));
    }
    for number in 0..30 {
        assert_eq!(members(&b, &format!("presence-{number}")), ["ann", "bob"]);
    }
    let found = ask(&a, |answer| Question::Channels { app: a.app(), prefix: "channel-".into(), answer });
    let found: BTreeMap<_, _> = found.expect("an answer");
    assert_eq!(found.keys().map(|it| &**it).collect::<BTreeSet<_>>(), channels.iter().map(|it| &**it).collect());
    let users = ask(&a, |answer| Question::Users { app: a.app(), channel: "presence-7".into(), answer });
    assert_eq!(users.map(|users| users.len()), Some(2));
    let user_ids: Vec<Arc<str>> = (0..50).map(|number| format!("user-{number}").into()).collect();
    for user_id in &user_ids[..25] {
        a.send(Request::SignIn { user_id: Arc::clone(user_id) });
    }
    // Each partition has its own order: the last member of this one comes behind no user of another.
    let online = || {
        b.send(Request::Online { user_ids: user_ids.clone().into(), number: 9 });
        b.until(|seen| match seen {
            Seen::Update(Update::Online { number: 9, online }) => Some(online.iter().cloned().collect::<BTreeSet<_>>()),
            _ => None,
        })
    };
    assert!(eventually(|| online() == user_ids[..25].iter().cloned().collect()));
    a.send(Request::SignOut { user_id: Arc::clone(&user_ids[3]) });
    let gone = b.until(|seen| match seen {
        Seen::Update(Update::Status { user_id, is_online: false }) => Some(Arc::clone(user_id)),
        _ => None,
    });
    assert_eq!(gone, user_ids[3]);
    let nodes = ask(&b, |answer| Question::Nodes { answer }).expect("nodes");
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert_eq!(ask(&a, |answer| Question::Terminate { app: a.app(), user_id: "ann".into(), answer }), Some(1));
    a.leave();
    assert_eq!(ask(&b, |answer| Question::Nodes { answer }).expect("nodes").len(), 1);
    for number in 0..30 {
        assert_eq!(members(&b, &format!("presence-{number}")), ["bob"], "who has left has left everywhere");
    }
}

#[test]
fn a_node_that_dies_is_missed_in_every_partition() {
    let Some(cluster) = sharded(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    for number in 0..40 {
        b.send(subscribe(&format!("presence-{number}")));
        assert!(joined(&a, &format!("presence-{number}"), &format!("user-{number}")));
    }
    a.kill();
    let mut gone = BTreeSet::new();
    while gone.len() < 40 {
        if let Some(user_id) = change(&b).strip_prefix('-') {
            assert!(gone.insert(user_id.to_owned()), "{user_id} once");
        }
    }
    b.send(leave("presence-0", "nobody"));
    assert!(members(&b, "presence-39").is_empty());
}

#[test]
fn a_slot_that_moves_under_a_thousand_subscriptions_leaves_none_silent() {
    let Some(cluster) = sharded(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let channels = channels(1_000);
    subscribe_all(&b, &channels);
    b.send(subscribe("presence-a"));
    assert!(joined(&a, "presence-a", "ann") && joined(&b, "presence-a", "bob"));
    let names = Names::sharded("taut");
    let moved = slot(names.of(names.partition("1", "presence-a")));
    let from = cluster.master(moved);
    let to = (from + 1) % MASTERS;
    let receipt = Receipt::new(Arc::new(()));
    cluster.move_slot(moved, to, || {
        // Scripts are refused in this slot from here on, events are not.
        for channel in &channels {
            let publication = publication(channel, "meanwhile");
            a.send(Request::Publish { publication, kept: false, receipt: Some(receipt.clone()) });
        }
        a.send(join("presence-a", "cid", 0));
    });
    assert_eq!(cluster.master(moved), to);
    come_back(&[&a, &b]);
    all_hear(&a, &b, &channels, "after");
    assert_eq!(members(&b, "presence-a"), ["ann", "bob", "cid"]);
    assert!(joined(&b, "presence-a", "dan"));
    a.send(leave("presence-a", "cid"));
    assert!(eventually(|| members(&a, "presence-a") == ["ann", "bob", "dan"]));
}

#[test]
fn nothing_is_half_done_while_a_slot_is_on_its_way() {
    let Some(cluster) = sharded(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    b.send(subscribe("presence-a"));
    assert!(joined(&a, "presence-a", "ann"));
    let names = Names::sharded("taut");
    let at = names.partition("1", "presence-a");
    let moved = slot(names.of(at));
    let from = cluster.master(moved);
    cluster.move_slot(moved, (from + 1) % MASTERS, || {
        // A key that the scripts need has gone, others have not.
        let (source, target) = (&cluster.servers[from], &cluster.servers[(from + 1) % MASTERS]);
        let key = format!("{}:nodes:1:presence-a", names.of(at));
        let words = ["MIGRATE", "127.0.0.1", &target.port.to_string(), &key, "0", "5000"];
        assert_eq!(source.query::<String>(&words).expect("an answer"), "OK");
        for number in 0..5 {
            a.send(join("presence-a", &format!("late-{number}"), 0));
        }
        standing(&a, Standing::Away);
    });
    standing(&a, Standing::Joined);
    assert!(eventually(|| b.state().phase == Phase::Joined && members(&b, "presence-a").len() == 6));
    for number in 0..5 {
        a.send(leave("presence-a", &format!("late-{number}")));
    }
    assert!(eventually(|| members(&b, "presence-a") == ["ann"]), "who came half would stay for ever");
}

#[test]
fn a_master_that_dies_is_replaced_and_nobody_is_forgotten() {
    let Some(mut cluster) = sharded(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let channels = channels(300);
    subscribe_all(&b, &channels);
    for number in 0..20 {
        assert!(joined(&a, &format!("presence-{number}"), "ann"));
    }
    let died = Instant::now();
    drop(cluster.servers.remove(0));
    standing(&a, Standing::Away);
    let (done, waited) = oneshot::channel::<()>();
    let receipt = Receipt::new(Arc::new(done));
    a.send(Request::Publish {
        publication: publication("channel-0", "x"),
        kept: false,
        receipt: Some(receipt.clone()),
    });
    failed(waited, receipt);
    a.send(join("presence-0", "bob", 0));
    standing(&a, Standing::Joined);
    standing(&b, Standing::Joined);
    eprintln!("a replica has taken over, and both nodes are back, {:?} after its master's death", died.elapsed());
    all_hear(&a, &b, &channels, "after");
    for number in 0..20 {
        let expected: &[&str] = if number == 0 { &["ann", "bob"] } else { &["ann"] };
        assert_eq!(members(&b, &format!("presence-{number}")), expected);
    }
    // The first server of the list is the dead one.
    let c = cluster.join("c");
    all_hear(&c, &b, &channels, "from a new node");
}

#[test]
fn one_address_is_enough_and_may_vanish_later() {
    let Some(mut cluster) = sharded(LONG) else { return };
    cluster.nodes.use_url(format!("redis://127.0.0.1:{}", cluster.servers[2].port));
    let a = cluster.join("a");
    assert!(joined(&a, "presence-a", "ann"));
    // Its replica takes over as it does when somebody wants to switch the master off.
    tell(&cluster.servers[2 + MASTERS], &["CLUSTER", "FAILOVER"]);
    come_back(&[&a]);
    drop(cluster.servers.remove(2));
    cluster.kill_connections();
    come_back(&[&a]);
    assert_eq!(members(&a, "presence-a"), ["ann"]);
}

#[test]
fn nodes_on_a_redis_cluster_share_the_places_of_an_app() {
    let Some(mut cluster) = sharded(SHORT) else { return };
    cluster.limit_connections(3);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let (first, second, third) = (a.come(), a.come(), b.come());
    assert!(first.is_some() && second.is_some() && third.is_some());
    assert!(a.come().is_none() && b.come().is_none(), "there are three");
    drop(first);
    let _fourth = comes(&cluster, &b);
    assert!(a.come().is_none() && b.come().is_none(), "there are three again");
    let names = Names::sharded("taut");
    let shares = format!("{}:shares:{APP}", names.of(names.places(APP)));
    assert_eq!(cluster.keys("taut{*}:shares:*"), BTreeSet::from([shares.clone()]), "one partition counts them");
    assert_eq!(cluster.servers[cluster.counting()].query::<usize>(&["HLEN", &shares]).expect("a number"), 2);
    // What a dead node had is free again.
    a.kill();
    let _fifth = comes(&cluster, &b);
    assert!(b.come().is_none());
}

#[test]
fn places_are_shared_again_once_a_replica_counts_them() {
    let Some(mut cluster) = sharded(LONG) else { return };
    cluster.limit_connections(2);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let (first, second) = (a.come(), b.come());
    assert!(first.is_some() && second.is_some() && a.come().is_none());
    let counting = cluster.counting();
    drop(cluster.servers.remove(counting));
    standing(&a, Standing::Away);
    standing(&b, Standing::Away);
    let third = a.come().expect("each node keeps to the limit by itself");
    standing(&a, Standing::Joined);
    standing(&b, Standing::Joined);
    drop((first, third));
    // A node may let somebody in before it has heard that the other has one.
    assert!(eventually(|| {
        let come = a.come();
        come.is_some() && a.come().is_none() && b.come().is_none()
    }));
    drop(second);
    let _both = (comes(&cluster, &b), comes(&cluster, &a));
    assert!(a.come().is_none() && b.come().is_none());
}

#[test]
fn a_node_that_leaves_gives_back_its_places_at_once_and_its_users_after_their_grace() {
    let Some(mut cluster) = sharded(LONG) else { return };
    cluster.limit_connections(1);
    let grace = Duration::from_secs(3);
    let (a, b) = (cluster.join_with_grace("a", grace), cluster.join_with_grace("b", grace));
    let channels: Vec<_> = (0..20).map(|number| format!("presence-{number}")).collect();
    for channel in &channels {
        subscribed(&b, channel);
        a.send(Request::Count { channel: channel.as_str().into(), subscribers: 3 });
        assert!(joined(&a, channel, "ann") && joined(&a, channel, channel));
    }
    a.send(Request::SignIn { user_id: "ann".into() });
    let _only = a.come().expect("a place");
    let left = Instant::now();
    a.leave();
    assert!(b.come().is_some(), "connections are gone at once");
    let count = |channel: &str| {
        ask(&b, |answer| Question::Channel { app: b.app(), channel: channel.into(), answer })
            .map(|state| state.occupancy.subscriptions)
    };
    for channel in &channels {
        assert_eq!(count(channel), Some(1), "it is occupied, by nobody who is counted");
        assert_eq!(members(&b, channel), ["ann", channel]);
        assert!(joined(&b, channel, "ann"), "she is back");
    }
    assert_eq!(online(&b, &["ann"]), ["ann"]);
    assert_eq!(ask(&b, |answer| Question::Nodes { answer }).expect("nodes").len(), 1, "it is no node any more");
    let mut gone = BTreeSet::new();
    while gone.len() < channels.len() {
        if let Some(user_id) = change(&b).strip_prefix('-') {
            assert!(left.elapsed() >= grace, "{user_id}");
            gone.insert(user_id.to_owned());
        }
    }
    assert_eq!(gone, channels.iter().cloned().collect(), "nobody hears of ann");
    assert!(eventually(|| cluster.keys("taut{*}:dead").is_empty() && cluster.keys("taut{*}:grace").is_empty()));
    assert_eq!(online(&b, &["ann"]), [""; 0]);
}

#[test]
fn every_master_is_looked_at_for_settings_by_which_something_is_lost() {
    let Some(cluster) = sharded(LONG) else { return };
    let settings = ["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"];
    cluster.servers[MASTERS - 1].query::<()>(&settings).expect("an answer");
    warned(&cluster.join("a"), "maxmemory-policy is allkeys-lru");
}

#[test]
fn nodes_with_another_number_of_partitions_do_not_share_a_prefix() {
    let Some(cluster) = sharded(LONG) else { return };
    let meta = &cluster.servers[cluster.master(slot("taut:meta"))];
    meta.query::<()>(&["HSET", "taut:meta", "partitions", "1"]).expect("an answer");
    let node = cluster.node("a");
    standing(&node, Standing::Away);
    assert_eq!(node.state().phase, Phase::Starting);
    assert_eq!(cluster.keys("taut{*"), BTreeSet::new());
    meta.query::<()>(&["HSET", "taut:meta", "partitions", "64"]).expect("an answer");
    standing(&node, Standing::Joined);
}

#[test]
fn redis_computes_the_same_slots() {
    let Some(cluster) = cluster(LONG) else { return };
    let server = Server::start_with(arguments, cluster.directory());
    let names = Names::sharded("taut");
    for at in 0..names.count() {
        for name in [names.control(at), names.channel(at, "1", "a{b}c"), "taut:meta".to_owned()] {
            let theirs: u16 = server.query(&["CLUSTER", "KEYSLOT", &name]).expect("a slot");
            assert_eq!(slot(&name), theirs, "{name}");
        }
    }
}

const MASTERS: usize = 3;
