//! The sessions of several shards, on a kernel of the test's own: what overtakes what is decided by the test.

mod places;
mod routes;
mod users;

use super::*;
use crate::app::{AppConfig, Callback, Key, Limits, TokenAuth, TokenKeys, UpgradeAuth, Webhook};
use crate::bus::Post;
use crate::connect_auth::testing::with_secret;
use crate::events::Entry;
use crate::hub::command::{self, Publication, Push};
use crate::hub::envelope::Content;
use crate::hub::presence::Roster;
use crate::node::Node;
use crate::pusher::auth::Signature;
use crate::pusher::channel::Channel;
use crate::query::Query;
use crate::refusals::RefusalReason;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use taut_shard::testing::{Client as Peer, Stage};
use taut_shard::{Drain, DrainGroup, Settings};

/// Shards that do nothing unless they are told to, so that a test decides what overtakes what.
fn node(shards: usize) -> (Node, Arc<ShardBus>, Vec<Stage<PusherHandler>>) {
    let (node, bus, stages, _) = node_of(shards, AppConfig::parse("1:key:secret").expect("an app"));
    (node, bus, stages)
}

type Parts = (Node, Arc<ShardBus>, Vec<Stage<PusherHandler>>, tokio::sync::mpsc::Receiver<Entry>);

fn node_of(shards: usize, app: AppConfig) -> Parts {
    node_of_all(shards, [app])
}

fn node_of_all(shards: usize, apps: impl IntoIterator<Item = AppConfig>) -> Parts {
    let (events, entries) = EventBus::new();
    let apps = Arc::new(Apps::new(apps, &Limits::default()).expect("apps of different names"));
    let bus = Arc::new(ShardBus::new(shards));
    let stage = |shard| {
        let sessions = PusherHandler::new(
            ShardIndex::new(shard),
            Arc::clone(&apps),
            Arc::clone(&bus),
            events.clone(),
            "",
            120,
            1 << 20,
            drop,
        );
        Stage::new(sessions, Settings::default())
    };
    let stages: Vec<_> = (0..shards).map(stage).collect();
    bus.connect(stages.iter().map(|stage| stage.shard.mailbox()).collect());
    (Node::new(apps, Arc::clone(&bus), events), bus, stages, entries)
}

const APP: AppIndex = AppIndex::FIRST;

/// The shard that owns a channel.
fn owner(bus: &ShardBus, channel: &str) -> usize {
    bus.owner(APP, Some(channel)).get()
}

fn hub(stage: &mut Stage<PusherHandler>) -> &mut Hub<ConnectionId> {
    let handler = stage.handler();
    handler.open(APP);
    &mut handler.local_apps[APP.get()].as_mut().expect("it was opened").hub
}

fn is_vacant(stage: &mut Stage<PusherHandler>) -> bool {
    hub(stage).is_vacant()
}

/// A channel whose owner is the second of two shards.
fn far_channel(bus: &ShardBus) -> String {
    (0..1000).map(|number| format!("channel-{number}")).find(|name| owner(bus, name) == 1).expect("one of many")
}

fn subscriber(stage: &mut Stage<PusherHandler>) -> Peer {
    let mut peer = Peer::new(&stage.network);
    peer.write(&peer.request("/app/key"));
    stage.settle();
    // The greeting follows the head at once, and is not to be taken for a part of it.
    while !peer.is_open() {
        assert_ne!(peer.remote.waiting(), 0, "the handshake failed");
        peer.read(1);
    }
    assert_eq!(heard(&mut peer), ["pusher:connection_established"]);
    peer
}

fn subscribe(peer: &mut Peer, channel: &str) {
    peer.send(json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string());
}

fn unsubscribe(peer: &mut Peer, channel: &str) {
    peer.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }).to_string());
}

fn publish(node: &Node, channel: &str, event: &str) {
    let app = node.apps().by_id("1").expect("the app");
    let event = command::Event::published(event, &"".into());
    let publication = Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None };
    node.publish(&app, std::iter::once(publication), None).expect("room");
}

/// The names of the events that have come.
fn heard(peer: &mut Peer) -> Vec<String> {
    peer.read(usize::MAX);
    let name = |text: String| {
        let event: Value = serde_json::from_str(&text).expect("JSON");
        event["event"].as_str().expect("a name").to_owned()
    };
    peer.texts().into_iter().map(name).collect()
}

/// Lets the shards talk until they have nothing more to say.
fn settle(stages: &mut [Stage<PusherHandler>]) {
    for _ in 0..4 {
        stages.iter_mut().for_each(Stage::settle);
    }
}

/// Says that something for a channel found no room.
/// Nobody waits until it is done.
fn unwatched() -> crate::cluster::Done {
    tokio::sync::mpsc::channel(1).0
}

fn missed(channel: &str) -> Mail {
    let content = Content::Push(Push::Missed { channel: channel.into() });
    Mail::Hub(Envelope { app: APP, from: ShardIndex::new(0), content })
}

const SUBSCRIBED: &str = "pusher_internal:subscription_succeeded";

