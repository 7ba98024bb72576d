//! Several shards' hubs and their ends of the bus, on a network that the test decides about: any envelope may be late, and any that may be
//! refused is at times. Each client is held against a plain model of what it must hear.

mod cluster;

use super::Hub;
use super::command::{Delivery, Event as Published, LastEvent, PresenceMember, Publication, Push, Reply};
use super::effects::Tell;
use super::engine::Request;
use super::envelope::{Content, Envelope};
use super::members::{Cause, Intent};
use super::owner::Owner;
use super::presence::Roster;
use crate::app::{AppConfig, Features, Limits};
use crate::apps::{App, Apps};
use crate::bus::{BusEnd, Outlet, Post, WINDOW};
use crate::events::Event;
use crate::hub::command::{Command, Subscribe};
use crate::place::{AppIndex, ShardIndex};
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;
use proptest::prelude::*;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taut_proto::Time;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client subscribes to a channel; to its user's, it signs in.
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    /// A client ends, and another one takes its place.
    Vanish(usize),
    /// A client watches another one's user.
    Watch(usize, usize),
    /// A backend publishes.
    Publish(usize),
    /// A client publishes.
    ClientEvent(usize, usize),
    /// A shard takes one envelope.
    Take(usize),
    /// A shard takes all that it has.
    TakeAll(usize),
    /// From now on a shard's mailbox is full, or is not.
    Fill(usize, bool),
    /// A second goes by.
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, channel, shard) = (0..CLIENTS, 0..CHANNELS.len(), 0..SHARDS);
    let step = prop_oneof![
        12 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Subscribe(client, channel)),
        9 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Step::Unsubscribe(client, channel)),
        3 => client.clone().prop_map(Step::Vanish),
        2 => (client.clone(), client.clone()).prop_map(|(client, other)| Step::Watch(client, other)),
        5 => channel.clone().prop_map(Step::Publish),
        3 => (client, channel).prop_map(|(client, channel)| Step::ClientEvent(client, channel)),
        14 => shard.clone().prop_map(Step::Take),
        6 => shard.clone().prop_map(Step::TakeAll),
        2 => (shard, any::<bool>()).prop_map(|(shard, is_full)| Step::Fill(shard, is_full)),
        3 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 0..120)
}

/// What holds for the app: how many users a presence channel may have, how many channels there may be (0: any number), whether subscriptions
/// are counted, and for how long users may be away.
#[derive(Clone, Copy, Debug)]
struct Terms {
    presence_members: usize,
    channels: usize,
    subscription_count: bool,
    /// Seconds.
    presence_grace: u64,
}

fn terms() -> impl Strategy<Value = Terms> {
    let channels = prop_oneof![2 => Just(0), 1 => 1..CHANNELS.len()];
    let grace = prop_oneof![1 => Just(0), 2 => 1..=LONGEST_GRACE];
    (1..=USERS, channels, prop::bool::weighted(0.8), grace).prop_map(
        |(presence_members, channels, subscription_count, presence_grace)| Terms {
            presence_members,
            channels,
            subscription_count,
            presence_grace,
        },
    )
}

proptest! {
    // More where `PROPTEST_CASES` says so.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(3000), ..ProptestConfig::default() })]

    #[test]
    fn whatever_overtakes_what_every_client_hears_what_it_must(terms in terms(), steps in steps()) {
        let mut world = World::new(terms);
        for step in steps {
            world.step(step);
            world.check_limits();
            world.check_grace();
        }
        world.come_to_rest();
        world.check_at_rest();
        world.end();
    }
}

const SHARDS: usize = 3;
const CLIENTS: usize = 9;
const USERS: usize = 4;
/// Seconds, and so ticks.
const LONGEST_GRACE: u64 = 4;
/// Many times what any script makes the shards say.
const MOST_SENT: usize = 100_000;
/// The last one stands for the channel of each client's own user.
const CHANNELS: [&str; 6] = ["chat", "cache-chat", "presence-room", "presence-cache-room", "private-chat", "#user"];

struct World {
    app: Arc<App>,
    network: Network,
    shards: Vec<(Hub<u32>, BusEnd<u32>)>,
    clients: Clients,
    published: usize,
    now: Time,
}

