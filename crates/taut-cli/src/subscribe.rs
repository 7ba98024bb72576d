//! `taut subscribe`: prints the events of channels.

mod render;
mod session;

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use taut::reconnect::{Decision, Ended, Event, Next};
use taut::{Backoff, Close, CloseCode, Reconnecting};
use taut_pusher::client::Reconnect;
use tokio::time::{Instant, sleep};

use self::render::Style;
use self::session::{Session, Shown, Step};
use crate::api::Failure;
use crate::app::AppArguments;
use crate::dial::{self, DialArguments, duration};
use crate::exit::Exit;
use crate::output::printable;
use crate::printer::{Printer, TIMED_OUT, at, to_stdout};
use crate::publish::master_key;
use crate::signals::{Interrupter, Signals};
use crate::{log, output};

/// Subscribe to channels of a Pusher app and print their events
///
/// Private, presence and encrypted channels are signed for with the app's secret. When the connection is lost, it comes
/// back and subscribes again; if the very first one fails, the command ends. Presence channels show who comes and goes.
#[derive(clap::Args)]
#[allow(clippy::doc_markdown)] // These comments are the help, which is not Markdown.
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channels
    #[arg(required = true)]
    channels: Vec<String>,

    /// The user id in presence channels
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,

    /// The user's information for other members, as JSON
    #[arg(long, value_name = "JSON", requires = "user_id")]
    user_info: Option<String>,

    /// Read private-encrypted- channels with this master key, 32 bytes in base64; prefer the variable
    #[arg(long, value_name = "BASE64", env = "TAUT_ENCRYPTION_KEY", hide_env_values = true)]
    encryption_key: Option<String>,

    /// Print these events only; pusher:member_added, pusher:member_removed, pusher:cache_miss and
    /// pusher:subscription_count can be named as well
    #[arg(short = 'e', long = "bind", value_name = "EVENT")]
    events: Vec<String>,

    /// End after one event
    #[arg(short = '1', long, conflicts_with = "count")]
    once: bool,

    /// End after this many events
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Exit with 124 after this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// Print one JSON object a line: time, channel, event, data
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// Print the data alone
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    app: AppArguments,

    #[command(flatten)]
    dial: DialArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(Failure::report(runtime.block_on(subscribe(arguments))))
}

async fn subscribe(arguments: &Arguments) -> Result<Exit, Failure> {
    let app = arguments.app.resolve().map_err(Failure::usage)?;
    let url = app.websocket_url().map_err(Failure::usage)?;
    let key = arguments.encryption_key.as_deref().map(master_key).transpose().map_err(Failure::usage)?;
    let member = arguments.user_id.as_deref().map(|id| (id, arguments.user_info.as_deref()));
    let session = Session::new(app, &arguments.channels, member, key).map_err(Failure::usage)?;
    let is_established = Arc::new(AtomicBool::new(false));
    let feed = feed(&arguments.dial, &url, Arc::clone(&is_established)).map_err(Failure::usage)?;
    let mut signals =
        Signals::catch(Interrupter::default()).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let deadline = arguments.timeout.map(|timeout| Instant::now() + timeout);
    let mut subscriber = Subscriber {
        arguments,
        style: style(arguments),
        session,
        is_established,
        feed,
        unsent: VecDeque::new(),
        printer: Printer::new(to_stdout, |lines| lines.lines().for_each(output::tell)),
        left: left(arguments),
    };
    let ended = tokio::select! {
        biased;
        exit = signals.next() => Ok(exit),
        () = at(deadline) => {
            subscriber.printer.remark(TIMED_OUT);
            Ok(Exit::TimedOut)
        }
        ended = subscriber.run() => ended,
    };
    subscriber.leave().await;
    let exit = ended.as_ref().map_or_else(|failure| failure.exit, |exit| *exit);
    let exit = subscriber.printer.finish(exit, &mut signals, deadline, TIMED_OUT).await;
    ended.map(|_| exit)
}

/// The connection, which comes back once it was established.
fn feed(dial: &DialArguments, url: &str, is_established: Arc<AtomicBool>) -> Result<Reconnecting, String> {
    let feed = dial.client(url)?.reconnecting(Backoff::default(), |socket| async move { Ok(socket) });
    #[cfg(unix)]
    let feed = match dial.unix.clone() {
        Some(path) => feed.over(move || tokio::net::UnixStream::connect(path.clone())),
        None => feed,
    };
    let mut why = None;
    let report = move |event: &Event| match event {
        Event::Lost(_) | Event::Failed(_) => why = Some(event.to_string()),
        Event::Waiting { delay, .. } => tell_of_retry(why.take(), &format!("trying again in {delay:.1?}")),
        Event::Connecting { .. } => tell_of_retry(why.take(), "trying again"),
        _ => {}
    };
    Ok(feed.decide(move |ended| decision(ended, is_established.load(Ordering::Relaxed))).on_event(report))
}

fn tell_of_retry(why: Option<String>, what: &str) {
    if let Some(why) = why {
        output::tell(format_args!("{}; {what}", printable(&why)));
    }
}

/// What to do after a connection has ended. A first one that fails is more often a mistake than an outage; a server
/// that asks to come back is obeyed all the same.
fn decision(ended: &Ended, was_established: bool) -> Decision {
    match ended.close_code().and_then(|code| Reconnect::after(code.as_u16())) {
        Some(Reconnect::AfterBackoff) => Decision::Retry,
        Some(Reconnect::AtOnce) => Decision::RetryNow,
        None if was_established => ended.decision(),
        Some(Reconnect::Never) | None => Decision::GiveUp,
    }
}

