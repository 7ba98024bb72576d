//! Several nodes on one engine: the real hubs, and a model of an engine and its drivers that keeps the promises of
//! [`Broker`](crate::cluster::Broker) and not one more. Nodes lose the engine, die and come back; the engine loses its
//! memory. Each client is held against what it must and must not hear.

use super::users_of;
use crate::app::{AppConfig, Features, Limits};
use crate::apps::{App, Apps};
use crate::bus::{BusEnd, Outlet, Post};
use crate::events::Event;
use crate::hub::Hub;
use crate::hub::command::{Delivery, Event as Published, LastEvent, PresenceMember, Publication, Subscribe};
use crate::hub::effects::Tell;
use crate::hub::engine::{Change, Difference, Epoch, Position, Request, Snapshot, Standing, TooMany, Update};
use crate::hub::envelope::Envelope;
use crate::hub::members::{Cause, Intent};
use crate::hub::presence::Roster;
use crate::place::{AppIndex, ShardIndex};
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;
use proptest::prelude::*;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taut_proto::Time;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    /// A client ends, and another one takes its place.
    Vanish(usize),
    Watch(usize, usize),
    /// A backend publishes on a node.
    Publish(usize, usize),
    ClientEvent(usize, usize),
    /// The engine takes a node's next request.
    Execute(usize),
    /// The engine takes a node's next subscription.
    Attach(usize),
    /// A node hears the engine's next answer.
    Answer(usize),
    /// A node hears what is announced next.
    Announce(usize),
    /// All four of a node, until there is nothing left.
    Catch(usize),
    /// A node loses the engine, when this many of its requests were still taken.
    Lose(usize, usize),
    /// A node finds the engine again, or starts.
    Return(usize),
    /// A node's lease is over.
    Reap(usize),
    /// A node dies, and starts anew.
    Crash(usize),
    /// A node stops as its operator wants, and starts anew.
    Stop(usize),
    /// The engine starts anew, and remembers nothing.
    Forget,
    /// A replica takes the engine's place, which knows nothing of what came after the last tick.
    TakeOver,
    /// All faults are over, and everybody has heard everything: from here on nothing may be lost again.
    Settle,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, channel, node) = (0..CLIENTS, 0..CHANNELS.len(), 0..NODES);
    let step = prop_oneof![
        12 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Subscribe(client, channel)),
        9 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Unsubscribe(client, channel)),
        3 => client.clone().prop_map(Step::Vanish),
        2 => (client.clone(), client.clone()).prop_map(|(client, other)| Step::Watch(client, other)),
        5 => (node.clone(), channel.clone()).prop_map(|(node, channel)| Step::Publish(node, channel)),
        3 => (client, channel).prop_map(|(client, channel)| Step::ClientEvent(client, channel)),
        12 => node.clone().prop_map(Step::Execute),
        8 => node.clone().prop_map(Step::Attach),
        12 => node.clone().prop_map(Step::Answer),
        12 => node.clone().prop_map(Step::Announce),
        4 => node.clone().prop_map(Step::Catch),
        2 => (node.clone(), 0..4usize).prop_map(|(node, taken)| Step::Lose(node, taken)),
        2 => node.clone().prop_map(Step::Reap),
        1 => node.clone().prop_map(Step::Crash),
        1 => node.clone().prop_map(Step::Stop),
        1 => Just(Step::Forget),
        3 => Just(Step::TakeOver),
        1 => Just(Step::Settle),
        4 => node.prop_map(Step::Return),
        4 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 0..160)
}

impl Step {
    fn is_fault(&self) -> bool {
        matches!(self, Self::Lose(..) | Self::Reap(_) | Self::Crash(_) | Self::Forget | Self::TakeOver)
    }
}

proptest! {
    // More where `PROPTEST_CASES` says so.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_clients_of_all_nodes_end_with_the_same_picture(
        most in 1..=USERS,
        grace in prop_oneof![1 => Just(0), 2 => 1..=LONGEST_GRACE],
        fails: bool,
        steps in steps(),
    ) {
        let mut world = World::new(most, Duration::from_secs(grace));
        // In some runs nothing fails: then nothing may be lost.
        for step in steps.into_iter().filter(|step| fails || !step.is_fault()) {
            world.step(step);
            world.check_grace();
        }
        world.heal();
        world.check_at_rest();
        world.end();
    }
}

const NODES: usize = 3;
const CLIENTS: usize = 9;
const USERS: usize = 4;
/// The last one stands for the channel of each client's own user.
const CHANNELS: [&str; 5] = ["private-chat", "cache-chat", "presence-room", "presence-cache-room", "#user"];
/// Ticks.
const LEASE: u32 = 5;
/// Seconds, and so ticks.
const LONGEST_GRACE: u64 = 4;

struct World {
    engine: Engine,
    /// What the engine was at the last tick.
    replica: Engine,
    nodes: Vec<Node>,
    clients: Clients,
    /// Which clients must hear an event, by its name.
    owed: Vec<(String, String, Vec<u32>)>,
    most: usize,
    grace: Duration,
    /// When a user's connection was lost in a presence channel, by channel and user.
    lost: BTreeMap<(String, String), Time>,
    /// The users of whom some connection has unsubscribed, and whose leave may be under way: these may go at once.
    unsubscribed: BTreeSet<(String, String)>,
    /// A node has failed, or the engine.
    has_fault: bool,
    now: Time,
}

