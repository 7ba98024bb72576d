//! What is written to the engine: in order, on one connection for each server, many commands at a time.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult, Value};

use super::names::Partition;
use super::scripts::{Script, Scripts};
use crate::cluster::shares::Draw;

/// The writes of one incarnation to one partition, until their [`Writer`] takes them.
///
/// Neighbours that the same script takes become one call.
pub(super) struct Queue<T> {
    partition: Partition,
    /// What the partition's names begin with.
    name: Box<str>,
    scripts: Arc<Scripts>,
    incarnation: Box<str>,
    waiting: VecDeque<Entry<T>>,
    /// The number of this incarnation's last change that was sent.
    changes: u64,
}

enum Entry<T> {
    Command { command: Cmd, bytes: usize, then: T },
    Renew { lease: Duration, node: Vec<u8>, then: T },
    Join(Vec<Join<T>>),
    Leave(Vec<(Vec<u8>, Duration)>),
    Count { former: Vec<Box<str>>, counts: Vec<Count> },
    Draw { former: Vec<Box<str>>, draw: Draw, then: T },
}

/// A cell that the node holds from now on.
pub(super) struct Join<T> {
    pub(super) cell: Vec<u8>,
    /// What the user says of itself, as a field of a message.
    pub(super) user_info: Vec<u8>,
    /// How many users the channel may have; 0: any number.
    pub(super) most: usize,
    pub(super) then: Option<T>,
}

/// The node has so many subscribers in a channel.
pub(super) struct Count {
    pub(super) app: Box<str>,
    pub(super) channel: Arc<str>,
    pub(super) subscribers: usize,
}

/// What is to be done with the answer to one command.
pub(super) enum Then<T> {
    One(T),
    /// The answer is a list: one for each.
    Each(Vec<Option<T>>),
    /// It only must not be an error.
    Nothing,
}

impl<T> Queue<T> {
    pub(super) fn new(partition: Partition, name: &str, scripts: Arc<Scripts>, incarnation: Box<str>) -> Self {
        Self { partition, name: name.into(), scripts, incarnation, waiting: VecDeque::new(), changes: 0 }
    }

    /// How many writes wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A call of a script, to which arguments are added before it is [sent](Self::send).
    pub(super) fn call(&self, script: Script) -> Cmd {
        self.scripts.call(script, &self.name)
    }

    /// Adds a command of about so many bytes.
    pub(super) fn send(&mut self, command: Cmd, bytes: usize, then: T) {
        self.waiting.push_back(Entry::Command { command, bytes, then });
    }

    /// Adds a renewal of the lease, before everything that waits.
    pub(super) fn renew(&mut self, lease: Duration, node: Vec<u8>, then: T) {
        self.waiting.push_front(Entry::Renew { lease, node, then });
    }

    pub(super) fn join(&mut self, join: Join<T>) {
        match self.waiting.back_mut() {
            Some(Entry::Join(joins)) if joins.len() < BATCH => joins.push(join),
            _ => self.waiting.push_back(Entry::Join(vec![join])),
        }
    }

    /// Gives a cell up, which has been held back for as long as it `waited`.
    pub(super) fn leave(&mut self, cell: Vec<u8>, waited: Duration) {
        match self.waiting.back_mut() {
            Some(Entry::Leave(cells)) if cells.len() < BATCH => cells.push((cell, waited)),
            _ => self.waiting.push_back(Entry::Leave(vec![(cell, waited)])),
        }
    }

    /// `former` are the incarnations of this node whose counts are void.
    pub(super) fn count(&mut self, count: Count, former: &[Box<str>]) {
        match self.waiting.back_mut() {
            Some(Entry::Count { former: others, counts }) if counts.len() < BATCH && others == former => {
                counts.push(count);
            }
            _ => self.waiting.push_back(Entry::Count { former: former.to_vec(), counts: vec![count] }),
        }
    }

    /// `former` are the incarnations of this node whose shares are void.
    pub(super) fn draw(&mut self, draw: Draw, former: &[Box<str>], then: T) {
        self.waiting.push_back(Entry::Draw { former: former.to_vec(), draw, then });
    }

