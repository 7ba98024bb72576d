//! What a session does by its clock: it renews its lease, fences those who do not, tells webhooks, and takes out of the log what nobody needs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::Asked;
use super::{COUNT_INTERVAL, LOG, Session, Then, queue, said};
use crate::cluster::Happened;
use crate::cluster::driver::Session as _;
use crate::cluster::nats::entry::{Content, Entry, Told};
use crate::cluster::nats::log::Log;
use crate::cluster::nats::{Doubt, Memory, api};

/// What is known of others, and what is still to be taken out of the log.
///
/// Nobody may miss an entry that changes something. A node that has not read as far as its own renewals for most of a lease ends its session, and one
/// that begins has read all that was there within most of a lease. So what everybody needs to read, and nobody needs to find, is taken out after two.
/// Before that, it is written down up to where it is done, so that a node that was away knows whether it can read on.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    peers: HashMap<Arc<str>, Peer>,
    /// The dead, by when that became known, and whether their cells have been taken out.
    fenced: HashMap<Arc<str>, Fenced>,
    /// Strangers in whose name something was written.
    void: HashSet<Arc<str>>,
    /// When these entries can be taken out.
    spent: VecDeque<(Instant, u64)>,
    /// What has happened was read up to here.
    read: u64,
    tell_at: Option<Instant>,
    mark_at: Option<Instant>,
    /// The log is being read up to when removals were due.
    is_catching_up: bool,
}

#[derive(Debug)]
struct Peer {
    /// When its last renewal came.
    seen: Instant,
    /// When this node has tried to fence it.
    suspected: Option<Instant>,
}

#[derive(Debug)]
struct Fenced {
    since: Instant,
    /// The log has been read so far by then.
    sequence: u64,
    is_swept: bool,
}

impl Upkeep {
    /// From here on others are watched.
    pub(super) fn begin(&mut self, log: &Log, now: Instant) {
        for (incarnation, ..) in log.living_in_order() {
            self.seen(incarnation, now);
        }
        for incarnation in log.fenced() {
            self.fenced(Arc::clone(incarnation), log.sequence(), now);
        }
    }

    pub(super) fn seen(&mut self, incarnation: &Arc<str>, now: Instant) {
        match self.peers.get_mut(incarnation) {
            Some(peer) => *peer = Peer { seen: now, suspected: None },
            None => drop(self.peers.insert(Arc::clone(incarnation), Peer { seen: now, suspected: None })),
        }
    }

    pub(super) fn fenced(&mut self, incarnation: Arc<str>, sequence: u64, now: Instant) {
        self.peers.remove(&incarnation);
        self.fenced.entry(incarnation).or_insert(Fenced { since: now, sequence, is_swept: false });
    }

    pub(super) fn void(&mut self, incarnation: Arc<str>) {
        if self.void.len() < MOST_VOID {
            self.void.insert(incarnation);
        }
    }

    /// An entry can be taken out from then on.
    pub(super) fn spent(&mut self, sequence: u64, from: Instant) {
        self.spent.push_back((from, sequence));
    }

    /// Up to where something can be taken out; 0: there is nothing. The dead are for the eldest.
    fn due(&self, is_eldest: bool, now: Instant, lease: Duration) -> u64 {
        let spent = self.spent.iter().take_while(|(from, _)| *from <= now).map(|(_, sequence)| *sequence);
        let fenced = self.fenced.values().filter(|fenced| is_eldest && now > fenced.since + 2 * lease);
        spent.chain(fenced.map(|fenced| fenced.sequence)).max().unwrap_or(0)
    }

    /// For how long an incarnation counts as alive, unless it says more.
    pub(super) fn left(&self, incarnation: &str, now: Instant, lease: Duration) -> Duration {
        let seen = self.peers.get(incarnation).map(|peer| peer.seen);
        seen.map_or(Duration::ZERO, |seen| (seen + lease).saturating_duration_since(now))
    }
}

impl Session {
    pub(super) fn tick(&mut self, memory: &mut Memory) -> Result<(), Doubt> {
        let now = Instant::now();
        if self.queue.since().is_some_and(|since| now > since + self.node.settings.response_timeout) {
            return Err(Doubt::Silent);
        }
        if memory.is_leaving {
            // The lease is given back.
            return Ok(());
        }
        self.renew(now);
        for (app, channel, subscribers) in self.counts.due(now, now + COUNT_INTERVAL) {
            self.count(&app, &channel, subscribers);
        }
        for app in self.shares.due(&self.node.apps) {
            self.draw(&app, memory);
        }
        self.suspect(now);
        self.tidy(now);
        self.tell_webhooks(now, memory)?;
        self.terminations.end(now);
        Ok(())
    }

