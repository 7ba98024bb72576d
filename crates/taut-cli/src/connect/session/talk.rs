//! One connection of a session: what is sent, received, printed and closed on it.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use taut::reconnect::Ended;
use taut::{Close, CloseCode, Error, Message, Receiver, Sender, WebSocket};
use tokio::time::Instant;

use super::{Over, Session, at, next_input, state, tell};
use crate::connect::input::Input;
use crate::connect::show::Mode;
use crate::connect::steps::Note;
use crate::exit::Exit;

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One connection of a session.
pub(super) struct Talk<'s, 'a> {
    session: &'s mut Session<'a>,
    sender: Sender,
    receiver: Receiver,
    greeting: VecDeque<Message<'static>>,
    /// A message that is being sent; it comes back if it was not.
    sending: Option<Waiting<Result<(), (Error, Message<'static>)>>>,
    /// What is being printed. Until it is, nothing more is received: that is the backpressure.
    printing: Option<Waiting<bool>>,
    /// Everything is written, then the connection is closed like this.
    flushing: Option<(Waiting<Result<(), Error>>, Close)>,
    /// Our close, the code that the command ends with after it, and until when the peer may be silent.
    closing: Option<Closing>,
    /// Pings of the user that wait for their pongs.
    pings: VecDeque<(Vec<u8>, Instant)>,
}

struct Closing {
    close: Close,
    exit: Exit,
    patience: Instant,
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
            printing: None,
            flushing: None,
            closing: None,
            pings: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self) -> Over {
        let steps = self.session.steps.clone();
        loop {
            while let Some(message) = self.next_first() {
                self.send(message);
            }
            let takes_input =
                self.greeting.is_empty() && self.sending.is_none() && self.flushing.is_none() && self.closing.is_none();
            let deadline = self.session.plan.deadline;
            let patience = self.closing.as_ref().filter(|_| self.printing.is_none()).map(|closing| closing.patience);
            tokio::select! {
                biased;
                exit = self.session.signals.next() => {
                    if self.closing.as_ref().is_some_and(|closing| closing.exit.is_signal()) {
                        return Over::Done(exit);
                    }
                    let code = if exit == Exit::Terminated { CloseCode::GOING_AWAY } else { CloseCode::NORMAL };
                    self.begin_close(code.into(), exit);
                }
                () = at(deadline) => return self.time_out().await,
                () = at(patience) => {
                    let exit = self.closing.as_ref().map_or(Exit::Lost, |closing| closing.exit);
                    let exit = if exit == Exit::Done { Exit::Lost } else { exit };
                    let error = "the peer did not answer our close in time; the connection was dropped";
                    state(&self.session.show, &self.session.output, self.session.show.mistake(error)).await;
                    return Over::Done(exit);
                }
                is_printed = wait(&mut self.printing) => {
                    if !is_printed {
                        // Whoever reads has gone.
                        self.begin_close(CloseCode::NORMAL.into(), Exit::Done);
                        return self.end_quickly(Exit::Done).await;
                    }
                    self.be_patient();
                }
                () = steps.changed() => self.show_notes().await,
                sent = wait(&mut self.sending) => if let Err((error, message)) = sent {
                    // Neither side reads, for longer than the library waits: ours will, once the output is read.
                    if error.is_timeout() && self.sender.is_open() {
                        self.send(message);
                    } else {
                        self.session.unsent.push_front(message);
                    }
                },
                flushed = flushed(&mut self.flushing) => {
                    if let Ok(close) = flushed {
                        self.begin_close(close, Exit::Done);
                    }
                }
                received = self.receiver.recv(), if self.printing.is_none() => match received {
                    Ok(Some(message)) => if let Some(exit) = self.received(message).await {
                        return exit;
                    },
                    Ok(None) => return self.closed().await,
                    Err(error) => return self.failed(error).await,
                },
                input = next_input(&mut self.session.input), if takes_input => self.handle(input).await,
            }
        }
    }

