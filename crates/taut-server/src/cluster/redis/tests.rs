//! Drivers against a real Redis. Each test starts its own, on a socket in a directory of its own.

mod harness;
mod hazards;
mod model;
mod scripts;
mod sentinel;
mod sharded;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::harness::{APP, Cluster, Node, PARTITION, Seen, cluster, failed};
use crate::apps::Admission;
use crate::cluster::{Phase, Question};
use crate::events::Event;
use crate::hub::command::{Event as Published, PresenceMember, Publication};
use crate::hub::engine::{Difference, Request, Snapshot, Standing, Update};
use crate::hub::receipt::Receipt;
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;

/// A lease that tests need not wait long for.
const SHORT: Duration = Duration::from_secs(3);

/// The default: nothing lapses during a test.
const LONG: Duration = Duration::from_secs(10);

fn subscribe(channel: &str) -> Request {
    Request::Subscribe { channel: channel.into() }
}

fn unsubscribe(channel: &str) -> Request {
    Request::Unsubscribe { channel: channel.into(), waited: Duration::ZERO }
}

fn join(channel: &str, user_id: &str, most: usize) -> Request {
    let user_info = Some(format!(r#"{{"name":"{user_id}"}}"#).into());
    let member = PresenceMember { user_id: user_id.into(), user_info };
    Request::Join { channel: channel.into(), member, number: 7, most }
}

fn leave(channel: &str, user_id: &str) -> Request {
    Request::Leave { channel: channel.into(), user_id: user_id.into(), waited: Duration::ZERO }
}

fn publication(channel: &str, data: &str) -> Publication {
    let event = Published::published("event", &Payload::from(data));
    Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None }
}

fn publish(channel: &str, data: &str) -> Request {
    Request::Publish { publication: publication(channel, data), kept: false, receipt: None }
}

fn keep(channel: &str, data: &str) -> Request {
    Request::Publish { publication: publication(channel, data), kept: true, receipt: None }
}

/// The data of the next event.
fn event(node: &Node) -> (String, Option<u64>) {
    node.until(|seen| match seen {
        Seen::Update(Update::Published { publication, kept }) => {
            Some((publication.data().into_owned(), kept.map(|position| position.number)))
        }
        _ => None,
    })
}

/// The next member that comes (+) or goes (-).
fn change(node: &Node) -> String {
    node.until(|seen| match seen {
        Seen::Update(Update::Changed { change, .. }) => Some(match &change.difference {
            Difference::Added(member) => format!("+{}", member.user_id),
            Difference::Removed(user_id) => format!("-{user_id}"),
        }),
        _ => None,
    })
}

fn subscribed(node: &Node, channel: &str) {
    node.send(subscribe(channel));
    node.until(|seen| {
        matches!(seen, Seen::Update(Update::Subscribed { channel: it }) if **it == *channel).then_some(())
    });
}

fn joined(node: &Node, channel: &str, user_id: &str) -> bool {
    node.send(join(channel, user_id, 0));
    node.until(|seen| match seen {
        Seen::Update(Update::Joined { user_id: it, outcome, .. }) if **it == *user_id => Some(outcome.is_ok()),
        _ => None,
    })
}

fn snapshot(node: &Node, channel: &str) -> Snapshot {
    node.send(Request::Members { channel: channel.into() });
    node.until(|seen| match seen {
        Seen::Update(Update::Members { snapshot, .. }) => Some(snapshot.clone()),
        _ => None,
    })
}

fn members(node: &Node, channel: &str) -> Vec<String> {
    let mut members: Vec<_> =
        snapshot(node, channel).members.into_iter().map(|member| member.user_id.to_string()).collect();
    members.sort();
    members
}

fn standing(node: &Node, wanted: Standing) {
    node.until(|seen| matches!(seen, Seen::Standing(it) if *it == wanted).then_some(()));
}

fn ask<T>(node: &Node, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
    let (answer, received) = oneshot::channel();
    node.ask(question(answer));
    received.blocking_recv().ok()
}

fn happened(node: &Node) -> Event {
    node.until(|seen| if let Seen::Happened(event) = seen { Some(event.clone()) } else { None })
}

#[test]
fn an_event_reaches_other_nodes_once_and_its_own_node_not_at_all() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&a, "chat");
    subscribed(&b, "chat");
    a.send(publish("chat", "one"));
    a.send(publish("elsewhere", "not wanted"));
    a.send(publish("chat", "two"));
    assert_eq!([event(&b), event(&b)], [("one".to_owned(), None), ("two".to_owned(), None)]);
    b.send(publish("chat", "from b"));
    assert_eq!(event(&a), ("from b".to_owned(), None), "it has delivered its own already");
}

