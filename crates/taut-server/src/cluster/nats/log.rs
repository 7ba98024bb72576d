//! What follows from the log that all nodes of a cluster on NATS write and read.
//!
//! Each node writes what it holds under its incarnation, and reads everything in the order in which the stream has it. Whether a user is the first
//! or the last of its id anywhere, how many subscribers a channel has, who is dead and who tells webhooks: all of that is a function of the log, so
//! no node has to ask another one, and all of them pass through the same states.
//!
//! The stream keeps the last entry of each subject, that is, of each incarnation and thing that it can hold. So a node that begins to read late
//! sees a shorter log; it comes to the same state. That is why nothing here depends on entries that later ones replace, and why the
//! `user_info` of a user is the one of the oldest entry that still counts.
//!
//! No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Content, Entry, Holding, Key, Told};
use crate::cluster::backlog::Place;
use crate::cluster::shares::Draw;
use crate::events::Event;
use crate::hub::command::PresenceMember;
use crate::hub::engine::{Change, Difference, Epoch, Position};
use crate::pusher::channel::Kind;
use crate::query::Occupancy;

/// One node's copy of all that is held in the cluster. Its size is bounded by that.
#[derive(Debug)]
pub(super) struct Log {
    epoch: Epoch,
    /// The sequence of the last entry that was read.
    sequence: u64,
    /// When it was written, by the server's clock, in milliseconds.
    at: u64,
    /// Changes that it has made.
    changes: u64,
    /// Things that webhooks tell of, and that it has made happen.
    happened: u64,
    /// The number of the last change of presence channels about which nothing more exact is known.
    base: u64,
    /// Those that live.
    incarnations: HashMap<Arc<str>, Incarnation>,
    /// The same in the order in which they have come.
    order: BTreeMap<u64, Arc<str>>,
    /// Those whose fence is still in the log.
    fenced: BTreeSet<Arc<str>>,
    tidied: Tidied,
    apps: HashMap<Arc<str>, App>,
    untold: Untold,
    /// Channels without subscribers whose last event somebody has looked for in vain: nothing else ends that.
    lonely: VecDeque<(Arc<str>, Arc<str>)>,
}

/// What webhooks have not been told.
type Untold = VecDeque<Happened>;

/// Something that webhooks tell of.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    /// The sequence of the entry that has made it so, and how many others that has made so before.
    pub(super) place: Place,
    /// When it was written, by the server's clock, in milliseconds.
    pub(super) at: u64,
    pub(super) app: Arc<str>,
    pub(super) event: Event,
    /// For how long it was held back.
    pub(super) waited: Duration,
}

/// Up to where entries may have been taken out of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tidied {
    /// The sequence of the entry that says so; 0 if there is none.
    pub(super) sequence: u64,
    pub(super) up_to: u64,
}

/// What an entry has changed, beside what is only there to be asked for.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Changed {
        app: Arc<str>,
        channel: Arc<str>,
        change: Change,
    },
    Counted {
        app: Arc<str>,
        channel: Arc<str>,
        subscribers: usize,
    },
    Status {
        app: Arc<str>,
        user_id: Arc<str>,
        is_online: bool,
    },
    /// The channel had as many users as it may have: the incarnation does not hold this, and takes it back.
    Full {
        incarnation: Arc<str>,
        key: Key,
    },
    /// The incarnation is dead; it may have been before.
    Fenced {
        incarnation: Arc<str>,
    },
    /// Something was written under an incarnation that is dead or was never there. It is only in the way.
    Void {
        incarnation: Arc<str>,
    },
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) name: Box<str>,
    pub(super) version: Box<str>,
    pub(super) connections: u64,
}

#[derive(Debug)]
struct Incarnation {
    entered: u64,
    /// The sequence of its last renewal; 0 before the first one.
    renewed: u64,
    said: Option<Said>,
    /// It has left, and what it holds stays for this long.
    grace: Option<Duration>,
    keys: HashSet<Key>,
}

#[derive(Debug, Default)]
struct App {
    channels: HashMap<Arc<str>, Channel>,
    /// Users who have signed in, and where.
    users: HashMap<Arc<str>, Vec<Arc<str>>>,
    shares: Shares,
}

