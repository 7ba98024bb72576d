//! A session: from the first attempt to connect to the exit code.

mod talk;

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use taut::reconnect::Ended;
use taut::{Backoff, Client, Message, WebSocket};
use taut_proto::backoff::Reconnect;
use tokio::time::Instant;

use self::talk::Talk;
use super::expect::Expect;
use super::input::Input;
use super::show::{Mode, Show, Told};
use super::steps::{Note, Steps};
use crate::dial::DialArguments;
use crate::exit::Exit;
use crate::printer::{Printer, TIMED_OUT, at};
use crate::queue;
use crate::signals::Signals;

/// What a session does, and when it ends.
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Plan {
    /// Sent first on each connection.
    pub(super) greeting: Vec<Message<'static>>,
    /// Whether the input is a prompt. It is then read without a connection as well.
    pub(super) has_prompt: bool,
    /// Whether the end of the input leaves the connection open.
    pub(super) stays_open: bool,
    /// Whether the first message ends it well, unless there is an `expect`.
    pub(super) is_once: bool,
    /// A message that ends it well.
    pub(super) expect: Option<Expect>,
    pub(super) deadline: Option<Instant>,
    pub(super) reconnects: bool,
    pub(super) is_verbose: bool,
    /// How long the peer may be silent after a close.
    pub(super) patience: Duration,
}

impl Plan {
    fn awaits_message(&self) -> bool {
        self.is_once || self.expect.is_some()
    }

    fn is_met_by(&self, message: &Message<'_>) -> bool {
        self.expect.as_ref().map_or(self.is_once, |expect| expect.is_met(message))
    }
}

pub(super) struct Session<'a> {
    pub(super) url: String,
    pub(super) dial: &'a DialArguments,
    pub(super) client: Client,
    pub(super) plan: Plan,
    pub(super) show: Show,
    pub(super) printer: Printer,
    pub(super) steps: Steps,
    pub(super) signals: Signals,
    /// `None` once it has ended.
    pub(super) input: Option<queue::Receiver<Input>>,
    pub(super) progress: Progress,
}

/// What a session keeps from one connection to the next.
#[derive(Default)]
pub(super) struct Progress {
    /// What a connection that is gone has not accepted, and what was typed since.
    unsent: VecDeque<Message<'static>>,
    /// Whether the message that was waited for has come.
    is_met: bool,
}