#[test]
fn ten_thousand_events_of_one_publisher_keep_their_order() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "chat");
    let receipt = Receipt::new(Arc::new(()));
    for number in 0..10_000 {
        let publication = publication("chat", &number.to_string());
        a.send(Request::Publish { publication, kept: number % 10 == 0, receipt: Some(receipt.clone()) });
    }
    let mut kept = 0;
    for number in 0..10_000 {
        kept += u64::from(number % 10 == 0);
        assert_eq!(event(&b), (number.to_string(), (number % 10 == 0).then_some(kept)));
    }
    assert!(!receipt.has_failed());
}

#[test]
fn a_clients_event_and_whom_it_is_not_for_travel_along() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "presence-a");
    let excluded = Some(SocketId::from_random([7; 16]));
    let event = Published::Client { name: "client-x".into(), data: Some("[1]".into()), user_id: Some("ann".into()) };
    let publication = Publication { channel: "presence-a".into(), event, excluded, at: Instant::now(), receipt: None };
    a.send(Request::Publish { publication: publication.clone(), kept: false, receipt: None });
    let got = b.until(|seen| match seen {
        Seen::Update(Update::Published { publication, .. }) => Some(publication.clone()),
        _ => None,
    });
    assert_eq!((got.excluded, &*got.channel), (excluded, "presence-a"));
    let text = |publication: &Publication| {
        let mut text = String::new();
        publication.write(&mut text);
        text
    };
    assert_eq!(text(&got), text(&publication));
}

#[test]
fn a_user_whom_two_nodes_let_in_at_once_comes_once_and_goes_with_the_last() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b, c) = (cluster.join("a"), cluster.join("b"), cluster.join("c"));
    for node in [&a, &b, &c] {
        subscribed(node, "presence-a");
    }
    for user in 0..100 {
        let user_id = format!("user {user}");
        a.send(join("presence-a", &user_id, 0));
        b.send(join("presence-a", &user_id, 0));
        assert_eq!(change(&c), format!("+{user_id}"));
    }
    assert!(joined(&a, "presence-a", "last") && joined(&b, "presence-a", "last"));
    assert_eq!(change(&c), "+last", "nobody has come twice");
    a.send(leave("presence-a", "last"));
    assert!(joined(&a, "presence-a", "next"));
    assert_eq!(change(&c), "+next", "one node less has it");
    b.send(leave("presence-a", "last"));
    assert_eq!(change(&c), "-last");
    assert_eq!(members(&c, "presence-a").len(), 101);
}

