//! One connection of a session: what is sent, received, printed and closed on it.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use taut::reconnect::Ended;
use taut::{Close, CloseCode, Error, Message, Receiver, Sender, WebSocket};
use tokio::time::Instant;

use super::{Over, Session, next_input};
use crate::connect::input::Input;
use crate::connect::show::Mode;
use crate::connect::steps::Note;
use crate::exit::Exit;
use crate::printer::{MOMENT, TIMED_OUT, at};

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One connection of a session.
pub(super) struct Talk<'s, 'a> {
    session: &'s mut Session<'a>,
    sender: Sender,
    receiver: Receiver,
    greeting: VecDeque<Message<'static>>,
    /// A message that is being sent; it comes back if it was not.
    sending: Option<Waiting<Result<(), (Error, Message<'static>)>>>,
    /// Everything is written, then the connection is closed.
    flushing: Option<Waiting<Result<(), Error>>>,
    /// Our close, and the code that the command ends with after it.
    closing: Option<Closing>,
    /// Until when the peer may be silent, once either side has ended the conversation.
    patience: Option<Instant>,
    /// Until when more input is waited for, once the message has come that ends the session.
    grace: Option<Instant>,
    /// Pings of the user that wait for their pongs.
    pings: VecDeque<(Vec<u8>, Instant)>,
}

struct Closing {
    close: Close,
    exit: Exit,
}

/// Something that has happened on a connection, or to the session meanwhile.
enum Happened {
    Signal(Exit),
    Deadline,
    /// The peer was silent for too long after a close.
    Silence,
    /// No more input has come after the message that was waited for.
    InputPaused,
    /// There is room for output again, or nobody reads it.
    Output {
        is_read: bool,
    },
    Notes,
    Sent(Result<(), (Error, Message<'static>)>),
    Flushed(Result<(), Error>),
    /// `None` is the end of the input.
    Input(Option<Input>),
    Received(Result<Option<Message<'static>>, Error>),
    /// The peer has ended the conversation, and the connection is still to end.
    Ending,
}

impl<'s, 'a> Talk<'s, 'a> {
    pub(super) fn new(session: &'s mut Session<'a>, socket: WebSocket) -> Self {
        let (sender, receiver) = socket.split();
        let greeting = session.plan.greeting.iter().cloned().collect();
        Self {
            greeting,
            session,
            sender,
            receiver,
            sending: None,
            flushing: None,
            closing: None,
            patience: None,
            grace: None,
            pings: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self) -> Over {
        loop {
            self.begin_what_is_due();
            let happened = self.next().await;
            if let Some(over) = self.handle(happened).await {
                return over;
            }
        }
    }

    /// Sends what comes before the input, and begins to write everything once the input has ended.
    fn begin_what_is_due(&mut self) {
        while let Some(message) = self.next_first() {
            self.send(message);
        }
        let is_at_end = self.session.input.is_none() && !self.is_sending() && self.session.progress.unsent.is_empty();
        let is_due = is_at_end && self.session.closes_after_input();
        if is_due && self.flushing.is_none() && self.closing.is_none() && self.sender.is_open() {
            let sender = self.sender.clone();
            self.flushing = Some(Box::pin(async move { sender.flush().await }));
        }
    }

    async fn next(&mut self) -> Happened {
        let is_sending = self.is_sending();
        let takes_input = !is_sending && self.flushing.is_none() && self.closing.is_none();
        // A reader that is slow slows the peer down. That is the backpressure.
        let takes_messages = self.session.printer.is_ready();
        let patience = self.patience.filter(|_| takes_messages || self.is_ended_by_signal());
        let grace = self.grace.filter(|_| takes_input);
        let is_over = self.patience.is_some();
        tokio::select! {
            biased;
            exit = self.session.signals.next() => Happened::Signal(exit),
            () = at(self.session.plan.deadline) => Happened::Deadline,
            () = at(patience) => Happened::Silence,
            is_read = self.session.printer.changed() => Happened::Output { is_read },
            () = self.session.steps.changed(), if takes_messages => Happened::Notes,
            sent = wait(&mut self.sending) => Happened::Sent(sent),
            flushed = wait(&mut self.flushing) => Happened::Flushed(flushed),
            happened = async {
                // Not biased: neither a flood of input nor one of messages keeps the other from its turn.
                tokio::select! {
                    input = next_input(&mut self.session.input), if takes_input => Happened::Input(input),
                    received = receive(&mut self.receiver, &self.sender, is_over), if takes_messages => received,
                    else => pending().await,
                }
            } => happened,
            () = at(grace) => Happened::InputPaused,
        }
    }

    async fn handle(&mut self, happened: Happened) -> Option<Over> {
        match happened {
            Happened::Signal(exit) => return self.interrupted(exit).await,
            Happened::Deadline => {
                self.session.mistake(TIMED_OUT);
                return Some(self.close_quickly(Exit::TimedOut).await);
            }
            Happened::Silence => return Some(self.silent()),
            Happened::InputPaused => return Some(self.close_quickly(Exit::Done).await),
            Happened::Output { is_read: true } => self.be_patient(),
            // The reader is gone.
            Happened::Output { is_read: false } => {
                let exit = self.session.unless_unmet(Exit::Done);
                return Some(self.close_quickly(exit).await);
            }
            Happened::Notes => self.show_notes(),
            // Neither side reads, for longer than the library waits: ours will, once the output is read.
            Happened::Sent(Err((error, message))) if error.is_timeout() && self.sender.is_open() => self.send(message),
            Happened::Sent(Err((_, message))) => self.session.progress.unsent.push_front(message),
            Happened::Flushed(Ok(())) if self.session.progress.is_met => {
                return Some(self.close_quickly(Exit::Done).await);
            }
            Happened::Flushed(Ok(())) => self.begin_close(CloseCode::NORMAL.into(), Exit::Done),
            // A flush that fails for the same reason begins again. After any other failure, what is received says why.
            Happened::Sent(Ok(())) | Happened::Flushed(Err(_)) => {}
            Happened::Input(input) => self.take(input).await,
            Happened::Received(Ok(Some(message))) => return self.received(&message).await,
            Happened::Received(Ok(None)) => return Some(self.closed()),
            Happened::Received(Err(error)) => return Some(self.failed(error)),
            Happened::Ending => self.patience = Some(Instant::now() + self.session.plan.patience),
        }
        None
    }

    /// The next message that is to be sent before what comes from the user.
    fn next_first(&mut self) -> Option<Message<'static>> {
        let is_free = self.sending.is_none() && self.closing.is_none() && self.sender.is_open();
        let next = |talk: &mut Self| talk.greeting.pop_front().or_else(|| talk.session.progress.unsent.pop_front());
        if is_free { next(self) } else { None }
    }

    fn send(&mut self, message: Message<'static>) {
        // Mostly there is room.
        let lent = match &message {
            Message::Text(text) => self.sender.try_send(&**text),
            Message::Binary(bytes) => self.sender.try_send(&**bytes),
        };
        if lent.is_ok() {
            return;
        }
        let sender = self.sender.clone();
        self.sending = Some(Box::pin(async move {
            // A copy, so that what was not sent can be sent later.
            match sender.send(message.clone()).await {
                Ok(()) => Ok(()),
                Err(error) => Err((error, message)),
            }
        }));
    }

    /// Takes what the user wants; `None` is the end of the input.
    async fn take(&mut self, input: Option<Input>) {
        self.grace = self.grace.map(|_| Instant::now() + MOMENT);
        match input {
            Some(Input::Send(message)) => self.send(message),
            Some(Input::Ping(payload)) => {
                if self.sender.ping(&payload).await.is_ok() && self.pings.len() < PINGS {
                    self.pings.push_back((payload, Instant::now()));
                }
            }
            Some(Input::Pong(payload)) => drop(self.sender.pong(&payload).await),
            Some(Input::Close(close)) => self.begin_close(close, Exit::Done),
            Some(Input::ToggleJson) => self.session.toggle_json(),
            Some(Input::Wrong(wrong)) => {
                self.session.mistake(&wrong);
                self.session.input = None;
                self.begin_close(CloseCode::NORMAL.into(), Exit::Failed);
            }
            None => self.session.input = None,
        }
    }

    async fn received(&mut self, message: &Message<'static>) -> Option<Over> {
        self.be_patient();
        if self.session.progress.is_met {
            // What comes while the rest of the input is sent is not printed.
            self.session.steps.received();
            return None;
        }
        self.show_notes();
        self.print(message);
        if self.closing.is_some() || !self.session.plan.is_met_by(message) {
            return None;
        }
        self.session.progress.is_met = true;
        if self.session.plan.expect.is_some() {
            return Some(self.close_quickly(Exit::Done).await);
        }
        self.grace = Some(Instant::now() + MOMENT);
        None
    }

    fn print(&mut self, message: &Message<'static>) {
        let Session { steps, show, plan, .. } = &*self.session;
        let size = steps.received().filter(|_| plan.is_verbose);
        let (line, message) = (size.and_then(|size| show.size(size, false)), show.message(message));
        self.session.printer.print(message);
        if let Some(line) = line {
            self.session.state(line);
        }
    }

    fn is_sending(&self) -> bool {
        !self.greeting.is_empty() || self.sending.is_some()
    }

    fn is_ended_by_signal(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.exit.is_signal())
    }

    /// Closes; a second signal does not wait for it, nor does the first if nobody reads the output.
    async fn interrupted(&mut self, exit: Exit) -> Option<Over> {
        if self.is_ended_by_signal() {
            return Some(Over::Done(exit));
        }
        let code = if exit == Exit::Terminated { CloseCode::GOING_AWAY } else { CloseCode::NORMAL };
        self.begin_close(code.into(), exit);
        if self.session.printer.is_ready() { None } else { Some(self.end_quickly(exit).await) }
    }

    fn begin_close(&mut self, close: Close, exit: Exit) {
        // The code was checked when it was typed.
        let _ = self.sender.begin_close(close.clone());
        let exit = match &self.closing {
            Some(closing) if exit == Exit::Done => closing.exit,
            _ => exit,
        };
        self.closing = Some(Closing { close, exit });
        self.patience = Some(Instant::now() + self.session.plan.patience);
        self.flushing = None;
    }

    /// The peer has said something: it is still there.
    fn be_patient(&mut self) {
        self.patience = self.patience.map(|_| Instant::now() + self.session.plan.patience);
    }

    async fn close_quickly(&mut self, exit: Exit) -> Over {
        self.begin_close(CloseCode::NORMAL.into(), exit);
        let exit = self.closing.as_ref().map_or(exit, |closing| closing.exit);
        self.end_quickly(exit).await
    }

    /// Ends without waiting for more messages, but not before what was sent and the close are written, if that can be.
    async fn end_quickly(&mut self, exit: Exit) -> Over {
        let closed = async { while let Ok(Some(_)) = self.receiver.recv().await {} };
        tokio::select! {
            () = closed => {}
            () = tokio::time::sleep(MOMENT) => {}
            exit = self.session.signals.next() => return Over::Done(exit),
        }
        Over::Done(exit)
    }

    /// Our close was not answered in time, or the peer does not end the connection after its own.
    fn silent(&mut self) -> Over {
        if self.receiver.peer_close().is_some() {
            return self.closed();
        }
        // The connection has failed, which it says only when it has ended.
        if let Err(error) = self.sender.try_send("")
            && !error.is_closed()
        {
            return self.failed(error);
        }
        self.session.mistake("the peer did not answer our close in time; the connection was dropped");
        let exit = self.closing.as_ref().map_or(Exit::Lost, |closing| closing.exit);
        Over::Done(if exit == Exit::Done { Exit::Lost } else { exit })
    }

    /// Both sides have closed.
    fn closed(&mut self) -> Over {
        self.show_notes();
        let theirs = self.receiver.peer_close().unwrap_or_else(|| CloseCode::NO_STATUS.into());
        let Some(Closing { close, exit }) = self.closing.take() else {
            self.keep_unsent();
            return Over::Lost(Ended::Closed(theirs));
        };
        let is_answer = theirs.code() == close.code() || Exit::of_close(theirs.code()) == Exit::Done;
        let told = self.session.show.closed(if is_answer { &close } else { &theirs }, is_answer);
        self.session.tell(told);
        let exit = if exit == Exit::Done && !is_answer { Exit::of_close(theirs.code()) } else { exit };
        Over::Done(self.session.unless_unmet(exit))
    }

    fn failed(&mut self, error: Error) -> Over {
        self.show_notes();
        match self.closing.take() {
            Some(Closing { exit, .. }) if exit != Exit::Done => Over::Done(exit),
            Some(_) => {
                self.session.tell(self.session.show.failed(&error));
                Over::Done(self.session.unless_unmet(Exit::of(&error)))
            }
            None => {
                self.keep_unsent();
                Over::Lost(Ended::Failed(error))
            }
        }
    }

    /// What the connection has not accepted is sent on the next one.
    fn keep_unsent(&mut self) {
        if let Some(mut sending) = self.sending.take() {
            // The connection has ended, so it is ready.
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(Err((_, message))) = sending.as_mut().poll(&mut context) {
                self.session.progress.unsent.push_front(message);
            }
        }
    }

    /// Shows what the library has reported.
    fn show_notes(&mut self) {
        while let Some(note) = self.session.steps.next() {
            let Session { show, plan, .. } = &*self.session;
            let is_shown = plan.is_verbose || show.mode == Mode::Json;
            match note {
                Note::Line(line) => self.session.state(show.remark(&line)),
                Note::Sent(size) | Note::Received(size) => {
                    if let Some(line) = show.size(size, true) {
                        self.session.state(line);
                    }
                }
                Note::Ping { payload, is_ours } if is_shown => {
                    self.session.tell(show.control("ping", &payload, is_ours, None));
                }
                Note::Ping { .. } => {}
                Note::Pong { payload, round_trip } => {
                    let asked = self.pings.iter().position(|(asked, _)| *asked == payload);
                    let (round_trip, is_asked) = match asked.and_then(|index| self.pings.remove(index)) {
                        Some((_, since)) => (Some(since.elapsed()), true),
                        None => (round_trip, false),
                    };
                    // That of the heartbeat has a number as its payload, which says nothing to people.
                    let payload = if round_trip.is_some() && !is_asked { Vec::new() } else { payload };
                    if is_shown || is_asked {
                        self.session.tell(show.control("pong", &payload, false, round_trip));
                    }
                }
            }
        }
    }
}

/// Waits for what is under way, if anything is.
async fn wait<T>(waiting: &mut Option<Waiting<T>>) -> T {
    let Some(future) = waiting else { return pending().await };
    let result = future.await;
    *waiting = None;
    result
}

/// Receives; says once that the peer has ended the conversation, while it does not yet end the connection.
async fn receive(receiver: &mut Receiver, sender: &Sender, is_over: bool) -> Happened {
    let mut next = pin!(receiver.recv());
    poll_fn(|context| match next.as_mut().poll(context) {
        Poll::Ready(message) => Poll::Ready(Happened::Received(message)),
        Poll::Pending if !is_over && !sender.is_open() => Poll::Ready(Happened::Ending),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Pings of the user whose pongs are waited for.
const PINGS: usize = 64;