struct Subscriber<'a> {
    arguments: &'a Arguments,
    style: Style,
    session: Session,
    /// Whether there was a connection that the server greeted.
    is_established: Arc<AtomicBool>,
    feed: Reconnecting,
    /// What the open connection has not accepted yet.
    unsent: VecDeque<String>,
    printer: Printer,
    /// How many events are still to be printed.
    left: Option<u64>,
}

impl Subscriber<'_> {
    /// Prints events until enough are printed, or nobody reads them, or nothing more can come.
    async fn run(&mut self) -> Result<Exit, Failure> {
        loop {
            // A reader that is slow slows the server down.
            while !self.printer.is_ready() {
                if !self.printer.changed().await {
                    return Ok(Exit::Done);
                }
            }
            let Some(text) = self.next().await? else { return Ok(Exit::Done) };
            for step in self.session.receive(&text) {
                if let Some(exit) = self.take(step)? {
                    return Ok(exit);
                }
            }
        }
    }

    /// The next text that was received, while what is unsent is sent; `None` once nobody reads the events.
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            self.send_unsent();
            let is_unsent = !self.unsent.is_empty();
            let next = tokio::select! {
                _ = self.printer.changed() => return Ok(None),
                next = self.feed.next() => next.map_err(|error| failure(&error))?,
                // The answers of the server make room as well.
                () = sleep(ROOM), if is_unsent => continue,
            };
            match next {
                Next::Opened(_) => {
                    self.session.opened();
                    self.unsent.clear();
                }
                Next::Message(message) => {
                    if let Some(text) = message.as_text() {
                        return Ok(Some(text.to_owned()));
                    }
                }
            }
        }
    }

    fn take(&mut self, step: Step) -> Result<Option<Exit>, Failure> {
        match step {
            Step::Established => self.is_established.store(true, Ordering::Relaxed),
            Step::Send(message) => self.unsent.push_back(message),
            Step::Tell(text) => self.printer.remark(printable(&text)),
            Step::Refused(reason) => {
                return Err(Failure::new(Exit::Refused, printable(&format!("the server refused: {reason}"))));
            }
            Step::Ended { code, reason } => {
                let error = taut::Error::from(Close::new(CloseCode::new(code), reason));
                if Reconnect::after(code) == Some(Reconnect::Never) {
                    return Err(failure(&error));
                }
                self.feed.reconnect(error);
            }
            Step::Show(event) => return Ok(self.show(&event).then_some(Exit::Done)),
        }
        Ok(None)
    }

    /// Sends what the connection accepts.
    fn send_unsent(&mut self) {
        while let Some(message) = self.unsent.front() {
            match self.feed.try_send(message.as_str()) {
                Err(error) if error.is_full() => return,
                // When it cannot be sent, the connection is lost, and the next one says the same.
                _ => drop(self.unsent.pop_front()),
            }
        }
    }

    /// Prints an event if it is wanted; returns whether it is the last.
    fn show(&mut self, event: &Shown) -> bool {
        let is_bound = self.arguments.events.contains(&event.name);
        if !is_bound && (event.is_hidden || !self.arguments.events.is_empty()) {
            return false;
        }
        self.printer.print((self.style.event(event) + "\n").into_bytes());
        let is_counted = is_bound || !event.is_of_protocol();
        is_counted && self.is_last()
    }

    fn is_last(&mut self) -> bool {
        self.left = self.left.map(|left| left - 1);
        self.left == Some(0)
    }

    /// Closes the connection, for as long as that is worth a wait.
    async fn leave(&mut self) {
        let closed = self.feed.close(Close::new(CloseCode::NORMAL, ""));
        let _ = tokio::time::timeout(LEAVE, closed).await;
    }
}

/// Why there will be no more events.
fn failure(error: &taut::Error) -> Failure {
    let code = error.close_code().map(CloseCode::as_u16);
    let exit = match code.and_then(Reconnect::after) {
        Some(Reconnect::Never) => Exit::Refused,
        _ => Exit::of(error),
    };
    Failure::new(exit, dial::words(error))
}

fn style(arguments: &Arguments) -> Style {
    let is_terminal = io::stdout().is_terminal();
    match arguments {
        Arguments { json: true, .. } => Style::Json,
        Arguments { raw: true, .. } => Style::Raw { is_terminal },
        _ => Style::Text { is_terminal, is_colored: log::is_colored(is_terminal, |name| env::var_os(name)) },
    }
}

fn left(arguments: &Arguments) -> Option<u64> {
    if arguments.once { Some(1) } else { arguments.count }
}

/// How long the server may take to close the connection.
const LEAVE: Duration = Duration::from_secs(1);

/// How soon to look for room for what is unsent.
const ROOM: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  taut subscribe news sports
  taut subscribe presence-room --user-id 7 --user-info '{\"name\":\"Ada\"}'
  taut subscribe private-orders --bind created --json | jq .data
  taut subscribe news --once --raw --timeout 10s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_says_whether_to_come_back() {
        let decided = |code: u16, was_established| {
            decision(&Ended::Closed(Close::new(CloseCode::new(code), "")), was_established)
        };
        assert_eq!((decided(1012, false), decided(4100, false)), (Decision::GiveUp, Decision::Retry));
        for (code, expected) in [
            (4001, Decision::GiveUp),
            (4009, Decision::GiveUp),
            (4100, Decision::Retry),
            (4201, Decision::RetryNow),
            (1012, Decision::Retry),
        ] {
            assert_eq!(decided(code, true), expected, "{code}");
        }
    }
}