#[test]
fn changes_name_the_one_before_and_a_join_its_own() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "presence-a");
    assert!(snapshot(&b, "presence-a").members.is_empty());
    a.send(join("presence-other", "ann", 0));
    a.send(join("presence-a", "ann", 0));
    let joined = a.until(|seen| match seen {
        Seen::Update(Update::Joined { channel, number: 7, outcome: Ok(position), .. })
            if **channel == *"presence-a" =>
        {
            Some(*position)
        }
        _ => None,
    });
    a.send(join("presence-other", "bob", 0));
    a.send(join("presence-a", "bob", 0));
    a.send(leave("presence-a", "ann"));
    let next = || {
        b.until(
            |seen| if let Seen::Update(Update::Changed { change, .. }) = seen { Some(change.clone()) } else { None },
        )
    };
    let (first, second, third) = (next(), next(), next());
    assert_eq!((first.previous, first.position), (0, joined));
    let Difference::Added(member) = first.difference else { panic!("ann has come") };
    assert_eq!(member.user_info.as_deref(), Some(r#"{"name":"ann"}"#));
    assert_eq!((second.previous, third.previous), (first.position.number, second.position.number));
    let known = snapshot(&b, "presence-a");
    assert_eq!(known.position, third.position);
    assert_eq!(known.members[0].user_info.as_deref(), Some(r#"{"name":"bob"}"#));
    a.send(leave("presence-a", "bob"));
    let fourth = next();
    let empty = snapshot(&b, "presence-a").position;
    assert!(empty.number >= fourth.position.number, "what comes late is known to be late");
    assert!(self::joined(&a, "presence-a", "ann"));
    let fifth = next();
    assert!(fifth.previous == 0 && fifth.position.number > empty.number);
}

#[test]
fn a_presence_channel_has_no_more_users_than_it_may() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let outcome = |node: &Node, user_id: &str| {
        node.send(join("presence-a", user_id, 2));
        node.until(|seen| if let Seen::Update(Update::Joined { outcome, .. }) = seen { Some(*outcome) } else { None })
    };
    assert!(outcome(&a, "ann").is_ok() && outcome(&b, "bob").is_ok());
    assert_eq!(outcome(&a, "cid").map_err(|it| it.most), Err(2));
    assert!(outcome(&a, "bob").is_ok(), "who is there already takes no more room");
    cluster.kill_connections();
    standing(&a, Standing::Joined);
    assert_eq!(members(&a, "presence-a"), ["ann", "bob"], "who was rejected is not told again");
}

#[test]
fn a_node_that_dies_is_missed_within_its_lease_and_its_users_go_once() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b, c) = (cluster.join("a"), cluster.join("b"), cluster.join("c"));
    for node in [&b, &c] {
        subscribed(node, "presence-a");
    }
    for user in 0..500 {
        a.send(join("presence-a", &format!("a {user}"), 0));
    }
    assert!(joined(&a, "presence-a", "everywhere") && joined(&b, "presence-a", "everywhere"));
    a.send(Request::SignIn { user_id: "ann".into() });
    b.send(Request::Online { user_ids: [Arc::from("ann")].into(), number: 1 });
    let died = Instant::now();
    a.kill();
    let mut gone = Vec::new();
    while gone.len() < 500 {
        let change = change(&b);
        gone.extend(change.strip_prefix('-').map(str::to_owned));
    }
    assert!(died.elapsed() < 2 * SHORT, "{:?}", died.elapsed());
    gone.sort();
    gone.dedup();
    assert_eq!(gone.len(), 500);
    assert_eq!(members(&b, "presence-a"), ["everywhere"]);
    assert!(joined(&c, "presence-a", "next"));
    assert_eq!(change(&b), "+next", "nobody has gone twice");
    let nodes = ask(&b, |answer| Question::Nodes { answer }).expect("an answer");
    assert_eq!(nodes.len(), 2, "{nodes:?}");
}

#[test]
fn a_node_that_slept_too_long_comes_back_as_another_and_the_rest_sees_the_difference() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    for node in [&a, &b] {
        subscribed(node, "presence-a");
    }
    a.send(join("presence-a", "ann", 0));
    assert_eq!(change(&b), "+ann");
    b.send(join("presence-a", "bob", 0));
    assert_eq!(change(&b), "+bob");
    let woken = a.pause();
    assert_eq!(change(&b), "-ann", "its lease is over");
    b.send(leave("presence-a", "bob"));
    a.send(join("presence-a", "cid", 0));
    drop(woken);
    standing(&a, Standing::Away);
    standing(&a, Standing::Joined);
    assert_eq!(change(&b), "-bob");
    let mut back = [change(&b), change(&b)];
    back.sort();
    assert_eq!(back, ["+ann", "+cid"]);
    assert_eq!(members(&a, "presence-a"), ["ann", "cid"]);
    assert_eq!(a.state().losses, 1);
}

#[test]
fn a_redis_that_has_lost_its_memory_is_told_everything_again() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&a, "presence-a");
    subscribed(&b, "chat");
    assert!(joined(&a, "presence-a", "ann") && joined(&b, "presence-a", "bob"));
    a.send(Request::SignIn { user_id: "ann".into() });
    let before = snapshot(&a, "presence-a").position.epoch;
    cluster.restart();
    for node in [&a, &b] {
        standing(node, Standing::Away);
        standing(node, Standing::Joined);
    }
    let after = snapshot(&a, "presence-a");
    assert!(after.is_settling && after.position.epoch != before);
    assert_eq!(members(&a, "presence-a"), ["ann", "bob"]);
    a.send(publish("chat", "again"));
    assert_eq!(event(&b).0, "again");
    assert_eq!(online(&b, &["ann", "bob"]), ["ann"]);
    assert_eq!((a.state().phase, a.state().losses), (Phase::Joined, 1));
}