/// What incarnations have of an app's connections.
#[derive(Debug, Default)]
struct Shares {
    /// The sequence of the entry that says so; 0 if there is none.
    sequence: u64,
    shares: Vec<(Box<str>, usize)>,
}

#[derive(Debug, Default)]
struct Channel {
    occupied: Vec<Arc<str>>,
    /// Of each user those who hold it, in the order of the log.
    members: HashMap<Arc<str>, Vec<Cell>>,
    counts: HashMap<Arc<str>, usize>,
    /// Of the last change of its members, while there are any.
    number: Option<u64>,
    /// What was kept last when somebody looked in vain.
    missed: Option<u64>,
}

/// A member as one incarnation has it.
#[derive(Debug)]
struct Cell {
    incarnation: Arc<str>,
    user_info: Option<Box<str>>,
}

impl Log {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            sequence: 0,
            at: 0,
            changes: 0,
            happened: 0,
            base: 0,
            incarnations: HashMap::new(),
            order: BTreeMap::new(),
            fenced: BTreeSet::new(),
            tidied: Tidied::default(),
            apps: HashMap::new(),
            untold: VecDeque::new(),
            lonely: VecDeque::new(),
        }
    }

    /// The sequence of the last entry that was read.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All that was there when this node came has been read. Numbers go on from here, and so does what webhooks are told, unless this node knows from
    /// before what has happened: if `is_continued`.
    pub(super) fn begin(&mut self, is_continued: bool) {
        self.base = self.sequence << CHANGE_BITS;
        for app in self.apps.values_mut() {
            for channel in app.channels.values_mut() {
                channel.number = channel.number.map(|_| self.base);
            }
        }
        if !is_continued {
            self.untold.clear();
        }
    }

    /// Reads the next entry, which was written `at` this millisecond by the server's clock.
    pub(super) fn apply(&mut self, sequence: u64, at: u64, entry: Entry, out: &mut Vec<Outcome>) {
        (self.sequence, self.at, self.changes, self.happened) = (sequence, at, 0, 0);
        let Entry { incarnation, content } = entry;
        match content {
            Content::Entered => return self.enter(incarnation),
            Content::Fenced => return self.fence(&incarnation, out),
            // Whoever wrote it has followed whatever was written before, and those who are dead have no share.
            Content::Shared { app, shares } => {
                self.apps.entry(app).or_default().shares = Shares { sequence, shares };
                return;
            }
            Content::Tidied { up_to } => {
                self.tidied = Tidied { sequence, up_to };
                return;
            }
            _ => {}
        }
        let Some((incarnation, _)) = self.incarnations.get_key_value(&incarnation) else {
            return out.push(Outcome::Void { incarnation });
        };
        let incarnation = Arc::clone(incarnation);
        match content {
            Content::Renewed { name, version, connections } => {
                let known = self.living(&incarnation);
                (known.renewed, known.said) = (sequence, Some(Said { name, version, connections }));
            }
            Content::Told { sequence, beyond } => self.told(sequence, &beyond),
            Content::Missed { app, channel, number } => self.missed(&app, &channel, number),
            Content::Holds(holding) => self.hold(&incarnation, holding, out),
            Content::Released { key, waited } => self.release(&incarnation, &key, waited, out),
            Content::Left { grace } => self.leaves(&incarnation, grace),
            Content::Entered | Content::Fenced | Content::Shared { .. } | Content::Tidied { .. } => {
                unreachable!("they are above")
            }
        }
    }

    /// Another message of the stream, which is no entry.
    pub(super) fn skip(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    fn living(&mut self, incarnation: &str) -> &mut Incarnation {
        self.incarnations.get_mut(incarnation).expect("it was looked up before")
    }

    fn enter(&mut self, incarnation: Arc<str>) {
        if self.fenced.contains(&incarnation) || self.incarnations.contains_key(&incarnation) {
            return;
        }
        self.order.insert(self.sequence, Arc::clone(&incarnation));
        let entered = Incarnation { entered: self.sequence, renewed: 0, said: None, grace: None, keys: HashSet::new() };
        self.incarnations.insert(incarnation, entered);
    }

    fn fence(&mut self, incarnation: &Arc<str>, out: &mut Vec<Outcome>) {
        self.fenced.insert(Arc::clone(incarnation));
        if let Some(dead) = self.incarnations.remove(incarnation) {
            self.order.remove(&dead.entered);
            let waited = dead.grace.unwrap_or_default();
            let mut keys: Vec<_> = dead.keys.into_iter().collect();
            // The same order on every node.
            keys.sort_unstable();
            for key in keys {
                self.gone(incarnation, &key, waited, out);
            }
        }
        out.push(Outcome::Fenced { incarnation: Arc::clone(incarnation) });
    }

    /// It is no node any longer.
    fn leaves(&mut self, incarnation: &str, grace: Duration) {
        let sequence = self.sequence;
        let known = self.living(incarnation);
        (known.renewed, known.said, known.grace) = (sequence, None, Some(grace));
        let entered = known.entered;
        self.order.remove(&entered);
    }

    /// The fence has been taken out of the log.
    pub(super) fn forget(&mut self, incarnation: &str) {
        self.fenced.remove(incarnation);
    }

    fn told(&mut self, sequence: u64, beyond: &Told) {
        let last = sequence.max(beyond.last);
        let count = self.untold.iter().take_while(|next| next.place.0 <= last).count();
        let is_held = |next: &Happened| next.place.0 > sequence && beyond.held.contains(&next.place);
        let held: Vec<_> = self.untold.drain(..count).filter(is_held).collect();
        for held in held.into_iter().rev() {
            self.untold.push_front(held);
        }
    }

    fn hold(&mut self, incarnation: &Arc<str>, holding: Holding, out: &mut Vec<Outcome>) {
        let key = holding.key();
        match holding {
            Holding::Occupied { app, channel } => {
                let occupied = &mut self.channel(&app, &channel).occupied;
                if add(occupied, incarnation) && occupied.len() == 1 {
                    self.happened(&app, Event::ChannelOccupied { channel });
                }
            }
            Holding::SignedIn { app, user_id } => {
                let app_state = self.apps.entry(Arc::clone(&app)).or_default();
                let holders = app_state.users.entry(Arc::clone(&user_id)).or_default();
                if add(holders, incarnation) && holders.len() == 1 {
                    out.push(Outcome::Status { app, user_id, is_online: true });
                }
            }
            Holding::Member { app, channel, user_id, user_info, most } => {
                if !self.join(incarnation, &app, &channel, &user_id, user_info, most, out) {
                    return out.push(Outcome::Full { incarnation: Arc::clone(incarnation), key });
                }
            }
            Holding::Counted { app, channel, subscribers, former } => {
                self.count(incarnation, &app, &channel, subscribers, &former, out);
            }
        }
        self.living(incarnation).keys.insert(key);
    }

    /// Whether there was room for the user.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of one entry")]
    fn join(
        &mut self,
        incarnation: &Arc<str>,
        app: &Arc<str>,
        channel: &Arc<str>,
        user_id: &Arc<str>,
        user_info: Option<Box<str>>,
        most: usize,
        out: &mut Vec<Outcome>,
    ) -> bool {
        let state = self.channel(app, channel);
        if let Some(cells) = state.members.get_mut(user_id) {
            cells.retain(|cell| cell.incarnation != *incarnation);
            // At the end: it is the youngest now.
            cells.push(Cell { incarnation: Arc::clone(incarnation), user_info });
            return true;
        }
        if most > 0 && state.members.len() >= most {
            return false;
        }
        let cell = Cell { incarnation: Arc::clone(incarnation), user_info: user_info.clone() };
        state.members.insert(Arc::clone(user_id), vec![cell]);
        let member = PresenceMember { user_id: Arc::clone(user_id), user_info };
        self.changed(app, channel, Difference::Added(member), out);
        self.happened(app, Event::MemberAdded { channel: Arc::clone(channel), user_id: Arc::clone(user_id) });
        true
    }

    fn count(
        &mut self,
        incarnation: &Arc<str>,
        app: &Arc<str>,
        channel: &Arc<str>,
        subscribers: usize,
        former: &[Box<str>],
        out: &mut Vec<Outcome>,
    ) {
        let state = self.channel(app, channel);
        let before = state.subscribers();
        for incarnation in former {
            state.counts.remove(&**incarnation);
        }
        state.counts.insert(Arc::clone(incarnation), subscribers);
        self.counted(app, channel, before, out);
    }

    /// Subscribers have been counted. Nodes hear of it in any case, since one that comes back has missed what was told before.
    fn counted(&mut self, app: &Arc<str>, channel: &Arc<str>, before: usize, out: &mut Vec<Outcome>) {
        let subscribers = self.channel(app, channel).subscribers();
        if subscribers > 0 {
            out.push(Outcome::Counted { app: Arc::clone(app), channel: Arc::clone(channel), subscribers });
        }
        if subscribers > 0 && subscribers != before {
            self.happened(app, Event::SubscriptionCount { channel: Arc::clone(channel), count: subscribers });
        }
        self.tidy(app, channel);
    }

    fn release(&mut self, incarnation: &Arc<str>, key: &Key, waited: Duration, out: &mut Vec<Outcome>) {
        if self.living(incarnation).keys.remove(key) {
            self.gone(incarnation, key, waited, out);
        }
    }

    /// An incarnation has held this, and does not any longer.
    fn gone(&mut self, incarnation: &Arc<str>, key: &Key, waited: Duration, out: &mut Vec<Outcome>) {
        match key {
            Key::Occupied { app, channel } => {
                let state = self.channel(app, channel);
                state.occupied.retain(|it| it != incarnation);
                if state.occupied.is_empty() {
                    state.missed = None;
                    self.happened_late(app, Event::ChannelVacated { channel: Arc::clone(channel) }, waited);
                }
                self.tidy(app, channel);
            }
            Key::Member { app, channel, user_id } => self.leave(incarnation, app, channel, user_id, waited, out),
            Key::SignedIn { app, user_id } => {
                let Some(state) = self.apps.get_mut(app) else { return };
                let Some(holders) = state.users.get_mut(user_id) else { return };
                holders.retain(|it| it != incarnation);
                if holders.is_empty() {
                    state.users.remove(user_id);
                    self.tidy_app(app);
                    let (app, user_id) = (Arc::clone(app), Arc::clone(user_id));
                    out.push(Outcome::Status { app, user_id, is_online: false });
                }
            }
            Key::Counted { app, channel } => {
                let state = self.channel(app, channel);
                let before = state.subscribers();
                state.counts.remove(incarnation);
                self.counted(app, channel, before, out);
            }
        }
    }

    fn leave(
        &mut self,
        incarnation: &Arc<str>,
        app: &Arc<str>,
        channel: &Arc<str>,
        user_id: &Arc<str>,
        waited: Duration,
        out: &mut Vec<Outcome>,
    ) {
        let state = self.channel(app, channel);
        let Some(cells) = state.members.get_mut(user_id) else { return };
        cells.retain(|cell| cell.incarnation != *incarnation);
        if !cells.is_empty() {
            return;
        }
        state.members.remove(user_id);
        self.changed(app, channel, Difference::Removed(Arc::clone(user_id)), out);
        let removed = Event::MemberRemoved { channel: Arc::clone(channel), user_id: Arc::clone(user_id) };
        self.happened_late(app, removed, waited);
        self.tidy(app, channel);
    }

    /// The first one who looks in vain is told of, and then nobody before something else was kept, or the channel was vacated.
    fn missed(&mut self, app: &Arc<str>, channel: &Arc<str>, number: u64) {
        let state = self.channel(app, channel);
        if state.missed == Some(number) {
            return;
        }
        state.missed = Some(number);
        if state.occupied.is_empty() {
            self.lonely.push_back((Arc::clone(app), Arc::clone(channel)));
        }
        self.happened(app, Event::CacheMiss { channel: Arc::clone(channel) });
        if self.lonely.len() > MOST_LONELY {
            self.forget_lonely();
        }
    }

    fn forget_lonely(&mut self) {
        let Some((app, channel)) = self.lonely.pop_front() else { return };
        let state = self.channel(&app, &channel);
        if state.occupied.is_empty() {
            state.missed = None;
        }
        self.tidy(&app, &channel);
    }

    fn changed(&mut self, app: &Arc<str>, channel: &Arc<str>, difference: Difference, out: &mut Vec<Outcome>) {
        // Later entries have greater numbers, however many changes this one makes.
        let number = (self.sequence << CHANGE_BITS) | self.changes.min((1 << CHANGE_BITS) - 1);
        self.changes += 1;
        let epoch = self.epoch;
        let state = self.channel(app, channel);
        let previous = state.number.unwrap_or(0);
        state.number = (!state.members.is_empty()).then_some(number);
        let change = Change { position: Position { epoch, number }, previous, difference };
        out.push(Outcome::Changed { app: Arc::clone(app), channel: Arc::clone(channel), change });
    }

    fn happened(&mut self, app: &Arc<str>, event: Event) {
        self.happened_late(app, event, Duration::ZERO);
    }

    fn happened_late(&mut self, app: &Arc<str>, event: Event, waited: Duration) {
        // The bound only matters if no node tells anything for long.
        if self.untold.len() >= MOST_UNTOLD {
            self.untold.pop_front();
        }
        let place = (self.sequence, self.happened);
        self.happened += 1;
        self.untold.push_back(Happened { place, at: self.at, app: Arc::clone(app), event, waited });
    }

    fn channel(&mut self, app: &Arc<str>, channel: &Arc<str>) -> &mut Channel {
        let app = self.apps.entry(Arc::clone(app)).or_default();
        app.channels.entry(Arc::clone(channel)).or_default()
    }

    /// A channel without anything takes no memory.
    fn tidy(&mut self, app: &str, channel: &str) {
        let Some(state) = self.apps.get_mut(app) else { return };
        if state.channels.get(channel).is_some_and(Channel::is_empty) {
            state.channels.remove(channel);
            self.tidy_app(app);
        }
    }

    fn tidy_app(&mut self, app: &str) {
        let is_empty = |state: &App| state.channels.is_empty() && state.users.is_empty() && state.shares.sequence == 0;
        if self.apps.get(app).is_some_and(is_empty) {
            self.apps.remove(app);
        }
    }
}

