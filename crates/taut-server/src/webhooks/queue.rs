//! What is to be delivered: in which order, how often, and how much of it at most.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taut_proto::backoff::Backoff;

use crate::apps::App;
use crate::place::AppIndex;

use super::Millis;
use super::payload::Payload;
use super::store::{Group, Row, StoredLetter};

/// The deliveries of all webhooks, each a request to be.
///
/// A delivery is open while its batch fills, then kept by the store, then due, under way, and due again until it is gone. There is no clock and no
/// socket here.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    deliveries: BTreeMap<u64, Delivery>,
    endpoints: Vec<Endpoint>,
    by_target: HashMap<Target, usize>,
    /// For each endpoint that may be sent something, when.
    wakes: BTreeSet<(Millis, usize)>,
    /// Batches that fill, in the order in which they will be closed.
    filling: BTreeSet<(Millis, usize)>,
    /// What the store does not know yet.
    unsaved: BTreeSet<u64>,
    /// What the store need not know any more.
    gone: Vec<u64>,
    bytes: usize,
    in_flight: usize,
}

/// How much may wait. The newest is what is dropped, since receivers put more trust into a gap that ends than into one that begins later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// One webhook of one app. Of several with the same address the first is 0, the second 1 and so on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) app: AppIndex,
    pub(super) url: Arc<str>,
    pub(super) nth: u32,
}

#[derive(Debug)]
struct Endpoint {
    app: Arc<App>,
    target: Target,
    due: BTreeSet<(Millis, u64)>,
    /// Its place in `wakes`.
    wake: Option<Millis>,
    /// The batch that fills, and its place in `filling`.
    filling: Option<(u64, Millis)>,
    in_flight: usize,
    /// Attempts that have failed since the last that did not.
    failures: u32,
    entries: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Delivery {
    endpoint: usize,
    /// When the (first) event happened; five minutes later it is too late.
    created: Millis,
    /// Since when this process knows of it.
    since: Millis,
    payload: Payload,
    events: usize,
    attempts: u32,
    last_error: Option<Box<str>>,
}

/// An event for one webhook.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEvent<'a> {
    /// As [`write`](super::payload::write) writes it.
    pub(super) event: &'a str,
    /// Whether it may come with others.
    pub(super) batching: bool,
    /// When it happened, by the clock of the deliveries.
    pub(super) created: Millis,
    /// The same as it is told.
    pub(super) time: Millis,
}

/// A request that is to be made now.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: u64,
    pub(super) app: Arc<App>,
    pub(super) target: Target,
    pub(super) payload: Payload,
}

/// How an attempt went.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Delivered,
    Failed(String),
    /// It cannot succeed, however often it is tried.
    Hopeless(String),
}

/// What comes of a request that is due.
#[derive(Debug)]
pub(super) enum Due {
    Attempt(Attempt),
    /// It is too late, and there was no chance to try.
    Dead(StoredLetter),
}