    /// It succeeds if nobody has fenced this incarnation.
    fn renew(&mut self, now: Instant) {
        if self.lease.is_renewing || now < self.lease.renew_at {
            return;
        }
        self.lease.is_renewing = true;
        let entry = Entry { incarnation: Arc::clone(&self.incarnation), content: said(&self.node) };
        let headers = [(api::EXPECTED, self.lease.last.to_string())];
        let entry = self.entry(&entry, &headers, Then::Renewed { sent: now });
        self.queue.push_first(entry);
    }

    /// Fences those who have not renewed their leases, and those who have left once their users have had time to come back. What this node has not read
    /// yet may be a renewal, so time is counted to when it wrote the last entry of its own that it has read.
    fn suspect(&mut self, now: Instant) {
        let lease = self.node.settings.lease;
        let mut suspects = Vec::new();
        for (incarnation, renewed, _) in self.log.living_in_order() {
            let peer = self.upkeep.peers.entry(Arc::clone(incarnation)).or_insert(Peer { seen: now, suspected: None });
            let is_due = peer.suspected.is_none_or(|at| now > at + lease / 2);
            if *incarnation != self.incarnation && peer.seen + lease < self.lease.proven && is_due {
                peer.suspected = Some(now);
                suspects.push((Arc::clone(incarnation), renewed));
            }
        }
        for (incarnation, left, grace) in self.log.leaving() {
            let peer = self.upkeep.peers.entry(Arc::clone(incarnation)).or_insert(Peer { seen: now, suspected: None });
            let is_due = peer.suspected.is_none_or(|at| now > at + lease / 2);
            if now >= peer.seen + grace && is_due {
                peer.suspected = Some(now);
                suspects.push((Arc::clone(incarnation), left));
            }
        }
        for (incarnation, renewed) in suspects {
            // Several may try: the first one does it, and none if it has renewed its lease.
            self.fence(&incarnation, &[(api::EXPECTED, renewed.to_string())], Then::Tried);
        }
    }

    fn tidy(&mut self, now: Instant) {
        let (lease, log) = (self.node.settings.lease, self.names.log());
        let is_eldest = self.log.eldest() == Some(&self.incarnation);
        let up_to = self.mark(is_eldest, now);
        for _ in 0..MOST_SPENT {
            let is_due = |(from, sequence): &&(Instant, u64)| *from <= now && *sequence <= up_to;
            let Some((_, sequence)) = self.upkeep.spent.front().filter(is_due) else { break };
            self.queue.push(queue::Entry::Tell(api::delete(&log, *sequence)));
            self.upkeep.spent.pop_front();
        }
        let mut forgotten = Vec::new();
        for (incarnation, fenced) in &mut self.upkeep.fenced {
            if is_eldest && fenced.sequence > up_to {
                continue;
            }
            if !fenced.is_swept && now > fenced.since + 2 * lease {
                fenced.is_swept = true;
                if is_eldest {
                    self.queue.push(queue::Entry::Tell(api::purge(&log, &self.names.cells(incarnation))));
                }
            }
            // Whoever has read something of it has read that it is dead by now.
            if now > fenced.since + 4 * lease {
                forgotten.push(Arc::clone(incarnation));
            }
        }
        for incarnation in forgotten {
            self.upkeep.fenced.remove(&incarnation);
            self.log.forget(&incarnation);
            if is_eldest {
                // Its cells once more: the eldest may have been another one, and have died. Without them the fence is not needed.
                for subjects in [self.names.cells(&incarnation), self.names.lease(&incarnation)] {
                    self.queue.push(queue::Entry::Tell(api::purge(&log, &subjects)));
                }
            }
        }
        for incarnation in std::mem::take(&mut self.upkeep.void) {
            let is_stranger = !self.log.is_alive(&incarnation) && !self.upkeep.fenced.contains_key(&incarnation);
            if is_eldest && is_stranger {
                self.queue.push(queue::Entry::Tell(api::purge(&log, &self.names.cells(&incarnation))));
            }
        }
    }