    fn command(&mut self, entry: Entry<T>) -> (Cmd, Then<T>) {
        match entry {
            Entry::Command { command, bytes: _, then } => (command, Then::One(then)),
            Entry::Renew { lease, node, then } => {
                let mut command = self.call(Script::Renew);
                command.arg(&*self.incarnation).arg(self.changes).arg(lease.as_millis() as u64).arg(node);
                (command, Then::One(then))
            }
            Entry::Join(joins) => {
                let mut command = self.change(Script::Join);
                let answers = joins.into_iter().map(|Join { cell, user_info, most, then }| {
                    command.arg(cell).arg(user_info).arg(most);
                    then
                });
                let answers = answers.collect();
                (command, Then::Each(answers))
            }
            Entry::Leave(cells) => {
                let mut command = self.change(Script::Leave);
                for (cell, waited) in cells {
                    command.arg(cell).arg(waited.as_millis() as u64);
                }
                (command, Then::Nothing)
            }
            Entry::Count { former, counts } => {
                let mut command = self.change(Script::Count);
                command.arg(former.len());
                for incarnation in &former {
                    command.arg(&**incarnation);
                }
                for Count { app, channel, subscribers } in counts {
                    command.arg(&*app).arg(&*channel).arg(subscribers);
                }
                (command, Then::Nothing)
            }
            Entry::Draw { former, draw: Draw { app, number: _, taken, wanted, most }, then } => {
                let mut command = self.change(Script::Draw);
                command.arg(&*app).arg(wanted).arg(taken).arg(most);
                for incarnation in &former {
                    command.arg(&**incarnation);
                }
                (command, Then::One(then))
            }
        }
    }

    /// A call of a script that changes what this incarnation holds.
    fn change(&mut self, script: Script) -> Cmd {
        self.changes += 1;
        let mut command = self.call(script);
        command.arg(&*self.incarnation).arg(self.changes);
        command
    }
}

impl<T> Entry<T> {
    /// About how many bytes it has, or how long the engine works for it.
    fn weight(&self) -> usize {
        match self {
            Self::Command { bytes, .. } => COMMAND + bytes,
            Self::Renew { .. } => COMMAND,
            Self::Join(joins) => joins.len() * CELL,
            Self::Leave(cells) => cells.len() * CELL,
            Self::Count { counts, .. } => counts.len() * CELL,
            Self::Draw { .. } => CELL,
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, incarnation, changes, .. } = self;
        formatter
            .debug_struct("Queue")
            .field("name", name)
            .field("incarnation", incarnation)
            .field("changes", changes)
            .finish_non_exhaustive()
    }
}

/// The connection on which the queues of a server's partitions are written.
///
/// One pipeline is under way at a time; while it is, the next one gathers. Nothing is sent twice: what becomes of a write whose answer does not
/// come is not known, and the session is over.
pub(super) struct Writer<T> {
    connection: MultiplexedConnection,
    under_way: Option<UnderWay<T>>,
    /// Pipelines that were sent: each begins with another queue.
    sent: usize,
}

struct UnderWay<T> {
    answers: Vec<(Partition, Then<T>)>,
    since: Instant,
    replies: Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>,
}

/// A pipeline that is done.
pub(super) struct Finished<T> {
    pub(super) answers: Vec<(Partition, Then<T>)>,
    pub(super) replies: RedisResult<Vec<Value>>,
    pub(super) took: Duration,
}

impl<T> Writer<T> {
    pub(super) fn new(connection: MultiplexedConnection) -> Self {
        Self { connection, under_way: None, sent: 0 }
    }