/// What all nodes share. An incarnation is a number.
#[derive(Clone, Default)]
struct Engine {
    epoch: u64,
    /// The number of the last change of any presence channel.
    changes: u64,
    channels: BTreeMap<String, Kept>,
    online: BTreeMap<String, BTreeSet<u64>>,
    incarnations: u64,
    age: u32,
    /// Nodes that have stopped, and until when what they held stays.
    stopped: Vec<(u64, Time)>,
    /// Users who have left presence channels, until somebody looks.
    removed: Vec<(String, String)>,
}

/// What the engine keeps of a channel.
#[derive(Clone, Default)]
struct Kept {
    members: BTreeMap<String, PresenceMember>,
    holders: BTreeMap<String, BTreeSet<u64>>,
    change: u64,
    events: u64,
    last: Option<Publication>,
    counts: BTreeMap<u64, usize>,
}

struct Node {
    hub: Hub<u32>,
    end: BusEnd<u32>,
    link: Link,
}

/// A node's driver, and what is under way between it and the engine.
#[derive(Default)]
struct Link {
    incarnation: u64,
    is_joined: bool,
    /// It has been without the engine since some client came.
    has_failed: bool,
    fresh: RefCell<Vec<Request>>,
    requests: VecDeque<Request>,
    attachments: VecDeque<(String, bool)>,
    answers: VecDeque<Update>,
    announcements: VecDeque<Update>,
    attached: BTreeSet<String>,
    holds: Holds,
}

/// What a node has told the engine and has to tell it again.
#[derive(Default)]
struct Holds {
    channels: BTreeSet<String>,
    /// With the number of the request.
    members: BTreeMap<(String, String), (PresenceMember, u32)>,
    users: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
}

impl Post<u32> for Link {
    fn owner(&self, _: AppIndex, _: Option<&str>) -> ShardIndex {
        ShardIndex::FIRST
    }

    fn offer(&self, _: ShardIndex, envelope: Envelope<u32>, _: usize) -> Result<(), Envelope<u32>> {
        panic!("there is one shard: {envelope:?}")
    }

    fn send(&self, _: ShardIndex, envelope: Envelope<u32>) {
        panic!("there is one shard: {envelope:?}")
    }

    fn ask_engine(&self, _: &Arc<App>, request: Request) {
        self.fresh.borrow_mut().push(request);
    }
}

#[derive(Default)]
struct Clients {
    all: Vec<Client>,
    /// Who is in each of the places.
    places: Vec<u32>,
    /// How many events have been published.
    published: usize,
}

struct Client {
    id: u32,
    node: usize,
    user: String,
    has_ended: bool,
    wants: BTreeSet<String>,
    channels: BTreeMap<String, Seen>,
    pending: Vec<String>,
    is_signed_in: bool,
    watches: BTreeMap<String, Option<bool>>,
}

/// What a client has seen of a channel.
#[derive(Default)]
struct Seen {
    users: Option<BTreeSet<String>>,
    user_id: Option<Arc<str>>,
    /// The events, in their order.
    heard: Vec<String>,
    /// How many are subscribed, as it was told last.
    count: Option<u64>,
    /// How many had been published when it was let in.
    since: usize,
}

impl Client {
    fn new(id: u32, place: usize) -> Self {
        Self {
            id,
            node: place % NODES,
            user: (place % USERS).to_string(),
            has_ended: false,
            wants: BTreeSet::new(),
            channels: BTreeMap::new(),
            pending: Vec::new(),
            is_signed_in: false,
            watches: BTreeMap::new(),
        }
    }

    fn socket_id(&self) -> SocketId {
        SocketId::from_random([self.id as u8; 16])
    }

    fn channel(&self, number: usize) -> String {
        if CHANNELS[number] == "#user" { Channel::of_user(&self.user) } else { CHANNELS[number].to_owned() }
    }

    fn hear(&mut self, channel: &str, message: &Value) {
        let seen = self.channels.get_mut(channel).unwrap_or_else(|| panic!("{message} before it was let in"));
        let inner = || serde_json::from_str::<Value>(message["data"].as_str().expect("a string")).expect("JSON");
        match message["event"].as_str().expect("a name") {
            "pusher_internal:member_added" => {
                let user = inner()["user_id"].as_str().expect("a text").to_owned();
                assert!(seen.users.as_mut().expect("a list").insert(user), "added twice: {message}");
            }
            "pusher_internal:member_removed" => {
                let user = inner()["user_id"].as_str().expect("a text").to_owned();
                assert!(seen.users.as_mut().expect("a list").remove(&user), "was not there: {message}");
            }
            "pusher_internal:subscription_count" => seen.count = inner()["subscription_count"].as_u64(),
            name => seen.hear_event(name),
        }
    }
}

impl Seen {
    /// Those of one publisher come in their order, each once.
    fn hear_event(&mut self, name: &str) {
        let (publisher, number) = parts(name);
        let last = self.heard.iter().rev().map(|heard| parts(heard)).find(|(other, _)| *other == publisher);
        assert!(last.is_none_or(|(_, last)| last < number), "{name} after {:?}", self.heard);
        self.heard.push(name.to_owned());
    }
}

/// The publisher and the number in the name of an event.
fn parts(name: &str) -> (&str, usize) {
    let (publisher, number) = name.rsplit_once('-').expect("PUBLISHER-NUMBER");
    (publisher, number.parse().expect("a number"))
}