/// There is no room.
#[derive(Debug, PartialEq)]
pub(super) struct Full;

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            deliveries: BTreeMap::new(),
            endpoints: Vec::new(),
            by_target: HashMap::new(),
            wakes: BTreeSet::new(),
            filling: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            gone: Vec::new(),
            bytes: 0,
            in_flight: 0,
        }
    }

    /// The endpoint that stands for a webhook.
    pub(super) fn endpoint(&mut self, app: &Arc<App>, url: &str, nth: u32) -> usize {
        let target = Target { app: app.index(), url: url.into(), nth };
        if let Some(&index) = self.by_target.get(&target) {
            return index;
        }
        self.by_target.insert(target.clone(), self.endpoints.len());
        self.endpoints.push(Endpoint {
            app: Arc::clone(app),
            target,
            due: BTreeSet::new(),
            wake: None,
            filling: None,
            in_flight: 0,
            failures: 0,
            entries: 0,
            bytes: 0,
        });
        self.endpoints.len() - 1
    }

    /// Takes an event in: into the batch that fills, where there is one.
    ///
    /// `id` names the delivery that is made of it if there is none; it must be larger than all before.
    pub(super) fn push(&mut self, endpoint: usize, id: u64, happened: &NewEvent<'_>, now: Millis) -> Result<(), Full> {
        let &NewEvent { event, batching, created, time } = happened;
        if let Some((filling, _)) = self.endpoints[endpoint].filling {
            let grown = event.len() + 1;
            self.check(endpoint, 0, grown)?;
            if let Some(delivery) = self.deliveries.get_mut(&filling) {
                delivery.payload.push(event);
                delivery.events += 1;
                let is_full = delivery.events >= MOST_BATCHED || delivery.payload.len() >= LARGEST_BATCH;
                self.grow(endpoint, 0, grown);
                self.unsaved.insert(filling);
                if is_full {
                    self.close(endpoint);
                }
                return Ok(());
            }
        }
        let payload = Payload::new(time, event);
        self.check(endpoint, 1, payload.len() + OVERHEAD)?;
        self.insert(id, endpoint, created, payload, now);
        if batching {
            let until = now + GATHER_BATCH;
            self.endpoints[endpoint].filling = Some((id, until));
            self.filling.insert((until, endpoint));
        }
        Ok(())
    }

    /// Takes in what the store remembered from an earlier run, or a letter that somebody wants to be sent once more.
    pub(super) fn restore(&mut self, id: u64, endpoint: usize, created: Millis, payload: Payload, now: Millis) {
        self.insert(id, endpoint, created, payload, now);
    }

    /// Takes a delivery out of the store that is in none of ours.
    pub(super) fn forget(&mut self, id: u64) {
        self.gone.push(id);
    }

    /// What came from the store is there already, and due at once.
    pub(super) fn already_saved(&mut self, now: Millis) {
        let ids: Vec<u64> = std::mem::take(&mut self.unsaved).into_iter().collect();
        self.saved(&ids, now);
    }

    fn insert(&mut self, id: u64, endpoint: usize, created: Millis, payload: Payload, now: Millis) {
        self.grow(endpoint, 1, payload.len() + OVERHEAD);
        self.unsaved.insert(id);
        let delivery = Delivery {
            endpoint,
            created: created.min(now),
            since: now,
            payload,
            events: 1,
            attempts: 0,
            last_error: None,
        };
        self.deliveries.insert(id, delivery);
    }

    /// One webhook may take as much as is left for the others: an address that does not answer leaves them half of the room, two leave them a third.
    fn check(&self, endpoint: usize, entries: usize, bytes: usize) -> Result<(), Full> {
        let free_entries = self.bounds.entries.saturating_sub(self.deliveries.len());
        let free_bytes = self.bounds.bytes.saturating_sub(self.bytes);
        let Endpoint { entries: own_entries, bytes: own_bytes, .. } = self.endpoints[endpoint];
        let fits = own_entries + entries <= free_entries && own_bytes + bytes <= free_bytes;
        fits.then_some(()).ok_or(Full)
    }

    fn grow(&mut self, endpoint: usize, entries: usize, bytes: usize) {
        self.bytes += bytes;
        self.endpoints[endpoint].entries += entries;
        self.endpoints[endpoint].bytes += bytes;
    }

    /// Closes the batches that have waited long enough for more.
    pub(super) fn close_batches(&mut self, now: Millis) {
        while let Some(&(until, endpoint)) = self.filling.first() {
            if until > now {
                return;
            }
            self.close(endpoint);
        }
    }

    fn close(&mut self, endpoint: usize) {
        if let Some((id, until)) = self.endpoints[endpoint].filling.take() {
            self.filling.remove(&(until, endpoint));
            // So that it is named as closed to the store's next group, even if all of it is there.
            self.unsaved.insert(id);
        }
    }

    /// Whether the store has something to do: at once, since something waits for it, or some time.
    pub(super) fn unsaved(&self) -> Unsaved {
        match (self.unsaved.is_empty(), self.gone.is_empty()) {
            (false, _) => Unsaved::Urgent,
            (true, false) => Unsaved::Removals,
            (true, true) => Unsaved::Nothing,
        }
    }

    /// Puts all that the store does not know into a group; with `rows` unset it only says which deliveries it is about.
    pub(super) fn save(&mut self, group: &mut Group, rows: bool) {
        for id in std::mem::take(&mut self.unsaved) {
            let Some(delivery) = self.deliveries.get(&id) else { continue };
            let endpoint = &self.endpoints[delivery.endpoint];
            let is_open = endpoint.filling.is_some_and(|(filling, _)| filling == id);
            if !is_open {
                group.closed.push(id);
            }
            if rows {
                group.deliveries.push((id, Some(delivery.row(endpoint))));
            }
        }
        let gone = std::mem::take(&mut self.gone);
        if rows {
            group.deliveries.extend(gone.into_iter().map(|id| (id, None)));
        }
    }

    /// Puts all there is into a group.
    pub(super) fn save_all(&mut self, group: &mut Group) {
        self.save(group, false);
        let rows =
            self.deliveries.iter().map(|(id, delivery)| (*id, Some(delivery.row(&self.endpoints[delivery.endpoint]))));
        group.deliveries.extend(rows);
    }

    /// These are kept now: they may be sent.
    pub(super) fn saved(&mut self, closed: &[u64], now: Millis) {
        for id in closed {
            if let Some(delivery) = self.deliveries.get(id) {
                let endpoint = delivery.endpoint;
                self.endpoints[endpoint].due.insert((now, *id));
                self.wake(endpoint);
            }
        }
    }

    /// What is to be done now, if anything: the next request that is due and for which there is a place.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Due> {
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        let &(wake, index) = self.wakes.first()?;
        if wake > now {
            return None;
        }
        let endpoint = &mut self.endpoints[index];
        let (_, id) = endpoint.due.pop_first()?;
        let delivery = self.deliveries.get(&id)?;
        let too_late = now >= delivery.created + WINDOW && now >= delivery.since + WINDOW;
        if too_late && delivery.attempts == 0 && endpoint.failures >= FAILING {
            let error = "five minutes passed before it could be tried: requests to this address keep failing";
            let letter = self.bury(id, error.into(), now);
            self.wake(index);
            return letter.map(Due::Dead);
        }
        endpoint.in_flight += 1;
        self.in_flight += 1;
        let attempt = Attempt {
            id,
            app: Arc::clone(&endpoint.app),
            target: endpoint.target.clone(),
            payload: delivery.payload.clone(),
        };
        self.wake(index);
        Some(Due::Attempt(attempt))
    }

    /// Takes note of how an attempt went; gives the letter that has become undeliverable by it.
    pub(super) fn finish(&mut self, id: u64, verdict: Verdict, now: Millis, random: u64) -> Option<StoredLetter> {
        let delivery = self.deliveries.get_mut(&id)?;
        let index = delivery.endpoint;
        let endpoint = &mut self.endpoints[index];
        endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        let letter = match verdict {
            Verdict::Delivered => {
                endpoint.failures = 0;
                self.remove(id);
                None
            }
            Verdict::Failed(error) => {
                endpoint.failures = endpoint.failures.saturating_add(1);
                let delay = backoff().delay(delivery.attempts, random).as_millis() as Millis;
                delivery.attempts += 1;
                let next = now + delay;
                if next < delivery.created + WINDOW {
                    delivery.last_error = Some(error.into());
                    endpoint.due.insert((next, id));
                    None
                } else {
                    self.bury(id, error.into(), now)
                }
            }
            Verdict::Hopeless(error) => {
                delivery.attempts += 1;
                self.bury(id, error.into(), now)
            }
        };
        self.wake(index);
        letter
    }

    fn bury(&mut self, id: u64, error: Box<str>, now: Millis) -> Option<StoredLetter> {
        let delivery = self.remove(id)?;
        let endpoint = &self.endpoints[delivery.endpoint];
        Some(StoredLetter {
            id,
            row: delivery.row(endpoint),
            died: now,
            attempts: delivery.attempts,
            last_error: error,
        })
    }

    fn remove(&mut self, id: u64) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        let bytes = delivery.payload.len() + OVERHEAD;
        let endpoint = &mut self.endpoints[delivery.endpoint];
        endpoint.entries -= 1;
        endpoint.bytes -= bytes;
        self.bytes -= bytes;
        self.unsaved.remove(&id);
        self.gone.push(id);
        Some(delivery)
    }

    /// Writes down when this endpoint is to be looked at.
    fn wake(&mut self, index: usize) {
        let endpoint = &mut self.endpoints[index];
        // One that fails is asked by one request at a time whether it still does.
        let places = if endpoint.failures >= FAILING { 1 } else { MOST_PER_ENDPOINT };
        let wake = endpoint.due.first().map(|&(due, _)| due).filter(|_| endpoint.in_flight < places);
        if wake != endpoint.wake {
            if let Some(before) = endpoint.wake {
                self.wakes.remove(&(before, index));
            }
            self.wakes.extend(wake.map(|wake| (wake, index)));
            endpoint.wake = wake;
        }
    }

    /// When something becomes due; `None` if nothing does before an attempt ends or something comes.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let wake = self.wakes.first().filter(|_| self.in_flight < MOST_IN_FLIGHT).map(|&(wake, _)| wake);
        let filling = self.filling.first().map(|&(until, _)| until);
        wake.into_iter().chain(filling).min()
    }

    /// Whether anything could be sent now, were there places enough.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.due.first().is_some_and(|&(due, _)| due <= now))
    }

    /// Whether a batch waits for more.
    pub(super) fn is_filling(&self) -> bool {
        !self.filling.is_empty()
    }

    /// Requests that are not delivered yet.
    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests that are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When the oldest of them happened.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.deliveries.values().next().map(|delivery| delivery.created)
    }
}

