//! What becomes of the engine's answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::redis::{Value, cmd};
use tokio::sync::oneshot;

use super::{Lease, READ_INTERVAL, REAPED, Reaper, Session};
use crate::apps::App;
use crate::cluster::carriage::Carriage;
use crate::cluster::redis::queue::{Finished, Then};
use crate::cluster::redis::scripts::Script;
use crate::cluster::redis::{Doubt, Memory, hazard, reply};
use crate::cluster::shares::Draw;
use crate::cluster::{Node as Peer, Question, wire};
use crate::hub::command::{PresenceMember, Publication};
use crate::hub::engine::{Position, Snapshot, TooMany, Update};
use crate::pusher::channel::Kind;
use crate::query::{CachedEvent, ChannelState, Occupancy};

/// What an answer is for.
#[derive(Debug)]
pub(super) enum Answer {
    Rejoined,
    Renewed { sent: Instant },
    Reaped,
    Happened,
    Ignored,
    EngineMemory,
    EngineSettings,
    Left { done: Option<oneshot::Sender<()>> },
    Carried(Carriage),
    Joined { app: Arc<App>, channel: Arc<str>, user_id: Arc<str>, number: u32, most: usize },
    Members { app: Arc<App>, channel: Arc<str> },
    LastEvent { app: Arc<App>, channel: Arc<str> },
    Online { app: Arc<App>, user_ids: Arc<[Arc<str>]>, number: u32 },
    Channels(Channels),
    Channel { channel: Box<str>, answer: oneshot::Sender<ChannelState> },
    Users { answer: oneshot::Sender<Vec<Arc<str>>> },
    Nodes { answer: oneshot::Sender<Vec<Peer>> },
    Terminating { request: u64 },
    Terminated,
    Drawn { app: Arc<App>, draw: Draw },
}

/// A list of channels, of which a part has come.
#[derive(Debug)]
pub(super) struct Channels {
    app: Arc<App>,
    prefix: Box<str>,
    found: BTreeMap<Arc<str>, Occupancy>,
    answer: oneshot::Sender<BTreeMap<Arc<str>, Occupancy>>,
}

impl Session {
    pub(super) fn question(&mut self, question: Question) {
        match question {
            Question::Channels { app, prefix, answer } => {
                self.scan(Channels { app, prefix, found: BTreeMap::new(), answer }, "0");
            }
            Question::Channel { app, channel, answer } => {
                let mut call = self.queue.call(Script::Channel);
                call.arg(app.id()).arg(&*channel);
                self.queue.send(call, 0, Answer::Channel { channel, answer });
            }
            Question::Users { app, channel, answer } => {
                let mut keys = cmd("HKEYS");
                keys.arg(self.names.users(app.id(), &channel));
                self.queue.send(keys, 0, Answer::Users { answer });
            }
            Question::Nodes { answer } => {
                let call = self.queue.call(Script::Nodes);
                self.queue.send(call, 0, Answer::Nodes { answer });
            }
            Question::Terminate { app, user_id, answer } => self.terminate(&app, user_id, answer),
        }
    }

    fn scan(&mut self, channels: Channels, cursor: &str) {
        let mut call = self.queue.call(Script::Channels);
        call.arg(channels.app.id()).arg(&*channels.prefix).arg(cursor);
        self.queue.send(call, 0, Answer::Channels(channels));
    }

    /// The way through the engine also reaches nodes that are away now.
    fn terminate(&mut self, app: &App, user_id: Arc<str>, answer: oneshot::Sender<usize>) {
        let request = self.terminations.ask(Instant::now(), answer);
        let call = self.queue.call(Script::Nodes);
        self.queue.send(call, 0, Answer::Terminating { request });
        let (origin, from) = (self.node.origin.clone(), self.incarnation.clone());
        let mut call = self.queue.call(Script::Terminate);
        call.arg(app.id()).arg(&*user_id);
        let message = wire::Message::Terminate { origin, from, request, app: app.id().into(), user_id };
        call.arg(message.write());
        self.queue.send(call, 0, Answer::Ignored);
    }

    /// Closes what was closed on other nodes while this one was away, and is not younger than that.
    fn catch_up_terminations(&self, reply: Value) -> Result<(), Doubt> {
        for terminated in reply::list(reply)? {
            let [app, user_id, milliseconds] = reply::tuple(terminated)?;
            let (user_id, age) = (reply::shared(user_id)?, Duration::from_millis(reply::number(milliseconds)?));
            self.node.terminated(&reply::text(app)?, &user_id, age);
        }
        Ok(())
    }