impl Session<'_> {
    /// Runs it to its end.
    pub(super) async fn run(mut self) -> Exit {
        let exit = self.connections().await;
        self.show_lines();
        let timed_out = self.show.mistake(TIMED_OUT);
        self.printer.finish(exit, &mut self.signals, self.plan.deadline, &timed_out).await
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
                Over::Lost(_) if self.progress.is_met => return self.leave(Exit::Done),
                Over::Lost(ended) if self.plan.reconnects && ended.is_transient() => {
                    if let Some(exit) = self.wait(&mut reconnect, &ended).await {
                        return exit;
                    }
                }
                Over::Lost(ended) => return self.give_up(&ended),
            }
        }
    }

    async fn open(&mut self) -> Result<WebSocket, Over> {
        let (dial, client) = (self.dial, self.client.clone());
        let connected = tokio::select! {
            biased;
            Some(exit) = self.meanwhile(None) => return Err(Over::Done(exit)),
            connected = dial.connect(&client) => connected,
        };
        self.show_lines();
        let socket = connected.map_err(|error| Over::Lost(Ended::Failed(error)))?;
        let is_wanted = self.plan.is_verbose || self.show.mode != Mode::Pipe;
        if is_wanted {
            self.tell(self.show.opened(&self.url, socket.response(), socket.subprotocol()));
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
        self.tell(self.show.waiting(ended, delay, reconnect.attempt() + 1));
        self.meanwhile(Some(Instant::now() + delay)).await
    }

    /// Handles what happens without a connection. Returns an exit code to end the command, or `None` at the time of the
    /// next attempt. A full output delays that attempt: otherwise its status lines would pile up in memory.
    async fn meanwhile(&mut self, next_attempt: Option<Instant>) -> Option<Exit> {
        loop {
            let is_ready = self.printer.is_ready();
            let input = tokio::select! {
                biased;
                exit = self.signals.next() => return Some(self.leave(exit)),
                () = at(self.plan.deadline) => return Some(self.time_out()),
                is_read = self.printer.changed() => {
                    if is_read { continue }
                    return Some(self.leave(self.unless_unmet(Exit::Done)));
                }
                () = at(next_attempt), if is_ready => return None,
                () = self.steps.changed(), if is_ready => {
                    self.show_lines();
                    continue;
                }
                // What comes by a pipe waits there.
                input = next_input(&mut self.input), if self.plan.has_prompt => input,
            };
            match input {
                Some(Input::Send(message)) if self.progress.unsent.len() < UNSENT => {
                    self.progress.unsent.push_back(message);
                }
                Some(Input::Close(_)) | None => return Some(self.leave(Exit::Done)),
                Some(Input::Wrong(wrong)) => {
                    self.mistake(&wrong);
                    return Some(self.leave(Exit::Failed));
                }
                Some(Input::ToggleJson) => self.toggle_json(),
                Some(Input::Send(_) | Input::Ping(_) | Input::Pong(_)) => {
                    self.mistake("there is no connection now; nothing was sent");
                }
            }
        }
    }

    /// The end after a connection that is not replaced.
    fn give_up(&mut self, ended: &Ended) -> Exit {
        let (told, exit) = match ended {
            Ended::Closed(close) => (self.show.closed(close, false), Exit::of_close(close.code())),
            Ended::Failed(error) => (self.show.failed(error), Exit::of(error)),
            _ => return Exit::Lost,
        };
        self.tell(told);
        self.unless_unmet(exit)
    }

    /// The end while messages may wait for a connection: they are lost.
    fn leave(&mut self, exit: Exit) -> Exit {
        match self.progress.unsent.len() {
            0 => return exit,
            1 => self.mistake("1 message was not sent"),
            count => self.mistake(&format!("{count} messages were not sent")),
        }
        if exit == Exit::Done { Exit::Lost } else { exit }
    }

    fn time_out(&mut self) -> Exit {
        self.mistake(TIMED_OUT);
        self.leave(Exit::TimedOut)
    }

    /// An end that would be good is not, if a message was waited for in vain.
    fn unless_unmet(&self, exit: Exit) -> Exit {
        let is_unmet = self.plan.awaits_message() && !self.progress.is_met;
        if exit == Exit::Done && is_unmet { Exit::Unmet } else { exit }
    }

    /// Whether the connection is closed once the input has ended and is sent.
    fn closes_after_input(&self) -> bool {
        self.progress.is_met || !(self.plan.stays_open || self.plan.awaits_message())
    }

    fn toggle_json(&mut self) {
        self.show.is_pretty = !self.show.is_pretty;
        let words = if self.show.is_pretty { "JSON is indented" } else { "JSON stays as it is" };
        self.state(self.show.remark(words));
    }

    /// Shows what the library has reported while there is no connection.
    fn show_lines(&mut self) {
        while let Some(note) = self.steps.next() {
            if let Note::Line(line) = note {
                self.state(self.show.remark(&line));
            }
        }
    }

    fn mistake(&mut self, text: &str) {
        self.state(self.show.mistake(text));
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::State(line) => self.state(line),
            Told::Event(event) => self.printer.print(event),
        }
    }

    /// A line for people: on stderr, or above the prompt.
    fn state(&mut self, line: String) {
        if self.show.mode == Mode::Prompt {
            self.printer.print(format!("{line}\n").into_bytes());
        } else {
            self.printer.remark(line);
        }
    }
}

/// Why the connection ended.
enum Over {
    Done(Exit),
    Lost(Ended),
}

async fn next_input(input: &mut Option<queue::Receiver<Input>>) -> Option<Input> {
    match input {
        Some(input) => input.recv().await,
        None => pending().await,
    }
}

/// Whether all of the server's clients are likely to come back now (RFC 6455 §7.2.3).
fn is_abnormal(ended: &Ended) -> bool {
    ended.close_code().is_some_and(|code| matches!(code.as_u16(), 1001 | 1006 | 1011..=1014))
}

/// Messages that are typed while there is no connection, and kept.
const UNSENT: usize = 100;