    /// Writes down up to where entries are going to be taken out, if there are any, and gives up to where everybody may know that.
    fn mark(&mut self, is_eldest: bool, now: Instant) -> u64 {
        let (tidied, lease) = (self.log.tidied(), self.node.settings.lease);
        if self.upkeep.mark_at.is_none_or(|at| now >= at) {
            let up_to = self.upkeep.due(is_eldest, now, lease);
            if up_to > tidied.up_to {
                self.upkeep.mark_at = Some(now + lease / 4);
                let entry = Entry { incarnation: Arc::clone(&self.incarnation), content: Content::Tidied { up_to } };
                let headers = [(api::EXPECTED, tidied.sequence.to_string())];
                let entry = self.entry(&entry, &headers, Then::Tried);
                self.queue.push(entry);
            }
        }
        tidied.up_to
    }

    /// Webhooks are told on from where the session before was, if it was this node's turn.
    pub(super) fn begin_backlog(&mut self, memory: &mut Memory) {
        memory.backlog.hold_at_most(self.connection.max_payload / 2 / LARGEST_PLACE);
        if !self.is_continued && self.is_last(memory) {
            memory.backlog.lose(LOG);
        }
        memory.backlog.begin(LOG, self.log.epoch());
    }

    /// Whether there is no other node.
    fn is_last(&self, memory: &Memory) -> bool {
        let is_own = |it: &str| *it == *self.incarnation || memory.former.iter().any(|former| **former == *it);
        self.log.living_in_order().all(|(incarnation, ..)| is_own(incarnation))
    }

    fn is_turn(&self) -> bool {
        self.is_joined && self.log.eldest() == Some(&self.incarnation)
    }

    /// The eldest tells webhooks what has happened.
    fn tell_webhooks(&mut self, now: Instant, memory: &mut Memory) -> Result<(), Doubt> {
        if !self.is_turn() || self.upkeep.tell_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        // Between the last look and now this node may have been asleep, and another one has told all this.
        if Instant::now() >= self.lease.ends {
            return Err(Doubt::Late);
        }
        self.read_happened(now, memory);
        if memory.backlog.is_due(now) && !std::mem::replace(&mut self.upkeep.is_catching_up, true) {
            self.ask(Asked::Due { until: now });
        }
        self.write_told(now, memory);
        Ok(())
    }

    /// The log has been read as far as it was `until` then: what had undone a removal by then would have been in it.
    pub(super) fn tell_due(&mut self, until: Instant, memory: &mut Memory) {
        self.upkeep.is_catching_up = false;
        let now = Instant::now();
        if self.is_turn() && now < self.lease.ends {
            self.read_happened(now, memory);
            memory.backlog.tell_due(until, &*self.node.owners);
            self.write_told(now, memory);
        }
    }

    fn read_happened(&mut self, now: Instant, memory: &mut Memory) {
        let owners = &*self.node.owners;
        let (read, time) = (self.upkeep.read, self.deliveries.now(now));
        for next in self.log.untold().filter(|it| it.place.0 > read) {
            self.upkeep.read = next.place.0;
            let Some(app) = self.node.apps.by_id(&next.app) else {
                memory.backlog.skip(LOG, next.place);
                continue;
            };
            let ago = Duration::from_millis(time.saturating_sub(next.at));
            let happened = Happened { event: next.event.clone(), waited: next.waited + ago, ago };
            memory.backlog.take(LOG, next.place, &app, happened, now, owners);
        }
    }

    /// Writes down what was told, if there is any, so that others forget it.
    fn write_told(&mut self, now: Instant, memory: &Memory) {
        let places: Vec<_> = memory.backlog.settled(LOG).iter().copied().collect();
        if places.is_empty() {
            return;
        }
        self.upkeep.tell_at = Some(now + TELL_INTERVAL);
        let (last, held) = (self.upkeep.read, memory.backlog.held(LOG));
        let sequence = held.first().map_or(last, |(first, _)| first.saturating_sub(1));
        self.append(Content::Told { sequence, beyond: Told { last, held } }, Then::Told { places });
    }

    /// Whoever tells webhooks next goes on with what this node has not told, as far as it knows of it. All else is told now.
    pub(super) fn hand_over(&mut self, memory: &mut Memory) {
        let now = Instant::now();
        if self.is_turn() {
            self.read_happened(now, memory);
            let heir = self.log.heir().unwrap_or(u64::MAX);
            memory.backlog.tell_up_to(LOG, (heir, 0), now, &*self.node.owners);
            self.write_told(now, memory);
        }
        memory.backlog.tell_lost(now, &*self.node.owners);
    }
}

/// Bytes that a place takes in what is told.
const LARGEST_PLACE: usize = 32;

/// Entries that are taken out at once.
const MOST_SPENT: usize = 256;

/// Strangers whose entries are taken out at once.
const MOST_VOID: usize = 64;

/// Between two looks at what has happened.
const TELL_INTERVAL: Duration = Duration::from_millis(200);
