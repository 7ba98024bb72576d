//! All that the webhooks' part knows, without a clock and without a socket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::address;
use crate::apps::{App, Apps};
use crate::events::{Entry, Event};
use crate::grace::{self, Grace};

use super::dead_letters::{DeadLetter, DeadLetters};
use super::payload;
use super::queue::{Bounds, Due, NewEvent, Queue, Unsaved, Verdict};
use super::store::{Contents, Group, HeldRow, StoredLetter};
use super::{Millis, Statistics, milliseconds};

/// What is held back, what is to be delivered, and what has failed for good.
#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    grace: Grace<Millis, Held>,
    held_rows: Vec<(u64, Option<HeldRow>)>,
    dead: DeadLetters,
    /// Whether there is a store: what is not kept by one is told at once when the server stops.
    is_stored: bool,
    /// After an error of the store: when to try it again. Until then all is as if there were none.
    retry_store: Option<Millis>,
    is_stopping: bool,
    last_id: u64,
    taken: u64,
    /// When the store is to get its next group, once it is known that it has something to do.
    save_at: Option<Millis>,
    dropped_logged: Seldom,
    dead_logged: Seldom,
    /// Only what grows; the rest is looked at when it is asked for.
    counts: Statistics,
}

/// A removal that is held back.
#[derive(Debug)]
struct Held {
    /// Its row in the store.
    id: u64,
    app: Arc<App>,
    /// When it happened, by the clock of the deliveries.
    created: Millis,
    /// The same as it is told.
    time: Millis,
    event: Event,
}

impl Held {
    /// As the store keeps it.
    fn row(&self) -> Option<HeldRow> {
        let (channel, user_id) = grace::removed(&self.event)?;
        let (channel, user_id) = (Arc::clone(channel), user_id.cloned());
        Some(HeldRow { app: self.app.id().into(), channel, user_id, created: self.created, time: self.time })
    }
}

impl State {
    pub(super) fn new(bounds: Bounds, is_stored: bool) -> Self {
        Self {
            queue: Queue::new(bounds),
            grace: Grace::new(),
            held_rows: Vec::new(),
            dead: DeadLetters::default(),
            is_stored,
            retry_store: None,
            is_stopping: false,
            last_id: 0,
            taken: 0,
            save_at: None,
            dropped_logged: Seldom::default(),
            dead_logged: Seldom::default(),
            counts: Statistics::default(),
        }
    }

    /// Takes over what an earlier run has left.
    ///
    /// What is older than five minutes is tried once and then given up: nobody has tried it while the server was down.
    pub(super) fn restore(&mut self, contents: Contents, apps: &Apps, now: Millis) {
        let Contents { deliveries, held, dead } = contents;
        let ids = deliveries.iter().map(|(id, _)| *id).chain(held.iter().map(|(id, _)| *id));
        self.last_id = ids.chain(dead.iter().map(|letter| letter.id)).max().unwrap_or(0);
        let (waiting, in_grace) = (deliveries.len(), held.len());
        for letter in dead {
            self.dead.restore(letter);
        }
        let mut unknown = Vec::new();
        for (id, row) in deliveries {
            if let Some(app) = apps.by_id(&row.app) {
                let endpoint = self.queue.endpoint(&app, &row.url, row.nth);
                self.queue.restore(id, endpoint, row.created, row.payload, now);
            } else {
                let last_error = "the app is no longer configured".into();
                unknown.push(StoredLetter { id, row, died: now, attempts: 0, last_error });
            }
        }
        self.queue.already_saved(now);
        for letter in unknown {
            self.queue.forget(letter.id);
            self.bury(letter, now);
        }
        for (id, row) in held {
            let HeldRow { app, channel, user_id, created, time } = row;
            let event = match user_id {
                None => Event::ChannelVacated { channel },
                Some(user_id) => Event::MemberRemoved { channel, user_id },
            };
            let Some(app) = apps.by_id(&app) else {
                self.held_rows.push((id, None));
                continue;
            };
            match self.hold(Held { id, app, created: created.min(now), time, event }) {
                Ok(before) => self.held_rows.extend(before.map(|before| (before.id, None))),
                Err(held) => self.release(&held, now),
            }
        }
        if waiting + in_grace > 0 {
            tracing::info!(waiting, in_grace, "webhooks of an earlier run are delivered");
        }
    }