    /// A pipeline is done. The first error ends the session; what is not answered by then has failed.
    pub(super) fn answered(&mut self, finished: Finished<Answer>, memory: &mut Memory) -> Result<(), Doubt> {
        let Finished { answers, replies, took } = finished;
        self.node.status.lag.store(took.as_micros() as u64, Ordering::Relaxed);
        for (then, reply) in answers.into_iter().zip(replies?) {
            match then {
                Then::One(Answer::Carried(carriage)) => carried(carriage, reply)?,
                // Refused or not understood, they are not known: the session goes on.
                Then::One(Answer::EngineMemory) => {
                    memory.kept.warn(hazard::of_memory(reply), &self.node.settings.address);
                }
                Then::One(Answer::EngineSettings) => {
                    memory.kept.warn(hazard::of_settings(reply, self.has_sentinels), &self.node.settings.address);
                }
                Then::One(answer) => self.answer(answer, reply::checked(reply)?, memory)?,
                Then::Each(answers) => {
                    for (answer, reply) in answers.into_iter().zip(reply::list(reply::checked(reply)?)?) {
                        if let Some(answer) = answer {
                            self.answer(answer, reply, memory)?;
                        }
                    }
                }
                Then::Nothing => drop(reply::checked(reply)?),
            }
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer, reply: Value, memory: &mut Memory) -> Result<(), Doubt> {
        match answer {
            Answer::Rejoined => {
                self.reaper.has_work = reply::number(reply)? > 0;
                memory.former.clear();
                self.missing.cells = false;
                self.check_joined();
            }
            Answer::Renewed { sent } => self.renewed(sent, reply)?,
            Answer::Reaped => {
                self.reaper = Reaper { has_work: reply::number(reply)? > 0, is_working: false };
                self.reap();
            }
            Answer::Happened => self.happened(reply, memory)?,
            Answer::Ignored | Answer::EngineMemory | Answer::EngineSettings => {}
            Answer::Left { done } => self.left(done, reply::number(reply)?),
            Answer::Carried(carriage) => carriage.carried(),
            Answer::Joined { app, channel, user_id, number, most } => {
                let position = reply::text(reply)?;
                let outcome = if position == FULL {
                    memory.part.reject(app.id(), &channel, &user_id, number);
                    Err(TooMany { most })
                } else {
                    Ok(self.position(&position)?)
                };
                self.node.owners.update(&app, Update::Joined { channel, user_id, number, outcome });
            }
            Answer::Members { app, channel } => {
                let snapshot = self.snapshot(reply)?;
                self.node.owners.update(&app, Update::Members { channel, snapshot });
            }
            Answer::LastEvent { app, channel } => {
                let [number, event, _] = reply::tuple(reply)?;
                let publication = kept(&channel, event)?;
                let position = Position { epoch: self.epoch, number: reply::number(number)? };
                self.node.owners.update(&app, Update::LastEvent { channel, publication, position });
            }
            Answer::Online { app, user_ids, number } => {
                let found = reply::list(reply)?.into_iter().map(|value| value != Value::Nil);
                let online = user_ids.iter().zip(found).filter(|(_, is_online)| *is_online);
                let online = online.map(|(user_id, _)| Arc::clone(user_id)).collect();
                self.node.owners.update(&app, Update::Online { number, online });
            }
            Answer::Channels(channels) => self.channels(channels, reply)?,
            Answer::Channel { channel, answer } => drop(answer.send(channel_state(&channel, reply)?)),
            Answer::Users { answer } => {
                let users = reply::list(reply)?.into_iter().map(reply::shared).collect::<Result<_, _>>()?;
                drop(answer.send(users));
            }
            Answer::Nodes { answer } => drop(answer.send(self.peers(reply)?)),
            Answer::Terminating { request } => {
                let others = self.peers(reply)?.into_iter().filter(|peer| !peer.is_here);
                self.terminations.expect(request, others.map(|peer| peer.incarnation).collect());
            }
            Answer::Terminated => self.catch_up_terminations(reply)?,
            Answer::Drawn { app, draw } => self.drawn(&app, &draw, reply::number(reply)? as usize, memory),
        }
        Ok(())
    }

    /// The lease is given back. What it held is taken away as long as there is any, so that others need not wait until they look.
    fn left(&mut self, done: Option<oneshot::Sender<()>>, dead: u64) {
        if dead > 0 {
            let mut call = self.queue.call(Script::Reap);
            call.arg(REAPED);
            return self.queue.send(call, REAPED * 512, Answer::Left { done });
        }
        self.has_left = true;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn renewed(&mut self, sent: Instant, reply: Value) -> Result<(), Doubt> {
        let [is_reader, dead] = reply::tuple(reply)?;
        let lease = self.node.settings.lease;
        self.lease = Lease { ends: self.node.lease_from(sent), renew_at: sent + lease / 4, is_renewing: false };
        self.happenings.is_turn = reply::number(is_reader)? == 1;
        self.reaper.has_work |= reply::number(dead)? > 0;
        self.reap();
        Ok(())
    }

    /// Tells what has happened. If there was any, more may wait.
    fn happened(&mut self, reply: Value, memory: &mut Memory) -> Result<(), Doubt> {
        // Between the answer and now this node may have been asleep, and another one has told all this.
        if Instant::now() >= self.lease.ends {
            return Err(Doubt::Late);
        }
        let events = reply::list(reply)?;
        let wait = if events.is_empty() { READ_INTERVAL } else { Duration::ZERO };
        self.happenings.is_reading = false;
        self.happenings.read_at = Instant::now() + wait;
        for event in events {
            let [number, event] = reply::tuple(event)?;
            memory.kept.told = Some((self.epoch, reply::text(number)?));
            match wire::happened(&reply::bytes(event)?) {
                Ok((app, event, waited)) => {
                    if let Some(app) = self.node.apps.by_id(&app) {
                        self.node.owners.happened(&app, event, waited);
                    }
                }
                Err(malformed) => tracing::warn!(%malformed, "what has happened in the cluster was not understood"),
            }
        }
        Ok(())
    }

    fn position(&self, number: &str) -> Result<Position, Doubt> {
        Ok(Position { epoch: self.epoch, number: number.parse().map_err(|_| Doubt::Unexpected)? })
    }

    fn snapshot(&self, reply: Value) -> Result<Snapshot, Doubt> {
        let [position, is_settling, users] = reply::tuple(reply)?;
        let mut members = Vec::new();
        let mut fields = reply::list(users)?.into_iter();
        while let (Some(user_id), Some(user_info)) = (fields.next(), fields.next()) {
            let user_info = reply::bytes(user_info)?;
            let user_info = wire::read_user_info(&user_info).map_err(|_| Doubt::Unexpected)?.map(Into::into);
            members.push(PresenceMember { user_id: reply::shared(user_id)?, user_info });
        }
        let position = self.position(&reply::text(position)?)?;
        Ok(Snapshot { position, members, is_settling: reply::number(is_settling)? == 1 })
    }

    fn channels(&mut self, mut channels: Channels, reply: Value) -> Result<(), Doubt> {
        let [cursor, found] = reply::tuple(reply)?;
        for channel in reply::list(found)? {
            let [name, subscriptions, users] = reply::tuple(channel)?;
            let users = reply::number_if_any(users)?.map(|users| users as usize);
            let occupancy = Occupancy { subscriptions: reply::number(subscriptions)? as usize, users };
            channels.found.insert(reply::shared(name)?, occupancy);
        }
        match reply::text(cursor)?.as_str() {
            "0" => drop(channels.answer.send(channels.found)),
            _ if channels.answer.is_closed() => {}
            cursor => self.scan(channels, cursor),
        }
        Ok(())
    }

    fn peers(&self, reply: Value) -> Result<Vec<Peer>, Doubt> {
        let peer = |value| {
            let [incarnation, lease, said] = reply::tuple(value)?;
            let (name, version, connections) = wire::read_node(&reply::bytes(said)?).map_err(|_| Doubt::Unexpected)?;
            let incarnation: Box<str> = reply::text(incarnation)?.into();
            let is_here = incarnation == self.incarnation;
            let lease = Duration::from_millis(reply::number(lease)?);
            Ok(Peer { incarnation, name, version, is_here, connections, lease })
        };
        reply::list(reply)?.into_iter().map(peer).collect()
    }
}

/// Without room in its memory Redis refuses an event, and goes on with all else.
fn carried(carriage: Carriage, reply: Value) -> Result<(), Doubt> {
    match reply {
        Value::ServerError(error) if error.code() == "OOM" => drop(carriage),
        reply => {
            reply::checked(reply)?;
            carriage.carried();
        }
    }
    Ok(())
}

fn kept(channel: &Arc<str>, event: Value) -> Result<Option<Publication>, Doubt> {
    match event {
        Value::Nil => Ok(None),
        event => wire::kept(channel, &reply::bytes(event)?).map(Some).map_err(|_| Doubt::Unexpected),
    }
}

fn channel_state(channel: &str, reply: Value) -> Result<ChannelState, Doubt> {
    let [subscriptions, users, event, left] = reply::tuple(reply)?;
    let users = reply::number(users)? as usize;
    let users = Kind::of(channel).is_presence().then_some(users);
    let occupancy = Occupancy { subscriptions: reply::number(subscriptions)? as usize, users };
    let ttl = Duration::from_millis(reply::number(left)?);
    let event = kept(&channel.into(), event)?;
    let cached = event.map(|event| CachedEvent { data: event.data().into_owned().into(), ttl });
    Ok(ChannelState { occupancy, cached })
}

/// What a join script says of a channel that has as many users as it may have.
const FULL: &str = "FULL";