#[test]
fn the_first_member_of_a_shard_is_told_only_when_the_channels_owner_knows() {
    let (node, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    let mut peer = subscriber(&mut stages[0]);
    publish(&node, &channel, "early");
    subscribe(&mut peer, &channel);
    stages[0].settle();
    assert_eq!(heard(&mut peer), [""; 0], "the owner does not know yet");
    // It has not even looked, but this comes to it after our interest.
    publish(&node, &channel, "late");
    stages[1].settle();
    stages[0].settle();
    assert_eq!(heard(&mut peer), [SUBSCRIBED, "late"]);
}

#[test]
fn the_second_member_of_a_shard_waits_for_the_same_answer_or_for_none() {
    let (_, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    let [mut first, mut second, mut third] = [(); 3].map(|()| subscriber(&mut stages[0]));
    subscribe(&mut first, &channel);
    subscribe(&mut second, &channel);
    subscribe(&mut second, &channel);
    stages[0].settle();
    assert_eq!([heard(&mut first), heard(&mut second)], [[""; 0]; 2]);
    settle(&mut stages);
    assert_eq!([heard(&mut first), heard(&mut second)], [[SUBSCRIBED]; 2]);
    subscribe(&mut third, &channel);
    stages[0].settle();
    assert_eq!(heard(&mut third), [SUBSCRIBED]);
}

#[test]
fn on_the_owners_shard_the_answer_comes_at_once() {
    let (node, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    let mut peer = subscriber(&mut stages[1]);
    subscribe(&mut peer, &channel);
    stages[1].settle();
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    publish(&node, &channel, "event");
    stages[1].settle();
    assert_eq!(heard(&mut peer), ["event"]);
}

#[test]
fn what_belongs_to_an_earlier_visit_does_not_come_before_the_new_answer() {
    let (node, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    let mut peer = subscriber(&mut stages[0]);
    subscribe(&mut peer, &channel);
    settle(&mut stages);
    publish(&node, &channel, "old");
    stages[1].settle();
    // "old" is in the mailbox of the first shard, which reads its sockets first.
    unsubscribe(&mut peer, &channel);
    subscribe(&mut peer, &channel);
    stages[0].settle();
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    settle(&mut stages);
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    publish(&node, &channel, "new");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["new"]);
}

#[test]
fn who_leaves_and_comes_back_before_the_answer_is_subscribed() {
    let (node, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    let mut peer = subscriber(&mut stages[0]);
    subscribe(&mut peer, &channel);
    unsubscribe(&mut peer, &channel);
    subscribe(&mut peer, &channel);
    settle(&mut stages);
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    publish(&node, &channel, "event");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["event"]);
}

#[test]
fn the_owner_forgets_a_shard_whose_last_member_has_left() {
    let (_, bus, mut stages) = node(2);
    let channel = far_channel(&bus);
    for wait in [true, false] {
        for vanish in [true, false] {
            let mut peer = subscriber(&mut stages[0]);
            subscribe(&mut peer, &channel);
            if wait {
                settle(&mut stages);
                let shards: Vec<_> = hub(&mut stages[1]).owner().shards(&channel).map(ShardIndex::get).collect();
                assert_eq!(shards, [0]);
            }
            if vanish {
                peer.finish();
            } else {
                unsubscribe(&mut peer, &channel);
            }
            settle(&mut stages);
            assert!(stages.iter_mut().all(is_vacant), "{wait} {vanish}");
        }
    }
}

#[test]
fn members_that_missed_an_event_are_sent_back_to_begin_anew() {
    let (_, bus, mut stages) = node(1);
    let [mut concerned, mut other] = [(); 2].map(|()| subscriber(&mut stages[0]));
    subscribe(&mut concerned, "chat");
    subscribe(&mut other, "news");
    stages[0].settle();
    bus.tell(ShardIndex::new(0), missed("chat"));
    stages[0].settle();
    assert_eq!([heard(&mut concerned), heard(&mut other)], [[SUBSCRIBED]; 2]);
    assert_eq!(concerned.closed().map(Close::code), Some(Reason::OVER_CAPACITY.code()));
    assert_eq!(other.closed(), None);
}

#[test]
fn channels_that_wait_for_their_owners_are_bounded() {
    let (_, bus, mut stages) = node(2);
    hub(&mut stages[0]).members.set_waiters(subscribe::MOST_WAITING);
    let mut peer = subscriber(&mut stages[0]);
    subscribe(&mut peer, &far_channel(&bus));
    stages[0].settle();
    assert_eq!(heard(&mut peer), ["pusher:subscription_error"]);
}

#[test]
fn what_a_connection_carries_is_small() {
    assert!(size_of::<Client>() <= 64, "{}", size_of::<Client>());
}

#[test]
fn what_the_operator_closes_is_told_why_and_has_left_at_once() {
    let (_, bus, mut stages) = node(2);
    let [(mut meant, socket_id), (mut other, _)] = [1, 1].map(|shard| greeted(&mut stages[shard]));
    for peer in [&mut meant, &mut other] {
        subscribe(peer, "chat");
    }
    settle(&mut stages);
    let mut ask = |app, text: &str| {
        let socket_id = SocketId::parse(text).expect("an id");
        let found: Vec<_> = [0, 1]
            .map(|shard| {
                let (answer, receiver) = tokio::sync::oneshot::channel();
                bus.tell(ShardIndex::new(shard), Mail::Query(Query::Disconnect { app, socket_id, answer }));
                receiver
            })
            .into();
        settle(&mut stages);
        found.into_iter().map(|mut found| found.try_recv().expect("an answer")).collect::<Vec<bool>>()
    };
    assert_eq!(ask(AppIndex::new(1), &socket_id), [false, false], "it is of another app");
    assert_eq!(ask(APP, "1.1"), [false, false]);
    assert_eq!(ask(APP, &socket_id), [false, true]);
    assert_eq!(ask(APP, &socket_id), [false, true], "it has not answered the close, and is not told again");
    assert_eq!(heard(&mut meant), [SUBSCRIBED, "pusher:error"]);
    assert_eq!(meant.closed().map(Close::code), Some(Reason::UNAUTHORIZED.code()));
    assert_eq!(heard(&mut other), [SUBSCRIBED]);
    assert_eq!(other.closed(), None);
    assert_eq!(hub(&mut stages[1]).members.subscribed().members("chat").len(), 1);
}

#[test]
fn connections_are_found_by_what_their_clients_said_of_themselves() {
    let (_, bus, mut stages) = node(1);
    let mut connect = |query: &str| {
        let mut peer = Peer::new(&stages[0].network);
        peer.write(&peer.request(&format!("/app/key?{query}")));
        stages[0].settle();
        peer
    };
    let _peers = [connect("client=js&version=8.6.0"), connect("protocol=7")];
    let mut listed = |filter: &str| {
        let (answer, mut connections) = tokio::sync::oneshot::channel();
        let query = Query::Connections { app: APP, filter: filter.into(), most: 10, answer };
        bus.tell(ShardIndex::new(0), Mail::Query(query));
        stages[0].settle();
        connections.try_recv().expect("an answer")
    };
    let all = listed("");
    let mut sdks: Vec<_> = all.iter().map(|connection| connection.sdk.as_ref().map(|sdk| &*sdk.name)).collect();
    sdks.sort_unstable();
    assert_eq!(sdks, [None, Some("js")]);
    assert!(all.iter().all(|connection| !connection.address.is_unspecified()));
    assert_eq!(listed("8.6").len(), 1);
    assert_eq!(listed(&all[0].socket_id.to_string()).len(), 1);
    assert_eq!(listed("nobody").len(), 0);
}

// Channels that need a signature, and what an owner decides.

fn sign(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    format!("key:{}", Signature::of_subscription("secret", socket_id, channel, channel_data))
}

/// A member with its socket id.
fn greeted(stage: &mut Stage<PusherHandler>) -> (Peer, String) {
    let mut peer = Peer::new(&stage.network);
    peer.write(&peer.request("/app/key"));
    stage.settle();
    while !peer.is_open() {
        assert_ne!(peer.remote.waiting(), 0, "the handshake failed");
        peer.read(1);
    }
    let greeting = messages(&mut peer).remove(0);
    let data = inner(&greeting);
    (peer, data["socket_id"].as_str().expect("a socket id").to_owned())
}

/// The messages that have come.
fn messages(peer: &mut Peer) -> Vec<Value> {
    peer.read(usize::MAX);
    peer.texts().into_iter().map(|text| serde_json::from_str(&text).expect("JSON")).collect()
}

/// What is in a message's data, which is a string that holds JSON.
fn inner(message: &Value) -> Value {
    serde_json::from_str(message["data"].as_str().expect("a string")).expect("JSON in it")
}

fn visit(peer: &mut Peer, socket_id: &str, channel: &str, user: u8) {
    let channel_data = json!({ "user_id": user, "user_info": { "number": user } }).to_string();
    let auth = sign(socket_id, channel, Some(&channel_data));
    let data = json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
    peer.send(json!({ "event": "pusher:subscribe", "data": data }).to_string());
}

/// Fills a shard's mailbox to the last byte: until it is read, the shard's questions are answered with `Busy`, and it misses events.
fn fill_mailbox(bus: &ShardBus, shard: usize) {
    // One mail of any size finds room where nothing waits.
    let content = Content::Push(Push::Status { user_id: "nobody".into(), is_online: true });
    let _ = bus.offer(ShardIndex::new(shard), Envelope { app: APP, from: ShardIndex::new(shard), content }, 16 << 20);
}

/// An app whose presence channels have room for so many users.
fn app_for(presence_members: usize) -> AppConfig {
    let limits = Limits { presence_members, ..Limits::default() };
    AppConfig { limits: Some(limits), ..AppConfig::parse("1:key:secret").expect("an app") }
}

/// A presence channel whose owner is the second of two shards.
fn far_presence(bus: &ShardBus) -> String {
    let mut names = (0..1000).map(|number| format!("presence-{number}"));
    names.find(|name| owner(bus, name) == 1).expect("one of many")
}

fn users_at(stage: &mut Stage<PusherHandler>, channel: &str) -> BTreeSet<String> {
    let roster = hub(stage).owner().roster(channel);
    roster.into_iter().flat_map(Roster::users).map(ToString::to_string).collect()
}

#[test]
fn who_was_not_let_in_takes_nobody_off_the_list_by_leaving() {
    let (_, bus, mut stages, _entries) = node_of(2, app_for(1));
    let channel = far_presence(&bus);
    let [(mut first, first_id), (mut refused, refused_id), (mut second, second_id)] =
        [1, 0, 1].map(|shard| greeted(&mut stages[shard]));
    visit(&mut first, &first_id, &channel, 1);
    stages[1].settle();
    visit(&mut refused, &refused_id, &channel, 2);
    stages[0].settle();
    stages[1].settle();
    // The channel was full, and the refusal is on its way. Now it has room for the same user's other connection.
    unsubscribe(&mut first, &channel);
    stages[1].settle();
    visit(&mut second, &second_id, &channel, 2);
    stages[1].settle();
    assert_eq!(heard(&mut second), [SUBSCRIBED]);
    unsubscribe(&mut refused, &channel);
    settle(&mut stages);
    assert_eq!(heard(&mut second), [""; 0], "it is still there");
    assert_eq!(users_at(&mut stages[1], &channel), ["2".to_owned()].into());
    assert_eq!(heard(&mut refused), [""; 0], "it did not want to know any more");
}

#[test]
fn who_was_turned_away_by_a_busy_server_takes_nobody_off_the_list_by_leaving() {
    let (_, bus, mut stages, _entries) = node_of(2, app_for(9));
    let channel = far_presence(&bus);
    let [(mut subscriber, member_id), (mut refused, refused_id)] = [1, 0].map(|shard| greeted(&mut stages[shard]));
    visit(&mut subscriber, &member_id, &channel, 1);
    stages[1].settle();
    assert_eq!(heard(&mut subscriber), [SUBSCRIBED]);
    visit(&mut refused, &refused_id, &channel, 1);
    stages[0].settle();
    fill_mailbox(&bus, 0);
    stages[1].settle();
    unsubscribe(&mut refused, &channel);
    settle(&mut stages);
    assert_eq!(heard(&mut subscriber), [""; 0], "it is still there");
    assert_eq!(users_at(&mut stages[1], &channel), ["1".to_owned()].into());
}

/// A member of a presence channel, and what it knows of who is there.
struct PresenceMember {
    peer: Peer,
    socket_id: String,
    /// The user that it always is.
    user: u8,
    /// It has subscribed, and has not left nor been refused.
    wants: bool,
    /// `None` until the channel has let it in.
    users: Option<BTreeSet<String>>,
}

impl PresenceMember {
    fn new(number: usize, stage: &mut Stage<PusherHandler>) -> Self {
        let (peer, socket_id) = greeted(stage);
        Self { peer, socket_id, user: (number % USERS) as u8, wants: false, users: None }
    }

    fn hear_all(&mut self) {
        for message in messages(&mut self.peer) {
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        match message["event"].as_str().expect("a name") {
            "pusher_internal:subscription_succeeded" => {
                let presence = &inner(message)["presence"];
                let ids = presence["ids"].as_array().expect("ids");
                let users: BTreeSet<String> = ids.iter().map(|id| id.as_str().expect("a text").to_owned()).collect();
                assert_eq!((ids.len(), presence["count"].as_u64()), (users.len(), Some(users.len() as u64)));
                let hash = presence["hash"].as_object().expect("an object");
                assert!(hash.keys().eq(users.iter()), "{presence}");
                assert!(users.contains(&self.user.to_string()), "let in, but not there: {presence}");
                self.users = Some(users);
            }
            "pusher_internal:member_added" => {
                let user = inner(message)["user_id"].as_str().expect("a text").to_owned();
                assert!(self.users.as_mut().expect("let in before").insert(user), "added twice: {message}");
            }
            "pusher_internal:member_removed" => {
                let user = inner(message)["user_id"].as_str().expect("a text").to_owned();
                assert_ne!(user, self.user.to_string(), "removed while it is there");
                assert!(self.users.as_mut().expect("let in before").remove(&user), "was not there: {message}");
            }
            "pusher:subscription_error" => {
                (self.wants, self.users) = (false, None);
            }
            "pusher:cache_miss" => {}
            other => panic!("{other}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A connection subscribes, as the user that it always is.
    Come(usize),
    Leave(usize),
    /// A connection ends, and another one takes its place.
    Vanish(usize),
    /// A shard does what there is to do for it.
    Settle(usize),
    /// A shard's mailbox takes nothing more until it is read.
    Fill(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        16 => (0..CROWD).prop_map(Step::Come),
        12 => (0..CROWD).prop_map(Step::Leave),
        4 => (0..CROWD).prop_map(Step::Vanish),
        24 => (0..SHARDS).prop_map(Step::Settle),
        1 => (0..SHARDS).prop_map(Step::Fill),
    ];
    proptest::collection::vec(step, 0..120)
}

const SHARDS: usize = 3;
const CROWD: usize = 9;
const USERS: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Channels have a limit that is met or not, shards are too busy at times, and clients leave before they are answered.
    #[test]
    fn whatever_overtakes_what_every_member_sees_each_user_come_and_go_once(
        limit in 1..=USERS,
        channel in prop_oneof![Just("presence-room"), Just("presence-cache-room")],
        steps in steps(),
    ) {
        let (_, bus, mut stages, mut entries) = node_of(SHARDS, app_for(limit));
        let owner = owner(&bus, channel);
        let mut crowd: Vec<PresenceMember> =
            (0..CROWD).map(|number| PresenceMember::new(number, &mut stages[number % SHARDS])).collect();
        for step in steps {
            match step {
                Step::Come(number) => {
                    let PresenceMember { peer, socket_id, user, wants, .. } = &mut crowd[number];
                    // To subscribe again is tested on its own: here it would hide what came twice.
                    if !std::mem::replace(wants, true) {
                        visit(peer, socket_id, channel, *user);
                    }
                }
                Step::Leave(number) => {
                    crowd[number].wants = false;
                    unsubscribe(&mut crowd[number].peer, channel);
                }
                Step::Vanish(number) => {
                    crowd[number].peer.finish();
                    crowd[number] = PresenceMember::new(number, &mut stages[number % SHARDS]);
                }
                Step::Settle(shard) => stages[shard].settle(),
                Step::Fill(shard) => fill_mailbox(&bus, shard),
            }
            for (number, member) in crowd.iter_mut().enumerate() {
                member.hear_all();
                // It has missed an event, which is no fault where a mailbox was full.
                if member.peer.closed().is_some() {
                    member.peer.finish();
                    *member = PresenceMember::new(number, &mut stages[number % SHARDS]);
                }
            }
            prop_assert!(users_at(&mut stages[owner], channel).len() <= limit);
        }
        settle(&mut stages);
        crowd.iter_mut().for_each(PresenceMember::hear_all);
        crowd.retain(|member| member.peer.closed().is_none());
        settle(&mut stages);
        crowd.iter_mut().for_each(PresenceMember::hear_all);
        let there: BTreeSet<String> =
            crowd.iter().filter(|member| member.wants).map(|member| member.user.to_string()).collect();
        prop_assert_eq!(users_at(&mut stages[owner], channel), there.clone());
        for member in crowd.iter().filter(|member| member.wants) {
            prop_assert_eq!(member.users.as_ref(), Some(&there));
        }
        for member in &mut crowd {
            member.peer.finish();
        }
        settle(&mut stages);
        for stage in &mut stages {
            prop_assert!(is_vacant(stage));
        }
        entries.close();
    }
}

/// Lets the shards and their clients talk until the clients have nothing more to hear, which answer a close and end.
fn settle_with(stages: &mut [Stage<PusherHandler>], peers: &mut [(Peer, String)]) {
    for _ in 0..4 {
        settle(stages);
        for (peer, _) in &mut *peers {
            peer.read(usize::MAX);
            if peer.closed().is_some() {
                peer.finish();
            }
        }
    }
}

fn drain_of(over: Duration) -> Drain {
    Drain { close: Close::new(Reason::GOING_DOWN.code(), "come back"), over, deadline: Duration::from_secs(100) }
}

/// What the webhooks are told, without the channels and members that have both come and gone.
fn unbalanced(entries: &mut tokio::sync::mpsc::Receiver<Entry>) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    while let Ok(entry) = entries.try_recv() {
        match entry.event {
            Event::ChannelOccupied { channel } => assert!(there.insert(channel.to_string()), "occupied twice"),
            Event::ChannelVacated { channel } => assert!(there.remove(&*channel), "was not occupied"),
            Event::MemberAdded { channel, user_id } => assert!(there.insert(format!("{channel} {user_id}"))),
            Event::MemberRemoved { channel, user_id } => assert!(there.remove(&format!("{channel} {user_id}"))),
            other => panic!("{other:?}"),
        }
    }
    there
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn in_whatever_order_shards_come_to_their_ends_a_drain_tells_of_every_channel_and_member(
        order in proptest::collection::vec((0..SHARDS, 0..CROWD), 0..60),
    ) {
        let app = AppConfig { webhooks: vec![Webhook::new("http://127.0.0.1:1/")], ..app_for(100) };
        let (_, _, mut stages, mut entries) = node_of(SHARDS, app);
        let mut peers: Vec<_> = (0..CROWD).map(|number| greeted(&mut stages[number % SHARDS])).collect();
        for (number, (peer, socket_id)) in peers.iter_mut().enumerate() {
            subscribe(peer, &format!("chat-{}", number % 4));
            visit(peer, socket_id, "presence-room", (number % USERS) as u8);
        }
        settle_with(&mut stages, &mut peers);
        let mut group = DrainGroup::new(stages.iter().map(|stage| stage.shard.drainer()));
        group.close(&drain_of(Duration::ZERO));
        for (shard, number) in order {
            stages[shard].tick();
            let (peer, _) = &mut peers[number];
            peer.read(usize::MAX);
            if peer.closed().is_some() {
                peer.finish();
            }
        }
        settle_with(&mut stages, &mut peers);
        prop_assert!(group.is_closed());
        let mut rounds = 0..100;
        while !group.try_settle() {
            prop_assert!(rounds.next().is_some(), "the shards do not come to rest");
            stages.iter_mut().rev().for_each(Stage::settle);
        }
        prop_assert_eq!(unbalanced(&mut entries), BTreeSet::new());
        group.end();
        settle(&mut stages);
        prop_assert!(stages.iter().all(|stage| stage.is_drained));
    }

    /// What clients send and what backends publish while the closes are spread is taken, and everybody who is not closed yet hears it.
    #[test]
    fn an_event_during_a_drain_reaches_all_who_are_still_connected(
        steps in proptest::collection::vec((0..SHARDS, 0..CROWD, 0..30_u64, any::<bool>()), 0..60),
    ) {
        // The rate of client events is another matter.
        let limits = Limits { client_events: 1_000_000, ..Limits::default() };
        let app = AppConfig { limits: Some(limits), ..app_for(100) };
        let (node, _, mut stages, _entries) = node_of(SHARDS, app);
        // Nobody is on the last shard: it owns channels all the same.
        let mut peers: Vec<_> = (0..CROWD).map(|number| greeted(&mut stages[number % (SHARDS - 1)])).collect();
        let channels = ["private-a", "private-b", "private-c", "private-d"];
        for (peer, socket_id) in &mut peers {
            for channel in channels {
                let data = json!({ "channel": channel, "auth": sign(socket_id, channel, None) });
                peer.send(json!({ "event": "pusher:subscribe", "data": data }).to_string());
            }
        }
        settle(&mut stages);
        for (peer, _) in &mut peers {
            prop_assert_eq!(heard(peer).len(), channels.len());
        }
        let group = DrainGroup::new(stages.iter().map(|stage| stage.shard.drainer()));
        group.close(&drain_of(Duration::from_secs(1)));
        settle(&mut stages);
        for (number, (shard, sender, milliseconds, by_backend)) in steps.into_iter().enumerate() {
            stages[shard].advance(Duration::from_millis(milliseconds));
            // Who is closed hears nothing after that.
            for (peer, _) in &mut peers {
                peer.read(usize::MAX);
            }
            let is_closed: Vec<bool> = peers.iter().map(|(peer, _)| peer.closed().is_some()).collect();
            let channel = channels[number % channels.len()];
            let event = format!("client-{number}");
            if by_backend {
                publish(&node, channel, &event);
            } else if is_closed[sender] {
                continue;
            } else {
                peers[sender].0.send(json!({ "event": event, "channel": channel, "data": "" }).to_string());
            }
            settle(&mut stages);
            for (other, (peer, _)) in peers.iter_mut().enumerate() {
                let heard = heard(peer);
                // Time has not gone on: nobody else was closed meanwhile.
                let wanted = !is_closed[other] && (by_backend || other != sender);
                prop_assert_eq!(heard, if wanted { vec![event.clone()] } else { Vec::new() });
            }
        }
    }
}

#[test]
fn a_client_that_does_not_wait_for_answers_gets_no_more_subscriptions_than_others() {
    let limits = Limits { subscriptions: 3, ..Limits::default() };
    let app = AppConfig { limits: Some(limits), ..AppConfig::parse("1:key:secret").expect("an app") };
    let (_, bus, mut stages, _entries) = node_of(2, app);
    let far: Vec<String> =
        (0..1000).map(|number| format!("channel-{number}")).filter(|name| owner(&bus, name) == 1).take(8).collect();
    let mut peer = subscriber(&mut stages[0]);
    for name in &far {
        subscribe(&mut peer, name);
        // Twice the same is one.
        subscribe(&mut peer, name);
    }
    settle(&mut stages);
    let heard_now = heard(&mut peer);
    assert_eq!(heard_now.iter().filter(|name| *name == SUBSCRIBED).count(), 3, "{heard_now:?}");
    // Leaving before the answer makes no room for others before it has come.
    for name in &far[..3] {
        unsubscribe(&mut peer, name);
    }
    for name in &far {
        subscribe(&mut peer, name);
        unsubscribe(&mut peer, name);
    }
    stages[0].settle();
    let members = &hub(&mut stages[0]).members;
    assert_eq!((members.waiters(), members.subscribed().channels().len()), (3, 0));
    settle(&mut stages);
    assert!(stages.iter_mut().all(is_vacant));
}

#[test]
fn a_tick_calls_only_apps_that_have_something_to_do() {
    let apps = (1..=10_000).map(|number| AppConfig::new(number.to_string(), format!("key-{number}"), "secret"));
    let (node, bus, mut stages, _) = node_of_all(1, apps);
    let due = |stages: &mut [Stage<PusherHandler>]| stages[0].handler().due.clone();
    let tick = |stages: &mut [Stage<PusherHandler>]| {
        bus.tell_all(|| Mail::Tick);
        stages[0].settle();
    };
    for app in node.apps().all() {
        stages[0].handler().open(app.index());
    }
    publish(&node, "news", "nobody keeps this");
    tick(&mut stages);
    assert_eq!(due(&mut stages), []);
    publish(&node, "cache-news", "kept for half an hour");
    publish(&node, "cache-more", "kept as well");
    stages[0].settle();
    assert_eq!(due(&mut stages), [APP]);
    tick(&mut stages);
    assert_eq!(due(&mut stages), [APP], "there is still something to forget");
    stages[0].network.advance(Limits::default().cache_ttl);
    tick(&mut stages);
    assert_eq!(due(&mut stages), []);
    assert!(is_vacant(&mut stages[0]));
}

#[test]
fn what_is_counted_agrees_with_what_is_listed() {
    let (_, _, mut stages) = node(2);
    let mut peers: Vec<Peer> = (0..3).map(|number| subscriber(&mut stages[number % 2])).collect();
    for (peer, channels) in peers.iter_mut().zip([&["a", "b", "c"][..], &["a", "c"], &["c"]]) {
        for channel in channels {
            subscribe(peer, channel);
        }
    }
    let counted = |stages: &mut Vec<Stage<PusherHandler>>| {
        settle(stages);
        let count = |stage: &mut Stage<PusherHandler>| {
            let (answer, mut counted) = tokio::sync::oneshot::channel();
            stage.shard.mailbox().push_always(Mail::Query(Query::Statistics { answer })).expect("it runs");
            stage.settle();
            let traffic = counted.try_recv().expect("an answer").apps[APP.get()];
            let listed: usize = hub(stage).members.subscribed().channels().map(|(_, count)| count).sum();
            assert_eq!(traffic.subscriptions, listed as u64);
            (traffic.subscriptions, traffic.channels)
        };
        stages.iter_mut().map(count).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    };
    assert_eq!(counted(&mut stages), (6, 3));
    unsubscribe(&mut peers[0], "b");
    unsubscribe(&mut peers[0], "c");
    unsubscribe(&mut peers[0], "never there");
    assert_eq!(counted(&mut stages), (4, 2));
    peers[1].remote.reset(true);
    peers[2].remote.finish();
    assert_eq!(counted(&mut stages), (1, 1));
}

/// Signs in as this user.
fn sign_in(peer: &mut Peer, socket_id: &str, user_data: &str) {
    let auth = format!("key:{}", Signature::of_user("secret", socket_id, user_data));
    peer.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }).to_string());
}

#[test]
fn each_key_of_an_app_lets_clients_in_by_its_own_secret_and_by_no_other() {
    let mut app = AppConfig::parse("1:key:secret").expect("an app");
    app.keys.push(Key { key: "new".to_owned(), secret: "another".into() });
    let (_, _, mut stages, _) = node_of(1, app);
    let user_data = r#"{"id":"7"}"#;
    for (key, secret, is_good) in [
        ("key", "secret", true),
        ("new", "another", true),
        ("key", "another", false),
        ("new", "secret", false),
        ("x", "secret", false),
    ] {
        let (mut peer, socket_id) = greeted(&mut stages[0]);
        let auth = format!("{key}:{}", Signature::of_subscription(secret, &socket_id, "private-a", None));
        peer.send(json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } }).to_string());
        let auth = format!("{key}:{}", Signature::of_user(secret, &socket_id, user_data));
        peer.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }).to_string());
        stages[0].settle();
        let expected = if is_good {
            ["pusher_internal:subscription_succeeded", "pusher:signin_success"]
        } else {
            ["pusher:subscription_error", "pusher:error"]
        };
        assert_eq!(heard(&mut peer), expected, "{key} {secret}");
    }
}