    /// Takes down what has happened.
    pub(super) fn record(&mut self, entry: &Entry, now: Millis) {
        self.taken += 1;
        let Entry { app, event, at, waited, ago } = entry;
        let recorded = milliseconds(*at);
        // The system's clock may be put right at any time. Ours is not, and what waits is measured by ours.
        let created = if recorded.abs_diff(now) < STEP { recorded.min(now) } else { now };
        // What was held back already waits only for what is left.
        let created = created.saturating_sub(waited.as_millis() as Millis);
        let time = recorded.saturating_sub(ago.as_millis() as Millis);
        if let Some(held) = self.grace.undo(app, event) {
            self.held_rows.push((held.id, None));
            return;
        }
        // What nobody will keep is told at once.
        let waits = self.is_kept() || !self.is_stopping;
        let is_over = created + GRACE <= now;
        if !waits || is_over || grace::removed(event).is_none() {
            return self.tell(app, event, created, time, now);
        }
        let held = Held { id: self.next_id(), app: Arc::clone(app), created, time, event: event.clone() };
        let (id, row) = (held.id, held.row());
        match self.hold(held) {
            Ok(before) => {
                self.held_rows.extend(before.map(|before| (before.id, None)));
                self.held_rows.push((id, row));
            }
            Err(_) => self.tell(app, event, created, time, now),
        }
    }

    fn hold(&mut self, held: Held) -> Result<Option<Held>, Held> {
        let (app, event) = (Arc::clone(&held.app), held.event.clone());
        self.grace.hold(&app, &event, held.created + GRACE, held)
    }

    /// Makes deliveries of an event, for each webhook that wants it.
    fn tell(&mut self, app: &Arc<App>, event: &Event, created: Millis, time: Millis, now: Millis) {
        let Some((kind, channel)) = event.webhook() else { return };
        let snapshot = app.snapshot();
        let mut written = None;
        for (index, webhook) in snapshot.config.webhooks.iter().enumerate() {
            if !webhook.wants(kind, channel) {
                continue;
            }
            let Some(event) = written.get_or_insert_with(|| payload::write(event)) else { return };
            let nth = snapshot.config.webhooks[..index].iter().filter(|other| other.url == webhook.url).count() as u32;
            let endpoint = self.queue.endpoint(app, &webhook.url, nth);
            let id = self.next_id();
            let happened = NewEvent { event, batching: webhook.batching, created, time };
            if self.queue.push(endpoint, id, &happened, now).is_err() {
                self.counts.dropped += 1;
                if self.dropped_logged.allows(now) {
                    let (dropped, queued) = (self.counts.dropped, self.queue.len());
                    tracing::error!(app = app.id(), dropped, queued, "webhooks are dropped: too many wait already");
                }
            }
        }
    }

    fn release(&mut self, held: &Held, now: Millis) {
        self.held_rows.push((held.id, None));
        self.tell(&held.app, &held.event, held.created, held.time, now);
    }

    /// Does what time has brought: removals that are ones after all, and batches that have waited long enough.
    pub(super) fn advance(&mut self, now: Millis) {
        while let Some(held) = self.grace.take_due(now) {
            self.release(&held, now);
        }
        self.queue.close_batches(now);
    }

    /// From now on nothing waits for what may still come, unless the next run can go on with it.
    pub(super) fn stop(&mut self, now: Millis) {
        self.is_stopping = true;
        if !self.is_stored {
            self.release_all(now);
        }
        // The last chance to leave something to the next run.
        self.retry_store = self.retry_store.map(|_| now);
        self.queue.close_batches(Millis::MAX);
    }

    fn release_all(&mut self, now: Millis) {
        while let Some(held) = self.grace.take_any() {
            self.release(&held, now);
        }
    }

    /// The next thing to do, if there is one and there is a place for it.
    pub(super) fn next_attempt(&mut self, now: Millis) -> Option<super::queue::Attempt> {
        loop {
            match self.queue.take_due(now)? {
                Due::Attempt(attempt) => return Some(attempt),
                Due::Dead(letter) => self.bury(letter, now),
            }
        }
    }

    /// Takes note of how an attempt went.
    pub(super) fn finish(&mut self, id: u64, verdict: Verdict, now: Millis, random: u64) {
        match &verdict {
            Verdict::Delivered => self.counts.delivered += 1,
            Verdict::Failed(_) | Verdict::Hopeless(_) => self.counts.failed_attempts += 1,
        }
        if let Some(letter) = self.queue.finish(id, verdict, now, random) {
            self.bury(letter, now);
        }
    }