// What can be asked.
impl Log {
    /// The position of the last change of a presence channel. One without users has none: any change from now on comes after this.
    pub(super) fn position(&self, app: &str, channel: &str) -> Position {
        let known = self.known(app, channel).and_then(|state| state.number);
        let number = known.unwrap_or(((self.sequence + 1) << CHANGE_BITS) - 1);
        Position { epoch: self.epoch, number }
    }

    /// The users in a presence channel.
    pub(super) fn members(&self, app: &str, channel: &str) -> Vec<PresenceMember> {
        let members = self.known(app, channel).map(|state| state.members.iter());
        let member = |(user_id, cells): (&Arc<str>, &Vec<Cell>)| {
            let user_info = cells.first().and_then(|cell| cell.user_info.clone());
            PresenceMember { user_id: Arc::clone(user_id), user_info }
        };
        members.into_iter().flatten().map(member).collect()
    }

    pub(super) fn users(&self, app: &str, channel: &str) -> Vec<Arc<str>> {
        let members = self.known(app, channel).map(|state| state.members.keys());
        members.into_iter().flatten().cloned().collect()
    }

    pub(super) fn is_online(&self, app: &str, user_id: &str) -> bool {
        self.apps.get(app).is_some_and(|state| state.users.contains_key(user_id))
    }

