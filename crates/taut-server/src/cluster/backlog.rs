//! What webhooks are still to be told of the cluster, as the node sees it whose turn that is.
//!
//! A removal is held back for three seconds in case it is undone. Meanwhile it stays in the engine: if this node stops or dies, the next one goes on
//! where it was, with everything that it has not told. So a user who moves to another node is gone and back for webhooks on no node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Happened, Owners};
use crate::apps::App;
use crate::grace::{GRACE, Grace};
use crate::hub::engine::Epoch;

/// What has been read and is not told, and what is told and stands in the engine yet.
#[derive(Debug)]
pub(super) struct Backlog {
    grace: Grace<Instant, Held>,
    /// An engine has one or several.
    streams: HashMap<Stream, Settled>,
    most: usize,
}

/// Numbers the streams of an engine in which it stands what has happened.
pub(super) type Stream = usize;

/// A place in a stream: later ones are greater.
pub(super) type Place = (u64, u64);

#[derive(Debug)]
struct Held {
    app: Arc<App>,
    happened: Happened,
    /// When it was read.
    since: Instant,
    /// Where it stands; `None`: the engine has forgotten it.
    place: Option<(Stream, Place)>,
}

/// What was told, or undone, and the engine does not know that.
#[derive(Debug)]
struct Settled {
    epoch: Epoch,
    places: BTreeSet<Place>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { grace: Grace::new(), streams: HashMap::new(), most: usize::MAX }
    }
}

impl Backlog {
    /// This node is going to read a stream from its beginning.
    ///
    /// What it held back from the same memory of the engine stands there yet, unless another node has told it meanwhile. If that memory is lost, nobody
    /// else knows of it.
    pub(super) fn begin(&mut self, stream: Stream, epoch: Epoch) {
        if self.streams.get(&stream).is_some_and(|settled| settled.epoch != epoch) {
            self.lose(stream);
        }
        self.grace.retain(|held| held.place.is_none_or(|(of, _)| of != stream));
        self.streams.entry(stream).or_insert(Settled { epoch, places: BTreeSet::new() });
    }

    /// Holds no more than so many removals back. Further ones are told at once, as those who deliver hold some back as well.
    pub(super) fn hold_at_most(&mut self, most: usize) {
        self.most = most;
    }

    /// The next thing in a stream: it is told, held back, or undoes what is. A removal is held back even if that was done for long enough: what has
    /// undone it in time may come next.
    pub(super) fn take(
        &mut self,
        stream: Stream,
        place: Place,
        app: &Arc<App>,
        happened: Happened,
        now: Instant,
        owners: &dyn Owners,
    ) {
        if self.settled(stream).contains(&place) {
            return;
        }
        // What nobody had undone by then.
        self.tell_due(before(now, happened.ago), owners);
        if let Some(undone) = self.grace.undo(app, &happened.event) {
            self.settle(stream, place);
            return self.settle_held(&undone);
        }
        // Where nobody is told, nothing need wait.
        if self.grace.len() >= self.most || app.snapshot().config.webhooks.is_empty() {
            owners.happened(app, happened);
            return self.settle(stream, place);
        }
        let (event, due) = (happened.event.clone(), before(now + GRACE, happened.waited));
        let held = Held { app: Arc::clone(app), happened, since: now, place: Some((stream, place)) };
        match self.grace.hold(app, &event, due, held) {
            Ok(None) => {}
            // It stands for the one before.
            Ok(Some(replaced)) => self.settle_held(&replaced),
            Err(held) => self.tell(held, now, owners),
        }
    }

    /// Something in a stream that nobody understands, or whose app is not known here.
    pub(super) fn skip(&mut self, stream: Stream, place: Place) {
        self.settle(stream, place);
    }

