//! Drivers against a real NATS. Each test starts its own.

mod harness;
mod servers;

use std::sync::Arc;

use self::harness::{cluster, with};
use super::entry::{Content, Entry, Holding};
use crate::app::{Features, Limits};
use crate::cluster::testing::nodes::*;
use crate::cluster::testing::scenarios::{Engine, LONG, SHORT, scenarios};
use crate::cluster::{Phase, Question};
use crate::events::Event;
use crate::grace::GRACE;
use crate::hub::engine::{Request, Standing, Update};
use crate::hub::receipt::Receipt;

scenarios!(cluster);

/// The incarnation of a node that is alone.
fn incarnation(node: &Node) -> Box<str> {
    let nodes = ask(node, |answer| Question::Nodes { answer }).expect("an answer");
    nodes.into_iter().find(|node| node.is_here).expect("it is here").incarnation
}

/// An entry that says that a user is in a presence channel.
fn ghost(incarnation: &str) -> (String, Vec<u8>) {
    let holding = Holding::Member {
        app: "1".into(),
        channel: "presence-a".into(),
        user_id: "ghost".into(),
        user_info: None,
        most: 0,
    };
    let entry = Entry { incarnation: incarnation.into(), content: Content::Holds(holding) };
    (super::names::Names::new("taut").entry(&entry), entry.write())
}

#[test]
fn what_a_dead_incarnation_writes_late_is_void_for_everybody() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "presence-a");
    assert!(joined(&a, "presence-a", "ann"));
    assert_eq!(change(&b), "+ann");
    let dead = incarnation(&a);
    a.kill();
    assert_eq!(change(&b), "-ann");
    for incarnation in [&*dead, "stranger"] {
        let (subject, payload) = ghost(incarnation);
        assert!(cluster.ask(&subject, &payload)["seq"].is_u64(), "the stream takes it");
    }
    let c = cluster.join("c");
    assert!(joined(&c, "presence-a", "cid"));
    assert_eq!(change(&b), "+cid", "nobody has heard of the ghost");
    for node in [&b, &c] {
        assert_eq!(members(node, "presence-a"), ["cid"]);
    }
    // Nothing stays of the dead, not even that they are.
    cluster
        .wait_until(|| !cluster.subjects("taut-log").iter().any(|it| it.contains(&*dead) || it.contains("stranger")));
    assert_eq!(members(&cluster.join("d"), "presence-a"), ["cid"]);
}

#[test]
fn a_renewal_that_comes_after_the_fence_is_refused() {
    let Some(cluster) = cluster(SHORT) else { return };
    let node = cluster.join("a");
    let own = incarnation(&node);
    let fence = Entry { incarnation: (*own).into(), content: Content::Fenced };
    let fenced = cluster.ask(&super::names::Names::new("taut").lease(&own), &fence.write());
    assert!(fenced["seq"].is_u64(), "{fenced}");
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_ne!(incarnation(&node), own);
}

#[test]
fn what_happens_while_a_node_is_between_sessions_is_told_by_it_if_nobody_else_is_left() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, (b, proxy)) = (cluster.join("a"), cluster.join_apart("b"));
    let asleep = b.pause();
    proxy.cut();
    subscribed(&a, "first");
    let told = a.killed();
    drop(asleep);
    standing(&b, Standing::Away);
    standing(&b, Standing::Joined);
    let channel: Arc<str> = "first".into();
    let (occupied, vacated) = (Event::ChannelOccupied { channel: channel.clone() }, Event::ChannelVacated { channel });
    match happened(&b) {
        first if first == occupied => assert_eq!(happened(&b), vacated),
        first => assert_eq!((first, told), (vacated, vec![occupied]), "nobody has told it"),
    }
}