    /// Subscribers are as many as are counted, and at least 1 if there are any.
    pub(super) fn occupancy(&self, app: &str, channel: &str) -> Occupancy {
        let users = self.known(app, channel).map_or(0, |state| state.members.len());
        let least = self.known(app, channel).map_or(0, |state| usize::from(!state.occupied.is_empty()));
        let subscribers = self.known(app, channel).map_or(0, Channel::subscribers);
        let users = Kind::of(channel).is_presence().then_some(users);
        Occupancy { subscriptions: subscribers.max(least), users }
    }

    /// The occupied channels of an app whose names begin so.
    pub(super) fn occupied(&self, app: &str, prefix: &str) -> BTreeMap<Arc<str>, Occupancy> {
        let channels = self.apps.get(app).map(|state| state.channels.iter());
        let occupied = channels.into_iter().flatten().filter(|(_, state)| !state.occupied.is_empty());
        let named = occupied.filter(|(name, _)| name.starts_with(prefix));
        named.map(|(name, _)| (Arc::clone(name), self.occupancy(app, name))).collect()
    }

    /// Whether it is known already that the last event of a channel was looked for in vain, event `number` being the last one that was kept.
    pub(super) fn is_missed(&self, app: &str, channel: &str, number: u64) -> bool {
        self.known(app, channel).is_some_and(|state| state.missed == Some(number))
    }