impl Outlet<u32> for Clients {
    fn deliver(&mut self, hub: &Hub<u32>, delivery: &Delivery) {
        let Delivery { channel, message, excluded, .. } = delivery;
        let message: Value = serde_json::from_slice(message.payload()).expect("JSON");
        for id in hub.members.subscribed().members(channel) {
            let client = &mut self.all[id as usize];
            if *excluded != Some(client.socket_id()) {
                client.hear(channel, &message);
            }
        }
    }

    fn missed(&mut self, channel: Arc<str>) {
        panic!("nothing was missed in {channel}");
    }

    fn tell(&mut self, connection: u32, tell: Tell) {
        let client = &mut self.all[connection as usize];
        match tell {
            Tell::Answered { channel } => {
                let position = client.pending.iter().position(|one| **one == *channel).expect("it was asked");
                client.pending.swap_remove(position);
            }
            Tell::Watchlist { online, offline } => {
                for (users, is_online) in [(online, true), (offline, false)] {
                    for user in users {
                        if let Some(known) = client.watches.get_mut(&*user) {
                            *known = Some(is_online);
                        }
                    }
                }
            }
            tell => {
                assert!(!client.has_ended, "told after its end: {tell:?}");
                client.take(tell, self.published);
            }
        }
    }

    fn happened(&mut self, event: Event, _: Duration) {
        panic!("the engine tells of it: {event:?}");
    }

    fn shown(&mut self, _: Event) {}
}

impl Client {
    fn take(&mut self, tell: Tell, published: usize) {
        match tell {
            Tell::Subscribed { channel, user_id, subscribed, is_new } => {
                assert!(self.wants.contains(&*channel), "it has left");
                let seen = self.channels.entry((*channel).to_owned()).or_default();
                if is_new {
                    seen.since = published;
                }
                if let Some(user_id) = user_id {
                    assert!(seen.user_id.is_none() && *user_id == *self.user);
                    seen.user_id = Some(user_id);
                }
                if Kind::of(&channel).is_presence() {
                    let users = users_of(&subscribed.members.expect("a list"));
                    assert!(users.contains(&self.user), "let in, but not there: {users:?}");
                    assert!(is_new || Some(&users) == seen.users.as_ref(), "{users:?} {:?}", seen.users);
                    seen.users = Some(users);
                }
                if let (true, LastEvent::Found(message)) = (is_new, subscribed.last_event) {
                    let message: Value = serde_json::from_slice(message.payload()).expect("JSON");
                    seen.hear_event(message["event"].as_str().expect("a name"));
                }
            }
            Tell::Rejected { channel, .. } => {
                if !self.channels.contains_key(&*channel) {
                    self.wants.remove(&*channel);
                }
            }
            Tell::SignedIn { .. } => self.is_signed_in = true,
            Tell::Answered { .. } | Tell::Watchlist { .. } => unreachable!("taken before"),
        }
    }
}

impl Engine {
    /// Tells all nodes that are attached to the channel.
    fn announce(nodes: &mut [Node], channel: &str, but: Option<usize>, update: &Update) {
        for (number, node) in nodes.iter_mut().enumerate() {
            if but != Some(number) && node.link.is_joined && node.link.attached.contains(channel) {
                node.link.announcements.push_back(update.clone());
            }
        }
    }

    fn change(&mut self, nodes: &mut [Node], channel: &str, difference: Difference) {
        self.changes += 1;
        let kept = self.channels.entry(channel.to_owned()).or_default();
        let previous = std::mem::replace(&mut kept.change, self.changes);
        if kept.members.is_empty() {
            kept.change = 0;
        }
        let position = Position { epoch: Epoch(self.epoch), number: self.changes };
        let change = Change { position, previous, difference };
        Self::announce(nodes, channel, None, &Update::Changed { channel: channel.into(), change });
    }

    fn join(
        &mut self,
        nodes: &mut [Node],
        incarnation: u64,
        channel: &str,
        member: &PresenceMember,
        most: usize,
    ) -> Result<Position, TooMany> {
        let kept = self.channels.entry(channel.to_owned()).or_default();
        let user = &*member.user_id;
        if !kept.members.contains_key(user) && kept.members.len() >= most {
            return Err(TooMany { most });
        }
        kept.holders.entry(user.to_owned()).or_default().insert(incarnation);
        if kept.members.insert(user.to_owned(), member.clone()).is_none() {
            self.change(nodes, channel, Difference::Added(member.clone()));
        }
        Ok(Position { epoch: Epoch(self.epoch), number: self.channels[channel].change })
    }

    fn leave(&mut self, nodes: &mut [Node], incarnation: u64, channel: &str, user: &str) {
        let kept = self.channels.entry(channel.to_owned()).or_default();
        let Some(holders) = kept.holders.get_mut(user) else { return };
        if holders.remove(&incarnation) && holders.is_empty() {
            kept.holders.remove(user);
            kept.members.remove(user);
            self.removed.push((channel.to_owned(), user.to_owned()));
            self.change(nodes, channel, Difference::Removed(user.into()));
        }
    }

    fn set_online(&mut self, nodes: &mut [Node], incarnation: u64, user: &str, is_online: bool) {
        let holders = self.online.entry(user.to_owned()).or_default();
        let was_online = !holders.is_empty();
        if is_online {
            holders.insert(incarnation)
        } else {
            holders.remove(&incarnation)
        };
        if was_online == holders.is_empty() {
            for node in nodes.iter_mut().filter(|node| node.link.is_joined) {
                node.link.announcements.push_back(Update::Status { user_id: user.into(), is_online });
            }
        }
    }