impl Delivery {
    fn row(&self, endpoint: &Endpoint) -> Row {
        Row {
            app: endpoint.app.id().into(),
            url: Arc::clone(&endpoint.target.url),
            nth: endpoint.target.nth,
            created: self.created,
            payload: self.payload.clone(),
        }
    }
}

/// What the store has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsaved {
    Nothing,
    /// Nobody waits for it.
    Removals,
    /// Something may be sent when it is done.
    Urgent,
}

/// Half a second at first, a minute at last: some 15 attempts in five minutes.
fn backoff() -> Backoff {
    let mut backoff = Backoff::standard();
    backoff.floor = Duration::from_millis(500);
    backoff.base = Duration::from_secs(1);
    backoff.cap = Duration::from_secs(60);
    backoff
}

/// Milliseconds for which a delivery is tried, from when the event happened: as long as Pusher does, and as receivers accept it.
pub(super) const WINDOW: Millis = 5 * 60 * 1000;

/// Milliseconds that a batch waits for more.
const GATHER_BATCH: Millis = 50;

/// Events of a batch.
const MOST_BATCHED: usize = 100;

/// Bytes at which a batch is closed.
const LARGEST_BATCH: usize = 256 * 1024;

/// Requests under way at a time, to all addresses.
const MOST_IN_FLIGHT: usize = 256;