#[test]
fn a_terminated_connection_is_nowhere_although_it_does_not_answer_the_close() {
    let (_, bus, mut stages, _entries) = node_of(2, app_for(9));
    let channel = far_presence(&bus);
    let mut others = (0..1000).map(|number| format!("presence-other-{number}"));
    let other_channel = others.find(|name| owner(&bus, name) == 1).expect("one of many");
    let [(mut deaf, deaf_id), (mut other, other_id)] = [0, 1].map(|shard| greeted(&mut stages[shard]));
    sign_in(&mut deaf, &deaf_id, r#"{"id":"7"}"#);
    for (peer, socket_id, user) in [(&mut deaf, &deaf_id, 7), (&mut other, &other_id, 8)] {
        visit(peer, socket_id, &channel, user);
    }
    settle(&mut stages);
    heard(&mut deaf);
    heard(&mut other);
    // Something is under way in both directions.
    let said = json!({ "event": "client-last", "channel": channel, "data": "" }).to_string();
    deaf.send(said.clone());
    visit(&mut deaf, &deaf_id, &other_channel, 7);
    stages[0].settle();
    let (done, mut all_done) = tokio::sync::mpsc::channel(1);
    bus.tell(ShardIndex::new(0), Mail::Terminate { app: APP, user_id: "7".into(), age: Duration::ZERO, done });
    stages[0].settle();
    deaf.send(said);
    stages[0].settle();
    let is_done = |all_done: &mut tokio::sync::mpsc::Receiver<()>| {
        all_done.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)
    };
    assert!(!is_done(&mut all_done), "the owner may let it in yet");
    stages[1].settle();
    stages[0].settle();
    assert!(is_done(&mut all_done));
    stages[1].settle();
    assert_eq!(heard(&mut other), ["client-last", "pusher_internal:member_removed"]);
    assert_eq!(users_at(&mut stages[1], &channel), ["8".to_owned()].into());
    assert_eq!(users_at(&mut stages[1], &other_channel), BTreeSet::new());
    assert_eq!(stages[0].census().open, 1, "it has not answered yet");
    assert!(hub(&mut stages[0]).members.is_vacant());
}