#[test]
fn connections_that_are_cut_come_back_and_nobody_flickers() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b, watcher) = (cluster.join("a"), cluster.join("b"), cluster.join("watcher"));
    for node in [&a, &b, &watcher] {
        subscribed(node, "presence-a");
    }
    assert!(joined(&a, "presence-a", "ann") && joined(&b, "presence-a", "bob"));
    assert_eq!([change(&watcher), change(&watcher)], ["+ann", "+bob"]);
    for _ in 0..3 {
        cluster.kill_connections();
        for node in [&a, &b, &watcher] {
            standing(node, Standing::Away);
            standing(node, Standing::Joined);
        }
    }
    cluster.wait_until_reaped();
    assert!(joined(&a, "presence-a", "cid"));
    assert_eq!(change(&watcher), "+cid", "it is the first change that anybody hears of");
    assert_eq!(members(&watcher, "presence-a"), ["ann", "bob", "cid"]);
}

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
fn an_engine_whose_memory_is_wiped_under_way_is_noticed() {
    let Some(cluster) = cluster(SHORT) else { return };
    let node = cluster.join("a");
    assert!(joined(&node, "presence-a", "ann"));
    cluster.command(&["FLUSHALL"]);
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_eq!(members(&node, "presence-a"), ["ann"]);
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
fn events_that_cannot_be_carried_fail_and_nothing_else_is_lost() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    cluster.stop();
    standing(&node, Standing::Away);
    let (done, waited) = oneshot::channel::<()>();
    let receipt = Receipt::new(Arc::new(done));
    node.send(Request::Publish { publication: publication("chat", "x"), kept: false, receipt: Some(receipt.clone()) });
    node.send(subscribe("chat"));
    node.send(join("presence-a", "ann", 0));
    assert!(ask(&node, |answer| Question::Nodes { answer }).is_none());
    failed(waited, receipt);
    cluster.start();
    node.until(|seen| matches!(seen, Seen::Update(Update::Subscribed { .. })).then_some(()));
    standing(&node, Standing::Joined);
    assert_eq!(members(&node, "presence-a"), ["ann"]);
    let other = cluster.join("b");
    other.send(publish("chat", "back"));
    assert_eq!(event(&node).0, "back");
}

#[test]
fn an_event_that_finds_no_room_fails_at_once() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    cluster.stop_process();
    let receipts: Vec<_> = (0..20).map(|_| Receipt::new(Arc::new(()))).collect();
    let large = "x".repeat(1 << 20);
    for receipt in &receipts {
        let publication = publication("chat", &large);
        node.send(Request::Publish { publication, kept: false, receipt: Some(receipt.clone()) });
    }
    let has_failed: Vec<_> = receipts.iter().map(Receipt::has_failed).collect();
    assert!(has_failed[16..].iter().all(|has_failed| *has_failed), "{has_failed:?}");
    cluster.continue_process();
}

#[test]
fn a_redis_that_stops_answering_is_away_and_events_under_way_have_failed() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    cluster.stop_process();
    let (done, waited) = oneshot::channel::<()>();
    let receipt = Receipt::new(Arc::new(done));
    node.send(Request::Publish { publication: publication("chat", "x"), kept: true, receipt: Some(receipt.clone()) });
    standing(&node, Standing::Away);
    failed(waited, receipt);
    cluster.continue_process();
    standing(&node, Standing::Joined);
}

#[test]
fn ten_thousand_subscriptions_and_members_come_back_in_batches() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    for number in 0..10_000 {
        a.send(subscribe(&format!("channel-{number}")));
    }
    for _ in 0..10_000 {
        a.until(|seen| matches!(seen, Seen::Update(Update::Subscribed { .. })).then_some(()));
    }
    for number in 0..10_000 {
        a.send(join("presence-a", &format!("user {number}"), 0));
    }
    assert!(joined(&a, "presence-a", "last"));
    cluster.command(&["CONFIG", "RESETSTAT"]);
    cluster.kill_connections();
    standing(&a, Standing::Away);
    standing(&a, Standing::Joined);
    let calls = cluster.calls();
    eprintln!("10,000 channels and members come back with {calls:?}");
    assert!(calls["subscribe"] < 40 && calls["evalsha"] < 300, "{calls:?}");
    standing(&b, Standing::Joined);
    for number in [0, 5_000, 9_999] {
        b.send(publish(&format!("channel-{number}"), &number.to_string()));
        assert_eq!(event(&a).0, number.to_string());
    }
    assert_eq!(members(&b, "presence-a").len(), 10_001);
}

