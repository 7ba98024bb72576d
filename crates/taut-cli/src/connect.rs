//! `taut connect`: a WebSocket client for the terminal and for pipes.

mod above;
mod certificate;
mod commands;
mod curl;
mod expect;
mod format;
mod input;
mod prompt;
mod session;
mod show;
mod steps;
mod text;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::time::Duration;

use clap::ValueEnum;
use taut::{Client, Message};
use tokio::runtime::Builder;
use tokio::time::Instant;

use self::above::Above;
use self::curl::Copied;
use self::expect::Expect;
use self::format::Binary;
use self::input::Input;
use self::prompt::{Options, Prompt};
use self::session::{Plan, Progress, Session};
use self::show::{Mode, Show};
use self::steps::Steps;
use crate::dial::{DialArguments, duration, websocket_url};
use crate::exit::Exit;
use crate::log;
use crate::printer::{Printer, to_stdout};
use crate::queue::Receiver;
use crate::signals::{Interrupter, Signals};

/// Talk to a WebSocket server
///
/// At a terminal it has a prompt: what you type is sent, what comes is printed above it, and /help lists what else you
/// can do. In a pipe each line of the input is a message, and each message a line of the output; at the end of the
/// input the connection is closed. Status messages go to stderr.
#[derive(clap::Args)]
#[command(
    after_help = EXAMPLES.to_owned() + &Exit::help(),
    args_conflicts_with_subcommands = false,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    /// Where to connect to: a URL, or host:port/path, which is ws:// on this machine and wss:// elsewhere
    #[arg(required = true)]
    url: Option<String>,

    #[command(subcommand)]
    copied: Option<CopiedCommand>,

    #[command(flatten)]
    messages: Messages,

    #[command(flatten)]
    looks: Looks,

    #[command(flatten)]
    dial: DialArguments,
}

#[derive(clap::Subcommand)]
enum CopiedCommand {
    /// Understand a browser's “Copy as cURL”: paste it behind `taut connect`
    #[command(after_help = CURL_EXAMPLES)]
    Curl(Words),
}

#[derive(clap::Args)]
struct Words {
    /// The URL and curl's options, as copied
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    words: Vec<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Messages")]
struct Messages {
    /// Send this text first, on each connection; repeat it for more. In a pipe it replaces the input
    #[arg(long, value_name = "TEXT")]
    send: Vec<String>,

    /// Print the first message, and close once the input is sent, or nothing more comes from it for a second
    #[arg(short = '1', long)]
    once: bool,

    /// Exit with 0 as soon as a message contains this text or matches the regular expression between slashes
    #[arg(long, value_name = "TEXT|/REGEX/", value_parser = Expect::parse)]
    expect: Option<Expect>,

    /// Exit with 124 after this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// Keep receiving after the end of the input
    #[arg(short, long)]
    no_close: bool,

    /// How long the peer may be silent after our close before the connection is dropped
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    close_timeout: Duration,

    /// Connect again when the connection ends, unless trying again cannot help; the delay is random and grows. Messages
    /// that wait for a connection are kept; those already handed to a connection that then breaks may be lost
    #[arg(short, long)]
    reconnect: bool,

