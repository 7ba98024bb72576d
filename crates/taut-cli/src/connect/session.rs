//! A session: from the first attempt to connect to the exit code.

mod talk;

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use taut::reconnect::Ended;
use taut::{Backoff, Client, Message, WebSocket};
use taut_proto::backoff::Reconnect;
use tokio::time::{Instant, sleep_until};

use self::talk::Talk;
use super::expect::Expect;
use super::input::Input;
use super::output::Output;
use super::queue;
use super::show::{Mode, Show, Told};
use super::signals::Signals;
use super::steps::{Note, Steps};
use crate::dial::DialArguments;
use crate::exit::Exit;

/// What a session does, and when it ends.
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Plan {
    /// Sent first on each connection.
    pub(super) greeting: Vec<Message<'static>>,
    /// Whether the end of the input leaves the connection open.
    pub(super) stays_open: bool,
    /// Whether the first message that meets `expect` ends it well.
    pub(super) is_once: bool,
    pub(super) expect: Option<Expect>,
    pub(super) deadline: Option<Instant>,
    pub(super) reconnects: bool,
    pub(super) is_verbose: bool,
    /// How long the peer may be silent after our close.
    pub(super) patience: Duration,
}

pub(super) struct Session<'a> {
    pub(super) url: String,
    pub(super) dial: &'a DialArguments,
    pub(super) client: Client,
    pub(super) plan: Plan,
    pub(super) show: Show,
    pub(super) output: Output,
    pub(super) steps: Steps,
    pub(super) signals: Signals,
    /// `None` once it has ended.
    pub(super) input: Option<queue::Receiver<Input>>,
    /// What a connection that is gone has not accepted, and what was typed since.
    pub(super) unsent: VecDeque<Message<'static>>,
}

