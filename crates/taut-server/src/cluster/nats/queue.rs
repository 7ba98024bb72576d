//! What is written to the engine: in order, on one connection, many things at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::api::{self, Answer};
use super::connection::Connection;
use super::protocol::Writer;

/// The writes of one incarnation.
///
/// One batch is under way at a time. While it is, the next one gathers. It ends with a question, which the server answers once it has done all that
/// was sent before. Nothing is sent twice: what becomes of a write whose answer does not come is not known, and the session is over.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// What the subjects of answers begin with.
    inbox: Box<str>,
    /// Where nobody listens.
    nobody: String,
    /// Asks for the last sequence of the log.
    last: api::Request,
    waiting: VecDeque<Entry<T>>,
    under_way: Option<Batch<T>>,
    numbers: u64,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Entry<T> {
    /// To whoever hears it. `then` comes back once the server has it.
    Publish {
        subject: String,
        payload: Vec<u8>,
        then: T,
    },
    /// Into a stream, which answers. Other events of the subject `before` wait until it has.
    Append {
        subject: String,
        headers: Vec<(&'static str, String)>,
        payload: Vec<u8>,
        before: Option<String>,
        then: T,
    },
    /// Something that JetStream answers. What follows waits for it, if `is_first`.
    Request {
        request: api::Request,
        is_first: bool,
        then: T,
    },
    /// Something whose answer nobody needs.
    Tell(api::Request),
    Subscribe {
        subject: String,
        subscription: u64,
        then: Option<T>,
    },
    Unsubscribe {
        subscription: u64,
    },
    /// Comes back with the last sequence of the log.
    Ask(T),
}

#[derive(Debug)]
struct Batch<T> {
    items: Vec<(T, Option<Answer>)>,
    /// By the number of an answer: whose it is.
    expected: HashMap<u64, usize>,
    end: u64,
    is_asked: bool,
    end_answer: Option<Answer>,
    since: Instant,
}

/// A batch that is done.
#[derive(Debug)]
pub(super) struct Finished<T> {
    /// In the order in which they were written, with the answers of those that have one.
    pub(super) items: Vec<(T, Option<Answer>)>,
    /// What is known of the log, if anything needs it.
    pub(super) log: Option<Answer>,
    pub(super) took: Duration,
}

impl<T> Queue<T> {
    pub(super) fn new(inbox: &str, nobody: String, last: api::Request, numbers: u64) -> Self {
        Self { inbox: inbox.into(), nobody, last, waiting: VecDeque::new(), under_way: None, numbers }
    }

    /// How many writes wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |batch| batch.items.len())
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        self.waiting.push_back(entry);
    }

    /// Before everything that waits.
    pub(super) fn push_first(&mut self, entry: Entry<T>) {
        self.waiting.push_front(entry);
    }

    /// When what is under way was sent.
    pub(super) fn since(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|batch| batch.since)
    }

    /// Sends what waits, unless something is under way.
    pub(super) fn start(&mut self, connection: &Connection) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let mut writer = Writer::default();
        let since = Instant::now();
        let mut batch =
            Batch { items: Vec::new(), expected: HashMap::new(), end: 0, is_asked: false, end_answer: None, since };
        let mut kept = HashSet::new();
        let mut count = 0;
        while let Some(entry) = self.waiting.front() {
            let is_behind = matches!(entry, Entry::Publish { subject, .. } if kept.contains(subject));
            if is_behind || writer.len() > HEAVIEST || count >= MOST {
                break;
            }
            count += 1;
            let entry = self.waiting.pop_front().expect("there is a first one");
            if self.write(entry, &mut writer, &mut batch, &mut kept) {
                break;
            }
        }
        batch.end = self.number();
        let reply = self.reply(batch.end);
        if batch.is_asked {
            writer.publish(&self.last.0, Some(&reply), &[], &self.last.1);
        } else {
            writer.publish(&self.nobody, Some(&reply), &[], b"");
        }
        connection.send(writer.take());
        self.under_way = Some(batch);
    }

    /// Whether what follows waits for this.
    fn write(
        &mut self,
        entry: Entry<T>,
        writer: &mut Writer,
        batch: &mut Batch<T>,
        kept: &mut HashSet<String>,
    ) -> bool {
        match entry {
            Entry::Publish { subject, payload, then } => {
                writer.publish(&subject, None, &[], &payload);
                batch.items.push((then, None));
            }
            Entry::Append { subject, headers, payload, before, then } => {
                let reply = self.expect(batch, then);
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
                writer.publish(&subject, Some(&reply), &headers, &payload);
                kept.extend(before);
            }
            Entry::Request { request: (subject, payload), is_first, then } => {
                let reply = self.expect(batch, then);
                writer.publish(&subject, Some(&reply), &[], &payload);
                return is_first;
            }
            Entry::Tell((subject, payload)) => writer.publish(&subject, None, &[], &payload),
            Entry::Subscribe { subject, subscription, then } => {
                writer.subscribe(&subject, subscription);
                batch.items.extend(then.map(|then| (then, None)));
            }
            Entry::Unsubscribe { subscription } => writer.unsubscribe(subscription),
            Entry::Ask(then) => {
                batch.is_asked = true;
                batch.items.push((then, None));
            }
        }
        false
    }

    /// The subject for the answer to this.
    fn expect(&mut self, batch: &mut Batch<T>, then: T) -> String {
        let number = self.number();
        batch.expected.insert(number, batch.items.len());
        batch.items.push((then, None));
        self.reply(number)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn reply(&self, number: u64) -> String {
        format!("{}{number}", self.inbox)
    }

    /// An answer has come: gives the batch once it is done.
    pub(super) fn answered(&mut self, number: u64, answer: Answer) -> Option<Finished<T>> {
        let batch = self.under_way.as_mut()?;
        if number == batch.end {
            batch.end_answer = Some(answer);
        } else {
            let item = batch.expected.remove(&number)?;
            batch.items[item].1 = Some(answer);
        }
        if batch.end_answer.is_none() || !batch.expected.is_empty() {
            return None;
        }
        let Batch { items, is_asked, end_answer, since, .. } = self.under_way.take()?;
        Some(Finished { items, log: end_answer.filter(|_| is_asked), took: since.elapsed() })
    }
}

/// Bytes of a batch: it has to be answered well within the response timeout.
const HEAVIEST: usize = 1 << 20;

/// Entries of a batch.
const MOST: usize = 4096;
