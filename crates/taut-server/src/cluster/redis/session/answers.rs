//! What becomes of the engine's answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::redis::{Value, cmd};
use tokio::sync::oneshot;

use super::{FIRST, Lease, OnlineQuestion, REAPED, Reaper, Session};
use crate::apps::App;
use crate::cluster::backlog::Place;
use crate::cluster::carriage::Carriage;
use crate::cluster::redis::names::Partition;
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
    Happened(Vec<Place>),
    Ignored,
    EngineMemory,
    EngineSettings,
    Left,
    Carried(Carriage),
    Joined { app: Arc<App>, channel: Arc<str>, user_id: Arc<str>, number: u32, most: usize },
    Members { app: Arc<App>, channel: Arc<str> },
    LastEvent { app: Arc<App>, channel: Arc<str> },
    Online { request: u64, user_ids: Vec<Arc<str>> },
    Channels { request: u64 },
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
    /// Partitions that have more.
    left: usize,
    app: Arc<App>,
    prefix: Box<str>,
    found: BTreeMap<Arc<str>, Occupancy>,
    answer: oneshot::Sender<BTreeMap<Arc<str>, Occupancy>>,
}

/// A list of users who are online, of which a part has come.
#[derive(Debug)]
pub(super) struct WhoIsOnline {
    /// Partitions that have not answered.
    left: usize,
    app: Arc<App>,
    number: u32,
    online: Vec<Arc<str>>,
}

impl Session {
    pub(super) fn ask(&mut self, question: Question) {
        match question {
            Question::Channels { app, prefix, answer } => {
                let (request, left) = (self.next_request(), self.partitions.len());
                self.channels.insert(request, Channels { left, app, prefix, found: BTreeMap::new(), answer });
                for at in 0..left {
                    self.scan(at, request, "0");
                }
            }
            Question::Channel { app, channel, answer } => {
                let queue = self.queue_of(app.id(), &channel);
                let mut call = queue.call(Script::Channel);
                call.arg(app.id()).arg(&*channel);
                queue.send(call, 0, Answer::Channel { channel, answer });
            }
            Question::Users { app, channel, answer } => {
                let at = self.names.partition(app.id(), &channel);
                let mut keys = cmd("HKEYS");
                keys.arg(self.names.users(at, app.id(), &channel));
                self.queue(at).send(keys, 0, Answer::Users { answer });
            }
            Question::Nodes { answer } => {
                let call = self.queue(FIRST).call(Script::Nodes);
                self.queue(FIRST).send(call, 0, Answer::Nodes { answer });
            }
            Question::Terminate { app, user_id, answer } => self.terminate(&app, user_id, answer),
        }
    }

