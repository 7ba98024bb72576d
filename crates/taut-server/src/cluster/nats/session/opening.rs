//! How an incarnation begins: it connects, comes into the log, and reads all that is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{timeout, timeout_at};

use super::said;
use crate::cluster::driver::Node;
use crate::cluster::nats::api::{self, Answer, Stream};
use crate::cluster::nats::connection::Connection;
use crate::cluster::nats::entry::{Content, Entry};
use crate::cluster::nats::log::Log;
use crate::cluster::nats::names::Names;
use crate::cluster::nats::protocol::Writer;
use crate::cluster::nats::router::{FromEngine, Router, Target};
use crate::cluster::nats::{Doubt, Kept};
use crate::hub::engine::Epoch;

/// A connection before its session.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    pub(super) connection: Connection,
    pub(super) from_engine: UnboundedReceiver<FromEngine>,
    pub(super) names: &'a Names,
    pub(super) incarnation: Arc<str>,
    /// What the subjects of answers begin with.
    pub(super) inbox: String,
    pub(super) patience: Duration,
    /// Of the last question.
    pub(super) number: u64,
    pub(super) log: Log,
    /// Of each stream.
    pub(super) replicas: u64,
    /// It reads on where the session before was.
    pub(super) is_continued: bool,
    pub(super) deliveries: Deliveries,
}

/// Sees whether the log comes without gaps, and what time it is for the server.
#[derive(Debug)]
pub(super) struct Deliveries {
    last: u64,
    clock: Clock,
}

/// The server's clock, as far as its entries tell: those that were under way for the shortest time tell it best.
#[derive(Clone, Copy, Debug)]
struct Clock {
    since: Instant,
    /// Milliseconds since 1970 at `since`.
    at: u64,
}

impl Deliveries {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: 0, clock: Clock { since: now, at: 0 } }
    }

    /// Takes down the number of a delivery, and when its entry was written.
    pub(super) fn take(&mut self, number: u64, at: u64, now: Instant) -> Result<(), Doubt> {
        if number != self.last + 1 {
            return Err(Doubt::Gap);
        }
        self.last = number;
        let since = now.duration_since(self.clock.since).as_millis() as u64;
        self.clock.at = self.clock.at.max(at.saturating_sub(since));
        Ok(())
    }

    /// Milliseconds since 1970 by the server's clock.
    pub(super) fn now(&self, now: Instant) -> u64 {
        self.clock.at + now.duration_since(self.clock.since).as_millis() as u64
    }
}

impl<'a> Opening<'a> {
    /// Subscribes to what a session needs, and finds the log, or makes it.
    pub(super) async fn new(
        connection: Connection,
        from_engine: UnboundedReceiver<FromEngine>,
        router: &Router,
        names: &'a Names,
        incarnation: &str,
        patience: Duration,
        kept: &Kept,
    ) -> Result<Self, Doubt> {
        let mut writer = Writer::default();
        let (inbox, log) = (format!("_INBOX.{incarnation}.answer."), log_inbox(incarnation));
        for (subscription, subject, target) in
            [(ANSWERS, format!("{inbox}*"), Target::Answers), (LOG, log, Target::Log)]
        {
            router.add(subscription, target);
            writer.subscribe(&subject, subscription);
        }
        connection.send(writer.take());
        let mut opening = Self {
            connection,
            from_engine,
            names,
            incarnation: incarnation.into(),
            inbox,
            patience,
            number: 0,
            log: Log::new(Epoch(0)),
            replicas: 1,
            is_continued: false,
            deliveries: Deliveries::new(Instant::now()),
        };
        let stream = opening.stream(kept).await?;
        opening.replicas = stream.replicas();
        let tidied = opening.tidied().await?;
        match kept.take(stream.epoch(), tidied) {
            Some(log) => (opening.log, opening.is_continued) = (log, true),
            None => opening.log = Log::new(stream.epoch()),
        }
        Ok(opening)
    }

    /// The log. Whoever comes first makes it, and the stream with users whose connections were closed. All streams have as many replicas as the log.
    async fn stream(&mut self, kept: &Kept) -> Result<Stream, Doubt> {
        let known = self.ask(api::stream(&self.names.log())).await?;
        let stream = match api::read::<Stream>(&known)? {
            Err(failure) if failure.is_no_stream() => {
                let made = self.ask(api::create_log(self.names, api::REPLICAS)).await?;
                match api::read::<Stream>(&made)? {
                    Err(failure) if failure.is_one_server() => self.one_replica().await?,
                    Err(failure) if failure.is_too_few_servers() && kept.stays_alone(Instant::now()) => {
                        self.one_replica().await?
                    }
                    made => made.map_err(Doubt::Refused)?,
                }
            }
            known => known.map_err(Doubt::Refused)?,
        };
        if !stream.is_ours() {
            return Err(Doubt::Other);
        }
        let made = self.ask(api::create_terminated(self.names, stream.replicas())).await?;
        api::read::<Stream>(&made)?.map_err(Doubt::Refused)?;
        Ok(stream)
    }