#[test]
fn webhooks_hear_of_each_thing_once_and_in_order() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    for node in [&a, &b] {
        subscribed(node, "presence-a");
    }
    assert!(joined(&a, "presence-a", "ann") && joined(&b, "presence-a", "ann"));
    a.send(leave("presence-a", "ann"));
    b.send(leave("presence-a", "ann"));
    for node in [&a, &b] {
        node.send(Request::LastEvent { channel: "cache-a".into(), is_missed: true });
    }
    a.send(unsubscribe("presence-a"));
    assert!(joined(&a, "presence-b", "end of a"));
    b.send(unsubscribe("presence-a"));
    assert!(joined(&b, "presence-b", "end"));
    let told = cluster.told(&[&a, &b], "end");
    let (channel, user_id): (Arc<str>, Arc<str>) = ("presence-a".into(), "ann".into());
    assert_eq!(
        told.iter().filter(|event| event.channel().is_some_and(|it| **it == *channel)).collect::<Vec<_>>(),
        [
            &Event::ChannelOccupied { channel: channel.clone() },
            &Event::MemberAdded { channel: channel.clone(), user_id: user_id.clone() },
            &Event::MemberRemoved { channel: channel.clone(), user_id },
            &Event::ChannelVacated { channel: channel.clone() },
        ]
    );
    let missed = told.iter().filter(|event| matches!(event, Event::CacheMiss { .. })).count();
    assert_eq!(missed, 1);
}

#[test]
fn another_node_tells_webhooks_when_the_one_that_did_dies() {
    let Some(cluster) = cluster(SHORT) else { return };
    let a = cluster.join("a");
    subscribed(&a, "first");
    assert_eq!(happened(&a), Event::ChannelOccupied { channel: "first".into() });
    let b = cluster.join("b");
    subscribed(&b, "second");
    assert_eq!(happened(&a), Event::ChannelOccupied { channel: "second".into() });
    cluster.wait_until_told();
    a.kill();
    subscribed(&b, "third");
    assert_eq!(happened(&b), Event::ChannelOccupied { channel: "third".into() });
    assert_eq!(happened(&b), Event::ChannelVacated { channel: "first".into() });
}

fn counted(node: &Node, wanted: usize) {
    node.until(|seen| match seen {
        Seen::Update(Update::Counted { subscribers, .. }) if *subscribers == wanted => Some(()),
        _ => None,
    });
}

#[test]
fn subscribers_are_counted_over_all_nodes() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let count = |subscribers| Request::Count { channel: "chat".into(), subscribers };
    for node in [&a, &b] {
        subscribed(node, "chat");
    }
    a.send(count(2));
    counted(&b, 2);
    b.send(count(3));
    counted(&a, 5);
    for subscribers in 3..=50 {
        a.send(count(subscribers));
    }
    counted(&b, 53);
    let state =
        ask(&b, |answer| Question::Channel { app: b.app(), channel: "chat".into(), answer }).expect("an answer");
    assert_eq!(state.occupancy.subscriptions, 53);
    cluster.kill_connections();
    for node in [&a, &b] {
        node.until(|seen| match seen {
            Seen::Update(Update::Counted { subscribers, .. }) => {
                assert_eq!(*subscribers, 53, "a node that comes back counts once");
                None
            }
            Seen::Standing(standing) => (*standing == Standing::Joined).then_some(()),
            _ => None,
        });
    }
    a.send(count(51));
    counted(&b, 54);
    a.kill();
    counted(&b, 3);
    let counts: Vec<_> = std::iter::from_fn(|| match happened(&b) {
        Event::SubscriptionCount { count, .. } => Some(Some(count)),
        Event::ChannelVacated { .. } => None,
        _ => Some(None),
    })
    .take(40)
    .flatten()
    .take_while(|count| *count != 3)
    .collect();
    assert!(counts.len() <= 5, "one a second and channel: {counts:?}");
}

/// Waits until a client finds a place.
fn comes(cluster: &Cluster, node: &Node) -> Admission {
    let mut come = None;
    cluster.wait_until(|| {
        come = node.come();
        come.is_some()
    });
    come.expect("it has come")
}

