//! What every engine must make of the same requests: each scenario is a test of each engine.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::nodes::*;
use crate::app::{Features, Limits};
use crate::apps::Admission;
use crate::cluster::{Phase, Question};
use crate::events::Event;
use crate::grace::GRACE;
use crate::hub::command::{Event as Published, Publication};
use crate::hub::engine::{Difference, Request, Standing, Update};
use crate::hub::receipt::Receipt;
use crate::pusher::socket_id::SocketId;

/// A lease that tests need not wait long for.
pub(crate) const SHORT: Duration = Duration::from_secs(3);

/// The default: nothing lapses during a test.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// An engine of one test alone.
pub(crate) trait Engine {
    fn url(&self) -> String;

    fn lease(&self) -> Duration;

    /// Starts it, without anything that it has known before.
    fn start(&mut self);

    /// Stops it without a word.
    fn stop(&mut self);

    /// Its servers that run.
    fn processes(&self) -> Vec<&Child>;

    /// Cuts every connection of every node.
    fn kill_connections(&self);

    /// It forgets everything while nodes are connected.
    fn wipe(&self);

    /// The dead hold nothing any longer.
    fn wait_until_reaped(&self) {}

    /// The engine knows that this node has told webhooks what has happened.
    fn wait_until_told(&self, node: &Node) {
        self.wait_until_told_all_but(node, 0);
    }

    /// The same, with so many removals that it holds back.
    fn wait_until_told_all_but(&self, node: &Node, held: u64);

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn signal(&self, signal: &str) {
        let ids = self.processes().into_iter().map(|process| process.id().to_string());
        assert!(Command::new("kill").arg(signal).args(ids).status().expect("kill").success());
    }

    /// It does nothing any more, and its connections stay.
    fn stop_process(&mut self) {
        self.signal("-STOP");
    }

    fn continue_process(&mut self) {
        self.signal("-CONT");
    }

    /// How many connections all nodes together may have; 0: any number.
    fn most_connections(&self) -> usize;

    /// Nodes that start from here on let so many connections in.
    fn limit_connections(&mut self, most: usize);

    /// A node that is not waited for.
    fn node(&self, name: &str) -> Node {
        self.node_with_grace(name, Duration::ZERO)
    }

    /// The same, of an app whose users may be away for a while.
    fn node_with_grace(&self, name: &str, presence_grace: Duration) -> Node {
        let limits = Limits { connections: self.most_connections(), ..Limits::default() };
        let features = Features { presence_grace, ..Features::default() };
        Node::start(&self.url(), name, self.lease(), &limits, features)
    }

    /// A node that has joined.
    fn join(&self, name: &str) -> Node {
        self.join_with_grace(name, Duration::ZERO)
    }

    /// A node that has joined, of an app whose users may be away for a while.
    fn join_with_grace(&self, name: &str, grace: Duration) -> Node {
        let node = self.node_with_grace(name, grace);
        node.wait_until_joined();
        node
    }

    /// A node that has joined, of an app with a webhook: removals are held back.
    fn join_with_webhook(&self, name: &str) -> Node {
        let node = Node::start_with_webhook(&self.url(), name, self.lease());
        node.wait_until_joined();
        node
    }