/// Requests under way at a time, to one address.
const MOST_PER_ENDPOINT: usize = 16;

/// Failures in a row, from which on an address counts as failing.
const FAILING: u32 = 16;

/// Bytes that a delivery takes beside its events, roughly.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Limits};
    use crate::apps::Apps;

    const BOUNDS: Bounds = Bounds { entries: 1000, bytes: 1 << 20 };

    fn app() -> Arc<App> {
        Arc::clone(&Apps::new([AppConfig::development()], &Limits::default()).expect("one app").all()[0])
    }

    /// A queue whose store takes no time.
    struct Test {
        queue: Queue,
        app: Arc<App>,
        id: u64,
        now: Millis,
    }

    impl Test {
        fn new() -> Self {
            Self { queue: Queue::new(BOUNDS), app: app(), id: 0, now: 1_000_000 }
        }

        fn endpoint(&mut self, url: &str) -> usize {
            self.queue.endpoint(&self.app, url, 0)
        }

        fn push(&mut self, url: &str, event: &str, batching: bool) -> Result<(), Full> {
            let endpoint = self.endpoint(url);
            self.id += 1;
            let happened = NewEvent { event, batching, created: self.now, time: self.now };
            self.queue.push(endpoint, self.id, &happened, self.now)
        }

        fn save(&mut self) -> Group {
            let mut group = Group::default();
            self.queue.close_batches(self.now);
            self.queue.save(&mut group, true);
            self.queue.saved(&group.closed, self.now);
            group
        }

        fn attempts(&mut self) -> Vec<Attempt> {
            self.save();
            let due = std::iter::from_fn(|| self.queue.take_due(self.now));
            due.map(|due| match due {
                Due::Attempt(attempt) => attempt,
                Due::Dead(letter) => panic!("{letter:?}"),
            })
            .collect()
        }

        fn bodies(&mut self) -> Vec<String> {
            let text = |attempt: &Attempt| String::from_utf8(attempt.payload.events.to_vec()).expect("UTF-8");
            self.attempts().iter().map(text).collect()
        }

        fn fail(&mut self, id: u64) -> Option<StoredLetter> {
            self.queue.finish(id, Verdict::Failed("no".to_owned()), self.now, u64::MAX)
        }
    }

    #[test]
    fn nothing_is_sent_before_the_store_has_it() {
        let mut test = Test::new();
        test.push("a", "1", false).expect("room");
        assert!(test.queue.take_due(test.now).is_none());
        let group = test.save();
        assert_eq!((group.closed, group.deliveries.len()), (vec![1], 1));
        assert!(matches!(test.queue.take_due(test.now), Some(Due::Attempt(Attempt { id: 1, .. }))));
        assert!(test.queue.take_due(test.now).is_none());
    }

    #[test]
    fn what_is_delivered_leaves_the_store_too() {
        let mut test = Test::new();
        test.push("a", "1", false).expect("room");
        let attempt = test.attempts().remove(0);
        assert_eq!(test.queue.unsaved(), Unsaved::Nothing);
        assert_eq!(test.queue.finish(attempt.id, Verdict::Delivered, test.now, 0), None);
        assert_eq!(test.queue.unsaved(), Unsaved::Removals);
        assert_eq!(test.save().deliveries, [(1, None)]);
        assert_eq!(
            (test.queue.len(), test.queue.bytes(), test.queue.in_flight(), test.queue.oldest()),
            (0, 0, 0, None)
        );
    }

    #[test]
    fn a_batch_waits_fifty_milliseconds_and_is_in_the_store_meanwhile() {
        let mut test = Test::new();
        test.push("a", "1", true).expect("room");
        test.push("b", "9", false).expect("room");
        assert_eq!(test.save().deliveries.len(), 2);
        test.now += 49;
        test.push("a", "2", true).expect("room");
        assert_eq!(test.bodies(), ["[9]"]);
        assert_eq!(test.queue.next_due(), Some(test.now + 1));
        test.now += 1;
        assert_eq!(test.bodies(), ["[1,2]"]);
        test.push("a", "3", true).expect("room");
        assert_eq!(test.bodies(), [""; 0]);
    }

    #[test]
    fn a_batch_of_a_hundred_waits_no_longer() {
        let mut test = Test::new();
        for _ in 0..=MOST_BATCHED {
            test.push("a", "1", true).expect("room");
        }
        assert_eq!(test.bodies(), [format!("[1{}]", ",1".repeat(MOST_BATCHED - 1))]);
        test.now += GATHER_BATCH;
        assert_eq!(test.bodies(), ["[1]"]);
        let large = format!("\"{}\"", "x".repeat(LARGEST_BATCH));
        test.push("a", &large, true).expect("room");
        test.push("a", "2", true).expect("room");
        assert_eq!(test.bodies(), [format!("[{large},2]")]);
    }

    #[test]
    fn failed_attempts_are_repeated_more_and_more_slowly_for_five_minutes() {
        let mut test = Test::new();
        test.push("a", "1", false).expect("room");
        let start = test.now;
        let mut times = Vec::new();
        let letter = loop {
            let attempt = test.attempts().remove(0);
            times.push(test.now - start);
            if let Some(letter) = test.fail(attempt.id) {
                break letter;
            }
            assert!(test.attempts().is_empty());
            test.now = test.queue.next_due().expect("another attempt");
        };
        // Each with its whole jitter.
        assert_eq!(times, [0, 1499, 3998, 8497, 16_996, 33_495, 65_994, 126_493, 186_992, 247_491]);
        assert_eq!((letter.attempts, &*letter.last_error, letter.row.created), (10, "no", start));
        assert_eq!(test.queue.len(), 0);
        assert_eq!(test.save().deliveries, [(1, None)]);
    }

    #[test]
    fn what_cannot_succeed_is_not_repeated() {
        let mut test = Test::new();
        test.push("a", "1", false).expect("room");
        let attempt = test.attempts().remove(0);
        let letter = test.queue.finish(attempt.id, Verdict::Hopeless("gone".to_owned()), test.now, 0);
        assert_eq!(letter.map(|letter| letter.attempts), Some(1));
    }

    #[test]
    fn an_address_that_fails_takes_no_place_from_others() {
        let mut test = Test::new();
        for _ in 0..100 {
            test.push("dead", "1", false).expect("room");
        }
        let attempts = test.attempts();
        assert_eq!(attempts.len(), MOST_PER_ENDPOINT);
        test.push("alive", "2", false).expect("room");
        assert_eq!(test.bodies(), ["[2]"]);
        for attempt in attempts {
            test.fail(attempt.id);
        }
        // From now on one at a time asks.
        let attempts = test.attempts();
        assert_eq!(attempts.len(), 1);
        test.queue.finish(attempts[0].id, Verdict::Delivered, test.now, 0);
        assert_eq!(test.attempts().len(), MOST_PER_ENDPOINT);
    }

    #[test]
    fn all_addresses_together_have_as_many_places_as_there_are() {
        let mut test = Test::new();
        for number in 0..2 * MOST_IN_FLIGHT {
            test.push(&number.to_string(), "1", false).expect("room");
        }
        let attempts = test.attempts();
        assert_eq!(attempts.len(), MOST_IN_FLIGHT);
        assert_eq!(test.queue.next_due(), None);
        test.queue.finish(attempts[7].id, Verdict::Delivered, test.now, 0);
        assert_eq!(test.attempts().len(), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_one_address_leaves_room_for_others() {
        let mut test = Test::new();
        let mut fill = |url: &str, event: &str| (0..1000).take_while(|_| test.push(url, event, false).is_ok()).count();
        assert_eq!((fill("a", "1"), fill("b", "1"), fill("c", "1")), (500, 250, 125));
        let mut test = Test::new();
        let large = "x".repeat(10_000);
        let mut fill = |url: &str| (0..1000).take_while(|_| test.push(url, &large, false).is_ok()).count();
        assert_eq!((fill("a"), fill("b")), (51, 26));
        assert!(test.queue.bytes() <= BOUNDS.bytes);
        let mut test = Test::new();
        let pushed = (0..1000).take_while(|_| test.push("a", &large, true).is_ok()).count();
        assert_eq!(pushed, 52, "a batch counts what it grows by");
    }

    #[test]
    fn what_nobody_could_try_in_time_is_given_up_only_where_requests_keep_failing() {
        let mut test = Test::new();
        for _ in 0..20 {
            test.push("a", "1", false).expect("room");
        }
        test.now += 2 * WINDOW;
        let attempts = test.attempts();
        assert_eq!(attempts.len(), MOST_PER_ENDPOINT, "late, but it was not tried");
        for attempt in attempts {
            assert!(test.fail(attempt.id).is_some());
        }
        let dead = std::iter::from_fn(|| test.queue.take_due(test.now));
        assert_eq!(dead.filter(|due| matches!(due, Due::Dead(letter) if letter.attempts == 0)).count(), 4);
        assert_eq!(test.queue.len(), 0);
    }

    #[test]
    fn what_an_earlier_run_left_has_one_attempt_however_old() {
        let mut test = Test::new();
        let endpoint = test.endpoint("a");
        test.queue.restore(7, endpoint, 5, Payload::new(5, "1"), test.now);
        test.queue.already_saved(test.now);
        assert_eq!(test.queue.unsaved(), Unsaved::Nothing);
        let attempt = test.attempts().remove(0);
        assert_eq!(attempt.payload.time, 5);
        assert_eq!(test.fail(7).map(|letter| letter.attempts), Some(1));
    }
}