    /// Up to where entries may have been taken out of the log by now.
    async fn tidied(&mut self) -> Result<u64, Doubt> {
        let answer = self.ask(api::last_of(&self.names.log(), &self.names.tidied())).await?;
        match api::read_stored(&answer)?.map(|stored| Entry::read(&stored.payload, None)) {
            Ok(Ok(Entry { content: Content::Tidied { up_to }, .. })) => Ok(up_to),
            Ok(_) => Err(Doubt::Unexpected),
            Err(failure) if failure.is_no_message() => Ok(0),
            Err(failure) => Err(Doubt::Refused(failure)),
        }
    }

    async fn one_replica(&mut self) -> Result<Stream, Doubt> {
        let made = self.ask(api::create_log(self.names, 1)).await?;
        api::read::<Stream>(&made)?.map_err(Doubt::Refused)
    }

    /// Comes into the cluster, and reads what is there. Gives the sequence of the first renewal.
    pub(super) async fn enter(&mut self, node: &Node) -> Result<u64, Doubt> {
        // Longer than that, and what others take out may be missed.
        let end = tokio::time::Instant::now() + node.settings.lease * 4 / 5;
        let (inbox, from) = (log_inbox(&self.incarnation), self.log.sequence() + 1);
        let consume = api::consume(&self.names.log(), &inbox, from, node.settings.lease);
        let consumer = self.ask(consume).await?;
        api::read::<serde_json::Value>(&consumer)?.map_err(Doubt::Refused)?;
        let entered = self.append(Content::Entered, &[]).await?;
        let renewed = self.append(said(node), &[(api::EXPECTED, "0")]).await?;
        while self.log.sequence() < entered {
            let next = timeout_at(end, self.from_engine.recv()).await.map_err(|_| Doubt::Late)?;
            self.take(next.ok_or(Doubt::Unexpected)?)?;
        }
        if self.is_continued && self.tidied().await? >= from {
            // Something may be missing in what was read just now.
            self.is_continued = false;
            return Err(Doubt::Late);
        }
        Ok(renewed)
    }

    async fn append(&mut self, content: Content, headers: &[(&str, &str)]) -> Result<u64, Doubt> {
        let entry = Entry { incarnation: Arc::clone(&self.incarnation), content };
        let answer = self.publish((self.names.entry(&entry), entry.write()), headers).await?;
        api::read_acknowledgement(&answer)?.map_err(Doubt::Refused)
    }

    async fn ask(&mut self, request: api::Request) -> Result<Answer, Doubt> {
        self.publish(request, &[]).await
    }

    /// Publishes something, and waits for the answer.
    async fn publish(&mut self, request: api::Request, headers: &[(&str, &str)]) -> Result<Answer, Doubt> {
        self.number += 1;
        let (subject, payload) = request;
        let mut writer = Writer::default();
        writer.publish(&subject, Some(&format!("{}{}", self.inbox, self.number)), headers, &payload);
        self.connection.send(writer.take());
        let patience = self.patience;
        timeout(patience, self.answer()).await.unwrap_or(Err(Doubt::Silent))
    }

    async fn answer(&mut self) -> Result<Answer, Doubt> {
        loop {
            let next = self.from_engine.recv().await.ok_or(Doubt::Unexpected)?;
            match next {
                FromEngine::Answer { number, answer } if number == self.number => return Ok(answer),
                other => self.take(other)?,
            }
        }
    }

    /// What was there before this node changes nothing for it: it only becomes known.
    fn take(&mut self, what: FromEngine) -> Result<(), Doubt> {
        match what {
            FromEngine::Answer { .. } => {}
            FromEngine::Lost(doubt) => return Err(doubt),
            FromEngine::Stalled { reply } => {
                let mut writer = Writer::default();
                writer.publish(&reply, None, &[], b"");
                self.connection.send(writer.take());
            }
            FromEngine::Log(delivered) => {
                self.deliveries.take(delivered.number, delivered.at, Instant::now())?;
                match delivered.entry {
                    Some(entry) => self.log.apply(delivered.sequence, delivered.at, entry, &mut Vec::new()),
                    None => self.log.skip(delivered.sequence),
                }
            }
        }
        Ok(())
    }
}

fn log_inbox(incarnation: &str) -> String {
    format!("_INBOX.{incarnation}.log")
}

/// The first subscriptions of a connection.
const ANSWERS: u64 = 1;
const LOG: u64 = 2;

/// The number of the last subscription that each connection has.
pub(super) const LAST: u64 = LOG;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_log_is_noticed_and_the_fastest_entry_tells_the_time() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut deliveries = Deliveries::new(start);
        deliveries.take(1, 5_000, at(900)).expect("the first");
        deliveries.take(2, 6_000, at(1_100)).expect("the second");
        deliveries.take(3, 6_100, at(2_000)).expect("the third");
        assert_eq!(deliveries.now(at(2_000)), 6_900);
        assert!(matches!(deliveries.take(5, 7_000, at(2_100)), Err(Doubt::Gap)));
    }
}
