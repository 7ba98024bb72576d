//! One connection of a route, and what its backend knows of it: events in their order, one at a time.
//!
//! No I/O, no clock of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use taut_proto::Time;

use super::event::{Event, User};
use super::grip::Extension;

/// What is still to be told to the backend of a connection, and what the server keeps for it.
#[derive(Debug)]
pub(crate) struct Conversation {
    kept: Arc<Kept>,
    /// Of the last event that was taken to the backend; 0: of none.
    seq: u64,
    queue: VecDeque<Event>,
    /// Of the events in the queue.
    bytes: usize,
    /// The backend has an event, and has not answered it.
    is_asking: bool,
    timer: Option<Timer>,
    /// When this is to be looked at for its timer's sake.
    scheduled: Option<Time>,
    state: State,
}

/// What a backend has said of a connection; it comes back with every event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) user: Option<User>,
    pub(crate) meta: Map<String, Value>,
    /// What it says is read as GRIP.
    pub(crate) grip: Option<Extension>,
}

/// Events on their way to the backend: one, or messages that came behind each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exchange {
    /// Of the first one.
    pub(crate) seq: u64,
    /// At least one.
    pub(crate) events: Vec<Event>,
    pub(crate) kept: Arc<Kept>,
}

impl Exchange {
    /// Whether it asks for the connection to be let in.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.events[..], [Event::Open])
    }

    /// What the console calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.events.first() {
            Some(Event::Open) | None => "open",
            Some(Event::Text(_)) => "text",
            Some(Event::Binary(_)) => "binary",
            Some(Event::Timer) => "timer",
            Some(Event::Close { .. }) => "close",
        }
    }

    /// Whether it tells of the connection's end.
    pub(crate) fn is_close(&self) -> bool {
        matches!(self.events[..], [Event::Close { .. }])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The backend has not said yet whether the connection may be.
    Opening,
    Open,
    /// The connection is over, and its backend is still to be told what came before that, and that.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    every: Duration,
    due: Time,
}

impl Conversation {
    /// It begins with [`Event::Open`].
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            seq: 0,
            queue: VecDeque::from([Event::Open]),
            bytes: 0,
            is_asking: false,
            timer: None,
            scheduled: None,
            state: State::Opening,
        }
    }

    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// What is kept from here on.
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.kept = Arc::new(kept);
    }

    /// Something has happened.
    pub(crate) fn push(&mut self, event: Event) {
        if self.state == State::Over {
            return;
        }
        if let Event::Close { .. } = event {
            self.state = State::Over;
            self.timer = None;
        }
        self.bytes += event.bytes();
        self.queue.push_back(event);
    }

    /// Whether nothing more should be read of the connection for now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES || self.queue.len() > MOST_EVENTS
    }

    /// The next event for the backend, unless it is still to answer what came before; up to `most` of them if they are
    /// messages.
    pub(crate) fn next(&mut self, most: usize) -> Option<Exchange> {
        if self.is_asking {
            return None;
        }
        let messages = self.queue.iter().take(most).take_while(|event| event.is_message()).count();
        let events: Vec<Event> = self.queue.drain(..messages.max(1).min(self.queue.len())).collect();
        self.bytes -= events.iter().map(Event::bytes).sum::<usize>();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        let seq = self.seq + 1;
        self.seq += events.len() as u64;
        self.is_asking = !events.is_empty();
        self.is_asking.then(|| Exchange { seq, events, kept: Arc::clone(&self.kept) })
    }

    /// The backend has answered, or will not.
    pub(crate) fn answered(&mut self) {
        self.is_asking = false;
        if self.state == State::Opening {
            self.state = State::Open;
        }
    }

    /// Whether the backend has been told everything.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over && !self.is_asking && self.queue.is_empty()
    }

    /// Sets the timer; `None`: there is none any more. Gives when to [look at](Self::tick) this, unless that is early enough as it is.
    pub(crate) fn set_timer(&mut self, every: Option<Duration>, now: Time) -> Option<Time> {
        self.timer = every.filter(|_| self.state != State::Over).map(|every| Timer { every, due: now + every });
        self.schedule()
    }

    /// It was to be looked at at this time. Gives when to look again, if that is to be. A backend that is slower than its timer is told once.
    pub(crate) fn tick(&mut self, at: Time, now: Time) -> Option<Time> {
        if self.scheduled != Some(at) {
            // An earlier time has taken its place.
            return None;
        }
        self.scheduled = None;
        let Timer { every, due } = self.timer?;
        if due > now {
            return self.schedule();
        }
        self.push_timer();
        self.set_timer(Some(every), now)
    }

    /// The backend is to be asked what is new, once.
    pub(crate) fn push_timer(&mut self) {
        if !self.queue.contains(&Event::Timer) {
            self.push(Event::Timer);
        }
    }

    fn schedule(&mut self) -> Option<Time> {
        let due = self.timer?.due;
        if self.scheduled.is_some_and(|scheduled| scheduled <= due) {
            return None;
        }
        self.scheduled = Some(due);
        Some(due)
    }
}

impl Event {
    fn is_message(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Binary(_))
    }

    /// Bytes that it takes while it waits, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Open | Self::Timer => 0,
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Close { reason, .. } => reason.len(),
        }
    }
}