    /// The next message that is to be sent before what comes from the user.
    fn next_first(&mut self) -> Option<Message<'static>> {
        let is_free = self.sending.is_none() && self.closing.is_none() && self.sender.is_open();
        let next = |talk: &mut Self| talk.greeting.pop_front().or_else(|| talk.session.unsent.pop_front());
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
    async fn handle(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Send(message)) => self.send(message),
            Some(Input::Ping(payload)) => {
                if self.sender.ping(&payload).await.is_ok() && self.pings.len() < PINGS {
                    self.pings.push_back((payload, Instant::now()));
                }
            }
            Some(Input::Pong(payload)) => drop(self.sender.pong(&payload).await),
            Some(Input::Close(close)) => self.begin_close(close, Exit::Done),
            Some(Input::Interrupt) => self.begin_close(CloseCode::NORMAL.into(), Exit::Interrupted),
            Some(Input::ToggleJson) => self.session.toggle_json().await,
            Some(Input::Wrong(wrong)) => {
                state(&self.session.show, &self.session.output, self.session.show.mistake(&wrong)).await;
                self.session.input = None;
                self.begin_close(CloseCode::NORMAL.into(), Exit::Failed);
            }
            None => {
                self.session.input = None;
                let plan = &self.session.plan;
                if !plan.stays_open && !plan.is_once && plan.expect.is_none() {
                    let sender = self.sender.clone();
                    let flushing: Waiting<_> = Box::pin(async move { sender.flush().await });
                    self.flushing = Some((flushing, CloseCode::NORMAL.into()));
                }
            }
        }
    }

    async fn received(&mut self, message: Message<'static>) -> Option<Over> {
        self.show_notes().await;
        let Session { steps, show, output, plan, .. } = &mut *self.session;
        let size = steps.received().filter(|_| plan.is_verbose);
        let mut bytes = show.message(&message);
        if let Some(line) = size.and_then(|size| show.size(size, false)) {
            if show.mode == Mode::Prompt {
                bytes.extend_from_slice(format!("{line}\n").as_bytes());
            } else {
                state(show, output, line).await;
            }
        }
        self.printing = Some(Box::pin(output.print(bytes)));
        let is_met = plan.expect.as_ref().map_or(plan.is_once, |expect| expect.is_met(&message));
        if is_met && self.closing.is_none() {
            if let Some(printing) = self.printing.take() {
                printing.await;
            }
            self.begin_close(CloseCode::NORMAL.into(), Exit::Done);
            return Some(self.end_quickly(Exit::Done).await);
        }
        self.be_patient();
        None
    }

    fn begin_close(&mut self, close: Close, exit: Exit) {
        // The code was checked when it was typed.
        let _ = self.sender.begin_close(close.clone());
        let exit = match &self.closing {
            Some(closing) if exit == Exit::Done => closing.exit,
            _ => exit,
        };
        let patience = Instant::now() + self.session.plan.patience;
        self.closing = Some(Closing { close, exit, patience });
        self.flushing = None;
    }

    /// The peer has said something: it is still there.
    fn be_patient(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.patience = Instant::now() + self.session.plan.patience;
        }
    }

    /// Ends without waiting for more messages, but not before what was sent and the close are written, if that can be.
    async fn end_quickly(&mut self, exit: Exit) -> Over {
        let closed = async { while let Ok(Some(_)) = self.receiver.recv().await {} };
        tokio::select! {
            () = closed => {}
            () = tokio::time::sleep(QUICKLY) => {}
            exit = self.session.signals.next() => return Over::Done(exit),
        }
        Over::Done(exit)
    }

    async fn time_out(&mut self) -> Over {
        let words = self.session.show.mistake("--timeout has passed");
        state(&self.session.show, &self.session.output, words).await;
        self.begin_close(CloseCode::NORMAL.into(), Exit::TimedOut);
        self.end_quickly(Exit::TimedOut).await
    }

    /// Both sides have closed.
    async fn closed(&mut self) -> Over {
        self.show_notes().await;
        let theirs = self.receiver.peer_close().unwrap_or_else(|| CloseCode::NO_STATUS.into());
        let Some(Closing { close, exit, .. }) = self.closing.take() else {
            self.keep_unsent();
            return Over::Lost(Ended::Closed(theirs));
        };
        let is_answer = theirs.code() == close.code() || Exit::of_close(theirs.code()) == Exit::Done;
        let told = self.session.show.closed(if is_answer { &close } else { &theirs }, is_answer);
        self.session.tell(told).await;
        let exit = if exit == Exit::Done && !is_answer { Exit::of_close(theirs.code()) } else { exit };
        Over::Done(self.session.unless_unmet(exit))
    }

    async fn failed(&mut self, error: Error) -> Over {
        self.show_notes().await;
        match self.closing.take() {
            Some(Closing { exit, .. }) if exit != Exit::Done => Over::Done(exit),
            Some(_) => {
                self.session.tell(self.session.show.failed(&error)).await;
                Over::Done(Exit::of(&error))
            }
            None => {
                self.keep_unsent();
                Over::Lost(Ended::Failed(error))
            }
        }
    }

    /// What the connection has not accepted is sent on the next one.
    fn keep_unsent(&mut self) {
        if let Some(sending) = self.sending.take() {
            // The connection has ended, so it is ready.
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut sending = sending;
            if let std::task::Poll::Ready(Err((_, message))) = sending.as_mut().poll(&mut context) {
                self.session.unsent.push_front(message);
            }
        }
    }

    /// Shows what the library has reported.
    async fn show_notes(&mut self) {
        while let Some(note) = self.session.steps.next() {
            let Session { show, output, plan, .. } = &*self.session;
            let is_shown = plan.is_verbose || show.mode == Mode::Json;
            match note {
                Note::Line(line) => state(show, output, show.remark(&line)).await,
                Note::Sent(size) | Note::Received(size) => {
                    if let Some(line) = show.size(size, true) {
                        state(show, output, line).await;
                    }
                }
                Note::Ping { payload, is_ours } if is_shown => {
                    tell(show, output, show.control("ping", &payload, is_ours, None)).await;
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
                        tell(show, output, show.control("pong", &payload, false, round_trip)).await;
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

async fn flushed(flushing: &mut Option<(Waiting<Result<(), Error>>, Close)>) -> Result<Close, Error> {
    let Some((future, close)) = flushing else { return pending().await };
    let result = future.await.map(|()| close.clone());
    *flushing = None;
    result
}

/// How long a close may take that nobody waits for.
const QUICKLY: Duration = Duration::from_secs(1);

/// Pings of the user whose pongs are waited for.
const PINGS: usize = 64;