    /// How many connections of an app this incarnation may have of so many that it wants, and what all have then. It has some already. `former` are the
    /// incarnations of the same node. Also the sequence of the entry in whose place that stands.
    pub(super) fn share(
        &self,
        incarnation: &str,
        former: &[Box<str>],
        draw: &Draw,
    ) -> (usize, Vec<(Box<str>, usize)>, u64) {
        let known = self.apps.get(&*draw.app).map(|state| &state.shares);
        // Those who have left serve nobody any longer.
        let is_there = |it: &str| self.incarnations.get(it).is_some_and(|known| known.grace.is_none());
        let is_other = |it: &&(Box<str>, usize)| *it.0 != *incarnation && !former.contains(&it.0) && is_there(&it.0);
        let others = known.into_iter().flat_map(|known| &known.shares).filter(is_other);
        let mut shares: Vec<_> = others.cloned().collect();
        let sum = shares.iter().fold(0_usize, |sum, (_, share)| sum.saturating_add(*share));
        let granted = draw.wanted.min(draw.most.saturating_sub(sum));
        let own = granted.max(draw.taken);
        if own > 0 {
            shares.push((incarnation.into(), own));
        }
        (granted, shares, known.map_or(0, |known| known.sequence))
    }

    /// Those who have left, and whose users may still be back: until when, counted from then, and the sequence at which they have left.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (&Arc<str>, u64, Duration)> {
        self.incarnations.iter().filter_map(|(incarnation, known)| Some((incarnation, known.renewed, known.grace?)))
    }

    /// The incarnations that live and have not left, in the order in which they have come; of each the sequence of its last renewal, and what it says of itself.
    pub(super) fn living_in_order(&self) -> impl Iterator<Item = (&Arc<str>, u64, Option<&Said>)> {
        self.order.values().filter_map(|incarnation| {
            let known = self.incarnations.get(incarnation)?;
            Some((incarnation, known.renewed, known.said.as_ref()))
        })
    }

    pub(super) fn is_alive(&self, incarnation: &str) -> bool {
        self.incarnations.contains_key(incarnation)
    }

    /// The incarnation that has been here for the longest time: it tells webhooks, since it knows most, and tidies up.
    pub(super) fn eldest(&self) -> Option<&Arc<str>> {
        self.order.values().next()
    }

    /// The sequence at which the next eldest has come: it does not know what had happened by then. `None` if there is nobody.
    pub(super) fn heir(&self) -> Option<u64> {
        self.order.keys().nth(1).copied()
    }

    /// Those whose fence is still in the log.
    pub(super) fn fenced(&self) -> impl Iterator<Item = &Arc<str>> {
        self.fenced.iter()
    }

    pub(super) fn tidied(&self) -> Tidied {
        self.tidied
    }

    /// What webhooks have not been told.
    pub(super) fn untold(&self) -> impl Iterator<Item = &Happened> {
        self.untold.iter()
    }

    fn known(&self, app: &str, channel: &str) -> Option<&Channel> {
        self.apps.get(app)?.channels.get(channel)
    }
}

impl Channel {
    fn subscribers(&self) -> usize {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn is_empty(&self) -> bool {
        let Self { occupied, members, counts, number: _, missed } = self;
        occupied.is_empty() && members.is_empty() && counts.is_empty() && missed.is_none()
    }
}

/// Whether it is new there.
fn add(holders: &mut Vec<Arc<str>>, incarnation: &Arc<str>) -> bool {
    let is_new = !holders.contains(incarnation);
    if is_new {
        holders.push(Arc::clone(incarnation));
    }
    is_new
}

/// The changes that one entry makes, a fence many, have numbers of their own behind the entry's sequence.
const CHANGE_BITS: u32 = 24;

/// Channels without subscribers of which it is known that their last event was looked for in vain.
const MOST_LONELY: usize = 1024;

/// Things that webhooks are still to be told.
const MOST_UNTOLD: usize = 100_000;

#[cfg(test)]
mod tests;