    fn count(&mut self, nodes: &mut [Node], incarnation: u64, channel: &str, subscribers: usize) {
        let kept = self.channels.entry(channel.to_owned()).or_default();
        kept.counts.insert(incarnation, subscribers);
        kept.counts.retain(|_, subscribers| *subscribers > 0);
        let subscribers = kept.counts.values().sum();
        Self::announce(nodes, channel, None, &Update::Counted { channel: channel.into(), subscribers });
    }

    /// Takes away all that an incarnation holds.
    fn reap(&mut self, nodes: &mut [Node], incarnation: u64) {
        let channels: Vec<String> = self.channels.keys().cloned().collect();
        for channel in channels {
            let users: Vec<String> = self.channels[&channel].holders.keys().cloned().collect();
            for user in users {
                self.leave(nodes, incarnation, &channel, &user);
            }
            if self.channels[&channel].counts.contains_key(&incarnation) {
                self.count(nodes, incarnation, &channel, 0);
            }
        }
        for user in self.online.keys().cloned().collect::<Vec<_>>() {
            self.set_online(nodes, incarnation, &user, false);
        }
    }

    fn snapshot(&self, channel: &str) -> Snapshot {
        let kept = self.channels.get(channel).filter(|kept| !kept.members.is_empty());
        let members = kept.map_or_else(Vec::new, |kept| kept.members.values().cloned().collect());
        let number = kept.map_or(self.changes, |kept| kept.change);
        let position = Position { epoch: Epoch(self.epoch), number };
        Snapshot { position, members, is_settling: self.epoch > 0 && self.age < LEASE }
    }
}

impl World {
    fn new(most: usize, grace: Duration) -> Self {
        let nodes = (0..NODES).map(|_| Node::new(most, grace)).collect();
        let mut world = Self {
            engine: Engine::default(),
            replica: Engine::default(),
            nodes,
            clients: Clients::default(),
            owed: Vec::new(),
            most,
            grace,
            lost: BTreeMap::new(),
            unsubscribed: BTreeSet::new(),
            has_fault: false,
            now: Time::ZERO,
        };
        for place in 0..CLIENTS {
            world.clients.places.push(place as u32);
            world.clients.all.push(Client::new(place as u32, place));
        }
        for node in 0..NODES {
            world.come_back(node);
        }
        world
    }

    fn call(&mut self, node: usize, call: impl FnOnce(&mut Hub<u32>, &mut BusEnd<u32>, &Link, Time, &mut Clients)) {
        let Self { nodes, clients, now, .. } = self;
        let Node { hub, end, link } = &mut nodes[node];
        call(hub, end, link, *now, clients);
        end.settle(hub, link, *now, clients);
        link.note();
    }

    fn step(&mut self, step: Step) {
        self.has_fault |= step.is_fault();
        match step {
            Step::Subscribe(place, channel) => self.subscribe(self.clients.places[place], channel),
            Step::Unsubscribe(place, channel) => self.unsubscribe(self.clients.places[place], channel),
            Step::Vanish(place) => self.vanish(self.clients.places[place]),
            Step::Watch(place, other) => self.watch(self.clients.places[place], other % USERS),
            Step::Publish(node, channel) => self.publish(node, channel),
            Step::ClientEvent(place, channel) => self.client_event(self.clients.places[place], channel),
            Step::Execute(node) => drop(self.execute(node)),
            Step::Attach(node) => drop(self.attach(node)),
            Step::Answer(node) => drop(self.answer(node)),
            Step::Announce(node) => drop(self.hear(node)),
            Step::Catch(node) => self.catch_up(node),
            Step::Lose(node, taken) => self.lose(node, taken),
            Step::Return(node) => self.come_back(node),
            Step::Reap(node) => {
                let Link { is_joined, incarnation, .. } = self.nodes[node].link;
                if !is_joined {
                    self.engine.reap(&mut self.nodes, incarnation);
                }
            }
            Step::Crash(node) => self.crash(node),
            Step::Stop(node) => self.stop(node),
            Step::Forget => self.forget(),
            Step::TakeOver => self.take_over(),
            Step::Settle => self.settle(),
            Step::Tick => self.tick(),
        }
    }

    fn subscribe(&mut self, id: u32, number: usize) {
        let client = &mut self.clients.all[id as usize];
        let (node, name, user) = (client.node, client.channel(number), client.user.clone());
        let is_waiting = self.nodes[node].hub.members.is_waiting(&name, id);
        if is_waiting || (CHANNELS[number] == "#user" && !client.wants.insert(name.clone())) {
            return;
        }
        client.wants.insert(name.clone());
        let kind = Kind::of(&name);
        let user_info = Some(format!("\"{user}\"").into());
        let member = kind.is_presence().then(|| PresenceMember { user_id: user.as_str().into(), user_info });
        self.call(node, |hub, end, _, _, clients| {
            let before = hub.members.waiters();
            if CHANNELS[number] == "#user" {
                clients.all[id as usize].channels.entry(name.clone()).or_default();
                hub.members.sign_in(id, &user.as_str().into(), true, &mut end.effects);
                let intent = Intent::UserEvents { user_data: Some("{}".into()) };
                hub.members.enter(id, &name, Subscribe::Events, intent, &mut end.effects);
            } else {
                hub.members.subscribe(id, &name, member, kind.is_cache(), &mut end.effects);
            }
            if hub.members.waiters() > before {
                clients.all[id as usize].pending.push(name);
            }
        });
    }

