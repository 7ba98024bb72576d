//! What becomes of the engine's answers, and of questions once the log has been read as far as they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{LOG, Session, queue};
use crate::apps::App;
use crate::cluster::backlog::Place;
use crate::cluster::carriage::Carriage;
use crate::cluster::driver::Session as _;
use crate::cluster::nats::api::{self, Answer, Stored, Stream};
use crate::cluster::nats::entry::Content;
use crate::cluster::nats::queue::Finished;
use crate::cluster::nats::{Doubt, Memory};
use crate::cluster::shares::Draw;
use crate::cluster::wire::Message;
use crate::cluster::{Node as Peer, Question};
use crate::hub::command::Publication;
use crate::hub::engine::{Epoch, Position, Snapshot, TooMany, Update};
use crate::query::{CachedEvent, ChannelState};

/// What something was written for.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    /// The log has what this node holds.
    Held(Option<Joined>),
    /// Others know what webhooks have been told.
    Told {
        places: Vec<Place>,
    },
    /// The log has it, and needs it only until every node has read it.
    Spent,
    Renewed {
        sent: Instant,
    },
    /// An incarnation of this node has ended.
    Fenced,
    /// It was to be written unless another node has written something in that place meanwhile.
    Tried,
    Left(Option<oneshot::Sender<()>>),
    Subscribed {
        app: Box<str>,
        channel: Arc<str>,
        number: u64,
    },
    Carried(Carriage),
    Kept {
        carriage: Carriage,
        seconds: u64,
    },
    /// This node has a share of an app's connections, unless another one has written down its own meanwhile.
    Shared {
        app: Arc<App>,
        draw: Draw,
        granted: usize,
    },
    /// The next user whose connections were closed on other nodes while this one may have been away.
    Terminated,
    /// A user's connections are to be closed by nodes that are away, too.
    Terminating,
    LastStream {
        seconds: u64,
    },
    LastEvent {
        app: Arc<App>,
        channel: Arc<str>,
        is_missed: bool,
        seconds: u64,
    },
    ChannelState {
        app: Arc<App>,
        channel: Box<str>,
        answer: oneshot::Sender<ChannelState>,
    },
    Asked(Asked),
}

/// A user on its way into a presence channel.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) app: Arc<App>,
    pub(super) channel: Arc<str>,
    pub(super) user_id: Arc<str>,
    pub(super) number: u32,
    pub(super) most: usize,
}

/// What the log is asked.
#[derive(Debug)]
pub(super) enum Asked {
    Nothing,
    /// Nothing more: all that this node holds is known.
    Rejoined,
    /// Which removals were not undone by then?
    Due {
        until: Instant,
    },
    /// How many connections of an app are left?
    Share {
        app: Arc<App>,
        draw: Draw,
    },
    Members {
        app: Arc<App>,
        channel: Arc<str>,
    },
    Online {
        app: Arc<App>,
        user_ids: Arc<[Arc<str>]>,
        number: u32,
    },
    /// Which nodes are to close a user's connections?
    Terminating {
        request: u64,
    },
    Question(Question),
}

/// What waits until the log has been read so far.
#[derive(Debug)]
pub(super) enum Awaited {
    Renewed {
        sent: Instant,
    },
    Joined(Joined),
    Shared {
        app: Arc<App>,
        draw: Draw,
        granted: usize,
    },
    Asked(Asked),
    ChannelState {
        app: Box<str>,
        channel: Box<str>,
        cached: Option<CachedEvent>,
        answer: oneshot::Sender<ChannelState>,
    },
}

impl Session {
    /// A batch is done. The first error ends the session; what is not answered by then has failed.
    pub(super) fn finished(&mut self, finished: Finished<Then>, memory: &mut Memory) -> Result<(), Doubt> {
        let Finished { items, log, took } = finished;
        self.node.status.lag.store(took.as_micros() as u64, Ordering::Relaxed);
        let mut last = match log {
            Some(log) => self.last_sequence(&log)?,
            None => 0,
        };
        let mut asked = Vec::new();
        for (then, answer) in items {
            match (then, answer) {
                (Then::Asked(question), _) => asked.push(Awaited::Asked(question)),
                (Then::ChannelState { app, channel, answer }, Some(stored)) => {
                    let cached = self.cached(&app, &channel, &stored)?;
                    asked.push(Awaited::ChannelState { app: app.id().into(), channel, cached, answer });
                }
                (then, answer) => last = last.max(self.answered(then, answer, memory)?),
            }
        }
        // Behind all that was written before.
        for asked in asked {
            self.wait(last, asked, memory);
        }
        Ok(())
    }

