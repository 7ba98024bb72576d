//! What this node holds in the engine, so that it can tell it again whenever the engine may have forgotten.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::wire::Cell;
use crate::hub::engine::Request;
use crate::pusher::channel::Channel;

/// This node's part of the cluster: subscriptions, members of presence channels, users who have signed in, and counts, by the id of the app.
///
/// It changes with every request, whether the engine is there or not. Its size is bounded by the connections and channels of the node.
#[derive(Debug, Default)]
pub(super) struct Part {
    apps: HashMap<Box<str>, Held>,
    /// Of the next request to subscribe.
    next: u64,
}

/// What the node holds of one app.
#[derive(Debug, Default)]
struct Held {
    subscriptions: HashMap<Arc<str>, Wanted>,
    members: HashMap<Arc<str>, HashMap<Arc<str>, Member>>,
    users: HashSet<Arc<str>>,
    counts: HashMap<Arc<str>, usize>,
    /// Owners have asked who is online: they want to hear of changes from then on.
    is_watching: bool,
}

/// A channel whose owner wants to hear it.
#[derive(Debug)]
struct Wanted {
    /// Of the request to subscribe.
    number: u64,
    /// The owner has been told that it is subscribed.
    is_told: bool,
}

#[derive(Debug)]
struct Member {
    user_info: Option<Box<str>>,
    /// Of the request by which the user has come.
    number: u32,
}

/// A channel to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription<'a> {
    pub(super) app: &'a str,
    pub(super) channel: &'a Arc<str>,
    /// Of the request to subscribe.
    pub(super) number: u64,
}

impl Part {
    /// Takes down what a request changes.
    pub(super) fn apply(&mut self, app: &str, request: &Request) {
        match request {
            Request::Subscribe { channel } => {
                let wanted = Wanted { number: self.next, is_told: false };
                self.next += 1;
                self.held(app).subscriptions.insert(Arc::clone(channel), wanted);
            }
            Request::Unsubscribe { channel, waited: _ } => {
                self.remove(app, |held| _ = held.subscriptions.remove(channel));
            }
            Request::Join { channel, member, number, most: _ } => {
                let members = self.held(app).members.entry(Arc::clone(channel)).or_default();
                let user_info = member.user_info.clone();
                members.insert(Arc::clone(&member.user_id), Member { user_info, number: *number });
            }
            Request::Leave { channel, user_id, waited: _ } => self.leave(app, channel, user_id, |_| true),
            Request::Count { channel, subscribers: 0 } => self.remove(app, |held| _ = held.counts.remove(channel)),
            Request::Count { channel, subscribers } => {
                self.held(app).counts.insert(Arc::clone(channel), *subscribers);
            }
            Request::SignIn { user_id } => {
                self.held(app).users.insert(Arc::clone(user_id));
            }
            Request::SignOut { user_id } => self.remove(app, |held| _ = held.users.remove(user_id)),
            Request::Online { .. } => self.held(app).is_watching = true,
            Request::Publish { .. } | Request::Members { .. } | Request::LastEvent { .. } => {}
        }
    }

    /// The engine has rejected the user's coming by the request of this number; a later one may have succeeded.
    pub(super) fn reject(&mut self, app: &str, channel: &str, user_id: &str, number: u32) {
        self.leave(app, channel, user_id, |member| member.number == number);
    }

    /// The number of the request by which the owner of the channel subscribed.
    pub(super) fn subscription(&self, app: &str, channel: &str) -> Option<u64> {
        self.apps.get(app)?.subscriptions.get(channel).map(|wanted| wanted.number)
    }

    /// The engine has confirmed the subscription of this number: whether the channel's owner is to be told. It is not if it knows already, or has
    /// given the subscription up since.
    pub(super) fn confirm(&mut self, app: &str, channel: &str, number: u64) -> bool {
        let wanted = self.apps.get_mut(app).and_then(|held| held.subscriptions.get_mut(channel));
        let wanted = wanted.filter(|wanted| wanted.number == number);
        wanted.is_some_and(|wanted| !std::mem::replace(&mut wanted.is_told, true))
    }