/// The mailboxes, by shard.
#[derive(Default)]
struct Network {
    queues: RefCell<Vec<VecDeque<Envelope<u32>>>>,
    is_full: RefCell<[bool; SHARDS]>,
    /// The weights of subscriptions that are not answered yet, by the shard that asks and by the owner.
    in_flight: RefCell<BTreeMap<(ShardIndex, ShardIndex), Vec<u32>>>,
    /// Commands and envelopes so far.
    sent: Cell<usize>,
}

impl Network {
    /// An envelope is taken. With an answer there is room for other subscriptions.
    fn take(&self, shard: usize) -> Option<Envelope<u32>> {
        let envelope = self.queues.borrow_mut()[shard].pop_front()?;
        if let Content::Reply(Reply::Subscribed { request, .. } | Reply::Rejected { request, .. }) = &envelope.content {
            let mut in_flight = self.in_flight.borrow_mut();
            let weights = in_flight.get_mut(&(ShardIndex::new(shard), envelope.from)).expect("it was asked");
            let answered = weights.iter().position(|weight| *weight == request.weight).expect("it was asked");
            weights.swap_remove(answered);
        }
        Some(envelope)
    }

    /// Shards that go on talking to each other for ever fail the test instead of keeping it.
    fn count(&self) {
        self.sent.set(self.sent.get() + 1);
        assert!(self.sent.get() < MOST_SENT, "there is no end to it");
    }
}

/// Channels are spread by their names; the users are the last shard's.
fn owner_of(channel: Option<&str>) -> ShardIndex {
    let sum = |name: &str| name.bytes().map(usize::from).sum::<usize>();
    ShardIndex::new(channel.map_or(SHARDS - 1, |name| sum(name) % SHARDS))
}

impl Post<u32> for Network {
    fn owner(&self, _: AppIndex, channel: Option<&str>) -> ShardIndex {
        self.count();
        owner_of(channel)
    }

    fn offer(&self, to: ShardIndex, envelope: Envelope<u32>, bytes: usize) -> Result<(), Envelope<u32>> {
        let texts = match &envelope.content {
            Content::Command(Command::Publish(publication)) => publication.bytes(),
            Content::Reply(Reply::Subscribed { channel, subscribed, .. }) => channel.len() + subscribed.bytes(),
            Content::Push(Push::Deliver(delivery)) => delivery.bytes(),
            _ => bytes,
        };
        assert_eq!(bytes, texts, "it weighs what its texts take: {envelope:?}");
        if self.is_full.borrow()[to.get()] {
            return Err(envelope);
        }
        self.count();
        self.queues.borrow_mut()[to.get()].push_back(envelope);
        Ok(())
    }

    fn send(&self, to: ShardIndex, envelope: Envelope<u32>) {
        self.count();
        match &envelope.content {
            Content::Command(Command::Subscribe { request, .. }) => {
                let mut in_flight = self.in_flight.borrow_mut();
                let weights = in_flight.entry((envelope.from, to)).or_default();
                weights.push(request.weight);
                assert!(weights.len() == 1 || weights.iter().sum::<u32>() <= WINDOW, "too many at a time: {weights:?}");
            }
            Content::Reply(Reply::Subscribed { subscribed, .. }) => {
                assert!(!subscribed.is_long(), "it may find no room");
            }
            Content::Push(Push::Missed { .. }) => assert!(self.is_full.borrow()[to.get()], "nothing was missed"),
            Content::Command(Command::Publish(_)) | Content::Push(Push::Deliver(_)) => panic!("it may find no room"),
            _ => {}
        }
        self.queues.borrow_mut()[to.get()].push_back(envelope);
    }

    fn ask_engine(&self, _: &Arc<App>, request: Request) {
        panic!("there is no engine: {request:?}");
    }
}

/// All clients there ever were, and what has happened.
#[derive(Default)]
struct Clients {
    all: Vec<Client>,
    /// Who is in each of the places.
    places: Vec<u32>,
    /// The events of each channel, in the order in which its owner took them.
    order: BTreeMap<String, Vec<String>>,
    /// What webhooks have been told is there.
    occupied: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
    /// Channels whose subscribers on a shard have missed something.
    missed: Vec<(usize, Arc<str>)>,
    here: usize,
    now: Time,
    grace: Duration,
    /// When a user's connection was lost in a presence channel, by channel and user.
    lost: BTreeMap<(String, String), Time>,
    /// The users of whom some connection has unsubscribed, and whose owners may not have heard of it yet: these may go at once.
    unsubscribed: BTreeSet<(String, String)>,
    /// The users whose owners may hold back that they leave from the next quiet moment on, and from when on they have.
    leaving: BTreeSet<(String, String)>,
    held: BTreeMap<(String, String), Time>,
}

