//! `taut route test`: plays one connection of a route against its backend, and shows what is said.

mod render;

use std::env;
use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use taut_server::config::{SETTINGS, Sources};
use taut_server::route_test::{Client, Exchange, Happening, RouteTest, RouteTestError, Verdict};

use self::render::Style;
use crate::exit::Exit;
use crate::{hex, log, output, serve};

/// Try the backend of a route
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Test(TestArguments),
}

/// Play a connection of a route against its backend, and show each request and answer
///
/// No server is needed and nothing is carried out: it says what `taut serve` sends, and what it would do. Each event is
/// sent once. It begins with open, then come the messages, and at last close, if the backend let the client in.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct TestArguments {
    /// The path that the client asks for, with its query
    path: String,

    /// The file with the routes; every other setting can be an environment variable, as for `taut serve`
    #[arg(long, value_name = "FILE")]
    config: Option<String>,

    /// A header of the client; what the route does not pass on is not sent
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// A subprotocol that the client offers
    #[arg(long = "protocol", value_name = "NAME")]
    protocols: Vec<String>,

    #[command(flatten)]
    happenings: Happenings,

    /// Send each line of the standard input as a text message, after the others
    #[arg(long)]
    stdin: bool,

    /// How the client ends the connection; 1006: it vanishes
    #[arg(long, value_name = "CODE[:REASON]", default_value = "1000", value_parser = close)]
    close: (u16, String),

    /// Print one JSON object a line: each request, each answer, and notes
    #[arg(long)]
    json: bool,
}

/// What happens on the connection, in the order of the command line.
struct Happenings(Vec<Happening>);

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let Verb::Test(arguments) = &arguments.verb;
    let (exit, reason) = match test(arguments) {
        Ok(true) => return Exit::Done,
        Ok(false) => return Exit::Failed,
        Err(Failure::Use(reason)) => (Exit::Usage, reason),
        Err(Failure::System(reason)) => (Exit::Failed, reason),
    };
    output::fail(reason);
    exit
}

/// Why a connection was not played to its end.
enum Failure {
    /// What was asked for cannot be.
    Use(String),
    System(String),
}

/// Whether the backend let the client in, and all that it answered could be carried out.
fn test(arguments: &TestArguments) -> Result<bool, Failure> {
    // Its own thread notices when a connection that is kept for the next event is closed.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::System(error.to_string()))?;
    let mut test = runtime.block_on(prepare(arguments))?;
    let is_terminal = io::stdout().is_terminal();
    let is_colored = log::is_colored(is_terminal, |name| env::var_os(name));
    let style = if arguments.json { Style::Json } else { Style::Text { is_terminal, is_colored } };
    let mut shown = Shown { style, is_good: true };

    for name in test.left_out() {
        shown.note(&format!("the header {name} is not sent: the route does not pass it on"))?;
    }
    if let Some(refusal) = test.refusal() {
        shown.is_good = false;
        shown.note(&format!("the server refuses this client before it asks the backend, with {refusal}"))?;
    }
    shown.exchange(runtime.block_on(test.open()))?;
    let mut given = arguments.happenings.0.iter().cloned();
    let read = arguments.stdin.then(|| io::stdin().lock().lines()).into_iter().flatten();
    let mut happenings = given.by_ref().map(Ok).chain(read.map(|line| line.map(Happening::Text)));
    while test.is_open()
        && let Some(happening) = happenings.next()
    {
        let cannot = |error: io::Error| Failure::System(format!("the standard input cannot be read: {error}"));
        shown.exchange(runtime.block_on(test.tell(happening.map_err(cannot)?)))?;
    }
    drop(happenings);
    if test.was_let_in() && given.len() > 0 {
        shown.note(&format!("events that are not sent, because the connection is over: {}", given.len()))?;
    }
    let (code, reason) = &arguments.close;
    shown.exchange(runtime.block_on(test.end(*code, reason)))?;
    Ok(shown.is_good)
}

/// Reads the configuration and finds the route.
async fn prepare(arguments: &TestArguments) -> Result<RouteTest, Failure> {
    let environment = serve::environment().map_err(|error| Failure::Use(error.to_string().trim_end().to_owned()))?;
    let file = SETTINGS.iter().find(|setting| setting.name == "config").zip(arguments.config.clone());
    let loaded = Sources::new(file, environment).load().map_err(|error| Failure::Use(error.to_string()))?;
    let client = Client {
        target: arguments.path.clone(),
        headers: arguments.headers.clone(),
        protocols: arguments.protocols.clone(),
    };
    RouteTest::new(&loaded.config, &client).await.map_err(|error| {
        Failure::Use(match error {
            RouteTestError::Config(error) => loaded.locate(error).to_string(),
            other => other.to_string(),
        })
    })
}