    fn next_request(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn scan(&mut self, at: Partition, request: u64, cursor: &str) {
        let Some(channels) = self.channels.get(&request) else { return };
        let queue = &mut self.partitions[at].queue;
        let mut call = queue.call(Script::Channels);
        call.arg(channels.app.id()).arg(&*channels.prefix).arg(cursor);
        queue.send(call, 0, Answer::Channels { request });
    }

    /// Asks each partition for the users that are there.
    pub(super) fn ask_online(&mut self, question: &OnlineQuestion) {
        let OnlineQuestion { app, user_ids, number } = question;
        let mut asked: BTreeMap<Partition, Vec<Arc<str>>> = BTreeMap::new();
        for user_id in &**user_ids {
            asked.entry(self.names.partition(app.id(), user_id)).or_default().push(Arc::clone(user_id));
        }
        if asked.is_empty() {
            return self.node.owners.update(app, Update::Online { number: *number, online: Vec::new() });
        }
        let request = self.next_request();
        let (app, left) = (Arc::clone(app), asked.len());
        for (at, user_ids) in asked {
            let mut get = cmd("HMGET");
            get.arg(self.names.online(at, app.id()));
            for user_id in &user_ids {
                get.arg(&**user_id);
            }
            self.queue(at).send(get, 0, Answer::Online { request, user_ids });
        }
        self.who_is_online.insert(request, WhoIsOnline { left, app, number: *number, online: Vec::new() });
    }

    /// The way through the engine also reaches nodes that are away now.
    fn terminate(&mut self, app: &App, user_id: Arc<str>, answer: oneshot::Sender<usize>) {
        let request = self.terminations.ask(Instant::now(), answer);
        let call = self.queue(FIRST).call(Script::Nodes);
        self.queue(FIRST).send(call, 0, Answer::Terminating { request });
        let (origin, from) = (self.node.origin.clone(), self.incarnation.clone());
        let mut call = self.queue(FIRST).call(Script::Terminate);
        call.arg(app.id()).arg(&*user_id);
        let message = wire::Message::Terminate { origin, from, request, app: app.id().into(), user_id };
        call.arg(message.write());
        self.queue(FIRST).send(call, 0, Answer::Ignored);
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
        for ((at, then), reply) in answers.into_iter().zip(replies?) {
            match then {
                Then::One(Answer::Carried(carriage)) => carried(carriage, reply)?,
                // Refused or not understood, they are not known: the session goes on.
                Then::One(Answer::EngineMemory) => {
                    memory.kept.warn(hazard::of_memory(reply), &self.node.settings.address);
                }
                Then::One(Answer::EngineSettings) => {
                    memory.kept.warn(hazard::of_settings(reply, self.has_sentinels), &self.node.settings.address);
                }
                Then::One(answer) => self.answer(at, answer, reply::checked(reply)?, memory)?,
                Then::Each(answers) => {
                    for (answer, reply) in answers.into_iter().zip(reply::list(reply::checked(reply)?)?) {
                        if let Some(answer) = answer {
                            self.answer(at, answer, reply, memory)?;
                        }
                    }
                }
                Then::Nothing => drop(reply::checked(reply)?),
            }
        }
        Ok(())
    }

    /// A partition has answered.
    fn answer(&mut self, at: Partition, answer: Answer, reply: Value, memory: &mut Memory) -> Result<(), Doubt> {
        match answer {
            Answer::Rejoined => {
                self.partitions[at].reaper.has_work = reply::number(reply)? > 0;
                self.untold -= 1;
                if self.untold == 0 {
                    memory.former.clear();
                }
                self.check_joined();
            }
            Answer::Renewed { sent } => self.renewed(at, sent, reply, memory)?,
            Answer::Reaped => {
                self.partitions[at].reaper = Reaper { has_work: reply::number(reply)? > 0, is_working: false };
                self.reap(at);
            }
            Answer::Happened(told) => self.happened(at, &told, reply, memory)?,
            Answer::Ignored | Answer::EngineMemory | Answer::EngineSettings => {}
            Answer::Left => self.left(at, reply::number(reply)?),
            Answer::Carried(carriage) => carriage.carried(),
            Answer::Joined { app, channel, user_id, number, most } => {
                let position = reply::text(reply)?;
                let outcome = if position == FULL {
                    memory.part.reject(app.id(), &channel, &user_id, number);
                    Err(TooMany { most })
                } else {
                    Ok(self.position(at, &position)?)
                };
                self.node.owners.update(&app, Update::Joined { channel, user_id, number, outcome });
            }
            Answer::Members { app, channel } => {
                let snapshot = self.snapshot(at, reply)?;
                self.node.owners.update(&app, Update::Members { channel, snapshot });
            }
            Answer::LastEvent { app, channel } => {
                let [number, event, _] = reply::tuple(reply)?;
                let publication = kept(&channel, event)?;
                let position = Position { epoch: self.partitions[at].epoch, number: reply::number(number)? };
                self.node.owners.update(&app, Update::LastEvent { channel, publication, position });
            }
            Answer::Online { request, user_ids } => self.found_online(request, user_ids, reply)?,
            Answer::Channels { request } => self.found_channels(at, request, reply)?,
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
    fn left(&mut self, at: Partition, dead: u64) {
        if dead > 0 {
            let queue = self.queue(at);
            let mut call = queue.call(Script::Reap);
            call.arg(REAPED);
            return queue.send(call, REAPED * 512, Answer::Left);
        }
        self.leaving.left -= 1;
        if self.leaving.left == 0 {
            self.leaving.is_done = true;
            if let Some(done) = self.leaving.done.take() {
                let _ = done.send(());
            }
        }
    }

    /// The lease goes on once it does in every partition.
    fn renewed(&mut self, at: Partition, sent: Instant, reply: Value, memory: &mut Memory) -> Result<(), Doubt> {
        let [is_reader, dead] = reply::tuple(reply)?;
        self.set_turn(at, reply::number(is_reader)? == 1, memory);
        self.partitions[at].reaper.has_work |= reply::number(dead)? > 0;
        self.reap(at);
        self.lease.unanswered -= 1;
        if self.lease.unanswered == 0 {
            let renew_at = sent + self.node.settings.lease / 4;
            self.lease = Lease { ends: self.node.lease_from(sent), renew_at, unanswered: 0 };
        }
        Ok(())
    }

    fn position(&self, at: Partition, number: &str) -> Result<Position, Doubt> {
        Ok(Position { epoch: self.partitions[at].epoch, number: number.parse().map_err(|_| Doubt::Unexpected)? })
    }

    fn snapshot(&self, at: Partition, reply: Value) -> Result<Snapshot, Doubt> {
        let [position, is_settling, users] = reply::tuple(reply)?;
        let mut members = Vec::new();
        let mut fields = reply::list(users)?.into_iter();
        while let (Some(user_id), Some(user_info)) = (fields.next(), fields.next()) {
            let user_info = reply::bytes(user_info)?;
            let user_info = wire::read_user_info(&user_info).map_err(|_| Doubt::Unexpected)?.map(Into::into);
            members.push(PresenceMember { user_id: reply::shared(user_id)?, user_info });
        }
        let position = self.position(at, &reply::text(position)?)?;
        Ok(Snapshot { position, members, is_settling: reply::number(is_settling)? == 1 })
    }

    fn found_online(&mut self, request: u64, user_ids: Vec<Arc<str>>, reply: Value) -> Result<(), Doubt> {
        let found = reply::list(reply)?;
        let Some(question) = self.who_is_online.get_mut(&request) else { return Ok(()) };
        let online = user_ids.into_iter().zip(found).filter(|(_, value)| *value != Value::Nil);
        question.online.extend(online.map(|(user_id, _)| user_id));
        question.left -= 1;
        if question.left == 0
            && let Some(WhoIsOnline { app, number, online, .. }) = self.who_is_online.remove(&request)
        {
            self.node.owners.update(&app, Update::Online { number, online });
        }
        Ok(())
    }

    fn found_channels(&mut self, at: Partition, request: u64, reply: Value) -> Result<(), Doubt> {
        let [cursor, found] = reply::tuple(reply)?;
        let Some(channels) = self.channels.get_mut(&request) else { return Ok(()) };
        for channel in reply::list(found)? {
            let [name, subscriptions, users] = reply::tuple(channel)?;
            let users = reply::number_if_any(users)?.map(|users| users as usize);
            let occupancy = Occupancy { subscriptions: reply::number(subscriptions)? as usize, users };
            channels.found.insert(reply::shared(name)?, occupancy);
        }
        match reply::text(cursor)?.as_str() {
            // Nobody waits for it.
            _ if channels.answer.is_closed() => drop(self.channels.remove(&request)),
            "0" => {
                channels.left -= 1;
                if channels.left == 0
                    && let Some(Channels { answer, found, .. }) = self.channels.remove(&request)
                {
                    let _ = answer.send(found);
                }
            }
            cursor => self.scan(at, request, cursor),
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