#[test]
fn all_nodes_together_have_as_many_connections_as_the_limit_says() {
    let Some(mut cluster) = cluster(SHORT) else { return };
    cluster.limit_connections(3);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let (first, second, third) = (a.come(), a.come(), b.come());
    assert!(first.is_some() && second.is_some() && third.is_some());
    assert!(a.come().is_none() && b.come().is_none(), "there are three");
    drop(first);
    let fourth = comes(&cluster, &b);
    assert!(a.come().is_none() && b.come().is_none(), "there are three again");
    drop((second, fourth));
    let more: Vec<_> = (0..2).map(|_| comes(&cluster, &a)).collect();
    assert!(a.come().is_none() && b.come().is_none());
    drop(more);
    // What a dead node had is free again.
    let _all: Vec<_> = (0..2).map(|_| comes(&cluster, &a)).collect();
    a.kill();
    let _more: Vec<_> = (0..2).map(|_| comes(&cluster, &b)).collect();
    assert!(b.come().is_none());
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
fn without_the_engine_each_node_keeps_to_the_limit_by_itself_and_shares_again_afterwards() {
    let Some(mut cluster) = cluster(SHORT) else { return };
    cluster.limit_connections(2);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let first = a.come().expect("a place");
    cluster.stop();
    for node in [&a, &b] {
        node.until(|seen| matches!(seen, Seen::Standing(Standing::Away)).then_some(()));
    }
    let second = a.come().expect("a place");
    let (third, fourth) = (b.come().expect("a place"), b.come().expect("a place"));
    assert!(a.come().is_none() && b.come().is_none(), "each has two");
    cluster.start();
    for node in [&a, &b] {
        node.until(|seen| matches!(seen, Seen::Standing(Standing::Joined)).then_some(()));
    }
    drop((first, third));
    // Two are left. A node may let somebody in before it has heard that the other has too many.
    cluster.wait_until(|| a.come().is_none() && b.come().is_none());
    drop(second);
    let fifth = comes(&cluster, &b);
    assert!(a.come().is_none() && b.come().is_none());
    drop((fourth, fifth));
    let _both = (comes(&cluster, &a), comes(&cluster, &b));
}

#[test]
fn who_comes_before_the_node_has_joined_waits_until_it_has() {
    let Some(mut cluster) = cluster(SHORT) else { return };
    cluster.limit_connections(1);
    let a = cluster.join("a");
    let _only = a.come().expect("a place");
    let b = cluster.node("b", SHORT);
    assert!(b.come().is_none(), "the other node has the place");
    cluster.stop();
    let c = cluster.node("c", SHORT);
    assert!(c.come().is_some(), "there is no engine");
}

#[test]
fn a_node_that_leaves_keeps_its_clients_and_gives_its_places_back() {
    let Some(mut cluster) = cluster(LONG) else { return };
    cluster.limit_connections(1);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let _only = a.come().expect("a place");
    assert!(b.come().is_none());
    a.leave();
    let _next = comes(&cluster, &b);
}

#[test]
fn the_last_event_is_kept_and_numbered_for_all() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let last = |node: &Node, is_missed| {
        node.send(Request::LastEvent { channel: "cache-a".into(), is_missed });
        node.until(|seen| match seen {
            Seen::Update(Update::LastEvent { publication, position, .. }) => {
                Some((publication.as_ref().map(|it| it.data().into_owned()), position.number))
            }
            _ => None,
        })
    };
    assert_eq!(last(&a, false), (None, 0));
    subscribed(&a, "cache-a");
    b.send(keep("cache-a", "one"));
    assert_eq!(event(&a), ("one".to_owned(), Some(1)));
    a.send(keep("cache-a", "two"));
    assert_eq!(event(&a), ("two".to_owned(), Some(2)), "its own as well, by the engine's order");
    assert_eq!(last(&b, true), (Some("two".to_owned()), 2));
    let state =
        ask(&b, |answer| Question::Channel { app: b.app(), channel: "cache-a".into(), answer }).expect("an answer");
    let cached = state.cached.expect("an event");
    assert_eq!(&*cached.data, "two");
    assert!(cached.ttl > Duration::from_secs(29 * 60) && cached.ttl <= Duration::from_secs(30 * 60));
}