    /// The channels that the node wants to hear.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = Subscription<'_>> {
        self.apps.iter().flat_map(|(app, held)| {
            let wanted = held.subscriptions.iter();
            wanted.map(|(channel, wanted)| Subscription { app, channel, number: wanted.number })
        })
    }

    /// The apps whose users owners watch.
    pub(super) fn watched(&self) -> impl Iterator<Item = &str> {
        self.apps.iter().filter(|(_, held)| held.is_watching).map(|(app, _)| &**app)
    }

    /// Everything that the node holds, and what members of presence channels say of themselves.
    pub(super) fn cells(&self) -> impl Iterator<Item = (Cell<'_>, Option<&str>)> {
        self.apps.iter().flat_map(|(app, held)| {
            let occupied = held.subscriptions.keys().filter_map(|channel| occupied(app, channel));
            let members = held.members.iter().flat_map(move |(channel, members)| {
                members
                    .iter()
                    .map(move |(user_id, member)| (Cell::Member { app, channel, user_id }, member.user_info.as_deref()))
            });
            let users = held.users.iter().map(move |user_id| Cell::SignedIn { app, user_id });
            occupied.map(|cell| (cell, None)).chain(members).chain(users.map(|cell| (cell, None)))
        })
    }

    /// How long the users who are still held may be away: the longest grace of their apps. To be called once all connections have gone: who is
    /// held then may be back.
    pub(super) fn grace(&self, of: impl Fn(&str) -> Option<Duration>) -> Duration {
        let held = self.apps.iter().filter(|(_, held)| !held.members.is_empty() || !held.users.is_empty());
        held.filter_map(|(app, _)| of(app)).max().unwrap_or_default()
    }

    /// How many subscribers the node has, by app and channel, where that is counted.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, &Arc<str>, usize)> {
        self.apps
            .iter()
            .flat_map(|(app, held)| held.counts.iter().map(|(channel, subscribers)| (&**app, channel, *subscribers)))
    }

    fn held(&mut self, app: &str) -> &mut Held {
        if !self.apps.contains_key(app) {
            self.apps.insert(app.into(), Held::default());
        }
        self.apps.get_mut(app).expect("it was put there where it was missing")
    }

    fn leave(&mut self, app: &str, channel: &str, user_id: &str, is_meant: impl FnOnce(&Member) -> bool) {
        self.remove(app, |held| {
            let Some(members) = held.members.get_mut(channel) else { return };
            if members.get(user_id).is_some_and(is_meant) {
                members.remove(user_id);
            }
            if members.is_empty() {
                held.members.remove(channel);
            }
        });
    }

    /// Takes something away, and the app with the last of it.
    fn remove(&mut self, app: &str, remove: impl FnOnce(&mut Held)) {
        let Some(held) = self.apps.get_mut(app) else { return };
        remove(held);
        if held.is_empty() {
            self.apps.remove(app);
        }
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        let Self { subscriptions, members, users, counts, is_watching } = self;
        subscriptions.is_empty() && members.is_empty() && users.is_empty() && counts.is_empty() && !is_watching
    }
}

/// The cell of a channel with subscribers. The channel of one user or connection has none: nobody asks for it, and no
/// webhook tells of it.
pub(super) fn occupied<'a>(app: &'a str, channel: &'a str) -> Option<Cell<'a>> {
    (!Channel::is_hidden(channel)).then_some(Cell::Occupied { app, channel })
}

/// The latest numbers of subscribers that the engine has not been told: each channel's at most once in a while, the first at once.
#[derive(Debug)]
pub(super) struct Counts<I> {
    channels: HashMap<(Box<str>, Arc<str>), Paced<I>>,
}

impl<I> Default for Counts<I> {
    fn default() -> Self {
        Self { channels: HashMap::new() }
    }
}

#[derive(Debug)]
struct Paced<I> {
    /// Before then nothing more is told.
    next: I,
    waiting: Option<usize>,
}

impl<I: Copy + Ord> Counts<I> {
    /// Takes a new number. `next` is when the one after it may be told. Gives the number if it may be told now.
    pub(super) fn take(&mut self, app: &str, channel: &Arc<str>, subscribers: usize, now: I, next: I) -> Option<usize> {
        match self.channels.entry((app.into(), Arc::clone(channel))) {
            Entry::Vacant(entry) => {
                entry.insert(Paced { next, waiting: None });
                Some(subscribers)
            }
            Entry::Occupied(entry) if entry.get().next > now => {
                entry.into_mut().waiting = Some(subscribers);
                None
            }
            Entry::Occupied(entry) => {
                *entry.into_mut() = Paced { next, waiting: None };
                Some(subscribers)
            }
        }
    }