#[test]
fn a_node_that_was_away_misses_nothing_that_was_taken_out_of_the_log() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, (b, proxy)) = (cluster.join("a"), cluster.join_apart("b"));
    subscribed(&b, "presence-a");
    assert!(joined(&a, "presence-a", "ann"));
    assert_eq!(change(&b), "+ann");
    let asleep = b.pause();
    proxy.cut();
    a.send(leave("presence-a", "ann"));
    cluster.wait_until(|| !cluster.subjects("taut-log").iter().any(|subject| subject.contains(".m.")));
    drop(asleep);
    standing(&b, Standing::Away);
    standing(&b, Standing::Joined);
    assert_eq!(members(&b, "presence-a"), [""; 0]);
}

#[test]
fn a_node_that_hears_nothing_tells_no_removal_that_may_be_undone() {
    let Some(cluster) = cluster(SHORT) else { return };
    let ((a, proxy), b) = (cluster.join_apart_with_webhook("a"), cluster.join_with_webhook("b"));
    subscribed(&b, "presence-a");
    assert!(joined(&b, "presence-a", "ann"));
    let first = [happened(&a), happened(&a)];
    assert!(matches!(first, [Event::ChannelOccupied { .. }, Event::MemberAdded { .. }]), "{first:?}");
    b.send(leave("presence-a", "ann"));
    // It comes after that, and is not held back.
    b.send(Request::LastEvent { channel: "presence-a".into(), is_missed: true });
    assert!(matches!(happened(&a), Event::CacheMiss { .. }));
    // The removal is due before the node finds out that it hears nothing.
    std::thread::sleep(GRACE * 3 / 4);
    proxy.deafen();
    assert!(joined(&b, "presence-a", "ann"));
    standing(&a, Standing::Away);
    // For webhooks ann was there all the time, whoever tells them.
    subscribed(&b, "afterwards");
    assert_eq!(happened(&b), Event::ChannelOccupied { channel: "afterwards".into() });
    assert_eq!(a.told(), []);
}

#[test]
fn an_entry_that_nobody_understands_stops_nobody() {
    let Some(cluster) = cluster(SHORT) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "presence-a");
    assert!(cluster.ask("taut.log.cell.x.y", b"garbage")["seq"].is_u64());
    assert!(joined(&a, "presence-a", "ann"));
    assert_eq!(change(&b), "+ann");
    assert_eq!(members(&cluster.join("c"), "presence-a"), ["ann"]);
    assert_eq!((a.state().losses, b.state().losses), (0, 0));
}

#[test]
fn channels_whose_names_mean_something_to_nats_are_channels_like_any() {
    let Some(cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    let names = ["a.b", "a.*", "a.>", ">", "a b", "a=2Eb", "#server-to-user-é*", "a..b", "."];
    for name in names {
        subscribed(&b, name);
    }
    for name in names {
        a.send(publish(name, name));
        let heard = b.until(|seen| match seen {
            Seen::Update(Update::Published { publication, .. }) => {
                Some((publication.channel.to_string(), publication.data().into_owned()))
            }
            _ => None,
        });
        assert_eq!(heard, (name.to_owned(), name.to_owned()));
        assert!(joined(&a, &format!("presence-{name}"), name));
        assert_eq!(members(&b, &format!("presence-{name}")), [name]);
    }
}

#[test]
fn what_is_published_while_the_engine_is_away_is_never_sent_later() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let (a, b) = (cluster.join("a"), cluster.join("b"));
    subscribed(&b, "chat");
    cluster.stop();
    for node in [&a, &b] {
        standing(node, Standing::Away);
    }
    let (done, waited) = tokio::sync::oneshot::channel::<()>();
    let receipt = Receipt::new(Arc::new(done));
    let publication = publication("chat", "too early");
    a.send(Request::Publish { publication, kept: false, receipt: Some(receipt.clone()) });
    failed(waited, receipt);
    cluster.start();
    for node in [&a, &b] {
        standing(node, Standing::Joined);
    }
    a.send(publish("chat", "again"));
    assert_eq!(event(&b).0, "again");
}