    /// Polls: an engine tells nobody.
    fn wait_until(&self, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "it does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Makes a test of each scenario, on the engine that `$engine` starts; without one it is skipped.
macro_rules! scenarios {
    ($engine:path) => {
        $crate::cluster::testing::scenarios::scenarios! { $engine =>
            an_event_reaches_other_nodes_once_and_its_own_node_not_at_all: LONG,
            ten_thousand_events_of_one_publisher_keep_their_order: LONG,
            a_clients_event_and_whom_it_is_not_for_travel_along: LONG,
            a_user_whom_two_nodes_let_in_at_once_comes_once_and_goes_with_the_last: LONG,
            changes_name_the_one_before_and_a_join_its_own: LONG,
            a_presence_channel_has_no_more_users_than_it_may: LONG,
            a_node_that_dies_is_missed_within_its_lease_and_its_users_go_once: SHORT,
            a_node_that_slept_too_long_comes_back_as_another_and_the_rest_sees_the_difference: SHORT,
            an_engine_that_has_lost_its_memory_is_told_everything_again: LONG,
            connections_that_are_cut_come_back_and_nobody_flickers: LONG,
            ten_thousand_subscriptions_and_members_come_back: LONG,
            an_engine_whose_memory_is_wiped_under_way_is_noticed: SHORT,
            events_that_cannot_be_carried_fail_and_nothing_else_is_lost: LONG,
            an_event_that_finds_no_room_fails_at_once: LONG,
            an_engine_that_stops_answering_is_away_and_events_under_way_have_failed: LONG,
            webhooks_hear_of_each_thing_once_and_in_order: SHORT,
            another_node_tells_webhooks_when_the_one_that_did_dies: SHORT,
            what_a_node_has_told_webhooks_when_it_leaves_nobody_tells_again: LONG,
            removals_that_a_node_holds_back_when_it_leaves_are_told_by_the_next_one: LONG,
            removals_that_a_node_holds_back_when_it_dies_are_told_by_the_next_one: SHORT,
            removals_that_a_node_holds_back_outlive_the_memory_of_the_engine: LONG,
            removals_that_are_held_back_when_the_engine_stands_still_are_told_however_long_that_takes: SHORT,
            subscribers_are_counted_over_all_nodes: SHORT,
            the_last_event_is_kept_and_numbered_for_all: LONG,
            users_are_online_while_any_node_has_them: LONG,
            questions_about_the_whole_cluster_are_answered: LONG,
            thousands_of_channels_are_listed_in_parts: LONG,
            a_users_connections_are_closed_on_all_other_nodes: SHORT,
            a_node_that_was_away_closes_a_users_connections_when_it_is_back: SHORT,
            a_node_that_leaves_takes_its_users_with_it_at_once: LONG,
            all_nodes_together_have_as_many_connections_as_the_limit_says: SHORT,
            without_the_engine_each_node_keeps_to_the_limit_by_itself_and_shares_again_afterwards: SHORT,
            who_comes_before_the_node_has_joined_waits_until_it_has: SHORT,
            a_node_that_leaves_keeps_its_clients_and_gives_its_places_back: LONG,
            users_of_a_node_that_leaves_may_be_back_on_another_within_their_grace: SHORT,
        }
    };
    ($engine:path => $($name:ident: $lease:ident,)*) => {
        $(
            #[test]
            fn $name() {
                use $crate::cluster::testing::scenarios;
                if let Some(mut engine) = $engine(scenarios::$lease) {
                    scenarios::$name(&mut engine);
                }
            }
        )*
    };
}
pub(crate) use scenarios;

/// What these nodes have told webhooks, of each channel in order, once it is so much; and what more they tell.
fn told(cluster: &impl Engine, nodes: &[&Node], count: usize) -> Vec<Event> {
    let (mut told, end) = (vec![Vec::new(); nodes.len()], Instant::now() + PATIENCE);
    while told.iter().map(Vec::len).sum::<usize>() < count {
        assert!(Instant::now() < end, "it does not come: {told:?}");
        std::thread::sleep(Duration::from_millis(5));
        for (told, node) in told.iter_mut().zip(nodes) {
            told.extend(node.told());
        }
    }
    for (told, node) in told.iter_mut().zip(nodes) {
        cluster.wait_until_told(node);
        told.extend(node.told());
    }
    told.concat()
}

pub(crate) fn an_event_reaches_other_nodes_once_and_its_own_node_not_at_all(cluster: &mut impl Engine) {
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

pub(crate) fn ten_thousand_events_of_one_publisher_keep_their_order(cluster: &mut impl Engine) {
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

pub(crate) fn a_clients_event_and_whom_it_is_not_for_travel_along(cluster: &mut impl Engine) {
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

pub(crate) fn a_user_whom_two_nodes_let_in_at_once_comes_once_and_goes_with_the_last(cluster: &mut impl Engine) {
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

pub(crate) fn changes_name_the_one_before_and_a_join_its_own(cluster: &mut impl Engine) {
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

pub(crate) fn a_presence_channel_has_no_more_users_than_it_may(cluster: &mut impl Engine) {
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

pub(crate) fn a_node_that_dies_is_missed_within_its_lease_and_its_users_go_once(cluster: &mut impl Engine) {
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

pub(crate) fn a_node_that_slept_too_long_comes_back_as_another_and_the_rest_sees_the_difference(
    cluster: &mut impl Engine,
) {
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

pub(crate) fn an_engine_that_has_lost_its_memory_is_told_everything_again(cluster: &mut impl Engine) {
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

pub(crate) fn connections_that_are_cut_come_back_and_nobody_flickers(cluster: &mut impl Engine) {
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

pub(crate) fn ten_thousand_subscriptions_and_members_come_back(cluster: &mut impl Engine) {
    let (a, b) = with_ten_thousand(cluster);
    cluster.kill_connections();
    for node in [&a, &b] {
        standing(node, Standing::Away);
        standing(node, Standing::Joined);
    }
    has_ten_thousand(&a, &b);
}

/// Two nodes, of which the first has ten thousand channels, and as many members of one and one more.
pub(crate) fn with_ten_thousand(cluster: &impl Engine) -> (Node, Node) {
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
    (a, b)
}

pub(crate) fn has_ten_thousand(a: &Node, b: &Node) {
    for number in [0, 5_000, 9_999] {
        b.send(publish(&format!("channel-{number}"), &number.to_string()));
        assert_eq!(event(a).0, number.to_string());
    }
    assert_eq!(members(b, "presence-a").len(), 10_001);
}

pub(crate) fn an_engine_whose_memory_is_wiped_under_way_is_noticed(cluster: &mut impl Engine) {
    let node = cluster.join("a");
    assert!(joined(&node, "presence-a", "ann"));
    cluster.wipe();
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_eq!(members(&node, "presence-a"), ["ann"]);
}

pub(crate) fn events_that_cannot_be_carried_fail_and_nothing_else_is_lost(cluster: &mut impl Engine) {
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

pub(crate) fn an_event_that_finds_no_room_fails_at_once(cluster: &mut impl Engine) {
    let node = cluster.join("a");
    let receipts: Vec<_> = (0..40).map(|_| Receipt::new(Arc::new(()))).collect();
    // Any engine takes one of them. It is written once: that takes a while, and the engine is not waited for for long.
    let large = publication("chat", &"x".repeat(1 << 19));
    cluster.stop_process();
    for receipt in &receipts {
        let publication = large.clone();
        node.send(Request::Publish { publication, kept: false, receipt: Some(receipt.clone()) });
    }
    let has_failed: Vec<_> = receipts.iter().map(Receipt::has_failed).collect();
    assert!(has_failed[32..].iter().all(|has_failed| *has_failed), "{has_failed:?}");
    cluster.continue_process();
}

pub(crate) fn an_engine_that_stops_answering_is_away_and_events_under_way_have_failed(cluster: &mut impl Engine) {
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

pub(crate) fn webhooks_hear_of_each_thing_once_and_in_order(cluster: &mut impl Engine) {
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
    // Two are of those who mark the end: an engine may order channels among each other, or not.
    let told = told(cluster, &[&a, &b], 7);
    assert_eq!(told.len(), 7, "{told:?}");
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

pub(crate) fn another_node_tells_webhooks_when_the_one_that_did_dies(cluster: &mut impl Engine) {
    let a = cluster.join("a");
    subscribed(&a, "first");
    assert_eq!(happened(&a), Event::ChannelOccupied { channel: "first".into() });
    let b = cluster.join("b");
    subscribed(&b, "second");
    assert_eq!(happened(&a), Event::ChannelOccupied { channel: "second".into() });
    cluster.wait_until_told(&a);
    a.kill();
    subscribed(&b, "third");
    // The channels are not ordered among each other: the lease may be over first on a busy machine.
    let mut told = [happened(&b), happened(&b)];
    told.sort_by_key(|event| event.channel().map(ToString::to_string));
    assert_eq!(
        told,
        [Event::ChannelVacated { channel: "first".into() }, Event::ChannelOccupied { channel: "third".into() }]
    );
}

pub(crate) fn what_a_node_has_told_webhooks_when_it_leaves_nobody_tells_again(cluster: &mut impl Engine) {
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "first");
    assert_eq!(happened(&a), Event::ChannelOccupied { channel: "first".into() });
    a.leave();
    subscribed(&b, "second");
    assert_eq!(happened(&b), Event::ChannelOccupied { channel: "second".into() });
}

/// Two nodes, of which the first has read, and holds back, that ann and bob have gone.
fn with_removals_held_back(cluster: &impl Engine) -> (Node, Node) {
    let (a, b) = (cluster.join_with_webhook("a"), cluster.join_with_webhook("b"));
    subscribed(&b, "presence-a");
    for user_id in ["ann", "bob"] {
        assert!(joined(&b, "presence-a", user_id));
    }
    let told = [happened(&a), happened(&a), happened(&a)];
    assert_eq!(told, [occupied("presence-a"), added("ann"), added("bob")]);
    b.send(leave("presence-a", "ann"));
    b.send(leave("presence-a", "bob"));
    // It comes after them, and is not held back.
    b.send(Request::LastEvent { channel: "presence-a".into(), is_missed: true });
    assert_eq!(happened(&a), Event::CacheMiss { channel: "presence-a".into() });
    cluster.wait_until_told_all_but(&a, 2);
    (a, b)
}

fn occupied(channel: &str) -> Event {
    Event::ChannelOccupied { channel: channel.into() }
}

fn added(user_id: &str) -> Event {
    Event::MemberAdded { channel: "presence-a".into(), user_id: user_id.into() }
}

fn removed(user_id: &str) -> Event {
    Event::MemberRemoved { channel: "presence-a".into(), user_id: user_id.into() }
}

/// The next thing that the node tells is that this user has gone, once that is sure; and nothing of anybody else.
fn is_told_that_it_has_gone(node: &Node, user_id: &str) {
    let happened = happened_late(node);
    assert_eq!(happened.event, removed(user_id));
    assert!(happened.waited >= GRACE && happened.ago == happened.waited, "{happened:?}");
    subscribed(node, "afterwards");
    assert_eq!(self::happened(node), occupied("afterwards"));
}

pub(crate) fn removals_that_a_node_holds_back_when_it_leaves_are_told_by_the_next_one(cluster: &mut impl Engine) {
    let (a, b) = with_removals_held_back(cluster);
    a.leave();
    // For webhooks, one of them has moved, and the other one has gone.
    assert!(joined(&b, "presence-a", "bob"));
    is_told_that_it_has_gone(&b, "ann");
}

pub(crate) fn removals_that_a_node_holds_back_when_it_dies_are_told_by_the_next_one(cluster: &mut impl Engine) {
    let (a, b) = with_removals_held_back(cluster);
    a.kill();
    assert!(joined(&b, "presence-a", "bob"));
    is_told_that_it_has_gone(&b, "ann");
}

pub(crate) fn removals_that_a_node_holds_back_outlive_the_memory_of_the_engine(cluster: &mut impl Engine) {
    let (a, b) = with_removals_held_back(cluster);
    drop(b);
    cluster.restart();
    standing(&a, Standing::Joined);
    assert!(joined(&a, "presence-a", "bob"));
    is_told_that_it_has_gone(&a, "ann");
}

pub(crate) fn removals_that_are_held_back_when_the_engine_stands_still_are_told_however_long_that_takes(
    cluster: &mut impl Engine,
) {
    let (a, b) = with_removals_held_back(cluster);
    cluster.stop_process();
    for node in [&a, &b] {
        standing(node, Standing::Away);
    }
    // By then every lease has lapsed: that takes as long as a lease.
    std::thread::sleep(cluster.lease());
    cluster.continue_process();
    for node in [&a, &b] {
        standing(node, Standing::Joined);
    }
    let mut told = told(cluster, &[&a, &b], 2);
    told.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(told, [removed("ann"), removed("bob")]);
}

pub(crate) fn subscribers_are_counted_over_all_nodes(cluster: &mut impl Engine) {
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

pub(crate) fn the_last_event_is_kept_and_numbered_for_all(cluster: &mut impl Engine) {
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

pub(crate) fn users_are_online_while_any_node_has_them(cluster: &mut impl Engine) {
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

pub(crate) fn questions_about_the_whole_cluster_are_answered(cluster: &mut impl Engine) {
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

pub(crate) fn thousands_of_channels_are_listed_in_parts(cluster: &mut impl Engine) {
    let node = cluster.join("a");
    for number in 0..3_000 {
        node.send(subscribe(&format!("channel-{number}")));
    }
    let channels = ask(&node, |answer| Question::Channels { app: node.app(), prefix: "channel-".into(), answer });
    assert_eq!(channels.expect("an answer").len(), 3_000);
}

pub(crate) fn a_users_connections_are_closed_on_all_other_nodes(cluster: &mut impl Engine) {
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

pub(crate) fn a_node_that_was_away_closes_a_users_connections_when_it_is_back(cluster: &mut impl Engine) {
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let asleep = b.pause();
    // Its lease lapses, and nobody waits for it any more.
    let end = Instant::now() + PATIENCE;
    while ask(&a, |answer| Question::Nodes { answer }).is_none_or(|nodes| nodes.len() > 1) {
        assert!(Instant::now() < end, "it does not lapse");
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    let terminate =
        |user_id: &str| ask(&a, |answer| Question::Terminate { app: a.app(), user_id: user_id.into(), answer });
    assert_eq!((terminate("ann"), terminate("a.b")), (Some(0), Some(0)));
    drop(asleep);
    for wanted in ["ann", "a.b"] {
        // It may find the message itself, which its connection has still heard.
        let age = b.until(|seen| match seen {
            Seen::Terminated(user_id, age) if **user_id == *wanted && !age.is_zero() => Some(*age),
            _ => None,
        });
        // Nodes know the engine's clock only about.
        assert!(age <= asked.elapsed() + Duration::from_secs(1), "{age:?}");
    }
}

pub(crate) fn a_node_that_leaves_takes_its_users_with_it_at_once(cluster: &mut impl Engine) {
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

/// Waits until a client finds a place.
pub(crate) fn comes(cluster: &impl Engine, node: &Node) -> Admission {
    let mut come = None;
    cluster.wait_until(|| {
        come = node.come();
        come.is_some()
    });
    come.expect("it has come")
}

pub(crate) fn all_nodes_together_have_as_many_connections_as_the_limit_says(cluster: &mut impl Engine) {
    cluster.limit_connections(3);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let (first, second, third) = (a.come(), a.come(), b.come());
    assert!(first.is_some() && second.is_some() && third.is_some());
    assert!(a.come().is_none() && b.come().is_none(), "there are three");
    drop(first);
    let fourth = comes(cluster, &b);
    assert!(a.come().is_none() && b.come().is_none(), "there are three again");
    drop((second, fourth));
    let more: Vec<_> = (0..2).map(|_| comes(cluster, &a)).collect();
    assert!(a.come().is_none() && b.come().is_none());
    drop(more);
    // What a dead node had is free again.
    let _all: Vec<_> = (0..2).map(|_| comes(cluster, &a)).collect();
    a.kill();
    let _more: Vec<_> = (0..2).map(|_| comes(cluster, &b)).collect();
    assert!(b.come().is_none());
}

pub(crate) fn without_the_engine_each_node_keeps_to_the_limit_by_itself_and_shares_again_afterwards(
    cluster: &mut impl Engine,
) {
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
    let fifth = comes(cluster, &b);
    assert!(a.come().is_none() && b.come().is_none());
    drop((fourth, fifth));
    let _both = (comes(cluster, &a), comes(cluster, &b));
}

pub(crate) fn who_comes_before_the_node_has_joined_waits_until_it_has(cluster: &mut impl Engine) {
    cluster.limit_connections(1);
    let a = cluster.join("a");
    let _only = a.come().expect("a place");
    let b = cluster.node("b");
    assert!(b.come().is_none(), "the other node has the place");
    cluster.stop();
    let c = cluster.node("c");
    assert!(c.come().is_some(), "there is no engine");
}

pub(crate) fn a_node_that_leaves_keeps_its_clients_and_gives_its_places_back(cluster: &mut impl Engine) {
    cluster.limit_connections(1);
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let _only = a.come().expect("a place");
    assert!(b.come().is_none());
    a.leave();
    let _next = comes(cluster, &b);
}

pub(crate) fn users_of_a_node_that_leaves_may_be_back_on_another_within_their_grace(cluster: &mut impl Engine) {
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
}