    /// The numbers that may be told now. Channels about which nothing waits are forgotten.
    pub(super) fn due(&mut self, now: I, next: I) -> Vec<(Box<str>, Arc<str>, usize)> {
        let mut due = Vec::new();
        self.channels.retain(|(app, channel), paced| {
            if paced.next > now {
                return true;
            }
            let Some(subscribers) = paced.waiting.take() else { return false };
            paced.next = next;
            due.push((app.clone(), Arc::clone(channel), subscribers));
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::command::PresenceMember;

    const APP: &str = "1";

    fn join(channel: &str, user_id: &str, user_info: &str, number: u32) -> Request {
        let member = PresenceMember { user_id: user_id.into(), user_info: Some(user_info.into()) };
        Request::Join { channel: channel.into(), member, number, most: 100 }
    }

    fn leave(channel: &str, user_id: &str) -> Request {
        Request::Leave { channel: channel.into(), user_id: user_id.into(), waited: Duration::ZERO }
    }

    fn subscribe(channel: &str) -> Request {
        Request::Subscribe { channel: channel.into() }
    }

    fn unsubscribe(channel: &str) -> Request {
        Request::Unsubscribe { channel: channel.into(), waited: Duration::ZERO }
    }

    fn count(channel: &str, subscribers: usize) -> Request {
        Request::Count { channel: channel.into(), subscribers }
    }

    fn part(requests: &[Request]) -> Part {
        let mut part = Part::default();
        for request in requests {
            part.apply(APP, request);
        }
        part
    }

    fn cells(part: &Part) -> Vec<(String, Option<&str>)> {
        let text = |cell: Cell<'_>| String::from_utf8(cell.write()).expect("text");
        let mut cells: Vec<_> = part.cells().map(|(cell, user_info)| (text(cell), user_info)).collect();
        cells.sort();
        cells
    }

    fn member(channel: &str, user_id: &str) -> String {
        String::from_utf8(Cell::Member { app: APP, channel, user_id }.write()).expect("text")
    }

    fn subscriptions(part: &Part) -> Vec<&str> {
        let mut subscriptions: Vec<_> = part.subscriptions().map(|it| &**it.channel).collect();
        subscriptions.sort_unstable();
        subscriptions
    }

    #[test]
    fn what_was_wanted_and_given_up_leaves_nothing() {
        let mut part = part(&[
            subscribe("a"),
            subscribe("presence-a"),
            join("presence-a", "ann", "1", 1),
            join("presence-a", "bob", "2", 2),
            count("a", 3),
            Request::SignIn { user_id: "ann".into() },
        ]);
        assert_eq!(subscriptions(&part), ["a", "presence-a"]);
        let members = [(member("presence-a", "ann"), Some("1")), (member("presence-a", "bob"), Some("2"))];
        let others = ["1:o1:11:a", "1:o1:110:presence-a", "1:s1:13:ann"].map(|cell| (cell.to_owned(), None));
        let mut all = [&members[..], &others].concat();
        all.sort();
        assert_eq!(cells(&part), all);
        assert_eq!(part.counts().collect::<Vec<_>>(), [(APP, &Arc::from("a"), 3)]);
        for request in [
            leave("presence-a", "ann"),
            leave("presence-a", "bob"),
            unsubscribe("a"),
            unsubscribe("presence-a"),
            count("a", 0),
            Request::SignOut { user_id: "ann".into() },
        ] {
            assert!(!part.apps.is_empty(), "before {request:?}");
            part.apply(APP, &request);
        }
        assert!(part.apps.is_empty(), "{part:?}");
    }

    #[test]
    fn what_is_given_up_twice_or_was_never_held_does_not_matter() {
        let mut part = part(&[leave("presence-a", "ann"), unsubscribe("a"), count("a", 0)]);
        part.apply(APP, &Request::SignOut { user_id: "ann".into() });
        assert!(part.apps.is_empty());
        part.apply(APP, &join("presence-a", "ann", "1", 1));
        part.apply(APP, &leave("presence-b", "ann"));
        part.apply(APP, &leave("presence-a", "bob"));
        assert_eq!(cells(&part), [(member("presence-a", "ann"), Some("1"))]);
    }

    #[test]
    fn apps_do_not_mix() {
        let mut part = part(&[subscribe("a")]);
        part.apply("2", &subscribe("a"));
        part.apply(APP, &unsubscribe("a"));
        assert_eq!(part.subscriptions().map(|it| it.app).collect::<Vec<_>>(), ["2"]);
        assert!(part.subscription("2", "a").is_some() && part.subscription(APP, "a").is_none());
    }

    #[test]
    fn a_user_who_was_rejected_is_not_held_unless_it_has_come_again_since() {
        let mut part = part(&[join("presence-a", "ann", "old", 1), join("presence-a", "ann", "new", 2)]);
        part.reject(APP, "presence-a", "ann", 1);
        assert_eq!(cells(&part), [(member("presence-a", "ann"), Some("new"))]);
        part.reject(APP, "presence-a", "ann", 2);
        assert!(part.apps.is_empty());
        part.reject(APP, "presence-a", "ann", 2);
    }

    #[test]
    fn an_owner_is_told_once_that_its_channel_is_subscribed() {
        let mut part = part(&[subscribe("a"), subscribe("b")]);
        let numbers: Vec<_> = part.subscriptions().map(|it| (Arc::clone(it.channel), it.number)).collect();
        for (channel, number) in numbers {
            assert_eq!(part.subscription(APP, &channel), Some(number));
            assert!(part.confirm(APP, &channel, number), "{channel}");
            assert!(!part.confirm(APP, &channel, number), "{channel}, again");
        }
        assert!(!part.confirm(APP, "c", 0));
        let first = part.subscription(APP, "a").expect("subscribed");
        part.apply(APP, &unsubscribe("a"));
        assert!(!part.confirm(APP, "a", first));
        part.apply(APP, &subscribe("a"));
        assert!(!part.confirm(APP, "a", first), "what was confirmed has been given up since");
        let second = part.subscription(APP, "a").expect("subscribed");
        assert!(part.confirm(APP, "a", second));
    }

    #[test]
    fn the_channel_of_one_user_is_subscribed_but_not_occupied() {
        let part = part(&[subscribe("#server-to-user-ann")]);
        assert_eq!(subscriptions(&part), ["#server-to-user-ann"]);
        assert_eq!(cells(&part), []);
        assert_eq!(occupied(APP, "a"), Some(Cell::Occupied { app: APP, channel: "a" }));
    }

    #[test]
    fn whoever_has_asked_for_online_users_watches_the_app_from_then_on() {
        let mut part = part(&[Request::Online { user_ids: [Arc::from("ann")].into(), number: 1 }]);
        assert_eq!(part.watched().collect::<Vec<_>>(), [APP]);
        part.apply(APP, &subscribe("a"));
        part.apply(APP, &unsubscribe("a"));
        assert_eq!(part.watched().collect::<Vec<_>>(), [APP]);
        part.apply("2", &subscribe("a"));
        assert_eq!(part.watched().collect::<Vec<_>>(), [APP], "the other app does not");
    }

    #[test]
    fn questions_and_events_are_not_held() {
        let part = part(&[
            Request::Members { channel: "presence-a".into() },
            Request::LastEvent { channel: "cache-a".into(), is_missed: true },
        ]);
        assert!(part.apps.is_empty());
    }

    #[test]
    fn the_first_count_is_told_at_once_and_then_the_latest_once_in_a_while() {
        let (mut counts, a, b) = (Counts::default(), Arc::from("a"), Arc::from("b"));
        assert_eq!(counts.take(APP, &a, 1, 0, 10), Some(1));
        assert_eq!(counts.take(APP, &a, 2, 1, 11), None);
        assert_eq!(counts.take(APP, &a, 3, 9, 19), None);
        assert_eq!(counts.take(APP, &b, 7, 9, 19), Some(7), "each channel for itself");
        assert_eq!(counts.due(9, 19), []);
        assert_eq!(counts.due(10, 20), [(APP.into(), a.clone(), 3)]);
        assert_eq!(counts.take(APP, &a, 4, 19, 29), None);
        assert_eq!(counts.take(APP, &a, 5, 20, 30), Some(5), "the one before it need not be told any more");
        assert_eq!(counts.due(29, 39), []);
        assert_eq!(counts.due(30, 40), []);
        assert!(counts.channels.is_empty(), "a quiet channel takes no memory");
        assert_eq!(counts.take(APP, &a, 6, 31, 41), Some(6));
    }
}