    fn bury(&mut self, letter: StoredLetter, now: Millis) {
        self.counts.dead += 1;
        if self.dead_logged.allows(now) {
            tracing::warn!(
                app = &*letter.row.app,
                url = address::shown(&letter.row.url),
                attempts = letter.attempts,
                error = &*letter.last_error,
                failed_for_good = self.counts.dead,
                "a webhook has failed for good"
            );
        }
        self.dead.push(letter);
    }

    /// Sends a letter again, with the time of now, or receivers would refuse it for its age. `false` if there is no such letter of this app.
    pub(super) fn retry(&mut self, app: &Arc<App>, id: u64, now: Millis, time: Millis) -> bool {
        let Some(letter) = self.dead.take_of(app.id(), id) else { return false };
        let endpoint = self.queue.endpoint(app, &letter.row.url, letter.row.nth);
        let id = self.next_id();
        self.queue.restore(id, endpoint, now, payload::Payload { time, ..letter.row.payload }, now);
        true
    }

    pub(super) fn dead_letters(&self, app: &str) -> Vec<DeadLetter> {
        self.dead.of(app)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// What the store is to write, when it is time. In between it gathers, since a group costs the disk as much as an entry.
    pub(super) fn take_group(&mut self, now: Millis) -> Option<Group> {
        if self.retry_store.is_some_and(|at| at <= now) {
            return Some(self.take_all());
        }
        let is_kept = self.is_kept();
        let wait = match self.queue.unsaved() {
            Unsaved::Urgent => GATHER,
            _ if !self.held_rows.is_empty() || self.dead.is_unsaved() => GATHER,
            Unsaved::Removals => GATHER_REMOVALS,
            Unsaved::Nothing => return None,
        };
        let wait = if is_kept && !self.is_stopping { wait } else { 0 };
        let save_at = self.save_at.map_or(now + wait, |before| before.min(now + wait));
        self.save_at = Some(save_at);
        if save_at > now {
            return None;
        }
        self.save_at = None;
        let mut group = Group { recorded: self.taken, ..Group::default() };
        let held = std::mem::take(&mut self.held_rows);
        if is_kept {
            group.held = held;
        }
        self.queue.save(&mut group, is_kept);
        self.dead.save(&mut group, is_kept);
        Some(group)
    }

    /// All there is, for a store that may have missed anything.
    fn take_all(&mut self) -> Group {
        self.save_at = None;
        self.held_rows.clear();
        let mut group = Group { recorded: self.taken, is_whole: true, ..Group::default() };
        group.held.extend(self.grace.all().filter_map(|held| Some((held.id, Some(held.row()?)))));
        self.queue.save_all(&mut group);
        self.dead.save_all(&mut group);
        group
    }

    /// The store has written this, or there is none.
    pub(super) fn saved(&mut self, group: &Group, now: Millis) {
        self.counts.recorded = group.recorded;
        self.queue.saved(&group.closed, now);
        if group.is_whole && self.retry_store.take().is_some() {
            tracing::info!(waiting = self.queue.len(), "webhooks are kept again");
        }
    }

    /// The store could not write this. It is delivered all the same, and lost only if the process ends before that, or before the store can write again.
    pub(super) fn not_saved(&mut self, group: &Group, error: &dyn fmt::Display, now: Millis) {
        self.queue.saved(&group.closed, now);
        if self.retry_store.is_none() {
            self.counts.store_errors += 1;
            let every = RETRY_STORE / 1000;
            tracing::error!(
                %error,
                "cannot write webhooks to disk: they are still delivered, but those that wait are lost if the server stops. It tries again every {every} s"
            );
        }
        self.retry_store = Some(now + RETRY_STORE);
        if self.is_stopping {
            // The next run will not know of them.
            self.release_all(now);
        }
    }

    /// Whether what waits is in the store.
    fn is_kept(&self) -> bool {
        self.is_stored && self.retry_store.is_none()
    }

    /// How many entries of the event bus are accounted for. `is_saving`: the store is at work.
    pub(super) fn recorded(&mut self, is_saving: bool) -> u64 {
        // What cancels, or finds no room, is nothing to the store.
        if !is_saving && self.is_saved() {
            self.counts.recorded = self.taken;
        }
        self.counts.recorded
    }

    fn is_saved(&self) -> bool {
        self.queue.unsaved() == Unsaved::Nothing && self.held_rows.is_empty() && !self.dead.is_unsaved()
    }

    /// When there is something to do, if nothing happens before. `is_saving`: the store is at work, so that its next group has to wait.
    pub(super) fn next_due(&self, is_saving: bool) -> Option<Millis> {
        let save = [self.save_at, self.retry_store].into_iter().flatten().min().filter(|_| !is_saving);
        [self.grace.next_due(), self.queue.next_due(), save].into_iter().flatten().min()
    }

    /// Whether all is done that can be done before the server ends.
    pub(super) fn is_settled(&self, now: Millis) -> bool {
        let is_idle = self.queue.in_flight() == 0 && !self.queue.is_filling() && !self.queue.is_due(now);
        let is_tried = self.retry_store.is_none_or(|at| at > now);
        // What is tried again later is lost if nobody keeps it.
        self.is_saved() && is_tried && is_idle && (self.is_kept() || self.queue.len() == 0)
    }

    /// Says what becomes of the requests that were not delivered when the server ends. `unrecorded`: what happened, but found no room to be taken
    /// down.
    pub(super) fn report_end(&self, unrecorded: u64) {
        let waiting = self.queue.len() + self.grace.len();
        if waiting > 0 && self.is_kept() {
            tracing::info!(waiting, "webhooks that were not delivered wait in the data directory for the next start");
        } else if waiting > 0 {
            let remedy = if self.is_stored {
                "the data directory cannot be written"
            } else {
                "a data directory would keep them"
            };
            tracing::error!(lost = waiting, "webhooks were not delivered in time, and are lost: {remedy}");
        }
        let unrecorded = unrecorded + self.counts.dropped;
        if unrecorded > 0 {
            tracing::error!(lost = unrecorded, "webhooks were lost since the start, because too many waited already");
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            queued: self.queue.len() as u64,
            queued_bytes: self.queue.bytes() as u64,
            in_flight: self.queue.in_flight() as u64,
            held_back: self.grace.len() as u64,
            dead_letters: self.dead.len() as u64,
            store_failing: self.retry_store.is_some().into(),
            ..self.counts
        }
    }

    pub(super) fn oldest(&self, now: Millis) -> Option<Duration> {
        self.queue.oldest().map(|oldest| super::duration(now.saturating_sub(oldest)))
    }
}

/// Lets one line through every ten seconds.
#[derive(Debug, Default)]
pub(super) struct Seldom(Option<Millis>);

impl Seldom {
    pub(super) fn allows(&mut self, now: Millis) -> bool {
        let allows = self.0.is_none_or(|last| now >= last + 10_000);
        if allows {
            self.0 = Some(now);
        }
        allows
    }
}

/// Milliseconds between two tries of a store that could not be written. Each goes through all that waits.
const RETRY_STORE: Millis = 5000;

/// Milliseconds for which a removal is held back.
const GRACE: Millis = grace::GRACE.as_millis() as Millis;

/// Milliseconds for which the store's work gathers.
const GATHER: Millis = 10;

/// The same where nobody waits for it.
const GATHER_REMOVALS: Millis = 100;

/// Milliseconds between the system's clock and ours, from which on the system's was put right.
const STEP: Millis = 10_000;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::app::{AppConfig, Limits, Webhook};

    #[test]
    fn a_removal_that_was_held_back_before_waits_only_for_what_is_left() {
        let webhooks = vec![Webhook::new("http://127.0.0.1/")];
        let config = AppConfig { webhooks, ..AppConfig::parse("1:key:secret").expect("an app") };
        let apps = Apps::new([config], &Limits::default()).expect("one app");
        let app = &apps.all()[0];
        let at = SystemTime::now();
        let now = milliseconds(at);
        for (waited, left) in [(0, Some(3000)), (1000, Some(2000)), (3000, None), (60_000, None)] {
            let mut state = State::new(Bounds { entries: 10, bytes: 10_000 }, false);
            for event in [
                Event::MemberRemoved { channel: "presence-a".into(), user_id: "1".into() },
                Event::ChannelVacated { channel: "presence-a".into() },
            ] {
                let waited = Duration::from_millis(waited);
                state.record(&Entry { app: Arc::clone(app), at, waited, ago: Duration::ZERO, event }, now);
            }
            assert_eq!(state.grace.next_due(), left.map(|left| now + left), "{waited}");
            assert_eq!(state.queue.len(), if left.is_some() { 0 } else { 2 }, "{waited}");
        }
    }
}