    fn unsubscribe(&mut self, id: u32, number: usize) {
        let client = &mut self.clients.all[id as usize];
        let (node, name) = (client.node, client.channel(number));
        if CHANNELS[number] == "#user" {
            return;
        }
        client.wants.remove(&name);
        let user_id = client.channels.remove(&name).and_then(|seen| seen.user_id);
        self.unsubscribed.insert((name.clone(), client.user.clone()));
        self.call(node, |hub, end, _, _, _| {
            hub.members.leave(id, &name.into(), user_id, Cause::Unsubscribed, &mut end.effects);
        });
    }

    /// A client ends; gives what it had.
    fn end_client(&mut self, id: u32) -> (BTreeMap<String, Seen>, Vec<String>) {
        let client = &mut self.clients.all[id as usize];
        client.has_ended = true;
        client.wants.clear();
        let (channels, pending) = (std::mem::take(&mut client.channels), client.pending.clone());
        let place = self.clients.places.iter().position(|&one| one == id).expect("it is there");
        self.clients.places[place] = self.clients.all.len() as u32;
        self.clients.all.push(Client::new(self.clients.all.len() as u32, place));
        (channels, pending)
    }

    fn vanish(&mut self, id: u32) {
        let (channels, pending) = self.end_client(id);
        let client = &self.clients.all[id as usize];
        let (node, user) = (client.node, client.user.clone());
        let has_signed_in = channels.contains_key(&Channel::of_user(&user));
        for (name, _) in channels.iter().filter(|(_, seen)| seen.user_id.is_some()) {
            self.lost.insert((name.clone(), user.clone()), self.now);
        }
        self.call(node, |hub, end, _, _, _| {
            let effects = &mut end.effects;
            for (name, seen) in channels {
                if let Some(user_id) = seen.user_id {
                    hub.members.leave(id, &name.into(), Some(user_id), Cause::Lost, effects);
                }
            }
            for name in pending {
                hub.members.leave(id, &name.into(), None, Cause::Lost, effects);
            }
            hub.members.leave_all(id, effects);
            hub.members.sign_out(id, &user.as_str().into(), has_signed_in, true, effects);
        });
    }

    fn watch(&mut self, id: u32, user: usize) {
        let client = &mut self.clients.all[id as usize];
        let (node, user) = (client.node, user.to_string());
        client.watches.entry(user.clone()).or_default();
        self.call(node, |hub, end, _, _, _| {
            hub.members.watch(id, std::iter::once(Arc::from(user)), &mut end.effects);
        });
    }