#[test]
fn a_channel_whose_last_event_is_too_old_has_none() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    subscribed(&node, "cache-a");
    node.send(keep("cache-a", "one"));
    assert_eq!(event(&node), ("one".to_owned(), Some(1)));
    let last = format!("{PARTITION}:last:{APP}:cache-a");
    cluster.command(&["HSET", &last, "until", "1"]);
    let state = ask(&node, |answer| Question::Channel { app: node.app(), channel: "cache-a".into(), answer });
    assert!(state.expect("an answer").cached.is_none());
    assert_eq!(node.state().losses, 0);
}

fn online(node: &Node, user_ids: &[&str]) -> Vec<String> {
    let user_ids: Arc<[Arc<str>]> = user_ids.iter().map(|it| Arc::from(*it)).collect();
    node.send(Request::Online { user_ids, number: 9 });
    node.until(|seen| match seen {
        Seen::Update(Update::Online { number: 9, online }) => Some(online.iter().map(ToString::to_string).collect()),
        _ => None,
    })
}

fn status(node: &Node) -> (String, bool) {
    node.until(|seen| match seen {
        Seen::Update(Update::Status { user_id, is_online }) => Some((user_id.to_string(), *is_online)),
        _ => None,
    })
}

#[test]
fn users_are_online_while_any_node_has_them() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b, watcher) = (cluster.join("a"), cluster.join("b"), cluster.join("watcher"));
    a.send(Request::SignIn { user_id: "ann".into() });
    assert!(joined(&a, "presence-a", "x"), "all before it is done");
    assert_eq!(online(&watcher, &["bob", "ann", "cid"]), ["ann"]);
    b.send(Request::SignIn { user_id: "ann".into() });
    b.send(Request::SignIn { user_id: "bob".into() });
    assert_eq!(status(&watcher), ("bob".to_owned(), true));
    a.send(Request::SignOut { user_id: "ann".into() });
    assert!(joined(&a, "presence-a", "y"));
    b.send(Request::SignOut { user_id: "ann".into() });
    assert_eq!(status(&watcher), ("ann".to_owned(), false));
    assert_eq!(online(&watcher, &[]), [""; 0]);
}

#[test]
fn questions_about_the_whole_cluster_are_answered() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&a, "chat");
    subscribed(&b, "chat");
    subscribed(&a, "presence-a");
    subscribed(&a, "#server-to-user-ann");
    assert!(joined(&a, "presence-a", "ann") && joined(&a, "presence-a", "bob"));
    let channels = |prefix: &str| {
        let answer = ask(&b, |answer| Question::Channels { app: b.app(), prefix: prefix.into(), answer });
        let found: BTreeMap<_, _> = answer.expect("an answer");
        found.into_iter().map(|(name, found)| (name.to_string(), found.subscriptions, found.users)).collect::<Vec<_>>()
    };
    assert_eq!(channels(""), [("chat".to_owned(), 1, None), ("presence-a".to_owned(), 1, Some(2))]);
    assert_eq!(channels("presence-").len(), 1);
    assert_eq!(channels("x"), []);
    let mut users =
        ask(&b, |answer| Question::Users { app: b.app(), channel: "presence-a".into(), answer }).expect("users");
    users.sort();
    assert_eq!(users, ["ann", "bob"].map(Arc::from));
    let state = |channel: &str| {
        ask(&b, |answer| Question::Channel { app: b.app(), channel: channel.into(), answer })
            .expect("an answer")
            .occupancy
    };
    assert_eq!((state("presence-a").subscriptions, state("presence-a").users), (1, Some(2)));
    assert_eq!((state("nobody").subscriptions, state("nobody").users), (0, None));
    let nodes = ask(&b, |answer| Question::Nodes { answer }).expect("nodes");
    let mut names: Vec<_> = nodes.iter().map(|node| (&*node.name, node.is_here)).collect();
    names.sort_unstable();
    assert_eq!(names, [("a", false), ("b", true)]);
    assert!(
        nodes.iter().all(|node| node.lease <= LONG && node.lease > LONG / 2 && !node.version.is_empty()),
        "{nodes:?}"
    );
}

#[test]
fn thousands_of_channels_are_listed_in_parts() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    for number in 0..3_000 {
        node.send(subscribe(&format!("channel-{number}")));
    }
    let channels = ask(&node, |answer| Question::Channels { app: node.app(), prefix: "channel-".into(), answer });
    assert_eq!(channels.expect("an answer").len(), 3_000);
}