    /// How many writes are under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.as_ref().map_or(0, |under_way| under_way.answers.len())
    }

    /// Sends what waits in these queues, unless something is under way.
    pub(super) fn start<'q>(&mut self, queues: impl Iterator<Item = &'q mut Queue<T>>)
    where
        T: 'q,
    {
        if self.under_way.is_some() {
            return;
        }
        let mut queues: Vec<_> = queues.filter(|queue| queue.len() > 0).collect();
        if queues.is_empty() {
            return;
        }
        let first = self.sent % queues.len();
        queues.rotate_left(first);
        let (pipeline, answers) = gather(&mut queues);
        let (mut connection, count) = (self.connection.clone(), answers.len());
        let replies = Box::pin(async move { connection.send_packed_commands(&pipeline, 0, count).await });
        self.under_way = Some(UnderWay { answers, since: Instant::now(), replies });
        self.sent = self.sent.wrapping_add(1);
    }

    /// What was under way, once it is done.
    pub(super) fn poll_finished(&mut self, context: &mut Context<'_>) -> Poll<Finished<T>> {
        let Some(under_way) = &mut self.under_way else { return Poll::Pending };
        let replies = ready!(under_way.replies.as_mut().poll(context));
        let UnderWay { answers, since, .. } = self.under_way.take().expect("it was there");
        Poll::Ready(Finished { answers, replies, took: since.elapsed() })
    }
}

/// Takes one write of each queue in turn, until they are empty or it is enough.
fn gather<T>(queues: &mut [&mut Queue<T>]) -> (Pipeline, Vec<(Partition, Then<T>)>) {
    let (mut pipeline, mut answers, mut weight) = (Pipeline::new(), Vec::new(), 0);
    loop {
        let before = answers.len();
        for queue in &mut *queues {
            let Some(entry) = queue.waiting.front() else { continue };
            weight += entry.weight();
            if weight > HEAVIEST && !answers.is_empty() {
                return (pipeline, answers);
            }
            let entry = queue.waiting.pop_front().expect("there is a first one");
            let (command, then) = queue.command(entry);
            pipeline.add_command(command);
            answers.push((queue.partition, then));
        }
        if answers.len() == before {
            return (pipeline, answers);
        }
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// Cells in one call of a script: Redis serves nobody else in the meantime.
const BATCH: usize = 200;

/// What a pipeline may weigh: it has to be answered well within the response timeout.
const HEAVIEST: usize = 1 << 20;

/// A command without its arguments.
const COMMAND: usize = 64;

/// A cell takes its bytes, and the engine the time of some kilobytes: a join costs it what three to nine publishes do.
const CELL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> [Queue<u32>; 2] {
        let scripts = Arc::new(Scripts::unloaded());
        [0, 1].map(|at| Queue::new(at, "taut{0}", Arc::clone(&scripts), "one".into()))
    }

    #[test]
    fn each_partition_has_its_turn_and_its_own_order() {
        let [mut busy, mut quiet] = queues();
        for number in 0..10 {
            busy.send(Cmd::new(), HEAVIEST / 4, number);
        }
        quiet.send(Cmd::new(), 0, 100);
        let taken = |busy: &mut Queue<u32>, quiet: &mut Queue<u32>| -> Vec<_> {
            let (_, answers) = gather(&mut [busy, quiet]);
            let number = |(at, then)| if let Then::One(number) = then { (at, number) } else { panic!("it is one") };
            answers.into_iter().map(number).collect()
        };
        assert_eq!(taken(&mut busy, &mut quiet), [(0, 0), (1, 100), (0, 1), (0, 2)]);
        assert_eq!(taken(&mut busy, &mut quiet), [(0, 3), (0, 4), (0, 5)]);
        quiet.renew(Duration::from_secs(1), Vec::new(), 101);
        assert_eq!(taken(&mut busy, &mut quiet)[..2], [(0, 6), (1, 101)]);
    }

    #[test]
    fn joins_of_one_partition_are_one_call_whatever_comes_between_in_others() {
        let [mut one, mut other] = queues();
        let join = |then| Join { cell: Vec::new(), user_info: Vec::new(), most: 0, then: Some(then) };
        for number in 0..10 {
            one.join(join(number));
            other.join(join(number));
        }
        let (pipeline, answers) = gather(&mut [&mut one, &mut other]);
        assert_eq!(pipeline.len(), 2);
        for (_, then) in answers {
            assert!(matches!(then, Then::Each(each) if each.len() == 10));
        }
    }
}