    fn publish(&mut self, node: usize, number: usize) {
        self.clients.published += 1;
        let channel = if CHANNELS[number] == "#user" { Channel::of_user("1") } else { CHANNELS[number].to_owned() };
        let name = format!("node{node}-{}", self.clients.published);
        self.owe(&channel, &name, node, None);
        let event = Published::published(&name, &Payload::from(""));
        self.send(
            node,
            Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None },
        );
    }

    fn client_event(&mut self, id: u32, number: usize) {
        self.clients.published += 1;
        let client = &self.clients.all[id as usize];
        let (node, channel) = (client.node, client.channel(number));
        if !Kind::of(&channel).takes_client_events() || !client.channels.contains_key(&channel) {
            return;
        }
        let (name, excluded) = (format!("client{id}-{}", self.clients.published), Some(client.socket_id()));
        self.owe(&channel, &name, node, Some(id));
        let event = Published::Client { name: name.into(), data: None, user_id: None };
        self.send(node, Publication { channel: channel.into(), event, excluded, at: Instant::now(), receipt: None });
    }

    fn send(&mut self, node: usize, publication: Publication) {
        self.call(node, |hub, end, link, now, _| {
            end.publish(hub, publication, link, now).expect("there is one shard");
        });
    }

    /// All who are subscribed now have to hear this, unless their node or that of the publisher fails.
    fn owe(&mut self, channel: &str, name: &str, node: usize, but: Option<u32>) {
        if self.nodes[node].link.has_failed {
            return;
        }
        let hears = |client: &&Client| {
            let is_let_in = Channel::user_of(channel).is_none() || client.is_signed_in;
            client.channels.contains_key(channel) && is_let_in && Some(client.id) != but
        };
        let ids = self.clients.all.iter().filter(hears).map(|client| client.id).collect();
        self.owed.push((channel.to_owned(), name.to_owned(), ids));
    }

    /// The engine takes the next request of a node.
    fn execute(&mut self, number: usize) -> bool {
        let Self { engine, nodes, .. } = self;
        let Some(request) = nodes[number].link.requests.pop_front() else { return false };
        let (incarnation, epoch) = (nodes[number].link.incarnation, Epoch(engine.epoch));
        let answer = match request {
            Request::Subscribe { .. } | Request::Unsubscribe { .. } => None,
            Request::Publish { publication, kept: false, .. } => {
                let channel = Arc::clone(&publication.channel);
                Engine::announce(nodes, &channel, Some(number), &Update::Published { publication, kept: None });
                None
            }
            Request::Publish { publication, kept: true, .. } => {
                let channel = Arc::clone(&publication.channel);
                let kept = engine.channels.entry((*channel).to_owned()).or_default();
                kept.events += 1;
                kept.last = Some(publication.clone());
                let position = Position { epoch, number: kept.events };
                let update = Update::Published { publication, kept: Some(position) };
                Engine::announce(nodes, &channel, None, &update);
                None
            }
            Request::Join { channel, member, number, most } => {
                let outcome = engine.join(nodes, incarnation, &channel, &member, most);
                let user_id = member.user_id;
                Some(Update::Joined { channel, user_id, number, outcome })
            }
            Request::Leave { channel, user_id, .. } => {
                engine.leave(nodes, incarnation, &channel, &user_id);
                None
            }
            Request::Members { channel } => {
                let snapshot = engine.snapshot(&channel);
                Some(Update::Members { channel, snapshot })
            }
            Request::LastEvent { channel, .. } => {
                let kept = engine.channels.get(&*channel);
                let position = Position { epoch, number: kept.map_or(0, |kept| kept.events) };
                let publication = kept.and_then(|kept| kept.last.clone());
                Some(Update::LastEvent { channel, publication, position })
            }
            Request::Count { channel, subscribers } => {
                engine.count(nodes, incarnation, &channel, subscribers);
                None
            }
            Request::SignIn { user_id } => {
                engine.set_online(nodes, incarnation, &user_id, true);
                None
            }
            Request::SignOut { user_id } => {
                engine.set_online(nodes, incarnation, &user_id, false);
                None
            }
            Request::Online { user_ids, number } => {
                let is_online =
                    |user: &&Arc<str>| engine.online.get(&***user).is_some_and(|holders| !holders.is_empty());
                let online = user_ids.iter().filter(is_online).cloned().collect();
                Some(Update::Online { number, online })
            }
        };
        nodes[number].link.answers.extend(answer);
        true
    }

    /// The engine takes the next subscription of a node, which comes by a way of its own.
    fn attach(&mut self, number: usize) -> bool {
        let link = &mut self.nodes[number].link;
        let Some((channel, is_wanted)) = link.attachments.pop_front() else { return false };
        if is_wanted {
            // An answer that was overtaken by an end is not passed on.
            if !link.attachments.contains(&(channel.clone(), false)) {
                link.announcements.push_back(Update::Subscribed { channel: channel.as_str().into() });
            }
            link.attached.insert(channel);
        } else {
            link.attached.remove(&channel);
        }
        true
    }

    fn answer(&mut self, number: usize) -> bool {
        let link = &mut self.nodes[number].link;
        let Some(update) = link.answers.pop_front() else { return false };
        link.holds.hear(&update);
        self.update(number, update);
        true
    }

    fn hear(&mut self, number: usize) -> bool {
        let Some(update) = self.nodes[number].link.announcements.pop_front() else { return false };
        self.update(number, update);
        true
    }

    fn update(&mut self, number: usize, update: Update) {
        self.call(number, |hub, end, _, now, _| hub.update(update, now, &mut end.effects));
    }

    fn catch_up(&mut self, node: usize) {
        while self.execute(node) | self.attach(node) | self.answer(node) | self.hear(node) {}
    }

    /// Also of a node that starts, and finds no engine.
    fn lose(&mut self, node: usize, taken: usize) {
        if !self.nodes[node].link.is_joined {
            return self.stand(node, Standing::Away);
        }
        for _ in 0..taken {
            self.execute(node);
        }
        let link = &mut self.nodes[node].link;
        link.is_joined = false;
        link.has_failed = true;
        link.cut();
        self.stand(node, Standing::Away);
    }

    fn come_back(&mut self, number: usize) {
        let Self { engine, nodes, .. } = self;
        if nodes[number].link.is_joined {
            return;
        }
        engine.incarnations += 1;
        let link = &mut nodes[number].link;
        let old = std::mem::replace(&mut link.incarnation, engine.incarnations);
        link.cut();
        link.is_joined = true;
        link.attached = link.holds.channels.clone();
        let holds = std::mem::take(&mut link.holds);
        for ((channel, _), (member, _)) in &holds.members {
            let joined = engine.join(nodes, engine.incarnations, channel, member, usize::MAX);
            assert!(joined.is_ok());
        }
        for user in &holds.users {
            engine.set_online(nodes, engine.incarnations, user, true);
        }
        for (channel, subscribers) in &holds.counts {
            engine.count(nodes, engine.incarnations, channel, *subscribers);
        }
        engine.reap(nodes, old);
        nodes[number].link.holds = holds;
        self.stand(number, Standing::Joined);
    }

    fn stand(&mut self, node: usize, standing: Standing) {
        self.call(node, |hub, end, _, now, _| {
            end.stand(standing);
            hub.stand(standing, now, &mut end.effects);
        });
    }

    /// All that the node knew is gone, its clients as well.
    fn crash(&mut self, node: usize) {
        let here: Vec<u32> =
            self.clients.places.iter().copied().filter(|id| self.clients.all[*id as usize].node == node).collect();
        for id in here {
            self.end_client(id);
        }
        let incarnation = self.nodes[node].link.incarnation;
        self.nodes[node] = Node::new(self.most, self.grace);
        self.nodes[node].link.incarnation = incarnation;
        self.nodes[node].link.has_failed = true;
    }

    /// The node closes its clients and carries out what it has still to say. What it holds stays for as long as its users may be back.
    fn stop(&mut self, node: usize) {
        if !self.nodes[node].link.is_joined {
            return;
        }
        let is_here = |id: &u32| self.clients.all[*id as usize].node == node;
        let here: Vec<u32> = self.clients.places.iter().copied().filter(is_here).collect();
        for id in here {
            self.vanish(id);
        }
        self.catch_up(node);
        self.engine.stopped.push((self.nodes[node].link.incarnation, self.now + self.grace));
        self.nodes[node] = Node::new(self.most, self.grace);
        self.nodes[node].link.has_failed = true;
        self.reap_stopped();
        self.come_back(node);
    }

    fn reap_stopped(&mut self) {
        let Self { engine, nodes, now, .. } = self;
        let (over, stopped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut engine.stopped).into_iter().partition(|(_, until)| until <= now);
        engine.stopped = stopped;
        for (incarnation, _) in over {
            engine.reap(nodes, incarnation);
        }
    }

    /// While nothing fails, no user goes before the grace is over who has not unsubscribed.
    fn check_grace(&mut self) {
        for key in std::mem::take(&mut self.engine.removed) {
            if let (Some(lost), false, false) = (self.lost.get(&key), self.unsubscribed.contains(&key), self.has_fault)
            {
                assert!(self.now.since(*lost) >= self.grace, "{key:?} has gone too early");
            }
        }
        let is_quiet = |node: &Node| node.link.requests.is_empty() && node.link.answers.is_empty();
        if self.nodes.iter().all(is_quiet) && self.clients.all.iter().all(|client| client.pending.is_empty()) {
            self.unsubscribed.clear();
        }
    }

    fn forget(&mut self) {
        for node in 0..NODES {
            self.lose(node, 0);
            self.nodes[node].link.has_failed = true;
        }
        let Engine { epoch, incarnations, .. } = self.engine;
        self.engine = Engine { epoch: epoch + 1, incarnations, ..Engine::default() };
        self.replica = self.engine.clone();
    }

    fn take_over(&mut self) {
        for node in 0..NODES {
            self.lose(node, 0);
            self.nodes[node].link.has_failed = true;
        }
        self.engine = Engine { incarnations: self.engine.incarnations, ..self.replica.clone() };
        // It may still know some whose leases are over.
        for incarnation in 1..=self.engine.incarnations {
            if self.nodes.iter().all(|node| node.link.incarnation != incarnation) {
                self.engine.reap(&mut self.nodes, incarnation);
            }
        }
    }

    fn settle(&mut self) {
        self.come_to_rest(1);
        self.check_owed();
        self.owed.clear();
        for node in &mut self.nodes {
            node.link.has_failed = false;
        }
    }

    /// All faults are over: from here on everybody hears what is published, on whichever node.
    fn heal(&mut self) {
        self.settle();
        for node in 0..NODES {
            for channel in 0..CHANNELS.len() {
                self.publish(node, channel);
            }
        }
        self.come_to_rest(10);
    }

    fn tick(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.engine.age += 1;
        self.reap_stopped();
        for node in 0..NODES {
            // As a shard does.
            if self.nodes[node].hub.is_due() {
                self.call(node, |hub, end, _, now, _| hub.tick(now, &mut end.effects));
            }
        }
        self.replica = self.engine.clone();
    }

    /// Until nobody has anything more to say.
    fn come_to_rest(&mut self, ticks: usize) {
        for node in 0..NODES {
            self.come_back(node);
        }
        for _ in 0..ticks {
            self.tick();
            while (0..NODES).any(|node| self.execute(node) | self.attach(node) | self.answer(node) | self.hear(node)) {}
        }
    }

    fn check_at_rest(&self) {
        let there: Vec<&Client> = self.clients.places.iter().map(|&id| &self.clients.all[id as usize]).collect();
        for name in CHANNELS.iter().filter(|name| **name != "#user") {
            let subscribers: Vec<_> = there.iter().filter(|client| client.wants.contains(*name)).collect();
            let users: BTreeSet<String> = subscribers.iter().map(|client| client.user.clone()).collect();
            let counts = self.engine.channels.get(*name).map(|kept| &kept.counts);
            assert_eq!(counts.into_iter().flat_map(BTreeMap::values).sum::<usize>(), subscribers.len(), "{name}");
            for client in &subscribers {
                let seen = client.channels.get(*name).unwrap_or_else(|| panic!("{} was let in to {name}", client.id));
                assert_eq!(seen.users, Kind::of(name).is_presence().then(|| users.clone()), "{name} {}", client.id);
                let count = Kind::of(name).is_counted().then_some(subscribers.len() as u64);
                assert_eq!(seen.count, count, "{name} {}", client.id);
            }
            if Kind::of(name).is_presence() {
                let kept = self.engine.channels.get(*name);
                let members: BTreeSet<String> =
                    kept.into_iter().flat_map(|kept| kept.members.keys().cloned()).collect();
                assert_eq!(members, users, "{name}");
            }
            self.check_owners(name, &users);
        }
        let is_online = |user: &str| there.iter().any(|client| client.is_signed_in && client.user == user);
        for client in &there {
            assert!(client.pending.is_empty(), "{:?}", client.pending);
            for (user, known) in &client.watches {
                assert_eq!(*known, Some(is_online(user)), "{} of {user}", client.id);
            }
            assert_eq!(client.is_signed_in, client.wants.contains(&Channel::of_user(&client.user)));
        }
        self.check_owed();
    }

    /// A node with subscribers knows who is there on all nodes, and what newcomers of a cache channel get.
    fn check_owners(&self, name: &str, users: &BTreeSet<String>) {
        let last = self.engine.channels.get(name).and_then(|kept| kept.last.as_ref()).map(Publication::name);
        for (number, node) in self.nodes.iter().enumerate() {
            let places = self.clients.places.iter().map(|id| &self.clients.all[*id as usize]);
            let is_wanted = places.filter(|client| client.node == number).any(|client| client.wants.contains(name));
            let owner = node.hub.owner();
            let users_of = |roster: &Roster| roster.users().map(ToString::to_string).collect::<BTreeSet<_>>();
            let present = owner.roster(name).map(users_of);
            let expected = Some(users).filter(|_| is_wanted && Kind::of(name).is_presence());
            assert_eq!(present.as_ref(), expected, "{name} on {number}");
            let kept = owner.last_event(name, self.now).map(|(publication, _)| publication.name());
            assert_eq!(kept, last.filter(|_| is_wanted && Kind::of(name).is_cache()), "{name} on {number}");
        }
    }

    /// Without a fault, nothing is lost.
    fn check_owed(&self) {
        if self.nodes.iter().any(|node| node.link.has_failed) {
            return;
        }
        for (channel, name, ids) in &self.owed {
            for id in ids {
                // Whoever has left in between may have missed it.
                let seen = self.clients.all[*id as usize].channels.get(channel);
                let Some(seen) = seen.filter(|seen| seen.since < parts(name).1) else { continue };
                assert!(seen.heard.contains(name), "{id} has not heard {name} in {channel}: {:?}", seen.heard);
            }
        }
    }

    /// All clients go, and nothing is left of them.
    fn end(&mut self) {
        for id in self.clients.places.clone() {
            self.vanish(id);
        }
        self.come_to_rest(10);
        for node in &self.nodes {
            assert!(node.hub.is_vacant(), "{:?}", node.hub);
            let Holds { channels, members, users, counts } = &node.link.holds;
            assert!(channels.is_empty() && members.is_empty() && users.is_empty() && counts.is_empty());
        }
        for (name, kept) in &self.engine.channels {
            assert!(kept.members.is_empty() && kept.holders.is_empty() && kept.counts.is_empty(), "{name}");
        }
    }
}