/// Bytes and events that wait for a backend before nothing more of the connection is read.
const MOST_BYTES: usize = 64 * 1024;
const MOST_EVENTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Event {
        Event::Text(text.into())
    }

    fn close() -> Event {
        Event::Close { code: 1000, reason: "bye".into(), is_clean: true }
    }

    /// One that the backend has accepted.
    fn open() -> Conversation {
        let mut conversation = Conversation::new();
        assert_eq!(conversation.next(1).map(|it| (it.seq, it.events)), Some((1, vec![Event::Open])));
        conversation.answered();
        conversation
    }

    #[test]
    fn events_go_to_the_backend_one_at_a_time_and_in_their_order() {
        let mut conversation = open();
        assert_eq!(conversation.next(1), None);
        conversation.push(text("a"));
        conversation.push(text("b"));
        assert_eq!(conversation.next(1).map(|it| (it.seq, it.events)), Some((2, vec![text("a")])));
        assert_eq!(conversation.next(1), None, "the first is not answered");
        conversation.answered();
        assert_eq!(conversation.next(1).map(|it| (it.seq, it.events)), Some((3, vec![text("b")])));
    }

    #[test]
    fn messages_behind_each_other_go_together_where_that_is_asked_for() {
        let mut conversation = open();
        for message in ["a", "b", "c"] {
            conversation.push(text(message));
        }
        conversation.push(Event::Timer);
        conversation.push(close());
        let mut next = |most| {
            let exchange = conversation.next(most).expect("an event");
            conversation.answered();
            (exchange.seq, exchange.events)
        };
        assert_eq!(next(2), (2, vec![text("a"), text("b")]));
        assert_eq!(next(9), (4, vec![text("c")]));
        assert_eq!(next(9), (5, vec![Event::Timer]));
        assert_eq!(next(9), (6, vec![close()]));
        assert_eq!((conversation.next(9), conversation.is_over()), (None, true));
    }

    #[test]
    fn an_event_has_what_was_kept_when_it_leaves() {
        let mut conversation = open();
        conversation.push(text("a"));
        let user = Some(User { id: "7".into(), info: None });
        conversation.keep(Kept { user: user.clone(), ..Kept::default() });
        assert_eq!(conversation.next(1).expect("an event").kept.user, user);
        assert_eq!(conversation.kept().user, user);
    }

    #[test]
    fn a_backend_that_is_slower_than_its_client_makes_it_wait() {
        let mut conversation = open();
        for _ in 0..MOST_EVENTS {
            conversation.push(text(""));
        }
        assert!(!conversation.is_full());
        conversation.push(text(""));
        assert!(conversation.is_full());
        conversation.next(1);
        assert!(!conversation.is_full());
        let mut conversation = open();
        conversation.push(text(&"x".repeat(MOST_BYTES)));
        assert!(!conversation.is_full());
        conversation.push(Event::Binary([1].into()));
        assert!(conversation.is_full());
        conversation.next(1);
        assert!(!conversation.is_full());
    }

    #[test]
    fn what_came_before_the_end_is_told_and_nothing_after_it() {
        let mut conversation = open();
        conversation.push(text("last"));
        conversation.push(close());
        conversation.push(text("late"));
        conversation.push(close());
        assert_eq!(conversation.next(1).map(|it| it.events), Some(vec![text("last")]));
        assert!(!conversation.is_over());
        conversation.answered();
        assert_eq!(conversation.next(1).map(|it| (it.seq, it.events)), Some((3, vec![close()])));
        assert!(!conversation.is_over());
        conversation.answered();
        assert_eq!(conversation.next(1), None);
        assert!(conversation.is_over());
    }

    #[test]
    fn a_timer_repeats_until_it_is_changed_and_a_slow_backend_is_told_once() {
        let (mut conversation, second) = (open(), Duration::from_secs(1));
        let at = |seconds| Time::ZERO + seconds * second;
        assert_eq!(conversation.tick(at(0), at(0)), None, "there is none");
        assert_eq!(conversation.set_timer(Some(5 * second), at(0)), Some(at(5)));
        assert_eq!(conversation.next(1), None);
        assert_eq!(conversation.tick(at(5), at(6)), Some(at(11)));
        assert_eq!(conversation.tick(at(11), at(11)), Some(at(16)));
        assert_eq!(conversation.next(1).map(|it| it.events), Some(vec![Event::Timer]));
        conversation.answered();
        assert_eq!(conversation.next(1), None);
        assert_eq!(conversation.set_timer(None, at(12)), None);
        assert_eq!(conversation.tick(at(16), at(30)), None);
        assert_eq!(conversation.set_timer(Some(5 * second), at(30)), Some(at(35)));
        conversation.push(close());
        assert_eq!(conversation.tick(at(35), at(40)), None, "it is over");
        assert_eq!(conversation.set_timer(Some(5 * second), at(40)), None);
    }

    #[test]
    fn a_timer_that_is_set_again_and_again_is_looked_at_no_more_often() {
        let (mut conversation, second) = (open(), Duration::from_secs(1));
        let at = |seconds| Time::ZERO + seconds * second;
        assert_eq!(conversation.set_timer(Some(5 * second), at(0)), Some(at(5)));
        for now in 1..5 {
            assert_eq!(conversation.set_timer(Some(5 * second), at(now)), None);
        }
        assert_eq!(conversation.tick(at(5), at(5)), Some(at(9)), "it was put off");
        assert_eq!(conversation.next(1), None);
        assert_eq!(conversation.set_timer(Some(second), at(6)), Some(at(7)), "earlier than that");
        assert_eq!(conversation.tick(at(7), at(7)), Some(at(8)));
        assert_eq!(conversation.next(1).map(|it| it.events), Some(vec![Event::Timer]));
        assert_eq!(conversation.tick(at(9), at(9)), None, "it has given way to the earlier one");
    }
}