#[test]
fn who_missed_an_event_is_in_no_channel_any_more_although_it_does_not_answer_the_close() {
    let (_, bus, mut stages, _entries) = node_of(1, app_for(9));
    let (mut deaf, deaf_id) = greeted(&mut stages[0]);
    visit(&mut deaf, &deaf_id, "presence-room", 7);
    stages[0].settle();
    bus.tell(ShardIndex::new(0), missed("presence-room"));
    stages[0].settle();
    assert_eq!(users_at(&mut stages[0], "presence-room"), BTreeSet::new());
}

#[test]
fn what_is_sent_to_a_user_reaches_it_from_its_sign_in_on_and_once() {
    let (node, bus, mut stages) = node(2);
    let mut users = (0..1000).map(|number| number.to_string());
    let user = users.find(|user| owner(&bus, &Channel::of_user(user)) == 1).expect("one of many");
    let channel = Channel::of_user(&user);
    let (mut peer, socket_id) = greeted(&mut stages[0]);
    let user_data = json!({ "id": user }).to_string();
    sign_in(&mut peer, &socket_id, &user_data);
    // To sign in again before the answer changes nothing.
    sign_in(&mut peer, &socket_id, &user_data);
    stages[0].settle();
    assert_eq!(heard(&mut peer), [""; 0], "what was sent to it now would not reach it yet");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["pusher:signin_success"]);
    publish(&node, &channel, "before");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["before"]);
    // As pusher-js does, once it has heard that it is signed in.
    subscribe(&mut peer, &channel);
    settle(&mut stages);
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    publish(&node, &channel, "after");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["after"]);
    // Another one of the user's, on the same shard; and one that does not wait for the answer.
    let (mut second, second_id) = greeted(&mut stages[0]);
    sign_in(&mut second, &second_id, &user_data);
    stages[0].settle();
    assert_eq!(heard(&mut second), ["pusher:signin_success"]);
    let (mut hasty, hasty_id) = greeted(&mut stages[1]);
    sign_in(&mut hasty, &hasty_id, &user_data);
    subscribe(&mut hasty, &channel);
    settle(&mut stages);
    assert_eq!(heard(&mut hasty), ["pusher:signin_success", SUBSCRIBED]);
    publish(&node, &channel, "all");
    settle(&mut stages);
    for peer in [&mut peer, &mut second, &mut hasty] {
        assert_eq!(heard(peer), ["all"]);
        peer.finish();
    }
    settle(&mut stages);
    assert!(stages.iter_mut().all(is_vacant));
}