impl Node {
    fn new(most: usize, presence_grace: Duration) -> Self {
        let limits = Limits { presence_members: most, ..Limits::default() };
        let features = Features { subscription_count: true, presence_grace, ..Features::default() };
        let config = AppConfig { limits: Some(limits), features, ..AppConfig::parse("1:key:secret").expect("an app") };
        let app = Arc::clone(&Apps::new([config], &Limits::default()).expect("one app").all()[0]);
        let standing = Some(Standing::Starting);
        Self { hub: Hub::new(app, standing), end: BusEnd::new(ShardIndex::FIRST, standing), link: Link::default() }
    }
}

impl Link {
    /// Takes down what the node holds from here on, and sends what it wants. Without the engine, all else is lost.
    fn note(&mut self) {
        for request in self.fresh.take() {
            let attachment = self.holds.note(&request);
            if self.is_joined {
                self.attachments.extend(attachment);
                self.requests.push_back(request);
            }
        }
    }

    /// What is under way is lost.
    fn cut(&mut self) {
        self.requests.clear();
        self.attachments.clear();
        self.answers.clear();
        self.announcements.clear();
        self.attached.clear();
    }
}

impl Holds {
    /// A user who was not let in is not held.
    fn hear(&mut self, update: &Update) {
        if let Update::Joined { channel, user_id, number, outcome: Err(_) } = update {
            let key = ((**channel).to_owned(), (**user_id).to_owned());
            if self.members.get(&key).is_some_and(|(_, held)| held == number) {
                self.members.remove(&key);
            }
        }
    }

