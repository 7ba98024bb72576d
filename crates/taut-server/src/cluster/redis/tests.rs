//! Drivers against a real Redis. Each test starts its own, on a socket in a directory of its own.

mod harness;
mod hazards;
mod model;
mod scripts;
mod sentinel;
mod sharded;

use self::harness::{PARTITION, cluster};
use crate::cluster::testing::nodes::*;
use crate::cluster::testing::scenarios::{self, Engine, LONG, SHORT, scenarios};
use crate::cluster::{Phase, Question};
use crate::hub::engine::{Request, Standing};

scenarios!(cluster);

#[test]
fn one_connection_that_is_cut_is_a_doubt_like_any() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    subscribed(&node, "chat");
    for kind in ["pubsub", "normal"] {
        cluster.command(&["CLIENT", "KILL", "TYPE", kind]);
        standing(&node, Standing::Away);
        standing(&node, Standing::Joined);
    }
    let other = cluster.join("b");
    other.send(publish("chat", "heard"));
    assert_eq!(event(&node).0, "heard");
}

#[test]
fn a_failover_that_lost_the_last_changes_is_noticed() {
    let Some(cluster) = cluster(SHORT) else { return };
    let node = cluster.join("a");
    assert!(joined(&node, "presence-a", "ann"));
    // What a failover does to the last change: it never was.
    let changes = format!("{PARTITION}:changes");
    let incarnation = ask(&node, |answer| Question::Nodes { answer }).expect("an answer")[0].incarnation.clone();
    cluster.command(&["HINCRBY", &changes, &incarnation, "-1"]);
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_eq!(members(&node, "presence-a"), ["ann"]);
}

#[test]
fn a_node_that_does_not_hear_itself_connects_again() {
    let Some(cluster) = cluster(SHORT) else { return };
    let node = cluster.join("a");
    // It looks healthy, and nothing comes: here because nothing may be published.
    cluster.command(&["ACL", "SETUSER", "default", "resetchannels"]);
    standing(&node, Standing::Away);
    cluster.command(&["ACL", "SETUSER", "default", "allchannels"]);
    standing(&node, Standing::Joined);
}

#[test]
fn ten_thousand_subscriptions_and_members_cost_few_commands_when_they_come_back() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = scenarios::with_ten_thousand(&cluster);
    cluster.command(&["CONFIG", "RESETSTAT"]);
    cluster.kill_connections();
    standing(&a, Standing::Away);
    standing(&a, Standing::Joined);
    let calls = cluster.calls();
    eprintln!("10,000 channels and members come back with {calls:?}");
    assert!(calls["subscribe"] < 40 && calls["evalsha"] < 300, "{calls:?}");
    standing(&b, Standing::Joined);
    scenarios::has_ten_thousand(&a, &b);
}

#[test]
fn channels_without_anybody_leave_nothing_behind() {
    let Some(mut cluster) = cluster(LONG) else { return };
    cluster.limit_connections(10);
    let a = cluster.join("a");
    subscribed(&a, "presence-a");
    a.send(Request::Count { channel: "chat".into(), subscribers: 2 });
    a.send(Request::SignIn { user_id: "ann".into() });
    assert!(joined(&a, "presence-a", "ann"));
    a.send(leave("presence-a", "ann"));
    a.send(Request::SignOut { user_id: "ann".into() });
    a.send(unsubscribe("presence-a"));
    a.send(Request::Count { channel: "chat".into(), subscribers: 0 });
    drop(a.come());
    // Of the cluster itself, not of channels and users.
    let stays = ["changes", "epoch", "leases", "members", "meta", "number", "reader", "happened"];
    let is_left = |key: &String| !stays.iter().any(|kind| key.ends_with(&format!(":{kind}")));
    cluster.wait_until(|| !cluster.keys().iter().any(is_left));
}

#[test]
fn nodes_with_another_format_do_not_share_a_prefix() {
    let Some(cluster) = cluster(LONG) else { return };
    cluster.command(&["HSET", "taut:meta", "format", "2"]);
    let node = cluster.node("a");
    cluster.wait_until(|| cluster.calls().get("hmget").is_some_and(|calls| *calls >= 3));
    assert_eq!((node.state().phase, cluster.keys()), (Phase::Starting, vec!["taut:meta".to_owned()]));
    cluster.command(&["HSET", "taut:meta", "format", "1"]);
    standing(&node, Standing::Joined);
}

#[test]
fn the_cost_of_each_thing_in_commands() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "chat");
    subscribed(&b, "presence-a");
    let cost = |what: &str, act: &dyn Fn()| {
        cluster.command(&["CONFIG", "RESETSTAT"]);
        act();
        let calls = cluster.calls();
        eprintln!("{what}: {calls:?}");
        calls
    };
    let published = cost("100 events", &|| {
        for number in 0..100 {
            a.send(publish("chat", &number.to_string()));
        }
        for _ in 0..100 {
            event(&b);
        }
    });
    assert!(published["publish"] >= 100 && published["publish"] <= 102, "{published:?}");
    let joins = cost("one join", &|| assert!(joined(&a, "presence-a", "ann")));
    assert!(joins["evalsha"] <= 3, "{joins:?}");
    cost("10,000 clients, each with a channel of its own and one presence channel", &|| {
        for client in 0..10_000 {
            a.send(subscribe(&format!("private-{client}")));
            a.send(join("presence-b", &client.to_string(), 0));
        }
        assert!(joined(&a, "presence-b", "end"));
    });
    let many = cost("1,000 joins", &|| {
        for user in 0..1_000 {
            a.send(join("presence-a", &user.to_string(), 0));
        }
        assert!(joined(&a, "presence-a", "end"));
    });
    assert!(many["evalsha"] <= 30, "{many:?}");
}

#[test]
fn many_who_come_at_once_share_few_commands() {
    let Some(mut cluster) = cluster(LONG) else { return };
    cluster.limit_connections(2000);
    let a = cluster.join("a");
    a.app().wait(1500);
    let before = cluster.calls()["evalsha"];
    let _first = a.come().expect("a place");
    a.app().stop_waiting(1500);
    let _others: Vec<_> = (0..1500).map(|_| a.app().admit().expect("granted")).collect();
    assert!(cluster.calls()["evalsha"] - before < 10, "{:?}", cluster.calls());
}

#[test]
fn a_channel_whose_last_event_is_too_old_has_none() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    subscribed(&node, "cache-a");
    node.send(keep("cache-a", "one"));
    assert_eq!(event(&node), ("one".to_owned(), Some(1)));
    let last = format!("{PARTITION}:last:1:cache-a");
    cluster.command(&["HSET", &last, "until", "1"]);
    let state = ask(&node, |answer| Question::Channel { app: node.app(), channel: "cache-a".into(), answer });
    assert!(state.expect("an answer").cached.is_none());
    assert_eq!(node.state().losses, 0);
}