#[test]
fn channels_without_anybody_leave_nothing_behind() {
    let Some(cluster) = cluster(SHORT) else { return };
    let a = cluster.join("a");
    subscribed(&a, "presence-a");
    subscribed(&a, "chat");
    a.send(Request::SignIn { user_id: "ann".into() });
    a.send(Request::LastEvent { channel: "cache-a".into(), is_missed: true });
    assert!(joined(&a, "presence-a", "ann"));
    let own = incarnation(&a);
    a.send(leave("presence-a", "ann"));
    a.send(Request::SignOut { user_id: "ann".into() });
    a.send(unsubscribe("presence-a"));
    a.send(Request::Count { channel: "chat".into(), subscribers: 2 });
    counted(&a, 2);
    a.send(Request::Count { channel: "chat".into(), subscribers: 0 });
    a.send(unsubscribe("chat"));
    let stays = [
        format!("taut.log.cell.{own}.entered"),
        format!("taut.log.cell.{own}.told"),
        format!("taut.log.lease.{own}"),
        "taut.log.tidied".to_owned(),
    ];
    cluster.wait_until(|| cluster.subjects("taut-log").iter().all(|subject| stays.contains(subject)));
}

#[test]
fn the_last_event_outlives_a_server_that_keeps_files() {
    let Some(mut cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    subscribed(&node, "cache-a");
    node.send(keep("cache-a", "one"));
    assert_eq!(event(&node), ("one".to_owned(), Some(1)));
    let last = || {
        node.send(Request::LastEvent { channel: "cache-a".into(), is_missed: false });
        node.until(|seen| match seen {
            Seen::Update(Update::LastEvent { publication, position, .. }) => {
                Some((publication.as_ref().map(|it| it.data().into_owned()), *position))
            }
            _ => None,
        })
    };
    let before = last();
    cluster.stop();
    cluster.start_with_memory();
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_eq!(last(), before);
    cluster.restart();
    standing(&node, Standing::Away);
    standing(&node, Standing::Joined);
    assert_eq!(last().0, None);
}

#[test]
fn an_event_that_the_server_does_not_take_fails_and_nothing_else() {
    let Some(cluster) = cluster(LONG) else { return };
    let node = cluster.join("a");
    let (done, waited) = tokio::sync::oneshot::channel::<()>();
    let receipt = Receipt::new(Arc::new(done));
    let publication = publication("chat", &"x".repeat(1 << 20));
    node.send(Request::Publish { publication, kept: false, receipt: Some(receipt.clone()) });
    failed(waited, receipt);
    assert!(joined(&node, "presence-a", "ann"));
    assert_eq!(node.state().losses, 0);
}

#[test]
fn a_server_wants_a_password_or_a_token() {
    for (arguments, login, wrong) in [
        (&["-js", "--user", "me", "--pass", "p@ss"][..], "me:p%40ss@", "me:other@"),
        (&["-js", "--auth", "t0ken"], "t0ken@", ""),
    ] {
        let Some(cluster) = with(LONG, arguments, login) else { return };
        let node = cluster.join("a");
        assert!(joined(&node, "presence-a", "ann"));
        let url = cluster.url().replace(login, wrong);
        let stranger = Node::start(&url, "b", LONG, &Limits::default(), Features::default());
        standing(&stranger, Standing::Away);
        assert_eq!(stranger.state().phase, Phase::Starting);
    }
}

#[test]
fn a_server_without_jetstream_or_with_streams_of_another_format_is_no_engine() {
    let Some(cluster) = with(LONG, &[], "") else { return };
    let node = cluster.node("a");
    standing(&node, Standing::Away);
    assert_eq!(node.state().phase, Phase::Starting);
    let Some(other) = harness::cluster(LONG) else { return };
    let stream = br#"{"name":"taut-log","subjects":["taut.log.>"],"storage":"memory","description":"Taut, format 2"}"#;
    assert!(other.ask("$JS.API.STREAM.CREATE.taut-log", stream)["created"].is_string());
    let node = other.node("a");
    standing(&node, Standing::Away);
    assert_eq!((node.state().phase, other.subjects("taut-log")), (Phase::Starting, Vec::new()));
    assert!(other.ask("$JS.API.STREAM.DELETE.taut-log", b"")["success"].is_boolean());
    standing(&node, Standing::Joined);
}