    /// A node sends this; gives the channel that it comes to or leaves by it.
    fn note(&mut self, request: &Request) -> Option<(String, bool)> {
        let key = |channel: &Arc<str>, user: &Arc<str>| ((**channel).to_owned(), (**user).to_owned());
        match request {
            Request::Subscribe { channel } => {
                assert!(self.channels.insert((**channel).to_owned()), "twice: {channel}");
                return Some(((**channel).to_owned(), true));
            }
            Request::Unsubscribe { channel, .. } => {
                assert!(self.channels.remove(&**channel), "not subscribed: {channel}");
                assert!(!self.counts.contains_key(&**channel), "counted: {channel}");
                return Some(((**channel).to_owned(), false));
            }
            Request::Join { channel, member, number, .. } => {
                let known = self.members.insert(key(channel, &member.user_id), (member.clone(), *number));
                assert!(known.is_none(), "twice: {member:?}");
            }
            Request::Leave { channel, user_id, .. } => drop(self.members.remove(&key(channel, user_id))),
            Request::Count { channel, subscribers: 0 } => drop(self.counts.remove(&**channel)),
            Request::Count { channel, subscribers } => {
                self.counts.insert((**channel).to_owned(), *subscribers);
            }
            Request::SignIn { user_id } => assert!(self.users.insert((**user_id).to_owned())),
            Request::SignOut { user_id } => assert!(self.users.remove(&**user_id)),
            Request::Publish { .. } | Request::Members { .. } | Request::LastEvent { .. } | Request::Online { .. } => {}
        }
        None
    }
}