#[test]
fn who_subscribes_to_the_users_channel_before_the_sign_in_is_answered_is_told_of_both() {
    let (_, bus, mut stages) = node(2);
    let mut users = (0..1000).map(|number| number.to_string());
    let user = users.find(|user| owner(&bus, &Channel::of_user(user)) == 1).expect("one of many");
    let (mut peer, socket_id) = greeted(&mut stages[0]);
    sign_in(&mut peer, &socket_id, &json!({ "id": user }).to_string());
    subscribe(&mut peer, &Channel::of_user(&user));
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["pusher:signin_success", SUBSCRIBED]);
}

#[test]
fn the_users_own_channel_takes_no_place_of_others() {
    let limits = Limits { subscriptions: 1, channels: 1, ..Limits::default() };
    let app = AppConfig { limits: Some(limits), ..AppConfig::parse("1:key:secret").expect("an app") };
    let (_, _, mut stages, _entries) = node_of(2, app);
    let (mut peer, socket_id) = greeted(&mut stages[0]);
    sign_in(&mut peer, &socket_id, r#"{"id":"7"}"#);
    settle(&mut stages);
    subscribe(&mut peer, "chat");
    settle(&mut stages);
    subscribe(&mut peer, &Channel::of_user("7"));
    subscribe(&mut peer, "chat-too");
    settle(&mut stages);
    assert_eq!(heard(&mut peer), ["pusher:signin_success", SUBSCRIBED, SUBSCRIBED, "pusher:subscription_error"]);
}

#[test]
fn an_app_has_no_more_channels_than_it_may_on_all_shards_together() {
    let limits = Limits { channels: 2, ..Limits::default() };
    let app = AppConfig { limits: Some(limits), ..AppConfig::parse("1:key:secret").expect("an app") };
    let (node, bus, mut stages, _entries) = node_of(2, app);
    let bus = &*bus;
    let of = |shard| (0..1000).map(|number| format!("channel-{number}")).filter(move |name| owner(bus, name) == shard);
    let (near, far): (Vec<_>, Vec<_>) = (of(0).take(3).collect(), of(1).take(3).collect());
    let [mut peer, mut other] = [(); 2].map(|()| subscriber(&mut stages[0]));
    for name in [&near[0], &far[0]] {
        subscribe(&mut peer, name);
    }
    settle(&mut stages);
    assert_eq!(heard(&mut peer), [SUBSCRIBED; 2]);
    for name in [&near[1], &far[1]] {
        subscribe(&mut peer, name);
    }
    settle(&mut stages);
    for refusal in messages(&mut peer) {
        assert_eq!((&refusal["event"], &refusal["data"]["status"]), (&json!("pusher:subscription_error"), &json!(409)));
        let error = refusal["data"]["error"].as_str().expect("a text");
        assert!(error.contains("as many channels as it may, 2,") && error.contains("max-channels"), "{error}");
    }
    let app = stages[0].handler().apps.by_index(APP).expect("the app");
    assert_eq!(app.refusals().counts().collect::<Vec<_>>(), [(RefusalReason::SubscriptionLimit, 2)]);
    // Those that there are can be joined, and a channel that was left makes room for another.
    for name in [&near[0], &far[0]] {
        subscribe(&mut other, name);
        unsubscribe(&mut peer, name);
    }
    settle(&mut stages);
    assert_eq!(heard(&mut other), [SUBSCRIBED; 2]);
    unsubscribe(&mut other, &near[0]);
    settle(&mut stages);
    subscribe(&mut peer, &far[2]);
    settle(&mut stages);
    assert_eq!(heard(&mut peer), [SUBSCRIBED]);
    drop(node);
}

/// An app whose clients show tokens that are signed with this.
fn guarded_app(upgrade: UpgradeAuth) -> AppConfig {
    AppConfig { upgrade: Some(upgrade), ..AppConfig::parse("1:key:secret").expect("an app") }
}

const TOKEN_SECRET: &str = "a secret of thirty-two characters";

#[test]
fn who_came_in_by_a_token_is_its_user_to_the_end() {
    let upgrade = UpgradeAuth::Token(TokenAuth::new(TokenKeys::Secret(TOKEN_SECRET.into())));
    let (node, bus, mut stages, _) = node_of(1, guarded_app(upgrade));
    let claims = json!({ "sub": "ada", "exp": 4_000_000_000_u64 });
    let token = with_secret(TOKEN_SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims);
    let come = |stages: &mut Vec<Stage<PusherHandler>>| {
        let mut peer = Peer::new(&stages[0].network);
        peer.write(&peer.request(&format!("/app/key?token={token}")));
        stages[0].settle();
        while !peer.is_open() {
            assert_ne!(peer.remote.waiting(), 0, "the handshake failed");
            peer.read(1);
        }
        assert_eq!(heard(&mut peer), ["pusher:connection_established"]);
        peer
    };
    let (mut first, mut second) = (come(&mut stages), come(&mut stages));
    let app = node.apps().by_id("1").expect("the app");
    assert_eq!(app.connections(), 2);
    let done = unwatched();
    bus.tell_all(|| Mail::Terminate { app: APP, user_id: "eve".into(), age: Duration::ZERO, done: done.clone() });
    stages[0].settle();
    assert_eq!([heard(&mut first), heard(&mut second)], [[""; 0]; 2], "that was somebody else");
    bus.tell_all(|| Mail::Terminate { app: APP, user_id: "ada".into(), age: Duration::ZERO, done: done.clone() });
    stages[0].settle();
    assert_eq!([heard(&mut first), heard(&mut second)], [["pusher:error"]; 2]);
    stages[0].settle();
    let signed_in = hub(&mut stages[0]).members.signed_in("ada").len();
    assert_eq!((signed_in, app.connections()), (0, 0));
}

#[test]
fn an_answer_about_a_client_that_has_gone_is_for_nobody() {
    let upgrade = UpgradeAuth::Callback(Callback::new("http://127.0.0.1:1/"));
    let (connect_auth, mut tasks) = ConnectAuth::new(&[]);
    let (events, _entries) = EventBus::new();
    let apps = Arc::new(Apps::new([guarded_app(upgrade)], &Limits::default()).expect("one app"));
    let bus = Arc::new(ShardBus::new(1));
    let sessions =
        PusherHandler::new(ShardIndex::new(0), Arc::clone(&apps), Arc::clone(&bus), events, "", 120, 1 << 20, drop);
    let mut stage = Stage::new(sessions.with_connect_auth(Arc::new(connect_auth)), Settings::default());
    bus.connect(vec![stage.shard.mailbox()]);
    let mut come = |stage: &mut Stage<PusherHandler>| {
        let mut peer = Peer::new(&stage.network);
        peer.write(&peer.request("/app/key?client=js&version=8.6.0"));
        stage.settle();
        (peer, tasks.next_requester().expect("a question"))
    };
    let ((gone, of_gone), (mut other, of_other)) = (come(&mut stage), come(&mut stage));
    let app = Arc::clone(&apps.all()[0]);
    assert_eq!(app.connections(), 0, "nobody has come in yet");
    gone.remote.reset(true);
    stage.settle();
    for asker in [of_gone, of_other] {
        let identity = crate::identity::Identity { user_id: "ada".into(), user_info: None };
        bus.tell(ShardIndex::new(0), Mail::Authorized { asker, app: APP, outcome: Box::new(Ok(identity)) });
    }
    stage.settle();
    assert!(app.connections() == 1 && !gone.is_open());
    let signed_in = hub(&mut stage).members.signed_in("ada").len();
    assert_eq!(signed_in, 1);
    while !other.is_open() {
        assert_ne!(other.remote.waiting(), 0, "the handshake failed");
        other.read(1);
    }
    assert_eq!(heard(&mut other), ["pusher:connection_established"]);
    // What its request said is kept while it waits, and no longer.
    let (answer, mut listed) = tokio::sync::oneshot::channel();
    let query = Query::Connections { app: APP, filter: "".into(), most: 10, answer };
    bus.tell(ShardIndex::new(0), Mail::Query(query));
    stage.settle();
    let listed = listed.try_recv().expect("an answer");
    assert_eq!(listed[0].sdk.as_ref().map(|sdk| &*sdk.name), Some("js"));
    assert!(!listed[0].address.is_unspecified() && stage.handler().deciding.is_empty());
}