    /// The last sequence of the log.
    fn last_sequence(&self, answer: &Answer) -> Result<u64, Doubt> {
        match api::read::<Stream>(answer)? {
            Ok(stream) if stream.epoch() == self.log.epoch() => Ok(stream.last()),
            Ok(_) => Err(Doubt::Fenced),
            Err(failure) if failure.is_no_stream() => Err(Doubt::Fenced),
            Err(failure) => Err(Doubt::Refused(failure)),
        }
    }

    /// Gives the sequence of what was written into the log.
    fn answered(&mut self, then: Then, answer: Option<Answer>, memory: &mut Memory) -> Result<u64, Doubt> {
        let acknowledged = |answer: &Option<Answer>| {
            let answer = answer.as_ref().ok_or(Doubt::Unexpected)?;
            api::read_acknowledgement(answer)
        };
        match then {
            Then::Nothing => {}
            Then::Carried(carriage) => carriage.carried(),
            Then::Subscribed { app, channel, number } => {
                if let (true, Some(known)) = (memory.part.confirm(&app, &channel, number), self.node.apps.by_id(&app)) {
                    self.node.owners.update(&known, Update::Subscribed { channel });
                }
            }
            Then::Held(joined) => {
                let sequence = acknowledged(&answer)?.map_err(Doubt::Refused)?;
                if let Some(joined) = joined {
                    self.wait(sequence, Awaited::Joined(joined), memory);
                }
                return Ok(sequence);
            }
            Then::Told { places } => {
                let sequence = acknowledged(&answer)?.map_err(Doubt::Refused)?;
                memory.backlog.forgotten(LOG, |place| places.binary_search(place).is_ok());
                return Ok(sequence);
            }
            Then::Spent => {
                let sequence = acknowledged(&answer)?.map_err(Doubt::Refused)?;
                self.upkeep.spent(sequence, Instant::now() + 2 * self.node.settings.lease);
                return Ok(sequence);
            }
            Then::Renewed { sent } => match acknowledged(&answer)? {
                Ok(sequence) => {
                    self.lease.last = sequence;
                    self.wait(sequence, Awaited::Renewed { sent }, memory);
                    return Ok(sequence);
                }
                Err(failure) if failure.is_wrong_sequence() => return Err(Doubt::Fenced),
                Err(failure) => return Err(Doubt::Refused(failure)),
            },
            Then::Fenced => return acknowledged(&answer)?.map_err(Doubt::Refused),
            Then::Tried => drop(acknowledged(&answer)?),
            Then::Left(done) => {
                acknowledged(&answer)?.map_err(Doubt::Refused)?;
                self.has_left = true;
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
            Then::Kept { carriage, seconds } => match acknowledged(&answer) {
                Ok(Ok(_)) => carriage.carried(),
                // Without room it refuses an event, and goes on with all else; or somebody has taken the stream away.
                refused => {
                    self.lasts.remove(&seconds);
                    tracing::warn!(?refused, "the engine has not kept an event");
                }
            },
            Then::Shared { app, draw, granted } => match acknowledged(&answer)? {
                Ok(sequence) => {
                    self.wait(sequence, Awaited::Shared { app, draw, granted }, memory);
                    return Ok(sequence);
                }
                Err(failure) if failure.is_wrong_sequence() => self.ask(Asked::Share { app, draw }),
                Err(failure) => return Err(Doubt::Refused(failure)),
            },
            Then::Terminating => drop(acknowledged(&answer)?.map_err(Doubt::Refused)?),
            Then::Terminated => self.terminated_found(&answer.ok_or(Doubt::Unexpected)?)?,
            Then::LastStream { seconds } => self.last_stream_found(seconds, answer)?,
            Then::LastEvent { app, channel, is_missed, seconds } => {
                self.last_event_found(&app, channel, is_missed, seconds, answer)?;
            }
            Then::Asked(_) | Then::ChannelState { .. } => return Err(Doubt::Unexpected),
        }
        Ok(0)
    }

    /// Closes what was closed on other nodes while this one was away, and is not younger than that.
    fn terminated_found(&mut self, answer: &Answer) -> Result<(), Doubt> {
        let Some(stored) = stored(answer)? else { return Ok(()) };
        self.ask_terminated(stored.sequence + 1);
        let left = stored.until.saturating_sub(self.deliveries.now(Instant::now()));
        match Message::read(&Arc::from(""), &stored.payload) {
            Ok(Message::Terminate { app, user_id, .. }) => {
                self.node.terminated(&app, &user_id, api::TERMINATED.saturating_sub(Duration::from_millis(left)));
            }
            Ok(_) => {}
            Err(malformed) => tracing::warn!(%malformed, "a message of the cluster was not understood"),
        }
        Ok(())
    }

    /// Asks for the first user, from a sequence on, whose connections were closed on all nodes within the last minute.
    fn ask_terminated(&mut self, from: u64) {
        let request = api::next_of(&self.names.terminated(), &self.names.terminated_subjects(), from);
        self.queue.push(queue::Entry::Request { request, is_first: false, then: Then::Terminated });
    }

    fn last_stream_found(&mut self, seconds: u64, answer: Option<Answer>) -> Result<(), Doubt> {
        match api::read::<Stream>(&answer.ok_or(Doubt::Unexpected)?)? {
            Ok(stream) if stream.is_ours() => self.router.set_stream(self.names.last(seconds), stream.epoch()),
            Ok(_) => return Err(Doubt::Other),
            Err(failure) if failure.is_no_stream() => {
                let request = api::create_last(&self.names, seconds, self.replicas);
                self.queue.push_first(queue::Entry::Request {
                    request,
                    is_first: true,
                    then: Then::LastStream { seconds },
                });
            }
            Err(failure) => return Err(Doubt::Refused(failure)),
        }
        Ok(())
    }

    fn last_event_found(
        &mut self,
        app: &Arc<App>,
        channel: Arc<str>,
        is_missed: bool,
        seconds: u64,
        answer: Option<Answer>,
    ) -> Result<(), Doubt> {
        let stored = stored(&answer.ok_or(Doubt::Unexpected)?)?;
        let epoch = self.router.stream(&self.names.last(seconds)).unwrap_or(Epoch(0));
        let number = stored.as_ref().map_or(0, |stored| stored.sequence);
        let publication = stored.and_then(|stored| self.still_kept(&channel, &stored));
        if is_missed && publication.is_none() && !self.log.is_missed(app.id(), &channel, number) {
            let missed = Content::Missed { app: app.id().into(), channel: Arc::clone(&channel), number };
            self.append(missed, Then::Spent);
        }
        let position = Position { epoch, number };
        self.node
            .owners
            .update(app, Update::LastEvent { channel, publication: publication.map(|(it, _)| it), position });
        Ok(())
    }

    fn cached(&self, app: &App, channel: &str, answer: &Answer) -> Result<Option<CachedEvent>, Doubt> {
        let event = stored(answer)?.and_then(|stored| self.still_kept(&channel.into(), &stored));
        // Clocks differ a little.
        let most = app.snapshot().limits.cache_ttl;
        Ok(event.map(|(event, ttl)| CachedEvent { data: event.data().into_owned().into(), ttl: ttl.min(most) }))
    }

    /// The event, and for how long it is still kept.
    fn still_kept(&self, channel: &Arc<str>, stored: &Stored) -> Option<(Publication, Duration)> {
        let left = stored.until.checked_sub(self.deliveries.now(Instant::now())).filter(|left| *left > 0)?;
        match Message::read(channel, &stored.payload) {
            Ok(Message::Published { publication, .. }) => Some((publication, Duration::from_millis(left))),
            _ => None,
        }
    }

    /// Does this once the log has been read so far.
    fn wait(&mut self, sequence: u64, awaited: Awaited, memory: &mut Memory) {
        if sequence <= self.log.sequence() {
            return self.due(sequence, awaited, memory);
        }
        self.awaited.entry(sequence).or_default().push(awaited);
    }

    /// The log has been read so far.
    pub(super) fn reached(&mut self, sequence: u64, memory: &mut Memory) {
        while let Some(first) = self.awaited.first_entry() {
            if *first.key() > sequence {
                break;
            }
            let (at, due) = first.remove_entry();
            for awaited in due {
                self.due(at, awaited, memory);
            }
        }
    }

    fn due(&mut self, sequence: u64, awaited: Awaited, memory: &mut Memory) {
        match awaited {
            Awaited::Renewed { sent } => {
                let renew_at = sent + self.node.settings.lease / 4;
                let (ends, last) = (self.node.lease_from(sent), self.lease.last);
                self.lease = super::Lease { ends, proven: sent, last, renew_at, is_renewing: false };
            }
            Awaited::Joined(Joined { app, channel, user_id, number, most }) => {
                let outcome = if self.full.remove(&sequence) {
                    memory.part.reject(app.id(), &channel, &user_id, number);
                    Err(TooMany { most })
                } else {
                    Ok(self.log.position(app.id(), &channel))
                };
                self.node.owners.update(&app, Update::Joined { channel, user_id, number, outcome });
            }
            Awaited::Shared { app, draw, granted } => {
                // While it leaves, this node shares nothing any longer.
                if !memory.is_leaving && self.shares.drawn(&app, &draw, granted, &*self.node.owners) {
                    self.draw(&app, memory);
                }
            }
            Awaited::ChannelState { app, channel, cached, answer } => {
                let _ = answer.send(ChannelState { occupancy: self.log.occupancy(&app, &channel), cached });
            }
            Awaited::Asked(asked) => self.asked(asked, memory),
        }
    }

    fn asked(&mut self, asked: Asked, memory: &mut Memory) {
        match asked {
            Asked::Nothing => {}
            Asked::Due { until } => self.tell_due(until, memory),
            Asked::Share { app, draw } => self.share(app, draw),
            Asked::Rejoined => {
                memory.former.clear();
                self.former.clear();
                self.is_joined = true;
                self.node.joined(&self.incarnation);
                self.ask_terminated(1);
            }
            Asked::Members { app, channel } => {
                let is_settling = self.settles.is_some_and(|until| Instant::now() < until);
                let (position, members) = (self.log.position(app.id(), &channel), self.log.members(app.id(), &channel));
                let snapshot = Snapshot { position, members, is_settling };
                self.node.owners.update(&app, Update::Members { channel, snapshot });
            }
            Asked::Online { app, user_ids, number } => {
                let online = user_ids.iter().filter(|user_id| self.log.is_online(app.id(), user_id)).cloned().collect();
                self.node.owners.update(&app, Update::Online { number, online });
            }
            Asked::Terminating { request } => {
                let others = self.log.living_in_order().map(|(incarnation, ..)| incarnation);
                let others = others.filter(|incarnation| **incarnation != self.incarnation);
                self.terminations.expect(request, others.map(|it| (**it).into()).collect());
            }
            Asked::Question(question) => self.answer(question),
        }
    }

    fn answer(&mut self, question: Question) {
        // Nobody may be left to hear it.
        match question {
            Question::Channels { app, prefix, answer } => drop(answer.send(self.log.occupied(app.id(), &prefix))),
            Question::Users { app, channel, answer } => drop(answer.send(self.log.users(app.id(), &channel))),
            Question::Nodes { answer } => drop(answer.send(self.peers())),
            Question::Channel { app, channel, answer } => {
                let occupancy = self.log.occupancy(app.id(), &channel);
                let _ = answer.send(ChannelState { occupancy, cached: None });
            }
            // It is for nodes.
            Question::Terminate { .. } => {}
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let now = Instant::now();
        let peer = |(incarnation, _, said): (&Arc<str>, _, Option<&crate::cluster::nats::log::Said>)| {
            let said = said?;
            Some(Peer {
                incarnation: (**incarnation).into(),
                name: said.name.clone(),
                version: said.version.clone(),
                is_here: *incarnation == self.incarnation,
                connections: said.connections,
                lease: self.upkeep.left(incarnation, now, self.node.settings.lease),
            })
        };
        self.log.living_in_order().filter_map(peer).collect()
    }
}

/// The message that was asked for, if there is one.
fn stored(answer: &Answer) -> Result<Option<Stored>, Doubt> {
    match api::read_stored(answer)? {
        Ok(stored) => Ok(Some(stored)),
        Err(failure) if failure.is_no_message() || failure.is_no_stream() => Ok(None),
        Err(failure) => Err(Doubt::Refused(failure)),
    }
}