    /// Whether a removal may have been held back for long enough.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.grace.is_due(now)
    }

    /// Tells the removals that are ones after all, once the streams have been read to their ends.
    pub(super) fn tell_due(&mut self, now: Instant, owners: &dyn Owners) {
        while let Some(held) = self.grace.take_due(now) {
            self.tell(held, now, owners);
        }
    }

    /// The engine has forgotten a stream, or what this node has read of it.
    pub(super) fn lose(&mut self, stream: Stream) {
        self.streams.remove(&stream);
        self.grace.retain(|held| {
            held.place = held.place.filter(|(of, _)| *of != stream);
            true
        });
    }

    /// Tells what is held back of a stream up to a place.
    pub(super) fn tell_up_to(&mut self, stream: Stream, last: Place, now: Instant, owners: &dyn Owners) {
        let mut due = self.grace.take_if(|held| held.place.is_some_and(|(of, place)| of == stream && place <= last));
        due.sort_by_key(|held| held.place);
        for held in due {
            self.tell(held, now, owners);
        }
    }

    /// Tells all that is held back. That is for the last node, and for one that does not know whether there is another.
    pub(super) fn tell_all(&mut self, now: Instant, owners: &dyn Owners) {
        while let Some(held) = self.grace.take_any() {
            self.tell(held, now, owners);
        }
    }

    /// Tells what the engine has forgotten, and leaves the rest to the next node.
    pub(super) fn tell_lost(&mut self, now: Instant, owners: &dyn Owners) {
        self.grace.retain(|held| held.place.is_none());
        self.tell_all(now, owners);
    }

    /// Places in a stream that the engine can forget, in their order.
    pub(super) fn settled(&self, stream: Stream) -> &BTreeSet<Place> {
        const NONE: &BTreeSet<Place> = &BTreeSet::new();
        self.streams.get(&stream).map_or(NONE, |settled| &settled.places)
    }

    /// The engine has forgotten these places.
    pub(super) fn forgotten(&mut self, stream: Stream, mut is_forgotten: impl FnMut(&Place) -> bool) {
        if let Some(settled) = self.streams.get_mut(&stream) {
            settled.places.retain(|place| !is_forgotten(place));
        }
    }

    /// Places in a stream at which removals stand that are held back, in their order.
    pub(super) fn held(&self, stream: Stream) -> BTreeSet<Place> {
        let places = self.grace.all().filter_map(|held| held.place);
        places.filter(|(of, _)| *of == stream).map(|(_, place)| place).collect()
    }

    /// How many removals are held back.
    pub(super) fn len(&self) -> usize {
        self.grace.len()
    }

    fn tell(&mut self, held: Held, now: Instant, owners: &dyn Owners) {
        self.settle_held(&held);
        let Held { app, happened: Happened { event, waited, ago }, since, place: _ } = held;
        let since = now.saturating_duration_since(since);
        owners.happened(&app, Happened { event, waited: waited + since, ago: ago + since });
    }

    fn settle_held(&mut self, held: &Held) {
        if let Some((stream, place)) = held.place {
            self.settle(stream, place);
        }
    }

    fn settle(&mut self, stream: Stream, place: Place) {
        if let Some(settled) = self.streams.get_mut(&stream) {
            settled.places.insert(place);
        }
    }
}