/// One client, and what it knows.
struct Client {
    id: u32,
    shard: usize,
    user: String,
    has_ended: bool,
    /// What it has asked for and not left, nor been refused.
    wants: BTreeSet<String>,
    /// The channels that it has been let into.
    channels: BTreeMap<String, Seen>,
    /// The answers that have still to come, by channel.
    pending: Vec<String>,
    is_signed_in: bool,
    watches: BTreeMap<String, Option<bool>>,
}

/// What a client has seen of a channel.
#[derive(Default)]
struct Seen {
    /// Who is there, of a presence channel.
    users: Option<BTreeSet<String>>,
    /// The user that it is there.
    user_id: Option<Arc<str>>,
    /// The event that was last heard; `None` before the first.
    last: Option<String>,
    /// It had no last event when it was let in.
    was_empty: bool,
}

impl Client {
    fn new(id: u32, place: usize) -> Self {
        Self {
            id,
            shard: place % SHARDS,
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

    fn hear(&mut self, channel: &str, message: &Value, order: &[String]) {
        let seen = self.channels.get_mut(channel).unwrap_or_else(|| panic!("{message} before it was let in"));
        let inner = || serde_json::from_str::<Value>(message["data"].as_str().expect("a string")).expect("JSON");
        match message["event"].as_str().expect("a name") {
            "pusher_internal:member_added" => {
                let user = inner()["user_id"].as_str().expect("a text").to_owned();
                assert!(seen.users.as_mut().expect("a list").insert(user), "added twice: {message}");
            }
            "pusher_internal:member_removed" => {
                let user = inner()["user_id"].as_str().expect("a text").to_owned();
                assert_ne!(user, self.user, "removed while it is there");
                assert!(seen.users.as_mut().expect("a list").remove(&user), "was not there: {message}");
            }
            "pusher_internal:subscription_count" => {}
            name => {
                let position = |name: &str| order.iter().position(|one| one == name).expect("it was published");
                let next = position(name);
                match &seen.last {
                    // Its own events are not for it.
                    Some(last) => {
                        let own = format!("client-{}-", self.id);
                        assert!(position(last) < next, "again, or out of order: {name}");
                        let between = &order[position(last) + 1..next];
                        assert!(between.iter().all(|one| one.starts_with(&own)), "a gap before {name}: {between:?}");
                    }
                    None if seen.was_empty => assert_eq!(next, 0, "a gap before {name}"),
                    None => {}
                }
                seen.last = Some(name.to_owned());
            }
        }
    }
}

impl Outlet<u32> for Clients {
    fn shown(&mut self, event: Event) {
        panic!("nobody else tells of it: {event:?}");
    }

    fn deliver(&mut self, hub: &Hub<u32>, delivery: &Delivery) {
        let Delivery { channel, message, excluded, .. } = delivery;
        let message: Value = serde_json::from_slice(message.payload()).expect("JSON");
        for id in hub.members.subscribed().members(channel) {
            let client = &mut self.all[id as usize];
            if *excluded != Some(client.socket_id()) {
                let order = self.order.get(&**channel).map_or(&[][..], |order| order);
                client.hear(channel, &message, order);
            }
        }
    }

    fn missed(&mut self, channel: Arc<str>) {
        self.missed.push((self.here, channel));
    }

    fn tell(&mut self, connection: u32, tell: Tell) {
        let client = &mut self.all[connection as usize];
        if let Tell::Answered { channel } = &tell {
            let position = client.pending.iter().position(|one| **one == **channel).expect("it was asked");
            client.pending.swap_remove(position);
            return;
        }
        if let (true, Tell::Watchlist { .. }) = (client.has_ended, &tell) {
            return; // the reply to its question comes too late
        }
        assert!(!client.has_ended, "told after its end: {tell:?}");
        match tell {
            Tell::Answered { .. } => {}
            Tell::Subscribed { channel, user_id, subscribed, is_new } => {
                assert!(client.wants.contains(&*channel), "it has left");
                let seen = client.channels.entry((*channel).to_owned()).or_default();
                if let Some(user_id) = user_id {
                    assert!(seen.user_id.is_none() && *user_id == *client.user);
                    seen.user_id = Some(user_id);
                }
                let users = subscribed.members.map(|members| users_of(&members));
                if Kind::of(&channel).is_presence() {
                    assert!(users.as_ref().expect("a list").contains(&client.user), "let in, but not there");
                    assert!(is_new || users == seen.users, "{users:?} {:?}", seen.users);
                }
                seen.users = users;
                match subscribed.last_event {
                    LastEvent::NotKept => assert!(!Kind::of(&channel).is_cache()),
                    LastEvent::Missing => seen.was_empty |= is_new,
                    LastEvent::Found(message) => {
                        let message: Value = serde_json::from_slice(message.payload()).expect("JSON");
                        let name = message["event"].as_str().expect("a name").to_owned();
                        // What came later is on its way to it.
                        assert!(self.order[&*channel].contains(&name));
                        if is_new {
                            seen.last = Some(name);
                        }
                    }
                }
            }
            Tell::Rejected { channel, .. } => {
                self.leaving.insert(((*channel).to_owned(), client.user.clone()));
                if !client.channels.contains_key(&*channel) {
                    client.wants.remove(&*channel);
                }
            }
            Tell::SignedIn { .. } => client.is_signed_in = true,
            Tell::Watchlist { online, offline } => {
                for (users, is_online) in [(online, true), (offline, false)] {
                    for user in users {
                        let known = client.watches.get_mut(&*user).expect("it watches that one");
                        *known = Some(is_online);
                    }
                }
            }
        }
    }

    fn happened(&mut self, event: Event, _: Duration) {
        let name = |channel: &str, user: &str| format!("{channel} {user}");
        match event {
            Event::ChannelOccupied { channel } => assert!(self.occupied.insert(name(&channel, ""))),
            Event::ChannelVacated { channel } => {
                self.counts.remove(&*channel);
                assert!(self.occupied.remove(&name(&channel, "")));
            }
            Event::MemberAdded { channel, user_id } => assert!(self.occupied.insert(name(&channel, &user_id))),
            Event::MemberRemoved { channel, user_id } => {
                assert!(self.occupied.remove(&name(&channel, &user_id)));
                let key = ((*channel).to_owned(), (*user_id).to_owned());
                if let (Some(lost), false) = (self.lost.get(&key), self.unsubscribed.contains(&key)) {
                    assert!(self.now.since(*lost) >= self.grace, "{key:?} was told too early");
                }
            }
            Event::SubscriptionCount { channel, count } => {
                self.counts.insert((*channel).to_owned(), count);
            }
            Event::CacheMiss { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Who is in the list that a new subscriber hears, which is JSON within a JSON string.
fn users_of(members: &str) -> BTreeSet<String> {
    let text: String = serde_json::from_str(&format!("\"{members}\"")).expect("a string");
    let members: Value = serde_json::from_str(&text).expect("JSON in it");
    let ids = members["presence"]["ids"].as_array().expect("a list");
    ids.iter().map(|id| id.as_str().expect("a text").to_owned()).collect()
}

impl World {
    fn new(terms: Terms) -> Self {
        let Terms { presence_members, channels, subscription_count, presence_grace } = terms;
        let presence_grace = Duration::from_secs(presence_grace);
        let limits = Limits { channels, presence_members, ..Limits::default() };
        let features = Features { subscription_count, presence_grace, ..Features::default() };
        let config = AppConfig { limits: Some(limits), features, ..AppConfig::parse("1:key:secret").expect("an app") };
        let app = Arc::clone(&Apps::new([config], &Limits::default()).expect("one app").all()[0]);
        let network = Network::default();
        network.queues.borrow_mut().resize_with(SHARDS, VecDeque::new);
        let shard = |number| (Hub::new(Arc::clone(&app), None), BusEnd::new(ShardIndex::new(number), None));
        let shards = (0..SHARDS).map(shard).collect();
        let clients = Clients { grace: presence_grace, ..Clients::default() };
        let mut world = Self { app, network, shards, clients, published: 0, now: Time::ZERO };
        for place in 0..CLIENTS {
            world.clients.places.push(place as u32);
            world.clients.all.push(Client::new(place as u32, place));
        }
        world
    }

    /// Calls the hub of a shard, and settles what comes of it; then closes those who have missed something, as a shard does.
    fn call(&mut self, shard: usize, call: impl FnOnce(&mut Hub<u32>, &mut BusEnd<u32>, &Network, Time, &mut Clients)) {
        let Self { shards, network, clients, now, .. } = self;
        let (hub, end) = &mut shards[shard];
        (clients.here, clients.now) = (shard, *now);
        call(hub, end, network, *now, clients);
        end.settle(hub, network, *now, clients);
        for (shard, channel) in std::mem::take(&mut self.clients.missed) {
            let subscribers: Vec<u32> = self.shards[shard].0.members.subscribed().members(&channel).collect();
            for id in subscribers {
                self.vanish(id);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe(place, channel) => self.subscribe(self.clients.places[place], channel),
            Step::Unsubscribe(place, channel) => self.unsubscribe(self.clients.places[place], channel),
            Step::Vanish(place) => self.vanish(self.clients.places[place]),
            Step::Watch(place, other) => self.watch(self.clients.places[place], other % USERS),
            Step::Publish(channel) => self.publish(channel),
            Step::ClientEvent(place, channel) => self.client_event(self.clients.places[place], channel),
            Step::Take(shard) => drop(self.take(shard)),
            Step::TakeAll(shard) => while self.take(shard) {},
            Step::Fill(shard, is_full) => self.network.is_full.borrow_mut()[shard] = is_full,
            Step::Tick => self.tick(),
        }
    }

    fn subscribe(&mut self, id: u32, number: usize) {
        let client = &mut self.clients.all[id as usize];
        let (shard, name, user) = (client.shard, client.channel(number), client.user.clone());
        let is_waiting = self.shards[shard].0.members.is_waiting(&name, id);
        // To subscribe while it waits is answered by the shard itself; to sign in twice as well.
        if is_waiting || (CHANNELS[number] == "#user" && !client.wants.insert(name.clone())) {
            return;
        }
        client.wants.insert(name.clone());
        let kind = Kind::of(&name);
        let member =
            kind.is_presence().then(|| PresenceMember { user_id: client.user.as_str().into(), user_info: None });
        self.call(shard, |hub, end, _, _, clients| {
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
        let (shard, name) = (client.shard, client.channel(number));
        if CHANNELS[number] == "#user" {
            return;
        }
        client.wants.remove(&name);
        let user_id = client.channels.remove(&name).and_then(|seen| seen.user_id);
        let key = (name.clone(), client.user.clone());
        if client.pending.contains(&name) {
            // Its owner may have let it in and find no room for the answer: it cannot know that the client has unsubscribed.
            self.clients.leaving.insert(key.clone());
        }
        self.clients.unsubscribed.insert(key);
        self.call(shard, |hub, end, _, _, _| {
            hub.members.leave(id, &name.into(), user_id, Cause::Unsubscribed, &mut end.effects);
        });
    }

    fn vanish(&mut self, id: u32) {
        let client = &mut self.clients.all[id as usize];
        let (shard, user) = (client.shard, client.user.clone());
        client.has_ended = true;
        client.wants.clear();
        let (channels, pending) = (std::mem::take(&mut client.channels), client.pending.clone());
        let has_signed_in = channels.contains_key(&Channel::of_user(&user));
        for (name, _) in channels.iter().filter(|(_, seen)| seen.user_id.is_some()) {
            self.clients.lost.insert((name.clone(), user.clone()), self.now);
        }
        let left = channels.keys().chain(&pending).map(|name| (name.clone(), user.clone()));
        self.clients.leaving.extend(left);
        let place = self.clients.places.iter().position(|&one| one == id).expect("it is there");
        self.clients.places[place] = self.clients.all.len() as u32;
        self.clients.all.push(Client::new(self.clients.all.len() as u32, place));
        self.call(shard, |hub, end, _, _, _| {
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
        let (shard, user) = (client.shard, user.to_string());
        client.watches.entry(user.clone()).or_default();
        self.call(shard, |hub, end, _, _, _| {
            hub.members.watch(id, std::iter::once(Arc::from(user)), &mut end.effects);
        });
    }

    fn publish(&mut self, number: usize) {
        self.published += 1;
        let channel = if CHANNELS[number] == "#user" { Channel::of_user("1") } else { CHANNELS[number].to_owned() };
        let event = Published::published(&format!("event-{}", self.published), &Payload::from(""));
        let publication =
            Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None };
        let (app, from) = (self.app.index(), ShardIndex::new(0));
        let owner = self.network.owner(app, Some(&publication.channel));
        let bytes = publication.bytes();
        let content = Content::Command(Command::Publish(publication));
        // A publisher who is turned away has published nothing.
        drop(self.network.offer(owner, Envelope { app, from, content }, bytes));
    }

    fn client_event(&mut self, id: u32, number: usize) {
        self.published += 1;
        let client = &self.clients.all[id as usize];
        let (shard, name) = (client.shard, client.channel(number));
        // Only what backends publish is kept, so that a new subscriber of a cache channel would see a gap.
        let takes_client_events = Kind::of(&name).takes_client_events() && !Kind::of(&name).is_cache();
        if !takes_client_events || !client.channels.contains_key(&name) {
            return;
        }
        let event =
            Published::Client { name: format!("client-{id}-{}", self.published).into(), data: None, user_id: None };
        let excluded = Some(client.socket_id());
        let publication =
            Publication { channel: name.as_str().into(), event, excluded, at: Instant::now(), receipt: None };
        if self.network.owner(self.app.index(), Some(&name)).get() == shard {
            self.took(&publication);
        }
        // One that is refused was not published.
        self.call(shard, |hub, end, network, now, _| {
            let _ = end.publish(hub, publication, network, now);
        });
    }

    /// An owner takes an event now.
    fn took(&mut self, publication: &Publication) {
        let order = self.clients.order.entry((*publication.channel).to_owned()).or_default();
        order.push(publication.name().to_owned());
    }

    fn take(&mut self, shard: usize) -> bool {
        let Some(Envelope { from, content, .. }) = self.network.take(shard) else { return false };
        if let Content::Command(Command::Publish(publication)) = &content {
            self.took(publication);
        }
        self.call(shard, |hub, end, network, now, clients| end.receive(hub, from, content, network, now, clients));
        true
    }

    fn tick(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        for shard in 0..SHARDS {
            self.call(shard, |hub, end, _, now, _| hub.tick(now, &mut end.effects));
        }
    }

    /// Once nothing is under way, only those are listed who are there, or were lost within the grace.
    fn check_grace(&mut self) {
        let is_quiet = self.network.queues.borrow().iter().all(VecDeque::is_empty);
        if !is_quiet || self.clients.all.iter().any(|client| !client.pending.is_empty()) {
            return;
        }
        self.clients.unsubscribed.clear();
        let now = self.now;
        self.clients.held.extend(std::mem::take(&mut self.clients.leaving).into_iter().map(|key| (key, now)));
        for name in CHANNELS.iter().filter(|name| Kind::of(name).is_presence()) {
            let users = self.owner(name).roster(name).into_iter().flat_map(Roster::users);
            for user in users {
                let is_meant = |client: &&Client| client.user == **user && client.wants.contains(*name);
                let is_here =
                    self.clients.places.iter().map(|&id| &self.clients.all[id as usize]).any(|it| is_meant(&it));
                let held = self.clients.held.get(&((*name).to_owned(), (**user).to_owned()));
                let may_be_back = held.is_some_and(|held| now.since(*held) < self.clients.grace);
                assert!(is_here || may_be_back, "{user} should have left {name}");
            }
        }
    }

    /// Until nobody has anything more to say.
    fn come_to_rest(&mut self) {
        *self.network.is_full.borrow_mut() = [false; SHARDS];
        for _ in 0..10 {
            self.tick();
            while (0..SHARDS).any(|shard| self.take(shard)) {}
        }
    }

    fn check_limits(&self) {
        let Limits { channels, presence_members, .. } = self.app.snapshot().limits;
        for (hub, _) in &self.shards {
            assert!(hub.owner().rosters().all(|(_, roster)| roster.len() <= presence_members));
        }
        let is_occupied = |name: &&&str| self.owner(name).is_occupied(name);
        let occupied = CHANNELS.iter().filter(is_occupied).count();
        assert!(channels == 0 || occupied <= channels, "{occupied} of {channels} channels");
        // The app has counted as many.
        assert!(occupied == 0 || !self.app.open_channel(occupied), "{occupied} channels were not all counted");
        assert!(self.app.open_channel(occupied + 1), "more than {occupied} channels were counted");
        self.app.close_channel();
    }

    fn owner(&self, channel: &str) -> &Owner<u32> {
        self.shards[owner_of(Some(channel)).get()].0.owner()
    }

    fn check_at_rest(&self) {
        let there: Vec<&Client> = self.clients.places.iter().map(|&id| &self.clients.all[id as usize]).collect();
        let mut occupied = BTreeSet::new();
        for name in CHANNELS.iter().filter(|name| **name != "#user") {
            let subscribers: Vec<_> = there.iter().filter(|client| client.wants.contains(*name)).collect();
            let users: BTreeSet<String> = subscribers.iter().map(|client| client.user.clone()).collect();
            if !subscribers.is_empty() {
                occupied.insert(format!("{name} "));
            }
            if Kind::of(name).is_presence() {
                occupied.extend(users.iter().map(|user| format!("{name} {user}")));
            } else {
                let is_counted = self.app.snapshot().config.features.subscription_count && !subscribers.is_empty();
                let count = self.clients.counts.get(*name).copied();
                assert_eq!(count, is_counted.then_some(subscribers.len()), "{name}");
            }
            self.check_owner(name, &users);
            for client in subscribers {
                let seen = client.channels.get(*name).unwrap_or_else(|| panic!("{} was let in to {name}", client.id));
                assert_eq!(seen.users, Kind::of(name).is_presence().then(|| users.clone()), "{name}");
                self.check_last(client, name, seen);
            }
        }
        assert_eq!(self.clients.occupied, occupied);
        let is_online = |user: &str| there.iter().any(|client| client.is_signed_in && client.user == user);
        for client in &there {
            assert!(client.pending.is_empty(), "{:?}", client.pending);
            for (user, known) in &client.watches {
                assert_eq!(*known, Some(is_online(user)), "{} of {user}", client.id);
            }
            assert_eq!(client.is_signed_in, client.wants.contains(&Channel::of_user(&client.user)));
        }
    }

    /// The owner of a channel knows who is there, and what was published last where that is kept.
    fn check_owner(&self, name: &str, users: &BTreeSet<String>) {
        let roster = self.owner(name).roster(name);
        let present: Option<BTreeSet<String>> = roster.map(|roster| roster.users().map(ToString::to_string).collect());
        let expected = Some(users).filter(|users| Kind::of(name).is_presence() && !users.is_empty());
        assert_eq!(present.as_ref(), expected, "{name}");
        assert_eq!(self.owner(name).rosters().any(|(other, _)| **other == *name), present.is_some(), "{name}");
        let last = self.clients.order.get(name).and_then(|order| order.last());
        let kept = self.owner(name).last_event(name, self.now).map(|(publication, _)| publication.name().to_owned());
        assert_eq!(kept.as_ref(), last.filter(|_| Kind::of(name).is_cache()), "{name}");
    }

    /// Whoever has heard anything has heard the last event, too.
    fn check_last(&self, client: &Client, name: &str, seen: &Seen) {
        let own = format!("client-{}-", client.id);
        let order = self.clients.order.get(name).map_or(&[][..], |order| order);
        let last = order.iter().rfind(|one| !one.starts_with(&own));
        if let Some(heard) = &seen.last {
            assert_eq!(Some(heard), last, "{} in {name}", client.id);
        }
    }

    /// All clients go, and nothing is left of them.
    fn end(&mut self) {
        for place in 0..CLIENTS {
            self.vanish(self.clients.places[place]);
        }
        self.come_to_rest();
        self.check_limits();
        assert_eq!(self.clients.occupied, BTreeSet::new());
        for (hub, _) in &self.shards {
            assert!(hub.is_vacant(), "{hub:?}");
        }
    }
}