    /// Read and write binary messages in this form
    #[arg(long, value_name = "FORM", value_enum)]
    binary: Option<Binary>,
}

impl Messages {
    /// Whether a message is waited for, after which it ends.
    fn awaits_one(&self) -> bool {
        self.once || self.expect.is_some()
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Output")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Looks {
    /// Show addresses, TLS, the heads of the handshake, pings, and the size of each message
    #[arg(short, long)]
    verbose: bool,

    /// Print each event as a line of JSON: open, message, ping, pong, close, reconnect, error
    #[arg(long, conflicts_with = "binary")]
    json: bool,

    /// Indent messages that are JSON
    #[arg(long, visible_alias = "json-pretty")]
    pretty: bool,

    /// Begin each message with the time, in UTC
    #[arg(short, long)]
    timestamps: bool,

    /// When to use colors
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,

    /// Do not read or write the history of the prompt
    #[arg(long)]
    no_history: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

pub(crate) fn run(mut arguments: Arguments) -> Result<Exit, Box<dyn Error>> {
    let prepared = prepare(&mut arguments);
    let (url, client) = match prepared {
        Ok(prepared) => prepared,
        Err(wrong) => {
            crate::output::fail(wrong);
            return Ok(Exit::Usage);
        }
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(start(&arguments, url, client))?;
    // A thread may still wait for the input, which would wait for it in turn.
    runtime.shutdown_background();
    Ok(exit)
}

/// The URL and the client for it; a line for curl has changed the arguments.
fn prepare(arguments: &mut Arguments) -> Result<(String, Client), String> {
    let url = match arguments.copied.take() {
        Some(CopiedCommand::Curl(Words { words })) => {
            let copied = Copied::parse(&words, std::mem::take(&mut arguments.dial), is_option)?;
            arguments.dial = copied.dial;
            arguments.looks.verbose |= copied.is_verbose;
            copied.url
        }
        None => arguments.url.clone().unwrap_or_default(),
    };
    let largest = arguments.dial.max_size.map(u32::try_from);
    if arguments.messages.binary == Some(Binary::Length) && matches!(largest, Some(Err(_))) {
        return Err("--binary length has 4 bytes for a length: --max-size must be less than 4G".to_owned());
    }
    // How long the peer may be silent is for the session to decide: each message shows that it is not.
    arguments.dial.close_timeout = Some(NEVER);
    let client = arguments.dial.client(&url)?;
    Ok((websocket_url(&url)?, client))
}

/// Whether this is an option of `taut connect`.
fn is_option(text: &str) -> bool {
    let command = <Arguments as clap::Args>::augment_args(clap::Command::new("connect"));
    command.get_arguments().any(|argument| {
        let long = argument.get_long_and_visible_aliases().unwrap_or_default();
        let short = argument.get_short_and_visible_aliases().unwrap_or_default();
        long.iter().any(|name| text.strip_prefix("--") == Some(name))
            || short.iter().any(|name| text.strip_prefix('-') == Some(name.encode_utf8(&mut [0; 4])))
    })
}

async fn start(arguments: &Arguments, url: String, client: Client) -> Result<Exit, Box<dyn Error>> {
    let Arguments { messages, looks, dial, .. } = arguments;
    let has_prompt = has_prompt(messages, looks);
    let show = show(messages, looks, has_prompt);
    let typed = Interrupter::default();
    let prompt = if has_prompt { Some(prompt::open(options(&show, looks, &typed))?) } else { None };
    let signals = Signals::catch(typed)?;
    let (input, above, terminal) = match prompt {
        Some(Prompt { input, above, terminal }) => (input, above, Some(terminal)),
        None => (input_without_prompt(messages, dial), None, None),
    };
    let steps = Steps::default();
    let follows = looks.verbose || matches!(show.mode, Mode::Prompt | Mode::Json);
    let session = Session {
        url,
        dial,
        client: if follows { steps.follow(client, looks.verbose) } else { client },
        plan: plan(messages, has_prompt, looks.verbose),
        show,
        printer: printer(above),
        steps,
        signals,
        input: Some(input),
        progress: Progress::default(),
    };
    let exit = session.run().await;
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    Ok(exit)
}

/// Whether somebody types: not where a message is waited for.
fn has_prompt(messages: &Messages, looks: &Looks) -> bool {
    stdin().is_terminal() && !messages.awaits_one() && !looks.json && messages.binary.is_none()
}

fn show(messages: &Messages, looks: &Looks, has_prompt: bool) -> Show {
    let mode = match (looks.json, stdout().is_terminal()) {
        (true, _) => Mode::Json,
        (_, true) if has_prompt => Mode::Prompt,
        (_, true) => Mode::Terminal,
        _ => Mode::Pipe,
    };
    Show {
        mode,
        binary: messages.binary,
        is_colored: is_colored(looks.color, mode, |name| env::var_os(name)),
        is_unicode: is_unicode(|name| env::var_os(name)),
        is_pretty: looks.pretty,
        has_time: looks.timestamps,
    }
}

fn options(show: &Show, looks: &Looks, interrupter: &Interrupter) -> Options {
    Options {
        prompt: show.prompt(),
        has_history: !looks.no_history,
        prints_above: show.mode == Mode::Prompt,
        say: |text| crate::output::remark(text),
        interrupter: interrupter.clone(),
    }
}

fn input_without_prompt(messages: &Messages, dial: &DialArguments) -> Receiver<Input> {
    if !messages.send.is_empty() || (messages.awaits_one() && stdin().is_terminal()) {
        input::none()
    } else {
        input::from_pipe(messages.binary, dial.max_size.unwrap_or(usize::MAX))
    }
}

fn plan(messages: &Messages, has_prompt: bool, is_verbose: bool) -> Plan {
    Plan {
        greeting: messages.send.iter().cloned().map(Message::from).collect(),
        has_prompt,
        stays_open: messages.no_close,
        is_once: messages.once,
        expect: messages.expect.clone(),
        deadline: messages.timeout.map(|timeout| Instant::now() + timeout),
        reconnects: messages.reconnect,
        is_verbose,
        patience: messages.close_timeout,
    }
}

/// Prints messages to stdout, or above the prompt.
fn printer(above: Option<Above>) -> Printer {
    let print = move |bytes: &[u8]| match &above {
        Some(above) => above.print(&String::from_utf8_lossy(bytes)),
        None => to_stdout(bytes),
    };
    Printer::new(print, |lines| crate::output::remark(lines))
}

/// Whether what people read has colors: messages where stdout is a terminal, the rest on stderr.
fn is_colored(color: Color, mode: Mode, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let is_terminal = if matches!(mode, Mode::Prompt | Mode::Terminal) {
                stdout().is_terminal()
            } else {
                stderr().is_terminal()
            };
            log::is_colored(is_terminal, variable)
        }
    }
}

/// Whether the locale can show arrows: by the first variable of POSIX that is set.
fn is_unicode(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let locale = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    cfg!(windows) || locale.contains("utf-8") || locale.contains("utf8")
}

/// A timeout that does not matter.
const NEVER: Duration = Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  taut connect wss://echo.example
  taut connect :9001/chat -H 'X-Room: 7' --bearer @token
  echo '{\"op\":\"ping\"}' | taut connect -1 wss://api.example/feed
  taut connect --reconnect --no-close wss://api.example/feed </dev/null | jq .price
  taut connect --send subscribe --expect /ready/ --timeout 10s wss://api.example
  taut connect curl 'wss://app.example/feed' -H 'Origin: https://app.example' --compressed

";

const CURL_EXAMPLES: &str = "\
Examples:
  taut connect curl 'wss://app.example/feed' -H 'Origin: https://app.example' --compressed
  taut connect -v --reconnect curl 'wss://app.example/feed' -b 'session=…'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_need_a_locale_that_has_them() {
        let is_unicode = |variables: &[(&str, &str)]| {
            is_unicode(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
        };
        assert!(is_unicode(&[("LANG", "de_DE.UTF-8")]) && is_unicode(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(!is_unicode(&[]) && !is_unicode(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(is_unicode(&[("LC_ALL", ""), ("LANG", "en_US.UTF-8")]));
    }
}