/// As long before a time as this process can count.
fn before(time: Instant, duration: Duration) -> Instant {
    time.checked_sub(duration).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::app::{AppConfig, Limits, Webhook};
    use crate::apps::{Apps, Granted};
    use crate::cluster::Done;
    use crate::events::Event;
    use crate::hub::engine::{Standing, Update};

    /// What webhooks are told, and for how long it was held back and ago, in milliseconds.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<(String, u128, u128)>>);

    impl Told {
        fn all(&self) -> Vec<(String, u128, u128)> {
            std::mem::take(&mut self.0.lock().expect("not poisoned"))
        }

        fn names(&self) -> Vec<String> {
            self.all().into_iter().map(|(name, ..)| name).collect()
        }
    }

    impl Owners for Told {
        fn update(&self, _: &Arc<App>, _: Update) {}
        fn standing(&self, _: Standing) {}
        fn granted(&self, _: &Arc<App>, _: Granted) {}
        fn terminate(&self, _: &Arc<App>, _: &Arc<str>, _: Duration, _: Done) {}

        fn happened(&self, _: &Arc<App>, Happened { event, waited, ago }: Happened) {
            let name = match event {
                Event::MemberAdded { user_id, .. } => format!("+{user_id}"),
                Event::MemberRemoved { user_id, .. } => format!("-{user_id}"),
                Event::CacheMiss { .. } => "miss".to_owned(),
                other => panic!("{other:?}"),
            };
            self.0.lock().expect("not poisoned").push((name, waited.as_millis(), ago.as_millis()));
        }
    }

    fn app(webhooks: Vec<Webhook>) -> Arc<App> {
        let config = AppConfig { webhooks, ..AppConfig::parse("1:key:secret").expect("an app") };
        Apps::new([config], &Limits::default()).expect("one app").all().remove(0)
    }

    /// A backlog of one node, and what it has told.
    struct Node {
        backlog: Backlog,
        app: Arc<App>,
        told: Told,
        start: Instant,
    }

    impl Node {
        /// One whose turn has come.
        fn new() -> Self {
            // As if this process ran for long enough.
            let (app, start) = (app(vec![Webhook::new("http://127.0.0.1/")]), Instant::now() + Duration::from_secs(60));
            let mut node = Self { backlog: Backlog::default(), app, told: Told::default(), start };
            node.backlog.begin(0, Epoch(1));
            node
        }

        /// It reads at this millisecond that somebody came (+) or went (-), or that something was missed, so long ago.
        fn reads(&mut self, stream: Stream, place: Place, what: &str, now: u64, ago: u64) {
            let (channel, user_id) = ("presence-a".into(), what[1..].into());
            let event = match &what[..1] {
                "+" => Event::MemberAdded { channel, user_id },
                "-" => Event::MemberRemoved { channel, user_id },
                _ => Event::CacheMiss { channel },
            };
            let ago = Duration::from_millis(ago);
            let (happened, now) = (Happened { event, waited: ago, ago }, self.at(now));
            self.backlog.take(stream, place, &self.app, happened, now, &self.told);
        }

        fn tells(&mut self, now: u64) -> Vec<String> {
            self.backlog.tell_due(self.at(now), &self.told);
            self.told.names()
        }

        fn at(&self, now: u64) -> Instant {
            self.start + Duration::from_millis(now)
        }

        fn settled(&self) -> Vec<u64> {
            self.backlog.settled(0).iter().map(|(number, _)| *number).collect()
        }

        fn held(&self) -> Vec<u64> {
            self.backlog.held(0).iter().map(|(number, _)| *number).collect()
        }
    }

    #[test]
    fn a_removal_stays_in_the_engine_until_it_is_told_and_all_else_is_told_at_once() {
        let mut node = Node::new();
        node.reads(0, (1, 0), "+ann", 0, 20);
        node.reads(0, (2, 0), "-bob", 0, 500);
        node.reads(0, (3, 0), "missed", 0, 0);
        assert_eq!(node.told.all(), [("+ann".to_owned(), 20, 20), ("miss".to_owned(), 0, 0)]);
        assert_eq!((node.settled(), node.held()), (vec![1, 3], vec![2]));
        assert_eq!(node.tells(2499), [""; 0]);
        node.backlog.tell_due(node.at(2500), &node.told);
        assert_eq!(node.told.all(), [("-bob".to_owned(), 3000, 3000)]);
        assert_eq!((node.settled(), node.held()), (vec![1, 2, 3], vec![]));
        node.backlog.forgotten(0, |place| place.0 < 3);
        assert_eq!(node.settled(), [3]);
    }

    #[test]
    fn a_removal_that_is_undone_is_settled_with_what_has_undone_it_and_neither_is_told() {
        let mut node = Node::new();
        node.reads(0, (1, 0), "-ann", 0, 0);
        node.reads(0, (2, 0), "-bob", 0, 0);
        node.reads(0, (3, 0), "+ann", 10, 0);
        assert_eq!((node.settled(), node.held()), (vec![1, 3], vec![2]));
        node.reads(0, (4, 0), "-bob", 1000, 0);
        assert_eq!((node.settled(), node.held()), (vec![1, 2, 3], vec![4]));
        assert_eq!(node.tells(3999), [""; 0]);
        assert_eq!(node.tells(4000), ["-bob"]);
    }

    #[test]
    fn what_was_held_back_for_long_enough_is_told_once_nothing_has_undone_it_in_time() {
        let mut node = Node::new();
        for (number, what, ago) in [(1, "-ann", 9000), (2, "-bob", 8000), (3, "-cid", 7000), (4, "+bob", 5001)] {
            node.reads(0, (number, 0), what, 0, ago);
        }
        // When bob came back, ann was gone for good.
        assert_eq!(node.told.all(), [("-ann".to_owned(), 9000, 9000)]);
        assert_eq!((node.settled(), node.held()), (vec![1, 2, 4], vec![3]));
        assert_eq!(node.tells(0), ["-cid"]);
        node.reads(0, (5, 0), "-dan", 0, 6000);
        node.reads(0, (6, 0), "+dan", 0, 3000);
        assert_eq!(node.told.names(), ["-dan", "+dan"], "it was away for long enough");
    }

    #[test]
    fn what_no_webhook_is_told_does_not_wait() {
        let mut node = Node { app: app(Vec::new()), ..Node::new() };
        node.reads(0, (1, 0), "-ann", 0, 0);
        assert_eq!((node.told.names(), node.settled()), (vec!["-ann".to_owned()], vec![1]));
        node.backlog.skip(0, (2, 0));
        assert_eq!(node.settled(), [1, 2]);
    }

    #[test]
    fn no_more_is_held_back_than_has_room() {
        let mut node = Node::new();
        node.backlog.hold_at_most(1);
        node.reads(0, (1, 0), "-ann", 0, 0);
        node.reads(0, (2, 0), "-bob", 0, 0);
        assert_eq!((node.told.all(), node.settled(), node.held()), (vec![("-bob".to_owned(), 0, 0)], vec![2], vec![1]));
    }

    #[test]
    fn a_turn_that_begins_again_reads_what_was_held_back_and_tells_nothing_twice() {
        let mut node = Node::new();
        node.reads(0, (1, 0), "+ann", 0, 0);
        node.reads(0, (2, 0), "-bob", 0, 0);
        assert_eq!(node.told.names(), ["+ann"]);
        node.backlog.begin(0, Epoch(1));
        assert_eq!((node.held(), node.tells(9000)), (vec![], vec![]));
        node.reads(0, (1, 0), "+ann", 9000, 9000);
        assert_eq!(node.told.names(), [""; 0]);
        node.reads(0, (2, 0), "-bob", 9000, 2000);
        assert_eq!(node.tells(9999), [""; 0]);
        assert_eq!(node.tells(10_000), ["-bob"]);
    }

    #[test]
    fn what_the_engine_has_forgotten_is_told_by_the_node_that_has_read_it() {
        let mut node = Node::new();
        node.reads(0, (1, 0), "+ann", 0, 0);
        node.reads(0, (2, 0), "-bob", 0, 0);
        node.reads(0, (3, 0), "-cid", 0, 0);
        node.told.all();
        node.backlog.begin(0, Epoch(2));
        assert_eq!((node.settled(), node.held()), (vec![], vec![]));
        // Who is told to the new memory is back.
        node.reads(0, (1, 0), "+cid", 100, 0);
        assert_eq!((node.told.names(), node.settled()), (vec![], vec![1]));
        assert_eq!(node.tells(3000), ["-bob"]);
        assert_eq!(node.settled(), [1], "its place is void");
    }

    #[test]
    fn streams_are_told_apart() {
        let mut node = Node::new();
        node.backlog.begin(1, Epoch(1));
        node.reads(0, (1, 0), "-ann", 0, 0);
        node.reads(1, (1, 0), "-bob", 0, 0);
        node.backlog.begin(1, Epoch(1));
        assert_eq!((node.held(), node.backlog.held(1).len()), (vec![1], 0));
        node.backlog.lose(1);
        assert_eq!(node.tells(3000), ["-ann"]);
        assert_eq!((node.settled(), node.backlog.settled(1).len()), (vec![1], 0));
    }

    #[test]
    fn what_the_next_node_does_not_know_of_is_told_before() {
        let mut node = Node::new();
        node.backlog.begin(1, Epoch(1));
        for (stream, place, what) in
            [(0, (3, 0), "-cid"), (0, (2, 1), "-bob"), (0, (2, 0), "-ann"), (1, (1, 0), "-dan")]
        {
            node.reads(stream, place, what, 0, 0);
        }
        node.backlog.tell_up_to(0, (2, 1), node.at(7), &node.told);
        assert_eq!(node.told.all(), [("-ann".to_owned(), 7, 7), ("-bob".to_owned(), 7, 7)]);
        assert_eq!((node.settled(), node.held()), (vec![2, 2], vec![3]));
        assert_eq!(node.tells(3000), ["-cid", "-dan"]);
    }

    #[test]
    fn a_node_that_ends_leaves_to_others_what_the_engine_knows_and_the_last_one_tells_all() {
        for is_last in [false, true] {
            let mut node = Node::new();
            node.reads(0, (1, 0), "-ann", 0, 0);
            node.backlog.lose(0);
            node.backlog.begin(0, Epoch(1));
            node.reads(0, (2, 0), "-bob", 100, 0);
            if is_last {
                node.backlog.tell_all(node.at(200), &node.told);
                assert_eq!(node.told.all(), [("-ann".to_owned(), 200, 200), ("-bob".to_owned(), 100, 100)]);
                assert_eq!(node.settled(), [2]);
            } else {
                node.backlog.tell_lost(node.at(200), &node.told);
                assert_eq!((node.told.names(), node.settled()), (vec!["-ann".to_owned()], vec![]));
            }
            assert_eq!(node.tells(9000), [""; 0]);
        }
    }
}
