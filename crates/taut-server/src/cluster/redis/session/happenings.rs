//! What webhooks are told of the cluster: each partition has a stream of it, and one node whose turn it is.

use std::time::{Duration, Instant};

use ::redis::Value;

use super::answers::Answer;
use super::{PartitionState, Session};
use crate::cluster::backlog::Place;
use crate::cluster::redis::names::Partition;
use crate::cluster::redis::scripts::Script;
use crate::cluster::redis::{Doubt, Memory, reply};
use crate::cluster::{Happened, wire};

/// This node's turn to tell webhooks what has happened in the cluster.
#[derive(Debug)]
pub(super) struct Happenings {
    is_turn: bool,
    is_reading: bool,
    read_at: Instant,
    /// The last thing that was read.
    last: Option<Place>,
    /// Whether there was nothing behind it.
    is_at_end: bool,
}

impl Happenings {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_turn: false, is_reading: false, read_at: now, last: None, is_at_end: false }
    }

    /// Where a range begins that goes on behind what was read.
    fn from(&self) -> String {
        self.last.map_or_else(|| "-".to_owned(), |last| format!("({}", id(last)))
    }
}

impl Session {
    /// Whether it is this node's turn, as the engine has just said.
    pub(super) fn set_turn(&mut self, at: Partition, is_turn: bool, memory: &mut Memory) {
        let PartitionState { happenings, epoch, .. } = &mut self.partitions[at];
        if is_turn != happenings.is_turn {
            (happenings.is_turn, happenings.last, happenings.is_at_end) = (is_turn, None, false);
            memory.backlog.begin(at, *epoch);
        }
    }

    /// Tells the removals that nobody has undone in time. What is still to be read may have.
    pub(super) fn tell_due(&mut self, memory: &mut Memory) -> Result<(), Doubt> {
        let now = Instant::now();
        // Between the last look and now this node may have been asleep, and another one has told all this.
        if now >= self.lease.ends {
            return Err(Doubt::Late);
        }
        if self.partitions.iter().all(|it| !it.happenings.is_turn || it.happenings.is_at_end) {
            memory.backlog.tell_due(now, &*self.node.owners);
        }
        Ok(())
    }

    /// Reads what has happened, if it is this node's turn to tell it. That it was told is known to the engine by the next call.
    pub(super) fn read(&mut self, at: Partition, now: Instant, memory: &Memory) {
        let PartitionState { queue, happenings, .. } = &mut self.partitions[at];
        let settled = memory.backlog.settled(at);
        if happenings.is_turn && !happenings.is_reading && (now >= happenings.read_at || settled.len() >= MOST_TOLD) {
            happenings.is_reading = true;
            let told: Vec<_> = settled.iter().take(MOST_TOLD).copied().collect();
            let mut call = queue.call(Script::Happened);
            call.arg(&*self.incarnation).arg(happenings.from()).arg(MOST_READ);
            call.arg(ids(&told));
            queue.send(call, told.len() * ID, Answer::Happened(told));
        }
    }

    /// Whoever tells webhooks next goes on with what this node has not told, as far as the engine knows of it.
    pub(super) fn hand_over(&mut self, memory: &mut Memory) {
        memory.backlog.tell_lost(Instant::now(), &*self.node.owners);
        for (at, PartitionState { queue, happenings, .. }) in self.partitions.iter_mut().enumerate() {
            let told: Vec<_> = memory.backlog.settled(at).iter().copied().collect();
            for told in told.chunks(MOST_TOLD).filter(|_| happenings.is_turn) {
                let mut call = queue.call(Script::Happened);
                call.arg(&*self.incarnation).arg("-").arg(0).arg(ids(told));
                queue.send(call, told.len() * ID, Answer::Ignored);
            }
        }
    }

    /// Tells what has happened. If there was any, more may wait. The engine has forgotten what was `told`.
    pub(super) fn happened(
        &mut self,
        at: Partition,
        told: &[Place],
        reply: Value,
        memory: &mut Memory,
    ) -> Result<(), Doubt> {
        let now = Instant::now();
        // Between the answer and now this node may have been asleep, and another one has told all this.
        if now >= self.lease.ends {
            return Err(Doubt::Late);
        }
        if memory.is_leaving {
            // It does not say any more what it has told: the next one tells this.
            return Ok(());
        }
        memory.backlog.forgotten(at, |place| told.binary_search(place).is_ok());
        let events = reply::list(reply)?;
        let wait = if events.is_empty() && told.len() < MOST_TOLD { READ_INTERVAL } else { Duration::ZERO };
        let happenings = &mut self.partitions[at].happenings;
        happenings.is_reading = false;
        happenings.read_at = now + wait;
        happenings.is_at_end = events.len() < MOST_READ;
        for event in events {
            let [id, event, ago] = reply::tuple(event)?;
            let place = place(&reply::text(id)?).ok_or(Doubt::Unexpected)?;
            let ago = Duration::from_millis(reply::number(ago)?);
            self.partitions[at].happenings.last = Some(place);
            let read = wire::happened(&reply::bytes(event)?).inspect_err(
                |malformed| tracing::warn!(%malformed, "what has happened in the cluster was not understood"),
            );
            let known = read.ok().and_then(|(app, event, waited)| Some((self.node.apps.by_id(&app)?, event, waited)));
            let Some((app, event, waited)) = known else {
                memory.backlog.skip(at, place);
                continue;
            };
            let happened = Happened { event, waited: waited + ago, ago };
            memory.backlog.take(at, place, &app, happened, now, &*self.node.owners);
        }
        Ok(())
    }
}

fn ids(places: &[Place]) -> Vec<String> {
    places.iter().copied().map(id).collect()
}

/// Where something stands in a stream, as Redis calls it.
fn id((milliseconds, number): Place) -> String {
    format!("{milliseconds}-{number}")
}

/// The place in a stream that has this id.
fn place(id: &str) -> Option<Place> {
    let (milliseconds, number) = id.split_once('-')?;
    Some((milliseconds.parse().ok()?, number.parse().ok()?))
}

/// Things that have happened, in one answer.
const MOST_READ: usize = 100;

/// Things that the engine is told to forget in one call: Lua passes on no more than some thousands.
const MOST_TOLD: usize = 1000;

/// Bytes of the id of one of them.
const ID: usize = 24;

/// Between two looks at what has happened.
const READ_INTERVAL: Duration = Duration::from_millis(200);