#[test]
fn a_users_connections_are_closed_on_all_other_nodes() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b, c) = (cluster.join("a"), cluster.join("b"), cluster.join("c"));
    let terminate = || ask(&a, |answer| Question::Terminate { app: a.app(), user_id: "ann".into(), answer });
    assert_eq!(terminate(), Some(2));
    for node in [&b, &c] {
        node.until(|seen| {
            matches!(seen, Seen::Terminated(user_id, Duration::ZERO) if **user_id == *"ann").then_some(())
        });
    }
    let asleep = c.pause();
    let asked = Instant::now();
    assert_eq!(terminate(), Some(1), "the other one does not answer");
    assert!(asked.elapsed() < Duration::from_secs(2));
    drop(asleep);
}

#[test]
fn a_node_that_was_away_closes_a_users_connections_when_it_is_back() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let asleep = b.pause();
    // Its lease lapses, and nobody waits for it any more.
    cluster.wait_until(|| ask(&a, |answer| Question::Nodes { answer }).is_some_and(|nodes| nodes.len() == 1));
    let asked = Instant::now();
    let closed = ask(&a, |answer| Question::Terminate { app: a.app(), user_id: "ann".into(), answer });
    assert_eq!(closed, Some(0));
    drop(asleep);
    // It may find the message itself, which its connection has still heard.
    let age = b.until(|seen| match seen {
        Seen::Terminated(user_id, age) if **user_id == *"ann" && !age.is_zero() => Some(*age),
        _ => None,
    });
    assert!(age <= asked.elapsed(), "{age:?}");
}

#[test]
fn a_node_that_leaves_takes_its_users_with_it_at_once() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "presence-a");
    assert!(joined(&a, "presence-a", "ann"));
    assert_eq!(change(&b), "+ann");
    a.send(join("presence-a", "last", 0));
    a.leave();
    assert_eq!(change(&b), "+last", "what was sent before is done");
    let mut gone = [change(&b), change(&b)];
    gone.sort();
    assert_eq!(gone, ["-ann", "-last"]);
    assert_eq!(ask(&b, |answer| Question::Nodes { answer }).expect("nodes").len(), 1);
    let c = cluster.join("c");
    assert!(joined(&c, "presence-a", "cid"));
    assert_eq!(change(&b), "+cid");
    c.drop_broker();
    assert_eq!(change(&b), "-cid", "who is not needed any more leaves as well");
}

#[test]
fn users_of_a_node_that_leaves_may_be_back_on_another_within_their_grace() {
    let Some(mut cluster) = cluster(SHORT) else { return };
    cluster.limit_connections(1);
    let grace = Duration::from_secs(3);
    let (a, b) = (cluster.join_with_grace("a", grace), cluster.join_with_grace("b", grace));
    subscribed(&b, "presence-a");
    for user_id in ["ann", "bob"] {
        assert!(joined(&a, "presence-a", user_id));
        assert_eq!(change(&b), format!("+{user_id}"));
    }
    a.send(Request::SignIn { user_id: "ann".into() });
    assert!(joined(&a, "presence-a", "cid"));
    assert_eq!(change(&b), "+cid");
    let _only = a.come().expect("a place");
    a.send(Request::Count { channel: "presence-a".into(), subscribers: 3 });
    let left = Instant::now();
    a.leave();
    assert!(b.come().is_some(), "connections are gone at once");
    let state = ask(&b, |answer| Question::Channel { app: b.app(), channel: "presence-a".into(), answer });
    assert_eq!(state.expect("an answer").occupancy.subscriptions, 1, "it is occupied, by nobody who is counted");
    assert_eq!(ask(&b, |answer| Question::Nodes { answer }).expect("nodes").len(), 1, "it is no node any more");
    assert_eq!(members(&b, "presence-a"), ["ann", "bob", "cid"]);
    assert_eq!(online(&b, &["ann"]), ["ann"]);
    assert!(joined(&b, "presence-a", "bob"));
    let mut gone = [change(&b), change(&b)];
    gone.sort();
    assert_eq!(gone, ["-ann", "-cid"], "nobody hears of bob");
    assert!(left.elapsed() >= grace);
    assert_eq!(members(&b, "presence-a"), ["bob"]);
    cluster.wait_until_reaped();
    assert!(!cluster.keys().iter().any(|key| key.ends_with(":grace")), "{:?}", cluster.keys());
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
    let node = cluster.node("a", LONG);
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