impl Session<'_> {
    /// Runs it to its end.
    pub(super) async fn run(mut self) -> Exit {
        let exit = self.connections().await;
        self.show_notes().await;
        let finished = tokio::select! {
            finished = self.output.finish() => finished,
            exit = self.signals.next() => return exit,
        };
        match finished {
            Err(error) => {
                crate::output::fail(error);
                Exit::Failed
            }
            Ok(()) => exit,
        }
    }

    /// One connection after the other.
    async fn connections(&mut self) -> Exit {
        let mut reconnect = Reconnect::new(Backoff::default());
        loop {
            let ended = match self.open().await {
                Ok(socket) => {
                    reconnect.opened();
                    let opened = Instant::now();
                    let ended = Talk::new(self, socket).run().await;
                    reconnect.closed_after(opened.elapsed());
                    ended
                }
                Err(over) => over,
            };
            match ended {
                Over::Done(exit) => return exit,
                Over::Lost(ended) if self.plan.reconnects && ended.is_transient() => {
                    if let Some(exit) = self.wait(&mut reconnect, &ended).await {
                        return exit;
                    }
                }
                Over::Lost(Ended::Closed(close)) => {
                    self.tell(self.show.closed(&close, false)).await;
                    return self.unless_unmet(Exit::of_close(close.code()));
                }
                Over::Lost(Ended::Failed(error)) => {
                    self.tell(self.show.failed(&error)).await;
                    return Exit::of(&error);
                }
                Over::Lost(_) => return Exit::Lost,
            }
        }
    }

    async fn open(&mut self) -> Result<WebSocket, Over> {
        let (dial, client, steps) = (self.dial, self.client.clone(), self.steps.clone());
        let mut connecting = Box::pin(dial.connect(&client));
        let connected = loop {
            tokio::select! {
                biased;
                exit = self.meanwhile() => return Err(Over::Done(exit)),
                connected = &mut connecting => break connected,
                () = steps.changed() => self.show_notes().await,
            }
        };
        drop(connecting);
        self.show_notes().await;
        let socket = connected.map_err(|error| Over::Lost(Ended::Failed(error)))?;
        let told = self.show.opened(&self.url, socket.response(), socket.subprotocol());
        let is_wanted = self.plan.is_verbose || self.show.mode != Mode::Pipe;
        if is_wanted {
            self.tell(told).await;
        }
        Ok(socket)
    }

    /// Waits before the next attempt; an exit code if that was the end.
    async fn wait(&mut self, reconnect: &mut Reconnect, ended: &Ended) -> Option<Exit> {
        // Without randomness all clients would come back together; the middle is better than to give up.
        let random = getrandom::u64().unwrap_or(u64::MAX / 2);
        let retry_after = match ended {
            Ended::Failed(error) => error.retry_after(),
            _ => None,
        };
        let delay = match retry_after {
            Some(told) => reconnect.refused(random, told),
            None => reconnect.failed(random, is_abnormal(ended)),
        };
        self.steps.reset();
        self.tell(self.show.waiting(ended, delay, reconnect.attempt() + 1)).await;
        tokio::select! {
            exit = self.meanwhile() => Some(exit),
            () = tokio::time::sleep(delay) => None,
        }
    }

    /// What may happen while there is no connection; ends when somebody ends it all.
    async fn meanwhile(&mut self) -> Exit {
        loop {
            // What comes by a pipe waits there.
            let takes_input = self.show.mode == Mode::Prompt;
            let input = tokio::select! {
                exit = self.signals.next() => return exit,
                () = at(self.plan.deadline) => return Exit::TimedOut,
                input = next_input(&mut self.input), if takes_input => input,
            };
            match input {
                Some(Input::Send(message)) if self.unsent.len() < UNSENT => self.unsent.push_back(message),
                Some(Input::Close(_)) | None => return Exit::Done,
                Some(Input::Interrupt) => return Exit::Interrupted,
                Some(Input::Wrong(wrong)) => {
                    state(&self.show, &self.output, self.show.mistake(&wrong)).await;
                    return Exit::Failed;
                }
                Some(Input::ToggleJson) => self.toggle_json().await,
                Some(Input::Send(_) | Input::Ping(_) | Input::Pong(_)) => {
                    let words = self.show.mistake("there is no connection now; nothing was sent");
                    state(&self.show, &self.output, words).await;
                }
            }
        }
    }

    async fn toggle_json(&mut self) {
        self.show.is_pretty = !self.show.is_pretty;
        let words = if self.show.is_pretty { "JSON is indented" } else { "JSON stays as it is" };
        state(&self.show, &self.output, self.show.remark(words)).await;
    }

    /// An end that would be good is not, if something was waited for.
    fn unless_unmet(&self, exit: Exit) -> Exit {
        if exit == Exit::Done && (self.plan.is_once || self.plan.expect.is_some()) { Exit::Unmet } else { exit }
    }

    async fn show_notes(&mut self) {
        print_lines(&self.steps, &self.show, &self.output).await;
    }

    async fn tell(&self, told: Told) {
        tell(&self.show, &self.output, told).await;
    }
}

/// Why there is no connection any more.
enum Over {
    Done(Exit),
    Lost(Ended),
}

/// Prints what is told while there is no connection.
async fn print_lines(steps: &Steps, show: &Show, output: &Output) {
    while let Some(note) = steps.next() {
        if let Note::Line(line) = note {
            state(show, output, show.remark(&line)).await;
        }
    }
}

async fn tell(show: &Show, output: &Output, told: Told) {
    match told {
        Told::State(line) => state(show, output, line).await,
        Told::Event(event) => {
            output.print(event).await;
        }
    }
}

/// A line for people: on stderr, or above the prompt.
async fn state(show: &Show, output: &Output, line: String) {
    if show.mode == Mode::Prompt {
        output.print(format!("{line}\n").into_bytes()).await;
    } else {
        crate::output::remark(line);
    }
}

async fn next_input(input: &mut Option<queue::Receiver<Input>>) -> Option<Input> {
    match input {
        Some(input) => input.recv().await,
        None => pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Whether all of the server's clients are likely to come back now (RFC 6455 §7.2.3).
fn is_abnormal(ended: &Ended) -> bool {
    ended.close_code().is_some_and(|code| matches!(code.as_u16(), 1001 | 1006 | 1011..=1014))
}

/// Messages that are typed while there is no connection, and kept.
const UNSENT: usize = 100;