/// What has been printed.
struct Shown {
    style: Style,
    /// All was answered, and could be carried out.
    is_good: bool,
}

impl Shown {
    fn note(&self, text: &str) -> Result<(), Failure> {
        output::print(&self.style.note(text)).map_err(Failure::System)
    }

    fn exchange(&mut self, exchange: Option<Exchange>) -> Result<(), Failure> {
        let Some(exchange) = exchange else { return Ok(()) };
        self.is_good &= exchange.verdict == Verdict::CarriedOut && exchange.left_out.is_empty();
        output::print(&self.style.exchange(&exchange)).map_err(Failure::System)
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn close(text: &str) -> Result<(u16, String), String> {
    let (code, reason) = text.split_once(':').unwrap_or((text, ""));
    let code = code.parse().ok().filter(|code| (1000..5000).contains(code)).ok_or("a code is 1000 to 4999")?;
    if reason.len() > LONGEST_REASON {
        return Err(format!("a reason has at most {LONGEST_REASON} bytes"));
    }
    Ok((code, reason.to_owned()))
}

impl Args for Happenings {
    fn augment_args(command: Command) -> Command {
        let message = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append).allow_hyphen_values(true)
        };
        command
            .arg(message(SEND, "TEXT", "Send a text message; messages go in the order of the command line"))
            .arg(message(SEND_BINARY, "HEX", "Send a binary message").value_parser(hex::decode))
            .arg(
                Arg::new(TIMER)
                    .long(TIMER)
                    .help("Send a timer event")
                    .action(ArgAction::Append)
                    .num_args(0)
                    .default_missing_value(""),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Happenings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let indices = |name| matches.indices_of(name).into_iter().flatten();
        let texts = matches.get_many::<String>(SEND).into_iter().flatten().cloned().map(Happening::Text);
        let binaries = matches.get_many::<Vec<u8>>(SEND_BINARY).into_iter().flatten().cloned().map(Happening::Binary);
        let mut happenings: Vec<(usize, Happening)> = indices(SEND).zip(texts).collect();
        happenings.extend(indices(SEND_BINARY).zip(binaries));
        happenings.extend(indices(TIMER).map(|index| (index, Happening::Timer)));
        happenings.sort_by_key(|(index, _)| *index);
        Ok(Self(happenings.into_iter().map(|(_, happening)| happening).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

const SEND: &str = "send";
const SEND_BINARY: &str = "send-binary";
const TIMER: &str = "timer";

/// Bytes of the reason in a Close frame (RFC 6455 §5.5).
const LONGEST_REASON: usize = 123;

const EXAMPLES: &str = "\
Examples:
  taut route test '/chat/42?token=token-ann' --config taut.toml --send hello

It ends with 0 if the backend answered everything and all of it could be carried out, with 1 if not, and with 64 if \
    there is no such route or the configuration cannot be read.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        test: TestArguments,
    }

    fn parse(arguments: &[&str]) -> Result<TestArguments, String> {
        let line = Line::try_parse_from([&["test", "/"], arguments].concat());
        line.map(|line| line.test).map_err(|error| error.to_string())
    }

    #[test]
    fn events_come_in_the_order_of_the_command_line() {
        let line = ["--timer", "--send", "-1", "--send-binary", "00fF", "--timer", "--send", "", "--stdin"];
        let parsed = parse(&line).expect("a good line");
        let text = |text: &str| Happening::Text(text.to_owned());
        let expected = [Happening::Timer, text("-1"), Happening::Binary(vec![0, 255]), Happening::Timer, text("")];
        assert_eq!(parsed.happenings.0, expected);
        assert!(parsed.stdin);
        assert_eq!(parse(&[]).expect("a good line").close, (1000, String::new()));
    }

    #[test]
    fn what_no_client_sends_is_explained() {
        assert_eq!(header("Cookie: a=b:c "), Ok(("Cookie".to_owned(), "a=b:c".to_owned())));
        assert_eq!(close("4001:bye: now"), Ok((4001, "bye: now".to_owned())));
        for (line, reason) in [
            (["--send-binary", "0"], "two hexadecimal digits"),
            (["--send-binary", "0g"], "hexadecimal"),
            (["--close", "999"], "1000 to 4999"),
            (["--close", "soon"], "1000 to 4999"),
            (["-H", "Cookie"], "'Name: value'"),
        ] {
            let error = parse(&line).err().expect("a mistake");
            assert!(error.contains(reason), "{line:?}: {error}");
        }
        assert!(close(&format!("1000:{}", "x".repeat(124))).is_err());
    }
}
